//! The trail for those who may read it.
//!
//! Reads go from the authorizer straight to the trail's reader: a use case between would only pass on.

use std::fmt::Write as _;

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::audit::{
    Cursor, Event, EventOperation, EventWithEntries, Filter, Order, Reader, StoreError,
};
use crate::authorization::{Action, Authorizer, Decision};
use crate::domain::{EventId, Outcome, Timestamp};
use crate::problem::ProblemKind;
use crate::tasks::Tasks;

use super::caller::Authenticated;
use super::parse::Parser;
use super::path;
use super::problem::Problem;

const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;
const PARAMETERS: [&str; 11] = [
    "from",
    "to",
    "subject",
    "image_id",
    "account_id",
    "operation",
    "outcome",
    "request_id",
    "limit",
    "cursor",
    "order",
];

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventList {
    /// In the order asked.
    events: Vec<Event>,
    /// Give it as `cursor` for the next page; null at the end.
    next_cursor: Option<String>,
}

/// Look through the audit trail.
///
/// One event a change, newest first unless asked otherwise. Pages follow one another by `next_cursor`, or
/// the `Link` header: no event comes twice and none is skipped, whatever is written meanwhile.
#[utoipa::path(
    get, path = path::EVENTS, operation_id = "list_events", tag = "audit",
    params(
        ("from" = Option<String>, Query, description = "Events at or after this time (RFC 3339), as 2026-01-31T00:00:00Z", nullable = false,
            format = DateTime),
        ("to" = Option<String>, Query, description = "Events before this time (RFC 3339)", nullable = false,
            format = DateTime),
        ("subject" = Option<String>, Query, description = "Who asked, exactly", nullable = false),
        ("image_id" = Option<String>, Query, description = "The image", nullable = false),
        ("account_id" = Option<u64>, Query, description = "The account", nullable = false, minimum = 1,
            maximum = 9_007_199_254_740_991_u64),
        ("operation" = Option<String>, Query, description = "`share`, `unshare` or `update`", nullable = false,
            pattern = "^(share|unshare|update)$"),
        ("outcome" = Option<String>, Query, nullable = false,
            description = "`pending`, `succeeded`, `invalid_account`, `denied`, `failed` or `unknown`",
            pattern = "^(pending|succeeded|invalid_account|denied|failed|unknown)$"),
        ("request_id" = Option<String>, Query, description = "The request's id, exactly", nullable = false),
        ("limit" = Option<u64>, Query, description = "Events a page, 100 unless given", nullable = false, minimum = 1,
            maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of a page of the same query",
            nullable = false),
        ("order" = Option<String>, Query, description = "`desc` (newest first, the default) or `asc`",
            nullable = false, pattern = "^(desc|asc)$"),
    ),
    responses((status = 200, description = "A page of events", body = EventList, content_type = "application/json",
        headers(("Link" = String, description = "`<…>; rel=\"next\"` where a next page exists")),
        example = json!({"events": [example_event()], "next_cursor": null}))),
    security(("bearer" = ["audit:read"]))
)]
pub(super) async fn list_events(
    caller: Authenticated,
    request: HttpRequest,
    authorizer: Data<Authorizer>,
    reader: Data<Reader>,
    tasks: Data<Tasks>,
) -> Result<HttpResponse, Problem> {
    let mut parser = Parser::new(&request, &PARAMETERS);
    let text = |text: &str| Ok::<_, &str>(text.to_owned());
    let filter = Filter {
        from: parser.parameter("from", Timestamp::parse_rfc3339),
        to: parser.parameter("to", Timestamp::parse_rfc3339),
        subject: parser.parameter("subject", text),
        image_id: parser.parameter("image_id", str::parse),
        account_id: parser.parameter("account_id", str::parse),
        operation: parser.parameter("operation", |word| {
            EventOperation::from_word(word).ok_or("must be share, unshare or update")
        }),
        outcome: parser.parameter("outcome", |word| {
            let outcome = Outcome::from_word(word).map(Into::into);
            outcome.ok_or("must be pending, succeeded, invalid_account, denied, failed or unknown")
        }),
        request_id: parser.parameter("request_id", text),
    };
    let order = parser.parameter("order", |word| match word {
        "desc" => Ok(Order::Descending),
        "asc" => Ok(Order::Ascending),
        _ => Err("must be desc or asc"),
    });
    let order = order.unwrap_or_default();
    let limit = parser.parameter("limit", |text| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let limit = text
            .parse()
            .ok()
            .filter(|limit| plain && *limit <= LIMIT_MAX);
        limit.ok_or_else(|| format!("must be an integer from 1 to {LIMIT_MAX}"))
    });
    let cursor = parser.parameter("cursor", |text| Cursor::parse(text, &filter, order));
    parser.finish(Some(()))?;
    may_read(&caller, &authorizer)?;

    let (limit, after) = (limit.unwrap_or(LIMIT_DEFAULT), cursor.map(Cursor::after));
    let asked = filter.clone();
    let page = on_main_runtime(&tasks, async move {
        reader.page(&asked, order, limit, after).await
    });
    let page = page.await?;
    let next_cursor = page
        .next
        .map(|last| Cursor::new(last, &filter, order).to_string());
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = &next_cursor {
        response.insert_header((header::LINK, next_link(&request, cursor)));
    }
    Ok(response.json(EventList {
        events: page.events,
        next_cursor,
    }))
}

