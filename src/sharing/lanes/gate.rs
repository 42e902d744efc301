//! Who may call next: calls in flight, calls a second, and the circuit breaker, over all lanes and reads.
//!
//! Lanes and reads that want to call stand in line and each gets one call, first come first served, so a
//! lane with a thousand changes gets no more turns than one with a single change. Callers' reads have at most half of
//! the calls, and one in any case, so that where there are two or more changes never wait behind reads alone; and of
//! these no party has more than are left to others: one alone has half of them, and whoever comes next finds some
//! free. The gateway's own reads go with the lanes, and so do those for which lanes are held, a quarter of all calls for
//! a party at the most. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::domain::Party;
use crate::upstream::{Admission, Breaker, BreakerState, CallError, Effort, Pace, RetryBudget};

use super::machine::{LaneKey, ReadId};

/// Whose turn it is.
#[derive(Debug)]
pub(super) enum Turn {
    Lane(LaneKey),
    Read(ReadId, ReadingParty),
}

/// Who reads.
#[derive(Debug, Clone)]
pub(super) struct ReadingParty {
    pub(super) party: Party,
    /// Whether a lane is held for it.
    pub(super) holds: bool,
}

impl ReadingParty {
    /// Whether it waits among callers' reads, and not in line with the lanes.
    pub(super) fn takes_a_place(&self) -> bool {
        !self.holds && self.party != Party::Gateway
    }
}

/// What a call is made for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Change,
    Read(ReadingParty),
}

/// A call that began.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    purpose: Purpose,
    probe: bool,
    at: Instant,
}

/// A party whose reads wait or are in a call.
#[derive(Debug)]
struct PartyReads {
    party: Party,
    waiting: VecDeque<(u64, ReadId)>,
    in_flight: usize,
    /// Those for which it holds lanes; they are counted apart.
    holding: usize,
}

/// Who is first.
#[derive(Debug, Clone, Copy)]
enum First {
    /// Of those in line, the one at this index.
    Line(usize),
    /// The party of this index.
    Party(usize),
}

#[derive(Debug)]
pub(super) struct Gate {
    max_in_flight: usize,
    in_flight: usize,
    reads_in_flight: usize,
    breaker: Breaker,
    pace: Pace,
    budget: RetryBudget,
    /// Lanes, reads for which lanes are held, and the gateway's own.
    line: VecDeque<(u64, Turn)>,
    /// Whose turn it is comes first.
    readers: Vec<PartyReads>,
    came: u64,
    retries: u64,
}

impl Gate {
    pub(super) fn new(max_in_flight: usize, requests_per_second: Option<f64>) -> Self {
        Self {
            max_in_flight,
            in_flight: 0,
            reads_in_flight: 0,
            breaker: Breaker::default(),
            pace: Pace::new(requests_per_second),
            budget: RetryBudget::default(),
            line: VecDeque::new(),
            readers: Vec::new(),
            came: 0,
            retries: 0,
        }
    }

    /// Takes its place in line.
    pub(super) fn line_up(&mut self, turn: Turn) {
        self.came += 1;
        match turn {
            Turn::Read(id, reader) if reader.takes_a_place() => {
                let waiting = (self.came, id);
                self.reads_of(&reader.party).waiting.push_back(waiting);
            }
            turn => self.line.push_back((self.came, turn)),
        }
    }

    fn reads_of(&mut self, party: &Party) -> &mut PartyReads {
        let known = self.readers.iter().position(|reads| reads.party == *party);
        let index = known.unwrap_or_else(|| {
            self.readers.push(PartyReads {
                party: party.clone(),
                waiting: VecDeque::new(),
                in_flight: 0,
                holding: 0,
            });
            self.readers.len() - 1
        });
        &mut self.readers[index]
    }

    /// A read leaves the line.
    pub(super) fn leave(&mut self, id: ReadId, reader: &ReadingParty) {
        if reader.takes_a_place() {
            let waiting = &mut self.reads_of(&reader.party).waiting;
            waiting.retain(|(_, read)| *read != id);
            self.forget_idle_readers();
        } else {
            self.line
                .retain(|(_, turn)| !matches!(turn, Turn::Read(read, _) if *read == id));
        }
    }

    fn forget_idle_readers(&mut self) {
        self.readers
            .retain(|reads| !reads.waiting.is_empty() || reads.in_flight + reads.holding > 0);
    }

    fn max_reads(&self) -> usize {
        (self.max_in_flight / 2).max(1)
    }

