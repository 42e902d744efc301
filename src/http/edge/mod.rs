//! Where requests come in: listeners and connections, who is calling and from where, limits, and what is noted of
//! every request. It writes its answers by [`super::wire`] and knows no route.

mod accepting;
mod caller;
mod client_address;
mod connections;
mod cors;
mod limits;
mod observe;
mod quota;
mod spans;
mod told;
mod upgrade;

pub use accepting::{Answers, Serving, listen, serve};
pub(super) use caller::{Authenticated, StandingCaller};
pub use client_address::TrustedProxies;
pub use connections::Connections;
pub use cors::cors;
pub use limits::RateLimits;
pub use observe::observe;
pub use spans::OverTls;
