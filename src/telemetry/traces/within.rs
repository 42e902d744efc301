//! Within which span work happens: it goes along with the work, from task to task.

use std::sync::Arc;

use tokio::task::futures::TaskLocalFuture;
use tokio::task_local;

use crate::domain::SpanContext;

/// The spans that work belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within {
    /// The one that it is a part of.
    pub parent: SpanContext,
    /// Others that it was done for too.
    pub linked: Vec<SpanContext>,
    /// How often it was done before.
    pub resends: u32,
}

task_local! {
    static CURRENT: Arc<Within>;
}

impl Within {
    /// The same, done again for so manieth a time.
    #[must_use]
    pub fn again(self, resends: u32) -> Self {
        Self { resends, ..self }
    }

    /// Work for several spans at once: a part of the first, linked to all of them where there is more than one. Those of
    /// traces that are not kept count for nothing.
    #[must_use]
    pub fn all(spans: impl IntoIterator<Item = SpanContext>) -> Option<Self> {
        let mut linked: Vec<SpanContext> = Vec::new();
        for span in spans.into_iter().filter(|span| span.sampled) {
            if !linked.contains(&span) {
                linked.push(span);
            }
        }
        let parent = *linked.first()?;
        if linked.len() == 1 {
            linked.clear();
        }
        Some(Self {
            parent,
            linked,
            resends: 0,
        })
    }
}

/// Does `work` within these spans. Work that is not traced needs no such frame.
pub fn within<F: Future>(
    spans: impl Into<Arc<Within>>,
    work: F,
) -> TaskLocalFuture<Arc<Within>, F> {
    CURRENT.scope(spans.into(), work)
}

/// Runs `work` at once within `spans`, where there are any: for what somebody else does on the behalf of traced work.
pub fn within_now<T>(spans: Option<Arc<Within>>, work: impl FnOnce() -> T) -> T {
    match spans {
        Some(spans) => CURRENT.sync_scope(spans, work),
        None => work(),
    }
}

/// The spans that the present work belongs to, where it is traced.
#[must_use]
pub fn current() -> Option<Arc<Within>> {
    CURRENT.try_with(Clone::clone).ok()
}
