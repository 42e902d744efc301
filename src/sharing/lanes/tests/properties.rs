//! Random mixes of changes from many callers, a random upstream, simulated time: what is told is true, nothing is
//! lost, nothing is left behind.
//!
//! `ISG_TEST_FULL` makes 10^6 operations of it. A failing run prints its seed, and `ISG_TEST_SEED` replays it.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use std::cell::Cell;
use std::time::Duration;

use super::upstream::{Behaviour, MISSING, POISON};
use super::world::{Disk, World, limits};
use crate::domain::Operation;
use crate::sharing::lanes::machine::Limits;

#[derive(Debug, Clone)]
enum Step {
    Change {
        by: u32,
        image: u32,
        changes: Vec<(Operation, u64)>,
        wait: Duration,
        /// How long its intents take to disk; never, where there is none.
        disk: Option<Duration>,
    },
    Replace {
        by: u32,
        image: u32,
        accounts: Vec<u64>,
        wait: Duration,
    },
    Rehearse {
        by: u32,
        image: u32,
        wait: Duration,
    },
    Read {
        wait: Duration,
    },
    Abandon {
        which: usize,
    },
    /// Somebody changes a list by other means.
    Outside {
        image: u32,
        number: u64,
        operation: Operation,
    },
    /// The program is killed and begins anew.
    Restart,
    Pause(Duration),
}

#[derive(Debug, Clone)]
struct Scenario {
    limits: (usize, u32, Option<u32>),
    behaviours: Vec<Behaviour>,
    reads: Behaviour,
    seed: u64,
    steps: Vec<Step>,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![Just(Operation::Share), Just(Operation::Unshare)]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        30 => 1_u64..25,
        1 => POISON..POISON + 3,
        2 => MISSING..MISSING + 3,
    ]
}

fn wait() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::from_secs(1)),
        Just(Duration::from_secs(5)),
        (20_u64..40_000).prop_map(Duration::from_millis),
    ]
}

/// Changes of one request, no account twice.
fn changes(most: usize) -> impl Strategy<Value = Vec<(Operation, u64)>> {
    proptest::collection::btree_map(number(), operation(), 1..=most).prop_map(|changes| {
        changes
            .into_iter()
            .map(|(number, operation)| (operation, number))
            .collect()
    })
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        20 => Just(Behaviour::Does),
        1 => prop_oneof![Just(110), Just(130), Just(150), Just(153), Just(171), Just(230), Just(299), Just(8433),
            Just(8434)].prop_map(Behaviour::Refuses),
        1 => Just(Behaviour::RefusesImage),
        2 => (prop_oneof![Just(400), Just(429), Just(500), Just(502), Just(503), Just(504)],
            proptest::option::of(0_u64..20), any::<bool>())
            .prop_map(|(status, seconds, done)| Behaviour::Status(status, seconds, done && status >= 500)),
        1 => Just(Behaviour::Unreachable),
        1 => any::<bool>().prop_map(Behaviour::Loses),
        1 => any::<bool>().prop_map(Behaviour::Hangs),
        2 => (0_u64..60).prop_map(Behaviour::LandsLate),
        1 => Just(Behaviour::ClosedIdle),
        1 => any::<bool>().prop_map(Behaviour::Babbles),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let disk = proptest::option::weighted(0.95, (0_u64..30).prop_map(Duration::from_millis));
    let (by, image) = (0_u32..4, 0_u32..3);
    let change = move |most: usize| {
        (
            by.clone(),
            image.clone(),
            changes(most),
            wait(),
            disk.clone(),
        )
            .prop_map(|(by, image, changes, wait, disk)| Step::Change {
                by,
                image,
                changes,
                wait,
                disk,
            })
    };
    let accounts = proptest::collection::btree_set(1_u64..25, 0..25);
    prop_oneof![
        36 => change(1),
        3 => change(30),
        3 => (0_u32..4, 0_u32..3, accounts, wait()).prop_map(|(by, image, accounts, wait)| Step::Replace {
            by, image, accounts: accounts.into_iter().collect(), wait,
        }),
        2 => (0_u32..4, 0_u32..3, wait()).prop_map(|(by, image, wait)| Step::Rehearse { by, image, wait }),
        3 => wait().prop_map(|wait| Step::Read { wait }),
        3 => any::<usize>().prop_map(|which| Step::Abandon { which }),
        3 => (0_u32..3, 1_u64..25, operation())
            .prop_map(|(image, number, operation)| Step::Outside { image, number, operation }),
        24 => (0_u64..40).prop_map(|millis| Step::Pause(Duration::from_millis(millis))),
        3 => (1_u64..20).prop_map(|seconds| Step::Pause(Duration::from_secs(seconds))),
        1 => (60_u64..200).prop_map(|seconds| Step::Pause(Duration::from_secs(seconds))),
        1 => Just(Step::Restart),
    ]
}

