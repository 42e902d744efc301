//! One HTTP exchange, bounded in time and size, and what its failure means.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, StatusCode, redirect};
use tower::util::MapRequestLayer;
use url::Url;

use crate::config;

use super::call_error::{CallError, Cause};

/// Largest answer that is read: a list of some ten thousand accounts.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Shorter than what servers commonly keep an idle connection for, so that few die as they are used again.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const REQUEST_ID_HEADER: &str = "x-ucloud-request-uuid";

/// No HTTP client can be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a client for upstream.base_url: are the system's CA certificates installed?")]
pub struct ClientError(#[source] reqwest::Error);

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
    pub(super) fn new(settings: &config::UpstreamSettings) -> Result<Self, ClientError> {
        let made = |idle| client(settings)?.pool_max_idle_per_host(idle).build();
        Ok(Self {
            pooled: made(settings.max_in_flight).map_err(ClientError)?,
            fresh: made(0).map_err(ClientError)?,
            url: settings.base_url.clone(),
        })
    }

    /// The one URL.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The same without a user, a password or a query.
    pub(super) fn url_in_the_open(&self) -> String {
        let url = &self.url;
        format!("{}{}", url.origin().ascii_serialization(), url.path())
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
        let request = client.post(self.url.clone()).header(CONTENT_TYPE, FORM);
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

fn client(settings: &config::UpstreamSettings) -> reqwest::Result<ClientBuilder> {
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
    // What the environment says of proxies was read with the configuration.
    let builder = builder.no_proxy();
    if settings.base_url.scheme() == "http" {
        // Plain HTTP is for loopback alone, and no CA store is needed.
        return Ok(builder.tls_certs_only([]));
    }
    Ok(match &settings.proxy {
        Some(proxy) => builder.proxy(proxy.for_client()?),
        None => builder,
    })
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

/// The longest pause that is believed; a longer one would outlast everybody's patience, and some outlast arithmetic.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// A pause in seconds; the form with a date, which no service of this cloud is known to send, is none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.trim().parse().ok().map(Duration::from_secs);
    seconds.map(|pause| pause.min(RETRY_AFTER_MAX))
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
