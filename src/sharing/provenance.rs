//! How an account that has an image came to have it, as far as the trail knows.

use std::collections::BTreeMap;

use crate::audit::{LastChange, Reader, StoreError};
use crate::domain::{AccountId, EventId, ImageId, Operation, Outcome, Region, Timestamp};

/// Where a share comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The gateway made it, by this event.
    Gateway(Standing),
    /// The trail has no share of it that still stands: somebody else made it.
    Outside,
    /// The last change of it may have taken effect or not.
    Unknown,
}

/// The share that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its event.
    pub event_id: EventId,
    /// When it was done.
    pub shared_at: Timestamp,
    /// Who asked for it.
    pub shared_by: String,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl Origin {
    fn of(last: Option<LastChange>) -> Self {
        let Some(last) = last else {
            return Self::Outside;
        };
        match (last.outcome, last.operation) {
            (Outcome::Succeeded, Operation::Share) => Self::Gateway(Standing {
                event_id: last.event_id,
                shared_at: last.completed_at,
                shared_by: last.subject,
                reason: last.reason,
            }),
            (Outcome::Succeeded, Operation::Unshare) => Self::Outside,
            _ => Self::Unknown,
        }
    }
}

/// Asks the trail about each of `accounts`, in their order.
pub(super) async fn origins(
    reader: &Reader,
    region: &Region,
    image_id: &ImageId,
    accounts: &[AccountId],
) -> Result<Vec<Origin>, StoreError> {
    let mut known: BTreeMap<AccountId, LastChange> =
        reader.last_changes(region, image_id, accounts).await?;
    let of = |account| Origin::of(known.remove(account));
    Ok(accounts.iter().map(of).collect())
}
