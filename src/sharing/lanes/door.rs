//! Who waits at a lane's door, as use cases see it.
//!
//! A change takes its place and its intent is enqueued under one lock, so the order of a lane and that of its intents
//! are one. Mostly that is done at once; while somebody has the lane for himself it is done when he is done, by
//! whoever tells the machine so.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::audit::EnqueueError;
use crate::domain::{AccountId, Deadline, Operation, Party};

use super::machine::{Kind, LaneKey, Machine, NoTurn, Terms, WaitId};
use super::{Lanes, Place, ReadError, Shared, State};

/// Why changes got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sharing) enum AdmitError {
    /// There is no room in the lane or for the intents.
    Enqueue(EnqueueError),
    /// The time was up before they were let in.
    TimeUp,
}

/// What is done with somebody who waits.
pub(super) enum Visitor {
    /// He is told whether it was granted.
    Told(oneshot::Sender<bool>),
    /// His changes are admitted.
    Entrant(Entrant),
}

impl fmt::Debug for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Told(_) => "Told",
            Self::Entrant(_) => "Entrant",
        })
    }
}

/// Admits changes under the lock, and gives what tells so once it is free: whoever does not wait any more drops
/// places, and that takes the lock.
type Admission = Box<dyn FnOnce(&Arc<Shared>, &mut State) -> Box<dyn FnOnce() + Send> + Send>;

pub(super) struct Entrant {
    key: LaneKey,
    admit: Admission,
}

impl Visitor {
    /// Under the lock.
    pub(super) fn granted(
        self,
        shared: &Arc<Shared>,
        state: &mut State,
        now: Instant,
    ) -> Box<dyn FnOnce() + Send> {
        match self {
            Self::Told(channel) => Box::new(move || {
                // Whoever left need not know.
                let _ = channel.send(true);
            }),
            Self::Entrant(Entrant { key, admit }) => {
                let tell = admit(shared, state);
                state.machine.entered(now, &key);
                tell
            }
        }
    }

    pub(super) fn ended(self) -> Box<dyn FnOnce() + Send> {
        match self {
            Self::Told(channel) => Box::new(move || {
                let _ = channel.send(false);
            }),
            Self::Entrant(entrant) => Box::new(move || drop(entrant)),
        }
    }
}

/// Somebody at the door, or in the lane; dropped, the machine forgets him.
#[derive(Debug)]
struct Visit {
    id: WaitId,
    shared: Arc<Shared>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let waiting = self.shared.with(|state, now| {
            state.machine.release(now, self.id);
            state.waits.remove(&self.id)
        });
        drop(waiting);
    }
}

