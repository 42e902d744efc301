//! A call with several accounts that is refused: whose fault is it?
//!
//! A refusal that may be about one account ([`CallError::may_depend_on_an_account`]) has its call taken apart by
//! halves, so that one caller's bad account fails nobody else. Both halves are tried before either is taken apart:
//! where both are refused with the same unknown code and the same words, it is the image that the upstream refuses,
//! and no account. That is held against those parties alone that had changes in both halves: they have their answer,
//! also for what of theirs is refused alike from then on, until the upstream does something for the image. The others'
//! changes are sent again, each party's by themselves.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use crate::domain::Party;

use crate::upstream::{CallError, Connection, Effort, RetCode};

use super::lane::Part;
use super::words::{LaneKey, PlaceId};
use super::{CallInFlight, Machine};

/// What a call is of one that was refused. Two halves bear the same number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Half {
    /// None.
    #[default]
    Whole,
    /// Its first half; the second comes right behind.
    First(u64),
    /// Its second half.
    Second(u64),
    /// Its first half, which was refused so; it is taken apart once the second was tried.
    Refused(u64, CallError),
}

/// What the upstream says of the image itself, and to whom.
#[derive(Debug)]
pub(super) struct ImageRefused {
    words: (RetCode, Option<String>),
    parties: HashSet<Party>,
}

/// Code and words of a refusal that may be the image's own.
fn images_own(error: &CallError) -> Option<(RetCode, Option<String>)> {
    match error {
        CallError::Refused {
            ret_code, message, ..
        } if ret_code.may_be_about_the_image() => Some((*ret_code, message.clone())),
        _ => None,
    }
}

impl Machine {
    /// A call with several accounts was refused, perhaps because of one of them.
    pub(super) fn refused_perhaps_for_one(
        &mut self,
        now: Instant,
        call: &CallInFlight,
        error: &CallError,
    ) {
        let own = images_own(error);
        let lane = self.lanes.entry(call.key.clone()).or_default();
        let known = lane.image_refused.as_ref();
        let known = known.filter(|known| own.as_ref() == Some(&known.words));
        if let Some(parties) = known.map(|known| known.parties.clone())
            && call
                .batch
                .places()
                .iter()
                .any(|id| self.is_of(*id, &parties))
        {
            self.refused_for_these(now, &call.key, call.batch.places(), &parties, error);
            return;
        }
        match call.half {
            Half::First(pair) => {
                let lane = self.lanes.entry(call.key.clone()).or_default();
                let behind_the_second = lane.parts.len().min(1);
                let half = Half::Refused(pair, error.clone());
                let part = part(call.batch.places().to_vec(), half);
                self.comes_again(&call.key, behind_the_second, part);
            }
            Half::Second(pair) => match self.refused_alike(&call.key, pair, own.as_ref()) {
                Some(first) => self.both_refused(now, call, &first, own, error),
                None => self.take_apart(&call.key, call.batch.places()),
            },
            Half::Whole | Half::Refused(..) => self.take_apart(&call.key, call.batch.places()),
        }
    }

    fn is_of(&self, id: PlaceId, parties: &HashSet<Party>) -> bool {
        let place = self.places.get(&id);
        place.is_some_and(|place| parties.contains(&place.asked.party))
    }

    /// The first half of a pair, where it was refused with these words.
    fn refused_alike(
        &self,
        key: &LaneKey,
        pair: u64,
        own: Option<&(RetCode, Option<String>)>,
    ) -> Option<Vec<PlaceId>> {
        let first = self.lanes.get(key)?.parts.front()?;
        match &first.half {
            Half::Refused(of, error) if *of == pair && own.is_some() => {
                (images_own(error).as_ref() == own).then(|| first.places.clone())
            }
            _ => None,
        }
    }

