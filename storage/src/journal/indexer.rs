//! Making the indexes of segments that are full, on a thread of its own, so that no commit waits for it.
//!
//! Until its index is there, a sealed segment's contents stay in memory; when the process ends before, opening makes the
//! index from the segment.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::frame::{FRAME_HEADER_SIZE, FrameKind};
use super::places::IndexError;
use super::segment::{Contents, ScanEnd, decode_header, read_all, scan, segment_path, subject_of};
use super::segment_index::{self, SegmentIndex};
use super::{Access, Core, Journal, io_error};
use crate::checked_file::Subject;
use crate::disk::Disk;
use crate::encoding::Malformed;
use crate::error::Result;

/// A sealed segment, as what is derived from it wants to know it.
#[derive(Clone, Debug)]
pub(crate) struct SealedSegment {
    pub number: u32,
    pub subject: Subject,
    /// Its records' sequence numbers.
    pub sequences: Range<u64>,
}

/// Called when a segment was sealed and has its index.
pub(crate) type SealedCallback = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(super) struct Indexer {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    callback: Mutex<Option<SealedCallback>>,
}

#[derive(Default)]
struct Jobs {
    numbers: VecDeque<u32>,
    closing: bool,
}

impl Indexer {
    pub fn close(&self) {
        self.jobs.lock().closing = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<u32> {
        let mut jobs = self.jobs.lock();
        loop {
            if let Some(number) = jobs.numbers.pop_front() {
                return Some(number);
            }
            if jobs.closing {
                return None;
            }
            self.changed.wait(&mut jobs);
        }
    }
}

impl Core {
    /// A segment was sealed and all that it holds is entered.
    pub(super) fn sealed(&self, number: u32) {
        if self.options.index_thread {
            self.indexer.jobs.lock().numbers.push_back(number);
            self.indexer.changed.notify_all();
        } else {
            self.index_segment(number);
        }
    }

    /// The thread's work, until the journal closes.
    pub(super) fn run_indexer(&self) {
        while let Some(number) = self.indexer.next() {
            self.index_segment(number);
        }
    }

    /// Makes a segment's index, unless somebody else has done it.
    pub(super) fn index_segment(&self, number: u32) {
        let turn = self.rewriting.lock();
        if self.places.read().is_sealed(number) {
            return;
        }
        let indexed = (|| {
            let subject = self.subject(number)?;
            let encoded = {
                let places = self.places.read();
                let Some(recent) = places.recent(number) else { return Ok(()) };
                let (sequences, log_frames) = (recent.sequences.clone(), recent.log_frames.clone());
                let chunks = recent.chunks.iter().map(|(address, at)| (*address, *at)).collect();
                drop(places);
                segment_index::encode(&subject, &sequences, &log_frames, chunks)
            };
            let index = SegmentIndex::write(self.writable_disk(), &self.folder, number, subject, encoded)?;
            self.places.write().set_sealed(number, Arc::new(index));
            Ok::<(), crate::error::Error>(())
        })();
        drop(turn);
        match indexed {
            Ok(()) => self.tell_sealed(),
            Err(error) => {
                tracing::warn!(%error, segment = number, "could not index a segment; it stays in memory until the store is opened again")
            }
        }
    }

    fn tell_sealed(&self) {
        if let Some(callback) = &*self.indexer.callback.lock() {
            callback();
        }
    }

    fn writable_disk(&self) -> Option<&dyn Disk> {
        (self.access != Access::Read).then_some(&*self.disk)
    }

    fn subject(&self, number: u32) -> Result<Subject> {
        let path = segment_path(&self.folder, number);
        let file = self.file(number)?;
        subject_of(&*file).map_err(io_error("read", &path))
    }

    /// Makes the index of a segment anew, because what is there has given an error.
    pub(super) fn renew_index(&self, damaged: IndexError) -> Result<()> {
        let IndexError { number, error } = damaged;
        let _turn = self.rewriting.lock();
        tracing::warn!(%error, segment = number, "the index of a segment is damaged and is made anew");
        self.write_index(number)
    }

    /// Makes a segment's index from its frames. The caller has the turn.
    pub(super) fn write_index(&self, number: u32) -> Result<()> {
        let path = segment_path(&self.folder, number);
        let bytes = read_all(&*self.file(number)?).map_err(io_error("read", &path))?;
        let place = |offset: u64| format!("{} at offset {offset}", path.display());
        let (_, mut next_sequence) = decode_header(&bytes, number).map_err(|e| e.at(place(0)))?;
        let first_sequence = next_sequence;
        let mut contents = Contents::default();
        let end = scan(&bytes, &mut next_sequence, |offset, header, payload| {
            contents.enter(offset, header, payload).map_err(|e| e.at(place(offset)))
        })?;
        if let ScanEnd::Bad { offset, what } = end {
            return Err(Malformed(what).at(place(offset)));
        }
        let subject = self.subject(number)?;
        let encoded = segment_index::encode(&subject, &(first_sequence..next_sequence), &contents.log_frames, contents.chunks);
        let index = SegmentIndex::write(self.writable_disk(), &self.folder, number, subject, encoded)?;
        self.places.write().set_sealed(number, Arc::new(index));
        Ok(())
    }
}

impl Contents {
    /// Notes a frame.
    pub fn enter(&mut self, offset: u64, header: &super::frame::FrameHeader, payload: &[u8]) -> Result<(), Malformed> {
        let offset = u32::try_from(offset).map_err(|_| Malformed("segment too large"))?;
        match header.kind {
            FrameKind::Log => {
                self.log_frames.push(super::LogFrameAt { sequence: header.sequence, offset, record_count: header.record_count });
            }
            FrameKind::Chunk => {
                let address = *payload.first_chunk().ok_or(Malformed("chunk frame too short"))?;
                let at = super::segment::ChunkAt { offset, size: (FRAME_HEADER_SIZE + payload.len()) as u32 };
                self.chunks.push((crate::id::ChunkAddress(address), at));
            }
            FrameKind::Footer | FrameKind::Seal => {}
        }
        Ok(())
    }
}

impl Journal {
    /// Says what to call, on the thread that makes indexes, when a segment was sealed and has its index.
    pub fn on_sealed(&self, callback: SealedCallback) {
        *self.core.indexer.callback.lock() = Some(callback);
    }

    /// The segments from this number on that are sealed and have their index.
    pub fn sealed_from(&self, number: u32) -> Vec<SealedSegment> {
        let indexes = self.core.places.read().sealed_from(number);
        let segment = |(index, number): (Arc<SegmentIndex>, u32)| SealedSegment {
            number,
            subject: index.subject,
            sequences: index.sequences.clone(),
        };
        indexes.into_iter().zip(number..).map(segment).collect()
    }

    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.core.disk
    }

    /// The disk, unless nothing is to be written to it.
    pub fn writable_disk(&self) -> Option<&dyn Disk> {
        self.core.writable_disk()
    }

    pub fn folder(&self) -> &std::path::Path {
        &self.core.folder
    }
}
