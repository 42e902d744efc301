//! The decisions of all lanes: a pure state machine.
//!
//! What happens is told to it ([`Machine::admit`], [`Machine::recorded`], [`Machine::answered`],
//! [`Machine::time`], …) together with the time; what is to be done comes out as [`Effect`]s. It does no work of its
//! own, waits for nothing and reads no clock, so that tests drive it through hours of failing upstream in a
//! moment, and a failing run replays.
mod holds;
mod outcomes;
mod reads;
mod turns;
mod words;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::domain::{AccountId, Operation};
use crate::upstream::{BreakerState, CallError, Connection};

use super::batch::Batch;
use super::gate::{Begun, Gate};
use super::landings::Landings;

use holds::Hold;
use reads::Read;
pub(super) use words::{CallId, Effect, HoldId, LookId, PlaceId, ReadId};
pub(in crate::sharing) use words::{Ended, LaneKey, Last, Limits, NoTurn};

/// Most changes that wait in one lane, and in all lanes. A hung upstream must not gather callers without end; both
/// are far above what a caller's time allows to be sent. A bulk request is admitted whole where there is any room.
const PLACES_PER_LANE_MAX: usize = 1000;
const PLACES_MAX: usize = 10_000;
const _: () = assert!(
    PLACES_PER_LANE_MAX < PLACES_MAX,
    "one image cannot take all places"
);

/// A change from its admission to its end.
#[derive(Debug)]
struct Place {
    key: LaneKey,
    operation: Operation,
    account_id: AccountId,
    deadline: Instant,
    at: At,
    /// Whether its caller was told that the time is up.
    late: bool,
    calls: u32,
    retries: u32,
    may_have_applied: bool,
    failure: Option<CallError>,
}

/// Where a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the queue, its intent on disk or not yet.
    Queue { recorded: bool },
    /// In a part that is sent before the queue.
    Part,
    /// In a call.
    Call,
    /// Behind its last call, while somebody looks what that did.
    Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Place(PlaceId),
    Hold(HoldId),
}

/// Changes that go before the queue: what a call has to carry again.
#[derive(Debug)]
struct Part {
    places: Vec<PlaceId>,
    /// Whether others may join from the queue. Not where an account is looked for that fails its call.
    open: bool,
    connection: Connection,
    /// Whether the call is a retry; it was taken from the budget.
    retry: bool,
}

#[derive(Debug)]
struct Lane {
    parts: VecDeque<Part>,
    queue: VecDeque<Entry>,
    /// Entries that wait: those in `queue` and `parts` that have not ended.
    waiting: usize,
    state: LaneState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    /// Nothing is under way.
    Idle,
    /// It stands in line for a call.
    InLine,
    /// A call is in flight.
    Calling,
    /// It waits until then before it tries again.
    Resting(Instant),
    /// Somebody reads, and nothing may come between.
    Held(HoldId),
}

#[derive(Debug)]
struct Call {
    key: LaneKey,
    batch: Batch,
    connection: Connection,
    open: bool,
    begun: Begun,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Place(PlaceId),
    Lane(LaneKey),
    Read(ReadId),
    Hold(HoldId),
    Landing(LaneKey),
}

/// All lanes and reads, and the gate that they share.
#[derive(Debug)]
pub(super) struct Machine {
    max_retries: u32,
    lanes: HashMap<LaneKey, Lane>,
    places: HashMap<PlaceId, Place>,
    calls: HashMap<CallId, Call>,
    reads: HashMap<ReadId, Read>,
    holds: HashMap<HoldId, Hold>,
    looks: HashMap<LookId, Vec<PlaceId>>,
    landings: Landings,
    gate: Gate,
    alarms: BTreeSet<(Instant, Alarm)>,
    /// Lanes of which changes were recorded since the time was told last.
    stirred: Vec<LaneKey>,
    effects: Vec<Effect>,
    last_id: u64,
    /// Changes that wait, in all lanes.
    waiting: usize,
    chance: SmallRng,
}

