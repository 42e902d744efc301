//! The judge of the small world, who watches every call and every answer.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::upstream::{MISSING, POISON};
use super::world::World;
use crate::domain::{AccountId, Operation};
use crate::sharing::lanes::machine::{CallId, Ended, LaneKey, Last, PlaceId, Terms};
use crate::upstream::{
    ACCOUNTS_PER_LIST_MAX, CallError, Connection, Fate, Modification, Modified, Retry, Verdict,
};

/// What the judge knows of a change.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a judge's notes")]
pub(super) struct Fact {
    pub(super) key: LaneKey,
    pub(super) operation: Operation,
    pub(super) account: AccountId,
    pub(super) asked: Terms,
    pub(super) deadline: Instant,
    pub(super) calls: Vec<CallId>,
    pub(super) recorded: bool,
    pub(super) late: bool,
    /// Whether it was given up while a call carried it.
    pub(super) abandoned: bool,
    /// Whether the program was killed before it ended.
    pub(super) crashed: bool,
    pub(super) ended: Option<(Instant, Ended)>,
    /// Whether the gateway made it by itself.
    pub(super) undo: bool,
}

/// What the judge knows of a call.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) modification: Modification,
    pub(super) connection: Connection,
    pub(super) applied: bool,
    pub(super) lands: bool,
    pub(super) result: Option<Result<Modified, CallError>>,
}

impl World {
    /// What must hold of every call as it is sent.
    pub(super) fn judge_call(&mut self, id: CallId, key: &LaneKey, modification: &Modification) {
        let Modification {
            additions,
            removals,
            ..
        } = modification;
        assert!(
            additions.len() <= ACCOUNTS_PER_LIST_MAX && removals.len() <= ACCOUNTS_PER_LIST_MAX
        );
        assert!(!additions.is_empty() || !removals.is_empty());
        let in_flight = self.sent.values().filter(|sent| {
            sent.result.is_none()
                && (&sent.modification.region, &sent.modification.image_id) == (&key.0, &key.1)
        });
        assert_eq!(in_flight.count(), 0, "one call of an image at a time");
        let places = self.machine.places_of(id);
        self.judge_whole_lists(key, &places);
        self.judge_fairness(key, &places);
        let mut carried: HashMap<AccountId, Vec<PlaceId>> = HashMap::new();
        for place in &places {
            carried
                .entry(self.facts[place].account)
                .or_default()
                .push(*place);
        }
        let accounts: Vec<AccountId> = additions.iter().chain(removals).copied().collect();
        let distinct: BTreeSet<AccountId> = accounts.iter().copied().collect();
        assert_eq!(
            distinct.len(),
            accounts.len(),
            "an account is named once in a call"
        );
        assert_eq!(
            distinct,
            carried.keys().copied().collect(),
            "a call names whom it carries"
        );
        for (account, carried) in carried {
            let waiting: Vec<PlaceId> = self.accounts[&(key.clone(), account)]
                .iter()
                .copied()
                .filter(|place| {
                    self.facts[place].ended.is_none() && !self.machine.is_looked_at(*place)
                })
                .collect();
            let front: BTreeSet<&PlaceId> = waiting.iter().take(carried.len()).collect();
            assert_eq!(
                front,
                carried.iter().collect(),
                "changes of an account go in the order in which they were accepted:\n{}",
                self.story(key, account)
            );
            for place in carried {
                let adds = additions.contains(&account);
                self.judge_sending(place, adds);
                self.fact(place).calls.push(id);
            }
        }
    }

    /// Nothing goes before any change of a whole-list replacement that was accepted before it.
    fn judge_whole_lists(&self, key: &LaneKey, places: &[PlaceId]) {
        for (_, block) in self.blocks.iter().filter(|(of, _)| of == key) {
            let Some(last) = block.last() else {
                continue;
            };
            let left = |place: &&PlaceId| {
                self.facts[*place].ended.is_none() && !self.machine.is_looked_at(**place)
            };
            if let Some(left) = block.iter().find(left) {
                let later = places
                    .iter()
                    .find(|place| *place > last && !block.contains(place));
                assert!(
                    later.is_none(),
                    "{later:?} goes before {left:?} of a whole list"
                );
            }
        }
    }

    /// No subject stands in another's way: a single change is in one of the next two calls of its image.
    fn judge_fairness(&mut self, key: &LaneKey, places: &[PlaceId]) {
        for place in places {
            self.hopeful.remove(place);
        }
        let (facts, now) = (&self.facts, self.now);
        self.hopeful.retain(|place, passed| {
            let fact = &facts[place];
            if fact.ended.is_some() || fact.deadline <= now {
                return false;
            }
            *passed += u32::from(fact.key == *key);
            assert!(*passed < 2, "{place:?} waits for a third call: {fact:?}");
            true
        });
    }

    /// A change is sent once it is on disk, and again only where there was a reason.
    fn judge_sending(&self, place: PlaceId, adds: bool) {
        let fact = &self.facts[&place];
        assert!(fact.recorded, "what is sent is on disk");
        assert_eq!(adds, fact.operation == Operation::Share);
        assert!(
            !fact.late && self.now < fact.deadline,
            "nothing is sent for whose time is up"
        );
        let Some(last) = fact.calls.last() else {
            return;
        };
        let retried = |error: &CallError| matches!(error.retry(), Retry::After { .. });
        let failures = fact
            .calls
            .iter()
            .filter_map(|call| self.sent[call].result.as_ref()?.as_ref().err());
        let count = failures.clone().filter(|error| retried(error)).count();
        assert!(count <= self.limits.max_retries as usize, "{count} retries");
        let sent = &self.sent[last];
        let accounts = sent.modification.additions.len() + sent.modification.removals.len();
        match sent
            .result
            .as_ref()
            .expect("a call ends before the next begins")
        {
            Ok(Modified {
                verdict: Verdict::InvalidAccounts(named),
                ..
            }) => {
                assert!(
                    !named.contains(&fact.account),
                    "an account that does not exist is not sent again"
                );
            }
            Ok(_) => panic!("what was done is not sent again"),
            Err(error) if retried(error) => {}
            Err(CallError::Lost { pooled: true, .. }) => {
                assert_eq!(sent.connection, Connection::Pooled);
            }
            Err(error) => assert!(
                accounts > 1 && error.may_depend_on_an_account(),
                "{error:?}"
            ),
        }
    }

