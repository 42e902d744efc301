//! A feed over the starts of years.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Replica, Trail, servers};

/// Starts that ended, of two rows each, with one in five that wrote nothing.
const STARTS: i64 = 400;
const MAKE_STARTS: &str = "\
    INSERT INTO audit_chains (chain_id, head_sequence, head_hash, ended_at, last_event) \
    SELECT overlay(replace(audit_id_at(at)::text, '-', '') placing '7' from 13), CASE WHEN n % 5 = 0 THEN 0 ELSE 2 END, \
        CASE WHEN n % 5 = 0 THEN repeat('0', 64) ELSE repeat('a', 64) END, clock_timestamp() - interval '1 hour', audit_id_at(at) \
    FROM (SELECT n, clock_timestamp() - interval '1 hour' + n * interval '1 second' AS at FROM generate_series(1, 400) AS n) AS s;
    INSERT INTO audit_entries (version, chain_id, sequence, kind, event_id, recorded_at, subject, operation, image_id, account_id, \
        region, outcome, hash) \
    SELECT 1, c.chain_id, k.sequence, k.kind, c.last_event, (extract(epoch FROM audit_id_time(c.last_event)) * 1e6)::bigint + k.sequence, \
        's', 'share', 'img', 7, 'r', k.outcome, repeat('a', 64) \
    FROM audit_chains AS c, (VALUES (1, 'intent', NULL), (2, 'outcome', 'succeeded')) AS k (sequence, kind, outcome) \
    WHERE c.ended_at IS NOT NULL AND c.head_sequence > 0;";

type Place = (String, i64);

fn places(text: &str) -> Vec<(Place, String)> {
    let place = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let chain = row["chain_id"].as_str().unwrap().to_owned();
        let cursor = row["cursor"].as_str().unwrap().to_owned();
        ((chain, row["sequence"].as_i64().unwrap()), cursor)
    };
    text.lines().map(place).collect()
}

async fn rest(replica: &Replica, query: &str) -> Vec<(Place, String)> {
    let text = replica.text(&format!("/audit/entries{query}")).await;
    places(&text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_feed_over_many_starts_gives_each_row_once_and_its_cursors_stay_short() {
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres);
    // One that lives on, one that never writes, and those that came and went after both.
    let one = trail.start("one").await;
    for account in 1..=3 {
        let path = format!("/images/img-1/shares/{account}");
        assert_eq!(one.send("PUT", &path).await, 200);
    }
    let _idle = trail.start("idle").await;
    postgres.sql(MAKE_STARTS);
    let two = trail.start("two").await;
    for account in 4..=6 {
        let path = format!("/images/img-1/shares/{account}");
        assert_eq!(one.send("PUT", &path).await, 200);
        assert_eq!(two.send("DELETE", &path).await, 204);
    }
    let expected = usize::try_from(STARTS * 4 / 5 * 2).unwrap() + 3 * 2 + 3 * 4;
    let rows = rest(&one, "").await;
    let all: BTreeSet<&Place> = rows.iter().map(|(place, _)| place).collect();
    assert_eq!((rows.len(), all.len()), (expected, expected));
    let longest = rows.iter().map(|(_, cursor)| cursor.len()).max().unwrap();
    assert!(longest <= 150, "{longest}: {rows:?}");
    for cut in [1, 2, 5, 300, 301, 640, expected - 13, expected - 1] {
        let after = rest(&two, &format!("?after={}", rows[cut - 1].1)).await;
        let given: BTreeSet<&Place> = rows[..cut].iter().map(|(place, _)| place).collect();
        let after: BTreeSet<&Place> = after.iter().map(|(place, _)| place).collect();
        assert_eq!(given.len() + after.len(), expected, "{cut}");
        assert!(given.is_disjoint(&after), "{cut}");
    }
    let last = rest(&two, "?tail=20").await;
    assert_eq!(last.len(), 20);
    let cursor = &last[19].1;
    assert!(cursor.len() <= 150, "{cursor}");
    assert_eq!(two.send("PUT", "/images/img-1/shares/9").await, 200);
    assert_eq!(rest(&one, &format!("?after={cursor}")).await.len(), 2);
}
