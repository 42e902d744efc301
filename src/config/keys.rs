//! Every key there is: what holds where nobody sets it, and what it is for.
//!
//! The one list: defaults are read here, an unknown key is one that is not here, and `config.example.toml`, the table of
//! keys in the documentation and what `check-config` prints are made of it.

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// `section.key`, as faults name it.
    pub(super) name: &'static str,
    /// What holds where nobody sets it.
    pub(super) unset: Unset,
    /// What it is for, in one line.
    pub(super) meaning: &'static str,
    /// Whether SIGHUP reads it again, or what it names.
    pub(super) reloaded: bool,
    /// Whether its value may not be shown. `name_file` then names a file that holds it.
    pub(super) secret: bool,
}

/// What holds where nobody sets a key. Values are written as TOML writes them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unset {
    /// This value.
    Default(&'static str),
    /// What the words say; the example is a value that it could have.
    Otherwise {
        /// What holds.
        words: &'static str,
        /// A value.
        example: &'static str,
    },
    /// Nothing: it has to be set, to something like this.
    Required(&'static str),
}

impl Key {
    /// A value that it could have, as TOML: its default, where there is one.
    #[must_use]
    pub(super) fn example(&self) -> &'static str {
        match self.unset {
            Unset::Default(value) | Unset::Required(value) => value,
            Unset::Otherwise { example, .. } => example,
        }
    }

    /// Its section, and its name in there.
    #[must_use]
    pub(super) fn place(&self) -> (&'static str, &'static str) {
        // Each has one dot: a test holds it.
        self.name.split_once('.').unwrap_or(("", self.name))
    }

    /// What it is for, and whether it is read again.
    #[must_use]
    pub(super) fn note(&self) -> String {
        let again = if self.reloaded {
            "; read again at SIGHUP"
        } else {
            ""
        };
        format!("{}{again}", self.meaning)
    }

    /// The key that names a file with its value, where there is one.
    #[must_use]
    pub(super) fn file_key(&self) -> Option<String> {
        self.secret.then(|| format!("{}_file", self.name))
    }
}

const fn key(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        unset: Unset::Default(default),
        meaning,
        reloaded: false,
        secret: false,
    }
}

const fn optional(
    name: &'static str,
    words: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        unset: Unset::Otherwise { words, example },
        meaning,
        reloaded: false,
        secret: false,
    }
}

const fn required(name: &'static str, example: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        unset: Unset::Required(example),
        meaning,
        reloaded: false,
        secret: false,
    }
}

const fn reloaded(key: Key) -> Key {
    Key {
        reloaded: true,
        ..key
    }
}

const fn secret(key: Key) -> Key {
    Key {
        secret: true,
        ..key
    }
}

/// The key whose tables are further issuers.
pub(super) const ISSUERS: &str = "auth.issuers";

