//! The row index: which commits changed a row, so that one row's history does not read every commit's change set.
//!
//! ```text
//!   commits   0 ──────────── covered ───── early_end ······· fresh_start ───────── fresh_end
//!             [run][run][run]│ in memory, read  │ not read yet │ in memory, entered as they
//!              sorted files  │ from the journal │              │ are made
//! ```
//!
//! An entry is a hash of (table, key) and the number of a commit that changed the row; commits that changed a table as a
//! whole have one entry under a hash of the table alone. Hashes collide, so an answer is a superset: who asks looks at
//! the change sets of the commits found, and at every commit that is not covered yet.
//!
//! New commits are entered in memory on the way, and so are those that opening replays. A thread of its own reads what a restart
//! left between, writes sorted runs of commits that are durable (when there is enough in memory, and when a checkpoint was made,
//! from which replay will start), and merges runs, four of a size into one. Nothing here is the truth: a run that is
//! missing, damaged or of another history is deleted with all after it, and made again from the journal.
//!
//! Measured with pgbench transactions (four rows each): 14 bytes on disk a transaction.

mod buckets;
pub(crate) mod run;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::change_set::{ChangeSet, RowsChange};
use crate::commit::Source;
use crate::commit_index::CommitNumber;
use crate::disk::{Disk, create_dirs};
use crate::error::{Error, Result};
use crate::journal::JournalPosition;
use crate::schema::Oid;
use crate::store::shared::Shared;
use buckets::Buckets;
use run::{Run, RunEntries};

/// The hash of (table, key), and a commit.
type Entry = (u32, CommitNumber);

/// Entries in memory after which a run is written.
pub(crate) const RUN_ENTRY_COUNT: usize = 1 << 18;
/// Runs of one size that become one of the next.
const MERGE_RUN_COUNT: usize = 4;
/// However they differ in size, more runs than these are not left.
const RUN_COUNT_MAX: usize = 8;
/// A checkpoint writes a run of what is in memory, unless it is less than this part of a full one: that is read again quickly.
const SAVED_SHARE: usize = 32;
/// Commits read from the journal before what was found is entered.
const READ_COMMIT_COUNT: u32 = 1000;

/// The hash of a row.
pub(crate) fn row_hash(table: Oid, key: &[u8]) -> u32 {
    // CRC32C of short keys has no collisions within a table, which matters more here than mixing.
    crc32c::crc32c_append(table.wrapping_mul(0x9E37_79B1), key)
}

/// The hash under which commits are that changed the table as a whole: its definition, or all of its rows at once.
fn table_hash(table: Oid) -> u32 {
    row_hash(table, b"\xFF\xFFtable")
}

/// The hash under which the commits of a source's transactions are.
fn xid_hash(xid: u32) -> u32 {
    row_hash(SOURCE, &xid.to_be_bytes())
}

/// In place of a table, whose rows are a source's transactions.
const SOURCE: Oid = 1;

/// In place of a table: under its hash are the commits that changed any object of the catalog.
pub(crate) const CATALOG: Oid = 0;

/// The hashes under which a commit with these changes is to be found, ascending.
pub(crate) fn hashes_of(changes: &ChangeSet, source: Option<&Source>) -> Vec<u32> {
    let mut hashes = Vec::new();
    put_hashes(changes, source, &mut hashes);
    hashes
}

/// What [`hashes_of`] returns, into an empty list.
pub(crate) fn put_hashes(changes: &ChangeSet, source: Option<&Source>, hashes: &mut Vec<u32>) {
    hashes.reserve(changes.catalog.len() + changes.row_count() as usize + changes.tables.len() + 2);
    hashes.extend(changes.catalog.iter().map(|change| table_hash(change.oid)));
    hashes.extend(source.map(|source| xid_hash(source.xid)));
    for change in &changes.tables {
        match &change.rows {
            RowsChange::Rows(rows) => hashes.extend(rows.iter().map(|row| row_hash(change.table, &row.key))),
            RowsChange::Replaced { .. } | RowsChange::Dropped => hashes.push(table_hash(change.table)),
        }
    }
    if !changes.catalog.is_empty() {
        hashes.push(table_hash(CATALOG));
    }
    hashes.sort_unstable();
    hashes.dedup();
}

