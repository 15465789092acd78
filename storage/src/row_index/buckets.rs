//! Entries in memory, where one hash is found among a part of them.

use super::Entry;
use crate::commit_index::CommitNumber;

/// Bits of a hash that choose its list.
const BITS: u32 = 10;

#[derive(Default)]
pub(super) struct Buckets {
    /// None at all, or one for each value of the upper bits of a hash.
    lists: Vec<Vec<Entry>>,
    len: usize,
}

impl Buckets {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push(&mut self, entry: Entry) {
        if self.lists.is_empty() {
            self.lists.resize_with(1 << BITS, Vec::new);
        }
        self.lists[(entry.0 >> (u32::BITS - BITS)) as usize].push(entry);
        self.len += 1;
    }

    /// Appends the commits under a hash.
    pub fn find(&self, hash: u32, found: &mut Vec<CommitNumber>) {
        if let Some(list) = self.lists.get((hash >> (u32::BITS - BITS)) as usize) {
            found.extend(list.iter().filter(|(h, _)| *h == hash).map(|(_, number)| *number));
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.lists.iter().flatten()
    }

    pub fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.lists.iter_mut().for_each(|list| list.retain(&keep));
        self.len = self.lists.iter().map(Vec::len).sum();
    }
}
