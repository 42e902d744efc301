//! How a lane comes to its call.

use std::time::{Duration, Instant};

use crate::sharing::lanes::batch::{Batch, Candidate};
use crate::sharing::lanes::gate::{Kind, Turn};
use crate::upstream::Connection;

use super::words::{CallId, Effect, LaneKey, Last, PlaceId};
use super::{Alarm, At, Call, Entry, LaneState, Machine, Part};

impl Machine {
    /// Moves an idle lane on: it vanishes, is held, or stands in line.
    pub(super) fn advance(&mut self, key: &LaneKey) {
        if self.tidy(key) {
            self.lane(key).state = LaneState::InLine;
            self.gate.line_up(Turn::Lane(key.clone()));
        }
    }

    /// Drops what has ended from the front of an idle lane; it vanishes where nothing is left, and is held where
    /// its holder's turn has come. Returns whether changes wait in it that may want a call.
    pub(super) fn tidy(&mut self, key: &LaneKey) -> bool {
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
    pub(super) fn dispatch(&mut self, now: Instant) {
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
            // One whose time is up ends as soon as the clock says so.
            let place = places.get(id).filter(|place| place.deadline > now)?;
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
