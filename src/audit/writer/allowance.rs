//! How much may wait for a commit: entries and their bytes, for each kind apart.
//!
//! Bulks take room of their own, so that however many wait, a single change finds some; and outcomes, which wait for
//! theirs, take none from changes that are refused where there is none.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Entries of one kind that wait. A bulk counts as one, since it gets to disk in one go.
const ENTRIES_MAX: usize = 256;
const BULKS_MAX: usize = 64;
/// Bytes of them. An entry takes some hundred bytes, and at most some ten thousand, where a token's claims are as long
/// as they may be.
const BYTES_MAX: usize = 1024 * 1024;
const BULK_BYTES_MAX: usize = 4 * BYTES_MAX;

/// What one kind of entries may take.
#[derive(Debug, Clone)]
pub(super) struct Allowance {
    entries: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

/// A share of a room; given back when it is dropped.
pub(super) struct Taken {
    _entry: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Allowance {
    fn of(entries: usize, bytes_max: usize) -> Self {
        Self {
            entries: Arc::new(Semaphore::new(entries)),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        }
    }

    /// What an entry takes; one that is larger than all there is takes all.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.bytes_max)).unwrap_or(u32::MAX)
    }

    /// Takes what an entry needs, where it is there.
    pub(super) fn take(&self, bytes: usize) -> Option<Taken> {
        let entry = Arc::clone(&self.entries).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.permits(bytes));
        Some(Taken {
            _entry: entry,
            _bytes: bytes.ok()?,
        })
    }

    /// Takes what is there of what an entry needs, where anything is.
    pub(super) fn take_any(&self, bytes: usize) -> Option<Taken> {
        self.take(bytes.min(self.bytes.available_permits()).max(1))
    }

    /// Waits for what an entry needs.
    pub(super) async fn wait(&self, bytes: usize) -> Option<Taken> {
        let entry = Arc::clone(&self.entries).acquire_owned().await.ok()?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.permits(bytes));
        Some(Taken {
            _entry: entry,
            _bytes: bytes.await.ok()?,
        })
    }
}

/// All allowances.
#[derive(Debug, Clone)]
pub(super) struct Allowances {
    pub(super) singles: Allowance,
    pub(super) bulks: Allowance,
    pub(super) outcomes: Allowance,
}

impl Default for Allowances {
    fn default() -> Self {
        Self {
            singles: Allowance::of(ENTRIES_MAX, BYTES_MAX),
            bulks: Allowance::of(BULKS_MAX, BULK_BYTES_MAX),
            outcomes: Allowance::of(ENTRIES_MAX, BYTES_MAX),
        }
    }
}
