//! INSERT, with ON CONFLICT.

use std::collections::HashSet;
use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{InferClause, InsertStmt, Node, OnConflictAction, OnConflictClause, OverridingKind, SelectStmt};
use strandline_storage::schema::{Identity, Index, IndexKey};
use strandline_storage::{Edit, TableData, TableSchema, Value};

use crate::bind::{Binder, InsertTarget, RowScope};
use crate::bound::{Column, ColumnId, Expr, Query};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::{self, Evaluator, Execution};
use crate::parse::Source;
use crate::session::{ContextNames, SessionCore};
use crate::statement::dml::foreign_keys::{self, Change};
use crate::statement::dml::{Checks, Done, Filler, Returning, done, returning_list, rows, scope_columns, target_table, targets};
use crate::statement::tree;
use crate::types::Oid;

/// An INSERT, bound.
pub(super) struct BoundInsert {
    table: Arc<TableSchema>,
    /// Where the query's columns go.
    positions: Vec<usize>,
    query: Query,
    conflict: Option<Conflict>,
    row_ids: Vec<ColumnId>,
    pub returning: Option<Vec<(Column, Expr)>>,
    pub parameters: Vec<Oid>,
}

/// ON CONFLICT, bound.
struct Conflict {
    /// Column sets of the keys that arbitrate.
    arbiters: Vec<Arbiter>,
    /// `None`: DO NOTHING.
    update: Option<ConflictUpdate>,
}

struct Arbiter {
    columns: Vec<usize>,
    nulls_not_distinct: bool,
}

struct ConflictUpdate {
    /// (position, value) over the old row's columns followed by the excluded row's.
    assignments: Vec<(usize, Expr)>,
    condition: Option<Expr>,
    ids: Vec<ColumnId>,
}

pub(super) fn bind(context: &Arc<StatementContext>, source: &Arc<Source>, insert: &InsertStmt, types: &[Oid]) -> Result<BoundInsert> {
    let range = tree::range(&insert.relation)?;
    let table = target_table(context, source, range)?;
    let all = targets(context, &table)?;
    let mut positions = Vec::new();
    for node in &insert.cols {
        let Some(NodeEnum::ResTarget(target)) = &node.node else { return Err(tree::malformed()) };
        if !target.indirection.is_empty() {
            return Err(SqlError::unsupported("inserting into a part of a column"));
        }
        let at = table.column_index(&target.name).ok_or_else(|| {
            SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{}\" of relation \"{}\" does not exist", target.name, table.name))
                .at(source.position(target.location))
        })?;
        if positions.contains(&at) {
            return Err(SqlError::new(ErrorCode::DuplicateColumn, format!("column \"{}\" specified more than once", target.name))
                .at(source.position(target.location)));
        }
        positions.push(at);
    }
    let select = match insert.select_stmt.as_deref().and_then(|n| n.node.as_ref()) {
        None => None,
        Some(NodeEnum::SelectStmt(select)) => Some(&**select),
        Some(_) => return Err(tree::malformed()),
    };
    let explicit = !insert.cols.is_empty();
    if !explicit {
        positions = (0..table.columns.len()).collect();
    }
    let overriding = insert.r#override();
    if let Some(select) = select {
        check_always(&table, &positions, select, overriding)?;
    }
    let chosen: Vec<InsertTarget> = positions.iter().map(|at| all[*at].clone()).collect();
    let names = ContextNames::new(context, !context.params.is_empty());
    let mut binder = Binder::new(&names, source.clone(), types);
    let mut query = binder.bind_insert_source(insert.with_clause.as_ref(), select, &chosen, explicit)?;
    positions.truncate(query.columns.len());
    if overriding == OverridingKind::OverridingUserValue {
        // The identity columns' own values are not looked at.
        let keep: Vec<bool> = positions.iter().map(|at| table.columns[*at].identity.is_none()).collect();
        let mut flags = keep.iter();
        query.columns.retain(|_| flags.next().copied().unwrap_or(true));
        let mut flags = keep.iter();
        positions.retain(|_| flags.next().copied().unwrap_or(true));
    }
    let alias = range.alias.as_ref().map_or(table.name.as_str(), |a| a.aliasname.as_str());
    let row_columns = scope_columns(&mut binder, &table);
    let conflict = match insert.on_conflict_clause.as_deref() {
        None => None,
        Some(clause) => Some(bind_conflict(&mut binder, &table, alias, &row_columns, &all, clause)?),
    };
    let returning = match returning_list(&insert.returning_clause)? {
        None => None,
        Some(list) => {
            binder.push_rows(&[RowScope { name: alias, columns: &row_columns, table: Some(table.oid), qualified_only: false }]);
            let bound = binder.bind_returning(list);
            binder.pop_rows();
            Some(bound?)
        }
    };
    let parameters = binder.param_types()?;
    let row_ids = row_columns.iter().map(|c| c.id).collect();
    Ok(BoundInsert { table, positions, query, conflict, row_ids, returning, parameters })
}

fn is_default(node: &Node) -> bool {
    matches!(node.node, Some(NodeEnum::SetToDefault(_)))
}

