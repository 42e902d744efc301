//! Layers defaults, file and environment, and gathers every fault with its key and origin.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::values::parse_duration;
use super::{Fault, FileCheck, Sources};

const PREFIX: &str = "ISG__";
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Every key of the contract, so that a command which reads some of them still refuses unknown ones.
const KEYS: [&str; 37] = [
    "server.bind",
    "server.admin_bind",
    "server.shutdown_timeout",
    "server.request_timeout",
    "server.drain_delay",
    "server.tls_cert_file",
    "server.tls_key_file",
    "server.trusted_proxies",
    "server.cors_origins",
    "auth.issuer",
    "auth.audience",
    "auth.jwks_file",
    "auth.jwks_url",
    "auth.oidc_discovery",
    "auth.leeway",
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
    "audit.database_url",
    "audit.database_url_file",
    "limits.requests_per_second",
    "limits.burst",
    "limits.failed_authentications_per_minute",
    "telemetry.log_format",
    "telemetry.otlp_endpoint",
];

fn is_key(key: &str) -> bool {
    KEYS.contains(&key)
}

/// A value and where it came from.
#[derive(Debug, Clone)]
struct Given {
    value: toml::Value,
    origin: String,
}

/// One layer: values by key.
type Layer = BTreeMap<String, Given>;

pub(super) struct Reader {
    /// Highest first.
    layers: [Layer; 3],
    file_checks: Vec<(&'static str, FileCheck)>,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(sources: &Sources) -> Self {
        let mut faults = Vec::new();
        let environment = environment_layer(&sources.environment, &mut faults);
        let file = sources
            .file
            .as_deref()
            .map(|path| file_layer(path, &mut faults))
            .unwrap_or_default();
        let text = |text: &String| Given {
            value: toml::Value::String(text.clone()),
            origin: "sandbox".into(),
        };
        let defaults = sources
            .defaults
            .iter()
            .map(|(key, value)| ((*key).to_owned(), text(value)))
            .collect();
        Self {
            layers: [environment, file, defaults],
            file_checks: sources.file_checks.clone(),
            faults,
        }
    }

    /// Ends the reading: all faults, in the order in which they were found.
    pub(super) fn finish(self) -> Vec<Fault> {
        self.faults
    }

    /// The faults that matter to who reads keys with `prefix` alone: theirs, and those of whole layers.
    pub(super) fn faults_of(self, prefix: &str) -> Vec<Fault> {
        let concerns = |fault: &Fault| fault.key.starts_with(prefix) || !is_key(&fault.key);
        self.faults.into_iter().filter(concerns).collect()
    }

    /// Whether a file or the environment sets `key`, or a key of the section `key`.
    pub(super) fn is_given(&self, key: &str) -> bool {
        let within = |name: &String| {
            name == key
                || name
                    .strip_prefix(key)
                    .is_some_and(|rest| rest.starts_with('.'))
        };
        self.layers[..2]
            .iter()
            .any(|layer| layer.keys().any(within))
    }

    /// Notes that `key` is wrong, with the origin of its value if it has one.
    pub(super) fn fault<T>(&mut self, key: &str, message: &str) -> Option<T> {
        let origin = self.find(key).map(|given| given.origin.clone());
        self.faults.push(Fault {
            key: key.into(),
            origin,
            message: message.into(),
        });
        None
    }

    fn find(&self, key: &str) -> Option<&Given> {
        self.layers.iter().find_map(|layer| layer.get(key))
    }

