//! What clients do to connections: hold many, ask for other protocols, speak an older HTTP.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{
    Gateway, Program, Reply, Scripted, environment, eventually, keys_file, token,
};

async fn connect(base_url: &str) -> TcpStream {
    let address = base_url.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// One whole answer with a length, and whether the connection says that it ends.
async fn answer(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    let whole = async {
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
                if body.len() >= length {
                    return text;
                }
            }
            let length = stream.read(&mut buffer).await.unwrap();
            assert!(length > 0, "it ended: {text}");
            read.extend_from_slice(&buffer[..length]);
        }
    };
    tokio::time::timeout(Duration::from_secs(5), whole)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_ignored_and_the_connection_stays() {
    let gateway = Gateway::spawn().await;
    let bearer = token("team-a", "shares:read shares:write");
    let upgrades = [
        // As Java's HttpClient sends it with every plain request.
        "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n",
        "connection: keep-alive, upgrade\r\nupgrade: TLS/1.0, h2c\r\n",
        "Upgrade: websocket\r\n",
    ];
    for upgrade in upgrades {
        let mut stream = connect(&gateway.base_url).await;
        for (method, body, status) in [
            ("PUT", "", "200"),
            ("GET", "", "200"),
            ("PUT", "{\"reason\":\"upgrade\"}", "200"),
            ("DELETE", "", "204"),
            ("GET", "", "404"),
        ] {
            let kind = if body.is_empty() {
                String::new()
            } else {
                let length = body.len();
                format!("Content-Type: application/json\r\nContent-Length: {length}\r\n")
            };
            let request = format!(
                "{method} /images/img/shares/7 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n{upgrade}{kind}\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = answer(&mut stream).await;
            let first = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&first), "{method} {upgrade}: {answer}");
            let head = answer.to_lowercase();
            assert!(!head.contains("connection: close"), "{answer}");
            assert!(!head.contains("upgrade"), "{answer}");
        }
    }
    let events = gateway.events().await;
    assert_eq!(events[1]["reason"], "upgrade", "a body is left as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_http_gets_pages_by_length_and_no_stream() {
    let gateway = Gateway::spawn().await;
    gateway.sharer().put("/images/img/shares/7").await;
    let bearer = token("team-a", "shares:read audit:read");
    for (path, accept, status) in [
        ("/audit/events", "application/json", "200"),
        ("/images/img/shares", "*/*", "200"),
        ("/openapi.json", "*/*", "200"),
        ("/swagger-ui/", "*/*", "200"),
        ("/readyz", "*/*", "200"),
        ("/images/img/shares/8", "*/*", "404"),
        ("/audit/events", "application/x-ndjson", "505"),
        ("/audit/events", "text/csv", "505"),
        ("/audit/entries", "*/*", "505"),
        ("/audit/entries?follow=true", "text/event-stream", "505"),
    ] {
        let mut stream = connect(&gateway.base_url).await;
        let request = format!(
            "GET {path} HTTP/1.0\r\nAccept: {accept}\r\nAuthorization: Bearer {bearer}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        let text = String::from_utf8(read).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.split(' ').nth(1) == Some(status),
            "{path} {accept}: {head}"
        );
        let head = head.to_lowercase();
        assert!(!head.contains("transfer-encoding"), "{path}: {head}");
        let length = format!("content-length: {}", body.len());
        assert!(head.contains(&length), "{path}: {head}");
        if status == "505" {
            assert!(body.contains("/problems/http-version-not-supported"));
        }
    }
}

/// The program behind a low limit of open files that it may not raise.
fn behind_a_limit(soft: u32, hard: u32) -> std::process::Command {
    let mut command = std::process::Command::new("bash");
    let limits = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
    command
        .args(["-c", &limits])
        .arg(env!("CARGO_BIN_EXE_image-share-gateway"))
        .env_remove("RUST_LOG")
        .stdin(std::process::Stdio::null());
    command
}

fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .count()
}

