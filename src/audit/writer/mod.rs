//! One task, one connection, one chain.
//!
//! A commit waits for the disk, so whatever arrives meanwhile goes into the next one: throughput grows
//! with concurrency, and one caller alone waits for no timer. Promise: a [`Ticket`] resolves with `Ok`
//! only when the commit that holds its entry is durable.
//!
//! A commit that fails fails its whole group and nobody else. The intents and denials in it were not
//! written, so their changes are not forwarded. Outcomes cannot be taken back: who learns that one could
//! not be written hands it back by [`Writer::keep`], and it goes into the next commit that succeeds.

mod work;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use crate::domain::{Deadline, EventId, Timestamp};
use crate::telemetry::Metrics;

use super::chain::{Hash, Head};
use super::entry::{Completion, Denial, Draft, Intent};
use super::store::{Appender, StoreError};
use work::Work;

/// Most entries of one commit, and most that wait for one.
const GROUP_ENTRIES_MAX: usize = 256;
/// Most bytes of the entries that wait. An entry takes some hundred bytes, and at most some ten thousand, where
/// a token's claims are as long as they may be.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
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

/// A commit of several entries to wait for; they are on disk all together or not at all.
#[derive(Debug)]
pub struct BulkTicket(oneshot::Receiver<Result<Vec<Recorded>, NotDurable>>);

impl Future for BulkTicket {
    type Output = Result<Vec<Recorded>, NotDurable>;

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
    drafts: Drafts,
    /// Its share of the bytes that may wait.
    _room: OwnedSemaphorePermit,
}

/// What goes into one commit together, and who waits for it.
enum Drafts {
    One(Draft, oneshot::Sender<Result<Recorded, NotDurable>>),
    Bulk(
        Vec<Draft>,
        oneshot::Sender<Result<Vec<Recorded>, NotDurable>>,
    ),
}

impl Waiting {
    fn drafts(&self) -> &[Draft] {
        match &self.drafts {
            Drafts::One(draft, _) => std::slice::from_ref(draft),
            Drafts::Bulk(drafts, _) => drafts,
        }
    }

    /// Answers with the next of `places`, as many as there are drafts.
    fn recorded(self, places: &mut impl Iterator<Item = Recorded>) {
        match self.drafts {
            Drafts::One(_, answer) => drop(answer.send(places.next().ok_or(NotDurable))),
            Drafts::Bulk(drafts, answer) => {
                drop(answer.send(Ok(places.take(drafts.len()).collect())));
            }
        }
    }

    fn failed(self) {
        match self.drafts {
            Drafts::One(_, answer) => drop(answer.send(Err(NotDurable))),
            Drafts::Bulk(_, answer) => drop(answer.send(Err(NotDurable))),
        }
    }
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

    /// Gives a bulk's intents and denials one place in the queue: they get their places in the chain one behind
    /// the other, intents first, and get to disk all together or not at all. It is taken whole where there is
    /// any room.
    ///
    /// # Errors
    /// As [`Self::enqueue`].
    pub fn enqueue_bulk(
        &self,
        intents: Vec<Intent>,
        denials: Vec<Denial>,
    ) -> Result<BulkTicket, EnqueueError> {
        let (answer, ticket) = oneshot::channel();
        let intents = intents
            .into_iter()
            .map(|intent| Draft::Intent(Box::new(intent)));
        let denials = denials
            .into_iter()
            .map(|denial| Draft::Denial(Box::new(denial)));
        let drafts: Vec<Draft> = intents.chain(denials).collect();
        let needed: usize = drafts.iter().map(Draft::bytes).sum();
        let room = needed.min(self.room.available_permits()).max(1);
        self.try_queue(Drafts::Bulk(drafts, answer), room)?;
        Ok(BulkTicket(ticket))
    }

    fn try_send(&self, draft: Draft) -> Result<Ticket, EnqueueError> {
        let (answer, ticket) = oneshot::channel();
        let room = room_for(&draft);
        self.try_queue(Drafts::One(draft, answer), room)?;
        Ok(Ticket(ticket))
    }

    fn try_queue(&self, drafts: Drafts, room: usize) -> Result<(), EnqueueError> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits(room));
        let waiting = Waiting {
            drafts,
            _room: room.map_err(|_| EnqueueError::Full)?,
        };
        match self.queue.try_send(waiting) {
            Ok(()) => Ok(()),
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
        let room = Arc::clone(&self.room).acquire_many_owned(permits(room_for(&draft)));
        let waiting = Waiting {
            _room: room.await.map_err(|_| NotDurable)?,
            drafts: Drafts::One(draft, answer),
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
fn room_for(draft: &Draft) -> usize {
    draft.bytes().min(WAITING_BYTES_MAX)
}

fn permits(room: usize) -> u32 {
    u32::try_from(room).unwrap_or(u32::MAX)
}
