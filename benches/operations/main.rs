//! The operations bench: `cargo bench --profile dist --bench operations`, as the program is shipped (add `-- --base PROGRAM` to
//! hold it against an earlier build of the same profile).
//!
//! How long a start takes until `/readyz` is 200 on a trail of 10^6 events, what an idle gateway holds of memory, and what
//! traces cost a change: off, a tenth of them, all of them, in turns in one run, since the neighbours of a machine change from
//! hour to hour. The trail lies below `target/tmp`, where a later run finds it.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads the clock and sleeps"
)]
#![expect(clippy::cast_precision_loss, reason = "figures are for people")]

#[path = "../shared/arguments.rs"]
mod arguments;
#[path = "../shared/callers.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod callers;
#[path = "../shared/generate.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod generate;
#[path = "../shared/process.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod process;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arguments::after;
use callers::{Asks, Load, drive};
use process::Process;

const EVENTS: u64 = 1_000_000;
const STARTS: usize = 15;
const START_MS_MAX: f64 = 50.0;
const IDLE_MIB_MAX: f64 = 20.0;
const CALLERS: usize = 64;
/// How often all gateways are started anew: one process may be some hundredths slower than the next of the same program.
const SETS: usize = 5;
const ROUNDS: usize = 8;
const ROUND: Duration = Duration::from_secs(1);
/// What traces that are off may cost over an earlier build that has none.
const OFF_MAX: f64 = 1.01;
const EARLIER: &str = "the earlier build";

fn main() {
    if after("--collector").is_some() {
        return collector();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let base = after("--base").map(PathBuf::from);
    let missed = runtime.block_on(bench(base.as_deref()));
    std::process::exit(i32::from(missed));
}

/// Prints a figure and whether it holds; gives whether it does not.
fn mark(what: &str, figure: f64, at_most: f64) -> bool {
    let word = if figure <= at_most {
        "holds "
    } else {
        "MISSED"
    };
    println!("{word} {what}: {figure:.3} (at most {at_most})");
    figure > at_most
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn bench(base: Option<&Path>) -> bool {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let trails = target.join("trail-bench");
    std::fs::create_dir_all(&trails).unwrap();
    let trail = generate::trail(&trails, EVENTS).await;
    println!(
        "a trail of {EVENTS} events: {:.2} GiB",
        trail.metadata().unwrap().len() as f64 / f64::from(1 << 30)
    );
    let directory = tempfile::tempdir_in(&target).unwrap();
    let mut missed = starts(directory.path(), &trail);
    missed |= traces(directory.path(), base).await;
    missed
}

/// From the start of the process to the first 200 of `/readyz`, and what it holds of memory when it has idled.
fn starts(directory: &Path, trail: &Path) -> bool {
    let mut times = Vec::new();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let mut gateway = spawn(directory, trail, port);
        while !is_ready(port) {
            std::thread::sleep(Duration::from_micros(200));
        }
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }
    let median = median(&mut times);
    println!(
        "start to /readyz 200: {:.1} to {:.1} ms",
        times[0],
        times[STARTS - 1]
    );
    let mut missed = mark(
        "start to /readyz 200 on it, median, ms",
        median,
        START_MS_MAX,
    );

    let mut gateway = spawn(directory, trail, port);
    while !is_ready(port) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_secs(2));
    let kib = process::memory_kib(gateway.id(), "VmRSS:").unwrap();
    missed |= mark("idle memory, MiB", kib as f64 / 1024.0, IDLE_MIB_MAX);
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    missed
}

fn spawn(directory: &Path, trail: &Path, port: u16) -> std::process::Child {
    std::fs::write(directory.join("keys.json"), process::KEYS).unwrap();
    let bind = format!("127.0.0.1:{port}");
    let database = format!("sqlite://{}", trail.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_image-share-gateway"));
    command
        .args(["serve", "--accept-clock"])
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .envs([
            ("ISG__SERVER__BIND", bind.as_str()),
            ("ISG__SERVER__ADMIN_BIND", "127.0.0.1:0"),
            ("ISG__AUTH__ISSUER", process::ISSUER),
            ("ISG__AUTH__AUDIENCE", process::AUDIENCE),
            ("ISG__AUTH__JWKS_FILE", "keys.json"),
            ("ISG__UPSTREAM__BASE_URL", "http://127.0.0.1:9"),
            ("ISG__UPSTREAM__PUBLIC_KEY", "public"),
            ("ISG__UPSTREAM__PRIVATE_KEY", "private"),
            ("ISG__AUDIT__DATABASE_URL", database.as_str()),
        ]);
    command.spawn().unwrap()
}

fn is_ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let asked =
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    let mut head = [0; 12];
    asked.and_then(|()| stream.read_exact(&mut head)).is_ok() && &head == b"HTTP/1.1 200"
}