fn open_files_limit(process: u32) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    line.unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_stop_no_gateway_and_take_one_descriptor_each() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let upstream = Scripted::start(|_| Reply::Done).await;
    let environment = environment(&upstream.url);
    let program = Program::started(
        behind_a_limit(256, 700),
        directory.path(),
        &["serve"],
        &environment,
    );
    let base_url = program.base_url().await;
    assert!(
        open_files_limit(program.id()).contains("700"),
        "it is raised as far as it may be"
    );
    let before = descriptors(program.id());
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(connect(&base_url).await);
    }
    eventually("all are accepted", async || {
        (descriptors(program.id()) >= before + 300).then_some(())
    })
    .await;
    let taken = descriptors(program.id()) - before;
    assert!(taken < 320, "{taken} descriptors for 300 connections");

    // More than there are descriptors: those that ask for nothing make room for whoever comes.
    let client = crate::support::client();
    let bearer = token("team-a", "shares:write");
    for number in 0..1000 {
        idle.push(connect(&base_url).await);
        if number % 50 == 0 {
            let put = client.put(format!("{base_url}/images/img/shares/{}", number + 1));
            let status = put.bearer_auth(&bearer).send().await.unwrap().status();
            assert_eq!(status, 200, "beside {number} more idle connections");
        }
    }
    assert!(descriptors(program.id()) < 700);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_connections_than_configured_are_kept() {
    let gateway =
        Gateway::in_front_of("http://127.0.0.1:9", &[("server.max_connections", "4")]).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(connect(&gateway.base_url).await);
    }
    // Which was taken in first the workers decide.
    let has_ended = |stream: &TcpStream| match stream.try_read(&mut [0; 1]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    let ended = eventually("an idle one is cut", async || {
        streams.iter().position(has_ended)
    })
    .await;
    streams.remove(ended);
    for stream in &mut streams {
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_kept_as_long_as_configured() {
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &[("server.keep_alive", "1s")]).await;
    let mut stream = connect(&gateway.base_url).await;
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0; 1])).await;
    assert!(matches!(ended.unwrap(), Ok(0) | Err(_)), "it is ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_left_as_it_is_wherever_its_chunks_begin() {
    let gateway = Gateway::spawn().await;
    let bearer = token("team-a", "shares:write");
    let mut stream = connect(&gateway.base_url).await;
    let chunks = ["{\"reason\":\"please ", "upgrade the image", "\"}"];
    let chunks = chunks.map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    let chunks = chunks.concat();
    for account in [7, 8] {
        let request = format!(
            "PUT /images/img/shares/{account} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n\
             Connection: upgrade\r\nUpgrade: websocket\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    for event in gateway.events().await {
        assert_eq!(event["reason"], "please upgrade the image");
    }
}

/// Whoever sends a request and resets the connection at once has no address any more; asked before it is gone it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_reset_at_once_acts_for_nobody_from_nowhere() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let address = gateway.base_url.strip_prefix("http://").unwrap().to_owned();
    let bearer = token("team-a", "shares:write");
    let resets = (1..=200_u32).map(|account| {
        let request = format!(
            "PUT /images/img/shares/{account} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n\r\n"
        );
        let address = address.clone();
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_zero_linger().unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
        }
    });
    futures_util::future::join_all(resets).await;
    // Behind all of them.
    assert_eq!(
        gateway.sharer().put("/images/img/shares/999").await.status,
        200
    );
    eventually("all have ended", async || {
        let events = gateway.events().await;
        events
            .iter()
            .all(|event| event["outcome"] != "pending")
            .then_some(())
    })
    .await;
    for event in gateway.events().await {
        assert_eq!(event["client_ip"], "127.0.0.1", "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_takes_keeps_no_stop_waiting() {
    let settings = [("server.shutdown_timeout", "25s")];
    let mut gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    let mut hoarders = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&gateway.base_url).await;
        let request = "GET /swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n";
        stream
            .write_all(request.repeat(6).as_bytes())
            .await
            .unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        hoarders.push(stream);
    }
    let stopped = tokio::time::timeout(Duration::from_secs(15), gateway.stop()).await;
    assert!(stopped.unwrap(), "in order, and long before its time is up");
}
