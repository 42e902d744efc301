//! SQLite in WAL mode with `synchronous=FULL`: a commit is on disk when it returns.
//!
//! The file is only ever opened through SQLite: one plain open and close would drop its POSIX locks.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, FromRow, QueryBuilder, Row, Sqlite, SqliteConnection,
};
use sqlx::{SqlitePool, TypeInfo, ValueRef};

use crate::domain::{EventId, Timestamp};

use super::StoreError;
use crate::audit::chain::{Hash, Sealed, Tip};
use crate::audit::entry::{COLUMNS, Cell};
use crate::audit::event::{Filter, OutcomeFilter};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for another process' lock, a backup's or a person's with `sqlite3`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READ_CONNECTIONS_MAX: u32 = 4;

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

static SELECT_ROWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, hash FROM audit_entries WHERE sequence > ? ORDER BY sequence LIMIT ?",
        COLUMNS.join(", ")
    )
});

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .synchronous(SqliteSynchronous::Full)
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(5))
}

/// The one connection that appends, and the lock that keeps other gateways out.
#[derive(Debug)]
pub(crate) struct Appender {
    connection: SqliteConnection,
    path: PathBuf,
    /// Held as long as the appender lives; the system releases it when the process ends, however it ends.
    _lock: File,
}

impl Appender {
    /// Opens the trail for writing; makes it, and its directory, where it does not exist.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = {
            let path = path.to_owned();
            let locked = tokio::task::spawn_blocking(move || take_lock(&path)).await;
            locked.map_err(|error| StoreError::Open {
                path: PathBuf::new(),
                source: error.into(),
            })??
        };
        let open = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.into(),
            source,
        };
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let mut connection = options
            .connect()
            .await
            .map_err(|error| open(error.into()))?;
        MIGRATIONS
            .run(&mut connection)
            .await
            .map_err(|error| match error {
                MigrateError::VersionMissing(migration) => StoreError::Newer {
                    path: path.into(),
                    migration,
                },
                other => open(other.into()),
            })?;
        Ok(Self {
            connection,
            path: path.into(),
            _lock: lock,
        })
    }

    /// Opens a new connection in place of one that failed.
    pub(crate) async fn reopen(&mut self) -> Result<(), StoreError> {
        let options = options(&self.path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal);
        self.connection = options.connect().await?;
        Ok(())
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

    /// Appends a group in one transaction. When it returns `Ok`, the group is on disk.
    pub(crate) async fn append(&mut self, group: &[Sealed]) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut rest = group;
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
                        // Cells that are written were made from text.
                        Cell::Text(text) => insert.bind(String::from_utf8_lossy(text).into_owned()),
                    };
                }
                insert = insert.bind(row.hash.to_string());
            }
            insert.execute(&mut *transaction).await?;
            rest = after;
        }
        transaction.commit().await?;
        Ok(())
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
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let refused = |source| StoreError::Place {
        path: PathBuf::from(&lock_path),
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

/// Connections that only read, for queries; never the writer's.
#[derive(Debug, Clone)]
pub(crate) struct ReadConnections(SqlitePool);

impl ReadConnections {
    /// Opens the trail for reading. Nothing is made where it does not exist.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = options(path).create_if_missing(false).read_only(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(READ_CONNECTIONS_MAX)
            .acquire_timeout(BUSY_TIMEOUT)
            // A connection that idles keeps its page cache; the next query can open a new one.
            .idle_timeout(Duration::from_mins(1));
        let pool = pool.connect_with(options).await;
        pool.map(Self).map_err(|error| StoreError::Open {
            path: path.into(),
            source: error.into(),
        })
    }

    /// The first rows of events with their outcomes, in the order asked.
    pub(crate) async fn events(
        &self,
        query: &EventsQuery<'_>,
    ) -> Result<Vec<EventRow>, StoreError> {
        Ok(query
            .statement()
            .build_query_as()
            .fetch_all(&self.0)
            .await?)
    }

    /// The steps of `EXPLAIN QUERY PLAN` for a page.
    #[cfg(test)]
    pub(crate) async fn plan(&self, query: &EventsQuery<'_>) -> Vec<String> {
        let statement = format!("EXPLAIN QUERY PLAN {}", query.statement().sql().as_str());
        let steps = sqlx::raw_sql(AssertSqlSafe(statement))
            .fetch_all(&self.0)
            .await;
        steps
            .expect("explains")
            .iter()
            .map(|step| step.get("detail"))
            .collect()
    }

    /// One event.
    pub(crate) async fn event(&self, id: EventId) -> Result<Option<EventRow>, StoreError> {
        let mut statement = QueryBuilder::new(SELECT_EVENT);
        statement
            .push(FROM_FIRST_ROWS)
            .push(" WHERE f.event_id = ")
            .push_bind(id.to_string());
        statement.push(" AND ").push(IS_FIRST_ROW);
        Ok(statement.build_query_as().fetch_optional(&self.0).await?)
    }

    /// Where an event's rows stand in the chain: kind, chain, sequence, time and hash, oldest first.
    pub(crate) async fn places(
        &self,
        id: EventId,
    ) -> Result<Vec<(String, String, i64, i64, String)>, StoreError> {
        let statement = "SELECT kind, chain_id, sequence, recorded_at, hash FROM audit_entries \
                         WHERE event_id = ? ORDER BY sequence";
        Ok(sqlx::query_as(statement)
            .bind(id.to_string())
            .fetch_all(&self.0)
            .await?)
    }

    /// Up to `limit` events without an outcome whose id follows `after`, oldest first.
    pub(crate) async fn pending(
        &self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        let mut statement = QueryBuilder::new(SELECT_EVENT);
        statement
            .push(FROM_PENDING)
            .push(" WHERE p.event_id > ")
            .push_bind(after.to_owned());
        statement
            .push(" ORDER BY p.event_id LIMIT ")
            .push_bind(limit);
        Ok(statement.build_query_as().fetch_all(&self.0).await?)
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

/// What a page of events is selected by.
#[derive(Debug)]
pub(crate) struct EventsQuery<'a> {
    pub(crate) filter: &'a Filter,
    /// The ids that `from` and `to` bound: at or after the first, before the second.
    pub(crate) id_range: (Option<EventId>, Option<EventId>),
    /// The last event of the page before.
    pub(crate) after: Option<EventId>,
    pub(crate) newest_first: bool,
    pub(crate) limit: i64,
}

const SELECT_EVENT: &str = "SELECT f.sequence, f.kind, f.event_id, o.recorded_at AS completed_at, \
     f.subject, f.issuer, f.token_id, f.client_ip, f.user_agent, f.request_id, f.trace_id, \
     f.operation, f.image_id, f.account_id, f.region, f.reason, f.expires_at, f.policy_ids, \
     COALESCE(o.outcome, f.outcome) AS outcome, COALESCE(o.http_status, f.http_status) AS http_status, \
     COALESCE(o.upstream_ret_code, f.upstream_ret_code) AS upstream_ret_code, \
     COALESCE(o.upstream_request_id, f.upstream_request_id) AS upstream_request_id, \
     COALESCE(o.upstream_calls, f.upstream_calls) AS upstream_calls, \
     COALESCE(o.duration_ms, f.duration_ms) AS duration_ms, COALESCE(o.detail, f.detail) AS detail ";
/// An intent or a denial; the partial indexes are over these.
const IS_FIRST_ROW: &str = "f.kind IN ('intent', 'denial')";
const FROM_FIRST_ROWS: &str = "FROM audit_entries AS f \
     LEFT JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome'";
/// CROSS JOIN keeps SQLite from choosing another outer table, and with it another order.
const FROM_OUTCOMES: &str = "FROM audit_entries AS o \
     CROSS JOIN audit_entries AS f ON f.event_id = o.event_id AND f.kind = 'intent'";
const FROM_PENDING: &str = "FROM audit_pending AS p \
     CROSS JOIN audit_entries AS f ON f.event_id = p.event_id AND f.kind = 'intent' \
     LEFT JOIN audit_entries AS o ON o.event_id = p.event_id AND o.kind = 'outcome'";

impl EventsQuery<'_> {
    fn statement(&self) -> QueryBuilder<Sqlite> {
        let filter = self.filter;
        let mut statement = QueryBuilder::new(SELECT_EVENT);
        // `key` is the id of the table that the order comes from.
        let key = match filter.outcome {
            None => {
                statement
                    .push(FROM_FIRST_ROWS)
                    .push(" WHERE ")
                    .push(IS_FIRST_ROW);
                "f.event_id"
            }
            Some(OutcomeFilter::Denied) => {
                statement
                    .push(FROM_FIRST_ROWS)
                    .push(" WHERE f.kind IN ('outcome', 'denial') AND f.outcome = 'denied'");
                "f.event_id"
            }
            Some(OutcomeFilter::Pending) => {
                statement
                    .push(FROM_PENDING)
                    .push(" WHERE o.sequence IS NULL");
                "p.event_id"
            }
            Some(OutcomeFilter::Completed(outcome)) => {
                statement
                    .push(FROM_OUTCOMES)
                    .push(" WHERE o.kind IN ('outcome', 'denial') AND o.outcome = ");
                statement.push_bind(outcome.as_str());
                "o.event_id"
            }
        };
        if let Some(subject) = &filter.subject {
            statement
                .push(" AND f.subject = ")
                .push_bind(subject.clone());
        }
        if let Some(image_id) = &filter.image_id {
            statement
                .push(" AND f.image_id = ")
                .push_bind(image_id.as_str().to_owned());
        }
        if let Some(account_id) = filter.account_id {
            statement
                .push(" AND f.account_id = ")
                .push_bind(i64::try_from(account_id.get()).unwrap_or(i64::MAX));
        }
        if let Some(operation) = filter.operation {
            statement
                .push(" AND f.operation = ")
                .push_bind(operation.as_str());
        }
        if let Some(request_id) = &filter.request_id {
            statement
                .push(" AND f.request_id = ")
                .push_bind(request_id.clone());
        }
        let (from, to) = self.id_range;
        let (before, after) = if self.newest_first {
            (self.after, None)
        } else {
            (None, self.after)
        };
        let bounds = [(" >= ", from), (" < ", to), (" < ", before), (" > ", after)];
        for (comparison, bound) in bounds {
            if let Some(bound) = bound {
                statement
                    .push(" AND ")
                    .push(key)
                    .push(comparison)
                    .push_bind(bound.to_string());
            }
        }
        statement
            .push(" ORDER BY ")
            .push(key)
            .push(if self.newest_first { " DESC" } else { " ASC" });
        statement.push(" LIMIT ").push_bind(self.limit);
        statement
    }
}

