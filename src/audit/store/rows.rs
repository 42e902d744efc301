//! Walking: the trail row by row in chain order, as it is stored.

use std::path::Path;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor, Row as _, Sqlite, SqliteConnection,
    TypeInfo as _, ValueRef as _,
};

use super::StoreError;
use super::appender::options;
use crate::audit::entry::{COLUMNS, CellRef};

/// Rows that a connection may read ahead of whoever takes them: a page, so that the next page is read while
/// this one is looked at.
pub(super) const ROWS_AT_ONCE: usize = 512;

static SELECT_ROWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, hash FROM audit_entries WHERE sequence >= ? ORDER BY sequence LIMIT ?",
        COLUMNS.join(", ")
    )
});

/// A row of the trail as the file holds it.
pub(crate) struct StoredRow(SqliteRow);

impl StoredRow {
    /// The hashed columns, in their order.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Result<CellRef<'_>, StoreError>> {
        (0..COLUMNS.len()).map(|index| self.cell(index))
    }

    /// One of the hashed columns.
    pub(crate) fn cell(&self, index: usize) -> Result<CellRef<'_>, StoreError> {
        let value = self.0.try_get_raw(index)?;
        if value.is_null() {
            return Ok(CellRef::Null);
        }
        let kind = value.type_info();
        Ok(match kind.name() {
            "INTEGER" => CellRef::Integer(self.0.try_get_unchecked(index)?),
            "TEXT" => CellRef::Text(self.0.try_get_unchecked(index)?),
            // The table is STRICT: only a file that was written to by other means holds anything else.
            _ => CellRef::Foreign,
        })
    }

    /// The hash that the row claims.
    pub(crate) fn claimed_hash(&self) -> Result<CellRef<'_>, StoreError> {
        self.cell(COLUMNS.len())
    }
}

/// Up to `limit` rows from `sequence` on.
pub(super) async fn select_rows(
    executor: impl Executor<'_, Database = Sqlite>,
    sequence: i64,
    limit: usize,
) -> Result<Vec<StoredRow>, StoreError> {
    let query = sqlx::query(AssertSqlSafe(SELECT_ROWS.as_str()))
        .bind(sequence)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = query.fetch_all(executor).await?;
    Ok(rows.into_iter().map(StoredRow).collect())
}

/// One connection that reads the trail row by row in chain order, a page at a time.
pub(crate) struct RowReader(SqliteConnection);

impl RowReader {
    /// Opens the trail for reading; fails where there is none.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.into(),
            source,
        };
        let options = options(path)
            .create_if_missing(false)
            .read_only(true)
            .row_buffer_size(ROWS_AT_ONCE);
        let mut connection = options
            .connect()
            .await
            .map_err(|error| open(error.into()))?;
        // A file that is no trail fails here and not as a broken chain.
        select_rows(&mut connection, 0, 1)
            .await
            .map_err(|error| open(error.into()))?;
        Ok(Self(connection))
    }

    /// The next rows from `sequence` on; none at the end.
    pub(crate) async fn page(&mut self, sequence: i64) -> Result<Vec<StoredRow>, StoreError> {
        select_rows(&mut self.0, sequence, ROWS_AT_ONCE).await
    }
}
