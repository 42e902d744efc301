//! Dry runs: what a change would do, without doing it.
//!
//! The present state is read once every change that was accepted before is done; what is said is what the same change
//! does, where nobody else comes between. It holds nobody up. Nothing is forwarded as a change and no event
//! is written. Whether an account exists is not to be known so: only a change asks the upstream that.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::yield_now;

use crate::authorization::{Refusal, Request};
use crate::domain::{AccountId, Caller, Deadline, ImageId, Operation, Region};

use super::bulk::{Bulk, DECISIONS_AT_ONCE};
use super::lanes::ReadTerms;
use super::replacement::{DifferenceError, Replacement};
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
            parts.may_change(&caller).map_err(RehearsalError::Denied)?;
            // What policies refuse would change nothing, so they are asked before anybody else is.
            let mut rehearsed = parts.judged(&caller, &bulk).await?;
            let (region, image_id) = (&bulk.region, &bulk.image_id);
            let present = parts.settled(&caller, region, image_id, deadline).await?;
            for one in &mut rehearsed {
                let listed = present.contains(&one.account_id);
                one.would_change &= listed == (one.operation == Operation::Unshare);
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
            let may_replace = parts.may_replace(&caller, &replacement);
            may_replace.map_err(RehearsalError::Denied)?;
            let of_named = match parts.judged(&caller, &replacement.named()).await {
                // As in earnest: who may do nothing of it costs no call.
                Err(denied) if replacement.max_removals == 0 => return Err(denied),
                of_named => of_named,
            };
            let (region, image_id) = (&replacement.region, &replacement.image_id);
            let present = parts.settled(&caller, region, image_id, deadline).await?;
            let difference = replacement.difference(&present);
            if difference.is_empty() {
                return of_named.map(|_| Vec::new());
            }
            let rehearsed = parts
                .judged(&caller, &replacement.bulk(difference.changes()))
                .await?;
            replacement.check_removals(&difference)?;
            Ok(rehearsed)
        };
        self.0.tasks.run(rehearsing).await.unwrap_or(Err(LOST))
    }
}

const LOST: RehearsalError = RehearsalError::Difference(DifferenceError::List(ListError::Lost));

impl Parts {
    /// Who has access once everything that was accepted before is done.
    pub(super) async fn settled(
        &self,
        caller: &Caller,
        region: &Region,
        image_id: &ImageId,
        deadline: Deadline,
    ) -> Result<BTreeSet<AccountId>, ListError> {
        let key = (region.clone(), image_id.clone());
        self.lanes.settled(&key, caller.party(), deadline).await?;
        let read = ReadTerms::of(caller.party(), deadline);
        self.account_ids(region, image_id, read).await
    }

    /// What policies say of each change; what they allow would change something, as far as they know.
    async fn judged(&self, caller: &Caller, bulk: &Bulk) -> Result<Vec<Rehearsed>, RehearsalError> {
        let mut judged = Vec::with_capacity(bulk.changes.len());
        for (index, (operation, account_id)) in bulk.changes.iter().enumerate() {
            if index % DECISIONS_AT_ONCE == DECISIONS_AT_ONCE - 1 {
                yield_now().await;
            }
            let change = bulk.change(*operation, *account_id);
            let refusal = self
                .authorizer
                .check(caller, Request::Change(&change))
                .err();
            judged.push(Rehearsed {
                account_id: *account_id,
                operation: *operation,
                would_change: refusal.is_none(),
                refusal,
            });
        }
        if !judged.is_empty() && judged.iter().all(|one| one.refusal.is_some()) {
            Err(RehearsalError::AllDenied(judged))
        } else {
            Ok(judged)
        }
    }
}
