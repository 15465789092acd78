//! The text of dates, times and intervals in every DateStyle and IntervalStyle.

use super::zone::{push_offset, push_two};
use super::*;
use crate::value::TextSettings;
use crate::value::text::{DateOrder, DateStyle, IntervalStyle};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// A year with four digits at least; years before Christ count from 1.
fn push_year(year: i32, out: &mut Vec<u8>) {
    let shown = if year > 0 { year } else { 1 - year };
    out.extend(format!("{shown:04}").as_bytes());
}

fn push_clock(f: &Fields, out: &mut Vec<u8>) {
    push_two(f.hour as u32, out);
    out.push(b':');
    push_two(f.minute as u32, out);
    out.push(b':');
    push_seconds(f.second as u32, f.micros as u32, true, out);
}

/// Seconds with their fraction, without zeros at its end.
fn push_seconds(second: u32, micros: u32, fill: bool, out: &mut Vec<u8>) {
    if fill {
        push_two(second, out);
    } else {
        out.extend(second.to_string().as_bytes());
    }
    if micros != 0 {
        let fraction = format!(".{micros:06}");
        out.extend(fraction.trim_end_matches('0').as_bytes());
    }
}

fn push_date(f: &Fields, settings: &TextSettings, out: &mut Vec<u8>) {
    let separated = |parts: [i32; 2], separator: u8, out: &mut Vec<u8>| {
        for part in parts {
            push_two(part as u32, out);
            out.push(separator);
        }
        push_year(f.year, out);
    };
    let by_order = if settings.date_order == DateOrder::Dmy { [f.day, f.month] } else { [f.month, f.day] };
    match settings.date_style {
        DateStyle::Iso => {
            push_year(f.year, out);
            out.push(b'-');
            push_two(f.month as u32, out);
            out.push(b'-');
            push_two(f.day as u32, out);
        }
        DateStyle::Sql => separated(by_order, b'/', out),
        DateStyle::German => separated([f.day, f.month], b'.', out),
        DateStyle::Postgres => separated(by_order, b'-', out),
    }
}

fn push_era(year: i32, out: &mut Vec<u8>) {
    if year <= 0 {
        out.extend(b" BC");
    }
}

/// Appends a date's text.
pub fn format_date(days: i32, settings: &TextSettings, out: &mut Vec<u8>) {
    match days {
        DATE_INFINITY => return out.extend(b"infinity"),
        DATE_NEG_INFINITY => return out.extend(b"-infinity"),
        _ => {}
    }
    let (year, month, day) = civil_from_days(i64::from(days));
    push_date(&Fields { year, month, day, ..Fields::default() }, settings, out);
    push_era(year, out);
}

/// Appends the text of a time of day.
pub fn format_time(time: i64, out: &mut Vec<u8>) {
    push_clock(&fields_from_time(time), out);
}

/// Appends the text of a time with its displacement.
pub fn format_timetz(value: TimeTz, _settings: &TextSettings, out: &mut Vec<u8>) {
    push_clock(&fields_from_time(value.time), out);
    push_offset(-value.zone, false, out);
}

/// Appends the text of a local timestamp.
pub fn format_timestamp(timestamp: i64, settings: &TextSettings, out: &mut Vec<u8>) {
    push_timestamp(timestamp, None, settings, out);
}

/// Appends the text of a moment in the session's time zone.
pub fn format_timestamptz(timestamp: i64, settings: &TextSettings, out: &mut Vec<u8>) {
    if is_infinite(timestamp) {
        return push_timestamp(timestamp, None, settings, out);
    }
    // Replication's form needs no zone data.
    if settings.date_style == DateStyle::Iso && settings.time_zone == "UTC" {
        return push_timestamp(timestamp, Some((0, String::new())), settings, out);
    }
    let zone = Zone::named(&settings.time_zone).unwrap_or_else(Zone::utc);
    let (east, _, abbreviation) = zone.info_at(timestamp);
    push_timestamp(timestamp.saturating_add(i64::from(east) * USECS_PER_SEC), Some((east, abbreviation)), settings, out);
}

