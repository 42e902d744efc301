//! The configuration as it takes effect, for people: each value with where it came from, and no secret.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::keys::{ISSUERS, KEYS, Key, OF_FURTHER_ISSUERS, Unset, is_key_of_issuer, value};
use super::layers::Given;
use super::reader::{KeyReader, list_of};
use super::values::{REDACTED, shown_path, without_secrets};
use super::{Audit, Config, Fault, Sources};
use toml::Value;

/// Where origins stand, unless a value is longer.
const ORIGIN_COLUMN: usize = 44;

/// What `serve` would make of its configuration.
#[derive(Debug)]
pub struct Checked {
    /// The values that take effect, as TOML, each with its origin.
    pub effective: String,
    /// What is allowed and unwise.
    pub warnings: Vec<String>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl Config {
    /// Looks at everything that `serve` would need, opens no connection and no database, and says what takes effect.
    #[must_use]
    pub fn check(sources: &Sources) -> Checked {
        let (reader, config) = Self::read(sources, false);
        let faults = reader.faults();
        let proxy = config.ok().and_then(|config| config.upstream.proxy);
        let (of_environment, _) = reader.proxies.named().unzip();
        let of_environment = of_environment.filter(|_| proxy.is_some());
        Checked {
            effective: effective(&reader, of_environment),
            warnings: reader.warnings(),
            faults,
        }
    }
}

/// Values by key, as text that is compared and never shown.
pub(super) type FixedValues = BTreeMap<&'static str, String>;

/// The values of all keys that a reload does not read again.
pub(super) fn fixed_values(reader: &KeyReader, audit: Option<&Audit>) -> FixedValues {
    let fixed = KEYS
        .iter()
        .filter(|key| !key.reloaded && key.place().0 != "auth");
    let value = |key: &'static Key| {
        let value = match (key.secret, audit) {
            // A secret may come from a file, which says what it is.
            (true, Some(audit)) => audit.database.whole(),
            _ => reader
                .find(key.name)
                .map(|given| in_form_of(key, given).to_string())
                .unwrap_or_default(),
        };
        (key.name, value)
    };
    fixed.map(value).collect()
}

/// All sections. `proxy_variable` names the proxy for calls where the configuration does not.
fn effective(reader: &KeyReader, proxy_variable: Option<&'static str>) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in &KEYS {
        let (of, name) = key.place();
        if of != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{gap}[{of}]");
            section = of;
        }
        if key.name == ISSUERS {
            continue;
        }
        match (reader.shown(key), proxy_variable) {
            (Some((name, given)), _) => line(&mut text, &name, &shown(key, &name, given), given),
            (None, Some(variable)) if key.name == "upstream.proxy" => {
                let _ = writeln!(text, "# {name}: that of {variable}");
            }
            (None, _) => {
                let words = match key.unset {
                    Unset::Default(_) | Unset::Required(_) => "required",
                    Unset::Otherwise { words, .. } => words,
                };
                let _ = writeln!(text, "# {name} is not set: {words}");
            }
        }
        if key.name == LAST_OF_AUTH {
            issuers(&mut text, reader);
        }
    }
    text
}

/// Tables of an array stand behind all keys of the section itself.
const LAST_OF_AUTH: &str = "auth.fetch_token_file";

fn issuers(text: &mut String, reader: &KeyReader) {
    for place in reader.places() {
        let _ = writeln!(text, "\n[[{ISSUERS}]]");
        for name in OF_FURTHER_ISSUERS {
            if let Some(given) = reader.find(&format!("{place}.{name}")) {
                line(text, name, &plain(&given.value), given);
            }
        }
        let of_auth = KEYS.iter().filter(|key| key.place().0 == "auth");
        let of_auth = of_auth.map(|key| (key, key.place().1));
        for (key, name) in of_auth.filter(|(_, name)| is_key_of_issuer(name)) {
            if let Some(given) = reader.find(&format!("{place}.{name}")) {
                line(text, name, &shown(key, key.name, given), given);
            }
        }
    }
}

fn line(text: &mut String, name: &str, value: &Value, given: &Given) {
    let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
    let setting = format!("{name} = {value}");
    let _ = writeln!(text, "{setting:ORIGIN_COLUMN$} # {}", given.origin);
}

/// A value as it is shown: in the form of its key, whatever form it came in, and without what may be secret.
fn shown(key: &Key, name: &str, given: &Given) -> Value {
    if key.secret && name == key.name && !is_sqlite(&given.value) {
        return Value::String(REDACTED.into());
    }
    match &given.value {
        Value::String(path) if name.ends_with("_file") => Value::String(shown_path(path)),
        _ => plain(&in_form_of(key, given)),
    }
}

/// The place of a trail is secret where it may hold a password.
fn is_sqlite(value: &Value) -> bool {
    value.as_str().is_some_and(|url| url.starts_with("sqlite:"))
}

/// Lists, numbers and tables come as text from the environment.
fn in_form_of(key: &Key, given: &Given) -> Value {
    let Value::String(text) = &given.value else {
        return given.value.clone();
    };
    let same_kind = |found: &Value, form: &Value| found.same_type(form);
    match value(key.example()) {
        Some(Value::Array(_)) => {
            let items = list_of(&given.value).unwrap_or_default();
            Value::Array(items.into_iter().map(Value::String).collect())
        }
        Some(Value::String(_)) | None => given.value.clone(),
        Some(form) => {
            let parsed = value(text).filter(|found| same_kind(found, &form));
            parsed.unwrap_or_else(|| given.value.clone())
        }
    }
}

/// Without users, passwords and queries of URLs.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_secrets(text)),
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        Value::Table(table) => {
            let entries = table
                .iter()
                .map(|(name, value)| (name.clone(), plain(value)));
            Value::Table(entries.collect())
        }
        other => other.clone(),
    }
}
