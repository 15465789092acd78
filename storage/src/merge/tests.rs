//! Merged rows against a model, and what a merge must always keep.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::chunk::{ChunkReader, MemoryChunks};
use crate::diff::{RowDiff, diff_tables};
use crate::edit::Edit;
use crate::id::ChunkAddress;
use crate::schema::{Column, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID};
use crate::value::{DataType, Kind};

pub(super) const KEYED: Oid = 20_000;
pub(super) const KEYLESS: Oid = 20_001;
pub(super) const UNIQUE: Oid = 20_010;

pub(super) fn column(attnum: i16, name: &str) -> Column {
    let data_type = DataType { oid: 23, typmod: -1, name: "int4".into(), kind: Kind::Int4, element: None };
    Column {
        name: name.into(),
        attnum,
        data_type,
        not_null: attnum == 1,
        default: None,
        identity: None,
        generated: None,
        collation: None,
        comment: None,
    }
}

pub(super) fn index(oid: Oid, name: &str, columns: &[usize]) -> Index {
    let key = |&i: &usize| IndexColumn { key: IndexKey::Column(i), descending: false, nulls_first: false };
    Index {
        oid,
        name: name.into(),
        unique: true,
        nulls_not_distinct: false,
        columns: columns.iter().map(key).collect(),
        include: vec![],
        predicate: None,
        method: "btree".into(),
        constraint: true,
        comment: None,
    }
}

/// id, a, b, u: keyed by id, unique in u when asked.
pub(super) fn table(oid: Oid, name: &str, keyed: bool, unique: bool) -> TableSchema {
    TableSchema {
        oid,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: name.into(),
        owner: "test".into(),
        columns: vec![column(1, "id"), column(2, "a"), column(3, "b"), column(4, "u")],
        next_attnum: 5,
        primary_key: keyed.then(|| index(oid + 100, &format!("{name}_pkey"), &[0])),
        indexes: if unique { vec![index(UNIQUE, &format!("{name}_u"), &[3])] } else { vec![] },
        constraints: vec![],
        merged_columns: vec![],
        comment: None,
    }
}

pub(super) fn value(v: i32) -> Value {
    if v == 0 { Value::Null } else { Value::Int4(v) }
}

pub(super) fn row(values: &[i32]) -> Row {
    values.iter().map(|v| value(*v)).collect()
}

pub(super) fn rows_of(root: &Root, table: Oid) -> Vec<Row> {
    let mut cursor = root.table(table).unwrap().scan((Bound::Unbounded, Bound::Unbounded), false);
    std::iter::from_fn(|| cursor.next_row().unwrap().map(|(_, row)| row)).collect()
}

pub(super) fn merge(base: &Root, ours: &Root, theirs: &Root) -> Merge {
    let merge = merge_roots(base, ours, theirs, &MergeOptions::default()).unwrap();
    for table in merge.root.tables.values() {
        table.verify().unwrap();
    }
    merge
}

type Cells = [i32; 3];

/// Rows by id; keyless rows by how often they occur.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    keyed: BTreeMap<i32, Cells>,
    keyless: BTreeMap<i32, u64>,
}

#[derive(Clone, Debug)]
enum Op {
    Put(i32, Cells),
    Set(i32, usize, i32),
    Delete(i32),
    Keyless(i32, u64),
}

fn ops(count: usize) -> impl Strategy<Value = Vec<Op>> {
    let (id, v) = (1..80i32, 0..5i32);
    let op = prop_oneof![
        3 => (id.clone(), [v.clone(), v.clone(), 0..60]).prop_map(|(id, cells)| Op::Put(id, cells)),
        4 => (id.clone(), 0..2usize, v).prop_map(|(id, at, v)| Op::Set(id, at, v)),
        2 => (id.clone(), Just(2usize), 0..60i32).prop_map(|(id, at, v)| Op::Set(id, at, v)),
        2 => id.prop_map(Op::Delete),
        2 => (1..8i32, 0..4u64).prop_map(|(row, count)| Op::Keyless(row, count)),
    ];
    prop::collection::vec(op, 0..count)
}

