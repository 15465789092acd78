//! Sorting the entries of an index that is built, in memory as far as they fit.
//!
//! More entries than that are sorted in runs. A run is a tree of its own, written to the store like any other, and what is never
//! referred to again once the runs are merged; memory holds one leaf of each. An index that fits writes nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;
use std::sync::Arc;

use crate::chunk::ChunkReader;
use crate::error::Result;
use crate::tree::{Cursor, Layout, NodeCache, TreeBuilder};
use crate::value::{Physical, Value};

/// The part of the memory for nodes that entries take while they are sorted, and what they take at least (in bytes).
const SORT_SHARE: usize = 8;
const SORT_SIZE_MIN: usize = 1 << 20;
/// What an entry takes beside its bytes.
const ENTRY_OVERHEAD: usize = size_of::<Entry>() + 16;

/// An entry, and how many of its first bytes are the indexed columns (0: it is distinct from all others whatever they are).
type Entry = (Vec<u8>, usize);

/// Takes the entries in any order.
pub(super) struct EntrySorter {
    chunks: Option<Arc<dyn ChunkReader>>,
    size_max: usize,
    entries: Vec<Entry>,
    size: usize,
    runs: Vec<Cursor>,
}

/// The entries in their order.
pub(super) enum SortedEntries {
    Memory(std::vec::IntoIter<Entry>),
    Runs { runs: Vec<Cursor>, next: BinaryHeap<Reverse<(Entry, usize)>> },
}

impl EntrySorter {
    pub fn new(chunks: Option<Arc<dyn ChunkReader>>) -> EntrySorter {
        let size_of = |cache: &Arc<NodeCache>| (cache.limit() / SORT_SHARE).max(SORT_SIZE_MIN);
        let size_max = chunks.as_ref().and_then(|chunks| chunks.cache()).map_or(usize::MAX, size_of);
        EntrySorter { chunks, size_max, entries: Vec::new(), size: 0, runs: Vec::new() }
    }

    pub fn push(&mut self, entry: Vec<u8>, prefix: usize) -> Result<()> {
        self.size += entry.capacity() + ENTRY_OVERHEAD;
        self.entries.push((entry, prefix));
        if self.size > self.size_max { self.write_run() } else { Ok(()) }
    }

    fn write_run(&mut self) -> Result<()> {
        let Some(chunks) = &self.chunks else { return Ok(()) };
        let Some(mut writer) = chunks.writer() else { return Ok(()) };
        self.entries.sort_unstable();
        let layout = Layout::new(vec![Physical::Int4]);
        let mean = self.entries.iter().map(|(entry, _)| entry.len()).sum::<usize>() / self.entries.len().max(1);
        let target = layout.target_for(mean + layout.fixed_size());
        let mut builder = TreeBuilder::new(layout, target, Some(chunks.clone()));
        for (entry, prefix) in self.entries.drain(..) {
            builder.push(&entry, &[Value::Int4(prefix as i32)])?;
        }
        let mut tree = builder.finish()?;
        tree.write(&mut *writer)?;
        tree.release();
        if let Some(cache) = chunks.cache() {
            cache.make_room();
        }
        self.runs.push(tree.scan((Bound::Unbounded, Bound::Unbounded), false));
        self.size = 0;
        Ok(())
    }

    pub fn finish(mut self) -> Result<SortedEntries> {
        if self.runs.is_empty() {
            self.entries.sort_unstable();
            return Ok(SortedEntries::Memory(self.entries.into_iter()));
        }
        self.write_run()?;
        let mut next = BinaryHeap::with_capacity(self.runs.len());
        for (at, run) in self.runs.iter_mut().enumerate() {
            next.extend(next_of(run)?.map(|entry| Reverse((entry, at))));
        }
        Ok(SortedEntries::Runs { runs: self.runs, next })
    }
}

impl SortedEntries {
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        match self {
            SortedEntries::Memory(entries) => Ok(entries.next()),
            SortedEntries::Runs { runs, next } => {
                let Some(Reverse((entry, at))) = next.pop() else { return Ok(None) };
                next.extend(next_of(&mut runs[at])?.map(|entry| Reverse((entry, at))));
                Ok(Some(entry))
            }
        }
    }
}

fn next_of(run: &mut Cursor) -> Result<Option<Entry>> {
    Ok(run.next_position()?.map(|(leaf, at)| {
        let prefix = if let Value::Int4(prefix) = leaf.value(at, 0) { prefix as usize } else { 0 };
        (leaf.key(at).to_vec(), prefix)
    }))
}
