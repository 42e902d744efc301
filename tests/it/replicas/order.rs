//! One order of changes, one trail, one feed, wherever changes come in.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Trail, judge, servers, verified};
use crate::support::{binary, client, eventually, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_of_one_image_are_in_one_order_wherever_they_come_in() {
    const CHANGES: u64 = 60;
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres);
    let (one, two) = tokio::join!(trail.start("one"), trail.start("two"));
    let callers = (0..8_u64).map(|caller| {
        let replica = if caller % 2 == 0 { &one } else { &two };
        async move {
            for number in 0..CHANGES {
                let seed = caller * CHANGES + number;
                // Few images and accounts, so that callers meet.
                let (image, account) = (seed * 7 % 3, seed * 13 % 4 + 1);
                let method = if (seed * 31 / 5).is_multiple_of(2) {
                    "PUT"
                } else {
                    "DELETE"
                };
                let path = format!("/images/img-{image}/shares/{account}");
                let status = replica.send(method, &path).await;
                assert!(matches!(status, 200 | 204), "{method} {path}: {status}");
            }
        }
    });
    futures_util::future::join_all(callers).await;
    let events = one.ended_events().await;
    assert_eq!(events.len() as u64, 8 * CHANGES);
    assert!(events.iter().all(|event| event["outcome"] == "succeeded"));
    judge(&events, &upstream);
    assert_eq!(two.events().await, events, "both show the same");
    let newest_first = two.get("/audit/events?limit=1000").await;
    let mut newest: Vec<Value> = newest_first["events"].as_array().unwrap().clone();
    newest.reverse();
    assert_eq!(newest, events);
    let heads = verified(&trail.database);
    assert_eq!(heads.len(), 2, "a chain each: {heads:?}");
    // Who was first in line for each image made its calls, and others came in between.
    let calls = upstream.calls();
    let keys: BTreeSet<&str> = calls
        .iter()
        .filter(|call| call.changes())
        .map(|call| call.fields["PublicKey"].as_str())
        .collect();
    assert_eq!(keys, BTreeSet::from(["one", "two"]));
    let summary = one.get("/audit/summary").await;
    assert_eq!(
        summary["buckets"].as_array().unwrap().last().unwrap()["counts"]["succeeded"],
        480
    );
    let exported = binary()
        .args([
            "audit",
            "export",
            "--order",
            "asc",
            "--database-url",
            &trail.database,
        ])
        .output()
        .unwrap();
    assert!(exported.status.success(), "{exported:?}");
    let exported = String::from_utf8(exported.stdout).unwrap();
    assert_eq!(exported.lines().count(), 480);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_feed_gives_the_rows_of_all_chains_once_and_its_cursors_hold_at_every_gateway() {
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres);
    let (one, two) = tokio::join!(trail.start("one"), trail.start("two"));
    let bearer = token("team-a", "audit:read");
    let follow = client()
        .get(format!("{}/audit/entries?follow=true", one.url))
        .bearer_auth(&bearer);
    let mut following = follow.send().await.unwrap();
    for number in 1..=20_u64 {
        let replica = if number % 2 == 0 { &one } else { &two };
        let path = format!("/images/img-{}/shares/{number}", number % 3);
        assert_eq!(replica.send("PUT", &path).await, 200);
    }
    let mut text = String::new();
    while text.matches('\n').count() < 40 {
        let chunk = following.chunk().await.unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let place = |row: &Value| {
        let chain = row["chain_id"].as_str().unwrap().to_owned();
        (chain, row["sequence"].as_i64().unwrap())
    };
    let places: BTreeSet<(String, i64)> = rows.iter().map(place).collect();
    assert_eq!(places.len(), 40, "each row once");
    // Each row follows the one before it in its chain.
    let mut last = std::collections::BTreeMap::new();
    for row in &rows {
        let (chain, sequence) = place(row);
        let zeros = "0".repeat(64);
        let (number, hash) = last.get(&chain).cloned().unwrap_or((0, zeros));
        assert_eq!(
            (
                row["sequence"].as_i64().unwrap(),
                row["previous_hash"].as_str().unwrap()
            ),
            (number + 1, hash.as_str())
        );
        last.insert(chain, (sequence, row["hash"].as_str().unwrap().to_owned()));
    }
    // Cut off anywhere, it goes on at the other gateway.
    for cut in [1, 7, 20, 39] {
        let cursor = rows[cut - 1]["cursor"].as_str().unwrap();
        let text = two.text(&format!("/audit/entries?after={cursor}")).await;
        let rest: BTreeSet<(String, i64)> = text
            .lines()
            .map(|line| place(&serde_json::from_str(line).unwrap()))
            .collect();
        let given: BTreeSet<(String, i64)> = rows[..cut].iter().map(place).collect();
        assert_eq!(rest.len() + given.len(), 40, "{cut}");
        assert!(rest.is_disjoint(&given));
    }
    let last = two.text("/audit/entries?tail=5").await;
    assert_eq!(last.lines().count(), 5);
    // A chain more, after a start more: what was given stays given.
    let cursor = rows[39]["cursor"].as_str().unwrap().to_owned();
    drop(one);
    let three = trail.start("three").await;
    assert_eq!(three.send("PUT", "/images/img-9/shares/9").await, 200);
    let text = three.text(&format!("/audit/entries?after={cursor}")).await;
    assert_eq!(text.lines().count(), 2, "{text}");
    let nonsense = three.get("/audit/entries?after=AgABAQ").await;
    assert_eq!(nonsense["status"], 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_trail_that_was_imported_goes_on() {
    let (postgres, upstream) = servers().await;
    let file = crate::support::Gateway::with_upstream(&upstream).await;
    for account in 1..=3 {
        let path = format!("/images/img/shares/{account}");
        assert_eq!(file.sharer().put(&path).await.status, 200);
    }
    let old = file.auditor().get("/audit/entries").await;
    let rows: Vec<Value> = old
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (from, mut file) = (format!("sqlite://{}", file.database().display()), file);
    assert!(file.stop().await);
    let trail = Trail::of(&upstream, &postgres);
    let imported = binary()
        .args(["audit", "import", &from, &trail.database])
        .output()
        .unwrap();
    assert!(imported.status.success(), "{imported:?}");
    let last = "SELECT last_event = (SELECT event_id FROM audit_entries ORDER BY event_id DESC LIMIT 1) FROM audit_chains";
    assert_eq!(postgres.sql(last), "t");
    let replica = trail.start("one").await;
    assert_eq!(replica.send("DELETE", "/images/img/shares/2").await, 204);
    let events = replica.events().await;
    assert_eq!(events.len(), 4);
    assert_eq!(
        events[3]["operation"], "unshare",
        "ids go on behind those before"
    );
    let listed = replica.get("/audit/events?account_id=2").await;
    assert_eq!(listed["events"].as_array().unwrap().len(), 2);
    // Cursors of the trail before hold.
    let cursor = rows[3]["cursor"].as_str().unwrap();
    let rest = replica
        .text(&format!("/audit/entries?after={cursor}"))
        .await;
    assert_eq!(rest.lines().count(), 2 + 2, "{rest}");
    assert_eq!(verified(&trail.database).len(), 2);
    eventually("it is ready", async || {
        let ready = client().get(format!("{}/readyz", replica.url)).send().await;
        (ready.unwrap().status() == 200).then_some(())
    })
    .await;
}
