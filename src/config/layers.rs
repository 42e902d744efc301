//! The layers that configuration is made of, and the files they come from.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use super::Fault;

const PREFIX: &str = "ISG__";
const BYTE_ORDER_MARK: char = '\u{feff}';
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Every key there is, so that a command which reads some of them still refuses unknown ones.
const KEYS: [&str; 48] = [
    "server.bind",
    "server.admin_bind",
    "server.shutdown_timeout",
    "server.request_timeout",
    "server.drain_delay",
    "server.tls_cert_file",
    "server.tls_key_file",
    "server.trusted_proxies",
    "server.client_address_header",
    "server.keep_alive",
    "server.max_connections",
    "server.cors_origins",
    "auth.issuer",
    "auth.audience",
    "auth.jwks_file",
    "auth.jwks_url",
    "auth.oidc_discovery",
    "auth.leeway",
    "auth.scope_claims",
    "auth.scopes",
    "auth.groups_claim",
    "auth.policy_claims",
    "auth.fetch_ca_file",
    "auth.fetch_token_file",
    ISSUERS,
    "authorization.policy_file",
    "upstream.base_url",
    "upstream.region",
    "upstream.regions",
    "upstream.project_id",
    "upstream.public_key",
    "upstream.public_key_file",
    "upstream.private_key",
    "upstream.private_key_file",
    "upstream.timeout",
    "upstream.connect_timeout",
    "upstream.max_retries",
    "upstream.max_in_flight",
    "upstream.requests_per_second",
    "upstream.zone",
    "upstream.proxy",
    "audit.database_url",
    "audit.database_url_file",
    "limits.requests_per_second",
    "limits.burst",
    "limits.failed_authentications_per_minute",
    "telemetry.log_format",
    "telemetry.otlp_endpoint",
];

/// The key whose tables are further issuers.
pub(super) const ISSUERS: &str = "auth.issuers";
/// Keys of each table of `auth.issuers` beside those of `auth`.
const OF_FURTHER_ISSUERS: [&str; 2] = ["name", "grant"];
/// Keys of `auth` that its further issuers do not have.
const OF_THE_FIRST_ISSUER: [&str; 2] = ["auth.leeway", ISSUERS];

pub(super) fn is_key(key: &str) -> bool {
    KEYS.contains(&key)
}

/// Whether `name` is a key of the tables of `auth.issuers`.
pub(super) fn is_key_of_issuer(name: &str) -> bool {
    let of_auth = format!("auth.{name}");
    OF_FURTHER_ISSUERS.contains(&name)
        || (is_key(&of_auth) && !OF_THE_FIRST_ISSUER.contains(&of_auth.as_str()))
}

/// The key of the list that a key of a further issuer's table is like: `auth.issuers.ci.jwks_file` is `auth.jwks_file`.
pub(super) fn like(key: &str) -> String {
    let in_table = key
        .strip_prefix(ISSUERS)
        .filter(|rest| rest.starts_with(['.', '[']));
    match in_table.and_then(|rest| rest[1..].split_once('.')) {
        Some((_, name)) => format!("auth.{name}"),
        None => key.to_owned(),
    }
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) value: toml::Value,
    pub(super) origin: String,
}

/// One layer: values by key.
pub(super) type Layer = BTreeMap<String, Given>;

pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Keys to which empty text means something. Any other that the environment gives so is not set, whatever a file says.
const MAY_BE_EMPTY: [&str; 1] = ["server.admin_bind"];

/// What the environment sets, and which keys it takes back from the file.
pub(super) struct Environment {
    pub(super) layer: Layer,
    pub(super) unset: Vec<String>,
}

pub(super) fn environment_layer(
    environment: &BTreeMap<String, String>,
    faults: &mut Vec<Fault>,
) -> Environment {
    let (mut layer, mut unset) = (Layer::new(), Vec::new());
    for (name, text) in environment
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
    {
        let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        if !is_key(&key) || variable(&key) != *name {
            faults.push(Fault {
                key: name.clone(),
                origin: None,
                message: "is no variable of the gateway".into(),
            });
        } else if text.is_empty() && !MAY_BE_EMPTY.contains(&key.as_str()) {
            unset.push(key);
        } else {
            let given = Given {
                value: toml::Value::String(text.clone()),
                origin: format!("environment {name}"),
            };
            layer.insert(key, given);
        }
    }
    Environment { layer, unset }
}

pub(super) fn file_layer(path: &Path, faults: &mut Vec<Fault>) -> Layer {
    let name = path.display().to_string();
    let text = match read_text_file(path) {
        Ok(text) => text,
        Err(message) => {
            faults.push(Fault {
                key: name,
                origin: None,
                message,
            });
            return Layer::new();
        }
    };
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            // The library's rendering quotes the line, which may hold a secret.
            let line = error
                .span()
                .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line
                .map(|line| format!(" at line {line}"))
                .unwrap_or_default();
            let message = format!("is not TOML{place}: {}", error.message());
            faults.push(Fault {
                key: name,
                origin: None,
                message,
            });
            return Layer::new();
        }
    };
    let mut layer = Layer::new();
    for (section, content) in table {
        let toml::Value::Table(content) = content else {
            faults.push(Fault {
                key: section,
                origin: Some(name.clone()),
                message: "is no key of the gateway".into(),
            });
            continue;
        };
        let prefix = format!("{section}.");
        if !KEYS.iter().any(|key| key.starts_with(&prefix)) {
            faults.push(Fault {
                key: section,
                origin: Some(name.clone()),
                message: "is no section of the gateway".into(),
            });
            continue;
        }
        for (key, value) in content {
            let key = format!("{section}.{key}");
            if is_key(&key) {
                layer.insert(
                    key,
                    Given {
                        value,
                        origin: name.clone(),
                    },
                );
            } else {
                faults.push(Fault {
                    key,
                    origin: Some(name.clone()),
                    message: "is no key of the gateway".into(),
                });
            }
        }
    }
    layer
}

/// Reads a small text file in UTF-8, without the byte order mark that editors of Windows put before it.
///
/// # Errors
/// Why it cannot be read, in words for an operator.
pub fn read_text_file(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {}", reason(&error));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    let is_utf_16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let mut text = String::from_utf8(bytes).map_err(|_| {
        if is_utf_16 {
            "is UTF-16 text; save it as UTF-8"
        } else {
            "is not UTF-8 text"
        }
    })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

/// Whether whoever is on the machine may read a file.
#[must_use]
pub fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map(|file| file.permissions().mode());
    mode.is_ok_and(|mode| mode & 0o004 != 0)
}

pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let text = read_text_file(path).map_err(|message| format!("`{}` {message}", path.display()))?;
    let secret = text.trim();
    if secret.is_empty() {
        Err(format!("`{}` is empty", path.display()))
    } else {
        Ok(secret.to_owned())
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_key_is_listed_twice() {
        assert_eq!(KEYS.into_iter().collect::<BTreeSet<_>>().len(), KEYS.len());
    }
}
