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

pub mod chain;
mod entry;
mod event;
mod export;
mod feed;
mod filter;
mod ids;
mod reader;
mod store;
mod summary;
mod verify;
mod writer;

pub use chain::{Hash, Head};
pub use entry::{Completion, Denial, Elapsed, HttpStatus, Intent, Recalled, Refused};
pub use event::{EntryPlace, Event, EventWithEntries};
pub use export::{Export, Format};
pub use feed::{Entry, EntryCursor, Feed, FeedError, InvalidEntryCursor};
pub use filter::{
    Cursor, EventOperation, Filter, InvalidCursor, InvalidOperation, Order, OutcomeFilter,
};
pub use reader::{LastChange, Page, Reader};
pub use store::StoreError;
pub use summary::{Bucket, Buckets, CountedBucket, Counts, InvalidBucket, Summary, TooManyBuckets};
pub use verify::{Break, Expected, InvalidExpected, Report, verify};
pub use writer::{
    BulkTicket, Closed, EnqueueError, Health, NotDurable, Recorded, Ticket, Writer, WriterTask,
};

use std::path::Path;

use crate::telemetry::Metrics;

/// Opens the trail for this process alone: the writer's door, the writer to wait for at a stop, and the
/// reader's door. Makes the file where there is none.
///
/// # Errors
/// Where the file cannot be used: see [`StoreError`].
pub async fn open(
    path: &Path,
    metrics: Metrics,
) -> Result<(Writer, WriterTask, Reader), StoreError> {
    let appender = store::Appender::open(path).await?;
    let (writer, task, committed) = Writer::start(appender, metrics).await?;
    let reader = Reader::beside(path, committed).await?;
    Ok((writer, task, reader))
}

#[cfg(test)]
mod tests;
