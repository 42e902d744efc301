//! Where keys come from that somebody else serves: a JWK Set at a URL, or the one that an issuer's discovery
//! document names.
//!
//! A set is fetched at the start, again when its `Cache-Control` says so, and again on demand: by a reload, and when
//! a token names a key that nobody knows, the latter at most once in 30 s whatever comes. A source that is down, or
//! answers with what is no set of usable keys, changes nothing: the last good set goes on working, however long.

mod answer;
mod error;
mod fetch;
mod schedule;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep_until, timeout};

use crate::config;
use crate::domain::Deadline;
use crate::tasks::Tasks;

use super::KeySet;
pub use error::SourceError;
use fetch::{FETCH_TIME_MAX, Fetched, Fetcher, Served};
use schedule::Schedule;

/// Most requests that wait for a fetch because of the key that they name; of more nothing can be said yet.
const WAITING_MAX: usize = 512;

/// How long a request waits for a fetch: less than what clients wait for their answer.
const CALLER_TIME_MAX: Duration = Duration::from_secs(3);

/// What is known of the fetches.
#[derive(Debug, Clone, Default)]
struct Progress {
    schedule: Schedule,
    fetching: bool,
    /// Fetches that ended.
    ended: u64,
    /// What was wrong with the last one.
    failure: Option<String>,
}

/// Asks for a fetch, and says how fetching goes.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    reload: Arc<Notify>,
    demand: Arc<Demand>,
    progress: watch::Receiver<Progress>,
    waiting: Semaphore,
}

/// That somebody needs a fetch besides those of the schedule.
#[derive(Debug, Default)]
struct Demand {
    /// So many have to have ended before it is met, by whichever fetch.
    ended: AtomicU64,
    changed: Notify,
}

/// What came of a fetch.
#[derive(Debug)]
pub(super) enum FetchedKeys {
    /// Keys.
    New(KeySet),
    /// The same as before.
    Same,
    /// None: it failed.
    None,
}

/// What came of asking for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing: it may not be yet.
    Refused,
    /// Nothing yet: too many wait already, or it takes too long for whoever asks.
    Pending,
    /// A fetch was waited for that had begun before.
    Joined,
    /// One was made.
    Fetched,
}

impl Source {
    /// Begins to fetch an issuer's keys, for as long as the program runs; `None` where nobody else serves them.
    ///
    /// # Errors
    /// Where no client can be made.
    pub(super) fn begin(
        issuer: &config::Issuer,
        use_keys: impl Fn(FetchedKeys) + Send + Sync + 'static,
        tasks: &Tasks,
    ) -> Result<Option<Self>, SourceError> {
        let Some(served) = Served::of(issuer) else {
            return Ok(None);
        };
        let fetcher = Fetcher::new(served, issuer.fetch.clone())?;
        let (progress, seen) = watch::channel(Progress::default());
        let source = Self {
            name: fetcher.name(),
            reload: Arc::default(),
            demand: Arc::default(),
            progress: seen,
            waiting: Semaphore::new(WAITING_MAX),
        };
        let (reload, demand) = (Arc::clone(&source.reload), Arc::clone(&source.demand));
        let stopping = tasks.clone();
        tasks.serve(async move {
            tokio::select! {
                () = keep(&fetcher, &use_keys, &reload, &demand, &progress) => {}
                () = stopping.stopping() => {}
            }
        });
        Ok(Some(source))
    }

