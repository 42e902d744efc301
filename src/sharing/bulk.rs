//! Many accounts of one image in one request.
//!
//! Each account is a change with an event of its own, and all of them are admitted in one go: their intents get
//! to disk together or not at all. What comes of them is told one by one.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{timeout, timeout_at};

use crate::audit::{BulkTicket, Denial, HttpStatus, Intent, NotDurable, Recorded, Refused};
use crate::authorization::{Decision, Refusal, Request};
use crate::domain::{
    AccountId, Author, Caller, Change, Deadline, EventId, ImageId, Operation, Outcome, Reason,
    Region,
};
use crate::problem::ProblemKind;

use super::change::{AcceptedChange, RECORD_GRACE, Telling, denial, since};
use super::lanes::{Kind, Place, Terms};
use super::replacement::DifferenceError;
use super::{ChangeError, Parts, Receipt, Sharing};

/// Changes of one image that are asked for together; no account twice.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// The image.
    pub image_id: ImageId,
    /// Where it lives.
    pub region: Region,
    /// What is to happen to which account.
    pub changes: Vec<(Operation, AccountId)>,
    /// Why.
    pub reason: Option<Reason>,
}

impl Bulk {
    /// One of its changes, whole.
    pub(super) fn change(&self, operation: Operation, account_id: AccountId) -> Change {
        Change {
            operation,
            image_id: self.image_id.clone(),
            account_id,
            region: self.region.clone(),
            reason: self.reason.clone(),
        }
    }

    /// The whole of it, as it stands in the trail where it is denied as one.
    pub(super) fn as_update(&self) -> Refused {
        Refused::Update {
            image_id: self.image_id.clone(),
            region: self.region.clone(),
            reason: self.reason.clone(),
        }
    }
}

/// What came of one change of a bulk.
#[derive(Debug)]
pub struct BulkResult {
    /// The account.
    pub account_id: AccountId,
    /// What was asked.
    pub operation: Operation,
    /// Its event.
    pub event_id: EventId,
    /// How it ended.
    pub result: Result<Receipt, ChangeError>,
}

impl BulkResult {
    /// What the trail says of it by now.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match &self.result {
            Ok(_) => Outcome::Succeeded,
            Err(ChangeError::Denied { .. }) => Outcome::Denied,
            Err(ChangeError::Failed(failure)) => failure.outcome,
            Err(_) => Outcome::Pending,
        }
    }
}

/// Why a bulk has no results.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The whole was refused; see [`ChangeError`] for what is on disk.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A policy refused every change of it; each denial is on disk.
    #[error("every change was denied")]
    AllDenied(Vec<BulkResult>),
    /// It cannot be said what has to change; nothing is on disk, nothing was sent.
    #[error(transparent)]
    Difference(#[from] DifferenceError),
}

/// Decisions by policy that are made before others get their turn; each takes some microseconds.
pub(super) const DECISIONS_AT_ONCE: usize = 32;

pub(super) type Results = Result<Vec<BulkResult>, BulkError>;

impl Sharing {
    /// Makes many changes of one image, and waits for all of them until `deadline`. Results come in the order of
    /// the changes.
    ///
    /// # Errors
    /// See [`BulkError`]. What befell single changes is in their results.
    pub async fn change_many(&self, caller: Caller, bulk: Bulk, deadline: Deadline) -> Results {
        let work = |parts: Arc<Parts>, answer| async move {
            parts
                .run_bulk(Arc::new(caller), bulk, deadline, answer)
                .await;
        };
        self.results_of(work).await
    }

    /// Has work go on to its end, whoever waits for its results.
    pub(super) async fn results_of<F>(
        &self,
        work: impl FnOnce(Arc<Parts>, oneshot::Sender<Results>) -> F,
    ) -> Results
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.0.tasks.spawn(work(Arc::clone(&self.0), answer));
        answered.await.unwrap_or(Err(ChangeError::Lost.into()))
    }
}

/// A bulk's changes as they were decided on.
#[derive(Clone)]
pub(super) struct Decided {
    pub(super) intents: Vec<Intent>,
    pub(super) denials: Vec<Denial>,
    pub(super) refusals: Vec<DecidedRefusal>,
    /// What the caller is told of all denials: one status, so that no row says otherwise than another.
    pub(super) told: HttpStatus,
}

