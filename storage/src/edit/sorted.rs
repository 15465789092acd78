//! Row changes that are in the order of their keys, as net changes are: runs of updates go into a table's tree together.

use super::{Edit, table_mut};
use crate::change_set::{RowChange, RowChangeKind};
use crate::error::{Error, Result};
use crate::schema::Oid;
use crate::table::TableShape;
use crate::tree::RowUpdate;

/// Fewer updates in a row than these are made one by one. Tests see both.
const RUN_COUNT_MIN: usize = if cfg!(test) { 3 } else { 64 };
/// What a leaf is taken to be at most, to know how many may be copied before a look at the memory that they take; in bytes.
const LEAF_SIZE_GUESS: usize = 16 << 10;
/// The part of the memory for nodes that may be taken between two looks.
const LOOK_SHARE: usize = 32;
const LOOK_COUNT_MIN: usize = super::CHANGES_BETWEEN_LOOKS as usize;
const LOOK_COUNT_MAX: usize = 1 << 14;

impl Edit {
    /// Lets so many threads work on changes that come in the order of their keys.
    pub(crate) fn with_threads(self, thread_count: usize) -> Edit {
        Edit { thread_count, ..self }
    }

    /// Applies changes, in order, runs of updates as a whole. For edits that do not record.
    pub(super) fn apply_in_runs(&mut self, table: Oid, mut rows: &[RowChange]) -> Result<()> {
        while !rows.is_empty() {
            let data = table_mut(&mut self.root, table)?;
            let count = run_length(&data.shape, rows);
            let (run, rest) = rows.split_at(count.max(1));
            if count >= RUN_COUNT_MIN {
                self.apply_run(table, run)?
            } else {
                run.iter().try_for_each(|row| self.apply_row(table, row))?
            }
            rows = rest;
        }
        Ok(())
    }

    fn apply_run(&mut self, table: Oid, run: &[RowChange]) -> Result<()> {
        let limit = self.root.chunks.as_ref().and_then(|chunks| chunks.cache()).map_or(usize::MAX, |cache| cache.limit());
        let look = (limit / LOOK_SHARE / LEAF_SIZE_GUESS).clamp(LOOK_COUNT_MIN, LOOK_COUNT_MAX);
        for part in run.chunks(look) {
            self.spill_if_held()?;
            let updates: Vec<RowUpdate<'_>> = part.iter().filter_map(as_update).collect();
            let thread_count = self.thread_count;
            let data = table_mut(&mut self.root, table)?;
            if let Some(misfit) = data.rows.update_sorted(&updates, thread_count)? {
                let what = format!("row {} of table \"{}\"", data.shape.text_of_key(updates[misfit].key), data.shape.schema.name);
                return Err(Error::Conflict { what });
            }
        }
        Ok(())
    }
}

fn as_update(change: &RowChange) -> Option<RowUpdate<'_>> {
    match &change.kind {
        RowChangeKind::Updated { columns } => Some(RowUpdate { key: &change.key, columns }),
        _ => None,
    }
}

/// How many changes from the first on update, in the order of their keys, columns that no key depends on.
fn run_length(shape: &TableShape, rows: &[RowChange]) -> usize {
    let is_plain = |change: &RowChange| match &change.kind {
        // A column that does not exist is found to be wrong one by one.
        RowChangeKind::Updated { columns } => columns.iter().all(|(column, ..)| shape.in_keys.get(usize::from(*column)) == Some(&false)),
        _ => false,
    };
    let mut last: Option<&[u8]> = None;
    rows.iter().take_while(|change| is_plain(change) && last.replace(&change.key).is_none_or(|last| *last < *change.key)).count()
}
