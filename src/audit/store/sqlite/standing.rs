//! The last event that says how accounts came to have an image, or no longer to have it.

use std::sync::LazyLock;

use sqlx::AssertSqlSafe;

use super::StoreError;
use super::appender::LOOKED_THROUGH_ROWS_MAX;
use super::connections::ReadConnections;
use super::limits::read_failed;
use crate::audit::entry::EARLIER_CALL_OPEN;
use crate::audit::store::{LastRow, OpenRow};
use crate::domain::{AccountId, ImageId, Region, Timestamp};

/// Accounts of one statement, so that each read is short.
const ACCOUNTS_AT_ONCE: usize = 500;

/// One indexed look-up an account: the last event by its id, since outcomes may stand in another order. The index is
/// kept in batches; the rows behind the last one are looked through once for all accounts.
const SELECT_LAST: &str = "WITH tail AS MATERIALIZED (\
         SELECT t.account_id, t.sequence, MAX(t.event_id) AS event_id FROM audit_entries AS t NOT INDEXED \
         WHERE t.sequence > (SELECT sequence FROM audit_indexed) \
         AND t.kind = 'outcome' AND t.outcome IN ('succeeded', 'unknown') \
         AND (t.outcome = 'succeeded' OR NOT ?4) AND t.image_id = ?2 AND t.region = ?3 \
         GROUP BY t.account_id) \
     SELECT a.value AS account_id, o.sequence, o.event_id, o.operation, o.outcome, o.subject, o.recorded_at, f.reason \
     FROM json_each(?1) AS a \
     LEFT JOIN tail AS t ON t.account_id = a.value \
     LEFT JOIN audit_standing AS l ON l.image_id = ?2 AND l.account_id = a.value AND l.region = ?3 AND l.event_id = \
         (SELECT m.event_id FROM audit_standing AS m \
          WHERE m.image_id = ?2 AND m.account_id = a.value AND m.region = ?3 AND (m.outcome = 'succeeded' OR NOT ?4) \
          ORDER BY m.event_id DESC LIMIT 1) \
     CROSS JOIN audit_entries AS o ON o.sequence = \
         CASE WHEN t.event_id > COALESCE(l.event_id, '') THEN t.sequence ELSE l.sequence END \
         AND o.kind = 'outcome' AND o.image_id = ?2 AND o.account_id = a.value AND o.region = ?3 \
         AND o.event_id = MAX(COALESCE(t.event_id, ''), COALESCE(l.event_id, '')) \
     LEFT JOIN audit_entries AS f ON f.event_id = o.event_id AND f.kind = 'intent'";

/// By an index that holds nothing else. What was looked after is noted by the last event that it covers.
static SELECT_OPEN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT o.region, o.image_id, o.account_id, o.operation, o.event_id, o.recorded_at \
         FROM audit_entries AS o INDEXED BY audit_entries_open \
         LEFT JOIN audit_looked_after AS n \
             ON n.region = o.region AND n.image_id = o.image_id AND n.account_id = o.account_id \
         WHERE o.kind = 'outcome' AND (o.outcome = 'unknown' OR o.detail = '{EARLIER_CALL_OPEN}') \
         AND o.sequence > (SELECT COALESCE(MAX(sequence), 0) FROM audit_entries) - ?1 \
         AND o.sequence > COALESCE((SELECT MAX(sequence) FROM audit_looked_after_from), 0) \
         AND o.recorded_at >= ?2 AND o.account_id IS NOT NULL AND o.outcome IN ('unknown', 'succeeded') \
         AND (n.through IS NULL OR o.event_id > n.through)"
    )
});

impl ReadConnections {
    /// For each account that has one, the last event of its share of the image that succeeded or, unless only those
    /// are asked for, is unknown.
    pub(crate) async fn last_changes(
        &self,
        region: &Region,
        image_id: &ImageId,
        accounts: &[AccountId],
        only_succeeded: bool,
    ) -> Result<Vec<LastRow>, StoreError> {
        let mut found = Vec::new();
        for some in accounts.chunks(ACCOUNTS_AT_ONCE) {
            let numbers: Vec<u64> = some.iter().map(|account| account.get()).collect();
            let mut read = self.look_up().await?;
            let rows = sqlx::query_as(SELECT_LAST)
                .bind(serde_json::Value::from(numbers).to_string())
                .bind(image_id.as_str())
                .bind(region.as_str())
                .bind(only_succeeded);
            let rows = rows.fetch_all(read.connection()).await;
            found.extend(rows.map_err(read_failed)?);
        }
        Ok(found)
    }

    /// Changes of which a call may take effect yet, and that nobody looked after: those that are unknown, and those that
    /// succeeded although a call before their last was not answered.
    pub(crate) async fn open_changes(&self, since: Timestamp) -> Result<Vec<OpenRow>, StoreError> {
        let mut read = self.look_up().await?;
        let found = sqlx::query_as(AssertSqlSafe(SELECT_OPEN.as_str()))
            .bind(LOOKED_THROUGH_ROWS_MAX)
            .bind(since.as_micros());
        found
            .fetch_all(read.connection())
            .await
            .map_err(read_failed)
    }

    /// How the database means to find them.
    #[cfg(test)]
    pub(crate) async fn plan_of_last_changes(&self) -> Vec<String> {
        self.plan(SELECT_LAST).await
    }
}
