//! Verified tokens under their SHA-256, so that a signature is checked once a token and not once a request.
//!
//! A cache belongs to one key set and goes with it: a token of a key that is gone is never found. It is
//! bounded in bytes, keeps nothing for long, and hands nothing out past the token's own end. Only tokens that
//! passed every check are kept, so whoever has none cannot fill it.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::domain::{Principal, Timestamp};

use super::token::{TokenError, TokenRules, Verified};

/// What all kept tokens may take together.
const BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Longest time that a token is believed without a look at its signature.
const KEEP_TIME: Duration = Duration::from_mins(5);
/// What an entry takes besides its texts: key, bookkeeping, allocations.
const ENTRY_BYTES: usize = 512;

type Key = [u8; 32];

/// The verified tokens of one key set.
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

    /// The principal of `token`: known from before, or by `verify`.
    pub(super) fn principal(
        &self,
        token: &str,
        rules: &TokenRules,
        now: Timestamp,
        verify: impl FnOnce() -> Result<Verified, TokenError>,
    ) -> Result<Arc<Principal>, TokenError> {
        let key: Key = Sha256::digest(token).into();
        if let Some(verified) = self.0.get(&key) {
            rules.check_end(verified.expires, now)?;
            return Ok(Arc::clone(&verified.principal));
        }
        let verified = Arc::new(verify()?);
        self.0.insert(key, Arc::clone(&verified));
        Ok(Arc::clone(&verified.principal))
    }
}

fn weight(principal: &Principal) -> u32 {
    let texts = [&principal.subject, &principal.issuer]
        .into_iter()
        .chain(&principal.token_id);
    let bytes: usize = texts
        .chain(&principal.scopes)
        .chain(&principal.groups)
        .map(|text| text.len() + 64)
        .sum();
    u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn rules() -> TokenRules {
        TokenRules {
            issuer: "i".into(),
            audience: "a".into(),
            leeway: Duration::from_secs(30),
        }
    }

    fn verified(subject: &str) -> Verified {
        let principal = Principal {
            subject: subject.into(),
            issuer: "i".into(),
            token_id: None,
            scopes: std::collections::BTreeSet::new(),
            groups: std::collections::BTreeSet::new(),
        };
        Verified {
            principal: Arc::new(principal),
            expires: 1000.0,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_token_is_verified_once_and_never_outlives_itself() {
        let (tokens, looks) = (VerifiedTokens::new(), Cell::new(0));
        let ask = |seconds| {
            let verify = || {
                looks.set(looks.get() + 1);
                Ok(verified("team-a"))
            };
            tokens
                .principal("t", &rules(), at(seconds), verify)
                .map(|principal| principal.subject.clone())
        };
        assert_eq!(ask(900).as_deref(), Ok("team-a"));
        assert_eq!(ask(1029).as_deref(), Ok("team-a"), "the leeway holds");
        assert_eq!(looks.get(), 1);
        assert_eq!(ask(1030), Err(TokenError::Expired));
        assert_eq!(looks.get(), 1);
    }

    #[test]
    fn refused_tokens_are_not_kept() {
        let tokens = VerifiedTokens::new();
        for _ in 0..2 {
            let refused = tokens.principal("t", &rules(), at(0), || Err(TokenError::BadSignature));
            assert_eq!(refused, Err(TokenError::BadSignature));
        }
        let good = tokens.principal("t", &rules(), at(0), || Ok(verified("team-a")));
        assert_eq!(
            good.map(|principal| principal.subject.clone()).as_deref(),
            Ok("team-a")
        );
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_tokens() {
        let tokens = VerifiedTokens::new();
        for number in 0..50_000 {
            let principal = tokens.principal(&number.to_string(), &rules(), at(0), || {
                Ok(verified(&"s".repeat(1000)))
            });
            assert!(principal.is_ok());
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
