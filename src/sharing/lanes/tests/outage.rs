//! An upstream that is down for long, under load.

use std::time::Duration;

use super::upstream::Behaviour;
use super::world::{World, limits};
use crate::domain::Operation::Share;
use crate::upstream::BreakerState;

#[test]
fn a_hundred_minutes_of_outage_cost_one_probe_a_pause_and_the_first_success_closes_the_breaker() {
    let mut world = World::new(limits(), 1);
    world.behaviours = vec![Behaviour::Unreachable];
    let pauses = 3000;
    for round in 0..pauses * 4 {
        for image in 0..3 {
            world.change(image, &[(Share, round % 100 + 1)], Duration::from_secs(30));
        }
        world.run_for(Duration::from_millis(500));
    }
    // Ten failures open it, and a pause is two seconds.
    assert!(
        world.calls.len() as u64 <= pauses + 20,
        "{} calls",
        world.calls.len()
    );
    assert!(world.most_waiting <= 10, "{} waited", world.most_waiting);
    world.behaviours = vec![Behaviour::Does];
    world.run_for(Duration::from_secs(3));
    world.change(0, &[(Share, 7)], Duration::from_secs(30));
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.machine.breaker_state(world.now), BreakerState::Closed);
    assert_eq!(world.list(0), [7]);
    world.run_out();
    world.judge();
}
