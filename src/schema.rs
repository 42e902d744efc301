//! How the words of the domain look in the OpenAPI document: one named schema each, with the bounds and the words that
//! the parsers go by.
//!
//! On the ground floor, since events and problems, which other rooms make, are published too.

use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{KnownFormat, Ref, RefOr, Schema, SchemaFormat};

use crate::domain::{
    ACCOUNT_ID_MAX, ACCOUNTS_MAX, IMAGE_ID_BYTES_MAX, Operation, Outcome, REASON_CHARACTERS_MAX,
};
use crate::problem::Effect;

/// Makes named schemas: a type that stands for each, with its description and how it is built.
macro_rules! named_schemas {
    ($($(#[doc = $doc:literal])+ $visibility:vis $name:ident = $schema:expr;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug)]
        $visibility struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let description = concat!($($doc),+).trim();
                $schema.description(Some(description)).into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}
pub(crate) use named_schemas;

/// A reference to a named schema, with words for the place where it stands.
pub(crate) fn reference<T: ToSchema>(description: &str) -> RefOr<Schema> {
    let mut reference = Ref::from_schema_name(T::name());
    description.clone_into(&mut reference.description);
    reference.into()
}

/// The same, or null.
pub(crate) fn reference_or_null<T: ToSchema>(description: &str) -> RefOr<Schema> {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    let either = OneOfBuilder::new().item(Ref::from_schema_name(T::name()));
    either.item(null).description(Some(description)).into()
}

/// Adds a named schema to those of the document.
pub(crate) fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
}

/// `schema`, which is of this type, or null.
pub(crate) fn or_null(schema: ObjectBuilder, kind: Type) -> ObjectBuilder {
    schema.schema_type(SchemaType::from_iter([kind, Type::Null]))
}

/// A text that is one of `words`.
pub(crate) fn one_of(words: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    text().enum_values(Some(words))
}

/// A text of many records; each line, or each event of a stream, is one `T`.
pub(crate) fn records<T: ToSchema>(media_type: &str) -> ObjectBuilder {
    text()
        .content_media_type(media_type)
        .content_schema(Some(Ref::from_schema_name(T::name())))
}

pub(crate) fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

pub(crate) fn integer() -> ObjectBuilder {
    let format = SchemaFormat::KnownFormat(KnownFormat::Int64);
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(format))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the largest account id is the largest integer that a double holds exactly"
)]
fn account_id() -> ObjectBuilder {
    integer()
        .minimum(Some(1_u32))
        .maximum(Some(ACCOUNT_ID_MAX as f64))
        .examples([12345])
}

/// What the parser refuses as control characters, separators of lines and paragraphs, and marks of direction; one
/// character at least is no space. Of what else cannot be seen it knows more.
const REASON_PATTERN: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]*",
    r"[^\s\u0000-\u001f\u007f-\u009f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]",
    r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]*$",
);

named_schemas! {
    /// Names an image of the owner's, as the upstream does.
    pub ImageId = text()
        .pattern(Some(format!("^[A-Za-z0-9][A-Za-z0-9._-]{{0,{}}}$", IMAGE_ID_BYTES_MAX - 1)))
        .examples(["compshareImage-sandbox1"]);
    /// Names the account that an image is shared with; every value is a JSON number without loss.
    pub AccountId = account_id();
    /// Accounts, none of them twice.
    pub AccountIds = ArrayBuilder::new()
        .items(Ref::from_schema_name(AccountId::name()))
        .max_items(Some(ACCOUNTS_MAX))
        .unique_items(true)
        .examples([serde_json::json!([12345, 67890])]);
    /// Where images live: one of those that this gateway serves.
    // Which, its configuration says: the document puts them here.
    pub Region = text().min_length(Some(1));
    /// Why: a ticket, a sentence. At least one character is visible, and none is a control character, separates lines or
    /// turns the direction of text. It stands in the trail.
    pub Reason = text()
        .min_length(Some(1))
        .max_length(Some(REASON_CHARACTERS_MAX))
        .pattern(Some(REASON_PATTERN));
    /// How many; there is no bound.
    pub Count = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .default(Some(0.into()));
    /// Names an event of the trail: a UUID of version 7, which begins with its time.
    pub EventId = text()
        .format(Some(SchemaFormat::Custom("uuid".into())))
        .examples(["019ab3c4-d5e6-7f00-8123-456789abcdef"]);
    /// A time (RFC 3339) in UTC.
    pub Time = text()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples(["2026-01-31T12:00:00.000000Z"]);
    /// What happens to an account's share of an image.
    pub ChangeOperation = one_of(Operation::ALL.map(Operation::as_str));
    /// How a change ended. `pending`: no outcome yet. `succeeded`: the upstream says that it is so. `invalid_account`: the
    /// upstream does not know the account. `denied`: scope or policy refused it, and it was never forwarded. `failed`: it
    /// certainly did not take effect. `unknown`: it was sent and may have taken effect.
    pub ChangeOutcome = one_of(Outcome::ALL.map(Outcome::as_str));
    /// Whether a change that ended in a problem took effect. `none`: certainly not. `unknown`: it may have. `done`: it did.
    pub ChangeEffect = one_of(Effect::ALL.map(Effect::as_str));
}
