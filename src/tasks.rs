//! Work that outlives the request which began it.
//!
//! A handler is dropped when its peer resets the connection, and a task spawned on an actix worker is
//! lost when that worker stops. A change that was begun must still be finished and written down, so it
//! runs here: on the main runtime, counted, and waited for at a stop, within the spans in which it began.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::domain::Deadline;
use crate::telemetry::traces::{Within, current, within};

/// Spawns work on the main runtime and waits for it at a stop. Clones share the same work.
#[derive(Debug, Clone)]
pub struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    stopping: CancellationToken,
    giving_up: CancellationToken,
}

impl Tasks {
    /// Keeps the runtime that calls this; all work runs there.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn on_this_runtime() -> Self {
        Self {
            runtime: Handle::current(),
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            giving_up: CancellationToken::new(),
        }
    }

    /// Begins `work`, which goes on whoever stops waiting for it.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.begin(current(), work);
    }

    /// As [`Self::spawn`], but `work` begins at once, on the thread that calls this, and goes on elsewhere from where it
    /// first waits: what it waits for is under way before another thread wakes up.
    pub fn begin_here<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(spans) = current() else {
            return self.begin_tracked(work);
        };
        self.begin_tracked(within(spans, work));
    }

    fn begin_tracked<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut work = Box::pin(self.tracker.track_future(work));
        let begun = {
            // What it opens, timers among it, belongs to the runtime on which it goes on.
            let _entered = self.runtime.enter();
            // Whatever wakes it meanwhile, it is looked at once more where it goes on.
            let mut nobody = Context::from_waker(Waker::noop());
            let begin = AssertUnwindSafe(|| work.as_mut().poll(&mut nobody));
            catch_unwind(begin)
        };
        // One that panicked ends, as it would elsewhere.
        if let Ok(Poll::Pending) = begun {
            self.runtime.spawn(work);
        }
    }

    /// The same within other spans than the present ones, or within none.
    pub fn spawn_within<F>(&self, spans: Option<Within>, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.begin(spans.map(Arc::new), work);
    }

    fn begin<F>(&self, spans: Option<Arc<Within>>, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match spans {
            None => self.tracker.spawn_on(work, &self.runtime),
            Some(spans) => self.tracker.spawn_on(within(spans, work), &self.runtime),
        }
    }

    /// Begins `work` that serves other work: a stop does not wait for it, and it must end by itself once nobody
    /// needs it.
    pub fn serve<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(work);
    }

    /// Runs `work` on the main runtime while its caller waits, and gives its result; `None` where it panicked
    /// or a stop gave up on it. It ends with whoever waits for it: a read that nobody waits for is no use.
    ///
    /// For what must not run on an actix worker although it belongs to one request: connections belong to the
    /// runtime that opened them.
    pub async fn run<F>(&self, work: F) -> Option<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let running = AbortOnDropHandle::new(self.begin(current(), work));
        tokio::select! {
            done = running => done.ok(),
            () = self.giving_up() => None,
        }
    }

    /// Says that a stop has begun: what has not begun by itself need not.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Resolves when a stop has begun.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Resolves when a stop has waited long enough: what still waits should write down where it stands.
    pub async fn giving_up(&self) {
        self.giving_up.cancelled().await;
    }

    /// Waits until all work is done. At `deadline` it tells the work to give up and waits for `grace` more.
    /// Returns whether everything ended without being told to.
    pub async fn finish(&self, deadline: Deadline, grace: Duration) -> bool {
        self.tracker.close();
        if timeout_at(deadline.instant().into(), self.tracker.wait())
            .await
            .is_ok()
        {
            return true;
        }
        self.giving_up.cancel();
        let _ = timeout(grace, self.tracker.wait()).await;
        false
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_begins_here_goes_on_elsewhere_and_is_waited_for() {
        let tasks = Tasks::on_this_runtime();
        let (done, mut is_done) = oneshot::channel();
        let begin = tasks.clone();
        let (go, went) = oneshot::channel::<()>();
        // A thread whose runtime ends, as that of an actix worker does.
        let other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(async {
                let here = std::thread::current().id();
                begin.begin_here(async move {
                    assert_eq!(std::thread::current().id(), here);
                    let pause = tokio::time::sleep(Duration::from_millis(1));
                    pause.await;
                    went.await.expect("goes");
                    assert_ne!(std::thread::current().id(), here);
                    done.send(()).expect("somebody waits");
                });
            });
        });
        other.join().expect("ends");
        assert!(is_done.try_recv().is_err(), "it waits");
        go.send(()).expect("waits");
        let finished = tasks.finish(Deadline::after(Duration::from_secs(30)), Duration::ZERO);
        assert!(finished.await, "a stop waits for it");
        assert_eq!(is_done.await, Ok(()));
    }

    #[tokio::test]
    async fn a_panic_as_it_begins_ends_the_work_alone() {
        let tasks = Tasks::on_this_runtime();
        let (told, ended) = oneshot::channel::<()>();
        tasks.begin_here(async move {
            let _told = told;
            panic!("as it begins");
        });
        assert!(ended.await.is_err(), "whoever waits for it learns so");
    }
}
