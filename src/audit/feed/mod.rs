//! The trail as it grows: every row in chain order with the hash before it, for whoever copies it.
//!
//! Events change from `pending` to their outcome; rows never change. A feed reads rows from the database, a
//! page at a time, then waits for the writer's next commit. So a slow reader costs no memory and never holds
//! the writer up, and one that was cut off goes on behind its last cursor without a gap or a repeat.

mod chain;
mod chains;

use std::borrow::Cow;

use serde::Serialize;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::chain::Hash;
use super::columns::{Column, event_columns};
use super::cursor::{EntryCursor, InvalidEntryCursor};
use super::entry::CellRef;
use super::kinds::{self, Damaged, Kind};
use super::reader::Reader;
use super::store::{ReadConnections, StoreError, StoredRow};
use crate::schema::{self, add, integer, reference, text};

use chain::ChainWalk;
use chains::ChainsWalk;

/// Rows of one page.
const PAGE_ROWS: usize = 256;

macro_rules! entry {
    ($($group:ident { $($(#[doc = $doc:literal])+ $column:ident $name:ident: $kind:ty,)+ })+) => {
        /// One row of the trail, as it is published.
        #[derive(Debug, Clone, Serialize)]
        pub struct Entry {
            /// Give it as `after` to go on behind this row.
            pub cursor: String,
            /// The chain that the row stands in.
            pub chain_id: String,
            /// The row's place in the chain, from 1.
            pub sequence: i64,
            /// `intent`, `outcome` or `denial`.
            pub kind: String,
            /// The version of the canonical encoding that the hash is taken over.
            pub version: i64,
            /// UUID of version 7; an intent and its outcome share it.
            pub event_id: String,
            /// When the row was sealed; the hash covers it as microseconds since 1970.
            pub recorded_at: String,
            /// The hash of the row before; zeros before the first.
            pub previous_hash: String,
            /// SHA-256 over the row before and this one, lower-case hex.
            pub hash: String,
            $($($(#[doc = $doc])+ pub $name: <$kind as Kind>::Fed,)+)+
        }

        pub(super) fn entry(row: &StoredRow, cursor: &EntryCursor, sequence: i64, before: Hash, hash: Hash) -> Result<Entry, StoreError> {
            let columns = Columns { row, sequence };
            Ok(Entry {
                cursor: cursor.to_string(),
                chain_id: columns.read(kinds::Text::feed, Column::ChainId)?,
                sequence,
                kind: columns.read(kinds::Text::feed, Column::Kind)?,
                version: columns.some(kinds::OptionalInteger::feed, Column::Version)?,
                event_id: columns.read(kinds::Text::feed, Column::EventId)?,
                recorded_at: columns.some(kinds::OptionalTime::feed, Column::RecordedAt)?,
                previous_hash: before.to_string(),
                hash: hash.to_string(),
                $($($name: columns.read(<$kind>::feed, Column::$column)?,)+)+
            })
        }

        impl PartialSchema for Entry {
            fn schema() -> RefOr<Schema> {
                let mut entry = ObjectBuilder::new()
                    .description(Some(
                        "One row of the trail. Of an event's two rows the outcome repeats who asked, by which request and for what; \
                         the rest of what was asked, and why, is null there, as how it ended is on the intent.",
                    ))
                    .property("cursor", text().description(Some("Give it as `after` to go on behind this row.")))
                    .property("chain_id", text().description(Some("The chain that the row stands in.")))
                    .property("sequence", integer().minimum(Some(1)).description(Some("The row's place in the chain, from 1.")))
                    .property("kind", reference::<kinds::EntryKind>("What the row is."))
                    .property("version", integer().description(Some("The version of the canonical encoding that is hashed.")))
                    .property("event_id", reference::<schema::EventId>("The event; an intent and its outcome share it."))
                    .property("recorded_at", reference::<schema::Time>(
                        "When the row was sealed; the hash covers it as microseconds since 1970.",
                    ))
                    .property("previous_hash", reference::<kinds::Sha256>("The hash of the row before; zeros before the first."))
                    .property("hash", reference::<kinds::Sha256>("Over the row before and this one."));
                for required in ["cursor", "chain_id", "sequence", "kind", "version", "event_id", "recorded_at", "previous_hash", "hash"] {
                    entry = entry.required(required);
                }
                $($(
                    entry = entry
                        .property(stringify!($name), <$kind>::fed(concat!($($doc),+).trim()))
                        .required(stringify!($name));
                )+)+
                entry.into()
            }
        }

        impl ToSchema for Entry {
            fn name() -> Cow<'static, str> {
                "Entry".into()
            }

            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                add::<schema::EventId>(schemas);
                add::<schema::Time>(schemas);
                add::<kinds::EntryKind>(schemas);
                add::<kinds::Sha256>(schemas);
                $($(<$kind>::add_schemas(schemas);)+)+
            }
        }
    };
}

event_columns!(entry);

/// Why a feed does not begin.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// It cannot go on behind a row that is not in this trail.
    #[error(transparent)]
    Cursor(#[from] InvalidEntryCursor),
    /// The trail cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A walk along the trail that knows where it is.
#[derive(Debug)]
pub struct Feed(Walk);

#[derive(Debug)]
enum Walk {
    Chain(ChainWalk),
    Chains(ChainsWalk),
}

/// Where a feed begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FeedStart {
    /// With the oldest row.
    #[default]
    Oldest,
    /// Behind this row.
    Behind(EntryCursor),
    /// With the last rows that there are now, this many; with none of them for 0.
    Last(usize),
}

impl Reader {
    /// A feed that begins at `start`.
    ///
    /// # Errors
    /// [`FeedError::Cursor`] where a cursor is not a row of this trail.
    pub async fn feed(&self, start: FeedStart) -> Result<Feed, FeedError> {
        let committed = self.committed();
        Ok(Feed(match self.connections().clone() {
            ReadConnections::File(connections) => {
                Walk::Chain(ChainWalk::begin(connections, committed, start).await?)
            }
            ReadConnections::Server(connections) => {
                Walk::Chains(ChainsWalk::begin(connections, committed, start).await?)
            }
        }))
    }
}

impl Feed {
    /// The next rows, a page at most; none where the trail ends for now.
    ///
    /// # Errors
    /// Where the database cannot be read or holds what the gateway never writes.
    pub async fn next(&mut self) -> Result<Vec<Entry>, StoreError> {
        match &mut self.0 {
            Walk::Chain(walk) => walk.next().await,
            Walk::Chains(walk) => walk.next().await,
        }
    }

    /// Waits for rows that were not there at the last [`Self::next`]. Returns `false` where the writer has ended.
    pub async fn wait(&mut self) -> bool {
        match &mut self.0 {
            Walk::Chain(walk) => walk.wait().await,
            Walk::Chains(walk) => walk.wait().await,
        }
    }
}

/// A row's place in its chain, and its hash.
pub(super) fn place(row: &StoredRow) -> Result<(i64, Hash), StoreError> {
    let CellRef::Integer(sequence) = row.cell(Column::Sequence as usize)? else {
        return Err(StoreError::Row {
            sequence: 0,
            column: "sequence",
        });
    };
    let damaged = StoreError::Row {
        sequence,
        column: "hash",
    };
    match row.claimed_hash()? {
        CellRef::Text(hash) => std::str::from_utf8(hash)
            .ok()
            .and_then(|hash| hash.parse().ok())
            .map(|hash| (sequence, hash))
            .ok_or(damaged),
        _ => Err(damaged),
    }
}

/// Reads columns of one row, each as the type that the gateway writes.
struct Columns<'a> {
    row: &'a StoredRow,
    sequence: i64,
}

impl Columns<'_> {
    fn damaged(&self, column: Column) -> StoreError {
        StoreError::Row {
            sequence: self.sequence,
            column: column.name(),
        }
    }

    fn read<T>(
        &self,
        feed: fn(CellRef<'_>) -> Result<T, Damaged>,
        column: Column,
    ) -> Result<T, StoreError> {
        feed(self.row.cell(column as usize)?).map_err(|Damaged| self.damaged(column))
    }

    /// Of a column that the table says is never null.
    fn some<T>(
        &self,
        feed: fn(CellRef<'_>) -> Result<Option<T>, Damaged>,
        column: Column,
    ) -> Result<T, StoreError> {
        self.read(feed, column)?.ok_or_else(|| self.damaged(column))
    }
}
