//! Which index leads: of several filters the one that commonly leaves the fewest events.

use crate::audit::filter::{EventOperation, Filter, OutcomeFilter};
use crate::domain::Outcome;

/// What the events are found by, in the order of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    /// The events themselves.
    Events,
    /// A column of first rows, whose order is that of their sequence. In batches.
    Column(&'static str),
    /// The outcome rows, by the event's id.
    Outcomes,
    /// The denials, by the event's id.
    Denials,
    /// The few intents without an outcome. In batches.
    Pending,
}

/// What is read by a lead that is kept in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What the batches hold.
    Batched,
    /// The rows behind the last one.
    Tail,
}

impl Lead {
    /// The filter that commonly leaves the fewest events.
    pub(super) fn of(filter: &Filter) -> Self {
        let rarely_asked = filter.operation == Some(EventOperation::Update);
        match filter.outcome {
            Some(OutcomeFilter::Pending) => Self::Pending,
            _ if filter.request_id.is_some() => Self::Column("request_id"),
            _ if filter.account_id.is_some() => Self::Column("account_id"),
            _ if filter.image_id.is_some() => Self::Column("image_id"),
            _ if rarely_asked => Self::Column("operation"),
            Some(OutcomeFilter::Denied) => Self::Denials,
            Some(OutcomeFilter::Completed(outcome)) if outcome != Outcome::Succeeded => {
                Self::Outcomes
            }
            _ if filter.subject.is_some() => Self::Column("subject"),
            Some(OutcomeFilter::Completed(_)) => Self::Outcomes,
            None if filter.operation.is_some() => Self::Column("operation"),
            None => Self::Events,
        }
    }

    /// Whether it is kept in batches.
    pub(super) fn is_batched(self) -> bool {
        matches!(self, Self::Column(_) | Self::Pending)
    }

    /// The column that pages are ordered and bounded by.
    pub(super) fn key(self, part: Part) -> &'static str {
        match (self, part) {
            (Self::Events | Self::Denials, _) => "f.event_id",
            (Self::Outcomes, _) => "o.event_id",
            (Self::Column(_), Part::Batched) => "i.sequence",
            (Self::Pending, Part::Batched) => "p.sequence",
            (Self::Column(_) | Self::Pending, Part::Tail) => "f.sequence",
        }
    }
}
