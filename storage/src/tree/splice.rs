//! Cutting rows into nodes by the rule: building a tree from sorted rows, and bringing an edited tree into its canonical shape.
//!
//! Both feed a [`Splicer`] from left to right. It holds, per level, the node under construction: the open leaf, and the
//! children so far of the open node of each level above. A row whose key begins a new leaf closes the open one, which
//! becomes a child of the open node above, or begins a new one there, and so on.
//!
//! Normalising also feeds whole subtrees. A clean one (canonical within) can be taken as it is when every level up to its own
//! would begin a node at its first key anyway. When one would not, the subtree is opened and its children are
//! fed instead, in the end rows; after a few leaves old and new boundaries meet and whole subtrees fit again. What was
//! taken as a whole may have to be continued by what follows: then its right edge is opened again.

use std::sync::Arc;

use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::{Error, Result};
use crate::key_bytes::KeyBytes;
use crate::tree::boundary::{Rule, inner_rule};
use crate::tree::edit::{check_key, check_leaf_size, leaf_child};
use crate::tree::layout::Layout;
use crate::tree::leaf::Leaf;
use crate::tree::node::{Child, Inner, Node, NodeRef, Slot, Source};
use crate::tree::{LEAF_SIZE_MAX, Tree, write_slot};
use crate::value::Value;

/// Builds a tree from rows in key order.
pub struct TreeBuilder {
    splicer: Splicer,
    last_key: Vec<u8>,
}

impl TreeBuilder {
    /// `target`: how many rows a leaf is aimed at; see [`Layout::target_for`].
    /// `reader`: where the tree is to be written to, if that is known.
    pub(crate) fn new(layout: Arc<Layout>, target: u32, reader: Option<Arc<dyn ChunkReader>>) -> Self {
        let source = Source { layout, reader };
        TreeBuilder { splicer: Splicer::new(source, Rule::new(target)), last_key: Vec::new() }
    }

    /// Appends a row. Keys must ascend; returns whether this one was greater than the last.
    /// # Errors
    /// `Invalid` when a value's shape is not its column's.
    pub fn push(&mut self, key: &[u8], row: &[Value]) -> Result<bool> {
        self.splicer.source.layout.check_row(row)?;
        if !self.accepts(key) {
            return Ok(false);
        }
        self.push_checked(key, row)?;
        Ok(true)
    }

    /// Whether a key is greater than all so far.
    pub(crate) fn accepts(&self, key: &[u8]) -> bool {
        self.splicer.is_empty() || self.last_key.as_slice() < key
    }

