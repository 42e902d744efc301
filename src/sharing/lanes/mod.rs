//! Changes of one image, one call after another; and everything else that is asked of the upstream.
//!
//! A lane is the queue of one (region, image) and exists while it has work. A change takes its place and its
//! intent is enqueued under one short lock, so the order of a lane and the order of its intents in the trail are
//! one. Only what is on disk is sent, one call at a time, and what gathers meanwhile goes into the next call: a
//! burst of callers costs few calls, and nobody waits for a timer. Each change gets an answer of its own.
//!
//! All decisions are made by a pure state machine ([`machine`]); what is left here carries them out: a
//! lock around the machine, a channel for everybody who waits, a task for each call, and one task that tells the
//! machine the time.

mod batch;
mod door;
mod gate;
mod landings;
mod machine;
mod place;
mod queue;
mod reading;
mod traced;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::sleep_until;

use crate::audit::{EnqueueError, Lease};
use crate::domain::{AccountId, Deadline, Operation};
use crate::tasks::Tasks;
use crate::telemetry::traces::Within;
use crate::telemetry::{Instruments, Metrics, Traces};
use crate::upstream::{BreakerState, CallError, Connection, Modification, Modified, Upstream};

pub(super) use door::{AdmitError, HeldLane};
pub(super) use landings::{LANDING_TIME, Suspect};
pub(super) use machine::{
    Aftermath, Ended, Kind, LaneKey, Last, Limits, NoTurn, READS_OF_PARTY_MAX, ReadTerms, Terms,
};
use machine::{CallId, Effect, LookId, Machine, PlaceId, ReadId, WaitId};
pub(super) use place::{Place, Word};
pub(super) use reading::ReadError;
use reading::ReadWord;
use traced::TracedPlaces;

/// Accounts of one image of which changes could land late, and cannot any more.
#[derive(Debug)]
pub(super) struct LandingTimeOver {
    pub(super) key: LaneKey,
    /// Whoever gets this looks whether their shares are what was accepted last, and says so by
    /// [`Lanes::looked_after`].
    pub(super) suspects: Vec<Suspect>,
    /// Whatever landed, theirs are.
    pub(super) settled: Vec<AccountId>,
}

/// For whoever looks after them. As many messages as accounts are remembered, which is bounded.
pub(super) type LandingsOver = mpsc::UnboundedReceiver<LandingTimeOver>;

/// What is to be done with an image's lock.
#[derive(Debug)]
pub(super) enum Order {
    /// Get it, and say so by [`Lanes::locked`].
    Lock(LaneKey),
    /// Let it go.
    Unlock {
        key: LaneKey,
        /// Whether changes of it may land late.
        unsure: bool,
    },
    /// What others left of an image, by a grant of this number, is known: lanes may use it.
    Inherited(LaneKey, i64),
    /// Nobody is at work any more on what others left of it.
    NotInherited(LaneKey, i64),
    /// Say, by dropping this, when all that was let go is.
    Leave(oneshot::Sender<()>),
}

/// For whoever settles with other gateways who has which image. As many as there are changes, which is bounded.
pub(super) type Orders = mpsc::UnboundedReceiver<Order>;

/// All lanes, and the gate to the upstream.
#[derive(Debug, Clone)]
pub(super) struct Lanes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    upstream: Arc<Upstream>,
    tasks: Tasks,
    metrics: Metrics,
    traces: Traces,
    /// Wakes the task that tells the time.
    alarm: Arc<Notify>,
    landings_over: mpsc::UnboundedSender<LandingTimeOver>,
    /// Whether this gateway may act, where others do beside it.
    lease: Option<Lease>,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    places: HashMap<PlaceId, mpsc::Sender<Word>>,
    reads: HashMap<ReadId, oneshot::Sender<ReadWord>>,
    waits: HashMap<WaitId, door::Visitor>,
    traced: TracedPlaces,
    /// The chain under which images are locked.
    locked_by: Option<Arc<str>>,
    /// When the task that tells the time wakes up by itself.
    armed: Option<Instant>,
}

/// What is done once the lock is free.
enum Errand {
    Read(oneshot::Sender<ReadWord>, ReadWord),
    Call(CallId, Modification, Connection, Option<Within>, Leave),
    Look(LookId, LaneKey, Instant, Option<Within>),
    LandingTimeOver(LandingTimeOver),
    /// Tells somebody something.
    Tell(Box<dyn FnOnce() + Send>),
}

