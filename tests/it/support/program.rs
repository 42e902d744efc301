use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_image-share-gateway"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// The Python that has the packages of `tests/requirements.txt`; `tests/run` makes it.
pub(crate) fn python() -> std::ffi::OsString {
    std::env::var_os("ISG_TEST_PYTHON").unwrap_or_else(|| "python3".into())
}

/// A program that came with the tests' Python packages. Programs that it calls lie beside it.
pub(crate) fn beside_python(name: &str) -> Command {
    let mut command = Command::new(Path::new(&python()).with_file_name(name));
    command.env("PATH", search_path());
    command
}

/// Where programs are looked for, those of the tests' Python packages first.
pub(crate) fn search_path() -> std::ffi::OsString {
    let mut path = Path::new(&python())
        .parent()
        .unwrap()
        .as_os_str()
        .to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

/// Where the packages of `tests/package.json` lie; `tests/run` puts them there.
pub(crate) fn node_modules() -> PathBuf {
    let otherwise = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-node/node_modules");
    std::env::var_os("ISG_TEST_NODE").map_or_else(|| otherwise.into(), PathBuf::from)
}

/// Runs a program to its end, aside; what it prints, and what it says on stderr. Fails where it does, and says `about`.
pub(crate) async fn ended(mut command: Command, about: &str) -> (String, String) {
    let ended = tokio::task::spawn_blocking(move || command.output());
    let ended = ended
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{about}: {error}"));
    let out = String::from_utf8_lossy(&ended.stdout).into_owned();
    let err = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{about}\n{out}\n{err}");
    (out, err)
}

/// The same; all that it says.
pub(crate) async fn said(command: Command) -> String {
    let about = format!("{command:?}");
    let (out, err) = ended(command, &about).await;
    out + &err
}

/// The same; what it prints on stdout alone.
pub(crate) async fn printed(command: Command) -> String {
    let about = format!("{command:?}");
    ended(command, &about).await.0
}

/// What a Python program prints that is given this text.
pub(crate) fn python_with(arguments: &[&str], input: &str) -> String {
    use std::io::Write as _;
    let mut command = Command::new(python());
    let piped = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let ended = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(ended.status.success(), "{arguments:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// The keys of [`environment`]; what is told is searched for them.
pub(crate) const PROGRAM_PUBLIC_KEY: &str = "public-key-of-a-program-under-test";
pub(crate) const PROGRAM_PRIVATE_KEY: &str = "private-key-of-a-program-under-test";

/// What `serve` needs in front of `upstream`, with [`super::keys_file`] in its directory.
pub(crate) fn environment(upstream: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("ISG__SERVER__BIND", "127.0.0.1:0"),
        ("ISG__SERVER__ADMIN_BIND", ""),
        ("ISG__AUTH__ISSUER", "https://issuer.example"),
        ("ISG__AUTH__AUDIENCE", "image-share-gateway"),
        ("ISG__AUTH__JWKS_FILE", "keys.json"),
        ("ISG__UPSTREAM__BASE_URL", upstream),
        ("ISG__UPSTREAM__PUBLIC_KEY", PROGRAM_PUBLIC_KEY),
        ("ISG__UPSTREAM__PRIVATE_KEY", PROGRAM_PRIVATE_KEY),
        // Tests ask as fast as they can; those of the limits set their own.
        ("ISG__LIMITS__REQUESTS_PER_SECOND", "0"),
    ]
}

/// A running program; killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Program {
    /// Starts the program in `directory`; its log goes to `log` there.
    pub(crate) fn spawn(
        directory: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        Self::started(binary(), directory, arguments, environment)
    }

    /// The same, in whom the signal of a file that grows past its limit does nothing.
    pub(crate) fn spawn_ignoring_file_size(
        directory: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new("bash");
        command
            .args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#])
            .arg(env!("CARGO_BIN_EXE_image-share-gateway"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        Self::started(command, directory, arguments, environment)
    }

    /// Starts what `command` says.
    pub(crate) fn started(
        mut command: Command,
        directory: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let log = directory.join("log");
        let stderr = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(directory);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, log }
    }

    /// The next line of stdout that fits.
    pub(crate) fn line(&self, fits: impl Fn(&str) -> bool) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if fits(&line) => return line,
                Ok(_) => {}
                Err(error) => panic!("no such line ({error}); the log: {}", self.log()),
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log holds `text`.
    pub(crate) async fn wait_for_log(&self, text: &str) {
        super::eventually(text, async || self.log().contains(text).then_some(())).await;
    }

    /// The address that the log says REST is served at.
    pub(crate) async fn base_url(&self) -> String {
        self.served("serving REST").await
    }

    /// The address that the log says metrics and probes are served at.
    pub(crate) async fn admin_url(&self) -> String {
        self.served("serving metrics and probes").await
    }

    async fn served(&self, what: &str) -> String {
        let found = || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(what))?.to_owned();
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            let address: std::net::IpAddr = line["server.address"].as_str()?.parse().ok()?;
            let port = u16::try_from(line["server.port"].as_u64()?).ok()?;
            Some(format!(
                "http://{}",
                std::net::SocketAddr::new(address, port)
            ))
        };
        super::eventually(what, async || found()).await
    }

    /// The process' id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; gives the exit code, `None` where a signal ended it.
    pub(crate) async fn wait(&mut self) -> Option<i32> {
        let child = std::cell::RefCell::new(&mut self.child);
        super::eventually("the program ends", async || {
            child.borrow_mut().try_wait().unwrap()
        })
        .await
        .code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        super::keep("log", &self.log());
    }
}
