//! The commits of one sealed segment: a file beside it, `00000001.commits`, mapped.
//!
//! It is a [checked file](crate::checked_file), derived from the segment's records and made again where it is missing,
//! damaged or about other commits: its subject is a hash of the segment's and of the commit before its first.
//!
//! | section | contents |
//! |---|---|
//! | 0 | number of the first commit, number of commits, 4 bytes each; sequence number of the segment's first record, 8 bytes; for each field of a row its width, 1 byte, and its base, 8 bytes |
//! | 1 | rows, in the order of the commits |
//! | 2 | fan-out of the ids |
//! | 3 | the commits in the order of their ids, counted from the first; 4 bytes each |
//! | 4 | for each 256 commits the smallest and the largest LSN of a source, 8 bytes each (2^64-1 and 0: none has one) |
//! | 5 | second and further parents: commit, counted from the first; its parent's number; 4 bytes each |
//! | 6 | checkpoints: sequence number of the record, 8 bytes; number of the commit, 4 bytes (2^32-1: none); address of its root value, 32 bytes |
//! | 7 | the commits whose first parent is not the commit before them, counted from the first; 4 bytes each |
//! | 8 | the commits whose line has come to a smaller LSN than that of the commit before them; 4 bytes each |
//!
//! A row is the commit's id and its fields, each stored as its distance to the smallest one of the segment in as few bytes as
//! the largest distance needs: none at all where it is the same for all. So a row of a replicated history takes about 50 bytes.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::entry::{Slack, line_jump, time_key, time_of_key};
use super::{CommitEntry, CommitNumber, FENCE_SIZE, Fence, IdRange, NONE};
use crate::checked_file::{self, CheckedFile, Fanout, Subject, u32_at, u64_at};
use crate::disk::Disk;
use crate::error::Result;
use crate::id::{ChunkAddress, CommitId, Lsn};

const KIND: u8 = 2;
const META: usize = 0;
const ROWS: usize = 1;
const FANOUT: usize = 2;
const ORDER: usize = 3;
const FENCES: usize = 4;
const MORE_PARENTS: usize = 5;
const CHECKPOINTS: usize = 6;
const BREAKS: usize = 7;
const DROPS: usize = 8;

const FIELD_COUNT: usize = 10;
const FIELDS_AT: usize = 16;
const META_SIZE: usize = FIELDS_AT + FIELD_COUNT * 9;
const CHECKPOINT_SIZE: usize = 44;
const FENCE_BYTES: usize = 16;

const HAS_SOURCE: u64 = 1 << 16;
const HAS_MORE_PARENTS: u64 = 1 << 17;

/// A checkpoint's record, with one of the root values that it tells; `None` when it tells none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointRoot {
    /// Of the checkpoint's record.
    pub sequence: u64,
    pub root: Option<(CommitNumber, ChunkAddress)>,
}

/// What goes into a file.
#[derive(Debug, Default)]
pub(crate) struct PartContents {
    pub first: CommitNumber,
    /// Of the segment's first record.
    pub first_sequence: u64,
    pub entries: Vec<CommitEntry>,
    /// Second and further parents, by commit.
    pub more_parents: Vec<(CommitNumber, CommitNumber)>,
    pub checkpoints: Vec<CheckpointRoot>,
}

pub(crate) fn commits_path(folder: &Path, segment: u32) -> PathBuf {
    folder.join(format!("{segment:08}.commits"))
}

/// What a file is about: the commits of this segment that follow this one.
pub(crate) fn subject(segment: &Subject, first: CommitNumber, before: Option<CommitId>) -> Subject {
    let mut hasher = blake3::Hasher::new();
    hasher.update(segment).update(&first.to_le_bytes()).update(&before.map_or([0; 32], |id| id.0));
    *hasher.finalize().as_bytes()
}

/// The numbers of an entry, as rows have them.
fn fields(entry: &CommitEntry, first: CommitNumber, index: usize, first_sequence: u64) -> [u64; FIELD_COUNT] {
    let number = first + index as u32;
    let back = |other: CommitNumber| if other == NONE { 0 } else { u64::from(number - other) };
    let mut marks = u64::from(entry.lsn_slack.0) | u64::from(entry.time_slack.0) << 8;
    if entry.has_source() {
        marks |= HAS_SOURCE;
    }
    if entry.has_more_parents {
        marks |= HAS_MORE_PARENTS;
    }
    [
        // Those that grow with the commits are counted so that they stay the same.
        entry.sequence.wrapping_sub(first_sequence).wrapping_sub(index as u64),
        back(entry.parent),
        // On a line the depth says which one it is.
        back(entry.jump) + (1 << 32) - line_jump(entry.depth),
        (u64::from(entry.depth) + (1 << 32)) - index as u64,
        entry.height - u64::from(entry.depth),
        entry.near_lsn,
        time_key(entry.time),
        // Those of a source's transactions grow with the commits, more or less.
        u64::from(entry.xid) + (1 << 32) - index as u64,
        u64::from(entry.touched),
        marks,
    ]
}

