//! The locks of images, where several gateways share a trail.
//!
//! A lane lets changes in only while this gateway has its image's lock, so that the order of places, of intents and of
//! effects is one over all gateways. A lock is kept for a moment when nothing is left to do, since the next change may come here, and
//! as long as changes may land late, since whoever has it looks after them. Once others wait for it, it is let go as
//! soon as nothing is under way; after some calls nobody is let in any more until it comes back.
//!
//! Where there is one gateway, every lock is had.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::lane::LaneState;
use super::words::{Effect, LaneKey, Last, PlaceId};
use super::{Alarm, At, Machine};

/// How long a lock is kept that nobody has a use for.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// How long one is kept from others at the most, for the sake of a look.
const LOOK_KEPT_TIME: Duration = Duration::from_secs(5);
/// How long after that began it is not kept so again.
const KEPT_AGAIN_TIME: Duration = Duration::from_mins(1);
/// Calls that are made while others wait, before nobody is let in.
const CALLS_MAX: u32 = 8;

/// What this gateway has of an image's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// It stands in line.
    Asked,
    /// It has it.
    Held {
        /// Calls that were made since others wait for it; `None` while nobody does.
        wanted: Option<u32>,
        /// Since when it has had no use; somebody looks again later.
        idle: Option<Instant>,
    },
}

/// The locks that this gateway has, or wants.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// Whether there are other gateways.
    shared: bool,
    of: HashMap<LaneKey, Lock>,
    /// Since when images are kept from others for the sake of a look at what landed late.
    kept: HashMap<LaneKey, Instant>,
}

impl Locks {
    pub(super) fn new(shared: bool) -> Self {
        Self {
            shared,
            of: HashMap::new(),
            kept: HashMap::new(),
        }
    }

    /// Until when an image may be kept from others for the sake of a look; `None` where that was long enough: the upstream does not
    /// say who has it, and will not so soon.
    fn kept_until(&mut self, now: Instant, key: &LaneKey) -> Option<Instant> {
        let lately = |since: Instant| now < since + KEPT_AGAIN_TIME;
        self.kept.retain(|_, since| lately(*since));
        let since = *self.kept.entry(key.clone()).or_insert(now);
        Some(since + LOOK_KEPT_TIME).filter(|until| now < *until)
    }

    /// What an image was kept for is known.
    pub(super) fn look_ended(&mut self, key: &LaneKey) {
        self.kept.remove(key);
    }

    /// Whether calls may be made.
    fn has(&self, key: &LaneKey) -> bool {
        !self.shared || matches!(self.of.get(key), Some(Lock::Held { .. }))
    }

    /// Whether changes may be let in.
    fn lets_in(&self, key: &LaneKey) -> bool {
        match self.of.get(key) {
            Some(Lock::Held { wanted, .. }) => wanted.is_none_or(|calls| calls < CALLS_MAX),
            Some(Lock::Asked) | None => !self.shared,
        }
    }

    fn called(&mut self, key: &LaneKey) {
        if let Some(Lock::Held {
            wanted: Some(calls),
            ..
        }) = self.of.get_mut(key)
        {
            *calls += 1;
        }
    }
}

impl Machine {
    /// The time is this now.
    pub(in crate::sharing::lanes) fn tell(&mut self, now: Instant) {
        self.told = Some(now);
    }

    /// Whether calls may be made for an image.
    pub(super) fn has_lock(&self, key: &LaneKey) -> bool {
        self.locks.has(key)
    }

    /// Whether changes of an image may be let in.
    pub(super) fn lock_lets_in(&self, key: &LaneKey) -> bool {
        self.locks.lets_in(key)
    }

    /// A call was made for an image.
    pub(super) fn lock_called(&mut self, key: &LaneKey) {
        self.locks.called(key);
    }

    /// Asks for an image's lock, where that was not done.
    pub(super) fn want_lock(&mut self, key: &LaneKey) {
        if self.locks.shared && !self.locks.of.contains_key(key) {
            self.locks.of.insert(key.clone(), Lock::Asked);
            self.effects.push(Effect::Lock(key.clone()));
        }
    }

    /// Asks for a lock for the sake of changes that may land late, of which others left the care.
    pub(in crate::sharing::lanes) fn look_after(&mut self, key: &LaneKey) {
        self.want_lock(key);
    }

    /// This gateway has an image's lock from now on.
    pub(in crate::sharing::lanes) fn locked(&mut self, now: Instant, key: &LaneKey, wanted: bool) {
        self.told = Some(now);
        let held = Lock::Held {
            wanted: wanted.then_some(0),
            idle: None,
        };
        match self.locks.of.get_mut(key) {
            Some(lock @ Lock::Asked) => *lock = held,
            Some(Lock::Held { .. }) => return,
            None => {
                self.locks.of.insert(key.clone(), held);
            }
        }
        self.advance(key);
        self.settle_lock(key);
        self.dispatch(now);
    }

    /// Others wait for an image's lock.
    pub(in crate::sharing::lanes) fn lock_wanted(&mut self, now: Instant, key: &LaneKey) {
        self.told = Some(now);
        match self.locks.of.get_mut(key) {
            Some(Lock::Held { wanted, .. }) => {
                wanted.get_or_insert(0);
                self.settle_lock(key);
            }
            Some(Lock::Asked) => {}
            // It was handed over to whom has no use for it, and who has not looked what those before left.
            None => self.effects.push(Effect::Unlock {
                key: key.clone(),
                unsure: true,
            }),
        }
    }

