//! Whole tables at once: bulk loads, rewrites, new indexes.

use std::ops::Bound;
use std::sync::Arc;

use super::entry_sort::EntrySorter;
use super::{Edit, table_mut};
use crate::change_set::RowsChange;
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::{Error, Result};
use crate::root::Root;
use crate::schema::{CatalogObject, Oid, TableSchema};
use crate::table::{IndexShape, ROW_HASH_SIZE, TableData, TableShape, index_layout};
use crate::tree::{SpillPace, Tree, TreeBuilder};
use crate::value::{Row, Value};

/// Rows that are sorted together while a table is built, and what their keys and values may take (in bytes).
const SORT_ROWS_MAX: usize = 64 * 1024;
const SORT_SIZE_MAX: usize = 32 << 20;
/// Rows between two looks at the memory that nodes take.
const ROWS_BETWEEN_LOOKS: usize = 1024;

impl Edit {
    pub fn truncate(&mut self, table: Oid) -> Result<()> {
        let shape = table_mut(&mut self.root, table)?.shape.clone();
        let empty = TableData::empty(shape, self.root.chunks.as_ref());
        self.replace_table(table, empty)
    }

    /// Replaces all rows of a table by these, in any order: builds trees and indexes in bulk.
    /// # Errors
    /// `DuplicateKey`.
    pub fn replace_rows(&mut self, table: Oid, rows: &mut dyn Iterator<Item = Result<Row>>) -> Result<u64> {
        let shape = table_mut(&mut self.root, table)?.shape.clone();
        let data = TableData::build(shape, self.root.chunks.as_ref(), rows)?;
        let count = data.len();
        self.replace_table(table, data)?;
        Ok(count)
    }

    /// Gives an empty table the rows that it has in another root value of the same store, where it was filled without keeping others
    /// from the branch. Returns their number.
    /// # Errors
    /// `Conflict` when the table has rows or another definition by now; `NotFound`.
    pub fn take_rows(&mut self, table: Oid, filled: &Root) -> Result<u64> {
        let missing = || Error::NotFound { what: "table", name: table.to_string() };
        let data = filled.table(table).ok_or_else(missing)?;
        let own = self.root.table(table).ok_or_else(missing)?;
        if !own.is_empty() || own.shape.schema != data.shape.schema {
            return Err(Error::Conflict { what: format!("table \"{}\"", data.shape.schema.name) });
        }
        let (count, data) = (data.len(), TableData::clone(data));
        if count > 0 {
            self.replace_table(table, data)?;
        }
        Ok(count)
    }

    /// Changes a table's columns: every row goes through `convert` (old row to new row). Also for changes of the primary key.
    pub fn rewrite_table(&mut self, schema: TableSchema, convert: &mut dyn FnMut(Row) -> Result<Row>) -> Result<()> {
        let (oid, schema) = (schema.oid, Arc::new(schema));
        let shape = TableShape::new(schema.clone())?;
        let old = self.root.table(oid).ok_or_else(|| Error::NotFound { what: "table", name: schema.name.clone() })?;
        let mut cursor = old.scan((Bound::Unbounded, Bound::Unbounded), false);
        let mut rows = std::iter::from_fn(|| match cursor.next_row() {
            Ok(row) => row.map(|(_, row)| convert(row)),
            Err(error) => Some(Err(error)),
        });
        let data = TableData::build(shape, self.root.chunks.as_ref(), &mut rows)?;
        self.replace_table(oid, data)?;
        self.set_object(CatalogObject::Table(schema));
        Ok(())
    }

    /// Puts a table built anew into the root value.
    pub(super) fn replace_table(&mut self, table: Oid, data: TableData) -> Result<()> {
        self.before_operation(Some(table));
        Arc::make_mut(&mut self.root.tables).insert(table, Arc::new(data));
        self.record_table(table, RowsChange::Replaced { rows: None });
        Ok(())
    }
}

