//! Reading records and chunks back, from memory while they are pending and from the segments afterwards.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::frame::{FRAME_HEADER_SIZE, FrameHeader, FrameKind};
use super::places::{Found, Places};
use super::segment::{ChunkAt, segment_path};
use super::{Core, Item, Journal, LOG_FRAME_SIZE, LogFrameAt, io_error, pack};
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::disk::DiskFile;
use crate::encoding::{ByteReader, Decoded, Malformed};
use crate::error::{Error, Result};
use crate::id::{ChunkAddress, CommitId};

/// Bytes of decompressed log frames that are kept: a walk over the log reads each once.
const CACHED_FRAMES_SIZE: usize = 4 << 20;
/// What is read of a log frame at first, its header included: mostly all of it.
const LOG_FRAME_READ_SIZE: usize = LOG_FRAME_SIZE * 3 / 8;
/// Frames of which one record was read, so that the next one counts as another one of the same frame.
const TOUCHED_FRAME_COUNT: usize = 32;

/// A log frame's records.
#[derive(Debug)]
pub(crate) struct LogFrame {
    pub sequence: u64,
    body: Bytes,
    records: Vec<(u32, u32)>,
}

impl LogFrame {
    pub fn decode(sequence: u64, record_count: u16, body: Vec<u8>) -> Decoded<LogFrame> {
        let body = Bytes::from(body);
        let mut reader = ByteReader::new(&body);
        // A record takes a byte at least.
        let mut records = Vec::with_capacity(usize::from(record_count).min(body.len()));
        for _ in 0..record_count {
            let size = reader.count()?;
            let start = (body.len() - reader.rest().len()) as u32;
            reader.take(size)?;
            records.push((start, start + size as u32));
        }
        reader.finish()?;
        Ok(LogFrame { sequence, body, records })
    }

    pub fn record(&self, sequence: u64) -> Option<Bytes> {
        let (start, end) = *self.records.get(usize::try_from(sequence.checked_sub(self.sequence)?).ok()?)?;
        Some(self.body.slice(start as usize..end as usize))
    }

    /// The records with their sequence numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Bytes)> + '_ {
        (self.sequence..).zip(self.records.iter().map(|(start, end)| self.body.slice(*start as usize..*end as usize)))
    }
}

/// A commit's record.
#[derive(Debug)]
pub(crate) struct CommitRecord {
    pub bytes: Bytes,
    /// The id that the caller gave is in it, unverified.
    pub has_given_id: bool,
}

/// A log frame in memory.
#[derive(Clone, Debug)]
enum CachedFrame {
    /// Each record without the id that is not stored, which belongs at this place (0: nowhere).
    WithoutIds(Arc<LogFrame>, Arc<[u32]>),
    Whole(Arc<LogFrame>),
}

impl CachedFrame {
    fn frame(&self) -> &Arc<LogFrame> {
        match self {
            CachedFrame::WithoutIds(frame, _) | CachedFrame::Whole(frame) => frame,
        }
    }

    /// The record of a commit that comes after the commit `before`; `None` where the record is not there with its ids.
    fn commit_record(&self, sequence: u64, before: Option<CommitId>) -> Option<CommitRecord> {
        let bytes = self.frame().record(sequence)?;
        let index = usize::try_from(sequence - self.frame().sequence).ok()?;
        match self {
            CachedFrame::WithoutIds(_, holes) if holes[index] != 0 => fill(bytes.to_vec(), holes[index], before),
            _ => Some(CommitRecord { bytes, has_given_id: false }),
        }
    }
}

/// A log frame out of a file, for who reads many of its commits.
#[derive(Debug)]
pub(crate) struct CommitFrame(CachedFrame);

impl CommitFrame {
    /// The record of a commit that comes after the commit `before`; `None` where the frame does not have it, or the id is missing. No id is
    /// verified.
    pub fn commit_record(&self, sequence: u64, before: Option<CommitId>) -> Option<CommitRecord> {
        self.0.commit_record(sequence, before)
    }

    pub fn contains(&self, sequence: u64) -> bool {
        sequence.checked_sub(self.0.frame().sequence).is_some_and(|index| index < self.0.frame().records.len() as u64)
    }
}

