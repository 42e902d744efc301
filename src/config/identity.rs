//! Section `auth`: which issuers are trusted, where their keys come from, and what their claims mean here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::domain::{IssuerName, Scope};

use super::Proxy;
use super::reader::{ISSUERS, KeyReader};
use super::values::{is_loopback, key_source_url};

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
        section(self.name.as_ref())
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

fn section(name: Option<&IssuerName>) -> String {
    match name {
        None => "auth".into(),
        Some(name) => format!("{ISSUERS}.{name}"),
    }
}

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
    let leeway = reader.duration("auth.leeway", "30s");
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
    name.map(|name| Issuer {
        name: Some(name),
        ..issuer
    })
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
    let defaults = ClaimRules::default();
    let scope_claims = if reader.is_set(&key("scope_claims")) {
        reader.list(&key("scope_claims"))
    } else {
        defaults.scope_claims
    };
    let groups_claim = if reader.is_set(&key("groups_claim")) {
        reader.text(&key("groups_claim"))
    } else {
        Some(defaults.groups_claim)
    };
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
            reader.warn(format!(
                "{key}: `{scope}` is no scope of the gateway ({known}); policies alone see it"
            ));
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
    let asked = reader.boolean(&of_discovery, "false");
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
            reader.fault(&of_file, &message)
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
            for key in files
                .iter()
                .filter(|key| reader.is_set(key))
                .cloned()
                .collect::<Vec<_>>()
            {
                reader.warn(format!("{key} is set, and no keys are fetched for {place}"));
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
