//! Who is let in, through HTTP. The checks of a token itself are tested in its room.

use std::time::Duration;

use image_share_gateway::auth::Grant;

use crate::support::{Answer, Gateway, mint};

const SHARE: &str = "/images/img/shares/7";

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_every_route_of_callers_is_401_with_a_challenge() {
    let gateway = Gateway::spawn().await;
    let routes = [
        ("PUT", SHARE),
        ("DELETE", SHARE),
        ("GET", SHARE),
        ("HEAD", SHARE),
        ("GET", "/images/img/shares"),
        ("GET", "/audit/events"),
        ("GET", "/whoami"),
        ("GET", "/audit/events/no-uuid"),
        ("PUT", "/images/%2F/shares/0?colour=blue"),
    ];
    for (method, path) in routes {
        let answer = gateway.nobody().send(method, path).await;
        assert_eq!(answer.status, 401, "{method} {path}");
        assert_eq!(
            answer.header("www-authenticate"),
            Some(r#"Bearer realm="image-share-gateway""#),
            "{method} {path}"
        );
        if method != "HEAD" {
            answer.assert_problem(401, "unauthenticated");
        }
    }
    assert!(
        gateway.events().await.is_empty(),
        "unauthenticated traffic writes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_told_why_by_the_challenge() {
    let gateway = Gateway::spawn().await;
    let good = gateway.sharer().token.unwrap();
    let sign = |issuer: &str, audience: &str| {
        let grant = Grant {
            subject: "s",
            scope: "shares:write",
            issuer,
            audience,
            ttl: Duration::from_mins(1),
        };
        format!("Bearer {}", mint().sign(&grant).unwrap())
    };
    let refused = [
        format!("Bearer {good}x"),
        format!("Bearer  {good}"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer a.b.c".to_owned(),
        sign("https://other.example", "image-share-gateway"),
        sign("https://issuer.example", "other"),
    ];
    for value in refused {
        let answer = Answer::of(
            gateway
                .nobody()
                .request("PUT", SHARE)
                .header("Authorization", &value),
        )
        .await;
        answer.assert_problem(401, "unauthenticated");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.contains(r#"error="invalid_token", error_description=""#),
            "{value}: {challenge}"
        );
    }
    for value in ["Basic dXNlcjpwYXNz", "basic", good.as_str()] {
        let answer = Answer::of(
            gateway
                .nobody()
                .request("PUT", SHARE)
                .header("Authorization", value),
        )
        .await;
        answer.assert_problem(401, "unauthenticated");
        assert!(
            !answer
                .header("www-authenticate")
                .unwrap()
                .contains("error="),
            "{value} is no bearer token"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_case_of_the_scheme_does_not_matter() {
    let gateway = Gateway::spawn().await;
    let good = gateway.sharer().token.unwrap();
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = gateway
            .nobody()
            .request("PUT", SHARE)
            .header("Authorization", format!("{scheme} {good}"));
        assert_eq!(Answer::of(request).await.status, 200, "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_authorization_headers_are_400_whatever_they_hold() {
    let gateway = Gateway::spawn().await;
    let good = format!("Bearer {}", gateway.sharer().token.unwrap());
    for (first, second) in [(good.as_str(), good.as_str()), ("Bearer x", "Basic y")] {
        let request = gateway.nobody().request("PUT", SHARE);
        let answer = Answer::of(
            request
                .header("Authorization", first)
                .header("Authorization", second),
        )
        .await;
        let problem = answer.assert_problem(400, "invalid-request");
        assert_eq!(problem["errors"][0]["in"], "header");
        assert_eq!(problem["errors"][0]["name"], "Authorization");
        assert_eq!(
            (problem["effect"].as_str(), problem["retryable"].as_bool()),
            (Some("none"), Some(false))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_keys_lets_nobody_in_and_is_not_ready() {
    let gateway = Gateway::without_keys().await;
    let answer = gateway.sharer().put(SHARE).await;
    let problem = answer.assert_problem(503, "keys-unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(
        (problem["effect"].as_str(), problem["retryable"].as_bool()),
        (Some("none"), Some(true))
    );
    // What is no token under any keys is told so.
    let claims =
        |claims: serde_json::Value| crate::support::token_with("k", b"any secret", &claims);
    for never in [
        "x".to_owned(),
        "a.b.c".to_owned(),
        claims(serde_json::json!({"iss": "https://other.example"})),
        claims(serde_json::json!({"aud": "another"})),
        claims(serde_json::json!({"exp": 1})),
    ] {
        let answer = gateway.with(never).put(SHARE).await;
        answer.assert_problem(401, "unauthenticated");
    }
    let ready = gateway.readiness().await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("no keys of"), "{}", ready.body);
}
