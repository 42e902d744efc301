//! A group of rows, column by column, and the one statement that appends it.

use std::sync::{Arc, LazyLock};

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::columns::type_of;
use crate::audit::chain::{Hash, Sealed, Tip};
use crate::audit::columns::{COLUMNS, Column};
use crate::audit::entry::{Cell, DENIAL, INTENT};
use crate::domain::EventId;

/// Parameters before those of the columns.
const OWN: usize = 8;

/// One statement a group: the head moves, pending intents are noted and struck off, and rows are inserted, or nothing is done.
static APPEND: LazyLock<String> = LazyLock::new(|| {
    let array = |(index, column)| format!("${}::{}[]", OWN + 1 + index, type_of(column));
    let arrays: Vec<String> = Column::ALL.into_iter().enumerate().map(array).collect();
    let columns = COLUMNS.join(", ");
    format!(
        "WITH moved AS (\
             UPDATE audit_chains SET head_sequence = $3, head_hash = $4, heartbeat_at = clock_timestamp(), \
                 last_event = GREATEST(last_event, $5::uuid), floor_event = GREATEST(floor_event, $8::uuid) \
             WHERE chain_id = $1 AND head_sequence = $2 AND ended_at IS NULL \
                 AND (floor_event IS NULL OR $6::uuid IS NULL OR floor_event < $6::uuid) \
             RETURNING chain_id), \
         begun AS (\
             INSERT INTO audit_pending (event_id, chain_id) \
             SELECT r.event_id, moved.chain_id FROM moved, unnest(${event_id}::uuid[], ${kind}::text[]) AS r (event_id, kind) \
             WHERE r.kind = '{INTENT}'), \
         over AS (\
             DELETE FROM audit_pending WHERE event_id = ANY ($7::uuid[]) AND EXISTS (SELECT 1 FROM moved)) \
         INSERT INTO audit_entries ({columns}, hash) \
         SELECT r.* FROM moved, unnest({arrays}, ${hash}::text[]) AS r ({columns}, hash)",
        event_id = OWN + 1 + Column::EventId as usize,
        kind = OWN + 1 + Column::Kind as usize,
        arrays = arrays.join(", "),
        hash = OWN + 1 + COLUMNS.len(),
    )
});

/// One column of a group.
#[derive(Debug)]
enum Values {
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Ids(Vec<Uuid>),
}

impl Values {
    fn of(column: Column) -> Self {
        match type_of(column) {
            "bigint" => Self::Integers(Vec::new()),
            "uuid" => Self::Ids(Vec::new()),
            _ => Self::Texts(Vec::new()),
        }
    }

    fn push(&mut self, cell: &Cell<'_>, event_id: EventId) {
        match (self, cell) {
            (Self::Ids(ids), _) => ids.push(event_id.as_uuid()),
            (Self::Integers(numbers), Cell::Integer(number)) => numbers.push(Some(*number)),
            (Self::Integers(numbers), _) => numbers.push(None),
            (Self::Texts(texts), Cell::Text(text)) => texts.push(Some(text.clone().into_owned())),
            (Self::Texts(texts), Cell::Shared(text)) => texts.push(Some(text.to_string())),
            (Self::Texts(texts), _) => texts.push(None),
        }
    }
}

/// Rows on their way into the database, column by column.
#[derive(Debug)]
pub(in crate::audit) struct Group {
    chain_id: Arc<str>,
    /// Where the chain ended before them, and does with them.
    before: i64,
    sequence: i64,
    hash: Hash,
    columns: Vec<Values>,
    hashes: Vec<String>,
    /// The least and the greatest id that they are the first rows of.
    first_event: Option<Uuid>,
    last_event: Option<Uuid>,
    /// Events that end with them.
    over: Vec<Uuid>,
    /// Ids behind them are greater.
    floor: Option<Uuid>,
}

impl Group {
    /// Rows that follow the end of a chain.
    pub(in crate::audit) fn behind(tip: &Tip) -> Self {
        Self {
            chain_id: Arc::clone(tip.chain_id()),
            before: tip.sequence(),
            sequence: tip.sequence(),
            hash: Hash::GENESIS,
            columns: Column::ALL.map(Values::of).into(),
            hashes: Vec::new(),
            first_event: None,
            last_event: None,
            over: Vec::new(),
            floor: None,
        }
    }

    /// They are all: where the chain ends with them.
    pub(in crate::audit) fn end_at(&mut self, tip: &Tip) {
        self.floor = tip.last_event().map(EventId::as_uuid);
    }

    /// Takes the next.
    pub(in crate::audit) fn push(&mut self, row: &Sealed<'_>) {
        let event_id = row.place.event_id;
        for (values, cell) in self.columns.iter_mut().zip(&row.cells) {
            values.push(cell, event_id);
        }
        self.hashes.push(row.hash.to_string());
        (self.sequence, self.hash) = (row.place.sequence, row.hash);
        match &row.cells[Column::Kind as usize] {
            Cell::Text(kind) if kind == INTENT || kind == DENIAL => {
                let id = event_id.as_uuid();
                self.first_event.get_or_insert(id);
                self.last_event = Some(id);
            }
            _ => self.over.push(event_id.as_uuid()),
        }
    }

    pub(super) fn chain_id(&self) -> &str {
        &self.chain_id
    }

    /// Where the chain ends before them.
    pub(super) fn before(&self) -> i64 {
        self.before
    }

    /// Whether they come next in a chain that ends here.
    pub(super) fn follows(&self, tip: &Tip) -> bool {
        *tip.chain_id() == self.chain_id && tip.sequence() == self.before
    }

    /// Where the chain ends once they are on disk.
    pub(super) fn landed(&self) -> Tip {
        let last_event = self.last_event.map(EventId::new);
        Tip::new(
            Arc::clone(&self.chain_id),
            self.sequence,
            self.hash,
            last_event,
        )
    }

    /// Their events' ids.
    pub(super) fn ids(&self) -> &[Uuid] {
        match self.columns.get(Column::EventId as usize) {
            Some(Values::Ids(ids)) => ids,
            _ => &[],
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.hashes.len() as u64
    }

    /// Appends them; how many rows there are of them then.
    pub(super) async fn run(&self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let mut statement = sqlx::query(AssertSqlSafe(APPEND.as_str()))
            .bind(&*self.chain_id)
            .bind(self.before)
            .bind(self.sequence)
            .bind(self.hash.to_string())
            .bind(self.last_event)
            .bind(self.first_event)
            .bind(&self.over)
            .bind(self.floor);
        for values in &self.columns {
            statement = match values {
                Values::Integers(numbers) => statement.bind(numbers),
                Values::Texts(texts) => statement.bind(texts),
                Values::Ids(ids) => statement.bind(ids),
            };
        }
        let done = statement.bind(&self.hashes).execute(connection).await?;
        Ok(done.rows_affected())
    }
}
