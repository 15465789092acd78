//! Scans of stored and computed tables: key conditions become ranges of the tree, columns are copied leaf by leaf into Arrow arrays.

use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, StringArray,
};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Result as PlanResult, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator as PlanOperator, TableProviderFilterPushDown};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use strandline_storage::root::prefix_range;
use strandline_storage::schema::{IndexColumn, IndexKey};
use strandline_storage::tree::{ColumnView, Cursor, LeafRows};
use strandline_storage::value::key::encode_key;
use strandline_storage::{DataType, KeyRange, Kind, Physical, TableAt, TableData, Value};

use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::Execution;
use crate::exec::evaluator::{Evaluator, NoRow};
use crate::exec::node::{Operator, OwnExec, stream_of_iter};
use crate::lower::function::PgFunction;
use crate::types::arrow_type;
use crate::virtual_table::{BatchIterator, ScanRequest, VirtualTable};

/// Rows per batch, if the leaves fall so.
const BATCH_ROWS: usize = 8192;
/// A batch of so much is full, however few rows it has.
const BATCH_BYTES: usize = 4 << 20;

/// So many rows of a table of the past are looked up one by one; for more, the whole table is made.
const PAST_KEYS_MAX: usize = 100;

/// What is scanned.
#[derive(Clone, Debug)]
pub enum Source {
    Stored(Arc<TableAt>),
    Virtual(Arc<dyn VirtualTable>, Arc<Vec<Evaluator>>),
}

/// How many rows there are, or were about that time.
fn row_count(table: &TableAt) -> Precision<usize> {
    match table.known_rows() {
        Some(rows) => Precision::Exact(rows.len() as usize),
        None => Precision::Inexact(table.definition().len() as usize),
    }
}

pub fn scan_source(table: Arc<TableAt>) -> Source {
    Source::Stored(table)
}

pub fn virtual_source(table: Arc<dyn VirtualTable>, args: Vec<Evaluator>) -> Source {
    Source::Virtual(table, Arc::new(args))
}

/// A table in a plan. Its Arrow columns are the bound columns, then the row key if asked for.
#[derive(Debug)]
pub struct TableScan {
    execution: Arc<Execution>,
    source: Source,
    /// Position in the table and type, for each of our columns; `None` is the row key.
    columns: Vec<(Option<usize>, DataType)>,
    schema: SchemaRef,
}

impl TableScan {
    /// `columns`: position in the table (`None`: the row key), the column's name in the plan, its type.
    pub fn new(execution: &Arc<Execution>, source: Source, columns: Vec<(Option<usize>, String, DataType)>) -> Self {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(at, name, ty)| Field::new(name, if at.is_some() { arrow_type(ty.kind) } else { ArrowType::Binary }, true))
            .collect();
        TableScan {
            execution: Arc::clone(execution),
            source,
            columns: columns.into_iter().map(|(at, _, ty)| (at, ty)).collect(),
            schema: Arc::new(Schema::new(fields)),
        }
    }

    /// A filter as a condition on one of our columns.
    fn condition(&self, filter: &Expr) -> Option<Condition> {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (column, operator, value) = match (self.column_of(left), self.column_of(right)) {
                    (Some(column), None) => (column, *op, operand(right)?),
                    (None, Some(column)) => (column, op.swap()?, operand(left)?),
                    _ => return None,
                };
                let test = match operator {
                    PlanOperator::Eq => Comparing::Equal,
                    PlanOperator::Lt => Comparing::Less { or_equal: false },
                    PlanOperator::LtEq => Comparing::Less { or_equal: true },
                    PlanOperator::Gt => Comparing::Greater { or_equal: false },
                    PlanOperator::GtEq => Comparing::Greater { or_equal: true },
                    _ => return None,
                };
                Some(Condition { column, test, values: vec![value] })
            }
            Expr::InList(list) if !list.negated => {
                let column = self.column_of(&list.expr)?;
                let values = list.list.iter().map(operand).collect::<Option<Vec<_>>>()?;
                Some(Condition { column, test: Comparing::Equal, values })
            }
            _ => None,
        }
    }

    /// The position among our columns that an expression compares: the column itself or its sort key.
    fn column_of(&self, expr: &Expr) -> Option<usize> {
        let column = match expr {
            Expr::Column(column) => column,
            Expr::ScalarFunction(call) => {
                let any: &dyn std::any::Any = call.func.inner().as_ref();
                let function = any.downcast_ref::<PgFunction>()?;
                match (function.raw_is_column(), call.args.as_slice()) {
                    (true, [Expr::Column(column)]) => column,
                    _ => return None,
                }
            }
            _ => return None,
        };
        self.schema.index_of(&column.name).ok()
    }
}

