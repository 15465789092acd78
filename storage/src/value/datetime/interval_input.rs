//! Reading intervals: PostgreSQL's own forms, the SQL standard's, and ISO 8601's.

use super::input::{Fault, FieldKind, Parsed, decode_clock, split_fields};
use super::keyword::{self, Keyword, Unit};
use super::*;
use crate::error::Result;
use crate::value::TextSettings;
use crate::value::text::IntervalStyle;

/// The bit of a field in an interval's modifier.
mod range_bit {
    pub const MONTH: i32 = 1 << 1;
    pub const YEAR: i32 = 1 << 2;
    pub const DAY: i32 = 1 << 3;
    pub const HOUR: i32 = 1 << 10;
    pub const MINUTE: i32 = 1 << 11;
    pub const SECOND: i32 = 1 << 12;
}

/// Sums up fields with the fractions that flow into smaller ones.
#[derive(Default)]
struct Sum {
    years: i32,
    months: i32,
    days: i32,
    micros: i64,
}

const OVERFLOW: Fault = Fault::FieldOverflow;

impl Sum {
    fn add_micros(&mut self, value: i64, fraction: f64, unit: i64) -> Parsed<()> {
        self.micros = value.checked_mul(unit).and_then(|v| self.micros.checked_add(v)).ok_or(OVERFLOW)?;
        self.add_fraction_micros(fraction, unit)
    }

    fn add_fraction_micros(&mut self, fraction: f64, unit: i64) -> Parsed<()> {
        let exact = fraction * unit as f64;
        let mut micros = exact as i64;
        let rest = exact - micros as f64;
        if rest > 0.5 {
            micros += 1;
        } else if rest < -0.5 {
            micros -= 1;
        }
        self.micros = self.micros.checked_add(micros).ok_or(OVERFLOW)?;
        Ok(())
    }

    fn add_days(&mut self, value: i64, unit: i64) -> Parsed<()> {
        let days = value.checked_mul(unit).and_then(|d| i32::try_from(d).ok()).ok_or(OVERFLOW)?;
        self.days = self.days.checked_add(days).ok_or(OVERFLOW)?;
        Ok(())
    }

    fn add_fraction_days(&mut self, fraction: f64, unit: i32) -> Parsed<()> {
        let exact = fraction * f64::from(unit);
        let days = exact as i32;
        self.days = self.days.checked_add(days).ok_or(OVERFLOW)?;
        self.add_fraction_micros(exact - f64::from(days), USECS_PER_DAY)
    }

    fn add_months(&mut self, value: i64) -> Parsed<()> {
        let months = i32::try_from(value).map_err(|_| OVERFLOW)?;
        self.months = self.months.checked_add(months).ok_or(OVERFLOW)?;
        Ok(())
    }

    fn add_years(&mut self, value: i64, fraction: f64, unit: i64) -> Parsed<()> {
        let years = value.checked_mul(unit).and_then(|y| i32::try_from(y).ok()).ok_or(OVERFLOW)?;
        self.years = self.years.checked_add(years).ok_or(OVERFLOW)?;
        self.add_months((fraction * unit as f64 * 12.0).round_ties_even() as i64)
    }

    /// Adds a value of a unit; the unit then stands for `seen` among the fields filled.
    fn add(&mut self, value: i64, fraction: f64, unit: Unit) -> Parsed<()> {
        match unit {
            Unit::Microsecond => self.add_micros(value, fraction, 1),
            Unit::Millisecond => self.add_micros(value, fraction, 1000),
            Unit::Second => self.add_micros(value, fraction, USECS_PER_SEC),
            Unit::Minute => self.add_micros(value, fraction, USECS_PER_MINUTE),
            Unit::Hour => self.add_micros(value, fraction, USECS_PER_HOUR),
            Unit::Day => {
                self.add_days(value, 1)?;
                self.add_fraction_micros(fraction, USECS_PER_DAY)
            }
            Unit::Week => {
                self.add_days(value, 7)?;
                self.add_fraction_days(fraction, 7)
            }
            Unit::Month => {
                self.add_months(value)?;
                self.add_fraction_days(fraction, 30)
            }
            Unit::Year => self.add_years(value, fraction, 1),
            Unit::Decade => self.add_years(value, fraction, 10),
            Unit::Century => self.add_years(value, fraction, 100),
            Unit::Millennium => self.add_years(value, fraction, 1000),
            _ => Err(Fault::BadFormat),
        }
    }

    fn negate(&mut self) -> Parsed<()> {
        self.years = self.years.checked_neg().ok_or(OVERFLOW)?;
        self.months = self.months.checked_neg().ok_or(OVERFLOW)?;
        self.days = self.days.checked_neg().ok_or(OVERFLOW)?;
        self.micros = self.micros.checked_neg().ok_or(OVERFLOW)?;
        Ok(())
    }

    fn interval(&self) -> Option<Interval> {
        let months = self.years.checked_mul(12)?.checked_add(self.months)?;
        Some(Interval::new(months, self.days, self.micros))
    }
}

