//! The feed: the trail row by row, for whoever copies it.

use std::io::Write as _;
use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use tokio::time::sleep;

use crate::audit::{Entry, EntryCursor, Feed, FeedError, Reader, append_line};
use crate::authorization::{Authorizer, Request};
use crate::tasks::Tasks;

use super::reading::{log_broken_stream, on_main_runtime};
use crate::http::edge::{Authenticated, StandingCaller};
use crate::http::wire::{self, KEEP_ALIVE, Length, Parser, Problem, Sink, Streams, path};

/// How often it is looked at whether a follower still may follow.
const STANDING_INTERVAL: Duration = Duration::from_secs(5);
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Ndjson,
    ServerSentEvents,
}

const FORMATS: [(&str, Format); 2] = [
    ("application/x-ndjson", Format::Ndjson),
    ("text/event-stream", Format::ServerSentEvents),
];

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::ServerSentEvents => "text/event-stream",
        }
    }

    fn chunk(self, entries: &[Entry]) -> Vec<u8> {
        let mut chunk = Vec::with_capacity(entries.len() * 1200);
        for entry in entries {
            // Memory takes what is written.
            match self {
                Self::Ndjson => {
                    append_line(&mut chunk, entry);
                    chunk.push(b'\n');
                }
                Self::ServerSentEvents => {
                    let _ = write!(chunk, "id: {}\nevent: entry\ndata: ", entry.cursor);
                    append_line(&mut chunk, entry);
                    chunk.extend_from_slice(b"\n\n");
                }
            }
        }
        chunk
    }

    /// What says nothing, so that a silent connection is known to live.
    fn keep_alive(self) -> Vec<u8> {
        match self {
            Self::Ndjson => b"\n".to_vec(),
            Self::ServerSentEvents => b": keep-alive\n\n".to_vec(),
        }
    }
}

/// Copy the audit trail, row by row.
///
/// Rows in chain order, each with its hash and the hash before it. Events change from `pending` to their
/// outcome, rows never change: whoever copies the trail follows them. `after`, or `Last-Event-ID`, goes on
/// behind a row without a gap or a repeat; `follow=true` goes on as rows are written, with a blank line or a
/// comment every 15 s where there are none, until the gateway stops.
#[utoipa::path(
    get, path = path::ENTRIES, operation_id = "feed_entries", tag = "audit",
    params(
        ("after" = Option<String>, Query, description = "The `cursor` of the last row that you have", nullable = false),
        ("follow" = Option<bool>, Query, description = "Whether to go on as rows are written", nullable = false),
        ("Last-Event-ID" = Option<String>, Header, description = "As `after`, and it wins over it", nullable = false),
    ),
    responses((status = 200, description = "The rows, one a line or one an event",
        content(
            (Entry = "application/x-ndjson", example = json!(example_entry())),
            (String = "text/event-stream", example = json!(example_event())),
        ))),
)]
pub(in crate::http) async fn feed_entries(
    caller: Authenticated,
    request: HttpRequest,
    authorizer: Data<Authorizer>,
    reader: Data<Reader>,
    tasks: Data<Tasks>,
    streams: Data<Streams>,
) -> Result<HttpResponse, Problem> {
    let mut parser = Parser::new(&request, &["after", "follow"]);
    let after = parser.parameter("after", str::parse::<EntryCursor>);
    let follow = parser.flag("follow");
    let last_event_id = parser.header(LAST_EVENT_ID, str::parse::<EntryCursor>);
    parser.finish(Some(()))?;
    let format = wire::choose(&request, &FORMATS)?;
    caller.admit(0)?;
    caller.may(&authorizer, Request::ReadAudit)?;

    let (part, name) = match last_event_id {
        Some(_) => ("header", LAST_EVENT_ID),
        None => ("query", "after"),
    };
    let place = streams.place(&request, caller.caller())?;
    let begun = on_main_runtime(&tasks, async move {
        let mut feed = reader.feed(last_event_id.or(after)).await?;
        Ok::<_, FeedError>((feed.next().await?, feed))
    });
    let (first, feed) = begun.await?.map_err(|error| match error {
        FeedError::Cursor(error) => Problem::invalid_value(part, name, error.to_string()),
        FeedError::Store(error) => error.into(),
    })?;
    let walk = Walk {
        feed,
        format,
        follow,
    };
    let media_type = format.media_type();
    if !follow {
        let work = |sink| walk.run(first, sink);
        return Ok(place.respond(media_type, Length::Whole, work));
    }
    let standing = caller.standing(&request)?;
    let work = |sink| walk.run(first, sink);
    let length = Length::Following(Box::pin(refused(standing, authorizer)));
    Ok(place.respond(media_type, length, work))
}

/// Resolves once the follower's token or its policy refuses what it follows.
async fn refused(standing: StandingCaller, authorizer: Data<Authorizer>) {
    loop {
        sleep(STANDING_INTERVAL).await;
        let still = standing
            .caller()
            .is_some_and(|caller| authorizer.permits(&caller, Request::ReadAudit));
        if !still {
            return;
        }
    }
}

/// One reader's way along the trail.
struct Walk {
    feed: Feed,
    format: Format,
    follow: bool,
}

impl Walk {
    async fn run(mut self, first: Vec<Entry>, sink: Sink) {
        let mut entries = first;
        loop {
            if entries.is_empty() && !(self.follow && self.wait(&sink).await) {
                return sink.end().await;
            }
            if !entries.is_empty() && sink.send(self.format.chunk(&entries)).await.is_err() {
                return;
            }
            entries = match self.feed.next().await {
                Ok(entries) => entries,
                Err(error) => return log_broken_stream(&error),
            };
        }
    }

    /// Waits for rows, or for long enough to say that there are none. Returns whether to go on.
    async fn wait(&mut self, sink: &Sink) -> bool {
        tokio::select! {
            grown = self.feed.wait() => grown,
            () = sleep(KEEP_ALIVE) => sink.send(self.format.keep_alive()).await.is_ok(),
        }
    }
}

fn example_entry() -> serde_json::Value {
    serde_json::json!({
        "cursor": "AQRtYWluAAAAAAAAACmfhtCBiEx9ZQ", "chain_id": "main", "sequence": 41, "kind": "intent", "version": 1,
        "event_id": "019ab3c4-d5e6-7f00-8123-456789abcdef", "recorded_at": "2025-11-24T10:23:48.582310Z",
        "previous_hash": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "subject": "team-a",
        "issuer": "https://issuer.example", "token_id": "b7f2", "client_ip": "10.1.2.3", "user_agent": "curl/8.5.0",
        "request_id": "4f0c2e9a-6c1b-4a55-9b0e-0c6f3a1d2b77", "trace_id": null, "operation": "share",
        "image_id": "compshareImage-sandbox1", "account_id": 12345, "region": "cn-wlcb", "reason": "OPS-17",
        "expires_at": null, "policy_ids": [], "outcome": null, "http_status": null, "upstream_ret_code": null,
        "upstream_request_id": null, "upstream_calls": null, "duration_ms": null, "detail": null
    })
}

fn example_event() -> String {
    let entry = example_entry();
    let cursor = entry["cursor"].as_str().unwrap_or_default();
    format!("id: {cursor}\nevent: entry\ndata: {entry}\n\n")
}
