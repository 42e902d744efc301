//! The writer's work: takes what waits, commits it, answers, and keeps what could not be written.

mod beside;

use std::collections::VecDeque;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::audit::chain::{Sealed, Tip};
use crate::audit::entry::{Completion, Draft, LookedAfter};
use crate::audit::store::{Appender, Insert, StoreError};
use crate::domain::{EventId, Stopwatch, Timestamp};
use crate::telemetry::Metrics;

pub use beside::CLOCK_BEHIND_TOLD;
pub(in crate::audit) use beside::LOG_BYTES_MAX;
use beside::closed_to_reads;
pub(super) use beside::{Beats, ClockWatch, Heads, WriteAheadLog};

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
/// Accounts of what is noted in one transaction, or those of one note.
const NOTED_AT_ONCE: usize = 1000;
/// How often a group is written that other gateways came before.
const ATTEMPTS_MAX: usize = 16;

/// Told the time in the last id of a trail that was opened.
pub(in crate::audit) type Opening = oneshot::Sender<Result<Option<Timestamp>, StoreError>>;

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
    pub(super) write_ahead_log: Option<WriteAheadLog>,
    pub(super) beats: Beats,
    /// Told, once, whether the trail could be opened, where that is the writer's own to do: connections belong to the runtime on
    /// which they were opened.
    pub(super) opening: Option<Opening>,
    pub(super) clock: ClockWatch,
    pub(super) health: watch::Sender<Health>,
    /// Whoever follows the trail wakes up by it.
    pub(super) committed: watch::Sender<i64>,
    pub(super) last_event: watch::Sender<Option<EventId>>,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
}

impl Work {
    /// Whether what it writes to is reached by a connection of the network's.
    pub(super) fn asks_the_network(&self) -> bool {
        self.appender.beats()
    }

