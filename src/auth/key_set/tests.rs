use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A set of `shared` shape as a provider publishes it.
fn wild(name: &str) -> Value {
    let text = match name {
        "forgerock" => include_str!("../../../tests/fixtures/wild/shapes/forgerock-jwks.json"),
        "k8s" => include_str!("../../../tests/fixtures/wild/shapes/k8s-jwks.json"),
        "rfc9864" => include_str!("../../../tests/fixtures/wild/shapes/rfc9864-jwks.json"),
        _ => include_str!("../../../tests/fixtures/wild/shapes/plain-jwks.json"),
    };
    serde_json::from_str(text).expect("JSON")
}

fn parse(set: &Value) -> KeySet {
    KeySet::parse(&set.to_string()).expect("a usable set")
}

/// A secret of its own for each number.
fn secret(kid: Option<&str>, number: u8) -> Value {
    json!({"kty": "oct", "kid": kid, "k": URL_SAFE_NO_PAD.encode([number; 64])})
}

fn count(keys: &KeySet, kid: Option<&str>, algorithm: Algorithm) -> Result<usize, NoKey> {
    keys.candidates(kid, algorithm).map(|keys| keys.len())
}

#[test]
fn one_kid_may_name_a_key_for_each_algorithm() {
    let keys = parse(&wild("forgerock"));
    assert!(keys.left_out().is_empty(), "{:?}", keys.left_out());
    let kid = Some("RId+oQm2IhmkUI1wTQUBPQm7jXY=");
    for algorithm in [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512] {
        assert_eq!(count(&keys, kid, algorithm), Ok(1), "{algorithm:?}");
        assert_eq!(count(&keys, None, algorithm), Ok(1), "without kid");
    }
    let names = vec!["RS256", "RS384", "RS512"];
    let other = count(&keys, kid, Algorithm::PS256);
    assert_eq!(other, Err(NoKey::OtherAlgorithm(names)));
}

#[test]
fn of_many_keys_of_one_kid_at_most_four_are_tried_and_none_counts_twice() {
    let keys = |numbers: &[u8]| {
        let keys: Vec<Value> = numbers.iter().map(|n| secret(Some("k"), *n)).collect();
        parse(&json!({ "keys": keys }))
    };
    assert_eq!(count(&keys(&[1, 2]), Some("k"), Algorithm::HS256), Ok(2));
    let many = keys(&[1, 2, 3, 4, 5, 6]);
    assert_eq!(count(&many, Some("k"), Algorithm::HS256), Ok(4));
    let same = keys(&[1, 1, 1, 1, 1, 2]);
    assert_eq!(count(&same, Some("k"), Algorithm::HS256), Ok(2));
    let mut marked = secret(Some("k"), 1);
    marked["alg"] = json!("HS256");
    let in_two_forms: Vec<Value> = [secret(Some("k"), 1), marked]
        .into_iter()
        .chain([2, 3, 4].map(|number| secret(Some("k"), number)))
        .collect();
    let keys = parse(&json!({ "keys": in_two_forms }));
    assert_eq!(count(&keys, Some("k"), Algorithm::HS256), Ok(4));
}

#[test]
fn without_kid_one_key_that_stands_there_twice_is_one_key() {
    let mut again = secret(Some("a"), 1);
    again["alg"] = json!("HS256");
    let keys = parse(&json!({"keys": [secret(Some("a"), 1), again]}));
    assert_eq!(count(&keys, None, Algorithm::HS256), Ok(1));
    let keys = parse(&json!({"keys": [secret(Some("a"), 1), secret(Some("b"), 1)]}));
    assert_eq!(count(&keys, None, Algorithm::HS256), Err(NoKey::Ambiguous));
    let keys = parse(&json!({"keys": [secret(None, 1), secret(None, 2)]}));
    assert_eq!(count(&keys, None, Algorithm::HS256), Err(NoKey::Ambiguous));
}

/// As serializers write keys that know every member there could be.
#[test]
fn null_is_absent_and_an_empty_list_says_nothing() {
    let members = [
        "kid", "use", "key_ops", "alg", "x5c", "x5t", "x5u", "oth", "d", "k", "crv", "x", "y", "p",
        "q", "dp", "dq", "qi",
    ];
    for name in ["k8s", "plain", "rfc9864"] {
        let mut set = wild(name);
        for key in set["keys"].as_array_mut().expect("keys") {
            let key = key.as_object_mut().expect("a key");
            for member in members {
                key.entry(member).or_insert(Value::Null);
            }
            for list in ["key_ops", "x5c"] {
                key.insert(list.into(), json!([]));
            }
        }
        let keys = parse(&set);
        assert!(keys.left_out().is_empty(), "{name}: {:?}", keys.left_out());
        assert!(!keys.hold_secrets(), "null is no private part");
        assert!(keys.is_same(&parse(&wild(name))), "{name}");
    }
    let mut set = wild("plain");
    set["keys"][0]["kid"] = Value::Null;
    assert_eq!(count(&parse(&set), None, Algorithm::RS256), Ok(1));
    for (member, value) in [
        ("key_ops", json!(["encrypt"])),
        ("use", json!("enc")),
        ("alg", json!("RSA-OAEP")),
    ] {
        let mut set = wild("plain");
        set["keys"][0][member] = value;
        assert!(
            KeySet::parse(&set.to_string()).is_err(),
            "{member} still counts"
        );
    }
}

