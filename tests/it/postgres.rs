//! A trail in PostgreSQL: it comes from a file as it is, it is refused what would change it, and it is verified chain by chain.

use std::path::Path;
use std::process::Output;

use image_share_gateway::audit::{Report, verify};
use sha2::{Digest as _, Sha256};

use crate::support::{Gateway, POSTGRES_PASSWORD, Postgres, Reply, Scripted, binary};

/// Runs a command on the trail; its exit code, what it prints and what it says.
fn audit(arguments: &[&str]) -> (i32, String, String) {
    let mut command = binary();
    let output: Output = command.arg("audit").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        !(out.clone() + &err).contains(POSTGRES_PASSWORD),
        "{out}{err}"
    );
    (output.status.code().unwrap(), out, err)
}

fn import(from: &Path, to: &str) -> (i32, String, String) {
    audit(&["import", &format!("sqlite://{}", from.display()), to])
}

/// A trail of some changes and a denial, one of them without an outcome.
async fn some_trail() -> Gateway {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let mut gateway = Gateway::with_upstream(&upstream).await;
    for account in 1..=5 {
        let path = format!("/images/img-{}/shares/{account}", account % 2);
        assert_eq!(gateway.sharer().put(&path).await.status, 200);
    }
    assert_eq!(
        gateway.auditor().put("/images/img/shares/9").await.status,
        403
    );
    assert!(gateway.stop().await);
    gateway
}

