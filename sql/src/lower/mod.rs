//! From the bound tree to DataFusion's plans.
//!
//! Every bound column is a plan column named `c{id}`; what a node needs besides gets a name with another first letter.
//! Expressions whose meaning DataFusion shares (comparisons of plain values, AND, OR, NOT, IS NULL) become its own, so
//! that filters are pushed down and joins find their keys; every other expression becomes one [`function::PgFunction`].

mod aggregate;
mod expressions;
pub mod function;
mod joins;
pub mod walk;

pub(crate) use aggregate::{compile as compile_aggregate, json_rows};

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema};
use datafusion::common::{Column as PlanColumn, DFSchema, DFSchemaRef};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{EmptyRelation, Expr as PlanExpr, LogicalPlan, LogicalPlanBuilder, SortExpr, lit};
use datafusion::physical_plan::ExecutionPlan;

use crate::bound::{Column, ColumnId, Expr, Query, Rel, SetOpKind, SortKey};
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::{
    self, CteScan, CteState, DistinctRows, Evaluator, Execution, FunctionScan, KeepOrder, LimitRows, OwnNode, ProjectSet, Recursive,
    SetCall, SetOperation, TableScan, ValuesRows, WindowRows, WindowSpec,
};
use crate::functions::casts;
use crate::types::arrow_type;

/// The physical plan of a query; its output columns are the query's by position.
///
/// # Errors
/// What cannot be lowered or planned.
pub fn plan(query: &Query, execution: &Arc<Execution>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut lower = Lower { execution: Arc::clone(execution), next: 0 };
    let logical = lower.query(query)?;
    let state = exec::session_state();
    let optimized = state.optimize(&logical).map_err(exec::error_of)?;
    let physical = exec::block_on(state.query_planner().create_physical_plan(&optimized, state)).map_err(exec::error_of)?;
    exec::add_guards(physical, &execution.context).map_err(exec::error_of)
}

/// The state of one lowering.
struct Lower {
    execution: Arc<Execution>,
    /// Numbers for names that are no bound column's.
    next: u64,
}

/// The plan's name of a bound column.
fn name_of(id: ColumnId) -> String {
    format!("c{id}")
}

/// A reference by name, without a qualifier.
fn named(name: impl Into<String>) -> PlanExpr {
    PlanExpr::Column(PlanColumn::new_unqualified(name))
}

fn planned<T>(result: datafusion::common::Result<T>) -> Result<T> {
    result.map_err(exec::error_of)
}

fn builder(plan: LogicalPlan) -> LogicalPlanBuilder {
    LogicalPlanBuilder::new(plan)
}

impl Lower {
    fn fresh(&mut self, letter: char) -> String {
        self.next += 1;
        format!("{letter}{}", self.next)
    }

    fn data_type(&self, ty: crate::types::SqlType) -> Result<strandline_storage::DataType> {
        casts::data_type(&self.execution.context, ty)
    }

    fn field(&self, column: &Column) -> Result<Field> {
        Ok(Field::new(name_of(column.id), arrow_type(self.data_type(column.ty)?.kind), true))
    }

    fn schema(fields: Vec<Field>) -> Result<DFSchemaRef> {
        Ok(Arc::new(planned(DFSchema::try_from(Schema::new(fields)))?))
    }

