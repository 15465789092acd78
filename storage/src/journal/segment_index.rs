//! The index of a sealed segment, `00000001.idx` beside `00000001.seg`: where its records and chunks are.
//!
//! It is a [checked file](crate::checked_file), made from the segment's frames by a thread of its own after the segment is
//! sealed, and made again at opening where it is missing, damaged or about something else. It is never the truth.
//!
//! | section | contents |
//! |---|---|
//! | 0 | sequence numbers of the first record and after the last one, 8 bytes each |
//! | 1 | log frames in order: sequence number less the segment's first, offset; 4 bytes each |
//! | 2 | fan-out of the chunks' addresses |
//! | 3 | chunks' addresses, ascending, 32 bytes each |
//! | 4 | chunks' places in the same order: offset of the frame, size of the frame; 4 bytes each |
//! | 5 | filter of the addresses, see [`super::chunk_filter`] |

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::chunk_filter;
use super::segment::{ChunkAt, LogFrameAt};
use crate::checked_file::{self, CheckedFile, Fanout, Subject, u32_at, u64_at};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::interpolation::last_not_above;

const KIND: u8 = 1;
const SEQUENCES: usize = 0;
const LOG_FRAMES: usize = 1;
const FANOUT: usize = 2;
const ADDRESSES: usize = 3;
const PLACES: usize = 4;
const FILTER: usize = 5;

const LOG_FRAME_SIZE: usize = 8;
const PLACE_SIZE: usize = 8;

pub(crate) fn index_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.idx"))
}

#[derive(Debug)]
pub(crate) struct SegmentIndex {
    file: CheckedFile,
    pub subject: Subject,
    pub sequences: Range<u64>,
    log_frame_count: usize,
    chunk_count: usize,
    fanout: Fanout,
}

/// The bytes of the index of a segment with these contents.
pub(crate) fn encode(
    subject: &Subject,
    sequences: &Range<u64>,
    log_frames: &[LogFrameAt],
    mut chunks: Vec<(ChunkAddress, ChunkAt)>,
) -> Vec<u8> {
    // A chunk that is there twice is found where it is first.
    chunks.sort_unstable_by_key(|(address, at)| (*address, at.offset));
    chunks.dedup_by_key(|(address, _)| *address);
    let numbers = [sequences.start.to_le_bytes(), sequences.end.to_le_bytes()].concat();
    let log_frames = log_frames.iter().flat_map(|frame| {
        let sequence = (frame.sequence - sequences.start) as u32;
        [sequence.to_le_bytes(), frame.offset.to_le_bytes()].concat()
    });
    let addresses: Vec<u8> = chunks.iter().flat_map(|(address, _)| address.0).collect();
    let places = chunks.iter().flat_map(|(_, at)| [at.offset.to_le_bytes(), at.size.to_le_bytes()].concat());
    let fanout = Fanout::encode(chunks.len(), chunks.iter().map(|(address, _)| &address.0));
    let filter = chunk_filter::encode(chunks.len(), chunks.iter().map(|(address, _)| address));
    checked_file::encode(KIND, subject, &[numbers, log_frames.collect(), fanout, addresses, places.collect(), filter])
}

impl SegmentIndex {
    /// Opens the index of a segment; `Err` says why it is of no use.
    pub fn open(disk: &dyn Disk, folder: &Path, number: u32, subject: &Subject) -> Result<SegmentIndex, String> {
        let file = CheckedFile::open(disk, &index_path(folder, number), KIND, subject)?;
        Self::of_file(file, *subject).map_err(|error| error.to_string())
    }

    /// Writes the index and opens it; kept in memory where it cannot be written.
    /// # Errors
    /// `Damaged`.
    pub fn write(disk: Option<&dyn Disk>, folder: &Path, number: u32, subject: Subject, encoded: Vec<u8>) -> Result<SegmentIndex> {
        Self::of_file(CheckedFile::write(disk, &index_path(folder, number), encoded), subject)
    }

    fn of_file(file: CheckedFile, subject: Subject) -> Result<SegmentIndex> {
        let numbers = file.bytes(SEQUENCES, 0, 16)?;
        let sequences = u64_at(numbers, 0)..u64_at(numbers, 8);
        let (log_frame_count, chunk_count) = (file.size(LOG_FRAMES) / LOG_FRAME_SIZE, file.size(PLACES) / PLACE_SIZE);
        Ok(SegmentIndex { file, subject, sequences, log_frame_count, chunk_count, fanout: Fanout::new(FANOUT, chunk_count) })
    }