/// GENERATED ALWAYS columns take no value but DEFAULT.
fn check_always(table: &TableSchema, positions: &[usize], select: &SelectStmt, overriding: OverridingKind) -> Result<()> {
    for (i, at) in positions.iter().enumerate() {
        let column = &table.columns[*at];
        let always = column.generated.is_some()
            || (column.identity == Some(Identity::Always)
                && !matches!(overriding, OverridingKind::OverridingSystemValue | OverridingKind::OverridingUserValue));
        if !always {
            continue;
        }
        let has_value = if select.values_lists.is_empty() {
            // A query with fewer columns than the table stops before it.
            select.target_list.len() > i
        } else {
            select.values_lists.iter().any(|list| match &list.node {
                Some(NodeEnum::List(list)) => list.items.get(i).is_some_and(|item| !is_default(item)),
                _ => false,
            })
        };
        if has_value {
            return rows::refuse_generated(table, *at, false);
        }
    }
    Ok(())
}

fn index_columns(index: &Index) -> Option<Vec<usize>> {
    index
        .columns
        .iter()
        .map(|c| match c.key {
            IndexKey::Column(at) => Some(at),
            IndexKey::Expression(_) => None,
        })
        .collect()
}

fn arbiter(index: &Index) -> Option<Arbiter> {
    Some(Arbiter { columns: index_columns(index)?, nulls_not_distinct: index.nulls_not_distinct })
}

/// The unique keys that ON CONFLICT names, or all.
fn arbiters(table: &TableSchema, infer: Option<&InferClause>) -> Result<Vec<Arbiter>> {
    let unique: Vec<&Index> = table.primary_key.iter().chain(table.indexes.iter().filter(|i| i.unique && i.is_stored())).collect();
    let Some(infer) = infer else { return Ok(unique.into_iter().filter_map(arbiter).collect()) };
    if !infer.conname.is_empty() {
        let found = unique.iter().find(|i| i.name == infer.conname).ok_or_else(|| {
            SqlError::new(
                ErrorCode::UndefinedObject,
                format!("constraint \"{}\" for table \"{}\" does not exist", infer.conname, table.name),
            )
        })?;
        return Ok(arbiter(found).into_iter().collect());
    }
    let mut wanted = Vec::new();
    for element in &infer.index_elems {
        let Some(NodeEnum::IndexElem(element)) = &element.node else { return Err(tree::malformed()) };
        if element.expr.is_some() {
            return Err(SqlError::unsupported("ON CONFLICT on an expression"));
        }
        let at = table
            .column_index(&element.name)
            .ok_or_else(|| SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{}\" does not exist", element.name)))?;
        if !wanted.contains(&at) {
            wanted.push(at);
        }
    }
    wanted.sort_unstable();
    let found: Vec<Arbiter> = unique
        .into_iter()
        .filter_map(arbiter)
        .filter(|a| {
            let mut columns = a.columns.clone();
            columns.sort_unstable();
            columns == wanted
        })
        .collect();
    if found.is_empty() {
        return Err(SqlError::new(
            ErrorCode::InvalidColumnReference,
            "there is no unique or exclusion constraint matching the ON CONFLICT specification",
        ));
    }
    Ok(found)
}

fn bind_conflict(
    binder: &mut Binder<'_>,
    table: &TableSchema,
    alias: &str,
    row_columns: &[Column],
    all: &[InsertTarget],
    clause: &OnConflictClause,
) -> Result<Conflict> {
    let arbiters = arbiters(table, clause.infer.as_deref())?;
    if clause.action() != OnConflictAction::OnconflictUpdate {
        return Ok(Conflict { arbiters, update: None });
    }
    if clause.infer.is_none() {
        return Err(SqlError::new(ErrorCode::SyntaxError, "ON CONFLICT DO UPDATE requires inference specification or constraint name")
            .hint("For example, ON CONFLICT (column_name)."));
    }
    let excluded = scope_columns(binder, table);
    binder.push_rows(&[
        RowScope { name: alias, columns: row_columns, table: Some(table.oid), qualified_only: false },
        RowScope { name: "excluded", columns: &excluded, table: None, qualified_only: true },
    ]);
    let bound = (|| -> Result<_> {
        let assignments = binder.bind_assignments(&table.name, &clause.target_list, all)?;
        let condition = match clause.where_clause.as_deref() {
            Some(node) => Some(binder.bind_condition(node, "argument of WHERE")?),
            None => None,
        };
        Ok((assignments, condition))
    })();
    binder.pop_rows();
    let (assignments, condition) = bound?;
    for node in &clause.target_list {
        if let Some(NodeEnum::ResTarget(target)) = &node.node
            && let Some(at) = table.column_index(&target.name)
            && !target.val.as_deref().is_some_and(is_default)
        {
            rows::refuse_generated(table, at, true)?;
        }
    }
    let ids = row_columns.iter().chain(&excluded).map(|c| c.id).collect();
    Ok(Conflict { arbiters, update: Some(ConflictUpdate { assignments, condition, ids }) })
}

