//! Where a trail lies: in a file of SQLite, or in a database of PostgreSQL.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::values::without_secrets;

/// Where a trail lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrailPlace {
    /// In a file of SQLite.
    File(PathBuf),
    /// In a database of PostgreSQL.
    Server(ServerUrl),
}

impl TrailPlace {
    /// All of it, what is secret in it too; to be compared, never shown.
    pub(super) fn whole(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Server(url) => url.whole().to_owned(),
        }
    }
}

/// Prints without what is secret in it.
impl fmt::Display for TrailPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(url) => url.fmt(f),
        }
    }
}

/// The URL of a database of PostgreSQL. Prints without what is secret in it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// Whether a text is such a URL, right or not.
    #[must_use]
    pub fn looks_like(text: &str) -> bool {
        ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
    }

    /// All of it, for whoever connects.
    #[must_use]
    pub fn whole(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_secrets(&self.0))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads where a trail lies out of `sqlite://PATH` or `postgres://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?…]`.
///
/// # Errors
/// What a right one looks like.
pub fn trail_place(url: &str) -> Result<TrailPlace, String> {
    if !ServerUrl::looks_like(url) {
        return trail_file(url).map(TrailPlace::File);
    }
    match Url::parse(url) {
        Ok(parsed) if parsed.path().len() > 1 => Ok(TrailPlace::Server(ServerUrl(url.into()))),
        Ok(_) => Err("must name a database: postgres://HOST/DATABASE".into()),
        Err(_) => Err("must be a URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE".into()),
    }
}

/// Reads the SQLite file out of `sqlite://PATH` or `sqlite:PATH`.
pub(super) fn trail_file(url: &str) -> Result<PathBuf, String> {
    let rest = url
        .strip_prefix("sqlite://")
        .or_else(|| url.strip_prefix("sqlite:"));
    let path = rest.ok_or("must be sqlite://PATH or postgres://HOST/DATABASE")?;
    let path = path.strip_suffix("?mode=rwc").unwrap_or(path);
    if path.is_empty() || path == ":memory:" {
        return Err("must name a file: a trail in memory is gone with the process".into());
    }
    if path.contains(['?', '\0']) {
        return Err("takes no parameters".into());
    }
    Ok(path.into())
}
