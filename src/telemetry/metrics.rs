//! The catalogue of all metrics, as typed methods: a name or a label is written here and nowhere else.
//!
//! Names are `isg_ROOM_THING_UNIT`, units are base units, label values come from enums alone, so that no
//! caller can make a series.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::Timestamp;

use super::logging::LostLines;

/// A label value that is one of a known few.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: Word,
    route: Word,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    action: Word,
    result: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    operation: Word,
    outcome: Word,
}

/// All metrics of one gateway. Clones share the same numbers.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Catalogue>);

#[derive(Debug)]
struct Catalogue {
    registry: Registry,
    http_requests: Family<RequestLabels, Counter>,
    http_duration: Histogram,
    http_in_flight: Gauge,
    upstream_calls: Family<CallLabels, Counter>,
    upstream_duration: Histogram,
    changes: Family<OutcomeLabels, Counter>,
    commit_duration: Histogram,
    commit_entries: Histogram,
    commit_failures: Counter,
    sequence: Gauge,
    waiting_changes: Gauge,
    calls_in_flight: Gauge,
    breaker_open: Gauge,
    unrecorded_outcomes: Gauge,
    /// The time in the last event's id in microseconds; how far the clock is behind it is reckoned when it is asked.
    last_event: AtomicI64,
    clock_behind: Gauge<f64, AtomicU64>,
    log_lines_lost: Counter,
    lost_lines: OnceLock<LostLines>,
}

/// A request that is counted as being in flight.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Bounds from `first` up, each `factor` times the one before.
fn bounds(first: f64, factor: f64, count: u16) -> impl Iterator<Item = f64> {
    (0..count).map(move |step| first * factor.powi(i32::from(step)))
}