/// Commits that may have changed the rows asked for.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// Ascending.
    numbers: Vec<CommitNumber>,
    /// Every one of these may have.
    uncovered: Range<CommitNumber>,
}

impl Candidates {
    pub fn all() -> Candidates {
        Candidates { numbers: Vec::new(), uncovered: 0..CommitNumber::MAX }
    }

    /// The last one that is not after `number`.
    pub fn not_after(&self, number: CommitNumber) -> Option<CommitNumber> {
        let found = self.numbers[..self.numbers.partition_point(|n| *n <= number)].last().copied();
        let uncovered = (self.uncovered.start <= number && !self.uncovered.is_empty()).then(|| number.min(self.uncovered.end - 1));
        found.max(uncovered)
    }

    /// All that are below `end`.
    pub fn iter(&self, end: CommitNumber) -> impl DoubleEndedIterator<Item = CommitNumber> {
        let uncovered = self.uncovered.start..self.uncovered.end.min(end).max(self.uncovered.start);
        let numbers = &self.numbers[..self.numbers.partition_point(|n| *n < end)];
        let (before, rest) = numbers.split_at(numbers.partition_point(|n| *n < uncovered.start));
        let after = &rest[rest.partition_point(|n| *n < uncovered.end)..];
        before.iter().copied().chain(uncovered).chain(after.iter().copied())
    }

    pub fn contains(&self, number: CommitNumber) -> bool {
        self.uncovered.contains(&number) || self.numbers.binary_search(&number).is_ok()
    }
}

/// How the row index is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowIndexOptions {
    /// Entries in memory after which a run is written.
    pub entry_count: usize,
    /// Work in a thread of its own; otherwise where somebody calls [`RowIndex::work`].
    pub thread: bool,
}

pub(crate) struct RowIndex {
    disk: Arc<dyn Disk>,
    /// Where the runs are; without it nothing is indexed.
    folder: Option<PathBuf>,
    run_entry_count: usize,
    state: RwLock<State>,
    wish: Mutex<Wish>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Without gaps from the first commit on.
    runs: Vec<Arc<Run>>,
    /// Of commits from the end of the runs up to `early_end`.
    early: Buckets,
    early_end: CommitNumber,
    /// Of commits from `fresh_start` up to `fresh_end`.
    fresh: Buckets,
    fresh_start: CommitNumber,
    fresh_end: CommitNumber,
}

impl State {
    fn covered(&self) -> CommitNumber {
        self.runs.last().map_or(0, |run| run.commits.end)
    }
}

/// The later wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    #[default]
    Nothing,
    Work,
    /// Write what is in memory, even if it is not much.
    Save,
    Stop,
}

impl RowIndex {
    pub fn new(disk: Arc<dyn Disk>, folder: Option<PathBuf>, run_entry_count: usize) -> RowIndex {
        RowIndex { disk, folder, run_entry_count, state: RwLock::default(), wish: Mutex::default(), changed: Condvar::new() }
    }

    /// Finds the runs of the store's commits, whose index is complete. Later commits are to be [entered](Self::enter); the last ones
    /// may have been before.
    pub fn open(&self, shared: &Shared) {
        let mut state = self.state.write();
        let index = shared.index.read();
        if let Some(folder) = &self.folder {
            state.runs = find_runs(&*self.disk, folder, |run| {
                run.commits.end <= index.len() && index.entry(run.commits.end - 1).is_ok_and(|entry| entry.id == run.last_commit)
            });
        }
        let covered = state.covered();
        state.early_end = covered;
        if state.fresh_end == index.len() {
            state.fresh.retain(|entry| entry.1 >= covered);
            state.fresh_start = state.fresh_start.max(covered);
        } else {
            state.fresh = Buckets::default();
            (state.fresh_start, state.fresh_end) = (index.len(), index.len());
        }
    }

