//! Along the one chain of a trail in a file.

use tokio::sync::watch;

use super::{Entry, FeedError, FeedStart, PAGE_ROWS, entry, place};
use crate::audit::chain::Hash;
use crate::audit::cursor::{EntryCursor, InvalidEntryCursor};
use crate::audit::store::{FileReads, StoreError, StoredRow};

#[derive(Debug)]
pub(super) struct ChainWalk {
    connections: FileReads,
    committed: watch::Receiver<i64>,
    /// The last row given; `None` before the first.
    sequence: Option<i64>,
    hash: Hash,
}

impl ChainWalk {
    pub(super) async fn begin(
        connections: FileReads,
        committed: watch::Receiver<i64>,
        start: FeedStart,
    ) -> Result<Self, FeedError> {
        let mut walk = Self {
            connections,
            committed,
            sequence: None,
            hash: Hash::GENESIS,
        };
        let before = match start {
            FeedStart::Oldest => None,
            FeedStart::Behind(cursor) => {
                let wanted = cursor.in_one_chain().ok_or(InvalidEntryCursor)?;
                let before = walk.place(wanted).await?;
                let (sequence, hash) = before.ok_or(InvalidEntryCursor)?;
                if EntryCursor::of_one_chain(sequence, hash) != cursor {
                    return Err(InvalidEntryCursor.into());
                }
                before
            }
            FeedStart::Last(rows) => {
                let last = *walk.committed.borrow();
                let rows = i64::try_from(rows).unwrap_or(i64::MAX);
                let before = walk
                    .connections
                    .row_up_to(last.saturating_sub(rows))
                    .await?;
                before
                    .map(StoredRow::File)
                    .as_ref()
                    .map(place)
                    .transpose()?
            }
        };
        if let Some((sequence, hash)) = before {
            (walk.sequence, walk.hash) = (Some(sequence), hash);
        }
        Ok(walk)
    }

    /// The row of this sequence, where there is one: none below the first.
    async fn place(&self, sequence: i64) -> Result<Option<(i64, Hash)>, StoreError> {
        let rows = self.connections.rows(sequence, 1).await?;
        let found = rows.into_iter().next().map(StoredRow::File);
        let found = found.as_ref().map(place).transpose()?;
        Ok(found.filter(|(found, _)| *found == sequence))
    }

    pub(super) async fn next(&mut self) -> Result<Vec<Entry>, StoreError> {
        // Looked at first: a commit that comes after is a change to wait for.
        self.committed.borrow_and_update();
        // From below the first sequence that the gateway gives: what the file holds is what is shown.
        let from = match self.sequence {
            None => Some(i64::MIN),
            Some(last) => last.checked_add(1),
        };
        let Some(from) = from else {
            return Ok(Vec::new());
        };
        let rows = self.connections.rows(from, PAGE_ROWS).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            match self.step(&StoredRow::File(row)) {
                Ok(entry) => entries.push(entry),
                // What stands before a damaged row is given; the next call begins with it.
                Err(_) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn step(&mut self, row: &StoredRow) -> Result<Entry, StoreError> {
        let (sequence, hash) = place(row)?;
        let cursor = EntryCursor::of_one_chain(sequence, hash);
        let entry = entry(row, &cursor, sequence, self.hash, hash)?;
        (self.sequence, self.hash) = (Some(sequence), hash);
        Ok(entry)
    }

    pub(super) async fn wait(&mut self) -> bool {
        self.committed.changed().await.is_ok()
    }
}