/// See one event of the audit trail with its rows.
#[utoipa::path(
    get, path = path::EVENT, operation_id = "get_event", tag = "audit",
    params(("id" = String, Path, description = "The event, as `Audit-Id` names it", format = "uuid",
        example = "019ab3c4-d5e6-7f00-8123-456789abcdef")),
    responses((status = 200, description = "The event and its rows in the trail", body = EventWithEntries,
        content_type = "application/json", example = json!(example_event_with_entries()))),
    security(("bearer" = ["audit:read"]))
)]
pub(super) async fn get_event(
    caller: Authenticated,
    request: HttpRequest,
    authorizer: Data<Authorizer>,
    reader: Data<Reader>,
    tasks: Data<Tasks>,
) -> Result<HttpResponse, Problem> {
    Parser::new(&request, &[]).finish(Some(()))?;
    may_read(&caller, &authorizer)?;
    let absent = || Problem::new(ProblemKind::NotFound, "the trail has no event of this id");
    let text = request.match_info().get("id").unwrap_or_default();
    // The hyphenated form alone, as the trail writes it; case does not matter (RFC 9562, section 4).
    let id = Uuid::try_parse(text)
        .ok()
        .filter(|_| text.len() == 36)
        .ok_or_else(absent)?;
    let event = on_main_runtime(&tasks, async move { reader.event(EventId::new(id)).await });
    let event = event.await?.ok_or_else(absent)?;
    Ok(HttpResponse::Ok().json(event))
}

/// The pool's connections belong to the main runtime.
async fn on_main_runtime<T: Send + 'static>(
    tasks: &Tasks,
    read: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, Problem> {
    let lost = || Problem::new(ProblemKind::InternalError, "the gateway failed");
    Ok(tasks.run(read).await.ok_or_else(lost)??)
}

fn may_read(caller: &Authenticated, authorizer: &Authorizer) -> Result<(), Problem> {
    match authorizer.decide(caller.principal(), Action::ReadAudit) {
        Decision::Allowed { .. } => Ok(()),
        Decision::Refused(refusal) => Err(refusal.into()),
    }
}

/// The same query with another cursor (RFC 8288).
fn next_link(request: &HttpRequest, cursor: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let given = form_urlencoded::parse(request.query_string().as_bytes());
    query.extend_pairs(given.filter(|(name, _)| name != "cursor"));
    query.append_pair("cursor", cursor);
    let mut link = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        link,
        "<{}?{}>; rel=\"next\"",
        request.path(),
        query.finish()
    );
    link
}

fn example_event() -> serde_json::Value {
    serde_json::json!({
        "id": "019ab3c4-d5e6-7f00-8123-456789abcdef", "occurred_at": "2025-11-24T10:23:48.582000Z",
        "completed_at": "2025-11-24T10:23:48.643121Z", "subject": "team-a", "issuer": "https://issuer.example",
        "token_id": "b7f2", "client_ip": "10.1.2.3", "user_agent": "curl/8.5.0",
        "request_id": "4f0c2e9a-6c1b-4a55-9b0e-0c6f3a1d2b77", "trace_id": null, "operation": "share",
        "image_id": "compshareImage-sandbox1", "account_id": 12345, "region": "cn-wlcb", "outcome": "succeeded",
        "http_status": 200, "upstream_ret_code": 0, "upstream_request_id": "4f2a6c1e-0000-4000-8000-000000000001",
        "upstream_calls": 1, "duration_ms": 61, "reason": "OPS-17", "expires_at": null, "policy_ids": [],
        "detail": null
    })
}

fn example_event_with_entries() -> serde_json::Value {
    let mut event = example_event();
    event["entries"] = serde_json::json!([
        {"kind": "intent", "chain_id": "main", "sequence": 41, "recorded_at": "2025-11-24T10:23:48.582310Z",
            "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        {"kind": "outcome", "chain_id": "main", "sequence": 42, "recorded_at": "2025-11-24T10:23:48.643121Z",
            "hash": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"}
    ]);
    event
}
