//! dolt_diff and dolt_column_diff: which commit changed which table, and which column, read from the commits' change sets.
//!
//! A change set names tables by oid. Their names come from the catalog of the commit, and the catalog of a commit is its
//! parent's unless its change set has catalog changes: so catalogs are read from the store only where they changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use strandline_storage::change_set::RowsChange;
use strandline_storage::diff::{diff_roots, diff_tables};
use strandline_storage::{Catalog, CatalogObject, Commit, CommitId, Root, Row, RowChangeKind, Value};

use super::{BOOL, TEXT, TIMESTAMP, hash, qualified_object_name, source_values, timestamp};
use crate::context::StatementContext;
use crate::error::Result;
use crate::system::builder::{RowIterator, Shape, text};
use crate::system::refs::Resolver;
use crate::types::Oid;
use crate::virtual_table::{BatchIterator, ScanRequest};

pub const DIFF_COLUMNS: &[(&str, Oid)] = &[
    ("commit_hash", TEXT),
    ("table_name", TEXT),
    ("committer", TEXT),
    ("email", TEXT),
    ("date", TIMESTAMP),
    ("message", TEXT),
    ("data_change", BOOL),
    ("schema_change", BOOL),
    ("author", TEXT),
    ("author_email", TEXT),
    ("author_date", TIMESTAMP),
];

pub const COLUMN_DIFF_COLUMNS: &[(&str, Oid)] = &[
    ("commit_hash", TEXT),
    ("table_name", TEXT),
    ("column_name", TEXT),
    ("committer", TEXT),
    ("email", TEXT),
    ("date", TIMESTAMP),
    ("message", TEXT),
    ("diff_type", TEXT),
    ("author", TEXT),
    ("author_email", TEXT),
    ("author_date", TIMESTAMP),
];

/// Catalogs along a walk from newer to older commits.
struct Catalogs {
    context: Arc<StatementContext>,
    known: HashMap<CommitId, Arc<Catalog>>,
}

impl Catalogs {
    fn of(&self, commit: CommitId) -> Result<Arc<Catalog>> {
        match self.known.get(&commit) {
            Some(catalog) => Ok(Arc::clone(catalog)),
            None => Ok(self.context.store.catalog_at(commit)?),
        }
    }

    /// The catalogs after and before a commit, and what is known of its parents for when the walk gets there.
    fn pass(&mut self, commit: &Commit) -> Result<(Arc<Catalog>, Arc<Catalog>)> {
        let after = match self.known.remove(&commit.id) {
            Some(catalog) => catalog,
            None => self.of(commit.id)?,
        };
        let Some(parent) = commit.parents.first() else { return Ok((after, Arc::new(Catalog::default()))) };
        let before = if commit.changes()?.catalog.is_empty() { Arc::clone(&after) } else { self.of(*parent)? };
        self.known.insert(*parent, Arc::clone(&before));
        Ok((after, before))
    }
}

/// What happened to one object in a commit.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    data: bool,
    schema: bool,
}

fn changes_of(context: &StatementContext, commit: &Commit) -> Result<BTreeMap<Oid, Change>> {
    let mut changes: BTreeMap<Oid, Change> = BTreeMap::new();
    let change_set = commit.changes()?;
    for change in &change_set.catalog {
        changes.entry(change.oid).or_default().schema = true;
    }
    for change in &change_set.tables {
        let data = match &change.rows {
            RowsChange::Rows(rows) => !rows.is_empty(),
            // Rows that were only brought into a new definition may all be what they were.
            RowsChange::Replaced { .. } if changes.contains_key(&change.table) => differ(context, commit, change.table)?,
            RowsChange::Replaced { .. } => true,
            // With the table went its rows, if it had any.
            RowsChange::Dropped => differ(context, commit, change.table)?,
        };
        let entry = changes.entry(change.table).or_default();
        entry.data |= data;
        entry.schema |= matches!(change.rows, RowsChange::Dropped);
    }
    Ok(changes)
}

/// Says whether a table's rows differ before and after a commit.
fn differ(context: &StatementContext, commit: &Commit, table: Oid) -> Result<bool> {
    let after = context.store.root(commit.id)?;
    let before = commit.parents.first().map(|parent| context.store.root(*parent)).transpose()?;
    let before = before.as_ref().and_then(|root| root.table(table));
    Ok(diff_tables(before.map(|t| &**t), after.table(table).map(|t| &**t)).next().transpose()?.is_some())
}

fn object_name(after: &Catalog, before: &Catalog, object: Oid) -> String {
    let name = |catalog: &Catalog| catalog.get(object).map(|o| qualified_object_name(catalog, o));
    name(after).or_else(|| name(before)).unwrap_or_else(|| object.to_string())
}

fn diff_row(commit: &Commit, name: &str, change: Change) -> Row {
    let meta = &commit.meta;
    let mut row = vec![
        hash(commit.id),
        text(name),
        text(&meta.committer.name),
        text(&meta.committer.email),
        timestamp(meta.commit_time),
        text(&meta.message),
        Value::Bool(change.data),
        Value::Bool(change.schema),
        text(&meta.author.name),
        text(&meta.author.email),
        timestamp(meta.author_time),
    ];
    row.extend(source_values(Some(commit)));
    row
}

