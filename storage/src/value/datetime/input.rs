//! Reading dates, times and timestamps: the many forms that PostgreSQL accepts.
//!
//! A text is cut into fields by their first character and punctuation; each field then fills calendar fields that are
//! still open, in an order that DateStyle decides where numbers alone do not. A set of the fields already filled tells
//! a second date from a time zone, and finds repetitions.

use super::keyword::{self, Keyword, Special, Unit};
use super::zone::{find_abbreviation, unknown_zone};
use super::*;
use crate::error::{Error, Result, ValueErrorCode};
use crate::value::TextSettings;
use crate::value::is_space;
use crate::value::text::DateOrder;

/// More fields than any date has; PostgreSQL's number.
const FIELDS_MAX: usize = 25;
/// The longest date or time text that is looked at; PostgreSQL's work buffer.
const TEXT_SIZE_MAX: usize = 128 + 25;

/// Why a text could not be read.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    BadFormat,
    FieldOverflow,
    /// As `FieldOverflow`, perhaps because month and day were exchanged.
    MonthDayOverflow,
    IntervalOverflow,
    ZoneOverflow,
    UnknownZone(String),
}

pub(super) type Parsed<T> = std::result::Result<T, Fault>;

impl Fault {
    pub(super) fn into_error(self, type_name: &str, text: &str) -> Error {
        let value = |code, message: &str| Error::value(code, format!("{message}: \"{text}\""));
        match self {
            Fault::BadFormat => {
                Error::value(ValueErrorCode::InvalidDatetimeFormat, format!("invalid input syntax for type {type_name}: \"{text}\""))
            }
            Fault::FieldOverflow => value(ValueErrorCode::DatetimeFieldOverflow, "date/time field value out of range"),
            Fault::MonthDayOverflow => value(ValueErrorCode::DatetimeFieldOverflow, "date/time field value out of range")
                .with_hint("Perhaps you need a different \"datestyle\" setting."),
            Fault::IntervalOverflow => value(ValueErrorCode::IntervalFieldOverflow, "interval field value out of range"),
            Fault::ZoneOverflow => value(ValueErrorCode::InvalidTimeZoneDisplacement, "time zone displacement out of range"),
            Fault::UnknownZone(name) => unknown_zone(&name),
        }
    }
}

/// What a field looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    Number,
    /// Digits with date punctuation, or a word with any.
    Date,
    Time,
    /// A sign and digits.
    Zone,
    Word,
    /// A sign and letters.
    Special,
}

/// Cuts a text into fields, in lower case.
pub(super) fn split_fields(text: &str) -> Parsed<Vec<(FieldKind, String)>> {
    if text.len() > TEXT_SIZE_MAX {
        return Err(Fault::BadFormat);
    }
    let bytes = text.as_bytes();
    let mut fields = Vec::new();
    let mut at = 0;
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let alpha = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphabetic);
    let alnum = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let is = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|b| set.contains(b));
    while let Some(&b) = bytes.get(at) {
        let start = at;
        let kind = match b {
            b if is_space(char::from(b)) => {
                at += 1;
                continue;
            }
            b'0'..=b'9' => {
                while digit(at) {
                    at += 1;
                }
                if is(at, b":") {
                    while digit(at) || is(at, b":.") {
                        at += 1;
                    }
                    FieldKind::Time
                } else if is(at, b"-/.") {
                    let delimiter = bytes[at];
                    at += 1;
                    if digit(at) {
                        let mut kind = if delimiter == b'.' { FieldKind::Number } else { FieldKind::Date };
                        while digit(at) {
                            at += 1;
                        }
                        if is(at, &[delimiter]) {
                            kind = FieldKind::Date;
                            while digit(at) || is(at, &[delimiter]) {
                                at += 1;
                            }
                        }
                        kind
                    } else {
                        while alnum(at) || is(at, &[delimiter]) {
                            at += 1;
                        }
                        FieldKind::Date
                    }
                } else {
                    FieldKind::Number
                }
            }
            b'.' => {
                at += 1;
                while digit(at) {
                    at += 1;
                }
                FieldKind::Number
            }
            b if b.is_ascii_alphabetic() => {
                while alpha(at) {
                    at += 1;
                }
                // A date or a zone name may have punctuation inside; a keyword before a sign or a number ends.
                let continues =
                    is(at, b"-/.") || (is(at, b"+") || digit(at)) && keyword::find(&text[start..at].to_ascii_lowercase()).is_none();
                if continues {
                    while alnum(at) || is(at, b"+-/_.:") {
                        at += 1;
                    }
                    FieldKind::Date
                } else {
                    FieldKind::Word
                }
            }
            b'+' | b'-' => {
                at += 1;
                let mut field = String::from(char::from(b));
                while is(at, b" \t\n\r\x0b\x0c") {
                    at += 1;
                }
                let from = at;
                let kind = if digit(at) {
                    while digit(at) || is(at, b":.-") {
                        at += 1;
                    }
                    FieldKind::Zone
                } else if alpha(at) {
                    while alpha(at) {
                        at += 1;
                    }
                    FieldKind::Special
                } else {
                    return Err(Fault::BadFormat);
                };
                field.push_str(&text[from..at].to_ascii_lowercase());
                push_field(&mut fields, kind, field)?;
                continue;
            }
            b if b.is_ascii_punctuation() => {
                at += 1;
                continue;
            }
            _ => return Err(Fault::BadFormat),
        };
        push_field(&mut fields, kind, text[start..at].to_ascii_lowercase())?;
    }
    Ok(fields)
}

