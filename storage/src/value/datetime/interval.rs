//! `interval`: months, days and microseconds, kept apart.

use std::cmp::Ordering;

use super::{USECS_PER_DAY, datetime_overflow};
use crate::error::{Error, Result};

/// The bytes of a stored interval that sort as PostgreSQL compares.
pub const INTERVAL_SORT_SIZE: usize = 16;

/// Months, days and time; comparison takes a month as 30 days and a day as 24 hours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

fn damaged() -> Error {
    Error::Damaged { place: "interval".into(), what: "wrong size".into() }
}

impl Interval {
    pub const fn new(months: i32, days: i32, micros: i64) -> Self {
        Interval { months, days, micros }
    }

    /// The length that comparison sees, in microseconds.
    pub fn span(&self) -> i128 {
        (i128::from(self.months) * 30 + i128::from(self.days)) * i128::from(USECS_PER_DAY) + i128::from(self.micros)
    }

    /// The stored form: 16 bytes that sort, then months, days and microseconds, all big-endian.
    pub fn encode(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(32);
        self.encode_to(&mut out);
        out.into_boxed_slice()
    }

    /// Appends the stored form.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        out.extend((self.span() ^ i128::MIN).to_be_bytes());
        out.extend(self.months.to_be_bytes());
        out.extend(self.days.to_be_bytes());
        out.extend(self.micros.to_be_bytes());
    }

    /// Reads the stored form.
    /// # Errors
    /// `Damaged`.
    pub fn decode(stored: &[u8]) -> Result<Self> {
        let (_, exact) = stored.split_first_chunk::<INTERVAL_SORT_SIZE>().ok_or_else(damaged)?;
        let exact: &[u8; 16] = exact.try_into().map_err(|_| damaged())?;
        let word = u128::from_be_bytes(*exact);
        Ok(Interval { months: (word >> 96) as i32, days: (word >> 64) as i32, micros: word as i64 })
    }

    /// An interval that is equal to the one with these sorting bytes; months appear only where days cannot hold it.
    /// # Errors
    /// `Damaged`.
    pub fn from_sort_bytes(sort: &[u8; INTERVAL_SORT_SIZE]) -> Result<Self> {
        let span = i128::from_be_bytes(*sort) ^ i128::MIN;
        let (days, micros) = (span / i128::from(USECS_PER_DAY), span % i128::from(USECS_PER_DAY));
        let (months, days) = if i32::try_from(days).is_ok() { (0, days) } else { (days / 30, days % 30) };
        let months = i32::try_from(months).ok();
        // What is beyond the months' range came from the days and the time.
        match months {
            Some(months) => Ok(Interval { months, days: days as i32, micros: micros as i64 }),
            None => {
                let limit = if span < 0 { i32::MIN } else { i32::MAX };
                let rest = span - i128::from(limit) * 30 * i128::from(USECS_PER_DAY);
                let days = i32::try_from(rest / i128::from(USECS_PER_DAY)).unwrap_or(limit);
                let micros = rest - i128::from(days) * i128::from(USECS_PER_DAY);
                Ok(Interval { months: limit, days, micros: i64::try_from(micros).map_err(|_| damaged())? })
            }
        }
    }

    /// # Errors
    /// `Value` (interval out of range).
    pub fn neg(&self) -> Result<Self> {
        Self::checked(self.months.checked_neg(), self.days.checked_neg(), self.micros.checked_neg())
    }

    /// # Errors
    /// `Value` (interval out of range).
    pub fn add(&self, other: &Self) -> Result<Self> {
        Self::checked(self.months.checked_add(other.months), self.days.checked_add(other.days), self.micros.checked_add(other.micros))
    }

    /// # Errors
    /// `Value` (interval out of range).
    pub fn sub(&self, other: &Self) -> Result<Self> {
        Self::checked(self.months.checked_sub(other.months), self.days.checked_sub(other.days), self.micros.checked_sub(other.micros))
    }

    fn checked(months: Option<i32>, days: Option<i32>, micros: Option<i64>) -> Result<Self> {
        match (months, days, micros) {
            (Some(months), Some(days), Some(micros)) => Ok(Interval { months, days, micros }),
            _ => Err(datetime_overflow("interval out of range")),
        }
    }

    /// Multiplies; fractions of months flow into days and those of days into time.
    /// # Errors
    /// `Value` (interval out of range).
    pub fn mul(&self, factor: f64) -> Result<Self> {
        self.scale(|v| v * factor)
    }

    /// Divides; fractions of months flow into days and those of days into time.
    /// # Errors
    /// `Value` (division by zero, interval out of range).
    pub fn div(&self, divisor: f64) -> Result<Self> {
        if divisor == 0.0 {
            return Err(Error::value(crate::error::ValueErrorCode::DivisionByZero, "division by zero"));
        }
        self.scale(|v| v / divisor)
    }

    fn scale(&self, f: impl Fn(f64) -> f64) -> Result<Self> {
        const DAY: f64 = 86_400.0;
        // PostgreSQL rounds to microseconds here so that a fraction such as 0.9999999 of a day becomes a day.
        let rounded = |v: f64| (v * 1e6).round_ties_even() / 1e6;
        let out_of_range = || datetime_overflow("interval out of range");
        let integer = |v: f64| -> Result<i32> {
            if v.is_nan() || v >= 2_147_483_648.0 || v <= -2_147_483_649.0 { Err(out_of_range()) } else { Ok(v as i32) }
        };
        let months_f = f(f64::from(self.months));
        let months = integer(months_f)?;
        let days_f = f(f64::from(self.days));
        let mut days = integer(days_f)?;
        let month_days = rounded((months_f - f64::from(months)) * 30.0);
        let mut seconds = rounded((days_f - f64::from(days) + month_days - month_days.trunc()) * DAY);
        if seconds.abs() >= DAY {
            days = days.checked_add((seconds / DAY) as i32).ok_or_else(out_of_range)?;
            seconds -= (seconds / DAY).trunc() * DAY;
        }
        days = days.checked_add(month_days as i32).ok_or_else(out_of_range)?;
        let micros = (f(self.micros as f64) + seconds * 1e6).round_ties_even();
        if micros.is_nan() || !(-9.223372036854775e18..9.223372036854775e18).contains(&micros) {
            return Err(out_of_range());
        }
        Ok(Interval { months, days, micros: micros as i64 })
    }

    /// SQL's `justify_hours`: whole days of time become days.
    /// # Errors
    /// `Value` (interval out of range).
    pub fn justify_hours(&self) -> Result<Self> {
        let days = self.days.checked_add((self.micros / USECS_PER_DAY) as i32);
        let Interval { mut days, mut micros, months } = Self::checked(Some(self.months), days, Some(self.micros % USECS_PER_DAY))?;
        if days > 0 && micros < 0 {
            micros += USECS_PER_DAY;
            days -= 1;
        } else if days < 0 && micros > 0 {
            micros -= USECS_PER_DAY;
            days += 1;
        }
        Ok(Interval { months, days, micros })
    }

    /// SQL's `justify_days`: 30 days become a month.
    /// # Errors
    /// `Value` (interval out of range).
    pub fn justify_days(&self) -> Result<Self> {
        let Interval { mut months, mut days, micros } =
            Self::checked(self.months.checked_add(self.days / 30), Some(self.days % 30), Some(self.micros))?;
        if months > 0 && days < 0 {
            days += 30;
            months -= 1;
        } else if months < 0 && days > 0 {
            days -= 30;
            months += 1;
        }
        Ok(Interval { months, days, micros })
    }

    /// SQL's `justify_interval`: both, with one sign for all fields.
    /// # Errors
    /// `Value` (interval out of range).
    pub fn justify_interval(&self) -> Result<Self> {
        let days = i64::from(self.days) + self.micros / USECS_PER_DAY;
        let mut micros = self.micros % USECS_PER_DAY;
        let months = i64::from(self.months) + days / 30;
        let mut days = days % 30;
        let mut months = i32::try_from(months).map_err(|_| datetime_overflow("interval out of range"))?;
        if months > 0 && (days < 0 || days == 0 && micros < 0) {
            days += 30;
            months -= 1;
        } else if months < 0 && (days > 0 || days == 0 && micros > 0) {
            days -= 30;
            months += 1;
        }
        if days > 0 && micros < 0 {
            micros += USECS_PER_DAY;
            days -= 1;
        } else if days < 0 && micros > 0 {
            micros -= USECS_PER_DAY;
            days += 1;
        }
        Ok(Interval { months, days: days as i32, micros })
    }
}

impl PartialEq for Interval {
    fn eq(&self, other: &Self) -> bool {
        self.span() == other.span()
    }
}

impl Eq for Interval {}

impl Ord for Interval {
    fn cmp(&self, other: &Self) -> Ordering {
        self.span().cmp(&other.span())
    }
}

impl PartialOrd for Interval {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
