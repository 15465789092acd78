//! Key bytes: values encoded so that `memcmp` orders them as PostgreSQL does (text by bytes, as collation "C").
//!
//! A value is a marker byte (00 a NULL that sorts first, 01 a value, 02 a NULL that sorts last) and then bytes that end themselves:
//!
//! | shape | bytes |
//! |---|---|
//! | bool | 00 or 01 |
//! | integers | big-endian with the sign bit flipped |
//! | floats | big-endian; all bits of a negative number inverted, else the sign bit set; -0 is 0, NaN is the greatest |
//! | uuid | its 16 bytes |
//! | numeric | its sorting bytes without the display scale |
//! | interval | the 16 bytes that sort as PostgreSQL compares |
//! | other bytes | 00 as 00 FF, ended by 00 00; `character(n)` without the spaces at its end |
//!
//! Descending values have all bytes behind the marker inverted.

use crate::error::{Error, Result};
use crate::value::{DataType, Kind, Physical, Value, datetime, numeric};

const NULL_FIRST: u8 = 0;
const NOT_NULL: u8 = 1;
const NULL_LAST: u8 = 2;

/// Appends one value; a sequence of appended values sorts column by column. NULL sorts as asked.
pub fn encode_key(out: &mut Vec<u8>, value: &Value, data_type: &DataType, descending: bool, nulls_first: bool) {
    if value.is_null() {
        out.push(if nulls_first { NULL_FIRST } else { NULL_LAST });
        return;
    }
    out.push(NOT_NULL);
    let start = out.len();
    match value {
        Value::Null => {}
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::Int2(v) => out.extend((*v ^ i16::MIN).to_be_bytes()),
        Value::Int4(v) => out.extend((*v ^ i32::MIN).to_be_bytes()),
        Value::Int8(v) if data_type.kind == Kind::Lsn => out.extend(v.to_be_bytes()),
        Value::Int8(v) => out.extend((*v ^ i64::MIN).to_be_bytes()),
        Value::Float4(v) => {
            let bits = if v.is_nan() { f32::NAN.to_bits() & i32::MAX as u32 } else { (v + 0.0).to_bits() };
            out.extend((if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }).to_be_bytes());
        }
        Value::Float8(v) => {
            let bits = if v.is_nan() { f64::NAN.to_bits() & i64::MAX as u64 } else { (v + 0.0).to_bits() };
            out.extend((if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }).to_be_bytes());
        }
        Value::Uuid(v) => out.extend(v),
        Value::Bytes(v) => match data_type.kind {
            Kind::Numeric => out.extend(numeric::sort_key(v)),
            Kind::Interval if v.len() >= datetime::INTERVAL_SORT_SIZE => out.extend(&v[..datetime::INTERVAL_SORT_SIZE]),
            Kind::Bpchar => escape(v.trim_ascii_end_spaces(), out),
            _ => escape(v, out),
        },
    }
    if descending {
        for b in &mut out[start..] {
            *b = !*b;
        }
    }
}

trait TrimSpaces {
    fn trim_ascii_end_spaces(&self) -> &[u8];
}

impl TrimSpaces for [u8] {
    /// Without the blanks at the end; other white space counts.
    fn trim_ascii_end_spaces(&self) -> &[u8] {
        let end = self.iter().rposition(|b| *b != b' ').map_or(0, |i| i + 1);
        &self[..end]
    }
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| *b == 0) {
        out.extend(&rest[..=at]);
        out.push(0xFF);
        rest = &rest[at + 1..];
    }
    out.extend(rest);
    out.extend([0, 0]);
}

