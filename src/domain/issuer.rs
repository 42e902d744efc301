//! Names of issuers beside the first, and what they make of others' names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const NAME_BYTES_MAX: usize = 32;
/// Stands between an issuer's name and a subject's. No issuer's name holds it.
const SEPARATOR: char = ':';

/// Names an issuer beside the first: two of them, or it and the first, share no subject and no group in policies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerName(Arc<str>);

/// The text is no issuer's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {NAME_BYTES_MAX} of a-z 0-9 -")]
pub struct InvalidIssuerName;

impl IssuerName {
    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A subject or a group of this issuer, as policies name it.
    #[must_use]
    pub fn qualify(&self, name: &str) -> String {
        format!("{}{SEPARATOR}{name}", self.0)
    }

    /// Whether a subject or a group of the first issuer would pass for one of this.
    #[must_use]
    pub fn claims(&self, name: &str) -> bool {
        let rest = name.strip_prefix(self.as_str());
        rest.is_some_and(|rest| rest.starts_with(SEPARATOR))
    }
}

impl FromStr for IssuerName {
    type Err = InvalidIssuerName;

    fn from_str(text: &str) -> Result<Self, InvalidIssuerName> {
        let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(inner) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidIssuerName)
        }
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_one_issuer_reads_as_one_of_another() {
        let name = |text: &str| text.parse::<IssuerName>();
        for bad in ["", "CI", "c_i", "c:i", "c i", "ä", &"c".repeat(33)] {
            assert_eq!(name(bad), Err(InvalidIssuerName), "{bad:?}");
        }
        let ci = name("ci").expect("a name");
        assert_eq!(ci.qualify("deploy"), "ci:deploy");
        for (subject, claimed) in [
            ("ci:deploy", true),
            ("ci:", true),
            ("ci", false),
            ("cia:x", false),
            ("x:ci:y", false),
            ("CI:deploy", false),
        ] {
            assert_eq!(ci.claims(subject), claimed, "{subject}");
        }
    }
}
