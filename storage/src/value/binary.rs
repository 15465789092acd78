//! Binary forms of values: what PostgreSQL's `typreceive` reads and `typsend` writes.

use std::borrow::Cow;

use super::array::{self, Array, Dimension};
use super::character;
use super::datetime::{self, Interval, TimeTz};
use crate::error::{Error, Result, ValueErrorCode};
use crate::value::{DataType, Kind, Numeric, TextSettings, Value};

const JSONB_VERSION: u8 = 1;
const NAME_OID: u32 = 19;
const VARCHAR_OID: u32 = 1043;
const BIT_OIDS: [u32; 2] = [1560, 1562];

fn invalid(message: impl Into<String>) -> Error {
    Error::value(ValueErrorCode::InvalidBinaryRepresentation, message)
}

fn insufficient() -> Error {
    invalid("insufficient data left in message")
}

/// Reads exactly `N` bytes.
fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| if bytes.len() < N { insufficient() } else { invalid("incorrect binary data format") })
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>().ok_or_else(insufficient)?;
    *bytes = tail;
    Ok(*head)
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    let repertoire = |byte: u8| {
        Error::value(ValueErrorCode::CharacterNotInRepertoire, format!("invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}"))
    };
    let text = std::str::from_utf8(bytes).map_err(|e| repertoire(bytes[e.valid_up_to()]))?;
    if text.contains('\0') { Err(repertoire(0)) } else { Ok(text) }
}

impl DataType {
    /// Says whether `from_binary` and `to_binary` work for this type.
    pub fn has_binary(&self) -> bool {
        match self.kind {
            Kind::Array => self.element.as_ref().is_some_and(|e| e.oid != 0 && e.has_binary()),
            Kind::Other => BIT_OIDS.contains(&self.oid) || super::other::has_binary(self),
            _ => true,
        }
    }

    /// Reads PostgreSQL's binary form (`typreceive`) and applies the type's modifier.
    /// # Errors
    /// `Value` when the type has none here or the bytes are malformed; as `parse` for values out of range.
    pub fn from_binary(&self, bytes: &[u8]) -> Result<Value> {
        Ok(match self.kind {
            Kind::Bool => Value::Bool(exactly::<1>(bytes)?[0] != 0),
            Kind::Int2 => Value::Int2(i16::from_be_bytes(exactly(bytes)?)),
            Kind::Int4 => Value::Int4(i32::from_be_bytes(exactly(bytes)?)),
            Kind::Int8 | Kind::Money => Value::Int8(i64::from_be_bytes(exactly(bytes)?)),
            Kind::Oid => Value::Int8(i64::from(u32::from_be_bytes(exactly(bytes)?))),
            // There are many NaNs and one text for them.
            Kind::Float4 => Value::Float4(Some(f32::from_be_bytes(exactly(bytes)?)).filter(|v| !v.is_nan()).unwrap_or(f32::NAN)),
            Kind::Float8 => Value::Float8(Some(f64::from_be_bytes(exactly(bytes)?)).filter(|v| !v.is_nan()).unwrap_or(f64::NAN)),
            Kind::Lsn => Value::Int8(i64::from_be_bytes(exactly(bytes)?)),
            Kind::Uuid => Value::Uuid(exactly(bytes)?),
            Kind::Numeric => Value::Bytes(Numeric::from_binary(bytes)?.apply_typmod(self.typmod)?.encode()),
            Kind::Bytea => Value::bytes(bytes),
            Kind::Date => {
                let days = i32::from_be_bytes(exactly(bytes)?);
                if days != datetime::DATE_INFINITY && days != datetime::DATE_NEG_INFINITY {
                    datetime::check_date(i64::from(days))?;
                }
                Value::Int4(days)
            }
            Kind::Time => {
                let time = i64::from_be_bytes(exactly(bytes)?);
                Value::Int8(datetime::round_time(check_time(time)?, self.typmod))
            }
            Kind::Timetz => {
                let mut rest = bytes;
                let time = check_time(i64::from_be_bytes(take(&mut rest)?))?;
                let zone = i32::from_be_bytes(exactly(rest)?);
                if zone.unsigned_abs() >= 16 * 3600 {
                    return Err(Error::value(ValueErrorCode::InvalidTimeZoneDisplacement, "time zone displacement out of range"));
                }
                Value::bytes(TimeTz { time: datetime::round_time(time, self.typmod), zone }.encode())
            }
            Kind::Timestamp | Kind::Timestamptz => {
                let timestamp = i64::from_be_bytes(exactly(bytes)?);
                if datetime::is_infinite(timestamp) {
                    return Ok(Value::Int8(timestamp));
                }
                datetime::check_timestamp(Some(timestamp))?;
                Value::Int8(datetime::round_timestamp(timestamp, self.typmod)?)
            }
            Kind::Interval => {
                let mut rest = bytes;
                let micros = i64::from_be_bytes(take(&mut rest)?);
                let days = i32::from_be_bytes(take(&mut rest)?);
                let months = i32::from_be_bytes(exactly(rest)?);
                Value::Bytes(datetime::apply_interval_typmod(Interval::new(months, days, micros), self.typmod)?.encode())
            }
            Kind::Text | Kind::Bpchar | Kind::Enum => Value::bytes(self.text_from_binary(bytes)?.as_bytes()),
            Kind::Json => self.parse(utf8(bytes)?, &TextSettings::default())?,
            Kind::Jsonb => match bytes.split_first() {
                Some((&JSONB_VERSION, text)) => self.parse(utf8(text)?, &TextSettings::default())?,
                Some((version, _)) => {
                    return Err(Error::value(ValueErrorCode::DataException, format!("unsupported jsonb version number {version}")));
                }
                None => return Err(insufficient()),
            },
            Kind::Array => array_from_binary(self, bytes)?,
            Kind::Other if BIT_OIDS.contains(&self.oid) => bits_from_binary(self, bytes)?,
            Kind::Other => super::other::from_binary(self, bytes)?,
        })
    }