    /// Whether a party's read for which it holds a lane may have a call: it has fewer than a quarter of all calls.
    fn may_hold(&self, party: &Party) -> bool {
        let reads = self.readers.iter().find(|reads| reads.party == *party);
        reads.map_or(0, |reads| reads.holding) < (self.max_in_flight / 4).max(1)
    }

    /// The first in turn of those whose reads wait and may have a call.
    fn next_reader(&self) -> Option<usize> {
        let free = self.max_reads().saturating_sub(self.reads_in_flight);
        self.readers
            .iter()
            .position(|reads| !reads.waiting.is_empty() && reads.in_flight < free)
    }

    /// The first in line that may have a call.
    fn next_in_line(&self) -> Option<usize> {
        self.line.iter().position(|(_, turn)| match turn {
            Turn::Read(_, reader) if reader.party != Party::Gateway => self.may_hold(&reader.party),
            Turn::Read(..) | Turn::Lane(_) => true,
        })
    }

    /// Of all who wait, who may have the next call as far as calls in flight go.
    fn first(&self) -> Option<First> {
        if self.in_flight >= self.max_in_flight {
            return None;
        }
        let in_line = self.next_in_line().and_then(|index| {
            let (came, _) = self.line.get(index)?;
            Some((*came, index))
        });
        let reader = self.next_reader().and_then(|index| {
            let (came, _) = self.readers.get(index)?.waiting.front()?;
            Some((*came, index))
        });
        match (in_line, reader) {
            (Some((line, _)), Some((came, index))) if came < line => Some(First::Party(index)),
            (Some((_, index)), _) => Some(First::Line(index)),
            (None, Some((_, index))) => Some(First::Party(index)),
            (None, None) => None,
        }
    }

    fn pop_reader(&mut self, index: usize) -> Option<Turn> {
        // Whoever had a turn stands last from now on.
        let mut reader = self.readers.remove(index);
        let turn = reader.waiting.pop_front();
        let turn = turn.map(|(_, id)| {
            let reader = ReadingParty {
                party: reader.party.clone(),
                holds: false,
            };
            Turn::Read(id, reader)
        });
        self.readers.push(reader);
        turn
    }

    /// The next whose turn it is. While the breaker lets nobody through everybody's turn comes at once, to be
    /// refused: see [`Self::refusal`].
    pub(super) fn next(&mut self, now: Instant) -> Option<Turn> {
        if self.refusal(now).is_some() {
            if let Some((_, turn)) = self.line.pop_front() {
                return Some(turn);
            }
            let waits = |reader: &PartyReads| !reader.waiting.is_empty();
            let index = self.readers.iter().position(waits)?;
            return self.pop_reader(index);
        }
        let first = self.first()?;
        if self.pace.not_before(now).is_some() {
            self.pace.holds_back();
            return None;
        }
        match first {
            First::Party(index) => self.pop_reader(index),
            First::Line(index) => self.line.remove(index).map(|(_, turn)| turn),
        }
    }

