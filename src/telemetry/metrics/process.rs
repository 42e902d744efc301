//! What Prometheus' own clients tell of a process, by the names that they use.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::domain::Timestamp;

/// Name, what it is, and whether it only grows.
pub(super) const PROCESS_METRICS: [(&str, &str, &str); 8] = [
    (
        "process_cpu_seconds_total",
        "counter",
        "Processor time of user and system",
    ),
    ("process_open_fds", "gauge", "Open file descriptors"),
    (
        "process_max_fds",
        "gauge",
        "The limit of open file descriptors",
    ),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory"),
    (
        "process_virtual_memory_max_bytes",
        "gauge",
        "The limit of virtual memory",
    ),
    ("process_resident_memory_bytes", "gauge", "Resident memory"),
    ("process_threads", "gauge", "Threads"),
    (
        "process_start_time_seconds",
        "gauge",
        "When the process began, since 1970",
    ),
];

/// Looks when it is asked.
#[derive(Debug)]
pub(super) struct Process {
    /// When it began, near enough: what the system says of that lies where sandboxes hide it.
    pub(super) began: Timestamp,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        // A system that does not tell shows none.
        let Some(values) = look(self.began) else {
            return Ok(());
        };
        for ((name, kind, help), value) in PROCESS_METRICS.into_iter().zip(values) {
            if kind == "counter" {
                let metric = ConstCounter::new(value);
                let name = name.trim_end_matches("_total");
                let to = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
                metric.encode(to)?;
            } else {
                let metric = ConstGauge::new(value);
                let to = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
                metric.encode(to)?;
            }
        }
        Ok(())
    }
}

/// In the order of [`PROCESS_METRICS`].
#[cfg(target_os = "linux")]
#[expect(
    clippy::cast_precision_loss,
    reason = "bytes and ticks are far below 2^53"
)]
fn look(began: Timestamp) -> Option<[f64; 8]> {
    use procfs::process::{LimitValue, Process};
    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks = procfs::ticks_per_second() as f64;
    let limits = process.limits().ok()?;
    let limit = |limit: LimitValue| match limit {
        // As Prometheus' client for Go has it.
        LimitValue::Unlimited => u64::MAX as f64,
        LimitValue::Value(limit) => limit as f64,
    };
    Some([
        (stat.utime + stat.stime) as f64 / ticks,
        process.fd_count().ok()? as f64,
        limit(limits.max_open_files.soft_limit),
        stat.vsize as f64,
        limit(limits.max_address_space.soft_limit),
        (stat.rss * procfs::page_size()) as f64,
        stat.num_threads as f64,
        began.as_micros() as f64 / 1e6,
    ])
}

#[cfg(not(target_os = "linux"))]
fn look(_: Timestamp) -> Option<[f64; 8]> {
    None
}
