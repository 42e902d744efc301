//! What the table of routes says of an operation: who may ask, what can go wrong, which headers answers have.

use serde_json::Value;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, RefOr, Required, Response, ResponseBuilder};

use super::{BEARER, headers, problems};
use crate::domain::Operation as Change;
use crate::http::routes::images::LIMIT_MAX as LIMIT_MAX_IMAGES;
use crate::http::wire::{Cost, MEDIA_TYPE, Permission, Route, example, path};
use crate::problem::ProblemKind as Kind;

/// Statuses of what is refused before it is counted.
const BEFORE_LIMITS: [&str; 7] = ["400", "401", "406", "408", "413", "415", "431"];
/// Statuses of what is refused before an intent is written or although none is, where it is about one account.
const WITHOUT_EVENT: [&str; 8] = ["400", "401", "406", "408", "413", "415", "429", "431"];

/// Completes an operation on `path` by its row of the table.
pub(super) fn complete(path: &str, route: &Route, operation: &mut Operation) {
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
        let response = problem_response(path, route, same_status);
        let status = same_status[0].status().to_string();
        let responses = &mut operation.responses.responses;
        responses.insert(status, RefOr::T(response));
    }
    add_headers(route, operation);
}

/// What holds of a parameter that is not given, where the words at the handler cannot say it.
const DEFAULTS: [(&str, &str, Default); 3] = [
    (path::ENTRIES, "follow", Default::No),
    (path::EVENTS, "bom", Default::No),
    (path::IMAGES, "limit", Default::Number(LIMIT_MAX_IMAGES)),
];

#[derive(Clone, Copy)]
enum Default {
    No,
    Number(usize),
}

/// Says what holds of parameters that are not given.
pub(super) fn say_defaults(path: &str, operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else {
            continue;
        };
        let known = DEFAULTS
            .iter()
            .find(|(of, name, _)| *of == path && *name == parameter.name);
        if let (Some((_, _, default)), Some(RefOr::T(Schema::Object(schema)))) =
            (known, &mut parameter.schema)
        {
            schema.default = Some(match default {
                Default::No => false.into(),
                Default::Number(number) => (*number).into(),
            });
        }
    }
}

/// Puts this region into the examples of answers.
pub(super) fn name_region(operation: &mut Operation, region: &str) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            for content in response.content.values_mut() {
                if let RefOr::T(content) = content {
                    content
                        .example
                        .iter_mut()
                        .for_each(|example| put_region(example, region));
                }
            }
        }
    }
}

fn put_region(example: &mut Value, region: &str) {
    match example {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "region" {
                    *member = region.into();
                } else {
                    put_region(member, region);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| put_region(item, region)),
        _ => {}
    }
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

fn problem_response(path: &str, route: &Route, kinds: &[Kind]) -> Response {
    let mut content = Content::new(Some(problems::any_of(kinds)));
    for kind in kinds {
        let shown = ExampleBuilder::new()
            .summary(kind.title())
            .value(Some(example(*kind, path, route)));
        content
            .examples
            .insert(kind.slug().to_owned(), shown.build().into());
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
    let answers_with_tag = operation.responses.responses.contains_key("304");
    for (status, response) in &mut operation.responses.responses {
        let (status, RefOr::T(response)) = (status.as_str(), response) else {
            continue;
        };
        headers::add(response, headers::REQUEST_ID);
        let has_event = match route.permission {
            // 200 of one that is taken back is a dry run.
            Permission::Change(Change::Unshare) if status == "200" => false,
            Permission::Change(_) => !WITHOUT_EVENT.contains(&status),
            // Refused as a whole; what is not stands in the results.
            Permission::ChangeMany | Permission::ReplaceList => status == "403",
            _ => false,
        };
        if has_event {
            headers::add(response, headers::AUDIT_ID);
        }
        // Whether a cursor of the feed is one of this trail is looked at after the limit.
        let is_late = status == "400" && route.formats.contains(&"text/event-stream");
        if route.cost != Cost::Nothing && (is_late || !BEFORE_LIMITS.contains(&status)) {
            for header in headers::OF_LIMITS {
                headers::add(response, header);
            }
        }
        if status == "200" && answers_with_tag {
            headers::add(response, headers::ETAG);
        }
        match status {
            "401" | "403" => headers::add(response, headers::WWW_AUTHENTICATE),
            "429" => headers::add(response, headers::RETRY_AFTER),
            "503" if route.permission != Permission::Anybody => {
                headers::add(response, headers::RETRY_AFTER);
            }
            "200" if has_pages => headers::add(response, headers::LINK),
            "304" => headers::add(response, headers::ETAG),
            _ => {}
        }
    }
}
