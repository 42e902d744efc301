//! The Action API of the cloud as a typed client: [`Upstream::modify`] and [`Upstream::describe`].
//!
//! The API is RPC-style: every action is a signed form, sent by POST to one URL and answered with HTTP 200 and a
//! `RetCode`. This room knows how a call is signed, sent, bounded and read, and what its failure means for
//! the change it carried ([`CallError::fate`]). The fact that a naive client gets wrong: with a non-empty
//! `InvalidAccounts` the upstream did *nothing* of that call, whatever else the answer says.

mod breaker;
mod call_error;
mod images;
mod pace;
mod ret_code;
mod retry;
mod signature;
mod transport;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config;
use crate::domain::{AccountId, ImageId, Region, Stopwatch};
use crate::telemetry::traces::current;
use crate::telemetry::{Instruments, Metrics, Span, Traces};

pub use breaker::{Admission, Breaker, BreakerState};
pub use call_error::{CallError, Cause, Fate};
pub use images::ImagePage;
pub use pace::Pace;
pub use ret_code::{Meaning, RetCode};
pub use retry::{Effort, Retry, RetryBudget, backoff};
pub use transport::{ClientError, Connection};

use transport::Transport;
use wire::{Action, Form};

/// Most additions, and most removals, of one call (the action's page in UCloud's API documentation).
pub const ACCOUNTS_PER_LIST_MAX: usize = 10;

/// The keys that calls are signed with. Does not print them.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Sent with every call.
    pub public: SecretString,
    /// Never sent.
    pub private: SecretString,
}

/// What one `ModifyCompShareImageShareAccount` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modification {
    /// Where the image lives.
    pub region: Region,
    /// The image.
    pub image_id: ImageId,
    /// Accounts that gain it; at most [`ACCOUNTS_PER_LIST_MAX`].
    pub additions: Vec<AccountId>,
    /// Accounts that lose it; at most [`ACCOUNTS_PER_LIST_MAX`].
    pub removals: Vec<AccountId>,
}

/// What the upstream answered to a modification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modified {
    /// How it went.
    pub verdict: Verdict,
    /// The `RetCode` of the answer.
    pub ret_code: i64,
    /// The upstream's name for its answer.
    pub request_id: Option<String>,
}

/// How a modification that was answered went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All of it was done.
    Done,
    /// Nothing of it was done, since these accounts of the call do not exist.
    InvalidAccounts(Vec<AccountId>),
}

/// An account that an image is shared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedAccount {
    /// The account.
    pub account_id: AccountId,
    /// Its name, where the upstream gives one.
    pub account_name: Option<String>,
}

/// The client. One for the whole program; calls share its connections. How many there may be and when is decided
/// where they are made, by [`Breaker`], [`Pace`] and [`RetryBudget`].
#[derive(Debug)]
pub struct Upstream {
    transport: Transport,
    keys: ArcSwap<Keys>,
    project_id: Option<String>,
    zone: Option<String>,
    metrics: Metrics,
    traces: Traces,
}

impl Upstream {
    /// Makes the client; connects to nothing yet.
    ///
    /// # Errors
    /// Where no HTTP client can be made, as on a system without certificate authorities.
    pub fn new(
        settings: &config::UpstreamSettings,
        instruments: Instruments,
    ) -> Result<Self, ClientError> {
        let Instruments { metrics, traces } = instruments;
        metrics.expect_ret_codes([0].into_iter().chain(RetCode::known()));
        Ok(Self {
            transport: Transport::new(settings)?,
            keys: ArcSwap::from_pointee(Keys {
                public: settings.public_key.clone(),
                private: settings.private_key.clone(),
            }),
            project_id: settings.project_id.clone(),
            zone: settings.zone.clone(),
            metrics,
            traces,
        })
    }

    /// Signs with `keys` from the next call on; calls in flight finish with the old ones.
    pub fn use_keys(&self, keys: Keys) {
        self.keys.store(Arc::new(keys));
    }

    /// Adds and removes shares of one image in one call.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::fate`] says whether the change may stand.
    pub async fn modify(
        &self,
        modification: &Modification,
        connection: Connection,
    ) -> Result<Modified, CallError> {
        let mut form = self.form(Action::ModifyShares, &modification.region);
        form.push("CompShareImageId", modification.image_id.as_str());
        form.push_list("AddAccounts", &modification.additions);
        form.push_list("RemoveAccounts", &modification.removals);
        let accounts = modification.additions.len() + modification.removals.len();
        self.metrics.upstream_accounts(accounts);
        let answer = self.call(Action::ModifyShares, form, connection).await?;
        wire::read_modified(answer, modification)
            .inspect_err(|error| log_failure(Action::ModifyShares, error))
    }

