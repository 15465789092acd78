//! Many change sets as one: what they do to each row together, in the order of the rows' keys.
//!
//! The root value of an old commit is made from a known one by the changes of all commits in between. Commit by commit, each change looks
//! for its leaf all over the trees; together and sorted, a leaf is looked for once, and a row that changed a hundred times changes once.

use crate::change_set::{ChangeSet, RowChange, RowChangeKind, RowsChange, TableChange};
use crate::encoding::{Decoded, Malformed};
use crate::schema::Oid;
use crate::value::{Row, Value};

/// Change sets of rows that are to be applied together.
#[derive(Debug, Default)]
pub(crate) struct NetChanges {
    tables: Vec<(Oid, Vec<RowChange>)>,
    count: usize,
}

impl NetChanges {
    /// The number of row changes gathered.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds a change set that follows; gives it back when it does not consist of row changes alone.
    pub fn add(&mut self, changes: ChangeSet) -> Option<ChangeSet> {
        let rows_alone = changes.catalog.is_empty() && changes.tables.iter().all(|table| matches!(table.rows, RowsChange::Rows(_)));
        if !rows_alone {
            return Some(changes);
        }
        for TableChange { table, rows } in changes.tables {
            let RowsChange::Rows(rows) = rows else { continue };
            self.count += rows.len();
            match self.tables.iter_mut().find(|(oid, _)| *oid == table) {
                Some((_, gathered)) => gathered.extend(rows),
                None => self.tables.push((table, rows)),
            }
        }
        None
    }

    /// What was gathered, as one change set; begins anew.
    /// # Errors
    /// `Malformed` when a change does not fit the one of the same row before it.
    pub fn take(&mut self) -> Decoded<ChangeSet> {
        let mut tables = Vec::with_capacity(self.tables.len());
        for (table, mut rows) in std::mem::take(&mut self.tables) {
            // Changes of one row stay in their order.
            rows.sort_by(|a, b| a.key.cmp(&b.key));
            let mut net: Vec<RowChange> = Vec::with_capacity(rows.len());
            let mut rows = rows.into_iter().peekable();
            while let Some(RowChange { key, kind }) = rows.next() {
                if rows.peek().is_none_or(|next| next.key != key) {
                    net.push(RowChange { key, kind });
                    continue;
                }
                let mut row = NetRow::default();
                row.add(kind)?;
                while let Some(next) = rows.next_if(|next| next.key == key) {
                    row.add(next.kind)?;
                }
                net.extend(row.kinds().map(|kind| RowChange { key: key.clone(), kind }));
            }
            tables.push(TableChange { table, rows: RowsChange::Rows(net) });
        }
        self.count = 0;
        Ok(ChangeSet { catalog: Vec::new(), tables })
    }
}

/// What several changes do to one row: first it goes, if there is an old one, then there is what is said now.
#[derive(Default)]
struct NetRow {
    deleted: Option<Row>,
    now: Now,
}

#[derive(Default)]
enum Now {
    #[default]
    AsBefore,
    Inserted(Row),
    Updated(Vec<(u16, Value, Value)>),
}

const MISFIT: Malformed = Malformed("a change of a row does not fit the one before it");

impl NetRow {
    fn add(&mut self, kind: RowChangeKind) -> Decoded<()> {
        self.now = match (std::mem::take(&mut self.now), kind) {
            (Now::AsBefore, RowChangeKind::Inserted { new }) => Now::Inserted(new),
            (Now::AsBefore, RowChangeKind::Updated { columns }) if self.deleted.is_none() => Now::Updated(columns),
            (Now::AsBefore, RowChangeKind::Deleted { old }) if self.deleted.is_none() => {
                self.deleted = Some(old);
                Now::AsBefore
            }
            (Now::Inserted(mut row), RowChangeKind::Updated { columns }) => {
                for (column, old, new) in columns {
                    set(&mut row, column, &old, new)?;
                }
                Now::Inserted(row)
            }
            (Now::Inserted(row), RowChangeKind::Deleted { old }) if row == old => Now::AsBefore,
            (Now::Updated(before), RowChangeKind::Updated { columns }) => Now::Updated(merge(before, columns)?),
            (Now::Updated(before), RowChangeKind::Deleted { mut old }) => {
                for (column, first, last) in before {
                    set(&mut old, column, &last, first)?;
                }
                self.deleted = Some(old);
                Now::AsBefore
            }
            _ => return Err(MISFIT),
        };
        Ok(())
    }

    fn kinds(self) -> impl Iterator<Item = RowChangeKind> {
        let (deleted, then) = match (self.deleted, self.now) {
            (Some(old), Now::Inserted(new)) if old == new => (None, None),
            (deleted, Now::AsBefore) => (deleted, None),
            (deleted, Now::Inserted(new)) => (deleted, Some(RowChangeKind::Inserted { new })),
            (deleted, Now::Updated(columns)) if columns.is_empty() => (deleted, None),
            (deleted, Now::Updated(columns)) => (deleted, Some(RowChangeKind::Updated { columns })),
        };
        deleted.map(|old| RowChangeKind::Deleted { old }).into_iter().chain(then)
    }
}

