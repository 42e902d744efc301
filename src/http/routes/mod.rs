//! The handlers: what is read of a request, which use case or look at the trail it becomes, and how the answer looks.
//! Nobody but the table of routes uses them.

pub(super) mod admin;
pub(super) mod audit;
pub(super) mod bulk;
mod bulk_answer;
pub(super) mod document;
pub(super) mod identity;
pub(super) mod images;
pub(super) mod pages;
mod provenance;
pub(super) mod share_list;
pub(super) mod shares;
