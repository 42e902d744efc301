//! How requests are read and answers are written: parameters, bodies, problems, streams. It knows the domain and
//! what the other rooms' errors mean, and nothing of routes or connections.

mod accept;
mod arrival;
mod asset;
mod body;
mod integer;
mod links;
pub(super) mod params;
mod parser;
mod problem;
mod requests;
mod route;
mod stream;

pub(super) use accept::choose;
pub(super) use arrival::Arrival;
pub(super) use asset::Asset;
pub(super) use body::{Body, no_account_twice, no_body, read, require_json};
pub use links::Links;
pub use parser::RequestBounds;
pub(super) use parser::{Mode, Parser, deadline};
pub(super) use problem::{
    AUDIT_ID, FieldError, MEDIA_TYPE, Problem, ProblemBody, ResultBody, example,
};
pub use requests::Requests;
pub(super) use route::{Cost, Permission, Resource, Route, path};
pub use stream::Streams;
pub(super) use stream::{KEEP_ALIVE, Length, Sink, StreamPlace};
