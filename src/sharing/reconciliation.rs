//! Takes back shares that took effect after they were unshared.
//!
//! A share whose call timed out can land up to 60 s later, behind an unshare that was accepted and answered.
//! [`super::lanes`] remembers such accounts; when their time is over it says so here. Then the lane is held, the
//! list is read, and where the share stands it is taken back by an event of its own, whose subject is
//! `system:reconcile`. Nothing is written where nothing has to be undone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::audit::{Intent, NotDurable};
use crate::domain::{AccountId, Author, Change, Deadline, Operation};
use crate::problem::Effect;

use super::bulk::changes;
use super::change::{Recorded, Telling, since};
use super::lanes::{LaneKey, Undoings};
use super::{ChangeError, Parts};

/// How long one try may take.
const TRY_TIME: Duration = Duration::from_mins(1);
/// How often it is tried, and how long between: an upstream that was down when the share was lost may be so still.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(15);

/// Takes back what it is told of, as long as there is a gateway.
pub(super) async fn follow(parts: Weak<Parts>, mut undoings: Undoings) {
    while let Some((key, accounts)) = undoings.recv().await {
        let Some(parts) = parts.upgrade() else {
            return;
        };
        let undoing = Arc::clone(&parts);
        parts
            .tasks
            .spawn(async move { undo(&undoing, &key, accounts).await });
    }
}

async fn undo(parts: &Parts, key: &LaneKey, accounts: Vec<AccountId>) {
    let mut left = accounts;
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = parts.tasks.stopping() => break,
            }
        }
        left = attempt_undo(parts, key, left).await;
        if left.is_empty() {
            return;
        }
    }
    for account_id in left {
        tracing::error!(
            image.id = key.1.as_str(),
            account.id = account_id.get(),
            "a share may have taken effect after it was unshared, and could not be taken back"
        );
        parts.lanes.undone(key, account_id);
    }
}

/// Looks once, and takes back what stands. Gives the accounts of which nobody knows yet.
async fn attempt_undo(parts: &Parts, key: &LaneKey, accounts: Vec<AccountId>) -> Vec<AccountId> {
    let deadline = Deadline::after(TRY_TIME);
    let (region, image_id) = key;
    let Ok(hold) = parts.lanes.hold(key, deadline).await else {
        return accounts;
    };
    // What is written down is followed to its end; a look is not.
    let listed = tokio::select! {
        listed = parts.account_ids(region, image_id, deadline) => listed,
        () = parts.tasks.giving_up() => return accounts,
    };
    let Ok(listed) = listed else {
        return accounts;
    };
    let (mut to_undo, mut later) = (Vec::new(), Vec::new());
    for account_id in accounts {
        // A share that was accepted since then is meant to stand.
        match parts.lanes.must_be_undone(key, account_id) {
            Some(true) if listed.contains(&account_id) => to_undo.push(account_id),
            Some(_) => parts.lanes.undone(key, account_id),
            None => later.push(account_id),
        }
    }
    if to_undo.is_empty() {
        return later;
    }
    let intent = |account_id: &AccountId| Intent {
        author: Author::Reconciliation,
        change: Change {
            operation: Operation::Unshare,
            image_id: image_id.clone(),
            account_id: *account_id,
            region: region.clone(),
            reason: None,
        },
        policy_ids: Vec::new(),
    };
    let intents: Vec<Intent> = to_undo.iter().map(intent).collect();
    let queued = intents.clone();
    let admitted = hold.replace(&changes(&intents), deadline, || {
        parts.writer.enqueue_bulk(queued, Vec::new())
    });
    let recorded = match admitted {
        Ok((ticket, places)) => ticket.await.map(|recorded| (recorded, places)),
        Err(_) => Err(NotDurable),
    };
    let Ok((recorded, places)) = recorded else {
        later.extend(to_undo);
        return later;
    };
    parts.lanes.recorded(&places);
    let undoing = intents.into_iter().zip(places).zip(recorded);
    let undoing = undoing.map(|((intent, place), row)| async move {
        let account_id = intent.change.account_id;
        tracing::warn!(
            image.id = key.1.as_str(),
            account.id = account_id.get(),
            audit.event_id = %row.event_id,
            "a share took effect after it was unshared; it is taken back"
        );
        let (told, result) = oneshot::channel();
        let change = Recorded {
            since: since(&intent.author),
            intent,
            event_id: row.event_id,
            deadline,
            success_status: 204,
        };
        parts.finish(change, place, None, Telling::new(told)).await;
        let done = matches!(
            result.await,
            Ok(Ok(_)
                | Err(ChangeError::OutcomeNotRecorded {
                    effect: Effect::Done,
                    ..
                }))
        );
        if done {
            parts.lanes.undone(key, account_id);
        }
        (!done).then_some(account_id)
    });
    let left = futures_util::future::join_all(undoing).await;
    later.extend(left.into_iter().flatten());
    later
}
