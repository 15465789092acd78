//! Differences between two trees, in key order, without looking into what they share.
//!
//! Two things happen side by side. A *plan* goes through the inner nodes of both trees: where both stand before one node, or before
//! two with one address, it steps over the whole subtree; otherwise it opens the one that begins first (if they begin alike, the higher
//! one, or both), and what remains in the end are leaves that may differ, a queue of them for each side. A *merge* takes leaves off these queues and
//! compares them, as many rows at a time as have the same keys (see `leaf_diff`).
//!
//! The plan is made a little ahead of the merge, the more the longer the diff goes on: so it is known which leaves will be read, and another
//! thread can read some of them (see `read_ahead`).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tree::Tree;
use crate::tree::leaf::Leaf;
use crate::tree::leaf_diff::ChangedRows;
use crate::tree::node::{Child, Inner, NodeRef, Source};
use crate::tree::read_ahead::ReadAhead;

/// The plan is ahead of the merge by so many leaves at most.
const AHEAD_COUNT_MAX: usize = 64;

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
    /// Dropped first: its thread reads for the two sides.
    read_ahead: ReadAhead,
    from: Side,
    to: Side,
    /// Rows with the same keys, of which some differ.
    alike: Option<Alike>,
    changed: ChangedRows,
    ahead_count: usize,
    failed: bool,
}

/// Rows of two leaves that have the same keys.
struct Alike {
    from: (Arc<Leaf>, usize),
    to: (Arc<Leaf>, usize),
    next: usize,
}

impl Tree {
    /// Keys that differ between `self` and `to`, which must have the same layout.
    pub fn diff(&self, to: &Tree) -> TreeDiff {
        let (from, to) = (Side::new(self), Side::new(to));
        TreeDiff { from, to, alike: None, read_ahead: ReadAhead::default(), changed: ChangedRows::default(), ahead_count: 1, failed: false }
    }
}

/// One of the two trees.
struct Side {
    source: Source,
    /// Until the plan begins.
    root: Option<Child>,
    /// From the top down: nodes that the plan has opened and is not through with, and which child is next.
    path: Vec<(Arc<Inner>, usize)>,
    /// Leaves that the plan has come to, not empty.
    leaves: VecDeque<Child>,
    /// The leaf that the merge is in, and the next row.
    leaf: Option<(Arc<Leaf>, usize)>,
}

