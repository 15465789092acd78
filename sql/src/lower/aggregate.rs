//! Aggregation: groups by sort keys, our aggregates as DataFusion UDAFs, grouping sets as a union.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{Array as _, ArrayRef, BooleanArray};
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result as PlanResult, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr as PlanExpr, GroupsAccumulator, LogicalPlan, Signature, TypeSignature,
    Volatility, lit,
};
use strandline_storage::Value;

use super::{Lower, builder, name_of, named, null_of, planned, walk};
use crate::bound::{AggregateCall, Column, ColumnId, Expr, Rel};
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::{ColumnBuilder, Datum, column_refs};
use crate::exec::internal;
use crate::functions::aggregates::{self, Arrangement, New, State};
use crate::functions::{self, Call, compare};
use crate::types::{SqlType, arrow_type, oid};

/// The hidden column that says which group columns a grouping set leaves out: bit i for group column i.
pub const GROUPING: &str = "grouping";
/// Its id inside compiled expressions.
pub const GROUPING_COLUMN: ColumnId = ColumnId::MAX - 1;

/// GROUPING(...) as arithmetic on the hidden column is done by a CASE per bit: the list is short.
pub fn replace_grouping(expr: &Expr, column: ColumnId) -> Expr {
    let mut expr = expr.clone();
    replace(&mut expr, Some(column));
    expr
}

/// GROUPING(...) as the constant 0.
pub fn no_grouping(expr: &Expr) -> Expr {
    let mut expr = expr.clone();
    replace(&mut expr, None);
    expr
}

fn replace(expr: &mut Expr, column: Option<ColumnId>) {
    if let Expr::Grouping(positions) = expr {
        *expr = match column {
            Some(column) => grouping_value(positions, column),
            None => Expr::Const { value: Value::Int4(0), ty: SqlType::new(oid::INT4) },
        };
        return;
    }
    match expr {
        Expr::Function(call) => call.args.iter_mut().for_each(|e| replace(e, column)),
        Expr::Cast { input, .. } | Expr::Not(input) | Expr::IsNull(input) | Expr::IsNotNull(input) | Expr::IsBool { input, .. } => {
            replace(input, column)
        }
        Expr::And(list) | Expr::Or(list) => list.iter_mut().for_each(|e| replace(e, column)),
        Expr::Coalesce { args, .. } | Expr::MinMax { args, .. } => args.iter_mut().for_each(|e| replace(e, column)),
        Expr::Case { whens, default, .. } => {
            for (when, then) in whens {
                replace(when, column);
                replace(then, column);
            }
            if let Some(e) = default {
                replace(e, column);
            }
        }
        Expr::InList { input, list, .. } => {
            replace(input, column);
            list.iter_mut().for_each(|e| replace(e, column));
        }
        Expr::IsDistinctFrom { left, right, .. } | Expr::NullIf { left, right, .. } => {
            replace(left, column);
            replace(right, column);
        }
        _ => {}
    }
}

/// The hidden column holds, as text, one '0' or '1' per group column; GROUPING reads the positions it names.
fn grouping_value(positions: &[usize], column: ColumnId) -> Expr {
    let int4 = SqlType::new(oid::INT4);
    let text = SqlType::new(oid::TEXT);
    // bit n of the result is the last position: value = sum of 2^k where the character is '1'.
    let combinations = 1u32 << positions.len().min(16);
    let whens = (0..combinations)
        .map(|value| {
            let tests = positions
                .iter()
                .enumerate()
                .map(|(i, position)| {
                    let bit = value >> (positions.len() - 1 - i) & 1;
                    Expr::Function(crate::bound::FunctionCall {
                        proc: TEXT_EQ,
                        args: vec![
                            Expr::Function(crate::bound::FunctionCall {
                                proc: SUBSTR,
                                args: vec![
                                    Expr::Column { id: column, ty: text },
                                    Expr::Const { value: Value::Int4(*position as i32 + 1), ty: int4 },
                                    Expr::Const { value: Value::Int4(1), ty: int4 },
                                ],
                                ty: text,
                                variadic: false,
                            }),
                            Expr::Const { value: functions::text_value(bit.to_string()), ty: text },
                        ],
                        ty: SqlType::new(oid::BOOL),
                        variadic: false,
                    })
                })
                .collect();
            (Expr::And(tests), Expr::Const { value: Value::Int4(value as i32), ty: int4 })
        })
        .collect();
    Expr::Case { whens, default: None, ty: int4 }
}

/// pg_proc's `texteq` and `substr(text, int4, int4)`.
const TEXT_EQ: u32 = 67;
const SUBSTR: u32 = 877;

