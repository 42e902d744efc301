//! The signature as the service checks it, with a canonical form of its own.
//!
//! Names ascending by bytes, each followed by its value; the private key last; SHA-1. In nested JSON an
//! array adds its elements after its name, an object its sorted members, null nothing but its name.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha1::{Digest as _, Sha1};

/// The signature that a call with these parameters must carry.
pub(super) fn expected(parameters: &Map<String, Value>, private_key: &str) -> String {
    let mut canonical = String::new();
    append_members(
        &mut canonical,
        parameters.iter().filter(|(name, _)| *name != "Signature"),
    );
    canonical.push_str(private_key);
    // Writing to a String cannot fail, here and below.
    let digest = Sha1::digest(canonical.as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn append_members<'a>(
    canonical: &mut String,
    members: impl Iterator<Item = (&'a String, &'a Value)>,
) {
    let mut members: Vec<_> = members.collect();
    members.sort_unstable_by_key(|(name, _)| name.as_bytes());
    for (name, value) in members {
        canonical.push_str(name);
        append_value(canonical, value);
    }
}

fn append_value(canonical: &mut String, value: &Value) {
    match value {
        Value::Null => {}
        Value::String(text) => canonical.push_str(text),
        Value::Bool(truth) => canonical.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            // Rust prints a float as the service wants it: never an exponent, whole ones as integers.
            Some(float) => {
                let _ = write!(canonical, "{float}");
            }
            None => canonical.push_str(&number.to_string()),
        },
        Value::Array(items) => items.iter().for_each(|item| append_value(canonical, item)),
        Value::Object(members) => append_members(canonical, members.iter()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> Value {
        let text = include_str!("../../tests/fixtures/upstream/signature_vectors.json");
        serde_json::from_str(text).expect("the fixture is JSON")
    }

    #[test]
    fn every_golden_vector_is_accepted_from_its_form() {
        for vector in fixture()["vectors"].as_array().expect("a list") {
            let body = vector["form_body"].as_str().expect("text");
            let call = crate::sandbox::request::Call::read("", body.as_bytes(), false);
            let key = vector["private_key"].as_str().expect("text");
            assert_eq!(
                expected(call.parameters(), key),
                vector["signature"],
                "{}",
                vector["name"]
            );
        }
    }

    #[test]
    fn nested_json_is_signed_as_the_go_sdk_does() {
        let fixture = fixture();
        let vectors = fixture["json_vectors"].as_array().expect("a list");
        assert_eq!(vectors.len(), 6);
        for vector in vectors {
            let parameters = vector["params"].as_object().expect("a map");
            let key = vector["private_key"].as_str().expect("text");
            assert_eq!(
                expected(parameters, key),
                vector["signature"],
                "{}",
                vector["name"]
            );
        }
    }

    #[test]
    fn every_recorded_request_of_an_sdk_carries_the_expected_signature() {
        let text = include_str!("../../tests/fixtures/upstream/recorded_requests.json");
        let recorded: Value = serde_json::from_str(text).expect("the fixture is JSON");
        for entry in recorded["requests"].as_array().expect("a list") {
            let request = &entry["request"];
            let body = request["body"].as_str().expect("text");
            let query = request["target"]
                .as_str()
                .and_then(|target| target.split_once('?'))
                .map_or("", |(_, query)| query);
            let is_json = request["headers"]["Content-Type"] == "application/json";
            let call = crate::sandbox::request::Call::read(query, body.as_bytes(), is_json);
            let signature = call.text("Signature").expect("signed");
            assert_eq!(
                expected(call.parameters(), "my_private_key"),
                signature,
                "{}",
                entry["name"]
            );
        }
    }
}
