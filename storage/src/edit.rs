//! Edits of a root value that remember what they changed: the body of every write, local or replicated.
//!
//! An edit owns its root value: nodes that no snapshot shares are changed in place. What it needs to go back is the change
//! set itself, whose row changes are undone one by one, and, for the few operations that are not row by row (a table replaced,
//! DDL), a snapshot taken before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change_set::{CatalogChange, ChangeSet, RowChange, RowChangeKind, RowsChange, TableChange};
use crate::chunk::ChunkWriter;
use crate::error::{Error, Result};
use crate::root::Root;
use crate::schema::{CatalogObject, Oid, TableSchema};
use crate::table::{ROW_HASH_SIZE, TableData, TableShape};
use crate::tree::{SpillPace, Updated};
use crate::value::{Row, Value};

mod bulk;
mod entry_sort;
mod load;
mod replay;
mod scratch;
mod sorted;

pub use load::{LoadedTable, RowLoader, SortedRun, TableLoad};
pub(crate) use scratch::Scratch;

/// Row changes after which an edit looks at the memory that nodes take: each may copy a leaf of every index.
const CHANGES_BETWEEN_LOOKS: u32 = 32;

/// Tables of a change set that are looked through rather than hashed.
const TABLES_SCANNED: usize = 8;

/// A root value under edit, with the change set so far. Every operation keeps the table's indexes and checks its
/// unique keys (NOT NULL and CHECK are the caller's). A failed operation changes nothing.
#[derive(Debug)]
pub struct Edit {
    pub(crate) root: Root,
    pub(crate) changes: ChangeSet,
    /// Where tables are in `changes.tables`; see [`Edit::position`].
    positions: HashMap<Oid, usize>,
    /// Per entry of `changes.tables`, while it is `Replaced`: the period in which a snapshot of it was last taken.
    snapshot_periods: Vec<u64>,
    /// Counts marks and rollbacks: between two of them one snapshot of a replaced table is enough.
    period: u64,
    undo: Vec<Undo>,
    /// Whether changes are remembered at all.
    recording: bool,
    changes_until_look: u32,
    spill_pace: SpillPace,
    /// That may work on changes which come sorted.
    thread_count: usize,
    scratch: Scratch,
}

/// A point to go back to: for savepoints and failed statements. Cheap.
#[derive(Clone, Debug, Default)]
pub struct EditMark {
    undo_count: usize,
    row_counts: Vec<usize>,
}

/// The state before an operation that is not row by row.
#[derive(Debug)]
struct Undo {
    root: Root,
    catalog: Vec<CatalogChange>,
    /// The entry of the table concerned, if it had one; its row changes are kept here and no longer there.
    entry: Option<(usize, RowsChange)>,
    row_counts: Vec<usize>,
}

impl Edit {
    pub fn new(root: Root) -> Self {
        Edit {
            root,
            changes: ChangeSet::default(),
            positions: HashMap::new(),
            snapshot_periods: Vec::new(),
            period: 1,
            undo: Vec::new(),
            recording: true,
            changes_until_look: CHANGES_BETWEEN_LOOKS,
            spill_pace: SpillPace::default(),
            thread_count: 1,
            scratch: Scratch::default(),
        }
    }

    /// An edit with the lists that an earlier one has left.
    pub(crate) fn with_scratch(root: Root, mut scratch: Scratch) -> Self {
        let changes = ChangeSet { tables: scratch.tables(), ..ChangeSet::default() };
        Edit { changes, scratch, ..Edit::new(root) }
    }

    /// An edit without a change set, which cannot go back: for replay.
    pub(crate) fn unrecorded(root: Root) -> Self {
        Edit { recording: false, ..Edit::new(root) }
    }

    /// The root as edited so far; clone it for a snapshot.
    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn changes(&self) -> &ChangeSet {
        &self.changes
    }

    /// Buffers for the commit of this edit.
    pub(crate) fn take_buffers(&mut self) -> (Vec<u8>, Vec<u32>) {
        (std::mem::take(&mut self.scratch.record), std::mem::take(&mut self.scratch.row_hashes))
    }

