//! The commit index: what questions about the commit graph need of every commit, in memory, about 110 bytes each.
//!
//! Commits are numbered in the order of the journal. Besides its parents each has a *jump*: an ancestor on its
//! first-parent line, chosen as in a skew-binary list, so that any ancestor of that line is reached in O(log n) steps.
//! The smallest LSN and time between a commit and its jump lets a search for "the last commit not after t" pass over
//! whole stretches, although times on a line need not ascend. Rebuilt at opening from footers and the tail.

use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::encoding::{ByteReader, Decoded, Malformed, put_varint};
use crate::id::{CommitId, Lsn, Timestamp};

/// The number of a commit in the order of the journal.
pub(crate) type CommitNumber = u32;

const NONE: CommitNumber = u32::MAX;
/// Entries are kept in blocks, so that growing never copies them.
const BLOCK_SIZE: usize = 4096;

/// What is known of a commit without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitEntry {
    pub id: CommitId,
    /// The sequence number of its record.
    pub sequence: u64,
    pub height: u64,
    /// The source's commit LSN; `Lsn(u64::MAX)` without a source.
    pub lsn: Lsn,
    pub xid: u32,
    /// The source's commit time, otherwise its own.
    pub time: Timestamp,
    /// See `change_set::touched_mask`.
    pub touched: u32,
    parent: CommitNumber,
    jump: CommitNumber,
    /// The number of commits before it on its first-parent line.
    depth: u32,
    min_lsn: Lsn,
    min_time: Timestamp,
}

/// What a new commit tells the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewCommit {
    pub id: CommitId,
    pub sequence: u64,
    pub height: u64,
    pub lsn: Lsn,
    pub xid: u32,
    pub time: Timestamp,
    pub touched: u32,
}

#[derive(Debug, Default)]
pub(crate) struct CommitIndex {
    blocks: Vec<Vec<CommitEntry>>,
    len: u32,
    /// Second and further parents.
    more_parents: HashMap<CommitNumber, Vec<CommitNumber>>,
    /// Open addressing by the first bits of the id, so that ids with a common prefix lie together.
    slots: Vec<CommitNumber>,
}

impl CommitIndex {
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn entry(&self, number: CommitNumber) -> &CommitEntry {
        &self.blocks[number as usize / BLOCK_SIZE][number as usize % BLOCK_SIZE]
    }

