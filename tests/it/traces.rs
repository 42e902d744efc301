//! Traces, as a collector of OTLP gets them.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::support::{
    Answer, Collecting, Collector, Gateway, PRIVATE_KEY, Reply, Scripted, attribute, eventually,
    token,
};

const ROUTE: &str = "/images/{image_id}/shares/{account_id}";

async fn traced(upstream: &Scripted, collector: &Collector, ratio: &str) -> Gateway {
    let settings = [
        ("telemetry.otlp_endpoint", collector.url.as_str()),
        ("telemetry.trace_sample_ratio", ratio),
    ];
    Gateway::in_front_of(&upstream.url, &settings).await
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name} in {spans:?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_a_server_span_with_its_parts_by_opentelemetrys_names() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let collector = Collector::start(Collecting::Takes).await;
    let mut gateway = traced(&upstream, &collector, "1.0").await;
    let sharer = gateway.sharer();
    assert_eq!(sharer.put("/images/img/shares/7").await.status, 200);
    let event = gateway.only_event().await;
    assert_eq!(gateway.nobody().get("/livez").await.status, 200);
    assert!(gateway.stop().await);

    let spans = collector.spans();
    let server = only(&spans, &format!("PUT {ROUTE}"));
    assert_eq!(server.kind, SpanKind::Server as i32);
    assert!(server.parent_span_id.is_empty());
    for (name, value) in [
        ("http.request.method", "PUT"),
        ("http.route", ROUTE),
        ("http.response.status_code", "200"),
        ("url.path", "/images/img/shares/7"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(server, name).as_deref(), Some(value), "{name}");
    }
    for name in [
        "authorize",
        "audit.intent",
        "lane.wait",
        "upstream.call",
        "audit.outcome",
    ] {
        let part = only(
            &spans
                .iter()
                .filter(|span| span.trace_id == server.trace_id)
                .cloned()
                .collect::<Vec<_>>(),
            name,
        )
        .clone();
        assert_eq!(part.parent_span_id, server.span_id, "{name}");
        assert!(part.links.is_empty(), "{name}");
        assert!(
            part.start_time_unix_nano >= server.start_time_unix_nano
                && part.end_time_unix_nano <= server.end_time_unix_nano,
            "{name} is within its request"
        );
    }
    let call = only(&spans, "upstream.call");
    assert_eq!(call.kind, SpanKind::Client as i32);
    assert_eq!(
        attribute(call, "http.request.method").as_deref(),
        Some("POST")
    );
    assert_eq!(
        attribute(call, "server.address").as_deref(),
        Some("127.0.0.1")
    );
    assert_eq!(
        attribute(call, "url.full"),
        Some(format!("{}/", upstream.url))
    );
    assert_eq!(attribute(call, "upstream.ret_code").as_deref(), Some("0"));
    assert_eq!(event["trace_id"], hex::encode(&server.trace_id));
    assert!(
        collector
            .services()
            .iter()
            .all(|name| name == "image-share-gateway")
    );
    let probes = spans
        .iter()
        .filter(|span| attribute(span, "url.path").as_deref() == Some("/livez"));
    assert_eq!(probes.count(), 0, "probes have no spans");
    let everything = collector.everything();
    for secret in [PRIVATE_KEY, sharer_token().as_str(), "Signature"] {
        assert!(!everything.contains(secret), "{everything}");
    }
}

