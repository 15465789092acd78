//! Ranges and multiranges: kept as their canonical text.

use std::cmp::Ordering;

use crate::error::{Error, Result, ValueErrorCode};
use crate::value::key::encode_key;
use crate::value::{DataType, Kind, TextSettings, Value, datetime, is_space};

const EMPTY: u8 = 0x01;
const LOWER_INCLUSIVE: u8 = 0x02;
const UPPER_INCLUSIVE: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;

/// A range that is not empty; an absent bound is infinite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub lower: Option<Value>,
    pub upper: Option<Value>,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
}

/// The type of a built-in range's (or multirange's) bounds.
pub fn bound_type(range: &DataType) -> Option<DataType> {
    let name = match range.oid {
        3904 | 4451 => 23,
        3906 | 4532 => 1700,
        3908 | 4533 => 1114,
        3910 | 4534 => 1184,
        3912 | 4535 => 1082,
        3926 | 4536 => 20,
        _ => return None,
    };
    DataType::builtin(name, -1)
}

/// Says whether a type is a built-in multirange.
pub fn is_multirange(data_type: &DataType) -> bool {
    matches!(data_type.oid, 4451 | 4532..=4536)
}

fn malformed(what: &str, text: &str, detail: &str) -> Error {
    Error::value(ValueErrorCode::InvalidTextRepresentation, format!("malformed {what} literal: \"{text}\"")).with_detail(detail)
}

fn compare(bound: &DataType, a: &Value, b: &Value) -> Ordering {
    let key = |v: &Value| {
        let mut out = Vec::new();
        encode_key(&mut out, v, bound, false, false);
        out
    };
    key(a).cmp(&key(b))
}

/// The next value of a discrete type.
fn successor(value: &Value, kind: Kind) -> Result<Value> {
    let overflow = |what: &str| Error::out_of_range(format!("{what} out of range"));
    match (value, kind) {
        (Value::Int4(v @ (datetime::DATE_INFINITY | datetime::DATE_NEG_INFINITY)), Kind::Date) => Ok(Value::Int4(*v)),
        (Value::Int4(v), Kind::Date) => Ok(Value::Int4(datetime::check_date(i64::from(*v) + 1)?)),
        (Value::Int4(v), _) => Ok(Value::Int4(v.checked_add(1).ok_or_else(|| overflow("integer"))?)),
        (Value::Int8(v), _) => Ok(Value::Int8(v.checked_add(1).ok_or_else(|| overflow("bigint"))?)),
        (other, _) => Ok(other.clone()),
    }
}

impl Range {
    /// Brings a range into its canonical form; `None` is the empty range.
    fn canonical(mut self, bound: &DataType) -> Result<Option<Range>> {
        self.lower_inclusive &= self.lower.is_some();
        self.upper_inclusive &= self.upper.is_some();
        if let (Some(l), Some(u)) = (&self.lower, &self.upper) {
            match compare(bound, l, u) {
                Ordering::Greater => {
                    return Err(Error::value(
                        ValueErrorCode::DataException,
                        "range lower bound must be less than or equal to range upper bound",
                    ));
                }
                Ordering::Equal if !(self.lower_inclusive && self.upper_inclusive) => return Ok(None),
                _ => {}
            }
        }
        if matches!(bound.kind, Kind::Int4 | Kind::Int8 | Kind::Date) {
            let finite =
                |v: &Value| !matches!(v, Value::Int4(datetime::DATE_INFINITY | datetime::DATE_NEG_INFINITY) if bound.kind == Kind::Date);
            if let Some(l) = self.lower.as_ref().filter(|l| !self.lower_inclusive && finite(l)) {
                self.lower = Some(successor(l, bound.kind)?);
                self.lower_inclusive = true;
            }
            if let Some(u) = self.upper.as_ref().filter(|u| self.upper_inclusive && finite(u)) {
                self.upper = Some(successor(u, bound.kind)?);
                self.upper_inclusive = false;
            }
            if let (Some(l), Some(u)) = (&self.lower, &self.upper)
                && compare(bound, l, u) != Ordering::Less
                && !(self.lower_inclusive && self.upper_inclusive)
            {
                return Ok(None);
            }
        }
        Ok(Some(self))
    }

