//! The floor: what the parts of a change cost by themselves, each in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, QueryBuilder, SqliteConnection};

use super::callers::{Images, drive};
use super::load;
use super::process::{ISSUER, Process, cpu_of};

const CALLERS: usize = 64;
const CALLS: usize = 20_000;
const GROUPS: usize = 400;
const GROUP_ROWS: usize = 64;

/// CPU microseconds of each part.
pub(crate) struct Floor {
    route: f64,
    call: f64,
    rows: f64,
}

impl Floor {
    pub(crate) fn sum(&self) -> f64 {
        self.route + self.call + self.rows
    }
}

/// Measures all parts, one after another.
pub(crate) async fn measure(upstream: &str, directory: &Path, duration: Duration) -> Floor {
    let server = Process::floor_route();
    drive(&load(
        &server.url,
        CALLERS,
        Images::Distinct,
        Duration::from_secs(1),
    ))
    .await;
    let before = server.cpu();
    let answered = drive(&load(
        &server.url,
        CALLERS,
        Images::Distinct,
        duration.min(Duration::from_secs(5)),
    ))
    .await;
    let route = server.cpu().saturating_sub(before).as_secs_f64() * 1e6 / answered.answers as f64;
    drop(server);
    let call = figure(
        Command::new(std::env::current_exe().unwrap()).args(["--floor", "call", "--url", upstream]),
    );
    let mut rows = Command::new(std::env::current_exe().unwrap());
    let rows = figure(rows.args(["--floor", "rows", "--directory"]).arg(directory));
    let floor = Floor { route, call, rows };
    println!("floor: CPU a part");
    println!("  an actix route that only answers  {route:>9.1} µs");
    println!("  one pooled upstream call          {call:>9.1} µs");
    println!("  two rows in a group of 64         {rows:>9.1} µs");
    println!(
        "  sum                               {:>9.1} µs",
        floor.sum()
    );
    floor
}

fn figure(command: &mut Command) -> f64 {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// A route of the same path that answers the same number of bytes and does nothing.
pub(crate) fn route() {
    const BODY: &str = r#"{"image_id":"bench-1","account_id":1,"region":"cn-wlcb","shared":true,"audit_id":"01a20eeb-4656-7749-9bd5-fe09de30083c"}"#;
    on_runtime(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = || async {
            HttpResponse::Ok()
                .content_type("application/json")
                .body(BODY)
        };
        let server = HttpServer::new(move || {
            App::new().service(
                web::resource("/images/{image_id}/shares/{account_id}")
                    .route(web::put().to(answer)),
            )
        });
        let server = server.disable_signals().listen(listener).unwrap().run();
        println!("http://{address}");
        server.await.unwrap();
    });
}

/// Pooled calls of the size of a change's, 64 at a time; prints CPU microseconds a call.
pub(crate) fn call(url: &str) {
    const FORM: &str = "Action=ModifyCompShareImageShareAccount&Region=cn-wlcb&CompShareImageId=bench-1&AddAccounts.0=1\
        &PublicKey=bench-public-key&Signature=ee390e9486ac5ab5deb5e5bfc021dc99f52fccf3";
    on_runtime(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .build()
            .unwrap();
        let some_calls = |count: usize| {
            let (client, url) = (client.clone(), url.to_owned());
            async move {
                for _ in 0..count {
                    let request = client
                        .post(&url)
                        .header("Content-Type", "application/x-www-form-urlencoded");
                    request
                        .body(FORM)
                        .send()
                        .await
                        .unwrap()
                        .bytes()
                        .await
                        .unwrap();
                }
            }
        };
        let all = |count: usize| async move {
            let tasks: Vec<_> = (0..CALLERS)
                .map(|_| tokio::spawn(some_calls(count)))
                .collect();
            futures_util::future::join_all(tasks).await;
        };
        all(10).await;
        let before = cpu_of("self");
        all(CALLS / CALLERS).await;
        let cpu = cpu_of("self").saturating_sub(before);
        println!(
            "{}",
            cpu.as_secs_f64() * 1e6 / (CALLS / CALLERS * CALLERS) as f64
        );
    });
}

/// Groups of 64 rows, an intent and its outcome in turn, into the trail's own schema; prints CPU
/// microseconds for two rows.
pub(crate) fn rows(directory: &Path) {
    on_runtime(async {
        let options = SqliteConnectOptions::new()
            .filename(directory.join("floor.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::migrate!("migrations/sqlite")
            .run(&mut connection)
            .await
            .unwrap();
        let (mut sequence, begun) = (0, Instant::now());
        for _ in 0..20 {
            insert_group(&mut connection, &mut sequence).await;
        }
        let before = cpu_of("self");
        for _ in 0..GROUPS {
            insert_group(&mut connection, &mut sequence).await;
        }
        let cpu = cpu_of("self").saturating_sub(before);
        assert!(
            begun.elapsed() < Duration::from_mins(5),
            "the disk is too slow for this bench"
        );
        println!(
            "{}",
            cpu.as_secs_f64() * 1e6 * 2.0 / (GROUPS * GROUP_ROWS) as f64
        );
    });
}

async fn insert_group(connection: &mut SqliteConnection, sequence: &mut i64) {
    const INTENT: &str = "INSERT INTO audit_entries (version, chain_id, sequence, kind, event_id, recorded_at, subject, \
        issuer, token_id, client_ip, user_agent, request_id, operation, image_id, account_id, region, policy_ids, \
        outcome, http_status, upstream_ret_code, upstream_request_id, upstream_calls, duration_ms, hash) ";
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let mut insert = QueryBuilder::new(INTENT);
    let mut event_id = String::new();
    insert.push_values(0..GROUP_ROWS, |mut row, _| {
        let intent = *sequence % 2 == 0;
        *sequence += 1;
        if intent {
            event_id = uuid::Uuid::now_v7().to_string();
        }
        let only_intent = |text: &'static str| intent.then_some(text);
        let only_outcome = |number: i64| (!intent).then_some(number);
        row.push_bind(1_i64)
            .push_bind("main")
            .push_bind(*sequence)
            .push_bind(if intent { "intent" } else { "outcome" })
            .push_bind(event_id.clone())
            .push_bind(1_800_000_000_000_000_i64 + *sequence)
            .push_bind(format!("team-{}", *sequence % 64))
            .push_bind(only_intent(ISSUER))
            .push_bind(only_intent("2c0f6a51-5a0b-4a55-9b0e-0c6f3a1d2b77"))
            .push_bind(only_intent("127.0.0.1"))
            .push_bind(None::<&str>)
            .push_bind(uuid::Uuid::new_v4().to_string())
            .push_bind("share")
            .push_bind(format!("bench-{}", *sequence % 64))
            .push_bind(*sequence)
            .push_bind("cn-wlcb")
            .push_bind(only_intent("[]"))
            .push_bind((!intent).then_some("succeeded"))
            .push_bind(only_outcome(200))
            .push_bind(only_outcome(0))
            .push_bind((!intent).then_some("4f2a6c1e-0000-4000-8000-000000000001"))
            .push_bind(only_outcome(1))
            .push_bind(only_outcome(7))
            .push_bind("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    });
    insert.build().execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}
