//! The commits that are in no sealed segment yet, in memory.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::{CommitEntry, CommitNumber, FENCE_SIZE, Fence, IdRange, NONE};
use crate::id::{CommitId, Lsn};

/// Entries are kept in blocks, so that growing never copies them and sealed ones are given back.
const BLOCK_SIZE: usize = 4096;
/// Commits that are entered into the slots together: each one's slot is a line of memory that is in no cache, and those of several are
/// waited for at once.
const ENTERED_TOGETHER: u32 = 32;

#[derive(Debug, Default)]
pub(super) struct Tail {
    blocks: VecDeque<Vec<CommitEntry>>,
    /// The number of the first commit in the blocks.
    start: CommitNumber,
    /// Commits below are sealed, even if the first block still has them.
    pub sealed: CommitNumber,
    /// The number after the last commit.
    pub end: CommitNumber,
    /// Those whose first parent is not the commit before them, ascending.
    breaks: Vec<CommitNumber>,
    /// Those whose line has come to a smaller LSN than that of the commit before them, ascending.
    drops: Vec<CommitNumber>,
    /// Second and further parents.
    pub more_parents: HashMap<CommitNumber, Vec<CommitNumber>>,
    /// Of each [`FENCE_SIZE`] commits from `start` on.
    fences: VecDeque<Fence>,
    /// Open addressing by the first bits of the id, so that ids with a common prefix lie together.
    slots: Vec<CommitNumber>,
    /// Commits from here on are not in the slots yet.
    slots_end: CommitNumber,
}

impl Tail {
    /// An empty tail after so many sealed commits.
    pub fn after(sealed: CommitNumber) -> Tail {
        Tail { start: sealed, sealed, end: sealed, slots_end: sealed, ..Tail::default() }
    }

    pub fn entry(&self, number: CommitNumber) -> &CommitEntry {
        let at = (number - self.start) as usize;
        &self.blocks[at / BLOCK_SIZE][at % BLOCK_SIZE]
    }

    /// Whether the first parent of each commit from `from` up to `to` is the commit before it.
    pub fn is_line(&self, from: CommitNumber, to: CommitNumber) -> bool {
        self.breaks.get(self.breaks.partition_point(|number| *number < from)).is_none_or(|number| *number > to)
    }

    /// Whether the LSNs to which lines have come ascend from `from` up to `to`.
    pub fn ascends(&self, from: CommitNumber, to: CommitNumber) -> bool {
        self.drops.get(self.drops.partition_point(|number| *number <= from)).is_none_or(|number| *number > to)
    }

    fn home(&self, id: &CommitId) -> usize {
        let first = u64::from_be_bytes(*id.0.first_chunk().expect("BUG: an id has 32 bytes"));
        (first >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    pub fn find(&self, id: &CommitId) -> Option<CommitNumber> {
        if let Some(number) = (self.slots_end..self.end).rev().find(|number| self.entry(*number).id == *id) {
            return Some(number);
        }
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = self.home(id);
        loop {
            let number = self.slots[slot];
            if number == NONE {
                return None;
            }
            if self.entry(number).id == *id {
                return Some(number);
            }
            slot = (slot + 1) % self.slots.len();
        }
    }

    fn enter(&mut self, number: CommitNumber) {
        let mut slot = self.home(&self.entry(number).id);
        while self.slots[slot] != NONE {
            slot = (slot + 1) % self.slots.len();
        }
        self.slots[slot] = number;
    }

    pub fn push(&mut self, entry: CommitEntry) {
        let number = self.end;
        let at = (number - self.start) as usize;
        if at.is_multiple_of(BLOCK_SIZE) {
            self.blocks.push_back(Vec::with_capacity(BLOCK_SIZE));
        }
        if at.is_multiple_of(FENCE_SIZE) {
            self.fences.push_back(Fence::default());
        }
        self.fences.back_mut().expect("BUG: no fence").enter(&entry);
        if entry.is_break(number) {
            self.breaks.push(number);
        }
        if at > 0 && entry.near_lsn < self.entry(number - 1).near_lsn {
            self.drops.push(number);
        }
        self.blocks.back_mut().expect("BUG: no block").push(entry);
        self.end += 1;
        if (self.end - self.sealed) as usize * 4 > self.slots.len() * 3 {
            self.fill_slots();
        } else if self.end - self.slots_end >= ENTERED_TOGETHER {
            self.enter_rest();
        }
    }

    /// A table of slots with room to grow.
    fn fill_slots(&mut self) {
        let size = ((self.end - self.sealed) as usize * 2).next_power_of_two().max(1024);
        self.slots = vec![NONE; size];
        self.slots_end = self.sealed;
        self.enter_rest();
    }

    /// Enters those that are not in the slots.
    fn enter_rest(&mut self) {
        for number in self.slots_end..self.end {
            self.enter(number);
        }
        self.slots_end = self.end;
    }

    /// Forgets commits below `sealed`. What is returned is large, and best dropped without a lock.
    pub fn forget(&mut self, sealed: CommitNumber) -> impl Sized + use<> {
        self.sealed = sealed;
        let block_count = (sealed - self.start) as usize / BLOCK_SIZE;
        let forgotten: Vec<_> = self.blocks.drain(..block_count).collect();
        self.fences.drain(..block_count * BLOCK_SIZE / FENCE_SIZE);
        self.start += (block_count * BLOCK_SIZE) as u32;
        self.more_parents.retain(|number, _| *number >= sealed);
        self.breaks.drain(..self.breaks.partition_point(|number| *number < sealed));
        self.drops.drain(..self.drops.partition_point(|number| *number < sealed));
        let slots = std::mem::take(&mut self.slots);
        self.fill_slots();
        (forgotten, slots)
    }

    /// Ids of commits in a range of ids, up to `limit` with those that are there.
    pub fn by_range(&self, range: &IdRange, limit: usize, found: &mut Vec<CommitId>) {
        let rest = (self.slots_end..self.end).map(|number| self.entry(number).id).filter(|id| range.contains(id));
        found.extend(rest.take(limit.saturating_sub(found.len())));
        if self.slots.is_empty() {
            return;
        }
        let last = self.home(&range.high);
        let mut slot = self.home(&range.low);
        let mut steps = 0;
        // Ids lie in the slots from their home on; a run of taken slots may carry some beyond the last home.
        while found.len() < limit && steps < self.slots.len() {
            let number = self.slots[slot % self.slots.len()];
            if number == NONE {
                if slot >= last {
                    break;
                }
            } else {
                let id = self.entry(number).id;
                if range.contains(&id) {
                    found.push(id);
                }
            }
            slot += 1;
            steps += 1;
        }
    }

    /// Stretches of commits that may have this LSN, the newest first.
    pub fn with_lsn(&self, lsn: Lsn) -> impl Iterator<Item = Range<CommitNumber>> + '_ {
        self.fences.iter().enumerate().rev().filter(move |(_, fence)| fence.may_have(lsn)).map(move |(at, _)| {
            let start = self.start + (at * FENCE_SIZE) as u32;
            start.max(self.sealed)..(start + FENCE_SIZE as u32).min(self.end)
        })
    }
}
