//! What is held against the promises.

use std::collections::{BTreeMap, HashMap};

use super::database::Database;
use super::{EventNumber, Outcome};
use crate::domain::{AccountId, Operation};
use crate::sharing::lanes::machine::LaneKey;

/// What the upstream did, and who was let at each image.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// Who may send now: gateway, generation and chain.
    pub(super) active: HashMap<LaneKey, (usize, u64, u64)>,
    /// The greatest event that took effect in time.
    applied: HashMap<(LaneKey, AccountId), (EventNumber, Operation)>,
    pub(super) calls: usize,
}

impl Judge {
    /// A call is sent by whom it may be, and by nobody after another was let at the image.
    pub(super) fn sends(&mut self, key: &LaneKey, who: (usize, u64, u64)) {
        self.calls += 1;
        assert_eq!(
            self.active.get(key),
            Some(&who),
            "{key:?}: a call of one who was cut off, after another's"
        );
    }

    /// Changes take effect in the order of their events. What lands late does not count: it is undone. One that is made again for the sake of
    /// an earlier event than it was made for before, whose caller has left meanwhile, changes nothing.
    pub(super) fn applies(
        &mut self,
        key: &LaneKey,
        (account, event): (AccountId, EventNumber),
        operation: Operation,
    ) {
        let share = (key.clone(), account);
        let (applied, last) = self.applied.get(&share).copied().unwrap_or((0, operation));
        assert!(
            event >= applied || operation == last,
            "{key:?} {account:?}: {event} took effect behind {applied}"
        );
        self.applied.insert(share, (event.max(applied), operation));
    }
}

/// Every intent has its outcome, and what stands is what the events say.
pub(super) fn judge(database: &Database, lists: &HashMap<LaneKey, Vec<AccountId>>) {
    let mut shares: BTreeMap<(LaneKey, AccountId), Vec<(Operation, Outcome)>> = BTreeMap::new();
    for (event, row) in &database.events {
        let outcome = row.outcome;
        let outcome = outcome.unwrap_or_else(|| panic!("{event} has no outcome: {row:?}"));
        let share = (row.key.clone(), row.account);
        shares
            .entry(share)
            .or_default()
            .push((row.operation, outcome));
    }
    for ((key, account), events) in shares {
        let listed = lists.get(&key).is_some_and(|list| list.contains(&account));
        let last = events
            .iter()
            .rposition(|(_, outcome)| *outcome == Outcome::Succeeded);
        let mut explained: Vec<bool> = events[last.unwrap_or(0)..]
            .iter()
            .filter(|(_, outcome)| *outcome != Outcome::Failed)
            .map(|(operation, _)| *operation == Operation::Share)
            .collect();
        if last.is_none() {
            explained.push(false);
        }
        assert!(
            explained.contains(&listed),
            "{key:?} {account:?} is listed: {listed}, after {:?}",
            &events[events.len().saturating_sub(8)..]
        );
    }
}
