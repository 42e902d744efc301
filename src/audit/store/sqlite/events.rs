//! Events by filter: which index a page or a count is read by, and the SQL for it.
//!
//! Every filter has an index that gives its events in the order of pages. With several filters the one that
//! commonly leaves the fewest events leads, and the others are checked row by row; `INDEXED BY` holds SQLite
//! to that, since without statistics it guesses.
//!
//! Some indexes are kept in batches (`migrations/sqlite/0005_batched_indexes.sql`). What is read by one of them is read
//! in two parts that SQLite merges: what the batches hold, and the few rows behind the last batch, one by one.

use sqlx::{Executor, QueryBuilder, Sqlite};

use super::StoreError;
use super::lead::Part;
use super::limits::read_failed;
use crate::audit::columns::event_columns;
use crate::audit::filter::{EventOperation, OutcomeFilter};
use crate::audit::store::{EventRow, EventsQuery, Lead};
use crate::domain::{EventId, ImageId, Outcome};

const SELECT_OUTCOME: &str = "SELECT COALESCE(o.outcome, f.outcome, 'pending') AS outcome ";
/// An intent or a denial; the partial indexes are over these.
pub(super) const IS_FIRST_ROW: &str = "f.kind IN ('intent', 'denial')";
pub(super) const FIRST_ROWS: &str = "FROM audit_entries AS f INDEXED BY ";
pub(super) const WITH_OUTCOME: &str =
    " LEFT JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome'";
/// CROSS JOIN keeps SQLite from choosing another outer table, and with it another order.
const BY_ITS_OUTCOME: &str =
    " CROSS JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome'";
/// What an index of `audit_filters` finds; it is named by its column.
const FROM_FILTERS: &str = "FROM audit_filters AS i INDEXED BY audit_filters_";
/// What it says there is what the entry says.
const ROW_OF_FILTER: &str = " CROSS JOIN audit_entries AS f ON f.sequence = i.sequence AND f.";
const FROM_OUTCOMES: &str = "FROM audit_entries AS o INDEXED BY audit_entries_outcome \
     CROSS JOIN audit_entries AS f ON f.event_id = o.event_id AND f.kind = 'intent'";
/// A row of the last batch may have its outcome by now.
const FROM_PENDING: &str = "FROM audit_pending AS p \
     CROSS JOIN audit_entries AS f ON f.sequence = p.sequence";
/// The rows that no batch holds yet.
const FROM_TAIL: &str = "FROM audit_entries AS f NOT INDEXED";
/// The sign keeps the bound from being what rows are found by.
const IN_BATCHES: &str = "+f.sequence <= (SELECT sequence FROM audit_indexed)";
const IN_TAIL: &str = "f.sequence > (SELECT sequence FROM audit_indexed)";

