//! A table's rows and indexes at one moment, and the keys that they are found by.
//!
//! Rows are in one tree by row key: the primary key's columns encoded, or, in a table without one, the 16-byte BLAKE3 hash of
//! the row and its ordinal among equal rows (so that equal rows are a multiset with keys 0, 1, 2 ...). Each stored index is a
//! tree of its own without values: the indexed columns encoded, then the row key.

use std::ops::Bound;
use std::sync::Arc;

use crate::chunk::ChunkReader;
use crate::error::{Error, Result};
use crate::schema::{Index, IndexColumn, IndexKey, Oid, TableSchema};
use crate::tree::{Cursor, Layout, Leaf, Tree};
use crate::value::key::{decode_key, encode_key};
use crate::value::{Row, TextSettings, Value};

/// A range of encoded keys.
pub type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The bytes of a keyless row's key that are its hash; a big-endian u32 follows.
pub(crate) const ROW_HASH_SIZE: usize = 16;

/// A table's rows and indexes at one moment.
#[derive(Clone, Debug)]
pub struct TableData {
    pub(crate) shape: Arc<TableShape>,
    pub(crate) rows: Tree,
    /// The stored indexes' trees, in the order of `shape.indexes`.
    pub(crate) indexes: Vec<Tree>,
}

/// What is computed once from a table's schema.
#[derive(Debug)]
pub(crate) struct TableShape {
    pub schema: Arc<TableSchema>,
    pub layout: Arc<Layout>,
    /// `None`: a keyless table.
    pub key: Option<Vec<KeyColumn>>,
    pub indexes: Vec<IndexShape>,
    /// Columns that the row key or a stored index depends on.
    pub in_keys: Vec<bool>,
}

