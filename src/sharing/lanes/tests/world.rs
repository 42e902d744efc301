//! A small world around the machine: a clock, callers, operators, and what comes of what the machine wants done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::judge::{Fact, Sent};
use super::upstream::{Behaviour, LATENCY, failure, time_of};
use crate::domain::{AccountId, Deadline, Operation, Party, Principal};
use crate::sharing::lanes::landings::{LANDING_TIME, Suspect};
use crate::sharing::lanes::machine::{
    Aftermath, CallId, Effect, Kind, LaneKey, Last, Limits, LookId, Machine, NoTurn, PlaceId,
    ReadId, ReadTerms, Terms, WaitId,
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
    HoldEnds(WaitId),
    Suspects(LaneKey, Vec<Suspect>),
}

/// What somebody at the door wants.
#[derive(Debug)]
enum Visitor {
    /// The list is to be exactly this; where there is none, it is only held.
    Replaces(LaneKey, Option<BTreeSet<AccountId>>),
    Enters(Entrant),
    Rehearses,
    PutsRight(LaneKey, Vec<Suspect>),
}

#[derive(Debug)]
struct Entrant {
    key: LaneKey,
    changes: Vec<(Operation, AccountId)>,
    asked: Terms,
    disk: Disk,
}

/// When intents are on disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Disk {
    AtOnce,
    After(Duration),
    Never,
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
    visitors: HashMap<WaitId, Visitor>,
    pub(super) sent: BTreeMap<CallId, Sent>,
    pub(super) calls: Vec<CallId>,
    pub(super) reads_ended: Vec<(ReadId, Result<(), Option<NoTurn>>)>,
    pub(super) reads_sent: Vec<(Instant, ReadId)>,
    /// What a read gets.
    pub(super) read_behaviour: Behaviour,
    pub(super) held: Vec<WaitId>,
    pub(super) waits_ended: Vec<WaitId>,
    pub(super) fences_passed: Vec<WaitId>,
    pub(super) most_waiting: usize,
    /// Whole-list replacements: what is left of each is to be done before anything later.
    pub(super) blocks: Vec<(LaneKey, Vec<PlaceId>)>,
    /// Changes that have not ended, as far as anybody asked.
    unended: BTreeSet<PlaceId>,
    /// Single changes that should be in one of the next two calls, and how many went without them.
    pub(super) hopeful: BTreeMap<PlaceId, u32>,
    /// By what nobody looks after any more: the last change that was noted.
    noted: HashMap<(LaneKey, AccountId), PlaceId>,
    /// What operators did by other means once nothing of the account could land any more.
    pub(super) outside: HashMap<(LaneKey, AccountId), Operation>,
    /// Accounts of which operators did anything ever.
    pub(super) once_outside: HashSet<(LaneKey, AccountId)>,
}

