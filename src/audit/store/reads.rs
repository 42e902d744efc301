//! Reading, whichever engine holds the trail.

use super::query::{Asker, EventRow, EventsQuery, LastRow, OpenRow, PlaceRow};
use super::{StoreError, postgres, sqlite};
use crate::audit::entry::CellRef;
use crate::config::TrailPlace;
use crate::domain::{AccountId, EventId, ImageId, Region, Timestamp};

/// Connections for reads; never the writer's. Each statement is one short read.
#[derive(Debug, Clone)]
pub(in crate::audit) enum ReadConnections {
    File(sqlite::ReadConnections),
    Server(postgres::ReadConnections),
}

/// A row of the trail as it is stored.
#[derive(Debug)]
pub(in crate::audit) enum StoredRow {
    File(sqlite::StoredRow),
    Server(postgres::FeedRow),
}

impl StoredRow {
    /// One of the hashed columns.
    pub(in crate::audit) fn cell(&self, index: usize) -> Result<CellRef<'_>, StoreError> {
        match self {
            Self::File(row) => row.cell(index),
            Self::Server(row) => row.cell(index),
        }
    }

    /// The hash that the row claims.
    pub(in crate::audit) fn claimed_hash(&self) -> Result<CellRef<'_>, StoreError> {
        match self {
            Self::File(row) => row.claimed_hash(),
            Self::Server(row) => row.claimed_hash(),
        }
    }
}

impl ReadConnections {
    /// Opens the trail of another process, or of none, for reading. Nothing is made where it does not exist.
    pub(in crate::audit) async fn open(place: &TrailPlace) -> Result<Self, StoreError> {
        Ok(match place {
            TrailPlace::File(path) => Self::File(sqlite::ReadConnections::open(path, false).await?),
            TrailPlace::Server(url) => {
                let connections = postgres::ReadConnections::new(url, false)?;
                connections.check().await?;
                Self::Server(connections)
            }
        })
    }

    /// The first rows of events with their outcomes, in the order asked.
    pub(in crate::audit) async fn events(
        &self,
        asker: &Asker,
        query: &EventsQuery<'_>,
    ) -> Result<Vec<EventRow>, StoreError> {
        match self {
            Self::File(connections) => connections.events(asker, query).await,
            Self::Server(connections) => connections.events(asker, query).await,
        }
    }

    /// How many events of each outcome there are.
    pub(in crate::audit) async fn counts(
        &self,
        asker: &Asker,
        query: &EventsQuery<'_>,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        match self {
            Self::File(connections) => connections.counts(asker, query).await,
            Self::Server(connections) => connections.counts(asker, query).await,
        }
    }

    /// One event, and where its rows stand in their chains, oldest first.
    pub(in crate::audit) async fn event(
        &self,
        id: EventId,
    ) -> Result<Option<(EventRow, Vec<PlaceRow>)>, StoreError> {
        match self {
            Self::File(connections) => connections.event(id).await,
            Self::Server(connections) => connections.event(id).await,
        }
    }

    /// Up to `limit` events behind `after`, oldest first, that an earlier run left without an outcome.
    pub(in crate::audit) async fn pending(
        &self,
        after: Option<EventId>,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        match self {
            Self::File(connections) => connections.pending(after, limit).await,
            Self::Server(connections) => connections.pending(after, limit).await,
        }
    }

    /// For each account that has one, the last event of its share of the image that succeeded or, unless only those
    /// are asked for, is unknown.
    pub(in crate::audit) async fn last_changes(
        &self,
        region: &Region,
        image_id: &ImageId,
        accounts: &[AccountId],
        only_succeeded: bool,
    ) -> Result<Vec<LastRow>, StoreError> {
        match self {
            Self::File(connections) => {
                let changes = connections.last_changes(region, image_id, accounts, only_succeeded);
                changes.await
            }
            Self::Server(connections) => {
                let changes = connections.last_changes(region, image_id, accounts, only_succeeded);
                changes.await
            }
        }
    }

    /// Changes of which a call may take effect yet, and that nobody looked after; of one image, where the engine can tell.
    pub(in crate::audit) async fn open_changes(
        &self,
        since: Timestamp,
        image: Option<(&Region, &ImageId)>,
    ) -> Result<Vec<OpenRow>, StoreError> {
        match self {
            Self::File(connections) => connections.open_changes(since).await,
            Self::Server(connections) => connections.open_changes(since, image).await,
        }
    }

    /// Closes all connections.
    pub(in crate::audit) async fn close(&self) {
        match self {
            Self::File(connections) => connections.close().await,
            Self::Server(connections) => connections.close().await,
        }
    }
}
