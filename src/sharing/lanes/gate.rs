//! Who may call next: calls in flight, calls a second, and the circuit breaker, over all lanes and reads.
//!
//! Lanes and reads that want to call stand in line and each gets one call, first come first served, so a
//! lane with a thousand changes gets no more turns than one with a single change. Reads have at most half of the
//! calls, and one in any case, so that where there are two or more changes never wait behind reads alone. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::upstream::{Admission, Breaker, BreakerState, CallError, Pace, RetryBudget};

use super::machine::{LaneKey, ReadId};

/// Whose turn it is.
#[derive(Debug)]
pub(super) enum Turn {
    Lane(LaneKey),
    Read(ReadId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Change,
    Read,
}

/// A call that began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    kind: Kind,
    probe: bool,
}

#[derive(Debug)]
pub(super) struct Gate {
    max_in_flight: usize,
    in_flight: usize,
    reads_in_flight: usize,
    breaker: Breaker,
    pace: Pace,
    budget: RetryBudget,
    lanes: VecDeque<(u64, LaneKey)>,
    reads: VecDeque<(u64, ReadId)>,
    came: u64,
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
            lanes: VecDeque::new(),
            reads: VecDeque::new(),
            came: 0,
        }
    }

    /// Takes its place in line.
    pub(super) fn line_up(&mut self, turn: Turn) {
        self.came += 1;
        match turn {
            Turn::Lane(key) => self.lanes.push_back((self.came, key)),
            Turn::Read(id) => self.reads.push_back((self.came, id)),
        }
    }

    fn max_reads(&self) -> usize {
        (self.max_in_flight / 2).max(1)
    }

    /// Of those in line, the first that may have a call as far as calls in flight go.
    fn first(&self) -> Option<Kind> {
        if self.in_flight >= self.max_in_flight {
            return None;
        }
        let lane = self.lanes.front().map(|(came, _)| *came);
        let read = self.reads.front().map(|(came, _)| *came);
        match (
            lane,
            read.filter(|_| self.reads_in_flight < self.max_reads()),
        ) {
            (Some(lane), Some(read)) if read < lane => Some(Kind::Read),
            (Some(_), _) => Some(Kind::Change),
            (None, Some(_)) => Some(Kind::Read),
            (None, None) => None,
        }
    }

    fn pop(&mut self, kind: Kind) -> Option<Turn> {
        match kind {
            Kind::Change => self.lanes.pop_front().map(|(_, key)| Turn::Lane(key)),
            Kind::Read => self.reads.pop_front().map(|(_, id)| Turn::Read(id)),
        }
    }

    /// The next whose turn it is. While the breaker lets nobody through everybody's turn comes at once, to be
    /// refused: see [`Self::refusal`].
    pub(super) fn next(&mut self, now: Instant) -> Option<Turn> {
        if self.refusal(now).is_some() {
            return self.pop(Kind::Change).or_else(|| self.pop(Kind::Read));
        }
        if self.pace.not_before(now).is_some() {
            return None;
        }
        let kind = self.first()?;
        self.pop(kind)
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
    pub(super) fn begin(&mut self, now: Instant, kind: Kind, retry: bool) -> Begun {
        self.in_flight += 1;
        self.reads_in_flight += usize::from(kind == Kind::Read);
        self.pace.begin(now);
        if !retry {
            self.budget.deposit();
        }
        let probe = self.breaker.begin(now);
        Begun { kind, probe }
    }

    /// A call ended; what came of it moves breaker and pace. Returns whether the breaker opened.
    pub(super) fn ended(&mut self, now: Instant, begun: Begun, error: Option<&CallError>) -> bool {
        self.release(begun);
        if let Some(pause) = error.and_then(CallError::throttling) {
            self.pace.throttled(now, pause);
        }
        match error {
            // What says nothing of the upstream neither opens nor closes.
            Some(CallError::Lost { pooled: true, .. }) => {
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
    pub(super) fn abandoned(&mut self, now: Instant, begun: Begun) {
        self.release(begun);
        self.breaker.abandoned(now, begun.probe);
    }

    fn release(&mut self, begun: Begun) {
        self.in_flight -= 1;
        self.reads_in_flight -= usize::from(begun.kind == Kind::Read);
    }

    /// Takes one of the retries that may be made.
    pub(super) fn grants_retry(&mut self) -> bool {
        self.budget.withdraw()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn breaker_state(&self, now: Instant) -> BreakerState {
        self.breaker.state(now)
    }
}
