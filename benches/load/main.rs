//! The load bench: `cargo bench --bench load` (add `-- --seconds N` for longer runs).
//!
//! Gateway and sandbox run as separate processes on loopback, with the audit database on the disk that
//! holds the build. 64 and then 256 keep-alive callers share images, each caller its own image. The same
//! work's floor is measured by parts in the same run, since the disk and the neighbours of a machine change
//! from hour to hour: what counts are the ratios, and the marks are held against them.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench reads the clock and the environment"
)]
#![expect(clippy::cast_precision_loss, reason = "figures are for people")]

mod callers;
mod floor;
#[path = "../shared/process.rs"]
#[allow(dead_code, reason = "each bench takes what it needs")]
mod process;

use std::path::PathBuf;
use std::time::Duration;

use image_share_gateway::auth::{Grant, Mint};

use callers::{Load, drive};
use process::{AUDIENCE, ISSUER, KEYS, Process};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        arguments
            .iter()
            .position(|argument| argument == flag)
            .map(|at| arguments[at + 1].clone())
    };
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
    let missed = runtime.block_on(bench(Duration::from_secs(seconds)));
    std::process::exit(i32::from(missed));
}

/// One mark of the run.
struct Mark {
    what: String,
    holds: bool,
}

async fn bench(duration: Duration) -> bool {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sandbox = Process::sandbox(directory.path());
    let upstream = sandbox.url.clone();
    let floor = floor::measure(&upstream, directory.path(), duration).await;

    let gateway = Process::gateway(directory.path(), &upstream);
    let idle_kib = gateway.resident_kib();
    println!(
        "\nidle memory of the gateway          {:>9.1} MiB",
        idle_kib as f64 / 1024.0
    );
    let mut marks = vec![Mark {
        what: format!("idle memory under 30 MiB: {:.1}", idle_kib as f64 / 1024.0),
        holds: idle_kib < 30 * 1024,
    }];
    for callers in [64, 256] {
        // The warm-up opens connections and fills caches.
        drive(&load(&gateway.url, callers, Duration::from_secs(1))).await;
        let (cpu_before, commits_before) = (gateway.cpu(), gateway.commits().await);
        let result = drive(&load(&gateway.url, callers, duration)).await;
        let cpu = gateway.cpu().saturating_sub(cpu_before);
        let commits = gateway.commits().await.since(&commits_before);
        let cpu_each = cpu.as_secs_f64() * 1e6 / result.answers as f64;
        println!(
            "\n{callers} callers over {callers} images, {} s",
            duration.as_secs()
        );
        println!(
            "  requests/s                        {:>9.0}",
            result.answers as f64 / duration.as_secs_f64()
        );
        println!(
            "  p50                               {:>9.2} ms",
            result.percentile(0.50)
        );
        println!(
            "  p99                               {:>9.2} ms",
            result.percentile(0.99)
        );
        println!("  errors                            {:>9}", result.errors);
        println!("  gateway CPU a change              {cpu_each:>9.1} µs");
        println!(
            "  gateway resident memory           {:>9.1} MiB",
            gateway.resident_kib() as f64 / 1024.0
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
            cpu_each / floor.sum()
        );
        let ratio = result.percentile(0.99) / result.percentile(0.50);
        let slow_disk = commits.median_ms() >= 2.0;
        marks.extend([
            Mark { what: format!("{callers} callers, no errors: {}", result.errors), holds: result.errors == 0 },
            Mark { what: format!("{callers} callers, p99 at most 3 times p50: {ratio:.2}"), holds: ratio <= 3.0 },
            Mark {
                what: format!("{callers} callers, CPU at most 2.5 times the floor: {:.2}", cpu_each / floor.sum()),
                holds: cpu_each <= 2.5 * floor.sum(),
            },
            Mark {
                what: format!(
                    "{callers} callers, at least 16 entries a commit where its median takes 2 ms: {:.1} at {:.2} ms",
                    commits.entries_each(),
                    commits.median_ms()
                ),
                holds: !slow_disk || commits.entries_each() >= 16.0,
            },
        ]);
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

fn load(url: &str, callers: usize, duration: Duration) -> Load {
    let mint = Mint::from_set(KEYS, None).unwrap();
    let tokens = (0..callers).map(|caller| {
        let subject = format!("team-{caller}");
        let ttl = Duration::from_hours(1);
        let grant = Grant {
            subject: &subject,
            scope: "shares:write",
            issuer: ISSUER,
            audience: AUDIENCE,
            ttl,
        };
        mint.sign(&grant).unwrap()
    });
    Load {
        address: url.strip_prefix("http://").unwrap().to_owned(),
        tokens: tokens.collect(),
        duration,
    }
}
