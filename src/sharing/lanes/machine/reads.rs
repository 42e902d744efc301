//! Reads: each is a call of its own, in line with the lanes.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::domain::{Deadline, Party};
use crate::sharing::lanes::gate::{Begun, Purpose, ReadingParty, Turn};
use crate::upstream::{CallError, Connection, Effort, Retry, backoff};

use super::words::{Effect, NoTurn, ReadId};
use super::{Alarm, Machine};

/// Most reads of one party that wait for a call or are in one.
pub(in crate::sharing) const READS_OF_PARTY_MAX: usize = 64;
/// Most callers' reads that do; the first of a party is taken all the same. Those of the gateway and of who holds lanes
/// are bounded by what they are for.
const READS_MAX: usize = 1024;

/// A read as it is asked for.
#[derive(Debug, Clone)]
pub(in crate::sharing) struct ReadTerms {
    /// On whose behalf.
    pub(in crate::sharing) party: Party,
    /// Whether a lane is held for it, which keeps others waiting: it goes in line with the lanes, as the gateway's own
    /// reads do, and not behind other reads.
    pub(in crate::sharing) holds: bool,
    /// Until when somebody waits for it.
    pub(in crate::sharing) deadline: Instant,
    /// How often it is made again where it fails, and not more than configured.
    pub(in crate::sharing) max_retries: u32,
}

impl ReadTerms {
    /// A caller's.
    pub(in crate::sharing) fn of(party: Party, deadline: Deadline) -> Self {
        Self::until(party, deadline.instant())
    }

    /// The same, by an instant.
    pub(in crate::sharing) fn until(party: Party, deadline: Instant) -> Self {
        Self {
            party,
            holds: false,
            deadline,
            max_retries: u32::MAX,
        }
    }

    /// The gateway's own.
    pub(in crate::sharing) fn own(deadline: Deadline) -> Self {
        Self::of(Party::Gateway, deadline)
    }

    /// A lane is held for it.
    pub(in crate::sharing) fn holding(self) -> Self {
        Self {
            holds: true,
            ..self
        }
    }

    /// It is made once.
    pub(in crate::sharing) fn once(self) -> Self {
        Self {
            max_retries: 0,
            ..self
        }
    }
}

#[derive(Debug)]
pub(super) struct Read {
    reader: ReadingParty,
    deadline: Instant,
    at: ReadAt,
    connection: Connection,
    max_retries: u32,
    retries: u32,
    effort: Effort,
}

#[derive(Debug, Clone)]
enum ReadAt {
    InLine,
    Calling(Begun),
    Resting(Instant),
}

impl Machine {
    /// A read wants to call. `None` where too many do.
    pub(in crate::sharing::lanes) fn read(
        &mut self,
        now: Instant,
        asked: ReadTerms,
    ) -> Option<ReadId> {
        let ReadTerms {
            party,
            holds,
            deadline,
            max_retries,
        } = asked;
        let reader = ReadingParty { party, holds };
        if reader.takes_a_place() {
            let all: usize = self.reads_of.values().sum();
            let of_party = self.reads_of.get(&reader.party).copied().unwrap_or(0);
            if of_party >= READS_OF_PARTY_MAX || (all >= READS_MAX && of_party > 0) {
                return None;
            }
            self.reads_of.insert(reader.party.clone(), of_party + 1);
        }
        let id = ReadId(self.next_id());
        self.gate.line_up(Turn::Read(id, reader.clone()));
        let read = Read {
            reader,
            deadline,
            at: ReadAt::InLine,
            connection: Connection::Pooled,
            max_retries: max_retries.min(self.max_retries),
            retries: 0,
            // A look after a failure must not earn what is spent on failures.
            effort: if max_retries == 0 {
                Effort::Again
            } else {
                Effort::First
            },
        };
        self.reads.insert(id, read);
        self.alarms.insert((deadline, Alarm::Read(id)));
        self.dispatch(now);
        Some(id)
    }

    pub(super) fn begin_read(&mut self, now: Instant, id: ReadId) {
        let refusal = self.gate.refusal(now);
        let Some(read) = self.reads.get_mut(&id) else {
            return;
        };
        if let Some(wait) = refusal {
            self.end_read(id, NoTurn::BreakerOpen(wait));
            return;
        }
        let purpose = Purpose::Read(read.reader.clone());
        read.at = ReadAt::Calling(self.gate.begin(now, purpose, read.effort));
        self.effects.push(Effect::Read(id, read.connection));
    }

    /// A read's call was answered, or failed. Returns whether it is called again: then another effect says when.
    pub(in crate::sharing::lanes) fn read_answered(
        &mut self,
        now: Instant,
        id: ReadId,
        error: Option<&CallError>,
    ) -> bool {
        let Some(read) = self.reads.get(&id) else {
            return false;
        };
        let ReadAt::Calling(begun) = &read.at else {
            return false;
        };
        if self.gate.ended(now, begun, error) {
            self.refuse_all(now);
        }
        let again = error.is_some_and(|error| self.read_again(now, id, error));
        if !again {
            self.forget_read(id);
        }
        self.dispatch(now);
        again
    }

