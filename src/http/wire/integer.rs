//! Integers as JSON may write them: `12345`, `12345.0`, `3.56e8` (RFC 8259, section 6; JSON Schema 2020-12 validation,
//! section 6.1.1, calls each number without a fractional part an integer).

/// No number that is read here has more digits; a longer one is out of every range.
const DIGITS_MAX: usize = 20;

/// The value of a JSON number, where that is an integer from 0 up that fits; judged digit by digit, since a
/// floating-point number would round.
pub(super) fn integer(literal: &str) -> Option<u64> {
    let (mantissa, exponent) = match literal.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (literal, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // Text, a sign and whatever else is no number from 0 up.
    if !(whole.bytes().chain(fraction.bytes())).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return whole.starts_with('0').then_some(0);
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    // How many zeros stand behind the significant digits; a negative number of them is a fraction.
    let zeros = exponent
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(i64::try_from(trailing).ok()?)?;
    let zeros = usize::try_from(zeros).ok()?;
    if significant.len().checked_add(zeros)? > DIGITS_MAX {
        return None;
    }
    format!("{significant}{}", "0".repeat(zeros)).parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_read_however_they_are_written() {
        for (literal, value) in [
            ("0", Some(0)),
            ("0.0", Some(0)),
            ("0e5", Some(0)),
            ("12345", Some(12345)),
            ("12345.0", Some(12345)),
            ("12345.000", Some(12345)),
            ("3.56e8", Some(356_000_000)),
            ("3.56E+8", Some(356_000_000)),
            ("12300e-2", Some(123)),
            ("0.5e1", Some(5)),
            ("9007199254740991.0", Some(9_007_199_254_740_991)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            // What a floating-point number would round to an integer.
            ("9007199254740990.6", None),
            ("1.00000000000000000000001", None),
            ("1.5", None),
            ("1e-1", None),
            ("356e-9", None),
            ("-1", None),
            ("-0", None),
            ("1e400", None),
            ("1e99999999999999999999", None),
            ("\"12345\"", None),
            ("null", None),
            ("true", None),
            ("[1]", None),
            ("{}", None),
        ] {
            assert_eq!(integer(literal), value, "{literal}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_the_same_however_its_point_is_moved(number in 1_u64..1 << 53, places in 0_usize..12, zeros in 0_usize..4) {
            let digits = format!("{number:0>width$}", width = places + 1);
            let (whole, fraction) = digits.split_at(digits.len() - places);
            let moved = format!("{whole}.{fraction}{}e{places}", "0".repeat(zeros + 1));
            prop_assert_eq!(integer(&moved), Some(number), "{}", moved);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&moved).is_ok(), "it is JSON");
        }

        #[test]
        fn nothing_makes_it_panic(literal in "[0-9.eE+-]{0,40}|\\PC{0,20}") {
            let _ = integer(&literal);
        }
    }
}
