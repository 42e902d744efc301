use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::config::{Auth, Issuer, KeySource};

const ISS: &str = "https://issuer.example";

/// Reads claims by these rules; `name` is that of the issuer, and `others` are those of others.
fn read(
    claims: &Value,
    rules: ClaimRules,
    name: Option<&str>,
    others: &[&str],
) -> Result<Principal, TokenError> {
    let parse = |name: &&str| name.parse().expect("a name");
    let issuer = Issuer {
        name: name.as_ref().map(parse),
        claims: rules,
        ..Issuer::first(ISS, "gateway", KeySource::Sandbox)
    };
    let further = others.iter().map(|name| Issuer {
        name: Some(parse(name)),
        ..Issuer::first("https://other.example", "gateway", KeySource::Sandbox)
    });
    let auth = Auth {
        further: further.collect(),
        ..Auth::of_one(issuer, Duration::ZERO)
    };
    let text = claims.to_string();
    let claims = Claims::read(&text).expect("an object");
    let principal = claims.principal(&TokenRules::of(&auth.first, &auth));
    principal.map_err(|refusal| refusal.error)
}

fn with(more: &Value) -> Value {
    let mut claims = json!({"iss": ISS, "sub": "team-a", "exp": 4_070_908_800_u64});
    let members = claims.as_object_mut().expect("claims");
    members.extend(more.as_object().expect("claims").clone());
    claims
}

fn scopes(claims: &Value, rules: ClaimRules) -> Result<Vec<String>, TokenError> {
    read(&with(claims), rules, None, &[]).map(|principal| principal.scopes.into_iter().collect())
}

#[test]
fn scopes_come_from_the_claims_that_are_named_and_mean_what_is_configured() {
    let rules = ClaimRules {
        scope_claims: vec!["roles".into(), "https://company.example/rights".into()],
        scopes: BTreeMap::from([
            (
                "Shares.Write".into(),
                vec!["shares:read".into(), "shares:write".into()],
            ),
            ("Nothing".into(), vec![]),
        ]),
        ..ClaimRules::default()
    };
    for (claims, expected) in [
        (
            json!({"roles": ["Shares.Write"]}),
            vec!["shares:read", "shares:write"],
        ),
        (
            json!({"roles": "Shares.Write audit:read"}),
            vec!["audit:read", "shares:read", "shares:write"],
        ),
        (
            json!({"roles": ["Shares.Write audit:read"]}),
            vec!["Shares.Write audit:read"],
        ),
        (
            json!({"roles": ["Nothing", "audit:read", ""]}),
            vec!["audit:read"],
        ),
        (
            json!({"https://company.example/rights": "audit:read"}),
            vec!["audit:read"],
        ),
        (
            json!({"scope": "shares:write", "scp": ["audit:read"]}),
            vec![],
        ),
        (json!({}), vec![]),
    ] {
        assert_eq!(
            scopes(&claims, rules.clone()).as_deref(),
            Ok(&expected
                .iter()
                .map(|scope| (*scope).to_owned())
                .collect::<Vec<_>>()[..]),
            "{claims}"
        );
    }
    for odd in [json!(7), json!({"a": 1}), json!(["a", 1]), Value::Null] {
        let refused = scopes(&json!({ "roles": odd }), rules.clone());
        assert_eq!(refused, Err(TokenError::BadClaim("roles".into())));
    }
}

#[test]
fn every_token_has_what_is_granted_and_no_scope_claim_may_be_named() {
    let rules = ClaimRules {
        scope_claims: vec![],
        grant: vec!["shares:write".into()],
        ..ClaimRules::default()
    };
    let granted = scopes(&json!({"scope": "audit:read", "scp": 7}), rules);
    assert_eq!(granted, Ok(vec!["shares:write".to_owned()]));
}

#[test]
fn groups_are_a_text_or_texts_of_the_claim_that_is_named() {
    let groups = |claims: &Value, claim: &str| {
        let rules = ClaimRules {
            groups_claim: claim.into(),
            ..ClaimRules::default()
        };
        let read = read(&with(claims), rules, None, &["ci"]);
        read.map(|principal| principal.groups.into_iter().collect::<Vec<_>>())
    };
    let texts = |texts: &[&str]| Ok(texts.iter().map(|text| (*text).to_owned()).collect());
    assert_eq!(
        groups(&json!({"groups": ["a", "b c"]}), "groups"),
        texts(&["a", "b c"])
    );
    assert_eq!(groups(&json!({"groups": "a b"}), "groups"), texts(&["a b"]));
    assert_eq!(
        groups(&json!({"roles": ["a"], "groups": 7}), "roles"),
        texts(&["a"])
    );
    assert_eq!(
        groups(&json!({"groups": ["ci:a", "ci", "cia:b"]}), "groups"),
        texts(&["ci", "cia:b"])
    );
    let bad = groups(&json!({"groups": [7]}), "groups");
    assert_eq!(bad, Err(TokenError::BadClaim("groups".into())));
}

#[test]
fn policies_see_texts_numbers_and_truth_values_as_they_were_written() {
    let names = [
        "text", "number", "huge", "large", "larger", "truth", "list", "null", "absent", "sub",
    ];
    let rules = ClaimRules {
        policy_claims: names.iter().map(|name| (*name).to_owned()).collect(),
        ..ClaimRules::default()
    };
    let text = r#"{"sub":"team-a","text":"a \"b\"","number":1.50,"huge":1E400,"large":18446744073709551617,
        "larger":18446744073709551618,"truth":false,"list":["a"],"null":null,"unseen":"x"}"#;
    let claims = Claims::read(text).expect("an object");
    let seen = claims.seen_by_policies(&rules);
    let expected = [
        ("text", "a \"b\""),
        ("number", "1.50"),
        ("huge", "1E400"),
        ("large", "18446744073709551617"),
        ("larger", "18446744073709551618"),
        ("truth", "false"),
        ("sub", "team-a"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn nobody_of_the_first_issuer_takes_a_name_of_another() {
    let sub = |subject: &str, name, others: &[&str]| {
        let claims = json!({"iss": ISS, "sub": subject, "groups": ["ci:makers", "makers"]});
        read(&claims, ClaimRules::default(), name, others)
    };
    let others = ["ci", "system"];
    for subject in ["ci:deploy", "ci:", "system:serviceaccount:a:b"] {
        let refused = sub(subject, None, &others);
        assert!(
            matches!(refused, Err(TokenError::OtherIssuersSubject(_))),
            "{subject}"
        );
    }
    for subject in ["ci", "CI:deploy", "cid:x", "x:ci:y"] {
        let principal = sub(subject, None, &others).expect(subject);
        assert_eq!(principal.in_policies(&principal.subject), subject);
        assert_eq!(principal.groups, BTreeSet::from(["makers".to_owned()]));
    }
    let principal =
        sub("ci:deploy", Some("pods"), &others).expect("a further one's names are its own");
    assert_eq!(principal.in_policies(&principal.subject), "pods:ci:deploy");
    assert_eq!(principal.groups.len(), 2);
    for own in SYSTEM_SUBJECTS {
        for name in [None, Some("pods")] {
            assert_eq!(sub(own, name, &[]), Err(TokenError::SystemSubject), "{own}");
        }
    }
}
