//! What problems look like, for the document.

use crate::audit::InvalidBucket;
use crate::authorization::Refusal;
use crate::domain::{EventId, InvalidAccountId, InvalidImageId, Scope};
use crate::problem::{Effect, ProblemKind};

use super::details::Problem;
use super::sent::UpstreamBody;
use crate::http::wire::route::{Permission, Route, path};

const REQUEST_ID: &str = "4f0c2e9a-6c1b-4a55-9b0e-0c6f3a1d2b77";

/// What a problem of `kind` looks like on a route of `path`.
pub(in crate::http) fn example(kind: ProblemKind, path: &str, route: &Route) -> serde_json::Value {
    let changes = route.permission.changes();
    let mut problem = shown(kind, path, route);
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
        problem.event_id = Some(event_id());
    }
    let body = problem.body(REQUEST_ID, changes);
    serde_json::to_value(body).unwrap_or_default()
}

fn event_id() -> EventId {
    let bits = 0x019a_b3c4_d5e6_7f00_8123_4567_89ab_cdef;
    EventId::new(uuid::Uuid::from_u128(bits))
}

/// What is wrong with a request that many send.
fn invalid(path: &str, permission: Permission) -> Problem {
    match permission {
        Permission::Anybody | Permission::KnowItself => {
            Problem::invalid_value("query", "verbose", "is not known here")
        }
        Permission::ReadAudit => match path {
            path::EVENTS => {
                Problem::invalid_value("query", "limit", "must be an integer from 1 to 1000")
            }
            path::ENTRIES => {
                Problem::invalid_value("query", "tail", "must be an integer from 0 to 1000")
            }
            path::SUMMARY => Problem::invalid_value("query", "bucket", InvalidBucket.to_string()),
            _ => Problem::invalid_value("query", "verbose", "is not known here"),
        },
        Permission::ListImages => {
            Problem::invalid_value("query", "limit", "must be an integer from 1 to 100")
        }
        Permission::ListShares => {
            Problem::invalid_value("path", "image_id", InvalidImageId.to_string())
        }
        Permission::Change(_) => {
            Problem::invalid_value("path", "account_id", InvalidAccountId.to_string())
        }
        Permission::ChangeMany => {
            Problem::invalid_value("body", "add[1]", "account 12345 is named twice")
        }
        Permission::ReplaceList => Problem::invalid_value("body", "accounts", "is required"),
    }
}

fn shown(kind: ProblemKind, path: &str, route: &Route) -> Problem {
    let permission = route.permission;
    let scope = permission.scopes().last().copied();
    let reads = !permission.changes();
    let plain = |detail: &str| Problem::new(kind, detail);
    let refused_upstream = |ret_code, message: &str| UpstreamBody {
        ret_code,
        message: Some(message.into()),
    };
    match kind {
        ProblemKind::InvalidRequest => invalid(path, permission),
        ProblemKind::Unauthenticated => plain("the token has ended"),
        ProblemKind::InsufficientScope => {
            let scope = scope.unwrap_or(Scope::SharesRead);
            Problem::refused(Refusal::InsufficientScope(scope))
        }
        ProblemKind::Forbidden => Problem::refused(Refusal::Forbidden {
            policy_ids: vec![
                match permission {
                    Permission::ReadAudit => "trail-from-the-office",
                    _ => "no-production-images",
                }
                .into(),
            ],
        }),
        ProblemKind::NotFound => plain(match permission {
            Permission::Anybody => "there is no such kind of problem",
            Permission::ReadAudit => "the trail has no event of this id",
            _ => "there is no such image",
        }),
        ProblemKind::MethodNotAllowed => plain("allowed here: GET, HEAD"),
        ProblemKind::NotAcceptable => plain(&format!(
            "this path answers in {}",
            route.formats.join(" or ")
        )),
        ProblemKind::RequestTimeout => plain("the body did not come in time"),
        ProblemKind::TooManyRemovals => {
            plain("3 accounts would lose access, and max_removals is 0; nothing was changed")
        }
        ProblemKind::PayloadTooLarge => plain("the body is longer than 65536 bytes"),
        ProblemKind::UnsupportedMediaType => plain("the body must be application/json"),
        ProblemKind::InvalidAccount => plain("the upstream does not know the account"),
        ProblemKind::RateLimited => plain("the subject asks for more than its limit"),
        ProblemKind::HeadersTooLarge => {
            plain("request line and headers take 40000 bytes; 32768 are allowed")
        }
        ProblemKind::InternalError => plain("the gateway failed"),
        ProblemKind::UpstreamError => Problem {
            upstream: Some(refused_upstream(299, "no permission")),
            retryable: Some(false),
            ..plain("the upstream refused")
        },
        ProblemKind::UpstreamUnavailable => plain("the upstream cannot be reached"),
        ProblemKind::AuditUnavailable => plain("the audit trail cannot be read"),
        ProblemKind::Overloaded if permission == Permission::ReadAudit => {
            plain("too many streams are open")
        }
        ProblemKind::Overloaded if reads => plain("too many reads are waiting"),
        ProblemKind::Overloaded => plain("too many changes are waiting; nothing was forwarded"),
        ProblemKind::KeysUnavailable => {
            plain("the issuer's keys are not there yet; the token may be good")
        }
        ProblemKind::OutcomeUnrecorded => {
            plain("the change was forwarded, but its outcome is not in the audit trail yet")
                .with_effect(Effect::Unknown)
        }
        ProblemKind::UpstreamTimeout => {
            plain("the upstream did not answer in time").with_effect(Effect::Unknown)
        }
        ProblemKind::HttpVersionNotSupported => plain("a stream needs HTTP/1.1"),
    }
}
