//! Whether and when a failed call is repeated, and how often of late.
//!
//! All changes here are idempotent, so what decides is whether repeating can help: that say `RetCode` and
//! `CallError`. Waits are capped, exponential and fully jittered; a budget keeps retries to a fifth of
//! calls when much is failing. Pure: chance is handed in.

use std::time::Duration;

/// The longest first wait; each wait after it may be twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(200);
/// The longest of all waits that the upstream did not ask for.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Retries that may come in a row, however few calls there were.
const BUDGET_MAX: f64 = 20.0;
/// What each first call adds.
const BUDGET_SHARE: f64 = 0.2;

/// What may be done about a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing: the same call would fail again, or nobody knows.
    Never,
    /// The pooled connection was closed as the call was sent: at once, over a fresh one.
    AtOnce,
    /// After a wait, at least this long and at most so often.
    After {
        /// What the upstream asked for, or the code's own pause.
        at_least: Duration,
        /// Retries that make sense, whatever is configured.
        times: u32,
    },
}

impl Retry {
    pub(super) fn after(at_least: Duration) -> Self {
        Self::After {
            at_least,
            times: u32::MAX,
        }
    }
}

/// The wait before retry number `retry` (from 0): full jitter over a capped exponential, `chance` from 0 to 1, and
/// never shorter than what was asked for.
#[must_use]
pub fn backoff(retry: u32, at_least: Duration, chance: f64) -> Duration {
    let longest = WAIT_FIRST.saturating_mul(1 << retry.min(16)).min(WAIT_MAX);
    longest.mul_f64(chance.clamp(0.0, 1.0)).max(at_least)
}

/// What a call is to the budget of retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// The first for what it carries: it earns a part of a retry.
    First,
    /// Made again, or beside, for a reason that needs no budget: what is left of a call that others spoiled, a stale
    /// connection, a look after a failure. It earns nothing: failures must not pay for retries.
    Again,
    /// A retry; it was taken from the budget.
    Retry,
}

/// Retries that may still be made: a fifth of first calls, and a few in any case.
#[derive(Debug)]
pub struct RetryBudget(f64);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(BUDGET_MAX)
    }
}

impl RetryBudget {
    /// A call begins.
    pub fn begins(&mut self, effort: Effort) {
        if effort == Effort::First {
            self.0 = (self.0 + BUDGET_SHARE).min(BUDGET_MAX);
        }
    }

    /// Takes one retry, if there is one.
    pub fn withdraw(&mut self) -> bool {
        // A fifth added five times is a little less than one.
        let granted = self.0 >= 1.0 - 1e-9;
        if granted {
            self.0 = (self.0 - 1.0).max(0.0);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wide_failure_is_repeated_for_a_fifth_of_calls() {
        let mut budget = RetryBudget::default();
        let retries = (0..1000)
            .filter(|_| {
                budget.begins(Effort::First);
                budget.begins(Effort::Again);
                budget.begins(Effort::Retry);
                budget.withdraw()
            })
            .count();
        assert!((218..=220).contains(&retries), "{retries}");
    }

    proptest! {
        #[test]
        fn waits_are_capped_and_never_shorter_than_asked(
            retry in 0_u32..1000, asked in 0_u64..10_000, chance in 0.0_f64..=1.0,
        ) {
            let asked = Duration::from_millis(asked);
            let wait = backoff(retry, asked, chance);
            prop_assert!(wait >= asked && wait <= WAIT_MAX.max(asked));
            prop_assert!(wait <= WAIT_FIRST.saturating_mul(1 << retry.min(16)).max(asked));
        }
    }
}
