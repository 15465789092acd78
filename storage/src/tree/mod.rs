//! An ordered map from key bytes to rows, as a tree of nodes that snapshots share.
//!
//! This is a prolly tree whose nodes get their addresses late. In memory it is an ordinary tree of reference-counted nodes: an edit changes nodes
//! that nobody else holds in place and copies those that a snapshot still shares, and it hashes nothing. Only
//! [`Tree::write`], at a checkpoint, hashes the nodes that have changed since the last one and hands their bytes to the store;
//! an unchanged node keeps the address that it was written or read under.
//!
//! ```text
//!   Tree ── Inner (level 2) ──┬── Inner (level 1) ──┬── Leaf   rows with keys k0 .. k1-1
//!                             │                     ├── Leaf   rows with keys k1 .. k2-1
//!                             │                     └── ·      an address: read when first needed
//!                             └── ·
//! ```
//!
//! Written trees are canonical: the same rows give the same nodes, whatever the order of the edits that led to them, so equal
//! subtrees have equal addresses and a diff skips them. Where nodes end is decided by keys alone (see `boundary`). Rows appended at the end find the
//! right boundaries at once; a row inserted or deleted in the middle may leave a node that should have ended elsewhere.
//! Such nodes are marked dirty, and [`Tree::normalise`] cuts them anew, along with as many of their neighbours as
//! it takes until old and new boundaries meet again (see `splice`).
//!
//! Parts: `layout` (the columns), `leaf` (rows), `node` (inner nodes, loading), `edit` (insert, update, delete), `splice` (bulk building and
//! normalising), `cursor` (scans), `diff`, `verify`, `cache` (the limit on memory: written leaves go and are read again).

mod boundary;
mod cache;
mod cursor;
mod diff;
mod edit;
mod layout;
mod leaf;
mod leaf_chunk;
mod leaf_diff;
mod leaf_edit;
mod node;
mod read_ahead;
mod search;
mod splice;
mod update_sorted;
mod verify;

use std::fmt;
use std::sync::Arc;

use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::key_bytes::KeyBytes;
use crate::value::{Row, Value};

#[cfg(test)]
pub(crate) use cache::Charge;
pub use cache::NodeCache;
pub(crate) use cache::SpillPace;
pub use cursor::{Cursor, LeafRows};
pub use diff::{TreeDiff, TreeDiffRow};
pub use edit::Updated;
pub use layout::Layout;
pub use leaf::{ColumnView, Leaf, LeafRef, Nulls};
pub use splice::TreeBuilder;
pub(crate) use update_sorted::RowUpdate;
pub use verify::TreeSize;

use boundary::{LEAF_TARGET_MAX, LEAF_TARGET_MIN, Rule};
pub(crate) use node::chunks_below;
use node::{Child, Node, NodeRef, Slot, Source};

/// The longest key, PostgreSQL's limit for an index row being lower.
pub const KEY_SIZE_MAX: usize = 64 * 1024;
/// The longest value, PostgreSQL's limit for a field.
pub const VALUE_SIZE_MAX: usize = 1 << 30;
/// The largest leaf: its offsets have 32 bits.
pub(crate) const LEAF_SIZE_MAX: usize = 3 << 30;

/// An ordered map from key bytes to rows. Cloning is a snapshot and copies no node.
#[derive(Clone)]
pub struct Tree {
    pub(crate) source: Source,
    pub(crate) rule: Rule,
    pub(crate) root: Option<Child>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("rows", &self.len()).field("address", &self.address()).finish()
    }
}

impl Tree {
    /// An empty tree. `reader`: where its nodes will be written to, if that is known; without it they stay in memory.
    pub fn new(layout: Arc<Layout>, reader: Option<Arc<dyn ChunkReader>>) -> Self {
        let rule = Rule::new(layout.default_target());
        Tree { source: Source { layout, reader }, rule, root: None }
    }

    /// An empty tree whose leaves are aimed at this number of rows.
    #[cfg(test)]
    pub(crate) fn with_target(layout: Arc<Layout>, target: u32) -> Self {
        Tree { source: Source { layout, reader: None }, rule: Rule::new(target), root: None }
    }

