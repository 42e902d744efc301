//! The one list of metrics: the field, the metric, its name and what it is. Everything else comes from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, OnceLock};

use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::Timestamp;
use crate::telemetry::LostLines;

use super::labels::{
    AuthenticationLabels, CallLabels, DecisionLabels, IssuerLabels, LimitLabels, OutcomeLabels,
    ReloadLabels, RequestLabels, RetCodeLabels, VersionLabels, Word,
};
use super::process::Process;
use super::reloads::RELOAD_PARTS;

/// Bounds from `first` up, each `factor` times the one before.
fn bounds(first: f64, factor: f64, count: u16) -> impl Iterator<Item = f64> {
    (0..count).map(move |step| first * factor.powi(i32::from(step)))
}

/// Makes the catalogue of this one list: the field, the metric, its name (a counter's without `_total`), what it is.
macro_rules! catalogue {
    ($($field:ident: $kind:ty = $new:expr, $name:literal, $help:literal;)*) => {
        #[derive(Debug)]
        pub(super) struct Catalogue {
            pub(super) registry: Registry,
            $(pub(super) $field: $kind,)*
            /// The time in the last event's id in microseconds; how far the clock is behind it is reckoned when it is asked.
            pub(super) last_event: AtomicI64,
            /// When each issuer's keys were read; how old they are is reckoned when it is asked.
            pub(super) key_sets: Mutex<BTreeMap<String, Timestamp>>,
            pub(super) lost_lines: OnceLock<LostLines>,
        }

        impl Catalogue {
            /// All at zero.
            pub(super) fn new() -> Self {
                let mut registry = Registry::default();
                $(let $field: $kind = $new; registry.register($name, $help, $field.clone());)*
                let began = Timestamp::now();
                registry.register_collector(Box::new(Process { began }));
                Self {
                    registry,
                    $($field,)*
                    last_event: AtomicI64::new(i64::MIN),
                    key_sets: Mutex::default(),
                    lost_lines: OnceLock::new(),
                }
            }

            /// Name in the text format, kind, and what it is, of each.
            pub(super) fn described() -> Vec<(String, &'static str, &'static str)> {
                let mut all = Vec::new();
                $({
                    let kind = <$kind as TypedMetric>::TYPE.as_str();
                    let suffix = if kind == "counter" { "_total" } else { "" };
                    all.push((format!("{}{suffix}", $name), kind, $help));
                })*
                all
            }
        }
    };
}

