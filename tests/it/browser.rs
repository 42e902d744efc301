//! The pages in a real browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Answer, Gateway, Program, generate, node_modules, printed, python, token};

/// Runs a driver of `tests/browser/`; all that it says where it fails.
pub(crate) async fn drive(driver: &str, arguments: &[&str]) {
    driven(driver, arguments, &[]).await;
}

/// The same; what it prints.
pub(crate) async fn driven(driver: &str, arguments: &[&str], more: &[&str]) -> String {
    let mut command = Command::new(python());
    command
        .arg(format!(
            "{}/tests/browser/{driver}.py",
            env!("CARGO_MANIFEST_DIR")
        ))
        .args(arguments)
        .args(more);
    printed(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_authorizes_in_swagger_ui_shares_and_takes_it_back() {
    let gateway = Gateway::spawn().await;
    let token = gateway.sharer().token.unwrap();
    let screenshot = gateway.directory.path().join("swagger-ui.png");
    let screenshot = screenshot.display().to_string();
    drive(
        "swagger_ui",
        &[
            "--base-url",
            &gateway.base_url,
            "--token",
            &token,
            "--screenshot",
            &screenshot,
        ],
    )
    .await;
    assert!(Path::new(&screenshot).exists());
    let events = gateway.events().await;
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["operation"].as_str().unwrap(),
                event["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [("share", "succeeded"), ("unshare", "succeeded")]);
    assert!(events[0]["user_agent"].as_str().unwrap().contains("Chrome"));
}

/// A gateway in front of the built-in sandbox, as the README starts it.
fn sandbox(directory: &Path) -> (Program, String) {
    let environment = [
        ("ISG__SERVER__BIND", "127.0.0.1:0"),
        ("ISG__SERVER__ADMIN_BIND", ""),
    ];
    let program = Program::spawn(directory, &["serve", "--sandbox"], &environment);
    let line = program.line(|line| line.starts_with("Base URL"));
    let base_url = line.split_whitespace().last().unwrap().to_owned();
    (program, base_url)
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_sandbox_the_token_comes_by_a_click() {
    let directory = tempfile::tempdir().unwrap();
    let (_program, base_url) = sandbox(directory.path());
    let screenshot: PathBuf = directory.path().join("swagger-ui.png");
    drive(
        "swagger_ui",
        &[
            "--base-url",
            &base_url,
            "--sandbox",
            "--screenshot",
            screenshot.to_str().unwrap(),
        ],
    )
    .await;
}

const EVERYTHING: &str = "shares:read shares:write audit:read";
/// A day of changes, three seconds between two.
const DAY_OF_EVENTS: u64 = 28_800;

/// A day's trail, and an image whose list is not what the trail says.
#[tokio::test(flavor = "multi_thread")]
async fn people_look_through_the_trail_in_the_console() {
    const IMAGE: &str = "compshareImage-sandbox1";
    let directory = tempfile::tempdir().unwrap();
    let trail = generate::trail(directory.path(), DAY_OF_EVENTS).await;
    std::fs::rename(trail, directory.path().join("audit.db")).unwrap();
    let gateway = Gateway::spawn_in(directory).await;
    let (inside, gone, outside) = ("11", "13", "77");
    let path = |account: &str| format!("/images/{IMAGE}/shares/{account}");
    gateway.sharer().put(&path(gone)).await;
    let others = gateway.other().await;
    others.sharer().put(&path(outside)).await;
    others.sharer().delete(&path(gone)).await;
    let bulk = gateway
        .sharer()
        .request("PATCH", &format!("/images/{IMAGE}/shares"));
    let bulk = bulk.header("Content-Type", "application/json");
    let bulk = Answer::of(bulk.body(r#"{"add":[11,12],"reason":"OPS-17: new tenant"}"#)).await;
    let event = bulk.json()["results"][0]["audit_id"].clone();

    // A subject that turns text around and is as long as a page, and a reason that would be HTML.
    let long = format!(
        "repo:{}:bob\u{202e}gnp\u{3164}.exe",
        "organisation-".repeat(80)
    );
    let hostile = "img-hostile";
    let change = gateway.with(token(&long, "shares:write"));
    let reason = "%3Cimg%20src%3Dx%20onerror%3D%22hostile%3D1%22%3E";
    change
        .put(&format!("/images/{hostile}/shares/66?reason={reason}"))
        .await;

    let screenshots = gateway.directory.path().join("screenshots");
    std::fs::create_dir(&screenshots).unwrap();
    let axe = node_modules().join("axe-core/axe.min.js");
    let mut arguments = Vec::new();
    for (name, value) in [
        ("--base-url", gateway.base_url.as_str()),
        ("--token", &token("team-a", EVERYTHING)),
        ("--axe", axe.to_str().unwrap()),
        ("--screenshots", screenshots.to_str().unwrap()),
        ("--image", IMAGE),
        ("--outside", outside),
        ("--inside", inside),
        ("--gone", gone),
        ("--event", event.as_str().unwrap()),
        ("--hostile", hostile),
        ("--sharer", &token("sharer", "shares:read shares:write")),
    ] {
        arguments.extend([name.to_owned(), value.to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    drive("console", &arguments).await;
    if std::env::var_os("ISG_TEST_BLESS").is_some() {
        let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/images/console.png");
        std::fs::copy(screenshots.join("console.png"), picture).unwrap();
    }
}
