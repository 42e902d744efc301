//! Nobody stands in another's way: reads, dry runs and looks that the upstream does not answer, and a stop.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Answer, Call, Gateway, Reply, Scripted, refusal, token};

/// Lists of images called `slow…` never come.
async fn slow_lists() -> Scripted {
    Scripted::start(|call: &Call| {
        let slow = call
            .fields
            .get("CompShareImageId")
            .is_some_and(|image| image.starts_with("slow"));
        if slow && !call.changes() {
            Reply::Hang
        } else {
            Reply::Done
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subjects_slow_reads_take_neither_others_places_nor_those_of_whole_lists() {
    let upstream = slow_lists().await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let of = |subject: &str| gateway.with(token(subject, "shares:read shares:write"));
    let slow = async |number: u32| {
        let request = of("team-a").request("GET", &format!("/images/slow-{number}/shares"));
        Answer::of(request.header("Prefer", "wait=8")).await
    };
    let others = async {
        // Half of the calls that reads may have are one subject's at the most.
        upstream.wait_for_calls(16).await;
        let list = of("team-b").get("/images/img/shares").await;
        assert_eq!(list.status, 200);
        let request = of("team-c")
            .request("PUT", "/images/img/shares")
            .header("Content-Type", "application/json");
        let replaced = Answer::of(request.body(json!({"accounts": [1]}).to_string())).await;
        assert_eq!(replaced.status, 200);
        let slow = upstream
            .calls()
            .iter()
            .filter(|call| call.fields["CompShareImageId"].starts_with("slow"))
            .count();
        assert_eq!(slow, 16, "the others of the subject wait");
    };
    let (slow, ()) = tokio::join!(join_all((0..80).map(slow)), others);
    let statuses = |status: u16| slow.iter().filter(|answer| answer.status == status).count();
    assert_eq!(statuses(504) + statuses(503), 80);
    assert!(
        statuses(503) >= 80 - 64,
        "so many found no place: {}",
        statuses(503)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_whose_read_hangs_holds_no_change_up() {
    let upstream = slow_lists().await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let sharer = gateway.sharer();
    let rehearse = async {
        let request = sharer.request("PUT", "/images/slow/shares/1?dry_run=true");
        Answer::of(request.header("Prefer", "wait=5")).await
    };
    let put = async {
        upstream.wait_for_calls(1).await;
        sharer.put("/images/slow/shares/2").await
    };
    let (rehearsed, put) = tokio::select! {
        biased;
        rehearsed = rehearse => panic!("nothing was held up: {rehearsed:?}"),
        put = put => (None::<Answer>, put),
    };
    assert_eq!((rehearsed.is_none(), put.status), (true, 200));
}

/// What waits for its turn when a stop begins is in flight, and finishes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_reads_dry_runs_and_whole_lists_that_wait_for_their_turn() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let settings = [("upstream.max_in_flight", "1")];
    let mut gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    let base_url = gateway.base_url.clone();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let send = |method: &str, path: &str, body: Option<&str>| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = client
            .request(method, format!("{base_url}{path}"))
            .bearer_auth(token("team-a", "shares:read shares:write"));
        if let Some(body) = body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.to_owned());
        }
        Answer::of(request)
    };
    let waiting = async {
        upstream.wait_for_calls(1).await;
        let list = send("GET", "/images/a/shares", None);
        let dry_run = send("DELETE", "/images/b/shares/1?dry_run=true", None);
        let whole = send("PUT", "/images/c/shares", Some(r#"{"accounts":[]}"#));
        tokio::join!(list, dry_run, whole)
    };
    let stopping = async {
        // All four requests are in the gateway.
        crate::support::eventually("requests wait", async || {
            let text = gateway.metrics().await;
            // And the one that asks.
            text.contains("isg_http_requests_in_flight 5").then_some(())
        })
        .await;
        let stopping = gateway.stop();
        let releasing = async {
            crate::support::eventually("the listener closes", async || {
                let connected =
                    tokio::net::TcpStream::connect(base_url.trim_start_matches("http://")).await;
                connected.is_err().then_some(())
            })
            .await;
            upstream.release(100);
        };
        tokio::join!(stopping, releasing).0
    };
    let (put, (list, dry_run, whole), clean) =
        tokio::join!(send("PUT", "/images/img/shares/1", None), waiting, stopping);
    assert_eq!(
        (put.status, list.status, dry_run.status, whole.status),
        (200, 200, 200, 200)
    );
    assert!(clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_image_costs_a_bulk_of_a_thousand_few_calls() {
    let upstream = Scripted::start(|_| refusal(5555, "the image is being reviewed")).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let add: Vec<u64> = (1..=1000).collect();
    let request = gateway
        .sharer()
        .request("PATCH", "/images/img/shares")
        .header("Content-Type", "application/json");
    let answer = Answer::of(request.body(json!({"add": add}).to_string())).await;
    assert_eq!(answer.status, 200);
    let results = answer.json()["results"].as_array().unwrap().clone();
    assert!(
        results
            .iter()
            .all(|result| result["problem"]["upstream"]["ret_code"] == 5555)
    );
    assert_eq!(
        upstream.calls().len(),
        100 + 2,
        "each ten, and the halves of the first"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pause_that_an_upstream_asks_for_is_handed_on_within_reason() {
    for asked in [7_u64, 999_999, u64::MAX] {
        let upstream = Scripted::start(move |_| Reply::StatusAfter(429, asked)).await;
        let gateway = Gateway::in_front_of(&upstream.url, &[("upstream.max_retries", "0")]).await;
        let refused = gateway.sharer().put("/images/img/shares/1").await;
        refused.assert_problem(503, "upstream-unavailable");
        let told: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert_eq!(told, asked.min(60));
    }
}

/// A list of megabytes is read where it holds nobody up.
#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_list_is_read_whole() {
    let entries: Vec<String> = (1..=60_000)
        .map(|account| format!(r#"{{"AccountId":"{account}","AccountName":"a name"}}"#))
        .collect();
    let body = format!(
        r#"{{"Action":"DescribeCompShareImageShareAccountsResponse","RetCode":0,"AccountSet":[{}]}}"#,
        entries.join(",")
    );
    let upstream =
        Scripted::start(move |_| Reply::Later(Duration::ZERO, Box::new(Reply::Body(body.clone()))))
            .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let listed = gateway.sharer().get("/images/img/shares").await;
    assert_eq!(listed.status, 200);
    assert_eq!(listed.json()["accounts"].as_array().unwrap().len(), 60_000);
}
