//! Moving the commits of sealed segments from memory to files beside them, and finding those files at opening.
//!
//! Both indexes of a segment, the journal's own and this one, are made by the thread that follows the writer. Until then,
//! and where a file cannot be used, the segment's records say what is in it.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::shared::{Shared, new_commit, numbered_roots};
use crate::commit::Header;
use crate::commit_index::{CheckpointRoot, CommitIndex, NewCommit, PartContents, RemakePart, SealedCommits, subject};
use crate::encoding::Malformed;
use crate::error::{Error, Result};
use crate::id::{ChunkAddress, CommitId};
use crate::journal::{Journal, Rewritten, SealedSegment};
use crate::record::{self, Record};

/// Commits that are copied before others may have the index.
const COPY_COUNT: usize = 4096;

impl Shared {
    /// Lets the journal say when a segment was sealed.
    pub fn follow_seals(self: &Arc<Self>) {
        let shared = Arc::downgrade(self);
        let index = move || {
            if let Some(shared) = shared.upgrade()
                && let Err(error) = shared.seal_commits()
            {
                tracing::warn!(%error, "could not write the commits of a segment; they stay in memory");
            }
        };
        self.journal.on_sealed(Box::new(index.clone()));
        // Those sealed during recovery.
        index();
    }

    /// Moves the commits of sealed segments, of which all are in the index, from memory to files.
    fn seal_commits(&self) -> Result<()> {
        let _turn = self.sealing.lock();
        loop {
            let next = self.index.read().part_count() as u32 + 1;
            let Some(segment) = self.journal.sealed_from(next).into_iter().next() else { return Ok(()) };
            self.seal_commits_of(&segment)?;
        }
    }

    fn seal_commits_of(&self, segment: &SealedSegment) -> Result<()> {
        let end = segment.sequences.end;
        let (numbers, before) = {
            let index = self.index.read();
            (index.tail_before(end), index.last_sealed())
        };
        let mut contents = PartContents { first: numbers.start, first_sequence: segment.sequences.start, ..PartContents::default() };
        for start in numbers.clone().step_by(COPY_COUNT) {
            self.index.read().copy_tail(start..numbers.end.min(start + COPY_COUNT as u32), &mut contents);
        }
        contents.checkpoints = self.checkpoints.read().tail.iter().filter(|checkpoint| checkpoint.sequence < end).copied().collect();
        let commits = write_part(&self.journal, segment, contents, before)?;
        let forgotten = self.index.write().seal(commits);
        self.checkpoints.write().tail.retain(|checkpoint| checkpoint.sequence >= end);
        drop(forgotten);
        Ok(())
    }

    /// Rewrites a segment without the chunks that are not live; `None` where there is nothing to gain. The file of its commits stays, and is
    /// said to be about the new one.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn rewrite_segment(&self, number: u32, is_live: &dyn Fn(&ChunkAddress) -> bool) -> Result<Option<Rewritten>> {
        // Nobody writes that file meanwhile.
        let _turn = self.sealing.lock();
        let segment = || self.journal.sealed_from(number).into_iter().next();
        let before = segment();
        let rewritten = self.journal.rewrite_segment(number, is_live)?;
        if rewritten.is_some()
            && let (Some(before), Some(after)) = (before, segment())
            && let Some((first, last)) = self.index.read().part_begin(number as usize - 1)
        {
            let subject = |segment: &SealedSegment| subject(&segment.subject, first, last);
            let (disk, folder) = (&**self.journal.disk(), self.journal.folder());
            if let Err(error) = SealedCommits::change_subject(disk, folder, number, &subject(&before), &subject(&after)) {
                // Opening makes it again.
                tracing::warn!(error, segment = number, "could not keep the commits of a rewritten segment");
            }
        }
        Ok(rewritten)
    }

    /// Fills the empty index: with the files of sealed segments, and from the records of those without and of the tail.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn open_index(&self) -> Result<()> {
        let mut tail = 0;
        for segment in self.journal.sealed_from(1) {
            let subject = {
                let index = self.index.read();
                subject(&segment.subject, index.len(), index.last_sealed())
            };
            let opened = SealedCommits::open(&**self.journal.disk(), self.journal.folder(), segment.number, &subject);
            let opened = opened.and_then(|commits| Ok((commits.checkpoints().map_err(|error| error.to_string())?, commits)));
            match opened {
                Ok((checkpoints, commits)) if self.index.read().fits(&commits) => {
                    self.checkpoints.write().enter_sealed(&checkpoints);
                    drop(self.index.write().seal(commits));
                }
                other => {
                    let reason = other.err().unwrap_or_default();
                    tracing::info!(segment = segment.number, reason, "the commits of a segment are read from its records");
                    self.index_records(segment.sequences.clone())?;
                    self.seal_commits_of(&segment)?;
                }
            }
            tail = segment.sequences.end;
        }
        self.index_records(tail..u64::MAX)
    }

    fn index_records(&self, sequences: std::ops::Range<u64>) -> Result<()> {
        let checkpoints = index_records(&self.journal, &mut self.index.write(), sequences)?;
        self.checkpoints.write().enter(&checkpoints);
        Ok(())
    }
}

