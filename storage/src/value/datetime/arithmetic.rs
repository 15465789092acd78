//! Rounding to a modifier's precision.

use super::*;
use crate::error::Result;

/// Rounds to a power of ten of microseconds, half away from zero.
fn round_micros(micros: i64, typmod: i32) -> Option<i64> {
    if !(0..6).contains(&typmod) {
        return Some(micros);
    }
    let unit = 10i64.pow(6 - typmod as u32);
    let rounded = micros.checked_abs()?.checked_add(unit / 2)? / unit * unit;
    Some(if micros < 0 { -rounded } else { rounded })
}

/// Applies the precision of `time(n)`.
pub fn round_time(time: i64, typmod: i32) -> i64 {
    round_micros(time, typmod).unwrap_or(time)
}

/// Applies the precision of `timestamp(n)` and `timestamptz(n)`.
/// # Errors
/// `Value` (22008).
pub fn round_timestamp(timestamp: i64, typmod: i32) -> Result<i64> {
    if is_infinite(timestamp) {
        return Ok(timestamp);
    }
    // Rounding may reach the moment after the last one, which PostgreSQL lets pass.
    round_micros(timestamp, typmod).ok_or_else(|| datetime_overflow("timestamp out of range"))
}

/// Applies an interval's modifier: the fields that it keeps and the precision of its seconds.
/// # Errors
/// `Value` (22008).
pub fn apply_interval_typmod(interval: Interval, typmod: i32) -> Result<Interval> {
    if typmod < 0 {
        return Ok(interval);
    }
    const YEAR: i32 = 1 << 2;
    const MONTH: i32 = 1 << 1;
    const DAY: i32 = 1 << 3;
    const HOUR: i32 = 1 << 10;
    const MINUTE: i32 = 1 << 11;
    let range = typmod >> 16 & 0x7FFF;
    let precision = typmod & 0xFFFF;
    let mut i = interval;
    // The least field named cuts off what is below it; greater fields stay.
    match range {
        YEAR => i = Interval::new(i.months / 12 * 12, 0, 0),
        r if r == MONTH || r == YEAR | MONTH => i = Interval::new(i.months, 0, 0),
        DAY => i.micros = 0,
        r if r == HOUR || r == DAY | HOUR => i.micros = i.micros / USECS_PER_HOUR * USECS_PER_HOUR,
        r if r == MINUTE || r == DAY | HOUR | MINUTE || r == HOUR | MINUTE => i.micros = i.micros / USECS_PER_MINUTE * USECS_PER_MINUTE,
        _ => {}
    }
    if precision <= 6 {
        i.micros = round_micros(i.micros, precision).ok_or_else(|| datetime_overflow("interval out of range"))?;
    }
    Ok(i)
}
