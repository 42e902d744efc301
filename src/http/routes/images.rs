//! The owner's images: what can be shared.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;

use crate::authorization::{Authorizer, Request};
use crate::domain::{Image, ImageId, Region, Scope};
use crate::problem::ProblemKind;
use crate::schema;
use crate::sharing::Sharing;

use crate::http::edge::Authenticated;
use crate::http::wire::params::{ImagePath, RegionQuery};
use crate::http::wire::{self, Links, Parser, Problem, RequestBounds, path};

/// Most images of a page: what one call of the upstream gives.
pub(in crate::http) const LIMIT_MAX: usize = 100;
/// Where a page can begin at most; a cursor beyond was not made here.
const OFFSET_MAX: usize = 1_000_000_000;

/// An image of the owner's own.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Image)]
pub(in crate::http) struct ImageBody {
    /// The image.
    #[schema(value_type = schema::ImageId)]
    image_id: String,
    /// What its owner calls it.
    #[schema(required)]
    name: Option<String>,
    /// Where it stands, in the upstream's word, such as `Available`.
    #[schema(required)]
    status: Option<String>,
    /// What its owner says of it.
    #[schema(required)]
    description: Option<String>,
    /// Its size in MB.
    #[schema(required)]
    size_mb: Option<i64>,
    /// When it was made.
    #[schema(required, value_type = Option<schema::Time>)]
    created_at: Option<String>,
}

/// A page of images.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ImageList {
    /// In the upstream's order; a page may hold fewer than asked for, even none, while more follow.
    images: Vec<ImageBody>,
    /// Give it as `cursor` for the next page; null at the end.
    #[schema(required)]
    next_cursor: Option<String>,
}

impl From<Image> for ImageBody {
    fn from(image: Image) -> Self {
        Self {
            image_id: image.image_id.as_str().to_owned(),
            name: image.name,
            status: image.status,
            description: image.description,
            size_mb: image.size_mb,
            created_at: image.created_at.map(|time| time.to_string()),
        }
    }
}

/// See which images can be shared.
///
/// The owner's own images, as the upstream lists them now, but for those that a policy hides from the caller; so a
/// page may hold fewer than its limit, even none, and be followed by another. Pages follow one another by `next_cursor`, or the `Link`
/// header; an image that is made or deleted meanwhile may shift them.
#[utoipa::path(
    get, path = path::IMAGES, operation_id = "list_images", tag = "images",
    params(
        ("limit" = Option<u64>, Query, description = "Images of a page.", nullable = false, minimum = 1,
            maximum = 100),
        ("cursor" = Option<String>, Query, description = "Where the page begins: `next_cursor` of the page before.",
            nullable = false, min_length = 1),
        RegionQuery,
    ),
    responses((status = 200, description = "A page of images", body = ImageList, content_type = "application/json",
        example = json!({"images": [{"image_id": "compshareImage-sandbox1", "name": "sandbox1", "status": "Available",
            "description": "an image of the sandbox", "size_mb": 20480, "created_at": "2026-01-01T00:00:00.000000Z"}],
            "next_cursor": null}))),
)]
pub(in crate::http) async fn list_images(
    caller: Authenticated,
    request: HttpRequest,
    sharing: Data<Sharing>,
    authorizer: Data<Authorizer>,
    bounds: Data<RequestBounds>,
    links: Data<Links>,
) -> Result<HttpResponse, Problem> {
    let mut parser = Parser::new(&request, &["limit", "cursor", "region"]);
    let region = parser.region(&bounds);
    let limit = parser.whole_number("limit", 1..=LIMIT_MAX);
    let limit = limit.unwrap_or(LIMIT_MAX);
    let offset = parser.parameter("cursor", |text| parse_cursor(text, &region));
    parser.finish(Some(()))?;
    caller.admit(0)?;
    authorizer.check_scope(&caller.caller().principal, Scope::SharesRead)?;
    let deadline = wire::deadline(&request, &bounds);
    let page = sharing
        .images(
            caller.caller().party(),
            region.clone(),
            offset.unwrap_or(0),
            limit,
            deadline,
        )
        .await?;
    let may_list = |image: &Image| {
        let request = Request::ListShares {
            region: &region,
            image_id: &image.image_id,
        };
        authorizer.permits(caller.caller(), request)
    };
    let images = page.images.into_iter().filter(may_list);
    let images = images.map(ImageBody::from).collect();
    let next_cursor = page.next_offset.map(|offset| cursor(offset, &region));
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = &next_cursor {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("limit", &limit.to_string())
            .append_pair("cursor", cursor)
            .append_pair("region", region.as_str())
            .finish();
        response.insert_header((header::LINK, links.next(&request, &query)));
    }
    Ok(response.json(ImageList {
        images,
        next_cursor,
    }))
}

/// See one image.
///
/// As the upstream lists it now; 404 where it lists none of this id.
#[utoipa::path(
    get, path = path::IMAGE, operation_id = "get_image", tag = "images",
    params(ImagePath, RegionQuery),
    responses((status = 200, description = "The image", body = ImageBody, content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "name": "sandbox1", "status": "Available",
            "description": "an image of the sandbox", "size_mb": 20480,
            "created_at": "2026-01-01T00:00:00.000000Z"}))),
)]
pub(in crate::http) async fn get_image(
    caller: Authenticated,
    request: HttpRequest,
    sharing: Data<Sharing>,
    authorizer: Data<Authorizer>,
    bounds: Data<RequestBounds>,
) -> Result<HttpResponse, Problem> {
    let mut parser = Parser::new(&request, &["region"]);
    let image_id = parser.segment::<ImageId>("image_id");
    let region = parser.region(&bounds);
    let image_id = parser.finish(image_id)?;
    caller.admit(0)?;
    caller.may_list(&authorizer, &region, &image_id)?;
    let deadline = wire::deadline(&request, &bounds);
    let party = caller.caller().party();
    let image = sharing.image(party, region, image_id, deadline).await?;
    let absent = || Problem::new(ProblemKind::NotFound, "the owner has no such image here");
    let image = image.ok_or_else(absent)?;
    Ok(HttpResponse::Ok().json(ImageBody::from(image)))
}

fn cursor(offset: usize, region: &Region) -> String {
    URL_SAFE_NO_PAD.encode(format!("{offset} {region}"))
}

fn parse_cursor(text: &str, region: &Region) -> Result<usize, &'static str> {
    let read = || {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (offset, of) = text.split_once(' ')?;
        let offset = offset.parse().ok().filter(|offset| *offset <= OFFSET_MAX)?;
        (of == region.as_str()).then_some(offset)
    };
    read().ok_or("is no next_cursor of this list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_in_its_own_region_alone() {
        let (here, there) = (
            "cn-wlcb".parse().expect("a region"),
            "cn-sh2".parse().expect("a region"),
        );
        let text = cursor(200, &here);
        assert_eq!(parse_cursor(&text, &here), Ok(200));
        assert!(parse_cursor(&text, &there).is_err());
        for bad in [
            "",
            "x",
            "MjAw",
            &URL_SAFE_NO_PAD.encode("99999999999 cn-wlcb"),
            &format!("{text}A"),
        ] {
            assert!(parse_cursor(bad, &here).is_err(), "{bad}");
        }
    }
}
