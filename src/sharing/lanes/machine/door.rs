//! A lane's door: who is let in, when, and who has the lane for himself.
//!
//! A whole-list replacement reads the list and puts its changes in its place; nothing may come between. So it waits
//! until all that was accepted before it is done, and whoever comes after it waits at the door and is accepted behind
//! it: its intents are written after the replacement's, and so the order of effects, of intents and of events is one.
//!
//! Nobody's single change waits for long because of it. While a replacement waits for more than two calls, single
//! changes go before it; bulks do not, else it would wait for them in turn. And a party that had the lane while others
//! wait at the door has it again only after they were let in, so whoever waits there waits for one replacement of each
//! party at the most.
//!
//! A dry run reads behind what was accepted before it, too, but holds nobody up: it waits at a fence.

use std::collections::HashMap;
use std::time::Instant;

use crate::domain::{AccountId, Operation, Party};
use crate::upstream::ACCOUNTS_PER_LIST_MAX;

use super::capacity::Kind;
use super::lane::LaneState;
use super::words::{Effect, LaneKey, PlaceId, WaitId};
use super::{Alarm, Machine, Terms};

/// Changes that a replacement waits for, when nobody goes before it any more: two calls take them.
const HELD_FOR_MAX: usize = 2 * ACCOUNTS_PER_LIST_MAX;

/// Somebody at the door.
#[derive(Debug)]
pub(super) struct Wait {
    key: LaneKey,
    asked: Terms,
    waits_for: WaitsFor,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// To have the lane, once all of it is done.
    Hold {
        /// The last change that was accepted before it was first in line.
        behind: Option<PlaceId>,
        /// Whether so little of that is left that nobody goes before it any more.
        close: bool,
    },
    /// That so many changes are admitted.
    Enter { places: usize },
    /// That all is done that was accepted before.
    Fence,
}

/// Whether somebody waits to be let in.
fn enters_by(waits: &HashMap<WaitId, Wait>, id: WaitId) -> bool {
    waits.get(&id).is_some_and(|wait| wait.waits_for.enters())
}

impl WaitsFor {
    const HOLD: Self = Self::Hold {
        behind: None,
        close: false,
    };

    fn enters(self) -> bool {
        matches!(self, Self::Enter { .. })
    }

    /// What it takes of the room.
    fn places(self) -> usize {
        match self {
            Self::Enter { places } => places,
            Self::Hold { .. } | Self::Fence => 1,
        }
    }
}

impl Machine {
    /// Wants to hold a lane: nothing is sent from when that is granted until the holder is done.
    pub(in crate::sharing::lanes) fn hold(
        &mut self,
        now: Instant,
        key: &LaneKey,
        party: Party,
        deadline: Instant,
    ) -> WaitId {
        let id = self.wait(key, party, Kind::Bulk, deadline, WaitsFor::HOLD);
        self.lanes
            .entry(key.clone())
            .or_default()
            .line
            .push_back(id);
        self.want_lock(key);
        self.open_door(key);
        self.dispatch(now);
        id
    }

    /// Wants to know when all is done that was accepted before.
    pub(in crate::sharing::lanes) fn fence(
        &mut self,
        key: &LaneKey,
        party: Party,
        deadline: Instant,
    ) -> WaitId {
        let id = self.wait(key, party, Kind::Bulk, deadline, WaitsFor::Fence);
        self.lanes
            .entry(key.clone())
            .or_default()
            .fences
            .push_back(id);
        self.pass_fences(key);
        self.vanish(key);
        id
    }

    /// Whether changes may be admitted at once. Else they have to [`Self::queue_up`].
    pub(in crate::sharing::lanes) fn is_open(&mut self, key: &LaneKey, kind: Kind) -> bool {
        if !self.lock_lets_in(key) {
            return false;
        }
        let Some(lane) = self.lanes.get(key) else {
            return true;
        };
        if matches!(lane.state, LaneState::Held(_)) || lane.entering > 0 {
            return false;
        }
        let Some(first) = lane.line.front() else {
            return true;
        };
        // Whoever waits to enter waits behind a holder that is close.
        let Some(Wait {
            waits_for: WaitsFor::Hold { behind, close },
            ..
        }) = self.waits.get_mut(first)
        else {
            return false;
        };
        let behind = *behind.get_or_insert(PlaceId(self.last_id));
        let before = lane.live.range(..=behind);
        *close = *close || before.take(HELD_FOR_MAX + 1).count() <= HELD_FOR_MAX;
        !*close && kind == Kind::Single
    }

    /// Waits at the door with so many changes.
    pub(in crate::sharing::lanes) fn queue_up(
        &mut self,
        key: &LaneKey,
        places: usize,
        asked: &Terms,
    ) -> WaitId {
        let (party, waits_for) = (asked.party.clone(), WaitsFor::Enter { places });
        let id = self.wait(key, party, asked.kind, asked.deadline, waits_for);
        self.lanes
            .entry(key.clone())
            .or_default()
            .line
            .push_back(id);
        self.want_lock(key);
        id
    }

    fn wait(
        &mut self,
        key: &LaneKey,
        party: Party,
        kind: Kind,
        deadline: Instant,
        waits_for: WaitsFor,
    ) -> WaitId {
        let id = WaitId(self.next_id());
        self.capacity.take(key, &party, kind, waits_for.places());
        self.alarms.insert((deadline, Alarm::Wait(id)));
        let asked = Terms {
            party,
            kind,
            deadline,
        };
        let wait = Wait {
            key: key.clone(),
            asked,
            waits_for,
        };
        self.waits.insert(id, wait);
        id
    }

