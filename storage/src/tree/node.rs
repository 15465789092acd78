//! Nodes of a tree: how inner nodes hold their children, in memory or by address, and their chunks.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | level, 1 for a parent of leaves |
//! | 1 | 1 | format of the inner node, 1 |
//! | 2 | 2 | number of children |
//! | 4 | 4 | number of rows that leaves of this tree are aimed at |
//! | 8 | | per child: rows in it (u64), its address (32), length of its first key (u32), the key |

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::chunk::ChunkReader;
use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::key_bytes::KeyBytes;
use crate::tree::boundary::{FANOUT_TARGET, LEAF_TARGET_MAX, LEAF_TARGET_MIN};
use crate::tree::cache::{Charge, Evictable, NodeCache};
use crate::tree::layout::Layout;
use crate::tree::leaf::{Leaf, LeafRef};
use crate::tree::search::key_prefix;

const INNER_FORMAT: u8 = 1;
const INNER_HEADER_SIZE: usize = 8;
/// What a child takes in memory: its entry, and the slot that it is stored in with its reference counts.
const CHILD_SIZE: usize = size_of::<Child>() + size_of::<u64>() + size_of::<Stored>() + 24;
/// No tree is higher: at two children a node this is more rows than there are.
pub(crate) const LEVEL_MAX: u8 = 40;

/// A node in memory.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

/// A node above the leaves.
#[derive(Debug)]
pub(crate) struct Inner {
    /// Set once written or when read; empty again after an edit of anything below.
    pub address: OnceLock<ChunkAddress>,
    pub level: u8,
    pub children: Children,
    charge: Charge,
}

/// The children of an inner node, with what a search compares first kept side by side: it would else have to look at a line of memory
/// for each child that it passes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Children {
    list: Vec<Child>,
    /// The first bytes of each child's key, as [`key_prefix`] has them.
    prefixes: Vec<u64>,
}

impl Children {
    pub fn push(&mut self, child: Child) {
        self.insert(self.list.len(), child);
    }

    pub fn insert(&mut self, at: usize, child: Child) {
        self.prefixes.insert(at, key_prefix(child.key.as_slice()));
        self.list.insert(at, child);
    }

    pub fn remove(&mut self, at: usize) -> Child {
        self.prefixes.remove(at);
        self.list.remove(at)
    }

    /// Takes out the children from `at` on.
    pub fn split_off(&mut self, at: usize) -> Vec<Child> {
        self.prefixes.truncate(at);
        self.list.split_off(at)
    }

    pub fn to_vec(&self) -> Vec<Child> {
        self.list.clone()
    }

    pub fn take(&mut self) -> Vec<Child> {
        self.prefixes.clear();
        std::mem::take(&mut self.list)
    }

    /// The child whose range a key falls in.
    fn route(&self, key: &[u8]) -> usize {
        let prefix = key_prefix(key);
        // What lies before the second child's key is the first child's, whatever that one's key is.
        let others = self.prefixes.get(1..).unwrap_or_default();
        let below = others.partition_point(|other| *other < prefix);
        let same = others[below..].iter().take_while(|other| **other == prefix).count();
        if same == 0 {
            return below;
        }
        below + self.list[below + 1..below + 1 + same].partition_point(|child| child.key.as_slice() <= key)
    }
}

impl From<Vec<Child>> for Children {
    fn from(list: Vec<Child>) -> Self {
        let mut prefixes = Vec::with_capacity(list.capacity());
        prefixes.extend(list.iter().map(|child| key_prefix(child.key.as_slice())));
        Children { list, prefixes }
    }
}

/// Keys may not be changed through this.
impl std::ops::DerefMut for Children {
    fn deref_mut(&mut self) -> &mut [Child] {
        &mut self.list
    }
}

impl std::ops::Deref for Children {
    type Target = [Child];

    fn deref(&self) -> &[Child] {
        &self.list
    }
}

