//! What a `RetCode` means: whose fault it is, whether the change may stand, whether repeating helps.
//!
//! The table follows UCloud's public list of common codes and what the cloud's own command lines repeat, not
//! the SDKs' rule that codes from 2000 up may be repeated: that rule repeats refusals that never heal and
//! leaves out the gateway's own transient codes.

use std::fmt;

use super::retry::Retry;

/// A `RetCode` other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetCode(i64);

impl RetCode {
    /// The service took over 60 s.
    pub const TIMED_OUT: Self = Self(110);
    /// The upstream's gateway or authentication service is out of order.
    pub const GATEWAY_DOWN: Self = Self(130);
    /// Unavailable for now.
    pub const UNAVAILABLE: Self = Self(150);
    /// Throttled.
    pub const THROTTLED: Self = Self(153);
    /// A parameter is not acceptable; the message names it.
    pub const NOT_ACCEPTABLE: Self = Self(230);

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

    /// Whether the change may have taken effect all the same.
    #[must_use]
    pub fn leaves_effect_open(self) -> bool {
        matches!(self, Self::TIMED_OUT | Self::GATEWAY_DOWN)
    }

    /// Whether sending the same again can help and do no harm.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self.retry() != Retry::Never
    }

    /// Whether the key, the project or the gateway's own request is at fault: nothing a caller can mend.
    #[must_use]
    pub fn is_operators_fault(self) -> bool {
        matches!(self.0, 160 | 161 | 170..=172 | 174 | 210 | 220 | 292..=295 | 299 | 214_001 | 226_601 | 226_602 | 226_606)
    }

    /// Whether the refusal may be about one account of the call, so that the others may pass without it: a
    /// parameter that is not acceptable (230) and is none of those that all accounts of a call share, one that is
    /// too large (240), and product errors that nobody has described.
    #[must_use]
    pub fn may_depend_on_an_account(self, message: Option<&str>) -> bool {
        const SHARED: [&str; 4] = ["Region", "Zone", "ProjectId", "CompShareImageId"];
        match self.0 {
            230 => !message.is_some_and(|text| SHARED.iter().any(|name| text.contains(name))),
            240 => true,
            8333 | 8357 | 226_603..=226_605 => false,
            2000.. => !self.is_retryable() && !self.is_operators_fault(),
            _ => false,
        }
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
        assert_eq!(codes(RetCode::is_operators_fault), operators);
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
