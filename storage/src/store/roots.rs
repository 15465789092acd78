//! Root values of commits: made on demand from the nearest one that is known.
//!
//! Known are the heads of branches, the roots made last, and the checkpoints. From a known root *before* a commit on its
//! first-parent line, change sets are replayed; from one *after* it they are taken back, so that no commit is farther from a known
//! root than half of what lies between two. Only change sets of rows alone can be taken back.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::making::{Making, Way};
use super::read_commits::Step;
use super::shared::{Shared, WrittenRoot};
use crate::chunk::ChunkReader;
use crate::commit_index::CommitNumber;
use crate::error::{Error, Result};
use crate::id::{ChunkAddress, CommitId};
use crate::root::Root;

/// A root that took so many changes to make is written out and remembered: there is no checkpoint near it.
pub(super) const WRITTEN_ROW_COUNT_MIN: u64 = 2 * crate::checkpoint::CHECKPOINT_ROW_COUNT;

/// From where a root is made.
pub(super) enum Base {
    /// No commit: an empty database.
    Empty,
    Known(Root),
    /// One at this address, which the door has pinned.
    Written(ChunkAddress, Arc<dyn ChunkReader>),
}

impl Base {
    /// To be called with the checkpoints locked that name the address: otherwise they may be forgotten, and their chunks go, before
    /// it is pinned.
    fn written(address: ChunkAddress, chunks: Arc<dyn ChunkReader>) -> Base {
        chunks.pin(&address);
        Base::Written(address, chunks)
    }
}

impl Shared {
    /// # Errors
    /// `NotFound`, `Damaged`.
    pub fn root(&self, id: CommitId) -> Result<Root> {
        let number = self.number_of(id)?;
        let known = self.known_roots();
        if let Some((_, root)) = known.iter().find(|(n, _)| *n == number) {
            return Ok(root.clone());
        }
        let (base, steps) = self.steps_before(number, &known)?;
        let after = self.nearest_after(number, &known, steps.len())?;
        let made = match after {
            Some((base, undone)) => self.undo(base, &undone)?,
            None => None,
        };
        let root = match made {
            Some(root) => root,
            None => {
                let (mut root, row_count) = self.replay(base, &steps)?;
                if row_count >= WRITTEN_ROW_COUNT_MIN && self.journal.is_writable() {
                    let address = root.write(&mut &*self.journal)?;
                    let mut checkpoints = self.checkpoints.write();
                    checkpoints.roots.entry(number).or_insert(WrittenRoot { address, told: None });
                    let kept_at = checkpoints.kept_at;
                    drop(checkpoints);
                    self.derived.put_root(&id, &address, kept_at);
                }
                root
            }
        };
        self.put_cached_root(number, root.clone());
        Ok(root)
    }

    pub(super) fn known_roots(&self) -> Vec<(CommitNumber, Root)> {
        let mut known = self.cached_roots.lock().clone();
        let branches: Vec<_> = self.branches.lock().iter().filter_map(|b| b.upgrade()).collect();
        known.extend(branches.iter().filter_map(|b| b.head_if_free()));
        known
    }

    /// The nearest known root at or before a commit on its first-parent line, and the commits from there to it, oldest first.
    fn steps_before(&self, number: CommitNumber, known: &[(CommitNumber, Root)]) -> Result<(Base, Vec<CommitNumber>)> {
        let index = self.index.read();
        let checkpoints = self.checkpoints.read();
        let mut steps = Vec::new();
        let mut at = Some(number);
        let mut base = Base::Empty;
        while let Some(number) = at {
            if let Some((_, root)) = known.iter().find(|(n, _)| *n == number) {
                base = Base::Known(root.clone());
                break;
            }
            let written = checkpoints.roots.get(&number).map(|root| root.address);
            // Written ones that only the cache knows count if they are really there.
            let derived = if written.is_none() && steps.len() % 64 == 0 {
                self.derived.root(&index.entry(number)?.id, checkpoints.kept_at)
            } else {
                None
            };
            let derived = match derived {
                Some(address) if self.journal.has_chunk(&address)? => Some(address),
                _ => None,
            };
            if let Some(address) = written.or(derived) {
                base = Base::written(address, self.chunks());
                break;
            }
            steps.push(number);
            at = index.first_parent(number)?;
        }
        steps.reverse();
        Ok((base, steps))
    }

