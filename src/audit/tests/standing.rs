//! Where a share comes from: the last event by its id, whatever the order of outcomes.

use super::*;
use crate::domain::{AccountId, ImageId, Region};

fn of(operation: Operation, region: &str) -> Intent {
    let mut intent = intent(2);
    intent.change.operation = operation;
    intent.change.region = region.parse().expect("a region");
    intent
}

async fn last(trail: &Trail, region: &str) -> Option<LastChange> {
    let Change {
        image_id,
        account_id,
        ..
    } = intent(2).change;
    let region: Region = region.parse().expect("a region");
    let found = trail
        .reader
        .last_changes(&region, &image_id, &[account_id])
        .await;
    found.expect("reads").remove(&account_id)
}

#[tokio::test]
async fn the_last_event_that_succeeded_or_is_unknown_decides() {
    for rows in BATCHES {
        the_last_event_decides(Trail::open_with_batches(rows).await).await;
    }
}

async fn the_last_event_decides(trail: Trail) {
    assert_eq!(last(&trail, "cn-wlcb").await, None);
    let share = of(Operation::Share, "cn-wlcb");
    let first = trail.intend(share.clone()).await;
    assert_eq!(last(&trail, "cn-wlcb").await, None, "pending says nothing");
    let unshare = of(Operation::Unshare, "cn-wlcb");
    let second = trail.intend(unshare.clone()).await;
    let record = async |intent: &Intent, id, outcome| {
        let ended = completion(intent, id, outcome);
        let recorded = trail.writer.record(ended).await.expect("durable");
        trail.add_batches().await;
        recorded
    };
    record(&unshare, second.event_id, Outcome::Succeeded).await;
    // The outcome of the first event comes last, as recovery may bring it.
    record(&share, first.event_id, Outcome::Unknown).await;
    let found = last(&trail, "cn-wlcb").await.expect("found");
    assert_eq!(
        (found.event_id, found.operation, found.outcome),
        (second.event_id, Operation::Unshare, Outcome::Succeeded)
    );
    for outcome in [Outcome::Failed, Outcome::InvalidAccount] {
        let later = trail.intend(share.clone()).await;
        record(&share, later.event_id, outcome).await;
        let still = last(&trail, "cn-wlcb").await;
        assert_eq!(still.as_ref(), Some(&found), "{outcome} changes nothing");
    }
    let third = trail.intend(share.clone()).await;
    let done = record(&share, third.event_id, Outcome::Succeeded).await;
    let found = last(&trail, "cn-wlcb").await.expect("found");
    assert_eq!(
        found,
        LastChange {
            event_id: third.event_id,
            operation: Operation::Share,
            outcome: Outcome::Succeeded,
            completed_at: done.recorded_at,
            subject: "team-2".into(),
            reason: Some("because".into()),
        }
    );
    assert_eq!(last(&trail, "cn-sh2").await, None, "another region's image");
}

#[tokio::test]
async fn thousands_of_accounts_are_asked_about_at_once() {
    for rows in BATCHES {
        thousands_are_asked_about(Trail::open_with_batches(rows).await).await;
    }
}

async fn thousands_are_asked_about(trail: Trail) {
    let image: ImageId = "img-0".parse().expect("an image");
    for number in (0..70).step_by(2) {
        trail.share(number).await;
    }
    let accounts: Vec<AccountId> = (1..=3000)
        .map(|id| id.try_into().expect("an account"))
        .collect();
    let region = "cn-wlcb".parse().expect("a region");
    let found = trail.reader.last_changes(&region, &image, &accounts).await;
    let found = found.expect("reads");
    // Of those of this image 0, 30 and 60 failed; the others are 10, 20, 40 and 50.
    let expected = std::collections::BTreeSet::from([2, 4, 6, 7]);
    let asked: std::collections::BTreeSet<u64> = found.keys().map(|id| id.get()).collect();
    assert_eq!(asked, expected);
}
