//! The catalogue of all metrics, as typed methods: a name or a label is written here and nowhere else.
//!
//! Names are `isg_ROOM_THING_UNIT`, units are base units, label values come from enums alone, so that no
//! caller can make a series.

mod catalogue;
mod held;
mod labels;
mod process;
mod reloads;

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::prometheus_text;

use crate::domain::Timestamp;

use super::logging::LostLines;
use catalogue::Catalogue;
pub use held::Held;
use labels::{
    AuthenticationLabels, CallLabels, DecisionLabels, IssuerLabels, LimitLabels, OutcomeLabels,
    RequestLabels, RetCodeLabels, VersionLabels, Word,
};
use process::PROCESS_METRICS;
pub use reloads::{RELOAD_PARTS, ReloadPart};

/// All metrics of one gateway. Clones share the same numbers.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Catalogue>);

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
        let catalogue = Catalogue::new();
        let version = Word(env!("CARGO_PKG_VERSION"));
        let of_version = catalogue
            .build_info
            .get_or_create(&VersionLabels { version });
        of_version.set(1);
        drop(of_version);
        catalogue.expect_what_can_be();
        Self(Arc::new(catalogue))
    }

    /// The metrics as a table in Markdown, for the documentation.
    #[must_use]
    pub fn table() -> String {
        let mut text = String::from("| metric | kind | what it is |\n| --- | --- | --- |\n");
        let of_process = PROCESS_METRICS.map(|(name, kind, help)| (name.to_owned(), kind, help));
        for (name, kind, help) in Catalogue::described().into_iter().chain(of_process) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| `{name}` | {kind} | {help} |");
        }
        text
    }

    /// Counts a token that was judged. `issuer` is that of the configuration which it is of.
    pub fn authentication(&self, issuer: Option<&str>, result: &'static str) {
        let labels = AuthenticationLabels::of(issuer, result);
        self.0.authentications.get_or_create(&labels).inc();
    }

    /// Counts a decision by scope and policy.
    pub fn policy_decision(&self, action: &'static str, decision: &'static str) {
        let labels = DecisionLabels {
            action: Word(action),
            decision: Word(decision),
        };
        self.0.decisions.get_or_create(&labels).inc();
    }

    /// Counts a request that a limit refused.
    pub fn rate_limited(&self, limit: &'static str) {
        let labels = LimitLabels { limit: Word(limit) };
        self.0.rate_limited.get_or_create(&labels).inc();
    }

    /// Notes that an issuer's keys were read or fetched.
    pub fn key_set(&self, issuer: &str, at: Timestamp) {
        let mut key_sets = self
            .0
            .key_sets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        key_sets.insert(issuer.to_owned(), at);
    }

    /// Counts an answer of the upstream; without a code one that is not in the list of codes.
    pub fn upstream_ret_code(&self, known: Option<i64>) {
        let labels = RetCodeLabels::of(known);
        self.0.upstream_ret_codes.get_or_create(&labels).inc();
    }

    /// Notes how many accounts a change call carries.
    pub fn upstream_accounts(&self, accounts: usize) {
        #[expect(clippy::cast_precision_loss, reason = "twenty at most")]
        self.0.accounts_per_call.observe(accounts as f64);
    }

    /// Counts an entry that waits for a commit as long as what this gives lives.
    #[must_use]
    pub fn audit_entries_waiting(&self, entries: usize) -> Held {
        Held::of(&self.0.waiting_entries, entries)
    }

    /// Counts a stream as long as what this gives lives.
    #[must_use]
    pub fn stream(&self) -> Held {
        Held::of(&self.0.streams, 1)
    }

    /// Notes when the listener's certificate ends.
    pub fn tls_certificate(&self, expires_at: Timestamp) {
        let seconds = expires_at.as_micros() / 1_000_000;
        self.0.tls_certificate.get_or_create(&[]).set(seconds);
    }

    /// Counts a part of a reload that was taken.
    pub fn reload_taken(&self, part: ReloadPart) {
        self.0.reloads.get_or_create(&part.labels("ok")).inc();
    }

    /// Counts a part of a reload that failed.
    pub fn reload_failed(&self, part: ReloadPart) {
        self.0.reloads.get_or_create(&part.labels("failed")).inc();
    }

    /// Has series begin at zero for each code that may be counted, and for those that are not in the list.
    pub fn expect_ret_codes(&self, codes: impl IntoIterator<Item = i64>) {
        for known in codes.into_iter().map(Some).chain([None]) {
            let labels = RetCodeLabels::of(known);
            drop(self.0.upstream_ret_codes.get_or_create(&labels));
        }
    }

    /// Has series begin at zero for each result of tokens of an issuer, or of none that is configured.
    pub fn expect_authentications(&self, issuer: Option<&str>, results: &[&'static str]) {
        for result in results {
            let labels = AuthenticationLabels::of(issuer, result);
            drop(self.0.authentications.get_or_create(&labels));
        }
    }

    /// Notes whether the last fetch of an issuer's keys failed.
    pub fn key_set_fetch(&self, issuer: &str, failed: bool) {
        let issuer = issuer.to_owned();
        let of_issuer = self
            .0
            .key_set_fetch_failing
            .get_or_create(&IssuerLabels { issuer });
        of_issuer.set(i64::from(failed));
    }

    /// Counts spans that no collector took.
    pub fn trace_spans_lost(&self, spans: usize) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        self.0.trace_spans_lost.inc_by(spans);
    }

    /// Counts a request as long as what this gives lives.
    #[must_use]
    pub fn http_request_in_flight(&self) -> Held {
        Held::of(&self.0.http_in_flight, 1)
    }

    /// Counts an answered request. `route` is the route's pattern; what probes and scrapers ask takes no part in how long
    /// requests take.
    pub fn http_request(
        &self,
        method: &'static str,
        route: &'static str,
        status: u16,
        took: Option<Duration>,
    ) {
        let labels = RequestLabels {
            method: Word(method),
            route: Word(route),
            status: u32::from(status),
        };
        self.0.http_requests.get_or_create(&labels).inc();
        if status == 500 {
            self.0.internal_errors.inc();
        }
        if let Some(took) = took {
            self.0.http_duration.observe(took.as_secs_f64());
        }
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

    /// Notes how many changes wait, how many calls are in flight, how many retries there were in all, and whether the
    /// circuit breaker is open.
    pub fn lanes(&self, waiting: usize, in_flight: usize, retries: u64, breaker_open: bool) {
        let told = self.0.upstream_retries.inner();
        told.store(retries, Ordering::Relaxed);
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
        let key_sets = self
            .0
            .key_sets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (issuer, at) in &*key_sets {
            let issuer = issuer.clone();
            let age = Timestamp::now().since(*at).as_secs_f64();
            let of_issuer = self.0.key_set_age.get_or_create(&IssuerLabels { issuer });
            of_issuer.set(age);
        }
        drop(key_sets);
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
            Some(Duration::from_millis(3)),
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
