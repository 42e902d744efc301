//! Descriptors: each connection takes one, and whoever opens many must leave some for the upstream and the trail.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// What the admin listener, the trail's connections, logs and everything else take at most.
const OTHERS: usize = 256;

/// Raises the limit of open files as far as it may be, and gives how many connections of callers fit under it.
pub(super) fn most_connections(config: &Config) -> usize {
    let limit = raise_limit();
    // A call has a connection, and one more may be opened ahead of it.
    let kept = OTHERS + 2 * config.upstream.max_in_flight;
    let fitting = limit.saturating_sub(kept).max(limit / 2);
    if limit < 2 * kept {
        tracing::warn!(
            "the limit of open files is {limit}: half of it is for callers' connections, and {kept} may be wanted besides"
        );
    }
    match config.server.max_connections {
        None => fitting,
        Some(most) if most > fitting => {
            tracing::warn!(
                "server.max_connections is {most}, and the limit of open files, {limit}, leaves room for {fitting}"
            );
            fitting
        }
        Some(most) => most,
    }
}

/// The limit of open files, raised to the hard one.
fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where there is nothing to raise a sandbox need not allow the call.
    let raised = if limit.current == limit.maximum {
        Ok(())
    } else {
        setrlimit(Resource::Nofile, raised)
    };
    let current = match raised {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(error.message = %error, "the limit of open files cannot be raised");
            limit.current
        }
    };
    current.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}
