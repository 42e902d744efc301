//! The OpenAPI document: every route with every status and an example for each.
//!
//! What a route takes and answers stands at its handler; its scopes, formats and limits and what can go wrong come from
//! the table of routes. What several operations share stands once, among the components. Which regions there are is the
//! configuration's: a gateway serves the document with its own.

mod answers;
mod components;
mod headers;
mod links;
mod problems;

use std::sync::LazyLock;

use actix_web::http::Method;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, RefOr, Server};
use utoipa::{OpenApi as _, PartialSchema as _, ToSchema as _};

use crate::config::default_region;
use crate::domain::Region;
use crate::schema;

use super::table::{API, Operations};
use super::wire::{Links, RequestBounds, Route};

const BEARER: &str = "bearer";

/// All but where callers come from and which regions there are.
static WHOLE: LazyLock<Document> = LazyLock::new(|| {
    let mut document = Operations::openapi();
    add_bearer(&mut document);
    problems::add_schemas(&mut document);
    for (path, route, operation) in operations(&mut document) {
        answers::complete(path, route, operation);
        links::add(path, &route.method, operation);
        answers::say_defaults(path, operation);
    }
    components::share(&mut document);
    document
});

/// The OpenAPI 3.1 document of a gateway with the defaults.
#[must_use]
pub fn document() -> Document {
    let region = default_region();
    of_gateway(&Links::new(None), &region, &[&region])
}

/// The document as a gateway serves it whose callers come by these links and may name these regions.
pub(super) fn served(links: &Links, bounds: &RequestBounds) -> Document {
    let regions: Vec<&str> = bounds.regions.iter().map(Region::as_str).collect();
    of_gateway(links, bounds.region.as_str(), &regions)
}

fn of_gateway(links: &Links, region: &str, regions: &[&str]) -> Document {
    let mut document = WHOLE.clone();
    document.servers = Some(vec![Server::new(links.server())]);
    let components = document.components.get_or_insert_default();
    if let RefOr::T(Schema::Object(mut named)) = schema::Region::schema() {
        named.enum_values = Some(regions.iter().copied().map(Into::into).collect());
        named.default = Some(region.into());
        named.min_length = None;
        let name = schema::Region::name().into_owned();
        components
            .schemas
            .insert(name, Schema::Object(named).into());
    }
    for (_, _, operation) in operations(&mut document) {
        answers::name_region(operation, region);
    }
    document
}

/// The names of the parameters that a route takes in its query.
pub(super) fn query_parameters(path: &str, method: &Method) -> Vec<&'static str> {
    let components = WHOLE.components.as_ref();
    let resolve = |parameter: &'static RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next()?;
            match components?.parameters.get(name)? {
                RefOr::T(parameter) => Some(parameter),
                RefOr::Ref(_) => None,
            }
        }
    };
    let Some(item) = WHOLE.paths.paths.get(path) else {
        return Vec::new();
    };
    let operation = match *method {
        Method::PUT => &item.put,
        Method::DELETE => &item.delete,
        Method::PATCH => &item.patch,
        _ => &item.get,
    };
    let parameters = operation.iter().flat_map(|operation| &operation.parameters);
    parameters
        .flatten()
        .filter_map(resolve)
        .filter(|parameter| parameter.parameter_in == ParameterIn::Query)
        .map(|parameter| parameter.name.as_str())
        .collect()
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

/// Each operation with its path and its row of the table.
fn operations(
    document: &mut Document,
) -> impl Iterator<Item = (&str, &'static Route, &mut Operation)> {
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
                Some((path.as_str(), route, operation?))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page for people is no part of the document.
    #[test]
    fn answers_have_the_formats_of_their_route() {
        let mut document = document();
        let mut seen = 0;
        for (path, route, operation) in operations(&mut document) {
            let RefOr::T(answer) = &operation.responses.responses["200"] else {
                panic!("{path} is answered by reference");
            };
            let told: Vec<&str> = answer.content.keys().map(String::as_str).collect();
            let formats = route
                .formats
                .iter()
                .filter(|format| **format != "text/html");
            assert_eq!(told, formats.copied().collect::<Vec<_>>(), "{path}");
            seen += 1;
        }
        assert!(seen > 15, "{seen}");
    }
}
