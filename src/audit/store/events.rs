//! Events by filter: which index a page or a count is read by, and the SQL for it.
//!
//! Every filter has an index that gives its events in the order of pages. With several filters the one that
//! commonly leaves the fewest events leads, and the others are checked row by row; `INDEXED BY` holds SQLite
//! to that, since without statistics it guesses.

use serde::Deserialize;
use sqlx::{Executor, QueryBuilder, Sqlite};

use super::StoreError;
use super::limits::read_failed;
use crate::audit::columns::event_columns;
use crate::audit::filter::{EventOperation, Filter, OutcomeFilter};
use crate::audit::kinds::{self, Kind};
use crate::domain::{EventId, ImageId, Outcome};

/// What events are selected by.
#[derive(Debug)]
pub(crate) struct EventsQuery<'a> {
    pub(crate) filter: &'a Filter,
    /// The ids that bound it: at or after the first, before the second.
    pub(crate) id_range: (Option<EventId>, Option<EventId>),
    /// The last event of the page before.
    pub(crate) after: Option<EventId>,
    pub(crate) newest_first: bool,
    pub(crate) limit: i64,
}

const SELECT_COUNTS: &str = "SELECT COALESCE(o.outcome, f.outcome, 'pending'), COUNT(*) ";
/// An intent or a denial; the partial indexes are over these.
pub(super) const IS_FIRST_ROW: &str = "f.kind IN ('intent', 'denial')";
pub(super) const FIRST_ROWS: &str = "FROM audit_entries AS f INDEXED BY ";
pub(super) const WITH_OUTCOME: &str =
    " LEFT JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome'";
/// CROSS JOIN keeps SQLite from choosing another outer table, and with it another order.
const BY_ITS_OUTCOME: &str =
    " CROSS JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome'";
const FROM_OUTCOMES: &str = "FROM audit_entries AS o INDEXED BY audit_entries_outcome \
     CROSS JOIN audit_entries AS f ON f.event_id = o.event_id AND f.kind = 'intent'";
pub(super) const FROM_PENDING: &str = "FROM audit_pending AS p \
     CROSS JOIN audit_entries AS f ON f.event_id = p.event_id AND f.kind = 'intent' \
     LEFT JOIN audit_entries AS o ON o.event_id = p.event_id AND o.kind = 'outcome'";

/// What the events are found by, in the order of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// The events themselves.
    Events,
    /// An index over first rows, whose order is that of their sequence.
    Index(&'static str),
    /// The outcome rows, by the event's id.
    Outcomes,
    /// The denials, by the event's id.
    Denials,
    /// The few intents without an outcome.
    Pending,
}

impl Lead {
    /// The filter that commonly leaves the fewest events.
    fn of(filter: &Filter) -> Self {
        let rarely_asked = filter.operation == Some(EventOperation::Update);
        match filter.outcome {
            Some(OutcomeFilter::Pending) => Self::Pending,
            _ if filter.request_id.is_some() => Self::Index("audit_entries_request"),
            _ if filter.account_id.is_some() => Self::Index("audit_entries_account"),
            _ if filter.image_id.is_some() => Self::Index("audit_entries_image"),
            _ if rarely_asked => Self::Index("audit_entries_operation"),
            Some(OutcomeFilter::Denied) => Self::Denials,
            Some(OutcomeFilter::Completed(outcome)) if outcome != Outcome::Succeeded => {
                Self::Outcomes
            }
            _ if filter.subject.is_some() => Self::Index("audit_entries_subject"),
            Some(OutcomeFilter::Completed(_)) => Self::Outcomes,
            None if filter.operation.is_some() => Self::Index("audit_entries_operation"),
            None => Self::Events,
        }
    }

    /// The column that pages are ordered and bounded by.
    fn key(self) -> &'static str {
        match self {
            Self::Events | Self::Denials => "f.event_id",
            Self::Index(_) => "f.sequence",
            Self::Outcomes => "o.event_id",
            Self::Pending => "p.event_id",
        }
    }
}

