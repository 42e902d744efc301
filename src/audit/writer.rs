//! One task, one connection, one chain.
//!
//! A commit waits for the disk, so whatever arrives meanwhile goes into the next one: throughput grows
//! with concurrency, and one caller alone waits for no timer. Promise: a [`Ticket`] resolves with `Ok`
//! only when the commit that holds its entry is durable.
//!
//! A commit that fails fails its whole group and nobody else. The intents and denials in it were not
//! written, so their changes are not forwarded. Outcomes cannot be taken back: who learns that one could
//! not be written hands it back by [`Writer::keep`], and it goes into the next commit that succeeds.

use std::collections::VecDeque;
use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use crate::domain::{Deadline, EventId, Stopwatch, Timestamp};
use crate::telemetry::Metrics;

use super::chain::{Hash, Head, Tip};
use super::entry::{Completion, Denial, Draft, Intent};
use super::store::{Appender, StoreError};

/// Most entries of one commit, and most that wait for one.
const GROUP_ENTRIES_MAX: usize = 256;
/// Most bytes of the entries that wait. An entry takes some hundred bytes, and at most some ten thousand, where
/// a token's claims are as long as they may be.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Most outcomes that are kept in memory while the trail cannot be written. Each is at most a few KiB.
const KEPT_OUTCOMES_MAX: usize = 10_000;
/// How often a group that grows is let grow before it is written.
const GATHER_ROUNDS_MAX: usize = 4;
/// How often a writer that cannot write tries again by itself.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often the head goes to the log while it moves.
const HEAD_LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Where a durable entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Its event.
    pub event_id: EventId,
    /// When its group was sealed.
    pub recorded_at: Timestamp,
    /// Its place in the chain.
    pub sequence: i64,
    /// Its hash.
    pub hash: Hash,
}

/// The entry is not on disk, and the writer will not try it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit trail cannot be written")]
pub struct NotDurable;

/// The entry was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// As many entries as may wait are waiting.
    #[error("too many audit entries are waiting")]
    Full,
    /// The writer has ended.
    #[error("the audit writer has ended")]
    Ended,
}

/// A commit to wait for.
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Result<Recorded, NotDurable>>);

impl Future for Ticket {
    type Output = Result<Recorded, NotDurable>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(NotDurable)))
    }
}

/// Whether the trail can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The last commit succeeded.
    Writable,
    /// The last commit failed; why, in words that anybody may read.
    Failing(&'static str),
}

struct Waiting {
    draft: Draft,
    /// Its share of the bytes that may wait.
    _room: OwnedSemaphorePermit,
    answer: oneshot::Sender<Result<Recorded, NotDurable>>,
}

/// The writer's door. Clones lead to the same writer.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    kept: mpsc::Sender<Box<Completion>>,
    health: watch::Receiver<Health>,
}

/// The writer itself, to be stopped and waited for.
#[derive(Debug)]
pub struct WriterTask {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Closed>,
}

/// How the trail was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The chain's head.
    pub head: Head,
    /// Outcomes that could not be written; their events read `unknown` after the next start.
    pub lost_outcomes: usize,
}

impl WriterTask {
    /// Writes what waits, closes the database and says how it left it; `None` where that was not done by
    /// `deadline`.
    pub async fn stop(mut self, deadline: Deadline) -> Option<Closed> {
        self.stop.cancel();
        match timeout_at(deadline.instant().into(), &mut self.task).await {
            Ok(Ok(closed)) => Some(closed),
            Ok(Err(error)) => {
                tracing::error!(error = %error, "the audit writer died");
                None
            }
            Err(_) => {
                tracing::error!("the audit trail could not be closed in time");
                self.task.abort();
                None
            }
        }
    }
}

