//! VALUES.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;

use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::Execution;
use crate::exec::datum::ColumnBuilder;
use crate::exec::evaluator::{CANCEL_INTERVAL, Evaluator, NoRow};
use crate::exec::node::{Operator, stream_of};

#[derive(Debug)]
pub struct ValuesRows {
    pub execution: Arc<Execution>,
    pub rows: Vec<Vec<Evaluator>>,
}

impl Operator for ValuesRows {
    fn name(&self) -> &'static str {
        "Values"
    }

    fn describe(&self) -> String {
        format!("{} rows", self.rows.len())
    }

    fn execute(&self, _: Vec<SendableRecordBatchStream>, schema: SchemaRef, _: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut columns: Vec<ColumnBuilder> = schema.fields().iter().map(|f| ColumnBuilder::new(f.data_type(), self.rows.len())).collect();
        for (i, row) in self.rows.iter().enumerate() {
            if i % CANCEL_INTERVAL == 0 {
                self.execution.context.check_cancel()?;
            }
            for (column, evaluator) in columns.iter_mut().zip(row) {
                column.push(&evaluator.eval(&NoRow)?)?;
            }
        }
        let arrays = columns.iter_mut().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)
            .map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))?;
        Ok(stream_of(schema, vec![batch]))
    }
}
