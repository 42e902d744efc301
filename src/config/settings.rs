//! Each section of the configuration as a plain struct, checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;

use crate::domain::Region;

use super::proxy::Proxy;
use super::trail::TrailPlace;
use super::values::PublicUrl;

/// Listeners and how long things may take.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where REST is served.
    pub bind: SocketAddr,
    /// Where metrics and probes are served; `None` turns that listener off.
    pub admin_bind: Option<SocketAddr>,
    /// Longest time that calls in flight get at a stop.
    pub shutdown_timeout: Duration,
    /// Longest time that a change may take in all.
    pub request_timeout: Duration,
    /// How long serving goes on after a stop was asked for.
    pub drain_delay: Duration,
    /// TLS on the REST listener.
    pub tls: Option<TlsFiles>,
    /// Proxies whose word on where a request came from is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they say it.
    pub client_address_header: ClientAddressHeader,
    /// How long a connection on which nothing is asked is kept.
    pub keep_alive: Duration,
    /// Connections at once; without a number what the limit of open files allows.
    pub max_connections: Option<usize>,
    /// Where callers reach the gateway, where that is known.
    pub public_url: Option<PublicUrl>,
    /// Origins that browsers may call from.
    pub cors_origins: Vec<String>,
}

/// In which header trusted proxies say where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddressHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// PEM files of the REST listener's certificate chain and its private key, and of the authorities of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the listener's own first.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
    /// Authorities of which clients must have certificates, where they must have any.
    pub client_ca_file: Option<PathBuf>,
}

/// What a token for development is made of, where it is configured.
#[derive(Debug, Clone)]
pub struct TokenDefaults {
    /// `auth.issuer`.
    pub issuer: Option<String>,
    /// `auth.audience`.
    pub audience: Option<String>,
    /// `auth.jwks_file`.
    pub jwks_file: Option<PathBuf>,
}

/// Who may do what.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// Cedar policies; without them scopes alone decide.
    pub policy_file: Option<PathBuf>,
}

/// The Action API and the keys to it.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// The one URL of all actions.
    pub base_url: Url,
    /// The region of requests that name none.
    pub region: Region,
    /// The regions that a caller may name.
    pub regions: Vec<Region>,
    /// `ProjectId`, where one is sent.
    pub project_id: Option<String>,
    /// The public key, sent with every call.
    pub public_key: SecretString,
    /// The private key, never sent.
    pub private_key: SecretString,
    /// Longest time of one call.
    pub timeout: Duration,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// How often a call that failed is made again.
    pub max_retries: u32,
    /// Calls at once.
    pub max_in_flight: usize,
    /// Calls a second; without one there is no bound.
    pub requests_per_second: Option<f64>,
    /// `Zone`, sent where the action that lists images needs it.
    pub zone: Option<String>,
    /// The HTTP proxy that calls go through.
    pub proxy: Option<Proxy>,
}

/// Where the trail lies.
#[derive(Debug, Clone)]
pub struct Audit {
    /// The file of SQLite, or the database of PostgreSQL.
    pub database: TrailPlace,
}

/// How much may be asked.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests of one subject; without a rate there is no bound.
    pub requests: Option<Rate>,
    /// Failed authentications from one client address; without a rate there is no bound.
    pub failed_authentications: Option<Rate>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens that come back a second, more than none.
    pub per_second: f64,
    /// Tokens of a full bucket.
    pub burst: u32,
}

/// Logs and traces.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where traces go, where there are any.
    pub traces: Option<TraceSettings>,
}

/// Where traces go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// The base URL of a collector that takes OTLP over HTTP.
    pub endpoint: Url,
    /// Of traces that begin here, how many are kept, 0 to 1.
    pub sample_ratio: f64,
    /// The HTTP proxy that lies between.
    pub proxy: Option<Proxy>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
