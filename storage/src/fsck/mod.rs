//! Verification of a data directory: every byte against its checksum, every name against what it names, and the log
//! against the trees.
//!
//! 1. Every frame's checksum, every chunk's address, every record's form; seals against the frames of their segment.
//! 2. The store is opened for reading (a write that a crash interrupted is passed over, as a server would cut it off), and every commit
//!    read: its id, its parents, its height, its change set; refs and checkpoints name commits that exist.
//! 3. Every checkpoint's trees are read and checked, and the change sets since the one before are replayed on it: both ways
//!    must give the same root value.
//!
//! Checking changes nothing. [`repair`](repair()) makes a new journal of what is whole (`repair.rs`).

mod exchange;
mod repair;
mod salvage;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::chunk::ChunkWriter;
use crate::commit_index::CommitNumber;
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::id::{ChunkAddress, CommitId};
use crate::journal::{Access, Journal, JournalOptions, find_mark_damage};
use crate::journal::{FrameKind, LogFrame, SEGMENT_SIZE, ScanEnd, scan, segment_files};
use crate::record::Record;
use crate::recovery;
use crate::root::Root;
use crate::row_index::RowIndex;
use crate::schema::Catalog;
use crate::store::shared::Shared;
use crate::store::{FoundFormat, JOURNAL_FOLDER, STORE_FOLDER, find_format, take_read_lock};

pub use exchange::REPAIR_FILE;
pub use repair::{RepairReport, repair};

/// One finding of [`fsck`].
#[derive(Clone, Debug)]
pub struct Finding {
    pub place: PathBuf,
    pub what: String,
}

/// What [`fsck`] looked at and what it found.
#[derive(Clone, Debug, Default)]
pub struct FsckReport {
    pub segment_count: u64,
    pub commit_count: u64,
    pub chunk_count: u64,
    pub findings: Vec<Finding>,
}

impl FsckReport {
    fn find(&mut self, place: impl Into<PathBuf>, what: impl Into<String>) {
        self.findings.push(Finding { place: place.into(), what: what.into() });
    }

    /// Notes damage; passes on what keeps from looking.
    fn note(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(Error::Damaged { place, what }) => self.find(place, what),
            Err(Error::Io { action, path, source }) => self.find(path, format!("could not {action}: {source}")),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        Ok(())
    }
}

/// Verifies every record, commit, ref and checkpoint of a data directory; replays change sets between checkpoints and compares roots.
/// # Errors
/// `Locked` while a server has it; `Format`; `NotFound` when there is no store. Damage is a finding, not an error.
pub fn fsck(path: &Path) -> Result<FsckReport> {
    let folder = path.join(STORE_FOLDER);
    if !folder.is_dir() {
        return Err(Error::NotFound { what: "store in data directory", name: path.display().to_string() });
    }
    fsck_on(Arc::new(RealDisk), path)
}

pub(crate) fn fsck_on(disk: Arc<dyn Disk>, path: &Path) -> Result<FsckReport> {
    let lock = take_read_lock(&*disk, &path.join(STORE_FOLDER))?;
    let checked = check(&disk, path, JOURNAL_FOLDER)?;
    drop(lock);
    Ok(checked.report)
}

/// What [`check`] found, and the commits that the store knows of, readable or not.
struct Checked {
    report: FsckReport,
    commits: Vec<CommitId>,
}

