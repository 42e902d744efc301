//! The sandbox against the official Python SDK, and as raw HTTP.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Program, python};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/example_sdk_client.py");

fn sandbox(directory: &std::path::Path, more: &[&str]) -> (Program, String) {
    let program = Program::spawn(directory, &[&["sandbox"], more].concat(), &[]);
    let url = program.line(|_| true);
    assert!(
        url.starts_with("http://127.0.0.1:"),
        "the first line is the base URL alone: {url}"
    );
    (program, url)
}

/// Runs the SDK's example; gives its exit code and the lines that it printed.
fn sdk(url: &str, private_key: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let keys = [
        "--base-url",
        url,
        "--public-key",
        "sandbox-public-key",
        "--private-key",
        private_key,
    ];
    let ended = Command::new(python())
        .arg(EXAMPLE)
        .args(keys)
        .args(more)
        .output()
        .unwrap();
    let lines = String::from_utf8(ended.stdout).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        !lines.is_empty(),
        "the SDK did not run: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    (ended.status.code(), lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_shares_lists_and_takes_back() {
    let directory = tempfile::tempdir().unwrap();
    let (mut program, url) = sandbox(directory.path(), &[]);
    let (code, lines) = sdk(&url, "sandbox-private-key", &[]);
    assert_eq!(code, Some(0), "{lines:?}");
    let steps: Vec<&str> = lines
        .iter()
        .map(|line| line["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        ["share", "list_after_share", "unshare", "list_after_unshare"]
    );
    let accounts = lines[1]["result"]["AccountSet"].as_array().unwrap();
    assert_eq!(
        accounts[0]["AccountId"], "12345",
        "account ids are text here, as the Go SDK needs"
    );
    program.signal(Signal::INT);
    assert_eq!(program.wait().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_private_key_is_refused_with_the_real_ret_code() {
    let directory = tempfile::tempdir().unwrap();
    let (_program, url) = sandbox(directory.path(), &[]);
    let (code, lines) = sdk(&url, "wrong", &[]);
    assert_eq!(code, Some(1));
    assert_eq!(lines[0]["ret_code"], 171);
    assert!(
        lines[0]["message"]
            .as_str()
            .unwrap()
            .contains("Signature VerifyAC Error")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_account_undoes_the_whole_call() {
    let directory = tempfile::tempdir().unwrap();
    let (_program, url) = sandbox(directory.path(), &[]);
    let (code, lines) = sdk(
        &url,
        "sandbox-private-key",
        &["--account", "12345", "--account", "9000000000000000"],
    );
    assert_eq!(code, Some(0), "{lines:?}");
    assert_eq!(
        lines[0]["result"]["InvalidAccounts"],
        serde_json::json!([9_000_000_000_000_000_u64])
    );
    assert_eq!(
        lines[1]["result"]["AccountSet"],
        serde_json::json!([]),
        "nothing of the call was done"
    );
}

async fn post(url: &str, body: &str) -> reqwest::Result<(u16, Value)> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()?;
    let request = client
        .post(url)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body.to_owned());
    let response = request.send().await?;
    let status = response.status().as_u16();
    Ok((
        status,
        serde_json::from_str(&response.text().await?).unwrap_or_default(),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_recorded_of_every_sdk_are_understood() {
    let directory = tempfile::tempdir().unwrap();
    let keys = [
        "--public-key",
        "my_public_key",
        "--private-key",
        "my_private_key",
    ];
    let (_program, url) = sandbox(directory.path(), &keys);
    let recorded = include_str!("../fixtures/upstream/recorded_requests.json");
    let recorded: Value = serde_json::from_str(recorded).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    for entry in recorded["requests"].as_array().unwrap() {
        let request = &entry["request"];
        let target = format!("{url}{}", request["target"].as_str().unwrap());
        let content_type = request["headers"]["Content-Type"].as_str().unwrap();
        let sent = client
            .post(target)
            .header("Content-Type", content_type)
            .body(request["body"].as_str().unwrap().to_owned());
        let response = sent.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().contains_key("x-ucloud-request-uuid"));
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let expected = match entry["name"].as_str().unwrap() {
            "modify_eleven_adds_not_refused_by_the_sdk" => 230,
            "modify_neither_list_not_refused_by_the_sdk" => 210,
            // Lists of images that are not one's own are none of the sandbox's actions.
            "list_platform_images" | "list_images_shared_with_me" => 161,
            _ => 0,
        };
        assert_eq!(answer["RetCode"], expected, "{}: {answer}", entry["name"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_ret_codes_of_the_protocol() {
    let directory = tempfile::tempdir().unwrap();
    let (_program, url) = sandbox(directory.path(), &[]);
    for (body, code) in [
        ("", 160),
        ("Action=", 160),
        ("Action=ModifyComp", 161),
        ("Action=ModifyCompShareImageShareAccount", 172),
        (
            "Action=ModifyCompShareImageShareAccount&PublicKey=other&Signature=x",
            172,
        ),
        (
            "Action=ModifyCompShareImageShareAccount&PublicKey=sandbox-public-key",
            170,
        ),
        (
            "Action=ModifyCompShareImageShareAccount&PublicKey=sandbox-public-key&Signature=x",
            171,
        ),
    ] {
        let (status, answer) = post(&url, body).await.unwrap();
        assert_eq!(
            (status, answer["RetCode"].as_i64()),
            (200, Some(code)),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_on_demand_and_in_turn() {
    let directory = tempfile::tempdir().unwrap();
    let (_program, url) = sandbox(directory.path(), &["--fault-rate", "1"]);
    assert_eq!(post(&url, "Action=X").await.unwrap().0, 503);
    assert_eq!(post(&url, "Action=X").await.unwrap().1["RetCode"], 150);
    assert!(
        post(&url, "Action=X").await.is_err(),
        "a connection closed without an answer"
    );
    assert_eq!(post(&url, "Action=X").await.unwrap().0, 503);
}
