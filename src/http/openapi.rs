//! The OpenAPI document: every route with every status and an example for each.
//!
//! Successes stand at the handlers. Problems are added here from one table, since each has the same shape
//! and its kinds follow from what a route does.

use std::sync::LazyLock;

use actix_web::{HttpRequest, HttpResponse};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Content, Header, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder,
};
use utoipa::{Modify, OpenApi};

use crate::problem::ProblemKind as Kind;

use super::parse::Parser;
use super::problem::{FieldError, MEDIA_TYPE, Problem, ProblemBody, example};
use super::{admin, audit, bulk, images, pages, path, shares};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "image-share-gateway",
        description = "Share CompShare machine images with other accounts, without holding cloud keys. Every \
            change is authorized, written to an append-only audit trail before it is forwarded, and answered \
            with what truly happened. Errors are problem details (RFC 9457); on changes they say whether the \
            change took effect and whether sending it again makes sense."
    ),
    paths(
        shares::put_share,
        shares::delete_share,
        shares::get_share,
        shares::list_shares,
        bulk::update_shares,
        bulk::replace_shares,
        images::list_images,
        images::get_image,
        audit::events::list_events,
        audit::events::get_event,
        audit::entries::feed_entries,
        audit::summary::summarize_events,
        serve,
        pages::to_swagger_ui,
        pages::swagger_ui,
        admin::livez,
        admin::readyz,
    ),
    components(schemas(ProblemBody, FieldError)),
    tags(
        (name = "shares", description = "Who may use an image"),
        (name = "images", description = "What can be shared"),
        (name = "audit", description = "Who changed what, why, and how it ended"),
        (name = "operations", description = "Probes and this document"),
    ),
    modifiers(&Bearer, &Problems, &RequestIds)
)]
struct Api;

static DOCUMENT: LazyLock<Document> = LazyLock::new(Api::openapi);
static TEXT: LazyLock<String> = LazyLock::new(|| DOCUMENT.to_json().unwrap_or_default());

/// The OpenAPI 3.1 document.
#[must_use]
pub fn document() -> &'static Document {
    &DOCUMENT
}

/// This document.
#[utoipa::path(
    get, path = path::OPENAPI, operation_id = "openapi", tag = "operations",
    responses((status = 200, description = "The OpenAPI document of this gateway", content_type = "application/json",
        body = serde_json::Value, example = json!({"openapi": "3.1.0"}))),
    security(())
)]
pub(super) async fn serve(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parser::new(&request, &[]).finish(Some(()))?;
    let mut response = HttpResponse::Ok();
    Ok(response
        .content_type("application/json")
        .body(TEXT.as_str()))
}

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
            "A JWT of the configured issuer. Scopes: `shares:read`, `shares:write`, `audit:read`.",
        ));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme.build()));
    }
}

/// What can go wrong on every route.
const EVERYWHERE: [Kind; 2] = [Kind::HeadersTooLarge, Kind::InternalError];
const OF_CALLERS: [Kind; 5] = [
    Kind::InvalidRequest,
    Kind::Unauthenticated,
    Kind::InsufficientScope,
    Kind::Forbidden,
    Kind::RateLimited,
];
const OF_CHANGES: [Kind; 9] = [
    Kind::NotFound,
    Kind::RequestTimeout,
    Kind::InvalidAccount,
    Kind::UpstreamError,
    Kind::UpstreamUnavailable,
    Kind::AuditUnavailable,
    Kind::Overloaded,
    Kind::OutcomeUnrecorded,
    Kind::UpstreamTimeout,
];
const OF_BULKS: [Kind; 3] = [
    Kind::TooManyRemovals,
    Kind::PayloadTooLarge,
    Kind::UnsupportedMediaType,
];
const OF_LISTS: [Kind; 6] = [
    Kind::NotFound,
    Kind::UpstreamError,
    Kind::UpstreamUnavailable,
    Kind::AuditUnavailable,
    Kind::Overloaded,
    Kind::UpstreamTimeout,
];
const OF_SUMMARIES: [Kind; 1] = [Kind::AuditUnavailable];
const OF_STREAMS: [Kind; 3] = [
    Kind::NotAcceptable,
    Kind::AuditUnavailable,
    Kind::Overloaded,
];
const OF_ONE_EVENT: [Kind; 2] = [Kind::NotFound, Kind::AuditUnavailable];

