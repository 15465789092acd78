//! LATERAL joins: the right side is run for every row of the left.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, UInt32Array, new_null_array};
use datafusion::arrow::compute::{concat, take};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;

use crate::bound::{ColumnId, Expr};
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::Execution;
use crate::exec::datum::{ColumnRef, column_refs};
use crate::exec::evaluator::Evaluator;
use crate::exec::node::{Operator, internal, missing_input, position};
use crate::exec::subplan::Subplan;

/// `left JOIN LATERAL right ON on`, inner or left.
#[derive(Debug)]
pub struct Apply {
    pub execution: Arc<Execution>,
    pub right: Arc<Subplan>,
    /// The ids of the left columns (as `c{id}` in the input) that the right side reads.
    pub params: Vec<ColumnId>,
    /// Over the output's columns: left, then right.
    pub on: Option<Expr>,
    pub outer_join: bool,
}

fn arrow(e: datafusion::arrow::error::ArrowError) -> SqlError {
    SqlError::new(ErrorCode::InternalError, e.to_string())
}

impl Apply {
    fn batch(&self, left: &RecordBatch, schema: &SchemaRef, on: Option<&Evaluator>, params: &[(ColumnId, usize)]) -> Result<RecordBatch> {
        let left_columns = left.num_columns();
        let refs = column_refs(left.columns())?;
        let mut take_left: Vec<u32> = Vec::new();
        let mut right_parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); schema.fields().len() - left_columns];
        for row in 0..left.num_rows() {
            let values = params.iter().map(|(id, at)| (*id, refs[*at].get(row).into_value())).collect();
            let mut matched = false;
            for inner in self.right.batches(values)? {
                let mut keep: Vec<u32> = (0..inner.num_rows() as u32).collect();
                if let Some(on) = on {
                    let inner_refs = column_refs(inner.columns())?;
                    let mut kept = Vec::new();
                    for i in keep {
                        // Both sides' columns of this pair of rows, as one row.
                        let pair: Vec<_> =
                            refs.iter().map(|c| c.get(row)).chain(inner_refs.iter().map(|c: &ColumnRef<'_>| c.get(i as usize))).collect();
                        let row: Vec<strandline_storage::Value> = pair.into_iter().map(|d| d.into_value()).collect();
                        if on.eval(&row)?.bool() {
                            kept.push(i);
                        }
                    }
                    keep = kept;
                }
                if keep.is_empty() {
                    continue;
                }
                matched = true;
                take_left.extend(std::iter::repeat_n(row as u32, keep.len()));
                let indices = UInt32Array::from(keep);
                for (part, column) in right_parts.iter_mut().zip(inner.columns()) {
                    part.push(take(column, &indices, None).map_err(arrow)?);
                }
            }
            if !matched && self.outer_join {
                take_left.push(row as u32);
                for (part, field) in right_parts.iter_mut().zip(schema.fields().iter().skip(left_columns)) {
                    part.push(new_null_array(field.data_type(), 1));
                }
            }
        }
        let rows = take_left.len();
        let indices = UInt32Array::from(take_left);
        let mut arrays = left.columns().iter().map(|c| take(c, &indices, None)).collect::<Result<Vec<_>, _>>().map_err(arrow)?;
        for (part, field) in right_parts.iter().zip(schema.fields().iter().skip(left_columns)) {
            let part: Vec<&dyn datafusion::arrow::array::Array> = part.iter().map(AsRef::as_ref).collect();
            arrays.push(if part.is_empty() { new_null_array(field.data_type(), 0) } else { concat(&part).map_err(arrow)? });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options).map_err(arrow)
    }
}

/// The id behind a column's name in a plan.
pub(super) fn column_id(name: &str) -> Option<ColumnId> {
    name.strip_prefix('c')?.parse().ok()
}

/// Where a column id is in a schema.
pub(super) fn id_position(schema: &SchemaRef, id: ColumnId) -> Option<usize> {
    schema.fields().iter().position(|f| column_id(f.name()) == Some(id))
}

impl Operator for Apply {
    fn name(&self) -> &'static str {
        "Apply"
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn execute(
        &self,
        mut inputs: Vec<SendableRecordBatchStream>,
        schema: SchemaRef,
        _: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = inputs.pop().ok_or_else(missing_input)?;
        let left_schema = input.schema();
        let params = self.params.iter().map(|id| Ok((*id, position(&left_schema, &format!("c{id}"))?))).collect::<Result<Vec<_>>>()?;
        let on = self.on.as_ref().map(|e| Evaluator::new(e, &self.execution, &|id| id_position(&schema, id))).transpose()?;
        let this = Apply {
            execution: Arc::clone(&self.execution),
            right: Arc::clone(&self.right),
            params: self.params.clone(),
            on: None,
            outer_join: self.outer_join,
        };
        let out = Arc::clone(&schema);
        let stream = input.map(move |batch| {
            let batch = batch?;
            this.execution.context.check_cancel().map_err(internal)?;
            this.batch(&batch, &out, on.as_ref(), &params).map_err(internal)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}
