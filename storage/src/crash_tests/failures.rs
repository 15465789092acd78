//! Operations that fail, and a disk that is full: the error is clear, nothing acknowledged is lost, and the store works
//! again when the disk does.

use rand::Rng;

use super::check::{Depth, Replay, check_image, is_clear};
use super::workload::{DATABASE, Run, Workload, open_on};
use super::{case_count, replayed};
use crate::disk::SimulatedDisk;
use crate::disk::simulated::fault::Kind;
use crate::disk::simulated::random_of;
use crate::error::Error;
use crate::store::tests::meta;

const STEP_COUNT: usize = 70;
const DEPTH: Depth = Depth { fsck: false, commit_count: 5, crash_count: 0 };

/// What the run left is looked at: as the next process finds it, and after a power loss on top.
fn check_after(run: &Run, seed: u64) {
    assert!(run.errors.iter().all(is_clear), "{:?}", run.errors);
    let acknowledged = run.acknowledged_after(usize::MAX);
    let mut random = random_of(seed, 4);
    let fsck = random.random_ratio(1, 4);
    check_image(run, run.disk.after_kill(), acknowledged, random.random(), Depth { fsck, crash_count: 1, ..DEPTH });
    check_image(run, run.disk.without_unsynced(), acknowledged, random.random(), Depth { fsck, ..DEPTH });
    check_image(run, run.disk.after_power_loss(&mut random), acknowledged, random.random(), DEPTH);
}

/// Runs with a disk that does something bad, then sees that a store that has stopped stays so.
fn run_on_bad_disk(seed: u64, spoil: impl FnOnce(&SimulatedDisk)) -> Run {
    let mut workload = Workload::new(seed);
    spoil(&workload.run.disk);
    workload.go(STEP_COUNT);
    workload.run.disk.heal();
    let has_stopped = workload.run.errors.iter().any(|error| matches!(error, Error::Stopped { .. }));
    if let Some(store) = workload.store() {
        let before = workload.run.disk.change_count();
        if has_stopped {
            // No write and no sync is tried again, though the disk is well by now.
            for _ in 0..2 {
                assert!(matches!(store.put_state("x", Some(b"y")), Err(Error::Stopped { .. })));
                assert!(matches!(store.sync(), Err(Error::Stopped { .. })));
                if let Ok(branch) = store.branch(DATABASE, "main") {
                    let commit = branch.begin_apply(false).unwrap().commit(meta("refused", 0));
                    assert!(matches!(commit, Err(Error::Stopped { .. })), "{commit:?}");
                }
            }
            assert_eq!(workload.run.disk.change_count(), before, "a stopped store has written");
        }
        // What failed has changed nothing in memory either.
        workload.check().unwrap();
    }
    workload.finish()
}

fn fail_at(seed: u64, n: u64, once: bool) -> Option<Kind> {
    let _replay = Replay(format!("failures:{seed}:{n}:{}", u64::from(once)));
    let run = run_on_bad_disk(seed, |disk| disk.fail_at(n, once));
    let failed = run.disk.failed();
    check_after(&run, seed ^ n);
    failed
}

#[test]
fn whichever_disk_operation_fails_the_error_is_clear_and_nothing_acknowledged_is_lost() {
    if let Some(numbers) = replayed("failures") {
        if let [seed, n, once] = numbers[..] {
            fail_at(seed, n, once == 1);
        }
        return;
    }
    let (few, all) = (60, 2000);
    let wanted = case_count(few, all);
    let mut kinds = std::collections::BTreeMap::new();
    let mut done = 0;
    for seed in 0.. {
        let healthy = run_on_bad_disk(seed, |_| {});
        assert!(healthy.errors.is_empty(), "{:?}", healthy.errors);
        let operation_count = healthy.disk.operation_count();
        let stride = if wanted >= all { 1 } else { (operation_count * 2 / wanted as u64).max(1) };
        for n in 0..operation_count {
            if n % stride != 0 {
                continue;
            }
            for once in [false, true] {
                if let Some(kind) = fail_at(seed, n, once) {
                    *kinds.entry(format!("{kind:?}")).or_insert(0) += 1;
                }
                done += 1;
            }
        }
        if done >= wanted {
            println!("{done} failures of {} workloads: {kinds:?}", seed + 1);
            return;
        }
    }
}

/// The room that the workload needed, in bytes, if that was less than `capacity` this time: its background work decides.
fn fill_up(seed: u64, capacity: u64) -> Option<u64> {
    let _replay = Replay(format!("disk_full:{seed}:{capacity}"));
    let run = run_on_bad_disk(seed, |disk| disk.set_capacity(Some(capacity)));
    if run.errors.is_empty() {
        // At most a derived file met the limit, which is made again: nothing is lost, and nobody needs to be told.
        check_image(&run, run.disk.after_kill(), run.acknowledged_after(usize::MAX), seed, DEPTH);
        return Some(run.disk.size_max());
    }
    assert!(run.disk.was_full(), "{:?}", run.errors);
    let told = run.errors.iter().any(|error| match error {
        Error::Io { source, .. } => source.raw_os_error() == Some(libc::ENOSPC),
        Error::Stopped { why } => why.contains("No space left"),
        _ => false,
    });
    assert!(told, "{:?}", run.errors);
    // While it is full the store opens, to be read, or says why not; and loses nothing.
    let full = run.disk.copy();
    full.set_capacity(Some(capacity));
    if let Err(error) = open_on(&full) {
        assert!(is_clear(&error) && matches!(error, Error::Io { .. }), "{error:?}");
    }
    let acknowledged = run.acknowledged_after(usize::MAX);
    check_image(&run, full.after_kill(), acknowledged, seed, DEPTH);
    check_after(&run, seed ^ capacity);
    None
}

#[test]
fn on_a_full_disk_the_store_says_so_and_loses_nothing() {
    if let Some(numbers) = replayed("disk_full") {
        if let [seed, capacity] = numbers[..] {
            fill_up(seed, capacity);
        }
        return;
    }
    let wanted = case_count(12, 50) as u64;
    let mut healthy = Workload::new(0);
    healthy.go(STEP_COUNT);
    let size = healthy.run.disk.size_max();
    for point in 0..wanted {
        let mut capacity = size * point / wanted;
        // Every point fills a disk: where this run needed less, the same share of that is less still.
        while let Some(needed) = fill_up(0, capacity) {
            capacity = needed.min(capacity) * point / wanted;
        }
    }
    println!("{wanted} points of {size} bytes");
}
