//! What a `RetCode` means: whose fault it is, whether the change may stand, whether repeating helps. The one list of
//! codes, from which everything else comes.
//!
//! The table follows UCloud's public list of common codes and what the cloud's own command lines repeat, not
//! the SDKs' rule that codes from 2000 up may be repeated: that rule repeats refusals that never heal and
//! leaves out the gateway's own transient codes.

use std::fmt;
use std::time::Duration;

use super::retry::Retry;

/// What throttling asks for: the protocol says "with a pause" and names none.
const WAIT_THROTTLED: Duration = Duration::from_secs(1);
/// What the cloud's own command line waits where a resource is still detaching.
const WAIT_DETACHING: Duration = Duration::from_secs(2);
/// How often "service abnormal" is tried again.
const RETRIES_ABNORMAL: u32 = 2;
/// From here up codes are those of products; what is not listed may be about anything in the call.
const PRODUCT_CODES: i64 = 2000;

/// A `RetCode` other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetCode(i64);

/// What a code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The service took over 60 s; what it does it may still do.
    TimedOut,
    /// The upstream's gateway or authentication service is out of order.
    GatewayDown,
    /// Unavailable for now.
    Unavailable,
    /// Throttled.
    Throttled,
    /// The key, the project, the account or the gateway's own request is at fault: nothing a caller can mend.
    OperatorsFault,
    /// A parameter is not acceptable; the message names it.
    NotAcceptable,
    /// A parameter is too large.
    TooLarge,
    /// The service is out of order.
    Abnormal,
    /// A resource is still being detached.
    Detaching,
    /// About instances, stock and times, and so about no account.
    AboutInstances,
    /// Nobody has described it.
    Unknown,
}

/// The list.
const CODES: [(i64, Meaning); 30] = [
    (110, Meaning::TimedOut),
    (130, Meaning::GatewayDown),
    (150, Meaning::Unavailable),
    (153, Meaning::Throttled),
    (160, Meaning::OperatorsFault),
    (161, Meaning::OperatorsFault),
    (170, Meaning::OperatorsFault),
    (171, Meaning::OperatorsFault),
    (172, Meaning::OperatorsFault),
    (174, Meaning::OperatorsFault),
    (210, Meaning::OperatorsFault),
    (220, Meaning::OperatorsFault),
    (292, Meaning::OperatorsFault),
    (293, Meaning::OperatorsFault),
    (294, Meaning::OperatorsFault),
    (295, Meaning::OperatorsFault),
    (299, Meaning::OperatorsFault),
    (230, Meaning::NotAcceptable),
    (240, Meaning::TooLarge),
    (8333, Meaning::AboutInstances),
    (8357, Meaning::AboutInstances),
    (8433, Meaning::Abnormal),
    (8434, Meaning::Detaching),
    (214_001, Meaning::OperatorsFault),
    (226_601, Meaning::OperatorsFault),
    (226_602, Meaning::OperatorsFault),
    (226_603, Meaning::AboutInstances),
    (226_604, Meaning::AboutInstances),
    (226_605, Meaning::AboutInstances),
    (226_606, Meaning::OperatorsFault),
];

/// The names of parameters that all accounts of a call share.
const SHARED_PARAMETERS: [&str; 4] = ["Region", "Zone", "ProjectId", IMAGE_PARAMETER];
const IMAGE_PARAMETER: &str = "CompShareImageId";

impl RetCode {
    /// Takes the code of an answer.
    #[must_use]
    pub fn new(code: i64) -> Self {
        Self(code)
    }

    /// The code as a number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// What it says.
    #[must_use]
    pub fn meaning(self) -> Meaning {
        let listed = CODES.iter().find(|(code, _)| *code == self.0);
        listed.map_or(Meaning::Unknown, |(_, meaning)| *meaning)
    }

    /// The codes that are listed.
    pub fn known() -> impl Iterator<Item = i64> {
        CODES.into_iter().map(|(code, _)| code)
    }

    /// Whether the change may have taken effect all the same.
    #[must_use]
    pub fn leaves_effect_open(self) -> bool {
        matches!(self.meaning(), Meaning::TimedOut | Meaning::GatewayDown)
    }

