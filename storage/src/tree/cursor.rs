//! Walking the rows of a range, forwards or backwards, leaf by leaf.

use std::ops::Bound;
use std::sync::Arc;

use crate::error::Result;
use crate::root::KeyRange;
use crate::tree::Tree;
use crate::tree::leaf::Leaf;
use crate::tree::node::{Child, Inner, NodeRef, Slot, Source};
use crate::value::Row;

/// A forward or backward walk over a range of a tree, as the tree was when the walk began.
#[derive(Debug)]
pub struct Cursor {
    source: Source,
    range: KeyRange,
    reverse: bool,
    /// The tree's root until the walk begins.
    start: Option<Slot>,
    /// From the root down: a node and the position of the child to visit next (backwards: one past it).
    path: Vec<(Arc<Inner>, usize)>,
    /// What `next_row` has not given yet.
    pending: Option<LeafRows>,
}

/// Rows `start..end` of one leaf, shared, not copied.
#[derive(Clone, Debug)]
pub struct LeafRows {
    pub leaf: Arc<Leaf>,
    pub start: usize,
    pub end: usize,
    pub reverse: bool,
}

impl LeafRows {
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl Cursor {
    pub(crate) fn new(tree: &Tree, range: KeyRange, reverse: bool) -> Self {
        let start = tree.root.as_ref().map(|Child { slot, .. }| slot.clone());
        Cursor { source: tree.source.clone(), range, reverse, start, path: Vec::new(), pending: None }
    }

    /// The next run of rows within one leaf, in leaf order (a reverse scan gives leaves backwards and
    /// says so with `LeafRows::reverse`, rows to be read from `end - 1` down to `start`). Never empty.
    pub fn next_leaf(&mut self) -> Result<Option<LeafRows>> {
        loop {
            let Some(leaf) = self.advance()? else { return Ok(None) };
            let start = match &self.range.0 {
                Bound::Unbounded => 0,
                Bound::Included(key) => leaf.find(key).unwrap_or_else(|at| at),
                Bound::Excluded(key) => leaf.find(key).map_or_else(|at| at, |at| at + 1),
            };
            let end = match &self.range.1 {
                Bound::Unbounded => leaf.row_count(),
                Bound::Included(key) => leaf.find(key).map_or_else(|at| at, |at| at + 1),
                Bound::Excluded(key) => leaf.find(key).unwrap_or_else(|at| at),
            };
            // A leaf in which the range ends is the last one.
            if if self.reverse { start > 0 } else { end < leaf.row_count() } {
                self.path.clear();
            }
            if start < end {
                return Ok(Some(LeafRows { leaf, start, end, reverse: self.reverse }));
            }
        }
    }

    /// Row by row: (key, row).
    pub fn next_row(&mut self) -> Result<Option<(Vec<u8>, Row)>> {
        Ok(self.next_position()?.map(|(leaf, row)| (leaf.key(row).to_vec(), leaf.row(row))))
    }

    /// Row by row without copying: a leaf and a position in it.
    pub fn next_position(&mut self) -> Result<Option<(Arc<Leaf>, usize)>> {
        if self.pending.as_ref().is_none_or(LeafRows::is_empty) {
            self.pending = self.next_leaf()?;
        }
        let Some(rows) = &mut self.pending else { return Ok(None) };
        let row = if rows.reverse {
            rows.end -= 1;
            rows.end
        } else {
            rows.start += 1;
            rows.start - 1
        };
        Ok(Some((rows.leaf.clone(), row)))
    }

    fn advance(&mut self) -> Result<Option<Arc<Leaf>>> {
        if let Some(root) = self.start.take() {
            return self.descend(root, true).map(Some);
        }
        while let Some((inner, next)) = self.path.last_mut() {
            let at = if self.reverse {
                if *next == 0 {
                    self.path.pop();
                    continue;
                }
                *next -= 1;
                *next
            } else {
                if *next == inner.children.len() {
                    self.path.pop();
                    continue;
                }
                *next += 1;
                *next - 1
            };
            if !self.reverse && at > 0 && is_past_end(&self.range.1, inner.children[at].key.as_slice()) {
                self.path.clear();
                break;
            }
            let slot = inner.children[at].slot.clone();
            return self.descend(slot, false).map(Some);
        }
        Ok(None)
    }

    /// Goes down to the first leaf to visit below a node; `seek`: the one where the range begins.
    fn descend(&mut self, mut slot: Slot, seek: bool) -> Result<Arc<Leaf>> {
        loop {
            let inner = match slot.node(&self.source)? {
                NodeRef::Leaf(leaf) => return Ok(leaf.into_arc()),
                NodeRef::Inner(inner) => inner.clone(),
            };
            let bound = if self.reverse { &self.range.1 } else { &self.range.0 };
            let at = match bound {
                Bound::Included(key) | Bound::Excluded(key) if seek => inner.route(key),
                _ if self.reverse => inner.children.len() - 1,
                _ => 0,
            };
            slot = inner.children[at].slot.clone();
            self.path.push((inner, if self.reverse { at } else { at + 1 }));
        }
    }
}

fn is_past_end(end: &Bound<Vec<u8>>, first_key: &[u8]) -> bool {
    match end {
        Bound::Unbounded => false,
        Bound::Included(end) => first_key > end.as_slice(),
        Bound::Excluded(end) => first_key >= end.as_slice(),
    }
}
