//! DISTINCT, DISTINCT ON, and LIMIT where DataFusion's cannot serve (bounds known only when run, WITH TIES).

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;
use strandline_storage::{DataType, Value};

use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::Execution;
use crate::exec::cte::{filter, row_key};
use crate::exec::datum::column_refs;
use crate::exec::evaluator::{Evaluator, NoRow};
use crate::exec::node::{Operator, internal, missing_input, position};

/// Keeps the first row of each set of equal keys, in the input's order.
#[derive(Debug)]
pub struct DistinctRows {
    pub execution: Arc<Execution>,
    /// The key columns' names and types.
    pub keys: Vec<(String, DataType)>,
}

impl Operator for DistinctRows {
    fn name(&self) -> &'static str {
        "Distinct"
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn execute(
        &self,
        mut inputs: Vec<SendableRecordBatchStream>,
        schema: SchemaRef,
        task: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = inputs.pop().ok_or_else(missing_input)?;
        let input_schema = input.schema();
        let positions = self.keys.iter().map(|(name, _)| position(&input_schema, name)).collect::<Result<Vec<_>>>()?;
        let types: Vec<DataType> = self.keys.iter().map(|(_, ty)| ty.clone()).collect();
        let execution = Arc::clone(&self.execution);
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        let reservation = MemoryConsumer::new("Distinct").register(task.memory_pool());
        let stream = input.map(move |batch| {
            let batch = batch?;
            let mut distinct = || -> Result<RecordBatch> {
                execution.context.check_cancel()?;
                let all = column_refs(batch.columns())?;
                let columns: Vec<_> = positions.iter().filter_map(|&i| all.get(i).copied()).collect();
                let mut keep = Vec::with_capacity(batch.num_rows());
                let mut grown = 0;
                for row in 0..batch.num_rows() {
                    let key = row_key(&execution, &columns, &types, row)?;
                    let size = key.len() + 32;
                    let new = seen.insert(key);
                    grown += if new { size } else { 0 };
                    keep.push(new);
                }
                reservation.try_grow(grown).map_err(super::error_of)?;
                filter(&batch, keep)
            };
            distinct().map_err(internal)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// LIMIT and OFFSET with bounds evaluated when run.
#[derive(Debug)]
pub struct LimitRows {
    pub execution: Arc<Execution>,
    pub limit: Option<Evaluator>,
    pub offset: Option<Evaluator>,
    /// WITH TIES: the sort keys' columns and types.
    pub ties: Option<Vec<(String, DataType)>>,
}

/// A bound's value: NULL is none.
pub fn bound(value: &Value, offset: bool) -> Result<Option<usize>> {
    let count = match value {
        Value::Null => return Ok(None),
        Value::Int2(v) => i64::from(*v),
        Value::Int4(v) => i64::from(*v),
        Value::Int8(v) => *v,
        _ => return Err(SqlError::new(ErrorCode::InternalError, "LIMIT is not a number")),
    };
    if count < 0 {
        return Err(if offset {
            SqlError::new(ErrorCode::InvalidRowCountInOffset, "OFFSET must not be negative")
        } else {
            SqlError::new(ErrorCode::InvalidRowCountInLimit, "LIMIT must not be negative")
        });
    }
    Ok(Some(usize::try_from(count).unwrap_or(usize::MAX)))
}

impl Operator for LimitRows {
    fn name(&self) -> &'static str {
        "Limit"
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
        let value = |e: &Option<Evaluator>, offset: bool| -> Result<Option<usize>> {
            match e {
                Some(e) => bound(&e.value(&NoRow)?, offset),
                None => Ok(None),
            }
        };
        let mut skip = value(&self.offset, true)?.unwrap_or(0);
        let mut left = value(&self.limit, false)?;
        let input_schema = input.schema();
        let ties = self
            .ties
            .as_ref()
            .map(|keys| keys.iter().map(|(name, ty)| Ok((position(&input_schema, name)?, ty.clone()))).collect::<Result<Vec<_>>>())
            .transpose()?;
        let execution = Arc::clone(&self.execution);
        let mut last: Option<Vec<u8>> = None;
        let mut ended = left == Some(0);
        let stream = input
            .map(move |batch| {
                let batch = batch?;
                let mut cut = || -> Result<(RecordBatch, bool)> {
                    execution.context.check_cancel()?;
                    if ended {
                        return Ok((batch.slice(0, 0), true));
                    }
                    let skipped = skip.min(batch.num_rows());
                    skip -= skipped;
                    let batch = batch.slice(skipped, batch.num_rows() - skipped);
                    let Some(remaining) = &mut left else { return Ok((batch, false)) };
                    let taken = (*remaining).min(batch.num_rows());
                    *remaining -= taken;
                    let mut end = taken;
                    if let Some(ties) = &ties
                        && *remaining == 0
                    {
                        let all = column_refs(batch.columns())?;
                        let columns: Vec<_> = ties.iter().filter_map(|(i, _)| all.get(*i).copied()).collect();
                        let types: Vec<DataType> = ties.iter().map(|(_, ty)| ty.clone()).collect();
                        if taken > 0 {
                            last = Some(row_key(&execution, &columns, &types, taken - 1)?);
                        }
                        while end < batch.num_rows() && last.as_ref() == Some(&row_key(&execution, &columns, &types, end)?) {
                            end += 1;
                        }
                        ended = end < batch.num_rows();
                    } else {
                        ended = *remaining == 0;
                    }
                    Ok((batch.slice(0, end), ended))
                };
                cut().map_err(internal)
            })
            // The batch that reaches the end is the last one; nothing more is read then.
            .scan(false, |over, item| {
                if *over {
                    return futures::future::ready(None);
                }
                *over = !matches!(&item, Ok((_, false)));
                futures::future::ready(Some(item.map(|(batch, _)| batch)))
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}
