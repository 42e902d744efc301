//! Where a request came from: the peer's address, or what proxies say that are believed.
//!
//! Each proxy adds the address that it was called from at the right end of one header, `X-Forwarded-For` or `Forwarded`
//! (RFC 7239). Which of them is configuration; the other is never looked at, since a proxy that writes the one passes
//! the other on as its client sent it. The header is read from right to left, for as long as whoever wrote an entry is
//! believed: what stands left of that anybody could have sent.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::config::ClientAddressHeader;
use crate::http::wire::Problem;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies that are believed, and the header in which they say where a request came from.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: ClientAddressHeader,
}

/// Where a request came from, as it was found when it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress {
    /// Who is at the other end of the connection.
    pub(super) peer: IpAddr,
    /// Who asked.
    pub(super) client: Result<IpAddr, NoAddress>,
}

impl ClientAddress {
    /// The best that can be said.
    pub(super) fn told(&self) -> IpAddr {
        self.client.unwrap_or(self.peer)
    }
}

/// The believed header names no address where one is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("names no address where one is needed: that of the caller of a trusted proxy")]
pub(super) struct NoAddress {
    header: ClientAddressHeader,
}

impl From<NoAddress> for Problem {
    fn from(error: NoAddress) -> Self {
        let name = match error.header {
            ClientAddressHeader::XForwardedFor => "X-Forwarded-For",
            ClientAddressHeader::Forwarded => "Forwarded",
        };
        Self::invalid_value("header", name, error.to_string())
    }
}

impl TrustedProxies {
    /// These networks, and the one header of theirs that is believed.
    #[must_use]
    pub fn new(networks: Vec<IpNet>, header: ClientAddressHeader) -> Self {
        Self { networks, header }
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// The client's address.
    ///
    /// # Errors
    /// [`NoAddress`]: the proxy's own, which policies may trust, is not its client's.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, NoAddress> {
        let peer = peer.to_canonical();
        if self.networks.is_empty() || !self.trusts(peer) {
            return Ok(peer);
        }
        let entries = match self.header {
            ClientAddressHeader::Forwarded => {
                entries(headers, &header::FORWARDED, elements, forwarded_for)
            }
            ClientAddressHeader::XForwardedFor => {
                let split = |text: &str| text.split(',').map(str::to_owned).collect();
                entries(headers, &X_FORWARDED_FOR, split, |entry| {
                    address(entry.trim())
                })
            }
        };
        match entries {
            None => Ok(peer),
            Some(entries) => self.walk(peer, entries).ok_or(NoAddress {
                header: self.header,
            }),
        }
    }

    /// From right to left, until an entry whose writer is not believed.
    fn walk(&self, peer: IpAddr, entries: Vec<Option<IpAddr>>) -> Option<IpAddr> {
        if entries.is_empty() {
            return None;
        }
        let mut client = peer;
        for entry in entries.into_iter().rev() {
            if !self.trusts(client) {
                break;
            }
            client = entry?;
        }
        Some(client)
    }
}

/// The entries of a list header from left to right, `None` for those without an address.
fn entries(
    headers: &HeaderMap,
    name: &HeaderName,
    split: impl Fn(&str) -> Vec<String>,
    read: impl Fn(&str) -> Option<IpAddr>,
) -> Option<Vec<Option<IpAddr>>> {
    let mut entries = None;
    for value in headers.get_all(name) {
        // What a client put there may be any bytes; what its proxy put behind it can be read all the same.
        let text = String::from_utf8_lossy(value.as_bytes());
        // An empty one too is what some proxy wrote for an address.
        let all = split(&text);
        entries
            .get_or_insert_with(Vec::new)
            .extend(all.iter().map(|entry| read(entry)));
    }
    entries
}

/// The elements of `Forwarded`, split outside of quotes. Quotes are paired from the right: one that a client left
/// open cannot swallow what a proxy put behind it.
fn elements(text: &str) -> Vec<String> {
    let mut quoted = false;
    let between = |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    let mut elements: Vec<String> = text.rsplit(between).map(str::to_owned).collect();
    elements.reverse();
    elements
}

/// The `for` of one element (RFC 7239, section 4): `for=192.0.2.43`, `for="[2001:db8::17]:4711"`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    // Escapes would make quotes ambiguous; no address needs them.
    if element.contains('\\') {
        return None;
    }
    let mut quoted = false;
    let between = |c: char| {
        quoted ^= c == '"';
        c == ';' && !quoted
    };
    let mut nodes = element.split(between).filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("for")
            .then_some(value.trim())
    });
    let node = nodes.next()?;
    if nodes.next().is_some() {
        return None;
    }
    let node = node
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(node);
    address(node)
}

