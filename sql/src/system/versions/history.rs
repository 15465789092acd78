//! dolt_history_$t: a row for every commit in which the row exists, changed there or not.
//!
//! Trees of old commits are not read. The walk starts from HEAD's rows and undoes, commit by commit, what the row history
//! says that the commit changed: the rows of a commit's parent are the commit's own with its changes taken back. So a key's
//! history costs its output, and a LIMIT stops it early. Only where that cannot be done (the table was rewritten, a
//! second parent) is a root made from the store. Commits are read only for the columns that the commit index does not have.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use strandline_storage::store::{LogEntry, RowVersion, WholeChanges};
use strandline_storage::{Catalog, CommitId, Edit, Root, Row, TableData, TableSchema, Value};

use super::diff::{WantedKey, data_for_keys, everything, versions_of, wanted_key};
use super::mapping::Mapper;
use super::{SOURCE_COLUMNS, TEXT, TIMESTAMP, VersionTable, hash, plain_columns, source_values, table_columns, timestamp};
use crate::context::StatementContext;
use crate::error::Result;
use crate::system::builder::{Shape, text};
use crate::system::refs::Resolver;
use crate::system::value_text;

/// Where a result column's value comes from.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Column(usize),
    Hash,
    Committer,
    Date,
    Source(usize),
}

/// `dolt_history_$t`.
pub fn history_table(table: &Arc<TableSchema>) -> VersionTable {
    let mut columns = table_columns(table, "");
    let mut all: Vec<Slot> = (0..columns.len()).map(Slot::Column).collect();
    columns.extend(plain_columns(&[("commit_hash", TEXT), ("committer", TEXT), ("commit_date", TIMESTAMP)]));
    all.extend([Slot::Hash, Slot::Committer, Slot::Date]);
    columns.extend(plain_columns(&SOURCE_COLUMNS));
    all.extend((0..SOURCE_COLUMNS.len()).map(Slot::Source));
    let table = Arc::clone(table);
    VersionTable::new(format!("dolt_history_{}", table.name), Shape::from_columns(columns), move |shape, context, request| {
        let slots: Vec<Slot> = request.projection.iter().map(|&i| all[i]).collect();
        let data = data_for_keys(context, table.oid);
        let key = match &data {
            Some(data) => wanted_key(shape, request, data, "")?,
            None => None,
        };
        let head = Resolver::new(context).head_commit()?;
        // A table column may be called commit_hash too; then the first of the two is meant and this is no shortcut.
        let by_hash = shape.columns.iter().filter(|c| c.name == "commit_hash").count() == 1;
        let only = shape.equal(request, "commit_hash").filter(|_| by_hash).and_then(value_text);
        let history = match only {
            Some(id) => History::of_one_commit(context, &table, head, key, slots, id)?,
            None => History::of_all(context, &table, head, key, slots)?,
        };
        Ok(shape.projected_batches(request, Box::new(history)))
    })
}

/// A table's rows, or one of them, as a commit has them.
#[derive(Clone)]
enum Rows {
    /// The one row with the wanted key.
    One(Option<Arc<(Arc<TableSchema>, Row)>>),
    /// A root that has the table's rows as the commit has them (other tables as some later commit).
    All(Root),
}

/// Changes of the table by commit, as far as they were read.
struct Changes {
    versions: std::iter::Peekable<Box<dyn Iterator<Item = strandline_storage::Result<RowVersion>> + Send>>,
    by_commit: HashMap<CommitId, Vec<RowVersion>>,
}

impl Changes {
    /// What a commit changed. Versions and the log come newest first, so all that is higher was read before.
    fn take(&mut self, commit: &LogEntry) -> Result<Vec<RowVersion>> {
        loop {
            match self.versions.peek() {
                Some(Ok(version)) if version.commit.height >= commit.height => {
                    if let Some(version) = self.versions.next().transpose()? {
                        self.by_commit.entry(version.commit.id).or_default().push(version);
                    }
                }
                Some(Err(_)) => {
                    self.versions.next().transpose()?;
                }
                Some(Ok(_)) | None => return Ok(self.by_commit.remove(&commit.id).unwrap_or_default()),
            }
        }
    }
}