    fn home(&self, id: &CommitId) -> usize {
        let first = u64::from_be_bytes(*id.0.first_chunk().expect("BUG: an id has 32 bytes"));
        (first >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    pub fn find(&self, id: &CommitId) -> Option<CommitNumber> {
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

    /// Enters a commit whose parents are known; one that is there already keeps its number.
    pub fn insert(&mut self, commit: &NewCommit, parents: &[CommitNumber]) -> CommitNumber {
        if let Some(number) = self.find(&commit.id) {
            return number;
        }
        let number = self.len;
        let parent = parents.first().copied().unwrap_or(NONE);
        let (mut jump, mut depth, mut min_lsn, mut min_time) = (NONE, 0, commit.lsn, commit.time);
        if parent != NONE {
            let above = *self.entry(parent);
            depth = above.depth + 1;
            jump = parent;
            if above.jump != NONE {
                let far = self.entry(above.jump);
                if above.depth - far.depth == far.depth.wrapping_sub(self.depth_of(far.jump)) {
                    // Two stretches of the same length become one.
                    jump = far.jump;
                    min_lsn = min_lsn.min(above.min_lsn).min(far.min_lsn);
                    min_time = min_time.min(above.min_time).min(far.min_time);
                }
            }
        }
        let entry = CommitEntry {
            id: commit.id,
            sequence: commit.sequence,
            height: commit.height,
            lsn: commit.lsn,
            xid: commit.xid,
            time: commit.time,
            touched: commit.touched,
            parent,
            jump,
            depth,
            min_lsn,
            min_time,
        };
        if (self.len as usize).is_multiple_of(BLOCK_SIZE) {
            self.blocks.push(Vec::with_capacity(BLOCK_SIZE));
        }
        self.blocks.last_mut().expect("BUG: no block").push(entry);
        self.len += 1;
        if parents.len() > 1 {
            self.more_parents.insert(number, parents[1..].to_vec());
        }
        if self.len as usize * 4 > self.slots.len() * 3 {
            let size = (self.slots.len() * 2).max(1024);
            self.slots = vec![NONE; size];
            for number in 0..self.len {
                self.enter(number);
            }
        } else {
            self.enter(number);
        }
        number
    }

    fn depth_of(&self, number: CommitNumber) -> u32 {
        // A stretch that would begin before the first commit has no equal.
        if number == NONE { u32::MAX / 2 } else { self.entry(number).depth }
    }

    pub fn first_parent(&self, number: CommitNumber) -> Option<CommitNumber> {
        let parent = self.entry(number).parent;
        (parent != NONE).then_some(parent)
    }

    pub fn parents(&self, number: CommitNumber) -> impl Iterator<Item = CommitNumber> + '_ {
        let more = self.more_parents.get(&number).map_or(&[][..], |m| m.as_slice());
        self.first_parent(number).into_iter().chain(more.iter().copied())
    }

    /// Commits whose ids begin with these hex digits, up to `limit`.
    pub fn by_prefix(&self, hex: &str, limit: usize) -> Vec<CommitId> {
        let mut found = Vec::new();
        if self.slots.is_empty() || hex.len() > 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return found;
        }
        let hex = hex.to_ascii_lowercase();
        let bound = |fill: u8| {
            let mut id = [0; 32];
            for (i, byte) in id.iter_mut().enumerate() {
                let digit = |at: usize| hex.as_bytes().get(at).map_or(fill, |b| (*b as char).to_digit(16).unwrap_or(0) as u8);
                *byte = digit(2 * i) << 4 | digit(2 * i + 1);
            }
            CommitId(id)
        };
        let (low, high) = (bound(0), bound(15));
        let last = self.home(&high);
        let mut slot = self.home(&low);
        let mut steps = 0;
        // Ids lie in the slots from their home on; a run of taken slots may carry some beyond the last home.
        loop {
            let number = self.slots[slot % self.slots.len()];
            if number == NONE {
                if slot >= last {
                    break;
                }
            } else {
                let id = self.entry(number).id;
                if id >= low && id <= high {
                    found.push(id);
                    if found.len() == limit {
                        break;
                    }
                }
            }
            slot += 1;
            steps += 1;
            if steps >= self.slots.len() {
                break;
            }
        }
        found
    }

    /// The ancestor on the first-parent line that is `distance` commits back.
    pub fn ancestor(&self, mut number: CommitNumber, distance: u64) -> Option<CommitNumber> {
        let depth = u64::from(self.entry(number).depth).checked_sub(distance)? as u32;
        loop {
            let entry = self.entry(number);
            if entry.depth == depth {
                return Some(number);
            }
            number = if entry.jump != NONE && self.entry(entry.jump).depth >= depth { entry.jump } else { entry.parent };
        }
    }

    /// The first commit, going back on the first-parent line from `number`, itself included, that is not after `bound`.
    pub fn line_not_after(&self, mut number: CommitNumber, bound: CommitNumber) -> Option<CommitNumber> {
        while number != NONE && number > bound {
            let entry = self.entry(number);
            number = if entry.jump != NONE && entry.jump >= bound { entry.jump } else { entry.parent };
        }
        (number != NONE).then_some(number)
    }

    /// How far back on the first-parent line of `from` a commit lies; `None` when it is not on it.
    pub fn line_distance(&self, from: CommitNumber, to: CommitNumber) -> Option<u64> {
        let distance = u64::from(self.entry(from).depth.checked_sub(self.entry(to).depth)?);
        (self.ancestor(from, distance)? == to).then_some(distance)
    }

    /// The first commit, going back on the first-parent line, for which `here` holds; `skip` says that it holds nowhere from
    /// a commit to its jump (exclusive).
    fn search(
        &self,
        mut number: CommitNumber,
        here: impl Fn(&CommitEntry) -> bool,
        skip: impl Fn(&CommitEntry) -> bool,
    ) -> Option<CommitNumber> {
        while number != NONE {
            let entry = self.entry(number);
            if here(entry) {
                return Some(number);
            }
            number = if skip(entry) { entry.jump } else { entry.parent };
        }
        None
    }

    pub fn at_lsn(&self, head: CommitNumber, lsn: Lsn) -> Option<CommitNumber> {
        // Without a source the LSN is the largest there is, and nothing is at it.
        let lsn = lsn.min(Lsn(u64::MAX - 1));
        self.search(head, |e| e.lsn <= lsn, |e| e.min_lsn > lsn)
    }

    pub fn at_time(&self, head: CommitNumber, time: Timestamp) -> Option<CommitNumber> {
        self.search(head, |e| e.time <= time, |e| e.min_time > time)
    }

    pub fn is_ancestor(&self, ancestor: CommitNumber, of: CommitNumber) -> bool {
        let height = self.entry(ancestor).height;
        let mut seen = HashSet::new();
        let mut open = vec![of];
        while let Some(number) = open.pop() {
            let entry = self.entry(number);
            if number == ancestor {
                return true;
            }
            if entry.height <= height || !seen.insert(number) {
                continue;
            }
            if self.more_parents.is_empty() {
                // One line: heights are one apart.
                return self.ancestor(number, entry.height - height) == Some(ancestor);
            }
            open.extend(self.parents(number));
        }
        false
    }

    /// A best common ancestor: of the common ones the first in the order of the log.
    pub fn merge_base(&self, a: CommitNumber, b: CommitNumber) -> Option<CommitNumber> {
        const A: u8 = 1;
        const B: u8 = 2;
        let mut sides: HashMap<CommitNumber, u8> = HashMap::new();
        let mut open = BinaryHeap::new();
        for (number, side) in [(a, A), (b, B)] {
            *sides.entry(number).or_default() |= side;
            open.push(self.order(number));
        }
        while let Some(next) = open.pop() {
            let number = next.2;
            let Some(side) = sides.remove(&number) else { continue };
            if side == A | B {
                return Some(number);
            }
            for parent in self.parents(number) {
                *sides.entry(parent).or_default() |= side;
                open.push(self.order(parent));
            }
        }
        None
    }

    /// The order of the log: higher first, then newer.
    fn order(&self, number: CommitNumber) -> (u64, Timestamp, CommitNumber) {
        let entry = self.entry(number);
        (entry.height, entry.time, number)
    }

    /// Commits whose record lies in this range of sequence numbers.
    pub fn between(&self, range: std::ops::Range<u64>) -> std::ops::Range<CommitNumber> {
        let point = |sequence: u64| {
            let (mut low, mut high) = (0, self.len);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.entry(middle).sequence < sequence { low = middle + 1 } else { high = middle }
            }
            low
        };
        point(range.start)..point(range.end)
    }

