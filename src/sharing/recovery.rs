//! What a run of the program leaves to the next one.
//!
//! Intents without an outcome: whether such a change was sent nobody knows any more, so each becomes `unknown`.
//! The upstream is asked once an image what is true now, and that stands in `detail`; failing to ask leaves no
//! row out. And shares whose calls ended unknown a moment ago: they may take effect yet, and are looked at as if
//! the program had gone on.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::audit::{
    Completion, Elapsed, Event, EventOperation, Filter, Order, OutcomeFilter, Recalled, StoreError,
};
use crate::domain::{AccountId, Deadline, ImageId, Operation, Outcome, Region, Timestamp};
use crate::upstream::SharedAccount;

use super::Parts;
use super::lanes::LaneKey;

/// How long the upstream is asked, over all images.
const ASKING_TIME: Duration = Duration::from_secs(30);
/// How long before its last row an earlier run may have looked for the last time at a share: the time of a landing,
/// and as long as it is tried to take one back.
const LOOKED_AT_WITHIN: Duration = Duration::from_mins(30);
/// How far back shares are looked at in any case: who shares an image by other means meanwhile would lose it.
const LOOKED_BACK: Duration = Duration::from_hours(24);
/// Most rows, from the end of the trail, that are looked through for shares that succeeded on a retry.
const ROWS_LOOKED_THROUGH: i64 = 100_000;
/// Events that are looked at in one go.
const PAGE: usize = 1000;

/// Remembers the shares that an earlier run sent and that may have landed since it looked, or may land yet: those that
/// ended unknown, those that an attempt before the last may still bring about, and those that are pending.
pub(super) async fn remember_landings(
    parts: &Parts,
    pending: &[(Recalled, Timestamp)],
) -> Result<(), StoreError> {
    let mut shares: BTreeMap<LaneKey, Vec<AccountId>> = BTreeMap::new();
    let mut remember = |region: &Region, image_id: &ImageId, account_id| {
        let key = (region.clone(), image_id.clone());
        shares.entry(key).or_default().push(account_id);
    };
    if let Some(since) = not_looked_at_since(parts).await? {
        for event in unknown_shares(parts, since).await? {
            let account_id = event
                .account_id
                .and_then(|number| u64::try_from(number).ok());
            let account_id = account_id.and_then(|number| AccountId::try_from(number).ok());
            if let (Ok(region), Ok(image_id), Some(account_id)) =
                (event.region.parse(), event.image_id.parse(), account_id)
            {
                remember(&region, &image_id, account_id);
            }
        }
        let retried = parts.reader.retried_shares(since, ROWS_LOOKED_THROUGH);
        for (region, image_id, account_id) in retried.await? {
            remember(&region, &image_id, account_id);
        }
    }
    for (recalled, _) in pending {
        if recalled.operation == Operation::Share {
            remember(&recalled.region, &recalled.image_id, recalled.account_id);
        }
    }
    for (key, accounts) in shares {
        let mut last = parts
            .reader
            .last_changes(&key.0, &key.1, &accounts)
            .await?
            .into_iter()
            .map(|(account_id, change)| (account_id, (change.event_id, change.operation)))
            .collect::<BTreeMap<_, _>>();
        for (recalled, _) in pending {
            if (&recalled.region, &recalled.image_id) == (&key.0, &key.1) {
                let at = (recalled.event_id, recalled.operation);
                let known = last.entry(recalled.account_id).or_insert(at);
                if at.0 > known.0 {
                    *known = at;
                }
            }
        }
        for account_id in accounts {
            parts.lanes.may_land(&key, account_id);
            if let Some((_, Operation::Unshare)) = last.get(&account_id) {
                parts.lanes.was_unshared(&key, account_id);
            }
        }
    }
    Ok(())
}

/// From when on shares may not have been looked at; `None` where the trail is empty.
async fn not_looked_at_since(parts: &Parts) -> Result<Option<Timestamp>, StoreError> {
    let everything = Filter::default();
    let newest = parts
        .reader
        .page(&everything, Order::Descending, 1, None)
        .await?;
    let last_row = newest.events.first().and_then(|event| {
        let time = event.completed_at.as_ref().unwrap_or(&event.occurred_at);
        Timestamp::parse_rfc3339(time).ok()
    });
    let farthest = Timestamp::now().before(LOOKED_BACK);
    Ok(last_row.map(|last_row| last_row.before(LOOKED_AT_WITHIN).max(farthest)))
}

async fn unknown_shares(parts: &Parts, since: Timestamp) -> Result<Vec<Event>, StoreError> {
    let filter = Filter {
        from: Some(since),
        operation: Some(EventOperation::Change(Operation::Share)),
        outcome: Some(OutcomeFilter::Completed(Outcome::Unknown)),
        ..Filter::default()
    };
    let (mut unknown, mut after) = (Vec::new(), None);
    loop {
        let page = parts
            .reader
            .page(&filter, Order::Descending, PAGE, after)
            .await?;
        unknown.extend(page.events);
        after = page.next;
        if after.is_none() {
            return Ok(unknown);
        }
    }
}

pub(super) async fn close(parts: &Parts, pending: Vec<(Recalled, Timestamp)>) {
    let deadline = Deadline::after(ASKING_TIME);
    let count = pending.len();
    let mut by_image: BTreeMap<(Region, ImageId), Vec<(Recalled, Timestamp)>> = BTreeMap::new();
    for (recalled, occurred_at) in pending {
        let image = (recalled.region.clone(), recalled.image_id.clone());
        by_image
            .entry(image)
            .or_default()
            .push((recalled, occurred_at));
    }
    for ((region, image_id), leftovers) in by_image {
        let seen = tokio::select! {
            seen = parts.accounts(&region, &image_id, deadline) => seen.ok(),
            // A stop waits for rows, not for answers.
            () = parts.tasks.giving_up() => None,
        };
        for (recalled, occurred_at) in leftovers {
            let detail = describe(seen.as_deref(), &recalled);
            let completion = Completion {
                recalled,
                outcome: Outcome::Unknown,
                http_status: None,
                upstream_ret_code: None,
                upstream_request_id: None,
                upstream_calls: None,
                elapsed: Elapsed::SinceTime(occurred_at),
                detail: Some(detail),
            };
            if parts.writer.record(completion.clone()).await.is_err() {
                parts.writer.keep(completion).await;
            }
        }
    }
    tracing::info!(
        audit.recovered = count,
        "changes that an earlier run left without an outcome are closed as unknown"
    );
}

fn describe(seen: Option<&[SharedAccount]>, recalled: &Recalled) -> String {
    let lost = "the gateway stopped before the outcome was known";
    match seen {
        None => format!("{lost}; the upstream could not be asked afterwards"),
        Some(accounts) => {
            let listed = accounts
                .iter()
                .any(|account| account.account_id == recalled.account_id);
            let word = if listed { "listed" } else { "did not list" };
            format!(
                "{lost}; at {} the upstream {word} the account",
                Timestamp::now()
            )
        }
    }
}
