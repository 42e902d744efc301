//! The decisions of all lanes: a pure state machine.
//!
//! What happens is told to it ([`Machine::admit`], [`Machine::recorded`], [`Machine::answered`],
//! [`Machine::time`], …) together with the time; what is to be done comes out as [`Effect`]s. It does no work of its
//! own, waits for nothing and reads no clock, so that tests drive it through hours of failing upstream in a
//! moment, and a failing run replays.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::domain::{AccountId, ImageId, Operation, Region};
use crate::upstream::{
    BreakerState, CallError, Connection, Fate, Modification, Modified, Retry, Verdict, backoff,
};

use super::batch::{Batch, Candidate};
use super::gate::{Begun, Gate, Kind, Turn};
use super::landings::Landings;

/// Names a lane: the queue of one image.
pub(in crate::sharing) type LaneKey = (Region, ImageId);

/// Most changes that wait in one lane, and in all lanes. A hung upstream must not gather callers without end; both
/// are far above what a caller's time allows to be sent. A bulk request is admitted whole where there is any room.
const PLACES_PER_LANE_MAX: usize = 1000;
const PLACES_MAX: usize = 10_000;
const _: () = assert!(
    PLACES_PER_LANE_MAX < PLACES_MAX,
    "one image cannot take all places"
);
/// Most reads that wait for a call or are in one.
const READS_MAX: usize = 256;
/// How long is looked, at most, what a change that ended unknown did.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// A change in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct PlaceId(pub(super) u64);

/// A call that carries changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct CallId(u64);

/// A read, which is a call of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct ReadId(u64);

/// A lane that is held, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct HoldId(u64);

/// A look at what changes that ended unknown did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct LookId(u64);

/// What the machine wants done.
#[derive(Debug)]
pub(super) enum Effect {
    /// Call, and say by [`Machine::answered`] what came of it.
    Call {
        id: CallId,
        modification: Modification,
        connection: Connection,
    },
    /// A change has ended.
    Ended(PlaceId, Ended),
    /// A change's time is up while a call carries it; it ends later.
    Late(PlaceId),
    /// A read may call; say by [`Machine::read_answered`] what came of it.
    Read(ReadId, Connection),
    /// A read may not call any more.
    ReadEnded(ReadId, NoTurn),
    /// The lane is held by its holder, until [`Machine::release`] or [`Machine::replace`].
    Held(HoldId),
    /// The time is up before the lane could be held.
    HoldEnded(HoldId),
    /// Look who has access, until then, and say it by [`Machine::looked`].
    Look {
        id: LookId,
        key: LaneKey,
        until: Instant,
    },
    /// Shares of these accounts must not stand; see whether they do, and take them back.
    Undo {
        key: LaneKey,
        accounts: Vec<AccountId>,
    },
}

/// Why a read gets no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sharing) enum NoTurn {
    /// Its time is up.
    TimeUp,
    /// The circuit breaker is open, for so long.
    BreakerOpen(Duration),
}

/// How a change's way through its lane ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sharing) struct Ended {
    /// What the last thing was that happened to it.
    pub(in crate::sharing) last: Last,
    /// Calls that carried it.
    pub(in crate::sharing) calls: u32,
    /// Whether one of them may have taken effect although no answer says so.
    pub(in crate::sharing) may_have_applied: bool,
    /// Whether the list showed afterwards what was asked, where it was looked at.
    pub(in crate::sharing) seen: Option<bool>,
}

/// The last thing that happened to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sharing) enum Last {
    /// A call was answered.
    Answered(Modified),
    /// A call failed.
    Failed(CallError),
    /// Its time was up while it waited: it was never sent, or the upstream did nothing of the calls that carried it
    /// because of others.
    TimeUp,
    /// No call carried it, since the circuit breaker is open for so long.
    BreakerOpen(Duration),
    /// A call carries it still, and the program ends.
    Abandoned,
    /// A call may have carried it; the task that knows is gone.
    Lost,
}

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

