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
//! The first row of a chain, a denial: after 32 zero bytes for the row before it, its columns are
//!
//! ```text
//! version             = 01 0000000000000001
//! chain_id            = 02 0000000000000004 6d61696e
//! sequence            = 01 0000000000000001
//! kind                = 02 0000000000000006 64656e69616c
//! event_id            = 02 0000000000000024 30313961623363342d643565362d376630302d383132332d343536373839616263646566
//! recorded_at         = 01 000644548f12d7a6
//! subject             = 02 0000000000000006 7465616d2d61
//! issuer              = 02 0000000000000016 68747470733a2f2f6973737565722e6578616d706c65
//! token_id            = 00
//! client_ip           = 02 0000000000000008 31302e312e322e33
//! user_agent          = 00
//! request_id          = 02 0000000000000003 722d31
//! trace_id            = 00
//! operation           = 02 0000000000000005 7368617265
//! image_id            = 02 0000000000000005 696d672d31
//! account_id          = 01 0000000000000007
//! region              = 02 0000000000000007 636e2d776c6362
//! reason              = 00
//! expires_at          = 00
//! policy_ids          = 02 0000000000000002 5b5d
//! outcome             = 02 0000000000000006 64656e696564
//! http_status         = 01 0000000000000193
//! upstream_ret_code   = 00
//! upstream_request_id = 00
//! upstream_calls      = 01 0000000000000000
//! duration_ms         = 01 0000000000000002
//! detail              = 02 0000000000000002 6e6f
//! hash                = 01b93317f13c7c43cd37cd6c006c7afedf007b1b37fb3c79e60e226ad44e822b
//! ```
//!
//! docs/trail.md has a program of Python's standard library that checks whole trails so.
//!
//! Only a head that is kept elsewhere shows that a tail was cut off, so heads go to the log and to whoever
//! runs `audit verify`. Sealing and checking are pure functions of rows.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::domain::{EventId, Timestamp};

use super::columns::COLUMNS;
use super::entry::{Cell, CellRef, Draft, RowPlace};
use super::ids::{following_id, id_time};

/// A row's SHA-256; prints as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first row of a chain builds on.
    pub(super) const GENESIS: Self = Self([0; 32]);

    /// The hash of the row of `cells` that follows the row with this hash.
    pub(super) fn next(self, cells: &[Cell<'_>]) -> Self {
        let mut following = Following::new(self);
        for cell in cells {
            following.add(cell.borrowed());
        }
        following.finish()
    }

    /// Writes it as it prints, and gives that.
    pub(super) fn write_hex<'a>(&self, text: &'a mut [u8; 64]) -> &'a str {
        let written = hex::encode_to_slice(self.0, text.as_mut_slice());
        written.expect("two digits a byte fit into 64");
        std::str::from_utf8(text).expect("hexadecimal digits are ASCII")
    }

    /// The first bytes, enough to tell rows apart.
    pub(super) fn first_bytes<const N: usize>(self) -> [u8; N] {
        std::array::from_fn(|index| self.0.get(index).copied().unwrap_or(0))
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

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write_hex(&mut [0; 64]))
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

/// The text is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be CHAIN:SEQUENCE:HASH")]
pub struct InvalidHead;

impl FromStr for Head {
    type Err = InvalidHead;

    fn from_str(text: &str) -> Result<Self, InvalidHead> {
        let mut parts = text.splitn(3, ':');
        let (Some(chain_id), Some(sequence), Some(hash)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidHead);
        };
        Ok(Self {
            chain_id: chain_id.to_owned(),
            sequence: sequence.parse().map_err(|_| InvalidHead)?,
            hash: hash.parse().map_err(|_| InvalidHead)?,
        })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.chain_id, self.sequence, self.hash)
    }
}

/// A row that is ready to be stored; what it says is mostly its draft's.
pub(super) struct Sealed<'a> {
    pub(super) place: RowPlace,
    pub(super) cells: [Cell<'a>; COLUMNS.len()],
    pub(super) hash: Hash,
}

/// The end of the chain as its one writer holds it: gives rows their place, id and hash.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    chain_id: Arc<str>,
    sequence: i64,
    hash: Hash,
    last_event: Option<EventId>,
}

impl Tip {
    /// The end of the chain as it was read from the database.
    pub(super) fn new(
        chain_id: impl Into<Arc<str>>,
        sequence: i64,
        hash: Hash,
        last_event: Option<EventId>,
    ) -> Self {
        Self {
            chain_id: chain_id.into(),
            sequence,
            hash,
            last_event,
        }
    }

