//! Names of things, each parsed from text with a message that a caller may read.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// Longest image id, in bytes; all of them ASCII.
pub const IMAGE_ID_BYTES_MAX: usize = 128;
/// Largest account id: 2^53 − 1, the largest integer that every JSON reader keeps exact (RFC 8259, section 6).
pub const ACCOUNT_ID_MAX: u64 = 9_007_199_254_740_991;
/// Most accounts that one request may name.
pub const ACCOUNTS_MAX: usize = 1000;
const REGION_BYTES_MAX: usize = 64;
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Names a machine image, as in `compshareImage-1a2b3c4d5e6f`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(Arc<str>);

/// The text is no image id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {IMAGE_ID_BYTES_MAX} of A-Z a-z 0-9 . _ -, led by a letter or digit")]
pub struct InvalidImageId;

impl ImageId {
    /// The id as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageId {
    type Err = InvalidImageId;

    fn from_str(text: &str) -> Result<Self, InvalidImageId> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let fits = text.len() <= IMAGE_ID_BYTES_MAX && text.bytes().all(inner);
        let led = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if fits && led {
            Ok(Self(text.into()))
        } else {
            Err(InvalidImageId)
        }
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names the account that an image is shared with: 1 to [`ACCOUNT_ID_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(u64);

/// The text or number is no account id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a decimal integer from 1 to {ACCOUNT_ID_MAX} without sign or leading zero")]
pub struct InvalidAccountId;

impl AccountId {
    /// The id as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for AccountId {
    type Error = InvalidAccountId;

    fn try_from(number: u64) -> Result<Self, InvalidAccountId> {
        if (1..=ACCOUNT_ID_MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(InvalidAccountId)
        }
    }
}

impl FromStr for AccountId {
    type Err = InvalidAccountId;

    fn from_str(text: &str) -> Result<Self, InvalidAccountId> {
        let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if plain {
            text.parse::<u64>().ok()
        } else {
            None
        };
        number.ok_or(InvalidAccountId)?.try_into()
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a region of the cloud, as in `cn-wlcb`. Whether callers may name it is configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(Arc<str>);

/// The text is no region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {REGION_BYTES_MAX} of a-z A-Z 0-9 - _")]
pub struct InvalidRegion;

impl Region {
    /// The region as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = InvalidRegion;

    fn from_str(text: &str) -> Result<Self, InvalidRegion> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let fits = (1..=REGION_BYTES_MAX).contains(&text.len()) && text.bytes().all(inner);
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(InvalidRegion)
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names an event of the audit trail: a UUID of version 7 (RFC 9562), so ids sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// Takes a UUID that the trail gave or a caller named.
    #[must_use]
    pub fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// Names one request in answers, logs and the trail: the caller's own, or one that the gateway made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

/// The text is no request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {REQUEST_ID_BYTES_MAX} visible ASCII characters")]
pub struct InvalidRequestId;

impl RequestId {
    /// Makes a new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7().as_hyphenated().to_string().into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(text: &str) -> Result<Self, InvalidRequestId> {
        let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidRequestId)
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn account_ids_are_plain_decimals_within_bounds() {
        for good in ["1", "42", "9007199254740991"] {
            assert_eq!(good.parse::<AccountId>().expect("good").to_string(), good);
        }
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "01",
            "1.0",
            "1e3",
            " 1",
            "1 ",
            "9007199254740992",
            "18446744073709551617",
            "١",
        ] {
            assert_eq!(bad.parse::<AccountId>(), Err(InvalidAccountId), "{bad:?}");
        }
    }

    #[test]
    fn image_ids_follow_their_grammar() {
        let longest = "a".repeat(IMAGE_ID_BYTES_MAX);
        for good in ["a", "9", "compshareImage-1a2b", "A._-", longest.as_str()] {
            assert!(good.parse::<ImageId>().is_ok(), "{good:?}");
        }
        let long = "a".repeat(IMAGE_ID_BYTES_MAX + 1);
        for bad in [
            "",
            ".a",
            "-a",
            "_a",
            "a/b",
            "a b",
            "ä",
            "a\u{fffd}",
            "a%2Fb",
            "..",
            long.as_str(),
        ] {
            assert!(bad.parse::<ImageId>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn account_ids_parse_exactly_the_numbers_in_range(number in any::<u64>()) {
            let parsed = number.to_string().parse::<AccountId>();
            prop_assert_eq!(parsed.is_ok(), (1..=ACCOUNT_ID_MAX).contains(&number));
            prop_assert_eq!(parsed, AccountId::try_from(number));
        }

        #[test]
        fn account_id_text_that_parses_prints_the_same(text in "\\PC{0,20}|[0-9+-]{0,20}") {
            if let Ok(id) = text.parse::<AccountId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn image_ids_parse_exactly_their_grammar(text in "[A-Za-z0-9._/% -]{0,140}|\\PC{0,20}") {
            let byte = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            let good = !text.is_empty()
                && text.len() <= 128
                && text.bytes().all(byte)
                && text.as_bytes()[0].is_ascii_alphanumeric();
            prop_assert_eq!(text.parse::<ImageId>().is_ok(), good);
        }

        #[test]
        fn request_ids_keep_what_they_take(text in "[ -~]{0,140}|\\PC{0,20}") {
            if let Ok(id) = text.parse::<RequestId>() {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(text.bytes().all(|b| (0x21..=0x7e).contains(&b)));
            }
        }
    }
}
