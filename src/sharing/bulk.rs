//! Many accounts of one image in one request.
//!
//! Each account is a change with an event of its own, and all of them are admitted in one go: their intents get
//! to disk together or not at all, and their places stand one behind the other in the lane. What comes of them is
//! told one by one. A whole-list replacement takes its difference while it holds the lane, so that nothing of this
//! gateway comes between what it reads and what it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use crate::audit::{BulkTicket, Denial, EnqueueError, Intent, Refused};
use crate::authorization::{Authorizer, Decision, Refusal, Request};
use crate::domain::{
    AccountId, Author, Caller, Change, Deadline, EventId, ImageId, Operation, Outcome, Reason,
    Region, Scope,
};
use crate::problem::ProblemKind;

use super::change::{Recorded, Telling, denial, since};
use super::lanes::{LaneKey, Place};
use super::{ChangeError, ListError, Parts, Receipt, Sharing};

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
}

/// The accounts that are to have access to an image, and nobody else.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The image.
    pub image_id: ImageId,
    /// Where it lives.
    pub region: Region,
    /// Who is to have access.
    pub accounts: BTreeSet<AccountId>,
    /// Most accounts that may lose it by this.
    pub max_removals: usize,
    /// Why.
    pub reason: Option<Reason>,
}

impl Replacement {
    /// The changes that make the list what it is to be.
    pub(super) fn bulk(&self, changes: Vec<(Operation, AccountId)>) -> Bulk {
        Bulk {
            image_id: self.image_id.clone(),
            region: self.region.clone(),
            changes,
            reason: self.reason.clone(),
        }
    }
}

impl Replacement {
    /// The accounts that it names, as shares.
    pub(super) fn named(&self) -> Vec<(Operation, AccountId)> {
        let share = |account_id: &AccountId| (Operation::Share, *account_id);
        self.accounts.iter().map(share).collect()
    }

    /// Whether no more accounts would lose access than may.
    pub(super) fn check_removals(&self, bulk: &Bulk) -> Result<(), DifferenceError> {
        let removes = |(operation, _): &&(Operation, AccountId)| *operation == Operation::Unshare;
        let removals = bulk.changes.iter().filter(removes).count();
        if removals > self.max_removals {
            let max_removals = self.max_removals;
            return Err(DifferenceError::TooManyRemovals {
                removals,
                max_removals,
            });
        }
        Ok(())
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

/// Why it cannot be said what has to change so that a list is what is asked.
#[derive(Debug, thiserror::Error)]
pub enum DifferenceError {
    /// The list that is there is not to be had.
    #[error("the present list is not to be had")]
    List(#[from] ListError),
    /// More accounts would lose access than may.
    #[error("{removals} accounts would lose access, and {max_removals} may")]
    TooManyRemovals {
        /// Accounts that would lose access.
        removals: usize,
        /// Accounts that may.
        max_removals: usize,
    },
}

/// Decisions by policy that are made before others get their turn; each takes some microseconds.
const DECISIONS_AT_ONCE: usize = 32;

type Results = Result<Vec<BulkResult>, BulkError>;

impl Sharing {
    /// Makes many changes of one image, and waits for all of them until `deadline`. Results come in the order of
    /// the changes.
    ///
    /// # Errors
    /// See [`BulkError`]. What befell single changes is in their results.
    pub async fn change_many(&self, caller: Caller, bulk: Bulk, deadline: Deadline) -> Results {
        let (answer, answered) = oneshot::channel();
        let parts = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            parts
                .run_bulk(Arc::new(caller), bulk, deadline, answer)
                .await;
        });
        answered.await.unwrap_or(Err(ChangeError::Lost.into()))
    }

    /// Makes the list of accounts exactly what is asked. Results are those of the accounts that had to change,
    /// additions first.
    ///
    /// # Errors
    /// As [`Self::change_many`].
    pub async fn replace_list(
        &self,
        caller: Caller,
        replacement: Replacement,
        deadline: Deadline,
    ) -> Results {
        let (answer, answered) = oneshot::channel();
        let parts = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            parts
                .run_replacement(Arc::new(caller), replacement, deadline, answer)
                .await;
        });
        answered.await.unwrap_or(Err(ChangeError::Lost.into()))
    }
}

/// A bulk's changes as they were decided on.
struct Decided {
    intents: Vec<Intent>,
    denials: Vec<Denial>,
    refusals: Vec<(Operation, AccountId, Refusal)>,
}

impl Parts {
    async fn run_bulk(
        &self,
        caller: Arc<Caller>,
        bulk: Bulk,
        deadline: Deadline,
        answer: oneshot::Sender<Results>,
    ) {
        if let Some(refusal) = Self::lacks_scope(&caller) {
            let denied = self.deny_whole(caller, &bulk, refusal, deadline).await;
            let _ = answer.send(Err(denied.into()));
            return;
        }
        let key = (bulk.region.clone(), bulk.image_id.clone());
        let decided = self.decide_each(&caller, &bulk).await;
        let enqueue = || self.enqueue(&decided);
        let changes = changes(&decided.intents);
        let admitted = self.lanes.admit(&key, &changes, deadline, enqueue);
        self.follow(decided, bulk.changes, admitted, deadline, answer)
            .await;
    }

    fn enqueue(&self, decided: &Decided) -> Result<BulkTicket, EnqueueError> {
        let (intents, denials) = (decided.intents.clone(), decided.denials.clone());
        self.writer.enqueue_bulk(intents, denials)
    }

