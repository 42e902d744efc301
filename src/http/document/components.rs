//! What operations share: parameters, headers, examples of problems and whole answers stand once, under a name.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::http::StatusCode;
use utoipa::openapi::example::Example;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{Components, OpenApi as Document, Ref, RefOr, Response};

use super::problems::pascal_case;
use super::{headers, operations};
use crate::http::wire::{MEDIA_TYPE, Permission};

/// Gives what is shared a name and refers to it.
pub(super) fn share(document: &mut Document) {
    let mut components = document.components.take().unwrap_or_default();
    for (name, header) in headers::all() {
        components.headers.insert(name.to_owned(), header.into());
    }
    share_examples(document, &mut components);
    share_parameters(document, &mut components);
    share_answers(document, &mut components);
    document.components = Some(components);
}

/// Names for what routes share: whatever is the same has one, made of `base` and, where there are several of that base, of
/// what its routes have in common. What finds no name of its own is left where it stands.
struct Names<T> {
    named: Vec<(String, T, Option<String>)>,
}

impl<T: PartialEq + Clone> Names<T> {
    fn of(all: &[(String, Permission, T)]) -> Self {
        let mut distinct: Vec<(String, T, Vec<Permission>)> = Vec::new();
        for (base, permission, value) in all {
            match distinct
                .iter_mut()
                .find(|(other, known, _)| other == base && known == value)
            {
                Some((_, _, permissions)) => permissions.push(*permission),
                None => distinct.push((base.clone(), value.clone(), vec![*permission])),
            }
        }
        let alone = |base: &String| {
            distinct
                .iter()
                .filter(|(other, _, _)| other == base)
                .count()
                == 1
        };
        let mut taken = BTreeSet::new();
        let named = distinct.iter().map(|(base, value, permissions)| {
            let name = if alone(base) {
                base.clone()
            } else {
                format!("{base}{}", common(permissions))
            };
            let name = taken.insert(name.clone()).then_some(name);
            (base.clone(), value.clone(), name)
        });
        Self {
            named: named.collect(),
        }
    }

    fn name(&self, base: &str, value: &T) -> Option<&str> {
        let known = self
            .named
            .iter()
            .find(|(other, known, _)| other == base && known == value);
        known.and_then(|(_, _, name)| name.as_deref())
    }

    fn into_named(self) -> impl Iterator<Item = (String, T)> {
        self.named
            .into_iter()
            .filter_map(|(_, value, name)| Some((name?, value)))
    }
}

/// Examples of problems stand in answers as they are made, and here by name.
fn share_examples(document: &mut Document, components: &mut Components) {
    let mut all = Vec::new();
    for (_, route, operation) in operations(document) {
        for (slug, shown) in examples(operation) {
            if let RefOr::T(shown) = shown {
                all.push((slug.clone(), route.permission, shown.clone()));
            }
        }
    }
    let names = Names::of(&all);
    for (_, _, operation) in operations(document) {
        for (slug, shown) in examples_mut(operation) {
            if let RefOr::T(inline) = shown
                && let Some(name) = names.name(slug, inline)
            {
                let reference = Ref::new(format!("#/components/examples/{name}"));
                *shown = RefOr::Ref(reference);
            }
        }
    }
    for (name, shown) in names.into_named() {
        components.examples.insert(name, shown.into());
    }
}

fn examples(operation: &Operation) -> impl Iterator<Item = (&String, &RefOr<Example>)> {
    let responses = operation.responses.responses.values();
    let inline = responses.filter_map(|response| match response {
        RefOr::T(response) => response.content.get(MEDIA_TYPE),
        RefOr::Ref(_) => None,
    });
    inline
        .filter_map(|content| match content {
            RefOr::T(content) => Some(&content.examples),
            RefOr::Ref(_) => None,
        })
        .flatten()
}

fn examples_mut(operation: &mut Operation) -> impl Iterator<Item = (&String, &mut RefOr<Example>)> {
    let responses = operation.responses.responses.values_mut();
    let inline = responses.filter_map(|response| match response {
        RefOr::T(response) => response.content.get_mut(MEDIA_TYPE),
        RefOr::Ref(_) => None,
    });
    inline
        .filter_map(|content| match content {
            RefOr::T(content) => Some(&mut content.examples),
            RefOr::Ref(_) => None,
        })
        .flatten()
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

/// What routes have in common that share an answer; nothing, where some read and others change.
fn common(permissions: &[Permission]) -> &'static str {
    let [first, rest @ ..] = permissions else {
        return "";
    };
    if rest.iter().all(|other| kin(*other) == kin(*first)) {
        kin(*first)
    } else if rest.iter().any(|other| other.changes() != first.changes()) {
        ""
    } else if first.changes() {
        "ToAnyChange"
    } else {
        "ToAnyRead"
    }
}

/// What routes are alike.
fn kin(permission: Permission) -> &'static str {
    match permission {
        Permission::Anybody => "ToAnybody",
        Permission::KnowItself => "ToHolder",
        Permission::Change(_) => "ToSingleChange",
        Permission::ChangeMany | Permission::ReplaceList => "ToBulkChange",
        Permission::ListImages | Permission::ListShares => "ToReader",
        Permission::ReadAudit => "ToAuditor",
    }
}

/// Answers of problems are named by what their status means.
fn share_answers(document: &mut Document, components: &mut Components) {
    let mut all = Vec::new();
    for (_, route, operation) in operations(document) {
        for (status, response) in &operation.responses.responses {
            if let RefOr::T(response) = response
                && let Some(reason) = reason(status, response)
            {
                all.push((reason, route.permission, response.clone()));
            }
        }
    }
    let names = Names::of(&all);
    for (_, _, operation) in operations(document) {
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(inline) = response
                && let Some(reason) = reason(status, inline)
                && let Some(name) = names.name(&reason, inline)
            {
                let reference = Ref::new(format!("#/components/responses/{name}"));
                *response = RefOr::Ref(reference);
            }
        }
    }
    for (name, response) in names.into_named() {
        components.responses.insert(name, response.into());
    }
}

/// What a problem's status means; nothing of an answer that is none.
fn reason(status: &str, response: &Response) -> Option<String> {
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let reason = status.canonical_reason().filter(|_| is_refusal(response));
    reason.map(pascal_case)
}

fn is_refusal(response: &Response) -> bool {
    response.content.contains_key(MEDIA_TYPE)
}
