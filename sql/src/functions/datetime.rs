//! Dates, times and intervals: arithmetic, fields, truncation, age, formatting by template.

use std::cmp::Ordering;

use strandline_storage::value::datetime::{
    self as dt, TIMESTAMP_INFINITY, TIMESTAMP_NEG_INFINITY, TimeTz, USECS_PER_DAY, USECS_PER_HOUR, USECS_PER_MINUTE, USECS_PER_SEC, Zone,
};
use strandline_storage::value::numeric::Numeric;
use strandline_storage::{Kind, Value};

pub use strandline_storage::value::datetime::Interval;

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::functions::sets::SetRows;
use crate::functions::{Call, Entry, invalid, template, text_value};

fn out_of_range(what: &str) -> SqlError {
    SqlError::new(ErrorCode::DatetimeFieldOverflow, format!("{what} out of range"))
}

/// The session's time zone.
pub fn zone(context: &StatementContext) -> Result<Zone> {
    Ok(Zone::resolve(&context.text.time_zone)?)
}

fn interval(datum: &Datum<'_>) -> Result<Interval> {
    Ok(Interval::decode(datum.bytes())?)
}

pub fn interval_value(interval: Interval) -> Value {
    Value::Bytes(interval.encode())
}

/// Sums of many intervals may leave the range of one.
pub fn interval_from_parts(months: i64, days: i64, micros: i128) -> Result<Interval> {
    let bad = || out_of_range("interval");
    Ok(Interval::new(
        i32::try_from(months).map_err(|_| bad())?,
        i32::try_from(days).map_err(|_| bad())?,
        i64::try_from(micros).map_err(|_| bad())?,
    ))
}

fn is_infinite(timestamp: i64) -> bool {
    dt::is_infinite(timestamp)
}

/// A date as a timestamp at its midnight.
fn date_to_timestamp(days: i32) -> Result<i64> {
    match days {
        dt::DATE_INFINITY => Ok(TIMESTAMP_INFINITY),
        dt::DATE_NEG_INFINITY => Ok(TIMESTAMP_NEG_INFINITY),
        days => {
            let micros = i64::from(days).checked_mul(USECS_PER_DAY).filter(|t| *t < dt::TIMESTAMP_END);
            micros.ok_or_else(|| SqlError::new(ErrorCode::DatetimeFieldOverflow, "date out of range for timestamp"))
        }
    }
}

fn timestamp_to_date(timestamp: i64) -> Result<i32> {
    match timestamp {
        TIMESTAMP_INFINITY => Ok(dt::DATE_INFINITY),
        TIMESTAMP_NEG_INFINITY => Ok(dt::DATE_NEG_INFINITY),
        t => Ok(dt::check_date(dt::split_timestamp(t).0)?),
    }
}

fn to_utc(context: &StatementContext, local: i64) -> Result<i64> {
    if is_infinite(local) { Ok(local) } else { Ok(zone(context)?.to_utc(local)?) }
}

fn to_local(context: &StatementContext, utc: i64) -> Result<i64> {
    if is_infinite(utc) { Ok(utc) } else { Ok(zone(context)?.to_local(utc)?) }
}

/// Compares dates and timestamps of unlike types, as PostgreSQL's cross-type operators do.
pub fn compare_mixed(context: &StatementContext, a_kind: Kind, a: i64, b_kind: Kind, b: i64) -> Result<Ordering> {
    let wide = |kind: Kind, v: i64| -> i128 {
        match (kind, v) {
            (Kind::Date, v) if v == i64::from(dt::DATE_INFINITY) => i128::from(TIMESTAMP_INFINITY),
            (Kind::Date, v) if v == i64::from(dt::DATE_NEG_INFINITY) => i128::from(TIMESTAMP_NEG_INFINITY),
            (Kind::Date, v) => i128::from(v) * i128::from(USECS_PER_DAY),
            (_, v) => i128::from(v),
        }
    };
    let zoned = |kind: Kind, v: i64| -> Result<i128> {
        let local = wide(kind, v);
        match i64::try_from(local) {
            Ok(l) if kind != Kind::Timestamptz => Ok(i128::from(to_utc(context, l)?)),
            _ => Ok(local),
        }
    };
    if a_kind == Kind::Timestamptz || b_kind == Kind::Timestamptz {
        return Ok(zoned(a_kind, a)?.cmp(&zoned(b_kind, b)?));
    }
    Ok(wide(a_kind, a).cmp(&wide(b_kind, b)))
}

/// A local timestamp and an interval: months first (the day is cut to the month's last), then days, then time.
pub fn add_interval(timestamp: i64, i: Interval) -> Result<i64> {
    if is_infinite(timestamp) {
        return Ok(timestamp);
    }
    let bad = || out_of_range("timestamp");
    let mut t = timestamp;
    if i.months != 0 {
        let (days, time) = dt::split_timestamp(t);
        let (year, month, day) = dt::civil_from_days(days);
        let months = i64::from(year) * 12 + i64::from(month) - 1 + i64::from(i.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as i32 + 1);
        let year = i32::try_from(year).map_err(|_| bad())?;
        let day = day.min(dt::days_in_month(year, month));
        t = dt::days_from_civil(year, month, day).checked_mul(USECS_PER_DAY).and_then(|d| d.checked_add(time)).ok_or_else(bad)?;
    }
    t = i64::from(i.days).checked_mul(USECS_PER_DAY).and_then(|d| t.checked_add(d)).ok_or_else(bad)?;
    t = t.checked_add(i.micros).ok_or_else(bad)?;
    Ok(dt::check_timestamp(Some(t))?)
}

