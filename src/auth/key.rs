//! One key of a JWK Set (RFC 7517), and the algorithms that it is for.
//!
//! A key is usable for the algorithms named below alone: weak keys, keys for encryption, and types or curves without an
//! algorithm are refused, each with the reason. A member that is `null` counts as absent, and an empty list of uses says
//! nothing, as serializers write it that know every member there could be.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Shortest RSA modulus (RFC 7518, section 3.3).
const RSA_BITS_MIN: usize = 2048;
/// Longest RSA modulus that verification is done with; longer ones cost too much a check.
const RSA_BITS_MAX: usize = 8192;

const HMAC: [(Algorithm, usize); 3] = [
    (Algorithm::HS256, 32),
    (Algorithm::HS384, 48),
    (Algorithm::HS512, 64),
];
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// One key and the algorithms that it may be used with.
pub(super) struct Key {
    pub(super) kid: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
    /// Of what makes it this key, so that it is known again however it is written.
    pub(super) thumbprint: [u8; 32],
}

/// What a key is: its name, its thumbprint, the names of its algorithms.
pub(super) type Identity<'a> = (Option<&'a str>, [u8; 32], Vec<&'static str>);

impl Key {
    /// Reads one key, or says why it is left out.
    pub(super) fn read(entry: &Value) -> Result<Self, &'static str> {
        let kid = match member(entry, "kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err("has a kid that is not text"),
        };
        let Usable {
            algorithms,
            decoding,
            thumbprint,
        } = match text(entry, "kty")? {
            "oct" => hmac_key(entry),
            "RSA" => rsa_key(entry),
            "EC" => ec_key(entry),
            "OKP" => okp_key(entry),
            _ => Err("is of an unknown type"),
        }?;
        let for_signatures = said(entry, "use").is_none_or(|purpose| purpose == "sig");
        let may_verify = match member(entry, "key_ops") {
            None => true,
            Some(Value::Array(operations)) => {
                operations.is_empty() || operations.iter().any(|operation| operation == "verify")
            }
            Some(_) => false,
        };
        if !for_signatures || !may_verify {
            return Err("is not meant for verifying signatures");
        }
        let algorithms = match said(entry, "alg") {
            None => algorithms,
            Some(Value::String(named)) => algorithms
                .into_iter()
                .filter(|known| algorithm(named) == Some(*known))
                .collect(),
            Some(_) => Vec::new(),
        };
        if algorithms.is_empty() {
            return Err("has an alg that does not fit it");
        }
        Ok(Self {
            kid,
            algorithms,
            decoding,
            thumbprint,
        })
    }

    pub(super) fn identity(&self) -> Identity<'_> {
        let algorithms = self.algorithms.iter().copied();
        let names = algorithms.filter_map(algorithm_name).collect();
        (self.kid.as_deref(), self.thumbprint, names)
    }
}

/// The members that are looked at.
const MEMBERS: [&str; 12] = [
    "kty", "kid", "use", "key_ops", "alg", "crv", "n", "e", "x", "y", "k", "d",
];

/// An entry of a set, without what nobody looks at: whatever stands there, it makes no other member unreadable. `None` where
/// it is no object.
pub(super) fn entry(written: &str) -> Option<Value> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(written).ok()?;
    let looked_at = members
        .into_iter()
        .filter(|(name, _)| MEMBERS.contains(&name.as_str()));
    // What cannot be read is of no type that a member may have.
    let read = |value: &RawValue| serde_json::from_str(value.get()).unwrap_or(Value::Bool(false));
    Some(looked_at.map(|(name, value)| (name, read(value))).collect())
}

/// A symmetric key, or one with its private part (RFC 7518, section 6).
pub(super) fn is_secret(entry: &Value) -> bool {
    ["k", "d"]
        .into_iter()
        .any(|name| member(entry, name).is_some())
}

/// A member that says what a key is for.
fn said<'a>(entry: &'a Value, name: &str) -> Option<&'a Value> {
    member(entry, name).filter(|value| *value != "")
}

/// A member that is there.
pub(super) fn member<'a>(entry: &'a Value, name: &str) -> Option<&'a Value> {
    entry.get(name).filter(|value| !value.is_null())
}

/// A key and all the algorithms that its kind is good for.
struct Usable {
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    thumbprint: [u8; 32],
}

/// A hash of what makes a key the key that it is, its kind first, however it is written (RFC 7638 hashes the writing).
fn thumbprint(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn hmac_key(entry: &Value) -> Result<Usable, &'static str> {
    let secret = bytes(entry, "k")?;
    let algorithms: Vec<Algorithm> = HMAC
        .iter()
        .filter(|(_, shortest)| secret.len() >= *shortest)
        .map(|(algorithm, _)| *algorithm)
        .collect();
    // RFC 7518, section 3.2: a key as long as the hash or longer.
    if algorithms.is_empty() {
        Err("is a secret shorter than 32 bytes")
    } else {
        Ok(Usable {
            algorithms,
            decoding: DecodingKey::from_secret(&secret),
            thumbprint: thumbprint(&[b"oct", &secret]),
        })
    }
}