fn push_timestamp(local: i64, zone: Option<(i32, String)>, settings: &TextSettings, out: &mut Vec<u8>) {
    match local {
        TIMESTAMP_INFINITY => return out.extend(b"infinity"),
        TIMESTAMP_NEG_INFINITY => return out.extend(b"-infinity"),
        _ => {}
    }
    let (days, _) = split_timestamp(local);
    let f = fields_from_timestamp(local);
    match settings.date_style {
        DateStyle::Iso => {
            push_date(&f, settings, out);
            out.push(b' ');
            push_clock(&f, out);
            if let Some((east, _)) = zone {
                push_offset(east, false, out);
            }
        }
        DateStyle::Sql | DateStyle::German => {
            push_date(&f, settings, out);
            out.push(b' ');
            push_clock(&f, out);
            if let Some((_, abbreviation)) = zone {
                out.push(b' ');
                out.extend(abbreviation.as_bytes());
            }
        }
        DateStyle::Postgres => {
            out.extend(DAYS[day_of_week(days) as usize].as_bytes());
            out.push(b' ');
            let month = MONTHS[(f.month - 1) as usize].as_bytes();
            if settings.date_order == DateOrder::Dmy {
                push_two(f.day as u32, out);
                out.push(b' ');
                out.extend(month);
            } else {
                out.extend(month);
                out.push(b' ');
                push_two(f.day as u32, out);
            }
            out.push(b' ');
            push_clock(&f, out);
            out.push(b' ');
            push_year(f.year, out);
            if let Some((_, abbreviation)) = zone {
                out.push(b' ');
                out.extend(abbreviation.as_bytes());
            }
        }
    }
    push_era(f.year, out);
}

/// Appends an interval's text.
pub fn format_interval(interval: &Interval, style: IntervalStyle, out: &mut Vec<u8>) {
    let parts = Parts::of(interval);
    match style {
        IntervalStyle::Postgres => parts.postgres(out),
        IntervalStyle::PostgresVerbose => parts.verbose(out),
        IntervalStyle::SqlStandard => parts.sql_standard(out),
        IntervalStyle::Iso8601 => parts.iso_8601(out),
    }
}

/// An interval's fields, each with its own sign.
struct Parts {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
}

impl Parts {
    fn of(i: &Interval) -> Self {
        Parts {
            year: i64::from(i.months / 12),
            month: i64::from(i.months % 12),
            day: i64::from(i.days),
            hour: i.micros / USECS_PER_HOUR,
            minute: i.micros / USECS_PER_MINUTE % 60,
            second: i.micros / USECS_PER_SEC % 60,
            micros: i.micros % USECS_PER_SEC,
        }
    }

    fn time_is_negative(&self) -> bool {
        self.hour < 0 || self.minute < 0 || self.second < 0 || self.micros < 0
    }

    fn has_time(&self) -> bool {
        self.hour != 0 || self.minute != 0 || self.second != 0 || self.micros != 0
    }

    fn push_abs_seconds(&self, fill: bool, out: &mut Vec<u8>) {
        push_seconds(self.second.unsigned_abs() as u32, self.micros.unsigned_abs() as u32, fill, out);
    }

    fn postgres(&self, out: &mut Vec<u8>) {
        let mut first = true;
        let mut negative_before = false;
        for (value, unit) in [(self.year, "year"), (self.month, "mon"), (self.day, "day")] {
            if value == 0 {
                continue;
            }
            // A positive field after a negative one shows its sign.
            let plus = if negative_before && value > 0 { "+" } else { "" };
            let space = if first { "" } else { " " };
            let plural = if value == 1 { "" } else { "s" };
            out.extend(format!("{space}{plus}{value} {unit}{plural}").as_bytes());
            negative_before = value < 0;
            first = false;
        }
        if first || self.has_time() {
            if !first {
                out.push(b' ');
            }
            if self.time_is_negative() {
                out.push(b'-');
            } else if negative_before {
                out.push(b'+');
            }
            push_two(self.hour.unsigned_abs() as u32, out);
            out.push(b':');
            push_two(self.minute.unsigned_abs() as u32, out);
            out.push(b':');
            self.push_abs_seconds(true, out);
        }
    }

