//! Connections that only read, and the small look-ups over them.
//!
//! Bounded in number and in time, as those of SQLite are. Each statement is one short read.

use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Bounds, StoreError, code, options, passes, refused};
use crate::audit::store::{Asker, EventRow, EventsQuery, PlaceRow, Turn, Turns};
use crate::config::ServerUrl;
use crate::domain::EventId;

use super::events::{SELECT_ONE, counts, page, pending};
use super::session::LAST_EVENT;

/// Connections for what people ask, for exports and the feed, and for look-ups that changes and lists wait for.
const QUERIES_MAX: u32 = 4;
const EXPORTS_MAX: u32 = 3;
const LOOK_UPS_MAX: u32 = 3;
/// How long a statement of each may take beside a running gateway.
const QUERY_TIME: Duration = Duration::from_secs(5);
const EXPORT_TIME: Duration = Duration::from_secs(15);
const LOOK_UP_TIME: Duration = Duration::from_secs(10);
/// How long a connection is waited for: within that time a database that is away is known to be.
const WAIT: Duration = Duration::from_secs(5);
const EXPORT_WAIT: Duration = Duration::from_mins(1);
/// Queries of one party at once, and pages of its exports; its others wait for these.
const QUERIES_OF_PARTY_MAX: usize = 2;
const EXPORTS_OF_PARTY_MAX: usize = 1;
/// How much later than the server's own bound an answer is given up.
const GRACE: Duration = Duration::from_secs(2);
/// Pages are read along an index, a plan for each kind of them, whatever is asked for: planning over all partitions would take longer than
/// the page, and with seeks as dear as PostgreSQL takes them for by default it would rather look through the newest rows one by one.
const READING: &str = "SET plan_cache_mode = force_generic_plan; SET random_page_cost = 1.1";
/// `query_canceled`: the statement took too long.
const CANCELED: &str = "57014";
/// `read_only_sql_transaction` and `insufficient_privilege`.
const READS_ONLY: [&str; 2] = ["25006", "42501"];

/// Up to which id every writer has written all that it ever will.
enum Promised {
    /// All that there is, and this is its bound.
    All(Option<Uuid>),
    /// A part of it, where every writer said one.
    Part(Option<Uuid>),
}

/// Connections for reads; never the writer's. Clones share them.
#[derive(Debug, Clone)]
pub(in crate::audit) struct ReadConnections {
    url: ServerUrl,
    queries: Pool,
    exports: Pool,
    look_ups: Pool,
    query_turns: Turns,
    export_turns: Turns,
}

#[derive(Debug, Clone)]
struct Pool {
    pool: PgPool,
    /// How long a statement may take; none: as long as it takes.
    time: Option<Duration>,
}

impl ReadConnections {
    /// For the trail at `url`; nothing is opened yet. `bounded`: where others wait for their turn.
    pub(in crate::audit) fn new(url: &ServerUrl, bounded: bool) -> Result<Self, StoreError> {
        let pool = |connections, wait, time: Duration| -> Result<Pool, StoreError> {
            Ok(Pool {
                pool: pool(url, connections, wait, bounded.then_some(time))?,
                time: bounded.then_some(time),
            })
        };
        Ok(Self {
            url: url.clone(),
            queries: pool(QUERIES_MAX, WAIT, QUERY_TIME)?,
            exports: pool(EXPORTS_MAX, WAIT, EXPORT_TIME)?,
            look_ups: pool(LOOK_UPS_MAX, WAIT, LOOK_UP_TIME)?,
            query_turns: Turns::of(QUERIES_OF_PARTY_MAX, WAIT),
            export_turns: Turns::of(EXPORTS_OF_PARTY_MAX, EXPORT_WAIT),
        })
    }

    /// Whether there is a trail that this version can read.
    pub(in crate::audit) async fn check(&self) -> Result<(), StoreError> {
        let look = "SELECT number FROM audit_chains, audit_entries LIMIT 0";
        self.look_up(async |connection| sqlx::query(look).execute(connection).await)
            .await?;
        Ok(())
    }

