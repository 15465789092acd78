//! Single flipped bits anywhere in a store: found by opening, reading or fsck, and never served.

use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::check::{Replay, check_clean, check_commit, check_row_history, is_clear};
use super::model::observe;
use super::workload::{DATABASE, Run, Workload, data, open_on};
use super::{case_count, replayed};
use crate::disk::SimulatedDisk;
use crate::disk::simulated::random_of;
use crate::error::{Error, Result};
use crate::fsck::fsck_on;

const STEP_COUNT: usize = 90;
/// Stores in which bits are flipped.
const STORE_COUNT: u64 = 10;

fn store(seed: u64) -> Run {
    let mut workload = Workload::new(seed);
    assert!(workload.go(STEP_COUNT) && workload.run.errors.is_empty(), "{:?}", workload.run.errors);
    let store = workload.store().expect("a store").clone();
    // Closed, or as a kill leaves it.
    if seed.is_multiple_of(2) {
        store.close().unwrap()
    } else {
        store.sync().unwrap()
    }
    let disk = workload.run.disk.copy();
    drop(store);
    let mut run = workload.finish();
    run.disk = disk;
    check_clean(&run.disk, "before a bit is flipped");
    run
}

/// Keeps damage that is named, and lets other errors through.
fn named(result: Result<()>, named: &mut Vec<String>) {
    match result {
        Ok(()) => {}
        Err(error @ (Error::Damaged { .. } | Error::Format { .. })) => {
            assert!(is_clear(&error), "{error:?}");
            named.push(error.to_string());
        }
        Err(error) => panic!("another error than damage: {error:?}"),
    }
}

fn check(run: &Run, seed: u64, n: u64) {
    let mut random = random_of(seed, n);
    let files = run.disk.content().files();
    let sizes: Vec<(String, usize)> = files
        .into_iter()
        .map(|(path, node)| (path.display().to_string(), run.disk.content().file(node).now.len()))
        .filter(|(_, size)| *size > 0)
        .collect();
    let total: usize = sizes.iter().map(|(_, size)| size).sum();
    // Small files get their share, too.
    let (name, size) = if random.random_ratio(1, 4) {
        sizes.choose(&mut random).expect("a file").clone()
    } else {
        let mut at = random.random_range(0..total);
        sizes.iter().find(|(_, size)| at.checked_sub(*size).map(|rest| at = rest).is_none()).expect("a file").clone()
    };
    let bit = random.random_range(0..size * 8);
    let _replay = Replay(format!("bit_flips:{seed}:{n}"));
    let image = SimulatedDisk::new(run.disk.content());
    image.flip(&name, bit);
    let found = look(run, &image, &name, &mut random);
    assert!(found, "nothing notices bit {} of byte {} of {name}", bit % 8, bit / 8);
}

fn look(run: &Run, image: &SimulatedDisk, name: &str, random: &mut impl Rng) -> bool {
    let mut damage = Vec::new();
    match fsck_on(Arc::new(image.clone()), data()) {
        Ok(report) => damage.extend(report.findings.iter().map(|finding| finding.what.clone())),
        Err(error) => named(Err(error), &mut damage),
    }
    // Indexes can be found again from the segments; that they answer right is what counts.
    let is_derived = name.contains("/row-index/") || name.ends_with(".idx") || name.ends_with(".commits");
    assert!(is_derived || !damage.is_empty(), "fsck finds nothing in {name}");
    let store = match open_on(image) {
        Ok(store) => store,
        Err(error) => {
            named(Err(error), &mut damage);
            return true;
        }
    };
    match observe(&store) {
        Ok(found) => assert!(found == **run.last(), "wrong data: {}", super::model::first_difference(run.last(), &found)),
        Err(error) => named(Err(error), &mut damage),
    }
    let head = run.last().databases[DATABASE].branches["main"].head;
    let line: Vec<_> = std::iter::successors(Some(head), |id| run.commits[id].parents.first().copied()).collect();
    for _ in 0..4 {
        named(check_commit(&store, run, *line.choose(&mut rand_of(random)).expect("a commit")), &mut damage);
        named(check_row_history(&store, run, head, random.random_range(0..50)), &mut damage);
    }
    is_derived || !damage.is_empty()
}

fn rand_of(random: &mut impl Rng) -> rand::rngs::StdRng {
    random_of(random.random(), 0)
}

#[test]
fn a_flipped_bit_is_named_and_never_served() {
    if let Some(numbers) = replayed("bit_flips") {
        if let [seed, n] = numbers[..] {
            check(&store(seed), seed, n);
        }
        return;
    }
    let wanted = case_count(100, 10_000) as u64;
    let store_count = STORE_COUNT.min(wanted / 25).max(1);
    for seed in 0..store_count {
        let run = store(seed);
        for n in 0..wanted.div_ceil(store_count) {
            check(&run, seed, n);
        }
    }
    println!("{wanted} flipped bits in {store_count} stores");
}
