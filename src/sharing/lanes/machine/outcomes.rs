//! What a call brings to the changes that it carried.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::domain::{AccountId, Operation};
use crate::upstream::{CallError, Connection, Effort, Fate, Modified, Retry, Verdict, backoff};

use super::halves::Half;
use super::lane::{LaneState, Part};
use super::words::{CallId, Effect, Ended, Last, LookId, PlaceId};
use super::{Alarm, At, CallInFlight, Doubt, Machine, PlacedChange};

/// How long is looked, at most, what a change that ended unknown did.
const LOOK_TIME: Duration = Duration::from_secs(3);

impl Machine {
    /// A call was answered, or failed.
    pub(in crate::sharing::lanes) fn answered(
        &mut self,
        now: Instant,
        id: CallId,
        result: Result<Modified, CallError>,
    ) {
        let Some(mut call) = self.calls.remove(&id) else {
            return;
        };
        self.told = Some(now);
        let opened = self.gate.ended(now, &call.begun, result.as_ref().err());
        self.lanes.entry(call.key.clone()).or_default().state = LaneState::Idle;
        // Those that were given up meanwhile are gone.
        call.batch.keep(|place| self.places.contains_key(place));
        match result {
            _ if call.cut_off => self.ended_cut_off(&call, &result),
            Ok(modified) => self.succeeded(&call, &modified),
            Err(error) => self.failed(now, &call, &error),
        }
        if opened {
            self.refuse_all(now);
        }
        self.advance(&call.key);
        self.dispatch(now);
    }

    /// The task that made a call is gone, and with it what came of the call.
    pub(in crate::sharing::lanes) fn lost(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        self.gate.abandoned(now, &call.begun);
        self.lanes.entry(call.key.clone()).or_default().state = LaneState::Idle;
        for place in call.batch.places() {
            if call.cut_off {
                self.doubt(*place);
            } else {
                self.note_may_have_applied(now, *place);
            }
            self.end(*place, Last::Lost);
        }
        self.advance(&call.key);
        self.dispatch(now);
    }

    /// A call that was sent under a lock that is lost has ended. What it carried is not sent again, though the image may be this gateway's
    /// anew, since changes of others came in between; and who took over looks after what lands late.
    fn ended_cut_off(&mut self, call: &CallInFlight, result: &Result<Modified, CallError>) {
        for id in call.batch.places() {
            let Some(account_id) = self.places.get(id).map(|place| place.account_id) else {
                continue;
            };
            let last = match result {
                Ok(modified) => match &modified.verdict {
                    Verdict::InvalidAccounts(invalid) if !invalid.contains(&account_id) => {
                        Last::CutOff
                    }
                    _ => Last::Answered(modified.clone()),
                },
                Err(CallError::Withheld) => Last::CutOff,
                Err(error) => {
                    if error.fate() == Fate::MayHaveApplied {
                        self.doubt(*id);
                    }
                    Last::Failed(error.clone())
                }
            };
            if let Some(place) = self.places.get_mut(id) {
                let withheld = *result == Err(CallError::Withheld);
                place.calls = place.calls.saturating_sub(u32::from(withheld));
                if place.doubt > Doubt::None {
                    place.doubt = Doubt::MayLand;
                }
            }
            self.end(*id, last);
        }
    }

    /// A call with this change may take effect, of which others take care.
    fn doubt(&mut self, id: PlaceId) {
        if let Some(place) = self.places.get_mut(&id) {
            place.doubt = Doubt::MayLand;
        }
    }

    fn succeeded(&mut self, call: &CallInFlight, modified: &Modified) {
        let invalid: &[AccountId] = match &modified.verdict {
            Verdict::Done => &[],
            Verdict::InvalidAccounts(accounts) => accounts,
        };
        let (ended, rest): (Vec<PlaceId>, Vec<PlaceId>) =
            call.batch
                .places()
                .iter()
                .partition(|id| match &modified.verdict {
                    Verdict::Done => true,
                    Verdict::InvalidAccounts(_) => {
                        let account = self.places.get(id).map(|place| place.account_id);
                        account.is_some_and(|account| invalid.contains(&account))
                    }
                });
        for id in ended {
            if let Some(place) = self.places.get(&id)
                && modified.verdict == Verdict::Done
            {
                self.landings
                    .was_last(&place.key, place.account_id, place.operation, true);
            }
            self.end(id, Last::Answered(modified.clone()));
        }
        if let Some(lane) = self.lanes.get_mut(&call.key) {
            lane.image_refused = None;
        }
        // The upstream did nothing of the call: the rest goes again at once, alone, so that others with bad
        // accounts cannot hold it up.
        let again = Part {
            places: rest,
            open: false,
            connection: Connection::Pooled,
            effort: Effort::Again,
            half: Half::Whole,
        };
        self.comes_again(&call.key, 0, again);
    }

    fn failed(&mut self, now: Instant, call: &CallInFlight, error: &CallError) {
        // A pooled connection that was closed as the call was sent: it goes again at once, and what comes of that is
        // most likely all that comes of it.
        let stale = error.retry() == Retry::AtOnce && call.connection == Connection::Pooled;
        if error.fate() == Fate::MayHaveApplied {
            for id in call.batch.places() {
                if !stale {
                    self.note_may_have_applied(now, *id);
                } else if let Some(place) = self.places.get_mut(id) {
                    place.doubt = place.doubt.max(Doubt::MayHaveApplied);
                }
            }
        }
        if call.batch.accounts() > 1 && error.may_depend_on_an_account() {
            self.refused_perhaps_for_one(now, call, error);
            return;
        }
        let sent = u32::from(*error != CallError::Withheld);
        for id in call.batch.places() {
            if let Some(place) = self.places.get_mut(id) {
                place.failure = Some(error.clone());
                place.calls = place.calls.saturating_sub(1 - sent);
            }
        }
        match error.retry() {
            Retry::AtOnce if stale => {
                let again = Part {
                    places: call.batch.places().to_vec(),
                    open: call.open,
                    connection: Connection::Fresh,
                    effort: Effort::Again,
                    half: call.half.clone(),
                };
                self.comes_again(&call.key, 0, again);
            }
            Retry::AtOnce => self.retry_later(now, call, Duration::ZERO, u32::MAX),
            Retry::After { at_least, times } => self.retry_later(now, call, at_least, times),
            Retry::Never => self.end_failed(now, call.batch.places()),
        }
    }

