//! Filling a table, by one thread or by several at once.
//!
//! Each thread has a [`RowLoader`], which takes rows in any order. Rows whose keys ascend go straight into a tree, so a source that keeps them in key
//! order costs no sorting and no copy. Rows that come out of order are gathered, sorted, and become a tree of their own: a *run*. At the end
//! the runs of all loaders are brought together: those that lie apart are joined as they are, subtree by subtree, and only those that overlap are merged row by
//! row.
//!
//! ```text
//!   loader 1   1 2 3 4 . . 7 8          ─┐
//!              6 5 (late) → 5 6          ├─ merged: 1 .. 8 ─┐
//!   loader 2   20 21 22 23              ─┘─────────── joined ┴─ the table
//! ```
//!
//! Memory holds what the cache's limit allows: runs are written and let go like any other tree; where rows come in order, and no index is to be made of them, leaves are
//! written and let go at once, which is cheaper than memory that was never used before. Beside that each loader holds the rows that it gathers
//! ([`SORT_SIZE_MAX`]) and, while runs are merged, one leaf of each run.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use super::{Edit, table_mut};
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::{Error, Result};
use crate::schema::Oid;
use crate::table::{ROW_HASH_SIZE, TableData, TableShape};
use crate::tree::{Cursor, LeafRows, SpillPace, Tree, TreeBuilder};
use crate::value::{Row, Value};

/// Rows that are sorted together, and what their keys and values may take (in bytes).
const SORT_ROWS_MAX: usize = if cfg!(test) { 1024 } else { 64 * 1024 };
const SORT_SIZE_MAX: usize = 32 << 20;
/// The rows that tell, before the first leaf is begun, how large rows are, and what they may take.
const SAMPLE_ROWS: usize = if cfg!(test) { 64 } else { 4096 };
const SAMPLE_SIZE_MAX: usize = 4 << 20;
/// Rows between two looks at the memory that nodes take.
pub(super) const ROWS_BETWEEN_LOOKS: usize = 1024;

/// A table that is being filled beside the root value.
#[derive(Debug)]
pub struct TableLoad {
    shape: Arc<TableShape>,
    chunks: Option<Arc<dyn ChunkReader>>,
    write_early: bool,
    /// How many rows leaves are aimed at: the same for all runs, so that they can be joined. Decided by the first rows that come.
    target: OnceLock<u32>,
}

/// One thread's part in filling a table.
pub struct RowLoader {
    load: Arc<TableLoad>,
    spill: Spill,
    key: Vec<u8>,
    /// The run of the rows that come in order.
    open: Option<OpenRun>,
    /// Rows that came out of order, or before the target was known.
    batch: Vec<(Vec<u8>, Row)>,
    batch_size: usize,
    runs: Vec<SortedRun>,
    until_look: usize,
    /// Nothing came out of order so far, so what is built is what will stay.
    in_order: bool,
}

struct OpenRun {
    builder: TreeBuilder,
    first: Vec<u8>,
}

/// Rows in key order.
pub struct SortedRun {
    first: Vec<u8>,
    last: Vec<u8>,
    tree: Tree,
}

/// A table's new rows with their indexes.
#[derive(Debug)]
pub struct LoadedTable {
    data: TableData,
}

impl Edit {
    /// Begins to fill a table beside this edit, which may go on meanwhile as long as it leaves the table's definition alone.
    /// # Errors
    /// `NotFound`.
    pub fn table_load(&mut self, table: Oid) -> Result<Arc<TableLoad>> {
        let shape = table_mut(&mut self.root, table)?.shape.clone();
        Ok(Arc::new(TableLoad::new(shape, self.root.chunks.as_ref(), true)))
    }

    /// Gives an empty table the rows that were loaded for it. Returns their number.
    /// # Errors
    /// `Conflict` when the table has rows or another definition by now; `NotFound`.
    pub fn take_rows(&mut self, table: Oid, loaded: LoadedTable) -> Result<u64> {
        let own = table_mut(&mut self.root, table)?;
        if !own.is_empty() {
            return Err(Error::Conflict { what: format!("table \"{}\"", own.shape.schema.name) });
        }
        if loaded.data.is_empty() {
            return Ok(0);
        }
        self.replace_with(table, loaded)
    }

    /// Adds the loaded rows to those that the table has, one by one. Returns their number.
    /// # Errors
    /// As of [`Edit::insert`].
    pub fn add_rows(&mut self, table: Oid, loaded: &LoadedTable) -> Result<u64> {
        let mut rows = loaded.data.rows.scan((Bound::Unbounded, Bound::Unbounded), false);
        while let Some((_, row)) = rows.next_row()? {
            self.insert(table, row)?;
        }
        Ok(loaded.data.len())
    }

