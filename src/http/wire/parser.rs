//! Path, query, headers and body → domain types, listing every fault.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::{Path, Url};
use actix_web::http::header::{HeaderMap, HeaderName};
use url::form_urlencoded;

use crate::domain::{Deadline, Region};

use super::arrival::Arrival;
use super::problem::{FieldError, Problem};

/// Most faults that a problem tells one by one (contract: `errors[]`).
const FAULTS_TOLD_MAX: usize = 100;
/// Longest name of what a fault is about; a longer one is cut.
const FAULT_NAME_CHARACTERS_MAX: usize = 100;
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What requests may name and how long they may take.
#[derive(Debug, Clone)]
pub struct RequestBounds {
    /// The region of requests that name none.
    pub region: Region,
    /// The regions that a request may name.
    pub regions: Vec<Region>,
    /// Longest time that a request may take in all.
    pub request_timeout: Duration,
}

/// Whether a change is made or only rehearsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Mode {
    Earnest,
    DryRun,
}

/// Reads one request, gathering faults; [`Parser::finish`] gives them all.
pub(in crate::http) struct Parser<'a> {
    segments: &'a Path<Url>,
    headers: &'a HeaderMap,
    query: BTreeMap<String, String>,
    faults: FieldErrors,
}

/// What is wrong with a request: the first of it in words, and how much there is.
#[derive(Default)]
struct FieldErrors {
    told: Vec<FieldError>,
    count: usize,
}

impl<'a> Parser<'a> {
    /// Begins with the query: a parameter that is not `known`, given twice or empty is a fault.
    pub(in crate::http) fn new(request: &'a HttpRequest, known: &[&str]) -> Self {
        let query = request.query_string();
        Self::of(request.match_info(), query, request.headers(), known)
    }

    /// As [`Parser::new`], of the parts of a request.
    pub(in crate::http) fn of(
        segments: &'a Path<Url>,
        query: &str,
        headers: &'a HeaderMap,
        known: &[&str],
    ) -> Self {
        let mut parser = Self {
            segments,
            headers,
            query: BTreeMap::new(),
            faults: FieldErrors::default(),
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
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
            if known.contains(&name.as_ref()) {
                parser
                    .query
                    .entry(name.into_owned())
                    .or_insert_with(|| value.into_owned());
            }
        }
        parser
    }

    /// Notes what is wrong; of what is wrong too often only that it is.
    pub(in crate::http) fn fault(
        &mut self,
        place: &'static str,
        name: &str,
        detail: impl Into<String>,
    ) {
        self.faults.count += 1;
        if self.faults.told.len() < FAULTS_TOLD_MAX {
            self.faults.told.push(FieldError {
                place,
                name: name.chars().take(FAULT_NAME_CHARACTERS_MAX).collect(),
                detail: detail.into(),
            });
        }
    }

    /// Whether no fault was found so far.
    pub(in crate::http) fn is_sound(&self) -> bool {
        self.faults.count == 0
    }

    /// Whether a fault of the body was found so far.
    pub(in crate::http) fn faults_in_body(&self) -> bool {
        let body = |fault: &FieldError| fault.place == "body";
        self.faults.told.iter().any(body)
    }

    /// A segment of the path.
    pub(in crate::http) fn segment<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.segments.get(name).unwrap_or_default();
        text.parse()
            .map_err(|error: T::Err| self.fault("path", name, error.to_string()))
            .ok()
    }

    /// A parameter of the query that may be absent.
    pub(in crate::http) fn parameter<T, E: Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let told = |fault: &FieldError| fault.place == "query" && fault.name == name;
        let text = self
            .query
            .get(name)
            .filter(|_| !self.faults.told.iter().any(told))?;
        read(text)
            .map_err(|error| self.fault("query", name, error.to_string()))
            .ok()
    }

    /// Whether the query has a parameter, right or wrong.
    pub(in crate::http) fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    /// A header that may be absent; an empty one is.
    pub(in crate::http) fn header<T, E: Display>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let mut values = self.headers.get_all(name);
        let value = values.next().filter(|value| !value.is_empty())?;
        if values.next().is_some() {
            self.fault("header", name, "must be sent once");
            return None;
        }
        read(value.to_str().unwrap_or_default())
            .map_err(|error| self.fault("header", name, error.to_string()))
            .ok()
    }

    /// A whole number of the query, in digits alone: no sign, no leading zero.
    pub(in crate::http) fn whole_number(
        &mut self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        self.parameter(name, |text| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit())
                && (text == "0" || !text.starts_with('0'));
            let number = text.parse().ok();
            let number = number.filter(|number| plain && range.contains(number));
            let (least, most) = (range.start(), range.end());
            number.ok_or_else(|| format!("must be an integer from {least} to {most}"))
        })
    }

    /// A yes or no of the query; no where it is not given.
    pub(in crate::http) fn flag(&mut self, name: &str) -> bool {
        let read = |text: &str| text.parse::<bool>().map_err(|_| "must be true or false");
        self.parameter(name, read).unwrap_or(false)
    }

    /// What `dry_run` says.
    pub(in crate::http) fn mode(&mut self) -> Mode {
        if self.flag("dry_run") {
            Mode::DryRun
        } else {
            Mode::Earnest
        }
    }

    /// The region that the request names, or the default.
    pub(in crate::http) fn region(&mut self, bounds: &RequestBounds) -> Region {
        let served = |text: &str| {
            let region = text
                .parse()
                .ok()
                .filter(|region| bounds.regions.contains(region));
            region.ok_or_else(|| {
                let regions: Vec<&str> = bounds.regions.iter().map(Region::as_str).collect();
                format!("must be one of {}", regions.join(", "))
            })
        };
        self.parameter("region", served)
            .unwrap_or_else(|| bounds.region.clone())
    }

    /// Ends the reading with what was read; `None` is a value whose fault was noted.
    ///
    /// # Errors
    /// 400 with every fault, where there was one.
    pub(in crate::http) fn finish<T>(self, read: Option<T>) -> Result<T, Problem> {
        let count = self.faults.count;
        self.read(read)
            .map_err(|faults| Problem::invalid(faults, count))
    }

    /// As [`Parser::finish`], for whoever answers nobody.
    ///
    /// # Errors
    /// The faults.
    pub(in crate::http) fn read<T>(self, read: Option<T>) -> Result<T, Vec<FieldError>> {
        match read {
            Some(read) if self.faults.count == 0 => Ok(read),
            _ => Err(self.faults.told),
        }
    }
}

/// Until when the caller waits: the configured time, or less where `Prefer: wait=SECONDS` asks for less.
pub(in crate::http) fn deadline(request: &HttpRequest, bounds: &RequestBounds) -> Deadline {
    let wait = request
        .headers()
        .get_all(PREFER)
        .filter_map(|value| value.to_str().ok())
        .find_map(preferred_wait);
    let wait = wait.map_or(bounds.request_timeout, |wait| {
        wait.min(bounds.request_timeout)
    });
    // What was spent until now, on keys that had to be fetched or on a body, was the caller's time too.
    let spent = Arrival::of(request).since.elapsed();
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
