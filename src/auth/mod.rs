//! Who is calling: a bearer token becomes a [`Principal`], or a reason why not.
//!
//! The algorithm belongs to the key and never to the token (RFC 8725, section 3.1): a token names a key,
//! the key says which algorithms it is for, and everything else is refused. What the principal may do is
//! decided elsewhere.

mod key_set;
mod mint;
mod token;

use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::domain::{Principal, Timestamp};

pub use key_set::{KeySet, KeySetError};
pub use mint::{Grant, Mint, MintError, throw_away_set};
pub use token::TokenError;

/// Checks tokens against the present key set.
#[derive(Debug)]
pub struct Authenticator {
    rules: token::Rules,
    keys: ArcSwapOption<KeySet>,
}

impl Authenticator {
    /// Accepts tokens of `issuer` for `audience` once [`Self::use_keys`] was called; none before.
    #[must_use]
    pub fn new(issuer: String, audience: String, leeway: Duration) -> Self {
        Self {
            rules: token::Rules {
                issuer,
                audience,
                leeway,
            },
            keys: ArcSwapOption::empty(),
        }
    }

    /// Puts `keys` in the place of those before, for every token from now on.
    pub fn use_keys(&self, keys: KeySet) {
        self.keys.store(Some(keys.into()));
    }

    /// Whether there are keys to check tokens with.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.keys.load().is_some()
    }

    /// Checks a bearer token.
    ///
    /// # Errors
    /// Why the token is refused, in words that its holder may read.
    pub fn authenticate(&self, token: &str) -> Result<Principal, TokenError> {
        let keys = self.keys.load();
        let keys = keys.as_deref().ok_or(TokenError::NoKeys)?;
        token::check(token, keys, &self.rules, Timestamp::now())
    }
}
