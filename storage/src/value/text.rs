//! Text and binary forms of values, as PostgreSQL reads and prints them.

use crate::error::Result;
use crate::value::{DataType, Value};

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
    /// `InvalidText`, `OutOfRange` with PostgreSQL's texts.
    pub fn parse(&self, text: &str, settings: &TextSettings) -> Result<Value> {
        todo!()
    }

    /// Appends the value's text (nothing for NULL).
    pub fn format(&self, value: &Value, settings: &TextSettings, out: &mut Vec<u8>) {
        todo!()
    }

    /// Reads PostgreSQL's binary form (`typreceive`).
    /// # Errors
    /// `Invalid` when the type has none here or the bytes are malformed.
    pub fn from_binary(&self, bytes: &[u8]) -> Result<Value> {
        todo!()
    }

    /// Appends PostgreSQL's binary form (`typsend`).
    /// # Errors
    /// `Invalid` when the type has none here.
    pub fn to_binary(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        todo!()
    }

    /// Says whether `from_binary` and `to_binary` work for this type.
    pub fn has_binary(&self) -> bool {
        todo!()
    }
}
