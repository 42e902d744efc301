//! A problem, from where it is made to how it is sent.

use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};

use crate::auth::{TokenError, TokenRefusal};
use crate::authorization::Refusal;
use crate::domain::{EventId, RequestId};
use crate::problem::{Effect, ProblemKind};

use super::sent::{FieldError, ProblemBody, ResultBody, UpstreamBody};

/// The media type of problem details.
pub(in crate::http) const MEDIA_TYPE: &str = "application/problem+json";
/// The response header that names the event of a change.
pub(in crate::http) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const REALM: &str = r#"Bearer realm="image-share-gateway""#;
/// Seconds after which a refused request may be worth another try.
const RETRY_AFTER: &str = "1";

/// A request that ended otherwise than asked; the only error that handlers return.
#[derive(Debug, Clone)]
pub(in crate::http) struct Problem {
    pub(super) kind: ProblemKind,
    pub(super) detail: String,
    pub(super) errors: Vec<FieldError>,
    pub(super) upstream: Option<UpstreamBody>,
    pub(super) effect: Option<Effect>,
    pub(super) retryable: Option<bool>,
    pub(super) event_id: Option<EventId>,
    pub(super) policy_ids: Vec<String>,
    pub(super) results: Vec<ResultBody>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// What happened, where the log is told more than the caller.
    pub(super) for_log: Option<String>,
}

impl Problem {
    pub(in crate::http) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
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
            for_log: None,
        };
        match kind {
            ProblemKind::UpstreamUnavailable
            | ProblemKind::AuditUnavailable
            | ProblemKind::Overloaded
            | ProblemKind::KeysUnavailable
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

    /// 400 with the faults that are told, of `count` that were found.
    pub(in crate::http) fn invalid(errors: Vec<FieldError>, count: usize) -> Self {
        let detail = match errors.as_slice() {
            [one] if count == 1 => format!("{} {} {}", one.place, one.name, one.detail),
            told if told.len() < count => {
                let told = told.len();
                format!("{count} values are not acceptable; the first {told} are listed")
            }
            _ => format!("{count} values are not acceptable"),
        };
        Self {
            errors,
            ..Self::new(ProblemKind::InvalidRequest, detail)
        }
    }

    /// 400 for one fault.
    pub(in crate::http) fn invalid_value(
        place: &'static str,
        name: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        let (name, detail) = (name.into(), detail.into());
        let fault = FieldError {
            place,
            name,
            detail,
        };
        Self::invalid(vec![fault], 1)
    }

    pub(in crate::http) fn method_not_allowed(allow: &str) -> Self {
        let detail = format!("allowed here: {allow}");
        let mut problem = Self::new(ProblemKind::MethodNotAllowed, detail);
        // Names of methods are ASCII.
        if let Ok(allow) = HeaderValue::from_str(allow) {
            problem.headers.push((header::ALLOW, allow));
        }
        problem
    }

    /// 401 for a token that is not accepted (RFC 6750, section 3.1); 503 for one that cannot be judged yet.
    pub(in crate::http) fn bad_token(refusal: &TokenRefusal) -> Self {
        let error = &refusal.error;
        if *error == TokenError::NoKeys {
            let detail = format!("{error}; the token may be good");
            let mut problem = Self::new(ProblemKind::KeysUnavailable, detail);
            problem.for_log = Some(refusal.for_log());
            return problem;
        }
        let mut problem = Self::new(ProblemKind::Unauthenticated, error.to_string());
        // What may stand in it; the names of claims are the configuration's.
        let may_stand = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
        let described = error.to_string().replace(|c| !may_stand(c), "?");
        let challenge =
            format!(r#"{REALM}, error="invalid_token", error_description="{described}""#);
        problem.challenge(&challenge);
        problem.for_log = Some(refusal.for_log());
        problem
    }

    /// 403 for a token without a scope (RFC 6750, section 3.1), or by policy.
    pub(super) fn refused(refusal: Refusal) -> Self {
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

    pub(super) fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = Some(effect);
        self
    }

    /// Sent in place of another, which the log is told of too.
    pub(in crate::http) fn in_place_of(mut self, other: &Self) -> Self {
        self.for_log = Some(format!("{}; {}", self.detail, other.for_log()));
        self
    }

    /// The slug, for the log.
    pub(in crate::http) fn slug(&self) -> &'static str {
        self.kind.slug()
    }

    /// What happened, for the log; it holds no token.
    pub(in crate::http) fn for_log(&self) -> &str {
        self.for_log.as_deref().unwrap_or(&self.detail)
    }

    /// The event that the problem belongs to, for the log.
    pub(in crate::http) fn event_id(&self) -> Option<EventId> {
        self.event_id
    }

    /// The answer. `changes` says whether the request asked for a change: then what is not said was refused
    /// before anything was done.
    pub(in crate::http) fn render(&self, request_id: &RequestId, changes: bool) -> HttpResponse {
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
    pub(in crate::http) fn body(&self, request_id: &str, changes: bool) -> ProblemBody {
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

    /// Names another time to wait than the usual.
    pub(in crate::http) fn retry_after(&mut self, wait: Duration) {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.headers.retain(|(name, _)| name != header::RETRY_AFTER);
        self.headers
            .push((header::RETRY_AFTER, HeaderValue::from(seconds.max(1))));
    }

    /// 403 where a policy refused every change of a bulk.
    pub(in crate::http) fn all_denied(results: Vec<ResultBody>, policy_ids: Vec<String>) -> Self {
        Self {
            policy_ids,
            results,
            ..Self::new(
                ProblemKind::Forbidden,
                "a policy forbids every change of this request",
            )
        }
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