/// A value that is known when the scan starts.
#[derive(Clone, Debug)]
enum Operand {
    Value(Value),
    Evaluate(Arc<Evaluator>),
}

impl Operand {
    fn value(&self) -> Result<Value> {
        match self {
            Operand::Value(value) => Ok(value.clone()),
            Operand::Evaluate(evaluator) => evaluator.value(&NoRow),
        }
    }
}

fn operand(expr: &Expr) -> Option<Operand> {
    match expr {
        Expr::Literal(scalar, _) => scalar_value(scalar).map(Operand::Value),
        Expr::ScalarFunction(call) if call.args.is_empty() => {
            let any: &dyn std::any::Any = call.func.inner().as_ref();
            any.downcast_ref::<PgFunction>()?.stable_evaluator().map(Operand::Evaluate)
        }
        _ => None,
    }
}

fn scalar_value(scalar: &ScalarValue) -> Option<Value> {
    Some(match scalar {
        ScalarValue::Boolean(Some(v)) => Value::Bool(*v),
        ScalarValue::Int16(Some(v)) => Value::Int2(*v),
        ScalarValue::Int32(Some(v)) => Value::Int4(*v),
        ScalarValue::Int64(Some(v)) => Value::Int8(*v),
        ScalarValue::Float32(Some(v)) => Value::Float4(*v),
        ScalarValue::Float64(Some(v)) => Value::Float8(*v),
        ScalarValue::Utf8(Some(v)) => Value::bytes(v.as_bytes()),
        ScalarValue::Binary(Some(v)) => Value::bytes(v),
        ScalarValue::FixedSizeBinary(16, Some(v)) => Value::Uuid(v.as_slice().try_into().ok()?),
        _ => return None,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparing {
    Equal,
    Less { or_equal: bool },
    Greater { or_equal: bool },
}

/// `column test any of values`.
#[derive(Clone, Debug)]
struct Condition {
    column: usize,
    test: Comparing,
    values: Vec<Operand>,
}

#[async_trait]
impl TableProvider for TableScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.columns.len()).collect());
        let schema = Arc::new(self.schema.project(&wanted)?);
        let conditions: Vec<Condition> = filters.iter().filter_map(|f| self.condition(f)).collect();
        let rows = match &self.source {
            Source::Stored(table) => Some(row_count(table)),
            Source::Virtual(..) => None,
        };
        let run = ScanRun {
            execution: Arc::clone(&self.execution),
            source: self.source.clone(),
            wanted: wanted.iter().filter_map(|&i| self.columns.get(i).cloned()).collect(),
            all: self.columns.iter().map(|(at, _)| *at).collect(),
            conditions,
            limit,
        };
        let exec = OwnExec::new(Arc::new(run), Vec::new(), schema);
        Ok(match rows {
            Some(rows) => Arc::new(exec.with_rows(if filters.is_empty() { rows } else { rows.to_inexact() })),
            None => Arc::new(exec),
        })
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        // Ranges are a superset of the rows wanted: DataFusion filters again.
        Ok(filters
            .iter()
            .map(
                |f| {
                    if self.condition(f).is_some() {
                        TableProviderFilterPushDown::Inexact
                    } else {
                        TableProviderFilterPushDown::Unsupported
                    }
                },
            )
            .collect())
    }

    fn statistics(&self) -> Option<Statistics> {
        match &self.source {
            Source::Stored(table) => Some(Statistics { num_rows: row_count(table), ..Statistics::new_unknown(&self.schema) }),
            Source::Virtual(..) => None,
        }
    }
}

