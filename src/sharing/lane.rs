//! Changes of one image, one after another.
//!
//! A lane is the queue of one (region, image) and exists while it has work. A change takes its place and
//! its intent is enqueued under one short lock, so the order of a lane and the order of its intents in the
//! trail are one. A place is sent only when its intent is durable, and one call is in flight at a time, so
//! the upstream sees the changes in the order in which they were accepted.
//!
//! Each call carries one change for now.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::audit::EnqueueError;
use crate::domain::{Change, ImageId, Region};
use crate::tasks::Tasks;
use crate::upstream::{CallError, Modification, Modified, Upstream};

use super::completion::Ending;

type Key = (Region, ImageId);

/// The places that wait, by lane.
#[derive(Debug, Default)]
struct Queues {
    lanes: HashMap<Key, VecDeque<Waiting>>,
    places: usize,
}

/// Most places of one lane, and of all lanes. A hung upstream must not gather callers without end; both are
/// far above what a caller's time allows to be sent.
const PLACES_PER_LANE_MAX: usize = 1000;
const PLACES_MAX: usize = 10_000;
const _: () = assert!(
    PLACES_PER_LANE_MAX < PLACES_MAX,
    "one image cannot take all places"
);

/// Whether a place may be sent: decided once, by whoever comes first.
#[derive(Debug, Default)]
struct Claim {
    state: AtomicU8,
    withdrawn: Notify,
}

const WAITING: u8 = 0;
const SENT: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Claim {
    fn send(&self) -> bool {
        self.decide(SENT)
    }

    /// Returns whether the place will never be sent.
    fn withdraw(&self) -> bool {
        let withdrawn = self.decide(WITHDRAWN);
        // Keeps a permit for a lane that begins to listen later.
        self.withdrawn.notify_one();
        withdrawn
    }

    fn decide(&self, for_state: u8) -> bool {
        let decided =
            self.state
                .compare_exchange(WAITING, for_state, Ordering::AcqRel, Ordering::Acquire);
        decided.map_or_else(|present| present == for_state, |_| true)
    }
}

/// A place as the lane holds it.
#[derive(Debug)]
struct Waiting {
    modification: Modification,
    durable: oneshot::Receiver<()>,
    claim: Arc<Claim>,
    ended: oneshot::Sender<Result<Modified, CallError>>,
}

/// A change's place in its lane, as the change holds it.
#[derive(Debug)]
pub(super) struct Place {
    durable: Option<oneshot::Sender<()>>,
    claim: Arc<Claim>,
    ended: oneshot::Receiver<Result<Modified, CallError>>,
}

impl Place {
    /// Says that the intent is on disk: the change may be sent.
    pub(super) fn clear(&mut self) {
        if let Some(durable) = self.durable.take() {
            let _ = durable.send(());
        }
    }

    /// Gives the place up. Returns whether the change will never be sent; `false` where it was.
    pub(super) fn withdraw(&mut self) -> bool {
        let never_sent = self.claim.withdraw();
        // A lane that waits for this place goes on to the next.
        self.durable = None;
        never_sent
    }

    /// Waits for the call that carries the change.
    pub(super) async fn ending(&mut self) -> Ending {
        match (&mut self.ended).await {
            Ok(result) => Ending::Called(result),
            Err(_) if self.claim.withdraw() => Ending::NeverSent,
            Err(_) => Ending::Lost,
        }
    }
}

/// All lanes that have work.
#[derive(Debug)]
pub(super) struct Lanes {
    queues: Arc<Mutex<Queues>>,
    upstream: Arc<Upstream>,
    tasks: Tasks,
}

fn locked(queues: &Mutex<Queues>) -> MutexGuard<'_, Queues> {
    // Nothing under the lock can panic half-way through a change of the map.
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lanes {
    pub(super) fn new(upstream: Arc<Upstream>, tasks: Tasks) -> Self {
        Self {
            queues: Arc::default(),
            upstream,
            tasks,
        }
    }

    /// Gives `change` the last place in its lane, in one go with `enqueue`, which must not wait.
    ///
    /// # Errors
    /// [`EnqueueError::Full`] where as many places as may wait do, else those of `enqueue`; no place is taken
    /// then.
    pub(super) fn admit<T>(
        &self,
        change: &Change,
        enqueue: impl FnOnce() -> Result<T, EnqueueError>,
    ) -> Result<(T, Place), EnqueueError> {
        let key = (change.region.clone(), change.image_id.clone());
        let modification = Modification::one(
            change.operation,
            key.0.clone(),
            key.1.clone(),
            change.account_id,
        );
        let (cleared, durable) = oneshot::channel();
        let (ended, ending) = oneshot::channel();
        let claim = Arc::new(Claim::default());
        let waiting = Waiting {
            modification,
            durable,
            claim: Arc::clone(&claim),
            ended,
        };
        let place = Place {
            durable: Some(cleared),
            claim,
            ended: ending,
        };

        let mut queues = locked(&self.queues);
        let in_lane = queues.lanes.get(&key).map_or(0, VecDeque::len);
        if in_lane >= PLACES_PER_LANE_MAX || queues.places >= PLACES_MAX {
            return Err(EnqueueError::Full);
        }
        let enqueued = enqueue()?;
        queues.places += 1;
        if let Some(queue) = queues.lanes.get_mut(&key) {
            queue.push_back(waiting);
        } else {
            queues.lanes.insert(key.clone(), VecDeque::from([waiting]));
            let lane = Lane {
                key,
                queues: Arc::clone(&self.queues),
                upstream: Arc::clone(&self.upstream),
            };
            self.tasks.spawn(lane.run());
        }
        Ok((enqueued, place))
    }
}

/// The task of one lane.
struct Lane {
    key: Key,
    queues: Arc<Mutex<Queues>>,
    upstream: Arc<Upstream>,
}

impl Lane {
    async fn run(self) {
        while let Some(waiting) = self.next() {
            if waiting.durable.await.is_err() {
                continue;
            }
            // A place that was given up must not wait its turn for a call that it will not make.
            let permit = tokio::select! {
                biased;
                () = waiting.claim.withdrawn.notified() => continue,
                permit = self.upstream.permit() => permit,
            };
            if waiting.claim.send() {
                let result = self.upstream.modify(permit, &waiting.modification).await;
                let _ = waiting.ended.send(result);
            }
        }
    }

    /// The place at the front; ends the lane where there is none.
    fn next(&self) -> Option<Waiting> {
        let mut queues = locked(&self.queues);
        let next = queues
            .lanes
            .get_mut(&self.key)
            .and_then(VecDeque::pop_front);
        if next.is_some() {
            queues.places -= 1;
        } else {
            queues.lanes.remove(&self.key);
        }
        next
    }
}

impl Drop for Lane {
    /// A lane that died takes its queue with it, so that nobody waits for a task that is gone.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queues = locked(&self.queues);
            let left = queues
                .lanes
                .remove(&self.key)
                .map_or(0, |queue| queue.len());
            queues.places -= left;
        }
    }
}
