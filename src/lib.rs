//! Shares CompShare machine images through REST.
//!
//! Teams call `PUT` and `DELETE /images/{image_id}/shares/{account_id}` with a JWT. The gateway checks who
//! they are and what they may do, writes the intent to an append-only audit trail, signs and forwards the
//! change with keys that only it holds, writes the outcome, and answers plainly.
//!
//! The rooms in reading order; each may use only those above it, and the arrows are held by a test:
//! [`domain`] (the words), [`problem`], [`schema`], [`pages`], [`config`], [`telemetry`] and [`tasks`] (the ground floor);
//! [`auth`], [`authorization`], [`upstream`] and [`audit`], which do not know one another; [`sharing`], the
//! use cases; [`http`]; [`app`], which puts them together; [`cli`]. The [`sandbox`] stands apart: a second,
//! independent reading of the upstream's protocol. ARCHITECTURE.md walks one request through them.

pub mod app;
pub mod audit;
pub mod auth;
pub mod authorization;
pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod pages;
pub mod problem;
pub mod sandbox;
pub mod schema;
pub mod sharing;
pub mod tasks;
pub mod telemetry;
pub mod upstream;