    /// Lets those whose time and retries allow it wait for another call, and ends the others.
    fn retry_later(&mut self, now: Instant, call: &CallInFlight, at_least: Duration, times: u32) {
        let retries = call
            .batch
            .places()
            .iter()
            .filter_map(|id| self.places.get(id));
        let retries = retries.map(|place| place.retries).max().unwrap_or(0);
        let wait = backoff(retries, at_least, self.chance.random());
        let times = times.min(self.max_retries);
        let goes_on = |place: &PlacedChange| {
            !place.late
                && place.retries < times
                && place.asked.deadline.saturating_duration_since(now) > wait
        };
        let (mut again, mut ended): (Vec<PlaceId>, Vec<PlaceId>) = call
            .batch
            .places()
            .iter()
            .partition(|id| self.places.get(id).is_some_and(goes_on));
        let refused = self.gate.refusal(now).is_some();
        if !again.is_empty() && (refused || !self.gate.grants_retry()) {
            ended.append(&mut again);
            ended.sort_unstable();
        }
        if !again.is_empty() {
            for id in &again {
                if let Some(place) = self.places.get_mut(id) {
                    place.retries += 1;
                }
            }
            let again = Part {
                places: again,
                open: call.open,
                connection: Connection::Pooled,
                effort: Effort::Retry,
                half: call.half.clone(),
            };
            self.comes_again(&call.key, 0, again);
            let until = now + wait;
            self.lanes.entry(call.key.clone()).or_default().state = LaneState::Resting(until);
            self.alarms.insert((until, Alarm::Lane(call.key.clone())));
        }
        self.end_failed(now, &ended);
    }

    /// Ends those whose time is up, and gives the others: nobody waits for the first, and their time bounds what is
    /// sent for them.
    pub(super) fn still_in_time(&mut self, ids: Vec<PlaceId>) -> Vec<PlaceId> {
        let (over, in_time): (Vec<PlaceId>, Vec<PlaceId>) = ids
            .into_iter()
            .partition(|id| self.places.get(id).is_none_or(|place| place.late));
        for id in over {
            let failure = self.places.get(&id).and_then(|place| place.failure.clone());
            self.end(id, failure.map_or(Last::TimeUp, Last::Failed));
        }
        in_time
    }

    pub(super) fn enters_part(&mut self, id: PlaceId) {
        if let Some(place) = self.places.get_mut(&id) {
            place.at = At::Part;
            self.capacity
                .take(&place.key, &place.asked.party, place.asked.kind, 1);
        }
    }

    pub(super) fn leaves_part(&mut self, id: PlaceId) {
        if let Some(place) = self.places.get_mut(&id) {
            place.at = At::Call;
            self.capacity
                .give_back(&place.key, &place.asked.party, place.asked.kind, 1);
        }
    }

    /// Ends changes whose last call failed. Somebody looks first what became of those that may have taken
    /// effect, where their callers' time allows it.
    pub(super) fn end_failed(&mut self, now: Instant, ids: &[PlaceId]) {
        let looks = self.gate.refusal(now).is_none();
        let (looked_at, ended): (Vec<PlaceId>, Vec<PlaceId>) = ids.iter().partition(|id| {
            let place = self.places.get(id);
            place.is_some_and(|place| {
                looks && place.doubt > Doubt::None && !place.late && place.asked.deadline > now
            })
        });
        for id in ended {
            let failure = self.places.get(&id).and_then(|place| place.failure.clone());
            self.end(id, failure.map_or(Last::TimeUp, Last::Failed));
        }
        let Some(first) = looked_at.first().and_then(|id| self.places.get(id)) else {
            return;
        };
        let key = first.key.clone();
        let mut until = now;
        for id in &looked_at {
            // While it is its account's last change: others follow it as soon as it has left the lane.
            self.note_open(now, *id);
            if let Some(place) = self.places.get_mut(id) {
                place.at = At::Look;
                until = until.max(place.asked.deadline);
                if let Some(lane) = self.lanes.get_mut(&key) {
                    lane.let_out(*id, place);
                }
            }
        }
        self.pass_fences(&key);
        let id = LookId(self.next_id());
        self.looks.insert(id, looked_at);
        let until = until.min(now + LOOK_TIME);
        self.effects.push(Effect::Look { id, key, until });
    }

    /// Somebody looked who has access; `None` where the upstream did not say it.
    pub(in crate::sharing::lanes) fn looked(&mut self, id: LookId, listed: Option<&[AccountId]>) {
        for place_id in self.looks.remove(&id).unwrap_or_default() {
            let Some(place) = self.places.get(&place_id) else {
                continue;
            };
            let seen = listed.map(|listed| {
                listed.contains(&place.account_id) == (place.operation == Operation::Share)
            });
            let failure = place.failure.clone();
            if let Some(ended) = self.remove(place_id, failure.map_or(Last::TimeUp, Last::Failed)) {
                self.effects
                    .push(Effect::Ended(place_id, Ended { seen, ..ended }));
            }
        }
    }
}
