//! Keys that somebody else serves: fetched, rotated, away, and asked for by whoever forges.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Gateway, ISSUER, KeyAnswer, KeyServer, Program, SECRET, environment, eventually, set_of,
    token_with,
};

const SHARE: &str = "/images/img/shares/7";
const OLD: &[u8] = b"an old secret that was long enough once";
const NEW: &[u8] = b"a new secret that is long enough as well";

fn good(kid: &str, secret: &[u8]) -> String {
    token_with(kid, secret, &json!({"scope": "audit:read"}))
}

/// Whether a token is let in: reads of the trail need no upstream.
async fn status(gateway: &Gateway, token: &str) -> u16 {
    gateway
        .with(token.to_owned())
        .get("/audit/events")
        .await
        .status
}

async fn ready(gateway: &Gateway) -> (u16, String) {
    let answer = gateway.readiness().await;
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let checks = body["checks"].as_array().unwrap();
    let auth = checks.iter().find(|check| check["name"] == "auth").unwrap();
    (
        answer.status,
        auth["detail"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_while_the_source_is_away_waits_and_heals_by_itself_and_no_outage_refuses_a_good_token()
 {
    let server = KeyServer::start(KeyAnswer::Close).await;
    let gateway =
        Gateway::with_keys_from(&[("auth.jwks_url", &format!("{}/keys", server.url))]).await;
    let token = good("k", SECRET);
    assert_eq!(status(&gateway, &token).await, 503, "it may be good");
    let (code, _) = ready(&gateway).await;
    assert_eq!(code, 503);
    let set = set_of("k", SECRET);
    server.answers(KeyAnswer::Body(set.clone(), "max-age=60"));
    eventually("it heals by itself", async || {
        (ready(&gateway).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(status(&gateway, &token).await, 200);
    let (_, detail) = ready(&gateway).await;
    assert!(
        detail.contains("/keys, read ") && detail.ends_with(" s ago"),
        "{detail}"
    );
    let encryption = r#"{"keys":[{"kty":"oct","kid":"k","use":"enc","k":"dGhlLXNlY3JldC1vZi10aGUtdGVzdHMtaXMtbG9uZy1lbm91Z2g"}]}"#;
    for (fault, words) in [
        (KeyAnswer::Close, "lost"),
        (KeyAnswer::Status(404), "404"),
        (KeyAnswer::Status(503), "503"),
        (KeyAnswer::Body(String::new(), ""), "no JWK Set"),
        (KeyAnswer::Body("<html>".into(), ""), "no JWK Set"),
        (
            KeyAnswer::Body(r#"{"keys":[]}"#.into(), ""),
            "no usable key",
        ),
        (KeyAnswer::Body(encryption.into(), ""), "no usable key"),
        (
            KeyAnswer::Body("x".repeat(2 * 1024 * 1024), ""),
            "longer than",
        ),
        (KeyAnswer::Redirect("http://127.0.0.1:9/".into()), "302"),
        (KeyAnswer::Hang, "in time"),
        (KeyAnswer::Drip, "in time"),
    ] {
        server.answers(fault.clone());
        gateway.reload_keys().await;
        let detail = eventually("the failure is told", async || {
            let (code, detail) = ready(&gateway).await;
            assert_eq!(code, 200, "the last good set keeps it ready");
            assert_eq!(status(&gateway, &token).await, 200, "{fault:?}");
            detail.contains(words).then_some(detail)
        })
        .await;
        assert!(detail.contains("read "), "its age stays: {detail}");
    }
    server.answers(KeyAnswer::Body(set, ""));
    gateway.reload_keys().await;
    eventually("it is read again", async || {
        let (_, detail) = ready(&gateway).await;
        (!detail.contains("failed")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_leads_to_the_keys_of_that_issuer_alone() {
    let server = KeyServer::start(KeyAnswer::Body(set_of("k", SECRET), "")).await;
    let document =
        |issuer: &str, jwks: &str| json!({"issuer": issuer, "jwks_uri": jwks}).to_string();
    let here = format!("{}/somewhere/keys", server.url);
    server.discovers(document("https://other.example", &here));
    let settings = [
        ("auth.oidc_discovery", "true"),
        ("auth.issuer", server.url.as_str()),
    ];
    let gateway = Gateway::with_keys_from(&settings).await;
    for (document, words) in [
        (document("https://other.example", &here), "another issuer"),
        (document(&server.url, "http://keys.example/"), "jwks_uri"),
        ("{}".to_owned(), "lacks"),
    ] {
        server.discovers(document);
        gateway.reload_keys().await;
        eventually("the document is refused", async || {
            let (code, detail) = ready(&gateway).await;
            assert_eq!(code, 503);
            detail.contains(words).then_some(())
        })
        .await;
    }
    assert_eq!(server.asked(), 0, "no keys are taken from such a document");
    server.discovers(document(&server.url, &here));
    gateway.reload_keys().await;
    eventually("the keys are found", async || {
        (ready(&gateway).await.0 == 200).then_some(())
    })
    .await;
    let token = token_with(
        "k",
        SECRET,
        &json!({"iss": server.url, "scope": "audit:read"}),
    );
    assert_eq!(status(&gateway, &token).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_nobody_knows_are_asked_for_once_and_forgers_harm_nobody() {
    let server = KeyServer::start(KeyAnswer::Body(set_of("old", OLD), "max-age=3600")).await;
    let gateway = Gateway::with_keys_from(&[("auth.jwks_url", &server.url)]).await;
    eventually("it is ready", async || {
        (ready(&gateway).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(server.asked(), 1);
    let token = good("old", OLD);
    let floods = (0..16).map(|caller| {
        let (gateway, token) = (&gateway, &token);
        async move {
            for number in 0..50 {
                let forged = good(&format!("{caller}-{number}"), NEW);
                assert_eq!(status(gateway, &forged).await, 401);
                assert_eq!(
                    status(gateway, token).await,
                    200,
                    "good callers are unharmed"
                );
            }
        }
    });
    join_all(floods).await;
    assert_eq!(
        server.asked(),
        2,
        "800 unknown keys ask once, besides the start"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_new_at_the_source_is_fetched_by_the_first_token_that_names_it() {
    let server = KeyServer::start(KeyAnswer::Body(set_of("old", OLD), "max-age=3600")).await;
    let gateway = Gateway::with_keys_from(&[("auth.jwks_url", &server.url)]).await;
    eventually("it is ready", async || {
        (ready(&gateway).await.0 == 200).then_some(())
    })
    .await;
    server.answers(KeyAnswer::Body(set_of("new", NEW), "max-age=3600"));
    let (new, old) = (good("new", NEW), good("old", OLD));
    assert_eq!(status(&gateway, &old).await, 200);
    assert_eq!(status(&gateway, &new).await, 200);
    assert_eq!(server.asked(), 2);
    assert_eq!(
        status(&gateway, &old).await,
        401,
        "the old key is gone, and what was verified with it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_fetches_keys_at_once() {
    let server = KeyServer::start(KeyAnswer::Body(set_of("old", OLD), "max-age=3600")).await;
    let directory = tempfile::tempdir().unwrap();
    let mut variables = environment("http://127.0.0.1:9");
    variables.retain(|(name, _)| *name != "ISG__AUTH__JWKS_FILE");
    variables.push(("ISG__AUTH__JWKS_URL", &server.url));
    let program = Program::spawn(directory.path(), &["serve"], &variables);
    let base_url = program.base_url().await;
    program.wait_for_log("a key set is read").await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let status = async |token: &str| {
        let get = client
            .get(format!("{base_url}/audit/events"))
            .bearer_auth(token);
        get.send().await.unwrap().status().as_u16()
    };
    let (old, new) = (good("old", OLD), good("new", NEW));
    assert_eq!((status(&old).await, status(&new).await), (200, 401));
    server.answers(KeyAnswer::Body(set_of("new", NEW), "max-age=3600"));
    program.signal(rustix::process::Signal::HUP);
    eventually("the new set is read", async || {
        (program.log().matches("a key set is read").count() == 2).then_some(())
    })
    .await;
    assert_eq!((status(&old).await, status(&new).await), (401, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_four_hundred_groups_passes_and_one_that_is_too_long_does_not() {
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &[]).await;
    let groups = |count: usize| -> Vec<String> {
        (0..count)
            .map(|number| format!("cloud-team-{number:012}"))
            .collect()
    };
    let with = |count| {
        token_with(
            "test",
            SECRET,
            &json!({"scope": "audit:read", "groups": groups(count)}),
        )
    };
    let passes = with(400);
    assert!(passes.len() < 16 * 1024, "{}", passes.len());
    assert_eq!(status(&gateway, &passes).await, 200);
    let too_long = with(600);
    assert!(too_long.len() > 16 * 1024);
    gateway
        .with(too_long)
        .put(SHARE)
        .await
        .assert_problem(401, "unauthenticated");
    assert_eq!(ISSUER, "https://issuer.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_learns_whether_a_check_holds_and_who_runs_the_gateway_learns_why() {
    let server = KeyServer::start(KeyAnswer::Close).await;
    let url = format!("{}/keys", server.url);
    let settings = [
        ("auth.jwks_url", url.as_str()),
        ("limits.failed_authentications_per_minute", "1"),
    ];
    let gateway = Gateway::with_keys_from(&settings).await;
    let told = gateway.nobody().get("/readyz").await;
    for check in told.json()["checks"].as_array().unwrap() {
        let members: Vec<&str> = check
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(members, ["name", "ok"], "{told:?}");
    }
    let (_, detail) = ready(&gateway).await;
    assert!(detail.contains(&url), "with its port: {detail}");
    // What cannot be judged is no failure of whoever asks.
    let token = good("k", SECRET);
    for _ in 0..5 {
        assert_eq!(status(&gateway, &token).await, 503);
    }
    assert_eq!(status(&gateway, "a.b.c").await, 401);
    assert_eq!(status(&gateway, "a.b.c").await, 429);
}
