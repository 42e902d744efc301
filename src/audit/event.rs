//! An event as it is published: the one format of the API and of exports.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::columns::event_columns;
use super::entry::DENIAL;
use super::ids::id_time;
use super::kinds::{self, Kind};
use super::store::{EventRow, StoreError};
use crate::domain::EventId;
use crate::schema::{self, add, reference};

/// The name of a CSV column, and its cell of an event.
pub(super) type CsvColumn = (&'static str, fn(&Event) -> String);

macro_rules! event {
    (
        asked { $($(#[doc = $asked_doc:literal])+ $asked_column:ident $asked:ident: $asked_kind:ty,)+ }
        why { $($(#[doc = $why_doc:literal])+ $why_column:ident $why:ident: $why_kind:ty,)+ }
        ended { $($(#[doc = $ended_doc:literal])+ $ended_column:ident $ended:ident: $ended_kind:ty,)+ }
        more { $($(#[doc = $more_doc:literal])+ $more_column:ident $more:ident: $more_kind:ty,)+ }
    ) => {
        event! { $($(#[doc = $asked_doc])+ $asked: $asked_kind,)+ $($(#[doc = $ended_doc])+ $ended: $ended_kind,)+
            $($(#[doc = $why_doc])+ $why: $why_kind,)+ $($(#[doc = $more_doc])+ $more: $more_kind,)+ }
    };
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty,)+) => {
        /// What happened to one change: its intent and, once there is one, its outcome; or its denial.
        ///
        /// Absent values are null, never left out.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        pub struct Event {
            /// UUID of version 7.
            pub id: String,
            /// The time in the id: when the first row was sealed.
            pub occurred_at: String,
            /// When the outcome was sealed; null while pending.
            pub completed_at: Option<String>,
            $($(#[doc = $doc])+ pub $name: <$kind as Kind>::Published,)+
        }

        impl TryFrom<EventRow> for Event {
            type Error = StoreError;

            fn try_from(row: EventRow) -> Result<Self, StoreError> {
                let sequence = row.sequence;
                let damaged = |column| StoreError::Row { sequence, column };
                let id = row.event_id.parse::<Uuid>().map(EventId::new);
                let occurred_at = id_time(id.map_err(|_| damaged("event_id"))?).to_string();
                // A denial is over as it begins.
                let completed_at = if row.kind == DENIAL {
                    Some(occurred_at.clone())
                } else {
                    let completed_at = kinds::OptionalTime::publish(row.completed_at);
                    completed_at.map_err(|_| damaged("recorded_at"))?
                };
                Ok(Self {
                    id: row.event_id,
                    occurred_at,
                    completed_at,
                    $($name: <$kind>::publish(row.$name).map_err(|_| damaged(stringify!($name)))?,)+
                })
            }
        }

        /// The columns of CSV: an event's members, in their order.
        pub(super) const CSV_COLUMNS: &[CsvColumn] = &[
            ("id", |event| event.id.clone()),
            ("occurred_at", |event| event.occurred_at.clone()),
            ("completed_at", |event| kinds::OptionalTime::csv(&event.completed_at)),
            $((stringify!($name), |event| <$kind>::csv(&event.$name)),)+
        ];

        impl PartialSchema for Event {
            fn schema() -> RefOr<Schema> {
                let mut event = ObjectBuilder::new()
                    .description(Some(
                        "What happened to one change: its intent and, once there is one, its outcome; or its denial. \
                         Absent values are null, never left out.",
                    ))
                    .property("id", reference::<schema::EventId>("Names the event; `Audit-Id` of the change's answer."))
                    .property("occurred_at", reference::<schema::Time>("The time in the id: when the first row was sealed."))
                    .property("completed_at", kinds::OptionalTime::published("When the outcome was sealed; null while pending."))
                    .required("id").required("occurred_at").required("completed_at");
                $(
                    event = event
                        .property(stringify!($name), <$kind>::published(concat!($($doc),+).trim()))
                        .required(stringify!($name));
                )+
                event.into()
            }
        }

        impl ToSchema for Event {
            fn name() -> Cow<'static, str> {
                "Event".into()
            }

            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                add::<schema::EventId>(schemas);
                add::<schema::Time>(schemas);
                $(<$kind>::add_schemas(schemas);)+
            }
        }
    };
}

event_columns!(event);

/// One row of the trail, as an event lists its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EntryPlace {
    /// What the row is.
    #[schema(value_type = kinds::EntryKind)]
    pub kind: String,
    /// The chain that the row stands in.
    pub chain_id: String,
    /// The row's place in the chain, from 1.
    #[schema(minimum = 1)]
    pub sequence: i64,
    /// When the row was sealed.
    #[schema(value_type = schema::Time)]
    pub recorded_at: String,
    /// Over the row before and this one.
    #[schema(value_type = kinds::Sha256)]
    pub hash: String,
}

/// An event and the rows that it is made of, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventWithEntries {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// Its rows in the trail, oldest first.
    pub entries: Vec<EntryPlace>,
}
