//! The hash chain: why a row that was changed, removed, inserted or moved cannot hide.
//!
//! Each row's `hash` is SHA-256 over the hash of the row before it (for the first row: 32 zero bytes) and
//! the canonical encoding of all its other columns, in the order of the table. Version 1 of the encoding
//! writes each value as
//!
//! - null: the byte `00`;
//! - an integer: the byte `01` and 8 bytes, big-endian two's complement;
//! - text: the byte `02`, its length in bytes as 8 bytes big-endian, and its bytes (UTF-8).
//!
//! Every value says its type and length, so no two rows share an encoding. The row's own `version` is the
//! first value: should an encoding 2 come, old rows stay as they are.
//!
//! # A worked example
//! A row that begins `version = 1`, `chain_id = 'main'`, `sequence = 1`, `kind = 'intent'` is encoded, after
//! the 32 zero bytes, as
//!
//! ```text
//! 01 0000000000000001
//! 02 0000000000000004 6d61696e
//! 01 0000000000000001
//! 02 0000000000000006 696e74656e74
//! …
//! ```
//!
//! and the whole of it can be checked with Python's standard library (`rows` in the order of `sequence`,
//! each with the columns in the order of the table, `hash` last):
//!
//! ```python
//! def cell(v):
//!     if v is None: return b"\0"
//!     if isinstance(v, int): return b"\1" + v.to_bytes(8, "big", signed=True)
//!     return b"\2" + len(v.encode()).to_bytes(8, "big") + v.encode()
//! before = bytes(32)
//! for sequence, row in enumerate(rows, 1):
//!     before = hashlib.sha256(before + b"".join(map(cell, row[:-1]))).digest()
//!     assert row[2] == sequence and row[-1] == before.hex()
//! ```
//!
//! Only a head that is kept elsewhere shows that a tail was cut off, so heads go to the log and to whoever
//! runs `audit verify`. Sealing and checking are pure functions of rows.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::{EventId, Timestamp};

use super::entry::{CHAIN_ID, COLUMNS, Cell, CellRef, Draft, Place};

/// A row's SHA-256; prints as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first row of a chain builds on.
    pub(super) const GENESIS: Self = Self([0; 32]);

    /// The hash of the row of `cells` that follows the row with this hash.
    pub(super) fn next(self, cells: &[Cell]) -> Self {
        let mut following = Following::new(self);
        for cell in cells {
            following.add(cell.borrowed());
        }
        following.finish()
    }
}

/// A row's hash in the making, column by column.
pub(super) struct Following(Vec<u8>);

impl Following {
    /// The row that follows the one with hash `before`.
    pub(super) fn new(before: Hash) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(&before.0);
        Self(bytes)
    }

    /// Takes the next column.
    pub(super) fn add(&mut self, cell: CellRef<'_>) {
        let bytes = &mut self.0;
        match cell {
            CellRef::Null => bytes.push(0),
            CellRef::Integer(number) => {
                bytes.push(1);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            CellRef::Text(text) => {
                bytes.push(2);
                bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
                bytes.extend_from_slice(text);
            }
            CellRef::Foreign => bytes.push(0xff),
        }
    }

    /// The row's hash.
    pub(super) fn finish(self) -> Hash {
        Hash(Sha256::digest(&self.0).into())
    }
}

impl Hash {
    /// The first bytes, enough to tell rows apart.
    pub(super) fn first_bytes<const N: usize>(self) -> [u8; N] {
        std::array::from_fn(|index| self.0.get(index).copied().unwrap_or(0))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no hash in lower-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 digits of lower-case hex")]
pub struct InvalidHash;

impl FromStr for Hash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let mut bytes = [0; 32];
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if lower => Ok(Self(bytes)),
            _ => Err(InvalidHash),
        }
    }
}

/// The end of a chain: its last row's sequence and hash. Prints as `CHAIN:SEQUENCE:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which chain.
    pub chain_id: String,
    /// The last row's place, 0 where there is none.
    pub sequence: i64,
    /// The last row's hash.
    pub hash: Hash,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.chain_id, self.sequence, self.hash)
    }
}

/// A row that is ready to be stored.
pub(super) struct Sealed {
    pub(super) place: Place,
    pub(super) cells: [Cell; COLUMNS.len()],
    pub(super) hash: Hash,
}

/// The end of the chain as its one writer holds it: gives rows their place, id and hash.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    sequence: i64,
    hash: Hash,
    last_event: Option<EventId>,
    last_recorded_at: Timestamp,
}

impl Tip {
    /// The end of the chain as it was read from the database.
    pub(super) fn new(
        sequence: i64,
        hash: Hash,
        last_event: Option<EventId>,
        last_recorded_at: Timestamp,
    ) -> Self {
        Self {
            sequence,
            hash,
            last_event,
            last_recorded_at,
        }
    }

    /// The end as others may note it.
    pub(super) fn head(&self) -> Head {
        Head {
            chain_id: CHAIN_ID.into(),
            sequence: self.sequence,
            hash: self.hash,
        }
    }

    pub(super) fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Seals one row after another. All rows of a group bear the same time, which never goes back.
    pub(super) fn seal<'a>(
        &mut self,
        drafts: impl Iterator<Item = &'a Draft>,
        now: Timestamp,
    ) -> Vec<Sealed> {
        self.last_recorded_at = self.last_recorded_at.max(now);
        drafts.map(|draft| self.seal_one(draft)).collect()
    }

    fn seal_one(&mut self, draft: &Draft) -> Sealed {
        let event_id = draft.event_id().unwrap_or_else(|| {
            let id = following_id(self.last_event, self.last_recorded_at);
            self.last_event = Some(id);
            id
        });
        self.sequence += 1;
        let place = Place {
            sequence: self.sequence,
            event_id,
            recorded_at: self.last_recorded_at,
        };
        let cells = draft.cells(place);
        self.hash = self.hash.next(&cells);
        Sealed {
            place,
            cells,
            hash: self.hash,
        }
    }
}

