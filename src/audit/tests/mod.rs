//! The room's promises, tried through its doors on real files.

mod bounds;
mod chain;
mod derived;
mod feed;
mod files;
mod looking;
mod standing;
mod writing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::*;
use crate::domain::{
    Author, Caller, Change, Deadline, EventId, Operation, Outcome, Principal, Stopwatch,
};

/// Rows of a batch: as many as the writer lets come together, more than small trails have; some; each by itself.
const BATCHES: [i64; 3] = [512, 7, 1];

struct Trail {
    directory: tempfile::TempDir,
    path: PathBuf,
    writer: Writer,
    task: WriterTask,
    reader: Reader,
    metrics: Metrics,
    batch_rows: Option<i64>,
}

impl Trail {
    async fn open() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("trail/audit.db");
        let metrics = Metrics::new();
        let (writer, task, reader) = open(&path, Accepted::default(), metrics.clone())
            .await
            .expect("opens");
        Self {
            directory,
            path,
            writer,
            task,
            reader,
            metrics,
            batch_rows: None,
        }
    }

    /// One whose derived tables get a batch each time so many rows were added.
    async fn open_with_batches(rows: i64) -> Self {
        Self {
            batch_rows: Some(rows),
            ..Self::open().await
        }
    }

    /// Adds the rows that make whole batches, as the writer would.
    async fn add_batches(&self) {
        if let Some(rows) = self.batch_rows {
            let add = format!(
                "UPDATE audit_indexed SET sequence = (SELECT MAX(sequence) FROM audit_entries) / {rows} * {rows}"
            );
            self.sql(&add).await.expect("adds");
        }
    }

    /// Closes the trail in order; its directory stays as long as what is given.
    async fn close(self) -> (tempfile::TempDir, PathBuf, Head) {
        self.reader.close().await;
        let closed = self
            .task
            .stop(Deadline::after(Duration::from_secs(30)))
            .await;
        let closed = closed.expect("closes");
        assert_eq!(closed.lost_outcomes, 0);
        (self.directory, self.path, closed.head)
    }

    /// What somebody with `sqlite3` could do.
    async fn sql(&self, statement: &str) -> Result<(), sqlx::Error> {
        sql(&self.path, statement).await
    }

    /// Has an intent on disk.
    async fn intend(&self, intent: Intent) -> Recorded {
        let ticket = self.writer.enqueue(intent).expect("room");
        let recorded = ticket.await.expect("durable");
        self.add_batches().await;
        recorded
    }

    /// Has so many denials on disk, as fast as may be.
    async fn deny_many(&self, count: u64) {
        let mut tickets = Vec::new();
        for number in 0..count {
            loop {
                match self.writer.enqueue_denial(denial(number)) {
                    Ok(ticket) => break tickets.push(ticket),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        }
        for ticket in tickets {
            ticket.await.expect("durable");
        }
    }

    /// All events that fit, read in pages of `limit`.
    async fn page_by_page(&self, filter: &Filter, order: Order, limit: usize) -> Vec<Event> {
        let (mut events, mut after) = (Vec::new(), None);
        loop {
            let page = self.reader.page(filter, order, limit, after).await;
            let page = page.expect("reads");
            assert!(page.events.len() <= limit);
            events.extend(page.events);
            after = page.next;
            if after.is_none() {
                return events;
            }
        }
    }

    /// An event that is there.
    async fn event(&self, id: EventId) -> EventWithEntries {
        self.reader
            .event(id)
            .await
            .expect("reads")
            .expect("is there")
    }

    async fn share(&self, number: u64) -> Recorded {
        let intent = intent(number);
        let recorded = self.intend(intent.clone()).await;
        let outcome = if number.is_multiple_of(3) {
            Outcome::Failed
        } else {
            Outcome::Succeeded
        };
        self.writer
            .record(completion(&intent, recorded.event_id, outcome))
            .await
            .expect("durable");
        self.add_batches().await;
        recorded
    }

    async fn verify(&self, expected: &[&str]) -> Report {
        let expected: Vec<Expected> = expected
            .iter()
            .map(|text| text.parse().expect("a head"))
            .collect();
        verify(&self.path, &expected).await.expect("looks")
    }
}

/// Opens a trail in a file.
async fn open(
    path: &Path,
    accepted: Accepted,
    metrics: Metrics,
) -> Result<(Writer, WriterTask, Reader), StoreError> {
    let doors = open_file(path, accepted, metrics).await?;
    Ok((doors.writer, doors.task, doors.reader))
}

async fn sql(path: &Path, statement: &str) -> Result<(), sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(5));
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

fn intent(number: u64) -> Intent {
    let subject = format!("team-{}", number % 3);
    let principal = Principal {
        token_id: Some("t-1".into()),
        scopes: std::iter::once("shares:write".to_owned()).collect(),
        ..Principal::of_first_issuer(&subject, "https://issuer.example")
    };
    let caller = Caller {
        principal: Arc::new(principal),
        client_ip: "10.0.0.7".parse().ok(),
        user_agent: Some("tests".into()),
        request_id: format!("request-{number}").parse().expect("a request id"),
        trace_id: None,
        since_arrival: Stopwatch::start(),
    };
    let change = Change {
        operation: if number.is_multiple_of(2) {
            Operation::Share
        } else {
            Operation::Unshare
        },
        image_id: format!("img-{}", number % 5).parse().expect("an image"),
        account_id: (number % 7 + 1).try_into().expect("an account"),
        region: "cn-wlcb".parse().expect("a region"),
        reason: "because".parse().ok(),
    };
    Intent {
        author: Author::Caller(Arc::new(caller)),
        change,
        policy_ids: Vec::new(),
    }
}

fn completion(intent: &Intent, event_id: EventId, outcome: Outcome) -> Completion {
    Completion {
        recalled: Recalled::of(intent, event_id),
        outcome,
        http_status: Some(HttpStatus::new(200)),
        upstream_ret_code: Some(0),
        upstream_request_id: Some("uuid-1".into()),
        upstream_calls: Some(1),
        elapsed: Elapsed::Since(intent.author.caller().expect("a caller").since_arrival),
        detail: None,
    }
}

fn denial(number: u64) -> Denial {
    let Intent { author, change, .. } = intent(number);
    let Author::Caller(caller) = author else {
        unreachable!("tests ask");
    };
    Denial {
        caller,
        refused: Refused::Change(change),
        policy_ids: vec!["p1".into()],
        http_status: HttpStatus::new(403),
        detail: "no".into(),
    }
}

/// Waits, without a fixed time, for what the writer does by itself.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = Stopwatch::start();
    while !holds() {
        assert!(waited.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many rounds a long test makes: `few` in `tests/run`, `many` where `ISG_TEST_FULL` is set.
#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by their environment"
)]
fn rounds(few: u32, many: u32) -> u32 {
    if std::env::var("ISG_TEST_FULL").is_ok() {
        many
    } else {
        few
    }
}
