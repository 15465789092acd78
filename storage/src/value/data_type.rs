//! The type of a column: which PostgreSQL type it is, and in which physical shape its values are kept.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The shapes that a leaf's column can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Physical {
    Bool = 1,
    Int2 = 2,
    Int4 = 3,
    Int8 = 4,
    Float4 = 5,
    Float8 = 6,
    Uuid = 7,
    Bytes = 8,
}

/// What a value means: the family of PostgreSQL types that share an encoding and a text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `Value::Bool`
    Bool,
    /// `Value::Int2`
    Int2,
    /// `Value::Int4`
    Int4,
    /// `Value::Int8`
    Int8,
    /// oid and its aliases without text lookup (`oid`, `xid`, `cid`): `Value::Int8`, 0 to 2^32-1
    Oid,
    /// `Value::Float4`
    Float4,
    /// `Value::Float8`
    Float8,
    /// `Value::Bytes`: sorts like the number; the display scale comes last (see `numeric`)
    Numeric,
    /// `Value::Int8`, in the currency's smallest unit
    Money,
    /// text, varchar, name, "char", xml, citext: `Value::Bytes`, UTF-8
    Text,
    /// character(n): `Value::Bytes`, UTF-8, padded as PostgreSQL sends it
    Bpchar,
    /// `Value::Bytes`, the bytes themselves
    Bytea,
    /// `Value::Int4`, days since 2000-01-01; i32::MIN and MAX are the infinities
    Date,
    /// `Value::Int8`, microseconds since midnight
    Time,
    /// `Value::Bytes`: 8 bytes of UTC-adjusted microseconds, 4 of zone, so that it sorts as PostgreSQL does
    Timetz,
    /// `Value::Int8`, microseconds since 2000-01-01; i64::MIN and MAX are the infinities
    Timestamp,
    /// `Value::Int8`, microseconds since 2000-01-01 UTC
    Timestamptz,
    /// `Value::Bytes`: 16 bytes that sort as PostgreSQL compares, then months, days, microseconds exactly
    Interval,
    /// `Value::Uuid`
    Uuid,
    /// `Value::Bytes`, the exact text
    Json,
    /// `Value::Bytes`, the text as PostgreSQL prints it
    Jsonb,
    /// `Value::Int8`, the LSN as a number
    Lsn,
    /// an array of any type: `Value::Bytes`, its text as PostgreSQL prints it
    Array,
    /// an enum: `Value::Bytes`, the label
    Enum,
    /// anything else (inet, bit, ranges, geometry, composites, extensions' types): `Value::Bytes`, its exact text
    Other,
}

impl Kind {
    /// Says in which shape values of this kind are kept.
    pub fn physical(self) -> Physical {
        match self {
            Kind::Bool => Physical::Bool,
            Kind::Int2 => Physical::Int2,
            Kind::Int4 | Kind::Date => Physical::Int4,
            Kind::Int8 | Kind::Oid | Kind::Money | Kind::Time | Kind::Timestamp | Kind::Timestamptz | Kind::Lsn => Physical::Int8,
            Kind::Float4 => Physical::Float4,
            Kind::Float8 => Physical::Float8,
            Kind::Uuid => Physical::Uuid,
            Kind::Numeric
            | Kind::Text
            | Kind::Bpchar
            | Kind::Bytea
            | Kind::Timetz
            | Kind::Interval
            | Kind::Json
            | Kind::Jsonb
            | Kind::Array
            | Kind::Enum
            | Kind::Other => Physical::Bytes,
        }
    }
}

/// A column's type: PostgreSQL's oid and modifier, its name, and how values are kept.
///
/// `oid` is PostgreSQL's for built-in types and ours (from the catalog) for types made by users; 0 for a
/// type that is known by name only. `name` is as in `pg_type.typname`, with the schema in front for types outside `pg_catalog`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DataType {
    pub oid: u32,
    pub typmod: i32,
    pub name: Arc<str>,
    pub kind: Kind,
    /// The element's type where `kind` is `Array`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<Arc<DataType>>,
}
