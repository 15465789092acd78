//! The thread that writes: frames, syncs, seals segments, and tells how far the journal is durable.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::frame::{FrameKind, NewFrame};
use super::places::{Place, Recent};
use super::segment::{ChunkAt, FramesHash, LogFrameAt, SEGMENT_HEADER_SIZE, encode_header, encode_trailer, segment_path};
use super::{Access, Core, Item, JournalPosition, LOG_FRAME_SIZE, LogBatch, Pending, SEGMENT_RECORD_COUNT_MAX, SPARE_BATCH_COUNT_MAX};
use crate::disk::{Disk, DiskFile};
use crate::error::Error;

/// What is gathered is written in pieces of at most about this size.
/// Tests see groups of several writes, too.
const WRITE_SIZE: usize = if cfg!(test) { 1 << 12 } else { 1 << 20 };
/// A group that has grown to this size does not wait any longer for its sync.
const GROUP_SIZE_MAX: usize = 1 << 20;

/// The writer thread's own: the segment that is being written.
pub(crate) struct Writer {
    pub number: u32,
    pub file: Arc<dyn DiskFile>,
    /// Where the next frame goes, the buffer not counted.
    pub offset: u64,
    /// The sequence number of the segment's first record.
    pub first_sequence: u64,
    /// The sequence number after the last record.
    pub next_sequence: u64,
    /// Of the frames, those in the buffer included.
    pub frames_hash: FramesHash,
    /// How much of the segment is durable.
    pub synced: u64,
    /// Says after each sync how far it went; see [`SyncedMark`].
    pub mark: SyncedMark,
    pub buffer: Vec<u8>,
    /// The segment was found sealed: the next one is begun before anything is written.
    pub already_sealed: bool,
}

/// Nobody is left waiting for a thread that has panicked.
struct Guard<'a>(&'a Core);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            stop(self.0, &self.0.folder, &io::Error::other("the thread that writes has panicked"));
        }
    }
}

/// A group under way: where its parts go.
#[derive(Default)]
struct Placed {
    log_frames: Vec<(LogFrameAt, u32)>,
    chunks: Vec<(crate::id::ChunkAddress, u32, ChunkAt)>,
}

impl Writer {
    /// Runs until the journal closes or a write fails.
    pub fn run(mut self, core: &Core) {
        let _guard = Guard(core);
        let mut last_sync: Option<Instant> = None;
        loop {
            let Some(Group { items, next_sequence, seal }) = take_group(core, last_sync) else { return };
            last_sync = Some(Instant::now());
            let written = self.write_group(core, items).and_then(|()| if seal { self.seal_early(core) } else { Ok(()) });
            match written {
                Ok(()) => publish(core, next_sequence, seal),
                Err((path, error)) => {
                    stop(core, &path, &error);
                    return;
                }
            }
        }
    }

    /// Seals a segment that is not full, if there is anything in it.
    fn seal_early(&mut self, core: &Core) -> Result<(), (PathBuf, io::Error)> {
        if self.already_sealed || self.offset > SEGMENT_HEADER_SIZE as u64 { self.seal(core, &mut Placed::default()) } else { Ok(()) }
    }