#[derive(Debug)]
pub(crate) struct IndexShape {
    pub oid: Oid,
    pub name: String,
    pub unique: bool,
    pub nulls_not_distinct: bool,
    pub columns: Vec<KeyColumn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyColumn {
    pub position: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

impl KeyColumn {
    fn new(column: &IndexColumn) -> Result<Self> {
        match column.key {
            IndexKey::Column(position) => Ok(KeyColumn { position, descending: column.descending, nulls_first: column.nulls_first }),
            IndexKey::Expression(_) => Err(Error::Invalid("primary keys on expressions are not possible".into())),
        }
    }
}

impl TableShape {
    pub fn new(schema: Arc<TableSchema>) -> Result<Arc<Self>> {
        let layout = Layout::new(schema.columns.iter().map(|c| c.data_type.kind.physical()).collect());
        let columns = |index: &Index| -> Result<Vec<KeyColumn>> {
            let columns = index.columns.iter().map(KeyColumn::new).collect::<Result<Vec<_>>>()?;
            match columns.iter().find(|c| c.position >= schema.columns.len()) {
                Some(c) => {
                    Err(Error::Invalid(format!("index \"{}\" has a column at position {}, its table has none", index.name, c.position)))
                }
                None => Ok(columns),
            }
        };
        let key = schema.primary_key.as_ref().map(columns).transpose()?;
        let indexes = schema.indexes.iter().filter(|index| index.is_stored());
        let indexes = indexes
            .map(|index| {
                let (oid, name) = (index.oid, index.name.clone());
                let (unique, nulls_not_distinct) = (index.unique, index.nulls_not_distinct);
                Ok(IndexShape { oid, name, unique, nulls_not_distinct, columns: columns(index)? })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut in_keys = vec![key.is_none(); schema.columns.len()];
        for column in key.iter().flatten().chain(indexes.iter().flat_map(|index| &index.columns)) {
            in_keys[column.position] = true;
        }
        Ok(Arc::new(TableShape { schema, layout, key, indexes, in_keys }))
    }

    /// Says whether rows and their keys are the same bytes in both, so that one's rows can be the other's.
    pub fn same_rows(&self, other: &TableShape) -> bool {
        let columns = |shape: &TableShape| -> Vec<_> { shape.schema.columns.iter().map(|c| (c.attnum, c.data_type.kind)).collect() };
        columns(self) == columns(other) && self.key == other.key
    }

    /// See [`TableSchema::same_key`].
    pub fn same_key(&self, other: &TableShape) -> bool {
        self.schema.same_key(&other.schema)
    }

    /// Pairs the columns of two versions of a table.
    pub fn columns_in(&self, other: &TableShape) -> Vec<(Option<usize>, Option<usize>)> {
        let position = |shape: &TableShape, attnum| shape.schema.columns.iter().position(|c| c.attnum == attnum);
        let here = self.schema.columns.iter().enumerate().map(|(i, c)| (Some(i), position(other, c.attnum)));
        let only_there = other.schema.columns.iter().enumerate().filter(|(_, c)| position(self, c.attnum).is_none());
        here.chain(only_there.map(|(i, _)| (None, Some(i)))).collect()
    }

    /// Says whether two indexes, each of its own table, hold the same entries.
    pub fn same_index(&self, index: &IndexShape, other: &TableShape, other_index: &IndexShape) -> bool {
        let kinds = |shape: &TableShape, index: &IndexShape| -> Vec<_> {
            index.columns.iter().map(|c| (*c, shape.schema.columns[c.position].data_type.kind)).collect()
        };
        index.unique == other_index.unique
            && index.nulls_not_distinct == other_index.nulls_not_distinct
            && kinds(self, index) == kinds(other, other_index)
    }

    pub fn encode_columns<'a>(&self, out: &mut Vec<u8>, columns: &[KeyColumn], values: impl Iterator<Item = &'a Value>) {
        for (column, value) in columns.iter().zip(values) {
            encode_key(out, value, &self.schema.columns[column.position].data_type, column.descending, column.nulls_first);
        }
    }

    /// The row's key; a keyless row's with the ordinal 0.
    pub fn row_key(&self, row: &[Value]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.key.as_ref().map_or(ROW_HASH_SIZE + 4, |columns| 16 * columns.len()));
        self.append_row_key(&mut key, row);
        key
    }

    /// Appends what [`TableShape::row_key`] returns.
    pub fn append_row_key(&self, key: &mut Vec<u8>, row: &[Value]) {
        match &self.key {
            Some(columns) => self.encode_columns(key, columns, columns.iter().map(|c| &row[c.position])),
            None => {
                key.extend(row_hash(row));
                key.extend([0; 4]);
            }
        }
    }

    /// The indexed columns of a row, encoded; the row key follows in the index's tree.
    pub fn index_prefix(&self, index: &IndexShape, row: &[Value]) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(16 * index.columns.len() + 24);
        self.encode_columns(&mut prefix, &index.columns, index.columns.iter().map(|c| &row[c.position]));
        prefix
    }

    pub fn index_key(&self, index: &IndexShape, row: &[Value], row_key: &[u8]) -> Vec<u8> {
        let mut key = self.index_prefix(index, row);
        key.extend_from_slice(row_key);
        key
    }

    /// `(a, b)=(1, x)`
    pub fn key_text(&self, columns: &[KeyColumn], row: &[Value]) -> String {
        let names: Vec<_> = columns.iter().map(|c| self.schema.columns[c.position].name.as_str()).collect();
        let texts: Vec<_> = columns
            .iter()
            .map(|c| {
                let mut text = Vec::new();
                match &row[c.position] {
                    Value::Null => text.extend(b"null"),
                    value => self.schema.columns[c.position].data_type.format(value, &TextSettings::default(), &mut text),
                }
                String::from_utf8_lossy(&text).into_owned()
            })
            .collect();
        format!("({})=({})", names.join(", "), texts.join(", "))
    }

    pub fn duplicate_key(&self, row: &[Value]) -> Error {
        let (table, columns) = (self.schema.name.clone(), self.key.as_deref().unwrap_or_default());
        let index = self.schema.primary_key.as_ref().map_or_else(String::new, |key| key.name.clone());
        Error::DuplicateKey { table, index, key: self.key_text(columns, row) }
    }

    pub fn duplicate_in(&self, index: &IndexShape, row: &[Value]) -> Error {
        let table = self.schema.name.clone();
        Error::DuplicateKey { table, index: index.name.clone(), key: self.key_text(&index.columns, row) }
    }

    /// The key's text for a message, from encoded bytes.
    pub fn text_of_key(&self, key: &[u8]) -> String {
        let Some(columns) = &self.key else { return "(keyless row)".into() };
        let mut row = vec![Value::Null; self.schema.columns.len()];
        let mut rest = key;
        for column in columns {
            let data_type = &self.schema.columns[column.position].data_type;
            match decode_key(rest, data_type, column.descending, column.nulls_first) {
                Ok((value, after)) => {
                    row[column.position] = value;
                    rest = after;
                }
                Err(_) => return "(unreadable key)".into(),
            }
        }
        self.key_text(columns, &row)
    }
}

impl TableData {
    /// An empty table.
    pub(crate) fn empty(shape: Arc<TableShape>, chunks: Option<&Arc<dyn ChunkReader>>) -> Self {
        let rows = Tree::new(shape.layout.clone(), chunks.cloned());
        let indexes = shape.indexes.iter().map(|_| Tree::new(index_layout(), chunks.cloned())).collect();
        TableData { shape, rows, indexes }
    }

    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.shape.schema
    }

