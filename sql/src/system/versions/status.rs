//! dolt_status and the other tables about what is not committed: merge status, conflicts, schemas.

use std::collections::BTreeMap;
use std::sync::Arc;

use strandline_storage::diff::diff_roots;
use strandline_storage::{CatalogObject, Root, Row, Value};

use super::{BOOL, TEXT, hash, numeric, qualified_object_name, source_values};
use crate::context::StatementContext;
use crate::error::Result;
use crate::system::builder::{Shape, text};
use crate::system::definitions::create_text;
use crate::system::pg_catalog::server_rows::value_of;
use crate::types::{Oid, oid};
use crate::virtual_table::{BatchIterator, ScanRequest};

pub const STATUS_COLUMNS: &[(&str, Oid)] = &[("table_name", TEXT), ("staged", BOOL), ("status", TEXT)];
pub const STATUS_IGNORED_COLUMNS: &[(&str, Oid)] = &[("table_name", TEXT), ("staged", BOOL), ("status", TEXT), ("ignored", BOOL)];

/// Changes of the primary that met a local change of the same row and did not enter the working set.
pub const LOCAL_CONFLICTS_COLUMNS: &[(&str, Oid)] = &[
    ("table_name", TEXT),
    ("row_key", TEXT),
    ("commit_hash", TEXT),
    ("source_lsn", oid::PG_LSN),
    ("source_xid", oid::INT8),
    ("source_commit_time", oid::TIMESTAMPTZ),
];

/// Conflicts of the stream with committed rows, which the server keeps.
pub const REPLICATION_CONFLICTS_COLUMNS: &[(&str, Oid)] = &[
    ("subscription", TEXT),
    ("time", oid::TIMESTAMPTZ),
    ("conflict", TEXT),
    ("resolution", TEXT),
    ("table_name", TEXT),
    ("row_key", TEXT),
    ("source_lsn", oid::PG_LSN),
    ("source_xid", oid::INT8),
    ("our_row", oid::JSON),
    ("their_row", oid::JSON),
];

/// Where each subscription is, as the server knows it.
pub const REPLICATION_STATUS_COLUMNS: &[(&str, Oid)] = &[
    ("subscription", TEXT),
    ("database", TEXT),
    ("branch", TEXT),
    ("state", TEXT),
    ("slot_name", TEXT),
    ("received_lsn", oid::PG_LSN),
    ("applied_lsn", oid::PG_LSN),
    ("durable_lsn", oid::PG_LSN),
    ("last_commit_time", oid::TIMESTAMPTZ),
    ("transactions", oid::INT8),
    ("primary_lsn", oid::PG_LSN),
    ("primary_time", oid::TIMESTAMPTZ),
    ("lag_bytes", oid::INT8),
    ("lag_seconds", oid::FLOAT8),
    ("slot_wal_bytes", oid::INT8),
    ("slot_wal_status", TEXT),
    ("slot_safe_wal_size", oid::INT8),
    ("tables", oid::JSONB),
    ("stopped_tables", oid::JSONB),
    ("errors", oid::INT8),
    ("last_error", TEXT),
    ("last_error_time", oid::TIMESTAMPTZ),
    ("next_retry", oid::TIMESTAMPTZ),
];

/// What happened to an object between two roots, in Dolt's words.
fn status_word(from: Option<&CatalogObject>, to: Option<&CatalogObject>) -> &'static str {
    match (from, to) {
        (None, Some(CatalogObject::Schema(_))) => "new schema",
        (Some(CatalogObject::Schema(_)), None) => "deleted schema",
        (None, _) => "new table",
        (_, None) => "deleted",
        (Some(from), Some(to)) if from.name() != to.name() || from.schema_oid() != to.schema_oid() => "renamed",
        (Some(_), Some(_)) => "modified",
    }
}

