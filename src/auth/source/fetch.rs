//! One fetch of a JWK Set, bounded in time and size: at its URL, or where a discovery document says, with what a source
//! inside a cluster needs.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Certificate, Client, StatusCode, redirect};
use serde::Deserialize;
use tokio::task::spawn_blocking;
use url::Url;

use super::answer::{fault, max_age, text_of};
use super::error::SourceError;
use crate::auth::key_set::KeySet;
use crate::auth::refusal::quoted;
use crate::config::{self, KeySource};

/// What one answer may take; a fetch by discovery has two.
const ANSWER_TIME: Duration = Duration::from_secs(5);
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// What a fetch may take in all.
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_secs(11);
/// As much of a URL as is told.
const URL_CHARACTERS_MAX: usize = 300;
/// Kubernetes answers to the second alone (RFC 7517, section 8.5.2), most others to the first.
const MEDIA_TYPES: &str = "application/json, application/jwk-set+json";

/// What was fetched.
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    /// As it was served, to see whether it changed.
    pub(super) text: String,
    /// How long the answer is good yet, by what it says.
    pub(super) max_age: Option<Duration>,
}

/// Fetches from one source.
#[derive(Debug)]
pub(super) struct Fetcher {
    served: Served,
    settings: config::Fetch,
    client: Client,
}

/// Where a JWK Set is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Served {
    /// At this URL.
    At(Url),
    /// Where the discovery document of this issuer says (`OpenID` Connect Discovery 1.0, section 4).
    ByDiscovery(String),
}

impl Served {
    /// Where an issuer's keys are served, where somebody else does.
    pub(super) fn of(issuer: &config::Issuer) -> Option<Self> {
        match &issuer.keys {
            KeySource::Url(url) => Some(Self::At(url.clone())),
            KeySource::Discovery => Some(Self::ByDiscovery(issuer.iss.clone())),
            KeySource::File(_) | KeySource::Sandbox => None,
        }
    }
}

