//! When keys are fetched. Pure: the time is handed in.

use std::time::{Duration, Instant};

/// How long keys are believed whose answer does not say it.
const AGE_DEFAULT: Duration = Duration::from_mins(5);
/// Between the least and the most that is done of what `Cache-Control` asks for.
const AGE_MIN: Duration = Duration::from_mins(1);
const AGE_MAX: Duration = Duration::from_hours(1);
/// The first wait after a failure; each after it is twice as long, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long an unknown key is not asked for again after it was.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// When the next fetch is due, and whether one may be made before.
#[derive(Debug, Clone, Default)]
pub(super) struct Schedule {
    demanded: Option<Instant>,
    succeeded: Option<Instant>,
    failures: u32,
    next: Option<Instant>,
}

impl Schedule {
    /// When to fetch next; at once, where there is no time.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether an unknown key may be asked for now.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        let since = self
            .demanded
            .map(|demanded| now.saturating_duration_since(demanded));
        since.is_none_or(|since| since >= ASKED_AGAIN_AFTER)
    }

    /// A fetch begins because of an unknown key.
    pub(super) fn demanded(&mut self, now: Instant) {
        self.demanded = Some(now);
    }

    /// It brought keys, which are good for `max_age`, where the answer says so.
    pub(super) fn succeeded(&mut self, now: Instant, max_age: Option<Duration>) {
        self.succeeded = Some(now);
        self.failures = 0;
        let age = max_age.unwrap_or(AGE_DEFAULT).clamp(AGE_MIN, AGE_MAX);
        self.next = Some(now + age);
    }

    /// It brought none although somebody asked for it because of an unknown key. Where the keys are good for longer, that is
    /// no reason to try again before.
    pub(super) fn failed_on_demand(&mut self, now: Instant) {
        let is_due = self.next.is_none_or(|next| next <= now);
        if is_due {
            self.failed(now);
        }
    }

    /// It brought none.
    pub(super) fn failed(&mut self, now: Instant) {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.next = Some(now + pause.min(PAUSE_MAX));
    }

    /// How old the keys are.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.succeeded
            .map(|succeeded| now.saturating_duration_since(succeeded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Deadline;

    fn start() -> Instant {
        Deadline::now().instant()
    }

    #[test]
    fn keys_are_fetched_as_their_answer_says_within_bounds() {
        let now = start();
        let next = |max_age: Option<u64>| {
            let mut schedule = Schedule::default();
            schedule.succeeded(now, max_age.map(Duration::from_secs));
            schedule.next().map(|next| (next - now).as_secs())
        };
        assert_eq!(next(None), Some(300));
        assert_eq!(next(Some(0)), Some(60));
        assert_eq!(next(Some(600)), Some(600));
        assert_eq!(next(Some(1_000_000)), Some(3600));
    }

    #[test]
    fn a_source_that_is_down_for_a_week_is_asked_once_a_minute_and_again_at_once_when_it_is_back() {
        let (start, mut schedule) = (start(), Schedule::default());
        assert_eq!(schedule.next(), None, "at once at the start");
        let (mut now, mut fetches) = (start, 0);
        while now - start < Duration::from_hours(24 * 7) {
            schedule.failed(now);
            fetches += 1;
            let next = schedule.next().expect("it goes on");
            assert!(next - now <= PAUSE_MAX);
            now = next;
        }
        assert!(fetches <= 7 * 24 * 60 + 10, "{fetches}");
        schedule.succeeded(now, None);
        assert_eq!(schedule.age(now + PAUSE_FIRST), Some(PAUSE_FIRST));
    }

    #[test]
    fn unknown_keys_at_a_source_that_is_down_begin_no_burst() {
        let (start, mut schedule) = (start(), Schedule::default());
        schedule.succeeded(start, Some(AGE_MAX));
        for seconds in [0, 30, 60] {
            let now = start + Duration::from_secs(seconds);
            assert!(schedule.may_ask(now));
            schedule.demanded(now);
            schedule.failed_on_demand(now);
            assert_eq!(
                schedule.next(),
                Some(start + AGE_MAX),
                "its time is as it was"
            );
        }
        let due = start + AGE_MAX;
        schedule.failed_on_demand(due);
        assert_eq!(schedule.next(), Some(due + PAUSE_FIRST), "it is due anyway");
    }

    #[test]
    fn an_unknown_key_is_asked_for_at_most_once_in_half_a_minute_whatever_comes() {
        let (start, mut schedule) = (start(), Schedule::default());
        schedule.succeeded(start, Some(AGE_MAX));
        // A thousand tokens a second with keys that nobody knows, for ten minutes.
        let fetches = (0..600_000_u64)
            .filter(|millis| {
                let now = start + Duration::from_millis(*millis);
                let asked = schedule.may_ask(now);
                if asked {
                    schedule.demanded(now);
                    schedule.succeeded(now, Some(AGE_MAX));
                }
                asked
            })
            .count();
        assert_eq!(fetches, 20);
    }
}
