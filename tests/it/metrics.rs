//! Metrics: every one of the contract with its labels, and that alerts and the dashboard ask for what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use promql_parser::label::Labels;
use promql_parser::parser::{Expr, LabelModifier, VectorSelector, parse};
use serde_json::Value;

use crate::support::{
    Answer, Authority, Collecting, Collector, Gateway, Reply, Scripted, eventually, refusal,
};

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(file)
}

/// A gateway over TLS at which everything that is counted has happened.
async fn busy_gateway() -> Gateway {
    let throttled = AtomicBool::new(false);
    let upstream = Scripted::start(move |call| {
        match call.fields.get("CompShareImageId").map(String::as_str) {
            Some("throttled") if !throttled.swap(true, Ordering::Relaxed) => refusal(153, "later"),
            Some("odd") => refusal(4711, "never heard of"),
            _ => Reply::Done,
        }
    })
    .await;
    let collector = Collector::start(Collecting::Refuses).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let leaf = Authority::new().certify("127.0.0.1");
    std::fs::write(path("cert.pem"), &leaf.certificate).unwrap();
    std::fs::write(path("key.pem"), &leaf.key).unwrap();
    std::fs::write(path("p.cedar"), r#"permit (principal, action, resource); forbid (principal, action == Action::"unshare", resource);"#).unwrap();
    let (cert, key, policies) = (path("cert.pem"), path("key.pem"), path("p.cedar"));
    let settings = [
        ("server.tls_cert_file", cert.as_str()),
        ("server.tls_key_file", key.as_str()),
        ("authorization.policy_file", policies.as_str()),
        ("telemetry.otlp_endpoint", collector.url.as_str()),
        // Keys that cannot be fetched.
        (
            "auth.issuers",
            r#"[{name = "ci", issuer = "https://ci.example", audience = "a", jwks_url = "http://127.0.0.1:9/keys"}]"#,
        ),
        ("limits.requests_per_second", "0.001"),
        ("limits.burst", "8"),
        ("limits.failed_authentications_per_minute", "1"),
    ];
    let gateway = Gateway::over_tls_in_front_of(&upstream.url, &settings).await;
    let sharer = gateway.sharer();
    for image in ["img", "throttled", "odd"] {
        sharer.put(&format!("/images/{image}/shares/7")).await;
    }
    assert_eq!(sharer.delete("/images/img/shares/7").await.status, 403);
    assert_eq!(sharer.get("/images/img/shares").await.status, 200);
    assert_eq!(gateway.nobody().get("/images").await.status, 401);
    assert_eq!(gateway.nobody().get("/images").await.status, 429);
    let mut limited = 0;
    while limited != 429 {
        limited = sharer.get("/images").await.status;
    }
    gateway.reload().await.unwrap();
    std::fs::write(&policies, "permit (").unwrap();
    gateway.reload().await.unwrap_err();
    let metrics = |text: &'static str| {
        let gateway = &gateway;
        async move { gateway.metrics().await.contains(text).then_some(()) }
    };
    let failing = r#"isg_key_set_fetch_failing{issuer="https://ci.example"} 1"#;
    eventually("keys cannot be fetched", || metrics(failing)).await;
    gateway
}

