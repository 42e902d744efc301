//! A small world around the machine: a clock, an upstream that behaves as it is told, callers, and a judge who
//! watches every call and every answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::domain::{AccountId, Deadline, Operation};
use crate::sharing::lanes::machine::{
    CallId, Effect, Ended, HoldId, LaneKey, Last, Limits, LookId, Machine, NoTurn, PlaceId, ReadId,
};
use crate::upstream::{
    ACCOUNTS_PER_LIST_MAX, CallError, Cause, Connection, Fate, Modification, Modified, RetCode,
    Retry, Verdict,
};

/// What the upstream does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Does it and says so.
    Does,
    /// Refuses it.
    Refuses(i64),
    /// Answers with a status, having done it or not.
    Status(u16, Option<u64>, bool),
    /// Cannot be reached.
    Unreachable,
    /// Loses the connection, having done it or not.
    Loses(bool),
    /// Never answers, having done it or not.
    Hangs(bool),
    /// Never answers, and does it so many seconds after that.
    LandsLate(u64),
    /// Has closed the pooled connection as idle; over a fresh one it does it.
    ClosedIdle,
    /// Answers with what cannot be read, having done it or not.
    Babbles(bool),
}

/// How long a call takes that the upstream answers, and one that it does not.
pub(super) const LATENCY: Duration = Duration::from_millis(50);
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// From here up accounts do not exist; between, they spoil any call that names them.
pub(super) const POISON: u64 = 500;
pub(super) const MISSING: u64 = 900;

#[derive(Debug)]
enum Coming {
    CallEnds(CallId, Result<Modified, CallError>),
    Lands(CallId),
    Recorded(Vec<PlaceId>),
    NotRecorded(Vec<PlaceId>),
    ReadEnds(ReadId, Option<CallError>),
    LookEnds(LookId, Option<Vec<AccountId>>),
    HoldEnds(HoldId),
    UndoLooks(HoldId, LaneKey, Vec<AccountId>),
}

