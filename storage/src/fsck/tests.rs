//! Damaged stores: what checking says of them, and what repairing saves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::repair::repair_on;
use super::*;
use crate::commit::Identity;
use crate::disk::SimulatedDisk;
use crate::id::Timestamp;
use crate::store::Store;
use crate::store::tests::{DATABASE, Model, TABLE, apply, content, made_with, open_on, row};

const SEGMENT_SIZE_OF_TESTS: u64 = 1 << 12;

/// A store to be damaged, and what it holds.
struct Made {
    disk: SimulatedDisk,
    /// Every commit's content, in the order of the journal, and its message.
    commits: Vec<(CommitId, Model, String)>,
    main: CommitId,
    side: CommitId,
    working: Model,
}

/// Two branches, a tag, small state, changes of a working set, two checkpoints and a tail, over several segments.
fn make() -> Made {
    let disk = SimulatedDisk::default();
    let store = made_with(&disk, SEGMENT_SIZE_OF_TESTS).unwrap();
    let main = store.branch(DATABASE, "main").unwrap();
    let mut side = None;
    for n in 1..=60 {
        let (id, position) = apply(&main, n).unwrap();
        store.wait_durable(position).unwrap();
        if n == 20 {
            store.create_branch(DATABASE, "side", id, false).unwrap();
            side = Some(store.branch(DATABASE, "side").unwrap());
            let tag = crate::store::Tag {
                name: "v1".into(),
                commit: id,
                tagger: Identity::default(),
                time: Timestamp(5),
                message: "first".into(),
            };
            store.create_tag(DATABASE, tag).unwrap();
        }
        if let Some(side) = side.as_ref().filter(|_| n % 10 == 5) {
            let (_, position) = apply(side, 1000 + n).unwrap();
            store.wait_durable(position).unwrap();
        }
        if n == 15 || n == 45 {
            store.put_state("roles/x", Some(b"1")).unwrap();
            store.checkpoint().unwrap();
            store.sync().unwrap();
        }
    }
    let side = side.unwrap();
    let mut edit = crate::edit::Edit::new(side.state().working);
    edit.insert(TABLE, row(5000, "not committed")).unwrap();
    side.commit_local(&side.state(), edit, None).unwrap();
    store.sync().unwrap();
    let mut commits = Vec::new();
    for number in 0..store.shared.index.read().len() {
        let commit = store.shared.commit_numbered(number).unwrap();
        commits.push((commit.id, content(&store.root(commit.id).unwrap()), commit.meta.message.clone()));
    }
    let made =
        Made { main: main.state().head, side: side.state().head, working: content(&side.state().working), disk: disk.clone(), commits };
    drop((store, main, side));
    assert!(check_image(&made.disk).findings.is_empty());
    made
}

fn check_image(disk: &SimulatedDisk) -> FsckReport {
    fsck_on(Arc::new(disk.clone()), Path::new("/data")).unwrap()
}

fn segments(disk: &SimulatedDisk) -> Vec<String> {
    (1..).map(|n| format!("journal/{n:08}.seg")).take_while(|name| disk.file(name).is_some()).collect()
}

/// Repairs a damaged image and checks that what is there is right, that what is not there is told, and that the damaged files are kept.
/// Returns the report and the repaired store.
fn repaired(made: &Made, image: &SimulatedDisk, what: &str) -> (RepairReport, Arc<Store>) {
    let before: Vec<(String, Vec<u8>)> =
        segments(&made.disk).into_iter().filter_map(|name| image.file(&name).map(|bytes| (name, bytes))).collect();
    let report = repair_on(Arc::new(image.clone()), Path::new("/data")).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let after = report.after.as_ref().unwrap_or_else(|| panic!("{what}: nothing was found"));
    assert!(after.findings.is_empty(), "{what}: {:?}\n{:?}", after.findings, report.losses);
    for (name, bytes) in before {
        let kept = name.replace("journal/", "journal.damaged-1/");
        assert_eq!(image.file(&kept).as_ref(), Some(&bytes), "{what}: {kept}");
    }
    assert!(check_image(image).findings.is_empty(), "{what}");
    let store = open_on(image, SEGMENT_SIZE_OF_TESTS, u64::MAX).unwrap();
    let renamed: HashMap<CommitId, CommitId> = report.renamed_commits.iter().copied().collect();
    let mut lost = BTreeSet::new();
    for (id, expected, message) in &made.commits {
        let here = renamed.get(id).unwrap_or(id);
        match store.commit(*here) {
            Ok(commit) => {
                assert_eq!(&commit.meta.message, message, "{what}");
                assert_eq!(&content(&store.root(*here).unwrap()), expected, "{what}: {message}");
            }
            Err(_) => drop(lost.insert(*id)),
        }
    }
    // What is lost is told, by name wherever anything names it.
    let named: BTreeSet<CommitId> = report.lost_commits.iter().copied().collect();
    assert!(named.is_subset(&lost), "{what}");
    assert!(lost.is_empty() || !report.losses.is_empty(), "{what}");
    if report.before.commit_count as usize == made.commits.len() {
        assert_eq!(named, lost, "{what}");
    }
    (report, store)
}

