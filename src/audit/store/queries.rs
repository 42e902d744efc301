//! Looking: events by filter and page, over connections that only read.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{FromRow, QueryBuilder, Sqlite, SqlitePool};

use crate::domain::EventId;

use super::StoreError;
use super::appender::{BUSY_TIMEOUT, options};
use crate::audit::event::{Filter, OutcomeFilter};

const READ_CONNECTIONS_MAX: u32 = 4;

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
        use sqlx::{AssertSqlSafe, Row as _};
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
