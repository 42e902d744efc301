//! What waits in a lane for its first call, and which of it goes next. Pure.
//!
//! Parties take turns, a change each, so that a thousand changes of one hold up nobody else's single one; whoever
//! got nothing of a call is first in the next. Two orders hold whatever the turns: changes of one account go in the
//! order in which they were accepted, and a block, the changes of a whole-list replacement, goes as a whole before
//! anything that was accepted after it.
//!
//! What does not fit into a call is passed over and keeps its place: a change whose list is full, one that
//! contradicts a change already taken, one whose intent is not on disk yet. A call looks at each change once, however
//! many wait.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::domain::{AccountId, Operation, Party};

use super::batch::Batch;
use super::machine::PlaceId;

/// How many of the turns' entries may have left otherwise before they are swept out.
const GONE_MAX: usize = 64;

/// A change that waits, as its lane knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) operation: Operation,
    pub(super) account_id: AccountId,
    /// Whether its intent is on disk.
    pub(super) recorded: bool,
    /// Whether it was asked for with others.
    pub(super) in_bulk: bool,
}

/// A party's changes, in the order in which they were accepted.
#[derive(Debug)]
struct PartyQueue {
    party: Party,
    places: VecDeque<PlaceId>,
}

/// Changes that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// What is left of the block; accepted before everything else that waits.
    block: VecDeque<PlaceId>,
    /// Whose turn it is comes first.
    turns: Vec<PartyQueue>,
    /// Each account's changes, in the order in which they were accepted, the block's among them.
    accounts: HashMap<AccountId, VecDeque<PlaceId>>,
    /// All that waits.
    waiting: usize,
    /// Entries of `turns` that have left otherwise.
    gone: usize,
}

/// What a call passes over: these accounts, and of these parties' changes those that were asked for with others.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) accounts: HashSet<AccountId>,
    pub(super) bulks_of: HashSet<Party>,
}

impl Queue {
    /// Takes a change as the last of its party and account.
    pub(super) fn push(&mut self, party: &Party, account_id: AccountId, place: PlaceId) {
        self.of_account(account_id, place);
        let turn = self.turns.iter_mut().find(|turn| turn.party == *party);
        match turn {
            Some(turn) => turn.places.push_back(place),
            None => self.turns.push(PartyQueue {
                party: party.clone(),
                places: VecDeque::from([place]),
            }),
        }
    }

    /// Takes a change as the last of the block.
    pub(super) fn push_to_block(&mut self, account_id: AccountId, place: PlaceId) {
        self.of_account(account_id, place);
        self.block.push_back(place);
    }

    fn of_account(&mut self, account_id: AccountId, place: PlaceId) {
        self.waiting += 1;
        self.accounts
            .entry(account_id)
            .or_default()
            .push_back(place);
    }

    /// A change left otherwise than by a call.
    pub(super) fn leave(&mut self, account_id: AccountId, place: PlaceId) {
        self.leave_account(account_id, 1, |waiting| waiting != place);
        self.gone += 1;
        if self.gone > GONE_MAX && self.gone > self.waiting {
            let waiting: HashSet<PlaceId> = self.accounts.values().flatten().copied().collect();
            self.sweep(|place| waiting.contains(place));
        }
    }

    /// So many of an account's changes leave: those that do not stay.
    fn leave_account(
        &mut self,
        account_id: AccountId,
        count: usize,
        stays: impl Fn(PlaceId) -> bool,
    ) {
        if let Some(waiting) = self.accounts.get_mut(&account_id) {
            let before = waiting.len();
            // Mostly the first, and only that: it need not be looked for.
            if count == 1 && waiting.front().is_some_and(|place| !stays(*place)) {
                waiting.pop_front();
            } else {
                waiting.retain(|place| stays(*place));
            }
            self.waiting -= before - waiting.len();
            if waiting.is_empty() {
                self.accounts.remove(&account_id);
            }
        }
    }

