//! Walks the chains in constant memory and says where each first breaks.

use std::path::Path;
use std::str::FromStr;

use super::chain::{Following, Hash, Head};
use super::columns::ENCODINGS;
use super::entry::{CHAIN_ID, CellRef};
use super::progress::{Progress, ProgressUnit, TellProgress};
use super::store::{Chain, Noted, PackedRow, RowReader, StoreError};
use crate::config::TrailPlace;

/// A head that was noted earlier, `[CHAIN:]SEQUENCE:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    chain_id: Option<String>,
    sequence: i64,
    hash: Hash,
}

/// Whether a chain can be named so.
fn is_chain_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

impl From<&Head> for Expected {
    fn from(head: &Head) -> Self {
        Self {
            chain_id: Some(head.chain_id.clone()),
            sequence: head.sequence,
            hash: head.hash,
        }
    }
}

impl Expected {
    /// Whether it says no more than that there was nothing yet.
    fn is_of_empty_chain(&self) -> bool {
        self.chain_id.is_none() && self.sequence == 0 && self.hash == Hash::GENESIS
    }
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
        let sequence = sequence
            .parse::<i64>()
            .ok()
            .filter(|sequence| *sequence >= 0);
        let named = chain_id.as_deref().is_none_or(is_chain_id);
        match (named, sequence, hash.parse()) {
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

/// What a walk along a chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Every row is as it was written; `None` for a chain without rows.
    Intact(Option<Head>),
    /// The first place where it is not.
    Broken(Break),
}

fn cell_number(cell: CellRef<'_>) -> Option<i64> {
    match cell {
        CellRef::Integer(number) => Some(number),
        CellRef::Null | CellRef::Text(_) | CellRef::Foreign => None,
    }
}

/// Whether there is such a version of the encoding.
fn is_known(version: i64) -> bool {
    let index = usize::try_from(version - 1);
    index.is_ok_and(|index| index < ENCODINGS.len())
}

/// A head was noted without its chain, and the trail has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a head of a trail with several chains has to name its own: CHAIN:SEQUENCE:HASH")]
pub struct UnnamedHead;

/// Walks the one chain of the SQLite trail at `path` from its first row, and holds it against heads noted earlier.
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
    let place = TrailPlace::File(path.into());
    let mut reports = verify_all(&place, expected, tell).await?;
    // What is broken comes first: a head of a chain that is not there has a report of its own.
    reports.sort_by_key(|report| matches!(report, Report::Intact(_)));
    Ok(reports.into_iter().next().unwrap_or(Report::Intact(None)))
}

/// Walks every chain of a trail, one after another, in constant memory, and holds them against heads noted earlier. A report
/// for each chain, by name, and one for each head of a chain that is not there.
///
/// # Errors
/// Where the trail could not be looked at; nothing is said about it then.
pub async fn verify_all(
    place: &TrailPlace,
    expected: &[Expected],
    tell: TellProgress<'_>,
) -> Result<Vec<Report>, StoreError> {
    walk(&mut RowReader::open(place).await?, expected, tell).await
}

/// The same over a connection that is there.
pub(super) async fn walk(
    rows: &mut RowReader<'_>,
    expected: &[Expected],
    tell: TellProgress<'_>,
) -> Result<Vec<Report>, StoreError> {
    let total = rows.rows().await?;
    let chains = rows.chains().await?;
    let named = |head: &Expected, chain: &Chain| match &head.chain_id {
        Some(chain_id) => *chain_id == chain.chain_id,
        None => chains.len() == 1,
    };
    if chains.len() > 1 && expected.iter().any(|head| head.chain_id.is_none()) {
        return Err(StoreError::UnnamedHead(UnnamedHead));
    }
    let mut reports = Vec::with_capacity(chains.len());
    for head in expected {
        if !chains.iter().any(|chain| named(head, chain)) && !head.is_of_empty_chain() {
            reports.push(Report::Broken(Break {
                chain_id: head.chain_id.clone().unwrap_or_else(|| CHAIN_ID.into()),
                sequence: head.sequence,
                what: "no such chain is in the trail".into(),
            }));
        }
    }
    let mut done = 0;
    for chain in &chains {
        if !is_chain_id(&chain.chain_id) {
            reports.push(Report::Broken(Break {
                chain_id: chain.chain_id.escape_debug().to_string(),
                sequence: 0,
                what: "no chain is named so".into(),
            }));
            continue;
        }
        rows.begin(&chain.chain_id);
        let mut walk = Walk {
            chain,
            sequence: 0,
            hash: Hash::GENESIS,
            expected: expected.iter().filter(|head| named(head, chain)).collect(),
            before: done,
            total,
            tell,
        };
        reports.push(match walk.all(rows).await {
            Ok(()) => walk.end(),
            Err(Stop::Broken(broken)) => Report::Broken(broken),
            Err(Stop::Store(error)) => return Err(error),
        });
        done = walk.done();
    }
    let intact = |report: &Report| matches!(report, Report::Intact(_));
    if reports.iter().all(intact)
        && let Some(count) = rows.count().await?
        && count != done
    {
        reports.push(Report::Broken(Break {
            chain_id: "(none)".into(),
            sequence: 0,
            what: format!("there are {count} rows, and {done} of them have a place in a chain"),
        }));
    }
    Ok(reports)
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

/// How far the walk along a chain is.
struct Walk<'a> {
    chain: &'a Chain,
    sequence: i64,
    hash: Hash,
    expected: Vec<&'a Expected>,
    /// Rows of chains before this one.
    before: u64,
    total: Option<u64>,
    tell: TellProgress<'a>,
}

