//! Reads: each is a call of its own, as soon as it may be made, and again where that may help.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::domain::{AccountId, Deadline, Party};
use crate::upstream::{CallError, Connection};

use super::machine::{LaneKey, LookId, NoTurn, ReadId, ReadTerms};
use super::{Lanes, Shared};

#[derive(Debug)]
pub(super) enum ReadWord {
    Go(Connection),
    NoTurn(NoTurn),
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sharing) enum ReadError {
    /// Too many reads wait.
    Full,
    /// It never had its turn.
    NoTurn(NoTurn),
    /// Its time was up while it was called.
    TimeUp,
    /// The last call failed so.
    Failed(CallError),
}

impl Lanes {
    /// Asks the upstream something, as soon as a call may be made, and again where that may help.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(in crate::sharing) async fn read<T, F>(
        &self,
        asked: ReadTerms,
        call: impl Fn(Connection) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        self.0.read(asked, call).await
    }
}

impl Lanes {
    /// Whether somebody who read once, and let go of his lane, may read again, and after what time.
    pub(in crate::sharing) fn another_read(
        &self,
        error: &CallError,
        retries: u32,
        deadline: Deadline,
    ) -> Option<Duration> {
        let deadline = deadline.instant();
        self.0
            .with(|state, now| state.machine.another_read(now, error, retries, deadline))
    }
}

impl Shared {
    /// Looks once what a call that ended unknown did.
    pub(super) async fn look(
        self: Arc<Self>,
        id: LookId,
        (region, image_id): LaneKey,
        until: Instant,
    ) {
        let asked = ReadTerms {
            party: Party::Gateway,
            holds: false,
            deadline: until,
            max_retries: 0,
        };
        let listed = self.read(asked, |connection| {
            self.upstream.describe(&region, &image_id, connection)
        });
        let listed = listed.await.ok();
        let listed: Option<Vec<AccountId>> =
            listed.map(|listed| listed.iter().map(|account| account.account_id).collect());
        self.with(|state, _| state.machine.looked(id, listed.as_deref()));
    }

    async fn read<T, F>(
        self: &Arc<Self>,
        asked: ReadTerms,
        call: impl Fn(Connection) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let deadline = asked.deadline;
        let (sender, mut word) = oneshot::channel();
        let id = self.with(|state, now| {
            let id = state.machine.read(now, asked)?;
            state.reads.insert(id, sender);
            Some(id)
        });
        let mut reading = Reading {
            id: Some(id.ok_or(ReadError::Full)?),
            shared: Arc::clone(self),
        };
        let mut failure = None;
        loop {
            let turn = tokio::select! {
                biased;
                turn = &mut word => turn,
                () = self.tasks.giving_up() => Ok(ReadWord::NoTurn(NoTurn::TimeUp)),
            };
            let connection = match turn {
                Ok(ReadWord::Go(connection)) => connection,
                Ok(ReadWord::NoTurn(why)) => {
                    return Err(failure.map_or(ReadError::NoTurn(why), ReadError::Failed));
                }
                Err(_) => return Err(ReadError::NoTurn(NoTurn::TimeUp)),
            };
            let result = tokio::select! {
                result = timeout_at(deadline.into(), call(connection)) => result.ok(),
                () = self.tasks.giving_up() => None,
            };
            let Some(result) = result else {
                return Err(failure.map_or(ReadError::TimeUp, ReadError::Failed));
            };
            let (sender, next) = oneshot::channel();
            let again = reading.answered(result.as_ref().err(), sender);
            match result {
                Ok(read) => return Ok(read),
                Err(error) if again => failure = Some(error),
                Err(error) => return Err(ReadError::Failed(error)),
            }
            word = next;
        }
    }
}

/// A read that the machine knows of; dropped, the machine forgets it.
struct Reading {
    id: Option<ReadId>,
    shared: Arc<Shared>,
}

impl Reading {
    fn answered(&mut self, error: Option<&CallError>, next: oneshot::Sender<ReadWord>) -> bool {
        let Some(id) = self.id else {
            return false;
        };
        let again = self.shared.with(|state, now| {
            state.reads.insert(id, next);
            let again = state.machine.read_answered(now, id, error);
            if !again {
                state.reads.remove(&id);
            }
            again
        });
        if !again {
            self.id = None;
        }
        again
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.with(|state, now| {
                state.reads.remove(&id);
                state.machine.read_dropped(now, id);
            });
        }
    }
}
