//! A root value: all tables at one moment, as trees. Cloning is a snapshot and costs two reference counts.
//!
//! Written, a root value is one chunk that names a chunk per catalog object and the topmost node of every tree:
//!
//! | size | field |
//! |---|---|
//! | 1 | 0x52 |
//! | 1 | format of the root value, 1 |
//! | 4 | number of catalog objects; then for each, by ascending oid: |
//! | 4, 32 | oid; address of its chunk, the object as JSON |
//! | 4 | number of tables; then for each, by ascending oid: |
//! | 4, 4 | oid; number of trees: the rows, then the stored indexes in the schema's order; for each: |
//! | 4, 8, 32 | rows that its leaves are aimed at; rows in it; address of its topmost node (zeros: empty) |

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::change_set::{CatalogChange, ChangeSet, RowChange, RowChangeKind, RowsChange, TableChange};
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::diff::diff_tables;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::schema::{Catalog, CatalogObject, Oid};
use crate::table::{TableShape, index_layout};
use crate::tree::Tree;

pub use crate::table::{KeyRange, TableData, prefix_range};

const ROOT_MAGIC: u8 = 0x52;
const ROOT_FORMAT: u8 = 1;
const NO_ADDRESS: [u8; 32] = [0; 32];

/// A table that differs in more rows than this is recorded as replaced.
const ROW_CHANGES_MAX: usize = 100_000;

/// All tables at one moment.
#[derive(Clone, Debug)]
pub struct Root {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) tables: Arc<BTreeMap<Oid, Arc<TableData>>>,
    /// The store that the root value is of, where new tables' nodes will go; `None` outside of a store.
    pub(crate) chunks: Option<Arc<dyn ChunkReader>>,
}

impl Root {
    /// An empty database with this catalog.
    /// # Panics
    /// When the catalog has a table whose keys name columns that it does not have.
    pub fn new(catalog: Catalog) -> Self {
        let tables = catalog
            .tables()
            .map(|schema| {
                let shape = TableShape::new(schema.clone()).expect("BUG: a catalog with an impossible key");
                (schema.oid, Arc::new(TableData::empty(shape, None)))
            })
            .collect();
        Root { catalog: Arc::new(catalog), tables: Arc::new(tables), chunks: None }
    }

    /// One table alone, of which the catalog tells.
    pub(crate) fn of_table(catalog: Catalog, oid: Oid, table: Arc<TableData>, chunks: Arc<dyn ChunkReader>) -> Self {
        Root { catalog: Arc::new(catalog), tables: Arc::new(BTreeMap::from([(oid, table)])), chunks: Some(chunks) }
    }

    /// A table alone, taken out of a root value, of which the catalog tells.
    pub(crate) fn of_table_in(root: &Root, oid: Oid, table: Arc<TableData>) -> Self {
        Root { catalog: root.catalog.clone(), tables: Arc::new(BTreeMap::from([(oid, table)])), chunks: root.chunks.clone() }
    }

