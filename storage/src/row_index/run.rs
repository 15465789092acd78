//! A run: one immutable file of the row index, with the entries of a stretch of commits in the order of their hashes.
//!
//! | offset | size | header field |
//! |---|---|---|
//! | 0 | 8 | magic `STRROWS4` |
//! | 8 | 4 | number of the first commit |
//! | 12 | 4 | number after the last commit |
//! | 16 | 8 | number of entries |
//! | 24 | 4 | number of blocks |
//! | 28 | 32 | id of the last commit |
//! | 60 | 4 | CRC32C of bytes 0 to 59 |
//!
//! Blocks of 512 bytes follow, then the first hash of each block (4 bytes each) with a CRC32C behind them. A block is small because a
//! question reads one of each run, and decodes half of it.
//!
//! | offset | size | block field |
//! |---|---|---|
//! | 0 | 4 | CRC32C of the rest of the block |
//! | 4 | 2 | number of entries |
//! | 6 | | entries: the distance from the hash before (varint), and the commit: its distance from the entry before where the hash is the same, otherwise from the run's first commit (varint) |

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Entry;
use crate::commit_index::CommitNumber;
use crate::disk::{Disk, DiskFile};
use crate::encoding::{ByteReader, Decoded, Malformed, put_varint};
use crate::error::{Error, Result};
use crate::id::CommitId;

const MAGIC: [u8; 8] = *b"STRROWS4";
const HEADER_SIZE: usize = 64;
pub(crate) const BLOCK_SIZE: usize = 512;
/// Blocks that are read at once where all are read.
const READ_BLOCK_COUNT: usize = 128;
const BLOCK_HEADER_SIZE: usize = 6;
/// Hashes of whole tables whose commits are kept in memory, and the most commits of one.
const WIDE_COUNT_MAX: usize = 1000;
const WIDE_COMMIT_COUNT_MAX: usize = 1000;
/// Blocks are written in pieces of about this size.
const WRITE_SIZE: usize = 1 << 16;

/// An open run. Holds four bytes of memory for each block of some 100 entries.
#[derive(Debug)]
pub(super) struct Run {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    pub commits: Range<CommitNumber>,
    pub entry_count: u64,
    pub last_commit: CommitId,
    /// The first hash of each block.
    firsts: Vec<u32>,
    /// Commits under hashes of whole tables, once they were asked for: most questions ask for those, too.
    wide: Mutex<HashMap<u32, Arc<[CommitNumber]>>>,
}

pub(super) fn file_name(commits: &Range<CommitNumber>) -> String {
    format!("{:010}-{:010}.run", commits.start, commits.end)
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::Io { action, path: path.into(), source }
}

