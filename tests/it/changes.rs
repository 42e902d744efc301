//! A change from the caller's side: what it answers, what the trail says, what the upstream saw.

use image_share_gateway::audit::{Filter, Order};
use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Reply, Scripted};

const SHARE: &str = "/images/compshareImage-sandbox1/shares/12345";

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_shared_seen_and_taken_back() {
    let gateway = Gateway::spawn().await;
    let sharer = gateway.sharer();
    assert_eq!(
        sharer
            .get(SHARE)
            .await
            .assert_problem(404, "not-found")
            .get("effect"),
        None,
        "a read has no effect"
    );

    let put = sharer
        .put(&format!("{SHARE}?reason=OPS-17%20new%20tenant"))
        .await;
    assert_eq!(put.status, 200);
    let audit_id = put.header("audit-id").unwrap().to_owned();
    let expected = json!({"image_id": "compshareImage-sandbox1", "account_id": 12345, "region": "cn-wlcb",
        "shared": true, "audit_id": audit_id});
    assert_eq!(put.json(), expected);

    let one = sharer.get(SHARE).await;
    assert_eq!(
        (one.status, one.json()["shared"].as_bool()),
        (200, Some(true))
    );
    let list = sharer
        .get("/images/compshareImage-sandbox1/shares")
        .await
        .json();
    assert_eq!(list["accounts"][0]["account_id"], 12345);
    assert_eq!(list["accounts"][0]["account_name"], "account-12345");

    let event = gateway.only_event().await;
    assert_eq!(event["id"], audit_id);
    assert_eq!(event["subject"], "team-a");
    assert_eq!(event["outcome"], "succeeded");
    assert_eq!(event["http_status"], 200);
    assert_eq!(event["reason"], "OPS-17 new tenant");
    assert_eq!(event["client_ip"], "127.0.0.1");
    assert_eq!(event["upstream_calls"], 1);
    assert_eq!(event["upstream_ret_code"], 0);
    assert_eq!(event["upstream_request_id"].as_str().unwrap().len(), 36);
    assert_eq!(event["request_id"].as_str(), put.header("x-request-id"));

    let taken = sharer.delete(SHARE).await;
    assert_eq!((taken.status, taken.body.as_str()), (204, ""));
    assert!(taken.header("audit-id").is_some() && taken.header("x-request-id").is_some());
    sharer.get(SHARE).await.assert_problem(404, "not-found");
    let list = sharer
        .get("/images/compshareImage-sandbox1/shares")
        .await
        .json();
    assert_eq!(list["accounts"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_idempotent_and_each_has_its_event() {
    let gateway = Gateway::spawn().await;
    for _ in 0..2 {
        assert_eq!(gateway.sharer().put(SHARE).await.status, 200);
    }
    for _ in 0..2 {
        assert_eq!(gateway.sharer().delete(SHARE).await.status, 204);
    }
    let operations: Vec<String> = gateway
        .events()
        .await
        .iter()
        .map(|event| event["operation"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(operations, ["share", "share", "unshare", "unshare"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_region_that_a_caller_names_is_used() {
    let gateway = Gateway::spawn().await;
    let elsewhere = format!("{SHARE}?region=cn-sh2");
    assert_eq!(
        gateway.sharer().put(&elsewhere).await.json()["region"],
        "cn-sh2"
    );
    assert_eq!(gateway.sharer().get(&elsewhere).await.status, 200);
    gateway
        .sharer()
        .get(SHARE)
        .await
        .assert_problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_exist_fails_its_change_and_nothing_is_done() {
    let gateway = Gateway::spawn().await;
    let mut told = Vec::new();
    for method in ["PUT", "DELETE"] {
        let answer = gateway
            .sharer()
            .send(method, "/images/img/shares/9000000000000000")
            .await;
        let problem = answer.assert_problem(422, "invalid-account");
        assert_eq!(
            (problem["effect"].as_str(), problem["retryable"].as_bool()),
            (Some("none"), Some(false))
        );
        told.push(problem["audit_id"].clone());
    }
    let events = gateway.events().await;
    assert_eq!(
        events
            .iter()
            .map(|event| event["id"].clone())
            .collect::<Vec<_>>(),
        told
    );
    for event in events {
        assert_eq!(
            (event["outcome"].as_str(), event["http_status"].as_u64()),
            (Some("invalid_account"), Some(422))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_exist_is_not_found_on_changes_and_reads() {
    let gateway = Gateway::spawn().await;
    let changed = gateway
        .sharer()
        .put("/images/compshareImage-missing1/shares/1")
        .await;
    let problem = changed.assert_problem(404, "not-found");
    assert_eq!(problem["upstream"]["ret_code"], 230);
    assert_eq!(problem["effect"], "none");
    for path in [
        "/images/compshareImage-missing1/shares",
        "/images/compshareImage-missing1/shares/1",
    ] {
        assert_eq!(
            gateway
                .sharer()
                .get(path)
                .await
                .assert_problem(404, "not-found")["upstream"]["ret_code"],
            230
        );
    }
    assert_eq!(gateway.only_event().await["outcome"], "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_change_is_recorded_and_never_sent() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    for method in ["PUT", "DELETE"] {
        let answer = gateway
            .caller("shares:read audit:read")
            .send(method, SHARE)
            .await;
        let problem = answer.assert_problem(403, "insufficient-scope");
        assert_eq!(
            (problem["effect"].as_str(), problem["retryable"].as_bool()),
            (Some("none"), Some(false))
        );
        assert!(problem["audit_id"].is_string());
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.contains(r#"error="insufficient_scope""#)
                && challenge.contains(r#"scope="shares:write""#)
        );
    }
    assert_eq!(upstream.calls(), []);
    for event in gateway.events().await {
        assert_eq!(event["outcome"], "denied");
        assert_eq!(event["completed_at"], event["occurred_at"]);
        assert_eq!(event["http_status"], 403);
    }
    assert_eq!(gateway.events().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_reads_are_not_audited() {
    let gateway = Gateway::spawn().await;
    gateway
        .caller("shares:write")
        .get(SHARE)
        .await
        .assert_problem(403, "insufficient-scope");
    gateway
        .caller("audit:read")
        .get("/images/img/shares")
        .await
        .assert_problem(403, "insufficient-scope");
    gateway
        .sharer()
        .get("/audit/events")
        .await
        .assert_problem(403, "insufficient-scope");
    assert_eq!(gateway.events().await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn request_and_trace_ids_are_kept_or_made() {
    let gateway = Gateway::spawn().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = gateway.sharer().request("PUT", SHARE);
    let request = request
        .header("X-Request-Id", "job~42!")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let answer = Answer::of(request).await;
    assert_eq!(answer.header("x-request-id"), Some("job~42!"));
    let event = gateway.only_event().await;
    assert_eq!(
        (event["request_id"].as_str(), event["trace_id"].as_str()),
        (Some("job~42!"), Some(trace))
    );
    for bad in ["", "with space", &"x".repeat(129)] {
        let request = gateway
            .sharer()
            .request("GET", "/livez")
            .header("X-Request-Id", bad);
        let made = Answer::of(request)
            .await
            .header("x-request-id")
            .unwrap()
            .to_owned();
        assert_eq!(made.len(), 36, "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlong_user_agent_is_cut_and_marked() {
    let gateway = Gateway::spawn().await;
    let request = gateway
        .sharer()
        .request("PUT", SHARE)
        .header("User-Agent", "a".repeat(5000));
    assert_eq!(Answer::of(request).await.status, 200);
    let kept = gateway.only_event().await["user_agent"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(kept.len() < 600 && kept.ends_with("… (cut)"), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_caller_left_is_finished_and_written_down() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let request = gateway.sharer().request("PUT", SHARE);
    {
        let mut sending = std::pin::pin!(request.send());
        // Polls the request until the upstream has it; leaving the block drops it, and with it the connection.
        tokio::select! {
            answered = &mut sending => panic!("answered while the upstream holds the call: {answered:?}"),
            () = upstream.wait_for_calls(1) => {}
        }
    }
    assert_eq!(gateway.only_event().await["outcome"], "pending");
    upstream.release(1);
    let event = gateway.ended_event().await;
    assert_eq!(event["outcome"], "succeeded");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_time_is_up_in_flight_is_told_so_and_the_event_gets_what_truly_happened() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let answer = Answer::of(
        gateway
            .sharer()
            .request("PUT", SHARE)
            .header("Prefer", "wait=3"),
    )
    .await;
    let problem = answer.assert_problem(504, "upstream-timeout");
    assert_eq!(
        (problem["effect"].as_str(), problem["retryable"].as_bool()),
        (Some("unknown"), Some(true))
    );
    let pending = gateway.only_event().await;
    assert_eq!(
        (pending["outcome"].as_str(), pending["id"].as_str()),
        (Some("pending"), answer.header("audit-id"))
    );
    assert!(
        pending["http_status"].is_null()
            && pending["duration_ms"].is_null()
            && pending["completed_at"].is_null()
    );
    upstream.release(1);
    let event = gateway.ended_event().await;
    assert_eq!(
        (event["outcome"].as_str(), event["http_status"].as_u64()),
        (Some("succeeded"), Some(504))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_time_is_up_in_the_queue_is_never_sent() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let (sharer, second) = (gateway.sharer(), gateway.sharer());
    let first = async { sharer.put("/images/img/shares/1").await };
    let late = async {
        upstream.wait_for_calls(1).await;
        let answer = Answer::of(
            second
                .request("PUT", "/images/img/shares/2")
                .header("Prefer", "wait=3"),
        )
        .await;
        upstream.release(1);
        answer
    };
    let (first, late) = tokio::join!(first, late);
    assert_eq!(first.status, 200);
    let problem = late.assert_problem(503, "overloaded");
    assert_eq!(
        (problem["effect"].as_str(), problem["retryable"].as_bool()),
        (Some("none"), Some(true))
    );
    assert!(late.header("retry-after").is_some());
    let events = gateway.events().await;
    assert_eq!(
        (
            events[1]["outcome"].as_str(),
            events[1]["upstream_calls"].as_u64()
        ),
        (Some("failed"), Some(0))
    );
    assert_eq!(events[1]["http_status"], 503);
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_holds_up_its_own_image_alone() {
    let upstream = Scripted::start(|call| {
        if call.fields["CompShareImageId"] == "slow" {
            Reply::Held
        } else {
            Reply::Done
        }
    })
    .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let sharer = gateway.sharer();
    let slow = async { sharer.put("/images/slow/shares/1").await.status };
    let quick = async {
        upstream.wait_for_calls(1).await;
        let status = gateway.sharer().put("/images/quick/shares/1").await.status;
        upstream.release(1);
        status
    };
    assert_eq!(tokio::join!(slow, quick), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_in_flight() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let mut gateway = Gateway::with_upstream(&upstream).await;
    let request = gateway.sharer().request("PUT", SHARE);
    let changing = async { Answer::of(request).await.status };
    let database = gateway.database();
    let stopping = async {
        upstream.wait_for_calls(1).await;
        let stop = gateway.stop();
        upstream.release(1);
        stop.await
    };
    assert_eq!(tokio::join!(changing, stopping), (200, true));
    let report = image_share_gateway::audit::verify(&database, &[])
        .await
        .unwrap();
    let image_share_gateway::audit::Report::Intact(Some(head)) = report else {
        panic!("{report:?}")
    };
    assert_eq!(head.sequence, 2, "the outcome is on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_waits_in_vain_records_unknown() {
    let upstream = Scripted::start(|_| Reply::Hang).await;
    let mut gateway =
        Gateway::in_front_of(&upstream.url, &[("server.shutdown_timeout", "100ms")]).await;
    let request = gateway.sharer().request("PUT", SHARE);
    let changing = async {
        request
            .send()
            .await
            .map(|response| response.status().as_u16())
            .unwrap_or_default()
    };
    let database = gateway.database();
    let stopping = async {
        upstream.wait_for_calls(1).await;
        gateway.stop().await
    };
    let (_, clean) = tokio::join!(changing, stopping);
    assert!(!clean);
    let opened = image_share_gateway::audit::open_file(
        &database,
        image_share_gateway::audit::Accepted::default(),
        image_share_gateway::telemetry::Metrics::new(),
    );
    let image_share_gateway::audit::Doors {
        writer,
        task,
        reader,
        ..
    } = opened.await.unwrap();
    let page = reader
        .page(&Filter::default(), Order::default(), 10, None)
        .await
        .unwrap();
    assert_eq!(page.events[0].outcome, "unknown");
    drop((writer, task));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_given_up_while_it_waits_for_a_free_call_is_never_sent() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let gateway = Gateway::in_front_of(&upstream.url, &[("upstream.max_in_flight", "1")]).await;
    let sharer = gateway.sharer();
    let first = async { sharer.put("/images/busy/shares/1").await.status };
    let others = async {
        upstream.wait_for_calls(1).await;
        let late = gateway
            .sharer()
            .request("PUT", "/images/img/shares/2")
            .header("Prefer", "wait=3");
        Answer::of(late).await.assert_problem(503, "overloaded");
        upstream.release(2);
        gateway.sharer().put("/images/img/shares/3").await.status
    };
    assert_eq!(tokio::join!(first, others), (200, 200));
    let sent: Vec<String> = upstream
        .calls()
        .iter()
        .map(crate::support::Call::change)
        .collect();
    assert_eq!(sent, ["+1", "+3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_for_a_slow_upstream_hold_up_no_change_and_no_stop() {
    let upstream = Scripted::start(|call| {
        if call.action().starts_with("Describe") {
            Reply::Hang
        } else {
            Reply::Done
        }
    })
    .await;
    // One after another the reads would take 40 s, longer than a stop has.
    let settings = [("upstream.max_in_flight", "2"), ("upstream.timeout", "1s")];
    let mut gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    let reads: Vec<_> = (0..40)
        .map(|_| gateway.sharer().request("GET", "/images/img/shares").send())
        .collect();
    {
        let mut reading = std::pin::pin!(futures_util::future::join_all(reads));
        tokio::select! {
            answers = &mut reading => panic!("answered while the upstream hangs: {answers:?}"),
            () = upstream.wait_for_calls(1) => {}
        }
        // While they all wait, a change has its turn.
        assert_eq!(
            gateway.sharer().put("/images/img/shares/1").await.status,
            200
        );
    }
    // Their callers have left, if in order, which a server need not notice: a stop waits for one call.
    assert!(gateway.stop().await);
}
