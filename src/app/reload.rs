//! What is read again while the gateway runs: keys for tokens, policies, keys for the upstream, TLS.
//!
//! Everything is read and checked before anything is taken, so a faulty file leaves all as it was. What a reload does not
//! take is told by name, and whatever limits callers stays where nobody names it any more: a variable is forgotten more
//! easily than a gateway is stopped. Files are read aside: one that does not answer holds up neither requests nor a stop.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use tokio::time::timeout;

use crate::auth::KeySet;
use crate::authorization::Policies;
use crate::config::{Config, Fault, Faults, Sources};
use crate::domain::IssuerName;
use crate::telemetry::{RELOAD_PARTS, ReloadPart};
use crate::upstream::Keys;

use super::files::load_policies;
use super::identity::NEEDS_RESTART;
use super::tls::Tls;
use super::{App, identity, tell_odd};

/// How long files may take to be read.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// What was read, and may be taken.
struct Fresh {
    config: Config,
    keys: Vec<(Option<IssuerName>, KeySet)>,
    policies: Option<Policies>,
    tls: Option<Tls>,
    /// What limits callers and is not configured any more, so that it stays.
    stays: Vec<&'static str>,
}

/// What the gateway has, as far as it bears on what may be taken.
struct Present {
    config: Config,
    has_policies: bool,
    authorities: Option<Arc<RootCertStore>>,
}

impl App {
    /// Reads the key sets, the policies, the upstream keys and the TLS files again; what is faulty leaves all old ones in
    /// place. Keys that somebody else serves are fetched; where that fails the old ones work on, and the log says so.
    ///
    /// # Errors
    /// The faults; nothing was changed then.
    pub async fn reload(&self, sources: Sources) -> Result<(), Faults> {
        let present = Present {
            config: self.config.clone(),
            has_policies: self.authorizer.has_policies(),
            authorities: self.tls.as_ref().and_then(|tls| tls.authorities()),
        };
        let reading = tokio::task::spawn_blocking(move || Fresh::read(&sources, &present));
        let read = match timeout(READ_TIME_MAX, reading).await {
            Ok(read) => {
                read.unwrap_or_else(|_| Err(fault("configuration", "cannot be read".into())))
            }
            Err(_) => Err(fault(
                "configuration",
                format!("its files do not answer within {READ_TIME_MAX:?}"),
            )),
        };
        let fresh = match read {
            Ok(fresh) => fresh,
            Err(faults) => {
                for part in RELOAD_PARTS {
                    if faults.0.iter().any(|fault| part_of(&fault.key) == part) {
                        self.metrics.reload_failed(part);
                    }
                }
                return Err(faults);
            }
        };
        let taken = self.take(fresh);
        // The last of all: who serves keys may be slow.
        let unserved = self.authenticator.reload().await;
        for issuer in &unserved {
            tracing::warn!(
                config.section = issuer,
                "the key set could not be fetched; the last good one, where there is one, works on"
            );
        }
        if unserved.is_empty() {
            self.metrics.reload_taken(ReloadPart::ServedKeys);
        } else {
            self.metrics.reload_failed(ReloadPart::ServedKeys);
        }
        tracing::info!("reloaded: {taken}");
        Ok(())
    }

    /// Gives in words what was taken.
    fn take(&self, fresh: Fresh) -> String {
        tell_odd(&fresh.config);
        for key in needs_restart(&self.config, &fresh.config) {
            tracing::warn!("{key} {NEEDS_RESTART}");
        }
        for key in fresh.stays {
            tracing::warn!("{key} is not configured any more; what it was stays until a restart");
        }
        let mut taken = vec!["keys for tokens"];
        self.metrics.reload_taken(ReloadPart::Configuration);
        for (name, keys) in fresh.keys {
            self.authenticator.use_keys(name.as_ref(), keys);
        }
        self.metrics.reload_taken(ReloadPart::Keys);
        if fresh.policies.is_some() {
            self.authorizer.use_policies(fresh.policies);
            self.metrics.reload_taken(ReloadPart::Policies);
            taken.push("policies");
        }
        self.upstream.use_keys(Keys {
            public: fresh.config.upstream.public_key,
            private: fresh.config.upstream.private_key,
        });
        self.metrics.reload_taken(ReloadPart::UpstreamKeys);
        taken.push("keys for the upstream");
        if let (Some(live), Some(tls)) = (&self.tls, fresh.tls) {
            live.take(tls);
            self.metrics.reload_taken(ReloadPart::Tls);
            taken.push("TLS");
        }
        taken.join(", ")
    }
}

impl Fresh {
    fn read(sources: &Sources, present: &Present) -> Result<Self, Faults> {
        let config = Config::load_over(sources, present.has_policies)?;
        identity::check_same(&present.config.auth, &config.auth).map_err(|mut faults| {
            // Nothing is taken then, so all that is another is told with it.
            let others = needs_restart(&present.config, &config);
            let others = others.into_iter();
            faults
                .0
                .extend(others.map(|key| Fault::of(key, NEEDS_RESTART)));
            faults
        })?;
        let keys =
            identity::keys_of_files(&config.auth).map_err(|(key, message)| fault(&key, message))?;
        let keys = keys
            .into_iter()
            .map(|(name, keys)| (name.cloned(), keys))
            .collect();
        let policies = load_policies(config.authorization.policy_file.as_deref())
            .map_err(|message| fault("authorization.policy_file", message))?;
        let mut stays = Vec::new();
        if policies.is_none() && present.has_policies {
            stays.push("authorization.policy_file");
        }
        let mut tls = None;
        if let (Some(_), Some(files)) = (&present.config.server.tls, &config.server.tls) {
            if files.client_ca_file.is_none() && present.authorities.is_some() {
                stays.push("server.client_ca_file");
            }
            let loaded = Tls::load(files, present.authorities.clone());
            tls = Some(loaded.map_err(|(key, message)| fault(key, message))?);
        }
        Ok(Self {
            config,
            keys,
            policies,
            tls,
            stays,
        })
    }
}

/// The keys of which a reload takes nothing, and that are others than at the start.
fn needs_restart(now: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = now.needs_restart(new);
    if now.server.tls.is_some() != new.server.tls.is_some() {
        keys.extend(["server.tls_cert_file", "server.tls_key_file"]);
    }
    keys
}

/// The part that a key of the configuration belongs to.
fn part_of(key: &str) -> ReloadPart {
    let begins = |prefix: &str| key.starts_with(prefix);
    match key {
        _ if begins("server.tls_") || begins("server.client_ca_file") => ReloadPart::Tls,
        _ if begins("auth.") => ReloadPart::Keys,
        _ if begins("authorization.") => ReloadPart::Policies,
        _ if begins("upstream.public_key") || begins("upstream.private_key") => {
            ReloadPart::UpstreamKeys
        }
        _ => ReloadPart::Configuration,
    }
}

fn fault(key: &str, message: String) -> Faults {
    Faults(vec![Fault::of(key, message)])
}