/// One scan in a physical plan.
#[derive(Debug)]
struct ScanRun {
    execution: Arc<Execution>,
    source: Source,
    wanted: Vec<(Option<usize>, DataType)>,
    all: Vec<Option<usize>>,
    conditions: Vec<Condition>,
    limit: Option<usize>,
}

impl Operator for ScanRun {
    fn name(&self) -> &'static str {
        "Scan"
    }

    fn describe(&self) -> String {
        match &self.source {
            Source::Stored(table) => {
                let schema = table.schema();
                let access = self.access(table.definition()).map_or_else(|_| String::new(), |a| a.describe(table.definition()));
                format!("{}{access}", schema.name)
            }
            Source::Virtual(table, _) => format!("{} columns, computed", table.columns().len()),
        }
    }

    fn execute(&self, _: Vec<SendableRecordBatchStream>, schema: SchemaRef, _: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match &self.source {
            Source::Stored(table) => {
                let cursors = self.access(table.definition())?.open(table)?;
                let batches = TableBatches {
                    execution: Arc::clone(&self.execution),
                    table: Arc::clone(table),
                    cursors,
                    wanted: self.wanted.clone(),
                    schema: Arc::clone(&schema),
                    remaining: self.limit.unwrap_or(usize::MAX),
                };
                Ok(stream_of_iter(schema, batches))
            }
            Source::Virtual(table, args) => {
                let mut equal = Vec::new();
                for condition in self.conditions.iter().filter(|c| c.test == Comparing::Equal && c.values.len() == 1) {
                    if let Some(Some(at)) = self.all.get(condition.column) {
                        equal.push((*at, condition.values[0].value()?));
                    }
                }
                let request = ScanRequest {
                    projection: self.wanted.iter().filter_map(|(at, _)| *at).collect(),
                    equal,
                    limit: self.limit,
                    args: args.iter().map(|a| a.value(&NoRow)).collect::<Result<_>>()?,
                };
                let inner = table.scan(&self.execution.context, &request)?;
                let batches = Renamed { inner, schema: Arc::clone(&schema), execution: Arc::clone(&self.execution) };
                Ok(stream_of_iter(schema, batches))
            }
        }
    }
}

/// Batches of a computed table under the plan's column names.
struct Renamed {
    inner: BatchIterator,
    schema: SchemaRef,
    execution: Arc<Execution>,
}

impl Iterator for Renamed {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.inner.next()?;
        Some(self.execution.context.check_cancel().and(batch).and_then(|batch| {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), batch.columns().to_vec(), &options)
                .map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))
        }))
    }
}

/// How the rows of a stored table are reached.
#[derive(Debug)]
enum Access {
    Nothing,
    Ranges(Vec<KeyRange>),
    /// Whole primary keys.
    Keys(Vec<Vec<u8>>),
    /// Keys found in an index beforehand.
    Index(u32, Vec<Vec<Value>>),
}

impl Access {
    fn describe(&self, table: &TableData) -> String {
        match self {
            Access::Nothing => ", no rows".into(),
            Access::Ranges(ranges) if ranges.iter().all(|r| matches!(r, (Bound::Unbounded, Bound::Unbounded))) => String::new(),
            Access::Ranges(ranges) => format!(", {} key range(s)", ranges.len()),
            Access::Keys(keys) => format!(", {} key(s)", keys.len()),
            Access::Index(oid, _) => {
                let name = table.schema().indexes.iter().find(|i| i.oid == *oid).map_or("?", |i| &i.name);
                format!(", index {name}")
            }
        }
    }

    fn open(self, table: &TableAt) -> Result<Cursors> {
        Ok(match self {
            Access::Nothing => Cursors::Keys(Vec::new().into_iter()),
            Access::Ranges(ranges) => Cursors::Ranges { table: Arc::clone(table.rows()?), current: None, rest: ranges.into_iter() },
            Access::Keys(mut keys) => {
                if keys.len() > PAST_KEYS_MAX {
                    table.rows()?;
                }
                keys.sort_unstable();
                keys.dedup();
                Cursors::Keys(keys.into_iter())
            }
            Access::Index(index, prefixes) => {
                let table = table.rows()?;
                let mut keys = Vec::new();
                for values in prefixes {
                    keys.extend(table.index_lookup(index, &values)?);
                }
                keys.sort_unstable();
                keys.dedup();
                Cursors::Keys(keys.into_iter())
            }
        })
    }
}

