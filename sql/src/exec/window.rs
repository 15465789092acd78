//! Window functions: the input comes sorted by partition and order; each partition is computed as a whole.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use strandline_storage::value::numeric::Numeric;
use strandline_storage::{DataType, Kind, Value};

use crate::bound::{Column, Expr, Frame, FrameBound, FrameUnits, WindowCall};
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::apply::id_position;
use crate::exec::datum::{ColumnBuilder, Datum, column_refs};
use crate::exec::evaluator::{BatchRow, Evaluator, NoRow};
use crate::exec::node::{Operator, collected, position};
use crate::exec::{Execution, casts};
use crate::functions::aggregates::{Arrangement, New, compare_keys, start};
use crate::functions::{self, Call, datetime};
use crate::types::{SqlType, arrow_type};

/// One call over a window.
pub struct WindowSpec {
    window: WindowCall,
    result: DataType,
    kind: Kinds,
}

enum Kinds {
    Function(&'static str),
    Aggregate(Arc<Call>, New, Arrangement),
}

impl std::fmt::Debug for WindowSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WindowSpec").field("frame", &self.window.frame).finish_non_exhaustive()
    }
}

impl WindowSpec {
    pub fn new(window: &WindowCall, column: &Column, execution: &Arc<Execution>) -> Result<Self> {
        let proc = functions::proc(window.call.proc)?;
        let kind = match proc.name {
            name @ ("row_number" | "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "ntile" | "lag" | "lead" | "first_value"
            | "last_value" | "nth_value")
                if proc.kind == b'w' =>
            {
                Kinds::Function(name)
            }
            _ => {
                let (call, new, arrangement) = crate::lower::compile_aggregate(&window.call, execution)?;
                if !arrangement.is_plain() {
                    return Err(SqlError::unsupported("DISTINCT and ORDER BY in an aggregate over a window"));
                }
                Kinds::Aggregate(Arc::new(call), new, arrangement)
            }
        };
        Ok(WindowSpec { window: window.clone(), result: casts::data_type(&execution.context, column.ty)?, kind })
    }
}

/// All calls over windows of one partitioning and order.
#[derive(Debug)]
pub struct WindowRows {
    pub execution: Arc<Execution>,
    /// Names of the partition's and the order's sort keys.
    pub partition: Vec<String>,
    pub order: Vec<String>,
    /// The order's values: name, type, descending, nulls first.
    pub order_values: Vec<(String, SqlType, bool, bool)>,
    pub specs: Vec<WindowSpec>,
}

impl Operator for WindowRows {
    fn name(&self) -> &'static str {
        "Window"
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn execute(
        &self,
        inputs: Vec<SendableRecordBatchStream>,
        schema: SchemaRef,
        task: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input_schema = inputs.first().map(|i| i.schema()).ok_or_else(super::node::missing_input)?;
        let positions = |names: &[String]| names.iter().map(|n| position(&input_schema, n)).collect::<Result<Vec<_>>>();
        let (partition, order) = (positions(&self.partition)?, positions(&self.order)?);
        let value = match self.order_values.as_slice() {
            [(name, ty, ..)] => Some((position(&input_schema, name)?, casts::data_type(&self.execution.context, *ty)?)),
            _ => None,
        };
        let directions: Vec<(bool, bool)> = self.order_values.iter().map(|(_, _, d, n)| (*d, *n)).collect();
        let compiled = self.specs.iter().map(|spec| Compiled::new(spec, &self.execution, &input_schema)).collect::<Result<Vec<_>>>()?;
        let execution = Arc::clone(&self.execution);
        let out = Arc::clone(&schema);
        Ok(collected("Window", Arc::clone(&self.execution.context), schema, inputs, task, move |mut inputs| {
            let batches = inputs.pop().unwrap_or_default();
            let batch = concat_batches(&input_schema, &batches).map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))?;
            let window = Input {
                execution: &execution,
                batch: &batch,
                partition: &partition,
                order: &order,
                directions: &directions,
                value: value.as_ref(),
            };
            let mut arrays: Vec<ArrayRef> = batch.columns().to_vec();
            let ranges = window.partitions()?;
            for spec in &compiled {
                arrays.push(window.column(spec, &ranges)?);
            }
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(out, arrays, &options)
                .map(|b| vec![b])
                .map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))
        }))
    }
}

