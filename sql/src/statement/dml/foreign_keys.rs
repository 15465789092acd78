//! Foreign keys: what a statement changed is checked when it ends, against the tables as it left them.
//!
//! A key that is referred to is found through a unique key of the referenced table. Rows that refer to a key that went
//! are found through an index of the referring table where there is one. ON DELETE and ON UPDATE act as declared.
//! With `session_replication_role = replica` nothing is checked, as in PostgreSQL.

use std::sync::Arc;

use strandline_storage::schema::{Constraint, ConstraintKind, IndexKey};
use strandline_storage::{Edit, Oid, Root, Row, TableData, TableSchema, Value};

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::functions::casts;

/// How deep cascades may go.
const CASCADE_DEPTH_MAX: usize = 100;

/// A row that a statement put in place of another; one side is missing for INSERT and DELETE.
pub struct Change {
    pub old: Option<Row>,
    pub new: Option<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Refuse,
    Cascade,
    SetNull,
    SetDefault,
}

/// The action for an event, from the constraint's text.
fn action(constraint: &Constraint, event: &str) -> Action {
    let Some(at) = constraint.definition.find(&format!(" ON {event} ")) else { return Action::Refuse };
    let rest = &constraint.definition[at + event.len() + 5..];
    if rest.starts_with("CASCADE") {
        Action::Cascade
    } else if rest.starts_with("SET NULL") {
        Action::SetNull
    } else if rest.starts_with("SET DEFAULT") {
        Action::SetDefault
    } else {
        Action::Refuse
    }
}

fn pick(row: &[Value], columns: &[usize]) -> Vec<Value> {
    columns.iter().map(|c| row.get(*c).cloned().unwrap_or_default()).collect()
}

/// A row of `width` columns with these values in these places.
fn spread(width: usize, columns: &[usize], values: &[Value]) -> Row {
    let mut row = vec![Value::Null; width];
    for (column, value) in columns.iter().zip(values) {
        if let Some(slot) = row.get_mut(*column) {
            *slot = value.clone();
        }
    }
    row
}

/// Integers of the other width, so that int4 refers to int8.
fn fit(values: Vec<Value>, from: &TableSchema, from_columns: &[usize], to: &TableSchema, to_columns: &[usize]) -> Option<Vec<Value>> {
    values
        .into_iter()
        .zip(from_columns.iter().zip(to_columns))
        .map(|(value, (a, b))| {
            let (from, to) = (from.columns.get(*a)?.data_type.oid, to.columns.get(*b)?.data_type.oid);
            if from == to {
                return Some(value);
            }
            let number = match &value {
                Value::Int2(v) => i64::from(*v),
                Value::Int4(v) => i64::from(*v),
                Value::Int8(v) => *v,
                _ => return Some(value),
            };
            Some(match to {
                21 => Value::Int2(i16::try_from(number).ok()?),
                23 => Value::Int4(i32::try_from(number).ok()?),
                _ => Value::Int8(number),
            })
        })
        .collect()
}

/// The keys of the rows of a table that have these values in these columns.
fn rows_with(data: &TableData, columns: &[usize], values: &[Value]) -> Result<Vec<Vec<u8>>> {
    let schema = data.schema();
    for index in schema.indexes.iter().filter(|i| i.is_stored()) {
        let leading: Option<Vec<usize>> = index
            .columns
            .iter()
            .take(columns.len())
            .map(|c| match c.key {
                IndexKey::Column(at) => columns.iter().position(|x| *x == at),
                IndexKey::Expression(_) => None,
            })
            .collect();
        if let Some(order) = leading
            && order.len() == columns.len()
        {
            let ordered: Vec<Value> = order.iter().map(|i| values[*i].clone()).collect();
            return Ok(data.index_lookup(index.oid, &ordered)?);
        }
    }
    let mut found = Vec::new();
    let mut cursor = data.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    while let Some((key, row)) = cursor.next_row()? {
        if columns.iter().zip(values).all(|(c, v)| row.get(*c) == Some(v)) {
            found.push(key);
        }
    }
    Ok(found)
}