/// A change that was refused, and which of the denials says so.
#[derive(Clone)]
pub(super) struct DecidedRefusal {
    pub(super) operation: Operation,
    pub(super) account_id: AccountId,
    pub(super) refusal: Refusal,
    pub(super) row: usize,
}

impl Default for Decided {
    fn default() -> Self {
        Self {
            intents: Vec::new(),
            denials: Vec::new(),
            refusals: Vec::new(),
            told: HttpStatus::new(ProblemKind::Forbidden.status()),
        }
    }
}

impl Parts {
    async fn run_bulk(
        &self,
        caller: Arc<Caller>,
        bulk: Bulk,
        deadline: Deadline,
        answer: oneshot::Sender<Results>,
    ) {
        if let Err(refusal) = self.may_change(&caller) {
            let denied = self.deny_whole(caller, &bulk, refusal, deadline).await;
            let _ = answer.send(Err(denied.into()));
            return;
        }
        let mut decided = Decided::default();
        let authorizing = self.traces.part("authorize");
        self.decide(&caller, &bulk, &mut decided).await;
        authorizing.end();
        let admitted = self.admit(&caller, &bulk, &decided, deadline).await;
        self.follow(decided, bulk.changes, admitted, deadline, answer)
            .await;
    }

    /// What is wholly denied needs no lane.
    async fn admit(
        &self,
        caller: &Caller,
        bulk: &Bulk,
        decided: &Decided,
        deadline: Deadline,
    ) -> Result<(BulkTicket, Vec<Place>), ChangeError> {
        let (intents, denials) = (decided.intents.clone(), decided.denials.clone());
        if intents.is_empty() {
            let ticket = self.writer.enqueue_bulk(intents, denials)?;
            return Ok((ticket, Vec::new()));
        }
        let key = (bulk.region.clone(), bulk.image_id.clone());
        let asked = Terms {
            party: caller.party(),
            kind: Kind::Bulk,
            deadline: deadline.instant(),
        };
        let (writer, changes) = (self.writer.clone(), changes(&intents));
        let enqueue = move || writer.enqueue_bulk(intents, denials);
        Ok(self.lanes.admit(&key, asked, changes, enqueue).await?)
    }

    async fn deny_whole(
        &self,
        caller: Arc<Caller>,
        bulk: &Bulk,
        refusal: Refusal,
        deadline: Deadline,
    ) -> ChangeError {
        self.deny(caller, bulk.as_update(), refusal, deadline).await
    }

    /// Decides on each change of a bulk; each denial gets a row of its own.
    pub(super) async fn decide(&self, caller: &Arc<Caller>, bulk: &Bulk, decided: &mut Decided) {
        for (index, (operation, account_id)) in bulk.changes.iter().enumerate() {
            if index % DECISIONS_AT_ONCE == DECISIONS_AT_ONCE - 1 {
                yield_now().await;
            }
            let change = bulk.change(*operation, *account_id);
            match self.authorizer.decide(caller, Request::Change(&change)) {
                Decision::Allowed { policy_ids } => decided.intents.push(Intent {
                    author: Author::Caller(Arc::clone(caller)),
                    change,
                    policy_ids,
                }),
                Decision::Refused(refusal) => {
                    let row = decided.denials.len();
                    let (refused, status) = (Refused::Change(change), decided.told.clone());
                    let denial = denial(Arc::clone(caller), refused, &refusal, status);
                    decided.denials.push(denial);
                    decided.refusals.push(DecidedRefusal {
                        operation: *operation,
                        account_id: *account_id,
                        refusal,
                        row,
                    });
                }
            }
        }
    }

