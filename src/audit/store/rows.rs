//! Walking: the trail row by row in chain order, as it is stored.

use std::path::Path;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection, TypeInfo as _, ValueRef as _,
};

use super::StoreError;
use super::appender::options;
use crate::audit::entry::{COLUMNS, Cell};

static SELECT_ROWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, hash FROM audit_entries WHERE sequence >= ? ORDER BY sequence LIMIT ?",
        COLUMNS.join(", ")
    )
});

/// One connection that reads the trail row by row in chain order, a page at a time.
pub(crate) struct RowReader(SqliteConnection);

impl RowReader {
    /// Opens the trail for reading; fails where there is none.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.into(),
            source,
        };
        let options = options(path).create_if_missing(false).read_only(true);
        let mut connection = options
            .connect()
            .await
            .map_err(|error| open(error.into()))?;
        // A file that is no trail fails here and not as a broken chain.
        let look = sqlx::query(AssertSqlSafe(SELECT_ROWS.as_str()))
            .bind(0)
            .bind(1);
        look.fetch_optional(&mut connection)
            .await
            .map_err(|error| open(error.into()))?;
        Ok(Self(connection))
    }

    /// Up to `limit` rows from `sequence` on: their cells, and the hash that they claim.
    pub(crate) async fn page(
        &mut self,
        sequence: i64,
        limit: i64,
    ) -> Result<Vec<(Vec<Cell>, Cell)>, StoreError> {
        let query = sqlx::query(AssertSqlSafe(SELECT_ROWS.as_str()))
            .bind(sequence)
            .bind(limit);
        let rows = query.fetch_all(&mut self.0).await?;
        rows.iter()
            .map(|row| Ok((cells(row)?, cell(row, COLUMNS.len())?)))
            .collect()
    }
}

fn cells(row: &SqliteRow) -> Result<Vec<Cell>, StoreError> {
    (0..COLUMNS.len()).map(|index| cell(row, index)).collect()
}

/// The value as it is stored; types other than the table's own become text that no hash fits.
fn cell(row: &SqliteRow, index: usize) -> Result<Cell, StoreError> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let kind = value.type_info();
    Ok(match kind.name() {
        "INTEGER" => Cell::Integer(row.try_get_unchecked(index)?),
        "TEXT" => Cell::Text(row.try_get_unchecked(index)?),
        other => Cell::Text(format!("a value of type {other}").into_bytes()),
    })
}