/// A copy is about to be edited, so it has no address.
impl Clone for Inner {
    fn clone(&self) -> Self {
        let mut children =
            Children { list: Vec::with_capacity(self.children.len() + 1), prefixes: Vec::with_capacity(self.children.len() + 1) };
        children.list.extend_from_slice(&self.children);
        children.prefixes.extend_from_slice(&self.children.prefixes);
        let charge = Charge::new(self.charge.cache(), self.charge.size());
        Inner { address: OnceLock::new(), level: self.level, children, charge }
    }
}

/// A reference to a subtree.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// The first key below; for a dirty child at most that (the first child of a node takes smaller keys, too).
    pub key: KeyBytes,
    /// Rows below.
    pub count: u64,
    /// The shape below, or where this child begins, may not be canonical.
    pub dirty: bool,
    pub slot: Slot,
}

/// Where a node is.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Loaded(Node),
    Stored(Arc<Stored>),
}

/// A written node that is read when first needed. All copies of its parent share what was read. An inner node stays then; a leaf
/// goes when the cache wants its memory, and is read again.
#[derive(Debug)]
pub(crate) struct Stored {
    pub address: ChunkAddress,
    inner: OnceLock<Arc<Inner>>,
    leaf: Mutex<Option<Evictable>>,
    /// The leaf was found here since the cache last looked.
    used: AtomicBool,
}

/// A node to look at. An inner node is borrowed from the tree; so is a leaf that cannot be evicted meanwhile.
pub(crate) enum NodeRef<'a> {
    Inner(&'a Arc<Inner>),
    Leaf(LeafRef<'a>),
}

impl NodeRef<'_> {
    pub fn level(&self) -> u8 {
        match self {
            NodeRef::Leaf(_) => 0,
            NodeRef::Inner(inner) => inner.level,
        }
    }

    pub fn address(&self) -> Option<&ChunkAddress> {
        match self {
            NodeRef::Leaf(leaf) => leaf.address.get(),
            NodeRef::Inner(inner) => inner.address.get(),
        }
    }

    pub fn row_count(&self) -> u64 {
        match self {
            NodeRef::Leaf(leaf) => leaf.rows as u64,
            NodeRef::Inner(inner) => inner.children.iter().map(|c| c.count).sum(),
        }
    }
}

impl Node {
    pub fn address(&self) -> Option<&ChunkAddress> {
        match self {
            Node::Leaf(leaf) => leaf.address.get(),
            Node::Inner(inner) => inner.address.get(),
        }
    }

