//! An upstream that is down: who is asked how often, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{Gateway, Reply, Scripted, eventually};

async fn breaker(gateway: &Gateway) -> String {
    let ready = gateway.readiness().await;
    assert_eq!(
        ready.status, 200,
        "an upstream that is down makes no gateway unready"
    );
    let checks = ready.json()["checks"].as_array().unwrap().clone();
    let upstream = checks
        .into_iter()
        .find(|check| check["name"] == "upstream")
        .unwrap();
    upstream["detail"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_asked_once_a_pause_and_the_first_success_closes_the_breaker() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let upstream = Scripted::start(move |_| {
        if is_down.load(Ordering::Relaxed) {
            Reply::Status(503)
        } else {
            Reply::Done
        }
    })
    .await;
    let settings = [
        ("upstream.max_retries", "0"),
        ("server.admin_bind", "127.0.0.1:0"),
    ];
    let gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    let sharer = gateway.sharer();
    assert_eq!(breaker(&gateway).await, "circuit breaker: closed");
    let put = async |image: usize| sharer.put(&format!("/images/img-{image}/shares/1")).await;
    // Sixty callers over sixty images for as long as a few pauses.
    let mut refused = 0;
    let before = std::sync::Mutex::new(None);
    #[expect(clippy::disallowed_methods, reason = "what is promised is a rate")]
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        for answer in join_all((0..60).map(put)).await {
            if answer.status == 503 {
                let problem = answer.assert_problem(503, "upstream-unavailable");
                assert_eq!(
                    (problem["effect"].as_str(), problem["retryable"].as_bool()),
                    (Some("none"), Some(true))
                );
                let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=2).contains(&wait), "{wait}");
                refused += 1;
                let changes = upstream.changes().len();
                before
                    .lock()
                    .unwrap()
                    .get_or_insert((changes, begun.elapsed()));
            } else {
                answer.assert_problem(502, "upstream-error");
            }
        }
    }
    assert!(refused > 100, "{refused} were refused at once");
    let (changes, since) = before.lock().unwrap().unwrap();
    let pauses = (begun.elapsed().saturating_sub(since).as_secs_f64() / 2.0).ceil();
    // Calls that were in flight as it opened are no probes.
    let probes = upstream.changes().len() - changes;
    assert!(
        f64::from(u32::try_from(probes).unwrap()) <= pauses + 1.0,
        "{probes} calls in {pauses} pauses"
    );
    let state = breaker(&gateway).await;
    assert!(state != "circuit breaker: closed", "{state}");
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("isg_upstream_breaker_open 1"), "{metrics}");
    assert!(
        metrics.contains("isg_sharing_waiting_changes 0"),
        "{metrics}"
    );

    down.store(false, Ordering::Relaxed);
    eventually("the breaker closes", async || {
        (put(1).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(breaker(&gateway).await, "circuit breaker: closed");
    let answers = join_all((0..60).map(put)).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_refused_with_the_rest_and_one_of_them_may_be_the_probe() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let upstream = Scripted::start(move |_| {
        if is_down.load(Ordering::Relaxed) {
            Reply::Close
        } else {
            Reply::Done
        }
    })
    .await;
    let gateway = Gateway::in_front_of(&upstream.url, &[("upstream.max_retries", "0")]).await;
    let sharer = gateway.sharer();
    eventually("the breaker opens", async || {
        (sharer.get("/images/img/shares").await.status == 503).then_some(())
    })
    .await;
    let calls = upstream.calls().len();
    let answer = sharer.get("/images").await;
    answer.assert_problem(503, "upstream-unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(upstream.calls().len(), calls);
    let problem = sharer
        .put("/images/img/shares/1?dry_run=true")
        .await
        .assert_problem(503, "upstream-unavailable");
    assert_eq!(problem["effect"], "none");
    down.store(false, Ordering::Relaxed);
    eventually("a read closes it", async || {
        (sharer.get("/images/img/shares").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(sharer.put("/images/img/shares/1").await.status, 200);
}
