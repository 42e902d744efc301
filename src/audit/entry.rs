//! What is written to the trail: intents, outcomes and denials, and the columns they fill.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::domain::{
    AccountId, Author, Caller, Change, EventId, ImageId, Operation, Outcome, Reason, Region,
    Stopwatch, Timestamp, TraceId,
};

use super::columns::{COLUMNS, Cells, Column};

/// The version of the canonical encoding that new rows carry.
pub(super) const ENCODING_VERSION: i64 = 1;
/// What a row can be: before a change is forwarded, after it, or in its place.
pub(super) const KINDS: [&str; 3] = [INTENT, OUTCOME, DENIAL];
pub(super) const INTENT: &str = "intent";
pub(super) const OUTCOME: &str = "outcome";
pub(super) const DENIAL: &str = "denial";
/// The one chain of an SQLite trail.
pub(super) const CHAIN_ID: &str = "main";

/// What every draft takes: ids, numbers, the draft itself.
const DRAFT_BYTES: usize = 512;

/// One value that is about to be written; text is mostly its draft's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    /// Text that many rows have.
    Shared(Arc<str>),
}

/// One value as a row of the file holds it. Text is bytes, since a damaged file may hold text that is not
/// UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellRef<'a> {
    Null,
    Integer(i64),
    Text(&'a [u8]),
    /// What the gateway never writes: another type, or text that is not UTF-8. A row with it is broken.
    Foreign,
}

impl Cell<'_> {
    pub(super) fn borrowed(&self) -> CellRef<'_> {
        match self {
            Self::Null => CellRef::Null,
            Self::Integer(number) => CellRef::Integer(*number),
            Self::Text(text) => CellRef::Text(text.as_bytes()),
            Self::Shared(text) => CellRef::Text(text.as_bytes()),
        }
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell<'_> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A change that is about to be forwarded.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Whose doing it is; of a caller also where from.
    pub author: Author,
    /// For what.
    pub change: Change,
    /// The policies that allowed it; empty where scopes alone decided.
    pub policy_ids: Vec<String>,
}

/// What a caller is told, which can change until its row is sealed and not after: so that what stands in
/// the trail is what was told. Clones share one status.
#[derive(Debug, Clone)]
pub struct HttpStatus(Arc<Mutex<(u16, Sealing)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sealing {
    Open,
    Sealed,
}

impl HttpStatus {
    /// The status as it is meant to be told.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self(Arc::new(Mutex::new((status, Sealing::Open))))
    }

    /// Another status will be told. Returns `false`, and changes nothing, where the row is sealed.
    #[must_use]
    pub fn change(&self, status: u16) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = state.1 == Sealing::Open;
        if open {
            state.0 = status;
        }
        open
    }

    fn seal(&self) -> i64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = Sealing::Sealed;
        i64::from(state.0)
    }
}

/// How long a change took, read when its outcome is sealed.
#[derive(Debug, Clone, Copy)]
pub enum Elapsed {
    /// It runs since the request arrived.
    Since(Stopwatch),
    /// Another run of the program began it, by the clock.
    SinceTime(Timestamp),
}

impl Elapsed {
    fn millis(self) -> i64 {
        millis(match self {
            Self::Since(arrival) => arrival.elapsed(),
            Self::SinceTime(begun) => Timestamp::now().since(begun),
        })
    }
}

/// What was refused.
#[derive(Debug, Clone)]
pub enum Refused {
    /// A change of one account.
    Change(Change),
    /// A bulk request as a whole; the operation reads `update`, and there is no account.
    Update {
        /// The image.
        image_id: ImageId,
        /// Where it lives.
        region: Region,
        /// Why it was asked for.
        reason: Option<Reason>,
    },
}

impl Refused {
    /// The word of the trail for what was refused.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Change(change) => change.operation.as_str(),
            Self::Update { .. } => "update",
        }
    }
}

/// A change that was refused and never forwarded.
#[derive(Debug, Clone)]
pub struct Denial {
    /// Who asked, and where from.
    pub caller: Arc<Caller>,
    /// For what.
    pub refused: Refused,
    /// The policies that refused it; empty where scopes alone decided.
    pub policy_ids: Vec<String>,
    /// What the caller is told.
    pub http_status: HttpStatus,
    /// Why, in words.
    pub detail: String,
}

/// What an outcome repeats of its intent, so that filters and provenance need not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    /// The event that ends.
    pub event_id: EventId,
    /// Whose it is.
    pub subject: String,
    /// By which request; absent for what the gateway does by itself.
    pub request_id: Option<String>,
    /// What was asked.
    pub operation: Operation,
    /// The image.
    pub image_id: ImageId,
    /// The account.
    pub account_id: AccountId,
    /// The region.
    pub region: Region,
}

