use std::time::Duration;

use crate::config::{Auth, Issuer, KeySource};
use crate::telemetry::Metrics;

use super::*;

const ISS: &str = "https://issuer.example";

/// The first issuer and further ones, `ci` and `pods`, each with keys of its own.
struct World {
    authenticator: Authenticator,
    sets: Vec<String>,
}

const NAMES: [Option<&str>; 3] = [None, Some("ci"), Some("pods")];

fn iss(place: usize) -> String {
    NAMES[place].map_or(ISS.to_owned(), |name| format!("https://{name}.example"))
}

fn world() -> World {
    let issuer = |place: usize| Issuer {
        name: NAMES[place].map(|name| name.parse().expect("a name")),
        ..Issuer::first(&iss(place), "a", KeySource::Sandbox)
    };
    let auth = Auth {
        first: issuer(0),
        further: vec![issuer(1), issuer(2)],
        leeway: Duration::from_secs(30),
    };
    let authenticator = Authenticator::new(&auth, Metrics::new());
    let sets: Vec<String> = NAMES.iter().map(|_| throw_away_set()).collect();
    for (issuer, set) in auth.issuers().zip(&sets) {
        authenticator.use_keys(issuer.name.as_ref(), KeySet::parse(set).expect("keys"));
    }
    World {
        authenticator,
        sets,
    }
}

impl World {
    /// A token that says it is of the issuer at `of`, signed by the key of that at `by`.
    fn token(&self, of: usize, by: usize, ttl: Duration) -> String {
        let grant = Grant {
            subject: "team-a",
            scope: "shares:read",
            issuer: &iss(of),
            audience: "a",
            ttl,
        };
        let mint = Mint::from_set(&self.sets[by], None).expect("a key");
        mint.sign(&grant).expect("signs")
    }

    fn use_keys(&self, place: usize, set: &str) {
        let name = NAMES[place].map(|name| name.parse().expect("a name"));
        let keys = KeySet::parse(set).expect("keys");
        self.authenticator.use_keys(name.as_ref(), keys);
    }
}

fn after(start: Timestamp, time: Duration) -> Timestamp {
    let micros = i64::try_from(time.as_micros()).expect("short");
    Timestamp::from_micros(start.as_micros() + micros)
}

#[test]
fn a_token_is_known_again_and_never_outlives_itself_or_its_key() {
    let world = world();
    let token = world.token(1, 1, Duration::from_mins(10));
    let start = Timestamp::now();
    let ask = |at: Duration| {
        world
            .authenticator
            .authenticate_at(&token, after(start, at))
    };
    let first = ask(Duration::ZERO).expect("good");
    let again = ask(Duration::from_secs(600 + 25)).expect("the leeway holds");
    assert!(Arc::ptr_eq(&first, &again), "it was not looked at again");
    let late = ask(Duration::from_secs(600 + 31)).expect_err("its time is over");
    assert_eq!(late.error, TokenError::Expired);
    // The same keys in other words, then others' keys, then other keys.
    let written_otherwise = world.sets[1]
        .replace(':', " : ")
        .replace("\"use\"", "\"odd\":[],\"use\"");
    assert_ne!(written_otherwise, world.sets[1]);
    world.use_keys(1, &written_otherwise);
    world.use_keys(0, &throw_away_set());
    assert!(Arc::ptr_eq(&first, &ask(Duration::ZERO).expect("good")));
    world.use_keys(1, &throw_away_set());
    let gone = ask(Duration::ZERO).expect_err("its key is gone");
    assert_eq!(gone.error, TokenError::BadSignature);
    world.use_keys(1, &world.sets[1]);
    assert!(!Arc::ptr_eq(
        &first,
        &ask(Duration::ZERO).expect("it is back")
    ));
}

#[test]
fn refused_tokens_are_not_kept() {
    let world = world();
    let forged = world.token(1, 2, Duration::from_mins(1));
    for _ in 0..2 {
        let refused = world
            .authenticator
            .authenticate(&forged)
            .expect_err("forged");
        assert_eq!(refused.error, TokenError::BadSignature);
    }
    world.use_keys(1, &world.sets[2]);
    assert!(world.authenticator.authenticate(&forged).is_ok());
}

#[test]
fn each_issuers_keys_are_good_for_its_own_tokens_alone() {
    let world = world();
    for (of, expected) in NAMES.into_iter().enumerate() {
        for by in 0..NAMES.len() {
            let token = world.token(of, by, Duration::from_mins(1));
            let checked = world.authenticator.authenticate(&token);
            assert_eq!(checked.is_ok(), of == by, "of {of}, signed by {by}");
            if let Ok(principal) = checked {
                let name = principal.issuer_name.as_ref().map(IssuerName::as_str);
                assert_eq!(name, expected);
            }
        }
    }
}
