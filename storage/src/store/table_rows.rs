//! All rows of one table at a commit, made of the table's own changes.
//!
//! The rows are made from the nearest moment at which they are known: a root value in memory, a table that was made like this before, or
//! a checkpoint, before the commit or after it. Of the commits in between only those that touch the table are read, and of them only what they did to
//! it: other tables' changes are passed over, not decoded. What remains is applied in the order of the keys (`net_changes`).
//! Commits are read by two threads, each one half of a stretch.

use std::sync::Arc;

use bytes::Bytes;

use super::roots::{Making, WRITTEN_ROW_COUNT_MIN};
use super::shared::Shared;
use crate::change_set::{ChangeSet, RowChange, RowsChange, TableChange};
use crate::chunk::ChunkReader;
use crate::commit::Commit;
use crate::commit_index::CommitNumber;
use crate::encoding::Malformed;
use crate::error::Result;
use crate::id::{ChunkAddress, CommitId};
use crate::record;
use crate::root::{Root, TableData};
use crate::schema::{Catalog, CatalogObject, Oid, TableSchema};

/// Commits that are read before their changes are gathered: bounds the memory of decoded changes.
const READ_COMMIT_COUNT: usize = 1 << 16;
/// Fewer commits than these are not worth a second thread. Tests see both.
const SHARED_COMMIT_COUNT_MIN: usize = if cfg!(test) { 4 } else { 1 << 12 };

/// A commit to be read.
struct Step {
    id: CommitId,
    sequence: u64,
}

/// A moment from which a table's rows can be made.
struct Base {
    /// Commits between it and the one asked for.
    distance: u64,
    /// It is later: changes are taken back.
    is_after: bool,
    number: CommitNumber,
    from: BaseTable,
}

enum BaseTable {
    Known(Arc<TableData>),
    /// In a root value at this address, which the door has pinned.
    Written(ChunkAddress, Arc<dyn ChunkReader>),
}

