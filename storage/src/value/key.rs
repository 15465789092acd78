//! Key bytes: values encoded so that `memcmp` orders them as PostgreSQL does (text by bytes, as collation "C").

use crate::error::Result;
use crate::value::{DataType, Value};

/// Appends one value; a sequence of appended values sorts column by column. NULL sorts as asked.
pub fn encode_key(out: &mut Vec<u8>, value: &Value, data_type: &DataType, descending: bool, nulls_first: bool) {
    todo!()
}

/// Reads one value back; returns it and the rest. Inverse of [`encode_key`] up to equality (a numeric's display scale is not kept).
/// # Errors
/// `Damaged`.
pub fn decode_key<'a>(bytes: &'a [u8], data_type: &DataType, descending: bool, nulls_first: bool) -> Result<(Value, &'a [u8])> {
    todo!()
}
