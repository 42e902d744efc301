//! Within which span work happens: it goes along with the work, from task to task.

use futures_util::future::Either;
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
    static CURRENT: Option<Within>;
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

/// Does `work` within these spans, or within none.
pub fn within<F: Future>(spans: Option<Within>, work: F) -> TaskLocalFuture<Option<Within>, F> {
    CURRENT.scope(spans, work)
}

/// The span that the present work is a part of, where that is kept.
#[must_use]
pub fn current() -> Option<SpanContext> {
    CURRENT
        .try_with(|within| within.as_ref().map(|within| within.parent))
        .ok()
        .flatten()
}

/// How often the present work was done before, where it is traced.
#[must_use]
pub fn resends() -> Option<u32> {
    current_whole().map(|within| within.resends)
}

pub(super) fn current_whole() -> Option<Within> {
    CURRENT.try_with(Clone::clone).ok().flatten()
}

/// Has `work` go on within the present spans, whichever task it becomes.
pub fn inherit<F: Future>(work: F) -> Either<F, TaskLocalFuture<Option<Within>, F>> {
    match current_whole() {
        None => Either::Left(work),
        spans => Either::Right(within(spans, work)),
    }
}