impl Walk<'_> {
    async fn all(&mut self, rows: &mut RowReader<'_>) -> Result<(), Stop> {
        let other = |head: &&Expected| head.sequence == 0 && head.hash != Hash::GENESIS;
        if self.expected.iter().any(other) {
            return Err(self.broken(0, "the expected hash is not that of an empty chain"));
        }
        let mut page = rows.page().await?;
        while !page.is_empty() {
            // The next page is read while this one is hashed.
            let walk = async { page.iter().try_for_each(|row| self.step(row)) };
            let (next, walked) = futures_util::join!(rows.page(), walk);
            walked?;
            (self.tell)(Progress {
                done: self.done(),
                total: self.total,
                unit: ProgressUnit::Rows,
            });
            page = next?;
        }
        Ok(())
    }

    /// Rows walked so far, over all chains.
    fn done(&self) -> u64 {
        self.before + u64::try_from(self.sequence).unwrap_or_default()
    }

    fn step(&mut self, row: &PackedRow) -> Result<(), Stop> {
        let next = self.sequence + 1;
        match row.sequence()? {
            Some(found) if found == next => {}
            Some(found) if found > next => {
                let what = format!("the row is missing; {found} comes next");
                return Err(self.broken(next, what));
            }
            _ => return Err(self.broken(next, "a row was inserted before it")),
        }
        let (mut following, mut foreign) = (Following::new(self.hash), false);
        let mut version = None;
        row.cells(|cell| {
            foreign |= cell == CellRef::Foreign;
            version.get_or_insert(cell_number(cell));
            following.add(cell);
        })?;
        if let Some(Some(version)) = version
            && !is_known(version)
        {
            let what = format!(
                "the row is of encoding {version}, which this version of the program does not know"
            );
            return Err(self.broken(next, what));
        }
        // Whatever hash it claims: not all of such a row is hashed.
        if foreign {
            return Err(self.broken(next, "the row holds what the gateway never writes"));
        }
        let hash = following.finish();
        let claimed = row.claimed_hash()?.and_then(|text| text.parse().ok());
        if claimed != Some(hash) {
            let what = "the row and its hash do not fit the row before";
            return Err(self.broken(next, what));
        }
        let other = |head: &&Expected| head.sequence == next && head.hash != hash;
        if self.expected.iter().any(other) {
            return Err(self.broken(next, "the row is not the expected one"));
        }
        if let Noted::Head {
            sequence,
            hash: noted,
            ended,
        } = &self.chain.noted
        {
            if *sequence == next && *noted != hash.to_string() {
                return Err(self.broken(next, "the row is not the one that was committed last"));
            }
            if *ended && next > *sequence {
                return Err(self.broken(next, "the row stands behind the chain's end"));
            }
        }
        (self.sequence, self.hash) = (next, hash);
        Ok(())
    }

    fn end(&self) -> Report {
        let committed = match &self.chain.noted {
            Noted::Nowhere => 0,
            Noted::Missing => {
                let what = "the database does not know of the chain";
                return Report::Broken(self.break_at(1, what));
            }
            Noted::Head { sequence, .. } => *sequence,
        };
        let noted = self.expected.iter().map(|head| head.sequence);
        let reached = noted.fold(committed, i64::max);
        if reached > self.sequence {
            let what = format!("the row is missing; the chain reached {reached} before");
            return Report::Broken(self.break_at(self.sequence + 1, what));
        }
        let head = Head {
            chain_id: self.chain.chain_id.clone(),
            sequence: self.sequence,
            hash: self.hash,
        };
        Report::Intact((self.sequence > 0).then_some(head))
    }

    fn broken(&self, sequence: i64, what: impl Into<String>) -> Stop {
        Stop::Broken(self.break_at(sequence, what))
    }

    fn break_at(&self, sequence: i64, what: impl Into<String>) -> Break {
        Break {
            chain_id: self.chain.chain_id.clone(),
            sequence,
            what: what.into(),
        }
    }
}
