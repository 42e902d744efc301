//! An event as it is published: the one format of the API and of exports.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{EventId, Outcome, Timestamp};

use super::ids::id_time;
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
    #[schema(required, format = DateTime)]
    pub completed_at: Option<String>,
    /// Who asked: the token's `sub`, or `system:…` for what the gateway does by itself.
    pub subject: String,
    /// The token's `iss`.
    #[schema(required)]
    pub issuer: Option<String>,
    /// The token's `jti`.
    #[schema(required)]
    pub token_id: Option<String>,
    /// Where the request came from.
    #[schema(required)]
    pub client_ip: Option<String>,
    /// What the client called itself.
    #[schema(required)]
    pub user_agent: Option<String>,
    /// The request's id.
    #[schema(required)]
    pub request_id: Option<String>,
    /// The caller's trace.
    #[schema(required)]
    pub trace_id: Option<String>,
    /// `share` or `unshare`; `update` where a bulk request was denied as a whole.
    pub operation: String,
    /// The image.
    pub image_id: String,
    /// The account; null where a bulk request was denied as a whole.
    #[schema(required, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub account_id: Option<i64>,
    /// The region.
    pub region: String,
    /// `pending`, `succeeded`, `invalid_account`, `denied`, `failed` or `unknown`.
    pub outcome: String,
    /// What the caller was told; null while pending.
    #[schema(required)]
    pub http_status: Option<i64>,
    /// The upstream's last `RetCode`.
    #[schema(required)]
    pub upstream_ret_code: Option<i64>,
    /// The upstream's name for its last answer.
    #[schema(required)]
    pub upstream_request_id: Option<String>,
    /// Calls that carried this change; null while pending.
    #[schema(required)]
    pub upstream_calls: Option<i64>,
    /// From the request's arrival to the outcome; null while pending.
    #[schema(required)]
    pub duration_ms: Option<i64>,
    /// Why, in the caller's words.
    #[schema(required)]
    pub reason: Option<String>,
    /// When the share ends by itself; null: it does not.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
    /// The policies that decided; empty where scopes alone did.
    pub policy_ids: Vec<String>,
    /// What else an auditor should know.
    #[schema(required)]
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