fn push_field(fields: &mut Vec<(FieldKind, String)>, kind: FieldKind, field: String) -> Parsed<()> {
    if fields.len() >= FIELDS_MAX {
        return Err(Fault::BadFormat);
    }
    fields.push((kind, field));
    Ok(())
}

/// Sets of calendar fields.
mod mask {
    pub const YEAR: u32 = 1;
    pub const MONTH: u32 = 2;
    pub const DAY: u32 = 4;
    pub const DATE: u32 = YEAR | MONTH | DAY;
    pub const TIME: u32 = 8;
    pub const ZONE: u32 = 16;
    pub const DST: u32 = 32;
    pub const DAY_OF_YEAR: u32 = 64;
    pub const AM_PM: u32 = 128;
    pub const ERA: u32 = 256;
    pub const WEEKDAY: u32 = 512;
}

/// What a text turned out to mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Fields,
    Epoch,
    Late,
    Early,
}

/// Which of the two ways to read fields applies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    DateTime,
    TimeOnly,
}

struct Decoder<'s> {
    settings: &'s TextSettings,
    wanted: Wanted,
    f: Fields,
    day_of_year: i32,
    filled: u32,
    meaning: Meaning,
    /// Seconds east of UTC.
    east: i32,
    zone: Option<Zone>,
    text_month: bool,
    julian: bool,
    two_digit_year: bool,
    before_christ: bool,
    pm: Option<bool>,
    /// A unit (`j`, `t`) that says what the next number is.
    prefix: Option<Unit>,
}

/// A calendar date and time with the zone that the text names or the session has.
struct Moment {
    meaning: Meaning,
    f: Fields,
    east: i32,
}

fn integer(text: &str) -> Parsed<i32> {
    if text.is_empty() {
        return Err(Fault::BadFormat);
    }
    text.parse().map_err(|_| if text.bytes().all(|b| b.is_ascii_digit()) { Fault::FieldOverflow } else { Fault::BadFormat })
}

/// Reads `.ddd` as microseconds, rounded; at most one second.
pub(super) fn fraction_micros(text: &str) -> Parsed<i32> {
    let digits = &text[1..];
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::BadFormat);
    }
    if digits.is_empty() {
        return Ok(0);
    }
    let fraction: f64 = format!("0.{digits}").parse().map_err(|_| Fault::BadFormat)?;
    Ok((fraction * 1e6).round_ties_even() as i32)
}

/// `hh:mm[:ss[.fff]]`, with `hh` that may be great; hours, minutes, seconds, microseconds.
/// `minute_to_second` reads two numbers as minutes and seconds, as does a fraction behind the second number.
pub(super) fn decode_clock(text: &str, minute_to_second: bool) -> Parsed<(i64, i32, i32, i32)> {
    let (hour, rest) = text.split_once(':').ok_or(Fault::BadFormat)?;
    let mut hour: i64 = if hour.is_empty() { 0 } else { hour.parse().map_err(|_| Fault::FieldOverflow)? };
    let cut = rest.find([':', '.']).unwrap_or(rest.len());
    // An empty number is zero, as C's strtol has it.
    let number = |t: &str| if t.is_empty() { Ok(0) } else { integer(t) };
    let mut minute = number(&rest[..cut])?;
    let (mut second, mut micros) = (0, 0);
    let tail = &rest[cut..];
    match tail.as_bytes().first() {
        None if minute_to_second => {
            second = minute;
            minute = i32::try_from(hour).map_err(|_| Fault::FieldOverflow)?;
            hour = 0;
        }
        None => {}
        Some(b'.') => {
            micros = fraction_micros(tail)?;
            second = minute;
            minute = i32::try_from(hour).map_err(|_| Fault::FieldOverflow)?;
            hour = 0;
        }
        Some(_) => {
            let tail = &tail[1..];
            let cut = tail.find('.').unwrap_or(tail.len());
            second = number(&tail[..cut])?;
            if cut < tail.len() {
                micros = fraction_micros(&tail[cut..])?;
            }
        }
    }
    if !(0..=59).contains(&minute) || !(0..=60).contains(&second) || hour < 0 {
        return Err(Fault::FieldOverflow);
    }
    Ok((hour, minute, second, micros))
}

