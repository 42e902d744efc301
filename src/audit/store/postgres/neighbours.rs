//! The other gateways of a trail: which of them are gone, and what they left.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tokio::time::timeout;

use super::events::SELECT_EVENT;
use super::locks::{LockKey, hand_over, lock_keys, tell_granted};
use super::session::CHAIN_LOCKS;
use super::{Bounds, StoreError, away, connect, is_of_the_statement, refused};
use crate::audit::lease::LEASE_TIME;
use crate::audit::store::EventRow;
use crate::config::ServerUrl;
use crate::domain::BootTime;

/// How long a statement may take.
const TIME: Duration = Duration::from_secs(4);
const LOOKING: Bounds = Bounds {
    statement: Some(Duration::from_secs(3)),
    lock: "2s",
};
/// How long nothing was heard of a gateway whose connection is gone, before it is held for gone: it may come back.
const GONE_TIME: Duration = Duration::from_secs(3);
/// How long a call may take effect after it failed, and a row take to the disk.
const LANDING_TIME: Duration = Duration::from_secs(65);
/// Most pending intents that are taken over at once.
const ADOPTED_MAX: i64 = 1000;

/// The chains of others that are written, when each was heard of last by the database's clock, and whether its session lives.
const LIVE: &str = "SELECT c.chain_id, (extract(epoch FROM c.heartbeat_at) * 1000000)::bigint, EXISTS (\
        SELECT 1 FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.granted \
        AND l.classid = $2::bigint::oid AND l.objid = (c.number & 2147483647)::oid \
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) \
    FROM audit_chains AS c WHERE c.ended_at IS NULL AND c.chain_id <> $1";

/// Ends chains that were not heard of since somebody looked, each by one gateway alone. When they were heard of last is from then on told by how
/// long ago that is, since the database's clock may have been set meanwhile.
const END_GONE: &str = "WITH gone AS (\
        SELECT c.chain_id, g.silent FROM audit_chains AS c \
        JOIN unnest($1::text[], $2::bigint[], $3::bigint[]) AS g (chain_id, heartbeat, silent) ON g.chain_id = c.chain_id \
        WHERE c.ended_at IS NULL AND (extract(epoch FROM c.heartbeat_at) * 1000000)::bigint = g.heartbeat \
        FOR NO KEY UPDATE OF c SKIP LOCKED), \
    ended AS (\
        UPDATE audit_chains AS c SET ended_at = clock_timestamp(), heartbeat_at = clock_timestamp() - gone.silent * interval '1 ms' \
        FROM gone WHERE c.chain_id = gone.chain_id AND c.ended_at IS NULL \
        RETURNING c.chain_id) \
    SELECT e.chain_id, (SELECT COUNT(pg_terminate_backend(a.pid)) FROM pg_stat_activity AS a \
        WHERE a.datname = current_database() AND a.application_name LIKE 'image-share-gateway %' || e.chain_id) FROM ended AS e";

/// Gives the locks of chains that have ended to who waits for them. Calls of who had them may go on for as long as its lease held
/// when it was heard of last, and one call takes.
const FREE_LOCKS: &str = concat!(
    "WITH held AS (\
        SELECT l.region, l.image_id FROM lane_locks AS l JOIN audit_chains AS c ON c.chain_id = l.holder \
        WHERE c.ended_at IS NOT NULL ORDER BY 1, 2 FOR UPDATE OF l), \
    freed AS (\
        UPDATE lane_locks AS l SET ",
    hand_over!(),
    ", last_event = GREATEST(l.last_event, c.last_event), \
            not_before = GREATEST(l.not_before, c.heartbeat_at + ($1 + c.call_ms) * interval '1 ms'), \
            unsure_until = GREATEST(l.unsure_until, c.heartbeat_at + ($1 + c.call_ms + $2) * interval '1 ms') \
        FROM held AS h, audit_chains AS c \
        WHERE l.region = h.region AND l.image_id = h.image_id AND c.chain_id = l.holder AND c.ended_at IS NOT NULL \
        RETURNING l.*)",
    tell_granted!()
);

const FORGET_LOCKS: &str = "DELETE FROM lane_locks AS l USING (\
        SELECT region, image_id FROM lane_locks WHERE holder IS NULL \
        AND let_go_at < clock_timestamp() - interval '2 minutes' \
        AND (not_before IS NULL OR not_before < clock_timestamp()) AND unsure_until IS NULL \
        AND (last_event IS NULL OR (last_event < audit_id_at(clock_timestamp() - interval '1 minute') \
            AND NOT EXISTS (SELECT 1 FROM audit_chains AS c WHERE c.ended_at IS NULL AND c.floor_event < last_event))) \
        LIMIT 10000 FOR UPDATE SKIP LOCKED) AS f \
    WHERE l.region = f.region AND l.image_id = f.image_id";
const FORGET_NOTES: &str = "DELETE FROM audit_looked_after WHERE through < audit_id_at(clock_timestamp() - interval '2 days')";

/// One connection that looks after what others left.
#[derive(Debug)]
pub(in crate::audit) struct Neighbours {
    url: ServerUrl,
    connection: Option<PgConnection>,
    /// When each chain was heard of last, by the database's clock, and since when that is so, by this machine's.
    heard: HashMap<String, (i64, BootTime)>,
}

impl Neighbours {
    /// Nothing is opened yet.
    pub(in crate::audit) fn new(url: &ServerUrl) -> Self {
        Self {
            url: url.clone(),
            connection: None,
            heard: HashMap::new(),
        }
    }

    /// Opens its connection; returns whether it is a new one.
    pub(in crate::audit) async fn open(&mut self, chain_id: &str) -> Result<bool, StoreError> {
        let is_new = self.connection.is_none();
        if is_new {
            self.connection =
                Some(connect(&self.url, &format!("recovery {chain_id}"), LOOKING).await?);
        }
        Ok(is_new)
    }