    /// When somebody's turn comes by time alone.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        self.first().and_then(|_| self.pace.not_before(now))
    }

    /// Why nobody may call now: the breaker is open, for so long.
    pub(super) fn refusal(&self, now: Instant) -> Option<Duration> {
        match self.breaker.admission(now) {
            Admission::Through | Admission::Probe => None,
            Admission::Refused(wait) => Some(wait),
        }
    }

    /// A call begins.
    pub(super) fn begin(&mut self, now: Instant, purpose: Purpose, effort: Effort) -> Begun {
        self.in_flight += 1;
        match &purpose {
            Purpose::Read(reader) if reader.takes_a_place() => {
                self.reads_of(&reader.party).in_flight += 1;
                self.reads_in_flight += 1;
            }
            Purpose::Read(reader) if reader.holds => self.reads_of(&reader.party).holding += 1,
            Purpose::Read(_) | Purpose::Change => {}
        }
        self.pace.begin(now);
        self.budget.begins(effort);
        self.retries += u64::from(effort == Effort::Retry);
        let probe = self.breaker.begin(now);
        Begun {
            purpose,
            probe,
            at: now,
        }
    }

    /// A call ended; what came of it moves breaker and pace. Returns whether the breaker opened.
    pub(super) fn ended(&mut self, now: Instant, begun: &Begun, error: Option<&CallError>) -> bool {
        self.release(begun);
        if let Some(pause) = error.and_then(CallError::throttling) {
            self.pace.throttled(now, begun.at, pause);
        }
        match error {
            // What says nothing of the upstream neither opens nor closes.
            Some(CallError::Lost { pooled: true, .. } | CallError::Withheld) => {
                self.breaker.abandoned(now, begun.probe);
                false
            }
            Some(error) if error.is_transport_failure() => {
                let opened = self.breaker.failed(now, begun.probe);
                if opened {
                    tracing::warn!("the circuit breaker is open: the upstream fails");
                }
                opened
            }
            Some(_) | None => {
                if self.breaker.answered() {
                    tracing::info!("the circuit breaker is closed: the upstream answers");
                }
                false
            }
        }
    }

    /// A call ended, and nobody knows how.
    pub(super) fn abandoned(&mut self, now: Instant, begun: &Begun) {
        self.release(begun);
        self.breaker.abandoned(now, begun.probe);
    }

    fn release(&mut self, begun: &Begun) {
        self.in_flight -= 1;
        match &begun.purpose {
            Purpose::Read(reader) if reader.takes_a_place() => {
                self.reads_of(&reader.party).in_flight -= 1;
                self.reads_in_flight -= 1;
            }
            Purpose::Read(reader) if reader.holds => self.reads_of(&reader.party).holding -= 1,
            Purpose::Read(_) | Purpose::Change => return,
        }
        self.forget_idle_readers();
    }

    /// Takes one of the retries that may be made.
    pub(super) fn grants_retry(&mut self) -> bool {
        self.budget.withdraw()
    }

    /// Retries that were begun since the start.
    pub(super) fn retries(&self) -> u64 {
        self.retries
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn breaker_state(&self, now: Instant) -> BreakerState {
        self.breaker.state(now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Deadline, Principal};

    fn party(subject: usize) -> Party {
        let principal = Principal::of_first_issuer(&subject.to_string(), "https://issuer.example");
        Party::Subject(Arc::new(principal))
    }

    fn begin_all(gate: &mut Gate, now: Instant) -> Vec<Begun> {
        let mut begun = Vec::new();
        while let Some(turn) = gate.next(now) {
            let purpose = match turn {
                Turn::Lane(_) => Purpose::Change,
                Turn::Read(_, reader) => Purpose::Read(reader),
            };
            begun.push(gate.begin(now, purpose, Effort::First));
        }
        begun
    }

    #[test]
    fn whoever_comes_next_finds_calls_that_one_party_does_not_take_and_the_gateway_goes_before() {
        let now = Deadline::now().instant();
        let mut gate = Gate::new(64, None);
        let mut id = 0;
        let mut waits = |gate: &mut Gate, party: &Party, count: usize| {
            for _ in 0..count {
                id += 1;
                let reader = ReadingParty {
                    party: party.clone(),
                    holds: false,
                };
                gate.line_up(Turn::Read(ReadId(id), reader));
            }
        };
        waits(&mut gate, &party(1), 100);
        let first = begin_all(&mut gate, now);
        assert_eq!(first.len(), 16, "half of the half that reads have");
        waits(&mut gate, &party(2), 100);
        assert_eq!(begin_all(&mut gate, now).len(), 8, "half of what is left");
        waits(&mut gate, &party(3), 1);
        assert_eq!(begin_all(&mut gate, now).len(), 1);
        waits(&mut gate, &Party::Gateway, 3);
        assert_eq!(begin_all(&mut gate, now).len(), 3);
        for begun in &first {
            gate.abandoned(now, begun);
        }
        let again = begin_all(&mut gate, now);
        let of = |wanted: usize| {
            let of_party = |begun: &&Begun| matches!(&begun.purpose, Purpose::Read(of) if of.party == party(wanted));
            again.iter().filter(of_party).count()
        };
        assert!(
            of(1) > 0 && of(2) > 0,
            "both go on: {} and {}",
            of(1),
            of(2)
        );
    }

    #[test]
    fn whoever_holds_lanes_takes_a_quarter_of_the_calls_whatever_else_it_reads() {
        let now = Deadline::now().instant();
        let mut gate = Gate::new(64, None);
        let wait = |gate: &mut Gate, from: u64, holds: bool| {
            for id in from..from + 100 {
                let party = party(1);
                gate.line_up(Turn::Read(ReadId(id), ReadingParty { party, holds }));
            }
        };
        wait(&mut gate, 0, false);
        assert_eq!(begin_all(&mut gate, now).len(), 16);
        wait(&mut gate, 100, true);
        let image = |number: u32| {
            let image = format!("img-{number}").parse().expect("an image");
            ("cn-wlcb".parse().expect("a region"), image)
        };
        gate.line_up(Turn::Lane(image(1)));
        let begun = begin_all(&mut gate, now);
        let changes = begun
            .iter()
            .filter(|begun| matches!(begun.purpose, Purpose::Change));
        assert_eq!(
            (begun.len(), changes.count()),
            (16 + 1, 1),
            "a lane behind them goes"
        );
    }
}
