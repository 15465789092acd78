//! A checked file: facts that can be found again elsewhere, laid out so that they are used where they lie.
//!
//! The indexes beside sealed segments are such files. They are written once and mapped at opening; only what is asked for
//! is ever read from the disk. A block is compared with its checksum when it is first touched, so that opening costs the
//! header and the checksums, and damage is still found before it is believed. What such a file is about (its *subject*) is a hash
//! in its header: one of another store, or of an earlier state, does not open.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `STRINDEX` |
//! | 8 | 1 | format: 3 |
//! | 9 | 1 | kind of the file |
//! | 10 | 2 | number of sections |
//! | 12 | 4 | CRC32C of the blocks' checksums |
//! | 16 | 32 | subject |
//! | 48 | 8 × n | size of each section |
//! | 4092 | 4 | CRC32C of bytes 0 to 4091 |
//! | 4096 | | the sections, one after the other |
//! | | 4 × n | CRC32C of each block of 4096 bytes of the sections |

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{Disk, DiskFile, FileBytes};
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"STRINDEX";
const FORMAT: u8 = 3;
const BLOCK_SIZE: usize = 4096;
/// A block of its own, so that the blocks of the sections are pages of memory.
const HEADER_SIZE: usize = BLOCK_SIZE;
const SECTIONS_AT: usize = 48;
const HEADER_CRC_AT: usize = HEADER_SIZE - 4;
const SECTION_COUNT_MAX: usize = 32;

/// What a file is about.
pub(crate) type Subject = [u8; 32];

