//! Where the trail lies, each engine in its own SQL.
//!
//! The door speaks of entries and events, never of rows or transactions; sequence, hash and cursor are
//! made above it. What both engines do has one name here ([`Appender`], [`ReadConnections`], [`RowReader`]); what only
//! one of them needs, the locks of images and what other gateways left, is its own.

mod appender;
mod lead;
mod postgres;
mod query;
mod reads;
mod sqlite;
mod turns;
mod walk;

use std::path::{Path, PathBuf};

use crate::domain::Timestamp;

pub(super) use appender::{Appender, Insert};
use lead::Lead;
pub(super) use postgres::{
    Appender as ServerAppender, ChainHead, Import, Neighbours, ReadConnections as ServerReads,
};
pub use postgres::{Found as FoundLock, Grant, LetGo, LockKey, LockWord, Locks};
pub(super) use query::{Asker, EventRow, EventsQuery, LastRow, OpenRow, PlaceRow};
pub(super) use reads::{ReadConnections, StoredRow};
pub(super) use sqlite::{
    Appender as FileAppender, Found, NoReads, ReadConnections as FileReads, ReadGate, beside, copy,
    resolved,
};
#[cfg(test)]
pub(super) use sqlite::{BoundedRead, read_failed};
use sqlite::{primary, primary_code};
use turns::{Turn, Turns};
pub(super) use walk::{Chain, Noted, PackedRow, RowReader};

/// Why the store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory, the lock or the noted head beside the file cannot be made, opened or read.
    #[error("cannot use {path}", path = path.display())]
    Beside {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process holds the trail.
    #[error("{path} is in use by another gateway", path = path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The file was written by a later version of the program.
    #[error("{path} was written by a newer version of the gateway (migration {migration})", path = path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The migration that this version does not know.
        migration: i64,
    },
    /// The file cannot be opened, or is no trail.
    #[error("cannot open {path} as an audit trail", path = path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What the database says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file, its write-ahead log or its directory was moved, deleted or replaced.
    #[error("the audit database is not at its path any more")]
    Moved,
    /// A row holds what the program never writes.
    #[error("row {sequence} holds what the gateway never writes in {column}")]
    Row {
        /// The row.
        sequence: i64,
        /// The column.
        column: &'static str,
    },
    /// An event's rows hold what the program never writes.
    #[error("an event's rows hold what the gateway never writes")]
    Event(#[source] serde_json::Error),
    /// Every connection was taken for as long as one is waited for.
    #[error("too many queries wait")]
    Busy,
    /// A query took longer than it may.
    #[error("the query takes too long")]
    TooSlow,
    /// The trail ends before a row that this host knows of, or has another one in its place.
    #[error(
        "{path} does not hold the row that this host noted last, {noted}: {found}. Rows were cut off or replaced, or an older copy was put in its place. Where that is meant, start once with --accept-cut-trail",
        path = path.display()
    )]
    Cut {
        /// The database.
        path: PathBuf,
        /// The head that was noted.
        noted: String,
        /// What is there instead, in words.
        found: String,
    },
    /// The clock is far behind the trail's last id.
    #[error(
        "the clock says {now}, and the last event of {database} began at {last}: ids only grow, so new events would bear that time. Where the clock is right, start with --accept-clock"
    )]
    ClockBehind {
        /// The file's path, or the database's URL without what is secret in it.
        database: String,
        /// What the clock says.
        now: Timestamp,
        /// The time in the last id.
        last: Timestamp,
    },
    /// A database of PostgreSQL cannot be used.
    #[error("cannot use {database} as an audit trail")]
    Server {
        /// Its URL, without what is secret in it.
        database: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It cannot be used now, and may be later: the server is away, or a standby.
    #[error("the audit database {database} is away")]
    Away {
        /// Its URL, without what is secret in it.
        database: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another gateway has ended this one's chain: it was not heard of for too long.
    #[error(
        "another gateway has taken over from this one, which the database did not hear of for too long"
    )]
    TakenOver,
    /// A connection that may only read cannot have writers promise that nothing comes later below what is given, and one of them was
    /// not heard of lately: events of others above its last word would be left out.
    #[error(
        "over a connection that may only read it cannot be told up to where the events are all there: a gateway was not heard of for 10 s"
    )]
    Unpromised,
    /// Others were promised that later ids are greater.
    #[error("ids that others were promised not to see are given again")]
    IdsTooLow,
    /// An event has its outcome already.
    #[error("an event was closed by another gateway")]
    Closed,
    /// A head that was noted cannot be told apart.
    #[error(transparent)]
    UnnamedHead(super::verify::UnnamedHead),
    /// There is a trail already.
    #[error("{database} holds a trail already")]
    NotEmpty {
        /// Its URL, without what is secret in it.
        database: String,
    },
    /// The database refused a read over a pool, or a migration.
    #[error("the audit database failed")]
    Database(#[source] sqlx::Error),
    /// The database refused what a thread of its own asked: a row, a commit, a single event.
    #[error("the audit database failed")]
    Sqlite(#[source] rusqlite::Error),
}

impl StoreError {
    /// The trail at `path` cannot be opened.
    pub(super) fn open(
        path: &Path,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Open {
            path: path.into(),
            source: source.into(),
        }
    }

    /// Why the trail cannot be written, in words that anybody may read; the log has the database's own.
    pub(super) fn reason(&self) -> &'static str {
        let code = match self {
            Self::Database(error) => primary_code(error),
            Self::Sqlite(error) => error
                .sqlite_error()
                .map(|error| primary(error.extended_code)),
            Self::Moved => return "the audit database was moved, deleted or replaced",
            Self::TakenOver => return "another gateway has taken over from this one",
            Self::Server { .. } => return "the audit database refuses to be used",
            _ => None,
        };
        match code {
            None => "the audit database does not answer",
            Some(5 | 6) => "the audit database is locked by another process",
            Some(8) => "the audit database is read-only",
            Some(10) => "the audit database's disk has an I/O error",
            Some(11 | 26) => "the audit database is damaged",
            Some(13) => "the audit database's disk is full",
            Some(14) => "the audit database cannot be opened",
            Some(_) => "the audit database refuses to be written",
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}