/// What the judge knows of a change.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a judge's notes")]
pub(super) struct Fact {
    /// The order in which changes were accepted; a holder's stand where it began to wait.
    pub(super) order: (u64, usize),
    pub(super) key: LaneKey,
    pub(super) operation: Operation,
    pub(super) account: AccountId,
    pub(super) deadline: Instant,
    pub(super) calls: Vec<CallId>,
    pub(super) recorded: bool,
    pub(super) late: bool,
    /// Whether it was given up while a call carried it.
    pub(super) abandoned: bool,
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

pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) machine: Machine,
    limits: Limits,
    /// Who has access, by image.
    pub(super) lists: HashMap<LaneKey, BTreeSet<AccountId>>,
    /// What the upstream does with the calls to come; the last goes on for ever.
    pub(super) behaviours: Vec<Behaviour>,
    coming: BTreeMap<(Instant, u64), Coming>,
    order: u64,
    pub(super) facts: BTreeMap<PlaceId, Fact>,
    /// The changes of an account, in the order in which they were accepted.
    pub(super) accounts: HashMap<(LaneKey, AccountId), Vec<PlaceId>>,
    accepted: u64,
    holds: HashMap<HoldId, (LaneKey, u64)>,
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
            accepted: 0,
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

    fn comes(&mut self, after: Duration, coming: Coming) {
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
        let order = self.accept();
        self.note(&key, order, &places, &changes, deadline, false);
        self.carry_out();
        places
    }

    fn accept(&mut self) -> u64 {
        self.accepted += 1;
        self.accepted
    }

    fn note(
        &mut self,
        key: &LaneKey,
        order: u64,
        places: &[PlaceId],
        changes: &[(Operation, AccountId)],
        deadline: Instant,
        undo: bool,
    ) {
        for (index, (place, (operation, account))) in places.iter().zip(changes).enumerate() {
            let of_account = self.accounts.entry((key.clone(), *account)).or_default();
            let behind =
                of_account.partition_point(|other| self.facts[other].order < (order, index));
            of_account.insert(behind, *place);
            let fact = Fact {
                order: (order, index),
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

    fn fact(&mut self, place: PlaceId) -> &mut Fact {
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
        let order = self.accept();
        self.holds.insert(id, (key(image), order));
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
            Effect::Undo { key, accounts } => {
                let id = self
                    .machine
                    .hold(self.now, &key, self.now + Duration::from_hours(1));
                let order = self.accept();
                self.holds.insert(id, (key.clone(), order));
                self.undos.insert(id, (key, accounts));
            }
        }
    }

    fn call(&mut self, id: CallId, modification: Modification, connection: Connection) {
        let key: LaneKey = (modification.region.clone(), modification.image_id.clone());
        self.judge_call(id, &key, &modification);
        let behaviour = if self.behaviours.len() > 1 {
            self.behaviours.remove(0)
        } else {
            self.behaviours[0]
        };
        let accounts: Vec<AccountId> = modification
            .additions
            .iter()
            .chain(&modification.removals)
            .copied()
            .collect();
        let missing: Vec<AccountId> = accounts
            .iter()
            .copied()
            .filter(|account| account.get() >= MISSING)
            .collect();
        let poisoned = accounts
            .iter()
            .any(|account| (POISON..MISSING).contains(&account.get()));
        let stale = behaviour == Behaviour::ClosedIdle && connection == Connection::Pooled;
        let reaches =
            !matches!(behaviour, Behaviour::Unreachable | Behaviour::Refuses(_)) && !stale;
        let spoiled = reaches && (poisoned || !missing.is_empty());
        let answers = matches!(behaviour, Behaviour::Does | Behaviour::ClosedIdle) && !stale;
        let result = if answers && poisoned {
            Err(refusal(240))
        } else if answers {
            let verdict = if missing.is_empty() {
                Verdict::Done
            } else {
                Verdict::InvalidAccounts(missing)
            };
            Ok(Modified {
                verdict,
                ret_code: 0,
                request_id: None,
            })
        } else if stale {
            Err(lost(true))
        } else {
            Err(failure(behaviour).expect("whatever does not answer fails"))
        };
        let applied = !spoiled
            && match behaviour {
                Behaviour::Does => true,
                Behaviour::ClosedIdle => !stale,
                Behaviour::Status(_, _, done)
                | Behaviour::Loses(done)
                | Behaviour::Hangs(done)
                | Behaviour::Babbles(done) => done,
                Behaviour::Refuses(_) | Behaviour::Unreachable | Behaviour::LandsLate(_) => false,
            };
        // A removal that lands late is not undone by anybody, so it does not come here.
        let lands = match behaviour {
            Behaviour::LandsLate(seconds) if !spoiled && modification.removals.is_empty() => {
                Some(seconds)
            }
            _ => None,
        };
        let took = time_of(behaviour);
        if let Some(seconds) = lands {
            self.comes(took + Duration::from_secs(seconds), Coming::Lands(id));
        }
        let sent = Sent {
            at: self.now,
            modification,
            connection,
            applied,
            lands: lands.is_some(),
            result: None,
        };
        if applied {
            self.apply(&key, &sent.modification);
        }
        self.sent.insert(id, sent);
        self.calls.push(id);
        self.comes(took, Coming::CallEnds(id, result));
    }

    fn apply(&mut self, key: &LaneKey, modification: &Modification) {
        let list = self.lists.entry(key.clone()).or_default();
        list.extend(&modification.additions);
        list.retain(|account| !modification.removals.contains(account));
    }

    /// What must hold of every call as it is sent.
    fn judge_call(&mut self, id: CallId, key: &LaneKey, modification: &Modification) {
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
                "changes of an account go in the order in which they were accepted"
            );
            for place in carried {
                let adds = additions.contains(&account);
                self.judge_sending(place, adds);
                self.fact(place).calls.push(id);
            }
        }
    }

    /// A change is sent once it is on disk, and again only where there was a reason.
    fn judge_sending(&self, place: PlaceId, adds: bool) {
        let fact = &self.facts[&place];
        assert!(fact.recorded, "what is sent is on disk");
        assert_eq!(adds, fact.operation == Operation::Share);
        let Some(last) = fact.calls.last() else {
            assert!(
                self.now < fact.deadline,
                "what was never sent when its time is up is not sent"
            );
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
            Err(error) if retried(error) => {
                assert!(
                    !fact.late && self.now < fact.deadline,
                    "no retry when the time is up"
                );
            }
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
            } else if matches!(&ended.last, Last::Failed(error) if error.may_depend_on_an_account())
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
                matches!(
                    &fact.ended,
                    Some((
                        _,
                        Ended {
                            last: Last::Answered(Modified {
                                verdict: Verdict::Done,
                                ..
                            }),
                            ..
                        }
                    ))
                )
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
        let (key, order) = self.holds[&id].clone();
        self.note(&key, order, &places, &changes, deadline, false);
        self.comes(Duration::from_millis(2), Coming::Recorded(places));
    }

    fn undo(&mut self, id: HoldId, key: &LaneKey, accounts: Vec<AccountId>) {
        let list = self.lists.get(key).cloned().unwrap_or_default();
        let (stand, settled): (Vec<AccountId>, Vec<AccountId>) =
            accounts.into_iter().partition(|account| {
                list.contains(account) && self.machine.must_be_undone(key, *account)
            });
        for account in settled {
            self.machine.undone(self.now, key, account);
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
        let order = self.holds[&id].1;
        self.note(key, order, &places, &changes, deadline, true);
        self.comes(Duration::from_millis(2), Coming::Recorded(places));
        for account in stand {
            self.machine.undone(self.now, key, account);
        }
    }
}

pub(super) fn refusal(code: i64) -> CallError {
    CallError::Refused {
        ret_code: RetCode::new(code),
        message: None,
        request_id: None,
    }
}

fn lost(pooled: bool) -> CallError {
    CallError::Lost {
        cause: Cause::new("simulated"),
        pooled,
    }
}

pub(super) fn failure(behaviour: Behaviour) -> Option<CallError> {
    match behaviour {
        Behaviour::Does | Behaviour::ClosedIdle => None,
        Behaviour::Refuses(code) => Some(refusal(code)),
        Behaviour::Status(status, seconds, _) => Some(CallError::Status {
            status,
            retry_after: seconds.map(Duration::from_secs),
            request_id: None,
        }),
        Behaviour::Unreachable => Some(CallError::Unreachable(Cause::new("simulated"))),
        Behaviour::Loses(_) => Some(lost(false)),
        Behaviour::Hangs(_) | Behaviour::LandsLate(_) => {
            Some(CallError::TimedOut(Cause::new("simulated")))
        }
        Behaviour::Babbles(_) => Some(CallError::Garbled {
            what: "simulated",
            ret_code: None,
            request_id: None,
        }),
    }
}

pub(super) fn time_of(behaviour: Behaviour) -> Duration {
    match behaviour {
        Behaviour::Hangs(_) | Behaviour::LandsLate(_) => CALL_TIMEOUT,
        _ => LATENCY,
    }
}

impl World {
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
