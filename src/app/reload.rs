//! What is read again while the gateway runs: keys for tokens, policies, keys for the upstream, TLS.
//!
//! Everything is read and checked before anything is taken, so a faulty file leaves all as it was. What a reload does not
//! take is told by name.

use super::tls::Tls;
use super::{App, identity, tell_odd};
use crate::config::{Config, Fault, Faults, Sources};
use crate::upstream::Keys;

use super::files::load_policies;

/// How a part of a reload went, for counting.
const TAKEN: &str = "ok";
const FAILED: &str = "failed";

impl App {
    /// Reads the key sets, the policies, the upstream keys and the TLS files again; what is faulty leaves all old ones in
    /// place. Keys that somebody else serves are fetched; where that fails the old ones work on, and the log says so.
    ///
    /// # Errors
    /// The faults; nothing was changed then.
    pub async fn reload(&self, sources: &Sources) -> Result<(), Faults> {
        let taken = self.take_again(sources);
        let faults = taken.as_ref().err().map_or(&[][..], |faults| &faults.0);
        for part in PARTS {
            let failed = faults.iter().any(|fault| part_of(&fault.key) == part);
            let read = part != "tls" || self.tls.is_some();
            match (failed, faults.is_empty()) {
                (true, _) => self.metrics.reload(part, FAILED),
                (false, true) if read => self.metrics.reload(part, TAKEN),
                (false, _) => {}
            }
        }
        let policies_gone = taken?;
        // The last of all: who serves keys may be slow.
        let unserved = self.authenticator.reload().await;
        for issuer in &unserved {
            tracing::warn!(
                config.section = issuer,
                "the key set could not be fetched; the last good one, where there is one, works on"
            );
        }
        let served = if unserved.is_empty() { TAKEN } else { FAILED };
        self.metrics.reload("served_keys", served);
        let policies = if policies_gone { "" } else { "policies, " };
        let tls = self.tls.as_ref().map_or("", |_| ", TLS");
        tracing::info!("reloaded: keys for tokens, {policies}keys for the upstream{tls}");
        Ok(())
    }

    /// Reads all that lies in files, and takes it. Returns whether policies of before stay because none are configured
    /// any more.
    fn take_again(&self, sources: &Sources) -> Result<bool, Faults> {
        let config = Config::load_over(sources, self.authorizer.has_policies())?;
        identity::check_same(&self.config.auth, &config.auth)?;
        tell_odd(&config);
        let keys =
            identity::keys_of_files(&config.auth).map_err(|(key, message)| fault(&key, message))?;
        let policies = load_policies(config.authorization.policy_file.as_deref())
            .map_err(|message| fault("authorization.policy_file", message))?;
        let tls = match (&self.tls, &config.server.tls) {
            (Some(live), Some(files)) => {
                let tls = Tls::load(files);
                let tls = tls.map_err(|message| fault("server.tls_key_file", message))?;
                Some((live, tls))
            }
            _ => None,
        };
        self.tell_what_is_not_taken(&config);
        let policies_gone = policies.is_none() && self.authorizer.has_policies();
        for (name, keys) in keys {
            self.authenticator.use_keys(name, keys);
        }
        if policies_gone {
            // Whoever takes all limits away has to stop the gateway for it; a variable is forgotten more easily.
            tracing::warn!(
                "authorization.policy_file is not configured any more; the policies of before stay until a restart"
            );
        } else {
            self.authorizer.use_policies(policies);
        }
        self.upstream.use_keys(Keys {
            public: config.upstream.public_key,
            private: config.upstream.private_key,
        });
        if let Some((live, tls)) = tls {
            live.take(tls);
        }
        Ok(policies_gone)
    }

    fn tell_what_is_not_taken(&self, config: &Config) {
        let mut keys = self.config.needs_restart(config);
        if self.tls.is_some() != config.server.tls.is_some() {
            keys.push("server.tls_cert_file");
        }
        for key in keys {
            tracing::warn!(
                "{key} is another than at the start; that needs a restart, and is not taken"
            );
        }
    }
}

/// What a reload reads from files, by the names of the metric.
const PARTS: [&str; 5] = ["configuration", "keys", "policies", "upstream_keys", "tls"];

/// The part that a key of the configuration belongs to.
fn part_of(key: &str) -> &'static str {
    let begins = |prefix: &str| key.starts_with(prefix);
    match key {
        _ if begins("server.tls_") || begins("server.client_ca_file") => "tls",
        _ if begins("auth.") || key.contains(" auth") => "keys",
        _ if begins("authorization.") => "policies",
        _ if begins("upstream.public_key") || begins("upstream.private_key") => "upstream_keys",
        _ => "configuration",
    }
}

fn fault(key: &str, message: String) -> Faults {
    Faults(vec![Fault {
        key: key.to_owned(),
        origin: None,
        message,
    }])
}
