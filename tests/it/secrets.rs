//! Keys, signatures and tokens appear nowhere: not in a log however verbose, an answer, or the database.

use std::fmt::Write as _;

use rustix::process::Signal;

use crate::support::{Answer, Call, PRIVATE_KEY, Program, Reply, Scripted, keys_file, token};

#[tokio::test(flavor = "multi_thread")]
async fn no_key_signature_or_token_is_logged_answered_or_stored() {
    // As rude as can be: it repeats all that it was sent, and knows the private key as well.
    let rude = |call: &Call| {
        let sent: Vec<String> = call
            .fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let message = format!("{} {PRIVATE_KEY}", sent.join("&"));
        Reply::Body(serde_json::json!({"RetCode": 171, "Message": message}).to_string())
    };
    let upstream = Scripted::start(move |call| match call.fields["CompShareImageId"].as_str() {
        "refused" => rude(call),
        "odd" => Reply::Body("<html>".into()),
        "down" => Reply::Close,
        _ => Reply::Done,
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    std::fs::write(
        directory.path().join("private.key"),
        format!("{PRIVATE_KEY}\n"),
    )
    .unwrap();
    let environment = [
        ("RUST_LOG", "trace"),
        ("ISG__SERVER__BIND", "127.0.0.1:0"),
        ("ISG__SERVER__ADMIN_BIND", "127.0.0.1:0"),
        ("ISG__AUTH__ISSUER", "https://issuer.example"),
        ("ISG__AUTH__AUDIENCE", "image-share-gateway"),
        ("ISG__AUTH__JWKS_FILE", "keys.json"),
        ("ISG__UPSTREAM__BASE_URL", upstream.url.as_str()),
        ("ISG__UPSTREAM__PUBLIC_KEY", "the-public-key-of-the-gateway"),
        ("ISG__UPSTREAM__PRIVATE_KEY_FILE", "private.key"),
    ];
    let mut program = Program::spawn(directory.path(), &["serve"], &environment);
    let base_url = program.base_url().await;
    let (sharer, auditor, powerless) = (
        token("team-a", "shares:read shares:write"),
        token("team-a", "audit:read"),
        token("team-a", "nothing"),
    );
    let forged = format!("{sharer}x");
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let mut answers = String::new();
    for bearer in [&sharer, &auditor, &powerless, &forged] {
        for image in ["img", "refused", "odd", "down"] {
            for method in ["PUT", "DELETE", "GET"] {
                let url = format!("{base_url}/images/{image}/shares/7");
                let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
                let answer = Answer::of(client.request(method, url).bearer_auth(bearer)).await;
                write!(answers, "{:?}{}", answer.headers, answer.body).unwrap();
            }
        }
        for path in [
            "/audit/events",
            "/images/img/shares",
            "/openapi.json",
            "/readyz",
            "/metrics",
        ] {
            let answer =
                Answer::of(client.get(format!("{base_url}{path}")).bearer_auth(bearer)).await;
            write!(answers, "{:?}{}", answer.headers, answer.body).unwrap();
        }
    }
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0));

    let read = |name: &str| {
        String::from_utf8_lossy(&std::fs::read(directory.path().join(name)).unwrap()).into_owned()
    };
    let places = [
        ("the log", program.log()),
        ("the answers", answers),
        ("the database", read("data/audit.db")),
    ];
    let signatures: Vec<String> = upstream
        .calls()
        .iter()
        .map(|call| call.fields["Signature"].clone())
        .collect();
    assert!(
        signatures.len() >= 10,
        "the upstream was called: {}",
        signatures.len()
    );
    let of_tokens = [&sharer, &auditor, &powerless, &forged]
        .map(|bearer| bearer.rsplit('.').next().unwrap().to_owned());
    let mut secrets = vec![
        PRIVATE_KEY.to_owned(),
        "the-public-key-of-the-gateway".to_owned(),
        "&Signature=0".to_owned(),
    ];
    secrets.extend(signatures);
    secrets.extend(of_tokens);
    for (place, text) in places {
        assert!(text.len() > 1000, "{place} was looked at");
        for secret in &secrets {
            assert!(
                !text.contains(secret.as_str()),
                "{secret} stands in {place}"
            );
        }
    }
}
