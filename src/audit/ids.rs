//! Ids of events: of version 7, in chain order, ever greater (RFC 9562, sections 5.7 and 6.2).

use std::time::Duration;

use uuid::Uuid;

use crate::domain::{EventId, Timestamp};

const RANDOM_BITS: u128 = 0x3fff_ffff_ffff_ffff;

/// An id of version 7 for `at` that is greater than `last`, whatever the clock did in between.
///
/// Ids are given in chain order and ever greater, so a reader that pages forward misses no event
/// (RFC 9562, section 6.2: monotonic random).
pub(super) fn following_id(last: Option<EventId>, at: Timestamp) -> EventId {
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
    // A bound may be of no version: an id behind it is of version 7 all the same.
    let is_an_id = last.get_version_num() == 7 && last.get_variant() == uuid::Variant::RFC4122;
    if is_an_id && (bits & RANDOM_BITS) + step <= RANDOM_BITS {
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

/// The smallest id of version 7 of `time`'s millisecond.
pub(super) fn least_id_at(time: Timestamp) -> EventId {
    first_id_at(Timestamp::from_micros(
        time.as_micros() - time.as_micros().rem_euclid(1000),
    ))
}

/// An id that is so much later.
pub(super) fn id_after(id: EventId, later: Duration) -> EventId {
    let bits = id.as_uuid().as_u128();
    EventId::new(Uuid::from_u128(
        bits.saturating_add(later.as_millis() << 80),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
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
    fn an_id_behind_a_bound_of_no_version_is_of_version_7() {
        let bound = EventId::new(Uuid::from_u128(1_800_000_000_000_u128 << 80));
        let id = following_id(Some(bound), Timestamp::from_micros(1_799_999_999_999_000));
        assert!(id > bound);
        assert_eq!(id.as_uuid().get_version_num(), 7);
        assert_eq!(id.as_uuid().get_variant(), uuid::Variant::RFC4122);
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
