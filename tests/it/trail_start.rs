//! What a start thinks of a trail: leftovers, a clock that is behind, a tail that was cut off.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use crate::support::{Answer, Gateway, Program, Reply, Scripted, environment, keys_file, token};

async fn sql(database: &Path, statement: &str) {
    let url = format!("sqlite://{}", database.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// A copy of the first row of a kind, as another event.
async fn add_row(database: &Path, kind: &str, id: &str) {
    let columns = "version, chain_id, recorded_at, subject, issuer, token_id, client_ip, user_agent, request_id, trace_id, \
         operation, image_id, account_id, region, reason, expires_at, policy_ids, outcome, http_status, hash";
    let statement = format!(
        "INSERT INTO audit_entries (sequence, kind, event_id, {columns}) \
         SELECT (SELECT MAX(sequence) FROM audit_entries) + 1, '{kind}', {id}, {columns} FROM audit_entries \
         WHERE kind = '{kind}' ORDER BY sequence LIMIT 1"
    );
    sql(database, &statement).await;
}

/// What `serve` says and how it ends where it does not start.
async fn refused(directory: &Path, upstream: &str, arguments: &[&str]) -> (i32, String) {
    let mut program = serve(directory, upstream, arguments);
    let code = program.wait().await.unwrap();
    (code, program.log())
}

fn serve(directory: &Path, upstream: &str, arguments: &[&str]) -> Program {
    let mut environment = environment(upstream);
    environment.retain(|(name, _)| *name != "ISG__SERVER__ADMIN_BIND");
    environment.push(("ISG__SERVER__ADMIN_BIND", "127.0.0.1:0"));
    environment.push(("ISG__AUDIT__DATABASE_URL", "sqlite://audit.db"));
    let _ = std::fs::remove_file(directory.join("log"));
    let mut all = vec!["serve"];
    all.extend(arguments);
    Program::spawn(directory, &all, &environment)
}

async fn put(base_url: &str, account: u64) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let request = client
        .put(format!("{base_url}/images/img/shares/{account}"))
        .bearer_auth(token("team-a", "shares:write"));
    assert_eq!(Answer::of(request).await.status, 200);
}

async fn stop(mut program: Program) {
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0), "{}", program.log());
}

async fn get(url: &str) -> String {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let request = client.get(url).bearer_auth(token("team-a", "audit:read"));
    request.send().await.unwrap().text().await.unwrap()
}

