//! Root values and tables of old commits, made by several threads, against what the branch held when each was made.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tests::{DATABASE, KEYLESS, TABLE, meta, row, table};
use super::{OpenWith, Store};
use crate::disk::SimulatedDisk;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::id::{ChunkAddress, CommitId};
use crate::journal::JournalOptions;
use crate::root::{Root, TableData};
use crate::row_index::RowIndexOptions;
use crate::schema::{Index, IndexColumn, IndexKey, Oid};
use crate::value::{Row, Value};

const FLEETING: Oid = 16420;
const ROW_COUNT: i32 = 300;

type Rows = BTreeMap<Vec<u8>, Row>;

/// What a commit's root value was.
struct Moment {
    id: CommitId,
    tables: BTreeMap<Oid, Rows>,
    address: ChunkAddress,
}

fn open(disk: &SimulatedDisk) -> Arc<Store> {
    try_open(disk).unwrap()
}

fn try_open(disk: &SimulatedDisk) -> Result<Arc<Store>> {
    let with = OpenWith {
        disk: Arc::new(disk.clone()),
        journal: JournalOptions { group_commit: Duration::ZERO, segment_size: 1 << 16, index_thread: false },
        checkpoint_row_count: u64::MAX,
        recovery_checkpoint_at: u64::MAX,
        compaction: None,
        derived: false,
        row_index: Some(RowIndexOptions { entry_count: 1000, thread: true }),
    };
    Store::open_with(Path::new("/data"), with)
}

fn rows(table: &TableData) -> Rows {
    let mut cursor = table.scan((Bound::Unbounded, Bound::Unbounded), false);
    std::iter::from_fn(|| cursor.next_row().unwrap()).collect()
}

fn tables(root: &Root) -> BTreeMap<Oid, Rows> {
    [TABLE, KEYLESS, FLEETING].into_iter().filter_map(|oid| Some((oid, rows(root.table(oid)?)))).collect()
}

fn change_row(edit: &mut Edit, oid: Oid, random: &mut StdRng) {
    let id = random.random_range(0..ROW_COUNT);
    let key = edit.root().table(oid).unwrap().row_key(&row(id, ""));
    let text = format!("{}", random.random_range(0..1000));
    if edit.root().table(oid).unwrap().get(&key).unwrap().is_none() {
        edit.insert(oid, row(id, &text)).unwrap();
    } else if random.random_range(0..8) == 0 {
        edit.delete(oid, &key).unwrap();
    } else {
        edit.update_columns(oid, &key, &[(1, Value::bytes(text))]).unwrap();
    }
}

/// Mostly updates. Tables come and go, change their shape or are replaced, where `redefined`.
fn make(store: &Store, seed: u64, redefined: bool) -> Vec<Moment> {
    let mut random = StdRng::seed_from_u64(seed);
    store.create_database(DATABASE, meta("", 0)).unwrap();
    let mut branch = store.branch(DATABASE, "main").unwrap();
    let mut apply = branch.begin_apply(false).unwrap();
    let mut schema = table(TABLE, "t", true);
    if seed % 2 == 1 {
        // Updates then concern an index, too.
        let key = IndexColumn { key: IndexKey::Column(1), descending: false, nulls_first: false };
        let primary = schema.primary_key.clone().unwrap();
        schema.indexes.push(Index { oid: TABLE + 5, name: "t_v".into(), unique: false, columns: vec![key], constraint: false, ..primary });
    }
    apply.put_table(schema).unwrap();
    apply.put_table(table(KEYLESS, "k", false)).unwrap();
    apply.replace_rows(TABLE, &mut (0..ROW_COUNT).map(|id| Ok(row(id, "first")))).unwrap();
    apply.commit(meta("tables", 1)).unwrap();
    let mut moments = Vec::new();
    for n in 2..150 {
        if n == 60 {
            let head = branch.state().head;
            store.create_branch(DATABASE, "side", head, false).unwrap();
        }
        if n > 60 {
            branch = store.branch(DATABASE, if random.random_ratio(2, 3) { "main" } else { "side" }).unwrap();
        }
        let mut apply = branch.begin_apply(n % 4 == 0).unwrap();
        for _ in 0..random.random_range(1..12) {
            change_row(&mut apply, TABLE, &mut random);
        }
        for _ in 0..random.random_range(0..6) {
            apply.insert(KEYLESS, row(random.random_range(0..9), "same")).unwrap();
        }
        if n % 5 == 0 {
            // Made, undone and made otherwise: the commit has what remains.
            let mark = apply.mark();
            change_row(&mut apply, TABLE, &mut random);
            apply.truncate(KEYLESS).unwrap();
            apply.rollback_to(mark);
        }
        if redefined && n % 23 == 0 {
            match (n / 23) % 4 {
                0 => apply.truncate(KEYLESS).unwrap(),
                1 => apply.put_table(table(FLEETING, "f", true)).unwrap(),
                2 if apply.table_schema(FLEETING).is_some() => apply.drop_object(FLEETING).unwrap(),
                _ => {
                    let mut schema = apply.table_schema(TABLE).unwrap().as_ref().clone();
                    schema.comment = Some(format!("comment {n}"));
                    apply.put_table(schema).unwrap();
                }
            }
        }
        if apply.table_schema(FLEETING).is_some() {
            change_row(&mut apply, FLEETING, &mut random);
        }
        apply.commit(meta(&format!("transaction {n}"), n)).unwrap();
        let state = branch.state();
        let address = state.head_root.clone().write(&mut &*store.shared.journal).unwrap();
        moments.push(Moment { id: state.head, tables: tables(&state.head_root), address });
        if n == 40 || n == 100 {
            store.checkpoint().unwrap();
        }
    }
    store.sync().unwrap();
    moments
}

