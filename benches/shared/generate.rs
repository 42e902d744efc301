//! Makes trails of any size: the product's own schema and an encoding and hash of the bench's own, so that
//! `audit verify` checks the one against the other.

use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};

/// 2025-01-01, in microseconds: a year before any gateway of this version, which takes no trail of the future.
pub(crate) const BEGIN: i64 = 1_735_689_600_000_000;
/// Between two events, so that 10^7 of them fill most of a year.
pub(crate) const STEP: i64 = 3_000_000;
/// Events whose intents go into one commit, and then their outcomes: what 32 callers make.
const GROUP_EVENTS: u64 = 32;
/// Events of one transaction of the generator.
const TRANSACTION_EVENTS: u64 = 32 * 2000;
/// One event in so many is inserted into indexes that are there: one that is sorted in one go has full pages,
/// which each later insert would split.
const GROWN_SHARE: u64 = 10;
/// Rows of one INSERT.
const INSERT_ROWS: usize = 64;

const COLUMNS: [&str; 28] = [
    "version",
    "chain_id",
    "sequence",
    "kind",
    "event_id",
    "recorded_at",
    "subject",
    "issuer",
    "token_id",
    "client_ip",
    "user_agent",
    "request_id",
    "trace_id",
    "operation",
    "image_id",
    "account_id",
    "region",
    "reason",
    "expires_at",
    "policy_ids",
    "outcome",
    "http_status",
    "upstream_ret_code",
    "upstream_request_id",
    "upstream_calls",
    "duration_ms",
    "detail",
    "hash",
];

/// What a change is about, spread as in a busy company: 200 teams, 2000 images, 5000 accounts, and of each ten
/// that every fifth change is about, so that they fill pages in small trails too.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) team: String,
    pub(crate) image_id: String,
    pub(crate) account_id: u64,
    pub(crate) shares: bool,
    pub(crate) request_id: String,
    pub(crate) reason: Option<String>,
    luck: u64,
}

pub(crate) fn team(number: u64) -> String {
    format!("team-{number:03}")
}

pub(crate) fn image_id(number: u64) -> String {
    format!("compshareImage-{number:012x}")
}

pub(crate) fn account_id(number: u64) -> u64 {
    1_000_000 + number
}

/// Mixes a number into bits that look random (splitmix64).
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Facts {
    pub(crate) fn of(event: u64) -> Self {
        let (one, other) = (mix(event), mix(event ^ 0x5bd1_e995_0000_0000));
        let among = |bits: u64, all: u64| {
            let hot = bits.is_multiple_of(5);
            (bits >> 4) % if hot { 10 } else { all }
        };
        Self {
            team: team(among(one, 200)),
            image_id: image_id(among(one >> 20, 2000)),
            account_id: account_id(among(one >> 40, 5000)),
            shares: other % 5 != 0,
            request_id: uuid::Builder::from_random_bytes(
                (u128::from(one) << 64 | u128::from(other)).to_be_bytes(),
            )
            .into_uuid()
            .to_string(),
            reason: (other % 3 == 0).then(|| format!("OPS-{}: new tenant", other % 100_000)),
            luck: (other >> 32) % 50,
        }
    }

    pub(crate) fn outcome(&self) -> (&'static str, i64, Option<i64>) {
        match self.luck {
            0 => ("denied", 403, None),
            1 => ("invalid_account", 422, Some(0)),
            2 => ("failed", 502, Some(230)),
            3 => ("unknown", 504, None),
            _ => ("succeeded", 200, Some(0)),
        }
    }
}