    /// Appends entries for a segment's footer.
    pub fn encode(&self, numbers: std::ops::Range<CommitNumber>, out: &mut Vec<u8>) {
        put_varint(out, u64::from(numbers.end - numbers.start));
        for number in numbers {
            let entry = self.entry(number);
            out.extend_from_slice(&entry.id.0);
            let parents: Vec<CommitNumber> = self.parents(number).collect();
            put_varint(out, parents.len() as u64);
            for parent in parents {
                // The distance, which is 1 for most.
                put_varint(out, u64::from(number - parent));
            }
            put_varint(out, entry.sequence);
            put_varint(out, entry.height);
            put_varint(out, entry.lsn.0);
            put_varint(out, u64::from(entry.xid));
            crate::encoding::put_zigzag(out, entry.time.0);
            out.extend_from_slice(&entry.touched.to_le_bytes());
        }
    }

    /// Enters what [`CommitIndex::encode`] wrote.
    pub fn decode(&mut self, reader: &mut ByteReader<'_>) -> Decoded<()> {
        for _ in 0..reader.count()? {
            let id = CommitId(reader.array()?);
            let mut parents = Vec::new();
            for _ in 0..reader.count()? {
                let distance = reader.varint_u32()?;
                let parent = self.len.checked_sub(distance).filter(|p| *p < self.len);
                parents.push(parent.ok_or(Malformed("parent of a commit is unknown"))?);
            }
            let commit = NewCommit {
                id,
                sequence: reader.varint()?,
                height: reader.varint()?,
                lsn: Lsn(reader.varint()?),
                xid: reader.varint_u32()?,
                time: Timestamp(reader.zigzag()?),
                touched: u32::from_le_bytes(reader.array()?),
            };
            let number = self.len;
            if self.insert(&commit, &parents) != number {
                return Err(Malformed("commit is indexed twice"));
            }
        }
        Ok(())
    }
}