/// What is not committed yet, in the same columns: `WORKING`, `STAGED`.
fn uncommitted(from: &Root, to: &Root, label: &str, rows: &mut Vec<Row>) -> Result<()> {
    for diff in diff_roots(from, to)? {
        let name = object_name(to.catalog(), from.catalog(), diff.oid);
        let mut row = vec![Value::Null; DIFF_COLUMNS.len()];
        row[0] = text(label);
        row[1] = text(name);
        row[6] = Value::Bool(diff.data_changed);
        row[7] = Value::Bool(diff.from != diff.to);
        row.extend(source_values(None));
        rows.push(row);
    }
    Ok(())
}

fn walk(context: &Arc<StatementContext>) -> Result<impl Iterator<Item = Result<(Arc<Commit>, Arc<Catalog>, Arc<Catalog>)>> + Send + use<>> {
    let head = Resolver::new(context).head_commit()?;
    let mut catalogs = Catalogs { context: Arc::clone(context), known: HashMap::new() };
    if let Some(branch) = &context.branch {
        catalogs.known.insert(branch.head, Arc::clone(branch.head_root.catalog()));
    }
    let log = context.store.log(&[head], &[])?;
    Ok(log.map(move |commit| {
        catalogs.context.check_cancel()?;
        let commit = commit?;
        let (after, before) = catalogs.pass(&commit)?;
        Ok((commit, after, before))
    }))
}

pub fn scan_diff(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let mut rows = Vec::new();
    if let Some(branch) = &context.branch {
        uncommitted(&branch.staged, &context.root, "WORKING", &mut rows)?;
        uncommitted(&branch.head_root, &branch.staged, "STAGED", &mut rows)?;
    }
    let changes_context = Arc::clone(context);
    let committed = walk(context)?.flat_map(move |item| match item {
        Err(error) => vec![Err(error)],
        Ok((commit, after, before)) => {
            let row = |(object, change)| Ok(diff_row(&commit, &object_name(&after, &before, object), change));
            match changes_of(&changes_context, &commit) {
                Ok(changes) => changes.into_iter().map(row).collect(),
                Err(error) => vec![Err(error)],
            }
        }
    });
    let rows: RowIterator = Box::new(rows.into_iter().map(Ok).chain(committed));
    Ok(shape.batches(request, rows))
}

/// What happened to the columns of a table in a commit: by attnum, in the words of `diff_type`.
fn column_changes(commit: &Commit, after: &Catalog, before: &Catalog, table: Oid) -> Result<BTreeMap<i16, (String, &'static str)>> {
    let mut columns = BTreeMap::new();
    let (new, old) = (after.table(table), before.table(table));
    for column in new.iter().flat_map(|t| &t.columns) {
        match old.and_then(|t| t.columns.iter().find(|c| c.attnum == column.attnum)) {
            None => columns.insert(column.attnum, (column.name.clone(), "added")),
            Some(before) if before != column => columns.insert(column.attnum, (column.name.clone(), "modified")),
            Some(_) => None,
        };
    }
    for column in old.iter().flat_map(|t| &t.columns) {
        if new.is_none_or(|t| t.columns.iter().all(|c| c.attnum != column.attnum)) {
            columns.insert(column.attnum, (column.name.clone(), "removed"));
        }
    }
    let mut touched: BTreeSet<usize> = BTreeSet::new();
    let mut all = false;
    for change in commit.changes()?.tables.iter().filter(|t| t.table == table) {
        match &change.rows {
            RowsChange::Rows(rows) => {
                for row in rows {
                    match &row.kind {
                        RowChangeKind::Updated { columns } => touched.extend(columns.iter().map(|(c, _, _)| usize::from(*c))),
                        RowChangeKind::Inserted { .. } | RowChangeKind::Deleted { .. } => all = true,
                    }
                }
            }
            RowsChange::Replaced { .. } => all = true,
            RowsChange::Dropped => {}
        }
    }
    for (i, column) in new.iter().flat_map(|t| &t.columns).enumerate() {
        if all || touched.contains(&i) {
            columns.entry(column.attnum).or_insert_with(|| (column.name.clone(), "modified"));
        }
    }
    Ok(columns)
}

pub fn scan_column_diff(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let changes_context = Arc::clone(context);
    let rows = walk(context)?.flat_map(move |item| match item {
        Err(error) => vec![Err(error)],
        Ok((commit, after, before)) => {
            let meta = &commit.meta;
            let mut rows = Vec::new();
            let changes = match changes_of(&changes_context, &commit) {
                Ok(changes) => changes,
                Err(error) => return vec![Err(error)],
            };
            for object in changes.into_keys() {
                let is_table = |catalog: &Catalog| matches!(catalog.get(object).map(|o| &**o), Some(CatalogObject::Table(_)));
                if !is_table(&after) && !is_table(&before) {
                    continue;
                }
                let table = object_name(&after, &before, object);
                let columns = match column_changes(&commit, &after, &before, object) {
                    Ok(columns) => columns,
                    Err(error) => return vec![Err(error)],
                };
                for (column, kind) in columns.into_values() {
                    rows.push(Ok(vec![
                        hash(commit.id),
                        text(&table),
                        text(column),
                        text(&meta.committer.name),
                        text(&meta.committer.email),
                        timestamp(meta.commit_time),
                        text(&meta.message),
                        text(kind),
                        text(&meta.author.name),
                        text(&meta.author.email),
                        timestamp(meta.author_time),
                    ]));
                }
            }
            rows
        }
    });
    Ok(shape.batches(request, Box::new(rows)))
}