    async fn run_replacement(
        &self,
        caller: Arc<Caller>,
        replacement: Replacement,
        deadline: Deadline,
        answer: oneshot::Sender<Results>,
    ) {
        let mut bulk = replacement.bulk(Vec::new());
        if let Some(refusal) = Self::lacks_scope(&caller) {
            let denied = self.deny_whole(caller, &bulk, refusal, deadline).await;
            let _ = answer.send(Err(denied.into()));
            return;
        }
        let key = (bulk.region.clone(), bulk.image_id.clone());
        let hold = match self.lanes.hold(&key, deadline).await {
            Ok(hold) => hold,
            Err(error) => {
                let error = DifferenceError::List(error.into());
                let _ = answer.send(Err(error.into()));
                return;
            }
        };
        match self.difference(&key, &replacement, deadline).await {
            Ok(changes) => bulk.changes = changes,
            Err(error) => {
                drop(hold);
                let _ = answer.send(Err(DifferenceError::from(error).into()));
                return;
            }
        }
        let nothing_to_do = bulk.changes.is_empty();
        if nothing_to_do {
            bulk.changes = replacement.named();
        }
        let decided = self.decide_each(&caller, &bulk).await;
        // Whoever may change nothing of the image is told nothing of it, and that stands in the trail.
        let may_change_some = !decided.intents.is_empty() || bulk.changes.is_empty();
        let early = if !may_change_some {
            None
        } else if nothing_to_do {
            Some(Ok(Vec::new()))
        } else {
            replacement
                .check_removals(&bulk)
                .err()
                .map(|error| Err(error.into()))
        };
        if let Some(early) = early {
            drop(hold);
            let _ = answer.send(early);
            return;
        }
        let enqueue = || self.enqueue(&decided);
        let admitted = hold.replace(&changes(&decided.intents), deadline, enqueue);
        self.follow(decided, bulk.changes, admitted, deadline, answer)
            .await;
    }

    /// What has to change so that a list is what is asked, however much that is. Whoever calls it holds the lane.
    pub(super) async fn difference(
        &self,
        (region, image_id): &LaneKey,
        replacement: &Replacement,
        deadline: Deadline,
    ) -> Result<Vec<(Operation, AccountId)>, ListError> {
        let present = self.account_ids(region, image_id, deadline).await?;
        let added = replacement.accounts.difference(&present);
        let removed = present.difference(&replacement.accounts);
        let added = added.map(|account| (Operation::Share, *account));
        let removed = removed.map(|account| (Operation::Unshare, *account));
        Ok(added.chain(removed).collect())
    }

    /// The refusal of a caller who may change nothing at all.
    pub(super) fn lacks_scope(caller: &Caller) -> Option<Refusal> {
        Authorizer::check_scope(&caller.principal, Scope::SharesWrite).err()
    }

    async fn deny_whole(
        &self,
        caller: Arc<Caller>,
        bulk: &Bulk,
        refusal: Refusal,
        deadline: Deadline,
    ) -> ChangeError {
        let refused = Refused::Update {
            image_id: bulk.image_id.clone(),
            region: bulk.region.clone(),
            reason: bulk.reason.clone(),
        };
        self.deny(caller, refused, refusal, deadline).await
    }

    async fn decide_each(&self, caller: &Arc<Caller>, bulk: &Bulk) -> Decided {
        let mut decided = Decided {
            intents: Vec::new(),
            denials: Vec::new(),
            refusals: Vec::new(),
        };
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
                    let refused = Refused::Change(change);
                    decided
                        .denials
                        .push(denial(Arc::clone(caller), refused, &refusal));
                    decided.refusals.push((*operation, *account_id, refusal));
                }
            }
        }
        decided
    }

    /// Waits until a bulk is on disk, then for what comes of each of its changes.
    async fn follow(
        &self,
        decided: Decided,
        order: Vec<(Operation, AccountId)>,
        admitted: Result<(BulkTicket, Vec<Place>), EnqueueError>,
        deadline: Deadline,
        answer: oneshot::Sender<Results>,
    ) {
        let (mut ticket, places) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                let _ = answer.send(Err(ChangeError::from(error).into()));
                return;
            }
        };
        let mut answer = Some(answer);
        let refuse = |answer: &mut Option<oneshot::Sender<Results>>| {
            if let Some(answer) = answer.take() {
                let _ = answer.send(Err(ChangeError::AuditUnavailable.into()));
            }
        };
        let recorded = tokio::select! {
            biased;
            recorded = &mut ticket => recorded,
            () = sleep_until(deadline.instant().into()) => {
                // Nothing is sent from here on; should the intents still get to disk, their outcomes follow.
                refuse(&mut answer);
                ticket.await
            }
        };
        let Ok(recorded) = recorded else {
            drop(places);
            refuse(&mut answer);
            return;
        };
        self.lanes.recorded(&places);
        let mut recorded = recorded.into_iter().map(|row| row.event_id);
        let mut following = Vec::new();
        let mut results = Vec::new();
        for ((intent, place), event_id) in
            decided.intents.into_iter().zip(places).zip(&mut recorded)
        {
            let (told, result) = oneshot::channel();
            let mut telling = Telling::new(told);
            if answer.is_none() {
                telling.tell(ProblemKind::AuditUnavailable, ChangeError::AuditUnavailable);
            }
            let account = (intent.change.operation, intent.change.account_id);
            results.push((account, event_id, result));
            let change = Recorded {
                since: since(&intent.author),
                intent,
                event_id,
                deadline,
                success_status: 200,
            };
            following.push(self.finish(change, place, None, telling));
        }
        for (operation, _, _) in &decided.refusals {
            self.metrics.change(operation.as_str(), "denied");
        }
        let denied = decided.refusals.into_iter().zip(recorded);
        let denied = denied.map(|((operation, account_id, refusal), event_id)| BulkResult {
            account_id,
            operation,
            event_id,
            result: Err(ChangeError::Denied { refusal, event_id }),
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
