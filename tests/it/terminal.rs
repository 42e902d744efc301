//! What commands show on a terminal: bars, colours where they are wanted, and no trace of either where it is none.

use std::process::Command;

use crate::support::{binary, generate, python};

const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/terminal.py");
const PROGRAM: &str = env!("CARGO_BIN_EXE_image-share-gateway");
const EVENTS: u64 = 20_000;
const GREEN: &str = "\u{1b}[32m";

fn on_terminal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(python());
    command.arg(DRIVER).arg(PROGRAM).args(arguments);
    command
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied());
    let ended = command.output().unwrap();
    let shown = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{shown}");
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn long_commands_show_how_far_they_are_on_a_terminal_alone() {
    let directory = tempfile::tempdir().unwrap();
    let trail = generate::trail(directory.path(), EVENTS).await;
    let url = format!("sqlite://{}", trail.display());
    let verify = ["audit", "verify", "--database-url", &url];

    let shown = on_terminal(&verify, &[]);
    for part in ["verified: ", " rows, ", "/s, ", " left", GREEN, "main:"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let plain = on_terminal(&verify, &[("NO_COLOR", "1")]);
    assert!(
        plain.contains("verified: ") && !plain.contains(GREEN),
        "{plain}"
    );

    let copy = directory.path().join("copy.db");
    let backup = [
        "audit",
        "backup",
        "--database-url",
        &url,
        "--to",
        copy.to_str().unwrap(),
    ];
    assert!(on_terminal(&backup, &[]).contains("verified: "));

    // A bar beside a file, as far as it is, of how many there are.
    let file = directory.path().join("events.ndjson");
    let line = format!(
        "{PROGRAM} audit export --database-url {url} > {}",
        file.display()
    );
    let mut beside = Command::new(python());
    beside.arg(DRIVER).args(["/bin/bash", "-c", &line]);
    let shown = String::from_utf8(beside.output().unwrap().stdout).unwrap();
    for part in ["exported: ", " of 20,000 events, "] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let lines = std::fs::read_to_string(file).unwrap();
    assert_eq!(lines.lines().count() as u64, EVENTS);

    // What is printed stays what it is: a bar would stand between its lines.
    let export = ["audit", "export", "--database-url", &url, "--limit", "3"];
    assert!(!on_terminal(&export, &[]).contains("exported"));

    let piped = binary().args(verify).output().unwrap();
    assert!(piped.stderr.is_empty(), "{:?}", piped.stderr);
    assert!(piped.stdout.starts_with(b"main:") && piped.stdout.ends_with(b"\n"));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let printed = binary().args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(printed.stdout).unwrap();
        for command in [
            "serve",
            "audit",
            "verify",
            "check-config",
            "completions",
            "--expect",
        ] {
            let bare = command.trim_start_matches('-');
            assert!(script.contains(bare), "{command} for {shell}");
        }
    }
    let refused = binary().args(["completions", "tcsh"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let mut bash = Command::new("bash");
    let script = binary()
        .args(["completions", "bash"])
        .output()
        .unwrap()
        .stdout;
    let checked = bash
        .args(["-n", "-c"])
        .arg(String::from_utf8(script).unwrap())
        .status();
    assert!(checked.unwrap().success());
}
