//! Rewriting a sealed segment without chunks that nobody needs any more.
//!
//! The segment keeps its number, its records and the order of its frames, which are copied byte for byte; so nothing that names a
//! record or a commit changes. It is written under another name, synced, and takes the place of the old one in a single step: after a
//! crash one or the other is there, and both hold everything that is live. Its index does not fit the other seal, and is made again.
//!
//! Readers that look a frame up get the file along with the place. Who has the old file goes on to read it; the file system gives its
//! space back when nobody has it any more.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{FrameKind, NewFrame};
use super::segment::{
    Contents, FramesHash, ScanEnd, decode_header, encode_header, encode_trailer, read_all, scan, segment_path, subject_of,
};
use super::segment_index::{self, SegmentIndex};
use super::{Core, Epoch, Journal, io_error};
use crate::disk::Disk;
use crate::encoding::Malformed;
use crate::error::{Error, Result};
use crate::id::ChunkAddress;

/// A rewritten segment is synced in pieces of this size, so that commits do not wait for the disk to take all of it at once.
const SYNC_SIZE: usize = 4 << 20;

/// The ending of a segment in the making. Opening removes it.
pub(super) const UNFINISHED: &str = ".seg.new";

/// What a rewriting has done; sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub before: u64,
    pub after: u64,
}

/// A segment's bytes to be.
struct Kept {
    bytes: Vec<u8>,
    contents: Contents,
    sequences: std::ops::Range<u64>,
    dropped: Vec<ChunkAddress>,
    /// What is left out although it is live: it is there twice.
    duplicate_count: usize,
}

impl Core {
    fn rewrite(&self, number: u32, is_live: &dyn Fn(&ChunkAddress) -> bool) -> Result<Option<Rewritten>> {
        // Nobody makes an index of the old file meanwhile.
        let _turn = self.rewriting.lock();
        if !self.places.read().is_sealed(number) {
            return Ok(None);
        }
        let path = segment_path(&self.folder, number);
        let bytes = read_all(&*self.file(number)?).map_err(io_error("read", &path))?;
        let kept = keep(&path, number, &bytes, is_live)?;
        if kept.dropped.is_empty() && kept.duplicate_count == 0 {
            return Ok(None);
        }
        let new_path = self.folder.join(format!("{number:08}{UNFINISHED}"));
        let done = self.put_in_place(number, &path, &new_path, &kept);
        if !matches!(done, Ok(true)) {
            // Opening does it otherwise.
            let _ = self.disk.remove(&new_path);
        }
        if !done? {
            return Ok(None);
        }
        self.disk.sync_dir(&self.folder).map_err(io_error("sync", &self.folder))?;
        Ok(Some(Rewritten { before: bytes.len() as u64, after: kept.bytes.len() as u64 }))
    }

    /// Returns false, and leaves the segment as it was, when somebody has begun to count on a chunk that would be gone.
    fn put_in_place(&self, number: u32, path: &Path, new_path: &Path, kept: &Kept) -> Result<bool> {
        let file = self.disk.open(new_path, true).map_err(io_error("create", new_path))?;
        let write = || {
            file.set_size(0)?;
            for (piece, at) in kept.bytes.chunks(SYNC_SIZE).zip((0u64..).step_by(SYNC_SIZE)) {
                file.write_at(piece, at)?;
                file.sync()?;
            }
            subject_of(&*file)
        };
        let subject = write().map_err(io_error("write", new_path))?;
        if !self.claims.contains_none(&kept.dropped) {
            return Ok(false);
        }
        let encoded = segment_index::encode(&subject, &kept.sequences, &kept.contents.log_frames, kept.contents.chunks.clone());
        let index = SegmentIndex::write(Some(&*self.disk), &self.folder, number, subject, encoded)?;
        let mut places = self.places.write();
        // Who notes a chunk later looks for it again, and does not find it.
        if !self.claims.contains_none(&kept.dropped) {
            drop(places);
            // What was just written is about a segment that is not to be.
            self.write_index(number)?;
            return Ok(false);
        }
        self.disk.rename(new_path, path).map_err(io_error("rename", new_path))?;
        self.files.forget(number);
        places.set_sealed(number, Arc::new(index));
        Ok(true)
    }
}