enum Cursors {
    Ranges { table: Arc<TableData>, current: Option<Cursor>, rest: std::vec::IntoIter<KeyRange> },
    Keys(std::vec::IntoIter<Vec<u8>>),
}

/// Says whether key bytes of this kind are found by equality with a value of it, and whether they are ordered like its `<`.
pub fn key_kind(kind: Kind) -> (bool, bool) {
    match kind {
        Kind::Bool
        | Kind::Int2
        | Kind::Int4
        | Kind::Int8
        | Kind::Oid
        | Kind::Money
        | Kind::Text
        | Kind::Bytea
        | Kind::Date
        | Kind::Time
        | Kind::Timestamp
        | Kind::Timestamptz
        | Kind::Uuid
        | Kind::Lsn
        | Kind::Numeric
        | Kind::Float4
        | Kind::Float8 => (true, true),
        Kind::Enum => (true, false),
        Kind::Bpchar | Kind::Timetz | Kind::Interval | Kind::Json | Kind::Jsonb | Kind::Array | Kind::Other => (false, false),
    }
}

impl ScanRun {
    /// The best way to the rows that the conditions leave.
    fn access(&self, table: &TableData) -> Result<Access> {
        let schema = table.schema();
        let mut conditions: Vec<(usize, Comparing, Vec<Value>)> = Vec::new();
        for condition in &self.conditions {
            let Some(Some(column)) = self.all.get(condition.column) else { continue };
            let Some(definition) = schema.columns.get(*column) else { continue };
            let (equality, order) = key_kind(definition.data_type.kind);
            if !(equality && condition.test == Comparing::Equal || order) {
                continue;
            }
            let mut values = condition.values.iter().map(Operand::value).collect::<Result<Vec<_>>>()?;
            // A comparison with NULL is true of no row.
            values.retain(|v| !v.is_null());
            if values.is_empty() {
                return Ok(Access::Nothing);
            }
            conditions.push((*column, condition.test, values));
        }
        if conditions.is_empty() {
            return Ok(Access::Ranges(vec![(Bound::Unbounded, Bound::Unbounded)]));
        }
        let primary = schema.primary_key.as_ref().map(|k| best_prefix(&k.columns, &conditions));
        let (equal, ranged) = primary.as_ref().map_or((0, false), |p| (p.equal_columns, p.lower.is_some() || p.upper.is_some()));
        if equal == 0 || schema.primary_key.as_ref().is_some_and(|k| equal < k.columns.len()) {
            let index = schema
                .indexes
                .iter()
                .filter(|i| i.is_stored())
                .map(|i| (i, best_prefix(&i.columns, &conditions)))
                .filter(|(_, p)| p.equal_columns > equal || p.equal_columns == equal && equal > 0 && !ranged)
                .max_by_key(|(i, p)| (p.equal_columns, i.unique));
            if let Some((index, prefix)) = index
                && prefix.equal_columns > equal
            {
                return Ok(Access::Index(index.oid, prefix.points));
            }
        }
        let (Some(prefix), Some(key)) = (primary, &schema.primary_key) else {
            return Ok(Access::Ranges(vec![(Bound::Unbounded, Bound::Unbounded)]));
        };
        if prefix.equal_columns == 0 && prefix.lower.is_none() && prefix.upper.is_none() {
            return Ok(Access::Ranges(vec![(Bound::Unbounded, Bound::Unbounded)]));
        }
        if prefix.equal_columns == key.columns.len() {
            let keys = prefix.points.iter().map(|point| table.key_prefix(None, point)).collect::<strandline_storage::Result<_>>()?;
            return Ok(Access::Keys(keys));
        }
        let next = key.columns.get(prefix.equal_columns);
        let mut ranges = Vec::with_capacity(prefix.points.len());
        for point in &prefix.points {
            let start = table.key_prefix(None, point)?;
            let encoded = |value: &Value| -> Option<Vec<u8>> {
                let IndexColumn { key: IndexKey::Column(column), descending, nulls_first } = next? else { return None };
                let mut bytes = start.clone();
                encode_key(&mut bytes, value, &schema.columns.get(*column)?.data_type, *descending, *nulls_first);
                Some(bytes)
            };
            let whole = if start.is_empty() { (Bound::Unbounded, Bound::Unbounded) } else { prefix_range(&start) };
            // Key columns are ascending in a primary key; a descending one would swap the ends.
            if next.is_some_and(|c| c.descending) {
                ranges.push(whole);
                continue;
            }
            let lower = match prefix.lower.as_ref().and_then(|(v, inclusive)| Some((encoded(v)?, *inclusive))) {
                Some((bytes, true)) => Bound::Included(bytes),
                Some((bytes, false)) => match prefix_range(&bytes).1 {
                    Bound::Excluded(end) | Bound::Included(end) => Bound::Included(end),
                    Bound::Unbounded => return Ok(Access::Nothing),
                },
                None => whole.0,
            };
            let upper = match prefix.upper.as_ref().and_then(|(v, inclusive)| Some((encoded(v)?, *inclusive))) {
                Some((bytes, true)) => prefix_range(&bytes).1,
                Some((bytes, false)) => Bound::Excluded(bytes),
                None => whole.1,
            };
            ranges.push((lower, upper));
        }
        Ok(Access::Ranges(ranges))
    }
}

