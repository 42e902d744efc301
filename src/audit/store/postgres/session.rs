//! The writer's session: one connection that holds the lock on its chain, for as long as it lives.
//!
//! A chain belongs to one start of one gateway. Whoever is cut off for a moment goes on with it, as long as nobody has ended
//! it; whoever finds it ended begins another.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Bounds, StoreError, UNBOUNDED, away, close, connect, migrate, pending_migrations, refused,
    refused_as,
};
use crate::audit::chain::{Hash, Tip};
use crate::config::ServerUrl;
use crate::domain::EventId;

/// The first key of the advisory locks on chains; the second is the chain's number. The letters are `isgc`.
pub(super) const CHAIN_LOCKS: i32 = 0x6973_6763;

/// The greatest id over all chains.
pub(super) const LAST_EVENT: &str = "SELECT last_event FROM audit_chains WHERE last_event IS NOT NULL ORDER BY last_event DESC LIMIT 1";

/// What the writer's statements may take.
const WRITING: Bounds = Bounds {
    statement: Some(Duration::from_secs(4)),
    lock: "3s",
};

/// How long it may take to look what there is, and to change the schema.
const LOOK_TIME: Duration = Duration::from_secs(10);
const MIGRATION_TIME: Duration = Duration::from_hours(1);
/// How often in a row a connection is asked whose it is.
const ASKED_TIMES: usize = 6;
/// How often it is asked while another is in a transaction.
const BESIDE_TIMES: usize = 4;
/// How long it may be silent beside one that is in a transaction, before that one is asked; and how often.
const SILENT_TIME: Duration = Duration::from_millis(200);
const SILENT_TIMES_MAX: usize = 10;

const POOLED: &str = "a pooler gives its connections to others between transactions, and a gateway's session must be its own: \
    connect to the server itself, or to a pooler of sessions (PgBouncer: pool_mode = session)";

/// A chain of this start.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) id: Arc<str>,
    pub(super) number: i64,
}

/// A session that was opened, and where its chain ends.
pub(super) struct Opened {
    pub(super) connection: PgConnection,
    pub(super) chain: Chain,
    pub(super) tip: Tip,
    /// How far the clock is before the database's, in milliseconds, as far as the way there allows to say.
    pub(super) skew: i64,
}

/// Sees to it that the schema is this version's, once a process. What has to be changed of it for that may take long.
pub(super) async fn prepare(url: &ServerUrl) -> Result<(), StoreError> {
    let looking = async {
        let mut connection = connect(url, "migration", UNBOUNDED).await?;
        check_own(url, &mut connection).await?;
        let pending = pending_migrations(url, &mut connection).await?;
        Ok::<_, StoreError>((connection, pending))
    };
    let looked = timeout(LOOK_TIME, looking).await;
    let (mut connection, pending) = looked.map_err(|_| away(url, "it does not answer"))??;
    let time = if pending == 0 {
        LOOK_TIME
    } else {
        tracing::info!(
            audit.migrations = pending,
            "the schema of the audit database is brought up to date"
        );
        MIGRATION_TIME
    };
    let migrated = timeout(time, migrate(url, &mut connection)).await;
    migrated.map_err(|_| away(url, "its schema is not up to date yet"))??;
    close(connection).await;
    Ok(())
}

