//! The one table of routes. The router, `Allow`, `HEAD`, the document, what requests cost and `policy check` come
//! from it.

use actix_web::http::Method;
use actix_web::web;
use utoipa::OpenApi;

use crate::audit::Entry;
use crate::domain::Operation;
use crate::problem::ProblemKind as Kind;

use super::routes::pages::{self, console, problems, swagger_ui};
use super::routes::{admin, audit, bulk, document, identity, images, share_list, shares};
use super::wire::{Cost, FieldError, Permission, ProblemBody, Resource, Route, path};

const JSON: &[&str] = &[document::JSON];
const YAML: &[&str] = &[document::YAML];

/// Of whatever asks the upstream.
const OF_UPSTREAM: &[Kind] = &[
    Kind::NotFound,
    Kind::UpstreamError,
    Kind::UpstreamUnavailable,
    Kind::Overloaded,
    Kind::UpstreamTimeout,
];
/// Of changes, since a body is waited for, also where none may come.
const OF_CHANGES: &[Kind] = &[Kind::RequestTimeout];
const OF_BODIES: &[Kind] = &[Kind::PayloadTooLarge, Kind::UnsupportedMediaType];
/// Of one account's change; those of a bulk stand in its results.
const OF_ONE_ACCOUNT: &[Kind] = &[Kind::InvalidAccount, Kind::OutcomeUnrecorded];
const OF_REPLACEMENTS: &[Kind] = &[Kind::TooManyRemovals];
/// Of whatever looks at the trail.
const OF_TRAIL: &[Kind] = &[Kind::AuditUnavailable];
/// Of whatever is named by its path.
const OF_ONE: &[Kind] = &[Kind::NotFound];
/// Of what anybody may ask, but not in any way.
const OF_ANYBODY: &[Kind] = &[Kind::InvalidRequest];

const DESCRIPTION: &str = "\
Share CompShare machine images with other accounts, without holding cloud keys. Every change is authorized, written to an \
append-only audit trail before it is forwarded, and answered with what truly happened.

**Errors** are problem details (RFC 9457). Their `type` tells them apart and leads to what each means. On changes they say \
whether the change took effect (`effect`) and whether sending it again makes sense (`retryable`).

**Every answer** carries `X-Request-Id`; what has an event in the trail carries `Audit-Id`; what counts against your limit \
says what is left (`RateLimit`). `HEAD` works where `GET` does.

**Pages** follow one another by `next_cursor`, or by the header `Link`.";

/// Makes of one list the rows of the table and the operations of the document.
macro_rules! api {
    ($($path:expr => { $($method:ident $($handler:ident)::+, $permission:expr, $cost:expr, $formats:expr, $problems:expr;)+ })+) => {
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
                        formats: $formats,
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
                description = DESCRIPTION,
                contact(name = "Whoever runs this gateway"),
            ),
            tags(
                (name = "identity", description = "Who you are: what the gateway makes of your token. The first thing to try."),
                (name = "shares", description = "Who may use an image. Changes are idempotent, take a `reason`, and are in the \
                    audit trail before they are forwarded; `dry_run=true` says what one would do."),
                (name = "images", description = "What can be shared: the owner's own images, as the upstream lists them."),
                (name = "audit", description = "Who changed what, when, why, and how it ended: page by page, counted over time, \
                    as one stream, or row by row with the hashes that chain them."),
                (name = "operations", description = "Probes, the catalogue of problems, and this document."),
            ),
            paths($($($($handler)::+),+),+),
            components(schemas(ProblemBody, FieldError, Entry, audit::events::EventOrder)),
        )]
        pub(super) struct Operations;
    };
}

api! {
    path::WHOAMI => { GET identity::whoami, Permission::KnowItself, Cost::Request, JSON, &[]; }
    path::SHARE => {
        PUT    shares::put_share,    Permission::Change(Operation::Share),   Cost::Request, JSON, &[OF_UPSTREAM, OF_TRAIL, OF_CHANGES, OF_BODIES, OF_ONE_ACCOUNT];
        DELETE shares::delete_share, Permission::Change(Operation::Unshare), Cost::Request, JSON, &[OF_UPSTREAM, OF_TRAIL, OF_CHANGES, OF_ONE_ACCOUNT];
        GET    shares::get_share,    Permission::ListShares,                 Cost::Request, JSON, &[OF_UPSTREAM, OF_TRAIL];
    }
    path::SHARES => {
        PUT   bulk::replace_shares, Permission::ReplaceList, Cost::Accounts, JSON, &[OF_UPSTREAM, OF_TRAIL, OF_CHANGES, OF_BODIES, OF_REPLACEMENTS];
        PATCH bulk::update_shares,  Permission::ChangeMany,  Cost::Accounts, JSON, &[OF_UPSTREAM, OF_TRAIL, OF_CHANGES, OF_BODIES];
        GET   share_list::list_shares, Permission::ListShares,  Cost::Request,  JSON, &[OF_UPSTREAM, OF_TRAIL];
    }
    path::IMAGES  => { GET images::list_images,              Permission::ListImages, Cost::Request, JSON, &[OF_UPSTREAM]; }
    path::IMAGE   => { GET images::get_image,                Permission::ListShares, Cost::Request, JSON, &[OF_UPSTREAM]; }
    path::EVENTS  => { GET audit::events::list_events,       Permission::ReadAudit,  Cost::Request, &audit::events::MEDIA_TYPES, &[OF_TRAIL]; }
    path::EVENT   => { GET audit::events::get_event,         Permission::ReadAudit,  Cost::Request, JSON, &[OF_TRAIL, OF_ONE]; }
    path::ENTRIES => { GET audit::entries::feed_entries,     Permission::ReadAudit,  Cost::Request, &audit::entries::MEDIA_TYPES, &[OF_TRAIL]; }
    path::SUMMARY => { GET audit::summary::summarize_events, Permission::ReadAudit,  Cost::Request, JSON, &[OF_TRAIL]; }
    path::PROBLEMS_BARE => { GET problems::list_problems,         Permission::Anybody,    Cost::Nothing, &problems::MEDIA_TYPES, &[OF_ANYBODY]; }
    path::PROBLEM  => { GET problems::get_problem,           Permission::Anybody,    Cost::Nothing, &problems::MEDIA_TYPES, &[OF_ANYBODY, OF_ONE]; }
    path::OPENAPI => { GET document::openapi_json,           Permission::Anybody,    Cost::Nothing, JSON, &[OF_ANYBODY]; }
    path::OPENAPI_YAML => { GET document::openapi_yaml,      Permission::Anybody,    Cost::Nothing, YAML, &[OF_ANYBODY]; }
    path::LIVEZ   => { GET admin::livez,                     Permission::Anybody,    Cost::Nothing, JSON, &[]; }
    path::READYZ  => { GET admin::readyz,                    Permission::Anybody,    Cost::Nothing, JSON, &[]; }
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
                formats: &[],
                problems: &[],
            }],
        }
    };
}

/// Pages of the REST listener.
pub(super) static PAGES: &[Resource] = &[
    page!(path::ROOT => pages::to_swagger_ui),
    page!(path::SWAGGER_UI => pages::to_swagger_ui),
    page!(path::SWAGGER_UI_FILE => swagger_ui::swagger_ui),
    page!(path::CONSOLE => pages::to_console),
    page!(path::SANDBOX_TOKENS => console::sandbox_tokens),
    page!(path::CONSOLE_FILE => console::console),
    page!(path::PROBLEMS => problems::list_problems),
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