    pub fn same(&self, other: &Node) -> bool {
        let same_pointer = match (self, other) {
            (Node::Leaf(a), Node::Leaf(b)) => Arc::ptr_eq(a, b),
            (Node::Inner(a), Node::Inner(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same_pointer || matches!((self.address(), other.address()), (Some(a), Some(b)) if a == b)
    }
}

impl Slot {
    pub fn stored(address: ChunkAddress) -> Self {
        Slot::Stored(Arc::new(Stored { address, inner: OnceLock::new(), leaf: Mutex::new(None), used: AtomicBool::new(false) }))
    }

    pub fn address(&self) -> Option<&ChunkAddress> {
        match self {
            Slot::Loaded(node) => node.address(),
            Slot::Stored(stored) => Some(&stored.address),
        }
    }

    /// Says, without reading anything, whether both are one node or have the same address.
    pub fn same(&self, other: &Slot) -> bool {
        match (self, other) {
            (Slot::Loaded(a), Slot::Loaded(b)) => a.same(b),
            (a, b) => matches!((a.address(), b.address()), (Some(a), Some(b)) if a == b),
        }
    }

    /// The node, read if need be.
    #[inline]
    pub fn node(&self, source: &Source) -> Result<NodeRef<'_>> {
        match self {
            Slot::Loaded(Node::Inner(inner)) => Ok(NodeRef::Inner(inner)),
            Slot::Loaded(Node::Leaf(leaf)) => Ok(NodeRef::Leaf(LeafRef::Borrowed(leaf))),
            Slot::Stored(stored) => stored.load(source),
        }
    }

    /// Says whether the node is in memory, or about to be.
    pub fn is_loaded(&self) -> bool {
        match self {
            Slot::Loaded(_) => true,
            Slot::Stored(stored) => stored.inner.get().is_some() || stored.leaf.try_lock().is_none_or(|leaf| leaf.is_some()),
        }
    }

    /// The node for editing, read if need be.
    pub fn node_mut(&mut self, source: &Source) -> Result<&mut Node> {
        if let Slot::Stored(stored) = self {
            let node = match stored.leaf_to_edit(source)? {
                Some(leaf) => {
                    // Alone with it, the tree edits the leaf in place; the cache's queue has a weak reference only.
                    if Arc::strong_count(stored) == 1 {
                        stored.leaf.lock().take();
                    }
                    Node::Leaf(leaf)
                }
                None => {
                    let inner = match Arc::get_mut(stored) {
                        Some(alone) => alone.inner.take(),
                        None => stored.inner.get().cloned(),
                    };
                    Node::Inner(inner.expect("BUG: a loaded node is missing"))
                }
            };
            *self = Slot::Loaded(node);
        }
        match self {
            Slot::Loaded(node) => Ok(node),
            Slot::Stored(_) => unreachable!("BUG: just loaded"),
        }
    }

    /// Lets go of the leaves that are written, whatever room there is. Inner nodes stay.
    pub fn put_away(&mut self) {
        match self {
            Slot::Loaded(Node::Leaf(leaf)) => {
                if let Some(address) = leaf.address.get() {
                    *self = Slot::stored(*address);
                }
            }
            Slot::Loaded(Node::Inner(inner)) => {
                if let Some(inner) = Arc::get_mut(inner) {
                    inner.children.iter_mut().for_each(|child| child.slot.put_away());
                }
            }
            Slot::Stored(_) => {}
        }
    }

    /// Turns what is written into stored nodes, whose leaves the cache may evict; what is not written stays. Costs a look at each
    /// node that was made or edited since it was last called.
    pub fn release(&mut self, cache: &Arc<NodeCache>) {
        let Slot::Loaded(node) = self else { return };
        let stored = match node {
            Node::Leaf(leaf) => {
                let Some(address) = leaf.address.get() else { return };
                Stored::with_leaf(*address, leaf.clone(), cache)
            }
            Node::Inner(inner) => {
                let Some(address) = inner.address.get().copied() else {
                    // A snapshot that shares the node keeps it as it is.
                    let inner = Arc::make_mut(inner);
                    inner.children.iter_mut().for_each(|child| child.slot.release(cache));
                    return;
                };
                let mut children = match Arc::get_mut(inner) {
                    Some(alone) => alone.children.take(),
                    None => inner.children.to_vec(),
                };
                children.iter_mut().for_each(|child| child.slot.release(cache));
                let inner = Inner { address: OnceLock::from(address), ..Inner::new(Some(cache), inner.level, children) };
                Stored::with_inner(address, inner)
            }
        };
        *self = Slot::Stored(stored);
    }
}

impl Stored {
    fn with_inner(address: ChunkAddress, inner: Inner) -> Arc<Stored> {
        let inner = OnceLock::from(Arc::new(inner));
        Arc::new(Stored { address, inner, leaf: Mutex::new(None), used: AtomicBool::new(false) })
    }

    fn with_leaf(address: ChunkAddress, leaf: Arc<Leaf>, cache: &Arc<NodeCache>) -> Arc<Stored> {
        let leaf = Mutex::new(Some(Evictable::new(leaf, Some(cache))));
        // What was just written was just used.
        let stored = Arc::new(Stored { address, inner: OnceLock::new(), leaf, used: AtomicBool::new(true) });
        cache.enter(&stored);
        stored
    }

    fn load<'a>(self: &'a Arc<Self>, source: &Source) -> Result<NodeRef<'a>> {
        if let Some(inner) = self.inner.get() {
            return Ok(NodeRef::Inner(inner));
        }
        let mut leaf = self.leaf.lock();
        if let Some(found) = &*leaf {
            if !self.used.load(Ordering::Relaxed) {
                self.used.store(true, Ordering::Relaxed);
            }
            return Ok(NodeRef::Leaf(LeafRef::Shared(found.leaf.clone())));
        }
        // Another thread may have read it while this one waited: what two want is read once.
        if let Some(inner) = self.inner.get() {
            return Ok(NodeRef::Inner(inner));
        }
        match source.read(&self.address)? {
            Node::Inner(inner) => Ok(NodeRef::Inner(self.inner.get_or_init(|| inner))),
            Node::Leaf(read) => {
                let cache = source.cache();
                *leaf = Some(Evictable::new(read.clone(), cache));
                drop(leaf);
                if let Some(cache) = cache {
                    cache.enter(self);
                    cache.make_room();
                }
                Ok(NodeRef::Leaf(LeafRef::Shared(read)))
            }
        }
    }