/// The same for a moment: months and days count in the session's zone.
pub fn add_interval_tz(context: &StatementContext, timestamp: i64, i: Interval) -> Result<i64> {
    if is_infinite(timestamp) {
        return Ok(timestamp);
    }
    let mut t = timestamp;
    if i.months != 0 || i.days != 0 {
        let zone = zone(context)?;
        let local = add_interval(zone.to_local(t)?, Interval::new(i.months, i.days, 0))?;
        t = zone.to_utc(local)?;
    }
    Ok(dt::check_timestamp(t.checked_add(i.micros))?)
}

/// A date, timestamp or time (as a number of microseconds) moved by an interval: for RANGE frames.
pub fn shift(context: &StatementContext, kind: Kind, value: &Value, offset: &Value, plus: bool) -> Result<i64> {
    let value = Datum::from(value);
    let i = interval(&Datum::from(offset))?;
    let i = if plus { i } else { i.neg()? };
    match kind {
        Kind::Date => add_interval(date_to_timestamp(value.int4())?, i),
        Kind::Timestamptz => add_interval_tz(context, value.int(), i),
        Kind::Time => Ok(value.int().saturating_add(i.micros)),
        _ => add_interval(value.int(), i),
    }
}

/// The difference of two local timestamps in years, months, days and time.
fn age(a: i64, b: i64) -> Result<Interval> {
    if is_infinite(a) || is_infinite(b) {
        return Err(out_of_range("timestamp"));
    }
    let negative = a < b;
    let (later, earlier) = if negative { (b, a) } else { (a, b) };
    let (l, e) = (dt::fields_from_timestamp(later), dt::fields_from_timestamp(earlier));
    let (ltime, etime) = (dt::split_timestamp(later).1, dt::split_timestamp(earlier).1);
    let mut micros = ltime - etime;
    let mut days = l.day - e.day;
    let mut months = l.month - e.month;
    let mut years = l.year - e.year;
    if micros < 0 {
        micros += USECS_PER_DAY;
        days -= 1;
    }
    while days < 0 {
        // The month that lends days is the earlier one of a positive difference, the later one's of a negative.
        days += if negative { dt::days_in_month(l.year, l.month) } else { dt::days_in_month(e.year, e.month) };
        months -= 1;
    }
    while months < 0 {
        months += 12;
        years -= 1;
    }
    let total = Interval::new(years * 12 + months, days, micros);
    Ok(if negative { total.neg()? } else { total })
}

fn seconds_numeric(micros: i128, scale: u32) -> Value {
    // scale 6 keeps all digits.
    Value::Bytes(Numeric::new(micros, scale).encode())
}

fn whole(value: i64) -> Value {
    Value::Bytes(Numeric::new(i128::from(value), 0).encode())
}

fn unit_error(unit: &str, type_name: &str, known: bool) -> SqlError {
    if known {
        SqlError::unsupported(format!("unit \"{unit}\" for type {type_name}"))
            .at(0)
            .clone_with(format!("unit \"{unit}\" not supported for type {type_name}"))
    } else {
        invalid(format!("unit \"{unit}\" not recognized for type {type_name}"))
    }
}

trait CloneWith {
    fn clone_with(self, message: String) -> Self;
}

impl CloneWith for SqlError {
    fn clone_with(mut self, message: String) -> Self {
        self.message = message;
        self
    }
}

/// One spelling per unit.
fn unit(text: &str) -> String {
    let lower = text.trim().to_ascii_lowercase();
    match lower.as_str() {
        "years" | "y" | "yr" | "yrs" => "year",
        "months" | "mon" | "mons" => "month",
        "days" | "d" => "day",
        "hours" | "h" | "hr" | "hrs" => "hour",
        "minutes" | "m" | "min" | "mins" => "minute",
        "seconds" | "s" | "sec" | "secs" => "second",
        "milliseconds" | "msec" | "msecs" | "ms" | "millisecond" | "msecond" | "mseconds" => "milliseconds",
        "microseconds" | "usec" | "usecs" | "us" | "microsecond" | "usecond" | "useconds" => "microseconds",
        "weeks" | "w" => "week",
        "decades" | "dec" | "decs" => "decade",
        "centuries" | "c" | "cent" => "century",
        "millenniums" | "millennia" | "mil" | "mils" => "millennium",
        "qtr" => "quarter",
        other => return other.to_owned(),
    }
    .to_owned()
}