#[derive(Debug)]
struct Read {
    deadline: Instant,
    at: ReadAt,
    connection: Connection,
    max_retries: u32,
    retries: u32,
    retry: bool,
}

#[derive(Debug, Clone, Copy)]
enum ReadAt {
    InLine,
    Calling(Begun),
    Resting(Instant),
}

#[derive(Debug)]
struct Hold {
    key: LaneKey,
    deadline: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Place(PlaceId),
    Lane(LaneKey),
    Read(ReadId),
    Hold(HoldId),
    Landing(LaneKey),
}

/// What bounds the machine.
#[derive(Debug, Clone, Copy)]
pub(in crate::sharing) struct Limits {
    /// Calls at once.
    pub(in crate::sharing) max_in_flight: usize,
    /// How often a call that failed is made again.
    pub(in crate::sharing) max_retries: u32,
    /// Calls a second.
    pub(in crate::sharing) requests_per_second: Option<f64>,
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

    /// The intents of these changes, which are of one image, are on disk: they may be sent.
    pub(super) fn recorded(&mut self, now: Instant, ids: &[PlaceId]) {
        let mut lane = None;
        for id in ids {
            if let Some(place) = self.places.get_mut(id) {
                place.at = At::Queue { recorded: true };
                lane = Some(place.key.clone());
            }
        }
        if let Some(key) = lane {
            self.advance(&key);
            self.dispatch(now);
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

    /// A call was answered, or failed.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        id: CallId,
        result: Result<Modified, CallError>,
    ) {
        let Some(mut call) = self.calls.remove(&id) else {
            return;
        };
        let opened = self.gate.ended(now, call.begun, result.as_ref().err());
        self.lane(&call.key).state = LaneState::Idle;
        // Those that were given up meanwhile are gone.
        call.batch.keep(|place| self.places.contains_key(place));
        match result {
            Ok(modified) => self.succeeded(&call, &modified),
            Err(error) => self.failed(now, &call, &error),
        }
        if opened {
            self.refuse_all(now);
        }
        self.advance(&call.key);
        self.dispatch(now);
    }

    /// The task that made a call is gone, and with it what came of the call.
    pub(super) fn lost(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        self.gate.abandoned(now, call.begun);
        self.lane(&call.key).state = LaneState::Idle;
        for place in call.batch.places() {
            self.note_may_have_applied(now, *place);
            self.end(*place, Last::Lost);
        }
        self.advance(&call.key);
        self.dispatch(now);
    }

    fn succeeded(&mut self, call: &Call, modified: &Modified) {
        let invalid: &[AccountId] = match &modified.verdict {
            Verdict::Done => &[],
            Verdict::InvalidAccounts(accounts) => accounts,
        };
        let (ended, rest): (Vec<PlaceId>, Vec<PlaceId>) =
            call.batch
                .places()
                .iter()
                .partition(|id| match &modified.verdict {
                    Verdict::Done => true,
                    Verdict::InvalidAccounts(_) => {
                        let account = self.places.get(id).map(|place| place.account_id);
                        account.is_some_and(|account| invalid.contains(&account))
                    }
                });
        for id in ended {
            if let Some(place) = self.places.get(&id)
                && modified.verdict == Verdict::Done
            {
                self.landings
                    .changed(&place.key, place.account_id, place.operation);
            }
            self.end(id, Last::Answered(modified.clone()));
        }
        // The upstream did nothing of the call: the rest goes again at once, alone, so that others with bad
        // accounts cannot hold it up.
        self.send_first(&call.key, rest, false, Connection::Pooled, false);
    }

    fn failed(&mut self, now: Instant, call: &Call, error: &CallError) {
        if error.fate() == Fate::MayHaveApplied {
            for id in call.batch.places() {
                self.note_may_have_applied(now, *id);
            }
        }
        // The refusal is one account's, and not yet known to be any particular one's.
        if call.batch.accounts() > 1 && error.may_depend_on_an_account() {
            let first_half = call.batch.first_half();
            let (first, second): (Vec<PlaceId>, Vec<PlaceId>) =
                call.batch.places().iter().partition(|id| {
                    let account = self.places.get(id).map(|place| place.account_id);
                    account.is_some_and(|account| first_half.contains(&account))
                });
            self.send_first(&call.key, second, false, Connection::Pooled, false);
            self.send_first(&call.key, first, false, Connection::Pooled, false);
            return;
        }
        for id in call.batch.places() {
            if let Some(place) = self.places.get_mut(id) {
                place.failure = Some(error.clone());
            }
        }
        match error.retry() {
            Retry::AtOnce if call.connection == Connection::Pooled => {
                let places = call.batch.places().to_vec();
                self.send_first(&call.key, places, call.open, Connection::Fresh, false);
            }
            Retry::AtOnce => self.retry_later(now, call, Duration::ZERO, u32::MAX),
            Retry::After { at_least, times } => self.retry_later(now, call, at_least, times),
            Retry::Never => self.end_failed(now, call.batch.places()),
        }
    }

    /// Lets those whose time and retries allow it wait for another call, and ends the others.
    fn retry_later(&mut self, now: Instant, call: &Call, at_least: Duration, times: u32) {
        let retries = call
            .batch
            .places()
            .iter()
            .filter_map(|id| self.places.get(id));
        let retries = retries.map(|place| place.retries).max().unwrap_or(0);
        let wait = backoff(retries, at_least, self.chance.random());
        let times = times.min(self.max_retries);
        let goes_on = |place: &Place| {
            !place.late
                && place.retries < times
                && place.deadline.saturating_duration_since(now) > wait
        };
        let (mut again, mut ended): (Vec<PlaceId>, Vec<PlaceId>) = call
            .batch
            .places()
            .iter()
            .partition(|id| self.places.get(id).is_some_and(goes_on));
        let refused = self.gate.refusal(now).is_some();
        if !again.is_empty() && (refused || !self.gate.grants_retry()) {
            ended.append(&mut again);
            ended.sort_unstable();
        }
        if !again.is_empty() {
            for id in &again {
                if let Some(place) = self.places.get_mut(id) {
                    place.retries += 1;
                }
            }
            self.send_first(&call.key, again, call.open, Connection::Pooled, true);
            let until = now + wait;
            self.lane(&call.key).state = LaneState::Resting(until);
            self.alarms.insert((until, Alarm::Lane(call.key.clone())));
        }
        self.end_failed(now, &ended);
    }

    fn send_first(
        &mut self,
        key: &LaneKey,
        places: Vec<PlaceId>,
        open: bool,
        connection: Connection,
        retry: bool,
    ) {
        if places.is_empty() {
            return;
        }
        for id in &places {
            if let Some(place) = self.places.get_mut(id) {
                place.at = At::Part;
            }
        }
        self.waiting += places.len();
        let lane = self.lane(key);
        lane.waiting += places.len();
        lane.parts.push_front(Part {
            places,
            open,
            connection,
            retry,
        });
    }

    fn note_may_have_applied(&mut self, now: Instant, id: PlaceId) {
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        place.may_have_applied = true;
        match place.operation {
            Operation::Share => {
                if let Some(until) = self.landings.may_land(now, &place.key, place.account_id) {
                    self.alarms
                        .insert((until, Alarm::Landing(place.key.clone())));
                }
            }
            Operation::Unshare => {
                self.landings
                    .changed(&place.key, place.account_id, place.operation);
            }
        }
    }

    /// Ends changes whose last call failed. Somebody looks first what became of those that may have taken
    /// effect, where their callers' time allows it.
    fn end_failed(&mut self, now: Instant, ids: &[PlaceId]) {
        let looks = self.gate.refusal(now).is_none();
        let (looked_at, ended): (Vec<PlaceId>, Vec<PlaceId>) = ids.iter().partition(|id| {
            let place = self.places.get(id);
            place.is_some_and(|place| {
                looks && place.may_have_applied && !place.late && place.deadline > now
            })
        });
        for id in ended {
            let failure = self.places.get(&id).and_then(|place| place.failure.clone());
            self.end(id, failure.map_or(Last::TimeUp, Last::Failed));
        }
        let Some(first) = looked_at.first().and_then(|id| self.places.get(id)) else {
            return;
        };
        let key = first.key.clone();
        let mut until = now;
        for id in &looked_at {
            if let Some(place) = self.places.get_mut(id) {
                place.at = At::Look;
                until = until.max(place.deadline);
            }
        }
        let id = LookId(self.next_id());
        self.looks.insert(id, looked_at);
        let until = until.min(now + LOOK_TIME);
        self.effects.push(Effect::Look { id, key, until });
    }

    /// Somebody looked who has access; `None` where the upstream did not say it.
    pub(super) fn looked(&mut self, id: LookId, listed: Option<&[AccountId]>) {
        for place_id in self.looks.remove(&id).unwrap_or_default() {
            let Some(place) = self.places.get(&place_id) else {
                continue;
            };
            let seen = listed.map(|listed| {
                listed.contains(&place.account_id) == (place.operation == Operation::Share)
            });
            let failure = place.failure.clone();
            if let Some(ended) = self.remove(place_id, failure.map_or(Last::TimeUp, Last::Failed)) {
                self.effects
                    .push(Effect::Ended(place_id, Ended { seen, ..ended }));
            }
        }
    }

    fn end(&mut self, id: PlaceId, last: Last) {
        if let Some(ended) = self.remove(id, last) {
            self.effects.push(Effect::Ended(id, ended));
        }
    }

    fn remove(&mut self, id: PlaceId, last: Last) -> Option<Ended> {
        let place = self.places.remove(&id)?;
        self.alarms.remove(&(place.deadline, Alarm::Place(id)));
        if matches!(place.at, At::Queue { .. } | At::Part) {
            self.waiting -= 1;
            if let Some(lane) = self.lanes.get_mut(&place.key) {
                lane.waiting -= 1;
            }
        }
        Some(Ended {
            may_have_applied: place.may_have_applied
                || matches!(last, Last::Abandoned | Last::Lost),
            last,
            calls: place.calls,
            seen: None,
        })
    }

    /// Moves an idle lane on: it vanishes, is held, or stands in line.
    fn advance(&mut self, key: &LaneKey) {
        if self.tidy(key) {
            self.lane(key).state = LaneState::InLine;
            self.gate.line_up(Turn::Lane(key.clone()));
        }
    }

    /// Drops what has ended from the front of an idle lane; it vanishes where nothing is left, and is held where
    /// its holder's turn has come. Returns whether changes wait in it that may want a call.
    fn tidy(&mut self, key: &LaneKey) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else {
            return false;
        };
        if lane.state != LaneState::Idle {
            return false;
        }
        let places = &self.places;
        while let Some(part) = lane.parts.front_mut() {
            part.places.retain(|id| places.contains_key(id));
            if !part.places.is_empty() {
                return true;
            }
            lane.parts.pop_front();
        }
        loop {
            match lane.queue.front() {
                Some(Entry::Place(id)) if !places.contains_key(id) => {}
                Some(Entry::Hold(id)) if !self.holds.contains_key(id) => {}
                Some(Entry::Place(_)) => return true,
                Some(Entry::Hold(id)) => {
                    let id = *id;
                    lane.queue.pop_front();
                    lane.waiting -= 1;
                    self.waiting -= 1;
                    lane.state = LaneState::Held(id);
                    if let Some(hold) = self.holds.get(&id) {
                        self.alarms.remove(&(hold.deadline, Alarm::Hold(id)));
                    }
                    self.effects.push(Effect::Held(id));
                    return false;
                }
                None => {
                    self.lanes.remove(key);
                    return false;
                }
            }
            lane.queue.pop_front();
        }
    }

