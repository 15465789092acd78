//! The journal: the one place where anything is stored.
//!
//! Records (commits, moved refs, state) and chunks (nodes of trees) are appended to numbered segment files. Callers add
//! to a buffer in memory and go on; one thread writes what has gathered and makes it durable with one sync:
//!
//! ```text
//!   append(record) ──┐                        ┌── frame ─ frame ─ frame ── fdatasync ── durable = n
//!   append(record) ──┼── pending (in order) ──┤        (one write for all)
//!   put_chunk ───────┘                        └── meanwhile the next group gathers
//! ```
//!
//! Order is everything: what was appended first is first in the file, and opening keeps a prefix of it. So a record that
//! refers to a chunk, appended after it, never survives without it; and data, refs and the replication position that
//! travel in one record, or one after the other, cannot come apart.
//!
//! Every record has a sequence number, one more than its predecessor's, for the life of the store. It names the record
//! (the commit index keeps it) and, plus one, is the [`JournalPosition`] at which the record is durable.
//!
//! A write or sync that fails stops all writing until the store is opened again: after a failed sync the operating
//! system may have dropped the pages, so trying again would report a success that is none.

mod chunk_filter;
mod claims;
mod frame;
mod indexer;
mod open;
mod pack;
mod places;
mod reader;
mod rewrite;
mod segment;
mod segment_index;
mod writer;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

pub(crate) use claims::Epoch;
pub(crate) use frame::{FRAME_BODY_SIZE_MAX, FRAME_HEADER_SIZE, FRAME_MAGIC, FrameHeader, FrameKind};
pub(crate) use indexer::SealedSegment;
#[cfg(any(test, fuzzing))]
pub(crate) use pack::unpack;
pub(crate) use reader::{BulkWriter, CommitFrame, LogFrame};
pub(crate) use rewrite::{Rewritten, SegmentShare};
#[cfg(test)]
pub(crate) use segment::as_format_1;
pub(crate) use segment::{FORMAT_VERSION, SEGMENT_HEADER_SIZE, ScanEnd, scan};

use crate::disk::Disk;
use crate::encoding::put_varint;
use crate::error::{Error, Result};
use crate::id::{ChunkAddress, CommitId};
use claims::Claims;
use indexer::Indexer;
use pack::FrameCommit;
use places::{OpenFiles, Places};
use reader::FrameCache;
use segment::LogFrameAt;

/// A segment is sealed when it has grown to this size.
pub(crate) const SEGMENT_SIZE: u64 = 64 << 20;
/// And when it has so many records: opening reads those of the last segment, and packed ones are short.
const SEGMENT_RECORD_COUNT_MAX: u64 = 1 << 18;
/// Records are gathered into frames of about this size before they are packed: larger ones pack better (twice this would save nine
/// bytes a pgbench commit), smaller ones make reading one commit cheaper. See `docs/design/0010-flat-history.md`.
const LOG_FRAME_SIZE: usize = 4 << 10;
const LOG_FRAME_RECORD_COUNT_MAX: usize = u16::MAX as usize;
/// The largest record; also what keeps a frame below [`FRAME_BODY_SIZE_MAX`].
pub(crate) const RECORD_SIZE_MAX: usize = FRAME_BODY_SIZE_MAX - 16;
/// Writers of chunks wait while more than this is pending, so that a checkpoint does not delay commits by more than
/// the writing of so much.
const PENDING_CHUNK_SIZE_MAX: usize = 1 << 20;
/// The same for a table that is filled: larger groups cost fewer syncs, and a commit that comes behind one waits longer.
const PENDING_BULK_SIZE_MAX: usize = 8 << 20;
/// Committers wait while more than this is pending.
const PENDING_LOG_SIZE_MAX: usize = 64 << 20;
/// Batches that are kept to be filled again, unless one is much larger than a frame.
const SPARE_BATCH_COUNT_MAX: usize = 128;

/// A place in the journal: everything before it is durable once [`crate::Store::durable`] has reached it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JournalPosition(pub u64);

/// What to call when the durable position moves, or writing stops.
pub(crate) type DurableCallback = Box<dyn Fn(Result<JournalPosition>) + Send + Sync>;

/// What a journal is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading alone: nothing on the disk is changed, a torn end is passed over.
    Read,
    /// Writing to a journal that is there.
    Write,
    /// Writing to a journal whose making a crash may have interrupted, or that is not there at all.
    Create,
}

#[derive(Clone, Debug)]
pub(crate) struct JournalOptions {
    pub group_commit: Duration,
    pub segment_size: u64,
    /// Indexes of full segments are made by a thread of their own; otherwise by the one that writes, which keeps the order of
    /// what happens to the disk the same in every run.
    pub index_thread: bool,
}

