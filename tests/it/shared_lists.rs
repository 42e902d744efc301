//! Lists of one image that are asked for at the same time share a call that begins after each of them was asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use crate::support::{Answer, Call, Gateway, Reply, Scripted, eventually, refusal, token};

const LIST: &str = "/images/img/shares";

/// Holds the first list; the others are answered as `others` says.
async fn held_first(others: Reply) -> Scripted {
    let lists = AtomicUsize::new(0);
    Scripted::start(move |call: &Call| {
        if call.changes() {
            return Reply::Done;
        }
        match lists.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::Held,
            _ => others.clone(),
        }
    })
    .await
}

fn lists_of(upstream: &Scripted) -> usize {
    let calls = upstream.calls();
    calls.iter().filter(|call| !call.changes()).count()
}

/// Waits until so many requests are being answered.
async fn until_in_flight(gateway: &Gateway, count: usize) {
    // The one that asks for the metrics is another.
    let line = format!("isg_http_requests_in_flight {}", count + 1);
    eventually("requests are in flight", async || {
        let metrics = gateway.metrics().await;
        let found = metrics.lines().any(|found| found == line);
        found.then_some(())
    })
    .await;
}

/// Thirty lists of one image, each of a subject of its own, while the first call is held. The first caller is alone with that call: the
/// others ask once it has begun.
async fn thirty(gateway: &Gateway, upstream: &Scripted) -> Vec<Answer> {
    let callers = (0..30).map(|number| async move {
        if number > 0 {
            upstream.wait_for_calls(1).await;
        }
        let caller = gateway.with(token(&format!("team-{number}"), "shares:read"));
        caller.get(LIST).await
    });
    let release = async {
        until_in_flight(gateway, 30).await;
        upstream.release(1);
    };
    tokio::join!(join_all(callers), release).0
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_callers_at_once_cost_three_calls_at_the_most() {
    let upstream = held_first(Reply::Done).await;
    upstream.share("img", &[3, 1, 2]);
    let gateway = Gateway::with_upstream(&upstream).await;
    for answer in thirty(&gateway, &upstream).await {
        assert_eq!(answer.status, 200);
        let accounts = answer.json()["accounts"].clone();
        let accounts = accounts.as_array().expect("a list").iter();
        let ids: Vec<_> = accounts
            .map(|account| account["account_id"].as_u64())
            .collect();
        assert_eq!(ids, [Some(1), Some(2), Some(3)]);
    }
    assert!(lists_of(&upstream) <= 3, "{} calls", lists_of(&upstream));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shares_a_call_shares_its_failure() {
    let missing = refusal(230, "Params [CompShareImageId] not available");
    let upstream = held_first(missing).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let answers = thirty(&gateway, &upstream).await;
    let of = |status: u16| {
        answers
            .iter()
            .filter(|answer| answer.status == status)
            .count()
    };
    assert_eq!((of(200), of(404)), (1, 29));
    assert!(lists_of(&upstream) <= 3, "{} calls", lists_of(&upstream));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_by_a_call_that_began_before_the_question() {
    let first = AtomicUsize::new(0);
    let upstream = Scripted::start(move |call: &Call| {
        let hangs = !call.changes() && first.fetch_add(1, Ordering::Relaxed) == 0;
        if hangs { Reply::Hang } else { Reply::Done }
    })
    .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let impatient = async {
        let request = gateway.sharer().request("GET", LIST);
        Answer::of(request.header("Prefer", "wait=2")).await
    };
    let after_a_change = async {
        upstream.wait_for_calls(1).await;
        assert_eq!(
            gateway.sharer().put("/images/img/shares/7").await.status,
            200
        );
        gateway.sharer().get("/images/img/shares/7").await
    };
    let (impatient, after) = tokio::join!(impatient, after_a_change);
    impatient.assert_problem(504, "upstream-timeout");
    assert_eq!(
        after.status, 200,
        "it shows what was written before it was asked"
    );
    assert_eq!(lists_of(&upstream), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shared_the_call_of_one_who_left_is_answered_by_another() {
    // The second list, which is for two, never comes.
    let lists = AtomicUsize::new(0);
    let upstream = Scripted::start(move |call: &Call| {
        if call.changes() {
            return Reply::Done;
        }
        match lists.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::Held,
            1 => Reply::Hang,
            _ => Reply::Done,
        }
    })
    .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let get = async |wait: &str| {
        let request = gateway.sharer().request("GET", LIST);
        Answer::of(request.header("Prefer", wait)).await
    };
    let first = get("wait=20");
    let (impatient, patient) = (get("wait=3"), get("wait=25"));
    let release = async {
        until_in_flight(&gateway, 3).await;
        upstream.release(1);
    };
    let (first, impatient, patient, ()) = tokio::join!(first, impatient, patient, release);
    // Which of the three is first is for the network to say; one of them hung and none waits for ever.
    let statuses = [first.status, impatient.status, patient.status];
    assert!(
        statuses.iter().filter(|status| **status == 200).count() >= 2,
        "{statuses:?}"
    );
    assert!(lists_of(&upstream) <= 4);
}