impl Shared {
    /// The table at a commit, at which it has this definition. `None` where it was redefined or replaced between the commit and
    /// the moments known, or where these are far.
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn table_rows(&self, number: CommitNumber, schema: &Arc<TableSchema>) -> Result<Option<Arc<TableData>>> {
        let mut bases = self.bases(number, schema)?;
        bases.sort_by_key(|base| base.distance);
        for base in bases {
            if base.distance >= WRITTEN_ROW_COUNT_MIN {
                break;
            }
            let table = match base.from {
                BaseTable::Known(table) => Some(table),
                BaseTable::Written(address, chunks) => Root::open(&address, chunks)?.table(schema.oid).cloned(),
            };
            let Some(table) = table.filter(|table| table.schema() == schema) else { continue };
            let (newer, older) = if base.is_after { (base.number, number) } else { (number, base.number) };
            let steps = self.steps_between(newer, older, schema.oid)?;
            if let Some(table) = self.make_table(table, steps, base.is_after)? {
                self.put_cached_table(number, table.clone());
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    fn bases(&self, number: CommitNumber, schema: &TableSchema) -> Result<Vec<Base>> {
        let mut known: Vec<(CommitNumber, Arc<TableData>)> = self.cached_tables.lock().clone();
        known.retain(|(_, table)| table.schema().oid == schema.oid);
        known.extend(self.known_roots().iter().filter_map(|(n, root)| Some((*n, root.table(schema.oid)?.clone()))));
        let index = self.index.read();
        let mut bases = Vec::new();
        let distance = |other: CommitNumber| match other > number {
            true => index.line_distance(other, number),
            false => index.line_distance(number, other),
        };
        for (base, table) in known {
            if let Some(distance) = distance(base)? {
                bases.push(Base { distance, is_after: base > number, number: base, from: BaseTable::Known(table) });
            }
        }
        let checkpoints = self.checkpoints.read();
        let written = |base: CommitNumber, address: ChunkAddress, distance| {
            // While the checkpoints that name it are locked.
            let chunks = self.chunks();
            chunks.pin(&address);
            Base { distance, is_after: base > number, number: base, from: BaseTable::Written(address, chunks) }
        };
        // The first on the line is the nearest, on either side.
        for (base, root) in checkpoints.roots.range(..=number).rev() {
            if let Some(distance) = distance(*base)? {
                bases.push(written(*base, root.address, distance));
                break;
            }
        }
        for (base, root) in checkpoints.roots.range(number + 1..) {
            if let Some(distance) = distance(*base)? {
                bases.push(written(*base, root.address, distance));
                break;
            }
        }
        Ok(bases)
    }

    /// The commits on the first-parent line from one down to another (exclusive) that may touch the table, oldest first.
    fn steps_between(&self, newer: CommitNumber, older: CommitNumber, table: Oid) -> Result<Vec<Step>> {
        let index = self.index.read();
        let (mut steps, mut at) = (Vec::new(), newer);
        while at != older {
            let entry = index.entry(at)?;
            if Commit::may_touch(entry.touched, table) {
                steps.push(Step { id: entry.id, sequence: entry.sequence });
            }
            let Some(parent) = index.first_parent(at)? else { break };
            at = parent;
        }
        steps.reverse();
        Ok(steps)
    }

    /// Repeats what commits did to a table, or takes it back; `None` where one of them changed the table as a whole.
    fn make_table(&self, table: Arc<TableData>, steps: Vec<Step>, backwards: bool) -> Result<Option<Arc<TableData>>> {
        if steps.is_empty() {
            return Ok(Some(table));
        }
        let oid = table.schema().oid;
        let mut catalog = Catalog::default();
        catalog.objects.insert(oid, Arc::new(CatalogObject::Table(table.schema().clone())));
        let mut making = Making::new(self, Root::of_table(catalog, oid, table, self.chunks()));
        let mut stretches: Vec<&[Step]> = steps.chunks(READ_COMMIT_COUNT).collect();
        if backwards {
            stretches.reverse();
        }
        for stretch in stretches {
            let Some(mut rows) = self.read_changes(stretch, oid)? else { return Ok(None) };
            if backwards {
                rows = rows.into_iter().rev().map(RowChange::inverted).collect();
            }
            let last = stretch.last().map_or(CommitId([0; 32]), |step| step.id);
            making.add(last, ChangeSet { catalog: Vec::new(), tables: vec![TableChange { table: oid, rows: RowsChange::Rows(rows) }] })?;
        }
        Ok(making.finish()?.0.table(oid).cloned())
    }

    /// What commits did to a table's rows, in their order.
    fn read_changes(&self, steps: &[Step], table: Oid) -> Result<Option<Vec<RowChange>>> {
        let read = |steps: &[Step]| -> Result<Option<Vec<RowChange>>> {
            let mut rows = Vec::with_capacity(steps.len());
            for step in steps {
                match self.changes_of_table(step, table)? {
                    Some(changes) => rows.extend(changes),
                    None => return Ok(None),
                }
            }
            Ok(Some(rows))
        };
        if steps.len() < SHARED_COMMIT_COUNT_MIN {
            return read(steps);
        }
        let (first, second) = steps.split_at(steps.len() / 2);
        std::thread::scope(|scope| {
            let other = std::thread::Builder::new().name("read commits".into()).spawn_scoped(scope, || read(second));
            let first = read(first);
            let second = match other {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => read(second),
            };
            let (Some(mut rows), Some(second)) = (first?, second?) else { return Ok(None) };
            rows.extend(second);
            Ok(Some(rows))
        })
    }

    fn changes_of_table(&self, step: &Step, table: Oid) -> Result<Option<Vec<RowChange>>> {
        let record = self.journal.read_record(step.sequence)?;
        let place = || self.journal.place_of(step.sequence);
        let bytes: Bytes =
            record::commit_bytes(&record).map_err(|e| e.at(place()))?.ok_or_else(|| Malformed("not a commit").at(place()))?;
        if CommitId::of(&bytes) != step.id {
            return Err(Malformed("commit does not hash to its id").at(place()));
        }
        Commit::table_changes(&bytes, table, &self.chunks())
    }

    fn put_cached_table(&self, number: CommitNumber, table: Arc<TableData>) {
        let mut cached = self.cached_tables.lock();
        if table.rows.reader().is_some_and(|chunks| self.is_forgotten(&**chunks)) {
            return;
        }
        cached.retain(|(n, other)| *n != number || other.schema().oid != table.schema().oid);
        // As with roots: inner nodes stay, so with little memory there are few.
        if self.cache.held() > self.cache.held_max() {
            cached.clear();
        }
        if cached.len() >= super::shared::CACHED_TABLE_COUNT {
            cached.remove(0);
        }
        cached.push((number, table));
    }
}
