//! `to_char` of times, `to_timestamp`, `to_date`: values by template.

use strandline_storage::value::datetime::{self as dt, Interval, USECS_PER_DAY, USECS_PER_HOUR, USECS_PER_MINUTE, USECS_PER_SEC};

use crate::error::{ErrorCode, Result, SqlError};

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// The patterns, longest first where one begins another.
const PATTERNS: &[&str] = &[
    "Y,YYY", "SSSSS", "SSSS", "IYYY", "YYYY", "MONTH", "Month", "month", "HH24", "HH12", "A.M.", "P.M.", "a.m.", "p.m.", "A.D.", "B.C.",
    "a.d.", "b.c.", "IDDD", "DAY", "Day", "day", "DDD", "IYY", "YYY", "MON", "Mon", "mon", "TZH", "TZM", "FF1", "FF2", "FF3", "FF4", "FF5",
    "FF6", "AM", "PM", "am", "pm", "AD", "BC", "ad", "bc", "CC", "DD", "DY", "Dy", "dy", "HH", "ID", "IW", "IY", "MI", "MM", "MS", "OF",
    "RM", "rm", "SS", "TZ", "tz", "US", "WW", "YY", "D", "I", "J", "Q", "W", "Y",
];

enum Node<'a> {
    Pattern { name: &'static str, fill: bool, suffix: Option<bool> },
    Literal(&'a str),
    Quoted(String),
}

fn nodes(format: &str) -> Vec<Node<'_>> {
    let mut out = Vec::new();
    let mut rest = format;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('"') {
            let mut text = String::new();
            let mut chars = after.char_indices();
            let mut end = after.len();
            while let Some((i, c)) = chars.next() {
                match c {
                    '"' => {
                        end = i + 1;
                        break;
                    }
                    '\\' => text.extend(chars.next().map(|(_, c)| c)),
                    c => text.push(c),
                }
            }
            out.push(Node::Quoted(text));
            rest = after.get(end..).unwrap_or("");
            continue;
        }
        let (fill, body) = match rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            Some(body) => (true, body),
            // A translated name is as long as it is, not padded.
            None => rest.strip_prefix("TM").map_or((false, rest), |body| (true, body)),
        };
        let found = PATTERNS.iter().find(|p| body.starts_with(**p)).or_else(|| {
            // Lower-case forms of the numeric patterns.
            PATTERNS.iter().find(|p| {
                p.len() <= body.len()
                    && body.is_char_boundary(p.len())
                    && p.eq_ignore_ascii_case(&body[..p.len()])
                    && !PATTERNS.iter().any(|q| *q != **p && q.eq_ignore_ascii_case(p))
            })
        });
        match found {
            Some(name) => {
                rest = &body[name.len()..];
                let suffix = ["TH", "th"].iter().find(|s| rest.starts_with(**s));
                if let Some(s) = suffix {
                    rest = &rest[s.len()..];
                }
                out.push(Node::Pattern { name, fill, suffix: suffix.map(|s| *s == "TH") });
            }
            None => {
                let body = if fill { body } else { rest };
                let len = body.chars().next().map_or(0, char::len_utf8);
                if len > 0 {
                    out.push(Node::Literal(&body[..len]));
                }
                rest = body.get(len..).unwrap_or("");
            }
        }
    }
    out
}

fn ordinal(number: i64, upper: bool) -> &'static str {
    let s = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    match (s, upper) {
        ("st", true) => "ST",
        ("nd", true) => "ND",
        ("rd", true) => "RD",
        (_, true) => "TH",
        (s, false) => s,
    }
}

/// The ordinal ending of a number's digits, as formatting.c finds it.
pub fn ordinal_of(digits: &str, upper: bool) -> &'static str {
    let whole = digits.split('.').next().unwrap_or(digits);
    let last_two = &whole[whole.len().saturating_sub(2)..];
    ordinal(last_two.parse().unwrap_or(0), upper)
}

