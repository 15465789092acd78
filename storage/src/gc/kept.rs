//! Which root values of old commits are kept when others are given up: so many that none is far from any commit.
//!
//! The root value of an old commit is made from the nearest ones that are kept, by replaying the commits in between or taking
//! them back. So of three checkpoints in a row on a first-parent line the middle one is given up when replaying from the first to
//! the last costs no more than [`SPACING`]. Commits that no branch and no tag reaches need none.

use std::collections::HashMap;

use crate::commit_index::CommitNumber;
use crate::encoding::Malformed;
use crate::error::Result;
use crate::id::{ChunkAddress, CommitId};
use crate::record::{Checkpoint, KeptRoot, KeptRoots, Record};
use crate::store::shared::Shared;

/// What lies between two root values that are kept, in changes. At most half of it is replayed for a commit in between.
pub(crate) const SPACING: u64 = 2 * crate::checkpoint::CHECKPOINT_ROW_COUNT;

/// Commits that are looked at before others may have the index.
const LOOK_COUNT: u32 = 4096;

/// The root value of a commit that may be kept.
struct Candidate {
    number: CommitNumber,
    address: ChunkAddress,
    /// 0: not known, which an earlier version has written.
    cost: u64,
    /// A branch is there.
    is_head: bool,
}

/// Chooses among the root values of older checkpoints, for what these commits reach. `heads` are those of a checkpoint in the making,
/// which costs as much; they are the last ones.
/// # Errors
/// `Damaged`, `Io`.
pub(crate) fn choose(
    shared: &Shared,
    refs: impl Iterator<Item = CommitId>,
    heads: &[(CommitId, ChunkAddress)],
    cost: u64,
    spacing: u64,
) -> Result<Vec<KeptRoot>> {
    let reachable = reachable(shared, refs)?;
    let mut candidates = candidates(shared)?;
    let index = shared.index.read();
    for (commit, address) in heads {
        let Some(number) = index.find(commit)? else { continue };
        match candidates.iter_mut().find(|candidate| candidate.number == number) {
            // The list knows better what it cost: the branch may have stood still for long.
            Some(candidate) => candidate.is_head = true,
            None => candidates.push(Candidate { number, address: *address, cost, is_head: true }),
        }
    }
    candidates.retain(|candidate| reachable.contains(candidate.number));
    candidates.sort_unstable_by_key(|candidate| candidate.number);
    let mut kept: Vec<&Candidate> = Vec::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let is_on_line =
            |from: &Candidate, to: &Candidate| Ok::<_, crate::error::Error>(index.line_distance(from.number, to.number)?.is_some());
        let mut next = None;
        for later in &candidates[at + 1..] {
            if is_on_line(later, candidate)? {
                next = Some(later);
                break;
            }
        }
        let mut before = None;
        for earlier in kept.iter().rev() {
            if is_on_line(candidate, earlier)? {
                before = Some(earlier.cost);
                break;
            }
        }
        // From the empty store on, where there is none.
        let is_far = |next: &Candidate| next.cost == 0 || next.cost.saturating_sub(before.unwrap_or(0)) > spacing;
        if candidate.cost == 0 || candidate.is_head || next.is_none_or(is_far) {
            kept.push(candidate);
        }
    }
    let kept = kept.into_iter().map(|kept| Ok(KeptRoot { commit: index.entry(kept.number)?.id, address: kept.address, cost: kept.cost }));
    kept.collect()
}

/// What checkpoints tell that still counts.
fn candidates(shared: &Shared) -> Result<Vec<Candidate>> {
    let (roots, kept_at) = {
        let checkpoints = shared.checkpoints.read();
        (checkpoints.roots.iter().map(|(number, root)| (*number, *root)).collect::<Vec<_>>(), checkpoints.kept_at)
    };
    let mut costs: HashMap<u64, u64> = HashMap::new();
    let mut listed: HashMap<ChunkAddress, u64> = HashMap::new();
    if let Some(sequence) = kept_at
        && let KeptRoots::These(list) = read(shared, sequence)?.kept
    {
        listed.extend(list.iter().map(|root| (root.address, root.cost)));
    }
    let mut candidates = Vec::new();
    for (number, root) in roots {
        // What was written on the way is not a checkpoint's.
        let Some((first, _)) = root.told else { continue };
        let cost = match listed.get(&root.address).or(costs.get(&first)) {
            Some(cost) => *cost,
            None => {
                let cost = read(shared, first)?.cost;
                costs.insert(first, cost);
                cost
            }
        };
        candidates.push(Candidate { number, address: root.address, cost, is_head: false });
    }
    Ok(candidates)
}

fn read(shared: &Shared, sequence: u64) -> Result<Checkpoint> {
    let place = || shared.journal.place_of(sequence);
    match Record::decode_at(&shared.journal.read_record(sequence)?, place)? {
        Record::Checkpoint(checkpoint) => Ok(*checkpoint),
        _ => Err(Malformed("not a checkpoint").at(place())),
    }
}

/// A bit for each commit.
struct Commits(Vec<u64>);

impl Commits {
    fn contains(&self, number: CommitNumber) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn add(&mut self, number: CommitNumber) {
        self.0[number as usize / 64] |= 1 << (number % 64);
    }
}

/// The commits that can be reached from these.
fn reachable(shared: &Shared, refs: impl Iterator<Item = CommitId>) -> Result<Commits> {
    let mut end = shared.index.read().len();
    let mut commits = Commits(vec![0; end as usize / 64 + 1]);
    for id in refs {
        if let Some(number) = shared.index.read().find(&id)?.filter(|number| *number < end) {
            commits.add(number);
        }
    }
    // Parents have smaller numbers than their children.
    while end > 0 {
        let index = shared.index.read();
        let start = end.saturating_sub(LOOK_COUNT);
        for number in (start..end).rev() {
            if commits.contains(number) {
                index.parents(number)?.into_iter().for_each(|parent| commits.add(parent));
            }
        }
        end = start;
    }
    Ok(commits)
}
