//! The hash chain against whoever owns the file.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;
use crate::audit::chain::Following;

/// Lets somebody who owns the file do what the triggers refuse.
const UNLOCK: &str = "DROP TRIGGER audit_entries_no_update; DROP TRIGGER audit_entries_no_delete; \
     DROP TRIGGER audit_entries_no_replace; \
     DROP INDEX audit_entries_event; ";

#[tokio::test]
async fn verification_names_the_first_broken_row() {
    let attacks = [
        (
            "UPDATE audit_entries SET detail = 'x' WHERE sequence = 4",
            4,
        ),
        (
            "UPDATE audit_entries SET recorded_at = recorded_at + 1 WHERE sequence = 2",
            2,
        ),
        (
            "UPDATE audit_entries SET hash = replace(hash, substr(hash, 1, 1), 'g') WHERE sequence = 3",
            3,
        ),
        (
            "UPDATE audit_entries SET subject = CAST(x'ff' AS TEXT) WHERE sequence = 5",
            5,
        ),
        (
            "UPDATE audit_entries SET chain_id = 'other' WHERE sequence = 6",
            6,
        ),
        ("UPDATE audit_entries SET version = 2 WHERE sequence = 1", 1),
        ("DELETE FROM audit_entries WHERE sequence = 1", 1),
        ("DELETE FROM audit_entries WHERE sequence = 3", 3),
        (
            "UPDATE audit_entries SET sequence = -1 WHERE sequence = 1",
            1,
        ),
        (
            "CREATE TABLE c AS SELECT * FROM audit_entries WHERE sequence = 2; \
             UPDATE c SET sequence = -9223372036854775808; INSERT INTO audit_entries SELECT * FROM c",
            1,
        ),
        (
            "UPDATE audit_entries SET sequence = 100 WHERE sequence = 3; \
             UPDATE audit_entries SET sequence = 3 WHERE sequence = 4; \
             UPDATE audit_entries SET sequence = 4 WHERE sequence = 100",
            3,
        ),
        (
            "CREATE TABLE c AS SELECT * FROM audit_entries WHERE sequence = 2; \
             UPDATE audit_entries SET sequence = sequence + 100 WHERE sequence > 2; \
             UPDATE c SET sequence = 3; INSERT INTO audit_entries SELECT * FROM c; \
             UPDATE audit_entries SET sequence = sequence - 99 WHERE sequence > 100",
            3,
        ),
    ];
    for (attack, first_broken) in attacks {
        let trail = Trail::open().await;
        for number in 0..5 {
            trail.share(number).await;
        }
        trail.sql(&format!("{UNLOCK}{attack}")).await.expect(attack);
        match trail.verify(&[]).await {
            Report::Broken(found) => {
                assert_eq!(found.sequence, first_broken, "{attack}: {}", found.what);
            }
            Report::Intact(head) => panic!("{attack} was not seen: {head:?}"),
        }
    }
}

#[tokio::test]
async fn only_a_noted_head_shows_that_a_tail_was_cut() {
    let trail = Trail::open().await;
    for number in 0..5 {
        trail.share(number).await;
    }
    let Report::Intact(Some(head)) = trail.verify(&[]).await else {
        panic!("intact")
    };
    assert_eq!(head.sequence, 10);
    let noted = head.to_string();
    let short = noted.strip_prefix("main:").expect("of the one chain");
    trail.share(6).await;
    for expected in [noted.as_str(), short] {
        assert!(
            matches!(trail.verify(&[expected]).await, Report::Intact(Some(_))),
            "a chain that grew"
        );
    }
    trail
        .sql(&format!(
            "{UNLOCK} DELETE FROM audit_entries WHERE sequence > 8"
        ))
        .await
        .expect("cuts");
    assert!(
        matches!(trail.verify(&[]).await, Report::Intact(Some(_))),
        "by itself a shorter chain is a chain"
    );
    for expected in [noted.as_str(), short] {
        let Report::Broken(found) = trail.verify(&[expected]).await else {
            panic!("the cut was not seen")
        };
        assert_eq!(found.sequence, 9);
    }
    let other = format!("8:{}", "0".repeat(64));
    let Report::Broken(found) = trail.verify(&[&other]).await else {
        panic!("another hash was not seen")
    };
    assert_eq!(found.sequence, 8);
    let chain = format!("other:8:{}", "0".repeat(64));
    assert!(matches!(trail.verify(&[&chain]).await, Report::Broken(_)));
}