    /// The number of rows; O(1).
    pub fn len(&self) -> u64 {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The tree of the rows.
    pub fn rows(&self) -> &Tree {
        &self.rows
    }

    /// The tree of a stored index.
    pub fn index(&self, index: Oid) -> Option<&Tree> {
        self.shape.indexes.iter().position(|i| i.oid == index).map(|at| &self.indexes[at])
    }

    /// The encoded primary key of a row; for a keyless table the 16-byte hash of the row followed by a
    /// big-endian u32 ordinal among equal rows, here 0.
    pub fn row_key(&self, row: &[Value]) -> Vec<u8> {
        self.shape.row_key(row)
    }

    /// Encodes values for leading key columns (primary key when `index` is `None`): a prefix of every matching
    /// row's key, so `prefix ..= prefix+0xFF..` bounds a scan; see [`prefix_range`].
    pub fn key_prefix(&self, index: Option<Oid>, values: &[Value]) -> Result<Vec<u8>> {
        let columns = self.key_columns_of(index)?;
        if values.len() > columns.len() {
            return Err(Error::Invalid(format!("{} values for a key of {} columns", values.len(), columns.len())));
        }
        for (column, value) in columns.iter().zip(values) {
            self.shape.layout.check_value(column.position, value)?;
        }
        let mut prefix = Vec::new();
        self.shape.encode_columns(&mut prefix, columns, values.iter());
        Ok(prefix)
    }

    fn key_columns_of(&self, index: Option<Oid>) -> Result<&[KeyColumn]> {
        let primary = self.shape.schema.primary_key.as_ref().map(|key| key.oid);
        match index {
            Some(oid) if Some(oid) != primary => {
                let index = self.shape.indexes.iter().find(|i| i.oid == oid);
                Ok(&index.ok_or_else(|| Error::NotFound { what: "stored index", name: oid.to_string() })?.columns)
            }
            _ => Ok(self.shape.key.as_deref().unwrap_or_default()),
        }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Row>> {
        self.rows.get(key)
    }

    /// The row keys that an index (or the primary key) holds for these values of all or the first of its columns, in index order.
    pub fn index_lookup(&self, index: Oid, values: &[Value]) -> Result<Vec<Vec<u8>>> {
        let prefix = self.key_prefix(Some(index), values)?;
        self.index_range(index, prefix_range(&prefix), usize::MAX)
    }

    /// The row keys of an index's entries within a range of its encoded keys, in index order, `limit` at most.
    pub fn index_range(&self, index: Oid, range: KeyRange, limit: usize) -> Result<Vec<Vec<u8>>> {
        let columns = self.key_columns_of(Some(index))?;
        let tree = self.index(index);
        let mut cursor = tree.unwrap_or(&self.rows).scan(range, false);
        let mut keys = Vec::new();
        while keys.len() < limit
            && let Some((leaf, at)) = cursor.next_position()?
        {
            let entry = leaf.key(at);
            keys.push(if tree.is_some() { self.row_key_of_entry(columns, entry)?.to_vec() } else { entry.to_vec() });
        }
        Ok(keys)
    }

    /// The row key at the end of an index entry.
    fn row_key_of_entry<'a>(&self, columns: &[KeyColumn], entry: &'a [u8]) -> Result<&'a [u8]> {
        let mut rest = entry;
        for column in columns {
            let data_type = &self.shape.schema.columns[column.position].data_type;
            rest = decode_key(rest, data_type, column.descending, column.nulls_first)?.1;
        }
        Ok(rest)
    }

