//! Single situations, told as sentences.

use std::time::Duration;

use super::upstream::{Behaviour, CALL_TIMEOUT, LATENCY, MISSING, POISON};
use super::world::{Disk, World, account, key, limits, party};
use crate::domain::Operation::{Share, Unshare};
use crate::sharing::lanes::machine::{Kind, Last, Terms};

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
fn a_whole_list_takes_effect_at_its_place_and_as_one() {
    for (present, first, between, last) in [
        (1, [5].as_slice(), (Share, 1), [1]),
        (5, [1, 6].as_slice(), (Unshare, 1), [5]),
    ] {
        let mut world = World::new(limits(), 1);
        world
            .lists
            .entry(key(0))
            .or_default()
            .insert(account(present));
        // The first reads; meanwhile a single change and another whole list come.
        world.replace(1, 0, first, MINUTE);
        world.run_for(LATENCY / 2);
        let single = world.change_by(2, 0, &[between], MINUTE, Disk::AtOnce);
        assert_eq!(single, [], "it is accepted behind the first");
        world.replace(3, 0, &last, MINUTE);
        world.run_out();
        assert_eq!(world.list(0), last);
        world.judge();
    }
}

#[test]
fn a_single_change_is_in_one_of_the_next_two_calls_while_anothers_bulk_waits() {
    let mut world = World::new(limits(), 1);
    let bulk: Vec<_> = (1..=400).map(|number| (Share, number)).collect();
    world.change_by(1, 0, &bulk, MINUTE * 10, Disk::AtOnce);
    for party in 2..8 {
        let before = world.calls.len();
        let single = world.change_by(
            party,
            0,
            &[(Share, 450 + u64::from(party))],
            MINUTE,
            Disk::AtOnce,
        );
        world.run_for(LATENCY + LATENCY / 2);
        let sent = &world.facts[&single[0]].calls;
        let within = world.calls[before..]
            .iter()
            .take(2)
            .any(|call| sent.contains(call));
        assert!(
            within,
            "party {party}: {sent:?} of {:?}",
            &world.calls[before..]
        );
    }
    world.run_out();
    world.judge();
}

#[test]
fn others_have_a_turn_while_a_call_is_taken_apart() {
    let mut world = World::new(limits(), 1);
    // Twenty bad accounts cost some forty calls.
    let bad: Vec<_> = (0..10)
        .flat_map(|n| [(Share, POISON + n), (Unshare, POISON + 100 + n)])
        .collect();
    world.change_by(1, 0, &bad, MINUTE * 10, Disk::AtOnce);
    let single = world.change_by(2, 0, &[(Share, 1)], MINUTE, Disk::AtOnce)[0];
    world.run_for(LATENCY * 4);
    assert!(world.facts[&single].ended.is_some());
    assert!(world.calls.len() < 6, "{}", world.calls.len());
    world.run_out();
    world.judge();
}

#[test]
fn a_refusal_of_the_image_itself_costs_few_calls_however_many_accounts_there_are() {
    let mut world = World::new(limits(), 1);
    world.behaviours = vec![Behaviour::RefusesImage];
    let bulk: Vec<_> = (1..=499).map(|number| (Share, number)).collect();
    world.change(0, &bulk, MINUTE * 10);
    world.run_out();
    assert!(world.calls.len() <= 50 + 2, "{} calls", world.calls.len());
    world.judge();
}

#[test]
fn a_whole_list_behind_a_long_queue_lets_others_pass_until_it_is_close() {
    let mut world = World::new(limits(), 1);
    let bulk: Vec<_> = (1..=200).map(|number| (Share, number)).collect();
    world.change_by(1, 0, &bulk, MINUTE * 10, Disk::AtOnce);
    let hold = world.replace(2, 0, &[1, 2], MINUTE * 10);
    let single = world.change_by(3, 0, &[(Share, 300)], MINUTE, Disk::AtOnce);
    assert_eq!(single.len(), 1, "it passes");
    world.run_for(LATENCY * 2 + LATENCY / 2);
    assert!(world.facts[&single[0]].ended.is_some());
    while world
        .change_by(3, 0, &[(Share, 301)], MINUTE, Disk::AtOnce)
        .len()
        == 1
    {
        world.run_for(LATENCY);
        assert!(world.calls.len() < 25, "it never comes close");
    }
    world.run_out();
    assert!(world.held.contains(&hold));
    assert_eq!(
        world.list(0),
        [1, 2, 301],
        "who came when it was close is accepted behind it"
    );
    world.judge();
}