    fn sweep(&mut self, stays: impl Fn(&PlaceId) -> bool) {
        self.gone = 0;
        self.block.retain(&stays);
        for turn in &mut self.turns {
            turn.places.retain(&stays);
        }
        self.turns.retain(|turn| !turn.places.is_empty());
    }

    /// Takes what fits of the block.
    pub(super) fn fill_from_block(
        &mut self,
        batch: &mut Batch,
        look: impl Fn(PlaceId) -> Option<Candidate>,
    ) {
        // Equal changes that were accepted later wait, as all others do.
        let last = self.block.back().copied();
        let look = |place: PlaceId| look(place).filter(|_| Some(place) <= last);
        for index in 0..self.block.len() {
            if batch.is_full() {
                break;
            }
            let place = self.block[index];
            self.take(place, batch, &Passed::default(), look);
        }
        self.block.retain(|place| look(*place).is_some());
    }

    /// Takes what fits, a change of each party in turn, but nothing of whom it passes over. `look` gives a change as
    /// it waits, `None` where it does not any more.
    pub(super) fn fill(
        &mut self,
        batch: &mut Batch,
        passed: &Passed,
        look: impl Fn(PlaceId) -> Option<Candidate>,
    ) {
        // By index into `turns`: how far each was looked through, and whether it got something.
        let mut cursors = vec![0; self.turns.len()];
        let mut served = vec![false; self.turns.len()];
        let mut before = usize::MAX;
        while before != batch.places().len() && !batch.is_full() {
            before = batch.places().len();
            for (index, cursor) in cursors.iter_mut().enumerate() {
                let no_bulks = passed.bulks_of.contains(&self.turns[index].party);
                // What is passed over still goes before later changes of its account.
                let look = |place| {
                    let candidate: Candidate = look(place)?;
                    let recorded = candidate.recorded && !(no_bulks && candidate.in_bulk);
                    Some(Candidate {
                        recorded,
                        ..candidate
                    })
                };
                while let Some(place) = self.turns[index].places.get(*cursor).copied()
                    && !batch.is_full()
                {
                    *cursor += 1;
                    if self.take(place, batch, passed, look) {
                        served[index] = true;
                        break;
                    }
                }
            }
        }
        if self.turns.len() > 1 {
            let mut flags = served.into_iter();
            let (served, first): (Vec<PartyQueue>, Vec<PartyQueue>) =
                std::mem::take(&mut self.turns)
                    .into_iter()
                    .partition(|_| flags.next() == Some(true));
            self.turns = first.into_iter().chain(served).collect();
        }
        let mut taken = batch.places().to_vec();
        taken.sort_unstable();
        self.sweep(|place| taken.binary_search(place).is_err() && look(*place).is_some());
    }

    /// Takes an account's changes from its first to this one and on, as long as they ask for the same: none of them
    /// overtakes another.
    fn take(
        &mut self,
        place: PlaceId,
        batch: &mut Batch,
        passed: &Passed,
        look: impl Fn(PlaceId) -> Option<Candidate>,
    ) -> bool {
        let Some(wanted) = look(place).filter(|wanted| wanted.recorded) else {
            return false;
        };
        let Candidate {
            operation,
            account_id,
            ..
        } = wanted;
        if passed.accounts.contains(&account_id) || !batch.fits(operation, account_id) {
            return false;
        }
        let waiting = self.accounts.get(&account_id).into_iter().flatten();
        // Ascending, since so they were accepted.
        let alike: Vec<PlaceId> = waiting
            .filter_map(|place| look(*place).map(|candidate| (*place, candidate)))
            .take_while(|(_, found)| found.recorded && found.operation == operation)
            .map(|(place, _)| place)
            .collect();
        let is_alike = |place: &PlaceId| alike.binary_search(place).is_ok();
        if !is_alike(&place) {
            return false;
        }
        self.leave_account(account_id, alike.len(), |waiting| !is_alike(&waiting));
        batch.take(operation, account_id, alike);
        true
    }
}

#[cfg(test)]
mod tests;
