//! UPDATE and DELETE: a query gives the keys with the old values, the new ones and what RETURNING needs from FROM's tables.

use std::collections::HashSet;
use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::Node;
use strandline_storage::{Row, TableSchema, Value};

use crate::bind::Binder;
use crate::bound::{Column, ColumnId, Expr, Query};
use crate::context::StatementContext;
use crate::error::Result;
use crate::exec;
use crate::parse::Source;
use crate::session::{ContextNames, SessionCore};
use crate::statement::dml::foreign_keys::{self, Change};
use crate::statement::dml::{Checks, Done, Returning, done, returning_list, rows, target_table, targets};
use crate::statement::tree;
use crate::types::Oid;

/// An UPDATE or DELETE, bound. The query's columns: the key, the table's columns, the assigned values, the others.
pub(super) struct BoundChange {
    table: Arc<TableSchema>,
    /// Positions that are assigned to; `None`: DELETE.
    assigned: Option<Vec<usize>>,
    query: Query,
    /// The ids that a row for RETURNING has: the table's columns, then the others.
    row_ids: Vec<ColumnId>,
    pub returning: Option<Vec<(Column, Expr)>>,
    pub parameters: Vec<Oid>,
}

pub(super) fn bind(context: &Arc<StatementContext>, source: &Arc<Source>, node: &NodeEnum, types: &[Oid]) -> Result<BoundChange> {
    let (relation, with, from, condition, returning, assignments): (_, _, &[Node], _, _, Option<&[Node]>) = match node {
        NodeEnum::UpdateStmt(u) => {
            (&u.relation, &u.with_clause, &u.from_clause, &u.where_clause, &u.returning_clause, Some(&u.target_list))
        }
        NodeEnum::DeleteStmt(d) => (&d.relation, &d.with_clause, &d.using_clause, &d.where_clause, &d.returning_clause, None),
        _ => return Err(tree::malformed()),
    };
    let range = tree::range(relation)?;
    let table = target_table(context, source, range)?;
    if let Some(condition) = condition.as_deref()
        && matches!(condition.node, Some(NodeEnum::CurrentOfExpr(_)))
    {
        return Err(crate::error::SqlError::unsupported("WHERE CURRENT OF"));
    }
    let names = ContextNames::new(context, !context.params.is_empty());
    let mut binder = Binder::new(&names, source.clone(), types);
    let mut scope = binder.begin_modify(with.as_ref(), range, from)?;
    if let Some(condition) = condition.as_deref() {
        binder.modify_where(&mut scope, condition)?;
    }
    let assigned = match assignments {
        None => None,
        Some(list) => {
            for node in list {
                if let Some(NodeEnum::ResTarget(target)) = &node.node
                    && let Some(at) = table.column_index(&target.name)
                    && !target.val.as_deref().is_some_and(|v| matches!(v.node, Some(NodeEnum::SetToDefault(_))))
                {
                    rows::refuse_generated(&table, at, true)?;
                }
            }
            Some(binder.bind_assignments(&table.name, list, &targets(context, &table)?)?)
        }
    };
    let mut returning = match returning_list(returning)? {
        Some(list) => Some(binder.bind_returning(list)?),
        None => None,
    };
    // What RETURNING takes from other tables travels with the rows.
    let own: HashSet<ColumnId> = scope.columns.iter().map(|c| c.id).collect();
    let mut others: Vec<Column> = Vec::new();
    for (_, expr) in returning.iter_mut().flatten() {
        let mut wanted = Vec::new();
        expr.visit_all_mut(&mut |e| {
            if let Expr::Column { id, ty } | Expr::Outer { id, ty } = e {
                wanted.push((*id, *ty));
            }
        });
        for (id, ty) in wanted {
            if !own.contains(&id) && !others.iter().any(|c| c.id == id) {
                others.push(Column { id, name: String::new(), ty, origin: None });
            }
        }
    }
    let in_from: HashSet<ColumnId> = scope.column_ids().into_iter().collect();
    others.retain(|c| in_from.contains(&c.id));
    let row_ids: Vec<ColumnId> = scope.columns.iter().chain(&others).map(|c| c.id).collect();
    let mut exprs: Vec<(Column, Expr)> = Vec::new();
    let mut output = |binder: &mut Binder<'_>, expr: Expr| {
        let column = binder.new_column("", expr.ty());
        exprs.push((column, expr));
    };
    output(&mut binder, Expr::Column { id: scope.key.id, ty: scope.key.ty });
    for column in scope.columns.clone() {
        output(&mut binder, Expr::Column { id: column.id, ty: column.ty });
    }
    let positions = assigned.as_ref().map(|a| a.iter().map(|(at, _)| *at).collect());
    for (_, expr) in assigned.into_iter().flatten() {
        output(&mut binder, expr);
    }
    for column in others {
        output(&mut binder, Expr::Column { id: column.id, ty: column.ty });
    }
    let query = binder.end_modify(scope, exprs);
    let parameters = binder.param_types()?;
    Ok(BoundChange { table, assigned: positions, query, row_ids, returning, parameters })
}