    fn read_again(&mut self, now: Instant, id: ReadId, error: &CallError) -> bool {
        let Some(read) = self.reads.get_mut(&id) else {
            return false;
        };
        let (at_least, times) = match error.retry() {
            Retry::Never => return false,
            Retry::AtOnce if read.connection == Connection::Pooled => {
                (read.connection, read.effort) = (Connection::Fresh, Effort::Again);
                read.at = ReadAt::InLine;
                self.gate.line_up(Turn::Read(id, read.reader.clone()));
                return true;
            }
            Retry::AtOnce => (Duration::ZERO, u32::MAX),
            Retry::After { at_least, times } => (at_least, times),
        };
        let (retries, deadline) = (read.retries, read.deadline);
        let times = times.min(read.max_retries);
        let Some(wait) = self.granted_retry(now, retries, times, at_least, deadline) else {
            return false;
        };
        let Some(read) = self.reads.get_mut(&id) else {
            return false;
        };
        read.retries += 1;
        (read.connection, read.effort) = (Connection::Pooled, Effort::Retry);
        read.at = ReadAt::Resting(now + wait);
        self.alarms.insert((now + wait, Alarm::Read(id)));
        true
    }

    /// How long to wait before a call is made again that was made again so often; takes the retry from the budget.
    fn granted_retry(
        &mut self,
        now: Instant,
        retries: u32,
        times: u32,
        at_least: Duration,
        deadline: Instant,
    ) -> Option<Duration> {
        let wait = backoff(retries, at_least, self.chance.random());
        let allowed = retries < times
            && deadline.saturating_duration_since(now) > wait
            && self.gate.refusal(now).is_none();
        (allowed && self.gate.grants_retry()).then_some(wait)
    }

    /// Whether somebody who read once, and lets go of his lane, may read again, and after what time.
    pub(in crate::sharing::lanes) fn another_read(
        &mut self,
        now: Instant,
        error: &CallError,
        retries: u32,
        deadline: Instant,
    ) -> Option<Duration> {
        let (at_least, times) = match error.retry() {
            Retry::Never => return None,
            Retry::AtOnce => (Duration::ZERO, u32::MAX),
            Retry::After { at_least, times } => (at_least, times),
        };
        let times = times.min(self.max_retries);
        self.granted_retry(now, retries, times, at_least, deadline)
    }

    pub(super) fn read_alarm(&mut self, now: Instant, id: ReadId) {
        let Some(read) = self.reads.get_mut(&id) else {
            return;
        };
        if read.deadline <= now {
            match read.at {
                // Its reader waits no longer than its time, and says so by `read_dropped`.
                ReadAt::Calling(_) => {}
                ReadAt::InLine | ReadAt::Resting(_) => self.end_read(id, NoTurn::TimeUp),
            }
        } else if let ReadAt::Resting(until) = read.at
            && until <= now
        {
            read.at = ReadAt::InLine;
            self.gate.line_up(Turn::Read(id, read.reader.clone()));
        }
    }

    /// The breaker opened: reads that rest before they call again do not.
    pub(super) fn refuse_resting_reads(&mut self, wait: Duration) {
        let resting: Vec<ReadId> = self
            .reads
            .iter()
            .filter(|(_, read)| matches!(read.at, ReadAt::Resting(_)))
            .map(|(id, _)| *id)
            .collect();
        for id in resting {
            self.end_read(id, NoTurn::BreakerOpen(wait));
        }
    }

    fn end_read(&mut self, id: ReadId, why: NoTurn) {
        self.forget_read(id);
        self.effects.push(Effect::ReadEnded(id, why));
    }

    fn forget_read(&mut self, id: ReadId) -> Option<Read> {
        let read = self.reads.remove(&id)?;
        self.alarms.remove(&(read.deadline, Alarm::Read(id)));
        match read.at {
            ReadAt::Resting(until) => {
                self.alarms.remove(&(until, Alarm::Read(id)));
            }
            ReadAt::InLine => self.gate.leave(id, &read.reader),
            ReadAt::Calling(_) => {}
        }
        let party = &read.reader.party;
        if read.reader.takes_a_place()
            && let Some(count) = self.reads_of.get_mut(party)
        {
            *count -= 1;
            if *count == 0 {
                self.reads_of.remove(party);
            }
        }
        Some(read)
    }

    /// Nobody waits for this read any more.
    pub(in crate::sharing::lanes) fn read_dropped(&mut self, now: Instant, id: ReadId) {
        let Some(read) = self.forget_read(id) else {
            return;
        };
        if let ReadAt::Calling(begun) = &read.at {
            self.gate.abandoned(now, begun);
        }
        self.dispatch(now);
    }
}
