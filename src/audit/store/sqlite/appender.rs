//! Appending: SQLite in WAL mode with `synchronous=FULL`: a commit is on disk when it returns.
//!
//! Everything here blocks, on the thread that the writer has for itself: a driver with a thread of its own would be
//! woken, and wake the writer, for each statement, which takes one caller alone longer than the rows do. The file is only
//! ever opened through SQLite: one plain open and close would drop its POSIX locks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension as _, params};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::domain::{EventId, Timestamp};

use super::StoreError;
use super::beside;
use super::files::{Files, take_lock};
use super::folding::{Folding, fold, note_log_pages};
use super::reading::options;
use crate::audit::chain::{Hash, Sealed, Tip};
use crate::audit::columns::COLUMNS;
use crate::audit::entry::{CHAIN_ID, Cell, CellRef, LookedAfter};
use crate::audit::writer::LOG_BYTES_MAX;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for another process' lock, a backup's or a person's with `sqlite3`.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Most rows, from the end of the trail, that a start looks through for changes that may take effect late.
pub(super) const LOOKED_THROUGH_ROWS_MAX: i64 = 100_000;

/// Rows behind what the derived tables hold, before they get the next batch: readers look through these one by one.
const BATCH_ROWS: i64 = 512;
/// Most rows of a batch: after one that could not be added there may be more.
const BATCH_ROWS_MAX: i64 = 8 * BATCH_ROWS;

/// Prepared statements that are kept: all there are.
const STATEMENTS_MAX: usize = 16;

/// A failure takes the whole transaction back, not only its own statement: SQLite then need not keep a copy of
/// each page that the statement changes.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    let values = ["?"; COLUMNS.len() + 1].join(",");
    let columns = COLUMNS.join(", ");
    format!("INSERT OR ROLLBACK INTO audit_entries ({columns}, hash) VALUES ({values})")
});

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    // No mutex: the connection never leaves its thread.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let set = |name: &str, value: &dyn ToSql| connection.pragma_update(None, name, value);
    set("journal_mode", &"WAL")?;
    set("synchronous", &"FULL")?;
    // Should a statement need room of its own, then not in a file beside the trail.
    set("temp_store", &"MEMORY")?;
    // In KiB, 3 MiB: the pages of a group, and those above them. What else it needs the system's cache has.
    set("cache_size", &-3072)?;
    // CHECKs are for rows that others write. Those of the writer are what `Draft::cells` makes of types that have no other
    // words (a test has the database check them all), and SQLite would build a table of each list of words for every row.
    set("ignore_check_constraints", &true)?;
    // Should it have become longer, then it is cut as it begins anew.
    set(
        "journal_size_limit",
        &i64::try_from(LOG_BYTES_MAX).unwrap_or(i64::MAX),
    )?;
    note_log_pages(&connection);
    Ok(connection)
}

/// The one connection that appends, and the lock that keeps other gateways out.
#[derive(Debug)]
pub(crate) struct Appender {
    connection: Connection,
    path: PathBuf,
    log_path: PathBuf,
    /// The files that were opened; a commit into others is none.
    files: Files,
    log_bytes: u64,
    folding: Folding,
    /// The last row that was there when a batch was added, or could not be.
    indexed: i64,
    /// Held as long as the appender lives; the system releases it when the process ends, however it ends.
    _lock: File,
}

/// What a trail says of itself as it is opened.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its end.
    pub(crate) tip: Tip,
    /// The hash of the row that was asked for, as the row claims it; `None` where there is none.
    pub(crate) hash: Option<String>,
}

impl Appender {
    /// Opens the trail for writing; makes it, and its directory, where it does not exist. Also looks at its end, and at the
    /// row with this sequence.
    pub(crate) async fn open(path: &Path, sequence: i64) -> Result<(Self, Found), StoreError> {
        let died = |error| StoreError::open(Path::new(""), error);
        let lock = {
            let path = path.to_owned();
            let locked = tokio::task::spawn_blocking(move || take_lock(&path)).await;
            locked.map_err(died)??
        };
        migrate(path).await?;
        let path = path.to_owned();
        let open = move || {
            let connection = connect(&path).map_err(|error| StoreError::open(&path, error))?;
            let log_path = beside(&path, "-wal");
            // The log is made by whoever reads first.
            let found = Found {
                tip: tip(&connection)?,
                hash: hash_at(&connection, sequence)?,
            };
            let (files, log_bytes) = Files::at(&path, &log_path)?;
            let appender = Self {
                indexed: indexed(&connection)?,
                connection,
                folding: Folding::start(&path)?,
                path,
                log_path,
                files,
                log_bytes,
                _lock: lock,
            };
            Ok((appender, found))
        };
        tokio::task::spawn_blocking(open).await.map_err(died)?
    }