/// The bytes of a file to be.
pub(crate) fn encode(kind: u8, subject: &Subject, sections: &[Vec<u8>]) -> Vec<u8> {
    assert!(sections.len() <= SECTION_COUNT_MAX, "BUG: too many sections");
    let size: usize = sections.iter().map(Vec::len).sum();
    let mut bytes = Vec::with_capacity(HEADER_SIZE + size + (size / BLOCK_SIZE + 1) * 4);
    bytes.resize(HEADER_SIZE, 0);
    for section in sections {
        bytes.extend_from_slice(section);
    }
    let checksums: Vec<u8> = bytes[HEADER_SIZE..].chunks(BLOCK_SIZE).flat_map(|block| crc32c::crc32c(block).to_le_bytes()).collect();
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8] = FORMAT;
    bytes[9] = kind;
    bytes[10..12].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    bytes[12..16].copy_from_slice(&crc32c::crc32c(&checksums).to_le_bytes());
    bytes[16..48].copy_from_slice(subject);
    for (section, at) in sections.iter().zip((SECTIONS_AT..).step_by(8)) {
        bytes[at..at + 8].copy_from_slice(&(section.len() as u64).to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
    bytes[HEADER_CRC_AT..HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&checksums);
    bytes
}

/// An open file.
#[derive(Debug)]
pub(crate) struct CheckedFile {
    path: PathBuf,
    bytes: FileBytes,
    sections: Vec<Range<usize>>,
    /// Where the blocks' checksums begin.
    checksums_at: usize,
    /// A bit for each block that was found to be right.
    verified: Box<[AtomicU64]>,
}

impl CheckedFile {
    /// Opens a file; `Err` says why it is of no use.
    pub fn open(disk: &dyn Disk, path: &Path, kind: u8, subject: &Subject) -> Result<CheckedFile, String> {
        let bytes = disk.open_read(path).and_then(|file| file.map()).map_err(|error| error.to_string())?;
        Self::of_bytes(path, bytes, kind, subject).map_err(str::to_owned)
    }

    fn of_bytes(path: &Path, bytes: FileBytes, kind: u8, subject: &Subject) -> Result<CheckedFile, &'static str> {
        let header = bytes.get(..HEADER_SIZE).ok_or("it ends in the header")?;
        if header[..8] != MAGIC || u32_at(header, HEADER_CRC_AT) != crc32c::crc32c(&header[..HEADER_CRC_AT]) {
            return Err("its header is damaged");
        }
        if header[8] != FORMAT {
            return Err("it has another format");
        }
        if header[9] != kind || header[16..48] != *subject {
            return Err("it is about something else");
        }
        let section_count = usize::from(u16::from_le_bytes([header[10], header[11]]));
        if section_count > SECTION_COUNT_MAX {
            return Err("it has too many sections");
        }
        let mut sections = Vec::with_capacity(section_count);
        let mut end = HEADER_SIZE;
        for at in (SECTIONS_AT..).step_by(8).take(section_count) {
            let size = usize::try_from(u64_at(header, at)).map_err(|_| "a section is too large")?;
            let start = end;
            end = start.checked_add(size).filter(|end| *end <= bytes.len()).ok_or("it ends early")?;
            sections.push(start..end);
        }
        let block_count = (end - HEADER_SIZE).div_ceil(BLOCK_SIZE);
        let checksums = bytes.get(end..end + block_count * 4).filter(|c| end + c.len() == bytes.len());
        if crc32c::crc32c(checksums.ok_or("it has another size")?) != u32_at(header, 12) {
            return Err("its checksums are damaged");
        }
        let verified = (0..block_count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(CheckedFile { path: path.into(), bytes, sections, checksums_at: end, verified })
    }

    /// Writes a file and opens it. What cannot be written is used from memory: it is found again at the next opening. So is all
    /// without a disk to write to.
    pub fn write(disk: Option<&dyn Disk>, path: &Path, encoded: Vec<u8>) -> CheckedFile {
        let (kind, mut subject) = (encoded[9], [0; 32]);
        subject.copy_from_slice(&encoded[16..48]);
        if let Some(disk) = disk {
            let written = write(disk, path, &encoded).map_err(|error| error.to_string());
            match written.and_then(|()| Self::open(disk, path, kind, &subject)) {
                Ok(file) => return file,
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "could not write an index; it is kept in memory");
                    // What there is of it only takes up room. Where it cannot be removed it is found to be incomplete.
                    let _ = disk.remove(path);
                }
            }
        }
        Self::of_bytes(path, FileBytes::Loaded(encoded), kind, &subject).expect("BUG: a file just encoded does not open")
    }

    /// The size of a section in bytes; 0 for one that is not there.
    pub fn size(&self, section: usize) -> usize {
        self.sections.get(section).map_or(0, |range| range.len())
    }

    /// Bytes of a section, verified.
    /// # Errors
    /// `Damaged`.
    pub fn bytes(&self, section: usize, at: usize, size: usize) -> Result<&[u8]> {
        let range = self.sections.get(section).filter(|range| size <= range.len() && at <= range.len() - size);
        let start = range.ok_or_else(|| self.damaged(at, "an index refers to what is not there"))?.start + at;
        if size > 0 {
            for block in (start - HEADER_SIZE) / BLOCK_SIZE..=(start + size - 1 - HEADER_SIZE) / BLOCK_SIZE {
                if self.verified[block / 64].load(Ordering::Relaxed) & 1 << (block % 64) == 0 {
                    self.verify(block)?;
                }
            }
        }
        Ok(&self.bytes[start..start + size])
    }

    /// # Errors
    /// `Damaged`.
    pub fn u32(&self, section: usize, index: usize) -> Result<u32> {
        Ok(u32_at(self.bytes(section, index * 4, 4)?, 0))
    }

    fn verify(&self, block: usize) -> Result<()> {
        let start = HEADER_SIZE + block * BLOCK_SIZE;
        let bytes = &self.bytes[start..self.checksums_at.min(start + BLOCK_SIZE)];
        if crc32c::crc32c(bytes) != u32_at(&self.bytes, self.checksums_at + block * 4) {
            return Err(self.damaged(start, "a block fails its checksum"));
        }
        self.verified[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
        Ok(())
    }

    pub fn damaged(&self, offset: usize, what: &str) -> Error {
        Error::Damaged { place: format!("{} at offset {offset}", self.path.display()), what: what.into() }
    }
}

/// Says of a file that it is about another subject; the contents stay, and so do their checksums.
pub(crate) fn change_subject(disk: &dyn Disk, path: &Path, kind: u8, from: &Subject, to: &Subject) -> Result<(), String> {
    let found = CheckedFile::open(disk, path, kind, from)?;
    let mut bytes = found.bytes.to_vec();
    bytes[16..48].copy_from_slice(to);
    let crc = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
    bytes[HEADER_CRC_AT..HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
    write(disk, path, &bytes).map_err(|error| {
        let _ = disk.remove(path);
        error.to_string()
    })
}

/// A file that is there already is replaced, not overwritten: it may be mapped. The header comes last.
fn write(disk: &dyn Disk, path: &Path, encoded: &[u8]) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file: Arc<dyn DiskFile> = disk.open(path, true)?;
    file.write_at(&encoded[HEADER_SIZE..], HEADER_SIZE as u64)?;
    file.sync()?;
    file.write_at(&encoded[..HEADER_SIZE], 0)?;
    file.sync()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Items of [`Fanout`] that share an entry, on average. Each that is looked at costs two pages that are not in the processor's caches.
const FANOUT_ITEM_COUNT: usize = 2;

/// Where among items sorted by a 32-byte hash those with given first bits lie: a table of the places where each value of the
/// first bits begins. Hashes are evenly spread, so a look-up reads one entry and looks at one or two items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fanout {
    section: usize,
    bits: u32,
}