/// An open journal. Ends its thread when dropped, after writing what is pending.
pub(crate) struct Journal {
    core: Arc<Core>,
    /// That writes and, ended after it, that makes indexes.
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

struct Core {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    options: JournalOptions,
    pending: Mutex<Pending>,
    /// Something is pending, somebody waits, or the journal closes.
    work: Condvar,
    /// The durable position has moved, or writing has stopped.
    done: Condvar,
    durable: AtomicU64,
    written_size: AtomicU64,
    /// Of it the frames of records, and those of chunks.
    log_size: AtomicU64,
    chunk_size: AtomicU64,
    access: Access,
    places: RwLock<Places>,
    files: OpenFiles,
    callbacks: Mutex<Vec<DurableCallback>>,
    indexer: Indexer,
    frames: FrameCache,
    /// Held by whoever rewrites a segment or makes its index.
    rewriting: Mutex<()>,
    claims: Claims,
}

/// What was appended and is not yet written.
#[derive(Default)]
struct Pending {
    items: VecDeque<Item>,
    /// Handed to the writer thread; here until they are found through `places`.
    writing: Vec<Arc<LogBatch>>,
    /// Written, to be filled again.
    spare: Vec<LogBatch>,
    chunks: HashMap<ChunkAddress, Arc<[u8]>, AddressHash>,
    next_sequence: u64,
    log_size: usize,
    chunk_size: usize,
    waiter_count: usize,
    /// The segment is to be sealed, however small it is.
    seal: bool,
    closing: bool,
    /// Why nothing is written any more.
    stopped: Option<Arc<str>>,
}

impl Pending {
    /// # Errors
    /// `Stopped`.
    fn check_open(&self) -> Result<()> {
        match &self.stopped {
            Some(why) => Err(Error::Stopped { why: why.clone() }),
            None if self.closing => Err(Error::Stopped { why: "it was closed".into() }),
            None => Ok(()),
        }
    }
}

enum Item {
    Log(LogBatch),
    Chunk(ChunkAddress, Arc<[u8]>),
}

/// The records of one frame to be.
#[derive(Default)]
struct LogBatch {
    sequence: u64,
    bytes: Vec<u8>,
    /// Where each record begins in `bytes`, after its length, and where it ends.
    records: Vec<(u32, u32)>,
    commits: Vec<FrameCommit>,
}

/// Addresses are hashes already.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }
    fn write_usize(&mut self, _: usize) {}
}

pub(crate) type AddressHash = BuildHasherDefault<AddressHasher>;

