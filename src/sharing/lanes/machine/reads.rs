//! Reads: each is a call of its own, in line with the lanes.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::sharing::lanes::gate::{Begun, Kind, Turn};
use crate::upstream::{CallError, Connection, Retry, backoff};

use super::words::{Effect, NoTurn, ReadId};
use super::{Alarm, Machine};

/// Most reads that wait for a call or are in one.
const READS_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Read {
    deadline: Instant,
    at: ReadAt,
    connection: Connection,
    max_retries: u32,
    retries: u32,
    retry: bool,
}

#[derive(Debug, Clone, Copy)]
enum ReadAt {
    InLine,
    Calling(Begun),
    Resting(Instant),
}

impl Machine {
    /// A read wants to call. `None` where too many do. Where it fails it is made again, so often and not more.
    pub(in crate::sharing::lanes) fn read(
        &mut self,
        now: Instant,
        deadline: Instant,
        max_retries: u32,
    ) -> Option<ReadId> {
        if self.reads.len() >= READS_MAX {
            return None;
        }
        let id = ReadId(self.next_id());
        let read = Read {
            deadline,
            at: ReadAt::InLine,
            connection: Connection::Pooled,
            max_retries: max_retries.min(self.max_retries),
            retries: 0,
            retry: false,
        };
        self.reads.insert(id, read);
        self.alarms.insert((deadline, Alarm::Read(id)));
        self.gate.line_up(Turn::Read(id));
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
        read.at = ReadAt::Calling(self.gate.begin(now, Kind::Read, read.retry));
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
        let ReadAt::Calling(begun) = read.at else {
            return false;
        };
        if self.gate.ended(now, begun, error) {
            self.refuse_all(now);
        }
        let again = error.is_some_and(|error| self.read_again(now, id, error));
        if !again && let Some(read) = self.reads.remove(&id) {
            self.alarms.remove(&(read.deadline, Alarm::Read(id)));
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
                (read.connection, read.retry, read.at) = (Connection::Fresh, false, ReadAt::InLine);
                self.gate.line_up(Turn::Read(id));
                return true;
            }
            Retry::AtOnce => (Duration::ZERO, u32::MAX),
            Retry::After { at_least, times } => (at_least, times),
        };
        let wait = backoff(read.retries, at_least, self.chance.random());
        let allowed = read.retries < times.min(read.max_retries)
            && read.deadline.saturating_duration_since(now) > wait
            && self.gate.refusal(now).is_none();
        if !allowed || !self.gate.grants_retry() {
            return false;
        }
        read.retries += 1;
        (read.connection, read.retry) = (Connection::Pooled, true);
        read.at = ReadAt::Resting(now + wait);
        self.alarms.insert((now + wait, Alarm::Read(id)));
        true
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
            self.gate.line_up(Turn::Read(id));
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
        if let ReadAt::Resting(until) = read.at {
            self.alarms.remove(&(until, Alarm::Read(id)));
        }
        Some(read)
    }

    /// Nobody waits for this read any more.
    pub(in crate::sharing::lanes) fn read_dropped(&mut self, now: Instant, id: ReadId) {
        let Some(read) = self.forget_read(id) else {
            return;
        };
        if let ReadAt::Calling(begun) = read.at {
            self.gate.abandoned(now, begun);
        }
        self.dispatch(now);
    }
}
