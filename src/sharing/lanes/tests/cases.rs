//! Single situations, told as sentences.

use std::time::Duration;

use super::upstream::{Behaviour, CALL_TIMEOUT};
use super::world::{World, limits};
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
