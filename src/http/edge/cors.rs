//! Which pages of other origins may call (the Fetch standard's CORS protocol): none, unless they are named.

use std::time::Duration;

use actix_cors::{Cors, CorsError};
use actix_web::http::header::{self, HeaderMap};
use actix_web::middleware::Condition;

use crate::http::wire::Problem;

/// How long a browser may remember what it may send.
const PREFLIGHT_AGE: Duration = Duration::from_hours(1);
const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "DELETE", "PATCH"];
const REQUEST_HEADERS: [&str; 7] = [
    "authorization",
    "accept",
    "content-type",
    "last-event-id",
    "prefer",
    "traceparent",
    "x-request-id",
];
/// What a page may read of an answer besides what any may.
const RESPONSE_HEADERS: [&str; 7] = [
    "audit-id",
    "link",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "www-authenticate",
    "x-request-id",
];

/// The middleware for these origins; it does nothing where there are none.
#[must_use]
pub fn cors(origins: &[String]) -> Condition<Cors> {
    let mut cors = Cors::default()
        .allowed_methods(METHODS)
        .allowed_headers(REQUEST_HEADERS)
        .expose_headers(RESPONSE_HEADERS)
        .max_age(usize::try_from(PREFLIGHT_AGE.as_secs()).ok());
    for origin in origins {
        cors = cors.allowed_origin(origin);
    }
    Condition::new(!origins.is_empty(), cors)
}

/// What a page is told that asks for what it may not; its browser shows it in the console.
pub(super) fn refused(error: &CorsError) -> Problem {
    let (name, detail) = match error {
        CorsError::OriginNotAllowed | CorsError::MissingOrigin | CorsError::WildcardOrigin => {
            ("Origin", "is none that browsers may call from")
        }
        CorsError::HeadersNotAllowed | CorsError::BadRequestHeaders => (
            "Access-Control-Request-Headers",
            "names a header that may not be sent",
        ),
        _ => (
            "Access-Control-Request-Method",
            "is no method that may be used",
        ),
    };
    Problem::invalid_value("header", name, detail)
}

/// Takes over what the middleware added, into an answer that takes another's place.
pub(super) fn keep_headers(from: &HeaderMap, to: &mut HeaderMap) {
    let added = from
        .iter()
        .filter(|(name, _)| *name == header::VARY || name.as_str().starts_with("access-control-"));
    for (name, value) in added {
        to.append(name.clone(), value.clone());
    }
}
