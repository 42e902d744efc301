//! The one extractor that can fail: who is calling.

use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, ResponseError as _};
use futures_util::future::{Either, LocalBoxFuture};
use secrecy::{ExposeSecret as _, SecretString};

use crate::auth::{Authenticator, TokenError, TokenRefusal};
use crate::authorization::{Authorizer, Request};
use crate::domain::{Caller, ImageId, Principal, Region};
use crate::problem::ProblemKind;
use crate::telemetry::{Metrics, Traces};

use super::client_address::ClientAddress;
use super::limits::RateLimits;
use super::observe::Asker;
use super::quota::Counted;
use super::told::cut_to;
use crate::http::wire::{Arrival, Cost, Problem, Resource};

/// Longest `User-Agent` that the trail keeps, in characters; longer ones are cut and marked.
const USER_AGENT_CHARACTERS_MAX: usize = 512;

/// A request with a valid bearer token.
pub(in crate::http) struct Authenticated {
    caller: Caller,
    cost: Cost,
    limits: Data<RateLimits>,
    traces: Data<Traces>,
    counted: Counted,
}

impl Authenticated {
    /// Takes what the request costs, by the table of routes, of what its subject may ask. `accounts` says how many it
    /// names.
    ///
    /// # Errors
    /// 429 where that is too much.
    pub(in crate::http) fn admit(&self, accounts: usize) -> Result<(), Problem> {
        self.limits
            .admit(&self.caller.principal, self.cost, accounts, &self.counted)
    }

    /// Whether it may do this, by scope and policy.
    ///
    /// # Errors
    /// 403.
    pub(in crate::http) fn may(
        &self,
        authorizer: &Authorizer,
        request: Request<'_>,
    ) -> Result<(), Problem> {
        let authorizing = self.traces.part("authorize");
        let allowed = authorizer.check(&self.caller, request);
        authorizing.end();
        Ok(allowed?)
    }

    /// Whether it may see an image and who may use it.
    ///
    /// # Errors
    /// 403.
    pub(in crate::http) fn may_list(
        &self,
        authorizer: &Authorizer,
        region: &Region,
        image_id: &ImageId,
    ) -> Result<(), Problem> {
        self.may(authorizer, Request::ListShares { region, image_id })
    }

    /// For what goes on longer than a request.
    pub(in crate::http) fn standing(
        &self,
        request: &HttpRequest,
    ) -> Result<StandingCaller, Problem> {
        Ok(StandingCaller {
            caller: self.caller.clone(),
            token: bearer_token(request)?.into(),
            authenticator: part(request)?,
        })
    }

    pub(in crate::http) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(in crate::http) fn into_caller(self) -> Caller {
        self.caller
    }
}

/// A caller for whom something goes on for long: it is looked at again whether it still may.
pub(in crate::http) struct StandingCaller {
    caller: Caller,
    token: SecretString,
    authenticator: Data<Authenticator>,
}

impl StandingCaller {
    /// The caller, as long as its token is good: by its time, by the present keys, by all that a new request is held
    /// against.
    pub(in crate::http) fn caller(&self) -> Option<Caller> {
        let token = self.token.expose_secret();
        let principal = self.authenticator.authenticate(token).ok()?;
        let caller = self.caller.clone();
        Some(Caller {
            principal,
            ..caller
        })
    }
}

type Outcome = Result<Authenticated, Problem>;

impl FromRequest for Authenticated {
    type Error = Problem;
    type Future = Either<Ready<Outcome>, LocalBoxFuture<'static, Outcome>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        match Surroundings::of(request) {
            Ok(surroundings) => match surroundings.authenticate(request) {
                Err(Refused::ByOldKeys(refusal)) => {
                    let request = request.clone();
                    Either::Right(Box::pin(async move {
                        surroundings.authenticate_anew(&request, refusal).await
                    }))
                }
                Err(Refused::Problem(problem)) => Either::Left(ready(Err(*problem))),
                Ok(authenticated) => Either::Left(ready(Ok(authenticated))),
            },
            Err(problem) => Either::Left(ready(Err(problem))),
        }
    }
}

