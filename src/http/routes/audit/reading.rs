//! How routes read the trail: on the main runtime, and what is done about a stream that cannot go on.

use crate::audit::StoreError;
use crate::http::wire::Problem;
use crate::problem::ProblemKind;
use crate::tasks::Tasks;

/// The pool's connections belong to the main runtime.
pub(super) async fn on_main_runtime<T, E>(
    tasks: &Tasks,
    read: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<Result<T, E>, Problem>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let lost = || Problem::new(ProblemKind::InternalError, "the gateway failed");
    tasks.run(read).await.ok_or_else(lost)
}

/// A stream that cannot go on: there is nobody to tell but the log and, by a broken body, its reader.
pub(super) fn log_broken_stream(error: &StoreError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    if matches!(error, StoreError::TooSlow | StoreError::Busy) {
        tracing::warn!(error.message = %error, "a stream of the audit trail was broken off");
    } else {
        tracing::error!(error.message = %error, error.cause = cause, "a stream of the audit trail was broken off");
    }
}