/// Opens a session: that of `chain` again where nobody has ended it, else that of a new one. `last` is the end that the writer
/// knows of it, and `call_ms` how long one of its calls may go on.
pub(super) async fn open(
    url: &ServerUrl,
    chain: Option<(&Chain, &Tip)>,
    call_ms: i64,
) -> Result<Opened, StoreError> {
    let fresh: Arc<str> = Uuid::now_v7().simple().to_string().into();
    let id = chain.map_or(&fresh, |(chain, _)| &chain.id);
    let mut connection = connect(url, &format!("writer {id}"), WRITING).await?;
    check_own(url, &mut connection).await?;
    let failed = |error| refused(url, error);
    make_partitions(&mut connection).await.map_err(failed)?;
    let skew = clock_skew(&mut connection).await.map_err(failed)?;
    if let Some((chain, last)) = chain {
        let again = resume(url, &mut connection, chain, last).await?;
        if let Some(tip) = again {
            let chain = chain.clone();
            return Ok(Opened {
                connection,
                chain,
                tip,
                skew,
            });
        }
        let name = format!("image-share-gateway writer {fresh}");
        let renamed = sqlx::query("SELECT set_config('application_name', $1, FALSE)").bind(name);
        renamed.execute(&mut connection).await.map_err(failed)?;
    }
    let insert = "INSERT INTO audit_chains (chain_id, call_ms) VALUES ($1, $2) RETURNING number";
    let begun = sqlx::query_scalar(insert).bind(&*fresh).bind(call_ms);
    let number: i64 = begun.fetch_one(&mut connection).await.map_err(failed)?;
    if !take_lock(&mut connection, number).await.map_err(failed)? {
        return Err(away(url, "the lock on a new chain is taken"));
    }
    let floor = raise_floor(&mut connection, &fresh).await.map_err(failed)?;
    let tip = Tip::new(
        Arc::clone(&fresh),
        0,
        Hash::GENESIS,
        floor.map(EventId::new),
    );
    let chain = Chain { id: fresh, number };
    Ok(Opened {
        connection,
        chain,
        tip,
        skew,
    })
}

/// Has the ids of a chain go on behind those of all others, whatever the clocks say. In a statement of its own: readers are promised no more
/// than the last id that they saw, and who did not see the chain yet had its snapshot before this one's.
async fn raise_floor(
    connection: &mut PgConnection,
    chain_id: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let raise = format!(
        "UPDATE audit_chains SET floor_event = GREATEST(floor_event, ({LAST_EVENT})) WHERE chain_id = $1 RETURNING floor_event"
    );
    let raise = sqlx::query_scalar(sqlx::AssertSqlSafe(raise)).bind(chain_id);
    raise.fetch_one(connection).await
}

/// Whether the connection is this process' own for as long as it lasts: statement after statement, and while another is in a
/// transaction. A pooler of transactions gives the backend to that one, or to whoever comes next, as it takes them from its
/// idle ones last in first out or in turn.
async fn check_own(url: &ServerUrl, connection: &mut PgConnection) -> Result<(), StoreError> {
    let failed = |error| refused(url, error);
    let own = backend(connection).await.map_err(failed)?;
    for _ in 1..ASKED_TIMES {
        if backend(connection).await.map_err(failed)? != own {
            return Err(refused_as(url, POOLED));
        }
    }
    let mut other = connect(url, "session check", WRITING).await?;
    for _ in 0..BESIDE_TIMES {
        match sqlx::raw_sql("BEGIN").execute(&mut other).await {
            Ok(_) => {}
            // A pooler of statements knows no transactions.
            Err(sqlx::Error::Database(_)) => return Err(refused_as(url, POOLED)),
            Err(error) => return Err(failed(error)),
        }
        let others = backend(&mut other).await.map_err(failed)?;
        let beside = answered_beside(connection, &mut other).await;
        let beside = beside.map_err(failed)?;
        let rolled_back = sqlx::raw_sql("ROLLBACK").execute(&mut other).await;
        rolled_back.map_err(failed)?;
        match beside {
            _ if others == own => return Err(refused_as(url, POOLED)),
            None => return Err(away(url, "one of two connections is not answered")),
            Some(beside) if beside != own => return Err(refused_as(url, POOLED)),
            Some(_) => {}
        }
    }
    close(other).await;
    Ok(())
}

/// Who answers on a connection while another is in a transaction; `None` where it is silent and the other is answered.
async fn answered_beside(
    connection: &mut PgConnection,
    other: &mut PgConnection,
) -> Result<Option<i32>, sqlx::Error> {
    let mut answer = std::pin::pin!(backend(connection));
    for _ in 0..SILENT_TIMES_MAX {
        match timeout(SILENT_TIME, &mut answer).await {
            Ok(answered) => return answered.map(Some),
            // Where the server itself stands still, this waits as well.
            Err(_) => drop(backend(other).await?),
        }
    }
    Ok(None)
}

