//! How a trail is opened to be looked at: nothing is made, nothing is written.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteLockingMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use super::appender::BUSY_TIMEOUT;
use super::{StoreError, beside, primary_code, resolved};

/// Rows that a connection may read ahead of whoever takes them: a page, so that the next page is read while
/// this one is looked at.
pub(super) const ROWS_AT_ONCE: usize = 512;

/// What all connections have in common.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .synchronous(SqliteSynchronous::Full)
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(5))
}

/// Why there is nothing to look at, in words of its own where SQLite would say a code.
pub(super) async fn check_there(path: &Path) -> Result<(), StoreError> {
    let why = match tokio::fs::metadata(resolved(path).await).await {
        Ok(file) if file.is_dir() => "it is a directory".to_owned(),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "there is no such file".to_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(StoreError::open(path, why))
}

/// How to open the trail at `path` so that `look` succeeds; nothing is made where there is none.
///
/// Where the disk is read-only, or the directory not ours to write in, SQLite cannot make the file that readers
/// and a writer share (`-shm`). Where there is none nobody is writing, and the trail is read as one that does not change,
/// its write-ahead log by an index in memory: a gateway that is started meanwhile may make a walk find a break that is
/// none.
pub(super) async fn reading(
    path: &Path,
    look: &'static str,
) -> Result<SqliteConnectOptions, sqlx::Error> {
    let path = &resolved(path).await;
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
    let exists = async |suffix| tokio::fs::try_exists(beside(path, suffix)).await;
    if !read_only || exists("-shm").await.unwrap_or(true) {
        return Err(refused);
    }
    let unchanging = if exists("-wal").await.unwrap_or(true) {
        // Without locks of the system, which a file that is only read cannot be given, and with the log's index in memory
        // (sqlite.org/wal.html, section 8).
        usual
            .vfs("unix-none")
            .locking_mode(SqliteLockingMode::Exclusive)
    } else {
        usual.immutable(true)
    };
    match try_out(&unchanging, look).await {
        Ok(()) => Ok(unchanging),
        Err(_) => Err(refused),
    }
}

async fn try_out(options: &SqliteConnectOptions, look: &'static str) -> Result<(), sqlx::Error> {
    let mut connection = options.connect().await?;
    sqlx::query(look).fetch_optional(&mut connection).await?;
    connection.close().await
}