    fn both_refused(
        &mut self,
        now: Instant,
        call: &CallInFlight,
        first: &[PlaceId],
        own: Option<(RetCode, Option<String>)>,
        error: &CallError,
    ) {
        let parties = |ids: &[PlaceId]| -> HashSet<Party> {
            let places = ids.iter().filter_map(|id| self.places.get(id));
            places.map(|place| place.asked.party.clone()).collect()
        };
        let in_both: HashSet<Party> = parties(first)
            .intersection(&parties(call.batch.places()))
            .cloned()
            .collect();
        if in_both.is_empty() {
            self.take_apart(&call.key, call.batch.places());
            return;
        }
        if let (Some(lane), Some(words)) = (self.lanes.get_mut(&call.key), own) {
            lane.parts.pop_front();
            match &mut lane.image_refused {
                Some(known) if known.words == words => known.parties.extend(in_both.clone()),
                known => {
                    let parties = in_both.clone();
                    *known = Some(ImageRefused { words, parties });
                }
            }
        }
        for id in first {
            self.leaves_part(*id);
        }
        let both: Vec<PlaceId> = first.iter().chain(call.batch.places()).copied().collect();
        self.refused_for_these(now, &call.key, &both, &in_both, error);
    }

    /// Ends what these parties had in a call; each other party's comes again by itself.
    fn refused_for_these(
        &mut self,
        now: Instant,
        key: &LaneKey,
        ids: &[PlaceId],
        parties: &HashSet<Party>,
        error: &CallError,
    ) {
        let (theirs, others): (Vec<PlaceId>, Vec<PlaceId>) =
            ids.iter().partition(|id| self.is_of(**id, parties));
        let mut by_party: Vec<(Party, Vec<PlaceId>)> = Vec::new();
        for id in others {
            let Some(place) = self.places.get(&id) else {
                continue;
            };
            let party = &place.asked.party;
            match by_party.iter_mut().find(|(of, _)| of == party) {
                Some((_, of_party)) => of_party.push(id),
                None => by_party.push((party.clone(), vec![id])),
            }
        }
        for (_, of_party) in by_party.into_iter().rev() {
            self.comes_again(key, 0, part(of_party, Half::Whole));
        }
        self.all_refused(now, &theirs, error);
    }

    fn all_refused(&mut self, now: Instant, ids: &[PlaceId], error: &CallError) {
        for id in ids {
            if let Some(place) = self.places.get_mut(id) {
                place.failure = Some(error.clone());
            }
        }
        self.end_failed(now, ids);
    }

    /// Makes two parts of changes of several accounts.
    pub(super) fn take_apart(&mut self, key: &LaneKey, ids: &[PlaceId]) {
        let mut accounts = Vec::new();
        for id in ids {
            if let Some(place) = self.places.get(id)
                && !accounts.contains(&place.account_id)
            {
                accounts.push(place.account_id);
            }
        }
        let first_half = &accounts[..accounts.len().div_ceil(2)];
        let (first, second): (Vec<PlaceId>, Vec<PlaceId>) = ids.iter().partition(|id| {
            let place = self.places.get(id);
            place.is_some_and(|place| first_half.contains(&place.account_id))
        });
        let pair = self.next_id();
        self.comes_again(key, 0, part(second, Half::Second(pair)));
        self.comes_again(key, 0, part(first, Half::First(pair)));
    }

    /// Takes first halves apart whose second was tried, so that a part that can be called is in front.
    pub(super) fn take_apart_refused(&mut self, key: &LaneKey) {
        while let Some(lane) = self.lanes.get_mut(key)
            && matches!(
                lane.parts.front(),
                Some(Part {
                    half: Half::Refused(..),
                    ..
                })
            )
        {
            let places = lane
                .parts
                .pop_front()
                .map_or_else(Vec::new, |part| part.places);
            for id in &places {
                self.leaves_part(*id);
            }
            self.take_apart(key, &places);
        }
    }

    /// Puts changes before the queue, behind so many other parts.
    pub(super) fn comes_again(&mut self, key: &LaneKey, behind: usize, mut part: Part) {
        part.places = self.still_in_time(part.places);
        if part.places.is_empty() {
            return;
        }
        for id in &part.places {
            self.enters_part(*id);
        }
        let parts: &mut VecDeque<Part> = &mut self.lanes.entry(key.clone()).or_default().parts;
        parts.insert(behind.min(parts.len()), part);
    }
}

fn part(places: Vec<PlaceId>, half: Half) -> Part {
    Part {
        places,
        open: false,
        connection: Connection::Pooled,
        effort: Effort::Again,
        half,
    }
}