fn shown_key(context: &StatementContext, table: &TableSchema, columns: &[usize], values: &[Value]) -> String {
    let names = columns.iter().map(|c| table.columns[*c].name.as_str()).collect::<Vec<_>>().join(", ");
    let values = columns
        .iter()
        .zip(values)
        .map(|(c, v)| casts::output(context, &table.columns[*c].data_type, &Datum::from(v)).unwrap_or_default())
        .collect::<Vec<_>>()
        .join(", ");
    format!("({names})=({values})")
}

fn refers(constraint: &Constraint) -> Option<(Oid, &[usize])> {
    match &constraint.kind {
        ConstraintKind::ForeignKey { table, columns } => Some((*table, columns)),
        ConstraintKind::Check { .. } => None,
    }
}

fn violation(context: &StatementContext, table: &TableSchema, constraint: &Constraint, message: String, detail: String) -> SqlError {
    let mut error = SqlError::new(ErrorCode::ForeignKeyViolation, message).detail(detail);
    error.schema = context.root.catalog().schema_name(table.schema_oid).map(str::to_owned);
    error.table = Some(table.name.clone());
    error.constraint = Some(constraint.name.clone());
    error
}

/// A referring row must find its key.
fn check_refers(context: &StatementContext, edit: &Edit, table: &TableSchema, constraint: &Constraint, row: &[Value]) -> Result<()> {
    let Some((target, target_columns)) = refers(constraint) else { return Ok(()) };
    let values = pick(row, &constraint.columns);
    if values.iter().any(Value::is_null) {
        return Ok(());
    }
    let Some(data) = edit.root().table(target) else { return Ok(()) };
    let found = match fit(values.clone(), table, &constraint.columns, data.schema(), target_columns) {
        Some(fitted) => data.find_row(target_columns, &spread(data.schema().columns.len(), target_columns, &fitted))?.is_some(),
        None => false,
    };
    if found {
        return Ok(());
    }
    Err(violation(
        context,
        table,
        constraint,
        format!("insert or update on table \"{}\" violates foreign key constraint \"{}\"", table.name, constraint.name),
        format!("Key {} is not present in table \"{}\".", shown_key(context, table, &constraint.columns, &values), data.schema().name),
    ))
}

/// Enforces the foreign keys that a statement's changes of one table concern.
pub fn enforce(context: &Arc<StatementContext>, edit: &mut Edit, table: Oid, changes: &[Change]) -> Result<()> {
    if context.settings.get("session_replication_role").is_some_and(|r| r == "replica") {
        return Ok(());
    }
    enforce_at(context, edit, table, changes, 0)
}

fn enforce_at(context: &Arc<StatementContext>, edit: &mut Edit, table: Oid, changes: &[Change], depth: usize) -> Result<()> {
    if depth > CASCADE_DEPTH_MAX {
        return Err(SqlError::new(ErrorCode::StatementTooComplex, "foreign keys cascade too deeply"));
    }
    let Some(schema) = edit.table_schema(table).cloned() else { return Ok(()) };
    for constraint in schema.constraints.iter().filter(|c| refers(c).is_some()) {
        for change in changes {
            let Some(new) = &change.new else { continue };
            let unchanged = change.old.as_ref().is_some_and(|old| pick(old, &constraint.columns) == pick(new, &constraint.columns));
            if !unchanged {
                check_refers(context, edit, &schema, constraint, new)?;
            }
        }
    }
    if changes.iter().all(|c| c.old.is_none()) {
        return Ok(());
    }
    let catalog = edit.root().catalog().clone();
    for referring in catalog.tables() {
        for constraint in &referring.constraints {
            let Some((target, target_columns)) = refers(constraint) else { continue };
            if target != table {
                continue;
            }
            for change in changes {
                if let Some(old) = &change.old {
                    key_went(context, edit, &schema, referring, constraint, target_columns, old, change.new.as_ref(), depth)?;
                }
            }
        }
    }
    Ok(())
}