    /// Enters a new commit, or while the store is opened one of the last. To be called in the order of the numbers; costs no disk access.
    pub fn enter(&self, number: CommitNumber, hashes: &[u32]) {
        if self.folder.is_none() {
            return;
        }
        let mut state = self.state.write();
        if number < state.fresh_end {
            return;
        }
        if number > state.fresh_end {
            // Replay begins here, or goes on after commits that it does not look at.
            state.fresh = Buckets::default();
            state.fresh_start = number;
        }
        hashes.iter().for_each(|hash| state.fresh.push((*hash, number)));
        state.fresh_end = number + 1;
        if state.fresh.len() >= self.run_entry_count && state.fresh.len() - hashes.len() < self.run_entry_count {
            self.wish(Wish::Work);
        }
    }

    /// The commits that may have changed these rows of a table, or the table as a whole.
    pub fn find(&self, table: Oid, keys: &mut dyn Iterator<Item = &[u8]>) -> Candidates {
        self.find_hashes(keys.map(|key| row_hash(table, key)).collect(), Some(table_hash(table)))
    }

    /// The commits that may be of a source's transaction.
    pub fn find_xid(&self, xid: u32) -> Candidates {
        self.find_hashes(vec![xid_hash(xid)], None)
    }

    /// `wide`: the hash of a whole table.
    fn find_hashes(&self, mut hashes: Vec<u32>, wide: Option<u32>) -> Candidates {
        if self.folder.is_none() {
            return Candidates::all();
        }
        hashes.sort_unstable();
        hashes.dedup();
        let state = self.state.read();
        let mut numbers = Vec::new();
        for run in &state.runs {
            let found = hashes.iter().try_for_each(|hash| run.find(*hash, &mut numbers));
            if let Err(error) = found.and_then(|()| wide.map_or(Ok(()), |hash| run.find_wide(hash, &mut numbers))) {
                drop(state);
                self.forget(&error);
                return Candidates::all();
            }
        }
        for hash in hashes.into_iter().chain(wide) {
            state.early.find(hash, &mut numbers);
            state.fresh.find(hash, &mut numbers);
        }
        numbers.sort_unstable();
        numbers.dedup();
        Candidates { numbers, uncovered: state.early_end..state.fresh_start }
    }

    /// Drops all runs; the thread makes them again.
    fn forget(&self, error: &Error) {
        tracing::warn!(%error, "the row index is damaged and is made anew");
        let mut state = self.state.write();
        for run in std::mem::take(&mut state.runs) {
            remove(&*self.disk, run.path());
        }
        state.early = Buckets::default();
        state.early_end = 0;
        self.wish(Wish::Work);
    }

    fn wish(&self, wish: Wish) {
        let mut current = self.wish.lock();
        *current = (*current).max(wish);
        self.changed.notify_all();
    }

    /// To be called when a checkpoint was made: what is before it will not be replayed, so that it is read quickly after opening only
    /// from a run.
    pub fn save_soon(&self) {
        self.wish(Wish::Save);
    }

