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
mod gate;
mod landings;
mod machine;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout_at};

use crate::audit::EnqueueError;
use crate::domain::{AccountId, Deadline, Operation};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::{BreakerState, CallError, Connection, Modification, Modified, Upstream};

use machine::{CallId, Effect, HoldId, LookId, Machine, PlaceId, ReadId};
pub(super) use machine::{Ended, LaneKey, Last, Limits, NoTurn};

/// What a change in a lane is told.
#[derive(Debug)]
pub(super) enum Word {
    /// It has ended.
    Ended(Ended),
    /// Its time is up while a call carries it; it will end.
    Late,
}

#[derive(Debug)]
enum ReadWord {
    Go(Connection),
    NoTurn(NoTurn),
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReadError {
    /// Too many reads wait.
    Full,
    /// It never had its turn.
    NoTurn(NoTurn),
    /// Its time was up while it was called.
    TimeUp,
    /// The last call failed so.
    Failed(CallError),
}

/// Shares that landed late, for whoever takes them back.
pub(super) type Undoings = mpsc::UnboundedReceiver<(LaneKey, Vec<AccountId>)>;

/// All lanes, and the gate to the upstream.
#[derive(Debug, Clone)]
pub(super) struct Lanes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    upstream: Arc<Upstream>,
    tasks: Tasks,
    metrics: Metrics,
    /// Wakes the task that tells the time.
    alarm: Arc<Notify>,
    /// As many messages as accounts are remembered, which is bounded.
    undo: mpsc::UnboundedSender<(LaneKey, Vec<AccountId>)>,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    places: HashMap<PlaceId, mpsc::Sender<Word>>,
    reads: HashMap<ReadId, oneshot::Sender<ReadWord>>,
    holds: HashMap<HoldId, oneshot::Sender<bool>>,
    /// When the task that tells the time wakes up by itself.
    armed: Option<Instant>,
}

/// What is done once the lock is free.
enum Errand {
    Read(oneshot::Sender<ReadWord>, ReadWord),
    Hold(oneshot::Sender<bool>, bool),
    Call(CallId, Modification, Connection),
    Look(LookId, LaneKey, Instant),
    Undo(LaneKey, Vec<AccountId>),
}

/// How long nobody tells the time after that failed.
const KEEPING_PAUSE: Duration = Duration::from_millis(100);
/// A change's words: that it is late, and that it has ended.
const WORDS_MAX: usize = 2;

