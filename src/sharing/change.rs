//! One change from decision to receipt.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at};

use crate::audit::{Denial, Elapsed, HttpStatus, Intent, NotDurable, Recalled, Refused};
use crate::authorization::{Decision, Refusal, Request};
use crate::domain::{Author, Caller, Change, Deadline, EventId, Operation, Stopwatch};
use crate::problem::ProblemKind;
use crate::telemetry::traces::{current, within_now};

use super::completion;
use super::lanes::{Ended, Kind, Place, Terms, Word};
use super::{ChangeError, Parts, Receipt, Sharing};

/// What the last step, writing the outcome, gets where the caller's time is up already.
pub(super) const RECORD_GRACE: Duration = Duration::from_secs(1);

pub(super) type Answer = oneshot::Sender<Result<Receipt, ChangeError>>;

impl Sharing {
    /// Makes one change, in a task of its own, and waits for it until `deadline`. The task begins on the thread that calls
    /// this, so that the intent is on its way to the disk at once.
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
        let caller = Arc::new(caller);
        self.0
            .tasks
            .begin_here(async move { parts.run(caller, change, deadline, answer).await });
        answered.await.unwrap_or(Err(ChangeError::Lost))
    }
}

/// The status that an event records for one change that succeeded.
fn success_status(operation: Operation) -> u16 {
    match operation {
        Operation::Share => 200,
        Operation::Unshare => 204,
    }
}

impl Parts {
    async fn run(&self, caller: Arc<Caller>, change: Change, deadline: Deadline, answer: Answer) {
        let authorizing = self.traces.part("authorize");
        let decision = self.authorizer.decide(&caller, Request::Change(&change));
        authorizing.end();
        let policy_ids = match decision {
            Decision::Allowed { policy_ids } => policy_ids,
            Decision::Refused(refusal) => {
                let refused = Refused::Change(change);
                let denied = self.deny(caller, refused, refusal, deadline).await;
                let _ = answer.send(Err(denied));
                return;
            }
        };
        let intent = Intent {
            author: Author::Caller(caller),
            change,
            policy_ids,
        };
        let key = (intent.change.region.clone(), intent.change.image_id.clone());
        let changes = vec![(intent.change.operation, intent.change.account_id)];
        let asked = Terms {
            party: intent.author.party(),
            kind: Kind::Single,
            deadline: deadline.instant(),
        };
        let (writer, queued) = (self.writer.clone(), intent.clone());
        let (traces, spans) = (self.traces.clone(), current());
        let enqueue = move || {
            let recording = within_now(spans, || traces.part("audit.intent"));
            Ok((writer.enqueue(queued)?, recording))
        };
        let admitted = self.lanes.admit(&key, asked, changes, enqueue);
        let ((mut ticket, recording), places) = match admitted.await {
            Ok(admitted) => admitted,
            Err(error) => {
                let _ = answer.send(Err(error.into()));
                return;
            }
        };
        let mut telling = Telling::new(answer);
        let Some(mut place) = places.into_iter().next() else {
            return;
        };
        let mut ended = None;
        let recorded = tokio::select! {
            biased;
            recorded = &mut ticket => recorded,
            word = place.word() => {
                // Its time is up. Nothing is sent from here on; should the intent still get to disk, its outcome
                // follows.
                telling.tell(ProblemKind::AuditUnavailable, ChangeError::AuditUnavailable);
                if let Word::Ended(early) = word {
                    ended = Some(early);
                }
                ticket.await
            }
        };
        recording.end();
        let Ok(recorded) = recorded else {
            telling.tell(ProblemKind::AuditUnavailable, ChangeError::AuditUnavailable);
            return;
        };
        if ended.is_none() {
            self.lanes.recorded([&place]);
        }
        let change = AcceptedChange {
            success_status: success_status(intent.change.operation),
            since: since(&intent.author),
            intent,
            event_id: recorded.event_id,
            deadline,
        };
        self.finish(change, place, ended, telling).await;
    }

    /// Follows a change whose intent is on disk to its end, and writes that down.
    pub(super) async fn finish(
        &self,
        change: AcceptedChange,
        mut place: Place,
        ended: Option<Ended>,
        mut telling: Telling,
    ) {
        let ended = match ended {
            Some(ended) => ended,
            None => {
                self.await_end(&mut place, &mut telling, change.event_id)
                    .await
            }
        };
        self.write_down(change, &ended, telling).await;
    }

    /// Waits for the end. A caller whose time is up while a call carries the change is answered, and the wait
    /// goes on.
    async fn await_end(
        &self,
        place: &mut Place,
        telling: &mut Telling,
        event_id: EventId,
    ) -> Ended {
        loop {
            tokio::select! {
                word = place.word() => match word {
                    Word::Ended(ended) => return ended,
                    Word::Late => {
                        telling.tell(
                            ProblemKind::UpstreamTimeout,
                            ChangeError::StillInFlight { event_id },
                        );
                    }
                },
                () = self.tasks.giving_up() => return place.abandon(),
            }
        }
    }