impl Fanout {
    /// The table for hashes that come in ascending order.
    pub fn encode<'a>(count: usize, hashes: impl Iterator<Item = &'a [u8; 32]>) -> Vec<u8> {
        let bits = Self::bits(count);
        let mut out = Vec::with_capacity(((1 << bits) + 1) * 4);
        let mut next = 0usize;
        for (index, hash) in hashes.enumerate() {
            while next <= Self::prefix(hash, bits) {
                out.extend_from_slice(&(index as u32).to_le_bytes());
                next += 1;
            }
        }
        while next <= 1 << bits {
            out.extend_from_slice(&(count as u32).to_le_bytes());
            next += 1;
        }
        out
    }

    pub fn new(section: usize, count: usize) -> Fanout {
        Fanout { section, bits: Self::bits(count) }
    }

    fn bits(count: usize) -> u32 {
        (count / FANOUT_ITEM_COUNT).max(1).ilog2()
    }

    fn prefix(hash: &[u8; 32], bits: u32) -> usize {
        let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        (u64::from(first) >> (32 - bits)) as usize
    }

    /// The items between which hashes from `low` to `high` lie.
    /// # Errors
    /// `Damaged`.
    pub fn range(&self, file: &CheckedFile, low: &[u8; 32], high: &[u8; 32]) -> Result<Range<usize>> {
        let start = file.u32(self.section, Self::prefix(low, self.bits))?;
        let end = file.u32(self.section, Self::prefix(high, self.bits) + 1)?;
        Ok(start as usize..end as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    const SUBJECT: Subject = [7; 32];

    fn sample() -> Vec<u8> {
        encode(3, &SUBJECT, &[vec![1; 10], (0..20_000u32).flat_map(u32::to_le_bytes).collect(), Vec::new()])
    }

    /// Reads everything.
    fn read(file: &CheckedFile) -> Result<()> {
        assert_eq!(file.bytes(0, 0, 10)?, [1; 10]);
        for n in 0..20_000 {
            assert_eq!(file.u32(1, n as usize)?, n);
        }
        Ok(())
    }

    #[test]
    fn a_file_gives_back_its_sections_and_no_damage_to_it_is_believed() {
        let disk = SimulatedDisk::default();
        let path = Path::new("/f.idx");
        let bytes = sample();
        read(&CheckedFile::write(Some(&disk), path, bytes.clone())).unwrap();
        let file = CheckedFile::open(&disk, path, 3, &SUBJECT).unwrap();
        read(&file).unwrap();
        assert!(file.bytes(1, 79_999, 2).is_err() && file.bytes(2, 0, 1).is_err() && file.bytes(9, 0, 0).is_err());
        assert!(CheckedFile::open(&disk, path, 4, &SUBJECT).is_err());
        assert!(CheckedFile::open(&disk, path, 3, &[8; 32]).is_err());
        assert!(CheckedFile::open(&disk, Path::new("/g.idx"), 3, &SUBJECT).is_err());
        for at in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            disk.put_file("f.idx", damaged);
            assert!(!CheckedFile::open(&disk, path, 3, &SUBJECT).is_ok_and(|file| read(&file).is_ok()), "a flipped bit at {at}");
        }
        for size in (0..bytes.len()).step_by(1013) {
            disk.put_file("f.idx", bytes[..size].to_vec());
            assert!(CheckedFile::open(&disk, path, 3, &SUBJECT).is_err(), "cut to {size}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_used_from_memory() {
        for n in 0..6 {
            let disk = SimulatedDisk::default();
            disk.fail_at(n, false);
            read(&CheckedFile::write(Some(&disk), Path::new("/f.idx"), sample())).unwrap();
        }
    }

    #[test]
    fn a_fanout_leads_to_every_hash() {
        for count in [0usize, 1, 7, 100, 5000] {
            let mut hashes: Vec<[u8; 32]> = (0..count as u32).map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
            hashes.sort_unstable();
            let bytes = encode(1, &SUBJECT, &[Fanout::encode(count, hashes.iter())]);
            let file = CheckedFile::of_bytes(Path::new("/f"), FileBytes::Loaded(bytes), 1, &SUBJECT).unwrap();
            let fanout = Fanout::new(0, count);
            for (index, hash) in hashes.iter().enumerate() {
                let range = fanout.range(&file, hash, hash).unwrap();
                assert!(range.contains(&index) && range.len() < 40, "{range:?}");
            }
            assert_eq!(fanout.range(&file, &[0; 32], &[255; 32]).unwrap(), 0..count);
        }
    }
}
