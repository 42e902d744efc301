//! Values as operators write them: durations and URLs; and how those are shown.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use url::{Host, Url};

/// Reads a duration: a whole number and one unit, as in `250ms`, `10s`, `5m`, `1h`.
///
/// jiff and humantime read more: `1.5s`, `1 hour`, `2 months`. What an operator writes by mistake would pass for another
/// duration than was meant.
///
/// # Errors
/// What a right one looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_each: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(DURATION_FORM.into()),
    };
    let number: u64 = number.parse().map_err(|_| DURATION_FORM)?;
    // A year: far beyond any use, and far below what would overflow a point in time.
    let millis = number
        .checked_mul(millis_each)
        .filter(|millis| *millis <= 365 * 24 * 3_600_000);
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "must be at most a year".into())
}

const DURATION_FORM: &str = "must be a duration, such as 10s or 250ms";

/// Whether a URL's host is this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Reads the URL of a key source: whoever can change its answer can make tokens, so it is https.
///
/// # Errors
/// What a right one looks like.
pub fn key_source_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) => {
            Ok(url)
        }
        _ => Err("must be an https URL (http only on loopback)".into()),
    }
}

/// Where callers reach the gateway: a base URL, perhaps with a path that a proxy takes off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Url);

impl PublicUrl {
    /// Whether callers come over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The URL of `path`, which begins with a slash.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for PublicUrl {
    /// Without a slash at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |url: &Url| {
            matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        };
        let url = Url::parse(text).ok().filter(plain).map(Self);
        url.ok_or_else(|| {
            "must be a base URL of http or https, such as https://gateway.example.com/images-api"
                .into()
        })
    }
}

/// What is shown in place of a secret.
pub(super) const REDACTED: &str = "(redacted)";

/// A value that is shown, without what a URL may keep secret: who asks, a query, a fragment; also where it is no URL but by a
/// slip.
pub(super) fn without_secrets(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (who, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    let whole = if scheme.is_empty() {
        // A name at a host alone may be anything; at a port it is who asks a proxy.
        let port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.starts_with(|digit: char| digit.is_ascii_digit()));
        let names_who = who.contains(':') || (port && !who.is_empty());
        if !names_who && !rest.contains('?') {
            return text.to_owned();
        }
        format!("http://{rest}")
    } else {
        text.to_owned()
    };
    let parsed = Url::parse(&whole).ok();
    let plain = |url: &Url| url.username().is_empty() && url.password().is_none();
    // Behind an `@` stands a host, and before it a password where there is a colon: one that holds a `/`, a `#` or an `@`
    // is cut elsewhere by whoever reads the URL.
    let read = parsed.as_ref().is_some_and(|url| !plain(url));
    if who.contains(':') && (!read || who.contains('@')) {
        return REDACTED.into();
    }
    let Some(mut url) = parsed else {
        return text.to_owned();
    };
    if plain(&url) && url.query().is_none() && url.fragment().is_none() {
        return text.to_owned();
    }
    if !plain(&url) && (url.set_password(None).is_err() || url.set_username("redacted").is_err()) {
        return REDACTED.into();
    }
    if url.query().is_some() {
        url.set_query(Some("redacted"));
    }
    if url.fragment().is_some() {
        url.set_fragment(Some("redacted"));
    }
    url.into()
}

/// A path that is shown. Whoever gives a secret where its file should be named finds it nowhere: what is no file, and has
/// nothing of a path, is not shown.
pub(super) fn shown_path(text: &str) -> String {
    let like_path = (text.contains(['/', '.']) && !text.starts_with("eyJ")) || text.len() < 8;
    if text.contains("://") || text.contains('@') {
        without_secrets(text)
    } else if like_path || Path::new(text).exists() {
        text.to_owned()
    } else {
        REDACTED.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for (text, safe) in [
            ("https://login.example.com/keys", true),
            ("http://127.0.0.1:8080/keys", true),
            ("http://localhost/keys", true),
            ("http://login.example.com/keys", false),
            ("ftp://127.0.0.1/keys", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(key_source_url(text).is_ok(), safe, "{text}");
        }
    }

    #[test]
    fn what_a_url_may_keep_secret_is_not_shown() {
        for (text, expected) in [
            ("https://api.compshare.cn", "https://api.compshare.cn"),
            ("http://proxy:3128", "http://proxy:3128"),
            (
                "http://user:hunter2@proxy:3128",
                "http://redacted@proxy:3128/",
            ),
            ("user:hunter2@proxy:3128", "http://redacted@proxy:3128/"),
            (
                "https://keys.example/jwks?key=hunter2",
                "https://keys.example/jwks?redacted",
            ),
            ("http://a:hunter2@[", "(redacted)"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("scope, scp", "scope, scp"),
            ("team@example.com", "team@example.com"),
            (
                "https://keys.example/y#hunter2",
                "https://keys.example/y#redacted",
            ),
            ("http://u:12#hunter2@px:1/", "(redacted)"),
            ("http//u:hunter2@x", "(redacted)"),
            ("u:hunter2@x", "http://redacted@x/"),
            ("http://u:SEC@hunter2/x@px:1", "(redacted)"),
            ("hunter2@proxy:3128", "http://redacted@proxy:3128/"),
            (
                "keys.example/jwks?key=hunter2",
                "http://keys.example/jwks?redacted",
            ),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }
}