impl Model {
    fn allows(&self, id: i32, u: i32) -> bool {
        u == 0 || self.keyed.iter().all(|(other, cells)| *other == id || cells[2] != u)
    }

    fn apply(&mut self, edit: &mut Edit, ops: &[Op], unique: bool) {
        let key = |edit: &Edit, id: i32| edit.root().table(KEYED).unwrap().row_key(&row(&[id, 0, 0, 0]));
        for op in ops {
            match *op {
                Op::Put(id, cells) if !unique || self.allows(id, cells[2]) => {
                    let new = row(&[id, cells[0], cells[1], cells[2]]);
                    match self.keyed.insert(id, cells) {
                        None => edit.insert(KEYED, new).unwrap(),
                        Some(_) => drop(edit.update(KEYED, &key(edit, id), new).unwrap()),
                    }
                }
                Op::Set(id, at, v) => {
                    let allowed = at != 2 || !unique || self.allows(id, v);
                    if let Some(cells) = self.keyed.get_mut(&id).filter(|_| allowed) {
                        cells[at] = v;
                        assert!(edit.update_columns(KEYED, &key(edit, id), &[(at as u16 + 1, value(v))]).unwrap());
                    }
                }
                Op::Delete(id) => {
                    if self.keyed.remove(&id).is_some() {
                        edit.delete(KEYED, &key(edit, id)).unwrap();
                    }
                }
                Op::Keyless(v, count) => {
                    let old = self.keyless.insert(v, count).unwrap_or(0);
                    let new = row(&[v, v, v, v]);
                    for _ in old..count {
                        edit.insert(KEYLESS, new.clone()).unwrap();
                    }
                    for _ in count..old {
                        let key = edit.root().table(KEYLESS).unwrap().row_key(&new);
                        edit.delete(KEYLESS, &key).unwrap();
                    }
                    self.keyless.retain(|_, count| *count > 0);
                }
                Op::Put(..) => {}
            }
        }
    }

    /// The merged model, and the ids and keyless rows in conflict.
    fn merge(base: &Model, ours: &Model, theirs: &Model) -> (Model, BTreeSet<i32>, BTreeSet<i32>) {
        let (mut merged, mut conflicts, mut keyless_conflicts) = (Model::default(), BTreeSet::new(), BTreeSet::new());
        let ids: BTreeSet<i32> = base.keyed.keys().chain(ours.keyed.keys()).chain(theirs.keyed.keys()).copied().collect();
        for id in ids {
            let [b, o, t] = [base, ours, theirs].map(|model| model.keyed.get(&id).copied());
            let whole = catalog::merge_value(Some(&b), &o, &t);
            let cells = match (whole, o, t) {
                (Some(cells), _, _) => cells,
                (None, Some(o), Some(t)) if b.is_some() => {
                    let cell = |at: usize| catalog::merge_value(b.map(|b| b[at]).as_ref(), &o[at], &t[at]);
                    match (cell(0), cell(1), cell(2)) {
                        (Some(a), Some(b), Some(u)) => Some([a, b, u]),
                        _ => {
                            conflicts.insert(id);
                            Some(o)
                        }
                    }
                }
                (None, o, _) => {
                    conflicts.insert(id);
                    o
                }
            };
            merged.keyed.extend(cells.map(|cells| (id, cells)));
        }
        for v in 1..8 {
            let [b, o, t] = [base, ours, theirs].map(|model| model.keyless.get(&v).copied().unwrap_or(0));
            let count = catalog::merge_value(Some(&b), &o, &t).unwrap_or_else(|| {
                keyless_conflicts.insert(v);
                o
            });
            if count > 0 {
                merged.keyless.insert(v, count);
            }
        }
        (merged, conflicts, keyless_conflicts)
    }