/// Forgets what was made, so that it is made again.
fn forget(store: &Store) {
    store.shared.cached_roots.lock().clear();
    store.shared.cached_tables.lock().clear();
}

fn check(store: &Store, moment: &Moment) -> Result<()> {
    for (oid, expected) in &moment.tables {
        forget(store);
        let Some(table) = store.table_at(moment.id, &|_| Some(*oid))? else { continue };
        let made = table.rows()?;
        assert!(rows(made) == *expected, "table {oid} at {:.12}", moment.id);
        made.verify()?;
    }
    forget(store);
    let root = store.root(moment.id)?;
    assert!(tables(&root) == moment.tables, "the root value of {:.12}", moment.id);
    let address = root.clone().write(&mut &*store.shared.journal)?;
    assert_eq!(address, moment.address, "the root value of {:.12} is written as another one", moment.id);
    Ok(())
}

#[test]
fn every_old_commit_is_as_it_was_from_either_side_and_by_however_many_threads() {
    for seed in 0..4 {
        let disk = SimulatedDisk::default();
        let store = open(&disk);
        let moments = make(&store, seed, seed >= 2);
        for moment in moments.iter().step_by(3) {
            check(&store, moment).unwrap();
        }
        drop(store);
        // Where nothing is known but the head and checkpoints.
        for (at, moment) in moments.iter().enumerate().skip(seed as usize % 7).step_by(7) {
            let store = open(&disk);
            let alone = (at % 2 == 0).then(|| store.shared.helpers.take());
            check(&store, moment).unwrap();
            drop(alone);
            check(&store, moment).unwrap();
        }
    }
}

#[test]
fn many_who_ask_at_once_get_what_one_gets_and_start_few_threads() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let moments = make(&store, 0, false);
    let done = std::sync::atomic::AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..6)
            .map(|first| {
                let (store, moments) = (&store, &moments);
                scope.spawn(move || {
                    for moment in moments.iter().skip(first).step_by(5) {
                        let root = store.root(moment.id).unwrap();
                        assert!(tables(&root) == moment.tables);
                        forget(store);
                    }
                })
            })
            .collect();
        let counting = scope.spawn(|| {
            let mut most = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                most = most.max(store.shared.helpers.taken());
                std::thread::yield_now();
            }
            most
        });
        for asking in asking {
            asking.join().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        counting.join().unwrap()
    });
    assert!(most <= 2, "{most}");
    assert_eq!(store.shared.helpers.taken(), 0, "a permit was not given back");
}

#[test]
fn a_damaged_commit_on_the_way_is_named_and_not_served() {
    let disk = SimulatedDisk::default();
    let store = open(&disk);
    let moments = make(&store, 0, false);
    drop(store);
    let segments: Vec<String> = (1..).map(|n| format!("{n:08}.seg")).take_while(|name| disk.file(name).is_some()).collect();
    let (mut good, mut damaged) = (0, 0);
    for (i, name) in segments.iter().enumerate().take(segments.len() - 1) {
        let size = disk.file(name).unwrap().len();
        for part in 1..8 {
            let image = disk.copy();
            image.flip(name, 8 * (size * part / 8) + i % 8);
            // What opening finds is not served either.
            let Ok(store) = try_open(&image) else { continue };
            for moment in moments.iter().step_by(11) {
                match check(&store, moment) {
                    Ok(()) => good += 1,
                    Err(Error::Damaged { place, .. }) => {
                        assert!(!place.is_empty());
                        damaged += 1;
                    }
                    Err(error) => panic!("another error than damage: {error:?}"),
                }
            }
        }
    }
    assert!(damaged > 0 && good > 10, "{damaged} and {good}");
}