#[tokio::test]
async fn verification_makes_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("none.db");
    assert!(matches!(
        verify(&path, &[]).await,
        Err(StoreError::Open { .. })
    ));
    assert!(!path.exists());
}

proptest! {
    #[test]
    fn heads_read_back(chain in "[A-Za-z0-9-]{1,64}", sequence in 0_i64..i64::MAX, bytes in any::<[u8; 32]>()) {
        let text = format!("{chain}:{sequence}:{}", hex::encode(bytes));
        prop_assert!(text.parse::<Expected>().is_ok(), "{}", text);
        let short = format!("{sequence}:{}", hex::encode(bytes));
        prop_assert!(short.parse::<Expected>().is_ok(), "{}", short);
    }

    #[test]
    fn no_text_makes_the_parser_of_heads_panic(text in "\\PC{0,80}|[a-f0-9:-]{0,90}") {
        let _ = text.parse::<Expected>();
    }
}

#[tokio::test]
async fn a_row_with_what_is_not_hashed_is_broken_whatever_hash_it_claims() {
    let trail = Trail::open().await;
    let recorded = trail.intend(intent(1)).await;
    let columns = columns::COLUMNS.join(", ");
    for subject in ["CAST(x'ff' AS TEXT)", "x'414243'", "1.5"] {
        let forged = format!(
            "PRAGMA writable_schema = ON; \
             UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'audit_entries'; \
             PRAGMA writable_schema = RESET; \
             INSERT INTO audit_entries ({columns}, hash) SELECT version, chain_id, 2, kind, 'forged', recorded_at, \
             {subject}, {}, 'forged' FROM audit_entries WHERE sequence = 1",
            columns::COLUMNS[7..].join(", ")
        );
        let mut connection =
            SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&trail.path))
                .await
                .expect("opens");
        sqlx::raw_sql(AssertSqlSafe(forged))
            .execute(&mut connection)
            .await
            .expect("forges");
        // The hash that a walk would compute if it went on behind the column that it cannot read.
        let row: (i64, String, i64, String, String, i64) = sqlx::query_as(
            "SELECT version, chain_id, sequence, kind, event_id, recorded_at FROM audit_entries WHERE sequence = 2",
        )
        .fetch_one(&mut connection)
        .await
        .expect("is there");
        let mut following = Following::new(recorded.hash);
        following.add(entry::CellRef::Integer(row.0));
        following.add(entry::CellRef::Text(row.1.as_bytes()));
        following.add(entry::CellRef::Integer(row.2));
        following.add(entry::CellRef::Text(row.3.as_bytes()));
        following.add(entry::CellRef::Text(row.4.as_bytes()));
        following.add(entry::CellRef::Integer(row.5));
        following.add(entry::CellRef::Foreign);
        let hash = following.finish();
        let claim = format!(
            "DROP TRIGGER IF EXISTS audit_entries_no_update; DROP TRIGGER IF EXISTS audit_entries_no_delete; \
             UPDATE audit_entries SET hash = '{hash}' WHERE sequence = 2"
        );
        sqlx::raw_sql(AssertSqlSafe(claim))
            .execute(&mut connection)
            .await
            .expect("claims");
        let Report::Broken(found) = trail.verify(&[]).await else {
            panic!("{subject} was not seen")
        };
        assert_eq!(found.sequence, 2, "{subject}: {}", found.what);
        sqlx::raw_sql("DELETE FROM audit_entries WHERE sequence = 2; DELETE FROM audit_pending")
            .execute(&mut connection)
            .await
            .expect("takes back");
        connection.close().await.expect("closes");
    }
}

/// What somebody who owns the file might do to it, once.
#[derive(Debug, Clone)]
enum Tampering {
    /// A bit of one column of one row, or of its absence.
    Flip {
        row: usize,
        column: usize,
        bit: usize,
    },
    /// Two rows change places.
    Swap { one: usize, other: usize },
    /// A row is taken out, and those behind it move up or not.
    Remove { row: usize, close: bool },
    /// A copy of a row is put in somewhere, and those behind it move down.
    Insert { row: usize, at: usize },
    /// The last rows are cut off.
    Cut { keep: usize },
}

