//! Work that outlives the request which began it.
//!
//! A handler is dropped when its peer resets the connection, and a task spawned on an actix worker is
//! lost when that worker stops. A change that was begun must still be finished and written down, so it
//! runs here: on the main runtime, counted, and waited for at a stop, within the spans in which it began.

use std::future::Future;
use std::sync::Arc;
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