    /// The edited root, how many rows were changed, and the lists that were filled, for the next edit. See [`Edit::seal`].
    pub(crate) fn root_and_scratch(mut self) -> (Root, u64, Scratch) {
        let row_count = self.changes.row_count();
        self.scratch.keep(self.changes);
        (self.root, row_count, self.scratch)
    }

    /// The edited root and what was changed. See [`Edit::seal`].
    pub fn root_and_changes(self) -> (Root, ChangeSet) {
        (self.root, self.changes)
    }

    pub fn table_schema(&self, table: Oid) -> Option<&Arc<TableSchema>> {
        self.root.table(table).map(|t| t.schema())
    }

    pub fn mark(&mut self) -> EditMark {
        self.period += 1;
        EditMark { undo_count: self.undo.len(), row_counts: self.row_counts() }
    }

    fn row_counts(&self) -> Vec<usize> {
        self.changes.tables.iter().map(|t| if let RowsChange::Rows(rows) = &t.rows { rows.len() } else { 0 }).collect()
    }

    /// Goes back to a mark. Marks taken after it are void.
    pub fn rollback_to(&mut self, mark: EditMark) {
        self.period += 1;
        while self.undo.len() > mark.undo_count {
            let undo = self.undo.pop().expect("BUG: an undo entry is missing");
            self.root = undo.root;
            self.changes.catalog = undo.catalog;
            self.truncate_changes(&undo.row_counts);
            if let Some((position, rows)) = undo.entry {
                self.changes.tables[position].rows = rows;
            }
        }
        for position in (0..self.changes.tables.len()).rev() {
            let keep = mark.row_counts.get(position).copied().unwrap_or(0);
            let table = self.changes.tables[position].table;
            let RowsChange::Rows(rows) = &mut self.changes.tables[position].rows else { continue };
            let undone = rows.split_off(keep.min(rows.len()));
            for change in undone.into_iter().rev() {
                self.undo_row(table, change).expect("BUG: a change just made cannot be undone");
            }
        }
        self.truncate_changes(&mark.row_counts);
    }

    /// Takes every change back and returns the root as it was.
    pub fn undo(mut self) -> Root {
        self.rollback_to(EditMark::default());
        self.root
    }

    fn truncate_changes(&mut self, row_counts: &[usize]) {
        for entry in self.changes.tables.drain(row_counts.len().min(self.changes.tables.len())..) {
            self.positions.remove(&entry.table);
        }
        self.snapshot_periods.truncate(row_counts.len());
        for (entry, count) in self.changes.tables.iter_mut().zip(row_counts) {
            if let RowsChange::Rows(rows) = &mut entry.rows {
                rows.truncate(*count);
            }
        }
    }

    fn undo_row(&mut self, table: Oid, change: RowChange) -> Result<()> {
        let data = table_mut(&mut self.root, table)?;
        match change.kind {
            RowChangeKind::Inserted { new } => data.delete_row(&change.key).map(|_| drop(new)),
            RowChangeKind::Deleted { old } => data.insert_row(&change.key, &old, Unique::Later),
            RowChangeKind::Updated { columns } => {
                let old: Vec<_> = columns.into_iter().map(|(column, old, _)| (column, old)).collect();
                data.update_row(&change.key, &old, &mut Vec::new(), Unique::Later).map(|_| ())
            }
        }
    }

    /// The position of a table's entry in the change set, made if need be.
    fn entry(&mut self, table: Oid) -> usize {
        if let Some(last) = self.changes.tables.len().checked_sub(1)
            && self.changes.tables[last].table == table
        {
            return last;
        }
        if let Some(position) = self.position(table) {
            return position;
        }
        let position = self.changes.tables.len();
        if position == 0 {
            self.changes.tables.reserve(TABLES_SCANNED);
        }
        if position >= TABLES_SCANNED {
            self.positions.insert(table, position);
        }
        self.changes.tables.push(TableChange { table, rows: RowsChange::Rows(self.scratch.rows()) });
        self.snapshot_periods.push(0);
        position
    }