    /// The greatest key so far.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Appends a row whose shape was checked under a key that [`TreeBuilder::accepts`].
    pub(crate) fn push_checked(&mut self, key: &[u8], row: &[Value]) -> Result<()> {
        check_key(key)?;
        let leaf = self.leaf_for(key)?;
        check_leaf_size(leaf, row)?;
        leaf.push(key, row);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// Appends rows `start..end` of another tree's leaf; their keys must be greater than all so far.
    pub(crate) fn push_rows(&mut self, leaf: &Leaf, start: usize, end: usize) -> Result<()> {
        for row in start..end {
            let open = self.leaf_for(leaf.key(row))?;
            if open.buffer.len() + leaf.buffer.len() > LEAF_SIZE_MAX {
                return Err(Error::Limit { what: "size of neighbouring rows", limit: LEAF_SIZE_MAX as u64 });
            }
            open.append_from(leaf, row, row + 1);
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(leaf.key(end - 1));
        Ok(())
    }

    /// Appends a whole tree that was cut by the same rule, `last_key` being its greatest key; its keys must be greater than all so far. Costs a few
    /// leaves where the two meet.
    pub(crate) fn push_tree(&mut self, tree: &Tree, last_key: &[u8]) -> Result<()> {
        debug_assert_eq!(tree.rule, self.splicer.rule, "BUG: trees of different targets cannot be joined");
        let Some(root) = &tree.root else { return Ok(()) };
        let level = root.slot.node(&tree.source)?.level();
        self.splicer.feed(root, level, false)?;
        self.last_key.clear();
        self.last_key.extend_from_slice(last_key);
        Ok(())
    }

    /// The leaf that the next key goes to, which is begun if it begins one.
    fn leaf_for(&mut self, key: &[u8]) -> Result<&mut Leaf> {
        let splicer = &mut self.splicer;
        let target = splicer.rule.target as usize;
        // The first leaf may stay the only one: it grows as it is filled.
        let mut heaps = None;
        let begins = match &splicer.leaf {
            Some(leaf) => {
                let begins = splicer.rule.begins_node(key, 0, leaf.rows);
                if begins {
                    heaps = Some(leaf.heaps_for(target));
                    splicer.close_for(key, 0)?;
                }
                begins
            }
            // The last leaf may lie within a subtree that was taken as it is.
            None => {
                let begins = splicer.begins(key, 0, false)?;
                if !begins {
                    splicer.open_leaf()?;
                }
                begins
            }
        };
        if begins {
            let capacity = if splicer.levels.is_empty() { 0 } else { target + target / 4 };
            splicer.leaf = Some(Leaf::empty(&splicer.source, splicer.rule.target, key.len() as u32, capacity, heaps));
        }
        Ok(splicer.leaf.as_mut().expect("BUG: a leaf was just opened"))
    }

    /// Writes the nodes that are finished; they stay in memory.
    pub(crate) fn write_finished(&mut self, writer: &mut dyn ChunkWriter) -> Result<()> {
        let splicer = &mut self.splicer;
        for child in splicer.levels.iter().flatten() {
            write_slot(&child.slot, splicer.rule.target, writer)?;
        }
        Ok(())
    }

    /// Writes the nodes that are finished, and lets go of their leaves.
    pub(crate) fn put_away_finished(&mut self, writer: &mut dyn ChunkWriter) -> Result<()> {
        let splicer = &mut self.splicer;
        for child in splicer.levels.iter_mut().flatten() {
            // What has an address was put away when it got it.
            if child.slot.address().is_none() {
                write_slot(&child.slot, splicer.rule.target, writer)?;
                child.slot.put_away();
            }
        }
        Ok(())
    }

    /// Writes the nodes that are finished, so that they need not stay in memory.
    pub(crate) fn spill(&mut self, writer: &mut dyn ChunkWriter) -> Result<()> {
        self.write_finished(writer)?;
        let splicer = &mut self.splicer;
        let Some(cache) = splicer.source.cache() else { return Ok(()) };
        splicer.levels.iter_mut().flatten().for_each(|child| child.slot.release(cache));
        cache.make_room();
        Ok(())
    }

    pub fn finish(self) -> Result<Tree> {
        let (source, rule) = (self.splicer.source.clone(), self.splicer.rule);
        match self.splicer.finish()? {
            None => Ok(Tree::new(source.layout, source.reader)),
            root => Ok(Tree { root, source, rule }),
        }
    }
}

/// Cuts a tree anew where it is dirty.
pub(crate) fn normalise(tree: &mut Tree) -> Result<()> {
    let Some(root) = &tree.root else { return Ok(()) };
    let mut splicer = Splicer::new(tree.source.clone(), tree.rule);
    let level = root.slot.node(&tree.source)?.level();
    splicer.feed(root, level, false)?;
    tree.root = splicer.finish()?;
    Ok(())
}

struct Splicer {
    source: Source,
    rule: Rule,
    inner_rule: Rule,
    /// The open leaf.
    leaf: Option<Leaf>,
    /// `levels[i]`: the children, nodes of level i, that the open node of level i + 1 has so far.
    levels: Vec<Vec<Child>>,
}

impl Splicer {
    fn new(source: Source, rule: Rule) -> Self {
        Splicer { source, rule, inner_rule: inner_rule(), leaf: None, levels: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.leaf.is_none() && self.levels.iter().all(Vec::is_empty)
    }

    /// Adds a subtree of this level; returns whether it was taken as it is (without reading it). `follows`: its left sibling was,
    /// and both are clean, so that all levels up to its own begin a node here.
    fn feed(&mut self, child: &Child, level: u8, follows: bool) -> Result<bool> {
        if !child.dirty && self.begins(child.key.as_slice(), level, follows)? {
            self.push_child(level, child.clone());
            return Ok(true);
        }
        match child.slot.node(&self.source)? {
            NodeRef::Leaf(leaf) => self.feed_leaf(&leaf.into_arc()),
            NodeRef::Inner(inner) => {
                let mut previous_taken = false;
                for child in &*inner.children {
                    previous_taken = self.feed(child, inner.level - 1, previous_taken && !child.dirty)? && !child.dirty;
                }
                Ok(false)
            }
        }
    }

    fn feed_leaf(&mut self, leaf: &Arc<Leaf>) -> Result<bool> {
        if leaf.rows == 0 {
            return Ok(false);
        }
        let mut start = 0;
        let mut count = 0;
        if self.begins(leaf.key(0), 0, false)? {
            if !(1..leaf.rows).any(|row| self.rule.begins_node(leaf.key(row), 0, row)) {
                let (key, count) = (KeyBytes::new(leaf.key(0)), leaf.rows as u64);
                self.push_child(0, Child { key, count, dirty: false, slot: Slot::Loaded(Node::Leaf(leaf.clone())) });
                return Ok(true);
            }
        } else {
            self.open_leaf()?;
            count = self.leaf.as_ref().map_or(0, |leaf| leaf.rows);
        }
        // Rows start..row wait to be copied to the open leaf.
        for row in 0..leaf.rows {
            if row > 0 && self.rule.begins_node(leaf.key(row), 0, count) {
                self.append(leaf, start, row)?;
                start = row;
                count = 0;
                self.close_for(leaf.key(row), 0)?;
            }
            count += 1;
        }
        self.append(leaf, start, leaf.rows)?;
        Ok(false)
    }

    fn append(&mut self, leaf: &Leaf, start: usize, end: usize) -> Result<()> {
        match &mut self.leaf {
            Some(open) => {
                if open.buffer.len() + leaf.buffer.len() > LEAF_SIZE_MAX {
                    return Err(Error::Limit { what: "size of neighbouring rows", limit: LEAF_SIZE_MAX as u64 });
                }
                open.append_from(leaf, start, end);
            }
            None => self.leaf = Some(leaf.slice(start, end)),
        }
        Ok(())
    }

    /// Asks whether nodes of all levels up to `level` begin at this key. If so, closes the open ones and leaves things such that a
    /// node of that level can be pushed.
    fn begins(&mut self, key: &[u8], level: u8, follows: bool) -> Result<bool> {
        if self.is_empty() {
            return Ok(true);
        }
        let first_unknown = if follows { level + 1 } else { 0 };
        let mut continued = first_unknown;
        while self.level_begins(key, continued)? {
            continued += 1;
        }
        if continued <= level {
            return Ok(false);
        }
        self.close_below(continued)?;
        Ok(true)
    }

    /// Closes the open leaf and the nodes above that do not go on at this key, which is known to begin nodes up to `level`.
    fn close_for(&mut self, key: &[u8], level: u8) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut continued = level + 1;
        while self.level_begins(key, continued)? {
            continued += 1;
        }
        self.close_below(continued)
    }

    fn level_begins(&self, key: &[u8], level: u8) -> Result<bool> {
        let rule = if level == 0 { &self.rule } else { &self.inner_rule };
        Ok(rule.begins_node(key, level, self.entry_count(level)?))
    }

    /// The lowest level that has an open node.
    fn lowest_open(&self) -> usize {
        if self.leaf.is_some() {
            return 0;
        }
        1 + self.levels.iter().position(|children| !children.is_empty()).unwrap_or(self.levels.len())
    }

    /// How many entries the last node of a level has, once everything below it is closed.
    fn entry_count(&self, level: u8) -> Result<usize> {
        let level = usize::from(level);
        let lowest = self.lowest_open();
        if level >= lowest {
            return Ok(match level {
                0 => self.leaf.as_ref().map_or(0, |leaf| leaf.rows),
                _ => self.levels.get(level - 1).map_or(0, Vec::len) + usize::from(level > lowest),
            });
        }
        // Below the lowest open node, on the right edge of its last child.
        let mut slot = &self.levels[lowest - 1].last().expect("BUG: an open node has children").slot;
        loop {
            match slot.node(&self.source)? {
                NodeRef::Leaf(leaf) => return Ok(leaf.rows),
                NodeRef::Inner(inner) if usize::from(inner.level) == level => return Ok(inner.children.len()),
                NodeRef::Inner(inner) => slot = &inner.children.last().expect("BUG: an inner node has children").slot,
            }
        }
    }

    /// Closes all open nodes below `level` and sees to it that the node of that level is open.
    fn close_below(&mut self, level: u8) -> Result<()> {
        let level = usize::from(level);
        for closing in self.lowest_open()..level {
            self.close(closing);
        }
        if self.lowest_open() > level {
            self.reopen(level)?;
        }
        Ok(())
    }

    fn close(&mut self, level: usize) {
        if level == 0 {
            if let Some(leaf) = self.leaf.take() {
                self.push_child(0, leaf_child(leaf));
            }
        } else if let Some(children) = self.levels.get_mut(level - 1).map(std::mem::take) {
            if children.is_empty() {
                return;
            }
            let (key, count) = (children[0].key.clone(), children.iter().map(|c| c.count).sum());
            let node = Node::Inner(Arc::new(Inner::new(self.source.cache(), level as u8, children)));
            self.push_child(level as u8, Child { key, count, dirty: false, slot: Slot::Loaded(node) });
        }
    }

    fn push_child(&mut self, level: u8, child: Child) {
        let level = usize::from(level);
        while self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(child);
    }

    /// Opens the right edge of what was closed, down to `level`.
    fn reopen(&mut self, level: usize) -> Result<()> {
        loop {
            let lowest = self.lowest_open();
            if lowest <= level {
                return Ok(());
            }
            let child = self.levels[lowest - 1].pop().expect("BUG: an open node has children");
            match child.slot.node(&self.source)? {
                NodeRef::Leaf(leaf) => self.leaf = Some(leaf.slice(0, leaf.rows)),
                NodeRef::Inner(inner) => self.levels[usize::from(inner.level) - 1] = inner.children.to_vec(),
            }
        }
    }

    fn open_leaf(&mut self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { self.reopen(0) }
    }

    fn finish(mut self) -> Result<Option<Child>> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut level = self.lowest_open();
        loop {
            self.close(level);
            // Now the node just closed is the last child at levels[level].
            let above = self.levels.iter().skip(level + 1).any(|children| !children.is_empty());
            if !above && self.levels.get(level).is_some_and(|children| children.len() == 1) {
                break;
            }
            level += 1;
        }
        let mut root = self.levels[level].pop().expect("BUG: there is one child");
        loop {
            let only = match root.slot.node(&self.source)? {
                NodeRef::Inner(inner) if inner.children.len() == 1 => inner.children[0].clone(),
                _ => return Ok(Some(root)),
            };
            root = only;
        }
    }
}
