//! Along all chains of a trail that several gateways write.
//!
//! Rows of one chain come in their order; those of several come by their times, as far as that order allows. Chains are opened in the
//! order of their numbers, each as the walk comes to when it began, and are left where they end: so a walk over thousands of
//! starts holds rows of those alone that lived at one time. What other gateways write is looked for from time to time, since
//! a word for each commit would be more than the commit itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Entry, FeedError, FeedStart, PAGE_ROWS, entry, place};
use crate::audit::chain::{Following, Hash};
use crate::audit::columns::Column;
use crate::audit::cursor::{ChainPlaces, EntryCursor, InvalidEntryCursor};
use crate::audit::entry::CellRef;
use crate::audit::ids::id_time;
use crate::audit::store::{ChainHead, ServerReads, StoreError, StoredRow};
use crate::domain::EventId;

/// How often it is looked for what other gateways wrote.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Rows of one chain that are read at once, where many are open.
const ROWS_MIN: usize = 16;

#[derive(Debug)]
pub(super) struct ChainsWalk {
    connections: ServerReads,
    committed: watch::Receiver<i64>,
    /// The last row given of each open chain, as cursors tell it.
    places: ChainPlaces,
    /// Its hash, whole.
    hashes: HashMap<i64, Hash>,
    /// Rows that come next, of open chains.
    rows: HashMap<i64, VecDeque<StoredRow>>,
    /// Chains that are open or are to be, as they were looked at last.
    heads: BTreeMap<i64, ChainHead>,
    /// Of chains with nothing behind what was read of them, though there was more once: where they ended as that was seen.
    dry: HashMap<i64, i64>,
    /// Every chain up to this number is known.
    settled: i64,
}

impl ChainsWalk {
    pub(super) async fn begin(
        connections: ServerReads,
        committed: watch::Receiver<i64>,
        start: FeedStart,
    ) -> Result<Self, FeedError> {
        let mut walk = Self {
            connections,
            committed,
            places: ChainPlaces::default(),
            hashes: HashMap::new(),
            rows: HashMap::new(),
            heads: BTreeMap::new(),
            dry: HashMap::new(),
            settled: 0,
        };
        match start {
            FeedStart::Oldest => {}
            FeedStart::Behind(cursor) => walk.go_behind(cursor).await?,
            FeedStart::Last(rows) => walk.go_before_last(rows).await?,
        }
        Ok(walk)
    }

    /// Each place of the cursor has to be a row of this trail, and the chain up to which others were read one of its.
    async fn go_behind(&mut self, cursor: EntryCursor) -> Result<(), FeedError> {
        match cursor {
            EntryCursor::Chains(places) => {
                self.places = places;
                self.heads = self.left().await?;
                let before = self.places.before;
                let last = self.heads.get(&before);
                let is_ours =
                    last.is_some_and(|last| name_hash(&last.chain_id) == self.places.name_hash);
                if before > 0 && !is_ours {
                    return Err(InvalidEntryCursor.into());
                }
            }
            // Of a trail in a file, which was imported.
            EntryCursor::Chain { chain_id, place } => {
                self.heads = self.left().await?;
                let head = self.heads.values().find(|head| head.chain_id == chain_id);
                let number = head.ok_or(InvalidEntryCursor)?.number;
                self.places.of.insert(number, place);
            }
        }
        for (number, (sequence, hash)) in &self.places.of {
            let head = self.heads.get(number).ok_or(InvalidEntryCursor)?;
            let found = self.hash_of(head, *sequence).await?;
            let found = found.filter(|found| found.first_bytes() == *hash);
            self.hashes
                .insert(*number, found.ok_or(InvalidEntryCursor)?);
        }
        Ok(self.look().await?)
    }

    async fn go_before_last(&mut self, rows: usize) -> Result<(), StoreError> {
        self.look().await?;
        let mut from: BTreeMap<i64, i64> = BTreeMap::new();
        // Of those that are over nothing is left but what is among the last.
        for head in self.heads.values().filter(|head| !head.over) {
            from.insert(head.number, head.head_sequence);
        }
        for row in self.connections.last_rows(rows).await? {
            let place = from.entry(row.number).or_insert(row.sequence);
            *place = (*place).min(row.sequence - 1);
        }
        for (number, sequence) in from {
            let Some(head) = self.heads.get(&number) else {
                continue;
            };
            // Where that row is not there any more, with what is.
            let found = self.hash_of(head, sequence).await?;
            let (sequence, hash) = found.map_or((0, Hash::GENESIS), |hash| (sequence, hash));
            self.places.step(number, sequence, hash);
            self.hashes.insert(number, hash);
        }
        self.pass(self.settled);
        let (before, open) = (self.places.before, &self.places.of);
        let is_left = |number: &i64| *number > before || open.contains_key(number);
        self.heads.retain(|number, _| is_left(number));
        Ok(())
    }