impl Lower {
    pub(super) fn has_grouping(&self, expr: &Expr) -> bool {
        let mut found = false;
        walk::expr(expr, &mut |item| found |= matches!(item, walk::Item::Expr(Expr::Grouping(_))));
        found
    }

    pub(super) fn aggregate(
        &mut self,
        input: &Rel,
        group: &[(Column, Expr)],
        sets: Option<&[Vec<usize>]>,
        calls: &[(Column, AggregateCall)],
    ) -> Result<LogicalPlan> {
        // count(*) of a whole table is known.
        if let (Rel::Scan { table, .. }, [], None) = (input, group, sets)
            && calls.iter().all(|(_, c)| c.star && c.filter.is_none() && functions::proc(c.proc).is_ok_and(|p| p.name == "count"))
        {
            let count = table.rows()?.len() as i64;
            let list: Vec<PlanExpr> = calls.iter().map(|(c, _)| lit(count).alias(name_of(c.id))).collect();
            let unit = planned(datafusion::logical_expr::LogicalPlanBuilder::empty(true).build())?;
            return planned(planned(builder(unit).project(list))?.build());
        }
        let mut plan = self.rel(input)?;
        let mut extra = Vec::new();
        // For each group column: its key's name, and the first-value aggregate that carries it when the key differs.
        let mut keys = Vec::new();
        for (column, expr) in group {
            let value = self.expr(expr, &plan)?;
            extra.push(value.alias(name_of(column.id)));
            let data_type = self.data_type(column.ty)?;
            if compare::is_plain(data_type.kind, data_type.oid) {
                keys.push((name_of(column.id), None));
            } else {
                let key = self.fresh('k');
                extra.push(self.key_expr(expr, &plan)?.alias(&key));
                keys.push((key, Some(data_type)));
            }
        }
        let arguments = calls.iter().map(|(_, c)| self.aggregate_expr(c, &plan)).collect::<Result<Vec<_>>>()?;
        plan = self.extend(plan, extra)?;
        match sets {
            None => self.one_set(plan, group, &keys, &(0..group.len()).collect::<Vec<_>>(), calls, &arguments, None),
            Some(sets) => {
                let mut union: Option<LogicalPlan> = None;
                for set in sets {
                    let mask: String = (0..group.len()).map(|i| if set.contains(&i) { '0' } else { '1' }).collect();
                    let one = self.one_set(plan.clone(), group, &keys, set, calls, &arguments, Some(mask))?;
                    union = Some(match union {
                        None => one,
                        Some(left) => self.union(left, one)?,
                    });
                }
                union.ok_or_else(|| SqlError::new(ErrorCode::InternalError, "no grouping sets"))
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn one_set(
        &mut self,
        plan: LogicalPlan,
        group: &[(Column, Expr)],
        keys: &[(String, Option<strandline_storage::DataType>)],
        set: &[usize],
        calls: &[(Column, AggregateCall)],
        arguments: &[PlanExpr],
        mask: Option<String>,
    ) -> Result<LogicalPlan> {
        let mut by = Vec::new();
        let mut list = Vec::new();
        let mut output = Vec::new();
        for (i, ((column, _), (key, carried))) in group.iter().zip(keys).enumerate() {
            let name = name_of(column.id);
            if !set.contains(&i) {
                output.push(null_of(&arrow_type(self.data_type(column.ty)?.kind))?.alias(name));
                continue;
            }
            by.push(named(key));
            if let Some(data_type) = carried {
                let first = self.fresh('f');
                let call = Call::new(
                    Arc::clone(&self.execution.context),
                    functions::proc(ANY_VALUE_LIKE)?,
                    vec![data_type.clone()],
                    data_type.clone(),
                    false,
                );
                let udaf = PgAggregate::udaf(call, |_| Box::new(aggregates::First(None)), Arrangement::default());
                list.push(aggregate_of(udaf, vec![named(&name)], None).alias(&first));
                output.push(named(first).alias(name));
            } else {
                output.push(named(name));
            }
        }
        for ((column, _), expr) in calls.iter().zip(arguments) {
            list.push(expr.clone().alias(name_of(column.id)));
            output.push(named(name_of(column.id)));
        }
        if let Some(mask) = mask {
            output.push(lit(mask).alias(GROUPING));
        }
        let plan = if by.is_empty() && list.is_empty() {
            // GROUP BY () alone: one row.
            planned(datafusion::logical_expr::LogicalPlanBuilder::empty(true).build())?
        } else {
            planned(planned(builder(plan).aggregate(by, list))?.build())?
        };
        planned(planned(builder(plan).project(output))?.build())
    }

    fn aggregate_expr(&mut self, call: &AggregateCall, input: &LogicalPlan) -> Result<PlanExpr> {
        let (compiled, new, arrangement) = compile(call, &self.execution)?;
        let call = &json_rows(call);
        let mut args = call.args.iter().map(|e| self.expr(e, input)).collect::<Result<Vec<_>>>()?;
        if is_ordered_set(call)? {
            for key in &call.order {
                args.push(self.expr(&key.expr, input)?);
            }
        }
        for key in &call.order {
            args.push(self.key_expr(&key.expr, input)?);
        }
        if args.is_empty() {
            args.push(lit(true));
        }
        let filter = call.filter.as_ref().map(|e| self.expr(e, input)).transpose()?;
        Ok(aggregate_of(PgAggregate::udaf(compiled, new, arrangement), args, filter))
    }
}

/// Any function serves for a call that only carries a value.
const ANY_VALUE_LIKE: u32 = 2803;

fn aggregate_of(udaf: Arc<AggregateUDF>, args: Vec<PlanExpr>, filter: Option<PlanExpr>) -> PlanExpr {
    PlanExpr::AggregateFunction(AggregateFunction::new_udf(udaf, args, false, filter.map(Box::new), Vec::new(), None))
}

/// WITHIN GROUP: the sort expressions are arguments, too.
pub fn is_ordered_set(call: &AggregateCall) -> Result<bool> {
    Ok(crate::catalog_data::catalog().aggregate(functions::proc(call.proc)?.oid).is_some_and(|a| a.kind != b'n'))
}

/// The call with rows turned into JSON where it makes JSON.
pub fn json_rows(call: &AggregateCall) -> std::borrow::Cow<'_, AggregateCall> {
    if !walk::makes_json(call.proc) || !call.args.iter().any(|a| matches!(a, Expr::Row { .. })) {
        return std::borrow::Cow::Borrowed(call);
    }
    let mut call = call.clone();
    for arg in &mut call.args {
        if let Some(json) = walk::json_row(arg) {
            *arg = json;
        }
    }
    std::borrow::Cow::Owned(call)
}

/// An aggregate call with its implementation.
///
/// # Errors
/// `FeatureNotSupported` when nothing implements it.
pub fn compile(call: &AggregateCall, execution: &crate::exec::Execution) -> Result<(Call, New, Arrangement)> {
    let proc = functions::proc(call.proc)?;
    let call = &json_rows(call);
    let new = aggregates::find(proc).ok_or_else(|| functions::unsupported(proc))?;
    let mut types = call.args.iter().map(Expr::ty).collect::<Vec<_>>();
    if is_ordered_set(call)? {
        types.extend(call.order.iter().map(|k| k.expr.ty()));
    }
    let types = types.into_iter().map(|ty| crate::functions::casts::data_type(&execution.context, ty)).collect::<Result<Vec<_>>>()?;
    // json_agg lays rows out in lines, so it must know that the JSON was a row.
    let types: Vec<_> = types
        .into_iter()
        .zip(call.args.iter().map(Some).chain(std::iter::repeat(None)))
        .map(|(mut t, arg)| {
            if matches!(arg, Some(Expr::Function(f)) if f.proc == walk::ROW_TO_JSON) {
                t.oid = oid::RECORD;
            }
            t
        })
        .collect();
    let types = if types.is_empty() { vec![aggregates::text_type()] } else { types };
    let result = crate::functions::casts::data_type(&execution.context, call.ty)?;
    let arrangement = Arrangement { distinct: call.distinct, order: call.order.iter().map(|k| (k.descending, k.nulls_first)).collect() };
    // For these the order of the rows does not matter, so neither does ORDER BY; min and max ignore duplicates, too.
    let arrangement = match proc.name {
        "min" | "max" | "bool_and" | "bool_or" | "every" | "bit_and" | "bit_or" => Arrangement::default(),
        _ => arrangement,
    };
    Ok((Call::new(Arc::clone(&execution.context), proc, types, result, false), new, arrangement))
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// One of our aggregates as DataFusion's.
struct PgAggregate {
    id: u64,
    name: String,
    call: Arc<Call>,
    new: New,
    arrangement: Arrangement,
    signature: Signature,
}

impl fmt::Debug for PgAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
impl PartialEq for PgAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl Eq for PgAggregate {}
impl Hash for PgAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl PgAggregate {
    fn udaf(call: Call, new: New, arrangement: Arrangement) -> Arc<AggregateUDF> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(AggregateUDF::new_from_impl(PgAggregate {
            id,
            name: format!("{}#{id}", call.proc.name),
            call: Arc::new(call),
            new,
            arrangement,
            signature: Signature::one_of(vec![TypeSignature::VariadicAny, TypeSignature::Nullary], Volatility::Immutable),
        }))
    }

    fn group(&self) -> Groups {
        Groups {
            call: Arc::clone(&self.call),
            new: self.new,
            arrangement: self.arrangement.clone(),
            states: Vec::new(),
            bytes: 0,
            added: 0,
            added_bytes: 0,
        }
    }
}

impl AggregateUDFImpl for PgAggregate {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> PlanResult<ArrowType> {
        Ok(arrow_type(self.call.result.kind))
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> PlanResult<Box<dyn Accumulator>> {
        Ok(Box::new(One(self.group())))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> PlanResult<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[state]", args.name), ArrowType::Binary, true))])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> PlanResult<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.group()))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The states of all groups.
struct Groups {
    call: Arc<Call>,
    new: New,
    arrangement: Arrangement,
    states: Vec<Box<dyn State>>,
    bytes: usize,
    /// Rows and bytes of text since the states were last asked for their sizes.
    added: usize,
    added_bytes: usize,
}

/// After so much text the states' sizes are asked for again.
const MEASURE_BYTES: usize = 16 << 20;
/// What a state takes besides its collected bytes.
const STATE_BYTES: usize = 96;

impl Groups {
    fn grow(&mut self, groups: usize) {
        while self.states.len() < groups {
            self.states.push(aggregates::start(&self.call, self.new, &self.arrangement));
        }
    }

    fn add(&mut self, values: &[ArrayRef], rows: usize, group: impl Fn(usize) -> usize, filter: Option<&BooleanArray>) -> Result<()> {
        self.call.context.check_cancel()?;
        let columns = column_refs(values)?;
        let mut args: Vec<Datum<'_>> = Vec::with_capacity(columns.len());
        for row in 0..rows {
            if filter.is_some_and(|f| f.is_null(row) || !f.value(row)) {
                continue;
            }
            args.clear();
            args.extend(columns.iter().map(|c| c.get(row)));
            self.added_bytes += args.iter().map(|a| a.bytes().len()).sum::<usize>();
            if let Some(state) = self.states.get_mut(group(row)) {
                state.add(&self.call, &args)?;
            }
        }
        self.added += rows;
        // Asking every state for its size is dear: now and then is enough.
        if self.added > 65_536 || self.added_bytes > MEASURE_BYTES || self.bytes == 0 {
            self.added = 0;
            self.added_bytes = 0;
            self.bytes = self.states.iter().map(|s| s.size()).sum::<usize>().max(1);
        }
        Ok(())
    }

    fn emit(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let states = emit_to.take_needed(&mut self.states);
        let mut out = ColumnBuilder::new(&arrow_type(self.call.result.kind), states.len());
        for state in &states {
            out.push(&Datum::from(state.finish(&self.call)?))?;
        }
        Ok(out.finish())
    }
}

/// States are not written out: groups that outgrow the memory limit fail with 53200.
fn no_spill() -> DataFusionError {
    internal(SqlError::new(ErrorCode::OutOfMemory, "out of memory").detail("The groups of an aggregation exceed the memory limit."))
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> PlanResult<()> {
        self.grow(total);
        self.add(values, group_indices.len(), |row| group_indices[row], filter).map_err(internal)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> PlanResult<ArrayRef> {
        self.emit(emit_to).map_err(internal)
    }

    fn state(&mut self, _: EmitTo) -> PlanResult<Vec<ArrayRef>> {
        Err(no_spill())
    }

    fn merge_batch(&mut self, _: &[ArrayRef], _: &[usize], _: usize) -> PlanResult<()> {
        Err(no_spill())
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> PlanResult<Vec<ArrayRef>> {
        Err(no_spill())
    }

    fn size(&self) -> usize {
        self.states.len() * STATE_BYTES + self.bytes
    }
}

/// An aggregation without groups.
struct One(Groups);

impl fmt::Debug for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("One")
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> PlanResult<()> {
        self.0.grow(1);
        let rows = values.first().map_or(0, |v| v.len());
        self.0.add(values, rows, |_| 0, None).map_err(internal)
    }

    fn evaluate(&mut self) -> PlanResult<ScalarValue> {
        self.0.grow(1);
        let array = self.0.emit(EmitTo::All).map_err(internal)?;
        ScalarValue::try_from_array(&array, 0)
    }

    fn size(&self) -> usize {
        STATE_BYTES + self.0.bytes
    }

    fn state(&mut self) -> PlanResult<Vec<ScalarValue>> {
        Err(no_spill())
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> PlanResult<()> {
        Err(no_spill())
    }
}