impl Run {
    /// Writes a run of entries that come in ascending order, under a name of its own in the folder.
    /// # Errors
    /// `Io`, and what the entries' source gives.
    pub fn write(
        disk: &dyn Disk,
        folder: &Path,
        commits: Range<CommitNumber>,
        last_commit: CommitId,
        entries: impl Iterator<Item = Result<Entry>>,
    ) -> Result<Run> {
        let path = folder.join(file_name(&commits));
        let temporary = path.with_extension("tmp");
        let file = disk.open(&temporary, true).map_err(io_error("create", &temporary))?;
        file.set_size(0).map_err(io_error("truncate", &temporary))?;
        let mut out = Output { file: &*file, path: &temporary, offset: 0, buffer: vec![0; HEADER_SIZE] };
        let mut firsts = Vec::new();
        let mut block = Block::default();
        let mut entry_count = 0u64;
        for entry in entries {
            let entry = entry?;
            entry_count += 1;
            if !block.push(entry, commits.start) {
                out.put(&block.finish())?;
                block.push(entry, commits.start);
            }
            if block.count == 1 {
                firsts.push(entry.0);
            }
        }
        if block.count > 0 {
            out.put(&block.finish())?;
        }
        out.put(&encode_firsts(&firsts))?;
        out.flush()?;
        let mut header = [0; HEADER_SIZE];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&commits.start.to_le_bytes());
        header[12..16].copy_from_slice(&commits.end.to_le_bytes());
        header[16..24].copy_from_slice(&entry_count.to_le_bytes());
        header[24..28].copy_from_slice(&(firsts.len() as u32).to_le_bytes());
        header[28..60].copy_from_slice(&last_commit.0);
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        file.write_at(&header, 0).map_err(io_error("write", &temporary))?;
        // Not synced: what a power loss damages fails its checksum and is made again.
        disk.rename(&temporary, &path).map_err(io_error("rename", &temporary))?;
        Ok(Run { path, file, commits, entry_count, last_commit, firsts, wide: Mutex::default() })
    }

    /// # Errors
    /// `Io`, `Damaged`.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Run> {
        let damaged = |what: &str| Error::Damaged { place: path.display().to_string(), what: what.into() };
        let file = disk.open_read(path).map_err(io_error("open", path))?;
        let mut header = [0; HEADER_SIZE];
        file.read_at(&mut header, 0).map_err(io_error("read", path))?;
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[..8] != MAGIC || number(60) != crc32c::crc32c(&header[..60]) {
            return Err(damaged("header is damaged"));
        }
        let commits = number(8)..number(12);
        let entry_count = u64::from(number(16)) | u64::from(number(20)) << 32;
        let block_count = number(24) as usize;
        let last_commit = CommitId(*header[28..60].first_chunk().expect("BUG: an id has 32 bytes"));
        let size = file.size().map_err(io_error("read", path))?;
        let firsts_at = HEADER_SIZE + block_count * BLOCK_SIZE;
        if size != (firsts_at + block_count * 4 + 4) as u64 || commits.is_empty() {
            return Err(damaged("size does not fit the header"));
        }
        let mut bytes = vec![0; block_count * 4 + 4];
        file.read_at(&mut bytes, firsts_at as u64).map_err(io_error("read", path))?;
        let firsts: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let (crc, firsts) = firsts.split_last().expect("BUG: no checksum");
        if *crc != crc32c::crc32c(&bytes[..block_count * 4]) {
            return Err(damaged("index is damaged"));
        }
        let firsts = firsts.to_vec();
        Ok(Run { path: path.into(), file, commits, entry_count, last_commit, firsts, wide: Mutex::default() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the commits with this hash, ascending.
    /// # Errors
    /// `Io`, `Damaged`.
    pub fn find(&self, hash: u32, found: &mut Vec<CommitNumber>) -> Result<()> {
        // The block before the first that begins with the hash may end with it.
        let start = self.firsts.partition_point(|first| *first < hash).saturating_sub(1);
        let end = start + self.firsts[start..].partition_point(|first| *first <= hash);
        for from in (start..end).step_by(READ_BLOCK_COUNT) {
            let mut bytes = vec![0; READ_BLOCK_COUNT.min(end - from) * BLOCK_SIZE];
            self.read(from, &mut bytes)?;
            for (block, at) in bytes.as_chunks::<BLOCK_SIZE>().0.iter().zip(from..) {
                for entry in check(block).map_err(|e| e.at(self.place(at)))?.entries(self.commits.start) {
                    let (entry_hash, commit) = entry.map_err(|e| e.at(self.place(at)))?;
                    if entry_hash > hash {
                        return Ok(());
                    }
                    if entry_hash == hash {
                        found.push(commit);
                    }
                }
            }
        }
        Ok(())
    }

    /// [`Self::find`] for the hash of a whole table.
    /// # Errors
    /// `Io`, `Damaged`.
    pub fn find_wide(&self, hash: u32, found: &mut Vec<CommitNumber>) -> Result<()> {
        if let Some(commits) = self.wide.lock().get(&hash) {
            found.extend_from_slice(commits);
            return Ok(());
        }
        let start = found.len();
        self.find(hash, found)?;
        let mut wide = self.wide.lock();
        if wide.len() < WIDE_COUNT_MAX && found.len() - start <= WIDE_COMMIT_COUNT_MAX {
            wide.insert(hash, found[start..].into());
        }
        Ok(())
    }

    /// All entries, ascending.
    pub fn entries(&self) -> RunEntries<'_> {
        RunEntries { run: self, next_block: 0, entries: Vec::new(), at: 0 }
    }

    /// Reads blocks from one on.
    fn read(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        self.file.read_at(bytes, (HEADER_SIZE + at * BLOCK_SIZE) as u64).map_err(io_error("read", &self.path))
    }

    fn place(&self, at: usize) -> String {
        format!("{} at offset {}", self.path.display(), HEADER_SIZE + at * BLOCK_SIZE)
    }
}

