//! Differences between two root values, and between two versions of a table; costs what changed where the trees share nodes.

use std::ops::Bound;
use std::sync::Arc;

use crate::error::Result;
use crate::root::{Root, TableData};
use crate::schema::{CatalogObject, Oid};
use crate::tree::{Cursor, TreeDiff};
use crate::value::Row;

/// One row's difference. Rows are in their own side's schema.
#[derive(Clone, Debug, PartialEq)]
pub struct RowDiff {
    pub key: Vec<u8>,
    pub from: Option<Row>,
    pub to: Option<Row>,
}

/// One catalog object (a table mostly) that differs between two root values.
#[derive(Clone, Debug)]
pub struct ObjectDiff {
    pub oid: Oid,
    pub from: Option<Arc<CatalogObject>>,
    pub to: Option<Arc<CatalogObject>>,
    /// Rows differ (tables only). A table created or dropped with rows counts.
    pub data_changed: bool,
}

/// Rows that differ, in key order. Either side may be absent. When the primary keys' definitions differ, every row
/// is removed and added (all removals first).
pub fn diff_tables(from: Option<&TableData>, to: Option<&TableData>) -> Box<dyn Iterator<Item = Result<RowDiff>> + Send> {
    match (from, to) {
        (None, None) => Box::new(std::iter::empty()),
        (Some(table), None) => removed(table),
        (None, Some(table)) => added(table),
        (Some(from), Some(to)) if from.shape.same_rows(&to.shape) => Box::new(trees(from.rows.diff(&to.rows))),
        (Some(from), Some(to)) if from.shape.same_key(&to.shape) => {
            Box::new(SideBySide { from: Rows::new(from), to: Rows::new(to), columns: from.shape.columns_in(&to.shape) })
        }
        (Some(from), Some(to)) => Box::new(removed(from).chain(added(to))),
    }
}

/// As [`diff_tables`], of these rows only: costs as many look-ups. `keys` are ascending.
/// # Errors
/// `Damaged`, `Io`.
pub fn diff_rows(from: Option<&TableData>, to: Option<&TableData>, keys: &[Vec<u8>]) -> Result<Vec<RowDiff>> {
    let get = |table: Option<&TableData>, key: &[u8]| table.map(|t| t.get(key)).transpose().map(Option::flatten);
    let (mut differences, mut added) = (Vec::new(), Vec::new());
    let both = from.zip(to);
    let columns = both.filter(|(from, to)| !from.shape.same_rows(&to.shape)).map(|(from, to)| from.shape.columns_in(&to.shape));
    let same_keys = both.is_none_or(|(from, to)| from.shape.same_rows(&to.shape) || from.shape.same_key(&to.shape));
    for key in keys {
        let (from, to) = (get(from, key)?, get(to, key)?);
        if !same_keys {
            // The same bytes are not the same row.
            differences.extend(from.map(|row| RowDiff { key: key.clone(), from: Some(row), to: None }));
            added.extend(to.map(|row| RowDiff { key: key.clone(), from: None, to: Some(row) }));
            continue;
        }
        let same = match (&from, &to, &columns) {
            (Some(from), Some(to), Some(columns)) => same_values(columns, from, to),
            _ => from == to,
        };
        if !same {
            differences.push(RowDiff { key: key.clone(), from, to });
        }
    }
    differences.append(&mut added);
    Ok(differences)
}

/// Where each column of one version of a table is in another.
type ColumnPairs = [(Option<usize>, Option<usize>)];

fn same_values(columns: &ColumnPairs, from: &Row, to: &Row) -> bool {
    columns.iter().all(|pair| match *pair {
        (Some(i), Some(j)) => from[i] == to[j],
        (Some(i), None) => from[i].is_null(),
        (None, Some(j)) => to[j].is_null(),
        (None, None) => true,
    })
}

fn removed(table: &TableData) -> Box<dyn Iterator<Item = Result<RowDiff>> + Send> {
    Box::new(Rows::new(table).map(|row| row.map(|(key, row)| RowDiff { key, from: Some(row), to: None })))
}

fn added(table: &TableData) -> Box<dyn Iterator<Item = Result<RowDiff>> + Send> {
    Box::new(Rows::new(table).map(|row| row.map(|(key, row)| RowDiff { key, from: None, to: Some(row) })))
}

fn trees(diff: TreeDiff) -> impl Iterator<Item = Result<RowDiff>> + Send {
    diff.map(|difference| {
        difference.map(|d| RowDiff {
            key: d.key().to_vec(),
            from: d.from.as_ref().map(|(leaf, row)| leaf.row(*row)),
            to: d.to.as_ref().map(|(leaf, row)| leaf.row(*row)),
        })
    })
}

/// All rows of a table.
struct Rows {
    cursor: Cursor,
    ahead: Option<(Vec<u8>, Row)>,
    failed: bool,
}

impl Rows {
    fn new(table: &TableData) -> Self {
        Rows { cursor: table.scan((Bound::Unbounded, Bound::Unbounded), false), ahead: None, failed: false }
    }

    fn peek(&mut self) -> Result<Option<&(Vec<u8>, Row)>> {
        if self.ahead.is_none() {
            self.ahead = self.cursor.next_row()?;
        }
        Ok(self.ahead.as_ref())
    }
}

impl Iterator for Rows {
    type Item = Result<(Vec<u8>, Row)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if let Some(row) = self.ahead.take() {
            return Some(Ok(row));
        }
        let row = self.cursor.next_row();
        self.failed = row.is_err();
        row.transpose()
    }
}