/// The bits that a unit fills: seconds with a fraction fill the smaller units, too.
fn filled_by(unit: Unit, fraction: f64) -> u32 {
    let bit = |u: Unit| 1u32 << u as u32;
    match unit {
        Unit::Second if fraction != 0.0 => bit(Unit::Second) | bit(Unit::Millisecond) | bit(Unit::Microsecond),
        u => bit(u),
    }
}

fn clock_bits() -> u32 {
    [Unit::Hour, Unit::Minute, Unit::Second, Unit::Millisecond, Unit::Microsecond].iter().fold(0, |m, u| m | 1 << *u as u32)
}

/// The unit of a number at the end that names none.
fn last_unit(range: i32) -> Unit {
    use range_bit::*;
    if range & SECOND != 0 || range == 0x7FFF {
        Unit::Second
    } else if range & MINUTE != 0 {
        Unit::Minute
    } else if range & HOUR != 0 {
        Unit::Hour
    } else if range & DAY != 0 {
        Unit::Day
    } else if range & MONTH != 0 {
        Unit::Month
    } else if range & YEAR != 0 {
        Unit::Year
    } else {
        Unit::Second
    }
}

/// Reads `-12.5`, or `1-2` as years and months; the value, its fraction with the same sign, and whether it was the latter.
fn decode_number(text: &str) -> Parsed<(i64, f64, bool)> {
    let negative = text.starts_with('-');
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
    let digits = if end == 0 { "0" } else { &body[..end] };
    let signed = |v: i64| if negative { -v } else { v };
    let value: i64 = digits.parse().map_err(|_| OVERFLOW)?;
    let rest = &body[end..];
    match rest.as_bytes().first() {
        None => Ok((signed(value), 0.0, false)),
        Some(b'.') => {
            if !rest[1..].bytes().all(|b| b.is_ascii_digit()) {
                return Err(Fault::BadFormat);
            }
            let fraction: f64 = format!("0{rest}0").parse().map_err(|_| Fault::BadFormat)?;
            Ok((signed(value), if negative { -fraction } else { fraction }, false))
        }
        Some(b'-') if end > 0 => {
            let months: i64 = rest[1..].parse().map_err(|_| Fault::BadFormat)?;
            if !(0..12).contains(&months) {
                return Err(OVERFLOW);
            }
            let total = value.checked_mul(12).and_then(|m| m.checked_add(months)).ok_or(OVERFLOW)?;
            Ok((signed(total), 0.0, true))
        }
        Some(_) => Err(Fault::BadFormat),
    }
}

/// Reads the traditional forms, from the last field to the first: a unit stands behind its number.
fn decode(text: &str, range: i32, style: IntervalStyle) -> Parsed<Sum> {
    let fields = split_fields(text)?;
    let mut sum = Sum::default();
    let mut filled = 0u32;
    let mut unit: Option<Unit> = None;
    let mut ago = false;
    for (kind, field) in fields.iter().rev() {
        let clock = match kind {
            FieldKind::Time => Some(decode_clock(field, range == range_bit::MINUTE | range_bit::SECOND)?),
            FieldKind::Zone if field[1..].contains(':') => decode_clock(&field[1..], range == range_bit::MINUTE | range_bit::SECOND).ok(),
            _ => None,
        };
        let new = if let Some((hour, minute, second, micros)) = clock {
            let time = hour
                .checked_mul(USECS_PER_HOUR)
                .and_then(|t| t.checked_add(i64::from(minute) * USECS_PER_MINUTE + i64::from(second) * USECS_PER_SEC + i64::from(micros)))
                .ok_or(OVERFLOW)?;
            let time = if field.starts_with('-') { -time } else { time };
            sum.micros = sum.micros.checked_add(time).ok_or(OVERFLOW)?;
            unit = Some(Unit::Day);
            clock_bits()
        } else {
            match kind {
                FieldKind::Word | FieldKind::Special => {
                    match keyword::find_unit(field) {
                        Some(u) => unit = Some(u),
                        None if field == "ago" => {
                            ago = true;
                            unit = None;
                        }
                        None if keyword::find(field) == Some(Keyword::Ignore) => {}
                        None => return Err(Fault::BadFormat),
                    }
                    continue;
                }
                _ => {
                    let (value, fraction, year_month) = decode_number(field)?;
                    let u = if year_month { Unit::Month } else { unit.unwrap_or_else(|| last_unit(range)) };
                    sum.add(value, fraction, u)?;
                    unit = Some(if u == Unit::Hour { Unit::Day } else { u });
                    filled_by(u, fraction)
                }
            }
        };
        if new & filled != 0 {
            return Err(Fault::BadFormat);
        }
        filled |= new;
    }
    if filled == 0 {
        return Err(Fault::BadFormat);
    }
    // The standard lets a sign in front stand for all fields, where no other one is written.
    let signed = |field: &str| field.starts_with(['-', '+']);
    if style == IntervalStyle::SqlStandard && fields[0].1.starts_with('-') && !fields[1..].iter().any(|f| signed(&f.1)) {
        sum.years = -sum.years.abs();
        sum.months = -sum.months.abs();
        sum.days = -sum.days.abs();
        sum.micros = -sum.micros.abs();
    }
    if ago {
        sum.negate()?;
    }
    Ok(sum)
}

