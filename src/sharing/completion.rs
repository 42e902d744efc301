//! What the upstream did → what the trail says and what the caller is told: the one fault table.
//!
//! `failed` means that the change certainly did not take effect; everything that leaves it open is
//! `unknown`.

use std::time::Duration;

use crate::audit::{Completion, EARLIER_CALL_OPEN, Elapsed, HttpStatus, Recalled};
use crate::domain::{EventId, Outcome};
use crate::problem::{Effect, ProblemKind};
use crate::upstream::{CallError, Fate, Meaning, RetCode, Verdict};

use super::lanes::{Ended, Last};
use super::{ChangeError, Failure, ListError, Receipt, UpstreamWords};

/// What is written down and told.
#[derive(Debug)]
pub(super) struct Settled {
    outcome: Outcome,
    problem: Option<Told>,
    ret_code: Option<i64>,
    request_id: Option<String>,
    message: Option<String>,
    calls: u32,
    /// Whether a call before the last may still take effect although the last succeeded.
    earlier_call_open: bool,
    /// Whether the list showed afterwards what was asked, where it was looked at.
    seen: Option<bool>,
}

/// What a caller is told of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The kind of problem.
    pub kind: ProblemKind,
    /// Whether sending the same again makes sense.
    pub retryable: bool,
    /// What happened, in words.
    pub detail: &'static str,
    /// When another try may be worth it, where the upstream or the circuit breaker says so.
    pub retry_after: Option<Duration>,
}

impl Told {
    pub(super) fn new(kind: ProblemKind, retryable: bool, detail: &'static str) -> Self {
        Self {
            kind,
            retryable,
            detail,
            retry_after: None,
        }
    }

    /// What callers are told while the circuit breaker is open.
    pub(super) fn breaker_open(wait: Duration) -> Self {
        let detail = "the upstream has failed again and again; it is left alone for a moment";
        Self {
            retry_after: Some(wait),
            ..Self::new(ProblemKind::UpstreamUnavailable, true, detail)
        }
    }
}

/// What a failed call is to its caller, on changes and reads alike.
pub(super) fn told_of(error: &CallError) -> Told {
    use ProblemKind::{UpstreamError, UpstreamTimeout, UpstreamUnavailable};
    let (kind, detail) = match error {
        CallError::Withheld => (ProblemKind::AuditUnavailable, WITHHELD),
        CallError::Unreachable(_) => (UpstreamUnavailable, "the upstream cannot be reached"),
        CallError::TimedOut(_) | CallError::Status { status: 504, .. } => {
            (UpstreamTimeout, "the upstream did not answer in time")
        }
        CallError::Lost { .. } => (UpstreamError, "the connection to the upstream was lost"),
        CallError::Status { status: 429, .. } => (UpstreamUnavailable, ASKS_FOR_A_PAUSE),
        CallError::Status { .. } => (UpstreamError, "the upstream answered with an HTTP error"),
        CallError::Refused {
            ret_code, message, ..
        } => told_of_refusal(*ret_code, message.as_deref()),
        CallError::Garbled { .. } => (
            UpstreamError,
            "the upstream's answer is not what it should be",
        ),
    };
    let retryable = match (kind, error) {
        (UpstreamUnavailable | UpstreamTimeout | ProblemKind::AuditUnavailable, _) => true,
        (UpstreamError, CallError::Refused { ret_code, .. }) => ret_code.is_retryable(),
        _ => false,
    };
    let retry_after = match error {
        CallError::Status {
            status: 429,
            retry_after,
            ..
        } => retry_after.map(|pause| pause.min(RETRY_AFTER_TOLD_MAX)),
        _ => None,
    };
    Told {
        retry_after,
        ..Told::new(kind, retryable, detail)
    }
}

/// The longest pause of the upstream's that is handed on: whoever comes back too early hears it again.
const RETRY_AFTER_TOLD_MAX: Duration = Duration::from_mins(1);

impl ListError {
    /// What a caller is told.
    #[must_use]
    pub fn told(&self) -> Told {
        let (kind, detail) = match self {
            Self::Overloaded => (
                ProblemKind::Overloaded,
                "too many calls to the upstream are waiting",
            ),
            Self::TimeUp => (
                ProblemKind::UpstreamTimeout,
                "the upstream did not answer in time",
            ),
            Self::Trail(_) => (
                ProblemKind::AuditUnavailable,
                "the audit trail cannot be read",
            ),
            Self::Lost => (ProblemKind::InternalError, "the gateway failed"),
            Self::BreakerOpen(wait) => return Told::breaker_open(*wait),
            Self::Upstream(error) => return told_of(error),
        };
        Told::new(kind, true, detail)
    }

