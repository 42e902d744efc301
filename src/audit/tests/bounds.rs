//! What is bounded: a read's time, the write-ahead log, what waits for a commit; what a writer that is gone says; and
//! what is noted beside the trail.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{SqlitePool, sqlite::SqlitePoolOptions};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::audit::store::{Asker, BoundedRead, ReadGate};

/// Goes on until it is stopped.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n";

async fn connections(path: &Path, count: u32) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let pool = SqlitePoolOptions::new().max_connections(count);
    pool.connect_with(options).await.expect("opens")
}

#[tokio::test]
async fn a_statement_that_takes_too_long_or_that_nobody_waits_for_is_stopped() {
    let trail = Trail::open().await;
    let (pool, gate) = (connections(&trail.path, 1).await, ReadGate::of(1));
    let endless = async |limit| {
        let mut read = BoundedRead::begin(&pool, &gate, limit)
            .await
            .expect("begins");
        let counted = sqlx::query_scalar::<_, i64>(ENDLESS).fetch_one(read.connection());
        counted.await.map_err(crate::audit::store::read_failed)
    };
    let stopped = endless(Some(Duration::from_millis(20))).await;
    assert!(matches!(stopped, Err(StoreError::TooSlow)), "{stopped:?}");
    // Nobody waits for it any more: the one connection is free again.
    let abandoned = tokio::time::timeout(Duration::from_millis(20), endless(None)).await;
    assert!(abandoned.is_err(), "{abandoned:?}");
    let mut read = BoundedRead::begin(&pool, &gate, None)
        .await
        .expect("begins");
    let one: i64 = sqlx::query_scalar("SELECT 1")
        .fetch_one(read.connection())
        .await
        .expect("reads");
    assert_eq!(one, 1);
    drop(read);
    pool.close().await;
    trail.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_take_every_connection_keep_no_list_from_its_provenance() {
    let trail = Trail::open().await;
    let recorded = trail.share(1).await;
    let connections = trail.reader.file_connections();
    let endless = (0..8).map(|_| async {
        let mut read = connections.query(&Asker::default()).await.expect("begins");
        let counted = sqlx::query_scalar::<_, i64>(ENDLESS).fetch_one(read.connection());
        counted.await.map_err(crate::audit::store::read_failed)
    });
    let intent = intent(1);
    let change = &intent.change;
    let accounts = [change.account_id];
    let looking = trail
        .reader
        .last_changes(&change.region, &change.image_id, &accounts);
    tokio::select! {
        biased;
        ended = join_all(endless) => panic!("they go on: {ended:?}"),
        found = looking => {
            let found = found.expect("reads");
            assert_eq!(found[&change.account_id].event_id, recorded.event_id);
        }
    }
    trail.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_closed_lets_reads_end_and_none_begin() {
    let trail = Trail::open().await;
    let (pool, gate) = (connections(&trail.path, 2).await, ReadGate::of(2));
    let read = BoundedRead::begin(&pool, &gate, None)
        .await
        .expect("begins");
    let mut closing = std::pin::pin!(gate.clone().close());
    assert!(
        futures_util::poll!(&mut closing).is_pending(),
        "one is under way"
    );
    let mut next = std::pin::pin!(BoundedRead::begin(&pool, &gate, None));
    assert!(futures_util::poll!(&mut next).is_pending(), "none begins");
    drop(read);
    let closed = closing.await;
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut next).await;
    assert!(waited.is_err(), "a connection is free, and the gate is not");
    drop(closed);
    drop(next.await.expect("begins"));
    pool.close().await;
    trail.close().await;
}

/// Readers one after another, without a gap, beside many writers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_write_ahead_log_stays_short_whoever_reads() {
    const LOG_BYTES_MAX: u64 = 160 * 1024 * 1024;
    let trail = Trail::open().await;
    let log = trail.path.with_file_name("audit.db-wal");
    let (stop, longest) = (
        CancellationToken::new(),
        Arc::new(std::sync::atomic::AtomicU64::new(0)),
    );
    let mut readers = Vec::new();
    for _ in 0..8 {
        let (reader, stop) = (trail.reader.clone(), stop.clone());
        readers.push(spawn(async move {
            while !stop.is_cancelled() {
                let mut export = Export::new(
                    reader.clone(),
                    Filter::default(),
                    Order::Ascending,
                    Format::Ndjson,
                    None,
                    None,
                );
                while !stop.is_cancelled() && export.next().await.expect("reads").is_some() {}
            }
        }));
    }
    let writers = (0..64).map(|writer| {
        let (trail, log, longest) = (&trail, log.clone(), Arc::clone(&longest));
        async move {
            for number in 0..u64::from(rounds(400, 8000)) {
                trail.share(writer * 100_000 + number).await;
                let bytes = std::fs::metadata(&log).expect("a log").len();
                longest.fetch_max(bytes, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    join_all(writers).await;
    stop.cancel();
    for reader in readers {
        reader.await.expect("ends");
    }
    let longest = longest.load(std::sync::atomic::Ordering::Relaxed);
    eprintln!("the log was {longest} bytes long at the most");
    assert!(longest < LOG_BYTES_MAX, "{longest} bytes");
    trail.close().await;
}

#[expect(clippy::disallowed_methods, reason = "a test's readers end with it")]
fn spawn(work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(work)
}

/// The writer stands still while somebody holds the database's lock.
#[tokio::test]
async fn bulks_and_outcomes_that_wait_leave_room_for_single_changes() {
    let trail = Trail::open().await;
    let mut person = SqliteConnection::connect(&format!("sqlite://{}", trail.path.display()))
        .await
        .expect("opens");
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut person)
        .await
        .expect("locks");
    let many = || (0..1000).map(intent).collect::<Vec<_>>();
    let mut bulks = Vec::new();
    while let Ok(ticket) = trail.writer.enqueue_bulk(many(), Vec::new()) {
        bulks.push(ticket);
        assert!(bulks.len() < 100, "bulks have no bound");
    }
    assert!(bulks.len() >= 2);
    let outcome = |number| {
        let event_id = EventId::new(uuid::Uuid::from_u128(number));
        completion(&intent(1), event_id, Outcome::Succeeded)
    };
    let mut outcomes: Vec<_> = (1..=1000)
        .map(|number| Box::pin(trail.writer.record(outcome(number))))
        .collect();
    for outcome in &mut outcomes {
        assert!(futures_util::poll!(outcome).is_pending());
    }
    let single = trail
        .writer
        .enqueue(intent(2))
        .expect("room for a single change");
    let denied = trail
        .writer
        .enqueue_denial(denial(3))
        .expect("and for a denial");
    drop(outcomes);
    person.close().await.expect("lets go");
    for ticket in bulks {
        ticket.await.expect("durable");
    }
    single.await.expect("durable");
    denied.await.expect("durable");
    trail.close().await;
}

#[tokio::test]
async fn a_writer_that_is_gone_is_not_ready() {
    let trail = Trail::open().await;
    assert_eq!(trail.writer.health(), Health::Writable);
    trail.task.abort_for_a_test();
    until("it is told", || {
        matches!(trail.writer.health(), Health::Failing(_))
    })
    .await;
    assert!(matches!(
        trail.writer.enqueue(intent(1)),
        Err(EnqueueError::Ended)
    ));
}

#[tokio::test]
async fn rows_bear_the_clocks_own_time_and_ids_grow_all_the_same() {
    let draft = |number| crate::audit::entry::Draft::Intent(Box::new(intent(number)));
    let mut tip = crate::audit::chain::Tip::new("main", 0, Hash::GENESIS, None);
    let at = |text: &str| Timestamp::parse_rfc3339(text).expect("a time");
    let (wrong, right) = (at("2036-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
    let mut last = None;
    for now in [right, wrong, right, right] {
        let draft = draft(1);
        let row = tip.seal(&draft, now);
        assert_eq!(row.place.recorded_at, now);
        assert!(Some(row.place.event_id) > last);
        last = Some(row.place.event_id);
    }
    assert_eq!(
        tip.last_event_at()
            .map(|time| time.to_string()[..4].to_owned()),
        Some("2036".into())
    );
}

#[tokio::test]
async fn what_was_looked_after_is_open_no_more_and_only_that() {
    let trail = Trail::open().await;
    let write = async |number: u64, outcome, detail: Option<&str>| {
        let intent = intent(number);
        let recorded = trail.intend(intent.clone()).await;
        let completion = Completion {
            detail: detail.map(str::to_owned),
            ..completion(&intent, recorded.event_id, outcome)
        };
        trail.writer.record(completion).await.expect("durable");
        intent.change
    };
    let unknown = write(1, Outcome::Unknown, None).await;
    let retried = write(2, Outcome::Succeeded, Some(EARLIER_CALL_OPEN)).await;
    write(3, Outcome::Succeeded, None).await;
    write(4, Outcome::Failed, Some(EARLIER_CALL_OPEN)).await;
    let open = async || {
        let since = Timestamp::from_micros(0);
        let open = trail.reader.open_changes(since).await.expect("reads");
        open.into_iter()
            .map(|open| (open.image_id, open.account_id))
            .collect::<BTreeSet<_>>()
    };
    let of = |change: &Change| (change.image_id.clone(), change.account_id);
    assert_eq!(open().await, BTreeSet::from([of(&unknown), of(&retried)]));
    trail.writer.note_looked_after(LookedAfter {
        region: unknown.region.clone(),
        image_id: unknown.image_id.clone(),
        accounts: vec![unknown.account_id],
        through: trail.writer.last_event().expect("an event"),
    });
    let waited = Stopwatch::start();
    while open().await.len() > 1 {
        assert!(waited.elapsed() < Duration::from_secs(30), "it is noted");
    }
    assert_eq!(open().await, BTreeSet::from([of(&retried)]));
    // The same account, unknown again.
    write(1, Outcome::Unknown, None).await;
    assert_eq!(open().await, BTreeSet::from([of(&unknown), of(&retried)]));
    trail.close().await;
}

#[tokio::test]
async fn whatever_was_looked_after_at_once_is_noted_at_a_stop_at_the_latest() {
    const IMAGES: i64 = 700;
    let trail = Trail::open().await;
    let through = trail.share(1).await.event_id;
    for number in 0..IMAGES {
        trail.writer.note_looked_after(LookedAfter {
            region: "cn-wlcb".parse().expect("a region"),
            image_id: format!("img-{number}").parse().expect("an image"),
            accounts: vec![7.try_into().expect("an account")],
            through,
        });
    }
    let (_directory, path, _) = trail.close().await;
    let url = format!("sqlite://{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.expect("opens");
    let noted = "SELECT COUNT(*) FROM audit_looked_after";
    let noted: i64 = sqlx::query_scalar(noted)
        .fetch_one(&mut connection)
        .await
        .expect("counts");
    assert_eq!(noted, IMAGES);
}

#[tokio::test]
async fn one_party_has_few_queries_at_once_and_others_need_not_wait_for_them() {
    let trail = Trail::open().await;
    let party = |number: u64| intent(number).author.party();
    let (busy, other) = (party(1), party(2));
    let reader = trail.reader.clone();
    let connections = reader.file_connections();
    let asker = |party: &crate::domain::Party| Asker {
        party: Some(party.clone()),
        exports: false,
    };
    let mut reads = Vec::new();
    for _ in 0..2 {
        reads.push(connections.query(&asker(&busy)).await.expect("has a turn"));
    }
    let mine = asker(&busy);
    let mut third = std::pin::pin!(connections.query(&mine));
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut third).await;
    assert!(waited.is_err(), "it waits for its own");
    drop(
        connections
            .query(&asker(&other))
            .await
            .expect("another's goes on"),
    );
    reads.pop();
    drop(third.await.expect("its turn"));
    drop(reads);
    trail.close().await;
}
