//! Logs and metrics: what an operator sees without asking the trail.
//!
//! Log lines go to stderr, with dotted field names that are the same everywhere (`image.id`,
//! `account.id`, `audit.event_id`, `request.id`, `upstream.ret_code`, `duration_ms`). No line carries a
//! key, a signature or a token: the types that hold them do not print.

pub mod metrics;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::config::LogFormat;

pub use metrics::{InFlight, Metrics};

/// Sends this process' log lines to stderr from now on. `RUST_LOG` chooses them, `info` where it is not set.
///
/// A second call in one process changes nothing.
pub fn start_logging(format: LogFormat) {
    // What these say at INFO is noise beside the lines of the gateway itself.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,actix_server=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Json => {
            let lines = fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false);
            registry.with(lines.with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Text => registry
            .with(fmt::layer().with_writer(std::io::stderr))
            .try_init(),
    };
    drop(started);
}
