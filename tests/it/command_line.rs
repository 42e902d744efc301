//! The program as an operator meets it.

use std::path::Path;
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Program, binary, eventually, keys_file};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    binary()
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(directory)
        .output()
        .unwrap()
}

/// Free ports for a program that is not to take the default ones.
const ANY_PORT: [(&str, &str); 2] = [
    ("ISG__SERVER__BIND", "127.0.0.1:0"),
    ("ISG__SERVER__ADMIN_BIND", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn serve_sandbox_prints_a_line_that_shares_an_image_and_ctrl_c_ends_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::spawn(directory.path(), &["serve", "--sandbox"], &ANY_PORT);
    let base_url = program
        .line(|line| line.starts_with("Base URL"))
        .split_whitespace()
        .last()
        .unwrap()
        .to_owned();
    let swagger = program.line(|line| line.starts_with("Swagger UI"));
    assert!(
        swagger.ends_with(&format!("{base_url}/swagger-ui/")),
        "{swagger}"
    );
    let is_token = |line: &str| line.starts_with("ey") && line.split('.').count() == 3;
    let (sharer, auditor) = (program.line(is_token), program.line(is_token));
    let curl = program.line(|line| line.starts_with("curl "));
    assert!(curl.contains(&sharer) && curl.contains(&base_url), "{curl}");

    let pasted = std::process::Command::new("sh")
        .args(["-c", &curl])
        .output()
        .unwrap();
    let answer = text(&pasted.stdout);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let share: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
    assert_eq!(share["shared"], true);

    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let json = async |path: &str, token: &str| -> Value {
        let request = client.get(format!("{base_url}{path}")).bearer_auth(token);
        serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    };
    let event = &json("/audit/events", &auditor).await["events"][0];
    assert_eq!(
        (event["subject"].as_str(), event["outcome"].as_str()),
        (Some("sharer"), Some("succeeded"))
    );
    assert!(event["upstream_request_id"].is_string());
    let image = share["image_id"].as_str().unwrap();
    let listed = json(&format!("/images/{image}/shares"), &auditor).await;
    assert_eq!(
        listed["accounts"][0]["account_id"], share["account_id"],
        "the sandbox holds the share"
    );
    let share_url = format!("{base_url}/images/{image}/shares/{}", share["account_id"]);
    let taken = client
        .delete(&share_url)
        .bearer_auth(&sharer)
        .send()
        .await
        .unwrap();
    assert_eq!(taken.status(), 204);
    assert_eq!(
        json(&format!("/images/{image}/shares"), &auditor).await["accounts"],
        serde_json::json!([])
    );

    program.signal(Signal::INT);
    assert_eq!(program.wait().await, Some(0));
    assert!(directory.path().join("data/sandbox.db").exists());
    let verified = run(
        directory.path(),
        &[
            "audit",
            "verify",
            "--database-url",
            "sqlite://data/sandbox.db",
        ],
        &[],
    );
    assert_eq!(verified.status.code(), Some(0));
    let head = text(&verified.stdout);
    assert!(
        head.starts_with("main:4:") && program.log().contains(head.trim()),
        "the log notes the head: {head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_variables_hold_over_the_sandboxs_own_settings() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let environment = [
        ANY_PORT[0],
        ANY_PORT[1],
        ("ISG__AUTH__JWKS_FILE", "keys.json"),
        ("ISG__AUTH__ISSUER", "https://issuer.example"),
        ("ISG__AUDIT__DATABASE_URL", "sqlite://mine.db"),
    ];
    let mut program = Program::spawn(directory.path(), &["serve", "--sandbox"], &environment);
    let curl = program.line(|line| line.starts_with("curl "));
    assert!(
        !curl.contains("Bearer ey"),
        "its keys may be good elsewhere: {curl}"
    );
    let pasted = std::process::Command::new("sh")
        .args(["-c", &curl])
        .env("TOKEN", crate::support::token("team-a", "shares:write"))
        .output()
        .unwrap();
    assert!(
        text(&pasted.stdout).starts_with("HTTP/1.1 200 OK"),
        "{}",
        text(&pasted.stdout)
    );
    assert!(directory.path().join("mine.db").exists());
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_banner_prints_no_token_that_is_not_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let environment = [
        ANY_PORT[0],
        ANY_PORT[1],
        ("ISG__AUTH__JWKS_URL", "http://127.0.0.1:9/jwks"),
    ];
    let program = Program::spawn(directory.path(), &["serve", "--sandbox"], &environment);
    let last = program.line(|line| line.contains("of your own") || line.starts_with("ey"));
    assert!(last.contains("bring a token of your own"), "{last}");
}

#[test]
fn tokens_that_are_printed_never_act_on_a_real_upstream() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("secret"), "key").unwrap();
    for (key, value) in [
        ("ISG__UPSTREAM__BASE_URL", "https://api.compshare.cn"),
        ("ISG__UPSTREAM__PUBLIC_KEY", "key"),
        ("ISG__UPSTREAM__PRIVATE_KEY", "key"),
        ("ISG__UPSTREAM__PUBLIC_KEY_FILE", "secret"),
        ("ISG__UPSTREAM__PRIVATE_KEY_FILE", "secret"),
    ] {
        let environment = [ANY_PORT[0], ANY_PORT[1], (key, value)];
        let ended = run(directory.path(), &["serve", "--sandbox"], &environment);
        assert_eq!(ended.status.code(), Some(2), "{key}");
        assert_eq!(text(&ended.stdout), "", "{key}: no token");
        let named = key
            .trim_start_matches("ISG__")
            .to_lowercase()
            .replace("__", ".");
        assert!(
            text(&ended.stderr).contains(&named),
            "{key}: {}",
            text(&ended.stderr)
        );
    }
    let file = "[upstream]\nbase_url = \"https://api.compshare.cn\"\npublic_key = \"a\"\nprivate_key = \"b\"\n";
    std::fs::write(directory.path().join("gateway.toml"), file).unwrap();
    let arguments = ["serve", "--sandbox", "--config", "gateway.toml"];
    let ended = run(directory.path(), &arguments, &ANY_PORT);
    assert_eq!(ended.status.code(), Some(2));
    assert_eq!(text(&ended.stderr).matches("--sandbox").count(), 3);
    assert!(!directory.path().join("data").exists(), "nothing was begun");
}

