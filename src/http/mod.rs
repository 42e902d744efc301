//! REST: paths and bodies in, domain types through the use cases, plain answers and problem details out.
//!
//! Order of checks on every route: the head's size (431), routing (404, 405), authentication (401), path,
//! query and body (400), scope and policy (403). Handlers take one extractor that can fail, since actix
//! polls all of them together and a slow one would lose.

mod accept;
mod admin;
mod audit;
mod body;
mod bulk;
mod caller;
mod client_address;
mod connections;
mod cors;
mod images;
mod observe;
mod openapi;
mod pages;
mod params;
mod parse;
mod problem;
mod rate_limit;
mod requests;
mod shares;
mod stream;

use std::time::Duration;

use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, Resource, Route};

use crate::audit::Reader;
use crate::auth::Authenticator;
use crate::authorization::Authorizer;
use crate::domain::Region;
use crate::problem::ProblemKind;
use crate::sharing::Sharing;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

pub use admin::{Check, Readiness};
pub use client_address::TrustedProxies;
pub use connections::Connections;
pub use cors::cors;
pub use observe::observe;
pub use openapi::document;
use problem::Problem;
pub use rate_limit::RateLimits;
pub use requests::Requests;
pub use stream::Streams;

/// What requests may name and how long they may take.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The region of requests that name none.
    pub region: Region,
    /// The regions that a request may name.
    pub regions: Vec<Region>,
    /// Longest time that a request may take in all.
    pub request_timeout: Duration,
}

/// What the routes need; cheap to clone into each worker.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Checks tokens.
    pub authenticator: Data<Authenticator>,
    /// Decides on reads; changes are decided in their use case.
    pub authorizer: Data<Authorizer>,
    /// The use cases.
    pub sharing: Data<Sharing>,
    /// Looks at the trail.
    pub reader: Data<Reader>,
    /// Runs reads on the main runtime.
    pub tasks: Data<Tasks>,
    /// Bodies that are made while they are sent.
    pub streams: Data<Streams>,
    /// What is being answered.
    pub requests: Data<Requests>,
    /// What requests may name.
    pub rules: Data<Rules>,
    /// How much may be asked.
    pub limits: Data<RateLimits>,
    /// Who is believed about where requests come from.
    pub proxies: Data<TrustedProxies>,
    /// Whether the gateway is ready.
    pub readiness: Data<Readiness>,
    /// Numbers for the admin listener.
    pub metrics: Data<Metrics>,
}

/// Route patterns, as the document, the metrics and the log name them.
mod path {
    pub(super) const SHARE: &str = "/images/{image_id}/shares/{account_id}";
    pub(super) const IMAGES: &str = "/images";
    pub(super) const IMAGE: &str = "/images/{image_id}";
    pub(super) const SHARES: &str = "/images/{image_id}/shares";
    pub(super) const EVENTS: &str = "/audit/events";
    pub(super) const EVENT: &str = "/audit/events/{id}";
    pub(super) const ENTRIES: &str = "/audit/entries";
    pub(super) const SUMMARY: &str = "/audit/summary";
    pub(super) const OPENAPI: &str = "/openapi.json";
    pub(super) const SWAGGER_UI: &str = "/swagger-ui";
    /// The page itself, as the document names it; [`SWAGGER_UI_FILE`] serves it.
    pub(super) const SWAGGER_UI_PAGE: &str = "/swagger-ui/";
    pub(super) const SWAGGER_UI_FILE: &str = "/swagger-ui/{file:.*}";
    pub(super) const LIVEZ: &str = "/livez";
    pub(super) const READYZ: &str = "/readyz";
    pub(super) const METRICS: &str = "/metrics";
    pub(super) const ROOT: &str = "/";
    pub(super) const ALL: [&str; 15] = [
        IMAGES,
        IMAGE,
        SHARE,
        SHARES,
        EVENTS,
        EVENT,
        ENTRIES,
        SUMMARY,
        OPENAPI,
        SWAGGER_UI,
        SWAGGER_UI_FILE,
        LIVEZ,
        READYZ,
        METRICS,
        ROOT,
    ];
}

