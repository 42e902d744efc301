//! The feed: every row once, in chain order, with hashes that join.

use super::*;

async fn read_all(feed: &mut Feed) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let page = feed.next().await.expect("reads");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn assert_joined(entries: &[Entry]) {
    let mut before = "0".repeat(64);
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry.sequence, i64::try_from(index).expect("few") + 1);
        assert_eq!(entry.previous_hash, before, "row {}", entry.sequence);
        before.clone_from(&entry.hash);
    }
}

#[tokio::test]
async fn a_feed_gives_every_row_and_goes_on_behind_any() {
    let trail = Trail::open().await;
    for number in 0..20 {
        trail.share(number).await;
    }
    let denied = trail.writer.enqueue_denial(denial(21)).expect("room");
    denied.await.expect("durable");
    let mut feed = trail.reader.feed(FeedStart::Oldest).await.expect("begins");
    let all = read_all(&mut feed).await;
    assert_eq!(all.len(), 41);
    assert_joined(&all);
    let shown = serde_json::to_value(&all[40]).expect("serializes");
    assert_eq!(
        (&shown["kind"], &shown["policy_ids"], &shown["account_id"]),
        (&"denial".into(), &serde_json::json!(["p1"]), &1.into())
    );
    for (index, entry) in all.iter().enumerate() {
        let cursor: EntryCursor = entry.cursor.parse().expect("a cursor");
        let mut feed = trail
            .reader
            .feed(FeedStart::Behind(cursor.clone()))
            .await
            .expect("begins");
        let rest = read_all(&mut feed).await;
        let expected: Vec<&str> = all[index + 1..]
            .iter()
            .map(|row| row.hash.as_str())
            .collect();
        let found: Vec<&str> = rest.iter().map(|row| row.hash.as_str()).collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn a_feed_can_begin_with_the_last_rows_or_behind_them() {
    let trail = Trail::open().await;
    let of_nothing = trail.reader.feed(FeedStart::Last(0)).await;
    let mut of_nothing = of_nothing.expect("begins");
    assert!(read_all(&mut of_nothing).await.is_empty());
    for number in 0..3 {
        trail.share(number).await;
    }
    for (asked, given) in [(0, 0), (1, 1), (5, 5), (6, 6), (7, 6), (usize::MAX, 6)] {
        let feed = trail.reader.feed(FeedStart::Last(asked)).await;
        let rows = read_all(&mut feed.expect("begins")).await;
        assert_eq!(rows.len(), given, "{asked}");
        assert!(rows.last().is_none_or(|row| row.sequence == 6));
    }
    assert_joined(&read_all(&mut of_nothing).await);
}

/// Of a trail that lost a row: no more than was asked for.
#[tokio::test]
async fn the_last_rows_are_no_more_where_one_is_missing() {
    let trail = Trail::open().await;
    for number in 0..3 {
        trail.share(number).await;
    }
    for statement in [
        "DROP TRIGGER audit_entries_no_delete",
        "DELETE FROM audit_entries WHERE sequence = 3",
    ] {
        trail.sql(statement).await.expect("runs");
    }
    for (asked, first) in [(2, 5), (3, 4), (4, 4), (5, 2)] {
        let feed = trail.reader.feed(FeedStart::Last(asked)).await;
        let rows = read_all(&mut feed.expect("begins")).await;
        assert_eq!(rows.first().map(|row| row.sequence), Some(first), "{asked}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_trail_is_refused() {
    let (one, other) = (Trail::open().await, Trail::open().await);
    for trail in [&one, &other] {
        trail.share(1).await;
    }
    let mut feed = one.reader.feed(FeedStart::Oldest).await.expect("begins");
    let rows = feed.next().await.expect("reads");
    let cursor: EntryCursor = rows[1].cursor.parse().expect("a cursor");
    assert!(
        one.reader
            .feed(FeedStart::Behind(cursor.clone()))
            .await
            .is_ok()
    );
    let refused = other.reader.feed(FeedStart::Behind(cursor.clone())).await;
    assert!(matches!(refused, Err(FeedError::Cursor(_))), "{refused:?}");
    one.share(2).await;
    let mut feed = one
        .reader
        .feed(FeedStart::Behind(cursor.clone()))
        .await
        .expect("begins");
    let beyond: EntryCursor = feed.next().await.expect("reads")[1]
        .cursor
        .parse()
        .expect("a cursor");
    let refused = other.reader.feed(FeedStart::Behind(beyond)).await;
    assert!(matches!(refused, Err(FeedError::Cursor(_))), "{refused:?}");
}

#[tokio::test]
async fn a_follower_sees_rows_as_they_are_written_also_thousands_in_a_millisecond() {
    let trail = Trail::open().await;
    let mut feed = trail.reader.feed(FeedStart::Oldest).await.expect("begins");
    let following = async {
        let mut all: Vec<Entry> = Vec::new();
        while all.len() < 5000 {
            assert!(feed.wait().await, "the writer is there");
            all.extend(read_all(&mut feed).await);
        }
        all
    };
    let writing = trail.deny_many(5000);
    let (all, ()) = futures_util::join!(following, writing);
    assert_eq!(all.len(), 5000);
    assert_joined(&all);
    let mut times: Vec<&str> = all.iter().map(|entry| &entry.recorded_at[..23]).collect();
    times.dedup();
    assert!(times.len() < 2500, "many rows share a millisecond");
    let ids: Vec<&str> = all.iter().map(|entry| entry.event_id.as_str()).collect();
    assert!(ids.is_sorted(), "ids grow in chain order all the same");
}

#[tokio::test]
async fn a_follower_ends_with_the_writer() {
    let trail = Trail::open().await;
    let mut feed = trail.reader.feed(FeedStart::Oldest).await.expect("begins");
    let reader = trail.reader.clone();
    let (_directory, _, _) = trail.close().await;
    assert!(!feed.wait().await);
    drop(reader);
}

#[tokio::test]
async fn a_row_that_the_gateway_never_writes_ends_the_feed_with_an_error() {
    let trail = Trail::open().await;
    trail.share(1).await;
    let damage = "DROP TRIGGER audit_entries_no_update; \
        UPDATE audit_entries SET detail = CAST(x'ff' AS TEXT) WHERE sequence = 2";
    trail.sql(damage).await.expect("damages");
    let mut feed = trail.reader.feed(FeedStart::Oldest).await.expect("begins");
    assert_eq!(feed.next().await.expect("what stands before").len(), 1);
    let read = feed.next().await;
    assert!(
        matches!(
            read,
            Err(StoreError::Row {
                sequence: 2,
                column: "detail"
            })
        ),
        "{read:?}"
    );
}

#[tokio::test]
async fn a_follower_of_a_trail_that_was_cut_waits_for_the_next_commit() {
    let trail = Trail::open().await;
    trail.share(1).await;
    let cut = "DROP TRIGGER audit_entries_no_delete; DELETE FROM audit_entries WHERE sequence = 2";
    trail.sql(cut).await.expect("cuts");
    let mut feed = trail.reader.feed(FeedStart::Oldest).await.expect("begins");
    assert_eq!(read_all(&mut feed).await.len(), 1);
    // The writer has told of a second row, which is not there: waiting for it must not be reading for ever.
    let mut waiting = std::pin::pin!(feed.wait());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    trail.intend(intent(2)).await;
    assert!(waiting.await);
}