    async fn run<T>(
        &self,
        pool: &Pool,
        read: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let failed = |error| self.failed(error);
        let mut connection = pool.pool.acquire().await.map_err(failed)?;
        let reading = read(&mut connection);
        let Some(time) = pool.time else {
            return reading.await.map_err(failed);
        };
        if let Ok(read) = timeout(time + GRACE, reading).await {
            return read.map_err(failed);
        }
        // It is still at work for somebody who has gone.
        drop(connection.detach());
        Err(StoreError::TooSlow)
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        match &error {
            sqlx::Error::PoolTimedOut => StoreError::Busy,
            _ if code(&error) == Some(CANCELED) => StoreError::TooSlow,
            _ if passes(&self.url, &error) => refused(&self.url, error),
            _ => StoreError::Database(error),
        }
    }

    /// What people ask.
    async fn query<T>(
        &self,
        asker: &Asker,
        read: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let (pool, turns) = if asker.exports {
            (&self.exports, &self.export_turns)
        } else {
            (&self.queries, &self.query_turns)
        };
        let _turn: Option<Turn> = match &asker.party {
            Some(party) => Some(turns.take(party).await?),
            None => None,
        };
        self.run(pool, read).await
    }

    /// What the feed asks.
    pub(super) async fn feed<T>(
        &self,
        read: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.run(&self.exports, read).await
    }

    pub(super) async fn look_up<T>(
        &self,
        read: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.run(&self.look_ups, read).await
    }

    /// The first rows of events with their outcomes, in the order asked.
    pub(in crate::audit) async fn events(
        &self,
        asker: &Asker,
        query: &EventsQuery<'_>,
    ) -> Result<Vec<EventRow>, StoreError> {
        if query.newest_first {
            return self.page_below(asker, query, None).await;
        }
        // Upwards nothing may come later below what was given.
        let bound = match self.promised().await? {
            Promised::All(bound) => bound,
            Promised::Part(floor) => {
                if floor.is_some() {
                    let page = self.page_below(asker, query, floor).await?;
                    if i64::try_from(page.len()).is_ok_and(|rows| rows >= query.limit) {
                        return Ok(page);
                    }
                }
                Some(self.promise(floor).await?)
            }
        };
        self.page_below(asker, query, bound).await
    }

    /// What the writers promised by themselves.
    async fn promised(&self) -> Result<Promised, StoreError> {
        let given = format!(
            "SELECT MIN(floor_event::text)::uuid, COUNT(*), COUNT(floor_event), ({LAST_EVENT}) \
             FROM audit_chains WHERE ended_at IS NULL"
        );
        let promised = self.look_up(async |connection| {
            let given = sqlx::query_as(AssertSqlSafe(given));
            given.fetch_one(connection).await
        });
        let (floor, live, promising, last): (Option<Uuid>, i64, i64, Option<Uuid>) =
            promised.await?;
        let floor = floor.filter(|_| promising == live);
        Ok(if live == 0 || (floor.is_some() && last <= floor) {
            Promised::All(last)
        } else {
            Promised::Part(floor)
        })
    }