/// Puts the id of the commit before into a record where it is left out; `None` where it is not known.
fn fill(mut record: Vec<u8>, hole: u32, before: Option<CommitId>) -> Option<CommitRecord> {
    if hole > 0 {
        *record.get_mut(hole as usize..)?.first_chunk_mut()? = before?.0;
    }
    Some(CommitRecord { bytes: record.into(), has_given_id: hole > 0 })
}

/// The frames read last, if more than one record of them was wanted. Keeping those of which one was would cost a look-up anywhere as much
/// as reading it: each that comes in drives out another one, which is in no cache of the processor any more.
#[derive(Default)]
pub(crate) struct FrameCache(Mutex<CachedFrames>);

#[derive(Default)]
struct CachedFrames {
    by_sequence: BTreeMap<u64, CachedFrame>,
    /// The oldest at the front.
    order: VecDeque<u64>,
    size: usize,
    /// The frames of which one record was read last.
    touched: [u64; TOUCHED_FRAME_COUNT],
    next_touched: usize,
    /// The record that was read last.
    last: u64,
}

impl FrameCache {
    /// The frame that begins here, with its ids.
    fn whole(&self, sequence: u64) -> Option<Arc<LogFrame>> {
        match self.0.lock().by_sequence.get(&sequence) {
            Some(CachedFrame::Whole(frame)) => Some(frame.clone()),
            _ => None,
        }
    }

    /// The frame that has a record.
    fn with(&self, sequence: u64) -> Option<CachedFrame> {
        let mut cached = self.0.lock();
        let (start, frame) = cached.by_sequence.range(..=sequence).next_back()?;
        if sequence - start >= frame.frame().records.len() as u64 {
            return None;
        }
        let frame = frame.clone();
        cached.last = sequence;
        Some(frame)
    }

    /// Notes that a record of the frame which begins at `frame` is read. Says whether more of them are likely to be: one was not long ago,
    /// or somebody walks through the records.
    fn touch(&self, frame: u64, sequence: u64) -> bool {
        let mut cached = self.0.lock();
        let walks = cached.last.abs_diff(sequence) == 1;
        cached.last = sequence;
        if walks || cached.touched.contains(&frame) {
            return true;
        }
        let at = cached.next_touched;
        cached.touched[at] = frame;
        cached.next_touched = (at + 1) % TOUCHED_FRAME_COUNT;
        false
    }

    /// Puts a frame in, in the place of one without ids.
    fn put(&self, frame: CachedFrame) {
        let mut cached = self.0.lock();
        let cached = &mut *cached;
        let sequence = frame.frame().sequence;
        cached.size += frame.frame().body.len();
        match cached.by_sequence.insert(sequence, frame) {
            Some(old) => cached.size -= old.frame().body.len(),
            None => cached.order.push_back(sequence),
        }
        while cached.size > CACHED_FRAMES_SIZE
            && let Some(oldest) = cached.order.pop_front()
            && let Some(oldest) = cached.by_sequence.remove(&oldest)
        {
            cached.size -= oldest.frame().body.len();
        }
    }
}

/// A segment, with the file that its places are about.
struct InSegment {
    number: u32,
    file: Arc<dyn DiskFile>,
}

impl Core {
    /// A segment's file, for reading.
    pub(super) fn file(&self, number: u32) -> Result<Arc<dyn DiskFile>> {
        self.file_of(&self.places.read(), number)
    }

    /// The same with the places looked at: they and the file change together.
    fn file_of(&self, _places: &Places, number: u32) -> Result<Arc<dyn DiskFile>> {
        self.files.get(number, || {
            let path = self.segment_path(number);
            self.disk.open_read(&path).map_err(io_error("open", &path))
        })
    }

    /// Looks something up; an index that turns out to be damaged is made anew, once.
    fn find<T>(&self, find: impl Fn(&Places) -> Found<T>) -> Result<Option<T>> {
        let found = find(&self.places.read());
        match found {
            Ok(found) => Ok(found),
            Err(damaged) => {
                self.renew_index(damaged)?;
                find(&self.places.read()).map_err(|damaged| damaged.error)
            }
        }
    }

