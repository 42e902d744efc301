//! Whether and when a failed call is repeated.
//!
//! All changes here are idempotent, so what decides is whether repeating can help: the `RetCode` table and what
//! befell the exchange. Waits are capped, exponential and fully jittered; a budget keeps retries to a fifth of
//! calls when much is failing. Pure: chance is handed in.

use std::time::Duration;

use super::ret_code::RetCode;
use super::transport::CallError;

/// The longest first wait; each wait after it may be twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(200);
/// The longest of all waits that the upstream did not ask for.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// What throttling (153) asks for: the protocol says "with a pause" and names none.
const WAIT_THROTTLED: Duration = Duration::from_secs(1);
/// What the cloud's own command line waits where a resource is still detaching (8434).
const WAIT_DETACHING: Duration = Duration::from_secs(2);
/// How often "service abnormal" (8433) is tried again.
const RETRIES_ABNORMAL: u32 = 2;

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
    fn after(at_least: Duration) -> Self {
        Self::After {
            at_least,
            times: u32::MAX,
        }
    }
}

impl RetCode {
    /// What may be done about a refusal: the protocol's table.
    #[must_use]
    pub fn retry(self) -> Retry {
        match self.get() {
            110 | 130 | 150 => Retry::after(Duration::ZERO),
            153 => Retry::after(WAIT_THROTTLED),
            8433 => Retry::After {
                at_least: Duration::ZERO,
                times: RETRIES_ABNORMAL,
            },
            8434 => Retry::after(WAIT_DETACHING),
            _ => Retry::Never,
        }
    }
}

impl CallError {
    /// What may be done about it (the `RetCode` table of the protocol's notes; HTTP 429, 502, 503, 504,
    /// time-outs and connections that failed).
    #[must_use]
    pub fn retry(&self) -> Retry {
        let after = Retry::after;
        match self {
            Self::Lost { pooled: true, .. } => Retry::AtOnce,
            Self::Unreachable(_) | Self::TimedOut(_) | Self::Lost { .. } => after(Duration::ZERO),
            Self::Status {
                status: 429 | 502 | 503 | 504,
                retry_after,
                ..
            } => after(retry_after.unwrap_or_default()),
            Self::Refused { ret_code, .. } => ret_code.retry(),
            Self::Status { .. } | Self::Garbled { .. } => Retry::Never,
        }
    }

    /// The pause that the upstream asks of everybody where it throttles; `None` where it does not.
    #[must_use]
    pub fn throttling(&self) -> Option<Option<Duration>> {
        match self {
            Self::Status {
                status: 429,
                retry_after,
                ..
            } => Some(*retry_after),
            Self::Refused { ret_code, .. } if ret_code.get() == 153 => Some(None),
            _ => None,
        }
    }

    /// Whether it says that the upstream, or the way there, is down; what opens the circuit breaker.
    #[must_use]
    pub fn is_transport_failure(&self) -> bool {
        match self {
            // A pooled connection that was closed says that it was idle, nothing more.
            Self::Lost { pooled, .. } => !pooled,
            Self::Unreachable(_) | Self::TimedOut(_) => true,
            Self::Status { status, .. } => matches!(status, 502..=504),
            Self::Refused { .. } | Self::Garbled { .. } => false,
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

/// Retries that may still be made: a fifth of first calls, and a few in any case.
#[derive(Debug)]
pub struct RetryBudget(f64);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(BUDGET_MAX)
    }
}

impl RetryBudget {
    /// A call that is no retry begins.
    pub fn deposit(&mut self) {
        self.0 = (self.0 + BUDGET_SHARE).min(BUDGET_MAX);
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
    fn the_codes_of_the_table_are_repeated_and_no_others() {
        let repeated: Vec<i64> = (1..300_000)
            .filter(|code| {
                let refused = CallError::Refused {
                    ret_code: RetCode::new(*code),
                    message: None,
                    request_id: None,
                };
                refused.retry() != Retry::Never
            })
            .collect();
        assert_eq!(repeated, [110, 130, 150, 153, 8433, 8434]);
    }

    #[test]
    fn statuses_that_pass_are_repeated_after_what_they_ask_for() {
        let status = |status, seconds: Option<u64>| CallError::Status {
            status,
            retry_after: seconds.map(Duration::from_secs),
            request_id: None,
        };
        for passing in [429, 502, 503, 504] {
            let at_least = Duration::from_secs(7);
            let times = u32::MAX;
            assert_eq!(
                status(passing, Some(7)).retry(),
                Retry::After { at_least, times }
            );
        }
        for final_status in [302, 400, 403, 404, 500, 501] {
            assert_eq!(status(final_status, Some(7)).retry(), Retry::Never);
        }
    }

    #[test]
    fn a_wide_failure_is_repeated_for_a_fifth_of_calls() {
        let mut budget = RetryBudget::default();
        let retries = (0..1000)
            .filter(|_| {
                budget.deposit();
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
