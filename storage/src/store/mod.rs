//! The store: databases, branches, commits, durability.
//!
//! A [`Store`] is one open data directory. Under it lie the journal (the only truth), the commit index (in memory), and
//! a [`Branch`] for each branch with its root values in memory. What is committed is visible at once and durable a
//! little later; callers that must know ask [`Store::wait_durable`] or listen with [`Store::on_durable`].

mod apply;
pub(crate) mod branch;
#[cfg(test)]
mod cache_tests;
mod commits;
mod history;
mod log;
mod making;
mod near_diff;
#[cfg(test)]
mod near_diff_tests;
mod options;
#[cfg(test)]
mod past_tests;
mod read_commits;
mod rebase_checks;
pub(crate) mod registry;
pub(crate) mod roots;
mod sealing;
pub(crate) mod shared;
mod table_at;
mod table_rows;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod working_set;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use apply::Apply;
pub use branch::{Branch, BranchState};
pub use history::RowVersion;
pub use log::{LogEntry, WholeChanges};
pub use near_diff::NearDiff;
pub use options::StoreOptions;
pub use registry::Tag;
pub use table_at::TableAt;

pub use crate::fsck::{Finding, FsckReport, RepairReport, fsck, repair};
pub use crate::gc::run::{GcMode, GcReport};
pub use crate::journal::JournalPosition;

use crate::checkpoint::Checkpointer;
use crate::disk::{Disk, RealDisk, create_dirs};
use crate::error::{Error, Result};
use crate::gc::automatic::Compactor;
use crate::journal::{Access, FORMAT_VERSION, Journal, JournalOptions, SEGMENT_SIZE, is_unmade};
use crate::recovery::{self, Replayed};
use crate::row_index::{RowIndex, RowIndexOptions, RowIndexer};
use registry::Registry;
use shared::Shared;

/// The folder in the data directory that holds everything of the store.
pub(crate) const STORE_FOLDER: &str = ".strandline";
pub(crate) const JOURNAL_FOLDER: &str = "journal";
pub(crate) const ROW_INDEX_FOLDER: &str = "row-index";
const LOCK_FILE: &str = "LOCK";
pub(crate) const FORMAT_FILE: &str = "FORMAT";
const FORMAT_PREFIX: &str = "strandline store, format ";
const FORMAT_FILE_SIZE_MAX: u64 = 256;

/// An open data directory. Owns the threads of the journal, the checkpoints and the row index, which end when it is dropped.
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Arc<Mutex<Registry>>,
    checkpointer: Checkpointer,
    compactor: Compactor,
    pub(crate) row_indexer: RowIndexer,
    pub(crate) replayed: Replayed,
}

/// How a store is opened; tests choose their own disk and sizes.
pub(crate) struct OpenWith {
    pub disk: Arc<dyn Disk>,
    pub journal: JournalOptions,
    /// Row changes after which a checkpoint is made in the background.
    pub checkpoint_row_count: u64,
    /// What opening replays at least before it makes a checkpoint; see [`crate::recovery::Replayed::cost`].
    pub recovery_checkpoint_at: u64,
    /// So many bytes of garbage are given back in the background; `None`: garbage is given back when that is asked for.
    pub compaction: Option<u64>,
    /// Keep sled's cache of derived facts beside the journal.
    pub derived: bool,
    /// Keep the row index beside the journal.
    pub row_index: Option<RowIndexOptions>,
}

