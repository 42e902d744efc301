//! Who asks, and where from.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{RequestId, Stopwatch, TraceId};

/// A right that a token can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// May see with whom images are shared.
    SharesRead,
    /// May share images and take shares back.
    SharesWrite,
    /// May read the audit trail.
    AuditRead,
}

impl Scope {
    /// The scope's name in tokens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SharesRead => "shares:read",
            Self::SharesWrite => "shares:write",
            Self::AuditRead => "audit:read",
        }
    }
}

/// The verified identity behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's `sub`.
    pub subject: String,
    /// The token's `iss`.
    pub issuer: String,
    /// The token's `jti`, where it has one.
    pub token_id: Option<String>,
    /// Every scope of the token, also those that mean nothing here.
    pub scopes: BTreeSet<String>,
    /// The token's `groups`.
    pub groups: BTreeSet<String>,
}

impl Principal {
    /// Whether the token carries `scope`.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(scope.as_str())
    }
}

/// Whose doing a change is.
#[derive(Debug, Clone)]
pub enum Author {
    /// Somebody asked for it.
    Caller(Arc<Caller>),
    /// The gateway takes back a share that took effect after it was unshared.
    Reconciliation,
}

impl Author {
    /// The subject in the trail: the token's, or `system:…`.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::Caller(caller) => &caller.principal.subject,
            Self::Reconciliation => "system:reconcile",
        }
    }

    /// Who asked, where somebody did.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Caller(caller) => Some(caller),
            Self::Reconciliation => None,
        }
    }
}

/// A principal and where its request came from, as an intent records it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who asks; shared by all requests of one token.
    pub principal: Arc<Principal>,
    /// Where the request came from; absent where the listener could not tell.
    pub client_ip: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
    /// The request's id.
    pub request_id: RequestId,
    /// The caller's trace, where it sent one.
    pub trace_id: Option<TraceId>,
    /// Runs since the request arrived; durations in the trail are read off it.
    pub since_arrival: Stopwatch,
}