/// What the conditions say about the leading columns of a key.
struct Prefix {
    equal_columns: usize,
    /// The combinations of values of the leading equal columns.
    points: Vec<Vec<Value>>,
    /// Bounds of the next column: value and whether it belongs.
    lower: Option<(Value, bool)>,
    upper: Option<(Value, bool)>,
}

/// So many combinations of IN lists are looked up one by one.
const POINTS_MAX: usize = 10_000;

fn best_prefix(columns: &[IndexColumn], conditions: &[(usize, Comparing, Vec<Value>)]) -> Prefix {
    let mut prefix = Prefix { equal_columns: 0, points: vec![Vec::new()], lower: None, upper: None };
    for column in columns {
        let IndexKey::Column(at) = column.key else { break };
        let equal =
            conditions.iter().filter(|(c, test, _)| *c == at && *test == Comparing::Equal).min_by_key(|(_, _, values)| values.len());
        let Some((_, _, values)) = equal else {
            for (c, test, values) in conditions {
                let (true, Some(value)) = (*c == at, values.first()) else { continue };
                match test {
                    Comparing::Greater { or_equal } => prefix.lower = Some((value.clone(), *or_equal)),
                    Comparing::Less { or_equal } => prefix.upper = Some((value.clone(), *or_equal)),
                    Comparing::Equal => {}
                }
            }
            break;
        };
        if prefix.points.len() * values.len() > POINTS_MAX {
            break;
        }
        prefix.points = prefix
            .points
            .iter()
            .flat_map(|point| {
                values.iter().map(|value| {
                    let mut point = point.clone();
                    point.push(value.clone());
                    point
                })
            })
            .collect();
        prefix.equal_columns += 1;
    }
    // The same value twice in an IN list is one point.
    let mut seen: Vec<Vec<Value>> = Vec::new();
    if prefix.points.len() <= 64 {
        prefix.points.retain(|p| {
            let new = !seen.contains(p);
            if new {
                seen.push(p.clone());
            }
            new
        });
    } else {
        let mut seen = std::collections::HashSet::new();
        prefix.points.retain(|p| seen.insert(format!("{p:?}")));
    }
    prefix
}

struct TableBatches {
    execution: Arc<Execution>,
    table: Arc<TableAt>,
    cursors: Cursors,
    wanted: Vec<(Option<usize>, DataType)>,
    schema: SchemaRef,
    remaining: usize,
}

impl Iterator for TableBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        self.batch().transpose()
    }
}

