//! A whole list in one request: it becomes exactly what is asked.
//!
//! The difference is taken while the lane is held, so that nothing of this gateway comes between what is read and what
//! is changed, and all its changes take effect at its place. Who may not list the image is refused before anything is
//! held or read, and so is who may do nothing of what it names: neither learns of an account that it did not name. Who
//! may list, and perhaps take away and nothing else, reads first as any reader does.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::audit::{Denial, Intent};
use crate::authorization::{Decision, Refusal, Request};
use crate::domain::{
    AccountId, Author, Caller, Deadline, ImageId, Operation, Reason, Region, Scope,
};

use super::bulk::{Bulk, DECISIONS_AT_ONCE, Decided, DecidedRefusal, Results, changes};
use super::change::REFUSED_BY_POLICY;
use super::lanes::{HeldLane, LaneKey, ReadTerms};
use super::{ChangeError, ListError, Parts, Sharing};

/// Most accounts that the detail of an event names.
const NAMED_MAX: usize = 50;

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
    /// These changes of its image.
    pub(super) fn bulk(&self, changes: Vec<(Operation, AccountId)>) -> Bulk {
        Bulk {
            image_id: self.image_id.clone(),
            region: self.region.clone(),
            changes,
            reason: self.reason.clone(),
        }
    }

    /// The accounts that it names, as shares.
    pub(super) fn named(&self) -> Bulk {
        let share = |account_id: &AccountId| (Operation::Share, *account_id);
        self.bulk(self.accounts.iter().map(share).collect())
    }

    /// What has to change where these have access.
    pub(super) fn difference(&self, present: &BTreeSet<AccountId>) -> Difference {
        Difference {
            added: self.accounts.difference(present).copied().collect(),
            removed: present.difference(&self.accounts).copied().collect(),
        }
    }

    /// Whether no more accounts would lose access than may.
    pub(super) fn check_removals(&self, difference: &Difference) -> Result<(), DifferenceError> {
        let (removals, max_removals) = (difference.removed.len(), self.max_removals);
        if removals > max_removals {
            return Err(DifferenceError::TooManyRemovals {
                removals,
                max_removals,
            });
        }
        Ok(())
    }

    fn key(&self) -> LaneKey {
        (self.region.clone(), self.image_id.clone())
    }
}

/// What comes of a replacement.
enum Step {
    /// The list is what is asked.
    Nothing,
    /// More would lose access than may.
    TooMany(DifferenceError),
    /// Nothing of it may be done; these are its denials, in the order of the changes.
    Denied(Decided, Vec<(Operation, AccountId)>),
    /// Some of it is to be sent.
    Send(Decided, Vec<(Operation, AccountId)>),
}

/// What has to change so that a list is what is asked.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) added: BTreeSet<AccountId>,
    pub(super) removed: BTreeSet<AccountId>,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    fn removals(&self) -> impl Iterator<Item = (Operation, AccountId)> {
        let unshare = |account_id: &AccountId| (Operation::Unshare, *account_id);
        self.removed.iter().map(unshare)
    }

    /// Its changes, additions first.
    pub(super) fn changes(&self) -> Vec<(Operation, AccountId)> {
        let share = |account_id: &AccountId| (Operation::Share, *account_id);
        self.added
            .iter()
            .map(share)
            .chain(self.removals())
            .collect()
    }
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

impl Sharing {
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
        let work = |parts: Arc<Parts>, answer| async move {
            parts
                .run_replacement(Arc::new(caller), replacement, deadline, answer)
                .await;
        };
        self.results_of(work).await
    }
}

impl Parts {
    /// Whether a caller may change anything at all.
    pub(super) fn may_change(&self, caller: &Caller) -> Result<(), Refusal> {
        self.authorizer
            .check_scope(&caller.principal, Scope::SharesWrite)
    }

    /// Whether a caller may replace any list of the image: it changes what it also sees.
    pub(super) fn may_replace(
        &self,
        caller: &Caller,
        replacement: &Replacement,
    ) -> Result<(), Refusal> {
        self.may_change(caller)?;
        let list = Request::ListShares {
            region: &replacement.region,
            image_id: &replacement.image_id,
        };
        self.authorizer.check(caller, list)
    }

