//! Whether a store that was opened after something went wrong holds what it must.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use super::model::{StoreModel, first_difference, observe, row, source_of, tables_of, text_of};
use super::workload::{DATABASE, Run, TABLE, Workload, data, open_on};
use crate::disk::SimulatedDisk;
use crate::disk::simulated::random_of;
use crate::error::{Error, Result};
use crate::fsck::fsck_on;
use crate::id::CommitId;
use crate::store::{STORE_FOLDER, Store};

/// Says how to see a failure again, when a check panics while this lives.
pub struct Replay(pub String);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to see this again: STRANDLINE_TEST_REPLAY={}", self.0);
        }
    }
}

/// How thoroughly an image is looked at.
#[derive(Clone, Copy)]
pub struct Depth {
    /// fsck before and after.
    pub fsck: bool,
    /// Commits whose root values are compared.
    pub commit_count: usize,
    /// Power losses that follow, each in the opening of the last one's image or soon after.
    pub crash_count: usize,
}

/// Opens an image; it must hold one of the states from `acknowledged` on, all of it and nothing else. Then it is written on
/// to, closed and opened again. `seed` decides what is looked at.
pub fn check_image(run: &Run, image: SimulatedDisk, acknowledged: usize, seed: u64, depth: Depth) {
    let mut random = random_of(seed, 3);
    if depth.fsck {
        check_clean(&image, "before opening");
    }
    let store = open_on(&image).unwrap_or_else(|error| panic!("the image does not open: {error}"));
    let found = observe(&store).unwrap();
    let state = find_state(run, acknowledged, &found);
    check_history(&store, run, &found, &mut random, depth.commit_count).unwrap();
    let given: BTreeSet<_> = run.oids.iter().filter(|(given_at, _)| *given_at <= state).map(|(_, oid)| *oid).collect();

    // It goes on as if nothing had happened.
    let mut workload = Workload::after(run, image.clone(), acknowledged, state, random.random());
    workload.take(store).unwrap();
    let oid = workload.store().expect("a store").next_oid().unwrap();
    assert!(!given.contains(&oid), "oid {oid} is given out twice");
    assert!(workload.go(random.random_range(1..6)), "{:?}", workload.run.errors);
    assert!(workload.run.errors.is_empty(), "{:?}", workload.run.errors);
    workload.check().unwrap();
    let store = workload.store().expect("a store").clone();
    if random.random() {
        store.close().unwrap()
    } else {
        store.sync().unwrap()
    }
    drop(store);
    let after = workload.finish();
    let store = open_on(&image).unwrap_or_else(|error| panic!("the image does not open again: {error}"));
    let found = observe(&store).unwrap();
    assert!(found == **after.last(), "after opening again: {}", first_difference(after.last(), &found));
    check_history(&store, &after, &found, &mut random, depth.commit_count.min(3)).unwrap();
    drop(store);
    if depth.fsck {
        check_clean(&image, "after opening again");
    }
    if depth.crash_count > 0 {
        let (mut content, operations) = image.operations();
        let count = random.random_range(0..=operations.len());
        operations[..count].iter().for_each(|operation| content.apply(operation));
        let image = SimulatedDisk::new(content.after_power_loss(&mut random));
        let acknowledged = after.acknowledged_after(count);
        check_image(&after, image, acknowledged, random.random(), Depth { crash_count: depth.crash_count - 1, ..depth });
    }
}

/// Which state it is that was found.
fn find_state(run: &Run, acknowledged: usize, found: &StoreModel) -> usize {
    let states = &run.states[acknowledged..];
    match states.iter().position(|state| **state == *found) {
        Some(at) => acknowledged + at,
        None => {
            let earlier = run.states[..acknowledged].iter().rposition(|state| **state == *found);
            let to_first = first_difference(&states[0], found);
            let to_last = first_difference(run.last(), found);
            panic!(
                "none of the states {acknowledged} to {}; it is state {earlier:?}; the first differs in {to_first}, the last in {to_last}",
                run.states.len() - 1
            );
        }
    }
}

