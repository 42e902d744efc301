//! The room's promises, tried through its doors on real files.

#![expect(clippy::too_many_lines, reason = "a table of cases is one thing")]

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::*;
use crate::domain::{
    Caller, Change, Deadline, EventId, Operation, Outcome, Principal, Stopwatch, Timestamp,
};

struct Trail {
    directory: tempfile::TempDir,
    path: PathBuf,
    writer: Writer,
    task: WriterTask,
    reader: Reader,
}

impl Trail {
    async fn open() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("trail/audit.db");
        let (writer, task, reader) = open(&path, Metrics::new()).await.expect("opens");
        Self {
            directory,
            path,
            writer,
            task,
            reader,
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
        self.writer
            .enqueue(intent)
            .expect("room")
            .await
            .expect("durable")
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
    let principal = Principal {
        subject: format!("team-{}", number % 3),
        issuer: "https://issuer.example".into(),
        token_id: Some("t-1".into()),
        scopes: std::iter::once("shares:write".to_owned()).collect(),
    };
    let caller = Caller {
        principal,
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
        caller,
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
        elapsed: Elapsed::Since(intent.caller.since_arrival),
        detail: None,
    }
}

fn denial(number: u64) -> Denial {
    let Intent { caller, change, .. } = intent(number);
    Denial {
        caller,
        change,
        policy_ids: vec!["p1".into()],
        http_status: HttpStatus::new(403),
        detail: "no".into(),
    }
}

#[tokio::test]
async fn an_event_is_its_intent_and_its_outcome() {
    let trail = Trail::open().await;
    let intent = intent(1);
    let recorded = trail.intend(intent.clone()).await;
    let pending = trail.event(recorded.event_id).await;
    assert_eq!(pending.event.outcome, "pending");
    assert_eq!(
        (
            pending.event.completed_at,
            pending.event.http_status,
            pending.event.duration_ms
        ),
        (None, None, None)
    );
    assert_eq!(trail.reader.pending().await.expect("reads").len(), 1);

    trail
        .writer
        .record(completion(&intent, recorded.event_id, Outcome::Succeeded))
        .await
        .expect("durable");
    let ended = trail.event(recorded.event_id).await;
    assert_eq!(ended.event.outcome, "succeeded");
    assert_eq!(ended.event.subject, "team-1");
    assert_eq!(ended.event.reason.as_deref(), Some("because"));
    assert_eq!(ended.event.client_ip.as_deref(), Some("10.0.0.7"));
    assert!(
        ended
            .event
            .duration_ms
            .is_some_and(|millis| millis < 30_000)
    );
    let kinds: Vec<(&str, i64)> = ended
        .entries
        .iter()
        .map(|entry| (entry.kind.as_str(), entry.sequence))
        .collect();
    assert_eq!(kinds, [("intent", 1), ("outcome", 2)]);
    assert_eq!(ended.entries[0].hash, recorded.hash.to_string());
    assert!(trail.reader.pending().await.expect("reads").is_empty());
}

#[tokio::test]
async fn a_denial_is_one_row_and_over_as_it_begins() {
    let trail = Trail::open().await;
    let recorded = trail
        .writer
        .enqueue_denial(denial(4))
        .expect("room")
        .await
        .expect("durable");
    let event = trail.event(recorded.event_id).await;
    assert_eq!(event.event.outcome, "denied");
    assert_eq!(
        event.event.completed_at.as_deref(),
        Some(event.event.occurred_at.as_str())
    );
    assert_eq!(event.event.policy_ids, ["p1"]);
    assert_eq!(event.event.upstream_calls, Some(0));
    assert_eq!(event.entries.len(), 1);
}

#[tokio::test]
async fn entries_stand_in_the_order_of_the_calls_and_an_event_has_one_outcome() {
    let trail = Trail::open().await;
    let tickets: Vec<Ticket> = (0..200)
        .map(|number| trail.writer.enqueue(intent(number)).expect("room"))
        .collect();
    let mut last = None;
    for ticket in tickets {
        let recorded = ticket.await.expect("durable");
        assert!(last < Some((recorded.sequence, recorded.event_id)));
        last = Some((recorded.sequence, recorded.event_id));
    }
    let (_, event_id) = last.expect("recorded");
    let ended = completion(&intent(199), event_id, Outcome::Succeeded);
    trail
        .writer
        .record(ended.clone())
        .await
        .expect("the first outcome");
    assert_eq!(
        trail.writer.record(ended).await,
        Err(NotDurable),
        "the database refuses a second"
    );
    let after = trail.share(7).await;
    assert_eq!(after.sequence, 202, "the writer goes on, without a gap");
}

#[tokio::test]
async fn the_queue_is_bounded_and_says_so_at_once() {
    let trail = Trail::open().await;
    // Nothing awaits in between, so the writer's task cannot run on this runtime's one thread.
    let (mut taken, mut refused) = (Vec::new(), 0);
    for number in 0..1000 {
        match trail.writer.enqueue(intent(number)) {
            Ok(ticket) => taken.push(ticket),
            Err(error) => {
                assert_eq!(error, EnqueueError::Full);
                refused += 1;
            }
        }
    }
    assert_eq!((taken.len(), refused), (256, 744));
    for ticket in taken {
        ticket.await.expect("what was taken becomes durable");
    }
}

#[tokio::test]
async fn rows_cannot_be_updated_deleted_or_replaced() {
    let trail = Trail::open().await;
    trail.share(1).await;
    let copy =
        "INSERT OR REPLACE INTO audit_entries SELECT * FROM audit_entries WHERE sequence = 1";
    let refused = [
        (
            "UPDATE audit_entries SET subject = 'nobody'",
            "never updated",
        ),
        (
            "UPDATE OR REPLACE audit_entries SET sequence = 2 WHERE sequence = 1",
            "never updated",
        ),
        ("DELETE FROM audit_entries", "never deleted"),
        (
            "DELETE FROM audit_entries WHERE sequence = 2",
            "never deleted",
        ),
        (copy, "never replaced"),
    ];
    for (statement, words) in refused {
        let error = trail.sql(statement).await.expect_err(statement);
        assert!(error.to_string().contains(words), "{statement}: {error}");
    }
    assert!(matches!(trail.verify(&[]).await, Report::Intact(Some(_))));
}

#[tokio::test]
async fn a_trail_has_one_writer() {
    let trail = Trail::open().await;
    let second = open(&trail.path, Metrics::new()).await;
    assert!(
        matches!(second, Err(StoreError::InUse { .. })),
        "{second:?}"
    );
    let (_directory, path, head) = trail.close().await;
    assert_eq!(head.sequence, 0);
    open(&path, Metrics::new()).await.expect("free again");
}

#[tokio::test]
async fn a_trail_of_a_newer_version_or_no_trail_is_refused_by_name() {
    let trail = Trail::open().await;
    trail
        .sql("INSERT INTO _sqlx_migrations VALUES (9999, 'later', '2030-01-01', TRUE, x'00', 0)")
        .await
        .expect("writes");
    let (_directory, path, _) = trail.close().await;
    let newer = open(&path, Metrics::new()).await;
    assert!(
        matches!(
            newer,
            Err(StoreError::Newer {
                migration: 9999,
                ..
            })
        ),
        "{newer:?}"
    );

    let other = path.with_file_name("other.db");
    std::fs::write(
        &other,
        "this is no database, but long enough to be looked at as one",
    )
    .expect("writes");
    let refused = open(&other, Metrics::new()).await;
    assert!(
        matches!(refused, Err(StoreError::Open { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_restart_continues_the_chain_and_ids_never_go_back() {
    let trail = Trail::open().await;
    let before = trail.share(1).await;
    let (_directory, path, head) = trail.close().await;
    let (writer, task, reader) = open(&path, Metrics::new()).await.expect("opens");
    let after = writer
        .enqueue(intent(2))
        .expect("room")
        .await
        .expect("durable");
    assert_eq!(after.sequence, head.sequence + 1);
    assert!(after.event_id > before.event_id);
    reader.close().await;
    task.stop(Deadline::after(Duration::from_secs(30))).await;
    let noted: Expected = head.to_string().parse().expect("a head");
    assert!(matches!(
        verify(&path, &[noted]).await,
        Ok(Report::Intact(Some(_)))
    ));
}

/// A trigger stands in for a disk that refuses: the commit fails, whatever the reason.
const REFUSE: &str =
    "CREATE TRIGGER refuse BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(FAIL, 'no'); END";

#[tokio::test]
async fn a_failed_commit_fails_its_waiters_and_what_was_kept_is_written_later() {
    let trail = Trail::open().await;
    let intent = intent(1);
    let recorded = trail.intend(intent.clone()).await;
    trail.sql(REFUSE).await.expect("writes");
    let ended = completion(&intent, recorded.event_id, Outcome::Succeeded);
    assert_eq!(trail.writer.record(ended.clone()).await, Err(NotDurable));
    assert_eq!(
        trail
            .writer
            .enqueue(super::tests::intent(2))
            .expect("room")
            .await,
        Err(NotDurable)
    );
    assert!(matches!(trail.writer.health(), Health::Failing(_)));
    trail.writer.keep(ended).await;
    trail.sql("DROP TRIGGER refuse").await.expect("writes");
    // Nobody asks for anything: the writer finds out by itself.
    until("the writer recovers by itself", || {
        trail.writer.health() == Health::Writable
    })
    .await;
    let event = trail.event(recorded.event_id).await;
    assert_eq!(event.event.outcome, "succeeded");
    let next = trail.share(3).await;
    assert_eq!(next.sequence, 3, "the failed intent left no gap");
    assert!(matches!(trail.verify(&[]).await, Report::Intact(Some(_))));
}

/// Waits, without a fixed time, for what the writer does by itself.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = Stopwatch::start();
    while !holds() {
        assert!(waited.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_kept_outcome_that_got_to_disk_after_all_is_not_written_twice() {
    let trail = Trail::open().await;
    let intent = intent(1);
    let recorded = trail.intend(intent.clone()).await;
    let ended = completion(&intent, recorded.event_id, Outcome::Succeeded);
    // As after a commit that reported an error and was durable all the same.
    trail.writer.record(ended.clone()).await.expect("durable");
    trail.writer.keep(ended).await;
    let next = trail.share(2).await;
    assert_eq!(next.sequence, 3);
    assert_eq!(trail.writer.health(), Health::Writable);
    let event = trail.event(recorded.event_id).await;
    assert_eq!(event.entries.len(), 2);
}

/// Which events a filter is to find.
type Fits = fn(&Event) -> bool;

#[tokio::test]
async fn pages_follow_one_another_and_every_filter_filters() {
    let trail = Trail::open().await;
    for number in 0..40 {
        trail.share(number).await;
    }
    let lone = trail.intend(intent(40)).await.event_id;
    let denied = trail
        .writer
        .enqueue_denial(denial(41))
        .expect("room")
        .await
        .expect("durable")
        .event_id;
    let all = trail
        .reader
        .page(&Filter::default(), Order::Ascending, 1000, None)
        .await
        .expect("reads");
    assert_eq!((all.events.len(), all.next), (42, None));

    let operation = |word| EventOperation::from_word(word);
    let outcome = |outcome: Outcome| Some(OutcomeFilter::from(outcome));
    let filters: [(Filter, Fits); 11] = [
        (Filter::default(), |_| true),
        (
            Filter {
                subject: Some("team-1".into()),
                ..Filter::default()
            },
            |event| event.subject == "team-1",
        ),
        (
            Filter {
                image_id: "img-2".parse().ok(),
                ..Filter::default()
            },
            |event| event.image_id == "img-2",
        ),
        (
            Filter {
                account_id: 3.try_into().ok(),
                ..Filter::default()
            },
            |event| event.account_id == Some(3),
        ),
        (
            Filter {
                operation: operation("share"),
                ..Filter::default()
            },
            |event| event.operation == "share",
        ),
        (
            Filter {
                operation: operation("update"),
                ..Filter::default()
            },
            |_| false,
        ),
        (
            Filter {
                outcome: outcome(Outcome::Failed),
                ..Filter::default()
            },
            |event| event.outcome == "failed",
        ),
        (
            Filter {
                outcome: outcome(Outcome::Pending),
                ..Filter::default()
            },
            |event| event.outcome == "pending",
        ),
        (
            Filter {
                outcome: outcome(Outcome::Denied),
                ..Filter::default()
            },
            |event| event.outcome == "denied",
        ),
        (
            Filter {
                request_id: Some("request-7".into()),
                ..Filter::default()
            },
            |event| event.request_id.as_deref() == Some("request-7"),
        ),
        (
            Filter {
                subject: Some("team-2".into()),
                outcome: outcome(Outcome::Succeeded),
                ..Filter::default()
            },
            |event| event.subject == "team-2" && event.outcome == "succeeded",
        ),
    ];
    for (filter, fits) in filters {
        for order in [Order::Ascending, Order::Descending] {
            let mut expected: Vec<Event> = all
                .events
                .iter()
                .filter(|event| fits(event))
                .cloned()
                .collect();
            if order == Order::Descending {
                expected.reverse();
            }
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = trail
                    .reader
                    .page(&filter, order, 3, after)
                    .await
                    .expect("reads");
                assert!(page.events.len() <= 3);
                paged.extend(page.events);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(paged, expected, "{filter:?} {order:?}");
        }
    }
    let ids: Vec<&str> = all.events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(&ids[40..], [lone.to_string(), denied.to_string()]);
}

#[tokio::test]
async fn every_filter_is_served_by_an_index_in_the_order_asked() {
    let trail = Trail::open().await;
    let filters = [
        ("", Filter::default()),
        (
            "audit_entries_subject",
            Filter {
                subject: Some("s".into()),
                ..Filter::default()
            },
        ),
        (
            "audit_entries_image",
            Filter {
                image_id: "i".parse().ok(),
                ..Filter::default()
            },
        ),
        (
            "audit_entries_account",
            Filter {
                account_id: 3.try_into().ok(),
                ..Filter::default()
            },
        ),
        (
            "audit_entries_request",
            Filter {
                request_id: Some("r".into()),
                ..Filter::default()
            },
        ),
        (
            "audit_entries_operation",
            Filter {
                operation: EventOperation::from_word("share"),
                ..Filter::default()
            },
        ),
        (
            "audit_entries_outcome",
            Filter {
                outcome: Some(Outcome::Failed.into()),
                ..Filter::default()
            },
        ),
        (
            "audit_entries_outcome",
            Filter {
                outcome: Some(Outcome::Denied.into()),
                ..Filter::default()
            },
        ),
        (
            "",
            Filter {
                outcome: Some(Outcome::Pending.into()),
                ..Filter::default()
            },
        ),
    ];
    for (index, filter) in filters {
        for order in [Order::Ascending, Order::Descending] {
            let plan = trail.reader.plan(&filter, order, None).await;
            assert!(!plan.contains("TEMP B-TREE"), "{filter:?} sorts: {plan}");
            assert!(
                !plan.contains("SCAN f") || plan.contains("USING INDEX"),
                "{filter:?} scans: {plan}"
            );
            assert!(plan.contains(index), "{filter:?}: {plan}");
        }
    }
}

#[tokio::test]
async fn files_that_are_moved_deleted_or_replaced_are_noticed_within_one_commit() {
    type Act = fn(&Path) -> std::io::Result<()>;
    let beside = |path: &Path, name: &str| path.with_file_name(name);
    let acts: [(&str, Act, Option<Act>); 4] = [
        (
            "the database is moved and brought back",
            |path| std::fs::rename(path, path.with_file_name("moved.db")),
            Some(|path| std::fs::rename(path.with_file_name("moved.db"), path)),
        ),
        (
            "its directory is moved and brought back",
            |path| {
                std::fs::rename(
                    path.parent().unwrap(),
                    path.parent().unwrap().with_file_name("moved"),
                )
            },
            Some(|path| {
                std::fs::rename(
                    path.parent().unwrap().with_file_name("moved"),
                    path.parent().unwrap(),
                )
            }),
        ),
        (
            "its log is deleted",
            |path| std::fs::remove_file(path.with_file_name("audit.db-wal")),
            None,
        ),
        (
            "it is replaced by a copy",
            |path| {
                std::fs::copy(path, path.with_file_name("copy.db"))?;
                std::fs::rename(path.with_file_name("copy.db"), path)
            },
            None,
        ),
    ];
    for (what, act, undo) in acts {
        let trail = Trail::open().await;
        trail.share(1).await;
        assert!(
            beside(&trail.path, "audit.db-wal").exists(),
            "the log is there while the trail is open"
        );
        act(&trail.path).expect(what);
        let refused = trail.writer.enqueue(intent(2)).expect("room").await;
        assert_eq!(refused, Err(NotDurable), "{what}");
        let moved = Health::Failing("the audit database was moved, deleted or replaced");
        assert_eq!(trail.writer.health(), moved, "{what}");
        if let Some(undo) = undo {
            undo(&trail.path).expect(what);
            until(what, || trail.writer.health() == Health::Writable).await;
            trail.share(3).await;
            assert!(
                matches!(trail.verify(&[]).await, Report::Intact(Some(_))),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn from_is_inclusive_and_to_is_not() {
    let trail = Trail::open().await;
    let recorded = trail.share(1).await;
    let event = trail.event(recorded.event_id).await.event;
    let at = Timestamp::parse_rfc3339(&event.occurred_at).expect("a time");
    let micro = |micros: i64| Some(Timestamp::from_micros(at.as_micros() + micros));
    for (from, to, found) in [
        (micro(0), None, true),
        (micro(1), None, false),
        (None, micro(0), false),
        (None, micro(1), true),
        (micro(-1), micro(1), true),
    ] {
        let filter = Filter {
            from,
            to,
            ..Filter::default()
        };
        let page = trail
            .reader
            .page(&filter, Order::Descending, 10, None)
            .await
            .expect("reads");
        assert_eq!(!page.events.is_empty(), found, "{from:?} {to:?}");
    }
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing_while_others_write() {
    let trail = Trail::open().await;
    for number in 0..20 {
        trail.share(number).await;
    }
    let (mut seen, mut after, mut number) = (Vec::new(), None, 20);
    loop {
        let page = trail
            .reader
            .page(&Filter::default(), Order::Ascending, 4, after)
            .await
            .expect("reads");
        seen.extend(page.events.into_iter().map(|event| event.id));
        after = page.next;
        if after.is_none() {
            break;
        }
        if number < 40 {
            trail.share(number).await;
            number += 1;
        }
    }
    let all = trail
        .reader
        .page(&Filter::default(), Order::Ascending, 1000, None)
        .await
        .expect("reads");
    let all: Vec<String> = all.events.into_iter().map(|event| event.id).collect();
    assert_eq!(seen, all);
}

/// Lets somebody who owns the file do what the triggers refuse.
const UNLOCK: &str = "DROP TRIGGER audit_entries_no_update; DROP TRIGGER audit_entries_no_delete; \
     DROP TRIGGER audit_entries_no_replace; DROP TRIGGER audit_entries_intent; DROP TRIGGER audit_entries_outcome; \
     DROP INDEX audit_entries_event; ";

#[tokio::test]
async fn verification_names_the_first_broken_row() {
    let attacks = [
        (
            "UPDATE audit_entries SET detail = 'x' WHERE sequence = 4",
            4,
        ),
        (
            "UPDATE audit_entries SET recorded_at = recorded_at + 1 WHERE sequence = 2",
            2,
        ),
        (
            "UPDATE audit_entries SET hash = replace(hash, substr(hash, 1, 1), 'g') WHERE sequence = 3",
            3,
        ),
        (
            "UPDATE audit_entries SET subject = CAST(x'ff' AS TEXT) WHERE sequence = 5",
            5,
        ),
        (
            "UPDATE audit_entries SET chain_id = 'other' WHERE sequence = 6",
            6,
        ),
        ("UPDATE audit_entries SET version = 2 WHERE sequence = 1", 1),
        ("DELETE FROM audit_entries WHERE sequence = 1", 1),
        ("DELETE FROM audit_entries WHERE sequence = 3", 3),
        (
            "UPDATE audit_entries SET sequence = -1 WHERE sequence = 1",
            1,
        ),
        (
            "CREATE TABLE c AS SELECT * FROM audit_entries WHERE sequence = 2; \
             UPDATE c SET sequence = -9223372036854775808; INSERT INTO audit_entries SELECT * FROM c",
            1,
        ),
        (
            "UPDATE audit_entries SET sequence = 100 WHERE sequence = 3; \
             UPDATE audit_entries SET sequence = 3 WHERE sequence = 4; \
             UPDATE audit_entries SET sequence = 4 WHERE sequence = 100",
            3,
        ),
        (
            "CREATE TABLE c AS SELECT * FROM audit_entries WHERE sequence = 2; \
             UPDATE audit_entries SET sequence = sequence + 100 WHERE sequence > 2; \
             UPDATE c SET sequence = 3; INSERT INTO audit_entries SELECT * FROM c; \
             UPDATE audit_entries SET sequence = sequence - 99 WHERE sequence > 100",
            3,
        ),
    ];
    for (attack, first_broken) in attacks {
        let trail = Trail::open().await;
        for number in 0..5 {
            trail.share(number).await;
        }
        trail.sql(&format!("{UNLOCK}{attack}")).await.expect(attack);
        match trail.verify(&[]).await {
            Report::Broken(found) => {
                assert_eq!(found.sequence, first_broken, "{attack}: {}", found.what);
            }
            Report::Intact(head) => panic!("{attack} was not seen: {head:?}"),
        }
    }
}

#[tokio::test]
async fn only_a_noted_head_shows_that_a_tail_was_cut() {
    let trail = Trail::open().await;
    for number in 0..5 {
        trail.share(number).await;
    }
    let Report::Intact(Some(head)) = trail.verify(&[]).await else {
        panic!("intact")
    };
    assert_eq!(head.sequence, 10);
    let noted = head.to_string();
    let short = noted.strip_prefix("main:").expect("of the one chain");
    trail.share(6).await;
    for expected in [noted.as_str(), short] {
        assert!(
            matches!(trail.verify(&[expected]).await, Report::Intact(Some(_))),
            "a chain that grew"
        );
    }
    trail
        .sql(&format!(
            "{UNLOCK} DELETE FROM audit_entries WHERE sequence > 8"
        ))
        .await
        .expect("cuts");
    assert!(
        matches!(trail.verify(&[]).await, Report::Intact(Some(_))),
        "by itself a shorter chain is a chain"
    );
    for expected in [noted.as_str(), short] {
        let Report::Broken(found) = trail.verify(&[expected]).await else {
            panic!("the cut was not seen")
        };
        assert_eq!(found.sequence, 9);
    }
    let other = format!("8:{}", "0".repeat(64));
    let Report::Broken(found) = trail.verify(&[&other]).await else {
        panic!("another hash was not seen")
    };
    assert_eq!(found.sequence, 8);
    let chain = format!("other:8:{}", "0".repeat(64));
    assert!(matches!(trail.verify(&[&chain]).await, Report::Broken(_)));
}

#[tokio::test]
async fn verification_makes_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("none.db");
    assert!(matches!(
        verify(&path, &[]).await,
        Err(StoreError::Open { .. })
    ));
    assert!(!path.exists());
}

proptest! {
    #[test]
    fn heads_read_back(chain in "[A-Za-z0-9-]{1,64}", sequence in 0_i64..i64::MAX, bytes in any::<[u8; 32]>()) {
        let text = format!("{chain}:{sequence}:{}", hex::encode(bytes));
        prop_assert!(text.parse::<Expected>().is_ok(), "{}", text);
        let short = format!("{sequence}:{}", hex::encode(bytes));
        prop_assert!(short.parse::<Expected>().is_ok(), "{}", short);
    }

    #[test]
    fn no_text_makes_the_parser_of_heads_panic(text in "\\PC{0,80}|[a-f0-9:-]{0,90}") {
        let _ = text.parse::<Expected>();
    }
}
