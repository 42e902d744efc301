//! A small world around the machine: a clock, callers, and what comes of what the machine wants done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::judge::{Fact, Sent};
use super::upstream::{Behaviour, LATENCY, failure, time_of};
use crate::domain::{AccountId, Deadline, Operation};
use crate::sharing::lanes::machine::{
    CallId, Effect, HoldId, LaneKey, Last, Limits, LookId, Machine, NoTurn, PlaceId, ReadId,
};
use crate::upstream::{CallError, Modified};

#[derive(Debug)]
pub(super) enum Coming {
    CallEnds(CallId, Result<Modified, CallError>),
    Lands(CallId),
    Recorded(Vec<PlaceId>),
    NotRecorded(Vec<PlaceId>),
    ReadEnds(ReadId, Option<CallError>),
    LookEnds(LookId, Option<Vec<AccountId>>),
    HoldEnds(HoldId),
    UndoLooks(HoldId, LaneKey, Vec<AccountId>),
    UndoAgain(LaneKey, Vec<AccountId>),
}

pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) machine: Machine,
    pub(super) limits: Limits,
    /// Who has access, by image.
    pub(super) lists: HashMap<LaneKey, BTreeSet<AccountId>>,
    /// What the upstream does with the calls to come; the last goes on for ever.
    pub(super) behaviours: Vec<Behaviour>,
    coming: BTreeMap<(Instant, u64), Coming>,
    order: u64,
    pub(super) facts: BTreeMap<PlaceId, Fact>,
    /// The changes of an account, in the order in which they were accepted.
    pub(super) accounts: HashMap<(LaneKey, AccountId), Vec<PlaceId>>,
    holds: HashMap<HoldId, LaneKey>,
    pub(super) sent: BTreeMap<CallId, Sent>,
    pub(super) calls: Vec<CallId>,
    pub(super) reads_ended: Vec<(ReadId, Result<(), Option<NoTurn>>)>,
    pub(super) reads_sent: Vec<(Instant, ReadId)>,
    /// What a read gets.
    pub(super) read_behaviour: Behaviour,
    /// What holders do with their lanes, in turn: replace by these changes, or only look.
    pub(super) replacements: HashMap<HoldId, Vec<(Operation, AccountId)>>,
    pub(super) held: Vec<HoldId>,
    pub(super) holds_timed_out: Vec<HoldId>,
    undos: HashMap<HoldId, (LaneKey, Vec<AccountId>)>,
    pub(super) most_waiting: usize,
}

pub(super) fn key(image: u32) -> LaneKey {
    let image = format!("img-{image}").parse().expect("an image");
    ("cn-wlcb".parse().expect("a region"), image)
}

pub(super) fn account(number: u64) -> AccountId {
    number.try_into().expect("an account")
}

pub(super) fn limits() -> Limits {
    Limits {
        max_in_flight: 64,
        max_retries: 3,
        requests_per_second: None,
    }
}

impl World {
    pub(super) fn new(limits: Limits, seed: u64) -> Self {
        let start = Deadline::now().instant();
        Self {
            start,
            now: start,
            machine: Machine::new(limits, seed),
            limits,
            lists: HashMap::new(),
            behaviours: vec![Behaviour::Does],
            coming: BTreeMap::new(),
            order: 0,
            facts: BTreeMap::new(),
            accounts: HashMap::new(),
            holds: HashMap::new(),
            sent: BTreeMap::new(),
            calls: Vec::new(),
            reads_ended: Vec::new(),
            reads_sent: Vec::new(),
            read_behaviour: Behaviour::Does,
            replacements: HashMap::new(),
            held: Vec::new(),
            holds_timed_out: Vec::new(),
            undos: HashMap::new(),
            most_waiting: 0,
        }
    }

    pub(super) fn comes(&mut self, after: Duration, coming: Coming) {
        self.order += 1;
        self.coming.insert((self.now + after, self.order), coming);
    }

    /// Admits changes that are on disk at once.
    pub(super) fn change(
        &mut self,
        image: u32,
        changes: &[(Operation, u64)],
        wait: Duration,
    ) -> Vec<PlaceId> {
        let places = self.admit(image, changes, wait);
        self.machine.recorded(&places);
        self.machine.time(self.now);
        for place in &places {
            self.fact(*place).recorded = true;
        }
        self.carry_out();
        places
    }

    /// Admits changes whose intents are on disk after `disk`, or never.
    pub(super) fn change_slowly(
        &mut self,
        image: u32,
        changes: &[(Operation, u64)],
        wait: Duration,
        disk: Option<Duration>,
    ) -> Vec<PlaceId> {
        let places = self.admit(image, changes, wait);
        match disk {
            Some(disk) => self.comes(disk, Coming::Recorded(places.clone())),
            None => self.comes(LATENCY, Coming::NotRecorded(places.clone())),
        }
        places
    }