/// How long nobody tells the time after that failed.
const KEEPING_PAUSE: Duration = Duration::from_millis(100);

impl Lanes {
    pub(super) fn new(
        limits: Limits,
        upstream: Arc<Upstream>,
        tasks: Tasks,
        instruments: Instruments,
        lease: Option<Lease>,
    ) -> (Self, LandingsOver, Orders) {
        let (landings_over, told) = mpsc::unbounded_channel();
        let (orders, ordered) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                machine: Machine::new(limits, rand::random()),
                places: HashMap::new(),
                reads: HashMap::new(),
                waits: HashMap::new(),
                traced: TracedPlaces::default(),
                locked_by: None,
                armed: None,
            }),
            upstream,
            tasks,
            metrics: instruments.metrics,
            traces: instruments.traces,
            alarm: Arc::default(),
            landings_over,
            lease,
            orders,
        });
        let (weak, alarm) = (Arc::downgrade(&shared), Arc::clone(&shared.alarm));
        shared.tasks.serve(async move {
            // Without it no deadline would be told, so it does not end by a panic.
            let keep = || AssertUnwindSafe(keep_time(weak.clone(), Arc::clone(&alarm)));
            while keep().catch_unwind().await.is_err() {
                tracing::error!("the task that tells lanes the time failed; it goes on");
                tokio::time::sleep(KEEPING_PAUSE).await;
            }
        });
        (Self(shared), told, ordered)
    }

    /// Says that the intents of these changes, which are of one image, are on disk: they may be sent.
    pub(super) fn recorded<'a>(&self, places: impl IntoIterator<Item = &'a Place>) {
        let ids: Vec<PlaceId> = places.into_iter().map(Place::id).collect();
        let waiting = self.0.traces.part("lane.wait");
        self.0.with(|state, _| {
            // Some may have ended before their intents got to disk.
            let stand = ids.iter().filter(|id| state.places.contains_key(id));
            state.traced.wait(stand, waiting);
            state.machine.recorded(&ids);
        });
    }

    /// Whether an account's share, which is listed or not, is what was accepted last.
    pub(super) fn aftermath(&self, key: &LaneKey, suspect: Suspect, listed: bool) -> Aftermath {
        let look = |state: &mut State, _| state.machine.aftermath(key, suspect, listed);
        self.0.with(look)
    }

    /// Accounts were looked after once their time was over. Gives those of which nothing may land any more.
    pub(super) fn looked_after(&self, key: &LaneKey, suspects: &[Suspect]) -> Vec<AccountId> {
        self.0.with(|state, now| {
            let settled = |suspect: &&Suspect| state.machine.looked_after(now, key, **suspect);
            let settled = suspects.iter().filter(settled);
            settled.map(|suspect| suspect.account_id).collect()
        })
    }

    /// Nobody looks after these accounts any more, and what became of them is not known: they are looked after again, by whoever has
    /// the image then.
    pub(super) fn gave_up(&self, key: &LaneKey, suspects: &[Suspect]) {
        self.0.with(|state, now| {
            for suspect in suspects {
                state.machine.gave_up(now, key, *suspect);
            }
        });
    }

    /// Another run of the program made a call with such a change, which may land for so long yet.
    pub(super) fn may_land(
        &self,
        key: &LaneKey,
        account_id: AccountId,
        operation: Operation,
        rest: Duration,
    ) {
        self.0.with(|state, now| {
            let until = now + rest;
            state.machine.may_land(until, key, account_id, operation);
        });
    }

    /// Another run of the program had this as the account's last change.
    pub(super) fn was_last(
        &self,
        key: &LaneKey,
        account_id: AccountId,
        operation: Operation,
        succeeded: bool,
    ) {
        self.0.with(|state, _| {
            let machine = &mut state.machine;
            machine.was_last(key, account_id, operation, succeeded);
        });
    }

    /// Accounts of which changes may land late.
    pub(super) fn landings(&self) -> usize {
        self.0.with(|state, _| state.machine.landings())
    }

    /// Whether an account is looked after still, and not elsewhere or anew.
    pub(super) fn is_looked_after(&self, key: &LaneKey, suspect: Suspect) -> bool {
        self.0
            .with(|state, _| state.machine.is_looked_after(key, suspect))
    }

    /// This gateway has an image's lock from now on, under this chain.
    pub(super) fn locked(&self, chain_id: &Arc<str>, key: &LaneKey, wanted: bool) {
        self.0.with(|state, now| {
            if state.locked_by.as_ref() == Some(chain_id) {
                state.machine.locked(now, key, wanted);
            }
        });
    }

    /// What others left of an image, by a grant of this number, is known.
    pub(super) fn inherited(&self, key: LaneKey, number: i64) {
        // Whoever settles who has which image ends after this.
        let _ = self.0.orders.send(Order::Inherited(key, number));
    }

    /// Nobody looks any more what others left of an image, by a grant of this number.
    pub(super) fn not_inherited(&self, key: LaneKey, number: i64) {
        let _ = self.0.orders.send(Order::NotInherited(key, number));
    }

    /// Others wait for an image's lock.
    pub(super) fn lock_wanted(&self, key: &LaneKey) {
        self.0
            .with(|state, now| state.machine.lock_wanted(now, key));
    }

    /// This gateway has no lock any more; those that it gets are this chain's.
    pub(super) fn lock_by(&self, chain_id: Option<Arc<str>>) {
        self.0.with(|state, now| {
            state.locked_by = chain_id;
            state.machine.locks_lost(now);
        });
    }

    /// Whether other gateways change the same images.
    pub(super) fn is_shared(&self) -> bool {
        self.0.lease.is_some()
    }

    /// Lets all images go of which nothing is under way, and waits until others may have them.
    pub(super) async fn leave(&self) {
        if self.0.lease.is_none() {
            return;
        }
        self.0.with(|state, _| state.machine.leave());
        let (told, left) = oneshot::channel();
        if self.0.orders.send(Order::Leave(told)).is_ok() {
            let _ = left.await;
        }
    }

    /// No lock can be had now: nobody waits for one.
    pub(super) fn refuse_waits(&self) {
        self.0.with(|state, now| state.machine.refuse_waits(now));
    }

    /// Changes of an image may land late, of which nobody takes care: get its lock.
    pub(super) fn look_after(&self, key: &LaneKey) {
        self.0.with(|state, _| state.machine.look_after(key));
    }

    /// The circuit breaker's state.
    pub(super) fn breaker_state(&self) -> BreakerState {
        self.0.with(|state, now| state.machine.breaker_state(now))
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves decisions half made, but whoever waits must still be answered.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this gateway may act.
    fn may_act(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::holds)
    }

    /// Why changes that waited at the door were not let in.
    fn not_admitted(&self) -> AdmitError {
        if self.may_act() {
            AdmitError::TimeUp
        } else {
            AdmitError::Enqueue(EnqueueError::Ended)
        }
    }

    /// Lets `act` tell the machine something, and does what the machine wants done.
    fn with<T>(self: &Arc<Self>, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.locked();
        let now = Deadline::now().instant();
        state.machine.tell(now);
        let result = act(&mut state, now);
        let errands = self.errands(&mut state, now);
        let next = state.machine.next_time(now);
        let earlier = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
        if earlier {
            state.armed = next;
        }
        self.metrics.lanes(
            state.machine.waiting(),
            state.machine.in_flight(),
            state.machine.retries(),
            state.machine.breaker_state(now) != BreakerState::Closed,
        );
        drop(state);
        for errand in errands {
            self.run(errand);
        }
        if earlier {
            self.alarm.notify_one();
        }
        result
    }

    /// Tells changes their words and lets in who may enter while the lock is held: whoever gives its place up has got
    /// its word, and the order of a lane is that of its intents. The rest is for when the lock is free.
    fn errands(self: &Arc<Self>, state: &mut State, now: Instant) -> Vec<Errand> {
        let mut errands = Vec::new();
        loop {
            let effects = state.machine.effects();
            if effects.is_empty() {
                return errands;
            }
            for effect in effects {
                errands.extend(self.errand(state, now, effect));
            }
        }
    }

    fn errand(self: &Arc<Self>, state: &mut State, now: Instant, effect: Effect) -> Option<Errand> {
        // Whoever left needs no word; no channel gets more words than it holds.
        let tell = |channel: &mpsc::Sender<Word>, word| drop(channel.try_send(word));
        match effect {
            Effect::Call {
                id,
                modification,
                connection,
            } => {
                let spans = state.traced.called(state.machine.carried(id));
                let spans = spans.map(|spans| spans.again(state.machine.resends(id)));
                let leave = Leave {
                    lease: self.lease.clone(),
                    locked_by: state.locked_by.clone(),
                };
                Some(Errand::Call(id, modification, connection, spans, leave))
            }
            Effect::Ended(id, ended) => {
                state.traced.forget(id);
                tell(&state.places.remove(&id)?, Word::Ended(ended));
                None
            }
            Effect::Late(id) => {
                tell(state.places.get(&id)?, Word::Late);
                None
            }
            Effect::Read(id, connection) => {
                let channel = state.reads.remove(&id)?;
                Some(Errand::Read(channel, ReadWord::Go(connection)))
            }
            Effect::ReadEnded(id, why) => {
                let channel = state.reads.remove(&id)?;
                Some(Errand::Read(channel, ReadWord::NoTurn(why)))
            }
            Effect::Granted(id) => {
                let waiting = state.waits.remove(&id)?;
                Some(Errand::Tell(waiting.granted(self, state, now)))
            }
            Effect::WaitEnded(id) => Some(Errand::Tell(state.waits.remove(&id)?.ended())),
            Effect::Look { id, key, until } => {
                let spans = state.traced.of(state.machine.looked_for(id));
                Some(Errand::Look(id, key, until, spans))
            }
            // While the lock is held: one image's orders come in the order in which they were given. Whoever settles who has
            // which image ends after this.
            Effect::Lock(key) => {
                let _ = self.orders.send(Order::Lock(key));
                None
            }
            Effect::Unlock { key, unsure } => {
                let _ = self.orders.send(Order::Unlock { key, unsure });
                None
            }
            Effect::LandingTimeOver {
                key,
                suspects,
                settled,
            } => Some(Errand::LandingTimeOver(LandingTimeOver {
                key,
                suspects,
                settled,
            })),
        }
    }

    fn run(self: &Arc<Self>, errand: Errand) {
        match errand {
            Errand::Read(channel, word) => drop(channel.send(word)),
            Errand::Tell(tell) => tell(),
            Errand::Call(id, modification, connection, spans, leave) => {
                let call = CallTask {
                    id: Some(id),
                    leave,
                    shared: Arc::clone(self),
                };
                self.tasks
                    .spawn_within(spans, call.run(modification, connection));
            }
            Errand::Look(id, key, until, spans) => {
                let look = Arc::clone(self).look(id, key, until);
                self.tasks.spawn_within(spans, look);
            }
            Errand::LandingTimeOver(over) => drop(self.landings_over.send(over)),
        }
    }
}

