//! What is derived from the entries: it comes with an older trail, it can be made again, and nobody's rows in it keep
//! the trail from being written.

use std::borrow::Cow;

use sqlx::migrate::Migrator;

use super::*;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// The version before what filters ask was kept in batches.
const BEFORE_BATCHES: i64 = 4;

/// What a filter finds, of each kind of index, newest first.
async fn found(reader: &Reader) -> Vec<Vec<Event>> {
    let filters = [
        Filter {
            subject: Some("team-1".into()),
            ..Filter::default()
        },
        Filter {
            image_id: "img-2".parse().ok(),
            ..Filter::default()
        },
        Filter {
            outcome: Some(OutcomeFilter::Pending),
            ..Filter::default()
        },
    ];
    let mut found = Vec::new();
    for filter in filters {
        let page = reader.page(&filter, Order::Descending, 1000, None).await;
        found.push(page.expect("reads").events);
    }
    found
}

#[tokio::test]
async fn an_older_trail_is_filtered_as_a_new_one() {
    let trail = Trail::open_with_batches(1).await;
    for number in 0..20 {
        trail.share(number).await;
    }
    trail.intend(intent(20)).await;
    let expected = found(&trail.reader).await;
    assert_eq!(expected.iter().map(Vec::len).collect::<Vec<_>>(), [7, 4, 1]);
    let (directory, path, _) = trail.close().await;

    let older = directory.path().join("older.db");
    let options = SqliteConnectOptions::new()
        .filename(&older)
        .create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options)
        .await
        .expect("connects");
    let before = MIGRATIONS
        .iter()
        .filter(|migration| migration.version <= BEFORE_BATCHES);
    let before = Migrator {
        migrations: Cow::Owned(before.cloned().collect()),
        ..Migrator::DEFAULT
    };
    before.run(&mut connection).await.expect("is an older one");
    let copy = format!(
        "ATTACH '{}' AS newer; INSERT INTO audit_entries SELECT * FROM newer.audit_entries ORDER BY sequence",
        path.display()
    );
    let copied = sqlx::raw_sql(AssertSqlSafe(copy))
        .execute(&mut connection)
        .await;
    copied.expect("copies");
    connection.close().await.expect("closes");

    let refused = Reader::open(&TrailPlace::File(older.clone()))
        .await
        .expect_err("is not changed yet");
    let why = std::error::Error::source(&refused).expect("a reason");
    assert!(why.to_string().contains("older version"), "{why}");
    let (_writer, task, reader) = open(&older, Accepted::default(), Metrics::new())
        .await
        .expect("opens");
    assert_eq!(found(&reader).await, expected);
    let pending = reader.pending().await.expect("reads");
    assert_eq!(pending.len(), 1, "one is left to be closed");
    reader.close().await;
    let stopped = task.stop(Deadline::after(Duration::from_secs(30))).await;
    stopped.expect("closes");
}

#[tokio::test]
async fn what_is_derived_can_be_made_again() {
    let trail = Trail::open_with_batches(7).await;
    for number in 0..20 {
        trail.share(number).await;
    }
    trail.intend(intent(20)).await;
    let expected = found(&trail.reader).await;
    // As the migration says.
    let forget = "DELETE FROM audit_filters; DELETE FROM audit_standing; DELETE FROM audit_pending; \
        UPDATE audit_indexed SET sequence = 0";
    trail.sql(forget).await.expect("forgets");
    assert_eq!(found(&trail.reader).await, expected, "without any of it");
    let again = "UPDATE audit_indexed SET sequence = (SELECT MAX(sequence) FROM audit_entries)";
    trail.sql(again).await.expect("makes it again");
    assert_eq!(found(&trail.reader).await, expected);
    let all_are_there = "CREATE TABLE counted (rows INTEGER CHECK (rows = 21)); \
        INSERT INTO counted SELECT COUNT(*) FROM audit_filters";
    trail.sql(all_are_there).await.expect("all are there");
}

/// Whoever made them again, or an older version, left nothing of them; the writer catches up as it writes.
#[tokio::test]
async fn the_writer_adds_batches_by_itself() {
    let trail = Trail::open().await;
    let added = async || {
        let options = SqliteConnectOptions::new().filename(&trail.path);
        let mut connection = SqliteConnection::connect_with(&options)
            .await
            .expect("connects");
        let added: i64 = sqlx::query_scalar("SELECT sequence FROM audit_indexed")
            .fetch_one(&mut connection)
            .await
            .expect("reads");
        connection.close().await.expect("closes");
        added
    };
    trail.deny_many(300).await;
    assert_eq!(added().await, 0);
    trail.deny_many(700).await;
    let behind = async || 1000 - added().await;
    assert!(behind().await < 512 + 256, "{}", behind().await);
    let team = Filter {
        subject: Some("team-1".into()),
        ..Filter::default()
    };
    for order in [Order::Ascending, Order::Descending] {
        // Twice the numbers up to 300, and then to 700.
        let events = trail.page_by_page(&team, order, 50).await;
        assert_eq!(events.len(), 333);
        let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
        let ascending = ids.is_sorted();
        assert_eq!(ascending, order == Order::Ascending);
    }
}

#[tokio::test]
async fn a_strange_row_in_it_keeps_nobody_from_writing() {
    let trail = Trail::open_with_batches(3).await;
    let strange = "INSERT INTO audit_filters VALUES (3, 'x', 'x', 1, 'x', 'share'); \
        INSERT INTO audit_pending VALUES (5), (700)";
    trail.sql(strange).await.expect("is written");
    for number in 0..10 {
        trail.share(number).await;
    }
    let events = trail
        .page_by_page(&Filter::default(), Order::Ascending, 4)
        .await;
    assert_eq!(events.len(), 10);
    let pending = trail.reader.pending().await.expect("reads");
    assert!(pending.is_empty(), "{pending:?}");
}
