//! Edits against a model: rows, indexes, rollback, undo, replay, and root values written and opened.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::*;
use crate::chunk::{ChunkReader, MemoryChunks};
use crate::schema::{Catalog, Column, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID};
use crate::value::{DataType, Kind};

pub(super) const KEYED: Oid = 20_000;
pub(super) const KEYLESS: Oid = 20_001;
const UNIQUE: Oid = 20_010;
const PLAIN: Oid = 20_011;
const LATER: Oid = 20_012;

fn column(attnum: i16, name: &str, oid: u32, kind: Kind) -> Column {
    let data_type = DataType { oid, typmod: -1, name: name.into(), kind, element: None };
    let name = format!("{name}_{attnum}");
    Column { name, attnum, data_type, not_null: false, default: None, identity: None, generated: None, collation: None, comment: None }
}

fn index(oid: Oid, columns: &[usize], unique: bool) -> Index {
    let key = |&i: &usize| IndexColumn { key: IndexKey::Column(i), descending: i == 2, nulls_first: i == 2 };
    Index {
        oid,
        name: format!("index_{oid}"),
        unique,
        nulls_not_distinct: false,
        columns: columns.iter().map(key).collect(),
        include: vec![],
        predicate: None,
        method: "btree".into(),
        constraint: unique,
        comment: None,
    }
}

pub(super) fn schema(oid: Oid) -> TableSchema {
    let columns = vec![column(1, "int4", 23, Kind::Int4), column(2, "int8", 20, Kind::Int8), column(3, "text", 25, Kind::Text)];
    let keyed = oid == KEYED;
    TableSchema {
        oid,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: format!("table_{oid}"),
        owner: "test".into(),
        next_attnum: 4,
        columns,
        primary_key: keyed.then(|| index(oid + 100, &[0], true)),
        indexes: if keyed { vec![index(UNIQUE, &[1], true), index(PLAIN, &[2], false)] } else { vec![index(PLAIN + 50, &[2], false)] },
        constraints: vec![],
        merged_columns: Vec::new(),
        comment: None,
    }
}

fn row(key: i32, unique: i64, text: u8) -> Row {
    let unique = if unique == 0 { Value::Null } else { Value::Int8(unique) };
    let text = if text == 0 { Value::Null } else { Value::bytes(vec![b'a' + text; usize::from(text)]) };
    vec![Value::Int4(key), unique, text]
}

pub(super) fn start() -> Root {
    let mut edit = Edit::new(Root::new(Catalog::initial("test")));
    edit.put_table(schema(KEYED)).unwrap();
    edit.put_table(schema(KEYLESS)).unwrap();
    edit.root_and_changes().0
}

pub(super) fn rows_of(root: &Root, table: Oid) -> Vec<Row> {
    let mut cursor = root.table(table).unwrap().scan((Bound::Unbounded, Bound::Unbounded), false);
    std::iter::from_fn(|| cursor.next_row().unwrap().map(|(_, row)| row)).collect()
}

/// Rows by key; keyless rows with their number, as text.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    keyed: BTreeMap<i32, Row>,
    keyless: Vec<Row>,
}

impl Model {
    fn allows(&self, row: &[Value], except: Option<i32>) -> bool {
        let Value::Int4(key) = row[0] else { unreachable!() };
        (Some(key) == except || !self.keyed.contains_key(&key))
            && self.keyed.iter().all(|(k, other)| Some(*k) == except || row[1].is_null() || other[1] != row[1])
    }
}