    fn check(&self, root: &Root) {
        let keyed: Vec<Row> = self.keyed.iter().map(|(id, c)| row(&[*id, c[0], c[1], c[2]])).collect();
        assert_eq!(rows_of(root, KEYED), keyed);
        let mut keyless = BTreeMap::new();
        for found in rows_of(root, KEYLESS) {
            let Value::Int4(v) = found[0] else { panic!() };
            *keyless.entry(v).or_insert(0) += 1;
        }
        assert_eq!(keyless, self.keyless);
    }
}

/// A base and two sides of it, each with its model. Written ones are opened again, so that trees are compared by address.
fn three(base: &[Op], ours: &[Op], theirs: &[Op], unique: bool, written: bool) -> [(Root, Model); 3] {
    let chunks = Arc::new(MemoryChunks::default());
    let reopen = |root: &Root| {
        if !written {
            return root.clone();
        }
        let address = root.clone().write(&mut &*chunks).unwrap();
        Root::open(&address, chunks.clone()).unwrap()
    };
    let mut edit = Edit::new(Root::new(Catalog::initial("test")));
    edit.put_table(table(KEYED, "t", true, unique)).unwrap();
    edit.put_table(table(KEYLESS, "k", false, false)).unwrap();
    let mut model = Model::default();
    model.apply(&mut edit, base, unique);
    let base = (reopen(edit.root()), model);
    let side = |ops: &[Op]| {
        let (mut edit, mut model) = (Edit::new(base.0.clone()), base.1.clone());
        model.apply(&mut edit, ops, unique);
        (reopen(edit.root()), model)
    };
    let (ours, theirs) = (side(ours), side(theirs));
    [base, ours, theirs]
}

fn same(a: &Root, b: &Root) -> bool {
    a.same(b).unwrap()
}

