//! What nothing refers to gives its space back; everything else is as it was, for whoever reads, writes or opens the store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::run::{GcMode, GcReport, run};
use crate::disk::{RealDisk, SimulatedDisk};
use crate::edit::Edit;
use crate::error::Result;
use crate::id::CommitId;
use crate::journal::JournalOptions;
use crate::record::Record;
use crate::root::Root;
use crate::store::tests::{DATABASE, Model, TABLE, apply, content, made_with, meta, open_on, row};
use crate::store::{Branch, OpenWith, Store};
use crate::value::Value;

const SEGMENT_SIZE: u64 = 1 << 15;
const ROW_COUNT: i32 = 3000;
/// One row in so many is changed at a time, which is still every leaf.
const ROW_STEP: i32 = 15;

/// Nothing of old commits is kept.
const FAR: u64 = 1 << 40;

fn gc(store: &Store, mode: GcMode, spacing: u64) -> GcReport {
    run(&store.shared, &store.registry, mode, spacing).unwrap()
}

/// Bytes of all segments, and of all that lies in the folder beside them.
fn journal_size(disk: &SimulatedDisk) -> u64 {
    let files = disk.content().files();
    let segments = files.into_iter().filter(|(path, _)| path.extension().is_some_and(|ending| ending == "seg"));
    segments.map(|(_, node)| disk.content().file(node).now.len() as u64).sum()
}

