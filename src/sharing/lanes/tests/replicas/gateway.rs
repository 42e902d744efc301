//! One gateway of the small world: its machine, and what keeper, writer and watcher do around it.

use std::collections::{BTreeSet, HashMap};

use super::database::EventRow;
use super::{ChainId, EventNumber, Outcome, Time};
use crate::domain::{AccountId, Operation};
use crate::sharing::lanes::Suspect;
use crate::sharing::lanes::machine::{LaneKey, Limits, Machine, PlaceId, WaitId};

/// A change that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) key: LaneKey,
    pub(super) account: AccountId,
    pub(super) operation: Operation,
    pub(super) party: u32,
    pub(super) deadline: Time,
}

/// What somebody at the door wants.
#[derive(Debug, Clone)]
pub(super) enum Visitor {
    Enters(Asked),
    PutsRight(LaneKey, Vec<Suspect>),
}

/// A group on its way to the database.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) number: u64,
    pub(super) intents: Vec<(EventNumber, EventRow)>,
    pub(super) places: Vec<PlaceId>,
    pub(super) outcomes: Vec<(EventNumber, Outcome, bool)>,
}

pub(super) struct Gateway {
    pub(super) machine: Machine,
    /// Killed and started so often.
    pub(super) generation: u64,
    /// The chain that it knows to be its own, and the one under which images are locked.
    pub(super) chain: Option<ChainId>,
    pub(super) locked_by: Option<ChainId>,
    pub(super) former: Option<ChainId>,
    pub(super) lease_until: Time,
    /// When its session was opened.
    pub(super) since: Time,
    /// How far its clock is off.
    pub(super) skew: i64,
    pub(super) last_event: EventNumber,
    pub(super) stands_still_until: Time,
    pub(super) cut_off_until: Time,
    pub(super) opening: bool,
    pub(super) wanted: BTreeSet<LaneKey>,
    pub(super) held: BTreeSet<LaneKey>,
    /// The number of the last grant that it knows of each.
    pub(super) numbers: HashMap<LaneKey, u64>,
    /// And of the last that it let go.
    pub(super) left: HashMap<LaneKey, u64>,
    pub(super) leaving: Vec<(LaneKey, (bool, u64))>,
    pub(super) locking: bool,
    pub(super) intents: Vec<(Asked, PlaceId)>,
    pub(super) outcomes: Vec<(EventNumber, Outcome, bool)>,
    /// The group that is being committed.
    pub(super) group: Option<Group>,
    pub(super) events: HashMap<PlaceId, EventNumber>,
    /// Changes that ended before their intents were on disk.
    pub(super) early: HashMap<PlaceId, (Outcome, bool)>,
    pub(super) visitors: HashMap<WaitId, Visitor>,
    /// Events of others that it closes.
    pub(super) closing: BTreeSet<EventNumber>,
    /// When the machine is woken next.
    pub(super) wakes: Option<Time>,
}

impl Gateway {
    pub(super) fn new(generation: u64, seed: u64, skew: i64) -> Self {
        let limits = Limits {
            max_in_flight: 64,
            max_retries: 3,
            requests_per_second: None,
            shared: true,
        };
        Self {
            machine: Machine::new(limits, seed),
            generation,
            chain: None,
            locked_by: None,
            former: None,
            lease_until: 0,
            since: 0,
            skew,
            last_event: 0,
            stands_still_until: 0,
            cut_off_until: 0,
            opening: false,
            wanted: BTreeSet::new(),
            held: BTreeSet::new(),
            numbers: HashMap::new(),
            left: HashMap::new(),
            leaving: Vec::new(),
            locking: false,
            intents: Vec::new(),
            outcomes: Vec::new(),
            group: None,
            events: HashMap::new(),
            early: HashMap::new(),
            visitors: HashMap::new(),
            closing: BTreeSet::new(),
            wakes: None,
        }
    }

    /// Whether it may send a call now, under the locks that it has.
    pub(super) fn may_send(&self, now: Time) -> bool {
        self.chain.is_some() && self.chain == self.locked_by && now < self.lease_until
    }

    pub(super) fn note_number(&mut self, key: LaneKey, number: u64) {
        let last = self.numbers.entry(key).or_insert(number);
        *last = (*last).max(number);
    }

    /// An id that is greater than all before, and than those that it was told of.
    pub(super) fn next_event(&mut self, now: Time) -> EventNumber {
        let clock = now.saturating_add_signed(self.skew) << 30;
        // The last bits are the chain's, as those of ids of version 7 are nobody else's.
        let next = clock.max(((self.last_event >> 12) + 1) << 12);
        self.last_event = next | (self.chain.unwrap_or_default() & 0xfff);
        self.last_event
    }

    /// Whether nothing of it is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.intents.is_empty()
            && self.outcomes.is_empty()
            && self.group.is_none()
            && self.visitors.is_empty()
            && self.machine.waiting() == 0
            && self.machine.in_flight() == 0
            && self.machine.landings() == 0
    }

    /// What of it is, for whoever wonders.
    pub(super) fn under_way(&self) -> String {
        format!(
            "chain {:?} locked by {:?} lease until {}, wanted {:?}, leaving {:?}, locking {}, opening {}, intents {}, outcomes {}, \
             group {}, visitors {:?}, waiting {}, in flight {}, landings {}",
            self.chain,
            self.locked_by,
            self.lease_until,
            self.wanted,
            self.leaving,
            self.locking,
            self.opening,
            self.intents.len(),
            self.outcomes.len(),
            self.group.is_some(),
            self.visitors,
            self.machine.waiting(),
            self.machine.in_flight(),
            self.machine.landings()
        )
    }
}
