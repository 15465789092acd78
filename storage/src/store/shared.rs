//! What every part of an open store uses: the journal, the commit index, the known root values.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use super::branch::BranchCell;
use super::sealing::JournalCommits;
use crate::chunk::ChunkReader;
use crate::commit::CommitMeta;
use crate::commit_index::{CheckpointRoot, CommitIndex, CommitNumber, NewCommit};
use crate::derived::Derived;
use crate::encoding::Malformed;
use crate::error::Result;
use crate::gc::automatic::Compaction;
use crate::gc::epochs::Epochs;
use crate::gc::named::Named;
use crate::helpers::Helpers;
use crate::id::{ChunkAddress, CommitId, Lsn};
use crate::journal::{Journal, JournalPosition};
use crate::record::{KeptRoot, KeptRoots, Record};
use crate::root::{Root, TableData};
use crate::row_index::RowIndex;
use crate::tree::{NodeCache, SpillPace};

/// Records shorter than this, in bytes as they are stored, are no reason for a checkpoint: their replay takes a fraction of a second.
const LOG_SIZE_MIN: u64 = 4 << 20;

/// Reading so many bytes of records costs as much as replaying a change.
const LOG_SIZE_PER_CHANGE: u64 = 32;

/// How long a transaction waits at most for a checkpoint to free memory: so slow, transactions hardly take any more.
const MEMORY_WAIT_MAX: Duration = Duration::from_millis(40);

/// Root values of commits that are kept in memory.
const CACHED_ROOT_COUNT: usize = 16;
/// Tables of commits that are kept in memory without the others of their root values.
pub(super) const CACHED_TABLE_COUNT: usize = 16;

pub(crate) struct Shared {
    pub path: PathBuf,
    pub journal: Arc<Journal>,
    /// The journal again, as trees want it: one door for each period between checkpoints.
    pub epochs: Epochs,
    /// What nodes take in memory.
    pub cache: Arc<NodeCache>,
    /// Locked for writing while a commit or a checkpoint is appended, so that commits are numbered in the order of the journal.
    pub index: RwLock<CommitIndex>,
    pub checkpoints: RwLock<Checkpoints>,
    /// Held by whoever moves commits from memory to a sealed segment's file.
    pub sealing: Mutex<()>,
    /// Roots made on demand, the last used at the end.
    pub cached_roots: Mutex<Vec<(CommitNumber, Root)>>,
    /// Tables made on demand, the last made at the end.
    pub cached_tables: Mutex<Vec<(CommitNumber, Arc<TableData>)>>,
    /// Root values of epochs before this one are not cached: a query that still runs has made them from what others are to forget.
    cached_epoch: AtomicU64,
    /// The branches, for their heads' roots.
    pub branches: Mutex<Vec<Weak<BranchCell>>>,
    pub derived: Derived,
    pub row_index: RowIndex,
    pub pace: CheckpointPace,
    /// Held by whoever makes a checkpoint.
    pub checkpoint_turn: Mutex<()>,
    /// Held by whoever looks for garbage, with what is known from the last time.
    pub gc_turn: Mutex<Named>,
    pub compaction: Compaction,
    /// Threads that help with old commits.
    pub helpers: Helpers,
    _lock: Box<dyn Any + Send + Sync>,
}

/// Where written root values are.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    pub roots: BTreeMap<CommitNumber, WrittenRoot>,
    /// The sequence number of the record that said last which root values are kept: those that older checkpoints tell do not
    /// count, unless it names them.
    pub kept_at: Option<u64>,
    /// What is in no sealed segment's file yet, in order.
    pub tail: Vec<CheckpointRoot>,
    /// The sequence number of the last checkpoint's record.
    pub last: Option<u64>,
}

/// A root value that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrittenRoot {
    pub address: ChunkAddress,
    /// The sequence numbers of the first and the last checkpoint's record that tell it; `None`: it was written on the way, and no
    /// record knows of it.
    pub told: Option<(u64, u64)>,
}

/// What happened since the last checkpoint, and the wish for one.
#[derive(Debug)]
pub(crate) struct CheckpointPace {
    pub row_count_max: u64,
    row_count: AtomicU64,
    /// Changes since the store was made, as far as it is known.
    change_count: AtomicU64,
    journal: Arc<Journal>,
    /// The size of the journal's records at which a checkpoint is due; no number is while one is.
    log_due: AtomicU64,
    cache: Arc<NodeCache>,
    /// So many bytes of nodes that cannot be evicted are a reason for a checkpoint; no number is while one is due.
    held_max: AtomicUsize,
    wanted: Mutex<Wish>,
    changed: Condvar,
}

