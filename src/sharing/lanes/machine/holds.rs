//! Holding a lane: whoever holds it reads, and nothing of this gateway comes between what it reads and the changes
//! that it puts in its place.

use std::time::Instant;

use crate::domain::{AccountId, Operation};

use super::words::{HoldId, LaneKey, PlaceId};
use super::{Alarm, Entry, LaneState, Machine};

#[derive(Debug)]
pub(super) struct Hold {
    pub(super) key: LaneKey,
    pub(super) deadline: Instant,
}

impl Machine {
    /// Wants to hold a lane: nothing is sent from when it is [`Effect::Held`] until the holder is done.
    pub(in crate::sharing::lanes) fn hold(
        &mut self,
        now: Instant,
        key: &LaneKey,
        deadline: Instant,
    ) -> HoldId {
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

    pub(super) fn forget_hold(&mut self, key: &LaneKey) {
        self.waiting -= 1;
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.waiting -= 1;
        }
    }

    /// The holder is done, or gone.
    pub(in crate::sharing::lanes) fn release(&mut self, now: Instant, id: HoldId) {
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

    /// The holder gives its place, the first, to changes of its own. What was accepted while it held the lane stands
    /// before it in the trail, so a change of an account that waits already goes behind it.
    pub(in crate::sharing::lanes) fn replace(
        &mut self,
        now: Instant,
        id: HoldId,
        changes: &[(Operation, AccountId)],
        deadline: Instant,
    ) -> Vec<PlaceId> {
        let Some(key) = self.holds.get(&id).map(|hold| hold.key.clone()) else {
            return Vec::new();
        };
        let waits: Vec<bool> = changes
            .iter()
            .map(|(_, account_id)| self.last_waiting(&key, *account_id).is_some())
            .collect();
        let places = self.place(&key, changes, deadline);
        let (mut first, mut behind) = (Vec::new(), Vec::new());
        for (place, waits) in places.iter().zip(waits) {
            if waits { &mut behind } else { &mut first }.push(Entry::Place(*place));
        }
        let lane = self.lane(&key);
        for entry in first.into_iter().rev() {
            lane.queue.push_front(entry);
        }
        lane.queue.extend(behind);
        lane.waiting += places.len();
        self.waiting += places.len();
        self.release(now, id);
        places
    }
}
