//! Lists of a change set that are filled again for the next transaction: a small one would spend a tenth of its time on getting and freeing them.

use crate::change_set::{ChangeSet, RowChange, RowChangeKind, RowsChange, TableChange};
use crate::value::Value;

/// Lists that are kept of each kind, and the entries that one may have room for: what a large transaction needed is freed.
const COUNT_MAX: usize = 16;
const CAPACITY_MAX: usize = 64;

/// Empty lists with room.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    tables: Vec<TableChange>,
    rows: Vec<Vec<RowChange>>,
    columns: Vec<Vec<(u16, Value, Value)>>,
    /// Of an inserted row.
    pub key: Vec<u8>,
    /// Of the encoded record, and of the hashes that the row index finds it by.
    pub record: Vec<u8>,
    pub row_hashes: Vec<u32>,
}

impl Scratch {
    pub fn tables(&mut self) -> Vec<TableChange> {
        std::mem::take(&mut self.tables)
    }

    pub fn rows(&mut self) -> Vec<RowChange> {
        // Many transactions change one row of each table.
        self.rows.pop().unwrap_or_else(|| Vec::with_capacity(1))
    }

    pub fn columns(&mut self) -> Vec<(u16, Value, Value)> {
        self.columns.pop().unwrap_or_default()
    }

    pub fn keep_columns(&mut self, mut columns: Vec<(u16, Value, Value)>) {
        columns.clear();
        keep(&mut self.columns, columns);
    }

    /// Takes the lists of a change set that is not needed any more.
    pub fn keep(&mut self, changes: ChangeSet) {
        let mut tables = changes.tables;
        for change in tables.drain(..) {
            let RowsChange::Rows(mut rows) = change.rows else { continue };
            for row in rows.drain(..) {
                if let RowChangeKind::Updated { columns } = row.kind {
                    self.keep_columns(columns);
                }
            }
            keep(&mut self.rows, rows);
        }
        if tables.capacity() <= CAPACITY_MAX {
            self.tables = tables;
        }
    }

    /// Takes the buffers of a commit that is appended.
    pub fn keep_buffers(&mut self, mut record: Vec<u8>, mut row_hashes: Vec<u32>) {
        record.clear();
        row_hashes.clear();
        if record.capacity() <= 64 * CAPACITY_MAX && row_hashes.capacity() <= CAPACITY_MAX {
            (self.record, self.row_hashes) = (record, row_hashes);
        }
    }
}

fn keep<T>(lists: &mut Vec<Vec<T>>, empty: Vec<T>) {
    if lists.len() < COUNT_MAX && empty.capacity() <= CAPACITY_MAX {
        lists.push(empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(tables: u32, rows: usize) -> ChangeSet {
        let columns = || vec![(1, Value::Int4(1), Value::Int4(2))];
        let row = |_| RowChange { key: vec![1].into(), kind: RowChangeKind::Updated { columns: columns() } };
        let table = |table| TableChange { table, rows: RowsChange::Rows((0..rows).map(row).collect()) };
        ChangeSet { tables: (0..tables).map(table).collect(), ..ChangeSet::default() }
    }

    #[test]
    fn lists_come_back_empty_and_what_was_large_is_freed() {
        let mut scratch = Scratch::default();
        scratch.keep(changes(3, 2));
        assert_eq!((scratch.tables.capacity() >= 3, scratch.rows.len(), scratch.columns.len()), (true, 3, 6));
        assert!(scratch.tables().is_empty() && scratch.rows().is_empty() && scratch.columns().is_empty());
        scratch.keep(changes(100, 100));
        assert_eq!((scratch.tables.capacity(), scratch.rows.len(), scratch.columns.len()), (0, 2, COUNT_MAX));
        scratch.keep_buffers(Vec::with_capacity(1 << 20), Vec::new());
        assert_eq!(scratch.record.capacity(), 0);
        scratch.keep_buffers(vec![1], vec![2]);
        assert!(scratch.record.is_empty() && scratch.record.capacity() > 0 && scratch.row_hashes.is_empty());
    }
}
