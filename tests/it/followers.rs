//! Whoever follows the feed: for as long as its token, its key and its policy let it, and its client takes something.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, Gateway, LONG_TRAIL_ROWS, SECRET, eventually, set_of, token_with};

/// Follows the feed until it ends; gives what came after the head.
struct Follower {
    stream: TcpStream,
}

impl Follower {
    async fn begin(gateway: &Gateway, token: &str) -> Self {
        let address = gateway.base_url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET /audit/entries?follow=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut begun = Self { stream };
        let head = begun.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(
            head.to_lowercase().contains("x-accel-buffering: no"),
            "{head}"
        );
        begun
    }

    /// Reads until `text` comes.
    async fn until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        let whole = async {
            while !String::from_utf8_lossy(&read).contains(text) {
                let length = self.stream.read(&mut buffer).await.unwrap();
                assert!(length > 0, "it ended: {}", String::from_utf8_lossy(&read));
                read.extend_from_slice(&buffer[..length]);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), whole)
            .await
            .unwrap();
        String::from_utf8(read).unwrap()
    }

    /// Whether the body ends in order, as chunked bodies do.
    async fn ends_in_order(mut self) {
        self.until("0\r\n\r\n").await;
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn reader(claims: &serde_json::Value) -> String {
    let mut all = json!({"scope": "audit:read"});
    all.as_object_mut()
        .unwrap()
        .extend(claims.as_object().unwrap().clone());
    token_with("test", SECRET, &all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_ends_in_order_with_its_token_and_others_go_on() {
    let settings = [("auth.leeway", "1s")];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let short = Follower::begin(&gateway, &reader(&json!({"exp": now() + 2}))).await;
    let mut long = Follower::begin(&gateway, &reader(&json!({}))).await;
    short.ends_in_order().await;
    gateway.sharer().put("/images/img/shares/7").await;
    long.until("\"kind\":\"intent\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_ends_in_order_after_a_reload_that_takes_its_key_or_its_policy() {
    let directory = tempfile::tempdir().unwrap();
    let policies = directory.path().join("policies.cedar");
    std::fs::write(&policies, "permit(principal, action, resource);").unwrap();
    let settings = [("authorization.policy_file", policies.to_str().unwrap())];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let forbidden = Follower::begin(&gateway, &reader(&json!({"sub": "team-b"}))).await;
    let mut allowed = Follower::begin(&gateway, &reader(&json!({}))).await;
    let narrower = "permit(principal == Subject::\"team-a\", action, resource);";
    std::fs::write(&policies, narrower).unwrap();
    gateway.reload().await.unwrap();
    forbidden.ends_in_order().await;
    gateway.sharer().put("/images/img/shares/7").await;
    allowed.until("\"kind\":\"intent\"").await;

    let keys = gateway.directory.path().join("keys.json");
    let secret = b"another secret of the tests, long enough";
    std::fs::write(&keys, set_of("other", secret)).unwrap();
    gateway.reload().await.unwrap();
    allowed.ends_in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_takes_are_cut_and_give_their_places_back() {
    let settings = [("server.keep_alive", "1s")];
    let gateway = Gateway::with_long_trail(&settings).await;
    let address = gateway.base_url.strip_prefix("http://").unwrap();
    let token = reader(&json!({}));
    let mut streams = Vec::new();
    for _ in 0..32 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET /audit/entries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // So much of it as says that it began.
        stream.read_exact(&mut [0; 12]).await.unwrap();
        streams.push(stream);
    }
    let one_more = async || {
        let accept = "application/x-ndjson";
        let request = gateway.auditor().request("GET", "/audit/events?limit=1");
        Answer::of(request.header("Accept", accept)).await.status
    };
    assert_eq!(one_more().await, 503, "all places are taken");
    eventually("the places come back", async || {
        (one_more().await == 200).then_some(())
    })
    .await;
    for mut stream in streams {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest).await;
        // One that was not cut yet goes on now that it is taken, to its end.
        if ended.is_ok() && rest.ends_with(b"0\r\n\r\n") {
            let text = String::from_utf8_lossy(&rest);
            let rows = text.matches("\"cursor\":").count();
            assert_eq!(rows, LONG_TRAIL_ROWS, "a part never looks whole");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_taken_slowly_is_not_cut() {
    let gateway = Gateway::with_long_trail(&[("server.keep_alive", "1s")]).await;
    let address = gateway.base_url.strip_prefix("http://").unwrap();
    // A small window, as slow lines have it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let token = reader(&json!({}));
    let head =
        format!("GET /audit/entries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // 16 KB a second, for twice as long as one lives of which nothing is taken.
    let mut buffer = [0; 4 * 1024];
    for _ in 0..100 {
        stream.read_exact(&mut buffer).await.expect("it goes on");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
