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
    let settings = [("limits.requests_per_second", "1"), ("limits.burst", "3")];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let reader = gateway.with(token("team-a", "audit:read shares:read shares:write"));
    for _ in 0..3 {
        assert_eq!(reader.get("/audit/events").await.status, 200);
    }
    // Every route of callers counts, and says the same; what is wrong by itself says that first.
    for (method, path) in [
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
        let problem = limited.assert_problem(429, "rate-limited");
        assert_eq!(retry_after(&limited), 1, "{method} {path}");
        if method == "PUT" || method == "DELETE" {
            assert_eq!(problem["effect"], "none");
            assert_eq!(problem["retryable"], true);
        }
    }
    assert_eq!(reader.get("/audit/events?colour=blue").await.status, 400);
    assert_eq!(reader.get("/nowhere").await.status, 404);
    let other = gateway.with(token("team-b", "audit:read"));
    let events = other.get("/audit/events").await;
    assert_eq!(events.status, 200);
    assert!(
        events.body.contains(r#""events":[]"#),
        "what is limited is not forwarded and not written: {}",
        events.body
    );
    crate::support::eventually("its token comes back", async || {
        (reader.get("/audit/events").await.status == 200).then_some(())
    })
    .await;
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
    assert!(last.iter().all(|status| *status == last_status), "{last:?}");
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
