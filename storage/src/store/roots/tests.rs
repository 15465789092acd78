//! From where the root value of an old commit is made.

use crate::disk::SimulatedDisk;
use crate::error::Error;
use crate::store::tests::{DATABASE, TABLE, apply, content, history, made_with, meta, open_on};

const SEGMENT_SIZE: u64 = 1 << 11;

#[test]
fn a_commit_is_made_from_a_checkpoint_after_it_where_that_is_nearer() {
    // With a checkpoint at transaction 60.
    let (disk, states) = history(SEGMENT_SIZE, 120);
    let segments = (1..).take_while(|number| disk.file(&format!("{number:08}.seg")).is_some()).count();
    assert!(segments >= 12, "{segments}");
    // Whoever reads what was before about transaction 30 finds damage.
    for number in 2..=segments / 4 {
        let name = format!("{number:08}.seg");
        disk.flip(&name, 8 * disk.file(&name).unwrap().len() / 2);
    }
    for n in [55, 50, 45] {
        // Anew, so that nothing is known but the head, which is farther away than the beginning, and the checkpoint.
        let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
        assert_eq!(content(&store.root(states[n].0).unwrap()), states[n].1, "{n}");
    }
    // From the beginning it is nearer: that way, on which the damage is, is taken.
    let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
    assert!(matches!(store.root(states[28].0), Err(Error::Damaged { .. })));
}

#[test]
fn a_commit_before_one_that_cannot_be_taken_back_is_replayed() {
    let disk = SimulatedDisk::default();
    let store = made_with(&disk, SEGMENT_SIZE).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut states = Vec::new();
    for n in 1..=40 {
        if n == 36 {
            let mut truncation = branch.begin_apply(false).unwrap();
            truncation.truncate(TABLE).unwrap();
            truncation.commit(meta("truncation", 46)).unwrap();
        } else {
            apply(&branch, n).unwrap();
        }
        let state = branch.state();
        states.push((state.head, content(&state.head_root)));
    }
    store.checkpoint().unwrap();
    for n in 41..100 {
        apply(&branch, n).unwrap();
    }
    store.sync().unwrap();
    drop((branch, store));
    for (at, (id, expected)) in states.iter().enumerate().skip(30) {
        // Anew, so that nothing is known but the checkpoint.
        let store = open_on(&disk, SEGMENT_SIZE, u64::MAX).unwrap();
        assert_eq!(content(&store.root(*id).unwrap()), *expected, "{at}");
    }
}