#[test]
fn a_bulk_that_comes_behind_a_whole_list_keeps_nobody_waiting_at_the_door() {
    let mut world = World::new(limits(), 1);
    let many = |from: u64, count: u64| -> Vec<_> {
        (from..from + count).map(|number| (Share, number)).collect()
    };
    world.change_by(1, 0, &many(1, 40), MINUTE * 10, Disk::AtOnce);
    world.replace(2, 0, &[1, 2], MINUTE * 10);
    let bulk = world.change_by(3, 0, &many(100, 300), MINUTE * 10, Disk::AtOnce);
    assert_eq!(bulk, [], "it waits behind the whole list");
    world.run_for(LATENCY * 3);
    world.change_by(4, 0, &[(Share, 50)], MINUTE, Disk::AtOnce);
    let before = world.calls.len();
    world.run_for(LATENCY * 8);
    let carried = |call: &&crate::sharing::lanes::machine::CallId| {
        world.sent[*call]
            .modification
            .additions
            .contains(&account(50))
    };
    let at = world.calls[before..].iter().position(|call| carried(&call));
    assert!(
        at.is_some_and(|at| at <= 6),
        "what is left, the list's block, and it: {at:?}"
    );
    world.run_out();
    world.judge();
}

#[test]
fn single_changes_go_before_a_whole_list_that_waits_for_a_bulk_that_was_let_in() {
    let mut world = World::new(limits(), 1);
    world.replace(1, 0, &[1], MINUTE * 10);
    let many: Vec<_> = (100..400).map(|number| (Share, number)).collect();
    assert_eq!(world.change_by(2, 0, &many, MINUTE * 10, Disk::AtOnce), []);
    world.replace(3, 0, &[2], MINUTE * 10);
    world.run_for(LATENCY * 3);
    let single = world.change_by(4, 0, &[(Share, 50)], MINUTE, Disk::AtOnce);
    assert_eq!(single.len(), 1, "it goes before");
    world.run_for(LATENCY * 2 + LATENCY / 2);
    assert!(world.facts[&single[0]].ended.is_some());
    world.run_out();
    world.judge();
}

#[test]
fn a_party_has_the_lane_once_while_somebody_waits_at_the_door() {
    let mut world = World::new(limits(), 1);
    world.lists.entry(key(0)).or_default().insert(account(1));
    for _ in 0..50 {
        world.replace(1, 0, &[1], MINUTE * 10);
    }
    let single = world.change_by(2, 0, &[(Share, 7)], MINUTE, Disk::AtOnce);
    assert_eq!(single, []);
    world.run_for(LATENCY * 2 + LATENCY / 2);
    assert_eq!(world.list(0), [1, 7], "after the first of fifty");
    world.run_out();
    world.judge();
}

#[test]
fn a_refusal_of_one_partys_accounts_fails_no_other_party() {
    let mut world = World::new(limits(), 1);
    // The first call holds everything up; then both halves are refused alike.
    world.change_by(3, 0, &[(Share, 400)], MINUTE, Disk::AtOnce);
    let bulk: Vec<_> = (1..=9).map(|number| (Share, number)).collect();
    world.change_by(1, 0, &bulk, MINUTE * 10, Disk::AtOnce);
    let single = world.change_by(2, 0, &[(Share, 50)], MINUTE, Disk::AtOnce)[0];
    world.behaviours = vec![
        Behaviour::RefusesImage,
        Behaviour::RefusesImage,
        Behaviour::RefusesImage,
        Behaviour::Does,
    ];
    world.run_out();
    assert!(
        world.facts[&single]
            .ended
            .as_ref()
            .is_some_and(|(_, ended)| ended.succeeded())
    );
    world.judge();
}