    /// What the upstream said, where it said something.
    #[must_use]
    pub fn upstream_words(&self) -> Option<UpstreamWords> {
        match self {
            Self::Upstream(CallError::Refused {
                ret_code, message, ..
            }) => Some(UpstreamWords {
                ret_code: ret_code.get(),
                message: message.clone(),
            }),
            Self::Upstream(_)
            | Self::Overloaded
            | Self::BreakerOpen(_)
            | Self::TimeUp
            | Self::Trail(_)
            | Self::Lost => None,
        }
    }
}

const WITHHELD: &str =
    "the gateway lost its hold on the image before the change was sent; nothing was sent";
const ASKS_FOR_A_PAUSE: &str = "the upstream asks for a pause";

fn told_of_refusal(ret_code: RetCode, message: Option<&str>) -> (ProblemKind, &'static str) {
    if ret_code.knows_no_such_image(message) {
        let detail = "the upstream does not know the image, or it is not one that can be shared";
        return (ProblemKind::NotFound, detail);
    }
    match ret_code.meaning() {
        Meaning::TimedOut => (
            ProblemKind::UpstreamTimeout,
            "the upstream did not finish in time",
        ),
        Meaning::Unavailable => (
            ProblemKind::UpstreamUnavailable,
            "the upstream is unavailable for now",
        ),
        Meaning::Throttled => (ProblemKind::UpstreamUnavailable, ASKS_FOR_A_PAUSE),
        Meaning::OperatorsFault => (
            ProblemKind::UpstreamError,
            "the upstream refuses this gateway; its operator has to look at it",
        ),
        Meaning::GatewayDown
        | Meaning::NotAcceptable
        | Meaning::TooLarge
        | Meaning::Abnormal
        | Meaning::Detaching
        | Meaning::AboutInstances
        | Meaning::Unknown => (ProblemKind::UpstreamError, "the upstream refused"),
    }
}

/// Settles a change. Its calls count together: once one may have taken effect the change is `unknown`, unless a
/// later one succeeded; the status follows the last.
pub(super) fn settle(ended: &Ended) -> Settled {
    let certainly_not = |outcome| {
        if ended.may_have_applied {
            Outcome::Unknown
        } else {
            outcome
        }
    };
    let settled = |outcome, problem| Settled {
        outcome,
        problem,
        ret_code: None,
        request_id: None,
        message: None,
        calls: ended.calls,
        earlier_call_open: false,
        seen: ended.seen,
    };
    match &ended.last {
        Last::Answered(modified) => {
            let (outcome, problem) = match modified.verdict {
                Verdict::Done => (Outcome::Succeeded, None),
                Verdict::InvalidAccounts(_) => {
                    let detail = "the upstream does not know the account; it did nothing";
                    let told = Told::new(ProblemKind::InvalidAccount, false, detail);
                    (certainly_not(Outcome::InvalidAccount), Some(told))
                }
            };
            Settled {
                earlier_call_open: ended.may_land,
                ret_code: Some(modified.ret_code),
                request_id: modified.request_id.clone(),
                ..settled(outcome, problem)
            }
        }
        Last::Failed(error) => {
            let outcome = match error.fate() {
                Fate::NotApplied => certainly_not(Outcome::Failed),
                Fate::MayHaveApplied => Outcome::Unknown,
            };
            let message = match error {
                CallError::Refused { message, .. } => message.clone(),
                _ => None,
            };
            Settled {
                ret_code: error.ret_code(),
                request_id: error.request_id().map(str::to_owned),
                message,
                ..settled(outcome, Some(told_of(error)))
            }
        }
        Last::TimeUp => {
            let detail = if ended.calls == 0 {
                "the time was up while the change waited; it was never sent"
            } else {
                "the time was up before the change could be sent again"
            };
            let told = Told::new(ProblemKind::Overloaded, true, detail);
            settled(certainly_not(Outcome::Failed), Some(told))
        }
        Last::CutOff => settled(
            certainly_not(Outcome::Failed),
            Some(Told::new(ProblemKind::AuditUnavailable, true, WITHHELD)),
        ),
        Last::BreakerOpen(wait) => settled(
            certainly_not(Outcome::Failed),
            Some(Told::breaker_open(*wait)),
        ),
        Last::Abandoned => {
            let detail = "the gateway stopped while the change was in flight";
            let told = Told::new(ProblemKind::UpstreamTimeout, true, detail);
            settled(Outcome::Unknown, Some(told))
        }
        Last::Lost => {
            let detail = "the gateway failed while the change was in flight";
            let told = Told::new(ProblemKind::InternalError, true, detail);
            settled(Outcome::Unknown, Some(told))
        }
    }
}

