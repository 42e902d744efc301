//! What is counted as long as it lives.

use prometheus_client::metrics::gauge::Gauge;

/// So many are counted as long as it lives.
#[derive(Debug)]
pub struct Held {
    gauge: Gauge,
    count: i64,
}

impl Held {
    pub(super) fn of(gauge: &Gauge, count: usize) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        gauge.inc_by(count);
        let gauge = gauge.clone();
        Self { gauge, count }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.dec_by(self.count);
    }
}