#[test]
fn a_faulty_configuration_names_every_fault_and_exits_2() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("keys.json"),
        r#"{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}"#,
    )
    .unwrap();
    std::fs::write(directory.path().join("cert.pem"), "no certificate").unwrap();
    std::fs::write(
        directory.path().join("gateway.toml"),
        "[server]\nbindd = \"x\"\ntls_cert_file = \"cert.pem\"\ntls_key_file = \"none.pem\"\n[auth]\nissuer = \"i\"\n\
         jwks_file = \"keys.json\"\n[authorization]\npolicy_file = \"none.cedar\"\n",
    )
    .unwrap();
    let environment = [
        ("ISG__UPSTREAM__PRIVATE_KEY_FILE", "none.key"),
        ("ISG__AUDIT__NAME", "x"),
    ];
    let ended = run(
        directory.path(),
        &["serve", "--config", "gateway.toml"],
        &environment,
    );
    assert_eq!(ended.status.code(), Some(2));
    let told = text(&ended.stderr);
    for key in [
        "server.bindd",
        "server.tls_cert_file",
        "server.tls_key_file",
        "auth.audience",
        "auth.jwks_file",
        "authorization.policy_file",
        "upstream.public_key",
        "upstream.private_key_file",
        "ISG__AUDIT__NAME",
    ] {
        assert!(told.contains(key), "{key} in:\n{told}");
    }
    assert_eq!(told.lines().count(), 9, "{told}");
    assert!(ended.stdout.is_empty());
    assert!(!directory.path().join("data").exists(), "nothing was made");
}

#[test]
fn without_any_configuration_what_is_required_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(directory.path(), &["serve"], &[]);
    assert_eq!(ended.status.code(), Some(2));
    let told = text(&ended.stderr);
    for key in [
        "auth.issuer",
        "auth.audience",
        "auth.jwks_file",
        "upstream.public_key",
        "upstream.private_key",
    ] {
        assert!(told.contains(key), "{told}");
    }
    assert_eq!(
        run(directory.path(), &["serve", "--colour"], &[])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        run(directory.path(), &["--help"], &[]).status.code(),
        Some(0)
    );
}