/// Why a request is not authenticated, or not yet.
enum Refused {
    /// Its token may be good once the keys are fetched anew.
    ByOldKeys(TokenRefusal),
    Problem(Box<Problem>),
}

/// What every request of the REST listener comes with is not there.
fn lacking() -> Problem {
    Problem::new(ProblemKind::InternalError, "the gateway failed")
}

/// A part of the gateway that the routes share.
fn part<T: 'static>(request: &HttpRequest) -> Result<Data<T>, Problem> {
    request.app_data::<Data<T>>().cloned().ok_or_else(lacking)
}

/// What decides on a request, and where it came from.
struct Surroundings {
    authenticator: Data<Authenticator>,
    limits: Data<RateLimits>,
    metrics: Data<Metrics>,
    traces: Data<Traces>,
    client_ip: IpAddr,
}

impl Surroundings {
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let client = request.extensions().get::<ClientAddress>().copied();
        Ok(Self {
            authenticator: part(request)?,
            limits: part(request)?,
            metrics: part(request)?,
            traces: part(request)?,
            client_ip: client.ok_or_else(lacking)?.client?,
        })
    }

    fn authenticate(&self, request: &HttpRequest) -> Result<Authenticated, Refused> {
        let problem = |problem| Refused::Problem(Box::new(problem));
        let token = bearer_token(request).map_err(|refused| {
            if refused.status_code() == StatusCode::UNAUTHORIZED {
                self.metrics.authentication(None, "no_token");
            }
            problem(self.failed(refused))
        })?;
        match self.authenticator.authenticate(token) {
            Ok(principal) => Ok(self.authenticated(request, principal)),
            Err(refusal) if refusal.may_pass_anew() => Err(Refused::ByOldKeys(refusal)),
            Err(refusal) => Err(problem(self.bad_token(&refusal))),
        }
    }

    async fn authenticate_anew(&self, request: &HttpRequest, refusal: TokenRefusal) -> Outcome {
        let token = bearer_token(request)?;
        match self.authenticator.authenticate_anew(token, refusal).await {
            Ok(principal) => Ok(self.authenticated(request, principal)),
            Err(refusal) => Err(self.bad_token(&refusal)),
        }
    }

    fn bad_token(&self, refusal: &TokenRefusal) -> Problem {
        self.metrics
            .authentication(refusal.issuer(), refusal.error.word());
        self.failed(Problem::bad_token(refusal))
    }

    /// What whoever could not be authenticated is told; a good token is never held up by it.
    fn failed(&self, problem: Problem) -> Problem {
        if problem.status_code() != StatusCode::UNAUTHORIZED {
            return problem;
        }
        match self.limits.authentication_failed(self.client_ip) {
            Ok(()) => problem,
            Err(limited) => limited.in_place_of(&problem),
        }
    }

    fn authenticated(&self, request: &HttpRequest, principal: Arc<Principal>) -> Authenticated {
        self.metrics.authentication(Some(&principal.issuer), "ok");
        let method = request.method();
        let resource = request.app_data::<&'static Resource>();
        let route = resource.and_then(|resource| resource.route(method));
        let arrival = Arrival::of(request);
        let asker = Asker(Arc::clone(&principal));
        let counted = Counted::default();
        request.extensions_mut().insert(asker);
        request.extensions_mut().insert(counted.clone());
        let caller = Caller {
            principal,
            client_ip: Some(self.client_ip),
            user_agent: request
                .headers()
                .get(header::USER_AGENT)
                .map(|agent| String::from_utf8_lossy(agent.as_bytes()))
                .map(|agent| cut_to(&agent, USER_AGENT_CHARACTERS_MAX).into_owned()),
            request_id: arrival.request_id,
            trace_id: arrival.trace_id,
            since_arrival: arrival.since,
        };
        Authenticated {
            caller,
            cost: route.map_or(Cost::Request, |route| route.cost),
            limits: self.limits.clone(),
            traces: self.traces.clone(),
            counted,
        }
    }
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
        let detail = "must be sent once";
        return Err(Problem::invalid_value("header", "Authorization", detail));
    }
    let malformed = || Problem::bad_token(&TokenError::Malformed.into());
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

#[cfg(test)]
mod fuzz;
