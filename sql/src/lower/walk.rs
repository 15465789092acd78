//! Walks over bound trees: which outer columns a subquery reads, what is volatile.

use std::collections::HashSet;

use crate::bound::{AggregateCall, ColumnId, Expr, FrameBound, FunctionCall, Query, Rel, SortKey, SubqueryKind, Subscript};
use crate::catalog_data::catalog;
use crate::types::{Oid, SqlType, oid};
use strandline_storage::Value;

/// One thing met on a walk.
pub enum Item<'a> {
    Expr(&'a Expr),
    Call(&'a FunctionCall),
    Aggregate(&'a AggregateCall),
    /// A relation gives this column.
    Column(ColumnId),
    Cte(u32),
}

pub type Visit<'v> = &'v mut dyn FnMut(Item<'_>);

pub fn query(query: &Query, visit: Visit<'_>) {
    rel(&query.rel, visit);
}

fn exprs<'a>(list: impl IntoIterator<Item = &'a Expr>, visit: Visit<'_>) {
    for e in list {
        expr(e, visit);
    }
}

fn keys(list: &[SortKey], visit: Visit<'_>) {
    exprs(list.iter().map(|k| &k.expr), visit);
}

fn call(call: &FunctionCall, visit: Visit<'_>) {
    visit(Item::Call(call));
    exprs(&call.args, visit);
}

fn aggregate(call: &AggregateCall, visit: Visit<'_>) {
    visit(Item::Aggregate(call));
    exprs(&call.args, visit);
    exprs(&call.filter, visit);
    keys(&call.order, visit);
}

pub fn rel(node: &Rel, visit: Visit<'_>) {
    match node {
        Rel::Unit => {}
        Rel::Scan { columns, key_column, .. } => {
            columns.iter().map(|(_, c)| c).chain(key_column).for_each(|c| visit(Item::Column(c.id)));
        }
        Rel::Virtual { args, columns, .. } => {
            exprs(args, visit);
            columns.iter().for_each(|(_, c)| visit(Item::Column(c.id)));
        }
        Rel::Values { rows, columns } => {
            rows.iter().for_each(|r| exprs(r, visit));
            columns.iter().for_each(|c| visit(Item::Column(c.id)));
        }
        Rel::Function { function, columns, ordinality } => {
            call(function, visit);
            columns.iter().chain(ordinality).for_each(|c| visit(Item::Column(c.id)));
        }
        Rel::Project { input, exprs: list } => {
            rel(input, visit);
            for (column, e) in list {
                expr(e, visit);
                visit(Item::Column(column.id));
            }
        }
        Rel::ProjectSet { input, calls } => {
            rel(input, visit);
            for (column, c) in calls {
                call(c, visit);
                visit(Item::Column(column.id));
            }
        }
        Rel::Filter { input, predicate } => {
            rel(input, visit);
            expr(predicate, visit);
        }
        Rel::Join { left, right, on, .. } => {
            rel(left, visit);
            rel(right, visit);
            exprs(on, visit);
        }
        Rel::Aggregate { input, group, aggregates, .. } => {
            rel(input, visit);
            for (column, e) in group {
                expr(e, visit);
                visit(Item::Column(column.id));
            }
            for (column, a) in aggregates {
                aggregate(a, visit);
                visit(Item::Column(column.id));
            }
        }
        Rel::Window { input, calls } => {
            rel(input, visit);
            for (column, w) in calls {
                aggregate(&w.call, visit);
                exprs(&w.partition, visit);
                keys(&w.order, visit);
                for bound in [&w.frame.start, &w.frame.end] {
                    if let FrameBound::Preceding(e) | FrameBound::Following(e) = bound {
                        expr(e, visit);
                    }
                }
                visit(Item::Column(column.id));
            }
        }
        Rel::Distinct { input, on, .. } => {
            rel(input, visit);
            exprs(on.iter().flatten(), visit);
        }
        Rel::Sort { input, keys: list } => {
            rel(input, visit);
            keys(list, visit);
        }
        Rel::Limit { input, limit, offset, .. } => {
            rel(input, visit);
            exprs(limit.iter().chain(offset), visit);
        }
        Rel::SetOp { left, right, columns, .. } => {
            rel(left, visit);
            rel(right, visit);
            columns.iter().for_each(|c| visit(Item::Column(c.id)));
        }
        Rel::With { definition, body, .. } => {
            query(definition, visit);
            rel(body, visit);
        }
        Rel::Recursive { base, recursive, body, .. } => {
            query(base, visit);
            query(recursive, visit);
            rel(body, visit);
        }
        Rel::CteScan { cte, columns } => {
            visit(Item::Cte(*cte));
            columns.iter().for_each(|c| visit(Item::Column(c.id)));
        }
    }
}

pub fn expr(node: &Expr, visit: Visit<'_>) {
    visit(Item::Expr(node));
    match node {
        Expr::Const { .. } | Expr::Param { .. } | Expr::Column { .. } | Expr::Outer { .. } | Expr::Grouping(_) => {}
        Expr::Function(c) => call(c, visit),
        Expr::Cast { input, .. } | Expr::Not(input) | Expr::IsNull(input) | Expr::IsNotNull(input) | Expr::IsBool { input, .. } => {
            expr(input, visit)
        }
        Expr::Field { input, .. } => expr(input, visit),
        Expr::And(list) | Expr::Or(list) => exprs(list, visit),
        Expr::Coalesce { args, .. } | Expr::MinMax { args, .. } => exprs(args, visit),
        Expr::Array { elements, .. } => exprs(elements, visit),
        Expr::IsDistinctFrom { left, right, .. } | Expr::NullIf { left, right, .. } => {
            expr(left, visit);
            expr(right, visit);
        }
        Expr::Case { whens, default, .. } => {
            for (when, then) in whens {
                expr(when, visit);
                expr(then, visit);
            }
            exprs(default.as_deref(), visit);
        }
        Expr::InList { input, list, .. } => {
            expr(input, visit);
            exprs(list, visit);
        }
        Expr::AnyArray { input, array, .. } => {
            expr(input, visit);
            expr(array, visit);
        }
        Expr::Row { fields, .. } => exprs(fields.iter().map(|(_, e)| e), visit),
        Expr::Subscript { input, subscripts, .. } => {
            expr(input, visit);
            for s in subscripts {
                match s {
                    Subscript::Index(e) => expr(e, visit),
                    Subscript::Slice(a, b) => exprs(a.iter().chain(b), visit),
                }
            }
        }
        Expr::Subquery(subquery) => {
            match &subquery.kind {
                SubqueryKind::Compare { left, .. } => expr(left, visit),
                SubqueryKind::CompareRow { left, .. } => exprs(left, visit),
                SubqueryKind::Exists | SubqueryKind::Scalar | SubqueryKind::Array => {}
            }
            query(&subquery.query, visit);
        }
    }
}

/// The columns of enclosing queries that a query reads, at any depth; each once.
pub fn outer_columns(node: &Query) -> Vec<ColumnId> {
    free(|visit| query(node, visit))
}

/// The columns that an expression reads from its row: direct ones and those that subqueries in it read from outside.
pub fn columns_of(node: &Expr) -> Vec<ColumnId> {
    free(|visit| expr(node, visit))
}

fn free(walk: impl FnOnce(Visit<'_>)) -> Vec<ColumnId> {
    let mut read = Vec::new();
    let mut defined = HashSet::new();
    walk(&mut |item| match item {
        Item::Expr(Expr::Outer { id, .. } | Expr::Column { id, .. }) => read.push(*id),
        Item::Column(id) => {
            defined.insert(id);
        }
        _ => {}
    });
    let mut seen = HashSet::new();
    read.retain(|id| !defined.contains(id) && seen.insert(*id));
    read
}

fn volatile(item: &Item<'_>) -> bool {
    match item {
        Item::Call(call) => catalog().proc_by_oid(call.proc).is_none_or(|p| p.volatility == b'v'),
        _ => false,
    }
}

/// A row given to a JSON function keeps its fields' names: it becomes a call of `row_to_json` with names and values in
/// turn. `None` for other expressions.
pub fn json_row(node: &Expr) -> Option<Expr> {
    let Expr::Row { fields, .. } = node else { return None };
    let text = SqlType::new(oid::TEXT);
    let args = fields
        .iter()
        .flat_map(|(name, value)| {
            let value = json_row(value).unwrap_or_else(|| value.clone());
            [Expr::Const { value: Value::bytes(name.as_bytes()), ty: text }, value]
        })
        .collect();
    Some(Expr::Function(FunctionCall { proc: ROW_TO_JSON, args, ty: SqlType::new(oid::JSON), variadic: false }))
}

/// pg_proc's `row_to_json(record)`.
pub const ROW_TO_JSON: Oid = 3155;

/// Functions that make JSON of any value.
pub fn makes_json(proc: Oid) -> bool {
    catalog().proc_by_oid(proc).is_some_and(|p| {
        matches!(
            p.name,
            "to_json"
                | "to_jsonb"
                | "row_to_json"
                | "json_agg"
                | "jsonb_agg"
                | "json_object_agg"
                | "jsonb_object_agg"
                | "json_build_object"
                | "jsonb_build_object"
                | "json_build_array"
                | "jsonb_build_array"
        )
    })
}

/// Says whether a function in the query may give something else each time.
pub fn is_volatile(node: &Query) -> bool {
    let mut found = false;
    query(node, &mut |item| found |= volatile(&item));
    found
}

pub fn is_volatile_expr(node: &Expr) -> bool {
    let mut found = false;
    expr(node, &mut |item| found |= volatile(&item));
    found
}

pub fn has_parameter(node: &Expr) -> bool {
    let mut found = false;
    expr(node, &mut |item| found |= matches!(item, Item::Expr(Expr::Param { .. })));
    found
}

pub fn has_subquery(node: &Expr) -> bool {
    let mut found = false;
    expr(node, &mut |item| found |= matches!(item, Item::Expr(Expr::Subquery(_))));
    found
}