    /// An empty database of a store, without a catalog.
    pub(crate) fn empty_in(chunks: &Arc<dyn ChunkReader>) -> Self {
        Root { chunks: Some(chunks.clone()), ..Root::new(Catalog::default()) }
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The rows of a table; `None` when there is no such table.
    /// The definitions alone, for who keeps them for long and must not keep rows with them.
    pub fn definitions(&self) -> Root {
        Root { catalog: self.catalog.clone(), tables: Arc::default(), chunks: None }
    }

    pub fn table(&self, oid: Oid) -> Option<&Arc<TableData>> {
        self.tables.get(&oid)
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

    /// Writes every node and object that has no address yet and returns the address of the root value's chunk. The same
    /// content gives the same address, however it came about. Normalises the trees' shapes first.
    pub fn write(&mut self, writer: &mut dyn ChunkWriter) -> Result<ChunkAddress> {
        self.normalise()?;
        let mut out = vec![ROOT_MAGIC, ROOT_FORMAT];
        out.extend((self.catalog.objects.len() as u32).to_le_bytes());
        for (oid, object) in &self.catalog.objects {
            let json = serde_json::to_vec(&**object).map_err(|e| Error::Invalid(format!("catalog object {oid} has no JSON form: {e}")))?;
            out.extend(oid.to_le_bytes());
            out.extend(writer.put_bytes(&json)?.0);
        }
        let mut oids: Vec<_> = self.tables.keys().copied().collect();
        oids.sort_unstable();
        out.extend((oids.len() as u32).to_le_bytes());
        for oid in oids {
            let table = &self.tables[&oid];
            out.extend(oid.to_le_bytes());
            out.extend((1 + table.indexes.len() as u32).to_le_bytes());
            for tree in std::iter::once(&table.rows).chain(&table.indexes) {
                // Normalised, a clone's nodes are this tree's, so the addresses stay with it.
                let address = tree.clone().write(writer)?;
                out.extend(tree.target().to_le_bytes());
                out.extend(tree.len().to_le_bytes());
                out.extend(address.map_or(NO_ADDRESS, |a| a.0));
            }
        }
        writer.put_bytes(&out)
    }

    /// Says whether a chunk is a root value, and not a node of a tree.
    pub(crate) fn is_root(chunk: &[u8]) -> bool {
        // Nodes begin with their level, which is far below.
        chunk.first() == Some(&ROOT_MAGIC)
    }

    /// The chunks that a written root value names: its catalog objects' and its trees' topmost nodes.
    /// # Errors
    /// `Damaged`.
    pub(crate) fn names(address: &ChunkAddress, bytes: &[u8]) -> Result<RootNames> {
        let damaged = |what: &str| Error::Damaged { place: format!("root value {address:.12}"), what: what.into() };
        let cut = || damaged("cut short");
        let mut fields = Fields { rest: bytes };
        if fields.array() != Some([ROOT_MAGIC, ROOT_FORMAT]) {
            return Err(damaged("not a root value, or of an unknown format"));
        }
        let mut names = RootNames::default();
        for _ in 0..fields.u32().ok_or_else(cut)? {
            fields.u32().ok_or_else(cut)?;
            names.objects.push(ChunkAddress(fields.array().ok_or_else(cut)?));
        }
        for _ in 0..fields.u32().ok_or_else(cut)? {
            fields.u32().ok_or_else(cut)?;
            for _ in 0..fields.u32().ok_or_else(cut)? {
                fields.array::<12>().ok_or_else(cut)?;
                let top: [u8; 32] = fields.array().ok_or_else(cut)?;
                names.trees.extend((top != NO_ADDRESS).then_some(ChunkAddress(top)));
            }
        }
        if fields.rest.is_empty() { Ok(names) } else { Err(damaged("has bytes after its end")) }
    }

    /// Opens a written root value: reads the catalog; nodes of trees are read when they are needed.
    /// # Errors
    /// `Damaged`.
    pub fn open(address: &ChunkAddress, reader: Arc<dyn ChunkReader>) -> Result<Root> {
        let damaged = |what: &str| Error::Damaged { place: format!("root value {address:.12}"), what: what.into() };
        reader.pin(address);
        let bytes = reader.read(address)?;
        let mut fields = Fields { rest: &bytes };
        let cut = || damaged("cut short");
        match fields.array::<2>().ok_or_else(cut)? {
            [ROOT_MAGIC, ROOT_FORMAT] => (),
            [ROOT_MAGIC, _] => return Err(damaged("unknown format")),
            _ => return Err(damaged("not a root value")),
        }
        let mut catalog = Catalog::default();
        for _ in 0..fields.u32().ok_or_else(cut)? {
            let oid = fields.u32().ok_or_else(cut)?;
            let json = reader.read(&ChunkAddress(fields.array().ok_or_else(cut)?))?;
            let object: CatalogObject =
                serde_json::from_slice(&json).map_err(|e| damaged(&format!("catalog object {oid} is unreadable: {e}")))?;
            if object.oid() != oid || catalog.objects.last_key_value().is_some_and(|(last, _)| *last >= oid) {
                return Err(damaged("catalog objects are out of order"));
            }
            catalog.objects.insert(oid, Arc::new(object));
        }
        let mut tables = BTreeMap::new();
        for _ in 0..fields.u32().ok_or_else(cut)? {
            let oid = fields.u32().ok_or_else(cut)?;
            let schema = catalog.table(oid).ok_or_else(|| damaged("rows of a table that the catalog does not have"))?;
            let shape = TableShape::new(schema.clone()).map_err(|e| damaged(&e.to_string()))?;
            if fields.u32().ok_or_else(cut)? as usize != 1 + shape.indexes.len() {
                return Err(damaged("number of indexes differs from the schema's"));
            }
            let mut tree = |layout| -> Result<Tree> {
                let target = fields.u32().ok_or_else(cut)?;
                let count = u64::from_le_bytes(fields.array().ok_or_else(cut)?);
                let address: [u8; 32] = fields.array().ok_or_else(cut)?;
                if (address == NO_ADDRESS) != (count == 0) {
                    return Err(damaged("row count of a table"));
                }
                let root = (count > 0).then_some((ChunkAddress(address), count));
                Tree::open_known(root, target, layout, Some(reader.clone()))
            };
            let rows = tree(shape.layout.clone())?;
            let indexes = shape.indexes.iter().map(|_| tree(index_layout())).collect::<Result<Vec<_>>>()?;
            tables.insert(oid, Arc::new(TableData { shape, rows, indexes }));
        }
        if !fields.rest.is_empty() || tables.len() != catalog.tables().count() {
            return Err(damaged("tables and catalog do not agree"));
        }
        Ok(Root { catalog: Arc::new(catalog), tables: Arc::new(tables), chunks: Some(reader) })
    }

    /// Brings the trees of all tables into their canonical shape, so that a later `write` of a snapshot of this root finds
    /// it: without it every checkpoint of a snapshot repeats the work. Hashes and writes nothing.
    pub fn normalise(&mut self) -> Result<()> {
        let is_dirty = |table: &TableData| table.rows.is_dirty() || table.indexes.iter().any(Tree::is_dirty);
        let dirty: Vec<_> = self.tables.iter().filter(|(_, table)| is_dirty(table)).map(|(oid, _)| *oid).collect();
        if dirty.is_empty() {
            return Ok(());
        }
        let tables = Arc::make_mut(&mut self.tables);
        for oid in dirty {
            let table = Arc::make_mut(tables.get_mut(&oid).expect("BUG: a table just seen is gone"));
            table.rows.normalise()?;
            table.indexes.iter_mut().try_for_each(Tree::normalise)?;
        }
        Ok(())
    }

    /// Lets the cache evict the leaves that are written. `done` are tables of other root values that were released just before,
    /// before and after, so that what was shared stays shared.
    pub(crate) fn release(&mut self, done: &mut Vec<(Arc<TableData>, Arc<TableData>)>) {
        let is_held = |table: &TableData| std::iter::once(&table.rows).chain(&table.indexes).any(Tree::is_held);
        let held: Vec<_> = self.tables.iter().filter(|(_, table)| is_held(table)).map(|(oid, _)| *oid).collect();
        if held.is_empty() {
            return;
        }
        let tables = Arc::make_mut(&mut self.tables);
        for oid in held {
            let table = tables.get_mut(&oid).expect("BUG: a table just seen is gone");
            if let Some((_, released)) = done.iter().find(|(before, _)| Arc::ptr_eq(before, table)) {
                *table = released.clone();
                continue;
            }
            let before = (Arc::strong_count(table) > 1).then(|| table.clone());
            let data = Arc::make_mut(table);
            std::iter::once(&mut data.rows).chain(&mut data.indexes).for_each(Tree::release);
            done.extend(before.map(|before| (before, table.clone())));
        }
    }

    /// Lets all trees read through another door of the same store, and adds the doors that they had to `former`. `done` is as for
    /// [`Root::release`].
    pub(crate) fn set_reader(
        &mut self,
        reader: &Arc<dyn ChunkReader>,
        done: &mut Vec<(Arc<TableData>, Arc<TableData>)>,
        former: &mut Vec<Arc<dyn ChunkReader>>,
    ) {
        let mut replaced = |old: Option<Arc<dyn ChunkReader>>| {
            if let Some(old) = old.filter(|old| former.iter().all(|other| !Arc::ptr_eq(old, other))) {
                former.push(old);
            }
        };
        replaced(self.chunks.replace(reader.clone()));
        for table in Arc::make_mut(&mut self.tables).values_mut() {
            if let Some((_, renewed)) = done.iter().find(|(before, _)| Arc::ptr_eq(before, table)) {
                *table = renewed.clone();
                continue;
            }
            let before = (Arc::strong_count(table) > 1).then(|| table.clone());
            let data = Arc::make_mut(table);
            std::iter::once(&mut data.rows).chain(&mut data.indexes).for_each(|tree| replaced(tree.set_reader(reader)));
            done.extend(before.map(|before| (before, table.clone())));
        }
    }

    /// Writes what is not written and lets the cache evict it: for a root value in the making that has grown large.
    pub(crate) fn spill(&mut self, writer: &mut dyn ChunkWriter) -> Result<()> {
        let is_held = |table: &TableData| std::iter::once(&table.rows).chain(&table.indexes).any(Tree::is_held);
        let held: Vec<_> = self.tables.iter().filter(|(_, table)| is_held(table)).map(|(oid, _)| *oid).collect();
        let tables = Arc::make_mut(&mut self.tables);
        for oid in held {
            let data = Arc::make_mut(tables.get_mut(&oid).expect("BUG: a table just seen is gone"));
            for tree in std::iter::once(&mut data.rows).chain(&mut data.indexes) {
                tree.write(writer)?;
                tree.release();
            }
        }
        Ok(())
    }

    /// Says whether both have the same catalog and rows. Costs what differs, and nothing for clones.
    pub fn same(&self, other: &Root) -> Result<bool> {
        if Arc::ptr_eq(&self.tables, &other.tables) && Arc::ptr_eq(&self.catalog, &other.catalog) {
            return Ok(true);
        }
        if self.catalog != other.catalog {
            return Ok(false);
        }
        for (oid, table) in &*self.tables {
            let Some(other) = other.tables.get(oid) else { return Ok(false) };
            if let Some(difference) = table.rows.diff(&other.rows).next() {
                difference?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Applies a change set without recording it: replay. Half applied on an error.
    /// # Errors
    /// As [`Edit::apply_changes`].
    pub fn apply(&mut self, changes: &ChangeSet, reader: &Arc<dyn ChunkReader>) -> Result<()> {
        let mut edit = Edit::unrecorded(std::mem::replace(self, Root::new(Catalog::default())));
        let result = edit.apply_changes(changes, reader);
        *self = edit.root_and_changes().0;
        result
    }

    /// The change set that makes `to` of `from`: row by row where a table's columns are the same, `Replaced` otherwise
    /// (whose tree is then written to `writer`).
    pub fn diff_to_changes(from: &Root, to: &Root, writer: &mut dyn ChunkWriter) -> Result<ChangeSet> {
        let mut changes = ChangeSet::default();
        if !Arc::ptr_eq(&from.catalog, &to.catalog) {
            for (oid, object) in &to.catalog.objects {
                if from.catalog.objects.get(oid) != Some(object) {
                    changes.catalog.push(CatalogChange { oid: *oid, object: Some(object.clone()) });
                }
            }
            for oid in from.catalog.objects.keys().filter(|oid| !to.catalog.objects.contains_key(oid)) {
                changes.catalog.push(CatalogChange { oid: *oid, object: None });
            }
        }
        let mut oids: Vec<_> = from.tables.keys().chain(to.tables.keys()).copied().collect();
        oids.sort_unstable();
        oids.dedup();
        for oid in oids {
            let rows = match (from.tables.get(&oid), to.tables.get(&oid)) {
                (Some(_), None) => Some(RowsChange::Dropped),
                (before, Some(after)) => rows_between(before.map(|t| &**t), after, writer)?,
                (None, None) => None,
            };
            changes.tables.extend(rows.map(|rows| TableChange { table: oid, rows }));
        }
        Ok(changes)
    }
}

/// What a written root value refers to.
#[derive(Debug, Default)]
pub(crate) struct RootNames {
    pub objects: Vec<ChunkAddress>,
    /// The topmost nodes.
    pub trees: Vec<ChunkAddress>,
}

/// What happened to a table that still exists; `None`: nothing.
fn rows_between(before: Option<&TableData>, after: &TableData, writer: &mut dyn ChunkWriter) -> Result<Option<RowsChange>> {
    let replaced = |writer: &mut dyn ChunkWriter| Ok(Some(RowsChange::Replaced { rows: after.rows.clone().write(writer)? }));
    // A replay must end with nodes of the same sizes, too.
    let same_sizes = match before {
        Some(before) => before.rows.target() == after.rows.target(),
        None => after.rows.has_default_target(),
    };
    if !same_sizes || before.is_some_and(|before| !before.shape.same_rows(&after.shape)) {
        return replaced(writer);
    }
    let mut changes = Vec::new();
    for difference in diff_tables(before, Some(after)) {
        let difference = difference?;
        let kind = match (difference.from, difference.to) {
            (None, Some(new)) => RowChangeKind::Inserted { new },
            (Some(old), None) => RowChangeKind::Deleted { old },
            (Some(old), Some(new)) => {
                let columns = old.into_iter().zip(new).enumerate();
                RowChangeKind::Updated {
                    columns: columns.filter(|(_, (old, new))| old != new).map(|(i, (old, new))| (i as u16, old, new)).collect(),
                }
            }
            (None, None) => continue,
        };
        changes.push(RowChange { key: difference.key.into(), kind });
        if changes.len() > ROW_CHANGES_MAX {
            return replaced(writer);
        }
    }
    // Deletions last, so that the table is not empty in between.
    changes.sort_by_key(|change| matches!(change.kind, RowChangeKind::Deleted { .. }));
    Ok((!changes.is_empty()).then_some(RowsChange::Rows(changes)))
}

/// Reads fields off the front of a slice.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
}