/// An event as its rows say.
#[derive(Debug, FromRow)]
pub(crate) struct EventRow {
    pub(crate) sequence: i64,
    pub(crate) kind: String,
    pub(crate) event_id: String,
    pub(crate) completed_at: Option<i64>,
    pub(crate) subject: String,
    pub(crate) issuer: Option<String>,
    pub(crate) token_id: Option<String>,
    pub(crate) client_ip: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) operation: String,
    pub(crate) image_id: String,
    pub(crate) account_id: Option<i64>,
    pub(crate) region: String,
    pub(crate) reason: Option<String>,
    pub(crate) expires_at: Option<i64>,
    pub(crate) policy_ids: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) http_status: Option<i64>,
    pub(crate) upstream_ret_code: Option<i64>,
    pub(crate) upstream_request_id: Option<String>,
    pub(crate) upstream_calls: Option<i64>,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) detail: Option<String>,
}

/// One connection that reads the trail row by row in chain order, a page at a time.
pub(crate) struct RowReader(SqliteConnection);

impl RowReader {
    /// Opens the trail for reading; fails where there is none.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.into(),
            source,
        };
        let options = options(path).create_if_missing(false).read_only(true);
        let mut connection = options
            .connect()
            .await
            .map_err(|error| open(error.into()))?;
        // A file that is no trail fails here and not as a broken chain.
        let look = sqlx::query(AssertSqlSafe(SELECT_ROWS.as_str()))
            .bind(0)
            .bind(1);
        look.fetch_optional(&mut connection)
            .await
            .map_err(|error| open(error.into()))?;
        Ok(Self(connection))
    }

    /// Up to `limit` rows that follow `sequence`: their cells, and the hash that they claim.
    pub(crate) async fn page(
        &mut self,
        sequence: i64,
        limit: i64,
    ) -> Result<Vec<(Vec<Cell>, Cell)>, StoreError> {
        let query = sqlx::query(AssertSqlSafe(SELECT_ROWS.as_str()))
            .bind(sequence)
            .bind(limit);
        let rows = query.fetch_all(&mut self.0).await?;
        rows.iter()
            .map(|row| Ok((cells(row)?, cell(row, COLUMNS.len())?)))
            .collect()
    }
}

fn cells(row: &SqliteRow) -> Result<Vec<Cell>, StoreError> {
    (0..COLUMNS.len()).map(|index| cell(row, index)).collect()
}

/// The value as it is stored; types other than the table's own become text that no hash fits.
fn cell(row: &SqliteRow, index: usize) -> Result<Cell, StoreError> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let kind = value.type_info();
    Ok(match kind.name() {
        "INTEGER" => Cell::Integer(row.try_get_unchecked(index)?),
        "TEXT" => Cell::Text(row.try_get_unchecked(index)?),
        other => Cell::Text(format!("a value of type {other}").into_bytes()),
    })
}
