//! Changes that may take effect late.
//!
//! A call that timed out may still take effect for as long as the service works on it, up to 60 s (its own
//! limit, `RetCode` 110), and so after a later call that contradicts it. A share that came back so after an
//! unshare would give an account an image that it must not have, and an unshare after a share would take away what
//! the trail says it has. So accounts of which a call may land are remembered, and where the contrary was accepted
//! since they are looked at when the time is over. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::{AccountId, Operation};

use super::machine::LaneKey;

/// How long a call may take effect after it failed.
pub(in crate::sharing) const LANDING_TIME: Duration = Duration::from_mins(1);
/// How long after its end a change's row is on disk, commonly.
const ROW_TIME: Duration = Duration::from_secs(5);
/// Most accounts that are remembered.
const LANDINGS_MAX: usize = 10_000;

/// An account of which changes may land late.
#[derive(Debug, Clone, Copy)]
struct Landing {
    /// Until when something may land.
    until: Instant,
    open: Open,
    /// The last change that took effect, or may have.
    last: Operation,
    /// Whether it certainly did.
    succeeded: bool,
    /// The turn in which it is looked after.
    looked_after: Option<u64>,
}

/// What may land.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    share: bool,
    unshare: bool,
}

impl Landing {
    /// Whether what may land contradicts the last change. A share that nobody knows to have taken effect is not made
    /// again: nobody was told that it stands.
    fn is_suspect(&self) -> bool {
        match self.last {
            Operation::Unshare => self.open.share,
            Operation::Share => self.open.unshare && self.succeeded,
        }
    }
}

/// An account whose time is over, and that is looked after. Once the image was another's it is looked after anew, and this one is nobody's
/// to say anything of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sharing) struct Suspect {
    pub(in crate::sharing) account_id: AccountId,
    turn: u64,
}

/// Accounts whose time is over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Those to look after from now on.
    pub(super) suspects: Vec<Suspect>,
    /// Those that are forgotten, since whatever landed is what was accepted last.
    pub(super) settled: Vec<AccountId>,
    /// When to ask again.
    pub(super) next: Option<Instant>,
}

/// What becomes of an account that was looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookedAfter {
    /// Nothing may land any more.
    Over,
    /// Something may; look again then.
    Again(Instant),
    /// Somebody else looks after it by now.
    Elsewhere,
}

/// All accounts of which changes may land late, by image.
#[derive(Debug, Default)]
pub(super) struct Landings {
    images: HashMap<LaneKey, HashMap<AccountId, Landing>>,
    count: usize,
    turns: u64,
}

impl Landings {
    /// A call with such a change ended unknown, and may take effect until then. Returns when the account's time is over.
    pub(super) fn may_land(
        &mut self,
        until: Instant,
        key: &LaneKey,
        account_id: AccountId,
        operation: Operation,
    ) -> Option<Instant> {
        let known = self.landing(key, account_id).is_some();
        if !known && self.count >= LANDINGS_MAX {
            tracing::warn!(
                image.id = key.1.as_str(),
                account.id = account_id.get(),
                "too many changes may take effect late; this one is not looked after"
            );
            return None;
        }
        let image = self.images.entry(key.clone()).or_default();
        let landing = image.entry(account_id).or_insert(Landing {
            until,
            open: Open::default(),
            last: operation,
            succeeded: false,
            looked_after: None,
        });
        match operation {
            Operation::Share => landing.open.share = true,
            Operation::Unshare => landing.open.unshare = true,
        }
        // What was so certainly before is so after the same again, whatever became of that.
        landing.succeeded &= landing.last == operation;
        (landing.until, landing.last) = (landing.until.max(until), operation);
        self.count += usize::from(!known);
        Some(landing.until)
    }

    /// A change took effect, or may have.
    pub(super) fn was_last(
        &mut self,
        key: &LaneKey,
        account_id: AccountId,
        operation: Operation,
        succeeded: bool,
    ) {
        if self.count == 0 {
            return;
        }
        if let Some(landing) = self.landing(key, account_id) {
            (landing.last, landing.succeeded) = (operation, succeeded);
        }
    }

    fn landing(&mut self, key: &LaneKey, account_id: AccountId) -> Option<&mut Landing> {
        self.images.get_mut(key)?.get_mut(&account_id)
    }

    /// A change of which a call may land has ended; its row is on its way to disk.
    pub(super) fn ended(&mut self, now: Instant, key: &LaneKey, account_id: AccountId) {
        if let Some(landing) = self.landing(key, account_id) {
            landing.until = landing.until.max(now + ROW_TIME);
        }
    }

