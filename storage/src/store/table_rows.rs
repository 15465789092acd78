//! All rows of one table at a commit, made of the table's own changes.
//!
//! The rows are made from the nearest moment at which they are known: a root value in memory, a table that was made like this before, or
//! a checkpoint, before the commit or after it. Of the commits in between only those that touch the table are read, and of them only what they did to
//! it: other tables' changes are passed over, not decoded. What remains is applied in the order of the keys (`net_changes`).
//! Several threads read the commits, and several share the leaves that change (`read_commits`, `tree/update_sorted`).

use std::sync::Arc;

use super::making::{Making, Way};
use super::read_commits::Step;
use super::roots::WRITTEN_ROW_COUNT_MIN;
use super::shared::Shared;
use crate::chunk::ChunkReader;
use crate::commit::Commit;
use crate::commit_index::CommitNumber;
use crate::error::Result;
use crate::id::ChunkAddress;
use crate::root::{Root, TableData};
use crate::schema::{Catalog, CatalogObject, Oid, TableSchema};

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
                steps.push(Step::of(&index, at)?);
            }
            let Some(parent) = index.first_parent(at)? else { break };
            at = parent;
        }
        steps.reverse();
        Ok(steps)
    }

    /// Repeats what commits did to a table, or takes it back; `None` where one of them changed the table as a whole.
    fn make_table(&self, table: Arc<TableData>, mut steps: Vec<Step>, backwards: bool) -> Result<Option<Arc<TableData>>> {
        if steps.is_empty() {
            return Ok(Some(table));
        }
        let oid = table.schema().oid;
        let mut catalog = Catalog::default();
        catalog.objects.insert(oid, Arc::new(CatalogObject::Table(table.schema().clone())));
        let mut making = Making::new(self, Root::of_table(catalog, oid, table, self.chunks()));
        if backwards {
            steps.reverse();
        }
        let is_made = making.go(&steps, Way { backwards, table: Some(oid) })?;
        Ok(if is_made { making.finish()?.0.table(oid).cloned() } else { None })
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
