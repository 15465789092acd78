//! Time zones: IANA names, POSIX specifications and abbreviations.

use std::cell::RefCell;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::*;
use crate::error::{Error, Result, ValueErrorCode};

/// PostgreSQL's default abbreviations: seconds east of UTC, and whether it means daylight saving time.
const ABBREVIATIONS: &str = include_str!("abbreviations.txt");

const ABBREVIATION_SIZE_MAX: usize = 6;

/// A zone that offsets can be asked of.
#[derive(Clone, Debug)]
pub enum Zone {
    /// A fixed offset in seconds east of UTC, and how it is printed.
    Fixed {
        east: i32,
        abbreviation: String,
    },
    Named(TimeZone),
}

thread_local! {
    /// The session's zone is asked for with every value.
    static LAST: RefCell<Option<(String, Zone)>> = const { RefCell::new(None) };
}

/// Days in the 400 years after which the calendar, with its weekdays, repeats.
const CYCLE_DAYS: i64 = 146_097;

impl Zone {
    pub fn utc() -> Self {
        Zone::Fixed { east: 0, abbreviation: "UTC".into() }
    }

    /// The zone with a full name (`Europe/Berlin`) or a POSIX specification (`EST5`, `<+03>-3`).
    pub fn named(name: &str) -> Option<Zone> {
        if name.eq_ignore_ascii_case("UTC") {
            return Some(Zone::utc());
        }
        if let Some(zone) = LAST.with_borrow(|last| last.as_ref().filter(|(n, _)| n == name).map(|(_, z)| z.clone())) {
            return Some(zone);
        }
        let zone = Self::look_up(name)?;
        LAST.set(Some((name.to_owned(), zone.clone())));
        Some(zone)
    }

    fn look_up(name: &str) -> Option<Zone> {
        if name.eq_ignore_ascii_case("GMT") {
            return Some(Zone::Fixed { east: 0, abbreviation: "GMT".into() });
        }
        if let Ok(zone) = TimeZone::get(name) {
            return Some(Zone::Named(zone));
        }
        let (abbreviation, rest) = split_posix_name(name)?;
        let (east, rest) = posix_offset(rest)?;
        if rest.is_empty() {
            return Some(Zone::Fixed { east, abbreviation: abbreviation.to_uppercase() });
        }
        // A daylight saving zone without rules has those of the United States.
        let rule = if rest.contains(',') { name.to_owned() } else { format!("{name},M3.2.0,M11.1.0") };
        TimeZone::posix(&rule).ok().map(Zone::Named)
    }

    /// The zone that `AT TIME ZONE` means: an abbreviation, else a name.
    /// # Errors
    /// `Value` (22023).
    pub fn resolve(name: &str) -> Result<Zone> {
        Self::abbreviation(name).or_else(|| Self::named(name)).ok_or_else(|| unknown_zone(name))
    }

    /// The fixed offset that an abbreviation stands for.
    pub fn abbreviation(name: &str) -> Option<Zone> {
        let (east, _) = find_abbreviation(name)?;
        Some(Zone::Fixed { east, abbreviation: name.to_uppercase() })
    }

    /// A fixed displacement, in seconds east of UTC.
    pub fn fixed(east: i32) -> Zone {
        let mut text = Vec::new();
        push_offset(east, false, &mut text);
        Zone::Fixed { east, abbreviation: String::from_utf8_lossy(&text).into_owned() }
    }

    /// Seconds east of UTC at a moment.
    pub fn offset_at(&self, timestamptz: i64) -> i32 {
        match self {
            Zone::Fixed { east, .. } => *east,
            Zone::Named(zone) => zone.to_offset(to_jiff(timestamptz)).seconds(),
        }
    }

    /// Seconds east of UTC, whether daylight saving time holds, and the abbreviation at a moment.
    pub fn info_at(&self, timestamptz: i64) -> (i32, bool, String) {
        match self {
            Zone::Fixed { east, abbreviation } => (*east, false, abbreviation.clone()),
            Zone::Named(zone) => {
                let info = zone.to_offset_info(to_jiff(timestamptz));
                (info.offset().seconds(), info.dst().is_dst(), info.abbreviation().to_owned())
            }
        }
    }

    /// The offset of a zone that has always the same one.
    pub fn fixed_offset(&self) -> Option<i32> {
        match self {
            Zone::Fixed { east, .. } => Some(*east),
            Zone::Named(zone) => zone.to_fixed_offset().ok().map(|o| o.seconds()),
        }
    }

