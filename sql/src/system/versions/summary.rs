//! dolt_diff_stat, dolt_diff_summary, dolt_schema_diff: two roots compared table by table.

use std::sync::Arc;

use strandline_storage::diff::{ObjectDiff, diff_roots, diff_tables};
use strandline_storage::{CatalogObject, Root, Row, TableSchema, Value};

use super::diff::{end_roots, range_arguments};
use super::mapping::{Mapping, find_table_named, undefined_table};
use super::{Arguments, BOOL, INT8, TEXT, VersionTable, qualified_object_name};
use crate::context::StatementContext;
use crate::error::Result;
use crate::system::builder::{Shape, text};
use crate::system::definitions::create_text;

/// Checks the number of arguments of a function that takes two ends and perhaps a table; gives the table's name.
fn table_argument(arguments: &Arguments) -> Result<Option<&str>> {
    let Some((_, position)) = range_arguments(arguments)? else { return Ok(None) };
    match arguments.len() {
        n if n == position => Ok(None),
        n if n == position + 1 => arguments.text(position),
        _ => Err(arguments.wrong_count()),
    }
}

/// The objects that differ between the two ends, of the named table alone where one is named.
fn differing(context: &StatementContext, arguments: &Arguments) -> Result<(Root, Root, Vec<ObjectDiff>)> {
    let (from, to) = end_roots(context, arguments)?;
    let mut diffs = diff_roots(&from, &to)?;
    if let Some(name) = table_argument(arguments)? {
        let find = |root: &Root| find_table_named(context, root.catalog(), name);
        let oids: Vec<u32> = [find(&to)?, find(&from)?].into_iter().flatten().map(|t| t.oid).collect();
        if oids.is_empty() {
            return Err(undefined_table(name));
        }
        diffs.retain(|d| oids.contains(&d.oid));
    }
    Ok((from, to, diffs))
}

fn as_table(object: &Option<Arc<CatalogObject>>) -> Option<&Arc<TableSchema>> {
    match object.as_deref() {
        Some(CatalogObject::Table(table)) => Some(table),
        _ => None,
    }
}

fn is_table(diff: &ObjectDiff) -> bool {
    as_table(&diff.from).or(as_table(&diff.to)).is_some()
}

fn names(diff: &ObjectDiff, from: &Root, to: &Root) -> (String, String) {
    let name = |object: &Option<Arc<CatalogObject>>, root: &Root| {
        object.as_ref().map(|o| qualified_object_name(root.catalog(), o)).unwrap_or_default()
    };
    (name(&diff.from, from), name(&diff.to, to))
}

/// `dolt_diff_stat(from, to [, 't'])`.
pub fn stat_function(arguments: Arguments) -> Result<VersionTable> {
    table_argument(&arguments)?;
    let shape = Shape::of(&[
        ("table_name", TEXT),
        ("rows_unmodified", INT8),
        ("rows_added", INT8),
        ("rows_deleted", INT8),
        ("rows_modified", INT8),
        ("cells_added", INT8),
        ("cells_deleted", INT8),
        ("cells_modified", INT8),
        ("old_row_count", INT8),
        ("new_row_count", INT8),
        ("old_cell_count", INT8),
        ("new_cell_count", INT8),
    ]);
    Ok(VersionTable::new("dolt_diff_stat", shape, move |shape, context, request| {
        let (from, to, diffs) = differing(context, &arguments)?;
        let context = Arc::clone(context);
        let rows = diffs.into_iter().filter(is_table).filter_map(move |diff| stat_row(&context, &from, &to, &diff).transpose());
        Ok(shape.batches(request, Box::new(rows)))
    }))
}