catalogue! {
    http_requests: Family<RequestLabels, Counter> = Family::default(),
        "isg_http_requests", "Requests answered";
    http_duration: Histogram = Histogram::new(bounds(0.001, 2.0, 16)),
        "isg_http_request_duration_seconds", "Time from arrival to answer, probes and scrapes apart";
    internal_errors: Counter = Counter::default(),
        "isg_http_internal_errors", "Requests answered 500: faults of the gateway";
    http_in_flight: Gauge = Gauge::default(),
        "isg_http_requests_in_flight", "Requests that have arrived and have no answer yet";
    streams: Gauge = Gauge::default(),
        "isg_streams", "Streams of the trail that are open: exports and followers";
    authentications: Family<AuthenticationLabels, Counter> = Family::default(),
        "isg_authentications", "Tokens judged, by the configured issuer (none: of no issuer that is configured) and result";
    decisions: Family<DecisionLabels, Counter> = Family::default(),
        "isg_policy_decisions", "Decisions by scope and policy, by action";
    rate_limited: Family<LimitLabels, Counter> = Family::default(),
        "isg_rate_limited", "Requests refused with 429, by the limit";
    key_set_age: Family<IssuerLabels, Gauge<f64, AtomicU64>> = Family::default(),
        "isg_key_set_age_seconds", "Time since an issuer's keys were read or fetched last";
    key_set_fetch_failing: Family<IssuerLabels, Gauge> = Family::default(),
        "isg_key_set_fetch_failing", "1 while the last fetch of an issuer's keys failed; only where keys are fetched";
    upstream_calls: Family<CallLabels, Counter> = Family::default(),
        "isg_upstream_calls", "Calls to the Action API";
    upstream_duration: Histogram = Histogram::new(bounds(0.001, 2.0, 16)),
        "isg_upstream_call_duration_seconds", "Time of one call";
    upstream_ret_codes: Family<RetCodeLabels, Counter> = Family::default(),
        "isg_upstream_ret_codes", "Answers of the Action API by RetCode; unknown ones as other";
    upstream_retries: Counter = Counter::default(),
        "isg_upstream_retries", "Calls made again after a failure";
    accounts_per_call: Histogram = Histogram::new([1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0]),
        "isg_upstream_accounts_per_call", "Accounts that one change call carries";
    calls_in_flight: Gauge = Gauge::default(),
        "isg_upstream_calls_in_flight", "Calls to the Action API in flight";
    breaker_open: Gauge = Gauge::default(),
        "isg_upstream_breaker_open", "1 while the circuit breaker is open or half-open";
    changes: Family<OutcomeLabels, Counter> = Family::default(),
        "isg_sharing_changes", "Changes that ended, by outcome";
    waiting_changes: Gauge = Gauge::default(),
        "isg_sharing_waiting_changes", "Changes that wait for a call";
    // Fine steps: the median commit is what everybody waits for.
    commit_duration: Histogram = Histogram::new(bounds(0.0001, 1.25, 52)),
        "isg_audit_commit_duration_seconds", "Time of one group commit";
    commit_entries: Histogram = Histogram::new(bounds(1.0, 2.0, 10)),
        "isg_audit_commit_entries", "Entries of one group commit";
    commit_failures: Counter = Counter::default(),
        "isg_audit_commit_failures", "Group commits that failed";
    waiting_entries: Gauge = Gauge::default(),
        "isg_audit_waiting_entries", "Entries that wait for a commit";
    sequence: Gauge = Gauge::default(),
        "isg_audit_chain_sequence", "Sequence of the chain's head";
    unrecorded_outcomes: Gauge = Gauge::default(),
        "isg_audit_unrecorded_outcomes", "Outcomes in memory that wait for the trail to be writable";
    clock_behind: Gauge<f64, AtomicU64> = Gauge::default(),
        "isg_audit_clock_behind_seconds", "How far the clock is behind the time in the last event's id; 0 where it is not";
    tls_certificate: Family<[(&'static str, &'static str); 0], Gauge> = Family::default(),
        "isg_tls_certificate_expiry_timestamp_seconds", "When the first certificate of the listener's chain ends that does; only with TLS";
    reloads: Family<ReloadLabels, Counter> = Family::default(),
        "isg_reloads", "What a reload read again, and how that went";
    log_lines_lost: Counter = Counter::default(),
        "isg_log_lines_lost", "Log lines that were lost because nobody read them";
    trace_spans_lost: Counter = Counter::default(),
        "isg_trace_spans_lost", "Spans that no collector took";
    build_info: Family<VersionLabels, Gauge> = Family::default(),
        "isg_build_info", "1, with the version that runs";
}

impl Catalogue {
    /// Series of which all labels are known begin at zero: what first shows up with a 1 never rose, and no alert sees it.
    pub(super) fn expect_what_can_be(&self) {
        for part in RELOAD_PARTS {
            for result in ["ok", "failed"] {
                drop(self.reloads.get_or_create(&part.labels(result)));
            }
        }
        for limit in ["subject", "failed_authentications"] {
            drop(
                self.rate_limited
                    .get_or_create(&LimitLabels { limit: Word(limit) }),
            );
        }
        let ends = [
            "succeeded",
            "invalid_account",
            "denied",
            "failed",
            "unknown",
        ];
        let changes = ["share", "unshare"]
            .into_iter()
            .flat_map(|operation| ends.map(|end| (operation, end)));
        for (operation, outcome) in changes.chain([("update", "denied")]) {
            let labels = OutcomeLabels {
                operation: Word(operation),
                outcome: Word(outcome),
            };
            drop(self.changes.get_or_create(&labels));
        }
        for action in ["share", "unshare", "listShares", "readAudit"] {
            for decision in ["allowed", "forbidden", "insufficient_scope"] {
                let labels = DecisionLabels {
                    action: Word(action),
                    decision: Word(decision),
                };
                drop(self.decisions.get_or_create(&labels));
            }
        }
    }
}
