//! Appending: SQLite in WAL mode with `synchronous=FULL`: a commit is on disk when it returns.
//!
//! The file is only ever opened through SQLite: one plain open and close would drop its POSIX locks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};

use crate::domain::{EventId, Timestamp};

use super::StoreError;
use super::files::{Files, take_lock};
use crate::audit::chain::{Hash, Sealed, Tip};
use crate::audit::columns::COLUMNS;
use crate::audit::entry::{Cell, LookedAfter};
use crate::audit::writer::LOG_BYTES_MAX;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for another process' lock, a backup's or a person's with `sqlite3`.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Most rows, from the end of the trail, that a start looks through for changes that may take effect late.
pub(super) const LOOKED_THROUGH_ROWS_MAX: i64 = 100_000;

/// Most rows of one INSERT. There is a statement for each number of rows up to it, prepared when it is first
/// needed: each statement is a message to the connection's thread and back, which costs more than some rows.
const INSERT_ROWS_MAX: usize = 64;
/// What a row binds.
const ROW_PARAMETERS: usize = COLUMNS.len() + 1;
/// SQLite's bound on the parameters of one statement.
const PARAMETERS_MAX: usize = 32_766;
const _: () = assert!(
    INSERT_ROWS_MAX * ROW_PARAMETERS <= PARAMETERS_MAX,
    "a full INSERT fits"
);
/// Prepared statements that are kept: every INSERT, and what else there is.
const STATEMENTS_MAX: usize = INSERT_ROWS_MAX + 16;

/// By the number of their rows, from 1. Each commits what the transaction holds, in one go with its rows.
static LAST_INSERTS: [OnceLock<String>; INSERT_ROWS_MAX] =
    [const { OnceLock::new() }; INSERT_ROWS_MAX];
static FULL_INSERT: LazyLock<String> = LazyLock::new(|| insert(INSERT_ROWS_MAX));

/// A failure takes the whole transaction back, not only its own statement: SQLite then need not keep a copy of
/// each page that the statement changes.
fn insert(rows: usize) -> String {
    let row = format!("({})", ["?"; ROW_PARAMETERS].join(","));
    format!(
        "INSERT OR ROLLBACK INTO audit_entries ({}, hash) VALUES {}",
        COLUMNS.join(", "),
        vec![row; rows].join(",")
    )
}

/// What inserts the next of `rows`, and whether it is the last: then it commits.
fn next_insert(rows: &[Sealed]) -> (&'static str, &[Sealed], &[Sealed]) {
    match rows.split_at_checked(INSERT_ROWS_MAX) {
        Some((full, rest)) if !rest.is_empty() => (FULL_INSERT.as_str(), full, rest),
        _ => {
            let last = LAST_INSERTS
                .get(rows.len().wrapping_sub(1))
                .map(|text| text.get_or_init(|| format!("{}; COMMIT", insert(rows.len()))));
            (last.map_or("COMMIT", String::as_str), rows, &[])
        }
    }
}