/// The names of series, each with the names of its labels, as they are exposed.
fn exposed(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut series: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        let labels = series.entry(name.to_owned()).or_default();
        if line.starts_with(&format!("{name}{{")) {
            let inside = rest.rsplit_once('}').unwrap().0;
            // Values hold no `="`.
            let names = inside
                .split("=\"")
                .map(|part| part.rsplit([',', '"']).next().unwrap());
            labels.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    series
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_the_contract_is_exposed_with_its_labels() {
    // What first shows up with a 1 never rose, and no alert sees it.
    let fresh = Gateway::spawn().await.metrics().await;
    for line in [
        r#"isg_reloads_total{what="tls",result="failed"} 0"#,
        r#"isg_sharing_changes_total{operation="unshare",outcome="unknown"} 0"#,
        r#"isg_upstream_ret_codes_total{ret_code="171"} 0"#,
        r#"isg_rate_limited_total{limit="subject"} 0"#,
        r#"isg_authentications_total{issuer="https://issuer.example",result="bad_signature"} 0"#,
        r#"isg_policy_decisions_total{action="share",decision="insufficient_scope"} 0"#,
    ] {
        assert!(fresh.contains(line), "{line} in {fresh}");
    }
    let gateway = busy_gateway().await;
    let text = gateway.metrics().await;
    let series = exposed(&text);
    for (name, labels) in [
        ("isg_authentications_total", &["issuer", "result"][..]),
        ("isg_policy_decisions_total", &["action", "decision"]),
        ("isg_rate_limited_total", &["limit"]),
        ("isg_upstream_ret_codes_total", &["ret_code"]),
        ("isg_upstream_retries_total", &[]),
        ("isg_upstream_accounts_per_call_count", &[]),
        ("isg_audit_waiting_entries", &[]),
        ("isg_audit_clock_behind_seconds", &[]),
        ("isg_key_set_age_seconds", &["issuer"]),
        ("isg_tls_certificate_expiry_timestamp_seconds", &[]),
        ("isg_reloads_total", &["what", "result"]),
        ("isg_streams", &[]),
        ("isg_build_info", &["version"]),
        ("process_cpu_seconds_total", &[]),
        ("process_open_fds", &[]),
        ("process_max_fds", &[]),
        ("process_virtual_memory_bytes", &[]),
        ("process_resident_memory_bytes", &[]),
        ("process_start_time_seconds", &[]),
    ] {
        let found = series
            .get(name)
            .unwrap_or_else(|| panic!("{name} in {text}"));
        let labels: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(*found, labels, "{name}");
    }
    for line in [
        r#"isg_authentications_total{issuer="https://issuer.example",result="ok"}"#,
        r#"isg_authentications_total{issuer="none",result="no_token"} 2"#,
        r#"isg_policy_decisions_total{action="share",decision="allowed"} 3"#,
        r#"isg_policy_decisions_total{action="unshare",decision="forbidden"} 1"#,
        r#"isg_rate_limited_total{limit="failed_authentications"} 1"#,
        r#"isg_rate_limited_total{limit="subject"} 1"#,
        r#"isg_upstream_ret_codes_total{ret_code="0"}"#,
        r#"isg_upstream_ret_codes_total{ret_code="153"} 1"#,
        r#"isg_upstream_ret_codes_total{ret_code="other"} 1"#,
        "isg_upstream_retries_total 1",
        r#"isg_reloads_total{what="policies",result="ok"} 1"#,
        r#"isg_reloads_total{what="policies",result="failed"} 1"#,
        concat!(
            "isg_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
        "# TYPE isg_upstream_accounts_per_call histogram",
        "# TYPE process_cpu_seconds_total counter",
        "isg_audit_waiting_entries 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_tokens_that_are_refused_are_counted_by_what_they_are() {
    let gateway = Gateway::spawn().await;
    let follow = gateway
        .auditor()
        .request("GET", "/audit/entries?follow=true");
    let following = follow.send().await.unwrap();
    assert!(gateway.metrics().await.contains("isg_streams 1"));
    drop(following);
    eventually("the stream ends", async || {
        // A row to send shows that nobody takes it.
        gateway.sharer().put("/images/img/shares/7").await;
        gateway
            .metrics()
            .await
            .contains("isg_streams 0")
            .then_some(())
    })
    .await;
    let claims = serde_json::json!({"iss": "https://foreign.example"});
    let foreign = crate::support::token_with("test", crate::support::SECRET, &claims);
    let expired = crate::support::token_with(
        "test",
        crate::support::SECRET,
        &serde_json::json!({"exp": 1}),
    );
    let forged = crate::support::token_with(
        "test",
        b"another secret that is long enough, too",
        &serde_json::json!({}),
    );
    for token in ["not.a.token".to_owned(), foreign, expired, forged] {
        assert_eq!(gateway.with(token).get("/whoami").await.status, 401);
    }
    let text = gateway.metrics().await;
    for line in [
        r#"isg_authentications_total{issuer="none",result="malformed"} 1"#,
        r#"isg_authentications_total{issuer="none",result="other_issuer"} 1"#,
        r#"isg_authentications_total{issuer="https://issuer.example",result="expired"} 1"#,
        r#"isg_authentications_total{issuer="https://issuer.example",result="bad_signature"} 1"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(
        !text.contains("foreign.example"),
        "no label holds what a caller sends"
    );
}

/// Each selector of a query, with the labels by which it or what is around it asks.
fn selectors(
    expression: &Expr,
    asked: &BTreeSet<String>,
    found: &mut Vec<(String, BTreeSet<String>)>,
) {
    let mut selector = |vector: &VectorSelector| {
        let mut labels = asked.clone();
        labels.extend(
            vector
                .matchers
                .matchers
                .iter()
                .map(|matcher| matcher.name.clone()),
        );
        found.push((vector.name.clone().unwrap(), labels));
    };
    match expression {
        Expr::VectorSelector(vector) => selector(vector),
        Expr::MatrixSelector(matrix) => selector(&matrix.vs),
        Expr::Aggregate(aggregate) => {
            let mut asked = asked.clone();
            if let Some(LabelModifier::Include(Labels { labels })) = &aggregate.modifier {
                asked.extend(labels.iter().cloned());
            }
            selectors(&aggregate.expr, &asked, found);
        }
        Expr::Binary(binary) => {
            selectors(&binary.lhs, asked, found);
            selectors(&binary.rhs, asked, found);
        }
        Expr::Call(call) => {
            for argument in &call.args.args {
                selectors(argument, asked, found);
            }
        }
        Expr::Paren(inner) => selectors(&inner.expr, asked, found),
        Expr::Unary(inner) => selectors(&inner.expr, asked, found),
        Expr::Subquery(inner) => selectors(&inner.expr, asked, found),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

/// The queries of the alerts and of the dashboard, each with where it stands.
fn queries() -> Vec<(String, String)> {
    let alerts = std::fs::read_to_string(deploy("prometheus/alerts.yaml")).unwrap();
    let alerts: Value = serde_saphyr::from_str(&alerts).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut queries: Vec<_> = rules
        .iter()
        .map(|rule| (text(&rule["alert"]), text(&rule["expr"])))
        .collect();
    let dashboard = std::fs::read_to_string(deploy("grafana/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    queries
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_the_dashboard_ask_for_metrics_and_labels_that_there_are() {
    let gateway = busy_gateway().await;
    let series = exposed(&gateway.metrics().await);
    // What Prometheus itself gives each target.
    let of_targets = ["instance", "job"];
    let queries = queries();
    assert!(queries.len() > 40, "{}", queries.len());
    for (place, query) in queries {
        let query = query
            .replace("$__rate_interval", "5m")
            .replace("$instance", ".*");
        let expression = parse(&query).unwrap_or_else(|error| panic!("{place}: {query}: {error}"));
        let mut found = Vec::new();
        selectors(&expression, &BTreeSet::new(), &mut found);
        assert!(!found.is_empty(), "{place}");
        for (name, labels) in found {
            if name == "up" {
                continue;
            }
            let known = series
                .get(&name)
                .unwrap_or_else(|| panic!("{place}: no metric {name}"));
            for label in labels {
                let exists = known.contains(&label) || of_targets.contains(&label.as_str());
                assert!(
                    exists,
                    "{place}: {name} has no label {label}, it has {known:?}"
                );
            }
        }
    }
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md"))
            .unwrap();
    let alerts = std::fs::read_to_string(deploy("prometheus/alerts.yaml")).unwrap();
    for alert in alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(
            page.contains(&format!("### {alert}\n")),
            "the page says nothing of {alert}"
        );
    }
}

#[test]
fn the_alerts_fire_when_they_should() {
    let promtool = |arguments: &[&str]| {
        let mut promtool = std::process::Command::new("promtool");
        let ended = promtool
            .args(arguments)
            .current_dir(deploy("prometheus"))
            .output()
            .unwrap();
        assert!(ended.status.success(), "{ended:?}");
    };
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts_test.yaml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exposed_is_as_prometheus_wants_it() {
    use std::io::Write as _;
    let gateway = busy_gateway().await;
    let text = gateway.metrics().await;
    let mut promtool = std::process::Command::new("promtool");
    let mut promtool = promtool
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let checked = promtool.wait_with_output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let answer = Answer::of(
        gateway
            .nobody()
            .request_url("GET", &format!("{}/metrics", gateway.admin_url())),
    )
    .await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
}