    /// As [`DataType::from_binary`], into a value that may have had the same shape and size: then its memory is used again.
    /// # Errors
    /// As of [`DataType::from_binary`].
    pub fn read_binary(&self, bytes: &[u8], into: &mut Value) -> Result<()> {
        match (self.kind, &mut *into) {
            (Kind::Text | Kind::Bpchar | Kind::Enum, Value::Bytes(held)) => {
                let text = self.text_from_binary(bytes)?;
                if held.len() == text.len() {
                    held.copy_from_slice(text.as_bytes());
                } else {
                    *held = text.as_bytes().into();
                }
            }
            (Kind::Bytea, Value::Bytes(held)) if held.len() == bytes.len() => held.copy_from_slice(bytes),
            _ => *into = self.from_binary(bytes)?,
        }
        Ok(())
    }

    fn text_from_binary<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, str>> {
        let text = utf8(bytes)?;
        Ok(match (self.kind, self.oid) {
            (Kind::Bpchar, _) => character::apply_bpchar(text, self.typmod)?,
            (_, NAME_OID) => character::truncate_name(text).into(),
            (_, VARCHAR_OID) => character::apply_varchar(text, self.typmod)?.into(),
            _ => text.into(),
        })
    }

    /// Appends PostgreSQL's binary form (`typsend`).
    /// # Errors
    /// `Value` when the type has none here; `Damaged`.
    pub fn to_binary(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        match value {
            Value::Null => {}
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::Int2(v) => out.extend(v.to_be_bytes()),
            Value::Int4(v) => out.extend(v.to_be_bytes()),
            Value::Int8(v) if self.kind == Kind::Oid => out.extend((*v as u32).to_be_bytes()),
            Value::Int8(v) => out.extend(v.to_be_bytes()),
            Value::Float4(v) => out.extend(v.to_be_bytes()),
            Value::Float8(v) => out.extend(v.to_be_bytes()),
            Value::Uuid(v) => out.extend(v),
            Value::Bytes(v) => match self.kind {
                Kind::Numeric => Numeric::decode(v)?.to_binary(out),
                Kind::Timetz => {
                    let t = TimeTz::decode(v)?;
                    out.extend(t.time.to_be_bytes());
                    out.extend(t.zone.to_be_bytes());
                }
                Kind::Interval => {
                    let i = Interval::decode(v)?;
                    out.extend(i.micros.to_be_bytes());
                    out.extend(i.days.to_be_bytes());
                    out.extend(i.months.to_be_bytes());
                }
                Kind::Jsonb => {
                    out.push(JSONB_VERSION);
                    out.extend_from_slice(v);
                }
                Kind::Array => array_to_binary(self, v, out)?,
                Kind::Other if BIT_OIDS.contains(&self.oid) => bits_to_binary(v, out),
                Kind::Other => super::other::to_binary(self, v, out)?,
                _ => out.extend_from_slice(v),
            },
        }
        Ok(())
    }
}

pub(super) fn no_binary(data_type: &DataType) -> Error {
    Error::value(ValueErrorCode::FeatureNotSupported, format!("binary format of type {} is not supported", data_type.sql_name()))
}

fn check_time(time: i64) -> Result<i64> {
    if (0..=datetime::USECS_PER_DAY).contains(&time) {
        Ok(time)
    } else {
        Err(Error::value(ValueErrorCode::DatetimeFieldOverflow, "time out of range"))
    }
}

