//! Section `server`: its keys' form, and how they depend on one another.

use std::net::SocketAddr;

use ipnet::IpNet;
use url::Url;

use super::reader::KeyReader;
use super::values::{PublicUrl, without_secrets};
use super::{ClientAddressHeader, Server, TlsFiles};

pub(super) fn server(reader: &mut KeyReader) -> Option<Server> {
    let bind = reader.address("server.bind");
    let admin_bind = reader.address_or_off("server.admin_bind");
    let shutdown_timeout = reader.duration("server.shutdown_timeout");
    let request_timeout = reader.positive_duration("server.request_timeout");
    let drain_delay = reader.duration("server.drain_delay");
    let tls = tls_files(reader);
    if tls.is_none() && bind.is_some_and(|bind| !bind.ip().is_loopback()) {
        reader.warn(
            "server.bind",
            "tokens come in the clear from other machines; TLS is by server.tls_cert_file, or in front",
        );
    }
    if let (Some(rest), Some(Some(admin))) = (bind, admin_bind)
        && meet(rest, admin)
    {
        let rest = reader.named("server.bind");
        reader.fault::<()>(
            "server.admin_bind",
            &format!("is where {rest} listens already"),
        );
    }
    if let Some(Some(admin)) = admin_bind
        && !admin.ip().is_loopback()
    {
        reader.warn(
            "server.admin_bind",
            "whoever reaches it sees numbers and what checks say; it asks nobody who he is",
        );
    }
    if tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some()) && admin_bind == Some(None) {
        reader.warn(
            "server.admin_bind",
            "is off and server.client_ca_file set: `healthcheck` has no certificate and nobody to ask",
        );
    }
    let mut trusted_proxies = Vec::new();
    for proxy in reader.list("server.trusted_proxies") {
        match proxy.parse::<IpNet>() {
            Ok(network) => {
                if network.prefix_len() < WIDEST_TRUSTED_PREFIX {
                    reader.warn("server.trusted_proxies", &format!("`{proxy}` is believed whatever it says of where requests come from, and so is whoever has an address in it"));
                }
                trusted_proxies.push(network);
            }
            Err(_) => {
                reader.fault::<()>(
                    "server.trusted_proxies",
                    &format!(
                        "`{}` is no CIDR, such as 10.0.0.0/8",
                        without_secrets(&proxy)
                    ),
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
    let keep_alive = reader.positive_duration("server.keep_alive");
    let max_connections = reader.integer("server.max_connections", 0..=1_000_000_000);
    let cors_origins = reader.list("server.cors_origins");
    for origin in &cors_origins {
        if !Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin) {
            let origin = without_secrets(origin);
            let message = format!("`{origin}` is no origin, such as https://console.example.com");
            reader.fault::<()>("server.cors_origins", &message);
        }
    }
    let public_url = public_url(reader);
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
        public_url,
        cors_origins,
    })
}

/// Whether two listeners cannot have their addresses at once.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let any = |address: &SocketAddr| address.ip().is_unspecified();
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || any(&one) || any(&other))
}

/// Networks larger than this are hardly those of somebody's proxies.
const WIDEST_TRUSTED_PREFIX: u8 = 8;

fn tls_files(reader: &mut KeyReader) -> Option<TlsFiles> {
    const CERT: &str = "server.tls_cert_file";
    const KEY: &str = "server.tls_key_file";
    const CLIENT_CA: &str = "server.client_ca_file";
    let [cert_file, key_file, client_ca_file] = [CERT, KEY, CLIENT_CA].map(|key| reader.path(key));
    let given = [CERT, KEY].map(|key| (key, reader.is_given(key)));
    match given {
        [(given, true), (missing, false)] | [(missing, false), (given, true)] => {
            let given = reader.named(given);
            reader.fault::<()>(missing, &format!("is required with {given}"));
        }
        [(_, false), (_, false)] if reader.is_given(CLIENT_CA) => {
            let message = format!("is for TLS alone: {CERT} and {KEY} are required with it");
            reader.fault::<()>(CLIENT_CA, &message);
        }
        _ => {}
    }
    let without_authority = reader.is_given(CLIENT_CA) && client_ca_file.is_none();
    let (cert_file, key_file) = cert_file.zip(key_file).filter(|_| !without_authority)?;
    let files = TlsFiles {
        cert_file,
        key_file,
        client_ca_file,
    };
    match reader.check_tls(&files) {
        Ok(warnings) => warnings
            .into_iter()
            .for_each(|warning| reader.warn(CERT, &warning)),
        Err((key, message)) => return reader.fault(key, &message),
    }
    Some(files)
}

fn public_url(reader: &mut KeyReader) -> Option<PublicUrl> {
    const KEY: &str = "server.public_url";
    let text = reader.text(KEY)?;
    match text.parse::<PublicUrl>() {
        Ok(url) => {
            if !url.is_https() {
                reader.warn(KEY, "is not https: tokens come in the clear");
            }
            Some(url)
        }
        Err(message) => reader.fault(KEY, &message),
    }
}
