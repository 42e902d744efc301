//! How a lane comes to its call.

use std::time::{Duration, Instant};

use crate::sharing::lanes::batch::Batch;
use crate::sharing::lanes::gate::{Purpose, Turn};
use crate::sharing::lanes::queue::Passed;
use crate::upstream::{ACCOUNTS_PER_LIST_MAX, Connection, Effort};

use super::halves::Half;
use super::lane::{LaneState, Part};
use super::words::{CallId, Effect, LaneKey, Last, PlaceId};
use super::{Alarm, At, CallInFlight, Machine, candidate};

impl Machine {
    /// Moves an idle lane on: it vanishes, is held, or stands in line.
    pub(super) fn advance(&mut self, key: &LaneKey) {
        if self.tidy(key)
            && let Some(lane) = self.lanes.get_mut(key)
        {
            lane.state = LaneState::InLine;
            self.gate.line_up(Turn::Lane(key.clone()));
        }
    }

    /// Lets in who waits at the door. Returns whether the lane is idle and changes wait in it that may want a call;
    /// it vanishes where nothing is left.
    pub(super) fn tidy(&mut self, key: &LaneKey) -> bool {
        self.open_door(key);
        let Some(lane) = self.lanes.get_mut(key) else {
            return false;
        };
        if lane.state != LaneState::Idle {
            return false;
        }
        lane.tidy_parts(&self.places);
        self.take_apart_refused(key);
        self.vanish(key);
        self.lanes
            .get(key)
            .is_some_and(|lane| !lane.live.is_empty())
    }

    /// Lets call whose turn it is, as long as calls may be made.
    pub(super) fn dispatch(&mut self, now: Instant) {
        while let Some(turn) = self.gate.next(now) {
            match turn {
                Turn::Lane(key) => self.call(now, &key),
                Turn::Read(id, _) => self.begin_read(now, id),
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
        if !self.has_lock(key) {
            self.cut_off(key);
            self.tidy(key);
            return;
        }
        if let Some(wait) = self.gate.refusal(now) {
            self.refuse(now, key, wait);
            self.tidy(key);
            return;
        }
        let (part, batch) = self.next_batch(now, key);
        if batch.is_empty() {
            // Nothing of it is on disk yet, or all of it was given up. What gets to disk moves the lane on.
            self.tidy(key);
            return;
        }
        for id in batch.places() {
            if let Some(place) = self.places.get_mut(id) {
                place.at = At::Call;
                place.calls += 1;
                let asked = &place.asked;
                self.capacity
                    .give_back(&place.key, &asked.party, asked.kind, 1);
            }
        }
        let parted = part.is_some();
        let (connection, effort, open, half) = part.map_or(
            (Connection::Pooled, Effort::First, true, Half::Whole),
            |part| (part.connection, part.effort, part.open, part.half),
        );
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.state = LaneState::Calling;
            lane.parted = parted;
        }
        self.lock_called(key);
        let begun = self.gate.begin(now, Purpose::Change, effort);
        let id = CallId(self.next_id());
        self.effects.push(Effect::Call {
            id,
            modification: batch.modification(key.0.clone(), key.1.clone()),
            connection,
        });
        let call = CallInFlight {
            key: key.clone(),
            batch,
            connection,
            open,
            half,
            begun,
            cut_off: false,
        };
        self.calls.insert(id, call);
    }

    /// What the next call carries, and the part that it carries again.
    ///
    /// Parts go before the queue. But between two that nobody may join, or can, others have a turn: a call that is
    /// taken apart, or made again, may take many.
    fn next_batch(&mut self, now: Instant, key: &LaneKey) -> (Option<Part>, Batch) {
        let (places, mut batch) = (&self.places, Batch::default());
        let Some(lane) = self.lanes.get_mut(key) else {
            return (None, batch);
        };
        let look = |id| candidate(places, now, id);
        lane.tidy_parts(places);
        let in_block = lane.live_in_block > 0;
        let alone = |part: &Part| !part.open || part.places.len() >= ACCOUNTS_PER_LIST_MAX;
        if lane.parted && !in_block && lane.parts.front().is_some_and(alone) {
            let passed = lane.passed(places);
            lane.queue.fill(&mut batch, &passed, look);
            if !batch.is_empty() {
                return (None, batch);
            }
        }
        let part = lane.parts.pop_front();
        for id in part.iter().flat_map(|part| &part.places) {
            // One whose time is up ends as soon as the clock says so.
            if let Some(place) = places.get(id).filter(|place| place.asked.deadline > now) {
                batch.take(place.operation, place.account_id, [*id]);
            }
        }
        if part.as_ref().is_none_or(|part| part.open) {
            if in_block {
                lane.queue.fill_from_block(&mut batch, look);
            } else {
                let passed = Passed {
                    accounts: lane.passed(places).accounts,
                    ..Passed::default()
                };
                lane.queue.fill(&mut batch, &passed, look);
            }
        }
        (part, batch)
    }

    /// The breaker is open: whoever could be sent is told so.
    fn refuse(&mut self, now: Instant, key: &LaneKey, wait: Duration) {
        let Some(lane) = self.lanes.get(key) else {
            return;
        };
        for id in lane.live.iter().copied().collect::<Vec<PlaceId>>() {
            let Some(place) = self.places.get(&id) else {
                continue;
            };
            if matches!(place.at, At::Call | At::Queue { recorded: false }) {
                continue;
            }
            match &place.failure {
                Some(_) => self.end_failed(now, &[id]),
                None => self.end(id, Last::BreakerOpen(wait)),
            }
        }
    }

    /// The breaker opened: nobody waits for a call that will not be made.
    pub(super) fn refuse_all(&mut self, now: Instant) {
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
        self.refuse_resting_reads(wait);
    }
}
