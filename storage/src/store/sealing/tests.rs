//! What is beside sealed segments may be missing, damaged, old or another store's: the store is what its segments say.

use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::disk::SimulatedDisk;
use crate::error::Error;
use crate::id::{CommitId, Lsn, Timestamp};
use crate::journal::as_format_1;
use crate::store::Store;
use crate::store::tests::{DATABASE, Model, apply, content, history, made_with, open_on, reached};

const SEGMENT_SIZE: u64 = 1 << 11;

/// The names of the files with this ending, in order.
fn names(disk: &SimulatedDisk, ending: &str) -> Vec<String> {
    let files = disk.content().files();
    let names = files.iter().map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    names
}

/// Asks a store everything about a history.
fn check(store: &Store, states: &[(CommitId, Model)]) {
    let head = store.branch(DATABASE, "main").unwrap().state().head;
    assert_eq!(head, states.last().unwrap().0);
    for (n, (id, expected)) in states.iter().enumerate().rev() {
        assert_eq!(content(&store.root(*id).unwrap()), *expected, "{n}");
        assert_eq!(store.commits_by_prefix(&format!("{id:.20}")).unwrap(), [*id]);
        assert_eq!(store.ancestor(head, (states.len() - 1 - n) as u64).unwrap(), Some(*id));
        assert!(store.is_ancestor(*id, head).unwrap());
        if n > 0 {
            let n = n as u64 + 10;
            assert_eq!(store.commit_at_lsn(head, Lsn(n * 100 + 99)).unwrap(), Some(*id));
            assert_eq!(store.commit_of_xid(head, n as u32 + 700).unwrap(), Some(*id));
            assert_eq!(store.commit_at_time(head, Timestamp(n as i64 * 1000)).unwrap(), Some(*id));
        }
    }
    assert_eq!(store.log(&[head], &[]).unwrap().map(|commit| commit.unwrap().id).take(states.len()).count(), states.len());
}

fn open_and_check(disk: &SimulatedDisk, states: &[(CommitId, Model)]) {
    check(&open_on(disk, SEGMENT_SIZE, u64::MAX).unwrap(), states);
}

#[test]
fn opening_reads_no_frame_of_a_sealed_segment_that_a_checkpoint_covers() {
    let (disk, states) = history(SEGMENT_SIZE, 80);
    open_and_check(&disk, &states);
    assert!(names(&disk, ".seg").len() > 5);
    assert_eq!(names(&disk, ".idx").len(), names(&disk, ".seg").len() - 1);
    assert_eq!(names(&disk, ".commits").len(), names(&disk, ".seg").len() - 1);
    // Who reads the damaged frame is told; nobody else is.
    let size = disk.file("00000002.seg").unwrap().len();
    disk.flip("00000002.seg", 8 * size / 2);
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    assert_eq!(content(&store.branch(DATABASE, "main").unwrap().state().head_root), states.last().unwrap().1);
    assert!(states.iter().any(|(id, _)| matches!(store.commit(*id), Err(Error::Damaged { .. }))));
    // Without the index the frame must be read.
    disk.remove_file("00000002.idx");
    drop(store);
    assert!(matches!(open_on(&disk, SEGMENT_SIZE, u64::MAX), Err(Error::Damaged { .. })));
}

#[test]
fn a_missing_empty_shortened_or_damaged_index_is_made_again() {
    let (disk, states) = history(SEGMENT_SIZE, 60);
    let all: Vec<String> = [".idx", ".commits"].iter().flat_map(|ending| names(&disk, ending)).collect();
    let originals: Vec<Vec<u8>> = all.iter().map(|name| disk.file(name).unwrap()).collect();
    let without_any = disk.copy();
    for (name, original) in all.iter().zip(&originals) {
        without_any.remove_file(name);
        let missing = disk.copy();
        missing.remove_file(name);
        let mut images = vec![missing];
        for size in [0, 100, 4096, original.len() / 2, original.len() - 1] {
            let image = disk.copy();
            image.put_file(name, original[..size].to_vec());
            images.push(image);
        }
        let newer = disk.copy();
        newer.flip(name, 8 * 8);
        images.push(newer);
        for image in images {
            open_and_check(&image, &states);
            assert_eq!(image.file(name).as_ref(), Some(original), "{name}");
        }
        // A damaged block is noticed when something asks for it.
        for at in (4096..original.len()).step_by(509) {
            let image = disk.copy();
            image.flip(name, at * 8 + at % 8);
            open_and_check(&image, &states);
        }
    }
    let read_only = without_any.copy();
    let report = crate::fsck::fsck_on(Arc::new(read_only.clone()), Path::new("/data")).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(names(&read_only, ".idx").is_empty() && names(&read_only, ".commits").is_empty());
    open_and_check(&without_any, &states);
    for (name, original) in all.iter().zip(&originals) {
        assert_eq!(without_any.file(name).as_ref(), Some(original), "{name}");
    }
}

