//! Why a token is refused: in words for its holder, and in more words for whoever runs the gateway.
//!
//! The holder is told which member or claim it is. The log is told besides what was expected and what came, cut short
//! and on one line; no part of it is ever a whole token.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::domain::IssuerName;

/// Longest token: 400 groups fit.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// As much of a text as is quoted: its begin and its end, for URLs mostly differ at either.
const QUOTED_BEGIN: usize = 80;
const QUOTED_END: usize = 60;
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
    /// A member of the header that decides something is absent or of a wrong JSON type.
    #[error("the token's header member {0} is missing or of a wrong type")]
    BadHeader(&'static str),
    /// A member of the header, or a claim.
    #[error("the token holds {0} twice")]
    GivenTwice(String),
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

/// What tokens are counted by: the words of [`TokenError::word`], and what else can be said of a request's.
pub(super) const RESULTS: [&str; 10] = [
    "ok",
    "malformed",
    "algorithm",
    "unknown_key",
    "bad_signature",
    "bad_claim",
    "other_audience",
    "expired",
    "not_yet_valid",
    "keys_unavailable",
];
/// The same where no configured issuer is known to have made it.
pub(super) const RESULTS_OF_NONE: [&str; 3] = ["no_token", "malformed", "other_issuer"];

impl TokenError {
    /// What kind of refusal it is, for counting: one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Malformed
            | Self::TooLong
            | Self::HeaderNotAccepted(_)
            | Self::OtherType
            | Self::BadHeader(_)
            | Self::GivenTwice(_) => "malformed",
            Self::AlgorithmNotAccepted | Self::AlgorithmDoesNotFitKey => "algorithm",
            Self::UnknownKey | Self::AmbiguousKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::BadClaim(_)
            | Self::ControlCharacter(_)
            | Self::SystemSubject
            | Self::OtherIssuersSubject(_) => "bad_claim",
            Self::OtherIssuer => "other_issuer",
            Self::OtherAudience => "other_audience",
            Self::Expired => "expired",
            Self::NotYetValid | Self::IssuedInFuture => "not_yet_valid",
            Self::NoKeys => "keys_unavailable",
        }
    }

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
    judged: Option<Judged>,
    issuer: Option<Box<str>>,
}

/// By which keys a token was refused that may be accepted by newer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    /// The place of their issuer.
    pub(super) issuer: usize,
    /// Their generation; none where there were no keys.
    pub(super) generation: Option<u64>,
}

impl TokenRefusal {
    /// The configured issuer that the token is of, where it is of one.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// It is of this issuer.
    pub(super) fn of(self, issuer: &str) -> Self {
        let issuer = Some(issuer.into());
        Self { issuer, ..self }
    }

    /// It may pass by newer keys than these.
    pub(super) fn by(mut self, judged: Option<Judged>) -> Self {
        self.judged = judged;
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
        self.judged.is_some()
    }

    /// By which keys it was refused, where newer ones may accept it.
    pub(super) fn judged(&self) -> Option<Judged> {
        self.judged
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
            judged: None,
            issuer: None,
        }
    }
}

/// A text between quotation marks, on one line and cut; what may be a token, or a part of one, is not shown.
pub(super) fn quoted(text: &str) -> String {
    if looks_like_token(text) {
        return "what looks like a token".into();
    }
    let characters = text.chars().count();
    let on_one_line = |part: String| -> String {
        let escape = |c: char| match c {
            '"' | '\'' => c.to_string(),
            other => other.escape_debug().to_string(),
        };
        part.chars().map(escape).collect()
    };
    if characters <= QUOTED_BEGIN + QUOTED_END {
        return format!("`{}`", on_one_line(text.to_owned()));
    }
    let begin = on_one_line(text.chars().take(QUOTED_BEGIN).collect());
    let end = on_one_line(text.chars().skip(characters - QUOTED_END).collect());
    format!("`{begin}…{end}`")
}

/// Whether a part of it is an object of JSON in base64url, as headers and payloads of tokens are.
fn looks_like_token(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split(|c: char| !is_inner(c)).any(|part| {
        // What was cut off is no whole group of four.
        let whole = &part[..part.len() / 4 * 4];
        let decoded = URL_SAFE_NO_PAD.decode(whole).unwrap_or_default();
        let rest = decoded.trim_ascii_start().strip_prefix(b"{");
        rest.is_some_and(|rest| matches!(rest.trim_ascii_start(), [b'"' | b'}', ..]))
    })
}

