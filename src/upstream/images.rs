//! The owner's own images: the ones that can be shared (`DescribeCompShareCustomImages`).

use serde_json::Value;

use crate::domain::{Image, ImageId, Region, Timestamp};

use super::call_error::CallError;
use super::transport::Connection;
use super::wire::{Action, Answer, integer};
use super::{Upstream, log_failure};

/// Most images of one call (the action's page in UCloud's API documentation).
const IMAGES_PER_CALL_MAX: usize = 100;

/// One call's worth of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePage {
    /// In the upstream's order. An image whose id the gateway could not name is left out.
    pub images: Vec<Image>,
    /// Where the next page begins; absent at the end.
    pub next_offset: Option<usize>,
}

impl Upstream {
    /// Lists up to `limit` of the owner's images from `offset` on.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn images(
        &self,
        region: &Region,
        offset: usize,
        limit: usize,
        connection: Connection,
    ) -> Result<ImagePage, CallError> {
        let mut form = self.form(Action::ListImages, region);
        self.push_zone(&mut form);
        let limit = limit.clamp(1, IMAGES_PER_CALL_MAX);
        form.push("Offset", offset.to_string());
        form.push("Limit", limit.to_string());
        let answer = self.call(Action::ListImages, form, connection).await?;
        read_page(&answer, offset).inspect_err(|error| log_failure(Action::ListImages, error))
    }

    /// One of the owner's images, or `None`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn image(
        &self,
        region: &Region,
        image_id: &ImageId,
        connection: Connection,
    ) -> Result<Option<Image>, CallError> {
        let mut form = self.form(Action::ListImages, region);
        self.push_zone(&mut form);
        form.push("CompShareImageId", image_id.as_str());
        let answer = self.call(Action::ListImages, form, connection).await?;
        let page =
            read_page(&answer, 0).inspect_err(|error| log_failure(Action::ListImages, error))?;
        Ok(page
            .images
            .into_iter()
            .find(|image| image.image_id == *image_id))
    }
}

fn read_page(answer: &Answer, offset: usize) -> Result<ImagePage, CallError> {
    answer.success_of(Action::ListImages)?;
    let listed = answer.list("ImageSet")?;
    if listed.iter().any(|entry| !entry.is_object()) {
        return Err(answer.odd("an image in it is no object"));
    }
    let images = listed.iter().filter_map(read_image).collect();
    let end = offset + listed.len();
    // Actions of this cloud call it by the one name or the other; without either the list ends where a page is empty:
    // the upstream may give fewer than it was asked for.
    let total = ["TotalCount", "Total"]
        .iter()
        .find_map(|name| answer.number(name));
    let total = total.and_then(|total| usize::try_from(total).ok());
    let more = total.is_none_or(|total| end < total);
    Ok(ImagePage {
        images,
        // A page without images ends the list, whatever is said of its length: who follows must get somewhere.
        next_offset: (more && !listed.is_empty()).then_some(end),
    })
}

fn read_image(entry: &Value) -> Option<Image> {
    let text = |name: &str| {
        let text = entry.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let number = |name: &str| entry.get(name).and_then(integer);
    let Some(image_id) = text("CompShareImageId").and_then(|id| id.parse().ok()) else {
        tracing::warn!("the upstream lists an image whose id cannot be named; it is left out");
        return None;
    };
    Some(Image {
        image_id,
        name: text("Name"),
        status: text("Status"),
        description: text("Description"),
        size_mb: number("Size"),
        created_at: number("CreateTime")
            .and_then(|seconds| seconds.checked_mul(1_000_000))
            .map(Timestamp::from_micros),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::upstream::transport::Exchange;

    fn page(body: &Value, offset: usize) -> Result<ImagePage, CallError> {
        let exchange = Exchange {
            body: body.to_string().into_bytes(),
            request_id: None,
        };
        read_page(&Answer::read(exchange)?, offset)
    }

    fn listing(images: &[&str], total: Option<u64>) -> Value {
        let images: Vec<Value> = images
            .iter()
            .map(|id| json!({"CompShareImageId": id, "Name": "", "Size": "2048", "CreateTime": 1_767_225_600}))
            .collect();
        let mut answer = json!({"Action": "DescribeCompShareCustomImagesResponse", "RetCode": 0, "ImageSet": images});
        if let Some(total) = total {
            answer["TotalCount"] = json!(total);
        }
        answer
    }

    #[test]
    fn an_image_is_read_with_what_there_is_of_it() {
        let read = page(&listing(&["img-1"], Some(1)), 0).expect("a page");
        let image = Image {
            image_id: "img-1".parse().expect("an id"),
            name: None,
            status: None,
            description: None,
            size_mb: Some(2048),
            created_at: Some(Timestamp::from_micros(1_767_225_600_000_000)),
        };
        assert_eq!(read.images, [image]);
        assert_eq!(read.next_offset, None);
    }

    #[test]
    fn pages_follow_one_another_by_the_total_or_else_until_one_is_empty() {
        let next = |images: &[&str], total, offset| {
            page(&listing(images, total), offset)
                .expect("a page")
                .next_offset
        };
        assert_eq!(next(&["a", "b"], Some(5), 0), Some(2));
        assert_eq!(next(&["a"], Some(5), 4), None);
        assert_eq!(next(&["a", "b"], None, 2), Some(4));
        assert_eq!(next(&["a"], None, 4), Some(5));
        assert_eq!(next(&[], None, 5), None);
        assert_eq!(next(&[], Some(5), 2), None, "nothing comes of going on");
        let mut other_name = listing(&["a", "b"], None);
        other_name["Total"] = json!(5);
        assert_eq!(page(&other_name, 0).expect("a page").next_offset, Some(2));
        assert_eq!(page(&other_name, 3).expect("a page").next_offset, None);
        assert_eq!(
            next(&["/", "b"], Some(5), 2),
            Some(4),
            "one is left out, two were passed"
        );
    }

    #[test]
    fn what_is_no_list_of_images_is_garbled() {
        let mut odd = listing(&[], Some(0));
        odd["ImageSet"] = json!(["img-1"]);
        assert!(matches!(page(&odd, 0), Err(CallError::Garbled { .. })));
    }
}