    /// Writes a denial down.
    pub(super) async fn deny(
        &self,
        caller: Arc<Caller>,
        refused: Refused,
        refusal: Refusal,
        deadline: Deadline,
    ) -> ChangeError {
        let operation = refused.operation();
        let status = refusal_status(&refusal);
        let denial = denial(caller, refused, &refusal, status.clone());
        let recording = self.traces.part("audit.intent");
        let mut ticket = match self.writer.enqueue_denial(denial) {
            Ok(ticket) => ticket,
            Err(error) => return error.into(),
        };
        let in_time = match timeout_at(deadline.instant().into(), &mut ticket).await {
            Err(_) if !status.change(ProblemKind::AuditUnavailable.status()) => {
                timeout(RECORD_GRACE, &mut ticket).await
            }
            in_time => in_time,
        };
        recording.end();
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

    async fn write_down(&self, change: AcceptedChange, ended: &Ended, mut telling: Telling) {
        let AcceptedChange {
            intent,
            event_id,
            deadline,
            since,
            success_status,
        } = change;
        let operation = intent.change.operation;
        let settled = completion::settle(ended);
        let told = telling.told.map(ProblemKind::status);
        let status = HttpStatus::new(told.unwrap_or(settled.http_status(success_status)));
        // Nobody is told of what the gateway does by itself.
        let written_status = intent.author.caller().map(|_| status.clone());
        let recalled = Recalled::of(&intent, event_id);
        let completion = settled.completion(recalled, written_status, Elapsed::Since(since));
        let completion = Arc::new(completion);
        let outcome = completion.outcome;
        let recording = self.traces.part("audit.outcome");
        let mut writing = std::pin::pin!(self.writer.record(Arc::clone(&completion)));
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
        recording.end();
        // Whoever has their answer finds it counted.
        self.metrics.change(operation.as_str(), outcome.as_str());
        let gone = if written.is_ok() {
            telling.answer(settled.answer(event_id))
        } else {
            let gone = telling.tell_not_recorded(event_id, settled.effect());
            let told = telling.told.map(|kind| HttpStatus::new(kind.status()));
            let mut completion = Arc::unwrap_or_clone(completion);
            completion.http_status = intent.author.caller().and(told);
            self.writer.keep(completion).await;
            gone
        };
        if let Some(caller) = intent.author.caller().filter(|_| gone) {
            // The request's own line does not say it: it was written before, or never.
            tracing::info!(
                request_id = caller.request_id.as_str(),
                audit.event_id = %event_id,
                audit.outcome = outcome.as_str(),
                "a change ended after its caller had left or was answered"
            );
        }
    }
}

/// A change whose intent is on disk.
pub(super) struct AcceptedChange {
    pub(super) intent: Intent,
    pub(super) event_id: EventId,
    pub(super) deadline: Deadline,
    /// Runs since it was asked for.
    pub(super) since: Stopwatch,
    /// What its caller is told where it succeeds.
    pub(super) success_status: u16,
}

/// When a change was asked for; now, where the gateway makes it by itself.
pub(super) fn since(author: &Author) -> Stopwatch {
    author
        .caller()
        .map_or_else(Stopwatch::start, |caller| caller.since_arrival)
}

/// The denial of what `refusal` refused.
pub(super) fn denial(
    caller: Arc<Caller>,
    refused: Refused,
    refusal: &Refusal,
    http_status: HttpStatus,
) -> Denial {
    let (policy_ids, detail) = match refusal {
        Refusal::InsufficientScope(scope) => (
            Vec::new(),
            format!("the token lacks the scope {}", scope.as_str()),
        ),
        Refusal::Forbidden { policy_ids } => (policy_ids.clone(), REFUSED_BY_POLICY.to_owned()),
    };
    Denial {
        caller,
        refused,
        policy_ids,
        http_status,
        detail,
    }
}

pub(super) const REFUSED_BY_POLICY: &str = "refused by policy";

/// What whoever is refused is told.
pub(super) fn refusal_status(refusal: &Refusal) -> HttpStatus {
    let kind = match refusal {
        Refusal::InsufficientScope(_) => ProblemKind::InsufficientScope,
        Refusal::Forbidden { .. } => ProblemKind::Forbidden,
    };
    HttpStatus::new(kind.status())
}

/// The caller's answer, and what it was; an event records what its caller was told.
pub(super) struct Telling {
    answer: Option<Answer>,
    told: Option<ProblemKind>,
}

impl Telling {
    pub(super) fn new(answer: Answer) -> Self {
        Self {
            answer: Some(answer),
            told: None,
        }
    }

    /// Answers with a problem, unless that was done. Returns whether nobody heard it.
    pub(super) fn tell(&mut self, kind: ProblemKind, error: ChangeError) -> bool {
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

    fn answer(&mut self, answer: Result<Receipt, ChangeError>) -> bool {
        self.answer
            .take()
            .is_none_or(|channel| channel.send(answer).is_err())
    }
}
