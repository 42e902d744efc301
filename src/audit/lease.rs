//! Whether this gateway may act: the lease that its session with the database gives it.
//!
//! Several gateways write one trail in PostgreSQL, each a chain of its own. Who stands still, or is cut off from the
//! database, is taken over by another; so a gateway sends a call only while its lease holds. Each commit and each beat renews
//! it, from the moment before they were sent, by a clock that goes on while the process stands still. The one gateway of a
//! trail in SQLite needs none: the file's lock keeps others out.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::{BootTime, EventId};

/// How long a gateway may act after the database last heard of it.
pub(super) const LEASE_TIME: Duration = Duration::from_secs(10);
/// How far the clock may be from the database's.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// A gateway's lease. Clones are of the same.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// In milliseconds since the machine was started; 0 where there is none, and the end of time where none is needed.
    until: AtomicU64,
    chain: watch::Sender<Option<Arc<str>>>,
    /// Ids that are given from now on are greater.
    ids_above: Mutex<Option<EventId>>,
    /// The last event, of another gateway, of all images that were had behind others.
    followed: Mutex<Option<EventId>>,
    /// In milliseconds, how far the clock is before the database's.
    skew: AtomicI64,
    /// Whether the order with other gateways can be settled.
    settles: AtomicBool,
}

impl Lease {
    fn until(millis: u64) -> Self {
        Self(Arc::new(Shared {
            until: AtomicU64::new(millis),
            chain: watch::channel(None).0,
            ids_above: Mutex::default(),
            followed: Mutex::default(),
            skew: AtomicI64::new(0),
            settles: AtomicBool::new(true),
        }))
    }

    /// That of the only gateway of its trail: it always holds.
    #[must_use]
    pub fn of_one() -> Self {
        Self::until(u64::MAX)
    }

    /// One that does not hold yet.
    pub(super) fn to_come() -> Self {
        Self::until(0)
    }

    /// Whether it holds now.
    #[must_use]
    pub fn holds(&self) -> bool {
        let until = BootTime::from_millis(self.0.until.load(Ordering::Acquire));
        BootTime::now() < until
    }

    /// Whether it holds now, and this is the chain that the gateway writes.
    #[must_use]
    pub fn holds_for(&self, chain_id: Option<&Arc<str>>) -> bool {
        self.0.chain.borrow().as_ref() == chain_id && self.holds()
    }

    /// The database heard of this gateway, which asked it at `asked`.
    pub(super) fn renew(&self, asked: BootTime) {
        let until = asked.after(LEASE_TIME).as_millis();
        self.0.until.store(until, Ordering::Release);
    }

    /// It does not hold any more, until the database hears of the gateway again.
    pub(super) fn drop_now(&self) {
        self.0.until.store(0, Ordering::Release);
    }

    /// This gateway writes this chain from now on; `None`: none any more.
    pub(super) fn begin(&self, chain_id: Option<&Arc<str>>) {
        self.0.chain.send_if_modified(|chain| {
            let changed = chain.as_ref() != chain_id;
            *chain = chain_id.cloned();
            changed
        });
    }

    /// The chain that this gateway writes, and each change of it.
    #[must_use]
    pub fn chain(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.chain.subscribe()
    }

    /// Has later ids be greater than this one, whatever the clock says: it may be another gateway's.
    pub(super) fn raise_ids(&self, above: EventId) {
        raise(&self.0.ids_above, above);
    }

    /// An image is had behind another gateway, of which this is the last event of it: later ids are greater, and what is said of it
    /// from now on is said of that event as well.
    pub fn follow(&self, last_event: EventId) {
        self.raise_ids(last_event);
        raise(&self.0.followed, last_event);
    }

    pub(super) fn ids_above(&self) -> Option<EventId> {
        *held(&self.0.ids_above)
    }

    pub(super) fn followed(&self) -> Option<EventId> {
        *held(&self.0.followed)
    }

    pub(super) fn note_skew(&self, millis: i64) {
        self.0.skew.store(millis, Ordering::Relaxed);
    }

    /// Whether it could be settled at the last try with other gateways who may change which image.
    pub fn note_settling(&self, settles: bool) {
        self.0.settles.store(settles, Ordering::Relaxed);
    }

    /// What was noted last; `true` where there are no others.
    #[must_use]
    pub fn settles(&self) -> bool {
        self.0.settles.load(Ordering::Relaxed)
    }

    /// How far the clock is from the database's, where that is too far.
    #[must_use]
    pub fn clock_off(&self) -> Option<Duration> {
        let skew = Duration::from_millis(self.0.skew.load(Ordering::Relaxed).unsigned_abs());
        (skew > SKEW_MAX).then_some(skew)
    }
}

fn held(last: &Mutex<Option<EventId>>) -> MutexGuard<'_, Option<EventId>> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

fn raise(last: &Mutex<Option<EventId>>, to: EventId) {
    let mut last = held(last);
    *last = (*last).max(Some(to));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_only_so_long_after_it_was_asked_for() {
        let lease = Lease::to_come();
        assert!(!lease.holds());
        let now = BootTime::now();
        lease.renew(now);
        assert!(lease.holds());
        let ago = now.as_millis().saturating_sub(10_001);
        lease.renew(BootTime::from_millis(ago));
        assert!(!lease.holds(), "it was asked for too long ago");
        lease.renew(now);
        lease.drop_now();
        assert!(!lease.holds());
        assert!(Lease::of_one().holds());
    }
}
