//! Every question is put to an index in memory, to one in files, and to one that is both.

use std::path::Path;

use super::*;
use crate::disk::SimulatedDisk;

/// The index of the same commits with files for those before each of these numbers in turn.
fn sealed_at(index: &CommitIndex, ends: &[CommitNumber]) -> CommitIndex {
    let disk = SimulatedDisk::default();
    let mut sealed = CommitIndex::default();
    for (end, segment) in ends.iter().zip(1..) {
        let first = sealed.len();
        fill(&mut sealed, index, *end);
        let mut contents = PartContents { first, first_sequence: u64::from(first) * 2, ..PartContents::default() };
        sealed.copy_tail(first..*end, &mut contents);
        let subject = subject(&[segment as u8; 32], first, sealed.last_sealed());
        SealedCommits::write(Some(&disk), Path::new("/"), segment, contents.encode(&subject)).unwrap();
        let commits = SealedCommits::open(&disk, Path::new("/"), segment, &subject).unwrap();
        drop(sealed.seal(commits));
    }
    fill(&mut sealed, index, index.len());
    sealed
}

/// Enters the commits of another index up to a number.
fn fill(to: &mut CommitIndex, from: &CommitIndex, end: CommitNumber) {
    for number in to.len()..end {
        let entry = from.entry(number).unwrap();
        let CommitEntry { id, sequence, height, lsn, xid, time, touched, .. } = entry;
        let commit = NewCommit { id, sequence, height, lsn, xid, time, touched };
        to.insert(&commit, &from.parents(number).unwrap()).unwrap();
    }
}

/// The index as it is, with all in files, and with some in each.
fn variants(index: CommitIndex) -> Vec<CommitIndex> {
    let len = index.len();
    let cuts = [vec![len], vec![len / 3], vec![0, 1, len / 2, len / 2, len - 1], vec![len / 7 * 3, len / 7 * 5]];
    let mut variants: Vec<_> = cuts.iter().map(|ends| sealed_at(&index, ends)).collect();
    variants.push(index);
    variants
}

fn add(index: &mut CommitIndex, n: u64, parents: &[CommitNumber], time: i64) -> CommitNumber {
    let height = parents.iter().map(|p| index.entry(*p).unwrap().height).max().unwrap_or(0) + 1;
    let id = CommitId::of(&n.to_le_bytes());
    let lsn = if n.is_multiple_of(3) { Lsn(u64::MAX) } else { Lsn(n * 10) };
    index.insert(&NewCommit { id, sequence: n * 2, height, lsn, xid: n as u32, time: Timestamp(time), touched: 1 }, parents).unwrap()
}

fn line(count: u64) -> CommitIndex {
    let mut index = CommitIndex::default();
    for n in 0..count {
        // Times that go up and down a little.
        let time = (n as i64) * 10 + [0, 25, -25, 7][n as usize % 4];
        let parent: Vec<u32> = n.checked_sub(1).map(|p| p as u32).into_iter().collect();
        add(&mut index, n, &parent, time);
    }
    index
}

#[test]
fn searches_on_a_line_find_what_a_walk_finds() {
    let index = line(3000);
    let head = 2999;
    for index in variants(index) {
        let walk = |ok: &dyn Fn(&CommitEntry) -> bool| (0..=head).rev().find(|n| ok(&index.entry(*n).unwrap()));
        for probe in (0..30_100).step_by(37) {
            assert_eq!(index.at_lsn(head, Lsn(probe)).unwrap(), walk(&|e| e.lsn.0 <= probe), "lsn {probe}");
            let time = Timestamp(probe as i64 - 30);
            assert_eq!(index.at_time(head, time).unwrap(), walk(&|e| e.time <= time), "time {time:?}");
        }
        assert_eq!(index.at_lsn(head, Lsn(u64::MAX)).unwrap(), walk(&|e| e.lsn.0 != u64::MAX));
        assert_eq!(index.of_lsn(Lsn(10_000)).unwrap(), [1000]);
        assert_eq!(index.of_lsn(Lsn(10_005)).unwrap(), [] as [u32; 0]);
        for distance in [0, 1, 2, 17, 2998, 2999] {
            assert_eq!(index.ancestor(head, distance).unwrap(), Some(head - distance as u32));
        }
        assert_eq!(index.ancestor(head, 3000).unwrap(), None);
        assert!(index.is_ancestor(5, 2000).unwrap() && !index.is_ancestor(2000, 5).unwrap() && index.is_ancestor(5, 5).unwrap());
        assert_eq!(index.line_not_after(2500, 700).unwrap(), Some(700));
    }
}

#[test]
fn jumps_on_a_line_follow_from_the_depth() {
    let index = line(3000);
    for number in 0..3000 {
        let entry = index.entry(number).unwrap();
        let jump = if entry.jump == NONE { 0 } else { u64::from(number - entry.jump) };
        assert_eq!(entry::line_jump(entry.depth), jump, "{number}");
    }
}