    /// A tree written before; reads its topmost node.
    /// # Errors
    /// `Damaged`.
    pub fn open(address: ChunkAddress, layout: Arc<Layout>, reader: Arc<dyn ChunkReader>) -> Result<Self> {
        let damaged = || Error::Damaged { place: format!("chunk {address:.12}"), what: "not a node of a tree".into() };
        reader.pin(&address);
        let target = node::target_of(&reader.read(&address)?).ok_or_else(damaged)?;
        let source = Source { layout, reader: Some(reader) };
        let slot = Slot::stored(address);
        let node = slot.node(&source)?;
        let (key, count) = (first_key(&node), node.row_count());
        Ok(Tree { source, rule: Rule::new(target), root: Some(Child { key, count, dirty: false, slot }) })
    }

    /// A tree written before of which everything is known; reads nothing. `root` is the address and the number of rows.
    /// # Errors
    /// `Damaged`.
    pub(crate) fn open_known(
        root: Option<(ChunkAddress, u64)>,
        target: u32,
        layout: Arc<Layout>,
        reader: Option<Arc<dyn ChunkReader>>,
    ) -> Result<Self> {
        if !(LEAF_TARGET_MIN..=LEAF_TARGET_MAX).contains(&target) {
            return Err(Error::Damaged { place: "root value".into(), what: "target of a tree is out of range".into() });
        }
        let root = root.map(|(address, count)| Child { key: KeyBytes::new(&[]), count, dirty: false, slot: Slot::stored(address) });
        Ok(Tree { source: Source { layout, reader }, rule: Rule::new(target), root })
    }

    pub fn layout(&self) -> &Arc<Layout> {
        &self.source.layout
    }

    /// Where the tree's nodes are read from.
    pub(crate) fn reader(&self) -> Option<&Arc<dyn ChunkReader>> {
        self.source.reader.as_ref()
    }

    /// Lets the tree read through another door of the same store; returns the one that it had.
    pub(crate) fn set_reader(&mut self, reader: &Arc<dyn ChunkReader>) -> Option<Arc<dyn ChunkReader>> {
        self.source.reader.replace(reader.clone())
    }

    /// The number of rows that leaves are aimed at.
    pub(crate) fn target(&self) -> u32 {
        self.rule.target
    }

    /// Whether the target is the one that the layout suggests, as in every empty tree.
    pub(crate) fn has_default_target(&self) -> bool {
        self.rule.target == self.source.layout.default_target()
    }

    /// The number of rows; O(1).
    pub fn len(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.count)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says whether edits have left work for [`Tree::normalise`].
    pub fn is_dirty(&self) -> bool {
        self.root.as_ref().is_some_and(|root| root.dirty)
    }

    /// The address of the topmost node, if nothing has changed since it was written or read. `None` for an empty tree.
    pub fn address(&self) -> Option<&ChunkAddress> {
        self.root.as_ref().and_then(|root| root.slot.address())
    }

    /// Says, without reading anything, whether both are certainly the same.
    pub fn same(&self, other: &Tree) -> bool {
        match (&self.root, &other.root) {
            (None, None) => true,
            (Some(a), Some(b)) => a.slot.same(&b.slot),
            _ => false,
        }
    }