impl TableBatches {
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        self.execution.context.check_cancel()?;
        let limit = BATCH_ROWS.min(self.remaining);
        let mut columns: Vec<Gather> = self.wanted.iter().map(|(at, ty)| Gather::new(at.map(|_| ty))).collect();
        let mut rows = 0;
        // Documents fill a batch before there are many of them.
        while rows < limit && columns.iter().map(Gather::size).sum::<usize>() < BATCH_BYTES {
            match &mut self.cursors {
                Cursors::Keys(keys) => {
                    let Some(key) = keys.next() else { break };
                    let Some(row) = self.table.get(&key)? else { continue };
                    for ((at, _), column) in self.wanted.iter().zip(&mut columns) {
                        match at {
                            Some(at) => column.push_value(row.get(*at).unwrap_or(&Value::Null))?,
                            None => column.push_bytes(&key),
                        }
                    }
                    rows += 1;
                }
                Cursors::Ranges { table, current, rest } => {
                    let Some(cursor) = current else {
                        let Some(range) = rest.next() else { break };
                        *current = Some(table.scan(range, false));
                        continue;
                    };
                    let Some(leaf) = cursor.next_leaf()? else {
                        *current = None;
                        continue;
                    };
                    for ((at, _), column) in self.wanted.iter().zip(&mut columns) {
                        match at {
                            Some(at) => column.append(&leaf, *at)?,
                            None => (leaf.start..leaf.end).for_each(|row| column.push_bytes(leaf.leaf.key(row))),
                        }
                    }
                    rows += leaf.end - leaf.start;
                }
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        let arrays = columns.into_iter().map(Gather::finish).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let mut batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))?;
        if rows > self.remaining {
            batch = batch.slice(0, self.remaining);
        }
        self.remaining -= batch.num_rows();
        Ok(Some(batch))
    }
}

/// Collects one column over several leaves.
enum Gather {
    /// The row key.
    Key(BinaryBuilder),
    Column {
        physical: Physical,
        text: bool,
        nulls: BooleanBufferBuilder,
        has_null: bool,
        data: Vec<u8>,
        offsets: Vec<i32>,
        bits: BooleanBufferBuilder,
    },
}

fn damaged() -> SqlError {
    SqlError::new(ErrorCode::DataCorrupted, "a stored column does not have its type's shape")
}

impl Gather {
    fn new(data_type: Option<&DataType>) -> Self {
        match data_type {
            None => Gather::Key(BinaryBuilder::new()),
            Some(ty) => Gather::Column {
                physical: ty.kind.physical(),
                text: arrow_type(ty.kind) == ArrowType::Utf8,
                nulls: BooleanBufferBuilder::new(BATCH_ROWS),
                has_null: false,
                data: Vec::new(),
                offsets: vec![0],
                bits: BooleanBufferBuilder::new(0),
            },
        }
    }

    /// Bytes of text gathered so far.
    fn size(&self) -> usize {
        match self {
            Gather::Key(builder) => builder.values_slice().len(),
            Gather::Column { data, .. } => data.len(),
        }
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        if let Gather::Key(builder) = self {
            builder.append_value(bytes);
        }
    }

    fn push_value(&mut self, value: &Value) -> Result<()> {
        let Gather::Column { physical, nulls, has_null, data, offsets, bits, .. } = self else { return Err(damaged()) };
        nulls.append(!value.is_null());
        *has_null |= value.is_null();
        match (*physical, value) {
            (Physical::Bool, v) => bits.append(matches!(v, Value::Bool(true))),
            (Physical::Bytes, v) => {
                if let Value::Bytes(b) = v {
                    data.extend_from_slice(b);
                }
                offsets.push(i32::try_from(data.len()).map_err(|_| too_large())?);
            }
            (Physical::Int2, Value::Int2(v)) => data.extend(v.to_le_bytes()),
            (Physical::Int4, Value::Int4(v)) => data.extend(v.to_le_bytes()),
            (Physical::Int8, Value::Int8(v)) => data.extend(v.to_le_bytes()),
            (Physical::Float4, Value::Float4(v)) => data.extend(v.to_le_bytes()),
            (Physical::Float8, Value::Float8(v)) => data.extend(v.to_le_bytes()),
            (Physical::Uuid, Value::Uuid(v)) => data.extend(v),
            (physical, Value::Null) => data.extend(std::iter::repeat_n(0, width(physical))),
            _ => return Err(damaged()),
        }
        Ok(())
    }

