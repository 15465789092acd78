//! Whole tables at once: bulk loads, rewrites, new indexes.

use std::ops::Bound;
use std::sync::Arc;

use super::entry_sort::EntrySorter;
use super::load::{ROWS_BETWEEN_LOOKS, Spill};
use super::{Edit, table_mut};
use crate::change_set::RowsChange;
use crate::error::{Error, Result};
use crate::schema::{CatalogObject, Oid, TableSchema};
use crate::table::{IndexShape, TableData, TableShape, index_layout};
use crate::tree::{Tree, TreeBuilder};
use crate::value::{Row, Value};

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
        let mut spill = Spill::new(chunks);
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
