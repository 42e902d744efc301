//! The kinds of columns: what a column's value is in the file, in a published event, in a row of the feed, in a cell of
//! CSV and in the document.

use serde_json::value::RawValue;
use utoipa::openapi::schema::{ArrayBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

use super::entry::CellRef;
use crate::domain::{self, Timestamp};
use crate::schema::{
    self, add, integer, named_schemas, one_of, or_null, reference, reference_or_null, text,
};

named_schemas! {
    /// What an event is about: a change of one account, or `update`, a bulk request that was denied as a whole.
    pub EventOperation = one_of(super::EventOperation::ALL.map(super::EventOperation::as_str));
    /// What a row of the trail is: an intent before anything is forwarded, its outcome, or a denial, which is both.
    pub EntryKind = one_of(super::entry::KINDS);
    /// SHA-256, in lower-case hex.
    pub Sha256 = text().pattern(Some("^[0-9a-f]{64}$"));
}

/// The file holds what the gateway never writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

/// A kind of column.
pub trait Kind {
    /// As the database gives it for an event.
    type Stored;
    /// As an event publishes it.
    type Published;
    /// As a row of the feed publishes it.
    type Fed;

    /// From the database to an event.
    fn publish(stored: Self::Stored) -> Result<Self::Published, Damaged>;
    /// From the database to a row of the feed.
    fn feed(cell: CellRef<'_>) -> Result<Self::Fed, Damaged>;
    /// Its cell of CSV.
    fn csv(published: &Self::Published) -> String;
    /// Its schema in an event.
    fn published(description: &str) -> RefOr<Schema>;
    /// Its schema in a row of the feed.
    fn fed(description: &str) -> RefOr<Schema> {
        Self::published(description)
    }
    /// Adds the named schemas that it needs.
    fn add_schemas(_schemas: &mut Vec<(String, RefOr<Schema>)>) {}
}

/// A text that is always there.
#[derive(Debug)]
pub struct Text;
/// A text or null.
#[derive(Debug)]
pub struct OptionalText;
/// An integer or null.
#[derive(Debug)]
pub struct OptionalInteger;
/// A time or null, in microseconds in the file.
#[derive(Debug)]
pub struct OptionalTime;
/// An account or null.
#[derive(Debug)]
pub struct OptionalAccount;
/// A word of [`EventOperation`].
#[derive(Debug)]
pub struct Operation;
/// A word of an outcome; an event without one is pending.
#[derive(Debug)]
pub struct Outcome;
/// Names of policies, in the file as a JSON array.
#[derive(Debug)]
pub struct Policies;

fn owned(cell: CellRef<'_>) -> Result<Option<String>, Damaged> {
    match cell {
        CellRef::Null => Ok(None),
        CellRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(Damaged),
        },
        CellRef::Integer(_) | CellRef::Foreign => Err(Damaged),
    }
}

fn number(cell: CellRef<'_>) -> Result<Option<i64>, Damaged> {
    match cell {
        CellRef::Null => Ok(None),
        CellRef::Integer(number) => Ok(Some(number)),
        CellRef::Text(_) | CellRef::Foreign => Err(Damaged),
    }
}

fn time(micros: i64) -> String {
    Timestamp::from_micros(micros).to_string()
}

/// Of a kind whose values are those of another, and look otherwise in the document alone.
macro_rules! stored_as {
    ($other:ty) => {
        type Stored = <$other as Kind>::Stored;
        type Published = <$other as Kind>::Published;
        type Fed = <$other as Kind>::Fed;

        fn publish(stored: Self::Stored) -> Result<Self::Published, Damaged> {
            <$other>::publish(stored)
        }
        fn feed(cell: CellRef<'_>) -> Result<Self::Fed, Damaged> {
            <$other>::feed(cell)
        }
        fn csv(published: &Self::Published) -> String {
            <$other>::csv(published)
        }
    };
}

impl Kind for Text {
    type Stored = String;
    type Published = String;
    type Fed = String;

    fn publish(stored: String) -> Result<String, Damaged> {
        Ok(stored)
    }
    fn feed(cell: CellRef<'_>) -> Result<String, Damaged> {
        owned(cell)?.ok_or(Damaged)
    }
    fn csv(published: &String) -> String {
        published.clone()
    }
    fn published(description: &str) -> RefOr<Schema> {
        text().description(Some(description)).into()
    }
}

impl Kind for OptionalText {
    type Stored = Option<String>;
    type Published = Option<String>;
    type Fed = Option<String>;

    fn publish(stored: Option<String>) -> Result<Option<String>, Damaged> {
        Ok(stored)
    }
    fn feed(cell: CellRef<'_>) -> Result<Option<String>, Damaged> {
        owned(cell)
    }
    fn csv(published: &Option<String>) -> String {
        published.clone().unwrap_or_default()
    }
    fn published(description: &str) -> RefOr<Schema> {
        or_null(text(), Type::String)
            .description(Some(description))
            .into()
    }
}

impl Kind for OptionalInteger {
    type Stored = Option<i64>;
    type Published = Option<i64>;
    type Fed = Option<i64>;

    fn publish(stored: Option<i64>) -> Result<Option<i64>, Damaged> {
        Ok(stored)
    }
    fn feed(cell: CellRef<'_>) -> Result<Option<i64>, Damaged> {
        number(cell)
    }
    fn csv(published: &Option<i64>) -> String {
        published
            .map(|number| number.to_string())
            .unwrap_or_default()
    }
    fn published(description: &str) -> RefOr<Schema> {
        or_null(integer(), Type::Integer)
            .description(Some(description))
            .into()
    }
}

impl Kind for OptionalTime {
    type Stored = Option<i64>;
    type Published = Option<String>;
    type Fed = Option<String>;

    fn publish(stored: Option<i64>) -> Result<Option<String>, Damaged> {
        Ok(stored.map(time))
    }
    fn feed(cell: CellRef<'_>) -> Result<Option<String>, Damaged> {
        number(cell).map(|micros| micros.map(time))
    }
    fn csv(published: &Option<String>) -> String {
        OptionalText::csv(published)
    }
    fn published(description: &str) -> RefOr<Schema> {
        reference_or_null::<schema::Time>(description)
    }
    fn add_schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        add::<schema::Time>(schemas);
    }
}

