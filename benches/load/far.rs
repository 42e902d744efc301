//! Upstreams that take their time: what callers wait. Latencies of the upstream bound all, not this machine's CPU.

use std::time::Duration;

use super::callers::{Asks, Outcome, drive};
use super::measured::{changes, measure};
use super::process::Process;
use super::{Bench, Mark, floor};

pub(crate) const NEAR_BY: &str = "an upstream near by";
pub(crate) const FAR: &str = "a far upstream";
const NEAR_BY_LATENCY: Duration = Duration::from_millis(5);
const FAR_LATENCY: Duration = Duration::from_millis(50);
/// What callers wait beside the call, in commits.
const COMMITS_MAX: f64 = 4.0;
const CALLERS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
/// How long each half of a pair is measured.
const PAIR: Duration = Duration::from_secs(3);

/// Some milliseconds away: what is waited for beside the call is the trail.
pub(crate) async fn near_by(bench: &Bench) -> Vec<Mark> {
    let folder = bench.folder(NEAR_BY);
    let sandbox = Process::sandbox(&folder, NEAR_BY_LATENCY);
    let gateway = Process::gateway(&folder, &sandbox.url);
    let load = changes(&gateway.url, CALLERS, Asks::DistinctImages, bench.duration);
    let before = gateway.commits().await;
    let measured = measure(&gateway, &load).await;
    let commits = gateway.commits().await.since(&before);
    let p50 = measured.outcome.percentile(0.5);
    // A timer of the sandbox's ends a little after its time.
    let call = floor::waited(&sandbox.url);
    let beside = p50 - call;
    let in_commits = beside / commits.median_ms();
    println!(
        "\nan upstream that takes {} ms",
        NEAR_BY_LATENCY.as_millis()
    );
    println!("  a call alone                      {call:>9.2} ms");
    println!("  changes/s                         {:>9.0}", measured.rate);
    println!("  p50                               {p50:>9.2} ms");
    println!(
        "  median commit                     {:>9.2} ms",
        commits.median_ms()
    );
    println!(
        "  entries a commit                  {:>9.1}",
        commits.entries_each()
    );
    println!("  waited beside the call            {in_commits:>9.1} commits");
    vec![
        Mark::no_errors(NEAR_BY, measured.outcome.errors),
        Mark::at_most(
            &format!("{NEAR_BY}, p50 beside the call in median commits"),
            in_commits,
            COMMITS_MAX,
        ),
    ]
}

/// Far away.
pub(crate) async fn far(bench: &Bench) -> Vec<Mark> {
    let (folder, duration) = (bench.folder(FAR), bench.duration);
    let sandbox = Process::sandbox(&folder, FAR_LATENCY);
    let gateway = Process::gateway(&folder, &sandbox.url);
    let run = async |asks, duration| -> Outcome {
        drive(&changes(&gateway.url, CALLERS, asks, duration)).await
    };
    run(Asks::DistinctImages, WARM_UP).await;
    let alone = run(Asks::OneImage, duration).await;
    let latencies = alone.percentile(0.99) / FAR_LATENCY.as_secs_f64() / 1000.0;
    println!("\nan upstream that takes {} ms", FAR_LATENCY.as_millis());
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
        let without = run(Asks::DistinctImages, PAIR).await;
        let (with, hot) =
            futures_util::future::join(run(Asks::DistinctImages, PAIR), run(Asks::OneImage, PAIR))
                .await;
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
        Mark::no_errors(FAR, errors),
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
