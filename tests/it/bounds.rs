//! What one request can make of an answer and of the log, and what a log that nobody reads does.

use std::io::Read as _;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use serde_json::Value;

use crate::support::{Answer, Gateway, Program, binary, environment, eventually, keys_file, token};

/// The same parameter over and over: some 30 KB.
fn many_faults() -> String {
    format!("/images/img/shares/7?{}", "x=1&".repeat(7500))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_tells_a_hundred_faults_and_how_many_there_are() {
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &[]).await;
    for method in ["PUT", "DELETE", "GET"] {
        let answer = gateway.sharer().send(method, &many_faults()).await;
        let problem = answer.assert_problem(400, "invalid-request");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 100);
        assert!(
            problem["detail"].as_str().unwrap().contains("7500"),
            "{}",
            problem["detail"]
        );
        assert!(answer.body.len() < 16 * 1024, "{}", answer.body.len());
    }
    // Faults of a body are bounded the same.
    let accounts = vec!["0"; 1000].join(",");
    let request = gateway
        .sharer()
        .request("PATCH", "/images/img/shares")
        .header("Content-Type", "application/json")
        .body(format!("{{\"add\":[{accounts}]}}"));
    let problem = Answer::of(request)
        .await
        .assert_problem(400, "invalid-request");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 100);
    assert!(problem["detail"].as_str().unwrap().contains("1000"));
}

struct Served {
    program: Program,
    base_url: String,
    client: reqwest::Client,
    _directory: tempfile::TempDir,
}

async fn served(more: &[(&str, &str)]) -> Served {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let mut variables = environment("http://127.0.0.1:9");
    variables.extend(more);
    let program = Program::spawn(directory.path(), &["serve"], &variables);
    Served {
        base_url: program.base_url().await,
        program,
        client: crate::support::client(),
        _directory: directory,
    }
}

