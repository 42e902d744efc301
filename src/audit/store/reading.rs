//! How a trail is opened to be looked at: nothing is made, nothing is written.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::appender::options;
use super::{beside, primary_code};

/// Rows that a connection may read ahead of whoever takes them: a page, so that the next page is read while
/// this one is looked at.
pub(super) const ROWS_AT_ONCE: usize = 512;

/// How to open the trail at `path` so that `look` succeeds; nothing is made where there is none.
///
/// Where the disk is read-only, or the directory not ours to write in, SQLite cannot make the files that readers
/// and a writer share. Without a write-ahead log nobody is writing, and the file is read as one that does not
/// change: a gateway that is started meanwhile may make a walk find a break that is none.
pub(super) async fn reading(
    path: &Path,
    look: &'static str,
) -> Result<SqliteConnectOptions, sqlx::Error> {
    let usual = options(path)
        .create_if_missing(false)
        .read_only(true)
        .row_buffer_size(ROWS_AT_ONCE);
    let refused = match try_out(&usual, look).await {
        Ok(()) => return Ok(usual),
        Err(refused) => refused,
    };
    // SQLITE_READONLY, SQLITE_CANTOPEN
    let read_only = matches!(primary_code(&refused), Some(8 | 14));
    let log = tokio::fs::try_exists(beside(path, "-wal")).await;
    let unchanging = usual.immutable(true);
    if read_only && !log.unwrap_or(true) && try_out(&unchanging, look).await.is_ok() {
        return Ok(unchanging);
    }
    Err(refused)
}

async fn try_out(options: &SqliteConnectOptions, look: &'static str) -> Result<(), sqlx::Error> {
    let mut connection = options.connect().await?;
    sqlx::query(look).fetch_optional(&mut connection).await?;
    connection.close().await
}