struct Compiled {
    kind: Kinds,
    result: DataType,
    frame: Frame,
    args: Vec<Evaluator>,
    filter: Option<Evaluator>,
    start: Value,
    end: Value,
    bound_type: Option<DataType>,
}

impl Compiled {
    fn new(spec: &WindowSpec, execution: &Arc<Execution>, schema: &SchemaRef) -> Result<Self> {
        let at = |id| id_position(schema, id);
        let evaluator = |e: &Expr| Evaluator::new(e, execution, &at);
        let bound = |b: &FrameBound| -> Result<(Value, Option<DataType>)> {
            match b {
                FrameBound::Preceding(e) | FrameBound::Following(e) => {
                    let evaluator = Evaluator::new(e, execution, &|_| None)?;
                    let value = evaluator.value(&NoRow)?;
                    if value.is_null() {
                        return Err(SqlError::new(ErrorCode::NullValueNotAllowed, "frame starting offset must not be null"));
                    }
                    Ok((value, Some(evaluator.data_type().clone())))
                }
                _ => Ok((Value::Null, None)),
            }
        };
        let (start, a) = bound(&spec.window.frame.start)?;
        let (end, b) = bound(&spec.window.frame.end)?;
        if spec.window.frame.units != FrameUnits::Range {
            for (value, what) in [(&start, "starting"), (&end, "ending")] {
                if !value.is_null() && Datum::from(value).int() < 0 {
                    return Err(SqlError::new(ErrorCode::InvalidFrameOffset, format!("frame {what} offset must not be negative")));
                }
            }
        }
        Ok(Compiled {
            kind: match &spec.kind {
                Kinds::Function(name) => Kinds::Function(name),
                Kinds::Aggregate(call, new, arrangement) => Kinds::Aggregate(Arc::clone(call), *new, arrangement.clone()),
            },
            result: spec.result.clone(),
            frame: spec.window.frame.clone(),
            args: crate::lower::json_rows(&spec.window.call).args.iter().map(evaluator).collect::<Result<_>>()?,
            filter: spec.window.call.filter.as_ref().map(evaluator).transpose()?,
            start,
            end,
            bound_type: a.or(b),
        })
    }
}

struct Input<'a> {
    execution: &'a Arc<Execution>,
    batch: &'a RecordBatch,
    partition: &'a [usize],
    order: &'a [usize],
    directions: &'a [(bool, bool)],
    value: Option<&'a (usize, DataType)>,
}

/// A partition's rows and, for each, where its peers begin and end.
struct Partition {
    start: usize,
    end: usize,
    peer_start: Vec<usize>,
    peer_end: Vec<usize>,
}

/// A value that RANGE calculates with.
#[derive(Clone)]
enum Number {
    Null,
    Int(i128),
    Float(f64),
    Numeric(Numeric),
}

impl Number {
    fn compare(&self, other: &Number) -> std::cmp::Ordering {
        use std::cmp::Ordering;
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a.cmp(b),
            (Number::Float(a), Number::Float(b)) => functions::compare::compare_floats(*a, *b),
            (Number::Numeric(a), Number::Numeric(b)) => {
                let key = |n: &Numeric| n.encode();
                let (a, b) = (key(a), key(b));
                strandline_storage::value::numeric::sort_key(&a).cmp(strandline_storage::value::numeric::sort_key(&b))
            }
            _ => Ordering::Equal,
        }
    }
}

