//! Each section's keys: their defaults, their form, and how they depend on one another.

use std::io::IsTerminal as _;

use ipnet::IpNet;
use url::Url;

use crate::domain::Region;

use super::proxy::proxy_url;
use super::reader::KeyReader;
use super::values::{is_loopback, trail_file};
use super::{
    Audit, ClientAddressHeader, Limits, LogFormat, Proxy, Rate, Server, Telemetry, TlsFiles,
    UpstreamSettings,
};

pub(super) fn server(reader: &mut KeyReader) -> Option<Server> {
    let bind = reader.address("server.bind", "127.0.0.1:8080");
    let admin_bind = reader.address_or_off("server.admin_bind", "127.0.0.1:9090");
    let shutdown_timeout = reader.duration("server.shutdown_timeout", "30s");
    let request_timeout = reader.positive_duration("server.request_timeout", "30s");
    let drain_delay = reader.duration("server.drain_delay", "0s");
    let cert_file = reader.path("server.tls_cert_file");
    let key_file = reader.path("server.tls_key_file");
    let given =
        ["server.tls_cert_file", "server.tls_key_file"].map(|key| (key, reader.is_given(key)));
    if let [(given, true), (missing, false)] | [(missing, false), (given, true)] = given {
        reader.fault::<()>(missing, &format!("is required with {given}"));
    }
    let tls = cert_file
        .zip(key_file)
        .map(|(cert_file, key_file)| TlsFiles {
            cert_file,
            key_file,
        });
    if let Some(Err(message)) = tls.as_ref().map(|files| reader.check_tls(files)) {
        reader.fault::<()>("server.tls_key_file", &message);
    }
    let mut trusted_proxies = Vec::new();
    for proxy in reader.list("server.trusted_proxies") {
        match proxy.parse::<IpNet>() {
            Ok(network) => trusted_proxies.push(network),
            Err(_) => {
                reader.fault::<()>(
                    "server.trusted_proxies",
                    &format!("`{proxy}` is no CIDR, such as 10.0.0.0/8"),
                );
            }
        }
    }
    let header = reader.text("server.client_address_header");
    let client_address_header = match header.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("x-forwarded-for") => Some(ClientAddressHeader::XForwardedFor),
        Some("forwarded") => Some(ClientAddressHeader::Forwarded),
        Some(_) => reader.fault(
            "server.client_address_header",
            "must be x-forwarded-for or forwarded",
        ),
    };
    let keep_alive = reader.positive_duration("server.keep_alive", "75s");
    let max_connections = reader.integer("server.max_connections", "0", 0..=1_000_000_000);
    let cors_origins = reader.list("server.cors_origins");
    for origin in &cors_origins {
        if !Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin) {
            let message = format!("`{origin}` is no origin, such as https://console.example.com");
            reader.fault::<()>("server.cors_origins", &message);
        }
    }
    Some(Server {
        bind: bind?,
        admin_bind: admin_bind?,
        shutdown_timeout: shutdown_timeout?,
        request_timeout: request_timeout?,
        drain_delay: drain_delay?,
        tls,
        trusted_proxies,
        client_address_header: client_address_header?,
        keep_alive: keep_alive?,
        max_connections: usize::try_from(max_connections?)
            .ok()
            .filter(|most| *most > 0),
        cors_origins,
    })
}

/// The default region, and those that callers may name.
pub(super) fn regions(reader: &mut KeyReader) -> Option<(Region, Vec<Region>)> {
    let region = reader
        .text("upstream.region")
        .unwrap_or_else(|| "cn-wlcb".into());
    let region = match region.parse::<Region>() {
        Ok(region) => Some(region),
        Err(error) => reader.fault("upstream.region", &error.to_string()),
    };
    let mut regions = Vec::new();
    for text in reader.list("upstream.regions") {
        match text.parse::<Region>() {
            Ok(region) if regions.contains(&region) => {}
            Ok(region) => regions.push(region),
            Err(error) => {
                reader.fault::<()>("upstream.regions", &format!("`{text}` {error}"));
            }
        }
    }
    if let Some(region) = &region {
        if regions.is_empty() {
            regions.push(region.clone());
        } else if !regions.contains(region) {
            reader.fault::<()>(
                "upstream.regions",
                &format!("must contain upstream.region, `{region}`"),
            );
        }
    }
    Some((region?, regions))
}

/// Tokens that `--sandbox` prints are good for the sandbox alone: a real upstream behind them would obey whoever has read
/// the terminal.
pub(super) fn refuse_real_upstream(reader: &mut KeyReader) {
    for key in [
        "upstream.base_url",
        "upstream.public_key",
        "upstream.public_key_file",
        "upstream.private_key",
        "upstream.private_key_file",
    ] {
        if reader.is_given(key) {
            reader.fault::<()>(
                key,
                "cannot be set with --sandbox, which brings its own upstream",
            );
        }
    }
}

