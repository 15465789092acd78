//! SQL types and their Arrow shapes.

use datafusion::arrow::datatypes::DataType as ArrowType;
use strandline_storage::{Kind, Physical};

pub type Oid = u32;

/// A type with its modifier, as PostgreSQL numbers them (-1: none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlType {
    pub oid: Oid,
    pub typmod: i32,
}

impl SqlType {
    pub const fn new(oid: Oid) -> Self {
        SqlType { oid, typmod: -1 }
    }

    /// An anonymous row, or a table's.
    pub const fn is_row(self) -> bool {
        self.oid == oid::RECORD
    }
}

/// Oids of the types that the code names.
pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT2VECTOR: u32 = 22;
    pub const INT4: u32 = 23;
    pub const REGPROC: u32 = 24;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const TID: u32 = 27;
    pub const XID: u32 = 28;
    pub const CID: u32 = 29;
    pub const OIDVECTOR: u32 = 30;
    pub const JSON: u32 = 114;
    pub const XML: u32 = 142;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const UNKNOWN: u32 = 705;
    pub const MONEY: u32 = 790;
    pub const INET: u32 = 869;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const TIMETZ: u32 = 1266;
    pub const BIT: u32 = 1560;
    pub const VARBIT: u32 = 1562;
    pub const NUMERIC: u32 = 1700;
    pub const REGPROCEDURE: u32 = 2202;
    pub const REGOPER: u32 = 2203;
    pub const REGOPERATOR: u32 = 2204;
    pub const REGCLASS: u32 = 2205;
    pub const REGTYPE: u32 = 2206;
    pub const REGROLE: u32 = 4096;
    pub const REGNAMESPACE: u32 = 4089;
    pub const RECORD: u32 = 2249;
    pub const VOID: u32 = 2278;
    pub const UUID: u32 = 2950;
    pub const PG_LSN: u32 = 3220;
    pub const JSONB: u32 = 3802;
    pub const BOOL_ARRAY: u32 = 1000;
    pub const NAME_ARRAY: u32 = 1003;
    pub const INT2_ARRAY: u32 = 1005;
    pub const INT4_ARRAY: u32 = 1007;
    pub const TEXT_ARRAY: u32 = 1009;
    pub const INT8_ARRAY: u32 = 1016;
    pub const OID_ARRAY: u32 = 1028;
}

/// The Arrow type that carries values of a storage kind. The rule for the whole crate:
/// Bool Boolean, Int2 Int16, Int4/Date Int32, Int8/Oid/Money/Time/Timestamp/Timestamptz/Lsn Int64, floats as they are,
/// Uuid FixedSizeBinary(16), Bytea/Numeric/Interval/Timetz Binary (storage's sorting encodings), every other kind Utf8 (its text).
pub fn arrow_type(kind: Kind) -> ArrowType {
    match kind.physical() {
        Physical::Bool => ArrowType::Boolean,
        Physical::Int2 => ArrowType::Int16,
        Physical::Int4 => ArrowType::Int32,
        Physical::Int8 => ArrowType::Int64,
        Physical::Float4 => ArrowType::Float32,
        Physical::Float8 => ArrowType::Float64,
        Physical::Uuid => ArrowType::FixedSizeBinary(16),
        Physical::Bytes => match kind {
            Kind::Bytea | Kind::Numeric | Kind::Interval | Kind::Timetz => ArrowType::Binary,
            _ => ArrowType::Utf8,
        },
    }
}
