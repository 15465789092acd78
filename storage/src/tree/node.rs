//! Nodes of a tree: how inner nodes hold their children, in memory or by address, and their chunks.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | level, 1 for a parent of leaves |
//! | 1 | 1 | format of the inner node, 1 |
//! | 2 | 2 | number of children |
//! | 4 | 4 | number of rows that leaves of this tree are aimed at |
//! | 8 | | per child: rows in it (u64), its address (32), length of its first key (u32), the key |

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::chunk::ChunkReader;
use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::tree::boundary::{FANOUT_TARGET, LEAF_TARGET_MAX, LEAF_TARGET_MIN};
use crate::tree::layout::Layout;
use crate::tree::leaf::Leaf;

const INNER_FORMAT: u8 = 1;
const INNER_HEADER_SIZE: usize = 8;
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
    pub children: Vec<Child>,
}

/// A copy is about to be edited, so it has no address.
impl Clone for Inner {
    fn clone(&self) -> Self {
        let mut children = Vec::with_capacity(self.children.len() + 1);
        children.extend_from_slice(&self.children);
        Inner { address: OnceLock::new(), level: self.level, children }
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

/// A written node that is read when first needed. All copies of its parent share what was read.
#[derive(Debug)]
pub(crate) struct Stored {
    pub address: ChunkAddress,
    node: OnceLock<Node>,
}

impl Node {
    pub fn level(&self) -> u8 {
        match self {
            Node::Leaf(_) => 0,
            Node::Inner(inner) => inner.level,
        }
    }

    pub fn address(&self) -> Option<&ChunkAddress> {
        match self {
            Node::Leaf(leaf) => leaf.address.get(),
            Node::Inner(inner) => inner.address.get(),
        }
    }

    pub fn row_count(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.rows as u64,
            Node::Inner(inner) => inner.children.iter().map(|c| c.count).sum(),
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
        Slot::Stored(Arc::new(Stored { address, node: OnceLock::new() }))
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
    pub fn node(&self, source: &Source) -> Result<&Node> {
        match self {
            Slot::Loaded(node) => Ok(node),
            Slot::Stored(stored) => stored.load(source),
        }
    }

    /// The node for editing, read if need be.
    pub fn node_mut(&mut self, source: &Source) -> Result<&mut Node> {
        if let Slot::Stored(stored) = self {
            stored.load(source)?;
            let node = match Arc::get_mut(stored) {
                Some(alone) => alone.node.take(),
                None => stored.node.get().cloned(),
            };
            *self = Slot::Loaded(node.expect("BUG: a loaded node is missing"));
        }
        match self {
            Slot::Loaded(node) => Ok(node),
            Slot::Stored(_) => unreachable!("BUG: just loaded"),
        }
    }
}

impl Stored {
    fn load(&self, source: &Source) -> Result<&Node> {
        if let Some(node) = self.node.get() {
            return Ok(node);
        }
        let node = source.read(&self.address)?;
        // Two threads may read the same chunk; the first one's node stays.
        Ok(self.node.get_or_init(|| node))
    }
}

/// Where a tree's stored nodes come from, and what its leaves look like.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub layout: Arc<Layout>,
    pub reader: Option<Arc<dyn ChunkReader>>,
}

impl Source {
    pub fn read(&self, address: &ChunkAddress) -> Result<Node> {
        let missing = || Error::Damaged { place: format!("chunk {address:.12}"), what: "no store to read it from".into() };
        let bytes = self.reader.as_ref().ok_or_else(missing)?.read(address)?;
        match bytes.first() {
            Some(0) => Ok(Node::Leaf(Arc::new(Leaf::decode(bytes, &self.layout, address)?))),
            _ => Ok(Node::Inner(Arc::new(Inner::decode(&bytes, address)?.0))),
        }
    }
}

impl Inner {
    pub fn new(level: u8, children: Vec<Child>) -> Self {
        Inner { address: OnceLock::new(), level, children }
    }

    /// The child whose range a key falls in.
    pub fn route(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (1, self.children.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.children[middle].key.as_slice() <= key { low = middle + 1 } else { high = middle }
        }
        low - 1
    }

    /// The node's chunk. Every child must have an address.
    pub fn encode(&self, target: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(INNER_HEADER_SIZE + self.children.len() * 64);
        out.extend([self.level, INNER_FORMAT]);
        let count = u16::try_from(self.children.len()).expect("BUG: an inner node with more children than the rule allows");
        out.extend(count.to_le_bytes());
        out.extend(target.to_le_bytes());
        for child in &self.children {
            out.extend(child.count.to_le_bytes());
            out.extend(child.slot.address().expect("BUG: an inner node is written before its children").0);
            let key = child.key.as_slice();
            out.extend((key.len() as u32).to_le_bytes());
            out.extend(key);
        }
        out
    }

    /// Checks a chunk and makes it an inner node; also gives the target of its tree.
    pub fn decode(bytes: &[u8], address: &ChunkAddress) -> Result<(Inner, u32)> {
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
        Ok((Inner { address: OnceLock::from(*address), level, children }, u32::from_le_bytes(target)))
    }
}

/// The target that a node's chunk states.
pub(crate) fn target_of(bytes: &[u8]) -> Option<u32> {
    let at = if *bytes.first()? == 0 { 16 } else { 4 };
    let target = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    (LEAF_TARGET_MIN..=LEAF_TARGET_MAX).contains(&target).then_some(target)
}

const INLINE_MAX: usize = 22;

/// A key that needs no allocation when it is short.
#[derive(Clone)]
pub(crate) enum KeyBytes {
    Inline { length: u8, bytes: [u8; INLINE_MAX] },
    Heap(Box<[u8]>),
}

impl KeyBytes {
    pub fn new(key: &[u8]) -> Self {
        if key.len() <= INLINE_MAX {
            let mut bytes = [0; INLINE_MAX];
            bytes[..key.len()].copy_from_slice(key);
            KeyBytes::Inline { length: key.len() as u8, bytes }
        } else {
            KeyBytes::Heap(key.into())
        }
    }

    pub fn as_slice(&self) -> &[u8] {
        match self {
            KeyBytes::Inline { length, bytes } => &bytes[..usize::from(*length)],
            KeyBytes::Heap(bytes) => bytes,
        }
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}
