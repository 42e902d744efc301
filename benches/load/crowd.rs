//! Many callers before an upstream that answers at once: what a change costs.

use super::callers::Asks;
use super::measured::{Measured, changes, measure};
use super::{Bench, Mark};

/// Callers, and what they ask for.
pub(crate) struct Crowd {
    callers: usize,
    asks: Asks,
    /// How many times the floor's CPU a change may cost.
    over_floor: f64,
    /// Whether the plain service is measured beside it.
    beside_plain: bool,
}

pub(crate) const CROWDS: [Crowd; 3] = [
    Crowd {
        callers: 64,
        asks: Asks::DistinctImages,
        over_floor: 2.0,
        beside_plain: true,
    },
    Crowd {
        callers: 256,
        asks: Asks::DistinctImages,
        over_floor: 2.5,
        beside_plain: false,
    },
    Crowd {
        callers: 64,
        asks: Asks::OneImage,
        over_floor: 1.2,
        beside_plain: false,
    },
];

const IDLE_MIB_MAX: f64 = 30.0;
const BUSY_MIB_MAX: f64 = 32.0;
/// A change's CPU over that of the plain service.
const OVER_PLAIN_MAX: f64 = 0.16;
/// A change's CPU over the floor whose rows have no indexes.
const OVER_PLAIN_FLOOR_MAX: f64 = 3.0;

impl Crowd {
    pub(crate) fn name(&self) -> String {
        let callers = self.callers;
        match self.asks {
            Asks::OneImage => format!("{callers} callers on one image"),
            _ => format!("{callers} callers over {callers} images"),
        }
    }

    pub(crate) async fn measure(&self, bench: &Bench) -> Vec<Mark> {
        let what = &self.name();
        println!("\n{what}, {} s", bench.duration.as_secs());
        let gateway = bench.gateway(what);
        let idle_mib = gateway.resident_kib() as f64 / 1024.0;
        println!("  idle memory of the gateway        {idle_mib:>9.1} MiB");
        let load = changes(
            &gateway.url,
            self.callers,
            self.asks.clone(),
            bench.duration,
        );
        let before = gateway.commits().await;
        let measured = measure(&gateway, &load).await;
        let busy_mib = gateway.resident_kib() as f64 / 1024.0;
        let commits = gateway.commits().await.since(&before);
        tell(&measured);
        println!("  gateway resident memory           {busy_mib:>9.1} MiB");
        println!(
            "  changes a call                    {:>9.1}",
            commits.changes_a_call()
        );
        println!(
            "  entries a commit                  {:>9.1}",
            commits.entries_each()
        );
        println!(
            "  median commit                     {:>9.2} ms",
            commits.median_ms()
        );
        let over_floor = measured.cpu / bench.floor.sum();
        println!("  CPU over the sum of the floor     {over_floor:>9.2} times");
        let (p50, p99) = waits(&measured);
        let (entries, median) = (commits.entries_each(), commits.median_ms());
        let mut marks = vec![
            Mark::at_most("idle memory in MiB", idle_mib, IDLE_MIB_MAX),
            Mark::no_errors(what, measured.outcome.errors),
            Mark::at_most(&format!("{what}, p99 over p50"), p99 / p50, 3.0),
            Mark::at_most(
                &format!("{what}, CPU over the floor"),
                over_floor,
                self.over_floor,
            ),
            Mark::new(
                format!(
                    "{what}, at least 16 entries a commit where its median takes 2 ms: {entries:.1} at {median:.2} ms"
                ),
                median < 2.0 || entries >= 16.0,
            ),
        ];
        if self.beside_plain {
            drop(gateway);
            marks.extend(self.beside_plain(bench, &measured, busy_mib).await);
        }
        marks
    }

    async fn beside_plain(&self, bench: &Bench, ours: &Measured, busy_mib: f64) -> Vec<Mark> {
        let what = self.name();
        let plain = bench.plain(&format!("plain {what}"), "plain");
        let load = changes(&plain.url, self.callers, self.asks.clone(), bench.duration);
        let theirs = measure(&plain, &load).await;
        println!("  the plain service, changes/s      {:>9.0}", theirs.rate);
        println!("  the plain service, CPU a change   {:>9.1} µs", theirs.cpu);
        vec![
            Mark::no_errors("the plain service", theirs.outcome.errors),
            Mark::at_most(
                &format!("{what}, CPU over the plain service's"),
                ours.cpu / theirs.cpu,
                OVER_PLAIN_MAX,
            ),
            Mark::at_most(
                &format!("{what}, CPU over the floor without indexes"),
                ours.cpu / bench.floor.plain_sum(),
                OVER_PLAIN_FLOOR_MAX,
            ),
            Mark::at_most(
                &format!("{what}, resident memory in MiB"),
                busy_mib,
                BUSY_MIB_MAX,
            ),
        ]
    }
}

fn waits(measured: &Measured) -> (f64, f64) {
    let outcome = &measured.outcome;
    (outcome.percentile(0.50), outcome.percentile(0.99))
}

/// Prints what callers see and what it costs.
pub(crate) fn tell(measured: &Measured) {
    let (p50, p99) = waits(measured);
    println!("  changes/s                         {:>9.0}", measured.rate);
    println!("  p50                               {p50:>9.3} ms");
    println!("  p99                               {p99:>9.3} ms");
    println!(
        "  errors                            {:>9}",
        measured.outcome.errors
    );
    println!(
        "  gateway CPU a change              {:>9.1} µs",
        measured.cpu
    );
    println!(
        "  voluntary switches a change       {:>9.1}",
        measured.switches
    );
}
