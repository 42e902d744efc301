//! How much may wait: for each party in each lane, for each party, and for everybody. Pure.
//!
//! Single changes and bulks have room apart, so that no bulk, however large, has another's single change refused.
//! All bounds are far above what a caller's time allows to be sent: a hung upstream must not gather callers without
//! end. A bulk is admitted whole where there is any room for it.

use std::collections::HashMap;

use crate::domain::Party;

use super::words::LaneKey;

/// Most changes of one kind that wait for one party in one lane.
const OF_PARTY_IN_LANE_MAX: usize = 1000;
/// Most for one party.
const OF_PARTY_MAX: usize = 2500;
/// Most for everybody.
const OF_ALL_MAX: usize = 10_000;
const _: () = assert!(
    OF_PARTY_IN_LANE_MAX < OF_PARTY_MAX && 2 * OF_PARTY_MAX <= OF_ALL_MAX,
    "no image takes all room of a party, and no party all room"
);

/// What takes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sharing) enum Kind {
    /// A change that was asked for alone.
    Single,
    /// A change of many, or somebody who waits for the lane.
    Bulk,
}

/// How many of each kind.
type Count = [usize; 2];

/// What waits at present.
#[derive(Debug, Default)]
pub(super) struct Capacity {
    all: Count,
    parties: HashMap<Party, OfParty>,
}

/// What waits for one party.
#[derive(Debug, Default)]
struct OfParty {
    all: Count,
    lanes: HashMap<LaneKey, Count>,
}

impl Capacity {
    /// Whether another change, or a bulk of them, may wait. The gateway's own always may: what it undoes is bounded
    /// by what it remembers.
    pub(super) fn has_room(&self, key: &LaneKey, party: &Party, kind: Kind) -> bool {
        let kind = kind as usize;
        if *party == Party::Gateway {
            return true;
        }
        let of_party = self.parties.get(party);
        let of_lane = of_party.and_then(|of_party| of_party.lanes.get(key));
        self.all[kind] < OF_ALL_MAX
            && of_party.is_none_or(|of_party| of_party.all[kind] < OF_PARTY_MAX)
            && of_lane.is_none_or(|count| count[kind] < OF_PARTY_IN_LANE_MAX)
    }

    pub(super) fn take(&mut self, key: &LaneKey, party: &Party, kind: Kind, places: usize) {
        let kind = kind as usize;
        self.all[kind] += places;
        let of_party = match self.parties.get_mut(party) {
            Some(of_party) => of_party,
            None => self.parties.entry(party.clone()).or_default(),
        };
        of_party.all[kind] += places;
        match of_party.lanes.get_mut(key) {
            Some(count) => count[kind] += places,
            None => of_party.lanes.entry(key.clone()).or_default()[kind] += places,
        }
    }

    pub(super) fn give_back(&mut self, key: &LaneKey, party: &Party, kind: Kind, places: usize) {
        let kind = kind as usize;
        self.all[kind] -= places;
        let Some(of_party) = self.parties.get_mut(party) else {
            return;
        };
        of_party.all[kind] -= places;
        if let Some(count) = of_party.lanes.get_mut(key) {
            count[kind] -= places;
            if *count == [0, 0] {
                of_party.lanes.remove(key);
            }
        }
        if of_party.lanes.is_empty() {
            self.parties.remove(party);
        }
    }

    /// All that waits.
    pub(super) fn waiting(&self) -> usize {
        self.all.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::Principal;

    fn party(subject: &str) -> Party {
        let principal = Principal::of_first_issuer(subject, "https://issuer.example");
        Party::Subject(Arc::new(principal))
    }

    fn lane(image: &str) -> LaneKey {
        (
            "cn-wlcb".parse().expect("a region"),
            image.parse().expect("an image"),
        )
    }

    #[test]
    fn one_partys_bulks_refuse_neither_its_singles_nor_others_bulks() {
        let (mut room, a, b) = (Capacity::default(), party("a"), party("b"));
        let mut bulks = 0;
        for image in ["one", "two", "three", "four"] {
            while room.has_room(&lane(image), &a, Kind::Bulk) {
                room.take(&lane(image), &a, Kind::Bulk, 1000);
                bulks += 1;
            }
        }
        assert_eq!(bulks, 3, "each image once, until the party's room is full");
        for image in ["one", "five"] {
            assert!(!room.has_room(&lane(image), &a, Kind::Bulk));
            assert!(room.has_room(&lane(image), &a, Kind::Single));
            assert!(room.has_room(&lane(image), &b, Kind::Bulk));
        }
        room.give_back(&lane("one"), &a, Kind::Bulk, 1000);
        assert!(room.has_room(&lane("one"), &a, Kind::Bulk));
        assert!(!room.has_room(&lane("two"), &a, Kind::Bulk));
    }

    #[test]
    fn what_is_given_back_leaves_nothing_behind() {
        let mut room = Capacity::default();
        for (subject, places) in [("a", 3), ("b", 2)] {
            room.take(&lane("one"), &party(subject), Kind::Single, places);
        }
        for (subject, places) in [("a", 1), ("b", 2), ("a", 2)] {
            room.give_back(&lane("one"), &party(subject), Kind::Single, places);
        }
        assert_eq!(room.waiting(), 0);
        assert!(room.parties.is_empty());
    }
}
