//! Rows of a result as DataRow bodies, in text or binary, byte for byte as PostgreSQL sends them.

use bytes::{BufMut, BytesMut};
use datafusion::arrow::record_batch::RecordBatch;
use strandline_storage::value::TextSettings;
use strandline_storage::{DataType, Kind};

use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::{ColumnRef, Datum};

/// Encodes the rows of one result.
#[derive(Debug)]
pub struct RowEncoder {
    columns: Vec<(DataType, bool)>,
    settings: TextSettings,
    scratch: Vec<u8>,
    /// Spells oids of regclass and the like out.
    context: Option<std::sync::Arc<crate::context::StatementContext>>,
}

impl RowEncoder {
    /// `formats`: 0 text, 1 binary, one per column.
    /// # Errors
    /// `FeatureNotSupported` for a type that has no binary form here.
    pub fn new(
        types: Vec<DataType>,
        formats: &[i16],
        settings: TextSettings,
        context: Option<std::sync::Arc<crate::context::StatementContext>>,
    ) -> Result<Self> {
        let columns = types
            .into_iter()
            .enumerate()
            .map(|(i, data_type)| {
                let binary = formats.get(i) == Some(&1);
                if binary && !data_type.has_binary() && !is_text(&data_type) {
                    return Err(SqlError::new(
                        ErrorCode::UndefinedFunction,
                        format!("no binary output function available for type {}", data_type.sql_name()),
                    ));
                }
                Ok((data_type, binary))
            })
            .collect::<Result<_>>()?;
        Ok(RowEncoder { columns, settings, scratch: Vec::new(), context })
    }

    /// Appends a DataRow's body: the count of columns, then each one's length and bytes.
    pub fn encode(&mut self, batch: &RecordBatch, row: usize, out: &mut BytesMut) -> Result<()> {
        out.put_u16(self.columns.len() as u16);
        for (array, (data_type, binary)) in batch.columns().iter().zip(&self.columns) {
            let datum = ColumnRef::new(array.as_ref())?.get(row);
            if datum.is_null() {
                out.put_i32(-1);
                continue;
            }
            let at = out.len();
            out.put_i32(0);
            self.scratch.clear();
            match (&datum, binary) {
                (Datum::Bytes(bytes), _) if is_text(data_type) => out.put_slice(bytes),
                (_, true) => {
                    data_type.to_binary(&datum.into_value(), &mut self.scratch)?;
                    out.put_slice(&self.scratch);
                }
                (Datum::Int8(_), false) if data_type.kind == Kind::Oid => {
                    let text = match &self.context {
                        Some(context) => crate::functions::casts::output(context, data_type, &datum)?,
                        None => datum.int().to_string(),
                    };
                    out.put_slice(text.as_bytes());
                }
                (_, false) => {
                    data_type.format(&datum.into_value(), &self.settings, &mut self.scratch);
                    out.put_slice(&self.scratch);
                }
            }
            let length = out.len() - at - 4;
            let length = i32::try_from(length)
                .map_err(|_| SqlError::new(ErrorCode::ProgramLimitExceeded, "a value is too long for the protocol"))?;
            out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

/// Types whose text is their binary form.
fn is_text(data_type: &DataType) -> bool {
    matches!(data_type.kind, Kind::Text | Kind::Bpchar | Kind::Json | Kind::Enum)
}
