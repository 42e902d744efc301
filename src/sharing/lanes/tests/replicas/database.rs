//! The database of the small world: what `audit_chains`, `audit_pending`, `lane_locks` and the rows of events come to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{ChainId, EventNumber, LEASE, Outcome, Time};
use crate::domain::{AccountId, Operation};
use crate::sharing::lanes::machine::LaneKey;

/// How long nothing is heard of a gateway whose session is gone before it is held for gone.
const GONE: Time = 3_000;

#[derive(Debug)]
pub(super) struct Chain {
    pub(super) gateway: usize,
    pub(super) heartbeat: Time,
    pub(super) ended: bool,
    pub(super) session: bool,
    pub(super) last_event: EventNumber,
    /// Groups that got here, so that one whose answer was lost is known.
    pub(super) groups: BTreeSet<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct EventRow {
    pub(super) key: LaneKey,
    pub(super) account: AccountId,
    pub(super) operation: Operation,
    /// Whose it is to close, and whether it took it over from another.
    pub(super) chain: ChainId,
    pub(super) adopted: bool,
    pub(super) outcome: Option<Outcome>,
    pub(super) ended: Option<Time>,
    /// Whether a call of it may take effect late although it succeeded.
    pub(super) may_land: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lock {
    pub(super) holder: Option<ChainId>,
    pub(super) number: u64,
    pub(super) waiting: Vec<ChainId>,
    pub(super) last_event: EventNumber,
    pub(super) not_before: Time,
    pub(super) unsure: bool,
}

/// Somebody else is gone, or has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TakenOver;

/// What a lock that was got says.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) key: LaneKey,
    pub(super) last_event: EventNumber,
    pub(super) not_before: Time,
    pub(super) unsure: bool,
    pub(super) wanted: bool,
    pub(super) number: u64,
}

/// A word to a chain.
#[derive(Debug, Clone)]
pub(super) enum Word {
    Granted(Granted),
    Wanted(LaneKey),
}

#[derive(Debug, Default)]
pub(super) struct Database {
    pub(super) chains: BTreeMap<ChainId, Chain>,
    pub(super) events: BTreeMap<EventNumber, EventRow>,
    pub(super) locks: BTreeMap<LaneKey, Lock>,
    /// The last event of an account that somebody looked after.
    pub(super) noted: HashMap<(LaneKey, AccountId), EventNumber>,
    /// Words on their way.
    pub(super) words: Vec<(ChainId, Word)>,
    /// Outcomes that another gateway had written before.
    pub(super) refused: usize,
}

impl Database {
    /// Takes `chain` up again where nobody has ended it, or begins another.
    pub(super) fn open(&mut self, now: Time, gateway: usize, chain: Option<ChainId>) -> ChainId {
        if let Some(id) = chain
            && let Some(chain) = self.chains.get_mut(&id)
            && !chain.ended
        {
            (chain.heartbeat, chain.session) = (now, true);
            return id;
        }
        let id = self.chains.len() as ChainId + 1;
        let chain = Chain {
            gateway,
            heartbeat: now,
            ended: false,
            session: true,
            last_event: 0,
            groups: BTreeSet::new(),
        };
        self.chains.insert(id, chain);
        id
    }

    /// The greatest id of all.
    pub(super) fn last_event(&self) -> EventNumber {
        let last = self.chains.values().map(|chain| chain.last_event);
        last.max().unwrap_or(0)
    }

    fn live(&mut self, id: ChainId) -> Result<&mut Chain, TakenOver> {
        let chain = self.chains.get_mut(&id);
        chain.filter(|chain| !chain.ended).ok_or(TakenOver)
    }

    pub(super) fn beat(&mut self, now: Time, id: ChainId) -> Result<(), TakenOver> {
        self.live(id)?.heartbeat = now;
        Ok(())
    }

    /// Appends a group, once however often it comes.
    pub(super) fn commit(
        &mut self,
        now: Time,
        id: ChainId,
        group: u64,
        intents: &[(EventNumber, EventRow)],
        outcomes: &[(EventNumber, Outcome, bool)],
    ) -> Result<(), TakenOver> {
        self.live(id)?;
        let Self { chains, events, .. } = self;
        let chain = chains.get_mut(&id).expect("it lives");
        chain.heartbeat = now;
        if !chain.groups.insert(group) {
            return Ok(());
        }
        for (event, row) in intents {
            assert!(*event > chain.last_event, "ids of a chain ascend");
            chain.last_event = *event;
            let before = events.insert(*event, row.clone());
            assert!(before.is_none(), "an id was given twice");
        }
        for (event, outcome, may_land) in outcomes {
            let row = events.get_mut(event).expect("an intent comes first");
            if row.outcome.is_some() {
                self.refused += 1;
            } else {
                (row.outcome, row.ended, row.may_land) = (Some(*outcome), Some(now), *may_land);
            }
        }
        Ok(())
    }

