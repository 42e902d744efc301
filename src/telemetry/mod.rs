//! Logs and metrics: what an operator sees without asking the trail.
//!
//! Log lines go to stderr, with dotted field names that are the same everywhere (`image.id`,
//! `account.id`, `audit.event_id`, `request_id`, `upstream.ret_code`, `duration_ms`). No line carries a
//! key, a signature or a token: the types that hold them do not print.

mod fields;
mod logging;
pub mod metrics;
pub mod traces;

pub use fields::{LOG_FIELDS, table_of_fields};
pub use logging::{Logging, LostLines, start_logging};
pub use metrics::{Held, Metrics, RELOAD_PARTS, ReloadPart};
pub use traces::{Span, Traces};

/// What the rooms tell by.
#[derive(Debug, Clone, Default)]
pub struct Instruments {
    /// Numbers.
    pub metrics: Metrics,
    /// Spans.
    pub traces: Traces,
}