/// All of them, section by section.
#[rustfmt::skip]
pub(super) const KEYS: [Key; 48] = [
    key("server.bind", r#""127.0.0.1:8080""#, "where REST is served"),
    key("server.admin_bind", r#""127.0.0.1:9090""#, "where /metrics, /livez and /readyz are served, with what each check says; empty turns it off"),
    key("server.shutdown_timeout", r#""30s""#, "the longest time that calls in flight get at a stop"),
    key("server.request_timeout", r#""30s""#, "the longest time that a change may take in all, queue and retries included"),
    key("server.drain_delay", r#""0s""#, "how long serving goes on after SIGTERM, while /readyz is 503 already, so that load balancers see it"),
    reloaded(optional("server.tls_cert_file", "no TLS", r#""/etc/image-share-gateway/tls.crt""#, "the certificate chain of the REST listener, PEM")),
    reloaded(optional("server.tls_key_file", "no TLS", r#""/etc/image-share-gateway/tls.key""#, "its private key, PEM, of any kind")),
    reloaded(optional("server.client_ca_file", "no client certificates", r#""/etc/image-share-gateway/clients.crt""#, "with TLS: clients must have certificates of these authorities, PEM")),
    key("server.trusted_proxies", "[]", "networks whose proxies are believed about where a request came from"),
    key("server.client_address_header", r#""x-forwarded-for""#, "the header in which they say it, or `forwarded`; the other one is never looked at"),
    key("server.keep_alive", r#""75s""#, "how long a connection on which nothing is asked is kept; longer than the load balancer keeps it"),
    key("server.max_connections", "0", "connections at once; 0: what the limit of open files allows"),
    optional("server.public_url", "links are relative", r#""https://gateway.example.com/images-api""#, "where callers reach the gateway, with the path prefix that a proxy takes off"),
    key("server.cors_origins", "[]", "origins of pages that may call from a browser"),
    required("auth.issuer", r#""https://login.example.com""#, "the `iss` of tokens, to the letter"),
    required("auth.audience", r#""image-share-gateway""#, "what `aud` must be or contain"),
    reloaded(optional("auth.jwks_file", "another source of keys", r#""/etc/image-share-gateway/keys.json""#, "source of keys: a file with a JWK Set; this, jwks_url or oidc_discovery is required")),
    optional("auth.jwks_url", "another source of keys", r#""https://login.example.com/keys""#, "source of keys: a URL of a JWK Set"),
    key("auth.oidc_discovery", "false", "source of keys: the URL that the issuer's discovery document names"),
    key("auth.leeway", r#""30s""#, "clock skew allowed in `exp`, `nbf` and `iat`"),
    key("auth.scope_claims", r#"["scope", "scp"]"#, "the claims in which scopes are looked for"),
    key("auth.scopes", "{}", "what values of those claims stand for: {\"Shares.Write\" = [\"shares:read\", \"shares:write\"]}"),
    key("auth.groups_claim", r#""groups""#, "the claim with groups"),
    key("auth.policy_claims", "[]", "claims that policies see as tags of the principal"),
    optional("auth.fetch_ca_file", "the system's authorities", r#""/var/run/secrets/kubernetes.io/serviceaccount/ca.crt""#, "authorities to trust besides those of the system where keys are fetched, PEM"),
    optional("auth.fetch_token_file", "no token is sent", r#""/var/run/secrets/kubernetes.io/serviceaccount/token""#, "a bearer token to send where keys are fetched; read at each fetch"),
    key(ISSUERS, "[]", "further issuers, a table each: name, grant, and every key of auth but leeway"),
    reloaded(optional("authorization.policy_file", "scopes alone decide", r#""/etc/image-share-gateway/policies.cedar""#, "Cedar policies")),
    key("upstream.base_url", r#""https://api.compshare.cn""#, "the Action API"),
    key("upstream.region", r#""cn-wlcb""#, "the region of requests that name none"),
    optional("upstream.regions", "upstream.region alone", r#"["cn-wlcb", "cn-sh2"]"#, "the regions that callers may name"),
    optional("upstream.project_id", "none is sent", r#""org-example""#, "sent as ProjectId; sub-accounts need it"),
    reloaded(secret(required("upstream.public_key", r#""the public key""#, "the public key of the cloud's account"))),
    reloaded(secret(required("upstream.private_key", r#""the private key""#, "the private key"))),
    key("upstream.timeout", r#""10s""#, "the longest time of one call, whole"),
    key("upstream.connect_timeout", r#""3s""#, "the longest time to connect"),
    key("upstream.max_retries", "3", "how often a call that failed is made again, where that may help"),
    key("upstream.max_in_flight", "64", "calls at once"),
    key("upstream.requests_per_second", "0", "calls a second, shared fairly over images; 0: no bound"),
    optional("upstream.zone", "none is sent", r#""cn-wlcb-01""#, "sent where the action that lists images needs it"),
    optional("upstream.proxy", "HTTPS_PROXY, NO_PROXY", r#""http://proxy.example.com:3128""#, "an HTTP proxy for calls to the Action API; `none` for no proxy"),
    secret(key("audit.database_url", r#""sqlite://data/audit.db""#, "where the audit trail lies")),
    key("limits.requests_per_second", "50", "requests a second of one subject; 0 turns the limit off"),
    key("limits.burst", "100", "how many of them at once"),
    key("limits.failed_authentications_per_minute", "60", "of one client address, past which it is 429; 0 turns the limit off"),
    optional("telemetry.log_format", "json; text on a terminal", r#""json""#, "`json` or `text`"),
    optional("telemetry.otlp_endpoint", "no traces", r#""http://127.0.0.1:4318""#, "where traces go: OTLP over HTTP, at /v1/traces under this"),
    key("telemetry.trace_sample_ratio", "1.0", "of traces that begin here, how many are kept, 0 to 1; a caller's traceparent decides for its own"),
];

/// Keys of each table of `auth.issuers` beside those of `auth`.
pub(super) const OF_FURTHER_ISSUERS: [&str; 2] = ["name", "grant"];
/// Keys of `auth` that its further issuers do not have.
const OF_THE_FIRST_ISSUER: [&str; 2] = ["auth.leeway", ISSUERS];

/// The key of this name, or the one that it names a file for.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    let named = |key: &&Key| key.name == name;
    let by_file = |key: &&Key| key.secret && name.strip_suffix("_file") == Some(key.name);
    KEYS.iter().find(|key| named(key) || by_file(key))
}

pub(super) fn is_key(name: &str) -> bool {
    find(name).is_some()
}

pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.place().0 == name)
}

/// Whether `name` is a key of the tables of `auth.issuers`.
pub(super) fn is_key_of_issuer(name: &str) -> bool {
    let of_auth = format!("auth.{name}");
    OF_FURTHER_ISSUERS.contains(&name)
        || (is_key(&of_auth) && !OF_THE_FIRST_ISSUER.contains(&of_auth.as_str()))
}

/// The key of the list that a key of a further issuer's table is like: `auth.issuers.ci.jwks_file` is `auth.jwks_file`.
pub(super) fn like(name: &str) -> String {
    let in_table = name
        .strip_prefix(ISSUERS)
        .filter(|rest| rest.starts_with(['.', '[']));
    match in_table.and_then(|rest| rest[1..].split_once('.')) {
        Some((_, name)) => format!("auth.{name}"),
        None => name.to_owned(),
    }
}

/// What a key is where nobody sets it, in a table of further issuers too.
pub(super) fn default_of(name: &str) -> Option<toml::Value> {
    match find(&like(name))?.unset {
        Unset::Default(text) => value(text),
        Unset::Otherwise { .. } | Unset::Required(_) => None,
    }
}

/// The region of requests that name none, where nobody sets another.
#[must_use]
pub fn default_region() -> String {
    let region = default_of("upstream.region");
    region
        .as_ref()
        .and_then(toml::Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A value as TOML writes it.
pub(super) fn value(text: &str) -> Option<toml::Value> {
    let mut table = format!("value = {text}").parse::<toml::Table>().ok()?;
    (table.len() == 1).then(|| table.remove("value"))?
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_is_listed_once_in_a_section_with_a_value_that_can_be_read() {
        let names: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), KEYS.len());
        for key in &KEYS {
            let (section, name) = key.place();
            assert!(!section.is_empty() && !name.contains('.'), "{}", key.name);
            assert!(value(key.example()).is_some(), "{}", key.name);
            assert!(!key.meaning.contains(['\n', '|']), "{}", key.name);
        }
        let sections: Vec<&str> = KEYS.iter().map(|key| key.place().0).collect();
        let mut once = sections.clone();
        once.dedup();
        let distinct: BTreeSet<&str> = sections.into_iter().collect();
        assert_eq!(once.len(), distinct.len(), "sections stand together");
    }
}
