//! Lists of one image that are wanted at the same time: one call answers all who asked before it began.
//!
//! Nobody is answered by a call that began before the question, so nobody reads what was true before they asked. Whoever
//! comes while a call is under way gathers for the next, which begins once that one has ended, or after a moment where it
//! does not. A gathering has a task of its own, so that whoever came first may leave. It lines up once for each party that
//! takes part, as each would alone, and calls for all of them when the first of these turns comes: so nobody waits behind
//! what another party has in line. A caller's time bounds its own waiting and nobody else's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::domain::Party;
use crate::upstream::SharedAccount;

use super::Parts;
use super::lanes::{LaneKey, NoTurn, READS_OF_PARTY_MAX, ReadError, ReadTerms};
use super::listing::in_order;

/// Who has access, as one call showed it; shared by all that it was made for.
pub(super) type List = Arc<[SharedAccount]>;

/// What a call gave to those for whom it was made.
type Answer = Result<List, ReadError>;

/// How long a gathering waits for the call before it: longer than a call takes that goes well.
const CALL_BEFORE_TIME: Duration = Duration::from_millis(500);

/// Who waits for a list of which image.
#[derive(Debug, Default)]
pub(super) struct Lists(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those for whom no call has begun.
    gatherings: HashMap<LaneKey, Gathering>,
    /// The last call of an image that has begun and not ended; cancelled as it ends.
    calls: HashMap<LaneKey, CancellationToken>,
    /// Who waits on behalf of each party; as many as may of its reads.
    seats_of: HashMap<Party, usize>,
}

#[derive(Debug, Default)]
struct Gathering {
    seats: Vec<Seat>,
    /// Somebody came or left.
    changed: Arc<Notify>,
    /// Cancelled as its call begins.
    begun: CancellationToken,
}

/// Those for whom a call is made.
#[derive(Debug, Default)]
struct Carried {
    seats: Vec<Seat>,
    /// To be cancelled as the call ends.
    ended: CancellationToken,
}

/// Somebody who waits.
#[derive(Debug)]
struct Seat {
    party: Party,
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
}

/// Somebody's presence; given up when it is dropped.
struct Presence<'a> {
    lists: &'a Lists,
    party: Party,
    changed: Arc<Notify>,
    begun: CancellationToken,
}

impl Parts {
    /// Reads an image's list by a call that is made for all who want it now.
    ///
    /// # Errors
    /// As [`super::lanes::Lanes::read`].
    pub(super) async fn shared_list(self: &Arc<Self>, key: &LaneKey, asked: ReadTerms) -> Answer {
        loop {
            let (presence, answer) = self.take_seat(key, &asked)?;
            match timeout_at(asked.deadline.into(), answer).await {
                Ok(Ok(answer)) => return answer,
                // The call failed since the time of those was up who had less.
                Ok(Err(_)) => {}
                Err(_) if presence.begun.is_cancelled() => return Err(ReadError::TimeUp),
                Err(_) => return Err(ReadError::NoTurn(NoTurn::TimeUp)),
            }
        }
    }

    fn take_seat(
        self: &Arc<Self>,
        key: &LaneKey,
        asked: &ReadTerms,
    ) -> Result<(Presence<'_>, oneshot::Receiver<Answer>), ReadError> {
        let (sender, answer) = oneshot::channel();
        let party = asked.party.clone();
        let mut state = self.lists.locked();
        let seats = state.seats_of.entry(party.clone()).or_default();
        if *seats >= READS_OF_PARTY_MAX {
            return Err(ReadError::Full);
        }
        *seats += 1;
        let is_new = !state.gatherings.contains_key(key);
        let gathering = state.gatherings.entry(key.clone()).or_default();
        gathering.seats.push(Seat {
            party: party.clone(),
            deadline: asked.deadline,
            answer: sender,
        });
        let presence = Presence {
            lists: &self.lists,
            party,
            changed: Arc::clone(&gathering.changed),
            begun: gathering.begun.clone(),
        };
        if is_new {
            let before = state.calls.get(key).cloned();
            let (this, key) = (Arc::clone(self), key.clone());
            let (changed, begun) = (Arc::clone(&presence.changed), presence.begun.clone());
            self.tasks
                .spawn(async move { this.gather(key, before, &changed, &begun).await });
        } else {
            presence.changed.notify_one();
        }
        drop(state);
        Ok((presence, answer))
    }

