//! Problem details (RFC 9457): each room's error becomes a kind and words for the caller, here alone.
//!
//! A problem says nothing of how the gateway is made: no key, no stack trace, no library's message. The
//! request id, and for changes what the refusal means for them, are put in by [`super::observe`], so that
//! a problem that any layer makes carries them.

use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::StoreError;
use crate::auth::TokenError;
use crate::authorization::Refusal;
use crate::domain::{EventId, RequestId, Scope};
use crate::problem::{Effect, ProblemKind};
use crate::sharing::{
    BulkError, ChangeError, DifferenceError, ListError, RehearsalError, Told, UpstreamWords,
};

use super::bulk::ResultBody;

/// The media type of problem details.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// The response header that names the event of a change.
pub(super) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const REALM: &str = r#"Bearer realm="image-share-gateway""#;
/// Seconds after which a refused request may be worth another try.
const RETRY_AFTER: &str = "1";

/// One value of a request that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// `path`, `query`, `header` or `body`.
    #[serde(rename = "in")]
    pub(super) place: &'static str,
    /// The parameter, header or member.
    pub(super) name: String,
    /// What it should be.
    pub(super) detail: String,
}

/// What the upstream said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct UpstreamBody {
    /// The upstream's `RetCode`.
    ret_code: i64,
    /// The upstream's message.
    message: Option<String>,
}

/// Problem details as they are sent (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// `/problems/SLUG`; the slug tells problems apart.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: String,
    /// The same for every problem of this type.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    detail: String,
    /// Names the request in logs and the trail.
    request_id: String,
    /// Every value of the request that is not acceptable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// What the upstream said, where it refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    upstream: Option<UpstreamBody>,
    /// On changes: `none` (certainly did not take effect), `unknown` (it may have) or `done` (it did).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    effect: Option<&'static str>,
    /// On changes: whether sending the same again makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retryable: Option<bool>,
    /// The event in the trail, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uuid")]
    audit_id: Option<String>,
    /// The policies that decided, where any did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    policy_ids: Vec<String>,
    /// What came of each change of a bulk, where a policy refused all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, no_recursion)]
    results: Vec<ResultBody>,
}

impl ProblemBody {
    /// The policies that decided, where any did.
    pub(super) fn policy_ids(&self) -> &[String] {
        &self.policy_ids
    }
}

