//! A power loss, or a kill, after every operation of the workload.

use rand::Rng;

use super::check::{Depth, Replay, check_image};
use super::workload::{Run, Workload};
use super::{case_count, replayed};
use crate::disk::SimulatedDisk;
use crate::disk::simulated::content::Content;
use crate::disk::simulated::random_of;

const STEP_COUNT: usize = 90;
/// Images made at one operation when all are tried.
const IMAGE_COUNT: u64 = 5;

fn workload(seed: u64) -> Run {
    let mut workload = Workload::new(seed);
    assert!(workload.go(STEP_COUNT) && workload.run.errors.is_empty(), "{:?}", workload.run.errors);
    workload.check().unwrap();
    workload.finish()
}

/// Checks one image of the disk as it is after `at` changes.
fn check(run: &Run, content: &Content, seed: u64, at: usize, image: u64) {
    let place = (at as u64) << 8 | image;
    let mut random = random_of(seed, place);
    let disk = match image {
        0 => SimulatedDisk::new(content.clone()),
        1 => SimulatedDisk::new(content.without_unsynced()),
        _ => SimulatedDisk::new(content.after_power_loss(&mut random)),
    };
    let depth = Depth { fsck: random.random_ratio(1, 4), commit_count: 8, crash_count: random.random_range(0..3) };
    let _replay = Replay(format!("power_loss:{seed}:{at}:{image}"));
    check_image(run, disk, run.acknowledged_after(at), random.random(), depth);
}

#[test]
fn after_a_power_loss_at_any_moment_everything_acknowledged_is_there_and_nothing_is_half_there() {
    if let Some(numbers) = replayed("power_loss") {
        if let [seed, at, image] = numbers[..] {
            let run = workload(seed);
            let (mut content, operations) = run.disk.operations();
            operations[..at as usize].iter().for_each(|operation| content.apply(operation));
            check(&run, &content, seed, at as usize, image);
        }
        return;
    }
    let (few, all) = (120, 10_000);
    let wanted = case_count(few, all);
    let (mut done, mut recovered_count) = (0, 0);
    for seed in 0.. {
        let run = workload(seed);
        recovered_count += run.recovered_count;
        let (mut content, operations) = run.disk.operations();
        // Few of a run, spread over it, or every one.
        let stride = if wanted >= all { 1 } else { (operations.len() * 4 / wanted).max(1) };
        for (at, operation) in (1..).zip(&operations) {
            content.apply(operation);
            if at % stride != seed as usize % stride {
                continue;
            }
            // Where everything is synced there is one image.
            let images = match content.has_unsynced() {
                false => 0..1,
                true if wanted >= all => 0..IMAGE_COUNT,
                true => (at / stride) as u64 % IMAGE_COUNT..(at / stride) as u64 % IMAGE_COUNT + 1,
            };
            for image in images {
                check(&run, &content, seed, at, image);
                done += 1;
            }
            if done >= wanted {
                println!("{done} images of {} workloads with {recovered_count} checkpoints behind a replay", seed + 1);
                assert!(wanted < few || recovered_count > 0, "no opening has made a checkpoint");
                return;
            }
        }
    }
}
