//! May they: a caller and what it asks for become a [`Decision`].
//!
//! A scope is always needed. Policies, where there are any, narrow further: then something is allowed only where a
//! policy permits it and none forbids it. Without policies scopes alone decide, and nothing of Cedar runs.

mod cedar;

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::domain::{Caller, Change, ImageId, Operation, Principal, Region, Scope};
use crate::telemetry::Metrics;

pub use cedar::{Policies, PolicyFaults};

/// What a caller wants to do, and on what.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// Change who may use an image.
    Change(&'a Change),
    /// See an image, or who may use it.
    ListShares {
        /// Where it lives.
        region: &'a Region,
        /// The image.
        image_id: &'a ImageId,
    },
    /// Read the trail.
    ReadAudit,
}

impl Request<'_> {
    /// The action of policies that it is.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Change(change) => match change.operation {
                Operation::Share => "share",
                Operation::Unshare => "unshare",
            },
            Self::ListShares { .. } => "listShares",
            Self::ReadAudit => "readAudit",
        }
    }

    /// The scope without which nobody may do it.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Self::Change(change) => match change.operation {
                Operation::Share | Operation::Unshare => Scope::SharesWrite,
            },
            Self::ListShares { .. } => Scope::SharesRead,
            Self::ReadAudit => Scope::AuditRead,
        }
    }
}

/// What was decided, and by which policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allowed {
        /// The policies that allowed it; empty where scopes alone decided.
        policy_ids: Vec<String>,
    },
    /// It may not.
    Refused(Refusal),
}

impl Decision {
    /// For counting, one word.
    fn word(&self) -> &'static str {
        match self {
            Self::Allowed { .. } => "allowed",
            Self::Refused(Refusal::Forbidden { .. }) => "forbidden",
            Self::Refused(Refusal::InsufficientScope(_)) => "insufficient_scope",
        }
    }
}

/// Why something may not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The token lacks a scope.
    InsufficientScope(Scope),
    /// Policies refuse it.
    Forbidden {
        /// The policies that refused it; empty where none allowed it.
        policy_ids: Vec<String>,
    },
}

/// Decides.
#[derive(Debug, Default)]
pub struct Authorizer {
    policies: ArcSwapOption<Policies>,
    metrics: Metrics,
}

impl Authorizer {
    /// Decides by these policies, where there are any, and by scopes.
    #[must_use]
    pub fn new(policies: Option<Policies>, metrics: Metrics) -> Self {
        Self {
            policies: ArcSwapOption::new(policies.map(Arc::new)),
            metrics,
        }
    }

    /// Puts `policies` in the place of those before, for every decision from now on.
    pub fn use_policies(&self, policies: Option<Policies>) {
        self.policies.store(policies.map(Arc::new));
    }

    /// Whether policies decide besides scopes.
    #[must_use]
    pub fn has_policies(&self) -> bool {
        self.policies.load().is_some()
    }

    /// The refusal of a principal that lacks `scope`, whatever policies say.
    ///
    /// # Errors
    /// [`Refusal::InsufficientScope`].
    pub fn check_scope(&self, principal: &Principal, scope: Scope) -> Result<(), Refusal> {
        let checked = has_scope(principal, scope);
        if checked.is_err() {
            let action = match scope {
                Scope::SharesRead => "listShares",
                Scope::SharesWrite => "share",
                Scope::AuditRead => "readAudit",
            };
            self.metrics.policy_decision(action, "insufficient_scope");
        }
        checked
    }

    /// Whether `caller` may do what was not asked for by itself: for whoever filters a list, or looks again. It counts as
    /// no decision.
    #[must_use]
    pub fn permits(&self, caller: &Caller, request: Request<'_>) -> bool {
        matches!(self.decision(caller, request), Decision::Allowed { .. })
    }

    /// Whether `caller` may do what it asks for.
    #[must_use]
    pub fn decide(&self, caller: &Caller, request: Request<'_>) -> Decision {
        let decision = self.decision(caller, request);
        self.metrics
            .policy_decision(request.action(), decision.word());
        decision
    }

    fn decision(&self, caller: &Caller, request: Request<'_>) -> Decision {
        if let Err(refusal) = has_scope(&caller.principal, request.scope()) {
            return Decision::Refused(refusal);
        }
        match &*self.policies.load() {
            None => Decision::Allowed {
                policy_ids: Vec::new(),
            },
            Some(policies) => policies.decide(caller, request),
        }
    }

    /// As [`Self::decide`], for whoever needs no reasons where it may be done.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, caller: &Caller, request: Request<'_>) -> Result<(), Refusal> {
        match self.decide(caller, request) {
            Decision::Allowed { .. } => Ok(()),
            Decision::Refused(refusal) => Err(refusal),
        }
    }
}

fn has_scope(principal: &Principal, scope: Scope) -> Result<(), Refusal> {
    if principal.has(scope) {
        Ok(())
    } else {
        Err(Refusal::InsufficientScope(scope))
    }
}

#[cfg(test)]
mod tests;
