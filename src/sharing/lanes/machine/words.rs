//! The words between the machine and whoever carries out what it wants.

use std::time::{Duration, Instant};

use crate::domain::{AccountId, ImageId, Region};
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
pub(in crate::sharing) struct ReadId(pub(super) u64);

/// A lane that is held, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sharing) struct HoldId(pub(super) u64);

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
    /// The lane is held by its holder, until [`Machine::release`] or [`Machine::replace`].
    Held(HoldId),
    /// The time is up before the lane could be held.
    HoldEnded(HoldId),
    /// Look who has access, until then, and say it by [`Machine::looked`].
    Look {
        id: LookId,
        key: LaneKey,
        until: Instant,
    },
    /// Shares of these accounts must not stand; see whether they do, and take them back.
    Undo {
        key: LaneKey,
        accounts: Vec<AccountId>,
    },
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
    /// Whether the list showed afterwards what was asked, where it was looked at.
    pub(in crate::sharing) seen: Option<bool>,
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
}
