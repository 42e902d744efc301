//! The trail as it grows: every row in chain order with the hash before it, for whoever copies it.
//!
//! Events change from `pending` to their outcome; rows never change. A feed reads rows from the database, a
//! page at a time, then waits for the writer's next commit. So a slow reader costs no memory and never holds
//! the writer up, and one that was cut off goes on behind its last cursor without a gap or a repeat.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::chain::Hash;
use super::columns::Column;
use super::entry::{CHAIN_ID, CellRef};
use super::reader::Reader;
use super::store::{StoreError, StoredRow};
use crate::domain::Timestamp;

/// Rows of one page.
const PAGE_ROWS: usize = 256;
/// Bytes of a row's hash that its cursor holds, to tell it from the row of another trail.
const HASH_BYTES: usize = 8;
const CURSOR_VERSION: u8 = 1;

/// One row of the trail, as it is published.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Entry)]
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
    #[schema(format = "uuid")]
    pub event_id: String,
    /// When the row was sealed; the hash covers it as microseconds since 1970.
    #[schema(format = DateTime)]
    pub recorded_at: String,
    /// The hash of the row before; zeros before the first.
    pub previous_hash: String,
    /// SHA-256 over the row before and this one, lower-case hex.
    pub hash: String,
    /// Who asked.
    pub subject: String,
    /// The token's `iss`; on first rows.
    #[schema(required)]
    pub issuer: Option<String>,
    /// The token's `jti`; on first rows.
    #[schema(required)]
    pub token_id: Option<String>,
    /// Where the request came from; on first rows.
    #[schema(required)]
    pub client_ip: Option<String>,
    /// What the client called itself; on first rows.
    #[schema(required)]
    pub user_agent: Option<String>,
    /// The request's id.
    #[schema(required)]
    pub request_id: Option<String>,
    /// The caller's trace; on first rows.
    #[schema(required)]
    pub trace_id: Option<String>,
    /// `share`, `unshare`, or `update` where a bulk request was denied as a whole.
    pub operation: String,
    /// The image.
    pub image_id: String,
    /// The account; null where a bulk request was denied as a whole.
    #[schema(required)]
    pub account_id: Option<i64>,
    /// The region.
    pub region: String,
    /// Why, in the caller's words; on first rows.
    #[schema(required)]
    pub reason: Option<String>,
    /// When the share ends by itself; null: it does not.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
    /// The policies that decided, the hash covers their compact JSON; null on outcomes.
    #[schema(required, value_type = Option<Vec<String>>)]
    pub policy_ids: Option<Box<RawValue>>,
    /// How it ended; on outcomes and denials.
    #[schema(required)]
    pub outcome: Option<String>,
    /// What the caller was told.
    #[schema(required)]
    pub http_status: Option<i64>,
    /// The upstream's last `RetCode`.
    #[schema(required)]
    pub upstream_ret_code: Option<i64>,
    /// The upstream's name for its last answer.
    #[schema(required)]
    pub upstream_request_id: Option<String>,
    /// Calls that carried the change.
    #[schema(required)]
    pub upstream_calls: Option<i64>,
    /// From the request's arrival to this row.
    #[schema(required)]
    pub duration_ms: Option<i64>,
    /// What else an auditor should know.
    #[schema(required)]
    pub detail: Option<String>,
}

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
    fn of(sequence: i64, hash: Hash) -> Self {
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

impl Reader {
    /// A feed that begins behind `after`, or with the oldest row.
    ///
    /// # Errors
    /// [`FeedError::Cursor`] where `after` is not a row of this trail.
    pub async fn feed(&self, after: Option<EntryCursor>) -> Result<Feed, FeedError> {
        let mut feed = Feed {
            reader: self.clone(),
            committed: self.committed(),
            sequence: None,
            hash: Hash::GENESIS,
        };
        if let Some(cursor) = after {
            let row = self.rows(cursor.sequence, 1).await?.into_iter().next();
            let row = row.ok_or(InvalidEntryCursor)?;
            let (sequence, hash) = place(&row)?;
            if EntryCursor::of(sequence, hash) != cursor {
                return Err(InvalidEntryCursor.into());
            }
            (feed.sequence, feed.hash) = (Some(sequence), hash);
        }
        Ok(feed)
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

    fn text(&self, column: Column) -> Result<Option<String>, StoreError> {
        match self.row.cell(column as usize)? {
            CellRef::Null => Ok(None),
            CellRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(self.damaged(column)),
            },
            _ => Err(self.damaged(column)),
        }
    }

    fn number(&self, column: Column) -> Result<Option<i64>, StoreError> {
        match self.row.cell(column as usize)? {
            CellRef::Null => Ok(None),
            CellRef::Integer(number) => Ok(Some(number)),
            _ => Err(self.damaged(column)),
        }
    }

    fn time(&self, column: Column) -> Result<Option<String>, StoreError> {
        let micros = self.number(column)?;
        Ok(micros.map(|micros| Timestamp::from_micros(micros).to_string()))
    }

    /// Of a column that the table says is never null.
    fn some<T>(
        &self,
        read: fn(&Self, Column) -> Result<Option<T>, StoreError>,
        column: Column,
    ) -> Result<T, StoreError> {
        read(self, column)?.ok_or_else(|| self.damaged(column))
    }
}

fn entry(row: &StoredRow, sequence: i64, before: Hash, hash: Hash) -> Result<Entry, StoreError> {
    let columns = Columns { row, sequence };
    let policy_ids = columns.text(Column::PolicyIds)?.map(RawValue::from_string);
    let policy_ids = policy_ids.transpose();
    Ok(Entry {
        cursor: EntryCursor::of(sequence, hash).to_string(),
        chain_id: columns.some(Columns::text, Column::ChainId)?,
        sequence,
        kind: columns.some(Columns::text, Column::Kind)?,
        version: columns.some(Columns::number, Column::Version)?,
        event_id: columns.some(Columns::text, Column::EventId)?,
        recorded_at: columns.some(Columns::time, Column::RecordedAt)?,
        previous_hash: before.to_string(),
        hash: hash.to_string(),
        subject: columns.some(Columns::text, Column::Subject)?,
        issuer: columns.text(Column::Issuer)?,
        token_id: columns.text(Column::TokenId)?,
        client_ip: columns.text(Column::ClientIp)?,
        user_agent: columns.text(Column::UserAgent)?,
        request_id: columns.text(Column::RequestId)?,
        trace_id: columns.text(Column::TraceId)?,
        operation: columns.some(Columns::text, Column::Operation)?,
        image_id: columns.some(Columns::text, Column::ImageId)?,
        account_id: columns.number(Column::AccountId)?,
        region: columns.some(Columns::text, Column::Region)?,
        reason: columns.text(Column::Reason)?,
        expires_at: columns.time(Column::ExpiresAt)?,
        policy_ids: policy_ids.map_err(|_| columns.damaged(Column::PolicyIds))?,
        outcome: columns.text(Column::Outcome)?,
        http_status: columns.number(Column::HttpStatus)?,
        upstream_ret_code: columns.number(Column::UpstreamRetCode)?,
        upstream_request_id: columns.text(Column::UpstreamRequestId)?,
        upstream_calls: columns.number(Column::UpstreamCalls)?,
        duration_ms: columns.number(Column::DurationMs)?,
        detail: columns.text(Column::Detail)?,
    })
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
