//! The use cases: share an image with an account, take a share back, see who has access.
//!
//! A change goes decision → intent on disk → lane → upstream → outcome on disk → answer, and no step is
//! taken before the one before it holds. It runs in a task of its own: a caller that leaves does not take
//! its change back, and a caller whose time is up is answered while the change goes on to its end. What goes to
//! the upstream when, and again, is decided in [`lanes`].

mod bulk;
mod change;
mod completion;
mod images;
mod lanes;
mod listing;
mod lists;
mod order;
mod provenance;
mod reconciliation;
mod recovery;
mod rehearsal;
mod replacement;

use std::sync::Arc;
use std::time::Duration;

use crate::audit::{EnqueueError, Reader, Replicas, StoreError, Writer};
use crate::authorization::{Authorizer, Refusal};
use crate::config;
use crate::domain::{AccountId, EventId, ImageId, Outcome, Region};
use crate::problem::Effect;
use crate::tasks::Tasks;
use crate::telemetry::{Instruments, Metrics, Traces};
use crate::upstream::{BreakerState, CallError, Upstream};

pub use bulk::{Bulk, BulkError, BulkResult};
pub use completion::Told;
pub use images::Images;
use lanes::{AdmitError, Lanes, Limits};
use lists::Lists;
pub use provenance::{Origin, Standing};
pub use rehearsal::{RehearsalError, Rehearsed};
pub use replacement::{DifferenceError, Replacement};

/// The use cases' door. Clones lead to the same lanes.
#[derive(Debug, Clone)]
pub struct Sharing(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    authorizer: Arc<Authorizer>,
    writer: Writer,
    reader: Reader,
    upstream: Arc<Upstream>,
    lanes: Lanes,
    lists: Lists,
    tasks: Tasks,
    metrics: Metrics,
    traces: Traces,
}

/// The doors of the trail that use cases go through.
#[derive(Debug)]
pub struct Trail {
    /// Appends.
    pub writer: Writer,
    /// Looks.
    pub reader: Reader,
    /// What is settled with other gateways, where there may be some.
    pub replicas: Option<Replicas>,
}

/// A change that is done, and on disk as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Its event.
    pub event_id: EventId,
}

/// Why a change has no receipt.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Scope or policy refused it. The denial is on disk; nothing was sent.
    #[error("the change was denied")]
    Denied {
        /// Why.
        refusal: Refusal,
        /// The denial's event.
        event_id: EventId,
    },
    /// Too much is waiting. Nothing is on disk, nothing was sent.
    #[error("too much is waiting")]
    Overloaded,
    /// The trail cannot be written. Nothing was sent.
    #[error("the audit trail cannot be written")]
    AuditUnavailable,
    /// It ended otherwise than asked; the outcome is on disk.
    #[error("the change failed: {}", .0.told.detail)]
    Failed(Failure),
    /// It was sent, and its outcome is not on disk yet.
    #[error("the outcome could not be written")]
    OutcomeNotRecorded {
        /// Its event.
        event_id: EventId,
        /// Whether it took effect.
        effect: Effect,
    },
    /// The caller's time is up while the call is in flight; the event stays pending until that ends.
    #[error("the caller's time is up while the change is in flight")]
    StillInFlight {
        /// Its event.
        event_id: EventId,
    },
    /// A fault of the gateway; what was sent is not known here.
    #[error("the change's task was lost")]
    Lost,
}

/// How a change failed, for its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its event.
    pub event_id: EventId,
    /// What the trail says of it.
    pub outcome: Outcome,
    /// What the caller is told.
    pub told: Told,
    /// Whether it took effect.
    pub effect: Effect,
    /// What the upstream said, where it said something.
    pub upstream: Option<UpstreamWords>,
}

/// What the upstream said, for callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamWords {
    /// Its `RetCode`.
    pub ret_code: i64,
    /// Its message.
    pub message: Option<String>,
}

