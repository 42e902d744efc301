//! What an operator can set: a TOML file, overridden by environment variables `ISG__SECTION__KEY`.
//!
//! Every key is read and checked at the start, and all faults are told at once, each with the key and
//! where it came from. A key that nothing reads is a fault too: a misspelt key must not pass for a
//! default. Secrets are held so that they do not print.

mod effective;
mod example;
mod identity;
mod issuer;
mod keys;
pub use keys::default_region;
mod layers;
mod proxy;
mod reader;
mod secrets;
mod sections;
mod server;
mod settings;
mod tables;
mod trail;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::domain::Region;
pub use effective::Checked;
use effective::FixedValues;
pub use example::{example_file, table_of_keys};
pub use issuer::{Auth, ClaimRules, Fetch, Issuer, KeySource, section_of};
pub use layers::{is_readable_by_others, read_text_file};
pub use proxy::Proxy;
use reader::KeyReader;
pub use settings::{
    Audit, Authorization, ClientAddressHeader, Limits, LogFormat, Rate, Server, Telemetry,
    TlsFiles, TokenDefaults, TraceSettings, UpstreamSettings,
};
pub use trail::{ServerUrl, TrailPlace, trail_place};
pub use values::{PublicUrl, key_source_url, parse_duration};

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Section `server`.
    pub server: Server,
    /// Section `auth`.
    pub auth: Auth,
    /// Section `authorization`.
    pub authorization: Authorization,
    /// Section `upstream`.
    pub upstream: UpstreamSettings,
    /// Section `audit`.
    pub audit: Audit,
    /// Section `limits`.
    pub limits: Limits,
    /// Section `telemetry`.
    pub telemetry: Telemetry,
    /// What is allowed and unwise.
    pub warnings: Vec<String>,
    /// What holds until a restart, whatever a reload says.
    fixed: FixedValues,
}

/// What configuration is made of, lowest layer first. Does not print: the environment holds secrets.
#[derive(Default)]
pub struct Sources {
    /// What `serve --sandbox` sets where nobody else does.
    pub defaults: BTreeMap<&'static str, String>,
    /// Whether a missing key source means throw-away keys.
    pub sandbox: bool,
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables by name; others than `ISG__…` are ignored.
    pub environment: BTreeMap<String, String>,
    /// How the file that a key names is looked at, so that its faults are told with all others.
    pub file_checks: Vec<(&'static str, FileCheck)>,
    /// How it is seen whether a certificate and a key fit.
    pub tls_check: Option<TlsCheck>,
}

/// Looks at whether a certificate and a key fit; says what does not and which key names it, or what is odd about them.
pub type TlsCheck = fn(&TlsFiles) -> Result<Vec<String>, (&'static str, String)>;

/// Looks at a file that a key names; says what is wrong with it, or what is odd about it.
pub type FileCheck = fn(&Path) -> Result<Vec<String>, String>;

impl Sources {
    /// The given file and this process' environment.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this room is the one that reads the environment"
    )]
    pub fn of_this_process(file: Option<&Path>) -> Self {
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        let environment = std::env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        Self {
            file: file.map(Path::to_owned),
            environment,
            ..Self::default()
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key as the file names it, or the file itself.
    pub key: String,
    /// Where the value came from, where there is one.
    pub origin: Option<String>,
    /// What is wrong. Never the value of a secret.
    pub message: String,
}

impl Fault {
    /// One of which it is not told where the value came from.
    #[must_use]
    pub fn of(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            origin: None,
            message: message.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} ({origin}): {}", self.key, self.message),
            None => write!(f, "{}: {}", self.key, self.message),
        }
    }
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has faults")]
pub struct Faults(pub Vec<Fault>);

impl Config {
    /// Reads and checks everything. Files that it names are checked by the rooms that read them.
    ///
    /// # Errors
    /// Every fault of every layer at once.
    pub fn load(sources: &Sources) -> Result<Self, Faults> {
        Self::load_over(sources, false)
    }

    /// As [`Self::load`], for a gateway that runs. `has_policies` says that policies are in force already, which stay
    /// where none are configured any more.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_over(sources: &Sources, has_policies: bool) -> Result<Self, Faults> {
        let (_, config) = Self::read(sources, has_policies);
        config
    }