    /// Where a table is in `changes.tables`: among the first few it is looked for, of the others it is noted.
    fn position(&self, table: Oid) -> Option<usize> {
        let scanned = self.changes.tables.iter().take(TABLES_SCANNED).position(|change| change.table == table);
        scanned.or_else(|| if self.positions.is_empty() { None } else { self.positions.get(&table).copied() })
    }

    /// To be called before a row changes: takes a snapshot of a replaced table where going back needs one, and writes nodes out
    /// when too many are held in memory.
    fn before_row_change(&mut self, table: Oid) -> Result<()> {
        self.changes_until_look -= 1;
        if self.changes_until_look == 0 {
            self.changes_until_look = CHANGES_BETWEEN_LOOKS;
            self.spill_if_held()?;
        }
        if !self.recording {
            return Ok(());
        }
        let position = self.entry(table);
        if matches!(self.changes.tables[position].rows, RowsChange::Replaced { .. }) && self.snapshot_periods[position] != self.period {
            self.before_operation(Some(table));
            // The entry stays `Replaced`.
            self.changes.tables[position].rows = RowsChange::Replaced { rows: None };
            self.snapshot_periods[position] = self.period;
        }
        Ok(())
    }

    /// Writes this edit's nodes and lets the cache evict them, if much is held. What an edit that is undone has written is never
    /// referred to.
    fn spill_if_held(&mut self) -> Result<()> {
        let Some(chunks) = self.root.chunks.clone() else { return Ok(()) };
        let (Some(cache), Some(mut writer)) = (chunks.cache(), chunks.writer()) else { return Ok(()) };
        if self.spill_pace.begin(cache) {
            self.root.spill(&mut *writer)?;
            self.spill_pace.done(cache);
        }
        cache.make_room();
        Ok(())
    }

    /// To be called before a deletion: a table that becomes empty forgets how many rows its leaves are aimed at, and going back
    /// row by row would not bring that back.
    fn before_deletion(&mut self, table: Oid) {
        if self.root.table(table).is_some_and(|data| data.len() == 1 && !data.rows.has_default_target()) {
            self.before_operation(None);
        }
    }

    /// To be called before an operation that is not row by row: remembers the state. The table's row changes move to the undo entry.
    fn before_operation(&mut self, table: Option<Oid>) {
        if !self.recording {
            return;
        }
        let row_counts = self.row_counts();
        let catalog = self.changes.catalog.clone();
        let entry = table.and_then(|table| self.position(table)).map(|position| {
            let rows = std::mem::replace(&mut self.changes.tables[position].rows, RowsChange::Rows(Vec::new()));
            (position, rows)
        });
        self.undo.push(Undo { root: self.root.clone(), catalog, entry, row_counts });
    }

    fn record(&mut self, table: Oid, key: &[u8], kind: RowChangeKind) {
        if !self.recording {
            return;
        }
        let position = self.entry(table);
        if let RowsChange::Rows(rows) = &mut self.changes.tables[position].rows {
            rows.push(RowChange { key: key.into(), kind });
        }
    }

    fn record_table(&mut self, table: Oid, rows: RowsChange) {
        if self.recording {
            let position = self.entry(table);
            self.changes.tables[position].rows = rows;
            self.snapshot_periods[position] = self.period;
        }
    }

    fn record_object(&mut self, oid: Oid, object: Option<Arc<CatalogObject>>) {
        if self.recording {
            self.changes.catalog.retain(|change| change.oid != oid);
            self.changes.catalog.push(CatalogChange { oid, object });
        }
    }

    /// # Errors
    /// `DuplicateKey` when the primary key or a unique index holds the key already.
    pub fn insert(&mut self, table: Oid, row: Row) -> Result<()> {
        self.before_row_change(table)?;
        let data = table_mut(&mut self.root, table)?;
        data.shape.layout.check_row(&row)?;
        let mut key = std::mem::take(&mut self.scratch.key);
        key.clear();
        data.shape.append_row_key(&mut key, &row);
        // Mostly there is no equal row, and then one look at the tree is enough.
        if data.shape.key.is_some() || !data.indexes.is_empty() || !data.rows.insert(&key, &row)? {
            key = data.new_key(&row)?;
            data.insert_row(&key, &row, Unique::Now)?;
        }
        self.record(table, &key, RowChangeKind::Inserted { new: row });
        self.scratch.key = key;
        Ok(())
    }

