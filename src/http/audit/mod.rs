//! The trail for those who may read it.
//!
//! Reads go from the authorizer straight to the trail's reader: a use case between would only pass on.

pub(super) mod entries;
pub(super) mod events;
pub(super) mod summary;

use utoipa::IntoParams;

use crate::audit::{Filter, StoreError};
use crate::authorization::{Authorizer, Request};
use crate::domain::{Outcome, Timestamp};
use crate::problem::ProblemKind;
use crate::tasks::Tasks;

use super::caller::Authenticated;
use super::parse::Parser;
use super::problem::Problem;
use super::rate_limit::Cost;

/// [`read_filter`]'s parameters, as the document tells them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only the document reads it")]
struct FilterParameters {
    /// Events at or after this time (RFC 3339), as 2026-01-31T00:00:00Z
    #[param(nullable = false, format = DateTime)]
    from: Option<String>,
    /// Events before this time (RFC 3339)
    #[param(nullable = false, format = DateTime)]
    to: Option<String>,
    /// Who asked, exactly
    #[param(nullable = false)]
    subject: Option<String>,
    /// The image
    #[param(nullable = false)]
    image_id: Option<String>,
    /// The account
    #[param(nullable = false, minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    account_id: Option<u64>,
    /// `share`, `unshare` or `update`
    #[param(nullable = false, pattern = "^(share|unshare|update)$")]
    operation: Option<String>,
    /// `pending`, `succeeded`, `invalid_account`, `denied`, `failed` or `unknown`
    #[param(
        nullable = false,
        pattern = "^(pending|succeeded|invalid_account|denied|failed|unknown)$"
    )]
    outcome: Option<String>,
    /// The request's id, exactly
    #[param(nullable = false)]
    request_id: Option<String>,
}

/// The names of [`read_filter`]'s parameters.
const FILTERS: [&str; 8] = [
    "from",
    "to",
    "subject",
    "image_id",
    "account_id",
    "operation",
    "outcome",
    "request_id",
];

/// Which events the query asks for.
fn read_filter(parser: &mut Parser<'_>) -> Filter {
    let text = |text: &str| Ok::<_, &str>(text.to_owned());
    Filter {
        from: parser.parameter("from", Timestamp::parse_rfc3339),
        to: parser.parameter("to", Timestamp::parse_rfc3339),
        subject: parser.parameter("subject", text),
        image_id: parser.parameter("image_id", str::parse),
        account_id: parser.parameter("account_id", str::parse),
        operation: parser.parameter("operation", str::parse),
        outcome: parser
            .parameter("outcome", str::parse::<Outcome>)
            .map(Into::into),
        request_id: parser.parameter("request_id", text),
    }
}

/// The pool's connections belong to the main runtime.
async fn on_main_runtime<T, E>(
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

/// Whether the caller may read the trail, by limit, scope and policy.
fn may_read(caller: &Authenticated, authorizer: &Authorizer) -> Result<(), Problem> {
    caller.admit(Cost::ONE)?;
    Ok(authorizer.check(caller.caller(), Request::ReadAudit)?)
}

/// A stream that cannot go on: there is nobody to tell but the log and, by a broken body, its reader.
fn log_broken_stream(error: &StoreError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    if matches!(error, StoreError::TooSlow | StoreError::Busy) {
        tracing::warn!(error = %error, "a stream of the audit trail was broken off");
    } else {
        tracing::error!(error = %error, cause, "a stream of the audit trail was broken off");
    }
}
