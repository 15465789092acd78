//! Opening the journal: what each segment holds, and what to do about an end that a crash left torn.
//!
//! A sealed segment is known by its index, which is mapped; where that is missing, damaged or about another segment, it is
//! made from the frames. The last segment, unsealed, is read whole. A frame that is incomplete or fails its checksum there is
//! the mark of a write that a crash interrupted, if it lies beyond everything known to have been durable: then it is cut off.
//! Anywhere else it is damage, and opening is refused with file and offset, since going on would lose what was acknowledged.
//!
//! What is read beyond the [`SyncedMark`] may be in the operating system's cache only, and a sync that failed before may
//! have made the system forget to write it. So it is written once more before it counts as durable.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Condvar, Mutex, RwLock};

use super::frame::FRAME_HEADER_SIZE;
use super::places::{Place, Places, Recent};
use super::rewrite::remove_unfinished;
use super::segment::{
    Contents, FramesHash, SEGMENT_HEADER_SIZE, ScanEnd, TRAILER_SIZE, decode_header, decode_trailer, encode_header, read_all, scan,
    segment_number, segment_path, subject_of, synced_after,
};
use super::segment_index::{self, SegmentIndex};
use super::writer::{SyncedMark, Writer};
use super::{Access, Core, FORMAT_VERSION, JournalOptions, Pending, io_error};
use crate::disk::{Disk, DiskFile, create_dirs};
use crate::encoding::Malformed;
use crate::error::{Error, Result};

/// What is written again at opening goes in pieces of this size.
const SETTLE_SIZE: u64 = 1 << 20;

pub(super) fn open(disk: Arc<dyn Disk>, folder: &Path, options: JournalOptions, access: Access) -> Result<(Arc<Core>, Writer)> {
    if access != Access::Read {
        create_dirs(&*disk, folder).map_err(io_error("create", folder))?;
    }
    if access != Access::Read {
        remove_unfinished(&*disk, folder).map_err(io_error("clear", folder))?;
    }
    let mut numbers: Vec<u32> = disk.list(folder).map_err(io_error("list", folder))?.iter().filter_map(|n| segment_number(n)).collect();
    numbers.sort_unstable();
    let missing = |number| Err(Malformed("segment is missing").at(segment_path(folder, number).display().to_string()));
    if let Some((_, number)) = numbers.iter().zip(1..).find(|(found, expected)| **found != *expected) {
        return missing(number);
    }
    let mark_path = folder.join(SyncedMark::NAME);
    let mark = SyncedMark::open(&*disk, folder, access).map_err(io_error("open", &mark_path))?;
    let found_mark = mark.read().map_err(io_error("read", &mark_path))?;
    if found_mark.is_damaged {
        tracing::warn!(path = %mark_path.display(), "the mark of what is durable is damaged and is made anew");
    }
    // What the mark names was there before the mark was written.
    if numbers.last().copied().unwrap_or_default() < found_mark.number {
        return missing(found_mark.number);
    }
    if numbers.is_empty() {
        if access != Access::Create {
            return missing(1);
        }
        numbers.push(1);
    }
    let mut places = Places::default();
    let mut next_sequence = 0;
    let (mut first_sequence, mut last) = (0, None);
    for &number in &numbers {
        let path = segment_path(folder, number);
        let is_last = number as usize == numbers.len();
        let file = match access {
            Access::Read => disk.open_read(&path),
            Access::Create | Access::Write => disk.open(&path, access == Access::Create),
        };
        let file = file.map_err(io_error("open", &path))?;
        let durable = if found_mark.number == number { found_mark.size } else { 0 };
        let segment = Segment { disk: &*disk, folder, path: &path, number, file: &*file, is_last, durable, access };
        first_sequence = next_sequence;
        let found = segment.open(&mut next_sequence)?;
        places.push(found.place);
        last = Some((number, file, found.end, found.frames_hash));
    }
    let (number, file, end, frames_hash) = last.expect("BUG: no segment");
    if access != Access::Read {
        // The names of segments that a killed process had made, and the mark's.
        disk.sync_dir(folder).map_err(io_error("sync", folder))?;
        // From now on a journal that lacks this much is damaged, even if it is all of it.
        mark.write(number, end).and_then(|()| mark.sync()).map_err(io_error("write", &mark_path))?;
    }
    let writer = Writer {
        number,
        file,
        offset: end,
        synced: end,
        first_sequence,
        next_sequence,
        // A sealed last segment is full: the writer's first act is to begin the next one.
        already_sealed: frames_hash.is_none(),
        frames_hash: frames_hash.unwrap_or_default(),
        mark,
        buffer: Vec::new(),
    };
    let core = Core {
        disk,
        folder: folder.into(),
        options,
        pending: Mutex::new(Pending {
            next_sequence,
            stopped: (access == Access::Read).then(|| "it was opened for reading".into()),
            ..Pending::default()
        }),
        work: Condvar::new(),
        done: Condvar::new(),
        durable: AtomicU64::new(next_sequence),
        written_size: AtomicU64::new(0),
        log_size: AtomicU64::new(0),
        chunk_size: AtomicU64::new(0),
        access,
        places: RwLock::new(places),
        files: Default::default(),
        callbacks: Mutex::new(Vec::new()),
        indexer: Default::default(),
        frames: Default::default(),
        rewriting: Mutex::default(),
        claims: Default::default(),
    };
    Ok((Arc::new(core), writer))
}