    /// Replaces the row with this key by `row` (whose key may differ). Returns the old row.
    /// # Errors
    /// `RowMissing`, `DuplicateKey`.
    pub fn update(&mut self, table: Oid, key: &[u8], row: Row) -> Result<Row> {
        self.before_row_change(table)?;
        self.before_deletion(table);
        let data = table_mut(&mut self.root, table)?;
        data.shape.layout.check_row(&row)?;
        let key = data.existing_key(key)?;
        let old = data.get(&key)?.ok_or_else(|| data.row_missing(&key))?;
        let same_key = match data.shape.key {
            Some(_) => data.row_key(&row) == key,
            None => row == old,
        };
        if same_key {
            let values: Vec<_> = row.into_iter().enumerate().map(|(i, value)| (i as u16, value)).collect();
            let mut columns = Vec::new();
            data.update_row(&key, &values, &mut columns, Unique::Now)?;
            if !columns.is_empty() {
                self.record(table, &key, RowChangeKind::Updated { columns });
            }
            return Ok(old);
        }
        let whole = (data.len() == 1).then(|| data.clone());
        data.delete_row(&key)?;
        let new_key = data.new_key(&row);
        let inserted = new_key.and_then(|new_key| data.insert_row(&new_key, &row, Unique::Now).map(|()| new_key));
        match inserted {
            Ok(new_key) => {
                self.record(table, &key, RowChangeKind::Deleted { old: old.clone() });
                self.record(table, &new_key, RowChangeKind::Inserted { new: row });
                Ok(old)
            }
            Err(error) => {
                match whole {
                    Some(whole) => *data = whole,
                    None => data.insert_row(&key, &old, Unique::Later).expect("BUG: a row just deleted cannot be put back"),
                }
                Err(error)
            }
        }
    }

    /// Sets some columns of a row, the hot path of replication: (column, value) ascending. Returns whether the row exists.
    /// # Errors
    /// `DuplicateKey`.
    pub fn update_columns(&mut self, table: Oid, key: &[u8], columns: &[(u16, Value)]) -> Result<bool> {
        self.before_row_change(table)?;
        let data = table_mut(&mut self.root, table)?;
        let mut changed = self.scratch.columns();
        let TableData { shape, rows, .. } = data;
        match rows.update(key, columns, &shape.in_keys, &mut changed)? {
            Updated::Done => {
                if changed.is_empty() {
                    self.scratch.keep_columns(changed);
                } else {
                    self.record(table, key, RowChangeKind::Updated { columns: changed });
                }
                Ok(true)
            }
            Updated::Missing if data.shape.key.is_some() => Ok(false),
            // A column of a key changes, or the table has none.
            Updated::Missing | Updated::Refused => {
                let Some(mut row) = data.existing_key(key).ok().map(|key| data.get(&key)).transpose()?.flatten() else {
                    return Ok(false);
                };
                for (column, value) in columns {
                    let slot = row.get_mut(usize::from(*column));
                    *slot.ok_or_else(|| Error::Invalid(format!("there is no column at position {column}")))? = value.clone();
                }
                self.update(table, key, row)?;
                Ok(true)
            }
        }
    }

    /// Returns the old row.
    /// # Errors
    /// `RowMissing`.
    pub fn delete(&mut self, table: Oid, key: &[u8]) -> Result<Row> {
        self.before_row_change(table)?;
        self.before_deletion(table);
        let data = table_mut(&mut self.root, table)?;
        let key = data.existing_key(key)?;
        let old = data.delete_row(&key)?.ok_or_else(|| data.row_missing(&key))?;
        self.record(table, &key, RowChangeKind::Deleted { old: old.clone() });
        Ok(old)
    }

    /// Creates or changes a catalog object other than a table.
    pub fn put_object(&mut self, object: CatalogObject) -> Result<()> {
        if let CatalogObject::Table(schema) = object {
            return self.put_table(TableSchema::clone(&schema));
        }
        self.before_operation(None);
        self.set_object(object);
        Ok(())
    }

