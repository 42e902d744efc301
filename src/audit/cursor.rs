//! Where a follower of the trail is: a place in each chain. Opaque outside.
//!
//! A trail in a file has one chain, whose name its cursor holds. In a database there are many, a start of a gateway each, and
//! a cursor names them by number: of those that are open it holds the last row that was given, the others up to one number were
//! read to their end.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::chain::Hash;
use super::entry::CHAIN_ID;

/// Bytes of a row's hash that its cursor holds, to tell it from the row of another trail.
const HASH_BYTES: usize = 8;
/// What a cursor begins with.
const OF_ONE_CHAIN: u8 = 1;
const OF_CHAINS: u8 = 2;

/// A row's sequence, and the first bytes of its hash.
type Place = (i64, [u8; HASH_BYTES]);

/// A place in each chain of a trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryCursor {
    /// Of a trail in a file.
    Chain {
        /// The one chain.
        chain_id: String,
        /// The last row that was given.
        place: Place,
    },
    /// Of a trail in a database.
    Chains(ChainPlaces),
}

/// The last rows that were given of a database's chains, by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainPlaces {
    /// Chains up to this number were read to their end, but for those that have a place.
    pub(super) before: i64,
    /// Of the name of that chain, to tell it from that of another trail.
    pub(super) name_hash: [u8; HASH_BYTES],
    pub(super) of: BTreeMap<i64, Place>,
}

impl ChainPlaces {
    /// The last row that was given of a chain; 0: none.
    pub(super) fn sequence(&self, number: i64) -> i64 {
        self.of.get(&number).map_or(0, |(sequence, _)| *sequence)
    }

    /// A row was given.
    pub(super) fn step(&mut self, number: i64, sequence: i64, hash: Hash) {
        self.of.insert(number, (sequence, hash.first_bytes()));
    }
}

/// The text is no cursor of the feed, or not one of this trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the cursor of a row of this trail")]
pub struct InvalidEntryCursor;

impl EntryCursor {
    pub(super) fn of_one_chain(sequence: i64, hash: Hash) -> Self {
        Self::Chain {
            chain_id: CHAIN_ID.into(),
            place: (sequence, hash.first_bytes()),
        }
    }

    /// The place in the one chain of a trail in a file.
    pub(super) fn in_one_chain(&self) -> Option<i64> {
        match self {
            Self::Chain { place, .. } => Some(place.0),
            Self::Chains(_) => None,
        }
    }
}

impl fmt::Display for EntryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        match self {
            // Length and name of the chain, sequence, hash.
            Self::Chain { chain_id, place } => {
                bytes.push(OF_ONE_CHAIN);
                bytes.extend(u8::try_from(chain_id.len()));
                bytes.extend(chain_id.as_bytes());
                push_place(&mut bytes, place);
            }
            // The number up to which no other is left and, where there is one, its chain's name, then for each number, as steps, sequence and
            // hash.
            Self::Chains(places) => {
                bytes.push(OF_CHAINS);
                push_number(&mut bytes, places.before);
                if places.before > 0 {
                    bytes.extend(places.name_hash);
                }
                let mut before = 0;
                for (number, place) in &places.of {
                    push_number(&mut bytes, number - before);
                    push_place(&mut bytes, place);
                    before = *number;
                }
            }
        }
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

fn push_place(bytes: &mut Vec<u8>, (sequence, hash): &Place) {
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(hash);
}

/// Seven bits a byte, the least first; the eighth says that more follow (LEB128).
fn push_number(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = number.unsigned_abs();
    while rest >= 0x80 {
        bytes.push(low_bits(rest) | 0x80);
        rest >>= 7;
    }
    bytes.push(low_bits(rest));
}

/// The lowest seven.
fn low_bits(number: u64) -> u8 {
    number.to_le_bytes()[0] & 0x7f
}

/// What is left of a cursor that is read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn place(&mut self) -> Option<Place> {
        Some((i64::from_be_bytes(self.take()?), self.take()?))
    }

    fn number(&mut self) -> Option<i64> {
        let mut number = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return i64::try_from(number).ok();
            }
        }
        None
    }

    fn cursor(&mut self) -> Option<EntryCursor> {
        match self.next()? {
            OF_ONE_CHAIN => {
                let length = usize::from(self.next()?);
                let (name, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Some(EntryCursor::Chain {
                    chain_id: std::str::from_utf8(name).ok()?.to_owned(),
                    place: self.place()?,
                })
            }
            OF_CHAINS => {
                let mut places = ChainPlaces {
                    before: self.number()?,
                    ..ChainPlaces::default()
                };
                if places.before > 0 {
                    places.name_hash = self.take()?;
                }
                let mut number = 0_i64;
                while !self.0.is_empty() {
                    number = number.checked_add(self.number()?)?;
                    places.of.insert(number, self.place()?);
                }
                // The row that it is the cursor of has a place.
                (!places.of.is_empty()).then_some(EntryCursor::Chains(places))
            }
            _ => None,
        }
    }
}

impl FromStr for EntryCursor {
    type Err = InvalidEntryCursor;

    fn from_str(text: &str) -> Result<Self, InvalidEntryCursor> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| InvalidEntryCursor)?;
        let cursor = Bytes(&bytes).cursor().ok_or(InvalidEntryCursor)?;
        let is_written_so = cursor.to_string() == text;
        let named = !matches!(&cursor, EntryCursor::Chain { chain_id, .. } if chain_id != CHAIN_ID);
        if is_written_so && named {
            Ok(cursor)
        } else {
            Err(InvalidEntryCursor)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor() -> impl Strategy<Value = EntryCursor> {
        let place = || (any::<i64>(), any::<[u8; HASH_BYTES]>());
        let one = place().prop_map(|place| EntryCursor::Chain {
            chain_id: CHAIN_ID.into(),
            place,
        });
        let places = proptest::collection::btree_map(1_i64..i64::MAX, place(), 1..5);
        let many = (0_i64..=i64::MAX, any::<[u8; HASH_BYTES]>(), places).prop_map(
            |(before, name_hash, of)| {
                EntryCursor::Chains(ChainPlaces {
                    before,
                    name_hash: if before > 0 {
                        name_hash
                    } else {
                        [0; HASH_BYTES]
                    },
                    of,
                })
            },
        );
        prop_oneof![one, many]
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back(cursor in cursor()) {
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn no_other_text_is_a_cursor_or_makes_the_parser_panic(text in "\\PC{0,50}|[A-Za-z0-9_-]{0,50}") {
            if let Ok(cursor) = text.parse::<EntryCursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
