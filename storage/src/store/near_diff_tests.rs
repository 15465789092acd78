//! What is made of change sets alone (the rows of a table at a commit, the difference of near commits) is what root values have.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tests::{DATABASE, KEYLESS, TABLE, meta, table};
use super::{OpenWith, Store};
use crate::diff::{RowDiff, diff_tables};
use crate::disk::SimulatedDisk;
use crate::edit::Edit;
use crate::id::CommitId;
use crate::journal::JournalOptions;
use crate::row_index::RowIndexOptions;
use crate::schema::{Index, IndexColumn, IndexKey, Oid};
use crate::value::{Row, Value};

/// Made, dropped and made again.
const FLEETING: Oid = 16420;

fn open(disk: &SimulatedDisk) -> Arc<Store> {
    let with = OpenWith {
        disk: Arc::new(disk.clone()),
        journal: JournalOptions { group_commit: Duration::ZERO, segment_size: 1 << 14, index_thread: false },
        checkpoint_row_count: u64::MAX,
        recovery_checkpoint_at: u64::MAX,
        compaction: None,
        derived: false,
        row_index: Some(RowIndexOptions { entry_count: 50, thread: true }),
    };
    Store::open_with(Path::new("/data"), with).unwrap()
}

/// A row as wide as the table is now.
fn row(edit: &Edit, table: Oid, id: i32, random: &mut StdRng) -> Row {
    let width = edit.table_schema(table).unwrap().columns.len();
    let mut row = vec![Value::Int4(id), Value::bytes(format!("text {}", random.random_range(0..4)))];
    row.resize_with(width, || if random.random() { Value::Null } else { Value::bytes("more") });
    row
}

fn any_key(edit: &Edit, table: Oid, random: &mut StdRng) -> Option<Vec<u8>> {
    let mut cursor = edit.root().table(table)?.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    let mut keys = Vec::new();
    while let Some((key, _)) = cursor.next_row().unwrap() {
        keys.push(key);
    }
    (!keys.is_empty()).then(|| keys[random.random_range(0..keys.len())].clone())
}

fn change_rows(edit: &mut Edit, table: Oid, random: &mut StdRng) {
    let id = random.random_range(0..60);
    let new = row(edit, table, id, random);
    match (random.random_range(0..4), any_key(edit, table, random)) {
        (0, Some(key)) => drop(edit.delete(table, &key).unwrap()),
        (1, Some(key)) => drop(edit.update_columns(table, &key, &[(1, new[1].clone())]).unwrap()),
        // The key changes, too, unless another row has the new one.
        (2, Some(key)) => drop(edit.update(table, &key, new)),
        _ => drop(edit.insert(table, new)),
    }
}

/// Something that is not row by row.
fn change_table(edit: &mut Edit, table_oid: Oid, random: &mut StdRng) {
    let mut schema = edit.table_schema(table_oid).unwrap().as_ref().clone();
    match random.random_range(0..6) {
        0 => edit.truncate(table_oid).unwrap(),
        1 => {
            schema.comment = Some(format!("comment {}", random.random_range(0..9)));
            edit.put_table(schema).unwrap();
        }
        2 if schema.columns.len() < 5 => {
            let attnum = schema.next_attnum;
            schema.columns.push(crate::schema::Column { name: format!("c{attnum}"), attnum, ..schema.columns[1].clone() });
            schema.next_attnum += 1;
            let widen = |mut row: Row| {
                row.push(Value::Null);
                Ok(row)
            };
            edit.rewrite_table(schema, &mut { widen }).unwrap();
        }
        3 if schema.columns.len() > 2 => {
            schema.columns.pop();
            let narrow = |mut row: Row| {
                row.pop();
                Ok(row)
            };
            edit.rewrite_table(schema, &mut { narrow }).unwrap();
        }
        4 => match edit.table_schema(FLEETING).is_some() {
            true => edit.drop_object(FLEETING).unwrap(),
            false => {
                edit.put_table(table(FLEETING, "f", true)).unwrap();
                change_rows(edit, FLEETING, random);
            }
        },
        _ => {
            let rows: Vec<Row> = (0..random.random_range(0..30)).map(|id| row(edit, table_oid, id, random)).collect();
            edit.replace_rows(table_oid, &mut rows.into_iter().map(Ok)).unwrap();
        }
    }
}

