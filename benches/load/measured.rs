//! A load, and what it cost the process that served it.

use std::time::Duration;

use super::callers::{Asks, Load, Outcome, drive};
use super::process::{self, Process};

/// Opens connections and fills caches.
const WARM_UP: Duration = Duration::from_secs(1);

/// What came of a load, and what each answer cost.
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// Answers a second.
    pub(crate) rate: f64,
    /// CPU time, in microseconds.
    pub(crate) cpu: f64,
    /// How often a thread of the process went to sleep.
    pub(crate) switches: f64,
}

/// Warms a process up, then lets callers ask it as fast as they are answered.
pub(crate) async fn measure(process: &Process, load: &Load) -> Measured {
    drive(&load.for_the_time(WARM_UP)).await;
    let (cpu, switches) = (process.cpu(), process.voluntary_switches());
    let outcome = drive(load).await;
    let cpu = process.cpu().saturating_sub(cpu);
    let switches = process.voluntary_switches().saturating_sub(switches);
    let answers = outcome.answers as f64;
    Measured {
        rate: answers / load.duration.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / answers,
        switches: switches as f64 / answers,
        outcome,
    }
}

/// Changes by so many callers, each of a token of its own.
pub(crate) fn changes(url: &str, callers: usize, asks: Asks, duration: Duration) -> Load {
    Load {
        address: url.strip_prefix("http://").unwrap().to_owned(),
        tokens: process::tokens(callers),
        asks,
        expects: 200,
        duration,
    }
}