fn check(root: &Root, model: &Model) {
    assert_eq!(
        rows_of(root, KEYED).iter().map(|row| row[..3].to_vec()).collect::<Vec<_>>(),
        model.keyed.values().cloned().collect::<Vec<_>>()
    );
    let sorted = |rows: Vec<Row>| {
        let mut texts: Vec<_> = rows.iter().map(|row| format!("{:?}", &row[..3])).collect();
        texts.sort();
        texts
    };
    assert_eq!(sorted(rows_of(root, KEYLESS)), sorted(model.keyless.clone()));
    for table in root.tables.values() {
        table.verify().unwrap();
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(i32, i64, u8),
    Update(i32, i32, i64, u8),
    UpdateColumns(i32, i64, u8),
    Delete(i32),
    InsertKeyless(u8, u8),
    DeleteKeyless(u8),
    UpdateKeyless(u8, u8),
    Mark,
    Rollback,
    Truncate,
    Replace(u8),
    AddIndex,
    AddColumn,
    DropKeyless,
}

fn op() -> impl Strategy<Value = Op> {
    let (key, unique, text) = (0..60i32, 0..60i64, 0..5u8);
    prop_oneof![
        30 => (key.clone(), unique.clone(), text.clone()).prop_map(|(k, u, t)| Op::Insert(k, u, t)),
        10 => (key.clone(), key.clone(), unique.clone(), text.clone()).prop_map(|(k, n, u, t)| Op::Update(k, n, u, t)),
        15 => (key.clone(), unique, text.clone()).prop_map(|(k, u, t)| Op::UpdateColumns(k, u, t)),
        15 => key.prop_map(Op::Delete),
        10 => (text.clone(), text.clone()).prop_map(|(a, b)| Op::InsertKeyless(a, b)),
        6 => any::<u8>().prop_map(Op::DeleteKeyless),
        4 => (any::<u8>(), text).prop_map(|(n, t)| Op::UpdateKeyless(n, t)),
        8 => Just(Op::Mark),
        5 => Just(Op::Rollback),
        1 => Just(Op::Truncate),
        1 => (0..50u8).prop_map(Op::Replace),
        1 => Just(Op::AddIndex),
        1 => Just(Op::AddColumn),
        1 => Just(Op::DropKeyless),
    ]
}

struct Run {
    edit: Edit,
    model: Model,
    marks: Vec<(EditMark, Model)>,
}

impl Run {
    fn full(&self, row: &Row) -> Row {
        let mut row = row.clone();
        if self.edit.table_schema(KEYED).unwrap().columns.len() == 4 {
            row.push(Value::Null);
        }
        row
    }

    fn keyless_gone(&self) -> bool {
        self.edit.table_schema(KEYLESS).is_none()
    }

    fn apply(&mut self, op: Op) {
        let key_of = |edit: &Edit, key: i32| {
            let width = edit.table_schema(KEYED).unwrap().columns.len();
            let mut row = row(key, 0, 0);
            row.resize(width, Value::Null);
            edit.root().table(KEYED).unwrap().row_key(&row)
        };
        match op {
            Op::Insert(key, unique, text) => {
                let new = row(key, unique, text);
                let result = self.edit.insert(KEYED, self.full(&new));
                if self.model.allows(&new, None) {
                    result.unwrap();
                    self.model.keyed.insert(key, new);
                } else {
                    assert!(matches!(result, Err(Error::DuplicateKey { .. })));
                }
            }
            Op::Update(key, new_key, unique, text) => {
                let new = row(new_key, unique, text);
                let old_key = key_of(&self.edit, key);
                let result = self.edit.update(KEYED, &old_key, self.full(&new));
                match self.model.keyed.get(&key) {
                    None => assert!(matches!(result, Err(Error::RowMissing { .. }))),
                    Some(old) if self.model.allows(&new, Some(key)) => {
                        assert_eq!(result.unwrap()[..3], old[..]);
                        self.model.keyed.remove(&key);
                        self.model.keyed.insert(new_key, new);
                    }
                    Some(_) => assert!(matches!(result, Err(Error::DuplicateKey { .. }))),
                }
            }
            Op::UpdateColumns(key, unique, text) => {
                let new = row(key, unique, text);
                let columns = [(0, new[0].clone()), (1, new[1].clone()), (2, new[2].clone())];
                let row_key = key_of(&self.edit, key);
                let result = self.edit.update_columns(KEYED, &row_key, &columns);
                if !self.model.keyed.contains_key(&key) {
                    assert!(!result.unwrap());
                } else if self.model.allows(&new, Some(key)) {
                    assert!(result.unwrap());
                    self.model.keyed.insert(key, new);
                } else {
                    assert!(matches!(result, Err(Error::DuplicateKey { .. })));
                }
            }
            Op::Delete(key) => {
                let row_key = key_of(&self.edit, key);
                let result = self.edit.delete(KEYED, &row_key);
                match self.model.keyed.remove(&key) {
                    Some(old) => assert_eq!(result.unwrap()[..3], old[..]),
                    None => assert!(matches!(result, Err(Error::RowMissing { .. }))),
                }
            }
            Op::InsertKeyless(..) | Op::DeleteKeyless(_) | Op::UpdateKeyless(..) | Op::DropKeyless if self.keyless_gone() => (),
            Op::InsertKeyless(a, b) => {
                let new = row(i32::from(a), 0, b);
                self.edit.insert(KEYLESS, new.clone()).unwrap();
                self.model.keyless.push(new);
            }
            Op::DeleteKeyless(n) | Op::UpdateKeyless(n, _) => {
                if self.model.keyless.is_empty() {
                    return;
                }
                let at = usize::from(n) % self.model.keyless.len();
                let old = self.model.keyless.remove(at);
                let key = self.edit.root().table(KEYLESS).unwrap().find_row(&[0, 1, 2], &old).unwrap().unwrap();
                if let Op::UpdateKeyless(_, text) = op {
                    let new = row(7, 1, text);
                    assert!(
                        self.edit.update_columns(KEYLESS, &key, &[(0, new[0].clone()), (1, new[1].clone()), (2, new[2].clone())]).unwrap()
                    );
                    self.model.keyless.push(new);
                } else {
                    assert_eq!(self.edit.delete(KEYLESS, &key).unwrap(), old);
                }
            }
            Op::Mark => self.marks.push((self.edit.mark(), self.model.clone())),
            Op::Rollback => {
                if let Some((mark, model)) = self.marks.pop() {
                    self.edit.rollback_to(mark);
                    self.model = model;
                }
            }
            Op::Truncate => {
                self.edit.truncate(KEYED).unwrap();
                self.model.keyed.clear();
            }
            Op::Replace(count) => {
                let rows: Vec<_> = (0..i32::from(count)).rev().map(|n| row(n, i64::from(n) + 1, (n % 5) as u8)).collect();
                let full: Vec<_> = rows.iter().map(|row| Ok(self.full(row))).collect();
                assert_eq!(self.edit.replace_rows(KEYED, &mut full.into_iter()).unwrap(), u64::from(count));
                self.model.keyed = rows.into_iter().enumerate().map(|(i, row)| (i32::from(count) - 1 - i as i32, row)).collect();
            }
            Op::AddIndex => {
                let mut schema = TableSchema::clone(self.edit.table_schema(KEYED).unwrap());
                if schema.indexes.iter().all(|i| i.oid != LATER) {
                    schema.indexes.push(index(LATER, &[2, 1], false));
                    self.edit.put_table(schema).unwrap();
                }
            }
            Op::AddColumn => {
                let mut schema = TableSchema::clone(self.edit.table_schema(KEYED).unwrap());
                if schema.columns.len() == 3 {
                    schema.columns.push(column(4, "bool", 16, Kind::Bool));
                    let widen = &mut |mut row: Row| {
                        row.push(Value::Null);
                        Ok(row)
                    };
                    self.edit.rewrite_table(schema, widen).unwrap();
                }
            }
            Op::DropKeyless => {
                self.edit.drop_object(KEYLESS).unwrap();
                self.model.keyless.clear();
            }
        }
    }

    fn check(&self) {
        if self.keyless_gone() {
            let mut edit = Edit::new(self.edit.root().clone());
            edit.put_table(schema(KEYLESS)).unwrap();
            check(edit.root(), &self.model);
        } else {
            check(self.edit.root(), &self.model);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn edits_follow_the_model_and_can_be_undone_and_replayed(before in prop::collection::vec(op(), 0..40), ops in prop::collection::vec(op(), 0..60)) {
        let chunks = Arc::new(MemoryChunks::default());
        let reader: Arc<dyn ChunkReader> = chunks.clone();
        let mut run = Run { edit: Edit::new(start()), model: Model::default(), marks: vec![] };
        for op in before {
            if !matches!(op, Op::DropKeyless) {
                run.apply(op);
            }
        }
        run.check();
        // A second edit begins where the first ended, once as its root's owner and once from what was written.
        let (mut base, _) = run.edit.root_and_changes();
        let base_address = base.write(&mut &*chunks).unwrap();
        let base_model = run.model.clone();
        let mut run = Run { edit: Edit::new(base), model: run.model, marks: vec![] };
        for op in ops {
            run.apply(op);
        }
        run.check();
        run.edit.seal(&mut &*chunks).unwrap();
        let changes = run.edit.changes().clone();
        let mut after = run.edit.root().clone();
        let after_address = after.write(&mut &*chunks).unwrap();

        let mut replayed = Root::open(&base_address, reader.clone()).unwrap();
        replayed.apply(&changes, &reader).unwrap();
        prop_assert!(replayed.same(&after).unwrap());
        prop_assert_eq!(replayed.write(&mut &*chunks).unwrap(), after_address);

        let base = Root::open(&base_address, reader.clone()).unwrap();
        let difference = Root::diff_to_changes(&base, &after, &mut &*chunks).unwrap();
        let mut patched = Edit::new(base.clone());
        patched.apply_changes(&difference, &reader).unwrap();
        prop_assert!(patched.root().same(&after).unwrap());
        prop_assert_eq!(patched.root_and_changes().0.write(&mut &*chunks).unwrap(), after_address);
        let objects = crate::diff::diff_roots(&base, &after).unwrap();
        prop_assert_eq!(objects.is_empty(), base.same(&after).unwrap());

        let mut reopened = Root::open(&after_address, reader.clone()).unwrap();
        prop_assert_eq!(reopened.write(&mut &*chunks).unwrap(), after_address);

        let mut undone = run.edit.undo();
        check(&undone, &base_model);
        prop_assert_eq!(undone.write(&mut &*chunks).unwrap(), base_address);
    }
}

#[test]
fn an_owner_edits_in_place_and_a_snapshot_keeps_its_rows() {
    let mut edit = Edit::new(start());
    for n in 0..1000 {
        edit.insert(KEYED, row(n, i64::from(n) + 1, 1)).unwrap();
    }
    let snapshot = edit.root().clone();
    let key = snapshot.table(KEYED).unwrap().row_key(&row(5, 0, 0));
    assert!(edit.update_columns(KEYED, &key, &[(2, Value::bytes("changed"))]).unwrap());
    assert_eq!(snapshot.table(KEYED).unwrap().get(&key).unwrap(), Some(row(5, 6, 1)));
    assert_eq!(edit.root().table(KEYED).unwrap().get(&key).unwrap().unwrap()[2], Value::bytes("changed"));
}

#[test]
fn a_rebase_meets_a_row_that_somebody_else_changed() {
    let chunks: Arc<dyn ChunkReader> = Arc::new(MemoryChunks::default());
    let mut edit = Edit::new(start());
    edit.insert(KEYED, row(1, 1, 1)).unwrap();
    let base = edit.root_and_changes().0;
    let key = base.table(KEYED).unwrap().row_key(&row(1, 0, 0));
    let changed = |text: &str| {
        let mut edit = Edit::new(base.clone());
        edit.update_columns(KEYED, &key, &[(2, Value::bytes(text))]).unwrap();
        edit
    };
    let (mine, theirs) = (changed("mine"), changed("theirs"));
    let mut rebased = Edit::new(theirs.root().clone());
    assert!(matches!(rebased.apply_changes(mine.changes(), &chunks), Err(Error::Conflict { .. })));
    let mut rebased = Edit::new(base.clone());
    rebased.apply_changes(mine.changes(), &chunks).unwrap();
    assert_eq!(rebased.changes(), mine.changes());
}

#[test]
fn lookups_use_keys_indexes_and_scans() {
    let mut edit = Edit::new(start());
    for n in 0..100 {
        edit.insert(KEYED, row(n, i64::from(n) + 1, (n % 4) as u8)).unwrap();
    }
    let table = edit.root().table(KEYED).unwrap();
    assert_eq!(table.index_lookup(UNIQUE, &[Value::Int8(51)]).unwrap(), vec![table.row_key(&row(50, 0, 0))]);
    assert_eq!(table.index_lookup(PLAIN, &[row(0, 0, 3)[2].clone()]).unwrap().len(), 25);
    assert_eq!(table.index_lookup(PLAIN, &[Value::Null]).unwrap().len(), 25);
    let whole = row(50, 51, 2);
    for columns in [&[0][..], &[1], &[2, 1], &[0, 1, 2]] {
        assert_eq!(table.find_row(columns, &whole).unwrap(), Some(table.row_key(&whole)), "{columns:?}");
    }
    assert_eq!(table.find_row(&[0, 2], &row(50, 51, 3)).unwrap(), None);
    assert!(table.index_lookup(4, &[]).is_err());
}

#[test]
fn opening_damaged_root_values_fails_without_panicking() {
    let chunks = Arc::new(MemoryChunks::default());
    let mut root = start();
    let address = root.write(&mut &*chunks).unwrap();
    let reader: Arc<dyn ChunkReader> = chunks.clone();
    let bytes = reader.read(&address).unwrap();
    for at in 0..bytes.len() {
        for damaged in [bytes[..at].to_vec(), [&bytes[..at], &[bytes[at] ^ 0x81][..], &bytes[at + 1..]].concat()] {
            let mut writer = &*chunks;
            let address = crate::chunk::ChunkWriter::put_bytes(&mut writer, &damaged).unwrap();
            let _ = Root::open(&address, reader.clone());
        }
    }
}
