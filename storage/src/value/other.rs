//! Types that are kept as their text: brings the text into the form that PostgreSQL prints, where we know the rules.
//!
//! Known are bit strings, network and hardware addresses, ranges and multiranges. Every other type (geometry, text search,
//! composites, types of extensions) keeps the text that it came with, which from a primary is already PostgreSQL's.

use std::borrow::Cow;

use super::network::{Inet, mac_text, parse_mac};
use super::{binary, bits, range};
use crate::error::{Error, Result, ValueErrorCode};
use crate::value::{DataType, TextSettings, Value};

const INT2VECTOR: u32 = 22;
const TID: u32 = 27;
const OIDVECTOR: u32 = 30;
const CIDR: u32 = 650;
const MACADDR8: u32 = 774;
const MACADDR: u32 = 829;
const INET: u32 = 869;
const BIT: u32 = 1560;
const VARBIT: u32 = 1562;

/// The text as PostgreSQL prints it; types without rules here keep theirs.
pub(super) fn normalize<'a>(text: &'a str, data_type: &DataType, settings: &TextSettings) -> Result<Cow<'a, str>> {
    Ok(match data_type.oid {
        BIT | VARBIT => bits::parse(text, data_type.typmod, data_type.oid == VARBIT)?,
        INET | CIDR => Inet::parse(text, data_type.oid == CIDR)?.to_text(data_type.oid == CIDR).into(),
        MACADDR | MACADDR8 => mac_text(&parse_mac(text, data_type.oid == MACADDR8)?).into(),
        INT2VECTOR | OIDVECTOR => vector(text, data_type, settings)?.join(" ").into(),
        TID => tid(text).map(|(block, offset)| format!("({block},{offset})")).ok_or_else(|| malformed(data_type, text))?.into(),
        _ => match range::bound_type(data_type) {
            Some(bound) if range::is_multirange(data_type) => {
                range::multirange_text(&range::parse_multirange(text, &bound, settings)?, &bound, &TextSettings::default()).into()
            }
            Some(bound) => range::to_text(range::parse(text, &bound, settings)?.as_ref(), &bound, &TextSettings::default()).into(),
            None => text.into(),
        },
    })
}

/// Appends the stored text as a session with these settings prints it.
pub(super) fn format(stored: &[u8], data_type: &DataType, settings: &TextSettings, out: &mut Vec<u8>) {
    if *settings != TextSettings::default()
        && let Some(bound) = range::bound_type(data_type)
        && let Ok(text) = std::str::from_utf8(stored)
    {
        let stored_settings = TextSettings::default();
        let text = if range::is_multirange(data_type) {
            range::parse_multirange(text, &bound, &stored_settings).map(|r| range::multirange_text(&r, &bound, settings))
        } else {
            range::parse(text, &bound, &stored_settings).map(|r| range::to_text(r.as_ref(), &bound, settings))
        };
        if let Ok(text) = text {
            return out.extend(text.as_bytes());
        }
    }
    out.extend_from_slice(stored);
}

/// Says whether the type has a binary form here.
pub(super) fn has_binary(data_type: &DataType) -> bool {
    matches!(data_type.oid, INET | CIDR | MACADDR | MACADDR8 | INT2VECTOR | OIDVECTOR | TID)
        || range::bound_type(data_type).is_some() && !range::is_multirange(data_type)
}

/// # Errors
/// `Value` when the type has no binary form here or the bytes are malformed.
pub(super) fn from_binary(data_type: &DataType, bytes: &[u8]) -> Result<Value> {
    let cidr = data_type.oid == CIDR;
    Ok(match data_type.oid {
        INET | CIDR => Value::bytes(Inet::from_binary(bytes, cidr)?.to_text(cidr)),
        MACADDR | MACADDR8 => {
            if bytes.len() != if data_type.oid == MACADDR { 6 } else { 8 } {
                return Err(Error::value(ValueErrorCode::InvalidBinaryRepresentation, "incorrect binary data format"));
            }
            Value::bytes(mac_text(bytes))
        }
        INT2VECTOR | OIDVECTOR => return Err(binary::no_binary(data_type)),
        TID => match bytes {
            [a, b, c, d, e, f] => Value::bytes(format!("({},{})", u32::from_be_bytes([*a, *b, *c, *d]), u16::from_be_bytes([*e, *f]))),
            _ => return Err(Error::value(ValueErrorCode::InvalidBinaryRepresentation, "incorrect binary data format")),
        },
        _ => match range::bound_type(data_type) {
            Some(bound) if !range::is_multirange(data_type) => {
                Value::bytes(range::to_text(range::from_binary(bytes, &bound)?.as_ref(), &bound, &TextSettings::default()))
            }
            _ => return Err(binary::no_binary(data_type)),
        },
    })
}

/// # Errors
/// `Value` when the type has no binary form here.
pub(super) fn to_binary(data_type: &DataType, stored: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let text = std::str::from_utf8(stored).map_err(|_| Error::Damaged { place: data_type.sql_name(), what: "not UTF-8".into() })?;
    let cidr = data_type.oid == CIDR;
    match data_type.oid {
        INET | CIDR => Inet::parse(text, cidr)?.to_binary(cidr, out),
        MACADDR | MACADDR8 => out.extend(parse_mac(text, data_type.oid == MACADDR8)?),
        INT2VECTOR | OIDVECTOR => {
            let numbers = vector(text, data_type, &TextSettings::default())?;
            let (element, size): (u32, i32) = if data_type.oid == INT2VECTOR { (21, 2) } else { (26, 4) };
            // An array of one dimension that counts from 0.
            out.extend(1i32.to_be_bytes());
            out.extend(0i32.to_be_bytes());
            out.extend(element.to_be_bytes());
            out.extend((numbers.len() as i32).to_be_bytes());
            out.extend(0i32.to_be_bytes());
            for number in numbers {
                let bytes = number.parse::<i64>().unwrap_or_default().to_be_bytes();
                out.extend(size.to_be_bytes());
                out.extend(&bytes[8 - size as usize..]);
            }
        }
        TID => {
            let (block, offset) = tid(text).ok_or_else(|| malformed(data_type, text))?;
            out.extend(block.to_be_bytes());
            out.extend(offset.to_be_bytes());
        }
        _ => match range::bound_type(data_type) {
            Some(bound) if !range::is_multirange(data_type) => {
                range::to_binary(range::parse(text, &bound, &TextSettings::default())?.as_ref(), &bound, out)?;
            }
            _ => return Err(binary::no_binary(data_type)),
        },
    }
    Ok(())
}

/// The numbers of an int2vector or oidvector, each as its type prints it.
fn vector(text: &str, data_type: &DataType, settings: &TextSettings) -> Result<Vec<String>> {
    let oid = if data_type.oid == INT2VECTOR { 21 } else { 26 };
    let element = DataType::builtin(oid, -1).ok_or_else(|| malformed(data_type, text))?;
    let number = |word| {
        let mut out = Vec::new();
        element.format(&element.parse(word, settings)?, settings, &mut out);
        String::from_utf8(out).map_err(|_| malformed(data_type, text))
    };
    text.split_ascii_whitespace().map(number).collect()
}

/// A row's place: `(block,offset)`.
fn tid(text: &str) -> Option<(u32, u16)> {
    let (block, offset) = text.trim().strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some((block.trim().parse().ok()?, offset.trim().parse().ok()?))
}

fn malformed(data_type: &DataType, text: &str) -> Error {
    let message = format!("invalid input syntax for type {}: \"{text}\"", data_type.sql_name());
    Error::value(ValueErrorCode::InvalidTextRepresentation, message)
}