impl TableData {
    /// Builds a table from rows in any order. In a store (`chunks`) nodes are written and let go while it is built, if they are many.
    pub(crate) fn build(
        shape: Arc<TableShape>,
        chunks: Option<&Arc<dyn ChunkReader>>,
        rows: &mut dyn Iterator<Item = Result<Row>>,
    ) -> Result<TableData> {
        let spill = Spill { chunks: chunks.cloned(), pace: SpillPace::default() };
        let mut loader = Loader { shape: shape.clone(), spill, batch: Vec::new(), state: LoaderState::Empty };
        let mut size = 0;
        for row in rows {
            let row = row?;
            shape.layout.check_row(&row)?;
            let key = shape.row_key(&row);
            size += shape.layout.fixed_size() + variable_size(&key, &row);
            loader.batch.push((key, row));
            if loader.batch.len() == SORT_ROWS_MAX || size > SORT_SIZE_MAX {
                loader.flush()?;
                size = 0;
            }
        }
        loader.flush()?;
        let rows = match loader.state {
            LoaderState::Empty => Tree::new(shape.layout.clone(), chunks.cloned()),
            LoaderState::Sorted(builder) => builder.finish()?,
            LoaderState::Unsorted(tree) => tree,
        };
        TableData { shape, rows, indexes: Vec::new() }.with_built_indexes()
    }

    /// This table's rows with indexes built anew.
    pub(crate) fn with_built_indexes(mut self) -> Result<TableData> {
        let shape = self.shape.clone();
        self.indexes = shape.indexes.iter().map(|index| self.build_index(index)).collect::<Result<_>>()?;
        Ok(self)
    }

    fn build_index(&self, index: &IndexShape) -> Result<Tree> {
        let chunks = self.rows.reader().cloned();
        let mut entries = EntrySorter::new(chunks.clone());
        let mut row = vec![Value::Null; self.shape.schema.columns.len()];
        let mut cursor = self.rows.scan((Bound::Unbounded, Bound::Unbounded), false);
        while let Some((leaf, at)) = cursor.next_position()? {
            for column in &index.columns {
                row[column.position] = leaf.value(at, column.position);
            }
            let mut entry = self.shape.index_prefix(index, &row);
            // Entries with a NULL are distinct from all others unless the index says otherwise: marked by the length 0.
            let exempt = !index.nulls_not_distinct && index.columns.iter().any(|c| row[c.position].is_null());
            let prefix = if exempt { 0 } else { entry.len() };
            entry.extend_from_slice(leaf.key(at));
            entries.push(entry, prefix)?;
        }
        // Not aimed at the size of these entries: replaying may build the index at another moment, and must build the same.
        let layout = index_layout();
        let target = layout.default_target();
        let mut builder = TreeBuilder::new(layout, target, chunks.clone());
        let mut spill = Spill { chunks, pace: SpillPace::default() };
        let mut entries = entries.finish()?;
        let (mut last, mut count): (Vec<u8>, usize) = (Vec::new(), 0);
        while let Some((entry, prefix)) = entries.next_entry()? {
            let prefix = &entry[..prefix];
            if index.unique && !prefix.is_empty() && last.starts_with(prefix) {
                let key = &entry[prefix.len()..];
                let row = self.get(key)?.unwrap_or_default();
                return Err(self.shape.duplicate_in(index, &row));
            }
            builder.push(&entry, &[])?;
            last = entry;
            count += 1;
            if count.is_multiple_of(ROWS_BETWEEN_LOOKS) {
                spill.run(|writer| builder.spill(writer))?;
            }
        }
        builder.finish()
    }

    /// The same rows under another schema of the same shape; indexes that it does not have yet are built.
    pub(crate) fn with_shape(&self, shape: Arc<TableShape>) -> Result<TableData> {
        if !self.shape.same_rows(&shape) {
            return Err(Error::Invalid(format!("table \"{}\" changes the shape of its rows and has to be rewritten", shape.schema.name)));
        }
        let mut data = TableData { shape: shape.clone(), rows: self.rows.clone(), indexes: Vec::new() };
        for index in &shape.indexes {
            let old = self.shape.indexes.iter().position(|i| i.oid == index.oid);
            let old = old.filter(|&at| shape.same_index(index, &self.shape, &self.shape.indexes[at]));
            let tree = match old {
                Some(at) => self.indexes[at].clone(),
                None => data.build_index(index)?,
            };
            data.indexes.push(tree);
        }
        Ok(data)
    }
}

/// Writes nodes of a tree under construction when many are held in memory.
struct Spill {
    chunks: Option<Arc<dyn ChunkReader>>,
    pace: SpillPace,
}

impl Spill {
    fn run(&mut self, write: impl FnOnce(&mut dyn ChunkWriter) -> Result<()>) -> Result<()> {
        let Some(chunks) = &self.chunks else { return Ok(()) };
        let (Some(cache), Some(mut writer)) = (chunks.cache(), chunks.writer()) else { return Ok(()) };
        if self.pace.begin(cache) {
            write(&mut *writer)?;
            self.pace.done(cache);
        }
        cache.make_room();
        Ok(())
    }
}

