//! One order of changes over all gateways of a trail, and what becomes of what one of them left.
//!
//! Lanes say which images they want and which they have no use for any more; this asks the database for them, many at a
//! time, and tells lanes what they got. Whoever gets an image behind another gateway gives ids above that one's, waits until no call of
//! one that did not let go in order can go on any more, and looks after what its calls may bring about late. Beside that
//! each gateway looks for others that are gone: it ends their chains, frees their images and closes their intents.

mod inheritance;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, sleep};

use crate::audit::{FoundLock, Grant, Lease, LetGo, LockWord, Locks, Replicas, StoreError};
use crate::domain::Stopwatch;

use super::Parts;
use super::lanes::{LaneKey, Order, Orders};
use inheritance::inherit;
use watch::watch;

/// How often is asked again for what was not got: a word that it was may be lost.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How long nothing is asked after the database failed to answer.
const PAUSE: Duration = Duration::from_millis(250);
/// For how long rounds may fail before the gateway is not ready.
const UNSETTLED_TIME: Duration = Duration::from_secs(2);
/// Orders of one round.
const ORDERS_AT_ONCE: usize = 256;
/// Words that are heard in one turn.
const WORDS_AT_ONCE: usize = 256;
/// Images of which the last grant is remembered, at most about so many.
const NUMBERS_MAX: usize = 20_000;
/// For how long calls may take effect late, and a row take to the disk.
const UNSURE_TIME: Duration = Duration::from_secs(65);

/// Begins to settle with the other gateways who has which image, and to look after them.
pub(super) fn start(parts: &Arc<Parts>, replicas: Replicas, orders: Orders) {
    let Replicas {
        locks,
        neighbours,
        lease,
    } = replicas;
    let keeper = Keeper {
        parts: Arc::downgrade(parts),
        locks,
        lease: lease.clone(),
        chain: None,
        wanted: BTreeSet::new(),
        asked: BTreeSet::new(),
        held: BTreeSet::new(),
        inheriting: BTreeMap::new(),
        numbers: HashMap::new(),
        leaving: Vec::new(),
        unasked: Vec::new(),
        looks: false,
        left: Vec::new(),
        failing: None,
    };
    parts.tasks.serve(keeper.keep(orders));
    let watching = watch(Arc::downgrade(parts), neighbours, lease);
    parts.tasks.serve(watching);
}

/// Of an image: the number of the last grant that is known, and of the last that was let go.
#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    known: i64,
    left: i64,
}

/// What this gateway has, wants and lets go.
struct Keeper {
    parts: Weak<Parts>,
    locks: Locks,
    lease: Lease,
    /// The chain under which they are had.
    chain: Option<Arc<str>>,
    wanted: BTreeSet<LaneKey>,
    /// Those of them that are asked for in the next round.
    asked: BTreeSet<LaneKey>,
    held: BTreeSet<LaneKey>,
    /// Those of them that lanes may not use yet.
    inheriting: BTreeMap<LaneKey, Grant>,
    /// The number of the last grant that is known of each, whoever's it was: a word of another is an old one.
    numbers: HashMap<LaneKey, Numbers>,
    leaving: Vec<LetGo>,
    /// Those for which it stands in line no more.
    unasked: Vec<LaneKey>,
    /// Whether it is to look who waits for what it has.
    looks: bool,
    /// Who waits until all that is let go is.
    left: Vec<oneshot::Sender<()>>,
    /// Since when rounds fail.
    failing: Option<Stopwatch>,
}

