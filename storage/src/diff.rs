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
            if let (Some((_, a)), Some((_, b))) = (&from, &to) {
                let same = self.columns.iter().all(|pair| match *pair {
                    (Some(i), Some(j)) => a[i] == b[j],
                    (Some(i), None) => a[i].is_null(),
                    (None, Some(j)) => b[j].is_null(),
                    (None, None) => true,
                });
                if same {
                    continue;
                }
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
