//! The allocations bench: `cargo bench --bench allocations`.
//!
//! How often a change asks for memory, and for how many bytes, with 64 callers over 64 images. The gateway runs in a process
//! of its own whose allocator counts; it is slower for that, so its speed says nothing.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads the clock and the environment"
)]
#![expect(clippy::cast_precision_loss, reason = "figures are for people")]

#[path = "../shared/arguments.rs"]
mod arguments;
#[path = "../shared/callers.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod callers;
#[path = "../shared/process.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod process;

use std::alloc::System;
use std::io::{BufRead, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use image_share_gateway::app::App;
use image_share_gateway::audit::Accepted;
use image_share_gateway::config::{Config, LogFormat, Sources};
use image_share_gateway::telemetry::start_logging;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use callers::{Asks, Load, drive};
use process::Process;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CALLERS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(5);
/// Half of what they were when they were counted first.
const ALLOCATIONS_MAX: f64 = 108.0;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    if arguments::after("--counting").is_some() {
        return runtime.block_on(gateway());
    }
    let each = runtime.block_on(count());
    println!(
        "{:.1} allocations a change of {:.0} bytes in all",
        each.0, each.1
    );
    let holds = each.0 <= ALLOCATIONS_MAX;
    let word = if holds { "holds " } else { "MISSED" };
    println!(
        "{word} allocations a change at most {ALLOCATIONS_MAX}: {:.1}",
        each.0
    );
    std::process::exit(i32::from(!holds));
}

/// Allocations and bytes of a change.
async fn count() -> (f64, f64) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sandbox = Process::sandbox(directory.path(), Duration::ZERO);
    let mut gateway = Counting::start(directory.path(), &sandbox.url);
    let load = Load {
        address: gateway.url.strip_prefix("http://").unwrap().to_owned(),
        tokens: process::tokens(CALLERS),
        asks: Asks::DistinctImages,
        expects: 200,
        duration: TIME,
    };
    drive(&load.for_the_time(WARM_UP)).await;
    let before = gateway.counted();
    let outcome = drive(&load).await;
    let after = gateway.counted();
    assert_eq!(outcome.errors, 0);
    let changes = outcome.answers as f64;
    let each = |before: u64, after: u64| (after - before) as f64 / changes;
    (each(before.0, after.0), each(before.1, after.1))
}

/// A gateway that says how much it has allocated.
struct Counting {
    child: Child,
    ask: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Counting {
    fn start(directory: &std::path::Path, upstream: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--counting", "yes"]);
        process::configure(
            &mut command,
            directory,
            upstream,
            &directory.join("audit.db"),
        );
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            url: told.next().unwrap().unwrap(),
            ask: child.stdin.take().unwrap(),
            told,
            child,
        }
    }

    /// Allocations so far, and their bytes.
    fn counted(&mut self) -> (u64, u64) {
        self.ask.write_all(b"\n").unwrap();
        let line = self.told.next().unwrap().unwrap();
        let (allocations, bytes) = line.split_once(' ').unwrap();
        (allocations.parse().unwrap(), bytes.parse().unwrap())
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves, and tells what it allocated as often as a line comes.
async fn gateway() {
    let config = Config::load(&Sources::of_this_process(None)).unwrap();
    let _logging = start_logging(LogFormat::Json, None);
    let app = App::start(config, None, Accepted::default()).await.unwrap();
    println!("{}", app.base_url());
    let told = std::thread::spawn(|| {
        for _ in std::io::stdin().lines() {
            let stats = ALLOCATOR.stats();
            let (allocations, bytes) = (
                stats.allocations + stats.reallocations,
                stats.bytes_allocated,
            );
            println!("{allocations} {bytes}");
        }
    });
    told.join().unwrap();
    drop(app);
}