/// Reads one value back; returns it and the rest. Inverse of [`encode_key`] up to equality (a numeric's display scale is
/// not kept, nor how an interval's time is split into months, days and microseconds; `character(n)` is filled up again).
/// # Errors
/// `Damaged`.
pub fn decode_key<'a>(bytes: &'a [u8], data_type: &DataType, descending: bool, nulls_first: bool) -> Result<(Value, &'a [u8])> {
    let (marker, rest) = bytes.split_first().ok_or_else(|| damaged("the key ends early"))?;
    match *marker {
        NULL_FIRST if nulls_first => return Ok((Value::Null, rest)),
        NULL_LAST if !nulls_first => return Ok((Value::Null, rest)),
        NOT_NULL => {}
        _ => return Err(damaged("unknown marker")),
    }
    let flip = if descending { 0xFF } else { 0 };
    fn fixed<const N: usize>(rest: &[u8], flip: u8) -> Result<([u8; N], &[u8])> {
        let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(|| damaged("the key ends early"))?;
        Ok((head.map(|b| b ^ flip), tail))
    }
    Ok(match data_type.kind.physical() {
        Physical::Bool => match fixed::<1>(rest, flip)? {
            ([0], tail) => (Value::Bool(false), tail),
            ([1], tail) => (Value::Bool(true), tail),
            _ => return Err(damaged("not a boolean")),
        },
        Physical::Int2 => {
            let (b, tail) = fixed(rest, flip)?;
            (Value::Int2(i16::from_be_bytes(b) ^ i16::MIN), tail)
        }
        Physical::Int4 => {
            let (b, tail) = fixed(rest, flip)?;
            (Value::Int4(i32::from_be_bytes(b) ^ i32::MIN), tail)
        }
        Physical::Int8 => {
            let (b, tail) = fixed(rest, flip)?;
            let v = i64::from_be_bytes(b);
            (Value::Int8(if data_type.kind == Kind::Lsn { v } else { v ^ i64::MIN }), tail)
        }
        Physical::Float4 => {
            let (b, tail) = fixed(rest, flip)?;
            let bits = u32::from_be_bytes(b);
            (Value::Float4(f32::from_bits(if bits >> 31 == 1 { bits & i32::MAX as u32 } else { !bits })), tail)
        }
        Physical::Float8 => {
            let (b, tail) = fixed(rest, flip)?;
            let bits = u64::from_be_bytes(b);
            (Value::Float8(f64::from_bits(if bits >> 63 == 1 { bits & i64::MAX as u64 } else { !bits })), tail)
        }
        Physical::Uuid => {
            let (b, tail) = fixed(rest, flip)?;
            (Value::Uuid(b), tail)
        }
        Physical::Bytes => match data_type.kind {
            Kind::Numeric => {
                if descending {
                    let plain: Vec<u8> = rest.iter().map(|b| !b).collect();
                    let (n, tail) = numeric::decode_sort_key(&plain)?;
                    (Value::Bytes(n.encode()), &rest[rest.len() - tail.len()..])
                } else {
                    let (n, tail) = numeric::decode_sort_key(rest)?;
                    (Value::Bytes(n.encode()), tail)
                }
            }
            Kind::Interval => {
                let (sort, tail) = fixed::<{ datetime::INTERVAL_SORT_SIZE }>(rest, flip)?;
                (Value::Bytes(datetime::Interval::from_sort_bytes(&sort)?.encode()), tail)
            }
            kind => {
                let (mut plain, tail) = unescape(rest, flip)?;
                if kind == Kind::Bpchar && data_type.typmod >= 4 {
                    let text = std::str::from_utf8(&plain).map_err(|_| damaged("not UTF-8"))?;
                    let missing = (data_type.typmod as usize - 4).saturating_sub(text.chars().count());
                    plain.extend(std::iter::repeat_n(b' ', missing));
                }
                (Value::Bytes(plain.into()), tail)
            }
        },
    })
}

fn unescape(bytes: &[u8], flip: u8) -> Result<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        let b = bytes.get(at).ok_or_else(|| damaged("a text in the key has no end"))? ^ flip;
        at += 1;
        if b != 0 {
            out.push(b);
            continue;
        }
        match bytes.get(at).map(|b| b ^ flip) {
            Some(0xFF) => out.push(0),
            Some(0) => return Ok((out, &bytes[at + 1..])),
            _ => return Err(damaged("a text in the key has no end")),
        }
        at += 1;
    }
}

fn damaged(what: &str) -> Error {
    Error::Damaged { place: "key".into(), what: what.into() }
}
