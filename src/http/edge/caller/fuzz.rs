//! Whatever stands in the `Authorization` header: no panic, and nothing is accepted that was not signed.
//!
//! `ISG_TEST_FULL` makes 10^6 headers of it; a failing run prints its seed, and `ISG_TEST_SEED` replays it.

use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::test::TestRequest;
use actix_web::web::Data;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use serde_json::json;

use super::{RateLimits, Surroundings};
use crate::auth::{Authenticator, Grant, KeySet, Mint};
use crate::config::{self, Auth, Issuer, KeySource};
use crate::telemetry::Metrics;

/// By name, `iss` and audience; the first has no name.
const ISSUERS: [(&str, &str, &str); 3] = [
    ("", "https://issuer.example", "image-share-gateway"),
    ("ci", "https://issuer.example/", "image-share-gateway"),
    ("pods", "https://pods.example", "pods"),
];

/// Two secrets an issuer, so that a token of one can be told to be the other's; their names are the same everywhere.
fn set(issuer: &str) -> String {
    let key = |kid: &str| {
        let k = URL_SAFE_NO_PAD.encode(secret(issuer, kid));
        json!({"kty": "oct", "kid": kid, "alg": "HS256", "k": k})
    };
    json!({"keys": [key("k0"), key("k1")]}).to_string()
}

fn secret(issuer: &str, kid: &str) -> String {
    format!("a secret of the tests, {issuer} {kid}, long enough for it")
}

/// Tokens that are accepted.
fn good_tokens() -> Vec<String> {
    let mut tokens = Vec::new();
    for ((name, issuer, audience), kid) in ISSUERS
        .into_iter()
        .flat_map(|issuer| [(issuer, "k0"), (issuer, "k1")])
    {
        let mint = Mint::from_set(&set(name), Some(kid)).expect("a key");
        for subject in ["team-a", "team-b"] {
            let grant = Grant {
                subject,
                scope: "shares:write",
                issuer,
                audience,
                ttl: Duration::from_hours(24),
            };
            tokens.push(mint.sign(&grant).expect("it signs"));
        }
    }
    tokens
}

/// Knows all issuers and their keys.
fn authenticator() -> Authenticator {
    let issuer = |(name, iss, audience): (&str, &str, &str)| Issuer {
        name: name.parse().ok(),
        ..Issuer::first(iss, audience, KeySource::Sandbox)
    };
    let [first, further @ ..] = ISSUERS.map(issuer);
    let auth = Auth {
        first,
        further: further.to_vec(),
        leeway: Duration::from_secs(30),
    };
    let authenticator = Authenticator::new(&auth, Metrics::new());
    for (issuer, (name, _, _)) in auth.issuers().zip(ISSUERS) {
        let keys = KeySet::parse(&set(name)).expect("keys");
        authenticator.use_keys(issuer.name.as_ref(), keys);
    }
    authenticator
}

/// What is done to a good token.
#[derive(Debug, Clone)]
enum Forgery {
    /// Bytes that have nothing to do with one.
    Anything(Vec<u8>),
    /// One byte is another.
    Byte(Index, Index, u8),
    /// It ends early.
    Cut(Index, Index),
    /// Something stands between.
    Insertion(Index, Index, Vec<u8>),
    /// Header, payload and signature of three tokens.
    Mix([Index; 3]),
    /// Signed, and rightly, by a key of some issuer.
    Signed(Index, Index, Index),
    /// Another header before its payload and signature.
    Header(Index, String),
    /// Other claims behind its header, with its signature.
    Payload(Index, String),
    /// Another scheme, or more than one.
    Scheme(Index, String),
}

fn forgery() -> impl Strategy<Value = Forgery> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let header = prop_oneof![
        select(vec![
            r#"{"alg":"none"}"#,
            r#"{"alg":"None","kid":"k0"}"#,
            r#"{"alg":"HS384","kid":"k0"}"#,
            r#"{"alg":"HS256","kid":"k0","crit":["exp"]}"#,
            r#"{"alg":"RS256","kid":"k1"}"#,
            r#"{"alg":"HS256","kid":"k0","alg":"none"}"#,
            r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}"#,
            r#"{"alg":["HS256"],"kid":"k0"}"#,
            r#"{"alg":"HS256","kid":0}"#,
        ])
        .prop_map(str::to_owned),
        "\\PC{0,60}",
    ];
    let payload = prop_oneof![
        select(vec![
            r#"{"sub":"root","iss":"https://issuer.example","aud":"image-share-gateway","exp":99999999999}"#,
            r#"{"sub":"team-a","scope":"audit:read"}"#,
            r#"{"sub":"team-a","iss":"https://issuer.example/","aud":"image-share-gateway","exp":99999999999}"#,
            r#"{"sub":"team-a","iss":"https://issuer.example","iss":"https://pods.example","aud":["pods"],"exp":99999999999}"#,
            r#"{"sub":"ci:team-a","iss":["https://pods.example"],"aud":"pods","exp":99999999999}"#,
            "[]",
            "null",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,60}",
    ];
    let scheme = "(Basic |bearer  |Bearer\t|Bearer Bearer |Bearer,|BearerX |)";
    prop_oneof![
        3 => bytes().prop_map(Forgery::Anything),
        3 => (any::<Index>(), any::<Index>(), any::<u8>()).prop_map(|(of, at, byte)| Forgery::Byte(of, at, byte)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(of, at)| Forgery::Cut(of, at)),
        2 => (any::<Index>(), any::<Index>(), proptest::collection::vec(any::<u8>(), 1..5))
            .prop_map(|(of, at, bytes)| Forgery::Insertion(of, at, bytes)),
        2 => any::<[Index; 3]>().prop_map(Forgery::Mix),
        2 => any::<[Index; 3]>().prop_map(|[of, issuer, kid]| Forgery::Signed(of, issuer, kid)),
        2 => (any::<Index>(), header).prop_map(|(of, header)| Forgery::Header(of, header)),
        2 => (any::<Index>(), payload).prop_map(|(of, payload)| Forgery::Payload(of, payload)),
        1 => (any::<Index>(), scheme).prop_map(|(of, scheme)| Forgery::Scheme(of, scheme)),
    ]
}