/// Texts, so many as are worth a line.
pub(super) fn named<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    named_behind("", texts)
}

/// `one of` texts.
pub(super) fn one_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    named_behind("one of ", texts)
}

fn named_behind<'a>(words: &str, texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut rest = texts.into_iter();
    let named: Vec<String> = rest.by_ref().take(NAMED_MAX).map(quoted).collect();
    match (named.join(", "), rest.count()) {
        _ if named.is_empty() => "none".into(),
        (named, 0) => format!("{words}{named}"),
        (named, more) => format!("{words}{named} and {more} more"),
    }
}

/// A member of a wrong type, as it was written.
pub(super) fn came(written: Option<&str>) -> String {
    let Some(written) = written else {
        return "nothing".into();
    };
    match (serde_json::from_str(written), written.as_bytes()) {
        (Ok(Value::Null), _) => "null".into(),
        (Ok(Value::Bool(truth)), _) => truth.to_string(),
        (Ok(Value::String(text)), _) => format!("the text {}", quoted(&text)),
        (Ok(Value::Array(_)), _) => format!("the array {}", quoted(written)),
        (Ok(Value::Object(_)), _) => "an object".into(),
        (Err(_), [b'"', ..]) => "a text that is none".into(),
        (Err(_), [b'[' | b'{', ..]) => "what is nested too deep".into(),
        (Ok(Value::Number(_)) | Err(_), _) => format!("the number {}", quoted(written)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_token_or_a_part_of_one_is_not_shown() {
        for object in [
            r#"{"alg":"HS256"}"#,
            r#"{ "alg": "HS256" }"#,
            "\n{\r\n  \"a\":1}",
            " {}",
        ] {
            let part = URL_SAFE_NO_PAD.encode(object);
            for text in [
                part.clone(),
                format!("{part}.{part}.c2ln"),
                format!("Bearer {part}.x"),
                format!("a/{part}"),
            ] {
                assert_eq!(quoted(&text), "what looks like a token", "{object}: {text}");
            }
        }
        for text in [
            "https://login.example.com/eyes",
            "example",
            "exam.ple.example",
            "https://token.actions.githubusercontent.com",
            "8f3a1c52-7a51-4f5e-9a70-3d1f1f0f6c11",
            "system:serviceaccount:vision:eyebrow",
        ] {
            assert_eq!(quoted(text), format!("`{text}`"));
        }
    }

    #[test]
    fn long_texts_that_differ_at_either_end_are_told_apart() {
        let long = |end: &str| format!("https://{}/clusters/{end}", "x".repeat(300));
        let (one, other) = (quoted(&long("one")), quoted(&long("one/")));
        assert!(
            one.starts_with("`https://xxx") && one.ends_with("/clusters/one`"),
            "{one}"
        );
        assert!(other.ends_with("/clusters/one/`"), "{other}");
        assert_eq!(quoted(&"ä".repeat(140)).chars().count(), 142);
        assert_eq!(quoted(&"ä".repeat(141)).chars().count(), 143);
        assert_eq!(quoted("[\"a\", 'b']\n\\"), "`[\"a\", 'b']\\n\\\\`");
        assert_eq!(one_of([]), "none");
    }

    #[test]
    fn what_came_is_told_with_its_type() {
        for (written, told) in [
            (Some("5"), "the number `5`"),
            (Some("1E400"), "the number `1E400`"),
            (Some("\"5\""), "the text `5`"),
            (Some("\"\\ud800\""), "a text that is none"),
            (Some("null"), "null"),
            (Some(&*"[".repeat(200)), "what is nested too deep"),
            (Some("true"), "true"),
            (Some("[1]"), "the array `[1]`"),
            (Some("{}"), "an object"),
            (None, "nothing"),
        ] {
            assert_eq!(came(written), told);
        }
    }

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
        assert!(line.len() < 1200, "{}", line.len());
        assert_eq!(
            refusal.error.to_string(),
            "the token's issuer (iss) is not accepted"
        );
    }
}