    /// The accounts of an image whose time is over, but for those of which a change `waits` still: what becomes of
    /// that is not in the trail yet.
    pub(super) fn due(
        &mut self,
        now: Instant,
        key: &LaneKey,
        waits: impl Fn(AccountId) -> bool,
    ) -> Due {
        self.turns += 1;
        let turn = self.turns;
        let mut due = Due::default();
        let Some(image) = self.images.get_mut(key) else {
            return due;
        };
        image.retain(|account_id, landing| {
            if landing.until <= now && landing.looked_after.is_none() && waits(*account_id) {
                landing.until = now + ROW_TIME;
            }
            if landing.until > now || landing.looked_after.is_some() {
                return true;
            }
            landing.looked_after = landing.is_suspect().then_some(turn);
            if landing.looked_after.is_some() {
                due.suspects.push(Suspect {
                    account_id: *account_id,
                    turn,
                });
            } else {
                self.count -= 1;
                due.settled.push(*account_id);
            }
            landing.looked_after.is_some()
        });
        let waiting = image
            .values()
            .filter(|landing| landing.looked_after.is_none());
        due.next = waiting.map(|landing| landing.until).min();
        self.tidy(key);
        due.suspects.sort_unstable();
        due.settled.sort_unstable();
        due
    }

    /// What an account that is looked after should have had last; `None` where nothing that landed contradicts it.
    pub(super) fn suspected(&self, key: &LaneKey, suspect: Suspect) -> Option<Operation> {
        let landing = self.images.get(key)?.get(&suspect.account_id)?;
        let is_suspect = landing.looked_after == Some(suspect.turn) && landing.is_suspect();
        is_suspect.then_some(landing.last)
    }

    /// Whether it is looked after still, and not elsewhere or anew.
    pub(super) fn is_looked_after(&self, key: &LaneKey, suspect: Suspect) -> bool {
        let image = self.images.get(key);
        let landing = image.and_then(|image| image.get(&suspect.account_id));
        landing.is_some_and(|landing| landing.looked_after == Some(suspect.turn))
    }

    /// An account was looked after. One of which something may land anew meanwhile stays.
    pub(super) fn looked_after(
        &mut self,
        now: Instant,
        key: &LaneKey,
        Suspect { account_id, turn }: Suspect,
    ) -> LookedAfter {
        let landing = self.landing(key, account_id);
        let Some(landing) = landing.filter(|landing| landing.looked_after == Some(turn)) else {
            return LookedAfter::Elsewhere;
        };
        landing.looked_after = None;
        let until = landing.until;
        if until > now {
            return LookedAfter::Again(until);
        }
        if let Some(image) = self.images.get_mut(key) {
            image.remove(&account_id);
        }
        self.count -= 1;
        self.tidy(key);
        LookedAfter::Over
    }

    /// Nobody looks after an account any more. Returns when somebody has to again.
    pub(super) fn gave_up(
        &mut self,
        now: Instant,
        key: &LaneKey,
        Suspect { account_id, turn }: Suspect,
    ) -> Option<Instant> {
        let landing = self.landing(key, account_id);
        let landing = landing.filter(|landing| landing.looked_after == Some(turn))?;
        landing.looked_after = None;
        landing.until = landing.until.max(now + LANDING_TIME);
        Some(landing.until)
    }

    /// Whether accounts of an image are looked after, or are due to be.
    pub(super) fn has_due(&self, now: Instant, key: &LaneKey) -> bool {
        let is_due = |landing: &Landing| {
            landing.is_suspect() && (landing.looked_after.is_some() || landing.until <= now)
        };
        let image = self.images.get(key);
        image.is_some_and(|image| image.values().any(is_due))
    }

    /// Whether accounts of an image are remembered.
    pub(super) fn has(&self, key: &LaneKey) -> bool {
        self.images.contains_key(key)
    }

    /// Forgets all accounts of all images.
    pub(super) fn clear(&mut self) {
        self.images.clear();
        self.count = 0;
    }

