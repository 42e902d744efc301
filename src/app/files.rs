//! The files that configuration names: keys, policies, certificates ([`tls`]). Each is looked at while configuration
//! is read, so that its faults are told with all others, and read again when it is used.

use std::path::Path;

use crate::auth::KeySet;
use crate::authorization::Policies;
use crate::config::{self, Sources};

use super::tls;

/// Adds to `sources` how the files that keys name are looked at.
#[must_use]
pub fn with_file_checks(mut sources: Sources) -> Sources {
    sources.file_checks = vec![
        ("auth.jwks_file", |path| read_keys(path).map(drop)),
        ("auth.fetch_ca_file", |path| {
            tls::read_authorities(path).map(drop)
        }),
        ("auth.fetch_token_file", |path| read_token(path)),
        ("authorization.policy_file", |path| {
            read_policies(path).map(drop)
        }),
        ("server.tls_cert_file", |path| {
            tls::read_certificates(path).map(drop)
        }),
        ("server.tls_key_file", |path| {
            tls::read_private_key(path).map(drop)
        }),
        ("server.client_ca_file", |path| {
            tls::read_authorities(path).map(drop)
        }),
    ];
    sources.tls_check =
        Some(|files| tls::Tls::load(files).map(|tls| tls.warning().into_iter().collect()));
    sources
}

fn read_keys(path: &Path) -> Result<KeySet, String> {
    let text = config::read_text_file(path)?;
    KeySet::parse(&text).map_err(|error| error.to_string())
}

/// As [`read_keys`], and says in the log which keys are left out of the file that `key` names.
pub(super) fn load_keys(key: &str, path: &Path) -> Result<KeySet, String> {
    let keys = read_keys(path)?;
    if keys.hold_secrets() && config::is_readable_by_others(path) {
        tracing::warn!(
            "{key}: `{}` holds secret keys and can be read by others (chmod o-r)",
            path.display()
        );
    }
    for left_out in keys.left_out() {
        tracing::warn!("{key}: {left_out}; it is left out");
    }
    Ok(keys)
}

fn read_token(path: &Path) -> Result<(), String> {
    let text = config::read_text_file(path)?;
    let token = text.trim();
    if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("holds no bearer token".into())
    }
}

fn read_policies(path: &Path) -> Result<Policies, String> {
    let text = config::read_text_file(path)?;
    Policies::parse(&text).map_err(|faults| faults.to_string())
}

/// The policies of a file, where there is one; says in the log what is odd about them.
pub(super) fn load_policies(path: Option<&Path>) -> Result<Option<Policies>, String> {
    let policies = path.map(read_policies).transpose()?;
    for warning in policies.iter().flat_map(Policies::warnings) {
        tracing::warn!("authorization.policy_file: {warning}");
    }
    Ok(policies)
}