    fn set_object(&mut self, object: CatalogObject) {
        let (oid, object) = (object.oid(), Arc::new(object));
        Arc::make_mut(&mut self.root.catalog).objects.insert(oid, object.clone());
        self.record_object(oid, Some(object));
    }

    /// Creates a table (empty), or changes one whose rows keep their shape (rename, default, NOT NULL, indexes added
    /// or dropped: new indexes are built here).
    /// # Errors
    /// `DuplicateKey` when a new unique index does not hold; `Invalid` when the rows do not keep their shape.
    pub fn put_table(&mut self, schema: TableSchema) -> Result<()> {
        let (oid, schema) = (schema.oid, Arc::new(schema));
        let shape = TableShape::new(schema.clone())?;
        let data = match self.root.table(oid) {
            None => TableData::empty(shape, self.root.chunks.as_ref()),
            Some(old) => old.with_shape(shape)?,
        };
        self.before_operation(None);
        Arc::make_mut(&mut self.root.tables).insert(oid, Arc::new(data));
        self.set_object(CatalogObject::Table(schema));
        Ok(())
    }

    /// Drops any object; a table with its rows. Dependents are the caller's.
    /// # Errors
    /// `NotFound`.
    pub fn drop_object(&mut self, oid: Oid) -> Result<()> {
        if self.root.catalog.get(oid).is_none() {
            return Err(Error::NotFound { what: "object", name: oid.to_string() });
        }
        self.before_operation(Some(oid));
        Arc::make_mut(&mut self.root.catalog).objects.remove(&oid);
        self.record_object(oid, None);
        if self.root.tables.contains_key(&oid) {
            Arc::make_mut(&mut self.root.tables).remove(&oid);
            self.record_table(oid, RowsChange::Dropped);
        }
        Ok(())
    }

    /// Writes the trees of the tables that the change set says are `Replaced`, and fills in their addresses. To be called
    /// once before the change set is encoded; does nothing when no table was replaced. Until then `Replaced` has no address.
    pub fn seal(&mut self, writer: &mut dyn ChunkWriter) -> Result<()> {
        for change in &mut self.changes.tables {
            if let RowsChange::Replaced { rows } = &mut change.rows {
                *rows = table_mut(&mut self.root, change.table)?.rows.write(writer)?;
            }
        }
        Ok(())
    }
}

/// A table of a root value for editing; copies the table's entry if a snapshot shares it.
fn table_mut(root: &mut Root, table: Oid) -> Result<&mut TableData> {
    let data = Arc::make_mut(&mut root.tables).get_mut(&table);
    data.map(Arc::make_mut).ok_or_else(|| Error::NotFound { what: "table", name: table.to_string() })
}

/// When unique indexes are checked: with each row, or by the caller after all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unique {
    Now,
    Later,
}