impl EventsQuery<'_> {
    /// A page, in the order asked.
    pub(super) fn page(&self) -> QueryBuilder<Sqlite> {
        let mut statement = QueryBuilder::new(SELECT_EVENT);
        let lead = self.push_selection(&mut statement);
        statement.push(" ORDER BY ").push(lead.key());
        statement.push(if self.newest_first { " DESC" } else { " ASC" });
        statement.push(" LIMIT ").push_bind(self.limit);
        statement
    }

    /// How many events of each outcome there are; outcomes without any may be left out.
    pub(super) fn counts(&self) -> QueryBuilder<Sqlite> {
        if *self.filter == self.filter.by_time_and_outcome() {
            return self.counts_by_index_alone();
        }
        let mut statement = QueryBuilder::new(SELECT_COUNTS);
        self.push_selection(&mut statement);
        statement.push(" GROUP BY 1");
        statement
    }

    /// Counts of what the outcome index and the pending intents say by themselves: no row is looked at.
    fn counts_by_index_alone(&self) -> QueryBuilder<Sqlite> {
        let mut statement = QueryBuilder::new("");
        let wanted = |outcome: &Outcome| {
            let wanted = self.filter.outcome;
            wanted.is_none_or(|wanted| wanted == OutcomeFilter::from(*outcome))
        };
        for (index, outcome) in Outcome::ALL.into_iter().filter(wanted).enumerate() {
            statement.push(if index == 0 {
                "SELECT "
            } else {
                " UNION ALL SELECT "
            });
            statement.push_bind(outcome.as_str());
            if outcome == Outcome::Pending {
                statement.push(
                    ", COUNT(*) FROM audit_pending AS p WHERE NOT EXISTS (SELECT 1 FROM audit_entries AS o \
                     WHERE o.event_id = p.event_id AND o.kind = 'outcome')",
                );
                self.push_id_range(&mut statement, "p.event_id");
            } else {
                statement.push(
                    ", COUNT(*) FROM audit_entries AS o INDEXED BY audit_entries_outcome \
                     WHERE o.kind IN ('outcome', 'denial') AND o.outcome = ",
                );
                statement.push_bind(outcome.as_str());
                self.push_id_range(&mut statement, "o.event_id");
            }
        }
        statement
    }

    /// The text of [`Self::page`], to be explained.
    #[cfg(test)]
    pub(crate) fn page_text(&self) -> String {
        self.page().sql().as_str().to_owned()
    }

    /// The text of [`Self::counts`], to be explained.
    #[cfg(test)]
    pub(crate) fn counts_text(&self) -> String {
        self.counts().sql().as_str().to_owned()
    }

    fn push_selection(&self, statement: &mut QueryBuilder<Sqlite>) -> Lead {
        let lead = Lead::of(self.filter);
        self.push_from(statement, lead);
        let filter = self.filter;
        let equal = |statement: &mut QueryBuilder<Sqlite>, column: &str, value: Option<&str>| {
            if let Some(value) = value {
                statement
                    .push(" AND ")
                    .push(column)
                    .push(" = ")
                    .push_bind(value.to_owned());
            }
        };
        equal(statement, "f.subject", filter.subject.as_deref());
        equal(
            statement,
            "f.image_id",
            filter.image_id.as_ref().map(ImageId::as_str),
        );
        equal(
            statement,
            "f.operation",
            filter.operation.map(EventOperation::as_str),
        );
        equal(statement, "f.request_id", filter.request_id.as_deref());
        if let Some(account_id) = filter.account_id {
            statement
                .push(" AND f.account_id = ")
                .push_bind(i64::try_from(account_id.get()).unwrap_or(i64::MAX));
        }
        self.push_id_range(statement, lead.key());
        if let Some(after) = self.after {
            let comparison = if self.newest_first { " < " } else { " > " };
            push_bound(statement, lead.key(), comparison, after);
        }
        lead
    }

    /// The tables, and the conditions that the leading index needs to be used.
    fn push_from(&self, statement: &mut QueryBuilder<Sqlite>, lead: Lead) {
        match lead {
            Lead::Pending => {
                statement
                    .push(FROM_PENDING)
                    .push(" WHERE o.sequence IS NULL");
            }
            Lead::Outcomes => {
                statement
                    .push(FROM_OUTCOMES)
                    .push(" WHERE o.kind IN ('outcome', 'denial')");
            }
            Lead::Events | Lead::Index(_) | Lead::Denials => {
                let (index, kinds) = match lead {
                    Lead::Index(index) => (index, IS_FIRST_ROW),
                    Lead::Denials => ("audit_entries_outcome", "f.kind IN ('outcome', 'denial')"),
                    _ => ("audit_entries_event", IS_FIRST_ROW),
                };
                let by_outcome = matches!(self.filter.outcome, Some(OutcomeFilter::Completed(_)));
                statement.push(FIRST_ROWS).push(index);
                statement.push(if by_outcome {
                    BY_ITS_OUTCOME
                } else {
                    WITH_OUTCOME
                });
                statement.push(" WHERE ").push(kinds);
            }
        }
        match self.filter.outcome {
            Some(OutcomeFilter::Completed(outcome)) => {
                statement
                    .push(" AND o.outcome = ")
                    .push_bind(outcome.as_str());
            }
            Some(OutcomeFilter::Denied) => {
                statement.push(" AND f.outcome = 'denied'");
            }
            Some(OutcomeFilter::Pending) | None => {}
        }
    }

    fn push_id_range(&self, statement: &mut QueryBuilder<Sqlite>, key: &str) {
        let (from, to) = self.id_range;
        if let Some(from) = from {
            push_bound(statement, key, " >= ", from);
        }
        if let Some(to) = to {
            push_bound(statement, key, " < ", to);
        }
    }
}

