//! The trail in a file of SQLite.

mod appender;
mod backup;
mod connections;
mod events;
mod files;
mod folding;
mod lead;
mod limits;
mod points;
mod reading;
mod rows;
mod standing;

use std::path::{Path, PathBuf};

use sqlx::error::DatabaseError as _;
use sqlx::sqlite::SqliteError;

use super::StoreError;

pub(in crate::audit) use appender::{Appender, Found};
pub(in crate::audit) use backup::copy;
pub(in crate::audit) use connections::ReadConnections;
#[cfg(test)]
pub(in crate::audit) use limits::{BoundedRead, read_failed};
pub(in crate::audit) use limits::{NoReads, ReadGate};
pub(in crate::audit) use rows::StoredRow;
pub(super) use rows::{PackedRow, RowReader, chain};

/// SQLite's primary result code: extended ones keep it in their low byte (sqlite.org/rescode.html).
pub(super) fn primary(code: i32) -> i32 {
    code & 0xff
}

/// That of an error of a read.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let refusal = error.as_database_error()?;
    let code = refusal.try_downcast_ref::<SqliteError>()?.code()?;
    code.parse().ok().map(primary)
}

/// The file that a path leads to, through symbolic links: SQLite keeps its own files beside that one, and so do the lock
/// and the noted head lie there.
pub(in crate::audit) async fn resolved(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        if let Ok(whole) = tokio::fs::canonicalize(&target).await {
            return whole;
        }
        // A link to what is not there yet.
        let Ok(next) = tokio::fs::read_link(&target).await else {
            break;
        };
        target = match target.parent() {
            Some(parent) => parent.join(next),
            None => next,
        };
    }
    target
}

/// Symbolic links that lead to one another, at most, as Linux has it.
const LINKS_MAX: usize = 40;

/// The file whose name is that of `path` with `suffix` behind it.
pub(in crate::audit) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
