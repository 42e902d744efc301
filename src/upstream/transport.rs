//! One HTTP exchange, bounded in time and size, and what its failure means.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, StatusCode, redirect};
use tower::util::MapRequestLayer;
use url::Url;

use crate::config;

use super::ret_code::RetCode;

/// Largest answer that is read: a list of some ten thousand accounts.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Shorter than what servers commonly keep an idle connection for, so that few die as they are used again.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const REQUEST_ID_HEADER: &str = "x-ucloud-request-uuid";

/// No HTTP client can be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a client for upstream.base_url: are the system's CA certificates installed?")]
pub struct ClientError(#[source] reqwest::Error);

/// What a library says of a failed exchange, with its causes and without URLs; for the log alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(Arc<str>);

impl Cause {
    /// Takes words; those of an error by [`Cause::of`].
    #[must_use]
    pub fn new(words: &str) -> Self {
        Self(words.into())
    }

    fn of(error: reqwest::Error) -> Self {
        // The URL is the operator's own, and of no use in a line that names the action.
        let error = error.without_url();
        let mut words = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Writing to a String cannot fail.
            let _ = write!(words, ": {cause}");
            source = cause.source();
        }
        Self(words.into())
    }
}

/// Why a call failed. Where it matters is what it means for the change: [`CallError::fate`]. Every change that
/// the call carried gets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection; nothing was sent.
    #[error("cannot connect to the upstream")]
    Unreachable(#[source] Cause),
    /// No answer in time.
    #[error("the upstream did not answer in time")]
    TimedOut(#[source] Cause),
    /// The connection was lost after the request was sent, or half-way through.
    #[error("the connection to the upstream was lost")]
    Lost {
        /// What the system says.
        #[source]
        cause: Cause,
        /// Whether it was a connection from before that broke without a word of an answer: then the upstream
        /// most likely closed it as idle.
        pooled: bool,
    },
    /// Answered, with a status that is no success.
    #[error("the upstream answered with HTTP status {status}")]
    Status {
        /// The status.
        status: u16,
        /// The pause that it asks for (`Retry-After` in seconds, RFC 9110, section 10.2.3).
        retry_after: Option<Duration>,
        /// The upstream's name for its answer.
        request_id: Option<String>,
    },
    /// Answered with a `RetCode` other than 0.
    #[error("the upstream refused with RetCode {ret_code}: {}", message.as_deref().unwrap_or("no message"))]
    Refused {
        /// The code.
        ret_code: RetCode,
        /// The upstream's words.
        message: Option<String>,
        /// The upstream's name for its answer.
        request_id: Option<String>,
    },
    /// Answered with what cannot be read as an answer to the call.
    #[error("the upstream's answer is not what it should be: {what}")]
    Garbled {
        /// What is odd.
        what: &'static str,
        /// The `RetCode`, where there was one.
        ret_code: Option<i64>,
        /// The upstream's name for its answer.
        request_id: Option<String>,
    },
}

/// What a failed call means for the change that it carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It certainly did not take effect.
    NotApplied,
    /// It may have.
    MayHaveApplied,
}

impl CallError {
    /// Whether the change may stand although no answer says so.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            Self::Unreachable(_) => Fate::NotApplied,
            Self::Status { status, .. } if (400..500).contains(status) => Fate::NotApplied,
            Self::Refused { ret_code, .. } if !ret_code.leaves_effect_open() => Fate::NotApplied,
            Self::TimedOut(_)
            | Self::Lost { .. }
            | Self::Status { .. }
            | Self::Refused { .. }
            | Self::Garbled { .. } => Fate::MayHaveApplied,
        }
    }

    /// The upstream's name for its answer, where it gave one.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) | Self::Lost { .. } => None,
            Self::Status { request_id, .. }
            | Self::Refused { request_id, .. }
            | Self::Garbled { request_id, .. } => request_id.as_deref(),
        }
    }

    /// The `RetCode`, where there was one.
    #[must_use]
    pub fn ret_code(&self) -> Option<i64> {
        match self {
            Self::Refused { ret_code, .. } => Some(ret_code.get()),
            Self::Garbled { ret_code, .. } => *ret_code,
            Self::Unreachable(_) | Self::TimedOut(_) | Self::Lost { .. } | Self::Status { .. } => {
                None
            }
        }
    }

    /// Whether a call with fewer accounts may fare better: the refusal may be about one of them.
    #[must_use]
    pub fn may_depend_on_an_account(&self) -> bool {
        match self {
            Self::Refused {
                ret_code, message, ..
            } => ret_code.may_depend_on_an_account(message.as_deref()),
            Self::Unreachable(_)
            | Self::TimedOut(_)
            | Self::Lost { .. }
            | Self::Status { .. }
            | Self::Garbled { .. } => false,
        }
    }

    pub(super) fn is_operators_fault(&self) -> bool {
        matches!(self, Self::Refused { ret_code, .. } if ret_code.is_operators_fault())
    }

    /// The word of the metric.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::Lost { pooled: true, .. } => "stale",
            Self::Lost { .. } => "lost",
            Self::Status { .. } => "status",
            Self::Refused { .. } => "refused",
            Self::Garbled { .. } => "garbled",
        }
    }
}

