//! The trail in a database of PostgreSQL.

mod columns;
mod import;
mod rows;

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::StoreError;
use crate::config::ServerUrl;

pub(in crate::audit) use import::Import;
pub(super) use rows::{PackedRow, RowReader};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How long a connection is waited for.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a statement waits for another's lock.
const LOCK_TIME: &str = "30s";
/// `undefined_table` (postgresql.org/docs/current/errcodes-appendix.html).
const NO_SUCH_TABLE: &str = "42P01";

/// Opens a connection that `pg_stat_activity` names by what it is for.
async fn connect(url: &ServerUrl, purpose: &str) -> Result<PgConnection, StoreError> {
    let refused = |error: sqlx::Error| refused(url, error);
    let options = PgConnectOptions::from_str(url.whole()).map_err(refused)?;
    let options = options
        .application_name(&format!("image-share-gateway {purpose}"))
        // A policy that hides rows is an error, and hides none.
        .options([("lock_timeout", LOCK_TIME), ("row_security", "off")])
        .log_statements(tracing::log::LevelFilter::Trace);
    let connected = tokio::time::timeout(CONNECT_TIME, options.connect()).await;
    connected
        .map_err(|_| refused_as(url, "it does not answer"))?
        .map_err(refused)
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
        Err(error) => Err(refused_as(url, error)),
    }
}

/// Why it cannot be used, in the database's own words.
fn refused(url: &ServerUrl, error: sqlx::Error) -> StoreError {
    let no_trail = matches!(&error, sqlx::Error::Database(refusal)
        if refusal.code().as_deref() == Some(NO_SUCH_TABLE));
    match error {
        _ if no_trail => refused_as(url, "there is no trail in it"),
        sqlx::Error::Database(refusal) => refused_as(url, refusal.message().to_owned()),
        sqlx::Error::Configuration(fault) => refused_as(url, fault),
        other => refused_as(url, other),
    }
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

/// Hangs up in order; what a connection cannot say any more is not needed.
async fn close(connection: PgConnection) {
    let _ = connection.close().await;
}
