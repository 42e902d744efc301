//! Which events, in which order, and where a page of them ended.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::{AccountId, EventId, ImageId, Operation, Outcome, Timestamp};

/// What an event's `operation` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOperation {
    /// One change.
    Change(Operation),
    /// A bulk request that was denied as a whole.
    Update,
}

impl EventOperation {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::Change(Operation::Share),
        Self::Change(Operation::Unshare),
        Self::Update,
    ];

    /// The word of the API and the trail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Change(operation) => operation.as_str(),
            Self::Update => "update",
        }
    }
}

/// The text is no operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be share, unshare or update")]
pub struct InvalidOperation;

/// Reads the word of the API and the trail.
impl FromStr for EventOperation {
    type Err = InvalidOperation;

    fn from_str(word: &str) -> Result<Self, InvalidOperation> {
        let mut all = Self::ALL.into_iter();
        all.find(|operation| operation.as_str() == word)
            .ok_or(InvalidOperation)
    }
}

/// An outcome to filter by, told apart by where it stands in the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeFilter {
    /// No outcome yet.
    Pending,
    /// Refused; intent and outcome in one row.
    Denied,
    /// Any that stands in a row of its own.
    Completed(Outcome),
}

impl From<Outcome> for OutcomeFilter {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Pending => Self::Pending,
            Outcome::Denied => Self::Denied,
            Outcome::Succeeded | Outcome::InvalidAccount | Outcome::Failed | Outcome::Unknown => {
                Self::Completed(outcome)
            }
        }
    }
}

/// Which events; absent members do not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// At or after.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// The subject, exactly.
    pub subject: Option<String>,
    /// The image.
    pub image_id: Option<ImageId>,
    /// The account.
    pub account_id: Option<AccountId>,
    /// The operation.
    pub operation: Option<EventOperation>,
    /// The outcome as it is now.
    pub outcome: Option<OutcomeFilter>,
    /// The request id, exactly.
    pub request_id: Option<String>,
}

impl Filter {
    /// The same without what needs a look at an event's own row.
    pub(super) fn by_time_and_outcome(&self) -> Self {
        Self {
            from: self.from,
            to: self.to,
            outcome: self.outcome,
            ..Self::default()
        }
    }
}

/// Which end of the trail comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Newest first.
    #[default]
    Descending,
    /// Oldest first.
    Ascending,
}

/// Where a page ended, and which query it was a page of. Opaque outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    after: EventId,
    query: [u8; 8],
}

/// The text is no cursor, or one of another query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the next_cursor of a page of the same query")]
pub struct InvalidCursor;

const CURSOR_VERSION: u8 = 1;

impl Cursor {
    /// The cursor behind `after` in the pages of this query.
    #[must_use]
    pub fn new(after: EventId, filter: &Filter, order: Order) -> Self {
        Self {
            after,
            query: fingerprint(filter, order),
        }
    }

    /// The event that the page before ended with.
    #[must_use]
    pub fn after(self) -> EventId {
        self.after
    }

    /// Reads a cursor that a page of this query gave.
    ///
    /// # Errors
    /// [`InvalidCursor`] for anything else, cursors of other filters or orders among it.
    pub fn parse(text: &str, filter: &Filter, order: Order) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let bytes: [u8; 25] = bytes.try_into().map_err(|_| InvalidCursor)?;
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[9..]);
        let cursor = Self::new(EventId::new(Uuid::from_bytes(id)), filter, order);
        if cursor.to_string() == text {
            Ok(cursor)
        } else {
            Err(InvalidCursor)
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = vec![CURSOR_VERSION];
        bytes.extend(self.query);
        bytes.extend(self.after.as_uuid().as_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

fn fingerprint(filter: &Filter, order: Order) -> [u8; 8] {
    let digest = Sha256::digest(format!("{order:?} {filter:?}"));
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_in_its_own_query_and_in_no_other(bits in any::<u128>(), subject in "\\PC{1,10}") {
            let after = EventId::new(Uuid::from_u128(bits));
            let filter = Filter { subject: Some(subject), ..Filter::default() };
            let text = Cursor::new(after, &filter, Order::Ascending).to_string();
            prop_assert_eq!(Cursor::parse(&text, &filter, Order::Ascending).map(Cursor::after), Ok(after));
            prop_assert_eq!(Cursor::parse(&text, &filter, Order::Descending), Err(InvalidCursor));
            prop_assert_eq!(Cursor::parse(&text, &Filter::default(), Order::Ascending), Err(InvalidCursor));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,50}|[A-Za-z0-9_-]{0,50}") {
            prop_assert!(Cursor::parse(&text, &Filter::default(), Order::Descending).is_err());
        }
    }
}
