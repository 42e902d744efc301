//! What is being answered, so that a stop knows what it waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Requests that are being answered, and apart from them the followers of the feed: those never end by
/// themselves, and one whose client takes nothing cannot be told to. Clones count the same.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    answering: TaskTracker,
    following: TaskTracker,
    draining: Arc<AtomicBool>,
}

/// Counts as long as it lives.
pub(in crate::http) struct Counted(
    #[expect(dead_code, reason = "counts by being there")] TaskTrackerToken,
);

impl Requests {
    pub(in crate::http) fn begin(&self) -> Counted {
        Counted(self.answering.token())
    }

    pub(in crate::http) fn follow(&self) -> Counted {
        Counted(self.following.token())
    }

    /// From now on each answer ends its connection: whoever comes next is led elsewhere, and no request is sent over a
    /// connection that is about to be closed.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(in crate::http) fn are_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Resolves when nothing but followers is left; never where there are none of those.
    pub async fn only_followers(&self) {
        self.answering.close();
        self.answering.wait().await;
        if self.following.is_empty() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether followers are all that is left.
    #[must_use]
    pub fn are_only_followers(&self) -> bool {
        self.answering.is_empty() && !self.following.is_empty()
    }
}
