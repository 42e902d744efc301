//! One change from decision to receipt.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout, timeout_at};

use crate::audit::{Denial, Elapsed, HttpStatus, Intent, NotDurable, Recalled};
use crate::authorization::{Action, Decision, Refusal};
use crate::domain::{Caller, Change, Deadline, EventId};
use crate::problem::ProblemKind;

use super::completion::{self, Ending};
use super::lane::Place;
use super::{ChangeError, Parts, Receipt, Sharing};

/// What the last step, writing the outcome, gets where the caller's time is up already.
const RECORD_GRACE: Duration = Duration::from_secs(1);

type Answer = oneshot::Sender<Result<Receipt, ChangeError>>;

impl Sharing {
    /// Makes one change, in a task of its own, and waits for it until `deadline`.
    ///
    /// # Errors
    /// See [`ChangeError`]; each variant says what is on disk and what was sent.
    pub async fn change(
        &self,
        caller: Caller,
        change: Change,
        deadline: Deadline,
    ) -> Result<Receipt, ChangeError> {
        let (answer, answered) = oneshot::channel();
        let parts = Arc::clone(&self.0);
        self.0
            .tasks
            .spawn(async move { parts.run(caller, change, deadline, answer).await });
        answered.await.unwrap_or(Err(ChangeError::Lost))
    }
}

