//! Connections that only read, and the small look-ups over them.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::audit::filter::{Filter, OutcomeFilter};
use crate::audit::store::{Asker, EventRow, EventsQuery, PlaceRow, Turns};
use crate::domain::EventId;

use super::appender::BUSY_TIMEOUT;
use super::events::{FIRST_ROWS, IS_FIRST_ROW, SELECT_EVENT, WITH_OUTCOME, fetch_events};
use super::limits::{BoundedRead, ReadGate, read_failed};
use super::points::Points;
use super::reading::{check_there, reading};
use super::rows::{StoredRow, select_row_up_to, select_rows};
use super::{StoreError, resolved};

/// Why a trail is not looked at that no gateway of this version has opened yet.
const OLDER: &str = "it was written by an older version of the gateway; this one brings it up to date when it serves";

/// Connections for what people ask.
const QUERIES_MAX: u32 = 4;
/// Connections for exports, whose statements may walk the whole trail.
const EXPORTS_MAX: u32 = 2;
/// Connections for the feed, whose statements are short.
const FEEDS_MAX: u32 = 2;
/// Connections for indexed look-ups that changes and lists wait for.
const LOOK_UPS_MAX: u32 = 2;
/// How long a statement of each may take beside a running gateway.
const QUERY_TIME: Duration = Duration::from_secs(5);
const EXPORT_TIME: Duration = Duration::from_secs(15);
pub(super) const LOOK_UP_TIME: Duration = Duration::from_secs(30);
/// Queries of one party at once, and pages of its exports; its others wait for these.
const QUERIES_OF_PARTY_MAX: usize = 2;
const EXPORTS_OF_PARTY_MAX: usize = 1;
/// How long the page of an export waits for its turn and for a connection: as long as some others take.
const EXPORT_WAIT: Duration = Duration::from_mins(1);

/// An event, and its rows as a JSON array of [`PlaceRow`]s.
static SELECT_EVENT_WITH_PLACES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{SELECT_EVENT}, (SELECT json_group_array(json_array(p.kind, p.chain_id, p.sequence, p.recorded_at, p.hash)) \
         FROM (SELECT kind, chain_id, sequence, recorded_at, hash FROM audit_entries \
               WHERE event_id = ?1 ORDER BY sequence) AS p) \
         {FIRST_ROWS} audit_entries_event {WITH_OUTCOME} WHERE f.event_id = ?1 AND {IS_FIRST_ROW}"
    )
});

/// Connections for reads; never the writer's.
///
/// Each statement is one short read: a read transaction that stays open keeps the write-ahead log growing.
#[derive(Debug, Clone)]
pub(crate) struct ReadConnections {
    queries: SqlitePool,
    exports: SqlitePool,
    feeds: SqlitePool,
    look_ups: SqlitePool,
    points: Points,
    gate: ReadGate,
    query_turns: Turns,
    export_turns: Turns,
    /// Whether statements are bounded in time: where others wait for their turn.
    bounded: bool,
}

impl ReadConnections {
    /// Opens the trail for reading. Nothing is made where it does not exist.
    pub(crate) async fn open(path: &Path, bounded: bool) -> Result<Self, StoreError> {
        check_there(path).await?;
        let open = |error| StoreError::open(path, error);
        // A trail of an older version fails here and not at somebody's query.
        let look = "SELECT audit_log.id FROM audit_log, audit_indexed LIMIT 0";
        let options = reading(path, look).await;
        let options = options.map_err(|error| match error.as_database_error() {
            Some(refusal) if refusal.message() == "no such table: audit_indexed" => {
                StoreError::open(path, OLDER)
            }
            _ => open(error),
        })?;
        // Single events have one place.
        let gate = ReadGate::of(QUERIES_MAX + EXPORTS_MAX + FEEDS_MAX + LOOK_UPS_MAX + 1);
        Ok(Self {
            queries: pool(QUERIES_MAX, BUSY_TIMEOUT, &options)
                .await
                .map_err(open)?,
            exports: pool(EXPORTS_MAX, EXPORT_WAIT, &options)
                .await
                .map_err(open)?,
            feeds: pool(FEEDS_MAX, BUSY_TIMEOUT, &options)
                .await
                .map_err(open)?,
            look_ups: pool(LOOK_UPS_MAX, BUSY_TIMEOUT, &options)
                .await
                .map_err(open)?,
            points: Points::new(
                &resolved(path).await,
                gate.clone(),
                &SELECT_EVENT_WITH_PLACES,
            ),
            gate,
            query_turns: Turns::of(QUERIES_OF_PARTY_MAX, BUSY_TIMEOUT),
            export_turns: Turns::of(EXPORTS_OF_PARTY_MAX, EXPORT_WAIT),
            bounded,
        })
    }