impl Machine {
    pub(super) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            max_retries: limits.max_retries,
            lanes: HashMap::new(),
            places: HashMap::new(),
            calls: HashMap::new(),
            reads: HashMap::new(),
            holds: HashMap::new(),
            looks: HashMap::new(),
            landings: Landings::default(),
            gate: Gate::new(limits.max_in_flight, limits.requests_per_second),
            alarms: BTreeSet::new(),
            stirred: Vec::new(),
            effects: Vec::new(),
            last_id: 0,
            waiting: 0,
            chance: SmallRng::seed_from_u64(seed),
        }
    }

    /// What is to be done now.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`Self::time`] wants to be called, whatever happens.
    pub(super) fn next_time(&self, now: Instant) -> Option<Instant> {
        if !self.stirred.is_empty() {
            return Some(now);
        }
        let alarm = self.alarms.first().map(|(at, _)| *at);
        let gate = self.gate.wakes_at(now);
        alarm.into_iter().chain(gate).min()
    }

    pub(super) fn breaker_state(&self, now: Instant) -> BreakerState {
        self.gate.breaker_state(now)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.gate.in_flight()
    }

    /// Changes that wait for a call.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Whether another change, or a bulk of them, may wait in a lane.
    pub(super) fn has_room(&self, key: &LaneKey) -> bool {
        let in_lane = self.lanes.get(key).map_or(0, |lane| lane.waiting);
        in_lane < PLACES_PER_LANE_MAX && self.waiting < PLACES_MAX
    }

    /// Gives changes of one image the last places of its lane, in their order. They are sent once they are
    /// [`Self::recorded`].
    pub(super) fn admit(
        &mut self,
        key: &LaneKey,
        changes: &[(Operation, AccountId)],
        deadline: Instant,
    ) -> Vec<PlaceId> {
        let places = self.place(key, changes, deadline);
        let lane = self.lane(key);
        lane.queue.extend(places.iter().copied().map(Entry::Place));
        lane.waiting += places.len();
        self.waiting += places.len();
        places
    }

    fn place(
        &mut self,
        key: &LaneKey,
        changes: &[(Operation, AccountId)],
        deadline: Instant,
    ) -> Vec<PlaceId> {
        let place = |(operation, account_id): &(Operation, AccountId)| {
            let id = PlaceId(self.next_id());
            let place = Place {
                key: key.clone(),
                operation: *operation,
                account_id: *account_id,
                deadline,
                at: At::Queue { recorded: false },
                late: false,
                calls: 0,
                retries: 0,
                may_have_applied: false,
                failure: None,
            };
            self.places.insert(id, place);
            self.alarms.insert((deadline, Alarm::Place(id)));
            id
        };
        changes.iter().map(place).collect()
    }

    fn lane(&mut self, key: &LaneKey) -> &mut Lane {
        self.lanes.entry(key.clone()).or_insert_with(|| Lane {
            parts: VecDeque::new(),
            queue: VecDeque::new(),
            waiting: 0,
            state: LaneState::Idle,
        })
    }

    /// The intents of these changes, which are of one image, are on disk: they are sent as soon as somebody tells
    /// the [`Self::time`], which is wanted at once. Intents get to disk in groups, so what is recorded in the same
    /// moment goes into the same call.
    pub(super) fn recorded(&mut self, ids: &[PlaceId]) {
        let mut lane = None;
        for id in ids {
            if let Some(place) = self.places.get_mut(id) {
                place.at = At::Queue { recorded: true };
                lane = Some(place.key.clone());
            }
        }
        if let Some(key) = lane
            && self.stirred.last() != Some(&key)
        {
            self.stirred.push(key);
        }
    }

    /// Nobody waits for this change any more. Gives how it ended, `None` where it had.
    pub(super) fn abandon(&mut self, now: Instant, id: PlaceId) -> Option<Ended> {
        let place = self.places.get(&id)?;
        let last = match (place.at, &place.failure) {
            (At::Call, _) => Last::Abandoned,
            (_, Some(failure)) => Last::Failed(failure.clone()),
            (_, None) => Last::TimeUp,
        };
        let key = place.key.clone();
        let ended = self.remove(id, last)?;
        self.advance(&key);
        self.dispatch(now);
        Some(ended)
    }

    /// What the clock alone brings about.
    pub(super) fn time(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.stirred) {
            self.advance(&key);
        }
        while let Some((at, alarm)) = self.alarms.first().cloned() {
            if at > now {
                break;
            }
            self.alarms.remove(&(at, alarm.clone()));
            match alarm {
                Alarm::Place(id) => self.time_is_up(id),
                Alarm::Lane(key) => {
                    if let Some(lane) = self.lanes.get_mut(&key)
                        && lane.state == LaneState::Resting(at)
                    {
                        lane.state = LaneState::Idle;
                        self.advance(&key);
                    }
                }
                Alarm::Read(id) => self.read_alarm(now, id),
                Alarm::Hold(id) => {
                    if let Some(hold) = self.holds.remove(&id) {
                        self.forget_hold(&hold.key);
                        self.effects.push(Effect::HoldEnded(id));
                        self.advance(&hold.key);
                    }
                }
                Alarm::Landing(key) => {
                    let (accounts, next) = self.landings.due(now, &key);
                    if let Some(next) = next {
                        self.alarms.insert((next, Alarm::Landing(key.clone())));
                    }
                    if !accounts.is_empty() {
                        self.effects.push(Effect::Undo { key, accounts });
                    }
                }
            }
        }
        self.dispatch(now);
    }

    fn time_is_up(&mut self, id: PlaceId) {
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        if place.at == At::Call {
            place.late = true;
            self.effects.push(Effect::Late(id));
            return;
        }
        let key = place.key.clone();
        let last = place.failure.clone().map_or(Last::TimeUp, Last::Failed);
        self.end(id, last);
        self.advance(&key);
    }

    /// Whether a share that landed late is still to be taken back. Not to be said yet, `None`, where a share of the
    /// account waits: that one is meant to stand, should it succeed.
    pub(super) fn must_be_undone(&self, key: &LaneKey, account_id: AccountId) -> Option<bool> {
        if !self.landings.stands(key, account_id) {
            return Some(false);
        }
        match self.last_waiting(key, account_id) {
            Some(Operation::Share) => None,
            Some(Operation::Unshare) | None => Some(true),
        }
    }

    /// What the last change of an account that waits in a queue asks for.
    fn last_waiting(&self, key: &LaneKey, account_id: AccountId) -> Option<Operation> {
        let queue = &self.lanes.get(key)?.queue;
        queue.iter().rev().find_map(|entry| match entry {
            Entry::Place(id) => {
                let place = self.places.get(id)?;
                (place.account_id == account_id).then_some(place.operation)
            }
            Entry::Hold(_) => None,
        })
    }

    /// An account was looked at after its time.
    pub(super) fn undone(&mut self, now: Instant, key: &LaneKey, account_id: AccountId) {
        if let Some(next) = self.landings.looked_at(now, key, account_id) {
            self.alarms.insert((next, Alarm::Landing(key.clone())));
        }
    }

    /// Another run of the program sent a share that may land yet.
    pub(super) fn may_land(&mut self, now: Instant, key: &LaneKey, account_id: AccountId) {
        if let Some(until) = self.landings.may_land(now, key, account_id) {
            self.alarms.insert((until, Alarm::Landing(key.clone())));
        }
    }

    /// Another run of the program unshared such an account since.
    pub(super) fn was_unshared(&mut self, key: &LaneKey, account_id: AccountId) {
        self.landings.changed(key, account_id, Operation::Unshare);
    }

    /// Shares that may land late and are remembered.
    pub(super) fn landings(&self) -> usize {
        self.landings.len()
    }

    /// The changes that a call carries.
    #[cfg(test)]
    pub(super) fn places_of(&self, id: CallId) -> Vec<PlaceId> {
        self.calls
            .get(&id)
            .map_or_else(Vec::new, |call| call.batch.places().to_vec())
    }

    /// Whether a change has left its lane and only waits for what a look shows.
    #[cfg(test)]
    pub(super) fn is_looked_at(&self, id: PlaceId) -> bool {
        self.places
            .get(&id)
            .is_some_and(|place| place.at == At::Look)
    }

    /// Whether nothing is left of what was done; for tests that look for what stays behind.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
            && self.places.is_empty()
            && self.calls.is_empty()
            && self.reads.is_empty()
            && self.holds.is_empty()
            && self.looks.is_empty()
            && self.alarms.is_empty()
            && self.stirred.is_empty()
            && self.landings.len() == 0
            && self.waiting == 0
            && self.gate.in_flight() == 0
    }
}