    fn fields<'a>(&self, columns: impl IntoIterator<Item = &'a Column>) -> Result<Vec<Field>> {
        columns.into_iter().map(|c| self.field(c)).collect()
    }

    /// The fields of a plan, unqualified.
    fn plan_fields(plan: &LogicalPlan) -> Vec<Field> {
        plan.schema().fields().iter().map(|f| f.as_ref().clone()).collect()
    }

    fn query(&mut self, query: &Query) -> Result<LogicalPlan> {
        let input = self.rel(&query.rel)?;
        let exprs: Vec<PlanExpr> = if let Some(first) = duplicate(&query.columns) {
            // The same column twice: the output's names must differ, positions carry the meaning.
            let _ = first;
            query.columns.iter().enumerate().map(|(i, c)| named(name_of(c.id)).alias(format!("o{i}"))).collect()
        } else {
            query.columns.iter().map(|c| named(name_of(c.id))).collect()
        };
        if exprs.is_empty() {
            // SELECT without columns still has rows: one column that nobody reads is dropped by the caller's types.
            return self.no_columns(input);
        }
        planned(planned(builder(input).project(exprs))?.build())
    }

    fn no_columns(&mut self, input: LogicalPlan) -> Result<LogicalPlan> {
        planned(planned(builder(input).project(Vec::<PlanExpr>::new()))?.build())
    }

    fn rel(&mut self, rel: &Rel) -> Result<LogicalPlan> {
        match rel {
            Rel::Unit => planned(LogicalPlanBuilder::empty(true).build()),
            Rel::Scan { table, columns, key_column } => {
                let mut list =
                    columns.iter().map(|(at, c)| Ok((Some(*at), name_of(c.id), self.data_type(c.ty)?))).collect::<Result<Vec<_>>>()?;
                if let Some(key) = key_column {
                    list.push((None, name_of(key.id), self.data_type(crate::types::SqlType::new(crate::types::oid::BYTEA))?));
                }
                self.scan(exec::scan_source(Arc::clone(table)), list)
            }
            Rel::Virtual { table, args, columns } => {
                let args = args.iter().map(|a| self.constant(a)).collect::<Result<Vec<_>>>()?;
                let list =
                    columns.iter().map(|(at, c)| Ok((Some(*at), name_of(c.id), self.data_type(c.ty)?))).collect::<Result<Vec<_>>>()?;
                self.scan(exec::virtual_source(Arc::clone(table), args), list)
            }
            Rel::Values { rows, columns } => {
                let rows =
                    rows.iter().map(|row| row.iter().map(|e| self.constant(e)).collect::<Result<Vec<_>>>()).collect::<Result<Vec<_>>>()?;
                let operator = ValuesRows { execution: Arc::clone(&self.execution), rows };
                Ok(OwnNode::plan(Arc::new(operator), Vec::new(), Self::schema(self.fields(columns)?)?))
            }
            Rel::Function { function, columns, ordinality } => {
                let operator = FunctionScan {
                    call: SetCall::new(function, &self.execution, &|_| None)?,
                    execution: Arc::clone(&self.execution),
                    ordinality: ordinality.is_some(),
                };
                Ok(OwnNode::plan(Arc::new(operator), Vec::new(), Self::schema(self.fields(columns.iter().chain(ordinality))?)?))
            }
            Rel::Project { input, exprs } => {
                let input = self.rel(input)?;
                self.project(input, exprs)
            }
            Rel::ProjectSet { input, calls } => {
                let input = self.rel(input)?;
                let mut fields = Self::plan_fields(&input);
                fields.extend(self.fields(calls.iter().map(|(c, _)| c))?);
                let operator = ProjectSet { execution: Arc::clone(&self.execution), calls: calls.iter().map(|(_, c)| c.clone()).collect() };
                Ok(OwnNode::plan(Arc::new(operator), vec![input], Self::schema(fields)?))
            }
            Rel::Filter { input, predicate } => self.filter(input, predicate),
            Rel::Join { left, right, kind, on, lateral } => self.join(left, right, *kind, on.as_ref(), *lateral),
            Rel::Aggregate { input, group, sets, aggregates } => self.aggregate(input, group, sets.as_deref(), aggregates),
            Rel::Window { input, calls } => self.window(input, calls),
            Rel::Distinct { input, on, columns } => self.distinct(input, on.as_deref(), columns),
            Rel::Sort { .. } => {
                let plan = self.sorted(rel)?;
                let schema = Arc::clone(plan.schema());
                Ok(OwnNode::plan(Arc::new(KeepOrder), vec![plan], schema))
            }
            Rel::Limit { input, limit, offset, with_ties } => self.limit(input, limit.as_ref(), offset.as_ref(), *with_ties),
            Rel::SetOp { kind, all, left, left_columns, right, right_columns, columns } => {
                let left = self.rel(left)?;
                let left = self.align(left, left_columns, columns)?;
                let right = self.rel(right)?;
                let right = self.align(right, right_columns, columns)?;
                self.set_op(*kind, *all, left, right, columns)
            }
            Rel::With { cte, definition, body } => {
                self.execution.put_cte(*cte, Arc::new(CteState::query(definition, &self.execution)));
                self.rel(body)
            }
            Rel::Recursive { cte, base, recursive, all, body } => {
                let recursion = Recursive::new(*cte, base, recursive, *all, &self.execution)?;
                recursion.prepare()?;
                self.execution.put_cte(*cte, Arc::new(CteState::recursive(recursion)));
                self.rel(body)
            }
            Rel::CteScan { cte, columns } => {
                let operator = CteScan { state: self.execution.cte(*cte)?, execution: Arc::clone(&self.execution) };
                Ok(OwnNode::plan(Arc::new(operator), Vec::new(), Self::schema(self.fields(columns)?)?))
            }
        }
    }

    /// As [`Lower::rel`], for a parent that takes the order itself: a LIMIT, which then needs no whole sort.
    fn sorted(&mut self, rel: &Rel) -> Result<LogicalPlan> {
        match rel {
            Rel::Sort { input, keys } => {
                let input = self.rel(input)?;
                let (plan, keys) = self.sort_keys(input, keys)?;
                planned(planned(builder(plan).sort(keys))?.build())
            }
            Rel::Project { input, exprs } if matches!(**input, Rel::Sort { .. }) => {
                let input = self.sorted(input)?;
                self.project(input, exprs)
            }
            other => self.rel(other),
        }
    }

    fn project(&mut self, input: LogicalPlan, exprs: &[(Column, Expr)]) -> Result<LogicalPlan> {
        let mut list = Vec::with_capacity(exprs.len());
        for (column, expr) in exprs {
            list.push(self.expr(expr, &input)?.alias(name_of(column.id)));
        }
        planned(planned(builder(input).project(list))?.build())
    }

    /// An expression that reads no row (outer columns come from slots).
    fn constant(&self, expr: &Expr) -> Result<Evaluator> {
        Evaluator::new(expr, &self.execution, &|_| None)
    }

    fn scan(
        &mut self,
        source: exec::ScanSource,
        columns: Vec<(Option<usize>, String, strandline_storage::DataType)>,
    ) -> Result<LogicalPlan> {
        let name = self.fresh('t');
        let provider = Arc::new(TableScan::new(&self.execution, source, columns));
        planned(planned(LogicalPlanBuilder::scan(name, provider_as_source(provider), None))?.build())
    }

    /// Adds columns to a plan.
    fn extend(&mut self, input: LogicalPlan, extra: Vec<PlanExpr>) -> Result<LogicalPlan> {
        if extra.is_empty() {
            return Ok(input);
        }
        let mut list: Vec<PlanExpr> = input.schema().iter().map(|(q, f)| PlanExpr::Column(PlanColumn::new(q.cloned(), f.name()))).collect();
        list.extend(extra);
        planned(planned(builder(input).project(list))?.build())
    }

    /// Puts the sort keys into columns; keys that are plain columns serve as they are.
    fn sort_keys(&mut self, input: LogicalPlan, keys: &[SortKey]) -> Result<(LogicalPlan, Vec<SortExpr>)> {
        let mut extra = Vec::new();
        let mut list = Vec::with_capacity(keys.len());
        for key in keys {
            let expr = self.key_expr(&key.expr, &input)?;
            let expr = if matches!(expr, PlanExpr::Column(_)) {
                expr
            } else {
                let name = self.fresh('s');
                extra.push(expr.alias(&name));
                named(name)
            };
            list.push(SortExpr::new(expr, !key.descending, key.nulls_first));
        }
        Ok((self.extend(input, extra)?, list))
    }

    /// Columns `from` of `plan` under the names of `to`, by position.
    fn align(&mut self, plan: LogicalPlan, from: &[ColumnId], to: &[Column]) -> Result<LogicalPlan> {
        let list: Vec<PlanExpr> = from.iter().zip(to).map(|(id, c)| named(name_of(*id)).alias(name_of(c.id))).collect();
        planned(planned(builder(plan).project(list))?.build())
    }

    fn set_op(&mut self, kind: SetOpKind, all: bool, left: LogicalPlan, right: LogicalPlan, columns: &[Column]) -> Result<LogicalPlan> {
        let types = columns.iter().map(|c| self.data_type(c.ty)).collect::<Result<Vec<_>>>()?;
        if kind == SetOpKind::Union {
            let plan = self.union(left, right)?;
            if all {
                return Ok(plan);
            }
            let keys = columns.iter().map(|c| name_of(c.id)).zip(types).collect();
            return Ok(self.distinct_rows(plan, keys));
        }
        let schema = Self::schema(self.fields(columns)?)?;
        let operator = SetOperation { execution: Arc::clone(&self.execution), kind, all, types };
        Ok(OwnNode::plan(Arc::new(operator), vec![left, right], schema))
    }

    fn union(&mut self, left: LogicalPlan, right: LogicalPlan) -> Result<LogicalPlan> {
        let plan = planned(planned(builder(left).union(right))?.build())?;
        let schema = Arc::clone(plan.schema());
        Ok(OwnNode::plan(Arc::new(exec::Append), vec![plan], schema))
    }

    fn distinct_rows(&self, input: LogicalPlan, keys: Vec<(String, strandline_storage::DataType)>) -> LogicalPlan {
        let schema = Arc::clone(input.schema());
        OwnNode::plan(Arc::new(DistinctRows { execution: Arc::clone(&self.execution), keys }), vec![input], schema)
    }

    fn distinct(&mut self, input: &Rel, on: Option<&[Expr]>, columns: &[ColumnId]) -> Result<LogicalPlan> {
        let types = column_types(input);
        let mut plan = self.rel(input)?;
        let mut keys = Vec::new();
        match on {
            None => {
                for id in columns {
                    let ty = types.get(id).ok_or_else(|| unknown_column(*id))?;
                    keys.push((name_of(*id), self.data_type(*ty)?));
                }
            }
            Some(exprs) => {
                let mut extra = Vec::new();
                for expr in exprs {
                    let name = self.fresh('d');
                    extra.push(self.expr(expr, &plan)?.alias(&name));
                    keys.push((name, self.data_type(expr.ty())?));
                }
                plan = self.extend(plan, extra)?;
            }
        }
        Ok(self.distinct_rows(plan, keys))
    }

    fn limit(&mut self, input: &Rel, limit: Option<&Expr>, offset: Option<&Expr>, with_ties: bool) -> Result<LogicalPlan> {
        if with_ties {
            let Rel::Sort { input, keys } = input else {
                return Err(SqlError::new(ErrorCode::SyntaxError, "WITH TIES cannot be specified without ORDER BY clause"));
            };
            let mut plan = self.rel(input)?;
            let mut ties = Vec::new();
            let mut extra = Vec::new();
            for key in keys {
                let name = self.fresh('d');
                extra.push(self.expr(&key.expr, &plan)?.alias(&name));
                ties.push((name, self.data_type(key.expr.ty())?));
            }
            plan = self.extend(plan, extra)?;
            let (plan, keys) = self.sort_keys(plan, keys)?;
            let plan = planned(planned(builder(plan).sort(keys))?.build())?;
            return self.own_limit(plan, limit, offset, Some(ties));
        }
        let fixed = |e: &Expr| walk::columns_of(e).is_empty() && !walk::is_volatile_expr(e) && !walk::has_subquery(e);
        if limit.is_none_or(fixed) && offset.is_none_or(fixed) {
            let value = |e: Option<&Expr>, is_offset: bool| -> Result<Option<usize>> {
                match e {
                    Some(e) => exec::limit_bound(&self.constant(e)?.value(&exec::evaluator::NoRow)?, is_offset),
                    None => Ok(None),
                }
            };
            let (skip, fetch) = (value(offset, true)?.unwrap_or(0), value(limit, false)?);
            if skip == 0 && fetch.is_none() {
                return self.rel(input);
            }
            if fetch == Some(0) {
                // Nothing of the input is evaluated, as in PostgreSQL; DataFusion's sort with a limit does not take 0.
                let schema = Arc::clone(self.rel(input)?.schema());
                return Ok(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema }));
            }
            let plan = self.sorted(input)?;
            return planned(planned(builder(plan).limit(skip, fetch))?.build());
        }
        let plan = self.rel(input)?;
        self.own_limit(plan, limit, offset, None)
    }

    fn own_limit(
        &mut self,
        plan: LogicalPlan,
        limit: Option<&Expr>,
        offset: Option<&Expr>,
        ties: Option<Vec<(String, strandline_storage::DataType)>>,
    ) -> Result<LogicalPlan> {
        let operator = LimitRows {
            limit: limit.map(|e| self.constant(e)).transpose()?,
            offset: offset.map(|e| self.constant(e)).transpose()?,
            execution: Arc::clone(&self.execution),
            ties,
        };
        let schema = Arc::clone(plan.schema());
        Ok(OwnNode::plan(Arc::new(operator), vec![plan], schema))
    }

    fn window(&mut self, input: &Rel, calls: &[(Column, crate::bound::WindowCall)]) -> Result<LogicalPlan> {
        let mut plan = self.rel(input)?;
        // Calls over the same window are computed together.
        let mut groups: Vec<Vec<&(Column, crate::bound::WindowCall)>> = Vec::new();
        for call in calls {
            let same = groups.iter_mut().find(|g| same_window(&g[0].1, &call.1));
            match same {
                Some(group) => group.push(call),
                None => groups.push(vec![call]),
            }
        }
        for group in groups {
            let first = &group[0].1;
            let mut extra = Vec::new();
            let mut keys = Vec::new();
            let mut partition = Vec::new();
            for expr in &first.partition {
                let name = self.fresh('s');
                extra.push(self.key_expr(expr, &plan)?.alias(&name));
                keys.push(SortExpr::new(named(&name), true, false));
                partition.push(name);
            }
            let mut order = Vec::new();
            let mut order_values = Vec::new();
            for key in &first.order {
                let name = self.fresh('s');
                extra.push(self.key_expr(&key.expr, &plan)?.alias(&name));
                keys.push(SortExpr::new(named(&name), !key.descending, key.nulls_first));
                order.push(name);
                // RANGE with an offset calculates with the value itself.
                let name = self.fresh('v');
                extra.push(self.expr(&key.expr, &plan)?.alias(&name));
                order_values.push((name, key.expr.ty(), key.descending, key.nulls_first));
            }
            let mut specs = Vec::new();
            for (column, window) in &group {
                specs.push(WindowSpec::new(window, column, &self.execution)?);
            }
            plan = self.extend(plan, extra)?;
            if !keys.is_empty() {
                plan = planned(planned(builder(plan).sort(keys))?.build())?;
            }
            let mut fields = Self::plan_fields(&plan);
            fields.extend(self.fields(group.iter().map(|(c, _)| c))?);
            let operator = WindowRows { execution: Arc::clone(&self.execution), partition, order, order_values, specs };
            plan = OwnNode::plan(Arc::new(operator), vec![plan], Self::schema(fields)?);
        }
        Ok(plan)
    }
}

