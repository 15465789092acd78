//! Many rows updated at once, in the order of their keys, by several threads.
//!
//! An update changes neither a row's place nor the number of rows, so the tree keeps its shape and subtrees do not concern each other: each is
//! one thread's. Every node on the way is looked for once for all its rows. This is how a table of an old commit is made of a checkpoint's,
//! where nearly every leaf is read, unpacked and hashed for some of its rows: that is most of the work, and what the threads share.

use std::sync::{Arc, OnceLock};

use crate::error::Result;
use crate::helpers::for_each;
use crate::tree::Tree;
use crate::tree::edit::check_leaf_size;
use crate::tree::leaf::Leaf;
use crate::tree::node::{Node, Slot, Source};
use crate::value::Value;

/// Subtrees for each thread, so that none waits long for the last one.
const TASKS_PER_THREAD: usize = 8;

/// A row to update: (column, old value, new value), of columns that no key depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowUpdate<'a> {
    pub key: &'a [u8],
    pub columns: &'a [(u16, Value, Value)],
}

/// What updating came to: the position of the first row that is missing or is not as it was said to be.
pub(crate) type Misfit = Option<usize>;

/// The rows below a node that are to be updated, and how many come before them.
struct Task<'a, 'b> {
    slot: &'a mut Slot,
    updates: &'b [RowUpdate<'b>],
    before: usize,
}

