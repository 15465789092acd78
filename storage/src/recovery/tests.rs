//! What opening replays, and the checkpoint behind a long replay.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Replayed;
use crate::disk::SimulatedDisk;
use crate::disk::simulated::random_of;
use crate::error::{Error, Result};
use crate::id::CommitId;
use crate::journal::JournalOptions;
use crate::row_index::RowIndexOptions;
use crate::store::tests::{DATABASE, Model, apply, content, made_with, meta};
use crate::store::{OpenWith, Store};

const SEGMENT_SIZE: u64 = 1 << 13;
const CHECKPOINT_AT: u64 = 40;

fn open(disk: &SimulatedDisk, recovery_checkpoint_at: u64) -> Result<Arc<Store>> {
    let with = OpenWith {
        disk: Arc::new(disk.clone()),
        // What nobody waits for is not written.
        journal: JournalOptions { group_commit: Duration::from_secs(86_400), segment_size: SEGMENT_SIZE, index_thread: false },
        checkpoint_row_count: u64::MAX,
        recovery_checkpoint_at,
        compaction: None,
        derived: false,
        row_index: Some(RowIndexOptions { entry_count: 1000, thread: false }),
    };
    Store::open_with(Path::new("/data"), with)
}

fn check_clean(disk: &SimulatedDisk) {
    let before = disk.change_count();
    let report = crate::fsck::fsck_on(Arc::new(disk.clone()), Path::new("/data")).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(disk.change_count(), before, "fsck has changed the disk");
}

fn state(store: &Store) -> (CommitId, Model) {
    let state = store.branch(DATABASE, "main").unwrap().state();
    (state.head, content(&state.head_root))
}

/// A disk as a kill leaves it after so many transactions, and the state.
fn killed(count: u64) -> (SimulatedDisk, (CommitId, Model)) {
    let disk = SimulatedDisk::default();
    drop(made_with(&disk, SEGMENT_SIZE).unwrap());
    let store = open(&disk, u64::MAX).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    for n in 1..=count {
        apply(&branch, n).unwrap();
    }
    store.sync().unwrap();
    let state = state(&store);
    drop((branch, store));
    (disk.after_kill(), state)
}

/// Kills a store after a few transactions, again and again; returns the most that an opening replayed, and the last disk.
fn kill_again_and_again(recovery_checkpoint_at: u64) -> (u64, SimulatedDisk) {
    let mut disk = SimulatedDisk::default();
    drop(made_with(&disk, SEGMENT_SIZE).unwrap());
    let (mut most, mut n, mut expected) = (0, 0, None);
    for _ in 0..60 {
        let store = open(&disk, recovery_checkpoint_at).unwrap();
        most = most.max(store.replayed.cost());
        if let Some(expected) = &expected {
            assert_eq!(state(&store), *expected);
        }
        let branch = store.branch(DATABASE, "main").unwrap();
        for _ in 0..3 {
            n += 1;
            apply(&branch, n).unwrap();
        }
        store.sync().unwrap();
        expected = Some(state(&store));
        disk = disk.after_kill();
    }
    (most, disk)
}

#[test]
fn who_is_killed_again_and_again_does_not_replay_more_and_more() {
    let (most, disk) = kill_again_and_again(CHECKPOINT_AT);
    // What three transactions are at most, and what the making of the tables was.
    assert!(most < CHECKPOINT_AT + 3 * 5 + 20, "{most}");
    check_clean(&disk);
    let (most, _) = kill_again_and_again(u64::MAX);
    assert!(most > 60 * 3 * 2, "the premise: without a checkpoint it is always more: {most}");
}

#[test]
fn a_checkpoint_behind_the_replay_leaves_nothing_to_replay_and_the_row_index_whole() {
    let (disk, expected) = killed(100);
    let store = open(&disk, CHECKPOINT_AT).unwrap();
    assert!(store.replayed.record_count >= 100 && store.replayed.change_count >= 300, "{:?}", store.replayed);
    assert_eq!(state(&store), expected);
    // Killed at once.
    let disk = disk.after_kill();
    let store = open(&disk, CHECKPOINT_AT).unwrap();
    // The checkpoint's own record.
    assert_eq!((store.replayed.record_count, store.replayed.change_count), (1, 0));
    assert_eq!(store.replayed_change_count(), 0);
    assert_eq!(state(&store), expected);
    let candidates = store.shared.row_index.find_xid(50);
    assert!(candidates.iter(u32::MAX).count() < 5, "commits are not in the row index: {candidates:?}");
    drop(store);
    check_clean(&disk);
}

#[test]
fn a_short_replay_writes_nothing() {
    let (disk, expected) = killed(5);
    let other = disk.after_kill();
    let store = open(&disk, CHECKPOINT_AT).unwrap();
    assert!(store.replayed.cost() > 0 && store.replayed.cost() < CHECKPOINT_AT, "{:?}", store.replayed);
    assert_eq!(state(&store), expected);
    drop((store, open(&other, u64::MAX).unwrap()));
    // No more than opening always does.
    assert_eq!(disk.change_count(), other.change_count());
}