    fn admit(&mut self, image: u32, changes: &[(Operation, u64)], wait: Duration) -> Vec<PlaceId> {
        let key = key(image);
        if !self.machine.has_room(&key) {
            return Vec::new();
        }
        let changes: Vec<(Operation, AccountId)> = changes
            .iter()
            .map(|(operation, number)| (*operation, account(*number)))
            .collect();
        let deadline = self.now + wait;
        let places = self.machine.admit(&key, &changes, deadline);
        self.note(&key, &places, &changes, deadline, false);
        self.carry_out();
        places
    }

    fn note(
        &mut self,
        key: &LaneKey,
        places: &[PlaceId],
        changes: &[(Operation, AccountId)],
        deadline: Instant,
        undo: bool,
    ) {
        for (place, (operation, account)) in places.iter().zip(changes) {
            let of_account = self.accounts.entry((key.clone(), *account)).or_default();
            of_account.push(*place);
            let fact = Fact {
                key: key.clone(),
                operation: *operation,
                account: *account,
                deadline,
                calls: Vec::new(),
                recorded: false,
                late: false,
                abandoned: false,
                ended: None,
                undo,
            };
            self.facts.insert(*place, fact);
        }
    }

    pub(super) fn fact(&mut self, place: PlaceId) -> &mut Fact {
        self.facts
            .get_mut(&place)
            .expect("the judge knows every change")
    }

    pub(super) fn abandon(&mut self, place: PlaceId) {
        let ended = self.machine.abandon(self.now, place);
        if let Some(ended) = ended {
            let now = self.now;
            let fact = self.fact(place);
            fact.abandoned = ended.last == Last::Abandoned;
            fact.ended = Some((now, ended));
        }
        self.carry_out();
    }

    pub(super) fn hold(
        &mut self,
        image: u32,
        wait: Duration,
        then: Vec<(Operation, AccountId)>,
    ) -> HoldId {
        let id = self.machine.hold(self.now, &key(image), self.now + wait);
        self.holds.insert(id, key(image));
        self.replacements.insert(id, then);
        self.carry_out();
        id
    }

    pub(super) fn read(&mut self, wait: Duration) -> Option<ReadId> {
        let id = self.machine.read(self.now, self.now + wait, u32::MAX);
        self.carry_out();
        id
    }

    pub(super) fn list(&self, image: u32) -> Vec<u64> {
        let list = self.lists.get(&key(image));
        list.into_iter()
            .flatten()
            .map(|account| account.get())
            .collect()
    }