async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    use sqlx::Row as _;
    // By the simple protocol: poolers of transactions lose prepared statements.
    let row = sqlx::raw_sql("SELECT pg_backend_pid()")
        .fetch_one(connection)
        .await?;
    row.try_get(0)
}

/// Those of this month and of the next, and of the one before where the month has just begun: clocks differ.
pub(super) async fn make_partitions(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let make = "SELECT COUNT(audit_make_partition(audit_id_at(clock_timestamp() + away))) \
        FROM (VALUES (interval '-1 hour'), (interval '0'), (interval '1 month')) AS times (away)";
    sqlx::query(make).execute(connection).await?;
    Ok(())
}

/// How far the clock is before the database's, in milliseconds.
async fn clock_skew(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let before = crate::domain::Timestamp::now();
    let theirs: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .fetch_one(connection)
            .await?;
    let after = crate::domain::Timestamp::now();
    Ok(skew(before, theirs, after))
}

/// How far the clock certainly is before the database's, which said `theirs` between the two.
pub(super) fn skew(
    before: crate::domain::Timestamp,
    theirs: i64,
    after: crate::domain::Timestamp,
) -> i64 {
    let (before, after) = (before.as_micros() / 1000, after.as_micros() / 1000);
    if theirs < before {
        before - theirs
    } else if theirs > after {
        after - theirs
    } else {
        0
    }
}

async fn take_lock(connection: &mut PgConnection, number: i64) -> Result<bool, sqlx::Error> {
    // Numbers of chains that live at once differ in what is kept of them.
    let take = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, ($2 & 2147483647)::int)")
        .bind(CHAIN_LOCKS)
        .bind(number);
    take.fetch_one(connection).await
}

/// Takes a chain up again; `None` where somebody has ended it.
async fn resume(
    url: &ServerUrl,
    connection: &mut PgConnection,
    chain: &Chain,
    last: &Tip,
) -> Result<Option<Tip>, StoreError> {
    let failed = |error| refused(url, error);
    // The server may not know yet that the connection before is gone.
    let end_former = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_locks \
        WHERE locktype = 'advisory' AND granted AND classid = $1::bigint::oid AND objid = ($2 & 2147483647)::oid \
        AND pid <> pg_backend_pid() AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let ending = sqlx::query(end_former)
        .bind(i64::from(CHAIN_LOCKS))
        .bind(chain.number);
    ending.execute(&mut *connection).await.map_err(failed)?;
    if !take_lock(connection, chain.number).await.map_err(failed)? {
        return Err(away(url, "the session before has not ended yet"));
    }
    let look = "UPDATE audit_chains SET heartbeat_at = clock_timestamp() WHERE chain_id = $1 AND ended_at IS NULL \
         RETURNING head_sequence, head_hash, last_event";
    let looked = sqlx::query_as(look).bind(&*chain.id);
    let found: Option<(i64, String, Option<Uuid>)> = looked
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed)?;
    let Some((sequence, hash, last_event)) = found else {
        return Ok(None);
    };
    // What nobody was told is on disk belongs to nobody here: whoever closes what others left closes it.
    let disown = "UPDATE audit_pending SET chain_id = '' WHERE chain_id = $1 AND event_id IN \
        (SELECT event_id FROM audit_entries WHERE chain_id = $1 AND sequence > $2 AND kind = 'intent')";
    let disowning = sqlx::query(disown).bind(&*chain.id).bind(last.sequence());
    disowning.execute(connection).await.map_err(failed)?;
    let hash = hash.parse().map_err(|_| StoreError::Row {
        sequence,
        column: "hash",
    })?;
    let last_event = last_event.map(EventId::new).max(last.last_event());
    Ok(Some(Tip::new(
        Arc::clone(&chain.id),
        sequence,
        hash,
        last_event,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn a_clock_is_off_only_by_what_the_way_there_does_not_explain() {
        let at = |millis: i64| Timestamp::from_micros(millis * 1000);
        assert_eq!(skew(at(1000), 1005, at(1010)), 0);
        assert_eq!(skew(at(1000), 900, at(1010)), 100);
        assert_eq!(skew(at(1000), 1500, at(1010)), -490);
    }
}