impl Lanes {
    /// Gives changes of one image the last places of their lane, in one go with `enqueue`, which must not wait.
    ///
    /// # Errors
    /// See [`AdmitError`]; no place is taken then.
    pub(in crate::sharing) async fn admit<T: Send + 'static>(
        &self,
        key: &LaneKey,
        asked: Terms,
        changes: Vec<(Operation, AccountId)>,
        enqueue: impl FnOnce() -> Result<T, EnqueueError> + Send + 'static,
    ) -> Result<(T, Vec<Place>), AdmitError> {
        type Admitted<T> = Result<(T, Vec<Place>), EnqueueError>;
        let admit = {
            let (key, asked) = (key.clone(), asked.clone());
            let places = changes.len();
            let admit = move |shared: &Arc<Shared>, state: &mut State| -> Admitted<T> {
                let enqueued = enqueue()?;
                let ids = state.machine.admit(&key, &changes, &asked);
                Ok((enqueued, Place::handles(shared, state, ids)))
            };
            (admit, places)
        };
        let (admit, places) = admit;
        if !self.0.may_act() {
            return Err(AdmitError::Enqueue(EnqueueError::Ended));
        }
        let admitted: Result<Admitted<T>, (Visit, oneshot::Receiver<Admitted<T>>)> =
            self.0.with(|state, _| {
                if !state.machine.has_room(key, &asked.party, asked.kind) {
                    return Ok(Err(EnqueueError::Full));
                }
                if state.machine.is_open(key, asked.kind) {
                    return Ok(admit(&self.0, state));
                }
                let id = state.machine.queue_up(key, places, &asked);
                let (told, answer) = oneshot::channel();
                let admit: Admission = Box::new(move |shared, state| {
                    if told.is_closed() {
                        return Box::new(|| {});
                    }
                    let admitted = admit(shared, state);
                    Box::new(move || drop(told.send(admitted)))
                });
                let key = key.clone();
                let entrant = Visitor::Entrant(Entrant { key, admit });
                state.waits.insert(id, entrant);
                let shared = Arc::clone(&self.0);
                Err((Visit { id, shared }, answer))
            });
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err((_visit, answer)) => tokio::select! {
                answer = answer => answer.map_err(|_| self.0.not_admitted())?,
                () = self.0.tasks.giving_up() => return Err(AdmitError::TimeUp),
            },
        };
        admitted.map_err(AdmitError::Enqueue)
    }

    /// Waits until everything that was accepted before is done; nothing is accepted or sent then until the hold is
    /// dropped or replaced.
    ///
    /// # Errors
    /// Where too much waits, or the time is up before.
    pub(in crate::sharing) async fn hold(
        &self,
        key: &LaneKey,
        party: Party,
        deadline: Deadline,
    ) -> Result<HeldLane, ReadError> {
        let wants =
            |machine: &mut Machine, now, party| machine.hold(now, key, party, deadline.instant());
        self.visit(key, party, wants).await.map(HeldLane)
    }

    /// Waits until everything that was accepted before is done, and holds nobody up.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub(in crate::sharing) async fn settled(
        &self,
        key: &LaneKey,
        party: Party,
        deadline: Deadline,
    ) -> Result<(), ReadError> {
        let wants = |machine: &mut Machine, _, party| machine.fence(key, party, deadline.instant());
        self.visit(key, party, wants).await.map(drop)
    }

    async fn visit(
        &self,
        key: &LaneKey,
        party: Party,
        wants: impl FnOnce(&mut Machine, Instant, Party) -> WaitId,
    ) -> Result<Visit, ReadError> {
        let (granted, grant) = oneshot::channel();
        let visit = self.0.with(|state, now| {
            if !state.machine.has_room(key, &party, Kind::Bulk) {
                return Err(ReadError::Full);
            }
            let id = wants(&mut state.machine, now, party);
            state.waits.insert(id, Visitor::Told(granted));
            let shared = Arc::clone(&self.0);
            Ok(Visit { id, shared })
        })?;
        tokio::select! {
            granted = grant => match granted {
                Ok(true) => Ok(visit),
                Ok(false) | Err(_) => Err(ReadError::NoTurn(NoTurn::TimeUp)),
            },
            () = self.0.tasks.giving_up() => Err(ReadError::NoTurn(NoTurn::TimeUp)),
        }
    }
}

/// A lane that somebody has for himself. Dropped, it goes on.
#[derive(Debug)]
pub(in crate::sharing) struct HeldLane(Visit);

impl HeldLane {
    /// Gives the lane's first places to these changes, in one go with `enqueue`, which must not wait. Whoever waits
    /// at the door comes behind them, and nothing of his is sent before all of them are done.
    ///
    /// # Errors
    /// Those of `enqueue`; no place is taken then.
    pub(in crate::sharing) fn replace<T>(
        self,
        changes: &[(Operation, AccountId)],
        deadline: Deadline,
        enqueue: impl FnOnce() -> Result<T, EnqueueError>,
    ) -> Result<(T, Vec<Place>), EnqueueError> {
        let Visit { id, shared } = &self.0;
        shared.with(|state, now| {
            if !state.machine.holds(*id) {
                // Another gateway has the image.
                return Err(EnqueueError::Ended);
            }
            let enqueued = enqueue()?;
            let deadline = deadline.instant();
            let ids = state.machine.replace(now, *id, changes, deadline);
            Ok((enqueued, Place::handles(shared, state, ids)))
        })
    }
}
