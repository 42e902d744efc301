//! What becomes of a lane whose image is another gateway's for a while.

use std::time::Duration;

use super::world::{account, key, limits, party};
use crate::domain::{Deadline, Operation};
use crate::sharing::lanes::machine::{Effect, Kind, Last, Limits, Machine, Terms};
use crate::upstream::{CallError, Cause};

#[test]
fn what_was_in_flight_as_its_lock_was_lost_is_not_sent_again_under_the_next() {
    let limits = Limits {
        shared: true,
        ..limits()
    };
    let (mut machine, now, key) = (Machine::new(limits, 1), Deadline::now().instant(), key(0));
    let terms = Terms {
        party: party(1),
        kind: Kind::Single,
        deadline: now + Duration::from_mins(5),
    };
    machine.tell(now);
    machine.queue_up(&key, 1, &terms);
    machine.locked(now, &key, false);
    let places = machine.admit(&key, &[(Operation::Share, account(7))], &terms);
    machine.entered(now, &key);
    machine.recorded(&places);
    machine.time(now);
    let call = |effect: Effect| match effect {
        Effect::Call { id, .. } => Some(id),
        _ => None,
    };
    let calls: Vec<_> = machine.effects().into_iter().filter_map(call).collect();
    assert_eq!(calls.len(), 1);

    machine.locks_lost(now);
    // It is had again before the call has ended.
    machine.queue_up(&key, 1, &terms);
    machine.locked(now, &key, false);
    machine.answered(
        now,
        calls[0],
        Err(CallError::TimedOut(Cause::new("no answer"))),
    );
    machine.time(now + Duration::from_mins(1));
    let effects = machine.effects();
    let ended = effects.iter().find_map(|effect| match effect {
        Effect::Ended(place, ended) if *place == places[0] => Some(ended),
        _ => None,
    });
    let ended = ended.unwrap_or_else(|| panic!("it has ended: {effects:?}"));
    let failed = CallError::TimedOut(Cause::new("no answer"));
    assert_eq!((&ended.last, ended.calls), (&Last::Failed(failed), 1));
    assert!(ended.may_have_applied && ended.may_land);
    assert_eq!(effects.into_iter().find_map(call), None);
}
