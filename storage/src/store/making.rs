//! A root value on its way to that of another commit: the changes in between, gathered, and applied together in the order of the keys.

use std::sync::Arc;

use super::read_commits::{ReadCommit, Step};
use super::shared::Shared;
use crate::change_set::{ChangeSet, RowsChange, TableChange};
use crate::commit::Commit;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::helpers::for_each;
use crate::id::CommitId;
use crate::net_changes::NetChanges;
use crate::root::Root;
use crate::schema::{Catalog, Oid};
use crate::tree::SpillPace;

/// So many row changes are applied together: enough that a leaf is found for several of them at once.
const GATHERED_ROW_COUNT_MAX: usize = 200_000;
/// Commits that are read before what they did is gathered: bounds the memory of decoded changes.
const READ_COMMIT_COUNT: usize = 1 << 16;
/// Fewer changes than these are not worth another thread. Tests see both.
const SHARED_ROW_COUNT_MIN: u64 = if cfg!(test) { 10 } else { 2000 };

/// Which way commits are gone through, and what of them counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// They are taken back, newest first.
    pub backwards: bool,
    /// Of one table alone.
    pub table: Option<Oid>,
}

/// What some neighbouring commits did.
struct Piece {
    last: CommitId,
    /// Changes, before they became fewer together.
    row_count: u64,
    changes: ChangeSet,
}

/// A root value on its way to that of another commit.
pub(super) struct Making<'a> {
    shared: &'a Shared,
    root: Root,
    row_count: u64,
    gathered: NetChanges,
    /// The last commit gathered.
    last: Option<CommitId>,
    pace: SpillPace,
}

impl<'a> Making<'a> {
    pub fn new(shared: &'a Shared, root: Root) -> Self {
        Making { shared, root, row_count: 0, gathered: NetChanges::default(), last: None, pace: SpillPace::default() }
    }

    /// Goes along commits, given in the order in which they count. False when one of them cannot be taken back, or changed the
    /// table that is asked for as a whole; then there is nothing to finish.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn go(&mut self, steps: &[Step], way: Way) -> Result<bool> {
        for stretch in steps.chunks(READ_COMMIT_COUNT) {
            let parts = self.shared.read_in_parts(stretch, Option::is_none, |steps| self.shared.read_pieces(steps, way))?;
            for part in parts {
                let Some(pieces) = part else { return Ok(false) };
                for piece in pieces {
                    self.add(piece)?;
                }
            }
        }
        Ok(true)
    }

    fn add(&mut self, piece: Piece) -> Result<()> {
        self.row_count += piece.row_count;
        match self.gathered.add(piece.changes) {
            None => {
                self.last = Some(piece.last);
                if self.gathered.count() >= GATHERED_ROW_COUNT_MAX {
                    self.apply_gathered()?;
                }
                Ok(())
            }
            Some(changes) => {
                self.apply_gathered()?;
                self.apply(piece.last, changes)
            }
        }
    }

    fn apply_gathered(&mut self) -> Result<()> {
        let Some(last) = self.last.take() else { return Ok(()) };
        let changes = self.gathered.take().map_err(|e| e.at(format!("commits up to {last:.12}")))?;
        self.apply(last, changes)
    }

    /// Applies changes, and writes nodes out when they take too much memory.
    fn apply(&mut self, commit: CommitId, changes: ChangeSet) -> Result<()> {
        let row_count = changes.row_count();
        let permit = (row_count >= SHARED_ROW_COUNT_MIN).then(|| self.shared.helpers.take());
        let thread_count = permit.as_ref().map_or(1, |permit| permit.thread_count());
        let applied = if thread_count > 1 && is_of_several_tables(&changes) {
            self.apply_apart(changes, thread_count)
        } else {
            let root = std::mem::replace(&mut self.root, Root::new(Catalog::default()));
            let mut edit = Edit::unrecorded(root).with_threads(thread_count);
            let applied = edit.apply_changes(&changes, &self.shared.chunks());
            self.root = edit.root_and_changes().0;
            applied
        };
        drop(permit);
        applied.map_err(|e| not_replayable(commit, e))?;
        if self.pace.begin(&self.shared.cache) {
            self.root.spill(&mut &*self.shared.journal)?;
            self.pace.done(&self.shared.cache);
        }
        Ok(())
    }

    /// Applies row changes, each table's by one thread.
    fn apply_apart(&mut self, changes: ChangeSet, thread_count: usize) -> Result<()> {
        let chunks = self.shared.chunks();
        let mut tables = changes.tables;
        // The longest work first.
        tables.sort_by_key(|table| std::cmp::Reverse(row_count(table)));
        let mut tasks = Vec::with_capacity(tables.len());
        for change in tables {
            let oid = change.table;
            let table = Arc::make_mut(&mut self.root.tables).remove(&oid);
            let table = table.ok_or_else(|| Error::NotFound { what: "table", name: oid.to_string() })?;
            tasks.push((oid, Root::of_table_in(&self.root, oid, table), ChangeSet { catalog: Vec::new(), tables: vec![change] }));
        }
        let apply = |(oid, root, changes): (Oid, Root, ChangeSet)| {
            let mut edit = Edit::unrecorded(root);
            edit.apply_changes(&changes, &chunks)?;
            Ok((oid, edit.root_and_changes().0))
        };
        for applied in for_each(tasks, thread_count, Result::is_err, apply).into_iter().flatten() {
            let (oid, mut root) = applied?;
            let table = Arc::make_mut(&mut root.tables).remove(&oid);
            Arc::make_mut(&mut self.root.tables).extend(table.map(|table| (oid, table)));
        }
        Ok(())
    }

    /// The root value, and how many changes it took.
    pub fn finish(mut self) -> Result<(Root, u64)> {
        self.apply_gathered()?;
        Ok((self.root, self.row_count))
    }
}

