//! The last event that says how accounts came to have an image, or no longer to have it.

use sqlx::FromRow;

use super::StoreError;
use super::connections::ReadConnections;
use crate::domain::{AccountId, ImageId, Region, Timestamp};

/// Accounts of one statement, so that each read is short.
const ACCOUNTS_AT_ONCE: usize = 500;

/// One indexed look-up an account: the last event by its id, since outcomes may stand in another order.
const SELECT_LAST: &str = "SELECT a.value AS account_id, o.sequence, o.event_id, o.operation, o.outcome, o.subject, \
     o.recorded_at, f.reason \
     FROM json_each(?1) AS a \
     CROSS JOIN audit_entries AS o ON o.sequence = \
         (SELECT l.sequence FROM audit_entries AS l INDEXED BY audit_entries_standing \
          WHERE l.kind = 'outcome' AND l.outcome IN ('succeeded', 'unknown') \
          AND l.image_id = ?2 AND l.account_id = a.value AND l.region = ?3 \
          ORDER BY l.event_id DESC LIMIT 1) \
     LEFT JOIN audit_entries AS f ON f.event_id = o.event_id AND f.kind = 'intent'";

/// Along the end of the trail, row by row: there is no index for what is asked once a start.
const SELECT_RETRIED: &str = "SELECT DISTINCT region, image_id, account_id FROM audit_entries \
     WHERE sequence > (SELECT COALESCE(MAX(sequence), 0) FROM audit_entries) - ?1 AND recorded_at >= ?2 \
     AND kind = 'outcome' AND operation = 'share' AND outcome = 'succeeded' AND upstream_calls > 1 \
     AND account_id IS NOT NULL";

/// The outcome of such an event, with the reason of its intent.
#[derive(Debug, FromRow)]
pub(crate) struct LastRow {
    pub(crate) account_id: i64,
    pub(crate) sequence: i64,
    pub(crate) event_id: String,
    pub(crate) operation: String,
    pub(crate) outcome: String,
    pub(crate) subject: String,
    pub(crate) recorded_at: i64,
    pub(crate) reason: Option<String>,
}

impl ReadConnections {
    /// For each account that has one, the last event of its share of the image that succeeded or is unknown.
    pub(crate) async fn last_changes(
        &self,
        region: &Region,
        image_id: &ImageId,
        accounts: &[AccountId],
    ) -> Result<Vec<LastRow>, StoreError> {
        let mut found = Vec::new();
        for some in accounts.chunks(ACCOUNTS_AT_ONCE) {
            let numbers: Vec<u64> = some.iter().map(|account| account.get()).collect();
            let rows = sqlx::query_as(SELECT_LAST)
                .bind(serde_json::Value::from(numbers).to_string())
                .bind(image_id.as_str())
                .bind(region.as_str());
            found.extend(rows.fetch_all(&self.0).await?);
        }
        Ok(found)
    }

    /// Region, image and account of shares that succeeded by a call after the first.
    pub(crate) async fn retried_shares(
        &self,
        since: Timestamp,
        rows: i64,
    ) -> Result<Vec<(String, String, i64)>, StoreError> {
        let found = sqlx::query_as(SELECT_RETRIED)
            .bind(rows)
            .bind(since.as_micros());
        Ok(found.fetch_all(&self.0).await?)
    }

    /// How the database means to find them.
    #[cfg(test)]
    pub(crate) async fn plan_of_last_changes(&self) -> Vec<String> {
        self.plan(SELECT_LAST).await
    }
}
