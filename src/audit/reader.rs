//! Looks at the trail, over connections of its own.
//!
//! Paging is by key: a page costs what a page costs, wherever it lies. Each statement is one short read.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::entry::Recalled;
use super::event::{EntryPlace, Event, EventWithEntries};
use super::filter::{EventOperation, Filter, Order};
use super::ids::{first_id_at, id_time};
#[cfg(test)]
use super::store::FileReads;
use super::store::{Asker, EventRow, EventsQuery, LastRow, OpenRow, ReadConnections, StoreError};
use crate::config::TrailPlace;
use crate::domain::{AccountId, EventId, ImageId, Operation, Outcome, Party, Region, Timestamp};

/// Pending intents read at once.
const PENDING_PAGE: usize = 1000;

/// The reader's door. Clones share connections.
#[derive(Debug, Clone)]
pub struct Reader {
    connections: ReadConnections,
    asker: Asker,
    /// The last sequence on disk, as the writer tells it.
    committed: watch::Receiver<i64>,
}

/// The last event that says how an account came to have an image, or no longer to have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastChange {
    /// The event.
    pub event_id: EventId,
    /// What was asked.
    pub operation: Operation,
    /// `Succeeded` or `Unknown`.
    pub outcome: Outcome,
    /// When that was written.
    pub completed_at: Timestamp,
    /// Who asked.
    pub subject: String,
    /// Why, in their words.
    pub reason: Option<String>,
}

/// A change of which a call may take effect yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenChange {
    /// Where the image lives.
    pub region: Region,
    /// The image.
    pub image_id: ImageId,
    /// The account.
    pub account_id: AccountId,
    /// What was asked.
    pub operation: Operation,
    /// Its event.
    pub event_id: EventId,
    /// When it ended, by the clock of whoever had it; `None` where it has not.
    pub ended_at: Option<Timestamp>,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order asked.
    pub events: Vec<Event>,
    /// The last event, where more follow it.
    pub next: Option<EventId>,
}

impl Reader {
    pub(super) fn beside(connections: ReadConnections, committed: watch::Receiver<i64>) -> Self {
        Self {
            connections,
            asker: Asker::default(),
            committed,
        }
    }

    /// Asks on somebody's behalf: nobody has more than a few queries under way at once.
    #[must_use]
    pub fn on_behalf_of(&self, party: Party) -> Self {
        let mut reader = self.clone();
        reader.asker.party = Some(party);
        reader
    }

    /// Walks the trail, over connections apart from those of other queries.
    pub(super) fn exporting(mut self) -> Self {
        self.asker.exports = true;
        self
    }

    /// Looks at the trail of another process, or of none; makes no file.
    ///
    /// # Errors
    /// Where there is no trail there, or one of another version.
    pub async fn open(place: &TrailPlace) -> Result<Self, StoreError> {
        let connections = ReadConnections::open(place).await?;
        Ok(Self::beside(connections, watch::channel(0).1))
    }

    pub(super) fn connections(&self) -> &ReadConnections {
        &self.connections
    }

    /// Those of a trail in a file.
    #[cfg(test)]
    pub(super) fn file_connections(&self) -> &FileReads {
        match &self.connections {
            ReadConnections::File(connections) => connections,
            ReadConnections::Server(_) => panic!("the trail is in no file"),
        }
    }

    pub(super) fn committed(&self) -> watch::Receiver<i64> {
        self.committed.clone()
    }

    pub(super) async fn counts(&self, filter: &Filter) -> Result<Vec<(String, i64)>, StoreError> {
        let every = query(filter, Order::Ascending, 0, None);
        self.connections.counts(&self.asker, &every).await
    }

    /// Up to `limit` events that fit `filter`, those behind `after` in `order`.
    ///
    /// # Errors
    /// Where the database cannot be read or holds what the gateway never writes.
    pub async fn page(
        &self,
        filter: &Filter,
        order: Order,
        limit: usize,
        after: Option<EventId>,
    ) -> Result<Page, StoreError> {
        // One more than asked tells whether a next page exists.
        let mut rows = self
            .connections
            .events(&self.asker, &query(filter, order, limit + 1, after))
            .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more {
            rows.last().map(event_id).transpose()?
        } else {
            None
        };
        let events = rows
            .into_iter()
            .map(Event::try_from)
            .collect::<Result<_, _>>()?;
        Ok(Page { events, next })
    }