/// ndim, has-null flag, element oid, per dimension length and lower bound, then each element with its length (-1: NULL).
fn array_from_binary(data_type: &DataType, bytes: &[u8]) -> Result<Value> {
    let Some(element) = data_type.element.as_deref() else { return Err(no_binary(data_type)) };
    let mut rest = bytes;
    let dimension_count = i32::from_be_bytes(take(&mut rest)?);
    if dimension_count < 0 {
        return Err(invalid(format!("invalid number of dimensions: {dimension_count}")));
    }
    if dimension_count as usize > array::DIMENSIONS_MAX {
        return Err(Error::value(
            ValueErrorCode::ProgramLimitExceeded,
            format!("number of array dimensions ({dimension_count}) exceeds the maximum allowed ({})", array::DIMENSIONS_MAX),
        ));
    }
    if !matches!(i32::from_be_bytes(take(&mut rest)?), 0 | 1) {
        return Err(invalid("invalid array flags"));
    }
    let oid = u32::from_be_bytes(take(&mut rest)?);
    if oid != element.oid {
        return Err(invalid(format!(
            "binary data has array element type {oid} ({0}) instead of expected {1} ({2})",
            DataType::builtin(oid, -1).map_or("???".into(), |t| t.sql_name()),
            element.oid,
            element.sql_name()
        )));
    }
    let mut dimensions = Vec::new();
    let mut count: usize = 1;
    for _ in 0..dimension_count {
        let length = i32::from_be_bytes(take(&mut rest)?);
        let lower_bound = i32::from_be_bytes(take(&mut rest)?);
        let size = usize::try_from(length).map_err(|_| invalid("invalid array size"))?;
        count = count.checked_mul(size).filter(|c| *c <= array::ELEMENTS_MAX).ok_or_else(|| {
            Error::value(ValueErrorCode::ProgramLimitExceeded, format!("array size exceeds the maximum allowed ({})", array::ELEMENTS_MAX))
        })?;
        dimensions.push(Dimension { length, lower_bound });
    }
    if dimension_count == 0 || count == 0 {
        return Ok(Value::bytes("{}"));
    }
    // Every element takes four bytes at least, so the message bounds the memory.
    if rest.len() / 4 < count {
        return Err(insufficient());
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let size = i32::from_be_bytes(take(&mut rest)?);
        if size == -1 {
            elements.push(None);
            continue;
        }
        let size = usize::try_from(size).map_err(|_| insufficient())?;
        let (item, tail) = rest.split_at_checked(size).ok_or_else(insufficient)?;
        rest = tail;
        elements.push(Some(element.from_binary(item)?));
    }
    if !rest.is_empty() {
        return Err(invalid("incorrect binary data format"));
    }
    Ok(Value::bytes(array::to_text(&Array { dimensions, elements }, data_type, &TextSettings::default())))
}

fn array_to_binary(data_type: &DataType, stored: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let Some(element) = data_type.element.as_deref().filter(|e| e.has_binary()) else { return Err(no_binary(data_type)) };
    let array = array::parse(utf8(stored)?, data_type, &TextSettings::default())?;
    out.extend((array.dimensions.len() as i32).to_be_bytes());
    out.extend(i32::from(array.elements.iter().any(Option::is_none)).to_be_bytes());
    out.extend(element.oid.to_be_bytes());
    for d in &array.dimensions {
        out.extend(d.length.to_be_bytes());
        out.extend(d.lower_bound.to_be_bytes());
    }
    for value in &array.elements {
        let at = out.len();
        out.extend((-1i32).to_be_bytes());
        if let Some(value) = value {
            element.to_binary(value, out)?;
            let size = (out.len() - at - 4) as i32;
            out[at..at + 4].copy_from_slice(&size.to_be_bytes());
        }
    }
    Ok(())
}

/// The number of bits, then the bits, the first one highest.
fn bits_from_binary(data_type: &DataType, bytes: &[u8]) -> Result<Value> {
    let mut rest = bytes;
    let count = usize::try_from(i32::from_be_bytes(take(&mut rest)?)).map_err(|_| invalid("invalid length in external bit string"))?;
    if rest.len() != count.div_ceil(8) {
        return Err(insufficient());
    }
    let text: String = (0..count).map(|i| if rest[i / 8] >> (7 - i % 8) & 1 == 1 { '1' } else { '0' }).collect();
    data_type.parse(&text, &TextSettings::default())
}

fn bits_to_binary(stored: &[u8], out: &mut Vec<u8>) {
    out.extend((stored.len() as i32).to_be_bytes());
    for chunk in stored.chunks(8) {
        out.push(chunk.iter().enumerate().fold(0, |byte, (i, bit)| byte | u8::from(*bit == b'1') << (7 - i)));
    }
}