/// The routes of the REST listener.
pub fn routes(parts: &Parts, config: &mut ServiceConfig) {
    config
        .app_data(parts.authenticator.clone())
        .app_data(parts.authorizer.clone())
        .app_data(parts.sharing.clone())
        .app_data(parts.reader.clone())
        .app_data(parts.tasks.clone())
        .app_data(parts.streams.clone())
        .app_data(parts.rules.clone())
        .app_data(parts.limits.clone())
        .app_data(parts.proxies.clone())
        .service(
            resource(path::SHARE, "DELETE, GET, HEAD, PUT")
                .route(web::put().to(shares::put_share))
                .route(web::delete().to(shares::delete_share))
                .route(web::get().to(shares::get_share))
                .route(web::head().to(shares::get_share)),
        )
        .service(
            resource(path::SHARES, "GET, HEAD, PATCH, PUT")
                .route(web::put().to(bulk::replace_shares))
                .route(web::patch().to(bulk::update_shares))
                .route(web::get().to(shares::list_shares))
                .route(web::head().to(shares::list_shares)),
        )
        .service(readable(
            path::IMAGES,
            || web::get().to(images::list_images),
            || web::head().to(images::list_images),
        ))
        .service(readable(
            path::IMAGE,
            || web::get().to(images::get_image),
            || web::head().to(images::get_image),
        ))
        .service(readable(
            path::EVENTS,
            || web::get().to(audit::events::list_events),
            || web::head().to(audit::events::list_events),
        ))
        .service(readable(
            path::EVENT,
            || web::get().to(audit::events::get_event),
            || web::head().to(audit::events::get_event),
        ))
        .service(readable(
            path::ENTRIES,
            || web::get().to(audit::entries::feed_entries),
            || web::head().to(audit::entries::feed_entries),
        ))
        .service(readable(
            path::SUMMARY,
            || web::get().to(audit::summary::summarize_events),
            || web::head().to(audit::summary::summarize_events),
        ))
        .service(readable(
            path::OPENAPI,
            || web::get().to(openapi::serve),
            || web::head().to(openapi::serve),
        ))
        .service(readable(
            path::SWAGGER_UI,
            || web::get().to(pages::to_swagger_ui),
            || web::head().to(pages::to_swagger_ui),
        ))
        .service(readable(
            path::SWAGGER_UI_FILE,
            || web::get().to(pages::swagger_ui),
            || web::head().to(pages::swagger_ui),
        ))
        .service(readable(
            path::ROOT,
            || web::get().to(pages::to_swagger_ui),
            || web::head().to(pages::to_swagger_ui),
        ));
    probes(parts, config);
}

/// The routes of the admin listener.
pub fn admin_routes(parts: &Parts, config: &mut ServiceConfig) {
    config.app_data(parts.metrics.clone()).service(readable(
        path::METRICS,
        || web::get().to(admin::metrics),
        || web::head().to(admin::metrics),
    ));
    probes(parts, config);
}

fn probes(parts: &Parts, config: &mut ServiceConfig) {
    config
        .app_data(parts.readiness.clone())
        .service(readable(
            path::LIVEZ,
            || web::get().to(admin::livez),
            || web::head().to(admin::livez),
        ))
        .service(readable(
            path::READYZ,
            || web::get().to(admin::readyz),
            || web::head().to(admin::readyz),
        ))
        .default_service(web::to(no_such_path));
}

/// A resource whose other methods are answered with 405 and these in `Allow`.
fn resource(path: &'static str, allow: &'static str) -> Resource {
    let refuse = move || async move { Err::<&str, _>(Problem::method_not_allowed(allow)) };
    web::resource(path).default_service(web::to(refuse))
}

fn readable(path: &'static str, get: fn() -> Route, head: fn() -> Route) -> Resource {
    resource(path, "GET, HEAD").route(get()).route(head())
}

async fn no_such_path(_request: HttpRequest) -> Result<&'static str, Problem> {
    Err(Problem::new(
        ProblemKind::NotFound,
        "there is nothing at this path",
    ))
}
