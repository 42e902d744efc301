//! The small world: time, messages that take some and get lost, and what each of them brings about.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::database::{Database, EventRow, Granted, TakenOver, Word};
use super::gateway::{Asked, Gateway, Group, Visitor};
use super::judge::{Judge, judge};
use super::{CALL, ChainId, EventNumber, LEASE, Outcome, Time};
use crate::domain::{AccountId, Deadline, Operation, Party};
use crate::sharing::lanes::Suspect;
use crate::sharing::lanes::machine::{
    Aftermath, CallId, Effect, Ended, Kind, LaneKey, Last, LookId, PlaceId, Terms, WaitId,
};
use crate::sharing::lanes::tests::world::{account, key, party};
use crate::upstream::{CallError, Cause, Fate, Modification, Modified, Verdict};

/// How long a caller waits.
const PATIENCE: Range<Time> = 2_000..60_000;
const BEAT: Time = 2_000;
const LOOK: Time = 500;
/// Others are given so long to come back.
const COMING_BACK: Time = 3_000;
const AGAIN: Time = 250;
/// How long a call may take effect after it failed.
const LANDING: Time = 60_000;

/// What is asked of the database.
#[derive(Debug, Clone)]
enum Request {
    Open(Option<ChainId>),
    Beat(ChainId),
    Commit(ChainId, Group),
    Locks(
        ChainId,
        Vec<(LaneKey, (bool, u64))>,
        EventNumber,
        Vec<LaneKey>,
    ),
    Look(ChainId, bool),
}

#[derive(Debug, Clone)]
enum Answer {
    Opened(ChainId, EventNumber),
    Beaten(Result<(), TakenOver>),
    Committed(Result<(), TakenOver>, Group),
    Locked(ChainId, Vec<Granted>, Vec<(LaneKey, u64)>),
    Looked(ChainId, Vec<LaneKey>, Vec<EventNumber>),
    /// The connection is gone, and nobody knows whether it was done.
    Lost(Request),
}

#[derive(Debug)]
enum Coming {
    Wake,
    Arrives(Request, Time),
    Answered(Answer, Time),
    Told(Word),
    Activate(ChainId, Granted),
    CallEnds(CallId, Result<Modified, CallError>),
    LookEnds(LookId, LaneKey),
    BeatDue,
    LookDue,
    Suspects(LaneKey, Vec<Suspect>),
    HoldEnds(WaitId),
    Asks(Asked),
    /// At the upstream, whoever asked.
    Applies(Modification, Vec<(AccountId, EventNumber)>, bool),
    Starts,
}

pub(super) struct World {
    start: Instant,
    now: Time,
    chance: SmallRng,
    gateways: Vec<Gateway>,
    database: Database,
    lists: HashMap<LaneKey, Vec<AccountId>>,
    /// By time and order: to which gateway, in which of its lives.
    coming: BTreeMap<(Time, u64), (usize, u64, Coming)>,
    order: u64,
    groups: u64,
    judge: Judge,
    /// Whether nothing goes wrong any more.
    calm: bool,
}

impl World {
    pub(super) fn new(seed: u64, gateways: usize) -> Self {
        let mut world = Self {
            start: Deadline::now().instant(),
            // Not at the beginning of time: clocks may be behind.
            now: 1_000_000,
            chance: SmallRng::seed_from_u64(seed ^ 0x5eed),
            gateways: Vec::new(),
            database: Database::default(),
            lists: HashMap::new(),
            coming: BTreeMap::new(),
            order: 0,
            groups: 0,
            judge: Judge::default(),
            calm: false,
        };
        for index in 0..gateways {
            let skew = world.chance.random_range(-4_000..4_000);
            world
                .gateways
                .push(Gateway::new(0, seed + index as u64, skew));
            world.comes(0, index, Coming::Starts);
        }
        world
    }

    fn instant(&self, time: Time) -> Instant {
        self.start + Duration::from_millis(time)
    }

    fn comes(&mut self, after: Time, gateway: usize, coming: Coming) {
        self.order += 1;
        let generation = self.gateways[gateway].generation;
        let at = (self.now + after, self.order);
        self.coming.insert(at, (gateway, generation, coming));
    }