fn diffs(from: &Root, to: &Root, table: Oid) -> Vec<RowDiff> {
    diff_tables(from.table(table).map(|t| &**t), to.table(table).map(|t| &**t)).map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn merged_rows_are_the_models(base in ops(200), ours in ops(40), theirs in ops(40), written: bool) {
        let [(base, base_model), (ours, our_model), (theirs, their_model)] = three(&base, &ours, &theirs, false, written);
        let merged = merge(&base, &ours, &theirs);
        let (model, conflicts, keyless) = Model::merge(&base_model, &our_model, &their_model);
        model.check(&merged.root);
        let key = |id: &i32| base.table(KEYED).unwrap().row_key(&row(&[*id, 0, 0, 0]));
        let found: Vec<_> = merged.rows.iter().filter(|c| c.table == KEYED).map(|c| c.key.clone()).collect();
        prop_assert_eq!(found, conflicts.iter().map(key).collect::<Vec<_>>());
        for conflict in merged.rows.iter().filter(|c| c.table == KEYED) {
            let get = |root: &Root| root.table(KEYED).unwrap().get(&conflict.key).unwrap();
            prop_assert_eq!((&conflict.base, &conflict.ours, &conflict.theirs), (&get(&base), &get(&ours), &get(&theirs)));
        }
        let found: BTreeSet<i32> = merged.rows.iter().filter(|c| c.table == KEYLESS).map(|c| {
            let Some(Value::Int4(v)) = c.ours.as_ref().or(c.theirs.as_ref()).map(|row| row[0].clone()) else { panic!() };
            let count = |model: &Model| model.keyless.get(&v).copied().unwrap_or(0);
            assert_eq!(c.copies, Some([count(&base_model), count(&our_model), count(&their_model)]));
            v
        }).collect();
        prop_assert_eq!(found, keyless);
        prop_assert!(merged.violations.is_empty() && merged.objects.is_empty());
    }

    #[test]
    fn a_merge_does_not_care_who_is_who(base in ops(200), ours in ops(40), theirs in ops(40), unique: bool, written: bool) {
        let [(base, _), (ours, _), (theirs, _)] = three(&base, &ours, &theirs, unique, written);
        let (one, other) = (merge(&base, &ours, &theirs), merge(&base, &theirs, &ours));
        let turned: Vec<RowConflict> = other.rows.iter().cloned().map(|c| RowConflict {
            ours: c.theirs, theirs: c.ours, copies: c.copies.map(|[b, o, t]| [b, t, o]), ..c
        }).collect();
        prop_assert_eq!(&one.rows, &turned);
        // In a conflict each side's own row stays, which may have the other's unique values or not.
        prop_assert!(!one.rows.is_empty() || one.violations.is_empty() == other.violations.is_empty());
        // Where they differ, ours stood: in rows in conflict, and in rows that share a unique key.
        let excused: BTreeSet<Vec<u8>> = one.rows.iter().map(|c| c.key.clone())
            .chain(one.violations.iter().chain(&other.violations).map(|v| v.key.clone())).collect();
        for difference in diffs(&one.root, &other.root, KEYED) {
            prop_assert!(excused.contains(&difference.key), "{:?}", difference);
        }
        if one.rows.is_empty() && one.violations.is_empty() {
            prop_assert!(same(&one.root, &other.root));
        }
    }

    #[test]
    fn merging_an_ancestor_changes_nothing_and_merging_into_one_gives_the_descendant(
        base in ops(200), side in ops(60), unique: bool, written: bool,
    ) {
        let [(base, _), (side, _), _] = three(&base, &side, &[], unique, written);
        for (ours, theirs) in [(&side, &base), (&base, &side), (&side, &side)] {
            let merged = merge(&base, ours, theirs);
            prop_assert!(merged.is_clean() && same(&merged.root, &side));
        }
    }

    #[test]
    fn the_difference_of_a_merge_is_the_union_of_disjoint_differences(
        base in ops(200), ours in ops(60), theirs in ops(60), written: bool,
    ) {
        let (even, odd) = (|op: &Op| part(op) == 0, |op: &Op| part(op) == 1);
        let ours: Vec<Op> = ours.into_iter().filter(even).collect();
        let theirs: Vec<Op> = theirs.into_iter().filter(odd).collect();
        let [(base, _), (ours, _), (theirs, _)] = three(&base, &ours, &theirs, false, written);
        let merged = merge(&base, &ours, &theirs);
        prop_assert!(merged.is_clean());
        for table in [KEYED, KEYLESS] {
            let mut union = [diffs(&base, &ours, table), diffs(&base, &theirs, table)].concat();
            union.sort_by(|a, b| a.key.cmp(&b.key));
            prop_assert_eq!(diffs(&base, &merged.root, table), union);
        }
    }

    #[test]
    fn identical_changes_merge_to_themselves(base in ops(200), common in ops(60), more in ops(20), written: bool) {
        let both: Vec<Op> = common.iter().chain(&more).cloned().collect();
        let [(base, _), (ours, _), (theirs, _)] = three(&base, &common, &common, true, written);
        let merged = merge(&base, &ours, &theirs);
        prop_assert!(merged.is_clean() && same(&merged.root, &ours));
        // One side did more after the same changes: the other adds nothing.
        let [(base, _), (ours, _), (theirs, _)] = three(&rows_as_ops(&base), &common, &both, true, written);
        let again = merge(&ours, &ours, &theirs);
        prop_assert!(again.is_clean() && same(&again.root, &theirs));
        prop_assert!(merge(&base, &ours, &ours).is_clean());
    }

    #[test]
    fn unique_keys_hold_and_what_breaks_them_is_listed(base in ops(200), ours in ops(60), theirs in ops(60), written: bool) {
        let [(base, base_model), (ours, our_model), (theirs, their_model)] = three(&base, &ours, &theirs, true, written);
        let merged = merge(&base, &ours, &theirs);
        let (model, _, _) = Model::merge(&base_model, &our_model, &their_model);
        let mut taken = BTreeSet::new();
        for row in rows_of(&merged.root, KEYED) {
            prop_assert!(row[3].is_null() || taken.insert(format!("{:?}", row[3])), "{:?} twice", row);
        }
        // Without the unique index the rows would have been the model's: those that are not are listed with what they would have been.
        let listed: BTreeMap<Vec<u8>, Row> = merged.violations.iter().map(|v| (v.key.clone(), v.row.clone())).collect();
        prop_assert_eq!(listed.len(), merged.violations.len());
        let table = merged.root.table(KEYED).unwrap();
        for id in 1..80 {
            let key = table.row_key(&row(&[id, 0, 0, 0]));
            let wanted = model.keyed.get(&id).map(|c| row(&[id, c[0], c[1], c[2]]));
            let found = table.get(&key).unwrap();
            match listed.get(&key) {
                None => prop_assert_eq!(found, wanted),
                Some(listed) => {
                    prop_assert_eq!(Some(listed), wanted.as_ref());
                    prop_assert_eq!(found, ours.table(KEYED).unwrap().get(&key).unwrap());
                }
            }
        }
        let values: Vec<i32> = model.keyed.values().map(|c| c[2]).filter(|u| *u != 0).collect();
        let distinct: BTreeSet<i32> = values.iter().copied().collect();
        prop_assert_eq!(listed.is_empty(), values.len() == distinct.len());
    }
}