/// Why a list cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// As many calls as may be made are, and the caller's time is up.
    #[error("too many calls are in flight")]
    Overloaded,
    /// The circuit breaker is open, for so long.
    #[error("the circuit breaker is open")]
    BreakerOpen(Duration),
    /// The caller's time is up before the upstream answered.
    #[error("the upstream did not answer in the caller's time")]
    TimeUp,
    /// The upstream did not give it.
    #[error("the upstream did not give the list")]
    Upstream(#[source] CallError),
    /// The trail, which knows where shares come from, cannot be read.
    #[error("the audit trail could not be read")]
    Trail(#[source] StoreError),
    /// A fault of the gateway.
    #[error("the read's task was lost")]
    Lost,
}

/// Who has access to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// The image.
    pub image_id: ImageId,
    /// Where it lives.
    pub region: Region,
    /// Who has access, ascending by account.
    pub accounts: Vec<Access>,
}

/// An account that has access, and how it came to have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The account.
    pub account_id: AccountId,
    /// Its name, where the upstream gives one.
    pub account_name: Option<String>,
    /// What the trail knows of it.
    pub origin: Origin,
}

impl Sharing {
    /// Puts the use cases on their parts.
    #[must_use]
    pub fn new(
        authorizer: Arc<Authorizer>,
        trail: Trail,
        upstream: Arc<Upstream>,
        tasks: Tasks,
        instruments: Instruments,
        settings: &config::UpstreamSettings,
    ) -> Self {
        let Trail {
            writer,
            reader,
            replicas,
        } = trail;
        let Instruments { metrics, traces } = instruments.clone();
        let limits = Limits {
            max_in_flight: settings.max_in_flight,
            max_retries: settings.max_retries,
            requests_per_second: settings.requests_per_second,
            shared: replicas.is_some(),
        };
        let calling = Arc::clone(&upstream);
        let lease = replicas.as_ref().map(|replicas| replicas.lease.clone());
        let (lanes, landings_over, orders) =
            Lanes::new(limits, calling, tasks.clone(), instruments, lease);
        let parts = Arc::new(Parts {
            authorizer,
            writer,
            reader,
            upstream,
            lanes,
            lists: Lists::default(),
            tasks,
            metrics,
            traces,
        });
        let reconciling = reconciliation::follow(Arc::downgrade(&parts), landings_over);
        parts.tasks.serve(reconciling);
        if let Some(replicas) = replicas {
            order::start(&parts, replicas, orders);
        }
        Self(parts)
    }

    /// The state of the circuit breaker before the upstream.
    #[must_use]
    pub fn breaker_state(&self) -> BreakerState {
        self.0.lanes.breaker_state()
    }

    /// Says in the log what a stop leaves undone.
    pub fn tell_what_is_left(&self) {
        let landings = self.0.lanes.landings();
        if landings > 0 {
            tracing::warn!(
                audit.accounts = landings,
                "changes whose calls timed out may still take effect after contrary ones; nobody looks until a gateway runs again"
            );
        }
    }

    /// Lets all images go that other gateways may want. For a stop, once nothing is under way.
    pub async fn leave(&self) {
        self.0.lanes.leave().await;
    }

    /// Closes, in the background, what a run before this one left pending: each intent without an outcome
    /// becomes `unknown`, with what the upstream says now. Call it before the first change is taken, since
    /// everything pending is held for a leftover. Of a trail that several gateways write, these look after one another.
    pub async fn recover(&self) {
        if self.0.lanes.is_shared() {
            return;
        }
        let pending = self.0.reader.pending().await;
        let of_pending = pending.as_deref().unwrap_or_default();
        if let Err(error) = reconciliation::remember(&self.0, of_pending).await {
            tracing::error!(error.message = %error, "changes that may take effect late could not be read; nobody looks after them");
        }
        match pending {
            Ok(pending) if pending.is_empty() => {}
            Ok(pending) => {
                tracing::warn!(
                    audit.pending = pending.len(),
                    "an earlier run left changes without an outcome"
                );
                let parts = Arc::clone(&self.0);
                self.0.tasks.spawn(async move {
                    recovery::close(parts, pending, recovery::AT_A_START).await;
                });
            }
            Err(error) => {
                tracing::error!(error.message = %error, "pending changes could not be read; they stay pending");
            }
        }
    }
}

impl From<AdmitError> for ChangeError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::TimeUp => Self::Overloaded,
            AdmitError::Enqueue(error) => error.into(),
        }
    }
}

impl From<EnqueueError> for ChangeError {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Full => Self::Overloaded,
            EnqueueError::Ended => Self::AuditUnavailable,
        }
    }
}
