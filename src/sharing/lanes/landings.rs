//! Shares that may take effect late.
//!
//! A call that timed out may still take effect for as long as the service works on it, up to 60 s (its own
//! limit, `RetCode` 110), and so after a later call that contradicts it. A share that came back so after an
//! unshare would give an account an image that it must not have, so such accounts are remembered, and looked
//! at when the time is over. (An unshare that lands late is seen by the caller who shared, and repeated.) Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::{AccountId, Operation};

use super::machine::LaneKey;

/// How long a call may take effect after it failed.
pub(super) const LANDING_TIME: Duration = Duration::from_mins(1);
/// Most accounts that are remembered.
const LANDINGS_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Landing {
    /// Until when a share may land.
    until: Instant,
    /// The last change of the account that took effect, or may have, since then.
    last: Operation,
    /// Whether it is being looked at.
    looked_at: bool,
}

/// All accounts whose share may land late, by image.
#[derive(Debug, Default)]
pub(super) struct Landings {
    images: HashMap<LaneKey, HashMap<AccountId, Landing>>,
    count: usize,
}

impl Landings {
    /// A call with a share ended unknown. Returns when it is to be looked at.
    pub(super) fn may_land(
        &mut self,
        now: Instant,
        key: &LaneKey,
        account_id: AccountId,
    ) -> Option<Instant> {
        let until = now + LANDING_TIME;
        let known = self
            .images
            .get_mut(key)
            .and_then(|image| image.get_mut(&account_id));
        if let Some(landing) = known {
            *landing = Landing {
                until,
                last: Operation::Share,
                ..*landing
            };
            return Some(until);
        }
        if self.count >= LANDINGS_MAX {
            tracing::warn!(
                image.id = key.1.as_str(),
                account.id = account_id.get(),
                "too many shares may take effect late; this one is not looked at again"
            );
            return None;
        }
        let landing = Landing {
            until,
            last: Operation::Share,
            looked_at: false,
        };
        self.images
            .entry(key.clone())
            .or_default()
            .insert(account_id, landing);
        self.count += 1;
        Some(until)
    }

    /// A change took effect, or may have.
    pub(super) fn changed(&mut self, key: &LaneKey, account_id: AccountId, operation: Operation) {
        if self.count == 0 {
            return;
        }
        let landing = self
            .images
            .get_mut(key)
            .and_then(|image| image.get_mut(&account_id));
        if let Some(landing) = landing {
            landing.last = operation;
        }
    }

    /// The accounts of an image whose time is over and whose last change was an unshare: a share of theirs that
    /// stands has landed late. They are being looked at from now on; the others are forgotten. Also says when
    /// to ask again.
    pub(super) fn due(&mut self, now: Instant, key: &LaneKey) -> (Vec<AccountId>, Option<Instant>) {
        let Some(image) = self.images.get_mut(key) else {
            return (Vec::new(), None);
        };
        let mut due = Vec::new();
        image.retain(|account_id, landing| {
            if landing.until > now || landing.looked_at {
                return true;
            }
            landing.looked_at = landing.last == Operation::Unshare;
            if landing.looked_at {
                due.push(*account_id);
            } else {
                self.count -= 1;
            }
            landing.looked_at
        });
        let waiting = image.values().filter(|landing| !landing.looked_at);
        let next = waiting.map(|landing| landing.until).min();
        self.tidy(key);
        due.sort_unstable();
        (due, next)
    }

    /// Whether an account that is looked at should still have no share.
    pub(super) fn stands(&self, key: &LaneKey, account_id: AccountId) -> bool {
        let landing = self
            .images
            .get(key)
            .and_then(|image| image.get(&account_id));
        landing.is_some_and(|landing| landing.looked_at && landing.last == Operation::Unshare)
    }

    /// An account was looked at. One that may land anew meanwhile stays; says when to look then.
    pub(super) fn looked_at(
        &mut self,
        now: Instant,
        key: &LaneKey,
        account_id: AccountId,
    ) -> Option<Instant> {
        let image = self.images.get_mut(key)?;
        let landing = image.get_mut(&account_id)?;
        landing.looked_at = false;
        let until = landing.until;
        if until > now {
            return Some(until);
        }
        image.remove(&account_id);
        self.count -= 1;
        self.tidy(key);
        None
    }

    fn tidy(&mut self, key: &LaneKey) {
        if self.images.get(key).is_some_and(HashMap::is_empty) {
            self.images.remove(key);
        }
    }

    /// How many accounts are remembered.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Deadline;

    fn start() -> Instant {
        Deadline::after(Duration::ZERO).instant()
    }

    fn key() -> LaneKey {
        (
            "cn-wlcb".parse().expect("a region"),
            "img".parse().expect("an image"),
        )
    }

    fn account(number: u64) -> AccountId {
        number.try_into().expect("an account")
    }

    #[test]
    fn only_accounts_that_were_unshared_since_are_looked_at_and_only_when_the_time_is_over() {
        let (mut landings, now) = (Landings::default(), start());
        for number in 1..=3 {
            landings.may_land(now, &key(), account(number));
        }
        landings.changed(&key(), account(1), Operation::Unshare);
        landings.changed(&key(), account(2), Operation::Unshare);
        landings.changed(&key(), account(2), Operation::Share);
        landings.changed(&key(), account(9), Operation::Unshare);
        let early = landings.due(now + LANDING_TIME / 2, &key());
        assert_eq!(early, (vec![], Some(now + LANDING_TIME)));
        let due = landings.due(now + LANDING_TIME, &key());
        assert_eq!(due, (vec![account(1)], None));
        assert!(landings.stands(&key(), account(1)));
        landings.changed(&key(), account(1), Operation::Share);
        assert!(
            !landings.stands(&key(), account(1)),
            "shared again meanwhile"
        );
        assert_eq!(
            landings.looked_at(now + LANDING_TIME, &key(), account(1)),
            None
        );
        assert_eq!(
            (landings.len(), landings.images.len()),
            (0, 0),
            "nothing is left behind"
        );
    }

    #[test]
    fn the_list_is_bounded() {
        let (mut landings, now) = (Landings::default(), start());
        for number in 1..=LANDINGS_MAX as u64 + 5 {
            landings.may_land(now, &key(), account(number));
        }
        assert_eq!(landings.len(), LANDINGS_MAX);
        let (due, next) = landings.due(now + LANDING_TIME, &key());
        assert_eq!((due.len(), next, landings.len()), (0, None, 0));
    }

    #[test]
    fn a_share_that_may_land_anew_while_it_is_looked_at_is_looked_at_again() {
        let (mut landings, now) = (Landings::default(), start());
        landings.may_land(now, &key(), account(1));
        landings.changed(&key(), account(1), Operation::Unshare);
        let over = now + LANDING_TIME;
        assert_eq!(landings.due(over, &key()).0, [account(1)]);
        landings.may_land(over, &key(), account(1));
        assert_eq!(
            landings.looked_at(over, &key(), account(1)),
            Some(over + LANDING_TIME)
        );
    }
}
