//! The audit trail: who asked for which change, and how it ended.
//!
//! Two doors: the [`Writer`] appends and cannot look, the [`Reader`] looks and cannot append, and neither
//! can update. Events come as pages, summaries and [`Export`]s, rows as a [`Feed`]. The promises:
//!
//! - a [`Ticket`] resolves with `Ok` only when its entry is on disk (a commit with `synchronous=FULL`);
//! - entries are never updated, replaced or deleted; the database refuses it by triggers;
//! - each row's hash covers the row and the hash before it, so [`verify`](verify()) finds any that was
//!   changed, removed, inserted or moved ([`chain`] says how);
//! - an event has exactly one outcome row, or one denial;
//! - whoever pages, exports or follows misses nothing and sees nothing twice, whatever is written meanwhile
//!   (an event that gets its outcome may come to fit a filter by outcome behind the page that was read), and
//!   holds no read transaction open between two pages.
//!
//! Who may read the trail is decided elsewhere, and so is what an outcome means.

mod backup;
pub mod chain;
mod columns;
mod cursor;
mod entry;
mod event;
mod example;
mod export;
mod feed;
mod filter;
mod heads;
mod ids;
mod import;
mod kinds;
mod lease;
mod line;
mod progress;
mod reader;
mod replicas;
mod store;
mod summary;
mod verify;
mod writer;

pub use backup::{BackupError, backup};
pub use chain::{Hash, Head, InvalidHead};
pub use cursor::{ChainPlaces, EntryCursor, InvalidEntryCursor};
pub use entry::{
    Completion, Denial, EARLIER_CALL_OPEN, Elapsed, HttpStatus, Intent, LookedAfter, Recalled,
    Refused,
};
pub use event::{EntryPlace, Event, EventWithEntries};
pub use example::{
    example_entry, example_entry_line, example_event, example_event_with_entries, example_stream,
};
pub use export::{Export, Format};
pub use feed::{Entry, Feed, FeedError, FeedStart};
pub use filter::{
    Cursor, EventOperation, Filter, InvalidCursor, InvalidOperation, Order, OutcomeFilter,
};
pub use import::{Copied, ImportError, import};
pub use kinds::{EntryKind, EventOperation as EventOperationSchema, Sha256};
pub use lease::Lease;
pub use line::append_line;
pub use progress::{Progress, ProgressUnit, TellProgress};
pub use reader::{LastChange, OpenChange, Page, Reader};
pub use replicas::{LockWord, Locks, Neighbours, Replicas};
pub use store::{FoundLock, Grant, LetGo, LockKey, StoreError};
pub use summary::{
    Bucket, Buckets, CountedBucket, Counts, InvalidBucket, Summary, SummaryBucket, TooManyBuckets,
};
pub use verify::{
    Break, Expected, InvalidExpected, Report, UnnamedHead, verify, verify_all, verify_and_tell,
};
pub use writer::{
    BulkTicket, CLOCK_BEHIND_TOLD, Closed, EnqueueError, Health, NotDurable, Recorded, Ticket,
    Writer, WriterTask,
};

use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;

use chain::Tip;
use writer::Opened;

use crate::config::{ServerUrl, TrailPlace};
use crate::domain::Timestamp;
use crate::telemetry::Metrics;

/// How far the clock may be behind the trail's last id at a start.
const CLOCK_BEHIND_MAX: Duration = Duration::from_mins(5);

/// How long a start waits for a database before it goes on without one.
const OPENING_TIME: Duration = Duration::from_secs(25);

/// What a start puts up with, because somebody said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accepted {
    /// A clock that is far behind the trail's last id.
    pub clock: bool,
    /// A trail that ends before the head that this host noted last, or has another row there.
    pub cut_trail: bool,
}

/// The doors of a trail that was opened.
#[derive(Debug)]
pub struct Doors {
    /// Appends.
    pub writer: Writer,
    /// To be waited for at a stop.
    pub task: WriterTask,
    /// Looks.
    pub reader: Reader,
    /// What gateways of one trail settle among them; `None` where there is only one.
    pub replicas: Option<Replicas>,
}

/// Opens the trail: a file for this process alone, which is made where there is none; or a database for this gateway beside
/// others. A database that does not answer is waited for in the background. `call_time` is how long one call to the upstream may
/// go on.
///
/// # Errors
/// Where it cannot be used, or is not what it should be and that is not `accepted`: see [`StoreError`].
pub async fn open(
    place: &TrailPlace,
    accepted: Accepted,
    call_time: Duration,
    metrics: Metrics,
) -> Result<Doors, StoreError> {
    match place {
        TrailPlace::File(path) => open_file(path, accepted, metrics).await,
        TrailPlace::Server(url) => open_server(url, accepted, call_time, metrics).await,
    }
}

