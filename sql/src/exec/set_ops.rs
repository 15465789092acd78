//! INTERSECT and EXCEPT, with and without ALL.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use strandline_storage::DataType;

use crate::bound::SetOpKind;
use crate::error::Result;
use crate::exec::Execution;
use crate::exec::cte::{filter, rename, row_key};
use crate::exec::datum::column_refs;
use crate::exec::node::{Operator, collected};

/// Both inputs have the same columns by position.
#[derive(Debug)]
pub struct SetOperation {
    pub execution: Arc<Execution>,
    pub kind: SetOpKind,
    pub all: bool,
    pub types: Vec<DataType>,
}

impl Operator for SetOperation {
    fn name(&self) -> &'static str {
        "SetOperation"
    }

    fn describe(&self) -> String {
        format!("{:?}{}", self.kind, if self.all { " ALL" } else { "" })
    }

    fn execute(
        &self,
        inputs: Vec<SendableRecordBatchStream>,
        schema: SchemaRef,
        task: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let execution = Arc::clone(&self.execution);
        let (kind, all, types) = (self.kind, self.all, self.types.clone());
        let out = Arc::clone(&schema);
        Ok(collected("SetOperation", Arc::clone(&self.execution.context), schema, inputs, task, move |mut inputs| {
            let right = inputs.pop().unwrap_or_default();
            let left = inputs.pop().unwrap_or_default();
            let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
            for batch in &right {
                let columns = column_refs(batch.columns())?;
                for row in 0..batch.num_rows() {
                    *counts.entry(row_key(&execution, &columns, &types, row)?).or_default() += 1;
                }
            }
            let mut given = std::collections::HashSet::new();
            let mut result = Vec::with_capacity(left.len());
            for batch in &left {
                execution.context.check_cancel()?;
                let columns = column_refs(batch.columns())?;
                let mut keep = Vec::with_capacity(batch.num_rows());
                for row in 0..batch.num_rows() {
                    let key = row_key(&execution, &columns, &types, row)?;
                    let matching = match counts.get_mut(&key) {
                        Some(count) if *count > 0 => {
                            // ALL: each row of the right side answers for one of the left.
                            if all {
                                *count -= 1;
                            }
                            true
                        }
                        _ => false,
                    };
                    let wanted = matching == (kind == SetOpKind::Intersect);
                    keep.push(wanted && (all || given.insert(key)));
                }
                result.push(rename(&filter(batch, keep)?, &out)?);
            }
            Ok(result)
        }))
    }
}
