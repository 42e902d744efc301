//! Turns: nobody's slow questions keep others from asking.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::StoreError;
use crate::domain::Party;

/// How many reads of one party may be under way at once: one who asks slow questions keeps nobody else waiting.
#[derive(Debug, Clone)]
pub(in crate::audit::store) struct Turns {
    of_party: usize,
    wait: Duration,
    /// Those that have some under way, or wait.
    parties: Arc<Mutex<HashMap<Party, Arc<Semaphore>>>>,
}

/// A read that counts for its party.
pub(in crate::audit::store) struct Turn {
    turns: Turns,
    party: Party,
    place: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// So many of each party; the others wait so long.
    pub(in crate::audit::store) fn of(of_party: usize, wait: Duration) -> Self {
        Self {
            of_party,
            wait,
            parties: Arc::default(),
        }
    }

    /// Waits for a turn.
    pub(in crate::audit::store) async fn take(&self, party: &Party) -> Result<Turn, StoreError> {
        let mut turn = Turn {
            turns: self.clone(),
            party: party.clone(),
            place: None,
        };
        let places = {
            let mut parties = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
            let places = parties.entry(party.clone());
            let places = places.or_insert_with(|| Arc::new(Semaphore::new(self.of_party)));
            Arc::clone(places)
        };
        let place = timeout(self.wait, places.acquire_owned()).await;
        turn.place = place.map_err(|_| StoreError::Busy)?.ok();
        Ok(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.place = None;
        let parties = self.turns.parties.lock();
        let mut parties = parties.unwrap_or_else(PoisonError::into_inner);
        // Whoever waits or reads holds the semaphore, too.
        if parties
            .get(&self.party)
            .is_some_and(|places| Arc::strong_count(places) == 1)
        {
            parties.remove(&self.party);
        }
    }
}
