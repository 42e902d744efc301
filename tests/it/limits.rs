//! How much may be asked, and what those who ask too much do to others: nothing.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, Gateway, Program, environment, token};

const SHARE: &str = "/images/img/shares/7";

fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_asks_too_much_is_429_with_a_true_retry_after_and_others_are_not() {
    let settings = [
        ("limits.requests_per_second", "0.001"),
        ("limits.burst", "3"),
    ];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let reader = gateway.with(token("team-a", "audit:read shares:read shares:write"));
    for left in [2, 1, 0] {
        let answer = reader.get("/audit/events").await;
        assert_eq!(answer.status, 200);
        let limit = answer.header("ratelimit").unwrap();
        assert!(
            limit.starts_with(&format!(r#""subject";r={left};t="#)),
            "{limit}"
        );
    }
    // Every route of callers counts, and says the same; what is wrong by itself says that first.
    for (method, path) in [
        ("GET", "/whoami"),
        ("HEAD", "/whoami"),
        ("GET", "/audit/events"),
        ("GET", "/audit/events/x"),
        ("GET", "/audit/entries"),
        ("GET", "/audit/summary"),
        ("GET", "/images"),
        ("GET", "/images/img"),
        ("GET", "/images/img/shares"),
        ("GET", SHARE),
        ("PUT", SHARE),
        ("DELETE", SHARE),
    ] {
        let limited = reader.send(method, path).await;
        let wait = retry_after(&limited);
        assert!((900..=1000).contains(&wait), "{method} {path}: {wait}");
        let limit = limited.header("ratelimit").unwrap();
        let parts = limit.strip_prefix(r#""subject";r=0;t="#).unwrap();
        let until_full: u64 = parts.parse().unwrap();
        assert!((wait..=3000).contains(&until_full), "{limit}");
        let policy = limited.header("ratelimit-policy");
        assert_eq!(policy, Some(r#""subject";q=3;w=3000"#), "{method} {path}");
        if method == "HEAD" {
            assert_eq!((limited.status, limited.body.as_str()), (429, ""));
            continue;
        }
        let problem = limited.assert_problem(429, "rate-limited");
        if method == "PUT" || method == "DELETE" {
            assert_eq!(problem["effect"], "none");
            assert_eq!(problem["retryable"], true);
        }
    }
    // What no limit counts says nothing of one.
    for (path, status) in [
        ("/audit/events?colour=blue", 400),
        ("/whoami?colour=blue", 400),
        ("/nowhere", 404),
        ("/livez", 200),
        ("/openapi.json", 200),
    ] {
        let answer = reader.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("ratelimit"), None, "{path}");
    }
    assert_eq!(
        gateway.nobody().get("/whoami").await.header("ratelimit"),
        None
    );
    let other = gateway.with(token("team-b", "audit:read"));
    let events = other.get("/audit/events").await;
    assert_eq!(events.status, 200);
    assert!(
        events.body.contains(r#""events":[]"#),
        "what is limited is not forwarded and not written: {}",
        events.body
    );
    let settings = [("limits.requests_per_second", "1"), ("limits.burst", "1")];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let reader = gateway.with(token("team-a", "audit:read"));
    crate::support::eventually("its token is taken", async || {
        (reader.get("/whoami").await.status == 429).then_some(())
    })
    .await;
    crate::support::eventually("its token comes back", async || {
        (reader.get("/whoami").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_limit_counts_says_what_is_left_however_it_ends() {
    let settings = [
        ("limits.requests_per_second", "0.001"),
        ("limits.burst", "100"),
        ("limits.failed_authentications_per_minute", "1"),
        ("server.cors_origins", "https://console.example"),
    ];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let caller = gateway.with(token("team-a", "audit:read shares:write"));
    let mut left = 100;
    for (method, path, body, status, cost) in [
        ("GET", "/whoami", None, 200, 1),
        ("GET", "/audit/events", None, 200, 1),
        ("GET", "/audit/entries", None, 200, 1),
        ("GET", "/audit/events/x", None, 404, 1),
        ("GET", SHARE, None, 403, 1),
        ("PUT", "/images/img/shares/7?dry_run=true", None, 503, 1),
        ("PUT", SHARE, None, 503, 1),
        ("DELETE", SHARE, None, 503, 1),
        (
            "PATCH",
            "/images/img/shares",
            Some(json!({"add": (1..=25).collect::<Vec<u64>>()})),
            200,
            3,
        ),
    ] {
        let request = caller.request(method, path);
        let request = request.header("Origin", "https://console.example");
        let request = match body {
            Some(body) => request
                .header("Content-Type", "application/json")
                .body(body.to_string()),
            None => request,
        };
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        left -= cost;
        let limit = answer.header("ratelimit").unwrap();
        assert!(
            limit.starts_with(&format!(r#""subject";r={left};t="#)),
            "{method} {path}: {limit}"
        );
        let policy = answer.header("ratelimit-policy");
        assert_eq!(policy, Some(r#""subject";q=100;w=100000"#));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for header in ["ratelimit", "ratelimit-policy"] {
            let mut names = exposed.split(',').map(|name| name.trim().to_lowercase());
            assert!(names.any(|name| name == header), "{exposed}");
        }
    }
    // A bulk that is too much is told what is left although it is something.
    let many = json!({"add": (1..=1000).collect::<Vec<u64>>()}).to_string();
    let bulk = |body: String, media_type: &str| {
        let request = caller.request("PATCH", "/images/img/shares");
        request.header("Content-Type", media_type).body(body)
    };
    let limited = Answer::of(bulk(many.clone(), "application/json")).await;
    assert_eq!(limited.status, 429);
    let limit = limited.header("ratelimit").unwrap();
    assert!(
        limit.starts_with(&format!(r#""subject";r={left};t="#)),
        "{limit}"
    );
    // What is refused before is not counted, and says nothing.
    let of_events = caller
        .request("GET", "/audit/events")
        .header("Accept", "image/png");
    for (request, status) in [
        (bulk(many, "text/plain"), 415),
        (bulk("x".repeat(70_000), "application/json"), 413),
        (bulk("{}".into(), "application/json"), 400),
        (of_events, 406),
        (
            gateway.nobody().request("GET", "/whoami").bearer_auth("x"),
            401,
        ),
        (
            gateway.nobody().request("GET", "/whoami").bearer_auth("x"),
            429,
        ),
    ] {
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, status, "{answer:?}");
        for name in ["ratelimit", "ratelimit-policy"] {
            assert_eq!(answer.header(name), None, "{status}");
        }
    }
    let off = Gateway::in_front_of("http://127.0.0.1:9", &[]).await;
    let answer = off.auditor().get("/audit/events").await;
    assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_costs_a_tenth_of_its_accounts() {
    let settings = [
        ("limits.requests_per_second", "0.001"),
        ("limits.burst", "5"),
    ];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let bulk = async |subject: &str, method: &str, body: serde_json::Value| {
        let caller = gateway.with(token(subject, "shares:read shares:write"));
        let request = caller.request(method, "/images/img/shares?dry_run=true");
        let request = request
            .header("Content-Type", "application/json")
            .body(body.to_string());
        Answer::of(request).await.status
    };
    let accounts = |count: u64| (1..=count).collect::<Vec<u64>>();
    // 41 accounts are five tokens, and 20 in two lists are two.
    assert_eq!(bulk("a", "PATCH", json!({"add": accounts(41)})).await, 503);
    assert_eq!(bulk("a", "PATCH", json!({"add": [1]})).await, 429);
    for _ in 0..2 {
        assert_eq!(
            bulk(
                "b",
                "PATCH",
                json!({"add": accounts(11), "remove": [100, 101]})
            )
            .await,
            503
        );
    }
    assert_eq!(bulk("b", "PATCH", json!({"add": accounts(11)})).await, 429);
    // Never more than a whole bucket.
    assert_eq!(
        bulk("c", "PUT", json!({"accounts": accounts(1000)})).await,
        503
    );
    assert_eq!(bulk("c", "PUT", json!({"accounts": []})).await, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_authentications_are_limited_by_address_and_never_lock_out_a_good_token() {
    let settings = [
        ("limits.failed_authentications_per_minute", "3"),
        ("server.trusted_proxies", "127.0.0.0/8"),
    ];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let from = async |address: &str, token: &str| {
        let request = gateway.nobody().request("GET", "/audit/events");
        let request = request
            .header("X-Forwarded-For", address)
            .bearer_auth(token);
        Answer::of(request).await
    };
    for _ in 0..3 {
        assert_eq!(from("192.0.2.1", "a.b.c").await.status, 401);
    }
    let limited = from("192.0.2.1", "a.b.c").await;
    limited.assert_problem(429, "rate-limited");
    assert!((1..=20).contains(&retry_after(&limited)));
    let good = token("team-a", "audit:read");
    for _ in 0..10 {
        assert_eq!(from("192.0.2.1", &good).await.status, 200);
    }
    assert_eq!(
        from("192.0.2.2", "a.b.c").await.status,
        401,
        "another address"
    );
    // Who sends no token at all fails too.
    assert_eq!(gateway.nobody().get("/audit/events").await.status, 401);
}

/// Resident memory of a process.
fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_garbage_tokens_leave_the_trail_as_it_was_and_memory_flat() {
    garbage("0", 401).await;
    garbage("60", 429).await;
}

async fn garbage(limit: &str, last_status: u16) {
    let directory = tempfile::tempdir().unwrap();
    crate::support::keys_file(directory.path());
    let mut variables = environment("http://127.0.0.1:9");
    variables.push(("ISG__LIMITS__FAILED_AUTHENTICATIONS_PER_MINUTE", limit));
    let program = Program::spawn(directory.path(), &["serve"], &variables);
    let base_url = program.base_url().await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let good = token("team-a", "shares:write audit:read");
    let put = client.put(format!("{base_url}{SHARE}")).bearer_auth(&good);
    assert_eq!(
        put.send().await.unwrap().status(),
        503,
        "an event stands in the trail"
    );
    let trail = async || {
        let get = client
            .get(format!("{base_url}/audit/entries"))
            .bearer_auth(&good);
        get.send().await.unwrap().text().await.unwrap()
    };
    let before = trail().await;
    let send = async |from: usize, to: usize| {
        let callers = (0..16).map(|caller| {
            let (client, base_url) = (&client, &base_url);
            async move {
                let mut last = 0;
                for number in (from..to).filter(|number| number % 16 == caller) {
                    let forged = format!("e30.e30.{}", "x".repeat(number % 700));
                    let request =
                        client.delete(format!("{base_url}/images/img/shares/{}", number + 1));
                    last = request
                        .bearer_auth(forged)
                        .send()
                        .await
                        .unwrap()
                        .status()
                        .as_u16();
                    assert!(matches!(last, 401 | 429), "{last}");
                }
                last
            }
        });
        join_all(callers).await
    };
    send(0, 3000).await;
    let warm = resident_kib(program.id());
    let last = send(3000, 13_000).await;
    let grown = resident_kib(program.id()).saturating_sub(warm);
    assert!(grown < 6 * 1024, "memory grew by {grown} KiB");
    // A place of the bucket may have come back just then.
    let others = last.iter().filter(|status| **status != last_status);
    assert!(others.count() <= 2, "{last:?}");
    assert_eq!(trail().await, before, "row count and head are unchanged");
}

/// A byte now and then until there is an answer, or the connection ends.
async fn drip(mut stream: tokio::net::TcpStream) -> String {
    let mut answer = vec![0; 4096];
    loop {
        tokio::select! {
            read = stream.read(&mut answer) => {
                let length = read.unwrap_or(0);
                return String::from_utf8_lossy(&answer[..length]).into_owned();
            }
            () = tokio::time::sleep(Duration::from_millis(300)) => {
                if stream.write_all(b"x").await.is_err() {
                    return String::new();
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "what is promised is a time")]
async fn slow_clients_are_cut() {
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &[]).await;
    let address = gateway.base_url.strip_prefix("http://").unwrap().to_owned();
    let good = token("team-a", "shares:write");
    let slow_head = async {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            .await
            .unwrap();
        drip(stream).await
    };
    let slow_body = async {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "PATCH /images/img/shares HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {good}\r\n\
             Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        drip(stream).await
    };
    let begun = Instant::now();
    let (head, body) = tokio::join!(slow_head, slow_body);
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408"),
        "{head}"
    );
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert!(body.contains("request-timeout"), "{body}");
}
