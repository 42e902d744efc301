//! Reads keys out of the layers, highest first, and gathers every fault with its key and origin.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::keys::{ISSUERS, KEYS, Key, default_of, is_key, like};
use super::layers::{Given, Layer, Lines, Origin, environment_layer, file_layer, variable};
use super::proxy::ProxyVariables;
use super::values::{parse_duration, shown_path};
use super::{Fault, FileCheck, Sources, TlsCheck, TlsFiles};

pub(super) struct KeyReader {
    /// What somebody set, highest first.
    pub(super) layers: [Layer; 3],
    /// What holds where nobody did.
    defaults: Layer,
    /// Where the file says what.
    lines: Lines,
    /// Whether there is a file that cannot be read: what it would have said is not known.
    file_is_broken: bool,
    /// The tables that were laid out of an array.
    pub(super) places: Vec<String>,
    file_checks: Vec<(&'static str, FileCheck)>,
    tls_check: Option<TlsCheck>,
    /// What the environment says of proxies.
    pub(super) proxies: ProxyVariables,
    pub(super) faults: Vec<Fault>,
    warnings: Vec<String>,
}

impl KeyReader {
    pub(super) fn new(sources: &Sources) -> Self {
        let mut faults = Vec::new();
        let environment = environment_layer(&sources.environment, &mut faults);
        let mut file = sources
            .file
            .as_deref()
            .map(|path| file_layer(path, &mut faults))
            .unwrap_or_default();
        file.layer.retain(|key, _| !environment.unset.contains(key));
        let text = |text: &String| Given {
            value: toml::Value::String(text.clone()),
            origin: Origin::Sandbox,
        };
        let of_sandbox = sources
            .defaults
            .iter()
            .map(|(key, value)| ((*key).to_owned(), text(value)))
            .collect();
        Self {
            layers: [environment.layer, file.layer, of_sandbox],
            defaults: KEYS.iter().filter_map(default_layer).collect(),
            lines: file.lines,
            file_is_broken: file.is_broken,
            places: Vec::new(),
            file_checks: sources.file_checks.clone(),
            tls_check: sources.tls_check,
            proxies: ProxyVariables::of(&sources.environment),
            faults,
            warnings: Vec::new(),
        }
    }

    /// What is odd, and no fault.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// A key with where its value came from, as others' messages name it.
    pub(super) fn named(&self, key: &str) -> String {
        let origin = self.find(key).map(|given| given.origin.to_string());
        origin.map_or_else(|| key.to_owned(), |origin| format!("{key} ({origin})"))
    }

    /// Notes what is odd about `key`, and no fault, with the origin of its value if somebody set it.
    pub(super) fn warn(&mut self, key: &str, message: &str) {
        let origin = self.find(key).map(|given| given.origin.clone());
        let origin = origin.filter(|origin| *origin != Origin::Default);
        let origin = origin.map_or_else(String::new, |origin| format!(" ({origin})"));
        self.warnings.push(format!("{key}{origin}: {message}"));
    }

    /// All faults, in the order in which they were found.
    pub(super) fn faults(&self) -> Vec<Fault> {
        self.faults.clone()
    }

    /// The faults that matter to who reads keys with `prefix` alone: theirs, and those of whole layers.
    pub(super) fn faults_of(self, prefix: &str) -> Vec<Fault> {
        let concerns = |fault: &Fault| fault.key.starts_with(prefix) || !is_key(&like(&fault.key));
        self.faults.into_iter().filter(concerns).collect()
    }

    /// Whether a file or the environment sets `key`, or a key of the section `key`.
    pub(super) fn is_given(&self, key: &str) -> bool {
        names(&self.layers[..2], key)
    }

    /// The same for any layer.
    pub(super) fn is_set(&self, key: &str) -> bool {
        names(&self.layers, key)
    }

    /// Notes that `key` is wrong, with the origin of its value if it has one.
    pub(super) fn fault<T>(&mut self, key: &str, message: &str) -> Option<T> {
        // What is missing in a table is missing where the table is.
        let table = key.starts_with(ISSUERS).then_some(ISSUERS);
        let given = self.find(key).or_else(|| self.find(table?));
        let origin = given.map(|given| given.origin.to_string());
        self.faults.push(Fault {
            key: key.into(),
            origin,
            message: message.into(),
        });
        None
    }

    /// Notes that `key` is not set, unless a file that cannot be read may set it.
    pub(super) fn lacking<T>(&mut self, key: &str, message: &str) -> Option<T> {
        if self.file_is_broken {
            return None;
        }
        self.fault(key, message)
    }

    /// What somebody set, else the default.
    pub(super) fn find(&self, key: &str) -> Option<&Given> {
        let set = self.layers.iter().find_map(|layer| layer.get(key));
        set.or_else(|| self.defaults.get(&like(key)))
    }

    /// What is shown of a key: it, or the one that names a file with its value, whichever takes effect.
    pub(super) fn shown(&self, key: &Key) -> Option<(String, &Given)> {
        let file_key = key.file_key();
        let set = self.layers.iter().find_map(|layer| {
            let of = |name: &str| layer.get(name).map(|given| (name.to_owned(), given));
            of(key.name).or_else(|| of(file_key.as_deref()?))
        });
        let default = || Some((key.name.to_owned(), self.defaults.get(key.name)?));
        set.or_else(default)
    }

    /// The tables of further issuers, in the order in which they were given.
    pub(super) fn places(&self) -> &[String] {
        &self.places
    }

