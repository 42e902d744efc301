//! What is asked of a trail, and what it answers, whichever engine holds it.

use serde::Deserialize;
use sqlx::FromRow;

use crate::audit::columns::event_columns;
use crate::audit::filter::Filter;
use crate::audit::kinds::{self, Kind};
use crate::domain::{EventId, Party};

/// Who asks, and for how much at once.
#[derive(Debug, Clone, Default)]
pub(in crate::audit) struct Asker {
    /// On whose behalf; nobody else waits for a process of its own.
    pub(in crate::audit) party: Option<Party>,
    /// Whether it walks the trail.
    pub(in crate::audit) exports: bool,
}

/// What events are selected by.
#[derive(Debug)]
pub(in crate::audit) struct EventsQuery<'a> {
    pub(in crate::audit) filter: &'a Filter,
    /// The ids that bound it: at or after the first, before the second.
    pub(in crate::audit) id_range: (Option<EventId>, Option<EventId>),
    /// The last event of the page before.
    pub(in crate::audit) after: Option<EventId>,
    pub(in crate::audit) newest_first: bool,
    pub(in crate::audit) limit: i64,
}

macro_rules! event_row {
    (
        asked { $($(#[doc = $asked_doc:literal])+ $asked_column:ident $asked:ident: $asked_kind:ty,)+ }
        why { $($(#[doc = $why_doc:literal])+ $why_column:ident $why:ident: $why_kind:ty,)+ }
        ended { $($(#[doc = $ended_doc:literal])+ $ended_column:ident $ended:ident: $ended_kind:ty,)+ }
        more { $($(#[doc = $more_doc:literal])+ $more_column:ident $more:ident: $more_kind:ty,)+ }
    ) => {
        /// An event as its rows say.
        #[derive(Debug, Deserialize)]
        pub(in crate::audit) struct EventRow {
            pub(in crate::audit) sequence: i64,
            pub(in crate::audit) kind: String,
            pub(in crate::audit) event_id: String,
            pub(in crate::audit) completed_at: Option<i64>,
            $(pub(in crate::audit) $asked: <$asked_kind as Kind>::Stored,)+
            $(pub(in crate::audit) $why: <$why_kind as Kind>::Stored,)+
            $(pub(in crate::audit) $ended: <$ended_kind as Kind>::Stored,)+
            $(pub(in crate::audit) $more: <$more_kind as Kind>::Stored,)+
        }
    };
}

event_columns!(event_row);

/// Kind, chain, sequence, time and hash of a row.
pub(in crate::audit) type PlaceRow = (String, String, i64, i64, String);

/// The outcome of such an event, with the reason of its intent.
#[derive(Debug, FromRow)]
pub(in crate::audit) struct LastRow {
    pub(in crate::audit) account_id: i64,
    pub(in crate::audit) sequence: i64,
    pub(in crate::audit) event_id: String,
    pub(in crate::audit) operation: String,
    pub(in crate::audit) outcome: String,
    pub(in crate::audit) subject: String,
    pub(in crate::audit) recorded_at: i64,
    pub(in crate::audit) reason: Option<String>,
}

/// Region, image, account, operation and event of a change of which a call may take effect yet.
pub(in crate::audit) type OpenRow = (String, String, i64, String, String, Option<i64>);