fn sharer_token() -> String {
    token("team-a", "shares:read shares:write")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_traceparent_is_its_parent_and_decides_whether_it_is_kept() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let collector = Collector::start(Collecting::Takes).await;
    let mut gateway = traced(&upstream, &collector, "0.0").await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let put = |account: u64, flags: &str| {
        let path = format!("/images/img/shares/{account}");
        let parent = format!("00-{trace}-00f067aa0ba902b7-{flags}");
        let request = gateway.sharer().request("PUT", &path);
        Answer::of(request.header("traceparent", parent))
    };
    assert_eq!(put(1, "01").await.status, 200);
    assert_eq!(put(2, "00").await.status, 200);
    assert_eq!(
        gateway.sharer().put("/images/img/shares/3").await.status,
        200
    );
    let events = gateway.events().await;
    assert_eq!(events[0]["trace_id"], trace);
    assert_eq!(
        events[1]["trace_id"], trace,
        "a trace that is not kept has an id too"
    );
    let own = events[2]["trace_id"].as_str().unwrap();
    assert!(own.len() == 32 && own != trace, "{own}");
    assert!(gateway.stop().await);
    let spans = collector.spans();
    let server = only(&spans, &format!("PUT {ROUTE}"));
    assert_eq!(hex::encode(&server.trace_id), trace);
    assert_eq!(hex::encode(&server.parent_span_id), "00f067aa0ba902b7");
    assert!(spans.iter().all(|span| span.trace_id == server.trace_id));
    assert_eq!(named(&spans, "upstream.call").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_carries_several_changes_is_linked_to_each() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let collector = Collector::start(Collecting::Takes).await;
    let mut gateway = traced(&upstream, &collector, "1.0").await;
    let change = async |account: u64| {
        let path = format!("/images/img/shares/{account}");
        gateway.sharer().put(&path).await.status
    };
    let rest = async {
        upstream.wait_for_calls(1).await;
        let others = futures_util::future::join_all((2..10).map(change));
        let release = async {
            eventually("their intents are on disk", async || {
                let metrics = gateway.metrics().await;
                metrics
                    .contains("isg_audit_chain_sequence 9\n")
                    .then_some(())
            })
            .await;
            upstream.release(100);
        };
        tokio::join!(others, release).0
    };
    let (first, others) = tokio::join!(change(1), rest);
    assert_eq!((first, others), (200, vec![200; 8]));
    assert!(gateway.stop().await);
    let spans = collector.spans();
    let calls = named(&spans, "upstream.call");
    let joined = calls.iter().filter(|call| !call.links.is_empty());
    assert!(joined.clone().count() > 0, "what waited went together");
    let mut carried = Vec::new();
    for call in &calls {
        let linked: Vec<_> = call.links.iter().map(|link| link.span_id.clone()).collect();
        if linked.is_empty() {
            carried.push(call.parent_span_id.clone());
        } else {
            assert!(linked.len() > 1 && linked.contains(&call.parent_span_id));
            carried.extend(linked);
        }
    }
    let servers = named(&spans, &format!("PUT {ROUTE}"));
    let mut asked: Vec<_> = servers
        .iter()
        .map(|server| server.span_id.clone())
        .collect();
    carried.sort();
    asked.sort();
    assert_eq!(carried, asked, "each is linked to the call that carried it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_and_a_read_are_traced_too() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let collector = Collector::start(Collecting::Takes).await;
    let mut gateway = traced(&upstream, &collector, "1.0").await;
    let patch = gateway.sharer().request("PATCH", "/images/img/shares");
    let accounts: Vec<u64> = (1..=12).collect();
    let patched = Answer::of(
        patch
            .header("Content-Type", "application/json")
            .body(serde_json::json!({"add": accounts}).to_string()),
    )
    .await;
    assert_eq!(patched.status, 200);
    assert_eq!(gateway.sharer().get("/images/img/shares").await.status, 200);
    assert!(gateway.stop().await);
    let spans = collector.spans();
    let of = |server: &Span| -> Vec<String> {
        let parts = spans
            .iter()
            .filter(|span| span.parent_span_id == server.span_id);
        let mut names: Vec<_> = parts.map(|span| span.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    };
    let bulk = only(&spans, "PATCH /images/{image_id}/shares");
    let parts = [
        "audit.intent",
        "audit.outcome",
        "authorize",
        "lane.wait",
        "upstream.call",
    ];
    assert_eq!(of(bulk), parts);
    assert_eq!(
        named(&spans, "lane.wait").len(),
        1,
        "one for all of its accounts"
    );
    assert_eq!(
        of(only(&spans, "GET /images/{image_id}/shares")),
        ["authorize", "upstream.call"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_refuses_or_is_away_costs_spans_and_no_change() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    for collecting in [Some(Collecting::Hangs), Some(Collecting::Refuses), None] {
        let mut collector = Collector::start(collecting.unwrap_or(Collecting::Takes)).await;
        if collecting.is_none() {
            collector.url = "http://127.0.0.1:9".into();
        }
        let mut gateway = traced(&upstream, &collector, "1.0").await;
        for account in 1..=20 {
            let path = format!("/images/img/shares/{account}");
            assert_eq!(
                gateway.sharer().put(&path).await.status,
                200,
                "{collecting:?}"
            );
        }
        eventually("lost spans are counted", async || {
            let metrics = gateway.metrics().await;
            let lost = metrics
                .lines()
                .find_map(|line| line.strip_prefix("isg_trace_spans_lost_total "));
            (lost.unwrap() != "0").then_some(())
        })
        .await;
        assert_eq!(gateway.events().await.len(), 20);
        assert!(gateway.stop().await, "it stops in order: {collecting:?}");
    }
}

/// A change whose time is up before its intent gets to disk waits for no call; nothing of it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_ends_before_it_may_be_sent_is_not_kept_as_waiting() {
    use sqlx::Connection as _;
    let upstream = Scripted::start(|_| Reply::Done).await;
    let collector = Collector::start(Collecting::Takes).await;
    let mut gateway = traced(&upstream, &collector, "1.0").await;
    assert_eq!(
        gateway.sharer().put("/images/img/shares/1").await.status,
        200
    );
    // Somebody else holds the trail for as long as the bulk has.
    let mut holder = gateway.connect().await;
    let held = holder.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let patch = gateway.sharer().request("PATCH", "/images/img/shares");
    let patch = patch
        .header("Content-Type", "application/json")
        .header("Prefer", "wait=1")
        .body(r#"{"add": [2, 3, 4]}"#);
    let refused = Answer::of(patch).await;
    refused.assert_problem(503, "audit-unavailable");
    held.rollback().await.unwrap();
    eventually("the bulk has its outcomes", async || {
        let events = gateway.events().await;
        let ended = events.iter().all(|event| event["outcome"] != "pending");
        (events.len() == 4 && ended).then_some(())
    })
    .await;
    assert!(gateway.stop().await);
    let spans = collector.spans();
    assert_eq!(named(&spans, "audit.intent").len(), 2);
    assert_eq!(named(&spans, "lane.wait").len(), 2, "none is held for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_failed_and_the_one_again_say_so_by_the_conventions() {
    let failed = std::sync::atomic::AtomicBool::new(false);
    let upstream = Scripted::start(move |_| {
        if failed.swap(true, std::sync::atomic::Ordering::Relaxed) {
            Reply::Done
        } else {
            Reply::Status(503)
        }
    })
    .await;
    let collector = Collector::start(Collecting::Takes).await;
    let mut gateway = traced(&upstream, &collector, "1.0").await;
    assert_eq!(
        gateway.sharer().put("/images/img/shares/7").await.status,
        200
    );
    let token = gateway.sharer().token.unwrap();
    assert_eq!(gateway.nobody().get(&format!("/{token}")).await.status, 404);
    let odd = gateway
        .nobody()
        .request("BREW", "/whoami")
        .header("User-Agent", &token);
    assert_eq!(Answer::of(odd).await.status, 405);
    assert!(gateway.stop().await);
    let spans = collector.spans();
    let calls = named(&spans, "upstream.call");
    let of = |name: &str| {
        calls
            .iter()
            .map(|call| attribute(call, name))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("error.type"), [Some("503".to_owned()), None]);
    assert_eq!(
        of("http.response.status_code"),
        [Some("503".to_owned()), Some("200".to_owned())]
    );
    assert_eq!(
        of("http.request.resend_count"),
        [None, Some("1".to_owned())]
    );
    let server = only(&spans, &format!("PUT {ROUTE}"));
    let port = gateway_port(&gateway.base_url);
    assert_eq!(
        attribute(server, "server.address").as_deref(),
        Some("127.0.0.1")
    );
    assert_eq!(attribute(server, "server.port"), Some(port));
    let odd = only(&spans, "HTTP /whoami");
    assert_eq!(
        attribute(odd, "http.request.method").as_deref(),
        Some("_OTHER")
    );
    assert_eq!(
        attribute(odd, "http.request.method_original").as_deref(),
        Some("BREW")
    );
    assert!(
        !collector.everything().contains(&token),
        "a token in the wrong place is not told"
    );
}

fn gateway_port(base_url: &str) -> String {
    base_url.rsplit(':').next().unwrap().to_owned()
}