    /// Whether and when the same call may be made again.
    #[must_use]
    pub fn retry(self) -> Retry {
        match self.meaning() {
            Meaning::TimedOut | Meaning::GatewayDown | Meaning::Unavailable => {
                Retry::after(Duration::ZERO)
            }
            Meaning::Throttled => Retry::after(WAIT_THROTTLED),
            Meaning::Abnormal => Retry::After {
                at_least: Duration::ZERO,
                times: RETRIES_ABNORMAL,
            },
            Meaning::Detaching => Retry::after(WAIT_DETACHING),
            Meaning::OperatorsFault
            | Meaning::NotAcceptable
            | Meaning::TooLarge
            | Meaning::AboutInstances
            | Meaning::Unknown => Retry::Never,
        }
    }

    /// Whether sending the same again can help and do no harm.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self.retry() != Retry::Never
    }

    /// Whether the refusal may be about one account of the call, so that the others may pass without it: a
    /// parameter that is not acceptable and is none of those that all accounts of a call share, one that is
    /// too large, and product errors that nobody has described.
    #[must_use]
    pub fn may_depend_on_an_account(self, message: Option<&str>) -> bool {
        match self.meaning() {
            Meaning::NotAcceptable => {
                let names = |text: &str| SHARED_PARAMETERS.iter().any(|name| text.contains(name));
                !message.is_some_and(names)
            }
            Meaning::TooLarge => true,
            Meaning::Unknown => self.0 >= PRODUCT_CODES,
            _ => false,
        }
    }

    /// Whether it may as well be about the image: where nobody has described it.
    #[must_use]
    pub fn may_be_about_the_image(self) -> bool {
        self.meaning() == Meaning::Unknown
    }

    /// Whether it says that the image is not there, or not one that can be shared.
    #[must_use]
    pub fn knows_no_such_image(self, message: Option<&str>) -> bool {
        self.meaning() == Meaning::NotAcceptable
            && message.is_some_and(|text| text.contains(IMAGE_PARAMETER))
    }

    /// What an operator should look at first.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        match self.0 {
            171 => Some(
                "is upstream.private_key right, and does it belong to upstream.public_key and this base_url?",
            ),
            172 => Some("is upstream.public_key right?"),
            292 | 299 => Some("is upstream.project_id set?"),
            294 => Some("is this machine's address on the account's white list?"),
            226_601 | 226_602 | 226_606 => {
                Some("look at the cloud account: payment, term, verification")
            }
            _ => None,
        }
    }
}

impl fmt::Display for RetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_protocol_holds() {
        let codes = |decide: fn(RetCode) -> bool| -> Vec<i64> {
            (0..300_000)
                .filter(|code| decide(RetCode::new(*code)))
                .collect()
        };
        assert_eq!(codes(RetCode::leaves_effect_open), [110, 130]);
        let operators = [
            160, 161, 170, 171, 172, 174, 210, 220, 292, 293, 294, 295, 299, 214_001, 226_601,
            226_602, 226_606,
        ];
        let operators_fault = |code: RetCode| code.meaning() == Meaning::OperatorsFault;
        assert_eq!(codes(operators_fault), operators);
        let repeated = [110, 130, 150, 153, 8433, 8434];
        assert_eq!(codes(RetCode::is_retryable), repeated);
    }

    #[test]
    fn a_refusal_is_put_down_to_an_account_only_where_it_can_be_about_one() {
        let about = |code, message| RetCode::new(code).may_depend_on_an_account(message);
        assert!(about(230, Some("Params [AddAccounts.3] not available")));
        assert!(about(230, None));
        for shared in [
            "Params [Region] not available",
            "Params [Zone] not available",
            "Params [ProjectId] not available",
            "Params [CompShareImageId] not available",
        ] {
            assert!(!about(230, Some(shared)), "{shared}");
        }
        for code in [240, 2000, 9999, 300_000] {
            assert!(about(code, Some("x")), "{code}");
        }
        for code in [
            0, 110, 130, 150, 153, 171, 210, 292, 299, 1999, 8333, 8433, 8434, 214_001, 226_603,
            226_606,
        ] {
            assert!(!about(code, Some("x")), "{code}");
        }
    }
}
