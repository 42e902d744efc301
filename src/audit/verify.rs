//! Walks the chain in constant memory and says where it first breaks.

use std::path::Path;
use std::str::FromStr;

use super::chain::{Following, Hash, Head};
use super::entry::{CHAIN_ID, CellRef};
use super::progress::{Progress, ProgressUnit, TellProgress};
use super::store::{PackedRow, RowReader, StoreError};

/// A head that was noted earlier, `[CHAIN:]SEQUENCE:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    chain_id: Option<String>,
    sequence: i64,
    hash: Hash,
}

/// The text is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be [CHAIN:]SEQUENCE:HASH, the hash as 64 digits of lower-case hex")]
pub struct InvalidExpected;

impl FromStr for Expected {
    type Err = InvalidExpected;

    fn from_str(text: &str) -> Result<Self, InvalidExpected> {
        let parts: Vec<&str> = text.split(':').collect();
        let (chain_id, sequence, hash) = match parts[..] {
            [sequence, hash] => (None, sequence, hash),
            [chain_id, sequence, hash] => (Some(chain_id.to_owned()), sequence, hash),
            _ => return Err(InvalidExpected),
        };
        let named = |chain: &String| {
            (1..=64).contains(&chain.len())
                && chain
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let sequence = sequence
            .parse::<i64>()
            .ok()
            .filter(|sequence| *sequence >= 0);
        match (chain_id.as_ref().is_none_or(named), sequence, hash.parse()) {
            (true, Some(sequence), Ok(hash)) => Ok(Self {
                chain_id,
                sequence,
                hash,
            }),
            _ => Err(InvalidExpected),
        }
    }
}

/// Where a chain breaks, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The chain.
    pub chain_id: String,
    /// The first sequence at which the chain is not as it was written.
    pub sequence: i64,
    /// What is wrong there.
    pub what: String,
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Every row is as it was written; `None` for a trail without rows.
    Intact(Option<Head>),
    /// The first place where it is not.
    Broken(Break),
}

/// Walks the trail at `path` from its first row, and holds it against heads noted earlier.
///
/// # Errors
/// Where the trail could not be looked at; nothing is said about it then.
pub async fn verify(path: &Path, expected: &[Expected]) -> Result<Report, StoreError> {
    verify_and_tell(path, expected, &|_| {}).await
}

/// The same for whoever waits: `tell` learns how far it is.
///
/// # Errors
/// Where the trail could not be looked at; nothing is said about it then.
pub async fn verify_and_tell(
    path: &Path,
    expected: &[Expected],
    tell: TellProgress<'_>,
) -> Result<Report, StoreError> {
    let mut rows = RowReader::open(path).await?;
    let last = rows.last_sequence().await?;
    let mut walk = Walk {
        sequence: 0,
        hash: Hash::GENESIS,
        expected,
        total: last.and_then(|last| u64::try_from(last).ok()),
        tell,
    };
    match walk.all(&mut rows).await {
        Ok(()) => Ok(walk.end()),
        Err(Stop::Broken(broken)) => Ok(Report::Broken(broken)),
        Err(Stop::Store(error)) => Err(error),
    }
}

/// Why a walk does not get to the end.
enum Stop {
    Broken(Break),
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How far the walk is.
struct Walk<'a> {
    sequence: i64,
    hash: Hash,
    expected: &'a [Expected],
    total: Option<u64>,
    tell: TellProgress<'a>,
}

impl Walk<'_> {
    async fn all(&mut self, rows: &mut RowReader) -> Result<(), Stop> {
        self.check_names()?;
        // From below the first sequence that the gateway gives, so that a row slipped in before it is seen.
        let mut page = rows.page(i64::MIN).await?;
        while let Some(last) = page.last() {
            let from = last.sequence()?.and_then(|last| last.checked_add(1));
            // The next page is read while this one is hashed.
            let next = async {
                match from {
                    Some(from) => rows.page(from).await,
                    None => Ok(Vec::new()),
                }
            };
            let walk = async { page.iter().try_for_each(|row| self.step(row)) };
            let (next, walked) = futures_util::join!(next, walk);
            walked?;
            (self.tell)(Progress {
                done: u64::try_from(self.sequence).unwrap_or_default(),
                total: self.total,
                unit: ProgressUnit::Rows,
            });
            page = next?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Stop> {
        for head in self.expected {
            let named = head.chain_id.as_deref();
            if named.is_some_and(|chain| chain != CHAIN_ID) {
                return Err(broken(head.sequence, "no such chain is in the trail"));
            }
            if head.sequence == 0 && head.hash != self.hash {
                return Err(broken(0, "the expected hash is not that of an empty chain"));
            }
        }
        Ok(())
    }

    fn step(&mut self, row: &PackedRow) -> Result<(), Stop> {
        let next = self.sequence + 1;
        match row.sequence()? {
            Some(found) if found == next => {}
            Some(found) if found > next => {
                let what = format!("the row is missing; {found} comes next");
                return Err(broken(next, what));
            }
            _ => return Err(broken(next, "a row was inserted before it")),
        }
        let (mut following, mut foreign) = (Following::new(self.hash), false);
        row.cells(|cell| {
            foreign |= cell == CellRef::Foreign;
            following.add(cell);
        })?;
        // Whatever hash it claims: not all of such a row is hashed.
        if foreign {
            return Err(broken(next, "the row holds what the gateway never writes"));
        }
        self.hash = following.finish();
        self.sequence = next;
        let claimed = row.claimed_hash()?.and_then(|text| text.parse().ok());
        if claimed != Some(self.hash) {
            let what = "the row and its hash do not fit the row before";
            return Err(broken(next, what));
        }
        let other = |head: &Expected| head.sequence == next && head.hash != self.hash;
        if self.expected.iter().any(other) {
            return Err(broken(next, "the row is not the expected one"));
        }
        Ok(())
    }

    fn end(&self) -> Report {
        let beyond = |head: &&Expected| head.sequence > self.sequence;
        if let Some(head) = self.expected.iter().find(beyond) {
            let what = format!(
                "the row is missing; the chain reached {} before",
                head.sequence
            );
            return Report::Broken(break_at(self.sequence + 1, what));
        }
        let head = Head {
            chain_id: CHAIN_ID.into(),
            sequence: self.sequence,
            hash: self.hash,
        };
        Report::Intact((self.sequence > 0).then_some(head))
    }
}

fn broken(sequence: i64, what: impl Into<String>) -> Stop {
    Stop::Broken(break_at(sequence, what))
}

fn break_at(sequence: i64, what: impl Into<String>) -> Break {
    Break {
        chain_id: CHAIN_ID.into(),
        sequence,
        what: what.into(),
    }
}