#[test]
fn what_keeps_the_gateway_from_running_is_one_line_and_exit_1() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    std::fs::write(directory.path().join("no-directory"), "").unwrap();
    std::fs::write(
        directory.path().join("no-trail.db"),
        "this is no database at all, only a line of text",
    )
    .unwrap();
    let cases = [
        (
            vec![("ISG__SERVER__BIND", taken.as_str()), ANY_PORT[1]],
            "server.bind",
        ),
        (
            vec![ANY_PORT[0], ("ISG__SERVER__ADMIN_BIND", taken.as_str())],
            "server.admin_bind",
        ),
        (
            vec![
                ANY_PORT[0],
                ANY_PORT[1],
                ("ISG__AUDIT__DATABASE_URL", "sqlite://no-directory/audit.db"),
            ],
            "no-directory",
        ),
        (
            vec![
                ANY_PORT[0],
                ANY_PORT[1],
                ("ISG__AUDIT__DATABASE_URL", "sqlite://no-trail.db"),
            ],
            "no-trail.db",
        ),
    ];
    for (mut environment, named) in cases {
        // Of the log, only the program's own last word.
        environment.push(("RUST_LOG", "off"));
        let ended = run(directory.path(), &["serve", "--sandbox"], &environment);
        assert_eq!(ended.status.code(), Some(1), "{named}");
        let told = text(&ended.stderr);
        assert_eq!(told.lines().count(), 1, "{named}: {told}");
        assert!(told.contains(named), "{named}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_on_the_same_trail_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = Program::spawn(directory.path(), &["serve", "--sandbox"], &ANY_PORT);
    first.line(|line| line.starts_with("curl "));
    let second = run(
        directory.path(),
        &["serve", "--sandbox"],
        &[ANY_PORT[0], ANY_PORT[1], ("RUST_LOG", "off")],
    );
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("in use by another gateway"),
        "{}",
        text(&second.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads_the_key_set_and_a_broken_file_keeps_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let keys = keys_file(directory.path());
    let environment = [
        ANY_PORT[0],
        ANY_PORT[1],
        ("ISG__AUTH__JWKS_FILE", "keys.json"),
        ("ISG__AUTH__ISSUER", "https://issuer.example"),
    ];
    let program = Program::spawn(directory.path(), &["serve", "--sandbox"], &environment);
    let base_url = program.base_url().await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    // One and the same token, so that what the gateway remembers of it is put to the test as well.
    let token = crate::support::token("team-a", "shares:write");
    let status = async || {
        let put = client
            .put(format!("{base_url}/images/img/shares/7"))
            .bearer_auth(&token);
        put.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status().await, 200);
    std::fs::write(&keys, "{").unwrap();
    program.signal(Signal::HUP);
    program.wait_for_log("not reloaded: auth.jwks_file").await;
    assert_eq!(status().await, 200, "the old set is kept");
    let other = serde_json::json!({"keys": [{"kty": "oct", "kid": "other", "k": "YW5vdGhlci1zZWNyZXQtdGhhdC1pcy1sb25nLWVub3VnaC1mb3ItaHMyNTY"}]});
    std::fs::write(&keys, other.to_string()).unwrap();
    program.signal(Signal::HUP);
    program.wait_for_log("reloaded: keys").await;
    assert_eq!(status().await, 401, "the key of the token is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_tells_ready_from_not() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::spawn(directory.path(), &["serve", "--sandbox"], &ANY_PORT);
    let base_url = program.base_url().await;
    assert_eq!(
        run(directory.path(), &["healthcheck", "--url", &base_url], &[])
            .status
            .code(),
        Some(0)
    );
    let bind = base_url.strip_prefix("http://").unwrap();
    assert_eq!(
        run(
            directory.path(),
            &["healthcheck"],
            &[("ISG__SERVER__BIND", bind)]
        )
        .status
        .code(),
        Some(0)
    );
    drop(program);
    let gone = run(directory.path(), &["healthcheck", "--url", &base_url], &[]);
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(
        text(&gone.stderr).lines().count(),
        1,
        "{}",
        text(&gone.stderr)
    );
    assert_eq!(
        run(directory.path(), &["healthcheck", "--url", "nowhere"], &[])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        run(directory.path(), &["healthcheck", "--url", "ftp://x/"], &[])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn token_signs_with_the_key_that_is_named_and_prints_it_alone() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let complete = [
        "token",
        "--sub",
        "ci",
        "--scope",
        "shares:read",
        "--jwks",
        "keys.json",
        "--iss",
        "i",
        "--aud",
        "a",
    ];
    let signed = run(directory.path(), &complete, &[]);
    assert_eq!(signed.status.code(), Some(0));
    let token = text(&signed.stdout);
    assert_eq!((token.lines().count(), token.split('.').count()), (1, 3));
    let configured = [
        ("ISG__AUTH__ISSUER", "i"),
        ("ISG__AUTH__AUDIENCE", "a"),
        ("ISG__AUTH__JWKS_FILE", "keys.json"),
    ];
    let short = [
        "token",
        "--sub",
        "ci",
        "--scope",
        "shares:read",
        "--ttl",
        "5m",
        "--kid",
        "test",
    ];
    assert_eq!(
        run(directory.path(), &short, &configured).status.code(),
        Some(0)
    );
    let faulty = [
        (
            vec![
                "token",
                "--sub",
                "ci",
                "--scope",
                "x",
                "--jwks",
                "keys.json",
            ],
            "--iss",
        ),
        (
            vec![
                "token", "--sub", "ci", "--scope", "x", "--iss", "i", "--aud", "a",
            ],
            "--jwks",
        ),
        (
            vec![
                "token", "--sub", "ci", "--scope", "x", "--iss", "i", "--aud", "a", "--jwks",
                "none",
            ],
            "none",
        ),
        ([&complete[..], &["--kid", "other"]].concat(), "kid"),
        ([&complete[..], &["--ttl", "soon"]].concat(), "ttl"),
    ];
    for (arguments, named) in faulty {
        let ended = run(directory.path(), &arguments, &[]);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&ended.stderr).contains(named),
            "{arguments:?}: {}",
            text(&ended.stderr)
        );
        assert!(ended.stdout.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_verify_tells_intact_broken_and_could_not_look_apart() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::spawn(directory.path(), &["serve", "--sandbox"], &ANY_PORT);
    let curl = program.line(|line| line.starts_with("curl "));
    for _ in 0..3 {
        std::process::Command::new("sh")
            .args(["-c", &curl])
            .output()
            .unwrap();
    }
    let url = "sqlite://data/sandbox.db";
    let verify = |more: &[&str]| {
        run(
            directory.path(),
            &[&["audit", "verify", "--database-url", url], more].concat(),
            &[],
        )
    };
    let live = verify(&[]);
    assert_eq!(live.status.code(), Some(0), "while the gateway runs");
    let head = text(&live.stdout).trim().to_owned();
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0));

    assert_eq!(verify(&["--expect", &head]).status.code(), Some(0));
    let wrong = format!("main:6:{}", "0".repeat(64));
    for expected in [
        wrong.as_str(),
        &head.replace("main:6", "main:7"),
        &head.replace("main", "other"),
    ] {
        assert_eq!(
            verify(&["--expect", &head, expected]).status.code(),
            Some(1),
            "{expected}"
        );
    }
    assert_eq!(verify(&["--expect", "6"]).status.code(), Some(2));
    let from_environment = run(
        directory.path(),
        &["audit", "verify"],
        &[("ISG__AUDIT__DATABASE_URL", url)],
    );
    assert_eq!(text(&from_environment.stdout).trim(), head);

    let sql = "DROP TRIGGER audit_entries_no_update; UPDATE audit_entries SET subject = 'nobody' WHERE sequence = 3";
    let database = directory.path().join("data/sandbox.db");
    let edited = {
        use sqlx::Connection as _;
        let mut connection =
            sqlx::SqliteConnection::connect(&format!("sqlite://{}", database.display()))
                .await
                .unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await
    };
    edited.unwrap();
    let broken = verify(&[]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        text(&broken.stdout).contains("broken at sequence 3"),
        "{}",
        text(&broken.stdout)
    );

    let none = run(
        directory.path(),
        &["audit", "verify", "--database-url", "sqlite://none.db"],
        &[],
    );
    assert_eq!(none.status.code(), Some(2));
    assert!(!directory.path().join("none.db").exists());
    std::fs::write(
        directory.path().join("text.db"),
        "this is no database at all, only a line of text",
    )
    .unwrap();
    let text_file = run(
        directory.path(),
        &["audit", "verify", "--database-url", "sqlite://text.db"],
        &[],
    );
    assert_eq!(text_file.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_seen_before_the_listener_closes() {
    let directory = tempfile::tempdir().unwrap();
    let environment = [ANY_PORT[0], ANY_PORT[1], ("ISG__SERVER__DRAIN_DELAY", "1h")];
    let mut program = Program::spawn(directory.path(), &["serve", "--sandbox"], &environment);
    let base_url = program.base_url().await;
    program.line(|line| line.starts_with("curl "));
    program.signal(Signal::TERM);
    let url = format!("{base_url}/readyz");
    eventually("not ready while draining", async || {
        (reqwest::get(&url).await.unwrap().status() == 503).then_some(())
    })
    .await;
    assert_eq!(
        reqwest::get(format!("{base_url}/livez"))
            .await
            .unwrap()
            .status(),
        200,
        "serving goes on"
    );
    program.signal(Signal::TERM);
    assert_eq!(
        program.wait().await,
        Some(1),
        "a second signal ends it at once"
    );
}
