//! Which leads are kept in batches, and what pages are ordered by then.

use crate::audit::store::Lead;

/// What is read by a lead that is kept in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What the batches hold.
    Batched,
    /// The rows behind the last one.
    Tail,
}

impl Lead {
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