    /// Writes what is in memory, where it follows what is written. Where the thread works, that is for it to do.
    /// # Errors
    /// `Io`, `Stopped`.
    pub fn save(&self, shared: &Shared) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        self.create_folder(folder)?;
        self.write_run(shared, folder)?;
        Ok(())
    }

    fn create_folder(&self, folder: &Path) -> Result<()> {
        create_dirs(&*self.disk, folder).map_err(|source| Error::Io { action: "create", path: folder.into(), source })
    }

    fn is_stopping(&self) -> bool {
        *self.wish.lock() == Wish::Stop
    }

    /// Works until told to stop.
    fn run(&self, shared: &Shared) {
        let mut count_min = self.run_entry_count;
        loop {
            if let Err(error) = self.work(shared, count_min) {
                // What is not indexed is read commit by commit. A damaged run has said so where it was read.
                tracing::warn!(%error, "could not go on with the row index");
            }
            let mut wish = self.wish.lock();
            while *wish == Wish::Nothing {
                self.changed.wait(&mut wish);
            }
            count_min = match *wish {
                Wish::Stop => return,
                Wish::Save => (self.run_entry_count / SAVED_SHARE).max(1),
                Wish::Work | Wish::Nothing => self.run_entry_count,
            };
            *wish = Wish::Nothing;
        }
    }

    /// Indexes what is to be indexed and writes it out where there are so many entries of it.
    /// # Errors
    /// `Io`, `Damaged`, `Stopped`; what is done stays done.
    pub fn work(&self, shared: &Shared, count_min: usize) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        self.create_folder(folder)?;
        while !self.is_stopping() {
            let (in_memory, is_all) = {
                let state = self.state.read();
                let is_all = state.early_end >= state.fresh_start;
                (state.early.len() + if is_all { state.fresh.len() } else { 0 }, is_all)
            };
            // What a restart left is read first, unless it is much.
            if in_memory >= if is_all { count_min } else { self.run_entry_count } {
                if !self.write_run(shared, folder)? {
                    return Ok(());
                }
                while self.merge_runs(folder)? {}
            } else if !self.read_commits(shared)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads some of the commits that a restart left unindexed; `false` when there are none.
    fn read_commits(&self, shared: &Shared) -> Result<bool> {
        let range = {
            let state = self.state.read();
            state.early_end..state.fresh_start.min(state.early_end.saturating_add(READ_COMMIT_COUNT))
        };
        if range.is_empty() {
            return Ok(false);
        }
        let mut entries = Vec::new();
        for number in range.clone() {
            let commit = shared.commit_numbered(number)?;
            entries.extend(hashes_of(commit.changes()?, commit.meta.source.as_ref()).into_iter().map(|hash| (hash, number)));
        }
        let mut state = self.state.write();
        // Not if everything was forgotten meanwhile.
        if state.early_end == range.start {
            entries.into_iter().for_each(|entry| state.early.push(entry));
            state.early_end = range.end;
        }
        Ok(true)
    }

    /// Writes what is in memory of durable commits as a run; `false` when there is nothing to write.
    fn write_run(&self, shared: &Shared, folder: &Path) -> Result<bool> {
        let (commits, mut entries) = {
            let state = self.state.read();
            let gap = state.early_end < state.fresh_start;
            let end = if gap { state.early_end } else { state.fresh_end };
            let fresh = state.fresh.iter().filter(|_| !gap);
            (state.covered()..end, state.early.iter().chain(fresh).copied().collect::<Vec<Entry>>())
        };
        if commits.is_empty() {
            return Ok(false);
        }
        // Numbers of commits that a crash may take back do not go to the disk.
        let (last_commit, position) = {
            let index = shared.index.read();
            let entry = index.entry(commits.end - 1)?;
            (entry.id, JournalPosition(entry.sequence + 1))
        };
        shared.journal.wait_durable(position)?;
        entries.sort_unstable();
        let run = Run::write(&*self.disk, folder, commits.clone(), last_commit, entries.into_iter().map(Ok))?;
        let mut state = self.state.write();
        if state.covered() == commits.start && state.early_end >= commits.start {
            let is_later = |entry: &Entry| entry.1 >= commits.end;
            state.early.retain(is_later);
            state.fresh.retain(is_later);
            state.early_end = state.early_end.max(commits.end);
            state.fresh_start = state.fresh_start.max(commits.end);
            state.runs.push(Arc::new(run));
        }
        Ok(true)
    }

    /// How many of the last runs are to become one, if any: all that are not of a larger size, when they are enough; and of too
    /// many runs as many as costs least.
    fn merge_count(&self, runs: &[Arc<Run>]) -> Option<usize> {
        let size_class = |run: &Run| (run.entry_count / self.run_entry_count.max(1) as u64).max(1).ilog(MERGE_RUN_COUNT as u64);
        let smallest = size_class(runs.last()?);
        let same = runs.iter().rev().take_while(|run| size_class(run) <= smallest).count();
        let surplus = runs.len().saturating_sub(RUN_COUNT_MAX);
        match () {
            () if same >= MERGE_RUN_COUNT => Some(same),
            () if surplus > 0 => Some(same.max(surplus + 1)),
            () => None,
        }
    }

    /// Makes one run of the last ones when there are enough of a size.
    fn merge_runs(&self, folder: &Path) -> Result<bool> {
        let runs: Vec<Arc<Run>> = self.state.read().runs.clone();
        let Some(merge_count) = self.merge_count(&runs) else { return Ok(false) };
        let merged = &runs[runs.len() - merge_count..];
        let last = merged.last().expect("BUG: no run");
        let commits = merged[0].commits.start..last.commits.end;
        let written = Run::write(&*self.disk, folder, commits, last.last_commit, Merge::new(merged));
        let run = match written {
            Err(error @ Error::Damaged { .. }) => {
                self.forget(&error);
                return Ok(false);
            }
            other => Arc::new(other?),
        };
        let mut state = self.state.write();
        let from = state.runs.len().saturating_sub(merge_count);
        if state.runs.get(from..).is_some_and(|now| now.len() == merged.len() && now.iter().zip(merged).all(|(a, b)| Arc::ptr_eq(a, b))) {
            state.runs.truncate(from);
            state.runs.push(run);
            merged.iter().for_each(|run| remove(&*self.disk, run.path()));
            return Ok(true);
        }
        remove(&*self.disk, run.path());
        Ok(false)
    }
}

