//! `PgBouncer` between, and what ends a start.

use std::process::{Command, Stdio};

use super::{Trail, servers};
use crate::support::{
    Certificates, POSTGRES_PASSWORD, Postgres, Program, Reply, Scripted, eventually, free_port,
};

struct Pooler {
    child: std::process::Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pooler {
    /// One whose pools are of this `mode`, or have what else stands behind it.
    async fn start(postgres: &Postgres, mode: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let users = directory.path().join("users.txt");
        std::fs::write(&users, format!("\"gateway\" \"{POSTGRES_PASSWORD}\"\n")).unwrap();
        let configuration = format!(
            "[databases]\naudit = host=127.0.0.1 port={} dbname=audit\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\ndefault_pool_size = 50\npool_mode = {mode}\n",
            postgres.port(),
            users.display()
        );
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It does not run as root, and reads its files as whom it becomes.
        if rustix::process::getuid().is_root() {
            command = Command::new("/usr/sbin/pgbouncer");
            command.args(["-u", "postgres"]).arg(&file);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let whole = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(directory.path(), whole).unwrap();
        }
        let child = command.spawn().unwrap();
        eventually("the pooler listens", async || {
            std::net::TcpStream::connect(("127.0.0.1", port))
                .ok()
                .map(drop)
        })
        .await;
        Self {
            child,
            port,
            _directory: directory,
        }
    }

    /// Has it open the connections that it keeps.
    fn warm(&self) {
        let sleepers: Vec<_> = (0..8)
            .map(|_| {
                let mut sleeper = Command::new("psql");
                sleeper.args(["-XAtq", "-d", &self.url(), "-c", "SELECT pg_sleep(0.3)"]);
                sleeper.stdout(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut sleeper in sleepers {
            assert!(sleeper.wait().unwrap().success());
        }
    }

    fn url(&self) -> String {
        format!(
            "postgres://gateway:{POSTGRES_PASSWORD}@127.0.0.1:{}/audit",
            self.port
        )
    }
}

/// Starts one that is to end by itself; its code, and its log.
async fn ends(trail: &Trail<'_>) -> (Option<i32>, String) {
    let (mut program, _directory): (Program, _) = trail.spawn("one", "127.0.0.1:0");
    let code = program.wait().await;
    (code, program.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_of_sessions_works_and_one_of_transactions_is_refused_with_its_reason() {
    let (postgres, upstream) = servers().await;
    for mode in [
        "transaction",
        "statement",
        "transaction\nserver_round_robin = 1\nmin_pool_size = 2",
        "transaction\nserver_round_robin = 1\nmin_pool_size = 8",
        "transaction\ndefault_pool_size = 1",
        "transaction\nmin_pool_size = 8",
    ] {
        let pooler = Pooler::start(&postgres, mode).await;
        pooler.warm();
        let trail = Trail {
            database: pooler.url(),
            ..Trail::of(&upstream, &postgres)
        };
        let (code, log) = ends(&trail).await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("pool_mode = session"), "{mode}: {log}");
        assert!(!log.contains(POSTGRES_PASSWORD));
    }
    let pooler = Pooler::start(&postgres, "session").await;
    let trail = Trail {
        database: pooler.url(),
        ..Trail::of(&upstream, &postgres)
    };
    let (one, two) = tokio::join!(trail.start("one"), trail.start("two"));
    assert_eq!(one.send("PUT", "/images/img/shares/1").await, 200);
    assert_eq!(two.send("DELETE", "/images/img/shares/1").await, 204);
    assert_eq!(one.events().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_used_ends_the_start() {
    let (postgres, upstream) = servers().await;
    let url = postgres.url("audit");
    let cases = [
        (
            url.replace(POSTGRES_PASSWORD, "wrong"),
            "password authentication failed",
        ),
        (postgres.url("none"), "\\\"none\\\" does not exist"),
        (format!("{url}?sslmode=require"), "TLS"),
    ];
    for (database, why) in cases {
        let trail = Trail {
            database,
            ..Trail::of(&upstream, &postgres)
        };
        let (code, log) = ends(&trail).await;
        assert_eq!(code, Some(1), "{why}: {log}");
        let why = why.replace("\\\"", "\"");
        assert!(log.contains(&why), "{why}: {log}");
        assert!(!log.contains(POSTGRES_PASSWORD), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_stranger_ends_the_start() {
    let (postgres, upstream) = (
        Postgres::start_with_tls().await,
        Scripted::start(|_| Reply::Done).await,
    );
    let stranger = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(stranger.path(), Certificates::of("localhost").authority).unwrap();
    let url = postgres.url("audit").replace("127.0.0.1", "localhost");
    let with = |authority: &std::path::Path| {
        format!(
            "{url}?sslmode=verify-full&sslrootcert={}",
            authority.display()
        )
    };
    let trail = Trail {
        database: with(stranger.path()),
        ..Trail::of(&upstream, &postgres)
    };
    let (code, log) = ends(&trail).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("certificate"), "{log}");
    let trail = Trail {
        database: with(&postgres.authority()),
        ..trail
    };
    let replica = trail.start("one").await;
    assert_eq!(replica.send("PUT", "/images/img/shares/1").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_far_behind_the_trail_ends_the_start() {
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres);
    let replica = trail.start("one").await;
    assert_eq!(replica.send("PUT", "/images/img/shares/1").await, 200);
    drop(replica);
    postgres.sql("UPDATE audit_chains SET last_event = audit_id_at(clock_timestamp() + interval '10 minutes')");
    let (code, log) = ends(&trail).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("--accept-clock"), "{log}");
}