/// An error and its cause in one line, for the log.
pub(super) fn causes(error: &CallError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// What came back, before anything is read into it.
pub(super) struct Exchange {
    pub(super) body: Vec<u8>,
    pub(super) request_id: Option<String>,
}

tokio::task_local! {
    /// Set where the exchange of this task opens a connection.
    static OPENED: Arc<AtomicBool>;
}

/// Over which connection a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// One that is open already, where there is one.
    Pooled,
    /// A new one.
    Fresh,
}

/// The HTTP clients, with a pool and without, and the one URL.
#[derive(Debug)]
pub(super) struct Transport {
    pooled: Client,
    fresh: Client,
    url: Url,
}

impl Transport {
    pub(super) fn new(settings: &config::Upstream) -> Result<Self, ClientError> {
        let pooled = client(settings).pool_max_idle_per_host(settings.max_in_flight);
        Ok(Self {
            pooled: pooled.build().map_err(ClientError)?,
            fresh: client(settings)
                .pool_max_idle_per_host(0)
                .build()
                .map_err(ClientError)?,
            url: settings.base_url.clone(),
        })
    }

    /// POSTs a form and reads the answer of a success.
    pub(super) async fn post(
        &self,
        form: String,
        connection: Connection,
    ) -> Result<Exchange, CallError> {
        let client = match connection {
            Connection::Pooled => &self.pooled,
            Connection::Fresh => &self.fresh,
        };
        let request = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let opened = Arc::new(AtomicBool::new(false));
        let sending = OPENED.scope(Arc::clone(&opened), request.body(form).send());
        let sent = sending.await;
        let mut response = sent.map_err(|error| lost(error, !opened.load(Ordering::Relaxed)))?;
        let request_id = request_id(response.headers());
        if response.status() != StatusCode::OK {
            return Err(CallError::Status {
                status: response.status().as_u16(),
                retry_after: retry_after(response.headers()),
                request_id,
            });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| lost(error, false))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(CallError::Garbled {
                    what: "it is too long",
                    ret_code: None,
                    request_id,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Exchange { body, request_id })
    }
}

fn client(settings: &config::Upstream) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("image-share-gateway/", env!("CARGO_PKG_VERSION")))
        .timeout(settings.timeout)
        // Below the time of the whole call, so that what never connected is known not to have been sent.
        .connect_timeout(settings.connect_timeout.min(settings.timeout.mul_f64(0.9)))
        // A redirect would turn the POST into a GET, or hand a signed request to another host.
        .redirect(redirect::Policy::none())
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .connector_layer(MapRequestLayer::new(|request| {
            // A connection that is opened ahead for nobody in particular has no task to tell.
            let _ = OPENED.try_with(|opened| opened.store(true, Ordering::Relaxed));
            request
        }));
    if settings.base_url.scheme() == "http" {
        // Plain HTTP is for loopback alone: no proxy lies between, and no CA store is needed.
        builder.no_proxy().tls_certs_only([])
    } else {
        builder
    }
}

/// A request id as the trail keeps it: bounded, and printable.
pub(super) fn tidy_request_id(text: &str) -> Option<String> {
    let fits =
        !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    headers
        .get(REQUEST_ID_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(tidy_request_id)
}

/// A pause in seconds; the form with a date, which no service of this cloud is known to send, is none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn lost(error: reqwest::Error, pooled: bool) -> CallError {
    // A connect that timed out is both: nothing was sent.
    if error.is_connect() {
        CallError::Unreachable(Cause::of(error))
    } else if error.is_timeout() {
        CallError::TimedOut(Cause::of(error))
    } else {
        let cause = Cause::of(error);
        CallError::Lost { cause, pooled }
    }
}
