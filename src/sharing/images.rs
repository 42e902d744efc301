//! The owner's images, as the upstream lists them.

use std::sync::Arc;

use crate::domain::{Deadline, Image, ImageId, Party, Region};

use super::lanes::ReadTerms;
use super::{ListError, Sharing};

/// Some of the owner's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// In the upstream's order.
    pub images: Vec<Image>,
    /// Where the next page begins; absent at the end.
    pub next_offset: Option<usize>,
}

impl Sharing {
    /// Up to `limit` of the owner's images from `offset` on.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn images(
        &self,
        asker: Party,
        region: Region,
        offset: usize,
        limit: usize,
        deadline: Deadline,
    ) -> Result<Images, ListError> {
        let parts = Arc::clone(&self.0);
        let listing = async move {
            let page = parts
                .lanes
                .read(ReadTerms::of(asker, deadline), |connection| {
                    parts.upstream.images(&region, offset, limit, connection)
                });
            let page = page.await?;
            Ok(Images {
                images: page.images,
                next_offset: page.next_offset,
            })
        };
        self.0
            .tasks
            .run(listing)
            .await
            .unwrap_or(Err(ListError::Lost))
    }

    /// One of the owner's images, or `None`.
    ///
    /// # Errors
    /// See [`ListError`].
    pub async fn image(
        &self,
        asker: Party,
        region: Region,
        image_id: ImageId,
        deadline: Deadline,
    ) -> Result<Option<Image>, ListError> {
        let parts = Arc::clone(&self.0);
        let looking = async move {
            let image = parts
                .lanes
                .read(ReadTerms::of(asker, deadline), |connection| {
                    parts.upstream.image(&region, &image_id, connection)
                });
            image.await.map_err(ListError::from)
        };
        self.0
            .tasks
            .run(looking)
            .await
            .unwrap_or(Err(ListError::Lost))
    }
}
