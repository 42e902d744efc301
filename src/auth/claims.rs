//! The claims of a token (RFC 7519), and what its issuer's rules make of them.
//!
//! They are read strictly: a claim that decides something and has another JSON type than it should is a refusal, never
//! an absence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::config::{self, ClaimRules};
use crate::domain::{IssuerName, Principal, SYSTEM_SUBJECTS, Timestamp};

use super::members::Members;
use super::refusal::{TokenError, TokenRefusal, came, named, one_of, quoted};

/// What tokens of one issuer are held against.
#[derive(Debug)]
pub(super) struct TokenRules {
    pub(super) issuer: config::Issuer,
    /// Names whose subjects and groups none of this issuer may bear.
    pub(super) names_of_others: Vec<IssuerName>,
    pub(super) leeway: Duration,
}

/// The claims of one token.
pub(super) struct Claims<'a>(Members<'a>);

impl<'a> Claims<'a> {
    /// Reads the payload of a token.
    pub(super) fn read(payload: &'a str) -> Result<Self, TokenRefusal> {
        Members::read(payload).map(Self)
    }

    /// `iss`.
    pub(super) fn issuer(&self) -> Result<String, TokenRefusal> {
        self.required_text("iss")
    }

    /// `iss`, where there is one.
    pub(super) fn named_issuer(&self) -> Result<Option<String>, TokenRefusal> {
        let named = self.0.written("iss").is_some();
        named.then(|| self.issuer()).transpose()
    }

