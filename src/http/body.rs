//! Bodies in JSON: read within bounds, every fault listed.

use std::fmt;

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Payload;
use futures_util::StreamExt as _;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use tokio::time::timeout;

use crate::domain::{AccountId, Reason};
use crate::problem::ProblemKind;

use super::parse::{BODY_BYTES_MAX, BODY_TIMEOUT, Parser};
use super::problem::Problem;

/// Most accounts that a request may name.
pub(super) const ACCOUNTS_MAX: usize = 1000;

/// The members of a JSON object, in their order; a name may come twice, which is for the reader to refuse.
pub(super) struct Body {
    members: Vec<(String, Value)>,
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

/// Reads a body whole.
///
/// # Errors
/// 415 where it is no JSON by its headers, 413 where it is too long, 408 where it does not come.
pub(super) async fn read(request: &HttpRequest, mut payload: Payload) -> Result<Vec<u8>, Problem> {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let media_type = text(header::CONTENT_TYPE).and_then(|value| value.split(';').next());
    let is_json = media_type
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"));
    let is_plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if !is_json || !is_plain {
        let detail = "send the body as application/json, without a content encoding";
        return Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
    }
    let too_large = || {
        let detail = format!("a body may take {BODY_BYTES_MAX} bytes");
        Problem::new(ProblemKind::PayloadTooLarge, detail)
    };
    let announced = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let late = |_| Problem::new(ProblemKind::RequestTimeout, "the body did not come in time");
    let whole = async {
        while let Some(chunk) = payload.next().await {
            let Ok(chunk) = chunk else {
                // What came is no body; it will not read as JSON either.
                bytes.clear();
                break;
            };
            if bytes.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(())
    };
    timeout(BODY_TIMEOUT, whole).await.map_err(late)??;
    Ok(bytes)
}

impl Body {
    /// Reads an object; one that is none is a fault.
    pub(super) fn parse(bytes: &[u8], parser: &mut Parser<'_>) -> Self {
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
                let members = Vec::new();
                Self { members }
            }
        }
    }

    /// Takes a member out; one that comes twice is a fault.
    pub(super) fn take(&mut self, name: &str, parser: &mut Parser<'_>) -> Option<Value> {
        let mut found = None;
        let mut twice = false;
        self.members.retain_mut(|(member, value)| {
            let named = member == name;
            if named {
                twice |= found.replace(value.take()).is_some();
            }
            !named
        });
        if twice {
            parser.fault("body", name, "must be given once");
        }
        found
    }

    /// What is left has no meaning here.
    pub(super) fn refuse_rest(self, parser: &mut Parser<'_>) {
        for (name, _) in self.members {
            parser.fault("body", &name, "is no member of this body");
        }
    }
}

/// Reads a list of accounts; empty where one of them is none.
pub(super) fn accounts(value: &Value, name: &str, parser: &mut Parser<'_>) -> Vec<AccountId> {
    let Value::Array(items) = value else {
        parser.fault("body", name, "must be an array of account ids");
        return Vec::new();
    };
    if items.len() > ACCOUNTS_MAX {
        parser.fault("body", name, format!("may hold {ACCOUNTS_MAX} accounts"));
        return Vec::new();
    }
    let mut accounts = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let account = item.as_u64().map(AccountId::try_from);
        if let Some(Ok(account)) = account {
            accounts.push(account);
        } else {
            let detail = format!(
                "must be a JSON number, an integer from 1 to {}",
                crate::domain::ACCOUNT_ID_MAX
            );
            parser.fault("body", &format!("{name}[{index}]"), detail);
        }
    }
    accounts
}

/// Finds accounts that are named twice.
pub(super) fn no_account_twice<'a>(
    lists: impl IntoIterator<Item = (&'a str, &'a [AccountId])>,
    parser: &mut Parser<'_>,
) {
    let mut seen = std::collections::HashSet::new();
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

/// Reads a reason.
pub(super) fn reason(value: &Value, parser: &mut Parser<'_>) -> Option<Reason> {
    let Value::String(text) = value else {
        parser.fault("body", "reason", "must be text");
        return None;
    };
    text.parse()
        .map_err(|error: crate::domain::InvalidReason| {
            parser.fault("body", "reason", error.to_string());
        })
        .ok()
}
