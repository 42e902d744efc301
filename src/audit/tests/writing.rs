//! The writer's door.

use sqlx::ConnectOptions as _;

use super::*;

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

/// Faults of the file, rows that break a CHECK among them.
async fn faults(path: &Path) -> Vec<String> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .expect("opens");
    let checked = sqlx::query_scalar("PRAGMA integrity_check");
    let faults = checked.fetch_all(&mut connection).await.expect("checks");
    connection.close().await.expect("closes");
    faults
}

/// The writer has SQLite leave CHECKs out, since its rows are made of types.
#[tokio::test]
async fn every_row_of_the_writer_holds_what_the_table_demands() {
    let trail = Trail::open().await;
    for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
        let intent = intent(number as u64);
        let recorded = trail.intend(intent.clone()).await;
        if !matches!(outcome, Outcome::Pending | Outcome::Denied) {
            let ended = completion(&intent, recorded.event_id, outcome);
            trail.writer.record(ended).await.expect("durable");
        }
    }
    let whole = Denial {
        refused: Refused::Update {
            image_id: "img-1".parse().expect("an image"),
            region: "cn-wlcb".parse().expect("a region"),
            reason: None,
        },
        ..denial(2)
    };
    for denied in [denial(1), whole] {
        let ticket = trail.writer.enqueue_denial(denied).expect("room");
        ticket.await.expect("durable");
    }
    assert_eq!(faults(&trail.path).await, ["ok"]);
    let odd = "PRAGMA ignore_check_constraints = ON; \
               INSERT INTO audit_entries (version, chain_id, sequence, kind, event_id, recorded_at, subject, operation, \
               image_id, region, hash) VALUES (1, 'main', 1000, 'intent', 'e', 1, 's', 'lend', 'i', 'r', 'h')";
    trail.sql(odd).await.expect("written");
    assert_ne!(faults(&trail.path).await, ["ok"], "it would be seen");
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
    // Somebody holds the database, so nothing gets to disk meanwhile.
    let options = SqliteConnectOptions::new().filename(&trail.path);
    let mut holder = options.connect().await.expect("opens");
    let begun = sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await;
    begun.expect("locks");
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
    holder.close().await.expect("lets go");
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
    let second = open(&trail.path, Accepted::default(), Metrics::new()).await;
    assert!(
        matches!(second, Err(StoreError::InUse { .. })),
        "{second:?}"
    );
    let (_directory, path, head) = trail.close().await;
    assert_eq!(head.sequence, 0);
    open(&path, Accepted::default(), Metrics::new())
        .await
        .expect("free again");
}

#[tokio::test]
async fn a_trail_of_a_newer_version_or_no_trail_is_refused_by_name() {
    let trail = Trail::open().await;
    trail
        .sql("INSERT INTO _sqlx_migrations VALUES (9999, 'later', '2030-01-01', TRUE, x'00', 0)")
        .await
        .expect("writes");
    let (_directory, path, _) = trail.close().await;
    let newer = open(&path, Accepted::default(), Metrics::new()).await;
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
    let refused = open(&other, Accepted::default(), Metrics::new()).await;
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
    let (writer, task, reader) = open(&path, Accepted::default(), Metrics::new())
        .await
        .expect("opens");
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

#[tokio::test]
async fn the_queue_is_bounded_in_bytes_and_outcomes_are_never_refused() {
    let trail = Trail::open().await;
    let long = |number| {
        let mut long = intent(number);
        let Author::Caller(caller) = &mut long.author else {
            unreachable!("tests ask");
        };
        let principal = &mut Arc::make_mut(caller).principal;
        Arc::make_mut(principal).subject = "s".repeat(15_000);
        long
    };
    let first = trail.intend(long(0)).await;
    // Nothing awaits in between, so the writer's task cannot run on this runtime's one thread.
    let taken: Vec<Ticket> = (1..256)
        .map_while(|number| trail.writer.enqueue(long(number)).ok())
        .collect();
    assert!(
        (50..100).contains(&taken.len()),
        "a mebibyte of claims: {}",
        taken.len()
    );
    assert_eq!(
        trail.writer.enqueue(long(300)).err(),
        Some(EnqueueError::Full),
        "the entries alone would fit"
    );
    let ended = completion(&long(0), first.event_id, Outcome::Succeeded);
    trail
        .writer
        .record(ended)
        .await
        .expect("an outcome waits for room");
    for ticket in taken {
        ticket.await.expect("what was taken becomes durable");
    }
    trail.share(400).await;
}

#[tokio::test]
async fn a_crowd_goes_in_groups_and_not_one_by_one() {
    let trail = Trail::open().await;
    let (metrics, tasks) = (trail.metrics.clone(), 64);
    let writers = (0..tasks).map(|task| {
        let writer = trail.writer.clone();
        async move {
            for number in 0..20 {
                let ticket = writer.enqueue(intent(task * 100 + number)).expect("room");
                ticket.await.expect("durable");
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let text = metrics.render();
    let count = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|figure| figure.trim().parse::<f64>().ok())
            .expect(name)
    };
    let entries = count("isg_audit_commit_entries_sum ");
    let commits = count("isg_audit_commit_entries_count ");
    assert!((entries - 1280.0).abs() < 0.5, "{entries}");
    // Twenty, where all 64 come back in time for the next; how many do is for the threads to say.
    assert!(commits <= 160.0, "{commits} commits");
}
