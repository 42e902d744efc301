//! The upstream of the small world: it behaves as it is told.

use std::time::Duration;

use super::judge::Sent;
use super::world::{Coming, World};
use crate::domain::AccountId;
use crate::sharing::lanes::machine::{CallId, LaneKey};
use crate::upstream::{CallError, Cause, Connection, Modification, Modified, RetCode, Verdict};

/// What the upstream does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Does it and says so.
    Does,
    /// Refuses it.
    Refuses(i64),
    /// Answers with a status, having done it or not.
    Status(u16, Option<u64>, bool),
    /// Cannot be reached.
    Unreachable,
    /// Loses the connection, having done it or not.
    Loses(bool),
    /// Never answers, having done it or not.
    Hangs(bool),
    /// Never answers, and does it so many seconds after it was asked; at least as many as nobody waits for it any more.
    LandsLate(u64),
    /// Refuses the image, whatever the accounts.
    RefusesImage,
    /// Has closed the pooled connection as idle; over a fresh one it does it.
    ClosedIdle,
    /// Answers with what cannot be read, having done it or not.
    Babbles(bool),
}

/// How long a call takes that the upstream answers, and one that it does not.
pub(super) const LATENCY: Duration = Duration::from_millis(50);
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// From here up accounts do not exist; between, they spoil any call that names them.
pub(super) const POISON: u64 = 500;
pub(super) const MISSING: u64 = 900;

impl World {
    pub(super) fn call(&mut self, id: CallId, modification: Modification, connection: Connection) {
        let key: LaneKey = (modification.region.clone(), modification.image_id.clone());
        self.judge_call(id, &key, &modification);
        let behaviour = if self.behaviours.len() > 1 {
            self.behaviours.remove(0)
        } else {
            self.behaviours[0]
        };
        let accounts: Vec<AccountId> = modification
            .additions
            .iter()
            .chain(&modification.removals)
            .copied()
            .collect();
        let missing: Vec<AccountId> = accounts
            .iter()
            .copied()
            .filter(|account| account.get() >= MISSING)
            .collect();
        let poisoned = accounts
            .iter()
            .any(|account| (POISON..MISSING).contains(&account.get()));
        let stale = behaviour == Behaviour::ClosedIdle && connection == Connection::Pooled;
        let reaches = !matches!(
            behaviour,
            Behaviour::Unreachable | Behaviour::Refuses(_) | Behaviour::RefusesImage
        ) && !stale;
        let spoiled = reaches && (poisoned || !missing.is_empty());
        let answers = matches!(behaviour, Behaviour::Does | Behaviour::ClosedIdle) && !stale;
        let result = if answers && poisoned {
            Err(refusal(240))
        } else if answers {
            let verdict = if missing.is_empty() {
                Verdict::Done
            } else {
                Verdict::InvalidAccounts(missing)
            };
            Ok(Modified {
                verdict,
                ret_code: 0,
                request_id: None,
            })
        } else if stale {
            Err(lost(true))
        } else {
            Err(failure(behaviour).expect("whatever does not answer fails"))
        };
        let applied = !spoiled
            && match behaviour {
                Behaviour::Does => true,
                Behaviour::ClosedIdle => !stale,
                Behaviour::Status(_, _, done)
                | Behaviour::Loses(done)
                | Behaviour::Hangs(done)
                | Behaviour::Babbles(done) => done,
                Behaviour::Refuses(_)
                | Behaviour::RefusesImage
                | Behaviour::Unreachable
                | Behaviour::LandsLate(_) => false,
            };
        let lands = match behaviour {
            Behaviour::LandsLate(seconds) if !spoiled => Some(Duration::from_secs(seconds)),
            _ => None,
        };
        let took = time_of(behaviour);
        if let Some(after) = lands {
            self.comes(after.max(took), Coming::Lands(id));
        }
        let sent = Sent {
            at: self.now,
            modification,
            connection,
            applied,
            lands: lands.is_some(),
            result: None,
        };
        if applied {
            self.apply(&key, &sent.modification);
        }
        self.sent.insert(id, sent);
        self.calls.push(id);
        self.comes(took, Coming::CallEnds(id, result));
    }

    pub(super) fn apply(&mut self, key: &LaneKey, modification: &Modification) {
        let list = self.lists.entry(key.clone()).or_default();
        list.extend(&modification.additions);
        list.retain(|account| !modification.removals.contains(account));
    }
}

pub(super) fn refusal(code: i64) -> CallError {
    CallError::Refused {
        ret_code: RetCode::new(code),
        message: None,
        request_id: None,
    }
}

fn lost(pooled: bool) -> CallError {
    CallError::Lost {
        cause: Cause::new("simulated"),
        pooled,
    }
}

pub(super) fn failure(behaviour: Behaviour) -> Option<CallError> {
    match behaviour {
        Behaviour::Does | Behaviour::ClosedIdle => None,
        Behaviour::Refuses(code) => Some(refusal(code)),
        Behaviour::RefusesImage => Some(refusal(9999)),
        Behaviour::Status(status, seconds, _) => Some(CallError::Status {
            status,
            retry_after: seconds.map(Duration::from_secs),
            request_id: None,
        }),
        Behaviour::Unreachable => Some(CallError::Unreachable(Cause::new("simulated"))),
        Behaviour::Loses(_) => Some(lost(false)),
        Behaviour::Hangs(_) | Behaviour::LandsLate(_) => {
            Some(CallError::TimedOut(Cause::new("simulated")))
        }
        Behaviour::Babbles(_) => Some(CallError::Garbled {
            what: "simulated",
            ret_code: None,
            request_id: None,
        }),
    }
}

pub(super) fn time_of(behaviour: Behaviour) -> Duration {
    match behaviour {
        Behaviour::Hangs(_) | Behaviour::LandsLate(_) => CALL_TIMEOUT,
        _ => LATENCY,
    }
}
