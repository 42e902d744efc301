//! What people hold the trail with: `audit export`, and the verifier and queries of docs/trail.md.

use std::path::Path;
use std::process::{Command, Output};

use image_share_gateway::audit::{Report, verify};
use serde_json::Value;

use crate::support::{Answer, Gateway, binary, python};

const PAGE: &str = include_str!("../../docs/trail.md");

/// The code block of this language, by something that stands in it.
fn block(language: &str, holds: &str) -> &'static str {
    let begin = format!("```{language}\n");
    let mut blocks = PAGE
        .split(begin.as_str())
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(holds)).expect(holds)
}

/// A trail of all outcomes that a gateway has closed, in a directory that stays.
async fn closed_trail() -> Gateway {
    let mut gateway = Gateway::spawn().await;
    for number in 1..=12 {
        let path = format!(
            "/images/img-{}/shares/{number}?reason=OPS-{number}",
            number % 3
        );
        gateway.sharer().put(&path).await;
    }
    gateway.sharer().delete("/images/img-1/shares/4").await;
    gateway
        .sharer()
        .put("/images/img-1/shares/9000000000000000")
        .await;
    gateway
        .sharer()
        .put("/images/compshareImage-missing1/shares/3")
        .await;
    gateway
        .caller("audit:read")
        .put("/images/img-1/shares/4")
        .await;
    assert!(gateway.stop().await);
    gateway
}

