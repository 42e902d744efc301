//! Dry runs: what a change would do, without doing it.
//!
//! The present state is read while the lane is held, behind every change that was accepted before: so what is
//! said is what the same change does, where nobody else comes between. Nothing is forwarded as a change and no event
//! is written. Whether an account exists is not to be known so: only a change asks the upstream that.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::authorization::{Refusal, Request};
use crate::domain::{AccountId, Caller, Change, Deadline, ImageId, Operation, Region};

use super::bulk::{Bulk, DifferenceError, Replacement};
use super::{ListError, Parts, Sharing};

/// What one change would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    /// The account.
    pub account_id: AccountId,
    /// What was asked.
    pub operation: Operation,
    /// Whether the list would be another one after it.
    pub would_change: bool,
    /// Why it may not be made, where a policy refuses it.
    pub refusal: Option<Refusal>,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The caller may not make the change.
    #[error("the change would be denied")]
    Denied(Refusal),
    /// A policy refuses every change of a bulk.
    #[error("every change would be denied")]
    AllDenied(Vec<Rehearsed>),
    /// It cannot be said what has to change.
    #[error(transparent)]
    Difference(#[from] DifferenceError),
}

impl From<ListError> for RehearsalError {
    fn from(error: ListError) -> Self {
        Self::Difference(error.into())
    }
}

impl Sharing {
    /// Says what each change of a bulk would do, in their order.
    ///
    /// # Errors
    /// See [`RehearsalError`].
    pub async fn rehearse(
        &self,
        caller: Caller,
        bulk: Bulk,
        deadline: Deadline,
    ) -> Result<Vec<Rehearsed>, RehearsalError> {
        let parts = Arc::clone(&self.0);
        let rehearsing = async move {
            Parts::may_change(&caller)?;
            let refused: Vec<Rehearsed> = bulk
                .changes
                .iter()
                .map(|(operation, account_id)| {
                    // What is refused would change nothing, whoever has access.
                    let change = bulk.change(*operation, *account_id);
                    parts.rehearsed(&caller, &change, *operation == Operation::Share)
                })
                .collect();
            let mut rehearsed = none_allowed(refused)?;
            let present = parts.held(&bulk.region, &bulk.image_id, deadline).await?;
            for one in &mut rehearsed {
                let listed = present.contains(&one.account_id);
                one.would_change =
                    one.refusal.is_none() && listed == (one.operation == Operation::Unshare);
            }
            Ok(rehearsed)
        };
        self.0.tasks.run(rehearsing).await.unwrap_or(Err(LOST))
    }

    /// Says what the replacement of a list would do to the accounts that would have to change.
    ///
    /// # Errors
    /// See [`RehearsalError`].
    pub async fn rehearse_replacement(
        &self,
        caller: Caller,
        replacement: Replacement,
        deadline: Deadline,
    ) -> Result<Vec<Rehearsed>, RehearsalError> {
        let parts = Arc::clone(&self.0);
        let rehearsing = async move {
            Parts::may_change(&caller)?;
            let key = (replacement.region.clone(), replacement.image_id.clone());
            let hold = parts.lanes.hold(&key, deadline).await;
            let _hold = hold.map_err(ListError::from)?;
            let changes = parts.difference(&key, &replacement, deadline).await?;
            let bulk = replacement.bulk(changes);
            let rehearse = |(operation, account_id): &(Operation, AccountId)| {
                let listed = *operation == Operation::Unshare;
                parts.rehearsed(&caller, &bulk.change(*operation, *account_id), listed)
            };
            if bulk.changes.is_empty() {
                none_allowed(replacement.named().iter().map(rehearse).collect())?;
            }
            let rehearsed = none_allowed(bulk.changes.iter().map(rehearse).collect())?;
            replacement.check_removals(&bulk)?;
            Ok(rehearsed)
        };
        self.0.tasks.run(rehearsing).await.unwrap_or(Err(LOST))
    }
}

const LOST: RehearsalError = RehearsalError::Difference(DifferenceError::List(ListError::Lost));

impl Parts {
    fn may_change(caller: &Caller) -> Result<(), RehearsalError> {
        match Self::lacks_scope(caller) {
            Some(refusal) => Err(RehearsalError::Denied(refusal)),
            None => Ok(()),
        }
    }

    /// Who has access once everything that was accepted before is done.
    async fn held(
        &self,
        region: &Region,
        image_id: &ImageId,
        deadline: Deadline,
    ) -> Result<BTreeSet<AccountId>, RehearsalError> {
        let key = (region.clone(), image_id.clone());
        let hold = self.lanes.hold(&key, deadline).await;
        let _hold = hold.map_err(ListError::from)?;
        Ok(self.account_ids(region, image_id, deadline).await?)
    }

    fn rehearsed(&self, caller: &Caller, change: &Change, listed: bool) -> Rehearsed {
        let refusal = self.authorizer.check(caller, Request::Change(change)).err();
        Rehearsed {
            account_id: change.account_id,
            operation: change.operation,
            would_change: refusal.is_none() && listed == (change.operation == Operation::Unshare),
            refusal,
        }
    }
}

fn none_allowed(rehearsed: Vec<Rehearsed>) -> Result<Vec<Rehearsed>, RehearsalError> {
    let denied = !rehearsed.is_empty() && rehearsed.iter().all(|one| one.refusal.is_some());
    if denied {
        Err(RehearsalError::AllDenied(rehearsed))
    } else {
        Ok(rehearsed)
    }
}