/// A walk over the commits reachable from some heads and not from others: every commit before its parents, higher first.
#[derive(Debug)]
pub(crate) struct LogWalk {
    open: BinaryHeap<(u64, Timestamp, CommitNumber)>,
    /// Whether a commit among `open` is hidden.
    hidden: HashMap<CommitNumber, bool>,
    visible_count: usize,
}

impl LogWalk {
    pub fn new(index: &CommitIndex, heads: &[CommitNumber], hidden: &[CommitNumber]) -> Self {
        let mut walk = LogWalk { open: BinaryHeap::new(), hidden: HashMap::new(), visible_count: 0 };
        for head in heads {
            walk.push(index, *head, false);
        }
        for head in hidden {
            walk.push(index, *head, true);
        }
        walk
    }

    fn push(&mut self, index: &CommitIndex, number: CommitNumber, hidden: bool) {
        match self.hidden.insert(number, hidden) {
            None => {
                self.open.push(index.order(number));
                self.visible_count += usize::from(!hidden);
            }
            Some(before) => {
                // Hidden stays hidden.
                self.hidden.insert(number, before || hidden);
                self.visible_count -= usize::from(hidden && !before);
            }
        }
    }

    pub fn next(&mut self, index: &CommitIndex) -> Option<CommitNumber> {
        while self.visible_count > 0 {
            let (_, _, number) = self.open.pop()?;
            // A commit's descendants come before it, so nothing changes about it any more.
            let hidden = self.hidden.remove(&number)?;
            self.visible_count -= usize::from(!hidden);
            for parent in index.parents(number) {
                self.push(index, parent, hidden);
            }
            if !hidden {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(index: &mut CommitIndex, n: u64, parents: &[CommitNumber], time: i64) -> CommitNumber {
        let height = parents.iter().map(|p| index.entry(*p).height).max().unwrap_or(0) + 1;
        let id = CommitId::of(&n.to_le_bytes());
        let lsn = if n.is_multiple_of(3) { Lsn(u64::MAX) } else { Lsn(n * 10) };
        index.insert(&NewCommit { id, sequence: n * 2, height, lsn, xid: n as u32, time: Timestamp(time), touched: 1 }, parents)
    }

    fn line(count: u64) -> CommitIndex {
        let mut index = CommitIndex::default();
        for n in 0..count {
            // Times that go up and down a little.
            let time = (n as i64) * 10 + [0, 25, -25, 7][n as usize % 4];
            let parent: Vec<u32> = n.checked_sub(1).map(|p| p as u32).into_iter().collect();
            add(&mut index, n, &parent, time);
        }
        index
    }

    #[test]
    fn searches_on_a_line_find_what_a_walk_finds() {
        let index = line(3000);
        let head = 2999;
        let walk = |ok: &dyn Fn(&CommitEntry) -> bool| (0..=head).rev().find(|n| ok(index.entry(*n)));
        for probe in (0..30_100).step_by(37) {
            assert_eq!(index.at_lsn(head, Lsn(probe)), walk(&|e| e.lsn.0 <= probe), "lsn {probe}");
            let time = Timestamp(probe as i64 - 30);
            assert_eq!(index.at_time(head, time), walk(&|e| e.time <= time), "time {time:?}");
        }
        assert_eq!(index.at_lsn(head, Lsn(u64::MAX)), walk(&|e| e.lsn.0 != u64::MAX));
        for distance in [0, 1, 2, 17, 2998, 2999] {
            assert_eq!(index.ancestor(head, distance), Some(head - distance as u32));
        }
        assert_eq!(index.ancestor(head, 3000), None);
        assert!(index.is_ancestor(5, 2000) && !index.is_ancestor(2000, 5) && index.is_ancestor(5, 5));
    }

    #[test]
    fn ids_are_found_whole_and_by_prefix() {
        let index = line(3000);
        for n in [0u64, 1, 1023, 2999] {
            let id = CommitId::of(&n.to_le_bytes());
            assert_eq!(index.find(&id), Some(n as u32));
            assert_eq!(index.by_prefix(&format!("{id:.14}"), 2), vec![id]);
            assert_eq!(index.by_prefix(&id.to_string().to_uppercase(), 2), vec![id]);
        }
        for prefix in ["", "0", "f", "ff", "00", "a7"] {
            let mut expected: Vec<_> =
                (0..3000u64).map(|n| CommitId::of(&n.to_le_bytes())).filter(|id| id.to_string().starts_with(prefix)).collect();
            let mut found = index.by_prefix(prefix, usize::MAX);
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{prefix}");
        }
        assert!(index.by_prefix("xyz", 2).is_empty());
    }

    #[test]
    fn the_index_comes_back_from_its_encoding() {
        let mut index = line(50);
        add(&mut index, 50, &[49, 20], 5000);
        add(&mut index, 51, &[10], 5001);
        let mut out = Vec::new();
        index.encode(0..30, &mut out);
        index.encode(30..52, &mut out);
        let mut again = CommitIndex::default();
        let mut reader = ByteReader::new(&out);
        again.decode(&mut reader).unwrap();
        again.decode(&mut reader).unwrap();
        assert_eq!(again.len(), 52);
        for n in 0..52 {
            assert_eq!(again.entry(n), index.entry(n));
            assert!(again.parents(n).eq(index.parents(n)));
        }
        assert_eq!(index.between(10..21), 5..11);
    }

    #[test]
    fn the_log_of_a_merge_has_every_commit_before_its_parents_and_hides_what_is_hidden() {
        let mut index = line(4);
        let side = add(&mut index, 4, &[1], 1000);
        let merge = add(&mut index, 5, &[3, side], 1001);
        let log = |heads: &[u32], hidden: &[u32]| {
            let mut walk = LogWalk::new(&index, heads, hidden);
            std::iter::from_fn(|| walk.next(&index)).collect::<Vec<_>>()
        };
        assert_eq!(log(&[merge], &[]), vec![merge, 3, side, 2, 1, 0]);
        assert_eq!(log(&[merge], &[3]), vec![merge, side]);
        assert_eq!(log(&[merge], &[side]), vec![merge, 3, 2]);
        assert_eq!(log(&[3], &[merge]), Vec::<u32>::new());
        assert_eq!(index.merge_base(3, side), Some(1));
        assert_eq!(index.merge_base(merge, side), Some(side));
        assert!(index.is_ancestor(side, merge) && index.is_ancestor(0, merge) && !index.is_ancestor(2, side));
    }
}
