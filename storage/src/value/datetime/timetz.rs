//! `time with time zone`: a time of day and a displacement.

use super::{USECS_PER_DAY, USECS_PER_SEC};
use crate::error::{Error, Result};

/// Seconds from UTC that a zone does not reach: 16 hours, as in PostgreSQL.
const ZONE_LIMIT: u32 = 16 * 3600;

/// A local time of day with its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeTz {
    /// Microseconds since local midnight.
    pub time: i64,
    /// Seconds *west* of UTC, PostgreSQL's sign.
    pub zone: i32,
}

impl TimeTz {
    /// The stored form: big-endian UTC-adjusted microseconds and zone, sign bits flipped; sorts as PostgreSQL compares.
    pub fn encode(self) -> [u8; 12] {
        let mut out = [0; 12];
        let utc = self.time + i64::from(self.zone) * USECS_PER_SEC;
        out[..8].copy_from_slice(&(utc ^ i64::MIN).to_be_bytes());
        out[8..].copy_from_slice(&(self.zone ^ i32::MIN).to_be_bytes());
        out
    }

    /// # Errors
    /// `Damaged`.
    pub fn decode(stored: &[u8]) -> Result<Self> {
        let wrong = |what: &str| Error::Damaged { place: "time with time zone".into(), what: what.into() };
        let damaged = || wrong("wrong size");
        let (utc, zone) = stored.split_first_chunk::<8>().ok_or_else(damaged)?;
        let zone = i32::from_be_bytes(zone.try_into().map_err(|_| damaged())?) ^ i32::MIN;
        let utc = i64::from_be_bytes(*utc) ^ i64::MIN;
        let time = utc.wrapping_sub(i64::from(zone) * USECS_PER_SEC);
        if zone.unsigned_abs() >= ZONE_LIMIT || !(0..=USECS_PER_DAY).contains(&time) {
            return Err(wrong("out of range"));
        }
        Ok(TimeTz { time, zone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_out_of_range_are_refused() {
        let stored = |time: i64, zone: i32| TimeTz { time, zone }.encode();
        for (time, zone) in [(0, 0), (USECS_PER_DAY, -57_599), (1, 57_599)] {
            assert_eq!(TimeTz::decode(&stored(time, zone)).unwrap(), TimeTz { time, zone });
        }
        for (time, zone) in [(-1, 0), (USECS_PER_DAY + 1, 0), (0, 57_600), (0, -57_600), (0, i32::MIN)] {
            assert!(TimeTz::decode(&stored(time, zone)).is_err(), "{time} {zone}");
        }
    }
}