pub(super) fn upstream(reader: &mut KeyReader) -> Option<UpstreamSettings> {
    let base_url = reader
        .text("upstream.base_url")
        .unwrap_or_else(|| "https://api.compshare.cn".into());
    let base_url = match Url::parse(&base_url) {
        Ok(url) if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) => {
            Some(url)
        }
        Ok(url) if url.scheme() == "http" => reader.fault(
            "upstream.base_url",
            "must be https: requests are signed, but not kept secret or fresh",
        ),
        _ => reader.fault(
            "upstream.base_url",
            "must be a URL, such as https://api.compshare.cn",
        ),
    };
    let regions = regions(reader);
    let project_id = reader.text("upstream.project_id");
    let public_key = reader.required_secret("upstream.public_key");
    let private_key = reader.required_secret("upstream.private_key");
    let timeout = reader.positive_duration("upstream.timeout", "10s");
    let connect_timeout = reader.positive_duration("upstream.connect_timeout", "3s");
    let max_retries = reader.integer("upstream.max_retries", "3", 0..=100);
    let max_in_flight = reader.integer("upstream.max_in_flight", "64", 1..=10_000);
    let requests_per_second = reader.number("upstream.requests_per_second", "0");
    let zone = reader.text("upstream.zone");
    let proxy = upstream_proxy(reader, base_url.as_ref());
    let (region, regions) = regions?;
    Some(UpstreamSettings {
        base_url: base_url?,
        region,
        regions,
        project_id,
        public_key: public_key?,
        private_key: private_key?,
        timeout: timeout?,
        connect_timeout: connect_timeout?,
        max_retries: u32::try_from(max_retries?).ok()?,
        max_in_flight: usize::try_from(max_in_flight?).ok()?,
        requests_per_second: requests_per_second.filter(|rate| *rate > 0.0),
        zone,
        proxy: proxy?,
    })
}

/// The proxy for calls to the upstream. Plain HTTP is for loopback alone, and no proxy lies between.
#[expect(
    clippy::option_option,
    reason = "outer: whether it is right; inner: whether there is one"
)]
fn upstream_proxy(reader: &mut KeyReader, base_url: Option<&Url>) -> Option<Option<Proxy>> {
    const KEY: &str = "upstream.proxy";
    let direct = base_url.is_some_and(is_loopback);
    let proxy = match reader.text(KEY).as_deref() {
        Some(text) if text.eq_ignore_ascii_case("none") => Ok(None),
        Some(text) if !text.contains("://") => {
            Err("must be an HTTP proxy, such as http://proxy.example.com:3128, or none".into())
        }
        Some(text) => proxy_url(text).map(|url| Some(Proxy { url, except: None })),
        None if direct || reader.is_given(KEY) => Ok(None),
        None => {
            let named = reader.proxies.proxy(base_url);
            named.map_err(|why| format!("{why}; set upstream.proxy to another, or to none"))
        }
    };
    match proxy {
        Ok(proxy) => Some(proxy.filter(|_| !direct)),
        Err(message) => reader.fault(KEY, &message),
    }
}

pub(super) fn audit_database(reader: &mut KeyReader) -> Option<Audit> {
    let url = reader
        .secret("audit.database_url")
        .unwrap_or_else(|| "sqlite://data/audit.db".into());
    match trail_file(&url) {
        Ok(database) => Some(Audit { database }),
        Err(message) => reader.fault("audit.database_url", &message),
    }
}

/// The slowest rate of a bucket: below it a full one would take years to come back.
const RATE_MIN: f64 = 0.001;

pub(super) fn limits(reader: &mut KeyReader) -> Option<Limits> {
    let per_second = reader.number("limits.requests_per_second", "50");
    let burst = reader.integer("limits.burst", "100", 1..=1_000_000);
    let failed = reader.number("limits.failed_authentications_per_minute", "60");
    for (key, rate) in [
        ("limits.requests_per_second", per_second),
        ("limits.failed_authentications_per_minute", failed),
    ] {
        if rate.is_some_and(|rate| rate > 0.0 && rate < RATE_MIN) {
            reader.fault::<()>(
                key,
                &format!("must be 0, which turns it off, or at least {RATE_MIN}"),
            );
        }
    }
    let (per_second, burst, failed) = (per_second?, u32::try_from(burst?).ok()?, failed?);
    let on = |rate: &Rate| rate.per_second > 0.0;
    // A minute's worth may come at once.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 1 to a thousand million"
    )]
    let failed_at_once = failed.ceil().max(1.0) as u32;
    let failed = Rate {
        per_second: failed / 60.0,
        burst: failed_at_once,
    };
    Some(Limits {
        requests: Some(Rate { per_second, burst }).filter(on),
        failed_authentications: Some(failed).filter(on),
    })
}

pub(super) fn telemetry(reader: &mut KeyReader) -> Option<Telemetry> {
    let log_format = match reader.text("telemetry.log_format").as_deref() {
        Some("json") => Some(LogFormat::Json),
        Some("text") => Some(LogFormat::Text),
        None => Some(if std::io::stderr().is_terminal() {
            LogFormat::Text
        } else {
            LogFormat::Json
        }),
        Some(_) => reader.fault("telemetry.log_format", "must be json or text"),
    };
    if let Some(text) = reader.text("telemetry.otlp_endpoint")
        && !Url::parse(&text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
    {
        reader.fault::<()>("telemetry.otlp_endpoint", "must be a URL of http or https");
    }
    Some(Telemetry {
        log_format: log_format?,
    })
}
