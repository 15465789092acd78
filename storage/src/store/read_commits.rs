//! Reading many commits of a line, by several threads.
//!
//! Each thread reads a stretch of neighbours, frame by frame, and makes of it what is asked for. Ids that frames do not store are taken from
//! the commit index, and every commit is hashed and compared with its own id there: what is served is what was committed, as where a commit is read
//! alone.

use bytes::Bytes;

use super::shared::Shared;
use crate::commit::Commit;
use crate::commit_index::{CommitIndex, CommitNumber};
use crate::encoding::Malformed;
use crate::error::Result;
use crate::helpers::for_each;
use crate::id::CommitId;
use crate::journal::CommitFrame;
use crate::record;

/// Fewer commits than these are not worth another thread. Tests see both.
const PART_COUNT_MIN: usize = if cfg!(test) { 4 } else { 1 << 11 };
/// More parts than threads, so that none waits long for the last one.
const PARTS_PER_THREAD: usize = 4;

/// A commit to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub id: CommitId,
    sequence: u64,
    /// The commit numbered before it, mostly its parent.
    before: Option<CommitId>,
}

impl Step {
    /// # Errors
    /// `Damaged`.
    pub fn of(index: &CommitIndex, number: CommitNumber) -> Result<Step> {
        let entry = index.entry(number)?;
        let before = number.checked_sub(1).map(|before| index.id(before)).transpose()?;
        Ok(Step { id: entry.id, sequence: entry.sequence, before })
    }
}

/// A commit's bytes, with the hash that was just verified.
pub(super) struct ReadCommit<'a> {
    pub id: CommitId,
    pub bytes: &'a Bytes,
}

impl Shared {
    /// Reads commits, neighbours one after the other, and gives what `make` makes of each stretch, in order. `make` calls
    /// [`Shared::read_each`]. Ends early behind a stretch of which `is_end` says so.
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn read_in_parts<R: Send>(
        &self,
        steps: &[Step],
        is_end: impl Fn(&R) -> bool + Sync,
        make: impl Fn(&[Step]) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let permit = if steps.len() < 2 * PART_COUNT_MIN { None } else { Some(self.helpers.take()) };
        let thread_count = permit.as_ref().map_or(1, |permit| permit.thread_count());
        let part_count = if thread_count == 1 { 1 } else { thread_count * PARTS_PER_THREAD };
        let size = steps.len().div_ceil(part_count).max(PART_COUNT_MIN);
        let parts = steps.chunks(size).collect();
        let is_last = |made: &Result<R>| made.as_ref().is_ok_and(&is_end) || made.is_err();
        for_each(parts, thread_count, is_last, make).into_iter().flatten().collect()
    }

    /// Reads commits one after the other, each verified, until `each` returns false; says whether it did not.
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn read_each(&self, steps: &[Step], mut each: impl FnMut(ReadCommit<'_>) -> Result<bool>) -> Result<bool> {
        let mut frame = None;
        for step in steps {
            let place = || self.journal.place_of(step.sequence);
            let commit_in = |record: &Bytes| -> Result<Bytes> {
                record::commit_bytes(record).map_err(|e| e.at(place()))?.ok_or_else(|| Malformed("not a commit").at(place()))
            };
            if frame.as_ref().is_none_or(|frame: &CommitFrame| !frame.contains(step.sequence)) {
                frame = self.journal.read_commit_frame(step.sequence)?;
            }
            let record = frame.as_ref().and_then(|frame| frame.commit_record(step.sequence, step.before));
            let mut bytes = record.map(|record| commit_in(&record.bytes)).transpose()?;
            bytes = bytes.filter(|bytes| CommitId::of(bytes) == step.id);
            let bytes = match bytes {
                Some(bytes) => bytes,
                // Not written yet, or the record before it in the journal is of another commit than the one numbered before.
                None => {
                    let bytes = commit_in(&self.journal.read_record(step.sequence)?)?;
                    if CommitId::of(&bytes) != step.id {
                        return Err(Malformed("commit does not hash to its id").at(place()));
                    }
                    bytes
                }
            };
            if !each(ReadCommit { id: step.id, bytes: &bytes })? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Decodes a commit that was just read.
    /// # Errors
    /// `Damaged`.
    pub(super) fn decode_commit(&self, commit: &ReadCommit<'_>) -> Result<Commit> {
        Commit::decode_known(commit.id, commit.bytes, &self.chunks())
    }
}