/// Where the frame of each commit lies: (segment, offset, size, commit).
fn commit_frames(made: &Made) -> Vec<(String, usize, usize, CommitId)> {
    let mut found = Vec::new();
    let mut next = 0;
    for name in segments(&made.disk) {
        let bytes = made.disk.file(&name).unwrap();
        scan(&bytes, &mut next, |offset, header, payload| {
            if header.kind == FrameKind::Log {
                let frame = LogFrame::decode(header.sequence, header.record_count, header.body(payload).unwrap()).unwrap();
                for (_, record) in frame.iter() {
                    if let Some(commit) = crate::record::commit_bytes(&record).unwrap() {
                        found.push((name.clone(), offset as usize, header.frame_size(), CommitId::of(&commit)));
                    }
                }
            }
            Ok::<(), Error>(())
        })
        .unwrap();
    }
    found
}

fn with_byte(disk: &SimulatedDisk, name: &str, at: usize) -> SimulatedDisk {
    let image = disk.copy();
    image.flip(name, at * 8 + at % 8);
    image
}

#[test]
fn checking_changes_nothing_on_the_disk() {
    let made = make();
    let last = segments(&made.disk).pop().unwrap();
    let torn = made.disk.copy();
    let mut bytes = torn.file(&last).unwrap();
    bytes.extend([7; 100]);
    torn.put_file(&last, bytes);
    for image in [made.disk.copy(), torn, with_byte(&made.disk, &last, made.disk.file(&last).unwrap().len() / 2)] {
        let before = image.change_count();
        check_image(&image);
        assert_eq!(image.change_count(), before);
    }
}

#[test]
fn a_whole_store_is_not_repaired() {
    let made = make();
    let before = made.disk.change_count();
    let report = repair_on(Arc::new(made.disk.clone()), Path::new("/data")).unwrap();
    assert!(report.after.is_none() && report.kept.is_none() && report.losses.is_empty());
    // The lock's folder is made sure of; no file is touched.
    let (_, operations) = made.disk.operations();
    let touching = operations[before..].iter().filter(|o| !matches!(o, crate::disk::simulated::content::Operation::SyncDir(_)));
    assert_eq!(touching.count(), 0);
}

#[test]
fn a_damaged_commit_is_named_and_everything_below_and_beside_it_is_as_it_was() {
    let made = make();
    let frames = commit_frames(&made);
    assert!(frames.len() > 60 && segments(&made.disk).len() > 3);
    let last_checkpoint = made.commits.iter().position(|(_, _, message)| message == "transaction 45").unwrap();
    for (at, (name, offset, size, id)) in frames.iter().enumerate().step_by(5) {
        let what = format!("commit {at}, {:?}", made.commits[at].2);
        let (report, store) = repaired(&made, &with_byte(&made.disk, name, offset + size - 1), &what);
        assert!(report.lost_commits.contains(id) || report.before.commit_count == 0, "{what}: {:?}", report.losses);
        for (below, ..) in &made.commits[..at] {
            assert!(store.commit(*below).is_ok(), "{what}");
        }
        let main = store.branch(DATABASE, "main").unwrap().state();
        if at <= last_checkpoint {
            // The checkpoint after it says what the lost commit did.
            assert_eq!(content(&main.head_root), content_of(&made, made.main), "{what}");
            let side = store.branch(DATABASE, "side").unwrap().state();
            assert_eq!(content(&side.head_root), content_of(&made, made.side), "{what}");
            assert_eq!(content(&side.working), made.working, "{what}");
            assert_eq!(store.get_state("roles/x").as_deref(), Some(&b"1"[..]), "{what}");
        } else if report.renamed_commits.is_empty() {
            // The branch ends before it; the other one goes on.
            let side = store.branch(DATABASE, "side").unwrap().state();
            assert!(main.head == made.main || side.head == made.side, "{what}");
        }
        // The store can be written again.
        let branch = store.branch(DATABASE, "main").unwrap();
        apply(&branch, 77).unwrap();
        store.close().unwrap();
    }
}

fn content_of(made: &Made, id: CommitId) -> Model {
    made.commits.iter().find(|(commit, ..)| *commit == id).unwrap().1.clone()
}