/// `+hh[[:]mm[:ss]]` as seconds east of UTC.
pub(super) fn decode_zone(text: &str) -> Parsed<i32> {
    let negative = match text.as_bytes().first() {
        Some(b'-') => true,
        Some(b'+') => false,
        _ => return Err(Fault::BadFormat),
    };
    let body = &text[1..];
    let mut parts = body.split(':');
    let first = parts.next().unwrap_or("");
    let mut hour = integer(first)?;
    let mut minute = parts.next().map_or(Ok(0), integer)?;
    let second = parts.next().map_or(Ok(0), integer)?;
    if parts.next().is_some() {
        return Err(Fault::BadFormat);
    }
    if first.len() == body.len() && body.len() > 2 {
        minute = hour % 100;
        hour /= 100;
    }
    if !(0..=15).contains(&hour) || !(0..=59).contains(&minute) || !(0..=59).contains(&second) {
        return Err(Fault::ZoneOverflow);
    }
    let seconds = hour * 3600 + minute * 60 + second;
    Ok(if negative { -seconds } else { seconds })
}

impl<'s> Decoder<'s> {
    fn new(settings: &'s TextSettings, wanted: Wanted) -> Self {
        Decoder {
            settings,
            wanted,
            f: Fields::default(),
            day_of_year: 0,
            filled: 0,
            meaning: Meaning::Fields,
            east: 0,
            zone: None,
            text_month: false,
            julian: false,
            two_digit_year: false,
            before_christ: false,
            pm: None,
            prefix: None,
        }
    }

    fn session_zone(&self) -> Zone {
        Zone::named(&self.settings.time_zone).unwrap_or_else(Zone::utc)
    }

    /// The fields that count as filled when a number is looked at: a time alone leaves no date open.
    fn filled_for_time(&self) -> u32 {
        if self.wanted == Wanted::TimeOnly { self.filled | mask::DATE } else { self.filled }
    }

    fn decode(mut self, text: &str) -> Parsed<Moment> {
        let fields = split_fields(text)?;
        for i in 0..fields.len() {
            let new = self.field(&fields, i)?;
            if new & self.filled != 0 {
                return Err(Fault::BadFormat);
            }
            self.filled |= new;
        }
        self.finish()
    }

    /// Reads one field; returns what it fills.
    fn field(&mut self, fields: &[(FieldKind, String)], i: usize) -> Parsed<u32> {
        let (kind, text) = &fields[i];
        match kind {
            FieldKind::Date => self.date_field(fields, i),
            FieldKind::Time => {
                match self.prefix.take() {
                    None | Some(Unit::IsoTime) => {}
                    Some(_) => return Err(Fault::BadFormat),
                }
                let (hour, minute, second, micros) = decode_clock(text, false)?;
                self.f.hour = i32::try_from(hour).map_err(|_| Fault::FieldOverflow)?;
                (self.f.minute, self.f.second, self.f.micros) = (minute, second, micros);
                self.check_clock()?;
                Ok(mask::TIME)
            }
            FieldKind::Zone => {
                self.east = decode_zone(text)?;
                Ok(mask::ZONE)
            }
            FieldKind::Number => self.number_field(fields, i),
            FieldKind::Word | FieldKind::Special => self.word(text),
        }
    }

    fn check_clock(&self) -> Parsed<()> {
        let f = &self.f;
        let total = f.time();
        if f.hour < 0 || f.hour > 24 || f.minute > 59 || f.second > 60 || total > USECS_PER_DAY {
            return Err(Fault::FieldOverflow);
        }
        Ok(())
    }

