//! Closes the intents of a dead run.
//!
//! Whether such a change was sent nobody knows any more, so each becomes `unknown`. The upstream is asked
//! once an image what is true now, and that stands in `detail`; failing to ask leaves no row out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::audit::{Completion, Elapsed, Recalled};
use crate::domain::{Deadline, ImageId, Operation, Outcome, Region, Timestamp};
use crate::upstream::SharedAccount;

use super::Parts;

/// How long the upstream is asked, over all images.
const ASKING_TIME: Duration = Duration::from_secs(30);

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
        let key = (region, image_id);
        for (recalled, _) in &leftovers {
            if recalled.operation == Operation::Share {
                // The run before may have sent it a moment ago.
                parts.lanes.may_land(&key, recalled.account_id);
            }
        }
        let (region, image_id) = &key;
        let seen = tokio::select! {
            seen = parts.accounts(region, image_id, deadline) => seen.ok(),
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
