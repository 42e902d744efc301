//! The trail in a database of PostgreSQL.

mod appender;
mod columns;
mod connections;
mod events;
mod feed;
mod group;
mod import;
mod locks;
mod neighbours;
mod rows;
mod session;
mod standing;

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::StoreError;
use crate::config::ServerUrl;

pub(in crate::audit) use appender::Appender;
pub(in crate::audit) use connections::ReadConnections;
pub(in crate::audit) use feed::{ChainHead, FeedRow};
pub(in crate::audit) use group::Group;
pub(in crate::audit) use import::Import;
pub use locks::{Found, Grant, LetGo, LockKey, LockWord, Locks};
pub(in crate::audit) use neighbours::Neighbours;
pub(super) use rows::{PackedRow, RowReader};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How long a connection is waited for.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long a statement waits for another's lock.
const LOCK_TIME: &str = "30s";
/// `undefined_table` (postgresql.org/docs/current/errcodes-appendix.html).
const NO_SUCH_TABLE: &str = "42P01";

/// What a connection is set to, beside its name.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// How long a statement may take; none: as long as it takes.
    statement: Option<Duration>,
    /// How long it waits for another's lock.
    lock: &'static str,
}

/// For those who walk, or fill, a whole trail.
const UNBOUNDED: Bounds = Bounds {
    statement: None,
    lock: LOCK_TIME,
};

impl Bounds {
    /// What is said first. Not as a parameter of the start: poolers refuse those that they do not know.
    fn settings(self) -> String {
        let statement = self.statement.map_or(0, |time| time.as_millis());
        // A policy that hides rows is an error, and hides none. What is told as durable is so, whatever the server's default. Each
        // statement is short, and takes less time than it takes to compile it.
        format!(
            "SET statement_timeout = {statement}; SET lock_timeout = '{}'; SET row_security = off; \
             SET synchronous_commit = on; SET idle_in_transaction_session_timeout = '60s'; SET jit = off",
            self.lock
        )
    }
}

/// How to connect, under a name that `pg_stat_activity` shows: what it is for, and whose.
fn options(url: &ServerUrl, name: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url.whole()).map_err(|error| refused(url, error))?;
    Ok(options
        .application_name(&format!("image-share-gateway {name}"))
        .extra_float_digits(None)
        .log_statements(tracing::log::LevelFilter::Trace))
}

/// Opens a connection.
async fn connect(url: &ServerUrl, name: &str, bounds: Bounds) -> Result<PgConnection, StoreError> {
    let refused = |error: sqlx::Error| refused(url, error);
    let options = options(url, name)?;
    let connecting = async {
        let mut connection = options.connect().await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(bounds.settings()))
            .execute(&mut connection)
            .await?;
        Ok(connection)
    };
    let connected = tokio::time::timeout(CONNECT_TIME, connecting).await;
    connected
        .map_err(|_| away(url, "it does not answer"))?
        .map_err(refused)
}

/// How many migrations there are of this version that the schema lacks.
async fn pending_migrations(
    url: &ServerUrl,
    connection: &mut PgConnection,
) -> Result<usize, StoreError> {
    let failed = |error| refused(url, error);
    let any = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
    let any: bool = any.fetch_one(&mut *connection).await.map_err(failed)?;
    let applied: Vec<i64> = if any {
        let applied = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success");
        applied.fetch_all(connection).await.map_err(failed)?
    } else {
        Vec::new()
    };
    let lacks = |migration: &&Migration| !applied.contains(&migration.version);
    Ok(MIGRATIONS.iter().filter(lacks).count())
}

/// Brings the schema up to date.
async fn migrate(url: &ServerUrl, connection: &mut PgConnection) -> Result<(), StoreError> {
    let encoding = sqlx::query_scalar("SHOW server_encoding").fetch_one(&mut *connection);
    let encoding: String = encoding.await.map_err(|error| refused(url, error))?;
    if encoding != "UTF8" {
        return Err(refused_as(
            url,
            format!("its encoding is {encoding} and not UTF8"),
        ));
    }
    let there = sqlx::query_scalar("SELECT to_regclass('audit_entries') IS NOT NULL");
    let there: bool = there
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| refused(url, error))?;
    match MIGRATIONS.run(connection).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(_)) if !there => Err(refused_as(
            url,
            "it is another program's (_sqlx_migrations)",
        )),
        Err(MigrateError::VersionMissing(migration)) => Err(refused_as(
            url,
            format!("it was written by a newer version of the gateway (migration {migration})"),
        )),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(refused(url, error))
        }
        Err(error) => Err(refused_as(url, error)),
    }
}

/// Why it cannot be used, in the database's own words.
fn refused(url: &ServerUrl, error: sqlx::Error) -> StoreError {
    let no_trail = matches!(&error, sqlx::Error::Database(refusal)
        if refusal.code().as_deref() == Some(NO_SUCH_TABLE));
    let passes = passes(url, &error);
    match error {
        _ if no_trail => refused_as(url, "there is no trail in it"),
        sqlx::Error::Database(refusal) if passes => away(url, refusal.message().to_owned()),
        sqlx::Error::Database(refusal) => refused_as(url, refusal.message().to_owned()),
        sqlx::Error::Configuration(fault) => refused_as(url, fault),
        other if passes => away(url, other),
        other => refused_as(url, other),
    }
}

/// Whether a failure may pass by itself: the server is away, stops, starts, is a standby, or is full.
fn passes(url: &ServerUrl, error: &sqlx::Error) -> bool {
    match error {
        // So comes what is wrong with its certificate.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            !asks_for_tls(url)
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
        // A server that is cut off in the middle of a handshake is away; one that has no TLS where it is asked for is not.
        sqlx::Error::Tls(_) => !asks_for_tls(url),
        sqlx::Error::Database(refusal) => {
            let code = refusal.code().unwrap_or_default();
            // Classes 08 (connection), 25 (of it: read only), 53 (resources), 55 (state), 57 (operator), 58 (system), 40 (conflict).
            ["08", "25006", "53", "55", "57", "58", "40"]
                .iter()
                .any(|class| code.starts_with(class))
        }
        _ => false,
    }
}

fn asks_for_tls(url: &ServerUrl) -> bool {
    let options = PgConnectOptions::from_str(url.whole());
    options.is_ok_and(|options| {
        !matches!(
            options.get_ssl_mode(),
            PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer
        )
    })
}

fn refused_as(
    url: &ServerUrl,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Server {
        database: url.to_string(),
        source: why.into(),
    }
}

/// It cannot be used now, and may be later.
fn away(url: &ServerUrl, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Away {
        database: url.to_string(),
        source: why.into(),
    }
}

/// Whether a statement failed alone, and its connection goes on: it took too long, or stood in others' way.
fn is_of_the_statement(error: &sqlx::Error) -> bool {
    // query_canceled, lock_not_available, deadlock_detected.
    matches!(code(error), Some("57014" | "55P03" | "40P01"))
}

/// The code of what the database refused (postgresql.org/docs/current/errcodes-appendix.html).
pub(super) fn code(error: &sqlx::Error) -> Option<&str> {
    let refusal = error.as_database_error()?;
    Some(refusal.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// Hangs up in order; what a connection cannot say any more is not needed.
async fn close(connection: PgConnection) {
    let _ = connection.close().await;
}
