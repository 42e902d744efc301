//! Issuers as they are configured: whose tokens are accepted, what their claims mean, where their keys come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::domain::IssuerName;

use super::Proxy;
use super::keys::ISSUERS;

/// Which tokens are accepted.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The issuer of `auth` itself.
    pub first: Issuer,
    /// Those of `auth.issuers`, each with a name.
    pub further: Vec<Issuer>,
    /// Clock skew allowed in `exp`, `nbf` and `iat`.
    pub leeway: Duration,
}

impl Auth {
    /// One issuer alone.
    #[must_use]
    pub fn of_one(first: Issuer, leeway: Duration) -> Self {
        Self {
            first,
            further: Vec::new(),
            leeway,
        }
    }

    /// All of them, the first one first.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        std::iter::once(&self.first).chain(&self.further)
    }
}

/// Who makes tokens, and what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What it is called here; the first has no name.
    pub name: Option<IssuerName>,
    /// What `iss` must be, to the letter.
    pub iss: String,
    /// What `aud` must be or contain.
    pub audience: String,
    /// What its claims mean.
    pub claims: ClaimRules,
    /// Where its JWK Set comes from.
    pub keys: KeySource,
    /// How that is fetched, where it is.
    pub fetch: Fetch,
}

impl Issuer {
    /// The first issuer, with all else as it is unless configured.
    #[must_use]
    pub fn first(iss: &str, audience: &str, keys: KeySource) -> Self {
        Self {
            name: None,
            iss: iss.into(),
            audience: audience.into(),
            claims: ClaimRules::default(),
            keys,
            fetch: Fetch::default(),
        }
    }

    /// The table of the configuration that it stands in.
    #[must_use]
    pub fn section(&self) -> String {
        section_of(self.name.as_ref())
    }
}

/// What an issuer's claims mean here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRules {
    /// The claims in which scopes are looked for.
    pub scope_claims: Vec<String>,
    /// What values of those claims stand for; a value that is not named stands for itself.
    pub scopes: BTreeMap<String, Vec<String>>,
    /// Scopes that each token has, whatever it says.
    pub grant: Vec<String>,
    /// The claim with groups.
    pub groups_claim: String,
    /// The claims that policies see.
    pub policy_claims: BTreeSet<String>,
}

impl Default for ClaimRules {
    fn default() -> Self {
        Self {
            scope_claims: SCOPE_CLAIMS.map(str::to_owned).to_vec(),
            scopes: BTreeMap::new(),
            grant: Vec::new(),
            groups_claim: GROUPS_CLAIM.into(),
            policy_claims: BTreeSet::new(),
        }
    }
}

/// Where the JWK Set comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// A URL.
    Url(Url),
    /// The issuer's discovery document.
    Discovery,
    /// None that is configured: throw-away keys that `serve --sandbox` makes.
    Sandbox,
}

/// How keys are fetched that somebody else serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetch {
    /// PEM certificates of an authority to trust besides the usual ones.
    pub ca_file: Option<PathBuf>,
    /// A bearer token to send.
    pub token_file: Option<PathBuf>,
    /// The HTTP proxy to fetch through.
    pub proxy: Option<Proxy>,
}

const SCOPE_CLAIMS: [&str; 2] = ["scope", "scp"];
const GROUPS_CLAIM: &str = "groups";

/// The table of the configuration in which the issuer of this name stands; the first has none.
#[must_use]
pub fn section_of(name: Option<&IssuerName>) -> String {
    match name {
        None => "auth".into(),
        Some(name) => format!("{ISSUERS}.{name}"),
    }
}
