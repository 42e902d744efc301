//! A read's bounds: in time, in who waits for it, in how many its party has, and in what it keeps the writer from.
//!
//! A statement that walks everything would else hold its connection for minutes, and one whose asker has gone too. And
//! readers that follow one another without a gap keep the write-ahead log growing: it begins anew only where
//! nobody reads from it. So each read passes a gate that the writer closes when its log is long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{StoreError, primary_code};
use crate::domain::{Party, Stopwatch};

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

/// How many reads of one party may be under way at once: one who asks slow questions keeps nobody else waiting.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    of_party: usize,
    wait: Duration,
    /// Those that have some under way, or wait.
    parties: Arc<Mutex<HashMap<Party, Arc<Semaphore>>>>,
}

/// A read that counts for its party.
pub(crate) struct Turn {
    turns: Turns,
    party: Party,
    place: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// So many of each party; the others wait so long.
    pub(super) fn of(of_party: usize, wait: Duration) -> Self {
        Self {
            of_party,
            wait,
            parties: Arc::default(),
        }
    }

    /// Waits for a turn.
    pub(super) async fn take(&self, party: &Party) -> Result<Turn, StoreError> {
        let mut turn = Turn {
            turns: self.clone(),
            party: party.clone(),
            place: None,
        };
        let places = {
            let mut parties = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
            let places = parties.entry(party.clone());
            let places = places.or_insert_with(|| Arc::new(Semaphore::new(self.of_party)));
            Arc::clone(places)
        };
        let place = timeout(self.wait, places.acquire_owned()).await;
        turn.place = place.map_err(|_| StoreError::Busy)?.ok();
        Ok(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.place = None;
        let parties = self.turns.parties.lock();
        let mut parties = parties.unwrap_or_else(PoisonError::into_inner);
        // Whoever waits or reads holds the semaphore, too.
        if parties
            .get(&self.party)
            .is_some_and(|places| Arc::strong_count(places) == 1)
        {
            parties.remove(&self.party);
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
