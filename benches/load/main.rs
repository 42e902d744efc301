//! The load bench: `cargo bench --profile dist --bench load --bench allocations --no-fail-fast`, as the program is shipped
//! (add `-- --seconds N` for longer runs, `--only TEXT` for the parts whose name holds it, `--plot FILE.svg` for changes a
//! second and waits over numbers of callers, `--against URL --callers N` to call a gateway that runs already).
//!
//! Gateway and sandbox run as separate processes on loopback, with the audit database on the disk that
//! holds the build. Keep-alive callers share images, each caller its own or all of them one, first before an
//! upstream that answers at once and then before one that is far away. The same work's floor is measured by
//! parts in the same run, and so is a plain service that does the same without a chain, since the disk and the
//! neighbours of a machine change from hour to hour: what counts are the ratios, and the marks are held against them.

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
mod crowd;
mod curve;
mod far;
mod floor;
mod marks;
mod measured;
mod one;
mod plain;
#[path = "../shared/process.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod process;
mod row;

use std::path::{Path, PathBuf};
use std::time::Duration;

use arguments::after;
use callers::{Asks, drive};
use floor::Floor;
use marks::{Mark, any_missed};
use measured::changes;
use process::Process;

fn main() {
    if let Some(part) = after("--floor") {
        return part_of_the_floor(&part);
    }
    let seconds = after("--seconds").map_or(10, |text| text.parse().unwrap());
    let duration = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Some(url) = after("--against") {
        return runtime.block_on(against(&url, duration));
    }
    let missed = runtime.block_on(bench(duration));
    std::process::exit(i32::from(missed));
}

/// Callers of a gateway that runs already, with the keys of the benches: for whoever looks at it by other means.
async fn against(url: &str, duration: Duration) {
    let callers = after("--callers").map_or(64, |text| text.parse().unwrap());
    let asks = match after("--images").as_deref() {
        Some("one") => Asks::OneImage,
        _ => Asks::DistinctImages,
    };
    let outcome = drive(&changes(url, callers, asks, duration)).await;
    println!(
        "{callers} callers, {:.0} changes/s, p50 {:.3} ms, p99 {:.3} ms, {} errors",
        outcome.answers as f64 / duration.as_secs_f64(),
        outcome.percentile(0.50),
        outcome.percentile(0.99),
        outcome.errors
    );
}

fn part_of_the_floor(part: &str) {
    let directory = || PathBuf::from(after("--directory").unwrap());
    let url = || after("--url").unwrap();
    match part {
        "route" => floor::route(),
        "call" => floor::call(&url()),
        "waited-call" => floor::waited_call(&url()),
        "rows" => floor::rows(&directory(), false),
        "plain-rows" => floor::rows(&directory(), true),
        "alone" => floor::alone(&url(), &directory()),
        "plain" => plain::serve(directory(), url(), false),
        "plain-with-tokens" => plain::serve(directory(), url(), true),
        other => panic!("no floor is named {other}"),
    }
}

/// What all parts of a run share.
struct Bench {
    /// Everything that a run leaves lies below it, and goes with it.
    directory: PathBuf,
    /// An upstream that answers at once.
    sandbox: Process,
    floor: Floor,
    duration: Duration,
}

impl Bench {
    /// A folder of its own, so that every part has a trail of its own: what a change costs grows a little with the trail.
    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.directory.join(name.replace(' ', "-"));
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    /// The plain service, with a table of its own.
    fn plain(&self, name: &str, part: &str) -> Process {
        let folder = self.folder(name);
        let arguments = ["--url", &self.sandbox.url, "--directory"].map(std::ffi::OsStr::new);
        Process::part(part, &[&arguments[..], &[folder.as_os_str()]].concat())
    }

    fn gateway(&self, name: &str) -> Process {
        Process::gateway(&self.folder(name), &self.sandbox.url)
    }
}

async fn bench(duration: Duration) -> bool {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sandbox = Process::sandbox(directory.path(), Duration::ZERO);
    let floor = floor::measure(&sandbox.url, directory.path(), duration).await;
    let bench = Bench {
        directory: directory.path().to_owned(),
        sandbox,
        floor,
        duration,
    };
    if let Some(file) = after("--plot") {
        curve::draw(&bench, Path::new(&file)).await;
        return false;
    }
    let only = after("--only").unwrap_or_default();
    let wanted = |what: &str| what.contains(&only);
    let mut marks = Vec::new();
    if wanted(one::CALLER) {
        marks.extend(one::caller(&bench).await);
    }
    for crowd in crowd::CROWDS {
        if wanted(&crowd.name()) {
            marks.extend(crowd.measure(&bench).await);
        }
    }
    if wanted(one::REFUSED) {
        marks.extend(one::refused(&bench).await);
    }
    if wanted(one::EVENT) {
        marks.extend(one::event(&bench).await);
    }
    if wanted(far::NEAR_BY) {
        marks.extend(far::near_by(&bench).await);
    }
    if wanted(far::FAR) {
        marks.extend(far::far(&bench).await);
    }
    any_missed(&marks)
}
