//! The floor: what the parts of a change cost by themselves, each in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::callers::{ACCOUNTS_PER_CALLER, Asks};
use super::measured::{self, changes};
use super::process::{Process, cpu_of};
use super::row::{self, Row, TABLE};

const CALLERS: usize = 64;
const CALLS: usize = 20_000;
const GROUPS: usize = 400;
/// Rows between two batches of the derived tables, as the writer has it.
const BATCH_ROWS: i64 = 512;
const GROUP_ROWS: usize = 64;
/// Commits, and calls, of one after another.
const ALONE: u64 = 2000;

/// CPU microseconds of each part, and times of what one caller waits for.
pub(crate) struct Floor {
    /// An actix route that only answers.
    pub(crate) route: f64,
    call: f64,
    rows: f64,
    plain_rows: f64,
    /// Milliseconds that two commits and a call take, one after another, each at its median.
    pub(crate) alone_ms: f64,
}

impl Floor {
    /// With rows as the trail has them.
    pub(crate) fn sum(&self) -> f64 {
        self.route + self.call + self.rows
    }

    /// With rows of a table that has nothing but them.
    pub(crate) fn plain_sum(&self) -> f64 {
        self.route + self.call + self.plain_rows
    }
}

/// Measures all parts, one after another.
pub(crate) async fn measure(upstream: &str, directory: &Path, duration: Duration) -> Floor {
    let server = Process::part("route", &[]);
    let load = changes(
        &server.url,
        CALLERS,
        Asks::DistinctImages,
        duration.min(Duration::from_secs(5)),
    );
    let route = measured::measure(&server, &load).await.cpu;
    drop(server);
    let part = |name: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--floor", name, "--url", upstream]);
        figure(command.arg("--directory").arg(directory))
    };
    let floor = Floor {
        route,
        call: part("call"),
        rows: part("rows"),
        plain_rows: part("plain-rows"),
        alone_ms: part("alone"),
    };
    println!("floor: CPU a part");
    println!("  an actix route that only answers  {route:>9.1} µs");
    println!("  one pooled upstream call          {:>9.1} µs", floor.call);
    println!("  two rows in a group of 64         {:>9.1} µs", floor.rows);
    println!(
        "  two rows without indexes          {:>9.1} µs",
        floor.plain_rows
    );
    println!(
        "  sum, and without indexes          {:>9.1} µs, {:.1} µs",
        floor.sum(),
        floor.plain_sum()
    );
    println!(
        "  two commits and a call, waited for{:>9.3} ms",
        floor.alone_ms
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

pub(crate) fn on_runtime<T>(work: impl Future<Output = T>) -> T {
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

/// A call's form.
pub(crate) const FORM: &str = "Action=ModifyCompShareImageShareAccount&Region=cn-wlcb&CompShareImageId=bench-1\
    &AddAccounts.0=1&PublicKey=bench-public-key&Signature=ee390e9486ac5ab5deb5e5bfc021dc99f52fccf3";

/// Pooled calls of the size of a change's, 64 at a time; prints CPU microseconds a call.
pub(crate) fn call(url: &str) {
    on_runtime(async {
        let client = client();
        let some_calls = |count: usize| {
            let (client, url) = (client.clone(), url.to_owned());
            async move {
                for _ in 0..count {
                    post(&client, &url).await;
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

/// The same 64 at a time, for as long as they take; prints their median in milliseconds.
pub(crate) fn waited_call(url: &str) {
    const CALLS_EACH: usize = 200;
    on_runtime(async {
        let client = client();
        let calls = async || {
            let mut times = Vec::new();
            for _ in 0..CALLS_EACH {
                let begun = Instant::now();
                post(&client, url).await;
                times.push(begun.elapsed());
            }
            times
        };
        let all = futures_util::future::join_all((0..CALLERS).map(|_| calls())).await;
        println!("{}", median_ms(&mut all.concat()));
    });
}

/// What a call to `upstream` takes where 64 are made at a time, in milliseconds, its median.
pub(crate) fn waited(upstream: &str) -> f64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    figure(command.args(["--floor", "waited-call", "--url", upstream]))
}

fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    builder.build().unwrap()
}

async fn post(client: &reqwest::Client, url: &str) {
    let request = client
        .post(url)
        .header("Content-Type", "application/x-www-form-urlencoded");
    let answer = request.body(FORM).send().await.unwrap();
    answer.bytes().await.unwrap();
}

/// Groups of 64 rows, an intent and its outcome in turn, into the trail's own schema, with what is derived from them in batches,
/// or into a table without indexes; prints CPU microseconds for two rows.
pub(crate) fn rows(directory: &Path, plain: bool) {
    on_runtime(async {
        let name = if plain { "plain-rows.db" } else { "rows.db" };
        let mut connection = open(&directory.join(name)).await;
        if plain {
            sqlx::raw_sql(TABLE).execute(&mut connection).await.unwrap();
        } else {
            let migrations = sqlx::migrate!("migrations/sqlite");
            migrations.run(&mut connection).await.unwrap();
        }
        let (mut sequence, begun) = (0, Instant::now());
        for _ in 0..20 {
            insert_group(&mut connection, &mut sequence).await;
        }
        let before = cpu_of("self");
        for _ in 0..GROUPS {
            insert_group(&mut connection, &mut sequence).await;
            if !plain && sequence % BATCH_ROWS == 0 {
                let add = sqlx::query("UPDATE audit_indexed SET sequence = ?").bind(sequence);
                add.execute(&mut connection).await.unwrap();
            }
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

async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    SqliteConnection::connect_with(&options).await.unwrap()
}

async fn insert_group(connection: &mut SqliteConnection, sequence: &mut i64) {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let text = row::statement(GROUP_ROWS);
    let mut insert = sqlx::query(AssertSqlSafe(text));
    for _ in 0..GROUP_ROWS / 2 {
        let event_id = uuid::Uuid::now_v7().to_string();
        let event = u64::try_from(*sequence).unwrap() / 2;
        let callers = CALLERS as u64;
        let account_id = event % callers * ACCOUNTS_PER_CALLER + event / callers + 1;
        for row in [
            Row::intent(&event_id, account_id),
            Row::outcome(&event_id, account_id),
        ] {
            *sequence += 1;
            insert = row.at(*sequence).bind(insert);
        }
    }
    insert.execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

/// What one caller waits for, each by itself: a commit of one row without indexes, and a call; prints the milliseconds of two
/// commits and a call, each at its median.
pub(crate) fn alone(url: &str, directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ms = runtime.block_on(async {
        let mut connection = open(&directory.join("alone.db")).await;
        sqlx::raw_sql(TABLE).execute(&mut connection).await.unwrap();
        let (mut commits, mut calls) = (Vec::new(), Vec::new());
        for account_id in 0..ALONE {
            let event_id = uuid::Uuid::now_v7().to_string();
            let begun = Instant::now();
            Row::intent(&event_id, account_id)
                .insert(&mut connection)
                .await;
            commits.push(begun.elapsed());
        }
        let client = client();
        for _ in 0..ALONE {
            let begun = Instant::now();
            post(&client, url).await;
            calls.push(begun.elapsed());
        }
        2.0 * median_ms(&mut commits) + median_ms(&mut calls)
    });
    println!("{ms}");
}