    pub(super) fn take(
        &mut self,
        id: ChainId,
        keys: &[LaneKey],
    ) -> (Vec<Granted>, Vec<(LaneKey, u64)>) {
        let (mut granted, mut others) = (Vec::new(), Vec::new());
        if self.live(id).is_err() {
            return (granted, others);
        }
        for key in keys {
            let lock = self.locks.entry(key.clone()).or_default();
            match lock.holder {
                None => {
                    (lock.holder, lock.waiting) = (Some(id), Vec::new());
                    lock.number += 1;
                }
                Some(holder) if holder != id => {
                    if !lock.waiting.contains(&id) {
                        lock.waiting.push(id);
                    }
                    others.push((key.clone(), lock.number));
                    self.words.push((holder, Word::Wanted(key.clone())));
                    continue;
                }
                Some(_) => {}
            }
            granted.push(lock.granted(key));
        }
        (granted, others)
    }

    pub(super) fn let_go(
        &mut self,
        id: ChainId,
        key: &LaneKey,
        last: EventNumber,
        (unsure, number): (bool, u64),
    ) {
        let chains = &self.chains;
        let Some(lock) = self.locks.get_mut(key) else {
            return;
        };
        if lock.holder != Some(id) || lock.number != number {
            return;
        }
        lock.last_event = lock.last_event.max(last);
        lock.unsure = unsure;
        hand_over(chains, lock);
        if let Some(next) = lock.holder {
            self.words.push((next, Word::Granted(lock.granted(key))));
        }
    }

    /// Ends chains that are gone.
    pub(super) fn end_gone(&mut self, now: Time, me: ChainId) {
        for (id, chain) in &mut self.chains {
            let silent = now.saturating_sub(chain.heartbeat);
            if *id != me && !chain.ended && silent > GONE && (!chain.session || silent > LEASE) {
                chain.ended = true;
            }
        }
    }

    /// Gives the locks of ended chains to who waits for them.
    pub(super) fn free_locks(&mut self, call: Time) {
        let chains = &self.chains;
        for (key, lock) in &mut self.locks {
            let Some(chain) = lock.holder.and_then(|holder| chains.get(&holder)) else {
                continue;
            };
            if chain.ended {
                lock.last_event = lock.last_event.max(chain.last_event);
                lock.not_before = lock.not_before.max(chain.heartbeat + LEASE + call);
                lock.unsure = true;
                hand_over(chains, lock);
                if let Some(next) = lock.holder {
                    self.words.push((next, Word::Granted(lock.granted(key))));
                }
            }
        }
    }

    /// Whether a gateway that lives is about to write the outcome of a change of an image.
    pub(super) fn is_being_settled(&self, key: &LaneKey) -> bool {
        self.events.values().any(|row| {
            row.key == *key
                && row.outcome.is_none()
                && !row.adopted
                && !self.chains[&row.chain].ended
        })
    }

    pub(super) fn forsaken(&self) -> Vec<LaneKey> {
        let forsaken = |(key, lock): (&LaneKey, &Lock)| {
            (lock.holder.is_none() && lock.unsure).then(|| key.clone())
        };
        self.locks.iter().filter_map(forsaken).collect()
    }

    /// Takes over what ended chains left pending; gives all that was taken over and is pending still.
    pub(super) fn adopt(&mut self, me: ChainId) -> Vec<EventNumber> {
        if self.live(me).is_err() {
            return Vec::new();
        }
        let chains = &self.chains;
        let mut adopted = Vec::new();
        for (event, row) in &mut self.events {
            if row.outcome.is_none() && chains[&row.chain].ended {
                (row.chain, row.adopted) = (me, true);
            }
            // An answer before may have been lost.
            if row.outcome.is_none() && row.chain == me && row.adopted {
                adopted.push(*event);
            }
        }
        adopted
    }
}

impl Lock {
    fn granted(&self, key: &LaneKey) -> Granted {
        Granted {
            key: key.clone(),
            last_event: self.last_event,
            not_before: self.not_before,
            unsure: self.unsure,
            wanted: !self.waiting.is_empty(),
            number: self.number,
        }
    }
}

fn hand_over(chains: &BTreeMap<ChainId, Chain>, lock: &mut Lock) {
    lock.number += 1;
    let next = lock.waiting.iter().position(|id| !chains[id].ended);
    lock.holder = next.map(|place| lock.waiting[place]);
    lock.waiting = next.map_or_else(Vec::new, |place| lock.waiting.split_off(place + 1));
}
