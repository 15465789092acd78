//! dolt_workspace_$t (uncommitted rows), and the conflict tables, which are empty: no merge can be under way here.

use std::sync::Arc;

use strandline_storage::diff::diff_tables;
use strandline_storage::{Kind, TableData, TableSchema, Value};

use super::mapping::Mapping;
use super::{BOOL, INT8, NUMERIC, TEXT, VersionTable, plain_columns, table_columns};
use crate::context::StatementContext;
use crate::error::Result;
use crate::system::builder::{RowIterator, Shape, text};
use crate::types::{SqlType, oid};

/// Rows of one step: what is staged, or what is changed beyond that.
fn step(
    from: Option<&Arc<TableData>>,
    to: Option<&Arc<TableData>>,
    staged: bool,
    table: &Arc<TableSchema>,
    context: &Arc<StatementContext>,
) -> Box<dyn Iterator<Item = Result<Vec<Value>>> + Send> {
    let to_mapping = to.map(|t| Mapping::new(t.schema(), table));
    let from_mapping = from.map(|t| Mapping::new(t.schema(), table));
    let width = table.columns.len();
    let context = Arc::clone(context);
    Box::new(diff_tables(from.map(|t| &**t), to.map(|t| &**t)).map(move |diff| {
        context.check_cancel()?;
        let diff = diff?;
        let kind = match (&diff.from, &diff.to) {
            (None, _) => "added",
            (Some(_), Some(_)) => "modified",
            (Some(_), None) => "removed",
        };
        let mut row = vec![Value::Bool(staged), text(kind)];
        for (mapping, values) in [(&to_mapping, &diff.to), (&from_mapping, &diff.from)] {
            row.extend((0..width).map(|i| match (mapping, values) {
                (Some(mapping), Some(values)) => mapping.value(values, i),
                _ => Value::Null,
            }));
        }
        Ok(row)
    }))
}

/// `dolt_workspace_$t`.
pub fn workspace_table(table: &Arc<TableSchema>) -> VersionTable {
    let mut columns = plain_columns(&[("id", INT8), ("staged", BOOL), ("diff_type", TEXT)]);
    columns.extend(table_columns(table, "to_"));
    columns.extend(table_columns(table, "from_"));
    let table = Arc::clone(table);
    VersionTable::new(format!("dolt_workspace_{}", table.name), Shape::from_columns(columns), move |shape, context, request| {
        let rows: RowIterator = match &context.branch {
            None => Box::new(std::iter::empty()),
            Some(branch) => {
                let (head, staged) = (branch.head_root.table(table.oid), branch.staged.table(table.oid));
                let staged_rows = step(head, staged, true, &table, context);
                let working_rows = step(staged, context.root.table(table.oid), false, &table, context);
                Box::new(staged_rows.chain(working_rows).enumerate().map(|(i, row)| {
                    let mut row = row?;
                    row.insert(0, Value::Int8(i as i64));
                    Ok(row)
                }))
            }
        };
        Ok(shape.batches(request, rows))
    })
}

fn empty(name: String, columns: Vec<(String, SqlType, Kind)>) -> VersionTable {
    VersionTable::new(name, Shape::from_columns(columns), |shape, _, request| Ok(shape.batches(request, Box::new(std::iter::empty()))))
}

/// `dolt_conflicts_$t`.
pub fn conflicts_table(table: &Arc<TableSchema>) -> VersionTable {
    let mut columns = plain_columns(&[("from_root_ish", TEXT)]);
    columns.extend(table_columns(table, "base_"));
    columns.extend(table_columns(table, "our_"));
    columns.extend(plain_columns(&[("our_diff_type", TEXT)]));
    columns.extend(table_columns(table, "their_"));
    columns.extend(plain_columns(&[("their_diff_type", TEXT), ("dolt_conflict_id", TEXT)]));
    if table.primary_key.is_none() {
        columns.extend(plain_columns(&[("base_cardinality", NUMERIC), ("our_cardinality", NUMERIC), ("their_cardinality", NUMERIC)]));
    }
    empty(format!("dolt_conflicts_{}", table.name), columns)
}

/// `dolt_constraint_violations_$t`.
pub fn constraint_violations_table(table: &Arc<TableSchema>) -> VersionTable {
    let mut columns = plain_columns(&[("from_root_ish", TEXT)]);
    columns.push(("violation_type".into(), SqlType { oid: oid::VARCHAR, typmod: 16 + 4 }, Kind::Text));
    if table.primary_key.is_none() {
        columns.extend(plain_columns(&[("dolt_row_hash", TEXT)]));
    }
    columns.extend(table_columns(table, ""));
    columns.extend(plain_columns(&[("violation_info", oid::JSON)]));
    empty(format!("dolt_constraint_violations_{}", table.name), columns)
}