/// Commits on two branches, of which the second begins in the middle of the first.
fn make_history(store: &Store, seed: u64) -> Vec<CommitId> {
    let mut random = StdRng::seed_from_u64(seed);
    store.create_database(DATABASE, meta("", 0)).unwrap();
    let mut branch = store.branch(DATABASE, "main").unwrap();
    let mut apply = branch.begin_apply(false).unwrap();
    let mut indexed = table(TABLE, "t", true);
    let key = IndexColumn { key: IndexKey::Column(1), descending: false, nulls_first: false };
    let primary = indexed.primary_key.clone().unwrap();
    indexed.indexes.push(Index { oid: TABLE + 5, name: "t_v".into(), unique: false, columns: vec![key], constraint: false, ..primary });
    apply.put_table(indexed).unwrap();
    apply.put_table(table(KEYLESS, "k", false)).unwrap();
    apply.commit(meta("tables", 1)).unwrap();
    for n in 2..120 {
        if n == 60 {
            let head = store.branch(DATABASE, "main").unwrap().state().head;
            store.create_branch(DATABASE, "side", head, false).unwrap();
        }
        if n > 60 {
            branch = store.branch(DATABASE, if random.random() { "main" } else { "side" }).unwrap();
        }
        let mut apply = branch.begin_apply(n % 4 == 0).unwrap();
        for _ in 0..random.random_range(1..5) {
            let table = if random.random() { TABLE } else { KEYLESS };
            change_rows(&mut apply, table, &mut random);
        }
        if random.random_range(0..12) == 0 {
            let table = if random.random() { TABLE } else { KEYLESS };
            change_table(&mut apply, table, &mut random);
        }
        apply.commit(meta(&format!("transaction {n}"), n)).unwrap();
        if random.random_range(0..25) == 0 {
            store.checkpoint().unwrap();
        }
    }
    let heads = ["main", "side"].map(|name| store.branch(DATABASE, name).unwrap().state().head);
    store.log(&heads, &[]).unwrap().map(|commit| commit.unwrap().id).collect()
}

fn forget(store: &Store) {
    store.shared.cached_roots.lock().clear();
    store.shared.cached_tables.lock().clear();
}

#[test]
fn near_commits_differ_as_their_root_values_do() {
    let (mut found_count, mut rows_count) = (0, 0);
    for seed in 0..4 {
        let store = open(&SimulatedDisk::default());
        let commits = make_history(&store, seed);
        let mut random = StdRng::seed_from_u64(seed);
        for (i, from) in commits.iter().enumerate() {
            let parent = store.ancestor(*from, 1).unwrap();
            for to in [commits.get(i + 1).copied(), parent, commits.get(i + random.random_range(0..7)).copied()].into_iter().flatten() {
                for (from, to) in [(*from, to), (to, *from)] {
                    for table in [TABLE, KEYLESS, FLEETING] {
                        if random.random_range(0..4) == 0 {
                            forget(&store);
                        }
                        let Some(near) = store.near_diff(from, to, table).unwrap() else { continue };
                        let (before, after) = (store.root(from).unwrap(), store.root(to).unwrap());
                        let (before, after) = (before.table(table).unwrap(), after.table(table).unwrap());
                        let expected: Vec<RowDiff> = diff_tables(Some(before), Some(after)).map(Result::unwrap).collect();
                        assert_eq!((&near.schema, &near.schema), (before.schema(), after.schema()));
                        assert_eq!(near.rows, expected, "seed {seed}, {table} from {from:.12} to {to:.12}");
                        found_count += 1;
                        rows_count += expected.len();
                    }
                }
            }
        }
    }
    assert!(found_count > 1000 && rows_count > 1000, "{found_count}, {rows_count}");
}

#[test]
fn a_table_made_of_its_own_changes_is_that_of_the_root_value() {
    let (mut found_count, mut made_count) = (0, 0);
    for seed in 10..13 {
        let disk = SimulatedDisk::default();
        let store = open(&disk);
        let commits = make_history(&store, seed);
        for (i, id) in commits.iter().enumerate() {
            let catalog = store.catalog_at(*id).unwrap();
            let mut made = Vec::new();
            for oid in [TABLE, KEYLESS, FLEETING] {
                if i % 3 != 0 {
                    forget(&store);
                }
                let Some(table) = store.table_at(*id, &|catalog| catalog.table(oid).map(|table| table.oid)).unwrap() else { continue };
                made.push((oid, Arc::clone(table.rows().unwrap())));
                found_count += 1;
            }
            // Without the root value.
            made_count += store.shared.cached_tables.lock().len();
            forget(&store);
            let root = store.root(*id).unwrap();
            assert_eq!(&catalog, root.catalog());
            for (oid, made) in made {
                let expected = root.table(oid).unwrap();
                assert_eq!(made.schema(), expected.schema());
                let differences: Vec<RowDiff> = diff_tables(Some(&made), Some(expected)).map(Result::unwrap).collect();
                assert_eq!(differences, [], "seed {seed}, {oid} at {id:.12}");
                made.verify().unwrap();
            }
        }
        // Where nothing is known but checkpoints.
        drop(store);
        let store = open(&disk);
        for id in commits.iter().step_by(5) {
            let table = store.table_at(*id, &|_| Some(TABLE)).unwrap();
            let rows = table.map(|table| Arc::clone(table.rows().unwrap()));
            forget(&store);
            let root = store.root(*id).unwrap();
            if let Some(rows) = rows {
                assert!(diff_tables(Some(&rows), root.table(TABLE).map(|t| &**t)).next().is_none());
                found_count += 1;
            }
        }
    }
    assert!(found_count > 100 && made_count > 100, "{found_count}, {made_count}");
}
