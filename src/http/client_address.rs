//! Where a request came from: the peer's address, or what proxies say that are believed.
//!
//! Each proxy adds the address that it was called from at the right end of `Forwarded` (RFC 7239) or
//! `X-Forwarded-For`. So the headers are read from right to left, for as long as whoever wrote an entry is believed:
//! what stands left of that anybody could have sent. Where both headers are there and do not agree, one of them was
//! passed on unread, and nobody knows where the request came from.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// These networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// The client's address; `None` where both headers are there and do not agree: one of them anybody could have sent,
    /// and the proxy's own address, which policies may trust, is not the client's.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        if self.0.is_empty() || !self.trusts(peer) {
            return Some(peer);
        }
        let forwarded = entries(headers, &header::FORWARDED, elements, forwarded_for);
        let plain = |text: &str| text.split(',').map(str::to_owned).collect();
        let x_forwarded = entries(headers, &X_FORWARDED_FOR, plain, |entry| {
            address(entry.trim())
        });
        match (forwarded, x_forwarded) {
            (None, None) => Some(peer),
            (Some(entries), None) | (None, Some(entries)) => Some(self.walk(peer, entries)),
            (Some(one), Some(other)) => {
                let (one, other) = (self.walk(peer, one), self.walk(peer, other));
                (one == other).then_some(one)
            }
        }
    }

    /// From right to left, until an entry whose writer is not believed, or that is no address.
    fn walk(&self, peer: IpAddr, entries: Vec<Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        for entry in entries.into_iter().rev() {
            if !self.trusts(client) {
                break;
            }
            match entry {
                Some(ip) => client = ip,
                None => break,
            }
        }
        client
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
        let all = split(&text);
        let given = all.iter().filter(|entry| !entry.trim().is_empty());
        entries
            .get_or_insert_with(Vec::new)
            .extend(given.map(|entry| read(entry)));
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

    fn client(trusted: &[&str], peer: &str, headers: &[(&str, &str)]) -> String {
        let networks = trusted.iter().map(|text| text.parse().expect("a CIDR"));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                name.parse().expect("a name"),
                header::HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        TrustedProxies::new(networks.collect())
            .client(peer.parse().expect("an address"), &map)
            .map_or_else(|| "nobody knows".to_owned(), |ip| ip.to_string())
    }

    #[test]
    fn nobody_is_believed_unless_named() {
        let forged = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4")];
        assert_eq!(client(&[], "10.0.0.1", &forged), "10.0.0.1");
        assert_eq!(client(&["192.168.0.0/16"], "10.0.0.1", &forged), "10.0.0.1");
        assert_eq!(client(&[], "::ffff:10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn entries_are_read_from_right_to_left_as_far_as_their_writers_are_believed() {
        let trusted = ["10.0.0.0/8"];
        for (headers, expected) in [
            (vec![], "10.0.0.1"),
            (vec![("x-forwarded-for", "1.1.1.1")], "1.1.1.1"),
            // The client wrote the first entry itself.
            (vec![("x-forwarded-for", "6.6.6.6, 1.1.1.1")], "1.1.1.1"),
            (
                vec![("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.0.0.2")],
                "1.1.1.1",
            ),
            (
                vec![
                    ("x-forwarded-for", "6.6.6.6"),
                    ("x-forwarded-for", "1.1.1.1, 10.0.0.2"),
                ],
                "1.1.1.1",
            ),
            (vec![("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (vec![("x-forwarded-for", "1.1.1.1, unknown")], "10.0.0.1"),
            (vec![("x-forwarded-for", "1.1.1.1:4711")], "1.1.1.1"),
            (vec![("x-forwarded-for", "2001:db8::7")], "2001:db8::7"),
            (vec![("x-forwarded-for", "")], "10.0.0.1"),
            (
                vec![("forwarded", "for=1.1.1.1;proto=https;by=10.0.0.1")],
                "1.1.1.1",
            ),
            (
                vec![("forwarded", "For=\"[2001:db8::7]:4711\"")],
                "2001:db8::7",
            ),
            (
                vec![("forwarded", "for=6.6.6.6, for=1.1.1.1, for=10.0.0.9")],
                "1.1.1.1",
            ),
            (vec![("forwarded", "for=_hidden")], "10.0.0.1"),
            (vec![("forwarded", "for=\"a, for=6.6.6.6\"")], "10.0.0.1"),
            (vec![("forwarded", "for=6.6.6.6;for=1.1.1.1")], "10.0.0.1"),
            (
                vec![("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "1.1.1.1")],
                "1.1.1.1",
            ),
            // The proxy wrote one of them and passed the other on.
            (
                vec![("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "1.1.1.1")],
                "nobody knows",
            ),
            // What a client wrote cannot hide what its proxy put behind it.
            (vec![("x-forwarded-for", "\", 1.1.1.1")], "1.1.1.1"),
            (vec![("x-forwarded-for", "\u{e9}, 1.1.1.1")], "1.1.1.1"),
            (vec![("forwarded", "for=\"x, for=1.1.1.1")], "1.1.1.1"),
            (
                vec![("forwarded", "for=1.1.1.1;host=\"a, for=6.6.6.6\"")],
                "1.1.1.1",
            ),
        ] {
            assert_eq!(
                client(&trusted, "10.0.0.1", &headers),
                expected,
                "{headers:?}"
            );
        }
    }
}
