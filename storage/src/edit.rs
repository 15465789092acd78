//! Edits of a root value that remember what they changed: the body of every write, local or replicated.

use std::sync::Arc;

use crate::change_set::ChangeSet;
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::Result;
use crate::root::Root;
use crate::schema::{CatalogObject, Oid, TableSchema};
use crate::value::{Row, Value};

/// A root value under edit, with the change set so far. Every operation keeps the table's indexes and checks its
/// unique keys (NOT NULL and CHECK are the caller's). A failed operation changes nothing.
#[derive(Debug)]
pub struct Edit {
    pub(crate) root: Root,
    pub(crate) changes: ChangeSet,
}

/// A point to go back to: for savepoints and failed statements. Cheap.
#[derive(Clone, Debug)]
pub struct EditMark {}

impl Edit {
    pub fn new(root: Root) -> Self {
        todo!()
    }

    /// The root as edited so far; clone it for a snapshot.
    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn changes(&self) -> &ChangeSet {
        &self.changes
    }

    pub fn mark(&mut self) -> EditMark {
        todo!()
    }

    pub fn rollback_to(&mut self, mark: EditMark) {
        todo!()
    }

    /// # Errors
    /// `DuplicateKey` when the primary key or a unique index holds the key already.
    pub fn insert(&mut self, table: Oid, row: Row) -> Result<()> {
        todo!()
    }

    /// Replaces the row with this key by `row` (whose key may differ). Returns the old row.
    /// # Errors
    /// `RowMissing`, `DuplicateKey`.
    pub fn update(&mut self, table: Oid, key: &[u8], row: Row) -> Result<Row> {
        todo!()
    }

    /// Sets some columns of a row, the hot path of replication: (column, value) ascending. Returns whether the row exists.
    pub fn update_columns(&mut self, table: Oid, key: &[u8], columns: &[(u16, Value)]) -> Result<bool> {
        todo!()
    }

    /// Returns the old row.
    /// # Errors
    /// `RowMissing`.
    pub fn delete(&mut self, table: Oid, key: &[u8]) -> Result<Row> {
        todo!()
    }

    pub fn truncate(&mut self, table: Oid) -> Result<()> {
        todo!()
    }

    /// Replaces all rows of a table by these, in any order: builds trees and indexes in bulk.
    /// # Errors
    /// `DuplicateKey`.
    pub fn replace_rows(&mut self, table: Oid, rows: &mut dyn Iterator<Item = Result<Row>>) -> Result<u64> {
        todo!()
    }

    /// Creates or changes a catalog object other than a table.
    pub fn put_object(&mut self, object: CatalogObject) -> Result<()> {
        todo!()
    }

    /// Creates a table (empty), or changes one whose rows keep their shape (rename, default, NOT NULL, indexes added
    /// or dropped: new indexes are built here).
    /// # Errors
    /// `DuplicateKey` when a new unique index does not hold.
    pub fn put_table(&mut self, schema: TableSchema) -> Result<()> {
        todo!()
    }

    /// Changes a table's columns: every row goes through `convert` (old row to new row). Also for changes of the primary key.
    pub fn rewrite_table(&mut self, schema: TableSchema, convert: &mut dyn FnMut(Row) -> Result<Row>) -> Result<()> {
        todo!()
    }

    /// Drops any object; a table with its rows. Dependents are the caller's.
    pub fn drop_object(&mut self, oid: Oid) -> Result<()> {
        todo!()
    }

    /// Writes the trees of the tables that the change set says are `Replaced`, and fills in their addresses. To be called
    /// once before the change set is encoded; does nothing when no table was replaced. Until then `Replaced` has no address.
    pub fn seal(&mut self, writer: &mut dyn ChunkWriter) -> Result<()> {
        todo!()
    }

    /// Applies a change set (replay, AS OF, rebase), recording it as this edit's own. Indexes follow; those of replaced tables are rebuilt.
    /// # Errors
    /// `Conflict` when a row to insert exists, or a row to change or delete is missing or differs in the changed columns.
    pub fn apply_changes(&mut self, changes: &ChangeSet, reader: &Arc<dyn ChunkReader>) -> Result<()> {
        todo!()
    }

    /// Takes every change back and returns the root as it was.
    pub fn undo(self) -> Root {
        todo!()
    }

    /// The edited root and what was changed.
    pub fn root_and_changes(self) -> (Root, ChangeSet) {
        (self.root, self.changes)
    }

    pub fn table_schema(&self, table: Oid) -> Option<&Arc<TableSchema>> {
        self.root.table(table).map(|t| t.schema())
    }
}