    /// One event with its rows, or `None`.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn event(&self, id: EventId) -> Result<Option<EventWithEntries>, StoreError> {
        let Some((row, places)) = self.connections.event(id).await? else {
            return Ok(None);
        };
        let place = |(kind, chain_id, sequence, recorded_at, hash)| EntryPlace {
            kind,
            chain_id,
            sequence,
            recorded_at: Timestamp::from_micros(recorded_at).to_string(),
            hash,
        };
        let entries = places.into_iter().map(place).collect();
        Ok(Some(EventWithEntries {
            event: row.try_into()?,
            entries,
        }))
    }

    /// Every intent without an outcome, oldest first, without scanning the trail.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn pending(&self) -> Result<Vec<(Recalled, Timestamp)>, StoreError> {
        let mut pending = Vec::new();
        let mut after = None;
        loop {
            let rows = self
                .connections
                .pending(after, i64::try_from(PENDING_PAGE).unwrap_or(i64::MAX))
                .await?;
            let Some(last) = rows.last() else {
                return Ok(pending);
            };
            after = Some(event_id(last)?);
            for row in rows {
                pending.push(recalled(row)?);
            }
        }
    }

    /// For each of `accounts` that has one: the last event, by its id, of its share of the image that
    /// succeeded or is unknown. One indexed look-up an account.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn last_changes(
        &self,
        region: &Region,
        image_id: &ImageId,
        accounts: &[AccountId],
    ) -> Result<BTreeMap<AccountId, LastChange>, StoreError> {
        self.last(region, image_id, accounts, false).await
    }

    /// As [`Self::last_changes`], of those alone that succeeded.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn last_successes(
        &self,
        region: &Region,
        image_id: &ImageId,
        accounts: &[AccountId],
    ) -> Result<BTreeMap<AccountId, LastChange>, StoreError> {
        self.last(region, image_id, accounts, true).await
    }

    async fn last(
        &self,
        region: &Region,
        image_id: &ImageId,
        accounts: &[AccountId],
        only_succeeded: bool,
    ) -> Result<BTreeMap<AccountId, LastChange>, StoreError> {
        let rows = self
            .connections
            .last_changes(region, image_id, accounts, only_succeeded)
            .await?;
        rows.into_iter().map(last_change).collect()
    }

    /// Changes since then, and at the end of the trail, of which a call may take effect yet, and that nobody looked
    /// after: those that ended unknown, and those that succeeded with [`EARLIER_CALL_OPEN`](super::EARLIER_CALL_OPEN).
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn open_changes(&self, since: Timestamp) -> Result<Vec<OpenChange>, StoreError> {
        let found = self.connections.open_changes(since, None).await?;
        Ok(Self::readable(found))
    }

    /// The same of one image of a trail that several gateways write.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn open_changes_of(
        &self,
        region: &Region,
        image_id: &ImageId,
        since: Timestamp,
    ) -> Result<Vec<OpenChange>, StoreError> {
        let image = Some((region, image_id));
        let found = self.connections.open_changes(since, image).await?;
        Ok(Self::readable(found))
    }

    /// Changes of such an image that have no outcome. Whoever has the image's lock, and nothing under way, knows that nobody is at
    /// work on them.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn pending_of(
        &self,
        region: &Region,
        image_id: &ImageId,
    ) -> Result<Vec<OpenChange>, StoreError> {
        Ok(match &self.connections {
            ReadConnections::File(_) => Vec::new(),
            ReadConnections::Server(connections) => {
                Self::readable(connections.pending_of(region, image_id).await?)
            }
        })
    }

    /// Whether a gateway that lives is about to write the outcome of a change of such an image.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub async fn is_being_settled(
        &self,
        region: &Region,
        image_id: &ImageId,
    ) -> Result<bool, StoreError> {
        match &self.connections {
            ReadConnections::File(_) => Ok(false),
            ReadConnections::Server(connections) => {
                connections.is_being_settled(region, image_id).await
            }
        }
    }

    fn readable(found: Vec<OpenRow>) -> Vec<OpenChange> {
        let readable = found.into_iter().filter_map(
            |(region, image_id, account, operation, event_id, recorded_at)| {
                Some(OpenChange {
                    region: region.parse().ok()?,
                    image_id: image_id.parse().ok()?,
                    account_id: account_id(account)?,
                    operation: change_operation(&operation)?,
                    event_id: event_id.parse().map(EventId::new).ok()?,
                    ended_at: recorded_at.map(Timestamp::from_micros),
                })
            },
        );
        readable.collect()
    }

    /// How the database means to find a page of events.
    #[cfg(test)]
    pub(super) async fn plan(
        &self,
        filter: &Filter,
        order: Order,
        after: Option<EventId>,
    ) -> String {
        let statement = query(filter, order, 10, after).page_text();
        self.file_connections().plan(&statement).await.join("; ")
    }

    /// How the database means to count events.
    #[cfg(test)]
    pub(super) async fn plan_of_counts(&self, filter: &Filter) -> String {
        let statement = query(filter, Order::Ascending, 0, None).counts_text();
        self.file_connections().plan(&statement).await.join("; ")
    }

    /// How the database means to find the last changes.
    #[cfg(test)]
    pub(super) async fn plan_of_last_changes(&self) -> String {
        self.file_connections()
            .plan_of_last_changes()
            .await
            .join("; ")
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.connections.close().await;
    }
}

