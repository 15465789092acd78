//! Which chunks are live: those that can be reached from root values that are kept.
//!
//! Leaves are named by the nodes above them and not read, so a walk reads about one chunk in thirty. What was reached before is
//! not entered again: root values of neighbouring checkpoints share most of their nodes.

use std::collections::HashSet;

use crate::chunk::ChunkReader;
use crate::error::Result;
use crate::id::ChunkAddress;
use crate::journal::AddressHash;
use crate::root::Root;
use crate::tree::chunks_below;

/// Half of an address: enough to tell all chunks from each other, also if somebody wants two to be alike.
type Half = [u8; 16];

fn half(address: &ChunkAddress) -> Half {
    *address.0.first_chunk().expect("BUG: an address has a first half")
}

/// The chunks reached so far. Takes about 30 bytes of memory for each.
#[derive(Debug, Default)]
pub(crate) struct Live {
    chunks: HashSet<Half, AddressHash>,
}

impl Live {
    pub fn contains(&self, address: &ChunkAddress) -> bool {
        self.chunks.contains(&half(address))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// A chunk that refers to no other; false if it was reached before.
    pub fn add(&mut self, address: &ChunkAddress) -> bool {
        self.chunks.insert(half(address))
    }

    /// What lies at an address, a root value or a node of a tree, with all that it refers to.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn add_all(&mut self, address: &ChunkAddress, reader: &dyn ChunkReader) -> Result<()> {
        if self.contains(address) {
            return Ok(());
        }
        match Root::is_root(&reader.read(address)?) {
            true => self.add_root(address, reader),
            false => self.add_tree(address, reader),
        }
    }

    /// All that a written root value refers to.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn add_root(&mut self, address: &ChunkAddress, reader: &dyn ChunkReader) -> Result<()> {
        if !self.add(address) {
            return Ok(());
        }
        let named = Root::names(address, &reader.read(address)?)?;
        self.chunks.extend(named.objects.iter().map(half));
        named.trees.iter().try_for_each(|tree| self.add_tree(tree, reader))
    }

    /// All nodes of a written tree.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn add_tree(&mut self, top: &ChunkAddress, reader: &dyn ChunkReader) -> Result<()> {
        // A node and whether it may have others below.
        let mut open = vec![(*top, true)];
        while let Some((address, is_inner)) = open.pop() {
            if self.add(&address) && is_inner {
                let (level, below) = chunks_below(&reader.read(&address)?, &address)?;
                open.extend(below.into_iter().map(|child| (child, level > 1)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkWriter, MemoryChunks};
    use crate::disk::SimulatedDisk;
    use crate::store::tests::{DATABASE, apply, made_with};
    use crate::tree::{Layout, Tree};
    use crate::value::{Physical, Value};

    /// Notes what is put.
    struct Noting<'a>(&'a MemoryChunks, HashSet<ChunkAddress>);

    impl ChunkWriter for Noting<'_> {
        fn put(&mut self, address: ChunkAddress, bytes: &[u8]) -> Result<()> {
            self.1.insert(address);
            self.0.put(address, bytes)
        }
    }

    #[test]
    fn what_a_root_value_reaches_is_what_was_written_for_it() {
        let store = made_with(&SimulatedDisk::default(), 1 << 20).unwrap();
        let branch = store.branch(DATABASE, "main").unwrap();
        for n in 1..600 {
            apply(&branch, n).unwrap();
        }
        let chunks = MemoryChunks::default();
        let mut writer = Noting(&chunks, HashSet::new());
        let mut earlier = branch.state().head_root.clone();
        let first = earlier.write(&mut writer).unwrap();
        let mut live = Live::default();
        live.add_root(&first, &chunks).unwrap();
        assert_eq!(live.chunks, writer.1.iter().map(half).collect());
        assert!(live.len() > 5);
        // Another root value adds what it does not share.
        for n in 600..900 {
            apply(&branch, n).unwrap();
        }
        let second = branch.state().head_root.clone().write(&mut writer).unwrap();
        live.add_root(&second, &chunks).unwrap();
        assert_eq!(live.chunks, writer.1.iter().map(half).collect());
        let mut alone = Live::default();
        alone.add_root(&second, &chunks).unwrap();
        assert!(alone.len() < live.len() && !alone.contains(&first));
        // A chunk that is missing is damage, not less to keep.
        assert!(Live::default().add_root(&second, &MemoryChunks::default()).is_err());
    }

    #[test]
    fn nodes_of_all_levels_are_reached() {
        let chunks = MemoryChunks::default();
        let mut writer = Noting(&chunks, HashSet::new());
        let mut tree = Tree::with_target(Layout::new(vec![Physical::Int4]), 16);
        for n in 0..60_000 {
            tree.insert(&u32::to_be_bytes(n), &[Value::Int4(n as i32)]).unwrap();
        }
        let top = tree.write(&mut writer).unwrap().unwrap();
        assert!(chunks.read(&top).unwrap()[0] >= 2, "the tree has two levels only");
        for add in [Live::add_tree, Live::add_all] {
            let mut live = Live::default();
            add(&mut live, &top, &chunks).unwrap();
            assert_eq!(live.chunks, writer.1.iter().map(half).collect());
        }
    }
}
