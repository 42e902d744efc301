//! What can be shared.

use super::{ImageId, Timestamp};

/// An image of the owner's own, as the upstream describes it. What it leaves out is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image.
    pub image_id: ImageId,
    /// What its owner calls it.
    pub name: Option<String>,
    /// Where it stands, in the upstream's word: `Making`, `Available`, `UnAvailable`, `Reviewing`, `Offline`.
    pub status: Option<String>,
    /// What its owner says of it.
    pub description: Option<String>,
    /// Its size in MB.
    pub size_mb: Option<i64>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}
