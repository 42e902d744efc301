//! The writer's work: takes what waits, commits it, answers, and keeps what could not be written.

mod beside;

use std::collections::VecDeque;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::audit::chain::{Sealed, Tip};
use crate::audit::entry::{Completion, Draft, LookedAfter};
use crate::audit::store::{Appender, StoreError};
use crate::domain::{EventId, Stopwatch, Timestamp};
use crate::telemetry::Metrics;

pub use beside::CLOCK_BEHIND_TOLD;
pub(in crate::audit) use beside::LOG_BYTES_MAX;
pub(super) use beside::{ClockWatch, Heads, WriteAheadLog};

use super::{Closed, GROUP_ENTRIES_MAX, Health, Recorded, Waiting};

/// Most outcomes that are kept in memory while the trail cannot be written. Each is at most a few KiB.
const KEPT_OUTCOMES_MAX: usize = 10_000;
/// A commit that takes longer is told in the log.
const SLOW_COMMIT_TIME: Duration = Duration::from_secs(5);
/// How often a group that grows is let grow before it is written.
const GATHER_ROUNDS_MAX: usize = 4;
/// How often a writer that cannot write tries again by itself.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often an idle writer looks whether the clock is behind.
const CLOCK_INTERVAL: Duration = Duration::from_mins(1);
/// What is noted in one transaction.
const NOTES_AT_ONCE: usize = 256;

/// The task's own state; nobody else touches it.
pub(super) struct Work {
    pub(super) appender: Appender,
    /// `None` after a failed commit: what is on disk has to be looked at again.
    pub(super) tip: Option<Tip>,
    pub(super) last_tip: Tip,
    pub(super) heads: Heads,
    pub(super) waiting: mpsc::UnboundedReceiver<Waiting>,
    pub(super) kept_back: mpsc::Receiver<Arc<Completion>>,
    pub(super) looked_after: mpsc::UnboundedReceiver<LookedAfter>,
    /// What is to be noted beside the trail.
    pub(super) unnoted: Vec<LookedAfter>,
    pub(super) kept: VecDeque<Draft>,
    /// Outcomes for which there was no room.
    pub(super) lost_outcomes: usize,
    pub(super) write_ahead_log: WriteAheadLog,
    pub(super) clock: ClockWatch,
    pub(super) health: watch::Sender<Health>,
    /// Whoever follows the trail wakes up by it.
    pub(super) committed: watch::Sender<i64>,
    pub(super) last_event: watch::Sender<Option<EventId>>,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
}

impl Work {
    pub(super) async fn run(mut self) -> Closed {
        loop {
            let mut group = Vec::new();
            let failing = self.tip.is_none() || !self.kept.is_empty();
            tokio::select! {
                biased;
                // These are seldom, and what waits under load is always there.
                () = self.heads.due(&self.last_tip) => self.heads.log(&self.last_tip).await,
                closed = self.write_ahead_log.closed_to_reads() => {
                    if closed.is_some() {
                        self.fold_log();
                    }
                    drop(closed);
                }
                received = self.waiting.recv_many(&mut group, GROUP_ENTRIES_MAX) => {
                    if received == 0 {
                        break;
                    }
                }
                Some(kept) = self.kept_back.recv() => self.keep(kept),
                Some(note) = self.looked_after.recv() => self.unnoted.push(note),
                () = tokio::time::sleep(RETRY_INTERVAL), if failing => {}
                () = tokio::time::sleep(CLOCK_INTERVAL) => self.clock.look(self.last_tip.last_event_at()),
                () = self.stop.cancelled(), if !self.waiting.is_closed() => {
                    self.waiting.close();
                    self.kept_back.close();
                    self.looked_after.close();
                }
            }
            self.gather(&mut group);
            self.commit(group);
            self.note();
        }
        self.finish().await
    }

    /// After a failure the connection has to be opened anew, as after a failed commit.
    fn fold_log(&mut self) {
        if self.tip.is_some()
            && let Err(error) = self.appender.fold_log()
        {
            tracing::warn!(error.message = %error, "the write-ahead log could not be folded in");
            self.tip = None;
        }
    }

    /// What the store needs from time to time, when everybody has their answer.
    fn look_after_store(&mut self) {
        let batch = self.appender.add_batch(self.last_tip.sequence());
        // The log is folded in whatever came of the batch.
        let folded = self.appender.fold_long_log();
        if let Err(error) = batch.and(folded) {
            tracing::warn!(error.message = %error, "the audit database could not be looked after");
            self.tip = None;
        }
    }

    /// Writes down what was looked after. It is tried again with a later commit where it fails.
    fn note(&mut self) {
        while let Ok(note) = self.looked_after.try_recv() {
            self.unnoted.push(note);
        }
        while !self.unnoted.is_empty() && self.tip.is_some() {
            self.note_some();
        }
    }

    fn note_some(&mut self) {
        let some = self.unnoted.len().min(NOTES_AT_ONCE);
        match self.appender.note_looked_after(&self.unnoted[..some]) {
            Ok(()) => drop(self.unnoted.drain(..some)),
            Err(error) => {
                tracing::warn!(error.message = %error, "what was looked after could not be noted; it is tried again");
                self.tip = None;
            }
        }
    }

    /// Lets those run who were just answered, as long as that brings more to write: else they would go into
    /// every second group. There is no timer in it: who cannot run is not waited for.
    fn gather(&mut self, group: &mut Vec<Waiting>) {
        for _ in 0..GATHER_ROUNDS_MAX {
            let waiting = self.waiting.len();
            std::thread::yield_now();
            if self.waiting.len() == waiting {
                break;
            }
        }
        while group.len() < GROUP_ENTRIES_MAX
            && let Ok(waiting) = self.waiting.try_recv()
        {
            group.push(waiting);
        }
    }

