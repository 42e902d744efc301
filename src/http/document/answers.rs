//! What the table of routes says of an operation: who may ask, what can go wrong, which headers answers have.

use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, Ref, RefOr, Required, Response, ResponseBuilder};

use super::components::example_name;
use super::{BEARER, headers, problems};
use crate::http::wire::{Cost, MEDIA_TYPE, Permission, Route};
use crate::problem::ProblemKind as Kind;

/// Statuses of what is refused before it is counted.
const BEFORE_LIMITS: [&str; 8] = ["400", "401", "406", "408", "413", "415", "431", "505"];
/// Statuses of what is refused before an intent is written or although none is, where it is about one account.
const WITHOUT_EVENT: [&str; 8] = ["400", "401", "406", "408", "413", "415", "429", "431"];

/// Completes an operation by its row of the table.
pub(super) fn complete(route: &Route, operation: &mut Operation) {
    operation.security = Some(vec![security(route)]);
    let summary = operation.summary.as_deref().unwrap_or_default();
    operation.summary = Some(summary.trim_end_matches('.').to_owned());
    tell_scopes(route, operation);
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        // That of one account repeats what path and query say.
        let optional = matches!(route.permission, Permission::Change(_));
        body.required = Some(if optional {
            Required::False
        } else {
            Required::True
        });
    }
    let kinds = route.all_problems();
    for same_status in kinds.chunk_by(|one, other| one.status() == other.status()) {
        let response = problem_response(route, same_status);
        let status = same_status[0].status().to_string();
        let responses = &mut operation.responses.responses;
        responses.insert(status, RefOr::T(response));
    }
    add_headers(route, operation);
}

fn security(route: &Route) -> SecurityRequirement {
    if route.permission == Permission::Anybody {
        SecurityRequirement::default()
    } else {
        SecurityRequirement::new(BEARER, [] as [&str; 0])
    }
}

/// Scopes stand in words and in an extension: OpenAPI 3.1 allows them in the requirement of a bearer scheme, but tools take
/// them there for those of OAuth 2 alone.
fn tell_scopes(route: &Route, operation: &mut Operation) {
    let scopes = route.permission.scopes();
    let needed: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let named: Vec<String> = needed.iter().map(|scope| format!("`{scope}`")).collect();
    let sentence = match named.as_slice() {
        [] => return,
        [one] => format!("Needs the scope {one}."),
        several => format!("Needs the scopes {}.", several.join(" and ")),
    };
    let description = operation.description.take().unwrap_or_default();
    operation.description = Some(format!("{description}\n\n{sentence}").trim().to_owned());
    let extension = ExtensionsBuilder::new().add("x-scopes", needed);
    operation.extensions = Some(extension.build());
}

fn problem_response(route: &Route, kinds: &[Kind]) -> Response {
    let mut content = Content::new(Some(problems::any_of(kinds)));
    for kind in kinds {
        let name = example_name(*kind, route.permission);
        let reference = Ref::new(format!("#/components/examples/{name}"));
        content
            .examples
            .insert(kind.slug().to_owned(), RefOr::Ref(reference));
    }
    let titles: Vec<&str> = kinds.iter().map(|kind| kind.title()).collect();
    ResponseBuilder::new()
        .description(titles.join("; "))
        .content(MEDIA_TYPE, content)
        .build()
}

fn add_headers(route: &Route, operation: &mut Operation) {
    let parameters = operation.parameters.iter().flatten();
    let has_pages = parameters.into_iter().any(|parameter| match parameter {
        RefOr::T(parameter) => {
            parameter.name == "cursor" && parameter.parameter_in == ParameterIn::Query
        }
        RefOr::Ref(_) => false,
    });
    for (status, response) in &mut operation.responses.responses {
        let (status, RefOr::T(response)) = (status.as_str(), response) else {
            continue;
        };
        headers::add(response, headers::REQUEST_ID);
        let has_event = match route.permission {
            Permission::Change(_) => !WITHOUT_EVENT.contains(&status),
            // Refused as a whole; what is not stands in the results.
            Permission::ChangeMany | Permission::ReplaceList => status == "403",
            _ => false,
        };
        if has_event {
            headers::add(response, headers::AUDIT_ID);
        }
        if route.cost != Cost::Nothing && !BEFORE_LIMITS.contains(&status) {
            for header in headers::OF_LIMITS {
                headers::add(response, header);
            }
        }
        match status {
            "401" | "403" => headers::add(response, headers::WWW_AUTHENTICATE),
            "429" => headers::add(response, headers::RETRY_AFTER),
            "503" if route.permission != Permission::Anybody => {
                headers::add(response, headers::RETRY_AFTER);
            }
            "200" if has_pages => headers::add(response, headers::LINK),
            _ => {}
        }
    }
}
