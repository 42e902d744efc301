//! How many events of each outcome there were, by hour or day.

use std::str::FromStr;

use serde::Serialize;
use utoipa::ToSchema;

use super::filter::Filter;
use super::reader::Reader;
use super::store::StoreError;
use crate::domain::{Outcome, Timestamp};
use crate::schema::{self, named_schemas, one_of};

/// Most buckets of one summary.
const BUCKETS_MAX: usize = 1000;
/// How far back a summary reaches unless it is told: 30 days, in microseconds.
const REACH_DEFAULT: i64 = 30 * 86_400 * 1_000_000;

/// How much time one bucket covers; buckets begin at full hours or days in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bucket {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    #[default]
    Day,
}

named_schemas! {
    /// How much time one bucket covers; buckets begin at full hours or days in UTC.
    pub SummaryBucket = one_of(Bucket::ALL.map(Bucket::as_str))
        .default(Some(Bucket::default().as_str().into()));
}

impl Bucket {
    const ALL: [Self; 2] = [Self::Hour, Self::Day];

    fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    fn micros(self) -> i64 {
        match self {
            Self::Hour => 3_600_000_000,
            Self::Day => 86_400_000_000,
        }
    }
}

/// The text is no bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be hour or day")]
pub struct InvalidBucket;

/// Reads the word of the API.
impl FromStr for Bucket {
    type Err = InvalidBucket;

    fn from_str(word: &str) -> Result<Self, InvalidBucket> {
        let mut all = Self::ALL.into_iter();
        all.find(|bucket| bucket.as_str() == word)
            .ok_or(InvalidBucket)
    }
}

/// Counts by outcome for each bucket of a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Summary {
    /// How much time a bucket covers.
    #[schema(value_type = SummaryBucket)]
    bucket: &'static str,
    /// Ascending, empty ones included.
    buckets: Vec<CountedBucket>,
}

/// One bucket and what happened in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CountedBucket {
    /// Its full hour or day; what lies outside the time asked for is not counted.
    #[schema(value_type = schema::Time)]
    start: String,
    /// Events by outcome.
    counts: Counts,
}

/// Events by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct Counts {
    /// No outcome yet.
    pub pending: i64,
    /// Done.
    pub succeeded: i64,
    /// Refused for an account that does not exist.
    pub invalid_account: i64,
    /// Refused by scope or policy.
    pub denied: i64,
    /// Certainly without effect.
    pub failed: i64,
    /// Perhaps with effect.
    pub unknown: i64,
}

impl Counts {
    fn of(&mut self, outcome: Outcome) -> &mut i64 {
        match outcome {
            Outcome::Pending => &mut self.pending,
            Outcome::Succeeded => &mut self.succeeded,
            Outcome::InvalidAccount => &mut self.invalid_account,
            Outcome::Denied => &mut self.denied,
            Outcome::Failed => &mut self.failed,
            Outcome::Unknown => &mut self.unknown,
        }
    }
}

/// The buckets of one summary, checked to be few enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    bucket: Bucket,
    from: i64,
    to: i64,
}

/// The time asked for has more buckets than a summary may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is too early: from there to the end are more than {BUCKETS_MAX} buckets")]
pub struct TooManyBuckets;