impl Writer {
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer outlives all work and is waited for by itself"
    )]
    pub(super) async fn start(
        mut appender: Appender,
        metrics: Metrics,
    ) -> Result<(Self, WriterTask, watch::Receiver<i64>), StoreError> {
        let tip = appender.tip().await?;
        tracing::info!(audit.head = %tip.head(), "the audit trail is open");
        let (queue, waiting) = mpsc::channel(GROUP_ENTRIES_MAX);
        let (kept, kept_back) = mpsc::channel(GROUP_ENTRIES_MAX);
        let (told, health) = watch::channel(Health::Writable);
        let (committed, last_committed) = watch::channel(tip.sequence());
        let stop = CancellationToken::new();
        let work = Work {
            appender,
            tip: Some(tip.clone()),
            last_tip: tip,
            waiting,
            kept_back,
            kept: VecDeque::new(),
            lost_outcomes: 0,
            health: told,
            committed,
            metrics,
            stop: stop.clone(),
        };
        let task = tokio::spawn(work.run());
        Ok((
            Self {
                queue,
                room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
                kept,
                health,
            },
            WriterTask { stop, task },
            last_committed,
        ))
    }

    /// Gives an intent its place in the queue at once, so that the order of calls is the order of rows.
    ///
    /// # Errors
    /// Where the queue is full or the writer has ended; nothing was written.
    pub fn enqueue(&self, intent: Intent) -> Result<Ticket, EnqueueError> {
        self.try_send(Draft::Intent(Box::new(intent)))
    }

    /// As [`Self::enqueue`], for a denial.
    ///
    /// # Errors
    /// As there.
    pub fn enqueue_denial(&self, denial: Denial) -> Result<Ticket, EnqueueError> {
        self.try_send(Draft::Denial(Box::new(denial)))
    }

    fn try_send(&self, draft: Draft) -> Result<Ticket, EnqueueError> {
        let (answer, ticket) = oneshot::channel();
        let room = Arc::clone(&self.room).try_acquire_many_owned(room_for(&draft));
        let waiting = Waiting {
            draft,
            _room: room.map_err(|_| EnqueueError::Full)?,
            answer,
        };
        match self.queue.try_send(waiting) {
            Ok(()) => Ok(Ticket(ticket)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(EnqueueError::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(EnqueueError::Ended),
        }
    }

    /// Writes an outcome. Waits for room, since what happened cannot be refused, and for the commit.
    ///
    /// # Errors
    /// [`NotDurable`]: it is not on disk; [`Self::keep`] sees to it that it will be.
    pub async fn record(&self, completion: Completion) -> Result<Recorded, NotDurable> {
        let (answer, ticket) = oneshot::channel();
        let draft = Draft::Completion(Box::new(completion));
        let room = Arc::clone(&self.room).acquire_many_owned(room_for(&draft));
        let waiting = Waiting {
            _room: room.await.map_err(|_| NotDurable)?,
            draft,
            answer,
        };
        self.queue.send(waiting).await.map_err(|_| NotDurable)?;
        Ticket(ticket).await
    }

    /// Keeps an outcome that could not be written until it can be. A restart before that leaves its
    /// event to recovery, which closes it as `unknown`.
    pub async fn keep(&self, completion: Completion) {
        let event_id = completion.recalled.event_id;
        if self.kept.send(Box::new(completion)).await.is_err() {
            tracing::error!(audit.event_id = %event_id, "an outcome is lost: the writer has ended");
        }
    }

    /// Whether the trail can be written, as the last commit showed.
    #[must_use]
    pub fn health(&self) -> Health {
        *self.health.borrow()
    }
}

/// What a draft takes of the bytes that may wait; one that is larger than all of them takes all.
fn room_for(draft: &Draft) -> u32 {
    u32::try_from(draft.bytes().min(WAITING_BYTES_MAX)).unwrap_or(u32::MAX)
}

/// The task's own state; nobody else touches it.
struct Work {
    appender: Appender,
    /// `None` after a failed commit: what is on disk has to be looked at again.
    tip: Option<Tip>,
    last_tip: Tip,
    waiting: mpsc::Receiver<Waiting>,
    kept_back: mpsc::Receiver<Box<Completion>>,
    kept: VecDeque<Draft>,
    /// Outcomes for which there was no room.
    lost_outcomes: usize,
    health: watch::Sender<Health>,
    /// Whoever follows the trail wakes up by it.
    committed: watch::Sender<i64>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Work {
    async fn run(mut self) -> Closed {
        let mut logged = (self.last_tip.sequence(), Stopwatch::start());
        loop {
            let mut group = Vec::new();
            let failing = self.tip.is_none() || !self.kept.is_empty();
            tokio::select! {
                biased;
                received = self.waiting.recv_many(&mut group, GROUP_ENTRIES_MAX) => {
                    if received == 0 {
                        break;
                    }
                }
                Some(kept) = self.kept_back.recv() => self.keep(kept),
                () = tokio::time::sleep(RETRY_INTERVAL), if failing => {}
                () = self.stop.cancelled(), if !self.waiting.is_closed() => {
                    self.waiting.close();
                    self.kept_back.close();
                }
            }
            self.commit(group).await;
            self.gather().await;
            if logged.0 != self.last_tip.sequence() && logged.1.elapsed() >= HEAD_LOG_INTERVAL {
                logged = (self.last_tip.sequence(), Stopwatch::start());
                tracing::info!(audit.head = %self.last_tip.head(), "the audit trail's head");
            }
        }
        self.finish().await
    }

    /// Lets those run who were just answered, as long as that brings more to write: else they would go into
    /// every second group. There is no timer in it: who cannot run is not waited for.
    async fn gather(&self) {
        for _ in 0..GATHER_ROUNDS_MAX {
            let waiting = self.waiting.len();
            tokio::task::yield_now().await;
            if self.waiting.len() == waiting {
                return;
            }
        }
    }

    fn keep(&mut self, completion: Box<Completion>) {
        if self.kept.len() < KEPT_OUTCOMES_MAX {
            self.kept.push_back(Draft::Completion(completion));
        } else {
            self.lost_outcomes += 1;
            let event_id = completion.recalled.event_id;
            tracing::error!(audit.event_id = %event_id, "an outcome is lost: no room to keep it");
        }
    }

    /// Takes what was kept, then what waits, into one transaction, and answers everybody in it.
    async fn commit(&mut self, group: Vec<Waiting>) {
        while let Ok(kept) = self.kept_back.try_recv() {
            self.keep(kept);
        }
        if group.is_empty() && self.kept.is_empty() && self.tip.is_some() {
            return;
        }
        let took = Stopwatch::start();
        match self.write(&group).await {
            Ok((kept, places)) => {
                let entries = kept + group.len();
                self.metrics
                    .audit_commit(entries, self.last_tip.sequence(), took.elapsed());
                tracing::debug!(
                    audit.entries = entries,
                    duration_ms = took.elapsed().as_millis(),
                    "group committed"
                );
                self.kept.drain(..kept);
                for (waiting, place) in group.into_iter().zip(places.into_iter().skip(kept)) {
                    let _ = waiting.answer.send(Ok(place));
                }
                self.tell_writable();
            }
            Err(error) => {
                self.tip = None;
                self.metrics.audit_commit_failed();
                self.tell_failing(&error);
                for waiting in group {
                    let _ = waiting.answer.send(Err(NotDurable));
                }
            }
        }
        self.metrics.unrecorded_outcomes(self.kept.len());
    }

    /// Gives how many of those that were kept went along, and everybody's place, theirs first.
    async fn write(&mut self, group: &[Waiting]) -> Result<(usize, Vec<Recorded>), StoreError> {
        let mut tip = match &self.tip {
            Some(tip) => tip.clone(),
            None => self.look_again().await?,
        };
        self.forget_recorded().await?;
        let kept = self.kept.len().min(GROUP_ENTRIES_MAX);
        let drafts = self
            .kept
            .iter()
            .take(kept)
            .chain(group.iter().map(|waiting| &waiting.draft));
        let sealed = if kept == 0 && group.is_empty() {
            Vec::new()
        } else {
            self.appender
                .append(|| tip.seal(drafts, Timestamp::now()))
                .await?
        };
        self.committed.send_replace(tip.sequence());
        self.last_tip = tip.clone();
        self.tip = Some(tip);
        let places = sealed.iter().map(|row| Recorded {
            event_id: row.place.event_id,
            recorded_at: row.place.recorded_at,
            sequence: row.place.sequence,
            hash: row.hash,
        });
        Ok((kept, places.collect()))
    }

    /// Drops, of what was kept, outcomes that are on disk: a commit that failed may have got there all the
    /// same, and a second outcome of an event would fail every group from then on.
    async fn forget_recorded(&mut self) -> Result<(), StoreError> {
        for index in (0..self.kept.len().min(GROUP_ENTRIES_MAX)).rev() {
            if let Some(event_id) = self.kept[index].event_id()
                && self.appender.has_outcome(event_id).await?
            {
                self.kept.remove(index);
            }
        }
        Ok(())
    }

    /// After a failure: whether the trail can be written again, and where it ends.
    ///
    /// By a new connection: SQLite ends a transaction by itself where the disk is full or fails, and the old
    /// connection would take itself to be in it for ever. Only where the files are those that were opened: a
    /// new connection would make a new log in place of one that was deleted, and what stood there would be lost.
    async fn look_again(&mut self) -> Result<Tip, StoreError> {
        self.appender.check_files().await?;
        self.appender.reopen().await?;
        self.appender.try_commit(Timestamp::now()).await?;
        self.appender.check_files().await?;
        self.appender.tip().await
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
            tracing::error!(error = %error, cause, why, "the audit trail cannot be written");
        }
    }

    fn change_health(&self, health: Health) -> bool {
        self.health
            .send_if_modified(|told| std::mem::replace(told, health) != health)
    }

    /// What was kept gets a last try; then the database is closed.
    async fn finish(mut self) -> Closed {
        self.commit(Vec::new()).await;
        let lost_outcomes = self.lost_outcomes + self.kept.len();
        if lost_outcomes > 0 {
            tracing::error!(
                audit.outcomes = lost_outcomes,
                "outcomes are lost: the trail could not be written"
            );
        }
        let head = self.last_tip.head();
        if let Err(error) = self.appender.close().await {
            tracing::warn!(error = %error, "the audit database did not close in order");
        }
        tracing::info!(audit.head = %head, "the audit trail is closed");
        Closed {
            head,
            lost_outcomes,
        }
    }
}