    /// Fetches at once, and waits until that is done. Returns whether it brought keys.
    pub(super) async fn reload(&self) -> bool {
        let mut progress = self.progress.clone();
        let (ended, fetching) = {
            let now = progress.borrow_and_update();
            (now.ended, now.fetching)
        };
        // One that is under way began before what is to be read was there.
        let wanted = ended + 1 + u64::from(fetching);
        self.reload.notify_one();
        let fetched = progress.wait_for(|progress| progress.ended >= wanted);
        let time = FETCH_TIME_MAX * if fetching { 2 } else { 1 };
        match timeout(time, fetched).await {
            Ok(Ok(progress)) => progress.failure.is_none(),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// A token names a key that nobody knows, or there are none yet: waits for the fetch that is under way, or has them
    /// fetched anew where that may be.
    pub(super) async fn ask(&self) -> Asked {
        let (ended, fetching, may_ask) = {
            let progress = self.progress.borrow();
            let may_ask = progress.schedule.may_ask(Deadline::now().instant());
            (progress.ended, progress.fetching, may_ask)
        };
        if !fetching && !may_ask {
            return Asked::Refused;
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            return Asked::Pending;
        };
        if !fetching {
            self.demand.ended.fetch_max(ended + 1, Ordering::AcqRel);
            self.demand.changed.notify_one();
        }
        let mut progress = self.progress.clone();
        let fetched = progress.wait_for(|progress| progress.ended > ended);
        match timeout(CALLER_TIME_MAX, fetched).await {
            Ok(Ok(_)) if fetching => Asked::Joined,
            Ok(Ok(_)) => Asked::Fetched,
            Ok(Err(_)) | Err(_) => Asked::Pending,
        }
    }

    /// How old the keys are, and what was wrong with the last fetch.
    pub(super) fn detail(&self) -> String {
        let progress = self.progress.borrow();
        let now = Deadline::now().instant();
        let name = &self.name;
        let age = match progress.schedule.age(now) {
            Some(age) => format!("keys of {name}, read {} s ago", age.as_secs()),
            None => format!("no keys of {name} yet"),
        };
        match &progress.failure {
            Some(failure) => format!("{age}; the last try failed: {failure}"),
            None => age,
        }
    }
}

/// Fetches whenever it is time to.
async fn keep(
    fetcher: &Fetcher,
    use_keys: &(impl Fn(FetchedKeys) + Sync),
    reload: &Notify,
    demand: &Demand,
    progress: &watch::Sender<Progress>,
) {
    let mut last_text = None;
    loop {
        let next = progress.borrow().schedule.next();
        let (mut reloading, mut demanded) = (false, None);
        tokio::select! {
            () = wait_until(next) => {}
            () = reload.notified() => reloading = true,
            () = demand.changed.notified() => {
                let now = Deadline::now().instant();
                let is_due = {
                    let progress = progress.borrow();
                    // A fetch that ended meanwhile is as good.
                    let is_met = progress.ended >= demand.ended.load(Ordering::Acquire);
                    !is_met && progress.schedule.may_ask(now)
                };
                if !is_due {
                    continue;
                }
                demanded = Some(now);
            }
        }
        // At once, so that nobody sees a turn that is taken and no fetch.
        progress.send_modify(|progress| {
            progress.fetching = true;
            if let Some(now) = demanded {
                progress.schedule.demanded(now);
            }
        });
        let answer = timeout(FETCH_TIME_MAX, fetcher.fetch()).await;
        let answer = answer.unwrap_or(Err(SourceError::TimedOut));
        let now = Deadline::now().instant();
        let outcome = take(answer, fetcher, &mut last_text, reloading, use_keys);
        let on_demand = demanded.is_some();
        progress.send_modify(|progress| progress.end(now, on_demand, outcome));
    }
}

/// Hands over what came of a fetch. Gives how long it is good, or what is wrong.
fn take(
    answer: Result<Fetched, SourceError>,
    fetcher: &Fetcher,
    last_text: &mut Option<String>,
    reloading: bool,
    use_keys: &impl Fn(FetchedKeys),
) -> Result<Option<Duration>, String> {
    let set = match answer {
        Ok(set) => set,
        Err(error) => {
            use_keys(FetchedKeys::None);
            tracing::warn!(keys.source = fetcher.name(), error.message = %error, "a key set cannot be read");
            return Err(error.to_string());
        }
    };
    if last_text.as_ref() == Some(&set.text) {
        use_keys(FetchedKeys::Same);
        if reloading {
            tracing::info!(keys.source = fetcher.name(), "the key set is the same");
        }
    } else {
        for left_out in set.keys.left_out() {
            tracing::warn!("{}: {left_out}; it is left out", fetcher.name());
        }
        use_keys(FetchedKeys::New(set.keys));
        *last_text = Some(set.text);
        tracing::info!(keys.source = fetcher.name(), "a key set is read");
    }
    Ok(set.max_age)
}

impl Progress {
    /// A fetch ended at `now`, made because of an unknown key or not: with keys that are good for so long, or with what is
    /// wrong.
    fn end(&mut self, now: Instant, on_demand: bool, outcome: Result<Option<Duration>, String>) {
        self.fetching = false;
        self.ended += 1;
        match outcome {
            Ok(max_age) => {
                self.schedule.succeeded(now, max_age);
                self.failure = None;
            }
            Err(failure) => {
                if on_demand {
                    self.schedule.failed_on_demand(now);
                } else {
                    self.schedule.failed(now);
                }
                self.failure = Some(failure);
            }
        }
    }
}

async fn wait_until(next: Option<Instant>) {
    if let Some(next) = next {
        sleep_until(next.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Authenticator, Grant, Mint, throw_away_set};
    use crate::config::{Auth, Fetch, Issuer, KeySource};
    use crate::domain::Timestamp;
    use crate::telemetry::Metrics;

    const WEEK: Duration = Duration::from_hours(7 * 24);
    const DAY: Duration = Duration::from_hours(24);

    fn sign(set: &str, issuer: &str) -> String {
        let grant = Grant {
            subject: "team-a",
            scope: "shares:read",
            issuer,
            audience: "a",
            ttl: WEEK + DAY,
        };
        let mint = Mint::from_set(set, None).expect("a key");
        mint.sign(&grant).expect("signs")
    }

    /// The first issuer's source is away for a week, by the program's own tries against a port where nobody listens and its
    /// own schedule, with the time handed in. The second issuer turns its keys over each day.
    #[tokio::test]
    async fn a_week_without_one_source_refuses_no_good_token_of_any_issuer() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let nowhere = format!("http://{}/keys", nobody.local_addr().expect("an address"));
        drop(nobody);
        let nowhere = KeySource::Url(nowhere.parse().expect("a URL"));
        let (away, ci) = ("https://away.example", "https://ci.example");
        let auth = Auth {
            first: Issuer::first(away, "a", nowhere),
            further: vec![Issuer {
                name: Some("ci".parse().expect("a name")),
                ..Issuer::first(ci, "a", KeySource::Sandbox)
            }],
            leeway: Duration::ZERO,
        };
        let authenticator = Authenticator::new(&auth, Metrics::new());
        let ci_name = auth.further[0].name.as_ref();
        let served = Served::of(&auth.first).expect("it is served");
        let fetcher = Fetcher::new(served, Fetch::default()).expect("a client");

        let (start, clock) = (Deadline::now().instant(), Timestamp::now());
        let good = |token: &str, now: Instant| {
            let micros = i64::try_from((now - start).as_micros()).expect("a week");
            let at = Timestamp::from_micros(clock.as_micros() + micros);
            authenticator.authenticate_at(token, at).map(drop)
        };
        let use_keys = |keys: FetchedKeys| {
            if let FetchedKeys::New(keys) = keys {
                authenticator.use_keys(None, keys);
            }
        };
        let (set, mut progress, mut last_text) = (throw_away_set(), Progress::default(), None);
        let first = Fetched {
            keys: KeySet::parse(&set).expect("keys"),
            text: set.clone(),
            max_age: None,
        };
        let outcome = take(Ok(first), &fetcher, &mut last_text, false, &use_keys);
        progress.end(start, false, outcome);
        let (kept, mut of_ci, mut turned) = (sign(&set, away), String::new(), start);
        let (mut now, mut tries) = (start, 0);
        while now - start < WEEK {
            if of_ci.is_empty() || now - turned >= DAY {
                let set = throw_away_set();
                authenticator.use_keys(ci_name, KeySet::parse(&set).expect("keys"));
                if !of_ci.is_empty() {
                    assert!(good(&of_ci, now).is_err(), "its key is gone");
                }
                (of_ci, turned) = (sign(&set, ci), now);
            }
            now = progress.schedule.next().expect("it goes on");
            // All of a day, then a fetch now and then: each is one and the same.
            if tries < 1440 || tries % 20 == 0 {
                let answer = fetcher.fetch().await;
                assert!(matches!(answer, Err(SourceError::Unreachable)));
                progress.end(
                    now,
                    false,
                    take(answer, &fetcher, &mut last_text, false, &use_keys),
                );
            } else {
                progress.end(now, false, Err("it cannot be reached".into()));
            }
            tries += 1;
            assert_eq!(good(&kept, now), Ok(()), "after {:?}", now - start);
            assert_eq!(good(&of_ci, now), Ok(()), "after {:?}", now - start);
        }
        assert!(tries > 7 * 24 * 60 - 10, "{tries}");
        let age = progress.schedule.age(now).expect("an age");
        assert!(age >= WEEK, "{age:?}");
    }
}
