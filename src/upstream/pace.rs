//! The budget of calls a second (`upstream.requests_per_second`), lowered for a while when the upstream asks
//! for a pause.
//!
//! Calls are spaced evenly: a second never sees more than the budget and one. Where the upstream throttles
//! (HTTP 429, `RetCode` 153), the pace falls to half of what was in fact sent, and grows back by itself. Pure:
//! time is handed in.

use std::time::{Duration, Instant};

/// The slowest pace that throttling leads to, in calls a second.
const SLOWEST: f64 = 1.0;
/// How long a lowered pace takes to double.
const DOUBLING: Duration = Duration::from_secs(10);
/// How long after the last throttling the pace is the configured one again, however slow it was.
const FORGOTTEN: Duration = Duration::from_mins(1);
/// Answers to calls that were sent together lower the pace once.
const SETTLING: Duration = Duration::from_secs(1);
/// The longest pause that an upstream can ask of everybody.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The longest time between two calls, however small the budget.
const GAP_MAX: Duration = Duration::from_hours(1);

/// Says when the next call may begin.
#[derive(Debug)]
pub struct Pace {
    configured: Option<f64>,
    lowered: Option<Lowered>,
    /// When the next call may begin.
    next: Option<Instant>,
    sent: Sent,
}

#[derive(Debug, Clone, Copy)]
struct Lowered {
    /// Calls a second at `since`.
    rate: f64,
    since: Instant,
}

/// Calls in this second and in the one before, to know what was in fact sent.
#[derive(Debug, Default)]
struct Sent {
    second: Option<Instant>,
    now: u32,
    before: u32,
}

impl Sent {
    fn turn(&mut self, now: Instant) {
        let second = *self.second.get_or_insert(now);
        let past = now.saturating_duration_since(second);
        if past >= Duration::from_secs(2) {
            (self.second, self.before, self.now) = (Some(now), 0, 0);
        } else if past >= Duration::from_secs(1) {
            self.second = Some(second + Duration::from_secs(1));
            (self.before, self.now) = (self.now, 0);
        }
    }

    fn rate(&mut self, now: Instant) -> f64 {
        self.turn(now);
        f64::from(self.before.max(self.now))
    }
}

impl Pace {
    /// A pace of so many calls a second; `None` is no bound.
    #[must_use]
    pub fn new(requests_per_second: Option<f64>) -> Self {
        Self {
            configured: requests_per_second,
            lowered: None,
            next: None,
            sent: Sent::default(),
        }
    }

    /// When the next call may begin; `None` is now.
    #[must_use]
    pub fn not_before(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now)
    }

    /// A call begins.
    pub fn begin(&mut self, now: Instant) {
        self.sent.turn(now);
        self.sent.now += 1;
        if let Some(rate) = self.rate(now) {
            let gap = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(GAP_MAX);
            self.next = Some(now + gap.min(GAP_MAX));
        }
    }

    /// The upstream throttled a call, and asked for this pause where it named one.
    pub fn throttled(&mut self, now: Instant, pause: Option<Duration>) {
        if let Some(pause) = pause {
            let until = now + pause.min(PAUSE_MAX);
            self.next = Some(self.next.map_or(until, |next| next.max(until)));
        }
        let settling = self
            .lowered
            .is_some_and(|lowered| now.saturating_duration_since(lowered.since) < SETTLING);
        if !settling {
            let sent = self.sent.rate(now);
            let present = self.rate(now).map_or(sent, |rate| rate.min(sent));
            let rate = (present / 2.0).max(SLOWEST);
            self.lowered = Some(Lowered { rate, since: now });
        }
    }

    /// Calls a second at present; `None` is no bound.
    fn rate(&mut self, now: Instant) -> Option<f64> {
        let Some(lowered) = self.lowered else {
            return self.configured;
        };
        let past = now.saturating_duration_since(lowered.since);
        let rate = lowered.rate * 2_f64.powf(past.as_secs_f64() / DOUBLING.as_secs_f64());
        if past >= FORGOTTEN || self.configured.is_some_and(|configured| rate >= configured) {
            self.lowered = None;
            return self.configured;
        }
        Some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Deadline;

    /// How many calls begin in `span` where somebody always wants to.
    fn calls_in(pace: &mut Pace, from: Instant, span: Duration) -> usize {
        let (mut now, mut count) = (from, 0);
        loop {
            now = pace.not_before(now).unwrap_or(now);
            if now >= from + span {
                return count;
            }
            pace.begin(now);
            count += 1;
            assert!(count < 100_000, "the pace has no bound");
        }
    }

    fn start() -> Instant {
        Deadline::after(Duration::ZERO).instant()
    }

    #[test]
    fn a_second_sees_the_budget_and_no_more() {
        let mut pace = Pace::new(Some(10.0));
        assert_eq!(calls_in(&mut pace, start(), Duration::from_secs(1)), 10);
        let mut slow = Pace::new(Some(0.5));
        assert_eq!(calls_in(&mut slow, start(), Duration::from_mins(1)), 30);
    }

    #[test]
    fn without_a_budget_nothing_is_spaced_until_the_upstream_throttles() {
        let (mut pace, now) = (Pace::new(None), start());
        for call in 0..100 {
            let at = now + Duration::from_millis(call * 10);
            assert_eq!(pace.not_before(at), None);
            pace.begin(at);
        }
        let throttled = now + Duration::from_secs(1);
        pace.throttled(throttled, None);
        let sent = calls_in(&mut pace, throttled, Duration::from_secs(1));
        assert!((45..=55).contains(&sent), "half of 100, not {sent}");
        let later = throttled + FORGOTTEN;
        pace.begin(later);
        assert_eq!(pace.not_before(later), None, "forgotten");
    }

    #[test]
    fn throttling_halves_the_pace_once_a_second_and_it_grows_back() {
        let (mut pace, now) = (Pace::new(Some(100.0)), start());
        calls_in(&mut pace, now, Duration::from_secs(2));
        let throttled = now + Duration::from_secs(2);
        for _ in 0..20 {
            pace.throttled(throttled, None);
        }
        let sent = calls_in(&mut pace, throttled, Duration::from_secs(1));
        assert!((45..=55).contains(&sent), "{sent}");
        for second in 1..40 {
            pace.throttled(throttled + Duration::from_secs(second), None);
        }
        let slowest = throttled + Duration::from_secs(40);
        let sent = calls_in(&mut pace, slowest, Duration::from_secs(1));
        assert!((1..=2).contains(&sent), "{sent}");
        let back = calls_in(&mut pace, slowest + FORGOTTEN, Duration::from_secs(1));
        assert!((99..=100).contains(&back), "{back}");
    }

    #[test]
    fn a_pause_that_the_upstream_names_holds_for_everybody_within_a_bound() {
        let (mut pace, now) = (Pace::new(None), start());
        pace.throttled(now, Some(Duration::from_secs(3)));
        assert_eq!(pace.not_before(now), Some(now + Duration::from_secs(3)));
        pace.throttled(now, Some(Duration::from_hours(1)));
        assert_eq!(pace.not_before(now), Some(now + PAUSE_MAX));
    }
}
