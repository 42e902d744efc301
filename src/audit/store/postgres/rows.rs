//! Walking a trail in PostgreSQL, a chain at a time.

use std::sync::LazyLock;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, FromRow};

use super::{StoreError, UNBOUNDED, connect, refused};
use crate::audit::columns::COLUMNS;
use crate::audit::store::walk::{Chain, Noted};
use crate::config::ServerUrl;

/// Rows of one page.
const ROWS_AT_ONCE: i64 = 512;

/// The next rows of a chain, each packed into one JSON array. Nothing but the hashes keeps a chain from having two rows of
/// one sequence, so the place on a walk is more than that.
static SELECT_PACKED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT sequence, json_build_array({})::text AS json, COALESCE(hash, '') AS hash, event_id::text AS event_id, kind \
         FROM audit_entries \
         WHERE chain_id = $1 AND sequence >= $2 AND (sequence, event_id, kind) > ($2, $3::uuid, $4) \
         ORDER BY sequence, audit_entries.event_id, kind LIMIT $5",
        COLUMNS.join(", ")
    )
});

/// The chains that there are rows of, and those that the database knows of beside its rows. By the index, from one chain to
/// the next.
const SELECT_CHAINS: &str = "WITH RECURSIVE found (chain_id) AS (\
         SELECT MIN(chain_id) FROM audit_entries \
         UNION ALL \
         SELECT (SELECT MIN(e.chain_id) FROM audit_entries AS e WHERE e.chain_id > f.chain_id) \
         FROM found AS f WHERE f.chain_id IS NOT NULL) \
     SELECT COALESCE(f.chain_id, c.chain_id), c.head_sequence, c.head_hash, c.ended_at IS NOT NULL \
     FROM (SELECT chain_id FROM found WHERE chain_id IS NOT NULL) AS f \
     FULL JOIN audit_chains AS c ON c.chain_id = f.chain_id ORDER BY 1";

/// A row on a walk along a chain.
#[derive(FromRow)]
pub(crate) struct PackedRow {
    pub(crate) sequence: i64,
    pub(crate) json: String,
    pub(crate) hash: String,
    event_id: String,
    kind: String,
}

/// Behind which row the next page begins.
struct Place {
    chain_id: String,
    sequence: i64,
    event_id: String,
    kind: String,
}

impl Place {
    /// Before every row.
    fn before(chain_id: &str) -> Self {
        Self {
            chain_id: chain_id.to_owned(),
            sequence: i64::MIN,
            event_id: uuid::Uuid::nil().to_string(),
            kind: String::new(),
        }
    }
}

/// A connection of its own, or that of an import under way.
enum Reading<'a> {
    Alone(PgConnection),
    Import(&'a mut PgConnection),
}

impl Reading<'_> {
    fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Alone(connection) => connection,
            Self::Import(connection) => connection,
        }
    }
}

/// One connection that reads the trail chain by chain, a page at a time.
pub(crate) struct RowReader<'a> {
    reading: Reading<'a>,
    place: Place,
}

impl<'a> RowReader<'a> {
    /// Opens the trail for reading; fails where there is none.
    pub(crate) async fn open(url: &ServerUrl) -> Result<Self, StoreError> {
        let mut connection = connect(url, "walk", UNBOUNDED).await?;
        let look = sqlx::query("SELECT hash FROM audit_entries LIMIT 0");
        let looked = look.execute(&mut connection).await;
        looked.map_err(|error| refused(url, error))?;
        // All of the walk sees one moment.
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        sqlx::query(begin).execute(&mut connection).await?;
        Ok(Self {
            reading: Reading::Alone(connection),
            place: Place::before(""),
        })
    }

    /// Reads what an import has added so far.
    pub(super) fn of_import(connection: &'a mut PgConnection) -> Self {
        Self {
            reading: Reading::Import(connection),
            place: Place::before(""),
        }
    }

    /// How many rows were committed, over all chains.
    pub(crate) async fn committed(&mut self) -> Result<Option<i64>, StoreError> {
        let sum = "SELECT LEAST(SUM(head_sequence), 9223372036854775807)::bigint FROM audit_chains";
        let sum = sqlx::query_scalar(sum).fetch_one(self.reading.connection());
        Ok(sum.await?)
    }

    /// The chains, by name.
    pub(crate) async fn chains(&mut self) -> Result<Vec<Chain>, StoreError> {
        let chains = sqlx::query_as(SELECT_CHAINS).fetch_all(self.reading.connection());
        let chains: Vec<(String, Option<i64>, Option<String>, bool)> = chains.await?;
        let chain = |(chain_id, sequence, hash, ended): (_, Option<_>, Option<_>, _)| Chain {
            chain_id,
            noted: match sequence.zip(hash) {
                Some((sequence, hash)) => Noted::Head {
                    sequence,
                    hash,
                    ended,
                },
                None => Noted::Missing,
            },
        };
        Ok(chains.into_iter().map(chain).collect())
    }

    /// How many rows there are: one without a place stands in no chain, and twins of one place are met once.
    pub(crate) async fn count(&mut self) -> Result<u64, StoreError> {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM audit_entries");
        let count: i64 = count.fetch_one(self.reading.connection()).await?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Begins with the first row of a chain.
    pub(crate) fn begin(&mut self, chain_id: &str) {
        self.place = Place::before(chain_id);
    }

    /// The next rows of the chain; none at its end.
    pub(crate) async fn page(&mut self) -> Result<Vec<PackedRow>, StoreError> {
        let rows = sqlx::query_as(AssertSqlSafe(SELECT_PACKED.as_str()))
            .bind(&self.place.chain_id)
            .bind(self.place.sequence)
            .bind(&self.place.event_id)
            .bind(&self.place.kind)
            .bind(ROWS_AT_ONCE);
        let rows: Vec<PackedRow> = rows.fetch_all(self.reading.connection()).await?;
        if let Some(last) = rows.last() {
            self.place.sequence = last.sequence;
            self.place.event_id.clone_from(&last.event_id);
            self.place.kind.clone_from(&last.kind);
        }
        Ok(rows)
    }
}
