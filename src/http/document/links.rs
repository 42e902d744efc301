//! What can be asked next with what an answer says (OpenAPI's links).

use actix_web::http::Method;
use utoipa::openapi::RefOr;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::Operation;

use crate::http::wire::path;

/// From this answer to that operation, with these parameters.
struct Next {
    path: &'static str,
    method: Method,
    status: &'static str,
    name: &'static str,
    operation: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    description: &'static str,
}

const SHARE: &[(&str, &str)] = &[
    ("image_id", "$request.path.image_id"),
    ("account_id", "$request.path.account_id"),
];
const EVENT: &[(&str, &str)] = &[("id", "$response.header.Audit-Id")];
const EVENT_DESCRIBED: &str = "The change's event in the trail.";
const NEXT_PAGE: &[(&str, &str)] = &[("cursor", "$response.body#/next_cursor")];
const NEXT_PAGE_DESCRIBED: &str = "The next page, where `next_cursor` is not null.";

const ALL: [Next; 9] = [
    Next {
        path: path::SHARE,
        method: Method::PUT,
        status: "200",
        name: "event",
        operation: "get_event",
        parameters: EVENT,
        description: EVENT_DESCRIBED,
    },
    Next {
        path: path::SHARE,
        method: Method::PUT,
        status: "200",
        name: "share",
        operation: "get_share",
        parameters: SHARE,
        description: "The share as it stands.",
    },
    Next {
        path: path::SHARE,
        method: Method::PUT,
        status: "200",
        name: "unshare",
        operation: "delete_share",
        parameters: SHARE,
        description: "Takes it back.",
    },
    Next {
        path: path::SHARE,
        method: Method::DELETE,
        status: "204",
        name: "event",
        operation: "get_event",
        parameters: EVENT,
        description: EVENT_DESCRIBED,
    },
    Next {
        path: path::SHARE,
        method: Method::GET,
        status: "200",
        name: "event",
        operation: "get_event",
        parameters: &[("id", "$response.body#/audit_id")],
        description: "The event that shared it, where the trail knows one.",
    },
    Next {
        path: path::SHARES,
        method: Method::PATCH,
        status: "200",
        name: "shares",
        operation: "list_shares",
        parameters: &[("image_id", "$request.path.image_id")],
        description: "Who has the image afterwards.",
    },
    Next {
        path: path::IMAGES,
        method: Method::GET,
        status: "200",
        name: "next",
        operation: "list_images",
        parameters: NEXT_PAGE,
        description: NEXT_PAGE_DESCRIBED,
    },
    Next {
        path: path::IMAGE,
        method: Method::GET,
        status: "200",
        name: "shares",
        operation: "list_shares",
        parameters: &[("image_id", "$response.body#/image_id")],
        description: "Who has the image.",
    },
    Next {
        path: path::EVENTS,
        method: Method::GET,
        status: "200",
        name: "next",
        operation: "list_events",
        parameters: NEXT_PAGE,
        description: NEXT_PAGE_DESCRIBED,
    },
];

/// Adds the links of an operation's answers.
pub(super) fn add(path: &str, method: &Method, operation: &mut Operation) {
    let of_operation = ALL
        .iter()
        .filter(|next| next.path == path && next.method == method);
    for next in of_operation {
        let mut link = LinkBuilder::new()
            .operation_id(next.operation)
            .description(next.description);
        for (name, value) in next.parameters {
            link = link.parameter(*name, *value);
        }
        if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(next.status) {
            response
                .links
                .insert(next.name.to_owned(), link.build().into());
        }
    }
}