    fn write(&self, bound: &DataType, settings: &TextSettings, out: &mut String) {
        out.push(if self.lower_inclusive { '[' } else { '(' });
        if let Some(v) = &self.lower {
            push_bound(&bound.to_text(v, settings), out);
        }
        out.push(',');
        if let Some(v) = &self.upper {
            push_bound(&bound.to_text(v, settings), out);
        }
        out.push(if self.upper_inclusive { ']' } else { ')' });
    }
}

fn push_bound(text: &str, out: &mut String) {
    let special = |c: char| matches!(c, '"' | '\\' | '(' | ')' | '[' | ']' | ',') || is_space(c);
    if !text.is_empty() && !text.contains(special) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('"');
}

/// One bound's text up to its end; an empty one without quotes is infinite.
fn read_bound<'a>(rest: &'a str, text: &str) -> Result<(Option<String>, &'a str)> {
    if rest.starts_with([',', ')', ']']) {
        return Ok((None, rest));
    }
    let end_early = || malformed("range", text, "Unexpected end of input.");
    let mut out = String::new();
    let mut quoted = false;
    let mut chars = rest.char_indices().peekable();
    loop {
        let (at, c) = chars.next().ok_or_else(end_early)?;
        match c {
            ',' | ')' | ']' | '(' | '[' if !quoted => return Ok((Some(out), &rest[at..])),
            '\\' => out.push(chars.next().ok_or_else(end_early)?.1),
            '"' if quoted && chars.peek().is_some_and(|(_, c)| *c == '"') => {
                chars.next();
                out.push('"');
            }
            '"' => quoted = !quoted,
            c => out.push(c),
        }
    }
}

/// Reads one range at the start of `rest`; `None` is the empty one.
fn read_range<'a>(rest: &'a str, text: &str, bound: &DataType, settings: &TextSettings) -> Result<(Option<Range>, &'a str)> {
    if rest.get(..5).is_some_and(|w| w.eq_ignore_ascii_case("empty")) {
        return Ok((None, &rest[5..]));
    }
    let lower_inclusive = match rest.as_bytes().first() {
        Some(b'[') => true,
        Some(b'(') => false,
        _ => return Err(malformed("range", text, "Missing left parenthesis or bracket.")),
    };
    let (lower, rest) = read_bound(&rest[1..], text)?;
    let rest = rest.strip_prefix(',').ok_or_else(|| malformed("range", text, "Missing comma after lower bound."))?;
    let (upper, rest) = read_bound(rest, text)?;
    let upper_inclusive = match rest.as_bytes().first() {
        Some(b']') => true,
        Some(b')') => false,
        _ => return Err(malformed("range", text, "Too many commas.")),
    };
    let value = |t: Option<String>| t.map(|t| bound.parse(&t, settings)).transpose();
    let range = Range { lower: value(lower)?, upper: value(upper)?, lower_inclusive, upper_inclusive };
    Ok((range.canonical(bound)?, &rest[1..]))
}

/// Reads a range; `None` is the empty one.
/// # Errors
/// `Value` (22P02, 22000); as the bounds' `parse`.
pub fn parse(text: &str, bound: &DataType, settings: &TextSettings) -> Result<Option<Range>> {
    let rest = text.trim_start_matches(is_space);
    let (range, rest) = read_range(rest, text, bound, settings)?;
    if !rest.trim_matches(is_space).is_empty() {
        let word = if range.is_none() && !text.trim_start_matches(is_space).starts_with(['(', '[']) {
            "Junk after \"empty\" key word."
        } else {
            "Junk after right parenthesis or bracket."
        };
        return Err(malformed("range", text, word));
    }
    Ok(range)
}

/// The text of a range.
pub fn to_text(range: Option<&Range>, bound: &DataType, settings: &TextSettings) -> String {
    let mut out = String::new();
    match range {
        None => out.push_str("empty"),
        Some(r) => r.write(bound, settings, &mut out),
    }
    out
}

