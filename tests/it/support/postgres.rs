//! A private server of PostgreSQL, on a free port and in a folder of its own; gone with its test.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Certificates, eventually};

/// The password of the server's one user.
pub(crate) const POSTGRES_PASSWORD: &str = "a-password-that-nobody-sees";

pub(crate) struct Postgres {
    server: Option<Child>,
    user: Option<(u32, u32)>,
    arguments: Vec<String>,
    port: u16,
    directory: tempfile::TempDir,
}

/// Where Debian and others put the server's programs, which are on nobody's path.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.unwrap().path().join("bin").join(name))
        .filter(|program| program.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("no {name}"))
}

/// The server does not run as root.
fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn number(arguments: &[&str]) -> u32 {
    let output = Command::new("id").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap()
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// One that speaks TLS for `localhost`; its authority is found by [`Self::authority`].
    pub(crate) async fn start_with_tls() -> Self {
        Self::start_with(Some(Certificates::of("localhost"))).await
    }

    /// Where the certificate of its authority lies.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    async fn start_with(certificates: Option<Certificates>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let is_root = number(&["-u"]) == 0;
        let user = is_root.then(|| (number(&["-u", "postgres"]), number(&["-g", "postgres"])));
        if let Some((uid, gid)) = user {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let (data, password) = (
            directory.path().join("data"),
            directory.path().join("password"),
        );
        std::fs::write(&password, POSTGRES_PASSWORD).unwrap();
        let made = command(&program("initdb"), user)
            .current_dir(directory.path())
            .args(["--no-sync", "--auth=scram-sha-256", "--username=gateway"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8"])
            .arg(format!("--pwfile={}", password.display()))
            .arg("--pgdata")
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut tls = Vec::new();
        if let Some(Certificates {
            authority,
            certificate,
            key,
        }) = certificates
        {
            std::fs::write(directory.path().join("authority.pem"), authority).unwrap();
            for (setting, name, text) in [
                ("ssl_cert_file", "server.pem", certificate),
                ("ssl_key_file", "server.key", key),
            ] {
                let path = directory.path().join(name);
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
                if let Some((uid, gid)) = user {
                    chown(&path, Some(uid), Some(gid)).unwrap();
                }
                tls.extend(["-c".into(), format!("{setting}={}", path.display())]);
            }
            tls.extend(["-c".into(), "ssl=on".into()]);
        }
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            &format!("port={port}"),
        ] {
            arguments.extend(["-c".to_owned(), setting.to_owned()]);
        }
        arguments.extend(tls);
        let mut postgres = Self {
            server: None,
            user,
            arguments,
            port,
            directory,
        };
        postgres.start_again();
        eventually("the server answers", async || {
            let made = postgres.psql("postgres", "CREATE DATABASE audit");
            made.status.success().then_some(())
        })
        .await;
        postgres
    }

    /// Starts it where it was stopped.
    pub(crate) fn start_again(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let server = command(&program("postgres"), self.user)
            .current_dir(self.directory.path())
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
    }

    /// Ends all connections and stops it, as `pg_ctl stop -m fast` does.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::INT);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            let _ = kill_process(Pid::from_child(&server), signal);
            let _ = server.wait();
        }
    }

    /// Has the server and all that work for it stand still, or go on.
    pub(crate) fn signal_all(&self, signal: Signal) {
        let server = self.server.as_ref().unwrap().id();
        let ids = Command::new("pgrep")
            .args(["-P", &server.to_string()])
            .output()
            .unwrap();
        let ids = String::from_utf8(ids.stdout).unwrap();
        for id in std::iter::once(server.to_string()).chain(ids.lines().map(str::to_owned)) {
            let id = Pid::from_raw(id.parse().unwrap()).unwrap();
            // One may have ended meanwhile.
            let _ = kill_process(id, signal);
        }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where its files lie.
    pub(crate) fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// Gives a folder of its own to the server; its whole path.
    pub(crate) fn own(&self, folder: &str) -> String {
        let path = self.directory.path().join(folder);
        if let Some((uid, gid)) = self.user {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
        path.display().to_string()
    }

    /// Of the database with this name.
    pub(crate) fn url(&self, database: &str) -> String {
        let port = self.port;
        format!("postgres://gateway:{POSTGRES_PASSWORD}@127.0.0.1:{port}/{database}")
    }

    /// What somebody with `psql` could do: whoever owns everything.
    pub(crate) fn psql(&self, database: &str, statements: &str) -> Output {
        let mut command = Command::new("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database)]);
        command.args(["-c", statements]).output().unwrap()
    }

    /// The same; what it prints.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let output = self.psql("audit", statements);
        assert!(output.status.success(), "{statements}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The same, where it is refused; why.
    pub(crate) fn sql_refused(&self, statements: &str) -> String {
        let output = self.psql("audit", statements);
        assert!(!output.status.success(), "{statements}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.signal_all(Signal::CONT);
        }
        // At once: what is in it is gone with its folder.
        self.end(Signal::QUIT);
    }
}
