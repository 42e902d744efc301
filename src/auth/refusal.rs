//! Why a token is refused: in words for its holder, and in more words for whoever runs the gateway.
//!
//! The holder is told which member or claim it is. The log is told besides what was expected and what came, cut short
//! and on one line; no part of it is ever a whole token.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use crate::domain::IssuerName;

/// Longest token: 400 groups fit.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// As much of a text as is quoted.
const QUOTED_CHARACTERS_MAX: usize = 80;
/// So many of what is expected are named.
const NAMED_MAX: usize = 5;

/// Why a token is refused; the words are for its holder and say nothing of the keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64url with JSON objects in the first two.
    #[error("the token is malformed")]
    Malformed,
    /// Longer than any that is accepted.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// `none`, or any other algorithm that the gateway does not take.
    #[error("the token's alg is not accepted")]
    AlgorithmNotAccepted,
    /// A member of the header that would have to be obeyed, or that brings a key along.
    #[error("the token's header holds {0}, which is not accepted")]
    HeaderNotAccepted(&'static str),
    /// A `typ` that says it is something else.
    #[error("the token's typ is not that of a JWT or an access token")]
    OtherType,
    /// No key of that `kid`.
    #[error("no key is known for the token's kid")]
    UnknownKey,
    /// No `kid`, and several keys that would fit.
    #[error("the token names no key by kid, and several would fit")]
    AmbiguousKey,
    /// The key is there, and not for this algorithm.
    #[error("the token's alg does not fit its key")]
    AlgorithmDoesNotFitKey,
    /// The signature is not the key's.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// A registered claim is absent or of a wrong JSON type.
    #[error("the token's claim {0} is missing or of a wrong type")]
    BadClaim(Cow<'static, str>),
    /// A claim that stands in the trail holds what cannot be read there.
    #[error("the token's claim {0} holds a control character")]
    ControlCharacter(&'static str),
    /// `sub` is a name by which the gateway itself stands in the trail.
    #[error("the token's claim sub is a name of the gateway's own")]
    SystemSubject,
    /// `sub` would pass for a subject of another issuer in policies.
    #[error("the token's claim sub begins as the subjects of the issuer {0} do")]
    OtherIssuersSubject(IssuerName),
    /// `iss` is another.
    #[error("the token's issuer (iss) is not accepted")]
    OtherIssuer,
    /// `aud` is another.
    #[error("the token is for another audience (aud)")]
    OtherAudience,
    /// `exp` has passed.
    #[error("the token has expired (exp)")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    /// `iat` lies in the future.
    #[error("the token was issued in the future (iat)")]
    IssuedInFuture,
    /// The gateway has no keys yet, so nothing can be said of the token.
    #[error("the keys of the token's issuer are not known yet")]
    NoKeys,
}

impl TokenError {
    /// What was expected of the token's `what`, and what came, for the log.
    pub(super) fn expected(
        self,
        what: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> TokenRefusal {
        TokenRefusal {
            compared: Some(format!("{what}: expected {expected}, got {got}").into()),
            ..self.into()
        }
    }
}

/// A token that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefusal {
    /// Why, for its holder.
    pub error: TokenError,
    compared: Option<Box<str>>,
    /// The place of the issuer whose keys, fetched anew, may have it accepted.
    fetch_anew: Option<usize>,
}

impl TokenRefusal {
    /// It may pass once the issuer at this place has other keys.
    pub(super) fn unless_keys_are_new(mut self, issuer: Option<usize>) -> Self {
        self.fetch_anew = issuer;
        self
    }

    /// Why, for the log: what was expected and what came too.
    #[must_use]
    pub fn for_log(&self) -> String {
        match &self.compared {
            None => self.error.to_string(),
            Some(compared) => format!("{}; {compared}", self.error),
        }
    }

    /// Whether it may be accepted once keys were fetched anew.
    #[must_use]
    pub fn may_pass_anew(&self) -> bool {
        self.fetch_anew.is_some()
    }

    /// The place of the issuer whose keys that would be.
    pub(super) fn issuer_to_ask(&self) -> Option<usize> {
        self.fetch_anew
    }
}

impl From<TokenRefusal> for TokenError {
    fn from(refusal: TokenRefusal) -> Self {
        refusal.error
    }
}

impl From<TokenError> for TokenRefusal {
    fn from(error: TokenError) -> Self {
        Self {
            error,
            compared: None,
            fetch_anew: None,
        }
    }
}

/// A text between quotation marks, on one line and cut; what may be a token, or a part of one, is not shown.
pub(super) fn quoted(text: &str) -> String {
    // So begins an object of JSON in base64url.
    if text.contains("eyJ") {
        return "what looks like a token".into();
    }
    let mut cut = text.chars();
    let begin: String = cut.by_ref().take(QUOTED_CHARACTERS_MAX).collect();
    let mark = if cut.next().is_some() { "…" } else { "" };
    format!("`{}{mark}`", begin.escape_debug())
}

/// `one of` texts, so many as are worth a line.
pub(super) fn one_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut rest = texts.into_iter();
    let named: Vec<String> = rest.by_ref().take(NAMED_MAX).map(quoted).collect();
    let named = named.join(", ");
    match rest.count() {
        0 => format!("one of {named}"),
        more => format!("one of {named} and {more} more"),
    }
}

/// A claim as it came.
pub(super) fn came(value: Option<&Value>) -> String {
    match value {
        None => "nothing".into(),
        Some(Value::String(text)) => quoted(text),
        Some(Value::Object(_)) => "an object".into(),
        Some(other) => quoted(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gets_one_bounded_line() {
        let refusal = TokenError::OtherIssuer.expected(
            "issuer",
            one_of(["a"; 9]),
            quoted(&"x\n\u{1b}[31m".repeat(1000)),
        );
        let line = refusal.for_log();
        assert!(
            line.contains("issuer: expected one of `a`, `a`, `a`, `a`, `a` and 4 more, got `x")
        );
        assert!(!line.contains(char::is_control), "{line}");
        assert!(line.len() < 800, "{}", line.len());
        assert_eq!(
            refusal.error.to_string(),
            "the token's issuer (iss) is not accepted"
        );
    }
}
