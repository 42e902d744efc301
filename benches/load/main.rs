//! The load bench: `cargo bench --bench load` (add `-- --seconds N` for longer runs, `--only TEXT` for the parts
//! whose name holds it).
//!
//! Gateway and sandbox run as separate processes on loopback, with the audit database on the disk that
//! holds the build. Keep-alive callers share images, each caller its own or all of them one, first before an
//! upstream that answers at once and then before one that is far away. The same work's floor is measured by
//! parts in the same run, since the disk and the neighbours of a machine change from hour to hour: what counts
//! are the ratios, and the marks are held against them.

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
mod callers;
mod floor;
#[path = "../shared/process.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use arguments::after;
use callers::{Images, Load, drive};
use process::Process;

const FAR: &str = "a far upstream";
const WARM_UP: Duration = Duration::from_secs(1);
/// How long the far upstream takes for an answer.
const LATENCY: Duration = Duration::from_millis(50);
/// How long each half of a pair is measured.
const PAIR: Duration = Duration::from_secs(3);

fn main() {
    match after("--floor").as_deref() {
        Some("route") => return floor::route(),
        Some("call") => return floor::call(&after("--url").unwrap()),
        Some("rows") => return floor::rows(&PathBuf::from(after("--directory").unwrap())),
        Some(other) => panic!("no floor is named {other}"),
        None => {}
    }
    let seconds = after("--seconds").map_or(10, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let only = after("--only").unwrap_or_default();
    let missed = runtime.block_on(bench(Duration::from_secs(seconds), &only));
    std::process::exit(i32::from(missed));
}

/// One mark of the run.
struct Mark {
    what: String,
    holds: bool,
}

impl Mark {
    /// A figure that may be at most so much.
    fn at_most(what: &str, figure: f64, most: f64) -> Self {
        Self {
            what: format!("{what} at most {most}: {figure:.2}"),
            holds: figure <= most,
        }
    }
}

async fn bench(duration: Duration, only: &str) -> bool {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut marks = near(&directory.path().join("near"), duration, only).await;
    if FAR.contains(only) {
        marks.extend(far(&directory.path().join("far"), duration).await);
    }
    println!();
    for mark in &marks {
        println!(
            "{} {}",
            if mark.holds { "holds " } else { "MISSED" },
            mark.what
        );
    }
    marks.iter().any(|mark| !mark.holds)
}

/// An upstream that answers at once: what a change costs.
async fn near(directory: &Path, duration: Duration, only: &str) -> Vec<Mark> {
    std::fs::create_dir(directory).unwrap();
    let sandbox = Process::sandbox(directory, Duration::ZERO);
    let floor = floor::measure(&sandbox.url, directory, duration).await;
    let mut marks = Vec::new();
    for (callers, images, most) in [
        (64, Images::Distinct, 2.0),
        (256, Images::Distinct, 2.5),
        (64, Images::Hot, 1.2),
    ] {
        let what = match images {
            Images::Distinct => format!("{callers} callers over {callers} images"),
            Images::Hot => format!("{callers} callers on one image"),
        };
        if !what.contains(only) {
            continue;
        }
        println!("\n{what}, {} s", duration.as_secs());
        // A trail of its own: what a change costs grows a little with the trail.
        let directory = directory.join(what.replace(' ', "-"));
        std::fs::create_dir(&directory).unwrap();
        let gateway = Process::gateway(&directory, &sandbox.url);
        let idle_mib = gateway.resident_kib() as f64 / 1024.0;
        println!("  idle memory of the gateway        {idle_mib:>9.1} MiB");
        marks.push(Mark::at_most("idle memory in MiB", idle_mib, 30.0));
        let load = load(&gateway.url, callers, images, duration);
        marks.extend(saturate(&gateway, &load, &what, floor.sum(), most).await);
    }
    marks
}

/// Lets callers ask as fast as they are answered.
async fn saturate(gateway: &Process, load: &Load, what: &str, floor: f64, most: f64) -> Vec<Mark> {
    // The warm-up opens connections and fills caches.
    drive(&load.for_the_time(WARM_UP)).await;
    let (cpu_before, commits_before) = (gateway.cpu(), gateway.commits().await);
    let result = drive(load).await;
    let cpu = gateway.cpu().saturating_sub(cpu_before);
    let commits = gateway.commits().await.since(&commits_before);
    let cpu_each = cpu.as_secs_f64() * 1e6 / result.answers as f64;
    let (p50, p99) = (result.percentile(0.50), result.percentile(0.99));
    let rate = result.answers as f64 / load.duration.as_secs_f64();
    println!("  requests/s                        {rate:>9.0}");
    println!("  p50                               {p50:>9.2} ms");
    println!("  p99                               {p99:>9.2} ms");
    println!("  errors                            {:>9}", result.errors);
    println!("  gateway CPU a change              {cpu_each:>9.1} µs");
    println!(
        "  gateway resident memory           {:>9.1} MiB",
        gateway.resident_kib() as f64 / 1024.0
    );
    println!(
        "  changes a call                    {:>9.1}",
        result.answers as f64 / commits.calls()
    );
    println!(
        "  entries a commit                  {:>9.1}",
        commits.entries_each()
    );
    println!(
        "  median commit                     {:>9.2} ms",
        commits.median_ms()
    );
    println!(
        "  CPU over the sum of the floor     {:>9.2} times",
        cpu_each / floor
    );
    let (entries, median) = (commits.entries_each(), commits.median_ms());
    vec![
        no_errors(what, result.errors),
        Mark::at_most(&format!("{what}, p99 over p50"), p99 / p50, 3.0),
        Mark::at_most(
            &format!("{what}, CPU over the floor"),
            cpu_each / floor,
            most,
        ),
        Mark {
            what: format!(
                "{what}, at least 16 entries a commit where its median takes 2 ms: {entries:.1} at {median:.2} ms"
            ),
            holds: median < 2.0 || entries >= 16.0,
        },
    ]
}

fn no_errors(what: &str, errors: usize) -> Mark {
    Mark::at_most(&format!("{what}, errors"), errors as f64, 0.0)
}

/// An upstream that is far away: what callers wait. Latencies of the upstream bound all, not this machine's CPU.
async fn far(directory: &Path, duration: Duration) -> Vec<Mark> {
    std::fs::create_dir(directory).unwrap();
    let sandbox = Process::sandbox(directory, LATENCY);
    let gateway = Process::gateway(directory, &sandbox.url);
    let run = async |images, duration| drive(&load(&gateway.url, 64, images, duration)).await;
    run(Images::Distinct, WARM_UP).await;
    let alone = run(Images::Hot, duration).await;
    let latencies = alone.percentile(0.99) / LATENCY.as_secs_f64() / 1000.0;
    println!("\nan upstream that takes {} ms", LATENCY.as_millis());
    println!("64 callers on one image, {} s", duration.as_secs());
    println!(
        "  p50                               {:>9.2} ms",
        alone.percentile(0.50)
    );
    println!(
        "  p99                               {:>9.2} ms",
        alone.percentile(0.99)
    );
    println!("  p99                               {latencies:>9.2} latencies");

    println!("64 callers over 64 images, p50 without and with 64 on one more, five times");
    let (mut ratios, mut errors) = (Vec::new(), alone.errors);
    for _ in 0..5 {
        let without = run(Images::Distinct, PAIR).await;
        let (with, hot) =
            futures_util::future::join(run(Images::Distinct, PAIR), run(Images::Hot, PAIR)).await;
        errors += without.errors + with.errors + hot.errors;
        let (without, with) = (without.percentile(0.50), with.percentile(0.50));
        println!(
            "  {without:>9.2} ms {with:>9.2} ms                {:>9.2} times",
            with / without
        );
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    vec![
        no_errors(FAR, errors),
        Mark::at_most(
            &format!("{FAR}, 64 callers on one image, p99 in latencies"),
            latencies,
            9.0,
        ),
        Mark::at_most(
            &format!("{FAR}, p50 of others beside a hot image over without it, median"),
            ratios[2],
            1.3,
        ),
    ]
}

fn load(url: &str, callers: usize, images: Images, duration: Duration) -> Load {
    Load {
        address: url.strip_prefix("http://").unwrap().to_owned(),
        tokens: process::tokens(callers),
        images,
        duration,
    }
}