#[test]
fn lsns_are_found_in_parts_that_are_lines_and_in_others() {
    // A branch that begins in the first part and goes on in the second; LSNs that go back where the third begins.
    let mut index = CommitIndex::default();
    for n in 0..900u64 {
        let parent = if n == 450 { Some(100) } else { n.checked_sub(1).map(|parent| parent as u32) };
        let lsn = if n < 600 { n * 100 } else { n * 100 - 5000 };
        let height = parent.map_or(0, |parent| index.entry(parent).unwrap().height) + 1;
        let id = CommitId::of(&n.to_le_bytes());
        let commit = NewCommit { id, sequence: n, height, lsn: Lsn(lsn), xid: n as u32, time: Timestamp(n as i64), touched: 1 };
        index.insert(&commit, &Vec::from_iter(parent)).unwrap();
    }
    let line: Vec<CommitNumber> = std::iter::successors(Some(899), |number| index.first_parent(*number).unwrap()).collect();
    for ends in [vec![300, 600, 700], vec![600], vec![601, 899], vec![900]] {
        let sealed = sealed_at(&index, &ends);
        assert!(sealed.stretches.iter().zip(&sealed.parts).all(|(stretch, part)| {
            let (first, end) = (part.commits.first, part.commits.end());
            stretch.is_even != (first..end).any(|n| n == 450 || n == 600 && first < 600)
        }));
        for head in [899, 650, 599, 449, 10] {
            let line = line.iter().filter(|n| **n <= head).copied().collect::<Vec<_>>();
            let line = if head == 449 { (0..450).rev().collect() } else { line };
            for lsn in (0..90_000).step_by(130) {
                let walked = line.iter().copied().find(|n| sealed.entry(*n).unwrap().lsn.0 <= lsn);
                assert_eq!(sealed.at_lsn(head, Lsn(lsn)).unwrap(), walked, "{lsn} from {head}");
            }
        }
    }
}

#[test]
fn questions_about_any_history_are_answered_as_by_walking() {
    for seed in 1..12u64 {
        let mut state = seed;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut index = CommitIndex::default();
        for n in 0..400u64 {
            // Lines, forks, merges, and now and then another root; times and LSNs that ascend more or less, or not at all.
            let mut parents = Vec::new();
            if n > 0 && random(60) > 0 {
                parents.push(if random(5) > 0 { n - 1 } else { random(n) } as u32);
                if random(8) == 0 {
                    for _ in 0..=random(3) {
                        let other = random(n) as u32;
                        parents.extend((!parents.contains(&other)).then_some(other));
                    }
                }
            }
            let height = parents.iter().map(|p| index.entry(*p).unwrap().height).max().unwrap_or(0) + 1;
            let time = [n * 10 + random(30), random(4000), u64::MAX / 3][(seed % 3) as usize] as i64 - 2000;
            let lsn = if random(seed) > 2 { Lsn(u64::MAX) } else { Lsn([n * 10 + random(40), random(1 << 40)][(seed % 2) as usize]) };
            let commit = NewCommit {
                id: CommitId::of(&n.to_le_bytes()),
                sequence: n * 3 + seed % 3,
                height,
                lsn,
                xid: random(90) as u32,
                time: Timestamp(time),
                touched: n as u32,
            };
            assert_eq!(index.insert(&commit, &parents).unwrap(), n as u32);
            // Once more is no more.
            assert_eq!(index.insert(&commit, &parents).unwrap(), n as u32);
        }
        let variants = variants(index);
        let model = variants.last().unwrap();
        let line = |head| std::iter::successors(Some(head), |n| model.first_parent(*n).unwrap());
        for index in &variants {
            assert_eq!(index.len(), 400);
            for number in 0..400 {
                assert_eq!(index.entry(number).unwrap(), model.entry(number).unwrap(), "seed {seed}");
                assert_eq!(index.parents(number).unwrap(), model.parents(number).unwrap());
                assert_eq!(index.find(&model.entry(number).unwrap().id).unwrap(), Some(number));
            }
            for _ in 0..150 {
                let head = random(400) as u32;
                let walk = |ok: &dyn Fn(&CommitEntry) -> bool| line(head).find(|n| ok(&model.entry(*n).unwrap()));
                let time = Timestamp(random(4500) as i64 - 2050);
                assert_eq!(index.at_time(head, time).unwrap(), walk(&|e| e.time <= time), "seed {seed}");
                let lsn = Lsn(random(if seed % 2 == 0 { 4500 } else { 1 << 40 }));
                assert_eq!(index.at_lsn(head, lsn).unwrap(), walk(&|e| e.lsn <= lsn), "seed {seed}");
                let lsn = model.entry(random(400) as u32).unwrap().lsn;
                let is_wanted = |e: &CommitEntry| e.has_source() && e.lsn == lsn;
                let wanted: Vec<u32> = (0..400).rev().filter(|n| is_wanted(&model.entry(*n).unwrap())).collect();
                assert_eq!(index.of_lsn(lsn).unwrap(), wanted, "seed {seed}");
                let distance = random(100);
                assert_eq!(index.ancestor(head, distance).unwrap(), line(head).nth(distance as usize));
                let other = random(400) as u32;
                let place = line(head).position(|n| n == other).map(|at| at as u64);
                assert_eq!(index.line_distance(head, other).unwrap(), place);
                let mut reached = HashSet::new();
                let mut open = vec![head];
                while let Some(number) = open.pop() {
                    if reached.insert(number) {
                        open.extend(model.parents(number).unwrap());
                    }
                }
                assert_eq!(index.is_ancestor(other, head).unwrap(), reached.contains(&other));
            }
        }
    }
}

