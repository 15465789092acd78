//! Dates and times as PostgreSQL counts them: days and microseconds from 2000-01-01, proleptic Gregorian.
//!
//! Everything here works on the plain numbers that values hold: `i32` days for `date`, `i64` microseconds for `time`,
//! `timestamp` (local) and `timestamptz` (UTC), [`Interval`] and [`TimeTz`] for the two that are bytes.

mod arithmetic;
mod civil;
mod input;
mod interval;
mod interval_input;
mod keyword;
mod output;
mod timetz;
mod zone;

pub use arithmetic::*;
pub use civil::*;
pub use input::{parse_date, parse_time, parse_timestamp, parse_timestamptz, parse_timetz};
pub use interval::{INTERVAL_SORT_SIZE, Interval};
pub use interval_input::parse_interval;
pub use output::{format_date, format_interval, format_time, format_timestamp, format_timestamptz, format_timetz};
pub use timetz::TimeTz;
pub use zone::Zone;

pub const USECS_PER_DAY: i64 = 86_400_000_000;
pub const USECS_PER_HOUR: i64 = 3_600_000_000;
pub const USECS_PER_MINUTE: i64 = 60_000_000;
pub const USECS_PER_SEC: i64 = 1_000_000;

/// `-infinity` and `infinity` of a date.
pub const DATE_NEG_INFINITY: i32 = i32::MIN;
pub const DATE_INFINITY: i32 = i32::MAX;
/// `-infinity` and `infinity` of a timestamp.
pub const TIMESTAMP_NEG_INFINITY: i64 = i64::MIN;
pub const TIMESTAMP_INFINITY: i64 = i64::MAX;

/// The first day, 4714-11-24 BC.
pub const DATE_MIN: i32 = -2_451_545;
/// The day after the last one, 5874898-01-01.
pub const DATE_END: i32 = 2_145_031_949;
/// The first moment, 4714-11-24 00:00:00 BC.
pub const TIMESTAMP_MIN: i64 = -211_813_488_000_000_000;
/// The moment after the last one, 294277-01-01 00:00:00.
pub const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;

/// 1970-01-01 in days from 2000-01-01.
pub const UNIX_EPOCH_DAYS: i32 = -10_957;
/// 1970-01-01 00:00:00 in microseconds from 2000-01-01.
pub const UNIX_EPOCH_USECS: i64 = UNIX_EPOCH_DAYS as i64 * USECS_PER_DAY;

/// Says whether a timestamp is one of the infinities.
pub fn is_infinite(timestamp: i64) -> bool {
    timestamp == TIMESTAMP_INFINITY || timestamp == TIMESTAMP_NEG_INFINITY
}

/// The present moment as a `timestamptz`.
pub fn now() -> i64 {
    let unix = jiff::Timestamp::now().as_microsecond();
    unix + UNIX_EPOCH_USECS
}