    /// After a failure: whether the trail can be written again, and where it ends.
    ///
    /// By a new connection: SQLite ends a transaction by itself where the disk is full or fails, and the old
    /// connection would take itself to be in it for ever. Only where the files are those that were opened: a
    /// new connection would make a new log in place of one that was deleted, and what stood there would be lost.
    pub(crate) fn look_again(&mut self) -> Result<Tip, StoreError> {
        self.check_files()?;
        self.reopen()?;
        self.try_commit(Timestamp::now())?;
        self.check_files()?;
        tip(&self.connection)
    }

    /// Opens a new connection in place of one that failed, to the same files.
    fn reopen(&mut self) -> Result<(), StoreError> {
        self.connection = connect(&self.path)?;
        Ok(())
    }

    /// Whether the files at the path are still those that were opened.
    fn check_files(&mut self) -> Result<(), StoreError> {
        let (files, log_bytes) = Files::at(&self.path, &self.log_path)?;
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

    /// Notes what was looked after, beside the trail; what is too old to be asked for is forgotten.
    pub(crate) fn note_looked_after(&mut self, notes: &[LookedAfter]) -> Result<(), StoreError> {
        let note = "INSERT INTO audit_looked_after (region, image_id, account_id, through) \
                    SELECT ?1, ?2, a.value, ?4 FROM json_each(?3) AS a WHERE TRUE \
                    ON CONFLICT DO UPDATE SET through = MAX(through, excluded.through)";
        let old = "DELETE FROM audit_looked_after WHERE through <= (SELECT event_id FROM audit_entries \
                   WHERE sequence = (SELECT MAX(sequence) FROM audit_entries) - ?)";
        self.in_transaction(|connection| {
            let mut noting = connection.prepare_cached(note)?;
            for note in notes {
                let accounts: Vec<u64> =
                    note.accounts.iter().map(|account| account.get()).collect();
                noting.execute(params![
                    note.region.as_str(),
                    note.image_id.as_str(),
                    serde_json::Value::from(accounts).to_string(),
                    note.through.to_string(),
                ])?;
            }
            connection
                .prepare_cached(old)?
                .execute([LOOKED_THROUGH_ROWS_MAX])?;
            Ok(())
        })
    }

    /// Adds the rows up to `last` to the derived tables, where they are many. They can be made again from the entries, so
    /// nobody waits for the disk: the next group does.
    pub(crate) fn add_batch(&mut self, last: i64) -> Result<(), StoreError> {
        if last - self.indexed < BATCH_ROWS {
            return Ok(());
        }
        // Somebody may have had them made again. A batch that fails is tried again with the next.
        let indexed = indexed(&self.connection);
        self.indexed = last;
        let last = last.min(indexed? + BATCH_ROWS_MAX);
        let set = |level| self.connection.pragma_update(None, "synchronous", level);
        let statement = "UPDATE audit_indexed SET sequence = ?1 WHERE sequence < ?1";
        set("NORMAL")?;
        let added = self.connection.prepare_cached(statement);
        let added = added.and_then(|mut statement| statement.execute([last]));
        set("FULL")?;
        added?;
        self.indexed = last;
        Ok(())
    }

    /// Folds the write-ahead log into the database as far as nobody reads from it, so that it begins anew.
    pub(crate) fn fold_log(&self) -> Result<(), StoreError> {
        Ok(fold(&self.connection)?)
    }

    /// The same where it has become long, most of it beside the writer.
    pub(crate) fn fold_long_log(&mut self) -> Result<(), StoreError> {
        Ok(self.folding.after_commit(&self.connection)?)
    }

    /// Appends a group in one transaction. `fill` makes its rows once the database is locked for writing, so
    /// that what they say is as late as can be. When it returns `Ok`, the group is on disk; after a failure
    /// [`Self::look_again`] has to come first.
    pub(crate) fn append(
        &mut self,
        fill: impl FnOnce(&mut Rows<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.in_transaction(|connection| fill(&mut Rows(connection.prepare_cached(&INSERT)?)))?;
        self.check_files()
    }

    fn in_transaction(
        &self,
        work: impl FnOnce(&Connection) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let execute = |statement| -> Result<(), StoreError> {
            self.connection.prepare_cached(statement)?.execute([])?;
            Ok(())
        };
        execute("BEGIN IMMEDIATE")?;
        let done = work(&self.connection).and_then(|()| execute("COMMIT"));
        if done.is_err() {
            // Where SQLite did not end the transaction by itself: others want the lock that it holds.
            let _ = execute("ROLLBACK");
        }
        done
    }

    /// Whether an event has its outcome on disk.
    pub(crate) fn has_outcome(&self, event_id: EventId) -> Result<bool, StoreError> {
        let statement = "SELECT 1 FROM audit_entries WHERE event_id = ? AND kind = 'outcome'";
        let mut statement = self.connection.prepare_cached(statement)?;
        Ok(statement.exists([event_id.to_string()])?)
    }

    /// Commits one small row, to learn whether the disk takes writes again.
    fn try_commit(&self, now: Timestamp) -> Result<(), StoreError> {
        let statement = "INSERT INTO audit_writer (id, tried_at) VALUES (1, ?) \
                         ON CONFLICT (id) DO UPDATE SET tried_at = excluded.tried_at";
        let mut statement = self.connection.prepare_cached(statement)?;
        statement.execute([now.as_micros()])?;
        Ok(())
    }

    /// Folds the WAL into the database and closes it.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        self.folding.close();
        let closed = self.connection.close();
        closed.map_err(|(_, error)| error.into())
    }
}

/// Brings the trail's schema up to date, by a connection of its own.
async fn migrate(path: &Path) -> Result<(), StoreError> {
    let options: SqliteConnectOptions = options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let opened = options.connect().await;
    let mut connection = opened.map_err(|error| StoreError::open(path, error))?;
    let applied: Result<i64, _> = sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations")
        .fetch_one(&mut connection)
        .await;
    let known = MIGRATIONS.iter().count();
    if applied.is_ok_and(|applied| usize::try_from(applied).is_ok_and(|count| count < known)) {
        tracing::info!("the audit trail is of an older version and is brought up to date");
    }
    let migrated = MIGRATIONS.run(&mut connection).await;
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(migration) => StoreError::Newer {
            path: path.into(),
            migration,
        },
        other => StoreError::open(path, other),
    })?;
    let closed = connection.close().await;
    closed.map_err(|error| StoreError::open(path, error))
}