    pub(super) async fn run(mut self) -> Closed {
        if let Some(told) = self.opening.take() {
            let opened = self.look_again().await;
            if opened.is_ok() {
                self.tell_writable();
            }
            // Whoever does not wait any more need not know.
            let _ = told.send(opened.map(|tip| tip.last_event_at()));
        }
        loop {
            let mut group = Vec::new();
            let failing = self.tip.is_none() || !self.kept.is_empty();
            tokio::select! {
                biased;
                // These are seldom, and what waits under load is always there.
                () = self.heads.due(&self.last_tip) => self.heads.log(&self.last_tip).await,
                closed = closed_to_reads(&mut self.write_ahead_log) => {
                    if closed.is_some() {
                        self.fold_log();
                    }
                    drop(closed);
                }
                () = self.beats.due(), if self.tip.is_some() => self.beat().await,
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
            self.commit(group).await;
            self.note().await;
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
        let looked_after = self.appender.look_after(self.last_tip.sequence());
        if let Err(error) = looked_after {
            tracing::warn!(error.message = %error, "the audit database could not be looked after");
            self.tip = None;
        }
    }

    /// Lets other gateways know that this one lives, and learns of the database's clock. Commits say the first as well, but there may
    /// be one after the other with nothing in between.
    async fn beat(&mut self) {
        let Some(mut tip) = self.tip.clone() else {
            return;
        };
        match self.appender.beat(&mut tip).await {
            Ok(()) => {
                self.beats.beaten();
                self.last_tip = tip.clone();
                self.tip = Some(tip);
            }
            Err(error) if self.appender.goes_on() => {
                tracing::warn!(error.message = %error, "the audit database could not be told that this gateway lives; it is tried again");
            }
            Err(error) => {
                self.tip = None;
                self.tell_failing(&error);
            }
        }
    }

    /// Writes down what was looked after. It is tried again with a later commit where it fails.
    async fn note(&mut self) {
        while let Ok(note) = self.looked_after.try_recv() {
            self.unnoted.push(note);
        }
        while !self.unnoted.is_empty() && self.tip.is_some() && self.note_some().await {}
    }

    /// Gives whether it could.
    async fn note_some(&mut self) -> bool {
        let mut accounts = 0;
        let fit = self.unnoted.iter().take_while(|note| {
            accounts += note.accounts.len();
            accounts <= NOTED_AT_ONCE
        });
        let some = fit.count().max(1);
        match self.appender.note_looked_after(&self.unnoted[..some]).await {
            Ok(()) => {
                self.unnoted.drain(..some);
                true
            }
            Err(error) => {
                tracing::warn!(error.message = %error, "what was looked after could not be noted; it is tried again");
                if !self.appender.goes_on() {
                    self.tip = None;
                }
                false
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
    async fn commit(&mut self, mut group: Vec<Waiting>) {
        while let Ok(kept) = self.kept_back.try_recv() {
            self.keep(kept);
        }
        if group.is_empty() && self.kept.is_empty() && self.tip.is_some() {
            return;
        }
        let took = Stopwatch::start();
        match self.write(&mut group).await {
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

    /// Gives how many of those that were kept went along, and everybody's place, theirs first. Those of whom another gateway
    /// wrote an outcome are told, and are not of the group any more.
    async fn write(
        &mut self,
        group: &mut Vec<Waiting>,
    ) -> Result<(usize, Vec<Recorded>), StoreError> {
        let mut tip = match &self.tip {
            Some(tip) => tip.clone(),
            None => self.look_again().await?,
        };
        for _ in 0..ATTEMPTS_MAX {
            self.forget_recorded().await?;
            match self.write_behind(tip.clone(), group).await {
                Err(StoreError::Closed) => self.tell_closed(group).await?,
                Err(StoreError::IdsTooLow) => {}
                done => return done,
            }
            tip = self.tip.clone().unwrap_or(tip);
        }
        Err(StoreError::Busy)
    }

    /// The same, behind this end of the chain.
    async fn write_behind(
        &mut self,
        mut tip: Tip,
        group: &[Waiting],
    ) -> Result<(usize, Vec<Recorded>), StoreError> {
        let kept = self.kept.len().min(GROUP_ENTRIES_MAX);
        let drafts = self
            .kept
            .iter()
            .take(kept)
            .chain(group.iter().flat_map(Waiting::drafts));
        let mut places = Vec::with_capacity(kept + group.len());
        if kept > 0 || !group.is_empty() {
            let fill = |tip: &mut Tip, insert: Insert<'_>| {
                let now = Timestamp::now();
                for draft in drafts {
                    let row = tip.seal(draft, now);
                    insert(&row)?;
                    places.push(recorded(&row));
                }
                Ok(())
            };
            self.appender.append(&mut tip, fill).await?;
        }
        self.committed.send_replace(tip.sequence());
        self.last_event.send_replace(tip.last_event());
        self.metrics.audit_last_event(tip.last_event_at());
        self.clock.look(tip.last_event_at());
        if let Some(log) = &mut self.write_ahead_log {
            log.look(self.appender.log_bytes());
        }
        self.last_tip = tip.clone();
        self.tip = Some(tip);
        Ok((kept, places))
    }

    /// Drops, of what was kept, outcomes that are on disk: a commit that failed may have got there all the
    /// same, and a second outcome of an event would fail every group from then on.
    async fn forget_recorded(&mut self) -> Result<(), StoreError> {
        let kept = self.kept.iter().take(GROUP_ENTRIES_MAX);
        let events: Vec<EventId> = kept.filter_map(Draft::event_id).collect();
        if events.is_empty() {
            return Ok(());
        }
        let closed = self.appender.closed(&events).await?;
        let is_closed = |draft: &Draft| draft.event_id().is_some_and(|id| closed.contains(&id));
        self.kept.retain(|draft| !is_closed(draft));
        Ok(())
    }

    /// Tells those that have an outcome already, another gateway's.
    async fn tell_closed(&mut self, group: &mut Vec<Waiting>) -> Result<(), StoreError> {
        let drafts = group.iter().flat_map(Waiting::drafts);
        let events: Vec<EventId> = drafts.filter_map(Draft::event_id).collect();
        let closed = self.appender.closed(&events).await?;
        let is_closed = |draft: &Draft| draft.event_id().is_some_and(|id| closed.contains(&id));
        let (over, open): (Vec<Waiting>, Vec<Waiting>) = std::mem::take(group)
            .into_iter()
            .partition(|waiting| waiting.drafts().iter().any(is_closed));
        *group = open;
        for waiting in over {
            tracing::warn!("an event was closed by another gateway before its outcome was written");
            waiting.failed();
        }
        Ok(())
    }

    /// After a failure, or before the first row: whether the trail can be written, and where it ends.
    async fn look_again(&mut self) -> Result<Tip, StoreError> {
        let tip = self.appender.look_again(Some(&self.last_tip)).await?;
        self.last_tip = tip.clone();
        self.tip = Some(tip.clone());
        self.beats.beaten();
        Ok(tip)
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
        self.commit(Vec::new()).await;
        self.note().await;
        let lost_outcomes = self.lost_outcomes + self.kept.len();
        if lost_outcomes > 0 {
            tracing::error!(
                audit.outcomes = lost_outcomes,
                "outcomes are lost: the trail could not be written"
            );
        }
        self.heads.log(&self.last_tip).await;
        let head = self.last_tip.head();
        if let Err(error) = self.appender.close().await {
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