impl EventsQuery<'_> {
    /// A page, in the order asked.
    pub(super) fn page(&self) -> QueryBuilder<Sqlite> {
        let mut statement = QueryBuilder::new("");
        let lead = Lead::of(self.filter);
        self.push_selection(&mut statement, lead, SELECT_EVENT);
        statement.push(" ORDER BY ");
        // Two parts are merged by a column that both give.
        statement.push(if lead.is_batched() {
            "2"
        } else {
            lead.key(Part::Batched)
        });
        statement.push(if self.newest_first { " DESC" } else { " ASC" });
        statement.push(" LIMIT ").push_bind(self.limit);
        statement
    }

    /// How many events of each outcome there are; outcomes without any may be left out.
    pub(super) fn counts(&self) -> QueryBuilder<Sqlite> {
        if *self.filter == self.filter.by_time_and_outcome() {
            return self.counts_by_index_alone();
        }
        let mut statement = QueryBuilder::new("SELECT outcome, COUNT(*) FROM (");
        self.push_selection(&mut statement, Lead::of(self.filter), SELECT_OUTCOME);
        statement.push(") GROUP BY 1");
        statement
    }

    /// Counts of what the outcome index and the pending intents say by themselves: no row but theirs is looked at.
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
            statement.push(", COUNT(*) FROM ");
            if outcome == Outcome::Pending {
                statement.push("(");
                self.push_selection(&mut statement, Lead::Pending, SELECT_OUTCOME);
                statement.push(")");
            } else {
                statement.push(
                    "audit_entries AS o INDEXED BY audit_entries_outcome \
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

    /// `what` of the events, and behind it the key where the lead has two parts.
    fn push_selection(&self, statement: &mut QueryBuilder<Sqlite>, lead: Lead, what: &str) {
        if !lead.is_batched() {
            statement.push(what);
            self.push_part(statement, lead, Part::Batched);
            return;
        }
        for part in [Part::Batched, Part::Tail] {
            if part == Part::Tail {
                statement.push(" UNION ALL ");
            }
            statement
                .push(what)
                .push(", ")
                .push(lead.key(part))
                .push(" ");
            self.push_part(statement, lead, part);
        }
    }

    fn push_part(&self, statement: &mut QueryBuilder<Sqlite>, lead: Lead, part: Part) {
        self.push_from(statement, lead, part);
        let filter = self.filter;
        let table = |column: &str| match lead {
            // What leads has to be the index's own.
            Lead::Column(leading) if leading == column && part == Part::Batched => " AND i.",
            _ => " AND f.",
        };
        let equal = |statement: &mut QueryBuilder<Sqlite>, column: &str, value: Option<&str>| {
            if let Some(value) = value {
                statement.push(table(column)).push(column).push(" = ");
                statement.push_bind(value.to_owned());
            }
        };
        let image_id = filter.image_id.as_ref().map(ImageId::as_str);
        let operation = filter.operation.map(EventOperation::as_str);
        equal(statement, "subject", filter.subject.as_deref());
        equal(statement, "image_id", image_id);
        equal(statement, "operation", operation);
        equal(statement, "request_id", filter.request_id.as_deref());
        if let Some(account_id) = filter.account_id {
            statement.push(table("account_id")).push("account_id = ");
            statement.push_bind(i64::try_from(account_id.get()).unwrap_or(i64::MAX));
        }
        let key = lead.key(part);
        self.push_id_range(statement, key);
        if let Some(after) = self.after {
            let comparison = if self.newest_first { " < " } else { " > " };
            push_bound(statement, key, comparison, after);
        }
    }

    /// The tables, and the conditions that the leading index needs to be used.
    fn push_from(&self, statement: &mut QueryBuilder<Sqlite>, lead: Lead, part: Part) {
        let with_outcome = match self.filter.outcome {
            Some(OutcomeFilter::Completed(_)) => BY_ITS_OUTCOME,
            _ => WITH_OUTCOME,
        };
        match (lead, part) {
            (Lead::Events, _) => {
                statement.push(FIRST_ROWS).push("audit_entries_event");
                statement
                    .push(with_outcome)
                    .push(" WHERE ")
                    .push(IS_FIRST_ROW);
            }
            (Lead::Denials, _) => {
                statement.push(FIRST_ROWS).push("audit_entries_outcome");
                statement
                    .push(with_outcome)
                    .push(" WHERE f.kind IN ('outcome', 'denial')");
            }
            (Lead::Outcomes, _) => {
                statement
                    .push(FROM_OUTCOMES)
                    .push(" WHERE o.kind IN ('outcome', 'denial')");
            }
            (Lead::Column(column), Part::Batched) => {
                statement
                    .push(FROM_FILTERS)
                    .push(column)
                    .push(ROW_OF_FILTER)
                    .push(column)
                    .push(" IS i.")
                    .push(column);
                statement
                    .push(with_outcome)
                    .push(" WHERE ")
                    .push(IN_BATCHES);
                statement.push(" AND ").push(IS_FIRST_ROW);
            }
            (Lead::Pending, Part::Batched) => {
                statement.push(FROM_PENDING).push(with_outcome);
                statement.push(" WHERE ").push(IN_BATCHES);
            }
            (Lead::Column(_) | Lead::Pending, Part::Tail) => {
                statement.push(FROM_TAIL).push(with_outcome);
                statement
                    .push(" WHERE ")
                    .push(IN_TAIL)
                    .push(" AND ")
                    .push(IS_FIRST_ROW);
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
        if lead == Lead::Pending {
            statement.push(" AND f.kind = 'intent' AND o.sequence IS NULL");
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
    if key.ends_with("event_id") {
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

macro_rules! select_event {
    (
        asked { $($(#[doc = $asked_doc:literal])+ $asked_column:ident $asked:ident: $asked_kind:ty,)+ }
        why { $($(#[doc = $why_doc:literal])+ $why_column:ident $why:ident: $why_kind:ty,)+ }
        ended { $($(#[doc = $ended_doc:literal])+ $ended_column:ident $ended:ident: $ended_kind:ty,)+ }
        more { $($(#[doc = $more_doc:literal])+ $more_column:ident $more:ident: $more_kind:ty,)+ }
    ) => {
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

event_columns!(select_event);

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
