//! What comes in one piece: events as NDJSON and CSV, summaries, and the feed.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, Gateway, LONG_TRAIL_ROWS, eventually, rounds};

async fn with_changes() -> Gateway {
    let gateway = Gateway::spawn().await;
    for number in 1..=7 {
        let path = format!("/images/img-{}/shares/{number}?reason=%3D1%2B1", number % 2);
        gateway.sharer().put(&path).await;
    }
    let auditor = gateway.caller("audit:read");
    auditor.put("/images/img-0/shares/5").await;
    gateway
}

async fn get_as(gateway: &Gateway, accept: &str, path: &str) -> Answer {
    let request = gateway.auditor().request("GET", path);
    Answer::of(request.header("Accept", accept)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_filtered_set_streams_as_ndjson_and_csv() {
    let gateway = with_changes().await;
    let mut events = gateway.events().await;
    events.reverse();
    let ndjson = get_as(&gateway, "application/x-ndjson", "/audit/events").await;
    assert_eq!(ndjson.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(ndjson.header("link"), None);
    let lines: Vec<Value> = ndjson
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines, events, "newest first, as the pages");

    let path = "/audit/events?image_id=img-1&order=asc&outcome=succeeded";
    let csv = get_as(&gateway, "text/csv", path).await;
    assert!(csv.header("content-type").unwrap().starts_with("text/csv"));
    let mut rows = csv::Reader::from_reader(csv.body.as_bytes());
    let header = rows.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    let expected: Vec<&Value> = events
        .iter()
        .rev()
        .filter(|event| event["image_id"] == "img-1" && event["outcome"] == "succeeded")
        .collect();
    assert_eq!(rows.len(), expected.len());
    for (row, event) in rows.iter().zip(expected) {
        for (name, cell) in header.iter().zip(row) {
            let shown = match &event[name] {
                Value::Null | Value::Array(_) => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let shown = if name == "reason" {
                "'=1+1".to_owned()
            } else {
                shown
            };
            assert_eq!(cell, shown, "{name}");
        }
    }

    let two = get_as(&gateway, "text/csv", "/audit/events?limit=2").await;
    assert_eq!(two.body.lines().count(), 3, "a header and two events");
    let none = get_as(&gateway, "text/csv", "/audit/events?subject=nobody").await;
    assert_eq!(none.body.lines().count(), 1, "a header alone");
    let page = gateway.auditor().get("/audit/events?limit=3").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = get_as(
        &gateway,
        "application/x-ndjson",
        &format!("/audit/events?cursor={cursor}"),
    )
    .await;
    assert_eq!(rest.body.lines().count(), events.len() - 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_is_not_there_is_406_and_problems_stay_problems() {
    let gateway = with_changes().await;
    for path in ["/audit/events", "/audit/entries"] {
        let answer = get_as(&gateway, "text/html", path).await;
        answer.assert_problem(406, "not-acceptable");
    }
    get_as(&gateway, "text/event-stream", "/audit/events")
        .await
        .assert_problem(406, "not-acceptable");
    get_as(&gateway, "text/csv", "/audit/events?limit=0")
        .await
        .assert_problem(400, "invalid-request");
    let html = get_as(&gateway, "text/html", "/audit/summary").await;
    assert_eq!(
        html.status, 200,
        "there is one format, and nothing to choose"
    );
    for path in ["/audit/events", "/audit/entries", "/audit/summary"] {
        gateway
            .sharer()
            .get(path)
            .await
            .assert_problem(403, "insufficient-scope");
        gateway
            .nobody()
            .get(path)
            .await
            .assert_problem(401, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_answers_on_streams_as_on_pages() {
    let gateway = with_changes().await;
    let address = gateway.base_url.strip_prefix("http://").unwrap();
    let token = gateway.auditor().token.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    for (path, accept, media_type) in [
        ("/audit/entries", "*/*", "application/x-ndjson"),
        (
            "/audit/entries?follow=true",
            "text/event-stream",
            "text/event-stream",
        ),
        (
            "/audit/events",
            "text/csv",
            "text/csv; charset=utf-8; header=present",
        ),
        ("/audit/events", "*/*", "application/json"),
        ("/audit/summary", "*/*", "application/json"),
    ] {
        let head = format!(
            "HEAD {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "{path}");
        }
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{path}: {text}");
        let named = format!("content-type: {media_type}\r\n");
        assert!(text.to_ascii_lowercase().contains(&named), "{path}: {text}");
    }
    // The connection is as it should be: it serves on.
    let get = format!(
        "GET /audit/entries HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200") && text.contains("\"sequence\":15"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_counts_by_outcome_in_buckets_that_ascend() {
    let gateway = with_changes().await;
    let summary = gateway.auditor().get("/audit/summary").await.json();
    assert_eq!(summary["bucket"], "day");
    let buckets = summary["buckets"].as_array().unwrap();
    assert!(
        (30..=32).contains(&buckets.len()),
        "thirty days back: {summary}"
    );
    let starts: Vec<&str> = buckets
        .iter()
        .map(|bucket| bucket["start"].as_str().unwrap())
        .collect();
    assert!(starts.is_sorted());
    let total = |outcome: &str| -> i64 {
        let counts = buckets
            .iter()
            .map(|bucket| bucket["counts"][outcome].as_i64());
        counts.map(Option::unwrap).sum()
    };
    assert_eq!(
        [
            "pending",
            "succeeded",
            "invalid_account",
            "denied",
            "failed",
            "unknown"
        ]
        .map(total),
        [0, 7, 0, 1, 0, 0]
    );
    let hours = "/audit/summary?bucket=hour&from=2026-01-01T00:30:00Z&to=2026-01-01T03:00:00Z&image_id=img-1";
    let hours = gateway.auditor().get(hours).await.json();
    let zero = serde_json::json!({"pending": 0, "succeeded": 0, "invalid_account": 0, "denied": 0, "failed": 0,
        "unknown": 0});
    let bucket = |hour| serde_json::json!({"start": format!("2026-01-01T0{hour}:00:00.000000Z"), "counts": zero});
    assert_eq!(
        hours,
        serde_json::json!({"bucket": "hour", "buckets": [bucket(0), bucket(1), bucket(2)]})
    );
    for (query, name) in [
        ("bucket=week", "bucket"),
        ("limit=3", "limit"),
        ("bucket=hour&from=2020-01-01T00:00:00Z", "from"),
        ("from=x", "from"),
    ] {
        let answer = gateway
            .auditor()
            .get(&format!("/audit/summary?{query}"))
            .await;
        let problem = answer.assert_problem(400, "invalid-request");
        assert_eq!(problem["errors"][0]["name"], name, "{query}");
    }
}

/// Rows of the feed, read one after another over a connection of its own.
struct Follower {
    response: reqwest::Response,
    read: Vec<u8>,
    server_sent: bool,
    id: Option<String>,
}

impl Follower {
    /// Begins behind the cursor, by header or parameter, following.
    async fn begin(gateway: &Gateway, after: Option<&str>, server_sent: bool) -> Self {
        let path = match after {
            Some(cursor) if !server_sent => format!("/audit/entries?follow=true&after={cursor}"),
            _ => "/audit/entries?follow=true".to_owned(),
        };
        let mut request = gateway.auditor().request("GET", &path);
        if server_sent {
            request = request.header("Accept", "text/event-stream");
            if let Some(cursor) = after {
                request = request.header("Last-Event-ID", cursor);
            }
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self {
            response,
            read: Vec::new(),
            server_sent,
            id: None,
        }
    }

    /// The next line; `None` at the end of a body that is whole.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            self.read.extend(self.response.chunk().await.unwrap()?);
        }
    }

    /// The next row; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let line = self.line().await?;
            let json = if self.server_sent {
                if let Some(id) = line.strip_prefix("id: ") {
                    self.id = Some(id.to_owned());
                }
                match line.strip_prefix("data: ") {
                    Some(json) => json.to_owned(),
                    None => continue,
                }
            } else if line.is_empty() {
                continue;
            } else {
                line
            };
            let row: Value = serde_json::from_str(&json).unwrap();
            if self.server_sent {
                assert_eq!(row["cursor"].as_str(), self.id.as_deref());
            }
            return Some(row);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_gives_the_rows_with_every_member_of_the_contract() {
    let gateway = with_changes().await;
    let feed = gateway.auditor().get("/audit/entries").await;
    assert_eq!(feed.header("content-type"), Some("application/x-ndjson"));
    let rows: Vec<Value> = feed
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 15);
    let mut connection = gateway.connect().await;
    let columns: Vec<String> =
        sqlx::query_scalar("SELECT name FROM pragma_table_info('audit_entries')")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let mut members: BTreeSet<&str> = columns.iter().map(String::as_str).collect();
    members.extend(["cursor", "previous_hash"]);
    for row in &rows {
        let found: BTreeSet<&str> = row
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(found, members);
        assert!(row["recorded_at"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(rows[0]["previous_hash"], "0".repeat(64));
    assert_eq!(rows[14]["kind"], "denial");
    assert_eq!(rows[0]["policy_ids"], serde_json::json!([]));
    assert_eq!(rows[1]["policy_ids"], Value::Null);

    let cursor = rows[9]["cursor"].as_str().unwrap();
    let other = rows[3]["cursor"].as_str().unwrap();
    let rest = gateway
        .auditor()
        .get(&format!("/audit/entries?after={cursor}&follow=false"))
        .await;
    assert_eq!(rest.body.lines().count(), 5);
    let both = gateway
        .auditor()
        .request("GET", &format!("/audit/entries?after={other}"))
        .header("Last-Event-ID", cursor);
    assert_eq!(Answer::of(both).await.body, rest.body, "the header wins");
    for path in ["after=x", "after=", "follow=1", "limit=3"] {
        let answer = gateway
            .auditor()
            .get(&format!("/audit/entries?{path}"))
            .await;
        answer.assert_problem(400, "invalid-request");
    }
    let foreign = Gateway::spawn().await;
    let refused = foreign
        .auditor()
        .get(&format!("/audit/entries?after={cursor}"))
        .await;
    assert_eq!(
        refused.assert_problem(400, "invalid-request")["errors"][0]["name"],
        "after"
    );
    let by_header = foreign.auditor().request("GET", "/audit/entries");
    let refused = Answer::of(by_header.header("Last-Event-ID", cursor)).await;
    let problem = refused.assert_problem(400, "invalid-request");
    assert_eq!(problem["errors"][0]["in"], "header");
    assert_eq!(problem["errors"][0]["name"], "Last-Event-ID");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_cut_off_at_random_sees_each_row_once_while_64_write() {
    let gateway = Gateway::spawn().await;
    let each = usize::try_from(rounds(5, 100)).unwrap();
    let all = 64 * each * 2;
    let writers = (0..64).map(|writer| {
        let gateway = &gateway;
        async move {
            for number in 0..each {
                let account = writer * 1000 + number + 1;
                let path = format!("/images/img-{writer}/shares/{account}");
                let answer = gateway.sharer().put(&path).await;
                assert_eq!(answer.status, 200);
            }
        }
    });
    let reading = async {
        let (mut rows, mut after, mut turn) = (Vec::<Value>::new(), None::<String>, 0_usize);
        while rows.len() < all {
            let mut follower = Follower::begin(&gateway, after.as_deref(), turn % 2 == 0).await;
            turn += 1;
            // As random as a hash is: where the last row's ends decides how far this reader comes.
            let luck = rows.last().map_or(7, |row| {
                let hash = row["hash"].as_str().unwrap();
                usize::from_str_radix(&hash[..2], 16).unwrap()
            });
            for _ in 0..=luck {
                if rows.len() == all {
                    break;
                }
                let row = follower.next().await.expect("the feed goes on");
                after = row["cursor"].as_str().map(str::to_owned);
                rows.push(row);
            }
        }
        (rows, turn)
    };
    let (_, (rows, turns)) = tokio::join!(futures_util::future::join_all(writers), reading);
    assert!(turns > 2, "it was cut off");
    let mut before = "0".repeat(64);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row["sequence"], index + 1, "each row once, in chain order");
        assert_eq!(row["previous_hash"].as_str(), Some(before.as_str()));
        row["hash"].as_str().unwrap().clone_into(&mut before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_slows_nobody_and_misses_nothing() {
    let gateway = Gateway::spawn().await;
    let mut idle = Follower::begin(&gateway, None, false).await;
    let writers = (0..8).map(|writer| {
        let gateway = &gateway;
        async move {
            for number in 1..=150 {
                let path = format!("/images/img-{writer}/shares/{number}");
                assert_eq!(gateway.sharer().put(&path).await.status, 200);
            }
        }
    });
    futures_util::future::join_all(writers).await;
    for sequence in 1..=2400 {
        let row = idle.next().await.expect("the feed goes on");
        assert_eq!(row["sequence"], sequence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_hears_that_the_gateway_lives_and_is_ended_by_a_drain() {
    let mut gateway = Gateway::spawn().await;
    gateway.sharer().put("/images/img/shares/1").await;
    let mut quiet = [
        Follower::begin(&gateway, None, false).await,
        Follower::begin(&gateway, None, true).await,
    ];
    for follower in &mut quiet {
        follower.next().await.expect("a row");
        follower.next().await.expect("a row");
        let expected = if follower.server_sent {
            ": keep-alive"
        } else {
            ""
        };
        // An event of SSE ends with an empty line of its own.
        let mut line = follower.line().await.unwrap();
        if follower.server_sent && line.is_empty() {
            line = follower.line().await.unwrap();
        }
        assert_eq!(line, expected);
    }
    assert!(gateway.stop().await, "followers do not keep a stop waiting");
    for follower in &mut quiet {
        assert_eq!(follower.next().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_a_stream_that_is_being_taken_and_breaks_off_one_that_is_not() {
    let mut gateway = Gateway::with_long_trail(&[("server.shutdown_timeout", "10s")]).await;
    let begin = || async {
        let request = gateway.auditor().request("GET", "/audit/entries");
        request.send().await.unwrap()
    };
    let (taken, left) = (begin().await, begin().await);
    let (text, clean) = tokio::join!(taken.text(), gateway.stop());
    assert_eq!(text.unwrap().lines().count(), LONG_TRAIL_ROWS);
    assert!(!clean, "the one that nobody takes was in flight");
    let broken = left.text().await;
    assert!(broken.is_err(), "a part is not taken for the whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_takes_nothing_keeps_no_stop_waiting() {
    let mut gateway = Gateway::with_long_trail(&[("server.shutdown_timeout", "10m")]).await;
    let request = gateway
        .auditor()
        .request("GET", "/audit/entries?follow=true");
    let stalled = request.send().await.unwrap();
    assert!(
        gateway.stop().await,
        "a stop does not wait for it, and is clean"
    );
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_cannot_take_the_places_of_all_streams() {
    let gateway = Gateway::with_long_trail(&[]).await;
    let export = || async {
        let request = gateway.auditor().request("GET", "/audit/events");
        let request = request.header("Accept", "application/x-ndjson");
        request.send().await.unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..32 {
        let response = export().await;
        assert_eq!(response.status(), 200);
        open.push(response);
    }
    let refused = get_as(&gateway, "application/x-ndjson", "/audit/events").await;
    refused.assert_problem(503, "overloaded");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        gateway.auditor().get("/audit/events").await.status,
        200,
        "pages go on"
    );
    let mut other = gateway.auditor();
    other.token = Some(crate::support::token("team-b", "audit:read"));
    assert_eq!(
        other.get("/audit/entries").await.status,
        200,
        "so do others"
    );
    open.pop();
    eventually("a place is free again", async || {
        (export().await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_begins_near_the_end_where_it_is_told() {
    let gateway = Gateway::spawn().await;
    for account in 1..=3 {
        gateway
            .sharer()
            .put(&format!("/images/img/shares/{account}"))
            .await;
    }
    let rows = async |query: &str, last: Option<&str>| -> Vec<Value> {
        let request = gateway
            .auditor()
            .request("GET", &format!("/audit/entries?{query}"));
        let answer = Answer::of(match last {
            Some(last) => request.header("Last-Event-ID", last),
            None => request,
        })
        .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
            .body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let all = rows("", None).await;
    assert_eq!(all.len(), 6);
    for (tail, count) in [(0, 0), (1, 1), (6, 6), (1000, 6)] {
        let some = rows(&format!("tail={tail}"), None).await;
        assert_eq!(some, all[6 - count..], "{tail}");
    }
    // A reader that was cut off goes on where it was, whatever its address says.
    let third = all[2]["cursor"].as_str().unwrap();
    assert_eq!(rows("tail=0", Some(third)).await, all[3..]);
    for (query, name) in [
        ("tail=1001", "tail"),
        ("tail=-1", "tail"),
        ("tail=", "tail"),
    ] {
        let refused = gateway
            .auditor()
            .get(&format!("/audit/entries?{query}"))
            .await;
        let problem = refused.assert_problem(400, "invalid-request");
        assert_eq!(problem["errors"][0]["name"], name, "{query}");
    }
    let both = gateway
        .auditor()
        .get(&format!("/audit/entries?tail=1&after={third}"))
        .await;
    both.assert_problem(400, "invalid-request");
}