    /// Whoever was let in has been admitted, or does not want to any more.
    pub(in crate::sharing::lanes) fn entered(&mut self, now: Instant, key: &LaneKey) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.entering -= 1;
        }
        self.advance(key);
        self.dispatch(now);
    }

    /// The holder is done; or whoever waits at the door, or waited, does not any more.
    pub(in crate::sharing::lanes) fn release(&mut self, now: Instant, id: WaitId) {
        let Some(key) = self.forget_wait(id) else {
            return;
        };
        self.advance(&key);
        self.dispatch(now);
    }

    /// The holder gives its place to changes of its own, a block.
    pub(in crate::sharing::lanes) fn replace(
        &mut self,
        now: Instant,
        id: WaitId,
        changes: &[(Operation, AccountId)],
        deadline: Instant,
    ) -> Vec<PlaceId> {
        let Some(wait) = self.waits.get(&id) else {
            return Vec::new();
        };
        let key = wait.key.clone();
        let asked = Terms {
            deadline,
            ..wait.asked.clone()
        };
        let places = self.place(&key, changes, &asked, true);
        self.release(now, id);
        places
    }

    pub(super) fn wait_alarm(&mut self, id: WaitId) {
        if let Some(key) = self.forget_wait(id) {
            self.effects.push(Effect::WaitEnded(id));
            self.advance(&key);
        }
    }

    /// Takes somebody out of a lane's line, or its holder out of the lane.
    pub(super) fn forget_wait(&mut self, id: WaitId) -> Option<LaneKey> {
        let wait = self.waits.remove(&id)?;
        self.alarms.remove(&(wait.asked.deadline, Alarm::Wait(id)));
        if let Some(lane) = self.lanes.get_mut(&wait.key) {
            if lane.state == LaneState::Held(id) {
                lane.state = LaneState::Idle;
            } else {
                lane.line.retain(|waiting| *waiting != id);
                lane.fences.retain(|waiting| *waiting != id);
                self.no_longer_waits(&wait);
            }
        }
        Some(wait.key)
    }

    fn no_longer_waits(&mut self, wait: &Wait) {
        let (asked, places) = (&wait.asked, wait.waits_for.places());
        self.capacity
            .give_back(&wait.key, &asked.party, asked.kind, places);
    }

    /// Lets in who may be, and gives the lane to its holder once nothing of it is left.
    pub(super) fn open_door(&mut self, key: &LaneKey) {
        if !self.lock_lets_in(key) {
            return;
        }
        let waits = &mut self.waits;
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        while !matches!(lane.state, LaneState::Held(_))
            && let Some(first) = lane.line.front().copied()
        {
            if let Some(wait) = waits.get_mut(&first)
                && let WaitsFor::Hold { behind, .. } = &mut wait.waits_for
                && lane.entering == 0
            {
                behind.get_or_insert(PlaceId(self.last_id));
            }
            let Some(wait) = waits.get(&first) else {
                lane.line.pop_front();
                continue;
            };
            let enters = wait.waits_for.enters();
            if enters {
                lane.entering += 1;
            } else if lane.held_by.contains(&wait.asked.party)
                && lane.line.iter().any(|waiting| enters_by(waits, *waiting))
            {
                // It had the lane while they waited.
                let (entering, holding): (Vec<WaitId>, Vec<WaitId>) = lane
                    .line
                    .drain(..)
                    .partition(|waiting| enters_by(waits, *waiting));
                for holding in &holding {
                    if let Some(wait) = waits.get_mut(holding) {
                        wait.waits_for = WaitsFor::HOLD;
                    }
                }
                lane.line.extend(entering.into_iter().chain(holding));
                lane.held_by.clear();
                continue;
            } else if lane.live.is_empty() && lane.entering == 0 && lane.state == LaneState::Idle {
                lane.state = LaneState::Held(first);
                lane.held_by.insert(wait.asked.party.clone());
            } else {
                break;
            }
            lane.line.pop_front();
            self.alarms
                .remove(&(wait.asked.deadline, Alarm::Wait(first)));
            let (asked, places) = (&wait.asked, wait.waits_for.places());
            self.capacity
                .give_back(key, &asked.party, asked.kind, places);
            if enters {
                waits.remove(&first);
            }
            self.effects.push(Effect::Granted(first));
        }
        if !lane.line.iter().any(|waiting| enters_by(waits, *waiting))
            && !matches!(lane.state, LaneState::Held(_))
        {
            lane.held_by.clear();
        }
    }

    /// Tells those behind fences for whom nothing is left to wait for.
    pub(super) fn pass_fences(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        let mut passed = Vec::new();
        while let Some(fence) = lane.fences.front().copied()
            && lane.live.first().is_none_or(|first| first.0 > fence.0)
        {
            lane.fences.pop_front();
            passed.push(fence);
        }
        for fence in passed {
            self.forget_wait(fence);
            self.effects.push(Effect::Granted(fence));
        }
    }

    /// A lane exists while it has work.
    pub(super) fn vanish(&mut self, key: &LaneKey) {
        let idle = self.lanes.get(key).is_some_and(|lane| {
            lane.state == LaneState::Idle
                && lane.live.is_empty()
                && lane.line.is_empty()
                && lane.fences.is_empty()
                && lane.entering == 0
        });
        if idle {
            self.lanes.remove(key);
        }
        self.settle_lock(key);
    }

    /// Whether somebody holds his lane still.
    pub(in crate::sharing::lanes) fn holds(&self, id: WaitId) -> bool {
        self.waits.contains_key(&id)
    }
}
