//! Points in time: the only place that reads the clock.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time: whole microseconds since 1970 in UTC.
///
/// A 64-bit integer is exact in SQLite, in a hash and in comparisons, which no text form is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The first and the last instant that RFC 3339 can write in UTC, to the microsecond.
const YEAR_ZERO: i64 = -62_167_219_200_000_000;
const END_OF_YEARS: i64 = 253_402_300_799_999_999;

/// The text is no instant of RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a time of RFC 3339, such as 2026-01-31T12:00:00Z")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// The last one that can be written.
    pub const MAX: Self = Self(END_OF_YEARS);

    /// What the system's clock says.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// Takes microseconds since 1970.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Takes seconds since 1970 with their fraction; the last or first time that can be written where it lies beyond.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the bounds are far below 2^63, and between them a fraction of a microsecond is lost"
    )]
    pub fn from_seconds(seconds: f64) -> Self {
        Self((seconds * 1e6).clamp(YEAR_ZERO as f64, END_OF_YEARS as f64) as i64)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970, rounded down; 0 for times before.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.div_euclid(1000)).unwrap_or(0)
    }

    /// How long ago `earlier` was; zero where the clock went back in between.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// So much earlier.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// So much later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// Reads a date and time of RFC 3339 with its offset, at most microseconds kept.
    ///
    /// # Errors
    /// [`InvalidTimestamp`] for anything else, ISO 8601's and RFC 9557's further forms among it.
    pub fn parse_rfc3339(text: &str) -> Result<Self, InvalidTimestamp> {
        let shape = text.as_bytes();
        // jiff reads more than RFC 3339: times without seconds, `24:00`-style offsets, `[zone]` suffixes.
        let plain = shape.len() >= 20
            && shape.is_ascii()
            && matches!(shape[10], b'T' | b't')
            && shape[13] == b':'
            && shape[16] == b':'
            && (matches!(shape[shape.len() - 1], b'Z' | b'z')
                || (shape[shape.len() - 3] == b':'
                    && matches!(shape[shape.len() - 6], b'+' | b'-')))
            && !text.contains(['[', ',']);
        if !plain {
            return Err(InvalidTimestamp);
        }
        // Read in parts: jiff's own instants end before the year 9999 does, which people write for "no end".
        let pieces = jiff::fmt::temporal::Pieces::parse(text).map_err(|_| InvalidTimestamp)?;
        let offset = pieces.to_numeric_offset().ok_or(InvalidTimestamp)?;
        let local = pieces
            .date()
            .to_datetime(pieces.time().ok_or(InvalidTimestamp)?);
        let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
        let micros =
            local.duration_since(epoch).as_micros() - i128::from(offset.seconds()) * 1_000_000;
        // An offset may lead out of the years that can be written.
        let micros = micros.clamp(YEAR_ZERO.into(), END_OF_YEARS.into());
        i64::try_from(micros)
            .map(Self)
            .map_err(|_| InvalidTimestamp)
    }
}

/// RFC 3339 in UTC with `Z` and microseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(time) = jiff::Timestamp::from_microsecond(self.0) {
            return write!(f, "{time:.6}");
        }
        // The last hours of the year 9999, which are none of jiff's instants.
        let since = jiff::SignedDuration::from_micros(self.0.clamp(YEAR_ZERO, END_OF_YEARS));
        let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
        match epoch.checked_add(since) {
            Ok(local) => write!(f, "{local:.6}Z"),
            Err(_) => f.write_str("out of range"),
        }
    }
}

/// Until when a caller waits. Monotonic: a clock that is set has no part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that is `wait` from now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    pub fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    /// The deadline that has come: the present moment, for those who reckon with instants.
    #[must_use]
    pub fn now() -> Self {
        Self::after(Duration::ZERO)
    }

    /// The later of this deadline and `grace` from now: time for a last step that began late.
    #[must_use]
    pub fn or_after(self, grace: Duration) -> Self {
        self.max(Self::after(grace))
    }

    /// The deadline as a monotonic instant.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }
}

/// A moment by a clock that goes on while the process, or the whole machine, stands still (`CLOCK_BOOTTIME`,
/// `clock_gettime(2)`): milliseconds since the machine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(u64);

impl BootTime {
    /// The present moment.
    #[must_use]
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let millis = now.tv_sec.saturating_mul(1000) + now.tv_nsec / 1_000_000;
        Self(u64::try_from(millis).unwrap_or(0))
    }

    /// So much later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long ago `earlier` was.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Milliseconds since the machine was started.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment that is so many milliseconds after the machine was started.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }
}

/// Measures how long something takes, by the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins to measure.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_read_and_print_as_rfc_3339() {
        let read = |text| Timestamp::parse_rfc3339(text).map(|time| time.to_string());
        assert_eq!(
            read("2026-01-31T12:00:00Z").as_deref(),
            Ok("2026-01-31T12:00:00.000000Z")
        );
        assert_eq!(
            read("2026-01-31t12:00:00.123456789z").as_deref(),
            Ok("2026-01-31T12:00:00.123456Z")
        );
        assert_eq!(
            read("2026-01-31T12:00:00.5+08:00").as_deref(),
            Ok("2026-01-31T04:00:00.500000Z")
        );
        let end = Timestamp::parse_rfc3339("9999-12-31T23:59:59.999999-23:59");
        assert_eq!(end.map(Timestamp::as_micros), Ok(END_OF_YEARS));
        assert_eq!(
            read("9999-12-31T23:59:59Z").as_deref(),
            Ok("9999-12-31T23:59:59.000000Z")
        );
        assert_eq!(
            read("0000-01-01T00:00:00+23:00").as_deref(),
            Ok("0000-01-01T00:00:00.000000Z")
        );
        for bad in [
            "",
            "2026-01-31",
            "2026-01-31T12:00Z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T12:00:00",
            "2026-02-30T12:00:00Z",
            "2026-01-31T12:00:00Z[UTC]",
            "2026-01-31T12:00:00+0800",
            "1767225600",
            "2026-01-31T12:00:00,5Z",
        ] {
            assert_eq!(read(bad), Err(InvalidTimestamp), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn times_survive_their_text(micros in 0_i64..4_000_000_000_000_000) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::parse_rfc3339(&time.to_string()), Ok(time));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}|[0-9TZ:.+-]{0,40}") {
            let _ = Timestamp::parse_rfc3339(&text);
        }
    }
}
