//! Which waiting changes go into the next call. Pure.
//!
//! From the front of the lane, whatever fits: at most ten additions and ten removals, equal changes in one
//! place. What does not fit is passed over and keeps its place: a change whose list is full, one that
//! contradicts a change already taken, one whose intent is not on disk yet. From then on its account is
//! passed over too, so that changes of one account never overtake one another; others may, which needs fewer
//! calls than to stop at the first that does not fit.

use std::collections::{HashMap, HashSet};

use crate::domain::{AccountId, ImageId, Operation, Region};
use crate::upstream::{ACCOUNTS_PER_LIST_MAX, Modification};

use super::machine::PlaceId;

/// A change as it waits in its lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) place: PlaceId,
    pub(super) operation: Operation,
    pub(super) account_id: AccountId,
    /// Whether its intent is on disk.
    pub(super) recorded: bool,
}

/// What one call carries.
#[derive(Debug, Default)]
pub(super) struct Batch {
    taken: HashMap<AccountId, Operation>,
    additions: Vec<AccountId>,
    removals: Vec<AccountId>,
    places: Vec<PlaceId>,
}

impl Batch {
    /// Takes what fits of `waiting`, which comes in the order of the lane.
    pub(super) fn fill(&mut self, waiting: impl Iterator<Item = Candidate>) {
        let mut passed = HashSet::new();
        for candidate in waiting {
            if self.is_full() {
                return;
            }
            if passed.contains(&candidate.account_id) || !self.take(candidate) {
                passed.insert(candidate.account_id);
            }
        }
    }

    fn take(&mut self, candidate: Candidate) -> bool {
        let Candidate {
            place,
            operation,
            account_id,
            recorded,
        } = candidate;
        if !recorded {
            return false;
        }
        match self.taken.get(&account_id) {
            Some(taken) if *taken != operation => return false,
            Some(_) => {}
            None => {
                let list = match operation {
                    Operation::Share => &mut self.additions,
                    Operation::Unshare => &mut self.removals,
                };
                if list.len() >= ACCOUNTS_PER_LIST_MAX {
                    return false;
                }
                list.push(account_id);
                self.taken.insert(account_id, operation);
            }
        }
        self.places.push(place);
        true
    }

    fn is_full(&self) -> bool {
        // An equal change could still join, but then who asks most would be waited for least.
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
        self.taken.len()
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

    /// The accounts of the first half, in the order in which they were taken.
    pub(super) fn first_half(&self) -> HashSet<AccountId> {
        let all = self.additions.iter().chain(&self.removals);
        all.take(self.accounts().div_ceil(2)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `+7` adds account 7, `-7` removes it, `?+7` is not on disk yet.
    fn waiting(words: &str) -> Vec<Candidate> {
        let words = words.split_whitespace().enumerate();
        let read = |(index, word): (usize, &str)| {
            let (recorded, word) = match word.strip_prefix('?') {
                Some(rest) => (false, rest),
                None => (true, word),
            };
            let (sign, account) = word.split_at(1);
            Candidate {
                place: PlaceId(index as u64),
                operation: if sign == "+" {
                    Operation::Share
                } else {
                    Operation::Unshare
                },
                account_id: account.parse().expect("an account"),
                recorded,
            }
        };
        words.map(read).collect()
    }

    fn taken(words: &str) -> (String, Vec<u64>) {
        let mut batch = Batch::default();
        batch.fill(waiting(words).into_iter());
        let list = |sign: &str, accounts: &[AccountId]| -> Vec<String> {
            accounts
                .iter()
                .map(|account| format!("{sign}{account}"))
                .collect()
        };
        let all = [list("+", &batch.additions), list("-", &batch.removals)].concat();
        (
            all.join(" "),
            batch.places.iter().map(|place| place.0).collect(),
        )
    }

    #[test]
    fn a_page_of_batches() {
        let range = |sign: &str, from: u32, to: u32| -> String {
            let words: Vec<String> = (from..=to)
                .map(|account| format!("{sign}{account} "))
                .collect();
            words.concat()
        };
        let ten = range("+", 1, 10);
        let eleven = range("+", 1, 11);
        let removals = range("-", 21, 31);
        #[rustfmt::skip]
        let page: [(&str, String, String, &[u64]); 8] = [
            ("one alone", "+1".into(), "+1".into(), &[0]),
            ("equal changes share a place", "+1 +1 -2 +1".into(), "+1 -2".into(), &[0, 1, 2, 3]),
            ("a contradiction waits, and what is equal behind it", "+1 -1 +1 +2".into(), "+1 +2".into(), &[0, 3]),
            ("what is not on disk is passed over", "?+1 +1 -1 +2".into(), "+2".into(), &[3]),
            ("ten of a list", ten.clone(), ten.trim().into(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
            ("the eleventh waits", eleven.clone(), ten.trim().into(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
            ("a removal passes additions that wait", format!("{eleven} -11 -12"), format!("{ten}-12"), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12]),
            ("nothing", String::new(), String::new(), &[]),
        ];
        for (name, words, expected, places) in page {
            assert_eq!(taken(&words), (expected, places.to_vec()), "{name}");
        }
        let (all, places) = taken(&format!("{eleven}{removals}"));
        assert_eq!(all.split(' ').count(), 20, "{all}");
        assert_eq!(places.len(), 20);
    }

    proptest! {
        #[test]
        fn a_batch_keeps_the_bounds_and_the_order_of_each_account(
            changes in proptest::collection::vec((1_u64..15, any::<bool>(), any::<bool>()), 0..60),
        ) {
            let waiting: Vec<Candidate> = changes
                .iter()
                .zip(0..)
                .map(|((account, share, recorded), index)| Candidate {
                    place: PlaceId(index),
                    operation: if *share { Operation::Share } else { Operation::Unshare },
                    account_id: (*account).try_into().expect("an account"),
                    recorded: *recorded,
                })
                .collect();
            let mut batch = Batch::default();
            batch.fill(waiting.iter().copied());
            prop_assert!(batch.additions.len() <= ACCOUNTS_PER_LIST_MAX);
            prop_assert!(batch.removals.len() <= ACCOUNTS_PER_LIST_MAX);
            prop_assert!(batch.additions.iter().all(|account| !batch.removals.contains(account)));
            for (index, candidate) in waiting.iter().enumerate() {
                let taken = batch.places.contains(&candidate.place);
                prop_assert!(!taken || candidate.recorded);
                if taken {
                    // Whatever stands before it for the same account was taken too, and was equal.
                    for before in waiting[..index].iter().filter(|other| other.account_id == candidate.account_id) {
                        prop_assert!(batch.places.contains(&before.place));
                        prop_assert_eq!(before.operation, candidate.operation);
                    }
                }
            }
            if let Some(first) = waiting.first().filter(|first| first.recorded) {
                prop_assert!(batch.places.contains(&first.place), "the front always goes");
            }
        }
    }
}