/// Its name, the program, and what its environment says.
type Variant<'a> = (&'a str, &'a Path, Vec<(&'a str, &'a str)>);

/// What a change costs with traces off, with a tenth of them and with all, and before, where an earlier build is given.
async fn traces(directory: &Path, base: Option<&Path>) -> bool {
    let sandbox = Process::sandbox(directory, Duration::ZERO);
    let mut collector = Command::new(std::env::current_exe().unwrap());
    let mut collector = collector
        .args(["--collector", "yes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = collector.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    let endpoint = line.trim().to_owned();

    let program = Path::new(env!("CARGO_BIN_EXE_image-share-gateway"));
    let mut variants: Vec<Variant<'_>> = vec![
        ("off", program, Vec::new()),
        ("off, once more", program, Vec::new()),
    ];
    for (name, ratio) in [("a tenth", "0.1"), ("all", "1.0")] {
        let settings = vec![
            ("ISG__TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()),
            ("ISG__TELEMETRY__TRACE_SAMPLE_RATIO", ratio),
        ];
        variants.push((name, program, settings));
    }
    if let Some(base) = base {
        variants.push((EARLIER, base, Vec::new()));
    }
    let tokens = process::tokens(CALLERS);
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    for set in 0..SETS {
        let mut gateways = Vec::new();
        for (name, program, settings) in &variants {
            let place = directory.join(format!("{set}-{name}").replace([' ', ','], "-"));
            std::fs::create_dir(&place).unwrap();
            let trail = place.join("audit.db");
            gateways.push(Process::gateway_of(
                program,
                &place,
                &sandbox.url,
                &trail,
                settings,
            ));
        }
        for round in 0..=ROUNDS {
            // Whoever comes first is another each time, and whoever comes before whom.
            let mut order: Vec<usize> = (0..gateways.len()).collect();
            order.rotate_left((set + round) % gateways.len());
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let cost = cost_of_a_change(&gateways[index], &tokens).await;
                // The first round opens connections and fills caches.
                if round > 0 {
                    costs[index].push(cost);
                }
            }
        }
    }
    let _ = collector.kill();
    let _ = collector.wait();
    // What both processes took, so that luck of one counts half.
    let off: Vec<f64> = costs[0]
        .iter()
        .zip(&costs[1])
        .map(|(one, other)| (one + other) / 2.0)
        .collect();
    let over = |other: &[f64]| {
        let mut ratios: Vec<f64> = off
            .iter()
            .zip(other)
            .map(|(off, other)| other / off)
            .collect();
        median(&mut ratios)
    };
    let mut missed = false;
    for ((name, _, _), of_variant) in variants.iter().zip(&costs) {
        let each = median(&mut of_variant.clone());
        println!(
            "CPU a change, traces: {name:<18} {each:>7.1} µs, {:.3} of off",
            over(of_variant)
        );
    }
    if base.is_some() {
        let ratio = 1.0 / over(&costs[costs.len() - 1]);
        missed |= mark("traces off over the earlier build", ratio, OFF_MAX);
    }
    missed
}

/// CPU, in microseconds.
async fn cost_of_a_change(gateway: &Process, tokens: &[String]) -> f64 {
    let load = Load {
        address: gateway.url.strip_prefix("http://").unwrap().to_owned(),
        tokens: tokens.to_vec(),
        asks: Asks::DistinctImages,
        expects: 200,
        duration: ROUND,
    };
    let before = gateway.cpu();
    let outcome = drive(&load).await;
    assert_eq!(outcome.errors, 0);
    let cpu = gateway.cpu().saturating_sub(before).as_secs_f64();
    cpu * 1e6 / outcome.answers as f64
}

/// Takes whatever is posted.
fn collector() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let (mut bytes, mut buffer) = (Vec::new(), vec![0; 65536]);
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                if read == 0 {
                    return;
                }
                bytes.extend_from_slice(&buffer[..read]);
                while let Some(end) = whole(&bytes) {
                    bytes.drain(..end);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
            }
        });
    }
}

/// Where the first request ends, where it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    let end = head + length.trim().parse::<usize>().ok()?;
    (bytes.len() >= end).then_some(end)
}
