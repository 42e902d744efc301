//! Walking: the trail row by row, chain by chain, as it is stored, whichever engine holds it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::{StoreError, postgres, sqlite};
use crate::audit::columns::COLUMNS;
use crate::audit::entry::CellRef;
use crate::config::TrailPlace;

/// A chain that a trail holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) chain_id: String,
    pub(crate) noted: Noted,
}

/// What a database knows of a chain's end beside its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noted {
    /// It notes none.
    Nowhere,
    /// It notes those of others.
    Missing,
    /// The row that was committed last, and whether none may follow.
    Head {
        sequence: i64,
        hash: String,
        ended: bool,
    },
}

/// One connection that reads the trail row by row in chain order, a page at a time.
pub(crate) enum RowReader<'a> {
    File(sqlite::RowReader),
    Server(postgres::RowReader<'a>),
}

impl RowReader<'_> {
    /// Opens the trail for reading; fails where there is none.
    pub(crate) async fn open(place: &TrailPlace) -> Result<Self, StoreError> {
        Ok(match place {
            TrailPlace::File(path) => Self::File(sqlite::RowReader::open(path).await?),
            TrailPlace::Server(url) => Self::Server(postgres::RowReader::open(url).await?),
        })
    }

    /// How many rows there are now, as far as that is known without counting.
    pub(crate) async fn rows(&mut self) -> Result<Option<u64>, StoreError> {
        let rows = match self {
            Self::File(rows) => rows.last_sequence().await?,
            Self::Server(rows) => rows.committed().await?,
        };
        Ok(rows.and_then(|rows| u64::try_from(rows).ok()))
    }

    /// How many rows there are, whatever place they claim; `None` where the walk itself shows that.
    pub(crate) async fn count(&mut self) -> Result<Option<u64>, StoreError> {
        match self {
            Self::File(_) => Ok(None),
            Self::Server(rows) => rows.count().await.map(Some),
        }
    }

    /// The chains, by name.
    pub(crate) async fn chains(&mut self) -> Result<Vec<Chain>, StoreError> {
        match self {
            Self::File(_) => Ok(vec![sqlite::chain()]),
            Self::Server(rows) => rows.chains().await,
        }
    }

    /// Begins with the first row of a chain.
    pub(crate) fn begin(&mut self, chain_id: &str) {
        match self {
            Self::File(rows) => rows.begin(),
            Self::Server(rows) => rows.begin(chain_id),
        }
    }

    /// The next rows of the chain; none at its end.
    pub(crate) async fn page(&mut self) -> Result<Vec<PackedRow>, StoreError> {
        match self {
            Self::File(rows) => {
                let rows = rows.page().await?;
                Ok(rows.into_iter().map(PackedRow::File).collect())
            }
            Self::Server(rows) => {
                let rows = rows.page().await?;
                Ok(rows.into_iter().map(PackedRow::Server).collect())
            }
        }
    }
}

/// A row on a walk along a whole chain: its columns as one JSON array.
pub(crate) enum PackedRow {
    File(sqlite::PackedRow),
    Server(postgres::PackedRow),
}

impl PackedRow {
    /// The row's place in the chain, as it claims; `None` where it is no integer.
    pub(crate) fn sequence(&self) -> Result<Option<i64>, StoreError> {
        match self {
            Self::File(row) => row.sequence(),
            Self::Server(row) => Ok(Some(row.sequence)),
        }
    }

    /// Its hashed columns, in their order; `None` where they hold what the gateway never writes.
    pub(crate) fn json(&self) -> Result<Option<&[u8]>, StoreError> {
        match self {
            Self::File(row) => row.json(),
            Self::Server(row) => Ok(Some(row.json.as_bytes())),
        }
    }

    /// The hash that the row claims, where it is text.
    pub(crate) fn claimed_hash(&self) -> Result<Option<&str>, StoreError> {
        match self {
            Self::File(row) => row.claimed_hash(),
            Self::Server(row) => Ok(Some(&row.hash)),
        }
    }

    /// Gives the hashed columns to `take`, in their order. What the gateway never writes is given as
    /// [`CellRef::Foreign`], and what stands behind it may be left out.
    pub(crate) fn cells(&self, mut take: impl FnMut(CellRef<'_>)) -> Result<(), StoreError> {
        let mut cells = JsonCells {
            take: &mut take,
            count: 0,
        };
        let mut reader = serde_json::Deserializer::from_slice(self.json()?.unwrap_or_default());
        let read = (&mut reader).deserialize_seq(&mut cells);
        let whole = read.and_then(|()| reader.end()).is_ok() && cells.count == COLUMNS.len();
        if !whole {
            take(CellRef::Foreign);
        }
        Ok(())
    }
}

/// Takes the members of a JSON array as cells.
struct JsonCells<'a, F> {
    take: &'a mut F,
    count: usize,
}

impl<'de, F: FnMut(CellRef<'_>)> Visitor<'de> for &mut JsonCells<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the columns of a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<(), A::Error> {
        while cells.next_element_seed(OneCell(&mut *self.take))?.is_some() {
            self.count += 1;
        }
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