/// The journal when a checkpoint began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaceMark {
    log_size: u64,
    chunk_size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    Checkpoint,
    Stop,
}

impl CheckpointPace {
    fn new(row_count_max: u64, journal: Arc<Journal>, cache: Arc<NodeCache>) -> Self {
        CheckpointPace {
            row_count_max,
            row_count: AtomicU64::new(0),
            change_count: AtomicU64::new(0),
            journal,
            log_due: AtomicU64::new(LOG_SIZE_MIN),
            held_max: AtomicUsize::new(SpillPace::default().due_at(&cache)),
            cache,
            wanted: Mutex::new(Wish::Nothing),
            changed: Condvar::new(),
        }
    }

    /// Counts changes; asks for a checkpoint when there have been enough, when their records are long enough for what the last one
    /// cost, or when what they hold in memory is too much.
    pub fn count(&self, rows: u64) {
        let before = self.row_count.fetch_add(rows, Ordering::Relaxed);
        self.change_count.fetch_add(rows, Ordering::Relaxed);
        if before < self.row_count_max && before + rows >= self.row_count_max {
            self.wish(Wish::Checkpoint);
        }
        if self.journal.log_size() >= self.log_due.load(Ordering::Relaxed) {
            self.log_due.store(u64::MAX, Ordering::Relaxed);
            self.wish(Wish::Checkpoint);
        }
        if self.cache.held() > self.held_max.load(Ordering::Relaxed) {
            self.held_max.store(usize::MAX, Ordering::Relaxed);
            self.wish(Wish::Checkpoint);
        }
        self.cache.make_room();
    }

    /// What replaying everything up to now would cost, in changes; see [`crate::record::Checkpoint::cost`].
    pub fn cost(&self) -> u64 {
        self.change_count.load(Ordering::Relaxed) + self.journal.log_size() / LOG_SIZE_PER_CHANGE
    }

    /// To be called when opening knows what that was at the last checkpoint.
    pub fn set_cost(&self, cost: u64) {
        self.change_count.store(cost, Ordering::Relaxed);
    }

