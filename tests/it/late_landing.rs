//! A share that timed out and lands after an unshare that was accepted is found and undone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Gateway, Reply, Scripted};

/// Longer than the minute after which the gateway looks.
const PATIENCE: Duration = Duration::from_mins(3);

/// An upstream that loses the first shares and lets them land when it is told to.
async fn losing_first(count: usize) -> Scripted {
    let turn = AtomicUsize::new(0);
    Scripted::start(move |call| {
        let shares = call.changes() && !call.accounts("AddAccounts").is_empty();
        let lost = shares && turn.fetch_add(1, Ordering::Relaxed) < count;
        if lost { Reply::LandsLate } else { Reply::Done }
    })
    .await
}

const SETTINGS: [(&str, &str); 2] = [("upstream.timeout", "300ms"), ("upstream.max_retries", "0")];

/// The share is lost, and the unshare after it is accepted.
async fn share_and_take_back(gateway: &Gateway, account: u64) {
    let path = format!("/images/img/shares/{account}");
    let sharer = gateway.sharer();
    let lost = sharer.put(&path).await;
    lost.assert_problem(504, "upstream-timeout");
    assert_eq!(sharer.delete(&path).await.status, 204);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a limit for failures, not a wait"
)]
async fn until_the_list_is(upstream: &Scripted, accounts: &[u64]) -> Duration {
    let begun = Instant::now();
    while upstream.list("img") != accounts {
        assert!(
            begun.elapsed() < PATIENCE,
            "{:?} still",
            upstream.list("img")
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    begun.elapsed()
}

/// The event by which the gateway took a share back, once it has ended.
async fn reconciled(gateway: &Gateway) -> Value {
    crate::support::eventually("the trail tells it", async || {
        let events = gateway.events().await;
        let last = events.last().unwrap().clone();
        (last["subject"] == "system:reconcile" && last["outcome"] != "pending").then_some(last)
    })
    .await
}

/// Both wait for their minute at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_lands_after_an_accepted_unshare_is_taken_back_by_an_event_of_its_own() {
    tokio::join!(
        in_one_run(),
        over_a_restart(),
        after_a_retry_and_over_a_restart(),
        stopped_while_it_is_taken_back()
    );
}

async fn over_a_restart() {
    let upstream = losing_first(1).await;
    let gateway = Gateway::in_front_of(&upstream.url, &SETTINGS).await;
    share_and_take_back(&gateway, 1).await;
    let gateway = gateway.restarted(&upstream.url, &SETTINGS).await;
    upstream.land(1);
    until_the_list_is(&upstream, &[1]).await;
    until_the_list_is(&upstream, &[]).await;
    let event = reconciled(&gateway).await;
    assert_eq!(event["account_id"], 1);
    assert_eq!(event["outcome"], "succeeded");
}

/// A stop that cannot wait writes down where the take-back stands.
async fn stopped_while_it_is_taken_back() {
    let (shares, unshares) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let upstream = Scripted::start(move |call| {
        let first = |count: &AtomicUsize| count.fetch_add(1, Ordering::Relaxed) == 0;
        match call.change().chars().next() {
            Some('+') if first(&shares) => Reply::LandsLate,
            Some('-') if !first(&unshares) => Reply::Hang,
            _ => Reply::Done,
        }
    })
    .await;
    let settings = [
        SETTINGS[1],
        ("upstream.timeout", "5s"),
        ("server.shutdown_timeout", "1s"),
    ];
    let mut gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    share_and_take_back(&gateway, 1).await;
    upstream.land(1);
    until_the_list_is(&upstream, &[1]).await;
    let begun = std::time::Duration::from_secs(90);
    let taken_back = async {
        while upstream.changes() != ["+1", "-1", "-1"] {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(begun, taken_back).await.unwrap();
    assert!(!gateway.stop().await, "it could not wait");
    let output = crate::support::binary()
        .args([
            "audit",
            "export",
            "--subject",
            "system:reconcile",
            "--database-url",
        ])
        .arg(format!("sqlite://{}", gateway.database().display()))
        .output()
        .unwrap();
    let event: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(event["outcome"], "unknown", "{event}");
}

/// The share is answered 200 by its second attempt; the first lands later.
async fn after_a_retry_and_over_a_restart() {
    let upstream = losing_first(1).await;
    let settings = [("upstream.timeout", "300ms"), ("upstream.max_retries", "1")];
    let gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    let sharer = gateway.sharer();
    assert_eq!(sharer.put("/images/img/shares/1").await.status, 200);
    assert_eq!(sharer.delete("/images/img/shares/1").await.status, 204);
    let gateway = gateway.restarted(&upstream.url, &settings).await;
    upstream.land(1);
    until_the_list_is(&upstream, &[1]).await;
    until_the_list_is(&upstream, &[]).await;
    assert_eq!(reconciled(&gateway).await["account_id"], 1);
}

async fn in_one_run() {
    let upstream = losing_first(2).await;
    let gateway = Gateway::in_front_of(&upstream.url, &SETTINGS).await;
    // Two shares are lost; one of the accounts is shared again after it was unshared, and must keep it.
    for account in [1, 2] {
        share_and_take_back(&gateway, account).await;
    }
    assert_eq!(
        gateway.sharer().put("/images/img/shares/2").await.status,
        200
    );
    upstream.land(2);
    until_the_list_is(&upstream, &[1, 2]).await;
    let took = until_the_list_is(&upstream, &[2]).await;
    let event = reconciled(&gateway).await;
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
        took > Duration::from_secs(30),
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