impl Store {
    /// Opens or creates. Takes the lock, replays the tail, starts the background threads. A long tail is followed by a checkpoint, so that
    /// it is not replayed again.
    /// # Errors
    /// `Locked`, `Format`, `Damaged`, `Io`.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Arc<Store>> {
        let group_commit = Duration::from_millis(options.group_commit_ms_max);
        let journal = JournalOptions { group_commit, segment_size: SEGMENT_SIZE, index_thread: true };
        let with = OpenWith {
            disk: Arc::new(RealDisk),
            journal,
            checkpoint_row_count: crate::checkpoint::CHECKPOINT_ROW_COUNT,
            recovery_checkpoint_at: crate::checkpoint::RECOVERY_CHECKPOINT_AT,
            compaction: options.auto_compaction.then_some(crate::gc::automatic::GAIN_MIN),
            derived: true,
            row_index: Some(RowIndexOptions { entry_count: crate::row_index::RUN_ENTRY_COUNT, thread: true }),
        };
        Self::open_with_cache(path, with, options.cache_size_max)
    }

    #[cfg(test)]
    pub(crate) fn open_with(path: &Path, with: OpenWith) -> Result<Arc<Store>> {
        Self::open_with_cache(path, with, options::default_cache_size())
    }

    /// `cache_size`: bytes of nodes in memory.
    pub(crate) fn open_with_cache(path: &Path, with: OpenWith, cache_size: u64) -> Result<Arc<Store>> {
        let folder = path.join(STORE_FOLDER);
        let lock = take_lock(&*with.disk, &folder)?;
        let interrupted = folder.join(crate::fsck::REPAIR_FILE);
        if with.disk.open_read(&interrupted).is_ok() {
            let what = "a repair was interrupted; run strandline fsck --repair again".into();
            return Err(Error::Damaged { place: interrupted.display().to_string(), what });
        }
        let format = find_format(&*with.disk, &folder)?;
        let access = if format == FoundFormat::Unmade { Access::Create } else { Access::Write };
        let journal = Journal::open(with.disk.clone(), &folder.join(JOURNAL_FOLDER), with.journal, access)?;
        // Again while there is no record: when the store was made, its sync may have failed.
        if format != FoundFormat::Ours || journal.next_sequence() == 0 {
            put_format(&*with.disk, &folder)?;
        }
        let derived = with.derived.then(|| folder.join("derived"));
        let row_index = match &with.row_index {
            Some(options) => RowIndex::new(with.disk.clone(), Some(folder.join(ROW_INDEX_FOLDER)), options.entry_count),
            None => RowIndex::new(with.disk.clone(), None, 0),
        };
        let shared = Arc::new(Shared::with_cache_size(
            path.into(),
            Arc::new(journal),
            derived,
            row_index,
            with.checkpoint_row_count,
            cache_size,
            lock,
        ));
        let (registry, replayed) = recovery::recover(&shared)?;
        let registry = Arc::new(Mutex::new(registry));
        shared.follow_seals();
        shared.row_index.open(&shared);
        if replayed.cost() >= with.recovery_checkpoint_at {
            crate::checkpoint::make_after_recovery(&shared, &registry);
        }
        let checkpointer = Checkpointer::start(shared.clone(), registry.clone())?;
        let compactor = Compactor::start(shared.clone(), registry.clone(), with.compaction)?;
        let row_indexer = RowIndexer::start(shared.clone(), with.row_index.is_some_and(|options| options.thread))?;
        Ok(Arc::new(Store { shared, registry, checkpointer, compactor, row_indexer, replayed }))
    }

    /// Writes out everything, a checkpoint included, and stops the threads.
    /// # Errors
    /// `Stopped`, `Io`.
    pub fn close(&self) -> Result<()> {
        self.row_indexer.stop();
        self.compactor.stop();
        self.checkpointer.stop();
        let checkpoint = crate::checkpoint::make(&self.shared, &self.registry);
        if let Err(error) = self.shared.row_index.save(&self.shared) {
            // It is made again.
            tracing::warn!(%error, "could not save the row index");
        }
        self.shared.journal.close()?;
        checkpoint
    }

    /// Flushes and returns when everything written so far is durable.
    /// # Errors
    /// `Stopped`.
    pub fn sync(&self) -> Result<()> {
        self.shared.journal.sync()
    }

    /// Makes a checkpoint now, as the background thread does from time to time.
    /// # Errors
    /// `Stopped`, `Io`.
    pub fn checkpoint(&self) -> Result<()> {
        crate::checkpoint::make(&self.shared, &self.registry)
    }

    /// Gives back the space of what nothing refers to any more. Commits and queries go on meanwhile; what snapshots that are still held
    /// may refer to stays.
    /// # Errors
    /// `Stopped`, `Damaged`, `Io`; nothing is lost then.
    pub fn gc(&self, mode: GcMode) -> Result<GcReport> {
        crate::gc::run::run(&self.shared, &self.registry, mode, crate::gc::kept::SPACING)
    }

    pub fn durable(&self) -> JournalPosition {
        self.shared.journal.durable()
    }

    /// Returns when the position is durable; the writer hurries for it.
    /// # Errors
    /// `Stopped`.
    pub fn wait_durable(&self, position: JournalPosition) -> Result<()> {
        self.shared.journal.wait_durable(position)
    }

    /// Calls back (on the writer thread, so briefly) whenever the durable position moves or writing stops for good (`Err`).
    pub fn on_durable(&self, callback: Box<dyn Fn(Result<JournalPosition>) + Send + Sync>) {
        self.shared.journal.on_durable(callback);
    }

    /// Bytes appended to the journal since it was opened.
    pub fn written_size(&self) -> u64 {
        self.shared.journal.written_size()
    }

    /// Row changes that opening replayed, and one for each commit: what was done since the last checkpoint. After more than
    /// an eighth of what makes a checkpoint due, opening has made one.
    pub fn replayed_change_count(&self) -> u64 {
        self.replayed.change_count
    }

    /// Bytes of nodes (of tables and indexes) in memory; see [`StoreOptions::cache_size_max`].
    pub fn cache_size(&self) -> u64 {
        self.shared.cache.resident() as u64
    }

    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.row_indexer.stop();
        self.compactor.stop();
        self.checkpointer.stop();
        // Branches that are still held elsewhere keep the journal's memory, but nothing is written any more. An error was
        // logged where it happened.
        let _ = self.shared.journal.close();
    }
}

