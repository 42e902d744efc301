//! The feed: the trail row by row, for whoever copies it.

use std::io::Write as _;
use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use tokio::time::sleep;

use crate::audit::{
    Entry, EntryCursor, Feed, FeedError, FeedStart, Reader, append_line, example_entry,
    example_entry_line,
};
use crate::authorization::{Authorizer, Request};
use crate::schema::{named_schemas, records};
use crate::tasks::Tasks;

use super::reading::{log_broken_stream, on_main_runtime};
use crate::http::edge::{Authenticated, StandingCaller};
use crate::http::wire::{self, KEEP_ALIVE, Length, Parser, Problem, Sink, Streams, path};

/// How often it is looked at whether a follower still may follow.
const STANDING_INTERVAL: Duration = Duration::from_secs(5);
const NDJSON: &str = "application/x-ndjson";
const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: &str = "Last-Event-ID";
/// Most rows that a feed can begin before the end of the trail.
const TAIL_MAX: usize = 1000;

named_schemas! {
    /// Rows of the trail, an `Entry` a line.
    pub(in crate::http) EntryLines = records::<Entry>(NDJSON);
    /// Rows of the trail as server-sent events `entry`: the `data` of each is an `Entry`, its `id` the cursor.
    pub(in crate::http) EntryEvents = records::<Entry>(EVENT_STREAM);
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Ndjson,
    ServerSentEvents,
}

const FORMATS: [(&str, Format); 2] = [
    (NDJSON, Format::Ndjson),
    (EVENT_STREAM, Format::ServerSentEvents),
];

pub(in crate::http) const MEDIA_TYPES: [&str; 2] = [FORMATS[0].0, FORMATS[1].0];

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => NDJSON,
            Self::ServerSentEvents => EVENT_STREAM,
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
/// comment every 15 s where there are none, until the gateway stops. `tail` begins near the end instead, as for a log that is
/// watched.
#[utoipa::path(
    get, path = path::ENTRIES, operation_id = "feed_entries", tag = "audit",
    params(
        ("after" = Option<String>, Query, description = "The `cursor` of the last row that you have; from the oldest unless given.",
            nullable = false, min_length = 1),
        ("tail" = Option<u64>, Query, description = "Begins with so many of the last rows instead; 0: with what is written from now on. \
            Not with `after`.", nullable = false, minimum = 0, maximum = 1000),
        ("follow" = Option<bool>, Query, description = "Whether to go on as rows are written.", nullable = false),
        ("Last-Event-ID" = Option<String>, Header, description = "As `after`, and it wins over it; sent by browsers that follow.", nullable = false),
    ),
    responses((status = 200, description = "The rows: each line, or the `data` of each event, is an `Entry`",
        content(
            (EntryLines = "application/x-ndjson", example = json!(example_line())),
            (EntryEvents = "text/event-stream", example = json!(example_event())),
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
    let mut parser = Parser::new(&request, &["after", "tail", "follow"]);
    let after = parser.parameter("after", str::parse::<EntryCursor>);
    let tail = parser.whole_number("tail", 0..=TAIL_MAX);
    if parser.has("after") && parser.has("tail") {
        parser.fault("query", "tail", "must not stand beside after");
    }
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
        let behind = last_event_id.or(after).map(FeedStart::Behind);
        let start = behind.or(tail.map(FeedStart::Last)).unwrap_or_default();
        let mut feed = reader.feed(start).await?;
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

fn example_line() -> String {
    format!("{}\n", example_entry_line())
}

fn example_event() -> String {
    let (cursor, line) = (example_entry().cursor, example_entry_line());
    format!("id: {cursor}\nevent: entry\ndata: {line}\n\n")
}