fn stat_row(context: &StatementContext, from: &Root, to: &Root, diff: &ObjectDiff) -> Result<Option<Row>> {
    let (from_table, to_table) = (from.table(diff.oid), to.table(diff.oid));
    let counts = |table: Option<&Arc<strandline_storage::TableData>>| {
        table.map_or((0, 0), |t| (t.len() as i64, t.len() as i64 * t.schema().columns.len() as i64))
    };
    let ((old_rows, old_cells), (new_rows, new_cells)) = (counts(from_table), counts(to_table));
    // Old rows in the new columns, to count the cells that differ; columns that only one side has count as added or deleted.
    let mapping = from_table.zip(to_table).map(|(f, t)| Mapping::new(f.schema(), t.schema()));
    let kept = from_table
        .zip(to_table)
        .map_or(0, |(f, t)| t.schema().columns.iter().filter(|c| f.schema().columns.iter().any(|o| o.attnum == c.attnum)).count() as i64);
    let (old_width, new_width) = (counts_width(from_table), counts_width(to_table));
    let (mut added, mut deleted, mut modified, mut cells_modified) = (0i64, 0i64, 0i64, 0i64);
    for (i, row) in diff_tables(from_table.map(|t| &**t), to_table.map(|t| &**t)).enumerate() {
        if i % 1024 == 0 {
            context.check_cancel()?;
        }
        let row = row?;
        match (&row.from, &row.to) {
            (None, _) => added += 1,
            (_, None) => deleted += 1,
            (Some(old), Some(new)) => {
                modified += 1;
                let Some(mapping) = &mapping else { continue };
                cells_modified +=
                    new.iter().enumerate().filter(|(i, value)| mapping.has(*i) && mapping.value(old, *i) != **value).count() as i64;
            }
        }
    }
    if added == 0 && deleted == 0 && modified == 0 && from_table.is_some() == to_table.is_some() {
        return Ok(None);
    }
    let unmodified = old_rows - deleted - modified;
    let survivors = old_rows - deleted;
    let name = diff.to.as_ref().map(|o| qualified_object_name(to.catalog(), o));
    let name = name.or_else(|| diff.from.as_ref().map(|o| qualified_object_name(from.catalog(), o))).unwrap_or_default();
    let mut out = vec![text(name)];
    let cells_added = added * new_width + if to_table.is_some() { survivors * (new_width - kept) } else { 0 };
    let cells_deleted = deleted * old_width + if from_table.is_some() && to_table.is_some() { survivors * (old_width - kept) } else { 0 };
    let numbers =
        [unmodified, added, deleted, modified, cells_added, cells_deleted, cells_modified, old_rows, new_rows, old_cells, new_cells];
    out.extend(numbers.map(Value::Int8));
    Ok(Some(out))
}

fn counts_width(table: Option<&Arc<strandline_storage::TableData>>) -> i64 {
    table.map_or(0, |t| t.schema().columns.len() as i64)
}

/// `dolt_diff_summary(from, to [, 't'])`.
pub fn summary_function(arguments: Arguments) -> Result<VersionTable> {
    table_argument(&arguments)?;
    let shape = Shape::of(&[
        ("from_table_name", TEXT),
        ("to_table_name", TEXT),
        ("diff_type", TEXT),
        ("data_change", BOOL),
        ("schema_change", BOOL),
    ]);
    Ok(VersionTable::new("dolt_diff_summary", shape, move |shape, context, request| {
        let (from, to, diffs) = differing(context, &arguments)?;
        let rows: Vec<Row> = diffs
            .iter()
            .map(|diff| {
                let (old, new) = names(diff, &from, &to);
                let kind = match (&diff.from, &diff.to) {
                    (None, _) => "added",
                    (_, None) => "dropped",
                    (Some(_), Some(_)) if old != new => "renamed",
                    (Some(_), Some(_)) => "modified",
                };
                vec![text(old), text(new), text(kind), Value::Bool(diff.data_changed), Value::Bool(diff.from != diff.to)]
            })
            .collect();
        Ok(shape.batches(request, Box::new(rows.into_iter().map(Ok))))
    }))
}

/// `dolt_schema_diff(from, to [, 't'])`.
pub fn schema_diff_function(arguments: Arguments) -> Result<VersionTable> {
    table_argument(&arguments)?;
    let shape =
        Shape::of(&[("from_table_name", TEXT), ("to_table_name", TEXT), ("from_create_statement", TEXT), ("to_create_statement", TEXT)]);
    Ok(VersionTable::new("dolt_schema_diff", shape, move |shape, context, request| {
        let (from, to, diffs) = differing(context, &arguments)?;
        let rows: Vec<Row> = diffs
            .iter()
            .filter(|diff| diff.from != diff.to)
            .map(|diff| {
                let (old, new) = names(diff, &from, &to);
                let statement = |object: &Option<Arc<CatalogObject>>, root: &Root| {
                    text(object.as_ref().map(|o| create_text(root.catalog(), o)).unwrap_or_default())
                };
                vec![text(old), text(new), statement(&diff.from, &from), statement(&diff.to, &to)]
            })
            .collect();
        Ok(shape.batches(request, Box::new(rows.into_iter().map(Ok))))
    }))
}