    /// The row with this key. Reads at most one chunk per level.
    pub fn get(&self, key: &[u8]) -> Result<Option<Row>> {
        Ok(self.find(key)?.map(|(leaf, row)| leaf.row(row)))
    }

    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        Ok(self.find(key)?.is_some())
    }

    /// One value of the row with this key.
    pub fn get_value(&self, key: &[u8], column: usize) -> Result<Option<Value>> {
        Ok(self.find(key)?.map(|(leaf, row)| leaf.value(row, column)))
    }

    /// The leaf that holds this key, and where.
    pub fn find(&self, key: &[u8]) -> Result<Option<(LeafRef<'_>, usize)>> {
        let Some(root) = &self.root else { return Ok(None) };
        let mut slot = &root.slot;
        loop {
            match slot.node(&self.source)? {
                NodeRef::Inner(inner) => slot = &inner.children[inner.route(key)].slot,
                NodeRef::Leaf(leaf) => {
                    let found = leaf.find(key);
                    return Ok(found.ok().map(|row| (leaf, row)));
                }
            }
        }
    }

    /// The first row whose key is at least `key`.
    pub fn seek(&self, key: &[u8]) -> Result<Option<(LeafRef<'_>, usize)>> {
        let Some(root) = &self.root else { return Ok(None) };
        // The subtree just right of the path, in case the key is greater than all in its leaf.
        let mut right: Option<&Slot> = None;
        let mut slot = &root.slot;
        let mut key = Some(key);
        loop {
            match (slot.node(&self.source)?, key) {
                (NodeRef::Inner(inner), Some(sought)) => {
                    let at = inner.route(sought);
                    if let Some(next) = inner.children.get(at + 1) {
                        right = Some(&next.slot);
                    }
                    slot = &inner.children[at].slot;
                }
                (NodeRef::Inner(inner), None) => slot = &inner.children[0].slot,
                (NodeRef::Leaf(leaf), _) => {
                    let at = key.map_or(0, |sought| leaf.find(sought).unwrap_or_else(|at| at));
                    if at < leaf.rows {
                        return Ok(Some((leaf, at)));
                    }
                    // No node is empty, so the first row to the right is the one.
                    let Some(next) = right.take() else { return Ok(None) };
                    slot = next;
                    key = None;
                }
            }
        }
    }

    /// The first key, or the last.
    pub fn end_key(&self, last: bool) -> Result<Option<Vec<u8>>> {
        let mut cursor = Cursor::new(self, (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), last);
        Ok(cursor.next_leaf()?.map(|rows| rows.leaf.key(if last { rows.end - 1 } else { rows.start }).to_vec()))
    }

    /// Rows in key order (backwards when `reverse`), leaf by leaf.
    pub fn scan(&self, range: crate::root::KeyRange, reverse: bool) -> Cursor {
        Cursor::new(self, range, reverse)
    }

    /// Brings the tree into its canonical shape. Costs what was inserted and deleted in the middle since it had it last.
    pub fn normalise(&mut self) -> Result<()> {
        if self.is_dirty() {
            splice::normalise(self)?;
        }
        Ok(())
    }

    /// Lets the cache evict the leaves that are written. Does nothing to a tree of no store.
    pub(crate) fn release(&mut self) {
        if let (Some(root), Some(cache)) = (&mut self.root, self.source.cache()) {
            root.slot.release(cache);
        }
    }

    /// Whether [`Tree::release`] may find something to do.
    pub(crate) fn is_held(&self) -> bool {
        self.root.as_ref().is_some_and(|root| matches!(root.slot, Slot::Loaded(_)))
    }

    /// Writes all nodes that have no address yet; returns the topmost one's (`None`: empty).
    pub fn write(&mut self, writer: &mut dyn ChunkWriter) -> Result<Option<ChunkAddress>> {
        self.normalise()?;
        match &self.root {
            Some(root) => write_slot(&root.slot, self.rule.target, writer).map(Some),
            None => Ok(None),
        }
    }
}

fn first_key(node: &NodeRef<'_>) -> KeyBytes {
    match node {
        NodeRef::Leaf(leaf) if leaf.rows > 0 => KeyBytes::new(leaf.key(0)),
        NodeRef::Leaf(_) => KeyBytes::new(&[]),
        NodeRef::Inner(inner) => inner.children[0].key.clone(),
    }
}

pub(crate) fn write_slot(slot: &Slot, target: u32, writer: &mut dyn ChunkWriter) -> Result<ChunkAddress> {
    let node = match slot {
        Slot::Stored(stored) => return Ok(stored.address),
        Slot::Loaded(node) => node,
    };
    if let Some(address) = node.address() {
        return Ok(*address);
    }
    let address = match node {
        Node::Leaf(leaf) => writer.put_bytes(&leaf.encode())?,
        Node::Inner(inner) => {
            for child in &*inner.children {
                write_slot(&child.slot, target, writer)?;
            }
            writer.put_bytes(&inner.encode(target))?
        }
    };
    // Another thread may have written a snapshot that shares this node: the address is the same.
    let cell = match node {
        Node::Leaf(leaf) => &leaf.address,
        Node::Inner(inner) => &inner.address,
    };
    Ok(*cell.get_or_init(|| address))
}

#[cfg(test)]
mod tests;