/// A referenced row went or got another key: what refers to the old key follows, or the statement is refused.
#[allow(clippy::too_many_arguments)]
fn key_went(
    context: &Arc<StatementContext>,
    edit: &mut Edit,
    table: &TableSchema,
    referring: &Arc<TableSchema>,
    constraint: &Constraint,
    target_columns: &[usize],
    old: &Row,
    new: Option<&Row>,
    depth: usize,
) -> Result<()> {
    let old_key = pick(old, target_columns);
    let new_key = new.map(|row| pick(row, target_columns));
    if old_key.iter().any(Value::is_null) || new_key.as_ref() == Some(&old_key) {
        return Ok(());
    }
    // Another row of the statement may have taken the key.
    if let Some(data) = edit.root().table(table.oid)
        && data.find_row(target_columns, &spread(table.columns.len(), target_columns, &old_key))?.is_some()
    {
        return Ok(());
    }
    let Some(fitted) = fit(old_key.clone(), table, target_columns, referring, &constraint.columns) else { return Ok(()) };
    let Some(data) = edit.root().table(referring.oid).cloned() else { return Ok(()) };
    let keys = rows_with(&data, &constraint.columns, &fitted)?;
    if keys.is_empty() {
        return Ok(());
    }
    let action = action(constraint, if new.is_some() { "UPDATE" } else { "DELETE" });
    if action == Action::Refuse {
        return Err(violation(
            context,
            referring,
            constraint,
            format!(
                "update or delete on table \"{}\" violates foreign key constraint \"{}\" on table \"{}\"",
                table.name, constraint.name, referring.name
            ),
            format!("Key {} is still referenced from table \"{}\".", shown_key(context, table, target_columns, &old_key), referring.name),
        ));
    }
    let filler = match action {
        Action::SetDefault => Some(super::Filler::new(context, referring, &constraint.columns)?),
        _ => None,
    };
    let checks = super::Checks::new(context, referring)?;
    let mut changes = Vec::new();
    for key in keys {
        context.check_cancel()?;
        let Some(old) = data.get(&key)? else { continue };
        if action == Action::Cascade && new_key.is_none() {
            edit.delete(referring.oid, &key)?;
            changes.push(Change { old: Some(old), new: None });
            continue;
        }
        let mut row = old.clone();
        match (&filler, &new_key, action) {
            (Some(filler), _, _) => filler.fill(&mut row)?,
            (None, Some(new_key), Action::Cascade) => {
                let fitted = fit(new_key.clone(), table, target_columns, referring, &constraint.columns)
                    .ok_or_else(|| SqlError::new(ErrorCode::NumericValueOutOfRange, "integer out of range"))?;
                for (column, value) in constraint.columns.iter().zip(fitted) {
                    row[*column] = value;
                }
            }
            _ => constraint.columns.iter().for_each(|c| row[*c] = Value::Null),
        }
        checks.generate(&mut row)?;
        checks.check(&row)?;
        edit.update(referring.oid, &key, row.clone())?;
        changes.push(Change { old: Some(old), new: Some(row) });
    }
    enforce_at(context, edit, referring.oid, &changes, depth + 1)
}

/// All rows of a table must meet a foreign key that is added.
pub fn validate(context: &Arc<StatementContext>, table: &TableSchema, constraint: &Constraint) -> Result<()> {
    validate_in(context, &Edit::new(context.root.clone()), table, &[constraint])
}

/// All rows of a table, as a root has it, must meet all its foreign keys: after a bulk load.
pub fn validate_all(context: &Arc<StatementContext>, root: &Root, table: &TableSchema) -> Result<()> {
    if context.settings.get("session_replication_role").is_some_and(|r| r == "replica") {
        return Ok(());
    }
    let constraints: Vec<&Constraint> = table.constraints.iter().collect();
    validate_in(context, &Edit::new(root.clone()), table, &constraints)
}

fn validate_in(context: &Arc<StatementContext>, edit: &Edit, table: &TableSchema, constraints: &[&Constraint]) -> Result<()> {
    let Some(data) = edit.root().table(table.oid) else { return Ok(()) };
    let mut cursor = data.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    while let Some((_, row)) = cursor.next_row()? {
        context.check_cancel()?;
        for constraint in constraints {
            check_refers(context, edit, table, constraint, &row)?;
        }
    }
    Ok(())
}