fn export(database: &Path, arguments: &[&str]) -> Output {
    let url = format!("sqlite://{}", database.display());
    let mut command = binary();
    command.args(["audit", "export", "--database-url", &url]);
    command.args(arguments).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn export_writes_what_the_api_streams() {
    let gateway = Gateway::spawn().await;
    for number in 1..=5 {
        let path = format!("/images/img-{}/shares/{number}", number % 2);
        gateway.sharer().put(&path).await;
    }
    let from = "2026-01-01T00:00:00Z";
    for (arguments, accept, query) in [
        (vec![], "application/x-ndjson", String::new()),
        (vec!["--format", "csv"], "text/csv", String::new()),
        (
            vec![
                "--format",
                "ndjson",
                "--image-id",
                "img-1",
                "--order",
                "asc",
                "--limit",
                "2",
            ],
            "application/x-ndjson",
            "?image_id=img-1&order=asc&limit=2".to_owned(),
        ),
        (
            vec![
                "--account-id",
                "3",
                "--subject",
                "team-a",
                "--operation",
                "share",
                "--outcome",
                "succeeded",
            ],
            "application/x-ndjson",
            "?account_id=3&subject=team-a&operation=share&outcome=succeeded".to_owned(),
        ),
        (
            vec![
                "--from",
                from,
                "--to",
                "2099-01-01T00:00:00Z",
                "--request-id",
                "none",
            ],
            "application/x-ndjson",
            format!("?from={from}&to=2099-01-01T00:00:00Z&request_id=none"),
        ),
    ] {
        let exported = export(&gateway.database(), &arguments);
        assert!(exported.status.success(), "{exported:?}");
        let request = gateway
            .auditor()
            .request("GET", &format!("/audit/events{query}"));
        let streamed = Answer::of(request.header("Accept", accept)).await;
        assert_eq!(streamed.status, 200);
        assert_eq!(
            String::from_utf8(exported.stdout).unwrap(),
            streamed.body,
            "{arguments:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn export_tells_what_it_cannot_do() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("none.db");
    let exported = export(&absent, &[]);
    assert_eq!(exported.status.code(), Some(1));
    assert!(!absent.exists(), "none is made");
    let words = String::from_utf8(exported.stderr).unwrap();
    assert!(
        words.contains("cannot open") && words.lines().count() == 1,
        "{words}"
    );
    for faulty in [
        ["--from", "yesterday"],
        ["--outcome", "fine"],
        ["--operation", "steal"],
        ["--account-id", "0"],
        ["--image-id", "-"],
        ["--limit", "0"],
        ["--subject", ""],
        ["--format", "xml"],
    ] {
        let exported = export(&absent, &faulty);
        assert_eq!(exported.status.code(), Some(2), "{faulty:?}");
    }
}

fn check(program: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(python())
        .arg(program)
        .args(arguments)
        .output()
        .unwrap();
    let text = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verifier_of_the_readme_agrees_with_the_gateways() {
    let program = block("python", "hashlib");
    assert!(program.lines().count() <= 40, "short enough to be read");
    let gateway = closed_trail().await;
    let (directory, database) = (gateway.directory.path(), gateway.database());
    let check_py = directory.join("check.py");
    std::fs::write(&check_py, program).unwrap();
    let path = database.to_str().unwrap();
    let Ok(Report::Intact(Some(head))) = verify(&database, &[]).await else {
        panic!("intact")
    };
    let agreed = (true, format!("{head}\n"));
    assert_eq!(check(&check_py, &[path]), agreed);
    assert_eq!(check(&check_py, &[path, &head.to_string()]), agreed);

    let last = head.sequence;
    let unlock = "DROP TRIGGER audit_entries_no_update; DROP TRIGGER audit_entries_no_delete; \
        DROP TRIGGER audit_entries_no_replace; \
        DROP INDEX audit_entries_event;";
    let mut attacks: Vec<String> = (1..=last)
        .map(|sequence| match sequence % 4 {
            0 => format!("UPDATE audit_entries SET detail = 'x' || coalesce(detail, '') WHERE sequence = {sequence}"),
            1 => format!("UPDATE audit_entries SET recorded_at = recorded_at + 1 WHERE sequence = {sequence}"),
            2 => format!("UPDATE audit_entries SET hash = upper(hash) WHERE sequence = {sequence}"),
            _ => format!("UPDATE audit_entries SET subject = CAST(x'ff00' AS TEXT) WHERE sequence = {sequence}"),
        })
        .collect();
    attacks.extend([
        "DELETE FROM audit_entries WHERE sequence = 5".to_owned(),
        format!("DELETE FROM audit_entries WHERE sequence > {}", last - 2),
        "UPDATE audit_entries SET sequence = -3 WHERE sequence = 1".to_owned(),
        "UPDATE audit_entries SET sequence = 1000 WHERE sequence = 4; \
         UPDATE audit_entries SET sequence = 4 WHERE sequence = 7; \
         UPDATE audit_entries SET sequence = 7 WHERE sequence = 1000"
            .to_owned(),
    ]);
    let victim = directory.join("victim.db");
    for attack in attacks {
        std::fs::copy(&database, &victim).unwrap();
        let changed = Command::new("sqlite3")
            .arg(&victim)
            .arg(format!(
                "PRAGMA ignore_check_constraints = ON; {unlock} {attack}"
            ))
            .status();
        assert!(changed.unwrap().success(), "{attack}");
        let noted = head.to_string().parse().unwrap();
        let Ok(Report::Broken(found)) = verify(&victim, &[noted]).await else {
            panic!("{attack} was not seen")
        };
        let (intact, words) = check(&check_py, &[victim.to_str().unwrap(), &head.to_string()]);
        assert!(!intact, "{attack}");
        let place = format!("main: broken at sequence {}:", found.sequence);
        assert!(
            words.starts_with(&place),
            "{attack}: {words} and not {place}"
        );
    }
}

fn sqlite3(database: &Path, statement: &str) -> Vec<Value> {
    let output = Command::new("sqlite3")
        .args(["-readonly", "-json"])
        .arg(database)
        .arg(statement)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    if text.is_empty() {
        return Vec::new();
    }
    serde_json::from_str(&text).unwrap()
}

/// The statement that writes an event as the gateway would have, so many days before the first of this month.
fn event(number: u32, days_before: i32, columns: &str, outcome: &str) -> String {
    let (operation, image, account) = match columns.split(' ').collect::<Vec<_>>()[..] {
        [operation, image, account] => (operation.to_owned(), image.to_owned(), account.to_owned()),
        _ => panic!("{columns}"),
    };
    let millis = format!(
        "(CAST(strftime('%s', 'now', 'start of month', '{:+} days') AS INTEGER) * 1000 + {number})",
        -days_before
    );
    let id = format!(
        "substr(printf('%012x', {millis}), 1, 8) || '-' || substr(printf('%012x', {millis}), 9) || '-7000-8000-{number:012}'"
    );
    let facts = format!("'team-a', '{operation}', '{image}', {account}, 'cn-wlcb'");
    let columns = "version, chain_id, sequence, kind, event_id, recorded_at, subject, operation, image_id, account_id, \
        region, reason, policy_ids, outcome, hash";
    let first = format!(
        "INSERT INTO audit_entries ({columns}) VALUES (1, 'main', {}, 'intent', {id}, {millis} * 1000, {facts}, 'why', \
         '[]', NULL, '{number}');",
        number * 2 - 1
    );
    if outcome == "pending" {
        return first;
    }
    format!(
        "{first} INSERT INTO audit_entries ({columns}) VALUES (1, 'main', {}, 'outcome', {id}, {millis} * 1000 + 5, \
         {facts}, NULL, NULL, '{outcome}', '{number}');",
        number * 2
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipes_of_the_readme_answer_their_questions() {
    let mut gateway = Gateway::spawn().await;
    assert!(gateway.stop().await);
    let image = "compshareImage-1a2b";
    let events = [
        event(1, 40, &format!("share {image} 7"), "succeeded"),
        event(2, 20, &format!("share {image} 8"), "succeeded"),
        event(3, 19, &format!("share {image} 9"), "failed"),
        event(4, 18, &format!("unshare {image} 8"), "succeeded"),
        event(5, 17, "share other 10", "succeeded"),
        event(6, 16, &format!("share {image} 12345"), "unknown"),
        event(7, 15, "share img-b 12345", "succeeded"),
        event(8, 14, "share img-c 12345", "succeeded"),
        event(9, 13, "unshare img-c 12345", "succeeded"),
        event(10, 12, "unshare img-b 12345", "failed"),
        event(11, 11, "share img-d 12345", "failed"),
        event(12, 10, "share img-e 12345", "pending"),
        event(13, -1, &format!("share {image} 11"), "succeeded"),
    ];
    let database = gateway.database();
    let run = |statements: &str| {
        let run = Command::new("sqlite3")
            .arg(&database)
            .arg(statements)
            .status();
        assert!(run.unwrap().success());
    };
    run(&events.concat());
    let column = |rows: &[Value], name: &str| -> Vec<Value> {
        rows.iter().map(|row| row[name].clone()).collect()
    };

    // The same by the rows alone, and by the tables that are derived from them.
    for made_again in [false, true] {
        if made_again {
            run(block("sql", "BEGIN IMMEDIATE"));
        }
        let last_month = sqlite3(&database, block("sql", "'-1 month'"));
        assert_eq!(column(&last_month, "account_id"), [8], "{last_month:?}");
        assert_eq!(column(&last_month, "subject"), ["team-a"]);

        let unknown = sqlite3(&database, block("sql", "outcome = 'unknown')"));
        assert_eq!(column(&unknown, "account_id"), [12345]);
        assert_eq!(column(&unknown, "image_id"), [image]);

        let usable = sqlite3(&database, block("sql", "GROUP BY region"));
        assert_eq!(column(&usable, "image_id"), [image, "img-b"]);
        assert_eq!(column(&usable, "outcome"), ["unknown", "succeeded"]);
        let since = usable[1]["since"].as_str().unwrap();
        assert!(since.ends_with('Z') && since.len() == 27, "{since}");
    }
    let derived = sqlite3(&database, "SELECT COUNT(*) AS rows FROM audit_filters");
    assert_eq!(derived[0]["rows"], 13);

    let documented = sqlite3(
        &database,
        "SELECT sql FROM sqlite_schema WHERE name = 'audit_log'",
    );
    let text = documented[0]["sql"].as_str().unwrap();
    assert!(
        text.contains("-- who asked"),
        "columns are documented: {text}"
    );
}
