//! REST: paths and bodies in, domain types through the use cases, plain answers and problem details out.
//!
//! Three rooms with one direction: [`edge`] is where requests come in, [`wire`] how they are read and answers written,
//! [`routes`] what is done; edge and routes use wire, routes use edge, and only the table of routes uses routes.
//!
//! Order of checks on every route: the head's size (431), routing (404, 405), authentication (401), path,
//! query and body (400), rate limit (429), scope and policy (403). Handlers take one extractor that can fail, since
//! actix polls all of them together and a slow one would lose.

mod document;
mod edge;
mod requested;
mod router;
mod routes;
mod table;
mod wire;

use actix_web::web::{Data, ServiceConfig};

use crate::audit::Reader;
use crate::auth::{Authenticator, SandboxTokens};
use crate::authorization::Authorizer;
use crate::sharing::Sharing;
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, Traces};

pub use document::document;
pub use edge::{
    Answers, Connections, OverTls, RateLimits, Serving, TrustedProxies, cors, listen, observe,
    serve,
};
pub use requested::{NotRequested, Requested, requested};
pub use routes::admin::{Check, Readiness};
pub use routes::document::{DocumentText, yaml};
pub use wire::{Links, RequestBounds, Requests, Streams};

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
    /// Makes links to the gateway itself.
    pub links: Data<Links>,
    /// The document, as it is served.
    pub document: Data<DocumentText>,
    /// The tokens that pages offer in a sandbox.
    pub sandbox_tokens: Data<Option<SandboxTokens>>,
    /// What requests may name.
    pub bounds: Data<RequestBounds>,
    /// How much may be asked.
    pub limits: Data<RateLimits>,
    /// Who is believed about where requests come from.
    pub proxies: Data<TrustedProxies>,
    /// Whether the gateway is ready.
    pub readiness: Data<Readiness>,
    /// Numbers for the admin listener.
    pub metrics: Data<Metrics>,
    /// Makes spans of requests.
    pub traces: Data<Traces>,
}

/// The document for callers who come by these links and may name what these bounds say.
#[must_use]
pub fn document_text(links: &Links, bounds: &RequestBounds) -> DocumentText {
    DocumentText::new(links.clone(), bounds.clone(), document::served)
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
        .app_data(parts.bounds.clone())
        .app_data(parts.limits.clone())
        .app_data(parts.proxies.clone())
        .app_data(parts.readiness.clone())
        .app_data(Data::new(routes::admin::Detail::Hidden))
        .app_data(parts.links.clone())
        .app_data(parts.document.clone())
        .app_data(parts.sandbox_tokens.clone());
    router::serve(table::rest(), config);
}

/// The routes of the admin listener.
pub fn admin_routes(parts: &Parts, config: &mut ServiceConfig) {
    config
        .app_data(parts.metrics.clone())
        .app_data(parts.readiness.clone())
        .app_data(Data::new(routes::admin::Detail::Shown));
    router::serve(table::METRICS.iter().chain(table::probes()), config);
}
