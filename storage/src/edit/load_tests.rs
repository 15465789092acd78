//! Filling tables in any order, by several loaders, against the rows themselves and the tree that insertion makes.

use std::sync::Arc;

use proptest::prelude::*;

use super::tests::{KEYED, KEYLESS, rows_of, start};
use super::*;
use crate::chunk::MemoryChunks;
use crate::tree::Tree;
use crate::value::Row;

fn row(key: i32, text: u32) -> Row {
    vec![Value::Int4(key), Value::Null, Value::bytes(format!("text {text} {}", "-".repeat((text % 50) as usize)))]
}

/// Loads these rows, each list by a loader of its own.
fn load(edit: &mut Edit, table: Oid, lists: Vec<Vec<Row>>) -> Result<LoadedTable> {
    let load = edit.table_load(table).unwrap();
    let mut runs = Vec::new();
    for list in lists {
        let mut loader = load.loader();
        for mut row in list {
            loader.push(&mut row)?;
        }
        runs.extend(loader.finish()?);
    }
    load.finish(runs)
}

/// The tree that inserting the same rows one by one makes.
fn inserted(loaded: &Tree) -> Tree {
    let mut tree = Tree::with_target(loaded.layout().clone(), loaded.target());
    let mut rows = loaded.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    let mut all = Vec::new();
    while let Some(row) = rows.next_row().unwrap() {
        all.push(row);
    }
    // From the middle outwards, so that no order is favoured.
    let middle = all.len() / 2;
    for (key, row) in all[middle..].iter().chain(all[..middle].iter().rev()) {
        assert!(tree.insert(key, row).unwrap());
    }
    tree
}

fn check(mut edit: Edit, table: Oid, loaded: LoadedTable, mut expected: Vec<Row>) {
    assert_eq!(loaded.row_count(), expected.len() as u64);
    edit.replace_with(table, loaded).unwrap();
    let root = edit.root_and_changes().0;
    let data = root.table(table).unwrap();
    data.verify().unwrap();
    let (mut tree, mut other) = (data.rows().clone(), inserted(data.rows()));
    let chunks = MemoryChunks::default();
    assert_eq!(tree.write(&mut &chunks).unwrap(), other.write(&mut &chunks).unwrap(), "the tree is not the canonical one");
    let mut rows = rows_of(&root, table);
    if table == KEYLESS {
        rows.sort_by_key(|row| format!("{row:?}"));
        expected.sort_by_key(|row| format!("{row:?}"));
    }
    assert_eq!(rows, expected);
}

/// Cuts a list into lists at some places.
fn cut(rows: Vec<Row>, places: &[usize]) -> Vec<Vec<Row>> {
    let mut lists = vec![Vec::new()];
    for (at, row) in rows.into_iter().enumerate() {
        if places.contains(&at) {
            lists.push(Vec::new());
        }
        lists.last_mut().unwrap().push(row);
    }
    lists
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn rows_in_any_order_and_any_parts_make_the_same_table(
        count in 0usize..1500,
        places in prop::collection::vec(0usize..1500, 0..5),
        swaps in prop::collection::vec((0usize..1500, 0usize..1500), 0..40),
        reverse: bool,
    ) {
        let expected: Vec<Row> = (0..count as i32).map(|key| row(key, key as u32)).collect();
        let mut rows = expected.clone();
        for (a, b) in swaps.into_iter().filter(|(a, b)| a.max(b) < &count) {
            rows.swap(a, b);
        }
        if reverse {
            rows.reverse();
        }
        let mut edit = Edit::new(start());
        let loaded = load(&mut edit, KEYED, cut(rows, &places)).unwrap();
        check(edit, KEYED, loaded, expected);
    }

    #[test]
    fn equal_rows_without_a_key_are_all_kept(
        texts in prop::collection::vec(0u32..300, 0..1500),
        places in prop::collection::vec(0usize..1500, 0..5),
    ) {
        let rows: Vec<Row> = texts.into_iter().map(|text| row(text as i32, text)).collect();
        let mut edit = Edit::new(start());
        let loaded = load(&mut edit, KEYLESS, cut(rows.clone(), &places)).unwrap();
        check(edit, KEYLESS, loaded, rows);
    }
}

#[test]
fn equal_keys_are_refused_wherever_they_meet() {
    // In one batch, in an open run, in two runs that overlap, at the seam of two runs.
    let rows = |keys: std::ops::Range<i32>| keys.map(|key| row(key, 1)).collect::<Vec<_>>();
    let lists = [
        vec![vec![row(1, 1), row(1, 2)]],
        vec![[rows(0..500), vec![row(499, 2)]].concat()],
        vec![rows(0..500), vec![row(250, 2)]],
        vec![rows(0..500), rows(499..900)],
    ];
    for lists in lists {
        let mut edit = Edit::new(start());
        let error = load(&mut edit, KEYED, lists).unwrap_err();
        assert!(matches!(&error, Error::DuplicateKey { .. }), "{error}");
    }
}

#[test]
fn loaded_rows_join_those_that_are_there_or_are_refused() {
    let mut edit = Edit::new(start());
    edit.insert(KEYED, row(1000, 5)).unwrap();
    let loaded = load(&mut edit, KEYED, vec![(0..300).map(|key| row(key, 1)).collect()]).unwrap();
    assert_eq!(edit.add_rows(KEYED, &loaded).unwrap(), 300);
    assert_eq!(rows_of(edit.root(), KEYED).len(), 301);
    assert!(matches!(edit.add_rows(KEYED, &loaded), Err(Error::DuplicateKey { .. })));
    assert!(matches!(edit.take_rows(KEYED, loaded), Err(Error::Conflict { .. })));
    // Another definition is another table.
    let loaded = load(&mut edit, KEYLESS, vec![vec![row(1, 1)]]).unwrap();
    let mut renamed = TableSchema::clone(edit.table_schema(KEYLESS).unwrap());
    renamed.name = "renamed".into();
    edit.put_table(renamed).unwrap();
    assert!(matches!(edit.replace_with(KEYLESS, loaded), Err(Error::Conflict { .. })));
}

#[test]
fn several_threads_fill_one_table() {
    let mut edit = Edit::new(start());
    let load = edit.table_load(KEYED).unwrap();
    let runs = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|part| {
                let load = Arc::clone(&load);
                scope.spawn(move || {
                    let mut loader = load.loader();
                    (part * 1000..(part + 1) * 1000).for_each(|key| loader.push(&mut row(key, key as u32)).unwrap());
                    loader.finish().unwrap()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let loaded = load.finish(runs).unwrap();
    check(edit, KEYED, loaded, (0..4000).map(|key| row(key, key as u32)).collect());
}
