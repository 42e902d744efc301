//! Processes under measurement: their CPU time and memory, and what the gateway counts.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use image_share_gateway::auth::{Grant, Mint};

pub(crate) const ISSUER: &str = "https://bench.example";
pub(crate) const AUDIENCE: &str = "image-share-gateway";
const PUBLIC_KEY: &str = "bench-public-key";
const PRIVATE_KEY: &str = "bench-private-key";

/// Tokens of so many subjects that may share.
pub(crate) fn tokens(subjects: usize) -> Vec<String> {
    let token = |number| {
        token(
            &format!("team-{number}"),
            "shares:write",
            Duration::from_hours(1),
        )
    };
    (0..subjects).map(token).collect()
}

/// A token of so long a life.
pub(crate) fn token(subject: &str, scope: &str, ttl: Duration) -> String {
    let mint = Mint::from_set(KEYS, None).unwrap();
    let grant = Grant {
        subject,
        scope,
        issuer: ISSUER,
        audience: AUDIENCE,
        ttl,
    };
    mint.sign(&grant).unwrap()
}

/// A P-256 key made for the benches alone.
pub(crate) const KEYS: &str = include_str!("keys.json");

/// Tells a gateway, by its environment, to serve in front of `upstream` on ports of its own.
pub(crate) fn configure(command: &mut Command, directory: &Path, upstream: &str, trail: &Path) {
    std::fs::write(directory.join("keys.json"), KEYS).unwrap();
    command.current_dir(directory).envs([
        ("ISG__SERVER__BIND", "127.0.0.1:0"),
        ("ISG__SERVER__ADMIN_BIND", "127.0.0.1:0"),
        ("ISG__AUTH__ISSUER", ISSUER),
        ("ISG__AUTH__AUDIENCE", AUDIENCE),
        ("ISG__AUTH__JWKS_FILE", "keys.json"),
        ("ISG__UPSTREAM__BASE_URL", upstream),
        ("ISG__UPSTREAM__PUBLIC_KEY", PUBLIC_KEY),
        ("ISG__UPSTREAM__PRIVATE_KEY", PRIVATE_KEY),
        ("ISG__LIMITS__REQUESTS_PER_SECOND", "0"),
        (
            "ISG__AUDIT__DATABASE_URL",
            &format!("sqlite://{}", trail.display()),
        ),
    ]);
}

/// Linux counts CPU time in these (`getconf CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

