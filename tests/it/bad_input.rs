//! What the contract does not allow gets its status and slug; nothing is forwarded, nothing audited.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, Gateway, Reply, Scripted};

async fn started() -> (Scripted, Gateway) {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    (upstream, gateway)
}

async fn assert_nothing_happened(upstream: &Scripted, gateway: &Gateway) {
    assert_eq!(upstream.calls(), []);
    assert_eq!(gateway.events().await, Vec::<Value>::new());
}

fn faults(problem: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = problem["errors"].as_array().unwrap().iter();
    errors
        .map(|error| (text(&error["in"]), text(&error["name"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_segment_and_parameter_is_400_and_named() {
    let (upstream, gateway) = started().await;
    let long = format!("/images/{}/shares/7", "a".repeat(129));
    let long_reason = format!("/images/img/shares/7?reason={}", "x".repeat(501));
    let cases = [
        (long.as_str(), "path", "image_id"),
        ("/images/.img/shares/7", "path", "image_id"),
        ("/images/b%C3%BCcher/shares/7", "path", "image_id"),
        ("/images/a%2Fb/shares/7", "path", "image_id"),
        ("/images/%252F/shares/7", "path", "image_id"),
        ("/images/%FF/shares/7", "path", "image_id"),
        ("/images/a%20b/shares/7", "path", "image_id"),
        ("/images/a%00/shares/7", "path", "image_id"),
        ("/images/img/shares/0", "path", "account_id"),
        ("/images/img/shares/007", "path", "account_id"),
        ("/images/img/shares/-7", "path", "account_id"),
        ("/images/img/shares/+7", "path", "account_id"),
        ("/images/img/shares/7.0", "path", "account_id"),
        ("/images/img/shares/1e3", "path", "account_id"),
        ("/images/img/shares/seven", "path", "account_id"),
        ("/images/img/shares/9007199254740992", "path", "account_id"),
        (
            "/images/img/shares/99999999999999999999999999",
            "path",
            "account_id",
        ),
        ("/images/img/shares/7%2F8", "path", "account_id"),
        ("/images/img/shares/7?region=us-den", "query", "region"),
        ("/images/img/shares/7?region=", "query", "region"),
        (
            "/images/img/shares/7?region=cn-wlcb&region=cn-wlcb",
            "query",
            "region",
        ),
        ("/images/img/shares/7?colour=blue", "query", "colour"),
        ("/images/img/shares/7?dry_run=yes", "query", "dry_run"),
        ("/images/img/shares/7?dry_run=", "query", "dry_run"),
        ("/images/img/shares/7?=x", "query", ""),
        ("/images/img/shares/7?reason", "query", "reason"),
        ("/images/img/shares/7?reason=%20%20", "query", "reason"),
        ("/images/img/shares/7?reason=a%0Ab", "query", "reason"),
        ("/images/img/shares/7?reason=%FF", "query", "reason"),
        (long_reason.as_str(), "query", "reason"),
    ];
    for (path, place, name) in cases {
        for method in ["PUT", "DELETE"] {
            let problem = gateway
                .sharer()
                .send(method, path)
                .await
                .assert_problem(400, "invalid-request");
            assert_eq!(
                faults(&problem),
                [(place.to_owned(), name.to_owned())],
                "{method} {path}"
            );
            assert_eq!(
                (problem["effect"].as_str(), problem["retryable"].as_bool()),
                (Some("none"), Some(false))
            );
        }
        if name != "reason" {
            let problem = gateway
                .sharer()
                .get(path)
                .await
                .assert_problem(400, "invalid-request");
            assert_eq!(problem.get("effect"), None, "a read has no effect");
        }
    }
    assert_nothing_happened(&upstream, &gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_listed_at_once() {
    let (upstream, gateway) = started().await;
    let request = gateway
        .sharer()
        .request("PUT", "/images/-/shares/0?region=x&reason=%20&colour=blue")
        .header("Content-Type", "application/json")
        .body("[]");
    let problem = Answer::of(request)
        .await
        .assert_problem(400, "invalid-request");
    let mut found = faults(&problem);
    found.sort();
    let expected = [
        ("body", "body"),
        ("path", "account_id"),
        ("path", "image_id"),
        ("query", "colour"),
        ("query", "reason"),
        ("query", "region"),
    ];
    assert_eq!(
        found,
        expected.map(|(place, name)| (place.to_owned(), name.to_owned()))
    );
    assert_nothing_happened(&upstream, &gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_takes_no_body_and_put_takes_json_alone() {
    let (upstream, gateway) = started().await;
    for body in ["{}", "x", &"x".repeat(100_000)] {
        let request = gateway
            .sharer()
            .request("DELETE", "/images/img/shares/7")
            .body(body.to_owned());
        let problem = Answer::of(request)
            .await
            .assert_problem(400, "invalid-request");
        assert_eq!(faults(&problem), [("body".to_owned(), "body".to_owned())]);
    }
    let chunked = "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    for (method, status) in [("DELETE", 400), ("PUT", 415)] {
        let answer = raw(&gateway, method, "/images/img/shares/7", chunked).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
    for (kind, body, status, slug) in [
        (None, "{}".to_owned(), 415, "unsupported-media-type"),
        (
            Some("text/plain"),
            "{}".to_owned(),
            415,
            "unsupported-media-type",
        ),
        (
            Some("application/json"),
            "x".repeat(100_000),
            413,
            "payload-too-large",
        ),
        (
            Some("application/json"),
            "x".to_owned(),
            400,
            "invalid-request",
        ),
    ] {
        let mut request = gateway.sharer().request("PUT", "/images/img/shares/7");
        if let Some(kind) = kind {
            request = request.header("Content-Type", kind);
        }
        Answer::of(request.body(body))
            .await
            .assert_problem(status, slug);
    }
    assert_nothing_happened(&upstream, &gateway).await;
    for empty in [
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 0\r\n\r\n",
        "Content-Length: 00\r\n\r\n",
    ] {
        assert!(
            raw(&gateway, "PUT", "/images/img/shares/7", empty)
                .await
                .starts_with("HTTP/1.1 200"),
            "{empty}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_is_no_next_request() {
    let (upstream, gateway) = started().await;
    let smuggled = "DELETE /images/img/shares/7 HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len());
    let answer = raw(&gateway, "PUT", "/images/img/shares/7", &head).await;
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert_nothing_happened(&upstream, &gateway).await;
}

/// A request as bytes, for what no client would send.
async fn raw(gateway: &Gateway, method: &str, path: &str, rest: &str) -> String {
    let address = gateway.base_url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let token = gateway.sharer().token.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{rest}"
    );
    // The gateway may answer and close before everything is written.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_are_404_and_wrong_methods_405_with_or_without_a_token() {
    let (upstream, gateway) = started().await;
    for caller in [gateway.sharer(), gateway.nobody()] {
        for path in [
            "/nothing",
            "/images/",
            "/images/img/",
            "/images/img/shares/",
            "/images//shares/7",
            "/images/img/shares/7/",
            "/audit",
        ] {
            caller.get(path).await.assert_problem(404, "not-found");
            let problem = caller.put(path).await.assert_problem(404, "not-found");
            assert_eq!(
                (problem["effect"].as_str(), problem["retryable"].as_bool()),
                (Some("none"), Some(false)),
                "{path}"
            );
        }
        let wrong = [
            ("POST", "/images/img/shares/7", "DELETE, GET, HEAD, PUT"),
            ("PATCH", "/images/%2F/shares/0", "DELETE, GET, HEAD, PUT"),
            ("POST", "/images/img/shares", "GET, HEAD, PATCH, PUT"),
            ("PUT", "/images", "GET, HEAD"),
            ("DELETE", "/images/img", "GET, HEAD"),
            ("DELETE", "/audit/events", "GET, HEAD"),
            ("POST", "/audit/events/x", "GET, HEAD"),
            ("POST", "/openapi.json", "GET, HEAD"),
            ("POST", "/swagger-ui/", "GET, HEAD"),
            ("PUT", "/livez", "GET, HEAD"),
            ("PUT", "/readyz", "GET, HEAD"),
            ("BREW", "/images/img/shares/7", "DELETE, GET, HEAD, PUT"),
        ];
        for (method, path, allow) in wrong {
            let answer = caller.send(method, path).await;
            answer.assert_problem(405, "method-not-allowed");
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        }
    }
    assert_nothing_happened(&upstream, &gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_over_32_kib_is_431_before_anything_else() {
    let (upstream, gateway) = started().await;
    for caller in [gateway.sharer(), gateway.nobody()] {
        for path in ["/images/img/shares/7", "/nothing"] {
            let request = caller
                .request("PUT", path)
                .header("X-Padding", "x".repeat(33 * 1024));
            let problem = Answer::of(request)
                .await
                .assert_problem(431, "headers-too-large");
            assert_eq!(problem["retryable"], false);
        }
    }
    let long = format!("/images/img/shares?region={}", "x".repeat(33 * 1024));
    gateway
        .sharer()
        .get(&long)
        .await
        .assert_problem(431, "headers-too-large");
    assert_nothing_happened(&upstream, &gateway).await;
    let below = gateway
        .sharer()
        .request("PUT", "/images/img/shares/7")
        .header("X-Padding", "x".repeat(31 * 1024));
    assert_eq!(Answer::of(below).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_prefer_is_ignored() {
    let (_upstream, gateway) = started().await;
    for prefer in ["wait", "wait=soon", "respond-async", "wait=-1", ";;;"] {
        let request = gateway
            .sharer()
            .request("PUT", "/images/img/shares/7")
            .header("Prefer", prefer);
        assert_eq!(Answer::of(request).await.status, 200, "{prefer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_requests_do_not_disturb_others() {
    let (upstream, gateway) = started().await;
    let address = gateway.base_url.strip_prefix("http://").unwrap().to_owned();
    for bytes in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "PUT /images/img/shares/7 HTTP/9.9\r\n\r\n",
        "\0\0\0\0",
        "GET / HTTP/1.1\r\nA\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{bytes:?}"
        );
    }
    assert_nothing_happened(&upstream, &gateway).await;
    assert_eq!(
        gateway.sharer().put("/images/img/shares/7").await.status,
        200
    );
}
