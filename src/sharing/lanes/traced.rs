//! For whom calls are made, where somebody follows that in a trace. Holds nothing where traces are off.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::SpanContext;
use crate::telemetry::Span;
use crate::telemetry::traces::{Within, current};

use super::machine::PlaceId;

/// The changes in lanes whose traces are kept.
#[derive(Debug, Default)]
pub(super) struct TracedPlaces(HashMap<PlaceId, TracedPlace>);

#[derive(Debug)]
struct TracedPlace {
    span: SpanContext,
    /// Until a call carries it; the changes of one request share it, and it ends with the last of them.
    waiting: Option<Arc<Span>>,
}

impl TracedPlaces {
    /// Changes begin to wait for a call, within the present span.
    pub(super) fn wait<'a>(&mut self, places: impl Iterator<Item = &'a PlaceId>, waiting: Span) {
        let Some(span) = current().map(|within| within.parent) else {
            return;
        };
        let waiting = Arc::new(waiting);
        self.0.extend(places.map(|id| {
            let waiting = Some(Arc::clone(&waiting));
            (*id, TracedPlace { span, waiting })
        }));
    }

    /// A call carries these. Gives the spans that it is made for.
    pub(super) fn called(&mut self, places: impl Iterator<Item = PlaceId>) -> Option<Within> {
        if self.0.is_empty() {
            return None;
        }
        Within::all(places.filter_map(|id| {
            let place = self.0.get_mut(&id)?;
            place.waiting = None;
            Some(place.span)
        }))
    }

    /// The spans of these.
    pub(super) fn of(&self, places: impl Iterator<Item = PlaceId>) -> Option<Within> {
        Within::all(places.filter_map(|id| Some(self.0.get(&id)?.span)))
    }

    /// A change has ended, or was given up.
    pub(super) fn forget(&mut self, id: PlaceId) {
        self.0.remove(&id);
    }
}