pub(super) fn run(core: &Arc<SessionCore>, context: &Arc<StatementContext>, bound: BoundChange) -> Result<Done> {
    let BoundChange { table, assigned, query, row_ids, returning, .. } = bound;
    let mut found = exec::run_to_end(&query, context.clone())?;
    let mut returning = Returning::new(context, returning, &row_ids)?;
    let width = table.columns.len();
    // Equal rows of a keyless table are told apart by a number that closes ranks when one goes: the last goes first.
    if table.primary_key.is_none() {
        found.sort_by(|a, b| key_bytes(b).cmp(key_bytes(a)));
    }
    let what = if assigned.is_some() { "UPDATE" } else { "DELETE" };
    let checks = Checks::new(context, &table)?;
    let concerned = !table.constraints.is_empty() || is_referenced(context, table.oid);
    let mut count = 0;
    core.with_edit(what, |edit| {
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        let mut changes = Vec::new();
        for (i, mut values) in found.into_iter().enumerate() {
            if i % 1024 == 0 {
                context.check_cancel()?;
            }
            let key = key_bytes(&values).to_vec();
            // A row that a join finds several times is changed once.
            if !seen.insert(key.clone()) {
                continue;
            }
            let assigned_count = assigned.as_ref().map_or(0, Vec::len);
            let others: Row = values.split_off((1 + width + assigned_count).min(values.len()));
            let new_values: Row = values.split_off((1 + width).min(values.len()));
            let old: Row = values.split_off(1);
            let new = match &assigned {
                None => {
                    edit.delete(table.oid, &key)?;
                    None
                }
                Some(positions) => {
                    let mut row = old.clone();
                    for (at, value) in positions.iter().zip(new_values) {
                        row[*at] = value;
                    }
                    checks.generate(&mut row)?;
                    checks.check(&row)?;
                    edit.update(table.oid, &key, row.clone()).map_err(|e| checks.located(e.into()))?;
                    Some(row)
                }
            };
            if let Some(returning) = &mut returning {
                let shown: Row = new.as_ref().unwrap_or(&old).iter().chain(&others).cloned().collect();
                returning.push(&shown)?;
            }
            if concerned {
                changes.push(Change { old: Some(old), new });
            }
            count += 1;
        }
        foreign_keys::enforce(context, edit, table.oid, &changes)
    })?;
    Ok(done(count, returning))
}

fn key_bytes(row: &[Value]) -> &[u8] {
    match row.first() {
        Some(Value::Bytes(bytes)) => bytes,
        _ => &[],
    }
}

fn is_referenced(context: &StatementContext, table: Oid) -> bool {
    context.root.catalog().tables().any(|t| {
        t.constraints
            .iter()
            .any(|c| matches!(&c.kind, strandline_storage::schema::ConstraintKind::ForeignKey { table: target, .. } if *target == table))
    })
}