    async fn run_replacement(
        &self,
        caller: Arc<Caller>,
        replacement: Replacement,
        deadline: Deadline,
        answer: oneshot::Sender<Results>,
    ) {
        if let Err(refusal) = self.may_replace(&caller, &replacement) {
            let whole = replacement.bulk(Vec::new()).as_update();
            let denied = self.deny(caller, whole, refusal, deadline).await;
            let _ = answer.send(Err(denied.into()));
            return;
        }
        let named = replacement.named();
        let mut of_named = Decided::default();
        self.decide(&caller, &named, &mut of_named).await;
        let refused = of_named.intents.is_empty() && !named.changes.is_empty();
        if refused && replacement.max_removals == 0 {
            let order = named.changes;
            self.deny_all(of_named, order, deadline, answer).await;
            return;
        }
        let read_error = |error: ListError| Err(DifferenceError::from(error).into());
        if of_named.intents.is_empty() {
            // Perhaps nothing of it may be sent: that is found out as any reader would, who holds no lane.
            let (region, image_id) = (&replacement.region, &replacement.image_id);
            let present = match self.settled(&caller, region, image_id, deadline).await {
                Ok(present) => present,
                Err(error) => return drop(answer.send(read_error(error))),
            };
            let step = self.next_step(&caller, &replacement, &of_named, &present);
            match step.await {
                Step::Nothing => return drop(answer.send(Ok(Vec::new()))),
                Step::TooMany(error) => return drop(answer.send(Err(error.into()))),
                Step::Denied(decided, order) => {
                    self.deny_all(decided, order, deadline, answer).await;
                    return;
                }
                Step::Send(..) => {}
            }
        }
        let (hold, present) = match self.hold_and_read(&caller, &replacement, deadline).await {
            Ok(held) => held,
            Err(error) => return drop(answer.send(read_error(error))),
        };
        let step = self.next_step(&caller, &replacement, &of_named, &present);
        match step.await {
            Step::Nothing => drop(answer.send(Ok(Vec::new()))),
            Step::TooMany(error) => drop(answer.send(Err(error.into()))),
            Step::Denied(decided, order) => {
                drop(hold);
                self.deny_all(decided, order, deadline, answer).await;
            }
            Step::Send(decided, order) => {
                let (intents, denials) = (decided.intents.clone(), decided.denials.clone());
                let enqueue = || self.writer.enqueue_bulk(intents, denials);
                let admitted = hold.replace(&changes(&decided.intents), deadline, enqueue);
                let admitted = admitted.map_err(ChangeError::from);
                self.follow(decided, order, admitted, deadline, answer)
                    .await;
            }
        }
    }

    /// Has the lane, and knows who has access. While another try of the read is waited for others have the lane.
    async fn hold_and_read(
        &self,
        caller: &Caller,
        replacement: &Replacement,
        deadline: Deadline,
    ) -> Result<(HeldLane, BTreeSet<AccountId>), ListError> {
        let key = replacement.key();
        let mut retries = 0;
        loop {
            let hold = self.lanes.hold(&key, caller.party(), deadline).await?;
            let read = ReadTerms::of(caller.party(), deadline).holding().once();
            let error = match self.account_ids(&key.0, &key.1, read).await {
                Ok(present) => return Ok((hold, present)),
                Err(error) => error,
            };
            drop(hold);
            let ListError::Upstream(failure) = &error else {
                return Err(error);
            };
            let Some(wait) = self.lanes.another_read(failure, retries, deadline) else {
                return Err(error);
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => retries += 1,
                () = self.tasks.giving_up() => return Err(error),
            }
        }
    }

