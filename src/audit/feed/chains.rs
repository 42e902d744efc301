//! Along all chains of a trail that several gateways write.
//!
//! Rows of one chain come in their order; those of several come by their times, as far as that order allows. What other
//! gateways write is looked for from time to time, since a word for each commit would be more than the commit itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Entry, FeedError, FeedStart, PAGE_ROWS, entry, place};
use crate::audit::chain::Hash;
use crate::audit::columns::Column;
use crate::audit::cursor::{ChainPlaces, EntryCursor, InvalidEntryCursor};
use crate::audit::entry::CellRef;
use crate::audit::store::{ChainHead, ServerReads, StoreError, StoredRow};

/// How often it is looked for what other gateways wrote.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct ChainsWalk {
    connections: ServerReads,
    committed: watch::Receiver<i64>,
    /// The last row given of each chain, as cursors tell it.
    places: ChainPlaces,
    /// Its hash, whole.
    hashes: HashMap<i64, Hash>,
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
        let (places, named) = match cursor {
            EntryCursor::Chains(places) => (places, None),
            // Of a trail in a file, which was imported.
            EntryCursor::Chain { chain_id, place } => {
                (ChainPlaces::default(), Some((chain_id, place)))
            }
        };
        let heads = self.connections.chain_heads(places.before).await?;
        let mut places = places;
        if let Some((chain_id, place)) = named {
            let head = heads.iter().find(|head| head.chain_id == chain_id);
            let head = head.ok_or(InvalidEntryCursor)?;
            places.of.insert(head.number, place);
        }
        for (number, (sequence, hash)) in &places.of {
            let head = heads.iter().find(|head| head.number == *number);
            let head = head.ok_or(InvalidEntryCursor)?;
            let found = self.row(&head.chain_id, *sequence).await?;
            let found = found.filter(|found| found.first_bytes() == *hash);
            self.hashes
                .insert(*number, found.ok_or(InvalidEntryCursor)?);
        }
        self.places = places;
        Ok(())
    }

    async fn go_before_last(&mut self, rows: usize) -> Result<(), StoreError> {
        let heads = self.connections.chain_heads(0).await?;
        let mut from: BTreeMap<i64, i64> = heads
            .iter()
            .map(|head| (head.number, head.head_sequence))
            .collect();
        for row in self.connections.last_rows(rows).await? {
            let place = from.entry(row.number).or_insert(row.sequence);
            *place = (*place).min(row.sequence - 1);
        }
        for ChainHead {
            number, chain_id, ..
        } in &heads
        {
            let sequence = from.get(number).copied().unwrap_or(0);
            if sequence > 0
                && let Some(hash) = self.row(chain_id, sequence).await?
            {
                self.places.step(*number, sequence, hash);
                self.hashes.insert(*number, hash);
            }
        }
        Ok(())
    }

    async fn row(&self, chain_id: &str, sequence: i64) -> Result<Option<Hash>, StoreError> {
        let rows = self.connections.rows_of(chain_id, sequence, 1).await?;
        let found = rows.into_iter().next().map(StoredRow::Server);
        let found = found.as_ref().map(place).transpose()?;
        Ok(found
            .filter(|(found, _)| *found == sequence)
            .map(|(_, hash)| hash))
    }

    pub(super) async fn next(&mut self) -> Result<Vec<Entry>, StoreError> {
        // Looked at first: a commit that comes after is a change to wait for.
        self.committed.borrow_and_update();
        let heads = self.connections.chain_heads(self.places.before).await?;
        // Chains that are over and were read to their end need no place of their own.
        for head in &heads {
            let given = self.places.sequence(head.number);
            if !(head.over && given >= head.head_sequence) {
                break;
            }
            self.places.leave(head.number);
            self.hashes.remove(&head.number);
        }
        let mut pages = Vec::new();
        for head in &heads {
            let given = self.places.sequence(head.number);
            if head.number > self.places.before && head.head_sequence > given {
                let rows = self
                    .connections
                    .rows_of(&head.chain_id, given + 1, PAGE_ROWS)
                    .await?;
                let rows: VecDeque<StoredRow> = rows.into_iter().map(StoredRow::Server).collect();
                pages.push((head.number, rows));
            }
        }
        let mut entries = Vec::new();
        while entries.len() < PAGE_ROWS
            && let Some((number, row)) = earliest(&mut pages)
        {
            match self.step(number, &row) {
                Ok(entry) => entries.push(entry),
                // What stands before a damaged row is given; the next call begins with it.
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn step(&mut self, number: i64, row: &StoredRow) -> Result<Entry, StoreError> {
        let (sequence, hash) = place(row)?;
        let before = self.hashes.get(&number).copied().unwrap_or(Hash::GENESIS);
        let mut places = self.places.clone();
        places.step(number, sequence, hash);
        let cursor = EntryCursor::Chains(places);
        let entry = entry(row, &cursor, sequence, before, hash)?;
        self.places.step(number, sequence, hash);
        self.hashes.insert(number, hash);
        Ok(entry)
    }

    pub(super) async fn wait(&mut self) -> bool {
        loop {
            tokio::select! {
                changed = self.committed.changed() => return changed.is_ok(),
                () = sleep(LOOK_INTERVAL) => {}
            }
            // A database that is away comes back.
            let heads = self.connections.chain_heads(self.places.before).await;
            let grown = |head: &ChainHead| head.head_sequence > self.places.sequence(head.number);
            if heads.is_ok_and(|heads| heads.iter().any(grown)) {
                return true;
            }
        }
    }
}

/// Of the next rows of all chains the one with the least time.
fn earliest(pages: &mut [(i64, VecDeque<StoredRow>)]) -> Option<(i64, StoredRow)> {
    let time = |row: &StoredRow| match row.cell(Column::RecordedAt as usize) {
        Ok(CellRef::Integer(time)) => time,
        _ => i64::MIN,
    };
    let first = pages
        .iter_mut()
        .filter_map(|(number, rows)| Some((time(rows.front()?), *number, rows)))
        .min_by_key(|(time, number, _)| (*time, *number))?;
    let (_, number, rows) = first;
    Some((number, rows.pop_front()?))
}