pub(super) fn party(number: u32) -> Party {
    let principal = Principal::of_first_issuer(&format!("team-{number}"), "https://issuer.example");
    Party::Subject(Arc::new(principal))
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
        shared: false,
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
            visitors: HashMap::new(),
            sent: BTreeMap::new(),
            calls: Vec::new(),
            reads_ended: Vec::new(),
            reads_sent: Vec::new(),
            read_behaviour: Behaviour::Does,
            held: Vec::new(),
            waits_ended: Vec::new(),
            fences_passed: Vec::new(),
            most_waiting: 0,
            blocks: Vec::new(),
            unended: BTreeSet::new(),
            hopeful: BTreeMap::new(),
            noted: HashMap::new(),
            outside: HashMap::new(),
            once_outside: HashSet::new(),
        }
    }

    pub(super) fn comes(&mut self, after: Duration, coming: Coming) {
        self.order += 1;
        self.coming.insert((self.now + after, self.order), coming);
    }

    /// One party's changes, on disk at once; those that have to wait at the door come later.
    pub(super) fn change(
        &mut self,
        image: u32,
        changes: &[(Operation, u64)],
        wait: Duration,
    ) -> Vec<PlaceId> {
        self.change_by(0, image, changes, wait, Disk::AtOnce)
    }

    /// A party's changes.
    pub(super) fn change_by(
        &mut self,
        by: u32,
        image: u32,
        changes: &[(Operation, u64)],
        wait: Duration,
        disk: Disk,
    ) -> Vec<PlaceId> {
        let key = key(image);
        let kind = if changes.len() > 1 {
            Kind::Bulk
        } else {
            Kind::Single
        };
        let asked = Terms {
            party: party(by),
            kind,
            deadline: self.now + wait,
        };
        if !self.machine.has_room(&key, &asked.party, kind) {
            return Vec::new();
        }
        let entrant = Entrant {
            key: key.clone(),
            changes: changes
                .iter()
                .map(|(operation, number)| (*operation, account(*number)))
                .collect(),
            asked,
            disk,
        };
        if self.machine.is_open(&key, kind) {
            let places = self.admit(entrant);
            self.carry_out();
            return places;
        }
        let id = self
            .machine
            .queue_up(&key, entrant.changes.len(), &entrant.asked);
        self.visitors.insert(id, Visitor::Enters(entrant));
        Vec::new()
    }

    fn admit(&mut self, entrant: Entrant) -> Vec<PlaceId> {
        let Entrant {
            key,
            changes,
            asked,
            disk,
        } = entrant;
        let places = self.machine.admit(&key, &changes, &asked);
        self.note(&key, &places, &changes, &asked, false);
        match disk {
            Disk::AtOnce => {
                self.record(&places);
                self.machine.time(self.now);
            }
            Disk::After(after) => self.comes(after, Coming::Recorded(places.clone())),
            Disk::Never => self.comes(LATENCY, Coming::NotRecorded(places.clone())),
        }
        places
    }

    fn record(&mut self, places: &[PlaceId]) {
        for place in places {
            self.fact(*place).recorded = true;
            self.may_hope(*place);
        }
        self.machine.recorded(places);
    }

    /// Whether a change must be in one of the next two calls: nothing of its own party, of its account and of a
    /// whole-list replacement goes before it.
    fn may_hope(&mut self, place: PlaceId) {
        let facts = &self.facts;
        self.unended
            .retain(|place| facts.get(place).is_some_and(|fact| fact.ended.is_none()));
        let fact = &self.facts[&place];
        let live = |id: &PlaceId| {
            *id != place && self.facts[id].ended.is_none() && !self.machine.is_looked_at(*id)
        };
        let held = self.visitors.values().any(|visitor| {
            matches!(visitor, Visitor::Replaces(key, _) | Visitor::PutsRight(key, _) if *key == fact.key)
        });
        let block = self
            .blocks
            .iter()
            .any(|(key, places)| *key == fact.key && places.iter().any(live));
        let before = |id: &PlaceId| {
            let other = &self.facts[id];
            other.key == fact.key
                && (other.asked.party == fact.asked.party || other.account == fact.account)
                && live(id)
        };
        let alone = fact.asked.kind == Kind::Single && !fact.undo;
        if alone && !held && !block && !self.unended.iter().any(before) {
            self.hopeful.insert(place, 0);
        }
    }

    fn note(
        &mut self,
        key: &LaneKey,
        places: &[PlaceId],
        changes: &[(Operation, AccountId)],
        asked: &Terms,
        undo: bool,
    ) {
        for (place, (operation, account)) in places.iter().zip(changes) {
            let account_key = (key.clone(), *account);
            if !undo {
                self.outside.remove(&account_key);
            }
            self.accounts.entry(account_key).or_default().push(*place);
            let fact = Fact {
                key: key.clone(),
                operation: *operation,
                account: *account,
                asked: asked.clone(),
                deadline: asked.deadline,
                calls: Vec::new(),
                recorded: false,
                late: false,
                abandoned: false,
                crashed: false,
                ended: None,
                undo,
            };
            self.facts.insert(*place, fact);
            self.unended.insert(*place);
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

    /// Makes a list exactly this.
    pub(super) fn replace(
        &mut self,
        by: u32,
        image: u32,
        accounts: &[u64],
        wait: Duration,
    ) -> WaitId {
        let accounts = accounts.iter().map(|number| account(*number)).collect();
        let deadline = self.now + wait;
        let id = self
            .machine
            .hold(self.now, &key(image), party(by), deadline);
        let visitor = Visitor::Replaces(key(image), Some(accounts));
        self.visitors.insert(id, visitor);
        self.carry_out();
        id
    }

    /// A dry run.
    pub(super) fn rehearse(&mut self, by: u32, image: u32, wait: Duration) -> WaitId {
        let deadline = self.now + wait;
        let id = self.machine.fence(&key(image), party(by), deadline);
        self.visitors.insert(id, Visitor::Rehearses);
        self.carry_out();
        id
    }

    pub(super) fn read(&mut self, wait: Duration) -> Option<ReadId> {
        let asked = ReadTerms {
            party: party(0),
            holds: false,
            deadline: self.now + wait,
            max_retries: u32::MAX,
        };
        let id = self.machine.read(self.now, asked);
        self.carry_out();
        id
    }

    /// An operator changes a list by other means, where nothing of the account is under way or may land.
    pub(super) fn change_outside(&mut self, image: u32, number: u64, operation: Operation) {
        let at = (key(image), account(number));
        let quiet = self.accounts.get(&at).into_iter().flatten().all(|place| {
            let fact = &self.facts[place];
            let over = |ended: Instant| self.now >= ended + Duration::from_mins(2);
            fact.ended.as_ref().is_some_and(|(ended, _)| over(*ended))
        });
        let noted = self
            .open_of(&at)
            .is_none_or(|last| self.noted.get(&at).is_some_and(|noted| *noted >= last));
        if !quiet || !noted {
            return;
        }
        let list = self.lists.entry(at.0.clone()).or_default();
        match operation {
            Operation::Share => list.insert(at.1),
            Operation::Unshare => list.remove(&at.1),
        };
        self.once_outside.insert(at.clone());
        self.outside.insert(at, operation);
    }

    /// The last change of an account of which a call may land.
    fn open_of(&self, at: &(LaneKey, AccountId)) -> Option<PlaceId> {
        let open = |place: &&PlaceId| {
            let fact = &self.facts[*place];
            fact.ended.as_ref().is_some_and(|(_, ended)| ended.may_land)
        };
        self.accounts.get(at)?.iter().rev().find(open).copied()
    }

    /// The program is killed and begins anew: what was sent is not known any more, what was on disk is.
    pub(super) fn restart(&mut self) {
        let (now, mut gone) = (self.now, Vec::new());
        for (place, fact) in &mut self.facts {
            if fact.ended.is_some() {
                continue;
            }
            if !fact.recorded {
                gone.push(*place);
                continue;
            }
            let ended = crate::sharing::lanes::machine::Ended {
                last: Last::Lost,
                calls: 0,
                may_have_applied: true,
                may_land: true,
                seen: None,
            };
            (fact.crashed, fact.ended) = (true, Some((now, ended)));
        }
        for place in &gone {
            if let Some(fact) = self.facts.remove(place)
                && let Some(places) = self.accounts.get_mut(&(fact.key, fact.account))
            {
                places.retain(|other| other != place);
            }
        }
        for sent in self.sent.values_mut().filter(|sent| sent.result.is_none()) {
            sent.result = Some(Err(
                super::upstream::failure(Behaviour::Hangs(false)).expect("a fault")
            ));
        }
        for (_, places) in &mut self.blocks {
            places.retain(|place| !gone.contains(place));
        }
        self.coming
            .retain(|_, coming| matches!(coming, Coming::Lands(_)));
        self.visitors.clear();
        self.hopeful.clear();
        let last_id = self.machine.last_id();
        self.machine = Machine::new(self.limits, last_id);
        self.machine.continue_after(last_id);
        for (at, places) in self.accounts.clone() {
            let noted = self.noted.get(&at).copied();
            let mut last = None;
            let mut may_land = Vec::new();
            for place in places {
                let fact = &self.facts[&place];
                let Some((_, ended)) = &fact.ended else {
                    continue;
                };
                if ended.may_land && noted.is_none_or(|noted| place > noted) {
                    may_land.push(fact.operation);
                }
                if ended.may_have_applied || ended.succeeded() {
                    let before = last == Some((fact.operation, true));
                    last = Some((fact.operation, ended.succeeded() || before));
                }
            }
            for operation in &may_land {
                let until = now + LANDING_TIME;
                self.machine.may_land(until, &at.0, at.1, *operation);
            }
            if let (Some((operation, succeeded)), false) = (last, may_land.is_empty()) {
                self.machine.was_last(&at.0, at.1, operation, succeeded);
            }
        }
        self.carry_out();
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
            Effect::Lock(_) | Effect::Unlock { .. } => panic!("there are no other gateways"),
            Effect::Granted(id) => self.granted(id),
            Effect::WaitEnded(id) => {
                if let Some(Visitor::PutsRight(key, accounts)) = self.visitors.remove(&id) {
                    self.later(key, accounts);
                }
                self.waits_ended.push(id);
            }
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
            Effect::LandingTimeOver {
                key,
                suspects,
                settled,
            } => {
                self.note_looked_after(&key, &settled);
                if !suspects.is_empty() {
                    self.comes(LATENCY, Coming::Suspects(key, suspects));
                }
            }
        }
    }

    fn granted(&mut self, id: WaitId) {
        match self.visitors.get(&id).expect("somebody waits") {
            Visitor::Enters(_) => {
                let Some(Visitor::Enters(entrant)) = self.visitors.remove(&id) else {
                    return;
                };
                let key = entrant.key.clone();
                self.admit(entrant);
                self.machine.entered(self.now, &key);
            }
            Visitor::Rehearses => {
                self.visitors.remove(&id);
                self.fences_passed.push(id);
            }
            Visitor::Replaces(..) | Visitor::PutsRight(..) => {
                self.held.push(id);
                self.comes(LATENCY, Coming::HoldEnds(id));
            }
        }
    }

    fn later(&mut self, key: LaneKey, suspects: Vec<Suspect>) {
        self.comes(Duration::from_secs(15), Coming::Suspects(key, suspects));
    }

    fn settle(&mut self, key: &LaneKey, suspect: Suspect) {
        if self.machine.looked_after(self.now, key, suspect) {
            self.note_looked_after(key, &[suspect.account_id]);
        }
    }

    fn note_looked_after(&mut self, key: &LaneKey, accounts: &[AccountId]) {
        for account in accounts {
            let at = (key.clone(), *account);
            if let Some(last) = self.open_of(&at) {
                self.noted.insert(at, last);
            }
        }
    }

    /// Looks first, and takes the lane only where something is wrong.
    fn look_after(&mut self, key: LaneKey, suspects: Vec<Suspect>) {
        let (wrong, later) = self.wrong(&key, suspects);
        if !wrong.is_empty() {
            let accounts = wrong.into_iter().map(|(_, suspect)| suspect).collect();
            let deadline = self.now + Duration::from_hours(1);
            let id = self.machine.hold(self.now, &key, Party::Gateway, deadline);
            self.visitors
                .insert(id, Visitor::PutsRight(key.clone(), accounts));
        }
        if !later.is_empty() {
            self.later(key, later);
        }
    }

    /// Those whose shares are not what was accepted last, and those of whom that is not to be said yet.
    fn wrong(
        &mut self,
        key: &LaneKey,
        suspects: Vec<Suspect>,
    ) -> (Vec<(Operation, Suspect)>, Vec<Suspect>) {
        let list = self.lists.get(key).cloned().unwrap_or_default();
        let (mut wrong, mut later) = (Vec::new(), Vec::new());
        for suspect in suspects {
            let listed = list.contains(&suspect.account_id);
            match self.machine.aftermath(key, suspect, listed) {
                Aftermath::AsAccepted => self.settle(key, suspect),
                Aftermath::Contradicted(operation) => wrong.push((operation, suspect)),
                Aftermath::Later => later.push(suspect),
            }
        }
        (wrong, later)
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
            Coming::Recorded(places) => self.record(&places),
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
            Coming::Suspects(key, accounts) => self.look_after(key, accounts),
        }
    }

    fn end_hold(&mut self, id: WaitId) {
        let deadline = self.now + Duration::from_secs(30);
        match self.visitors.remove(&id) {
            Some(Visitor::Replaces(key, Some(wanted)))
                if failure(self.read_behaviour).is_none() =>
            {
                let present = self.lists.get(&key).cloned().unwrap_or_default();
                let added = wanted.difference(&present);
                let added = added.map(|account| (Operation::Share, *account));
                let removed = present.difference(&wanted);
                let removed = removed.map(|account| (Operation::Unshare, *account));
                let changes: Vec<_> = added.chain(removed).collect();
                self.put_in_place(id, &key, &changes, deadline, false);
            }
            Some(Visitor::PutsRight(key, accounts)) => {
                let (wrong, later) = self.wrong(&key, accounts);
                assert!(later.is_empty(), "whoever holds the lane knows");
                let changes: Vec<_> = wrong
                    .iter()
                    .map(|(operation, suspect)| (*operation, suspect.account_id))
                    .collect();
                self.put_in_place(id, &key, &changes, deadline, true);
                for (_, suspect) in wrong {
                    self.settle(&key, suspect);
                }
            }
            _ => self.machine.release(self.now, id),
        }
    }

    fn put_in_place(
        &mut self,
        id: WaitId,
        key: &LaneKey,
        changes: &[(Operation, AccountId)],
        deadline: Instant,
        undo: bool,
    ) {
        let places = self.machine.replace(self.now, id, changes, deadline);
        let asked = Terms {
            party: Party::Gateway,
            kind: Kind::Bulk,
            deadline,
        };
        self.note(key, &places, changes, &asked, undo);
        self.blocks.push((key.clone(), places.clone()));
        self.comes(Duration::from_millis(2), Coming::Recorded(places));
    }
}
