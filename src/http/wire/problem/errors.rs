//! What each room's error means to the caller: one `From` an error, and no arm that takes whatever comes.

use crate::audit::StoreError;
use crate::authorization::Refusal;
use crate::domain::EventId;
use crate::problem::{Effect, ProblemKind};
use crate::sharing::{
    BulkError, ChangeError, DifferenceError, ListError, RehearsalError, Told, UpstreamWords,
};

use super::details::Problem;
use super::sent::UpstreamBody;

impl Problem {
    fn told(told: Told, upstream: Option<UpstreamWords>) -> Self {
        let mut problem = Self::new(told.kind, told.detail);
        if let Some(wait) = told.retry_after {
            problem.retry_after(wait);
        }
        Self {
            upstream: upstream.map(UpstreamBody::from),
            retryable: Some(told.retryable),
            ..problem
        }
    }

    fn too_many_removals(removals: usize, max_removals: usize) -> Self {
        let detail = format!(
            "{removals} accounts would lose access, and max_removals is {max_removals}; nothing was changed"
        );
        Self::new(ProblemKind::TooManyRemovals, detail)
    }

    fn of_event(mut self, event_id: EventId) -> Self {
        self.event_id = Some(event_id);
        self
    }
}

impl From<UpstreamWords> for UpstreamBody {
    fn from(words: UpstreamWords) -> Self {
        Self {
            ret_code: words.ret_code,
            message: words.message,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::refused(refusal)
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Denied { refusal, event_id } => Self::refused(refusal)
                .of_event(event_id)
                .with_effect(Effect::None),
            ChangeError::Overloaded => Self::new(
                ProblemKind::Overloaded,
                "too many changes are waiting; nothing was forwarded",
            ),
            ChangeError::AuditUnavailable => Self::new(
                ProblemKind::AuditUnavailable,
                "the audit trail cannot be written; nothing was forwarded",
            ),
            ChangeError::Failed(failure) => Self::told(failure.told, failure.upstream)
                .of_event(failure.event_id)
                .with_effect(failure.effect),
            ChangeError::OutcomeNotRecorded { event_id, effect } => {
                let detail =
                    "the change was forwarded, but its outcome is not in the audit trail yet";
                Self::new(ProblemKind::OutcomeUnrecorded, detail)
                    .of_event(event_id)
                    .with_effect(effect)
            }
            ChangeError::StillInFlight { event_id } => {
                let detail = "the time was up while the change was in flight; its event will say how it ended";
                Self::new(ProblemKind::UpstreamTimeout, detail)
                    .of_event(event_id)
                    .with_effect(Effect::Unknown)
            }
            ChangeError::Lost => Self::new(ProblemKind::InternalError, "the gateway failed")
                .with_effect(Effect::Unknown),
        }
    }
}

impl From<ListError> for Problem {
    fn from(error: ListError) -> Self {
        if let ListError::Trail(error) = error {
            return error.into();
        }
        Self::told(error.told(), error.upstream_words())
    }
}

impl From<DifferenceError> for Problem {
    fn from(error: DifferenceError) -> Self {
        match error {
            DifferenceError::List(error) => error.into(),
            DifferenceError::TooManyRemovals {
                removals,
                max_removals,
            } => Self::too_many_removals(removals, max_removals),
        }
    }
}

/// What has results of its own is answered by the handler, which knows how they are shown.
impl From<BulkError> for Problem {
    fn from(error: BulkError) -> Self {
        match error {
            BulkError::Change(error) => error.into(),
            BulkError::Difference(error) => error.into(),
            BulkError::AllDenied(_) => Self::all_denied(Vec::new(), Vec::new()),
        }
    }
}

impl From<RehearsalError> for Problem {
    fn from(error: RehearsalError) -> Self {
        match error {
            RehearsalError::Denied(refusal) => refusal.into(),
            RehearsalError::Difference(error) => error.into(),
            RehearsalError::AllDenied(_) => Self::all_denied(Vec::new(), Vec::new()),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let callers = match error {
            StoreError::TooSlow => Some(
                "the query takes too long and was stopped; ask for less, by a time range or another filter",
            ),
            StoreError::Busy => Some("too many queries of the audit trail are waiting"),
            _ => None,
        };
        if let Some(detail) = callers {
            return Self::new(ProblemKind::AuditUnavailable, detail);
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(error.message = %error, error.cause = cause, "the audit trail could not be read");
        Self::new(
            ProblemKind::AuditUnavailable,
            "the audit trail cannot be read",
        )
    }
}