    /// The key of one row that equals `row` in the given columns (all columns: O(1) in a keyless table). NULL equals NULL.
    /// Uses the primary key or an index whose columns are among `columns`, else scans.
    pub fn find_row(&self, columns: &[usize], row: &[Value]) -> Result<Option<Vec<u8>>> {
        self.shape.layout.check_row(row)?;
        let among = |keys: &[KeyColumn]| !keys.is_empty() && keys.iter().all(|c| columns.contains(&c.position));
        let equal = |leaf: &Leaf, at: usize| columns.iter().all(|&c| leaf.value_is(at, c, &row[c]));
        match &self.shape.key {
            Some(key) if among(key) => {
                let key = self.row_key(row);
                let found = self.rows.find(&key)?.is_some_and(|(leaf, at)| equal(&leaf, at));
                return Ok(found.then_some(key));
            }
            None if (0..self.shape.schema.columns.len()).all(|c| columns.contains(&c)) => {
                return self.last_of_hash(&row_hash(row));
            }
            _ => (),
        }
        let usable = self.shape.indexes.iter().enumerate().filter(|(_, index)| among(&index.columns));
        // The index with the most columns, unique ones first, leaves the fewest rows to look at.
        if let Some((at, index)) = usable.max_by_key(|(_, index)| (index.unique, index.columns.len())) {
            let prefix = self.shape.index_prefix(index, row);
            let mut cursor = self.indexes[at].scan(prefix_range(&prefix), false);
            while let Some((entries, at)) = cursor.next_position()? {
                let key = &entries.key(at)[prefix.len()..];
                if self.rows.find(key)?.is_some_and(|(leaf, at)| equal(&leaf, at)) {
                    return Ok(Some(key.to_vec()));
                }
            }
            return Ok(None);
        }
        let mut cursor = self.scan((Bound::Unbounded, Bound::Unbounded), false);
        while let Some(rows) = cursor.next_leaf()? {
            if let Some(at) = (rows.start..rows.end).find(|&at| equal(&rows.leaf, at)) {
                return Ok(Some(rows.leaf.key(at).to_vec()));
            }
        }
        Ok(None)
    }

    /// The key with the highest ordinal among the keyless rows with this hash.
    pub(crate) fn last_of_hash(&self, hash: &[u8; ROW_HASH_SIZE]) -> Result<Option<Vec<u8>>> {
        let mut cursor = self.rows.scan(prefix_range(hash), true);
        Ok(cursor.next_position()?.map(|(leaf, at)| leaf.key(at).to_vec()))
    }

    /// Rows in key order (backwards when `reverse`), leaf by leaf.
    pub fn scan(&self, range: KeyRange, reverse: bool) -> Cursor {
        self.rows.scan(range, reverse)
    }

    /// Checks the trees, and that every index has an entry for each row and no other. Reads the whole table.
    /// # Errors
    /// `Damaged`, with what was found first.
    pub fn verify(&self) -> Result<()> {
        self.rows.verify()?;
        for (index, tree) in self.shape.indexes.iter().zip(&self.indexes) {
            tree.verify()?;
            let damaged = |what: &str| Error::Damaged { place: format!("index \"{}\"", index.name), what: what.into() };
            if tree.len() != self.len() {
                return Err(damaged("number of entries differs from the number of rows"));
            }
            let mut cursor = self.scan((Bound::Unbounded, Bound::Unbounded), false);
            while let Some((leaf, at)) = cursor.next_position()? {
                if !tree.contains(&self.shape.index_key(index, &leaf.row(at), leaf.key(at)))? {
                    return Err(damaged("a row has no entry"));
                }
            }
        }
        let mut cursor = self.scan((Bound::Unbounded, Bound::Unbounded), false);
        while let Some((leaf, at)) = cursor.next_position()? {
            let (stored, expected) = (leaf.key(at), self.row_key(&leaf.row(at)));
            let same = match self.shape.key {
                Some(_) => stored == expected,
                None => stored.len() == expected.len() && stored[..ROW_HASH_SIZE] == expected[..ROW_HASH_SIZE],
            };
            if !same {
                let place = format!("table \"{}\"", self.shape.schema.name);
                return Err(Error::Damaged { place, what: "a row is kept under the key of another".into() });
            }
        }
        Ok(())
    }

