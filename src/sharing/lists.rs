//! Lists of one image that are wanted at the same time: one call answers all who asked before it began.
//!
//! Nobody is answered by a call that began before the question, so nobody reads what was true before they asked. While a
//! call is under way for an image, whoever comes waits for its end. Then all who wait line up, each for a turn of their own,
//! as every read does: so nobody waits behind what another party has in line. The first whose turn comes calls for all
//! of them, and the others leave the line. Where it gives up before it has an answer, they line up again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use crate::upstream::{CallError, Connection, SharedAccount};

use super::lanes::{LaneKey, Lanes, NoTurn, ReadError, ReadTerms};

/// Who has access, as one call showed it; shared by all that it was made for.
pub(super) type List = Arc<[SharedAccount]>;

/// What a call gave to those for whom it was made.
type Answer = Result<List, ReadError>;

/// What somebody who waits is told: that they may line up, and that a call begins for them.
const WORDS_MAX: usize = 2;

/// Who waits for a list of which image.
#[derive(Debug, Default)]
pub(super) struct Lists {
    gatherings: Mutex<HashMap<LaneKey, Gathering>>,
    /// The seat that was taken last.
    last: AtomicU64,
}

/// Those who want one image's list.
#[derive(Debug, Default)]
struct Gathering {
    /// Who calls, or is about to call again.
    leader: Option<SeatId>,
    /// For whom.
    carried: Vec<oneshot::Sender<Answer>>,
    /// Who came since the last call began.
    waiting: Vec<(SeatId, mpsc::Sender<Word>)>,
}

type SeatId = u64;

#[derive(Debug)]
enum Word {
    /// Nobody calls any more.
    LineUp,
    /// Somebody's call begins, and answers here.
    Carried(oneshot::Receiver<Answer>),
}

impl Lists {
    /// Reads an image's list, by a call of its own or by another's that began meanwhile.
    ///
    /// # Errors
    /// As [`Lanes::read`]. Those by whom a call was shared share its failure, but not that its caller's own time is up.
    pub(super) async fn read<F>(
        &self,
        lanes: &Lanes,
        key: &LaneKey,
        asked: ReadTerms,
        call: impl Fn(Connection) -> F,
    ) -> Answer
    where
        F: Future<Output = Result<List, CallError>>,
    {
        let deadline = asked.deadline.into();
        loop {
            let mut seat = self.take_seat(key);
            let mut word = if seat.may_line_up {
                Word::LineUp
            } else {
                let told = timeout_at(deadline, seat.words.recv()).await;
                let told = told.map_err(|_| ReadError::NoTurn(NoTurn::TimeUp))?;
                told.unwrap_or(Word::LineUp)
            };
            if let Word::LineUp = word {
                let Seat { words, place, .. } = &mut seat;
                let lead = |connection| {
                    let leads = place.lead();
                    let calling = leads.then(|| call(connection));
                    async move {
                        match calling {
                            Some(calling) => calling.await,
                            // Another's turn came first, and its call is for this one too, who is told so.
                            None => std::future::pending().await,
                        }
                    }
                };
                tokio::select! {
                    biased;
                    Some(told) = words.recv() => word = told,
                    answer = lanes.read(asked.clone(), lead) => {
                        place.tell(&answer);
                        return answer;
                    }
                }
            }
            if let Word::Carried(answer) = word {
                let answer = timeout_at(deadline, answer).await;
                if let Ok(answer) = answer.map_err(|_| ReadError::TimeUp)? {
                    return answer;
                }
                // Who called has left.
            }
        }
    }

    fn take_seat<'a>(&'a self, key: &'a LaneKey) -> Seat<'a> {
        let (told, words) = mpsc::channel(WORDS_MAX);
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let mut gatherings = self.locked();
        let gathering = gatherings.entry(key.clone()).or_default();
        gathering.waiting.push((id, told));
        let may_line_up = gathering.leader.is_none();
        let place = Place {
            id,
            key,
            lists: self,
        };
        Seat {
            words,
            may_line_up,
            place,
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<LaneKey, Gathering>> {
        self.gatherings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who wants a list.
struct Seat<'a> {
    words: mpsc::Receiver<Word>,
    may_line_up: bool,
    place: Place<'a>,
}

/// Where somebody stands in a gathering; given up when it is dropped.
struct Place<'a> {
    id: SeatId,
    key: &'a LaneKey,
    lists: &'a Lists,
}

impl Place<'_> {
    /// A call begins for all who wait. Returns `false` where another's did, for this one too.
    fn lead(&self) -> bool {
        let mut gatherings = self.lists.locked();
        let Some(gathering) = gatherings.get_mut(self.key) else {
            return false;
        };
        let waits = |(id, _): &(SeatId, _)| *id == self.id;
        match gathering.leader {
            Some(leader) if leader == self.id => {}
            None if gathering.waiting.iter().any(waits) => gathering.leader = Some(self.id),
            Some(_) | None => return false,
        }
        for (id, told) in std::mem::take(&mut gathering.waiting) {
            if id != self.id {
                let (sender, answer) = oneshot::channel();
                // Whoever left needs no answer.
                if told.try_send(Word::Carried(answer)).is_ok() {
                    gathering.carried.push(sender);
                }
            }
        }
        true
    }

    /// Gives those for whom the call was made what came of it, where it is theirs too.
    fn tell(&self, answer: &Answer) {
        let is_all_theirs = match answer {
            Ok(_) | Err(ReadError::Failed(_) | ReadError::NoTurn(NoTurn::BreakerOpen(_))) => true,
            Err(ReadError::Full | ReadError::NoTurn(NoTurn::TimeUp) | ReadError::TimeUp) => false,
        };
        let carried = self.leave();
        if is_all_theirs {
            for channel in carried {
                // Whoever left needs no answer.
                let _ = channel.send(answer.clone());
            }
        }
    }

    /// Leaves, and lets those line up who came meanwhile. Gives those for whom it called.
    fn leave(&self) -> Vec<oneshot::Sender<Answer>> {
        let mut gatherings = self.lists.locked();
        let Entry::Occupied(mut entry) = gatherings.entry(self.key.clone()) else {
            return Vec::new();
        };
        let gathering = entry.get_mut();
        gathering.waiting.retain(|(id, _)| *id != self.id);
        let mut carried = Vec::new();
        if gathering.leader == Some(self.id) {
            gathering.leader = None;
            carried = std::mem::take(&mut gathering.carried);
            for (_, told) in &gathering.waiting {
                // Whoever left needs no word.
                let _ = told.try_send(Word::LineUp);
            }
        }
        if gathering.leader.is_none() && gathering.waiting.is_empty() {
            entry.remove();
        }
        carried
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