impl Settled {
    /// What the caller will be told, if it is still there; `success` where the change succeeded.
    pub(super) fn http_status(&self, success: u16) -> u16 {
        self.problem.map_or(success, |told| told.kind.status())
    }

    /// Whether the change took effect.
    pub(super) fn effect(&self) -> Effect {
        match self.outcome {
            Outcome::Succeeded => Effect::Done,
            Outcome::InvalidAccount | Outcome::Denied | Outcome::Failed => Effect::None,
            // What the list shows can prove that it did, never that it will not.
            Outcome::Unknown if self.seen == Some(true) => Effect::Done,
            Outcome::Unknown | Outcome::Pending => Effect::Unknown,
        }
    }

    /// The row for the trail.
    pub(super) fn completion(
        &self,
        recalled: Recalled,
        http_status: Option<HttpStatus>,
        elapsed: Elapsed,
    ) -> Completion {
        let said = self.message.as_ref();
        let said = said.map(|message| format!("; it said: {message}"));
        let seen = self.seen.map(|seen| {
            if seen {
                "; a look afterwards showed what was asked"
            } else {
                "; a look afterwards did not show what was asked"
            }
        });
        let detail = self.problem.map(|told| {
            let (said, seen) = (said.unwrap_or_default(), seen.unwrap_or_default());
            format!("{}{said}{seen}", told.detail)
        });
        let detail = match detail {
            None if self.earlier_call_open => Some(EARLIER_CALL_OPEN.to_owned()),
            detail => detail,
        };
        Completion {
            recalled,
            outcome: self.outcome,
            http_status,
            upstream_ret_code: self.ret_code,
            upstream_request_id: self.request_id.clone(),
            upstream_calls: Some(self.calls),
            elapsed,
            detail,
        }
    }

