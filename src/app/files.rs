//! The files that configuration names: keys, certificates, policies. Each is looked at while configuration
//! is read, so that its faults are told with all others, and read again when it is used.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;

use crate::auth::KeySet;
use crate::authorization::Policies;
use crate::config::{self, Sources, TlsFiles};

/// Adds to `sources` how the files that keys name are looked at.
#[must_use]
pub fn with_file_checks(mut sources: Sources) -> Sources {
    sources.file_checks = vec![
        ("auth.jwks_file", |path| read_keys(path).map(drop)),
        ("auth.fetch_ca_file", |path| read_authority(path)),
        ("auth.fetch_token_file", |path| read_token(path)),
        ("authorization.policy_file", |path| {
            read_policies(path).map(drop)
        }),
        ("server.tls_cert_file", |path| {
            read_certificates(path).map(drop)
        }),
        ("server.tls_key_file", |path| {
            read_private_key(path).map(drop)
        }),
    ];
    sources.tls_check = Some(|files| tls_settings(files).map(drop));
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

fn read_authority(path: &Path) -> Result<(), String> {
    let mut authorities = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        let added = authorities.add(certificate);
        added.map_err(|_| "holds what is no certificate of an authority")?;
    }
    Ok(())
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

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = config::read_text_file(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let certificates = certificates.map_err(|_| "holds no certificates in PEM")?;
    let first = certificates.first().ok_or("holds no certificates in PEM")?;
    ParsedCertificate::try_from(first).map_err(|_| "holds what is no certificate (X.509)")?;
    Ok(certificates)
}

fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = config::read_text_file(path)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| "holds no private key in PEM".into())
}

pub(super) fn tls_settings(files: &TlsFiles) -> Result<rustls::ServerConfig, String> {
    let certificates = read_certificates(&files.cert_file)?;
    let key = read_private_key(&files.key_file)?;
    let settings = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key);
    let mut settings = settings.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            "does not fit the certificate of server.tls_cert_file".to_owned()
        }
        rustls::Error::InvalidCertificate(why) => {
            format!("cannot be used with the certificate of server.tls_cert_file: {why}")
        }
        other => format!("cannot be used: {other}"),
    })?;
    // Whoever offers nothing of these is refused in the handshake (RFC 7301, section 3.2); curl offers the older one alone
    // where it is told to speak it.
    settings.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    Ok(settings)
}