struct History {
    context: Arc<StatementContext>,
    table: Arc<TableSchema>,
    key: Option<WantedKey>,
    slots: Vec<Slot>,
    log: Box<dyn Iterator<Item = strandline_storage::Result<LogEntry>> + Send>,
    changes: Changes,
    /// The commits before which the table may have had another definition.
    whole_changes: WholeChanges,
    /// The rows at commits that the walk has not reached yet, by their numbers...
    states: HashMap<u32, Rows>,
    /// ... and at the first parent of the last one, which mostly comes next.
    next: Option<(u32, Rows)>,
    mapper: Mapper,
    /// The commit whose rows are being given, and its constant columns.
    current: Option<Current>,
    failed: bool,
}

struct Current {
    columns: Constants,
    rows: CurrentRows,
}

struct Constants {
    hash: Value,
    committer: Value,
    date: Value,
    source: [Value; 5],
}

impl Constants {
    /// The columns of a commit that are wanted; the others are NULL.
    fn of(commit: &LogEntry, slots: &[Slot]) -> Constants {
        let mut columns = Constants { hash: Value::Null, committer: Value::Null, date: Value::Null, source: source_values(None) };
        if slots.iter().any(|slot| matches!(slot, Slot::Hash)) {
            columns.hash = hash(commit.id);
        }
        if let Some(commit) = commit.commit.as_deref().filter(|_| reads_commits(slots)) {
            columns.committer = text(&commit.meta.committer.name);
            columns.date = timestamp(commit.meta.commit_time);
            if slots.iter().any(|slot| matches!(slot, Slot::Source(_))) {
                columns.source = source_values(Some(commit));
            }
        }
        columns
    }
}

/// Whether a column is wanted that only the commit itself has.
fn reads_commits(slots: &[Slot]) -> bool {
    slots.iter().any(|slot| matches!(slot, Slot::Committer | Slot::Date | Slot::Source(_)))
}

enum CurrentRows {
    One(Option<Arc<(Arc<TableSchema>, Row)>>),
    Table(Arc<TableSchema>, strandline_storage::tree::Cursor),
}

impl History {
    fn of_all(
        context: &Arc<StatementContext>,
        table: &Arc<TableSchema>,
        head: CommitId,
        key: Option<WantedKey>,
        slots: Vec<Slot>,
    ) -> Result<History> {
        let versions = versions_of(context, head, table.oid, key.as_ref())?;
        let log = context.store.log_entries(&[head], &[], reads_commits(&slots))?;
        let number = context.store.log_entry(head)?.number;
        let root = Resolver::new(context).root(crate::system::refs::Target::Commit(head))?;
        let state = rows_of(&root, table.oid, key.as_ref())?;
        Ok(History {
            context: Arc::clone(context),
            table: Arc::clone(table),
            key,
            slots,
            log,
            changes: Changes { versions: versions.peekable(), by_commit: HashMap::new() },
            whole_changes: context.store.whole_changes(table.oid),
            states: HashMap::new(),
            next: Some((number, state)),
            mapper: Mapper::new(table),
            current: None,
            failed: false,
        })
    }

