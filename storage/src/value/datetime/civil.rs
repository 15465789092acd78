//! Days and microseconds to calendar fields and back.

use super::*;
use crate::error::{Error, Result, ValueErrorCode};

/// A calendar date and a time of day. Year 0 is 1 BC, as in ISO 8601.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub year: i32,
    /// 1 to 12
    pub month: i32,
    /// 1 to 31
    pub day: i32,
    /// 0 to 23
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
    pub micros: i32,
}

pub(crate) fn datetime_overflow(message: impl Into<String>) -> Error {
    Error::value(ValueErrorCode::DatetimeFieldOverflow, message)
}

/// Days from 2000-01-01 to a date that may be beyond the range of `date`. `day` may be any number.
pub fn days_from_civil(year: i32, month: i32, day: i32) -> i64 {
    // Counted in years that begin in March, so that the leap day comes last.
    let y = i64::from(year) - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let month_index = i64::from((month + 9).rem_euclid(12));
    let day_of_year = (153 * month_index + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 730_425
}

/// The date that is `days` from 2000-01-01: year, month, day.
pub fn civil_from_days(days: i64) -> (i32, i32, i32) {
    let z = days + 730_425;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as i32, month as i32, day as i32)
}

/// Says whether a year (0 is 1 BC) has a 29th of February.
pub fn is_leap_year(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The number of days in a month, 1 to 12.
pub fn days_in_month(year: i32, month: i32) -> i32 {
    match month {
        2 => 28 + i32::from(is_leap_year(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Splits microseconds from 2000-01-01 into days and the time of day.
pub fn split_timestamp(timestamp: i64) -> (i64, i64) {
    (timestamp.div_euclid(USECS_PER_DAY), timestamp.rem_euclid(USECS_PER_DAY))
}

/// The calendar fields of a finite local timestamp.
pub fn fields_from_timestamp(timestamp: i64) -> Fields {
    let (days, time) = split_timestamp(timestamp);
    let (year, month, day) = civil_from_days(days);
    Fields { year, month, day, ..fields_from_time(time) }
}

/// The fields of a time of day (24:00:00 included); the date is zero.
pub fn fields_from_time(time: i64) -> Fields {
    Fields {
        hour: (time / USECS_PER_HOUR) as i32,
        minute: (time / USECS_PER_MINUTE % 60) as i32,
        second: (time / USECS_PER_SEC % 60) as i32,
        micros: (time % USECS_PER_SEC) as i32,
        ..Fields::default()
    }
}

impl Fields {
    /// Microseconds since midnight.
    pub fn time(&self) -> i64 {
        i64::from(self.hour) * USECS_PER_HOUR
            + i64::from(self.minute) * USECS_PER_MINUTE
            + i64::from(self.second) * USECS_PER_SEC
            + i64::from(self.micros)
    }

    /// The local timestamp, where it is in range. The fields need not be normal (24:00:00, second 60).
    pub fn timestamp(&self) -> Option<i64> {
        let days = days_from_civil(self.year, self.month, self.day);
        days.checked_mul(USECS_PER_DAY)?.checked_add(self.time()).filter(|t| (TIMESTAMP_MIN..TIMESTAMP_END).contains(t))
    }
}

/// The date's days, where it is in range.
pub fn date_from_civil(year: i32, month: i32, day: i32) -> Option<i32> {
    let days = days_from_civil(year, month, day);
    (i64::from(DATE_MIN)..i64::from(DATE_END)).contains(&days).then_some(days as i32)
}

/// Checks that a date is in range.
/// # Errors
/// `Value` (22008).
pub fn check_date(days: i64) -> Result<i32> {
    if (i64::from(DATE_MIN)..i64::from(DATE_END)).contains(&days) { Ok(days as i32) } else { Err(datetime_overflow("date out of range")) }
}

/// Checks that a finite timestamp is in range.
/// # Errors
/// `Value` (22008).
pub fn check_timestamp(timestamp: Option<i64>) -> Result<i64> {
    timestamp.filter(|t| (TIMESTAMP_MIN..TIMESTAMP_END).contains(t)).ok_or_else(|| datetime_overflow("timestamp out of range"))
}

/// Sunday is 0.
pub fn day_of_week(days: i64) -> i32 {
    (days + 6).rem_euclid(7) as i32
}

/// The first of January is 1.
pub fn day_of_year(days: i64) -> i32 {
    let (year, _, _) = civil_from_days(days);
    (days - days_from_civil(year, 1, 1) + 1) as i32
}

/// ISO 8601's year and week of a date.
pub fn iso_week(days: i64) -> (i32, i32) {
    // The week belongs to the year of its Thursday.
    let thursday = days - (days + 5).rem_euclid(7) + 3;
    let (year, _, _) = civil_from_days(thursday);
    (year, ((thursday - days_from_civil(year, 1, 1)) / 7 + 1) as i32)
}

/// The Monday of an ISO week.
pub fn iso_week_start(iso_year: i32, week: i32) -> i64 {
    let fourth = days_from_civil(iso_year, 1, 4);
    fourth - (fourth + 5).rem_euclid(7) + i64::from(week - 1) * 7
}

/// The Julian day number of a date.
pub fn julian_day(days: i64) -> i64 {
    days + 2_451_545
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_inverse() {
        assert_eq!(days_from_civil(2000, 1, 1), 0);
        assert_eq!(days_from_civil(1970, 1, 1), i64::from(UNIX_EPOCH_DAYS));
        assert_eq!(days_from_civil(-4713, 11, 24), i64::from(DATE_MIN));
        assert_eq!(days_from_civil(5874898, 1, 1), i64::from(DATE_END));
        assert_eq!(days_from_civil(294277, 1, 1) * USECS_PER_DAY, TIMESTAMP_END);
        for days in (-3_000_000i64..3_000_000).step_by(97) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }

    #[test]
    fn weeks_and_weekdays_are_iso() {
        assert_eq!(day_of_week(0), 6);
        assert_eq!(day_of_week(1), 0);
        assert_eq!(iso_week(0), (1999, 52));
        assert_eq!(iso_week(2), (2000, 1));
        assert_eq!(iso_week_start(2000, 1), 2);
        assert_eq!(day_of_year(0), 1);
    }
}
