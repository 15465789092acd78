//! The commit index: what questions about the commit graph need of every commit.
//!
//! Commits are numbered in the order of the journal. Those of sealed segments are in mapped files, some 50 bytes each, of which
//! only what is asked for is read; those of the last segment are in memory, some 110 bytes each.
//!
//! ```text
//!   0 ────────────────────────────────────────── sealed ─────────────── end
//!   [00000001.commits][00000002.commits] ...      │ the tail, in memory
//! ```
//!
//! Besides its parents each commit has a *jump*: an ancestor on its first-parent line, chosen as in a skew-binary list, so that any
//! ancestor of that line is reached in O(log n) steps. A lower bound of the LSNs and times between a commit and its jump lets a
//! search for "the last commit not after t" pass over whole stretches, although times on a line need not ascend.
//!
//! A file that turns out to be damaged when it is asked is made again from the journal on the spot, and the question is
//! answered; only where the journal cannot be read, either, is that an error.

mod entry;
mod sealed;
mod tail;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub(crate) use entry::{CommitEntry, NewCommit};
#[cfg(any(test, fuzzing))]
pub(crate) use sealed::decode_rows;
pub(crate) use sealed::{CheckpointRoot, PartContents, SealedCommits, subject};
#[cfg(test)]
pub(crate) use tests::sample_rows;
pub(crate) use walk::LogWalk;

use crate::error::{Error, Result};
use crate::id::{CommitId, Lsn, Timestamp};
use crate::interpolation::last_not_above;
use entry::Above;
use tail::Tail;

/// The number of a commit in the order of the journal.
pub(crate) type CommitNumber = u32;

const NONE: CommitNumber = u32::MAX;
/// Commits whose smallest and largest LSN are kept, so that the search for one of them passes over most.
const FENCE_SIZE: usize = 256;

/// Makes the file of a sealed segment again.
pub(crate) trait RemakePart: Send + Sync + std::fmt::Debug {
    /// The commits of the segment at this index (its number less one); `before` has those of the segments before.
    /// # Errors
    /// `Damaged`, `Io`.
    fn remake(&self, segment: usize, before: CommitIndex) -> Result<SealedCommits>;
}

/// The commits of a sealed segment.
#[derive(Debug)]
struct Part {
    commits: SealedCommits,
    /// Instead of those, which have turned out to be damaged.
    remade: OnceLock<SealedCommits>,
}

/// What searches want to know of a part before they look into its file, together for all parts: each look is a miss in the processor's
/// caches.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: CommitNumber,
    /// The LSN of its first commit, as [`CommitEntry`] has it.
    near_lsn: u64,
    /// Each commit but the store's first follows the one before it, and their LSNs ascend.
    is_even: bool,
}

impl Part {
    fn commits(&self) -> &SealedCommits {
        self.remade.get().unwrap_or(&self.commits)
    }
}

#[derive(Debug, Default)]
pub(crate) struct CommitIndex {
    /// One for each sealed segment, in order.
    parts: Vec<Arc<Part>>,
    /// One for each part.
    stretches: Vec<Stretch>,
    tail: Tail,
    remake: Option<Arc<dyn RemakePart>>,
}

/// A commit about to be entered.
pub(crate) enum Prepared {
    /// It is there already.
    Known(CommitNumber),
    /// Its entry and its second and further parents.
    New(Box<CommitEntry>, Vec<CommitNumber>),
}

impl CommitIndex {
    pub fn new(remake: Arc<dyn RemakePart>) -> CommitIndex {
        CommitIndex { remake: Some(remake), ..CommitIndex::default() }
    }

    /// The number of commits.
    pub fn len(&self) -> u32 {
        self.tail.end
    }

    /// The number of commits in sealed segments.
    pub fn sealed_len(&self) -> u32 {
        self.tail.sealed
    }

