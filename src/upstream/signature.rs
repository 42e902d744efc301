//! The signature of a call (UCloud's public page on the signature; all SDKs agree).
//!
//! All parameters but `Signature`, sorted by name bytewise, names and values joined with nothing between,
//! the private key behind them; SHA-1, lower-case hex. Neither path nor time is signed, so a captured
//! request can be replayed: TLS is the only guard.

use sha1::{Digest, Sha1};

use super::wire::Parameter;

/// Signs parameters as they are before percent-encoding.
pub(super) fn sign(parameters: &[Parameter<'_>], private_key: &str) -> String {
    let mut sorted: Vec<&Parameter<'_>> = parameters.iter().collect();
    sorted.sort_by(|one, other| one.0.as_bytes().cmp(other.0.as_bytes()));
    let mut hash = Sha1::new();
    for (name, value) in sorted {
        hash.update(name.as_bytes());
        hash.update(value.as_bytes());
    }
    hash.update(private_key);
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_golden_vector_is_signed_alike() {
        let vectors = include_str!("../../tests/fixtures/upstream/signature_vectors.json");
        let vectors: Value = serde_json::from_str(vectors).expect("the fixture is JSON");
        let vectors = vectors["vectors"].as_array().expect("a list");
        assert_eq!(vectors.len(), 48);
        for vector in vectors {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let encoded = vector["encoded"].as_object().expect("a map");
            let parameters: Vec<_> = encoded
                .iter()
                .map(|(name, value)| (name.into(), text(value).into()))
                .collect();
            let signature = sign(&parameters, &text(&vector["private_key"]));
            assert_eq!(signature, text(&vector["signature"]), "{}", vector["name"]);
        }
    }
}
