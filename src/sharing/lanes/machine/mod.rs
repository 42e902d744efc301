//! The decisions of all lanes: a pure state machine.
//!
//! What happens is told to it ([`Machine::admit`], [`Machine::recorded`], [`Machine::answered`],
//! [`Machine::time`], …) together with the time; what is to be done comes out as [`Effect`]s. It does no work of its
//! own, waits for nothing and reads no clock, so that tests drive it through hours of failing upstream in a
//! moment, and a failing run replays.
mod aftermath;
mod capacity;
mod door;
mod halves;
mod lane;
mod locks;
mod outcomes;
mod reads;
mod turns;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::domain::{AccountId, Operation, Party};
use crate::upstream::{BreakerState, CallError, Connection, Verdict};

use super::batch::Batch;
use super::gate::{Begun, Gate};
use super::landings::Landings;
use super::queue::Candidate;

use capacity::Capacity;
pub(in crate::sharing) use capacity::Kind;
use door::Wait;
use halves::Half;
use lane::{Lane, LaneState};
use locks::Locks;
use reads::Read;
pub(in crate::sharing) use reads::{READS_OF_PARTY_MAX, ReadTerms};
pub(in crate::sharing) use words::{Aftermath, Ended, LaneKey, Last, Limits, NoTurn};
pub(super) use words::{CallId, Effect, LookId, PlaceId, ReadId, WaitId};

/// What a change's place is given for.
#[derive(Debug, Clone)]
pub(in crate::sharing) struct Terms {
    /// On whose behalf.
    pub(in crate::sharing) party: Party,
    /// Alone, or with others.
    pub(in crate::sharing) kind: Kind,
    /// Until when its caller waits.
    pub(in crate::sharing) deadline: Instant,
}

/// A change from its admission to its end.
#[derive(Debug)]
struct PlacedChange {
    key: LaneKey,
    asked: Terms,
    operation: Operation,
    account_id: AccountId,
    /// Whether it is one of a whole-list replacement's.
    in_block: bool,
    at: At,
    /// Whether its caller was told that the time is up.
    late: bool,
    calls: u32,
    retries: u32,
    doubt: Doubt,
    failure: Option<CallError>,
}

/// What is not known of the calls that carried a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// Nothing: none of them took effect, as far as it was told.
    None,
    /// One may have taken effect. It was made up for at once, and none will later.
    MayHaveApplied,
    /// One may have taken effect, or may yet.
    MayLand,
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

#[derive(Debug)]
struct CallInFlight {
    key: LaneKey,
    batch: Batch,
    connection: Connection,
    open: bool,
    half: Half,
    begun: Begun,
    /// The lock under which it was sent is lost.
    cut_off: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Place(PlaceId),
    Lane(LaneKey),
    Read(ReadId),
    Wait(WaitId),
    Landing(LaneKey),
    Lock(LaneKey),
}

/// All lanes and reads, and the gate that they share.
#[derive(Debug)]
pub(super) struct Machine {
    max_retries: u32,
    lanes: HashMap<LaneKey, Lane>,
    places: HashMap<PlaceId, PlacedChange>,
    calls: HashMap<CallId, CallInFlight>,
    reads: HashMap<ReadId, Read>,
    /// Callers' reads that wait or are in a call.
    reads_of: HashMap<Party, usize>,
    waits: HashMap<WaitId, Wait>,
    looks: HashMap<LookId, Vec<PlaceId>>,
    landings: Landings,
    locks: Locks,
    gate: Gate,
    capacity: Capacity,
    alarms: BTreeSet<(Instant, Alarm)>,
    /// Lanes of which changes were recorded since the time was told last.
    stirred: Vec<LaneKey>,
    effects: Vec<Effect>,
    /// The time that was told last, for what ends by it.
    told: Option<Instant>,
    last_id: u64,
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
            reads_of: HashMap::new(),
            waits: HashMap::new(),
            looks: HashMap::new(),
            landings: Landings::default(),
            locks: Locks::new(limits.shared),
            gate: Gate::new(limits.max_in_flight, limits.requests_per_second),
            capacity: Capacity::default(),
            alarms: BTreeSet::new(),
            stirred: Vec::new(),
            effects: Vec::new(),
            told: None,
            last_id: 0,
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

    /// The changes that a call in flight carries.
    pub(super) fn carried(&self, id: CallId) -> impl Iterator<Item = PlaceId> {
        let call = self.calls.get(&id);
        call.into_iter()
            .flat_map(|call| call.batch.places())
            .copied()
    }

    /// How often what a call in flight carries was called before.
    pub(super) fn resends(&self, id: CallId) -> u32 {
        let calls = self
            .carried(id)
            .filter_map(|id| Some(self.places.get(&id)?.calls));
        calls.max().unwrap_or(0).saturating_sub(1)
    }

    /// The changes for which somebody looks.
    pub(super) fn looked_for(&self, id: LookId) -> impl Iterator<Item = PlaceId> {
        self.looks.get(&id).into_iter().flatten().copied()
    }

    /// Retries since the start.
    pub(super) fn retries(&self) -> u64 {
        self.gate.retries()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.gate.in_flight()
    }

