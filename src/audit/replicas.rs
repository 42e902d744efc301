//! What gateways of one trail settle among them, over the database that they share.
//!
//! Who may change an image ([`Locks`]), and what becomes of what one of them left ([`Neighbours`]). Neither is part of the trail:
//! what is written there is about now, and is neither hashed nor verified.

use super::Recalled;
use super::lease::Lease;
use super::reader::recalled;
use super::store::{self, LockKey, StoreError};
pub use super::store::{LockWord, Locks};
use crate::config::ServerUrl;
use crate::domain::Timestamp;

/// The doors to the other gateways of a trail.
#[derive(Debug)]
pub struct Replicas {
    /// Who may change an image.
    pub locks: Locks,
    /// What others left.
    pub neighbours: Neighbours,
    /// Whether this gateway may act.
    pub lease: Lease,
}

impl Replicas {
    pub(super) fn new(url: &ServerUrl, lease: Lease) -> Self {
        Self {
            locks: Locks::new(url),
            neighbours: Neighbours(store::Neighbours::new(url)),
            lease,
        }
    }
}

/// The other gateways of a trail: which of them are gone, and what they left.
#[derive(Debug)]
pub struct Neighbours(store::Neighbours);

impl Neighbours {
    /// Opens what is needed for this chain; returns whether that is new.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn open(&mut self, chain_id: &str) -> Result<bool, StoreError> {
        self.0.open(chain_id).await
    }

    /// Begins anew: the chain is another.
    pub fn hang_up(&mut self) {
        self.0.hang_up();
    }

    /// Looks which gateways are gone and, unless they may yet come back, `ends` their chains, each by one gateway alone. Gives the names
    /// of those.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn look(&mut self, chain_id: &str, ends: bool) -> Result<Vec<String>, StoreError> {
        self.0.look(chain_id, ends).await
    }

    /// Gives the locks of gateways that are gone to who waits for them.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn free_locks(&mut self) -> Result<(), StoreError> {
        self.0.free_locks().await
    }

    /// Images of which changes may take effect late, and that nobody looks after.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn forsaken(&mut self) -> Result<Vec<LockKey>, StoreError> {
        self.0.forsaken().await
    }

    /// Forgets what nobody asks for any more.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn forget(&mut self) -> Result<(), StoreError> {
        self.0.forget().await
    }

    /// Takes over, for this chain and for nobody else, intents that others left without an outcome: what the outcome will
    /// repeat of each, and when it began. Gives those that were taken over before, too, until they have one.
    ///
    /// # Errors
    /// Where the database does not answer, or holds what no gateway writes.
    pub async fn adopt(
        &mut self,
        chain_id: &str,
    ) -> Result<Vec<(Recalled, Timestamp)>, StoreError> {
        let rows = self.0.adopt(chain_id).await?;
        rows.into_iter().map(recalled).collect()
    }
}
