//! Swagger UI in a real browser.

use std::process::Command;

use crate::support::{Gateway, python};

const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser_swagger_ui.py");

#[tokio::test(flavor = "multi_thread")]
async fn a_person_authorizes_in_swagger_ui_executes_put_and_sees_the_200() {
    let gateway = Gateway::spawn().await;
    let token = gateway.sharer().token.unwrap();
    let screenshot = gateway.directory.path().join("swagger-ui.png");
    let mut driver = Command::new(python());
    driver
        .arg(DRIVER)
        .args([
            "--base-url",
            &gateway.base_url,
            "--token",
            &token,
            "--screenshot",
        ])
        .arg(&screenshot);
    let ended = tokio::task::spawn_blocking(move || driver.output())
        .await
        .unwrap()
        .unwrap();
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(ended.status.success(), "{told}");
    assert!(screenshot.exists());
    let event = gateway.only_event().await;
    assert_eq!(
        (event["outcome"].as_str(), event["operation"].as_str()),
        (Some("succeeded"), Some("share"))
    );
    assert!(
        event["user_agent"].as_str().unwrap().contains("Chrome"),
        "{}",
        event["user_agent"]
    );
}
