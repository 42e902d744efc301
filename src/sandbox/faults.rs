//! Faults on demand: a given share of calls, the kinds in turn.

use std::sync::Mutex;
use std::sync::PoisonError;

/// What a call gets in place of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Http503,
    RetCode150,
    Reset,
}

const IN_TURN: [Fault; 3] = [Fault::Http503, Fault::RetCode150, Fault::Reset];

/// Spreads faults evenly, so that a rate of 0.5 is every second call and no luck.
pub(super) struct Faults {
    rate: f64,
    state: Mutex<(f64, usize)>,
}

impl Faults {
    pub(super) fn new(rate: f64) -> Self {
        Self {
            rate,
            state: Mutex::new((0.0, 0)),
        }
    }

    pub(super) fn next(&self) -> Option<Fault> {
        if self.rate <= 0.0 {
            return None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (owed, given) = &mut *state;
        *owed += self.rate;
        if *owed < 1.0 {
            return None;
        }
        *owed -= 1.0;
        let fault = IN_TURN[*given % IN_TURN.len()];
        *given += 1;
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_come_in_turn_at_the_rate_asked_for() {
        let faults = Faults::new(0.5);
        let given: Vec<_> = (0..8).map(|_| faults.next()).collect();
        let (a, b, c) = (
            Some(Fault::Http503),
            Some(Fault::RetCode150),
            Some(Fault::Reset),
        );
        assert_eq!(given, [None, a, None, b, None, c, None, a]);
        assert_eq!((0..100).filter_map(|_| Faults::new(0.0).next()).count(), 0);
    }
}
