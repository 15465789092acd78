//! Inserting, updating and deleting rows. Nodes that nobody else holds change in place; others are copied.

use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::key_bytes::KeyBytes;
use crate::tree::boundary::{FANOUT_TARGET, Rule, inner_rule};
use crate::tree::leaf::{Leaf, grown};
use crate::tree::node::{Child, Inner, Node, Slot, Source};
use crate::tree::{KEY_SIZE_MAX, LEAF_SIZE_MAX, Tree, first_key};
use crate::value::{Row, Value};

/// An inner node that has grown to this many children in memory is halved; normalising cuts it properly.
const CHILDREN_MAX: usize = 4 * FANOUT_TARGET as usize;

/// What an insertion did below.
enum Inserted {
    Duplicate,
    /// Nothing that the parent must do; whether the shape may no longer be canonical.
    Done {
        dirty: bool,
    },
    /// A new right sibling. Not dirty: it begins where the rule says.
    Split {
        sibling: Child,
        dirty: bool,
    },
}

/// What [`Tree::update`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// There is no row with this key.
    Missing,
    /// A column that may not change in this way would have; nothing was changed.
    Refused,
    /// The row has the new values; whether any differed is in `changed`.
    Done,
}

/// What a deletion did below.
enum Deleted {
    Missing,
    Row(Row),
}

struct Insertion<'a> {
    source: &'a Source,
    rule: Rule,
    key: &'a [u8],
    row: &'a [Value],
}

impl Tree {
    /// Inserts a row; returns whether it was absent. An existing row stays as it is.
    /// # Errors
    /// `Invalid` when a value's shape is not its column's; `Limit`.
    pub fn insert(&mut self, key: &[u8], row: &[Value]) -> Result<bool> {
        self.source.layout.check_row(row)?;
        check_key(key)?;
        let Some(root) = &mut self.root else {
            let width = u32::try_from(key.len()).expect("BUG: the key's size was checked");
            let mut leaf = Leaf::empty(&self.source, self.rule.target, width, 0, None);
            leaf.push(key, row);
            self.root = Some(leaf_child(leaf));
            return Ok(true);
        };
        let insertion = Insertion { source: &self.source, rule: self.rule, key, row };
        match insertion.insert(root, true)? {
            Inserted::Duplicate => return Ok(false),
            Inserted::Done { .. } => (),
            Inserted::Split { sibling, dirty } => {
                let level = sibling.slot.node(&self.source)?.level() + 1;
                let mut left = self.root.take().expect("BUG: the root was there");
                left.key = first_key(&left.slot.node(&self.source)?);
                let (key, count, dirty) = (left.key.clone(), left.count + sibling.count, left.dirty || dirty);
                let node = Node::Inner(Arc::new(Inner::new(self.source.cache(), level, vec![left, sibling])));
                self.root = Some(Child { key, count, dirty, slot: Slot::Loaded(node) });
            }
        }
        Ok(true)
    }

    /// Sets columns of the row with this key and appends to `changed` those that differ: (column, old, new). A column for which
    /// `fixed` is true may be given but not differ.
    pub fn update(
        &mut self,
        key: &[u8],
        columns: &[(u16, Value)],
        fixed: &[bool],
        changed: &mut Vec<(u16, Value, Value)>,
    ) -> Result<Updated> {
        for (column, value) in columns {
            self.source.layout.check_value(usize::from(*column), value)?;
        }
        let Some(root) = &mut self.root else { return Ok(Updated::Missing) };
        let mut slot = &mut root.slot;
        loop {
            match slot.node_mut(&self.source)? {
                Node::Inner(inner) => {
                    let inner = Arc::make_mut(inner);
                    inner.address = OnceLock::new();
                    let child = inner.route(key);
                    slot = &mut inner.children[child].slot;
                }
                Node::Leaf(leaf) => {
                    let Ok(row) = leaf.find(key) else { return Ok(Updated::Missing) };
                    let differs = |leaf: &Leaf, (column, value): &(u16, Value)| !leaf.value_is(row, usize::from(*column), value);
                    let is_fixed = |column: u16| fixed.get(usize::from(column)).copied().unwrap_or(false);
                    if columns.iter().any(|new| is_fixed(new.0) && differs(leaf, new)) {
                        return Ok(Updated::Refused);
                    }
                    let first = changed.len();
                    for new in columns.iter().filter(|new| !is_fixed(new.0) && differs(leaf, new)) {
                        check_leaf_size(leaf, std::slice::from_ref(&new.1))?;
                        changed.push((new.0, leaf.value(row, usize::from(new.0)), new.1.clone()));
                    }
                    if changed.len() > first {
                        let leaf = Arc::make_mut(leaf);
                        for (column, _, value) in &changed[first..] {
                            leaf.set(row, usize::from(*column), value);
                        }
                    }
                    return Ok(Updated::Done);
                }
            }
        }
    }

    /// Takes out the row with this key and returns it. A tree that has become empty is like a new one: its leaves are aimed
    /// at the number of rows that its layout suggests.
    pub fn delete(&mut self, key: &[u8]) -> Result<Option<Row>> {
        let Some(root) = &mut self.root else { return Ok(None) };
        match delete(root, &self.source, key)? {
            Deleted::Missing => Ok(None),
            Deleted::Row(row) => {
                if root.count == 0 {
                    *self = Tree::new(self.source.layout.clone(), self.source.reader.clone());
                }
                Ok(Some(row))
            }
        }
    }
}

