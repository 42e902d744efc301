//! What a caller asks to change, and how it can end.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{AccountId, ImageId, Region};

/// Longest reason, in characters (Unicode scalar values).
pub const REASON_CHARACTERS_MAX: usize = 500;

/// Whether an account gains or loses the right to use an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The account may use the image from now on.
    Share,
    /// The account may no longer use the image.
    Unshare,
}

impl Operation {
    /// Both operations.
    pub const ALL: [Self; 2] = [Self::Share, Self::Unshare];

    /// The word of the API and the trail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Unshare => "unshare",
        }
    }
}

/// One change of one account's share of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is to happen.
    pub operation: Operation,
    /// The image it happens to.
    pub image_id: ImageId,
    /// The account that gains or loses it.
    pub account_id: AccountId,
    /// Where the image lives.
    pub region: Region,
    /// Why, in the caller's words.
    pub reason: Option<Reason>,
}

/// Why a change was asked for: a ticket, a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(Arc<str>);

/// The text cannot serve as a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {REASON_CHARACTERS_MAX} characters, one of them visible, without control characters, line separators \
     and characters that turn the direction of text"
)]
pub struct InvalidReason;

impl Reason {
    /// The reason as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Reason {
    type Err = InvalidReason;

    fn from_str(text: &str) -> Result<Self, InvalidReason> {
        let fits = text.chars().take(REASON_CHARACTERS_MAX + 1).count() <= REASON_CHARACTERS_MAX;
        if fits && text.contains(is_visible) && !text.contains(misleads) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidReason)
        }
    }
}

/// Whether it ends a line, obeys nobody's eyes or shows what stands beside it otherwise than it is: control characters,
/// line and paragraph separators, and what turns the direction of text (Unicode's `Bidi_Control`; "Trojan Source").
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether there is something to see: neither white space nor one of Unicode's `Default_Ignorable_Code_Point`, the
/// blank of Braille or a letter that is a blank.
fn is_visible(c: char) -> bool {
    let blank = c.is_whitespace()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fff8}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        );
    !blank && !c.is_control()
}

/// How a change ended, or that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its intent is on disk and nothing else is known yet.
    Pending,
    /// The upstream says that it is so.
    Succeeded,
    /// The upstream named the account as one that does not exist; it did nothing.
    InvalidAccount,
    /// Scope or policy refused it; it was never forwarded.
    Denied,
    /// The upstream refused it, or certainly never got it.
    Failed,
    /// It was sent and may have taken effect.
    Unknown,
}

impl Outcome {
    /// All outcomes, in the order in which summaries show them.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Succeeded,
        Self::InvalidAccount,
        Self::Denied,
        Self::Failed,
        Self::Unknown,
    ];

    /// The word of the API and the trail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::InvalidAccount => "invalid_account",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// The text is no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be pending, succeeded, invalid_account, denied, failed or unknown")]
pub struct InvalidOutcome;

/// Reads the word of the API and the trail.
impl FromStr for Outcome {
    type Err = InvalidOutcome;

    fn from_str(word: &str) -> Result<Self, InvalidOutcome> {
        let mut all = Self::ALL.into_iter();
        all.find(|outcome| outcome.as_str() == word)
            .ok_or(InvalidOutcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reasons_are_sentences_not_noise() {
        let longest = "é".repeat(REASON_CHARACTERS_MAX);
        for good in ["x", "OPS-17: new tenant", "共享给客户", longest.as_str()] {
            assert_eq!(good.parse::<Reason>().expect("good").as_str(), good);
        }
        let long = "é".repeat(REASON_CHARACTERS_MAX + 1);
        for bad in [
            "",
            " ",
            "\u{3000}",
            "a\nb",
            "a\0",
            "\u{7f}",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{202e}b",
            "a\u{2067}b",
            "a\u{200f}b",
            "\u{200b}",
            "\u{200b} \u{feff}",
            "\u{2800}",
            "\u{3164}",
            "\u{e0041}\u{fe0f}",
            long.as_str(),
        ] {
            assert_eq!(bad.parse::<Reason>(), Err(InvalidReason), "{bad:?}");
        }
    }

    #[test]
    fn outcome_words_read_back() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
        }
        assert_eq!("done".parse::<Outcome>(), Err(InvalidOutcome));
    }

    proptest! {
        #[test]
        fn a_reason_that_parses_is_kept_whole(text in "\\PC{0,520}|[\\x00-\\x7f]{0,40}") {
            if let Ok(reason) = text.parse::<Reason>() {
                prop_assert_eq!(reason.as_str(), text.as_str());
                prop_assert!(!text.chars().any(char::is_control));
                prop_assert!((1..=REASON_CHARACTERS_MAX).contains(&text.chars().count()));
            }
        }
    }
}