    /// To be called after a checkpoint, made or failed: memory may ask for one again.
    pub fn end(&self) {
        let mut pace = SpillPace::default();
        pace.done(&self.cache);
        let _wanted = self.wanted.lock();
        self.held_max.store(pace.due_at(&self.cache), Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Delays a writer while a checkpoint that memory asked for is due and held nodes take more than half of the limit, the more they
    /// take the longer: writers are not to be faster than the checkpoint, and none is to wait for all of it.
    pub fn wait_for_memory(&self) {
        let is_due = || self.held_max.load(Ordering::Relaxed) == usize::MAX;
        let over = self.cache.held().saturating_sub(self.cache.limit() / 2);
        if over == 0 || !is_due() {
            return;
        }
        let share = over as f64 / (self.cache.limit() / 4) as f64;
        let deadline = Instant::now() + MEMORY_WAIT_MAX.mul_f64(share.min(1.0));
        let mut wanted = self.wanted.lock();
        while is_due() && *wanted != Wish::Stop && !self.changed.wait_until(&mut wanted, deadline).timed_out() {}
    }

    pub fn wish(&self, wish: Wish) {
        let mut wanted = self.wanted.lock();
        if *wanted != Wish::Stop {
            *wanted = wish;
        }
        self.changed.notify_all();
    }

    /// To be called when a checkpoint begins; returns what [`Self::written`] wants to know of its beginning.
    pub fn begin(&self) -> PaceMark {
        self.row_count.store(0, Ordering::Relaxed);
        self.log_due.store(u64::MAX, Ordering::Relaxed);
        PaceMark { log_size: self.journal.log_size(), chunk_size: self.journal.chunk_size() }
    }

    /// To be called when the checkpoint that began there is made or has failed: the records since then are to be as long as it cost
    /// before the next one is due.
    pub fn written(&self, mark: PaceMark) {
        let cost = self.journal.chunk_size() - mark.chunk_size;
        self.log_due.store(mark.log_size + cost.max(LOG_SIZE_MIN), Ordering::Relaxed);
    }

    /// Changes since the last checkpoint.
    pub fn row_count(&self) -> u64 {
        self.row_count.load(Ordering::Relaxed)
    }

    pub fn is_changed(&self) -> bool {
        self.row_count() > 0
    }

    /// Waits for a wish and takes it (a wish to stop stays).
    pub fn wait(&self) -> Wish {
        let mut wanted = self.wanted.lock();
        while *wanted == Wish::Nothing {
            self.changed.wait(&mut wanted);
        }
        let wish = *wanted;
        if wish == Wish::Checkpoint {
            *wanted = Wish::Nothing;
        }
        wish
    }
}

impl Shared {
    pub fn new(
        path: PathBuf,
        journal: Arc<Journal>,
        derived: Option<PathBuf>,
        row_index: RowIndex,
        checkpoint_row_count: u64,
        lock: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self::with_cache_size(path, journal, derived, row_index, checkpoint_row_count, super::options::default_cache_size(), lock)
    }

    /// `cache_size`: bytes of nodes in memory.
    pub fn with_cache_size(
        path: PathBuf,
        journal: Arc<Journal>,
        derived: Option<PathBuf>,
        row_index: RowIndex,
        checkpoint_row_count: u64,
        cache_size: u64,
        lock: Box<dyn Any + Send + Sync>,
    ) -> Self {
        let cache = NodeCache::new(usize::try_from(cache_size).unwrap_or(usize::MAX));
        Shared {
            path,
            epochs: Epochs::new(journal.clone(), cache.clone()),
            cache: cache.clone(),
            journal: journal.clone(),
            index: RwLock::new(CommitIndex::new(Arc::new(JournalCommits { journal: journal.clone() }))),
            sealing: Mutex::default(),
            checkpoints: RwLock::default(),
            cached_roots: Mutex::default(),
            cached_tables: Mutex::default(),
            cached_epoch: AtomicU64::new(0),
            branches: Mutex::default(),
            derived: Derived::new(derived),
            row_index,
            pace: CheckpointPace::new(checkpoint_row_count, journal, cache),
            checkpoint_turn: Mutex::new(()),
            gc_turn: Mutex::default(),
            compaction: Compaction::default(),
            helpers: Helpers::default(),
            _lock: lock,
        }
    }

    /// Where trees that are opened now read from.
    pub fn chunks(&self) -> Arc<dyn ChunkReader> {
        self.epochs.current()
    }

    /// Appends a commit's record and enters the commit, in the row index under these hashes.
    pub fn append_commit(
        &self,
        record: &[u8],
        commit: NewCommit,
        parents: &[CommitNumber],
        row_hashes: &[u32],
    ) -> Result<(JournalPosition, CommitNumber)> {
        let mut index = self.index.write();
        let prepared = index.prepare(&commit, parents)?;
        let sequence = self.journal.append_commit(record, &commit.id)?;
        let number = index.enter(prepared, sequence);
        self.row_index.enter(number, row_hashes);
        Ok((JournalPosition(sequence + 1), number))
    }

    pub fn append(&self, record: &crate::record::Record) -> Result<JournalPosition> {
        Ok(JournalPosition(self.journal.append(&record.encode())? + 1))
    }

    pub fn put_cached_root(&self, number: CommitNumber, root: Root) {
        let mut cached = self.cached_roots.lock();
        if root.chunks.as_ref().is_some_and(|chunks| self.is_forgotten(&**chunks)) {
            return;
        }
        cached.retain(|(n, _)| *n != number);
        // Inner nodes stay with their root, so with little memory there are few roots.
        if self.cache.held() > self.cache.held_max() {
            cached.clear();
        }
        if cached.len() >= CACHED_ROOT_COUNT {
            cached.remove(0);
        }
        cached.push((number, root));
    }

    /// Forgets the roots and tables made on demand, so that they hold back nothing that may be given up.
    pub fn forget_cached_roots(&self) {
        let (mut roots, mut tables) = (self.cached_roots.lock(), self.cached_tables.lock());
        self.cached_epoch.store(self.chunks().epoch(), Ordering::Relaxed);
        roots.clear();
        tables.clear();
    }

    /// Whether what reads through this door is not to be cached any more. To be asked with the cache locked.
    pub fn is_forgotten(&self, chunks: &dyn ChunkReader) -> bool {
        chunks.epoch() < self.cached_epoch.load(Ordering::Relaxed)
    }

    /// Lets the cache evict the written nodes of branches and of roots made on demand.
    pub fn release_roots(&self) {
        self.cached_roots.lock().clear();
        self.cached_tables.lock().clear();
        let branches: Vec<_> = self.branches.lock().iter().filter_map(Weak::upgrade).collect();
        for cell in branches {
            cell.lock().release();
        }
    }

    /// Notes a checkpoint whose record was appended.
    /// # Errors
    /// `Damaged` when it names a commit that does not exist.
    pub fn enter_checkpoint(&self, index: &CommitIndex, sequence: u64, roots: &[(CommitId, ChunkAddress)], kept: &KeptRoots) -> Result<()> {
        let roots = numbered_roots(index, sequence, roots)?;
        let listed = self.numbered_kept(index, kept)?;
        let mut checkpoints = self.checkpoints.write();
        if let Some(listed) = listed {
            checkpoints.keep(sequence, &listed);
        }
        checkpoints.enter(&roots);
        Ok(())
    }

    /// The list of a checkpoint that has one, under the numbers of the commits.
    fn numbered_kept(&self, index: &CommitIndex, kept: &KeptRoots) -> Result<Option<Vec<(CommitNumber, ChunkAddress)>>> {
        let KeptRoots::These(list) = kept else { return Ok(None) };
        let known = |root: &KeptRoot| Ok(index.find(&root.commit)?.map(|number| (number, root.address)));
        // One that is not known is of no use, and does no harm.
        list.iter().filter_map(|root| known(root).transpose()).collect::<Result<_>>().map(Some)
    }

    /// Forgets the root values that the last checkpoint says are not kept. For opening, when all checkpoints are entered.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn forget_roots(&self, last: u64, kept: &KeptRoots) -> Result<()> {
        let at = match kept {
            KeptRoots::All => return Ok(()),
            KeptRoots::These(_) => last,
            KeptRoots::OfRecord(sequence) => *sequence,
        };
        let listed = self.kept_of_record(at).and_then(|kept| self.numbered_kept(&self.index.read(), &kept));
        let listed = listed.unwrap_or_else(|error| {
            // They only save time.
            tracing::warn!(%error, "which old root values are kept cannot be read; they are made from newer ones");
            None
        });
        self.checkpoints.write().keep(at, &listed.unwrap_or_default());
        Ok(())
    }

    fn kept_of_record(&self, sequence: u64) -> Result<KeptRoots> {
        let place = || self.journal.place_of(sequence);
        match Record::decode_at(&self.journal.read_record(sequence)?, place)? {
            Record::Checkpoint(checkpoint) => Ok(checkpoint.kept),
            _ => Err(Malformed("not a checkpoint").at(place())),
        }
    }
}

impl Checkpoints {
    pub fn enter(&mut self, found: &[CheckpointRoot]) {
        self.enter_sealed(found);
        self.tail.extend_from_slice(found);
    }