#[test]
fn a_stale_change_that_is_looked_at_is_no_later_than_what_was_accepted_after_it() {
    let mut world = World::new(limits(), 1);
    world.behaviours = vec![
        Behaviour::LandsLate(20),
        Behaviour::ClosedIdle,
        Behaviour::Refuses(299),
        Behaviour::Does,
    ];
    world.read_behaviour = Behaviour::Hangs(false);
    world.change(0, &[(Share, 1)], Duration::from_secs(11));
    world.run_for(Duration::from_secs(12));
    // The unshare is stale, then refused, and somebody looks for three seconds; meanwhile it is shared.
    world.change(0, &[(Unshare, 1)], MINUTE);
    world.run_for(LATENCY * 3);
    let shared = world.change(0, &[(Share, 1)], MINUTE)[0];
    world.run_for(LATENCY * 3);
    assert!(
        world.facts[&shared]
            .ended
            .as_ref()
            .is_some_and(|(_, ended)| ended.succeeded())
    );
    world.read_behaviour = Behaviour::Does;
    world.run_out();
    assert_eq!(world.list(0), [1], "what was accepted last stands");
    world.judge();
}

#[test]
fn a_dry_run_waits_for_what_was_accepted_before_and_holds_nobody_up() {
    let mut world = World::new(limits(), 1);
    world.change_by(1, 0, &[(Share, 1)], MINUTE, Disk::AtOnce);
    let fence = world.rehearse(2, 0, MINUTE);
    let later = world.change_by(3, 0, &[(Share, 2)], MINUTE, Disk::AtOnce);
    assert_eq!((later.len(), world.fences_passed.len()), (1, 0));
    world.run_for(LATENCY + LATENCY / 2);
    assert_eq!(world.fences_passed, [fence]);
    assert!(world.facts[&later[0]].ended.is_none(), "it is in its call");
    let at_once = world.rehearse(2, 7, MINUTE);
    assert_eq!(world.fences_passed, [fence, at_once]);
    world.run_out();
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
    world.behaviours = vec![Behaviour::LandsLate(40), Behaviour::Does];
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
fn an_unshare_that_lands_after_an_accepted_share_is_undone_too() {
    let mut world = World::new(limits(), 1);
    world.lists.entry(key(0)).or_default().insert(account(1));
    world.behaviours = vec![Behaviour::LandsLate(40), Behaviour::Does];
    world.change(0, &[(Unshare, 1)], Duration::from_secs(11));
    world.run_for(Duration::from_secs(12));
    world.change(0, &[(Share, 1)], MINUTE);
    world.run_for(Duration::from_secs(40));
    assert_eq!(world.list(0), Vec::<u64>::new(), "it has landed");
    world.run_out();
    assert_eq!(world.list(0), [1]);
    assert_eq!(world.facts.values().filter(|fact| fact.undo).count(), 1);
    world.judge();
}

#[test]
fn what_somebody_did_by_other_means_after_it_was_looked_after_stands_over_a_restart() {
    let mut world = World::new(limits(), 1);
    world.behaviours = vec![Behaviour::Hangs(false), Behaviour::Does];
    world.change(0, &[(Share, 1)], Duration::from_secs(11));
    world.run_for(Duration::from_secs(12));
    world.change(0, &[(Unshare, 1)], MINUTE);
    world.run_for(MINUTE * 3);
    world.change_outside(0, 1, Share);
    assert_eq!(world.list(0), [1]);
    world.restart();
    world.run_out();
    assert_eq!(world.list(0), [1]);
    world.judge();
}

#[test]
fn a_million_images_over_time_leave_nothing_behind() {
    let (mut world, party) = (World::new(limits(), 1), party(1));
    for image in 0..1_000_000 {
        let key = super::world::key(image);
        let now = world.now;
        let asked = Terms {
            party: party.clone(),
            kind: Kind::Single,
            deadline: now + MINUTE,
        };
        let places = world.machine.admit(&key, &[(Share, account(1))], &asked);
        // A bulk that is wholly denied leaves no lane.
        assert_eq!(
            world
                .machine
                .admit(&super::world::key(image + 1_000_000), &[], &asked),
            []
        );
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
