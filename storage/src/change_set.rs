//! What a commit changed, slim: key, old and new values of the changed columns.

use std::sync::Arc;

use crate::encoding::{ByteReader, Decoded, Malformed, put_bytes, put_row, put_value, put_varint};
use crate::id::ChunkAddress;
use crate::key_bytes::KeyBytes;
use crate::schema::{CatalogObject, Oid};
use crate::value::{Row, Value};

/// All changes of one commit: first the catalog, then the tables in the order of their first change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeSet {
    pub catalog: Vec<CatalogChange>,
    pub tables: Vec<TableChange>,
}

impl ChangeSet {
    pub fn is_empty(&self) -> bool {
        self.catalog.is_empty() && self.tables.is_empty()
    }
}

/// An object that is new or different (`Some`) or gone (`None`).
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogChange {
    pub oid: Oid,
    pub object: Option<Arc<CatalogObject>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TableChange {
    pub table: Oid,
    pub rows: RowsChange,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RowsChange {
    /// Row by row, in the order they happened.
    Rows(Vec<RowChange>),
    /// The whole table is now the tree at this address (`None`: empty): bulk load, rewrite, TRUNCATE.
    Replaced { rows: Option<ChunkAddress> },
    /// The table is gone.
    Dropped,
}

/// One row's change. `key` is the encoded row key (see `TableData::row_key`).
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    pub key: KeyBytes,
    pub kind: RowChangeKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RowChangeKind {
    Inserted {
        new: Row,
    },
    /// Changed columns only, by position, ascending: (column, old, new). A change of the key is a deletion and an insertion.
    Updated {
        columns: Vec<(u16, Value, Value)>,
    },
    Deleted {
        old: Row,
    },
}

pub(crate) const ROW_INSERTED: u8 = 1;
pub(crate) const ROW_UPDATED: u8 = 2;
pub(crate) const ROW_DELETED: u8 = 3;
pub(crate) const TABLE_ROWS: u8 = 1;
pub(crate) const TABLE_REPLACED: u8 = 2;
pub(crate) const TABLE_EMPTIED: u8 = 3;
pub(crate) const TABLE_DROPPED: u8 = 4;

/// The bit of a table in a mask of touched tables (see [`touched_mask`]).
pub(crate) fn table_bit(table: Oid) -> u32 {
    1 << (table.wrapping_mul(0x9E37_79B1) >> 27)
}

impl ChangeSet {
    /// Appends the change set: catalog changes (oid, object as JSON), then tables with their rows; see `docs/file-format.md`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.catalog.len() as u64);
        for change in &self.catalog {
            put_varint(out, u64::from(change.oid));
            match &change.object {
                None => out.push(0),
                Some(object) => {
                    out.push(1);
                    put_bytes(out, &serde_json::to_vec(&**object).expect("BUG: a catalog object has no JSON"));
                }
            }
        }
        put_varint(out, self.tables.len() as u64);
        for change in &self.tables {
            put_varint(out, u64::from(change.table));
            match &change.rows {
                RowsChange::Rows(rows) => {
                    out.push(TABLE_ROWS);
                    put_varint(out, rows.len() as u64);
                    for row in rows {
                        row.encode(out);
                    }
                }
                RowsChange::Replaced { rows: Some(address) } => {
                    out.push(TABLE_REPLACED);
                    out.extend_from_slice(&address.0);
                }
                RowsChange::Replaced { rows: None } => out.push(TABLE_EMPTIED),
                RowsChange::Dropped => out.push(TABLE_DROPPED),
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Decoded<ChangeSet> {
        let mut reader = ByteReader::new(bytes);
        let mut changes = ChangeSet::default();
        for _ in 0..reader.count()? {
            let oid = reader.varint_u32()?;
            let object = match reader.bool()? {
                false => None,
                true => {
                    let object: CatalogObject =
                        serde_json::from_slice(reader.bytes()?).map_err(|_| Malformed("catalog object does not parse"))?;
                    if object.oid() != oid {
                        return Err(Malformed("catalog object under another oid"));
                    }
                    Some(Arc::new(object))
                }
            };
            changes.catalog.push(CatalogChange { oid, object });
        }
        for _ in 0..reader.count()? {
            let table = reader.varint_u32()?;
            let rows = match reader.u8()? {
                TABLE_ROWS => {
                    let count = reader.count()?;
                    let mut rows = Vec::with_capacity(count.min(1024));
                    for _ in 0..count {
                        rows.push(RowChange::decode(&mut reader)?);
                    }
                    RowsChange::Rows(rows)
                }
                TABLE_REPLACED => RowsChange::Replaced { rows: Some(ChunkAddress(reader.array()?)) },
                TABLE_EMPTIED => RowsChange::Replaced { rows: None },
                TABLE_DROPPED => RowsChange::Dropped,
                _ => return Err(Malformed("unknown kind of table change")),
            };
            changes.tables.push(TableChange { table, rows });
        }
        reader.finish()?;
        Ok(changes)
    }

    /// Decodes what happened to the rows of one table; `None` where it was changed as a whole. Other tables' changes are passed over.
    pub(crate) fn decode_rows_of(bytes: &[u8], table: Oid) -> Decoded<Option<Vec<RowChange>>> {
        let mut reader = ByteReader::new(bytes);
        for _ in 0..reader.count()? {
            if reader.varint_u32()? == table {
                return Ok(None);
            }
            if reader.bool()? {
                reader.bytes()?;
            }
        }
        let mut found = Vec::new();
        for _ in 0..reader.count()? {
            let is_wanted = reader.varint_u32()? == table;
            match reader.u8()? {
                TABLE_ROWS if is_wanted => {
                    let count = reader.count()?;
                    found.reserve(count.min(1024));
                    for _ in 0..count {
                        found.push(RowChange::decode(&mut reader)?);
                    }
                }
                TABLE_ROWS => {
                    for _ in 0..reader.count()? {
                        skip_row_change(&mut reader)?;
                    }
                }
                TABLE_REPLACED | TABLE_EMPTIED | TABLE_DROPPED if is_wanted => return Ok(None),
                TABLE_REPLACED => {
                    reader.take(32)?;
                }
                TABLE_EMPTIED | TABLE_DROPPED => {}
                _ => return Err(Malformed("unknown kind of table change")),
            }
        }
        reader.finish()?;
        Ok(Some(found))
    }

    /// The number of changed rows; a table changed as a whole and a catalog object count as one.
    pub fn row_count(&self) -> u64 {
        let rows: usize = self.tables.iter().map(|t| if let RowsChange::Rows(rows) = &t.rows { rows.len() } else { 1 }).sum();
        (rows + self.catalog.len()) as u64
    }

    pub(crate) fn touched_mask(&self) -> u32 {
        let tables = self.tables.iter().map(|t| t.table);
        tables.chain(self.catalog.iter().map(|c| c.oid)).fold(0, |mask, oid| mask | table_bit(oid))
    }

    /// The change set that takes this one back, when it consists of row changes alone: what a catalog object or a
    /// replaced table was before is not in a change set.
    pub(crate) fn inverted(self) -> Option<ChangeSet> {
        if !self.catalog.is_empty() {
            return None;
        }
        let mut tables = Vec::with_capacity(self.tables.len());
        for change in self.tables.into_iter().rev() {
            let RowsChange::Rows(rows) = change.rows else { return None };
            let rows = rows.into_iter().rev().map(RowChange::inverted).collect();
            tables.push(TableChange { table: change.table, rows: RowsChange::Rows(rows) });
        }
        Some(ChangeSet { catalog: Vec::new(), tables })
    }
}

impl RowChange {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.key);
        match &self.kind {
            RowChangeKind::Inserted { new } => {
                out.push(ROW_INSERTED);
                put_row(out, new);
            }
            RowChangeKind::Updated { columns } => {
                out.push(ROW_UPDATED);
                put_varint(out, columns.len() as u64);
                for (column, old, new) in columns {
                    put_varint(out, u64::from(*column));
                    put_value(out, old);
                    put_value(out, new);
                }
            }
            RowChangeKind::Deleted { old } => {
                out.push(ROW_DELETED);
                put_row(out, old);
            }
        }
    }

    fn decode(reader: &mut ByteReader<'_>) -> Decoded<RowChange> {
        let key = reader.bytes()?.into();
        let kind = match reader.u8()? {
            ROW_INSERTED => RowChangeKind::Inserted { new: reader.row()? },
            ROW_UPDATED => {
                let count = reader.count()?;
                let mut columns = Vec::with_capacity(count.min(2048));
                for _ in 0..count {
                    let column = u16::try_from(reader.varint()?).map_err(|_| Malformed("column position too large"))?;
                    if columns.last().is_some_and(|(last, _, _)| *last >= column) {
                        return Err(Malformed("changed columns are not in order"));
                    }
                    columns.push((column, reader.value()?, reader.value()?));
                }
                RowChangeKind::Updated { columns }
            }
            ROW_DELETED => RowChangeKind::Deleted { old: reader.row()? },
            _ => return Err(Malformed("unknown kind of row change")),
        };
        Ok(RowChange { key, kind })
    }

    pub(crate) fn inverted(self) -> RowChange {
        let kind = match self.kind {
            RowChangeKind::Inserted { new } => RowChangeKind::Deleted { old: new },
            RowChangeKind::Deleted { old } => RowChangeKind::Inserted { new: old },
            RowChangeKind::Updated { mut columns } => {
                columns.iter_mut().for_each(|(_, old, new)| std::mem::swap(old, new));
                RowChangeKind::Updated { columns }
            }
        };
        RowChange { key: self.key, kind }
    }
}

/// The tables and objects that an encoded change set touches, as a mask of [`table_bit`]s, without building it.
pub(crate) fn touched_mask(bytes: &[u8]) -> Decoded<u32> {
    let mut reader = ByteReader::new(bytes);
    let mut mask = 0;
    for _ in 0..reader.count()? {
        mask |= table_bit(reader.varint_u32()?);
        if reader.bool()? {
            reader.bytes()?;
        }
    }
    let table_count = reader.count()?;
    for i in 0..table_count {
        mask |= table_bit(reader.varint_u32()?);
        match reader.u8()? {
            // Nothing after the last table's rows is of interest here; its decoding checks them.
            TABLE_ROWS if i + 1 == table_count => return Ok(mask),
            TABLE_ROWS => {
                for _ in 0..reader.count()? {
                    skip_row_change(&mut reader)?;
                }
            }
            TABLE_REPLACED => {
                reader.take(32)?;
            }
            TABLE_EMPTIED | TABLE_DROPPED => {}
            _ => return Err(Malformed("unknown kind of table change")),
        }
    }
    Ok(mask)
}

/// The trees that an encoded change set names: those of tables that it replaces as a whole.
pub(crate) fn replaced_trees(bytes: &[u8]) -> Decoded<Vec<ChunkAddress>> {
    let mut reader = ByteReader::new(bytes);
    let mut trees = Vec::new();
    for _ in 0..reader.count()? {
        reader.varint_u32()?;
        if reader.bool()? {
            reader.bytes()?;
        }
    }
    let table_count = reader.count()?;
    for i in 0..table_count {
        reader.varint_u32()?;
        match reader.u8()? {
            // Nothing but its rows follows.
            TABLE_ROWS if i + 1 == table_count => return Ok(trees),
            TABLE_ROWS => {
                for _ in 0..reader.count()? {
                    skip_row_change(&mut reader)?;
                }
            }
            TABLE_REPLACED => trees.push(ChunkAddress(reader.array()?)),
            TABLE_EMPTIED | TABLE_DROPPED => {}
            _ => return Err(Malformed("unknown kind of table change")),
        }
    }
    Ok(trees)
}

fn skip_row_change(reader: &mut ByteReader<'_>) -> Decoded<()> {
    reader.bytes()?;
    match reader.u8()? {
        ROW_INSERTED | ROW_DELETED => reader.skip_row(),
        ROW_UPDATED => {
            for _ in 0..reader.count()? {
                reader.varint()?;
                reader.skip_value()?;
                reader.skip_value()?;
            }
            Ok(())
        }
        _ => Err(Malformed("unknown kind of row change")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Catalog;

    fn sample() -> ChangeSet {
        let catalog = Catalog::initial("postgres");
        let (oid, object) = catalog.objects.first_key_value().unwrap();
        let row = vec![Value::Int4(1), Value::bytes("x"), Value::Null];
        let rows = vec![
            RowChange { key: b"a".as_slice().into(), kind: RowChangeKind::Inserted { new: row.clone() } },
            RowChange { key: b"b".as_slice().into(), kind: RowChangeKind::Deleted { old: row } },
            RowChange {
                key: b"c".as_slice().into(),
                kind: RowChangeKind::Updated {
                    columns: vec![(1, Value::Null, Value::Bool(true)), (7, Value::Int8(1), Value::Float8(0.5))],
                },
            },
        ];
        ChangeSet {
            catalog: vec![CatalogChange { oid: *oid, object: Some(object.clone()) }, CatalogChange { oid: 20000, object: None }],
            tables: vec![
                TableChange { table: 16384, rows: RowsChange::Rows(rows) },
                TableChange { table: 16385, rows: RowsChange::Replaced { rows: Some(ChunkAddress([9; 32])) } },
                TableChange { table: 16386, rows: RowsChange::Replaced { rows: None } },
                TableChange { table: 16387, rows: RowsChange::Dropped },
            ],
        }
    }

    #[test]
    fn a_change_set_comes_back_as_it_was() {
        let changes = sample();
        let mut out = Vec::new();
        changes.encode(&mut out);
        assert_eq!(ChangeSet::decode(&out).unwrap(), changes);
        assert_eq!(touched_mask(&out).unwrap(), changes.touched_mask());
        for table in 16383..16390 {
            let rows = changes.tables.iter().find(|change| change.table == table).map(|change| &change.rows);
            let expected = match rows {
                None => Some(&[][..]),
                Some(RowsChange::Rows(rows)) => Some(&rows[..]),
                Some(_) => None,
            };
            assert_eq!(ChangeSet::decode_rows_of(&out, table).unwrap().as_deref(), expected);
        }
        assert_eq!(ChangeSet::decode_rows_of(&out, 20000).unwrap(), None);
        assert_eq!(replaced_trees(&out).unwrap(), [ChunkAddress([9; 32])]);
    }

    #[test]
    fn a_change_set_cut_short_is_malformed_at_every_length() {
        let mut out = Vec::new();
        sample().encode(&mut out);
        for size in 0..out.len() {
            assert!(ChangeSet::decode(&out[..size]).is_err(), "{size}");
            assert!(ChangeSet::decode_rows_of(&out[..size], 16384).is_err(), "{size}");
        }
    }

    #[test]
    fn any_flipped_byte_decodes_or_is_malformed_without_a_panic() {
        let mut out = Vec::new();
        sample().encode(&mut out);
        for i in 0..out.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut bytes = out.clone();
                bytes[i] ^= flip;
                let _ = ChangeSet::decode(&bytes);
                let _ = touched_mask(&bytes);
                let _ = ChangeSet::decode_rows_of(&bytes, 16384);
                let _ = replaced_trees(&bytes);
            }
        }
    }

    #[test]
    fn inverting_twice_gives_the_change_set_again() {
        let mut changes = sample();
        assert!(changes.clone().inverted().is_none());
        changes.catalog.clear();
        changes.tables.truncate(1);
        assert_eq!(changes.clone().inverted().unwrap().inverted().unwrap(), changes);
    }
}
