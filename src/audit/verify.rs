//! Walks the chain in constant memory and says where it first breaks.

use std::path::Path;
use std::str::FromStr;

use super::chain::{Hash, Head};
use super::entry::{CHAIN_ID, Cell};
use super::store::{RowReader, StoreError};

/// Rows read at once.
const PAGE_ROWS: i64 = 1000;
/// Where `sequence` stands among the columns.
const SEQUENCE_COLUMN: usize = 2;

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
    let mut rows = RowReader::open(path).await?;
    let mut sequence = 0;
    let mut hash = Hash::GENESIS;
    let broken = |sequence, what: String| {
        Ok(Report::Broken(Break {
            chain_id: CHAIN_ID.into(),
            sequence,
            what,
        }))
    };
    for head in expected {
        if head
            .chain_id
            .as_deref()
            .is_some_and(|chain| chain != CHAIN_ID)
        {
            return broken(head.sequence, "no such chain is in the trail".into());
        }
        if head.sequence == 0 && head.hash != hash {
            return broken(0, "the expected hash is not that of an empty chain".into());
        }
    }
    loop {
        // From below the first sequence that the gateway gives, so that a row slipped in before it is seen.
        let from = if sequence == 0 {
            i64::MIN
        } else {
            sequence + 1
        };
        let page = rows.page(from, PAGE_ROWS).await?;
        if page.is_empty() {
            break;
        }
        for (cells, claimed) in page {
            let next = sequence + 1;
            match cells.get(SEQUENCE_COLUMN) {
                Some(Cell::Integer(found)) if *found == next => {}
                Some(Cell::Integer(found)) if *found > next => {
                    return broken(next, format!("the row is missing; {found} comes next"));
                }
                _ => return broken(next, "a row was inserted before it".into()),
            }
            hash = hash.next(&cells);
            sequence = next;
            if claimed != Cell::from(hash.to_string()) {
                return broken(
                    sequence,
                    "the row and its hash do not fit the row before".into(),
                );
            }
            if expected
                .iter()
                .any(|head| head.sequence == sequence && head.hash != hash)
            {
                return broken(sequence, "the row is not the expected one".into());
            }
        }
    }
    if let Some(head) = expected.iter().find(|head| head.sequence > sequence) {
        return broken(
            sequence + 1,
            format!(
                "the row is missing; the chain reached {} before",
                head.sequence
            ),
        );
    }
    let head = Head {
        chain_id: CHAIN_ID.into(),
        sequence,
        hash,
    };
    Ok(Report::Intact((sequence > 0).then_some(head)))
}
