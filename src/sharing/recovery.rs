//! What a run of the program leaves to the next one: intents without an outcome.
//!
//! Whether such a change was sent nobody knows any more, so each becomes `unknown`. The upstream is asked once an image
//! what is true now, and that stands in `detail`; failing to ask leaves no row out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;

use crate::audit::{Completion, Elapsed, Recalled};
use crate::domain::{Deadline, ImageId, Outcome, Region, Timestamp};
use crate::upstream::SharedAccount;

use super::Parts;
use super::lanes::ReadTerms;

/// How long the upstream is asked, over all images: at a start, when nobody waits for it; and while other gateways run, of whom
/// it is promised sooner.
pub(super) const AT_A_START: Duration = Duration::from_secs(30);
pub(super) const AMONG_OTHERS: Duration = Duration::from_secs(8);
/// Images that are asked about at once.
const IMAGES_AT_ONCE: usize = 8;
/// Rows that are written at once: they go to disk in groups.
const ROWS_AT_ONCE: usize = 256;

pub(super) async fn close(
    parts: Arc<Parts>,
    pending: Vec<(Recalled, Timestamp)>,
    asking_time: Duration,
) {
    let deadline = Deadline::after(asking_time);
    let count = pending.len();
    let mut by_image: BTreeMap<(Region, ImageId), Vec<(Recalled, Timestamp)>> = BTreeMap::new();
    for (recalled, occurred_at) in pending {
        let image = (recalled.region.clone(), recalled.image_id.clone());
        by_image
            .entry(image)
            .or_default()
            .push((recalled, occurred_at));
    }
    // Rows go to disk in groups, while the upstream is asked about the next image.
    let (rows, mut closed) = mpsc::channel(ROWS_AT_ONCE);
    let asked = Arc::clone(&parts);
    let asking = async move {
        let (parts, rows) = (&asked, &rows);
        let one = async |((region, image_id), leftovers): (
            (Region, ImageId),
            Vec<(Recalled, Timestamp)>,
        )| {
            let seen = tokio::select! {
                seen = parts.accounts(&region, &image_id, ReadTerms::own(deadline)) => seen.ok(),
                // A stop waits for rows, not for answers.
                () = parts.tasks.stopping() => None,
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
                // Whoever writes them ends only after this.
                let _ = rows.send(completion).await;
            }
        };
        let images = stream::iter(by_image);
        images.for_each_concurrent(IMAGES_AT_ONCE, one).await;
    };
    let closed = stream::poll_fn(|context| closed.poll_recv(context));
    let writing = closed.for_each_concurrent(ROWS_AT_ONCE, |completion: Completion| {
        let (writer, completion) = (parts.writer.clone(), Arc::new(completion));
        async move {
            if writer.record(Arc::clone(&completion)).await.is_err() {
                writer.keep(completion).await;
            }
        }
    });
    tokio::join!(asking, writing);
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
            // They come ascending.
            let listed = accounts
                .binary_search_by_key(&recalled.account_id, |account| account.account_id)
                .is_ok();
            let word = if listed { "listed" } else { "did not list" };
            format!(
                "{lost}; at {} the upstream {word} the account",
                Timestamp::now()
            )
        }
    }
}
