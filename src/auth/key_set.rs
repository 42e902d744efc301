//! A JWK Set (RFC 7517) as keys that know what they are for.
//!
//! Sets are read as identity providers publish them: one `kid` may name several keys, one an algorithm or an old and a new
//! one. Keys that cannot be used are left out, each with a warning that names it. A set without a usable key is an error.

use std::collections::BTreeSet;
use std::fmt;

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::key::{self, Identity, Key};

/// Keys of one `kid` that a signature is tried with.
const TRIED_MAX: usize = 4;
/// So many keys that cannot be used are named.
const LEFT_OUT_MAX: usize = 20;
/// As much of a `kid` as is named.
const KID_CHARACTERS_MAX: usize = 64;

/// The keys that tokens are checked with. Does not print them.
pub struct KeySet {
    keys: Vec<Key>,
    left_out: LeftOut,
    holds_secrets: bool,
}

/// Keys that are not used, each with the reason: whoever serves a set decides how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct LeftOut {
    first: Vec<String>,
    more: usize,
}

impl LeftOut {
    fn push(&mut self, why: impl FnOnce() -> String) {
        if self.first.len() < LEFT_OUT_MAX {
            self.first.push(why());
        } else {
            self.more += 1;
        }
    }

    /// The first reasons of all, and how many more there are.
    fn in_short(&self) -> String {
        const FIRST: usize = 5;
        let shown = &self.first[..self.first.len().min(FIRST)];
        let first = shown.join("; ");
        match self.first.len() + self.more - shown.len() {
            _ if shown.is_empty() => "it is empty".into(),
            0 => first,
            more => format!("{first}; and {more} more"),
        }
    }

    fn told(&self) -> Vec<String> {
        let more = match self.more {
            0 => None,
            1 => Some("1 more key cannot be used".to_owned()),
            more => Some(format!("{more} more keys cannot be used")),
        };
        self.first.iter().cloned().chain(more).collect()
    }
}

/// A set as it is written; its other members are nobody's business.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The text is no JWK Set that tokens could be checked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is not JSON, or has no array `keys`.
    #[error("is no JWK Set: a JSON object with an array `keys`")]
    NotASet,
    /// No key in it can be used.
    #[error("holds no usable key: {0}")]
    NoUsableKey(String),
}

/// Which key a token asks for, and why it gets none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoKey {
    Unknown,
    /// With the names of the algorithms that would do.
    OtherAlgorithm(Vec<&'static str>),
    Ambiguous,
}

impl KeySet {
    /// Reads a JWK Set. Private parts are ignored.
    ///
    /// # Errors
    /// Where it is no set, or no key of it can be used.
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        // Editors of Windows put a byte order mark before it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // serde would also read a struct from an array.
        if !text.trim_start().starts_with('{') {
            return Err(KeySetError::NotASet);
        }
        let set: Written<'_> = serde_json::from_str(text).map_err(|_| KeySetError::NotASet)?;
        let mut keys: Vec<Key> = Vec::new();
        let (mut left_out, mut holds_secrets) = (LeftOut::default(), false);
        for (index, written) in set.keys.into_iter().enumerate() {
            let Some(entry) = key::entry(written.get()) else {
                left_out.push(|| format!("key {} is no object", index + 1));
                continue;
            };
            holds_secrets |= key::is_secret(&entry);
            match Key::read(&entry) {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(|| format!("{} {why}", name(index, &entry))),
            }
        }
        if keys.is_empty() {
            Err(KeySetError::NoUsableKey(left_out.in_short()))
        } else {
            Ok(Self {
                keys,
                left_out,
                holds_secrets,
            })
        }
    }

    /// Whether whoever reads the set can sign with it.
    #[must_use]
    pub fn hold_secrets(&self) -> bool {
        self.holds_secrets
    }

    /// Keys of the set that are not used, each of the first with the reason, and how many more there are.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        self.left_out.told()
    }

    /// Whether another set holds the same keys, in whatever order and however they are written.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        fn identities(set: &KeySet) -> BTreeSet<Identity<'_>> {
            set.keys.iter().map(Key::identity).collect()
        }
        identities(self) == identities(other)
    }

    /// The names of the keys that have one.
    pub(super) fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.kid.as_deref())
    }

    /// The keys that a token may mean: those with its `kid`, or without one the only key that fits.
    pub(super) fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<&Key>, NoKey> {
        let is_meant = |key: &&Key| kid.is_none() || key.kid.as_deref() == kid;
        let meant: Vec<&Key> = self.keys.iter().filter(is_meant).collect();
        if meant.is_empty() {
            return Err(NoKey::Unknown);
        }
        let fits = |key: &&&Key| key.algorithms.contains(&algorithm);
        let fitting: Vec<&Key> = meant.iter().filter(fits).copied().collect();
        let Some(first) = fitting.first() else {
            let others = meant.iter().flat_map(|key| &key.algorithms);
            let mut names: Vec<&str> = others.copied().filter_map(key::algorithm_name).collect();
            names.sort_unstable();
            names.dedup();
            return Err(NoKey::OtherAlgorithm(names));
        };
        if kid.is_some() {
            let mut seen = BTreeSet::new();
            let new = |key: &&Key| seen.insert(key.thumbprint);
            return Ok(fitting.into_iter().filter(new).take(TRIED_MAX).collect());
        }
        // One key that stands there for several algorithms, or twice, is one key.
        let is_first = |key: &&Key| key.kid == first.kid && key.thumbprint == first.thumbprint;
        if !fitting.iter().all(is_first) {
            return Err(NoKey::Ambiguous);
        }
        Ok(vec![first])
    }
}

/// An entry's place in its set, from 1, and the begin of its `kid`, for people.
fn name(index: usize, entry: &Value) -> String {
    match key::member(entry, "kid").and_then(Value::as_str) {
        Some(kid) => {
            let kid: String = kid.chars().take(KID_CHARACTERS_MAX).collect();
            format!("key {} (kid `{}`)", index + 1, kid.escape_debug())
        }
        None => format!("key {}", index + 1),
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids = self
            .keys
            .iter()
            .map(|key| (key.kid.as_deref(), &key.algorithms));
        f.debug_list().entries(kids).finish()
    }
}

#[cfg(test)]
mod tests;
