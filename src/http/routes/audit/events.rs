//! Events: what happened to each change, page by page or all in one stream.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::audit::{
    Cursor, Event, EventWithEntries, Export, Format, Order, Reader, StoreError, example_event,
    example_event_with_entries, example_stream,
};
use crate::authorization::{Authorizer, Request};
use crate::domain::EventId;
use crate::problem::ProblemKind;
use crate::schema::{self, named_schemas, one_of, records};
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

named_schemas! {
    /// Events, an `Event` a line.
    pub(in crate::http) EventLines = records::<Event>("application/x-ndjson");
    /// Which end of the trail comes first: `desc`, the newest, or `asc`, the oldest.
    pub(in crate::http) EventOrder = one_of([DESCENDING, ASCENDING]).default(Some(DESCENDING.into()));
}

const DESCENDING: &str = "desc";
const ASCENDING: &str = "asc";

pub(in crate::http) const MEDIA_TYPES: [&str; 3] = [FORMATS[0].0, FORMATS[1].0, FORMATS[2].0];

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
        ("limit" = Option<u64>, Query, description = "Events of a page, 100 unless given; of a stream in all, without a bound unless given.", nullable = false, minimum = 1,
            maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of a page of the same query.",
            nullable = false, min_length = 1),
        ("bom" = Option<bool>, Query, description = "With `true` CSV begins with a byte order mark, for Excel; with CSV alone.",
            nullable = false),
        ("order" = Option<EventOrder>, Query, description = "Which end of the trail comes first.", nullable = false),
    ),
    responses((status = 200, description = "A page of events; or all of them, an `Event` a line",
        content(
            (EventList = "application/json", example = json!({"events": [example_event()], "next_cursor": null})),
            (EventLines = "application/x-ndjson", example = json!(example_stream(Format::Ndjson))),
            (String = "text/csv", example = json!(example_stream(Format::Csv))),
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
        DESCENDING => Ok(Order::Descending),
        ASCENDING => Ok(Order::Ascending),
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
///
/// What happened to one change, and where its rows stand in the hash chain.
#[utoipa::path(
    get, path = path::EVENT, operation_id = "get_event", tag = "audit",
    params(("id" = schema::EventId, Path, description = "The event, as `Audit-Id` names it.",
        example = "019ab3c4-d5e6-7f00-8123-456789abcdef")),
    responses((status = 200, description = "The event and its rows in the trail", body = EventWithEntries,
        content_type = "application/json", example = json!(example_event_with_entries()))),
)]
pub(in crate::http) async fn get_event(
    caller: Authenticated,
    request: HttpRequest,
    authorizer: Data<Authorizer>,
    reader: Data<Reader>,
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
    let event = reader.event(EventId::new(id)).await?.ok_or_else(absent)?;
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
