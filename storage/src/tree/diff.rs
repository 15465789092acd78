//! Differences between two trees, in key order, without looking into what they share.
//!
//! Two walks go side by side. Where both stand before a whole subtree and the two are one node, or have one address,
//! both step over it. Otherwise the higher of the two is opened. Rows are compared only in leaves that differ.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::Result;
use crate::tree::Tree;
use crate::tree::leaf::Leaf;
use crate::tree::node::{Child, NodeRef, Source};

/// One key's difference: where its row is on each side.
#[derive(Clone, Debug)]
pub struct TreeDiffRow {
    pub from: Option<(Arc<Leaf>, usize)>,
    pub to: Option<(Arc<Leaf>, usize)>,
}

impl TreeDiffRow {
    pub fn key(&self) -> &[u8] {
        let (leaf, row) = self.from.as_ref().or(self.to.as_ref()).expect("BUG: a difference without sides");
        leaf.key(*row)
    }
}

/// An iterator over the differences of two trees of the same layout.
pub struct TreeDiff {
    from: Walk,
    to: Walk,
    failed: bool,
}

impl Tree {
    /// Keys that differ between `self` and `to`, which must have the same layout.
    pub fn diff(&self, to: &Tree) -> TreeDiff {
        TreeDiff { from: Walk::new(self), to: Walk::new(to), failed: false }
    }
}

/// What a walk stands before.
enum Ahead<'a> {
    Subtree(&'a Child),
    Row(&'a Arc<Leaf>, usize),
    End,
}

struct Walk {
    source: Source,
    /// The leaf being read, and the next row.
    leaf: Option<(Arc<Leaf>, usize)>,
    /// Subtrees to come, the next one last.
    ahead: Vec<Child>,
}

impl Walk {
    fn new(tree: &Tree) -> Self {
        Walk { source: tree.source.clone(), leaf: None, ahead: tree.root.iter().cloned().collect() }
    }

    fn ahead(&self) -> Ahead<'_> {
        match (&self.leaf, self.ahead.last()) {
            (Some((leaf, row)), _) => Ahead::Row(leaf, *row),
            (None, Some(child)) => Ahead::Subtree(child),
            (None, None) => Ahead::End,
        }
    }

    fn level(&self) -> Result<u8> {
        Ok(match self.ahead.last() {
            Some(child) => child.slot.node(&self.source)?.level(),
            None => 0,
        })
    }

    fn skip(&mut self) {
        self.ahead.pop();
    }

    fn open(&mut self) -> Result<()> {
        let Some(child) = self.ahead.pop() else { return Ok(()) };
        match child.slot.node(&self.source)? {
            NodeRef::Leaf(leaf) if leaf.rows == 0 => (),
            NodeRef::Leaf(leaf) => self.leaf = Some((leaf.into_arc(), 0)),
            NodeRef::Inner(inner) => self.ahead.extend(inner.children.iter().rev().cloned()),
        }
        Ok(())
    }

    fn take(&mut self) -> Option<(Arc<Leaf>, usize)> {
        let (leaf, row) = self.leaf.as_mut()?;
        let taken = (leaf.clone(), *row);
        *row += 1;
        if *row == leaf.rows {
            self.leaf = None;
        }
        Some(taken)
    }
}

impl TreeDiff {
    fn step(&mut self) -> Result<Option<TreeDiffRow>> {
        loop {
            match (self.from.ahead(), self.to.ahead()) {
                (Ahead::End, Ahead::End) => return Ok(None),
                (Ahead::Subtree(a), Ahead::Subtree(b)) => {
                    if a.slot.same(&b.slot) {
                        self.from.skip();
                        self.to.skip();
                        continue;
                    }
                    let (from, to) = (self.from.level()?, self.to.level()?);
                    if from >= to {
                        self.from.open()?;
                    }
                    if to >= from {
                        self.to.open()?;
                    }
                }
                (Ahead::Subtree(_), Ahead::End) => self.from.open()?,
                (Ahead::End, Ahead::Subtree(_)) => self.to.open()?,
                // A clean subtree's key is exact: rows before it need not wait for what is in it.
                (Ahead::Subtree(child), Ahead::Row(leaf, row)) => {
                    if !child.dirty && leaf.key(row) < child.key.as_slice() {
                        return Ok(Some(TreeDiffRow { from: None, to: self.to.take() }));
                    }
                    self.from.open()?;
                }
                (Ahead::Row(leaf, row), Ahead::Subtree(child)) => {
                    if !child.dirty && leaf.key(row) < child.key.as_slice() {
                        return Ok(Some(TreeDiffRow { from: self.from.take(), to: None }));
                    }
                    self.to.open()?;
                }
                (Ahead::Row(..), Ahead::End) => return Ok(Some(TreeDiffRow { from: self.from.take(), to: None })),
                (Ahead::End, Ahead::Row(..)) => return Ok(Some(TreeDiffRow { from: None, to: self.to.take() })),
                (Ahead::Row(a, i), Ahead::Row(b, j)) => match a.key(i).cmp(b.key(j)) {
                    Ordering::Less => return Ok(Some(TreeDiffRow { from: self.from.take(), to: None })),
                    Ordering::Greater => return Ok(Some(TreeDiffRow { from: None, to: self.to.take() })),
                    Ordering::Equal => {
                        let same = Arc::ptr_eq(a, b) || a.same_row(i, b, j);
                        let (from, to) = (self.from.take(), self.to.take());
                        if !same {
                            return Ok(Some(TreeDiffRow { from, to }));
                        }
                    }
                },
            }
        }
    }
}

impl Iterator for TreeDiff {
    type Item = Result<TreeDiffRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}
