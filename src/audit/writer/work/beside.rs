//! What the writer does beside writing rows: it says where the chain ends, keeps its log short and watches the clock.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::audit::chain::{Head, Tip};
use crate::audit::heads::HeadFile;
use crate::audit::store::{NoReads, ReadGate};
use crate::domain::{Deadline, Stopwatch, Timestamp};

/// How long after a row the head is in the log, at the latest.
const HEAD_LOG_INTERVAL: Duration = Duration::from_mins(1);
/// How long other gateways hear nothing of this one at the most.
const BEAT_INTERVAL: Duration = Duration::from_secs(2);
/// How far the clock may be behind the last id before it is said: clocks are set by less than that all the time.
pub const CLOCK_BEHIND_TOLD: Duration = Duration::from_secs(1);
/// How long the write-ahead log is let grow before reads wait for it to be folded in; SQLite cuts it to that length as it
/// begins anew.
pub(in crate::audit) const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How often reads may be kept waiting for it: somebody else's read, which nobody here can end, may be what keeps it.
const CLOSING_INTERVAL: Duration = Duration::from_secs(10);
/// How long they are kept waiting at the most.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// Which head was told last, and when the next is due.
pub(in crate::audit::writer) struct Heads {
    /// Beside a trail in a file.
    file: Option<HeadFile>,
    /// How long after a row its head is told, at the latest.
    interval: Duration,
    told: Head,
    /// When one was told last.
    at: Option<Instant>,
}

impl Heads {
    pub(in crate::audit::writer) fn new(file: Option<HeadFile>, tip: &Tip) -> Self {
        Self {
            file,
            interval: HEAD_LOG_INTERVAL,
            told: tip.head(),
            at: None,
        }
    }

    fn is_told(&self, tip: &Tip) -> bool {
        self.told.sequence == tip.sequence() && self.told.chain_id == **tip.chain_id()
    }

    /// Resolves when a head that was not told has to be.
    pub(super) async fn due(&mut self, tip: &Tip) {
        if self.is_told(tip) {
            return pending().await;
        }
        let now = Instant::from_std(Deadline::now().instant());
        let at = *self.at.get_or_insert(now);
        tokio::time::sleep_until(at + self.interval).await;
    }

    /// Tells the head to the log and notes it beside the trail. Where that fails it is tried again.
    pub(super) async fn log(&mut self, tip: &Tip) {
        if self.is_told(tip) {
            return;
        }
        let head = tip.head();
        tracing::info!(audit.head = %head, "the audit trail's head");
        self.at = None;
        let noted = match &self.file {
            Some(file) => file.write(&head).await,
            None => Ok(()),
        };
        match noted {
            Ok(()) => self.told = head,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(error.message = %error, error.cause = cause, "the audit trail's head could not be noted beside it");
            }
        }
    }
}

/// The write-ahead log's length, and who waits for reads to end.
pub(in crate::audit::writer) struct WriteAheadLog {
    reads: ReadGate,
    closing: Option<Pin<Box<dyn Future<Output = Option<NoReads>> + Send + Sync>>>,
    /// When reads were kept waiting last.
    closed: Option<Stopwatch>,
}

impl WriteAheadLog {
    pub(in crate::audit::writer) fn new(reads: ReadGate) -> Self {
        Self {
            reads,
            closing: None,
            closed: None,
        }
    }

    /// Notes how long the log is.
    pub(super) fn look(&mut self, bytes: u64) {
        let lately = |closed: Stopwatch| closed.elapsed() < CLOSING_INTERVAL;
        if bytes > LOG_BYTES_MAX && self.closing.is_none() && !self.closed.is_some_and(lately) {
            let closing = self.reads.clone().close();
            self.closing = Some(Box::pin(async {
                tokio::time::timeout(CLOSING_TIME, closing).await.ok()
            }));
        }
    }

    /// Resolves when the log is too long and nobody reads; `None` where somebody went on reading.
    pub(super) async fn closed_to_reads(&mut self) -> Option<NoReads> {
        match &mut self.closing {
            Some(closing) => {
                let closed = closing.await;
                (self.closing, self.closed) = (None, Some(Stopwatch::start()));
                closed
            }
            None => pending().await,
        }
    }
}

/// The same, where there is such a log.
pub(super) async fn closed_to_reads(log: &mut Option<WriteAheadLog>) -> Option<NoReads> {
    match log {
        Some(log) => log.closed_to_reads().await,
        None => pending().await,
    }
}

/// When other gateways have to hear of this one next.
#[derive(Debug)]
pub(in crate::audit::writer) struct Beats {
    last: Option<Instant>,
}

impl Beats {
    /// Nobody else has to know unless `wanted`.
    pub(in crate::audit::writer) fn new(wanted: bool) -> Self {
        Self {
            last: wanted.then(|| Instant::from_std(Deadline::now().instant())),
        }
    }

    /// They heard of it.
    pub(super) fn beaten(&mut self) {
        if self.last.is_some() {
            *self = Self::new(true);
        }
    }

    /// Resolves when they have to hear of it again.
    pub(super) async fn due(&self) {
        match self.last {
            Some(last) => tokio::time::sleep_until(last + BEAT_INTERVAL).await,
            None => pending().await,
        }
    }
}

/// Says when the clock falls behind the last id, and when it has caught up.
#[derive(Debug, Default)]
pub(in crate::audit::writer) struct ClockWatch {
    behind: bool,
}

impl ClockWatch {
    pub(in crate::audit::writer) fn look(&mut self, last_event: Option<Timestamp>) {
        let behind = last_event.map_or(Duration::ZERO, |last| last.since(Timestamp::now()));
        let is_behind = behind > CLOCK_BEHIND_TOLD;
        if is_behind && !self.behind {
            tracing::warn!(
                audit.clock_behind_seconds = behind.as_secs(),
                "the clock is behind the last event's id; ids only grow, so new events bear a later time than the clock's"
            );
        } else if self.behind && !is_behind {
            tracing::info!("the clock has caught up with the last event's id");
        }
        self.behind = is_behind;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::audit::chain::Hash;

    #[tokio::test]
    async fn the_head_of_the_last_rows_is_told_although_nothing_follows() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.db");
        let tip = |sequence| Tip::new("main", sequence, Hash::GENESIS, None);
        let mut heads = Heads {
            interval: Duration::from_millis(20),
            ..Heads::new(Some(HeadFile::beside(&path)), &tip(3))
        };
        assert!(
            futures_util::poll!(std::pin::pin!(heads.due(&tip(3)))).is_pending(),
            "nothing is new"
        );
        assert!(
            futures_util::poll!(std::pin::pin!(heads.due(&tip(4)))).is_pending(),
            "not at once"
        );
        heads.due(&tip(5)).await;
        heads.log(&tip(5)).await;
        let noted = path.with_file_name("audit.db.head");
        let text = std::fs::read_to_string(&noted).expect("a file");
        assert_eq!(text, format!("{}\n", tip(5).head()));
        let mode = std::fs::metadata(&noted)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(futures_util::poll!(std::pin::pin!(heads.due(&tip(5)))).is_pending());
    }
}