    /// Changes that wait for a call, or for their place.
    pub(super) fn waiting(&self) -> usize {
        self.capacity.waiting()
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Whether a party's change, or a bulk of them, may wait in a lane.
    pub(super) fn has_room(&self, key: &LaneKey, party: &Party, kind: Kind) -> bool {
        self.capacity.has_room(key, party, kind)
    }

    /// Gives changes of one image the last places of its lane, in their order. They are sent once they are
    /// [`Self::recorded`]. Only where the lane's door is open: see [`Self::is_open`].
    pub(super) fn admit(
        &mut self,
        key: &LaneKey,
        changes: &[(Operation, AccountId)],
        asked: &Terms,
    ) -> Vec<PlaceId> {
        self.place(key, changes, asked, false)
    }

    fn place(
        &mut self,
        key: &LaneKey,
        changes: &[(Operation, AccountId)],
        asked: &Terms,
        in_block: bool,
    ) -> Vec<PlaceId> {
        if changes.is_empty() {
            // A lane exists while it has work.
            return Vec::new();
        }
        let lane = self.lanes.entry(key.clone()).or_default();
        let mut ids = Vec::with_capacity(changes.len());
        for (operation, account_id) in changes {
            self.last_id += 1;
            let id = PlaceId(self.last_id);
            let place = PlacedChange {
                key: key.clone(),
                asked: asked.clone(),
                operation: *operation,
                account_id: *account_id,
                in_block,
                at: At::Queue { recorded: false },
                late: false,
                calls: 0,
                retries: 0,
                doubt: Doubt::None,
                failure: None,
            };
            lane.take_in(id, &place);
            self.places.insert(id, place);
            self.alarms.insert((asked.deadline, Alarm::Place(id)));
            ids.push(id);
        }
        self.capacity.take(key, &asked.party, asked.kind, ids.len());
        ids
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
        self.told = Some(now);
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
        self.told = Some(now);
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
                Alarm::Wait(id) => self.wait_alarm(id),
                Alarm::Landing(key) => self.landing_alarm(now, key),
                Alarm::Lock(key) => self.lock_alarm(now, &key),
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

    fn end(&mut self, id: PlaceId, last: Last) {
        if let Some(ended) = self.remove(id, last) {
            self.effects.push(Effect::Ended(id, ended));
        }
    }

    /// Takes a change out, wherever it is.
    fn remove(&mut self, id: PlaceId, last: Last) -> Option<Ended> {
        let done = matches!(&last, Last::Answered(modified) if modified.verdict == Verdict::Done);
        if let Some(now) = self.told.filter(|_| !done) {
            self.note_open(now, id);
        }
        let place = self.places.remove(&id)?;
        let alarm = (place.asked.deadline, Alarm::Place(id));
        self.alarms.remove(&alarm);
        if matches!(place.at, At::Queue { .. } | At::Part) {
            self.leaves_room(&place.key, &place.asked);
        }
        if place.at != At::Look {
            self.leaves_lane(id, &place);
        }
        if let Some(now) = self.told.filter(|_| place.doubt == Doubt::MayLand) {
            self.landings.ended(now, &place.key, place.account_id);
        }
        Some(Ended {
            may_have_applied: place.doubt > Doubt::None
                || matches!(last, Last::Abandoned | Last::Lost),
            may_land: place.doubt == Doubt::MayLand,
            last,
            calls: place.calls,
            seen: None,
        })
    }

    fn leaves_room(&mut self, key: &LaneKey, asked: &Terms) {
        self.capacity.give_back(key, &asked.party, asked.kind, 1);
    }

    /// A change that is not called any more: whoever waits for those before may go on.
    fn leaves_lane(&mut self, id: PlaceId, place: &PlacedChange) {
        if let Some(lane) = self.lanes.get_mut(&place.key) {
            lane.let_out(id, place);
            self.pass_fences(&place.key);
        }
    }

    /// The last id that was given, and how another run goes on behind it.
    #[cfg(test)]
    pub(super) fn last_id(&self) -> u64 {
        self.last_id
    }

    #[cfg(test)]
    pub(super) fn continue_after(&mut self, last_id: u64) {
        self.last_id = last_id;
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
            && self.reads_of.is_empty()
            && self.waits.is_empty()
            && self.looks.is_empty()
            && self.alarms.is_empty()
            && self.stirred.is_empty()
            && self.landings.len() == 0
            && self.has_no_locks()
            && self.capacity.waiting() == 0
            && self.gate.in_flight() == 0
    }
}

/// A change as its lane's queue looks at it; `None` where it is not there, or its time is up: it ends as soon as the
/// clock says so.
fn candidate(
    places: &HashMap<PlaceId, PlacedChange>,
    now: Instant,
    id: PlaceId,
) -> Option<Candidate> {
    let place = places.get(&id)?;
    match place.at {
        At::Queue { recorded } if place.asked.deadline > now => Some(Candidate {
            operation: place.operation,
            account_id: place.account_id,
            recorded,
            in_bulk: place.asked.kind == Kind::Bulk,
        }),
        At::Queue { .. } | At::Part | At::Call | At::Look => None,
    }
}