/// What comes next on a side.
enum Next<'a> {
    Row(&'a Arc<Leaf>, usize),
    /// A leaf to be read.
    Leaf(&'a Child),
    /// What the plan stands before.
    Subtree(&'a Child),
    End,
}

impl Side {
    fn new(tree: &Tree) -> Self {
        Side { source: tree.source.clone(), root: tree.root.clone(), path: Vec::new(), leaves: VecDeque::new(), leaf: None }
    }

    fn next(&self) -> Next<'_> {
        if let Some((leaf, row)) = &self.leaf {
            return Next::Row(leaf, *row);
        }
        match (self.leaves.front(), self.subtree()) {
            (Some(leaf), _) => Next::Leaf(leaf),
            (None, Some(subtree)) => Next::Subtree(subtree),
            (None, None) => Next::End,
        }
    }

    /// What the plan stands before.
    fn subtree(&self) -> Option<&Child> {
        self.root.as_ref().or_else(|| self.path.last().map(|(inner, at)| &inner.children[*at]))
    }

    /// The level of what the plan stands before.
    fn level(&self) -> Result<u8> {
        match (&self.root, self.path.last()) {
            (Some(root), _) => Ok(root.slot.node(&self.source)?.level()),
            (None, Some((inner, _))) => Ok(inner.level - 1),
            (None, None) => Ok(0),
        }
    }

    fn skip(&mut self) {
        if self.root.take().is_some() {
            return;
        }
        if let Some((inner, at)) = self.path.last_mut() {
            *at += 1;
            if *at == inner.children.len() {
                self.path.pop();
            }
        }
    }

    /// Goes into the inner node, or takes the leaf, that the plan stands before.
    fn open(&mut self, read_ahead: &mut ReadAhead) -> Result<()> {
        let level = self.level()?;
        let Some(child) = self.subtree().cloned() else { return Ok(()) };
        self.skip();
        if level == 0 {
            read_ahead.offer(&child.slot, &self.source);
            self.leaves.push_back(child);
            return Ok(());
        }
        match child.slot.node(&self.source)? {
            NodeRef::Inner(inner) if inner.level == level && !inner.children.is_empty() => self.path.push((inner.clone(), 0)),
            _ => return Err(wrong_level(&child)),
        }
        Ok(())
    }

    /// Goes to the next leaf of the queue.
    fn read(&mut self) -> Result<()> {
        let Some(child) = self.leaves.pop_front() else { return Ok(()) };
        match child.slot.node(&self.source)? {
            NodeRef::Leaf(leaf) => self.leaf = (leaf.rows > 0).then(|| (leaf.into_arc(), 0)),
            NodeRef::Inner(_) => return Err(wrong_level(&child)),
        }
        Ok(())
    }

    /// Steps over rows of the leaf that the merge is in, and gives the first.
    fn take(&mut self, count: usize) -> Option<(Arc<Leaf>, usize)> {
        let (leaf, row) = self.leaf.as_mut()?;
        let taken = (leaf.clone(), *row);
        *row += count;
        if *row == leaf.rows {
            self.leaf = None;
        }
        Some(taken)
    }
}

fn wrong_level(child: &Child) -> Error {
    let place = child.slot.address().map_or_else(|| "tree in memory".into(), |address| format!("chunk {address:.12}"));
    Error::Damaged { place, what: "node has the wrong level".into() }
}

/// Says whether a row comes before all that is in a subtree. The key of a dirty one is not exact.
fn is_before(leaf: &Leaf, row: usize, child: &Child) -> bool {
    !child.dirty && leaf.key(row) < child.key.as_slice()
}

impl TreeDiff {
    /// Makes one step of the plan.
    fn plan(&mut self) -> Result<()> {
        let (from, to) = match (self.from.subtree(), self.to.subtree()) {
            (Some(from), Some(to)) if from.slot.same(&to.slot) => {
                self.from.skip();
                self.to.skip();
                return Ok(());
            }
            (Some(from), Some(to)) if !from.dirty && !to.dirty && from.key.as_slice() != to.key.as_slice() => {
                let from_first = from.key.as_slice() < to.key.as_slice();
                (from_first, !from_first)
            }
            (Some(_), Some(_)) => {
                let (from, to) = (self.from.level()?, self.to.level()?);
                (from >= to, to >= from)
            }
            (from, to) => (from.is_some(), to.is_some()),
        };
        if from {
            self.from.open(&mut self.read_ahead)?;
        }
        if to {
            self.to.open(&mut self.read_ahead)?;
        }
        Ok(())
    }

    /// Has the plan be some leaves ahead, twice as many as the last time.
    fn plan_ahead(&mut self) -> Result<()> {
        while self.from.leaves.len() + self.to.leaves.len() < self.ahead_count
            && (self.from.subtree().is_some() || self.to.subtree().is_some())
        {
            self.plan()?;
        }
        self.ahead_count = (2 * self.ahead_count).min(AHEAD_COUNT_MAX);
        Ok(())
    }

    fn step(&mut self) -> Result<Option<TreeDiffRow>> {
        loop {
            if let Some(row) = self.next_changed() {
                return Ok(Some(row));
            }
            let (from, to) = match (self.from.next(), self.to.next()) {
                (Next::End, Next::End) => return Ok(None),
                (Next::Row(a, i), Next::Row(b, j)) => {
                    let count = if Arc::ptr_eq(a, b) && i == j { a.rows - i } else { a.count_same_keys(i, b, j) };
                    if count == 0 {
                        let from_first = a.key(i) < b.key(j);
                        return Ok(Some(self.one_sided(from_first)));
                    }
                    self.compare(count);
                    continue;
                }
                (Next::Row(..), Next::End) => return Ok(Some(self.one_sided(true))),
                (Next::End, Next::Row(..)) => return Ok(Some(self.one_sided(false))),
                (Next::Row(leaf, row), Next::Leaf(child) | Next::Subtree(child)) if is_before(leaf, row, child) => {
                    return Ok(Some(self.one_sided(true)));
                }
                (Next::Leaf(child) | Next::Subtree(child), Next::Row(leaf, row)) if is_before(leaf, row, child) => {
                    return Ok(Some(self.one_sided(false)));
                }
                // A leaf is read when nothing is left that may come before it.
                (Next::Leaf(from), Next::Leaf(to)) if from.dirty || to.dirty => (true, true),
                (Next::Leaf(from), Next::Leaf(to)) => (from.key.as_slice() <= to.key.as_slice(), to.key.as_slice() <= from.key.as_slice()),
                (Next::Leaf(leaf), Next::Subtree(other)) => {
                    (!leaf.dirty && !other.dirty && leaf.key.as_slice() < other.key.as_slice(), false)
                }
                (Next::Subtree(other), Next::Leaf(leaf)) => {
                    (false, !leaf.dirty && !other.dirty && leaf.key.as_slice() < other.key.as_slice())
                }
                (from, to) => (matches!(from, Next::Leaf(_)), matches!(to, Next::Leaf(_))),
            };
            if !from && !to {
                self.plan()?;
                continue;
            }
            self.plan_ahead()?;
            if from {
                self.from.read()?;
            }
            if to {
                self.to.read()?;
            }
        }
    }

    /// The next row that one side does not have.
    fn one_sided(&mut self, of_from: bool) -> TreeDiffRow {
        if of_from { TreeDiffRow { from: self.from.take(1), to: None } } else { TreeDiffRow { from: None, to: self.to.take(1) } }
    }

    /// Finds what differs in the next rows, which have the same keys.
    fn compare(&mut self, count: usize) {
        let (Some(from), Some(to)) = (self.from.take(count), self.to.take(count)) else { return };
        if Arc::ptr_eq(&from.0, &to.0) && from.1 == to.1 {
            return;
        }
        from.0.find_changed(from.1, &to.0, to.1, count, &mut self.changed);
        self.alike = Some(Alike { from, to, next: 0 });
    }

    fn next_changed(&mut self) -> Option<TreeDiffRow> {
        let alike = self.alike.as_mut()?;
        let Some(row) = self.changed.next(alike.next) else {
            self.alike = None;
            return None;
        };
        alike.next = row + 1;
        let at = |(leaf, first): &(Arc<Leaf>, usize)| Some((leaf.clone(), first + row));
        Some(TreeDiffRow { from: at(&alike.from), to: at(&alike.to) })
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
