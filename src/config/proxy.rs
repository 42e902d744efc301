//! Proxies for what goes out: who is asked instead of whom.
//!
//! The variables are read here and not by the HTTP client, so that what it cannot use is told by name before it is used.

use std::collections::BTreeMap;
use std::fmt;

use reqwest::NoProxy;
use url::Url;

/// An HTTP proxy that connects to others (`CONNECT`).
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is; perhaps with a user and a password.
    pub url: Url,
    /// Hosts that are asked without it, as `NO_PROXY` lists them.
    pub except: Option<String>,
}

impl Proxy {
    /// What an HTTP client makes of it.
    ///
    /// # Errors
    /// What the client says of the URL.
    pub fn for_client(&self) -> reqwest::Result<reqwest::Proxy> {
        let except = self.except.as_deref().and_then(NoProxy::from_string);
        Ok(reqwest::Proxy::https(self.url.clone())?.no_proxy(except))
    }
}

/// Without what its URL may keep secret.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.url.host_str(), self.url.port_or_known_default());
        write!(
            f,
            "{}:{}",
            host.unwrap_or_default(),
            port.unwrap_or_default()
        )
    }
}

/// Variables that name a proxy for https, the first of them that is set.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const EXCEPT_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What the environment says of proxies.
#[derive(Clone)]
pub(super) struct ProxyVariables {
    named: Option<(&'static str, String)>,
    except: Option<String>,
}

impl ProxyVariables {
    pub(super) fn of(environment: &BTreeMap<String, String>) -> Self {
        let value = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let mut named = VARIABLES
            .into_iter()
            .filter_map(|name| Some((name, value(name)?.clone())));
        let mut except = EXCEPT_VARIABLES.into_iter().filter_map(value);
        Self {
            named: named.next(),
            except: except.next().cloned(),
        }
    }

    /// The variable that names a proxy, and what it says.
    pub(super) fn named(&self) -> Option<(&'static str, &str)> {
        let (name, text) = self.named.as_ref()?;
        Some((name, text))
    }

    /// The proxy that the environment names for `url`.
    ///
    /// # Errors
    /// Which variable names what is no HTTP proxy.
    pub(super) fn proxy(&self, url: Option<&Url>) -> Result<Option<Proxy>, String> {
        let host = url.and_then(Url::host_str).unwrap_or_default();
        let Some((name, text)) = self.named.as_ref().filter(|_| !self.excepts(host)) else {
            return Ok(None);
        };
        let url = proxy_url(text).map_err(|why| format!("{name} of the environment {why}"))?;
        Ok(Some(Proxy {
            url,
            except: self.except.clone(),
        }))
    }

    /// Whether `NO_PROXY` names a host, or a domain that it is of; what else it may hold is for the client to read.
    fn excepts(&self, host: &str) -> bool {
        let mut named = self.except.iter().flat_map(|all| all.split(','));
        named.any(|one| {
            let one = one.trim().trim_start_matches('.');
            let domain = host.strip_suffix(one).unwrap_or("x");
            one == "*" || (!one.is_empty() && (domain.is_empty() || domain.ends_with('.')))
        })
    }
}

/// Whether it names a host and nothing at it.
fn is_bare(url: &Url) -> bool {
    url.path() == "/" && url.query().is_none() && url.fragment().is_none()
}

/// Reads the URL of an HTTP proxy; `host:port` is one too, as other programs take it.
pub(super) fn proxy_url(text: &str) -> Result<Url, String> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&whole).ok().filter(Url::has_host);
    match url {
        Some(url) if url.scheme() == "http" && is_bare(&url) => Ok(url),
        Some(url) if url.scheme().starts_with("socks") => {
            Err("names a SOCKS proxy, and only HTTP proxies (http://host:port) are used".into())
        }
        _ => Err("must name an HTTP proxy, such as http://proxy.example.com:3128".into()),
    }
}
