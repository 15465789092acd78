//! Set-returning functions, in FROM and in a select list.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;
use strandline_storage::Value;

use crate::bound::FunctionCall;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::Execution;
use crate::exec::datum::{ColumnBuilder, Datum, column_refs};
use crate::exec::evaluator::{BatchRow, Evaluator, NoRow, Positions, RowAccess};
use crate::exec::node::{Operator, internal, missing_input, stream_of_iter};
use crate::functions::sets::{self, SetRows};
use crate::functions::{self, Call, casts};

/// Rows per batch.
const BATCH_ROWS: usize = 8192;

/// A set-returning function with its arguments.
#[derive(Debug)]
pub struct SetCall {
    kind: Kind,
    args: Vec<Evaluator>,
    call: Arc<Call>,
}

enum Kind {
    Set(sets::Run),
    /// A function that gives one value serves as a set of one row.
    One(Evaluator),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Set(_) => "set",
            Kind::One(_) => "one",
        })
    }
}

impl SetCall {
    pub fn new(call: &FunctionCall, execution: &Arc<Execution>, positions: Positions<'_>) -> Result<Self> {
        let proc = functions::proc(call.proc)?;
        let types = call.args.iter().map(|a| casts::data_type(&execution.context, a.ty())).collect::<Result<Vec<_>>>()?;
        let result = casts::data_type(&execution.context, call.ty)?;
        let kind = match sets::find(proc) {
            Some(run) => Kind::Set(run),
            None if !proc.returns_set => Kind::One(Evaluator::new(&crate::bound::Expr::Function(call.clone()), execution, positions)?),
            None => return Err(functions::unsupported(proc)),
        };
        Ok(SetCall {
            kind,
            args: call.args.iter().map(|a| Evaluator::new(a, execution, positions)).collect::<Result<_>>()?,
            call: Arc::new(Call::new(Arc::clone(&execution.context), proc, types, result, call.variadic)),
        })
    }

    fn rows(&self, row: &impl RowAccess, width: usize) -> Result<SetRows> {
        match &self.kind {
            Kind::Set(run) => {
                let args = self.args.iter().map(|a| a.eval(row)).collect::<Result<Vec<_>>>()?;
                if self.call.proc.strict && args.iter().any(Datum::is_null) {
                    return Ok(Box::new(std::iter::empty()));
                }
                run(&self.call, &args)
            }
            Kind::One(evaluator) => {
                let value = evaluator.value(row)?;
                // Several columns: the fields of a composite.
                if width > 1 {
                    let fields = match &value {
                        Value::Null => vec![Value::Null; width],
                        other => casts::record_fields(Datum::from(other).str())?
                            .into_iter()
                            .map(|f| f.map_or(Value::Null, functions::text_value))
                            .collect(),
                    };
                    return Ok(Box::new(std::iter::once(Ok(fields))));
                }
                Ok(Box::new(std::iter::once(Ok(vec![value]))))
            }
        }
    }
}

/// A function in FROM; the ordinality column, if any, comes last.
#[derive(Debug)]
pub struct FunctionScan {
    pub execution: Arc<Execution>,
    pub call: SetCall,
    pub ordinality: bool,
}

impl Operator for FunctionScan {
    fn name(&self) -> &'static str {
        "FunctionScan"
    }

    fn describe(&self) -> String {
        self.call.call.proc.name.to_owned()
    }

    fn execute(&self, _: Vec<SendableRecordBatchStream>, schema: SchemaRef, _: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let width = schema.fields().len() - usize::from(self.ordinality);
        let rows = self.call.rows(&NoRow, width)?;
        let batches = FunctionBatches {
            execution: Arc::clone(&self.execution),
            rows,
            schema: Arc::clone(&schema),
            ordinality: self.ordinality.then_some(0),
            done: false,
        };
        Ok(stream_of_iter(schema, batches))
    }
}

struct FunctionBatches {
    execution: Arc<Execution>,
    rows: SetRows,
    schema: SchemaRef,
    ordinality: Option<i64>,
    done: bool,
}

impl Iterator for FunctionBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.batch();
        if batch.is_err() {
            self.done = true;
        }
        batch.transpose()
    }
}

impl FunctionBatches {
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        self.execution.context.check_cancel()?;
        let mut columns: Vec<ColumnBuilder> = self.schema.fields().iter().map(|f| ColumnBuilder::new(f.data_type(), BATCH_ROWS)).collect();
        let mut count = 0;
        while count < BATCH_ROWS {
            let Some(row) = self.rows.next() else {
                self.done = true;
                break;
            };
            let mut row = row?;
            if let Some(n) = &mut self.ordinality {
                *n += 1;
                row.push(Value::Int8(*n));
            }
            for (i, column) in columns.iter_mut().enumerate() {
                column.push(&row.iter().nth(i).map_or(Datum::Null, Datum::from))?;
            }
            count += 1;
        }
        if count == 0 {
            return Ok(None);
        }
        finish(&self.schema, columns, count).map(Some)
    }
}