    /// Makes the loaded rows the table's only ones. Returns their number.
    /// # Errors
    /// `Conflict` when the table has another definition by now; `NotFound`.
    pub fn replace_with(&mut self, table: Oid, loaded: LoadedTable) -> Result<u64> {
        let own = table_mut(&mut self.root, table)?;
        if own.shape.schema != loaded.data.shape.schema {
            return Err(Error::Conflict { what: format!("table \"{}\"", own.shape.schema.name) });
        }
        let count = loaded.data.len();
        self.replace_table(table, loaded.data)?;
        Ok(count)
    }
}

impl LoadedTable {
    pub fn row_count(&self) -> u64 {
        self.data.len()
    }
}

impl TableData {
    /// Builds a table from rows in any order. In a store (`chunks`) nodes are written and let go while it is built, if they are many.
    pub(crate) fn build(
        shape: Arc<TableShape>,
        chunks: Option<&Arc<dyn ChunkReader>>,
        rows: &mut dyn Iterator<Item = Result<Row>>,
    ) -> Result<TableData> {
        let load = Arc::new(TableLoad::new(shape, chunks, false));
        let mut loader = load.loader();
        for row in rows {
            loader.push(&mut row?)?;
        }
        load.finish(loader.finish()?).map(|loaded| loaded.data)
    }
}

impl TableLoad {
    /// `write_early`: rows that come in order are written at once rather than when the table is whole. Right where a failure is rare, as what it leaves
    /// is garbage.
    fn new(shape: Arc<TableShape>, chunks: Option<&Arc<dyn ChunkReader>>, write_early: bool) -> Self {
        TableLoad { shape, chunks: chunks.cloned(), write_early, target: OnceLock::new() }
    }

    /// One thread's part.
    pub fn loader(self: &Arc<Self>) -> RowLoader {
        RowLoader {
            load: self.clone(),
            spill: Spill::new(self.chunks.clone()),
            key: Vec::new(),
            open: None,
            batch: Vec::new(),
            batch_size: 0,
            runs: Vec::new(),
            until_look: ROWS_BETWEEN_LOOKS,
            in_order: true,
        }
    }

    /// Brings together what all loaders have made, and builds the indexes.
    /// # Errors
    /// `DuplicateKey`.
    pub fn finish(&self, runs: Vec<SortedRun>) -> Result<LoadedTable> {
        let rows = self.join(runs)?;
        let data = TableData { shape: self.shape.clone(), rows, indexes: Vec::new() }.with_built_indexes()?;
        Ok(LoadedTable { data })
    }

    fn join(&self, mut runs: Vec<SortedRun>) -> Result<Tree> {
        if runs.len() <= 1 {
            return Ok(runs.pop().map_or_else(|| Tree::new(self.shape.layout.clone(), self.chunks.clone()), |run| run.tree));
        }
        runs.sort_unstable_by(|a, b| a.first.cmp(&b.first));
        let mut spill = Spill::new(self.chunks.clone());
        spill.run_if(spill.is_due(), |writer| runs.iter_mut().try_for_each(|run| run.write(writer)))?;
        let mut builder = self.builder(runs[0].tree.target());
        let mut at = 0;
        while at < runs.len() {
            // The runs from here on that overlap.
            let (mut end, mut last) = (at + 1, &runs[at].last);
            while end < runs.len() && self.overlaps(last, &runs[end].first) {
                last = last.max(&runs[end].last);
                end += 1;
            }
            match &runs[at..end] {
                [alone] => builder.push_tree(&alone.tree, &alone.last)?,
                several => self.merge(several, &mut builder, &mut spill)?,
            }
            at = end;
        }
        builder.finish()
    }

    /// Whether a run that begins with `first` may hold keys that belong before or at `last`. Equal rows without a key are numbered anew where they meet.
    fn overlaps(&self, last: &[u8], first: &[u8]) -> bool {
        if self.shape.key.is_some() { first <= last } else { first[..ROW_HASH_SIZE] <= last[..ROW_HASH_SIZE] }
    }

