//! Every fault, gone on with for ever: when its caller is told what, to the tick of the simulated clock.

use std::time::Duration;

use super::upstream::{Behaviour, LATENCY, failure};
use super::world::{World, limits};
use crate::domain::Operation::Share;
use crate::problem::Effect;
use crate::sharing::completion::settle;
use crate::upstream::Retry;

const SECOND: Duration = Duration::from_secs(1);

/// Faults, and the status and effect of one that ends by itself.
fn faults() -> Vec<(Behaviour, u16, Effect)> {
    use Behaviour::{Babbles, Hangs, LandsLate, Loses, Refuses, Status, Unreachable};
    let mut faults = vec![
        (Unreachable, 503, Effect::None),
        (Loses(false), 502, Effect::Unknown),
        (Loses(true), 502, Effect::Done),
        (Babbles(false), 502, Effect::Unknown),
        (Babbles(true), 502, Effect::Done),
        (Hangs(false), 504, Effect::Unknown),
        (Hangs(true), 504, Effect::Done),
        (LandsLate(200), 504, Effect::Unknown),
    ];
    for (code, status, effect) in [
        (110, 504, Effect::Unknown),
        (130, 502, Effect::Unknown),
        (150, 503, Effect::None),
        (153, 503, Effect::None),
        (171, 502, Effect::None),
        (230, 502, Effect::None),
        (299, 502, Effect::None),
        (8433, 502, Effect::None),
        (8434, 502, Effect::None),
        (9999, 502, Effect::None),
    ] {
        faults.push((Refuses(code), status, effect));
    }
    for (code, status, effect) in [
        (400, 502, Effect::None),
        (429, 503, Effect::None),
        (500, 502, Effect::Unknown),
        (502, 502, Effect::Unknown),
        (503, 502, Effect::Unknown),
        (504, 504, Effect::Unknown),
    ] {
        for retry_after in [None, Some(3), Some(40)] {
            faults.push((Status(code, retry_after, false), status, effect));
        }
    }
    faults
}

#[test]
fn a_fault_that_goes_on_is_told_when_no_retry_is_left_and_never_after_the_deadline() {
    for (behaviour, status, effect) in faults() {
        for seconds in [1, 4, 10, 11, 25, 60] {
            play(behaviour, SECOND * seconds, status, effect);
        }
    }
}

fn play(behaviour: Behaviour, wait: Duration, status: u16, effect: Effect) {
    let what = format!("{behaviour:?} for {wait:?}");
    let mut world = World::new(limits(), 1);
    world.behaviours = vec![behaviour];
    let place = world.change(0, &[(Share, 1)], wait)[0];
    world.run_for(wait.saturating_sub(Duration::from_nanos(1)));
    if let Some((at, ended)) = world.facts[&place].ended.clone() {
        let settled = settle(&ended);
        assert_eq!(
            (settled.http_status(200), settled.effect()),
            (status, effect),
            "{what}"
        );
        let error = failure(behaviour).expect("a fault");
        let left = wait.saturating_sub(at - world.start);
        let reason = match error.retry() {
            Retry::Never => ended.calls == 1,
            Retry::AtOnce => false,
            Retry::After { at_least, times } => {
                let retries = times.min(limits().max_retries);
                // The longest wait that its caller's time was weighed against.
                let longest = at_least.max(Duration::from_millis(200) * 2_u32.pow(ended.calls - 1));
                ended.calls == retries + 1 || left <= longest + LATENCY
            }
        };
        assert!(reason, "{what}: ended at {:?}: {ended:?}", at - world.start);
        return;
    }
    assert!(!world.facts[&place].late, "{what}: late before its time");
    world.run_for(Duration::from_nanos(1));
    assert_eq!(world.now - world.start, wait);
    let fact = &world.facts[&place];
    // Its caller is told now: in flight it is late, and between two calls it has ended.
    match &fact.ended {
        None => assert!(fact.late, "{what}: nobody told its caller"),
        Some((at, ended)) => {
            assert_eq!(*at - world.start, wait, "{what}");
            let settled = settle(ended);
            assert_eq!(settled.http_status(200), status, "{what}: {ended:?}");
        }
    }
    world.run_out();
    world.judge();
}
