//! Verified tokens under their SHA-256, so that a signature is checked once a token and not once a request.
//!
//! What is kept belongs to one generation of one issuer's keys, and counts no more once that is another: a token of a key
//! that is gone is never found good. The cache is bounded in bytes, keeps nothing for long, and whoever looks something up
//! holds it against the token's own end. Only tokens that passed every check are kept, so whoever has none cannot fill it.
//! One cache for all issuers: a token names its issuer, and none needs to be known to find it.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::domain::Principal;

/// What all kept tokens may take together.
const BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Longest time that a token is believed without a look at its signature.
const KEEP_TIME: Duration = Duration::from_mins(5);
/// What an entry takes besides its texts: key, bookkeeping, allocations.
const ENTRY_BYTES: usize = 512;

pub(super) type Key = [u8; 32];

/// A token that passed every check.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) principal: Arc<Principal>,
    /// The place of its issuer.
    pub(super) issuer: usize,
    /// Of that issuer's keys.
    pub(super) generation: u64,
}

/// Tokens that were verified lately.
#[derive(Debug)]
pub(super) struct VerifiedTokens(Cache<Key, Arc<Verified>>);

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(BYTES_MAX)
            .weigher(|_: &Key, verified: &Arc<Verified>| weight(&verified.principal))
            .time_to_live(KEEP_TIME);
        Self(cache.build())
    }

    pub(super) fn key(token: &str) -> Key {
        Sha256::digest(token).into()
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Verified>> {
        self.0.get(key)
    }

    pub(super) fn insert(&self, key: Key, verified: Arc<Verified>) {
        self.0.insert(key, verified);
    }
}

fn weight(principal: &Principal) -> u32 {
    let texts = [&principal.subject, &principal.issuer]
        .into_iter()
        .chain(&principal.token_id);
    let bytes: usize = texts
        .chain(&principal.scopes)
        .chain(&principal.groups)
        .chain(
            principal
                .claims
                .iter()
                .flat_map(|(name, value)| [name, value]),
        )
        .map(|text| text.len() + 64)
        .sum();
    u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_whatever_the_number_of_tokens() {
        let tokens = VerifiedTokens::new();
        for number in 0..50_000 {
            let verified = Verified {
                principal: Arc::new(Principal::of_first_issuer(&"s".repeat(1000), "i")),
                issuer: 0,
                generation: 0,
            };
            tokens.insert(VerifiedTokens::key(&number.to_string()), Arc::new(verified));
        }
        tokens.0.run_pending_tasks();
        assert!(
            tokens.0.weighted_size() <= BYTES_MAX,
            "{}",
            tokens.0.weighted_size()
        );
        assert!(
            tokens.0.entry_count() > 1000,
            "{} are kept",
            tokens.0.entry_count()
        );
    }
}