/// fsck finds nothing, and changes nothing.
pub fn check_clean(disk: &SimulatedDisk, when: &str) {
    if disk.content().folder(&data().join(STORE_FOLDER)).is_none() {
        return;
    }
    let before = disk.change_count();
    let report = fsck_on(Arc::new(disk.clone()), data()).unwrap();
    assert!(report.findings.is_empty(), "{when}: {:?}", report.findings);
    assert_eq!(disk.change_count(), before, "fsck has changed the disk");
}

/// The commits that can be reached from what the store holds.
fn reachable(run: &Run, found: &StoreModel) -> BTreeSet<CommitId> {
    let mut seen = BTreeSet::new();
    let heads = found.databases.values().flat_map(|d| d.branches.values().map(|b| b.head).chain(d.tags.values().copied()));
    let mut open: Vec<CommitId> = heads.collect();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(&run.commits.get(&id).expect("a commit that was made").parents);
        }
    }
    seen
}

/// Some commits are as they were made, all are in the log, and a row's history is what the commits did.
/// # Errors
/// What reading gives.
pub fn check_history(store: &Store, run: &Run, found: &StoreModel, random: &mut StdRng, commit_count: usize) -> Result<()> {
    let reachable = reachable(run, found);
    for id in reachable.iter().choose_multiple(random, commit_count) {
        check_commit(store, run, *id)?;
    }
    for (name, database) in &found.databases {
        for branch in store.branches(name)?.iter().map(|(name, _)| name) {
            let head = database.branches[branch].head;
            let logged: Vec<_> = store.log(&[head], &[])?.map(|commit| Ok(commit?.id)).collect::<Result<_>>()?;
            let expected = first_parents(run, head);
            assert_eq!(logged, expected, "the log of branch {branch}");
        }
    }
    if let Some(branch) = found.databases.get(DATABASE).and_then(|d| d.branches.values().choose(random)) {
        check_row_history(store, run, branch.head, random.random_range(0..50))?;
    }
    Ok(())
}

fn first_parents(run: &Run, head: CommitId) -> Vec<CommitId> {
    std::iter::successors(Some(head), |id| run.commits[id].parents.first().copied()).collect()
}

/// # Errors
/// What reading gives.
pub fn check_commit(store: &Store, run: &Run, id: CommitId) -> Result<()> {
    let expected = &run.commits[&id];
    let commit = store.commit(id)?;
    assert_eq!(
        (&commit.parents, &commit.meta.message, source_of(&commit)),
        (&expected.parents, &expected.message, expected.source),
        "commit {id:.12}"
    );
    let tables = tables_of(&store.root(id)?)?;
    assert!(tables == *expected.tables, "the root value of commit {id:.12}, {}", expected.message);
    Ok(())
}

/// # Errors
/// What reading gives.
pub fn check_row_history(store: &Store, run: &Run, head: CommitId, id: i32) -> Result<()> {
    let root = store.root(head)?;
    let Some(table) = root.table(TABLE) else { return Ok(()) };
    let key = table.row_key(&row(id, ""));
    let text = |commit: &CommitId| run.commits[commit].tables.get(&TABLE).and_then(|rows| rows.get(&(id, None)).cloned());
    let mut expected = Vec::new();
    for commit in first_parents(run, head) {
        let (from, to) = (run.commits[&commit].parents.first().and_then(text), text(&commit));
        if from != to {
            expected.push((commit, from, to));
        }
    }
    let text = |row: Option<crate::value::Row>| row.map(|row| text_of(&row).1);
    let versions: Vec<_> = store.table_history(head, TABLE, Some(vec![key]))?.collect::<Result<_>>()?;
    let found: Vec<_> = versions.into_iter().map(|v| (v.commit.id, text(v.from.map(|f| f.1)), text(v.to.map(|t| t.1)))).collect();
    assert!(found == expected, "the history of row {id} from {head:.12}: {found:?} and not {expected:?}");
    Ok(())
}

/// Whether an error says what is wrong and where.
pub fn is_clear(error: &Error) -> bool {
    match error {
        Error::Io { path, .. } => path.starts_with(data()),
        Error::Stopped { why } => why.contains("/data/"),
        Error::Damaged { place, .. } => !place.is_empty(),
        Error::Format { .. } => true,
        _ => false,
    }
}
