//! Problem details (RFC 9457): each room's error becomes a kind and words for the caller, here alone.
//!
//! A problem says nothing of how the gateway is made: no key, no stack trace, no library's message. The
//! request id, and for changes what the refusal means for them, are put in by whoever observes the request, so that
//! a problem that any layer makes carries them.

mod details;
mod errors;
mod example;
mod sent;

pub(in crate::http) use details::{AUDIT_ID, MEDIA_TYPE, Problem};
pub(in crate::http) use example::example;
pub(in crate::http) use sent::{FieldError, ProblemBody, ResultBody};