#[test]
fn what_is_sealed_leaves_memory_and_the_rest_stays_where_it_is_found() {
    let model = line(10_000);
    let mut index = CommitIndex::default();
    fill(&mut index, &model, 10_000);
    // Sealed while later ones are in memory already, and less than all blocks of memory at a time.
    for (segment, end) in [(1, 3000), (2, 5000), (3, 9500)] {
        let first = index.sealed_len();
        let mut contents = PartContents { first, first_sequence: u64::from(first) * 2, ..PartContents::default() };
        index.copy_tail(first..end, &mut contents);
        let subject = subject(&[segment as u8; 32], first, index.last_sealed());
        let commits = SealedCommits::write(None, Path::new("/"), segment, contents.encode(&subject)).unwrap();
        drop(index.seal(commits));
        for number in 0..10_000 {
            let entry = model.entry(number).unwrap();
            assert_eq!(index.entry(number).unwrap(), entry);
            assert_eq!(index.find(&entry.id).unwrap(), Some(number));
            if entry.has_source() {
                assert_eq!(index.of_lsn(entry.lsn).unwrap(), [number]);
            }
        }
    }
}

#[test]
fn ids_are_found_whole_and_by_prefix() {
    for index in variants(line(3000)) {
        for n in [0u64, 1, 1023, 2999] {
            let id = CommitId::of(&n.to_le_bytes());
            assert_eq!(index.find(&id).unwrap(), Some(n as u32));
            assert_eq!(index.by_prefix(&format!("{id:.14}"), 2).unwrap(), vec![id]);
            assert_eq!(index.by_prefix(&id.to_string().to_uppercase(), 2).unwrap(), vec![id]);
        }
        assert_eq!(index.find(&CommitId([7; 32])).unwrap(), None);
        for prefix in ["", "0", "f", "ff", "00", "a7"] {
            let mut expected: Vec<_> =
                (0..3000u64).map(|n| CommitId::of(&n.to_le_bytes())).filter(|id| id.to_string().starts_with(prefix)).collect();
            let mut found = index.by_prefix(prefix, usize::MAX).unwrap();
            assert_eq!(index.by_prefix(prefix, 2).unwrap().len(), expected.len().min(2));
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{prefix}");
        }
        assert!(index.by_prefix("xyz", 2).unwrap().is_empty());
    }
}

#[test]
fn the_log_of_a_merge_has_every_commit_before_its_parents_and_hides_what_is_hidden() {
    let mut index = line(4);
    let side = add(&mut index, 4, &[1], 1000);
    let merge = add(&mut index, 5, &[3, side], 1001);
    for index in variants(index) {
        let log = |heads: &[u32], hidden: &[u32]| {
            let mut walk = LogWalk::new(&index, heads, hidden).unwrap();
            std::iter::from_fn(|| walk.next(&index).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(log(&[merge], &[]), vec![merge, 3, side, 2, 1, 0]);
        assert_eq!(log(&[merge], &[3]), vec![merge, side]);
        assert_eq!(log(&[merge], &[side]), vec![merge, 3, 2]);
        assert_eq!(log(&[3], &[merge]), Vec::<u32>::new());
        assert_eq!(index.merge_base(3, side).unwrap(), Some(1));
        assert_eq!(index.merge_base(merge, side).unwrap(), Some(side));
        assert!(index.is_ancestor(side, merge).unwrap() && index.is_ancestor(0, merge).unwrap());
        assert!(!index.is_ancestor(2, side).unwrap());
    }
}

/// The first two sections of a file of commits.
pub(crate) fn sample_rows() -> Vec<u8> {
    let index = line(20);
    let mut contents = PartContents::default();
    index.copy_tail(0..20, &mut contents);
    let encoded = contents.encode(&[0; 32]);
    let size = |at: usize| u64::from_le_bytes(*encoded[at..].first_chunk().unwrap()) as usize;
    encoded[4096..4096 + size(48) + size(56)].to_vec()
}
