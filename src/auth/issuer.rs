//! One issuer: what its tokens are held against, its present keys, and where they come from.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use super::claims::TokenRules;
use super::key_set::KeySet;
use super::refusal::{TokenError, TokenRefusal, quoted};
use super::source::Source;

/// An issuer that is trusted.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) rules: TokenRules,
    pub(super) keys: ArcSwapOption<Generation>,
    pub(super) source: OnceLock<Source>,
}

/// A key set, and the how manieth it is: what was verified with another generation counts no more.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) keys: KeySet,
    pub(super) number: u64,
}

impl Issuer {
    pub(super) fn new(rules: TokenRules) -> Self {
        Self {
            rules,
            keys: ArcSwapOption::empty(),
            source: OnceLock::new(),
        }
    }

    /// Puts `keys` in the place of those before. What was verified with those is forgotten, unless they are the same keys
    /// written otherwise.
    pub(super) fn use_keys(&self, keys: KeySet) {
        let number = match self.keys.load().as_deref() {
            None => 0,
            Some(before) if before.keys.is_same(&keys) => before.number,
            Some(before) => before.number + 1,
        };
        self.keys.store(Some(Arc::new(Generation { keys, number })));
    }

    /// The number of the present keys.
    pub(super) fn generation(&self) -> Option<u64> {
        self.keys.load().as_deref().map(|present| present.number)
    }

    /// Where the keys come from, how old they are, and what is wrong; for whoever runs the gateway.
    pub(super) fn detail(&self) -> Option<String> {
        self.source.get().map(Source::detail)
    }

    /// The refusal of a token of which nothing can be said yet.
    pub(super) fn keys_awaited(&self) -> TokenRefusal {
        let of = quoted(&self.rules.issuer.iss);
        TokenError::NoKeys.expected(self.section(), format_args!("keys of {of}"), "none yet")
    }

    /// Its table in the configuration.
    pub(super) fn section(&self) -> String {
        self.rules.issuer.section()
    }
}
