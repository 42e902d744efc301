//! Path, query, headers and body → domain types, listing every fault.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use actix_web::http::header::HeaderName;
use actix_web::web::Payload;
use actix_web::{HttpMessage as _, HttpRequest};
use futures_util::StreamExt as _;
use tokio::time::timeout;
use url::form_urlencoded;

use crate::domain::{Deadline, Region};
use crate::problem::ProblemKind;

use super::Rules;
use super::observe::Arrival;
use super::problem::{FieldError, Problem};

/// How long a body may keep the gateway waiting.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a body that are read.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Reads one request, gathering faults; [`Parser::finish`] gives them all.
pub(super) struct Parser<'a> {
    request: &'a HttpRequest,
    query: BTreeMap<String, String>,
    faults: Vec<FieldError>,
}

impl<'a> Parser<'a> {
    /// Begins with the query: a parameter that is not `known`, given twice or empty is a fault.
    pub(super) fn new(request: &'a HttpRequest, known: &[&str]) -> Self {
        let mut parser = Self {
            request,
            query: BTreeMap::new(),
            faults: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(request.query_string().as_bytes()) {
            let fault = if !known.contains(&name.as_ref()) {
                Some("is no parameter of this path")
            } else if parser.query.contains_key(name.as_ref()) {
                Some("must be given once")
            } else if value.is_empty() {
                Some("must not be empty")
            } else if value.contains(char::REPLACEMENT_CHARACTER) {
                Some("must be UTF-8")
            } else {
                None
            };
            if let Some(detail) = fault {
                parser.fault("query", &name, detail);
            }
            parser
                .query
                .entry(name.into_owned())
                .or_insert_with(|| value.into_owned());
        }
        parser
    }

    pub(super) fn fault(&mut self, place: &'static str, name: &str, detail: impl Into<String>) {
        let name = name.chars().take(100).collect();
        self.faults.push(FieldError {
            place,
            name,
            detail: detail.into(),
        });
    }

    /// Whether no fault was found so far.
    pub(super) fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// Whether a fault of the body was found so far.
    pub(super) fn faults_in_body(&self) -> bool {
        self.faults.iter().any(|fault| fault.place == "body")
    }

    /// A segment of the path.
    pub(super) fn segment<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.request.match_info().get(name).unwrap_or_default();
        text.parse()
            .map_err(|error: T::Err| self.fault("path", name, error.to_string()))
            .ok()
    }

    /// A parameter of the query that may be absent.
    pub(super) fn parameter<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let told = |fault: &FieldError| fault.place == "query" && fault.name == name;
        let text = self
            .query
            .get(name)
            .filter(|_| !self.faults.iter().any(told))?;
        read(text)
            .map_err(|error| self.fault("query", name, error.to_string()))
            .ok()
    }

    /// A header that may be absent; an empty one is.
    pub(super) fn header<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let mut values = self.request.headers().get_all(name);
        let value = values.next().filter(|value| !value.is_empty())?;
        if values.next().is_some() {
            self.fault("header", name, "must be sent once");
            return None;
        }
        read(value.to_str().unwrap_or_default())
            .map_err(|error| self.fault("header", name, error.to_string()))
            .ok()
    }

    /// The region that the request names, or the default.
    pub(super) fn region(&mut self, rules: &Rules) -> Region {
        let served = |text: &str| {
            let region = text
                .parse()
                .ok()
                .filter(|region| rules.regions.contains(region));
            region.ok_or_else(|| {
                let regions: Vec<&str> = rules.regions.iter().map(Region::as_str).collect();
                format!("must be one of {}", regions.join(", "))
            })
        };
        self.parameter("region", served)
            .unwrap_or_else(|| rules.region.clone())
    }

    /// Whether a change is only to be rehearsed (`dry_run=true`).
    pub(super) fn dry_run(&mut self) -> bool {
        let read = |text: &str| text.parse::<bool>().map_err(|_| "must be true or false");
        self.parameter("dry_run", read).unwrap_or(false)
    }

    /// Finds that a body came where none is taken.
    ///
    /// # Errors
    /// 408 where a body was announced and does not come.
    pub(super) async fn no_body(&mut self, mut payload: Payload) -> Result<(), Problem> {
        let late = |_| Problem::new(ProblemKind::RequestTimeout, "the body did not come in time");
        // Read to its end, so that the connection can serve the next request; what is longer is left unread.
        let whole = async {
            let mut bytes = 0;
            while bytes <= BODY_BYTES_MAX {
                match payload.next().await {
                    None => break,
                    Some(Ok(chunk)) => bytes += chunk.len(),
                    Some(Err(_)) => return true,
                }
            }
            bytes > 0
        };
        if timeout(BODY_TIMEOUT, whole).await.map_err(late)? {
            self.fault("body", "body", "must be empty: this method takes no body");
        }
        Ok(())
    }

    /// Ends the reading with what was read; `None` is a value whose fault was noted.
    ///
    /// # Errors
    /// 400 with every fault, where there was one.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, Problem> {
        match read {
            Some(read) if self.faults.is_empty() => Ok(read),
            _ => Err(Problem::invalid(self.faults)),
        }
    }
}

/// Until when the caller waits: the configured time, or less where `Prefer: wait=SECONDS` asks for less.
pub(super) fn deadline(request: &HttpRequest, rules: &Rules) -> Deadline {
    let wait = request
        .headers()
        .get_all(PREFER)
        .filter_map(|value| value.to_str().ok())
        .find_map(preferred_wait);
    let wait = wait.map_or(rules.request_timeout, |wait| {
        wait.min(rules.request_timeout)
    });
    // What was spent until now, on keys that had to be fetched or on a body, was the caller's time too.
    let extensions = request.extensions();
    let spent = extensions
        .get::<Arrival>()
        .map_or(Duration::ZERO, |arrival| arrival.since.elapsed());
    Deadline::after(wait.saturating_sub(spent))
}

/// The `wait` of a `Prefer` header (RFC 7240, section 4.3). Only the first counts, a malformed one is
/// ignored (section 2), and none is shorter than a second.
fn preferred_wait(header: &str) -> Option<Duration> {
    let mut quoted = false;
    let between = |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    header.split(between).find_map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("wait") {
            return None;
        }
        let value = value.trim();
        let value = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(value);
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| Duration::from_secs(value.parse().unwrap_or(u64::MAX).max(1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_as_rfc_7240_says() {
        let seconds = |header| preferred_wait(header).map(|wait| wait.as_secs());
        assert_eq!(seconds("wait=5"), Some(5));
        assert_eq!(seconds("respond-async, WAIT=\"7\"; x=1"), Some(7));
        assert_eq!(seconds("wait = 3, wait=9"), Some(3));
        assert_eq!(seconds("foo=\"a, wait=1, b\", wait=4"), Some(4));
        assert_eq!(seconds("wait=0"), Some(1));
        assert_eq!(seconds("wait=99999999999999999999999"), Some(u64::MAX));
        for ignored in [
            "",
            "wait",
            "wait=",
            "wait=-1",
            "wait=1.5",
            "wait=soon",
            "handling=lenient",
            "wait=\"1",
        ] {
            assert_eq!(seconds(ignored), None, "{ignored:?}");
        }
    }
}
