//! Appending: SQLite in WAL mode with `synchronous=FULL`: a commit is on disk when it returns.
//!
//! The file is only ever opened through SQLite: one plain open and close would drop its POSIX locks.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};

use crate::domain::{EventId, Timestamp};

use super::{StoreError, beside};
use crate::audit::chain::{Hash, Sealed, Tip};
use crate::audit::entry::{COLUMNS, Cell};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for another process' lock, a backup's or a person's with `sqlite3`.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Rows of one INSERT, largest first: four statements serve every group, so that each is prepared once.
const INSERT_ROWS: [usize; 4] = [64, 16, 4, 1];
/// SQLite's bound on the parameters of one statement.
const PARAMETERS_MAX: usize = 32_766;
const _: () = assert!(
    INSERT_ROWS[0] * (COLUMNS.len() + 1) <= PARAMETERS_MAX,
    "a full INSERT fits"
);

static INSERTS: LazyLock<[String; INSERT_ROWS.len()]> = LazyLock::new(|| {
    INSERT_ROWS.map(|rows| {
        let row = format!("({})", vec!["?"; COLUMNS.len() + 1].join(","));
        format!(
            "INSERT INTO audit_entries ({}, hash) VALUES {}",
            COLUMNS.join(", "),
            vec![row; rows].join(",")
        )
    })
});

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
        // A statement that may abort keeps the pages it changes until it is through; by default in a file,
        // which nearly doubles what a change writes.
        .pragma("temp_store", "MEMORY")
        // 16 MiB: the pages of a group, and those above them, are mostly there already.
        .pragma("cache_size", "-16384")
        // 16 MiB of log before it is folded in: a page that many changes touch is folded in once.
        .pragma("wal_autocheckpoint", "4096")
}

/// The one connection that appends, and the lock that keeps other gateways out.
#[derive(Debug)]
pub(crate) struct Appender {
    connection: SqliteConnection,
    path: PathBuf,
    /// The files that were opened; a commit into others is none.
    files: Files,
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
        let files = Files::at(path).await?;
        Ok(Self {
            connection,
            path: path.into(),
            files,
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
    pub(crate) async fn check_files(&self) -> Result<(), StoreError> {
        if Files::at(&self.path).await? == self.files {
            Ok(())
        } else {
            Err(StoreError::Moved)
        }
    }

    /// The end of the chain as the database holds it.
    pub(crate) async fn tip(&mut self) -> Result<Tip, StoreError> {
        let last =
            "SELECT sequence, hash, recorded_at FROM audit_entries ORDER BY sequence DESC LIMIT 1";
        let last: Option<(i64, String, i64)> = sqlx::query_as(last)
            .fetch_optional(&mut self.connection)
            .await?;
        let event = "SELECT MAX(event_id) FROM audit_entries";
        let event: Option<String> = sqlx::query_scalar(event)
            .fetch_one(&mut self.connection)
            .await?;
        let Some((sequence, hash, recorded_at)) = last else {
            return Ok(Tip::new(0, Hash::GENESIS, None, Timestamp::from_micros(0)));
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
        Ok(Tip::new(
            sequence,
            hash,
            event,
            Timestamp::from_micros(recorded_at),
        ))
    }

    /// Appends a group in one transaction. `seal` makes its rows once the database is locked for writing, so
    /// that what they say is as late as can be. When it returns `Ok`, the group is on disk.
    pub(crate) async fn append(
        &mut self,
        seal: impl FnOnce() -> Vec<Sealed>,
    ) -> Result<Vec<Sealed>, StoreError> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let group = seal();
        let mut rest = group.as_slice();
        while !rest.is_empty() {
            let size = INSERT_ROWS
                .iter()
                .position(|rows| *rows <= rest.len())
                .unwrap_or(INSERT_ROWS.len() - 1);
            let (rows, after) = rest.split_at(INSERT_ROWS[size]);
            let mut insert = sqlx::query(AssertSqlSafe(INSERTS[size].as_str()));
            for row in rows {
                for cell in &row.cells {
                    insert = match cell {
                        Cell::Null => insert.bind(None::<i64>),
                        Cell::Integer(number) => insert.bind(*number),
                        Cell::Text(text) => insert.bind(text.as_str()),
                    };
                }
                insert = insert.bind(row.hash.to_string());
            }
            insert.execute(&mut *transaction).await?;
            rest = after;
        }
        transaction.commit().await?;
        self.check_files().await?;
        Ok(group)
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

/// Which files lie at a path: device and inode of the database and of its write-ahead log.
///
/// In WAL mode SQLite goes on committing, without an error, into files that were moved or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Files {
    database: (u64, u64),
    log: (u64, u64),
}

impl Files {
    async fn at(path: &Path) -> Result<Self, StoreError> {
        let (path, log) = (path.to_owned(), beside(path, "-wal"));
        let look = move || {
            let identity =
                |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
            Ok::<_, std::io::Error>(Self {
                database: identity(&path)?,
                log: identity(&log)?,
            })
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked
            .map_err(|_| StoreError::Moved)?
            .map_err(|_| StoreError::Moved)
    }
}

fn take_lock(path: &Path) -> Result<File, StoreError> {
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        let refused = |source| StoreError::Place {
            path: directory.into(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(refused)?;
    }
    let lock_path = beside(path, ".lock");
    let refused = |source| StoreError::Place {
        path: lock_path.clone(),
        source,
    };
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}