const STEPS: usize = 200;

fn scenario() -> impl Strategy<Value = Scenario> {
    (
        (
            1_usize..8,
            0_u32..5,
            proptest::option::weighted(0.3, 1_u32..50),
        ),
        proptest::collection::vec(behaviour(), 1..150),
        behaviour(),
        any::<u64>(),
        proptest::collection::vec(step(), 1..STEPS),
    )
        .prop_map(|(limits, behaviours, reads, seed, steps)| Scenario {
            limits,
            behaviours,
            reads,
            seed,
            steps,
        })
}

/// Plays a scenario and has it judged; gives the operations that were made.
fn play(scenario: &Scenario) -> usize {
    let (max_in_flight, max_retries, rate) = scenario.limits;
    let limits = Limits {
        max_in_flight,
        max_retries,
        requests_per_second: rate.map(f64::from),
        shared: false,
    };
    let mut world = World::new(limits, scenario.seed);
    world.behaviours.clone_from(&scenario.behaviours);
    world.behaviours.push(Behaviour::Does);
    world.read_behaviour = scenario.reads;
    let mut operations = 0;
    for step in &scenario.steps {
        match step {
            Step::Change {
                by,
                image,
                changes,
                wait,
                disk,
            } => {
                let disk = disk.map_or(Disk::Never, Disk::After);
                world.change_by(*by, *image, changes, *wait, disk);
                operations += changes.len();
            }
            Step::Replace {
                by,
                image,
                accounts,
                wait,
            } => {
                world.replace(*by, *image, accounts, *wait);
                operations += 1;
            }
            Step::Rehearse { by, image, wait } => {
                world.rehearse(*by, *image, *wait);
                operations += 1;
            }
            Step::Outside {
                image,
                number,
                operation,
            } => world.change_outside(*image, *number, *operation),
            Step::Restart => world.restart(),
            Step::Read { wait } => {
                world.read(*wait);
                operations += 1;
            }
            Step::Abandon { which } => {
                let places: Vec<_> = world.facts.keys().copied().collect();
                if !places.is_empty() {
                    world.abandon(places[which % places.len()]);
                }
            }
            Step::Pause(pause) => world.run_for(*pause),
        }
    }
    world.run_out();
    world.judge();
    operations
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by their environment"
)]
fn whatever_the_upstream_does_every_answer_is_true_and_nothing_is_lost() {
    let full = std::env::var("ISG_TEST_FULL").is_ok();
    let wanted = if full { 1_000_000 } else { 100_000 };
    let given = std::env::var("ISG_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    let operations = Cell::new(0);
    // A scenario has some 150 steps, and of these more than 100 are operations; bulks count each account.
    let mut round = 0_u64;
    while operations.get() < wanted {
        let config = Config {
            cases: 50,
            rng_seed: RngSeed::Fixed(seed.wrapping_add(round)),
            failure_persistence: None,
            max_shrink_iters: 4_000,
            ..Config::default()
        };
        let result = TestRunner::new(config).run(&scenario(), |scenario| {
            operations.set(operations.get() + play(&scenario));
            Ok(())
        });
        if let Err(error) = result {
            panic!(
                "ISG_TEST_SEED={} replays it: {error}",
                seed.wrapping_add(round)
            );
        }
        round += 1;
    }
}

#[test]
fn a_scenario_replays_the_same_way() {
    let config = Config {
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let scenario = scenario()
        .new_tree(&mut runner)
        .expect("a scenario")
        .current();
    let trace = || {
        let mut world = World::new(limits(), scenario.seed);
        world.behaviours.clone_from(&scenario.behaviours);
        for step in &scenario.steps {
            if let Step::Change {
                by,
                image,
                changes,
                wait,
                disk,
            } = step
            {
                let disk = disk.map_or(Disk::Never, Disk::After);
                world.change_by(*by, *image, changes, *wait, disk);
                world.run_for(Duration::from_millis(5));
            }
        }
        world.run_out();
        let at = |call| world.sent[call].at - world.start;
        let calls: Vec<_> = world
            .calls
            .iter()
            .map(|call| (at(call), world.sent[call].modification.clone()))
            .collect();
        calls
    };
    assert_eq!(trace(), trace());
}