fn write_part(journal: &Journal, segment: &SealedSegment, contents: PartContents, before: Option<CommitId>) -> Result<SealedCommits> {
    let encoded = contents.encode(&subject(&segment.subject, contents.first, before));
    SealedCommits::write(journal.writable_disk(), journal.folder(), segment.number, encoded)
}

/// Enters the commits of these records, and returns the checkpoints.
fn index_records(journal: &Journal, index: &mut CommitIndex, sequences: std::ops::Range<u64>) -> Result<Vec<CheckpointRoot>> {
    let mut checkpoints = Vec::new();
    for frame in journal.log_frames_from(sequences.start) {
        let frame = frame?;
        if frame.sequence >= sequences.end {
            break;
        }
        for (sequence, record) in frame.iter().filter(|(sequence, _)| sequences.contains(sequence)) {
            let place = || journal.place_of(sequence);
            if let Some(commit) = record::commit_bytes(&record).map_err(|e| e.at(place()))? {
                index_commit(index, sequence, &commit, place)?;
            } else if record::is_checkpoint(&record) {
                let Record::Checkpoint(checkpoint) = Record::decode_at(&record, place)? else {
                    return Err(Malformed("not a checkpoint").at(place()));
                };
                checkpoints.extend(numbered_roots(index, sequence, &checkpoint.roots())?);
            }
        }
    }
    Ok(checkpoints)
}

fn index_commit(index: &mut CommitIndex, sequence: u64, bytes: &[u8], place: impl Fn() -> String) -> Result<()> {
    let malformed = |what| Malformed(what).at(place());
    let header = Header::decode(bytes).map_err(|e| e.at(place()))?;
    let mut parents = Vec::with_capacity(header.parents.len());
    let mut height = 0;
    for parent in &header.parents {
        let number = index.find(parent)?.ok_or_else(|| malformed("commit of an unknown parent"))?;
        height = height.max(index.entry(number)?.height);
        parents.push(number);
    }
    if header.height != height + 1 {
        return Err(malformed("commit of another height than its parents give"));
    }
    let touched = header.touched_mask(bytes).map_err(|e| e.at(place()))?;
    let commit = new_commit(CommitId::of(bytes), height + 1, &header.meta, touched);
    index.insert(&NewCommit { sequence, ..commit }, &parents)?;
    Ok(())
}

/// Makes the file of a segment's commits again from its records.
#[derive(Debug)]
pub(crate) struct JournalCommits {
    pub journal: Arc<Journal>,
}

impl RemakePart for JournalCommits {
    fn remake(&self, segment: usize, mut before: CommitIndex) -> Result<SealedCommits> {
        let missing = || Error::Damaged { place: format!("segment {}", segment + 1), what: "has no index".into() };
        let segment = self.journal.sealed_from(segment as u32 + 1).into_iter().next().ok_or_else(missing)?;
        let last = before.last_sealed();
        let checkpoints = index_records(&self.journal, &mut before, segment.sequences.clone())?;
        let first_sequence = segment.sequences.start;
        let numbers = before.sealed_len()..before.len();
        let mut contents = PartContents { first: numbers.start, first_sequence, checkpoints, ..PartContents::default() };
        before.copy_tail(numbers, &mut contents);
        write_part(&self.journal, &segment, contents, last)
    }
}
