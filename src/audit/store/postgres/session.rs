//! The writer's session: one connection that holds the lock on its chain, for as long as it lives.
//!
//! A chain belongs to one start of one gateway. Whoever is cut off for a moment goes on with it, as long as nobody has ended
//! it; whoever finds it ended begins another.

use std::sync::Arc;

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{Bounds, StoreError, away, close, connect, migrate, refused, refused_as};
use crate::audit::chain::{Hash, Tip};
use crate::config::ServerUrl;
use crate::domain::EventId;

/// The first key of the advisory locks on chains; the second is the chain's number. The letters are `isgc`.
pub(super) const CHAIN_LOCKS: i32 = 0x6973_6763;

/// What the writer's statements may take.
const WRITING: Bounds = Bounds {
    statement: Some(super::appender::STATEMENT_TIME),
    lock: "3s",
};

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
    migrate(url, &mut connection).await?;
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
    // Ids go on behind those of all other chains, whatever the clocks say.
    let insert = "INSERT INTO audit_chains (chain_id, call_ms) VALUES ($1, $2) \
         RETURNING number, (SELECT last_event FROM audit_chains WHERE last_event IS NOT NULL ORDER BY last_event DESC LIMIT 1)";
    let begun = sqlx::query_as(insert).bind(&*fresh).bind(call_ms);
    let (number, last_event): (i64, Option<Uuid>) =
        begun.fetch_one(&mut connection).await.map_err(failed)?;
    if !take_lock(&mut connection, number).await.map_err(failed)? {
        return Err(away(url, "the lock on a new chain is taken"));
    }
    let tip = Tip::new(
        Arc::clone(&fresh),
        0,
        Hash::GENESIS,
        last_event.map(EventId::new),
    );
    let chain = Chain { id: fresh, number };
    Ok(Opened {
        connection,
        chain,
        tip,
        skew,
    })
}

/// Whether the connection is this process' own for as long as it lasts: while another is in a transaction, and after it.
async fn check_own(url: &ServerUrl, connection: &mut PgConnection) -> Result<(), StoreError> {
    let failed = |error| refused(url, error);
    let mut other = connect(url, "session check", WRITING).await?;
    let before = backend(connection).await.map_err(failed)?;
    match sqlx::raw_sql("BEGIN").execute(&mut other).await {
        Ok(_) => {}
        // A pooler of statements knows no transactions.
        Err(sqlx::Error::Database(_)) => return Err(refused_as(url, POOLED)),
        Err(error) => return Err(failed(error)),
    }
    let ids = async {
        let others = backend(&mut other).await?;
        let after = backend(connection).await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await?;
        Ok((others, after))
    };
    let (others, after) = ids.await.map_err(failed)?;
    close(other).await;
    if before == after && before != others {
        Ok(())
    } else {
        Err(refused_as(url, POOLED))
    }
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
