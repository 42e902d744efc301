//! A share that timed out and lands after an unshare that was accepted is found and undone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Gateway, Reply, Scripted};

/// Longer than the minute after which the gateway looks.
const PATIENCE: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "a limit for failures, not a wait"
)]
async fn a_share_that_lands_after_an_accepted_unshare_is_taken_back_by_an_event_of_its_own() {
    let turn = AtomicUsize::new(0);
    let upstream = Scripted::start(move |call| {
        let shares = call.changes() && !call.accounts("AddAccounts").is_empty();
        let first_two = shares && turn.fetch_add(1, Ordering::Relaxed) < 2;
        if first_two {
            Reply::LandsLate
        } else {
            Reply::Done
        }
    })
    .await;
    let settings = [("upstream.timeout", "300ms"), ("upstream.max_retries", "0")];
    let gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    let sharer = gateway.sharer();
    // Two shares are lost; one of the accounts is shared again after it was unshared, and must keep it.
    for account in [1, 2] {
        sharer
            .put(&format!("/images/img/shares/{account}"))
            .await
            .assert_problem(504, "upstream-timeout");
        assert_eq!(
            sharer
                .delete(&format!("/images/img/shares/{account}"))
                .await
                .status,
            204
        );
    }
    assert_eq!(sharer.put("/images/img/shares/2").await.status, 200);
    upstream.land(2);
    crate::support::eventually("both land", async || {
        (upstream.list("img") == [1, 2]).then_some(())
    })
    .await;
    let begun = Instant::now();
    while upstream.list("img") != [2] {
        assert!(begun.elapsed() < PATIENCE, "the share still stands");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let event = crate::support::eventually("the trail tells it", async || {
        let events = gateway.events().await;
        let last = events.last().unwrap().clone();
        (last["subject"] == "system:reconcile" && last["outcome"] != "pending").then_some(last)
    })
    .await;
    assert_eq!(
        (event["operation"].as_str(), event["account_id"].as_u64()),
        (Some("unshare"), Some(1))
    );
    assert_eq!(event["outcome"], "succeeded");
    assert_eq!(event["upstream_calls"], 1);
    for of_callers in [
        "issuer",
        "token_id",
        "client_ip",
        "user_agent",
        "request_id",
        "trace_id",
        "http_status",
        "reason",
    ] {
        assert_eq!(event[of_callers], Value::Null, "{of_callers}");
    }
    assert_eq!(
        gateway.events().await.len(),
        6,
        "nothing is written of what need not be undone"
    );
    assert!(
        begun.elapsed() > Duration::from_secs(30),
        "it looks when the time is over"
    );
    let report = image_share_gateway::audit::verify(&gateway.database(), &[])
        .await
        .unwrap();
    assert!(
        matches!(report, image_share_gateway::audit::Report::Intact(_)),
        "{report:?}"
    );
}