    /// `WHERE commit_hash = '...'`: that commit's rows alone.
    fn of_one_commit(
        context: &Arc<StatementContext>,
        table: &Arc<TableSchema>,
        head: CommitId,
        key: Option<WantedKey>,
        slots: Vec<Slot>,
        id: &str,
    ) -> Result<History> {
        let mut commits: Vec<strandline_storage::Result<LogEntry>> = Vec::new();
        let mut next = None;
        if let Ok(id) = id.parse::<CommitId>() {
            match context.store.commit(id) {
                Ok(commit) => {
                    if id == head || context.store.is_ancestor(id, head)? {
                        let mut entry = context.store.log_entry(id)?;
                        entry.commit = Some(commit);
                        next = Some((entry.number, rows_of(&context.store.root(id)?, table.oid, key.as_ref())?));
                        commits.push(Ok(entry));
                    }
                }
                Err(strandline_storage::Error::NotFound { .. }) => {}
                Err(other) => return Err(other.into()),
            }
        }
        let none: Box<dyn Iterator<Item = strandline_storage::Result<RowVersion>> + Send> = Box::new(std::iter::empty());
        Ok(History {
            context: Arc::clone(context),
            table: Arc::clone(table),
            key,
            slots,
            log: Box::new(commits.into_iter()),
            changes: Changes { versions: none.peekable(), by_commit: HashMap::new() },
            whole_changes: context.store.whole_changes(table.oid),
            states: HashMap::new(),
            next,
            mapper: Mapper::new(table),
            current: None,
            failed: false,
        })
    }

    /// Goes to the next commit; `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        let Some(commit) = self.log.next().transpose()? else { return Ok(false) };
        self.context.check_cancel()?;
        let known = match self.next.take() {
            Some((number, state)) if number == commit.number => Some(state),
            other => {
                self.states.extend(other);
                self.states.remove(&commit.number)
            }
        };
        let state = match known {
            Some(state) => state,
            // No child gave it: reached by a way that the walk does not undo.
            None => rows_of(&self.context.store.root(commit.id)?, self.table.oid, self.key.as_ref())?,
        };
        let changes = self.changes.take(&commit)?;
        if let Some(parent) = commit.first_parent
            && !self.states.contains_key(&parent)
        {
            self.next = Some((parent, self.before(&commit, &state, &changes)?));
        }
        let columns = Constants::of(&commit, &self.slots);
        let rows = match state {
            Rows::One(row) => CurrentRows::One(row),
            Rows::All(root) => match root.table(self.table.oid) {
                Some(table) => CurrentRows::Table(Arc::clone(table.schema()), table.scan(everything(), false)),
                None => CurrentRows::One(None),
            },
        };
        self.current = Some(Current { columns, rows });
        Ok(true)
    }

    /// The rows at a commit's first parent.
    fn before(&self, commit: &LogEntry, state: &Rows, changes: &[RowVersion]) -> Result<Rows> {
        // Rows are taken back into the definition that they had, not into a later one.
        let store = &self.context.store;
        if self.whole_changes.may_contain(commit) {
            let commit_read = store.commit(commit.id)?;
            if store.redefines(&commit_read, self.table.oid)? {
                return rows_of(&self.root_before(commit)?, self.table.oid, self.key.as_ref());
            }
        }
        self.undo(state, changes, commit)
    }

    /// The root of a commit's first parent.
    fn root_before(&self, commit: &LogEntry) -> Result<Root> {
        let parent = self.context.store.commit(commit.id)?.parents.first().copied();
        Ok(parent.map_or_else(|| Ok(Root::new(Catalog::default())), |parent| self.context.store.root(parent))?)
    }

    /// The rows before a commit's changes.
    fn undo(&self, state: &Rows, changes: &[RowVersion], commit: &LogEntry) -> Result<Rows> {
        if changes.is_empty() {
            return Ok(state.clone());
        }
        match state {
            Rows::One(_) => {
                let Some(wanted) = &self.key else { return Ok(state.clone()) };
                // Before a change of the key, rows have other keys: from there on all are given, and the query picks its own.
                let schemas = changes.iter().flat_map(|c| c.from.iter().chain(&c.to)).map(|(schema, _)| schema);
                if !schemas.clone().all(|schema| wanted.fits(schema)) {
                    return rows_of(&self.root_before(commit)?, self.table.oid, Some(wanted));
                }
                Ok(match changes.iter().find(|c| c.key == wanted.key) {
                    Some(change) => Rows::One(change.from.clone().map(Arc::new)),
                    None => state.clone(),
                })
            }
            Rows::All(root) => match undo_rows(root, self.table.oid, changes) {
                Some(root) => Ok(Rows::All(root)),
                None => rows_of(&self.root_before(commit)?, self.table.oid, None),
            },
        }
    }

    fn row(&mut self) -> Result<Option<Row>> {
        loop {
            let Some(current) = &mut self.current else {
                if !self.advance()? {
                    return Ok(None);
                }
                continue;
            };
            let next = match &mut current.rows {
                CurrentRows::One(row) => row.take(),
                CurrentRows::Table(schema, cursor) => cursor.next_row()?.map(|(_, row)| Arc::new((Arc::clone(schema), row))),
            };
            let Some((schema, row)) = next.as_deref() else {
                self.current = None;
                continue;
            };
            let mapping = self.mapper.from(schema);
            let columns = &current.columns;
            let values = self.slots.iter().map(|slot| match slot {
                Slot::Column(i) => mapping.value(row, *i),
                Slot::Hash => columns.hash.clone(),
                Slot::Committer => columns.committer.clone(),
                Slot::Date => columns.date.clone(),
                Slot::Source(i) => columns.source[*i].clone(),
            });
            return Ok(Some(values.collect()));
        }
    }
}