#[test]
fn a_flipped_bit_anywhere_is_repaired() {
    let made = make();
    let mut bytes_lost = BTreeMap::new();
    let step = match std::env::var("STRANDLINE_TEST_SCALE").as_deref() {
        Ok("full") => 7,
        _ => 1201,
    };
    for name in segments(&made.disk) {
        let size = made.disk.file(&name).unwrap().len();
        for at in (0..size).step_by(step) {
            let image = with_byte(&made.disk, &name, at);
            match fsck_on(Arc::new(image.clone()), Path::new("/data")) {
                // A flipped bit in a version number looks like a newer version.
                Err(Error::Format { .. }) => continue,
                other => assert!(!other.unwrap().findings.is_empty(), "{name} at {at}"),
            }
            let (report, _) = repaired(&made, &image, &format!("{name} at {at}"));
            *bytes_lost.entry(report.lost_commits.len()).or_insert(0) += 1;
        }
    }
    assert!(bytes_lost.contains_key(&0) && bytes_lost.contains_key(&1), "{bytes_lost:?}");
}

#[test]
fn cut_and_missing_segments_cost_what_was_in_them() {
    let made = make();
    let names = segments(&made.disk);
    let mut images = Vec::new();
    for name in &names {
        let bytes = made.disk.file(name).unwrap();
        for size in [0, 16, 40, bytes.len() / 2, bytes.len() - 1] {
            let image = made.disk.copy();
            image.put_file(name, bytes[..size].to_vec());
            images.push((format!("{name} cut to {size}"), image));
        }
        let image = made.disk.copy();
        image.remove_file(name);
        images.push((format!("{name} missing"), image));
    }
    for (what, image) in images.iter().step_by(3) {
        let (report, store) = repaired(&made, image, what);
        assert!(!report.losses.is_empty() || report.lost_commits.is_empty(), "{what}");
        match store.branch(DATABASE, "main") {
            Ok(main) => {
                let head = main.state();
                let whole = content(&head.head_root) == content_of(&made, made.main);
                assert!(whole || !report.losses.is_empty(), "{what}");
            }
            // Without its beginning and the catalog in it nothing can be made of the rest.
            Err(_) => assert!(what.contains(&names[0]) && !report.losses.is_empty(), "{what}"),
        }
    }
}

#[test]
fn a_lost_mark_or_format_is_made_again_and_nothing_is_lost() {
    let made = make();
    for name in ["SYNCED", "FORMAT"] {
        for how in ["missing", "garbage"] {
            let image = made.disk.copy();
            match how {
                "missing" => image.remove_file(name),
                _ => image.put_file(name, b"garbage, and more of it".to_vec()),
            }
            assert!(!check_image(&image).findings.is_empty(), "{name} {how}");
            let (report, store) = repaired(&made, &image, &format!("{name} {how}"));
            assert!(report.losses.is_empty() && report.lost_commits.is_empty() && report.renamed_commits.is_empty(), "{:?}", report.losses);
            assert_eq!(store.branch(DATABASE, "main").unwrap().state().head, made.main);
            assert_eq!(store.tags(DATABASE).unwrap().len(), 1);
        }
    }
}

#[test]
fn a_repair_may_be_interrupted_anywhere_and_run_again() {
    let made = make();
    let (name, offset, size, _) = commit_frames(&made)[40].clone();
    let damaged = with_byte(&made.disk, &name, offset + size - 1);
    let expected = {
        let (report, _) = repaired(&made, &damaged.copy(), "not interrupted");
        report.renamed_commits
    };
    let mut n = 0;
    loop {
        let image = damaged.copy();
        image.fail_at(n, false);
        let result = repair_on(Arc::new(image.clone()), Path::new("/data"));
        let image = image.without_unsynced();
        if result.is_ok() {
            break;
        }
        match open_on(&image, SEGMENT_SIZE_OF_TESTS, u64::MAX) {
            // Exchanged already, or not begun: damage is refused, a repaired store opens.
            Ok(_) | Err(Error::Damaged { .. }) => {}
            Err(error) => panic!("{n}: {error:?}"),
        }
        let again = repair_on(Arc::new(image.clone()), Path::new("/data")).unwrap();
        if again.after.is_some() {
            assert_eq!(again.renamed_commits, expected, "{n}");
        }
        let store = open_on(&image, SEGMENT_SIZE_OF_TESTS, u64::MAX).unwrap();
        let main = store.branch(DATABASE, "main").unwrap().state();
        assert_eq!(content(&main.head_root), content_of(&made, made.main), "{n}");
        n += 1 + n / 4;
    }
    assert!(n > 30);
}