    /// The hash of a chain's row; of none before its first.
    async fn hash_of(&self, head: &ChainHead, sequence: i64) -> Result<Option<Hash>, StoreError> {
        if sequence == 0 {
            return Ok(Some(Hash::GENESIS));
        }
        let rows = self
            .connections
            .rows_of(&head.chain_id, sequence, 1)
            .await?;
        let found = rows.into_iter().next().map(StoredRow::Server);
        let found = found.as_ref().map(place).transpose()?;
        Ok(found
            .filter(|(found, _)| *found == sequence)
            .map(|(_, hash)| hash))
    }

    /// Looks at the chains that are left.
    async fn look(&mut self) -> Result<(), StoreError> {
        self.heads = self.left().await?;
        let over = self.heads.values().filter(|head| head.over);
        let settled = over.map(|head| head.number).max().unwrap_or(0);
        self.settled = settled.max(self.places.before);
        // A gateway that writes nothing stands in nobody's way.
        let settled = self.settled;
        let idle =
            |head: &&ChainHead| head.head_sequence == 0 && !head.over && head.number <= settled;
        let idle: Vec<i64> = self
            .unopened()
            .filter(idle)
            .map(|head| head.number)
            .collect();
        for number in idle {
            self.open(number);
        }
        self.leave();
        Ok(())
    }

    /// Those that are open or are to be, and the last of which all before it are.
    async fn left(&self) -> Result<BTreeMap<i64, ChainHead>, StoreError> {
        let mut open: Vec<i64> = self.places.of.keys().copied().collect();
        open.push(self.places.before);
        let heads = self.connections.chain_heads(self.places.before, &open);
        let heads = heads.await?.into_iter();
        Ok(heads.map(|head| (head.number, head)).collect())
    }

    /// Chains that are over and were read to their end need no place of their own, once all before them are open.
    fn leave(&mut self) {
        let unopened = self.unopened().find(|head| !self.is_read(head));
        let opened = unopened.map_or(i64::MAX, |head| head.number - 1);
        self.pass(self.settled.min(opened));
        let read: Vec<i64> = self
            .heads
            .range(..=self.places.before)
            .filter(|(_, head)| self.is_read(head))
            .map(|(number, _)| *number)
            .collect();
        for number in read {
            self.places.of.remove(&number);
            self.hashes.remove(&number);
            self.rows.remove(&number);
            self.dry.remove(&number);
            self.heads.remove(&number);
        }
    }

    /// All chains up to this number are known, and open or read.
    fn pass(&mut self, number: i64) {
        if let Some((number, head)) = self.heads.range(..=number).next_back()
            && *number > self.places.before
        {
            self.places.before = *number;
            self.places.name_hash = name_hash(&head.chain_id);
        }
    }

    fn is_read(&self, head: &ChainHead) -> bool {
        head.over && self.reached(head.number) >= head.head_sequence
    }

    /// Up to which row a chain was read, or is known to have none: partitions are detached.
    fn reached(&self, number: i64) -> i64 {
        let dry = self.dry.get(&number).copied().unwrap_or(0);
        self.places.sequence(number).max(dry)
    }

    /// Chains that nothing was read of, in their order.
    fn unopened(&self) -> impl Iterator<Item = &ChainHead> {
        let open = |number: &i64| self.places.of.contains_key(number);
        self.heads
            .range((Bound::Excluded(self.places.before), Bound::Unbounded))
            .filter(move |(number, _)| !open(number))
            .map(|(_, head)| head)
    }

    fn open(&mut self, number: i64) {
        self.places.step(number, 0, Hash::GENESIS);
        self.hashes.insert(number, Hash::GENESIS);
    }

    /// Whether there is more of an open chain than was read.
    fn is_behind(&self, number: i64) -> bool {
        let head = self.heads.get(&number);
        head.is_some_and(|head| head.head_sequence > self.reached(number))
    }

    pub(super) async fn next(&mut self) -> Result<Vec<Entry>, StoreError> {
        // Looked at first: a commit that comes after is a change to wait for.
        self.committed.borrow_and_update();
        let mut entries = self.read().await?;
        if entries.is_empty() {
            self.look().await?;
            entries = self.read().await?;
        }
        Ok(entries)
    }