fn same_window(a: &crate::bound::WindowCall, b: &crate::bound::WindowCall) -> bool {
    // Debug text is the cheapest structural comparison of expressions; windows are few.
    format!("{:?}{:?}", a.partition, a.order) == format!("{:?}{:?}", b.partition, b.order)
}

fn duplicate(columns: &[Column]) -> Option<ColumnId> {
    let mut seen = std::collections::HashSet::new();
    columns.iter().map(|c| c.id).find(|id| !seen.insert(*id))
}

fn unknown_column(id: ColumnId) -> SqlError {
    SqlError::new(ErrorCode::InternalError, format!("column {id} is not among the relation's"))
}

/// The types of all columns that a relation's parts define, by id.
fn column_types(rel: &Rel) -> std::collections::HashMap<ColumnId, crate::types::SqlType> {
    let mut types = std::collections::HashMap::new();
    collect_types(rel, &mut types);
    types
}

fn collect_types(rel: &Rel, out: &mut std::collections::HashMap<ColumnId, crate::types::SqlType>) {
    let mut add = |c: &Column| {
        out.insert(c.id, c.ty);
    };
    match rel {
        Rel::Unit => {}
        Rel::Scan { columns, key_column, .. } => columns.iter().map(|(_, c)| c).chain(key_column).for_each(add),
        Rel::Virtual { columns, .. } => columns.iter().for_each(|(_, c)| add(c)),
        Rel::Values { columns, .. } | Rel::CteScan { columns, .. } | Rel::SetOp { columns, .. } => columns.iter().for_each(add),
        Rel::Function { columns, ordinality, .. } => columns.iter().chain(ordinality).for_each(add),
        Rel::Project { exprs, .. } => exprs.iter().for_each(|(c, _)| add(c)),
        Rel::ProjectSet { input, calls } => {
            calls.iter().for_each(|(c, _)| add(c));
            collect_types(input, out);
        }
        Rel::Aggregate { group, aggregates, .. } => {
            group.iter().for_each(|(c, _)| add(c));
            aggregates.iter().for_each(|(c, _)| add(c));
        }
        Rel::Window { input, calls } => {
            calls.iter().for_each(|(c, _)| add(c));
            collect_types(input, out);
        }
        Rel::Filter { input, .. } | Rel::Distinct { input, .. } | Rel::Sort { input, .. } | Rel::Limit { input, .. } => {
            collect_types(input, out)
        }
        Rel::Join { left, right, .. } => {
            collect_types(left, out);
            collect_types(right, out);
        }
        Rel::With { body, .. } | Rel::Recursive { body, .. } => collect_types(body, out),
    }
}

/// A NULL of an Arrow type.
fn null_of(arrow: &ArrowType) -> Result<PlanExpr> {
    Ok(lit(planned(datafusion::common::ScalarValue::try_from(arrow))?))
}