const RANDOM_BITS: u128 = 0x3fff_ffff_ffff_ffff;

/// An id of version 7 for `at` that is greater than `last`, whatever the clock did in between.
///
/// Ids are given in chain order and ever greater, so a reader that pages forward misses no event
/// (RFC 9562, section 6.2: monotonic random).
fn following_id(last: Option<EventId>, at: Timestamp) -> EventId {
    let fresh = |millis: u64| {
        let random: [u8; 16] = *Uuid::new_v4().as_bytes();
        let mut bits = [0; 10];
        // The first and last bytes of a version 4 id carry random bits only.
        bits[..4].copy_from_slice(&random[..4]);
        bits[4..].copy_from_slice(&random[10..]);
        uuid::Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
    };
    let candidate = fresh(at.as_millis());
    let Some(last) = last.map(EventId::as_uuid).filter(|last| candidate <= *last) else {
        return EventId::new(candidate);
    };
    let step = (Uuid::new_v4().as_u128() & 0xffff_ffff) + 1;
    let bits = last.as_u128();
    if (bits & RANDOM_BITS) + step <= RANDOM_BITS {
        EventId::new(Uuid::from_u128(bits + step))
    } else {
        EventId::new(fresh((bits >> 80) as u64 + 1))
    }
}

/// When an event's id says that it began, to the millisecond.
pub(super) fn id_time(id: EventId) -> Timestamp {
    let millis = (id.as_uuid().as_u128() >> 80) as i64;
    Timestamp::from_micros(millis.saturating_mul(1000))
}

/// The smallest id of version 7 at or after `time`.
pub(super) fn first_id_at(time: Timestamp) -> EventId {
    let millis = u128::try_from((time.as_micros().max(0) + 999) / 1000).unwrap_or(0);
    EventId::new(Uuid::from_u128(
        (millis.min((1 << 48) - 1) << 80) | (0x7 << 76) | (0x2 << 62),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_encoding_is_the_documented_one() {
        let mut cells = vec![Cell::Null; COLUMNS.len()];
        cells[0] = Cell::from(1);
        cells[1] = Cell::from("main");
        cells[2] = Cell::from(1);
        cells[3] = Cell::from("intent");
        let mut text = "00".repeat(32);
        text += "010000000000000001";
        text += "0200000000000000046d61696e";
        text += "010000000000000001";
        text += "020000000000000006696e74656e74";
        text += &"00".repeat(COLUMNS.len() - 4);
        let expected = Sha256::digest(hex::decode(text).expect("hex"));
        assert_eq!(
            Hash::GENESIS.next(&cells).to_string(),
            hex::encode(expected)
        );
    }

    #[test]
    fn hashes_read_back_and_only_in_lower_case() {
        let hash = Hash::GENESIS.next(&[Cell::from("x")]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(
            hash.to_string().to_uppercase().parse::<Hash>(),
            Err(InvalidHash)
        );
        assert_eq!("".parse::<Hash>(), Err(InvalidHash));
    }

    fn cell() -> impl Strategy<Value = Cell> {
        prop_oneof![
            Just(Cell::Null),
            any::<i64>().prop_map(Cell::Integer),
            "\\PC{0,6}".prop_map(Cell::Text),
        ]
    }

    proptest! {
        #[test]
        fn different_rows_have_different_hashes(
            one in proptest::collection::vec(cell(), 3),
            other in proptest::collection::vec(cell(), 3),
        ) {
            prop_assert_eq!(one == other, Hash::GENESIS.next(&one) == Hash::GENESIS.next(&other));
        }

        #[test]
        fn ids_only_grow_whatever_the_clock_does(steps in proptest::collection::vec(-3_000_i64..3_000, 1..200)) {
            let mut now = 1_800_000_000_000_000_i64;
            let mut last: Option<EventId> = None;
            for step in steps {
                now += step;
                let id = following_id(last, Timestamp::from_micros(now));
                prop_assert!(Some(id) > last);
                prop_assert_eq!(id.as_uuid().get_version_num(), 7);
                prop_assert_eq!(id.as_uuid().get_variant(), uuid::Variant::RFC4122);
                last = Some(id);
            }
        }

        #[test]
        fn an_id_lies_on_the_right_side_of_every_bound(micros in 0_i64..4_000_000_000_000_000, off in -5_000_i64..5_000) {
            let id = following_id(None, Timestamp::from_micros(micros));
            let bound = Timestamp::from_micros((micros + off).max(0));
            prop_assert_eq!(id >= first_id_at(bound), id_time(id) >= bound);
        }
    }

    #[test]
    fn an_id_at_the_end_of_its_random_bits_moves_to_the_next_millisecond() {
        let full = (1_800_000_000_000_u128 << 80) | (0x7fff << 64) | (0x2 << 62) | RANDOM_BITS;
        let last = EventId::new(Uuid::from_u128(full));
        let id = following_id(Some(last), Timestamp::from_micros(1_800_000_000_000_000));
        assert!(id > last);
        assert_eq!(id_time(id).as_millis(), 1_800_000_000_001);
    }
}