/// A child that ends with the bench.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    admin_url: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// The sandbox, ready; it takes `latency` for each answer.
    pub(crate) fn sandbox(directory: &Path, latency: Duration) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-share-gateway"));
        command
            .args([
                "sandbox",
                "--public-key",
                PUBLIC_KEY,
                "--private-key",
                PRIVATE_KEY,
                "--latency-ms",
                &latency.as_millis().to_string(),
            ])
            .current_dir(directory);
        Self::printing_its_url(command)
    }

    /// A part of the floor that serves, ready.
    pub(crate) fn part(name: &str, arguments: &[&OsStr]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--floor", name]).args(arguments);
        Self::printing_its_url(command)
    }

    fn printing_its_url(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self {
            child,
            url: url.trim().to_owned(),
            admin_url: String::new(),
        }
    }

    /// The gateway in front of `upstream`, ready, with its log in a file as in earnest.
    pub(crate) fn gateway(directory: &Path, upstream: &str) -> Self {
        Self::gateway_with_trail(directory, upstream, &directory.join("data/audit.db"))
    }

    /// The same with more in its environment.
    pub(crate) fn gateway_with(directory: &Path, upstream: &str, more: &[(&str, &str)]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_image-share-gateway"));
        let trail = directory.join("data/audit.db");
        Self::gateway_of(program, directory, upstream, &trail, more)
    }

    /// The same with the trail somewhere else.
    pub(crate) fn gateway_with_trail(directory: &Path, upstream: &str, trail: &Path) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_image-share-gateway"));
        Self::gateway_of(program, directory, upstream, trail, &[])
    }

    /// The same of this build, with more in its environment.
    pub(crate) fn gateway_of(
        program: &Path,
        directory: &Path,
        upstream: &str,
        trail: &Path,
        more: &[(&str, &str)],
    ) -> Self {
        let log = directory.join("log");
        let mut command = Command::new(program);
        command.arg("serve");
        configure(&mut command, directory, upstream, trail);
        command.envs(more.iter().copied());
        let stderr = std::fs::File::create(&log).unwrap();
        let mut child = command
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut address = |message: &str| loop {
            let text = std::fs::read_to_string(&log).unwrap();
            let line = text
                .lines()
                .find(|line| line.contains(message))
                .map(str::to_owned);
            if let Some(line) =
                line.and_then(|line| serde_json::from_str::<serde_json::Value>(&line).ok())
            {
                let address = line["server.address"].as_str().unwrap();
                // Older builds have the port there.
                return match line["server.port"].as_u64() {
                    Some(port) => format!("http://{address}:{port}"),
                    None => format!("http://{address}"),
                };
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended: {text}");
            std::thread::yield_now();
        };
        let (url, admin_url) = (address("serving REST"), address("serving metrics"));
        Self {
            child,
            url,
            admin_url,
        }
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(&self.child.id().to_string())
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How often threads of it that still run went to sleep.
    pub(crate) fn voluntary_switches(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of = |path: std::path::PathBuf| {
            let status = std::fs::read_to_string(path.join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        };
        tasks.filter_map(|task| of(task.ok()?.path())).sum()
    }

    /// Resident memory.
    pub(crate) fn resident_kib(&self) -> u64 {
        memory_kib(self.child.id(), "VmRSS:").unwrap()
    }

    /// The most resident memory so far.
    pub(crate) fn peak_kib(&self) -> u64 {
        memory_kib(self.child.id(), "VmHWM:").unwrap()
    }

    /// Bytes that the process has read so far, from files and sockets.
    pub(crate) fn read_bytes(&self) -> u64 {
        io_of(&self.child.id().to_string(), "rchar: ")
    }

    /// The gateway's group commits so far.
    pub(crate) async fn commits(&self) -> Commits {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .build()
            .unwrap();
        let text = client
            .get(format!("{}/metrics", self.admin_url))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let number = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim().parse::<f64>().unwrap()
        };
        let bucket = |line: &str| {
            let (bound, count) = line
                .strip_prefix("isg_audit_commit_duration_seconds_bucket{le=\"")?
                .split_once("\"} ")?;
            Some((
                bound.parse::<f64>().unwrap_or(f64::INFINITY),
                count.parse::<f64>().ok()?,
            ))
        };
        Commits {
            count: number("isg_audit_commit_entries_count "),
            entries: number("isg_audit_commit_entries_sum "),
            calls: text
                .lines()
                .filter(|line| line.starts_with("isg_upstream_calls_total{"))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum(),
            buckets: text.lines().filter_map(bucket).collect(),
        }
    }
}

/// A line of a process' memory figures; `None` where it has ended.
pub(crate) fn memory_kib(process: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A line of what a process, `self` among them, has read and written by system calls, in bytes.
pub(crate) fn io_of(process: &str, name: &str) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().parse().unwrap()
}

/// User and system time of a process, `self` among them.
pub(crate) fn cpu_of(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The command's name is in brackets and may hold anything.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Group commits over some time.
pub(crate) struct Commits {
    count: f64,
    entries: f64,
    /// Changes sent to the upstream.
    calls: f64,
    /// Upper bound in seconds, commits up to it.
    buckets: Vec<(f64, f64)>,
}

impl Commits {
    pub(crate) fn since(&self, before: &Self) -> Self {
        let buckets = self.buckets.iter().zip(&before.buckets);
        Self {
            count: self.count - before.count,
            entries: self.entries - before.entries,
            calls: self.calls - before.calls,
            buckets: buckets
                .map(|((bound, now), (_, then))| (*bound, now - then))
                .collect(),
        }
    }

    /// Each change has two entries.
    pub(crate) fn changes_a_call(&self) -> f64 {
        self.entries / 2.0 / self.calls
    }

    pub(crate) fn entries_each(&self) -> f64 {
        self.entries / self.count
    }

    /// The median, interpolated within its bucket; buckets are a quarter wide.
    pub(crate) fn median_ms(&self) -> f64 {
        let half = self.count / 2.0;
        let at = self
            .buckets
            .iter()
            .position(|(_, up_to)| *up_to >= half)
            .unwrap();
        let (low, below) = if at == 0 {
            (0.0, 0.0)
        } else {
            self.buckets[at - 1]
        };
        let (high, up_to) = self.buckets[at];
        1000.0 * (low + (high - low) * (half - below) / (up_to - below).max(1.0))
    }
}
