//! A row of a change, as large as one of the trail's, for whoever writes some without the gateway.

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use super::callers::ACCOUNTS_PER_CALLER;
use super::process::ISSUER;

/// A table of such rows without an index, a trigger or a check.
pub(crate) const TABLE: &str = "CREATE TABLE audit_entries (version INTEGER, chain_id TEXT, sequence INTEGER PRIMARY KEY, \
    kind TEXT, event_id TEXT, recorded_at INTEGER, subject TEXT, issuer TEXT, token_id TEXT, client_ip TEXT, user_agent TEXT, \
    request_id TEXT, operation TEXT, image_id TEXT, account_id INTEGER, region TEXT, policy_ids TEXT, outcome TEXT, \
    http_status INTEGER, upstream_ret_code INTEGER, upstream_request_id TEXT, upstream_calls INTEGER, duration_ms INTEGER, \
    hash TEXT)";

const COLUMNS: &str = "version, chain_id, sequence, kind, event_id, recorded_at, subject, issuer, token_id, client_ip, \
    user_agent, request_id, operation, image_id, account_id, region, policy_ids, outcome, http_status, upstream_ret_code, \
    upstream_request_id, upstream_calls, duration_ms, hash";
const COLUMNS_COUNT: usize = 24;

/// The statement that inserts so many.
pub(crate) fn statement(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS_COUNT].join(","));
    let rows = vec![row; rows].join(",");
    format!("INSERT INTO audit_entries ({COLUMNS}) VALUES {rows}")
}

/// An intent or an outcome.
pub(crate) struct Row {
    /// Where it stands; the database's own choice where there is none.
    sequence: Option<i64>,
    is_intent: bool,
    event_id: String,
    account_id: i64,
}

impl Row {
    pub(crate) fn intent(event_id: &str, account_id: u64) -> Self {
        Self {
            sequence: None,
            is_intent: true,
            event_id: event_id.to_owned(),
            account_id: account_id.try_into().unwrap(),
        }
    }

    pub(crate) fn outcome(event_id: &str, account_id: u64) -> Self {
        Self {
            is_intent: false,
            ..Self::intent(event_id, account_id)
        }
    }

    /// The same at a place of the chain.
    pub(crate) fn at(self, sequence: i64) -> Self {
        Self {
            sequence: Some(sequence),
            ..self
        }
    }

    pub(crate) async fn insert(&self, connection: &mut SqliteConnection) {
        let text = statement(1);
        let query = self.bind(sqlx::query(AssertSqlSafe(text)));
        query.execute(connection).await.unwrap();
    }

    pub(crate) fn bind<'q>(
        &self,
        query: Query<'q, Sqlite, SqliteArguments>,
    ) -> Query<'q, Sqlite, SqliteArguments> {
        let (of_intent, of_outcome) = (self.is_intent, !self.is_intent);
        let text = |there: bool, text: &'static str| there.then_some(text);
        let number = |number: i64| of_outcome.then_some(number);
        let caller = u64::try_from(self.account_id).unwrap() / ACCOUNTS_PER_CALLER;
        query
            .bind(1_i64)
            .bind("main")
            .bind(self.sequence)
            .bind(if of_intent { "intent" } else { "outcome" })
            .bind(self.event_id.clone())
            .bind(1_800_000_000_000_000_i64 + self.account_id)
            .bind(format!("team-{caller}"))
            .bind(text(of_intent, ISSUER))
            .bind(text(of_intent, "2c0f6a51-5a0b-4a55-9b0e-0c6f3a1d2b77"))
            .bind(text(of_intent, "127.0.0.1"))
            .bind(None::<&str>)
            .bind(uuid::Uuid::new_v4().to_string())
            .bind("share")
            .bind(format!("bench-{caller}"))
            .bind(self.account_id)
            .bind("cn-wlcb")
            .bind(text(of_intent, "[]"))
            .bind(text(of_outcome, "succeeded"))
            .bind(number(200))
            .bind(number(0))
            .bind(text(of_outcome, "4f2a6c1e-0000-4000-8000-000000000001"))
            .bind(number(1))
            .bind(number(7))
            .bind("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
    }
}