    /// Has every writer give ids above the last that there is from now on, and gives that one: what is not above it is written. A
    /// standby, or a role that may only read, has what was promised, which is `floor`, where each writer was heard of lately.
    async fn promise(&self, floor: Option<Uuid>) -> Result<Uuid, StoreError> {
        let promise = format!(
            "WITH last AS ({LAST_EVENT}), \
             promised AS (\
                 UPDATE audit_chains AS c SET floor_event = GREATEST(c.floor_event, last.last_event) \
                 FROM last, (SELECT chain_id FROM audit_chains WHERE ended_at IS NULL ORDER BY chain_id FOR NO KEY UPDATE) AS live \
                 WHERE c.chain_id = live.chain_id AND c.ended_at IS NULL \
                     AND (c.floor_event IS NULL OR c.floor_event < last.last_event)) \
             SELECT last_event FROM last"
        );
        let reads_only =
            |error: &sqlx::Error| READS_ONLY.iter().any(|read| code(error) == Some(read));
        let promised = self.look_up(async |connection| {
            let mut transaction = connection.begin().await?;
            // Rows of others are held meanwhile: rather none than for long.
            let bounded = sqlx::query("SET LOCAL lock_timeout = '250ms'");
            bounded.execute(&mut *transaction).await?;
            let promise = sqlx::query_scalar(AssertSqlSafe(promise));
            match promise.fetch_optional(&mut *transaction).await {
                // Where there is no event yet there is none to give.
                Ok(last) => {
                    transaction.commit().await?;
                    Ok(Some(last.unwrap_or_default()))
                }
                Err(error) if reads_only(&error) => Ok(None),
                Err(error) => Err(error),
            }
        });
        if let Some(last) = promised.await? {
            return Ok(last);
        }
        let silent = "SELECT EXISTS (SELECT 1 FROM audit_chains WHERE ended_at IS NULL \
            AND heartbeat_at < clock_timestamp() - interval '10 seconds')";
        let silent = self.look_up(async |connection| {
            let silent = sqlx::query_scalar(silent);
            silent.fetch_one(connection).await
        });
        let is_silent: bool = silent.await?;
        floor.filter(|_| !is_silent).ok_or(StoreError::Unpromised)
    }

    async fn page_below(
        &self,
        asker: &Asker,
        query: &EventsQuery<'_>,
        bound: Option<Uuid>,
    ) -> Result<Vec<EventRow>, StoreError> {
        let mut statement = page(query, bound);
        let rows: Vec<String> = self
            .query(asker, async |connection| {
                statement.build_query_scalar().fetch_all(connection).await
            })
            .await?;
        let read = |row: &String| serde_json::from_str(row).map_err(StoreError::Event);
        rows.iter().map(read).collect()
    }

    /// How many events of each outcome there are.
    pub(in crate::audit) async fn counts(
        &self,
        asker: &Asker,
        query: &EventsQuery<'_>,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let mut statement = counts(query);
        self.query(asker, async |connection| {
            statement.build_query_as().fetch_all(connection).await
        })
        .await
    }

    /// One event, and where its rows stand: kind, chain, sequence, time and hash, oldest first.
    pub(in crate::audit) async fn event(
        &self,
        id: EventId,
    ) -> Result<Option<(EventRow, Vec<PlaceRow>)>, StoreError> {
        let found: Option<(String, String)> = self
            .look_up(async |connection| {
                let one = sqlx::query_as(AssertSqlSafe(SELECT_ONE.as_str())).bind(id.as_uuid());
                one.fetch_optional(connection).await
            })
            .await?;
        let Some((event, places)) = found else {
            return Ok(None);
        };
        let event = serde_json::from_str(&event).map_err(StoreError::Event)?;
        let places = serde_json::from_str(&places).map_err(StoreError::Event)?;
        Ok(Some((event, places)))
    }

    /// Up to `limit` events without an outcome behind `after`, oldest first, of chains that nobody writes any more.
    pub(in crate::audit) async fn pending(
        &self,
        after: Option<EventId>,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        let mut statement = pending(after, limit);
        let rows: Vec<String> = self
            .look_up(async |connection| statement.build_query_scalar().fetch_all(connection).await)
            .await?;
        let read = |row: &String| serde_json::from_str(row).map_err(StoreError::Event);
        rows.iter().map(read).collect()
    }

    /// Closes all connections.
    pub(in crate::audit) async fn close(&self) {
        tokio::join!(
            self.queries.pool.close(),
            self.exports.pool.close(),
            self.look_ups.pool.close()
        );
    }
}

fn pool(
    url: &ServerUrl,
    connections: u32,
    wait: Duration,
    statement: Option<Duration>,
) -> Result<PgPool, StoreError> {
    let bounds = Bounds {
        statement,
        lock: "3s",
    };
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(wait)
        .idle_timeout(Duration::from_mins(1))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                let settings = format!("{}; {READING}", bounds.settings());
                let settings = sqlx::raw_sql(AssertSqlSafe(settings));
                settings.execute(connection).await?;
                Ok(())
            })
        });
    Ok(pool.connect_lazy_with(options(url, "reader")?))
}
