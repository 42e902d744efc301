//! Token buckets: one a subject for requests, and one a client address for failed authentications.
//!
//! Both are bounded in memory whatever comes. Who is throttled stays throttled: a bucket is forgotten only once it is
//! full again, and when too many are not, newcomers share a few buckets instead of taking the places of others.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock, Reference as _};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, StateStore};
use governor::{Quota, RateLimiter};

use crate::config;
use crate::domain::Principal;
use crate::problem::ProblemKind;
use crate::telemetry::Metrics;

use super::quota::{BucketState, Counted, Policy};
use crate::http::wire::{Cost, Problem};

/// Most buckets of one kind; each takes some 40 bytes.
const BUCKETS_MAX: usize = 100_000;
/// Buckets that newcomers share while there is no room.
const SHARED_BUCKETS: u64 = 1024;
/// How often buckets that are full are looked for, at most: while there is room, and while there is none.
const TIDY_INTERVAL: Duration = Duration::from_secs(30);
const TIDY_INTERVAL_FULL: Duration = Duration::from_secs(1);

/// Accounts of a bulk that cost as much as one request.
const ACCOUNTS_PER_TOKEN: usize = 10;

/// Tokens that a request takes which names so many accounts.
fn tokens(cost: Cost, accounts: usize) -> u32 {
    match cost {
        Cost::Nothing => 0,
        Cost::Request => 1,
        Cost::Accounts => {
            let tokens = accounts.div_ceil(ACCOUNTS_PER_TOKEN).max(1);
            u32::try_from(tokens).unwrap_or(u32::MAX)
        }
    }
}

/// All limits of the REST listener.
#[derive(Debug)]
pub struct RateLimits {
    requests: Option<TokenBuckets<DefaultClock>>,
    failed_authentications: Option<TokenBuckets<DefaultClock>>,
    metrics: Metrics,
}

impl RateLimits {
    /// As configured.
    #[must_use]
    pub fn new(limits: &config::Limits, metrics: Metrics) -> Self {
        let buckets = |rate: &config::Rate| TokenBuckets::new(rate, DefaultClock::default());
        Self {
            requests: limits.requests.as_ref().map(buckets),
            failed_authentications: limits.failed_authentications.as_ref().map(buckets),
            metrics,
        }
    }

    /// Takes what a request of `principal` costs, and notes in `counted` what is left. All tokens of one subject of one
    /// issuer are counted together.
    pub(super) fn admit(
        &self,
        principal: &Principal,
        cost: Cost,
        accounts: usize,
        counted: &Counted,
    ) -> Result<(), Problem> {
        let Some(requests) = &self.requests else {
            return Ok(());
        };
        let tokens = tokens(cost, accounts);
        let taken = requests.take(&(&principal.issuer, &principal.subject), tokens);
        let left = match &taken {
            Ok(left) => *left,
            Err(NotYet { left, .. }) => Some(*left),
        };
        if let Some(left) = left {
            let policy = requests.policy.clone();
            counted.note(BucketState { left, policy });
        }
        match taken {
            Ok(_) => Ok(()),
            Err(NotYet { wait, .. }) => {
                self.metrics.rate_limited("subject");
                Err(limited(
                    wait,
                    "this subject asks for more than it may at once",
                ))
            }
        }
    }

    /// Notes that an authentication from this address failed; a problem, where too many did.
    pub(super) fn authentication_failed(&self, client: IpAddr) -> Result<(), Problem> {
        let Some(failures) = &self.failed_authentications else {
            return Ok(());
        };
        match failures.take(&network(client), 1) {
            Ok(_) => Ok(()),
            Err(NotYet { wait, .. }) => {
                self.metrics.rate_limited("failed_authentications");
                Err(limited(
                    wait,
                    "too many authentications from this address failed",
                ))
            }
        }
    }
}

fn limited(wait: Duration, detail: &'static str) -> Problem {
    let mut problem = Problem::new(ProblemKind::RateLimited, detail);
    problem.retry_after(wait);
    problem
}

/// Whoever has one IPv6 address mostly has its whole /64.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) & !u128::from(u64::MAX)).to_be_bytes()),
    }
}

/// A bucket does not hold what is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NotYet {
    /// Until it does.
    wait: Duration,
    /// What it holds.
    left: u32,
}

/// Buckets by the hash of whom they belong to, so that each takes the same room.
#[derive(Debug)]
struct TokenBuckets<C: Clock> {
    policy: Policy,
    limiter: RateLimiter<u64, Store, C, StateInformationMiddleware>,
    store: Store,
    hasher: RandomState,
    clock: C,
    begun: C::Instant,
    /// When they were tidied last, in milliseconds since the begin.
    tidied: AtomicU64,
}

impl<C: Clock + Clone> TokenBuckets<C> {
    fn new(rate: &config::Rate, clock: C) -> Self {
        let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
        let period = Duration::from_secs_f64(1.0 / rate.per_second).max(Duration::from_nanos(1));
        let quota = Quota::with_period(period).unwrap_or_else(|| Quota::per_second(burst));
        let store = Store::default();
        Self {
            policy: Policy::new(burst.get(), period),
            limiter: RateLimiter::new(quota.allow_burst(burst), store.clone(), clock.clone()),
            store,
            hasher: RandomState::new(),
            begun: clock.now(),
            clock,
            tidied: AtomicU64::new(0),
        }
    }

