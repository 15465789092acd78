//! The text of values, as PostgreSQL reads and prints it; each family's rules are in its own file.

use crate::error::Result;
use crate::value::datetime::{self, Interval, TimeTz};
use crate::value::{DataType, Kind, Numeric, Value, array, boolean, bytea, character, float, integer, json, money, other, uuid};

const CHAR_OID: u32 = 18;
const NAME_OID: u32 = 19;
const VARCHAR_OID: u32 = 1043;

/// What a session may choose about the text of values; the default is what replication pins (ISO, UTC, hex, 3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TextSettings {
    /// ISO, SQL, Postgres or German.
    pub date_style: DateStyle,
    pub date_order: DateOrder,
    pub interval_style: IntervalStyle,
    /// A time zone's IANA name, or a POSIX offset.
    pub time_zone: String,
    pub extra_float_digits: i32,
    pub bytea_escape: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DateStyle {
    Iso,
    Sql,
    Postgres,
    German,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DateOrder {
    Mdy,
    Dmy,
    Ymd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntervalStyle {
    Postgres,
    PostgresVerbose,
    SqlStandard,
    Iso8601,
}

impl Default for TextSettings {
    fn default() -> Self {
        TextSettings {
            date_style: DateStyle::Iso,
            date_order: DateOrder::Mdy,
            interval_style: IntervalStyle::Postgres,
            time_zone: "UTC".into(),
            extra_float_digits: 1,
            bytea_escape: false,
        }
    }
}

impl DataType {
    /// Reads PostgreSQL's text of a value and applies the type's modifier (varchar length, numeric scale, timestamp precision).
    /// # Errors
    /// `InvalidText`, `OutOfRange`, `Value` with PostgreSQL's texts.
    pub fn parse(&self, text: &str, settings: &TextSettings) -> Result<Value> {
        let integer = |name: &str, min: i64, max: i64| integer::parse(text, name, min, max);
        Ok(match self.kind {
            Kind::Bool => Value::Bool(boolean::parse(text)?),
            Kind::Int2 => Value::Int2(integer("smallint", i64::from(i16::MIN), i64::from(i16::MAX))? as i16),
            Kind::Int4 => Value::Int4(integer("integer", i64::from(i32::MIN), i64::from(i32::MAX))? as i32),
            Kind::Int8 => Value::Int8(integer("bigint", i64::MIN, i64::MAX)?),
            Kind::Oid if self.name.starts_with("reg") && text == "-" => Value::Int8(0),
            Kind::Oid => Value::Int8(integer::parse_oid(text, &self.name)?),
            Kind::Float4 => Value::Float4(float::parse_f32(text)?),
            Kind::Float8 => Value::Float8(float::parse_f64(text)?),
            Kind::Numeric => Value::Bytes(Numeric::parse(text)?.apply_typmod(self.typmod)?.encode()),
            Kind::Money => Value::Int8(money::parse(text)?),
            Kind::Bytea => Value::bytes(bytea::parse(text)?),
            Kind::Uuid => Value::Uuid(uuid::parse(text)?),
            Kind::Lsn => Value::Int8(integer::parse_lsn(text)? as i64),
            Kind::Date => Value::Int4(datetime::parse_date(text, settings)?),
            Kind::Time => Value::Int8(datetime::parse_time(text, self.typmod, settings)?),
            Kind::Timetz => Value::bytes(datetime::parse_timetz(text, self.typmod, settings)?.encode()),
            Kind::Timestamp => Value::Int8(datetime::parse_timestamp(text, self.typmod, settings)?),
            Kind::Timestamptz => Value::Int8(datetime::parse_timestamptz(text, self.typmod, settings)?),
            Kind::Interval => Value::Bytes(datetime::parse_interval(text, self.typmod, settings)?.encode()),
            Kind::Text => {
                let text = check_text(text)?;
                Value::bytes(match self.oid {
                    NAME_OID => character::truncate_name(text),
                    CHAR_OID => character::truncate(text, 1),
                    VARCHAR_OID => character::apply_varchar(text, self.typmod)?,
                    _ => text,
                })
            }
            Kind::Bpchar => Value::bytes(character::apply_bpchar(check_text(text)?, self.typmod)?.as_bytes()),
            Kind::Json => {
                json::validate(text)?;
                Value::bytes(text)
            }
            Kind::Jsonb => Value::bytes(json::normalize(text)?),
            Kind::Array => Value::bytes(array::normalize(text, self, settings)?),
            Kind::Enum => Value::bytes(check_text(text)?),
            Kind::Other => Value::bytes(other::normalize(check_text(text)?, self, settings)?.as_bytes()),
        })
    }

    /// Appends the value's text (nothing for NULL).
    pub fn format(&self, value: &Value, settings: &TextSettings, out: &mut Vec<u8>) {
        match value {
            Value::Null => {}
            Value::Bool(v) => out.push(if *v { b't' } else { b'f' }),
            Value::Int2(v) => integer::format(i64::from(*v), out),
            Value::Int4(v) if self.kind == Kind::Date => datetime::format_date(*v, settings, out),
            Value::Int4(v) => integer::format(i64::from(*v), out),
            Value::Float4(v) => float::format_f32(*v, settings.extra_float_digits, out),
            Value::Float8(v) => float::format_f64(*v, settings.extra_float_digits, out),
            Value::Uuid(v) => uuid::format(v, out),
            Value::Int8(v) => match self.kind {
                Kind::Money => money::format(*v, out),
                Kind::Time => datetime::format_time(*v, out),
                Kind::Timestamp => datetime::format_timestamp(*v, settings, out),
                Kind::Timestamptz => datetime::format_timestamptz(*v, settings, out),
                Kind::Lsn => out.extend(format!("{:X}/{:X}", *v as u64 >> 32, *v as u32).as_bytes()),
                Kind::Oid if *v == 0 && self.name.starts_with("reg") => out.push(b'-'),
                _ => integer::format(*v, out),
            },
            Value::Bytes(v) => match self.kind {
                Kind::Numeric => match Numeric::decode(v) {
                    Ok(n) => n.format_to(out),
                    Err(e) => report_damage(&e, out),
                },
                Kind::Bytea => bytea::format(v, settings.bytea_escape, out),
                Kind::Timetz => match TimeTz::decode(v) {
                    Ok(t) => datetime::format_timetz(t, settings, out),
                    Err(e) => report_damage(&e, out),
                },
                Kind::Interval => match Interval::decode(v) {
                    Ok(i) => datetime::format_interval(&i, settings.interval_style, out),
                    Err(e) => report_damage(&e, out),
                },
                Kind::Array if !array::is_text_stable(self, settings) => array::format(v, self, settings, out),
                Kind::Other => other::format(v, self, settings, out),
                _ => out.extend_from_slice(v),
            },
        }
    }

    /// The value's text as a string.
    pub fn to_text(&self, value: &Value, settings: &TextSettings) -> String {
        let mut out = Vec::new();
        self.format(value, settings, &mut out);
        String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }
}

/// Stored bytes that cannot be read show as what they are: a reader must not mistake them for a value, and output cannot fail.
fn report_damage(error: &crate::error::Error, out: &mut Vec<u8>) {
    out.extend(format!("<{error}>").as_bytes());
}

/// Text cannot contain a zero byte.
fn check_text(text: &str) -> Result<&str> {
    if text.contains('\0') {
        return Err(crate::error::Error::value(
            crate::error::ValueErrorCode::CharacterNotInRepertoire,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    Ok(text)
}