impl Shared {
    /// What commits did, those of rows alone together; `None` as [`Making::go`] gives false.
    fn read_pieces(&self, steps: &[Step], way: Way) -> Result<Option<Vec<Piece>>> {
        let mut pieces = Vec::new();
        let (mut net, mut row_count) = (NetChanges::default(), 0);
        let mut last = CommitId([0; 32]);
        let close = |net: &mut NetChanges, row_count: &mut u64, last: CommitId| -> Result<Option<Piece>> {
            if net.count() == 0 {
                return Ok(None);
            }
            let changes = net.take().map_err(|e| e.at(format!("commits up to {last:.12}")))?;
            Ok(Some(Piece { last, row_count: std::mem::take(row_count), changes }))
        };
        let is_whole = self.read_each(steps, |commit| {
            let Some(changes) = self.changes_on(&commit, way)? else { return Ok(false) };
            let count = changes.row_count();
            match net.add(changes) {
                None => row_count += count,
                Some(changes) => {
                    pieces.extend(close(&mut net, &mut row_count, last)?);
                    pieces.push(Piece { last: commit.id, row_count: count, changes });
                }
            }
            last = commit.id;
            Ok(true)
        })?;
        pieces.extend(close(&mut net, &mut row_count, last)?);
        Ok(is_whole.then_some(pieces))
    }

    fn changes_on(&self, commit: &ReadCommit<'_>, way: Way) -> Result<Option<ChangeSet>> {
        let changes = match way.table {
            Some(table) => match Commit::table_changes(commit.bytes, table, &self.chunks())? {
                Some(rows) => ChangeSet { catalog: Vec::new(), tables: vec![TableChange { table, rows: RowsChange::Rows(rows) }] },
                None => return Ok(None),
            },
            None => self.decode_commit(commit)?.take_changes()?,
        };
        Ok(if way.backwards { changes.inverted() } else { Some(changes) })
    }
}

fn row_count(change: &TableChange) -> usize {
    if let RowsChange::Rows(rows) = &change.rows { rows.len() } else { 1 }
}

/// Whether several tables' rows change, so many of each that a thread for each is better than all for one after the other.
fn is_of_several_tables(changes: &ChangeSet) -> bool {
    let mut counts: Vec<usize> = changes.tables.iter().map(row_count).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let rows_alone = changes.catalog.is_empty() && changes.tables.iter().all(|table| matches!(table.rows, RowsChange::Rows(_)));
    rows_alone && counts.len() > 1 && counts[1] >= counts[0] / 4
}

fn not_replayable(commit: CommitId, error: Error) -> Error {
    match error {
        Error::Conflict { .. } | Error::DuplicateKey { .. } | Error::RowMissing { .. } => {
            Error::Damaged { place: format!("commit {commit:.12}"), what: format!("does not apply to its parent's root value: {error}") }
        }
        other => other,
    }
}