/// The address that the log says probes are served at.
async fn admin_url(program: &Program) -> String {
    let found = || {
        let log = program.log();
        let line = log
            .lines()
            .find(|line| line.contains("serving metrics"))?
            .to_owned();
        let line: Value = serde_json::from_str(&line).ok()?;
        Some(format!(
            "http://{}:{}",
            line["server.address"].as_str()?,
            line["server.port"]
        ))
    };
    crate::support::eventually("probes are served", async || found()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_behind_the_trail_is_told_and_stamps_no_row_with_another_time() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let upstream = Scripted::start(|_| Reply::Done).await;
    let program = serve(directory.path(), &upstream.url, &[]);
    put(&program.base_url().await, 1).await;
    stop(program).await;
    // One reading of 2036: an event whose id says so, and its outcome.
    let database = directory.path().join("audit.db");
    let future = "'01e6f9a6-9c00-7000-8000-000000000001'";
    add_row(&database, "intent", future).await;
    add_row(&database, "outcome", future).await;

    let (code, said) = refused(directory.path(), &upstream.url, &[]).await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("--accept-clock") && said.contains("2036"),
        "{said}"
    );

    let program = serve(directory.path(), &upstream.url, &["--accept-clock"]);
    let base_url = program.base_url().await;
    put(&base_url, 2).await;
    let page: Value =
        serde_json::from_str(&get(&format!("{base_url}/audit/events?limit=1")).await).unwrap();
    let event = &page["events"][0];
    assert_eq!(event["account_id"], 2, "ids only grow: {event}");
    assert!(
        event["occurred_at"].as_str().unwrap().starts_with("2036-"),
        "{event}"
    );
    assert!(
        !event["completed_at"].as_str().unwrap().starts_with("2036-"),
        "the clock's own time: {event}"
    );
    let admin = admin_url(&program).await;
    let ready: Value = serde_json::from_str(&get(&format!("{admin}/readyz")).await).unwrap();
    let audit = ready["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["name"] == "audit")
        .unwrap()
        .clone();
    assert_eq!(
        (ready["ready"].as_bool(), audit["ok"].as_bool()),
        (Some(true), Some(true))
    );
    assert!(
        audit["detail"].as_str().unwrap().contains("clock"),
        "{audit}"
    );
    let metrics = get(&format!("{admin}/metrics")).await;
    let behind = metrics
        .lines()
        .find_map(|line| line.strip_prefix("isg_audit_clock_behind_seconds "))
        .unwrap();
    assert!(behind.parse::<f64>().unwrap() > 1e6, "{behind}");
    assert!(
        program
            .log()
            .contains("the clock is behind the last event's id"),
        "{}",
        program.log()
    );
    stop(program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_ends_before_the_noted_head_is_refused_unless_that_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let upstream = Scripted::start(|_| Reply::Done).await;
    let (database, backup) = (
        directory.path().join("audit.db"),
        directory.path().join("backup.db"),
    );
    let head = || std::fs::read_to_string(directory.path().join("audit.db.head")).unwrap();
    for (account, noted) in [(1, "main:2:"), (2, "main:4:")] {
        let program = serve(directory.path(), &upstream.url, &[]);
        put(&program.base_url().await, account).await;
        stop(program).await;
        assert!(head().starts_with(noted), "{}", head());
        if account == 1 {
            std::fs::copy(&database, &backup).unwrap();
        }
    }
    let last = head();
    // The tail is cut off; the whole trail is; another row stands in the place of the last.
    let whole = std::fs::read(&database).unwrap();
    for damage in ["older", "gone", "replaced"] {
        match damage {
            "older" => drop(std::fs::copy(&backup, &database).unwrap()),
            "gone" => std::fs::remove_file(&database).unwrap(),
            _ => {
                std::fs::write(&database, &whole).unwrap();
                let other = format!("main:4:{}\n", "0".repeat(64));
                std::fs::write(directory.path().join("audit.db.head"), other).unwrap();
            }
        }
        let (code, said) = refused(directory.path(), &upstream.url, &[]).await;
        assert_eq!(code, 1, "{damage}: {said}");
        assert!(
            said.contains("--accept-cut-trail") && said.contains("main:4:"),
            "{damage}: {said}"
        );
    }
    std::fs::write(directory.path().join("audit.db.head"), "garbled").unwrap();
    let (code, said) = refused(directory.path(), &upstream.url, &[]).await;
    assert_eq!(code, 1, "{said}");
    std::fs::write(directory.path().join("audit.db.head"), last).unwrap();
    std::fs::copy(&backup, &database).unwrap();
    let program = serve(directory.path(), &upstream.url, &["--accept-cut-trail"]);
    program.base_url().await;
    assert!(
        head().starts_with("main:2:"),
        "accepted once and for all: {}",
        head()
    );
    stop(program).await;
    // Killed before it could note its last head: the next start does.
    let mut program = serve(directory.path(), &upstream.url, &[]);
    put(&program.base_url().await, 3).await;
    program.signal(Signal::KILL);
    program.wait().await;
    assert!(head().starts_with("main:2:"), "{}", head());
    let program = serve(directory.path(), &upstream.url, &[]);
    program.base_url().await;
    assert!(head().starts_with("main:4:"), "{}", head());
    stop(program).await;
    // A trail that was deleted, and that is meant.
    std::fs::remove_file(&database).unwrap();
    let program = serve(directory.path(), &upstream.url, &["--accept-cut-trail"]);
    program.base_url().await;
    assert!(head().starts_with("main:0:"), "{}", head());
    stop(program).await;
}

/// Ten thousand leftovers are closed in some dozens of commits, and a stale row of what is pending fails nobody.
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_closed_in_groups_and_what_is_stale_fails_nobody() {
    const LEFTOVERS: u32 = 5000;
    let upstream = Scripted::start(|_| Reply::Done).await;
    let mut gateway = Gateway::with_upstream(&upstream).await;
    assert_eq!(
        gateway.sharer().put("/images/img/shares/1").await.status,
        200
    );
    assert!(gateway.stop().await);
    let database = gateway.database();
    let copies = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LEFTOVERS}) \
         INSERT INTO audit_entries (version, chain_id, sequence, kind, event_id, recorded_at, subject, request_id, \
         operation, image_id, account_id, region, policy_ids, hash) \
         SELECT 1, 'main', 2 + i, 'intent', printf('01990000-0000-7000-8000-%012d', i), recorded_at, subject, \
         request_id, operation, 'img-' || (i % 3), i, region, policy_ids, hash FROM audit_entries, n WHERE kind = 'intent'"
    );
    sql(&database, &copies).await;
    // The first event has its outcome.
    sql(&database, "INSERT INTO audit_pending SELECT sequence FROM audit_entries WHERE kind = 'intent' ORDER BY sequence LIMIT 1").await;
    let gateway = Gateway::in_front_of_trail(gateway.directory, &upstream.url).await;
    let left = async || {
        let answer = gateway
            .auditor()
            .get("/audit/events?outcome=pending&limit=1")
            .await;
        answer.json()["events"].as_array().unwrap().len()
    };
    crate::support::eventually("all are closed", async || (left().await == 0).then_some(())).await;
    let metrics = gateway.metrics().await;
    let number = |name: &str| -> u32 {
        let found = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        found.trim().trim_end_matches(".0").parse().unwrap()
    };
    assert_eq!(number("isg_audit_commit_entries_sum "), LEFTOVERS);
    assert!(
        number("isg_audit_commit_entries_count ") <= LEFTOVERS / 50,
        "{metrics}"
    );
    assert_eq!(number("isg_audit_commit_failures_total "), 0);
    assert_eq!(
        gateway.sharer().put("/images/img/shares/2").await.status,
        200
    );
}