impl Iterator for History {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.row().transpose();
        self.failed = !matches!(row, Some(Ok(_)));
        row
    }
}

fn rows_of(root: &Root, table: u32, wanted: Option<&WantedKey>) -> Result<Rows> {
    Ok(match (wanted, root.table(table)) {
        (Some(wanted), Some(data)) if wanted.fits(data.schema()) => {
            Rows::One(data.get(&wanted.key)?.map(|row| Arc::new((Arc::clone(data.schema()), row))))
        }
        (Some(_), None) => Rows::One(None),
        _ => Rows::All(root.clone()),
    })
}

/// The root with the table's rows as they were before these changes; `None` where they cannot be taken back one by one:
/// the schema changed, or the table came or went.
fn undo_rows(root: &Root, table: u32, changes: &[RowVersion]) -> Option<Root> {
    let data: &Arc<TableData> = root.table(table)?;
    let schema = data.schema();
    let same = |side: &Option<(Arc<TableSchema>, Row)>| {
        side.as_ref().is_none_or(|(s, _)| Arc::ptr_eq(s, schema) || s.columns == schema.columns && s.primary_key == schema.primary_key)
    };
    if !changes.iter().all(|c| same(&c.from) && same(&c.to)) {
        return None;
    }
    let mut edit = Edit::new(root.clone());
    if schema.primary_key.is_none() {
        // Equal rows are told apart by an ordinal only, so any of them may go.
        let columns: Vec<usize> = (0..schema.columns.len()).collect();
        for (_, row) in changes.iter().filter_map(|c| c.to.as_ref()) {
            let key = edit.root().table(table)?.find_row(&columns, row).ok()??;
            edit.delete(table, &key).ok()?;
        }
        for (_, row) in changes.iter().filter_map(|c| c.from.as_ref()) {
            edit.insert(table, row.clone()).ok()?;
        }
        return Some(edit.root().clone());
    }
    // Removals go first, so that unique keys are free again.
    let by_key: BTreeMap<&[u8], &Option<(Arc<TableSchema>, Row)>> = changes.iter().map(|c| (&c.key[..], &c.from)).collect();
    for (key, from) in &by_key {
        let exists = data.get(key).ok()?.is_some();
        if exists && (from.is_none() || edit.table_schema(table).is_some_and(|s| !s.indexes.is_empty())) {
            edit.delete(table, key).ok()?;
        }
    }
    for (key, from) in by_key {
        let Some((_, row)) = from else { continue };
        let exists = edit.root().table(table)?.get(key).ok()?.is_some();
        if exists { edit.update(table, key, row.clone()).map(|_| ()).ok()? } else { edit.insert(table, row.clone()).ok()? }
    }
    Some(edit.root().clone())
}
