//! The form, the header and the signature of one token: RFC 7515, and RFC 8725 for what goes wrong without it.
//!
//! jsonwebtoken checks the signature. The header is read here, strictly: a member that decides something and has another
//! JSON type than its RFC says is a refusal, never an absence. Members that say where a key or its certificate lies (`jku`,
//! `x5u`, `x5c`) are never looked at: the key is one of the configured issuer's or none.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::claims::Claims;
use super::key::{self, Key};
use super::key_set::{KeySet, NoKey};
use super::refusal::{TOKEN_BYTES_MAX, TokenError, TokenRefusal, came, one_of, quoted};

/// Members of the header that decide something. Others are ignored (RFC 7515, section 4).
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "present")]
    kid: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    typ: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    jwk: Option<Value>,
}

/// Keeps `null` apart from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A token as it is before its key is known.
pub(super) struct Unsigned<'a> {
    message: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    kid: Option<String>,
    payload: Vec<u8>,
}

impl<'a> Unsigned<'a> {
    /// Takes a token apart, as far as that goes without its key.
    pub(super) fn read(token: &'a str) -> Result<Self, TokenRefusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong.into());
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = object(utf8(&bytes(header)?)?)?;
        for (name, member) in [("crit", &header.crit), ("jwk", &header.jwk)] {
            if member.is_some() {
                return Err(TokenError::HeaderNotAccepted(name).into());
            }
        }
        check_type(header.typ.as_ref())?;
        let algorithm = key::algorithm(&header.alg).ok_or_else(|| {
            let (known, got) = (key::algorithm_names(), quoted(&header.alg));
            TokenError::AlgorithmNotAccepted.expected("alg", known, got)
        })?;
        let kid = match header.kid {
            None => None,
            Some(Value::String(kid)) => Some(kid),
            Some(other) => {
                return Err(TokenError::Malformed.expected("kid", "text", came(Some(&other))));
            }
        };
        Ok(Self {
            message,
            signature,
            algorithm,
            kid,
            payload: bytes(payload)?,
        })
    }

    /// The claims, which nobody has signed yet.
    pub(super) fn claims(&self) -> Result<Claims<'_>, TokenRefusal> {
        object(utf8(&self.payload)?)
    }

    /// Whether the token names its key. One that does not may be of a key that a newer set has, whatever this one says.
    pub(super) fn names_key(&self) -> bool {
        self.kid.is_some()
    }

    /// Looks for a key of the set that made the signature.
    pub(super) fn check_signature(&self, keys: &KeySet) -> Result<(), TokenRefusal> {
        let kid = self.kid.as_deref();
        let named = || kid.map_or_else(|| "nothing".to_owned(), quoted);
        let candidates = keys.candidates(kid, self.algorithm);
        let candidates = candidates.map_err(|error| match error {
            NoKey::Unknown => TokenError::UnknownKey.expected("kid", one_of(keys.kids()), named()),
            NoKey::Ambiguous => {
                TokenError::AmbiguousKey.expected("kid", one_of(keys.kids()), named())
            }
            NoKey::OtherAlgorithm(algorithms) => {
                let got = quoted(key::algorithm_name(self.algorithm).unwrap_or_default());
                TokenError::AlgorithmDoesNotFitKey.expected("alg", one_of(algorithms), got)
            }
        })?;
        let signed = |key: &&Key| {
            let message = self.message.as_bytes();
            let checked = jsonwebtoken::crypto::verify(
                self.signature,
                message,
                &key.decoding,
                self.algorithm,
            );
            checked.unwrap_or(false)
        };
        if candidates.iter().any(signed) {
            return Ok(());
        }
        let expected = format_args!("that of the key {}", named());
        Err(TokenError::BadSignature.expected("signature", expected, "another"))
    }
}

/// The claims of a token, or claims alone, that nobody verifies.
pub(super) fn unverified_claims(text_of_claims: &str) -> Result<String, TokenRefusal> {
    let given = text_of_claims.trim();
    if given.starts_with('{') {
        return Ok(given.to_owned());
    }
    let mut parts = given.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(payload), Some(_), None) => Ok(utf8(&bytes(payload)?)?.to_owned()),
        _ => Err(TokenError::Malformed.into()),
    }
}

/// Base64url without padding, white space or stray bits (RFC 7515, section 2).
fn bytes(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed)
}

/// As a whole, for serde looks at the encoding of what it reads alone.
fn utf8(bytes: &[u8]) -> Result<&str, TokenError> {
    std::str::from_utf8(bytes).map_err(|_| TokenError::Malformed)
}

pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, TokenRefusal> {
    // serde would also read a struct from an array.
    if !json.trim_start().starts_with('{') {
        return Err(TokenError::Malformed.into());
    }
    serde_json::from_str(json).map_err(|_| TokenError::Malformed.into())
}

/// Accepts `JWT` (RFC 7519, section 5.1) and `at+jwt` (RFC 9068), so that a token made for something
/// else, such as a log-out, does not pass (RFC 8725, section 3.11).
fn check_type(typ: Option<&Value>) -> Result<(), TokenRefusal> {
    let Some(given) = typ else { return Ok(()) };
    let lower = given
        .as_str()
        .ok_or(TokenError::Malformed)?
        .to_ascii_lowercase();
    match lower.strip_prefix("application/").unwrap_or(&lower) {
        "jwt" | "at+jwt" => Ok(()),
        _ => Err(TokenError::OtherType.expected("typ", "`JWT` or `at+jwt`", came(typ))),
    }
}

#[cfg(test)]
mod tests;