fn tampering(rows: usize) -> impl Strategy<Value = Tampering> {
    let (row, columns) = (0..rows, columns::COLUMNS.len() + 1);
    prop_oneof![
        12 => (row.clone(), 0..columns, any::<usize>())
            .prop_map(|(row, column, bit)| Tampering::Flip { row, column, bit }),
        2 => (row.clone(), row.clone()).prop_filter_map("two rows", |(one, other)| {
            (one != other).then_some(Tampering::Swap { one, other })
        }),
        2 => (row.clone(), any::<bool>()).prop_map(|(row, close)| Tampering::Remove { row, close }),
        2 => (row.clone(), row.clone()).prop_map(|(row, at)| Tampering::Insert { row, at }),
        1 => row.prop_map(|keep| Tampering::Cut { keep }),
    ]
}

/// A trail that anything can be done to, and done again.
struct Victim {
    _directory: tempfile::TempDir,
    path: PathBuf,
    head: Expected,
    rows: usize,
    connection: SqliteConnection,
}

impl Victim {
    async fn new() -> Self {
        let trail = Trail::open().await;
        for number in 0..9 {
            trail.share(number).await;
        }
        trail.intend(intent(9)).await;
        let denied = trail.writer.enqueue_denial(denial(10)).expect("room");
        denied.await.expect("durable");
        let (directory, path, head) = trail.close().await;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Off);
        let mut connection = SqliteConnection::connect_with(&options)
            .await
            .expect("opens");
        // A table of the same name that takes anything anywhere.
        let columns = columns::COLUMNS
            .join(", ")
            .replace("sequence", "sequence INTEGER PRIMARY KEY");
        let loose = format!(
            "DROP VIEW audit_log; DROP TRIGGER audit_entries_no_update; DROP TRIGGER audit_entries_no_delete; \
             DROP TRIGGER audit_entries_no_replace; \
             ALTER TABLE audit_entries RENAME TO pristine; \
             CREATE TABLE audit_entries ({columns}, hash); \
             INSERT INTO audit_entries SELECT * FROM pristine"
        );
        run(&mut connection, &loose).await.expect("loosens");
        Self {
            _directory: directory,
            path,
            rows: usize::try_from(head.sequence).expect("few"),
            head: head.to_string().parse().expect("a head"),
            connection,
        }
    }

    /// Does it. Returns `false` where the table refuses it, or it changes nothing.
    async fn tamper(&mut self, tampering: &Tampering) -> bool {
        let statement = match tampering {
            Tampering::Flip { row, column, bit } => {
                let Some(statement) = self.flip(*row, *column, *bit).await else {
                    return false;
                };
                statement
            }
            Tampering::Swap { one, other } => format!(
                "UPDATE audit_entries SET sequence = 1000 WHERE sequence = {a}; \
                 UPDATE audit_entries SET sequence = {a} WHERE sequence = {b}; \
                 UPDATE audit_entries SET sequence = {b} WHERE sequence = 1000",
                a = one + 1,
                b = other + 1
            ),
            Tampering::Remove { row, close } => {
                let remove = format!("DELETE FROM audit_entries WHERE sequence = {}", row + 1);
                if *close {
                    format!("{remove}; {}", shift(*row, -1))
                } else {
                    remove
                }
            }
            Tampering::Insert { row, at } => format!(
                "CREATE TEMP TABLE copy AS SELECT * FROM audit_entries WHERE sequence = {}; {}; \
                 UPDATE copy SET sequence = {}; INSERT INTO audit_entries SELECT * FROM copy; DROP TABLE copy",
                row + 1,
                shift(*at, 1),
                at + 1
            ),
            Tampering::Cut { keep } => {
                format!("DELETE FROM audit_entries WHERE sequence > {keep}")
            }
        };
        run(&mut self.connection, &statement).await.is_ok() && self.differs().await
    }

    /// The statement that flips a bit: of a number, of a text's bytes, or of whether there is a value.
    async fn flip(&mut self, row: usize, column: usize, bit: usize) -> Option<String> {
        let name = columns::COLUMNS.get(column).copied().unwrap_or("hash");
        let look = format!(
            "SELECT typeof({name}), hex(CAST({name} AS BLOB)), CAST({name} AS INTEGER) \
             FROM audit_entries WHERE sequence = {}",
            row + 1
        );
        let (kind, hex, number): (String, String, Option<i64>) =
            sqlx::query_as(AssertSqlSafe(look))
                .fetch_one(&mut self.connection)
                .await
                .expect("looks");
        let mut bytes = hex::decode(hex).expect("hex");
        let value = match (kind.as_str(), bit % 9) {
            // The same in other types; a BLOB that reads as JSON of the same value among them.
            (_, 0) => {
                let forms = [
                    "NULL",
                    "CAST({} AS BLOB)",
                    "jsonb(json_quote({}))",
                    "CAST({} AS TEXT)",
                    "{} + 0.0",
                ];
                forms[bit / 9 % forms.len()].replace("{}", name)
            }
            ("integer", _) => (number? ^ (1 << (bit % 64))).to_string(),
            ("text", _) if !bytes.is_empty() => {
                let index = bit / 8 % bytes.len();
                bytes[index] ^= 1 << (bit % 8);
                format!("CAST(x'{}' AS TEXT)", hex::encode(bytes))
            }
            ("null", at) => ["0", "''", "x''", "x'00'"][at % 4].to_owned(),
            _ => "'x'".to_owned(),
        };
        Some(format!(
            "UPDATE audit_entries SET {name} = {value} WHERE sequence = {}",
            row + 1
        ))
    }

    async fn differs(&mut self) -> bool {
        // `quote` tells types apart, which comparisons of numbers do not.
        let quoted: Vec<String> = columns::COLUMNS
            .iter()
            .map(|name| format!("quote({name})"))
            .collect();
        let quoted = format!("{}, quote(hash)", quoted.join(", "));
        let differ = format!(
            "SELECT EXISTS (SELECT {quoted} FROM audit_entries EXCEPT SELECT {quoted} FROM pristine) \
             OR (SELECT COUNT(*) FROM audit_entries) <> (SELECT COUNT(*) FROM pristine)"
        );
        sqlx::query_scalar(AssertSqlSafe(differ))
            .fetch_one(&mut self.connection)
            .await
            .expect("compares")
    }

    async fn restore(&mut self) {
        let restore = "DELETE FROM audit_entries; INSERT INTO audit_entries SELECT * FROM pristine";
        run(&mut self.connection, restore).await.expect("restores");
    }

    async fn verify(&self) -> Report {
        let expected = std::slice::from_ref(&self.head);
        verify(&self.path, expected).await.expect("looks")
    }
}