    /// Lets a lock go that others wait for, once nothing is under way; notes since when nobody has a use for it.
    pub(super) fn settle_lock(&mut self, key: &LaneKey) {
        let Some(Lock::Held { wanted, idle }) = self.locks.of.get_mut(key) else {
            return;
        };
        let lane = self.lanes.get(key);
        let under_way = lane.is_some_and(|lane| {
            lane.state != LaneState::Idle || !lane.live.is_empty() || lane.entering > 0
        });
        if under_way {
            *idle = None;
            return;
        }
        if wanted.is_some() {
            // Else nobody would ever come to look while the image goes round.
            if let Some(now) = self.told
                && self.landings.has_due(now, key)
                && let Some(until) = self.locks.kept_until(now, key)
            {
                self.alarms.insert((until, Alarm::Lock(key.clone())));
                return;
            }
            let waits = lane.is_some_and(|lane| !lane.line.is_empty());
            self.let_go(key);
            if waits {
                self.want_lock(key);
            }
        } else if let Some(now) = self.told
            && lane.is_none()
            && idle.is_none()
        {
            *idle = Some(now);
            self.alarms
                .insert((now + IDLE_TIME, Alarm::Lock(key.clone())));
        }
    }

    /// Somebody looks again whether a lock has a use.
    pub(super) fn lock_alarm(&mut self, now: Instant, key: &LaneKey) {
        let Some(Lock::Held { wanted, idle, .. }) = self.locks.of.get_mut(key) else {
            return;
        };
        if wanted.is_some() {
            self.settle_lock(key);
            return;
        }
        let Some(since) = *idle else {
            return;
        };
        if since + IDLE_TIME > now {
            self.alarms
                .insert((since + IDLE_TIME, Alarm::Lock(key.clone())));
        } else if self.landings.has(key) {
            *idle = Some(now);
            self.alarms
                .insert((now + IDLE_TIME, Alarm::Lock(key.clone())));
        } else {
            self.let_go(key);
        }
    }

    /// Lets a lock go. Whoever has it next looks after what may land late.
    fn let_go(&mut self, key: &LaneKey) {
        self.locks.of.remove(key);
        let unsure = self.landings.forget(key);
        self.effects.push(Effect::Unlock {
            key: key.clone(),
            unsure,
        });
    }

    /// Lets all locks go of whose images nothing is under way.
    pub(in crate::sharing::lanes) fn leave(&mut self) {
        let keys: Vec<LaneKey> = self.locks.of.keys().cloned().collect();
        for key in keys {
            let held = matches!(self.locks.of.get(&key), Some(Lock::Held { .. }));
            if held && !self.lanes.contains_key(&key) {
                self.let_go(&key);
            }
        }
    }

    /// All locks are lost: another gateway has taken over. What was not sent never will be; calls under way end as they do.
    pub(in crate::sharing::lanes) fn locks_lost(&mut self, now: Instant) {
        self.told = Some(now);
        self.locks.of.clear();
        for call in self.calls.values_mut() {
            call.cut_off = true;
        }
        let lanes: Vec<LaneKey> = self.lanes.keys().cloned().collect();
        for key in lanes {
            self.cut_off(&key);
            match self.lanes.get(&key).map(|lane| lane.state) {
                // Whoever holds it learns of it as he wants to go on.
                Some(LaneState::Held(holder)) => {
                    self.forget_wait(holder);
                }
                Some(LaneState::Resting(until)) => {
                    self.alarms.remove(&(until, Alarm::Lane(key.clone())));
                    if let Some(lane) = self.lanes.get_mut(&key) {
                        lane.state = LaneState::Idle;
                    }
                }
                _ => {}
            }
            if self
                .lanes
                .get(&key)
                .is_some_and(|lane| !lane.line.is_empty())
            {
                self.want_lock(&key);
            }
            self.advance(&key);
        }
        if self.locks.shared {
            self.landings.clear();
        }
        self.dispatch(now);
    }

    /// Ends what waits in a lane for a call.
    pub(super) fn cut_off(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get(key) else {
            return;
        };
        for id in lane.live.iter().copied().collect::<Vec<PlaceId>>() {
            let waits =
                |place: &super::PlacedChange| matches!(place.at, At::Queue { .. } | At::Part);
            if self.places.get(&id).is_some_and(waits) {
                self.end(id, Last::CutOff);
            }
        }
    }

    /// Nobody waits for locks that cannot be had.
    pub(in crate::sharing::lanes) fn refuse_waits(&mut self, now: Instant) {
        self.told = Some(now);
        let waits: Vec<_> = self
            .lanes
            .iter()
            .filter(|(key, _)| !self.locks.has(key))
            .flat_map(|(_, lane)| lane.line.iter().copied())
            .collect();
        for id in waits {
            self.wait_alarm(id);
        }
    }

    /// Whether nothing is left of locks.
    #[cfg(test)]
    pub(super) fn has_no_locks(&self) -> bool {
        self.locks.of.is_empty()
    }
}