fn finish(schema: &SchemaRef, mut columns: Vec<ColumnBuilder>, rows: usize) -> Result<RecordBatch> {
    let arrays = columns.iter_mut().map(ColumnBuilder::finish).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
        .map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))
}

/// Set-returning functions of a select list: the input's columns, then one per call.
#[derive(Debug)]
pub struct ProjectSet {
    pub execution: Arc<Execution>,
    pub calls: Vec<FunctionCall>,
}

impl Operator for ProjectSet {
    fn name(&self) -> &'static str {
        "ProjectSet"
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
        let input_schema = input.schema();
        let calls = self
            .calls
            .iter()
            .map(|c| SetCall::new(c, &self.execution, &|id| super::apply::id_position(&input_schema, id)))
            .collect::<Result<Vec<_>>>()?;
        let calls = Arc::new(calls);
        let execution = Arc::clone(&self.execution);
        let out = Arc::clone(&schema);
        let stream = input.flat_map(move |batch| {
            let batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send> = match batch {
                Ok(batch) => Box::new(Expanded {
                    execution: Arc::clone(&execution),
                    calls: Arc::clone(&calls),
                    schema: Arc::clone(&out),
                    batch,
                    row: 0,
                    open: Vec::new(),
                }),
                Err(e) => Box::new(std::iter::once(Err(super::error_of(e)))),
            };
            futures::stream::iter(batches.map(|b| b.map_err(internal)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

struct Expanded {
    execution: Arc<Execution>,
    calls: Arc<Vec<SetCall>>,
    schema: SchemaRef,
    batch: RecordBatch,
    row: usize,
    /// The functions' rows for the current row; empty between rows.
    open: Vec<Option<SetRows>>,
}

impl Iterator for Expanded {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.row >= self.batch.num_rows() {
            return None;
        }
        let result = self.expand();
        if result.is_err() {
            self.row = self.batch.num_rows();
        }
        Some(result)
    }
}

impl Expanded {
    fn expand(&mut self) -> Result<RecordBatch> {
        self.execution.context.check_cancel()?;
        let refs = column_refs(self.batch.columns())?;
        let mut columns: Vec<ColumnBuilder> = self.schema.fields().iter().map(|f| ColumnBuilder::new(f.data_type(), BATCH_ROWS)).collect();
        let mut count = 0;
        while count < BATCH_ROWS && self.row < self.batch.num_rows() {
            if self.open.is_empty() {
                let row = BatchRow { columns: &refs, row: self.row };
                self.open = self.calls.iter().map(|c| c.rows(&row, 1).map(Some)).collect::<Result<_>>()?;
            }
            let mut values = Vec::with_capacity(self.open.len());
            let mut any = false;
            for slot in &mut self.open {
                let next = slot.as_mut().and_then(Iterator::next).transpose()?;
                match next {
                    Some(row) => {
                        any = true;
                        values.push(if row.len() == 1 {
                            row.into_iter().next().unwrap_or_default()
                        } else {
                            record(&self.execution, &row)?
                        });
                    }
                    None => {
                        *slot = None;
                        values.push(Value::Null);
                    }
                }
            }
            if !any {
                self.open.clear();
                self.row += 1;
                continue;
            }
            for (i, column) in columns.iter_mut().enumerate() {
                match refs.get(i) {
                    Some(from) => column.push(&from.get(self.row))?,
                    None => column.push(&values.iter().nth(i - refs.len()).map_or(Datum::Null, Datum::from))?,
                }
            }
            count += 1;
        }
        finish(&self.schema, columns, count)
    }
}

/// Several columns as one composite value, when a function with a row result stands in a select list.
fn record(_: &Execution, row: &[Value]) -> Result<Value> {
    let mut out = String::from("(");
    for (i, value) in row.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match value {
            Value::Null => {}
            Value::Bool(v) => out.push(if *v { 't' } else { 'f' }),
            Value::Int2(v) => out.push_str(&v.to_string()),
            Value::Int4(v) => out.push_str(&v.to_string()),
            Value::Int8(v) => out.push_str(&v.to_string()),
            Value::Bytes(_) => casts::push_record_field(Datum::from(value).str(), &mut out),
            _ => return Err(SqlError::unsupported("a set-returning function with such columns in a select list")),
        }
    }
    out.push(')');
    Ok(functions::text_value(out))
}
