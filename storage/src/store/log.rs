//! The log: commits that can be reached from some heads, each before its parents.
//!
//! The walk itself needs the commit index alone. Where commits are wanted, too, they are read ahead, the more the longer the walk
//! goes on, and by two threads once there are many: a walk over a million commits unpacks each of their frames.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Store;
use super::shared::Shared;
use crate::commit::Commit;
use crate::commit_index::{CommitIndex, CommitNumber, LogWalk};
use crate::error::Result;
use crate::id::CommitId;
use crate::row_index::Candidates;
use crate::schema::Oid;

/// Commits that are walked over at once at most.
const AHEAD_COUNT_MAX: usize = 4096;
/// So many commits fill most of a frame, so that it is unpacked once for all of them.
const FRAME_COUNT_MIN: usize = 16;
/// Fewer commits than these are not worth a second thread. Tests see both.
const SHARED_COUNT_MIN: usize = if cfg!(test) { 8 } else { 256 };

/// What the log knows of a commit without reading it.
#[derive(Clone, Debug)]
pub struct LogEntry {
    pub id: CommitId,
    pub height: u64,
    /// The commit's number in this store, and its first parent's: to tell one entry from another.
    pub number: u32,
    pub first_parent: Option<u32>,
    sequence: u64,
    touched: u32,
    /// The commit, where the log was asked for commits.
    pub commit: Option<Arc<Commit>>,
}

impl LogEntry {
    fn of(index: &CommitIndex, number: CommitNumber) -> Result<LogEntry> {
        let entry = index.entry(number)?;
        let first_parent = index.first_parent(number)?;
        let (id, height, sequence, touched) = (entry.id, entry.height, entry.sequence, entry.touched);
        Ok(LogEntry { id, height, number, first_parent, sequence, touched, commit: None })
    }
}

/// The commits that changed a table as a whole, of those that were there when it was asked for.
#[derive(Debug)]
pub struct WholeChanges {
    table: Oid,
    candidates: Candidates,
}

impl WholeChanges {
    /// Says whether a commit may have done so; `false` is certain.
    pub fn may_contain(&self, commit: &LogEntry) -> bool {
        Commit::may_touch(commit.touched, self.table) && self.candidates.contains(commit.number)
    }
}

/// The log as an iterator: it holds no lock between commits.
struct Log {
    shared: Arc<Shared>,
    walk: LogWalk,
    with_commits: bool,
    ready: VecDeque<Result<LogEntry>>,
    ahead_count: usize,
    ended: bool,
}

impl Log {
    fn fill(&mut self) {
        let count = self.ahead_count;
        // Twice as many as so far, so that a walk that is broken off has read twice as many as it gave at most.
        self.ahead_count = (2 * count).min(AHEAD_COUNT_MAX);
        let mut entries: Vec<Result<LogEntry>> = Vec::with_capacity(count);
        {
            let index = self.shared.index.read();
            while entries.len() < count && !self.ended {
                let next = match self.walk.next(&index) {
                    Ok(Some(number)) => LogEntry::of(&index, number),
                    Ok(None) => {
                        self.ended = true;
                        break;
                    }
                    Err(error) => Err(error),
                };
                self.ended = next.is_err();
                entries.push(next);
            }
        }
        if self.with_commits {
            read_commits(&self.shared, &mut entries);
        }
        self.ready.extend(entries);
    }
}

impl Iterator for Log {
    type Item = Result<LogEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() && !self.ended {
            self.fill();
        }
        let next = self.ready.pop_front();
        if matches!(next, Some(Err(_))) {
            self.ready.clear();
            self.ended = true;
        }
        next
    }
}

fn read_commits(shared: &Shared, entries: &mut [Result<LogEntry>]) {
    let in_frames = entries.len() >= FRAME_COUNT_MIN;
    let read = |entries: &mut [Result<LogEntry>]| {
        for entry in entries {
            let Ok(found) = entry else { continue };
            if in_frames {
                // Unpacks the frame as a whole, for the commits beside this one. What is wrong with it is said below.
                let _ = shared.journal.read_record(found.sequence);
            }
            match shared.commit_numbered(found.number) {
                Ok(commit) => found.commit = Some(commit),
                Err(error) => *entry = Err(error),
            }
        }
    };
    if entries.len() < SHARED_COUNT_MIN {
        return read(entries);
    }
    let (first, second) = entries.split_at_mut(entries.len() / 2);
    std::thread::scope(|scope| {
        // Without another thread its half is read here, below.
        let _ = std::thread::Builder::new().name("read commits".into()).spawn_scoped(scope, || read(&mut *second));
        read(first);
    });
    if entries.iter().flatten().any(|entry| entry.commit.is_none()) {
        let missing = entries.iter().position(|entry| matches!(entry, Ok(entry) if entry.commit.is_none())).unwrap_or_default();
        read(&mut entries[missing..]);
    }
}

impl Store {
    /// All commits reachable from `heads` and not from `hidden`: every commit before its parents, higher first, then newer. Some are
    /// read before they are asked for.
    /// # Errors
    /// `NotFound`, `Damaged`.
    pub fn log(&self, heads: &[CommitId], hidden: &[CommitId]) -> Result<Box<dyn Iterator<Item = Result<Arc<Commit>>> + Send>> {
        let log = self.walk(heads, hidden, true)?;
        Ok(Box::new(log.map(|entry| entry.map(|entry| entry.commit.expect("BUG: a log with commits has an entry without one")))))
    }

    /// The ids of the commits of [`Self::log`], without reading the commits.
    /// # Errors
    /// `NotFound`.
    pub fn log_ids(&self, heads: &[CommitId], hidden: &[CommitId]) -> Result<Box<dyn Iterator<Item = Result<CommitId>> + Send>> {
        Ok(Box::new(self.walk(heads, hidden, false)?.map(|entry| entry.map(|entry| entry.id))))
    }

    /// What the index knows of the commits of [`Self::log`]; `with_commits`: and these.
    /// # Errors
    /// `NotFound`, `Damaged`.
    pub fn log_entries(
        &self,
        heads: &[CommitId],
        hidden: &[CommitId],
        with_commits: bool,
    ) -> Result<Box<dyn Iterator<Item = Result<LogEntry>> + Send>> {
        Ok(Box::new(self.walk(heads, hidden, with_commits)?))
    }

    /// One commit as the log has it, without reading it.
    /// # Errors
    /// `NotFound`, `Damaged`.
    pub fn log_entry(&self, commit: CommitId) -> Result<LogEntry> {
        LogEntry::of(&self.shared.index.read(), self.shared.number_of(commit)?)
    }

    /// The commits that changed a table as a whole: its definition, or all of its rows at once.
    pub fn whole_changes(&self, table: Oid) -> WholeChanges {
        WholeChanges { table, candidates: self.shared.row_index.find(table, &mut std::iter::empty()) }
    }

    fn walk(&self, heads: &[CommitId], hidden: &[CommitId], with_commits: bool) -> Result<Log> {
        let number = |id: &CommitId| self.shared.number_of(*id);
        let heads: Vec<CommitNumber> = heads.iter().map(number).collect::<Result<_>>()?;
        let hidden: Vec<CommitNumber> = hidden.iter().map(number).collect::<Result<_>>()?;
        let walk = LogWalk::new(&self.shared.index.read(), &heads, &hidden)?;
        Ok(Log { shared: self.shared.clone(), walk, with_commits, ready: VecDeque::new(), ahead_count: 4, ended: false })
    }
}