/// A field of a local timestamp. `offset`: seconds east of UTC for moments. `numeric`: EXTRACT; otherwise date_part's float.
fn timestamp_field(name: &str, t: i64, offset: Option<i32>, numeric: bool, type_name: &str) -> Result<Value> {
    let unit = unit(name);
    let float = |v: f64| Value::Float8(v);
    let int = |v: i64| if numeric { whole(v) } else { float(v as f64) };
    if is_infinite(t) {
        return Ok(match unit.as_str() {
            "epoch" | "julian" | "year" | "isoyear" | "decade" | "century" | "millennium" => {
                let v = if t > 0 { f64::INFINITY } else { f64::NEG_INFINITY };
                if numeric { Value::Bytes(Numeric::from_f64(v).encode()) } else { float(v) }
            }
            _ => Value::Null,
        });
    }
    let (days, time) = dt::split_timestamp(t);
    let f = dt::fields_from_timestamp(t);
    Ok(match unit.as_str() {
        "year" => int(i64::from(if f.year > 0 { f.year } else { f.year - 1 })),
        "month" => int(i64::from(f.month)),
        "day" => int(i64::from(f.day)),
        "hour" => int(i64::from(f.hour)),
        "minute" => int(i64::from(f.minute)),
        "second" => micros_value(i64::from(f.second) * USECS_PER_SEC + i64::from(f.micros), 6, numeric),
        "milliseconds" => micros_value(i64::from(f.second) * USECS_PER_SEC + i64::from(f.micros), 3, numeric),
        "microseconds" => int(i64::from(f.second) * USECS_PER_SEC + i64::from(f.micros)),
        "quarter" => int(i64::from((f.month - 1) / 3 + 1)),
        "week" => int(i64::from(dt::iso_week(days).1)),
        "isoyear" => {
            let year = dt::iso_week(days).0;
            int(i64::from(if year > 0 { year } else { year - 1 }))
        }
        "dow" => int(i64::from(dt::day_of_week(days))),
        "isodow" => int(i64::from(match dt::day_of_week(days) {
            0 => 7,
            d => d,
        })),
        "doy" => int(i64::from(dt::day_of_year(days))),
        "decade" => int(i64::from(f.year.div_euclid(10))),
        "century" => int(i64::from(if f.year > 0 { (f.year + 99) / 100 } else { -((99 - (f.year - 1)) / 100) })),
        "millennium" => int(i64::from(if f.year > 0 { (f.year + 999) / 1000 } else { -((999 - (f.year - 1)) / 1000) })),
        "epoch" => {
            let utc = i128::from(t) - i128::from(offset.unwrap_or(0)) * i128::from(USECS_PER_SEC) - i128::from(dt::UNIX_EPOCH_USECS);
            if numeric { seconds_numeric(utc, 6) } else { float(utc as f64 / 1e6) }
        }
        "julian" => {
            let day = dt::julian_day(days);
            if numeric {
                let fraction = Numeric::new(i128::from(time), 0).div(&Numeric::new(i128::from(USECS_PER_DAY), 0))?;
                Value::Bytes(Numeric::new(i128::from(day), 0).add(&fraction)?.encode())
            } else {
                float(day as f64 + time as f64 / USECS_PER_DAY as f64)
            }
        }
        "timezone" if offset.is_some() => int(i64::from(offset.unwrap_or(0))),
        "timezone_hour" if offset.is_some() => int(i64::from(offset.unwrap_or(0) / 3600)),
        "timezone_minute" if offset.is_some() => int(i64::from(offset.unwrap_or(0) % 3600 / 60)),
        "timezone" | "timezone_hour" | "timezone_minute" => return Err(unit_error(name, type_name, true)),
        _ => return Err(unit_error(name, type_name, false)),
    })
}

/// Microseconds as seconds (scale 6) or milliseconds (scale 3).
fn micros_value(micros: i64, scale: u32, numeric: bool) -> Value {
    if numeric { seconds_numeric(i128::from(micros), scale) } else { Value::Float8(micros as f64 / 10f64.powi(scale as i32)) }
}

fn time_field(name: &str, time: i64, offset: Option<i32>, numeric: bool, type_name: &str) -> Result<Value> {
    let int = |v: i64| if numeric { whole(v) } else { Value::Float8(v as f64) };
    Ok(match unit(name).as_str() {
        "hour" => int(time / USECS_PER_HOUR),
        "minute" => int(time / USECS_PER_MINUTE % 60),
        "second" => micros_value(time % USECS_PER_MINUTE, 6, numeric),
        "milliseconds" => micros_value(time % USECS_PER_MINUTE, 3, numeric),
        "microseconds" => int(time % USECS_PER_MINUTE),
        "epoch" => {
            let utc = i128::from(time) - i128::from(offset.unwrap_or(0)) * i128::from(USECS_PER_SEC);
            if numeric { seconds_numeric(utc, 6) } else { Value::Float8(utc as f64 / 1e6) }
        }
        "timezone" if offset.is_some() => int(i64::from(offset.unwrap_or(0))),
        "timezone_hour" if offset.is_some() => int(i64::from(offset.unwrap_or(0) / 3600)),
        "timezone_minute" if offset.is_some() => int(i64::from(offset.unwrap_or(0) % 3600 / 60)),
        "year" | "month" | "day" | "week" | "quarter" | "dow" | "isodow" | "doy" | "decade" | "century" | "millennium" | "isoyear"
        | "julian" | "timezone" | "timezone_hour" | "timezone_minute" => return Err(unit_error(name, type_name, true)),
        _ => return Err(unit_error(name, type_name, false)),
    })
}