/// Cases of each property; `STRANDLINE_TEST_SCALE` is a number of them, or `full`.
pub(super) fn cases() -> u32 {
    match std::env::var("STRANDLINE_TEST_SCALE") {
        Ok(scale) if scale == "full" => 20_000,
        Ok(scale) => scale.parse().unwrap_or(48),
        Err(_) => 48,
    }
}

fn part(op: &Op) -> i32 {
    match op {
        Op::Put(id, _) | Op::Set(id, ..) | Op::Delete(id) | Op::Keyless(id, _) => id % 2,
    }
}

fn rows_as_ops(root: &Root) -> Vec<Op> {
    let cell = |value: &Value| if let Value::Int4(v) = value { *v } else { 0 };
    rows_of(root, KEYED).iter().map(|row| Op::Put(cell(&row[0]), [cell(&row[1]), cell(&row[2]), cell(&row[3])])).collect()
}

/// Chunks that count how many of them are read.
#[derive(Debug)]
struct Counted(MemoryChunks, AtomicUsize);

impl ChunkReader for Counted {
    fn read(&self, address: &ChunkAddress) -> Result<Vec<u8>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read(address)
    }
}

#[test]
fn a_merge_reads_what_changed_and_not_what_there_is() {
    let chunks = Arc::new(Counted(MemoryChunks::default(), AtomicUsize::new(0)));
    let mut edit = Edit::new(Root::new(Catalog::initial("test")));
    edit.put_table(table(KEYED, "t", true, true)).unwrap();
    edit.put_table(table(KEYLESS, "untouched", false, false)).unwrap();
    let rows = |count: i32| (1..=count).map(|id| Ok(row(&[id, 1, 1, id])));
    edit.replace_rows(KEYED, &mut rows(100_000)).unwrap();
    edit.replace_rows(KEYLESS, &mut rows(20_000)).unwrap();
    let side = |first: i32, column: u16| {
        let mut edit = Edit::new(edit.root().clone());
        for id in (first..100_000).step_by(25_000) {
            let key = edit.root().table(KEYED).unwrap().row_key(&row(&[id, 0, 0, 0]));
            assert!(edit.update_columns(KEYED, &key, &[(column, value(7))]).unwrap());
        }
        edit.root().clone()
    };
    let roots = [edit.root().clone(), side(1_000, 1), side(9_000, 2)].map(|mut root| {
        let address = root.write(&mut &chunks.0).unwrap();
        Root::open(&address, chunks.clone()).unwrap()
    });
    let all = chunks.0.len();
    chunks.1.store(0, Ordering::Relaxed);
    let merged = merge_roots(&roots[0], &roots[1], &roots[2], &MergeOptions::default()).unwrap();
    let read = chunks.1.load(Ordering::Relaxed);
    assert!(merged.is_clean());
    assert_eq!(diffs(&roots[0], &merged.root, KEYED).len(), 8);
    // Eight paths of three levels, on three sides, in rows and index.
    println!("read {read} of {all} chunks");
    assert!(all > 500 && read < 150, "read {read} of {all} chunks");
}
