//! `audit backup`, and the page about it.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use image_share_gateway::audit::{Report, verify};

use crate::support::{
    Gateway, PROGRAM_PRIVATE_KEY, PROGRAM_PUBLIC_KEY, Program, binary, environment, eventually,
    keys_file, share,
};

fn backup(database: &Path, to: &Path) -> Output {
    let url = format!("sqlite://{}", database.display());
    let mut command = binary();
    command.args(["audit", "backup", "--database-url", &url, "--to"]);
    command.arg(to).output().unwrap()
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_verified_trail_of_one_moment_also_while_a_gateway_writes() {
    let gateway = Gateway::spawn().await;
    gateway.sharer().put("/images/img/shares/1").await;
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("copy.db");
    let (database, target) = (gateway.database(), to.clone());
    let copying = tokio::task::spawn_blocking(move || backup(&database, &target));
    let mut account = 2;
    while !copying.is_finished() {
        let path = format!("/images/img/shares/{account}");
        assert_eq!(gateway.sharer().put(&path).await.status, 200);
        account += 1;
    }
    let output = copying.await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let Report::Intact(Some(head)) = verify(&to, &[]).await.unwrap() else {
        panic!("the copy is not intact");
    };
    assert_eq!(told(&output), format!("{head}\n"));
    assert!(head.sequence >= 2, "{head}");
    let mode = std::fs::metadata(&to).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(names(directory.path()), ["copy.db"], "nothing else is left");
    // The trail goes on from where the copy was made.
    let expected = format!("{head}").parse().unwrap();
    let trail = verify(&gateway.database(), &[expected]).await.unwrap();
    assert!(matches!(trail, Report::Intact(_)), "{trail:?}");

    // What SQLite would take for a URI is a name all the same.
    let mut odd = binary();
    let url = format!("sqlite://{}", gateway.database().display());
    odd.args([
        "audit",
        "backup",
        "--database-url",
        &url,
        "--to",
        "file:copy.db?mode=memory",
    ]);
    let odd = odd.current_dir(directory.path()).output().unwrap();
    assert_eq!(odd.status.code(), Some(0), "{}", told(&odd));
    assert_eq!(
        names(directory.path()),
        ["copy.db", "file:copy.db?mode=memory"]
    );
    let mode = std::fs::metadata(directory.path().join("file:copy.db?mode=memory")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    // A gateway runs on it.
    let restored = tempfile::tempdir().unwrap();
    std::fs::copy(&to, restored.path().join("audit.db")).unwrap();
    let gateway = Gateway::in_front_of_trail(restored, "http://127.0.0.1:9").await;
    assert!(!gateway.events().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_backup_leaves_nothing_and_says_why() {
    let mut gateway = Gateway::spawn().await;
    for account in 1..=3 {
        gateway
            .sharer()
            .put(&format!("/images/img/shares/{account}"))
            .await;
    }
    assert!(gateway.stop().await);
    let database = gateway.database();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);

    std::fs::write(path("there.db"), "mine").unwrap();
    let exists = backup(&database, &path("there.db"));
    assert_eq!(exists.status.code(), Some(2), "{}", told(&exists));
    assert_eq!(std::fs::read_to_string(path("there.db")).unwrap(), "mine");

    let none = backup(&path("none.db"), &path("copy.db"));
    assert_eq!(none.status.code(), Some(2), "{}", told(&none));
    std::fs::write(
        path("text.db"),
        "this is no database at all, only a line of text",
    )
    .unwrap();
    let no_trail = backup(&path("text.db"), &path("copy.db"));
    assert_eq!(no_trail.status.code(), Some(2), "{}", told(&no_trail));
    let nowhere = backup(&database, &path("no/such/folder/copy.db"));
    assert_eq!(nowhere.status.code(), Some(1), "{}", told(&nowhere));

    let mut postgres = binary();
    postgres.args([
        "audit",
        "backup",
        "--database-url",
        "postgres://u:hunter2@db/audit",
        "--to",
    ]);
    let postgres = postgres.arg(path("copy.db")).output().unwrap();
    assert_eq!(postgres.status.code(), Some(2), "{}", told(&postgres));
    assert!(told(&postgres).contains("pg_dump") && !told(&postgres).contains("hunter2"));

    let mut by_variable = binary();
    by_variable
        .args(["audit", "backup", "--to"])
        .arg(path("copy.db"))
        .env("ISG__AUDIT__DATABASE_URL", "postgres://u:hunter2@db/audit");
    let by_variable = by_variable.output().unwrap();
    assert_eq!(by_variable.status.code(), Some(2), "{}", told(&by_variable));
    assert!(told(&by_variable).contains("pg_dump") && !told(&by_variable).contains("hunter2"));

    let odd = std::ffi::OsStr::from_bytes(b"odd\xff.db");
    let odd = backup(&database, &directory.path().join(odd));
    assert_eq!(odd.status.code(), Some(2), "{}", told(&odd));

    let sql = "DROP TRIGGER audit_entries_no_update; UPDATE audit_entries SET subject = 'nobody' WHERE sequence = 3";
    sqlx::raw_sql(sql)
        .execute(&mut gateway.connect().await)
        .await
        .unwrap();
    let broken = backup(&database, &path("copy.db"));
    assert_eq!(broken.status.code(), Some(1), "{}", told(&broken));
    assert!(
        told(&broken).contains("broken at sequence 3"),
        "{}",
        told(&broken)
    );
    assert_eq!(names(directory.path()), ["text.db", "there.db"]);
}

const PAGE: &str = include_str!("../../docs/backup.md");

/// Runs the commands of the page one after another, as an operator would, on a gateway of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_page_do_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    keys_file(directory.path());
    for folder in ["lib", "backup", "bin"] {
        std::fs::create_dir(path(folder)).unwrap();
    }
    let program = binary().get_program().to_owned();
    std::os::unix::fs::symlink(program, path("bin/image-share-gateway")).unwrap();
    let sandbox = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut upstream = binary();
    upstream.args([
        "sandbox",
        "--bind",
        &sandbox.to_string(),
        "--public-key",
        PROGRAM_PUBLIC_KEY,
        "--private-key",
        PROGRAM_PRIVATE_KEY,
    ]);
    let sandbox_program = Program::started(upstream, directory.path(), &[], &[]);
    let upstream_url = sandbox_program.line(|line| line.starts_with("http://"));
    let database = format!("sqlite://{}", path("lib/audit.db").display());
    let mut settings = environment(&upstream_url);
    settings.push(("ISG__AUDIT__DATABASE_URL", &database));
    let start = |arguments: &[&str]| {
        let _ = std::fs::remove_file(path("log"));
        Program::spawn(
            directory.path(),
            &[&["serve"], arguments].concat(),
            &settings,
        )
    };
    let mut gateway = Some(start(&[]));
    share(&gateway.as_ref().unwrap().base_url().await).await;
    let mut ran = 0;
    for command in PAGE
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
    {
        for line in command
            .replace("\\\n", " ")
            .lines()
            .filter(|line| !line.trim().is_empty())
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["systemctl", "stop", "image-share-gateway"] => {
                    let mut running = gateway.take().unwrap();
                    running.signal(rustix::process::Signal::TERM);
                    assert_eq!(running.wait().await, Some(0));
                }
                ["systemctl", "start", "image-share-gateway"] => {
                    gateway = Some(start(&[]));
                    gateway.as_ref().unwrap().base_url().await;
                }
                // tests/it/postgres.rs runs these.
                _ if line.contains("postgres://") => {}
                _ if line.contains("serve --accept-cut-trail") => {
                    // Once, by hand, until it serves.
                    let mut once = start(&["--accept-cut-trail"]);
                    once.base_url().await;
                    once.signal(rustix::process::Signal::INT);
                    assert_eq!(once.wait().await, Some(0));
                }
                _ => {
                    let line = line
                        .replace(
                            "/var/lib/image-share-gateway",
                            path("lib").to_str().unwrap(),
                        )
                        .replace(
                            "/var/backups/image-share-gateway",
                            path("backup").to_str().unwrap(),
                        )
                        .replace("runuser -u image-share-gateway -- ", "")
                        .replace("-o image-share-gateway -g image-share-gateway ", "")
                        .replace(
                            "--config /etc/image-share-gateway/config.toml",
                            &format!("--database-url {database}"),
                        );
                    let bin = format!("{}:/usr/local/bin:/usr/bin:/bin", path("bin").display());
                    let shell = std::process::Command::new("bash")
                        .args(["-euc", &line])
                        .env("PATH", bin)
                        .current_dir(directory.path())
                        .output()
                        .unwrap();
                    assert!(shell.status.success(), "{line}: {}", told(&shell));
                }
            }
            ran += 1;
        }
    }
    assert!(ran >= 8, "{ran} commands were run");
    let running = gateway.expect("the page ends with a gateway that runs");
    let base_url = running.base_url().await;
    eventually("it serves from what was restored", async || {
        (share(&base_url).await.status == 200).then_some(())
    })
    .await;
}
