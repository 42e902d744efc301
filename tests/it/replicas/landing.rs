//! What lands late is undone by whoever has the image then, however often it goes round.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Trail, verified};
use crate::support::{Postgres, Reply, Scripted};

/// Longer than the minute after which somebody looks.
const PATIENCE: Duration = Duration::from_mins(3);

#[expect(
    clippy::disallowed_methods,
    reason = "a limit for failures, not a wait"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_share_that_lands_late_is_taken_back_though_its_image_goes_round() {
    let turn = AtomicUsize::new(0);
    let upstream = Scripted::start(move |call| {
        let shares = call.changes() && !call.accounts("AddAccounts").is_empty();
        let lost = shares && turn.fetch_add(1, Ordering::Relaxed) == 0;
        if lost { Reply::LandsLate } else { Reply::Done }
    })
    .await;
    let postgres = Postgres::start().await;
    let trail = Trail::of(&upstream, &postgres)
        .with("ISG__UPSTREAM__TIMEOUT", "300ms")
        .with("ISG__UPSTREAM__MAX_RETRIES", "0")
        .with("ISG__LIMITS__REQUESTS_PER_SECOND", "0");
    let (one, two) = tokio::join!(trail.start("one"), trail.start("two"));
    assert_eq!(one.send("PUT", "/images/img/shares/1").await, 504);
    assert_eq!(one.send("DELETE", "/images/img/shares/1").await, 204);
    upstream.land(1);
    let (begun, mut number) = (Instant::now(), 0);
    // Nobody has it for as long as a minute.
    while number == 0 || upstream.list("img").contains(&1) {
        assert!(begun.elapsed() < PATIENCE, "it stands still");
        number += 1;
        let replica = if number % 2 == 0 { &one } else { &two };
        let path = format!("/images/img/shares/{}", 2 + number % 3);
        assert_eq!(replica.send("PUT", &path).await, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        begun.elapsed() > Duration::from_secs(30),
        "nobody was in a hurry"
    );
    let events = two.ended_events().await;
    let undone: Vec<_> = events
        .iter()
        .filter(|event| event["subject"] == "system:reconcile")
        .collect();
    assert_eq!(undone.len(), 1, "{undone:?}");
    assert_eq!(
        (
            &undone[0]["operation"],
            &undone[0]["account_id"],
            &undone[0]["outcome"]
        ),
        (&"unshare".into(), &1.into(), &"succeeded".into())
    );
    let grants: u64 = postgres
        .sql("SELECT last_value FROM lane_lock_numbers")
        .parse()
        .unwrap();
    assert!(grants > number / 2, "it went round: {grants} of {number}");
    verified(&trail.database);
}