    fn write_group(&mut self, core: &Core, items: Vec<Written>) -> Result<(), (PathBuf, io::Error)> {
        let mut placed = Placed::default();
        for item in items {
            let is_full = self.offset + self.buffer.len() as u64 >= core.options.segment_size
                || self.next_sequence - self.first_sequence >= SEGMENT_RECORD_COUNT_MAX;
            if self.already_sealed || is_full {
                self.seal(core, &mut placed)?;
            }
            let offset = (self.offset + self.buffer.len() as u64) as u32;
            let synced = self.synced as u32;
            let frame_at = self.buffer.len();
            match &item {
                Written::Log(batch) => {
                    let record_count = batch.records.len() as u16;
                    let frame = NewFrame {
                        kind: FrameKind::Log,
                        record_count,
                        sequence: batch.sequence,
                        synced,
                        address: None,
                        body: &batch.bytes,
                        commits: &batch.commits,
                    };
                    let size = frame.encode(&mut self.buffer);
                    core.log_size.fetch_add(size as u64, Ordering::Relaxed);
                    let at = LogFrameAt { sequence: batch.sequence, offset, record_count };
                    self.next_sequence = batch.sequence + u64::from(record_count);
                    placed.log_frames.push((at, self.number));
                }
                Written::Chunk(address, bytes) => {
                    let frame = NewFrame {
                        kind: FrameKind::Chunk,
                        record_count: 0,
                        sequence: self.next_sequence,
                        synced,
                        address: Some(*address),
                        body: bytes,
                        commits: &[],
                    };
                    let at = ChunkAt { offset, size: frame.encode(&mut self.buffer) as u32 };
                    core.chunk_size.fetch_add(u64::from(at.size), Ordering::Relaxed);
                    placed.chunks.push((*address, self.number, at));
                }
            }
            self.frames_hash.add(&self.buffer[frame_at..]);
            if self.buffer.len() >= WRITE_SIZE {
                self.flush(core)?;
            }
        }
        self.sync(core)?;
        place(core, placed);
        Ok(())
    }

    fn path(&self, core: &Core) -> PathBuf {
        segment_path(&core.folder, self.number)
    }

    fn flush(&mut self, core: &Core) -> Result<(), (PathBuf, io::Error)> {
        if !self.buffer.is_empty() {
            self.file.write_at(&self.buffer, self.offset).map_err(|e| (self.path(core), e))?;
            self.offset += self.buffer.len() as u64;
            core.written_size.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
            self.buffer.clear();
        }
        Ok(())
    }

    fn sync(&mut self, core: &Core) -> Result<(), (PathBuf, io::Error)> {
        self.flush(core)?;
        self.file.sync().map_err(|e| (self.path(core), e))?;
        self.synced = self.offset;
        self.mark.write(self.number, self.synced).map_err(|e| (core.folder.join(SyncedMark::NAME), e))
    }

    /// Ends the segment and begins the next one.
    fn seal(&mut self, core: &Core, placed: &mut Placed) -> Result<(), (PathBuf, io::Error)> {
        let sealed = self.number;
        if !std::mem::take(&mut self.already_sealed) {
            // What the seal speaks of is durable before it.
            self.sync(core)?;
            place(core, std::mem::take(placed));
            let (seal, synced) = (self.frames_hash.seal(self.next_sequence), self.synced as u32);
            let frame = NewFrame {
                kind: FrameKind::Seal,
                record_count: 0,
                sequence: self.next_sequence,
                synced,
                address: None,
                body: &seal,
                commits: &[],
            };
            frame.encode(&mut self.buffer);
            self.buffer.extend_from_slice(&encode_trailer(self.offset));
            self.sync(core)?;
        }
        self.number += 1;
        let path = self.path(core);
        self.file = create_segment(core, self.number, self.next_sequence).map_err(|e| (path, e))?;
        let mark = self.mark.write(self.number, SEGMENT_HEADER_SIZE as u64).and_then(|()| self.mark.sync());
        mark.map_err(|e| (core.folder.join(SyncedMark::NAME), e))?;
        self.offset = SEGMENT_HEADER_SIZE as u64;
        self.synced = self.offset;
        self.first_sequence = self.next_sequence;
        self.frames_hash = FramesHash::default();
        let recent = Recent { sequences: self.next_sequence..self.next_sequence, ..Recent::default() };
        core.places.write().push(Place::Recent(recent));
        core.sealed(sealed);
        Ok(())
    }
}

/// Makes a segment's file with its header, both durable.
fn create_segment(core: &Core, number: u32, first_sequence: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = core.disk.open(&segment_path(&core.folder, number), true)?;
    file.set_size(0)?;
    file.write_at(&encode_header(number, first_sequence), 0)?;
    file.sync()?;
    core.disk.sync_dir(&core.folder)?;
    Ok(file)
}

enum Written {
    Log(Arc<LogBatch>),
    Chunk(crate::id::ChunkAddress, Arc<[u8]>),
}

/// What is written together.
struct Group {
    items: Vec<Written>,
    /// The sequence number after its last record.
    next_sequence: u64,
    /// The segment is to be sealed behind it.
    seal: bool,
}