/// Two versions of a table whose columns differ and whose keys do not: reads both as a whole.
struct SideBySide {
    from: Rows,
    to: Rows,
    /// For each column of `from`: where it is in `to`. A column on one side only counts as NULL on the other.
    columns: Vec<(Option<usize>, Option<usize>)>,
}

impl SideBySide {
    fn step(&mut self) -> Result<Option<RowDiff>> {
        loop {
            let order = match (self.from.peek()?, self.to.peek()?) {
                (None, None) => return Ok(None),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let from = if order.is_le() { self.from.ahead.take() } else { None };
            let to = if order.is_ge() { self.to.ahead.take() } else { None };
            if let (Some((_, a)), Some((_, b))) = (&from, &to)
                && same_values(&self.columns, a, b)
            {
                continue;
            }
            let key = from.as_ref().or(to.as_ref()).map(|(key, _)| key.clone()).expect("BUG: one side has a row");
            return Ok(Some(RowDiff { key, from: from.map(|(_, row)| row), to: to.map(|(_, row)| row) }));
        }
    }
}

impl Iterator for SideBySide {
    type Item = Result<RowDiff>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.from.failed {
            return None;
        }
        let step = self.step();
        self.from.failed = step.is_err();
        step.transpose()
    }
}

/// Objects that differ, in oid order.
pub fn diff_roots(from: &Root, to: &Root) -> Result<Vec<ObjectDiff>> {
    let mut oids: Vec<Oid> = from.catalog.objects.keys().chain(to.catalog.objects.keys()).copied().collect();
    oids.sort_unstable();
    oids.dedup();
    let mut differences = Vec::new();
    for oid in oids {
        let (old, new) = (from.catalog.get(oid), to.catalog.get(oid));
        let data_changed = match (from.table(oid), to.table(oid)) {
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => false,
            (a, b) => diff_tables(a.map(|t| &**t), b.map(|t| &**t)).next().transpose()?.is_some(),
        };
        if data_changed || old != new {
            differences.push(ObjectDiff { oid, from: old.cloned(), to: new.cloned(), data_changed });
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::Edit;
    use crate::schema::{Catalog, IndexColumn, IndexKey};
    use crate::store::tests::table;
    use crate::value::Value;

    const TABLE: Oid = 16400;

    fn row(id: i32, text: &str) -> Row {
        vec![Value::Int4(id), Value::bytes(text)]
    }

    #[test]
    fn the_difference_of_some_rows_is_that_part_of_the_difference_of_all() {
        let mut edit = Edit::new(Root::new(Catalog::default()));
        edit.put_table(table(TABLE, "t", true)).unwrap();
        (0..200).for_each(|id| edit.insert(TABLE, row(id, "a")).unwrap());
        let first = Arc::clone(edit.root().table(TABLE).unwrap());
        for id in (0..300).step_by(3) {
            let key = first.row_key(&row(id, ""));
            match id % 9 {
                0 if id < 200 => drop(edit.delete(TABLE, &key).unwrap()),
                3 if id < 200 => drop(edit.update(TABLE, &key, row(id, "b")).unwrap()),
                _ if id >= 200 => edit.insert(TABLE, row(id, "new")).unwrap(),
                _ => {}
            }
        }
        let second = Arc::clone(edit.root().table(TABLE).unwrap());
        // Another column, set in some rows only.
        let mut schema = first.schema().as_ref().clone();
        schema.columns.push(crate::schema::Column { name: "w".into(), attnum: 3, ..schema.columns[1].clone() });
        schema.next_attnum = 4;
        let widen = |mut row: Row| {
            let value = if matches!(row[0], Value::Int4(id) if id % 5 == 0) { Value::bytes("w") } else { Value::Null };
            row.push(value);
            Ok(row)
        };
        edit.rewrite_table(schema.clone(), &mut { widen }).unwrap();
        let third = Arc::clone(edit.root().table(TABLE).unwrap());
        // Another key.
        let key = schema.primary_key.as_mut().unwrap();
        key.columns = [1, 0].map(|c| IndexColumn { key: IndexKey::Column(c), descending: false, nulls_first: false }).to_vec();
        schema.columns[1].not_null = true;
        edit.rewrite_table(schema, &mut Ok).unwrap();
        let fourth = Arc::clone(edit.root().table(TABLE).unwrap());

        let versions = [None, Some(&*first), Some(&*second), Some(&*third), Some(&*fourth)];
        let mut compared = 0;
        for from in versions {
            for to in versions {
                let all: Vec<RowDiff> = diff_tables(from, to).map(Result::unwrap).collect();
                let mut keys: Vec<Vec<u8>> = all.iter().map(|d| d.key.clone()).collect();
                keys.push(first.row_key(&row(1, "")));
                keys.push(b"no such key".to_vec());
                keys.sort();
                keys.dedup();
                assert_eq!(diff_rows(from, to, &keys).unwrap(), all);
                let some: Vec<Vec<u8>> = keys.into_iter().step_by(7).collect();
                let expected: Vec<RowDiff> = all.into_iter().filter(|d| some.contains(&d.key)).collect();
                assert_eq!(diff_rows(from, to, &some).unwrap(), expected);
                compared += expected.len();
            }
        }
        assert!(compared > 100, "{compared}");
    }
}