#[derive(Debug, Clone)]
enum Value {
    Null,
    Integer(i64),
    Text(String),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

struct Chain {
    sequence: i64,
    hash: [u8; 32],
}

impl Chain {
    fn seal(&mut self, event: u64, kind: &str) -> Vec<Value> {
        self.sequence += 1;
        let facts = Facts::of(event);
        let (outcome, status, ret_code) = facts.outcome();
        let at = BEGIN + i64::try_from(event).unwrap() * STEP;
        let first = kind != "outcome";
        let ended = kind != "intent";
        let mut row: Vec<Value> = vec![
            1.into(),
            "main".into(),
            self.sequence.into(),
            kind.into(),
            event_id(event).as_str().into(),
            (at + if first { 310 } else { 60_310 }).into(),
            facts.team.as_str().into(),
            first.then_some("https://login.example.com").into(),
            first
                .then(|| format!("{:016x}", mix(event >> 6)))
                .as_deref()
                .into(),
            first.then_some("10.20.30.40").into(),
            first
                .then_some("Mozilla/5.0 (X11; Linux x86_64) image-tool/3.1")
                .into(),
            facts.request_id.as_str().into(),
            Value::Null,
            (if facts.shares { "share" } else { "unshare" }).into(),
            facts.image_id.as_str().into(),
            i64::try_from(facts.account_id).unwrap().into(),
            "cn-wlcb".into(),
            facts.reason.as_deref().filter(|_| first).into(),
            Value::Null,
            first.then_some("[]").into(),
            ended.then_some(outcome).into(),
            ended.then_some(status).into(),
            ret_code.filter(|_| ended).into(),
            (ended && outcome != "denied")
                .then_some("4f2a6c1e-0000-4000-8000-000000000001")
                .into(),
            ended.then_some(i64::from(outcome != "denied")).into(),
            ended.then_some(60).into(),
            (kind == "denial")
                .then_some("the token lacks the scope shares:write")
                .into(),
        ];
        let mut hasher = Sha256::new();
        hasher.update(self.hash);
        for value in &row {
            match value {
                Value::Null => hasher.update([0]),
                Value::Integer(number) => {
                    hasher.update([1]);
                    hasher.update(number.to_be_bytes());
                }
                Value::Text(text) => {
                    hasher.update([2]);
                    hasher.update((text.len() as u64).to_be_bytes());
                    hasher.update(text);
                }
            }
        }
        self.hash = hasher.finalize().into();
        row.push(hex::encode(self.hash).as_str().into());
        row
    }
}

/// The id of the event of this number.
pub(crate) fn event_id(event: u64) -> String {
    let millis = (BEGIN + i64::try_from(event).unwrap() * STEP) / 1000;
    let mut bits = [0; 10];
    bits[2..].copy_from_slice(&mix(event).to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap(), &bits)
        .into_uuid()
        .to_string()
}

/// The trail of this many events; made where an earlier run did not leave it.
pub(crate) async fn trail(directory: &Path, events: u64) -> PathBuf {
    let path = directory.join(format!("{events}.db"));
    let partial = directory.join(format!("{events}.partial"));
    if path.exists() && has_present_schema(&path).await {
        return path;
    }
    for suffix in ["", "-wal", "-shm", ".head"] {
        let _ = std::fs::remove_file(directory.join(format!("{events}.db{suffix}")));
        let _ = std::fs::remove_file(directory.join(format!("{events}.partial{suffix}")));
    }
    let options = SqliteConnectOptions::new()
        .filename(&partial)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off)
        .pragma("cache_size", "-200000");
    let mut connection = options.connect().await.unwrap();
    sqlx::migrate!("migrations/sqlite")
        .run(&mut connection)
        .await
        .unwrap();
    // Sorting an index once is fast, and triggers hold what this program does not do.
    let parts: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name IN ('audit_entries', 'audit_filters') \
         AND type IN ('index', 'trigger') AND sql IS NOT NULL",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for (kind, name, _) in &parts {
        run(&mut connection, &format!("DROP {kind} {name}")).await;
    }
    let made = |what: fn(&str, &str) -> bool| {
        let parts = parts.iter().filter(move |(kind, name, _)| what(kind, name));
        parts.map(|(_, _, sql)| sql.as_str())
    };
    let mut chain = Chain {
        sequence: 0,
        hash: [0; 32],
    };
    let sorted = events - events / GROWN_SHARE;
    insert(&mut connection, &mut chain, 0..sorted).await;
    for sql in made(|kind, name| kind == "index" && name.starts_with("audit_entries_")) {
        run(&mut connection, sql).await;
    }
    let add = "UPDATE audit_indexed SET sequence = (SELECT MAX(sequence) FROM audit_entries)";
    run(&mut connection, add).await;
    for sql in made(|kind, name| kind == "index" && name.starts_with("audit_filters_")) {
        run(&mut connection, sql).await;
    }
    insert(&mut connection, &mut chain, sorted..events).await;
    run(&mut connection, add).await;
    for sql in made(|kind, _| kind == "trigger") {
        run(&mut connection, sql).await;
    }
    run(&mut connection, "PRAGMA journal_mode = WAL").await;
    connection.close().await.unwrap();
    std::fs::rename(&partial, &path).unwrap();
    path
}

async fn has_present_schema(path: &Path) -> bool {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap();
    let checked = sqlx::migrate!("migrations/sqlite")
        .run(&mut connection)
        .await
        .is_ok();
    connection.close().await.unwrap();
    checked
}

async fn run(connection: &mut SqliteConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

async fn insert(connection: &mut SqliteConnection, chain: &mut Chain, events: Range<u64>) {
    let text = |rows: usize| {
        let row = format!("({})", vec!["?"; COLUMNS.len()].join(","));
        let (columns, rows) = (COLUMNS.join(", "), vec![row; rows].join(","));
        format!("INSERT INTO audit_entries ({columns}) VALUES {rows}")
    };
    let (many, one) = (text(INSERT_ROWS), text(1));
    for begin in events
        .clone()
        .step_by(usize::try_from(TRANSACTION_EVENTS).unwrap())
    {
        let mut transaction = connection.begin().await.unwrap();
        let mut rows = Vec::new();
        let end = events.end.min(begin + TRANSACTION_EVENTS);
        for group in (begin..end).step_by(usize::try_from(GROUP_EVENTS).unwrap()) {
            let group = group..end.min(group + GROUP_EVENTS);
            let denied = |event: u64| Facts::of(event).outcome().0 == "denied";
            for event in group.clone() {
                let kind = if denied(event) { "denial" } else { "intent" };
                rows.push(chain.seal(event, kind));
            }
            for event in group.filter(|event| !denied(*event)) {
                rows.push(chain.seal(event, "outcome"));
            }
        }
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let size = if rest.len() >= INSERT_ROWS {
                INSERT_ROWS
            } else {
                1
            };
            let statement = if size == 1 { &one } else { &many };
            let (some, after) = rest.split_at(size);
            let mut insert = sqlx::query(AssertSqlSafe(statement.as_str()));
            for value in some.iter().flatten() {
                insert = match value {
                    Value::Null => insert.bind(None::<i64>),
                    Value::Integer(number) => insert.bind(*number),
                    Value::Text(text) => insert.bind(text.as_str()),
                };
            }
            insert.execute(&mut *transaction).await.unwrap();
            rest = after;
        }
        transaction.commit().await.unwrap();
    }
}
