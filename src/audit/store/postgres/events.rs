//! Events by filter, in PostgreSQL's words: its planner knows the indexes, one a filter, and finds the leading one.

use std::sync::LazyLock;

use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use crate::audit::columns::event_columns;
use crate::audit::filter::{EventOperation, OutcomeFilter};
use crate::audit::store::{EventsQuery, Lead};
use crate::domain::{EventId, ImageId, Outcome};

const WITH_OUTCOME: &str =
    " LEFT JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome'";
/// An intent or a denial; the partial indexes are over these.
const IS_FIRST_ROW: &str = "f.kind IN ('intent', 'denial')";
const SELECT_OUTCOME: &str = "SELECT COALESCE(o.outcome, f.outcome, 'pending') AS outcome";

macro_rules! select_event {
    (
        asked { $($(#[doc = $asked_doc:literal])+ $asked_column:ident $asked:ident: $asked_kind:ty,)+ }
        why { $($(#[doc = $why_doc:literal])+ $why_column:ident $why:ident: $why_kind:ty,)+ }
        ended { $($(#[doc = $ended_doc:literal])+ $ended_column:ident $ended:ident: $ended_kind:ty,)+ }
        more { $($(#[doc = $more_doc:literal])+ $more_column:ident $more:ident: $more_kind:ty,)+ }
    ) => {
        /// An event as one JSON array, as [`EventRow`](crate::audit::store::EventRow) reads it.
        pub(super) const SELECT_EVENT: &str = concat!(
            "SELECT json_build_array(f.sequence, f.kind, f.event_id, o.recorded_at",
            $(", f.", stringify!($asked),)+
            $(", f.", stringify!($why),)+
            $(", COALESCE(o.", stringify!($ended), ", f.", stringify!($ended), ")",)+
            $(", COALESCE(o.", stringify!($more), ", f.", stringify!($more), ")",)+
            ")::text"
        );
    };
}

event_columns!(select_event);

/// An event, and its rows as a JSON array.
pub(super) static SELECT_ONE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{SELECT_EVENT}, (SELECT json_agg(json_build_array(p.kind, p.chain_id, p.sequence, p.recorded_at, p.hash) \
             ORDER BY p.kind = 'outcome', p.recorded_at)::text FROM audit_entries AS p WHERE p.event_id = $1) \
         FROM audit_entries AS f{WITH_OUTCOME} WHERE f.event_id = $1 AND {IS_FIRST_ROW}"
    )
});

/// A page, in the order asked; of events up to `bound` alone.
pub(super) fn page(query: &EventsQuery<'_>, bound: Option<Uuid>) -> QueryBuilder<Postgres> {
    let mut statement = QueryBuilder::new("");
    push_selection(&mut statement, query, SELECT_EVENT);
    let key = key(query);
    if let Some(bound) = bound {
        statement
            .push(" AND ")
            .push(key)
            .push(" <= ")
            .push_bind(bound);
    }
    statement.push(" ORDER BY ").push(key);
    statement.push(if query.newest_first { " DESC" } else { " ASC" });
    // Not as a parameter: a plan for every limit takes it for a tenth of the trail.
    statement.push(" LIMIT ").push(query.limit);
    statement
}

/// How many events of each outcome there are; outcomes without any may be left out.
pub(super) fn counts(query: &EventsQuery<'_>) -> QueryBuilder<Postgres> {
    if *query.filter == query.filter.by_time_and_outcome() {
        return counts_by_index_alone(query);
    }
    let mut statement = QueryBuilder::new("SELECT outcome, COUNT(*) FROM (");
    push_selection(&mut statement, query, SELECT_OUTCOME);
    statement.push(") AS events GROUP BY 1");
    statement
}

/// Counts of what the outcome index and the pending intents say by themselves.
fn counts_by_index_alone(query: &EventsQuery<'_>) -> QueryBuilder<Postgres> {
    let mut statement = QueryBuilder::new("");
    let wanted = |outcome: &Outcome| {
        let wanted = query.filter.outcome;
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
        let key = if outcome == Outcome::Pending {
            statement.push("audit_pending AS p WHERE TRUE");
            "p.event_id"
        } else {
            statement
                .push("audit_entries AS o WHERE o.kind IN ('outcome', 'denial') AND o.outcome = ");
            statement.push_bind(outcome.as_str());
            "o.event_id"
        };
        push_id_range(&mut statement, query, key);
    }
    statement
}

/// Up to `limit` events without an outcome behind `after`, of chains that nobody writes any more.
pub(super) fn pending(after: Option<EventId>, limit: i64) -> QueryBuilder<Postgres> {
    let mut statement = QueryBuilder::new(SELECT_EVENT);
    statement.push(" FROM audit_pending AS p JOIN audit_entries AS f ON f.event_id = p.event_id AND f.kind = 'intent'");
    statement.push(WITH_OUTCOME);
    statement.push(
        " LEFT JOIN audit_chains AS c ON c.chain_id = p.chain_id \
         WHERE o.event_id IS NULL AND (c.chain_id IS NULL OR c.ended_at IS NOT NULL)",
    );
    if let Some(after) = after {
        statement
            .push(" AND p.event_id > ")
            .push_bind(after.as_uuid());
    }
    statement.push(" ORDER BY p.event_id LIMIT ").push(limit);
    statement
}

/// The column that pages are ordered and bounded by.
fn key(query: &EventsQuery<'_>) -> &'static str {
    match Lead::of(query.filter) {
        Lead::Events | Lead::Denials | Lead::Column(_) => "f.event_id",
        Lead::Outcomes => "o.event_id",
        Lead::Pending => "p.event_id",
    }
}

fn push_selection(statement: &mut QueryBuilder<Postgres>, query: &EventsQuery<'_>, what: &str) {
    statement.push(what);
    match Lead::of(query.filter) {
        Lead::Pending => {
            statement.push(
                " FROM audit_pending AS p JOIN audit_entries AS f ON f.event_id = p.event_id AND f.kind = 'intent'",
            );
            statement.push(WITH_OUTCOME);
            statement.push(" WHERE o.event_id IS NULL");
        }
        Lead::Outcomes => {
            statement.push(
                " FROM audit_entries AS o JOIN audit_entries AS f ON f.event_id = o.event_id AND f.kind = 'intent' \
                 WHERE o.kind IN ('outcome', 'denial')",
            );
        }
        Lead::Denials => {
            statement
                .push(" FROM audit_entries AS f")
                .push(WITH_OUTCOME);
            statement.push(" WHERE f.kind IN ('outcome', 'denial')");
        }
        Lead::Events | Lead::Column(_) => {
            statement
                .push(" FROM audit_entries AS f")
                .push(WITH_OUTCOME);
            statement.push(" WHERE ").push(IS_FIRST_ROW);
        }
    }
    match query.filter.outcome {
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
    let filter = query.filter;
    let equal = |statement: &mut QueryBuilder<Postgres>, column: &str, value: Option<&str>| {
        if let Some(value) = value {
            statement.push(" AND f.").push(column).push(" = ");
            statement.push_bind(value.to_owned());
        }
    };
    equal(statement, "subject", filter.subject.as_deref());
    let image_id = filter.image_id.as_ref().map(ImageId::as_str);
    equal(statement, "image_id", image_id);
    let operation = filter.operation.map(EventOperation::as_str);
    equal(statement, "operation", operation);
    equal(statement, "request_id", filter.request_id.as_deref());
    if let Some(account_id) = filter.account_id {
        statement.push(" AND f.account_id = ");
        statement.push_bind(i64::try_from(account_id.get()).unwrap_or(i64::MAX));
    }
    let key = key(query);
    push_id_range(statement, query, key);
    if let Some(after) = query.after {
        let comparison = if query.newest_first { " < " } else { " > " };
        push_bound(statement, key, comparison, after);
    }
}

fn push_id_range(statement: &mut QueryBuilder<Postgres>, query: &EventsQuery<'_>, key: &str) {
    let (from, to) = query.id_range;
    if let Some(from) = from {
        push_bound(statement, key, " >= ", from);
    }
    if let Some(to) = to {
        push_bound(statement, key, " < ", to);
    }
}

fn push_bound(statement: &mut QueryBuilder<Postgres>, key: &str, comparison: &str, id: EventId) {
    statement.push(" AND ").push(key).push(comparison);
    statement.push_bind(id.as_uuid());
}
