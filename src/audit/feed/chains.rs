//! Along all chains of a trail that several gateways write.
//!
//! Rows of one chain come in their order; those of several come by their times, as far as that order allows. Chains are opened in the
//! order of their numbers, each as the walk comes to when it began, and are left where they end: so a walk over thousands of
//! starts holds rows of those alone that lived at one time. What other gateways write is looked for from time to time, since
//! a word for each commit would be more than the commit itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Entry, FeedError, FeedStart, PAGE_ROWS, entry, place};
use crate::audit::chain::Hash;
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
            settled: 0,
        };
        match start {
            FeedStart::Oldest => {}
            FeedStart::Behind(cursor) => walk.go_behind(cursor).await?,
            FeedStart::Last(rows) => walk.go_before_last(rows).await?,
        }
        Ok(walk)
    }

    /// Each place of the cursor has to be a row of this trail.
    async fn go_behind(&mut self, cursor: EntryCursor) -> Result<(), FeedError> {
        match cursor {
            EntryCursor::Chains(places) => {
                self.places = places;
                self.look().await?;
            }
            // Of a trail in a file, which was imported.
            EntryCursor::Chain { chain_id, place } => {
                self.look().await?;
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
        Ok(())
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
            if let Some(head) = self.heads.get(&number)
                && let Some(hash) = self.hash_of(head, sequence).await?
            {
                self.places.step(number, sequence, hash);
                self.hashes.insert(number, hash);
            }
        }
        self.places.before = self.settled;
        let open = |number: &i64| self.places.of.contains_key(number);
        let is_left = |number: &i64| *number > self.places.before || open(number);
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
        let heads = self.left().await?;
        self.heads = heads.into_iter().map(|head| (head.number, head)).collect();
        let over = self.heads.values().filter(|head| head.over);
        self.settled = over
            .map(|head| head.number)
            .max()
            .unwrap_or(0)
            .max(self.places.before);
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

    async fn left(&self) -> Result<Vec<ChainHead>, StoreError> {
        let open: Vec<i64> = self.places.of.keys().copied().collect();
        self.connections
            .chain_heads(self.places.before, &open)
            .await
    }

    /// Chains that are over and were read to their end need no place of their own, once all before them are open.
    fn leave(&mut self) {
        let is_read =
            |head: &ChainHead| head.over && self.places.sequence(head.number) >= head.head_sequence;
        let unopened = self.unopened().find(|head| !is_read(head));
        let opened = unopened.map_or(i64::MAX, |head| head.number - 1);
        let before = self.settled.min(opened).max(self.places.before);
        let read: Vec<i64> = self
            .heads
            .range(..=before)
            .filter(|(_, head)| is_read(head))
            .map(|(number, _)| *number)
            .collect();
        self.places.before = before;
        for number in read {
            self.places.of.remove(&number);
            self.hashes.remove(&number);
            self.rows.remove(&number);
            self.heads.remove(&number);
        }
    }

    /// Chains that nothing was read of, in their order.
    fn unopened(&self) -> impl Iterator<Item = &ChainHead> {
        let open = |number: &i64| self.places.of.contains_key(number);
        self.heads
            .range(self.places.before + 1..)
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
        head.is_some_and(|head| head.head_sequence > self.places.sequence(number))
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
        let mut dry = BTreeSet::new();
        while entries.len() < PAGE_ROWS {
            let stepped = match self.earliest(&mut dry).await {
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

    /// Of the next rows of all chains the one with the least time: whose. Those of which less is there than there should be are `dry`.
    async fn earliest(&mut self, dry: &mut BTreeSet<i64>) -> Result<Option<i64>, StoreError> {
        loop {
            let empty = |number: &i64| self.rows.get(number).is_none_or(VecDeque::is_empty);
            let open = self.places.of.keys().copied();
            let behind: Vec<i64> = open.filter(|number| self.is_behind(*number)).collect();
            let fetched = |number: &i64| empty(number) && !dry.contains(number);
            for number in behind.iter().copied().filter(fetched).collect::<Vec<_>>() {
                let limit = (PAGE_ROWS / behind.len()).max(ROWS_MIN);
                if self.fetch(number, limit).await? == 0 {
                    dry.insert(number);
                }
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

    /// Reads the next rows of a chain; how many.
    async fn fetch(&mut self, number: i64, limit: usize) -> Result<usize, StoreError> {
        let Some(head) = self.heads.get(&number) else {
            return Ok(0);
        };
        let from = self.places.sequence(number) + 1;
        let rows = self.connections.rows_of(&head.chain_id, from, limit);
        let rows: VecDeque<StoredRow> = rows.await?.into_iter().map(StoredRow::Server).collect();
        let count = rows.len();
        self.rows.insert(number, rows);
        Ok(count)
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
            let grown = |head: &ChainHead| head.head_sequence > self.places.sequence(head.number);
            if heads.is_ok_and(|heads| heads.iter().any(grown)) {
                return true;
            }
        }
    }
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