    /// Of a writer that has no chain yet.
    pub(super) fn of_nothing() -> Self {
        Self::new("", 0, Hash::GENESIS, None)
    }

    /// The end as others may note it.
    pub(super) fn head(&self) -> Head {
        Head {
            chain_id: self.chain_id.to_string(),
            sequence: self.sequence,
            hash: self.hash,
        }
    }

    pub(super) fn chain_id(&self) -> &Arc<str> {
        &self.chain_id
    }

    pub(super) fn sequence(&self) -> i64 {
        self.sequence
    }

    /// Has later ids be greater than this one, too.
    pub(super) fn raise(&mut self, above: EventId) {
        self.last_event = self.last_event.max(Some(above));
    }

    /// The last event; ids given later are greater.
    pub(super) fn last_event(&self) -> Option<EventId> {
        self.last_event
    }

    /// The time in the last event's id; ids given later are not before it.
    pub(super) fn last_event_at(&self) -> Option<Timestamp> {
        self.last_event.map(id_time)
    }

    /// Seals the next row. All rows of a group bear the same time, the clock's own.
    pub(super) fn seal<'a>(&mut self, draft: &'a Draft, now: Timestamp) -> Sealed<'a> {
        let event_id = draft.event_id().unwrap_or_else(|| {
            let id = following_id(self.last_event, now);
            self.last_event = Some(id);
            id
        });
        self.sequence += 1;
        let place = RowPlace {
            sequence: self.sequence,
            event_id,
            recorded_at: now,
        };
        let cells = draft.cells(&self.chain_id, place);
        self.hash = self.hash.next(&cells);
        Sealed {
            place,
            cells,
            hash: self.hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The worked example of this module's docs: its columns by name, and its hash.
    fn worked_example() -> (Vec<(&'static str, String)>, &'static str) {
        let docs = include_str!("chain.rs");
        let example = docs.split("//! ```text\n").nth(1).expect("an example");
        let mut lines: Vec<(&str, String)> = example
            .lines()
            .take_while(|line| *line != "//! ```")
            .map(|line| {
                let line = line.strip_prefix("//! ").expect("docs");
                let (name, bytes) = line.split_once('=').expect("a column and its bytes");
                (name.trim(), bytes.replace(' ', ""))
            })
            .collect();
        let (name, _) = lines.pop().expect("the hash");
        assert_eq!(name, "hash");
        let hash = example.split("hash                = ").nth(1);
        (lines, &hash.expect("the hash")[..64])
    }

    #[test]
    fn the_encoding_is_the_documented_one() {
        let text = |text: &'static str| Cell::from(text);
        let row = [
            Cell::from(1),
            text("main"),
            Cell::from(1),
            text("denial"),
            text("019ab3c4-d5e6-7f00-8123-456789abcdef"),
            Cell::from(1_763_979_828_582_310),
            text("team-a"),
            text("https://issuer.example"),
            Cell::Null,
            text("10.1.2.3"),
            Cell::Null,
            text("r-1"),
            Cell::Null,
            text("share"),
            text("img-1"),
            Cell::from(7),
            text("cn-wlcb"),
            Cell::Null,
            Cell::Null,
            text("[]"),
            text("denied"),
            Cell::from(403),
            Cell::Null,
            Cell::Null,
            Cell::from(0),
            Cell::from(2),
            text("no"),
        ];
        let (lines, hash) = worked_example();
        let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, COLUMNS);
        for ((name, bytes), cell) in lines.iter().zip(&row) {
            let mut following = Following(Vec::new());
            following.add(cell.borrowed());
            assert_eq!(hex::encode(following.0), *bytes, "{name}");
        }
        let bytes: String = lines.into_iter().map(|(_, bytes)| bytes).collect();
        let bytes = hex::decode("00".repeat(32) + &bytes).expect("hex");
        assert_eq!(hex::encode(Sha256::digest(bytes)), hash);
        assert_eq!(Hash::GENESIS.next(&row).to_string(), hash);
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

    fn cell() -> impl Strategy<Value = Cell<'static>> {
        prop_oneof![
            Just(Cell::Null),
            any::<i64>().prop_map(Cell::Integer),
            "\\PC{0,6}".prop_map(Cell::from),
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
    }
}
