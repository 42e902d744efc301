//! One fetch of a JWK Set, bounded in time and size.

use std::time::Duration;

use reqwest::header::{ACCEPT, CACHE_CONTROL, HeaderMap};
use reqwest::{Client, Response, StatusCode, redirect};
use serde::Deserialize;
use url::Url;

use super::Served;
use crate::auth::key_set::{KeySet, KeySetError};
use crate::config;

/// What one answer may take; a fetch by discovery has two.
const ANSWER_TIME: Duration = Duration::from_secs(5);
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// What a fetch may take in all.
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_secs(11);
/// Longest answer.
const BYTES_MAX: usize = 1024 * 1024;

/// Why there is no key set, in words that anybody may read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No client could be made.
    #[error("no HTTP client can be made for key sets")]
    Client(#[source] reqwest::Error),
    /// It cannot be connected to.
    #[error("it cannot be reached")]
    Unreachable,
    /// It does not answer in time.
    #[error("it does not answer in time")]
    TimedOut,
    /// The answer broke off.
    #[error("the connection was lost")]
    Lost,
    /// It answered with another status than 200.
    #[error("it answers with HTTP {0}")]
    Status(StatusCode),
    /// The answer is too long.
    #[error("its answer is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// The discovery document cannot be used.
    #[error("its discovery document {0}")]
    Discovery(&'static str),
    /// The answer holds no keys.
    #[error("its answer {0}")]
    Keys(#[from] KeySetError),
}

/// What was fetched.
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    /// As it was served, to see whether it changed.
    pub(super) text: String,
    /// How long the answer says that it is good.
    pub(super) max_age: Option<Duration>,
}

/// Fetches from one source.
#[derive(Debug)]
pub(super) struct Fetcher {
    served: Served,
    client: Client,
}

/// The members of a discovery document that are looked at.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    pub(super) fn new(served: Served, proxy: Option<&config::Proxy>) -> Result<Self, SourceError> {
        let builder = Client::builder()
            .user_agent(concat!("image-share-gateway/", env!("CARGO_PKG_VERSION")))
            .timeout(ANSWER_TIME)
            .connect_timeout(CONNECT_TIME)
            // A redirect could lead to plain HTTP, or to whoever an open redirect serves.
            .redirect(redirect::Policy::none())
            .pool_max_idle_per_host(0);
        let plain = match &served {
            Served::At(url) => url.scheme() == "http",
            Served::ByDiscovery(issuer) => issuer.starts_with("http:"),
        };
        // What the environment says of proxies was read with the configuration.
        let builder = builder.no_proxy();
        let builder = match proxy {
            // Plain HTTP is for loopback alone: no proxy lies between, and no CA store is needed.
            _ if plain => builder.tls_certs_only([]),
            None => builder,
            Some(proxy) => builder.proxy(proxy.for_client().map_err(SourceError::Client)?),
        };
        let client = builder.build().map_err(SourceError::Client)?;
        Ok(Self { served, client })
    }

    /// The source in words, without what its URL may keep secret.
    pub(super) fn name(&self) -> String {
        match &self.served {
            Served::At(url) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
            Served::ByDiscovery(issuer) => issuer.clone(),
        }
    }

    pub(super) async fn fetch(&self) -> Result<Fetched, SourceError> {
        let url = match &self.served {
            Served::At(url) => url.clone(),
            Served::ByDiscovery(issuer) => self.discover(issuer).await?,
        };
        let (headers, text) = self.get(url).await?;
        let keys = KeySet::parse(&text)?;
        Ok(Fetched {
            keys,
            text,
            max_age: max_age(&headers),
        })
    }

    /// Where the issuer's keys are (`OpenID` Connect Discovery 1.0, sections 4.1 and 4.3).
    async fn discover(&self, issuer: &str) -> Result<Url, SourceError> {
        let document = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let document = Url::parse(&document)
            .map_err(|_| SourceError::Discovery("cannot be at the issuer's URL"))?;
        let (_, text) = self.get(document).await?;
        let found: Discovered = serde_json::from_str(&text)
            .map_err(|_| SourceError::Discovery("lacks issuer or jwks_uri"))?;
        if found.issuer != issuer {
            return Err(SourceError::Discovery("is of another issuer"));
        }
        config::key_source_url(&found.jwks_uri)
            .ok()
            // Whoever is asked over TLS does not lead to where there is none.
            .filter(|url| url.scheme() == "https" || issuer.starts_with("http:"))
            .ok_or(SourceError::Discovery(
                "names a jwks_uri that is not https (http only on loopback)",
            ))
    }

    async fn get(&self, url: Url) -> Result<(HeaderMap, String), SourceError> {
        let request = self.client.get(url).header(ACCEPT, "application/json");
        let mut response = request.send().await.map_err(|error| fault(&error))?;
        if response.status() != StatusCode::OK {
            return Err(SourceError::Status(response.status()));
        }
        let bytes = read(&mut response).await?;
        let text = String::from_utf8(bytes).map_err(|_| KeySetError::NotASet)?;
        Ok((std::mem::take(response.headers_mut()), text))
    }
}

async fn read(response: &mut Response) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| fault(&error))? {
        if bytes.len() + chunk.len() > BYTES_MAX {
            return Err(SourceError::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn fault(error: &reqwest::Error) -> SourceError {
    if error.is_timeout() {
        SourceError::TimedOut
    } else if error.is_connect() {
        SourceError::Unreachable
    } else {
        SourceError::Lost
    }
}

/// How long the answer may be kept (RFC 9111, section 5.2.2); not at all counts as no time.
///
/// Read here, since names of directives know no case and the `headers` crate's reading does.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase());
    let mut age = None;
    for directive in directives {
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            age = seconds
                .trim_matches('"')
                .parse()
                .ok()
                .map(Duration::from_secs);
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is_good() {
        let age = |value: &'static str| {
            let headers = HeaderMap::from_iter([(CACHE_CONTROL, value.parse().expect("a value"))]);
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, max-age=600"), Some(600));
        assert_eq!(age("Max-Age=\"5\", must-revalidate"), Some(5));
        assert_eq!(age("max-age=600, no-store"), Some(0));
        assert_eq!(age("public"), None);
        assert_eq!(age("max-age=soon"), None);
    }
}