    fn merge(&self, runs: &[SortedRun], builder: &mut TreeBuilder, spill: &mut Spill) -> Result<()> {
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for run in runs {
            let mut cursor = run.tree.scan((Bound::Unbounded, Bound::Unbounded), false);
            heads.extend(cursor.next_leaf()?.map(|rows| Head { rows, cursor }));
        }
        let mut until_look = ROWS_BETWEEN_LOOKS;
        while let Some(mut head) = heads.peek_mut() {
            let (leaf, at) = (&head.rows.leaf, head.rows.start);
            let key = leaf.key(at);
            if builder.accepts(key) && !(self.shape.key.is_none() && has_same_hash(builder.last_key(), key)) {
                builder.push_rows(leaf, at, at + 1)?;
            } else if self.shape.key.is_some() {
                return Err(self.shape.duplicate_key(&leaf.row(at)));
            } else {
                builder.push_checked(&next_key(builder.last_key())?, &leaf.row(at))?;
            }
            head.rows.start += 1;
            if head.rows.is_empty() {
                match head.cursor.next_leaf()? {
                    Some(rows) => head.rows = rows,
                    None => drop(PeekMut::pop(head)),
                }
            }
            until_look -= 1;
            if until_look == 0 {
                until_look = ROWS_BETWEEN_LOOKS;
                spill.run(|writer| builder.spill(writer))?;
            }
        }
        Ok(())
    }

    fn builder(&self, target: u32) -> TreeBuilder {
        TreeBuilder::new(self.shape.layout.clone(), target, self.chunks.clone())
    }
}

impl RowLoader {
    /// Takes a row, in its column order; what is left of it is of no use. Returns when it is in.
    /// # Errors
    /// `Invalid` when a value's shape is not its column's; `DuplicateKey` for a key that this loader has seen shortly before (others are
    /// found in the end).
    pub fn push(&mut self, row: &mut Row) -> Result<()> {
        let shape = &self.load.shape;
        shape.layout.check_row(row)?;
        self.key.clear();
        shape.append_row_key(&mut self.key, row);
        if let Some(run) = &mut self.open
            && run.builder.accepts(&self.key)
        {
            run.builder.push_checked(&self.key, row)?;
        } else {
            self.in_order &= self.open.is_none();
            self.batch_size += shape.layout.fixed_size() + variable_size(&self.key, row);
            self.batch.push((self.key.clone(), std::mem::take(row)));
            let (rows_max, size_max) =
                if self.load.target.get().is_some() { (SORT_ROWS_MAX, SORT_SIZE_MAX) } else { (SAMPLE_ROWS, SAMPLE_SIZE_MAX) };
            if self.batch.len() >= rows_max || self.batch_size > size_max || (self.open.is_none() && self.load.target.get().is_some()) {
                self.flush()?;
            }
        }
        self.until_look -= 1;
        if self.until_look == 0 {
            self.until_look = ROWS_BETWEEN_LOOKS;
            self.look()?;
        }
        Ok(())
    }

    /// # Errors
    /// As of [`RowLoader::push`].
    pub fn finish(mut self) -> Result<Vec<SortedRun>> {
        self.flush()?;
        self.close()?;
        Ok(self.runs)
    }

    /// Writes what is to be written by now.
    fn look(&mut self) -> Result<()> {
        let (open, runs) = (&mut self.open, &mut self.runs);
        self.spill.run(|writer| {
            runs.iter_mut().try_for_each(|run| run.write(writer))?;
            open.as_mut().map_or(Ok(()), |run| run.builder.spill(writer))
        })?;
        if self.load.write_early
            && self.in_order
            && let Some(run) = &mut self.open
            && let Some(mut writer) = self.load.chunks.as_ref().and_then(|chunks| chunks.bulk_writer())
        {
            // Indexes are built by reading the rows again.
            if self.load.shape.indexes.is_empty() {
                run.builder.put_away_finished(&mut *writer)?;
            } else {
                run.builder.write_finished(&mut *writer)?;
            }
        }
        Ok(())
    }

