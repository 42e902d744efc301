//! The words between the machine and whoever carries out what it wants.

use std::time::{Duration, Instant};

use crate::domain::{AccountId, ImageId, Operation, Region};
use crate::sharing::lanes::landings::Suspect;
use crate::upstream::{CallError, Connection, Modification, Modified};

/// Names a lane: the queue of one image.
pub(in crate::sharing) type LaneKey = (Region, ImageId);

/// A change in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct PlaceId(pub(in crate::sharing::lanes) u64);

/// A call that carries changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct CallId(pub(super) u64);

/// A read, which is a call of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct ReadId(pub(in crate::sharing::lanes) u64);

/// Somebody who waits at a lane's door: to hold it, to be let in, or for what was accepted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct WaitId(pub(in crate::sharing::lanes) u64);

/// A look at what changes that ended unknown did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct LookId(pub(super) u64);

/// What the machine wants done.
#[derive(Debug)]
pub(in crate::sharing::lanes) enum Effect {
    /// Call, and say by [`Machine::answered`] what came of it.
    Call {
        id: CallId,
        modification: Modification,
        connection: Connection,
    },
    /// A change has ended.
    Ended(PlaceId, Ended),
    /// A change's time is up while a call carries it; it ends later.
    Late(PlaceId),
    /// A read may call; say by [`Machine::read_answered`] what came of it.
    Read(ReadId, Connection),
    /// A read may not call any more.
    ReadEnded(ReadId, NoTurn),
    /// The wait is over: the lane is held, by [`Machine::release`] or [`Machine::replace`] until it is not; or
    /// changes may be admitted, and [`Machine::entered`] says that they were; or what was accepted before is done.
    Granted(WaitId),
    /// The time is up before that.
    WaitEnded(WaitId),
    /// Look who has access, until then, and say it by [`Machine::looked`].
    Look {
        id: LookId,
        key: LaneKey,
        until: Instant,
    },
    /// Get an image's lock, and say it by [`Machine::locked`].
    Lock(LaneKey),
    /// Let an image's lock go.
    Unlock {
        key: LaneKey,
        /// Whether changes of it may land late.
        unsure: bool,
    },
    /// The time is over in which changes of these accounts could land late.
    LandingTimeOver {
        key: LaneKey,
        /// See whether the list is what was accepted last, and say so by [`Machine::looked_after`].
        suspects: Vec<Suspect>,
        /// Whatever landed, the list is what was accepted last.
        settled: Vec<AccountId>,
    },
}

/// Whether an account's share is what was accepted last, once changes of it could land late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sharing) enum Aftermath {
    /// It is.
    AsAccepted,
    /// It is not, and this puts it right.
    Contradicted(Operation),
    /// A change of it waits; only after that can be said what should be.
    Later,
}

/// Why a read gets no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sharing) enum NoTurn {
    /// Its time is up.
    TimeUp,
    /// The circuit breaker is open, for so long.
    BreakerOpen(Duration),
}

/// How a change's way through its lane ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sharing) struct Ended {
    /// What the last thing was that happened to it.
    pub(in crate::sharing) last: Last,
    /// Calls that carried it.
    pub(in crate::sharing) calls: u32,
    /// Whether one of them may have taken effect although no answer says so.
    pub(in crate::sharing) may_have_applied: bool,
    /// Whether one of them may still take effect.
    pub(in crate::sharing) may_land: bool,
    /// Whether the list showed afterwards what was asked, where it was looked at.
    pub(in crate::sharing) seen: Option<bool>,
}

impl Ended {
    /// Whether the upstream said that it is done.
    #[cfg(test)]
    pub(in crate::sharing) fn succeeded(&self) -> bool {
        let done = crate::upstream::Verdict::Done;
        matches!(&self.last, Last::Answered(modified) if modified.verdict == done)
    }
}

/// The last thing that happened to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sharing) enum Last {
    /// A call was answered.
    Answered(Modified),
    /// A call failed.
    Failed(CallError),
    /// Its time was up while it waited: it was never sent, or the upstream did nothing of the calls that carried it
    /// because of others.
    TimeUp,
    /// No call carried it, since the circuit breaker is open for so long.
    BreakerOpen(Duration),
    /// A call carries it still, and the program ends.
    Abandoned,
    /// A call may have carried it; the task that knows is gone.
    Lost,
    /// No call carries it any more: another gateway has the image.
    CutOff,
}

/// What bounds the machine.
#[derive(Debug, Clone, Copy)]
pub(in crate::sharing) struct Limits {
    /// Calls at once.
    pub(in crate::sharing) max_in_flight: usize,
    /// How often a call that failed is made again.
    pub(in crate::sharing) max_retries: u32,
    /// Calls a second.
    pub(in crate::sharing) requests_per_second: Option<f64>,
    /// Whether other gateways change the same images.
    pub(in crate::sharing) shared: bool,
}