    fn append(&mut self, rows: &LeafRows, column: usize) -> Result<()> {
        let (start, end) = (rows.start, rows.end);
        let view = rows.leaf.column(column);
        let Gather::Column { physical, nulls, has_null, data, offsets, bits, .. } = self else { return Err(damaged()) };
        let validity = match &view {
            ColumnView::Fixed { nulls, .. } | ColumnView::Variable { nulls, .. } => nulls.0,
        };
        match validity {
            None => nulls.append_n(end - start, true),
            Some(bitmap) => {
                for row in start..end {
                    let valid = bitmap.get(row / 8).is_some_and(|b| b >> (row % 8) & 1 == 1);
                    nulls.append(valid);
                    *has_null |= !valid;
                }
            }
        }
        match view {
            ColumnView::Fixed { width: w, data: from, .. } => {
                let from = from.get(start * w..end * w).ok_or_else(damaged)?;
                if *physical == Physical::Bool {
                    from.iter().for_each(|b| bits.append(*b != 0));
                } else if width(*physical) == w {
                    data.extend_from_slice(from);
                } else {
                    return Err(damaged());
                }
            }
            ColumnView::Variable { offsets: ends, data: from, .. } => {
                if *physical != Physical::Bytes {
                    return Err(damaged());
                }
                let at = |row: usize| -> Result<usize> {
                    let bytes = ends.get(row * 4..row * 4 + 4).ok_or_else(damaged)?;
                    Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| damaged())?) as usize)
                };
                let first = at(start)?;
                let base = data.len();
                data.extend_from_slice(from.get(first..at(end)?).ok_or_else(damaged)?);
                i32::try_from(data.len()).map_err(|_| too_large())?;
                for row in start + 1..=end {
                    offsets.push((base + at(row)?.checked_sub(first).ok_or_else(damaged)?) as i32);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<ArrayRef> {
        let (physical, text, mut nulls, has_null, data, offsets, mut bits) = match self {
            Gather::Key(mut builder) => return Ok(Arc::new(builder.finish())),
            Gather::Column { physical, text, nulls, has_null, data, offsets, bits } => {
                (physical, text, nulls, has_null, data, offsets, bits)
            }
        };
        let nulls = has_null.then(|| NullBuffer::new(nulls.finish()));
        let buffer = Buffer::from_vec(data);
        let bad = |e: datafusion::arrow::error::ArrowError| SqlError::new(ErrorCode::DataCorrupted, e.to_string());
        macro_rules! primitive {
            ($array:ident) => {{
                // Vec<u8> may be misaligned for wider values: then the values are copied.
                let buffer = if buffer.as_ptr().align_offset(8) == 0 { buffer } else { Buffer::from_slice_ref(buffer.as_slice()) };
                Arc::new($array::try_new(ScalarBuffer::from(buffer), nulls).map_err(bad)?) as ArrayRef
            }};
        }
        Ok(match physical {
            Physical::Bool => {
                let bits: BooleanBuffer = bits.finish();
                Arc::new(BooleanArray::new(bits, nulls))
            }
            Physical::Int2 => primitive!(Int16Array),
            Physical::Int4 => primitive!(Int32Array),
            Physical::Int8 => primitive!(Int64Array),
            Physical::Float4 => primitive!(Float32Array),
            Physical::Float8 => primitive!(Float64Array),
            Physical::Uuid => Arc::new(FixedSizeBinaryArray::try_new(16, buffer, nulls).map_err(bad)?),
            Physical::Bytes => {
                // Checked: offsets were made ascending by us from ends that may be damaged.
                if offsets.windows(2).any(|w| w[0] > w[1]) {
                    return Err(damaged());
                }
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                if text {
                    Arc::new(StringArray::try_new(offsets, buffer, nulls).map_err(bad)?)
                } else {
                    Arc::new(BinaryArray::try_new(offsets, buffer, nulls).map_err(bad)?)
                }
            }
        })
    }
}

fn too_large() -> SqlError {
    SqlError::new(ErrorCode::ProgramLimitExceeded, "a batch of rows exceeds 2 GB")
}

fn width(physical: Physical) -> usize {
    match physical {
        Physical::Bool => 1,
        Physical::Int2 => 2,
        Physical::Int4 | Physical::Float4 => 4,
        Physical::Int8 | Physical::Float8 => 8,
        Physical::Uuid => 16,
        Physical::Bytes => 0,
    }
}
