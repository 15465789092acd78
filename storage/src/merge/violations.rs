//! Constraints that rows break because of what the other side did: NOT NULL, foreign keys, checks.
//!
//! Each side keeps its constraints. So a row that both have breaks none in the merged root value, and neither does what it refers to: it is enough
//! to look at the rows that differ from one of the sides, which are those that a side changed.

use std::collections::BTreeSet;

use super::{MergeOptions, Violation, ViolationKind};
use crate::diff::diff_tables;
use crate::error::Result;
use crate::root::Root;
use crate::schema::{Constraint, ConstraintKind, Oid, TableSchema};
use crate::table::TableData;
use crate::value::{DataType, TextSettings, Value};

/// Appends what the rows of a table break that differ from one of the sides'.
pub(super) fn find(root: &Root, sides: [&Root; 2], oid: Oid, options: &MergeOptions<'_>, found: &mut Vec<Violation>) -> Result<()> {
    let Some(table) = root.table(oid) else { return Ok(()) };
    let schema = table.schema();
    let checks = |c: &Constraint| options.check.is_some() || matches!(c.kind, ConstraintKind::ForeignKey { .. });
    if !schema.columns.iter().any(|c| c.not_null) && !schema.constraints.iter().any(checks) {
        return Ok(());
    }
    let mut keys = BTreeSet::new();
    for side in sides {
        for difference in diff_tables(side.table(oid).map(|t| &**t), Some(table)) {
            let difference = difference?;
            if difference.to.is_some() {
                keys.insert(difference.key);
            }
        }
    }
    for key in keys {
        let Some(row) = table.get(&key)? else { continue };
        let mut report = |kind| found.push(Violation { table: oid, key: key.clone(), row: row.clone(), kind });
        for (column, value) in row.iter().enumerate() {
            if value.is_null() && schema.columns[column].not_null {
                report(ViolationKind::NotNull { column });
            }
        }
        for constraint in &schema.constraints {
            match &constraint.kind {
                ConstraintKind::ForeignKey { table: target, columns } => {
                    if !refers_to_a_row(root, schema, constraint, *target, columns, &row)? {
                        report(ViolationKind::ForeignKey { constraint: constraint.oid });
                    }
                }
                ConstraintKind::Check { .. } => {
                    if let Some(check) = options.check
                        && !check(schema, constraint, &row)?
                    {
                        report(ViolationKind::Check { constraint: constraint.oid });
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether the row that a foreign key refers to is there, or the key is NULL in the way that needs none.
fn refers_to_a_row(
    root: &Root,
    child: &TableSchema,
    constraint: &Constraint,
    target: Oid,
    columns: &[usize],
    row: &[Value],
) -> Result<bool> {
    let null_count = constraint.columns.iter().filter(|c| row[**c].is_null()).count();
    if null_count > 0 {
        return Ok(!constraint.definition.contains("MATCH FULL") || null_count == constraint.columns.len());
    }
    let Some(parent) = root.table(target) else { return Ok(false) };
    let mut values = Vec::with_capacity(columns.len());
    for (own, there) in constraint.columns.iter().zip(columns) {
        let Some(column) = parent.schema().columns.get(*there) else { return Ok(false) };
        match in_type(&row[*own], &child.columns[*own].data_type, &column.data_type) {
            Some(value) => values.push(value),
            None => return Ok(false),
        }
    }
    holds(parent, columns, &values)
}

/// Whether a row of the table has these values, by the key or unique index on exactly these columns.
fn holds(parent: &TableData, columns: &[usize], values: &[Value]) -> Result<bool> {
    let shape = &parent.shape;
    let keys = shape.key.iter().map(|key| (key, &parent.rows));
    let indexes = shape.indexes.iter().zip(&parent.indexes).map(|(index, tree)| (&index.columns, tree));
    for (key, tree) in keys.chain(indexes) {
        let value = |position: usize| columns.iter().position(|c| *c == position).map(|at| &values[at]);
        let Some(in_order) = key.iter().map(|c| value(c.position)).collect::<Option<Vec<_>>>() else { continue };
        if in_order.len() != columns.len() {
            continue;
        }
        let mut prefix = Vec::new();
        shape.encode_columns(&mut prefix, key, in_order.into_iter());
        return Ok(tree.seek(&prefix)?.is_some_and(|(leaf, at)| leaf.key(at).starts_with(&prefix)));
    }
    let mut row = vec![Value::Null; shape.schema.columns.len()];
    for (column, value) in columns.iter().zip(values) {
        row[*column] = value.clone();
    }
    Ok(parent.find_row(columns, &row)?.is_some())
}

/// A value in the type of the column that it refers to; `None`: no value of that type is equal to it.
fn in_type(value: &Value, from: &DataType, to: &DataType) -> Option<Value> {
    if from.kind.physical() == to.kind.physical() {
        return Some(value.clone());
    }
    let settings = TextSettings::default();
    to.parse(&from.to_text(value, &settings), &settings).ok()
}