fn query(filter: &Filter, order: Order, limit: usize, after: Option<EventId>) -> EventsQuery<'_> {
    EventsQuery {
        filter,
        id_range: (filter.from.map(first_id_at), filter.to.map(first_id_at)),
        after,
        newest_first: order == Order::Descending,
        limit: i64::try_from(limit).unwrap_or(i64::MAX),
    }
}

fn event_id(row: &EventRow) -> Result<EventId, StoreError> {
    let damaged = StoreError::Row {
        sequence: row.sequence,
        column: "event_id",
    };
    row.event_id.parse().map(EventId::new).map_err(|_| damaged)
}

/// The intent's facts as its outcome will repeat them, and when it was sealed.
pub(super) fn recalled(row: EventRow) -> Result<(Recalled, Timestamp), StoreError> {
    let damaged = |column| StoreError::Row {
        sequence: row.sequence,
        column,
    };
    let event_id = event_id(&row)?;
    let operation = change_operation(&row.operation).ok_or(damaged("operation"))?;
    let account_id = row.account_id.and_then(account_id);
    let recalled = Recalled {
        event_id,
        operation,
        image_id: row.image_id.parse().map_err(|_| damaged("image_id"))?,
        account_id: account_id.ok_or(damaged("account_id"))?,
        region: row.region.parse().map_err(|_| damaged("region"))?,
        subject: row.subject,
        request_id: row.request_id,
    };
    Ok((recalled, id_time(event_id)))
}

fn last_change(row: LastRow) -> Result<(AccountId, LastChange), StoreError> {
    let damaged = |column| StoreError::Row {
        sequence: row.sequence,
        column,
    };
    let account_id = account_id(row.account_id).ok_or(damaged("account_id"))?;
    let event_id = row.event_id.parse().map(EventId::new);
    let operation = change_operation(&row.operation).ok_or(damaged("operation"))?;
    let last = LastChange {
        event_id: event_id.map_err(|_| damaged("event_id"))?,
        operation,
        outcome: row.outcome.parse().map_err(|_| damaged("outcome"))?,
        completed_at: Timestamp::from_micros(row.recorded_at),
        subject: row.subject,
        reason: row.reason,
    };
    Ok((account_id, last))
}

fn change_operation(word: &str) -> Option<Operation> {
    match word.parse().ok()? {
        EventOperation::Change(operation) => Some(operation),
        EventOperation::Update => None,
    }
}

fn account_id(number: i64) -> Option<AccountId> {
    AccountId::try_from(u64::try_from(number).ok()?).ok()
}