/// Waits for something to write and takes it; `None` when the journal closes. An idle journal writes at once; under load
/// groups follow each other at the set distance, unless somebody waits.
fn take_group(core: &Core, last_sync: Option<Instant>) -> Option<Group> {
    let mut pending = core.pending.lock();
    loop {
        if pending.seal {
            break;
        }
        if pending.items.is_empty() {
            if pending.closing {
                return None;
            }
            core.work.wait(&mut pending);
            continue;
        }
        let due = last_sync.map(|at| at + core.options.group_commit).filter(|due| *due > Instant::now());
        match due {
            Some(due) if pending.waiter_count == 0 && !pending.closing && pending.log_size + pending.chunk_size < GROUP_SIZE_MAX => {
                core.work.wait_until(&mut pending, due);
            }
            _ => break,
        }
    }
    let mut items = Vec::with_capacity(pending.items.len());
    for item in std::mem::take(&mut pending.items) {
        items.push(match item {
            Item::Log(batch) => {
                let batch = Arc::new(batch);
                pending.writing.push(batch.clone());
                Written::Log(batch)
            }
            Item::Chunk(address, bytes) => Written::Chunk(address, bytes),
        });
    }
    Some(Group { items, next_sequence: pending.next_sequence, seal: pending.seal })
}

/// Enters where things are now.
fn place(core: &Core, placed: Placed) {
    let mut places = core.places.write();
    for (frame, number) in placed.log_frames {
        let recent = places.recent_mut(number);
        recent.sequences.end = frame.sequence + u64::from(frame.record_count);
        recent.log_frames.push(frame);
    }
    for (address, number, at) in placed.chunks {
        places.recent_mut(number).chunks.insert(address, at);
    }
}

fn publish(core: &Core, next_sequence: u64, sealed: bool) {
    {
        let mut pending = core.pending.lock();
        pending.seal &= !sealed;
        let Pending { writing, spare, .. } = &mut *pending;
        for written in writing.drain(..) {
            // A reader may look at it still.
            let Some(mut batch) = Arc::into_inner(written) else { continue };
            if spare.len() < SPARE_BATCH_COUNT_MAX && batch.bytes.capacity() <= 2 * LOG_FRAME_SIZE {
                batch.bytes.clear();
                batch.records.clear();
                batch.commits.clear();
                spare.push(batch);
            }
        }
        // Those put since the group was taken are still among the items.
        let mut chunks = std::mem::take(&mut pending.chunks);
        chunks.clear();
        let mut chunk_size = 0;
        let mut log_size = 0;
        for item in &pending.items {
            match item {
                Item::Chunk(address, bytes) => {
                    chunk_size += bytes.len();
                    chunks.insert(*address, bytes.clone());
                }
                Item::Log(batch) => log_size += batch.bytes.len(),
            }
        }
        pending.chunks = chunks;
        pending.chunk_size = chunk_size;
        pending.log_size = log_size;
        core.durable.store(next_sequence, Ordering::Release);
        core.done.notify_all();
    }
    for callback in &*core.callbacks.lock() {
        callback(Ok(JournalPosition(next_sequence)));
    }
}

fn stop(core: &Core, path: &Path, error: &io::Error) {
    tracing::error!(path = %path.display(), %error, "could not write to the journal; the store stops writing until it is opened again");
    let why: Arc<str> = format!("could not write {}: {error}", path.display()).into();
    {
        let mut pending = core.pending.lock();
        pending.stopped = Some(why.clone());
        core.done.notify_all();
    }
    for callback in &*core.callbacks.lock() {
        callback(Err(Error::Stopped { why: why.clone() }));
    }
}

/// A small file that says how far the last segment is durable. It is written after each sync and not synced itself: after a
/// crash of the process it is exact, after a power loss it may lag behind but is never ahead. Where a segment begins it is
/// synced, so that a segment that held something cannot pass for a new one. Damage before the mark is damage; only after it
/// may a torn write be cut off.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 4 | number of the segment |
/// | 4 | 8 | durable size |
/// | 12 | 4 | CRC32C of bytes 0 to 11 |
pub(crate) struct SyncedMark {
    /// `None` where it is missing and nothing is to be written.
    file: Option<Arc<dyn DiskFile>>,
}