    fn log_frame(&self, index: usize) -> Result<(u64, u32)> {
        let bytes = self.file.bytes(LOG_FRAMES, index * LOG_FRAME_SIZE, LOG_FRAME_SIZE)?;
        Ok((self.sequences.start + u64::from(u32_at(bytes, 0)), u32_at(bytes, 4)))
    }

    /// The frame of a record of the segment.
    /// # Errors
    /// `Damaged`.
    pub fn find_log_frame(&self, sequence: u64) -> Result<Option<LogFrameAt>> {
        if !self.sequences.contains(&sequence) {
            return Ok(None);
        }
        let Some(last) = self.log_frame_count.checked_sub(1) else { return Ok(None) };
        let index = last_not_above(0, last as u64, sequence, |index| Ok::<_, Error>(self.log_frame(index as usize)?.0))? as usize;
        let (first, offset) = self.log_frame(index)?;
        let next = if index < last { self.log_frame(index + 1)?.0 } else { self.sequences.end };
        let record_count = u16::try_from(next.saturating_sub(first)).unwrap_or(u16::MAX);
        Ok(Some(LogFrameAt { sequence: first, offset, record_count }))
    }

    /// Where a chunk is.
    /// # Errors
    /// `Damaged`.
    pub fn find_chunk(&self, address: &ChunkAddress) -> Result<Option<ChunkAt>> {
        if self.chunk_count == 0 {
            return Ok(None);
        }
        let range = self.fanout.range(&self.file, &address.0, &address.0)?;
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.file.bytes(ADDRESSES, middle * 32, 32)?;
            match found.cmp(&address.0) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let place = self.file.bytes(PLACES, middle * PLACE_SIZE, PLACE_SIZE)?;
                    return Ok(Some(ChunkAt { offset: u32_at(place, 0), size: u32_at(place, 4) }));
                }
            }
        }
        Ok(None)
    }

    /// All chunks with the sizes of their frames, in the order of their addresses.
    pub fn chunks(&self) -> impl Iterator<Item = Result<(ChunkAddress, u32)>> + '_ {
        (0..self.chunk_count).map(|index| {
            let address = self.file.bytes(ADDRESSES, index * 32, 32)?;
            let place = self.file.bytes(PLACES, index * PLACE_SIZE, PLACE_SIZE)?;
            Ok((ChunkAddress(address.try_into().expect("BUG: 32 bytes are an address")), u32_at(place, 4)))
        })
    }

    /// The filter's bytes.
    /// # Errors
    /// `Damaged`.
    pub fn filter(&self) -> Result<&[u8]> {
        self.file.bytes(FILTER, 0, self.file.size(FILTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    #[test]
    fn an_index_finds_what_the_segment_holds_and_nothing_else() {
        let address = |n: u32| ChunkAddress::of(&n.to_le_bytes());
        for (frame_count, chunk_count) in [(0, 0), (1, 1), (500, 0), (0, 700), (900, 3000u32)] {
            let place = |n: u32| ChunkAt { offset: 32 + n * 10, size: n % 100 };
            let chunks: Vec<_> = (0..chunk_count).map(|n| (address(n), place(n))).collect();
            // Frames of one to five records.
            let mut sequence = 1000;
            let frames: Vec<_> = (0..frame_count)
                .map(|n| {
                    let frame = LogFrameAt { sequence, offset: 32 + n * 7, record_count: 1 + n as u16 % 5 };
                    sequence += u64::from(frame.record_count);
                    frame
                })
                .collect();
            let (disk, subject) = (SimulatedDisk::default(), [1; 32]);
            let encoded = encode(&subject, &(1000..sequence), &frames, chunks);
            SegmentIndex::write(Some(&disk), Path::new("/"), 5, subject, encoded).unwrap();
            let index = SegmentIndex::open(&disk, Path::new("/"), 5, &subject).unwrap();
            assert_eq!(index.sequences, 1000..sequence);
            for n in 0..chunk_count {
                assert_eq!(index.find_chunk(&address(n)).unwrap(), Some(place(n)));
            }
            for n in chunk_count..chunk_count + 100 {
                assert_eq!(index.find_chunk(&address(n)).unwrap(), None);
            }
            for frame in &frames {
                for record in frame.sequence..frame.sequence + u64::from(frame.record_count) {
                    assert_eq!(index.find_log_frame(record).unwrap(), Some(*frame));
                }
            }
            assert_eq!(index.find_log_frame(999).unwrap(), None);
            assert_eq!(index.find_log_frame(sequence).unwrap(), None);
        }
    }
}