impl Input<'_> {
    fn partitions(&self) -> Result<Vec<Partition>> {
        let columns = column_refs(self.batch.columns())?;
        let rows = self.batch.num_rows();
        let same = |keys: &[usize], a: usize, b: usize| {
            keys.iter().all(|&k| compare_keys(&columns[k].get(a).into_value(), &columns[k].get(b).into_value(), false, false).is_eq())
        };
        let mut out = Vec::new();
        let mut start = 0;
        while start < rows {
            let mut end = start + 1;
            while end < rows && same(self.partition, start, end) {
                end += 1;
            }
            let (mut peer_start, mut peer_end) = (vec![0; end - start], vec![0; end - start]);
            let mut from = start;
            while from < end {
                let mut to = from + 1;
                while to < end && same(self.order, from, to) {
                    to += 1;
                }
                for row in from..to {
                    peer_start[row - start] = from;
                    peer_end[row - start] = to;
                }
                from = to;
            }
            out.push(Partition { start, end, peer_start, peer_end });
            start = end;
        }
        Ok(out)
    }

    fn column(&self, spec: &Compiled, partitions: &[Partition]) -> Result<ArrayRef> {
        let columns = column_refs(self.batch.columns())?;
        let mut out = ColumnBuilder::new(&arrow_type(spec.result.kind), self.batch.num_rows());
        let args = |row: usize| -> Result<Vec<Value>> { spec.args.iter().map(|a| a.value(&BatchRow { columns: &columns, row })).collect() };
        for partition in partitions {
            self.execution.context.check_cancel()?;
            match &spec.kind {
                Kinds::Function(name) => self.function(name, spec, partition, &args, &mut out)?,
                Kinds::Aggregate(call, new, arrangement) => {
                    let passes = |row: usize| -> Result<bool> {
                        match &spec.filter {
                            Some(f) => Ok(f.eval(&BatchRow { columns: &columns, row })?.bool()),
                            None => Ok(true),
                        }
                    };
                    let mut state = start(call, *new, arrangement);
                    let (mut from, mut to) = (partition.start, partition.start);
                    let mut value: Option<Value> = None;
                    for row in partition.start..partition.end {
                        let (first, last) = self.frame(spec, partition, row)?;
                        // A frame that only grows at its end is computed on; any other anew.
                        if first != from || last < to {
                            state = start(call, *new, arrangement);
                            (from, to) = (first, first);
                            value = None;
                        }
                        while to < last {
                            if passes(to)? {
                                let values = args(to)?;
                                let datums: Vec<Datum<'_>> =
                                    if values.is_empty() { vec![Datum::Bool(true)] } else { values.iter().map(Datum::from).collect() };
                                state.add(call, &datums)?;
                            }
                            to += 1;
                            value = None;
                        }
                        let current = match &value {
                            Some(v) => v.clone(),
                            None => state.finish(call)?,
                        };
                        out.push(&Datum::from(&current))?;
                        value = Some(current);
                    }
                }
            }
        }
        Ok(out.finish())
    }

    fn function(
        &self,
        name: &str,
        spec: &Compiled,
        partition: &Partition,
        args: &dyn Fn(usize) -> Result<Vec<Value>>,
        out: &mut ColumnBuilder,
    ) -> Result<()> {
        let n = partition.end - partition.start;
        let mut dense = 0;
        for row in partition.start..partition.end {
            let i = row - partition.start;
            if partition.peer_start[i] == row {
                dense += 1;
            }
            let rank = partition.peer_start[i] - partition.start + 1;
            let value = match name {
                "row_number" => Value::Int8(i as i64 + 1),
                "rank" => Value::Int8(rank as i64),
                "dense_rank" => Value::Int8(dense),
                "percent_rank" => Value::Float8(if n <= 1 { 0.0 } else { (rank - 1) as f64 / (n - 1) as f64 }),
                "cume_dist" => Value::Float8((partition.peer_end[i] - partition.start) as f64 / n as f64),
                "ntile" => {
                    // The argument counts as of the partition's first row.
                    let values = args(partition.start)?;
                    match values.first() {
                        None | Some(Value::Null) => Value::Null,
                        Some(v) => {
                            let buckets = Datum::from(v).int();
                            if buckets <= 0 {
                                return Err(SqlError::new(
                                    ErrorCode::InvalidArgumentForNtile,
                                    "argument of ntile must be greater than zero",
                                ));
                            }
                            let (size, rest) = (n as i64 / buckets, n as i64 % buckets);
                            let i = i as i64;
                            let big = rest * (size + 1);
                            let tile = if i < big { i / (size + 1) } else { rest + (i - big) / size.max(1) };
                            Value::Int4(tile as i32 + 1)
                        }
                    }
                }
                "lag" | "lead" => {
                    let values = args(row)?;
                    let offset = match values.get(1) {
                        None => 1,
                        Some(Value::Null) => {
                            out.push(&Datum::Null)?;
                            continue;
                        }
                        Some(v) => Datum::from(v).int(),
                    };
                    let offset = if name == "lag" { -offset } else { offset };
                    let at = i as i64 + offset;
                    if (0..n as i64).contains(&at) {
                        args(partition.start + at as usize)?.into_iter().next().unwrap_or_default()
                    } else {
                        values.get(2).cloned().unwrap_or_default()
                    }
                }
                _ => {
                    let (first, last) = self.frame(spec, partition, row)?;
                    let at = match name {
                        "first_value" => (first < last).then_some(first),
                        "last_value" => last.checked_sub(1).filter(|at| *at >= first),
                        _ => match args(row)?.get(1) {
                            None | Some(Value::Null) => None,
                            Some(v) => {
                                let nth = Datum::from(v).int();
                                if nth <= 0 {
                                    return Err(SqlError::new(
                                        ErrorCode::InvalidArgumentForNthValue,
                                        "argument of nth_value must be greater than zero",
                                    ));
                                }
                                first.checked_add(nth as usize - 1).filter(|at| *at < last)
                            }
                        },
                    };
                    match at {
                        Some(at) => args(at)?.into_iter().next().unwrap_or_default(),
                        None => Value::Null,
                    }
                }
            };
            out.push(&Datum::from(&value))?;
        }
        Ok(())
    }

    /// The frame of a row: from, and one past the last.
    fn frame(&self, spec: &Compiled, partition: &Partition, row: usize) -> Result<(usize, usize)> {
        let i = row - partition.start;
        let offset = |v: &Value| usize::try_from(Datum::from(v).int()).unwrap_or(usize::MAX);
        let group_at = |forward: bool, count: usize| -> (usize, usize) {
            // The peer group `count` groups away; an empty one outside the partition.
            let mut at = row;
            for _ in 0..count {
                let j = at - partition.start;
                if forward {
                    at = partition.peer_end[j];
                    if at >= partition.end {
                        return (partition.end, partition.end);
                    }
                } else {
                    if partition.peer_start[j] == partition.start {
                        return (partition.start, partition.start);
                    }
                    at = partition.peer_start[j] - 1;
                }
            }
            let j = at - partition.start;
            (partition.peer_start[j], partition.peer_end[j])
        };
        let units = spec.frame.units;
        let first = match (&spec.frame.start, units) {
            (FrameBound::UnboundedPreceding, _) => partition.start,
            (FrameBound::UnboundedFollowing, _) => partition.end,
            (FrameBound::CurrentRow, FrameUnits::Rows) => row,
            (FrameBound::CurrentRow, _) => partition.peer_start[i],
            (FrameBound::Preceding(_), FrameUnits::Rows) => row.saturating_sub(offset(&spec.start)).max(partition.start),
            (FrameBound::Following(_), FrameUnits::Rows) => row.saturating_add(offset(&spec.start)).min(partition.end),
            (FrameBound::Preceding(_), FrameUnits::Groups) => group_at(false, offset(&spec.start)).0,
            (FrameBound::Following(_), FrameUnits::Groups) => group_at(true, offset(&spec.start)).0,
            (FrameBound::Preceding(_), FrameUnits::Range) => self.range(spec, partition, row, &spec.start, false, false)?,
            (FrameBound::Following(_), FrameUnits::Range) => self.range(spec, partition, row, &spec.start, true, false)?,
        };
        let last = match (&spec.frame.end, units) {
            (FrameBound::UnboundedPreceding, _) => partition.start,
            (FrameBound::UnboundedFollowing, _) => partition.end,
            (FrameBound::CurrentRow, FrameUnits::Rows) => row + 1,
            (FrameBound::CurrentRow, _) => partition.peer_end[i],
            (FrameBound::Preceding(_), FrameUnits::Rows) => (row + 1).saturating_sub(offset(&spec.end)).max(partition.start),
            (FrameBound::Following(_), FrameUnits::Rows) => (row + 1).saturating_add(offset(&spec.end)).min(partition.end),
            (FrameBound::Preceding(_), FrameUnits::Groups) => {
                let (a, b) = group_at(false, offset(&spec.end));
                if a == b { partition.start } else { b }
            }
            (FrameBound::Following(_), FrameUnits::Groups) => group_at(true, offset(&spec.end)).1,
            (FrameBound::Preceding(_), FrameUnits::Range) => self.range(spec, partition, row, &spec.end, false, true)?,
            (FrameBound::Following(_), FrameUnits::Range) => self.range(spec, partition, row, &spec.end, true, true)?,
        };
        Ok((first, last.max(first)))
    }

    fn number(&self, data_type: &DataType, value: &Value) -> Result<Number> {
        Ok(match (value, data_type.kind) {
            (Value::Null, _) => Number::Null,
            (Value::Float4(_) | Value::Float8(_), _) => Number::Float(Datum::from(value).float()),
            (Value::Bytes(b), Kind::Numeric) => Number::Numeric(Numeric::decode(b)?),
            (Value::Int4(v), Kind::Date) => Number::Int(i128::from(*v) * 86_400_000_000),
            (Value::Int2(_) | Value::Int4(_) | Value::Int8(_), _) => Number::Int(i128::from(Datum::from(value).int())),
            _ => return Err(SqlError::unsupported(format!("RANGE with offset for column type {}", data_type.name))),
        })
    }

    /// Where the rows within `offset` of this row's value begin, or end.
    fn range(&self, spec: &Compiled, partition: &Partition, row: usize, offset: &Value, following: bool, end: bool) -> Result<usize> {
        let Some((column, data_type)) = self.value else {
            return Err(SqlError::new(
                ErrorCode::WindowingError,
                "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
            ));
        };
        let (descending, nulls_first) = self.directions.first().copied().unwrap_or_default();
        let columns = column_refs(self.batch.columns())?;
        let i = row - partition.start;
        let own = columns[*column].get(row).into_value();
        if own.is_null() {
            return Ok(if end { partition.peer_end[i] } else { partition.peer_start[i] });
        }
        let plus = following != descending;
        let bound = match (&own, spec.bound_type.as_ref().map(|t| t.kind)) {
            (Value::Int4(_) | Value::Int8(_), Some(Kind::Interval)) => {
                Number::Int(i128::from(datetime::shift(&self.execution.context, data_type.kind, &own, offset, plus)?))
            }
            _ => match (self.number(data_type, &own)?, self.number(spec.bound_type.as_ref().unwrap_or(data_type), offset)?) {
                (Number::Int(a), Number::Int(b)) => {
                    negative(b < 0)?;
                    Number::Int(if plus { a + b } else { a - b })
                }
                (Number::Float(a), Number::Float(b)) => {
                    negative(b < 0.0)?;
                    Number::Float(if plus { a + b } else { a - b })
                }
                (Number::Numeric(a), Number::Numeric(b)) => {
                    negative(b.signum() < 0)?;
                    Number::Numeric(if plus { a.add(&b)? } else { a.sub(&b)? })
                }
                _ => return Err(SqlError::unsupported("RANGE with offset of these types")),
            },
        };
        let mut numbers = Vec::with_capacity(partition.end - partition.start);
        for r in partition.start..partition.end {
            numbers.push(self.number(data_type, &columns[*column].get(r).into_value())?);
        }
        // Sorted: NULLs at one end, the rest by direction.
        let before = |n: &Number| -> bool {
            match n {
                Number::Null => nulls_first,
                n => {
                    let ordering = if descending { bound.compare(n) } else { n.compare(&bound) };
                    if end { ordering.is_le() } else { ordering.is_lt() }
                }
            }
        };
        Ok(partition.start + numbers.partition_point(before))
    }
}

fn negative(is: bool) -> Result<()> {
    if is {
        return Err(SqlError::new(ErrorCode::InvalidFrameOffset, "invalid preceding or following size in window function"));
    }
    Ok(())
}
