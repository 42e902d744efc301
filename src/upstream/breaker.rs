//! The circuit breaker: an upstream that is down is asked once a pause, not by every caller.
//!
//! Consecutive transport failures open it. While it is open nobody is let through; after a pause one call is,
//! the probe, and what comes of that closes the breaker or begins the next pause. Pure: time is handed in.

use std::time::{Duration, Instant};

/// Transport failures in a row that open the breaker: two callers with all their retries are fewer.
pub(super) const FAILURES_MAX: u32 = 10;
/// How long nobody is let through.
pub(super) const PAUSE: Duration = Duration::from_secs(2);

/// What the breaker says to one who wants to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Call.
    Through,
    /// Call, alone: the breaker waits for what comes of it.
    Probe,
    /// Do not; it may be worth another try after this time.
    Refused(Duration),
}

/// The breaker's state in a word, for probes of readiness and for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// A probe is on its way, or may go.
    HalfOpen,
    /// Nobody is let through.
    Open,
}

impl BreakerState {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// One breaker for the whole upstream.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Transport failures since the last answer.
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    OpenUntil(Instant),
    Probing,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            failures: 0,
        }
    }
}

impl Breaker {
    /// Whether a call may begin; [`Self::begin`] begins it.
    #[must_use]
    pub fn admission(&self, now: Instant) -> Admission {
        match self.state {
            State::Closed => Admission::Through,
            State::OpenUntil(until) if until <= now => Admission::Probe,
            State::OpenUntil(until) => Admission::Refused(until - now),
            State::Probing => Admission::Refused(PAUSE),
        }
    }

    /// A call begins. Returns whether it is the probe.
    pub fn begin(&mut self, now: Instant) -> bool {
        let probe = self.admission(now) == Admission::Probe;
        if probe {
            self.state = State::Probing;
        }
        probe
    }

    /// The upstream answered something. Returns whether that closed the breaker.
    pub fn answered(&mut self) -> bool {
        self.failures = 0;
        std::mem::replace(&mut self.state, State::Closed) != State::Closed
    }

    /// A call met a transport failure. Returns whether that opened the breaker anew.
    pub fn failed(&mut self, now: Instant, probe: bool) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.failures >= FAILURES_MAX,
            State::Probing => probe,
            // A call that began before the breaker opened says nothing new.
            State::OpenUntil(_) => false,
        };
        if opens {
            self.state = State::OpenUntil(now + PAUSE);
        }
        opens
    }

    /// Nobody will say what came of a call; another may be the probe.
    pub fn abandoned(&mut self, now: Instant, probe: bool) {
        if probe && self.state == State::Probing {
            self.state = State::OpenUntil(now);
        }
    }

    /// The state in a word.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.admission(now) {
            Admission::Through => BreakerState::Closed,
            Admission::Probe => BreakerState::HalfOpen,
            Admission::Refused(_) if self.state == State::Probing => BreakerState::HalfOpen,
            Admission::Refused(_) => BreakerState::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Deadline;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for failure in 1..=FAILURES_MAX {
            assert_eq!(breaker.admission(now), Admission::Through);
            assert!(!breaker.begin(now));
            assert_eq!(breaker.failed(now, false), failure == FAILURES_MAX);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let now = Deadline::after(Duration::ZERO).instant();
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                assert!(!breaker.failed(now, false));
            }
            assert!(!breaker.answered());
        }
        assert_eq!(
            opened(now).admission(now),
            Admission::Refused(PAUSE),
            "the pause begins"
        );
    }

    #[test]
    fn after_a_pause_one_probe_goes_through_and_decides() {
        let now = Deadline::after(Duration::ZERO).instant();
        let mut breaker = opened(now);
        let later = now + PAUSE;
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert_eq!(breaker.admission(later), Admission::Probe);
        assert!(breaker.begin(later));
        assert!(!breaker.begin(later), "one probe");
        assert_eq!(breaker.admission(later), Admission::Refused(PAUSE));
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        assert!(!breaker.failed(later, false), "an old call says nothing");
        assert!(breaker.failed(later, true));
        assert_eq!(breaker.admission(later), Admission::Refused(PAUSE));
        assert!(breaker.begin(later + PAUSE));
        assert!(breaker.answered());
        assert_eq!(breaker.state(later + PAUSE), BreakerState::Closed);
    }

    #[test]
    fn a_probe_that_nobody_waits_for_leaves_its_turn_to_the_next() {
        let now = Deadline::after(Duration::ZERO).instant();
        let mut breaker = opened(now);
        assert!(breaker.begin(now + PAUSE));
        breaker.abandoned(now + PAUSE, true);
        assert!(breaker.begin(now + PAUSE));
    }

    #[test]
    fn an_answer_to_a_call_from_before_closes_it() {
        let now = Deadline::after(Duration::ZERO).instant();
        let mut breaker = opened(now);
        assert!(breaker.answered());
        assert_eq!(breaker.admission(now), Admission::Through);
    }
}
