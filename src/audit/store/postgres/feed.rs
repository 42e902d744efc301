//! Rows as they are written, chain by chain.

use std::sync::LazyLock;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, FromRow, Row as _, ValueRef as _};

use super::StoreError;
use super::columns::type_of;
use super::connections::ReadConnections;
use crate::audit::columns::{COLUMNS, Column};
use crate::audit::entry::CellRef;

/// Chains among which the last rows are looked for.
const LATEST_CHAINS: i64 = 64;

/// The columns, ids as text: what is hashed.
static SELECTED: LazyLock<String> = LazyLock::new(|| {
    let selected = |column: &Column| match type_of(*column) {
        "uuid" => format!("e.{0}::text AS {0}", column.name()),
        _ => format!("e.{}", column.name()),
    };
    let columns: Vec<String> = Column::ALL.iter().map(selected).collect();
    columns.join(", ")
});

static SELECT_ROWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, e.hash FROM audit_entries AS e WHERE e.chain_id = $1 AND e.sequence >= $2 ORDER BY e.sequence LIMIT ",
        *SELECTED
    )
});

/// A chain as a feed follows it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(in crate::audit) struct ChainHead {
    pub(in crate::audit) number: i64,
    pub(in crate::audit) chain_id: String,
    pub(in crate::audit) head_sequence: i64,
    /// Whether it has ended, long enough ago that every chain before it is known.
    pub(in crate::audit) over: bool,
}

/// A row among the last that were written.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(in crate::audit) struct ChainRow {
    pub(in crate::audit) number: i64,
    pub(in crate::audit) sequence: i64,
    pub(in crate::audit) recorded_at: i64,
}

/// A row of the trail as the database holds it.
#[derive(Debug)]
pub(in crate::audit) struct FeedRow(PgRow);

impl FeedRow {
    /// One of the hashed columns, or the hash behind them.
    pub(in crate::audit) fn cell(&self, index: usize) -> Result<CellRef<'_>, StoreError> {
        let value = self.0.try_get_raw(index)?;
        if value.is_null() {
            return Ok(CellRef::Null);
        }
        let is_number = Column::ALL
            .get(index)
            .is_some_and(|column| type_of(*column) == "bigint");
        Ok(if is_number {
            CellRef::Integer(self.0.try_get_unchecked(index)?)
        } else {
            CellRef::Text(self.0.try_get_unchecked::<&str, _>(index)?.as_bytes())
        })
    }

    /// The hash that the row claims.
    pub(in crate::audit) fn claimed_hash(&self) -> Result<CellRef<'_>, StoreError> {
        self.cell(COLUMNS.len())
    }
}

impl ReadConnections {
    /// The chains behind this number, and those of these numbers.
    pub(in crate::audit) async fn chain_heads(
        &self,
        behind: i64,
        open: &[i64],
    ) -> Result<Vec<ChainHead>, StoreError> {
        let heads = "SELECT number, chain_id, head_sequence, \
            COALESCE(ended_at < clock_timestamp() - interval '1 minute', FALSE) AS over \
            FROM audit_chains WHERE number > $1 OR number = ANY ($2)";
        self.feed(async |connection| {
            sqlx::query_as(heads)
                .bind(behind)
                .bind(open)
                .fetch_all(connection)
                .await
        })
        .await
    }

    /// Up to `limit` rows of a chain from `sequence` on.
    pub(in crate::audit) async fn rows_of(
        &self,
        chain_id: &str,
        sequence: i64,
        limit: usize,
    ) -> Result<Vec<FeedRow>, StoreError> {
        let select = format!("{}{limit}", *SELECT_ROWS);
        let rows = self
            .feed(async |connection| {
                let rows = sqlx::query(AssertSqlSafe(select))
                    .bind(chain_id)
                    .bind(sequence);
                rows.fetch_all(connection).await
            })
            .await?;
        Ok(rows.into_iter().map(FeedRow).collect())
    }

    /// The last rows over all chains, this many at most.
    pub(in crate::audit) async fn last_rows(
        &self,
        limit: usize,
    ) -> Result<Vec<ChainRow>, StoreError> {
        let last = format!(
            "SELECT c.number, e.sequence, e.recorded_at \
             FROM (SELECT * FROM audit_chains ORDER BY heartbeat_at DESC LIMIT {LATEST_CHAINS}) AS c \
             CROSS JOIN LATERAL (SELECT sequence, recorded_at FROM audit_entries \
                 WHERE chain_id = c.chain_id AND sequence <= c.head_sequence ORDER BY sequence DESC LIMIT {limit}) AS e \
             ORDER BY e.recorded_at DESC, c.number DESC, e.sequence DESC LIMIT {limit}"
        );
        self.feed(async |connection| {
            // Not kept: there are as many as there are lengths.
            let last = sqlx::query_as(AssertSqlSafe(last)).persistent(false);
            last.fetch_all(connection).await
        })
        .await
    }
}