    /// Lets call whose turn it is, as long as calls may be made.
    fn dispatch(&mut self, now: Instant) {
        while let Some(turn) = self.gate.next(now) {
            match turn {
                Turn::Lane(key) => self.call(now, &key),
                Turn::Read(id) => self.begin_read(now, id),
            }
        }
    }

    fn call(&mut self, now: Instant, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        if lane.state != LaneState::InLine {
            return;
        }
        lane.state = LaneState::Idle;
        if let Some(wait) = self.gate.refusal(now) {
            self.refuse(now, key, wait);
            self.tidy(key);
            return;
        }
        let places = &self.places;
        let candidate = |id: &PlaceId| {
            let place = places.get(id)?;
            Some(Candidate {
                place: *id,
                operation: place.operation,
                account_id: place.account_id,
                recorded: place.at != At::Queue { recorded: false },
            })
        };
        let mut batch = Batch::default();
        let given_up = |part: &Part| !part.places.iter().any(|id| places.contains_key(id));
        while lane.parts.front().is_some_and(given_up) {
            lane.parts.pop_front();
        }
        let part = lane.parts.pop_front();
        if let Some(part) = &part {
            batch.fill(part.places.iter().filter_map(candidate));
        }
        if part.as_ref().is_none_or(|part| part.open) {
            let up_to_hold = lane.queue.iter().map_while(|entry| match entry {
                Entry::Place(id) => Some(id),
                Entry::Hold(_) => None,
            });
            batch.fill(up_to_hold.filter_map(candidate));
        }
        if batch.is_empty() {
            // Nothing of it is on disk yet, or all of it was given up. What gets to disk moves the lane on.
            self.tidy(key);
            return;
        }
        let taken = batch.places().len();
        lane.waiting -= taken;
        self.waiting -= taken;
        lane.state = LaneState::Calling;
        for id in batch.places() {
            if let Some(place) = self.places.get_mut(id) {
                place.at = At::Call;
                place.calls += 1;
            }
        }
        let places = &self.places;
        lane.queue.retain(|entry| match entry {
            Entry::Place(id) => places.get(id).is_some_and(|place| place.at != At::Call),
            Entry::Hold(_) => true,
        });
        let connection = part
            .as_ref()
            .map_or(Connection::Pooled, |part| part.connection);
        let begun = self.gate.begin(
            now,
            Kind::Change,
            part.as_ref().is_some_and(|part| part.retry),
        );
        let id = CallId(self.next_id());
        self.effects.push(Effect::Call {
            id,
            modification: batch.modification(key.0.clone(), key.1.clone()),
            connection,
        });
        let call = Call {
            key: key.clone(),
            batch,
            connection,
            open: part.is_none_or(|part| part.open),
            begun,
        };
        self.calls.insert(id, call);
    }

