//! The trail bench: `cargo bench --bench trail` (add `-- --largest 1000000` for a short run).
//!
//! Makes trails of 10^4, 10^6 and 10^7 events with the product's own schema (the last takes some minutes and
//! 10 GiB below `target/tmp`; a later run finds them there), and holds what recording and looking cost in the
//! large one against the small one, and verification and export against Debian's `sqlite3`, all in one run.
//! What counts are the ratios, and the marks are held against them.
//!
//! With `-- --server postgres://USER:PASSWORD@HOST:PORT` it imports the small and the large one into databases of that server (15 GiB,
//! and half an hour the first time; a later run finds them there), and holds looking at these against each other.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads the clock and sleeps"
)]
#![expect(clippy::cast_precision_loss, reason = "figures are for people")]

#[path = "../shared/arguments.rs"]
mod arguments;
#[path = "../shared/generate.rs"]
mod generate;
mod look;
#[path = "../shared/process.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod process;
mod record;
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use arguments::after;
use image_share_gateway::config::TrailPlace;

const SMALL: u64 = 10_000;
const MIDDLE: u64 = 1_000_000;
const LARGE: u64 = 10_000_000;
/// Changes that are recorded into each trail.
const CHANGES: u64 = 20_000;
/// Memory that a look at the trail may take.
const MEMORY_KIB_MAX: u64 = 48 * 1024;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Some(path) = after("--record") {
        let (cpu, kib) = runtime.block_on(record::cost(Path::new(&path), CHANGES));
        println!("{cpu} {kib}");
        return;
    }
    let largest = after("--largest").map_or(LARGE, |text| text.parse().unwrap());
    let mut bench = Bench {
        directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("trail-bench"),
        missed: false,
    };
    std::fs::create_dir_all(&bench.directory).unwrap();
    let sizes: Vec<u64> = [SMALL, MIDDLE, LARGE]
        .into_iter()
        .filter(|size| *size <= largest)
        .collect();
    runtime.block_on(bench.run(&sizes));
    std::process::exit(i32::from(bench.missed));
}

struct Bench {
    directory: PathBuf,
    missed: bool,
}

/// A trail and how many events it has.
type Trail = (u64, PathBuf);

/// The same, wherever it is.
type Place = (u64, TrailPlace);

fn file((events, path): &Trail) -> Place {
    (*events, TrailPlace::File(path.clone()))
}

fn url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

impl Bench {
    async fn run(&mut self, sizes: &[u64]) {
        if after("--server").is_none() {
            self.group_commit().await;
        }
        let mut trails: Vec<Trail> = Vec::new();
        for size in sizes {
            let begun = Instant::now();
            let path = generate::trail(&self.directory, *size).await;
            let mib = path.metadata().unwrap().len() >> 20;
            println!(
                "\ntrail of {size} events: {mib} MiB, there in {:.0} s",
                begun.elapsed().as_secs_f64()
            );
            trails.push((*size, path));
        }
        let (small, large) = (&trails[0], &trails[trails.len() - 1]);
        if let Some(server) = after("--server") {
            return self.over_server(&server, small, large).await;
        }
        let linear: Vec<&Trail> = trails.iter().filter(|trail| trail.0 >= MIDDLE).collect();
        self.pages(&file(small), &file(large)).await;
        self.provenance(&file(small), &file(large)).await;
        self.summaries(large).await;
        self.start(small, large);
        self.verification(&linear);
        self.exports(&linear);
        self.feed(large);
        self.recording(&trails);
    }

    fn mark(&mut self, what: &str, figure: f64, at_most: f64) {
        self.missed |= figure > at_most;
        let word = if figure <= at_most {
            "holds "
        } else {
            "MISSED"
        };
        println!("{word} {what}: {figure:.2} (at most {at_most})");
    }

    fn memory(&mut self, what: &str, kib: u64) {
        let what = format!("most memory of {what}, MiB");
        self.mark(&what, kib as f64 / 1024.0, MEMORY_KIB_MAX as f64 / 1024.0);
    }

    async fn group_commit(&mut self) {
        let directory = tempfile::tempdir_in(&self.directory).unwrap();
        let (mut alone, mut together) = (0.0, 0.0);
        println!("\ngroup commit: entries made durable a second");
        for round in 0..3 {
            let path = |tasks| directory.path().join(format!("{round}-{tasks}.db"));
            let time = Duration::from_secs(4);
            alone += record::throughput(&path(1), 1, time).await / 3.0;
            together += record::throughput(&path(64), 64, time).await / 3.0;
        }
        println!("  one commit each       {alone:>10.0}");
        println!("  64 tasks              {together:>10.0}");
        let what = "one commit each over 64 tasks, tenfold";
        self.mark(what, 10.0 * alone / together, 1.0);
    }

    async fn pages(&mut self, small: &Place, large: &Place) {
        println!(
            "\npages of 100 events, median ms: {} and {} events",
            small.0, large.0
        );
        let (one, other) = (
            look::pages(&small.1, small.0).await,
            look::pages(&large.1, large.0).await,
        );
        for ((name, few), (_, many)) in one.into_iter().zip(other) {
            println!("  {name:<28}{few:>8.3}{many:>8.3}");
            self.mark(
                &format!("page by {name}, large over small"),
                many / few,
                2.0,
            );
        }
    }