/// What is left of a segment.
fn keep(path: &Path, number: u32, bytes: &[u8], is_live: &dyn Fn(&ChunkAddress) -> bool) -> Result<Kept> {
    let place = |offset: u64| format!("{} at offset {offset}", path.display());
    let (_, first_sequence) = decode_header(bytes, number).map_err(|e| e.at(place(0)))?;
    let mut next_sequence = first_sequence;
    let mut out = encode_header(number, first_sequence).to_vec();
    let (mut contents, mut hash, mut kept) = (Contents::default(), FramesHash::default(), HashSet::new());
    let (mut dropped, mut duplicate_count) = (Vec::new(), 0);
    let end = scan(bytes, &mut next_sequence, |offset, header, payload| {
        if header.kind == FrameKind::Chunk {
            let address = ChunkAddress(*payload.first_chunk().ok_or_else(|| Malformed("chunk frame too short").at(place(offset)))?);
            if !is_live(&address) {
                dropped.push(address);
                return Ok(());
            }
            if !kept.insert(address) {
                duplicate_count += 1;
                return Ok(());
            }
        }
        let frame = &bytes[offset as usize..][..header.frame_size()];
        contents.enter(out.len() as u64, header, payload).map_err(|e| e.at(place(offset)))?;
        hash.add(frame);
        out.extend_from_slice(frame);
        Ok::<(), Error>(())
    })?;
    match end {
        ScanEnd::Sealed => {}
        ScanEnd::Unsealed { offset } => return Err(Malformed("segment without a seal").at(place(offset))),
        ScanEnd::Bad { offset, what } => return Err(Malformed(what).at(place(offset))),
    }
    let seal_at = out.len() as u64;
    let seal = hash.seal(next_sequence);
    let frame = NewFrame {
        kind: FrameKind::Seal,
        record_count: 0,
        sequence: next_sequence,
        synced: seal_at as u32,
        address: None,
        body: &seal,
        commits: &[],
    };
    frame.encode(&mut out);
    out.extend_from_slice(&encode_trailer(seal_at));
    Ok(Kept { bytes: out, contents, sequences: first_sequence..next_sequence, dropped, duplicate_count })
}

/// Removes what an interrupted rewriting has left.
pub(super) fn remove_unfinished(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let unfinished = disk.list(folder)?.into_iter().filter(|name| name.ends_with(UNFINISHED));
    unfinished.map(|name| folder.join(name)).try_for_each(|path: PathBuf| disk.remove(&path))
}

/// A sealed segment's size, and what of it is chunks that are not live; in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentShare {
    pub number: u32,
    pub size: u64,
    pub dead: u64,
}

impl Journal {
    /// Begins the next epoch.
    pub fn begin_epoch(&self) -> Epoch {
        // The segment in which what is put from now on will be, or one after it.
        let segment = self.core.places.read().last_number();
        self.core.claims.begin(segment)
    }

    /// Forgets which chunks were found again before this epoch.
    pub fn forget_claims_before(&self, epoch: u64) {
        self.core.claims.forget_before(epoch);
    }

    /// Says whether a chunk that was found again is noted.
    pub fn is_claimed(&self, address: &ChunkAddress) -> bool {
        self.core.claims.contains(address)
    }

    /// Writes all that was appended, seals the segment, unless it is empty, and begins the next one. The sealed one has its index then.
    /// # Errors
    /// `Stopped`.
    pub fn begin_segment(&self) -> Result<()> {
        {
            let mut pending = self.core.pending.lock();
            pending.check_open()?;
            pending.seal = true;
            self.core.work.notify_one();
            while pending.seal && pending.stopped.is_none() {
                self.core.done.wait(&mut pending);
            }
            pending.check_open()?;
        }
        let last = self.core.places.read().last_number();
        (1..last).for_each(|number| self.core.index_segment(number));
        Ok(())
    }