    /// Seconds east of UTC at a local time. In the gap of a spring the offset before it holds, in the fold of an autumn
    /// the one after it: standard time both ways.
    pub fn offset_at_local(&self, local: i64) -> i32 {
        let zone = match self {
            Zone::Fixed { east, .. } => return *east,
            Zone::Named(zone) => zone,
        };
        let f = fields_from_timestamp(wrap(local));
        let offset = DateTime::new(f.year as i16, f.month as i8, f.day as i8, f.hour as i8, f.minute as i8, f.second as i8, 0)
            .map(|d| zone.to_ambiguous_timestamp(d).offset());
        match offset {
            Ok(AmbiguousOffset::Unambiguous { offset }) => offset.seconds(),
            Ok(AmbiguousOffset::Gap { before, .. }) => before.seconds(),
            Ok(AmbiguousOffset::Fold { after, .. }) => after.seconds(),
            Err(_) => zone.to_offset(to_jiff(local)).seconds(),
        }
    }

    /// The local timestamp of a moment.
    /// # Errors
    /// `Value` (22008).
    pub fn to_local(&self, timestamptz: i64) -> Result<i64> {
        if is_infinite(timestamptz) {
            return Ok(timestamptz);
        }
        check_timestamp(timestamptz.checked_add(i64::from(self.offset_at(timestamptz)) * USECS_PER_SEC))
    }

    /// The moment of a local timestamp.
    /// # Errors
    /// `Value` (22008).
    pub fn to_utc(&self, local: i64) -> Result<i64> {
        if is_infinite(local) {
            return Ok(local);
        }
        check_timestamp(local.checked_sub(i64::from(self.offset_at_local(local)) * USECS_PER_SEC))
    }
}

pub(crate) fn unknown_zone(name: &str) -> Error {
    Error::value(ValueErrorCode::InvalidParameterValue, format!("time zone \"{name}\" not recognized"))
}

/// Seconds east and daylight saving of an abbreviation, in any case.
pub(crate) fn find_abbreviation(name: &str) -> Option<(i32, bool)> {
    // No abbreviation is longer, and most names of zones are.
    if name.len() > ABBREVIATION_SIZE_MAX {
        return None;
    }
    ABBREVIATIONS.lines().find_map(|line| {
        let mut parts = line.split(' ');
        if !parts.next()?.eq_ignore_ascii_case(name) {
            return None;
        }
        Some((parts.next()?.parse().ok()?, parts.next() == Some("t")))
    })
}

/// Moves a moment by whole 400-year cycles into the years that the zone data covers.
fn wrap(timestamp: i64) -> i64 {
    const LAST_YEAR: i64 = 9000;
    let days = timestamp.div_euclid(USECS_PER_DAY);
    let limit = (LAST_YEAR - 2000) * 365;
    if days < limit {
        return timestamp;
    }
    let cycles = (days - limit) / CYCLE_DAYS + 1;
    timestamp - cycles * CYCLE_DAYS * USECS_PER_DAY
}

fn to_jiff(timestamptz: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(wrap(timestamptz).saturating_sub(UNIX_EPOCH_USECS)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// The name at the start of a POSIX specification, and the rest.
fn split_posix_name(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('<') {
        let (name, rest) = quoted.split_once('>')?;
        return Some((name, rest));
    }
    let end = text.find(|c: char| !c.is_ascii_alphabetic())?;
    // A bare offset has an empty name.
    (end == 0 || end >= 3).then(|| text.split_at(end))
}

/// A POSIX offset `[+-]hh[:mm[:ss]]`, which counts to the west, as seconds east; and the rest.
fn posix_offset(text: &str) -> Option<(i32, &str)> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (1, &text[1..]),
        b'+' => (-1, &text[1..]),
        _ => (-1, text),
    };
    let mut seconds = 0;
    for unit in [3600, 60, 1] {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let value: i32 = rest[..end].parse().ok()?;
        if value > if unit == 3600 { 167 } else { 59 } {
            return None;
        }
        seconds += value * unit;
        rest = &rest[end..];
        match rest.strip_prefix(':') {
            Some(r) if unit > 1 => rest = r,
            _ => break,
        }
    }
    Some((sign * seconds, rest))
}

/// Appends an offset as `+HH[:MM[:SS]]`.
pub(crate) fn push_offset(east: i32, always_minutes: bool, out: &mut Vec<u8>) {
    out.push(if east < 0 { b'-' } else { b'+' });
    let seconds = east.unsigned_abs();
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    push_two(h, out);
    if m != 0 || s != 0 || always_minutes {
        out.push(b':');
        push_two(m, out);
    }
    if s != 0 {
        out.push(b':');
        push_two(s, out);
    }
}

/// Appends a number below 100 as two digits, a greater one as it is.
pub(crate) fn push_two(value: u32, out: &mut Vec<u8>) {
    if value >= 100 {
        out.extend(value.to_string().as_bytes());
    } else {
        out.extend([b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
    }
}
