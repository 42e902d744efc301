//! Links to the gateway itself, as whoever asks can follow them.
//!
//! A proxy may take a prefix off before the gateway sees a path, and the gateway does not know it. So without
//! `server.public_url` links are relative to what was asked for, and with it they are whole.

use actix_web::HttpRequest;

use crate::config::PublicUrl;

/// Makes links.
#[derive(Debug, Clone)]
pub struct Links {
    public_url: Option<PublicUrl>,
}

impl Links {
    /// Where callers reach the gateway, where that is known.
    #[must_use]
    pub fn new(public_url: Option<PublicUrl>) -> Self {
        Self { public_url }
    }

    /// A `Link` header's value (RFC 8288): what `request` asked for, with another query.
    pub(in crate::http) fn next(&self, request: &HttpRequest, query: &str) -> String {
        let path = match &self.public_url {
            Some(url) => url.join(request.path()),
            None => String::new(),
        };
        format!("<{path}?{query}>; rel=\"next\"")
    }

    /// Where `path` is, for whoever asked for `/`.
    pub(in crate::http) fn below_root(&self, path: &str) -> String {
        match &self.public_url {
            Some(url) => url.join(path),
            None => path.trim_start_matches('/').to_owned(),
        }
    }

    /// The server of the document: where it is known, else where the document lies itself.
    pub(in crate::http) fn server(&self) -> String {
        let known = self.public_url.as_ref();
        known.map_or_else(|| ".".to_owned(), ToString::to_string)
    }
}