    /// A page of what was there at the last look.
    async fn read(&mut self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        while entries.len() < PAGE_ROWS {
            let stepped = match self.earliest().await {
                Ok(Some(number)) => self.step(number),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            match stepped {
                Ok(entry) => entries.push(entry),
                // What stands before a damaged row is given; the next call begins with it.
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// Of the next rows of all chains the one with the least time: whose.
    async fn earliest(&mut self) -> Result<Option<i64>, StoreError> {
        loop {
            let empty = |number: &i64| self.rows.get(number).is_none_or(VecDeque::is_empty);
            let open = self.places.of.keys().copied();
            let behind: Vec<i64> = open.filter(|number| self.is_behind(*number)).collect();
            for number in behind.iter().copied().filter(empty).collect::<Vec<_>>() {
                let limit = (PAGE_ROWS / behind.len()).max(ROWS_MIN);
                self.fetch(number, limit).await?;
            }
            let first = |(number, rows): (&i64, &VecDeque<StoredRow>)| {
                rows.front().map(|row| (recorded_at(row), *number))
            };
            let earliest = self.rows.iter().filter_map(first).min();
            let next = self.unopened().find(|head| head.head_sequence > 0);
            let next = next.map(|head| (begun_at(&head.chain_id), head.number));
            match (earliest, next) {
                (Some((at, number)), Some((begun, _))) if at < begun => return Ok(Some(number)),
                // All before it, so that none is behind the last that was opened.
                (_, Some((_, next))) => {
                    let unopened: Vec<i64> = self.unopened().map(|head| head.number).collect();
                    for number in unopened.into_iter().take_while(|number| *number <= next) {
                        self.open(number);
                    }
                }
                (earliest, None) => return Ok(earliest.map(|(_, number)| number)),
            }
        }
    }

    /// Reads the next rows of a chain.
    async fn fetch(&mut self, number: i64, limit: usize) -> Result<(), StoreError> {
        let Some(head) = self.heads.get(&number) else {
            return Ok(());
        };
        let from = self.places.sequence(number) + 1;
        let rows = self.connections.rows_of(&head.chain_id, from, limit);
        let rows: VecDeque<StoredRow> = rows.await?.into_iter().map(StoredRow::Server).collect();
        if rows.is_empty() {
            self.dry.insert(number, head.head_sequence);
        }
        self.rows.insert(number, rows);
        Ok(())
    }

    /// Gives the next row of a chain.
    fn step(&mut self, number: i64) -> Result<Entry, StoreError> {
        let rows = self.rows.entry(number).or_default();
        let Some(row) = rows.front() else {
            return Err(StoreError::Row {
                sequence: self.places.sequence(number) + 1,
                column: "sequence",
            });
        };
        let (sequence, hash) = place(row)?;
        let before = self.hashes.get(&number).copied().unwrap_or(Hash::GENESIS);
        let mut places = self.places.clone();
        places.step(number, sequence, hash);
        let cursor = EntryCursor::Chains(places);
        let entry = entry(row, &cursor, sequence, before, hash)?;
        rows.pop_front();
        self.places.step(number, sequence, hash);
        self.hashes.insert(number, hash);
        if !self.is_behind(number) {
            self.leave();
        }
        Ok(entry)
    }

    pub(super) async fn wait(&mut self) -> bool {
        loop {
            tokio::select! {
                changed = self.committed.changed() => return changed.is_ok(),
                () = sleep(LOOK_INTERVAL) => {}
            }
            // A database that is away comes back.
            let heads = self.left().await;
            let grown = |head: &ChainHead| {
                let is_left =
                    head.number > self.places.before || self.places.of.contains_key(&head.number);
                is_left && head.head_sequence > self.reached(head.number)
            };
            if heads.is_ok_and(|heads| heads.values().any(grown)) {
                return true;
            }
        }
    }
}

/// Tells a chain's name from another's.
fn name_hash<const N: usize>(chain_id: &str) -> [u8; N] {
    let mut hash = Following::new(Hash::GENESIS);
    hash.add(CellRef::Text(chain_id.as_bytes()));
    hash.finish().first_bytes()
}

/// When a row was sealed, in microseconds.
fn recorded_at(row: &StoredRow) -> i64 {
    match row.cell(Column::RecordedAt as usize) {
        Ok(CellRef::Integer(time)) => time,
        _ => i64::MIN,
    }
}

/// When a chain began, which its name says; one that was imported did before all others.
fn begun_at(chain_id: &str) -> i64 {
    let id = uuid::Uuid::parse_str(chain_id).ok();
    let id = id.filter(|id| id.get_version_num() == 7);
    id.map_or(i64::MIN, |id| id_time(EventId::new(id)).as_micros())
}
