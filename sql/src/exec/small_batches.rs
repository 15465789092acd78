//! Projections that make long values of short ones (`repeat`, `string_agg` in a subquery, casts of documents): 8192 rows of
//! them at a time would be gigabytes. Below such a projection stands [`Slices`], above it [`Meter`]:
//!
//! ```text
//!   Meter        measures what came out, and says how many rows are right
//!   projection
//!   Slices       gives the projection so many rows of its input at a time
//! ```
//! They are set up for a few rows and reach whole batches of ordinary values within the first one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::{DataType as ArrowType, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result as PlanResult;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt as _;

use crate::context::StatementContext;
use crate::error::Result;
use crate::exec::node::{Operator, OwnExec, internal, missing_input};

/// How many rows a projection is given first.
const FIRST_ROWS: usize = 16;
const ROWS_MAX: usize = 8192;
/// A batch larger than this makes the following ones smaller, one of a quarter of it makes them larger.
const BATCH_BYTES: usize = 4 << 20;
const GROWTH: usize = 8;

/// Surrounds a projection that computes values of any length; others stay as they are.
pub(super) fn bound(plan: Arc<dyn ExecutionPlan>, context: &Arc<StatementContext>) -> PlanResult<Option<Arc<dyn ExecutionPlan>>> {
    let any: &dyn std::any::Any = plan.as_ref();
    let Some(projection) = any.downcast_ref::<ProjectionExec>() else { return Ok(None) };
    let schema = plan.schema();
    let unbounded = projection.expr().iter().zip(schema.fields()).any(|(column, field)| {
        let expr: &dyn std::any::Any = column.expr.as_ref();
        matches!(field.data_type(), ArrowType::Utf8 | ArrowType::Binary) && !expr.is::<Column>() && !expr.is::<Literal>()
    });
    if !unbounded {
        return Ok(None);
    }
    let rows = Arc::new(AtomicUsize::new(FIRST_ROWS));
    let input = Arc::clone(projection.input());
    let input_schema = input.schema();
    let slices = Slices { rows: Arc::clone(&rows), context: Arc::clone(context) };
    let input = Arc::new(OwnExec::new(Arc::new(slices), vec![input], input_schema));
    let plan = plan.replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?;
    Ok(Some(Arc::new(OwnExec::new(Arc::new(Meter { rows }), vec![plan], schema))))
}

#[derive(Debug)]
struct Slices {
    rows: Arc<AtomicUsize>,
    context: Arc<StatementContext>,
}

impl Operator for Slices {
    fn name(&self) -> &'static str {
        "Slices"
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
        let (rows, context) = (Arc::clone(&self.rows), Arc::clone(&self.context));
        let stream = input.flat_map(move |batch| {
            let (rows, context) = (Arc::clone(&rows), Arc::clone(&context));
            let mut rest = batch.map(Some);
            let mut is_slice = false;
            // One slice at a time: how large the next one is, the one before decides.
            futures::stream::iter(std::iter::from_fn(move || {
                let batch = match std::mem::replace(&mut rest, Ok(None)) {
                    Ok(batch) => batch?,
                    Err(error) => return Some(Err(error)),
                };
                if let Err(error) = context.check_cancel() {
                    return Some(Err(internal(error)));
                }
                let count = rows.load(Ordering::Relaxed);
                if batch.num_rows() <= count {
                    return Some(if is_slice { copied(&batch, batch.num_rows()) } else { Ok(batch) });
                }
                is_slice = true;
                rest = Ok(Some(batch.slice(count, batch.num_rows() - count)));
                Some(copied(&batch, count))
            }))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// The first rows as a batch of its own: a slice would count as the whole batch wherever memory is accounted for.
fn copied(batch: &RecordBatch, count: usize) -> PlanResult<RecordBatch> {
    let indices = UInt32Array::from_iter_values(0..count as u32);
    if batch.num_columns() == 0 {
        return Ok(batch.slice(0, count));
    }
    Ok(take_record_batch(batch, &indices)?)
}

#[derive(Debug)]
struct Meter {
    rows: Arc<AtomicUsize>,
}

impl Operator for Meter {
    fn name(&self) -> &'static str {
        "Meter"
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
        let rows = Arc::clone(&self.rows);
        let stream = input.map(move |batch| {
            let batch = batch?;
            let (count, bytes) = (batch.num_rows().max(1), batch.get_array_memory_size());
            if bytes > BATCH_BYTES {
                rows.store((count * BATCH_BYTES / bytes).max(1), Ordering::Relaxed);
            } else if bytes < BATCH_BYTES / 4 && count >= rows.load(Ordering::Relaxed) {
                rows.store((count * GROWTH).min(ROWS_MAX), Ordering::Relaxed);
            }
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}