/// Row changes on a table and its indexes, without recording.
impl TableData {
    /// The key under which a row is to be inserted: a keyless row's has the next ordinal.
    fn new_key(&self, row: &[Value]) -> Result<Vec<u8>> {
        let mut key = self.row_key(row);
        // Ordinals are without gaps: no row with ordinal 0, no equal row.
        if self.shape.key.is_none() && self.rows.contains(&key)? {
            let hash = key.first_chunk().expect("BUG: a row key shorter than its hash");
            if let Some(last) = self.last_of_hash(hash)? {
                let ordinal = last[ROW_HASH_SIZE..].try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX);
                let limit = || Error::Limit { what: "number of equal rows", limit: u64::from(u32::MAX) };
                let next = ordinal.checked_add(1).ok_or_else(limit)?;
                key[ROW_HASH_SIZE..].copy_from_slice(&next.to_be_bytes());
            }
        }
        Ok(key)
    }

    /// The key of the row to change: of equal keyless rows the last, so that ordinals stay without gaps.
    fn existing_key(&self, key: &[u8]) -> Result<Vec<u8>> {
        if self.shape.key.is_some() {
            return Ok(key.to_vec());
        }
        let last = match key.first_chunk() {
            Some(hash) => self.last_of_hash(hash)?,
            None => None,
        };
        last.ok_or_else(|| self.row_missing(key))
    }

    fn row_missing(&self, key: &[u8]) -> Error {
        Error::RowMissing { table: self.shape.schema.name.clone(), key: self.shape.text_of_key(key) }
    }

    /// Checks that no other row has this row's values in a unique index.
    fn check_all_unique(&self, key: &[u8], row: &[Value]) -> Result<()> {
        (0..self.indexes.len()).try_for_each(|at| self.check_unique(at, row, Some(key)))
    }

    /// Inserts a row and its index entries, or fails and changes nothing.
    pub(crate) fn insert_row(&mut self, key: &[u8], row: &[Value], unique: Unique) -> Result<()> {
        if !self.indexes.is_empty() {
            // The primary key's violation comes first, as in PostgreSQL.
            if self.rows.contains(key)? {
                return Err(self.shape.duplicate_key(row));
            }
            if unique == Unique::Now {
                self.check_all_unique(key, row)?;
            }
        }
        if !self.rows.insert(key, row)? {
            return Err(self.shape.duplicate_key(row));
        }
        for at in 0..self.indexes.len() {
            let entry = self.shape.index_key(&self.shape.indexes[at], row, key);
            if let Err(error) = self.indexes[at].insert(&entry, &[]) {
                // What was inserted is in memory, so taking it out reads nothing.
                for done in 0..at {
                    let entry = self.shape.index_key(&self.shape.indexes[done], row, key);
                    self.indexes[done].delete(&entry)?;
                }
                self.rows.delete(key)?;
                return Err(error);
            }
        }
        Ok(())
    }

    pub(crate) fn delete_row(&mut self, key: &[u8]) -> Result<Option<Row>> {
        let Some(row) = self.rows.delete(key)? else { return Ok(None) };
        for at in 0..self.indexes.len() {
            let entry = self.shape.index_key(&self.shape.indexes[at], &row, key);
            if let Err(error) = self.indexes[at].delete(&entry) {
                for done in 0..at {
                    let entry = self.shape.index_key(&self.shape.indexes[done], &row, key);
                    self.indexes[done].insert(&entry, &[])?;
                }
                self.rows.insert(key, &row)?;
                return Err(error);
            }
        }
        Ok(Some(row))
    }

    /// Sets columns of a row whose key does not change, and its index entries. Returns whether the row exists.
    pub(crate) fn update_row(
        &mut self,
        key: &[u8],
        columns: &[(u16, Value)],
        changed: &mut Vec<(u16, Value, Value)>,
        unique: Unique,
    ) -> Result<bool> {
        let shape = self.shape.clone();
        match self.rows.update(key, columns, &shape.in_keys, changed)? {
            Updated::Done => return Ok(true),
            Updated::Missing => return Ok(false),
            Updated::Refused => (),
        }
        let old = self.rows.get(key)?.expect("BUG: a row just found is gone");
        let mut new = old.clone();
        for (column, value) in columns {
            new[usize::from(*column)] = value.clone();
        }
        // The entries that move: (index, old entry, new entry).
        let mut moves = Vec::new();
        for (at, index) in shape.indexes.iter().enumerate() {
            let (from, to) = (shape.index_key(index, &old, key), shape.index_key(index, &new, key));
            if from != to {
                if unique == Unique::Now {
                    self.check_unique(at, &new, Some(key))?;
                }
                moves.push((at, from, to));
            }
        }
        for i in 0..moves.len() {
            let (at, from, to) = &moves[i];
            let moved = self.indexes[*at].delete(from).and_then(|_| self.indexes[*at].insert(to, &[]));
            if let Err(error) = moved {
                for (at, from, to) in &moves[..=i] {
                    self.indexes[*at].delete(to)?;
                    self.indexes[*at].insert(from, &[])?;
                }
                return Err(error);
            }
        }
        self.rows.update(key, columns, &[], changed)?;
        Ok(true)
    }
}

#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod tests;