/// Takes the lock of a store's folder, made when it is missing.
pub(crate) fn take_lock(disk: &dyn Disk, folder: &Path) -> Result<Box<dyn std::any::Any + Send + Sync>> {
    let io = |action: &'static str, path: PathBuf| move |source| Error::Io { action, path, source };
    create_dirs(disk, folder).map_err(io("create", folder.into()))?;
    let path = folder.join(LOCK_FILE);
    let lock = disk.lock(&path).map_err(io("lock", path.clone()))?;
    lock.ok_or_else(|| Error::Locked { path: folder.parent().unwrap_or(folder).into() })
}

/// Takes the lock of a store's folder and writes nothing.
pub(crate) fn take_read_lock(disk: &dyn Disk, folder: &Path) -> Result<Box<dyn std::any::Any + Send + Sync>> {
    let path = folder.join(LOCK_FILE);
    let lock = disk.lock_read(&path).map_err(|source| Error::Io { action: "lock", path, source })?;
    lock.ok_or_else(|| Error::Locked { path: folder.parent().unwrap_or(folder).into() })
}

/// What a store's folder says about its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundFormat {
    Ours,
    /// One that this version reads; what it writes from now on is of ours.
    Older,
    /// Nothing, and there is no record either: a new store, or one whose making a crash interrupted.
    Unmade,
}

/// Refuses a format that this version does not read.
/// # Errors
/// `Format`; `Damaged` where there are records without a format; `Io`.
pub(crate) fn find_format(disk: &dyn Disk, folder: &Path) -> Result<FoundFormat> {
    let path = folder.join(FORMAT_FILE);
    let io = |source| Error::Io { action: "read", path: path.clone(), source };
    let bytes = match disk.open_read(&path) {
        Ok(file) => {
            let mut bytes = vec![0; file.size().map_err(io)?.min(FORMAT_FILE_SIZE_MAX) as usize];
            file.read_at(&mut bytes, 0).map_err(io)?;
            bytes
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(io(error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    if text == format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n") {
        return Ok(FoundFormat::Ours);
    }
    match text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.trim_end().parse::<u32>().ok()) {
        Some(found) if found > FORMAT_VERSION => Err(Error::Format { path: folder.into(), found, supported: FORMAT_VERSION }),
        Some(found) if found > 0 && found < FORMAT_VERSION => Ok(FoundFormat::Older),
        // The format is written when the journal is there, so that a journal that is lost is noticed.
        _ if is_unmade(disk, &folder.join(JOURNAL_FOLDER))? => Ok(FoundFormat::Unmade),
        _ => Err(Error::Damaged { place: path.display().to_string(), what: "does not name a format".into() }),
    }
}

/// Writes down our format, the last step of the making of a store, and the first when one of an older format is written to.
pub(crate) fn put_format(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let path = folder.join(FORMAT_FILE);
    let put = || {
        let file = disk.open(&path, true)?;
        let text = format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n");
        // In the place of what is there, which a crash leaves as it is.
        file.write_at(text.as_bytes(), 0)?;
        file.set_size(text.len() as u64)?;
        file.sync()?;
        // The names of all folders above, too: a process that made them may have been killed before it synced.
        for folder in folder.ancestors() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            match disk.sync_dir(folder) {
                // Who may not even look into a folder has not made it.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        Ok(())
    };
    put().map_err(|source| Error::Io { action: "write", path: path.clone(), source })
}
