//! Why a call failed, and what that means: for the change that it carried ([`CallError::fate`]), for another try
//! ([`CallError::retry`]), for the way to the upstream.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::ret_code::{Meaning, RetCode};
use super::retry::Retry;

/// What a library says of a failed exchange, with its causes and without URLs; for the log alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(Arc<str>);

impl Cause {
    /// Takes words; those of an error by [`Cause::of`].
    #[must_use]
    pub fn new(words: &str) -> Self {
        Self(words.into())
    }

    pub(super) fn of(error: reqwest::Error) -> Self {
        // The URL is the operator's own, and of no use in a line that names the action.
        let error = error.without_url();
        let mut words = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Writing to a String cannot fail.
            let _ = write!(words, ": {cause}");
            source = cause.source();
        }
        Self(words.into())
    }
}

/// Why a call failed. Where it matters is what it means for the change: [`CallError::fate`]. Every change that
/// the call carried gets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// This gateway may not act now: others may have taken over from it. Nothing was sent.
    #[error("the call was withheld: this gateway's lease is over")]
    Withheld,
    /// No connection; nothing was sent.
    #[error("cannot connect to the upstream")]
    Unreachable(#[source] Cause),
    /// No answer in time.
    #[error("the upstream did not answer in time")]
    TimedOut(#[source] Cause),
    /// The connection was lost after the request was sent, or half-way through.
    #[error("the connection to the upstream was lost")]
    Lost {
        /// What the system says.
        #[source]
        cause: Cause,
        /// Whether it was a connection from before that broke without a word of an answer: then the upstream
        /// most likely closed it as idle.
        pooled: bool,
    },
    /// Answered, with a status that is no success.
    #[error("the upstream answered with HTTP status {status}")]
    Status {
        /// The status.
        status: u16,
        /// The pause that it asks for (`Retry-After` in seconds, RFC 9110, section 10.2.3).
        retry_after: Option<Duration>,
        /// The upstream's name for its answer.
        request_id: Option<String>,
    },
    /// Answered with a `RetCode` other than 0.
    #[error("the upstream refused with RetCode {ret_code}: {}", message.as_deref().unwrap_or("no message"))]
    Refused {
        /// The code.
        ret_code: RetCode,
        /// The upstream's words.
        message: Option<String>,
        /// The upstream's name for its answer.
        request_id: Option<String>,
    },
    /// Answered with what cannot be read as an answer to the call.
    #[error("the upstream's answer is not what it should be: {what}")]
    Garbled {
        /// What is odd.
        what: &'static str,
        /// The `RetCode`, where there was one.
        ret_code: Option<i64>,
        /// The upstream's name for its answer.
        request_id: Option<String>,
    },
}

/// How long a gateway waits whose lease is over, before it looks again.
const WITHHELD_PAUSE: Duration = Duration::from_millis(500);

/// What a failed call means for the change that it carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It certainly did not take effect.
    NotApplied,
    /// It may have.
    MayHaveApplied,
}

impl CallError {
    /// Without the upstream's name for its answer, where that repeats one of `secrets`.
    pub(super) fn without(mut self, secrets: &[&str]) -> Self {
        if let Self::Status { request_id, .. }
        | Self::Refused { request_id, .. }
        | Self::Garbled { request_id, .. } = &mut self
        {
            let repeats = |id: &mut String| secrets.iter().any(|secret| id.contains(secret));
            request_id.take_if(repeats);
        }
        self
    }

    /// Whether the change may stand although no answer says so.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            Self::Unreachable(_) | Self::Withheld => Fate::NotApplied,
            Self::Status { status, .. } if (400..500).contains(status) => Fate::NotApplied,
            Self::Refused { ret_code, .. } if !ret_code.leaves_effect_open() => Fate::NotApplied,
            Self::TimedOut(_)
            | Self::Lost { .. }
            | Self::Status { .. }
            | Self::Refused { .. }
            | Self::Garbled { .. } => Fate::MayHaveApplied,
        }
    }

    /// The upstream's name for its answer, where it gave one.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Unreachable(_) | Self::Withheld | Self::TimedOut(_) | Self::Lost { .. } => None,
            Self::Status { request_id, .. }
            | Self::Refused { request_id, .. }
            | Self::Garbled { request_id, .. } => request_id.as_deref(),
        }
    }

    /// The `RetCode`, where there was one.
    #[must_use]
    pub fn ret_code(&self) -> Option<i64> {
        match self {
            Self::Refused { ret_code, .. } => Some(ret_code.get()),
            Self::Garbled { ret_code, .. } => *ret_code,
            Self::Unreachable(_)
            | Self::Withheld
            | Self::TimedOut(_)
            | Self::Lost { .. }
            | Self::Status { .. } => None,
        }
    }

    /// Whether a call with fewer accounts may fare better: the refusal may be about one of them.
    #[must_use]
    pub fn may_depend_on_an_account(&self) -> bool {
        match self {
            Self::Refused {
                ret_code, message, ..
            } => ret_code.may_depend_on_an_account(message.as_deref()),
            Self::Unreachable(_)
            | Self::Withheld
            | Self::TimedOut(_)
            | Self::Lost { .. }
            | Self::Status { .. }
            | Self::Garbled { .. } => false,
        }
    }

    pub(super) fn is_operators_fault(&self) -> bool {
        matches!(self, Self::Refused { ret_code, .. } if ret_code.meaning() == Meaning::OperatorsFault)
    }

    /// The word of the metric.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Withheld => "withheld",
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::Lost { pooled: true, .. } => "stale",
            Self::Lost { .. } => "lost",
            Self::Status { .. } => "status",
            Self::Refused { .. } => "refused",
            Self::Garbled { .. } => "garbled",
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
            Self::Withheld => after(WITHHELD_PAUSE),
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
            Self::Refused { ret_code, .. } if ret_code.meaning() == Meaning::Throttled => {
                Some(None)
            }
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
            Self::Withheld | Self::Refused { .. } | Self::Garbled { .. } => false,
        }
    }
}

/// An error and its cause in one line, for the log.
pub(super) fn causes(error: &CallError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
