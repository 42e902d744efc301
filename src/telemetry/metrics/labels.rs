//! Labels: each value is one of a known few, so that no caller can make a series.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// A label value that is one of a known few.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Word(pub(super) &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

/// Declares sets of labels.
macro_rules! labels {
    ($($name:ident { $($label:ident: $value:ty),* })*) => {
        $(
            #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
            pub(super) struct $name {
                $(pub(super) $label: $value,)*
            }
        )*
    };
}

labels! {
    RequestLabels { method: Word, route: Word, status: u32 }
    CallLabels { action: Word, result: Word }
    OutcomeLabels { operation: Word, outcome: Word }
    // The issuers of the configuration alone.
    AuthenticationLabels { issuer: String, result: Word }
    IssuerLabels { issuer: String }
    DecisionLabels { action: Word, decision: Word }
    LimitLabels { limit: Word }
    // The codes of the list alone.
    RetCodeLabels { ret_code: String }
    ReloadLabels { what: Word, result: Word }
    VersionLabels { version: Word }
}

impl AuthenticationLabels {
    /// Without an issuer, of a token that is of none of the configuration.
    pub(super) fn of(issuer: Option<&str>, result: &'static str) -> Self {
        Self {
            issuer: issuer.unwrap_or("none").to_owned(),
            result: Word(result),
        }
    }
}

impl RetCodeLabels {
    /// Without a code, of one that is not in the list.
    pub(super) fn of(known: Option<i64>) -> Self {
        Self {
            ret_code: known.map_or_else(|| "other".to_owned(), |code| code.to_string()),
        }
    }
}