/// A call in flight. One that is dropped before its answer is told to be lost, so that nobody waits for a task that
/// is gone.
struct CallTask {
    id: Option<CallId>,
    leave: Leave,
    shared: Arc<Shared>,
}

/// Under what a call may be sent.
struct Leave {
    /// Where other gateways act beside this one.
    lease: Option<Lease>,
    /// The chain under which the image was locked.
    locked_by: Option<Arc<str>>,
}

impl Leave {
    /// Whether it holds now: nobody has taken over from this gateway, nor may.
    fn holds(&self) -> bool {
        self.lease
            .as_ref()
            .is_none_or(|lease| lease.holds_for(self.locked_by.as_ref()))
    }
}

impl CallTask {
    async fn run(mut self, modification: Modification, connection: Connection) {
        let result = if self.leave.holds() {
            self.shared.upstream.modify(&modification, connection).await
        } else {
            Err(CallError::Withheld)
        };
        self.answered(result);
    }

    fn answered(&mut self, result: Result<Modified, CallError>) {
        if let Some(id) = self.id.take() {
            self.shared
                .with(|state, now| state.machine.answered(now, id, result));
        }
    }
}

impl Drop for CallTask {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.shared.with(|state, now| state.machine.lost(now, id));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.alarm.notify_one();
    }
}

/// Tells the machine the time whenever it asked for it.
async fn keep_time(shared: Weak<Shared>, alarm: Arc<Notify>) {
    loop {
        let now = Deadline::now().instant();
        let next = {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let mut state = shared.locked();
            state.armed = state.machine.next_time(now);
            state.armed
        };
        match next {
            None => alarm.notified().await,
            Some(next) if next <= now => {
                // Whoever can run runs first: what they record goes along.
                yield_now().await;
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                shared.with(|state, now| state.machine.time(now));
            }
            Some(next) => tokio::select! {
                () = alarm.notified() => {}
                () = sleep_until(next.into()) => {
                    let Some(shared) = shared.upgrade() else {
                        return;
                    };
                    shared.with(|state, now| state.machine.time(now));
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