    /// The number of segments whose commits are in files.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// The last commit of the sealed segments.
    pub fn last_sealed(&self) -> Option<CommitId> {
        self.parts.iter().rev().find_map(|part| part.commits().last_id)
    }

    /// The first commit of a segment's file, and the last one before it; `None` while the segment has none.
    pub fn part_begin(&self, part: usize) -> Option<(CommitNumber, Option<CommitId>)> {
        let before = self.parts[..part.min(self.parts.len())].iter().rev().find_map(|part| part.commits().last_id);
        Some((self.parts.get(part)?.commits.first, before))
    }

    /// Asks a part; one that is damaged is made again first.
    fn ask<T>(&self, part: usize, question: impl Fn(&SealedCommits) -> Result<T>) -> Result<T> {
        let found = &self.parts[part];
        match (question(found.commits()), &self.remake) {
            (Err(error @ Error::Damaged { .. }), Some(remake)) if found.remade.get().is_none() => {
                tracing::warn!(%error, "the commits of a segment are read again");
                let before = CommitIndex {
                    parts: self.parts[..part].to_vec(),
                    stretches: self.stretches[..part].to_vec(),
                    tail: Tail::after(found.commits.first),
                    remake: self.remake.clone(),
                };
                let remade = remake.remake(part, before)?;
                // Another thread may have been faster.
                let _ = found.remade.set(remade);
                question(found.commits())
            }
            (answer, _) => answer,
        }
    }

    /// The part that has a sealed commit.
    fn part_of(&self, number: CommitNumber) -> usize {
        // Parts without commits begin where the next one does, and the last of them has the commit.
        self.stretches.partition_point(|stretch| stretch.first <= number) - 1
    }

    /// # Errors
    /// `Damaged`.
    pub fn entry(&self, number: CommitNumber) -> Result<CommitEntry> {
        if number >= self.tail.sealed {
            return Ok(*self.tail.entry(number));
        }
        self.ask(self.part_of(number), |commits| commits.entry(number))
    }

    /// # Errors
    /// `Damaged`.
    pub fn id(&self, number: CommitNumber) -> Result<CommitId> {
        if number >= self.tail.sealed {
            return Ok(self.tail.entry(number).id);
        }
        let part = self.part_of(number);
        self.ask(part, |commits| commits.id(number - commits.first))
    }

    /// # Errors
    /// `Damaged`.
    pub fn find(&self, id: &CommitId) -> Result<Option<CommitNumber>> {
        self.find_from(id, 0)
    }