    /// Forgets all accounts of an image: somebody else looks after them. Returns whether there were any.
    pub(super) fn forget(&mut self, key: &LaneKey) -> bool {
        let forgotten = self.images.remove(key).map_or(0, |image| image.len());
        self.count -= forgotten;
        forgotten > 0
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
    use crate::domain::Operation::{Share, Unshare};

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

    fn accounts(suspects: &[Suspect]) -> Vec<AccountId> {
        let accounts = suspects.iter().map(|suspect| suspect.account_id);
        accounts.collect()
    }

    #[test]
    fn accounts_are_suspect_whose_last_change_is_contrary_to_what_may_land_and_only_when_the_time_is_over()
     {
        let (mut landings, now) = (Landings::default(), start());
        // What may land, what was accepted since and whether it certainly took effect; whether that is suspect.
        let cases = [
            (Share, None, false),
            (Share, Some((Unshare, true)), true),
            (Share, Some((Unshare, false)), true),
            (Share, Some((Share, true)), false),
            (Unshare, None, false),
            (Unshare, Some((Share, true)), true),
            (Unshare, Some((Share, false)), false),
            (Unshare, Some((Unshare, true)), false),
        ];
        for ((may_land, since, _), number) in cases.iter().zip(1..) {
            landings.may_land(now + LANDING_TIME, &key(), account(number), *may_land);
            if let Some((operation, succeeded)) = since {
                landings.was_last(&key(), account(number), *operation, *succeeded);
            }
        }
        landings.was_last(&key(), account(99), Unshare, true);
        // Shared again, which nobody knows of: it is shared all the same.
        landings.may_land(now + LANDING_TIME, &key(), account(6), Share);
        let early = landings.due(now + LANDING_TIME / 2, &key(), |_| false);
        assert_eq!(early.next, Some(now + LANDING_TIME));
        let due = landings.due(now + LANDING_TIME, &key(), |_| false);
        let (mut suspects, mut settled) = (Vec::new(), Vec::new());
        for ((_, _, suspect), number) in cases.iter().zip(1..) {
            let list = if *suspect {
                &mut suspects
            } else {
                &mut settled
            };
            list.push(account(number));
        }
        assert_eq!((accounts(&due.suspects), due.settled), (suspects, settled));
        assert_eq!(due.next, None);
        let [two, three, six] = due.suspects[..] else {
            panic!("three are suspect");
        };
        assert_eq!(landings.suspected(&key(), two), Some(Unshare));
        assert_eq!(landings.suspected(&key(), six), Some(Share));
        landings.was_last(&key(), account(2), Share, true);
        assert_eq!(landings.suspected(&key(), two), None, "shared again");
        for suspect in [two, three, six] {
            let over = now + LANDING_TIME;
            let looked_after = landings.looked_after(over, &key(), suspect);
            assert_eq!(looked_after, LookedAfter::Over);
        }
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
            landings.may_land(now + LANDING_TIME, &key(), account(number), Share);
        }
        assert_eq!(landings.len(), LANDINGS_MAX);
        let due = landings.due(now + LANDING_TIME, &key(), |_| false);
        assert_eq!(
            (due.suspects.len(), due.settled.len(), landings.len()),
            (0, LANDINGS_MAX, 0)
        );
    }

    #[test]
    fn what_may_land_anew_while_it_is_looked_after_is_looked_after_again() {
        let (mut landings, now) = (Landings::default(), start());
        landings.may_land(now + LANDING_TIME, &key(), account(1), Share);
        landings.was_last(&key(), account(1), Unshare, true);
        let over = now + LANDING_TIME;
        let suspect = landings.due(over, &key(), |_| false).suspects[0];
        landings.may_land(over + LANDING_TIME, &key(), account(1), Share);
        assert_eq!(
            landings.looked_after(over, &key(), suspect),
            LookedAfter::Again(over + LANDING_TIME)
        );
        assert!(landings.forget(&key()) && !landings.has(&key()));
        assert_eq!(
            landings.looked_after(over, &key(), suspect),
            LookedAfter::Elsewhere
        );
    }

    #[test]
    fn what_is_looked_after_anew_is_nobodys_elses_to_settle() {
        let (mut landings, now) = (Landings::default(), start());
        let due = |landings: &mut Landings| {
            landings.may_land(now, &key(), account(1), Share);
            landings.was_last(&key(), account(1), Unshare, true);
            landings.due(now, &key(), |_| false).suspects[0]
        };
        let former = due(&mut landings);
        assert!(landings.is_looked_after(&key(), former) && landings.has_due(now, &key()));
        // The image was another's in between.
        landings.forget(&key());
        let present = due(&mut landings);
        assert!(!landings.is_looked_after(&key(), former));
        assert_eq!(landings.suspected(&key(), former), None);
        let looked_after = landings.looked_after(now, &key(), former);
        assert_eq!(looked_after, LookedAfter::Elsewhere);
        assert_eq!(landings.suspected(&key(), present), Some(Unshare));
        // Whom a look was given up for stays, and goes with the image.
        assert_eq!(landings.gave_up(now, &key(), former), None);
        let again = landings.gave_up(now, &key(), present);
        assert_eq!(again, Some(now + LANDING_TIME));
        assert!(!landings.has_due(now, &key()) && landings.forget(&key()));
    }
}
