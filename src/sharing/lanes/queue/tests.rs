use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::Principal;
use crate::upstream::ACCOUNTS_PER_LIST_MAX;

#[derive(Debug, Clone, Copy)]
struct Waits {
    by: usize,
    operation: Operation,
    account: u64,
    recorded: bool,
}

fn party(number: usize) -> Party {
    let principal = Principal::of_first_issuer(&number.to_string(), "https://issuer.example");
    Party::Subject(Arc::new(principal))
}

/// A queue and what waits in it, by place.
struct Small {
    queue: Queue,
    waits: HashMap<PlaceId, Waits>,
}

impl Small {
    fn of(waits: &[Waits]) -> Self {
        let (mut queue, mut by_place) = (Queue::default(), HashMap::new());
        for (number, waits) in (1..).zip(waits) {
            let account = waits.account.try_into().expect("an account");
            queue.push(&party(waits.by), account, PlaceId(number));
            by_place.insert(PlaceId(number), *waits);
        }
        Self {
            queue,
            waits: by_place,
        }
    }

    /// The next call; what it carries does not wait any more.
    fn call(&mut self) -> Batch {
        let mut batch = Batch::default();
        let waits = &self.waits;
        self.queue.fill(&mut batch, &Passed::default(), |place| {
            waits.get(&place).map(|waits| Candidate {
                operation: waits.operation,
                account_id: waits.account.try_into().expect("an account"),
                recorded: waits.recorded,
                in_bulk: false,
            })
        });
        for place in batch.places() {
            self.waits.remove(place);
        }
        batch
    }
}

/// `2+7`: party 2 adds account 7; `2-7` removes it; `2?+7` is not on disk yet.
fn waiting(words: &str) -> Vec<Waits> {
    let read = |word: &str| {
        let at = word.find(['+', '-']).expect("an operation");
        let (by, rest) = word.split_at(at);
        let (sign, account) = rest.split_at(1);
        Waits {
            by: by.trim_end_matches('?').parse().expect("a party"),
            operation: if sign == "+" {
                Operation::Share
            } else {
                Operation::Unshare
            },
            account: account.parse().expect("a number"),
            recorded: !by.ends_with('?'),
        }
    };
    words.split_whitespace().map(read).collect()
}

fn called(words: &str) -> Vec<u64> {
    let mut places: Vec<u64> = Small::of(&waiting(words))
        .call()
        .places()
        .iter()
        .map(|place| place.0)
        .collect();
    places.sort_unstable();
    places
}

#[test]
fn what_fits_goes_and_what_does_not_keeps_its_place() {
    assert_eq!(called("1+1 1+2 1-3"), [1, 2, 3]);
    assert_eq!(
        called("1+1 2+1 1+1"),
        [1, 2, 3],
        "equal changes go together"
    );
    assert_eq!(called("1+1 2-1 1+2"), [1, 3], "a contradiction waits");
    assert_eq!(
        called("1?+1 2+1 2+2"),
        [3],
        "what is on disk waits for what is before it"
    );
    assert_eq!(
        called("1+1 2-1 3+1"),
        [1],
        "no change overtakes one of its account"
    );
}

#[test]
fn parties_take_turns_and_who_got_nothing_is_first_in_the_next_call() {
    let mut waits: Vec<Waits> = (0..30)
        .map(|account| Waits {
            by: 1,
            operation: Operation::Share,
            account: account + 1,
            recorded: true,
        })
        .collect();
    for by in 2..=13 {
        waits.push(Waits {
            by,
            account: 100 + by as u64,
            ..waits[0]
        });
    }
    let mut small = Small::of(&waits);
    let parties = |batch: &Batch| -> HashSet<usize> {
        let by = |place: &PlaceId| waits[usize::try_from(place.0).expect("small") - 1].by;
        batch.places().iter().map(by).collect()
    };
    let (first, second) = (small.call(), small.call());
    assert_eq!(parties(&first).len(), ACCOUNTS_PER_LIST_MAX);
    let both: HashSet<usize> = parties(&first).union(&parties(&second)).copied().collect();
    assert_eq!(both.len(), 13, "thirteen parties, two calls");
}

fn some() -> impl Strategy<Value = Vec<Waits>> {
    let operation = prop_oneof![Just(Operation::Share), Just(Operation::Unshare)];
    let waits = (0_usize..4, operation, 1_u64..20, prop::bool::weighted(0.9));
    let waits = waits.prop_map(|(by, operation, account, recorded)| Waits {
        by,
        operation,
        account,
        recorded,
    });
    proptest::collection::vec(waits, 0..60)
}

proptest! {
    #[test]
    fn a_call_is_within_bounds_and_keeps_the_order_of_each_account(waits in some()) {
        let mut small = Small::of(&waits);
        let mut left: Vec<(u64, Waits)> = (1..).zip(waits.iter().copied()).collect();
        loop {
            let batch = small.call();
            let modification = batch.modification(
                "cn-wlcb".parse().expect("a region"), "img".parse().expect("an image"));
            let (add, remove) = (&modification.additions, &modification.removals);
            prop_assert!(add.len() <= ACCOUNTS_PER_LIST_MAX && remove.len() <= ACCOUNTS_PER_LIST_MAX);
            prop_assert!(add.iter().all(|account| !remove.contains(account)));
            for place in batch.places() {
                let index = left.iter().position(|(number, _)| *number == place.0).expect("it waited");
                let (_, taken) = left[index];
                prop_assert!(taken.recorded);
                for (number, before) in left[..index].iter().filter(|(_, other)| other.account == taken.account) {
                    prop_assert!(batch.places().contains(&PlaceId(*number)));
                    prop_assert_eq!(before.operation, taken.operation);
                }
            }
            left.retain(|(number, _)| !batch.places().contains(&PlaceId(*number)));
            if batch.is_empty() {
                break;
            }
        }
        // What is left waits for what is not on disk.
        for (index, (number, waits)) in left.iter().enumerate() {
            let blocked = left[..=index].iter().any(|(_, before)| before.account == waits.account && !before.recorded);
            prop_assert!(blocked, "{number} was never called");
        }
    }
}