/// A local timestamp by template. `zone`: seconds east of UTC and the abbreviation, for moments.
pub fn to_char_timestamp(t: i64, zone: Option<(i32, &str)>, format: &str) -> Result<String> {
    let f = dt::fields_from_timestamp(t);
    let days = dt::split_timestamp(t).0;
    let (iso_year, iso_week) = dt::iso_week(days);
    let year = if f.year > 0 { f.year } else { 1 - f.year };
    let hour12 = match f.hour % 12 {
        0 => 12,
        h => h,
    };
    let weekday = dt::day_of_week(days);
    let doy = dt::day_of_year(days);
    let mut out = String::new();
    for node in nodes(format) {
        let (name, fill, suffix) = match node {
            Node::Literal(text) => {
                out.push_str(text);
                continue;
            }
            Node::Quoted(text) => {
                out.push_str(&text);
                continue;
            }
            Node::Pattern { name, fill, suffix } => (name, fill, suffix),
        };
        let number = |value: i64, width: usize, out: &mut String| {
            if fill {
                out.push_str(&value.to_string())
            } else {
                out.push_str(&format!("{value:0width$}"))
            }
            if let Some(upper) = suffix {
                out.push_str(ordinal(value.abs(), upper));
            }
        };
        let word = |text: &str, width: usize, out: &mut String| {
            if fill { out.push_str(text) } else { out.push_str(&format!("{text:<width$}")) }
        };
        let seconds_of_day = i64::from(f.hour) * 3600 + i64::from(f.minute) * 60 + i64::from(f.second);
        match name {
            "YYYY" => number(i64::from(year), 4, &mut out),
            "YYY" => number(i64::from(year % 1000), 3, &mut out),
            "YY" => number(i64::from(year % 100), 2, &mut out),
            "Y" => number(i64::from(year % 10), 1, &mut out),
            "Y,YYY" => out.push_str(&format!("{},{:03}", year / 1000, year % 1000)),
            "IYYY" => number(i64::from(iso_year), 4, &mut out),
            "IYY" => number(i64::from(iso_year % 1000), 3, &mut out),
            "IY" => number(i64::from(iso_year % 100), 2, &mut out),
            "I" => number(i64::from(iso_year % 10), 1, &mut out),
            "MONTH" => word(&MONTHS[(f.month - 1) as usize].to_uppercase(), 9, &mut out),
            "Month" => word(MONTHS[(f.month - 1) as usize], 9, &mut out),
            "month" => word(&MONTHS[(f.month - 1) as usize].to_lowercase(), 9, &mut out),
            "MON" => out.push_str(&MONTHS[(f.month - 1) as usize][..3].to_uppercase()),
            "Mon" => out.push_str(&MONTHS[(f.month - 1) as usize][..3]),
            "mon" => out.push_str(&MONTHS[(f.month - 1) as usize][..3].to_lowercase()),
            "MM" => number(i64::from(f.month), 2, &mut out),
            "DAY" => word(&DAYS[weekday as usize].to_uppercase(), 9, &mut out),
            "Day" => word(DAYS[weekday as usize], 9, &mut out),
            "day" => word(&DAYS[weekday as usize].to_lowercase(), 9, &mut out),
            "DY" => out.push_str(&DAYS[weekday as usize][..3].to_uppercase()),
            "Dy" => out.push_str(&DAYS[weekday as usize][..3]),
            "dy" => out.push_str(&DAYS[weekday as usize][..3].to_lowercase()),
            "DDD" => number(i64::from(doy), 3, &mut out),
            "IDDD" => number(days - dt::iso_week_start(iso_year, 1) + 1, 3, &mut out),
            "DD" => number(i64::from(f.day), 2, &mut out),
            "D" => number(i64::from(weekday) + 1, 1, &mut out),
            "ID" => number(if weekday == 0 { 7 } else { i64::from(weekday) }, 1, &mut out),
            "W" => number(i64::from((f.day - 1) / 7 + 1), 1, &mut out),
            "WW" => number(i64::from((doy - 1) / 7 + 1), 2, &mut out),
            "IW" => number(i64::from(iso_week), 2, &mut out),
            "CC" if f.year > 0 => number(i64::from((f.year + 99) / 100), 2, &mut out),
            "CC" => {
                let century = i64::from(-((99 - (f.year - 1)) / 100));
                if fill { out.push_str(&century.to_string()) } else { out.push_str(&format!("{century:03}")) }
            }
            "J" => number(dt::julian_day(days), 1, &mut out),
            "Q" => number(i64::from((f.month - 1) / 3 + 1), 1, &mut out),
            "RM" => word(ROMAN[(f.month - 1) as usize], 4, &mut out),
            "rm" => word(&ROMAN[(f.month - 1) as usize].to_lowercase(), 4, &mut out),
            "HH24" => number(i64::from(f.hour), 2, &mut out),
            "HH12" | "HH" => number(i64::from(hour12), 2, &mut out),
            "MI" => number(i64::from(f.minute), 2, &mut out),
            "SS" => number(i64::from(f.second), 2, &mut out),
            "MS" | "FF3" => number(i64::from(f.micros / 1000), 3, &mut out),
            "US" | "FF6" => number(i64::from(f.micros), 6, &mut out),
            "FF1" => number(i64::from(f.micros / 100_000), 1, &mut out),
            "FF2" => number(i64::from(f.micros / 10_000), 2, &mut out),
            "FF4" => number(i64::from(f.micros / 100), 4, &mut out),
            "FF5" => number(i64::from(f.micros / 10), 5, &mut out),
            "SSSS" | "SSSSS" => number(seconds_of_day, 1, &mut out),
            "AM" | "PM" => out.push_str(if f.hour < 12 { "AM" } else { "PM" }),
            "am" | "pm" => out.push_str(if f.hour < 12 { "am" } else { "pm" }),
            "A.M." | "P.M." => out.push_str(if f.hour < 12 { "A.M." } else { "P.M." }),
            "a.m." | "p.m." => out.push_str(if f.hour < 12 { "a.m." } else { "p.m." }),
            "AD" | "BC" => out.push_str(if f.year > 0 { "AD" } else { "BC" }),
            "ad" | "bc" => out.push_str(if f.year > 0 { "ad" } else { "bc" }),
            "A.D." | "B.C." => out.push_str(if f.year > 0 { "A.D." } else { "B.C." }),
            "a.d." | "b.c." => out.push_str(if f.year > 0 { "a.d." } else { "b.c." }),
            "TZ" => out.push_str(zone.map_or("", |z| z.1)),
            "tz" => out.push_str(&zone.map_or(String::new(), |z| z.1.to_lowercase())),
            "TZH" | "TZM" | "OF" => {
                let offset = zone.map_or(0, |z| z.0);
                let (sign, size) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
                match name {
                    "TZM" => out.push_str(&format!("{:02}", size / 60 % 60)),
                    "TZH" => out.push_str(&format!("{sign}{:02}", size / 3600)),
                    _ if size / 60 % 60 != 0 => out.push_str(&format!("{sign}{:02}:{:02}", size / 3600, size / 60 % 60)),
                    _ => out.push_str(&format!("{sign}{:02}", size / 3600)),
                }
            }
            _ => {}
        }
    }
    Ok(out)
}

