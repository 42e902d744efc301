//! A gateway killed, or standing still for longer than its lease: what it left is closed once, and it sends nothing after another.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Trail, judge, servers, told, verified};
use crate::support::{Postgres, Reply, Scripted, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::disallowed_methods, reason = "what is promised is a time")]
async fn what_a_killed_gateway_left_is_closed_once_within_seconds() {
    let postgres = Postgres::start().await;
    let upstream = Scripted::start(|call| {
        let held = call.changes() && call.fields["PublicKey"] == "one";
        if held { Reply::Hang } else { Reply::Done }
    })
    .await;
    let trail = Trail::of(&upstream, &postgres).with("ISG__UPSTREAM__TIMEOUT", "1s");
    let (one, two, three) =
        tokio::join!(trail.start("one"), trail.start("two"), trail.start("three"));
    let asking = async {
        let asked = [
            "/images/a/shares/1",
            "/images/a/shares/2",
            "/images/b/shares/1",
        ];
        let asked = asked.map(|path| one.try_send("PUT", path));
        futures_util::future::join_all(asked).await
    };
    let killing = async {
        upstream.wait_for_calls(2).await;
        eventually("intents stand", async || {
            (two.events().await.len() == 3).then_some(())
        })
        .await;
        one.program.signal(Signal::KILL);
        Instant::now()
    };
    let (answers, killed) = tokio::join!(asking, killing);
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    let events = two.ended_events().await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    for event in &events {
        assert_eq!(event["outcome"], "unknown", "{event}");
        let detail = event["detail"].as_str().unwrap();
        assert!(detail.contains("did not list the account"), "{detail}");
    }
    let looks = upstream
        .calls()
        .iter()
        .filter(|call| call.action().starts_with("Describe"))
        .count();
    assert_eq!(looks, 2, "one look an image");
    let outcomes = postgres
        .sql("SELECT COUNT(*), COUNT(DISTINCT event_id) FROM audit_entries WHERE kind = 'outcome'");
    assert_eq!(outcomes, "3|3");
    // The images of the one that is gone are had by others, once no call of it can go on.
    let begun = Instant::now();
    assert_eq!(two.send("PUT", "/images/a/shares/3").await, 200);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(three.send("DELETE", "/images/a/shares/3").await, 204);
    judge(&two.ended_events().await, &upstream);
    let ended = postgres.sql("SELECT COUNT(*) FROM audit_chains WHERE ended_at IS NOT NULL");
    assert_eq!(ended, "1");
    verified(&trail.database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_that_stands_still_for_longer_than_its_lease_sends_nothing_after_another() {
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres).with("ISG__UPSTREAM__TIMEOUT", "1s");
    let (one, two) = tokio::join!(trail.start("one"), trail.start("two"));
    assert_eq!(one.send("PUT", "/images/img/shares/1").await, 200);
    // Callers that go on: some of their changes are on their way as it stops.
    let going_on = async {
        let callers = (0..4).map(|caller| {
            let one = &one;
            async move {
                let mut statuses = Vec::new();
                for number in 0..400 {
                    let method = if number % 2 == 0 { "PUT" } else { "DELETE" };
                    let path = format!("/images/img/shares/{}", caller + 2);
                    if let Ok(status) = one.try_send(method, &path).await {
                        statuses.push(status);
                    }
                }
                statuses
            }
        });
        futures_util::future::join_all(callers).await
    };
    let stopping = async {
        upstream.wait_for_calls(40).await;
        one.program.signal(Signal::STOP);
        // Within its lease nobody else has the image; after it, two has, and changes what one had under way.
        let mut taken = 0;
        for account in 1..=5 {
            let path = format!("/images/img/shares/{account}");
            taken += u64::from(two.send("DELETE", &path).await == 204);
        }
        let mark = upstream.calls().len();
        one.program.signal(Signal::CONT);
        (taken, mark)
    };
    let (statuses, (taken, mark)) = tokio::join!(going_on, stopping);
    assert_eq!(taken, 5);
    let answered: usize = statuses.iter().map(Vec::len).sum();
    assert!(answered > 0);
    let events = two.ended_events().await;
    judge(&events, &upstream);
    // It goes on by a chain of its own.
    assert_eq!(one.send("PUT", "/images/img/shares/9").await, 200);
    let chains = verified(&trail.database);
    assert_eq!(chains.len(), 3, "{chains:?}");
    let after = &upstream.calls()[mark..];
    assert!(
        after
            .iter()
            .any(|call| call.changes() && call.fields["PublicKey"] == "one")
    );
    let succeeded = told(&events);
    assert!(!succeeded.is_empty());
}
