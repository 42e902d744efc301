//! Filling an empty database with the rows of another trail, in one transaction: all of them are there, or none.

use std::sync::LazyLock;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::columns::type_of;
use super::{StoreError, UNBOUNDED, close, connect, migrate, refused, refused_as};
use crate::audit::chain::Head;
use crate::audit::columns::{COLUMNS, Column};
use crate::audit::store::walk::{PackedRow, RowReader};
use crate::config::ServerUrl;

/// Rows come as one JSON array of arrays, the hash behind the columns.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    let cast = |(index, column): (usize, Column)| format!("(e->>{index})::{}", type_of(column));
    let values: Vec<String> = Column::ALL.into_iter().enumerate().map(cast).collect();
    format!(
        "INSERT INTO audit_entries ({}, hash) SELECT {}, e->>{} FROM json_array_elements($1::json) AS e",
        COLUMNS.join(", "),
        values.join(", "),
        COLUMNS.len()
    )
});

/// The partitions that rows need which are about to come.
static MAKE_PARTITIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT COUNT(audit_make_partition(id)) FROM (SELECT DISTINCT ON (audit_id_at(date_trunc('month', audit_id_time(id), 'UTC'))) id \
         FROM (SELECT (e->>{})::uuid AS id FROM json_array_elements($1::json) AS e) AS ids) AS months",
        Column::EventId as usize
    )
});

/// An import under way. Nothing of it is there until it is committed.
pub(in crate::audit) struct Import {
    connection: PgConnection,
    url: ServerUrl,
}

impl Import {
    /// Makes the schema where there is none, and sees to it that nobody else writes.
    pub(in crate::audit) async fn begin(url: &ServerUrl) -> Result<Self, StoreError> {
        let mut connection = connect(url, "import", UNBOUNDED).await?;
        migrate(url, &mut connection).await?;
        let run = async |connection: &mut PgConnection, statement| {
            let done = sqlx::query(statement).execute(connection).await;
            done.map_err(|error| refused(url, error))
        };
        run(&mut connection, "BEGIN").await?;
        run(
            &mut connection,
            "LOCK TABLE audit_chains, audit_entries IN SHARE ROW EXCLUSIVE MODE",
        )
        .await?;
        let is_empty = "SELECT NOT EXISTS (SELECT 1 FROM audit_entries) AND NOT EXISTS (SELECT 1 FROM audit_chains)";
        let is_empty = sqlx::query_scalar(is_empty).fetch_one(&mut connection);
        if is_empty.await.map_err(|error| refused(url, error))? {
            Ok(Self {
                connection,
                url: url.clone(),
            })
        } else {
            Err(StoreError::NotEmpty {
                database: url.to_string(),
            })
        }
    }

    /// Adds rows as they are.
    pub(in crate::audit) async fn add(&mut self, rows: &[PackedRow]) -> Result<(), StoreError> {
        let mut json = Vec::with_capacity(rows.len() * 1024);
        for row in rows {
            json.push(if json.is_empty() { b'[' } else { b',' });
            let columns = row.json()?.and_then(|columns| columns.strip_suffix(b"]"));
            let (Some(columns), Some(hash)) = (columns, row.claimed_hash()?) else {
                return Err(StoreError::Row {
                    sequence: row.sequence()?.unwrap_or_default(),
                    column: "any",
                });
            };
            json.extend_from_slice(columns);
            json.extend_from_slice(b",\"");
            json.extend_from_slice(hash.as_bytes());
            json.extend_from_slice(b"\"]");
        }
        json.push(b']');
        let json = String::from_utf8(json).map_err(|error| refused_as(&self.url, error))?;
        for statement in [MAKE_PARTITIONS.as_str(), INSERT.as_str()] {
            let added = sqlx::query(AssertSqlSafe(statement)).bind(&json);
            let added = added.execute(&mut self.connection).await;
            added.map_err(|error| refused(&self.url, error))?;
        }
        Ok(())
    }

    /// What is there so far, to be walked.
    pub(in crate::audit) fn rows(&mut self) -> RowReader<'_> {
        RowReader::Server(super::RowReader::of_import(&mut self.connection))
    }

    /// Notes the chain's end, behind which nobody appends any more, and what is pending.
    pub(in crate::audit) async fn end(&mut self, head: &Head) -> Result<(), StoreError> {
        let connection = &mut self.connection;
        let chain = "INSERT INTO audit_chains (chain_id, head_sequence, head_hash, ended_at, last_event) \
                     VALUES ($1, $2, $3, clock_timestamp(), (SELECT event_id FROM audit_entries \
                         WHERE kind IN ('intent', 'denial') ORDER BY event_id DESC LIMIT 1))";
        let chain = sqlx::query(chain)
            .bind(&head.chain_id)
            .bind(head.sequence)
            .bind(head.hash.to_string());
        chain.execute(&mut *connection).await?;
        let pending = "INSERT INTO audit_pending (event_id, chain_id) SELECT f.event_id, f.chain_id FROM audit_entries AS f \
                       WHERE f.kind = 'intent' AND NOT EXISTS (SELECT 1 FROM audit_entries AS o \
                       WHERE o.event_id = f.event_id AND o.kind = 'outcome')";
        sqlx::query(pending).execute(&mut *connection).await?;
        // Without it the walk's pages would be planned as if there were next to nothing.
        sqlx::query("ANALYZE audit_entries")
            .execute(&mut *connection)
            .await?;
        sqlx::query("ANALYZE audit_pending")
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Makes everything durable.
    pub(in crate::audit) async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        close(self.connection).await;
        Ok(())
    }
}