    async fn provenance(&mut self, small: &Place, large: &Place) {
        let (one, other) = (
            look::provenance(&small.1).await,
            look::provenance(&large.1).await,
        );
        println!("\nwho shared with 25 accounts, median ms: {one:.3} and {other:.3}");
        self.mark("provenance, large over small", other / one, 2.0);
    }

    async fn summaries(&mut self, large: &Trail) {
        println!("\nsummary by day, ms: half of {} events and all", large.0);
        for subject in [None, Some(generate::team(3))] {
            let half = look::summary(&large.1, large.0, 0.5, subject.clone()).await;
            let whole = look::summary(&large.1, large.0, 1.0, subject.clone()).await;
            let name = subject.map_or("everything", |_| "one team");
            println!("  {name:<28}{half:>8.1}{whole:>8.1}");
            let what = format!("summary of {name}, whole over half, a half more than linear");
            self.mark(&what, whole / half, 3.0);
        }
    }

    fn start(&mut self, small: &Trail, large: &Trail) {
        let keys = tempfile::tempdir_in(&self.directory).unwrap();
        let (one, read) = look::start(keys.path(), &url(&small.1));
        let (other, more_read) = look::start(keys.path(), &url(&large.1));
        println!("\nstart until serving, median ms: {one:.1} and {other:.1}");
        println!(
            "  read until then, KiB: {} and {}",
            read >> 10,
            more_read >> 10
        );
        self.mark("start, large minus small, ms", other - one, 20.0);
        let more = more_read.saturating_sub(read) as f64 / 1024.0;
        self.mark("start, KiB read more", more, 256.0);
    }

    fn verification(&mut self, trails: &[&Trail]) {
        println!("\naudit verify, and sqlite3 selecting the same rows, s");
        let mut each = Vec::new();
        for (size, path) in trails {
            let _ = look::sqlite3_rows(path);
            let (took, peak) = look::verify(&url(path));
            let select = look::sqlite3_rows(path);
            println!("  {size:>9} events{took:>9.2}{select:>9.2}");
            self.mark("verify over sqlite3", took / select, 4.0);
            self.memory("verify", peak);
            each.push(took / *size as f64);
        }
        self.linear("verify", &each);
    }

    fn exports(&mut self, trails: &[&Trail]) {
        println!("\naudit export, and sqlite3 selecting the same events, s");
        for format in ["ndjson", "csv"] {
            let mut each = Vec::new();
            for (size, path) in trails {
                let (took, peak) = look::export(&url(path), format);
                let select = look::sqlite3_events(path);
                println!("  {format:<7}{size:>9} events{took:>9.2}{select:>9.2}");
                self.mark("export over sqlite3", took / select, 8.0);
                self.memory("export", peak);
                each.push(took / *size as f64);
            }
            self.linear("export", &each);
        }
    }

    /// Time an event must not grow with the trail; a half more is left to caches.
    fn linear(&mut self, what: &str, each: &[f64]) {
        let what = format!("{what}, time an event, large over middle");
        self.mark(&what, each[each.len() - 1] / each[0], 1.5);
    }

    fn feed(&mut self, large: &Trail) {
        let directory = tempfile::tempdir_in(&self.directory).unwrap();
        let rows = usize::try_from(large.0.min(MIDDLE)).unwrap();
        let (rate, peak) = look::feed(directory.path(), &large.1, rows);
        println!("\nfeed over HTTP, rows a second: {rate:.0}");
        self.memory("the gateway while it feeds", peak);
    }

    /// Last, since it lengthens what it records into: small trails by a copy, the large one by itself.
    fn recording(&mut self, trails: &[Trail]) {
        println!("\nrecording a change, 64 at a time: CPU µs and KiB written");
        let mut costs = Vec::new();
        for (size, path) in trails {
            let copy = self.directory.join("recorded.db");
            let path = if *size < LARGE {
                std::fs::copy(path, &copy).unwrap();
                // Another trail is meant to lie there.
                let _ = std::fs::remove_file(self.directory.join("recorded.db.head"));
                &copy
            } else {
                path
            };
            let mut command = Command::new(std::env::current_exe().unwrap());
            let output = command.arg("--record").arg(path).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let (cpu, kib) = text.trim().split_once(' ').unwrap();
            let (cpu, kib): (f64, f64) = (cpu.parse().unwrap(), kib.parse().unwrap());
            println!("  {size:>9} events{cpu:>9.1}{kib:>9.1}");
            costs.push((cpu, kib));
            let _ = std::fs::remove_file(&copy);
        }
        let (one, other) = (costs[0], costs[costs.len() - 1]);
        self.mark("CPU a change, large over small", other.0 / one.0, 2.5);
        self.mark(
            "bytes written a change, large over small",
            other.1 / one.1,
            2.5,
        );
    }
}
