//! A whole list in one request: it becomes exactly what is asked.
//!
//! The difference is taken while the lane is held, so that nothing of this gateway comes between what is read and what
//! is changed, and all its changes take effect at its place. Who may not list the image is refused before anything is
//! held or read, and so is who may do nothing of what it asks for: neither learns of an account that it did not name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::audit::{Denial, Intent};
use crate::authorization::{Authorizer, Decision, Refusal, Request};
use crate::domain::{
    AccountId, Author, Caller, Deadline, ImageId, Operation, Reason, Region, Scope,
};

use super::bulk::{Bulk, DECISIONS_AT_ONCE, Decided, DecidedRefusal, Results, changes};
use super::change::REFUSED_BY_POLICY;
use super::lanes::{LaneKey, ReadTerms};
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

impl Parts {
    /// Whether a caller may change anything at all.
    pub(super) fn may_change(caller: &Caller) -> Result<(), Refusal> {
        Authorizer::check_scope(&caller.principal, Scope::SharesWrite)
    }

    /// Whether a caller may replace any list of the image: it changes what it also sees.
    pub(super) fn may_replace(
        &self,
        caller: &Caller,
        replacement: &Replacement,
    ) -> Result<(), Refusal> {
        Self::may_change(caller)?;
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
        let denies_all_named = !named.changes.is_empty() && of_named.intents.is_empty();
        if denies_all_named && replacement.max_removals == 0 {
            self.deny_named(of_named, named, deadline, answer).await;
            return;
        }
        let key = replacement.key();
        let hold = match self.lanes.hold(&key, caller.party(), deadline).await {
            Ok(hold) => hold,
            Err(error) => {
                let error = DifferenceError::List(error.into());
                let _ = answer.send(Err(error.into()));
                return;
            }
        };
        let asked = ReadTerms::own(deadline);
        let difference = match self.account_ids(&key.0, &key.1, asked).await {
            Ok(present) => replacement.difference(&present),
            Err(error) => {
                drop(hold);
                let _ = answer.send(Err(DifferenceError::from(error).into()));
                return;
            }
        };
        if difference.is_empty() {
            drop(hold);
            if denies_all_named {
                self.deny_named(of_named, named, deadline, answer).await;
            } else {
                let _ = answer.send(Ok(Vec::new()));
            }
            return;
        }
        let mut decided = of_named.only(&difference.added);
        self.decide_removals(&caller, &replacement, &difference, &mut decided)
            .await;
        if !decided.intents.is_empty()
            && let Err(error) = replacement.check_removals(&difference)
        {
            drop(hold);
            let _ = answer.send(Err(error.into()));
            return;
        }
        let (intents, denials) = (decided.intents.clone(), decided.denials.clone());
        let enqueue = || self.writer.enqueue_bulk(intents, denials);
        let admitted = hold.replace(&changes(&decided.intents), deadline, enqueue);
        let admitted = admitted.map_err(ChangeError::from);
        self.follow(decided, difference.changes(), admitted, deadline, answer)
            .await;
    }

    /// Writes the denials of all that were named.
    async fn deny_named(
        &self,
        decided: Decided,
        named: Bulk,
        deadline: Deadline,
        answer: oneshot::Sender<Results>,
    ) {
        let ticket = self
            .writer
            .enqueue_bulk(Vec::new(), decided.denials.clone());
        let admitted = ticket
            .map(|ticket| (ticket, Vec::new()))
            .map_err(ChangeError::from);
        self.follow(decided, named.changes, admitted, deadline, answer)
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
    fn only(mut self, accounts: &BTreeSet<AccountId>) -> Self {
        self.intents
            .retain(|intent| accounts.contains(&intent.change.account_id));
        let mut rows = BTreeMap::new();
        self.refusals.retain_mut(|refused| {
            let stays = accounts.contains(&refused.account_id);
            if stays {
                let row = rows.len();
                refused.row = *rows.entry(refused.row).or_insert(row);
            }
            stays
        });
        let mut row = 0..;
        self.denials
            .retain(|_| row.next().is_some_and(|row| rows.contains_key(&row)));
        self
    }
}

impl From<ListError> for super::BulkError {
    fn from(error: ListError) -> Self {
        DifferenceError::from(error).into()
    }
}