impl Catalogue {
    /// Names them all and says what each is.
    fn register(&mut self) {
        let of = self;
        let all = &mut of.registry;
        all.register(
            "isg_http_requests",
            "Requests answered",
            of.http_requests.clone(),
        );
        all.register(
            "isg_http_request_duration_seconds",
            "Time from arrival to answer",
            of.http_duration.clone(),
        );
        all.register(
            "isg_http_requests_in_flight",
            "Requests that have arrived and have no answer yet",
            of.http_in_flight.clone(),
        );
        all.register(
            "isg_upstream_calls",
            "Calls to the Action API",
            of.upstream_calls.clone(),
        );
        all.register(
            "isg_upstream_call_duration_seconds",
            "Time of one call",
            of.upstream_duration.clone(),
        );
        all.register(
            "isg_sharing_changes",
            "Changes that ended, by outcome",
            of.changes.clone(),
        );
        all.register(
            "isg_audit_commit_duration_seconds",
            "Time of one group commit",
            of.commit_duration.clone(),
        );
        all.register(
            "isg_audit_commit_entries",
            "Entries of one group commit",
            of.commit_entries.clone(),
        );
        all.register(
            "isg_audit_commit_failures",
            "Group commits that failed",
            of.commit_failures.clone(),
        );
        all.register(
            "isg_audit_chain_sequence",
            "Sequence of the chain's head",
            of.sequence.clone(),
        );
        all.register(
            "isg_sharing_waiting_changes",
            "Changes that wait for a call",
            of.waiting_changes.clone(),
        );
        all.register(
            "isg_upstream_calls_in_flight",
            "Calls to the Action API in flight",
            of.calls_in_flight.clone(),
        );
        all.register(
            "isg_upstream_breaker_open",
            "1 while the circuit breaker is open or half-open",
            of.breaker_open.clone(),
        );
        let help = "Outcomes in memory that wait for the trail to be writable";
        all.register(
            "isg_audit_unrecorded_outcomes",
            help,
            of.unrecorded_outcomes.clone(),
        );
        all.register(
            "isg_log_lines_lost",
            "Log lines that were lost because nobody read them",
            of.log_lines_lost.clone(),
        );
        all.register(
            "isg_audit_clock_behind_seconds",
            "How far the clock is behind the time in the last event's id; 0 where it is not",
            of.clock_behind.clone(),
        );
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Takes over the count of log lines that nobody read.
    pub fn count_lost_lines(&self, lost: LostLines) {
        // Set once, where logging begins.
        let _ = self.0.lost_lines.set(lost);
    }

    /// A new catalogue, all at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut catalogue = Catalogue {
            registry: Registry::default(),
            http_requests: Family::default(),
            http_duration: Histogram::new(bounds(0.001, 2.0, 16)),
            http_in_flight: Gauge::default(),
            upstream_calls: Family::default(),
            upstream_duration: Histogram::new(bounds(0.001, 2.0, 16)),
            changes: Family::default(),
            // Fine steps: the median commit is what everybody waits for.
            commit_duration: Histogram::new(bounds(0.0001, 1.25, 52)),
            commit_entries: Histogram::new(bounds(1.0, 2.0, 10)),
            commit_failures: Counter::default(),
            sequence: Gauge::default(),
            waiting_changes: Gauge::default(),
            calls_in_flight: Gauge::default(),
            breaker_open: Gauge::default(),
            unrecorded_outcomes: Gauge::default(),
            last_event: AtomicI64::new(i64::MIN),
            clock_behind: Gauge::default(),
            log_lines_lost: Counter::default(),
            lost_lines: OnceLock::new(),
        };
        catalogue.register();
        Self(Arc::new(catalogue))
    }

    /// Counts a request as long as what this gives lives.
    #[must_use]
    pub fn http_request_in_flight(&self) -> InFlight {
        self.0.http_in_flight.inc();
        InFlight(self.0.http_in_flight.clone())
    }

    /// Counts an answered request. `route` is the route's pattern.
    pub fn http_request(
        &self,
        method: &'static str,
        route: &'static str,
        status: u16,
        took: Duration,
    ) {
        let labels = RequestLabels {
            method: Word(method),
            route: Word(route),
            status: u32::from(status),
        };
        self.0.http_requests.get_or_create(&labels).inc();
        self.0.http_duration.observe(took.as_secs_f64());
    }

    /// Counts a call to the upstream.
    pub fn upstream_call(&self, action: &'static str, result: &'static str, took: Duration) {
        self.0
            .upstream_calls
            .get_or_create(&CallLabels {
                action: Word(action),
                result: Word(result),
            })
            .inc();
        self.0.upstream_duration.observe(took.as_secs_f64());
    }

    /// Notes how many changes wait, how many calls are in flight, and whether the circuit breaker is open.
    pub fn lanes(&self, waiting: usize, in_flight: usize, breaker_open: bool) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.0.waiting_changes.set(gauge(waiting));
        self.0.calls_in_flight.set(gauge(in_flight));
        self.0.breaker_open.set(i64::from(breaker_open));
    }

    /// Counts a change that ended.
    pub fn change(&self, operation: &'static str, outcome: &'static str) {
        self.0
            .changes
            .get_or_create(&OutcomeLabels {
                operation: Word(operation),
                outcome: Word(outcome),
            })
            .inc();
    }

    /// Notes a group commit and the chain's new head.
    pub fn audit_commit(&self, entries: usize, head: i64, took: Duration) {
        self.0.commit_duration.observe(took.as_secs_f64());
        #[expect(
            clippy::cast_precision_loss,
            reason = "a group has at most some hundred entries"
        )]
        self.0.commit_entries.observe(entries as f64);
        self.0.sequence.set(head);
    }

    /// Counts a group commit that failed.
    pub fn audit_commit_failed(&self) {
        self.0.commit_failures.inc();
    }

    /// Notes how many outcomes wait in memory.
    pub fn unrecorded_outcomes(&self, waiting: usize) {
        self.0
            .unrecorded_outcomes
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Notes the time in the last event's id.
    pub fn audit_last_event(&self, at: Option<Timestamp>) {
        let micros = at.map_or(i64::MIN, Timestamp::as_micros);
        self.0.last_event.store(micros, Ordering::Relaxed);
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let last_event = Timestamp::from_micros(self.0.last_event.load(Ordering::Relaxed));
        let behind = last_event.since(Timestamp::now());
        self.0.clock_behind.set(behind.as_secs_f64());
        if let Some(lost) = self.0.lost_lines.get() {
            let told = self.0.log_lines_lost.inner();
            told.store(lost.count(), Ordering::Relaxed);
        }
        let mut text = String::new();
        match prometheus_text::encode(&mut text, &self.0.registry) {
            Ok(()) => text,
            Err(std::fmt::Error) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_rendered() {
        let metrics = Metrics::new();
        metrics.http_request(
            "PUT",
            "/images/{image_id}/shares/{account_id}",
            200,
            Duration::from_millis(3),
        );
        metrics.upstream_call("modify", "ok", Duration::from_millis(2));
        metrics.change("share", "succeeded");
        metrics.audit_commit(2, 7, Duration::from_micros(900));
        let text = metrics.render();
        let expected = [
            r#"isg_http_requests_total{method="PUT",route="/images/{image_id}/shares/{account_id}",status="200"} 1"#,
            r#"isg_upstream_calls_total{action="modify",result="ok"} 1"#,
            r#"isg_sharing_changes_total{operation="share",outcome="succeeded"} 1"#,
            "isg_audit_chain_sequence 7",
            "isg_audit_commit_entries_sum 2",
        ];
        for line in expected {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
    }
}
