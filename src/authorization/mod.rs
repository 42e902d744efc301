//! May they: a caller, an action and what it is on become a [`Decision`].
//!
//! A scope is always needed. Policies, which narrow further, are not evaluated yet; a gateway that is told
//! of a policy file refuses everything rather than to let pass what the policies may forbid.

use crate::domain::{Operation, Principal, Scope};

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Change who may use an image.
    Change(Operation),
    /// See who may use an image.
    ListShares,
    /// Read the trail.
    ReadAudit,
}

impl Action {
    /// The scope without which nobody may do it.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Self::Change(Operation::Share | Operation::Unshare) => Scope::SharesWrite,
            Self::ListShares => Scope::SharesRead,
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
#[derive(Debug)]
pub struct Authorizer {
    refuses_all: bool,
}

impl Authorizer {
    /// Scopes alone decide.
    #[must_use]
    pub fn by_scope() -> Self {
        Self { refuses_all: false }
    }

    /// Refuses what it cannot judge: for a gateway whose policies are not evaluated.
    #[must_use]
    pub fn refusing_all() -> Self {
        Self { refuses_all: true }
    }

    /// Whether `principal` may do `action`.
    #[must_use]
    pub fn decide(&self, principal: &Principal, action: Action) -> Decision {
        let scope = action.scope();
        if !principal.has(scope) {
            Decision::Refused(Refusal::InsufficientScope(scope))
        } else if self.refuses_all {
            Decision::Refused(Refusal::Forbidden {
                policy_ids: Vec::new(),
            })
        } else {
            Decision::Allowed {
                policy_ids: Vec::new(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(scopes: &[&str]) -> Principal {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        Principal {
            subject: "team-a".into(),
            issuer: "https://issuer.example".into(),
            token_id: None,
            scopes,
        }
    }

    #[test]
    fn each_action_needs_its_own_scope() {
        let authorizer = Authorizer::by_scope();
        let actions = [
            (Action::Change(Operation::Share), "shares:write"),
            (Action::Change(Operation::Unshare), "shares:write"),
            (Action::ListShares, "shares:read"),
            (Action::ReadAudit, "audit:read"),
        ];
        for (action, needed) in actions {
            for scope in [
                "shares:write",
                "shares:read",
                "audit:read",
                "shares:writes",
                "",
            ] {
                let allowed = matches!(
                    authorizer.decide(&principal(&[scope]), action),
                    Decision::Allowed { .. }
                );
                assert_eq!(allowed, scope == needed, "{action:?} with {scope:?}");
            }
        }
    }

    #[test]
    fn unjudged_policies_refuse_what_the_scope_would_allow() {
        let decision =
            Authorizer::refusing_all().decide(&principal(&["shares:read"]), Action::ListShares);
        assert_eq!(
            decision,
            Decision::Refused(Refusal::Forbidden {
                policy_ids: Vec::new()
            })
        );
    }
}