/// The entries of a run in order.
pub(super) struct RunEntries<'a> {
    run: &'a Run,
    next_block: usize,
    /// Of the blocks read last, and the next one of them.
    entries: Vec<Entry>,
    at: usize,
}

impl RunEntries<'_> {
    fn read_blocks(&mut self) -> Result<()> {
        self.entries.clear();
        self.at = 0;
        let count = READ_BLOCK_COUNT.min(self.run.firsts.len() - self.next_block);
        let mut bytes = vec![0; count * BLOCK_SIZE];
        self.run.read(self.next_block, &mut bytes)?;
        for block in bytes.as_chunks::<BLOCK_SIZE>().0 {
            let place = || self.run.place(self.next_block);
            for entry in check(block).map_err(|e| e.at(place()))?.entries(self.run.commits.start) {
                self.entries.push(entry.map_err(|e| e.at(place()))?);
            }
            self.next_block += 1;
        }
        Ok(())
    }
}

impl Iterator for RunEntries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        while self.at == self.entries.len() {
            if self.next_block == self.run.firsts.len() {
                return None;
            }
            if let Err(error) = self.read_blocks() {
                self.next_block = self.run.firsts.len();
                return Some(Err(error));
            }
        }
        self.at += 1;
        Some(Ok(self.entries[self.at - 1]))
    }
}

/// A block whose checksum is right.
struct CheckedBlock<'a>(&'a [u8; BLOCK_SIZE]);

fn check(bytes: &[u8; BLOCK_SIZE]) -> Decoded<CheckedBlock<'_>> {
    if u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) != crc32c::crc32c(&bytes[4..]) {
        return Err(Malformed("block fails its checksum"));
    }
    Ok(CheckedBlock(bytes))
}

impl CheckedBlock<'_> {
    fn entries(&self, first_commit: CommitNumber) -> impl Iterator<Item = Decoded<Entry>> + '_ {
        let count = u16::from_le_bytes([self.0[4], self.0[5]]);
        let mut reader = ByteReader::new(&self.0[BLOCK_HEADER_SIZE..]);
        let (mut hash, mut commit) = (0u32, 0);
        (0..count).map(move |i| {
            let distance = reader.varint_u32()?;
            hash = hash.checked_add(distance).ok_or(Malformed("hash out of range"))?;
            let base = if distance == 0 && i > 0 { commit } else { first_commit };
            commit = reader.varint_u32()?.checked_add(base).ok_or(Malformed("commit out of range"))?;
            Ok((hash, commit))
        })
    }
}

/// The entries of a block whose checksum is not looked at.
#[cfg(any(test, fuzzing))]
pub(crate) fn decode_block(bytes: &[u8; BLOCK_SIZE], first_commit: CommitNumber) -> Decoded<Vec<Entry>> {
    CheckedBlock(bytes).entries(first_commit).collect()
}