#[test]
fn long_records_are_a_long_replay_too() {
    let disk = SimulatedDisk::default();
    let store = made_with(&disk, SEGMENT_SIZE).unwrap();
    for n in 0..10 {
        store.put_state(&format!("long {n}"), Some(&[b'x'; 2000])).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    let replayed = |disk: &SimulatedDisk| open(disk, CHECKPOINT_AT).unwrap().replayed;
    let first = replayed(&disk);
    assert!(first.change_count < CHECKPOINT_AT && first.record_size > 20_000, "{first:?}");
    assert_eq!(replayed(&disk), Replayed { record_count: 1, change_count: 0, ..replayed(&disk) });
    assert_eq!(open(&disk, CHECKPOINT_AT).unwrap().list_state("long").len(), 10);
}

#[test]
fn a_crash_at_any_moment_of_an_opening_that_makes_a_checkpoint_loses_nothing() {
    let (disk, expected) = killed(60);
    drop(open(&disk, CHECKPOINT_AT).unwrap());
    let (mut image, operations) = disk.operations();
    assert!(operations.len() > 6, "{}", operations.len());
    for at in 0..=operations.len() {
        for kind in 0..4 {
            let mut random = random_of(at as u64, kind);
            let disk = match kind {
                0 => SimulatedDisk::new(image.clone()),
                1 => SimulatedDisk::new(image.without_unsynced()),
                _ => SimulatedDisk::new(image.after_power_loss(&mut random)),
            };
            if kind == at as u64 % 4 {
                check_clean(&disk);
            }
            let store = open(&disk, CHECKPOINT_AT).unwrap();
            assert_eq!(state(&store), expected, "after {at} operations, image {kind}");
            apply(&store.branch(DATABASE, "main").unwrap(), 1000).unwrap();
            store.sync().unwrap();
            let after = state(&store);
            drop(store);
            let store = open(&disk, CHECKPOINT_AT).unwrap();
            assert_eq!(state(&store), after, "after {at} operations, image {kind}, opened again");
            assert!(store.replayed.cost() < CHECKPOINT_AT, "{:?}", store.replayed);
        }
        if let Some(operation) = operations.get(at) {
            image.apply(operation);
        }
    }
}

#[test]
fn where_the_checkpoint_cannot_be_written_the_store_is_open_for_reading() {
    let (disk, expected) = killed(60);
    let healthy = disk.copy();
    let before = healthy.operation_count();
    drop(open(&healthy, u64::MAX).unwrap());
    let without = healthy.operation_count() - before;
    let (size, mut refused) = (disk.content().size(), 0);
    for room in [0, 50, 500, 1500] {
        // As they are left to a new process: what was written and not synced by the one that was killed is still so.
        let full = disk.after_kill();
        full.set_capacity(Some(size + room));
        let store = open(&full, CHECKPOINT_AT).unwrap_or_else(|error| panic!("with {room} bytes of room: {error}"));
        assert!(full.was_full(), "{room} bytes are enough");
        assert_eq!(state(&store), expected);
        assert!(matches!(store.put_state("x", Some(b"y")), Err(Error::Stopped { .. })));
        drop(store);
        full.heal();
        let store = open(&full, CHECKPOINT_AT).unwrap();
        assert_eq!(state(&store), expected);
        store.put_state("x", Some(b"y")).unwrap();
        drop(store);
        check_clean(&full);
    }
    // Whichever operation fails, alone or with all that follow.
    for at in 0..without + 40 {
        for once in [true, false] {
            let bad = disk.after_kill();
            bad.fail_at(at, once);
            match open(&bad, CHECKPOINT_AT) {
                Ok(store) => assert_eq!(state(&store), expected, "{at}"),
                Err(error) => {
                    assert!(at < without && matches!(error, Error::Io { .. } | Error::Stopped { .. }), "{at}: {error:?}");
                    refused += 1;
                }
            }
            let bad = bad.after_kill();
            assert_eq!(state(&open(&bad, CHECKPOINT_AT).unwrap()), expected, "{at}");
        }
    }
    assert!(refused > 0, "the premise: opening itself can fail");
}

#[test]
fn a_branch_that_stands_still_is_in_the_checkpoint_too() {
    let (disk, expected) = killed(60);
    let store = open(&disk, u64::MAX).unwrap();
    store.create_branch(DATABASE, "still", expected.0, false).unwrap();
    let branch = store.branch(DATABASE, "still").unwrap();
    let base = branch.state();
    let mut edit = crate::edit::Edit::new(base.working.clone());
    edit.truncate(crate::store::tests::TABLE).unwrap();
    branch.commit_local(&base, edit, None).unwrap();
    apply(&store.branch(DATABASE, "main").unwrap(), 61).unwrap();
    store.sync().unwrap();
    let working = content(&branch.state().working);
    assert_ne!(working, expected.1);
    drop((branch, store));
    for _ in 0..3 {
        let store = open(&disk, CHECKPOINT_AT).unwrap();
        let state = store.branch(DATABASE, "still").unwrap().state();
        assert_eq!((state.head, content(&state.head_root)), expected);
        assert_eq!(content(&state.working), working);
        store.put_state("meta", Some(meta("", 0).message.as_bytes())).unwrap();
        store.sync().unwrap();
    }
    check_clean(&disk);
}