impl Recalled {
    /// What the outcome of `intent` repeats of it.
    #[must_use]
    pub fn of(intent: &Intent, event_id: EventId) -> Self {
        Self {
            event_id,
            subject: intent.author.subject().to_owned(),
            request_id: intent
                .author
                .caller()
                .map(|caller| caller.request_id.as_str().to_owned()),
            operation: intent.change.operation,
            image_id: intent.change.image_id.clone(),
            account_id: intent.change.account_id,
            region: intent.change.region.clone(),
        }
    }
}

/// How a forwarded change ended: the row of kind `outcome`. Each event has exactly one.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The event that ends, and what is repeated of its intent.
    pub recalled: Recalled,
    /// How it ended; never `pending` or `denied`.
    pub outcome: Outcome,
    /// What the caller was told; absent where the process was gone before.
    pub http_status: Option<HttpStatus>,
    /// The last `RetCode`, where there was one.
    pub upstream_ret_code: Option<i64>,
    /// The upstream's name for its last answer.
    pub upstream_request_id: Option<String>,
    /// Calls that carried the change; absent where that is not known.
    pub upstream_calls: Option<u32>,
    /// Runs from the request's arrival to this row.
    pub elapsed: Elapsed,
    /// What else an auditor should know.
    pub detail: Option<String>,
}

/// The detail of a change that succeeded although a call before its last was not answered: that one may take effect
/// yet, after later changes. A run that begins looks for such rows.
pub const EARLIER_CALL_OPEN: &str =
    "a call before the last was not answered and may still take effect";

/// Accounts of an image that were looked after once none of their changes could land late any more.
#[derive(Debug, Clone)]
pub struct LookedAfter {
    /// Where the image lives.
    pub region: Region,
    /// The image.
    pub image_id: ImageId,
    /// The accounts.
    pub accounts: Vec<AccountId>,
    /// The last event that is covered by it.
    pub through: EventId,
}

/// An entry that waits for its place in the chain.
#[derive(Debug, Clone)]
pub(super) enum Draft {
    Intent(Box<Intent>),
    Denial(Box<Denial>),
    Completion(Arc<Completion>),
}

/// Where in the chain a draft goes, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowPlace {
    pub(super) sequence: i64,
    pub(super) event_id: EventId,
    pub(super) recorded_at: Timestamp,
}

impl Draft {
    /// The event that the draft belongs to; `None` where it begins one.
    pub(super) fn event_id(&self) -> Option<EventId> {
        match self {
            Self::Intent(_) | Self::Denial(_) => None,
            Self::Completion(completion) => Some(completion.recalled.event_id),
        }
    }

    /// How many bytes of text the draft holds, beside what every draft takes.
    pub(super) fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let policies = |ids: &[String]| ids.iter().map(String::len).sum::<usize>();
        let caller = |caller: &Caller| {
            let principal = &caller.principal;
            principal.subject.len()
                + principal.issuer.len()
                + text(&principal.token_id)
                + principal
                    .scopes
                    .iter()
                    .chain(&principal.groups)
                    .map(String::len)
                    .sum::<usize>()
                + text(&caller.user_agent)
        };
        let reason =
            |reason: &Option<Reason>| reason.as_ref().map_or(0, |reason| reason.as_str().len());
        DRAFT_BYTES
            + match self {
                Self::Intent(intent) => {
                    intent.author.caller().map_or(0, caller)
                        + reason(&intent.change.reason)
                        + policies(&intent.policy_ids)
                }
                Self::Denial(denial) => {
                    caller(&denial.caller)
                        + reason(match &denial.refused {
                            Refused::Change(change) => &change.reason,
                            Refused::Update { reason, .. } => reason,
                        })
                        + policies(&denial.policy_ids)
                        + denial.detail.len()
                }
                Self::Completion(completion) => {
                    completion.recalled.subject.len()
                        + text(&completion.recalled.request_id)
                        + text(&completion.upstream_request_id)
                        + text(&completion.detail)
                }
            }
    }

    /// The row's cells in a chain, in the order of [`COLUMNS`].
    pub(super) fn cells(&self, chain_id: &Arc<str>, place: RowPlace) -> [Cell<'_>; COLUMNS.len()] {
        let mut cells = Cells::default();
        cells.set(Column::Version, ENCODING_VERSION);
        cells.set(Column::ChainId, Cell::Shared(Arc::clone(chain_id)));
        cells.set(Column::Sequence, place.sequence);
        cells.set(Column::EventId, place.event_id.to_string());
        cells.set(Column::RecordedAt, place.recorded_at.as_micros());
        match self {
            Self::Intent(intent) => {
                cells.set(Column::Kind, INTENT);
                let asked = AskedFor::of(&intent.change);
                fill_asked(&mut cells, asked, &intent.policy_ids);
                cells.set(Column::Subject, intent.author.subject());
                if let Some(caller) = intent.author.caller() {
                    fill_caller(&mut cells, caller);
                }
            }
            Self::Denial(denial) => {
                cells.set(Column::Kind, DENIAL);
                let asked = AskedFor::of_refused(&denial.refused);
                fill_asked(&mut cells, asked, &denial.policy_ids);
                cells.set(Column::Subject, denial.caller.principal.subject.as_str());
                fill_caller(&mut cells, &denial.caller);
                cells.set(Column::Outcome, Outcome::Denied.as_str());
                cells.set(Column::HttpStatus, denial.http_status.seal());
                cells.set(Column::UpstreamCalls, 0);
                let took = millis(denial.caller.since_arrival.elapsed());
                cells.set(Column::DurationMs, took);
                cells.set(Column::Detail, denial.detail.as_str());
            }
            Self::Completion(completion) => {
                cells.set(Column::Kind, OUTCOME);
                fill_recalled(&mut cells, &completion.recalled);
                cells.set(Column::Outcome, completion.outcome.as_str());
                let status = completion.http_status.as_ref().map(HttpStatus::seal);
                cells.set(Column::HttpStatus, status);
                cells.set(Column::UpstreamRetCode, completion.upstream_ret_code);
                let request_id = completion.upstream_request_id.as_deref();
                cells.set(Column::UpstreamRequestId, request_id);
                cells.set(
                    Column::UpstreamCalls,
                    completion.upstream_calls.map(i64::from),
                );
                cells.set(Column::DurationMs, completion.elapsed.millis());
                cells.set(Column::Detail, completion.detail.as_deref());
            }
        }
        cells.into_array()
    }
}