    pub(super) fn run_for(&mut self, time: Time) {
        let until = self.now + time;
        while let Some(entry) = self.coming.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), (index, generation, coming)) = entry.remove_entry();
            self.now = self.now.max(at);
            let is_elsewhere = matches!(coming, Coming::Arrives(..) | Coming::Applies(..));
            if generation != self.gateways[index].generation && !is_elsewhere {
                continue;
            }
            let still = self.gateways[index].stands_still_until;
            if still > self.now && !is_elsewhere {
                self.order += 1;
                let later = (still, self.order);
                self.coming.insert(later, (index, generation, coming));
                continue;
            }
            self.come(index, generation, coming);
        }
        self.now = until;
    }

    // What goes wrong.

    pub(super) fn kill(&mut self, index: usize) {
        let former = &self.gateways[index];
        if let Some(chain) = former.chain.or(former.former)
            && let Some(chain) = self.database.chains.get_mut(&chain)
        {
            chain.session = false;
        }
        let seed = self.chance.random();
        let skew = self.chance.random_range(-4_000..4_000);
        let mut next = Gateway::new(former.generation + 1, seed, skew);
        next.cut_off_until = former.cut_off_until;
        self.gateways[index] = next;
        let pause = self.chance.random_range(0..10_000);
        self.comes(pause, index, Coming::Starts);
    }

    pub(super) fn stand_still(&mut self, index: usize, time: Time) {
        let gateway = &mut self.gateways[index];
        gateway.stands_still_until = gateway.stands_still_until.max(self.now + time);
    }

    pub(super) fn cut_off(&mut self, index: usize, time: Time) {
        let gateway = &mut self.gateways[index];
        gateway.cut_off_until = gateway.cut_off_until.max(self.now + time);
        if let Some(chain) = gateway.chain
            && let Some(chain) = self.database.chains.get_mut(&chain)
            && self.chance.random_bool(0.7)
        {
            // Else the database does not notice.
            chain.session = false;
        }
    }

    pub(super) fn cut_off_all(&mut self, time: Time) {
        for index in 0..self.gateways.len() {
            self.cut_off(index, time);
        }
    }

    pub(super) fn ask(&mut self, index: usize, image: u32, number: u64, share: bool) {
        let operation = if share {
            Operation::Share
        } else {
            Operation::Unshare
        };
        let asked = Asked {
            key: key(image),
            account: account(number),
            operation,
            party: u32::from(number.is_multiple_of(2)),
            deadline: self.now + self.chance.random_range(PATIENCE),
        };
        self.comes(0, index, Coming::Asks(asked));
    }

    /// Lets everything be well until nothing is under way.
    pub(super) fn come_to_rest(&mut self) {
        self.calm = true;
        for gateway in &mut self.gateways {
            gateway.stands_still_until = self.now;
            gateway.cut_off_until = self.now;
        }
        for _ in 0..200 {
            self.run_for(10_000);
            let pending = self
                .database
                .events
                .values()
                .any(|row| row.outcome.is_none());
            let unsure = self.database.locks.values().any(|lock| lock.unsure);
            let idle = self.gateways.iter().all(Gateway::is_idle);
            if !pending && !unsure && idle {
                return;
            }
        }
        let pending = self.database.events.values();
        let pending: Vec<&EventRow> = pending.filter(|row| row.outcome.is_none()).collect();
        let busy: Vec<String> = self.gateways.iter().map(Gateway::under_way).collect();
        panic!(
            "something is still under way: pending {pending:?}, locks {:?}, gateways {busy:?}",
            self.database.locks
        );
    }

    pub(super) fn judge(&self) {
        assert!(self.judge.calls > 0);
        judge(&self.database, &self.lists);
    }

    // What comes.

    fn come(&mut self, index: usize, generation: u64, coming: Coming) {
        match coming {
            Coming::Wake => {
                self.gateways[index].wakes = None;
                let now = self.instant(self.now);
                self.gateways[index].machine.time(now);
            }
            Coming::Starts => {
                self.open(index);
                self.comes(LOOK, index, Coming::LookDue);
                self.comes(BEAT, index, Coming::BeatDue);
            }
            Coming::Arrives(request, asked) => {
                self.arrives(index, generation, request, asked);
                return;
            }
            Coming::Answered(answer, asked) => self.answered(index, answer, asked),
            Coming::Told(word) => self.told(index, word),
            Coming::Activate(chain, granted) => self.activate(index, chain, granted),
            Coming::CallEnds(id, result) => {
                let now = self.instant(self.now);
                self.gateways[index].machine.answered(now, id, result);
            }
            Coming::LookEnds(id, key) => {
                let list = self.lists.get(&key).cloned().unwrap_or_default();
                self.gateways[index].machine.looked(id, Some(&list));
            }
            Coming::BeatDue => {
                let chain = self.gateways[index].chain;
                if let Some(chain) = chain {
                    self.request(index, Request::Beat(chain));
                } else {
                    self.open(index);
                }
                self.comes(BEAT, index, Coming::BeatDue);
            }
            Coming::LookDue => {
                let gateway = &self.gateways[index];
                if let Some(chain) = gateway.chain.filter(|_| self.now < gateway.lease_until) {
                    let ends = self.now >= gateway.since + COMING_BACK;
                    self.request(index, Request::Look(chain, ends));
                }
                self.refuse_waits(index);
                self.comes(LOOK, index, Coming::LookDue);
            }
            Coming::Suspects(key, accounts) => self.look_after(index, &key, accounts),
            Coming::HoldEnds(id) => self.end_hold(index, id),
            Coming::Asks(asked) => self.asks(index, asked),
            Coming::Applies(modification, events, late) => {
                self.applies(&modification, &events, late);
                return;
            }
        }
        self.pump(index);
    }

    fn refuse_waits(&mut self, index: usize) {
        let now = self.instant(self.now);
        let gateway = &mut self.gateways[index];
        if self.now >= gateway.lease_until {
            gateway.machine.refuse_waits(now);
        }
    }

    fn asks(&mut self, index: usize, asked: Asked) {
        let (now, deadline) = (self.instant(self.now), self.instant(asked.deadline));
        let gateway = &mut self.gateways[index];
        gateway.machine.tell(now);
        if self.now >= gateway.lease_until || asked.deadline <= self.now {
            return;
        }
        let terms = Terms {
            party: party(asked.party),
            kind: Kind::Single,
            deadline,
        };
        if gateway.machine.is_open(&asked.key, Kind::Single) {
            self.admit(index, &asked, &terms);
        } else {
            let id = gateway.machine.queue_up(&asked.key, 1, &terms);
            gateway.visitors.insert(id, Visitor::Enters(asked));
        }
    }

    fn admit(&mut self, index: usize, asked: &Asked, terms: &Terms) {
        let gateway = &mut self.gateways[index];
        let changes = [(asked.operation, asked.account)];
        for place in gateway.machine.admit(&asked.key, &changes, terms) {
            gateway.intents.push((asked.clone(), place));
        }
        self.commit(index);
    }

    // The database.

    fn request(&mut self, index: usize, request: Request) {
        let way = self.chance.random_range(1..6);
        let asked = self.now;
        self.comes(way, index, Coming::Arrives(request, asked));
    }

    fn open(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        if !gateway.opening {
            gateway.opening = true;
            let former = gateway.former;
            self.request(index, Request::Open(former));
        }
    }

    fn arrives(&mut self, index: usize, generation: u64, request: Request, asked: Time) {
        let cut_off = |world: &Self| world.gateways[index].cut_off_until > world.now;
        if generation != self.gateways[index].generation || cut_off(self) {
            // It may have got through before the connection was lost.
            let got_through = self.chance.random_ratio(1, 10);
            if got_through {
                self.serve(index, request.clone());
            }
            if generation == self.gateways[index].generation {
                self.comes(AGAIN, index, Coming::Answered(Answer::Lost(request), asked));
            }
            return;
        }
        let answer = self.serve(index, request);
        let way = self.chance.random_range(1..6);
        self.comes(way, index, Coming::Answered(answer, asked));
    }

    fn serve(&mut self, index: usize, request: Request) -> Answer {
        let now = self.now;
        let database = &mut self.database;
        let answer = match request {
            Request::Open(chain) => {
                let chain = database.open(now, index, chain);
                Answer::Opened(chain, database.last_event())
            }
            Request::Beat(chain) => Answer::Beaten(database.beat(now, chain)),
            Request::Commit(chain, group) => {
                let Group {
                    number,
                    intents,
                    outcomes,
                    ..
                } = &group;
                let done = database.commit(now, chain, *number, intents, outcomes);
                Answer::Committed(done, group)
            }
            Request::Locks(chain, leaving, last, asked) => {
                for (key, left) in leaving {
                    database.let_go(chain, &key, last, left);
                }
                let (granted, others) = database.take(chain, &asked);
                Answer::Locked(chain, granted, others)
            }
            Request::Look(chain, ends) => {
                if ends {
                    database.end_gone(now, chain);
                }
                database.free_locks(CALL);
                Answer::Looked(chain, database.forsaken(), database.adopt(chain))
            }
        };
        for (chain, word) in std::mem::take(&mut self.database.words) {
            // One in ten gets lost: who waits asks again.
            let gateway = self.database.chains[&chain].gateway;
            if self.gateways[gateway].chain == Some(chain) && !self.chance.random_ratio(1, 10) {
                let way = self.chance.random_range(1..6);
                self.comes(way, gateway, Coming::Told(word));
            }
        }
        answer
    }

    fn answered(&mut self, index: usize, answer: Answer, asked: Time) {
        let now = self.instant(self.now);
        match answer {
            Answer::Opened(chain, last) => {
                let gateway = &mut self.gateways[index];
                gateway.opening = false;
                gateway.lease_until = asked + LEASE;
                gateway.since = self.now;
                if gateway.former != Some(chain) {
                    gateway.last_event = gateway.last_event.max(last);
                    self.begin(index, Some(chain));
                }
                let gateway = &mut self.gateways[index];
                (gateway.chain, gateway.former) = (Some(chain), Some(chain));
                gateway.machine.tell(now);
                self.commit(index);
                self.settle(index);
            }
            Answer::Beaten(Ok(())) => self.gateways[index].lease_until = asked + LEASE,
            Answer::Beaten(Err(TakenOver)) => self.taken_over(index),
            Answer::Committed(Ok(()), group) => {
                let gateway = &mut self.gateways[index];
                gateway.lease_until = gateway.lease_until.max(asked + LEASE);
                gateway.group = None;
                self.committed(index, group);
                self.commit(index);
            }
            Answer::Committed(Err(TakenOver), group) => {
                let gateway = &mut self.gateways[index];
                gateway.group = None;
                // Outcomes are kept; intents fail, and what was admitted with them is given up.
                gateway.outcomes.extend(group.outcomes);
                for place in group.places {
                    gateway.early.remove(&place);
                    gateway.machine.abandon(now, place);
                }
                self.taken_over(index);
            }
            Answer::Locked(chain, granted, others) => {
                self.gateways[index].locking = false;
                if self.gateways[index].chain == Some(chain) {
                    for (key, number) in others {
                        self.gateways[index].note_number(key, number);
                    }
                    for granted in granted {
                        self.granted(index, chain, granted);
                    }
                }
                self.settle(index);
            }
            Answer::Looked(chain, forsaken, adopted) => {
                let gateway = &mut self.gateways[index];
                if gateway.chain == Some(chain) {
                    gateway.machine.tell(now);
                    for key in forsaken {
                        gateway.machine.look_after(&key);
                    }
                    for event in adopted {
                        if gateway.closing.insert(event) {
                            gateway.outcomes.push((event, Outcome::Unknown, false));
                        }
                    }
                    self.commit(index);
                }
            }
            Answer::Lost(request) => self.lost(index, request),
        }
    }

    /// The connection is gone. Nothing is sent until there is another, and what was asked is asked again.
    fn lost(&mut self, index: usize, request: Request) {
        let gateway = &mut self.gateways[index];
        match request {
            Request::Open(_) => {
                gateway.opening = false;
                self.open(index);
            }
            Request::Commit(chain, group) => {
                gateway.lease_until = 0;
                if gateway.chain == Some(chain) {
                    self.open(index);
                    self.request(index, Request::Commit(chain, group));
                } else {
                    self.request(index, Request::Commit(chain, group));
                }
            }
            Request::Beat(_) => {
                gateway.lease_until = 0;
                self.open(index);
            }
            Request::Locks(_, leaving, _, asked) => {
                gateway.locking = false;
                gateway.leaving.splice(0..0, leaving);
                gateway.wanted.extend(asked);
                self.settle(index);
            }
            Request::Look(..) => {}
        }
    }

    fn taken_over(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        gateway.lease_until = 0;
        gateway.chain = None;
        gateway.former = None;
        self.begin(index, None);
        self.open(index);
    }

    /// Another chain: all locks are lost.
    fn begin(&mut self, index: usize, chain: Option<ChainId>) {
        let now = self.instant(self.now);
        let gateway = &mut self.gateways[index];
        gateway.wanted.clear();
        gateway.held.clear();
        gateway.numbers.clear();
        gateway.left.clear();
        gateway.leaving.clear();
        gateway.locked_by = chain;
        gateway.machine.locks_lost(now);
    }

    /// Writes what waits, a group at a time.
    fn commit(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        let Some(chain) = gateway.chain.filter(|_| gateway.group.is_none()) else {
            return;
        };
        if gateway.intents.is_empty() && gateway.outcomes.is_empty() {
            return;
        }
        self.groups += 1;
        let mut group = Group {
            number: self.groups,
            intents: Vec::new(),
            places: Vec::new(),
            outcomes: std::mem::take(&mut gateway.outcomes),
        };
        for (asked, place) in std::mem::take(&mut gateway.intents) {
            let event = gateway.next_event(self.now);
            let row = EventRow {
                key: asked.key,
                account: asked.account,
                operation: asked.operation,
                chain,
                adopted: false,
                outcome: None,
                ended: None,
                may_land: false,
            };
            group.intents.push((event, row));
            group.places.push(place);
        }
        gateway.group = Some(group.clone());
        self.request(index, Request::Commit(chain, group));
    }

    fn committed(&mut self, index: usize, group: Group) {
        let now = self.instant(self.now);
        let gateway = &mut self.gateways[index];
        gateway.machine.tell(now);
        let mut recorded = Vec::new();
        for (place, (event, _)) in group.places.into_iter().zip(group.intents) {
            if let Some((outcome, may_land)) = gateway.early.remove(&place) {
                gateway.outcomes.push((event, outcome, may_land));
            } else {
                gateway.events.insert(place, event);
                recorded.push(place);
            }
        }
        // Those of one image at a time.
        for place in recorded {
            gateway.machine.recorded(&[place]);
        }
    }

    // Locks.

    /// Asks for what is wanted, and lets go what is not.
    fn settle(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        let Some(chain) = gateway.chain.filter(|_| !gateway.locking) else {
            return;
        };
        if gateway.wanted.is_empty() && gateway.leaving.is_empty() {
            return;
        }
        gateway.locking = true;
        let leaving = std::mem::take(&mut gateway.leaving);
        let asked = gateway.wanted.iter().cloned().collect();
        let last = gateway.last_event;
        // Who stands in line asks again after a while.
        let pause = if leaving.is_empty() { 20 } else { 0 };
        let request = Request::Locks(chain, leaving, last, asked);
        let sent = self.now;
        self.comes(pause + 2, index, Coming::Arrives(request, sent));
    }

    fn granted(&mut self, index: usize, chain: ChainId, granted: Granted) {
        let now = self.instant(self.now);
        let gateway = &mut self.gateways[index];
        let left = gateway.left.get(&granted.key);
        if left.is_some_and(|left| granted.number <= *left) {
            // It was let go since then.
            return;
        }
        gateway.wanted.remove(&granted.key);
        gateway.note_number(granted.key.clone(), granted.number);
        if !gateway.held.insert(granted.key.clone()) {
            if granted.wanted {
                gateway.machine.lock_wanted(now, &granted.key);
            }
            return;
        }
        gateway.last_event = gateway.last_event.max(granted.last_event);
        let wait = granted.not_before.saturating_sub(self.now);
        self.comes(wait, index, Coming::Activate(chain, granted));
    }

    fn activate(&mut self, index: usize, chain: ChainId, granted: Granted) {
        let now = self.instant(self.now);
        if self.gateways[index].locked_by != Some(chain)
            || !self.gateways[index].held.contains(&granted.key)
        {
            return;
        }
        if granted.unsure {
            // Who had it before may have done what it has not written down yet.
            if self.database.is_being_settled(&granted.key) {
                self.comes(50, index, Coming::Activate(chain, granted));
                return;
            }
            self.remember(index, &granted.key);
        }
        let who = (index, self.gateways[index].generation, chain);
        let holder = self
            .database
            .locks
            .get(&granted.key)
            .and_then(|lock| lock.holder);
        // One that stood still may think so, and will find that it may send nothing.
        if holder == Some(chain) {
            self.judge.active.insert(granted.key.clone(), who);
        }
        let machine = &mut self.gateways[index].machine;
        machine.locked(now, &granted.key, granted.wanted);
    }

    fn told(&mut self, index: usize, word: Word) {
        let now = self.instant(self.now);
        let gateway = &mut self.gateways[index];
        match word {
            Word::Granted(granted) => {
                let last = gateway.numbers.get(&granted.key);
                let is_news = last.is_some_and(|last| granted.number > *last);
                match gateway.chain {
                    Some(chain) if is_news && gateway.wanted.contains(&granted.key) => {
                        self.granted(index, chain, granted);
                    }
                    // It may be an old one.
                    _ => {
                        gateway.wanted.insert(granted.key);
                        self.settle(index);
                    }
                }
            }
            Word::Wanted(key) => {
                if gateway.held.contains(&key) {
                    gateway.machine.lock_wanted(now, &key);
                }
            }
        }
    }

    /// What others left of an image that may land late.
    fn remember(&mut self, index: usize, key: &LaneKey) {
        let now = self.instant(self.now);
        let machine = &mut self.gateways[index].machine;
        let mut last: BTreeMap<AccountId, (Operation, bool)> = BTreeMap::new();
        let of_image = self
            .database
            .events
            .iter()
            .filter(|(_, row)| row.key == *key);
        for (event, row) in of_image {
            let open = row.may_land || matches!(row.outcome, None | Some(Outcome::Unknown));
            let noted = self.database.noted.get(&(key.clone(), row.account));
            if open && noted.is_none_or(|noted| event > noted) {
                let rest = row
                    .ended
                    .map_or(LANDING, |ended| (ended + LANDING).saturating_sub(self.now));
                let until = now + Duration::from_millis(rest);
                machine.may_land(until, key, row.account, row.operation);
            }
            if row.outcome == Some(Outcome::Failed) {
                continue;
            }
            // A share that nobody knows of changes nothing where one stands.
            let stands = last.get(&row.account) == Some(&(Operation::Share, true));
            let succeeded = row.outcome == Some(Outcome::Succeeded)
                || (stands && row.operation == Operation::Share);
            last.insert(row.account, (row.operation, succeeded));
        }
        for (account, (operation, succeeded)) in last {
            machine.was_last(key, account, operation, succeeded);
        }
    }

    // The machine.

    fn pump(&mut self, index: usize) {
        loop {
            let effects = self.gateways[index].machine.effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.carry_out(index, effect);
            }
        }
        let now = self.instant(self.now);
        let next = self.gateways[index].machine.next_time(now);
        let Some(next) = next else {
            return;
        };
        let after = next
            .saturating_duration_since(now)
            .as_nanos()
            .div_ceil(1_000_000);
        let at = self.now + u64::try_from(after).unwrap_or(0);
        if self.gateways[index].wakes.is_none_or(|wakes| at < wakes) {
            self.gateways[index].wakes = Some(at);
            self.comes(at - self.now, index, Coming::Wake);
        }
    }

    fn carry_out(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Call {
                id, modification, ..
            } => self.call(index, id, modification),
            Effect::Ended(place, ended) => self.ended(index, place, &ended),
            Effect::Late(_) => {}
            Effect::Granted(id) => match self.gateways[index].visitors.get(&id).cloned() {
                Some(Visitor::Enters(asked)) => {
                    self.gateways[index].visitors.remove(&id);
                    let terms = Terms {
                        party: party(asked.party),
                        kind: Kind::Single,
                        deadline: self.instant(asked.deadline),
                    };
                    let key = asked.key.clone();
                    self.admit(index, &asked, &terms);
                    let now = self.instant(self.now);
                    self.gateways[index].machine.entered(now, &key);
                }
                Some(Visitor::PutsRight(..)) => self.comes(50, index, Coming::HoldEnds(id)),
                None => {
                    let now = self.instant(self.now);
                    self.gateways[index].machine.release(now, id);
                }
            },
            Effect::WaitEnded(id) => {
                let visitor = self.gateways[index].visitors.remove(&id);
                if let Some(Visitor::PutsRight(key, accounts)) = visitor {
                    self.comes(15_000, index, Coming::Suspects(key, accounts));
                }
            }
            Effect::Look { id, key, .. } => self.comes(50, index, Coming::LookEnds(id, key)),
            Effect::Lock(key) => {
                self.gateways[index].wanted.insert(key);
                self.settle(index);
            }
            Effect::Unlock { key, unsure } => {
                let gateway = &mut self.gateways[index];
                gateway.held.remove(&key);
                let number = gateway.numbers.get(&key).copied().unwrap_or_default();
                gateway.left.insert(key.clone(), number);
                gateway.leaving.push((key, (unsure, number)));
                self.settle(index);
            }
            Effect::LandingTimeOver {
                key,
                suspects,
                settled,
            } => {
                self.note(index, &key, &settled);
                if !suspects.is_empty() {
                    self.comes(50, index, Coming::Suspects(key, suspects));
                }
            }
            Effect::Read(..) | Effect::ReadEnded(..) => panic!("nobody reads"),
        }
    }

    fn ended(&mut self, index: usize, place: PlaceId, ended: &Ended) {
        let outcome = match &ended.last {
            Last::Answered(_) => Outcome::Succeeded,
            Last::Failed(error) if error.fate() == Fate::MayHaveApplied => Outcome::Unknown,
            Last::Abandoned | Last::Lost => Outcome::Unknown,
            _ if ended.may_have_applied => Outcome::Unknown,
            _ => Outcome::Failed,
        };
        let may_land = outcome == Outcome::Succeeded && ended.may_land;
        let gateway = &mut self.gateways[index];
        match gateway.events.remove(&place) {
            Some(event) => gateway.outcomes.push((event, outcome, may_land)),
            // Its intent is not on disk yet, if it ever will be.
            None => drop(gateway.early.insert(place, (outcome, may_land))),
        }
        self.commit(index);
    }

    fn call(&mut self, index: usize, id: CallId, modification: Modification) {
        let gateway = &self.gateways[index];
        if !gateway.may_send(self.now) {
            self.comes(0, index, Coming::CallEnds(id, Err(CallError::Withheld)));
            return;
        }
        let key = (modification.region.clone(), modification.image_id.clone());
        let chain = gateway.chain.unwrap_or_default();
        self.judge.sends(&key, (index, gateway.generation, chain));
        let mut events: BTreeMap<AccountId, EventNumber> = BTreeMap::new();
        for place in gateway.machine.places_of(id) {
            let event = gateway.events[&place];
            let account = self.database.events[&event].account;
            let greatest = events.entry(account).or_insert(event);
            *greatest = (*greatest).max(event);
        }
        let events: Vec<(AccountId, EventNumber)> = events.into_iter().collect();
        let luck = if self.calm {
            0
        } else {
            self.chance.random_range(0..100)
        };
        let way = self.chance.random_range(10..60);
        let (applies, late, ends): (Option<Time>, bool, Time) = match luck {
            0..90 => (Some(way), false, 2 * way),
            // Done, and the answer is lost.
            90..94 => (Some(way), false, CALL),
            // Lost on the way.
            94..97 => (None, false, CALL),
            // Done when nobody waits for it any more.
            _ => (
                Some(CALL + self.chance.random_range(0..LANDING - CALL)),
                true,
                CALL,
            ),
        };
        if let Some(after) = applies {
            self.comes(after, index, Coming::Applies(modification, events, late));
        }
        let result = if luck < 90 {
            Ok(Modified {
                verdict: Verdict::Done,
                ret_code: 0,
                request_id: None,
            })
        } else {
            Err(CallError::TimedOut(Cause::new("no answer")))
        };
        self.comes(ends, index, Coming::CallEnds(id, result));
    }

    fn applies(
        &mut self,
        modification: &Modification,
        events: &[(AccountId, EventNumber)],
        late: bool,
    ) {
        let key = (modification.region.clone(), modification.image_id.clone());
        if !late {
            for (account, event) in events {
                let operation = self.database.events[event].operation;
                self.judge.applies(&key, (*account, *event), operation);
            }
        }
        let list = self.lists.entry(key).or_default();
        list.retain(|account| !modification.removals.contains(account));
        for account in &modification.additions {
            if !list.contains(account) {
                list.push(*account);
            }
        }
    }

    // Late landings.

    fn note(&mut self, index: usize, key: &LaneKey, accounts: &[AccountId]) {
        let through = self.gateways[index].last_event;
        for account in accounts {
            self.database.noted.insert((key.clone(), *account), through);
        }
    }

    fn wrong(
        &mut self,
        index: usize,
        key: &LaneKey,
        suspects: Vec<Suspect>,
    ) -> (Vec<(Operation, Suspect)>, Vec<Suspect>) {
        let now = self.instant(self.now);
        let list = self.lists.get(key).cloned().unwrap_or_default();
        let (mut wrong, mut later) = (Vec::new(), Vec::new());
        for suspect in suspects {
            let machine = &mut self.gateways[index].machine;
            match machine.aftermath(key, suspect, list.contains(&suspect.account_id)) {
                Aftermath::AsAccepted => {
                    if machine.looked_after(now, key, suspect) {
                        self.note(index, key, &[suspect.account_id]);
                    }
                }
                Aftermath::Contradicted(operation) => wrong.push((operation, suspect)),
                Aftermath::Later => later.push(suspect),
            }
        }
        (wrong, later)
    }

    fn look_after(&mut self, index: usize, key: &LaneKey, suspects: Vec<Suspect>) {
        let now = self.instant(self.now);
        let (wrong, later) = self.wrong(index, key, suspects);
        if !wrong.is_empty() {
            let accounts = wrong.into_iter().map(|(_, suspect)| suspect).collect();
            let deadline = now + Duration::from_mins(1);
            let gateway = &mut self.gateways[index];
            let id = gateway.machine.hold(now, key, Party::Gateway, deadline);
            let visitor = Visitor::PutsRight(key.clone(), accounts);
            gateway.visitors.insert(id, visitor);
        }
        if !later.is_empty() {
            self.comes(15_000, index, Coming::Suspects(key.clone(), later));
        }
    }

    fn end_hold(&mut self, index: usize, id: WaitId) {
        let now = self.instant(self.now);
        let Some(Visitor::PutsRight(key, accounts)) = self.gateways[index].visitors.remove(&id)
        else {
            return;
        };
        if !self.gateways[index].machine.holds(id) {
            // The image is another's by now, which looks after it.
            return;
        }
        let (wrong, later) = self.wrong(index, &key, accounts);
        assert!(later.is_empty(), "whoever holds the lane knows");
        let deadline = self.now + 30_000;
        let gateway = &mut self.gateways[index];
        let changes: Vec<_> = wrong
            .iter()
            .map(|(operation, suspect)| (*operation, suspect.account_id))
            .collect();
        let places = gateway
            .machine
            .replace(now, id, &changes, now + Duration::from_secs(30));
        for (place, (operation, account)) in places.into_iter().zip(&changes) {
            let asked = Asked {
                key: key.clone(),
                account: *account,
                operation: *operation,
                party: 0,
                deadline,
            };
            gateway.intents.push((asked, place));
        }
        self.commit(index);
        for (_, suspect) in wrong {
            if self.gateways[index]
                .machine
                .looked_after(now, &key, suspect)
            {
                self.note(index, &key, &[suspect.account_id]);
            }
        }
    }
}