struct Segment<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
    path: &'a Path,
    number: u32,
    file: &'a dyn DiskFile,
    is_last: bool,
    /// How much of the segment is durable, as far as the mark says.
    durable: u64,
    access: Access,
}

struct Found {
    place: Place,
    /// Where the next frame goes.
    end: u64,
    /// Of an unsealed segment.
    frames_hash: Option<FramesHash>,
}

impl Segment<'_> {
    fn damaged(&self, offset: u64, what: &str) -> Error {
        Error::Damaged { place: format!("{} at offset {offset}", self.path.display()), what: what.into() }
    }

    fn open(&self, next_sequence: &mut u64) -> Result<Found> {
        let size = self.file.size().map_err(io_error("read", self.path))?;
        let mut header = [0; SEGMENT_HEADER_SIZE];
        let header = if size >= SEGMENT_HEADER_SIZE as u64 {
            self.file.read_at(&mut header, 0).map_err(io_error("read", self.path))?;
            decode_header(&header, self.number)
        } else {
            Err(Malformed("segment without a header"))
        };
        match header {
            Ok((version, _)) if version > FORMAT_VERSION => {
                return Err(Error::Format { path: self.folder.into(), found: version, supported: FORMAT_VERSION });
            }
            Ok((_, sequence)) if sequence != *next_sequence => return Err(self.damaged(0, "segment out of sequence")),
            Ok(_) => {}
            Err(Malformed(what)) => {
                // The first one is durable before anything else of a store is.
                let may_be_new = self.is_last && (self.number > 1 || self.access == Access::Create);
                if !may_be_new || self.durable > 0 || synced_after(&self.read_all()?, 0) > 0 {
                    return Err(self.damaged(0, what));
                }
                return self.begin(*next_sequence);
            }
        }
        let found = match self.open_index(size, *next_sequence)? {
            Some(_) if size < self.durable => return Err(self.damaged(size, "segment ends before what was durable")),
            Some(index) => {
                *next_sequence = index.sequences.end;
                Found { place: Place::Sealed(Arc::new(index)), end: size, frames_hash: None }
            }
            None => self.read_frames(next_sequence)?,
        };
        if self.is_last && self.access != Access::Read {
            self.settle(size, found.end)?;
        }
        Ok(found)
    }

    fn read_all(&self) -> Result<Vec<u8>> {
        read_all(self.file).map_err(io_error("read", self.path))
    }

    /// Makes a new segment, or one whose making a crash interrupted.
    fn begin(&self, first_sequence: u64) -> Result<Found> {
        let recent = Recent { sequences: first_sequence..first_sequence, ..Recent::default() };
        let found = |end| Found { place: Place::Recent(recent), end, frames_hash: Some(FramesHash::default()) };
        if self.access == Access::Read {
            return Ok(found(0));
        }
        self.file.set_size(0).map_err(io_error("truncate", self.path))?;
        self.file.write_at(&encode_header(self.number, first_sequence), 0).map_err(io_error("write", self.path))?;
        self.file.sync().map_err(io_error("sync", self.path))?;
        self.disk.sync_dir(self.folder).map_err(io_error("sync", self.folder))?;
        Ok(found(SEGMENT_HEADER_SIZE as u64))
    }

    /// Cuts the segment off at `end` and makes durable what is before, also what a killed process had not synced.
    fn settle(&self, size: u64, end: u64) -> Result<()> {
        if end < size {
            self.file.set_size(end).map_err(io_error("truncate", self.path))?;
        }
        let mut at = self.durable.min(end);
        while at < end {
            let mut piece = vec![0; (end - at).min(SETTLE_SIZE) as usize];
            self.file.read_at(&mut piece, at).map_err(io_error("read", self.path))?;
            self.file.write_at(&piece, at).map_err(io_error("write", self.path))?;
            at += piece.len() as u64;
        }
        self.file.sync().map_err(io_error("sync", self.path))
    }

    /// The index of a segment that ends with a trailer; `None` where the frames must be read.
    fn open_index(&self, size: u64, first_sequence: u64) -> Result<Option<SegmentIndex>> {
        let Some(trailer_at) = size.checked_sub(TRAILER_SIZE as u64) else { return Ok(None) };
        let mut trailer = [0; TRAILER_SIZE];
        self.file.read_at(&mut trailer, trailer_at).map_err(io_error("read", self.path))?;
        if decode_trailer(&trailer).is_none_or(|seal_at| seal_at >= trailer_at) {
            return Ok(None);
        }
        let subject = subject_of(self.file).map_err(io_error("read", self.path))?;
        match SegmentIndex::open(self.disk, self.folder, self.number, &subject) {
            Ok(index) if index.sequences.start == first_sequence => return Ok(Some(index)),
            Ok(_) => {}
            Err(error) => tracing::info!(segment = self.number, error, "the index of a segment cannot be used and is made anew"),
        }
        Ok(None)
    }

    fn read_frames(&self, next_sequence: &mut u64) -> Result<Found> {
        let durable = self.durable;
        let bytes = self.read_all()?;
        let first_sequence = *next_sequence;
        let mut contents = Contents::default();
        let mut frames_hash = FramesHash::default();
        let end = scan(&bytes, next_sequence, |offset, header, payload| {
            frames_hash.add(&bytes[offset as usize..][..FRAME_HEADER_SIZE]);
            contents.enter(offset, header, payload).map_err(|e| self.damaged(offset, e.0))
        })?;
        let sequences = first_sequence..*next_sequence;
        let end = match end {
            ScanEnd::Unsealed { offset } if offset < durable => return Err(self.damaged(offset, "segment ends before what was durable")),
            ScanEnd::Unsealed { offset } if self.is_last => offset,
            ScanEnd::Unsealed { .. } | ScanEnd::Sealed => {
                let subject = subject_of(self.file).map_err(io_error("read", self.path))?;
                let encoded = segment_index::encode(&subject, &sequences, &contents.log_frames, contents.chunks);
                let disk = (self.access != Access::Read).then_some(self.disk);
                let index = SegmentIndex::write(disk, self.folder, self.number, subject, encoded)?;
                return Ok(Found { place: Place::Sealed(Arc::new(index)), end: bytes.len() as u64, frames_hash: None });
            }
            ScanEnd::Bad { offset, what } => {
                if !self.is_last || offset < durable || offset < synced_after(&bytes, offset) {
                    return Err(self.damaged(offset, what));
                }
                let cut = bytes.len() as u64 - offset;
                // Where nothing is written it is only passed over.
                tracing::warn!(path = %self.path.display(), offset, size = cut, "cut off the journal's end, which a crash left incomplete");
                offset
            }
        };
        let recent = Recent { sequences, log_frames: contents.log_frames, chunks: contents.chunks.into_iter().collect() };
        Ok(Found { place: Place::Recent(recent), end, frames_hash: Some(frames_hash) })
    }
}