/// Builds the tree of rows: in one go while batches come in key order, by insertion from the first that does not.
struct Loader {
    shape: Arc<TableShape>,
    spill: Spill,
    batch: Vec<(Vec<u8>, Row)>,
    state: LoaderState,
}

enum LoaderState {
    Empty,
    Sorted(TreeBuilder),
    Unsorted(Tree),
}

impl Loader {
    fn flush(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        if !batch.is_sorted_by(|a, b| a.0 < b.0) {
            batch.sort_by(|a, b| a.0.cmp(&b.0));
            self.check_duplicates(&mut batch)?;
        }
        if batch.is_empty() {
            return Ok(());
        }
        if let LoaderState::Empty = self.state {
            let layout = self.shape.layout.clone();
            let target = layout.target_for(mean_size(&batch, layout.fixed_size()));
            self.state = LoaderState::Sorted(TreeBuilder::new(layout, target, self.spill.chunks.clone()));
        }
        for (at, (key, row)) in batch.iter_mut().enumerate() {
            if at % ROWS_BETWEEN_LOOKS == 0 {
                self.spill_if_held()?;
            }
            if let LoaderState::Sorted(builder) = &mut self.state {
                if builder.push(key, row)? {
                    continue;
                }
                let LoaderState::Sorted(builder) = std::mem::replace(&mut self.state, LoaderState::Empty) else { unreachable!() };
                self.state = LoaderState::Unsorted(builder.finish()?);
            }
            let LoaderState::Unsorted(tree) = &mut self.state else { unreachable!("BUG: a loader without a state") };
            if self.shape.key.is_none() {
                next_ordinal(tree, key)?;
            }
            if !tree.insert(key, row)? {
                return Err(self.shape.duplicate_key(row));
            }
        }
        Ok(())
    }

    fn spill_if_held(&mut self) -> Result<()> {
        match &mut self.state {
            LoaderState::Empty => Ok(()),
            LoaderState::Sorted(builder) => self.spill.run(|writer| builder.spill(writer)),
            LoaderState::Unsorted(tree) => self.spill.run(|writer| {
                tree.write(writer)?;
                tree.release();
                Ok(())
            }),
        }
    }

    /// Refuses equal keys of sorted rows, or gives equal keyless rows their ordinals.
    fn check_duplicates(&self, batch: &mut [(Vec<u8>, Row)]) -> Result<()> {
        for at in 1..batch.len() {
            let (before, rest) = batch.split_at_mut(at);
            let (last, (key, row)) = (&before[at - 1].0, &mut rest[0]);
            if self.shape.key.is_some() {
                if last == key {
                    return Err(self.shape.duplicate_key(row));
                }
            } else if last[..ROW_HASH_SIZE] == key[..ROW_HASH_SIZE] {
                let ordinal = u32::from_be_bytes(last[ROW_HASH_SIZE..].try_into().expect("BUG: an ordinal has four bytes"));
                key[ROW_HASH_SIZE..].copy_from_slice(&(ordinal + 1).to_be_bytes());
            }
        }
        Ok(())
    }
}

/// Moves a keyless row's key behind the equal rows that the tree has.
fn next_ordinal(tree: &Tree, key: &mut [u8]) -> Result<()> {
    let mut cursor = tree.scan(crate::table::prefix_range(&key[..ROW_HASH_SIZE]), true);
    if let Some((leaf, at)) = cursor.next_position()? {
        let last = &leaf.key(at)[ROW_HASH_SIZE..];
        let ordinal = u32::from_be_bytes(last.try_into().expect("BUG: an ordinal has four bytes"));
        let limit = || Error::Limit { what: "number of equal rows", limit: u64::from(u32::MAX) };
        key[ROW_HASH_SIZE..].copy_from_slice(&ordinal.checked_add(1).ok_or_else(limit)?.to_be_bytes());
    }
    Ok(())
}

/// The mean size of rows in a leaf.
fn mean_size(batch: &[(Vec<u8>, Row)], fixed: usize) -> usize {
    let variable: usize = batch.iter().map(|(key, row)| variable_size(key, row)).sum();
    fixed + variable / batch.len().max(1)
}

fn variable_size(key: &[u8], row: &[Value]) -> usize {
    key.len() + row.iter().map(|value| if let Value::Bytes(bytes) = value { bytes.len() } else { 0 }).sum::<usize>()
}