    /// What was told must be true.
    #[expect(clippy::too_many_lines, reason = "one judgement, rule by rule")]
    pub(super) fn judge(&self) {
        for (place, fact) in &self.facts {
            let Some((_, ended)) = &fact.ended else {
                panic!(
                    "{place:?} never ended:\n{}\n{:?}",
                    self.story(&fact.key, fact.account),
                    self.machine
                );
            };
            if fact.crashed {
                continue;
            }
            assert_eq!(
                ended.calls as usize,
                fact.calls.len(),
                "{place:?}: {fact:?}"
            );
            let sent: Vec<&Sent> = fact.calls.iter().map(|call| &self.sent[call]).collect();
            let applied = sent.iter().any(|sent| sent.applied || sent.lands);
            let unknown = sent.iter().any(|sent| {
                matches!(&sent.result, Some(Err(error)) if error.fate() == Fate::MayHaveApplied)
            });
            match &ended.last {
                Last::Answered(Modified {
                    verdict: Verdict::Done,
                    ..
                }) => {
                    assert!(
                        sent.last().is_some_and(|last| last.applied),
                        "told done, and is not: {fact:?}"
                    );
                }
                Last::Answered(_) => {
                    assert!(
                        fact.account.get() >= MISSING,
                        "a neighbour's account failed it: {fact:?}"
                    );
                    assert_eq!(ended.may_have_applied, unknown);
                }
                Last::Abandoned => assert!(ended.may_have_applied),
                _ => {
                    assert!(
                        ended.may_have_applied || !applied,
                        "told failed, and is done: {fact:?}"
                    );
                    assert_eq!(ended.may_have_applied, unknown, "{fact:?}");
                }
            }
            if (POISON..MISSING).contains(&fact.account.get()) {
                assert!(!matches!(ended.last, Last::Answered(_)), "{fact:?}");
            } else if matches!(&ended.last, Last::Failed(error)
                if error.may_depend_on_an_account() && !images_own(error))
            {
                let alone = sent.last().is_some_and(|sent| {
                    sent.modification.additions.len() + sent.modification.removals.len() == 1
                });
                assert!(alone, "a neighbour's account failed it: {fact:?}");
            }
        }
        for ((key, account), places) in &self.accounts {
            let facts: Vec<&Fact> = places.iter().map(|place| &self.facts[place]).collect();
            let done = |fact: &Fact| {
                let ended = fact.ended.as_ref();
                ended.is_some_and(|(_, ended)| ended.succeeded())
            };
            if facts
                .iter()
                .any(|fact| fact.abandoned || (fact.undo && !done(fact)))
            {
                continue;
            }
            let mut possible = BTreeSet::from([false]);
            for fact in facts {
                let shares = fact.operation == Operation::Share;
                match &fact.ended {
                    Some(_) if done(fact) => possible = BTreeSet::from([shares]),
                    Some((_, ended)) if ended.may_have_applied => {
                        possible.insert(shares);
                    }
                    _ => {}
                }
            }
            let listed = self
                .lists
                .get(key)
                .is_some_and(|list| list.contains(account));
            let story = || self.story(key, *account);
            if let Some(operation) = self.outside.get(&(key.clone(), *account)) {
                assert_eq!(
                    listed,
                    *operation == Operation::Share,
                    "what somebody did by other means stands: {account} of {key:?}\n{}",
                    story()
                );
                continue;
            }
            if self.once_outside.contains(&(key.clone(), *account)) {
                continue;
            }
            assert!(
                possible.contains(&listed),
                "{account} of {key:?} is listed: {listed}\n{}",
                story()
            );
        }
        assert!(
            self.machine.is_empty(),
            "nothing is left behind: {:?}",
            self.machine
        );
    }

    /// Everything that befell one account, for a person who looks into a failure.
    pub(super) fn story(&self, key: &LaneKey, account: AccountId) -> String {
        use std::fmt::Write as _;
        let mut story = String::new();
        for place in &self.accounts[&(key.clone(), account)] {
            let fact = &self.facts[place];
            let ended = fact
                .ended
                .as_ref()
                .map(|(at, ended)| (*at - self.start, ended));
            let _ = writeln!(
                story,
                "{place:?} {:?} undo {} late {} until {:?}, ended {ended:?}",
                fact.operation,
                fact.undo,
                fact.late,
                fact.deadline - self.start
            );
            for call in &fact.calls {
                let sent = &self.sent[call];
                let _ = writeln!(
                    story,
                    "  {call:?} at {:?}, applied {}, lands {}: {:?} {:?}",
                    sent.at - self.start,
                    sent.applied,
                    sent.lands,
                    sent.modification.additions.len() + sent.modification.removals.len(),
                    sent.result
                );
            }
        }
        story
    }
}

/// Whether a refusal may be the image's own: the accounts of a call share it then.
fn images_own(error: &CallError) -> bool {
    matches!(error, CallError::Refused { ret_code, .. } if ret_code.may_be_about_the_image())
}