#[test]
fn a_block_that_goes_bad_is_made_again_when_it_is_asked_for() {
    let segment_size = 1 << 18;
    let disk = SimulatedDisk::default();
    let store = made_with(&disk, segment_size).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut ids = Vec::new();
    // Frames of one record each, so that the index of the records has several blocks.
    while names(&disk, ".seg").len() < 2 {
        let (id, position) = apply(&branch, ids.len() as u64 + 1).unwrap();
        store.wait_durable(position).unwrap();
        ids.push(id);
    }
    store.checkpoint().unwrap();
    drop((store, branch));
    for name in ["00000001.idx", "00000001.commits"] {
        let original = disk.file(name).unwrap();
        for at in [8192 + 10, 8192 + 3000] {
            let image = disk.copy();
            image.flip(name, at * 8 + 3);
            let store = open_on(&image, segment_size, u64::MAX).unwrap();
            assert_ne!(image.file(name).as_ref(), Some(&original), "opening does not read it");
            for id in &ids {
                assert_eq!(store.commit(*id).unwrap().id, *id);
            }
            assert_eq!(image.file(name).as_ref(), Some(&original), "{name}");
        }
        // Where the segment cannot be read, either, it is damage that is named.
        let image = disk.copy();
        image.flip(name, (8192 + 10) * 8);
        let size = image.file("00000001.seg").unwrap().len();
        image.flip("00000001.seg", size / 2 * 8);
        let store = open_on(&image, segment_size, u64::MAX).unwrap();
        assert!(ids.iter().any(|id| matches!(store.commit(*id), Err(Error::Damaged { .. }))));
    }
}

#[test]
fn an_index_of_another_store_another_segment_or_another_past_is_not_believed() {
    let (disk, states) = history(SEGMENT_SIZE, 60);
    // The same transactions with other checkpoints: other segments under the same names.
    let (other, _) = history(SEGMENT_SIZE, 50);
    for ending in [".idx", ".commits"] {
        let (ours, theirs) = (names(&disk, ending), names(&other, ending));
        for (n, name) in ours.iter().enumerate() {
            let original = disk.file(name).unwrap();
            let foreign = theirs.get(n).map(|name| other.file(name).unwrap());
            let neighbour = disk.file(&ours[(n + 1) % ours.len()]).unwrap();
            for stranger in [foreign, Some(neighbour)].into_iter().flatten() {
                let image = disk.copy();
                image.put_file(name, stranger);
                open_and_check(&image, &states);
                assert_eq!(image.file(name), Some(original.clone()), "{name}");
            }
        }
    }
    // Each is about its segment and right in itself, and the commits before are others.
    let commits = names(&disk, ".commits");
    let image = disk.copy();
    let mut foreign = disk.file(&commits[2]).unwrap();
    let entry = 16 + 5;
    foreign[entry] ^= 1;
    let crc = crc32c::crc32c(&foreign[..4092]);
    foreign[4092..4096].copy_from_slice(&crc.to_le_bytes());
    image.put_file(&commits[2], foreign);
    open_and_check(&image, &states);
}