    /// Notes checkpoints that are in a sealed segment's file already.
    pub fn enter_sealed(&mut self, found: &[CheckpointRoot]) {
        for (sequence, (number, address)) in found.iter().filter_map(|checkpoint| Some((checkpoint.sequence, checkpoint.root?))) {
            let root = self.roots.entry(number).or_insert(WrittenRoot { address, told: None });
            let first = root.told.map_or(sequence, |(first, _)| first);
            *root = WrittenRoot { address, told: Some((first, sequence)) };
        }
        self.last = found.iter().map(|checkpoint| checkpoint.sequence).max().max(self.last);
    }
}

impl Checkpoints {
    /// Forgets all root values but these, which the record there lists, and those of that record and later ones.
    fn keep(&mut self, sequence: u64, listed: &[(CommitNumber, ChunkAddress)]) {
        self.roots.retain(|_, root| root.told.is_some_and(|(_, last)| last >= sequence));
        for (number, address) in listed {
            self.roots.entry(*number).or_insert(WrittenRoot { address: *address, told: Some((sequence, sequence)) });
        }
        self.kept_at = Some(sequence);
    }
}

/// A checkpoint's roots under the numbers of their commits.
pub(crate) fn numbered_roots(index: &CommitIndex, sequence: u64, roots: &[(CommitId, ChunkAddress)]) -> Result<Vec<CheckpointRoot>> {
    if roots.is_empty() {
        return Ok(vec![CheckpointRoot { sequence, root: None }]);
    }
    let numbered = |(commit, root): &(CommitId, ChunkAddress)| match index.find(commit)? {
        Some(number) => Ok(CheckpointRoot { sequence, root: Some((number, *root)) }),
        None => Err(Malformed("checkpoint of an unknown commit").at(format!("journal record {sequence}"))),
    };
    roots.iter().map(numbered).collect()
}

/// What the index keeps of a commit; `sequence` is filled in when it is appended.
pub(crate) fn new_commit(id: CommitId, height: u64, meta: &CommitMeta, touched: u32) -> NewCommit {
    let source = meta.source.as_ref();
    NewCommit {
        id,
        sequence: 0,
        height,
        lsn: source.map_or(Lsn(u64::MAX), |s| s.commit_lsn),
        xid: source.map_or(0, |s| s.xid),
        time: meta.time(),
        touched,
    }
}
