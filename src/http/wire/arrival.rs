//! What is known of a request before anybody looks into it.

use actix_web::{HttpMessage as _, HttpRequest};

use crate::domain::{RequestId, Stopwatch, TraceId};

/// A request that came.
#[derive(Debug, Clone)]
pub(in crate::http) struct Arrival {
    pub(in crate::http) request_id: RequestId,
    pub(in crate::http) trace_id: Option<TraceId>,
    pub(in crate::http) since: Stopwatch,
}

impl Arrival {
    /// That of `request`; one that was not noted arrives now.
    pub(in crate::http) fn of(request: &HttpRequest) -> Self {
        let noted = request.extensions().get::<Self>().cloned();
        noted.unwrap_or_else(|| Self {
            request_id: RequestId::generate(),
            trace_id: None,
            since: Stopwatch::start(),
        })
    }
}