fn check_clean(disk: &SimulatedDisk) {
    let report = crate::fsck::fsck_on(Arc::new(disk.clone()), Path::new("/data")).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// A text that does not compress.
fn text(n: u64) -> String {
    blake3::hash(&n.to_le_bytes()).to_hex()[..40].into()
}

/// Fills the table.
fn fill(branch: &Arc<Branch>) {
    let mut apply = branch.begin_apply(false).unwrap();
    for id in 0..ROW_COUNT {
        apply.insert(TABLE, row(id, &text(id as u64))).unwrap();
    }
    apply.commit(meta("filled", 2)).unwrap();
}

/// Changes rows all over the table, and so every leaf.
fn heat(edit: &mut Edit, round: u64) {
    for id in (round as i32 % ROW_STEP..ROW_COUNT).step_by(ROW_STEP as usize) {
        let key = edit.root().table(TABLE).unwrap().row_key(&row(id, ""));
        edit.update_columns(TABLE, &key, &[(1, Value::bytes(text(round << 32 | id as u64)))]).unwrap();
    }
}

fn heat_and_commit(branch: &Arc<Branch>, round: u64) -> CommitId {
    let mut apply = branch.begin_apply(false).unwrap();
    heat(&mut apply, round);
    apply.commit(meta("hot", round + 100)).unwrap().0
}

/// A store with a hot table and a checkpoint after each of so many rounds.
fn hot_store(disk: &SimulatedDisk, round_count: u64) -> (Arc<Store>, Vec<(CommitId, Model)>) {
    let store = made_with(disk, SEGMENT_SIZE).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    fill(&branch);
    store.checkpoint().unwrap();
    let mut states = Vec::new();
    for round in 1..=round_count {
        let id = heat_and_commit(&branch, round);
        states.push((id, content(&branch.state().head_root)));
        // So that checkpoints know how long the records are.
        store.sync().unwrap();
        store.checkpoint().unwrap();
    }
    (store, states)
}

fn check_states(store: &Store, states: &[(CommitId, Model)]) {
    for (id, expected) in states {
        assert!(content(&store.root(*id).unwrap()) == *expected, "commit {id:.12}");
    }
}

#[test]
fn a_hot_table_leaves_one_copy_of_itself_and_the_log() {
    let disk = SimulatedDisk::default();
    let (store, states) = hot_store(&disk, 20);
    let (log, chunks) = (store.shared.journal.log_size(), store.shared.journal.chunk_size());
    let copy = chunks / 21;
    assert!(copy > SEGMENT_SIZE);
    let before = journal_size(&disk);
    assert!(before > log + 20 * copy);
    gc(&store, GcMode::Normal, FAR);
    let after = journal_size(&disk);
    // What is left is the log, a copy of the table, up to a tenth of garbage, and headers and seals of segments.
    assert!(after < (log + copy) * 10 / 9 + before / SEGMENT_SIZE * 200, "{before} bytes became {after}; log {log}, table {copy}");
    assert!(after > log + copy * 9 / 10);
    check_states(&store, &states);
    drop(store);
    check_clean(&disk);
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    check_states(&store, &states);
    // Nothing is left to give back but what these questions and this checkpoint have written.
    let again = gc(&store, GcMode::Shallow, FAR);
    assert!(again.size_before - again.size_after <= store.written_size() + copy / 2, "{again:?}");
}

#[test]
fn of_old_root_values_as_many_are_kept_as_their_spacing_says() {
    for (spacing, kept) in [(Some(0), 20), (Some(4), 5), (None, 0)] {
        let disk = SimulatedDisk::default();
        let (store, states) = hot_store(&disk, 20);
        // In rounds; filling the table costs as much as many.
        let mut costs = kept_costs(&store);
        costs.drain(..costs.len() - 20);
        let spacing = spacing.map_or(FAR, |rounds| rounds * (costs[19] - costs[0]) / 19 + 9);
        gc(&store, GcMode::Full, spacing);
        let roots = store.shared.checkpoints.read().roots.clone();
        // Those of the last checkpoint, and the one after the table was filled, are there or not.
        assert!(roots.len().abs_diff(kept) <= 2, "{} of {kept}", roots.len());
        check_states(&store, &states);
        heat_and_commit(&store.branch(DATABASE, "main").unwrap(), 77);
        store.checkpoint().unwrap();
        let roots = store.shared.checkpoints.read().roots.clone();
        drop(store);
        check_clean(&disk);
        // Opening knows the same: what the last decision keeps, and what came after it.
        let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
        let made = |root: &&crate::store::shared::WrittenRoot| root.told.is_some();
        let addresses = |roots: &std::collections::BTreeMap<_, crate::store::shared::WrittenRoot>| {
            roots.values().filter(made).map(|root| root.address).collect::<Vec<_>>()
        };
        assert_eq!(addresses(&store.shared.checkpoints.read().roots), addresses(&roots));
        check_states(&store, &states);
    }
}

/// What the checkpoints say that replaying up to each would cost.
fn kept_costs(store: &Store) -> Vec<u64> {
    let shared = &store.shared;
    let sequences: Vec<u64> = shared.checkpoints.read().roots.values().filter_map(|root| Some(root.told?.0)).collect();
    let record = |sequence| Record::decode(&shared.journal.read_record(sequence).unwrap()).unwrap();
    let cost = |sequence| if let Record::Checkpoint(checkpoint) = record(sequence) { checkpoint.cost } else { panic!("no checkpoint") };
    sequences.into_iter().map(cost).collect()
}

#[test]
fn whoever_holds_an_old_root_value_reads_all_of_it_and_its_space_comes_back_when_it_is_dropped() {
    let disk = SimulatedDisk::default();
    let (store, states) = hot_store(&disk, 12);
    let copy = store.shared.journal.chunk_size() / 13;
    drop(store);
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    // Nothing of it is in memory.
    let old = store.root(states[3].0).unwrap();
    let snapshot = store.branch(DATABASE, "main").unwrap().state();
    let before = journal_size(&disk);
    for round in 0..2 {
        gc(&store, GcMode::Full, FAR);
        heat_and_commit(&store.branch(DATABASE, "main").unwrap(), 50 + round);
        store.checkpoint().unwrap();
    }
    let held = journal_size(&disk);
    // Two copies are held, two were written since, the one before the second round is garbage of the last minute.
    assert!(held < before - 7 * copy, "{before} bytes became {held}, the table has {copy}");
    assert!(content(&old) == states[3].1);
    assert!(content(&snapshot.head_root) == states[11].1);
    drop((old, snapshot));
    gc(&store, GcMode::Full, FAR);
    let after = journal_size(&disk);
    assert!(after < held - 2 * copy, "{held} bytes became {after}, the table has {copy}");
    check_states(&store, &states);
}

#[test]
fn what_is_read_from_memory_and_written_later_is_written_whole() {
    let disk = SimulatedDisk::default();
    let (store, states) = hot_store(&disk, 6);
    let branch = store.branch(DATABASE, "main").unwrap();
    // Its nodes get their addresses when a checkpoint writes the head, and then nothing written refers to them any more.
    heat_and_commit(&branch, 20);
    let old = branch.state();
    for round in 21..25 {
        store.checkpoint().unwrap();
        heat_and_commit(&branch, round);
        gc(&store, GcMode::Full, FAR);
    }
    let now = branch.state();
    branch.set_roots(now.version, Some(old.head_root.clone()), Some(store.root(states[2].0).unwrap())).unwrap();
    let expected = (content(&old.head_root), states[2].1.clone());
    drop((old, now));
    for _ in 0..2 {
        gc(&store, GcMode::Full, FAR);
        let state = branch.state();
        assert!((content(&state.staged), content(&state.working)) == expected);
    }
    drop((branch, store));
    check_clean(&disk);
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    let state = store.branch(DATABASE, "main").unwrap().state();
    assert!((content(&state.staged), content(&state.working)) == expected);
}

#[test]
fn a_transaction_under_way_finds_again_what_it_has_written() {
    let disk = SimulatedDisk::default();
    let (store, _) = hot_store(&disk, 3);
    let branch = store.branch(DATABASE, "main").unwrap();
    store.create_branch(DATABASE, "side", branch.state().head, false).unwrap();
    let side = store.branch(DATABASE, "side").unwrap();
    let mut apply = branch.begin_apply(true).unwrap();
    heat(&mut apply, 40);
    // As when it takes too much memory.
    apply.root.spill(&mut &*store.shared.journal).unwrap();
    for round in 41..44 {
        heat_and_commit(&side, round);
        gc(&store, GcMode::Full, FAR);
    }
    // Most of what was written stays as it is.
    let key = apply.root().table(TABLE).unwrap().row_key(&row(7, ""));
    apply.update_columns(TABLE, &key, &[(1, Value::bytes("seven"))]).unwrap();
    let id = apply.commit(meta("large", 45)).unwrap().0;
    let expected = content(&branch.state().head_root);
    gc(&store, GcMode::Full, FAR);
    drop((branch, side, store));
    check_clean(&disk);
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    assert!(content(&store.root(id).unwrap()) == expected);
    assert!(content(&store.branch(DATABASE, "main").unwrap().state().head_root) == expected);
}

#[test]
fn what_local_changes_and_replaced_tables_name_stays() {
    let disk = SimulatedDisk::default();
    let (store, _) = hot_store(&disk, 2);
    let branch = store.branch(DATABASE, "main").unwrap();
    // A table replaced as a whole by a commit, one in the working set, and a large change set in pieces.
    let mut states = Vec::new();
    for n in 0..3 {
        let mut apply = branch.begin_apply(false).unwrap();
        apply.replace_rows(TABLE, &mut (0..ROW_COUNT).map(|id| Ok(row(id, &text(n << 40 | id as u64))))).unwrap();
        states.push((apply.commit(meta("replaced", 60 + n)).unwrap().0, content(&branch.state().head_root)));
    }
    let mut apply = branch.begin_apply(false).unwrap();
    for id in 10_000..10_030 {
        apply.insert(TABLE, row(id, &text(id as u64).repeat(1500))).unwrap();
    }
    states.push((apply.commit(meta("long", 70)).unwrap().0, content(&branch.state().head_root)));
    store.checkpoint().unwrap();
    let base = branch.state();
    let mut edit = Edit::new(base.working.clone());
    edit.replace_rows(TABLE, &mut (0..ROW_COUNT).map(|id| Ok(row(id, &text(9 << 40 | id as u64))))).unwrap();
    branch.commit_local(&base, edit, None).unwrap();
    drop(base);
    let working = content(&branch.state().working);
    // The records name it, though the working set is another one by now.
    branch.reset(branch.state().version, states[1].0, true).unwrap();
    gc(&store, GcMode::Full, FAR);
    let base = branch.state();
    let mut edit = Edit::new(base.working.clone());
    edit.replace_rows(TABLE, &mut (0..ROW_COUNT).map(|id| Ok(row(id, &text(9 << 40 | id as u64))))).unwrap();
    branch.commit_local(&base, edit, None).unwrap();
    drop(base);
    gc(&store, GcMode::Shallow, FAR);
    store.sync().unwrap();
    drop((branch, store));
    check_clean(&disk);
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    assert!(content(&store.branch(DATABASE, "main").unwrap().state().working) == working);
    check_states(&store, &states);
}

#[test]
fn the_commits_of_a_rewritten_segment_need_not_be_read_again() {
    let disk = SimulatedDisk::default();
    let (store, states) = hot_store(&disk, 10);
    gc(&store, GcMode::Full, FAR);
    drop(store);
    let derived = |disk: &SimulatedDisk| {
        let content = disk.content();
        let ends = |path: &Path| path.extension().is_some_and(|ending| ending == "idx" || ending == "commits");
        let files = content.files().into_iter().filter(|(path, _)| ends(path));
        files.map(|(path, node)| (path, content.file(node).now.clone())).collect::<Vec<_>>()
    };
    let before = derived(&disk);
    assert!(before.len() > 8);
    let changes = disk.change_count();
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    // Opening writes the mark alone and the last segment's end, and finds each file as it left it.
    assert!(disk.change_count() - changes < 12, "{}", disk.change_count() - changes);
    assert!(derived(&disk) == before);
    check_states(&store, &states);
}

#[test]
fn roots_made_from_branches_that_are_gone_are_not_kept() {
    let disk = SimulatedDisk::default();
    let (store, _) = hot_store(&disk, 2);
    let head = store.branch(DATABASE, "main").unwrap().state().head;
    store.create_branch(DATABASE, "side", head, false).unwrap();
    let mut gone = Vec::new();
    for round in 30..40 {
        let side = store.branch(DATABASE, "side").unwrap();
        let id = heat_and_commit(&side, round);
        gone.push((id, content(&side.state().head_root)));
        store.checkpoint().unwrap();
    }
    let copy = store.shared.journal.chunk_size() / 13;
    gc(&store, GcMode::Full, 0);
    let before = journal_size(&disk);
    store.delete_branch(DATABASE, "side").unwrap();
    gc(&store, GcMode::Full, 0);
    let after = journal_size(&disk);
    assert!(after + 9 * copy < before, "{before} bytes became {after}, the table has {copy}");
    // Commits stay, and who knows one's id can still ask for it.
    check_states(&store, &gone);
}

#[test]
fn enough_garbage_is_given_back_without_being_asked() {
    let disk = SimulatedDisk::default();
    drop(made_with(&disk, SEGMENT_SIZE).unwrap());
    let gain_min = 1 << 20;
    let with = OpenWith {
        disk: Arc::new(disk.clone()),
        journal: JournalOptions { group_commit: Duration::ZERO, segment_size: SEGMENT_SIZE, index_thread: true },
        checkpoint_row_count: u64::MAX,
        recovery_checkpoint_at: u64::MAX,
        compaction: Some(gain_min),
        derived: false,
        row_index: None,
    };
    let store = Store::open_with(Path::new("/data"), with).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    fill(&branch);
    let (mut states, mut largest) = (Vec::new(), 0);
    let deadline = Instant::now() + Duration::from_secs(120);
    // As long as it takes: checkpoints come faster than it looks.
    for round in 1.. {
        let id = heat_and_commit(&branch, round);
        states.push((id, content(&branch.state().head_root)));
        store.checkpoint().unwrap();
        let size = journal_size(&disk);
        if size < largest * 3 / 4 {
            assert!(largest > gain_min, "there was not so much after {round} rounds");
            break;
        }
        largest = largest.max(size);
        assert!(Instant::now() < deadline, "nothing was given back of {size} bytes");
    }
    drop(branch);
    store.close().unwrap();
    drop(store);
    check_clean(&disk);
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    check_states(&store, &states[states.len().saturating_sub(10)..]);
}

/// On a real disk, with threads that index, commit, read old commits and look for garbage all the time.
#[test]
fn readers_and_writers_go_on_while_space_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let open = || -> Result<Arc<Store>> {
        let with = OpenWith {
            disk: Arc::new(RealDisk),
            journal: JournalOptions { group_commit: Duration::from_millis(1), segment_size: SEGMENT_SIZE, index_thread: true },
            checkpoint_row_count: 2000,
            recovery_checkpoint_at: u64::MAX,
            compaction: None,
            derived: true,
            row_index: None,
        };
        Store::open_with_cache(folder.path(), with, 1 << 20)
    };
    let store = open().unwrap();
    store.create_database(DATABASE, meta("", 0)).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut make = branch.begin_apply(false).unwrap();
    make.put_table(crate::store::tests::table(TABLE, "t", true)).unwrap();
    make.put_table(crate::store::tests::table(crate::store::tests::KEYLESS, "k", false)).unwrap();
    make.commit(meta("tables", 1)).unwrap();
    fill(&branch);
    let states = parking_lot::Mutex::new(vec![(branch.state().head, content(&branch.state().head_root))]);
    let done = AtomicBool::new(false);
    let read = |random: u64, old: &mut Option<(Root, Model)>| {
        let (id, expected) = {
            let states = states.lock();
            states[random as usize % states.len()].clone()
        };
        let root = store.root(id).unwrap();
        assert!(content(&root) == expected, "commit {id:.12}");
        if let Some((root, expected)) = old.replace((root, expected)) {
            assert!(content(&root) == expected, "a root value held for a while");
        }
    };
    let rewritten = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (done, read) = (&done, &read);
            scope.spawn(move || {
                let mut old = None;
                let mut random = thread + 1;
                while !done.load(Ordering::Relaxed) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    read(random >> 33, &mut old);
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                rewritten.fetch_add(gc(&store, GcMode::Normal, 3000).rewritten_count, Ordering::Relaxed);
            }
        });
        // On a slow machine readers hold what they have read for many rounds.
        let deadline = Instant::now() + Duration::from_secs(60);
        let goes_on = |round: &u64| *round <= rounds() || (rewritten.load(Ordering::Relaxed) <= 10 && Instant::now() < deadline);
        for round in (1..).take_while(goes_on) {
            let id = if round % 4 == 0 { apply(&branch, round).unwrap().0 } else { heat_and_commit(&branch, round) };
            let state = branch.state();
            assert_eq!(state.head, id);
            states.lock().push((id, content(&state.head_root)));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(rewritten.load(Ordering::Relaxed) > 10, "{rewritten:?} segments rewritten");
    drop(branch);
    store.close().unwrap();
    drop(store);
    let report = crate::fsck::fsck_on(Arc::new(RealDisk), folder.path()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    check_states(&open().unwrap(), &states.into_inner());
}

fn rounds() -> u64 {
    if std::env::var("STRANDLINE_TEST_SCALE").as_deref() == Ok("full") { 3000 } else { 150 }
}
