//! Keys and tokens as identity providers publish them, through the code that fetches them. The sets, documents and tokens
//! are those of `tests/fixtures/wild`, whose keys nobody uses.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{
    Answer, Certificates, Gateway, KeyAnswer, KeyServer, SECRET, eventually, set_of, token_with,
};

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wild");
    std::fs::read_to_string(path.join(name)).unwrap()
}

fn set(name: &str) -> String {
    fixture(&format!("shapes/{name}-jwks.json"))
}

fn wild_token(name: &str) -> String {
    fixture(&format!("tokens/{name}.jwt")).trim().to_owned()
}

/// The claims or the header of a token.
fn part(token: &str, number: usize) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(number).unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part);
    serde_json::from_slice(&json.unwrap()).unwrap()
}

async fn is_ready(gateway: &Gateway) -> bool {
    gateway.readiness().await.status == 200
}

async fn detail(gateway: &Gateway) -> String {
    let body = gateway.readiness().await.json();
    let checks = body["checks"].as_array().unwrap();
    let auth = checks.iter().find(|check| check["name"] == "auth");
    auth.unwrap()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Requests that wait for their answer, but for the one that asks.
async fn in_flight(gateway: &Gateway) -> usize {
    let metrics = gateway.metrics().await;
    let mut lines = metrics.lines();
    let all = lines.find_map(|line| line.strip_prefix("isg_http_requests_in_flight "));
    all.unwrap().parse::<usize>().unwrap() - 1
}

async fn with_keys_of(server: &KeyServer, settings: &[(&'static str, &str)]) -> Gateway {
    let mut all = vec![("auth.jwks_url", server.url.as_str())];
    all.extend(settings);
    let gateway = Gateway::with_keys_from(&all).await;
    eventually("the keys are read", async || {
        is_ready(&gateway).await.then_some(())
    })
    .await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_tokens_of_providers_are_taken_as_they_are() {
    let answers = [
        (
            "k8s",
            KeyAnswer::For(
                "application/jwk-set+json",
                Box::new(KeyAnswer::Body(set("k8s"), "")),
            ),
        ),
        ("forgerock", KeyAnswer::Body(set("forgerock"), "")),
        ("rfc9864", KeyAnswer::Body(set("rfc9864"), "")),
        (
            "plain",
            KeyAnswer::For(
                "application/json",
                Box::new(KeyAnswer::Body(set("plain"), "")),
            ),
        ),
    ];
    for (name, answer) in answers {
        let server = KeyServer::start(answer).await;
        let tokens: Vec<String> = std::fs::read_dir(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wild/tokens"),
        )
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| file.starts_with(name) && file != "k8s-subject.jwt")
        .map(|file| wild_token(file.trim_end_matches(".jwt")))
        .collect();
        assert!(!tokens.is_empty(), "{name}");
        let issuer = part(&tokens[0], 1)["iss"].as_str().unwrap().to_owned();
        let gateway = with_keys_of(&server, &[("auth.issuer", &issuer)]).await;
        for token in tokens {
            let claims = part(&token, 1);
            let answer = gateway.with(token.clone()).get("/whoami").await;
            assert_eq!(
                answer.status,
                200,
                "{} {claims}: {answer:?}",
                part(&token, 0)
            );
            assert_eq!(answer.json()["subject"], claims["sub"], "{name}");
            let audits = gateway.with(token).get("/audit/events").await.status;
            let expected = if claims["scope"].is_null() { 403 } else { 200 };
            assert_eq!(audits, expected, "{name} {claims}");
        }
    }
    // A subject of the gateway's own is nobody else's.
    let server = KeyServer::start(KeyAnswer::Body(set("plain"), "")).await;
    let gateway = with_keys_of(&server, &[("auth.issuer", "https://wild.invalid")]).await;
    let refused = gateway.with(wild_token("k8s-subject")).get("/whoami").await;
    refused.assert_problem(401, "unauthenticated");
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_come_compressed_or_with_a_mark_and_what_is_too_long_is_refused_however_it_comes() {
    let keys = set_of("k", SECRET);
    let marked = format!("\u{feff}{keys}");
    let bomb = format!("{}{}", " ".repeat(64 * 1024 * 1024), keys);
    let with = |coding: &str, body: Vec<u8>| {
        KeyAnswer::With(format!("Content-Encoding: {coding}\r\n"), body)
    };
    let server = KeyServer::start(KeyAnswer::Close).await;
    let gateway = Gateway::with_keys_from(&[("auth.jwks_url", &server.url)]).await;
    for (answer, words) in [
        (with("gzip", gzip(&bomb)), "longer than"),
        (with("gzip", b"no gzip".to_vec()), "no JWK Set"),
        (with("gzip", gzip(&keys)[..20].to_vec()), "decompressed"),
        (with("br", b"\x1b\x00".to_vec()), "no JWK Set"),
    ] {
        server.answers(answer);
        gateway.reload_keys().await;
        assert!(
            detail(&gateway).await.contains(words),
            "{words}: {}",
            detail(&gateway).await
        );
        assert!(!is_ready(&gateway).await);
    }
    assert!(
        server
            .heads()
            .iter()
            .all(|head| head.contains("\r\naccept-encoding: gzip\r\n"))
    );
    for answer in [
        with("gzip", gzip(&keys)),
        with("X-GZIP", gzip(&marked)),
        with("identity", keys.clone().into_bytes()),
        // Headers that say what is not so, and a file that somebody compressed and nobody tells of.
        with("aws-chunked", keys.clone().into_bytes()),
        with("gzip", keys.clone().into_bytes()),
        KeyAnswer::With(String::new(), [gzip(&keys), vec![0; 8]].concat()),
        KeyAnswer::Body(marked, ""),
    ] {
        let server = KeyServer::start(answer).await;
        let gateway = with_keys_of(&server, &[]).await;
        let token = token_with("k", SECRET, &json!({}));
        assert_eq!(gateway.with(token).get("/whoami").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_set_without_kids_is_fetched_again_by_the_first_token_of_its_new_key() {
    let set = |secret: &[u8]| {
        let mut set: Value = serde_json::from_str(&set_of("", secret)).unwrap();
        set["keys"][0].as_object_mut().unwrap().remove("kid");
        set.to_string()
    };
    let token = |secret: &[u8]| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let claims = part(&token_with("x", secret, &json!({"scope": "audit:read"})), 1);
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let new = b"another secret, long enough as well to be one";
    let server = KeyServer::start(KeyAnswer::Body(set(SECRET), "max-age=3600")).await;
    let gateway = with_keys_of(&server, &[]).await;
    assert_eq!(gateway.with(token(SECRET)).get("/whoami").await.status, 200);
    assert_eq!(server.asked(), 1);
    server.answers(KeyAnswer::Body(set(new), "max-age=3600"));
    assert_eq!(gateway.with(token(new)).get("/whoami").await.status, 200);
    assert_eq!(server.asked(), 2);
    let old = gateway.with(token(SECRET)).get("/whoami").await;
    old.assert_problem(401, "unauthenticated");
    assert_eq!(server.asked(), 2, "at most once in 30 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_redirects_says_where_to_and_is_not_followed() {
    let server = KeyServer::start(KeyAnswer::Redirect("/keys/v2?secret=1#x".into())).await;
    let elsewhere = KeyServer::start(KeyAnswer::Body(set_of("k", SECRET), "")).await;
    let gateway = Gateway::with_keys_from(&[("auth.jwks_url", &server.url)]).await;
    gateway.reload_keys().await;
    let expected = format!("HTTP 302 Found and leads to `{}/keys/v2?…`", server.url);
    let told = detail(&gateway).await;
    assert!(
        told.contains(&expected) && !told.contains("secret"),
        "{told}"
    );
    server.answers(KeyAnswer::Redirect(format!("{}/keys", elsewhere.url)));
    gateway.reload_keys().await;
    let told = detail(&gateway).await;
    assert!(
        told.contains(&format!("leads to `{}/keys`", elsewhere.url)),
        "{told}"
    );
    assert_eq!(elsewhere.asked(), 0);
    // A discovery document, and the set that it names, are told apart.
    let settings = [
        ("auth.oidc_discovery", "true"),
        ("auth.issuer", server.url.as_str()),
    ];
    let gateway = Gateway::with_keys_from(&settings).await;
    let keys = format!("{}/keys", server.url);
    for (issuer, words) in [
        (
            "https://other.example/",
            "is of another issuer, `https://other.example/`".to_owned(),
        ),
        (
            server.url.as_str(),
            format!("{keys}: it answers with HTTP 302"),
        ),
    ] {
        server.discovers(format!(
            "\u{feff}{}",
            json!({"issuer": issuer, "jwks_uri": keys})
        ));
        gateway.reload_keys().await;
        let told = detail(&gateway).await;
        assert!(told.contains(&words), "{words}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_cluster_are_fetched_with_its_authority_and_the_token_of_the_moment() {
    let certificates = Certificates::of("localhost");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (ca_file, token_file) = (path("ca.crt"), path("token"));
    std::fs::write(&ca_file, &certificates.authority).unwrap();
    std::fs::write(&token_file, "first.of.all\n").unwrap();

    let set = KeyAnswer::For(
        "application/jwk-set+json",
        Box::new(KeyAnswer::Body(set_of("k", SECRET), "")),
    );
    let server = KeyServer::start_with_tls(set, &certificates.certificate, &certificates.key).await;
    let url = &server.url;
    let document = json!({"issuer": url, "jwks_uri": format!("{url}/openid/v1/jwks")});
    server.discovers(document.to_string());
    let settings = [
        ("auth.issuer", url.as_str()),
        ("auth.oidc_discovery", "true"),
        ("auth.fetch_ca_file", ca_file.as_str()),
        ("auth.fetch_token_file", token_file.as_str()),
    ];
    let gateway = Gateway::with_keys_from(&settings).await;
    eventually("the keys are read", async || {
        is_ready(&gateway).await.then_some(())
    })
    .await;
    let token = token_with("k", SECRET, &json!({"iss": url}));
    assert_eq!(gateway.with(token).get("/whoami").await.status, 200);
    let heads = server.heads();
    assert_eq!(heads.len(), 2, "{heads:?}");
    for head in heads {
        assert!(
            head.contains("\r\nauthorization: bearer first.of.all\r\n"),
            "{head}"
        );
    }
    // Both files are read again at each fetch.
    std::fs::write(&token_file, "second.of.all").unwrap();
    gateway.reload_keys().await;
    let last = server.heads().pop().unwrap();
    assert!(
        last.contains("\r\nauthorization: bearer second.of.all\r\n"),
        "{last}"
    );
    std::fs::write(&ca_file, "none").unwrap();
    let faults = gateway.reload().await.unwrap_err();
    assert!(faults[0].starts_with("auth.fetch_ca_file"), "{faults:?}");
    // Without the authority nobody is believed.
    let without = &settings[..2];
    let gateway = Gateway::with_keys_from(without).await;
    gateway.reload_keys().await;
    assert!(
        detail(&gateway)
            .await
            .contains("its certificate is not trusted"),
        "{}",
        detail(&gateway).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_met_a_fetch_under_way_takes_no_turn_of_those_that_come_after() {
    let other = b"another secret, long enough as well to be one";
    let set = KeyAnswer::Body(set_of("old", SECRET), "max-age=3600");
    let held = Arc::new(Semaphore::new(0));
    let server = KeyServer::start(KeyAnswer::Held(Arc::clone(&held), Box::new(set))).await;
    let gateway = Gateway::with_keys_from(&[("auth.jwks_url", &server.url)]).await;
    eventually("a fetch is under way", async || {
        (server.asked() == 1).then_some(())
    })
    .await;
    let old = gateway.with(token_with("old", SECRET, &json!({})));
    let release = async {
        eventually("the token waits", async || {
            (in_flight(&gateway).await == 1).then_some(())
        })
        .await;
        held.add_permits(1);
    };
    let (waited, ()) = tokio::join!(old.get("/whoami"), release);
    assert_eq!(waited.status, 200);
    server.answers(KeyAnswer::Body(set_of("new", other), "max-age=3600"));
    let new = token_with("new", other, &json!({}));
    assert_eq!(gateway.with(new).get("/whoami").await.status, 200);
    assert_eq!(
        server.asked(),
        2,
        "the first fetch was enough for the first token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_document_names_is_told_within_bounds() {
    let server = KeyServer::start(KeyAnswer::Status(404)).await;
    let keys = format!("{}/{}", server.url, "x".repeat(300_000));
    server.discovers(json!({"issuer": server.url, "jwks_uri": keys}).to_string());
    let settings = [
        ("auth.oidc_discovery", "true"),
        ("auth.issuer", server.url.as_str()),
    ];
    let gateway = Gateway::with_keys_from(&settings).await;
    gateway.reload_keys().await;
    let told = detail(&gateway).await;
    assert!(
        told.len() < 1000 && told.contains("xxx"),
        "{} bytes",
        told.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_meets_a_rotation_is_let_in_or_told_to_come_again_and_never_refused() {
    let other = b"another secret, long enough as well to be one";
    let server = KeyServer::start(KeyAnswer::Body(set_of("old", SECRET), "max-age=3600")).await;
    let gateway = with_keys_of(&server, &[]).await;
    let held = Arc::new(Semaphore::new(0));
    let set = KeyAnswer::Body(set_of("new", other), "max-age=3600");
    server.answers(KeyAnswer::Held(Arc::clone(&held), Box::new(set)));
    let new = token_with("new", other, &json!({}));
    // More than may wait.
    let callers = (0..600).map(|_| {
        let caller = gateway.with(new.clone());
        async move { caller.get("/whoami").await.status }
    });
    let release = async {
        eventually("all that may wait do", async || {
            (in_flight(&gateway).await == 512).then_some(())
        })
        .await;
        held.add_permits(1);
    };
    let ((), told) = tokio::join!(release, join_all(callers));
    let of = |status: u16| told.iter().filter(|told| **told == status).count();
    assert!(of(200) >= 512, "{told:?}");
    assert_eq!(of(200) + of(503), 600, "{told:?}");
    assert_eq!(server.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rotations_at_once_refuse_no_good_token() {
    const ISSUERS: usize = 40;
    let other = b"another secret, long enough as well to be one";
    let mut servers = Vec::new();
    for _ in 0..ISSUERS {
        servers
            .push(KeyServer::start(KeyAnswer::Body(set_of("old", SECRET), "max-age=3600")).await);
    }
    let table = |(number, server): (usize, &KeyServer)| {
        let url = &server.url;
        format!(
            r#"{{name = "i{number}", issuer = "https://i{number}.example", audience = "a", jwks_url = "{url}"}}"#
        )
    };
    let tables: Vec<String> = servers.iter().enumerate().map(table).collect();
    let tables = format!("[{}]", tables.join(", "));
    let settings = [
        ("auth.jwks_url", servers[0].url.as_str()),
        ("auth.issuers", &tables),
    ];
    let gateway = Gateway::with_keys_from(&settings).await;
    let sign = |number: usize, kid: &str, secret: &[u8]| {
        let iss = format!("https://i{number}.example");
        token_with(kid, secret, &json!({"iss": iss, "aud": "a"}))
    };
    for (number, server) in servers.iter().enumerate() {
        let old = gateway.with(sign(number, "old", SECRET));
        eventually("its keys are read", async || {
            (old.get("/whoami").await.status == 200).then_some(())
        })
        .await;
        server.answers(KeyAnswer::Body(set_of("new", other), "max-age=3600"));
    }
    for number in 0..ISSUERS {
        let new = sign(number, "new", other);
        let callers = (0..24).map(|_| {
            let caller = gateway.with(new.clone());
            async move { caller.get("/whoami").await.status }
        });
        let told = join_all(callers).await;
        assert_eq!(told, [200; 24], "issuer {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_hangs_is_told_as_503_before_clients_give_up() {
    let server = KeyServer::start(KeyAnswer::Hang).await;
    let gateway = Gateway::with_keys_from(&[("auth.jwks_url", &server.url)]).await;
    let token = token_with("k", SECRET, &json!({}));
    let request = gateway.with(token).request("GET", "/whoami");
    let patience = std::time::Duration::from_secs(5);
    let answer = Answer::of(request.timeout(patience)).await;
    answer.assert_problem(503, "keys-unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    // One that hung up once it was known is asked once, whatever names a key that nobody knows.
    let server = KeyServer::start(KeyAnswer::Body(set_of("k", SECRET), "max-age=3600")).await;
    let gateway = with_keys_of(&server, &[]).await;
    server.answers(KeyAnswer::Close);
    for number in 0..20 {
        let unknown = token_with(&format!("x{number}"), SECRET, &json!({}));
        assert_eq!(gateway.with(unknown).get("/whoami").await.status, 401);
    }
    assert_eq!(server.asked(), 2);
}