    /// Says whether a chunk is there, and sees to it that it stays as long as the current epoch lives.
    pub(super) fn claim_chunk(&self, address: &ChunkAddress) -> Result<bool> {
        let Some((segment, _)) = self.find_chunk(address)? else { return Ok(false) };
        if !self.claims.note(address, segment) {
            return Ok(true);
        }
        // A rewriting that did not know of the note has taken the segment's place by now.
        Ok(self.find_chunk(address)?.is_some())
    }

    pub(super) fn find_chunk(&self, address: &ChunkAddress) -> Result<Option<(u32, ChunkAt)>> {
        self.find(|places| places.find_chunk(address))
    }

    /// The same with the file, which a rewriting does not take away from whoever has it.
    fn locate<T>(&self, find: impl Fn(&Places) -> Found<(u32, T)>) -> Result<Option<(InSegment, T)>> {
        let look = || {
            let places = self.places.read();
            let Some((number, at)) = find(&places)? else { return Ok(Ok(None)) };
            Ok(self.file_of(&places, number).map(|file| Some((InSegment { number, file }, at))))
        };
        match look() {
            Ok(found) => found,
            Err(damaged) => {
                self.renew_index(damaged)?;
                look().unwrap_or_else(|damaged| Err(damaged.error))
            }
        }
    }

    fn locate_log_frame(&self, sequence: u64) -> Result<Option<(InSegment, LogFrameAt)>> {
        self.locate(|places| places.find_log_frame(sequence))
    }

    fn locate_chunk(&self, address: &ChunkAddress) -> Result<Option<(InSegment, ChunkAt)>> {
        self.locate(|places| places.find_chunk(address))
    }

    fn segment_path(&self, number: u32) -> PathBuf {
        segment_path(&self.folder, number)
    }

    fn read_frame(&self, segment: &InSegment, offset: u32, size: Option<u32>) -> Result<(FrameHeader, Vec<u8>)> {
        let (number, file) = (segment.number, &segment.file);
        let damaged = |what: &str| {
            let place = format!("{} at offset {offset}", self.segment_path(number).display());
            Error::Damaged { place, what: what.into() }
        };
        // A size that is damaged may lead beyond the end.
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => damaged("frame ends early"),
            _ => Error::Io { action: "read", path: self.segment_path(number), source: error },
        };
        let mut frame = vec![0; size.map_or(LOG_FRAME_READ_SIZE, |s| s as usize)];
        match file.read_at(&mut frame, u64::from(offset)) {
            // Near the end of the file.
            Err(error) if size.is_none() && error.kind() == ErrorKind::UnexpectedEof => {
                frame.truncate(FRAME_HEADER_SIZE);
                file.read_at(&mut frame, u64::from(offset)).map_err(failed)?;
            }
            read => read.map_err(failed)?,
        }
        let header = FrameHeader::decode(&frame).ok_or_else(|| damaged("not a frame"))?;
        if size.is_none() {
            let read_count = frame.len();
            frame.resize(header.frame_size(), 0);
            if let Some(rest) = frame.get_mut(read_count..) {
                file.read_at(rest, u64::from(offset) + read_count as u64).map_err(failed)?;
            }
        }
        if !header.verify(&frame) {
            return Err(damaged("frame fails its checksum"));
        }
        frame.drain(..FRAME_HEADER_SIZE);
        Ok((header, frame))
    }

    /// A log frame's header and payload.
    fn read_log_payload(&self, at: LogFrameAt, segment: &InSegment) -> Result<(FrameHeader, Vec<u8>)> {
        let (header, payload) = self.read_frame(segment, at.offset, None)?;
        if header.kind != FrameKind::Log || header.sequence != at.sequence {
            return Err(Malformed("another frame than expected").at(self.place(segment.number, at.offset)));
        }
        Ok((header, payload))
    }

    fn place(&self, number: u32, offset: u32) -> String {
        format!("{} at offset {offset}", self.segment_path(number).display())
    }

    fn read_log_frame(&self, at: LogFrameAt, segment: &InSegment) -> Result<Arc<LogFrame>> {
        if let Some(frame) = self.frames.whole(at.sequence) {
            return Ok(frame);
        }
        let (header, payload) = self.read_log_payload(at, segment)?;
        let frame = header
            .body(&payload)
            .and_then(|body| LogFrame::decode(header.sequence, header.record_count, body))
            .map_err(|e| e.at(self.place(segment.number, at.offset)))?;
        let frame = Arc::new(frame);
        self.frames.put(CachedFrame::Whole(frame.clone()));
        Ok(frame)
    }

    /// The record of a commit from its frame in the file, of which no more is unpacked than it takes; `None` where that cannot be done.
    fn read_commit_record(&self, sequence: u64, before: Option<CommitId>) -> Result<Option<CommitRecord>> {
        let Some((segment, at)) = self.locate_log_frame(sequence)? else { return Ok(None) };
        let (header, payload) = self.read_log_payload(at, &segment)?;
        if !header.packed {
            return Ok(None);
        }
        let (record_count, size) = (header.record_count, header.raw_size as usize);
        let read = || {
            let packed = header.packed_body(&payload)?;
            if self.frames.touch(header.sequence, sequence) {
                let (body, holes) = pack::unpack_without_ids(&packed, record_count, size)?;
                let frame = Arc::new(LogFrame::decode(header.sequence, record_count, body)?);
                let frame = CachedFrame::WithoutIds(frame, holes.into());
                let record = frame.commit_record(sequence, before);
                self.frames.put(frame);
                return Ok(record);
            }
            let index = u16::try_from(sequence - header.sequence).map_err(|_| Malformed("not a record of the frame"))?;
            let (record, hole) = pack::unpack_record(&packed, record_count, size, index)?;
            Ok::<_, Malformed>(fill(record, hole, before))
        };
        read().map_err(|e| e.at(self.place(segment.number, at.offset)))
    }

    fn read_chunk_at(&self, address: &ChunkAddress, segment: &InSegment, at: ChunkAt) -> Result<Vec<u8>> {
        let (header, payload) = self.read_frame(segment, at.offset, Some(at.size))?;
        let place = || self.place(segment.number, at.offset);
        if header.kind != FrameKind::Chunk {
            return Err(Malformed("another frame than expected").at(place()));
        }
        let body = header.body(&payload).map_err(|e| e.at(place()))?;
        if ChunkAddress::of(&body) != *address {
            return Err(Malformed("chunk does not hash to its address").at(place()));
        }
        Ok(body)
    }
}