/// An interval by template: its fields are not limited as a timestamp's are.
pub fn to_char_interval(i: &Interval, format: &str) -> Result<String> {
    let mut out = String::new();
    let hours = i.micros / USECS_PER_HOUR;
    for node in nodes(format) {
        match node {
            Node::Literal(text) => out.push_str(text),
            Node::Quoted(text) => out.push_str(&text),
            Node::Pattern { name, fill, .. } => {
                let micros = i.micros % USECS_PER_SEC;
                let (value, width) = match name {
                    "YYYY" => (i64::from(i.months / 12), 4),
                    "YY" => (i64::from(i.months / 12 % 100), 2),
                    "MM" => (i64::from(i.months % 12), 2),
                    "DD" => (i64::from(i.days), 2),
                    "DDD" => (i64::from(i.months) * 30 + i64::from(i.days), 3),
                    "HH24" => (hours, 2),
                    "HH12" | "HH" => (if hours % 12 == 0 { 12 } else { hours % 12 }, 2),
                    "MI" => (i.micros / USECS_PER_MINUTE % 60, 2),
                    "SS" => (i.micros / USECS_PER_SEC % 60, 2),
                    "MS" => (micros / 1000, 3),
                    "US" => (micros, 6),
                    "SSSS" | "SSSSS" => (i.micros / USECS_PER_SEC, 1),
                    "AM" | "PM" => {
                        out.push_str(if hours % 24 < 12 { "AM" } else { "PM" });
                        continue;
                    }
                    _ => return Err(SqlError::unsupported(format!("the pattern \"{name}\" for an interval"))),
                };
                if fill { out.push_str(&value.to_string()) } else { out.push_str(&format!("{value:0width$}")) }
            }
        }
    }
    Ok(out)
}

