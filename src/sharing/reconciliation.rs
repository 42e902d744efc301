//! Undoes what took effect after a contrary change that was accepted later.
//!
//! A change whose call timed out can land up to 60 s later, behind a contrary one that was accepted and answered.
//! [`super::lanes`] remembers such accounts; when their time is over it says so here. Then the list is read and, where
//! it is not what was accepted last, the lane is held, the list is read again, and what is wrong is put right by an
//! event of its own, whose subject is `system:reconcile`. Nothing is written where nothing has to be undone, and
//! nobody is held up by an upstream that does not answer.
//!
//! What was looked after is noted beside the trail. A run that begins looks after what an earlier one sent and did not
//! look after, and nothing else: what somebody did by other means since then stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::audit::{Intent, LookedAfter, NotDurable, OpenChange, Recalled, StoreError};
use crate::domain::{
    AccountId, Author, Change, Deadline, EventId, Operation, Outcome, Party, Timestamp,
};
use crate::problem::Effect;

use super::bulk::changes;
use super::change::{AcceptedChange, Telling, since};
use super::lanes::{
    Aftermath, HeldLane, LANDING_TIME, LandingTimeOver, LandingsOver, LaneKey, ReadTerms, Suspect,
};
use super::{ChangeError, Parts};

/// How long one look may take while nobody is held up by it, and how long while the lane is held.
const LOOK_TIME: Duration = Duration::from_secs(15);
const HELD_LOOK_TIME: Duration = Duration::from_secs(3);
/// How long the lane is waited for, and what is put right then may take.
const TRY_TIME: Duration = Duration::from_mins(1);
/// How often it is tried, and how long between: an upstream that was down when the change was lost may be so still.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(15);
/// How far back a run that begins looks for what an earlier one sent and did not look after.
const LOOKED_BACK: Duration = Duration::from_hours(24);
/// How far the clocks of two gateways are apart at the most, each of which is ready.
const CLOCKS_APART: Duration = Duration::from_secs(10);

/// Looks after what it is told of, as long as there is a gateway.
pub(super) async fn follow(parts: Weak<Parts>, mut over: LandingsOver) {
    while let Some(LandingTimeOver {
        key,
        suspects,
        settled,
    }) = over.recv().await
    {
        let Some(parts) = parts.upgrade() else {
            return;
        };
        let charge = Charge {
            parts: Arc::clone(&parts),
            key,
            suspects,
        };
        charge.note(settled, parts.writer.last_event());
        if !charge.suspects.is_empty() {
            parts.tasks.spawn(charge.look_after());
        }
    }
}

/// Accounts of one image that are looked after. Dropped, by a panic too, it says which of them nobody looks after any more.
struct Charge {
    parts: Arc<Parts>,
    key: LaneKey,
    suspects: Vec<Suspect>,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.parts.lanes.gave_up(&self.key, &self.suspects);
    }
}