    /// Does what the machine wants done, until it wants nothing.
    pub(super) fn carry_out(&mut self) {
        loop {
            let effects = self.machine.effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.carry_out_one(effect);
            }
        }
        self.most_waiting = self.most_waiting.max(self.machine.waiting());
        assert!(
            self.machine.in_flight() <= self.limits.max_in_flight,
            "too many calls in flight"
        );
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Call {
                id,
                modification,
                connection,
            } => self.call(id, modification, connection),
            Effect::Ended(place, ended) => {
                let now = self.now;
                let fact = self.fact(place);
                assert!(fact.ended.is_none(), "{place:?} ended twice");
                assert!(
                    fact.late || now <= fact.deadline,
                    "{place:?} was answered after its time"
                );
                fact.ended = Some((now, ended));
            }
            Effect::Late(place) => {
                let now = self.now;
                let fact = self.fact(place);
                assert!(!fact.late && fact.ended.is_none() && now == fact.deadline);
                fact.late = true;
            }
            Effect::Read(id, _) => {
                self.reads_sent.push((self.now, id));
                let error = failure(self.read_behaviour);
                let after = time_of(self.read_behaviour);
                self.comes(after, Coming::ReadEnds(id, error));
            }
            Effect::ReadEnded(id, why) => self.reads_ended.push((id, Err(Some(why)))),
            Effect::Held(id) => {
                if let Some((key, accounts)) = self.undos.remove(&id) {
                    self.comes(LATENCY, Coming::UndoLooks(id, key, accounts));
                } else {
                    self.held.push(id);
                    self.comes(LATENCY, Coming::HoldEnds(id));
                }
            }
            Effect::HoldEnded(id) => self.holds_timed_out.push(id),
            Effect::Look { id, key, until } => {
                assert!(until > self.now);
                let listed = failure(self.read_behaviour).is_none().then(|| {
                    self.lists
                        .get(&key)
                        .into_iter()
                        .flatten()
                        .copied()
                        .collect()
                });
                let after = time_of(self.read_behaviour).min(until - self.now);
                self.comes(after, Coming::LookEnds(id, listed));
            }
            Effect::Undo { key, accounts } => self.begin_undo(key, accounts),
        }
    }

    fn begin_undo(&mut self, key: LaneKey, accounts: Vec<AccountId>) {
        let deadline = self.now + Duration::from_hours(1);
        let id = self.machine.hold(self.now, &key, deadline);
        self.holds.insert(id, key.clone());
        self.undos.insert(id, (key, accounts));
    }

    /// Lets time pass until `until`, or until nothing comes any more.
    pub(super) fn run_until(&mut self, until: Instant) {
        loop {
            self.carry_out();
            let coming = self.coming.keys().next().map(|(at, _)| *at);
            let machine = self.machine.next_time(self.now);
            let Some(next) = coming
                .into_iter()
                .chain(machine)
                .min()
                .filter(|next| *next <= until)
            else {
                self.now = self.now.max(until);
                return;
            };
            self.now = self.now.max(next);
            if machine.is_some_and(|at| at <= self.now) {
                self.machine.time(self.now);
                self.carry_out();
            }
            while let Some(entry) = self.coming.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let coming = entry.remove();
                self.come(coming);
                self.carry_out();
            }
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Lets time pass until nothing is under way, the time of late landings included.
    pub(super) fn run_out(&mut self) {
        self.run_until(self.now + Duration::from_hours(2));
    }

    fn come(&mut self, coming: Coming) {
        match coming {
            Coming::CallEnds(id, result) => {
                self.sent.get_mut(&id).expect("a call that was sent").result = Some(result.clone());
                self.machine.answered(self.now, id, result);
            }
            Coming::Lands(id) => {
                let sent = &self.sent[&id];
                let key = (
                    sent.modification.region.clone(),
                    sent.modification.image_id.clone(),
                );
                let modification = sent.modification.clone();
                self.apply(&key, &modification);
            }
            Coming::Recorded(places) => {
                for place in &places {
                    self.fact(*place).recorded = true;
                }
                self.machine.recorded(&places);
            }
            Coming::NotRecorded(places) => {
                for place in places {
                    self.abandon(place);
                }
            }
            Coming::ReadEnds(id, error) => {
                let again = self.machine.read_answered(self.now, id, error.as_ref());
                if !again {
                    self.reads_ended
                        .push((id, error.map_or(Ok(()), |_| Err(None))));
                }
            }
            Coming::LookEnds(id, listed) => self.machine.looked(id, listed.as_deref()),
            Coming::HoldEnds(id) => self.end_hold(id),
            Coming::UndoLooks(id, key, accounts) => self.undo(id, &key, accounts),
            Coming::UndoAgain(key, accounts) => self.begin_undo(key, accounts),
        }
    }

    fn end_hold(&mut self, id: HoldId) {
        let changes = self.replacements.remove(&id).unwrap_or_default();
        if changes.is_empty() {
            self.machine.release(self.now, id);
            return;
        }
        let deadline = self.now + Duration::from_secs(30);
        let places = self.machine.replace(self.now, id, &changes, deadline);
        // Its intents are written now, behind those that were accepted while it held the lane.
        let key = self.holds[&id].clone();
        self.note(&key, &places, &changes, deadline, false);
        self.comes(Duration::from_millis(2), Coming::Recorded(places));
    }

    fn undo(&mut self, id: HoldId, key: &LaneKey, accounts: Vec<AccountId>) {
        let list = self.lists.get(key).cloned().unwrap_or_default();
        let (mut stand, mut later) = (Vec::new(), Vec::new());
        for account in accounts {
            match self.machine.must_be_undone(key, account) {
                Some(true) if list.contains(&account) => stand.push(account),
                Some(_) => self.machine.undone(self.now, key, account),
                None => later.push(account),
            }
        }
        if !later.is_empty() {
            let again = Coming::UndoAgain(key.clone(), later);
            self.comes(Duration::from_secs(15), again);
        }
        if stand.is_empty() {
            self.machine.release(self.now, id);
            return;
        }
        let changes: Vec<(Operation, AccountId)> = stand
            .iter()
            .map(|account| (Operation::Unshare, *account))
            .collect();
        let deadline = self.now + Duration::from_mins(1);
        let places = self.machine.replace(self.now, id, &changes, deadline);
        self.note(key, &places, &changes, deadline, true);
        self.comes(Duration::from_millis(2), Coming::Recorded(places));
        for account in stand {
            self.machine.undone(self.now, key, account);
        }
    }
}
