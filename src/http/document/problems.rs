//! A schema for each kind of problem, so that a client knows which members which has.

use utoipa::PartialSchema as _;
use utoipa::openapi::schema::{Discriminator, ObjectBuilder, OneOfBuilder, Schema};
use utoipa::openapi::{OpenApi as Document, Ref, RefOr};

use crate::http::wire::ProblemBody;
use crate::problem::ProblemKind as Kind;
use crate::schema::one_of;

/// What every problem has.
const COMMON: [&str; 4] = ["title", "status", "detail", "request_id"];
/// What every problem of a change may have.
const OF_CHANGES: [&str; 2] = ["effect", "retryable"];

/// What a kind has beside that, and whether always.
fn own_members(kind: Kind) -> &'static [(&'static str, bool)] {
    const ALWAYS: bool = true;
    const AT_TIMES: bool = false;
    match kind {
        Kind::InvalidRequest => &[("errors", ALWAYS)],
        Kind::InsufficientScope | Kind::InternalError | Kind::OutcomeUnrecorded => {
            &[("audit_id", AT_TIMES)]
        }
        Kind::Forbidden => &[
            ("audit_id", AT_TIMES),
            ("policy_ids", AT_TIMES),
            ("results", AT_TIMES),
        ],
        Kind::NotFound
        | Kind::InvalidAccount
        | Kind::UpstreamError
        | Kind::UpstreamUnavailable
        | Kind::UpstreamTimeout => &[("audit_id", AT_TIMES), ("upstream", AT_TIMES)],
        Kind::Overloaded | Kind::AuditUnavailable => &[("audit_id", AT_TIMES)],
        Kind::Unauthenticated
        | Kind::MethodNotAllowed
        | Kind::NotAcceptable
        | Kind::RequestTimeout
        | Kind::TooManyRemovals
        | Kind::PayloadTooLarge
        | Kind::UnsupportedMediaType
        | Kind::RateLimited
        | Kind::HeadersTooLarge
        | Kind::KeysUnavailable
        | Kind::HttpVersionNotSupported => &[],
    }
}

/// Adds the schemas of all kinds that the document names.
pub(super) fn add_schemas(document: &mut Document) {
    let components = document.components.get_or_insert_default();
    for kind in Kind::ALL {
        // No operation has it: it is for methods that no operation is of.
        if kind != Kind::MethodNotAllowed {
            let schema = schema(kind);
            components.schemas.insert(schema_name(kind), schema.into());
        }
    }
}

/// One of these kinds, told apart by `type`.
pub(super) fn any_of(kinds: &[Kind]) -> RefOr<Schema> {
    if let [kind] = kinds {
        return Ref::from_schema_name(schema_name(*kind)).into();
    }
    let mut tell_apart = Discriminator::new("type");
    let mut either = OneOfBuilder::new();
    for kind in kinds {
        let reference = Ref::from_schema_name(schema_name(*kind));
        let location = reference.ref_location.clone();
        tell_apart.mapping.insert(kind_type(*kind), location);
        either = either.item(reference);
    }
    either.discriminator(Some(tell_apart)).into()
}

/// The word of a slug in the names of components: `not-found` is `NotFound`.
pub(super) fn pascal_case(words: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    words.split(['-', ' ']).map(capital).collect()
}

fn schema_name(kind: Kind) -> String {
    format!("{}Problem", pascal_case(kind.slug()))
}

fn kind_type(kind: Kind) -> String {
    format!("/problems/{}", kind.slug())
}

fn schema(kind: Kind) -> ObjectBuilder {
    let RefOr::T(Schema::Object(all)) = ProblemBody::schema() else {
        return ObjectBuilder::new();
    };
    let described = format!("{}. {}", kind.title(), kind.meaning());
    let of_type = ObjectBuilder::from(
        one_of([])
            .enum_values(Some([kind_type(kind)]))
            .description(Some("Tells problems apart."))
            .build(),
    );
    let mut schema = ObjectBuilder::new()
        .description(Some(described))
        .property("type", of_type)
        .required("type");
    let common = COMMON.map(|name| (name, true));
    let of_changes = OF_CHANGES.map(|name| (name, false));
    let members = common.iter().chain(own_members(kind)).chain(&of_changes);
    for (name, always) in members {
        if let Some(member) = all.properties.get(*name) {
            schema = schema.property(*name, member.clone());
        }
        if *always {
            schema = schema.required(*name);
        }
    }
    schema
}
