//! A root value: all tables at one moment, as trees. Cloning is a snapshot and costs two reference counts.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::Result;
use crate::id::ChunkAddress;
use crate::schema::{Catalog, Oid, TableSchema};
use crate::tree::{Cursor, Tree};
use crate::value::{Row, Value};

/// All tables at one moment.
#[derive(Clone, Debug)]
pub struct Root {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) tables: Arc<HashMap<Oid, Arc<TableData>>>,
}

impl Root {
    /// An empty database with this catalog.
    pub fn new(catalog: Catalog) -> Self {
        todo!()
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Writes every node and object that has no address yet and returns the address of the root value's chunk. The same
    /// content gives the same address, however it came about. Normalises the trees' shapes first.
    pub fn write(&mut self, writer: &mut dyn ChunkWriter) -> Result<ChunkAddress> {
        todo!()
    }

    /// Opens a written root value: reads the catalog; nodes of trees are read when they are needed.
    /// # Errors
    /// `Damaged`.
    pub fn open(address: &ChunkAddress, reader: Arc<dyn ChunkReader>) -> Result<Root> {
        todo!()
    }

    /// Brings the trees of all tables into their canonical shape, so that a later `write` of a snapshot of this root finds
    /// it: without it every checkpoint of a snapshot repeats the work. Hashes and writes nothing.
    pub fn normalise(&mut self) -> Result<()> {
        todo!()
    }

    /// Says whether both have the same catalog and rows. Costs what differs, and nothing for clones.
    pub fn same(&self, other: &Root) -> Result<bool> {
        todo!()
    }

    /// The change set that makes `to` of `from`: row by row where a table's columns are the same, `Replaced` otherwise
    /// (whose tree is then written to `writer`).
    pub fn diff_to_changes(from: &Root, to: &Root, writer: &mut dyn ChunkWriter) -> Result<crate::change_set::ChangeSet> {
        todo!()
    }

    /// This root with one object (a table with its rows and indexes) as `other` has it; without it where `other` has none.
    pub fn with_object_of(&self, other: &Root, oid: Oid) -> Root {
        let mut root = self.clone();
        let catalog = Arc::make_mut(&mut root.catalog);
        match other.catalog.objects.get(&oid) {
            Some(object) => catalog.objects.insert(oid, Arc::clone(object)),
            None => catalog.objects.remove(&oid),
        };
        let tables = Arc::make_mut(&mut root.tables);
        match other.tables.get(&oid) {
            Some(table) => tables.insert(oid, Arc::clone(table)),
            None => tables.remove(&oid),
        };
        root
    }

    /// The rows of a table; `None` when there is no such table.
    pub fn table(&self, oid: Oid) -> Option<&Arc<TableData>> {
        self.tables.get(&oid)
    }
}

/// A table's rows and indexes at one moment.
#[derive(Clone, Debug)]
pub struct TableData {
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) rows: Tree,
    /// (index oid, its tree): key is the indexed columns' key bytes followed by the row key; no values.
    pub(crate) indexes: Vec<(Oid, Tree)>,
}

/// A range of encoded keys.
pub type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl TableData {
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// The number of rows; O(1).
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// The encoded primary key of a row; for a keyless table the 16-byte hash of the row followed by a
    /// big-endian u32 ordinal among equal rows, here 0.
    pub fn row_key(&self, row: &[Value]) -> Vec<u8> {
        todo!()
    }

    /// Encodes values for leading key columns (primary key when `index` is `None`): a prefix of every matching
    /// row's key, so `prefix ..= prefix+0xFF..` bounds a scan; see [`prefix_range`].
    pub fn key_prefix(&self, index: Option<Oid>, values: &[Value]) -> Result<Vec<u8>> {
        todo!()
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Row>> {
        todo!()
    }

    /// The row keys that an index holds for these values of all or the first of its columns.
    pub fn index_lookup(&self, index: Oid, values: &[Value]) -> Result<Vec<Vec<u8>>> {
        todo!()
    }

    /// The key of one row that equals `row` in the given columns (all columns: O(1) in a keyless table). NULL equals NULL.
    /// Uses the primary key or a unique index whose columns are among `columns`, else scans.
    pub fn find_row(&self, columns: &[usize], row: &[Value]) -> Result<Option<Vec<u8>>> {
        todo!()
    }

    /// Rows in key order (backwards when `reverse`), leaf by leaf.
    pub fn scan(&self, range: KeyRange, reverse: bool) -> Cursor {
        todo!()
    }
}

/// The range of all keys that begin with these bytes.
pub fn prefix_range(prefix: &[u8]) -> KeyRange {
    todo!()
}
