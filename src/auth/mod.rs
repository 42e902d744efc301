//! Who is calling: a bearer token becomes a [`Principal`], or a reason why not.
//!
//! A token is of the issuer that its `iss` names, and held against that issuer's keys, audience and claims alone. The
//! algorithm belongs to the key and never to the token (RFC 8725, section 3.1): a token names a key, the key says which
//! algorithms it is for, and everything else is refused. What the principal may do is decided elsewhere.

mod cache;
mod claims;
mod issuer;
mod key;
mod key_set;
mod members;
mod mint;
mod refusal;
mod sandbox;
mod source;
mod token;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config;
use crate::domain::{IssuerName, Principal, Timestamp};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

use cache::{Verified, VerifiedTokens};
use claims::{Claims, TokenRules, other_issuer};
use issuer::Issuer;
pub use key_set::{KeySet, KeySetError};
pub use mint::{Grant, Mint, MintError, throw_away_set};
use refusal::Judged;
pub use refusal::{TokenError, TokenRefusal};
pub use sandbox::{SANDBOX_TOKEN_TTL, SandboxToken, SandboxTokens};
pub use source::SourceError;
use source::{Asked, FetchedKeys, Source};
use token::Unsigned;

/// Checks tokens against the present keys of their issuers.
#[derive(Debug)]
pub struct Authenticator {
    issuers: Vec<Issuer>,
    verified: VerifiedTokens,
    metrics: Metrics,
}

impl Authenticator {
    /// Accepts tokens of these issuers, of each once [`Self::use_keys`] was called for it.
    #[must_use]
    pub fn new(auth: &config::Auth, metrics: Metrics) -> Self {
        metrics.expect_authentications(None, &refusal::RESULTS_OF_NONE);
        for issuer in auth.issuers() {
            metrics.expect_authentications(Some(&issuer.iss), &refusal::RESULTS);
        }
        let issuers = auth.issuers().map(|issuer| TokenRules::of(issuer, auth));
        Self {
            issuers: issuers.map(Issuer::new).collect(),
            verified: VerifiedTokens::new(),
            metrics,
        }
    }

    /// Puts `keys` in the place of those that the issuer had before, for every token from now on; what was verified with
    /// those is forgotten with them.
    pub fn use_keys(&self, name: Option<&IssuerName>, keys: KeySet) {
        if let Some(issuer) = self.named(name) {
            issuer.use_keys(keys);
            self.note_keys(issuer);
        }
    }

    /// Uses what was fetched, where it is new.
    fn take_fetched(&self, name: Option<&IssuerName>, fetched: FetchedKeys) {
        let Some(issuer) = self.named(name) else {
            return;
        };
        let failed = matches!(fetched, FetchedKeys::None);
        self.metrics.key_set_fetch(&issuer.rules.issuer.iss, failed);
        match fetched {
            FetchedKeys::New(keys) => self.use_keys(name, keys),
            FetchedKeys::Same => self.note_keys(issuer),
            FetchedKeys::None => {}
        }
    }

    /// Notes that the issuer's keys are those of now.
    fn note_keys(&self, issuer: &Issuer) {
        self.metrics
            .key_set(&issuer.rules.issuer.iss, Timestamp::now());
    }

    fn named(&self, name: Option<&IssuerName>) -> Option<&Issuer> {
        let is_it = |issuer: &&Issuer| issuer.rules.issuer.name.as_ref() == name;
        self.issuers.iter().find(is_it)
    }

    /// Takes the keys that somebody else serves from there, from now on.
    ///
    /// # Errors
    /// Where no client can be made.
    pub fn follow(self: &Arc<Self>, tasks: &Tasks) -> Result<(), SourceError> {
        for issuer in &self.issuers {
            let settings = &issuer.rules.issuer;
            let (authenticator, name) = (Arc::downgrade(self), settings.name.clone());
            let use_keys = move |fetched| {
                if let Some(authenticator) = authenticator.upgrade() {
                    authenticator.take_fetched(name.as_ref(), fetched);
                }
            };
            if let Some(source) = Source::begin(settings, use_keys, tasks)? {
                // Followed once, before anybody asks.
                let _ = issuer.source.set(source);
            }
        }
        Ok(())
    }

