//! What one call carries: at most ten additions and ten removals, equal changes of an account in one place. Pure.

use crate::domain::{AccountId, ImageId, Operation, Region};
use crate::upstream::{ACCOUNTS_PER_LIST_MAX, Modification};

use super::machine::PlaceId;

/// What one call carries.
#[derive(Debug, Default)]
pub(super) struct Batch {
    additions: Vec<AccountId>,
    removals: Vec<AccountId>,
    places: Vec<PlaceId>,
}

impl Batch {
    /// Whether such a change fits: the call must not ask the contrary of the account, and its list must not be full.
    pub(super) fn fits(&self, operation: Operation, account_id: AccountId) -> bool {
        let (same, contrary) = self.lists(operation);
        let there = || same.contains(&account_id);
        !contrary.contains(&account_id) && (same.len() < ACCOUNTS_PER_LIST_MAX || there())
    }

    /// The list that such a change goes into, and the other.
    fn lists(&self, operation: Operation) -> (&[AccountId], &[AccountId]) {
        match operation {
            Operation::Share => (&self.additions, &self.removals),
            Operation::Unshare => (&self.removals, &self.additions),
        }
    }

    /// Takes equal changes of one account, which must [fit](Self::fits).
    pub(super) fn take(
        &mut self,
        operation: Operation,
        account_id: AccountId,
        places: impl IntoIterator<Item = PlaceId>,
    ) {
        if !self.lists(operation).0.contains(&account_id) {
            match operation {
                Operation::Share => self.additions.push(account_id),
                Operation::Unshare => self.removals.push(account_id),
            }
        }
        self.places.extend(places);
    }

    /// Whether no other account fits.
    pub(super) fn is_full(&self) -> bool {
        self.additions.len() >= ACCOUNTS_PER_LIST_MAX
            && self.removals.len() >= ACCOUNTS_PER_LIST_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The changes that it carries.
    pub(super) fn places(&self) -> &[PlaceId] {
        &self.places
    }

    /// Drops changes that have ended meanwhile.
    pub(super) fn keep(&mut self, stays: impl Fn(&PlaceId) -> bool) {
        self.places.retain(stays);
    }

    /// How many accounts it names.
    pub(super) fn accounts(&self) -> usize {
        self.additions.len() + self.removals.len()
    }

    /// What the call asks for.
    pub(super) fn modification(&self, region: Region, image_id: ImageId) -> Modification {
        Modification {
            region,
            image_id,
            additions: self.additions.clone(),
            removals: self.removals.clone(),
        }
    }
}
