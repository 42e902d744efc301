//! Which index leads: of several filters the one that commonly leaves the fewest events.

use crate::audit::filter::{EventOperation, Filter, OutcomeFilter};
use crate::domain::Outcome;

/// What the events are found by, in the order of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::audit::store) enum Lead {
    /// The events themselves.
    Events,
    /// A column of first rows, whose order is that of their sequence.
    Column(&'static str),
    /// The outcome rows, by the event's id.
    Outcomes,
    /// The denials, by the event's id.
    Denials,
    /// The few intents without an outcome.
    Pending,
}

impl Lead {
    /// The filter that commonly leaves the fewest events.
    pub(in crate::audit::store) fn of(filter: &Filter) -> Self {
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
}
