//! Where everything in the files is: in memory for what was written last, in the mapped indexes of sealed segments.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::AddressHash;
use super::chunk_filter::ChunkFilter;
use super::segment::{ChunkAt, LogFrameAt};
use super::segment_index::SegmentIndex;
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::interpolation::last_not_above;

/// Segments' files that are kept open for reading.
const OPEN_FILE_COUNT_MAX: usize = 64;

/// What a segment holds that has no index yet: the one that is being written, and those whose index is in the making.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pub sequences: Range<u64>,
    pub log_frames: Vec<LogFrameAt>,
    pub chunks: HashMap<ChunkAddress, ChunkAt, AddressHash>,
}

impl Recent {
    fn find_log_frame(&self, sequence: u64) -> Option<LogFrameAt> {
        let last = self.log_frames.len().checked_sub(1)? as u64;
        if self.log_frames.first()?.sequence > sequence {
            return None;
        }
        let Ok(at) = last_not_above(0, last, sequence, |at| Ok::<_, Infallible>(self.log_frames[at as usize].sequence));
        let frame = self.log_frames.get(at as usize)?;
        (sequence - frame.sequence < u64::from(frame.record_count)).then_some(*frame)
    }
}

pub(super) enum Place {
    Recent(Recent),
    Sealed(Arc<SegmentIndex>),
}

impl Place {
    fn first_sequence(&self) -> u64 {
        match self {
            Place::Recent(recent) => recent.sequences.start,
            Place::Sealed(index) => index.sequences.start,
        }
    }
}

/// An index gave an error: which one, so that it can be made anew.
pub(super) struct IndexError {
    pub number: u32,
    pub error: Error,
}

pub(super) type Found<T> = std::result::Result<Option<T>, IndexError>;

/// All segments; number n is at n - 1.
#[derive(Default)]
pub(super) struct Places {
    segments: Vec<Place>,
    /// The numbers of those in memory.
    recent: Vec<u32>,
    filter: ChunkFilter,
}

impl Places {
    /// Adds the next segment.
    pub fn push(&mut self, place: Place) {
        let number = self.segments.len() as u32 + 1;
        match &place {
            Place::Recent(_) => self.recent.push(number),
            Place::Sealed(index) => self.enter_filter(number, index),
        }
        self.segments.push(place);
    }

    fn enter_filter(&mut self, number: u32, index: &SegmentIndex) {
        match index.filter() {
            Ok(filter) => self.filter.enter(number as usize - 1, filter),
            // Then the segment may hold anything: a filter with all bits set says so. The index is made anew when it is asked.
            Err(error) => {
                tracing::warn!(%error, "the filter of a segment's index is damaged");
                self.filter.enter(number as usize - 1, &[0xFF; 8]);
            }
        }
    }

    /// Puts an index in the place of what is in memory of a segment, or of its former index.
    pub fn set_sealed(&mut self, number: u32, index: Arc<SegmentIndex>) {
        self.enter_filter(number, &index);
        self.segments[number as usize - 1] = Place::Sealed(index);
        self.recent.retain(|recent| *recent != number);
    }

    /// The number of the segment that is being written.
    pub fn last_number(&self) -> u32 {
        self.segments.len() as u32
    }

    pub fn index(&self, number: u32) -> Option<Arc<SegmentIndex>> {
        match self.segments.get((number as usize).checked_sub(1)?)? {
            Place::Sealed(index) => Some(index.clone()),
            Place::Recent(_) => None,
        }
    }

    pub fn is_sealed(&self, number: u32) -> bool {
        matches!((number as usize).checked_sub(1).and_then(|at| self.segments.get(at)), Some(Place::Sealed(_)))
    }

    /// A segment that is in memory.
    pub fn recent(&self, number: u32) -> Option<&Recent> {
        match self.segments.get(number as usize - 1)? {
            Place::Recent(recent) => Some(recent),
            Place::Sealed(_) => None,
        }
    }

    pub fn recent_mut(&mut self, number: u32) -> &mut Recent {
        match &mut self.segments[number as usize - 1] {
            Place::Recent(recent) => recent,
            Place::Sealed(_) => panic!("BUG: a segment that has an index is written to"),
        }
    }

    /// The indexes from this number on, up to the first segment that has none.
    pub fn sealed_from(&self, number: u32) -> Vec<Arc<SegmentIndex>> {
        let from = self.segments.iter().skip(number as usize - 1);
        from.map_while(|place| if let Place::Sealed(index) = place { Some(index.clone()) } else { None }).collect()
    }

    pub fn find_chunk(&self, address: &ChunkAddress) -> Found<(u32, ChunkAt)> {
        for number in self.recent.iter().rev() {
            if let Some(at) = self.recent(*number).and_then(|recent| recent.chunks.get(address)) {
                return Ok(Some((*number, *at)));
            }
        }
        for segment in self.filter.find(address) {
            let Some(Place::Sealed(index)) = self.segments.get(segment) else { continue };
            let number = segment as u32 + 1;
            if let Some(at) = index.find_chunk(address).map_err(|error| IndexError { number, error })? {
                return Ok(Some((number, at)));
            }
        }
        Ok(None)
    }

    /// The written frame that holds a record.
    pub fn find_log_frame(&self, sequence: u64) -> Found<(u32, LogFrameAt)> {
        // Segments without records begin where the next one does, and the last of them holds the record.
        let number = self.segments.partition_point(|place| place.first_sequence() <= sequence) as u32;
        let Some(place) = number.checked_sub(1).and_then(|at| self.segments.get(at as usize)) else { return Ok(None) };
        let found = match place {
            Place::Recent(recent) => recent.find_log_frame(sequence),
            Place::Sealed(index) => index.find_log_frame(sequence).map_err(|error| IndexError { number, error })?,
        };
        Ok(found.map(|at| (number, at)))
    }
}

/// The segments' files that were read last, open.
#[derive(Default)]
pub(super) struct OpenFiles {
    files: Mutex<VecDeque<(u32, Arc<dyn DiskFile>)>>,
}

impl OpenFiles {
    pub fn get(&self, number: u32, open: impl FnOnce() -> Result<Arc<dyn DiskFile>>) -> Result<Arc<dyn DiskFile>> {
        {
            let mut files = self.files.lock();
            if let Some(at) = files.iter().position(|(n, _)| *n == number) {
                let found = files.remove(at).expect("BUG: a file was just found");
                let file = found.1.clone();
                files.push_front(found);
                return Ok(file);
            }
        }
        let file = open()?;
        let mut files = self.files.lock();
        files.push_front((number, file.clone()));
        files.truncate(OPEN_FILE_COUNT_MAX);
        Ok(file)
    }

    /// Forgets a segment's file, which another one replaces.
    pub fn forget(&self, number: u32) {
        self.files.lock().retain(|(n, _)| *n != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, SimulatedDisk};

    #[test]
    fn few_of_many_files_stay_open() {
        let disk = SimulatedDisk::default();
        let file = disk.open(std::path::Path::new("/f"), true).unwrap();
        let (files, opened) = (OpenFiles::default(), std::cell::Cell::new(0));
        let get = |number| {
            let open = || {
                opened.set(opened.get() + 1);
                Ok(file.clone())
            };
            files.get(number, open).unwrap();
        };
        for number in 1..=500 {
            get(number);
            get(1);
        }
        assert_eq!(files.files.lock().len(), OPEN_FILE_COUNT_MAX);
        // What is read again and again stays.
        assert_eq!(opened.get(), 500);
    }
}