/// Checks a store with the journal in this folder, and changes nothing. The lock is the caller's.
fn check(disk: &Arc<dyn Disk>, path: &Path, journal_folder: &str) -> Result<Checked> {
    let folder = path.join(STORE_FOLDER);
    let mut report = FsckReport::default();
    let journal_folder = folder.join(journal_folder);
    match find_format(&**disk, &folder) {
        Err(error @ Error::Format { .. }) => return Err(error),
        // A crash in the making of the store: there is nothing yet.
        Ok(FoundFormat::Unmade) => return Ok(Checked { report, commits: Vec::new() }),
        other => report.note(other.map(|_| ()))?,
    }
    match find_mark_damage(&**disk, &journal_folder) {
        Ok(Some((path, what))) => report.find(path, what),
        other => report.note(other.map(|_| ()))?,
    }
    if disk.open_read(&folder.join(REPAIR_FILE)).is_ok() {
        report.find(folder.join(REPAIR_FILE), "a repair was interrupted; it has to be run again");
    }
    let scanned = scan_segments(&**disk, &journal_folder, &mut report);
    report.note(scanned)?;
    // What cannot be opened is not replayed: the findings above say why.
    let options = JournalOptions { group_commit: Duration::ZERO, segment_size: SEGMENT_SIZE, index_thread: false };
    let journal = match Journal::open(disk.clone(), &journal_folder, options, Access::Read) {
        Ok(opened) => opened,
        Err(error @ Error::Format { .. }) => return Err(error),
        Err(error) => {
            report.note(Err(error))?;
            return Ok(Checked { report, commits: Vec::new() });
        }
    };
    let row_index = RowIndex::new(disk.clone(), None, 0);
    let shared = Arc::new(Shared::new(path.into(), Arc::new(journal), None, row_index, u64::MAX, Box::new(())));
    match recovery::recover(&shared) {
        // Branches and tags were resolved on the way.
        Ok((registry, _)) => {
            for database in registry.databases.values() {
                for tag in database.tags.values() {
                    if shared.number_of(tag.commit).is_err() {
                        report.find(format!("tag {}", tag.name), "names a commit that does not exist");
                    }
                }
                for (name, branch) in &database.branches {
                    let state = branch.state();
                    for (what, root) in [("head", &state.head_root), ("staged", &state.staged), ("working", &state.working)] {
                        let verified = verify_root(root, &format!("branch {name}, {what}"));
                        report.note(verified)?;
                    }
                }
            }
        }
        Err(error) => report.note(Err(error))?,
    }
    report.commit_count = u64::from(shared.index.read().len());
    verify_commits(&shared, &mut report)?;
    verify_checkpoints(&shared, &mut report)?;
    let index = shared.index.read();
    let commits = (0..index.len()).filter_map(|number| index.entry(number).ok()).map(|entry| entry.id).collect();
    drop(index);
    Ok(Checked { report, commits })
}

/// Reads every segment whole and checks its frames.
fn scan_segments(disk: &dyn Disk, folder: &Path, report: &mut FsckReport) -> Result<()> {
    let mut next_sequence = 0;
    let files = segment_files(disk, folder)?;
    for (at, (path, bytes)) in files.iter().enumerate() {
        let bytes = bytes()?;
        report.segment_count += 1;
        let mut chunk_count = 0;
        let place = |offset: u64| format!("{} at offset {offset}", path.display());
        let mut damage = Vec::new();
        let end = scan(&bytes, &mut next_sequence, |offset, header, payload| {
            let body = match header.body(payload) {
                Ok(body) => body,
                Err(e) => {
                    damage.push((place(offset), e.0));
                    return Ok::<(), Error>(());
                }
            };
            match header.kind {
                FrameKind::Chunk => {
                    let address = ChunkAddress::of(&body);
                    if payload[..32] != address.0 {
                        damage.push((place(offset), "chunk does not hash to its address"));
                    }
                    chunk_count += 1;
                }
                FrameKind::Log => match LogFrame::decode(header.sequence, header.record_count, body) {
                    Err(e) => damage.push((place(offset), e.0)),
                    Ok(frame) => {
                        for (_, record) in frame.iter() {
                            if let Err(e) = Record::decode(&Bytes::clone(&record)) {
                                damage.push((place(offset), e.0));
                            }
                        }
                    }
                },
                FrameKind::Footer | FrameKind::Seal => {}
            }
            Ok(())
        })?;
        report.chunk_count += chunk_count;
        for (place, what) in damage {
            report.find(place, what);
        }
        match end {
            ScanEnd::Unsealed { .. } => {}
            // At the end of the last segment it may be an interrupted write; opening decides.
            ScanEnd::Bad { .. } if at + 1 == files.len() => {}
            ScanEnd::Bad { offset, what } => {
                report.find(place(offset), what);
                // Sequence numbers beyond are unknown; opening names the rest.
                return Ok(());
            }
            // The seal was compared with the frames. The index beside the segment is derived from it.
            ScanEnd::Sealed => {}
        }
    }
    Ok(())
}

