//! Section `auth`, read: its keys' defaults, their form, and how they depend on one another.

use std::collections::BTreeMap;

use url::Url;

use crate::domain::{IssuerName, Scope};

use super::issuer::{Auth, ClaimRules, Fetch, Issuer, KeySource};
use super::keys::ISSUERS;
use super::reader::KeyReader;
use super::values::{is_loopback, key_source_url};

/// What issuers are read for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purpose {
    /// Whether the first may have no source of keys.
    pub(super) first_without_keys: bool,
    /// Whether further ones may.
    pub(super) others_without_keys: bool,
    /// Whether policies narrow what tokens are granted.
    pub(super) policies: bool,
}

/// Reads all issuers.
pub(super) fn auth(reader: &mut KeyReader, purpose: Purpose) -> Option<Auth> {
    let leeway = reader.duration("auth.leeway");
    let first = issuer(reader, "auth", None, purpose.first_without_keys);
    let places = reader.named_tables(ISSUERS);
    let further: Vec<Option<Issuer>> = places
        .iter()
        .map(|place| further_issuer(reader, place, purpose))
        .collect();
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let further_with_places = further
        .iter()
        .zip(&places)
        .map(|(issuer, place)| (issuer, place.as_str()));
    for (issuer, place) in std::iter::once((&first, "auth")).chain(further_with_places) {
        let Some(issuer) = issuer else { continue };
        if let Some(other) = known.insert(&issuer.iss, place) {
            let message = format!("is that of {other} too");
            reader.fault::<()>(&format!("{place}.issuer"), &message);
        }
    }
    Some(Auth {
        first: first?,
        further: further.into_iter().collect::<Option<Vec<Issuer>>>()?,
        leeway: leeway?,
    })
}

fn further_issuer(reader: &mut KeyReader, place: &str, purpose: Purpose) -> Option<Issuer> {
    let (of_name, of_grant) = (format!("{place}.name"), format!("{place}.grant"));
    let name = match reader
        .required(&of_name)
        .map(|name| name.parse::<IssuerName>())
    {
        None => None,
        Some(Ok(name)) => Some(name),
        Some(Err(error)) => reader.fault(&of_name, &error.to_string()),
    };
    let grant = scopes_of(reader, &of_grant);
    if !grant.is_empty() && !purpose.policies {
        // Else whoever has a token of it might do it.
        let message = "gives scopes to every token of its issuer: only together with authorization.policy_file";
        reader.fault::<()>(&of_grant, message);
    }
    let mut issuer = issuer(reader, place, name.as_ref(), purpose.others_without_keys)?;
    issuer.claims.grant = grant;
    name.and(Some(issuer))
}

fn issuer(
    reader: &mut KeyReader,
    place: &str,
    name: Option<&IssuerName>,
    without_keys: bool,
) -> Option<Issuer> {
    let key = |key: &str| format!("{place}.{key}");
    let iss = reader.required(&key("issuer"));
    let audience = reader.required(&key("audience"));
    let keys = key_source(reader, place, iss.as_deref(), without_keys);
    let claims = claim_rules(reader, place);
    let fetch = fetch(reader, place, iss.as_deref(), keys.as_ref());
    Some(Issuer {
        name: name.cloned(),
        iss: iss?,
        audience: audience?,
        claims: claims?,
        keys: keys?,
        fetch: fetch?,
    })
}

fn claim_rules(reader: &mut KeyReader, place: &str) -> Option<ClaimRules> {
    let key = |key: &str| format!("{place}.{key}");
    let scope_claims = reader.list(&key("scope_claims"));
    let groups_claim = reader.text(&key("groups_claim"));
    let policy_claims = reader.list(&key("policy_claims")).into_iter().collect();
    let values = reader.keys_of_table(&key("scopes"));
    let scopes = values.into_iter().map(|value| {
        let means = scopes_of(reader, &format!("{place}.scopes.{value}"));
        (value, means)
    });
    Some(ClaimRules {
        scope_claims,
        scopes: scopes.collect(),
        grant: Vec::new(),
        groups_claim: groups_claim?,
        policy_claims,
    })
}