enum Opened<'a, 'b> {
    Inner(Vec<Task<'a, 'b>>),
    Leaf(&'a mut Arc<Leaf>),
}

impl Tree {
    /// Updates rows, whose keys ascend. Where one does not fit, or on an error, some of the others may have been updated.
    /// # Errors
    /// `Invalid` when a value's shape is not its column's; `Limit`; `Damaged`, `Io`.
    pub(crate) fn update_sorted(&mut self, updates: &[RowUpdate<'_>], thread_count: usize) -> Result<Misfit> {
        debug_assert!(updates.is_sorted_by(|a, b| a.key < b.key), "BUG: updates are not in the order of their keys");
        let source = self.source.clone();
        let Some(root) = &mut self.root else { return Ok(if updates.is_empty() { None } else { Some(0) }) };
        let mut tasks = vec![Task { slot: &mut root.slot, updates, before: 0 }];
        if thread_count > 1 {
            while (1..TASKS_PER_THREAD * thread_count).contains(&tasks.len()) {
                let mut below = Vec::new();
                for task in tasks {
                    let (before, updates) = (task.before, task.updates);
                    match task.open(&source)? {
                        Opened::Inner(children) => below.extend(children),
                        // All others are leaves, too: there are few.
                        Opened::Leaf(leaf) => {
                            if let Some(misfit) = update_leaf(leaf, &source, updates, before)? {
                                return Ok(Some(misfit));
                            }
                        }
                    }
                }
                tasks = below;
            }
        }
        let is_failed = |result: &Result<Misfit>| !matches!(result, Ok(None));
        let done = for_each(tasks, thread_count, is_failed, |task| task.run(&source));
        done.into_iter().flatten().find(is_failed).unwrap_or(Ok(None))
    }
}

impl<'a, 'b> Task<'a, 'b> {
    fn run(self, source: &Source) -> Result<Misfit> {
        let (updates, before) = (self.updates, self.before);
        match self.open(source)? {
            Opened::Leaf(leaf) => update_leaf(leaf, source, updates, before),
            Opened::Inner(tasks) => {
                for task in tasks {
                    if let Some(misfit) = task.run(source)? {
                        return Ok(Some(misfit));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Reads the node for editing and gives its children what is below them, without those that have nothing.
    fn open(self, source: &Source) -> Result<Opened<'a, 'b>> {
        let inner = match self.slot.node_mut(source)? {
            Node::Leaf(leaf) => return Ok(Opened::Leaf(leaf)),
            Node::Inner(inner) => Arc::make_mut(inner),
        };
        inner.address = OnceLock::new();
        let (mut tasks, mut updates, mut before) = (Vec::new(), self.updates, self.before);
        let mut children = inner.children.iter_mut().peekable();
        while let Some(child) = children.next()
            && !updates.is_empty()
        {
            let end = children.peek().map_or(updates.len(), |next| updates.partition_point(|update| update.key < next.key.as_slice()));
            let (here, after) = updates.split_at(end);
            if !here.is_empty() {
                tasks.push(Task { slot: &mut child.slot, updates: here, before });
            }
            (updates, before) = (after, before + end);
        }
        Ok(Opened::Inner(tasks))
    }
}

fn update_leaf(shared: &mut Arc<Leaf>, source: &Source, updates: &[RowUpdate<'_>], before: usize) -> Result<Misfit> {
    let leaf = Arc::make_mut(shared);
    for (at, update) in updates.iter().enumerate() {
        let Ok(row) = leaf.find(update.key) else { return Ok(Some(before + at)) };
        let column_count = leaf.column_count();
        let fits =
            |(column, old, _): &(u16, Value, Value)| usize::from(*column) < column_count && leaf.value_is(row, usize::from(*column), old);
        if !update.columns.iter().all(fits) {
            return Ok(Some(before + at));
        }
        for (column, _, new) in update.columns {
            source.layout.check_value(usize::from(*column), new)?;
            check_leaf_size(leaf, std::slice::from_ref(new))?;
            leaf.set(row, usize::from(*column), new);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::IteratorRandom;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::chunk::{ChunkReader, MemoryChunks};
    use crate::error::Error;
    use crate::tree::Layout;
    use crate::value::{Physical, Row};

    fn key(n: u32) -> Vec<u8> {
        n.to_be_bytes().to_vec()
    }

    fn row(n: u32) -> Row {
        vec![Value::Int4(n as i32), Value::bytes(format!("text {n}")), Value::Null]
    }

    /// A written tree of several levels with every third number.
    fn written(chunks: &Arc<MemoryChunks>, count: u32) -> Tree {
        let layout = Layout::new(vec![Physical::Int4, Physical::Bytes, Physical::Bool]);
        let reader: Arc<dyn ChunkReader> = chunks.clone();
        let mut tree = Tree::new(layout.clone(), Some(reader.clone()));
        for n in 0..count {
            tree.insert(&key(3 * n), &row(n)).unwrap();
        }
        let address = tree.write(&mut &**chunks).unwrap().unwrap();
        Tree::open(address, layout, reader).unwrap()
    }

    type Update = (Vec<u8>, Vec<(u16, Value, Value)>);

    fn some_updates(tree: &Tree, count: u32, random: &mut StdRng) -> Vec<Update> {
        let share = *[0.001, 0.05, 0.9].iter().choose(random).unwrap();
        let mut updates = Vec::new();
        for n in (0..count).filter(|_| random.random_bool(share)).collect::<Vec<_>>() {
            let old = tree.get(&key(3 * n)).unwrap().unwrap();
            let new = [
                Value::Int4(random.random()),
                Value::bytes(vec![b'x'; random.random_range(0..60)]),
                if random.random() { Value::Null } else { Value::Bool(true) },
            ];
            let columns = old.into_iter().zip(new).zip(0..).filter(|_| random.random());
            updates.push((key(3 * n), columns.map(|((old, new), column)| (column, old, new)).collect()));
        }
        updates
    }

    fn borrowed(updates: &[Update]) -> Vec<RowUpdate<'_>> {
        updates.iter().map(|(key, columns)| RowUpdate { key, columns }).collect()
    }

    #[test]
    fn updates_together_give_the_tree_that_they_give_one_by_one_and_leave_snapshots_alone() {
        let (chunks, count) = (Arc::new(MemoryChunks::default()), 20_000);
        let tree = written(&chunks, count);
        for seed in 0..12 {
            let mut random = StdRng::seed_from_u64(seed);
            let updates = some_updates(&tree, count, &mut random);
            let mut expected = tree.clone();
            for (key, columns) in &updates {
                let columns: Vec<_> = columns.iter().map(|(column, _, new)| (*column, new.clone())).collect();
                expected.update(key, &columns, &[], &mut Vec::new()).unwrap();
            }
            let expected = expected.write(&mut &*chunks).unwrap();
            for thread_count in 1..4 {
                // Read anew, shared with what was read, or shared with a tree that was edited.
                let mut shared = tree.clone();
                if seed % 3 == 0 {
                    shared = written(&chunks, count);
                }
                if seed % 3 == 1 {
                    shared.insert(&key(1), &row(1)).unwrap();
                    shared.delete(&key(1)).unwrap();
                }
                let mut updated = shared.clone();
                assert_eq!(updated.update_sorted(&borrowed(&updates), thread_count).unwrap(), None);
                updated.verify().unwrap();
                assert_eq!(updated.write(&mut &*chunks).unwrap(), expected, "seed {seed}, {thread_count} threads");
                assert_eq!(shared.write(&mut &*chunks).unwrap(), tree.clone().write(&mut &*chunks).unwrap());
            }
        }
    }

    #[test]
    fn the_first_row_that_does_not_fit_is_named_however_many_threads_there_are() {
        let (chunks, count) = (Arc::new(MemoryChunks::default()), 20_000);
        let tree = written(&chunks, count);
        let plain = |n: u32, old: i32| (key(3 * n), vec![(0, Value::Int4(old), Value::Int4(-1))]);
        let good: Vec<Update> = (0..count).step_by(7).map(|n| plain(n, n as i32)).collect();
        for thread_count in 1..4 {
            for at in [0, 1, 700, 1500, good.len() - 1] {
                let misfit = |bad: Update| {
                    let mut updates = good.clone();
                    updates[at] = bad;
                    // A second one behind it.
                    updates.push((key(3 * count), vec![]));
                    tree.clone().update_sorted(&borrowed(&updates), thread_count)
                };
                let (k, _) = &good[at];
                let n = 7 * at as u32;
                assert_eq!(misfit(plain(n, n as i32 + 1)).unwrap(), Some(at), "another old value");
                assert_eq!(misfit((k.clone(), vec![(9, Value::Null, Value::Null)])).unwrap(), Some(at), "no such column");
                assert_eq!(misfit((key(3 * n + 1), vec![])).unwrap(), Some(at), "no such row");
                let shape = misfit((k.clone(), vec![(0, Value::Int4(n as i32), Value::Bool(true))]));
                assert!(matches!(shape, Err(Error::Invalid(_))), "{shape:?}");
            }
        }
        let mut empty = Tree::new(tree.layout().clone(), None);
        assert_eq!(empty.update_sorted(&[], 2).unwrap(), None);
        assert_eq!(empty.update_sorted(&borrowed(&good), 2).unwrap(), Some(0));
    }
}
