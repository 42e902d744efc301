//! Looks for gateways that are gone: their chains are ended, their images freed, and their intents closed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::sleep;

use crate::audit::{Lease, Neighbours, Recalled, StoreError};
use crate::domain::{EventId, Stopwatch, Timestamp};
use crate::sharing::{Parts, recovery};

/// How often is looked for gateways that are gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long the others are given to come back, after this gateway came back itself.
const COMING_BACK_TIME: Duration = Duration::from_secs(3);
/// How often is forgotten what nobody asks for any more.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// Looks for gateways that are gone, and after what they left.
pub(super) async fn watch(parts: Weak<Parts>, mut neighbours: Neighbours, lease: Lease) {
    let mut chain: Option<Arc<str>> = None;
    let mut since = Stopwatch::start();
    let mut forgot = Stopwatch::start();
    let closing = Closing::default();
    loop {
        let Some(strong) = parts.upgrade() else {
            return;
        };
        tokio::select! {
            () = sleep(LOOK_INTERVAL) => {}
            () = strong.tasks.stopping() => return,
        }
        let present = lease.chain().borrow().clone();
        if present != chain || !lease.holds() {
            neighbours.hang_up();
            chain = present;
        }
        let Some(chain) = chain.as_ref().filter(|_| lease.holds()) else {
            continue;
        };
        match neighbours.open(chain).await {
            Ok(true) => since = Stopwatch::start(),
            Ok(false) => {}
            Err(_) => continue,
        }
        let looked = look(&strong, &mut neighbours, chain, since, &closing);
        if let Err(error) = looked.await {
            tracing::debug!(error.message = %error, "other gateways could not be looked after; it is tried again");
        }
        if forgot.elapsed() > FORGET_INTERVAL {
            forgot = Stopwatch::start();
            // It is tried again.
            let _ = neighbours.forget().await;
        }
    }
}

async fn look(
    parts: &Arc<Parts>,
    neighbours: &mut Neighbours,
    chain: &Arc<str>,
    since: Stopwatch,
    closing: &Closing,
) -> Result<(), StoreError> {
    let ends = since.elapsed() >= COMING_BACK_TIME;
    for gone in neighbours.look(chain, ends).await? {
        tracing::warn!(
            audit.chain = gone,
            "another gateway is gone; this one takes over what it left"
        );
    }
    neighbours.free_locks().await?;
    for key in neighbours.forsaken().await? {
        parts.lanes.look_after(&key);
    }
    let adopted = closing.begin(neighbours.adopt(chain).await?);
    if !adopted.is_empty() {
        let (parts_of_it, closing) = (Arc::clone(parts), closing.clone());
        parts.tasks.spawn(async move {
            let events: Vec<EventId> = adopted.iter().map(|(of, _)| of.event_id).collect();
            recovery::close(parts_of_it, adopted, recovery::AMONG_OTHERS).await;
            closing.end(&events);
        });
    }
    Ok(())
}

/// Events that are being closed.
#[derive(Debug, Clone, Default)]
struct Closing(Arc<Mutex<HashSet<EventId>>>);

impl Closing {
    fn events(&self) -> MutexGuard<'_, HashSet<EventId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with those of which that was not done.
    fn begin(&self, mut adopted: Vec<(Recalled, Timestamp)>) -> Vec<(Recalled, Timestamp)> {
        let mut events = self.events();
        adopted.retain(|(recalled, _)| events.insert(recalled.event_id));
        adopted
    }

    fn end(&self, closed: &[EventId]) {
        let mut events = self.events();
        for event in closed {
            events.remove(event);
        }
    }
}
