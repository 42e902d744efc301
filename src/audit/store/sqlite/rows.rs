//! Walking: the trail row by row in chain order, as it is stored.

use std::path::Path;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor, Row as _, Sqlite, SqliteConnection,
    TypeInfo as _, ValueRef as _,
};

use super::StoreError;
use super::reading::{ROWS_AT_ONCE, check_there, reading};
use crate::audit::columns::COLUMNS;
use crate::audit::entry::{CHAIN_ID, CellRef};
use crate::audit::store::walk::{Chain, Noted};

static SELECT_ROWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, hash FROM audit_entries WHERE sequence >= ? ORDER BY sequence LIMIT ?",
        COLUMNS.join(", ")
    )
});

static SELECT_ROW_UP_TO: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, hash FROM audit_entries WHERE sequence <= ? ORDER BY sequence DESC LIMIT 1",
        COLUMNS.join(", ")
    )
});

/// A row of the trail as the file holds it.
#[derive(Debug)]
pub(crate) struct StoredRow(SqliteRow);

impl StoredRow {
    /// One of the hashed columns.
    pub(crate) fn cell(&self, index: usize) -> Result<CellRef<'_>, StoreError> {
        cell(&self.0, index)
    }

    /// The hash that the row claims.
    pub(crate) fn claimed_hash(&self) -> Result<CellRef<'_>, StoreError> {
        self.cell(COLUMNS.len())
    }
}

/// A value as it is stored.
fn cell(row: &SqliteRow, index: usize) -> Result<CellRef<'_>, StoreError> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(CellRef::Null);
    }
    let kind = value.type_info();
    Ok(match kind.name() {
        "INTEGER" => CellRef::Integer(row.try_get_unchecked(index)?),
        "TEXT" => CellRef::Text(row.try_get_unchecked(index)?),
        // The table is STRICT: only a file that was written to by other means holds anything else.
        _ => CellRef::Foreign,
    })
}

/// The last row up to `sequence`, where there is one.
pub(super) async fn select_row_up_to(
    executor: impl Executor<'_, Database = Sqlite>,
    sequence: i64,
) -> Result<Option<StoredRow>, StoreError> {
    let query = sqlx::query(AssertSqlSafe(SELECT_ROW_UP_TO.as_str())).bind(sequence);
    Ok(query.fetch_optional(executor).await?.map(StoredRow))
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

/// The same rows, each packed into one JSON array: a value that is handed over costs more than one that is
/// hashed, and there are 27 a row. JSON keeps null, numbers and text apart, and text as it is, but takes a BLOB
/// for JSON of another form. So a row with a BLOB in it, which sorts behind every text, comes as null.
static SELECT_PACKED: LazyLock<String> = LazyLock::new(|| {
    let all = COLUMNS.iter().copied().chain(["hash"]);
    let blobs: Vec<String> = all.map(|column| format!("{column} >= x''")).collect();
    format!(
        "SELECT sequence, CASE WHEN {} THEN NULL ELSE json_array({}) END, hash FROM audit_entries \
         WHERE sequence >= ? ORDER BY sequence LIMIT ?",
        blobs.join(" OR "),
        COLUMNS.join(", ")
    )
});

/// A row on a walk along the whole trail.
pub(crate) struct PackedRow(SqliteRow);

impl PackedRow {
    /// The row's place in the chain, as it claims; `None` where it is no integer.
    pub(crate) fn sequence(&self) -> Result<Option<i64>, StoreError> {
        match cell(&self.0, 0)? {
            CellRef::Integer(sequence) => Ok(Some(sequence)),
            _ => Ok(None),
        }
    }

    /// Its hashed columns as one JSON array; `None` where one of them is a BLOB.
    pub(crate) fn json(&self) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.0.try_get_unchecked(1)?)
    }

    /// The hash that the row claims, where it is text.
    pub(crate) fn claimed_hash(&self) -> Result<Option<&str>, StoreError> {
        match cell(&self.0, 2)? {
            CellRef::Text(text) => Ok(std::str::from_utf8(text).ok()),
            _ => Ok(None),
        }
    }
}

/// The chain of a trail in a file, which knows of it by its rows alone.
pub(in crate::audit::store) fn chain() -> Chain {
    Chain {
        chain_id: CHAIN_ID.into(),
        noted: Noted::Nowhere,
    }
}

/// One connection that reads the trail row by row in chain order, a page at a time.
pub(crate) struct RowReader {
    connection: SqliteConnection,
    /// The first sequence of the next page; `None` where none can follow.
    from: Option<i64>,
}

impl RowReader {
    /// Opens the trail for reading; fails where there is none.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        check_there(path).await?;
        let open = |error| StoreError::open(path, error);
        // A file that is no trail fails here and not as a broken chain.
        let options = reading(path, "SELECT hash FROM audit_entries LIMIT 0").await;
        let connection = options.map_err(open)?.connect().await.map_err(open)?;
        Ok(Self {
            connection,
            from: Some(i64::MIN),
        })
    }

    /// The last sequence that there is now; none in a trail without rows.
    pub(crate) async fn last_sequence(&mut self) -> Result<Option<i64>, StoreError> {
        let last = sqlx::query_scalar("SELECT MAX(sequence) FROM audit_entries");
        Ok(last.fetch_one(&mut self.connection).await?)
    }

    /// From below the first sequence that the gateway gives, so that a row slipped in before it is seen.
    pub(crate) fn begin(&mut self) {
        self.from = Some(i64::MIN);
    }

    /// The next rows; none at the end.
    pub(crate) async fn page(&mut self) -> Result<Vec<PackedRow>, StoreError> {
        let Some(from) = self.from else {
            return Ok(Vec::new());
        };
        let packed = sqlx::query(AssertSqlSafe(SELECT_PACKED.as_str()))
            .bind(from)
            .bind(i64::try_from(ROWS_AT_ONCE).unwrap_or(i64::MAX));
        let rows = packed.fetch_all(&mut self.connection).await?;
        let rows: Vec<PackedRow> = rows.into_iter().map(PackedRow).collect();
        let last = rows.last().map(PackedRow::sequence).transpose()?.flatten();
        self.from = last.and_then(|last| last.checked_add(1));
        Ok(rows)
    }
}