    /// Where a part of a value came from that is a table, or several: the file says that line by line.
    pub(super) fn origin_within(&self, whole: &Origin, key: &str) -> Origin {
        match (whole, self.lines.get(key)) {
            (Origin::File(path, _), Some(line)) => Origin::File(path.clone(), *line),
            _ => whole.clone(),
        }
    }

    /// Sets a key that a table holds.
    pub(super) fn lay(&mut self, key: String, given: Given) {
        self.layers[0].insert(key, given);
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
            self.lacking(key, &is_required(key))
        } else {
            self.text(key)
        }
    }

    /// Looks at whether certificate and key fit, where somebody knows how; gives what is odd about them.
    pub(super) fn check_tls(
        &self,
        files: &TlsFiles,
    ) -> Result<Vec<String>, (&'static str, String)> {
        self.tls_check
            .map_or_else(|| Ok(Vec::new()), |check| check(files))
    }

    /// The path of a file that was looked at, where somebody knows how.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let path = self.text(key).map(PathBuf::from)?;
        let like = like(key);
        let mut checks = self.file_checks.iter().filter(|(of, _)| *of == like);
        let looked = checks.try_fold(Vec::new(), |mut odd, (_, check)| {
            odd.extend(check(&path)?);
            Ok(odd)
        });
        let odd = match looked {
            Ok(odd) => odd,
            Err::<_, String>(message) => {
                let path = shown_path(&path.to_string_lossy());
                return self.fault(key, &format!("`{path}` {message}"));
            }
        };
        for odd in odd {
            self.warn(key, &odd);
        }
        if matches!(
            like.as_str(),
            "server.tls_key_file" | "auth.fetch_token_file"
        ) {
            self.warn_of_readable(key, &path);
        }
        Some(path)
    }

    /// A scalar as text, whatever TOML type it has.
    fn scalar(&mut self, key: &str) -> Option<String> {
        match self.find(key)?.value.clone() {
            toml::Value::String(text) => Some(text),
            toml::Value::Integer(number) => Some(number.to_string()),
            toml::Value::Float(number) => Some(number.to_string()),
            toml::Value::Boolean(truth) => Some(truth.to_string()),
            _ => self.fault(key, "must be a single value"),
        }
    }

    pub(super) fn duration(&mut self, key: &str) -> Option<Duration> {
        let text = self.scalar(key)?;
        parse_duration(&text).map_or_else(|message| self.fault(key, &message), Some)
    }

    pub(super) fn positive_duration(&mut self, key: &str) -> Option<Duration> {
        match self.duration(key)? {
            Duration::ZERO => self.fault(key, "must be longer than zero"),
            duration => Some(duration),
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        match self.scalar(key)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => self.fault(key, "must be true or false"),
        }
    }

    pub(super) fn integer(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let is_float = self.find(key).map(|given| given.value.is_float());
        let number = self
            .scalar(key)?
            .parse::<u64>()
            .ok()
            .filter(|number| range.contains(number) && is_float != Some(true));
        let message = || {
            format!(
                "must be an integer from {} to {}",
                range.start(),
                range.end()
            )
        };
        number.or_else(|| self.fault(key, &message()))
    }

    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        let number = self.scalar(key)?.parse::<f64>().ok();
        let number = number.filter(|number| number.is_finite() && (0.0..=1e9).contains(number));
        number.or_else(|| self.fault(key, "must be a number from 0 up; 0 turns it off"))
    }

    pub(super) fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let address = self.scalar(key)?.parse().ok();
        address.or_else(|| self.fault(key, "must be an address and a port, such as 127.0.0.1:8080"))
    }

    /// An address, or nothing where it is empty.
    #[expect(
        clippy::option_option,
        reason = "outer: whether it is right; inner: whether it is on"
    )]
    pub(super) fn address_or_off(&mut self, key: &str) -> Option<Option<SocketAddr>> {
        match self.scalar(key)?.as_str() {
            "" => Some(None),
            _ => self.address(key).map(Some),
        }
    }

    /// A list: an array of text, or one text split at commas.
    pub(super) fn list(&mut self, key: &str) -> Vec<String> {
        let Some(given) = self.find(key) else {
            return Vec::new();
        };
        match list_of(&given.value) {
            Some(items) => items,
            None => self
                .fault(key, "must be a list of texts")
                .unwrap_or_default(),
        }
    }
}

/// The texts of a list: an array of them, or one text split at commas.
pub(super) fn list_of(value: &toml::Value) -> Option<Vec<String>> {
    let trimmed = |text: &str| text.trim().to_owned();
    let items: Vec<String> = match value {
        toml::Value::String(text) => text.split(',').map(trimmed).collect(),
        toml::Value::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().map(trimmed));
            texts.collect::<Option<_>>()?
        }
        _ => return None,
    };
    Some(items.into_iter().filter(|item| !item.is_empty()).collect())
}

/// Whether a layer sets `key`, or a key of the section `key`.
fn names(layers: &[Layer], key: &str) -> bool {
    let within = |name: &String| {
        let rest = name.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    layers.iter().any(|layer| layer.keys().any(within))
}

fn default_layer(key: &Key) -> Option<(String, Given)> {
    let value = default_of(key.name)?;
    let origin = Origin::Default;
    Some((key.name.to_owned(), Given { value, origin }))
}

pub(super) fn is_required(key: &str) -> String {
    if is_key(key) {
        format!("is required (in the file, or as {})", variable(key))
    } else {
        "is required".into()
    }
}