#[derive(Clone, Copy, Debug, Default)]
struct Field {
    width: usize,
    base: u64,
}

fn width(distance: u64) -> usize {
    match distance {
        0 => 0,
        1..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000..=0xFFFF_FFFF => 4,
        _ => 8,
    }
}

/// The number in so many bytes; written out, as every step of every walk through the commits comes here.
fn distance(bytes: &[u8]) -> u64 {
    match *bytes {
        [] => 0,
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

impl PartContents {
    pub fn encode(&self, subject: &Subject) -> Vec<u8> {
        let rows: Vec<_> = self.entries.iter().enumerate().map(|(i, e)| fields(e, self.first, i, self.first_sequence)).collect();
        let mut layout = [Field::default(); FIELD_COUNT];
        for (at, field) in layout.iter_mut().enumerate() {
            let base = rows.iter().map(|row| row[at]).min().unwrap_or(0);
            *field = Field { width: width(rows.iter().map(|row| row[at]).max().unwrap_or(0) - base), base };
        }
        let mut meta = Vec::with_capacity(META_SIZE);
        meta.extend_from_slice(&self.first.to_le_bytes());
        meta.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        meta.extend_from_slice(&self.first_sequence.to_le_bytes());
        for field in &layout {
            meta.push(field.width as u8);
            meta.extend_from_slice(&field.base.to_le_bytes());
        }
        let mut out = Vec::new();
        for (entry, row) in self.entries.iter().zip(&rows) {
            out.extend_from_slice(&entry.id.0);
            for (value, field) in row.iter().zip(&layout) {
                out.extend_from_slice(&(value - field.base).to_le_bytes()[..field.width]);
            }
        }
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        order.sort_unstable_by_key(|index| self.entries[*index as usize].id);
        let fanout = Fanout::encode(order.len(), order.iter().map(|index| &self.entries[*index as usize].id.0));
        let fences = self.entries.chunks(FENCE_SIZE).flat_map(|entries| {
            let mut fence = Fence::default();
            entries.iter().for_each(|entry| fence.enter(entry));
            [fence.min.to_le_bytes(), fence.max.to_le_bytes()].concat()
        });
        let parents =
            self.more_parents.iter().flat_map(|(commit, parent)| [(commit - self.first).to_le_bytes(), parent.to_le_bytes()].concat());
        let mut checkpoints = Vec::new();
        for checkpoint in &self.checkpoints {
            checkpoints.extend_from_slice(&checkpoint.sequence.to_le_bytes());
            let (commit, root) = checkpoint.root.unwrap_or((NONE, ChunkAddress([0; 32])));
            checkpoints.extend_from_slice(&commit.to_le_bytes());
            checkpoints.extend_from_slice(&root.0);
        }
        let order = order.iter().flat_map(|index| index.to_le_bytes()).collect();
        let breaks = self.entries.iter().zip(0u32..).filter(|(entry, index)| entry.is_break(self.first + index));
        let breaks = breaks.flat_map(|(_, index)| index.to_le_bytes()).collect();
        let drops = self.entries.windows(2).zip(1u32..).filter(|(pair, _)| pair[1].near_lsn < pair[0].near_lsn);
        let drops = drops.flat_map(|(_, index)| index.to_le_bytes()).collect();
        let sections = [meta, out, fanout, order, fences.collect(), parents.collect(), checkpoints, breaks, drops];
        checked_file::encode(KIND, subject, &sections)
    }
}

/// The open file.
#[derive(Debug)]
pub(crate) struct SealedCommits {
    file: CheckedFile,
    pub first: CommitNumber,
    pub count: u32,
    first_sequence: u64,
    layout: [Field; FIELD_COUNT],
    row_size: usize,
    fanout: Fanout,
    /// The last commit's.
    pub last_id: Option<CommitId>,
}

impl SealedCommits {
    /// Opens the file of a segment; `Err` says why it is of no use.
    pub fn open(disk: &dyn Disk, folder: &Path, segment: u32, subject: &Subject) -> Result<SealedCommits, String> {
        let file = CheckedFile::open(disk, &commits_path(folder, segment), KIND, subject)?;
        Self::of_file(file).map_err(|error| error.to_string())
    }

    /// Writes the file of a segment and opens it; kept in memory where it cannot be written.
    /// # Errors
    /// `Damaged`.
    pub fn write(disk: Option<&dyn Disk>, folder: &Path, segment: u32, encoded: Vec<u8>) -> Result<SealedCommits> {
        Self::of_file(CheckedFile::write(disk, &commits_path(folder, segment), encoded))
    }

    /// Says of a segment's file that it is about another subject, which has the same commits.
    pub fn change_subject(disk: &dyn Disk, folder: &Path, segment: u32, from: &Subject, to: &Subject) -> Result<(), String> {
        checked_file::change_subject(disk, &commits_path(folder, segment), KIND, from, to)
    }

    fn of_file(file: CheckedFile) -> Result<SealedCommits> {
        let meta = file.bytes(META, 0, META_SIZE)?;
        let (first, count, first_sequence) = (u32_at(meta, 0), u32_at(meta, 4), u64_at(meta, 8));
        let mut layout = [Field::default(); FIELD_COUNT];
        for (field, at) in layout.iter_mut().zip((FIELDS_AT..).step_by(9)) {
            *field = Field { width: usize::from(meta[at]), base: u64_at(meta, at + 1) };
        }
        let row_size = 32 + layout.iter().map(|field| field.width).sum::<usize>();
        let fits = layout.iter().all(|field| [0, 1, 2, 4, 8].contains(&field.width))
            && file.size(ROWS) == count as usize * row_size
            && file.size(ORDER) == count as usize * 4
            && first.checked_add(count).is_some();
        if !fits {
            return Err(file.damaged(0, "its sections do not fit each other"));
        }
        let fanout = Fanout::new(FANOUT, count as usize);
        let mut sealed = SealedCommits { file, first, count, first_sequence, layout, row_size, fanout, last_id: None };
        if let Some(last) = count.checked_sub(1) {
            sealed.last_id = Some(sealed.id(last)?);
        }
        Ok(sealed)
    }

    pub fn end(&self) -> CommitNumber {
        self.first + self.count
    }

    pub fn has_merges(&self) -> bool {
        self.file.size(MORE_PARENTS) > 0
    }

    /// Whether each commit but the store's first follows the one before it, and their LSNs ascend.
    pub fn is_even(&self) -> Result<bool> {
        let breaks = self.file.size(BREAKS);
        let is_line = breaks == 0 || breaks == 4 && self.first == 0 && self.file.u32(BREAKS, 0)? == 0;
        Ok(is_line && self.file.size(DROPS) == 0)
    }

    /// Whether the first parent of each commit from `from` up to `to` is the commit before it.
    pub fn is_line(&self, from: CommitNumber, to: CommitNumber) -> Result<bool> {
        self.has_none_between(BREAKS, from, to)
    }

    /// Whether the LSNs to which lines have come ascend from `from` up to `to`.
    pub fn ascends(&self, from: CommitNumber, to: CommitNumber) -> Result<bool> {
        Ok(from == to || self.has_none_between(DROPS, from + 1, to)?)
    }

    fn has_none_between(&self, section: usize, from: CommitNumber, to: CommitNumber) -> Result<bool> {
        let count = self.file.size(section) / 4;
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.file.u32(section, middle)? < from - self.first { low = middle + 1 } else { high = middle }
        }
        Ok(low == count || self.file.u32(section, low)? > to - self.first)
    }

    pub(super) fn id(&self, index: u32) -> Result<CommitId> {
        let bytes = self.file.bytes(ROWS, index as usize * self.row_size, 32)?;
        Ok(CommitId(*bytes.first_chunk().expect("BUG: an id has 32 bytes")))
    }

    pub fn entry(&self, number: CommitNumber) -> Result<CommitEntry> {
        let index = number - self.first;
        let at = index as usize * self.row_size;
        let row = self.file.bytes(ROWS, at, self.row_size)?;
        let id = row.first_chunk().expect("BUG: a row begins with an id");
        let mut values = [0u64; FIELD_COUNT];
        let mut rest = &row[32..];
        for (value, field) in values.iter_mut().zip(&self.layout) {
            let (own, after) = rest.split_at(field.width);
            rest = after;
            *value = field.base.wrapping_add(distance(own));
        }
        let [sequence, parent, jump, depth, height, near_lsn, time, xid, touched, marks] = values;
        let back = |distance: u64| match distance {
            0 => Ok(NONE),
            distance => u64::from(number)
                .checked_sub(distance)
                .map(|number| number as u32)
                .ok_or_else(|| self.file.damaged(at, "a commit refers to one before the first")),
        };
        let depth = depth.wrapping_add(u64::from(index)).wrapping_sub(1 << 32) as u32;
        Ok(CommitEntry {
            id: CommitId(*id),
            sequence: sequence.wrapping_add(self.first_sequence).wrapping_add(u64::from(index)),
            height: height.wrapping_add(u64::from(depth)),
            lsn: Lsn(if marks & HAS_SOURCE != 0 { near_lsn } else { u64::MAX }),
            xid: xid.wrapping_add(u64::from(index)) as u32,
            time: time_of_key(time),
            touched: touched as u32,
            parent: back(parent)?,
            jump: back(jump.wrapping_add(line_jump(depth)).wrapping_sub(1 << 32))?,
            depth,
            near_lsn,
            lsn_slack: Slack(marks as u8),
            time_slack: Slack((marks >> 8) as u8),
            has_more_parents: marks & HAS_MORE_PARENTS != 0,
        })
    }

    /// Second and further parents of a commit.
    pub fn more_parents(&self, number: CommitNumber) -> Result<Vec<CommitNumber>> {
        let wanted = number - self.first;
        let pair = |at: usize| self.file.bytes(MORE_PARENTS, at * 8, 8).map(|bytes| (u32_at(bytes, 0), u32_at(bytes, 4)));
        let count = self.file.size(MORE_PARENTS) / 8;
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if pair(middle)?.0 < wanted { low = middle + 1 } else { high = middle }
        }
        let mut found = Vec::new();
        while low < count {
            let (commit, parent) = pair(low)?;
            if commit != wanted {
                break;
            }
            found.push(parent);
            low += 1;
        }
        Ok(found)
    }

    fn in_order(&self, at: usize) -> Result<u32> {
        let index = self.file.u32(ORDER, at)?;
        if index >= self.count {
            return Err(self.file.damaged(at, "the order of the ids names a commit that is not there"));
        }
        Ok(index)
    }

    /// The first place in the order of the ids whose id is not below `id`.
    fn lower_bound(&self, id: &CommitId) -> Result<usize> {
        if self.count == 0 {
            return Ok(0);
        }
        let range = self.fanout.range(&self.file, &id.0, &id.0)?;
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.id(self.in_order(middle)?)? < *id { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    pub fn find(&self, id: &CommitId) -> Result<Option<CommitNumber>> {
        let at = self.lower_bound(id)?;
        if at >= self.count as usize {
            return Ok(None);
        }
        let index = self.in_order(at)?;
        Ok((self.id(index)? == *id).then_some(self.first + index))
    }

    /// Ids of commits in a range of ids, up to `limit` with those that are there.
    pub fn by_range(&self, range: &IdRange, limit: usize) -> Result<Vec<CommitId>> {
        let mut found = Vec::new();
        for at in self.lower_bound(&range.low)?..self.count as usize {
            let id = self.id(self.in_order(at)?)?;
            if !range.contains(&id) || found.len() == limit {
                break;
            }
            found.push(id);
        }
        Ok(found)
    }

    /// Stretches of commits that may have this LSN, the newest first.
    pub fn with_lsn(&self, lsn: Lsn) -> Result<Vec<Range<CommitNumber>>> {
        let mut found = Vec::new();
        let bytes = self.file.bytes(FENCES, 0, self.file.size(FENCES))?;
        for (at, fence) in bytes.chunks_exact(FENCE_BYTES).enumerate().rev() {
            if (Fence { min: u64_at(fence, 0), max: u64_at(fence, 8) }).may_have(lsn) {
                let start = self.first + (at * FENCE_SIZE) as u32;
                found.push(start..(start + FENCE_SIZE as u32).min(self.end()));
            }
        }
        Ok(found)
    }

    pub fn checkpoints(&self) -> Result<Vec<CheckpointRoot>> {
        let bytes = self.file.bytes(CHECKPOINTS, 0, self.file.size(CHECKPOINTS))?;
        let checkpoint = |bytes: &[u8]| {
            let root = ChunkAddress(*bytes[12..].first_chunk().expect("BUG: an address has 32 bytes"));
            let commit = Some(u32_at(bytes, 8)).filter(|commit| *commit != NONE);
            CheckpointRoot { sequence: u64_at(bytes, 0), root: commit.map(|commit| (commit, root)) }
        };
        Ok(bytes.chunks_exact(CHECKPOINT_SIZE).map(checkpoint).collect())
    }
}

/// Reads the rows of a file with these first two sections, the others empty; for tests with bytes that nobody wrote.
/// # Errors
/// `Damaged`.
#[cfg(any(test, fuzzing))]
pub(crate) fn decode_rows(bytes: &[u8]) -> Result<()> {
    let (meta, rows) = bytes.split_at(bytes.len().min(META_SIZE));
    let count = if meta.len() == META_SIZE { (u32_at(meta, 4) as usize).min(rows.len() / 32) } else { 0 };
    let encoded = checked_file::encode(KIND, &[0; 32], &[meta.to_vec(), rows.to_vec(), Vec::new(), vec![0; count * 4]]);
    let sealed = SealedCommits::write(None, Path::new("commits"), 1, encoded)?;
    for number in sealed.first..sealed.end() {
        sealed.entry(number)?;
    }
    Ok(())
}