    fn date_field(&mut self, fields: &[(FieldKind, String)], i: usize) -> Parsed<u32> {
        let text = &fields[i].1;
        if self.wanted == Wanted::TimeOnly {
            let date_allowed =
                i == 0 && fields.len() >= 2 && (fields[fields.len() - 1].0 == FieldKind::Date || fields[1].0 == FieldKind::Time);
            if date_allowed {
                return self.date(text);
            }
            if text.as_bytes()[0].is_ascii_digit() {
                return self.time_with_zone(text);
            }
            return self.zone_name(text);
        }
        if self.prefix == Some(Unit::Julian) {
            let cut = text.find(['-', '+', '/']).ok_or(Fault::BadFormat)?;
            self.julian_day(&text[..cut])?;
            self.east = decode_zone(&text[cut..])?;
            self.prefix = None;
            return Ok(mask::DATE | mask::TIME | mask::ZONE);
        }
        let has_month_and_day = self.filled & (mask::MONTH | mask::DAY) == mask::MONTH | mask::DAY;
        if self.prefix.is_none() && !has_month_and_day {
            return self.date(text);
        }
        // There is a date already: this is a zone's name, or a time run together with a displacement.
        if text.as_bytes()[0].is_ascii_digit() || self.prefix.is_some() {
            if !matches!(self.prefix.take(), None | Some(Unit::IsoTime)) {
                return Err(Fault::BadFormat);
            }
            return self.time_with_zone(text);
        }
        self.zone_name(text)
    }

    fn zone_name(&mut self, text: &str) -> Parsed<u32> {
        self.zone = Some(Zone::named(text).ok_or_else(|| Fault::UnknownZone(text.to_owned()))?);
        Ok(mask::ZONE)
    }

    /// `hhmmss-zz`
    fn time_with_zone(&mut self, text: &str) -> Parsed<u32> {
        if self.filled & mask::TIME != 0 {
            return Err(Fault::BadFormat);
        }
        let cut = text.find('-').ok_or(Fault::BadFormat)?;
        self.east = decode_zone(&text[cut..])?;
        let filled = self.filled_for_time();
        Ok(self.run_together(&text[..cut], filled)? | mask::ZONE)
    }

    fn julian_day(&mut self, text: &str) -> Parsed<()> {
        let days = integer(text)?;
        let (year, month, day) = civil_from_days(i64::from(days) - 2_451_545);
        (self.f.year, self.f.month, self.f.day) = (year, month, day);
        self.julian = true;
        Ok(())
    }

