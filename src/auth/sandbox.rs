//! The tokens of `serve --sandbox`: one for each role, signed by a throw-away key.

use std::time::Duration;

use super::mint::{Grant, Mint};

/// For how long a token is good.
pub const SANDBOX_TOKEN_TTL: Duration = Duration::from_hours(12);

const ROLES: [(&str, &str); 2] = [
    ("sharer", "shares:read shares:write"),
    ("auditor", "shares:read audit:read"),
];

/// Signs the tokens of the sandbox's roles.
pub struct SandboxTokens {
    mint: Mint,
    issuer: String,
    audience: String,
}

impl std::fmt::Debug for SandboxTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxTokens").finish_non_exhaustive()
    }
}

/// A token of the sandbox.
pub struct SandboxToken {
    /// Whose it is: also its subject.
    pub role: &'static str,
    /// What it allows.
    pub scope: &'static str,
    /// The token.
    pub token: String,
}

impl SandboxTokens {
    /// Of a JWK Set with a key that can sign; `None` where there is none.
    #[must_use]
    pub fn new(set: &str, issuer: &str, audience: &str) -> Option<Self> {
        Some(Self {
            mint: Mint::from_set(set, None).ok()?,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        })
    }

    /// A new token for each role.
    #[must_use]
    pub fn sign(&self) -> Vec<SandboxToken> {
        let sign = |(role, scope)| {
            let grant = Grant {
                subject: role,
                scope,
                issuer: &self.issuer,
                audience: &self.audience,
                ttl: SANDBOX_TOKEN_TTL,
            };
            let token = self.mint.sign(&grant).ok()?;
            Some(SandboxToken { role, scope, token })
        };
        ROLES.into_iter().filter_map(sign).collect()
    }
}
