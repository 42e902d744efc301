//! Where keys come from that somebody else serves: a JWK Set at an URL, or the one that an issuer's discovery
//! document names.
//!
//! A set is fetched at the start, again when its `Cache-Control` says so, and again on demand: by a reload, and when
//! a token names a key that nobody knows, the latter at most once in 30 s whatever comes. A source that is down, or
//! answers with what is no set of usable keys, changes nothing: the last good set goes on working, however long.

mod answer;
mod fetch;
mod schedule;

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep_until, timeout};

use crate::config;
use crate::domain::Deadline;
use crate::tasks::Tasks;

use super::KeySet;
pub use fetch::SourceError;
use fetch::{FETCH_TIME_MAX, Fetcher, Served};
pub(super) use schedule::Schedule;

/// Most requests that wait for a fetch because of the key that they name; more are refused at once.
const WAITING_MAX: usize = 512;

/// Most keys that are left out of a set and are named in the log.
const LEFT_OUT_LINES_MAX: usize = 20;

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
    demand: Arc<Notify>,
    progress: watch::Receiver<Progress>,
    waiting: Semaphore,
}

impl Source {
    /// Begins to fetch an issuer's keys, for as long as the program runs; `None` where nobody else serves them.
    ///
    /// # Errors
    /// Where no client can be made.
    pub(super) fn begin(
        issuer: &config::Issuer,
        use_keys: impl Fn(KeySet) + Send + Sync + 'static,
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

    /// A token names a key that nobody knows, or there are none yet: has them fetched anew where that may be, and waits.
    /// Returns whether there was a fetch that may have brought it.
    pub(super) async fn ask(&self) -> bool {
        let (ended, open) = {
            let progress = self.progress.borrow();
            let open = progress.fetching || progress.schedule.may_ask(Deadline::now().instant());
            (progress.ended, open)
        };
        if !open {
            return false;
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            return false;
        };
        self.demand.notify_one();
        let mut progress = self.progress.clone();
        let fetched = progress.wait_for(|progress| progress.ended > ended);
        matches!(timeout(FETCH_TIME_MAX, fetched).await, Ok(Ok(_)))
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
    use_keys: &(impl Fn(KeySet) + Sync),
    reload: &Notify,
    demand: &Notify,
    progress: &watch::Sender<Progress>,
) {
    let mut last_text = None;
    loop {
        let next = progress.borrow().schedule.next();
        let mut reloading = false;
        tokio::select! {
            () = wait_until(next) => {}
            () = reload.notified() => reloading = true,
            () = demand.notified() => {
                let now = Deadline::now().instant();
                let may_ask = progress.borrow().schedule.may_ask(now);
                if !may_ask {
                    continue;
                }
                progress.send_modify(|progress| progress.schedule.demanded(now));
            }
        }
        progress.send_modify(|progress| progress.fetching = true);
        let answer = fetcher.fetch().await;
        let now = Deadline::now().instant();
        let outcome = match answer {
            Ok(set) => {
                if last_text.as_ref() == Some(&set.text) {
                    if reloading {
                        tracing::info!(source = fetcher.name(), "the key set is the same");
                    }
                } else {
                    for left_out in set.keys.left_out().iter().take(LEFT_OUT_LINES_MAX) {
                        tracing::warn!("{}: {left_out}; it is left out", fetcher.name());
                    }
                    use_keys(set.keys);
                    last_text = Some(set.text);
                    tracing::info!(source = fetcher.name(), "a key set is read");
                }
                Ok(set.max_age)
            }
            Err(error) => {
                tracing::warn!(source = fetcher.name(), error = %error, "a key set cannot be read");
                Err(error.to_string())
            }
        };
        progress.send_modify(|progress| {
            progress.fetching = false;
            progress.ended += 1;
            match outcome {
                Ok(max_age) => {
                    progress.schedule.succeeded(now, max_age);
                    progress.failure = None;
                }
                Err(failure) => {
                    progress.schedule.failed(now);
                    progress.failure = Some(failure);
                }
            }
        });
    }
}

async fn wait_until(next: Option<std::time::Instant>) {
    if let Some(next) = next {
        sleep_until(next.into()).await;
    }
}
