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
use super::lanes::{LANDING_TIME, LaneKey};

/// How long the upstream is asked, over all images.
const ASKING_TIME: Duration = Duration::from_secs(30);
/// How long before its outcome a change may have been asked for.
const LONGEST_CHANGE: Duration = Duration::from_mins(10);
/// Events that are looked at in one go.
const PAGE: usize = 1000;

/// Remembers the shares that an earlier run sent and that may land yet: those that ended unknown within the
/// time that a call may take to land, and those that are pending.
pub(super) async fn remember_landings(
    parts: &Parts,
    pending: &[(Recalled, Timestamp)],
) -> Result<(), StoreError> {
    let mut shares: BTreeMap<LaneKey, Vec<AccountId>> = BTreeMap::new();
    let mut remember = |region: &Region, image_id: &ImageId, account_id| {
        let key = (region.clone(), image_id.clone());
        shares.entry(key).or_default().push(account_id);
    };
    for event in recent_unknown_shares(parts).await? {
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

async fn recent_unknown_shares(parts: &Parts) -> Result<Vec<Event>, StoreError> {
    let since = Timestamp::now().before(LANDING_TIME);
    let filter = Filter {
        from: Some(since.before(LONGEST_CHANGE)),
        operation: Some(EventOperation::Change(Operation::Share)),
        outcome: Some(OutcomeFilter::Completed(Outcome::Unknown)),
        ..Filter::default()
    };
    let (mut recent, mut after) = (Vec::new(), None);
    loop {
        let page = parts
            .reader
            .page(&filter, Order::Descending, PAGE, after)
            .await?;
        let ended_lately = |event: &Event| {
            let completed = event.completed_at.as_deref();
            completed.is_some_and(|text| {
                Timestamp::parse_rfc3339(text).is_ok_and(|completed| completed >= since)
            })
        };
        recent.extend(page.events.into_iter().filter(ended_lately));
        after = page.next;
        if after.is_none() {
            return Ok(recent);
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