    /// Whether there are keys to check anybody's tokens with.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.issuers
            .iter()
            .any(|issuer| issuer.generation().is_some())
    }

    /// Has all keys fetched anew that somebody else serves, and waits until that is done. Returns whose were not.
    pub async fn reload(&self) -> Vec<String> {
        let reloads = self.issuers.iter().map(|issuer| async move {
            let done = match issuer.source.get() {
                Some(source) => source.reload().await,
                None => true,
            };
            (!done).then(|| issuer.section())
        });
        join_all(reloads).await.into_iter().flatten().collect()
    }

    /// Where keys come from and how old they are, where they are fetched; where there are several issuers, of each.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        if let [only] = self.issuers.as_slice() {
            return only.detail();
        }
        let details = self.issuers.iter().map(|issuer| {
            let keys = match issuer.generation() {
                Some(_) => "keys are loaded",
                None => "no keys are loaded",
            };
            let detail = issuer.detail().unwrap_or_else(|| keys.to_owned());
            format!("{}: {detail}", issuer.section())
        });
        Some(details.collect::<Vec<_>>().join("; "))
    }

    /// Checks a bearer token that was refused, and might not be by newer keys: has them fetched first, where that may be.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn authenticate_anew(
        &self,
        token: &str,
        refusal: TokenRefusal,
    ) -> Result<Arc<Principal>, TokenRefusal> {
        let Some(judged) = refusal.judged() else {
            return Err(refusal);
        };
        let issuer = &self.issuers[judged.issuer];
        let Some(source) = issuer.source.get() else {
            return Err(refusal);
        };
        let asked = source.ask().await;
        match asked {
            // Another's fetch may have ended meanwhile.
            Asked::Refused if issuer.generation() == judged.generation => Err(refusal),
            Asked::Pending => Err(issuer.keys_awaited()),
            Asked::Refused | Asked::Fetched => self.authenticate(token),
            Asked::Joined => match self.authenticate(token) {
                // What was under way may have read the keys before the new one was there. Where there are none at all
                // the next fetch is near.
                Err(refusal) if refusal.may_pass_anew() && refusal.error != TokenError::NoKeys => {
                    match source.ask().await {
                        Asked::Pending => Err(issuer.keys_awaited()),
                        Asked::Refused | Asked::Joined | Asked::Fetched => self.authenticate(token),
                    }
                }
                answer => answer,
            },
        }
    }

    /// Checks a bearer token.
    ///
    /// # Errors
    /// Why the token is refused.
    pub fn authenticate(&self, token: &str) -> Result<Arc<Principal>, TokenRefusal> {
        self.authenticate_at(token, Timestamp::now())
    }

    fn authenticate_at(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, TokenRefusal> {
        let key = VerifiedTokens::key(token);
        if let Some(known) = self.verified.get(&key) {
            let issuer = &self.issuers[known.issuer];
            if issuer.generation() == Some(known.generation) {
                let ended = issuer.rules.check_end(known.principal.expires_at, now);
                ended.map_err(|refusal| refusal.of(&issuer.rules.issuer.iss))?;
                return Ok(Arc::clone(&known.principal));
            }
        }
        let verified = Arc::new(self.verify(token, now)?);
        let principal = Arc::clone(&verified.principal);
        self.verified.insert(key, verified);
        Ok(principal)
    }

    /// Its form, its issuer, its key, its signature, then its claims.
    fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, TokenRefusal> {
        let unsigned = Unsigned::read(token)?;
        let claims = unsigned.claims()?;
        let place = self.issuer_of(&claims)?;
        let issuer = &self.issuers[place];
        self.verify_for(place, &unsigned, &claims, now)
            .map_err(|refusal| refusal.of(&issuer.rules.issuer.iss))
    }

    fn verify_for(
        &self,
        place: usize,
        unsigned: &Unsigned<'_>,
        claims: &Claims<'_>,
        now: Timestamp,
    ) -> Result<Verified, TokenRefusal> {
        let issuer = &self.issuers[place];
        let present = issuer.keys.load_full();
        let judged = issuer.source.get().map(|_| Judged {
            issuer: place,
            generation: present.as_deref().map(|present| present.number),
        });
        let Some(present) = present else {
            // What can be good under no keys whatever is told so.
            claims.check(&issuer.rules, now)?;
            return Err(issuer.keys_awaited().by(judged));
        };
        unsigned.check_signature(&present.keys).map_err(|refusal| {
            let may_be_new = refusal.error == TokenError::UnknownKey || !unsigned.names_key();
            refusal.by(judged.filter(|_| may_be_new))
        })?;
        Ok(Verified {
            principal: Arc::new(claims.check(&issuer.rules, now)?),
            issuer: place,
            generation: present.number,
        })
    }

    fn issuer_of(&self, claims: &Claims<'_>) -> Result<usize, TokenRefusal> {
        let iss = claims.issuer()?;
        let place = self
            .issuers
            .iter()
            .position(|issuer| issuer.rules.issuer.iss == iss);
        place.ok_or_else(|| {
            let trusted = self
                .issuers
                .iter()
                .map(|issuer| issuer.rules.issuer.iss.as_str());
            other_issuer(trusted, &iss)
        })
    }
}

/// The principal that a token's claims, or claims alone, tell of to the issuer that they name; nothing is verified. For
/// whoever tries policies. Claims alone that name no issuer are read as the first one's; where no issuers are known the one
/// that is named is the first.
///
/// # Errors
/// Where they cannot be read, or are of no issuer.
pub fn unverified(text: &str, auth: Option<&config::Auth>) -> Result<Principal, TokenRefusal> {
    let is_token = !text.trim_start().starts_with('{');
    let text = token::unverified_claims(text)?;
    let claims = Claims::read(&text)?;
    let named = match claims.named_issuer()? {
        None if is_token && auth.is_some() => Some(claims.issuer()?),
        named => named,
    };
    let Some(auth) = auth else {
        let iss = named.unwrap_or_default();
        let first = config::Issuer::first(&iss, "", config::KeySource::Sandbox);
        return claims.principal(&TokenRules::of(
            &first,
            &config::Auth::of_one(first.clone(), Duration::ZERO),
        ));
    };
    let issuer = match named {
        None => &auth.first,
        Some(iss) => auth
            .issuers()
            .find(|issuer| issuer.iss == iss)
            .ok_or_else(|| other_issuer(auth.issuers().map(|issuer| issuer.iss.as_str()), &iss))?,
    };
    claims.principal(&TokenRules::of(issuer, auth))
}

#[cfg(test)]
mod tests;
