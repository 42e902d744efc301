//! The replicas bench: `cargo bench --profile dist --bench replicas -- --server postgres://USER:PASSWORD@HOST:PORT` (add
//! `--seconds N` for longer parts), with a server of PostgreSQL on the same disk whose user may make databases.
//!
//! One gateway on PostgreSQL beside one on SQLite, two gateways on one trail, a hot image at both, and what a killed gateway
//! leaves: ratios of one run, since disk and neighbours change from hour to hour.

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
#[path = "../load/marks.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod marks;
#[path = "../load/measured.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod measured;
#[path = "../shared/process.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod process;
mod quota;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use arguments::after;
use callers::{Asks, drive};
use marks::{Mark, any_missed};
use measured::{changes, measure};
use process::Process;
use quota::Quota;

const CALLERS: usize = 64;
/// An upstream near by.
const NEAR_BY: Duration = Duration::from_millis(5);

fn main() {
    let Some(server) = after("--server") else {
        println!("not run: --server postgres://USER:PASSWORD@HOST:PORT names a server");
        return;
    };
    let seconds = after("--seconds").map_or(5, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let missed = runtime.block_on(bench(&server, Duration::from_secs(seconds)));
    std::process::exit(i32::from(missed));
}

struct Bench {
    directory: PathBuf,
    server: String,
    name: u64,
}

impl Bench {
    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.directory.join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    fn psql(&self, database: &str, statement: &str) -> String {
        let output = Command::new("psql")
            .args([
                "-XAtq",
                "-d",
                &format!("{}/{database}", self.server),
                "-c",
                statement,
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A trail of its own; its name.
    fn trail(&self, name: &str) -> String {
        let name = format!("bench_{}_{name}", self.name);
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    fn gateway(&self, folder: &Path, upstream: &str, trail: &str) -> Process {
        let url = format!("{}/{trail}", self.server);
        Process::gateway_with(folder, upstream, &[("ISG__AUDIT__DATABASE_URL", &url)])
    }
}

/// Both at once; how many changes a second they make together.
async fn together(one: &Process, two: &Process, asks: [Asks; 2], duration: Duration) -> f64 {
    let [of_one, of_two] = asks;
    let (one, two) = (
        changes(&one.url, CALLERS / 2, of_one, duration),
        changes(&two.url, CALLERS / 2, of_two, duration),
    );
    let (one, two) = tokio::join!(drive(&one), drive(&two));
    assert_eq!(one.errors + two.errors, 0);
    (one.answers + two.answers) as f64 / duration.as_secs_f64()
}

async fn bench(server: &str, duration: Duration) -> bool {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let name = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let bench = Bench {
        directory: directory.path().to_owned(),
        server: server.trim_end_matches('/').to_owned(),
        name,
    };
    let sandbox = Process::sandbox(directory.path(), Duration::ZERO);
    let mut marks = Vec::new();

    let file = Process::gateway(&bench.folder("file"), &sandbox.url);
    let load = changes(&file.url, CALLERS, Asks::DistinctImages, duration);
    let on_file = measure(&file, &load).await;
    drop(file);
    let trail = bench.trail("one");
    let one = bench.gateway(&bench.folder("one"), &sandbox.url, &trail);
    let load = changes(&one.url, CALLERS, Asks::DistinctImages, duration);
    let on_server = measure(&one, &load).await;
    println!(
        "64 callers: SQLite {:.0} changes/s and {:.0} µs of CPU each, PostgreSQL {:.0} and {:.0}, p99 {:.1} ms",
        on_file.rate,
        on_file.cpu,
        on_server.rate,
        on_server.cpu,
        on_server.outcome.percentile(0.99)
    );
    marks.push(Mark::at_most(
        "SQLite's changes a second over PostgreSQL's",
        on_file.rate / on_server.rate,
        2.0,
    ));
    marks.push(Mark::at_most(
        "CPU of a gateway on PostgreSQL over SQLite's",
        on_server.cpu / on_file.cpu,
        1.5,
    ));
    let alone = measure(&one, &changes(&one.url, 1, Asks::DistinctImages, duration)).await;
    println!(
        "one caller: {:.0} changes/s, p50 {:.2} ms",
        alone.rate,
        alone.outcome.percentile(0.5)
    );

    let two = bench.gateway(&bench.folder("two"), &sandbox.url, &trail);
    let apart = [Asks::ImagesOf("a"), Asks::ImagesOf("b")];
    together(&one, &two, apart.clone(), Duration::from_secs(1)).await;
    let apart = together(&one, &two, apart, duration).await;
    let shared = [Asks::DistinctImages, Asks::DistinctImages];
    let shared = together(&one, &two, shared, duration).await;
    println!(
        "two gateways: {apart:.0} changes/s on images of their own, {shared:.0} on the same ones"
    );
    marks.push(Mark::at_most(
        "one gateway's changes a second over two's",
        on_server.rate / apart,
        1.0 / 1.3,
    ));
    drop((one, two));
    marks.extend(limited(&bench, &sandbox, duration).await);

    let far = Process::sandbox(&bench.folder("far"), NEAR_BY);
    let trail = bench.trail("hot");
    let one = bench.gateway(&bench.folder("hot-one"), &far.url, &trail);
    let hot = measure(&one, &changes(&one.url, CALLERS, Asks::OneImage, duration)).await;
    let two = bench.gateway(&bench.folder("hot-two"), &far.url, &trail);
    let both = [Asks::OneImage, Asks::OneImage];
    together(&one, &two, both.clone(), Duration::from_secs(1)).await;
    let both = together(&one, &two, both, duration).await;
    println!(
        "a hot image before an upstream of 5 ms: {:.0} changes/s at one gateway, {both:.0} at two",
        hot.rate
    );
    marks.push(Mark::at_most(
        "a hot image at one gateway over two",
        hot.rate / both,
        1.25,
    ));

    marks.push(kill(&bench, one, &trail).await);
    any_missed(&marks)
}

/// What a second gateway adds where gateways, and not the machine that all share, are what bounds: each has a fifth of a processor.
async fn limited(bench: &Bench, sandbox: &Process, duration: Duration) -> Option<Mark> {
    let trail = bench.trail("limited");
    let one = bench.gateway(&bench.folder("limited-one"), &sandbox.url, &trail);
    let two = bench.gateway(&bench.folder("limited-two"), &sandbox.url, &trail);
    let (Some(_one), Some(_two)) = (Quota::of(&one, 20), Quota::of(&two, 20)) else {
        println!(
            "not run: two gateways of a fifth of a processor each, for which this user may make no control group"
        );
        return None;
    };
    let alone = changes(&one.url, CALLERS, Asks::ImagesOf("a"), duration);
    drive(&alone).await;
    let alone = drive(&alone).await;
    assert_eq!(alone.errors, 0);
    let alone = alone.answers as f64 / duration.as_secs_f64();
    let apart = [Asks::ImagesOf("b"), Asks::ImagesOf("c")];
    let both = together(&one, &two, apart, duration).await;
    println!(
        "with a fifth of a processor each: {alone:.0} changes/s at one gateway, {both:.0} at two"
    );
    drop((one, two));
    Some(Mark::at_most(
        "one gateway's changes a second over two's, a fifth of a processor each",
        alone / both,
        1.0 / 1.3,
    ))
}

/// How long it takes until another gateway has closed what a killed one left.
async fn kill(bench: &Bench, one: Process, trail: &str) -> Mark {
    let load = changes(
        &one.url,
        CALLERS,
        Asks::ImagesOf("killed"),
        Duration::from_mins(1),
    );
    // Its callers end as it does, and say so.
    std::panic::set_hook(Box::new(|_| {}));
    let calling = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(drive(&load));
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(one);
    let killed = Instant::now();
    assert!(calling.join().is_err(), "nobody answers any more");
    drop(std::panic::take_hook());
    let pending = || bench.psql(trail, "SELECT COUNT(*) FROM audit_pending");
    let left = pending();
    while pending() != "0" {
        assert!(killed.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = killed.elapsed().as_secs_f64();
    println!("a killed gateway's {left} intents were closed within {took:.1} s");
    Mark::at_most("seconds until then", took, 5.0)
}