/// Reads a multirange; its ranges come out sorted, merged and without empty ones.
/// # Errors
/// As `parse`.
pub fn parse_multirange(text: &str, bound: &DataType, settings: &TextSettings) -> Result<Vec<Range>> {
    let bad = |detail: &str| malformed("multirange", text, detail);
    let mut rest = text.trim_start_matches(is_space).strip_prefix('{').ok_or_else(|| bad("Missing left brace."))?;
    rest = rest.trim_start_matches(is_space);
    let mut ranges = Vec::new();
    if let Some(tail) = rest.strip_prefix('}') {
        rest = tail;
    } else {
        loop {
            if rest.is_empty() {
                return Err(bad("Unexpected end of input."));
            }
            if !rest.starts_with(['[', '(', 'e', 'E']) {
                return Err(bad("Expected range start."));
            }
            let (range, tail) = read_range(rest, text, bound, settings)?;
            ranges.extend(range);
            rest = tail.trim_start_matches(is_space);
            if let Some(tail) = rest.strip_prefix(',') {
                rest = tail.trim_start_matches(is_space);
            } else if let Some(tail) = rest.strip_prefix('}') {
                rest = tail;
                break;
            } else {
                return Err(bad(if rest.is_empty() { "Unexpected end of input." } else { "Expected comma or end of multirange." }));
            }
        }
    }
    if !rest.trim_matches(is_space).is_empty() {
        return Err(bad("Junk after closing right brace."));
    }
    Ok(merge(ranges, bound))
}

fn merge(mut ranges: Vec<Range>, bound: &DataType) -> Vec<Range> {
    ranges.sort_by(|a, b| match (&a.lower, &b.lower) {
        (None, None) => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(x), Some(y)) => compare(bound, x, y).then(b.lower_inclusive.cmp(&a.lower_inclusive)),
    });
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let Some(last) = out.last_mut() else {
            out.push(range);
            continue;
        };
        let touches = match (&last.upper, &range.lower) {
            (None, _) | (_, None) => true,
            (Some(u), Some(l)) => match compare(bound, l, u) {
                Ordering::Less => true,
                Ordering::Equal => last.upper_inclusive || range.lower_inclusive,
                Ordering::Greater => false,
            },
        };
        if !touches {
            out.push(range);
            continue;
        }
        let extends = match (&last.upper, &range.upper) {
            (None, _) => false,
            (_, None) => true,
            (Some(a), Some(b)) => match compare(bound, b, a) {
                Ordering::Equal => range.upper_inclusive && !last.upper_inclusive,
                o => o == Ordering::Greater,
            },
        };
        if extends {
            last.upper = range.upper;
            last.upper_inclusive = range.upper_inclusive;
        }
    }
    out
}

/// The text of a multirange.
pub fn multirange_text(ranges: &[Range], bound: &DataType, settings: &TextSettings) -> String {
    let parts: Vec<String> = ranges.iter().map(|r| to_text(Some(r), bound, settings)).collect();
    format!("{{{}}}", parts.join(","))
}

/// Appends the binary form: flags, then each finite bound with its length.
/// # Errors
/// As the bounds' `to_binary`.
pub fn to_binary(range: Option<&Range>, bound: &DataType, out: &mut Vec<u8>) -> Result<()> {
    let Some(r) = range else {
        out.push(EMPTY);
        return Ok(());
    };
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(
        flag(r.lower_inclusive, LOWER_INCLUSIVE)
            | flag(r.upper_inclusive, UPPER_INCLUSIVE)
            | flag(r.lower.is_none(), LOWER_INFINITE)
            | flag(r.upper.is_none(), UPPER_INFINITE),
    );
    for value in [&r.lower, &r.upper].into_iter().flatten() {
        let at = out.len();
        out.extend([0; 4]);
        bound.to_binary(value, out)?;
        let size = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&size.to_be_bytes());
    }
    Ok(())
}

/// Reads the binary form.
/// # Errors
/// `Value` (22P03); as the bounds' `from_binary`.
pub fn from_binary(bytes: &[u8], bound: &DataType) -> Result<Option<Range>> {
    let short = || Error::value(ValueErrorCode::InvalidBinaryRepresentation, "insufficient data left in message");
    let (&flags, mut rest) = bytes.split_first().ok_or_else(short)?;
    if flags & EMPTY != 0 {
        return Ok(None);
    }
    let mut next = |infinite: bool| -> Result<Option<Value>> {
        if infinite {
            return Ok(None);
        }
        let (size, tail) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (value, tail) = tail.split_at_checked(u32::from_be_bytes(*size) as usize).ok_or_else(short)?;
        rest = tail;
        Ok(Some(bound.from_binary(value)?))
    };
    let lower = next(flags & LOWER_INFINITE != 0)?;
    let upper = next(flags & UPPER_INFINITE != 0)?;
    let range = Range { lower, upper, lower_inclusive: flags & LOWER_INCLUSIVE != 0, upper_inclusive: flags & UPPER_INCLUSIVE != 0 };
    range.canonical(bound)
}