    /// The size of all segments but the one that is being written, in bytes.
    /// # Errors
    /// `Io`.
    pub fn sealed_size(&self) -> Result<u64> {
        let last = self.core.places.read().last_number();
        let size = |number| {
            let path = segment_path(&self.core.folder, number);
            self.core.file(number)?.size().map_err(io_error("read", &path))
        };
        (1..last).map(size).sum()
    }

    /// How much of each sealed segment before this one is not live. Reads indexes alone.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn dead_shares(&self, before: u32, is_live: &dyn Fn(&ChunkAddress) -> bool) -> Result<Vec<SegmentShare>> {
        let mut shares = Vec::new();
        let last = self.core.places.read().last_number();
        for number in 1..before.min(last + 1) {
            let Some(index) = self.core.places.read().index(number) else { continue };
            let dead = index.chunks().try_fold(0, |dead, chunk| {
                let (address, size) = chunk?;
                Ok::<u64, Error>(if is_live(&address) { dead } else { dead + u64::from(size) })
            });
            let dead = match dead {
                Ok(dead) => dead,
                Err(error) => {
                    // The next time it is counted.
                    self.core.renew_index(super::places::IndexError { number, error })?;
                    continue;
                }
            };
            let path = segment_path(&self.core.folder, number);
            let size = self.core.file(number)?.size().map_err(io_error("read", &path))?;
            shares.push(SegmentShare { number, size, dead });
        }
        Ok(shares)
    }

    /// Rewrites a sealed segment without the chunks that are not live; `None` where there is nothing to gain, or no index yet.
    /// # Errors
    /// `Damaged`, `Io`; then the segment is as it was, or rewritten.
    pub fn rewrite_segment(&self, number: u32, is_live: &dyn Fn(&ChunkAddress) -> bool) -> Result<Option<Rewritten>> {
        self.core.pending.lock().check_open()?;
        self.core.rewrite(number, is_live)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;
    use crate::disk::{RealDisk, SimulatedDisk};
    use crate::journal::{Access, JournalOptions};

    const SEGMENT_SIZE: u64 = 2048;
    const COUNT: u32 = 120;

    fn open(disk: Arc<dyn Disk>, folder: &Path, index_thread: bool) -> Result<Journal> {
        let options = JournalOptions { group_commit: Duration::ZERO, segment_size: SEGMENT_SIZE, index_thread };
        Journal::open(disk, folder, options, Access::Create)
    }

    fn chunk(n: u32) -> (ChunkAddress, Vec<u8>) {
        let bytes = blake3::hash(&n.to_le_bytes()).as_bytes().repeat(1 + n as usize % 5);
        (ChunkAddress::of(&bytes), bytes)
    }

    fn record(n: u32) -> Vec<u8> {
        n.to_le_bytes().repeat(1 + n as usize % 20)
    }

    /// A chunk and a record for each number.
    fn fill(journal: &Journal) {
        for n in 0..COUNT {
            let (address, bytes) = chunk(n);
            journal.put_chunk(address, &bytes).unwrap();
            assert_eq!(journal.append(&record(n)).unwrap(), u64::from(n));
            journal.sync().unwrap();
        }
    }

    fn is_live(address: &ChunkAddress) -> bool {
        (0..COUNT).step_by(3).any(|n| chunk(n).0 == *address)
    }

    fn check(journal: &Journal) {
        for n in 0..COUNT {
            assert_eq!(journal.read_record(u64::from(n)).unwrap(), record(n));
            if n % 3 == 0 {
                let (address, bytes) = chunk(n);
                assert_eq!(crate::chunk::ChunkReader::read(journal, &address).unwrap(), bytes);
            }
        }
    }

    fn segment_count(journal: &Journal) -> u32 {
        journal.sealed_from(1).len() as u32
    }

    fn rewrite_all(journal: &Journal) -> Vec<Rewritten> {
        (1..=segment_count(journal) + 1).filter_map(|number| journal.rewrite_segment(number, &is_live).unwrap()).collect()
    }

    #[test]
    fn records_and_live_chunks_stay_and_the_rest_gives_its_space_back() {
        let disk = SimulatedDisk::default();
        let folder = Path::new("/j");
        let journal = open(Arc::new(disk.clone()), folder, false).unwrap();
        fill(&journal);
        let sealed = segment_count(&journal);
        assert!(sealed > 5);
        let rewritten = rewrite_all(&journal);
        assert_eq!(rewritten.len() as u32, sealed);
        assert!(rewritten.iter().all(|r| r.after < r.before * 3 / 4), "{rewritten:?}");
        assert_eq!(disk.file("00000002.seg").unwrap().len() as u64, rewritten[1].after);
        check(&journal);
        let gone: Vec<u32> = (0..COUNT).filter(|n| !journal.has_chunk(&chunk(*n).0).unwrap()).collect();
        assert!(gone.len() > COUNT as usize / 2 && gone.iter().all(|n| n % 3 != 0));
        // Once more there is nothing to do.
        assert_eq!(rewrite_all(&journal), []);
        // What is gone can be put again.
        let (address, bytes) = chunk(gone[0]);
        journal.put_chunk(address, &bytes).unwrap();
        assert!(journal.has_chunk(&address).unwrap());
        drop(journal);
        // The next process finds the indexes as they are to be.
        let before = disk.operation_count();
        let index = disk.file("00000002.idx").unwrap();
        let journal = open(Arc::new(disk.clone()), folder, false).unwrap();
        check(&journal);
        assert!(disk.operation_count() > before && disk.file("00000002.idx").unwrap() == index);
    }

    #[test]
    fn power_may_fail_at_any_moment_of_rewriting() {
        let disk = SimulatedDisk::default();
        let folder = Path::new("/j");
        let journal = open(Arc::new(disk.clone()), folder, false).unwrap();
        fill(&journal);
        let filled = disk.change_count();
        rewrite_all(&journal);
        drop(journal);
        let (mut now, operations) = disk.operations();
        let mut random = rand::rngs::StdRng::seed_from_u64(11);
        for (n, operation) in operations.iter().enumerate() {
            now.apply(operation);
            if n < filled {
                continue;
            }
            for image in [SimulatedDisk::new(now.clone()).after_power_loss(&mut random), SimulatedDisk::new(now.clone()).after_kill()] {
                let journal = open(Arc::new(image.clone()), folder, false).unwrap();
                check(&journal);
                assert!(image.list(folder).unwrap().iter().all(|name| !name.ends_with(UNFINISHED)));
                rewrite_all(&journal);
                check(&journal);
            }
        }
    }

    #[test]
    fn a_disk_operation_that_fails_leaves_the_segment_readable() {
        let base = SimulatedDisk::default();
        let folder = Path::new("/j");
        fill(&open(Arc::new(base.clone()), folder, false).unwrap());
        for n in 0.. {
            let disk = base.copy();
            let journal = open(Arc::new(disk.clone()), folder, false).unwrap();
            disk.fail_at(n, true);
            let done = (1..4).try_for_each(|number| journal.rewrite_segment(number, &is_live).map(drop));
            let failed = disk.failed().is_some();
            disk.heal();
            check(&journal);
            drop(journal);
            check(&open(Arc::new(disk.clone()), folder, false).unwrap());
            if !failed {
                done.unwrap();
                assert!(n > 10);
                return;
            }
        }
    }

    #[test]
    fn a_damaged_segment_is_named_and_not_rewritten() {
        let disk = SimulatedDisk::default();
        let journal = open(Arc::new(disk.clone()), Path::new("/j"), false).unwrap();
        fill(&journal);
        let size = disk.file("00000002.seg").unwrap().len();
        disk.flip("00000002.seg", size / 2 * 8);
        let before = disk.file("00000002.seg");
        assert!(matches!(journal.rewrite_segment(2, &is_live), Err(Error::Damaged { .. })));
        assert_eq!(disk.file("00000002.seg"), before);
    }

    #[test]
    fn a_chunk_that_is_put_again_while_its_segment_is_rewritten_stays() {
        let disk = SimulatedDisk::default();
        let journal = open(Arc::new(disk.clone()), Path::new("/j"), false).unwrap();
        fill(&journal);
        let epoch = journal.begin_epoch();
        assert!(epoch.first_segment > 2 && journal.begin_epoch().number == epoch.number + 1);
        let all_dead = journal.dead_shares(3, &|_| false).unwrap();
        assert!(all_dead.len() == 2 && all_dead.iter().all(|share| share.dead > share.size / 4 && share.dead < share.size));
        // Whoever puts it again finds it, after it was found to be dead.
        let (address, bytes) = (1..COUNT).map(chunk).find(|(address, _)| holds(&journal, 2, address)).unwrap();
        let put_again = |asked: &ChunkAddress| {
            if *asked == address {
                journal.put_chunk(address, &bytes).unwrap();
            }
            false
        };
        assert_eq!(journal.rewrite_segment(2, &put_again).unwrap(), None);
        assert_eq!(journal.read_chunk(&address).unwrap(), bytes);
        assert!(journal.is_claimed(&address));
        drop(journal);
        // The note is of this process; the index beside the segment is about what is there.
        let changes = disk.change_count();
        let journal = open(Arc::new(disk.clone()), Path::new("/j"), false).unwrap();
        assert!(disk.change_count() - changes < 6);
        assert!(holds(&journal, 2, &address) && !journal.is_claimed(&address));
        journal.begin_epoch();
        assert!(journal.rewrite_segment(2, &|_| false).unwrap().is_some());
        // Now it is gone, and is written when it is put.
        assert!(!journal.has_chunk(&address).unwrap());
        journal.put_chunk(address, &bytes).unwrap();
        assert_eq!(journal.read_chunk(&address).unwrap(), bytes);
        // What was noted is forgotten with the last epoch that may count on it.
        let noted = chunk(0);
        journal.put_chunk(noted.0, &noted.1).unwrap();
        let next = journal.begin_epoch();
        assert!(journal.is_claimed(&noted.0));
        journal.forget_claims_before(next.number);
        assert!(!journal.is_claimed(&noted.0));
    }

    /// Whether a chunk is in this segment.
    fn holds(journal: &Journal, number: u32, address: &ChunkAddress) -> bool {
        journal.core.find_chunk(address).unwrap().is_some_and(|(found, _)| found == number)
    }

    #[test]
    fn a_segment_is_begun_when_it_is_asked_for() {
        for index_thread in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let journal = open(Arc::new(RealDisk), folder.path(), index_thread).unwrap();
            let (address, bytes) = chunk(3);
            journal.put_chunk(address, &bytes).unwrap();
            journal.append(&record(3)).unwrap();
            // An empty one is not sealed.
            for _ in 0..3 {
                journal.begin_segment().unwrap();
                assert_eq!(segment_count(&journal), 1);
            }
            assert!(holds(&journal, 1, &address));
            journal.append(&record(4)).unwrap();
            journal.begin_segment().unwrap();
            assert_eq!(segment_count(&journal), 2);
            assert_eq!(journal.read_record(1).unwrap(), record(4));
            journal.close().unwrap();
            assert!(matches!(journal.begin_segment(), Err(Error::Stopped { .. })));
            let journal = open(Arc::new(RealDisk), folder.path(), index_thread).unwrap();
            assert_eq!(journal.read_record(0).unwrap(), record(3));
            assert_eq!(journal.append(&record(5)).unwrap(), 2);
        }
    }

    #[test]
    fn readers_do_not_notice_that_segments_are_rewritten_under_them() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(Arc::new(RealDisk), folder.path(), true).unwrap();
        fill(&journal);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        check(&journal);
                    }
                });
            }
            for keep in (0..COUNT).step_by(3).rev().collect::<Vec<_>>().chunks(4) {
                // A little less is live each time.
                let last = *keep.last().expect("a chunk");
                let live = |address: &ChunkAddress| is_live(address) || (0..last).any(|n| chunk(n).0 == *address);
                for number in 1..=segment_count(&journal) {
                    journal.rewrite_segment(number, &live).unwrap();
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        check(&journal);
    }
}