/// An address with or without a port; an IPv6 address in brackets or bare.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse::<IpAddr>()
        .ok()
        .or_else(with_port)
        .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(
        header: ClientAddressHeader,
        trusted: &[&str],
        peer: &str,
        headers: &[(&str, &str)],
    ) -> String {
        let networks = trusted.iter().map(|text| text.parse().expect("a CIDR"));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                name.parse().expect("a name"),
                header::HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        TrustedProxies::new(networks.collect(), header)
            .client(peer.parse().expect("an address"), &map)
            .map_or_else(|_| "none".to_owned(), |ip| ip.to_string())
    }

    const X: ClientAddressHeader = ClientAddressHeader::XForwardedFor;
    const F: ClientAddressHeader = ClientAddressHeader::Forwarded;

    #[test]
    fn nobody_is_believed_unless_named() {
        let forged = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4")];
        for header in [X, F] {
            assert_eq!(client(header, &[], "10.0.0.1", &forged), "10.0.0.1");
            let elsewhere = ["192.168.0.0/16"];
            assert_eq!(client(header, &elsewhere, "10.0.0.1", &forged), "10.0.0.1");
            assert_eq!(client(header, &[], "::ffff:10.0.0.1", &[]), "10.0.0.1");
        }
    }

    #[test]
    fn the_other_header_is_never_looked_at() {
        let both = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=2.2.2.2")];
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client(X, &trusted, "10.0.0.1", &both), "1.1.1.1");
        assert_eq!(client(F, &trusted, "10.0.0.1", &both), "2.2.2.2");
        assert_eq!(client(X, &trusted, "10.0.0.1", &both[1..]), "10.0.0.1");
        assert_eq!(client(F, &trusted, "10.0.0.1", &both[..1]), "10.0.0.1");
    }

    #[test]
    fn entries_are_read_from_right_to_left_as_far_as_their_writers_are_believed() {
        for (values, expected) in [
            (vec![], "10.0.0.1"),
            (vec!["1.1.1.1"], "1.1.1.1"),
            // The client wrote the first entry itself.
            (vec!["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (vec!["unknown, 1.1.1.1"], "1.1.1.1"),
            (vec!["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            (vec!["6.6.6.6", "1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            (vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (vec!["1.1.1.1:4711"], "1.1.1.1"),
            (vec!["2001:db8::7"], "2001:db8::7"),
            // What its proxy wrote cannot be read: it is not known who asks.
            (vec!["1.1.1.1, unknown"], "none"),
            (vec!["1.1.1.1, unknown, 10.0.0.2"], "none"),
            (vec!["unknown"], "none"),
            (vec![""], "none"),
            (vec![" , "], "none"),
            (vec!["6.6.6.6, "], "none"),
            (vec!["6.6.6.6", ""], "none"),
            (vec!["", "1.1.1.1"], "1.1.1.1"),
            // What a client wrote cannot hide what its proxy put behind it.
            (vec!["\", 1.1.1.1"], "1.1.1.1"),
            (vec!["\u{e9}, 1.1.1.1"], "1.1.1.1"),
        ] {
            let headers: Vec<_> = values
                .into_iter()
                .map(|value| ("x-forwarded-for", value))
                .collect();
            let found = client(X, &["10.0.0.0/8"], "10.0.0.1", &headers);
            assert_eq!(found, expected, "{headers:?}");
        }
    }

    #[test]
    fn elements_of_forwarded_are_read_as_rfc_7239_writes_them() {
        for (value, expected) in [
            ("for=1.1.1.1;proto=https;by=10.0.0.1", "1.1.1.1"),
            ("For=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            ("for=6.6.6.6, for=1.1.1.1, for=10.0.0.9", "1.1.1.1"),
            ("for=unknown", "none"),
            ("for=_hidden", "none"),
            ("for=\"a, for=6.6.6.6\"", "none"),
            ("for=6.6.6.6;for=1.1.1.1", "none"),
            ("proto=https", "none"),
            ("for=\"x, for=1.1.1.1", "1.1.1.1"),
            ("for=1.1.1.1;host=\"a, for=6.6.6.6\"", "1.1.1.1"),
        ] {
            let found = client(F, &["10.0.0.0/8"], "10.0.0.1", &[("forwarded", value)]);
            assert_eq!(found, expected, "{value}");
        }
    }
}