impl Charge {
    async fn look_after(mut self) {
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = self.parts.tasks.stopping() => break,
                }
            }
            // Of what others have taken over meanwhile nothing is to be said here.
            let (lanes, key) = (&self.parts.lanes, &self.key);
            self.suspects
                .retain(|suspect| lanes.is_looked_after(key, *suspect));
            if self.suspects.is_empty() {
                return;
            }
            self.attempt().await;
            if self.suspects.is_empty() {
                return;
            }
        }
        for suspect in &self.suspects {
            tracing::error!(
                image.id = self.key.1.as_str(),
                account.id = suspect.account_id.get(),
                "a change may have taken effect after a contrary one, and could not be undone"
            );
        }
    }

    /// These were looked after by a look that began when that was the last event: what stands is what was accepted
    /// last. Those of which something may land anew are not noted; they are looked after again.
    fn settle(&mut self, suspects: &[Suspect], through: Option<EventId>) {
        if suspects.is_empty() {
            return;
        }
        let settled: BTreeSet<&Suspect> = suspects.iter().collect();
        self.suspects.retain(|suspect| !settled.contains(suspect));
        let noted = self.parts.lanes.looked_after(&self.key, suspects);
        self.note(noted, through);
    }

    fn note(&self, accounts: Vec<AccountId>, through: Option<EventId>) {
        let Some(through) = through.filter(|_| !accounts.is_empty()) else {
            return;
        };
        let (region, image_id) = self.key.clone();
        self.parts.writer.note_looked_after(LookedAfter {
            region,
            image_id,
            accounts,
            through,
        });
    }

    /// Looks; where something is wrong, takes the lane, looks again and puts it right.
    async fn attempt(&mut self) {
        let parts = Arc::clone(&self.parts);
        let asked = ReadTerms::own(Deadline::after(LOOK_TIME)).once();
        let Some(wrong) = self.look(asked).await else {
            return;
        };
        if wrong.is_empty() {
            return;
        }
        let deadline = Deadline::after(TRY_TIME);
        let hold = tokio::select! {
            hold = parts.lanes.hold(&self.key, Party::Gateway, deadline) => hold,
            () = parts.tasks.stopping() => return,
        };
        let Ok(hold) = hold else {
            return;
        };
        let asked = ReadTerms::own(Deadline::after(HELD_LOOK_TIME)).once();
        if let Some(wrong) = self.look(asked).await
            && !wrong.is_empty()
        {
            self.put_right(hold, wrong, deadline).await;
        }
    }

    /// Reads the list once, and gives what is not as it was accepted last; `None` where it could not be read.
    async fn look(&mut self, asked: ReadTerms) -> Option<Vec<(Operation, Suspect)>> {
        let parts = Arc::clone(&self.parts);
        let through = parts.writer.last_event();
        let listed = tokio::select! {
            listed = parts.account_ids(&self.key.0, &self.key.1, asked) => listed.ok()?,
            () = parts.tasks.stopping() => return None,
        };
        let (mut settled, mut wrong) = (Vec::new(), Vec::new());
        for suspect in &self.suspects {
            let is_listed = listed.contains(&suspect.account_id);
            match parts.lanes.aftermath(&self.key, *suspect, is_listed) {
                Aftermath::AsAccepted => settled.push(*suspect),
                Aftermath::Contradicted(operation) => wrong.push((operation, *suspect)),
                Aftermath::Later => {}
            }
        }
        self.settle(&settled, through);
        Some(wrong)
    }

    async fn put_right(
        &mut self,
        hold: HeldLane,
        wrong: Vec<(Operation, Suspect)>,
        deadline: Deadline,
    ) {
        let parts = Arc::clone(&self.parts);
        let through = parts.writer.last_event();
        let (region, image_id) = self.key.clone();
        let intent = |(operation, suspect): &(Operation, Suspect)| Intent {
            author: Author::Reconciliation,
            change: Change {
                operation: *operation,
                image_id: image_id.clone(),
                account_id: suspect.account_id,
                region: region.clone(),
                reason: None,
            },
            policy_ids: Vec::new(),
        };
        let intents: Vec<Intent> = wrong.iter().map(intent).collect();
        let queued = intents.clone();
        let admitted = hold.replace(&changes(&intents), deadline, || {
            parts.writer.enqueue_bulk(queued, Vec::new())
        });
        let recorded = match admitted {
            Ok((ticket, places)) => ticket.await.map(|recorded| (recorded, places)),
            Err(_) => Err(NotDurable),
        };
        let Ok((recorded, places)) = recorded else {
            return;
        };
        parts.lanes.recorded(&places);
        let undoing = intents.into_iter().zip(places).zip(recorded).zip(wrong);
        let undoing = undoing.map(|(((intent, place), row), (_, suspect))| {
            let parts = Arc::clone(&parts);
            async move {
                tracing::warn!(
                    image.id = intent.change.image_id.as_str(),
                    account.id = suspect.account_id.get(),
                    audit.event_id = %row.event_id,
                    audit.operation = intent.change.operation.as_str(),
                    "a change took effect after a contrary one that was accepted later; it is undone"
                );
                let (told, result) = oneshot::channel();
                let change = AcceptedChange {
                    since: since(&intent.author),
                    success_status: 204,
                    intent,
                    event_id: row.event_id,
                    deadline,
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
                done.then_some(suspect)
            }
        });
        let done = futures_util::future::join_all(undoing).await;
        let done: Vec<Suspect> = done.into_iter().flatten().collect();
        self.settle(&done, through);
    }
}

/// Remembers the changes that an earlier run sent and did not look after: those that ended unknown, those that a call
/// before the last may still bring about, and those that are pending. They have landed by now, or may yet.
pub(super) async fn remember(
    parts: &Parts,
    pending: &[(Recalled, Timestamp)],
) -> Result<(), StoreError> {
    let since = Timestamp::now().before(LOOKED_BACK);
    let mut open = parts.reader.open_changes(since).await?;
    for change in &mut open {
        // Nothing is known of how the clock went since then.
        change.ended_at = None;
    }
    remember_changes(
        parts,
        open,
        pending.iter().map(|(recalled, _)| open_change(recalled)),
    )
    .await
}