    /// Holds the claims against the rules of their issuer.
    pub(super) fn check(
        &self,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Result<Principal, TokenRefusal> {
        self.check_audience(&rules.issuer.audience)?;
        let expires = self
            .date("exp")?
            .ok_or_else(|| self.bad("exp", "a number"))?;
        rules.check_end(expires, now)?;
        let latest = now.after(rules.leeway);
        for (claim, error) in [
            ("nbf", TokenError::NotYetValid),
            ("iat", TokenError::IssuedInFuture),
        ] {
            if let Some(begins) = self.date(claim)?.filter(|begins| *begins > latest) {
                return Err(error.expected(claim, format_args!("{latest} or before"), begins));
            }
        }
        self.principal(rules)
    }

    /// The principal that the claims tell of, whether or not the token is good in time and for this audience.
    pub(super) fn principal(&self, rules: &TokenRules) -> Result<Principal, TokenRefusal> {
        let TokenRules {
            issuer,
            names_of_others,
            ..
        } = rules;
        let token_id = match self.value("jti") {
            None => None,
            Some(Value::String(jti)) => Some(printable(jti, "jti")?),
            Some(_) => return Err(self.bad("jti", "text")),
        };
        let subject = printable(self.required_text("sub")?, "sub")?;
        if SYSTEM_SUBJECTS.contains(&subject.as_str()) {
            let expected = "no name of the gateway's own";
            return Err(TokenError::SystemSubject.expected("sub", expected, quoted(&subject)));
        }
        let claimed = |name: &str| names_of_others.iter().find(|other| other.claims(name));
        if let Some(other) = claimed(&subject) {
            let expected = format_args!("nothing that begins with `{other}:`");
            let refused = TokenError::OtherIssuersSubject(other.clone());
            return Err(refused.expected("sub", expected, quoted(&subject)));
        }
        let ClaimRules { groups_claim, .. } = &issuer.claims;
        let groups = match self.value(groups_claim) {
            None => BTreeSet::new(),
            Some(value) => texts(&value).ok_or_else(|| self.bad(groups_claim, TEXTS))?,
        };
        Ok(Principal {
            subject,
            issuer: issuer.iss.clone(),
            issuer_name: issuer.name.clone(),
            token_id,
            scopes: self.scopes(&issuer.claims)?,
            groups: groups
                .into_iter()
                .filter(|group| claimed(group).is_none())
                .collect(),
            claims: self.seen_by_policies(&issuer.claims),
            expires_at: self.date("exp")?.unwrap_or(Timestamp::MAX),
        })
    }

    fn check_audience(&self, audience: &str) -> Result<(), TokenRefusal> {
        let given = self.value("aud");
        let audiences = given.as_ref().and_then(texts);
        let audiences = audiences.ok_or_else(|| self.bad("aud", TEXTS))?;
        if audiences.contains(audience) {
            return Ok(());
        }
        let got = named(audiences.iter().map(String::as_str));
        Err(TokenError::OtherAudience.expected("audience", quoted(audience), got))
    }

    fn scopes(&self, rules: &ClaimRules) -> Result<BTreeSet<String>, TokenRefusal> {
        let mut scopes: BTreeSet<String> = rules.grant.iter().cloned().collect();
        for claim in &rules.scope_claims {
            let found = match self.value(claim) {
                None => continue,
                // A text holds several (RFC 8693, section 4.2), an element of an array is one.
                Some(Value::String(text)) => text.split(' ').map(str::to_owned).collect(),
                Some(value) => texts(&value).ok_or_else(|| self.bad(claim, TEXTS))?,
            };
            for value in found.into_iter().filter(|value| !value.is_empty()) {
                match rules.scopes.get(&value) {
                    None => _ = scopes.insert(value),
                    Some(meant) => scopes.extend(meant.iter().cloned()),
                }
            }
        }
        Ok(scopes)
    }

    /// Of what policies may ask for: texts, and numbers and truth values as they were written. What is of another type
    /// cannot be put so and is not there.
    fn seen_by_policies(&self, rules: &ClaimRules) -> BTreeMap<String, String> {
        let seen = |name: &String| {
            let written = self.0.written(name)?;
            let value = match written.as_bytes() {
                [b'"', ..] => serde_json::from_str(written).ok()?,
                [b'n' | b'[' | b'{', ..] => return None,
                // Not as the number that it would be read to: two large ones may be read to the same.
                _ => written.to_owned(),
            };
            Some((name.clone(), value))
        };
        rules.policy_claims.iter().filter_map(seen).collect()
    }

    fn value(&self, name: &str) -> Option<Value> {
        self.0.value(name)
    }

    fn bad(&self, name: &str, expected: &str) -> TokenRefusal {
        let got = came(self.0.written(name));
        TokenError::BadClaim(name.to_owned().into()).expected(quoted(name), expected, got)
    }

    fn required_text(&self, name: &'static str) -> Result<String, TokenRefusal> {
        match self.value(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            _ => Err(self.bad(name, "text")),
        }
    }

    /// A NumericDate: seconds since 1970, fractions allowed (RFC 7519, section 2).
    fn date(&self, name: &'static str) -> Result<Option<Timestamp>, TokenRefusal> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let seconds = value.as_f64().filter(|seconds| seconds.is_finite());
        let seconds = seconds.ok_or_else(|| self.bad(name, "a number"))?;
        Ok(Some(Timestamp::from_seconds(seconds)))
    }
}

const TEXTS: &str = "a text or an array of texts";

impl TokenRules {
    /// Those of one of `auth`'s issuers.
    pub(super) fn of(issuer: &config::Issuer, auth: &config::Auth) -> Self {
        let others = auth.further.iter().filter(|_| issuer.name.is_none());
        Self {
            issuer: issuer.clone(),
            names_of_others: others.filter_map(|other| other.name.clone()).collect(),
            leeway: auth.leeway,
        }
    }

    /// Whether a token that ends at `expires` is still good.
    pub(super) fn check_end(&self, expires: Timestamp, now: Timestamp) -> Result<(), TokenRefusal> {
        let earliest = now.before(self.leeway);
        if expires > earliest {
            return Ok(());
        }
        Err(TokenError::Expired.expected("exp", format_args!("after {earliest}"), expires))
    }
}

/// The refusal of an `iss` that is none of these.
pub(super) fn other_issuer<'a>(
    expected: impl IntoIterator<Item = &'a str>,
    got: &str,
) -> TokenRefusal {
    TokenError::OtherIssuer.expected("issuer", one_of(expected), quoted(got))
}

/// The text of a claim that people read in the trail.
fn printable(text: String, name: &'static str) -> Result<String, TokenRefusal> {
    if text.contains(char::is_control) {
        let refused = TokenError::ControlCharacter(name);
        Err(refused.expected(name, "no control character", quoted(&text)))
    } else {
        Ok(text)
    }
}

/// A text or an array of texts.
fn texts(claim: &Value) -> Option<BTreeSet<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match claim {
        Value::Array(items) => items.iter().map(text).collect(),
        other => text(other).map(|text| BTreeSet::from([text])),
    }
}

#[cfg(test)]
mod tests;