    /// What the writer closes where reads keep its log from beginning anew.
    pub(crate) fn gate(&self) -> ReadGate {
        self.gate.clone()
    }

    pub(crate) async fn query(&self, asker: &Asker) -> Result<BoundedRead, StoreError> {
        let (pool, turns, time) = if asker.exports {
            (&self.exports, &self.export_turns, EXPORT_TIME)
        } else {
            (&self.queries, &self.query_turns, QUERY_TIME)
        };
        let turn = match &asker.party {
            Some(party) => Some(turns.take(party).await?),
            None => None,
        };
        let limit = self.bounded.then_some(time);
        let read = BoundedRead::begin(pool, &self.gate, limit).await?;
        Ok(read.in_turn(turn))
    }

    async fn feed(&self) -> Result<BoundedRead, StoreError> {
        let limit = self.bounded.then_some(QUERY_TIME);
        BoundedRead::begin(&self.feeds, &self.gate, limit).await
    }

    pub(super) async fn look_up(&self) -> Result<BoundedRead, StoreError> {
        let limit = self.bounded.then_some(LOOK_UP_TIME);
        BoundedRead::begin(&self.look_ups, &self.gate, limit).await
    }

    /// The first rows of events with their outcomes, in the order asked.
    pub(crate) async fn events(
        &self,
        asker: &Asker,
        query: &EventsQuery<'_>,
    ) -> Result<Vec<EventRow>, StoreError> {
        fetch_events(self.query(asker).await?.connection(), query.page()).await
    }

    /// How many events of each outcome there are.
    pub(crate) async fn counts(
        &self,
        asker: &Asker,
        query: &EventsQuery<'_>,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let (mut counts, mut read) = (query.counts(), self.query(asker).await?);
        let counted = counts.build_query_as().fetch_all(read.connection());
        counted.await.map_err(read_failed)
    }

    /// The steps of `EXPLAIN QUERY PLAN` for a statement, with nothing bound.
    #[cfg(test)]
    pub(crate) async fn plan(&self, statement: &str) -> Vec<String> {
        use sqlx::{AssertSqlSafe, Row as _};
        let statement = format!("EXPLAIN QUERY PLAN {statement}");
        let steps = sqlx::raw_sql(AssertSqlSafe(statement))
            .fetch_all(&self.queries)
            .await;
        steps
            .expect("explains")
            .iter()
            .map(|step| step.get("detail"))
            .collect()
    }

    /// One event, and where its rows stand in the chain: kind, chain, sequence, time and hash, oldest first.
    /// Both of one statement, so that they tell the same.
    pub(crate) async fn event(
        &self,
        id: EventId,
    ) -> Result<Option<(EventRow, Vec<PlaceRow>)>, StoreError> {
        let Some((event, places)) = self.points.look_up(id).await? else {
            return Ok(None);
        };
        let event = serde_json::from_slice(&event).map_err(StoreError::Event)?;
        let places = serde_json::from_slice(&places).map_err(StoreError::Event)?;
        Ok(Some((event, places)))
    }

    /// Up to `limit` events without an outcome behind `after`, oldest first.
    pub(crate) async fn pending(
        &self,
        after: Option<EventId>,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        let query = EventsQuery {
            filter: &Filter {
                outcome: Some(OutcomeFilter::Pending),
                ..Filter::default()
            },
            id_range: (None, None),
            after,
            newest_first: false,
            limit,
        };
        fetch_events(self.look_up().await?.connection(), query.page()).await
    }

    /// Up to `limit` rows of the trail from `sequence` on, in chain order.
    pub(crate) async fn rows(
        &self,
        sequence: i64,
        limit: usize,
    ) -> Result<Vec<StoredRow>, StoreError> {
        select_rows(self.feed().await?.connection(), sequence, limit).await
    }

    /// The last row of the trail up to `sequence`.
    pub(crate) async fn row_up_to(&self, sequence: i64) -> Result<Option<StoredRow>, StoreError> {
        select_row_up_to(self.feed().await?.connection(), sequence).await
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        tokio::join!(
            self.queries.close(),
            self.exports.close(),
            self.feeds.close(),
            self.look_ups.close(),
            self.points.close()
        );
    }
}

async fn pool(
    connections: u32,
    wait: Duration,
    options: &SqliteConnectOptions,
) -> Result<SqlitePool, sqlx::Error> {
    let pool = SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(wait)
        // A file does not hang up; asking it would be a statement more for each read.
        .test_before_acquire(false)
        // A connection that idles keeps its page cache; the next query can open a new one.
        .idle_timeout(Duration::from_mins(1));
    pool.connect_with(options.clone()).await
}