    /// Takes tokens, at most a whole bucket, and says how many are left where any were taken; or says how long it takes
    /// until they are there.
    fn take(&self, whose: &impl Hash, tokens: u32) -> Result<Option<u32>, NotYet> {
        let hash = self.hasher.hash_one(whose);
        self.tidy();
        let key = if self.store.has_room_for(hash) {
            hash
        } else {
            hash % SHARED_BUCKETS
        };
        let Some(tokens) = NonZeroU32::new(tokens.min(self.policy.burst)) else {
            return Ok(None);
        };
        match self.limiter.check_key_n(&key, tokens) {
            Ok(Ok(state)) => Ok(Some(state.remaining_burst_capacity())),
            Ok(Err(not_yet)) => {
                let wait = not_yet.wait_time_from(self.clock.now());
                let lacking = wait.as_nanos().div_ceil(self.policy.period.as_nanos());
                let lacking = u32::try_from(lacking).unwrap_or(u32::MAX);
                let left = tokens.get().saturating_sub(lacking);
                Err(NotYet { wait, left })
            }
            // Never more is taken than a whole bucket, so there always is enough capacity.
            Err(_) => Ok(None),
        }
    }

    /// Forgets buckets that are full, now and then: they say no more than none.
    fn tidy(&self) {
        let full = self.store.is_full();
        let interval = if full {
            TIDY_INTERVAL_FULL
        } else {
            TIDY_INTERVAL
        };
        let now = Duration::from(self.clock.now().duration_since(self.begun)).as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let tidied = self.tidied.load(Ordering::Relaxed);
        let due = now.saturating_sub(tidied) >= interval.as_millis().try_into().unwrap_or(u64::MAX);
        let mine = due
            && self
                .tidied
                .compare_exchange(tidied, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
    }
}

/// Governor's store of buckets, with a look at what it holds.
#[derive(Debug, Clone, Default)]
struct Store(Arc<DashMap<u64, InMemoryState>>);

impl Store {
    fn is_full(&self) -> bool {
        self.0.len() >= BUCKETS_MAX
    }

    fn has_room_for(&self, key: u64) -> bool {
        !self.is_full() || self.0.contains_key(&key)
    }
}

impl StateStore for Store {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, decide)
    }
}

impl ShrinkableKeyedStateStore<u64> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn shrink_to_fit(&self) {
        ShrinkableKeyedStateStore::shrink_to_fit(&*self.0);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn buckets(
        per_second: f64,
        burst: u32,
    ) -> (TokenBuckets<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let rate = config::Rate { per_second, burst };
        (TokenBuckets::new(&rate, clock.clone()), clock)
    }

    fn not_yet(wait: Duration, left: u32) -> Result<Option<u32>, NotYet> {
        Err(NotYet { wait, left })
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate_and_says_truly_how_long_to_wait() {
        let (buckets, clock) = buckets(2.0, 3);
        for left in [2, 1, 0] {
            assert_eq!(buckets.take(&"team-a", 1), Ok(Some(left)));
        }
        let half_a_second = Duration::from_millis(500);
        assert_eq!(buckets.take(&"team-a", 1), not_yet(half_a_second, 0));
        let other = buckets.take(&"team-b", 1);
        assert_eq!(other, Ok(Some(2)), "another subject's is not empty");
        clock.advance(Duration::from_millis(499));
        assert!(buckets.take(&"team-a", 1).is_err());
        clock.advance(Duration::from_millis(1));
        assert_eq!(buckets.take(&"team-a", 1), Ok(Some(0)));
        clock.advance(Duration::from_millis(750));
        assert_eq!(
            buckets.take(&"team-a", 3),
            not_yet(Duration::from_millis(750), 1),
            "what is there is told although it is too little"
        );
    }

    #[test]
    fn a_bulk_costs_a_tenth_of_its_accounts_and_at_most_a_whole_bucket() {
        let costs = [0, 1, 10, 11, 1000].map(|accounts| tokens(Cost::Accounts, accounts));
        assert_eq!(costs, [1, 1, 1, 2, 100]);
        let (buckets, clock) = buckets(1.0, 5);
        let whole = buckets.take(&"team-a", 100);
        assert_eq!(whole, Ok(Some(0)), "a full bucket is enough");
        let second = Duration::from_secs(1);
        assert_eq!(buckets.take(&"team-a", 1), not_yet(second, 0));
        clock.advance(Duration::from_secs(5));
        assert_eq!(buckets.take(&"team-a", 100), Ok(Some(0)));
    }

    #[test]
    fn a_flood_of_subjects_is_bounded_and_frees_nobody_who_is_throttled() {
        // A bucket takes a thousand seconds to fill again, so none of the flood is forgotten.
        let (buckets, clock) = buckets(0.001, 1);
        assert_eq!(buckets.take(&"throttled", 1), Ok(Some(0)));
        assert!(buckets.take(&"throttled", 1).is_err());
        for number in 0..BUCKETS_MAX * 2 {
            let _ = buckets.take(&number, 1);
            if number % 1000 == 0 {
                clock.advance(Duration::from_millis(10));
            }
        }
        let most = BUCKETS_MAX + usize::try_from(SHARED_BUCKETS).expect("small");
        assert!(buckets.store.len() <= most, "{}", buckets.store.len());
        assert!(
            buckets.take(&"throttled", 1).is_err(),
            "it is still throttled"
        );
        clock.advance(Duration::from_secs(2000));
        assert_eq!(buckets.take(&"throttled", 1), Ok(Some(0)));
        assert!(buckets.store.len() <= 2, "what is full again is forgotten");
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let same = |one: &str, other: &str| {
            let parse = |text: &str| network(text.parse().expect("an address"));
            parse(one) == parse(other)
        };
        assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }
}