    /// The answer for the caller.
    pub(super) fn answer(&self, event_id: EventId) -> Result<Receipt, ChangeError> {
        let Some(told) = self.problem else {
            return Ok(Receipt { event_id });
        };
        let refused = self.ret_code.filter(|code| *code != 0);
        Err(ChangeError::Failed(Failure {
            event_id,
            outcome: self.outcome,
            told,
            effect: self.effect(),
            upstream: refused.map(|ret_code| UpstreamWords {
                ret_code,
                message: self.message.clone(),
            }),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Cause, Modified};

    fn after(last: Last) -> Ended {
        let may_have_applied = match &last {
            Last::Failed(error) => error.fate() == Fate::MayHaveApplied,
            last => matches!(last, Last::Abandoned | Last::Lost),
        };
        Ended {
            last,
            calls: 1,
            may_have_applied,
            may_land: may_have_applied,
            seen: None,
        }
    }

    fn refused(code: i64, message: &str) -> Ended {
        after(Last::Failed(CallError::Refused {
            ret_code: RetCode::new(code),
            message: Some(message.to_owned()),
            request_id: None,
        }))
    }

    fn status(status: u16) -> Ended {
        after(Last::Failed(CallError::Status {
            status,
            retry_after: None,
            request_id: None,
        }))
    }

    fn answered(verdict: Verdict) -> Ended {
        after(Last::Answered(Modified {
            verdict,
            ret_code: 0,
            request_id: None,
        }))
    }

    #[test]
    fn every_ending_has_the_outcome_status_and_effect_of_the_contract() {
        let garbled = CallError::Garbled {
            what: "it is not JSON",
            ret_code: None,
            request_id: None,
        };
        let cause = Cause::new("reset");
        let lost = CallError::Lost {
            cause: cause.clone(),
            pooled: false,
        };
        let breaker = Last::BreakerOpen(Duration::from_secs(2));
        #[rustfmt::skip]
        let table = [
            ("done", answered(Verdict::Done), "succeeded", 200, "done", false),
            ("invalid", answered(Verdict::InvalidAccounts(Vec::new())), "invalid_account", 422, "none", false),
            ("110", refused(110, "timeout"), "unknown", 504, "unknown", true),
            ("130", refused(130, "gateway"), "unknown", 502, "unknown", true),
            ("150", refused(150, "unavailable"), "failed", 503, "none", true),
            ("153", refused(153, "throttled"), "failed", 503, "none", true),
            ("171", refused(171, "Signature VerifyAC Error"), "failed", 502, "none", false),
            ("230 image", refused(230, "Params [CompShareImageId] not available"), "failed", 404, "none", false),
            ("230 region", refused(230, "Params [Region] not available"), "failed", 502, "none", false),
            ("240", refused(240, "Params [X] too large"), "failed", 502, "none", false),
            ("8433", refused(8433, "abnormal"), "failed", 502, "none", true),
            ("8434", refused(8434, "detaching"), "failed", 502, "none", true),
            ("226606", refused(226_606, "not verified"), "failed", 502, "none", false),
            ("HTTP 400", status(400), "failed", 502, "none", false),
            ("HTTP 429", status(429), "failed", 503, "none", true),
            ("HTTP 302", status(302), "unknown", 502, "unknown", false),
            ("HTTP 500", status(500), "unknown", 502, "unknown", false),
            ("HTTP 503", status(503), "unknown", 502, "unknown", false),
            ("HTTP 504", status(504), "unknown", 504, "unknown", true),
            ("unreachable", after(Last::Failed(CallError::Unreachable(cause.clone()))), "failed", 503, "none", true),
            ("timed out", after(Last::Failed(CallError::TimedOut(cause))), "unknown", 504, "unknown", true),
            ("lost connection", after(Last::Failed(lost)), "unknown", 502, "unknown", false),
            ("garbled", after(Last::Failed(garbled)), "unknown", 502, "unknown", false),
            ("never sent", after(Last::TimeUp), "failed", 503, "none", true),
            ("breaker open", after(breaker), "failed", 503, "none", true),
            ("abandoned", after(Last::Abandoned), "unknown", 504, "unknown", true),
            ("lost", after(Last::Lost), "unknown", 500, "unknown", true),
        ];
        let event_id = EventId::new(uuid::Uuid::nil());
        for (name, ended, outcome, status, effect, retryable) in table {
            let settled = settle(&ended);
            assert_eq!(settled.outcome.as_str(), outcome, "{name}");
            assert_eq!(settled.http_status(200), status, "{name}");
            assert_eq!(settled.effect().as_str(), effect, "{name}");
            if let Err(ChangeError::Failed(failure)) = settled.answer(event_id) {
                assert_eq!(
                    (failure.told.kind.status(), failure.told.retryable),
                    (status, retryable),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn calls_count_together_and_the_status_follows_the_last() {
        let earlier = |ended: Ended| Ended {
            may_have_applied: true,
            calls: 2,
            ..ended
        };
        #[rustfmt::skip]
        let table = [
            ("refused after all", earlier(refused(150, "later")), "unknown", 503, "unknown"),
            ("unknown image after all", earlier(refused(230, "Params [CompShareImageId] not available")), "unknown", 404, "unknown"),
            ("invalid after all", earlier(answered(Verdict::InvalidAccounts(Vec::new()))), "unknown", 422, "unknown"),
            ("done after all", earlier(answered(Verdict::Done)), "succeeded", 200, "done"),
        ];
        for (name, ended, outcome, status, effect) in table {
            let settled = settle(&ended);
            assert_eq!(settled.outcome.as_str(), outcome, "{name}");
            assert_eq!(settled.http_status(200), status, "{name}");
            assert_eq!(settled.effect().as_str(), effect, "{name}");
        }
    }

    #[test]
    fn a_look_can_prove_that_a_change_took_effect_and_nothing_else() {
        for (seen, effect) in [
            (Some(true), "done"),
            (Some(false), "unknown"),
            (None, "unknown"),
        ] {
            let settled = settle(&Ended {
                seen,
                ..status(504)
            });
            assert_eq!(settled.outcome, Outcome::Unknown);
            assert_eq!(settled.http_status(200), 504);
            assert_eq!(settled.effect().as_str(), effect, "{seen:?}");
        }
    }
}