    /// The nearest known root at or before a commit on its first-parent line. Found without walking that line.
    pub(super) fn nearest_before(&self, number: CommitNumber) -> Result<Option<(CommitNumber, Base)>> {
        let mut known = self.known_roots();
        known.retain(|(n, _)| *n <= number);
        known.sort_unstable_by_key(|(n, _)| *n);
        let index = self.index.read();
        let on_line = |before: CommitNumber| Ok::<_, Error>(index.line_distance(number, before)?.is_some());
        let mut nearest: Option<(CommitNumber, Root)> = None;
        while let Some((candidate, root)) = known.pop() {
            if on_line(candidate)? {
                nearest = Some((candidate, root));
                break;
            }
        }
        let checkpoints = self.checkpoints.read();
        let from = nearest.as_ref().map_or(0, |(n, _)| n + 1);
        if from <= number {
            for (candidate, root) in checkpoints.roots.range(from..=number).rev() {
                if on_line(*candidate)? {
                    return Ok(Some((*candidate, Base::written(root.address, self.chunks()))));
                }
            }
        }
        Ok(nearest.map(|(n, root)| (n, Base::Known(root))))
    }

    /// The nearest known root at a commit or after it, on whose first-parent line it lies.
    pub(super) fn nearest_known_after(&self, number: CommitNumber) -> Result<Option<(CommitNumber, Root)>> {
        let mut known = self.known_roots();
        known.retain(|(n, _)| *n >= number);
        known.sort_unstable_by_key(|(n, _)| *n);
        let index = self.index.read();
        for (candidate, root) in known {
            if index.line_distance(candidate, number)?.is_some() {
                return Ok(Some((candidate, root)));
            }
        }
        Ok(None)
    }

    /// The nearest known or written root after a commit, if it is nearer than `limit`, and the commits to take back, newest first.
    fn nearest_after(
        &self,
        number: CommitNumber,
        known: &[(CommitNumber, Root)],
        limit: usize,
    ) -> Result<Option<(Base, Vec<CommitNumber>)>> {
        let index = self.index.read();
        let mut nearest: Option<(u64, CommitNumber, Base)> = None;
        for (candidate, root) in known {
            let Some(distance) = index.line_distance(*candidate, number)? else { continue };
            if distance < nearest.as_ref().map_or(limit as u64, |(nearest, ..)| *nearest) {
                nearest = Some((distance, *candidate, Base::Known(root.clone())));
            }
        }
        let checkpoints = self.checkpoints.read();
        for (candidate, root) in checkpoints.roots.range(number + 1..) {
            let Some(distance) = index.line_distance(*candidate, number)? else { continue };
            if distance < nearest.as_ref().map_or(limit as u64, |(nearest, ..)| *nearest) {
                nearest = Some((distance, *candidate, Base::written(root.address, self.chunks())));
            }
            // The first on the line is the nearest of them.
            break;
        }
        let Some((distance, candidate, base)) = nearest else { return Ok(None) };
        let mut line = vec![candidate];
        for at in 1..distance as usize {
            line.extend(index.first_parent(line[at - 1])?);
        }
        line.truncate(distance as usize);
        Ok(Some((base, line)))
    }

    fn open_base(&self, base: Base) -> Result<Root> {
        match base {
            Base::Empty => Ok(Root::empty_in(&self.chunks())),
            Base::Known(root) => Ok(root),
            Base::Written(address, chunks) => Root::open(&address, chunks),
        }
    }

    /// Takes commits back, newest first; `None` when one of them cannot be.
    fn undo(&self, base: Base, commits: &[CommitNumber]) -> Result<Option<Root>> {
        let mut making = Making::new(self, self.open_base(base)?);
        let is_made = making.go(&self.steps_of(commits)?, Way { backwards: true, table: None })?;
        Ok(if is_made { Some(making.finish()?.0) } else { None })
    }

    /// Replays commits on a root; returns the number of changes, too.
    fn replay(&self, base: Base, commits: &[CommitNumber]) -> Result<(Root, u64)> {
        let mut making = Making::new(self, self.open_base(base)?);
        let is_made = making.go(&self.steps_of(commits)?, Way { backwards: false, table: None })?;
        assert!(is_made, "BUG: commits can always be replayed");
        making.finish()
    }

    fn steps_of(&self, commits: &[CommitNumber]) -> Result<Vec<Step>> {
        let index = self.index.read();
        commits.iter().map(|number| Step::of(&index, *number)).collect()
    }
}
