//! Looks at the trail, over connections of its own.
//!
//! Paging is by key: a page costs what a page costs, wherever it lies. Each statement is one short read.

use std::path::Path;

use crate::domain::{AccountId, EventId, Timestamp};

use super::chain::{first_id_at, id_time};
use super::entry::Recalled;
use super::event::{EntryPlace, Event, EventOperation, EventWithEntries, Filter, Order};
use super::store::{EventRow, EventsQuery, ReadConnections, StoreError};

/// Pending intents read at once.
const PENDING_PAGE: usize = 1000;

/// The reader's door. Clones share connections.
#[derive(Debug, Clone)]
pub struct Reader(ReadConnections);

/// A page of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order asked.
    pub events: Vec<Event>,
    /// The last event, where more follow it.
    pub next: Option<EventId>,
}

impl Reader {
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        ReadConnections::open(path).await.map(Self)
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
            .0
            .events(&query(filter, order, limit + 1, after))
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
        let Some(row) = self.0.event(id).await? else {
            return Ok(None);
        };
        let place = |(kind, chain_id, sequence, recorded_at, hash)| EntryPlace {
            kind,
            chain_id,
            sequence,
            recorded_at: Timestamp::from_micros(recorded_at).to_string(),
            hash,
        };
        let entries = self.0.places(id).await?.into_iter().map(place).collect();
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
        let mut after = String::new();
        loop {
            let rows = self
                .0
                .pending(&after, i64::try_from(PENDING_PAGE).unwrap_or(i64::MAX))
                .await?;
            let Some(last) = rows.last() else {
                return Ok(pending);
            };
            after.clone_from(&last.event_id);
            for row in rows {
                pending.push(recalled(row)?);
            }
        }
    }

    /// How the database means to find a page of events.
    #[cfg(test)]
    pub(super) async fn plan(&self, filter: &Filter, order: Order) -> Vec<String> {
        self.0.plan(&query(filter, order, 10, None)).await
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.0.close().await;
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
fn recalled(row: EventRow) -> Result<(Recalled, Timestamp), StoreError> {
    let damaged = |column| StoreError::Row {
        sequence: row.sequence,
        column,
    };
    let event_id = event_id(&row)?;
    let operation = match EventOperation::from_word(&row.operation) {
        Some(EventOperation::Change(operation)) => operation,
        Some(EventOperation::Update) | None => return Err(damaged("operation")),
    };
    let account_id = row.account_id.and_then(|number| u64::try_from(number).ok());
    let account_id = account_id.and_then(|number| AccountId::try_from(number).ok());
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