/// Sets a column that must have this value.
fn set(row: &mut Row, column: u16, old: &Value, new: Value) -> Decoded<()> {
    let value = row.get_mut(usize::from(column)).filter(|value| *value == old).ok_or(MISFIT)?;
    *value = new;
    Ok(())
}

/// Two updates of a row as one; columns are ascending. A column that is again as it was before is left out.
fn merge(first: Vec<(u16, Value, Value)>, second: Vec<(u16, Value, Value)>) -> Decoded<Vec<(u16, Value, Value)>> {
    let mut merged = Vec::with_capacity(first.len().max(second.len()));
    let mut second = second.into_iter().peekable();
    for (column, old, new) in first {
        while let Some(other) = second.next_if(|(c, ..)| *c < column) {
            merged.push(other);
        }
        match second.next_if(|(c, ..)| *c == column) {
            None => merged.push((column, old, new)),
            Some((_, before, _)) if before != new => return Err(MISFIT),
            Some((_, _, last)) if last == old => {}
            Some((_, _, last)) => merged.push((column, old, last)),
        }
    }
    merged.extend(second);
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::key_bytes::KeyBytes;

    type Rows = BTreeMap<KeyBytes, Row>;

    /// Applies a change set to a model; panics where it does not fit.
    fn apply(rows: &mut Rows, changes: &ChangeSet) {
        for change in &changes.tables {
            let RowsChange::Rows(changed) = &change.rows else { panic!("not rows") };
            for RowChange { key, kind } in changed {
                match kind {
                    RowChangeKind::Inserted { new } => assert_eq!(rows.insert(key.clone(), new.clone()), None),
                    RowChangeKind::Deleted { old } => assert_eq!(rows.remove(key).as_ref(), Some(old)),
                    RowChangeKind::Updated { columns } => {
                        assert!(!columns.is_empty() && columns.is_sorted_by_key(|(column, ..)| *column));
                        for (column, old, new) in columns {
                            let value = &mut rows.get_mut(key).unwrap()[usize::from(*column)];
                            assert_eq!(value, old);
                            *value = new.clone();
                        }
                    }
                }
            }
        }
    }

    /// A change that fits the rows.
    fn change(rows: &Rows, random: &mut StdRng) -> RowChange {
        let key = KeyBytes::new(&[random.random_range(0..4u8)]);
        let value = |random: &mut StdRng| Value::Int4(random.random_range(0..3));
        let kind = match rows.get(&key) {
            None => RowChangeKind::Inserted { new: (0..3).map(|_| value(random)).collect() },
            Some(old) if random.random_range(0..4) == 0 => RowChangeKind::Deleted { old: old.clone() },
            Some(old) => {
                let column = random.random_range(0..2u16);
                let columns = (column..3).step_by(2).map(|c| (c, old[usize::from(c)].clone(), value(random))).collect();
                RowChangeKind::Updated { columns }
            }
        };
        RowChange { key, kind }
    }

    #[test]
    fn changes_together_do_what_they_did_one_after_the_other() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut net, mut before) = (NetChanges::default(), Rows::new());
            let mut rows = before.clone();
            for step in 0..random.random_range(1..60) {
                let changed = change(&rows, &mut random);
                let changes = ChangeSet { catalog: vec![], tables: vec![TableChange { table: 7, rows: RowsChange::Rows(vec![changed]) }] };
                apply(&mut rows, &changes);
                if step == 10 {
                    // From a state with rows.
                    before = rows.clone();
                    net = NetChanges::default();
                } else {
                    assert_eq!(net.add(changes), None);
                }
            }
            let changes = net.take().unwrap();
            apply(&mut before, &changes);
            assert_eq!(before, rows, "seed {seed}");
            let RowsChange::Rows(changed) = changes.tables.first().map_or(RowsChange::Rows(vec![]), |t| t.rows.clone()) else { panic!() };
            assert!(changed.is_sorted_by(|a, b| a.key < b.key || a.key == b.key && matches!(b.kind, RowChangeKind::Inserted { .. })));
            assert_eq!(net.count(), 0);
        }
    }

    #[test]
    fn changes_that_do_not_fit_each_other_are_malformed() {
        let row = |n| vec![Value::Int4(n)];
        let inserted = |n| RowChangeKind::Inserted { new: row(n) };
        let deleted = |n| RowChangeKind::Deleted { old: row(n) };
        let updated = |from, to| RowChangeKind::Updated { columns: vec![(0, Value::Int4(from), Value::Int4(to))] };
        for kinds in [
            [inserted(1), inserted(1)],
            [inserted(1), deleted(2)],
            [inserted(1), updated(2, 3)],
            [updated(1, 2), updated(3, 4)],
            [updated(1, 2), inserted(2)],
            [updated(1, 2), deleted(1)],
            [deleted(1), deleted(1)],
            [deleted(1), updated(1, 2)],
        ] {
            let rows = kinds.into_iter().map(|kind| RowChange { key: KeyBytes::new(&[1]), kind }).collect();
            let mut net = NetChanges::default();
            net.add(ChangeSet { catalog: vec![], tables: vec![TableChange { table: 7, rows: RowsChange::Rows(rows) }] });
            assert_eq!(net.take(), Err(MISFIT));
        }
    }
}