    /// Checks that a unique index has no entry for the row's values but that of the row with key `except`.
    pub(crate) fn check_unique(&self, at: usize, row: &[Value], except: Option<&[u8]>) -> Result<()> {
        let index = &self.shape.indexes[at];
        if !index.unique || !index.nulls_not_distinct && index.columns.iter().any(|c| row[c.position].is_null()) {
            return Ok(());
        }
        let prefix = self.shape.index_prefix(index, row);
        let mut from = prefix.clone();
        while let Some((leaf, found)) = self.indexes[at].seek(&from)? {
            let entry = leaf.key(found);
            match entry.strip_prefix(prefix.as_slice()) {
                None => break,
                Some(row_key) if Some(row_key) == except => {
                    from = entry.to_vec();
                    from.push(0);
                }
                Some(_) => return Err(self.shape.duplicate_in(index, row)),
            }
        }
        Ok(())
    }
}

pub(crate) fn index_layout() -> Arc<Layout> {
    Layout::new(Vec::new())
}

/// The hash that stands for a row in a keyless table's keys. Part of the format.
pub(crate) fn row_hash(row: &[Value]) -> [u8; ROW_HASH_SIZE] {
    let mut input = HashInput { buffer: [0; 256], length: 0, hasher: None };
    for value in row {
        match value {
            Value::Null => input.add(&[0]),
            Value::Bool(v) => input.add(&[1, u8::from(*v)]),
            Value::Int2(v) => input.add_tagged(2, v.to_le_bytes()),
            Value::Int4(v) => input.add_tagged(3, v.to_le_bytes()),
            Value::Int8(v) => input.add_tagged(4, v.to_le_bytes()),
            Value::Float4(v) => input.add_tagged(5, v.to_le_bytes()),
            Value::Float8(v) => input.add_tagged(6, v.to_le_bytes()),
            Value::Uuid(v) => input.add_tagged(7, *v),
            Value::Bytes(v) => {
                input.add_tagged(8, (v.len() as u64).to_le_bytes());
                input.add(v);
            }
        }
    }
    *input.hash().as_bytes().first_chunk().expect("BUG: BLAKE3 gives 32 bytes")
}

/// Gathers what is to be hashed: a few bytes at a time are slow for the hash.
struct HashInput {
    buffer: [u8; 256],
    length: usize,
    /// Where the buffer is not enough.
    hasher: Option<blake3::Hasher>,
}

impl HashInput {
    fn add_tagged<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) {
        self.add(&[tag]);
        self.add(&bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buffer.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
        } else {
            self.hasher.get_or_insert_default().update(&self.buffer[..self.length]).update(bytes);
            self.length = 0;
        }
    }

    fn hash(mut self) -> blake3::Hash {
        match &mut self.hasher {
            None => blake3::hash(&self.buffer[..self.length]),
            Some(hasher) => hasher.update(&self.buffer[..self.length]).finalize(),
        }
    }
}

/// The range of all keys that begin with these bytes.
pub fn prefix_range(prefix: &[u8]) -> KeyRange {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_row_does_not_depend_on_how_its_bytes_are_gathered() {
        let bytes = |n: usize| Value::bytes(vec![b'x'; n]);
        for lengths in [[0, 0], [3, 240], [229, 1], [230, 1], [400, 5], [5, 3000], [250, 250]] {
            let row = [Value::Null, Value::Int4(-7), bytes(lengths[0]), Value::Bool(true), bytes(lengths[1]), Value::Int8(1 << 40)];
            let mut expected = blake3::Hasher::new();
            expected.update(&[0, 3]).update(&(-7i32).to_le_bytes());
            for (length, after) in lengths.into_iter().zip([[1u8, 1].as_slice(), &[4]]) {
                expected.update(&[8]).update(&(length as u64).to_le_bytes()).update(&vec![b'x'; length]).update(after);
            }
            expected.update(&(1i64 << 40).to_le_bytes());
            assert_eq!(row_hash(&row), *expected.finalize().as_bytes().first_chunk().unwrap(), "{lengths:?}");
        }
    }
}
