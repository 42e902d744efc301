//! An event as it is published: the one format of the API and of exports.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{AccountId, EventId, ImageId, Operation, Outcome, Timestamp};

use super::chain::id_time;
use super::store::{EventRow, StoreError};

/// What happened to one change: its intent and, once there is one, its outcome; or its denial.
///
/// Absent values are null, never left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Event {
    /// UUID of version 7.
    #[schema(format = "uuid")]
    pub id: String,
    /// The time in the id: when the first row was sealed.
    #[schema(format = DateTime)]
    pub occurred_at: String,
    /// When the outcome was sealed; null while pending.
    #[schema(format = DateTime)]
    pub completed_at: Option<String>,
    /// Who asked: the token's `sub`, or `system:…` for what the gateway does by itself.
    pub subject: String,
    /// The token's `iss`.
    pub issuer: Option<String>,
    /// The token's `jti`.
    pub token_id: Option<String>,
    /// Where the request came from.
    pub client_ip: Option<String>,
    /// What the client called itself.
    pub user_agent: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// The caller's trace.
    pub trace_id: Option<String>,
    /// `share` or `unshare`; `update` where a bulk request was denied as a whole.
    pub operation: String,
    /// The image.
    pub image_id: String,
    /// The account; null where a bulk request was denied as a whole.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub account_id: Option<i64>,
    /// The region.
    pub region: String,
    /// `pending`, `succeeded`, `invalid_account`, `denied`, `failed` or `unknown`.
    pub outcome: String,
    /// What the caller was told; null while pending.
    pub http_status: Option<i64>,
    /// The upstream's last `RetCode`.
    pub upstream_ret_code: Option<i64>,
    /// The upstream's name for its last answer.
    pub upstream_request_id: Option<String>,
    /// Calls that carried this change; null while pending.
    pub upstream_calls: Option<i64>,
    /// From the request's arrival to the outcome; null while pending.
    pub duration_ms: Option<i64>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// When the share ends by itself; null: it does not.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// The policies that decided; empty where scopes alone did.
    pub policy_ids: Vec<String>,
    /// What else an auditor should know.
    pub detail: Option<String>,
}

/// One row of the trail, as an event lists its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EntryPlace {
    /// `intent`, `outcome` or `denial`.
    pub kind: String,
    /// The chain that the row stands in.
    pub chain_id: String,
    /// The row's place in the chain, from 1.
    pub sequence: i64,
    /// When the row was sealed.
    #[schema(format = DateTime)]
    pub recorded_at: String,
    /// SHA-256 over the row before and this one, lower-case hex.
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

impl TryFrom<EventRow> for Event {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        let damaged = |column| StoreError::Row {
            sequence: row.sequence,
            column,
        };
        let id = row
            .event_id
            .parse::<Uuid>()
            .map(EventId::new)
            .map_err(|_| damaged("event_id"))?;
        let policy_ids = match row.policy_ids.as_deref() {
            None => Vec::new(),
            Some(json) => serde_json::from_str(json).map_err(|_| damaged("policy_ids"))?,
        };
        let time = |micros: i64| Timestamp::from_micros(micros).to_string();
        let occurred_at = id_time(id).to_string();
        // A denial is over as it begins.
        let completed_at = if row.kind == "denial" {
            Some(occurred_at.clone())
        } else {
            row.completed_at.map(time)
        };
        Ok(Self {
            id: row.event_id,
            occurred_at,
            completed_at,
            subject: row.subject,
            issuer: row.issuer,
            token_id: row.token_id,
            client_ip: row.client_ip,
            user_agent: row.user_agent,
            request_id: row.request_id,
            trace_id: row.trace_id,
            operation: row.operation,
            image_id: row.image_id,
            account_id: row.account_id,
            region: row.region,
            outcome: row
                .outcome
                .unwrap_or_else(|| Outcome::Pending.as_str().to_owned()),
            http_status: row.http_status,
            upstream_ret_code: row.upstream_ret_code,
            upstream_request_id: row.upstream_request_id,
            upstream_calls: row.upstream_calls,
            duration_ms: row.duration_ms,
            reason: row.reason,
            expires_at: row.expires_at.map(time),
            policy_ids,
            detail: row.detail,
        })
    }
}