impl Journal {
    /// Opens the journal in a folder, or makes an empty one; see `open.rs` for what happens to a torn end.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, options: JournalOptions, access: Access) -> Result<Journal> {
        let (core, writer) = open::open(disk, folder, options, access)?;
        let journal = Journal { core: core.clone(), threads: Mutex::default() };
        if access == Access::Read {
            return Ok(journal);
        }
        let failed = |source| Error::Io { action: "start the threads for", path: folder.into(), source };
        let builder = |name: &str| std::thread::Builder::new().name(name.into());
        let write = builder("journal").spawn({
            let core = core.clone();
            move || writer.run(&core)
        });
        journal.threads.lock().push(write.map_err(failed)?);
        if core.options.index_thread {
            journal.threads.lock().push(builder("journal index").spawn(move || core.run_indexer()).map_err(failed)?);
        }
        Ok(journal)
    }

    /// Appends a record and returns its sequence number. Never waits for the disk.
    /// # Errors
    /// `Stopped`, `Limit`.
    pub fn append(&self, record: &[u8]) -> Result<u64> {
        self.append_all(&[record], None)
    }

    /// Appends the record of a commit with this id and returns its sequence number. Knowing the id saves storing it in the next commit.
    /// # Errors
    /// `Stopped`, `Limit`.
    pub fn append_commit(&self, record: &[u8], id: &CommitId) -> Result<u64> {
        self.append_all(&[record], Some(id))
    }

    /// Appends records of which a crash leaves all or none, and returns the first one's sequence number.
    /// # Errors
    /// `Stopped`, `Limit`.
    pub fn append_together(&self, records: &[&[u8]]) -> Result<u64> {
        self.append_all(records, None)
    }

    fn append_all(&self, records: &[&[u8]], commit: Option<&CommitId>) -> Result<u64> {
        let size: usize = records.iter().map(|record| record.len()).sum();
        if size > RECORD_SIZE_MAX {
            return Err(Error::Limit { what: "size of a journal record", limit: RECORD_SIZE_MAX as u64 });
        }
        let mut pending = self.core.pending.lock();
        pending.check_open()?;
        let sequence = pending.next_sequence;
        // One frame holds them all: it is read back whole or not at all.
        let fits = match pending.items.back() {
            Some(Item::Log(batch)) => {
                batch.bytes.len() + size <= LOG_FRAME_SIZE && batch.records.len() + records.len() <= LOG_FRAME_RECORD_COUNT_MAX
            }
            _ => false,
        };
        let was_empty = pending.items.is_empty();
        if !fits {
            let mut batch = pending.spare.pop().unwrap_or_default();
            batch.sequence = sequence;
            batch.bytes.reserve(size.max(LOG_FRAME_SIZE) + 256);
            pending.items.push_back(Item::Log(batch));
        }
        let Some(Item::Log(batch)) = pending.items.back_mut() else { unreachable!("BUG: the last item is a log batch") };
        for record in records {
            put_varint(&mut batch.bytes, record.len() as u64);
            let start = batch.bytes.len() as u32;
            batch.bytes.extend_from_slice(record);
            batch.records.push((start, batch.bytes.len() as u32));
        }
        if let Some(id) = commit {
            batch.commits.push((batch.records.len() as u32 - 1, *id));
        }
        pending.next_sequence += records.len() as u64;
        pending.log_size += size;
        if was_empty {
            self.core.work.notify_one();
        }
        Ok(sequence)
    }

    /// Says whether records can be appended.
    pub fn is_writable(&self) -> bool {
        self.core.pending.lock().check_open().is_ok()
    }

    /// Waits while so much is pending that appending more would only fill memory. To be called without locks held.
    pub fn wait_for_room(&self) {
        let mut pending = self.core.pending.lock();
        while pending.log_size > PENDING_LOG_SIZE_MAX && pending.stopped.is_none() {
            self.core.done.wait(&mut pending);
        }
    }

    /// Appends a chunk unless it is there. Waits while many chunks are pending.
    /// # Errors
    /// `Stopped`, `Limit`.
    pub fn put_chunk(&self, address: ChunkAddress, bytes: &[u8]) -> Result<()> {
        self.put_chunk_within(PENDING_CHUNK_SIZE_MAX, address, bytes)
    }

    /// As [`Journal::put_chunk`]; waits while more bytes than this are pending.
    fn put_chunk_within(&self, pending_max: usize, address: ChunkAddress, bytes: &[u8]) -> Result<()> {
        if bytes.len() > FRAME_BODY_SIZE_MAX {
            return Err(Error::Limit { what: "size of a chunk", limit: FRAME_BODY_SIZE_MAX as u64 });
        }
        if self.core.claim_chunk(&address)? {
            return Ok(());
        }
        let mut pending = self.core.pending.lock();
        while pending.chunk_size > pending_max && pending.stopped.is_none() {
            self.core.done.wait(&mut pending);
        }
        pending.check_open()?;
        if pending.chunks.contains_key(&address) {
            return Ok(());
        }
        let bytes: Arc<[u8]> = bytes.into();
        pending.chunk_size += bytes.len();
        pending.chunks.insert(address, bytes.clone());
        let was_empty = pending.items.is_empty();
        pending.items.push_back(Item::Chunk(address, bytes));
        if was_empty {
            self.core.work.notify_one();
        }
        Ok(())
    }

    /// The sequence number that the next record gets.
    pub fn next_sequence(&self) -> u64 {
        self.core.pending.lock().next_sequence
    }

    pub fn durable(&self) -> JournalPosition {
        JournalPosition(self.core.durable.load(Ordering::Acquire))
    }

    /// Bytes written since the journal was opened.
    pub fn written_size(&self) -> u64 {
        self.core.written_size.load(Ordering::Relaxed)
    }

    /// Bytes of records written since the journal was opened, as they are stored.
    pub fn log_size(&self) -> u64 {
        self.core.log_size.load(Ordering::Relaxed)
    }

    /// Bytes of chunks written since the journal was opened, as they are stored.
    pub fn chunk_size(&self) -> u64 {
        self.core.chunk_size.load(Ordering::Relaxed)
    }

    /// Returns when the position is durable. Makes the writer hurry.
    /// # Errors
    /// `Stopped`.
    pub fn wait_durable(&self, position: JournalPosition) -> Result<()> {
        if self.durable() >= position {
            return Ok(());
        }
        let mut pending = self.core.pending.lock();
        let position = position.0.min(pending.next_sequence);
        pending.waiter_count += 1;
        self.core.work.notify_one();
        while self.core.durable.load(Ordering::Acquire) < position && pending.stopped.is_none() {
            self.core.done.wait(&mut pending);
        }
        pending.waiter_count -= 1;
        if self.core.durable.load(Ordering::Acquire) >= position { Ok(()) } else { pending.check_open() }
    }

    /// Returns when everything appended so far is durable, chunks included.
    /// # Errors
    /// `Stopped`.
    pub fn sync(&self) -> Result<()> {
        let mut pending = self.core.pending.lock();
        let position = pending.next_sequence;
        pending.waiter_count += 1;
        self.core.work.notify_one();
        while pending.stopped.is_none()
            && (self.core.durable.load(Ordering::Acquire) < position || !pending.items.is_empty() || !pending.chunks.is_empty())
        {
            self.core.done.wait(&mut pending);
        }
        pending.waiter_count -= 1;
        match &pending.stopped {
            Some(why) => Err(Error::Stopped { why: why.clone() }),
            None => Ok(()),
        }
    }

    pub fn on_durable(&self, callback: DurableCallback) {
        self.core.callbacks.lock().push(callback);
    }

    /// Writes what is pending and ends the thread. Appending is refused from now on.
    /// # Errors
    /// `Stopped`.
    pub fn close(&self) -> Result<()> {
        {
            let mut pending = self.core.pending.lock();
            pending.closing = true;
            self.core.work.notify_one();
        }
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let ended = thread.join();
            // Nothing is sealed any more once the writer has ended.
            self.core.indexer.close();
            ended.map_err(|_| Error::Stopped { why: "one of its threads had panicked".into() })?;
        }
        match &self.core.pending.lock().stopped {
            Some(why) => Err(Error::Stopped { why: why.clone() }),
            None => Ok(()),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // An error was logged where it happened, and nothing unsynced was promised to anybody.
        let _ = self.close();
    }
}

