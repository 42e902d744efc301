//! The words of the gateway: what a change is, who asks for it, when, and how it ended.
//!
//! Everything here is parsed once, at the edge, and is right from then on: a function that takes an
//! [`ImageId`] need not ask again whether it is one. No I/O but the clock, no framework, no serde.

mod caller;
mod change;
mod ids;
mod image;
mod issuer;
mod line;
mod time;
mod trace;

pub use caller::{Author, Caller, Party, Principal, SYSTEM_SUBJECTS, Scope};
pub use change::{
    Change, InvalidOutcome, InvalidReason, Operation, Outcome, REASON_CHARACTERS_MAX, Reason,
};
pub use ids::{
    ACCOUNT_ID_MAX, ACCOUNTS_MAX, AccountId, EventId, IMAGE_ID_BYTES_MAX, ImageId,
    InvalidAccountId, InvalidImageId, InvalidRegion, InvalidRequestId, Region, RequestId,
};
pub use image::Image;
pub use issuer::{InvalidIssuerName, IssuerName};
pub use line::write_on_one_line;
pub use time::{BootTime, Deadline, InvalidTimestamp, Stopwatch, Timestamp};
pub use trace::{SpanContext, TraceId};
