//! What operations share: parameters, headers, examples of problems and whole answers stand once, under a name.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::http::StatusCode;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{Components, OpenApi as Document, Ref, RefOr, Response};

use super::problems::pascal_case;
use super::{API, headers, operations};
use crate::domain::Scope;
use crate::http::wire::{Permission, example};
use crate::problem::ProblemKind as Kind;

/// Gives what is shared a name and refers to it.
pub(super) fn share(document: &mut Document) {
    let mut components = document.components.take().unwrap_or_default();
    for (name, header) in headers::all() {
        components.headers.insert(name.to_owned(), header.into());
    }
    add_examples(&mut components);
    share_parameters(document, &mut components);
    share_answers(document, &mut components);
    document.components = Some(components);
}

/// What an example is called that a route of this permission has.
pub(super) fn example_name(kind: Kind, permission: Permission) -> String {
    let slug = kind.slug();
    match (kind, scope(permission)) {
        (Kind::InsufficientScope, Some(scope)) => {
            format!("{slug}-{}", scope.as_str().replace(':', "-"))
        }
        _ if permission.changes() => format!("{slug}-of-change"),
        _ => slug.to_owned(),
    }
}

/// The scope that commonly is missing.
fn scope(permission: Permission) -> Option<Scope> {
    permission.scopes().last().copied()
}

fn add_examples(components: &mut Components) {
    for route in API.iter().flat_map(|resource| resource.routes) {
        for kind in route.all_problems() {
            let shown = example(kind, route.permission.changes(), scope(route.permission));
            let shown = ExampleBuilder::new()
                .summary(kind.title())
                .value(Some(shown));
            let name = example_name(kind, route.permission);
            components.examples.insert(name, shown.build().into());
        }
    }
}

/// A parameter that is the same wherever its name stands in that part of a request, and stands more than once.
fn share_parameters(document: &mut Document, components: &mut Components) {
    let mut places: BTreeMap<(String, String), Vec<Parameter>> = BTreeMap::new();
    for (_, _, operation) in operations(document) {
        for parameter in inline_parameters(operation) {
            let same = places.entry(place(parameter)).or_default();
            same.push(parameter.clone());
        }
    }
    let in_parts = |name: &str| places.keys().filter(|(other, _)| other == name).count();
    let named = places.iter().filter_map(|((name, part), all)| {
        let is_one = all.len() > 1 && all.iter().all(|one| *one == all[0]);
        let word = pascal_case(&name.replace('_', "-"));
        let word = if in_parts(name) == 1 {
            word
        } else {
            format!("{word}In{part}")
        };
        is_one.then(|| ((name.clone(), part.clone()), (word, all[0].clone())))
    });
    let named: BTreeMap<_, _> = named.collect();
    for (_, _, operation) in operations(document) {
        for parameter in operation.parameters.iter_mut().flatten() {
            let RefOr::T(known) = parameter else { continue };
            if let Some((word, _)) = named.get(&place(known)) {
                let reference = Ref::new(format!("#/components/parameters/{word}"));
                *parameter = RefOr::Ref(reference);
            }
        }
    }
    for (word, parameter) in named.into_values() {
        components.parameters.insert(word, parameter.into());
    }
}

/// A parameter's name, and the part of a request where it stands.
fn place(parameter: &Parameter) -> (String, String) {
    let part = match parameter.parameter_in {
        ParameterIn::Path => "Path",
        ParameterIn::Query | ParameterIn::QueryString => "Query",
        ParameterIn::Header => "Header",
        ParameterIn::Cookie => "Cookie",
    };
    (parameter.name.clone(), part.to_owned())
}

fn inline_parameters(operation: &Operation) -> impl Iterator<Item = &Parameter> {
    let all = operation.parameters.iter().flatten();
    all.filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    })
}

/// What routes are alike that share an answer.
fn kin(permission: Permission) -> &'static str {
    match permission {
        Permission::Anybody => "ToAnybody",
        Permission::KnowItself => "ToHolder",
        Permission::Change(_) => "ToChange",
        Permission::ChangeMany | Permission::ReplaceList => "ToBulk",
        Permission::ListImages | Permission::ListShares => "ToReader",
        Permission::ReadAudit => "ToAuditor",
    }
}

/// A problem's answer is named by its status where all routes have the same, else by status and kin where all of a
/// kin have the same.
fn share_answers(document: &mut Document, components: &mut Components) {
    let mut answers: Vec<(String, &'static str, Response)> = Vec::new();
    for (_, route, operation) in operations(document) {
        for (status, response) in &operation.responses.responses {
            if let RefOr::T(response) = response
                && is_refusal(response)
            {
                let kin = kin(route.permission);
                answers.push((status.clone(), kin, response.clone()));
            }
        }
    }
    let name = |status: &str, kin: &str| {
        let of_status = answers.iter().filter(|(other, _, _)| other == status);
        let of_kin = of_status.clone().filter(|(_, other, _)| *other == kin);
        let is_one = |of: Vec<&Response>| of.len() > 1 && of.iter().all(|one| *one == of[0]);
        let reason = StatusCode::from_bytes(status.as_bytes()).ok()?;
        let reason = pascal_case(reason.canonical_reason()?);
        if is_one(of_status.map(|(_, _, response)| response).collect()) {
            Some(reason)
        } else {
            is_one(of_kin.map(|(_, _, response)| response).collect())
                .then(|| format!("{reason}{kin}"))
        }
    };
    let mut shared = BTreeSet::new();
    for (_, route, operation) in operations(document) {
        for (status, response) in &mut operation.responses.responses {
            let RefOr::T(inline) = response else { continue };
            if !is_refusal(inline) {
                continue;
            }
            if let Some(name) = name(status, kin(route.permission)) {
                if shared.insert(name.clone()) {
                    let inline = inline.clone();
                    components.responses.insert(name.clone(), inline.into());
                }
                let reference = Ref::new(format!("#/components/responses/{name}"));
                *response = RefOr::Ref(reference);
            }
        }
    }
}

fn is_refusal(response: &Response) -> bool {
    response.content.contains_key(crate::http::wire::MEDIA_TYPE)
}