/// What was asked for, a single change or a bulk.
#[derive(Clone, Copy)]
struct AskedFor<'a> {
    operation: &'static str,
    image_id: &'a ImageId,
    account_id: Option<AccountId>,
    region: &'a Region,
    reason: &'a Option<Reason>,
}

impl<'a> AskedFor<'a> {
    fn of(change: &'a Change) -> Self {
        Self {
            operation: change.operation.as_str(),
            image_id: &change.image_id,
            account_id: Some(change.account_id),
            region: &change.region,
            reason: &change.reason,
        }
    }

    fn of_refused(refused: &'a Refused) -> Self {
        match refused {
            Refused::Change(change) => Self::of(change),
            Refused::Update {
                image_id,
                region,
                reason,
            } => Self {
                operation: "update",
                image_id,
                account_id: None,
                region,
                reason,
            },
        }
    }
}

/// Where a caller's request came from.
fn fill_caller<'a>(cells: &mut Cells<'a>, caller: &'a Caller) {
    cells.set(Column::Issuer, caller.principal.issuer.as_str());
    cells.set(Column::TokenId, caller.principal.token_id.as_deref());
    cells.set(Column::ClientIp, caller.client_ip.map(|ip| ip.to_string()));
    cells.set(Column::UserAgent, caller.user_agent.as_deref());
    cells.set(Column::RequestId, caller.request_id.as_str());
    let trace_id = caller.trace_id.as_ref().map(TraceId::as_str);
    cells.set(Column::TraceId, trace_id);
}

/// What was asked for, of an intent or a denial.
fn fill_asked<'a>(cells: &mut Cells<'a>, asked: AskedFor<'a>, policy_ids: &[String]) {
    cells.set(Column::Operation, asked.operation);
    cells.set(Column::ImageId, asked.image_id.as_str());
    cells.set(Column::AccountId, asked.account_id.map(account));
    cells.set(Column::Region, asked.region.as_str());
    cells.set(Column::Reason, asked.reason.as_ref().map(Reason::as_str));
    // Until shares can end by themselves.
    cells.set(Column::ExpiresAt, None::<i64>);
    if policy_ids.is_empty() {
        cells.set(Column::PolicyIds, "[]");
    } else {
        let policy_ids = serde_json::Value::from(policy_ids).to_string();
        cells.set(Column::PolicyIds, policy_ids);
    }
}

/// The same of an outcome: what filters need, nothing more.
fn fill_recalled<'a>(cells: &mut Cells<'a>, recalled: &'a Recalled) {
    cells.set(Column::Subject, recalled.subject.as_str());
    cells.set(Column::RequestId, recalled.request_id.as_deref());
    cells.set(Column::Operation, recalled.operation.as_str());
    cells.set(Column::ImageId, recalled.image_id.as_str());
    cells.set(Column::AccountId, account(recalled.account_id));
    cells.set(Column::Region, recalled.region.as_str());
}

fn account(account_id: AccountId) -> i64 {
    i64::try_from(account_id.get()).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