/// Reads a timestamp by template: local microseconds and, if given, the zone in seconds east of UTC.
pub fn parse(text: &str, format: &str) -> Result<(i64, Option<i32>)> {
    let bad = |name: &str, text: &str| {
        SqlError::new(
            ErrorCode::InvalidDatetimeFormat,
            format!("invalid value \"{}\" for \"{name}\"", text.chars().take(name.len()).collect::<String>()),
        )
    };
    let (mut year, mut month, mut day, mut doy) = (None::<i64>, None::<i64>, None::<i64>, None::<i64>);
    let (mut hour, mut minute, mut second, mut micros) = (0i64, 0i64, 0i64, 0i64);
    let (mut pm, mut bc, mut zone_hour, mut zone_minute) = (None::<bool>, false, None::<i64>, 0i64);
    let mut julian = None;
    let mut twelve = false;
    let mut rest = text.trim_start();
    let list = nodes(format);
    for (at, node) in list.iter().enumerate() {
        let (name, fill) = match node {
            Node::Literal(l) => {
                // A separator matches any separator, or none.
                let is_separator = l.chars().all(|c| !c.is_alphanumeric());
                if is_separator {
                    rest = rest.trim_start_matches(|c: char| c.is_whitespace());
                    if !l.trim().is_empty()
                        && let Some(c) = rest
                            .chars()
                            .next()
                            .filter(|c| !c.is_alphanumeric() && *c != '-' && *c != '+' || rest.starts_with(*l) && !c.is_alphanumeric())
                    {
                        rest = &rest[c.len_utf8()..];
                    }
                } else {
                    rest = rest.get(rest.chars().next().map_or(0, char::len_utf8)..).unwrap_or("");
                }
                continue;
            }
            Node::Quoted(q) => {
                let len: usize = rest.chars().take(q.chars().count()).map(char::len_utf8).sum();
                rest = &rest[len..];
                continue;
            }
            Node::Pattern { name, fill, .. } => (*name, *fill),
        };
        rest = rest.trim_start();
        // Digits are taken to the pattern's width where another digit pattern follows at once.
        let adjacent = matches!(list.get(at + 1), Some(Node::Pattern { .. }));
        let digits = |rest: &mut &str, width: usize| -> Result<i64> {
            let signed = rest.starts_with(['-', '+']);
            let body = if signed { &rest[1..] } else { &**rest };
            let most = if fill || !adjacent { if width == 4 { 9 } else { width.max(1) } } else { width };
            let len = body.bytes().take(most).take_while(u8::is_ascii_digit).count();
            if len == 0 {
                return Err(bad(name, rest).detail("Value must be an integer."));
            }
            let value: i64 = body[..len].parse().map_err(|_| bad(name, rest))?;
            let value = if rest.starts_with('-') { -value } else { value };
            *rest = &body[len..];
            Ok(value)
        };
        let word = |rest: &mut &str, words: &[&str], full: bool| -> Option<usize> {
            for (i, w) in words.iter().enumerate() {
                let w = if full { *w } else { &w[..3] };
                if rest.len() >= w.len() && rest.is_char_boundary(w.len()) && rest[..w.len()].eq_ignore_ascii_case(w) {
                    *rest = &rest[w.len()..];
                    return Some(i);
                }
            }
            None
        };
        match name {
            "YYYY" | "IYYY" => year = Some(digits(&mut rest, 4)?),
            "YYY" => year = Some(short_year(digits(&mut rest, 3)?, 3)),
            "YY" | "IY" => year = Some(short_year(digits(&mut rest, 2)?, 2)),
            "Y" => year = Some(short_year(digits(&mut rest, 1)?, 1)),
            "MM" => month = Some(digits(&mut rest, 2)?),
            "MONTH" | "Month" | "month" => {
                month = Some(
                    word(&mut rest, &MONTHS, true).or_else(|| word(&mut rest, &MONTHS, false)).ok_or_else(|| bad(name, rest))? as i64 + 1,
                )
            }
            "MON" | "Mon" | "mon" => month = Some(word(&mut rest, &MONTHS, false).ok_or_else(|| bad(name, rest))? as i64 + 1),
            "DD" => day = Some(digits(&mut rest, 2)?),
            "DDD" => doy = Some(digits(&mut rest, 3)?),
            "DAY" | "Day" | "day" => {
                word(&mut rest, &DAYS, true).ok_or_else(|| bad(name, rest))?;
            }
            "DY" | "Dy" | "dy" => {
                word(&mut rest, &DAYS, false).ok_or_else(|| bad(name, rest))?;
            }
            "D" | "ID" | "Q" | "W" => {
                digits(&mut rest, 1)?;
            }
            "J" => julian = Some(digits(&mut rest, 7)?),
            "HH24" => hour = digits(&mut rest, 2)?,
            "HH12" | "HH" => {
                hour = digits(&mut rest, 2)?;
                twelve = true;
            }
            "MI" => minute = digits(&mut rest, 2)?,
            "SS" => second = digits(&mut rest, 2)?,
            "SSSS" | "SSSSS" => {
                let total = digits(&mut rest, 5)?;
                (hour, minute, second) = (total / 3600, total / 60 % 60, total % 60);
            }
            "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let width = match name {
                    "MS" | "FF3" => 3,
                    "US" | "FF6" => 6,
                    other => usize::from(other.as_bytes()[2] - b'0'),
                };
                let before = rest.len();
                let value = digits(&mut rest, width)?;
                let read = before - rest.len();
                micros = value * 10i64.pow(6 - read.min(6) as u32);
            }
            "AM" | "PM" | "am" | "pm" | "A.M." | "P.M." | "a.m." | "p.m." => {
                let len = name.len().min(rest.len());
                let found = rest.get(..len).unwrap_or("").to_ascii_lowercase().replace('.', "");
                pm = Some(match found.as_str() {
                    "am" => false,
                    "pm" => true,
                    _ => return Err(bad(name, rest)),
                });
                rest = &rest[len..];
                twelve = true;
            }
            "AD" | "BC" | "ad" | "bc" | "A.D." | "B.C." | "a.d." | "b.c." => {
                let len = name.len().min(rest.len());
                bc = rest.get(..len).unwrap_or("").to_ascii_lowercase().starts_with('b');
                rest = rest.get(len..).unwrap_or("");
            }
            "TZH" | "OF" => zone_hour = Some(digits(&mut rest, 2)?),
            "TZM" => zone_minute = digits(&mut rest, 2)?,
            other => return Err(SqlError::unsupported(format!("the pattern \"{other}\" in to_timestamp and to_date"))),
        }
    }
    if twelve {
        if !(1..=12).contains(&hour) {
            return Err(SqlError::new(ErrorCode::InvalidDatetimeFormat, format!("hour \"{hour}\" is invalid for the 12-hour clock"))
                .hint("Use the 24-hour clock, or give an hour between 1 and 12."));
        }
        hour = match (pm, hour) {
            (Some(true), h) if h < 12 => h + 12,
            (Some(false), 12) => 0,
            (_, h) => h,
        };
    }
    let range = || SqlError::new(ErrorCode::DatetimeFieldOverflow, format!("date/time field value out of range: \"{text}\""));
    if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0..=60).contains(&second) {
        return Err(range());
    }
    let days = match julian {
        Some(j) => j - 2_451_545,
        None => {
            // Without a year the date is in 1 BC, as PostgreSQL's zero year.
            let mut y = year.unwrap_or(0);
            if bc && year.is_some() {
                y = 1 - y;
            }
            let y = i32::try_from(y).map_err(|_| range())?;
            match doy {
                Some(n) => dt::days_from_civil(y, 1, 1) + n - 1,
                None => {
                    let (m, d) = (month.unwrap_or(1) as i32, day.unwrap_or(1) as i32);
                    if !(1..=12).contains(&m) || !(1..=dt::days_in_month(y, m)).contains(&d) {
                        return Err(range());
                    }
                    i64::from(dt::date_from_civil(y, m, d).ok_or_else(range)?)
                }
            }
        }
    };
    let time = hour * USECS_PER_HOUR + minute * USECS_PER_MINUTE + second * USECS_PER_SEC + micros;
    let local = dt::check_timestamp(days.checked_mul(USECS_PER_DAY).and_then(|d| d.checked_add(time)))?;
    let zone = zone_hour.map(|h| (h * 3600 + if h < 0 { -zone_minute * 60 } else { zone_minute * 60 }) as i32);
    Ok((local, zone))
}

/// Years of one to three digits are those nearest to 2020.
fn short_year(year: i64, digits: u32) -> i64 {
    match digits {
        3 => {
            if year < 520 {
                2000 + year
            } else {
                1000 + year
            }
        }
        2 => {
            if year < 70 {
                2000 + year
            } else {
                1900 + year
            }
        }
        _ => 2000 + year,
    }
}
