//! Events: what happened to each change, page by page or all in one stream.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::audit::{Cursor, Event, EventWithEntries, Export, Format, Order, Reader, StoreError};
use crate::authorization::{Authorizer, Request};
use crate::domain::EventId;
use crate::problem::ProblemKind;
use crate::tasks::Tasks;

use super::filter::{FILTERS, FilterParameters, read_filter};
use super::reading::{log_broken_stream, on_main_runtime};
use crate::http::edge::Authenticated;
use crate::http::wire::{self, Length, Links, Parser, Problem, StreamPlace, Streams, path};

pub(in crate::http) const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;

/// What a caller can ask for; the first unless it says.
const FORMATS: [(&str, Option<Format>); 3] = [
    ("application/json", None),
    ("application/x-ndjson", Some(Format::Ndjson)),
    ("text/csv", Some(Format::Csv)),
];

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct EventList {
    /// In the order asked.
    events: Vec<Event>,
    /// Give it as `cursor` for the next page; null at the end.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Look through the audit trail.
///
/// One event a change, newest first unless asked otherwise. Pages follow one another by `next_cursor`, or
/// the `Link` header: no event comes twice and none is skipped, whatever is written meanwhile. As NDJSON or CSV
/// all events that fit come in one stream, bounded by `limit` where it is given.
///
/// An event is shown as it is when its page is read. Behind a filter by outcome one may come to fit, or no longer
/// fit, between two pages: whoever copies the trail follows `/audit/entries`.
#[utoipa::path(
    get, path = path::EVENTS, operation_id = "list_events", tag = "audit",
    params(
        FilterParameters,
        ("limit" = Option<u64>, Query, description = "Events a page, 100 unless given", nullable = false, minimum = 1,
            maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of a page of the same query",
            nullable = false),
        ("bom" = Option<bool>, Query, description = "With `true` CSV begins with a byte order mark, for Excel",
            nullable = false),
        ("order" = Option<String>, Query, description = "`desc` (newest first, the default) or `asc`",
            nullable = false, pattern = "^(desc|asc)$"),
    ),
    responses((status = 200, description = "A page of events; or all of them, an event a line",
        headers(("Link" = String, description = "`<…>; rel=\"next\"` where a next page exists")),
        content(
            (EventList = "application/json", example = json!({"events": [example_event()], "next_cursor": null})),
            (String = "application/x-ndjson", example = json!(example_line())),
            (String = "text/csv", example = json!(EXAMPLE_CSV)),
        ))),
)]
pub(in crate::http) async fn list_events(
    caller: Authenticated,
    request: HttpRequest,
    authorizer: Data<Authorizer>,
    reader: Data<Reader>,
    tasks: Data<Tasks>,
    streams: Data<Streams>,
    links: Data<Links>,
) -> Result<HttpResponse, Problem> {
    let known = [&FILTERS[..], &["limit", "cursor", "order", "bom"]].concat();
    let mut parser = Parser::new(&request, &known);
    let filter = read_filter(&mut parser);
    let order = parser.parameter("order", |word| match word {
        "desc" => Ok(Order::Descending),
        "asc" => Ok(Order::Ascending),
        _ => Err("must be desc or asc"),
    });
    let order = order.unwrap_or_default();
    let limit = parser.whole_number("limit", 1..=LIMIT_MAX);
    let cursor = parser.parameter("cursor", |text| Cursor::parse(text, &filter, order));
    let mark = parser.flag("bom");
    let format = wire::choose(&request, &FORMATS);
    if mark
        && format
            .as_ref()
            .is_ok_and(|format| *format != Some(Format::Csv))
    {
        parser.fault("query", "bom", "goes with text/csv alone");
    }
    parser.finish(Some(()))?;
    let format = match format? {
        Some(Format::Csv) if mark => Some(Format::CsvWithMark),
        format => format,
    };
    caller.admit(0)?;
    caller.may(&authorizer, Request::ReadAudit)?;

    let after = cursor.map(Cursor::after);
    let reader = reader.on_behalf_of(caller.caller().party());
    if let Some(format) = format {
        let export = Export::new(reader, filter, order, format, after, limit);
        let place = streams.place(&request, caller.caller())?;
        return stream(&tasks, place, export, format).await;
    }
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    let asked = filter.clone();
    let page = on_main_runtime(&tasks, async move {
        reader.page(&asked, order, limit, after).await
    });
    let page = page.await??;
    let next_cursor = page
        .next
        .map(|last| Cursor::new(last, &filter, order).to_string());
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = &next_cursor {
        let query = next_query(&request, cursor);
        response.insert_header((header::LINK, links.next(&request, &query)));
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
)]
pub(in crate::http) async fn get_event(
    caller: Authenticated,
    request: HttpRequest,
    authorizer: Data<Authorizer>,
    reader: Data<Reader>,
    tasks: Data<Tasks>,
) -> Result<HttpResponse, Problem> {
    Parser::new(&request, &[]).finish(Some(()))?;
    caller.admit(0)?;
    caller.may(&authorizer, Request::ReadAudit)?;
    let absent = || Problem::new(ProblemKind::NotFound, "the trail has no event of this id");
    let text = request.match_info().get("id").unwrap_or_default();
    // The hyphenated form alone, as the trail writes it; case does not matter (RFC 9562, section 4).
    let id = Uuid::try_parse(text)
        .ok()
        .filter(|_| text.len() == 36)
        .ok_or_else(absent)?;
    let event = on_main_runtime(&tasks, async move { reader.event(EventId::new(id)).await });
    let event = event.await??.ok_or_else(absent)?;
    Ok(HttpResponse::Ok().json(event))
}

/// The first chunk is read before the answer begins, so that a trail that cannot be read is a problem and not
/// a broken body.
async fn stream(
    tasks: &Tasks,
    place: StreamPlace,
    mut export: Export,
    format: Format,
) -> Result<HttpResponse, Problem> {
    let begun = on_main_runtime(tasks, async move {
        Ok::<_, StoreError>((export.next().await?, export))
    });
    let (mut chunk, mut export) = begun.await??;
    Ok(
        place.respond(format.media_type(), Length::Whole, |sink| async move {
            while let Some(lines) = chunk {
                if sink.send(lines).await.is_err() {
                    return;
                }
                chunk = match export.next().await {
                    Ok(next) => next,
                    Err(error) => return log_broken_stream(&error),
                };
            }
            sink.end().await;
        }),
    )
}

/// The same query with another cursor.
fn next_query(request: &HttpRequest, cursor: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let given = form_urlencoded::parse(request.query_string().as_bytes());
    query.extend_pairs(given.filter(|(name, _)| name != "cursor"));
    query.append_pair("cursor", cursor);
    query.finish()
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

fn example_line() -> String {
    format!("{}\n", example_event())
}

const EXAMPLE_CSV: &str = "id,occurred_at,completed_at,subject,issuer,token_id,client_ip,user_agent,request_id,trace_id,operation,\
    image_id,account_id,region,outcome,http_status,upstream_ret_code,upstream_request_id,upstream_calls,duration_ms,\
    reason,expires_at,policy_ids,detail\r\n019ab3c4-d5e6-7f00-8123-456789abcdef,2025-11-24T10:23:48.582000Z,\
    2025-11-24T10:23:48.643121Z,team-a,https://issuer.example,b7f2,10.1.2.3,curl/8.5.0,\
    4f0c2e9a-6c1b-4a55-9b0e-0c6f3a1d2b77,,share,compshareImage-sandbox1,12345,cn-wlcb,succeeded,200,0,\
    4f2a6c1e-0000-4000-8000-000000000001,1,61,OPS-17,,,\r\n";

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
