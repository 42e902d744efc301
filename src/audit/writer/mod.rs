//! One thread, one connection, one chain.
//!
//! A commit waits for the disk, so whatever arrives meanwhile goes into the next one: throughput grows
//! with concurrency, and one caller alone waits for no timer. The thread is the writer's own and blocks as it commits:
//! an entry wakes it once, and it wakes whoever waits. Promise: a [`Ticket`] resolves with `Ok`
//! only when the commit that holds its entry is durable.
//!
//! A commit that fails fails its whole group and nobody else. The intents and denials in it were not
//! written, so their changes are not forwarded. Outcomes cannot be taken back: who learns that one could
//! not be written hands it back by [`Writer::keep`], and it goes into the next commit that succeeds.

mod allowance;
mod work;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use crate::domain::{Deadline, EventId, Timestamp};
use crate::telemetry::{Held, Metrics};

use super::chain::{Hash, Head, Tip};
use super::entry::{Completion, Denial, Draft, Intent, LookedAfter};
use super::heads::HeadFile;
use super::ids::id_time;
use super::lease::Lease;
use super::store::{Appender, ReadGate};
use allowance::{Allowances, Taken};
pub use work::CLOCK_BEHIND_TOLD;
pub(super) use work::LOG_BYTES_MAX;
use work::{Beats, ClockWatch, Heads, Opening, Work, WriteAheadLog};

/// Most entries that wait and go into one commit together.
const GROUP_ENTRIES_MAX: usize = 256;
/// Most outcomes on their way back, because they could not be written.
const KEPT_BACK_MAX: usize = 256;

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
    /// Its share of what may wait.
    _room: Taken,
    _counted: Held,
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
    /// Bounded by the allowances.
    queue: mpsc::UnboundedSender<Waiting>,
    allowances: Allowances,
    kept: mpsc::Sender<Arc<Completion>>,
    /// Bounded by the accounts of which changes may land late.
    looked_after: mpsc::UnboundedSender<LookedAfter>,
    health: watch::Receiver<Health>,
    last_event: watch::Receiver<Option<EventId>>,
    lease: Lease,
    metrics: Metrics,
}

/// What the writer begins with.
pub(super) struct Opened {
    pub(super) appender: Appender,
    /// Where its chain ends; `None` where that could not be seen yet.
    pub(super) tip: Option<Tip>,
    /// What its heads are noted in, beside a trail in a file.
    pub(super) head_file: Option<HeadFile>,
    /// What keeps reads from the log before the database, where there is one.
    pub(super) reads: Option<ReadGate>,
    /// Who waits for the writer to open it, where it has not been.
    pub(super) opening: Option<Opening>,
}

/// The writer itself, to be stopped and waited for.
#[derive(Debug)]
pub struct WriterTask {
    stop: CancellationToken,
    /// Nothing more is awaited.
    abandon: CancellationToken,
    closed: oneshot::Receiver<Closed>,
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
    #[cfg(test)]
    pub(super) fn abort_for_a_test(&self) {
        self.abandon.cancel();
    }

    /// Writes what waits, closes the database and says how it left it; `None` where that was not done by
    /// `deadline`.
    pub async fn stop(mut self, deadline: Deadline) -> Option<Closed> {
        self.stop.cancel();
        match timeout_at(deadline.instant().into(), &mut self.closed).await {
            Ok(Ok(closed)) => Some(closed),
            Ok(Err(_)) => {
                tracing::error!("the audit writer died");
                None
            }
            Err(_) => {
                tracing::error!("the audit trail could not be closed in time");
                self.abandon.cancel();
                None
            }
        }
    }
}