    fn keep(&mut self, completion: Arc<Completion>) {
        if self.kept.len() < KEPT_OUTCOMES_MAX {
            self.kept.push_back(Draft::Completion(completion));
        } else {
            self.lost_outcomes += 1;
            let event_id = completion.recalled.event_id;
            tracing::error!(audit.event_id = %event_id, "an outcome is lost: no room to keep it");
        }
    }

    /// Takes what was kept, then what waits, into one transaction, and answers everybody in it.
    fn commit(&mut self, group: Vec<Waiting>) {
        while let Ok(kept) = self.kept_back.try_recv() {
            self.keep(kept);
        }
        if group.is_empty() && self.kept.is_empty() && self.tip.is_some() {
            return;
        }
        let took = Stopwatch::start();
        match self.write(&group) {
            Ok((kept, places)) => {
                let entries = places.len();
                self.metrics
                    .audit_commit(entries, self.last_tip.sequence(), took.elapsed());
                if took.elapsed() > SLOW_COMMIT_TIME {
                    tracing::warn!(
                        audit.entries = entries,
                        duration_ms = took.elapsed().as_millis(),
                        "a commit took long"
                    );
                }
                tracing::debug!(
                    audit.entries = entries,
                    duration_ms = took.elapsed().as_millis(),
                    "group committed"
                );
                self.kept.drain(..kept);
                let mut places = places.into_iter().skip(kept);
                for waiting in group {
                    waiting.recorded(&mut places);
                }
                self.tell_writable();
                self.look_after_store();
            }
            Err(error) => {
                self.tip = None;
                self.metrics.audit_commit_failed();
                self.tell_failing(&error);
                group.into_iter().for_each(Waiting::failed);
            }
        }
        self.metrics.unrecorded_outcomes(self.kept.len());
    }

    /// Gives how many of those that were kept went along, and everybody's place, theirs first.
    fn write(&mut self, group: &[Waiting]) -> Result<(usize, Vec<Recorded>), StoreError> {
        let mut tip = match &self.tip {
            Some(tip) => tip.clone(),
            None => self.look_again()?,
        };
        self.forget_recorded()?;
        let kept = self.kept.len().min(GROUP_ENTRIES_MAX);
        let drafts = self
            .kept
            .iter()
            .take(kept)
            .chain(group.iter().flat_map(Waiting::drafts));
        let mut places = Vec::with_capacity(kept + group.len());
        if kept > 0 || !group.is_empty() {
            self.appender.append(|rows| {
                let now = Timestamp::now();
                for draft in drafts {
                    let row = tip.seal(draft, now);
                    rows.insert(&row)?;
                    places.push(recorded(&row));
                }
                Ok(())
            })?;
        }
        self.committed.send_replace(tip.sequence());
        self.last_event.send_replace(tip.last_event());
        self.metrics.audit_last_event(tip.last_event_at());
        self.clock.look(tip.last_event_at());
        self.write_ahead_log.look(self.appender.log_bytes());
        self.last_tip = tip.clone();
        self.tip = Some(tip);
        Ok((kept, places))
    }

    /// Drops, of what was kept, outcomes that are on disk: a commit that failed may have got there all the
    /// same, and a second outcome of an event would fail every group from then on.
    fn forget_recorded(&mut self) -> Result<(), StoreError> {
        let mut index = 0;
        while index < self.kept.len().min(GROUP_ENTRIES_MAX) {
            let recorded = match self.kept[index].event_id() {
                Some(event_id) => self.appender.has_outcome(event_id)?,
                None => false,
            };
            if recorded {
                self.kept.remove(index);
            } else {
                index += 1;
            }
        }
        Ok(())
    }

    /// After a failure: whether the trail can be written again, and where it ends.
    ///
    /// By a new connection: SQLite ends a transaction by itself where the disk is full or fails, and the old
    /// connection would take itself to be in it for ever. Only where the files are those that were opened: a
    /// new connection would make a new log in place of one that was deleted, and what stood there would be lost.
    fn look_again(&mut self) -> Result<Tip, StoreError> {
        self.appender.check_files()?;
        self.appender.reopen()?;
        self.appender.try_commit(Timestamp::now())?;
        self.appender.check_files()?;
        self.appender.tip()
    }

    fn tell_writable(&self) {
        if self.change_health(Health::Writable) {
            tracing::info!("the audit trail can be written again");
        }
    }

    fn tell_failing(&self, error: &StoreError) {
        let why = error.reason();
        if self.change_health(Health::Failing(why)) {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(error.message = %error, error.cause = cause, audit.failing = why, "the audit trail cannot be written");
        }
    }

    fn change_health(&self, health: Health) -> bool {
        self.health
            .send_if_modified(|told| std::mem::replace(told, health) != health)
    }

    /// What was kept gets a last try; then the database is closed.
    async fn finish(mut self) -> Closed {
        self.commit(Vec::new());
        self.note();
        let lost_outcomes = self.lost_outcomes + self.kept.len();
        if lost_outcomes > 0 {
            tracing::error!(
                audit.outcomes = lost_outcomes,
                "outcomes are lost: the trail could not be written"
            );
        }
        self.heads.log(&self.last_tip).await;
        let head = self.last_tip.head();
        if let Err(error) = self.appender.close() {
            tracing::warn!(error.message = %error, "the audit database did not close in order");
        }
        tracing::info!(audit.head = %head, "the audit trail is closed");
        Closed {
            head,
            lost_outcomes,
        }
    }
}

/// Where a row stands once it is on disk.
fn recorded(row: &Sealed<'_>) -> Recorded {
    Recorded {
        event_id: row.place.event_id,
        recorded_at: row.place.recorded_at,
        sequence: row.place.sequence,
        hash: row.hash,
    }
}