/// Rows of dolt_status (and of dolt_status_ignored: nothing is ignored here) for one step.
fn changes(from: &Root, to: &Root, staged: bool, rows: &mut Vec<Row>) -> Result<()> {
    for diff in diff_roots(from, to)? {
        let word = status_word(diff.from.as_deref(), diff.to.as_deref());
        let old_name = diff.from.as_ref().map(|o| qualified_object_name(from.catalog(), o));
        let new_name = diff.to.as_ref().map(|o| qualified_object_name(to.catalog(), o));
        let name = match (old_name, new_name) {
            (Some(old), Some(new)) if word == "renamed" => format!("{old} -> {new}"),
            (_, Some(name)) | (Some(name), None) => name,
            (None, None) => continue,
        };
        rows.push(vec![text(name), Value::Bool(staged), text(word), Value::Bool(false)]);
    }
    Ok(())
}

pub fn scan_status(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let mut rows = Vec::new();
    if let Some(branch) = &context.branch {
        changes(&branch.head_root, &branch.staged, true, &mut rows)?;
        changes(&branch.staged, &context.root, false, &mut rows)?;
    }
    Ok(shape.batches(request, Box::new(rows.into_iter().map(Ok))))
}

/// One row: no merge is ever under way here.
pub fn scan_merge_status(shape: &Shape, _context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let row = vec![Value::Bool(false), Value::Null, Value::Null, Value::Null, Value::Null];
    Ok(shape.batches(request, Box::new(std::iter::once(Ok(row)))))
}

/// Conflicts of replicated changes with local ones, counted by table.
pub fn scan_conflicts(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (table, _, _) in context.branch.iter().flat_map(|b| &b.conflicts) {
        *counts.entry(table_name(context, *table)).or_default() += 1;
    }
    let rows = counts.into_iter().map(|(table, count)| Ok(vec![text(table), numeric(count)]));
    Ok(shape.batches(request, Box::new(rows)))
}

pub fn scan_local_conflicts(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let conflicts = context.branch.as_ref().map(|b| b.conflicts.clone()).unwrap_or_default();
    let context = Arc::clone(context);
    let rows = conflicts.into_iter().map(move |(table, key, id)| {
        let commit = context.store.commit(id)?;
        let [lsn, xid, time, _, _] = source_values(Some(&commit));
        Ok(vec![text(table_name(&context, table)), text(key), hash(id), lsn, xid, time])
    });
    Ok(shape.batches(request, Box::new(rows)))
}

/// The latest conflicts of the stream with rows here, oldest first.
pub fn scan_replication_conflicts(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    scan_server_rows("strand_replication_conflicts", REPLICATION_CONFLICTS_COLUMNS, shape, context, request)
}

pub fn scan_replication_status(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    scan_server_rows("strand_replication_status", REPLICATION_STATUS_COLUMNS, shape, context, request)
}

fn scan_server_rows(
    table: &str,
    columns: &'static [(&'static str, Oid)],
    shape: &Shape,
    context: &Arc<StatementContext>,
    request: &ScanRequest,
) -> Result<BatchIterator> {
    let rows = context.session.server_rows(table).into_iter();
    let rows = rows.map(|json| columns.iter().map(|(name, ty)| value_of(*ty, name, &json[*name])).collect::<Result<Row>>());
    Ok(shape.batches(request, Box::new(rows.collect::<Vec<_>>().into_iter())))
}

fn table_name(context: &StatementContext, table: Oid) -> String {
    let roots = [Some(&context.root), context.branch.as_ref().map(|b| &b.head_root)];
    let name = roots.into_iter().flatten().find_map(|r| r.catalog().get(table).map(|o| qualified_object_name(r.catalog(), o)));
    name.unwrap_or_else(|| table.to_string())
}

/// Views, as Dolt keeps them.
pub fn scan_schemas(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let catalog = context.root.catalog();
    let rows: Vec<Row> = catalog
        .objects
        .values()
        .filter(|o| matches!(&***o, CatalogObject::View(_)))
        .map(|o| vec![text("view"), text(o.name()), text(create_text(catalog, o)), Value::Null, Value::Null])
        .collect();
    Ok(shape.batches(request, Box::new(rows.into_iter().map(Ok))))
}