    /// The breaker is open: whoever could be sent is told so.
    fn refuse(&mut self, now: Instant, key: &LaneKey, wait: Duration) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        let parts = lane.parts.drain(..).flat_map(|part| part.places);
        let queue = lane.queue.iter().filter_map(|entry| match entry {
            Entry::Place(id) => Some(*id),
            Entry::Hold(_) => None,
        });
        let all: Vec<PlaceId> = parts.chain(queue).collect();
        for id in all {
            let Some(place) = self.places.get(&id) else {
                continue;
            };
            if place.at == (At::Queue { recorded: false }) {
                continue;
            }
            match &place.failure {
                Some(_) => self.end_failed(now, &[id]),
                None => self.end(id, Last::BreakerOpen(wait)),
            }
        }
    }

    /// The breaker opened: nobody waits for a call that will not be made.
    fn refuse_all(&mut self, now: Instant) {
        let Some(wait) = self.gate.refusal(now) else {
            return;
        };
        let keys: Vec<LaneKey> = self.lanes.keys().cloned().collect();
        for key in keys {
            self.refuse(now, &key, wait);
            if let Some(lane) = self.lanes.get_mut(&key)
                && let LaneState::Resting(until) = lane.state
            {
                lane.state = LaneState::Idle;
                self.alarms.remove(&(until, Alarm::Lane(key.clone())));
            }
            self.tidy(&key);
        }
        let resting: Vec<ReadId> = self
            .reads
            .iter()
            .filter(|(_, read)| matches!(read.at, ReadAt::Resting(_)))
            .map(|(id, _)| *id)
            .collect();
        for id in resting {
            self.end_read(id, NoTurn::BreakerOpen(wait));
        }
    }

    /// What the clock alone brings about.
    pub(super) fn time(&mut self, now: Instant) {
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

    /// Wants to hold a lane: nothing is sent from when it is [`Effect::Held`] until the holder is done.
    pub(super) fn hold(&mut self, now: Instant, key: &LaneKey, deadline: Instant) -> HoldId {
        let id = HoldId(self.next_id());
        let hold = Hold {
            key: key.clone(),
            deadline,
        };
        self.holds.insert(id, hold);
        self.alarms.insert((deadline, Alarm::Hold(id)));
        let lane = self.lane(key);
        lane.queue.push_back(Entry::Hold(id));
        lane.waiting += 1;
        self.waiting += 1;
        self.advance(key);
        self.dispatch(now);
        id
    }

    fn forget_hold(&mut self, key: &LaneKey) {
        self.waiting -= 1;
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.waiting -= 1;
        }
    }

    /// The holder is done, or gone.
    pub(super) fn release(&mut self, now: Instant, id: HoldId) {
        let Some(hold) = self.holds.remove(&id) else {
            return;
        };
        self.alarms.remove(&(hold.deadline, Alarm::Hold(id)));
        let lane = self
            .lanes
            .get_mut(&hold.key)
            .filter(|lane| lane.state == LaneState::Held(id));
        match lane {
            Some(lane) => lane.state = LaneState::Idle,
            None => self.forget_hold(&hold.key),
        }
        self.advance(&hold.key);
        self.dispatch(now);
    }

    /// The holder gives its place, the first, to changes of its own.
    pub(super) fn replace(
        &mut self,
        now: Instant,
        id: HoldId,
        changes: &[(Operation, AccountId)],
        deadline: Instant,
    ) -> Vec<PlaceId> {
        let Some(key) = self.holds.get(&id).map(|hold| hold.key.clone()) else {
            return Vec::new();
        };
        let places = self.place(&key, changes, deadline);
        let lane = self.lane(&key);
        for place in places.iter().rev() {
            lane.queue.push_front(Entry::Place(*place));
        }
        lane.waiting += places.len();
        self.waiting += places.len();
        self.release(now, id);
        places
    }

    /// A read wants to call. `None` where too many do. Where it fails it is made again, so often and not more.
    pub(super) fn read(
        &mut self,
        now: Instant,
        deadline: Instant,
        max_retries: u32,
    ) -> Option<ReadId> {
        if self.reads.len() >= READS_MAX {
            return None;
        }
        let id = ReadId(self.next_id());
        let read = Read {
            deadline,
            at: ReadAt::InLine,
            connection: Connection::Pooled,
            max_retries: max_retries.min(self.max_retries),
            retries: 0,
            retry: false,
        };
        self.reads.insert(id, read);
        self.alarms.insert((deadline, Alarm::Read(id)));
        self.gate.line_up(Turn::Read(id));
        self.dispatch(now);
        Some(id)
    }

    fn begin_read(&mut self, now: Instant, id: ReadId) {
        let refusal = self.gate.refusal(now);
        let Some(read) = self.reads.get_mut(&id) else {
            return;
        };
        if let Some(wait) = refusal {
            self.end_read(id, NoTurn::BreakerOpen(wait));
            return;
        }
        read.at = ReadAt::Calling(self.gate.begin(now, Kind::Read, read.retry));
        self.effects.push(Effect::Read(id, read.connection));
    }

    /// A read's call was answered, or failed. Returns whether it is called again: then another effect says when.
    pub(super) fn read_answered(
        &mut self,
        now: Instant,
        id: ReadId,
        error: Option<&CallError>,
    ) -> bool {
        let Some(read) = self.reads.get(&id) else {
            return false;
        };
        let ReadAt::Calling(begun) = read.at else {
            return false;
        };
        if self.gate.ended(now, begun, error) {
            self.refuse_all(now);
        }
        let again = error.is_some_and(|error| self.read_again(now, id, error));
        if !again && let Some(read) = self.reads.remove(&id) {
            self.alarms.remove(&(read.deadline, Alarm::Read(id)));
        }
        self.dispatch(now);
        again
    }

    fn read_again(&mut self, now: Instant, id: ReadId, error: &CallError) -> bool {
        let Some(read) = self.reads.get_mut(&id) else {
            return false;
        };
        let (at_least, times) = match error.retry() {
            Retry::Never => return false,
            Retry::AtOnce if read.connection == Connection::Pooled => {
                (read.connection, read.retry, read.at) = (Connection::Fresh, false, ReadAt::InLine);
                self.gate.line_up(Turn::Read(id));
                return true;
            }
            Retry::AtOnce => (Duration::ZERO, u32::MAX),
            Retry::After { at_least, times } => (at_least, times),
        };
        let wait = backoff(read.retries, at_least, self.chance.random());
        let allowed = read.retries < times.min(read.max_retries)
            && read.deadline.saturating_duration_since(now) > wait
            && self.gate.refusal(now).is_none();
        if !allowed || !self.gate.grants_retry() {
            return false;
        }
        read.retries += 1;
        (read.connection, read.retry) = (Connection::Pooled, true);
        read.at = ReadAt::Resting(now + wait);
        self.alarms.insert((now + wait, Alarm::Read(id)));
        true
    }

    fn read_alarm(&mut self, now: Instant, id: ReadId) {
        let Some(read) = self.reads.get_mut(&id) else {
            return;
        };
        if read.deadline <= now {
            match read.at {
                // Its reader waits no longer than its time, and says so by `read_dropped`.
                ReadAt::Calling(_) => {}
                ReadAt::InLine | ReadAt::Resting(_) => self.end_read(id, NoTurn::TimeUp),
            }
        } else if let ReadAt::Resting(until) = read.at
            && until <= now
        {
            read.at = ReadAt::InLine;
            self.gate.line_up(Turn::Read(id));
        }
    }

    fn end_read(&mut self, id: ReadId, why: NoTurn) {
        self.forget_read(id);
        self.effects.push(Effect::ReadEnded(id, why));
    }

    fn forget_read(&mut self, id: ReadId) -> Option<Read> {
        let read = self.reads.remove(&id)?;
        self.alarms.remove(&(read.deadline, Alarm::Read(id)));
        if let ReadAt::Resting(until) = read.at {
            self.alarms.remove(&(until, Alarm::Read(id)));
        }
        Some(read)
    }

    /// Nobody waits for this read any more.
    pub(super) fn read_dropped(&mut self, now: Instant, id: ReadId) {
        let Some(read) = self.forget_read(id) else {
            return;
        };
        if let ReadAt::Calling(begun) = read.at {
            self.gate.abandoned(now, begun);
        }
        self.dispatch(now);
    }

    /// Whether a share that landed late is still to be taken back.
    pub(super) fn must_be_undone(&self, key: &LaneKey, account_id: AccountId) -> bool {
        self.landings.stands(key, account_id)
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
            && self.landings.len() == 0
            && self.waiting == 0
            && self.gate.in_flight() == 0
    }
}