    /// The keys of which `new` says something else, and a reload takes nothing; those of `auth`, with which a reload is
    /// refused as a whole, apart.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let differs = |(key, value): (&&'static str, &String)| {
            (new.fixed.get(key) != Some(value)).then_some(*key)
        };
        self.fixed.iter().filter_map(differs).collect()
    }

    /// Reads everything, and gives the reader too, which knows where each value came from.
    fn read(sources: &Sources, has_policies: bool) -> (KeyReader, Result<Self, Faults>) {
        let mut reader = KeyReader::new(sources);
        if sources.sandbox {
            sections::refuse_real_upstream(&mut reader);
        }
        let server = server::server(&mut reader);
        let purpose = identity::Purpose {
            first_without_keys: sources.sandbox,
            others_without_keys: false,
            policies: has_policies || reader.is_set("authorization.policy_file"),
        };
        let auth = identity::auth(&mut reader, purpose);
        let authorization = sections::authorization(&mut reader, sources.sandbox);
        let upstream = sections::upstream(&mut reader);
        let audit = sections::audit_database(&mut reader);
        let limits = sections::limits(&mut reader);
        let telemetry = sections::telemetry(&mut reader);
        let warnings = reader.warnings();
        let faults = reader.faults();
        let fixed = effective::fixed_values(&reader, audit.as_ref());
        let whole = || {
            Some(Self {
                server: server?,
                auth: auth?,
                authorization,
                upstream: upstream?,
                audit: audit?,
                limits: limits?,
                telemetry: telemetry?,
                warnings,
                fixed,
            })
        };
        let config = match whole() {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(Faults(faults)),
        };
        (reader, config)
    }

    /// Reads the audit database's place alone, for commands that need nothing else.
    ///
    /// # Errors
    /// Its faults, and those of the layers as a whole; other keys may be missing.
    pub fn load_audit(sources: &Sources) -> Result<Audit, Faults> {
        let mut reader = KeyReader::new(sources);
        let audit = sections::audit_database(&mut reader);
        let faults = reader.faults_of("audit.database_url");
        audit.filter(|_| faults.is_empty()).ok_or(Faults(faults))
    }

    /// Reads the default region and those that callers may name, alone.
    ///
    /// # Errors
    /// Their faults, and those of the layers as a whole.
    pub fn load_regions(sources: &Sources) -> Result<(Region, Vec<Region>), Faults> {
        let mut reader = KeyReader::new(sources);
        let regions = sections::regions(&mut reader);
        let faults = reader.faults_of("upstream.region");
        regions.filter(|_| faults.is_empty()).ok_or(Faults(faults))
    }

    /// Reads which issuers there are and what their claims mean, where any is configured, for whoever reads tokens and
    /// fetches no keys.
    ///
    /// # Errors
    /// Faults of section `auth`, and those of the layers as a whole.
    pub fn load_auth(sources: &Sources) -> Result<Option<Auth>, Faults> {
        let mut reader = KeyReader::new(sources);
        let reads_tokens = [
            "auth.issuer",
            "auth.issuers",
            "auth.scope_claims",
            "auth.scopes",
            "auth.groups_claim",
            "auth.policy_claims",
        ];
        if !reads_tokens.iter().any(|key| reader.is_set(key)) {
            return Ok(None);
        }
        let purpose = identity::Purpose {
            first_without_keys: true,
            others_without_keys: true,
            policies: true,
        };
        let auth = identity::auth(&mut reader, purpose);
        let faults = reader.faults_of("auth.");
        match auth {
            Some(auth) if faults.is_empty() => Ok(Some(auth)),
            _ => Err(Faults(faults)),
        }
    }

    /// Reads what a token for development says and is signed with where the command line does not say it.
    ///
    /// # Errors
    /// Faults of these keys, and those of the layers as a whole.
    pub fn load_token_defaults(sources: &Sources) -> Result<TokenDefaults, Faults> {
        let mut reader = KeyReader::new(sources);
        let (issuer, audience) = (reader.text("auth.issuer"), reader.text("auth.audience"));
        let jwks_file = reader.path("auth.jwks_file");
        let faults = reader.faults_of("auth.");
        if faults.is_empty() {
            Ok(TokenDefaults {
                issuer,
                audience,
                jwks_file,
            })
        } else {
            Err(Faults(faults))
        }
    }

    /// Reads where REST is served and whether over TLS, alone.
    ///
    /// # Errors
    /// Its faults, and those of the layers as a whole.
    pub fn load_server(sources: &Sources) -> Result<Server, Faults> {
        let mut reader = KeyReader::new(sources);
        let server = server::server(&mut reader);
        let faults = reader.faults_of("server.");
        server.filter(|_| faults.is_empty()).ok_or(Faults(faults))
    }
}

#[cfg(test)]
mod tests;
