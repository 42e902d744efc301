//! Who is calling: a bearer token becomes a [`Principal`], or a reason why not.
//!
//! The algorithm belongs to the key and never to the token (RFC 8725, section 3.1): a token names a key,
//! the key says which algorithms it is for, and everything else is refused. What the principal may do is
//! decided elsewhere.

mod cache;
mod key_set;
mod mint;
mod source;
mod token;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::domain::{Principal, Timestamp};

use cache::VerifiedTokens;
pub use key_set::{KeySet, KeySetError};
pub use mint::{Grant, Mint, MintError, throw_away_set};
use source::Source;
pub use source::{Served, SourceError};
pub use token::{TokenError, unverified};

/// Checks tokens against the present key set.
#[derive(Debug)]
pub struct Authenticator {
    rules: token::TokenRules,
    keys: ArcSwapOption<Generation>,
    source: OnceLock<Source>,
}

/// A key set and the tokens that were verified with it.
#[derive(Debug)]
struct Generation {
    keys: KeySet,
    verified: VerifiedTokens,
}

impl Authenticator {
    /// Accepts tokens of `issuer` for `audience` once [`Self::use_keys`] was called; none before.
    #[must_use]
    pub fn new(issuer: String, audience: String, leeway: Duration) -> Self {
        Self {
            rules: token::TokenRules {
                issuer,
                audience,
                leeway,
            },
            keys: ArcSwapOption::empty(),
            source: OnceLock::new(),
        }
    }

    /// Puts `keys` in the place of those before, for every token from now on; what was verified with those is
    /// forgotten with them.
    pub fn use_keys(&self, keys: KeySet) {
        let verified = VerifiedTokens::new();
        self.keys
            .store(Some(Arc::new(Generation { keys, verified })));
    }

    /// Whether there are keys to check tokens with.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.keys.load().is_some()
    }

    /// Has the keys fetched anew, where they are, and waits until that is done. Returns whether it was.
    pub async fn reload(&self) -> bool {
        match self.source.get() {
            Some(source) => source.reload().await,
            None => true,
        }
    }

    /// Where the keys come from and how old they are, where they are fetched.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        self.source.get().map(Source::detail)
    }

    /// Checks a bearer token whose key was not known a moment ago: fetches the keys first, where that may be.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn authenticate_anew(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        match self.source.get() {
            Some(source) if source.ask().await => self.authenticate(token),
            _ if !self.is_ready() => Err(TokenError::NoKeys),
            _ => Err(TokenError::UnknownKey),
        }
    }

    /// Whether it makes sense to fetch keys because of a token that was refused so.
    #[must_use]
    pub fn may_be_new(&self, error: TokenError) -> bool {
        matches!(error, TokenError::UnknownKey | TokenError::NoKeys) && self.source.get().is_some()
    }

    /// Checks a bearer token.
    ///
    /// # Errors
    /// Why the token is refused, in words that its holder may read.
    pub fn authenticate(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        self.authenticate_at(token, Timestamp::now())
    }

    fn authenticate_at(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, TokenError> {
        let generation = self.keys.load();
        let Some(Generation { keys, verified }) = generation.as_deref() else {
            token::check_without_keys(token, &self.rules, now)?;
            return Err(TokenError::NoKeys);
        };
        let verify = || token::verify(token, keys, &self.rules, now);
        verified.principal(token, &self.rules, now, verify)
    }
}