    /// The leaf for editing; `None` for an inner node, which is in memory then. A leaf that has to be read is the editor's alone: what others share
    /// stays as it is, and nothing is copied.
    fn leaf_to_edit(&self, source: &Source) -> Result<Option<Arc<Leaf>>> {
        if self.inner.get().is_some() {
            return Ok(None);
        }
        if let Some(found) = &*self.leaf.lock() {
            return Ok(Some(found.leaf.clone()));
        }
        match source.read(&self.address)? {
            Node::Inner(inner) => {
                self.inner.get_or_init(|| inner);
                Ok(None)
            }
            Node::Leaf(read) => {
                if let Some(cache) = source.cache() {
                    cache.make_room();
                }
                Ok(Some(read))
            }
        }
    }

    /// Frees the leaf unless it was used since the last time; false if it was, or is being looked at.
    pub(super) fn evict(&self) -> bool {
        if self.used.swap(false, Ordering::Relaxed) {
            return false;
        }
        match self.leaf.try_lock() {
            Some(mut leaf) => {
                leaf.take();
                true
            }
            None => false,
        }
    }
}

/// Where a tree's stored nodes come from, and what its leaves look like.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub layout: Arc<Layout>,
    pub reader: Option<Arc<dyn ChunkReader>>,
}

impl Source {
    pub fn cache(&self) -> Option<&Arc<NodeCache>> {
        self.reader.as_ref().and_then(|reader| reader.cache())
    }

    pub fn read(&self, address: &ChunkAddress) -> Result<Node> {
        let missing = || Error::Damaged { place: format!("chunk {address:.12}"), what: "no store to read it from".into() };
        let bytes = self.reader.as_ref().ok_or_else(missing)?.read(address)?;
        match bytes.first() {
            Some(0) => Ok(Node::Leaf(Arc::new(Leaf::decode(bytes, &self.layout, self.cache(), address)?))),
            _ => Ok(Node::Inner(Arc::new(Inner::decode(&bytes, self.cache(), address)?.0))),
        }
    }
}

impl Inner {
    pub fn new(cache: Option<&Arc<NodeCache>>, level: u8, children: Vec<Child>) -> Self {
        let keys: usize = children.iter().map(|child| child.key.heap_size()).sum();
        let charge = Charge::new(cache, size_of::<Inner>() + children.capacity() * CHILD_SIZE + keys);
        Inner { address: OnceLock::new(), level, children: children.into(), charge }
    }

    /// The child whose range a key falls in.
    pub fn route(&self, key: &[u8]) -> usize {
        self.children.route(key)
    }

    /// The node's chunk. Every child must have an address.
    pub fn encode(&self, target: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(INNER_HEADER_SIZE + self.children.len() * 64);
        out.extend([self.level, INNER_FORMAT]);
        let count = u16::try_from(self.children.len()).expect("BUG: an inner node with more children than the rule allows");
        out.extend(count.to_le_bytes());
        out.extend(target.to_le_bytes());
        for child in &*self.children {
            out.extend(child.count.to_le_bytes());
            out.extend(child.slot.address().expect("BUG: an inner node is written before its children").0);
            let key = child.key.as_slice();
            out.extend((key.len() as u32).to_le_bytes());
            out.extend(key);
        }
        out
    }

