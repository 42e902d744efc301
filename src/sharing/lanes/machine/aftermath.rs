//! What becomes of changes that may land late.

use std::time::Instant;

use crate::domain::{AccountId, Operation};

use crate::sharing::lanes::landings::{LANDING_TIME, LookedAfter, Suspect};

use super::words::{Aftermath, Effect, LaneKey, PlaceId};
use super::{Alarm, Doubt, Machine};

impl Machine {
    /// Whether an account's share, which is listed or not, is what was accepted last.
    pub(in crate::sharing::lanes) fn aftermath(
        &self,
        key: &LaneKey,
        suspect: Suspect,
        listed: bool,
    ) -> Aftermath {
        let lane = self.lanes.get(key);
        if lane.is_some_and(|lane| lane.has_live(suspect.account_id)) {
            return Aftermath::Later;
        }
        match self.landings.suspected(key, suspect) {
            Some(last) if listed != (last == Operation::Share) => Aftermath::Contradicted(last),
            Some(_) | None => Aftermath::AsAccepted,
        }
    }

    /// Whether an account is looked after still: else others have the image by now, or had it.
    pub(in crate::sharing::lanes) fn is_looked_after(
        &self,
        key: &LaneKey,
        suspect: Suspect,
    ) -> bool {
        self.landings.is_looked_after(key, suspect)
    }

    /// An account was looked after. Returns whether that is all: else something may land anew, and it is looked after
    /// again, here or elsewhere.
    pub(in crate::sharing::lanes) fn looked_after(
        &mut self,
        now: Instant,
        key: &LaneKey,
        suspect: Suspect,
    ) -> bool {
        let is_over = match self.landings.looked_after(now, key, suspect) {
            LookedAfter::Again(next) => {
                self.alarms.insert((next, Alarm::Landing(key.clone())));
                false
            }
            LookedAfter::Over => true,
            LookedAfter::Elsewhere => false,
        };
        self.told = Some(now);
        if !self.landings.has_due(now, key) {
            self.locks.look_ended(key);
        }
        self.settle_lock(key);
        is_over
    }

    /// Nobody looks after an account any more, though what became of it is not known.
    pub(in crate::sharing::lanes) fn gave_up(
        &mut self,
        now: Instant,
        key: &LaneKey,
        suspect: Suspect,
    ) {
        if let Some(again) = self.landings.gave_up(now, key, suspect) {
            self.alarms.insert((again, Alarm::Landing(key.clone())));
            self.told = Some(now);
            self.settle_lock(key);
        }
    }

    /// A call with such a change, another run's or another gateway's, may take effect until then.
    pub(in crate::sharing::lanes) fn may_land(
        &mut self,
        until: Instant,
        key: &LaneKey,
        account_id: AccountId,
        operation: Operation,
    ) {
        if let Some(until) = self.landings.may_land(until, key, account_id, operation) {
            self.alarms.insert((until, Alarm::Landing(key.clone())));
        }
    }

    /// Another run of the program had this as the account's last change.
    pub(in crate::sharing::lanes) fn was_last(
        &mut self,
        key: &LaneKey,
        account_id: AccountId,
        operation: Operation,
        succeeded: bool,
    ) {
        self.landings
            .was_last(key, account_id, operation, succeeded);
    }

    /// Accounts of which changes may land late.
    pub(in crate::sharing::lanes) fn landings(&self) -> usize {
        self.landings.len()
    }

    pub(super) fn landing_alarm(&mut self, now: Instant, key: LaneKey) {
        let lane = self.lanes.get(&key);
        let waits = |account_id| lane.is_some_and(|lane| lane.has_live(account_id));
        let due = self.landings.due(now, &key, waits);
        if let Some(next) = due.next {
            self.alarms.insert((next, Alarm::Landing(key.clone())));
        }
        if !(due.suspects.is_empty() && due.settled.is_empty()) {
            self.effects.push(Effect::LandingTimeOver {
                key,
                suspects: due.suspects,
                settled: due.settled,
            });
        }
    }

    /// Notes of a change that was in a call of which nobody knows, and that was not made up for, that it may land.
    pub(super) fn note_open(&mut self, now: Instant, id: PlaceId) {
        let place = self.places.get(&id);
        if place.is_some_and(|place| place.doubt == Doubt::MayHaveApplied) {
            self.note_may_have_applied(now, id);
        }
    }

    /// A call ended, and may have taken effect, or may yet.
    pub(super) fn note_may_have_applied(&mut self, now: Instant, id: PlaceId) {
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        place.doubt = Doubt::MayLand;
        let (key, account_id, operation) = (place.key.clone(), place.account_id, place.operation);
        // Where others have the image it is theirs to look after.
        if self.has_lock(&key) {
            self.may_land(now + LANDING_TIME, &key, account_id, operation);
        }
    }
}