    /// What there is to do where these have access.
    async fn next_step(
        &self,
        caller: &Arc<Caller>,
        replacement: &Replacement,
        of_named: &Decided,
        present: &BTreeSet<AccountId>,
    ) -> Step {
        let difference = replacement.difference(present);
        let refused = of_named.intents.is_empty() && !of_named.refusals.is_empty();
        if difference.is_empty() && refused {
            return Step::Denied(of_named.clone(), replacement.named().changes);
        } else if difference.is_empty() {
            return Step::Nothing;
        }
        let mut decided = of_named.only(&difference.added);
        self.decide_removals(caller, replacement, &difference, &mut decided)
            .await;
        if decided.intents.is_empty() {
            return Step::Denied(decided, difference.changes());
        }
        match replacement.check_removals(&difference) {
            Ok(()) => Step::Send(decided, difference.changes()),
            Err(error) => Step::TooMany(error),
        }
    }

    /// Writes denials, where nothing else is to be written.
    async fn deny_all(
        &self,
        decided: Decided,
        order: Vec<(Operation, AccountId)>,
        deadline: Deadline,
        answer: oneshot::Sender<Results>,
    ) {
        let ticket = self
            .writer
            .enqueue_bulk(Vec::new(), decided.denials.clone());
        let admitted = ticket
            .map(|ticket| (ticket, Vec::new()))
            .map_err(ChangeError::from);
        self.follow(decided, order, admitted, deadline, answer)
            .await;
    }

    /// Decides on the removals. Nobody named them, so all that are denied stand in one row.
    async fn decide_removals(
        &self,
        caller: &Arc<Caller>,
        replacement: &Replacement,
        difference: &Difference,
        decided: &mut Decided,
    ) {
        let bulk = replacement.bulk(Vec::new());
        let (row, mut policies) = (decided.denials.len(), BTreeSet::new());
        let mut refused = Vec::new();
        for (index, (operation, account_id)) in difference.removals().enumerate() {
            if index % DECISIONS_AT_ONCE == DECISIONS_AT_ONCE - 1 {
                yield_now().await;
            }
            let change = bulk.change(operation, account_id);
            match self.authorizer.decide(caller, Request::Change(&change)) {
                Decision::Allowed { policy_ids } => decided.intents.push(Intent {
                    author: Author::Caller(Arc::clone(caller)),
                    change,
                    policy_ids,
                }),
                Decision::Refused(refusal) => {
                    if let Refusal::Forbidden { policy_ids } = &refusal {
                        policies.extend(policy_ids.iter().cloned());
                    }
                    refused.push(account_id);
                    decided.refusals.push(DecidedRefusal {
                        operation,
                        account_id,
                        refusal,
                        row,
                    });
                }
            }
        }
        if !refused.is_empty() {
            decided.denials.push(Denial {
                caller: Arc::clone(caller),
                refused: bulk.as_update(),
                policy_ids: policies.into_iter().collect(),
                http_status: decided.told.clone(),
                detail: removals_in_words(&refused),
            });
        }
    }
}

fn removals_in_words(accounts: &[AccountId]) -> String {
    let named: Vec<String> = accounts
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    let rest = match accounts.len().checked_sub(NAMED_MAX) {
        None | Some(0) => String::new(),
        Some(more) => format!(" and {more} more"),
    };
    format!("removals {REFUSED_BY_POLICY}: {}{rest}", named.join(", "))
}

impl Decided {
    /// What was decided on some of its accounts.
    fn only(&self, accounts: &BTreeSet<AccountId>) -> Self {
        let mut only = Self {
            told: self.told.clone(),
            ..Self::default()
        };
        let intents = self.intents.iter();
        let intents = intents.filter(|intent| accounts.contains(&intent.change.account_id));
        only.intents = intents.cloned().collect();
        for refused in &self.refusals {
            if accounts.contains(&refused.account_id)
                && let Some(denial) = self.denials.get(refused.row)
            {
                let row = only.denials.len();
                only.denials.push(denial.clone());
                only.refusals.push(DecidedRefusal {
                    row,
                    ..refused.clone()
                });
            }
        }
        only
    }
}

impl From<ListError> for super::BulkError {
    fn from(error: ListError) -> Self {
        DifferenceError::from(error).into()
    }
}