    /// Checks a chunk and makes it an inner node; also gives the target of its tree.
    pub fn decode(bytes: &[u8], cache: Option<&Arc<NodeCache>>, address: &ChunkAddress) -> Result<(Inner, u32)> {
        let damaged = |what: &str| Error::Damaged { place: format!("chunk {address:.12}"), what: what.into() };
        let Some((header, mut rest)) = bytes.split_first_chunk::<INNER_HEADER_SIZE>() else {
            return Err(damaged("not a node of a tree"));
        };
        let [level, format, c0, c1, target @ ..] = *header;
        if format != INNER_FORMAT || level == 0 || level > LEVEL_MAX {
            return Err(damaged("not a node of a tree"));
        }
        let count = usize::from(u16::from_le_bytes([c0, c1]));
        if count == 0 || count > 2 * FANOUT_TARGET as usize {
            return Err(damaged("number of children is out of range"));
        }
        let mut children: Vec<Child> = Vec::with_capacity(count + 1);
        for _ in 0..count {
            let cut = || damaged("inner node is cut short");
            let (rows, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
            let (child, after) = after.split_first_chunk::<32>().ok_or_else(cut)?;
            let (length, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
            let (key, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut)?;
            rest = after;
            if children.last().is_some_and(|last| last.key.as_slice() >= key) {
                return Err(damaged("keys of an inner node are out of order"));
            }
            let rows = u64::from_le_bytes(*rows);
            if rows == 0 || rows > u64::MAX / 256 {
                return Err(damaged("number of rows is out of range"));
            }
            children.push(Child { key: KeyBytes::new(key), count: rows, dirty: false, slot: Slot::stored(ChunkAddress(*child)) });
        }
        if !rest.is_empty() {
            return Err(damaged("inner node has bytes after its end"));
        }
        let inner = Inner { address: OnceLock::from(*address), ..Inner::new(cache, level, children) };
        Ok((inner, u32::from_le_bytes(target)))
    }
}

/// The level of a node's chunk and the chunks that it names; a leaf names none.
/// # Errors
/// `Damaged`.
pub(crate) fn chunks_below(bytes: &[u8], address: &ChunkAddress) -> Result<(u8, Vec<ChunkAddress>)> {
    if bytes.first() == Some(&0) {
        return Ok((0, Vec::new()));
    }
    let (inner, _) = Inner::decode(bytes, None, address)?;
    Ok((inner.level, inner.children.iter().filter_map(|child| child.slot.address().copied()).collect()))
}

/// The target that a node's chunk states.
pub(crate) fn target_of(bytes: &[u8]) -> Option<u32> {
    let at = if *bytes.first()? == 0 { 16 } else { 4 };
    let target = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    (LEAF_TARGET_MIN..=LEAF_TARGET_MAX).contains(&target).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that begin alike, and many that do not.
    fn keys() -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = (0..40u32).map(|n| [b"the same beginning ".as_slice(), &n.to_be_bytes()].concat()).collect();
        keys.extend((0..40u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes().to_vec()));
        keys.extend([vec![], vec![0], vec![0; 8], vec![0; 9], vec![255; 8], vec![255; 30]]);
        keys.sort();
        keys
    }

    #[test]
    fn a_key_goes_to_the_last_child_that_does_not_begin_after_it() {
        let keys = keys();
        let child = |key: &Vec<u8>| Child { key: KeyBytes::new(key), count: 1, dirty: false, slot: Slot::stored(ChunkAddress([0; 32])) };
        let mut children = Children::from(keys.iter().step_by(2).map(child).collect::<Vec<_>>());
        // Every other one comes later, and some go.
        for (i, key) in keys.iter().enumerate().skip(1).step_by(2) {
            children.insert(i, child(key));
        }
        children.remove(3);
        let rest = children.split_off(70);
        for child in rest {
            children.push(child);
        }
        let held: Vec<&[u8]> = children.iter().map(|child| child.key.as_slice()).collect();
        for key in &keys {
            for sought in [key.clone(), [key.as_slice(), b"x"].concat(), key[..key.len().saturating_sub(1)].to_vec()] {
                let expected = held[1..].partition_point(|first| *first <= sought.as_slice());
                assert_eq!(children.route(&sought), expected, "{sought:02x?}");
            }
        }
        assert_eq!(children.take().len(), keys.len() - 1);
        assert_eq!(children.route(b"x"), 0);
    }
}