fn encode_firsts(firsts: &[u32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = firsts.iter().flat_map(|first| first.to_le_bytes()).collect();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// A file that is written from its beginning on, in large pieces.
struct Output<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    /// Where the buffer goes.
    offset: u64,
    buffer: Vec<u8>,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_SIZE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.offset).map_err(io_error("write", self.path))?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// A block in the making.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    count: u16,
    last: Entry,
}

impl Block {
    /// Adds an entry; `false` when there is no room.
    fn push(&mut self, entry: Entry, first_commit: CommitNumber) -> bool {
        let before = self.bytes.len();
        let same = self.count > 0 && entry.0 == self.last.0;
        put_varint(&mut self.bytes, u64::from(if self.count == 0 { entry.0 } else { entry.0 - self.last.0 }));
        put_varint(&mut self.bytes, u64::from(entry.1 - if same { self.last.1 } else { first_commit }));
        if self.bytes.len() > BLOCK_SIZE - BLOCK_HEADER_SIZE {
            self.bytes.truncate(before);
            return false;
        }
        self.count += 1;
        self.last = entry;
        true
    }

    /// The block's bytes; another block begins.
    fn finish(&mut self) -> [u8; BLOCK_SIZE] {
        let mut block = [0; BLOCK_SIZE];
        block[4..6].copy_from_slice(&self.count.to_le_bytes());
        block[BLOCK_HEADER_SIZE..BLOCK_HEADER_SIZE + self.bytes.len()].copy_from_slice(&self.bytes);
        let crc = crc32c::crc32c(&block[4..]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        *self = Block::default();
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    /// Hashes of all sizes, some of them of many commits.
    fn sample(count: u32, first: CommitNumber) -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..count)
            .flat_map(|i| {
                let hash = i.wrapping_mul(2_654_435_761) >> (i % 7 * 4);
                (0..if i % 100 == 0 { 3000 } else { 1 }).map(move |n| (hash, first + i + n))
            })
            .collect();
        entries.sort_unstable();
        entries.dedup();
        entries
    }

    #[test]
    fn a_run_gives_back_what_it_was_made_of_and_every_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (commits, last) = (1000..20_000, CommitId([7; 32]));
        let entries = sample(2000, commits.start);
        let written = Run::write(&RealDisk, folder.path(), commits.clone(), last, entries.iter().copied().map(Ok)).unwrap();
        let run = Run::open(&RealDisk, written.path()).unwrap();
        assert_eq!((&run.commits, run.entry_count, run.last_commit), (&commits, entries.len() as u64, last));
        assert!(run.entries().map(Result::unwrap).eq(entries.iter().copied()));
        for probe in (0..2000u32).map(|i| i.wrapping_mul(2_654_435_761) >> (i % 7 * 4)).chain([0, 5, u32::MAX]) {
            let mut found = Vec::new();
            run.find(probe, &mut found).unwrap();
            assert!(found.into_iter().eq(entries.iter().filter(|(h, _)| *h == probe).map(|(_, c)| *c)), "{probe}");
        }
        let bytes = std::fs::read(run.path()).unwrap();
        for at in (0..bytes.len()).step_by(37).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(run.path(), &damaged).unwrap();
            let intact = Run::open(&RealDisk, run.path()).is_ok_and(|run| run.entries().all(|e| e.is_ok()));
            assert!(!intact, "a flipped bit at {at}");
        }
        for size in [0, 10, HEADER_SIZE, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(run.path(), &bytes[..size]).unwrap();
            assert!(Run::open(&RealDisk, run.path()).is_err(), "cut to {size}");
        }
    }

    #[test]
    fn a_run_without_entries_finds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::write(&RealDisk, folder.path(), 0..3, CommitId([1; 32]), std::iter::empty()).unwrap();
        let run = Run::open(&RealDisk, run.path()).unwrap();
        let mut found = Vec::new();
        run.find(0, &mut found).unwrap();
        assert!(found.is_empty() && run.entries().next().is_none());
    }
}
