//! The last event that says how accounts came to have an image, or no longer to have it.

use std::sync::LazyLock;

use sqlx::AssertSqlSafe;

use super::StoreError;
use super::connections::ReadConnections;
use crate::audit::entry::EARLIER_CALL_OPEN;
use crate::audit::store::{LastRow, OpenRow};
use crate::domain::{AccountId, ImageId, Region, Timestamp};

/// Accounts of one statement, so that each read is short.
const ACCOUNTS_AT_ONCE: usize = 500;
/// Most rows that are looked through for changes that may take effect late.
const LOOKED_THROUGH_ROWS_MAX: i64 = 100_000;

/// One indexed look-up an account: the last event by its id.
const SELECT_LAST: &str = "SELECT a.account_id, o.sequence, o.event_id::text AS event_id, o.operation, o.outcome, o.subject, o.recorded_at, \
        f.reason \
     FROM unnest($1::bigint[]) AS a (account_id) \
     CROSS JOIN LATERAL (\
         SELECT * FROM audit_entries AS m \
         WHERE m.kind = 'outcome' AND m.outcome IN ('succeeded', 'unknown') AND (m.outcome = 'succeeded' OR NOT $4) \
             AND m.image_id = $2 AND m.account_id = a.account_id AND m.region = $3 \
         ORDER BY m.event_id DESC LIMIT 1) AS o \
     LEFT JOIN audit_entries AS f ON f.event_id = o.event_id AND f.kind = 'intent'";

/// By an index that holds nothing else. What was looked after is noted by the last event that it covers.
static SELECT_OPEN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT o.region, o.image_id, o.account_id, o.operation, o.event_id::text, o.recorded_at \
         FROM audit_entries AS o LEFT JOIN audit_looked_after AS n \
             ON n.region = o.region AND n.image_id = o.image_id AND n.account_id = o.account_id \
         WHERE o.kind = 'outcome' AND (o.outcome = 'unknown' OR o.detail = '{EARLIER_CALL_OPEN}') \
         AND o.recorded_at >= $1 AND o.account_id IS NOT NULL AND o.outcome IN ('unknown', 'succeeded') \
         AND ($2::text IS NULL OR (o.region = $2 AND o.image_id = $3)) \
         AND (n.through IS NULL OR o.event_id > n.through) ORDER BY o.recorded_at DESC LIMIT {LOOKED_THROUGH_ROWS_MAX}"
    )
});

impl ReadConnections {
    /// For each account that has one, the last event of its share of the image that succeeded or, unless only those
    /// are asked for, is unknown.
    pub(in crate::audit) async fn last_changes(
        &self,
        region: &Region,
        image_id: &ImageId,
        accounts: &[AccountId],
        only_succeeded: bool,
    ) -> Result<Vec<LastRow>, StoreError> {
        let mut found = Vec::new();
        for some in accounts.chunks(ACCOUNTS_AT_ONCE) {
            let number = |account: &AccountId| i64::try_from(account.get()).unwrap_or(i64::MAX);
            let numbers: Vec<i64> = some.iter().map(number).collect();
            let rows: Vec<LastRow> = self
                .look_up(async |connection| {
                    let rows = sqlx::query_as(SELECT_LAST)
                        .bind(numbers)
                        .bind(image_id.as_str())
                        .bind(region.as_str())
                        .bind(only_succeeded);
                    rows.fetch_all(connection).await
                })
                .await?;
            found.extend(rows);
        }
        Ok(found)
    }

    /// Changes of which a call may take effect yet, and that nobody looked after, of one image or of all: those that are
    /// unknown, and those that succeeded although a call before their last was not answered.
    pub(in crate::audit) async fn open_changes(
        &self,
        since: Timestamp,
        image: Option<(&Region, &ImageId)>,
    ) -> Result<Vec<OpenRow>, StoreError> {
        self.look_up(async |connection| {
            let found = sqlx::query_as(AssertSqlSafe(SELECT_OPEN.as_str()))
                .bind(since.as_micros())
                .bind(image.map(|(region, _)| region.as_str()))
                .bind(image.map(|(_, image_id)| image_id.as_str()));
            found.fetch_all(connection).await
        })
        .await
    }

    /// Changes of an image that have no outcome.
    pub(in crate::audit) async fn pending_of(
        &self,
        region: &Region,
        image_id: &ImageId,
    ) -> Result<Vec<OpenRow>, StoreError> {
        let pending = "SELECT f.region, f.image_id, f.account_id, f.operation, f.event_id::text, NULL::bigint \
            FROM audit_pending AS p JOIN audit_entries AS f ON f.event_id = p.event_id AND f.kind = 'intent' \
            WHERE f.region = $1 AND f.image_id = $2 AND f.account_id IS NOT NULL";
        self.look_up(async |connection| {
            let pending = sqlx::query_as(pending)
                .bind(region.as_str())
                .bind(image_id.as_str());
            pending.fetch_all(connection).await
        })
        .await
    }

    /// Whether a gateway that lives is about to write the outcome of a change of an image.
    pub(in crate::audit) async fn is_being_settled(
        &self,
        region: &Region,
        image_id: &ImageId,
    ) -> Result<bool, StoreError> {
        // Those that another took over end as unknown.
        let settled = "SELECT EXISTS (SELECT 1 FROM audit_pending AS p \
            JOIN audit_entries AS f ON f.event_id = p.event_id AND f.kind = 'intent' \
            JOIN audit_chains AS c ON c.chain_id = p.chain_id AND c.ended_at IS NULL \
            WHERE f.region = $1 AND f.image_id = $2 AND NOT p.adopted)";
        self.look_up(async |connection| {
            let settled = sqlx::query_scalar(settled)
                .bind(region.as_str())
                .bind(image_id.as_str());
            settled.fetch_one(connection).await
        })
        .await
    }
}
