//! What browsers are told: headers on every answer, and who of other origins may call.

use crate::support::{Answer, Gateway};

const ORIGIN: &str = "https://console.example.com";
const SHARE: &str = "/images/img/shares/7";

async fn preflight(gateway: &Gateway, origin: &str, method: &str, headers: &str) -> Answer {
    let request = gateway.nobody().request("OPTIONS", SHARE);
    let request = request
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", headers);
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_origin_may_call_unless_it_is_named() {
    let gateway = Gateway::spawn().await;
    let refused = preflight(&gateway, ORIGIN, "PUT", "authorization").await;
    refused.assert_problem(405, "method-not-allowed");
    assert_eq!(refused.header("access-control-allow-origin"), None);
    let request = gateway
        .sharer()
        .request("PUT", SHARE)
        .header("Origin", ORIGIN);
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, 200, "the browser decides by the headers");
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_origin_may_call_and_read_answers_and_problems() {
    let settings = [(
        "server.cors_origins",
        "https://console.example.com,https://other.example",
    )];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let allowed = preflight(&gateway, ORIGIN, "PUT", "authorization,prefer,x-request-id").await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some(ORIGIN));
    assert!(
        allowed
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PUT")
    );
    assert!(allowed.header("x-request-id").is_some());
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    for (origin, method, headers) in [
        ("https://evil.example", "PUT", "authorization"),
        ("null", "PUT", "authorization"),
        (ORIGIN, "CONNECT", "authorization"),
        (ORIGIN, "PUT", "x-evil"),
    ] {
        let refused = preflight(&gateway, origin, method, headers).await;
        refused.assert_problem(400, "invalid-request");
        assert_eq!(
            refused.header("access-control-allow-methods"),
            None,
            "{origin} {method} {headers}"
        );
    }
    // Problems too can be read, with the headers that go with them.
    let request = gateway
        .nobody()
        .request("GET", SHARE)
        .header("Origin", ORIGIN);
    let problem = Answer::of(request).await;
    problem.assert_problem(401, "unauthenticated");
    assert_eq!(problem.header("access-control-allow-origin"), Some(ORIGIN));
    let exposed = problem
        .header("access-control-expose-headers")
        .unwrap()
        .to_ascii_lowercase();
    for name in [
        "audit-id",
        "x-request-id",
        "retry-after",
        "link",
        "www-authenticate",
    ] {
        assert!(exposed.contains(name), "{name} in {exposed}");
    }
    let request = gateway
        .nobody()
        .request("GET", SHARE)
        .header("Origin", "https://evil.example");
    let other = Answer::of(request).await;
    assert_eq!(other.header("access-control-allow-origin"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_sniffing_and_answers_with_data_forbid_keeping() {
    let gateway = Gateway::spawn().await;
    for path in [
        SHARE,
        "/images",
        "/images/img/shares",
        "/audit/events",
        "/nowhere",
        "/readyz",
    ] {
        let answer = gateway.caller("shares:read audit:read").get(path).await;
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    let page = gateway.nobody().get("/swagger-ui/").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(!policy.contains("unsafe-"), "{policy}");
    assert!(policy.contains("default-src 'none'"), "{policy}");
}