fn verify_root(root: &Root, place: &str) -> Result<()> {
    for (oid, table) in &*root.tables {
        let at = |error: Error| match error {
            Error::Damaged { place: inner, what } => Error::Damaged { place: format!("{place}, table {oid}, {inner}"), what },
            other => other,
        };
        let rows = table.rows.verify().map_err(at)?.rows;
        for index in &table.indexes {
            if index.verify().map_err(at)?.rows != rows {
                return Err(Error::Damaged { place: format!("{place}, table {oid}"), what: "an index has another number of rows".into() });
            }
        }
    }
    Ok(())
}

fn verify_commits(shared: &Shared, report: &mut FsckReport) -> Result<()> {
    for number in 0..shared.index.read().len() {
        let verified = shared.commit_numbered(number).and_then(|commit| {
            let damaged = |what: &str| Err(Error::Damaged { place: format!("commit {:.12}", commit.id), what: what.into() });
            let (entry, parents): (_, Vec<_>) = {
                let index = shared.index.read();
                let parent = |number| index.entry(number).map(|entry| (entry.id, entry.height));
                (index.entry(number)?, index.parents(number)?.into_iter().map(parent).collect::<Result<_>>()?)
            };
            if !commit.parents.iter().eq(parents.iter().map(|(id, _)| id)) {
                return damaged("the index has other parents");
            }
            let height = parents.iter().map(|(_, height)| *height).max().unwrap_or(0) + 1;
            if commit.height != height || entry.height != height {
                return damaged("height does not follow from the parents");
            }
            if entry.time != commit.meta.time() || entry.xid != commit.meta.source.as_ref().map_or(0, |s| s.xid) {
                return damaged("the index has other coordinates");
            }
            let touched = commit.changes()?.touched_mask();
            if entry.touched & touched != touched {
                return damaged("the index misses a table that the commit touches");
            }
            Ok(())
        });
        report.note(verified)?;
    }
    Ok(())
}

/// Takes chunks and keeps none: what a root value's address is can be known without storing it.
struct NoChunks;

impl ChunkWriter for NoChunks {
    fn put(&mut self, _address: ChunkAddress, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Replays from checkpoint to checkpoint and compares.
fn verify_checkpoints(shared: &Shared, report: &mut FsckReport) -> Result<()> {
    let mut roots: Vec<(CommitNumber, ChunkAddress)> = shared.checkpoints.read().roots.iter().map(|(n, root)| (*n, root.address)).collect();
    roots.sort_unstable();
    let known: HashMap<CommitNumber, ChunkAddress> = roots.iter().copied().collect();
    for (number, address) in roots {
        let id = shared.index.read().entry(number)?.id;
        let verified = (|| {
            let root = Root::open(&address, shared.chunks())?;
            verify_root(&root, &format!("checkpoint of commit {id:.12}"))?;
            let (base, steps) = steps_to(shared, number, &known)?;
            let mut replayed = match base {
                Some(address) => Root::open(&address, shared.chunks())?,
                None => Root::new(Catalog::default()),
            };
            for step in steps {
                let commit = shared.commit_numbered(step)?;
                replayed.apply(commit.changes()?, &shared.chunks()).map_err(|error| Error::Damaged {
                    place: format!("commit {:.12}", commit.id),
                    what: format!("does not apply to its parent's root value: {error}"),
                })?;
            }
            let found = replayed.write(&mut NoChunks)?;
            if found != address {
                let what = format!("replay gives the root value {found:.12} and the checkpoint has {address:.12}");
                return Err(Error::Damaged { place: format!("checkpoint of commit {id:.12}"), what });
            }
            Ok(())
        })();
        report.note(verified)?;
    }
    Ok(())
}

/// The nearest checkpoint before a commit and the commits from there to it, oldest first.
fn steps_to(
    shared: &Shared,
    number: CommitNumber,
    known: &HashMap<CommitNumber, ChunkAddress>,
) -> Result<(Option<ChunkAddress>, Vec<CommitNumber>)> {
    let index = shared.index.read();
    let mut steps = vec![number];
    let mut at = index.first_parent(number)?;
    while let Some(number) = at {
        if let Some(address) = known.get(&number) {
            steps.reverse();
            return Ok((Some(*address), steps));
        }
        steps.push(number);
        at = index.first_parent(number)?;
    }
    steps.reverse();
    Ok((None, steps))
}