/// Reads ISO 8601: `P1Y2M3DT4H5M6S`, `P00010203T040506`, `P0001-02-03T04:05:06`.
struct Iso<'a> {
    rest: &'a str,
}

impl Iso<'_> {
    /// A number with its fraction; also how many digits stood before the point.
    fn number(&mut self) -> Parsed<(i64, f64, usize)> {
        let unsigned = self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest);
        let sign_size = self.rest.len() - unsigned.len();
        let digits = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
        let mut end = digits;
        if unsigned[digits..].starts_with('.') {
            let fraction = &unsigned[digits + 1..];
            end += 1 + fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        }
        if end == 0 || &unsigned[..end] == "." {
            return Err(Fault::BadFormat);
        }
        let (number, rest) = self.rest.split_at(sign_size + end);
        self.rest = rest;
        let value: f64 = number.parse().map_err(|_| Fault::BadFormat)?;
        if value.abs() > 1e15 {
            return Err(OVERFLOW);
        }
        Ok((value as i64, value - value.trunc(), digits))
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }
}

fn decode_iso(text: &str) -> Parsed<Sum> {
    let mut iso = Iso { rest: text.strip_prefix('P').filter(|r| !r.is_empty()).ok_or(Fault::BadFormat)? };
    let mut sum = Sum::default();
    let mut in_date = true;
    let mut have_field = false;
    while !iso.rest.is_empty() {
        if let Some(rest) = iso.rest.strip_prefix('T') {
            iso.rest = rest;
            in_date = false;
            have_field = false;
            continue;
        }
        let (value, fraction, width) = iso.number()?;
        let unit = iso.next();
        match (in_date, unit) {
            (true, Some('Y')) => sum.add(value, fraction, Unit::Year)?,
            (true, Some('M')) => sum.add(value, fraction, Unit::Month)?,
            (true, Some('W')) => sum.add(value, fraction, Unit::Week)?,
            (true, Some('D')) => sum.add(value, fraction, Unit::Day)?,
            (true, Some('T') | None) if width == 8 && !have_field => {
                sum.add(value / 10_000, 0.0, Unit::Year)?;
                sum.add(value / 100 % 100, 0.0, Unit::Month)?;
                sum.add(value % 100, fraction, Unit::Day)?;
                in_date = false;
                continue;
            }
            (true, Some('T' | '-') | None) if !have_field => {
                sum.add(value, fraction, Unit::Year)?;
                let mut separator = unit;
                for next in [Unit::Month, Unit::Day] {
                    if separator != Some('-') {
                        break;
                    }
                    let (value, fraction, _) = iso.number()?;
                    sum.add(value, fraction, next)?;
                    separator = iso.next();
                }
                if !matches!(separator, None | Some('T')) {
                    return Err(Fault::BadFormat);
                }
                in_date = false;
                continue;
            }
            (false, Some('H')) => sum.add(value, fraction, Unit::Hour)?,
            (false, Some('M')) => sum.add(value, fraction, Unit::Minute)?,
            (false, Some('S')) => sum.add(value, fraction, Unit::Second)?,
            (false, None) if width == 6 && !have_field => {
                sum.add(value / 10_000, 0.0, Unit::Hour)?;
                sum.add(value / 100 % 100, 0.0, Unit::Minute)?;
                sum.add(value % 100, fraction, Unit::Second)?;
            }
            (false, Some(':') | None) if !have_field => {
                sum.add(value, fraction, Unit::Hour)?;
                let mut separator = unit;
                for next in [Unit::Minute, Unit::Second] {
                    if separator != Some(':') {
                        break;
                    }
                    let (value, fraction, _) = iso.number()?;
                    sum.add(value, fraction, next)?;
                    separator = iso.next();
                }
                if separator.is_some() {
                    return Err(Fault::BadFormat);
                }
            }
            _ => return Err(Fault::BadFormat),
        }
        have_field = true;
    }
    Ok(sum)
}

/// Reads an interval and applies its modifier.
/// # Errors
/// `Value` (22007, 22008).
pub fn parse_interval(text: &str, typmod: i32, settings: &TextSettings) -> Result<Interval> {
    let range = if typmod >= 0 { typmod >> 16 & 0x7FFF } else { 0x7FFF };
    let sum = match decode(text, range, settings.interval_style) {
        Err(Fault::BadFormat) => decode_iso(text),
        other => other,
    };
    let sum = sum.map_err(|fault| match fault {
        Fault::FieldOverflow => Fault::IntervalOverflow.into_error("interval", text),
        fault => fault.into_error("interval", text),
    })?;
    let interval = sum.interval().ok_or_else(|| datetime_overflow("interval out of range"))?;
    apply_interval_typmod(interval, typmod)
}