/// What an event's `operation` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOperation {
    /// One change.
    Change(Operation),
    /// A bulk request that was denied as a whole.
    Update,
}

impl EventOperation {
    const ALL: [Self; 3] = [
        Self::Change(Operation::Share),
        Self::Change(Operation::Unshare),
        Self::Update,
    ];

    /// The word of the API and the trail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Change(operation) => operation.as_str(),
            Self::Update => "update",
        }
    }

    /// Reads the word of the API and the trail.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.as_str() == word)
    }
}

/// An outcome to filter by, told apart by where it stands in the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeFilter {
    /// No outcome yet.
    Pending,
    /// Refused; intent and outcome in one row.
    Denied,
    /// Any that stands in a row of its own.
    Completed(Outcome),
}

impl From<Outcome> for OutcomeFilter {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Pending => Self::Pending,
            Outcome::Denied => Self::Denied,
            Outcome::Succeeded | Outcome::InvalidAccount | Outcome::Failed | Outcome::Unknown => {
                Self::Completed(outcome)
            }
        }
    }
}

/// Which events; absent members do not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// At or after.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// The subject, exactly.
    pub subject: Option<String>,
    /// The image.
    pub image_id: Option<ImageId>,
    /// The account.
    pub account_id: Option<AccountId>,
    /// The operation.
    pub operation: Option<EventOperation>,
    /// The outcome as it is now.
    pub outcome: Option<OutcomeFilter>,
    /// The request id, exactly.
    pub request_id: Option<String>,
}

/// Which end of the trail comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Newest first.
    #[default]
    Descending,
    /// Oldest first.
    Ascending,
}

/// Where a page ended, and which query it was a page of. Opaque outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    after: EventId,
    query: [u8; 8],
}

/// The text is no cursor, or one of another query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the next_cursor of a page of the same query")]
pub struct InvalidCursor;

const CURSOR_VERSION: u8 = 1;

impl Cursor {
    /// The cursor behind `after` in the pages of this query.
    #[must_use]
    pub fn new(after: EventId, filter: &Filter, order: Order) -> Self {
        Self {
            after,
            query: fingerprint(filter, order),
        }
    }

    /// The event that the page before ended with.
    #[must_use]
    pub fn after(self) -> EventId {
        self.after
    }

    /// Reads a cursor that a page of this query gave.
    ///
    /// # Errors
    /// [`InvalidCursor`] for anything else, cursors of other filters or orders among it.
    pub fn parse(text: &str, filter: &Filter, order: Order) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let bytes: [u8; 25] = bytes.try_into().map_err(|_| InvalidCursor)?;
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[9..]);
        let cursor = Self::new(EventId::new(Uuid::from_bytes(id)), filter, order);
        if cursor.to_string() == text {
            Ok(cursor)
        } else {
            Err(InvalidCursor)
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = vec![CURSOR_VERSION];
        bytes.extend(self.query);
        bytes.extend(self.after.as_uuid().as_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

fn fingerprint(filter: &Filter, order: Order) -> [u8; 8] {
    let digest = Sha256::digest(format!("{order:?} {filter:?}"));
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_in_its_own_query_and_in_no_other(bits in any::<u128>(), subject in "\\PC{1,10}") {
            let after = EventId::new(Uuid::from_u128(bits));
            let filter = Filter { subject: Some(subject), ..Filter::default() };
            let text = Cursor::new(after, &filter, Order::Ascending).to_string();
            prop_assert_eq!(Cursor::parse(&text, &filter, Order::Ascending).map(Cursor::after), Ok(after));
            prop_assert_eq!(Cursor::parse(&text, &filter, Order::Descending), Err(InvalidCursor));
            prop_assert_eq!(Cursor::parse(&text, &Filter::default(), Order::Ascending), Err(InvalidCursor));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,50}|[A-Za-z0-9_-]{0,50}") {
            prop_assert!(Cursor::parse(&text, &Filter::default(), Order::Descending).is_err());
        }
    }
}
