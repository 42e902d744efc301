//! A call with several accounts that is refused: whose fault is it?
//!
//! A refusal that may be about one account ([`CallError::may_depend_on_an_account`]) has its call taken apart by
//! halves, so that one caller's bad account fails nobody else. Both halves are tried before either is taken apart:
//! where both are refused with the same unknown code and the same words, it is the image that the upstream refuses,
//! and no account. Then all of the call have their answer, and so has what is refused alike from then on, until the
//! upstream does something for the image.

use std::collections::VecDeque;
use std::time::Instant;

use crate::upstream::{CallError, Connection, Effort, RetCode};

use super::lane::Part;
use super::words::{LaneKey, PlaceId};
use super::{CallInFlight, Machine};

/// What a call is of one that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Half {
    /// None.
    #[default]
    Whole,
    /// Its first half; the second comes right behind.
    First,
    /// Its second half.
    Second,
    /// Its first half, which was refused so; it is taken apart once the second was tried.
    Refused(CallError),
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
        if own.is_some() && lane.image_refused == own {
            self.all_refused(now, call.batch.places(), error);
            return;
        }
        match call.half {
            Half::First => {
                let behind_the_second = lane.parts.len().min(1);
                let part = part(call.batch.places().to_vec(), Half::Refused(error.clone()));
                self.comes_again(&call.key, behind_the_second, part);
            }
            Half::Second => {
                let first = lane.parts.front().and_then(|part| match &part.half {
                    Half::Refused(first) => Some(images_own(first)),
                    _ => None,
                });
                if own.is_some() && first == Some(own.clone()) {
                    let first = lane
                        .parts
                        .pop_front()
                        .map_or_else(Vec::new, |part| part.places);
                    lane.image_refused = own;
                    for id in &first {
                        self.leaves_part(*id);
                    }
                    let both: Vec<PlaceId> =
                        first.iter().chain(call.batch.places()).copied().collect();
                    self.all_refused(now, &both, error);
                } else {
                    self.take_apart(&call.key, call.batch.places());
                }
            }
            Half::Whole | Half::Refused(_) => self.take_apart(&call.key, call.batch.places()),
        }
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
        self.comes_again(key, 0, part(second, Half::Second));
        self.comes_again(key, 0, part(first, Half::First));
    }

    /// Takes first halves apart whose second was tried, so that a part that can be called is in front.
    pub(super) fn take_apart_refused(&mut self, key: &LaneKey) {
        while let Some(lane) = self.lanes.get_mut(key)
            && matches!(
                lane.parts.front(),
                Some(Part {
                    half: Half::Refused(_),
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
