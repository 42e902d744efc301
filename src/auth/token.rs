//! The form, the header and the signature of one token: RFC 7515, and RFC 8725 for what goes wrong without it.
//!
//! jsonwebtoken checks the signature. The header is read here, strictly: a member that decides something and has another
//! JSON type than its RFC says is a refusal, never an absence. Members that say where a key or its certificate lies (`jku`,
//! `x5u`, `x5c`) are never looked at: the key is one of the configured issuer's or none.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::claims::Claims;
use super::key::{self, Key};
use super::key_set::{KeySet, NoKey};
use super::members::Members;
use super::refusal::{TOKEN_BYTES_MAX, TokenError, TokenRefusal, came, one_of, quoted};

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
        let header = bytes(header)?;
        // Members that decide nothing are ignored (RFC 7515, section 4).
        let header = Members::read(utf8(&header)?)?;
        for name in ["crit", "jwk"] {
            if let Some(written) = header.written(name) {
                let refused = TokenError::HeaderNotAccepted(name);
                return Err(refused.expected(name, "no such member", came(Some(written))));
            }
        }
        if let Some(typ) = text(&header, "typ")? {
            check_type(&typ)?;
        }
        let named = text(&header, "alg")?;
        let named =
            named.ok_or_else(|| TokenError::BadHeader("alg").expected("alg", TEXT, "nothing"))?;
        let algorithm = key::algorithm(&named).ok_or_else(|| {
            let (known, got) = (key::algorithm_names(), quoted(&named));
            TokenError::AlgorithmNotAccepted.expected("alg", known, got)
        })?;
        let kid = text(&header, "kid")?;
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
        Claims::read(utf8(&self.payload)?)
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

const TEXT: &str = "text";

/// A member of the header that is text where it is there.
fn text(header: &Members<'_>, name: &'static str) -> Result<Option<String>, TokenRefusal> {
    match header.value(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => {
            let got = came(header.written(name));
            Err(TokenError::BadHeader(name).expected(name, TEXT, got))
        }
    }
}

/// Accepts `JWT` (RFC 7519, section 5.1) and `at+jwt` (RFC 9068), so that a token made for something
/// else, such as a log-out, does not pass (RFC 8725, section 3.11).
fn check_type(typ: &str) -> Result<(), TokenRefusal> {
    let lower = typ.to_ascii_lowercase();
    match lower.strip_prefix("application/").unwrap_or(&lower) {
        "jwt" | "at+jwt" => Ok(()),
        _ => Err(TokenError::OtherType.expected("typ", "`JWT` or `at+jwt`", quoted(typ))),
    }
}

#[cfg(test)]
mod tests;