/// The thread of a store's row index.
pub(crate) struct RowIndexer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RowIndexer {
    /// # Errors
    /// `Io`.
    pub fn start(shared: Arc<Shared>, thread: bool) -> Result<RowIndexer> {
        let thread = match thread {
            false => None,
            true => {
                let of_thread = shared.clone();
                let run = move || of_thread.row_index.run(&of_thread);
                let started = std::thread::Builder::new().name("row index".into()).spawn(run);
                Some(started.map_err(|source| Error::Io { action: "start the row index thread for", path: shared.path.clone(), source })?)
            }
        };
        Ok(RowIndexer { shared, thread: Mutex::new(thread) })
    }

    /// Ends the thread, after the run that it is writing.
    pub fn stop(&self) {
        self.shared.row_index.wish(Wish::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the row index thread had panicked");
        }
    }
}

/// The entries of several runs in order.
struct Merge<'a> {
    /// What is left of each run, its next entry taken out.
    sources: Vec<(Entry, RunEntries<'a>)>,
    error: Option<Error>,
}

impl<'a> Merge<'a> {
    fn new(runs: &'a [Arc<Run>]) -> Merge<'a> {
        let mut merge = Merge { sources: Vec::with_capacity(runs.len()), error: None };
        for run in runs {
            let mut entries = run.entries();
            match entries.next() {
                Some(Ok(entry)) => merge.sources.push((entry, entries)),
                Some(Err(error)) => merge.error = Some(error),
                None => {}
            }
        }
        merge
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        if let Some(error) = self.error.take() {
            self.sources.clear();
            return Some(Err(error));
        }
        // They are few.
        let at = (0..self.sources.len()).min_by_key(|at| self.sources[*at].0)?;
        let (next, rest) = &mut self.sources[at];
        let entry = *next;
        match rest.next() {
            Some(Ok(entry)) => *next = entry,
            Some(Err(error)) => self.error = Some(error),
            None => drop(self.sources.swap_remove(at)),
        }
        Some(Ok(entry))
    }
}

/// The runs in a folder that follow each other from the first commit on and for which `fits` holds; the others are deleted.
fn find_runs(disk: &dyn Disk, folder: &Path, fits: impl Fn(&Run) -> bool) -> Vec<Arc<Run>> {
    let mut found = Vec::new();
    // Without the folder there are none; where it cannot be read they are made again.
    for name in disk.list(folder).unwrap_or_default() {
        let path = folder.join(name);
        match Run::open(disk, &path) {
            Ok(run) => found.push(run),
            // Also what a crash left half written.
            Err(_) => remove(disk, &path),
        }
    }
    // Of runs that begin with the same commit the longest: the others were merged into it.
    found.sort_by_key(|run| (run.commits.start, Reverse(run.commits.end)));
    let mut runs: Vec<Arc<Run>> = Vec::new();
    for run in found {
        let next = runs.last().map_or(0, |last| last.commits.end);
        if run.commits.start == next && fits(&run) {
            runs.push(Arc::new(run));
        } else {
            remove(disk, run.path());
        }
    }
    runs
}

fn remove(disk: &dyn Disk, path: &Path) {
    if let Err(error) = disk.remove(path) {
        tracing::warn!(%error, path = %path.display(), "could not delete a file of the row index");
    }
}
