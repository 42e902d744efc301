//! Pages upwards, over chains that others write: all of what is there, or a failure.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::Value;

use super::{Replica, Sleeper, Trail, servers};
use crate::support::{client, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_page_upwards_that_cannot_be_whole_is_refused() {
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres);
    let (one, two) = (trail.start("one").await, trail.start("two").await);
    for account in 1..=3 {
        let path = format!("/images/img-1/shares/{account}");
        assert_eq!(one.send("PUT", &path).await, 200);
    }
    let first = "SELECT 1 FROM audit_chains WHERE number = (SELECT MIN(number) FROM audit_chains)";
    let sleeper = Sleeper::over(&postgres, first).await;
    for account in 1..=5 {
        let path = format!("/images/img-2/shares/{account}");
        assert_eq!(two.send("PUT", &path).await, 200);
    }
    let request = client().get(format!("{}/audit/events?order=asc", two.url));
    let answer = request.bearer_auth(token("team-a", "audit:read"));
    let answer = answer.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("audit-unavailable"), "{text}");
    sleeper.wake(&postgres);
    assert_eq!(two.ended_events().await.len(), 8);
}

/// Ids of all events, oldest first.
async fn ids(replica: &Replica) -> Vec<String> {
    let page = replica.get("/audit/events?order=asc&limit=1000").await;
    let events = page["events"].as_array();
    let events = events.unwrap_or_else(|| panic!("{page}"));
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    events.iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_reads_upwards_while_two_write_misses_nothing_and_holds_nobody_up() {
    const CALLERS: usize = 8;
    const CHANGES: usize = 30;
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres).with("ISG__LIMITS__REQUESTS_PER_SECOND", "0");
    let (one, two) = tokio::join!(trail.start("one"), trail.start("two"));
    let (answered, all) = (AtomicUsize::new(0), 2 * CALLERS * CHANGES);
    let callers = (0..2 * CALLERS).map(|caller| {
        let (replica, answered) = (if caller % 2 == 0 { &one } else { &two }, &answered);
        async move {
            for account in 1..=CHANGES {
                let path = format!("/images/img-{caller}/shares/{account}");
                assert_eq!(replica.send("PUT", &path).await, 200);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let readers = (0..6).map(|reader| {
        let (replica, answered) = (if reader % 2 == 0 { &one } else { &two }, &answered);
        async move {
            let mut before: Vec<String> = Vec::new();
            while before.len() < all {
                let known = answered.load(Ordering::SeqCst);
                let ids = ids(replica).await;
                assert!(ids.len() >= known, "what was answered is there");
                assert!(
                    ids.is_sorted() && ids.starts_with(&before),
                    "nothing comes later below"
                );
                before = ids;
            }
        }
    });
    tokio::join!(join_all(callers), join_all(readers));
    for replica in [&one, &two] {
        let opened = replica.program.log().matches("is open").count();
        assert_eq!(opened, 1, "no session was lost: {}", replica.program.log());
    }
}