fn kinds(path: &str, method: &HttpMethod) -> Vec<Kind> {
    let own: &[Kind] = match path {
        path::SHARE if changes(method) => &OF_CHANGES,
        path::SHARES if changes(method) => {
            let both = [&EVERYWHERE[..], &OF_CALLERS, &OF_CHANGES, &OF_BULKS].concat();
            let single = [Kind::InvalidAccount, Kind::OutcomeUnrecorded];
            let belongs = |kind: &Kind| {
                // These stand in the results; only a replacement removes what is not named.
                !single.contains(kind)
                    && (*method == HttpMethod::Put || *kind != Kind::TooManyRemovals)
            };
            return both.into_iter().filter(belongs).collect();
        }
        path::SHARE | path::SHARES | path::IMAGES | path::IMAGE => &OF_LISTS,
        path::EVENTS | path::ENTRIES => &OF_STREAMS,
        path::SUMMARY => &OF_SUMMARIES,
        path::EVENT => &OF_ONE_EVENT,
        path::OPENAPI => return [&EVERYWHERE[..], &[Kind::InvalidRequest]].concat(),
        _ => return EVERYWHERE.to_vec(),
    };
    [&EVERYWHERE, &OF_CALLERS[..], own].concat()
}

fn changes(method: &HttpMethod) -> bool {
    matches!(
        method,
        HttpMethod::Put | HttpMethod::Delete | HttpMethod::Patch
    )
}

struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut Document) {
        for (path, method, operation) in operations(document) {
            let changes = changes(&method);
            let mut kinds = kinds(&path, &method);
            kinds.sort_by_key(|kind| kind.status());
            for same_status in kinds.chunk_by(|one, other| one.status() == other.status()) {
                let response = problem_response(same_status, changes);
                operation
                    .responses
                    .responses
                    .insert(same_status[0].status().to_string(), RefOr::T(response));
            }
        }
    }
}

fn problem_response(kinds: &[Kind], changes: bool) -> Response {
    let examples = kinds.iter().map(|kind| {
        let shown = ExampleBuilder::new()
            .summary(kind.title())
            .value(Some(example(*kind, changes)));
        (kind.slug(), shown.build())
    });
    let mut content = Content::new(Some(Ref::from_schema_name("Problem")));
    content
        .examples
        .extend(examples.map(|(slug, shown)| (slug.to_owned(), RefOr::T(shown))));
    let titles: Vec<&str> = kinds.iter().map(|kind| kind.title()).collect();
    let mut response = ResponseBuilder::new()
        .description(titles.join("; "))
        .content(MEDIA_TYPE, content);
    let header = match kinds[0].status() {
        401 | 403 => Some(("WWW-Authenticate", "What is missing (RFC 6750)")),
        429 | 503 => Some(("Retry-After", "Seconds to wait before another try")),
        _ => None,
    };
    if let Some((name, description)) = header {
        response = response.header(name, text_header(description));
    }
    response.build()
}

fn text_header(description: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    HeaderBuilder::new()
        .schema(Some(text))
        .description(Some(description))
        .build()
}

struct RequestIds;

impl Modify for RequestIds {
    fn modify(&self, document: &mut Document) {
        for (path, method, operation) in operations(document) {
            let recorded =
                path == path::SHARE && matches!(method, HttpMethod::Put | HttpMethod::Delete);
            for response in operation.responses.responses.values_mut() {
                let RefOr::T(response) = response else {
                    continue;
                };
                let request_id = text_header("The request's id, in logs and trail");
                response
                    .headers
                    .insert("X-Request-Id".to_owned(), request_id.into());
                if recorded {
                    let audit_id = text_header("The change's event in the trail, where it has one");
                    response
                        .headers
                        .insert("Audit-Id".to_owned(), audit_id.into());
                }
            }
        }
    }
}

fn operations(
    document: &mut Document,
) -> impl Iterator<Item = (String, HttpMethod, &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let of_methods = [
            (HttpMethod::Get, item.get.as_mut()),
            (HttpMethod::Put, item.put.as_mut()),
            (HttpMethod::Delete, item.delete.as_mut()),
            (HttpMethod::Patch, item.patch.as_mut()),
        ];
        let path = path.clone();
        of_methods
            .into_iter()
            .filter_map(move |(method, operation)| Some((path.clone(), method, operation?)))
    })
}