#[test]
fn keys_are_read_however_their_numbers_are_written_and_whatever_stands_beside_them() {
    let plain = parse(&wild("plain"));
    let text = wild("plain").to_string();
    for (from, to) in [
        (r#""e":"AQAB""#, r#""e":"AAEAAQ""#),
        (r#""e":"AQAB""#, r#""e":"AQAB==""#),
        (r#""kty""#, r#""odd":1e999,"kty""#),
        (r#""kty""#, r#""odd":"\ud800","kty""#),
        (r#""keys""#, r#""odd":[1e999,"\ud800"],"keys""#),
        ("[{", r#"[7,{"kty":"RSA","n":"\ud800"},{"#),
    ] {
        let written = text.replace(from, to);
        assert_ne!(written, text);
        let read = KeySet::parse(&written).expect(to);
        assert!(read.is_same(&plain), "{to}");
    }
    let deep = format!(
        "{{\"odd\":{}{},{}",
        "[".repeat(500),
        "]".repeat(500),
        &text[1..]
    );
    assert!(KeySet::parse(&deep).expect("deep").is_same(&plain));
    let mut with_plain_alphabet = wild("plain");
    let n = with_plain_alphabet["keys"][0]["n"].as_str().expect("n");
    with_plain_alphabet["keys"][0]["n"] = json!(n.replace('-', "+").replace('_', "/"));
    assert!(parse(&with_plain_alphabet).is_same(&plain));
}

#[test]
fn of_many_keys_that_cannot_be_used_the_first_are_named_and_the_others_counted() {
    let keys: Vec<Value> = std::iter::once(secret(Some("k"), 1))
        .chain((0..100).map(|number| json!(number)))
        .collect();
    let told = parse(&json!({ "keys": keys })).left_out();
    assert_eq!(told.len(), 21);
    assert_eq!(told[0], "key 2 is no object");
    assert_eq!(told[20], "80 more keys cannot be used");
    let none = KeySet::parse(&json!({ "keys": keys[1..] }).to_string());
    let told = none.expect_err("nothing can be used").to_string();
    assert!(told.ends_with("key 5 is no object; and 95 more"), "{told}");
    let empty = KeySet::parse(r#"{"keys":[]}"#).expect_err("it is empty");
    assert_eq!(empty.to_string(), "holds no usable key: it is empty");
}

#[test]
fn ed25519_is_a_name_of_eddsa() {
    let keys = parse(&wild("rfc9864"));
    assert_eq!(key::algorithm("Ed25519"), Some(Algorithm::EdDSA));
    assert_eq!(key::algorithm("Ed448"), None);
    for kid in ["ed1", "ed2"] {
        assert_eq!(count(&keys, Some(kid), Algorithm::EdDSA), Ok(1), "{kid}");
    }
}

#[test]
fn a_byte_order_mark_begins_no_other_set() {
    let text = wild("plain").to_string();
    let marked = KeySet::parse(&format!("\u{feff}{text}")).expect("a usable set");
    assert!(marked.is_same(&parse(&wild("plain"))));
}

proptest! {
    /// Whatever order, white space and further members a set is written with, and whatever keys two sets have in common.
    #[test]
    fn a_set_is_the_same_by_its_keys_alone(
        numbers in proptest::collection::vec(0_u8..5, 1..6),
        others in proptest::collection::vec(0_u8..5, 1..6),
        shift in any::<proptest::sample::Index>(),
    ) {
        let set = |numbers: &[u8], odd: bool| {
            let keys: Vec<Value> = numbers.iter().map(|number| {
                let mut key = secret(Some(&format!("k{number}")), *number);
                if odd {
                    key["nbf"] = json!(7);
                    key["use"] = json!("sig");
                }
                key
            }).collect();
            KeySet::parse(&serde_json::to_string_pretty(&json!({"keys": keys})).expect("JSON")).expect("a set")
        };
        let mut turned = numbers.clone();
        turned.rotate_left(shift.index(numbers.len()));
        prop_assert!(set(&numbers, false).is_same(&set(&turned, true)));
        let distinct = |numbers: &[u8]| numbers.iter().copied().collect::<std::collections::BTreeSet<u8>>();
        let same = set(&numbers, false).is_same(&set(&others, false));
        prop_assert_eq!(same, distinct(&numbers) == distinct(&others));
    }
}
