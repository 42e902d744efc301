//! Parameters in the form's order, and answers with the checks that make them trustworthy.
//!
//! Tolerances are for what the service and its documentation are known to differ in: ids and `RetCode` as
//! number or text, lists that are missing, null or `{}` as empty, `Action` insisted on only with `RetCode` 0.

use std::borrow::Cow;

use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::domain::AccountId;

use super::call_error::CallError;
use super::ret_code::RetCode;
use super::signature;
use super::transport::{Exchange, tidy_request_id};
use super::{Modification, Modified, SharedAccount, Verdict};

/// Longest message of the upstream that is passed on, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 500;

/// Answers up to here take some hundred microseconds to read.
const BODY_BYTES_READ_AT_ONCE: usize = 64 * 1024;

/// What stands in the place of a secret that an answer repeats.
const REDACTED: &str = "[redacted]";

/// The actions that the gateway calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    ModifyShares,
    DescribeShares,
    ListImages,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ModifyShares => "ModifyCompShareImageShareAccount",
            Self::DescribeShares => "DescribeCompShareImageShareAccounts",
            Self::ListImages => "DescribeCompShareCustomImages",
        }
    }
}

/// The parameters of one call, before it is signed.
pub(super) struct Form<'a>(Vec<Parameter<'a>>);

/// A parameter's name and value.
pub(super) type Parameter<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Room for what most calls have, and for it encoded.
const PARAMETERS: usize = 8;
const ENCODED_BYTES: usize = 512;

impl<'a> Form<'a> {
    pub(super) fn new(action: Action) -> Self {
        let mut form = Self(Vec::with_capacity(PARAMETERS));
        form.push("Action", action.name());
        form
    }

    pub(super) fn push(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        self.0.push((name.into(), value.into()));
    }

    /// `Name.0`, `Name.1`, …; nothing for an empty list.
    pub(super) fn push_list(&mut self, name: &str, accounts: &[AccountId]) {
        let numbered = accounts.iter().enumerate();
        self.0.extend(numbered.map(|(index, account)| {
            (format!("{name}.{index}").into(), account.to_string().into())
        }));
    }

    /// Adds `PublicKey` and `Signature` and encodes the form; gives the signature too, so that an answer
    /// which repeats it can be told.
    pub(super) fn signed(mut self, public_key: &'a str, private_key: &str) -> (String, String) {
        self.push("PublicKey", public_key);
        let signature = signature::sign(&self.0, private_key);
        self.push("Signature", signature.clone());
        (self.encoded(), signature)
    }

    fn encoded(&self) -> String {
        form_urlencoded::Serializer::new(String::with_capacity(ENCODED_BYTES))
            .extend_pairs(&self.0)
            .finish()
    }
}

/// An answer in the API's envelope, whatever its `RetCode`.
#[derive(Debug)]
pub(super) struct Answer {
    members: Map<String, Value>,
    ret_code: i64,
    request_id: Option<String>,
}

impl Answer {
    /// The `RetCode`.
    pub(super) fn ret_code(&self) -> i64 {
        self.ret_code
    }

    /// As [`Self::read`]. A large answer is read where it holds nobody up: megabytes take many milliseconds.
    pub(super) async fn read_aside(exchange: Exchange) -> Result<Self, CallError> {
        if exchange.body.len() <= BODY_BYTES_READ_AT_ONCE {
            return Self::read(exchange);
        }
        let request_id = exchange.request_id.clone();
        let read = tokio::task::spawn_blocking(move || Self::read(exchange)).await;
        read.unwrap_or(Err(CallError::Garbled {
            what: "it could not be read",
            ret_code: None,
            request_id,
        }))
    }

    /// Reads the envelope: an object with a `RetCode`.
    pub(super) fn read(exchange: Exchange) -> Result<Self, CallError> {
        let Exchange { body, request_id } = exchange;
        let odd = |what, request_id| CallError::Garbled {
            what,
            ret_code: None,
            request_id,
        };
        let members = match serde_json::from_slice(&body) {
            Ok(Value::Object(members)) => members,
            Ok(_) => return Err(odd("it is no JSON object", request_id)),
            Err(_) => return Err(odd("it is not JSON", request_id)),
        };
        let in_body = || {
            members
                .get("request_uuid")
                .and_then(Value::as_str)
                .and_then(tidy_request_id)
        };
        let request_id = request_id.or_else(in_body);
        match members.get("RetCode").and_then(integer) {
            Some(ret_code) => Ok(Self {
                members,
                ret_code,
                request_id,
            }),
            None => Err(odd("it has no RetCode", request_id)),
        }
    }