async fn open_server(
    url: &ServerUrl,
    accepted: Accepted,
    call_time: Duration,
    metrics: Metrics,
) -> Result<Doors, StoreError> {
    let lease = Lease::to_come();
    let appender = store::ServerAppender::new(url, call_time, lease.clone());
    let connections = store::ReadConnections::Server(store::ServerReads::new(url, true)?);
    let (told, first) = oneshot::channel();
    let opened = Opened {
        appender: store::Appender::Server(Box::new(appender)),
        tip: None,
        head_file: None,
        reads: None,
        opening: Some(told),
    };
    let started = Writer::start(opened, lease.clone(), metrics);
    let (writer, task, committed) = started.map_err(|error| StoreError::Away {
        database: url.to_string(),
        source: error.into(),
    })?;
    match tokio::time::timeout(OPENING_TIME, first).await {
        Ok(Ok(Err(error @ StoreError::Away { .. }))) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(error.message = %error, error.cause = cause, "the audit database does not answer; it is waited for");
        }
        Ok(Ok(opened)) => check_clock(&url.to_string(), opened?, accepted)?,
        // Its schema is brought up to date, of which the log tells; or the writer has ended, and says so whenever it is asked.
        Err(_) | Ok(Err(_)) => {}
    }
    Ok(Doors {
        writer,
        task,
        reader: Reader::beside(connections, committed),
        replicas: Some(Replicas::new(url, lease)),
    })
}

/// The same of a file.
///
/// # Errors
/// As [`open`].
pub async fn open_file(
    path: &Path,
    accepted: Accepted,
    metrics: Metrics,
) -> Result<Doors, StoreError> {
    let path = &store::resolved(path).await;
    let head_file = heads::HeadFile::beside(path);
    let noted = match head_file.read().await {
        // What cannot be read says as little as what is garbled.
        Err(_) if accepted.cut_trail => Some(Err(InvalidHead)),
        noted => noted?,
    };
    let had_rows = |noted: &&Result<Head, InvalidHead>| {
        noted.as_ref().map_or(true, |noted| noted.sequence > 0)
    };
    if let Some(noted) = noted.as_ref().filter(had_rows)
        && !accepted.cut_trail
        && matches!(tokio::fs::try_exists(path).await, Ok(false))
    {
        // Before an empty trail is made in its place.
        return Err(cut(path, noted, "there is no such file"));
    }
    let sequence = match &noted {
        Some(Ok(noted)) => noted.sequence,
        Some(Err(InvalidHead)) | None => 0,
    };
    let (appender, found) = store::FileAppender::open(path, sequence).await?;
    let tip = match check(path, found, noted, &head_file, accepted).await {
        Ok(tip) => tip,
        Err(error) => {
            // Nothing is left beside a trail that is not used.
            let _ = tokio::task::spawn_blocking(|| appender.close()).await;
            return Err(error);
        }
    };
    let connections = store::FileReads::open(path, true).await?;
    let opened = Opened {
        appender: store::Appender::File(Box::new(appender)),
        tip: Some(tip),
        head_file: Some(head_file),
        reads: Some(connections.gate()),
        opening: None,
    };
    let started = Writer::start(opened, Lease::of_one(), metrics);
    let (writer, task, committed) = started.map_err(|error| StoreError::open(path, error))?;
    Ok(Doors {
        writer,
        task,
        reader: Reader::beside(store::ReadConnections::File(connections), committed),
        replicas: None,
    })
}

/// Whether the trail is what this host knows of it, and the clock what the trail's ids say.
async fn check(
    path: &Path,
    found: store::Found,
    noted: Option<Result<Head, InvalidHead>>,
    head_file: &heads::HeadFile,
    accepted: Accepted,
) -> Result<Tip, StoreError> {
    let store::Found { tip, hash } = found;
    let known = matches!(&noted, Some(Ok(noted)) if *noted == tip.head());
    if let Some(noted) = noted {
        let holds = match &noted {
            Ok(noted) => noted.sequence == 0 || hash == Some(noted.hash.to_string()),
            Err(InvalidHead) => false,
        };
        let ends = format!("it ends at {}", tip.head());
        match (holds, accepted.cut_trail) {
            (true, _) => {}
            (false, false) => return Err(cut(path, &noted, &ends)),
            (false, true) => tracing::warn!("{}; it is accepted", cut(path, &noted, &ends)),
        }
    }
    check_clock(&path.display().to_string(), tip.last_event_at(), accepted)?;
    // The log says it, too. An earlier run may have been killed before it noted its own.
    if !known && let Err(error) = head_file.write(&tip.head()).await {
        tracing::warn!(error.message = %error, "the audit trail's head could not be noted beside it");
    }
    Ok(tip)
}

/// Whether the clock is what a trail's ids say.
fn check_clock(
    database: &str,
    last_event: Option<Timestamp>,
    accepted: Accepted,
) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let Some(last) = last_event.filter(|last| last.since(now) > CLOCK_BEHIND_MAX) else {
        return Ok(());
    };
    let database = database.into();
    let behind = StoreError::ClockBehind {
        database,
        now,
        last,
    };
    if accepted.clock {
        tracing::warn!("{behind}; it is accepted");
        Ok(())
    } else {
        Err(behind)
    }
}

fn cut(path: &Path, noted: &Result<Head, InvalidHead>, found: &str) -> StoreError {
    StoreError::Cut {
        path: path.into(),
        noted: noted
            .as_ref()
            .map_or_else(|_| "(unreadable)".to_owned(), ToString::to_string),
        found: found.to_owned(),
    }
}

#[cfg(test)]
mod tests;