fn interval_field(name: &str, i: Interval, numeric: bool) -> Result<Value> {
    let int = |v: i64| if numeric { whole(v) } else { Value::Float8(v as f64) };
    let (years, months) = (i64::from(i.months / 12), i64::from(i.months % 12));
    Ok(match unit(name).as_str() {
        "year" => int(years),
        "month" => int(months),
        "day" => int(i64::from(i.days)),
        "hour" => int(i.micros / USECS_PER_HOUR),
        "minute" => int(i.micros / USECS_PER_MINUTE % 60),
        "second" => micros_value(i.micros % USECS_PER_MINUTE, 6, numeric),
        "milliseconds" => micros_value(i.micros % USECS_PER_MINUTE, 3, numeric),
        "microseconds" => int(i.micros % USECS_PER_MINUTE),
        "quarter" => int(months / 3 + 1),
        "decade" => int(years / 10),
        "century" => int(years / 100),
        "millennium" => int(years / 1000),
        "epoch" => {
            // A year is 365.25 days, a month 30.
            let days = i128::from(years) * 36525 + i128::from(months) * 3000 + i128::from(i.days) * 100;
            let micros = days * i128::from(USECS_PER_DAY / 100) + i128::from(i.micros);
            if numeric { seconds_numeric(micros, 6) } else { Value::Float8(micros as f64 / 1e6) }
        }
        "week" | "dow" | "isodow" | "doy" | "isoyear" | "julian" | "timezone" | "timezone_hour" | "timezone_minute" => {
            return Err(unit_error(name, "interval", true));
        }
        _ => return Err(unit_error(name, "interval", false)),
    })
}

/// date_trunc on a local timestamp.
fn truncate(name: &str, t: i64, type_name: &str) -> Result<i64> {
    let unit = unit(name);
    if is_infinite(t) {
        return Ok(t);
    }
    let (days, time) = dt::split_timestamp(t);
    let (year, month, _) = dt::civil_from_days(days);
    let midnight = |days: i64| days * USECS_PER_DAY;
    let start = |year: i32, month: i32| midnight(dt::days_from_civil(year, month, 1));
    Ok(match unit.as_str() {
        "microseconds" => t,
        "milliseconds" => midnight(days) + time / 1000 * 1000,
        "second" => midnight(days) + time / USECS_PER_SEC * USECS_PER_SEC,
        "minute" => midnight(days) + time / USECS_PER_MINUTE * USECS_PER_MINUTE,
        "hour" => midnight(days) + time / USECS_PER_HOUR * USECS_PER_HOUR,
        "day" => midnight(days),
        "week" => {
            let (iso_year, week) = dt::iso_week(days);
            midnight(dt::iso_week_start(iso_year, week))
        }
        "month" => start(year, month),
        "quarter" => start(year, (month - 1) / 3 * 3 + 1),
        "year" => start(year, 1),
        "decade" => start(if year > 0 { year / 10 * 10 } else { -((8 - (year - 1)) / 10) * 10 }, 1),
        "century" => start(if year > 0 { (year + 99) / 100 * 100 - 99 } else { -((99 - (year - 1)) / 100) * 100 + 1 }, 1),
        "millennium" => start(if year > 0 { (year + 999) / 1000 * 1000 - 999 } else { -((999 - (year - 1)) / 1000) * 1000 + 1 }, 1),
        _ => return Err(unit_error(name, type_name, false)),
    })
}

fn truncate_interval(name: &str, i: Interval) -> Result<Interval> {
    let months = |n: i32| Interval::new(i.months / n * n, 0, 0);
    let time = |n: i64| Interval::new(i.months, i.days, i.micros / n * n);
    Ok(match unit(name).as_str() {
        "millennium" => months(12_000),
        "century" => months(1200),
        "decade" => months(120),
        "year" => months(12),
        "quarter" => months(3),
        "month" => months(1),
        "day" => Interval::new(i.months, i.days, 0),
        "hour" => time(USECS_PER_HOUR),
        "minute" => time(USECS_PER_MINUTE),
        "second" => time(USECS_PER_SEC),
        "milliseconds" => time(1000),
        "microseconds" => i,
        "week" => {
            return Err(unit_error(name, "interval", true)
                .clone_with(format!("unit \"{name}\" not supported for type interval"))
                .detail("Months usually have fractional weeks."));
        }
        _ => return Err(unit_error(name, "interval", false)),
    })
}

fn date_plus(days: i32, more: i64) -> Result<Value> {
    if days == dt::DATE_INFINITY || days == dt::DATE_NEG_INFINITY {
        return Ok(Value::Int4(days));
    }
    Ok(Value::Int4(dt::check_date(i64::from(days) + more)?))
}

fn time_of(t: i64) -> Value {
    Value::Int8(t.rem_euclid(USECS_PER_DAY))
}

fn timestamp_difference(a: i64, b: i64) -> Result<Interval> {
    if is_infinite(a) || is_infinite(b) {
        return Err(SqlError::new(ErrorCode::DatetimeFieldOverflow, "cannot subtract infinite timestamps"));
    }
    let micros = a.checked_sub(b).ok_or_else(|| out_of_range("interval"))?;
    // Whole days are days; the rest is time.
    Ok(Interval::new(0, 0, micros).justify_hours()?)
}

/// A zone named by text, or an interval east of UTC.
fn zone_of(call: &Call, datum: &Datum<'_>) -> Result<Zone> {
    if call.args[0].kind == Kind::Interval {
        let i = interval(datum)?;
        if i.months != 0 || i.days != 0 {
            return Err(invalid("interval time zone must not include months or days"));
        }
        return Ok(Zone::fixed((i.micros / USECS_PER_SEC) as i32));
    }
    Ok(Zone::resolve(datum.str())?)
}

/// A time of day in another zone, as that zone is today.
fn timetz_at(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let time = timetz(&a[1])?;
    let west = -zone_of(call, &a[0])?.offset_at(call.context.transaction_time.0);
    let micros = (time.time + i64::from(time.zone - west) * USECS_PER_SEC).rem_euclid(USECS_PER_DAY);
    Ok(Value::bytes(TimeTz { time: micros, zone: west }.encode()))
}