    /// Text; `None` where it is not set or not text. Empty text from the environment counts as text.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.find(key)?.value.clone() {
            toml::Value::String(text) if text.is_empty() => self.fault(key, "must not be empty"),
            toml::Value::String(text) => Some(text),
            _ => self.fault(key, "must be text, in quotes"),
        }
    }

    pub(super) fn required(&mut self, key: &str) -> Option<String> {
        if self.find(key).is_none() {
            self.fault(key, &is_required(key))
        } else {
            self.text(key)
        }
    }

    /// The path of a file that was looked at, where somebody knows how.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let path = self.text(key).map(PathBuf::from)?;
        let mut checks = self.file_checks.iter().filter(|(of, _)| *of == key);
        match checks.try_for_each(|(_, check)| check(&path)) {
            Ok(()) => Some(path),
            Err(message) => self.fault(key, &format!("`{}` {message}", path.display())),
        }
    }

    /// A secret from `key` or the file that `key_file` names; the higher layer wins.
    pub(super) fn secret(&mut self, key: &str) -> Option<String> {
        let file_key = format!("{key}_file");
        for index in 0..self.layers.len() {
            let layer = &self.layers[index];
            match (layer.contains_key(key), layer.get(&file_key).cloned()) {
                (true, Some(_)) => {
                    return self.fault(&file_key, &format!("cannot be set together with {key}"));
                }
                (true, None) => return self.text(key),
                (false, Some(given)) => {
                    let toml::Value::String(path) = given.value else {
                        return self.fault(&file_key, "must be text, in quotes");
                    };
                    return match read_secret(Path::new(&path)) {
                        Ok(secret) => Some(secret),
                        Err(message) => self.fault(&file_key, &message),
                    };
                }
                (false, None) => {}
            }
        }
        None
    }

    pub(super) fn required_secret(&mut self, key: &str) -> Option<SecretString> {
        let faults_before = self.faults.len();
        let secret = self.secret(key);
        if secret.is_none() && self.faults.len() == faults_before {
            return self.fault(key, &is_required(key));
        }
        secret.map(SecretString::from)
    }

    /// A scalar as text, whatever TOML type it has.
    fn scalar(&mut self, key: &str, default: &str) -> Option<String> {
        match self.find(key).map(|given| given.value.clone()) {
            None => Some(default.to_owned()),
            Some(toml::Value::String(text)) => Some(text),
            Some(toml::Value::Integer(number)) => Some(number.to_string()),
            Some(toml::Value::Float(number)) => Some(number.to_string()),
            Some(toml::Value::Boolean(truth)) => Some(truth.to_string()),
            Some(_) => self.fault(key, "must be a single value"),
        }
    }

    pub(super) fn duration(&mut self, key: &str, default: &str) -> Option<Duration> {
        let text = self.scalar(key, default)?;
        parse_duration(&text).map_or_else(|message| self.fault(key, &message), Some)
    }

    pub(super) fn positive_duration(&mut self, key: &str, default: &str) -> Option<Duration> {
        match self.duration(key, default)? {
            Duration::ZERO => self.fault(key, "must be longer than zero"),
            duration => Some(duration),
        }
    }

    pub(super) fn boolean(&mut self, key: &str, default: &str) -> Option<bool> {
        match self.scalar(key, default)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => self.fault(key, "must be true or false"),
        }
    }

    pub(super) fn integer(
        &mut self,
        key: &str,
        default: &str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let number = self
            .scalar(key, default)?
            .parse::<u64>()
            .ok()
            .filter(|number| range.contains(number));
        let message = || {
            format!(
                "must be an integer from {} to {}",
                range.start(),
                range.end()
            )
        };
        number.or_else(|| self.fault(key, &message()))
    }

    pub(super) fn number(&mut self, key: &str, default: &str) -> Option<f64> {
        let number = self.scalar(key, default)?.parse::<f64>().ok();
        let number = number.filter(|number| number.is_finite() && (0.0..=1e9).contains(number));
        number.or_else(|| self.fault(key, "must be a number from 0 up; 0 turns it off"))
    }

    pub(super) fn address(&mut self, key: &str, default: &str) -> Option<SocketAddr> {
        let address = self.scalar(key, default)?.parse().ok();
        address.or_else(|| self.fault(key, "must be an address and a port, such as 127.0.0.1:8080"))
    }

    /// An address, or nothing where it is empty.
    #[expect(
        clippy::option_option,
        reason = "outer: whether it is right; inner: whether it is on"
    )]
    pub(super) fn address_or_off(
        &mut self,
        key: &str,
        default: &str,
    ) -> Option<Option<SocketAddr>> {
        match self.scalar(key, default)?.as_str() {
            "" => Some(None),
            _ => self.address(key, default).map(Some),
        }
    }

    /// A list: an array of text, or one text split at commas.
    pub(super) fn list(&mut self, key: &str) -> Vec<String> {
        let trimmed = |text: &str| text.trim().to_owned();
        let items: Option<Vec<String>> = match self.find(key).map(|given| given.value.clone()) {
            None => return Vec::new(),
            Some(toml::Value::String(text)) => Some(text.split(',').map(trimmed).collect()),
            Some(toml::Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(trimmed))
                .collect(),
            Some(_) => None,
        };
        match items {
            Some(items) => items.into_iter().filter(|item| !item.is_empty()).collect(),
            None => self
                .fault(key, "must be a list of texts")
                .unwrap_or_default(),
        }
    }
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

fn is_required(key: &str) -> String {
    format!("is required (in the file, or as {})", variable(key))
}

fn environment_layer(environment: &BTreeMap<String, String>, faults: &mut Vec<Fault>) -> Layer {
    let mut layer = Layer::new();
    for (name, text) in environment
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
    {
        let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        if is_key(&key) && variable(&key) == *name {
            let given = Given {
                value: toml::Value::String(text.clone()),
                origin: format!("environment {name}"),
            };
            layer.insert(key, given);
        } else {
            faults.push(Fault {
                key: name.clone(),
                origin: None,
                message: "is no variable of the gateway".into(),
            });
        }
    }
    layer
}

fn file_layer(path: &Path, faults: &mut Vec<Fault>) -> Layer {
    let name = path.display().to_string();
    let text = match read_bounded(path) {
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

/// Reads a small text file.
///
/// # Errors
/// Why it cannot be read, in words for an operator.
pub fn read_bounded(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {}", reason(&error));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

fn read_secret(path: &Path) -> Result<String, String> {
    let text = read_bounded(path).map_err(|message| format!("`{}` {message}", path.display()))?;
    let secret = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |cut| cut.strip_suffix('\r').unwrap_or(cut));
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
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
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
