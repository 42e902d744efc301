//! What events and rows look like, for the document: made of the types that are published, and written as they are.

use super::cursor::EntryCursor;
use super::event::{EntryPlace, Event, EventWithEntries};
use super::export::{Format, lines};
use super::feed::Entry;
use super::line::append_line;
use super::reader::Page;

const ID: &str = "019ab3c4-d5e6-7f00-8123-456789abcdef";
const BEGUN: &str = "2025-11-24T10:23:48.582310Z";
const ENDED: &str = "2025-11-24T10:23:48.643121Z";
const SUBJECT: &str = "team-a";
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const HASH_AFTER: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
const HASH_BEFORE: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

/// An event.
#[must_use]
pub fn example_event() -> Event {
    Event {
        id: ID.into(),
        occurred_at: "2025-11-24T10:23:48.582000Z".into(),
        completed_at: Some(ENDED.into()),
        subject: SUBJECT.into(),
        issuer: Some("https://issuer.example".into()),
        token_id: Some("b7f2".into()),
        client_ip: Some("10.1.2.3".into()),
        user_agent: Some("curl/8.5.0".into()),
        request_id: Some("4f0c2e9a-6c1b-4a55-9b0e-0c6f3a1d2b77".into()),
        trace_id: None,
        operation: "share".into(),
        image_id: "compshareImage-sandbox1".into(),
        account_id: Some(12345),
        region: "cn-wlcb".into(),
        outcome: "succeeded".into(),
        http_status: Some(200),
        upstream_ret_code: Some(0),
        upstream_request_id: Some("4f2a6c1e-0000-4000-8000-000000000001".into()),
        upstream_calls: Some(1),
        duration_ms: Some(61),
        reason: Some("OPS-17".into()),
        expires_at: None,
        policy_ids: Vec::new(),
        detail: None,
    }
}

/// The same event with its rows.
#[must_use]
pub fn example_event_with_entries() -> EventWithEntries {
    let row = |kind: &str, sequence, recorded_at: &str, hash: &str| EntryPlace {
        kind: kind.into(),
        chain_id: "main".into(),
        sequence,
        recorded_at: recorded_at.into(),
        hash: hash.into(),
    };
    EventWithEntries {
        event: example_event(),
        entries: vec![
            row("intent", 41, BEGUN, HASH),
            row("outcome", 42, ENDED, HASH_AFTER),
        ],
    }
}

/// The same event as a stream of this format.
#[must_use]
pub fn example_stream(format: Format) -> String {
    let page = Page {
        events: vec![example_event()],
        next: None,
    };
    String::from_utf8_lossy(&lines(format, true, &page)).into_owned()
}

/// The event's first row, as the feed gives it.
#[must_use]
pub fn example_entry() -> Entry {
    let event = example_event();
    let (hash, hash_before) = (HASH.parse(), HASH_BEFORE.parse());
    Entry {
        cursor: hash.map_or_else(
            |_| String::new(),
            |hash| EntryCursor::of_one_chain(41, hash).to_string(),
        ),
        chain_id: "main".into(),
        sequence: 41,
        kind: "intent".into(),
        version: 1,
        event_id: event.id,
        recorded_at: BEGUN.into(),
        previous_hash: hash_before
            .map_or_else(|_| String::new(), |hash: super::Hash| hash.to_string()),
        hash: HASH.into(),
        subject: event.subject,
        issuer: event.issuer,
        token_id: event.token_id,
        client_ip: event.client_ip,
        user_agent: event.user_agent,
        request_id: event.request_id,
        trace_id: event.trace_id,
        operation: event.operation,
        image_id: event.image_id,
        account_id: event.account_id,
        region: event.region,
        reason: event.reason,
        expires_at: None,
        policy_ids: serde_json::value::to_raw_value(&event.policy_ids).ok(),
        outcome: None,
        http_status: None,
        upstream_ret_code: None,
        upstream_request_id: None,
        upstream_calls: None,
        duration_ms: None,
        detail: None,
    }
}

/// The same row as a line.
#[must_use]
pub fn example_entry_line() -> String {
    let mut line = Vec::new();
    append_line(&mut line, &example_entry());
    String::from_utf8_lossy(&line).into_owned()
}
