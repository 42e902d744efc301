//! The files that configuration names: keys, policies, certificates ([`tls`]). Each is looked at while configuration
//! is read, so that its faults, and what is odd about it, are told with all others, and read again when it is used.

use std::path::Path;

use crate::auth::KeySet;
use crate::authorization::Policies;
use crate::config::{self, Sources};

use super::tls;

/// Adds to `sources` how the files that keys name are looked at.
#[must_use]
pub fn with_file_checks(mut sources: Sources) -> Sources {
    sources.file_checks = vec![
        ("auth.jwks_file", |path| {
            read_keys(path).map(|keys| odd_keys(path, &keys))
        }),
        ("auth.fetch_ca_file", |path| {
            tls::read_authorities(path).map(|_| Vec::new())
        }),
        ("auth.fetch_token_file", |path| {
            read_token(path).map(|()| Vec::new())
        }),
        ("authorization.policy_file", |path| {
            read_policies(path).map(|policies| policies.warnings().to_vec())
        }),
        ("server.tls_cert_file", |path| {
            tls::read_certificates(path).map(|_| Vec::new())
        }),
        ("server.tls_key_file", |path| {
            tls::read_private_key(path).map(|_| Vec::new())
        }),
        ("server.client_ca_file", |path| {
            tls::read_authorities(path).map(|_| Vec::new())
        }),
    ];
    sources.tls_check = Some(|files| {
        let tls = tls::Tls::load(files, None)?;
        Ok(tls.warning().into_iter().collect())
    });
    sources
}

/// The keys of a file.
pub(super) fn read_keys(path: &Path) -> Result<KeySet, String> {
    let text = config::read_text_file(path)?;
    KeySet::parse(&text).map_err(|error| error.to_string())
}

/// What is odd about the keys of a file: who can read it, and which of them are left out.
fn odd_keys(path: &Path, keys: &KeySet) -> Vec<String> {
    let readable = keys.hold_secrets() && config::is_readable_by_others(path);
    let readable = readable.then(|| {
        let path = path.display();
        format!("`{path}` holds secret keys and can be read by others (chmod o-r)")
    });
    let left_out = keys.left_out();
    let left_out = left_out
        .iter()
        .map(|left_out| format!("{left_out}; it is left out"));
    readable.into_iter().chain(left_out).collect()
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

/// The policies of a file, where there is one.
pub(super) fn load_policies(path: Option<&Path>) -> Result<Option<Policies>, String> {
    path.map(read_policies).transpose()
}
