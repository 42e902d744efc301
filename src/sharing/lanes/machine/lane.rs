//! One lane: the changes of one image that have not ended, and who waits at its door.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::domain::{AccountId, Party};
use crate::sharing::lanes::queue::{Passed, Queue};
use crate::upstream::Connection;

use super::halves::{Half, ImageRefused};
use super::words::{PlaceId, WaitId};
use super::{At, PlacedChange};

/// Changes that go before the queue: what a call has to carry again.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) places: Vec<PlaceId>,
    /// Whether others may join from the queue. Not where an account is looked for that fails its call.
    pub(super) open: bool,
    pub(super) connection: Connection,
    /// What the call is to the budget of retries.
    pub(super) effort: crate::upstream::Effort,
    pub(super) half: Half,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) parts: VecDeque<Part>,
    pub(super) queue: Queue,
    /// All changes that wait or are in a call.
    pub(super) live: BTreeSet<PlaceId>,
    /// How many of them an account has.
    live_of: HashMap<AccountId, usize>,
    /// How many of them are a replacement's.
    pub(super) live_in_block: usize,
    /// Who waits to hold the lane or to be let in, in the order in which they came.
    pub(super) line: VecDeque<WaitId>,
    /// Parties that had the lane while somebody waited to be let in.
    pub(super) held_by: HashSet<Party>,
    /// Who waits for what was accepted before them, in the order in which they came.
    pub(super) fences: VecDeque<WaitId>,
    /// How many were let in and have not said yet that they are.
    pub(super) entering: usize,
    pub(super) state: LaneState,
    /// Whether the last call carried a part.
    pub(super) parted: bool,
    /// What the upstream says of the image itself.
    pub(super) image_refused: Option<ImageRefused>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum LaneState {
    /// Nothing is under way.
    #[default]
    Idle,
    /// It stands in line for a call.
    InLine,
    /// A call is in flight.
    Calling,
    /// It waits until then before it tries again.
    Resting(Instant),
    /// Somebody reads, and nothing may come between.
    Held(WaitId),
}

impl Lane {
    pub(super) fn take_in(&mut self, id: PlaceId, place: &PlacedChange) {
        self.live.insert(id);
        *self.live_of.entry(place.account_id).or_default() += 1;
        if place.in_block {
            self.live_in_block += 1;
            self.queue.push_to_block(place.account_id, id);
        } else {
            self.queue.push(&place.asked.party, place.account_id, id);
        }
    }

    pub(super) fn let_out(&mut self, id: PlaceId, place: &PlacedChange) {
        if self.live.remove(&id) {
            self.live_in_block -= usize::from(place.in_block);
            if let Some(count) = self.live_of.get_mut(&place.account_id) {
                *count -= 1;
                if *count == 0 {
                    self.live_of.remove(&place.account_id);
                }
            }
        }
        if matches!(place.at, At::Queue { .. }) {
            self.queue.leave(place.account_id, id);
        }
    }

    /// Whether a change of an account waits or is in a call.
    pub(super) fn has_live(&self, account_id: AccountId) -> bool {
        self.live_of.contains_key(&account_id)
    }

    /// Drops parts of which nothing is left.
    pub(super) fn tidy_parts(&mut self, places: &HashMap<PlaceId, PlacedChange>) {
        for part in &mut self.parts {
            part.places.retain(|id| places.contains_key(id));
        }
        self.parts.retain(|part| !part.places.is_empty());
    }

    /// What the queue passes over while parts wait: their accounts go first, and their parties' bulks have their turn
    /// by them.
    pub(super) fn passed(&self, places: &HashMap<PlaceId, PlacedChange>) -> Passed {
        let of_parts = || {
            let ids = self.parts.iter().flat_map(|part| &part.places);
            ids.filter_map(|id| places.get(id))
        };
        Passed {
            accounts: of_parts()
                .map(|place| place.account_id)
                .collect::<HashSet<AccountId>>(),
            bulks_of: of_parts().map(|place| place.asked.party.clone()).collect(),
        }
    }
}
