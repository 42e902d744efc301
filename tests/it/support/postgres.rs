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
    server: Child,
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
        let server = command(&program("postgres"), user)
            .current_dir(directory.path())
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", &format!("port={port}")])
            .args(tls)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let postgres = Self {
            server,
            port,
            directory,
        };
        eventually("the server answers", async || {
            let made = postgres.psql("postgres", "CREATE DATABASE audit");
            made.status.success().then_some(())
        })
        .await;
        postgres
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
        let id = Pid::from_child(&self.server);
        // At once: what is in it is gone with its folder.
        let _ = kill_process(id, Signal::QUIT);
        let _ = self.server.wait();
    }
}