#[test]
fn a_store_of_format_1_opens_and_goes_on_in_ours() {
    let (disk, states) = history(SEGMENT_SIZE, 60);
    for name in names(&disk, ".seg") {
        disk.put_file(&name, as_format_1(&disk.file(&name).unwrap()));
    }
    for name in [".idx", ".commits"].iter().flat_map(|ending| names(&disk, ending)) {
        disk.remove_file(&name);
    }
    disk.put_file("SYNCED", Vec::new());
    disk.put_file("FORMAT", b"strandline store, format 1\n".to_vec());
    let report = crate::fsck::fsck_on(Arc::new(disk.clone()), Path::new("/data")).unwrap();
    assert_eq!(disk.file("FORMAT").unwrap(), b"strandline store, format 1\n");
    assert!(report.findings.iter().all(|finding| finding.place.ends_with("SYNCED")), "{:?}", report.findings);
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    check(&store, &states);
    assert_eq!(disk.file("FORMAT").unwrap(), b"strandline store, format 2\n");
    let branch = store.branch(DATABASE, "main").unwrap();
    for n in 61..120 {
        apply(&branch, n).unwrap();
    }
    store.sync().unwrap();
    let expected = (branch.state().head, content(&branch.state().head_root));
    drop((store, branch));
    assert_eq!(reached(&disk, &[expected]), 1);
}

#[test]
fn power_may_fail_at_any_moment_of_sealing() {
    let disk = SimulatedDisk::default();
    // Every few transactions fill a segment.
    let store = made_with(&disk, 1 << 8).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut states = vec![(branch.state().head, content(&branch.state().head_root))];
    let mut durable_at = vec![disk.change_count()];
    for n in 1..25 {
        let (_, position) = apply(&branch, n).unwrap();
        store.wait_durable(position).unwrap();
        states.push((branch.state().head, content(&branch.state().head_root)));
        durable_at.push(disk.change_count());
        if n == 12 {
            store.checkpoint().unwrap();
        }
    }
    drop((store, branch));
    assert!(names(&disk, ".seg").len() > 8);
    let (mut now, operations) = disk.operations();
    let mut random = StdRng::seed_from_u64(7);
    for (n, operation) in operations.iter().enumerate() {
        now.apply(operation);
        let acknowledged = durable_at.partition_point(|at| *at <= n + 1);
        if acknowledged == 0 {
            continue;
        }
        let image = SimulatedDisk::new(now.clone()).after_power_loss(&mut random);
        assert!(reached(&image, &states) >= acknowledged, "after operation {n}");
        // Killed once more, now that the indexes are made.
        assert!(reached(&image.after_kill(), &states) >= acknowledged, "after operation {n}");
    }
}

#[test]
fn commits_are_found_while_their_segments_are_sealed_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let with = crate::store::OpenWith {
            disk: Arc::new(crate::disk::RealDisk),
            journal: crate::journal::JournalOptions {
                group_commit: std::time::Duration::ZERO,
                segment_size: SEGMENT_SIZE,
                index_thread: true,
            },
            checkpoint_row_count: 50,
            recovery_checkpoint_at: u64::MAX,
            compaction: None,
            derived: false,
            row_index: None,
        };
        Store::open_with(folder.path(), with).unwrap()
    };
    let store = open();
    store.create_database(DATABASE, crate::store::tests::meta("", 0)).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut first = branch.begin_apply(false).unwrap();
    first.put_table(crate::store::tests::table(16400, "t", true)).unwrap();
    first.put_table(crate::store::tests::table(16410, "k", false)).unwrap();
    first.commit(crate::store::tests::meta("tables", 1)).unwrap();
    let mut states = vec![(branch.state().head, content(&branch.state().head_root))];
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let head = branch.state().head;
                let log: Vec<_> = store.log(&[head], &[]).unwrap().map(|commit| commit.unwrap()).collect();
                for (back, commit) in log.iter().enumerate() {
                    assert_eq!(store.ancestor(head, back as u64).unwrap(), Some(commit.id));
                }
            }
        });
        for n in 1..300 {
            let (_, position) = apply(&branch, n).unwrap();
            if n % 5 == 0 {
                // Otherwise a slow disk takes all in few groups, each as large as many segments.
                store.wait_durable(position).unwrap();
            }
            states.push((branch.state().head, content(&branch.state().head_root)));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    check(&store, &states);
    drop((store, branch));
    let store = open();
    check(&store, &states);
    // Every full segment has its index, and memory holds what is in the last one only.
    let segments = std::fs::read_dir(folder.path().join(".strandline/journal")).unwrap();
    let segment_count = segments.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "seg")).count();
    let index = store.shared.index.read();
    assert!(segment_count > 8 && index.part_count() >= segment_count - 1, "{segment_count}");
    assert!(index.len() - index.sealed_len() < 60);
}
