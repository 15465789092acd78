//! Tables several times as large as the memory that nodes may take: what is in memory, and that everything read is right.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tests::{meta, table};
use super::{Branch, OpenWith, Store};
use crate::disk::SimulatedDisk;
use crate::error::Error;
use crate::journal::JournalOptions;
use crate::root::{Root, TableData};
use crate::schema::{Index, IndexColumn, IndexKey, Oid, TableSchema};
use crate::value::{Row, Value};

const TABLE: Oid = 16400;
const INDEX: Oid = 16409;
const LIMIT: u64 = 4 << 20;
/// What small transactions, batches of a load and nodes under construction may take before room is made for them.
const SLACK: u64 = LIMIT / 16;

fn open(disk: &SimulatedDisk) -> Arc<Store> {
    let with = OpenWith {
        disk: Arc::new(disk.clone()),
        journal: JournalOptions { group_commit: Duration::ZERO, segment_size: 4 << 20, index_thread: true },
        checkpoint_row_count: u64::MAX,
        recovery_checkpoint_at: u64::MAX,
        compaction: None,
        derived: false,
        row_index: None,
    };
    Store::open_with_cache(Path::new("/data"), with, LIMIT).unwrap()
}

fn made(disk: &SimulatedDisk) -> (Arc<Store>, Arc<Branch>) {
    let store = open(disk);
    store.create_database("postgres", meta("", 0)).unwrap();
    let branch = store.branch("postgres", "main").unwrap();
    (store, branch)
}

/// A table with an index on its text.
fn indexed(unique: bool) -> TableSchema {
    let mut schema = table(TABLE, "t", true);
    schema.indexes.push(Index {
        oid: INDEX,
        name: "t_v".into(),
        unique,
        nulls_not_distinct: false,
        columns: vec![IndexColumn { key: IndexKey::Column(1), descending: false, nulls_first: false }],
        include: vec![],
        predicate: None,
        method: "btree".into(),
        constraint: false,
        comment: None,
    });
    schema
}

/// The text of row `id` after its update number `version`: in another order than the ids.
fn text(id: i32, version: u32) -> String {
    let mixed = (id as u32).wrapping_mul(0x9e37_79b1);
    format!("{mixed:08x} {version} {}", "-".repeat(70 + id as usize % 20))
}

fn row(id: i32, version: u32) -> Row {
    vec![Value::Int4(id), Value::bytes(text(id, version))]
}

fn data(root: &Root) -> &TableData {
    root.table(TABLE).unwrap()
}

fn key(root: &Root, id: i32) -> Vec<u8> {
    data(root).key_prefix(None, &[Value::Int4(id)]).unwrap()
}

/// Follows what nodes take in memory at every step.
struct Watched<'a> {
    store: &'a Store,
    largest: u64,
}

impl Watched<'_> {
    fn look(&mut self) {
        self.largest = self.largest.max(self.store.cache_size());
    }

    fn check(&mut self, what: &str) {
        self.look();
        assert!(self.largest <= LIMIT, "{what}: {} bytes of nodes", self.largest);
        assert!(self.largest > LIMIT / 4, "{what}: {} bytes of nodes; are they counted?", self.largest);
        self.largest = 0;
    }
}

