//! The one table of routes. The router, `Allow`, `HEAD`, the document, what requests cost and `policy check` come
//! from it.

use actix_web::http::Method;
use actix_web::web;
use utoipa::OpenApi;

use crate::domain::Operation;
use crate::problem::ProblemKind as Kind;

use super::routes::{admin, audit, bulk, document, identity, images, pages, share_list, shares};
use super::wire::{Cost, FieldError, Permission, ProblemBody, Resource, Route, path};

/// Of whatever asks the upstream.
const OF_UPSTREAM: &[Kind] = &[
    Kind::NotFound,
    Kind::UpstreamError,
    Kind::UpstreamUnavailable,
    Kind::AuditUnavailable,
    Kind::Overloaded,
    Kind::UpstreamTimeout,
];
/// Of changes, since a body is waited for, also where none may come.
const OF_CHANGES: &[Kind] = &[Kind::RequestTimeout];
const OF_BODIES: &[Kind] = &[Kind::PayloadTooLarge, Kind::UnsupportedMediaType];
/// Of one account's change; those of a bulk stand in its results.
const OF_ONE_ACCOUNT: &[Kind] = &[Kind::InvalidAccount, Kind::OutcomeUnrecorded];
const OF_REPLACEMENTS: &[Kind] = &[Kind::TooManyRemovals];
const OF_STREAMS: &[Kind] = &[
    Kind::NotAcceptable,
    Kind::AuditUnavailable,
    Kind::Overloaded,
    Kind::HttpVersionNotSupported,
];
const OF_ONE_EVENT: &[Kind] = &[Kind::NotFound, Kind::AuditUnavailable];
const OF_SUMMARIES: &[Kind] = &[Kind::AuditUnavailable];
const OF_THE_DOCUMENT: &[Kind] = &[Kind::InvalidRequest];

/// Makes of one list the rows of the table and the operations of the document.
macro_rules! api {
    ($($path:expr => { $($method:ident $($handler:ident)::+, $permission:expr, $cost:expr, $problems:expr;)+ })+) => {
        /// The API: all that the document tells of.
        pub(super) static API: &[Resource] = &[$(
            Resource {
                path: $path,
                routes: &[$(
                    Route {
                        method: Method::$method,
                        handler: || web::to($($handler)::+),
                        permission: $permission,
                        cost: $cost,
                        problems: $problems,
                    },
                )+],
            },
        )+];

        /// The operations of the API, as their handlers describe them.
        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "image-share-gateway",
                description = "Share CompShare machine images with other accounts, without holding cloud keys. Every \
                    change is authorized, written to an append-only audit trail before it is forwarded, and answered \
                    with what truly happened. Errors are problem details (RFC 9457); on changes they say whether the \
                    change took effect and whether sending it again makes sense."
            ),
            tags(
                (name = "identity", description = "Who you are"),
                (name = "shares", description = "Who may use an image"),
                (name = "images", description = "What can be shared"),
                (name = "audit", description = "Who changed what, why, and how it ended"),
                (name = "operations", description = "Probes and this document"),
            ),
            paths($($($($handler)::+),+),+),
            components(schemas(ProblemBody, FieldError)),
        )]
        pub(super) struct Operations;
    };
}

api! {
    path::WHOAMI => { GET identity::whoami, Permission::KnowItself, Cost::Request, &[]; }
    path::SHARE => {
        PUT    shares::put_share,    Permission::Change(Operation::Share),   Cost::Request, &[OF_UPSTREAM, OF_CHANGES, OF_BODIES, OF_ONE_ACCOUNT];
        DELETE shares::delete_share, Permission::Change(Operation::Unshare), Cost::Request, &[OF_UPSTREAM, OF_CHANGES, OF_ONE_ACCOUNT];
        GET    shares::get_share,    Permission::ListShares,                 Cost::Request, &[OF_UPSTREAM];
    }
    path::SHARES => {
        PUT   bulk::replace_shares, Permission::ReplaceList, Cost::Accounts, &[OF_UPSTREAM, OF_CHANGES, OF_BODIES, OF_REPLACEMENTS];
        PATCH bulk::update_shares,  Permission::ChangeMany,  Cost::Accounts, &[OF_UPSTREAM, OF_CHANGES, OF_BODIES];
        GET   share_list::list_shares, Permission::ListShares,  Cost::Request,  &[OF_UPSTREAM];
    }
    path::IMAGES  => { GET images::list_images,              Permission::ListImages, Cost::Request, &[OF_UPSTREAM]; }
    path::IMAGE   => { GET images::get_image,                Permission::ListShares, Cost::Request, &[OF_UPSTREAM]; }
    path::EVENTS  => { GET audit::events::list_events,       Permission::ReadAudit,  Cost::Request, &[OF_STREAMS]; }
    path::EVENT   => { GET audit::events::get_event,         Permission::ReadAudit,  Cost::Request, &[OF_ONE_EVENT]; }
    path::ENTRIES => { GET audit::entries::feed_entries,     Permission::ReadAudit,  Cost::Request, &[OF_STREAMS]; }
    path::SUMMARY => { GET audit::summary::summarize_events, Permission::ReadAudit,  Cost::Request, &[OF_SUMMARIES]; }
    path::OPENAPI => { GET document::openapi_json,           Permission::Anybody,    Cost::Nothing, &[OF_THE_DOCUMENT]; }
    path::LIVEZ   => { GET admin::livez,                     Permission::Anybody,    Cost::Nothing, &[]; }
    path::READYZ  => { GET admin::readyz,                    Permission::Anybody,    Cost::Nothing, &[]; }
}

/// A page for people: no part of the API.
macro_rules! page {
    ($path:expr => $($handler:ident)::+) => {
        Resource {
            path: $path,
            routes: &[Route {
                method: Method::GET,
                handler: || web::to($($handler)::+),
                permission: Permission::Anybody,
                cost: Cost::Nothing,
                problems: &[],
            }],
        }
    };
}

/// Pages of the REST listener.
pub(super) static PAGES: &[Resource] = &[
    page!(path::ROOT => pages::to_swagger_ui),
    page!(path::SWAGGER_UI => pages::to_swagger_ui),
    page!(path::SWAGGER_UI_FILE => pages::swagger_ui),
];

/// What the admin listener has for itself.
pub(super) static METRICS: &[Resource] = &[page!(path::METRICS => admin::metrics)];

/// What both listeners have.
pub(super) fn probes() -> impl Iterator<Item = &'static Resource> {
    let is_probe = |resource: &&Resource| matches!(resource.path, path::LIVEZ | path::READYZ);
    API.iter().filter(is_probe)
}

/// All of the REST listener.
pub(super) fn rest() -> impl Iterator<Item = &'static Resource> {
    API.iter().chain(PAGES)
}