impl Parts {
    async fn run(&self, caller: Caller, change: Change, deadline: Deadline, answer: Answer) {
        let until = deadline.instant().into();
        let decision = self
            .authorizer
            .decide(&caller.principal, Action::Change(change.operation));
        let policy_ids = match decision {
            Decision::Allowed { policy_ids } => policy_ids,
            Decision::Refused(refusal) => {
                let _ = answer.send(Err(self.deny(caller, change, refusal, until).await));
                return;
            }
        };
        let intent = Intent {
            caller,
            change,
            policy_ids,
        };
        let admitted = self
            .lanes
            .admit(&intent.change, || self.writer.enqueue(intent.clone()));
        let (mut ticket, mut place) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                let _ = answer.send(Err(error.into()));
                return;
            }
        };
        let mut telling = Telling {
            answer: Some(answer),
            told: None,
        };
        let recorded = tokio::select! {
            recorded = &mut ticket => recorded,
            () = sleep_until(until) => {
                // Nothing is sent from here on; should the intent still get to disk, its outcome follows.
                place.withdraw();
                telling.tell(ProblemKind::AuditUnavailable, ChangeError::AuditUnavailable);
                ticket.await
            }
        };
        let Ok(recorded) = recorded else {
            place.withdraw();
            telling.tell(ProblemKind::AuditUnavailable, ChangeError::AuditUnavailable);
            return;
        };
        place.clear();
        let ending = self
            .await_ending(&mut place, until, &mut telling, recorded.event_id)
            .await;
        self.end(&intent, recorded.event_id, ending, deadline, telling)
            .await;
    }

    async fn deny(
        &self,
        caller: Caller,
        change: Change,
        refusal: Refusal,
        until: tokio::time::Instant,
    ) -> ChangeError {
        let (kind, policy_ids, detail) = match &refusal {
            Refusal::InsufficientScope(scope) => (
                ProblemKind::InsufficientScope,
                Vec::new(),
                format!("the token lacks the scope {}", scope.as_str()),
            ),
            Refusal::Forbidden { policy_ids } => (
                ProblemKind::Forbidden,
                policy_ids.clone(),
                "refused by policy".to_owned(),
            ),
        };
        let operation = change.operation.as_str();
        let status = HttpStatus::new(kind.status());
        let denial = Denial {
            caller,
            change,
            policy_ids,
            http_status: status.clone(),
            detail,
        };
        let mut ticket = match self.writer.enqueue_denial(denial) {
            Ok(ticket) => ticket,
            Err(error) => return error.into(),
        };
        let in_time = match timeout_at(until, &mut ticket).await {
            Err(_) if !status.change(ProblemKind::AuditUnavailable.status()) => {
                timeout(RECORD_GRACE, &mut ticket).await
            }
            in_time => in_time,
        };
        match in_time.unwrap_or(Err(NotDurable)) {
            Ok(recorded) => {
                self.metrics.change(operation, "denied");
                ChangeError::Denied {
                    refusal,
                    event_id: recorded.event_id,
                }
            }
            Err(_) => ChangeError::AuditUnavailable,
        }
    }

    /// Waits for the call that carries the change. Where the caller's time is up before it was sent, it
    /// never will be; where it was sent, the caller is answered and the wait goes on.
    async fn await_ending(
        &self,
        place: &mut Place,
        until: tokio::time::Instant,
        telling: &mut Telling,
        event_id: EventId,
    ) -> Ending {
        let time_is_up = tokio::select! {
            ending = place.ending() => return ending,
            () = sleep_until(until) => true,
            () = self.tasks.giving_up() => false,
        };
        if place.withdraw() {
            return Ending::NeverSent;
        }
        if !time_is_up {
            return Ending::Abandoned;
        }
        telling.tell(
            ProblemKind::UpstreamTimeout,
            ChangeError::StillInFlight { event_id },
        );
        tokio::select! {
            ending = place.ending() => ending,
            () = self.tasks.giving_up() => Ending::Abandoned,
        }
    }

    async fn end(
        &self,
        intent: &Intent,
        event_id: EventId,
        ending: Ending,
        deadline: Deadline,
        mut telling: Telling,
    ) {
        let operation = intent.change.operation;
        let settled = completion::settle(operation, ending);
        let recalled = Recalled::of(intent, event_id);
        let status = telling
            .told
            .map_or(settled.http_status(), ProblemKind::status);
        let status = HttpStatus::new(status);
        let elapsed = Elapsed::Since(intent.caller.since_arrival);
        let mut completion = settled.completion(recalled, status.clone(), elapsed);
        let outcome = completion.outcome;
        let mut writing = std::pin::pin!(self.writer.record(completion.clone()));
        let patience = deadline.or_after(RECORD_GRACE).instant();
        let in_time = match timeout_at(patience.into(), &mut writing).await {
            Ok(written) => Some(written),
            // A row that is sealed says what the caller will be told; it gets a moment more to reach the disk.
            Err(_)
                if telling.told.is_none()
                    && !status.change(ProblemKind::OutcomeUnrecorded.status()) =>
            {
                timeout(RECORD_GRACE, &mut writing).await.ok()
            }
            Err(_) => None,
        };
        let written = if let Some(written) = in_time {
            written
        } else {
            telling.tell_not_recorded(event_id, settled.effect());
            writing.await
        };
        let gone = if written.is_ok() {
            telling.answer(settled.answer(event_id))
        } else {
            let gone = telling.tell_not_recorded(event_id, settled.effect());
            completion.http_status = telling.told.map(|kind| HttpStatus::new(kind.status()));
            self.writer.keep(completion).await;
            gone
        };
        self.metrics.change(operation.as_str(), outcome.as_str());
        if gone {
            // The request's own line does not say it: it was written before, or never.
            tracing::info!(
                request.id = intent.caller.request_id.as_str(),
                audit.event_id = %event_id,
                outcome = outcome.as_str(),
                "a change ended after its caller had left or was answered"
            );
        }
    }
}

/// The caller's answer, and what it was; an event records what its caller was told.
struct Telling {
    answer: Option<Answer>,
    told: Option<ProblemKind>,
}

impl Telling {
    fn tell(&mut self, kind: ProblemKind, error: ChangeError) -> bool {
        if self.answer.is_none() {
            return true;
        }
        self.told = Some(kind);
        self.answer(Err(error))
    }

    fn tell_not_recorded(&mut self, event_id: EventId, effect: crate::problem::Effect) -> bool {
        self.tell(
            ProblemKind::OutcomeUnrecorded,
            ChangeError::OutcomeNotRecorded { event_id, effect },
        )
    }

    /// Answers, unless that was done. Returns whether nobody heard it.
    fn answer(&mut self, answer: Result<Receipt, ChangeError>) -> bool {
        self.answer
            .take()
            .is_none_or(|channel| channel.send(answer).is_err())
    }
}
