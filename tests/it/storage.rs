//! Disks that are full, failing or slow to answer, under the whole program: nothing is forwarded that is not
//! written down, and service comes back by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Answer, Program, Reply, Scripted, environment, eventually, keys_file, token};

/// A small file system that a test can fill; gone when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it at `path`. `None` where the run was told to go without.
    pub(crate) fn mount(path: PathBuf, size: &str) -> Option<Self> {
        if std::env::var_os("ISG_TEST_WITHOUT_MOUNT").is_some() {
            return None;
        }
        std::fs::create_dir(&path).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "a small file system cannot be mounted ({}); ISG_TEST_WITHOUT_MOUNT=1 goes without",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Some(Self(path))
    }

    pub(crate) fn fill(&self) {
        use std::io::Write as _;
        let mut filler = std::fs::File::create(self.0.join("filler")).unwrap();
        while filler.write(&[0; 4096]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

/// A gateway as a process of its own, and who calls it.
struct Running {
    program: Program,
    base_url: String,
    client: reqwest::Client,
}

type Spawn = fn(&Path, &[&str], &[(&str, &str)]) -> Program;

fn serve(spawn: Spawn, directory: &Path, upstream: &Scripted, database: &Path) -> Program {
    let url = format!("sqlite://{}", database.display());
    let mut environment = environment(&upstream.url);
    environment.push(("ISG__SERVER__SHUTDOWN_TIMEOUT", "20s"));
    environment.push(("ISG__SERVER__ADMIN_BIND", "127.0.0.1:0"));
    environment.push(("ISG__AUDIT__DATABASE_URL", &url));
    spawn(directory, &["serve"], &environment)
}

impl Running {
    /// Serves over `database`, and has taken a change.
    async fn begin(spawn: Spawn, directory: &Path, upstream: &Scripted, database: &Path) -> Self {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let program = serve(spawn, directory, upstream, database);
        let running = Self {
            base_url: program.base_url().await,
            client: client.build().unwrap(),
            program,
        };
        assert_eq!(running.put(1).await.status, 200);
        running
    }

    async fn send(&self, method: &str, path: &str) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let scope = "shares:read shares:write audit:read";
        let request = self
            .client
            .request(method, format!("{}{path}", self.base_url));
        Answer::of(request.bearer_auth(token("team-a", scope))).await
    }

    async fn put(&self, account: u32) -> Answer {
        self.send("PUT", &format!("/images/img/shares/{account}"))
            .await
    }

    /// Waits until changes are taken again, without anybody having restarted anything.
    async fn until_it_serves(&self, account: u32) {
        eventually("service comes back by itself", async || {
            (self.put(account).await.status == 200).then_some(())
        })
        .await;
        assert_eq!(self.send("GET", "/readyz").await.status, 200);
    }

    async fn assert_unavailable(&self, upstream: &Scripted, account: u32, why: &str) {
        let before = upstream.calls().len();
        let refused = self.put(account).await;
        let problem = refused.assert_problem(503, "audit-unavailable");
        assert_eq!(
            (&problem["effect"], &problem["retryable"]),
            (&"none".into(), &true.into())
        );
        assert!(refused.header("retry-after").is_some());
        assert_eq!(upstream.calls().len(), before, "nothing was forwarded");
        assert_eq!(self.send("GET", "/readyz").await.status, 503);
        let url = format!("{}/readyz", self.program.admin_url().await);
        let ready = Answer::of(self.client.get(url)).await;
        assert_eq!(ready.status, 503);
        assert!(ready.body.contains(why), "{}", ready.body);
    }

    async fn stop_and_verify(mut self, database: &Path) {
        self.program.signal(Signal::TERM);
        assert_eq!(self.program.wait().await, Some(0), "{}", self.program.log());
        let report = image_share_gateway::audit::verify(database, &[]).await;
        let Ok(image_share_gateway::audit::Report::Intact(Some(head))) = report else {
            panic!("{report:?}")
        };
        let closed = format!("closed\",\"audit.head\":\"{head}\"");
        let log = self.program.log();
        assert!(
            log.contains(&closed),
            "the head is noted at the stop: {log}"
        );
    }
}

/// An outcome that finds the disk so is told as unrecorded, and written when the disk is back.
async fn assert_written_later(
    running: &Running,
    upstream: &Scripted,
    breaks: impl FnOnce(),
    mends: impl FnOnce(),
) {
    let calls = upstream.calls().len();
    let change = running.send("PUT", "/images/held/shares/77");
    let breaking = async {
        upstream.wait_for_calls(calls + 1).await;
        breaks();
        upstream.release(1);
    };
    let (told, ()) = tokio::join!(change, breaking);
    let problem = told.assert_problem(503, "outcome-unrecorded");
    assert_eq!(
        (&problem["effect"], &problem["retryable"]),
        (&"done".into(), &false.into())
    );
    mends();
    let id = problem["audit_id"].as_str().unwrap();
    let event: Value = eventually("the outcome is written", async || {
        let event = running.send("GET", &format!("/audit/events/{id}")).await;
        let event = (event.status == 200).then(|| event.json())?;
        (event["outcome"] != "pending").then_some(event)
    })
    .await;
    assert_eq!(
        (&event["outcome"], &event["http_status"]),
        (&"succeeded".into(), &503.into())
    );
}

fn holds_some(call: &crate::support::Call) -> Reply {
    if call.fields.values().any(|value| value == "held") {
        Reply::Held
    } else {
        Reply::Done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_changes_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let Some(disk) = SmallDisk::mount(directory.path().join("disk"), "8m") else {
        return;
    };
    let upstream = Scripted::start(holds_some).await;
    let database = disk.0.join("audit.db");
    let running = Running::begin(Program::spawn, directory.path(), &upstream, &database).await;

    disk.fill();
    running
        .assert_unavailable(&upstream, 2, "disk is full")
        .await;
    assert_eq!(
        running.send("GET", "/audit/events").await.status,
        200,
        "the trail can be read"
    );
    disk.free();
    running.until_it_serves(3).await;
    assert_written_later(&running, &upstream, || disk.fill(), || disk.free()).await;
    running.stop_and_verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_io_error_stops_changes_and_service_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let upstream = Scripted::start(holds_some).await;
    let database = directory.path().join("audit.db");
    let spawn = Program::spawn_ignoring_file_size;
    let running = Running::begin(spawn, directory.path(), &upstream, &database).await;

    // A write past the limit fails with EFBIG, which SQLite takes for an I/O error.
    let limit = |bytes: &str| {
        let status = Command::new("prlimit")
            .args([
                &format!("--pid={}", running.program.id()),
                &format!("--fsize={bytes}:unlimited"),
            ])
            .status();
        assert!(status.unwrap().success());
    };
    limit("1");
    running.assert_unavailable(&upstream, 2, "I/O error").await;
    limit("unlimited");
    running.until_it_serves(3).await;
    assert_written_later(&running, &upstream, || limit("1"), || limit("unlimited")).await;
    running.stop_and_verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_locks_stops_changes_until_they_let_go() {
    use sqlx::Connection as _;
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let upstream = Scripted::start(holds_some).await;
    let database = directory.path().join("audit.db");
    let running = Running::begin(Program::spawn, directory.path(), &upstream, &database).await;

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&database);
    let mut person = sqlx::SqliteConnection::connect_with(&options)
        .await
        .unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut person)
        .await
        .unwrap();
    running
        .assert_unavailable(&upstream, 2, "locked by another process")
        .await;
    sqlx::query("COMMIT").execute(&mut person).await.unwrap();
    person.close().await.unwrap();
    running.until_it_serves(3).await;
    running.stop_and_verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_is_taken_away_under_load_is_noticed_and_nothing_more_is_forwarded() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let upstream = Scripted::start(|_| Reply::Done).await;
    let home = directory.path().join("trail");
    let database = home.join("audit.db");
    let running = Running::begin(Program::spawn, directory.path(), &upstream, &database).await;

    let away = directory.path().join("away");
    let callers = (1..=16).map(|caller| {
        let running = &running;
        async move {
            // Each goes on until it is refused.
            let mut held = Vec::new();
            for number in 0.. {
                let account = caller * 1000 + number;
                let answer = running.put(account).await;
                if answer.status == 200 {
                    held.push(u64::from(account));
                    continue;
                }
                let problem = answer.json();
                let slug = problem["type"].as_str().unwrap().to_owned();
                return (held, slug, problem["effect"].as_str().unwrap().to_owned());
            }
            unreachable!("somebody is refused")
        }
    });
    let taking = async {
        upstream.wait_for_calls(100).await;
        std::fs::rename(&home, &away).unwrap();
    };
    let (ended, ()) = tokio::join!(futures_util::future::join_all(callers), taking);
    running
        .assert_unavailable(&upstream, 99_999, "moved, deleted or replaced")
        .await;
    for (_, slug, effect) in &ended {
        let fits = match slug.as_str() {
            // Its intent did not get to disk, or its outcome did not.
            "/problems/audit-unavailable" => effect == "none",
            "/problems/outcome-unrecorded" => effect == "done",
            _ => false,
        };
        assert!(fits, "{slug} {effect}");
    }
    std::fs::rename(&away, &home).unwrap();
    running.until_it_serves(99_998).await;
    // Every call that was made has its event with an outcome, and every 200 is one that succeeded.
    let called: Vec<u64> = upstream
        .calls()
        .iter()
        .map(|call| call.fields["AddAccounts.0"].parse().unwrap())
        .collect();
    let outcomes = eventually("outcomes that were kept are written", async || {
        let feed = running.send("GET", "/audit/entries").await;
        let rows = feed
            .body
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let outcomes: std::collections::BTreeMap<u64, String> = rows
            .filter(|row| row["kind"] == "outcome")
            .map(|row| {
                let outcome = row["outcome"].as_str().unwrap().to_owned();
                (row["account_id"].as_u64().unwrap(), outcome)
            })
            .collect();
        let all = called.iter().all(|account| outcomes.contains_key(account));
        all.then_some(outcomes)
    })
    .await;
    for (held, _, _) in &ended {
        for account in held {
            assert_eq!(outcomes[account], "succeeded", "{account}");
        }
    }
    running.stop_and_verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_on_a_read_only_disk_can_be_looked_at_and_not_served() {
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let Some(disk) = SmallDisk::mount(directory.path().join("disk"), "8m") else {
        return;
    };
    let upstream = Scripted::start(|_| Reply::Done).await;
    let database = disk.0.join("audit.db");
    let running = Running::begin(Program::spawn, directory.path(), &upstream, &database).await;
    running.stop_and_verify(&database).await;
    // A thread that read it may close it a moment later.
    eventually("nobody has it open", async || {
        let remounted = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&disk.0)
            .status();
        remounted.unwrap().success().then_some(())
    })
    .await;

    let mut refused = serve(Program::spawn, directory.path(), &upstream, &database);
    assert_eq!(refused.wait().await, Some(1));
    let words = refused.log();
    let last = words.lines().last().unwrap();
    assert!(last.starts_with("image-share-gateway: cannot "), "{words}");

    let url = format!("sqlite://{}", database.display());
    for command in ["verify", "export"] {
        let looked = crate::support::binary()
            .args(["audit", command, "--database-url", &url])
            .output()
            .unwrap();
        assert!(looked.status.success(), "{looked:?}");
        assert!(!looked.stdout.is_empty());
    }
}
