//! The checks of one token: RFC 7519, and RFC 8725 for what goes wrong without them.
//!
//! jsonwebtoken checks the signature. Header and claims are read here, strictly: a member that decides
//! something and has another JSON type than its RFC says is a refusal, never an absence.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::domain::{Principal, SYSTEM_SUBJECTS, Timestamp};

use super::key_set::{self, KeySet, NoKey};

/// Longest token: 400 groups fit.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What every token is held against.
#[derive(Debug)]
pub(super) struct TokenRules {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) leeway: Duration,
}

/// Why a token is refused; the words are for its holder and say nothing of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
    /// `crit`, `jwk`, `jku` or `x5u`.
    #[error("the token's header holds crit, jwk, jku or x5u")]
    HeaderNotAccepted,
    /// A `typ` that says it is something else.
    #[error("the token's typ is not that of a JWT or an access token")]
    OtherType,
    /// No key of that `kid`.
    #[error("no key is known for the token")]
    UnknownKey,
    /// No `kid`, and several keys that would fit.
    #[error("the token names no key, and several would fit")]
    AmbiguousKey,
    /// The key is there, and not for this algorithm.
    #[error("the token's alg does not fit its key")]
    AlgorithmDoesNotFitKey,
    /// The signature is not the key's.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// A registered claim is absent or of a wrong JSON type.
    #[error("the token's claim {0} is missing or of a wrong type")]
    BadClaim(&'static str),
    /// A claim that stands in the trail holds what cannot be read there.
    #[error("the token's claim {0} holds a control character")]
    ControlCharacter(&'static str),
    /// `sub` is a name by which the gateway itself stands in the trail.
    #[error("the token's claim sub is a name of the gateway's own")]
    SystemSubject,
    /// `iss` is another.
    #[error("the token's issuer is not accepted")]
    OtherIssuer,
    /// `aud` is another.
    #[error("the token is for another audience")]
    OtherAudience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` lies in the future.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// The gateway has no keys yet, so nothing can be said of the token.
    #[error("the keys of the token's issuer are not known yet")]
    NoKeys,
}

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
    #[serde(default, deserialize_with = "present")]
    jku: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    x5u: Option<Value>,
}

/// The registered claims, the scopes and the groups. A claim given twice is an error (RFC 7519, section 4).
#[derive(Deserialize)]
struct Claims {
    #[serde(default, deserialize_with = "present")]
    iss: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    sub: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    jti: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    scope: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    scp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    groups: Option<Value>,
}

/// Keeps `null` apart from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A token that passed every check.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) principal: Arc<Principal>,
    /// `exp`, in seconds since 1970.
    pub(super) expires: f64,
}

impl TokenRules {
    /// Whether a token that ends at `expires` is still good.
    pub(super) fn check_end(&self, expires: f64, now: Timestamp) -> Result<(), TokenError> {
        if expires + self.leeway.as_secs_f64() <= seconds(now) {
            Err(TokenError::Expired)
        } else {
            Ok(())
        }
    }
}

/// Checks a token: its form, its key, its signature, then its claims.
pub(super) fn verify(
    token: &str,
    keys: &KeySet,
    rules: &TokenRules,
    now: Timestamp,
) -> Result<Verified, TokenError> {
    check_claims(object(&signed_payload(token, keys)?)?, rules, now)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds since 1970 are far below 2^53"
)]
fn seconds(time: Timestamp) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// A token as it is before its key is known.
struct Unsigned<'a> {
    message: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    kid: Option<String>,
    payload: Vec<u8>,
}

impl<'a> Unsigned<'a> {
    fn read(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = object(&bytes(header)?)?;
        let payload = bytes(payload)?;
        let odd = [&header.crit, &header.jwk, &header.jku, &header.x5u];
        if odd.into_iter().any(Option::is_some) {
            return Err(TokenError::HeaderNotAccepted);
        }
        check_type(header.typ.as_ref())?;
        let algorithm = key_set::algorithm(&header.alg).ok_or(TokenError::AlgorithmNotAccepted)?;
        let kid = match header.kid {
            None => None,
            Some(Value::String(kid)) => Some(kid),
            Some(_) => return Err(TokenError::Malformed),
        };
        Ok(Self {
            message,
            signature,
            algorithm,
            kid,
            payload,
        })
    }
}

/// Why a token can be good under no keys whatever: by its form, or by what it says of itself.
pub(super) fn check_without_keys(
    token: &str,
    rules: &TokenRules,
    now: Timestamp,
) -> Result<(), TokenError> {
    let unsigned = Unsigned::read(token)?;
    check_claims(object(&unsigned.payload)?, rules, now).map(drop)
}

/// The payload of a token whose signature is that of one of the keys.
fn signed_payload(token: &str, keys: &KeySet) -> Result<Vec<u8>, TokenError> {
    let Unsigned {
        message,
        signature,
        algorithm,
        kid,
        payload,
    } = Unsigned::read(token)?;
    let key = keys
        .find(kid.as_deref(), algorithm)
        .map_err(|error| match error {
            NoKey::Unknown => TokenError::UnknownKey,
            NoKey::Ambiguous => TokenError::AmbiguousKey,
            NoKey::OtherAlgorithm => TokenError::AlgorithmDoesNotFitKey,
        })?;
    let signed =
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, algorithm);
    if signed.unwrap_or(false) {
        Ok(payload)
    } else {
        Err(TokenError::BadSignature)
    }
}

/// Base64url without padding, white space or stray bits (RFC 7515, section 2).
fn bytes(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed)
}

fn object<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, TokenError> {
    // As a whole, for serde looks at the encoding of what it reads alone.
    let json = std::str::from_utf8(json).map_err(|_| TokenError::Malformed)?;
    // serde would also read a struct from an array.
    if !json.trim_start().starts_with('{') {
        return Err(TokenError::Malformed);
    }
    serde_json::from_str(json).map_err(|_| TokenError::Malformed)
}

/// Accepts `JWT` (RFC 7519, section 5.1) and `at+jwt` (RFC 9068), so that a token made for something
/// else, such as a log-out, does not pass (RFC 8725, section 3.11).
fn check_type(typ: Option<&Value>) -> Result<(), TokenError> {
    let Some(typ) = typ else { return Ok(()) };
    let typ = typ
        .as_str()
        .ok_or(TokenError::Malformed)?
        .to_ascii_lowercase();
    match typ.strip_prefix("application/").unwrap_or(&typ) {
        "jwt" | "at+jwt" => Ok(()),
        _ => Err(TokenError::OtherType),
    }
}

fn check_claims(
    claims: Claims,
    rules: &TokenRules,
    now: Timestamp,
) -> Result<Verified, TokenError> {
    let issuer = required_text(claims.iss.clone(), "iss")?;
    if issuer != rules.issuer {
        return Err(TokenError::OtherIssuer);
    }
    let audiences = strings(claims.aud.as_ref()).ok_or(TokenError::BadClaim("aud"))?;
    if !audiences.contains(&rules.audience.as_str()) {
        return Err(TokenError::OtherAudience);
    }
    let expires = date(claims.exp.as_ref(), "exp")?.ok_or(TokenError::BadClaim("exp"))?;
    rules.check_end(expires, now)?;
    let (now, leeway) = (seconds(now), rules.leeway.as_secs_f64());
    if date(claims.nbf.as_ref(), "nbf")?.is_some_and(|nbf| nbf - leeway > now) {
        return Err(TokenError::NotYetValid);
    }
    if date(claims.iat.as_ref(), "iat")?.is_some_and(|iat| iat - leeway > now) {
        return Err(TokenError::IssuedInFuture);
    }
    let principal = principal(claims, issuer)?;
    Ok(Verified {
        principal: Arc::new(principal),
        expires,
    })
}

fn principal(claims: Claims, issuer: String) -> Result<Principal, TokenError> {
    let token_id = match claims.jti {
        None => None,
        Some(Value::String(jti)) => Some(printable(jti, "jti")?),
        Some(_) => return Err(TokenError::BadClaim("jti")),
    };
    let mut scopes = BTreeSet::new();
    for (claim, name) in [(&claims.scope, "scope"), (&claims.scp, "scp")] {
        let found: Vec<&str> = match claim {
            None => continue,
            // A text holds several (RFC 8693, section 4.2), an element of an array is one.
            Some(Value::String(text)) => text.split(' ').collect(),
            Some(value) => strings(Some(value)).ok_or(TokenError::BadClaim(name))?,
        };
        let given = found.into_iter().filter(|scope| !scope.is_empty());
        scopes.extend(given.map(str::to_owned));
    }
    let groups = match &claims.groups {
        None => BTreeSet::new(),
        Some(value) => strings(Some(value))
            .ok_or(TokenError::BadClaim("groups"))?
            .into_iter()
            .map(str::to_owned)
            .collect(),
    };
    let subject = printable(required_text(claims.sub, "sub")?, "sub")?;
    if SYSTEM_SUBJECTS.contains(&subject.as_str()) {
        return Err(TokenError::SystemSubject);
    }
    Ok(Principal {
        subject,
        issuer,
        token_id,
        scopes,
        groups,
    })
}

/// The principal that a token's claims, or claims alone, tell of; nothing is verified. For whoever tries policies.
///
/// # Errors
/// Where they cannot be read, or a claim that policies see has a wrong type.
pub fn unverified(text: &str) -> Result<Principal, TokenError> {
    let text = text.trim();
    let claims: Claims = if text.starts_with('{') {
        object(text.as_bytes())?
    } else {
        let mut parts = text.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed);
        };
        object(&bytes(payload)?)?
    };
    let issuer = match &claims.iss {
        None => String::new(),
        Some(_) => required_text(claims.iss.clone(), "iss")?,
    };
    principal(claims, issuer)
}

/// The text of a claim that people read in the trail.
fn printable(text: String, name: &'static str) -> Result<String, TokenError> {
    if text.contains(char::is_control) {
        Err(TokenError::ControlCharacter(name))
    } else {
        Ok(text)
    }
}

fn required_text(claim: Option<Value>, name: &'static str) -> Result<String, TokenError> {
    match claim {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(TokenError::BadClaim(name)),
    }
}

/// A text or an array of texts.
fn strings(claim: Option<&Value>) -> Option<Vec<&str>> {
    match claim? {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// A NumericDate: seconds since 1970, fractions allowed (RFC 7519, section 2).
fn date(claim: Option<&Value>, name: &'static str) -> Result<Option<f64>, TokenError> {
    match claim {
        None => Ok(None),
        Some(Value::Number(number)) => number
            .as_f64()
            .filter(|seconds| seconds.is_finite())
            .map(Some)
            .ok_or(TokenError::BadClaim(name)),
        Some(_) => Err(TokenError::BadClaim(name)),
    }
}

#[cfg(test)]
mod tests;