fn check_rows(root: &Root, expected: impl Iterator<Item = Row>, watched: &mut Watched<'_>) {
    let mut cursor = data(root).scan((Bound::Unbounded, Bound::Unbounded), false);
    let mut expected = expected.fuse();
    while let Some((leaf, at)) = cursor.next_position().unwrap() {
        assert_eq!(Some(leaf.row(at)), expected.next());
        watched.look();
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn a_table_several_times_the_limit_is_loaded_read_and_updated_within_it() {
    let count = 60_000;
    let disk = SimulatedDisk::default();
    let (store, branch) = made(&disk);
    let mut watched = Watched { store: &store, largest: 0 };
    let mut load = branch.begin_apply(true).unwrap();
    load.put_table(indexed(true)).unwrap();
    let rows = &mut (0..count).map(|id| {
        watched.look();
        Ok(row(id, 0))
    });
    load.replace_rows(TABLE, rows).unwrap();
    let (loaded, _) = load.commit(meta("load", 1)).unwrap();
    watched.check("load");
    let root = branch.state().head_root;
    check_rows(&root, (0..count).map(|id| row(id, 0)), &mut watched);
    watched.check("scan");
    assert!(store.written_size() > 0);

    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..3_000 {
        let id = random.random_range(0..count);
        assert_eq!(data(&root).get(&key(&root, id)).unwrap(), Some(row(id, 0)));
        let found = data(&root).index_lookup(INDEX, &[Value::bytes(text(id, 0))]).unwrap();
        assert_eq!(found, [key(&root, id)]);
        watched.look();
    }
    watched.check("point reads");
    drop(root);

    let mut versions: BTreeMap<i32, u32> = BTreeMap::new();
    for n in 0..3_000 {
        let id = random.random_range(0..count);
        let version = versions.entry(id).or_default();
        *version += 1;
        let mut apply = branch.begin_apply(false).unwrap();
        let key = key(apply.root(), id);
        assert!(apply.update_columns(TABLE, &key, &[(1, Value::bytes(text(id, *version)))]).unwrap());
        apply.commit(meta("update", 2 + n)).unwrap();
        watched.look();
    }
    watched.check("updates");
    let expected = || (0..count).map(|id| row(id, versions.get(&id).copied().unwrap_or(0)));
    check_rows(&branch.state().head_root, expected(), &mut watched);
    watched.check("scan after updates");
    let checkpoints = store.shared.checkpoints.read().roots.len();
    assert!(checkpoints > 1, "{checkpoints} checkpoints, {:?}", store.shared.cache);

    // What was committed at first can still be had, too.
    let first = store.root(loaded).unwrap();
    for id in (0..count).step_by(997) {
        assert_eq!(data(&first).get(&key(&first, id)).unwrap(), Some(row(id, 0)));
        watched.look();
    }
    drop(first);
    watched.check("an old root value");

    store.close().unwrap();
    drop((branch, store));
    let store = open(&disk);
    let mut watched = Watched { store: &store, largest: 0 };
    let root = store.branch("postgres", "main").unwrap().state().head_root;
    check_rows(&root, expected(), &mut watched);
    watched.check("scan after opening");
    data(&root).verify().unwrap();
    watched.check("verification");
    drop(root);
    store.close().unwrap();
}

#[test]
fn a_large_transaction_row_by_row_keeps_to_the_limit_and_can_go_back() {
    let count = 40_000;
    let disk = SimulatedDisk::default();
    let (store, branch) = made(&disk);
    let mut watched = Watched { store: &store, largest: 0 };
    let mut apply = branch.begin_apply(true).unwrap();
    apply.put_table(table(TABLE, "t", true)).unwrap();
    // A permutation, as 7,919 and the count have no common divisor.
    let id = |n: i32| (i64::from(n) * 7_919 % i64::from(count)) as i32;
    for n in 0..count / 2 {
        apply.insert(TABLE, row(id(n), 0)).unwrap();
        watched.look();
    }
    let mark = apply.mark();
    for n in count / 2..count {
        apply.insert(TABLE, row(id(n), 0)).unwrap();
        watched.look();
    }
    watched.check("insertions");
    apply.rollback_to(mark);
    apply.commit(meta("half", 1)).unwrap();
    let mut kept: Vec<i32> = (0..count / 2).map(id).collect();
    kept.sort_unstable();
    check_rows(&branch.state().head_root, kept.into_iter().map(|id| row(id, 0)), &mut watched);
    data(&branch.state().head_root).verify().unwrap();
    store.checkpoint().unwrap();
    watched.largest = 0;
    data(&branch.state().head_root).verify().unwrap();
    watched.check("scan");
}

#[test]
fn a_unique_index_larger_than_memory_finds_its_duplicate() {
    let count = 60_000;
    let disk = SimulatedDisk::default();
    let (store, branch) = made(&disk);
    let mut load = branch.begin_apply(true).unwrap();
    load.put_table(table(TABLE, "t", true)).unwrap();
    // The last row has the text of the first: they are in different runs.
    let rows = (0..count).map(|id| Ok(if id == count - 1 { vec![Value::Int4(id), Value::bytes(text(0, 0))] } else { row(id, 0) }));
    load.replace_rows(TABLE, &mut { rows }).unwrap();
    load.commit(meta("load", 1)).unwrap();
    let mut watched = Watched { store: &store, largest: 0 };
    let mut edit = branch.begin_apply(true).unwrap();
    match edit.put_table(indexed(true)) {
        Err(Error::DuplicateKey { index, .. }) => assert_eq!(index, "t_v"),
        other => panic!("{other:?}"),
    }
    edit.put_table(indexed(false)).unwrap();
    edit.commit(meta("index", 2)).unwrap();
    watched.check("index");
    data(&branch.state().head_root).verify().unwrap();
    watched.check("verification");
}

#[test]
fn rows_in_any_order_from_several_loaders_are_sorted_and_merged_within_the_limit() {
    let count = 60_000;
    for schema in [table(TABLE, "t", true), indexed(true)] {
        let disk = SimulatedDisk::default();
        let (store, branch) = made(&disk);
        let mut watched = Watched { store: &store, largest: 0 };
        let mut apply = branch.begin_apply(true).unwrap();
        apply.put_table(schema).unwrap();
        let load = apply.table_load(TABLE).unwrap();
        let mut loaders: Vec<_> = (0..3).map(|_| load.loader()).collect();
        for n in 0..count {
            // A third of the table each, every row far from the last.
            let at = n % 3;
            let id = at * (count / 3) + (n / 3 * 7919) % (count / 3);
            loaders[at as usize].push(&mut row(id, 0)).unwrap();
            watched.look();
        }
        let mut runs = Vec::new();
        for loader in loaders {
            runs.extend(loader.finish().unwrap());
            watched.look();
        }
        assert!(runs.len() > 50, "{} runs", runs.len());
        let loaded = load.finish(runs).unwrap();
        watched.look();
        assert_eq!(apply.replace_with(TABLE, loaded).unwrap(), count as u64);
        apply.commit(meta("load", 1)).unwrap();
        watched.check("load");
        let root = branch.state().head_root;
        check_rows(&root, (0..count).map(|id| row(id, 0)), &mut watched);
        data(&root).verify().unwrap();
        watched.check("scan");
    }
}

/// Readers hold snapshots, some for long, while transactions move amounts between rows: every snapshot has the same sum, twice.
#[test]
fn readers_with_snapshots_see_one_moment_while_leaves_come_and_go() {
    let count = 60_000;
    let transactions: u64 = std::env::var("STRANDLINE_TEST_SCALE")
        .map_or(5_000, |scale| if scale == "full" { 200_000 } else { scale.parse().expect("STRANDLINE_TEST_SCALE is full or a count") });
    let disk = SimulatedDisk::default();
    let (store, branch) = made(&disk);
    let amount_of = |row: &Row| -> i64 {
        let Value::Bytes(text) = &row[1] else { panic!("{row:?}") };
        std::str::from_utf8(&text[..12]).unwrap().trim().parse().unwrap()
    };
    let row_of = |id: i32, amount: i64| vec![Value::Int4(id), Value::bytes(format!("{amount:12}{}", "-".repeat(80)))];
    let mut load = branch.begin_apply(true).unwrap();
    load.put_table(table(TABLE, "t", true)).unwrap();
    load.replace_rows(TABLE, &mut (0..count).map(|id| Ok(row_of(id, 100)))).unwrap();
    load.commit(meta("load", 1)).unwrap();
    let sum = |root: &Root| -> i64 {
        let mut cursor = data(root).scan((Bound::Unbounded, Bound::Unbounded), false);
        std::iter::from_fn(|| cursor.next_row().unwrap()).map(|(_, row)| amount_of(&row)).sum()
    };
    let ended = AtomicBool::new(false);
    let scans = AtomicU64::new(0);
    let largest = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (branch, ended, scans, largest, store) = (&branch, &ended, &scans, &largest, &store);
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(reader);
                while !ended.load(Ordering::Relaxed) {
                    let root = branch.state().head_root;
                    let some: Vec<i32> = (0..50).map(|_| random.random_range(0..count)).collect();
                    let get = |id: &i32| data(&root).get(&key(&root, *id)).unwrap().unwrap();
                    let before: Vec<Row> = some.iter().map(get).collect();
                    assert_eq!(sum(&root), i64::from(count) * 100);
                    assert_eq!(some.iter().map(get).collect::<Vec<_>>(), before);
                    assert_eq!(sum(&root), i64::from(count) * 100);
                    scans.fetch_add(2, Ordering::Relaxed);
                    largest.fetch_max(store.cache_size(), Ordering::Relaxed);
                }
            });
        }
        // Whatever happens here, the readers end.
        let writer = scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(9);
            for n in 0..transactions {
                let mut apply = branch.begin_apply(false).unwrap();
                let (from, to) = (random.random_range(0..count), random.random_range(0..count));
                for (id, change) in [(from, -1), (to, 1)] {
                    let key = key(apply.root(), id);
                    let amount = amount_of(&data(apply.root()).get(&key).unwrap().unwrap());
                    apply.update(TABLE, &key, row_of(id, amount + change)).unwrap();
                }
                apply.commit(meta("move", 2 + n)).unwrap();
            }
        });
        let written = writer.join();
        ended.store(true, Ordering::Relaxed);
        written.unwrap();
    });
    assert!(scans.load(Ordering::Relaxed) > 0);
    // A snapshot keeps the nodes that were not written when it was taken, a quarter of the limit; there are three.
    let largest = largest.load(Ordering::Relaxed);
    assert!(largest <= 2 * LIMIT, "{largest} bytes of nodes");
    assert_eq!(sum(&branch.state().head_root), i64::from(count) * 100);
    store.checkpoint().unwrap();
    store.shared.cache.make_room();
    assert!(store.cache_size() <= LIMIT, "{} bytes of nodes remain", store.cache_size());
    data(&branch.state().head_root).verify().unwrap();
    drop(branch);
    let shared = store.shared.clone();
    store.close().unwrap();
    drop(store);
    shared.release_roots();
    assert!(shared.cache.resident() as u64 <= SLACK, "{} bytes of nodes are counted that are gone", shared.cache.resident());
}
