//! What problems look like, for the document.

use crate::authorization::Refusal;
use crate::domain::{EventId, Scope};
use crate::problem::{Effect, ProblemKind};

use super::details::Problem;
use super::sent::UpstreamBody;

/// What a problem of `kind` looks like, for the document.
pub(in crate::http) fn example(kind: ProblemKind, changes: bool) -> serde_json::Value {
    let mut problem = Problem::new(kind, "");
    let event = EventId::new(uuid::Uuid::from_u128(
        0x019a_b3c4_d5e6_7f00_8123_4567_89ab_cdef,
    ));
    problem = match kind {
        ProblemKind::InvalidRequest => {
            let detail = crate::domain::InvalidAccountId.to_string();
            Problem::invalid_value("path", "account_id", detail)
        }
        ProblemKind::InsufficientScope => {
            Problem::refused(Refusal::InsufficientScope(if changes {
                Scope::SharesWrite
            } else {
                Scope::SharesRead
            }))
        }
        ProblemKind::UpstreamError => {
            let upstream = UpstreamBody {
                ret_code: 299,
                message: Some("no permission".into()),
            };
            Problem {
                upstream: Some(upstream),
                retryable: Some(false),
                detail: "the upstream refused".into(),
                ..problem
            }
        }
        ProblemKind::UpstreamTimeout | ProblemKind::OutcomeUnrecorded => {
            problem.with_effect(Effect::Unknown)
        }
        _ => problem,
    };
    let recorded = matches!(
        kind,
        ProblemKind::InsufficientScope
            | ProblemKind::Forbidden
            | ProblemKind::InvalidAccount
            | ProblemKind::UpstreamError
            | ProblemKind::UpstreamUnavailable
            | ProblemKind::UpstreamTimeout
            | ProblemKind::OutcomeUnrecorded
    );
    if changes && recorded {
        problem.event_id = Some(event);
    }
    if problem.detail.is_empty() {
        kind.title().clone_into(&mut problem.detail);
    }
    let body = problem.body("4f0c2e9a-6c1b-4a55-9b0e-0c6f3a1d2b77", changes);
    serde_json::to_value(body).unwrap_or_default()
}