impl Kind for OptionalAccount {
    stored_as!(OptionalInteger);

    fn published(description: &str) -> RefOr<Schema> {
        reference_or_null::<schema::AccountId>(description)
    }
    fn add_schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        add::<schema::AccountId>(schemas);
    }
}

impl Kind for Operation {
    stored_as!(Text);

    fn published(description: &str) -> RefOr<Schema> {
        reference::<EventOperation>(description)
    }
    fn add_schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        add::<EventOperation>(schemas);
    }
}

impl Kind for Outcome {
    type Stored = Option<String>;
    type Published = String;
    type Fed = Option<String>;

    fn publish(stored: Option<String>) -> Result<String, Damaged> {
        Ok(stored.unwrap_or_else(|| domain::Outcome::Pending.as_str().to_owned()))
    }
    fn feed(cell: CellRef<'_>) -> Result<Option<String>, Damaged> {
        owned(cell)
    }
    fn csv(published: &String) -> String {
        published.clone()
    }
    fn published(description: &str) -> RefOr<Schema> {
        reference::<schema::ChangeOutcome>(description)
    }
    fn fed(description: &str) -> RefOr<Schema> {
        reference_or_null::<schema::ChangeOutcome>(description)
    }
    fn add_schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        add::<schema::ChangeOutcome>(schemas);
    }
}

impl Kind for Policies {
    type Stored = Option<String>;
    type Published = Vec<String>;
    type Fed = Option<Box<RawValue>>;

    fn publish(stored: Option<String>) -> Result<Vec<String>, Damaged> {
        match stored.as_deref() {
            None => Ok(Vec::new()),
            Some(json) => serde_json::from_str(json).map_err(|_| Damaged),
        }
    }
    fn feed(cell: CellRef<'_>) -> Result<Option<Box<RawValue>>, Damaged> {
        let json = owned(cell)?;
        json.map(RawValue::from_string)
            .transpose()
            .map_err(|_| Damaged)
    }
    fn csv(published: &Vec<String>) -> String {
        published.join(" ")
    }
    fn published(description: &str) -> RefOr<Schema> {
        let names = ArrayBuilder::new().items(text());
        names.description(Some(description)).into()
    }
    fn fed(description: &str) -> RefOr<Schema> {
        let kinds = SchemaType::from_iter([Type::Array, Type::Null]);
        let names = ArrayBuilder::new().schema_type(kinds).items(text());
        names.description(Some(description)).into()
    }
}