/// Bounds the key by an event's id. First rows stand in the order of their events, so a bound on ids is one
/// on sequences: the first row at or after the id, or for `>` the last one up to it.
fn push_bound(statement: &mut QueryBuilder<Sqlite>, key: &str, comparison: &str, id: EventId) {
    statement.push(" AND ").push(key).push(comparison);
    if key != "f.sequence" {
        statement.push_bind(id.to_string());
        return;
    }
    let (bound, order, otherwise) = if comparison == " > " {
        ("<= ", "DESC", "0")
    } else {
        (">= ", "ASC", "9223372036854775807")
    };
    statement
        .push(
            "COALESCE((SELECT b.sequence FROM audit_entries AS b INDEXED BY audit_entries_event \
             WHERE b.kind IN ('intent', 'denial') AND b.event_id ",
        )
        .push(bound)
        .push_bind(id.to_string());
    statement
        .push(" ORDER BY b.event_id ")
        .push(order)
        .push(" LIMIT 1), ")
        .push(otherwise)
        .push(")");
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
        pub(crate) struct EventRow {
            pub(crate) sequence: i64,
            pub(crate) kind: String,
            pub(crate) event_id: String,
            pub(crate) completed_at: Option<i64>,
            $(pub(crate) $asked: <$asked_kind as Kind>::Stored,)+
            $(pub(crate) $why: <$why_kind as Kind>::Stored,)+
            $(pub(crate) $ended: <$ended_kind as Kind>::Stored,)+
            $(pub(crate) $more: <$more_kind as Kind>::Stored,)+
        }

        /// What an event has of its first row `f` and of its outcome `o`. It comes as one JSON array: handing 25 values
        /// over from the database's thread takes longer than reading them out of a text.
        pub(super) const SELECT_EVENT: &str = concat!(
            "SELECT json_array(f.sequence, f.kind, f.event_id, o.recorded_at",
            $(", f.", stringify!($asked),)+
            $(", f.", stringify!($why),)+
            $(", COALESCE(o.", stringify!($ended), ", f.", stringify!($ended), ")",)+
            $(", COALESCE(o.", stringify!($more), ", f.", stringify!($more), ")",)+
            ") "
        );
    };
}

event_columns!(event_row);

/// Runs a statement that begins with [`SELECT_EVENT`].
pub(super) async fn fetch_events(
    executor: impl Executor<'_, Database = Sqlite>,
    mut statement: QueryBuilder<Sqlite>,
) -> Result<Vec<EventRow>, StoreError> {
    let rows = statement.build_query_scalar().fetch_all(executor).await;
    let rows: Vec<Vec<u8>> = rows.map_err(read_failed)?;
    let read = |row: &Vec<u8>| serde_json::from_slice(row).map_err(StoreError::Event);
    rows.iter().map(read).collect()
}