    /// Sorts the gathered rows: they go on with the open run, or are a run of their own.
    fn flush(&mut self) -> Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        self.batch_size = 0;
        if !batch.is_sorted_by(|a, b| a.0 < b.0) {
            self.in_order = false;
            batch.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            self.check_duplicates(&mut batch)?;
        }
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let layout = &self.load.shape.layout;
        let target = *self.load.target.get_or_init(|| layout.target_for(mean_size(&batch, layout.fixed_size())));
        match &mut self.open {
            Some(run) if !run.builder.accepts(&first.0) => {
                let (first, last) = (first.0.clone(), last.0.clone());
                let mut builder = self.load.builder(target);
                for (key, row) in batch {
                    builder.push_checked(&key, &row)?;
                }
                self.runs.push(SortedRun { first, last, tree: builder.finish()? });
            }
            Some(run) => batch.iter().try_for_each(|(key, row)| run.builder.push_checked(key, row))?,
            none => {
                let run = none.insert(OpenRun { builder: self.load.builder(target), first: first.0.clone() });
                batch.iter().try_for_each(|(key, row)| run.builder.push_checked(key, row))?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some(run) = self.open.take() {
            let last = run.builder.last_key().to_vec();
            self.runs.push(SortedRun { first: run.first, last, tree: run.builder.finish()? });
        }
        Ok(())
    }

    /// Refuses equal keys of sorted rows, or gives equal keyless rows their ordinals.
    fn check_duplicates(&self, batch: &mut [(Vec<u8>, Row)]) -> Result<()> {
        for at in 1..batch.len() {
            let (before, rest) = batch.split_at_mut(at);
            let (last, (key, row)) = (&before[at - 1].0, &mut rest[0]);
            if self.load.shape.key.is_some() {
                if last == key {
                    return Err(self.load.shape.duplicate_key(row));
                }
            } else if has_same_hash(last, key) {
                *key = next_key(last)?;
            }
        }
        Ok(())
    }
}

impl SortedRun {
    /// Writes the run, so that it need not stay in memory.
    fn write(&mut self, writer: &mut dyn ChunkWriter) -> Result<()> {
        if self.tree.is_held() {
            self.tree.write(writer)?;
            self.tree.release();
        }
        Ok(())
    }
}

/// The next rows of a run; the greatest of a heap is the one with the lowest key.
struct Head {
    rows: LeafRows,
    cursor: Cursor,
}

impl Head {
    fn key(&self) -> &[u8] {
        self.rows.leaf.key(self.rows.start)
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        // A head that is exhausted is being replaced, and must not be looked into.
        match (self.rows.is_empty(), other.rows.is_empty()) {
            (false, false) => other.key().cmp(self.key()),
            (this, other) => this.cmp(&other),
        }
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// Writes nodes of a tree under construction when many are held in memory.
pub(super) struct Spill {
    chunks: Option<Arc<dyn ChunkReader>>,
    pace: SpillPace,
}

impl Spill {
    pub fn new(chunks: Option<Arc<dyn ChunkReader>>) -> Self {
        Spill { chunks, pace: SpillPace::default() }
    }

    pub fn run(&mut self, write: impl FnOnce(&mut dyn ChunkWriter) -> Result<()>) -> Result<()> {
        let due = self.is_due();
        self.run_if(due, write)
    }

    fn is_due(&self) -> bool {
        self.chunks.as_ref().and_then(|chunks| chunks.cache()).is_some_and(|cache| self.pace.begin(cache))
    }

    fn run_if(&mut self, due: bool, write: impl FnOnce(&mut dyn ChunkWriter) -> Result<()>) -> Result<()> {
        let Some(chunks) = &self.chunks else { return Ok(()) };
        let (Some(cache), Some(mut writer)) = (chunks.cache(), chunks.writer()) else { return Ok(()) };
        if due {
            write(&mut *writer)?;
            self.pace.done(cache);
        }
        cache.make_room();
        Ok(())
    }
}

fn has_same_hash(a: &[u8], b: &[u8]) -> bool {
    a.get(..ROW_HASH_SIZE).is_some_and(|hash| b.starts_with(hash))
}

/// The key of a keyless row behind an equal one.
fn next_key(last: &[u8]) -> Result<Vec<u8>> {
    let (hash, ordinal) = last.split_at(ROW_HASH_SIZE);
    let ordinal = u32::from_be_bytes(ordinal.try_into().expect("BUG: an ordinal has four bytes"));
    let limit = || Error::Limit { what: "number of equal rows", limit: u64::from(u32::MAX) };
    Ok([hash, &ordinal.checked_add(1).ok_or_else(limit)?.to_be_bytes()].concat())
}

/// The mean size of rows in a leaf.
fn mean_size(batch: &[(Vec<u8>, Row)], fixed: usize) -> usize {
    let variable: usize = batch.iter().map(|(key, row)| variable_size(key, row)).sum();
    fixed + variable / batch.len().max(1)
}

fn variable_size(key: &[u8], row: &[Value]) -> usize {
    key.len() + row.iter().map(|value| if let Value::Bytes(bytes) = value { bytes.len() } else { 0 }).sum::<usize>()
}