/// The segments of a folder in order: path, and how to read one whole.
pub(crate) type SegmentFile = (PathBuf, Box<dyn Fn() -> Result<Vec<u8>>>);

/// Says whether a folder holds no more than the making of a journal leaves when it is interrupted: no record.
/// # Errors
/// `Io`.
pub(crate) fn is_unmade(disk: &dyn Disk, folder: &Path) -> Result<bool> {
    let names = match disk.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        names => names.map_err(io_error("list", folder))?,
    };
    let mut segments = names.iter().filter_map(|name| segment::segment_number(name));
    match (segments.next(), segments.next()) {
        (None, _) => Ok(true),
        (Some(1), None) => {
            let path = segment::segment_path(folder, 1);
            let size = disk.open_read(&path).and_then(|file| file.size()).map_err(io_error("read", &path))?;
            Ok(size <= segment::SEGMENT_HEADER_SIZE as u64)
        }
        _ => Ok(false),
    }
}

/// Says whether the mark of what is durable is damaged or missing, so that a lost end could pass for one that a crash left.
/// # Errors
/// `Io`.
pub(crate) fn find_mark_damage(disk: &dyn Disk, folder: &Path) -> Result<Option<(PathBuf, &'static str)>> {
    let path = folder.join(writer::SyncedMark::NAME);
    let mark = writer::SyncedMark::open(disk, folder, Access::Read).map_err(io_error("open", &path))?;
    let found = mark.read().map_err(io_error("read", &path))?;
    let what = match found {
        found if found.is_damaged => "fails its checksum",
        found if found.number == 0 => "does not say how much of the journal is durable",
        _ => return Ok(None),
    };
    Ok(Some((path, what)))
}

/// How much of the journal was durable, if its mark says so: the segment's path and size.
/// # Errors
/// `Io`.
pub(crate) fn marked_durable(disk: &dyn Disk, folder: &Path) -> Result<Option<(PathBuf, u64)>> {
    let path = folder.join(writer::SyncedMark::NAME);
    let mark = writer::SyncedMark::open(disk, folder, Access::Read).map_err(io_error("open", &path))?;
    let found = mark.read().map_err(io_error("read", &path))?;
    Ok((!found.is_damaged && found.number > 0).then(|| (segment::segment_path(folder, found.number), found.size)))
}

/// # Errors
/// `Io`.
pub(crate) fn segment_files(disk: &dyn Disk, folder: &Path) -> Result<Vec<SegmentFile>> {
    let names = disk.list(folder).map_err(io_error("list", folder))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|n| segment::segment_number(n)).collect();
    numbers.sort_unstable();
    let mut files: Vec<SegmentFile> = Vec::new();
    for number in numbers {
        let path = segment::segment_path(folder, number);
        let file = disk.open_read(&path).map_err(io_error("open", &path))?;
        let read_path = path.clone();
        files.push((path, Box::new(move || segment::read_all(&*file).map_err(io_error("read", &read_path)))));
    }
    Ok(files)
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::Io { action, path: path.into(), source }
}