fn rsa_key(entry: &Value) -> Result<Usable, &'static str> {
    let (modulus, exponent) = (bytes(entry, "n")?, bytes(entry, "e")?);
    let (modulus, exponent) = (
        without_leading_zeros(&modulus),
        without_leading_zeros(&exponent),
    );
    let first = modulus.first().ok_or("has no modulus")?;
    let bits = modulus.len() * 8 - first.leading_zeros() as usize;
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err("is an RSA key of less than 2048 or more than 8192 bits");
    }
    // RFC 8017, section 3.1: an odd integer of at least 3. With 1 every signature would fit.
    let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
    if !is_odd || exponent == [1] {
        return Err("is an RSA key with an exponent that is even or below 3");
    }
    Ok(Usable {
        algorithms: RSA.to_vec(),
        decoding: DecodingKey::from_rsa_raw_components(modulus, exponent),
        thumbprint: thumbprint(&[b"RSA", modulus, exponent]),
    })
}

/// A number in as few octets as it takes (RFC 7518, section 2); not all that are published are.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn ec_key(entry: &Value) -> Result<Usable, &'static str> {
    let curve = text(entry, "crv")?;
    let (algorithm, length, verification) = match curve {
        "P-256" => (Algorithm::ES256, 32, &ECDSA_P256_SHA256_FIXED),
        "P-384" => (Algorithm::ES384, 48, &ECDSA_P384_SHA384_FIXED),
        _ => return Err("is on a curve that is not supported"),
    };
    let (x, y) = (
        coordinate(entry, "x", length)?,
        coordinate(entry, "y", length)?,
    );
    // SEC 1, section 2.3.3: an uncompressed point. Parsing it finds points that are not on the curve.
    ParsedPublicKey::new(verification, [&[4], x.as_slice(), &y].concat())
        .map_err(|_| "has coordinates of no point of its curve")?;
    let decoding =
        DecodingKey::from_ec_components(&URL_SAFE_NO_PAD.encode(&x), &URL_SAFE_NO_PAD.encode(&y));
    Ok(Usable {
        algorithms: vec![algorithm],
        decoding: decoding.map_err(|_| "has coordinates that cannot be read")?,
        thumbprint: thumbprint(&[b"EC", curve.as_bytes(), &x, &y]),
    })
}

/// A coordinate in as many octets as its curve has (RFC 7518, section 6.2.1.2), also where zeros before it were left out or
/// added.
fn coordinate(entry: &Value, member: &'static str, length: usize) -> Result<Vec<u8>, &'static str> {
    let written = bytes(entry, member)?;
    let number = without_leading_zeros(&written);
    let missing = length.checked_sub(number.len());
    let missing = missing.ok_or("has coordinates of the wrong length")?;
    Ok([vec![0; missing].as_slice(), number].concat())
}

fn okp_key(entry: &Value) -> Result<Usable, &'static str> {
    if text(entry, "crv")? != "Ed25519" {
        return Err("is on a curve that is not supported");
    }
    let point = bytes(entry, "x")?;
    if point.len() != 32 {
        return Err("has a public key of the wrong length");
    }
    if has_small_order(&point) {
        return Err("is a point of small order, for which anybody can sign");
    }
    ParsedPublicKey::new(&ED25519, &point).map_err(|_| "has a key that cannot be read")?;
    let decoding = DecodingKey::from_ed_components(&URL_SAFE_NO_PAD.encode(&point))
        .map_err(|_| "has a key that cannot be read")?;
    Ok(Usable {
        algorithms: vec![Algorithm::EdDSA],
        decoding,
        thumbprint: thumbprint(&[b"OKP", b"Ed25519", &point]),
    })
}

/// Encodings of Edwards25519's points of small order but for their sign bit, canonical or not: 0, 1, two of
/// order 8, and p − 1, p, p + 1 (D. J. Bernstein, "Which public keys are safe?", cr.yp.to/ecdh.html).
const SMALL_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn has_small_order(point: &[u8]) -> bool {
    let mut unsigned = point.to_vec();
    if let Some(last) = unsigned.last_mut() {
        *last &= 0x7f;
    }
    SMALL_ORDER.contains(&hex::encode(unsigned).as_str())
}

fn text<'a>(entry: &'a Value, member: &'static str) -> Result<&'a str, &'static str> {
    entry
        .get(member)
        .and_then(Value::as_str)
        .ok_or("lacks a member that its type needs")
}

/// Base64url (RFC 7518, section 2); padding and the alphabet of plain base64 are taken too, as some publish them.
fn bytes(entry: &Value, member: &'static str) -> Result<Vec<u8>, &'static str> {
    let text = text(entry, member)?.trim_end_matches('=');
    let text = text.replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "has a member that is not base64url")
}

/// The name of an algorithm that the gateway accepts, as tokens and keys write it (RFC 7518, RFC 8037, RFC 9864).
pub(super) fn algorithm_name(algorithm: Algorithm) -> Option<&'static str> {
    NAMES
        .iter()
        .find(|(known, _)| *known == algorithm)
        .map(|(_, name)| *name)
}

/// The accepted algorithm of this name.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    NAMES
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(algorithm, _)| *algorithm)
}

/// Their names, for people.
pub(super) fn algorithm_names() -> String {
    let names: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
    names.join(", ")
}

const NAMES: [(Algorithm, &str); 13] = [
    (Algorithm::HS256, "HS256"),
    (Algorithm::HS384, "HS384"),
    (Algorithm::HS512, "HS512"),
    (Algorithm::RS256, "RS256"),
    (Algorithm::RS384, "RS384"),
    (Algorithm::RS512, "RS512"),
    (Algorithm::PS256, "PS256"),
    (Algorithm::PS384, "PS384"),
    (Algorithm::PS512, "PS512"),
    (Algorithm::ES256, "ES256"),
    (Algorithm::ES384, "ES384"),
    (Algorithm::EdDSA, "EdDSA"),
    // RFC 9864 names the curve with it.
    (Algorithm::EdDSA, "Ed25519"),
];