/// Moves the rows from the one of this index on, in an order that never meets another row.
fn shift(row: usize, by: i64) -> String {
    format!(
        "UPDATE audit_entries SET sequence = sequence + 10000 WHERE sequence > {row}; \
         UPDATE audit_entries SET sequence = sequence - 10000 + ({by}) WHERE sequence > 10000"
    )
}

async fn run(connection: &mut SqliteConnection, statement: &str) -> Result<(), sqlx::Error> {
    let statement = sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {statement}; COMMIT")));
    let done = statement.execute(&mut *connection).await;
    if done.is_err() {
        let _ = sqlx::raw_sql("ROLLBACK").execute(connection).await;
    }
    done.map(|_| ())
}

#[test]
fn every_single_change_to_a_trail_is_found() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut victim = runtime.block_on(Victim::new());
    assert_eq!(victim.rows, 20);
    assert!(matches!(
        runtime.block_on(victim.verify()),
        Report::Intact(Some(_))
    ));
    // Of what is drawn, some is refused by the table or changes nothing; the rest must reach 10,000.
    let (mut made, mut kinds) = (0, [0; 5]);
    let mut runner = proptest::test_runner::TestRunner::default();
    let strategy = tampering(victim.rows);
    while made < 10_000 {
        let tampering = strategy.new_tree(&mut runner).expect("draws").current();
        if runtime.block_on(victim.tamper(&tampering)) {
            made += 1;
            kinds[match tampering {
                Tampering::Flip { .. } => 0,
                Tampering::Swap { .. } => 1,
                Tampering::Remove { .. } => 2,
                Tampering::Insert { .. } => 3,
                Tampering::Cut { .. } => 4,
            }] += 1;
            let report = runtime.block_on(victim.verify());
            assert!(
                matches!(report, Report::Broken(_)),
                "{tampering:?} was not seen: {report:?}"
            );
        }
        runtime.block_on(victim.restore());
    }
    assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
}
