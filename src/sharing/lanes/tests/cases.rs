//! Single situations, told as sentences.

use std::time::Duration;

use super::upstream::{Behaviour, CALL_TIMEOUT, LATENCY, MISSING};
use super::world::{World, account, limits};
use crate::domain::Operation::{Share, Unshare};
use crate::sharing::lanes::machine::Last;

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn sixty_four_changes_behind_one_call_take_eight() {
    let mut world = World::new(limits(), 1);
    for account in 1..=64 {
        world.change(0, &[(Share, account)], MINUTE);
    }
    world.run_out();
    assert_eq!(world.calls.len(), 8);
    assert_eq!(world.list(0), (1..=64).collect::<Vec<u64>>());
    world.judge();
}

#[test]
fn a_change_in_flight_is_late_exactly_at_its_deadline_and_one_that_waits_ends_there() {
    let mut world = World::new(limits(), 1);
    world.behaviours = vec![Behaviour::Hangs(false)];
    let wait = Duration::from_secs(4);
    let sent = world.change(0, &[(Share, 1)], wait)[0];
    let waits = world.change(0, &[(Share, 2)], wait)[0];
    world.run_for(wait);
    assert!(world.facts[&sent].late);
    let (at, ended) = world.facts[&waits].ended.clone().expect("its time is up");
    assert_eq!(
        (at - world.start, ended.calls, ended.last),
        (wait, 0, Last::TimeUp)
    );
    world.run_out();
    let (at, ended) = world.facts[&sent].ended.clone().expect("the call ends");
    assert_eq!(
        (at - world.start, ended.calls),
        (CALL_TIMEOUT, 1),
        "no retry after its time"
    );
    world.judge();
}

#[test]
fn what_a_holder_changes_goes_behind_what_was_accepted_for_the_same_account_meanwhile() {
    let mut world = World::new(limits(), 1);
    let replacement = vec![(Unshare, account(5)), (Share, account(6))];
    world.hold(0, MINUTE, replacement);
    world.change(0, &[(Share, 5)], MINUTE);
    world.run_out();
    let calls: Vec<_> = world
        .calls
        .iter()
        .map(|call| &world.sent[call].modification)
        .collect();
    assert_eq!(calls[0].additions, [account(5)]);
    assert_eq!(calls[1].additions, [account(6)]);
    assert_eq!(calls[1].removals, [account(5)]);
    assert_eq!(world.list(0), [6]);
    world.judge();
}

#[test]
fn a_change_whose_time_is_up_is_not_sent_again_because_of_a_neighbour() {
    let mut world = World::new(limits(), 1);
    world.change(0, &[(Share, 1)], MINUTE);
    world.change(0, &[(Share, MISSING), (Share, 3)], MINUTE);
    let late = world.change(0, &[(Share, 2)], LATENCY + LATENCY / 2)[0];
    world.run_out();
    let fact = &world.facts[&late];
    let (_, ended) = fact.ended.clone().expect("it ends");
    assert!(fact.late);
    assert_eq!(
        (ended.last, ended.calls, ended.may_have_applied),
        (Last::TimeUp, 1, false)
    );
    assert_eq!(world.list(0), [1, 3]);
    world.judge();
}

#[test]
fn while_the_call_of_one_image_hangs_another_image_goes_on() {
    let mut world = World::new(limits(), 1);
    world.behaviours = vec![Behaviour::Hangs(false), Behaviour::Does];
    world.change(0, &[(Share, 1)], MINUTE);
    let other = world.change(1, &[(Share, 1)], MINUTE)[0];
    world.run_for(Duration::from_secs(1));
    assert!(world.facts[&other].ended.is_some());
    world.run_out();
    world.judge();
}

#[test]
fn a_share_that_lands_after_an_unshare_is_undone_when_the_minute_is_over() {
    let mut world = World::new(limits(), 1);
    world.behaviours = vec![Behaviour::LandsLate(30), Behaviour::Does];
    world.change(0, &[(Share, 1)], Duration::from_secs(11));
    world.run_for(Duration::from_secs(12));
    world.change(0, &[(Unshare, 1)], MINUTE);
    world.run_for(Duration::from_secs(40));
    assert_eq!(world.list(0), [1], "it has landed");
    world.run_out();
    assert_eq!(world.list(0), Vec::<u64>::new());
    assert_eq!(world.facts.values().filter(|fact| fact.undo).count(), 1);
    world.judge();
}

#[test]
fn a_million_images_over_time_leave_nothing_behind() {
    let mut world = World::new(limits(), 1);
    for image in 0..1_000_000 {
        let key = super::world::key(image);
        let now = world.now;
        let places = world
            .machine
            .admit(&key, &[(Share, super::world::account(1))], now + MINUTE);
        world.machine.recorded(&places);
        world.machine.time(now);
        for effect in world.machine.effects() {
            if let crate::sharing::lanes::machine::Effect::Call { id, .. } = effect {
                let done = crate::upstream::Modified {
                    verdict: crate::upstream::Verdict::Done,
                    ret_code: 0,
                    request_id: None,
                };
                world.machine.answered(now, id, Ok(done));
            }
        }
        world.machine.effects();
    }
    assert!(world.machine.is_empty());
}
