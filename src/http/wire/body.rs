//! Bodies in JSON: read within bounds, every fault listed.
//!
//! Members are kept as they were written until somebody asks for one, so that a number is judged by its digits and not
//! by what a floating-point number makes of it.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Payload;
use futures_util::StreamExt as _;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::domain::{ACCOUNT_ID_MAX, ACCOUNTS_MAX, AccountId, InvalidReason, Reason};
use crate::problem::ProblemKind;

use super::integer::integer;
use super::parser::Parser;
use super::problem::Problem;

/// How long a body may keep the gateway waiting.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a body that are read.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The members of a JSON object, in their order; a name may come twice, which is for the reader to refuse.
pub(in crate::http) struct Body {
    members: Vec<(String, Box<RawValue>)>,
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Body;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Body { members })
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// Reads a body whole; `None` where there is none.
///
/// # Errors
/// 413 where it is too long, 408 where it does not come, 415 where it is no JSON by its headers, 400 where it is broken
/// off.
pub(in crate::http) async fn read(
    request: &HttpRequest,
    mut payload: Payload,
) -> Result<Option<Vec<u8>>, Problem> {
    let too_large = || {
        let detail = format!("a body may take {BODY_BYTES_MAX} bytes");
        Problem::new(ProblemKind::PayloadTooLarge, detail)
    };
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let whole = async {
        while let Some(chunk) = payload.next().await {
            let broken = |_| Problem::invalid_value("body", "body", "did not come whole");
            let chunk = chunk.map_err(broken)?;
            if bytes.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let late = |_| Problem::new(ProblemKind::RequestTimeout, "the body did not come in time");
    timeout(BODY_TIMEOUT, whole).await.map_err(late)??;
    if bytes.is_empty() {
        return Ok(None);
    }
    require_json(request)?;
    Ok(Some(bytes))
}

/// Finds that a body is no JSON by its headers.
///
/// # Errors
/// 415.
pub(in crate::http) fn require_json(request: &HttpRequest) -> Result<(), Problem> {
    let headers = request.headers();
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok()?.split(';').next());
    let is_json = media_type
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"));
    let is_plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_json && is_plain {
        Ok(())
    } else {
        let detail = "send the body as application/json, without a content encoding";
        Err(Problem::new(ProblemKind::UnsupportedMediaType, detail))
    }
}

/// Finds that a body came where none is taken.
///
/// # Errors
/// 408 where a body was announced and does not come.
pub(in crate::http) async fn no_body(
    mut payload: Payload,
    parser: &mut Parser<'_>,
) -> Result<(), Problem> {
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
    let late = |_| Problem::new(ProblemKind::RequestTimeout, "the body did not come in time");
    if timeout(BODY_TIMEOUT, whole).await.map_err(late)? {
        parser.fault("body", "body", "must be empty: this method takes no body");
    }
    Ok(())
}

impl Body {
    /// A body without members.
    pub(in crate::http) fn empty() -> Self {
        let members = Vec::new();
        Self { members }
    }

    /// Reads an object; one that is none is a fault.
    pub(in crate::http) fn parse(bytes: &[u8], parser: &mut Parser<'_>) -> Self {
        match serde_json::from_slice::<Self>(bytes) {
            Ok(body) => body,
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let detail = if error.is_data() {
                    "must be a JSON object".to_owned()
                } else {
                    format!("must be JSON; it is not at line {line}, column {column}")
                };
                parser.fault("body", "body", detail);
                Self::empty()
            }
        }
    }

    /// Takes a member out; one that comes twice is a fault.
    fn take(&mut self, name: &str, parser: &mut Parser<'_>) -> Option<Box<RawValue>> {
        let mut found = None;
        let mut twice = false;
        for index in (0..self.members.len()).rev() {
            if self.members[index].0 == name {
                twice |= found.replace(self.members.remove(index).1).is_some();
            }
        }
        if twice {
            parser.fault("body", name, "must be given once");
        }
        found
    }

    /// A list of accounts; `None` where there is none, empty where one of them is none.
    pub(in crate::http) fn accounts(
        &mut self,
        name: &str,
        parser: &mut Parser<'_>,
    ) -> Option<Vec<AccountId>> {
        let value = self.take(name, parser)?;
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value.get()) else {
            parser.fault("body", name, "must be an array of account ids");
            return Some(Vec::new());
        };
        if items.len() > ACCOUNTS_MAX {
            parser.fault("body", name, format!("may hold {ACCOUNTS_MAX} accounts"));
            return Some(Vec::new());
        }
        let mut accounts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match account(item) {
                Some(account) => accounts.push(account),
                None => not_an_account(&format!("{name}[{index}]"), parser),
            }
        }
        Some(accounts)
    }

    /// One account.
    pub(in crate::http) fn account(
        &mut self,
        name: &str,
        parser: &mut Parser<'_>,
    ) -> Option<AccountId> {
        let value = self.take(name, parser)?;
        let account = account(&value);
        if account.is_none() {
            not_an_account(name, parser);
        }
        account
    }

    /// A number from 0 up.
    pub(in crate::http) fn count(&mut self, name: &str, parser: &mut Parser<'_>) -> Option<usize> {
        let value = self.take(name, parser)?;
        let number = integer(value.get()).and_then(|number| usize::try_from(number).ok());
        if number.is_none() {
            parser.fault("body", name, "must be an integer from 0 up");
        }
        number
    }

    /// A text.
    pub(in crate::http) fn text(&mut self, name: &str, parser: &mut Parser<'_>) -> Option<String> {
        let value = self.take(name, parser)?;
        let text = serde_json::from_str::<String>(value.get()).ok();
        if text.is_none() {
            parser.fault("body", name, "must be text");
        }
        text
    }

    /// A yes or no.
    pub(in crate::http) fn flag(&mut self, name: &str, parser: &mut Parser<'_>) -> Option<bool> {
        let value = self.take(name, parser)?;
        let flag = serde_json::from_str::<bool>(value.get()).ok();
        if flag.is_none() {
            parser.fault("body", name, "must be true or false");
        }
        flag
    }

    /// Why.
    pub(in crate::http) fn reason(&mut self, parser: &mut Parser<'_>) -> Option<Reason> {
        let text = self.text("reason", parser)?;
        text.parse()
            .map_err(|error: InvalidReason| parser.fault("body", "reason", error.to_string()))
            .ok()
    }

    /// What is left has no meaning here.
    pub(in crate::http) fn refuse_rest(self, parser: &mut Parser<'_>) {
        for (name, _) in self.members {
            parser.fault("body", &name, "is no member of this body");
        }
    }
}

fn account(value: &RawValue) -> Option<AccountId> {
    integer(value.get()).and_then(|number| AccountId::try_from(number).ok())
}

fn not_an_account(name: &str, parser: &mut Parser<'_>) {
    let detail = format!("must be a JSON number, an integer from 1 to {ACCOUNT_ID_MAX}");
    parser.fault("body", name, detail);
}

/// Finds accounts that are named twice, and too many of them.
pub(in crate::http) fn no_account_twice<'a>(
    lists: impl IntoIterator<Item = (&'a str, &'a [AccountId])>,
    parser: &mut Parser<'_>,
) {
    let mut seen = HashSet::new();
    let mut count = 0;
    for (name, accounts) in lists {
        count += accounts.len();
        for (index, account) in accounts.iter().enumerate() {
            if !seen.insert(*account) {
                let detail = format!("account {account} is named twice");
                parser.fault("body", &format!("{name}[{index}]"), detail);
            }
        }
    }
    if count > ACCOUNTS_MAX {
        parser.fault("body", "body", format!("may name {ACCOUNTS_MAX} accounts"));
    }
}
