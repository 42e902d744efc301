//! TLS on the REST listener: its certificate and key, whom it takes certificates of clients from, and until when.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use crate::config::{self, TlsFiles};
use crate::domain::Timestamp;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// How long before a certificate ends that is told.
const EXPIRY_TOLD: Duration = Duration::from_hours(14 * 24);
/// How often it is told again.
const A_DAY: Duration = Duration::from_hours(24);

/// What the listener shakes hands with.
pub(super) struct Tls {
    pub(super) settings: Arc<ServerConfig>,
    /// Authorities of which clients must have certificates.
    authorities: Option<Arc<RootCertStore>>,
    /// When the first certificate of the chain ends that does.
    expires_at: Timestamp,
}

/// The key of the configuration that names what is wrong, and what it is.
pub(super) type TlsFault = (&'static str, String);

const CERT_FILE: &str = "server.tls_cert_file";
const KEY_FILE: &str = "server.tls_key_file";
const CLIENT_CA_FILE: &str = "server.client_ca_file";

impl Tls {
    /// Reads the files. Where they name no authorities of clients, `before` are those.
    pub(super) fn load(
        files: &TlsFiles,
        before: Option<Arc<RootCertStore>>,
    ) -> Result<Self, TlsFault> {
        let of = |key| move |message| (key, message);
        let certificates = read_certificates(&files.cert_file).map_err(of(CERT_FILE))?;
        let expires_at = certificates.iter().filter_map(expiry).min();
        let key = read_private_key(&files.key_file).map_err(of(KEY_FILE))?;
        let authorities = match &files.client_ca_file {
            Some(path) => {
                let read = read_authorities(path).map_err(of(CLIENT_CA_FILE))?;
                Some(Arc::new(read))
            }
            None => before,
        };
        let builder = ServerConfig::builder();
        let builder = match &authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let verifier = WebPkiClientVerifier::builder(Arc::clone(authorities)).build();
                let why = |error| (CLIENT_CA_FILE, format!("cannot be used: {error}"));
                builder.with_client_cert_verifier(verifier.map_err(why)?)
            }
        };
        let settings = builder.with_single_cert(certificates, key);
        let mut settings = settings.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => (
                KEY_FILE,
                format!("does not fit the certificate of {CERT_FILE}"),
            ),
            rustls::Error::InvalidCertificate(_) => (CERT_FILE, "cannot be used".to_owned()),
            _ => (
                KEY_FILE,
                "is of a kind that TLS is not served with: RSA from 2048 bits, ECDSA over P-256, P-384 or P-521, or Ed25519"
                    .to_owned(),
            ),
        })?;
        // Whoever offers nothing of these is refused in the handshake (RFC 7301, section 3.2); curl offers the older one
        // alone where it is told to speak it.
        settings.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        Ok(Self {
            settings: Arc::new(settings),
            authorities,
            expires_at: expires_at.unwrap_or(Timestamp::MAX),
        })
    }

    /// That the certificate ends soon, or has ended.
    pub(super) fn warning(&self) -> Option<String> {
        expiry_warning(self.expires_at, Timestamp::now())
    }
}

/// What the listener shakes hands with now, and how long that is good.
#[derive(Debug)]
pub(super) struct LiveTls {
    settings: Arc<ArcSwap<ServerConfig>>,
    authorities: ArcSwapOption<RootCertStore>,
    expires_at: AtomicI64,
    metrics: Metrics,
}

impl LiveTls {
    /// Reads the files, and looks every day until when they are good, until a stop.
    pub(super) fn start(
        files: &TlsFiles,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, TlsFault> {
        let tls = Tls::load(files, None)?;
        let live = Arc::new(Self {
            settings: Arc::new(ArcSwap::new(Arc::clone(&tls.settings))),
            authorities: ArcSwapOption::empty(),
            expires_at: AtomicI64::new(i64::MAX),
            metrics,
        });
        live.take(tls);
        let (watching, stopping) = (Arc::clone(&live), tasks.clone());
        tasks.serve(async move { watching.watch(stopping.stopping()).await });
        Ok(live)
    }

    /// For the listener, which looks at it anew for each connection.
    pub(super) fn settings(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.settings)
    }

    /// The authorities of which clients must have certificates now.
    pub(super) fn authorities(&self) -> Option<Arc<RootCertStore>> {
        self.authorities.load_full()
    }

    /// Puts others in their place, from the next connection on.
    pub(super) fn take(&self, tls: Tls) {
        self.metrics.tls_certificate(tls.expires_at);
        self.expires_at
            .store(tls.expires_at.as_micros(), Ordering::Relaxed);
        self.authorities.store(tls.authorities);
        self.settings.store(tls.settings);
    }

    /// Says every day that the certificate ends soon; at the start and at a reload it is said with all that is odd.
    async fn watch(&self, stopping: impl Future<Output = ()>) {
        let mut stopping = std::pin::pin!(stopping);
        loop {
            tokio::select! {
                () = tokio::time::sleep(A_DAY) => {}
                () = &mut stopping => return,
            }
            let expires_at = Timestamp::from_micros(self.expires_at.load(Ordering::Relaxed));
            if let Some(warning) = expiry_warning(expires_at, Timestamp::now()) {
                tracing::warn!("{CERT_FILE}: {warning}");
            }
        }
    }
}

/// That a certificate ends soon, or has ended.
fn expiry_warning(expires_at: Timestamp, now: Timestamp) -> Option<String> {
    let left = expires_at.since(now);
    if left.is_zero() {
        Some(format!(
            "a certificate of it has ended ({expires_at}); clients refuse it"
        ))
    } else if left <= EXPIRY_TOLD {
        let days = left.as_secs() / (24 * 3600);
        Some(format!(
            "a certificate of it ends in {days} days ({expires_at})"
        ))
    } else {
        None
    }
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Some(Timestamp::from_micros(seconds.saturating_mul(1_000_000)))
}

/// A chain of certificates in PEM, at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = config::read_text_file(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let certificates = certificates.map_err(|_| "holds no certificates in PEM")?;
    if certificates.is_empty() {
        return Err("holds no certificates in PEM".into());
    }
    for certificate in &certificates {
        let parsed = X509Certificate::from_der(certificate);
        let (_, parsed) = parsed.map_err(|_| "holds what is no certificate (X.509)")?;
        if parsed.version() != X509Version::V3 {
            return Err(
                "holds a certificate of an old version of X.509, which clients refuse: make one of version 3, with the names that it is for"
                    .into(),
            );
        }
    }
    Ok(certificates)
}

/// A private key in PEM: PKCS #8, PKCS #1 or SEC 1.
pub(super) fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = config::read_text_file(path)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        if text.contains("ENCRYPTED") {
            "holds a private key that is encrypted; the gateway takes one that is not".into()
        } else {
            "holds no private key in PEM".into()
        }
    })
}

/// Certificates of authorities in PEM, at least one.
pub(super) fn read_authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        let added = authorities.add(certificate);
        added.map_err(|_| "holds what is no certificate of an authority")?;
    }
    Ok(authorities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_from_fourteen_days_before_its_end() {
        let ends = Timestamp::from_micros(1_800_000_000_000_000);
        let before = |hours: i64| Timestamp::from_micros(ends.as_micros() - hours * 3_600_000_000);
        assert_eq!(expiry_warning(ends, before(14 * 24 + 1)), None);
        let told = expiry_warning(ends, before(14 * 24)).expect("told");
        assert!(told.contains("ends in 14 days"), "{told}");
        let ended = expiry_warning(ends, before(-1)).expect("told");
        assert!(ended.contains("has ended"), "{ended}");
    }
}
