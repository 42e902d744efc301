//! Who asks, and where from.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::{IssuerName, RequestId, Stopwatch, Timestamp, TraceId};

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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SharesRead, Self::SharesWrite, Self::AuditRead];

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
    /// What the configuration calls that issuer; the first has no name.
    pub issuer_name: Option<IssuerName>,
    /// The token's `jti`, where it has one.
    pub token_id: Option<String>,
    /// Every scope that the token means, also those that mean nothing here.
    pub scopes: BTreeSet<String>,
    /// The token's groups.
    pub groups: BTreeSet<String>,
    /// Claims that policies see, by name: texts, and numbers and truth values as JSON writes them.
    pub claims: BTreeMap<String, String>,
    /// The token's `exp`.
    pub expires_at: Timestamp,
}

impl Principal {
    /// A subject of the first issuer that has nothing and never ends.
    #[must_use]
    pub fn of_first_issuer(subject: &str, issuer: &str) -> Self {
        Self {
            subject: subject.into(),
            issuer: issuer.into(),
            issuer_name: None,
            token_id: None,
            scopes: BTreeSet::new(),
            groups: BTreeSet::new(),
            claims: BTreeMap::new(),
            expires_at: Timestamp::MAX,
        }
    }

    /// A name of its issuer, the subject's or a group's, as policies see it: that of a further issuer stands behind the
    /// issuer's name.
    #[must_use]
    pub fn in_policies<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match &self.issuer_name {
            None => name.into(),
            Some(issuer) => issuer.qualify(name).into(),
        }
    }

    /// Whether the token carries `scope`.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(scope.as_str())
    }
}

/// On whose behalf something waits: turns and room are kept by it, so that no subject stands in another's way. All
/// tokens of one subject of one issuer are one party.
#[derive(Debug, Clone)]
pub enum Party {
    /// Whoever sent a token.
    Subject(Arc<Principal>),
    /// The gateway by itself.
    Gateway,
}

impl Party {
    fn key(&self) -> Option<(&str, &str)> {
        match self {
            Self::Subject(principal) => Some((&principal.issuer, &principal.subject)),
            Self::Gateway => None,
        }
    }
}

impl PartialEq for Party {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Subject(one), Self::Subject(two)) if Arc::ptr_eq(one, two) => true,
            _ => self.key() == other.key(),
        }
    }
}

impl Eq for Party {}

impl Hash for Party {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// What the gateway calls itself in the trail where it undoes a change that took effect late.
const RECONCILIATION: &str = "system:reconcile";
/// Names by which the gateway itself stands in the trail, so that no token may bear them; `system:expiry` is kept for
/// shares that end by themselves. Others that begin with `system:` are not the gateway's: Kubernetes' service accounts.
pub const SYSTEM_SUBJECTS: [&str; 2] = [RECONCILIATION, "system:expiry"];

/// Whose doing a change is.
#[derive(Debug, Clone)]
pub enum Author {
    /// Somebody asked for it.
    Caller(Arc<Caller>),
    /// The gateway undoes a change that took effect after a contrary one that was accepted later.
    Reconciliation,
}

impl Author {
    /// The subject in the trail: the token's, or `system:…`.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::Caller(caller) => &caller.principal.subject,
            Self::Reconciliation => RECONCILIATION,
        }
    }

    /// On whose behalf.
    #[must_use]
    pub fn party(&self) -> Party {
        match self {
            Self::Caller(caller) => caller.party(),
            Self::Reconciliation => Party::Gateway,
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

impl Caller {
    /// On whose behalf it asks.
    #[must_use]
    pub fn party(&self) -> Party {
        Party::Subject(Arc::clone(&self.principal))
    }
}