    /// Drops its connection, and what it knows: the chain is another, or it was not heard of itself.
    pub(in crate::audit) fn hang_up(&mut self) {
        self.connection = None;
        self.heard.clear();
    }

    async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let Some(connection) = &mut self.connection else {
            return Err(away(&self.url, "there is no connection"));
        };
        let done = timeout(TIME, work(connection)).await;
        done.unwrap_or(Err(sqlx::Error::PoolTimedOut))
            .map_err(|error| {
                if !is_of_the_statement(&error) {
                    self.connection = None;
                }
                refused(&self.url, error)
            })
    }

    /// Looks which gateways are gone and, unless they may yet come back, `ends` their chains. Gives the names of those.
    pub(in crate::audit) async fn look(
        &mut self,
        chain_id: &str,
        ends: bool,
    ) -> Result<Vec<String>, StoreError> {
        let now = BootTime::now();
        let live: Vec<(String, i64, bool)> = self
            .run(async |connection| {
                let live = sqlx::query_as(LIVE).bind(chain_id);
                live.bind(i64::from(CHAIN_LOCKS))
                    .fetch_all(connection)
                    .await
            })
            .await?;
        // Of what is new it is not known when it was said: at the latest by now.
        let seen = BootTime::now();
        let mut heard = std::mem::take(&mut self.heard);
        let (mut chains, mut heartbeats, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for (chain, heartbeat, has_session) in live {
            let known = heard.remove(&chain).filter(|known| known.0 == heartbeat);
            let (heartbeat, since) = known.unwrap_or((heartbeat, seen));
            let time = now.since(since);
            if time >= if has_session { LEASE_TIME } else { GONE_TIME } {
                chains.push(chain.clone());
                heartbeats.push(heartbeat);
                silent.push(millis(time));
            }
            self.heard.insert(chain, (heartbeat, since));
        }
        if chains.is_empty() || !ends {
            return Ok(Vec::new());
        }
        let ended: Vec<(String, i64)> = self
            .run(async |connection| {
                let ending = sqlx::query_as(END_GONE)
                    .bind(chains)
                    .bind(heartbeats)
                    .bind(silent);
                ending.fetch_all(connection).await
            })
            .await?;
        Ok(ended.into_iter().map(|(chain_id, _)| chain_id).collect())
    }

    /// Gives the locks of ended chains to who waits for them.
    pub(in crate::audit) async fn free_locks(&mut self) -> Result<(), StoreError> {
        self.run(async |connection| {
            let freeing = sqlx::query(FREE_LOCKS)
                .bind(millis(LEASE_TIME))
                .bind(millis(LANDING_TIME));
            freeing.execute(connection).await.map(drop)
        })
        .await
    }

    /// Images of which changes may take effect late, and that nobody has.
    pub(in crate::audit) async fn forsaken(&mut self) -> Result<Vec<LockKey>, StoreError> {
        let forsaken: Vec<(String, String)> = self
            .run(async |connection| {
                let forsaken = "SELECT region, image_id FROM lane_locks WHERE holder IS NULL AND unsure_until IS NOT NULL LIMIT 100";
                sqlx::query_as(forsaken).fetch_all(connection).await
            })
            .await?;
        Ok(lock_keys(forsaken))
    }

    /// Forgets what nobody asks for any more.
    pub(in crate::audit) async fn forget(&mut self) -> Result<(), StoreError> {
        self.run(async |connection| {
            sqlx::query(FORGET_LOCKS).execute(&mut *connection).await?;
            sqlx::query(FORGET_NOTES)
                .execute(connection)
                .await
                .map(drop)
        })
        .await
    }

    /// Takes over what chains that have ended left pending: it is this chain's from now on, and nobody else's. Gives all that it took
    /// over and that is pending still, since an answer before may have been lost.
    pub(in crate::audit) async fn adopt(
        &mut self,
        chain_id: &str,
    ) -> Result<Vec<EventRow>, StoreError> {
        let adopt = format!(
            "WITH orphans AS (\
                 SELECT p.event_id FROM audit_pending AS p LEFT JOIN audit_chains AS c ON c.chain_id = p.chain_id \
                 WHERE c.chain_id IS NULL OR c.ended_at IS NOT NULL ORDER BY p.event_id LIMIT $2 FOR UPDATE OF p SKIP LOCKED), \
             adopted AS (\
                 UPDATE audit_pending AS p SET chain_id = c.chain_id, adopted = TRUE FROM orphans, audit_chains AS c \
                 WHERE p.event_id = orphans.event_id AND c.chain_id = $1 AND c.ended_at IS NULL RETURNING p.event_id), \
             all_of_mine AS (\
                 SELECT event_id FROM adopted UNION SELECT event_id FROM audit_pending WHERE chain_id = $1 AND adopted) \
             {SELECT_EVENT} FROM all_of_mine AS a JOIN audit_entries AS f ON f.event_id = a.event_id AND f.kind = 'intent' \
             LEFT JOIN audit_entries AS o ON o.event_id = a.event_id AND o.kind = 'outcome' \
             WHERE o.event_id IS NULL ORDER BY f.event_id"
        );
        let rows: Vec<String> = self
            .run(async |connection| {
                let adopting = sqlx::query_scalar(AssertSqlSafe(adopt))
                    .bind(chain_id)
                    .bind(ADOPTED_MAX);
                adopting.fetch_all(connection).await
            })
            .await?;
        let read = |row: &String| serde_json::from_str(row).map_err(StoreError::Event);
        rows.iter().map(read).collect()
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
