//! Appending, whichever engine holds the trail.

use super::{StoreError, postgres, sqlite};
use crate::audit::chain::{Sealed, Tip};
use crate::audit::entry::LookedAfter;
use crate::domain::EventId;

/// What takes each row of a group.
pub(in crate::audit) type Insert<'a> = &'a mut dyn FnMut(&Sealed<'_>) -> Result<(), StoreError>;

/// The one connection that appends.
#[derive(Debug)]
pub(in crate::audit) enum Appender {
    File(Box<sqlite::Appender>),
    Server(Box<postgres::Appender>),
}

impl Appender {
    /// Appends a group in one transaction, behind `tip`. `fill` makes its rows, as late as can be. When it returns `Ok`, the
    /// group is on disk.
    pub(in crate::audit) async fn append(
        &mut self,
        tip: &mut Tip,
        fill: impl FnOnce(&mut Tip, Insert<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self {
            Self::File(appender) => appender.append(|rows| fill(tip, &mut |row| rows.insert(row))),
            Self::Server(appender) => {
                let mut group = postgres::Group::behind(tip);
                appender.raise(tip);
                let insert = &mut |row: &Sealed<'_>| {
                    group.push(row);
                    Ok(())
                };
                fill(tip, insert)?;
                group.end_at(tip);
                appender.commit(&group).await
            }
        }
    }

    /// After a failure, or before the first row: whether the trail can be written, and where its chain ends. `last` is the end
    /// that the writer knows of.
    pub(in crate::audit) async fn look_again(
        &mut self,
        last: Option<&Tip>,
    ) -> Result<Tip, StoreError> {
        match self {
            Self::File(appender) => appender.look_again(),
            Self::Server(appender) => appender.open(last).await,
        }
    }

    /// Those of these events that have their outcome on disk.
    pub(in crate::audit) async fn closed(
        &mut self,
        events: &[EventId],
    ) -> Result<Vec<EventId>, StoreError> {
        match self {
            Self::File(appender) => {
                let mut closed = Vec::new();
                for event in events {
                    if appender.has_outcome(*event)? {
                        closed.push(*event);
                    }
                }
                Ok(closed)
            }
            Self::Server(appender) => appender.closed(events).await,
        }
    }

    /// Whether others have to know from time to time that this one lives.
    pub(in crate::audit) fn beats(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// Lets them know.
    pub(in crate::audit) async fn beat(&mut self, tip: &mut Tip) -> Result<(), StoreError> {
        match self {
            Self::File(_) => Ok(()),
            Self::Server(appender) => appender.beat(tip).await,
        }
    }

    /// Notes what was looked after, beside the trail.
    pub(in crate::audit) async fn note_looked_after(
        &mut self,
        notes: &[LookedAfter],
    ) -> Result<(), StoreError> {
        match self {
            Self::File(appender) => appender.note_looked_after(notes),
            Self::Server(appender) => appender.note_looked_after(notes).await,
        }
    }

    /// Whether it can be gone on with after a failure that is no commit's, without a look at what is on disk.
    pub(in crate::audit) fn goes_on(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Server(appender) => appender.is_open(),
        }
    }

    /// How long the log before the database is, as the last commit found it.
    pub(in crate::audit) fn log_bytes(&self) -> u64 {
        match self {
            Self::File(appender) => appender.log_bytes(),
            Self::Server(_) => 0,
        }
    }

    /// Folds that log into the database as far as nobody reads from it.
    pub(in crate::audit) fn fold_log(&self) -> Result<(), StoreError> {
        match self {
            Self::File(appender) => appender.fold_log(),
            Self::Server(_) => Ok(()),
        }
    }

    /// What the store needs from time to time, when everybody has their answer.
    pub(in crate::audit) fn look_after(&mut self, last: i64) -> Result<(), StoreError> {
        match self {
            Self::File(appender) => {
                let batch = appender.add_batch(last);
                // The log is folded in whatever came of the batch.
                let folded = appender.fold_long_log();
                batch.and(folded)
            }
            Self::Server(_) => Ok(()),
        }
    }

    /// Closes it in order.
    pub(in crate::audit) async fn close(self) -> Result<(), StoreError> {
        match self {
            Self::File(appender) => appender.close(),
            Self::Server(appender) => appender.close().await,
        }
    }
}
