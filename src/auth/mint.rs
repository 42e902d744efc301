//! Signs tokens for development: `token`, and the roles of `serve --sandbox`.
//!
//! A gateway in earnest never makes tokens; an identity provider does.

use std::time::Duration;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::domain::Timestamp;

use super::key::{self, Key};

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// `sub`.
    pub subject: &'a str,
    /// `scope`: names with spaces between them.
    pub scope: &'a str,
    /// `iss`.
    pub issuer: &'a str,
    /// `aud`.
    pub audience: &'a str,
    /// How long it is good for.
    pub ttl: Duration,
}

/// Why no token could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The text is no JWK Set.
    #[error("is no JWK Set: a JSON object with an array `keys`")]
    NotASet,
    /// No key of that `kid`, or none at all, can sign.
    #[error("holds no private or symmetric key that can sign, or none of that kid")]
    NoSigningKey,
    /// The key's members do not make a key, or not one for its `alg`.
    #[error("holds a key that cannot be used to sign")]
    BadKey,
}

/// A key that signs tokens. Does not print it.
pub struct Mint {
    header: Header,
    key: EncodingKey,
}

impl Mint {
    /// Takes the key named `kid` out of a JWK Set with private or symmetric keys, or the first that can sign.
    ///
    /// # Errors
    /// Where there is no such key.
    pub fn from_set(text: &str, kid: Option<&str>) -> Result<Self, MintError> {
        let set: Value = serde_json::from_str(text).map_err(|_| MintError::NotASet)?;
        let keys = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(MintError::NotASet)?;
        let named = |key: &&Value| kid.is_none() || key.get("kid").and_then(Value::as_str) == kid;
        let usable = keys.iter().filter(named).filter(|key| may_sign(key));
        usable
            .into_iter()
            .find_map(Self::from_key)
            .ok_or(MintError::NoSigningKey)
    }

    fn from_key(jwk: &Value) -> Option<Self> {
        let text = |member: &str| jwk.get(member).and_then(Value::as_str);
        let bytes = |member: &str| URL_SAFE_NO_PAD.decode(text(member)?).ok();
        let (default, key) = match (text("kty")?, text("crv")) {
            ("oct", _) => {
                let secret = bytes("k")?;
                let default = match secret.len() {
                    ..32 => return None,
                    32..48 => Algorithm::HS256,
                    48..64 => Algorithm::HS384,
                    64.. => Algorithm::HS512,
                };
                (default, EncodingKey::from_secret(&secret))
            }
            ("RSA", _) => {
                let components = KeyPairComponents {
                    public_key: PublicKeyComponents {
                        n: bytes("n")?,
                        e: bytes("e")?,
                    },
                    d: bytes("d")?,
                    p: bytes("p")?,
                    q: bytes("q")?,
                    dP: bytes("dp")?,
                    dQ: bytes("dq")?,
                    qInv: bytes("qi")?,
                };
                let der = RsaKeyPair::from_components(&components)
                    .ok()?
                    .as_der()
                    .ok()?;
                let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref()));
                (
                    Algorithm::RS256,
                    EncodingKey::from_rsa_pem(pem.as_bytes()).ok()?,
                )
            }
            ("EC", Some(curve)) => {
                let (algorithm, signing) = match curve {
                    "P-256" => (Algorithm::ES256, &ECDSA_P256_SHA256_FIXED_SIGNING),
                    "P-384" => (Algorithm::ES384, &ECDSA_P384_SHA384_FIXED_SIGNING),
                    _ => return None,
                };
                // SEC 1, section 2.3.3: an uncompressed point.
                let point = [vec![4], bytes("x")?, bytes("y")?].concat();
                let pair =
                    EcdsaKeyPair::from_private_key_and_public_key(signing, &bytes("d")?, &point)
                        .ok()?;
                (
                    algorithm,
                    EncodingKey::from_ec_der(pair.to_pkcs8v1().ok()?.as_ref()),
                )
            }
            ("OKP", Some("Ed25519")) => {
                let pair =
                    Ed25519KeyPair::from_seed_and_public_key(&bytes("d")?, &bytes("x")?).ok()?;
                (
                    Algorithm::EdDSA,
                    EncodingKey::from_ed_der(pair.to_pkcs8().ok()?.as_ref()),
                )
            }
            _ => return None,
        };
        let algorithm = match text("alg") {
            Some(named) => key::algorithm(named)?,
            None => default,
        };
        let header = Header {
            kid: text("kid").map(str::to_owned),
            ..Header::new(algorithm)
        };
        Some(Self { header, key })
    }

    /// Signs a token that begins now.
    ///
    /// # Errors
    /// [`MintError::BadKey`] where the key and its `alg` do not fit.
    pub fn sign(&self, grant: &Grant<'_>) -> Result<String, MintError> {
        let now = Timestamp::now().as_millis() / 1000;
        let claims = json!({
            "iss": grant.issuer,
            "aud": grant.audience,
            "sub": grant.subject,
            "scope": grant.scope,
            "iat": now,
            "exp": now.saturating_add(grant.ttl.as_secs().max(1)),
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        jsonwebtoken::encode(&self.header, &claims, &self.key).map_err(|_| MintError::BadKey)
    }
}

/// Whether a key is for signing (RFC 7517, section 4.3), and the gateway would take its public half: a token of one that
/// it leaves out is of no use.
fn may_sign(key: &Value) -> bool {
    let signs = match key.get("key_ops") {
        None | Some(Value::Null) => true,
        Some(Value::Array(operations)) => {
            operations.is_empty() || operations.iter().any(|operation| operation == "sign")
        }
        Some(_) => false,
    };
    let mut public = key.clone();
    if let Some(members) = public.as_object_mut() {
        members.remove("key_ops");
    }
    signs && Key::read(&public).is_ok()
}

/// A JWK Set with one new symmetric key, for a gateway that nobody else is to trust.
///
/// # Panics
/// Where the system has no randomness to give; nothing that needs a key can go on then.
#[must_use]
pub fn throw_away_set() -> String {
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).expect("the system gives random bytes");
    let key = json!({"kty": "oct", "alg": "HS256", "use": "sig", "kid": "sandbox", "k": URL_SAFE_NO_PAD.encode(secret)});
    json!({"keys": [key]}).to_string()
}