    fn number_field(&mut self, fields: &[(FieldKind, String)], i: usize) -> Parsed<u32> {
        let text = &fields[i].1;
        match self.prefix.take() {
            Some(Unit::Julian) => {
                let (days, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
                self.julian_day(days)?;
                if fraction.is_empty() {
                    return Ok(mask::DATE);
                }
                let fraction: f64 = format!("0{fraction}0").parse().map_err(|_| Fault::BadFormat)?;
                let time = fields_from_time((fraction * USECS_PER_DAY as f64) as i64);
                self.f = Fields { year: self.f.year, month: self.f.month, day: self.f.day, ..time };
                return Ok(mask::DATE | mask::TIME);
            }
            Some(Unit::IsoTime) => {
                let new = self.run_together(text, self.filled | mask::DATE)?;
                return if new == mask::TIME { Ok(new) } else { Err(Fault::BadFormat) };
            }
            Some(_) => return Err(Fault::BadFormat),
            None => {}
        }
        let point = text.find('.');
        if self.wanted == Wanted::TimeOnly {
            return match point {
                Some(_) if i == 0 && fields.len() >= 2 && fields[fields.len() - 1].0 == FieldKind::Date => self.date(text),
                Some(p) if p > 2 => self.run_together(text, self.filled | mask::DATE),
                Some(_) => Err(Fault::BadFormat),
                None if text.len() > 4 => self.run_together(text, self.filled | mask::DATE),
                None => self.number(text, false, self.filled | mask::DATE),
            };
        }
        match point {
            Some(_) if self.filled & mask::DATE == 0 => self.date(text),
            Some(p) if p > 2 => self.run_together(text, self.filled),
            None if text.len() >= 6 && (self.filled & mask::DATE == 0 || self.filled & mask::TIME == 0) => {
                self.run_together(text, self.filled)
            }
            _ => self.number(text, self.text_month, self.filled),
        }
    }

    /// A date of three parts with punctuation between them.
    fn date(&mut self, text: &str) -> Parsed<u32> {
        let mut parts: Vec<&str> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            rest = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
            let Some(first) = rest.chars().next() else { return Err(Fault::BadFormat) };
            let same = |c: char| if first.is_ascii_digit() { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
            let end = rest.find(|c| !same(c)).unwrap_or(rest.len());
            parts.push(&rest[..end]);
            // One separator is skipped with the part, so that one at the end does no harm.
            rest = rest[end..].get(1..).unwrap_or("");
        }
        let mut text_month = false;
        let mut new = 0;
        for part in parts.iter().filter(|p| p.as_bytes()[0].is_ascii_alphabetic()) {
            match keyword::find(part) {
                Some(Keyword::Ignore) => continue,
                Some(Keyword::Month(m)) => {
                    self.f.month = m;
                    text_month = true;
                }
                _ => return Err(Fault::BadFormat),
            }
            if (self.filled | new) & mask::MONTH != 0 {
                return Err(Fault::BadFormat);
            }
            new |= mask::MONTH;
        }
        for part in parts.iter().filter(|p| p.as_bytes()[0].is_ascii_digit()) {
            let more = self.number(part, text_month, self.filled | new)?;
            if (self.filled | new) & more != 0 {
                return Err(Fault::BadFormat);
            }
            new |= more;
        }
        if (self.filled | new) & !(mask::DAY_OF_YEAR | mask::ZONE) != mask::DATE {
            return Err(Fault::BadFormat);
        }
        Ok(new)
    }

    /// One number of a date, whose meaning depends on what is there and on DateStyle.
    fn number(&mut self, text: &str, text_month: bool, filled: u32) -> Parsed<u32> {
        let (digits, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
        let value = integer(digits)?;
        if !fraction.is_empty() {
            if digits.len() > 2 {
                return self.run_together(text, filled | mask::DATE);
            }
            self.f.micros = fraction_micros(fraction)?;
        }
        let length = text.len();
        if length == 3 && filled & mask::DATE == mask::YEAR && (1..=366).contains(&value) {
            self.day_of_year = value;
            return Ok(mask::DAY_OF_YEAR | mask::MONTH | mask::DAY);
        }
        const YEAR: u32 = mask::YEAR;
        const MONTH: u32 = mask::MONTH;
        const DAY: u32 = mask::DAY;
        const YEAR_MONTH: u32 = mask::YEAR | mask::MONTH;
        const MONTH_DAY: u32 = mask::MONTH | mask::DAY;
        let year_first = length >= 3 || self.settings.date_order == DateOrder::Ymd;
        let meaning = match filled & mask::DATE {
            0 if year_first => YEAR,
            0 if self.settings.date_order == DateOrder::Dmy => DAY,
            0 => MONTH,
            YEAR => MONTH,
            MONTH if text_month && year_first => YEAR,
            MONTH => DAY,
            YEAR_MONTH if text_month && length >= 3 && self.two_digit_year => {
                // The number taken for a year was the day.
                self.f.day = self.f.year;
                self.f.year = value;
                self.two_digit_year = false;
                return Ok(DAY);
            }
            YEAR_MONTH => DAY,
            DAY => MONTH,
            MONTH_DAY => YEAR,
            mask::DATE => return self.run_together(text, filled),
            _ => return Err(Fault::BadFormat),
        };
        match meaning {
            YEAR => {
                self.f.year = value;
                self.two_digit_year = length <= 2;
            }
            MONTH => self.f.month = value,
            _ => self.f.day = value,
        }
        Ok(meaning)
    }

    /// Digits run together: `yyyymmdd`, `hhmmss[.fff]`, `hhmm`.
    fn run_together(&mut self, text: &str, filled: u32) -> Parsed<u32> {
        let (digits, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Fault::BadFormat);
        }
        let length = digits.len();
        if !fraction.is_empty() {
            self.f.micros = fraction_micros(fraction)?;
        } else if filled & mask::DATE != mask::DATE && length >= 6 {
            self.f.day = integer(&digits[length - 2..])?;
            self.f.month = integer(&digits[length - 4..length - 2])?;
            self.f.year = integer(&digits[..length - 4])?;
            if length == 6 {
                self.two_digit_year = true;
            }
            return Ok(mask::DATE);
        }
        if filled & mask::TIME == 0 && (length == 6 || length == 4) {
            self.f.hour = integer(&digits[..2])?;
            self.f.minute = integer(&digits[2..4])?;
            self.f.second = if length == 6 { integer(&digits[4..])? } else { 0 };
            return Ok(mask::TIME);
        }
        Err(Fault::BadFormat)
    }

    fn word(&mut self, text: &str) -> Parsed<u32> {
        if let Some((east, dst)) = find_abbreviation(text) {
            self.east = east;
            // A zone that is in daylight saving time already takes no DST behind it.
            return Ok(if dst { mask::ZONE | mask::DST } else { mask::ZONE });
        }
        match keyword::find(text) {
            None => {
                self.zone = Some(Zone::named(text).ok_or(Fault::BadFormat)?);
                Ok(mask::ZONE)
            }
            Some(Keyword::Ignore) => Ok(0),
            Some(Keyword::Special(special)) => self.special(special),
            Some(Keyword::Month(month)) => {
                // A number before the month's name was the day then.
                let mut new = mask::MONTH;
                if self.filled & mask::MONTH != 0 && !self.text_month && self.filled & mask::DAY == 0 && (1..=31).contains(&self.f.month) {
                    self.f.day = self.f.month;
                    new = mask::DAY;
                }
                if self.wanted == Wanted::TimeOnly {
                    return Err(Fault::BadFormat);
                }
                self.text_month = true;
                self.f.month = month;
                Ok(new)
            }
            Some(Keyword::Weekday(_)) if self.wanted == Wanted::DateTime => Ok(mask::WEEKDAY),
            Some(Keyword::AmPm { pm }) => {
                self.pm = Some(pm);
                Ok(mask::AM_PM)
            }
            Some(Keyword::Era { before_christ }) => {
                self.before_christ = before_christ;
                Ok(mask::ERA)
            }
            Some(Keyword::DaylightSaving) => {
                self.east += 3600;
                Ok(mask::DST)
            }
            Some(Keyword::Unit(Unit::IsoTime)) => {
                if self.wanted == Wanted::DateTime && self.filled & mask::DATE != mask::DATE {
                    return Err(Fault::BadFormat);
                }
                self.prefix = Some(Unit::IsoTime);
                Ok(0)
            }
            Some(Keyword::Unit(unit)) => {
                self.prefix = Some(unit);
                Ok(0)
            }
            Some(_) => Err(Fault::BadFormat),
        }
    }

    fn special(&mut self, special: Special) -> Parsed<u32> {
        if self.wanted == Wanted::TimeOnly && !matches!(special, Special::Now | Special::AllBalls) {
            return Err(Fault::BadFormat);
        }
        let mut today = |offset: i64| {
            let local = self.session_zone().to_local(now()).unwrap_or_default();
            let (year, month, day) = civil_from_days(split_timestamp(local).0 + offset);
            (self.f.year, self.f.month, self.f.day) = (year, month, day);
            Ok(mask::DATE)
        };
        match special {
            Special::Today => today(0),
            Special::Tomorrow => today(1),
            Special::Yesterday => today(-1),
            Special::Now => {
                let moment = now();
                let zone = self.session_zone();
                self.east = zone.offset_at(moment);
                self.f = fields_from_timestamp(zone.to_local(moment).unwrap_or_default());
                Ok(if self.wanted == Wanted::TimeOnly { mask::TIME } else { mask::DATE | mask::TIME | mask::ZONE })
            }
            Special::AllBalls => {
                (self.f.hour, self.f.minute, self.f.second) = (0, 0, 0);
                self.east = 0;
                Ok(mask::TIME | mask::ZONE)
            }
            Special::Epoch | Special::Infinity | Special::NegInfinity => {
                self.meaning = match special {
                    Special::Epoch => Meaning::Epoch,
                    Special::Infinity => Meaning::Late,
                    _ => Meaning::Early,
                };
                Ok(mask::DATE | mask::TIME | mask::ZONE)
            }
        }
    }

    fn finish(mut self) -> Parsed<Moment> {
        if self.meaning != Meaning::Fields {
            return Ok(Moment { meaning: self.meaning, f: self.f, east: 0 });
        }
        self.validate()?;
        if let Some(pm) = self.pm {
            if self.f.hour > 12 {
                return Err(Fault::FieldOverflow);
            }
            self.f.hour = self.f.hour % 12 + if pm { 12 } else { 0 };
        }
        match self.wanted {
            Wanted::DateTime if self.filled & mask::DATE != mask::DATE => return Err(Fault::BadFormat),
            Wanted::TimeOnly if self.filled & mask::TIME == 0 => return Err(Fault::BadFormat),
            _ => {}
        }
        self.check_clock()?;
        let has_date = self.filled & mask::DATE == mask::DATE;
        let named = self.zone.take();
        if named.is_some() || self.filled & mask::ZONE == 0 {
            if self.filled & mask::DST != 0 && (self.filled & mask::ZONE == 0 || named.is_some()) {
                return Err(Fault::BadFormat);
            }
            let from_text = named.is_some();
            let zone = named.unwrap_or_else(|| self.session_zone());
            self.east = if has_date {
                self.local_offset(&zone)
            } else if let Some(east) = zone.fixed_offset() {
                east
            } else if from_text {
                return Err(Fault::BadFormat);
            } else {
                let today = fields_from_timestamp(zone.to_local(now()).unwrap_or_default());
                self.f = Fields { year: today.year, month: today.month, day: today.day, ..self.f };
                self.local_offset(&zone)
            };
        }
        Ok(Moment { meaning: Meaning::Fields, f: self.f, east: self.east })
    }

    fn local_offset(&self, zone: &Zone) -> i32 {
        let local =
            days_from_civil(self.f.year, self.f.month, self.f.day).checked_mul(USECS_PER_DAY).and_then(|d| d.checked_add(self.f.time()));
        local.map_or(0, |local| zone.offset_at_local(local))
    }

    /// Checks the fields once all are known, and gives two-digit years their century.
    fn validate(&mut self) -> Parsed<()> {
        if self.filled & mask::YEAR != 0 && !self.julian {
            let year = &mut self.f.year;
            if self.before_christ {
                if *year <= 0 {
                    return Err(Fault::FieldOverflow);
                }
                *year = 1 - *year;
            } else if self.two_digit_year {
                if *year < 70 {
                    *year += 2000;
                } else if *year < 100 {
                    *year += 1900;
                }
            } else if *year <= 0 {
                return Err(Fault::FieldOverflow);
            }
        }
        if self.filled & mask::DAY_OF_YEAR != 0 {
            let days = days_from_civil(self.f.year, 1, self.day_of_year);
            (self.f.year, self.f.month, self.f.day) = civil_from_days(days);
        }
        if self.filled & mask::MONTH != 0 && !(1..=12).contains(&self.f.month) {
            return Err(Fault::MonthDayOverflow);
        }
        if self.filled & mask::DAY != 0 && !(1..=31).contains(&self.f.day) {
            return Err(Fault::MonthDayOverflow);
        }
        if self.filled & mask::DATE == mask::DATE && self.f.day > days_in_month(self.f.year, self.f.month) {
            return Err(Fault::FieldOverflow);
        }
        Ok(())
    }
}

/// The plain forms `YYYY-MM-DD` and `YYYY-MM-DD HH:MM:SS[.ffffff][+HH[:MM]]`, which almost every value has: the days, the time
/// and the offset. Anything unusual is left to the decoder.
fn read_plain(text: &str) -> Option<(i64, i64, Option<i32>)> {
    let b = text.as_bytes();
    let two = |at: usize| -> Option<i32> {
        let (x, y) = (*b.get(at)?, *b.get(at + 1)?);
        (x.is_ascii_digit() && y.is_ascii_digit()).then(|| i32::from(x - b'0') * 10 + i32::from(y - b'0'))
    };
    if b.len() < 10 || b[4] != b'-' || b[7] != b'-' {
        return None;
    }
    let (year, month, day) = (two(0)? * 100 + two(2)?, two(5)?, two(8)?);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    if b.len() == 10 {
        return Some((days, 0, None));
    }
    if b.len() < 19 || !matches!(b[10], b' ' | b'T') || b[13] != b':' || b[16] != b':' {
        return None;
    }
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = 0;
    let mut at = 19;
    if b.get(at) == Some(&b'.') {
        at += 1;
        let from = at;
        while let Some(d) = b.get(at).filter(|d| d.is_ascii_digit()) {
            micros = micros * 10 + i32::from(d - b'0');
            at += 1;
            if at - from > 6 {
                return None;
            }
        }
        if at == from {
            return None;
        }
        micros *= 10i32.pow(6 - (at - from) as u32);
    }
    let time = Fields { hour, minute, second, micros, ..Fields::default() }.time();
    let sign = match b.get(at) {
        None => return Some((days, time, None)),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    let hours = two(at + 1)?;
    let minutes = match b.len() - at {
        3 => 0,
        6 if b[at + 3] == b':' => two(at + 4)?,
        _ => return None,
    };
    if hours > 15 || minutes > 59 {
        return None;
    }
    Some((days, time, Some(sign * (hours * 3600 + minutes * 60))))
}

fn decode(text: &str, settings: &TextSettings, wanted: Wanted, type_name: &str) -> Result<Moment> {
    Decoder::new(settings, wanted).decode(text).map_err(|fault| fault.into_error(type_name, text))
}

/// Reads a date; a time and a zone behind it are ignored.
/// # Errors
/// `Value` (22007, 22008, 22009, 22023).
pub fn parse_date(text: &str, settings: &TextSettings) -> Result<i32> {
    if let Some((days, _, _)) = read_plain(text) {
        return Ok(days as i32);
    }
    let moment = decode(text, settings, Wanted::DateTime, "date")?;
    match moment.meaning {
        Meaning::Late => Ok(DATE_INFINITY),
        Meaning::Early => Ok(DATE_NEG_INFINITY),
        Meaning::Epoch => Ok(UNIX_EPOCH_DAYS),
        Meaning::Fields => date_from_civil(moment.f.year, moment.f.month, moment.f.day)
            .ok_or_else(|| datetime_overflow(format!("date out of range: \"{text}\""))),
    }
}

/// Reads a time of day; a zone is ignored.
/// # Errors
/// `Value` (22007, 22008, 22009, 22023).
pub fn parse_time(text: &str, typmod: i32, settings: &TextSettings) -> Result<i64> {
    let moment = decode(text, settings, Wanted::TimeOnly, "time")?;
    Ok(round_time(moment.f.time(), typmod))
}

/// Reads a time of day with its displacement.
/// # Errors
/// `Value` (22007, 22008, 22009, 22023).
pub fn parse_timetz(text: &str, typmod: i32, settings: &TextSettings) -> Result<TimeTz> {
    let moment = decode(text, settings, Wanted::TimeOnly, "time with time zone")?;
    Ok(TimeTz { time: round_time(moment.f.time(), typmod), zone: -moment.east })
}

/// Reads a local timestamp; a zone is ignored.
/// # Errors
/// `Value` (22007, 22008, 22009, 22023).
pub fn parse_timestamp(text: &str, typmod: i32, settings: &TextSettings) -> Result<i64> {
    if let Some((days, time, _)) = read_plain(text) {
        return round_timestamp(days * USECS_PER_DAY + time, typmod);
    }
    let moment = decode(text, settings, Wanted::DateTime, "timestamp")?;
    let timestamp = match moment.meaning {
        Meaning::Late => TIMESTAMP_INFINITY,
        Meaning::Early => TIMESTAMP_NEG_INFINITY,
        Meaning::Epoch => UNIX_EPOCH_USECS,
        Meaning::Fields => moment.f.timestamp().ok_or_else(|| datetime_overflow(format!("timestamp out of range: \"{text}\"")))?,
    };
    round_timestamp(timestamp, typmod)
}

/// Reads a moment; without a zone in the text it is in the session's.
/// # Errors
/// `Value` (22007, 22008, 22009, 22023).
pub fn parse_timestamptz(text: &str, typmod: i32, settings: &TextSettings) -> Result<i64> {
    if let Some((days, time, zone)) = read_plain(text) {
        let local = days * USECS_PER_DAY + time;
        let east = zone.unwrap_or_else(|| Zone::named(&settings.time_zone).map_or(0, |z| z.offset_at_local(local)));
        return round_timestamp(local - i64::from(east) * USECS_PER_SEC, typmod);
    }
    let moment = decode(text, settings, Wanted::DateTime, "timestamp with time zone")?;
    let timestamp = match moment.meaning {
        Meaning::Late => TIMESTAMP_INFINITY,
        Meaning::Early => TIMESTAMP_NEG_INFINITY,
        Meaning::Epoch => UNIX_EPOCH_USECS,
        Meaning::Fields => {
            let days = days_from_civil(moment.f.year, moment.f.month, moment.f.day);
            let utc = days
                .checked_mul(USECS_PER_DAY)
                .and_then(|d| d.checked_add(moment.f.time()))
                .and_then(|t| t.checked_sub(i64::from(moment.east) * USECS_PER_SEC));
            utc.filter(|t| (TIMESTAMP_MIN..TIMESTAMP_END).contains(t))
                .ok_or_else(|| datetime_overflow(format!("timestamp out of range: \"{text}\"")))?
        }
    };
    round_timestamp(timestamp, typmod)
}