fn timetz(datum: &Datum<'_>) -> Result<TimeTz> {
    Ok(TimeTz::decode(datum.bytes())?)
}

/// generate_series over timestamps.
pub fn series(call: &std::sync::Arc<Call>, a: &[Datum<'_>]) -> Result<SetRows> {
    let (start, stop, step) = (a[0].int(), a[1].int(), interval(&a[2])?);
    let span = step.span();
    if span == 0 {
        return Err(invalid("step size cannot equal zero"));
    }
    let zoned = call.args[0].kind == Kind::Timestamptz;
    let call = std::sync::Arc::clone(call);
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let value = next?;
        if if span > 0 { value > stop } else { value < stop } {
            next = None;
            return None;
        }
        let following = if zoned { add_interval_tz(&call.context, value, step) } else { add_interval(value, step) };
        match following {
            Ok(v) => next = Some(v),
            Err(e) => {
                next = None;
                return Some(Err(e));
            }
        }
        Some(Ok(vec![Value::Int8(value)]))
    })))
}

fn make_time(hour: i64, minute: i64, second: f64) -> Result<i64> {
    let bad = || SqlError::new(ErrorCode::DatetimeFieldOverflow, format!("time field value out of range: {hour}:{minute:02}:{second:02}"));
    if !(0..=24).contains(&hour) || !(0..=59).contains(&minute) || !(0.0..=60.0).contains(&second) {
        return Err(bad());
    }
    let micros = hour * USECS_PER_HOUR + minute * USECS_PER_MINUTE + (second * 1e6).round() as i64;
    if micros > USECS_PER_DAY { Err(bad()) } else { Ok(micros) }
}

fn make_date(year: i64, month: i64, day: i64) -> Result<i32> {
    let bad = || SqlError::new(ErrorCode::DatetimeFieldOverflow, format!("date field value out of range: {year}-{month:02}-{day:02}"));
    if year == 0 {
        return Err(bad());
    }
    // Years before Christ are negative and there is no year zero.
    let year = if year < 0 { year + 1 } else { year };
    let year = i32::try_from(year).map_err(|_| bad())?;
    if !(1..=12).contains(&month) || !(1..=i64::from(dt::days_in_month(year, month as i32))).contains(&day) {
        return Err(bad());
    }
    dt::date_from_civil(year, month as i32, day as i32).ok_or_else(bad)
}

fn make_interval(a: &[Datum<'_>]) -> Result<Value> {
    let months = a[0].int() * 12 + a[1].int();
    let days = a[2].int() * 7 + a[3].int();
    let micros = i128::from(a[4].int()) * i128::from(USECS_PER_HOUR)
        + i128::from(a[5].int()) * i128::from(USECS_PER_MINUTE)
        + (a[6].float() * 1e6).round() as i128;
    Ok(interval_value(interval_from_parts(months, days, micros)?))
}

fn overlaps(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let point = |i: usize, from: &Datum<'_>| -> Result<Option<i64>> {
        let d = &a[i];
        if d.is_null() {
            return Ok(None);
        }
        if call.args[i].kind == Kind::Interval {
            if from.is_null() {
                return Ok(None);
            }
            let shifted = interval(d)?;
            return Ok(Some(match call.args[i - 1].kind {
                Kind::Time => (from.int() + shifted.micros).rem_euclid(USECS_PER_DAY),
                Kind::Timestamptz => add_interval_tz(&call.context, from.int(), shifted)?,
                _ => add_interval(from.int(), shifted)?,
            }));
        }
        Ok(Some(d.int()))
    };
    let ends = |s: Option<i64>, e: Option<i64>| match (s, e) {
        (Some(s), Some(e)) if s > e => (Some(e), Some(s)),
        (None, e) => (e, None),
        other => other,
    };
    let (s1, e1) = ends(point(0, &Datum::Null)?, point(1, &a[0])?);
    let (s2, e2) = ends(point(2, &Datum::Null)?, point(3, &a[2])?);
    let (Some(s1), Some(s2)) = (s1, s2) else { return Ok(Value::Null) };
    Ok(match s1.cmp(&s2) {
        Ordering::Greater => match e2 {
            None => Value::Null,
            Some(e2) if s1 < e2 => Value::Bool(true),
            Some(_) if e1.is_none() => Value::Null,
            Some(_) => Value::Bool(false),
        },
        Ordering::Less => match e1 {
            None => Value::Null,
            Some(e1) if s2 < e1 => Value::Bool(true),
            Some(_) if e2.is_none() => Value::Null,
            Some(_) => Value::Bool(false),
        },
        Ordering::Equal => {
            if e1.is_none() || e2.is_none() {
                Value::Null
            } else {
                Value::Bool(true)
            }
        }
    })
}

fn bin(stride: Interval, source: i64, origin: i64) -> Result<Value> {
    if is_infinite(source) {
        return Ok(Value::Int8(source));
    }
    if is_infinite(origin) {
        return Err(out_of_range("origin"));
    }
    if stride.months != 0 {
        return Err(SqlError::new(ErrorCode::FeatureNotSupported, "timestamps cannot be binned into intervals containing months or years"));
    }
    let width = i64::try_from(stride.span()).map_err(|_| out_of_range("interval"))?;
    if width <= 0 {
        return Err(SqlError::new(ErrorCode::DatetimeFieldOverflow, "stride must be greater than zero"));
    }
    let difference = source.checked_sub(origin).ok_or_else(|| out_of_range("interval"))?;
    Ok(Value::Int8(origin + difference.div_euclid(width) * width))
}

