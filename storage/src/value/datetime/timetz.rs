//! `time with time zone`: a time of day and a displacement.

use super::USECS_PER_SEC;
use crate::error::{Error, Result};

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
        let damaged = || Error::Damaged { place: "time with time zone".into(), what: "wrong size".into() };
        let (utc, zone) = stored.split_first_chunk::<8>().ok_or_else(damaged)?;
        let zone = i32::from_be_bytes(zone.try_into().map_err(|_| damaged())?) ^ i32::MIN;
        let utc = i64::from_be_bytes(*utc) ^ i64::MIN;
        Ok(TimeTz { time: utc.wrapping_sub(i64::from(zone) * USECS_PER_SEC), zone })
    }
}
