//! The OpenAPI document: every route with every status and an example for each.
//!
//! What a route takes and answers stands at its handler; its scopes and what can go wrong come from the table of routes.

use std::sync::LazyLock;

use actix_web::http::Method;
use utoipa::OpenApi as _;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, Header, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder, Server,
};

use crate::problem::ProblemKind as Kind;

use super::table::{API, Operations};
use super::wire::{Cost, Links, MEDIA_TYPE, Permission, Route, example};

const BEARER: &str = "bearer";

/// What can go wrong on every route.
const EVERYWHERE: &[Kind] = &[Kind::HeadersTooLarge, Kind::InternalError];
/// What can go wrong wherever somebody has to be somebody.
const OF_CALLERS: &[Kind] = &[
    Kind::InvalidRequest,
    Kind::Unauthenticated,
    Kind::RateLimited,
    Kind::KeysUnavailable,
];
/// What can go wrong where not everybody may.
const OF_RIGHTS: &[Kind] = &[Kind::InsufficientScope, Kind::Forbidden];

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let mut document = Operations::openapi();
    document.servers = Some(vec![Server::new(Links::new(None).server())]);
    add_bearer(&mut document);
    for (route, operation) in operations(&mut document) {
        operation.security = Some(vec![security(route)]);
        add_problems(route, operation);
        add_headers(route, operation);
    }
    document
});

/// The OpenAPI 3.1 document.
#[must_use]
pub fn document() -> &'static Document {
    &DOCUMENT
}

/// The document as JSON, as a gateway serves it whose callers come by these links.
pub(super) fn text(links: &Links) -> String {
    let mut document = DOCUMENT.clone();
    document.servers = Some(vec![Server::new(links.server())]);
    // All of it is text, lists and maps with texts for keys.
    document.to_json().unwrap_or_default()
}

/// The names of the parameters that a route takes in its query.
pub(super) fn query_parameters(path: &str, method: &Method) -> Vec<&'static str> {
    let Some(item) = DOCUMENT.paths.paths.get(path) else {
        return Vec::new();
    };
    let operation = match *method {
        Method::PUT => &item.put,
        Method::DELETE => &item.delete,
        Method::PATCH => &item.patch,
        _ => &item.get,
    };
    let parameters = operation.iter().flat_map(|operation| &operation.parameters);
    let in_query = |parameter: &'static RefOr<Parameter>| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
            Some(parameter.name.as_str())
        }
        _ => None,
    };
    parameters.flatten().filter_map(in_query).collect()
}

fn add_bearer(document: &mut Document) {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "A JWT of a configured issuer; `/whoami` shows what is made of it. Scopes: `shares:read`, `shares:write`, `audit:read`.",
        ));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme.build()));
}

fn security(route: &Route) -> SecurityRequirement {
    let scopes = route.permission.scopes();
    if route.permission == Permission::Anybody {
        SecurityRequirement::default()
    } else {
        SecurityRequirement::new(BEARER, scopes.iter().map(|scope| scope.as_str()))
    }
}

fn add_problems(route: &Route, operation: &mut Operation) {
    let (of_callers, of_rights) = match route.permission {
        Permission::Anybody => (&[][..], &[][..]),
        Permission::KnowItself => (OF_CALLERS, &[][..]),
        _ => (OF_CALLERS, OF_RIGHTS),
    };
    let of_route = route.problems.concat();
    let mut kinds = [EVERYWHERE, of_callers, of_rights, &of_route].concat();
    kinds.sort_by_key(|kind| kind.status());
    for same_status in kinds.chunk_by(|one, other| one.status() == other.status()) {
        let response = problem_response(same_status, route.permission.changes());
        let status = same_status[0].status().to_string();
        let responses = &mut operation.responses.responses;
        responses.insert(status, RefOr::T(response));
    }
}

/// Answers to what is refused before it is counted.
const BEFORE_LIMITS: [&str; 7] = ["400", "401", "406", "408", "413", "415", "431"];
/// Of what a subject's limit counts (draft-ietf-httpapi-ratelimit-headers), where it is on.
const OF_LIMITS: [(&str, &str); 2] = [
    (
        "RateLimit",
        "What is left of the subject's limit, and the seconds until all of it is back: `\"subject\";r=99;t=1`",
    ),
    (
        "RateLimit-Policy",
        "The limit, and the seconds in which all of it comes back: `\"subject\";q=100;w=2`",
    ),
];

/// Headers that answers carry whatever they say.
fn add_headers(route: &Route, operation: &mut Operation) {
    let request_id = ("X-Request-Id", "The request's id, in logs and trail");
    let audit_id = matches!(route.permission, Permission::Change(_)).then_some((
        "Audit-Id",
        "The change's event in the trail, where it has one",
    ));
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            let counts = route.cost != Cost::Nothing && !BEFORE_LIMITS.contains(&status.as_str());
            let of_limit = counts.then_some(OF_LIMITS).into_iter().flatten();
            let all = [request_id].into_iter().chain(audit_id).chain(of_limit);
            for (name, description) in all {
                let header = text_header(description);
                response.headers.insert(name.to_owned(), header.into());
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

fn operations(document: &mut Document) -> impl Iterator<Item = (&'static Route, &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let of_methods = [
            (Method::GET, item.get.as_mut()),
            (Method::PUT, item.put.as_mut()),
            (Method::DELETE, item.delete.as_mut()),
            (Method::PATCH, item.patch.as_mut()),
        ];
        let resource = API.iter().find(|resource| resource.path == path);
        of_methods
            .into_iter()
            .filter_map(move |(method, operation)| {
                let route = resource?.route(&method)?;
                Some((route, operation?))
            })
    })
}
