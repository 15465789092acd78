//! Checking a tree as a whole: order, counts, and that every node ends where the rule says.

use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::tree::Tree;
use crate::tree::boundary::inner_rule;
use crate::tree::node::{Child, NodeRef};

/// What a verification looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSize {
    pub rows: u64,
    pub nodes: u64,
}

struct Verifier<'a> {
    tree: &'a Tree,
    last_key: Option<Vec<u8>>,
    /// Per level: entries of the last node.
    counts: Vec<usize>,
    /// How many levels have begun a node since the last row.
    begun: usize,
    size: TreeSize,
}

impl Tree {
    /// Reads the whole tree and checks it; its shape, too, if no edit has left it for the next normalising.
    /// # Errors
    /// `Damaged` with what was found first.
    pub fn verify(&self) -> Result<TreeSize> {
        let Some(root) = &self.root else { return Ok(TreeSize::default()) };
        let level = root.slot.node(&self.source)?.level();
        let mut verifier =
            Verifier { tree: self, last_key: None, counts: vec![0; usize::from(level) + 1], begun: 0, size: TreeSize::default() };
        verifier.visit(root, level, root.key.as_slice().is_empty())?;
        if verifier.size.rows != root.count {
            return Err(damaged(root, "row count differs from what its root value says"));
        }
        Ok(verifier.size)
    }
}

fn damaged(child: &Child, what: &str) -> Error {
    let place = match child.slot.address() {
        Some(address) => format!("chunk {address:.12}"),
        None => "tree in memory".into(),
    };
    Error::Damaged { place, what: what.into() }
}

impl Verifier<'_> {
    fn visit(&mut self, child: &Child, level: u8, any_key: bool) -> Result<()> {
        let node = child.slot.node(&self.tree.source)?;
        self.size.nodes += 1;
        self.begun = self.begun.max(usize::from(level) + 1);
        if node.level() != level {
            return Err(damaged(child, "node has the wrong level"));
        }
        if node.row_count() != child.count {
            return Err(damaged(child, "row count differs from what its parent says"));
        }
        // Bytes that hash to their address but are not what this version writes would break the sharing of nodes.
        let bytes = node.address().map(|_| match &node {
            NodeRef::Inner(inner) => inner.encode(self.tree.rule.target).into(),
            NodeRef::Leaf(leaf) => leaf.encode(),
        });
        if bytes.is_some_and(|bytes| node.address() != Some(&ChunkAddress::of(&bytes))) {
            return Err(damaged(child, "chunk is not in canonical form"));
        }
        match node {
            NodeRef::Inner(inner) => {
                for (i, below) in inner.children.iter().enumerate() {
                    if i == 0 && !any_key && !child.dirty && below.key.as_slice() != child.key.as_slice() {
                        return Err(damaged(child, "first key differs from what its parent says"));
                    }
                    self.visit(below, level - 1, false)?;
                }
            }
            NodeRef::Leaf(leaf) => {
                if let Some(what) = leaf.verify() {
                    return Err(damaged(child, what));
                }
                for row in 0..leaf.row_count() {
                    let key = leaf.key(row);
                    if self.last_key.as_deref().is_some_and(|last| last >= key) {
                        return Err(damaged(child, "keys are out of order"));
                    }
                    if row == 0 && !any_key && !child.dirty && key != child.key.as_slice() {
                        return Err(damaged(child, "first key differs from what its parent says"));
                    }
                    self.check_boundaries(child, key)?;
                    self.last_key = Some(key.to_vec());
                    self.size.rows += 1;
                }
            }
        }
        Ok(())
    }

    /// A row must begin as many nodes as the rule says, the lowest levels'.
    fn check_boundaries(&mut self, child: &Child, key: &[u8]) -> Result<()> {
        let begun = std::mem::take(&mut self.begun);
        if self.tree.root.as_ref().is_some_and(|root| root.dirty) {
            return Ok(());
        }
        if self.last_key.is_some() {
            let begins = |level: usize| {
                let rule = if level == 0 { self.tree.rule } else { inner_rule() };
                rule.begins_node(key, level as u8, self.counts[level])
            };
            let expected = (0..self.counts.len()).take_while(|&level| begins(level)).count();
            if begun != expected {
                return Err(damaged(child, "a node begins where it should not, or does not where it should"));
            }
        }
        // The nodes begun have one entry now, and the one above them one more.
        for level in 0..self.counts.len().min(begun + 1) {
            self.counts[level] = if level < begun { 1 } else { self.counts[level] + 1 };
        }
        Ok(())
    }
}