impl Keeper {
    async fn keep(mut self, mut orders: Orders) {
        let mut chain = self.lease.chain();
        self.begin(chain.borrow_and_update().clone());
        // Not anew with each turn: where there is always something to do it would never come.
        let mut again = tokio::time::interval(ASK_INTERVAL);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut received = Vec::new();
            // Each in its turn, however much there is of another.
            tokio::select! {
                // As soon as it is: see below.
                changed = chain.changed() => match changed {
                    Ok(()) => chain.mark_changed(),
                    Err(_) => return,
                },
                count = orders.recv_many(&mut received, ORDERS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                }
                word = self.locks.word() => self.hear(word),
                _ = again.tick() => {
                    self.asked.extend(self.wanted.iter().cloned());
                    self.looks = true;
                }
            }
            // Before all else: what was had is another's.
            match chain.has_changed() {
                Ok(true) => {
                    let chain = chain.borrow_and_update().clone();
                    self.begin(chain);
                }
                Ok(false) => {}
                Err(_) => return,
            }
            for order in received {
                self.take_order(order);
            }
            for _ in 0..WORDS_AT_ONCE {
                let Some(word) = self.locks.word().now_or_never() else {
                    break;
                };
                self.hear(word);
            }
            match self.round().await {
                Ok(()) => {
                    self.failing = None;
                    self.lease.note_settling(true);
                }
                Err(error) => {
                    let since = *self.failing.get_or_insert_with(Stopwatch::start);
                    self.lease.note_settling(since.elapsed() < UNSETTLED_TIME);
                    if since.elapsed() < PAUSE {
                        tracing::warn!(error.message = %error, "the locks of images could not be settled; it is tried again, and changes wait");
                    }
                    sleep(PAUSE).await;
                }
            }
            let Some(parts) = self.parts.upgrade() else {
                return;
            };
            if !self.lease.holds() {
                parts.lanes.refuse_waits();
            }
        }
    }

    /// Another chain: what was had under the one before is another's.
    fn begin(&mut self, chain: Option<Arc<str>>) {
        self.locks.hang_up();
        (self.wanted, self.asked, self.held) = Default::default();
        self.looks = false;
        self.numbers.clear();
        self.inheriting.clear();
        self.leaving.clear();
        self.unasked.clear();
        self.left.clear();
        self.chain.clone_from(&chain);
        if let Some(parts) = self.parts.upgrade() {
            parts.lanes.lock_by(chain);
        }
    }

    fn take_order(&mut self, order: Order) {
        match order {
            Order::Lock(key) => {
                self.asked.insert(key.clone());
                self.wanted.insert(key);
            }
            Order::Unlock { key, unsure } => {
                self.held.remove(&key);
                let parts = self.parts.upgrade();
                let numbers = self.numbers.entry(key.clone()).or_default();
                numbers.left = numbers.known;
                self.leaving.push(LetGo {
                    number: numbers.known,
                    key,
                    last_event: parts.and_then(|parts| parts.writer.last_event()),
                    unsure: if unsure { UNSURE_TIME } else { Duration::ZERO },
                });
            }
            Order::Inherited(key, number) => self.inherited(&key, number),
            Order::NotInherited(key, number) => {
                if self.inheriting_ends(&key, number).is_some() {
                    self.held.remove(&key);
                    // It is asked for with the next tick.
                    self.wanted.insert(key);
                }
            }
            Order::Leave(left) => {
                self.leave();
                self.left.push(left);
            }
        }
    }

    /// Lanes have let all go that they have; this is what they do not have yet.
    fn leave(&mut self) {
        for (key, grant) in std::mem::take(&mut self.inheriting) {
            self.held.remove(&key);
            let numbers = self.numbers.entry(key.clone()).or_default();
            numbers.left = numbers.known;
            self.leaving.push(LetGo {
                number: grant.number,
                key,
                last_event: grant.last_event,
                unsure: UNSURE_TIME,
            });
        }
        self.asked.clear();
        self.unasked.extend(std::mem::take(&mut self.wanted));
    }

    fn hear(&mut self, word: LockWord) {
        match word {
            LockWord::Granted(grant) => {
                let last = self.numbers.get(&grant.key);
                let is_news = last.is_some_and(|last| grant.number > last.known);
                match self.chain.clone() {
                    Some(chain) if is_news && self.wanted.contains(&grant.key) => {
                        self.granted(&chain, grant);
                    }
                    // It may be an old one.
                    _ => drop(self.asked.insert(grant.key)),
                }
            }
            LockWord::Wanted(key) => {
                if let Some(grant) = self.inheriting.get_mut(&key) {
                    grant.wanted = true;
                } else if let Some(parts) =
                    self.parts.upgrade().filter(|_| self.held.contains(&key))
                {
                    parts.lanes.lock_wanted(&key);
                }
            }
            LockWord::Lost => {
                self.asked.extend(self.wanted.iter().cloned());
                self.asked.extend(self.held.iter().cloned());
            }
        }
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        let Some(chain) = self.chain.clone() else {
            self.left.clear();
            return Ok(());
        };
        if self.leaving.is_empty()
            && self.unasked.is_empty()
            && self.asked.is_empty()
            && !self.looks
        {
            self.left.clear();
            return Ok(());
        }
        if self.locks.open(&chain).await? {
            self.hear(LockWord::Lost);
        }
        if !self.leaving.is_empty() {
            self.locks.let_go(&chain, &self.leaving).await?;
            self.leaving.clear();
        }
        // Behind that: what is handed on is handed on as others left it.
        if !self.unasked.is_empty() {
            self.locks.step_back(&chain, &self.unasked).await?;
            self.unasked.clear();
        }
        // Whoever waits learns of it as the channel is dropped.
        self.left.clear();
        if self.looks {
            self.look(&chain).await?;
            self.looks = false;
        }
        if !self.asked.is_empty() {
            let asked: Vec<LaneKey> = self.asked.iter().cloned().collect();
            let found = self.locks.take(&chain, &asked).await?;
            self.asked.clear();
            for found in found {
                match found {
                    FoundLock::Mine(grant) => self.granted(&chain, grant),
                    FoundLock::Others(key, number) => self.note_number(key, number),
                }
            }
        }
        if self.numbers.len() > NUMBERS_MAX {
            let (wanted, held) = (&self.wanted, &self.held);
            self.numbers
                .retain(|key, _| wanted.contains(key) || held.contains(key));
        }
        Ok(())
    }

    /// Looks which of its locks others wait for: a word that they do may be lost, and so may the answer that it has one.
    async fn look(&mut self, chain: &Arc<str>) -> Result<(), StoreError> {
        for key in self.locks.wanted_of(chain).await? {
            if self.held.contains(&key) {
                self.hear(LockWord::Wanted(key));
            } else {
                self.asked.insert(key);
            }
        }
        Ok(())
    }

    /// Lanes may use an image that was another's.
    fn inherited(&mut self, key: &LaneKey, number: i64) {
        if let Some(grant) = self.inheriting_ends(key, number)
            && let Some((parts, chain)) = self.parts.upgrade().zip(self.chain.as_ref())
        {
            parts.lanes.locked(chain, key, grant.wanted);
        }
    }

    /// Nobody is at work any more on what others left of an image, if it is still by this grant that it is had.
    fn inheriting_ends(&mut self, key: &LaneKey, number: i64) -> Option<Grant> {
        self.inheriting
            .get(key)
            .filter(|grant| grant.number == number)?;
        self.inheriting.remove(key)
    }

    fn note_number(&mut self, key: LaneKey, number: i64) {
        let numbers = self.numbers.entry(key).or_default();
        numbers.known = numbers.known.max(number);
    }

    fn granted(&mut self, chain: &Arc<str>, grant: Grant) {
        let Some(parts) = self.parts.upgrade() else {
            return;
        };
        let left = self.numbers.get(&grant.key).map(|numbers| numbers.left);
        if left.is_some_and(|left| grant.number <= left) {
            // It was let go since then.
            return;
        }
        self.wanted.remove(&grant.key);
        self.note_number(grant.key.clone(), grant.number);
        if !self.held.insert(grant.key.clone()) {
            if let Some(inheriting) = self.inheriting.get_mut(&grant.key) {
                inheriting.wanted |= grant.wanted;
            } else if grant.wanted {
                parts.lanes.lock_wanted(&grant.key);
            }
            return;
        }
        if let Some(last_event) = grant.last_event {
            self.lease.follow(last_event);
        }
        if grant.wait.is_zero() && !grant.unsure {
            parts.lanes.locked(chain, &grant.key, grant.wanted);
            return;
        }
        self.inheriting.insert(grant.key.clone(), grant.clone());
        let inheriting = inherit(
            Arc::downgrade(&parts),
            Arc::clone(chain),
            self.lease.clone(),
            grant,
        );
        parts.tasks.serve(inheriting);
    }
}