pub const FUNCTIONS: &[Entry] = &[
    ("now", |c, _| Ok(Value::Int8(c.context.transaction_time.0))),
    ("statement_timestamp", |c, _| Ok(Value::Int8(c.context.statement_time.0))),
    ("clock_timestamp", |_, _| Ok(Value::Int8(dt::now()))),
    ("timeofday", |c, _| {
        let t = dt::now();
        let (_, _, name) = zone(&c.context)?.info_at(t);
        let local = to_local(&c.context, t)?;
        Ok(text_value(template::to_char_timestamp(local, None, "Dy Mon DD HH24:MI:SS.US YYYY")? + " " + &name))
    }),
    // Dates.
    ("date_pli", |_, a| date_plus(a[0].int4(), a[1].int())),
    ("date_mii", |_, a| date_plus(a[0].int4(), -a[1].int())),
    ("integer_pl_date", |_, a| date_plus(a[1].int4(), a[0].int())),
    ("date_mi", |_, a| {
        let infinite = |d: i32| d == dt::DATE_INFINITY || d == dt::DATE_NEG_INFINITY;
        if infinite(a[0].int4()) || infinite(a[1].int4()) {
            return Err(SqlError::new(ErrorCode::DatetimeFieldOverflow, "cannot subtract infinite dates"));
        }
        Ok(Value::Int4(a[0].int4() - a[1].int4()))
    }),
    ("date_pl_interval", |_, a| Ok(Value::Int8(add_interval(date_to_timestamp(a[0].int4())?, interval(&a[1])?)?))),
    ("date_mi_interval", |_, a| Ok(Value::Int8(add_interval(date_to_timestamp(a[0].int4())?, interval(&a[1])?.neg()?)?))),
    ("interval_pl_date", |_, a| Ok(Value::Int8(add_interval(date_to_timestamp(a[1].int4())?, interval(&a[0])?)?))),
    ("datetime_timestamp", |_, a| Ok(Value::Int8(date_to_timestamp(a[0].int4())?.saturating_add(a[1].int())))),
    ("timedate_pl", |_, a| Ok(Value::Int8(date_to_timestamp(a[1].int4())?.saturating_add(a[0].int())))),
    ("date_timestamp", |_, a| Ok(Value::Int8(date_to_timestamp(a[0].int4())?))),
    ("date_timestamptz", |c, a| Ok(Value::Int8(to_utc(&c.context, date_to_timestamp(a[0].int4())?)?))),
    ("timestamp_date", |_, a| Ok(Value::Int4(timestamp_to_date(a[0].int())?))),
    ("timestamptz_date", |c, a| Ok(Value::Int4(timestamp_to_date(to_local(&c.context, a[0].int())?)?))),
    ("timestamp_timestamptz", |c, a| Ok(Value::Int8(to_utc(&c.context, a[0].int())?))),
    ("timestamptz_timestamp", |c, a| Ok(Value::Int8(to_local(&c.context, a[0].int())?))),
    ("timestamp_time", |_, a| Ok(if is_infinite(a[0].int()) { Value::Null } else { time_of(a[0].int()) })),
    ("timestamptz_time", |c, a| Ok(if is_infinite(a[0].int()) { Value::Null } else { time_of(to_local(&c.context, a[0].int())?) })),
    ("interval_time", |_, a| Ok(time_of(interval(&a[0])?.micros))),
    ("time_interval", |_, a| Ok(interval_value(Interval::new(0, 0, a[0].int())))),
    ("make_date", |_, a| Ok(Value::Int4(make_date(a[0].int(), a[1].int(), a[2].int())?))),
    ("make_time", |_, a| Ok(Value::Int8(make_time(a[0].int(), a[1].int(), a[2].float())?))),
    ("make_timestamp", |_, a| {
        let date = date_to_timestamp(make_date(a[0].int(), a[1].int(), a[2].int())?)?;
        Ok(Value::Int8(date + make_time(a[3].int(), a[4].int(), a[5].float())?))
    }),
    ("make_timestamptz", |c, a| {
        let local = date_to_timestamp(make_date(a[0].int(), a[1].int(), a[2].int())?)? + make_time(a[3].int(), a[4].int(), a[5].float())?;
        Ok(Value::Int8(to_utc(&c.context, local)?))
    }),
    ("make_timestamptz_at_timezone", |_, a| {
        let local = date_to_timestamp(make_date(a[0].int(), a[1].int(), a[2].int())?)? + make_time(a[3].int(), a[4].int(), a[5].float())?;
        Ok(Value::Int8(Zone::resolve(a[6].str())?.to_utc(local)?))
    }),
    ("make_interval", |_, a| make_interval(a)),
    ("date_finite", |_, a| Ok(Value::Bool(a[0].int4() != dt::DATE_INFINITY && a[0].int4() != dt::DATE_NEG_INFINITY))),
    ("timestamp_finite", |_, a| Ok(Value::Bool(!is_infinite(a[0].int())))),
    ("interval_finite", |_, _| Ok(Value::Bool(true))),
    // Timestamps and intervals.
    ("timestamp_pl_interval", |_, a| Ok(Value::Int8(add_interval(a[0].int(), interval(&a[1])?)?))),
    ("timestamp_mi_interval", |_, a| Ok(Value::Int8(add_interval(a[0].int(), interval(&a[1])?.neg()?)?))),
    ("timestamptz_pl_interval", |c, a| Ok(Value::Int8(add_interval_tz(&c.context, a[0].int(), interval(&a[1])?)?))),
    ("timestamptz_mi_interval", |c, a| Ok(Value::Int8(add_interval_tz(&c.context, a[0].int(), interval(&a[1])?.neg()?)?))),
    ("timestamp_mi", |_, a| Ok(interval_value(timestamp_difference(a[0].int(), a[1].int())?))),
    ("timestamp_age", |_, a| Ok(interval_value(age(a[0].int(), a[1].int())?))),
    ("timestamptz_age", |c, a| Ok(interval_value(age(to_local(&c.context, a[0].int())?, to_local(&c.context, a[1].int())?)?))),
    ("interval_pl", |_, a| Ok(interval_value(interval(&a[0])?.add(&interval(&a[1])?)?))),
    ("interval_mi", |_, a| Ok(interval_value(interval(&a[0])?.sub(&interval(&a[1])?)?))),
    ("interval_um", |_, a| Ok(interval_value(interval(&a[0])?.neg()?))),
    ("interval_mul", |_, a| Ok(interval_value(interval(&a[0])?.mul(a[1].float())?))),
    ("mul_d_interval", |_, a| Ok(interval_value(interval(&a[1])?.mul(a[0].float())?))),
    ("interval_div", |_, a| {
        if a[1].float() == 0.0 {
            return Err(SqlError::new(ErrorCode::DivisionByZero, "division by zero"));
        }
        Ok(interval_value(interval(&a[0])?.div(a[1].float())?))
    }),
    ("interval_justify_hours", |_, a| Ok(interval_value(interval(&a[0])?.justify_hours()?))),
    ("interval_justify_days", |_, a| Ok(interval_value(interval(&a[0])?.justify_days()?))),
    ("interval_justify_interval", |_, a| Ok(interval_value(interval(&a[0])?.justify_interval()?))),
    // Times.
    ("time_pl_interval", |_, a| Ok(time_of(a[0].int() + interval(&a[1])?.micros % USECS_PER_DAY))),
    ("time_mi_interval", |_, a| Ok(time_of(a[0].int() - interval(&a[1])?.micros % USECS_PER_DAY))),
    ("time_mi_time", |_, a| Ok(interval_value(Interval::new(0, 0, a[0].int() - a[1].int())))),
    ("time_timetz", |c, a| {
        let offset = zone(&c.context)?.offset_at(c.context.transaction_time.0);
        Ok(Value::bytes(TimeTz { time: a[0].int(), zone: -offset }.encode()))
    }),
    ("timetz_time", |_, a| Ok(Value::Int8(timetz(&a[0])?.time))),
    ("timestamptz_timetz", |c, a| {
        if is_infinite(a[0].int()) {
            return Ok(Value::Null);
        }
        let offset = zone(&c.context)?.offset_at(a[0].int());
        let Value::Int8(time) = time_of(to_local(&c.context, a[0].int())?) else { return Ok(Value::Null) };
        Ok(Value::bytes(TimeTz { time, zone: -offset }.encode()))
    }),
    // AT TIME ZONE.
    ("timestamp_zone", |c, a| Ok(Value::Int8(if is_infinite(a[1].int()) { a[1].int() } else { zone_of(c, &a[0])?.to_utc(a[1].int())? }))),
    ("timestamptz_zone", |c, a| {
        Ok(Value::Int8(if is_infinite(a[1].int()) { a[1].int() } else { zone_of(c, &a[0])?.to_local(a[1].int())? }))
    }),
    ("timestamp_izone", |c, a| {
        Ok(Value::Int8(if is_infinite(a[1].int()) { a[1].int() } else { zone_of(c, &a[0])?.to_utc(a[1].int())? }))
    }),
    ("timestamptz_izone", |c, a| {
        Ok(Value::Int8(if is_infinite(a[1].int()) { a[1].int() } else { zone_of(c, &a[0])?.to_local(a[1].int())? }))
    }),
    ("timetz_zone", timetz_at),
    ("timetz_izone", timetz_at),
    // Fields.
    ("timestamp_part", |_, a| timestamp_field(a[0].str(), a[1].int(), None, false, "timestamp without time zone")),
    ("timestamptz_part", |c, a| zoned_field(c, a, false)),
    ("extract_timestamp", |_, a| timestamp_field(a[0].str(), a[1].int(), None, true, "timestamp without time zone")),
    ("extract_timestamptz", |c, a| zoned_field(c, a, true)),
    ("extract_date", |_, a| {
        let name = unit(a[0].str());
        if matches!(
            name.as_str(),
            "hour" | "minute" | "second" | "milliseconds" | "microseconds" | "timezone" | "timezone_hour" | "timezone_minute"
        ) {
            return Err(unit_error(a[0].str(), "date", true));
        }
        match name.as_str() {
            "epoch" if i64::from(a[1].int4()).abs() < i64::from(i32::MAX) => {
                Ok(whole((i64::from(a[1].int4()) - i64::from(dt::UNIX_EPOCH_DAYS)) * 86_400))
            }
            "julian" if a[1].int4() != dt::DATE_INFINITY && a[1].int4() != dt::DATE_NEG_INFINITY => {
                Ok(whole(dt::julian_day(i64::from(a[1].int4()))))
            }
            _ => timestamp_field(a[0].str(), date_to_timestamp(a[1].int4())?, None, true, "date"),
        }
    }),
    // date_part(text, date) and other SQL functions of the catalog come by name.
    ("date_part", |_, a| timestamp_field(a[0].str(), date_to_timestamp(a[1].int4())?, None, false, "timestamp without time zone")),
    ("time_part", |_, a| time_field(a[0].str(), a[1].int(), None, false, "time without time zone")),
    ("extract_time", |_, a| time_field(a[0].str(), a[1].int(), None, true, "time without time zone")),
    ("timetz_part", |_, a| {
        let t = timetz(&a[1])?;
        time_field(a[0].str(), t.time, Some(-t.zone), false, "time with time zone")
    }),
    ("extract_timetz", |_, a| {
        let t = timetz(&a[1])?;
        time_field(a[0].str(), t.time, Some(-t.zone), true, "time with time zone")
    }),
    ("interval_part", |_, a| interval_field(a[0].str(), interval(&a[1])?, false)),
    ("extract_interval", |_, a| interval_field(a[0].str(), interval(&a[1])?, true)),
    ("timestamp_trunc", |_, a| Ok(Value::Int8(truncate(a[0].str(), a[1].int(), "timestamp without time zone")?))),
    ("timestamptz_trunc", |c, a| Ok(Value::Int8(truncate_zoned(a, &zone(&c.context)?)?))),
    ("timestamptz_trunc_zone", |_, a| Ok(Value::Int8(truncate_zoned(a, &Zone::resolve(a[2].str())?)?))),
    ("interval_trunc", |_, a| Ok(interval_value(truncate_interval(a[0].str(), interval(&a[1])?)?))),
    ("timestamp_bin", |_, a| bin(interval(&a[0])?, a[1].int(), a[2].int())),
    ("timestamptz_bin", |_, a| bin(interval(&a[0])?, a[1].int(), a[2].int())),
    ("overlaps_timestamp", overlaps),
    ("overlaps_time", overlaps),
    ("overlaps", overlaps),
    ("age", |c, a| {
        // age(t): since midnight of today.
        let today = to_local(&c.context, c.context.transaction_time.0)?.div_euclid(USECS_PER_DAY) * USECS_PER_DAY;
        let t = if c.args[0].kind == Kind::Timestamptz { to_local(&c.context, a[0].int())? } else { a[0].int() };
        Ok(interval_value(age(today, t)?))
    }),
    // Templates.
    ("timestamp_to_char", |_, a| {
        if is_infinite(a[0].int()) {
            return Ok(Value::Null);
        }
        Ok(text_value(template::to_char_timestamp(a[0].int(), None, a[1].str())?))
    }),
    ("timestamptz_to_char", |c, a| {
        if is_infinite(a[0].int()) {
            return Ok(Value::Null);
        }
        let (offset, _, name) = zone(&c.context)?.info_at(a[0].int());
        Ok(text_value(template::to_char_timestamp(to_local(&c.context, a[0].int())?, Some((offset, &name)), a[1].str())?))
    }),
    ("interval_to_char", |_, a| Ok(text_value(template::to_char_interval(&interval(&a[0])?, a[1].str())?))),
    ("to_timestamp", |c, a| {
        let (local, offset) = template::parse(a[0].str(), a[1].str())?;
        Ok(Value::Int8(match offset {
            Some(seconds) => local - i64::from(seconds) * USECS_PER_SEC,
            None => to_utc(&c.context, local)?,
        }))
    }),
    ("to_date", |_, a| Ok(Value::Int4(timestamp_to_date(template::parse(a[0].str(), a[1].str())?.0)?))),
    ("float8_timestamptz", |_, a| {
        let seconds = a[0].float();
        if seconds.is_nan() {
            return Err(out_of_range("timestamp"));
        }
        if seconds.is_infinite() {
            return Ok(Value::Int8(if seconds > 0.0 { TIMESTAMP_INFINITY } else { TIMESTAMP_NEG_INFINITY }));
        }
        let micros = (seconds * 1e6).round_ties_even() + dt::UNIX_EPOCH_USECS as f64;
        if !(dt::TIMESTAMP_MIN as f64..dt::TIMESTAMP_END as f64).contains(&micros) {
            return Err(SqlError::new(ErrorCode::DatetimeFieldOverflow, format!("timestamp out of range: \"{seconds}\"")));
        }
        Ok(Value::Int8((seconds * 1e6).round_ties_even() as i64 + dt::UNIX_EPOCH_USECS))
    }),
];

fn zoned_field(call: &Call, a: &[Datum<'_>], numeric: bool) -> Result<Value> {
    let t = a[1].int();
    let offset = if is_infinite(t) { 0 } else { zone(&call.context)?.offset_at(t) };
    timestamp_field(a[0].str(), to_local(&call.context, t)?, Some(offset), numeric, "timestamp with time zone")
}

fn truncate_zoned(a: &[Datum<'_>], zone: &Zone) -> Result<i64> {
    let t = a[1].int();
    if is_infinite(t) {
        return Ok(t);
    }
    // Below a day the offset of the moment itself holds, so that an hour of a clock change stays itself.
    let name = unit(a[0].str());
    let local = zone.to_local(t)?;
    let cut = truncate(a[0].str(), local, "timestamp with time zone")?;
    if matches!(name.as_str(), "hour" | "minute" | "second" | "milliseconds" | "microseconds") {
        return Ok(t - (local - cut));
    }
    Ok(zone.to_utc(cut)?)
}