impl Served {
    /// The log line of the request of this id.
    async fn line(&self, request_id: &str) -> Value {
        let found = || {
            let log = self.program.log();
            let line = log.lines().find(|line| {
                line.contains("\"answered\"") && line.contains(&format!("\"{request_id}\""))
            })?;
            serde_json::from_str(line).ok()
        };
        eventually("the request is logged", async || found()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_line_that_says_who_from_where_with_what_and_why_not() {
    let served = served(&[("ISG__SERVER__TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let sent = async |id: &str, bearer: &str, path: &str| {
        let request = served.client.put(format!("{}{path}", served.base_url));
        let request = request
            .header("X-Request-Id", id)
            .header("User-Agent", "attacker/1.0")
            .header("X-Forwarded-For", "192.0.2.9");
        request.bearer_auth(bearer).send().await.unwrap().status()
    };
    let share = "/images/img/shares/7";
    let (_, payload) = token("team-a", "shares:write")
        .split_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let forged = format!("e30.{payload}");
    assert_eq!(sent("forged", &forged, share).await, 401);
    let line = served.line("forged").await;
    for (member, value) in [
        ("client.address", "192.0.2.9"),
        ("user_agent.original", "attacker/1.0"),
        ("http.request.method", "PUT"),
        ("http.route", "/images/{image_id}/shares/{account_id}"),
        ("problem", "unauthenticated"),
        (
            "why",
            "the token's header member alg is missing or of a wrong type; alg: expected text, got nothing",
        ),
    ] {
        assert_eq!(line[member], value, "{member}: {line}");
    }
    assert_eq!(line["http.response.status_code"], 401);
    assert!(line["duration_ms"].is_u64(), "{line}");
    assert!(!line.to_string().contains(&payload), "no token: {line}");

    assert_eq!(
        sent("refused", &token("team-a", "shares:read"), share).await,
        403
    );
    let line = served.line("refused").await;
    assert_eq!(
        (&line["subject"], &line["issuer"]),
        (&"team-a".into(), &"https://issuer.example".into())
    );

    // Whatever a caller sends, a line stays short.
    let long = format!(
        "/images/{}/shares/{}",
        "i".repeat(15_000),
        "7".repeat(10_000)
    );
    assert_eq!(
        sent("long", &token("team-a", "shares:write"), &long).await,
        400
    );
    let odd = reqwest::Method::from_bytes("M".repeat(20_000).as_bytes()).unwrap();
    let request = served
        .client
        .request(odd, format!("{}{share}", served.base_url));
    let request = request.header("X-Request-Id", "odd");
    request
        .header("User-Agent", "u".repeat(9000))
        .send()
        .await
        .unwrap();
    // What a caller sends ends no line early, and obeys in no terminal.
    let nasty = "a\u{85}b\u{2028}c\u{9b}31m".as_bytes();
    let request = served.client.get(format!("{}/nothing", served.base_url));
    let request = request.header("X-Request-Id", "nasty");
    let nasty = reqwest::header::HeaderValue::from_bytes(nasty).unwrap();
    request.header("User-Agent", nasty).send().await.unwrap();
    let line = served.line("nasty").await;
    assert_eq!(line["user_agent.original"], "a\u{85}b\u{2028}c\u{9b}31m");
    let odd = |c: char| c != '\n' && (c.is_control() || c == '\u{2028}');
    assert!(!served.program.log().contains(odd));
    for id in ["long", "odd"] {
        let line = served.line(id).await.to_string();
        assert!(line.len() < 2000, "{id}: {} bytes", line.len());
    }
}

/// A gateway whose log goes into a pipe, and where it serves: ports that were free a moment ago, since the log, which would tell
/// them, is what is not read.
fn with_a_pipe_for_its_log(directory: &tempfile::TempDir, filter: &str) -> (Child, String, String) {
    keys_file(directory.path());
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let (rest, admin) = (free(), free());
    let mut variables = environment("http://127.0.0.1:9");
    variables.push(("ISG__SERVER__BIND", &rest));
    variables.push(("ISG__SERVER__ADMIN_BIND", &admin));
    variables.push(("RUST_LOG", filter));
    let child = binary()
        .arg("serve")
        .envs(variables)
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (child, rest, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, rest, admin) = with_a_pipe_for_its_log(&directory, "trace");
    // Held, and read by nobody.
    let mut log = child.stderr.take().unwrap();
    let client = crate::support::client();
    let lost = async || {
        let text = client
            .get(format!("http://{admin}/metrics"))
            .send()
            .await
            .ok()?
            .text()
            .await
            .ok()?;
        let line = text
            .lines()
            .find(|line| line.starts_with("isg_log_lines_lost_total "))?;
        line.split(' ').nth(1)?.parse::<f64>().ok()
    };
    eventually("it serves", lost).await;
    let bearer = token("team-a", "audit:read");
    eventually("lines are lost, and requests are answered", async || {
        for _ in 0..200 {
            let get = client
                .get(format!("http://{rest}/audit/events"))
                .bearer_auth(&bearer);
            assert_eq!(get.send().await.unwrap().status(), 200);
        }
        (lost().await? > 0.0).then_some(())
    })
    .await;
    // Nor does it keep the gateway from its end.
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let child = std::cell::RefCell::new(child);
    let ended = eventually("it ends", async || child.borrow_mut().try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(0));
    let mut begun = [0; 64];
    assert!(log.read(&mut begun).unwrap() > 0, "there was a log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_is_gone_stops_nothing_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, rest, admin) = with_a_pipe_for_its_log(&directory, "info");
    let client = crate::support::client();
    let get = |address: &str, path: &str| client.get(format!("http://{address}{path}")).send();
    eventually("it serves", async || {
        get(&rest, "/livez").await.ok().map(drop)
    })
    .await;
    drop(child.stderr.take());
    eventually("lines are lost", async || {
        assert_eq!(get(&rest, "/nothing").await.unwrap().status(), 404);
        let text = get(&admin, "/metrics").await.unwrap().text().await.unwrap();
        (!text.contains("isg_log_lines_lost_total 0")).then_some(())
    })
    .await;
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let child = std::cell::RefCell::new(child);
    let ended = eventually("it ends", async || child.borrow_mut().try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_filter_that_means_nothing_is_told_and_silences_nothing() {
    let empty = served(&[("RUST_LOG", "")]).await;
    let request = empty.client.get(format!("{}/nothing", empty.base_url));
    request.header("X-Request-Id", "told").send().await.unwrap();
    empty.line("told").await;
    let served = served(&[("RUST_LOG", "debgu")]).await;
    served
        .program
        .wait_for_log("RUST_LOG names no level and no target: `debgu`")
        .await;
    let request = served.client.get(format!("{}/nothing", served.base_url));
    request.header("X-Request-Id", "told").send().await.unwrap();
    served.line("told").await;
}