/// ON CONFLICT DO UPDATE, compiled.
struct CompiledUpdate {
    assignments: Vec<(usize, Evaluator)>,
    condition: Option<Evaluator>,
}

impl CompiledUpdate {
    fn new(context: &Arc<StatementContext>, update: &ConflictUpdate) -> Result<Self> {
        let execution = Execution::new(context.clone());
        let compile = |expr: &Expr| Evaluator::new(expr, &execution, &|id| update.ids.iter().position(|i| *i == id));
        Ok(CompiledUpdate {
            assignments: update.assignments.iter().map(|(at, e)| Ok((*at, compile(e)?))).collect::<Result<_>>()?,
            condition: update.condition.as_ref().map(compile).transpose()?,
        })
    }
}

/// The row that a new one collides with.
fn find_conflict(data: &TableData, arbiters: &[Arbiter], row: &[Value]) -> Result<Option<Vec<u8>>> {
    for arbiter in arbiters {
        if !arbiter.nulls_not_distinct && arbiter.columns.iter().any(|c| row.get(*c).is_none_or(Value::is_null)) {
            continue;
        }
        if let Some(key) = data.find_row(&arbiter.columns, row)? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

pub(super) fn run(core: &Arc<SessionCore>, context: &Arc<StatementContext>, bound: BoundInsert) -> Result<Done> {
    let BoundInsert { table, positions, query, conflict, row_ids, returning, .. } = bound;
    let values = exec::run_to_end(&query, context.clone())?;
    let missing: Vec<usize> = (0..table.columns.len()).filter(|at| !positions.contains(at)).collect();
    let filler = Filler::new(context, &table, &missing)?;
    let checks = Checks::new(context, &table)?;
    let mut returning = Returning::new(context, returning, &row_ids)?;
    let update = match conflict.as_ref().and_then(|c| c.update.as_ref()) {
        Some(update) => Some(CompiledUpdate::new(context, update)?),
        None => None,
    };
    let references = !table.constraints.is_empty();
    let mut new_rows = Vec::with_capacity(values.len());
    for given in values {
        let mut row = vec![Value::Null; table.columns.len()];
        for (at, value) in positions.iter().zip(given) {
            row[*at] = value;
        }
        filler.fill(&mut row)?;
        checks.generate(&mut row)?;
        checks.check(&row)?;
        new_rows.push(row);
    }
    let mut count = 0;
    core.with_edit("INSERT", |edit| {
        let mut touched: HashSet<Vec<u8>> = HashSet::new();
        let mut changes = Vec::new();
        for (i, row) in new_rows.into_iter().enumerate() {
            if i % 1024 == 0 {
                context.check_cancel()?;
            }
            if let Some(conflict) = &conflict {
                let data = edit.root().table(table.oid).cloned().ok_or_else(|| gone(&table))?;
                if let Some(key) = find_conflict(&data, &conflict.arbiters, &row)? {
                    let Some(update) = &update else { continue };
                    if let Some(change) = update_conflicting(edit, &data, &table, &checks, update, &key, &row, &mut touched)? {
                        count += 1;
                        if let (Some(returning), Some(new)) = (&mut returning, &change.new) {
                            returning.push(new)?;
                        }
                        changes.push(change);
                    }
                    continue;
                }
                touched.insert(data.row_key(&row));
            }
            if let Some(returning) = &mut returning {
                returning.push(&row)?;
            }
            if references {
                changes.push(Change { old: None, new: Some(row.clone()) });
            }
            edit.insert(table.oid, row).map_err(|e| checks.located(e.into()))?;
            count += 1;
        }
        foreign_keys::enforce(context, edit, table.oid, &changes)
    })?;
    Ok(done(count, returning))
}

fn gone(table: &TableSchema) -> SqlError {
    SqlError::new(ErrorCode::UndefinedTable, format!("relation \"{}\" does not exist", table.name))
}

#[allow(clippy::too_many_arguments)]
fn update_conflicting(
    edit: &mut Edit,
    data: &TableData,
    table: &TableSchema,
    checks: &Checks,
    update: &CompiledUpdate,
    key: &[u8],
    excluded: &[Value],
    touched: &mut HashSet<Vec<u8>>,
) -> Result<Option<Change>> {
    if touched.contains(key) {
        return Err(SqlError::new(ErrorCode::CardinalityViolation, "ON CONFLICT DO UPDATE command cannot affect row a second time")
            .hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values."));
    }
    let old = data.get(key)?.ok_or_else(|| gone(table))?;
    let both: Vec<Value> = old.iter().chain(excluded).cloned().collect();
    if let Some(condition) = &update.condition
        && !matches!(condition.value(&both)?, Value::Bool(true))
    {
        return Ok(None);
    }
    let mut row = old.clone();
    for (at, evaluator) in &update.assignments {
        row[*at] = evaluator.value(&both)?;
    }
    checks.generate(&mut row)?;
    checks.check(&row)?;
    edit.update(table.oid, key, row.clone()).map_err(|e| checks.located(e.into()))?;
    touched.insert(data.row_key(&row));
    Ok(Some(Change { old: Some(old), new: Some(row) }))
}