impl Buckets {
    /// The buckets from `from` (30 days before the end unless given) to `to` (now unless given).
    ///
    /// # Errors
    /// [`TooManyBuckets`].
    pub fn new(
        bucket: Bucket,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, TooManyBuckets> {
        // Without an end everything up to now counts, what happened within this very microsecond included.
        let to = to.map_or(now.as_micros().saturating_add(1), Timestamp::as_micros);
        let from = from.map_or(to.saturating_sub(REACH_DEFAULT), Timestamp::as_micros);
        let buckets = Self { bucket, from, to };
        if buckets.starts().take(BUCKETS_MAX + 1).count() > BUCKETS_MAX {
            Err(TooManyBuckets)
        } else {
            Ok(buckets)
        }
    }

    fn starts(self) -> impl Iterator<Item = i64> {
        let length = self.bucket.micros();
        let first = self.from.div_euclid(length).saturating_mul(length);
        std::iter::successors(Some(first), move |start| start.checked_add(length))
            .take_while(move |start| self.from < self.to && *start < self.to)
    }
}

impl Reader {
    /// Counts the events that fit `filter` in each bucket; its own times give way to those of `buckets`.
    ///
    /// # Errors
    /// Where the database cannot be read or holds what the gateway never writes.
    pub async fn summary(&self, filter: &Filter, buckets: Buckets) -> Result<Summary, StoreError> {
        let mut counted = Vec::new();
        for start in buckets.starts() {
            let end = start.saturating_add(buckets.bucket.micros());
            let filter = Filter {
                from: Some(Timestamp::from_micros(start.max(buckets.from))),
                to: Some(Timestamp::from_micros(end.min(buckets.to))),
                ..filter.clone()
            };
            let mut counts = Counts::default();
            for (word, count) in self.counts(&filter).await? {
                let damaged = StoreError::Row {
                    sequence: 0,
                    column: "outcome",
                };
                let outcome = word.parse().map_err(|_| damaged)?;
                *counts.of(outcome) += count;
            }
            counted.push(CountedBucket {
                start: Timestamp::from_micros(start).to_string(),
                counts,
            });
        }
        Ok(Summary {
            bucket: buckets.bucket.as_str(),
            buckets: counted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).expect("a time")
    }

    fn starts(bucket: Bucket, from: &str, to: &str) -> Result<Vec<String>, TooManyBuckets> {
        let buckets = Buckets::new(bucket, Some(time(from)), Some(time(to)), time(to))?;
        let text = |start| Timestamp::from_micros(start).to_string();
        Ok(buckets.starts().map(text).collect())
    }

    #[test]
    fn buckets_begin_at_full_hours_and_days_and_cover_the_time_asked_for() {
        assert_eq!(
            starts(
                Bucket::Day,
                "2026-01-30T23:59:59Z",
                "2026-02-01T00:00:00.000001Z"
            ),
            Ok(vec![
                "2026-01-30T00:00:00.000000Z".to_owned(),
                "2026-01-31T00:00:00.000000Z".to_owned(),
                "2026-02-01T00:00:00.000000Z".to_owned()
            ])
        );
        assert_eq!(
            starts(Bucket::Hour, "2026-01-30T10:00:00Z", "2026-01-30T11:00:00Z"),
            Ok(vec!["2026-01-30T10:00:00.000000Z".to_owned()])
        );
        assert_eq!(
            starts(Bucket::Day, "2026-01-30T10:00:00Z", "2026-01-30T10:00:00Z"),
            Ok(vec![]),
            "no time, no bucket"
        );
        assert_eq!(
            starts(Bucket::Day, "2026-01-31T10:00:00Z", "2026-01-30T10:00:00Z"),
            Ok(vec![]),
            "nor where the end is before the beginning"
        );
    }

    #[test]
    fn a_summary_has_at_most_a_thousand_buckets() {
        let thousand = starts(Bucket::Hour, "2026-01-01T00:00:00Z", "2026-02-11T16:00:00Z");
        assert_eq!(thousand.map(|starts| starts.len()), Ok(1000));
        let more = starts(
            Bucket::Hour,
            "2026-01-01T00:00:00Z",
            "2026-02-11T16:00:00.000001Z",
        );
        assert_eq!(more, Err(TooManyBuckets));
        let ages = starts(Bucket::Hour, "0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z");
        assert_eq!(ages, Err(TooManyBuckets));
    }

    #[test]
    fn a_summary_reaches_back_thirty_days_unless_told() {
        let now = time("2026-03-31T12:00:00Z");
        let buckets = Buckets::new(Bucket::Day, None, None, now).expect("few");
        assert_eq!(
            buckets.starts().count(),
            31,
            "the first and the last are not whole"
        );
    }
}
