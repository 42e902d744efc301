//! Whom the gateway trusts to say who callers are: made at the start, and held to be the same at a reload.

use std::collections::BTreeMap;

use crate::auth::{Authenticator, KeySet};
use crate::config::{Auth, Fault, Faults, Issuer, KeySource};
use crate::domain::IssuerName;
use crate::telemetry::Metrics;

use super::StartError;
use super::files::read_keys;

/// Knows all issuers, and the keys that need not be fetched. `sandbox_keys` are for the issuer that has throw-away ones.
pub(super) fn authenticator(
    auth: &Auth,
    sandbox_keys: Option<KeySet>,
    metrics: Metrics,
) -> Result<Authenticator, StartError> {
    let authenticator = Authenticator::new(auth, metrics);
    let of_files =
        keys_of_files(auth).map_err(|(key, message)| StartError::File { key, message })?;
    for (name, keys) in of_files {
        authenticator.use_keys(name, keys);
    }
    let of_sandbox = |issuer: &&Issuer| issuer.keys == KeySource::Sandbox;
    if let (Some(issuer), Some(keys)) = (auth.issuers().find(of_sandbox), sandbox_keys) {
        authenticator.use_keys(issuer.name.as_ref(), keys);
    }
    Ok(authenticator)
}

/// What is said of a key of which a reload takes nothing.
pub(super) const NEEDS_RESTART: &str = "is another than at the start; that needs a restart";

/// An issuer's keys; the first has no name.
type KeysOf<'a> = (Option<&'a IssuerName>, KeySet);

/// The keys of each issuer that has them in a file, all of them or none: else the key of the configuration that names a
/// faulty file, and what is wrong with it.
pub(super) fn keys_of_files(auth: &Auth) -> Result<Vec<KeysOf<'_>>, (String, String)> {
    let read = |issuer: &'_ Issuer| match &issuer.keys {
        KeySource::File(path) => {
            let key = format!("{}.jwks_file", issuer.section());
            Some(read_keys(path).map_err(|message| (key, message)))
        }
        KeySource::Url(_) | KeySource::Discovery | KeySource::Sandbox => None,
    };
    let issuers = auth.issuers();
    issuers
        .filter_map(|issuer| Some(read(issuer)?.map(|keys| (issuer.name.as_ref(), keys))))
        .collect()
}

/// The key that names a source.
fn source_key(source: &KeySource) -> &'static str {
    match source {
        KeySource::File(_) | KeySource::Sandbox => "jwks_file",
        KeySource::Url(_) => "jwks_url",
        KeySource::Discovery => "oidc_discovery",
    }
}

/// Whoever is trusted is not changed on the way; a file of keys may be another.
pub(super) fn check_same(now: &Auth, new: &Auth) -> Result<(), Faults> {
    let by_section = |auth: &Auth| -> BTreeMap<String, Issuer> {
        let issuers = auth.issuers();
        issuers
            .map(|issuer| (issuer.section(), issuer.clone()))
            .collect()
    };
    let (before, after) = (by_section(now), by_section(new));
    let same_sections = before.keys().eq(after.keys());
    let mut compared = vec![
        ("auth.leeway".to_owned(), now.leeway == new.leeway),
        ("auth.issuers".to_owned(), same_sections),
    ];
    for (section, now) in &before {
        let Some(new) = after.get(section) else {
            continue;
        };
        let key = |name: &str| format!("{section}.{name}");
        let (source, new_source) = (source_key(&now.keys), source_key(&new.keys));
        let same_source = match (&now.keys, &new.keys) {
            (KeySource::File(_), KeySource::File(_)) => true,
            (now, new) => now == new,
        };
        let (claims, new_claims) = (&now.claims, &new.claims);
        compared.extend([
            (key("issuer"), now.iss == new.iss),
            (key("audience"), now.audience == new.audience),
            (
                key("scope_claims"),
                claims.scope_claims == new_claims.scope_claims,
            ),
            (key("scopes"), claims.scopes == new_claims.scopes),
            (key("grant"), claims.grant == new_claims.grant),
            (
                key("groups_claim"),
                claims.groups_claim == new_claims.groups_claim,
            ),
            (
                key("policy_claims"),
                claims.policy_claims == new_claims.policy_claims,
            ),
            (key(source), same_source),
            (key(new_source), same_source || source == new_source),
            (key("fetch_ca_file"), now.fetch.ca_file == new.fetch.ca_file),
            (
                key("fetch_token_file"),
                now.fetch.token_file == new.fetch.token_file,
            ),
        ]);
    }
    let differing = compared.into_iter().filter(|(_, same)| !same);
    let faults: Vec<Fault> = differing
        .map(|(key, _)| Fault::of(key, NEEDS_RESTART))
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Faults(faults))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn issuer(name: Option<&str>, iss: &str) -> Issuer {
        Issuer {
            name: name.map(|name| name.parse().expect("a name")),
            ..Issuer::first(iss, "a", KeySource::File("one.json".into()))
        }
    }

    fn auth(further: &[Issuer]) -> Auth {
        Auth {
            further: further.to_vec(),
            ..Auth::of_one(issuer(None, "https://first.example"), Duration::ZERO)
        }
    }

    #[test]
    fn at_a_reload_only_files_of_keys_and_the_order_of_tables_may_be_others() {
        let (ci, cd) = (
            issuer(Some("ci"), "https://ci.example"),
            issuer(Some("cd"), "https://cd.example"),
        );
        let now = auth(&[ci.clone(), cd.clone()]);
        let changed = |further: &[Issuer]| match check_same(&now, &auth(further)) {
            Ok(()) => Vec::new(),
            Err(Faults(faults)) => faults.into_iter().map(|fault| fault.key).collect(),
        };
        let nothing: [String; 0] = [];
        let other_file = Issuer {
            keys: KeySource::File("two.json".into()),
            ..cd.clone()
        };
        assert_eq!(changed(&[other_file, ci.clone()]), nothing);
        assert_eq!(changed(std::slice::from_ref(&ci)), ["auth.issuers"]);
        let mut other = cd;
        other.audience = "b".into();
        other.claims.policy_claims.insert("email".into());
        let keys = ["auth.issuers.cd.audience", "auth.issuers.cd.policy_claims"];
        assert_eq!(changed(&[ci, other]), keys);
    }
}
