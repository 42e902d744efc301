//! The trail as it grows: every row in chain order with the hash before it, for whoever copies it.
//!
//! Events change from `pending` to their outcome; rows never change. A feed reads rows from the database, a
//! page at a time, then waits for the writer's next commit. So a slow reader costs no memory and never holds
//! the writer up, and one that was cut off goes on behind its last cursor without a gap or a repeat.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::chain::Hash;
use super::columns::{Column, event_columns};
use super::entry::{CHAIN_ID, CellRef};
use super::kinds::{self, Damaged, Kind};
use super::reader::Reader;
use super::store::{StoreError, StoredRow};
use crate::schema::{self, add, integer, reference, text};

/// Rows of one page.
const PAGE_ROWS: usize = 256;
/// Bytes of a row's hash that its cursor holds, to tell it from the row of another trail.
const HASH_BYTES: usize = 8;
const CURSOR_VERSION: u8 = 1;

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

        fn entry(row: &StoredRow, sequence: i64, before: Hash, hash: Hash) -> Result<Entry, StoreError> {
            let columns = Columns { row, sequence };
            Ok(Entry {
                cursor: EntryCursor::of(sequence, hash).to_string(),
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

/// A place in each chain of the trail, of which there is one. Opaque outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryCursor {
    sequence: i64,
    hash: [u8; HASH_BYTES],
}

/// The text is no cursor of the feed, or not one of this trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the cursor of a row of this trail")]
pub struct InvalidEntryCursor;

impl EntryCursor {
    pub(super) fn of(sequence: i64, hash: Hash) -> Self {
        Self {
            sequence,
            hash: hash.first_bytes(),
        }
    }
}

impl std::fmt::Display for EntryCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = vec![CURSOR_VERSION];
        // A place a chain: length and name, sequence, hash.
        bytes.extend(u8::try_from(CHAIN_ID.len()));
        bytes.extend(CHAIN_ID.as_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.hash);
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl std::str::FromStr for EntryCursor {
    type Err = InvalidEntryCursor;

    fn from_str(text: &str) -> Result<Self, InvalidEntryCursor> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| InvalidEntryCursor)?;
        let (rest, hash) = bytes
            .split_last_chunk::<HASH_BYTES>()
            .ok_or(InvalidEntryCursor)?;
        let (_, sequence) = rest.split_last_chunk::<8>().ok_or(InvalidEntryCursor)?;
        let cursor = Self {
            sequence: i64::from_be_bytes(*sequence),
            hash: *hash,
        };
        if cursor.to_string() == text {
            Ok(cursor)
        } else {
            Err(InvalidEntryCursor)
        }
    }
}

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
pub struct Feed {
    reader: Reader,
    committed: watch::Receiver<i64>,
    /// The last row given; `None` before the first.
    sequence: Option<i64>,
    hash: Hash,
}

/// Where a feed begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
        let mut feed = Feed {
            reader: self.clone(),
            committed: self.committed(),
            sequence: None,
            hash: Hash::GENESIS,
        };
        let before = match start {
            FeedStart::Oldest => None,
            FeedStart::Behind(cursor) => {
                let before = self.place(cursor.sequence).await?;
                let (sequence, hash) = before.ok_or(InvalidEntryCursor)?;
                if EntryCursor::of(sequence, hash) != cursor {
                    return Err(InvalidEntryCursor.into());
                }
                before
            }
            FeedStart::Last(rows) => {
                let last = *feed.committed.borrow();
                let rows = i64::try_from(rows).unwrap_or(i64::MAX);
                let before = self.row_up_to(last.saturating_sub(rows)).await?;
                before.as_ref().map(place).transpose()?
            }
        };
        if let Some((sequence, hash)) = before {
            (feed.sequence, feed.hash) = (Some(sequence), hash);
        }
        Ok(feed)
    }
}

impl Reader {
    /// The row of this sequence, where there is one: none below the first.
    async fn place(&self, sequence: i64) -> Result<Option<(i64, Hash)>, StoreError> {
        let rows = self.rows(sequence, 1).await?;
        let found = rows.first().map(place).transpose()?;
        Ok(found.filter(|(found, _)| *found == sequence))
    }
}

impl Feed {
    /// The next rows, a page at most; none where the trail ends for now.
    ///
    /// # Errors
    /// Where the database cannot be read or holds what the gateway never writes.
    pub async fn next(&mut self) -> Result<Vec<Entry>, StoreError> {
        // Looked at first: a commit that comes after is a change to wait for.
        self.committed.borrow_and_update();
        // From below the first sequence that the gateway gives: what the file holds is what is shown.
        let from = match self.sequence {
            None => Some(i64::MIN),
            Some(last) => last.checked_add(1),
        };
        let Some(from) = from else {
            return Ok(Vec::new());
        };
        let rows = self.reader.rows(from, PAGE_ROWS).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            match self.step(&row) {
                Ok(entry) => entries.push(entry),
                // What stands before a damaged row is given; the next call begins with it.
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn step(&mut self, row: &StoredRow) -> Result<Entry, StoreError> {
        let (sequence, hash) = place(row)?;
        let entry = entry(row, sequence, self.hash, hash)?;
        (self.sequence, self.hash) = (Some(sequence), hash);
        Ok(entry)
    }

    /// Waits for a commit that was not there at the last [`Self::next`]. Returns `false` where the writer has
    /// ended.
    pub async fn wait(&mut self) -> bool {
        self.committed.changed().await.is_ok()
    }
}

fn place(row: &StoredRow) -> Result<(i64, Hash), StoreError> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back(sequence in any::<i64>(), bytes in any::<[u8; HASH_BYTES]>()) {
            let cursor = EntryCursor { sequence, hash: bytes };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn no_other_text_is_a_cursor(text in "\\PC{0,50}|[A-Za-z0-9_-]{0,50}") {
            prop_assert_eq!(text.parse::<EntryCursor>(), Err(InvalidEntryCursor));
        }
    }
}