impl Lanes {
    pub(super) fn new(
        limits: Limits,
        upstream: Arc<Upstream>,
        tasks: Tasks,
        metrics: Metrics,
    ) -> (Self, Undoings) {
        let (undo, undoings) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                machine: Machine::new(limits, rand::random()),
                places: HashMap::new(),
                reads: HashMap::new(),
                holds: HashMap::new(),
                armed: None,
            }),
            upstream,
            tasks,
            metrics,
            alarm: Arc::default(),
            undo,
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
        (Self(shared), undoings)
    }

    /// Gives changes of one image the last places of their lane, in one go with `enqueue`, which must not wait.
    ///
    /// # Errors
    /// [`EnqueueError::Full`] where as many places as may wait do, else those of `enqueue`; no place is taken
    /// then.
    pub(super) fn admit<T>(
        &self,
        key: &LaneKey,
        changes: &[(Operation, AccountId)],
        deadline: Deadline,
        enqueue: impl FnOnce() -> Result<T, EnqueueError>,
    ) -> Result<(T, Vec<Place>), EnqueueError> {
        let deadline = deadline.instant();
        self.0.with(|state, _| {
            if !state.machine.has_room(key) {
                return Err(EnqueueError::Full);
            }
            let enqueued = enqueue()?;
            let ids = state.machine.admit(key, changes, deadline);
            Ok((enqueued, self.0.places(state, ids)))
        })
    }

    /// Says that the intents of these changes, which are of one image, are on disk: they may be sent.
    pub(super) fn recorded<'a>(&self, places: impl IntoIterator<Item = &'a Place>) {
        let ids: Vec<PlaceId> = places.into_iter().map(|place| place.id).collect();
        self.0.with(|state, _| state.machine.recorded(&ids));
    }

    /// Waits until nothing of a lane's is under way and everything before is done; nothing of it is sent then
    /// until the hold is dropped or replaced.
    ///
    /// # Errors
    /// Where too much waits, or the time is up before.
    pub(super) async fn hold(&self, key: &LaneKey, deadline: Deadline) -> Result<Hold, ReadError> {
        let (granted, grant) = oneshot::channel();
        let hold = self.0.with(|state, now| {
            if !state.machine.has_room(key) {
                return Err(ReadError::Full);
            }
            let id = state.machine.hold(now, key, deadline.instant());
            state.holds.insert(id, granted);
            Ok(Hold {
                id,
                shared: Arc::clone(&self.0),
            })
        })?;
        tokio::select! {
            granted = grant => match granted {
                Ok(true) => Ok(hold),
                Ok(false) | Err(_) => Err(ReadError::NoTurn(NoTurn::TimeUp)),
            },
            () = self.0.tasks.giving_up() => Err(ReadError::NoTurn(NoTurn::TimeUp)),
        }
    }

    /// Asks the upstream something, as soon as a call may be made, and again where that may help; all of it until
    /// `deadline`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(super) async fn read<T, F>(
        &self,
        deadline: Deadline,
        call: impl Fn(Connection) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        self.0.read(deadline.instant(), u32::MAX, call).await
    }

    /// Whether an account whose share landed late is still to have none; `None` where that is not settled.
    pub(super) fn must_be_undone(&self, key: &LaneKey, account_id: AccountId) -> Option<bool> {
        let look = |state: &mut State, _| state.machine.must_be_undone(key, account_id);
        self.0.with(look)
    }

    /// An account was looked at after its time.
    pub(super) fn undone(&self, key: &LaneKey, account_id: AccountId) {
        self.0
            .with(|state, now| state.machine.undone(now, key, account_id));
    }

    /// Another run of the program sent a share that may land yet.
    pub(super) fn may_land(&self, key: &LaneKey, account_id: AccountId) {
        self.0
            .with(|state, now| state.machine.may_land(now, key, account_id));
    }

    /// Such an account was unshared since.
    pub(super) fn was_unshared(&self, key: &LaneKey, account_id: AccountId) {
        self.0
            .with(|state, _| state.machine.was_unshared(key, account_id));
    }

    /// Shares that may land late and are remembered.
    pub(super) fn landings(&self) -> usize {
        self.0.with(|state, _| state.machine.landings())
    }

    /// The circuit breaker's state.
    pub(super) fn breaker_state(&self) -> BreakerState {
        self.0.with(|state, now| state.machine.breaker_state(now))
    }
}

/// A change's place in its lane.
#[derive(Debug)]
pub(super) struct Place {
    id: PlaceId,
    words: mpsc::Receiver<Word>,
    shared: Arc<Shared>,
    ended: bool,
}

impl Place {
    /// Waits for what happens to the change next.
    pub(super) async fn word(&mut self) -> Word {
        let word = self.words.recv().await;
        let word = word.unwrap_or_else(|| Word::Ended(lost()));
        self.ended = matches!(word, Word::Ended(_));
        word
    }

    /// Gives the place up, and says how the change ended: what was never sent never will be.
    pub(super) fn abandon(&mut self) -> Ended {
        self.ended = true;
        let abandoned = self.shared.with(|state, now| {
            state.places.remove(&self.id);
            state.machine.abandon(now, self.id)
        });
        let told = || {
            while let Ok(word) = self.words.try_recv() {
                if let Word::Ended(ended) = word {
                    return Some(ended);
                }
            }
            None
        };
        abandoned.or_else(told).unwrap_or_else(lost)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.ended {
            self.abandon();
        }
    }
}