fn tip(connection: &Connection) -> Result<Tip, StoreError> {
    let last = "SELECT sequence, hash FROM audit_entries ORDER BY sequence DESC LIMIT 1";
    let last = connection.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let last: Option<(i64, String)> = last.optional()?;
    let event = "SELECT MAX(event_id) FROM audit_entries";
    let event: Option<String> = connection.query_row(event, [], |row| row.get(0))?;
    let Some((sequence, hash)) = last else {
        return Ok(Tip::new(CHAIN_ID, 0, Hash::GENESIS, None));
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
    Ok(Tip::new(CHAIN_ID, sequence, hash, event))
}

/// The last row that the derived tables know of.
fn indexed(connection: &Connection) -> Result<i64, StoreError> {
    let statement = "SELECT sequence FROM audit_indexed";
    Ok(connection.query_row(statement, [], |row| row.get(0))?)
}

/// The hash of a row, as the row claims it.
fn hash_at(connection: &Connection, sequence: i64) -> Result<Option<String>, StoreError> {
    let statement = "SELECT hash FROM audit_entries WHERE sequence = ?";
    let hash = connection.query_row(statement, [sequence], |row| row.get(0));
    Ok(hash.optional()?)
}

/// The rows of a group, on their way into the database.
pub(crate) struct Rows<'a>(CachedStatement<'a>);

impl Rows<'_> {
    /// Inserts the next.
    pub(crate) fn insert(&mut self, row: &Sealed<'_>) -> Result<(), StoreError> {
        for (index, cell) in row.cells.iter().enumerate() {
            self.0.raw_bind_parameter(index + 1, cell)?;
        }
        let mut hex = [0; 64];
        let hash = row.hash.write_hex(&mut hex);
        self.0.raw_bind_parameter(COLUMNS.len() + 1, hash)?;
        self.0.raw_execute()?;
        Ok(())
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.borrowed() {
            CellRef::Integer(number) => ToSqlOutput::Borrowed(ValueRef::Integer(number)),
            CellRef::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text)),
            CellRef::Null | CellRef::Foreign => ToSqlOutput::Owned(Value::Null),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_that_fails_leaves_commits_as_durable_as_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.db");
        let (mut appender, _) = Appender::open(&path, 0).await.expect("opens");
        let synchronous = |appender: &Appender| -> i64 {
            let asked = appender
                .connection
                .query_row("PRAGMA synchronous", [], |row| row.get(0));
            asked.expect("answers")
        };
        // FULL (sqlite.org/pragma.html#pragma_synchronous).
        assert_eq!(synchronous(&appender), 2);
        appender.add_batch(BATCH_ROWS).expect("adds");
        assert_eq!(synchronous(&appender), 2);
        let gone = appender
            .connection
            .execute_batch("DROP TABLE audit_standing");
        gone.expect("is gone");
        appender
            .add_batch(2 * BATCH_ROWS)
            .expect_err("has no place");
        assert_eq!(synchronous(&appender), 2);
        appender
            .add_batch(2 * BATCH_ROWS)
            .expect("is not tried at once");
        appender.close().expect("closes");
    }
}
