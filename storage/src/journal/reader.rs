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
use super::{Core, Item, Journal, LOG_FRAME_SIZE, LogFrameAt, io_error};
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::disk::DiskFile;
use crate::encoding::{ByteReader, Decoded, Malformed};
use crate::error::{Error, Result};
use crate::id::ChunkAddress;

/// Bytes of decompressed log frames that are kept: a walk over the log reads each once.
const CACHED_FRAMES_SIZE: usize = 4 << 20;
/// What is read of a log frame at first, its header included: mostly all of it.
const LOG_FRAME_READ_SIZE: usize = LOG_FRAME_SIZE * 3 / 4;

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

/// The frames read last.
#[derive(Default)]
pub(crate) struct FrameCache(Mutex<CachedFrames>);

#[derive(Default)]
struct CachedFrames {
    by_sequence: BTreeMap<u64, Arc<LogFrame>>,
    /// The oldest at the front.
    order: VecDeque<u64>,
    size: usize,
}

impl FrameCache {
    fn get(&self, sequence: u64) -> Option<Arc<LogFrame>> {
        self.0.lock().by_sequence.get(&sequence).cloned()
    }

    /// A record, if its frame is there.
    fn record(&self, sequence: u64) -> Option<Bytes> {
        let cached = self.0.lock();
        let (_, frame) = cached.by_sequence.range(..=sequence).next_back()?;
        frame.record(sequence)
    }

    fn put(&self, frame: Arc<LogFrame>) {
        let mut cached = self.0.lock();
        let cached = &mut *cached;
        if cached.by_sequence.contains_key(&frame.sequence) {
            return;
        }
        cached.size += frame.body.len();
        cached.order.push_back(frame.sequence);
        cached.by_sequence.insert(frame.sequence, frame);
        while cached.size > CACHED_FRAMES_SIZE
            && let Some(oldest) = cached.order.pop_front()
            && let Some(oldest) = cached.by_sequence.remove(&oldest)
        {
            cached.size -= oldest.body.len();
        }
    }
}

impl Core {
    /// A segment's file, for reading.
    pub(super) fn file(&self, number: u32) -> Result<Arc<dyn DiskFile>> {
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

    pub(super) fn find_chunk(&self, address: &ChunkAddress) -> Result<Option<(u32, ChunkAt)>> {
        self.find(|places| places.find_chunk(address))
    }

    fn find_log_frame(&self, sequence: u64) -> Result<Option<(u32, LogFrameAt)>> {
        self.find(|places| places.find_log_frame(sequence))
    }

    fn segment_path(&self, number: u32) -> PathBuf {
        segment_path(&self.folder, number)
    }

    fn read_frame(&self, number: u32, offset: u32, size: Option<u32>) -> Result<(FrameHeader, Vec<u8>)> {
        let file = self.file(number)?;
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

    fn read_log_frame(&self, at: LogFrameAt, number: u32) -> Result<Arc<LogFrame>> {
        if let Some(frame) = self.frames.get(at.sequence) {
            return Ok(frame);
        }
        let (header, payload) = self.read_frame(number, at.offset, None)?;
        let place = || format!("{} at offset {}", self.segment_path(number).display(), at.offset);
        if header.kind != FrameKind::Log || header.sequence != at.sequence {
            return Err(Malformed("another frame than expected").at(place()));
        }
        let frame = header
            .body(&payload)
            .and_then(|body| LogFrame::decode(header.sequence, header.record_count, body))
            .map_err(|e| e.at(place()))?;
        let frame = Arc::new(frame);
        self.frames.put(frame.clone());
        Ok(frame)
    }

    fn read_chunk_at(&self, address: &ChunkAddress, number: u32, at: ChunkAt) -> Result<Vec<u8>> {
        let (header, payload) = self.read_frame(number, at.offset, Some(at.size))?;
        let place = || format!("{} at offset {}", self.segment_path(number).display(), at.offset);
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
    /// One record's bytes.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn read_record(&self, sequence: u64) -> Result<Bytes> {
        {
            // A batch leaves `pending` only after its place was entered in `locations`.
            let pending = self.core.pending.lock();
            let queued = pending.items.iter().filter_map(|i| if let Item::Log(batch) = i { Some(batch) } else { None });
            // They ascend.
            for batch in pending.writing.iter().map(|b| &**b).chain(queued).take_while(|batch| batch.sequence <= sequence) {
                let index = sequence.wrapping_sub(batch.sequence);
                if let Some((start, end)) = usize::try_from(index).ok().and_then(|i| batch.records.get(i)) {
                    return Ok(Bytes::copy_from_slice(&batch.bytes[*start as usize..*end as usize]));
                }
            }
        }
        if let Some(record) = self.core.frames.record(sequence) {
            return Ok(record);
        }
        let missing = || Error::Damaged { place: format!("journal record {sequence}"), what: "missing".into() };
        let (number, at) = self.core.find_log_frame(sequence)?.ok_or_else(missing)?;
        self.core.read_log_frame(at, number)?.record(sequence).ok_or_else(missing)
    }

    /// All written log frames that hold records from `sequence` on, in order.
    pub fn log_frames_from(&self, sequence: u64) -> impl Iterator<Item = Result<Arc<LogFrame>>> + '_ {
        let mut next = Some(sequence);
        std::iter::from_fn(move || {
            let frame = self.core.find_log_frame(next?).transpose()?;
            let frame = frame.and_then(|(number, at)| {
                next = Some(at.sequence + u64::from(at.record_count));
                self.core.read_log_frame(at, number)
            });
            if frame.is_err() {
                next = None;
            }
            Some(frame)
        })
    }

    /// The file and the offset of a record's frame, for error messages.
    pub fn place_of(&self, sequence: u64) -> String {
        match self.core.find_log_frame(sequence) {
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
        if let Some((number, at)) = self.core.find_chunk(address)? {
            return self.core.read_chunk_at(address, number, at);
        }
        if let Some(bytes) = self.core.pending.lock().chunks.get(address) {
            return Ok(bytes.to_vec());
        }
        // Written between the two looks.
        match self.core.find_chunk(address)? {
            Some((number, at)) => self.core.read_chunk_at(address, number, at),
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
