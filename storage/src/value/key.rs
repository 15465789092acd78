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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::Numeric;
    use crate::value::datetime::Interval;

    fn key(value: &Value, data_type: &DataType, descending: bool) -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(&mut out, value, data_type, descending, false);
        out
    }

    /// Keys sort as `order` says, both ways, and read back as an equal value with the rest untouched.
    fn check(a: &Value, b: &Value, order: std::cmp::Ordering, oid: u32) {
        let t = DataType::builtin(oid, -1).unwrap();
        assert_eq!(key(a, &t, false).cmp(&key(b, &t, false)), order, "{a:?} {b:?}");
        assert_eq!(key(a, &t, true).cmp(&key(b, &t, true)), order.reverse(), "{a:?} {b:?}");
        for descending in [false, true] {
            let mut bytes = key(a, &t, descending);
            let size = bytes.len();
            bytes.extend(key(b, &t, descending));
            let (value, rest) = decode_key(&bytes, &t, descending, false).unwrap();
            assert_eq!(rest, &bytes[size..]);
            assert_eq!(key(&value, &t, descending), &bytes[..size]);
        }
    }

    proptest! {
        #[test]
        fn integer_keys_sort_like_integers(a: i64, b: i64) {
            check(&Value::Int8(a), &Value::Int8(b), a.cmp(&b), 20);
            check(&Value::Int4(a as i32), &Value::Int4(b as i32), (a as i32).cmp(&(b as i32)), 23);
            check(&Value::Int2(a as i16), &Value::Int2(b as i16), (a as i16).cmp(&(b as i16)), 21);
        }

        #[test]
        fn float_keys_sort_like_floats(a: f64, b: f64) {
            check(&Value::Float8(a), &Value::Float8(b), a.partial_cmp(&b).unwrap(), 701);
            let (a, b) = (a as f32, b as f32);
            check(&Value::Float4(a), &Value::Float4(b), a.partial_cmp(&b).unwrap(), 700);
        }

        #[test]
        fn byte_keys_sort_like_bytes(a: Vec<u8>, b: Vec<u8>, zeros in prop::collection::vec(0u8..2, 0..6)) {
            check(&Value::bytes(&a), &Value::bytes(&b), a.cmp(&b), 17);
            check(&Value::bytes(&a), &Value::bytes(&zeros), a.cmp(&zeros), 17);
        }

        #[test]
        fn numeric_keys_sort_like_numbers(a: i64, b: i64, s in 0u32..30, t in 0u32..30) {
            let (a, b) = (Numeric::new(i128::from(a), s), Numeric::new(i128::from(b), t));
            check(&Value::Bytes(a.encode()), &Value::Bytes(b.encode()), a.cmp(&b), 1700);
            prop_assert_eq!(Numeric::decode(&a.encode()).unwrap().to_string(), a.to_string());
            prop_assert_eq!(Numeric::parse(&a.to_string()).unwrap().encode(), a.encode());
        }

        #[test]
        fn interval_keys_sort_as_postgresql_compares(a: (i32, i32, i64), b: (i32, i32, i64)) {
            let (a, b) = (Interval::new(a.0, a.1, a.2), Interval::new(b.0, b.1, b.2));
            check(&Value::Bytes(a.encode()), &Value::Bytes(b.encode()), a.cmp(&b), 1186);
        }

        #[test]
        fn damaged_keys_do_not_panic(bytes: Vec<u8>, descending: bool) {
            for oid in [16, 17, 20, 21, 23, 25, 700, 701, 1042, 1186, 1266, 1700, 2950] {
                let _ = decode_key(&bytes, &DataType::builtin(oid, -1).unwrap(), descending, false);
            }
        }

        #[test]
        fn no_text_panics_a_parser(text in ".{0,24}", dated in "[-+0-9:./ a-zTPYMDHWS]{0,20}") {
            let settings = crate::value::TextSettings::default();
            for t in [&text, &dated] {
                for oid in [16, 17, 20, 650, 700, 701, 774, 790, 829, 869, 1007, 1082, 1083, 1114, 1115, 1184, 1186, 1187, 1266, 1560, 1700, 2950, 3220, 3802, 3904, 3910, 4451] {
                    let _ = DataType::builtin(oid, -1).unwrap().parse(t, &settings);
                }
            }
        }

        #[test]
        fn no_bytes_panic_a_binary_reader(bytes: Vec<u8>) {
            for oid in [16, 17, 20, 25, 650, 700, 774, 829, 869, 1007, 1082, 1083, 1114, 1186, 1231, 1266, 1560, 1700, 3802, 3904, 3906] {
                let _ = DataType::builtin(oid, -1).unwrap().from_binary(&bytes);
            }
        }
    }

    #[test]
    fn special_floats_have_their_places() {
        let ascending = [f64::NEG_INFINITY, -1.0, 0.0, 1.0, f64::INFINITY, f64::NAN];
        for w in ascending.windows(2) {
            check(&Value::Float8(w[0]), &Value::Float8(w[1]), std::cmp::Ordering::Less, 701);
        }
        check(&Value::Float8(-0.0), &Value::Float8(0.0), std::cmp::Ordering::Equal, 701);
        check(&Value::Float8(-f64::NAN), &Value::Float8(f64::NAN), std::cmp::Ordering::Equal, 701);
    }

    #[test]
    fn null_sorts_as_asked() {
        let t = DataType::builtin(23, -1).unwrap();
        let encode = |v: &Value, descending, first| {
            let mut out = Vec::new();
            encode_key(&mut out, v, &t, descending, first);
            out
        };
        for descending in [false, true] {
            assert!(encode(&Value::Null, descending, true) < encode(&Value::Int4(5), descending, true));
            assert!(encode(&Value::Null, descending, false) > encode(&Value::Int4(5), descending, false));
        }
    }
}