    /// Takes `secrets` out of what is passed on of the answer. An upstream that repeats what it was sent would
    /// else put keys and signatures into logs, answers and the trail.
    pub(super) fn without(mut self, secrets: &[&str]) -> Self {
        let holds = |text: &str| secrets.iter().any(|secret| text.contains(secret));
        self.request_id = self.request_id.filter(|id| !holds(id));
        if let Some(Value::String(message)) = self.members.get_mut("Message") {
            // First: a secret with something invisible in it would not be found.
            message.retain(|c| !c.is_control() && !is_invisible(c));
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
                *message = message
                    .replace(secret, REDACTED)
                    .replace(&encoded, REDACTED);
            }
        }
        self
    }

    /// Turns any `RetCode` but 0 into an error, and insists on the action's name with 0.
    pub(super) fn success_of(&self, action: Action) -> Result<(), CallError> {
        if self.ret_code != 0 {
            let message = self.members.get("Message").and_then(Value::as_str);
            let message = message.map(|text| text.chars().take(MESSAGE_CHARACTERS_MAX).collect());
            let ret_code = RetCode::new(self.ret_code);
            return Err(CallError::Refused {
                ret_code,
                message,
                request_id: self.request_id.clone(),
            });
        }
        let named = self.members.get("Action").and_then(Value::as_str);
        if named.and_then(|name| name.strip_suffix("Response")) == Some(action.name()) {
            Ok(())
        } else {
            Err(self.odd("it is the answer to another action"))
        }
    }

    pub(super) fn list(&self, name: &str) -> Result<&[Value], CallError> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(Value::Object(members)) if members.is_empty() => Ok(&[]),
            Some(_) => Err(self.odd("a list in it is no list")),
        }
    }

    /// A number of the answer, where there is one.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.members.get(name).and_then(integer)
    }

    pub(super) fn odd(&self, what: &'static str) -> CallError {
        CallError::Garbled {
            what,
            ret_code: Some(self.ret_code),
            request_id: self.request_id.clone(),
        }
    }
}

/// Characters that show nothing, or turn what is shown around, without being control characters: soft hyphen, spaces
/// of no width, line and paragraph separators, directions, joiners, byte order mark.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Reads the answer to a modification. A non-empty `InvalidAccounts` decides, whatever the `RetCode`.
pub(super) fn read_modified(answer: Answer, asked: &Modification) -> Result<Modified, CallError> {
    let invalid = answer.list("InvalidAccounts");
    let verdict = match &invalid {
        Ok([]) | Err(_) => {
            // Whether there are invalid accounts matters only where nothing refuses the call before.
            answer.success_of(Action::ModifyShares)?;
            invalid?;
            Verdict::Done
        }
        Ok(listed) => {
            let listed: Vec<AccountId> = listed.iter().filter_map(account_id).collect();
            let of_call = |account: &AccountId| {
                asked.additions.contains(account) || asked.removals.contains(account)
            };
            let named: Vec<AccountId> = listed.into_iter().filter(of_call).collect();
            if named.is_empty() {
                return Err(answer.odd("InvalidAccounts names no account of the call"));
            }
            Verdict::InvalidAccounts(named)
        }
    };
    Ok(Modified {
        verdict,
        ret_code: answer.ret_code,
        request_id: answer.request_id,
    })
}

/// Reads the list of accounts.
pub(super) fn read_accounts(answer: &Answer) -> Result<Vec<SharedAccount>, CallError> {
    answer.success_of(Action::DescribeShares)?;
    let read = |entry: &Value| {
        let account_name = entry
            .get("AccountName")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty());
        let account_id = entry.get("AccountId").and_then(account_id)?;
        Some(SharedAccount {
            account_id,
            account_name: account_name.map(str::to_owned),
        })
    };
    let accounts: Option<Vec<_>> = answer.list("AccountSet")?.iter().map(read).collect();
    accounts.ok_or_else(|| answer.odd("an account in it has no id"))
}

/// An integer, given as a number or as text.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn account_id(value: &Value) -> Option<AccountId> {
    integer(value)
        .and_then(|number| u64::try_from(number).ok())
        .and_then(|number| AccountId::try_from(number).ok())
}

#[cfg(test)]
mod tests;