fn lost() -> Ended {
    Ended {
        last: Last::Lost,
        calls: 1,
        may_have_applied: true,
        seen: None,
    }
}

/// A lane that is held, or waits to be. Dropped, it lets the lane go on.
#[derive(Debug)]
pub(super) struct Hold {
    id: HoldId,
    shared: Arc<Shared>,
}

impl Hold {
    /// Gives the lane's first places to these changes, in one go with `enqueue`, which must not wait.
    ///
    /// # Errors
    /// Those of `enqueue`; no place is taken then.
    pub(super) fn replace<T>(
        self,
        changes: &[(Operation, AccountId)],
        deadline: Deadline,
        enqueue: impl FnOnce() -> Result<T, EnqueueError>,
    ) -> Result<(T, Vec<Place>), EnqueueError> {
        let deadline = deadline.instant();
        self.shared.with(|state, now| {
            let enqueued = enqueue()?;
            let ids = state.machine.replace(now, self.id, changes, deadline);
            Ok((enqueued, self.shared.places(state, ids)))
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.with(|state, now| {
            state.holds.remove(&self.id);
            state.machine.release(now, self.id);
        });
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves decisions half made, but whoever waits must still be answered.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `act` tell the machine something, and does what the machine wants done.
    fn with<T>(self: &Arc<Self>, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.locked();
        let now = Deadline::now().instant();
        let result = act(&mut state, now);
        let errands = state.errands();
        let next = state.machine.next_time(now);
        let earlier = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
        if earlier {
            state.armed = next;
        }
        self.metrics.lanes(
            state.machine.waiting(),
            state.machine.in_flight(),
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

    fn places(self: &Arc<Self>, state: &mut State, ids: Vec<PlaceId>) -> Vec<Place> {
        let place = |id| {
            let (sender, words) = mpsc::channel(WORDS_MAX);
            state.places.insert(id, sender);
            Place {
                id,
                words,
                shared: Arc::clone(self),
                ended: false,
            }
        };
        ids.into_iter().map(place).collect()
    }

    fn run(self: &Arc<Self>, errand: Errand) {
        match errand {
            Errand::Read(channel, word) => drop(channel.send(word)),
            Errand::Hold(channel, granted) => drop(channel.send(granted)),
            Errand::Call(id, modification, connection) => {
                let call = Call {
                    id: Some(id),
                    shared: Arc::clone(self),
                };
                self.tasks.spawn(call.run(modification, connection));
            }
            Errand::Look(id, key, until) => {
                let shared = Arc::clone(self);
                self.tasks
                    .spawn(async move { shared.look(id, key, until).await });
            }
            Errand::Undo(key, accounts) => drop(self.undo.send((key, accounts))),
        }
    }

    async fn look(self: Arc<Self>, id: LookId, (region, image_id): LaneKey, until: Instant) {
        let listed = self.read(until, 0, |connection| {
            self.upstream.describe(&region, &image_id, connection)
        });
        let listed = listed.await.ok();
        let listed: Option<Vec<AccountId>> =
            listed.map(|listed| listed.iter().map(|account| account.account_id).collect());
        self.with(|state, _| state.machine.looked(id, listed.as_deref()));
    }

    async fn read<T, F>(
        self: &Arc<Self>,
        deadline: Instant,
        max_retries: u32,
        call: impl Fn(Connection) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let (sender, mut word) = oneshot::channel();
        let id = self.with(|state, now| {
            let id = state.machine.read(now, deadline, max_retries)?;
            state.reads.insert(id, sender);
            Some(id)
        });
        let mut reading = Reading {
            id: Some(id.ok_or(ReadError::Full)?),
            shared: Arc::clone(self),
        };
        let mut failure = None;
        loop {
            let turn = tokio::select! {
                biased;
                turn = &mut word => turn,
                // A stop waits for calls that were made, not for those that would be.
                () = self.tasks.stopping() => Ok(ReadWord::NoTurn(NoTurn::TimeUp)),
            };
            let connection = match turn {
                Ok(ReadWord::Go(connection)) => connection,
                Ok(ReadWord::NoTurn(why)) => {
                    return Err(failure.map_or(ReadError::NoTurn(why), ReadError::Failed));
                }
                Err(_) => return Err(ReadError::NoTurn(NoTurn::TimeUp)),
            };
            let result = timeout_at(deadline.into(), call(connection)).await;
            let Ok(result) = result else {
                return Err(failure.map_or(ReadError::TimeUp, ReadError::Failed));
            };
            let (sender, next) = oneshot::channel();
            let again = reading.answered(result.as_ref().err(), sender);
            match result {
                Ok(read) => return Ok(read),
                Err(error) if again => failure = Some(error),
                Err(error) => return Err(ReadError::Failed(error)),
            }
            word = next;
        }
    }
}

/// A read that the machine knows of; dropped, the machine forgets it.
struct Reading {
    id: Option<ReadId>,
    shared: Arc<Shared>,
}

impl Reading {
    fn answered(&mut self, error: Option<&CallError>, next: oneshot::Sender<ReadWord>) -> bool {
        let Some(id) = self.id else {
            return false;
        };
        let again = self.shared.with(|state, now| {
            state.reads.insert(id, next);
            let again = state.machine.read_answered(now, id, error);
            if !again {
                state.reads.remove(&id);
            }
            again
        });
        if !again {
            self.id = None;
        }
        again
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.with(|state, now| {
                state.reads.remove(&id);
                state.machine.read_dropped(now, id);
            });
        }
    }
}

/// A call in flight. One that is dropped before its answer is told to be lost, so that nobody waits for a task that
/// is gone.
struct Call {
    id: Option<CallId>,
    shared: Arc<Shared>,
}

impl Call {
    async fn run(mut self, modification: Modification, connection: Connection) {
        let result = self.shared.upstream.modify(&modification, connection).await;
        self.answered(result);
    }

    fn answered(&mut self, result: Result<Modified, CallError>) {
        if let Some(id) = self.id.take() {
            self.shared
                .with(|state, now| state.machine.answered(now, id, result));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.shared.with(|state, now| state.machine.lost(now, id));
        }
    }
}

impl State {
    /// Tells changes their words while the lock is held, so that whoever gives its place up has got them; the rest
    /// is for when the lock is free.
    fn errands(&mut self) -> Vec<Errand> {
        let effects = self.machine.effects();
        // Whoever left needs no word; no channel gets more words than it holds.
        let tell = |channel: &mpsc::Sender<Word>, word| drop(channel.try_send(word));
        let errand = |effect| match effect {
            Effect::Call {
                id,
                modification,
                connection,
            } => Some(Errand::Call(id, modification, connection)),
            Effect::Ended(id, ended) => {
                tell(&self.places.remove(&id)?, Word::Ended(ended));
                None
            }
            Effect::Late(id) => {
                tell(self.places.get(&id)?, Word::Late);
                None
            }
            Effect::Read(id, connection) => {
                let channel = self.reads.remove(&id)?;
                Some(Errand::Read(channel, ReadWord::Go(connection)))
            }
            Effect::ReadEnded(id, why) => {
                let channel = self.reads.remove(&id)?;
                Some(Errand::Read(channel, ReadWord::NoTurn(why)))
            }
            Effect::Held(id) => Some(Errand::Hold(self.holds.remove(&id)?, true)),
            Effect::HoldEnded(id) => Some(Errand::Hold(self.holds.remove(&id)?, false)),
            Effect::Look { id, key, until } => Some(Errand::Look(id, key, until)),
            Effect::Undo { key, accounts } => Some(Errand::Undo(key, accounts)),
        };
        effects.into_iter().filter_map(errand).collect()
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
