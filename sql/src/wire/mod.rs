//! Columns of query results in the wire's text and binary formats.

use datafusion::arrow::record_batch::RecordBatch;
use strandline_storage::{DataType, Kind};

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::{ColumnRef, Datum, column_refs};
use crate::functions::casts;
use crate::types::oid;

/// How a column is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// Encodes the rows of one batch.
pub struct RowEncoder<'a> {
    context: &'a StatementContext,
    columns: Vec<ColumnRef<'a>>,
    types: &'a [DataType],
    formats: &'a [Format],
}

impl<'a> RowEncoder<'a> {
    /// `formats`: one per column, one for all, or none (text).
    ///
    /// # Errors
    /// `InternalError` for a column that is none of our shapes.
    pub fn new(context: &'a StatementContext, batch: &'a RecordBatch, types: &'a [DataType], formats: &'a [Format]) -> Result<Self> {
        Ok(RowEncoder { context, columns: column_refs(batch.columns())?, types, formats })
    }

    /// Gives each column of a row to `field`: `None` for NULL. Bytes are valid during the call.
    ///
    /// # Errors
    /// `FeatureNotSupported` where a type has no binary form.
    pub fn row(&self, row: usize, buffer: &mut Vec<u8>, mut field: impl FnMut(Option<&[u8]>)) -> Result<()> {
        for (i, (column, data_type)) in self.columns.iter().zip(self.types).enumerate() {
            let format = match self.formats {
                [] => Format::Text,
                [one] => *one,
                many => many.get(i).copied().unwrap_or(Format::Text),
            };
            let datum = column.get(row);
            if datum.is_null() {
                field(None);
                continue;
            }
            buffer.clear();
            encode(self.context, data_type, &datum, format, buffer)?;
            field(Some(buffer));
        }
        Ok(())
    }
}

/// Appends one value that is not NULL.
///
/// # Errors
/// `FeatureNotSupported` where a type has no binary form.
pub fn encode(context: &StatementContext, data_type: &DataType, datum: &Datum<'_>, format: Format, out: &mut Vec<u8>) -> Result<()> {
    match format {
        Format::Text => {
            match (datum, data_type.kind) {
                (Datum::Bytes(bytes), Kind::Text | Kind::Bpchar | Kind::Json | Kind::Jsonb | Kind::Enum) => out.extend_from_slice(bytes),
                (Datum::Int8(v), Kind::Oid) if data_type.oid != oid::OID => {
                    out.extend_from_slice(crate::functions::system::oid_output(context, data_type.oid, *v as u32).as_bytes());
                }
                _ => data_type.format(&datum.borrowed().into_value(), &context.text, out),
            }
            Ok(())
        }
        Format::Binary => {
            // Composite and pseudo-types that the store does not know have only their text.
            if !data_type.has_binary() {
                return Err(SqlError::new(
                    ErrorCode::FeatureNotSupported,
                    format!("no binary output function available for type {}", data_type.name),
                ));
            }
            data_type.to_binary(&datum.borrowed().into_value(), out)?;
            Ok(())
        }
    }
}

/// Reads a parameter as the client sent it; `None` is NULL.
///
/// # Errors
/// `InvalidTextRepresentation`, `InvalidBinaryRepresentation`.
pub fn decode(context: &StatementContext, data_type: &DataType, bytes: Option<&[u8]>, format: Format) -> Result<strandline_storage::Value> {
    let Some(bytes) = bytes else { return Ok(strandline_storage::Value::Null) };
    match format {
        Format::Text => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| SqlError::new(ErrorCode::InvalidTextRepresentation, "invalid byte sequence for encoding \"UTF8\""))?;
            casts::input(context, data_type, text)
        }
        Format::Binary => data_type.from_binary(bytes).map_err(|e| SqlError::new(ErrorCode::InvalidBinaryRepresentation, e.to_string())),
    }
}