    fn verbose(&self, out: &mut Vec<u8>) {
        out.push(b'@');
        let mut zero = true;
        let mut negative = false;
        for (value, unit) in [(self.year, "year"), (self.month, "mon"), (self.day, "day"), (self.hour, "hour"), (self.minute, "min")] {
            if value == 0 {
                continue;
            }
            // The first field's sign becomes "ago", and what follows is shown relative to it.
            let shown = if zero {
                negative = value < 0;
                value.abs()
            } else if negative {
                -value
            } else {
                value
            };
            let plural = if shown == 1 { "" } else { "s" };
            out.extend(format!(" {shown} {unit}{plural}").as_bytes());
            zero = false;
        }
        if self.second != 0 || self.micros != 0 {
            out.push(b' ');
            if self.second < 0 || self.second == 0 && self.micros < 0 {
                if zero {
                    negative = true;
                } else if !negative {
                    out.push(b'-');
                }
            } else if negative {
                out.push(b'-');
            }
            self.push_abs_seconds(false, out);
            let one = self.second.abs() == 1 && self.micros == 0;
            out.extend(if one { &b" sec"[..] } else { b" secs" });
            zero = false;
        }
        if zero {
            out.extend(b" 0");
        }
        if negative {
            out.extend(b" ago");
        }
    }

    fn sql_standard(&self, out: &mut Vec<u8>) {
        let all = [self.year, self.month, self.day, self.hour, self.minute, self.second, self.micros];
        let negative = all.iter().any(|v| *v < 0);
        let positive = all.iter().any(|v| *v > 0);
        let year_month = self.year != 0 || self.month != 0;
        let day_time = self.day != 0 || self.has_time();
        if !negative && !positive {
            out.push(b'0');
            return;
        }
        let clock = |out: &mut Vec<u8>| {
            out.extend(format!("{}:", self.hour.abs()).as_bytes());
            push_two(self.minute.unsigned_abs() as u32, out);
            out.push(b':');
            self.push_abs_seconds(true, out);
        };
        if negative && positive || year_month && day_time {
            // Not the standard's: every group has its own sign.
            let sign = |negative: bool| if negative { '-' } else { '+' };
            out.extend(
                format!(
                    "{}{}-{} {}{} {}",
                    sign(self.year < 0 || self.month < 0),
                    self.year.abs(),
                    self.month.abs(),
                    sign(self.day < 0),
                    self.day.abs(),
                    sign(self.time_is_negative())
                )
                .as_bytes(),
            );
            return clock(out);
        }
        if negative {
            out.push(b'-');
        }
        if year_month {
            out.extend(format!("{}-{}", self.year.abs(), self.month.abs()).as_bytes());
        } else {
            if self.day != 0 {
                out.extend(format!("{} ", self.day.abs()).as_bytes());
            }
            clock(out);
        }
    }

    fn iso_8601(&self, out: &mut Vec<u8>) {
        let all = [self.year, self.month, self.day, self.hour, self.minute, self.second, self.micros];
        if all.iter().all(|v| *v == 0) {
            return out.extend(b"PT0S");
        }
        out.push(b'P');
        let field = |value: i64, unit: char, out: &mut Vec<u8>| {
            if value != 0 {
                out.extend(format!("{value}{unit}").as_bytes());
            }
        };
        field(self.year, 'Y', out);
        field(self.month, 'M', out);
        field(self.day, 'D', out);
        if self.has_time() {
            out.push(b'T');
        }
        field(self.hour, 'H', out);
        field(self.minute, 'M', out);
        if self.second != 0 || self.micros != 0 {
            if self.second < 0 || self.micros < 0 {
                out.push(b'-');
            }
            self.push_abs_seconds(false, out);
            out.push(b'S');
        }
    }
}
