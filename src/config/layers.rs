//! The layers that configuration is made of, and the files they come from.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Fault;
use super::keys::{is_key, is_section};
use super::values::shown_path;

const PREFIX: &str = "ISG__";
const BYTE_ORDER_MARK: char = '\u{feff}';
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) value: toml::Value,
    pub(super) origin: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody set it.
    Default,
    /// `serve --sandbox` set it where nobody else did.
    Sandbox,
    /// A variable of the environment.
    Environment(String),
    /// The file, at this line.
    File(PathBuf, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Sandbox => f.write_str("sandbox"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
        }
    }
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
            faults.push(Fault::of(name, "is no variable of the gateway"));
        } else if text.is_empty() && !MAY_BE_EMPTY.contains(&key.as_str()) {
            unset.push(key);
        } else {
            let given = Given {
                value: toml::Value::String(text.clone()),
                origin: Origin::Environment(name.clone()),
            };
            layer.insert(key, given);
        }
    }
    Environment { layer, unset }
}

/// What a file sets, and at which line each key of it stands.
#[derive(Default)]
pub(super) struct File {
    pub(super) layer: Layer,
    pub(super) lines: Lines,
    /// Whether it cannot be read.
    pub(super) is_broken: bool,
}

impl File {
    fn broken() -> Self {
        Self {
            is_broken: true,
            ..Self::default()
        }
    }
}

/// Lines by key, from 1; those of a table in an array under `key[NUMBER]`, from 1 too.
pub(super) type Lines = BTreeMap<String, usize>;

pub(super) fn file_layer(path: &Path, faults: &mut Vec<Fault>) -> File {
    let whole = |message: String| Fault::of(path.display().to_string(), message);
    let text = match read_text_file(path) {
        Ok(text) => text,
        Err(message) => {
            faults.push(whole(message));
            return File::broken();
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
            faults.push(whole(format!("is not TOML{place}: {}", error.message())));
            return File::broken();
        }
    };
    let lines = lines_of(&text);
    let origin = |key: &str| Origin::File(path.into(), lines.get(key).copied().unwrap_or(1));
    let mut layer = Layer::new();
    for (section, content) in table {
        let unknown = |message: &str| Fault {
            key: section.clone(),
            origin: Some(origin(&section).to_string()),
            message: message.into(),
        };
        let toml::Value::Table(content) = content else {
            faults.push(if is_section(&section) {
                unknown("must be a table: keys stand below it in brackets")
            } else {
                unknown("is no key of the gateway")
            });
            continue;
        };
        if !is_section(&section) {
            faults.push(unknown("is no section of the gateway"));
            continue;
        }
        for (key, value) in content {
            let key = format!("{section}.{key}");
            let origin = origin(&key);
            if is_key(&key) {
                layer.insert(key, Given { value, origin });
            } else {
                faults.push(Fault {
                    key,
                    origin: Some(origin.to_string()),
                    message: "is no key of the gateway".into(),
                });
            }
        }
    }
    File {
        layer,
        lines,
        is_broken: false,
    }
}

fn lines_of(text: &str) -> Lines {
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let mut lines = Lines::new();
    if let Ok(table) = DeTable::parse(text) {
        note_lines("", table.get_ref(), &ends, &mut lines);
    }
    lines
}

fn note_lines(place: &str, table: &DeTable<'_>, ends: &[usize], lines: &mut Lines) {
    let line = |at: usize| ends.partition_point(|end| *end < at) + 1;
    for (key, value) in table {
        let name = format!("{place}{}", key.get_ref());
        lines.insert(name.clone(), line(key.span().start));
        match value.get_ref() {
            DeValue::Table(table) => note_lines(&format!("{name}."), table, ends, lines),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let name = format!("{name}[{}]", index + 1);
                    if let DeValue::Table(table) = item.get_ref() {
                        note_lines(&format!("{name}."), table, ends, lines);
                    }
                    lines.insert(name, line(item.span().start));
                }
            }
            _ => {}
        }
    }
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
    let shown = shown_path(&path.to_string_lossy());
    let text = read_text_file(path).map_err(|message| format!("`{shown}` {message}"))?;
    let secret = text.trim();
    if secret.is_empty() {
        Err(format!("`{shown}` is empty"))
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