impl Insertion<'_> {
    /// `last`: nothing lies to the right of this child, so that a new greatest key finds its place by the rule.
    fn insert(&self, child: &mut Child, last: bool) -> Result<Inserted> {
        let done = match child.slot.node_mut(self.source)? {
            Node::Leaf(leaf) => self.insert_into_leaf(leaf, last)?,
            Node::Inner(inner) => self.insert_into_inner(inner, last)?,
        };
        match &done {
            Inserted::Duplicate => (),
            Inserted::Done { dirty } => {
                child.count += 1;
                child.dirty |= dirty;
            }
            Inserted::Split { sibling, dirty } => {
                child.count = child.count + 1 - sibling.count;
                child.dirty |= dirty;
            }
        }
        Ok(done)
    }

    fn insert_into_leaf(&self, shared: &mut Arc<Leaf>, last: bool) -> Result<Inserted> {
        let Err(at) = shared.find(self.key) else { return Ok(Inserted::Duplicate) };
        let appended = last && at == shared.rows;
        if appended && self.rule.begins_node(self.key, 0, at) {
            let target = self.rule.target as usize;
            let width = self.key.len() as u32;
            let mut leaf = Leaf::empty(self.source, self.rule.target, width, grown(target, target), None);
            leaf.push(self.key, self.row);
            return Ok(Inserted::Split { sibling: leaf_child(leaf), dirty: false });
        }
        check_leaf_size(shared, self.row)?;
        let leaf = Arc::make_mut(shared);
        leaf.insert(at, self.key, self.row);
        if leaf.rows <= self.rule.max() {
            return Ok(Inserted::Done { dirty: !appended });
        }
        let middle = leaf.rows / 2;
        let right = leaf.slice(middle, leaf.rows);
        *leaf = leaf.slice(0, middle);
        Ok(Inserted::Split { sibling: Child { dirty: true, ..leaf_child(right) }, dirty: true })
    }

    fn insert_into_inner(&self, shared: &mut Arc<Inner>, last: bool) -> Result<Inserted> {
        let inner = Arc::make_mut(shared);
        inner.address = OnceLock::new();
        let at = inner.route(self.key);
        let last = last && at + 1 == inner.children.len();
        match self.insert(&mut inner.children[at], last)? {
            Inserted::Split { sibling, dirty: false } => {
                if inner_rule().begins_node(self.key, inner.level, inner.children.len()) {
                    let (key, count) = (sibling.key.clone(), sibling.count);
                    let node = Node::Inner(Arc::new(Inner::new(self.source.cache(), inner.level, vec![sibling])));
                    return Ok(Inserted::Split { sibling: Child { key, count, dirty: false, slot: Slot::Loaded(node) }, dirty: false });
                }
                inner.children.push(sibling);
                Ok(Inserted::Done { dirty: false })
            }
            Inserted::Split { sibling, dirty: true } => {
                inner.children.insert(at + 1, sibling);
                if inner.children.len() <= CHILDREN_MAX {
                    return Ok(Inserted::Done { dirty: true });
                }
                let right = inner.children.split_off(CHILDREN_MAX / 2);
                let (key, count) = (right[0].key.clone(), right.iter().map(|c| c.count).sum());
                let node = Node::Inner(Arc::new(Inner::new(self.source.cache(), inner.level, right)));
                Ok(Inserted::Split { sibling: Child { key, count, dirty: true, slot: Slot::Loaded(node) }, dirty: true })
            }
            other => Ok(other),
        }
    }
}

fn delete(child: &mut Child, source: &Source, key: &[u8]) -> Result<Deleted> {
    let deleted = match child.slot.node_mut(source)? {
        Node::Leaf(leaf) => match leaf.find(key) {
            Err(_) => return Ok(Deleted::Missing),
            Ok(at) => {
                let row = leaf.row(at);
                Arc::make_mut(leaf).remove(at);
                row
            }
        },
        Node::Inner(inner) => {
            let inner = Arc::make_mut(inner);
            inner.address = OnceLock::new();
            let at = inner.route(key);
            let Deleted::Row(row) = delete(&mut inner.children[at], source, key)? else { return Ok(Deleted::Missing) };
            if inner.children[at].count == 0 {
                inner.children.remove(at);
                // What follows the gap may have to join what precedes it.
                let neighbour = if at < inner.children.len() { at } else { at.saturating_sub(1) };
                if let Some(neighbour) = inner.children.get_mut(neighbour) {
                    neighbour.dirty = true;
                }
            }
            row
        }
    };
    child.count -= 1;
    child.dirty = true;
    Ok(Deleted::Row(deleted))
}

pub(crate) fn leaf_child(leaf: Leaf) -> Child {
    Child { key: KeyBytes::new(leaf.key(0)), count: leaf.rows as u64, dirty: false, slot: Slot::Loaded(Node::Leaf(Arc::new(leaf))) }
}

pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > KEY_SIZE_MAX {
        return Err(Error::Limit { what: "size of a key", limit: KEY_SIZE_MAX as u64 });
    }
    Ok(())
}

/// Checks that a leaf can take these values in addition.
pub(crate) fn check_leaf_size(leaf: &Leaf, values: &[Value]) -> Result<()> {
    let added: usize = values.iter().map(|value| if let Value::Bytes(bytes) = value { bytes.len() } else { 0 }).sum();
    // Laying a leaf out anew gives every heap up to a quarter more than it needs, and twice for a row that doubles it.
    if leaf.buffer.len() + 2 * added > LEAF_SIZE_MAX {
        return Err(Error::Limit { what: "size of neighbouring rows", limit: LEAF_SIZE_MAX as u64 });
    }
    Ok(())
}
