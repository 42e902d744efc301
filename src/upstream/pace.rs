//! The budget of calls a second (`upstream.requests_per_second`), lowered for a while when the upstream asks
//! for a pause.
//!
//! Calls are spaced evenly: a second never sees more than the budget and one, save what timers were late by. Where
//! the upstream throttles (HTTP 429, `RetCode` 153), the pace falls to half of what was in fact sent when the call
//! that was throttled was, and grows back by itself. Pure: time is handed in.

use std::collections::VecDeque;
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
/// What a call that was held back may be late by without being lost to the next: timers keep no better time.
const LATENESS_MAX: Duration = Duration::from_millis(20);
/// How far back it is known how many calls were sent: longer than a call may take.
const SECONDS_KNOWN: usize = 64;

/// Says when the next call may begin.
#[derive(Debug)]
pub struct Pace {
    configured: Option<f64>,
    lowered: Option<Lowered>,
    /// When the next call may begin.
    next: Option<Instant>,
    /// Whether somebody waits for that.
    held_back: bool,
    sent: Sent,
}

#[derive(Debug, Clone, Copy)]
struct Lowered {
    /// Calls a second at `since`.
    rate: f64,
    since: Instant,
}

/// Calls in the seconds that passed, to know what was in fact sent: when each second began, and its calls.
#[derive(Debug, Default)]
struct Sent(VecDeque<(Instant, u32)>);

impl Sent {
    fn begin(&mut self, now: Instant) {
        const SECOND: Duration = Duration::from_secs(1);
        match self.0.back_mut() {
            Some((second, calls)) if now.saturating_duration_since(*second) < SECOND => *calls += 1,
            _ => {
                self.0.push_back((now, 1));
                if self.0.len() > SECONDS_KNOWN {
                    self.0.pop_front();
                }
            }
        }
    }

    /// Calls in the second around `at`, or in the one before or after it.
    fn rate(&self, at: Instant) -> f64 {
        const AROUND: Duration = Duration::from_secs(2);
        let near = |second: Instant| {
            at.saturating_duration_since(second) < AROUND
                && second.saturating_duration_since(at) < AROUND
        };
        let around = self.0.iter().filter(|(second, _)| near(*second));
        f64::from(around.map(|(_, calls)| *calls).max().unwrap_or(0))
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
            held_back: false,
            sent: Sent::default(),
        }
    }

    /// When the next call may begin; `None` is now.
    #[must_use]
    pub fn not_before(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now)
    }

    /// Somebody wants to call and may not yet.
    pub fn holds_back(&mut self) {
        self.held_back = true;
    }

    /// A call begins.
    pub fn begin(&mut self, now: Instant) {
        self.sent.begin(now);
        let held_back = std::mem::take(&mut self.held_back);
        if let Some(rate) = self.rate(now) {
            let gap = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(GAP_MAX);
            let due = self.next.filter(|_| held_back).map_or(now, |next| {
                next.max(now.checked_sub(LATENESS_MAX).unwrap_or(now))
                    .min(now)
            });
            let next = due + gap.min(GAP_MAX);
            // Whoever comes next makes up for the rest.
            self.held_back = held_back && next <= now;
            self.next = Some(next);
        }
    }

    /// The upstream throttled a call that began `at`, and asked for this pause where it named one.
    pub fn throttled(&mut self, now: Instant, at: Instant, pause: Option<Duration>) {
        if let Some(pause) = pause {
            let until = now + pause.min(PAUSE_MAX);
            self.next = Some(self.next.map_or(until, |next| next.max(until)));
        }
        // Calls that were sent before the pace was lowered say nothing of the lowered one.
        let settling = self.lowered.is_some_and(|lowered| {
            at <= lowered.since || now.saturating_duration_since(lowered.since) < SETTLING
        });
        if !settling {
            let sent = self.sent.rate(at);
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
        pace.throttled(throttled, throttled, None);
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
            pace.throttled(throttled, throttled, None);
        }
        let sent = calls_in(&mut pace, throttled, Duration::from_secs(1));
        assert!((45..=55).contains(&sent), "{sent}");
        for second in 1..40 {
            let at = throttled + Duration::from_secs(second);
            pace.throttled(at, at, None);
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
        pace.throttled(now, now, Some(Duration::from_secs(3)));
        assert_eq!(pace.not_before(now), Some(now + Duration::from_secs(3)));
        pace.throttled(now, now, Some(Duration::from_hours(1)));
        assert_eq!(pace.not_before(now), Some(now + PAUSE_MAX));
    }

    #[test]
    fn a_burst_that_is_throttled_late_is_halved_and_not_forgotten() {
        let (mut pace, now) = (Pace::new(None), start());
        for _ in 0..64 {
            pace.begin(now);
        }
        let answered = now + Duration::from_secs(3);
        for late in 0..4 {
            pace.throttled(answered + Duration::from_secs(late) * 11 / 10, now, None);
        }
        let sent = calls_in(&mut pace, answered, Duration::from_secs(1));
        assert!((32..=35).contains(&sent), "half of 64, not {sent}");
    }

    /// How many calls begin in a second where every timer is late by `late`.
    fn calls_with_late_timers(rate: f64, late: Duration) -> u32 {
        let (mut pace, from) = (Pace::new(Some(rate)), start());
        let (mut now, mut count) = (from, 0);
        while now < from + Duration::from_secs(1) {
            while pace.not_before(now).is_none() {
                pace.begin(now);
                count += 1;
            }
            pace.holds_back();
            now = pace.not_before(now).expect("a wait") + late;
        }
        count
    }

    #[test]
    fn what_timers_are_late_by_is_not_lost_and_idleness_is_not_saved_up() {
        for (rate, late, least, most) in [
            (1000.0, 1, 980, 1001),
            (1000.0, 5, 980, 1005),
            (10.0, 3, 10, 11),
        ] {
            let count = calls_with_late_timers(rate, Duration::from_millis(late));
            assert!(
                (least..=most).contains(&count),
                "{rate} with {late} ms: {count}"
            );
        }
        let (mut pace, now) = (Pace::new(Some(10.0)), start());
        pace.begin(now);
        let later = now + Duration::from_mins(1);
        assert_eq!(calls_in(&mut pace, later, Duration::from_secs(1)), 10);
    }
}
