//! The trail for those who may read it.
//!
//! Reads go from the authorizer straight to the trail's reader: a use case between would only pass on.

pub(in crate::http) mod entries;
pub(in crate::http) mod events;
mod filter;
mod reading;
pub(in crate::http) mod summary;
