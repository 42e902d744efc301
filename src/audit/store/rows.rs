//! Walking: the trail row by row in chain order, as it is stored.

use std::fmt;
use std::path::Path;
use std::sync::LazyLock;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor, Row as _, Sqlite, SqliteConnection,
    TypeInfo as _, ValueRef as _,
};

use super::StoreError;
use super::connections::reading;
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

/// The same rows, each packed into one JSON array: a value that is handed over costs more than one that is
/// hashed, and there are 27 a row. JSON keeps numbers and text apart, and text as it is.
static SELECT_PACKED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT json_array({}), hash FROM audit_entries WHERE sequence >= ? ORDER BY sequence LIMIT ?",
        COLUMNS.join(", ")
    )
});

/// A row on a walk along the whole trail.
pub(crate) enum WalkedRow {
    /// In one piece.
    Packed(SqliteRow),
    /// Column by column, where a file that was tampered with holds what JSON cannot.
    Plain(StoredRow),
}

impl WalkedRow {
    /// Gives the hashed columns to `take`, in their order. What cannot be read is given as
    /// [`CellRef::Foreign`], which no hash fits.
    pub(crate) fn cells(&self, mut take: impl FnMut(CellRef<'_>)) -> Result<(), StoreError> {
        match self {
            Self::Plain(row) => {
                for cell in row.cells() {
                    take(cell?);
                }
            }
            Self::Packed(row) => {
                let json: &[u8] = row.try_get_unchecked(0)?;
                let mut reader = serde_json::Deserializer::from_slice(json);
                let mut cells = Cells(&mut take);
                if (&mut reader).deserialize_seq(&mut cells).is_err() {
                    take(CellRef::Foreign);
                }
            }
        }
        Ok(())
    }

    /// The hash that the row claims, where it is text.
    pub(crate) fn claimed_hash(&self) -> Result<Option<&str>, StoreError> {
        let text = match self {
            Self::Packed(row) => row.try_get_unchecked::<Option<&[u8]>, _>(1)?,
            Self::Plain(row) => match row.claimed_hash()? {
                CellRef::Text(text) => Some(text),
                _ => None,
            },
        };
        Ok(text.and_then(|text| std::str::from_utf8(text).ok()))
    }
}

/// Takes the members of a JSON array as cells.
struct Cells<'a, F>(&'a mut F);

impl<'de, F: FnMut(CellRef<'_>)> Visitor<'de> for &mut Cells<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the columns of a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<(), A::Error> {
        while cells.next_element_seed(OneCell(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

struct OneCell<'a, F>(&'a mut F);

impl<'de, F: FnMut(CellRef<'_>)> DeserializeSeed<'de> for OneCell<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<F: FnMut(CellRef<'_>)> Visitor<'_> for OneCell<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, an integer or text")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        (self.0)(CellRef::Null);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        (self.0)(CellRef::Integer(number));
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        let number = i64::try_from(number).map_err(E::custom)?;
        self.visit_i64(number)
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        (self.0)(CellRef::Text(text.as_bytes()));
        Ok(())
    }
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
        // A file that is no trail fails here and not as a broken chain.
        let options = reading(path, "SELECT hash FROM audit_entries LIMIT 0").await;
        let options = options.map_err(|error| open(error.into()))?;
        let connection = options
            .connect()
            .await
            .map_err(|error| open(error.into()))?;
        Ok(Self(connection))
    }

    /// The next rows from `sequence` on; none at the end.
    pub(crate) async fn page(&mut self, sequence: i64) -> Result<Vec<WalkedRow>, StoreError> {
        let packed = sqlx::query(AssertSqlSafe(SELECT_PACKED.as_str()))
            .bind(sequence)
            .bind(i64::try_from(ROWS_AT_ONCE).unwrap_or(i64::MAX));
        if let Ok(rows) = packed.fetch_all(&mut self.0).await {
            return Ok(rows.into_iter().map(WalkedRow::Packed).collect());
        }
        // JSON cannot hold BLOBs: what is wrong is for whoever walks to say.
        let rows = select_rows(&mut self.0, sequence, ROWS_AT_ONCE).await?;
        Ok(rows.into_iter().map(WalkedRow::Plain).collect())
    }
}