/// The same of one image, which this gateway has behind another.
pub(super) async fn remember_image(parts: &Parts, key: &LaneKey) -> Result<(), StoreError> {
    let since = Timestamp::now().before(LOOKED_BACK);
    let (region, image_id) = key;
    // In this order: one that ends in between is found twice, and not never.
    let pending = parts.reader.pending_of(region, image_id).await?;
    let open = parts
        .reader
        .open_changes_of(region, image_id, since)
        .await?;
    remember_changes(parts, open, pending.into_iter()).await
}

fn open_change(recalled: &Recalled) -> OpenChange {
    OpenChange {
        region: recalled.region.clone(),
        image_id: recalled.image_id.clone(),
        account_id: recalled.account_id,
        operation: recalled.operation,
        event_id: recalled.event_id,
        ended_at: None,
    }
}

/// How long a change may take effect yet that ended then.
fn rest_of_landing(ended_at: Option<Timestamp>) -> Duration {
    let Some(ended_at) = ended_at else {
        return LANDING_TIME;
    };
    let rest = (LANDING_TIME + CLOCKS_APART).saturating_sub(Timestamp::now().since(ended_at));
    rest.min(LANDING_TIME)
}

async fn remember_changes(
    parts: &Parts,
    open: Vec<OpenChange>,
    pending: impl Iterator<Item = OpenChange>,
) -> Result<(), StoreError> {
    let mut images: BTreeMap<LaneKey, BTreeMap<AccountId, Left>> = BTreeMap::new();
    for change in open {
        let image = images.entry((change.region, change.image_id)).or_default();
        let left: &mut Left = image.entry(change.account_id).or_default();
        left.may_land(change.operation, change.event_id);
        left.rest = left.rest.max(rest_of_landing(change.ended_at));
    }
    for change in pending {
        let image = images.entry((change.region, change.image_id)).or_default();
        let left: &mut Left = image.entry(change.account_id).or_default();
        left.may_land(change.operation, change.event_id);
        left.rest = LANDING_TIME;
        left.was_last(change.event_id, change.operation, false);
    }
    for (key, mut accounts) in images {
        let ids: Vec<AccountId> = accounts.keys().copied().collect();
        let last = parts.reader.last_changes(&key.0, &key.1, &ids).await?;
        let succeeded = parts.reader.last_successes(&key.0, &key.1, &ids).await?;
        for (account_id, change) in last {
            if let Some(left) = accounts.get_mut(&account_id) {
                left.was_last(
                    change.event_id,
                    change.operation,
                    change.outcome == Outcome::Succeeded,
                );
            }
        }
        for (account_id, mut left) in accounts {
            if let Some(success) = succeeded.get(&account_id) {
                left.had_succeeded(success.event_id, success.operation);
            }
            let lands = [
                (Operation::Share, left.share),
                (Operation::Unshare, left.unshare),
            ];
            for (operation, _) in lands.into_iter().filter(|(_, open)| open.is_some()) {
                parts.lanes.may_land(&key, account_id, operation, left.rest);
            }
            if let Some((_, operation, succeeded)) = left.last {
                parts.lanes.was_last(&key, account_id, operation, succeeded);
            }
        }
    }
    Ok(())
}

/// What an earlier run left of an account.
#[derive(Default)]
struct Left {
    /// The last share, and the last unshare, of which a call may land.
    share: Option<EventId>,
    unshare: Option<EventId>,
    /// For how long at the most.
    rest: Duration,
    /// The last change that took effect, or may have, and whether it certainly did.
    last: Option<(EventId, Operation, bool)>,
}

impl Left {
    fn may_land(&mut self, operation: Operation, event_id: EventId) {
        let open = match operation {
            Operation::Share => &mut self.share,
            Operation::Unshare => &mut self.unshare,
        };
        *open = (*open).max(Some(event_id));
    }

    fn was_last(&mut self, event_id: EventId, operation: Operation, succeeded: bool) {
        if self.last.is_none_or(|(last, _, _)| event_id > last) {
            self.last = Some((event_id, operation, succeeded));
        }
    }

    /// A share that nobody knows of, after one that succeeded and with no unshare between them, changed nothing: it
    /// certainly is shared.
    fn had_succeeded(&mut self, event_id: EventId, operation: Operation) {
        if let Some((_, last, succeeded)) = &mut self.last
            && *last == operation
            && operation == Operation::Share
        {
            *succeeded |= self.unshare.is_none_or(|unshare| unshare < event_id);
        }
    }
}