    /// Sees a gathering through its call.
    async fn gather(
        &self,
        key: LaneKey,
        before: Option<CancellationToken>,
        changed: &Notify,
        begun: &CancellationToken,
    ) {
        if let Some(before) = before {
            let _ = timeout(CALL_BEFORE_TIME, before.cancelled()).await;
        }
        let carried = Mutex::new(Carried::default());
        let mut turns = FuturesUnordered::new();
        let mut lined_up: Vec<Party> = Vec::new();
        loop {
            let Some(wanted) = self.lists.terms(&key, &lined_up) else {
                // Everybody has left.
                return;
            };
            for asked in wanted {
                lined_up.push(asked.party.clone());
                turns.push(self.turn(&key, asked, begun, &carried));
            }
            let (asked, answer) = tokio::select! {
                Some(ended) = turns.next() => ended,
                () = changed.notified(), if !begun.is_cancelled() => continue,
            };
            if begun.is_cancelled() {
                let Some(answer) = answer else { continue };
                let carried = std::mem::take(&mut *locked(&carried));
                self.lists.call_ended(&key, &carried.ended);
                for seat in carried.seats {
                    // Whoever has more time than the call had asks again.
                    if answer.is_ok() || seat.deadline <= asked.deadline {
                        let _ = seat.answer.send(answer.clone());
                    }
                }
                return;
            }
            lined_up.retain(|party| *party != asked.party);
            if let Some(Err(error)) = answer {
                self.lists.refuse(&key, &asked, &error);
            }
        }
    }

    /// A party's turn: its terms, and what its call gave; `None` where another's came first.
    async fn turn(
        &self,
        key: &LaneKey,
        asked: ReadTerms,
        begun: &CancellationToken,
        carried: &Mutex<Carried>,
    ) -> (ReadTerms, Option<Answer>) {
        let leads = AtomicBool::new(false);
        let call = |connection| {
            if !begun.is_cancelled() {
                leads.store(true, Ordering::Relaxed);
                *locked(carried) = self.lists.call_begins(key, begun);
            }
            let calling = leads.load(Ordering::Relaxed);
            async move {
                if !calling {
                    return std::future::pending().await;
                }
                let listed = self.upstream.describe(&key.0, &key.1, connection).await;
                listed.map(|accounts| in_order(accounts).into())
            }
        };
        let anothers = async {
            begun.cancelled().await;
            if leads.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let answer = tokio::select! {
            biased;
            () = anothers => None,
            answer = self.lanes.read(asked.clone(), call) => Some(answer),
        };
        (asked, answer)
    }
}

impl Lists {
    fn locked(&self) -> MutexGuard<'_, State> {
        locked(&self.0)
    }

    /// What to line up with for those who wait and whose parties have not; `None`, and the gathering is over, where nobody
    /// does. One call is for all of them, so it may take as long as anybody waits.
    fn terms(&self, key: &LaneKey, lined_up: &[Party]) -> Option<Vec<ReadTerms>> {
        let mut state = self.locked();
        let Some(gathering) = state.gatherings.get_mut(key) else {
            // Its call has begun.
            return Some(Vec::new());
        };
        gathering.seats.retain(|seat| !seat.answer.is_closed());
        let Some(deadline) = gathering.seats.iter().map(|seat| seat.deadline).max() else {
            state.gatherings.remove(key);
            return None;
        };
        let mut wanted: Vec<ReadTerms> = Vec::new();
        for seat in &gathering.seats {
            let is_in_line = lined_up.contains(&seat.party)
                || wanted.iter().any(|asked| asked.party == seat.party);
            if !is_in_line {
                wanted.push(ReadTerms::until(seat.party.clone(), deadline));
            }
        }
        Some(wanted)
    }

    /// A call begins; gives those for whom. Whoever comes now gathers anew.
    fn call_begins(&self, key: &LaneKey, begun: &CancellationToken) -> Carried {
        let mut state = self.locked();
        begun.cancel();
        let ended = CancellationToken::new();
        state.calls.insert(key.clone(), ended.clone());
        let seats = state.gatherings.remove(key).unwrap_or_default().seats;
        Carried { seats, ended }
    }

    fn call_ended(&self, key: &LaneKey, ended: &CancellationToken) {
        let mut state = self.locked();
        ended.cancel();
        // Where it is not another's, which goes on.
        if state
            .calls
            .get(key)
            .is_some_and(CancellationToken::is_cancelled)
        {
            state.calls.remove(key);
        }
    }

    /// A party's turn did not come: those hear so whom it is for.
    fn refuse(&self, key: &LaneKey, asked: &ReadTerms, error: &ReadError) {
        let mut state = self.locked();
        let Some(gathering) = state.gatherings.get_mut(key) else {
            return;
        };
        let everybodys = matches!(error, ReadError::NoTurn(NoTurn::BreakerOpen(_)));
        let is_for = |seat: &mut Seat| {
            everybodys || (seat.party == asked.party && seat.deadline <= asked.deadline)
        };
        for seat in gathering.seats.extract_if(.., is_for) {
            // Whoever left needs no answer.
            let _ = seat.answer.send(Err(error.clone()));
        }
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        let mut state = self.lists.locked();
        if let Some(seats) = state.seats_of.get_mut(&self.party) {
            *seats -= 1;
            if *seats == 0 {
                state.seats_of.remove(&self.party);
            }
        }
        drop(state);
        self.changed.notify_one();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
