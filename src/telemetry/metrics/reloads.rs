//! What a reload reads again, as it is counted.

use super::labels::{ReloadLabels, Word};

/// A part of what a reload reads again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadPart {
    /// The configuration itself.
    Configuration,
    /// Key sets in files.
    Keys,
    /// Key sets that somebody else serves.
    ServedKeys,
    /// Policies.
    Policies,
    /// The upstream's keys.
    UpstreamKeys,
    /// Certificate, key and authorities of clients.
    Tls,
}

/// All of them.
pub const RELOAD_PARTS: [ReloadPart; 6] = [
    ReloadPart::Configuration,
    ReloadPart::Keys,
    ReloadPart::ServedKeys,
    ReloadPart::Policies,
    ReloadPart::UpstreamKeys,
    ReloadPart::Tls,
];

impl ReloadPart {
    pub(super) fn labels(self, result: &'static str) -> ReloadLabels {
        let what = match self {
            Self::Configuration => "configuration",
            Self::Keys => "keys",
            Self::ServedKeys => "served_keys",
            Self::Policies => "policies",
            Self::UpstreamKeys => "upstream_keys",
            Self::Tls => "tls",
        };
        ReloadLabels {
            what: Word(what),
            result: Word(result),
        }
    }
}