/// The members of a discovery document that are looked at.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    pub(super) fn new(served: Served, settings: config::Fetch) -> Result<Self, SourceError> {
        let client = client(&served, &settings, None)?;
        Ok(Self {
            served,
            settings,
            client,
        })
    }

    /// The source in words, without what its URL may keep secret.
    pub(super) fn name(&self) -> String {
        match &self.served {
            Served::At(url) => without_secrets(url),
            Served::ByDiscovery(issuer) => issuer.clone(),
        }
    }

    pub(super) async fn fetch(&self) -> Result<Fetched, SourceError> {
        let asking = self.asking().await?;
        let (url, is_discovered) = match &self.served {
            Served::At(url) => (url.clone(), false),
            Served::ByDiscovery(issuer) => (asking.discover(issuer).await?, true),
        };
        let fetched = async {
            let (headers, text) = asking.get(url.clone()).await?;
            let max_age = max_age(&headers);
            // A long set takes a while.
            let parsed = spawn_blocking(move || (KeySet::parse(&text), text));
            let (keys, text) = parsed.await.map_err(|_| SourceError::Lost)?;
            Ok(Fetched {
                keys: keys?,
                text,
                max_age,
            })
        };
        let about = |error| {
            if is_discovered {
                at(&url, error)
            } else {
                error
            }
        };
        fetched.await.map_err(about)
    }

    /// What a fetch is made with; files that it needs are read anew each time.
    async fn asking(&self) -> Result<Asking, SourceError> {
        let config::Fetch {
            ca_file,
            token_file,
            ..
        } = &self.settings;
        let client = match ca_file {
            None => self.client.clone(),
            Some(path) => {
                let pem = read("fetch_ca_file", path).await?;
                let (served, settings, path) =
                    (self.served.clone(), self.settings.clone(), path.clone());
                // The usual authorities are read with it.
                let made = spawn_blocking(move || client(&served, &settings, Some((&path, &pem))));
                made.await.map_err(|_| SourceError::Lost)??
            }
        };
        let authorization = match token_file {
            None => None,
            Some(path) => {
                let token = read("fetch_token_file", path).await?;
                let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
                let mut value = value.map_err(|_| SourceError::File {
                    key: "fetch_token_file",
                    path: path.display().to_string(),
                    message: "holds what is no bearer token".into(),
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Asking {
            client,
            authorization,
        })
    }
}

/// A client for a source; `ca` are the certificates of an authority to trust besides the usual ones, and their file.
fn client(
    served: &Served,
    settings: &config::Fetch,
    ca: Option<(&Path, &str)>,
) -> Result<Client, SourceError> {
    let builder = Client::builder()
        .user_agent(concat!("image-share-gateway/", env!("CARGO_PKG_VERSION")))
        .timeout(ANSWER_TIME)
        .connect_timeout(CONNECT_TIME)
        // A redirect could lead to plain HTTP, or to whoever an open redirect serves.
        .redirect(redirect::Policy::none())
        .pool_max_idle_per_host(0);
    let plain = match served {
        Served::At(url) => url.scheme() == "http",
        Served::ByDiscovery(issuer) => issuer.starts_with("http:"),
    };
    // What the environment says of proxies was read with the configuration.
    let builder = builder.no_proxy();
    let builder = match &settings.proxy {
        // Plain HTTP is for loopback alone: no proxy lies between, and no CA store is needed.
        _ if plain => builder.tls_certs_only([]),
        None => builder,
        Some(proxy) => builder.proxy(proxy.for_client().map_err(SourceError::Client)?),
    };
    let builder = match ca {
        None => builder,
        Some((path, pem)) => {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes());
            builder.tls_certs_merge(certificates.map_err(|_| of_authority(path))?)
        }
    };
    builder.build().map_err(|error| match ca {
        None => SourceError::Client(error),
        Some((path, _)) => of_authority(path),
    })
}

fn of_authority(path: &Path) -> SourceError {
    SourceError::File {
        key: "fetch_ca_file",
        path: path.display().to_string(),
        message: "holds what are no certificates of an authority, in PEM".into(),
    }
}

async fn read(key: &'static str, path: &Path) -> Result<String, SourceError> {
    let owned = path.to_owned();
    let read = spawn_blocking(move || {
        // Another kind of file may be waited for without an end.
        if owned.is_file() || !owned.exists() {
            config::read_text_file(&owned)
        } else {
            Err("is no file".into())
        }
    });
    let read = read.await;
    let read = read.unwrap_or_else(|_| Err("cannot be read".into()));
    read.map_err(|message| SourceError::File {
        key,
        path: path.display().to_string(),
        message,
    })
}

/// One fetch.
struct Asking {
    client: Client,
    authorization: Option<HeaderValue>,
}

impl Asking {
    /// Where the issuer's keys are (`OpenID` Connect Discovery 1.0, sections 4.1 and 4.3).
    async fn discover(&self, issuer: &str) -> Result<Url, SourceError> {
        let document = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let refused = |why: &str| SourceError::Discovery(why.to_owned());
        let document =
            Url::parse(&document).map_err(|_| refused("cannot be at the issuer's URL"))?;
        let got = self.get(document.clone()).await;
        let (_, text) = got.map_err(|error| at(&document, error))?;
        let found: Discovered =
            serde_json::from_str(&text).map_err(|_| refused("lacks issuer or jwks_uri"))?;
        if found.issuer != issuer {
            let got = quoted(&found.issuer);
            return Err(refused(&format!("is of another issuer, {got}")));
        }
        config::key_source_url(&found.jwks_uri)
            .ok()
            // Whoever is asked over TLS does not lead to where there is none.
            .filter(|url| url.scheme() == "https" || issuer.starts_with("http:"))
            .ok_or_else(|| refused("names a jwks_uri that is not https (http only on loopback)"))
    }

    async fn get(&self, url: Url) -> Result<(HeaderMap, String), SourceError> {
        let mut request = self
            .client
            .get(url.clone())
            .header(ACCEPT, MEDIA_TYPES)
            .header(ACCEPT_ENCODING, "gzip");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let mut response = request.send().await.map_err(|error| fault(&error))?;
        let status = response.status();
        if status != StatusCode::OK {
            let to = response.headers().get(LOCATION);
            let to = to.filter(|_| status.is_redirection());
            return Err(match to.and_then(|to| url.join(to.to_str().ok()?).ok()) {
                Some(to) => SourceError::Redirect {
                    status,
                    to: without_secrets(&to),
                },
                None => SourceError::Status(status),
            });
        }
        let text = text_of(&mut response).await?;
        Ok((std::mem::take(response.headers_mut()), text))
    }
}

fn at(url: &Url, error: SourceError) -> SourceError {
    SourceError::At {
        url: without_secrets(url),
        error: Box::new(error),
    }
}

/// A URL without a user and a password, and of its query only that there is one.
fn without_secrets(url: &Url) -> String {
    let query = url.query().map_or("", |_| "?…");
    let whole = format!("{}{}", url.origin().ascii_serialization(), url.path());
    // Whoever serves a document decides how long what it names is.
    match whole.char_indices().nth(URL_CHARACTERS_MAX) {
        None => format!("{whole}{query}"),
        Some((end, _)) => format!("{}…{query}", &whole[..end]),
    }
}
