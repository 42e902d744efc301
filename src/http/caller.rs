//! The one extractor that can fail: who is calling.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};

use crate::auth::{Authenticator, TokenError};
use crate::domain::{Caller, Principal, RequestId, Stopwatch};
use crate::problem::ProblemKind;

use super::observe::{Arrival, Subject};
use super::problem::{FieldError, Problem};

/// Longest `User-Agent` that the trail keeps, in characters; longer ones are cut and marked.
const USER_AGENT_CHARACTERS_MAX: usize = 512;
const CUT_MARK: &str = "… (cut)";

/// A request with a valid bearer token.
pub(super) struct Authenticated(Caller);

impl Authenticated {
    pub(super) fn principal(&self) -> &Principal {
        &self.0.principal
    }

    pub(super) fn into_caller(self) -> Caller {
        self.0
    }
}

impl FromRequest for Authenticated {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authenticate(request))
    }
}

fn authenticate(request: &HttpRequest) -> Result<Authenticated, Problem> {
    let authenticator = request.app_data::<Data<Authenticator>>();
    let authenticator = authenticator
        .ok_or_else(|| Problem::new(ProblemKind::InternalError, "the gateway failed"))?;
    let token = bearer_token(request)?;
    let principal = authenticator.authenticate(token).map_err(|error| {
        tracing::debug!(error = %error, "a token was refused");
        Problem::bad_token(error)
    })?;
    let mut extensions = request.extensions_mut();
    extensions.insert(Subject(principal.subject.clone()));
    let arrival = extensions.get::<Arrival>();
    let caller = Caller {
        principal,
        client_ip: request
            .peer_addr()
            .map(|address| address.ip().to_canonical()),
        user_agent: request
            .headers()
            .get(header::USER_AGENT)
            .map(|agent| cut(&String::from_utf8_lossy(agent.as_bytes()))),
        request_id: arrival.map_or_else(RequestId::generate, |arrival| arrival.request_id.clone()),
        trace_id: arrival.and_then(|arrival| arrival.trace_id.clone()),
        since_arrival: arrival.map_or_else(Stopwatch::start, |arrival| arrival.since),
    };
    Ok(Authenticated(caller))
}

/// The token of the one `Authorization` header (RFC 6750, section 2.1; the scheme's case does not matter,
/// RFC 9110, section 11.1).
fn bearer_token(request: &HttpRequest) -> Result<&str, Problem> {
    let mut values = request.headers().get_all(header::AUTHORIZATION);
    let absent = || {
        Problem::new(
            ProblemKind::Unauthenticated,
            "send a bearer token in the Authorization header",
        )
    };
    let value = values.next().ok_or_else(absent)?;
    if values.next().is_some() {
        let twice = FieldError {
            place: "header",
            name: "Authorization".into(),
            detail: "must be sent once".into(),
        };
        return Err(Problem::invalid(vec![twice]));
    }
    let malformed = || Problem::bad_token(TokenError::Malformed);
    let text = value.to_str().map_err(|_| malformed())?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(absent());
    }
    if token.is_empty() || token.contains(' ') {
        Err(malformed())
    } else {
        Ok(token)
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(USER_AGENT_CHARACTERS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}{CUT_MARK}", &text[..end]),
    }
}
