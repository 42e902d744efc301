//! What the upstream did → what the trail says and what the caller is told: the one fault table.
//!
//! `failed` means that the change certainly did not take effect; everything that leaves it open is
//! `unknown`.

use crate::audit::{Completion, Elapsed, HttpStatus, Recalled};
use crate::domain::{EventId, Operation, Outcome};
use crate::problem::{Effect, ProblemKind};
use crate::upstream::{CallError, Fate, Modified, RetCode, Verdict};

use super::{ChangeError, Failure, Receipt, UpstreamWords};

/// How a change's way through its lane ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// A call carried it, and this came of it.
    Called(Result<Modified, CallError>),
    /// Its time was up before a call carried it.
    NeverSent,
    /// A call carries it still, and the program ends.
    Abandoned,
    /// A call may have carried it; the task that knows is gone.
    Lost,
}

/// What is written down and told.
#[derive(Debug)]
pub(super) struct Settled {
    operation: Operation,
    outcome: Outcome,
    problem: Option<Told>,
    ret_code: Option<i64>,
    request_id: Option<String>,
    message: Option<String>,
    calls: u32,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    kind: ProblemKind,
    retryable: bool,
    detail: &'static str,
}

/// What a failed call is to its caller, on changes and reads alike.
pub(super) fn told_of(error: &CallError) -> (ProblemKind, bool, &'static str) {
    use ProblemKind::{UpstreamError, UpstreamTimeout, UpstreamUnavailable};
    let (kind, detail) = match error {
        CallError::Unreachable(_) => (UpstreamUnavailable, "the upstream cannot be reached"),
        CallError::TimedOut(_) | CallError::Status { status: 504, .. } => {
            (UpstreamTimeout, "the upstream did not answer in time")
        }
        CallError::Lost(_) => (UpstreamError, "the connection to the upstream was lost"),
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
        (UpstreamUnavailable | UpstreamTimeout, _) => true,
        (UpstreamError, CallError::Refused { ret_code, .. }) => ret_code.is_retryable(),
        _ => false,
    };
    (kind, retryable, detail)
}

const ASKS_FOR_A_PAUSE: &str = "the upstream asks for a pause";

fn told_of_refusal(ret_code: RetCode, message: Option<&str>) -> (ProblemKind, &'static str) {
    match ret_code {
        RetCode::TIMED_OUT => (
            ProblemKind::UpstreamTimeout,
            "the upstream did not finish in time",
        ),
        RetCode::UNAVAILABLE => (
            ProblemKind::UpstreamUnavailable,
            "the upstream is unavailable for now",
        ),
        RetCode::THROTTLED => (ProblemKind::UpstreamUnavailable, ASKS_FOR_A_PAUSE),
        RetCode::NOT_ACCEPTABLE
            if message.is_some_and(|text| text.contains("CompShareImageId")) =>
        {
            (
                ProblemKind::NotFound,
                "the upstream does not know the image, or it is not one that can be shared",
            )
        }
        code if code.is_operators_fault() => (
            ProblemKind::UpstreamError,
            "the upstream refuses this gateway; its operator has to look at it",
        ),
        _ => (ProblemKind::UpstreamError, "the upstream refused"),
    }
}