/// Scopes of the gateway's; others are for policies alone, or a slip.
fn scopes_of(reader: &mut KeyReader, key: &str) -> Vec<String> {
    let scopes = reader.list(key);
    for scope in &scopes {
        if !Scope::ALL.iter().any(|known| known.as_str() == scope) {
            let known = Scope::ALL.map(Scope::as_str).join(", ");
            reader.warn(
                key,
                &format!("`{scope}` is no scope of the gateway ({known}); policies alone see it"),
            );
        }
    }
    scopes
}

fn key_source(
    reader: &mut KeyReader,
    place: &str,
    iss: Option<&str>,
    without_keys: bool,
) -> Option<KeySource> {
    let key = |key: &str| format!("{place}.{key}");
    let (of_file, of_url, of_discovery) =
        (key("jwks_file"), key("jwks_url"), key("oidc_discovery"));
    let file = reader.path(&of_file).map(KeySource::File);
    let url = reader
        .text(&of_url)
        .and_then(|text| match key_source_url(&text) {
            Ok(url) => Some(KeySource::Url(url)),
            Err(message) => reader.fault(&of_url, &message),
        });
    let asked = reader.boolean(&of_discovery);
    let discovery = asked.filter(|asked| *asked).map(|_| KeySource::Discovery);
    if discovery.is_some()
        && let Some(Err(message)) = iss.map(key_source_url)
    {
        let message = format!("{of_discovery} asks it for its keys: {message}");
        reader.fault::<()>(&key("issuer"), &message);
    }
    let mut sources = [file, url, discovery].into_iter().flatten();
    match (sources.next(), sources.next()) {
        (Some(source), None) => Some(source),
        (None, _) if without_keys => Some(KeySource::Sandbox),
        // Its own fault is told.
        (None, _) if asked.is_none() || reader.is_set(&of_file) || reader.is_set(&of_url) => None,
        (None, _) => {
            let message = format!("one of it, {of_url} or {of_discovery} = true is required");
            reader.lacking(&of_file, &message)
        }
        (Some(_), Some(_)) => {
            let message = format!("only one of {of_file}, {of_url} and {of_discovery} may be set");
            reader.fault(&of_file, &message)
        }
    }
}

fn fetch(
    reader: &mut KeyReader,
    place: &str,
    iss: Option<&str>,
    keys: Option<&KeySource>,
) -> Option<Fetch> {
    let key = |key: &str| format!("{place}.{key}");
    let files = [key("fetch_ca_file"), key("fetch_token_file")];
    let [ca_file, token_file] = [&files[0], &files[1]].map(|key| reader.path(key));
    let wrong = |reader: &KeyReader, key, file: &Option<_>| reader.is_set(key) && file.is_none();
    let faulty = wrong(reader, &files[0], &ca_file) || wrong(reader, &files[1], &token_file);
    let (named_by, asked) = match keys {
        Some(KeySource::Url(url)) => (key("jwks_url"), Some(url.clone())),
        Some(KeySource::Discovery) => {
            let url = iss.and_then(|iss| Url::parse(iss).ok());
            (key("oidc_discovery"), url)
        }
        _ => {
            for key in &files {
                if reader.is_set(key) {
                    reader.warn(key, &format!("is set, and no keys are fetched for {place}"));
                }
            }
            (String::new(), None)
        }
    };
    let asked = asked.filter(|url| !is_loopback(url));
    let proxy = match asked.as_ref().map(|url| reader.proxies.proxy(Some(url))) {
        None => None,
        Some(Ok(proxy)) => proxy,
        Some(Err(why)) => {
            let message = format!("{why}; name its host in NO_PROXY");
            return reader.fault(&named_by, &message);
        }
    };
    (!faulty).then_some(Fetch {
        ca_file,
        token_file,
        proxy,
    })
}