fn arguments(rows: &[Sealed]) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(rows.len() * ROW_PARAMETERS, 0);
    for row in rows {
        for cell in &row.cells {
            match cell {
                Cell::Null => arguments.add(None::<i64>),
                Cell::Integer(number) => arguments.add(*number),
                Cell::Text(text) => arguments.add(Arc::clone(text)),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        arguments
            .add(row.hash.to_string())
            .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .synchronous(SqliteSynchronous::Full)
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(5))
}

fn appending(path: &Path) -> SqliteConnectOptions {
    options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .statement_cache_capacity(STATEMENTS_MAX)
        // Should a statement need room of its own, then not in a file beside the trail.
        .pragma("temp_store", "MEMORY")
        // 16 MiB: the pages of a group, and those above them, are mostly there already.
        .pragma("cache_size", "-16384")
        // 16 MiB of log before it is folded in: a page that many changes touch is folded in once.
        .pragma("wal_autocheckpoint", "4096")
        // Should it have become longer, then it is cut as it begins anew.
        .pragma("journal_size_limit", LOG_BYTES_MAX.to_string())
}

/// The one connection that appends, and the lock that keeps other gateways out.
#[derive(Debug)]
pub(crate) struct Appender {
    connection: SqliteConnection,
    path: PathBuf,
    /// The files that were opened; a commit into others is none.
    files: Files,
    log_bytes: u64,
    /// Held as long as the appender lives; the system releases it when the process ends, however it ends.
    _lock: File,
}

impl Appender {
    /// Opens the trail for writing; makes it, and its directory, where it does not exist.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = {
            let path = path.to_owned();
            let locked = tokio::task::spawn_blocking(move || take_lock(&path)).await;
            locked.map_err(|error| StoreError::open(Path::new(""), error))??
        };
        let options = appending(path).create_if_missing(true);
        let mut connection = options
            .connect()
            .await
            .map_err(|error| StoreError::open(path, error))?;
        MIGRATIONS
            .run(&mut connection)
            .await
            .map_err(|error| match error {
                MigrateError::VersionMissing(migration) => StoreError::Newer {
                    path: path.into(),
                    migration,
                },
                other => StoreError::open(path, other),
            })?;
        let (files, log_bytes) = Files::at(path).await?;
        Ok(Self {
            connection,
            path: path.into(),
            files,
            log_bytes,
            _lock: lock,
        })
    }

    /// Opens a new connection in place of one that failed, to the same files.
    pub(crate) async fn reopen(&mut self) -> Result<(), StoreError> {
        let options = appending(&self.path).create_if_missing(false);
        self.connection = options.connect().await?;
        Ok(())
    }

    /// Whether the files at the path are still those that were opened.
    pub(crate) async fn check_files(&mut self) -> Result<(), StoreError> {
        let (files, log_bytes) = Files::at(&self.path).await?;
        self.log_bytes = log_bytes;
        if files == self.files {
            Ok(())
        } else {
            Err(StoreError::Moved)
        }
    }

    /// How long the write-ahead log is, as the last commit found it.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// The end of the chain as the database holds it.
    pub(crate) async fn tip(&mut self) -> Result<Tip, StoreError> {
        let last = "SELECT sequence, hash FROM audit_entries ORDER BY sequence DESC LIMIT 1";
        let last: Option<(i64, String)> = sqlx::query_as(last)
            .fetch_optional(&mut self.connection)
            .await?;
        let event = "SELECT MAX(event_id) FROM audit_entries";
        let event: Option<String> = sqlx::query_scalar(event)
            .fetch_one(&mut self.connection)
            .await?;
        let Some((sequence, hash)) = last else {
            return Ok(Tip::new(0, Hash::GENESIS, None));
        };
        let hash = hash.parse().map_err(|_| StoreError::Row {
            sequence,
            column: "hash",
        })?;
        let event = event.map(|text| text.parse().map(EventId::new)).transpose();
        let event = event.map_err(|_| StoreError::Row {
            sequence,
            column: "event_id",
        })?;
        Ok(Tip::new(sequence, hash, event))
    }

    /// The hash of a row, as the row claims it.
    pub(crate) async fn hash_at(&mut self, sequence: i64) -> Result<Option<String>, StoreError> {
        let hash = sqlx::query_scalar("SELECT hash FROM audit_entries WHERE sequence = ?");
        let hash = hash.bind(sequence).fetch_optional(&mut self.connection);
        Ok(hash.await?)
    }

    /// Notes what was looked after, beside the trail; what is too old to be asked for is forgotten.
    pub(crate) async fn note_looked_after(
        &mut self,
        notes: &[LookedAfter],
    ) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        for note in notes {
            let statement = "INSERT INTO audit_looked_after (region, image_id, account_id, through) \
                             SELECT ?1, ?2, a.value, ?4 FROM json_each(?3) AS a WHERE TRUE \
                             ON CONFLICT DO UPDATE SET through = MAX(through, excluded.through)";
            let accounts: Vec<u64> = note.accounts.iter().map(|account| account.get()).collect();
            sqlx::query(statement)
                .bind(note.region.as_str())
                .bind(note.image_id.as_str())
                .bind(serde_json::Value::from(accounts).to_string())
                .bind(note.through.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        let old = "DELETE FROM audit_looked_after WHERE through <= (SELECT event_id FROM audit_entries \
                   WHERE sequence = (SELECT MAX(sequence) FROM audit_entries) - ?)";
        sqlx::query(old)
            .bind(LOOKED_THROUGH_ROWS_MAX)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Folds the write-ahead log into the database as far as nobody reads from it, so that it begins anew.
    pub(crate) async fn fold_log(&mut self) -> Result<(), StoreError> {
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Appends a group in one transaction. `seal` makes its rows once the database is locked for writing, so
    /// that what they say is as late as can be. When it returns `Ok`, the group is on disk; after a failure
    /// [`Self::reopen`] has to come first.
    pub(crate) async fn append(
        &mut self,
        seal: impl FnOnce() -> Vec<Sealed>,
    ) -> Result<Vec<Sealed>, StoreError> {
        let appended = self.insert_group(seal).await;
        if appended.is_err() {
            // Where SQLite did not end the transaction by itself: others want the lock that it holds.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
        }
        let group = appended?;
        self.check_files().await?;
        Ok(group)
    }

    async fn insert_group(
        &mut self,
        seal: impl FnOnce() -> Vec<Sealed>,
    ) -> Result<Vec<Sealed>, StoreError> {
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut self.connection)
            .await?;
        let group = seal();
        let mut rest = group.as_slice();
        loop {
            let (statement, rows, after) = next_insert(rest);
            sqlx::query_with(AssertSqlSafe(statement), arguments(rows)?)
                .execute(&mut self.connection)
                .await?;
            rest = after;
            if rest.is_empty() {
                return Ok(group);
            }
        }
    }

    /// Whether an event has its outcome on disk.
    pub(crate) async fn has_outcome(&mut self, event_id: EventId) -> Result<bool, StoreError> {
        let statement = "SELECT 1 FROM audit_entries WHERE event_id = ? AND kind = 'outcome'";
        let found = sqlx::query(statement).bind(event_id.to_string());
        Ok(found.fetch_optional(&mut self.connection).await?.is_some())
    }

    /// Commits one small row, to learn whether the disk takes writes again.
    pub(crate) async fn try_commit(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let statement = "INSERT INTO audit_writer (id, tried_at) VALUES (1, ?) \
                         ON CONFLICT (id) DO UPDATE SET tried_at = excluded.tried_at";
        sqlx::query(statement)
            .bind(now.as_micros())
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Folds the WAL into the database and closes it.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        self.connection.close().await?;
        Ok(())
    }
}