/// Settles a change of `operation`.
pub(super) fn settle(operation: Operation, ending: Ending) -> Settled {
    let blank = Settled {
        operation,
        outcome: Outcome::Succeeded,
        problem: None,
        ret_code: None,
        request_id: None,
        message: None,
        calls: 1,
    };
    let failed = |outcome, kind, retryable, detail| {
        (
            outcome,
            Some(Told {
                kind,
                retryable,
                detail,
            }),
        )
    };
    match ending {
        Ending::Called(Ok(Modified {
            verdict,
            ret_code,
            request_id,
        })) => {
            let (outcome, problem) = match verdict {
                Verdict::Done => (Outcome::Succeeded, None),
                Verdict::InvalidAccounts(_) => {
                    let detail = "the upstream does not know the account; it did nothing";
                    failed(
                        Outcome::InvalidAccount,
                        ProblemKind::InvalidAccount,
                        false,
                        detail,
                    )
                }
            };
            Settled {
                outcome,
                problem,
                ret_code: Some(ret_code),
                request_id,
                ..blank
            }
        }
        Ending::Called(Err(error)) => {
            let (kind, retryable, detail) = told_of(&error);
            let outcome = match error.fate() {
                Fate::NotApplied => Outcome::Failed,
                Fate::MayHaveApplied => Outcome::Unknown,
            };
            let (outcome, problem) = failed(outcome, kind, retryable, detail);
            let (ret_code, request_id) = (error.ret_code(), error.request_id().map(str::to_owned));
            let message = match error {
                CallError::Refused { message, .. } => message,
                _ => None,
            };
            Settled {
                outcome,
                problem,
                ret_code,
                request_id,
                message,
                ..blank
            }
        }
        Ending::NeverSent => {
            let detail = "the time was up while the change waited; it was never sent";
            let (outcome, problem) = failed(Outcome::Failed, ProblemKind::Overloaded, true, detail);
            Settled {
                outcome,
                problem,
                calls: 0,
                ..blank
            }
        }
        Ending::Abandoned => {
            let detail = "the gateway stopped while the change was in flight";
            let (outcome, problem) =
                failed(Outcome::Unknown, ProblemKind::UpstreamTimeout, true, detail);
            Settled {
                outcome,
                problem,
                ..blank
            }
        }
        Ending::Lost => {
            let detail = "the gateway failed while the change was in flight";
            let (outcome, problem) =
                failed(Outcome::Unknown, ProblemKind::InternalError, true, detail);
            Settled {
                outcome,
                problem,
                ..blank
            }
        }
    }
}

impl Settled {
    /// What the caller will be told, if it is still there.
    pub(super) fn http_status(&self) -> u16 {
        match (self.problem, self.operation) {
            (Some(told), _) => told.kind.status(),
            (None, Operation::Share) => 200,
            (None, Operation::Unshare) => 204,
        }
    }

    /// Whether the change took effect.
    pub(super) fn effect(&self) -> Effect {
        match self.outcome {
            Outcome::Succeeded => Effect::Done,
            Outcome::InvalidAccount | Outcome::Denied | Outcome::Failed => Effect::None,
            Outcome::Unknown | Outcome::Pending => Effect::Unknown,
        }
    }

    /// The row for the trail.
    pub(super) fn completion(
        &self,
        recalled: Recalled,
        http_status: HttpStatus,
        elapsed: Elapsed,
    ) -> Completion {
        let said = self
            .message
            .as_ref()
            .map(|message| format!("; it said: {message}"))
            .unwrap_or_default();
        Completion {
            recalled,
            outcome: self.outcome,
            http_status: Some(http_status),
            upstream_ret_code: self.ret_code,
            upstream_request_id: self.request_id.clone(),
            upstream_calls: Some(self.calls),
            elapsed,
            detail: self.problem.map(|told| format!("{}{said}", told.detail)),
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
            kind: told.kind,
            effect: self.effect(),
            retryable: told.retryable,
            detail: told.detail,
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

    fn refused(code: i64, message: &str) -> Ending {
        Ending::Called(Err(CallError::Refused {
            ret_code: RetCode::new(code),
            message: Some(message.to_owned()),
            request_id: None,
        }))
    }

    fn status(status: u16) -> Ending {
        Ending::Called(Err(CallError::Status {
            status,
            request_id: None,
        }))
    }

    fn answered(verdict: Verdict) -> Ending {
        Ending::Called(Ok(Modified {
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
            ("garbled", Ending::Called(Err(garbled)), "unknown", 502, "unknown", false),
            ("never sent", Ending::NeverSent, "failed", 503, "none", true),
            ("abandoned", Ending::Abandoned, "unknown", 504, "unknown", true),
            ("lost", Ending::Lost, "unknown", 500, "unknown", true),
        ];
        let event_id = EventId::new(uuid::Uuid::nil());
        for (name, ending, outcome, status, effect, retryable) in table {
            let settled = settle(Operation::Share, ending);
            assert_eq!(settled.outcome.as_str(), outcome, "{name}");
            assert_eq!(settled.http_status(), status, "{name}");
            assert_eq!(settled.effect().as_str(), effect, "{name}");
            if let Err(ChangeError::Failed(failure)) = settled.answer(event_id) {
                assert_eq!(
                    (failure.kind.status(), failure.retryable),
                    (status, retryable),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_share_taken_back_is_answered_without_a_body() {
        assert_eq!(
            settle(Operation::Unshare, answered(Verdict::Done)).http_status(),
            204
        );
    }
}