/// The header's value.
fn forge(forgery: &Forgery, good: &[String]) -> Vec<u8> {
    let of = |index: &Index| good[index.index(good.len())].as_str();
    let part =
        |token: &str, number: usize| token.split('.').nth(number).unwrap_or_default().to_owned();
    let bearer = |token: &[u8]| [b"Bearer ", token].concat();
    match forgery {
        Forgery::Anything(bytes) => bytes.clone(),
        Forgery::Byte(index, at, byte) => {
            let mut token = of(index).as_bytes().to_vec();
            let at = at.index(token.len());
            token[at] = *byte;
            bearer(&token)
        }
        Forgery::Cut(index, at) => {
            let token = of(index);
            bearer(&token.as_bytes()[..at.index(token.len())])
        }
        Forgery::Insertion(index, at, bytes) => {
            let (before, after) = of(index).as_bytes().split_at(at.index(of(index).len() + 1));
            bearer(&[before, bytes, after].concat())
        }
        Forgery::Mix(parts) => {
            let parts: Vec<String> = parts
                .iter()
                .enumerate()
                .map(|(number, index)| part(of(index), number))
                .collect();
            bearer(parts.join(".").as_bytes())
        }
        Forgery::Signed(index, issuer, kid) => {
            let (message, _) = of(index).rsplit_once('.').unwrap_or_default();
            let (issuer, ..) = ISSUERS[issuer.index(ISSUERS.len())];
            let key = secret(issuer, ["k0", "k1"][kid.index(2)]);
            let key = jsonwebtoken::EncodingKey::from_secret(key.as_bytes());
            let by = jsonwebtoken::Algorithm::HS256;
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, by);
            bearer(format!("{message}.{}", signature.unwrap_or_default()).as_bytes())
        }
        Forgery::Header(index, header) => {
            let header = URL_SAFE_NO_PAD.encode(header);
            let rest = of(index).split_once('.').map_or("", |(_, rest)| rest);
            bearer(format!("{header}.{rest}").as_bytes())
        }
        Forgery::Payload(index, payload) => {
            let payload = URL_SAFE_NO_PAD.encode(payload);
            bearer(format!("{}.{payload}.{}", part(of(index), 0), part(of(index), 2)).as_bytes())
        }
        Forgery::Scheme(index, scheme) => format!("{scheme}{}", of(index)).into_bytes(),
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by their environment"
)]
fn no_forged_authorization_header_is_accepted() {
    let full = std::env::var("ISG_TEST_FULL").is_ok();
    let cases = if full { 1_000_000 } else { 20_000 };
    let given = std::env::var("ISG_TEST_SEED").ok();
    let seed: u64 = given
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    let surroundings = Surroundings {
        metrics: Data::new(Metrics::new()),
        traces: Data::default(),
        authenticator: Data::new(authenticator()),
        limits: Data::new(RateLimits::new(
            &config::Limits {
                requests: None,
                failed_authentications: None,
            },
            Metrics::new(),
        )),
        client_ip: std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let accepts = |value: &[u8]| {
        // What is no header value is refused before anybody looks at it.
        let Ok(value) = HeaderValue::from_bytes(value) else {
            return false;
        };
        let request = TestRequest::get().insert_header((header::AUTHORIZATION, value));
        surroundings
            .authenticate(&request.to_http_request())
            .is_ok()
    };
    let good = good_tokens();
    for token in &good {
        assert!(
            accepts(format!("Bearer {token}").as_bytes()),
            "a good one is accepted"
        );
    }
    let genuine = |value: &[u8]| {
        let text = std::str::from_utf8(value).ok();
        let parts = text.and_then(|text| text.split_once(' '));
        parts.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && good.iter().any(|good| good == token)
        })
    };
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&forgery(), |forgery| {
        let value = forge(&forgery, &good);
        prop_assert!(!accepts(&value) || genuine(&value), "{:?}", forgery);
        Ok(())
    });
    if let Err(error) = result {
        let error: TestError<Forgery> = error;
        panic!("ISG_TEST_SEED={seed} replays it: {error}");
    }
}