impl Writer {
    /// Starts its thread.
    ///
    /// # Errors
    /// Where the system gives none.
    pub(super) fn start(
        opened: Opened,
        lease: Lease,
        metrics: Metrics,
    ) -> std::io::Result<(Self, WriterTask, watch::Receiver<i64>)> {
        let Opened {
            appender,
            tip: found,
            head_file,
            reads,
            opening,
        } = opened;
        if let Some(tip) = &found {
            tracing::info!(audit.head = %tip.head(), "the audit trail is open");
        }
        // Where it could not be opened yet, the writer begins as after a failure.
        let tip = found.clone().unwrap_or_else(Tip::of_nothing);
        let (queue, waiting) = mpsc::unbounded_channel();
        let (kept, kept_back) = mpsc::channel(KEPT_BACK_MAX);
        let (looked_after, told_looked_after) = mpsc::unbounded_channel();
        let (told, health) = watch::channel(if found.is_some() {
            Health::Writable
        } else {
            Health::Failing("the audit database does not answer")
        });
        let (committed, last_committed) = watch::channel(tip.sequence());
        let (event_told, last_event) = watch::channel(tip.last_event());
        let stop = CancellationToken::new();
        metrics.audit_last_event(tip.last_event_at());
        let mut clock = ClockWatch::default();
        clock.look(tip.last_event_at());
        let work = Work {
            beats: Beats::new(appender.beats()),
            appender,
            tip: found,
            heads: Heads::new(head_file, &tip),
            last_tip: tip,
            waiting,
            kept_back,
            looked_after: told_looked_after,
            unnoted: Vec::new(),
            kept: VecDeque::new(),
            lost_outcomes: 0,
            write_ahead_log: reads.map(WriteAheadLog::new),
            opening,
            clock,
            health: told,
            committed,
            last_event: event_told,
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        let abandon = CancellationToken::new();
        let closed = on_its_thread(work, abandon.clone())?;
        let writer = Self {
            queue,
            allowances: Allowances::default(),
            kept,
            looked_after,
            health,
            last_event,
            lease,
            metrics,
        };
        let task = WriterTask {
            stop,
            abandon,
            closed,
        };
        Ok((writer, task, last_committed))
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
        let room = self.allowances.bulks.take_any(needed);
        self.try_queue(Drafts::Bulk(drafts, answer), room)?;
        Ok(BulkTicket(ticket))
    }

    fn try_send(&self, draft: Draft) -> Result<Ticket, EnqueueError> {
        let (answer, ticket) = oneshot::channel();
        let room = self.allowances.singles.take(draft.bytes());
        self.try_queue(Drafts::One(draft, answer), room)?;
        Ok(Ticket(ticket))
    }

    fn try_queue(&self, drafts: Drafts, room: Option<Taken>) -> Result<(), EnqueueError> {
        let room = room.ok_or(EnqueueError::Full)?;
        let waiting = self.waiting(drafts, room);
        self.queue.send(waiting).map_err(|_| EnqueueError::Ended)
    }

    fn waiting(&self, drafts: Drafts, room: Taken) -> Waiting {
        let entries = match &drafts {
            Drafts::One(..) => 1,
            Drafts::Bulk(drafts, _) => drafts.len(),
        };
        Waiting {
            drafts,
            _room: room,
            _counted: self.metrics.audit_entries_waiting(entries),
        }
    }

    /// Writes an outcome. Waits for room, since what happened cannot be refused, and for the commit.
    ///
    /// # Errors
    /// [`NotDurable`]: it is not on disk; [`Self::keep`] sees to it that it will be.
    pub async fn record(
        &self,
        completion: impl Into<Arc<Completion>>,
    ) -> Result<Recorded, NotDurable> {
        let (answer, ticket) = oneshot::channel();
        let draft = Draft::Completion(completion.into());
        let room = self.allowances.outcomes.wait(draft.bytes()).await;
        let waiting = self.waiting(Drafts::One(draft, answer), room.ok_or(NotDurable)?);
        self.queue.send(waiting).map_err(|_| NotDurable)?;
        Ticket(ticket).await
    }

    /// Notes what was looked after, beside the trail. Where it cannot be written it is tried again; a restart before
    /// that looks after it once more.
    pub fn note_looked_after(&self, note: LookedAfter) {
        // A writer that has ended writes nothing any more.
        let _ = self.looked_after.send(note);
    }

    /// The last event that has a row on disk; `None` before the first.
    #[must_use]
    pub fn last_event(&self) -> Option<EventId> {
        (*self.last_event.borrow()).max(self.lease.followed())
    }

    /// Whether this gateway may act.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How far the clock is behind the time in the last event's id; zero where it is not.
    #[must_use]
    pub fn clock_behind(&self) -> Duration {
        let last = self.last_event.borrow().map(id_time);
        last.map_or(Duration::ZERO, |last| last.since(Timestamp::now()))
    }

    /// Keeps an outcome that could not be written until it can be. A restart before that leaves its
    /// event to recovery, which closes it as `unknown`.
    pub async fn keep(&self, completion: impl Into<Arc<Completion>>) {
        let completion = completion.into();
        let event_id = completion.recalled.event_id;
        if self.kept.send(completion).await.is_err() {
            tracing::error!(audit.event_id = %event_id, "an outcome is lost: the writer has ended");
        }
    }

    /// Whether the trail can be written, as the last commit showed.
    #[must_use]
    pub fn health(&self) -> Health {
        if self.queue.is_closed() {
            return Health::Failing("the task that writes the audit trail has ended");
        }
        *self.health.borrow()
    }
}

/// Lets `work` run on a thread that it may block. What it waits for by name, it waits for on a runtime of that thread.
fn on_its_thread(
    work: Work,
    abandon: CancellationToken,
) -> std::io::Result<oneshot::Receiver<Closed>> {
    let (told, closed) = oneshot::channel();
    let run = move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time();
        // A file asks for no I/O of the runtime's, and whoever waits with it waits longer.
        let runtime = if work.asks_the_network() {
            runtime.enable_io().build()
        } else {
            runtime.build()
        };
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(error.message = %error, "the audit writer has no runtime");
                return;
            }
        };
        let ended = runtime.block_on(async {
            tokio::select! {
                biased;
                () = abandon.cancelled() => None,
                closed = work.run() => Some(closed),
            }
        });
        if let Some(closed) = ended {
            // Whoever does not wait any more need not know.
            let _ = told.send(closed);
        }
    };
    let thread = std::thread::Builder::new().name("audit-writer".into());
    thread.spawn(run)?;
    Ok(closed)
}