/// What a mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundMark {
    /// 0 when it says nothing.
    pub number: u32,
    pub size: u64,
    pub is_damaged: bool,
}

impl SyncedMark {
    pub const NAME: &'static str = "SYNCED";
    const SIZE: usize = 16;

    pub fn open(disk: &dyn Disk, folder: &Path, access: Access) -> io::Result<SyncedMark> {
        let path = folder.join(Self::NAME);
        let opened = if access == Access::Read { disk.open_read(&path) } else { disk.open(&path, true) };
        match opened {
            Ok(file) => Ok(SyncedMark { file: Some(file) }),
            Err(error) if access == Access::Read && error.kind() == io::ErrorKind::NotFound => Ok(SyncedMark { file: None }),
            Err(error) => Err(error),
        }
    }

    pub fn write(&self, number: u32, size: u64) -> io::Result<()> {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        bytes[4..12].copy_from_slice(&size.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..12]);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        self.file.as_ref().map_or(Ok(()), |file| file.write_at(&bytes, 0))
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync())
    }

    /// Says nothing where the file is missing, or empty, or was never written to.
    pub fn read(&self) -> io::Result<FoundMark> {
        let nothing = FoundMark::default();
        let Some(file) = &self.file else { return Ok(nothing) };
        let size = file.size()?;
        let mut bytes = [0; Self::SIZE];
        file.read_at(&mut bytes[..size.min(Self::SIZE as u64) as usize], 0)?;
        if bytes == [0; Self::SIZE] {
            return Ok(nothing);
        }
        let crc = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        if size != Self::SIZE as u64 || crc != crc32c::crc32c(&bytes[..12]) {
            return Ok(FoundMark { is_damaged: true, ..nothing });
        }
        let number = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let size = u64::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7], bytes[8], bytes[9], bytes[10], bytes[11]]);
        Ok(FoundMark { number, size, is_damaged: false })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::disk::SimulatedDisk;
    use crate::journal::{Journal, JournalOptions, LOG_FRAME_RECORD_COUNT_MAX};

    #[test]
    fn a_segment_is_sealed_when_it_has_so_many_records_however_short_they_are() {
        let disk = SimulatedDisk::default();
        let options = JournalOptions { group_commit: Duration::ZERO, segment_size: 1 << 30, index_thread: false };
        let open = || Journal::open(Arc::new(disk.clone()), Path::new("/j"), options.clone(), Access::Create).unwrap();
        let journal = open();
        let record = |n: u64| (n as u16).to_le_bytes();
        let append = |numbers: std::ops::Range<u64>| {
            for n in numbers {
                journal.append(&record(n)).unwrap();
            }
        };
        append(0..SEGMENT_RECORD_COUNT_MAX - 10);
        journal.sync().unwrap();
        assert!(disk.file("00000001.seg").is_some() && disk.file("00000002.seg").is_none());
        append(SEGMENT_RECORD_COUNT_MAX - 10..SEGMENT_RECORD_COUNT_MAX);
        journal.sync().unwrap();
        append(SEGMENT_RECORD_COUNT_MAX..SEGMENT_RECORD_COUNT_MAX + 10);
        journal.sync().unwrap();
        assert!(disk.file("00000002.seg").is_some() && disk.file("00000003.seg").is_none());
        drop(journal);
        let journal = open();
        let sealed = journal.sealed_from(1);
        assert_eq!(sealed.len(), 1);
        let count = sealed[0].sequences.end;
        assert!((SEGMENT_RECORD_COUNT_MAX..SEGMENT_RECORD_COUNT_MAX + LOG_FRAME_RECORD_COUNT_MAX as u64).contains(&count), "{count}");
        for n in (0..SEGMENT_RECORD_COUNT_MAX + 10).step_by(997).chain(SEGMENT_RECORD_COUNT_MAX - 2..SEGMENT_RECORD_COUNT_MAX + 10) {
            assert_eq!(*journal.read_record(n).unwrap(), record(n), "{n}");
        }
    }
}
