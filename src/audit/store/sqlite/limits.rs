//! A read's bounds: in time, in who waits for it, and in what it keeps the writer from.
//!
//! A statement that walks everything would else hold its connection for minutes, and one whose asker has gone too. And
//! readers that follow one another without a gap keep the write-ahead log growing: it begins anew only where
//! nobody reads from it. So each read passes a gate that the writer closes when its log is long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{StoreError, primary_code};
use crate::audit::store::Turn;
use crate::domain::Stopwatch;

/// Instructions of SQLite's machine between two looks at the time: some hundred microseconds.
const INSTRUCTIONS_BETWEEN_LOOKS: i32 = 10_000;
/// `SQLITE_INTERRUPT` (sqlite.org/rescode.html).
const INTERRUPTED: i32 = 9;

/// Lets reads through, unless the writer wants none.
#[derive(Debug, Clone)]
pub(crate) struct ReadGate {
    places: Arc<Semaphore>,
    all: u32,
    /// Whether the writer waits for reads to end: those that go on for long are stopped.
    closing: Arc<AtomicBool>,
}

/// How long a read may go on while the writer waits for it.
const GOES_ON_TIME: Duration = Duration::from_secs(1);

/// The writer waits.
struct Closing(Arc<AtomicBool>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// No read is under way as long as it lives.
#[derive(Debug)]
pub(crate) struct NoReads {
    _places: Option<OwnedSemaphorePermit>,
}

impl ReadGate {
    /// For so many reads at once.
    pub(crate) fn of(reads: u32) -> Self {
        Self {
            places: Arc::new(Semaphore::new(reads as usize)),
            all: reads,
            closing: Arc::default(),
        }
    }

    pub(super) async fn pass(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Lets the reads that are under way end, stops those that take long, and lets no others begin.
    pub(crate) async fn close(self) -> NoReads {
        self.closing.store(true, Ordering::Relaxed);
        let _closing = Closing(Arc::clone(&self.closing));
        let places = self.places.acquire_many_owned(self.all).await;
        NoReads {
            _places: places.ok(),
        }
    }
}

/// A connection for one read.
pub(crate) struct BoundedRead {
    connection: PoolConnection<Sqlite>,
    abandoned: Arc<AtomicBool>,
    _place: Option<OwnedSemaphorePermit>,
    turn: Option<Turn>,
}

impl BoundedRead {
    /// Waits for a connection. Its statements are interrupted after `limit`, and once this is dropped.
    pub(crate) async fn begin(
        pool: &SqlitePool,
        gate: &ReadGate,
        limit: Option<Duration>,
    ) -> Result<Self, StoreError> {
        let mut connection = pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => StoreError::Busy,
            error => error.into(),
        })?;
        // Only with a connection: who waits for one must not take another's place at the gate.
        let place = gate.pass().await;
        let abandoned = Arc::new(AtomicBool::new(false));
        let (gone, begun) = (Arc::clone(&abandoned), Stopwatch::start());
        let closing = Arc::clone(&gate.closing);
        let goes_on = move || {
            let waited_for = closing.load(Ordering::Relaxed) && begun.elapsed() > GOES_ON_TIME;
            let over = limit.is_some_and(|limit| begun.elapsed() >= limit);
            !(gone.load(Ordering::Relaxed) || over || waited_for)
        };
        connection
            .lock_handle()
            .await?
            .set_progress_handler(INSTRUCTIONS_BETWEEN_LOOKS, goes_on);
        Ok(Self {
            connection,
            abandoned,
            _place: place,
            turn: None,
        })
    }

    /// Counts for a party as long as it lives.
    pub(super) fn in_turn(self, turn: Option<Turn>) -> Self {
        let mut read = self;
        read.turn = turn;
        read
    }

    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Drop for BoundedRead {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// A read that took too long is not the database's fault.
pub(crate) fn read_failed(error: sqlx::Error) -> StoreError {
    if primary_code(&error) == Some(INTERRUPTED) {
        StoreError::TooSlow
    } else {
        StoreError::Database(error)
    }
}