fn head(database: &Path) -> String {
    let url = format!("sqlite://{}", database.display());
    let (code, head, why) = audit(&["verify", "--database-url", &url]);
    assert_eq!(code, 0, "{why}");
    head.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_is_imported_as_it_is_and_its_old_head_holds_there() {
    let gateway = some_trail().await;
    let (postgres, database) = (Postgres::start().await, gateway.database());
    let (url, noted) = (postgres.url("audit"), head(&database));
    let (code, printed, why) = import(&database, &url);
    assert_eq!((code, printed.trim()), (0, noted.as_str()), "{why}");

    let unnamed = noted.strip_prefix("main:").unwrap();
    for expect in [&[][..], &["--expect", &noted], &["--expect", unnamed]] {
        let mut arguments = vec!["verify", "--database-url", &url];
        arguments.extend(expect);
        let (code, printed, why) = audit(&arguments);
        assert_eq!((code, printed.trim()), (0, noted.as_str()), "{why}");
    }
    let rows = postgres.sql("SELECT COUNT(*) FROM audit_entries WHERE chain_id = 'main'");
    assert_eq!(rows, "11");
    let chain = postgres.sql(
        "SELECT chain_id || ':' || head_sequence || ':' || head_hash FROM audit_chains WHERE ended_at IS NOT NULL",
    );
    assert_eq!(chain, noted);
    // All of them lie in the month of their ids.
    let partitions = postgres.sql("SELECT COUNT(DISTINCT tableoid) FROM audit_entries");
    assert_eq!(partitions, "1");
    let month = postgres.sql(
        "SELECT DISTINCT tableoid::regclass = format('audit_entries_%s', to_char(audit_id_time(event_id) AT TIME ZONE 'UTC', 'YYYY_MM'))::regclass FROM audit_entries",
    );
    assert_eq!(month, "t");

    // Not twice.
    let (code, _, why) = import(&database, &url);
    assert_eq!(code, 2, "{why}");
    assert!(why.contains("holds a trail already"), "{why}");
    // Nor where it came from.
    let (code, _, why) = audit(&["import", &url, &url]);
    assert_eq!(code, 2, "{why}");
    let (code, _, why) = audit(&["backup", "--to", "copy.db", "--database-url", &url]);
    assert!(code == 2 && why.contains("pg_dump"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_without_an_outcome_is_still_pending_there() {
    let gateway = some_trail().await;
    let lone = "INSERT INTO audit_entries SELECT version, chain_id, 12, kind, '01a20eeb-4656-7749-9bd5-fe09de30083c', recorded_at, \
        subject, issuer, token_id, client_ip, user_agent, request_id, trace_id, operation, image_id, account_id, region, reason, \
        expires_at, policy_ids, outcome, http_status, upstream_ret_code, upstream_request_id, upstream_calls, duration_ms, detail, hash \
        FROM audit_entries WHERE sequence = 1";
    let database = gateway.database();
    let sqlite = |statement: &str| {
        let run = std::process::Command::new("sqlite3")
            .arg(&database)
            .arg(statement)
            .output();
        let run = run.unwrap();
        assert!(run.status.success(), "{run:?}");
        String::from_utf8(run.stdout).unwrap()
    };
    sqlite(lone);
    // With the hash that it has to have.
    let row = sqlite(
        "SELECT json_array(version, chain_id, sequence, kind, event_id, recorded_at, subject, issuer, token_id, client_ip, \
        user_agent, request_id, trace_id, operation, image_id, account_id, region, reason, expires_at, policy_ids, outcome, http_status, \
        upstream_ret_code, upstream_request_id, upstream_calls, duration_ms, detail) FROM audit_entries WHERE sequence = 12",
    );
    let before = sqlite("SELECT hash FROM audit_entries WHERE sequence = 11");
    let hash = next_hash(
        before.trim(),
        &serde_json::from_str::<Vec<_>>(&row).unwrap(),
    );
    sqlite(&format!(
        "DROP TRIGGER audit_entries_no_update; UPDATE audit_entries SET hash = '{hash}' WHERE sequence = 12"
    ));
    let postgres = Postgres::start().await;
    let (code, printed, why) = import(&database, &postgres.url("audit"));
    assert_eq!(
        (code, printed.trim()),
        (0, format!("main:12:{hash}").as_str()),
        "{why}"
    );
    let pending = postgres.sql("SELECT event_id || ' ' || chain_id FROM audit_pending");
    assert_eq!(pending, "01a20eeb-4656-7749-9bd5-fe09de30083c main");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_trail_is_not_imported() {
    let gateway = some_trail().await;
    let (postgres, database) = (Postgres::start().await, gateway.database());
    let change = "DROP TRIGGER audit_entries_no_update; UPDATE audit_entries SET detail = 'x' WHERE sequence = 4";
    let changed = std::process::Command::new("sqlite3")
        .arg(&database)
        .arg(change)
        .status();
    assert!(changed.unwrap().success());
    let (code, printed, why) = import(&database, &postgres.url("audit"));
    assert_eq!((code, printed.as_str()), (1, ""), "{why}");
    assert!(why.contains("broken at sequence 4"), "{why}");
    let tables = postgres.sql("SELECT COUNT(*) FROM pg_class WHERE relname LIKE 'audit_%'");
    assert_eq!(tables, "0", "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_told_with_its_reason_and_without_its_password() {
    let gateway = some_trail().await;
    let (postgres, database) = (Postgres::start().await, gateway.database());
    let url = postgres.url("audit");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for (to, said) in [
        (
            url.replace(POSTGRES_PASSWORD, "another"),
            "password authentication failed",
        ),
        (postgres.url("none"), "\"none\" does not exist"),
        (format!("{url}?sslmode=require"), "TLS"),
        (
            format!("postgres://gateway@127.0.0.1:{nobody}/audit"),
            "refused",
        ),
        (postgres.url(""), "must name a database"),
        (url.replace("/audit", "/audit?sslmode=perhaps"), "perhaps"),
    ] {
        for command in ["import", "verify"] {
            let (code, printed, why) = if command == "import" {
                import(&database, &to)
            } else {
                audit(&["verify", "--database-url", &to])
            };
            assert_eq!((code, printed.as_str()), (2, ""), "{to}: {why}");
            assert!(why.contains(said), "{command} {to}: {why}");
        }
    }
    postgres.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let (code, _, why) = import(&database, &postgres.url("latin"));
    assert!(code == 2 && why.contains("LATIN1"), "{why}");
    // Nothing is made where there is no trail.
    let (code, _, why) = audit(&["verify", "--database-url", &url]);
    assert!(
        code == 2 && why.contains("there is no trail in it"),
        "{why}"
    );
    let (code, _, why) = import(&database.with_file_name("none.db"), &url);
    assert!(code == 2 && why.contains("no such file"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_never_updated_deleted_replaced_or_truncated() {
    let gateway = some_trail().await;
    let postgres = Postgres::start().await;
    let (code, _, why) = import(&gateway.database(), &postgres.url("audit"));
    assert_eq!(code, 0, "{why}");
    let partition = postgres.sql("SELECT DISTINCT tableoid::regclass FROM audit_entries");
    for table in ["audit_entries", &partition] {
        for statement in [
            format!("UPDATE {table} SET detail = 'x' WHERE sequence = 1"),
            format!("DELETE FROM {table} WHERE sequence = 1"),
            format!("TRUNCATE {table}"),
            format!("TRUNCATE {table} CASCADE"),
            format!(
                "INSERT INTO {table} SELECT * FROM {table} ON CONFLICT (event_id, kind) DO UPDATE SET detail = 'x'"
            ),
        ] {
            let why = postgres.sql_refused(&statement);
            assert!(
                why.contains("audit entries are never"),
                "{statement}: {why}"
            );
        }
    }
    let why = postgres.sql_refused("INSERT INTO audit_entries SELECT * FROM audit_entries LIMIT 1");
    assert!(why.contains("duplicate key"), "{why}");
    // Nor is a chain taken away, or its head taken back.
    for statement in [
        "DELETE FROM audit_chains",
        "TRUNCATE audit_chains",
        "UPDATE audit_chains SET head_sequence = head_sequence - 1",
        "UPDATE audit_chains SET head_hash = repeat('f', 64)",
        "UPDATE audit_chains SET chain_id = 'other'",
    ] {
        let why = postgres.sql_refused(statement);
        assert!(why.contains("only goes on"), "{statement}: {why}");
    }
    // So for a partition that comes later.
    let later = postgres.sql("SELECT audit_make_partition('ffffffff-0000-7000-8000-000000000000')");
    let why = postgres.sql_refused(&format!("TRUNCATE {later}"));
    assert!(why.contains("never truncated"), "{why}");
}

/// What somebody who owns the database could do, each to a trail of its own.
#[tokio::test(flavor = "multi_thread")]
async fn verification_names_the_first_broken_row() {
    const UNLOCK: &str = "ALTER TABLE audit_entries DISABLE TRIGGER audit_entries_no_change; ";
    let gateway = some_trail().await;
    let postgres = Postgres::start().await;
    let Report::Intact(Some(noted)) = verify(&gateway.database(), &[]).await.unwrap() else {
        panic!("the trail is broken");
    };
    assert_eq!(noted.sequence, 11);
    for (number, (attack, first_broken)) in [
        ("UPDATE audit_entries SET detail = 'x' WHERE sequence = 4", 4),
        ("UPDATE audit_entries SET account_id = account_id + 1 WHERE sequence = 4", 4),
        ("DELETE FROM audit_entries WHERE sequence = 4", 4),
        ("DELETE FROM audit_entries WHERE sequence > 8", 9),
        ("DELETE FROM audit_entries", 1),
        ("UPDATE audit_entries SET sequence = sequence + 1 WHERE sequence > 3", 4),
        ("UPDATE audit_entries SET hash = upper(hash) WHERE sequence = 7", 7),
        (
            "INSERT INTO audit_entries SELECT (json_populate_record(e, '{\"event_id\": \"01a20eeb-4656-7749-9bd5-fe09de30083c\"}')).* \
             FROM audit_entries AS e WHERE sequence = 6",
            6,
        ),
        ("UPDATE audit_chains SET head_sequence = 12", 12),
        ("UPDATE audit_chains SET head_sequence = 12, head_hash = repeat('f', 64)", 12),
        ("ALTER TABLE audit_chains DISABLE TRIGGER ALL; UPDATE audit_chains SET head_hash = repeat('f', 64)", 11),
        ("ALTER TABLE audit_chains DISABLE TRIGGER ALL; UPDATE audit_chains SET head_sequence = 5", 5),
        ("ALTER TABLE audit_chains DISABLE TRIGGER ALL; DELETE FROM audit_chains", 1),
        ("ALTER TABLE audit_entries ALTER COLUMN hash DROP NOT NULL; UPDATE audit_entries SET hash = NULL WHERE sequence = 3", 3),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("attacked_{number}");
        let run = |statements: &str| {
            let done = postgres.psql(&name, statements);
            assert!(done.status.success(), "{statements}: {done:?}");
        };
        postgres.sql(&format!("CREATE DATABASE {name}"));
        let url = postgres.url(&name);
        let (code, _, why) = import(&gateway.database(), &url);
        assert_eq!(code, 0, "{why}");
        if attack.contains("01a20eeb") {
            run("SELECT audit_make_partition('01a20eeb-4656-7749-9bd5-fe09de30083c')");
        }
        run(&format!("{UNLOCK}{attack}"));
        let (code, printed, why) = audit(&["verify", "--database-url", &url]);
        assert_eq!(code, 1, "{attack}: {why}{printed}");
        let broken = format!("main: broken at sequence {first_broken}:");
        assert!(printed.starts_with(&broken), "{attack}: {printed}");
    }
}

/// Rows that a walk does not meet, or meets once, are counted.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_place_and_twins_are_noticed() {
    let gateway = some_trail().await;
    let postgres = Postgres::start().await;
    for (number, attack) in [
        "ALTER TABLE audit_entries ALTER COLUMN sequence DROP NOT NULL; \
         INSERT INTO audit_entries SELECT (json_populate_record(e, '{\"sequence\": null, \"event_id\": \"01a20eeb-4656-7749-9bd5-fe09de30083c\"}')).* \
         FROM audit_entries AS e WHERE sequence = 6",
        "ALTER TABLE audit_entries ALTER COLUMN chain_id DROP NOT NULL; \
         INSERT INTO audit_entries SELECT (json_populate_record(e, '{\"chain_id\": null, \"event_id\": \"01a20eeb-4656-7749-9bd5-fe09de30083c\"}')).* \
         FROM audit_entries AS e WHERE sequence = 6",
        "ALTER TABLE audit_entries DROP CONSTRAINT audit_entries_pkey; \
         INSERT INTO audit_entries SELECT * FROM audit_entries WHERE sequence = 11",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("odd_{number}");
        postgres.sql(&format!("CREATE DATABASE {name}"));
        let url = postgres.url(&name);
        assert_eq!(import(&gateway.database(), &url).0, 0);
        let make = "SELECT audit_make_partition('01a20eeb-4656-7749-9bd5-fe09de30083c')";
        let done = postgres.psql(&name, &format!("{make}; {attack}"));
        assert!(done.status.success(), "{attack}: {done:?}");
        let (code, printed, why) = audit(&["verify", "--database-url", &url]);
        assert_eq!(code, 1, "{attack}: {printed}{why}");
        assert!(printed.contains("broken"), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_chain_is_walked_and_heads_are_told_apart() {
    let gateway = some_trail().await;
    let (postgres, noted) = (Postgres::start().await, head(&gateway.database()));
    let url = postgres.url("audit");
    assert_eq!(import(&gateway.database(), &url).0, 0);
    // Two rows of another gateway.
    let mut before = "0".repeat(64);
    for (sequence, event) in [
        (1, "01a20eeb-4656-7749-9bd5-fe09de30083c"),
        (2, "01a20eeb-4656-7749-9bd5-fe09de30083d"),
    ] {
        let row = serde_json::json!([
            1,
            "gateway-2",
            sequence,
            "denial",
            event,
            1,
            "somebody",
            null,
            null,
            null,
            null,
            null,
            null,
            "share",
            "img",
            7,
            "cn-wlcb",
            null,
            null,
            "[]",
            "denied",
            403,
            null,
            null,
            0,
            1,
            "no",
        ]);
        let hash = next_hash(&before, row.as_array().unwrap());
        let values: Vec<String> = row
            .as_array()
            .unwrap()
            .iter()
            .map(|value| match value {
                serde_json::Value::Null => "NULL".into(),
                serde_json::Value::String(text) => format!("'{text}'"),
                other => other.to_string(),
            })
            .collect();
        postgres.sql(&format!(
            "DO $$ BEGIN PERFORM audit_make_partition('{event}'); END $$; INSERT INTO audit_entries VALUES ({}, '{hash}')",
            values.join(", ")
        ));
        before = hash;
    }
    postgres.sql(&format!(
        "INSERT INTO audit_chains (chain_id, head_sequence, head_hash) VALUES ('gateway-2', 2, '{before}')"
    ));
    let other = format!("gateway-2:2:{before}");
    let (code, printed, why) = audit(&["verify", "--database-url", &url]);
    assert_eq!((code, printed), (0, format!("{other}\n{noted}\n")), "{why}");
    let expect = |heads: &[&str]| {
        let mut arguments = vec!["verify", "--database-url", &url];
        for head in heads {
            arguments.extend(["--expect", head]);
        }
        audit(&arguments)
    };
    assert_eq!(expect(&[&other, &noted]).0, 0);
    let (code, printed, _) = expect(&[&format!("gateway-2:3:{before}")]);
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("gateway-2: broken at sequence 3:") && printed.contains(&noted),
        "{printed}"
    );
    let (code, printed, _) = expect(&[&format!("gateway-3:1:{before}")]);
    assert!(code == 1 && printed.contains("no such chain"), "{printed}");
    let (code, _, why) = expect(&[&format!("2:{before}")]);
    assert!(code == 2 && why.contains("has to name its own"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_it_moves_a_trail_over_tls() {
    const PAGE: &str = include_str!("../../docs/backup.md");
    let gateway = some_trail().await;
    let (postgres, noted) = (Postgres::start_with_tls().await, head(&gateway.database()));
    let other = Postgres::start_with_tls().await;
    let block = PAGE
        .split("```sh\n")
        .find(|block| block.contains("audit import"));
    let block = block.unwrap().split("```").next().unwrap();
    let port = postgres.url("").rsplit(':').next().unwrap().to_owned();
    let run = |authority: &Path| {
        let url = format!(
            "postgres://gateway@localhost:{port}audit?sslmode=verify-full&sslrootcert={}",
            authority.display()
        );
        let script = block
            .replace(
                "/var/lib/image-share-gateway/audit.db",
                &gateway.database().display().to_string(),
            )
            .replace(
                "postgres://gateway@db.example.com/audit?sslmode=verify-full",
                &url,
            );
        let program = Path::new(env!("CARGO_BIN_EXE_image-share-gateway"));
        let mut shell = std::process::Command::new("/bin/sh");
        shell
            .args(["-euc", &script])
            .env("PATH", program.parent().unwrap())
            .env("PGPASSWORD", POSTGRES_PASSWORD);
        shell.output().unwrap()
    };
    // The certificate is another authority's.
    let refused = run(&other.authority());
    let why = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{why}");
    assert!(why.contains("certificate"), "{why}");

    let moved = run(&postgres.authority());
    let printed = String::from_utf8(moved.stdout).unwrap();
    assert_eq!(printed, format!("{noted}\n{noted}\n"), "{:?}", moved.stderr);
}

/// The hash of the row that follows the one with this hash, as src/audit/chain.rs says.
fn next_hash(before: &str, row: &[serde_json::Value]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(hex::decode(before).unwrap());
    for value in row {
        match value {
            serde_json::Value::Null => hasher.update([0]),
            serde_json::Value::String(text) => {
                hasher.update([2]);
                hasher.update((text.len() as u64).to_be_bytes());
                hasher.update(text);
            }
            number => {
                hasher.update([1]);
                hasher.update(number.as_i64().unwrap().to_be_bytes());
            }
        }
    }
    hex::encode(hasher.finalize())
}