impl Journal {
    /// A record that is not yet where it is found in the files.
    fn pending_record(&self, sequence: u64) -> Option<Bytes> {
        // A batch leaves `pending` only after its place was entered in `places`.
        let pending = self.core.pending.lock();
        let queued = pending.items.iter().filter_map(|i| if let Item::Log(batch) = i { Some(batch) } else { None });
        // They ascend.
        for batch in pending.writing.iter().map(|b| &**b).chain(queued).take_while(|batch| batch.sequence <= sequence) {
            let index = sequence.wrapping_sub(batch.sequence);
            if let Some((start, end)) = usize::try_from(index).ok().and_then(|i| batch.records.get(i)) {
                return Some(Bytes::copy_from_slice(&batch.bytes[*start as usize..*end as usize]));
            }
        }
        None
    }

    /// One record's bytes.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn read_record(&self, sequence: u64) -> Result<Bytes> {
        if let Some(record) = self.pending_record(sequence) {
            return Ok(record);
        }
        if let Some(CachedFrame::Whole(frame)) = self.core.frames.with(sequence)
            && let Some(record) = frame.record(sequence)
        {
            return Ok(record);
        }
        let missing = || Error::Damaged { place: format!("journal record {sequence}"), what: "missing".into() };
        let (segment, at) = self.core.locate_log_frame(sequence)?.ok_or_else(missing)?;
        self.core.read_log_frame(at, &segment)?.record(sequence).ok_or_else(missing)
    }

    /// The record of a commit, of which the commit entered before it is known: mostly its parent, whose id is not stored. Unpacks no more
    /// than it takes, and computes no ids, so who calls compares the commit's own.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn read_commit_record(&self, sequence: u64, before: Option<CommitId>) -> Result<CommitRecord> {
        let core = &self.core;
        if let Some(bytes) = self.pending_record(sequence) {
            return Ok(CommitRecord { bytes, has_given_id: false });
        }
        let found = match core.frames.with(sequence) {
            Some(frame) => frame.commit_record(sequence, before),
            // An error is told by reading all of the frame, below.
            None => core.read_commit_record(sequence, before).unwrap_or_default(),
        };
        match found {
            Some(record) => Ok(record),
            None => Ok(CommitRecord { bytes: self.read_record(sequence)?, has_given_id: false }),
        }
    }

    /// The written frame that holds a commit's record, without the ids that are not stored; `None` where there is none (yet). Nothing is kept for
    /// others, so that several threads may read stretches of frames without meeting.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn read_commit_frame(&self, sequence: u64) -> Result<Option<CommitFrame>> {
        let core = &self.core;
        let Some((segment, at)) = core.locate_log_frame(sequence)? else { return Ok(None) };
        let (header, payload) = core.read_log_payload(at, &segment)?;
        let decode = || {
            if !header.packed {
                return Ok(CachedFrame::Whole(Arc::new(LogFrame::decode(header.sequence, header.record_count, header.body(&payload)?)?)));
            }
            let (body, holes) = pack::unpack_without_ids(&header.packed_body(&payload)?, header.record_count, header.raw_size as usize)?;
            let frame = Arc::new(LogFrame::decode(header.sequence, header.record_count, body)?);
            Ok::<_, Malformed>(CachedFrame::WithoutIds(frame, holes.into()))
        };
        decode().map(|frame| Some(CommitFrame(frame))).map_err(|e| e.at(core.place(segment.number, at.offset)))
    }

    /// All written log frames that hold records from `sequence` on, in order.
    pub fn log_frames_from(&self, sequence: u64) -> impl Iterator<Item = Result<Arc<LogFrame>>> + '_ {
        let mut next = Some(sequence);
        std::iter::from_fn(move || {
            let frame = self.core.locate_log_frame(next?).transpose()?;
            let frame = frame.and_then(|(segment, at)| {
                next = Some(at.sequence + u64::from(at.record_count));
                self.core.read_log_frame(at, &segment)
            });
            if frame.is_err() {
                next = None;
            }
            Some(frame)
        })
    }

    /// The file and the offset of a record's frame, for error messages.
    pub fn place_of(&self, sequence: u64) -> String {
        match self.core.find(|places| places.find_log_frame(sequence)) {
            Ok(Some((number, at))) => {
                format!("{} at offset {}, record {sequence}", self.core.segment_path(number).display(), at.offset)
            }
            _ => format!("journal record {sequence}"),
        }
    }

    /// # Errors
    /// `Damaged`, `Io`.
    pub fn has_chunk(&self, address: &ChunkAddress) -> Result<bool> {
        Ok(self.core.pending.lock().chunks.contains_key(address) || self.core.find_chunk(address)?.is_some())
    }

    /// One chunk's bytes, verified.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn read_chunk(&self, address: &ChunkAddress) -> Result<Vec<u8>> {
        if let Some((segment, at)) = self.core.locate_chunk(address)? {
            return self.core.read_chunk_at(address, &segment, at);
        }
        if let Some(bytes) = self.core.pending.lock().chunks.get(address) {
            return Ok(bytes.to_vec());
        }
        // Written between the two looks.
        match self.core.locate_chunk(address)? {
            Some((segment, at)) => self.core.read_chunk_at(address, &segment, at),
            None => Err(Error::Damaged { place: format!("chunk {address}"), what: "missing".into() }),
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({})", self.core.folder.display())
    }
}

impl ChunkReader for Journal {
    fn read(&self, address: &ChunkAddress) -> Result<Vec<u8>> {
        self.read_chunk(address)
    }
}

impl ChunkWriter for &Journal {
    fn put(&mut self, address: ChunkAddress, bytes: &[u8]) -> Result<()> {
        self.put_chunk(address, bytes)
    }
}

/// Takes the chunks of a table that is filled.
pub(crate) struct BulkWriter<'a>(pub &'a Journal);

impl ChunkWriter for BulkWriter<'_> {
    fn put(&mut self, address: ChunkAddress, bytes: &[u8]) -> Result<()> {
        self.0.put_chunk_within(super::PENDING_BULK_SIZE_MAX, address, bytes)
    }
}