/// A request that ended otherwise than asked; the only error that handlers return.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    kind: ProblemKind,
    detail: String,
    errors: Vec<FieldError>,
    upstream: Option<UpstreamBody>,
    effect: Option<Effect>,
    retryable: Option<bool>,
    event_id: Option<EventId>,
    policy_ids: Vec<String>,
    results: Vec<ResultBody>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let mut problem = Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            upstream: None,
            effect: None,
            retryable: None,
            event_id: None,
            policy_ids: Vec::new(),
            results: Vec::new(),
            headers: Vec::new(),
        };
        match kind {
            ProblemKind::UpstreamUnavailable
            | ProblemKind::AuditUnavailable
            | ProblemKind::Overloaded
            | ProblemKind::RateLimited => {
                problem
                    .headers
                    .push((header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER)));
            }
            ProblemKind::Unauthenticated => {
                problem
                    .headers
                    .push((header::WWW_AUTHENTICATE, HeaderValue::from_static(REALM)));
            }
            _ => {}
        }
        problem
    }

    /// 400 with every fault that was found.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{} {} {}", one.place, one.name, one.detail),
            several => format!("{} values are not acceptable", several.len()),
        };
        Self {
            errors,
            ..Self::new(ProblemKind::InvalidRequest, detail)
        }
    }

    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let mut problem = Self::new(
            ProblemKind::MethodNotAllowed,
            format!("allowed here: {allow}"),
        );
        problem
            .headers
            .push((header::ALLOW, HeaderValue::from_static(allow)));
        problem
    }

    /// 401 for a token that is not accepted (RFC 6750, section 3.1).
    pub(super) fn bad_token(error: TokenError) -> Self {
        let mut problem = Self::new(ProblemKind::Unauthenticated, error.to_string());
        let challenge = format!(r#"{REALM}, error="invalid_token", error_description="{error}""#);
        problem.challenge(&challenge);
        problem
    }

    /// 403 for a token without a scope (RFC 6750, section 3.1), or by policy.
    fn refused(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InsufficientScope(scope) => {
                let scope = scope.as_str();
                let detail = format!("the token lacks the scope {scope}");
                let mut problem = Self::new(ProblemKind::InsufficientScope, detail);
                problem.challenge(&format!(
                    r#"{REALM}, error="insufficient_scope", scope="{scope}""#
                ));
                problem
            }
            Refusal::Forbidden { policy_ids } => Self {
                policy_ids,
                ..Self::new(ProblemKind::Forbidden, "a policy forbids this")
            },
        }
    }

    fn challenge(&mut self, challenge: &str) {
        // The texts are the program's own and ASCII; a plain challenge stays where one were not.
        if let Ok(value) = HeaderValue::from_str(challenge) {
            self.headers
                .retain(|(name, _)| name != header::WWW_AUTHENTICATE);
            self.headers.push((header::WWW_AUTHENTICATE, value));
        }
    }

    fn of_event(mut self, event_id: EventId) -> Self {
        self.event_id = Some(event_id);
        self
    }

    fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = Some(effect);
        self
    }

    /// The slug, for the log.
    pub(super) fn slug(&self) -> &'static str {
        self.kind.slug()
    }

    /// The event that the problem belongs to, for the log.
    pub(super) fn event_id(&self) -> Option<EventId> {
        self.event_id
    }

    /// The answer. `changes` says whether the request asked for a change: then what is not said was refused
    /// before anything was done.
    pub(super) fn render(&self, request_id: &RequestId, changes: bool) -> HttpResponse {
        let body = self.body(request_id.as_str(), changes);
        let mut response = HttpResponseBuilder::new(self.status_code());
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        if let Some(event_id) = self.event_id {
            response.insert_header((AUDIT_ID, event_id.to_string()));
        }
        response
            .content_type(MEDIA_TYPE)
            .body(serde_json::to_string(&body).unwrap_or_default())
    }

    /// The problem as it is sent.
    pub(super) fn body(&self, request_id: &str, changes: bool) -> ProblemBody {
        let effect = self.effect.unwrap_or(Effect::None);
        let by_status = matches!(self.kind.status(), 408 | 429 | 500 | 503 | 504);
        let retryable = self.retryable.unwrap_or(by_status) && effect != Effect::Done;
        ProblemBody {
            kind: format!("/problems/{}", self.kind.slug()),
            title: self.kind.title(),
            status: self.kind.status(),
            detail: self.detail.clone(),
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
            upstream: self.upstream.clone(),
            effect: changes.then(|| effect.as_str()),
            retryable: changes.then_some(retryable),
            audit_id: self.event_id.map(|id| id.to_string()),
            policy_ids: self.policy_ids.clone(),
            results: self.results.clone(),
        }
    }

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

    /// Names another time to wait than the usual.
    pub(super) fn retry_after(&mut self, wait: Duration) {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.headers.retain(|(name, _)| name != header::RETRY_AFTER);
        self.headers
            .push((header::RETRY_AFTER, HeaderValue::from(seconds.max(1))));
    }

    /// 403 where a policy refused every change of a bulk.
    pub(super) fn all_denied(results: Vec<ResultBody>, policy_ids: Vec<String>) -> Self {
        Self {
            policy_ids,
            results,
            ..Self::new(
                ProblemKind::Forbidden,
                "a policy forbids every change of this request",
            )
        }
    }

    fn too_many_removals(removals: usize, max_removals: usize) -> Self {
        let detail = format!(
            "{removals} accounts would lose access, and max_removals is {max_removals}; nothing was changed"
        );
        Self::new(ProblemKind::TooManyRemovals, detail)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.slug(), self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Only a bare status: the middleware renders the problem, since it knows the request.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
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
        tracing::error!(error = %error, cause, "the audit trail could not be read");
        Self::new(
            ProblemKind::AuditUnavailable,
            "the audit trail cannot be read",
        )
    }
}

/// What a problem of `kind` looks like, for the document.
pub(super) fn example(kind: ProblemKind, changes: bool) -> serde_json::Value {
    let mut problem = Problem::new(kind, "");
    let event = EventId::new(uuid::Uuid::from_u128(
        0x019a_b3c4_d5e6_7f00_8123_4567_89ab_cdef,
    ));
    problem = match kind {
        ProblemKind::InvalidRequest => Problem::invalid(vec![FieldError {
            place: "path",
            name: "account_id".into(),
            detail: crate::domain::InvalidAccountId.to_string(),
        }]),
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
        problem = problem.of_event(event);
    }
    if problem.detail.is_empty() {
        kind.title().clone_into(&mut problem.detail);
    }
    let body = problem.body("4f0c2e9a-6c1b-4a55-9b0e-0c6f3a1d2b77", changes);
    serde_json::to_value(body).unwrap_or_default()
}