    /// The commit, if its number is not below `from`, or perhaps if it is.
    fn find_from(&self, id: &CommitId, from: CommitNumber) -> Result<Option<CommitNumber>> {
        if let Some(number) = self.tail.find(id) {
            return Ok(Some(number));
        }
        for part in (0..self.parts.len()).rev() {
            if self.parts[part].commits.end() <= from {
                break;
            }
            if let Some(number) = self.ask(part, |commits| commits.find(id))? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Looks at a commit whose parents are known. To be entered with [`Self::enter`] before anything else is.
    /// # Errors
    /// `Damaged`.
    pub fn prepare(&self, commit: &NewCommit, parents: &[CommitNumber]) -> Result<Prepared> {
        // It comes after its parents; mostly there is nothing after them.
        let from = parents.iter().max().map_or(0, |last| last + 1);
        if from < self.len()
            && let Some(number) = self.find_from(&commit.id, from)?
        {
            return Ok(Prepared::Known(number));
        }
        let above = match parents.first() {
            None => None,
            Some(parent) => {
                let entry = self.entry(*parent)?;
                let far = if entry.jump == NONE { None } else { Some(self.entry(entry.jump)?) };
                let jumps = match far {
                    Some(far) if far.jump != NONE => Some((far, self.entry(far.jump)?)),
                    _ => None,
                };
                Some(Above { entry, jumps })
            }
        };
        let mut entry = CommitEntry::after(commit, parents.first().copied().unwrap_or(NONE), above);
        entry.has_more_parents = parents.len() > 1;
        Ok(Prepared::New(Box::new(entry), parents.get(1..).unwrap_or_default().to_vec()))
    }

    /// Enters a commit, whose record has this sequence number, and returns its number.
    pub fn enter(&mut self, prepared: Prepared, sequence: u64) -> CommitNumber {
        match prepared {
            Prepared::Known(number) => number,
            Prepared::New(entry, more_parents) => {
                let number = self.tail.end;
                self.tail.push(CommitEntry { sequence, ..*entry });
                if !more_parents.is_empty() {
                    self.tail.more_parents.insert(number, more_parents);
                }
                number
            }
        }
    }

    /// Enters a commit whose parents are known; one that is there already keeps its number.
    /// # Errors
    /// `Damaged`.
    pub fn insert(&mut self, commit: &NewCommit, parents: &[CommitNumber]) -> Result<CommitNumber> {
        let prepared = self.prepare(commit, parents)?;
        Ok(self.enter(prepared, commit.sequence))
    }

    /// Whether a file can be the next segment's.
    pub fn fits(&self, commits: &SealedCommits) -> bool {
        commits.first == self.tail.sealed
    }

    /// Takes the file of the next sealed segment, whose commits were in the tail or are new. What is returned is large, and
    /// best dropped without a lock.
    pub fn seal(&mut self, commits: SealedCommits) -> impl Sized + use<> {
        assert!(self.fits(&commits), "BUG: commits are sealed out of order");
        let end = commits.end();
        let near_lsn = if commits.count == 0 { Ok(0) } else { commits.entry(commits.first).map(|entry| entry.near_lsn) };
        // Damage is told, and mended, where somebody asks.
        let is_even = near_lsn.is_ok() && commits.is_even().unwrap_or(false);
        self.stretches.push(Stretch { first: commits.first, near_lsn: near_lsn.unwrap_or(0), is_even });
        self.parts.push(Arc::new(Part { commits, remade: OnceLock::new() }));
        if end > self.tail.end {
            assert!(self.tail.sealed == self.tail.end, "BUG: commits of another segment are in the tail");
            Some((None, std::mem::replace(&mut self.tail, Tail::after(end))))
        } else {
            let forgotten = self.tail.forget(end);
            Some((Some(forgotten), Tail::default()))
        }
    }

    /// # Errors
    /// `Damaged`.
    pub fn first_parent(&self, number: CommitNumber) -> Result<Option<CommitNumber>> {
        let parent = self.entry(number)?.parent;
        Ok((parent != NONE).then_some(parent))
    }

    /// # Errors
    /// `Damaged`.
    pub fn parents(&self, number: CommitNumber) -> Result<Vec<CommitNumber>> {
        let entry = self.entry(number)?;
        let mut parents = Vec::from_iter((entry.parent != NONE).then_some(entry.parent));
        if entry.has_more_parents {
            parents.extend(self.more_parents(number)?);
        }
        Ok(parents)
    }

    fn more_parents(&self, number: CommitNumber) -> Result<Vec<CommitNumber>> {
        if number >= self.tail.sealed {
            return Ok(self.tail.more_parents.get(&number).cloned().unwrap_or_default());
        }
        self.ask(self.part_of(number), |commits| commits.more_parents(number))
    }

    /// Commits whose ids begin with these hex digits, up to `limit`.
    /// # Errors
    /// `Damaged`.
    pub fn by_prefix(&self, hex: &str, limit: usize) -> Result<Vec<CommitId>> {
        let mut found = Vec::new();
        let Some(range) = IdRange::of_prefix(hex) else { return Ok(found) };
        self.tail.by_range(&range, limit, &mut found);
        for part in (0..self.parts.len()).rev() {
            if found.len() >= limit {
                break;
            }
            found.extend(self.ask(part, |commits| commits.by_range(&range, limit - found.len()))?);
        }
        Ok(found)
    }

    /// Whether the first-parent line from `to` down to `from` has every commit between them. Most histories are such a line, on which
    /// ancestors need not be looked for.
    fn is_line(&self, from: CommitNumber, to: CommitNumber) -> Result<bool> {
        if from >= to {
            return Ok(from == to);
        }
        // The parent of the first does not matter.
        let from = from + 1;
        let sealed = self.tail.sealed;
        if to >= sealed && !self.tail.is_line(from.max(sealed), to) {
            return Ok(false);
        }
        if from >= sealed {
            return Ok(true);
        }
        let last = to.min(sealed - 1);
        for part in self.part_of(from)..=self.part_of(last) {
            // The store's first commit is not after `from`.
            if self.stretches[part].is_even {
                continue;
            }
            let commits = &self.parts[part].commits;
            if commits.count > 0 {
                let (from, to) = (from.max(commits.first), last.min(commits.end() - 1));
                if !self.ask(part, |commits| commits.is_line(from, to))? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The ancestor on the first-parent line that is `distance` commits back.
    /// # Errors
    /// `Damaged`.
    pub fn ancestor(&self, mut number: CommitNumber, distance: u64) -> Result<Option<CommitNumber>> {
        if let Some(ancestor) = u32::try_from(distance).ok().and_then(|distance| number.checked_sub(distance))
            && self.is_line(ancestor, number)?
        {
            return Ok(Some(ancestor));
        }
        let mut entry = self.entry(number)?;
        let Some(depth) = u64::from(entry.depth).checked_sub(distance) else { return Ok(None) };
        while u64::from(entry.depth) > depth {
            let jump = if entry.jump == NONE { None } else { Some(self.entry(entry.jump)?) };
            match jump.filter(|far| u64::from(far.depth) >= depth) {
                Some(far) => (number, entry) = (entry.jump, far),
                None => {
                    number = entry.parent;
                    entry = self.entry(number)?;
                }
            }
        }
        Ok(Some(number))
    }

    /// The first commit, going back on the first-parent line from `number`, itself included, that is not after `bound`.
    /// # Errors
    /// `Damaged`.
    pub fn line_not_after(&self, mut number: CommitNumber, bound: CommitNumber) -> Result<Option<CommitNumber>> {
        if self.is_line(bound, number)? {
            return Ok(Some(bound));
        }
        while number != NONE && number > bound {
            let entry = self.entry(number)?;
            number = if entry.jump != NONE && entry.jump >= bound { entry.jump } else { entry.parent };
        }
        Ok((number != NONE).then_some(number))
    }

    /// How far back on the first-parent line of `from` a commit lies; `None` when it is not on it.
    /// # Errors
    /// `Damaged`.
    pub fn line_distance(&self, from: CommitNumber, to: CommitNumber) -> Result<Option<u64>> {
        if self.is_line(to, from)? {
            return Ok(Some(u64::from(from - to)));
        }
        let Some(distance) = self.entry(from)?.depth.checked_sub(self.entry(to)?.depth).map(u64::from) else { return Ok(None) };
        Ok((self.ancestor(from, distance)? == Some(to)).then_some(distance))
    }

    /// The first commit, going back on the first-parent line, for which `here` holds; `skip` says that it holds nowhere from
    /// a commit to its jump (exclusive), which is given, too.
    fn search(
        &self,
        mut number: CommitNumber,
        here: impl Fn(&CommitEntry) -> bool,
        skip: impl Fn(&CommitEntry, &CommitEntry) -> bool,
    ) -> Result<Option<CommitNumber>> {
        let mut entry = self.entry(number)?;
        while !here(&entry) {
            let jump = if entry.jump == NONE { None } else { Some(self.entry(entry.jump)?) };
            match jump.filter(|far| skip(&entry, far)) {
                Some(far) => (number, entry) = (entry.jump, far),
                None if entry.parent == NONE => return Ok(None),
                None => {
                    number = entry.parent;
                    entry = self.entry(number)?;
                }
            }
        }
        Ok(Some(number))
    }

    /// A commit on the first-parent line of `head`, itself included, after which the line has come to larger LSNs than `lsn`: found
    /// by halving stretches that are lines with ascending LSNs, as a source's are.
    fn last_near(&self, head: CommitNumber, lsn: Lsn) -> Result<CommitNumber> {
        let near = |number: CommitNumber| Ok::<_, Error>(self.entry(number)?.near_lsn);
        let mut last = head;
        loop {
            let stretch = (last < self.tail.sealed).then(|| self.stretches[self.part_of(last)]);
            let first = stretch.map_or(self.tail.sealed, |stretch| stretch.first);
            let is_ordered = match stretch {
                None => self.tail.is_line(first + 1, last) && self.tail.ascends(first, last),
                Some(stretch) if stretch.is_even => true,
                Some(_) => self
                    .ask(self.part_of(last), |part| Ok((first == last || part.is_line(first + 1, last)?) && part.ascends(first, last)?))?,
            };
            if !is_ordered || near(last)? <= lsn.0 {
                return Ok(last);
            }
            let first_near = match stretch {
                Some(stretch) if stretch.is_even => stretch.near_lsn,
                _ => near(first)?,
            };
            if first_near <= lsn.0 {
                let near = |number: u64| near(number as CommitNumber);
                return Ok(last_not_above(u64::from(first), u64::from(last), lsn.0, near)? as CommitNumber);
            }
            if let Some(Stretch { is_even: true, .. }) = stretch
                && let Some(before) = first.checked_sub(1)
            {
                last = before;
                continue;
            }
            match self.first_parent(first)? {
                Some(parent) => last = parent,
                None => return Ok(first),
            }
        }
    }

    /// # Errors
    /// `Damaged`.
    pub fn at_lsn(&self, head: CommitNumber, lsn: Lsn) -> Result<Option<CommitNumber>> {
        let head = self.last_near(head, lsn)?;
        self.search(head, |e| e.has_source() && e.lsn <= lsn, |e, far| e.least_lsn(far).is_none_or(|least| least > lsn.0))
    }

    /// # Errors
    /// `Damaged`.
    pub fn at_time(&self, head: CommitNumber, time: Timestamp) -> Result<Option<CommitNumber>> {
        let key = entry::time_key(time);
        self.search(head, |e| e.time <= time, |e, far| e.least_time(far).is_none_or(|least| least > key))
    }

    /// All commits that came from a transaction with this LSN of a source, the newest first. Most others are not looked at.
    /// # Errors
    /// `Damaged`.
    pub fn of_lsn(&self, lsn: Lsn) -> Result<Vec<CommitNumber>> {
        let mut stretches: Vec<Range<CommitNumber>> = self.tail.with_lsn(lsn).collect();
        for part in (0..self.parts.len()).rev() {
            stretches.extend(self.ask(part, |commits| commits.with_lsn(lsn))?);
        }
        let mut found = Vec::new();
        for number in stretches.into_iter().flat_map(Iterator::rev) {
            let entry = self.entry(number)?;
            found.extend((entry.has_source() && entry.lsn == lsn).then_some(number));
        }
        Ok(found)
    }

    fn has_merges(&self) -> bool {
        !self.tail.more_parents.is_empty() || self.parts.iter().any(|part| part.commits.has_merges())
    }

    /// # Errors
    /// `Damaged`.
    pub fn is_ancestor(&self, ancestor: CommitNumber, of: CommitNumber) -> Result<bool> {
        let height = self.entry(ancestor)?.height;
        if !self.has_merges() {
            // Of one line, heights are one apart.
            let distance = self.entry(of)?.height.checked_sub(height);
            return Ok(distance.map(|distance| self.ancestor(of, distance)).transpose()?.flatten() == Some(ancestor));
        }
        let mut seen = HashSet::new();
        let mut open = vec![of];
        while let Some(number) = open.pop() {
            if number == ancestor {
                return Ok(true);
            }
            if self.entry(number)?.height > height && seen.insert(number) {
                open.extend(self.parents(number)?);
            }
        }
        Ok(false)
    }

    /// A best common ancestor: of the common ones the first in the order of the log.
    /// # Errors
    /// `Damaged`.
    pub fn merge_base(&self, a: CommitNumber, b: CommitNumber) -> Result<Option<CommitNumber>> {
        const A: u8 = 1;
        const B: u8 = 2;
        let mut sides: HashMap<CommitNumber, u8> = HashMap::new();
        let mut open = BinaryHeap::new();
        for (number, side) in [(a, A), (b, B)] {
            *sides.entry(number).or_default() |= side;
            open.push(self.order(number)?);
        }
        while let Some(next) = open.pop() {
            let number = next.2;
            let Some(side) = sides.remove(&number) else { continue };
            if side == A | B {
                return Ok(Some(number));
            }
            for parent in self.parents(number)? {
                *sides.entry(parent).or_default() |= side;
                open.push(self.order(parent)?);
            }
        }
        Ok(None)
    }

    /// The order of the log: higher first, then newer.
    fn order(&self, number: CommitNumber) -> Result<(u64, Timestamp, CommitNumber)> {
        let entry = self.entry(number)?;
        Ok((entry.height, entry.time, number))
    }

    /// The commits of the tail whose record lies before this sequence number.
    pub fn tail_before(&self, sequence: u64) -> Range<CommitNumber> {
        let (mut low, mut high) = (self.tail.sealed, self.tail.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.tail.entry(middle).sequence < sequence { low = middle + 1 } else { high = middle }
        }
        self.tail.sealed..low
    }

    /// Adds commits of the tail to what goes into a file.
    pub fn copy_tail(&self, numbers: Range<CommitNumber>, contents: &mut PartContents) {
        for number in numbers {
            let entry = *self.tail.entry(number);
            if entry.has_more_parents {
                let parents = self.tail.more_parents.get(&number).into_iter().flatten();
                contents.more_parents.extend(parents.map(|parent| (number, *parent)));
            }
            contents.entries.push(entry);
        }
    }
}

/// All ids with a common beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdRange {
    low: CommitId,
    high: CommitId,
}

impl IdRange {
    /// `None` for what is no beginning of an id.
    fn of_prefix(hex: &str) -> Option<IdRange> {
        if hex.len() > 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let bound = |fill: u8| {
            let mut id = [0; 32];
            for (i, byte) in id.iter_mut().enumerate() {
                let digit = |at: usize| hex.as_bytes().get(at).map_or(fill, |b| (*b as char).to_digit(16).unwrap_or(0) as u8);
                *byte = digit(2 * i) << 4 | digit(2 * i + 1);
            }
            CommitId(id)
        };
        Some(IdRange { low: bound(0), high: bound(15) })
    }

    fn contains(&self, id: &CommitId) -> bool {
        self.low <= *id && *id <= self.high
    }
}

/// Between which values the LSNs of some commits lie, of those that have a source.
#[derive(Clone, Copy, Debug)]
struct Fence {
    min: u64,
    max: u64,
}

impl Default for Fence {
    fn default() -> Self {
        Fence { min: u64::MAX, max: 0 }
    }
}

impl Fence {
    fn enter(&mut self, entry: &CommitEntry) {
        if entry.has_source() {
            self.min = self.min.min(entry.lsn.0);
            self.max = self.max.max(entry.lsn.0);
        }
    }

    fn may_have(&self, lsn: Lsn) -> bool {
        self.min <= lsn.0 && lsn.0 <= self.max
    }
}