    /// Lists the accounts that an image is shared with.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn describe(
        &self,
        region: &Region,
        image_id: &ImageId,
        connection: Connection,
    ) -> Result<Vec<SharedAccount>, CallError> {
        let mut form = self.form(Action::DescribeShares, region);
        form.push("CompShareImageId", image_id.as_str());
        let answer = self.call(Action::DescribeShares, form, connection).await?;
        wire::read_accounts(&answer).inspect_err(|error| log_failure(Action::DescribeShares, error))
    }

    fn form<'a>(&'a self, action: Action, region: &'a Region) -> Form<'a> {
        let mut form = Form::new(action);
        form.push("Region", region.as_str());
        if let Some(project_id) = &self.project_id {
            form.push("ProjectId", project_id.as_str());
        }
        form
    }

    /// Some schemas of the image list want it; no other action takes one.
    fn push_zone<'a>(&'a self, form: &mut Form<'a>) {
        if let Some(zone) = &self.zone {
            form.push("Zone", zone.as_str());
        }
    }

    async fn call(
        &self,
        action: Action,
        form: Form<'_>,
        connection: Connection,
    ) -> Result<wire::Answer, CallError> {
        let keys = self.keys.load_full();
        let (public, private) = (keys.public.expose_secret(), keys.private.expose_secret());
        let (body, signature) = form.signed(public, private);
        let mut span = self.begin_span(action);
        let took = Stopwatch::start();
        let answer = match self.transport.post(body, connection).await {
            Ok(exchange) => wire::Answer::read_aside(exchange).await,
            Err(error) => Err(error),
        };
        self.count_ret_code(&answer);
        describe(&mut span, &answer);
        drop(span);
        let secrets = [public, private, &signature];
        let answer = answer.map(|answer| answer.without(&secrets));
        let answer = answer.map_err(|error| error.without(&secrets));
        let result = answer
            .as_ref()
            .map_or_else(CallError::label, |_| "answered");
        self.metrics
            .upstream_call(action.name(), result, took.elapsed());
        tracing::debug!(
            upstream.action = action.name(),
            upstream.result = result,
            duration_ms = duration_ms(took.elapsed()),
            "called the upstream"
        );
        answer.inspect_err(|error| log_failure(action, error))
    }
}

impl Upstream {
    /// By OpenTelemetry's conventions for clients of HTTP. The form is not part of the URL, so that holds no signature.
    fn begin_span(&self, action: Action) -> Span {
        let mut span = self.traces.call("upstream.call");
        if span.is_kept() {
            let url = self.transport.url();
            span.set("http.request.method", "POST");
            span.set(
                "server.address",
                url.host_str().unwrap_or_default().to_owned(),
            );
            let port = url.port_or_known_default().unwrap_or_default();
            span.set("server.port", i64::from(port));
            span.set("url.full", self.transport.url_in_the_open());
            span.set("upstream.action", action.name());
            let resends = current().map_or(0, |within| within.resends);
            if resends > 0 {
                span.set("http.request.resend_count", i64::from(resends));
            }
        }
        span
    }

    fn count_ret_code(&self, answer: &Result<wire::Answer, CallError>) {
        let code = match answer {
            Ok(answer) => Some(answer.ret_code()),
            Err(CallError::Refused { ret_code, .. }) => Some(ret_code.get()),
            Err(CallError::Garbled { ret_code, .. }) => *ret_code,
            Err(_) => None,
        };
        if let Some(code) = code {
            let known = code == 0 || RetCode::new(code).meaning() != Meaning::Unknown;
            self.metrics.upstream_ret_code(known.then_some(code));
        }
    }
}

/// What came of a call.
fn describe(span: &mut Span, answer: &Result<wire::Answer, CallError>) {
    if !span.is_kept() {
        return;
    }
    let ret_code = match answer {
        Ok(answer) => Some(answer.ret_code()),
        Err(CallError::Refused { ret_code, .. }) => Some(ret_code.get()),
        Err(_) => None,
    };
    let status = match answer {
        Err(CallError::Status { status, .. }) => Some(i64::from(*status)),
        _ => ret_code.map(|_| 200),
    };
    if let Some(status) = status {
        span.set("http.response.status_code", status);
    }
    if let Some(ret_code) = ret_code {
        span.set("upstream.ret_code", ret_code);
    }
    match answer {
        // By its number, as the conventions have it.
        Err(CallError::Status { status, .. }) => span.fail(status.to_string()),
        Err(error) => span.fail(error.label()),
        Ok(_) => {}
    }
}

fn duration_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One line a failed call, with what helps an operator.
fn log_failure(action: Action, error: &CallError) {
    let hint = match error {
        CallError::Refused { ret_code, .. } => ret_code.hint(),
        _ => None,
    };
    let cause = call_error::causes(error);
    let action = action.name();
    if error.is_operators_fault() {
        tracing::error!(
            upstream.action = action,
            error.message = cause,
            upstream.hint = hint,
            "the upstream refuses this gateway"
        );
    } else {
        tracing::warn!(
            upstream.action = action,
            error.message = cause,
            upstream.hint = hint,
            "a call to the upstream failed"
        );
    }
}