    /// Waits until a bulk is on disk, then for what comes of each of its changes.
    pub(super) async fn follow(
        &self,
        decided: Decided,
        order: Vec<(Operation, AccountId)>,
        admitted: Result<(BulkTicket, Vec<Place>), ChangeError>,
        deadline: Deadline,
        answer: oneshot::Sender<Results>,
    ) {
        let (ticket, places) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                let _ = answer.send(Err(error.into()));
                return;
            }
        };
        let mut answer = Some(answer);
        let recording = self.traces.part("audit.intent");
        let recorded = recorded(ticket, &decided.told, deadline, &mut answer).await;
        recording.end();
        let Ok(recorded) = recorded else {
            drop(places);
            refuse(&mut answer);
            return;
        };
        self.lanes.recorded(&places);
        let events: Vec<EventId> = recorded.into_iter().map(|row| row.event_id).collect();
        let (of_intents, of_denials) = events.split_at(decided.intents.len().min(events.len()));
        let mut following = Vec::new();
        let mut results = Vec::new();
        for ((intent, place), event_id) in decided.intents.into_iter().zip(places).zip(of_intents) {
            let (told, result) = oneshot::channel();
            let mut telling = Telling::new(told);
            if answer.is_none() {
                telling.tell(ProblemKind::AuditUnavailable, ChangeError::AuditUnavailable);
            }
            let account = (intent.change.operation, intent.change.account_id);
            results.push((account, *event_id, result));
            let change = AcceptedChange {
                since: since(&intent.author),
                intent,
                event_id: *event_id,
                deadline,
                success_status: 200,
            };
            following.push(self.finish(change, place, None, telling));
        }
        for denial in &decided.denials {
            self.metrics.change(denial.refused.operation(), "denied");
        }
        let denied = decided.refusals.into_iter().filter_map(|refused| {
            let event_id = *of_denials.get(refused.row)?;
            let refusal = refused.refusal;
            Some(BulkResult {
                account_id: refused.account_id,
                operation: refused.operation,
                event_id,
                result: Err(ChangeError::Denied { refusal, event_id }),
            })
        });
        let denied: Vec<BulkResult> = denied.collect();
        let telling = async {
            let all_denied = results.is_empty();
            let results =
                results
                    .into_iter()
                    .map(|((operation, account_id), event_id, result)| async move {
                        BulkResult {
                            account_id,
                            operation,
                            event_id,
                            result: result.await.unwrap_or(Err(ChangeError::Lost)),
                        }
                    });
            let mut results = join_all(results).await;
            results.extend(denied);
            in_order(&mut results, &order);
            if let Some(answer) = answer {
                let _ = answer.send(if all_denied {
                    Err(BulkError::AllDenied(results))
                } else {
                    Ok(results)
                });
            }
        };
        tokio::join!(join_all(following), telling);
    }
}

/// Waits for a bulk's rows. Whose time is up before is told so, and nothing is sent from then on; should the rows
/// still get to disk, outcomes follow.
async fn recorded(
    mut ticket: BulkTicket,
    told: &HttpStatus,
    deadline: Deadline,
    answer: &mut Option<oneshot::Sender<Results>>,
) -> Result<Vec<Recorded>, NotDurable> {
    if let Ok(recorded) = timeout_at(deadline.instant().into(), &mut ticket).await {
        return recorded;
    }
    // Rows of denials that are sealed say what their caller will be told; they get a moment more to reach the disk.
    if !told.change(ProblemKind::AuditUnavailable.status())
        && let Ok(recorded) = timeout(RECORD_GRACE, &mut ticket).await
    {
        return recorded;
    }
    refuse(answer);
    ticket.await
}

fn refuse(answer: &mut Option<oneshot::Sender<Results>>) {
    if let Some(answer) = answer.take() {
        let _ = answer.send(Err(ChangeError::AuditUnavailable.into()));
    }
}

/// What intents ask for, as a lane takes it.
pub(super) fn changes(intents: &[Intent]) -> Vec<(Operation, AccountId)> {
    let of = |intent: &Intent| (intent.change.operation, intent.change.account_id);
    intents.iter().map(of).collect()
}

fn in_order(results: &mut [BulkResult], order: &[(Operation, AccountId)]) {
    let place: std::collections::HashMap<AccountId, usize> = order
        .iter()
        .enumerate()
        .map(|(index, (_, account_id))| (*account_id, index))
        .collect();
    results.sort_by_key(|result| place.get(&result.account_id).copied());
}
