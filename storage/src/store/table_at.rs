//! A table at a commit, without its root value where single rows are asked for.
//!
//! Making the root value of an old commit costs a replay from the last checkpoint before it. A row needs less. Either the row as a
//! root value after the commit has it (mostly the head's, which is in memory), and the changes since, taken back; or the row as that
//! checkpoint has it, and the changes up to the commit. The row index tells the commits in question, and so which way is
//! shorter: a row that changed seldom is found from the head, however long ago the commit was.

use std::sync::{Arc, OnceLock};

use super::Store;
use super::history::{next_candidate, row_before};
use super::roots::Base;
use super::shared::Shared;
use crate::change_set::{RowChange, RowChangeKind, RowsChange};
use crate::commit::Commit;
use crate::commit_index::CommitNumber;
use crate::error::{Error, Result};
use crate::id::CommitId;
use crate::root::{Root, TableData};
use crate::row_index::{CATALOG, Candidates};
use crate::schema::{Catalog, Oid, TableSchema};
use crate::value::Row;

/// More commits than these are replayed at once rather than read one by one.
const STEP_COUNT_MAX: usize = 1000;
/// Reading a row in a tree that is not in memory costs as much as reading so many commits. Tests go both ways.
const COLD_STEP_COUNT: usize = if cfg!(test) { 1 } else { 20 };

/// A table at some moment, whose rows may be made only when they are asked for.
pub struct TableAt {
    rows: OnceLock<Arc<TableData>>,
    past: Option<Past>,
}

struct Past {
    shared: Arc<Shared>,
    commit: CommitId,
    number: CommitNumber,
    /// With the same definition, and the rows of one of the two moments below.
    near: Arc<TableData>,
    after: Option<Moment>,
    /// Found when it is first asked for, if there is one after; then `None` where the table was redefined in between.
    before: OnceLock<Option<Moment>>,
}

/// The table at another commit on the same first-parent line, with the same definition.
struct Moment {
    /// `None`: before the first one.
    commit: Option<CommitNumber>,
    table: Arc<TableData>,
    /// Its nodes are not in memory.
    is_cold: bool,
}

impl From<Arc<TableData>> for TableAt {
    fn from(rows: Arc<TableData>) -> Self {
        TableAt { rows: OnceLock::from(rows), past: None }
    }
}

impl std::fmt::Debug for TableAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableAt").field("table", &self.schema().name).field("commit", &self.past.as_ref().map(|p| p.commit)).finish()
    }
}

impl TableAt {
    pub fn schema(&self) -> &Arc<TableSchema> {
        self.definition().schema()
    }

    /// The table with the same definition, but perhaps with the rows of another moment.
    pub fn definition(&self) -> &Arc<TableData> {
        match (self.rows.get(), &self.past) {
            (Some(rows), _) => rows,
            (None, Some(past)) => &past.near,
            (None, None) => unreachable!("BUG: a table of the present has its rows"),
        }
    }

    /// All rows, if they have been made.
    pub fn known_rows(&self) -> Option<&Arc<TableData>> {
        self.rows.get()
    }

    /// All rows and indexes: made of the table's own changes where the nearest known moment has the same definition, otherwise with the
    /// commit's whole root value.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn rows(&self) -> Result<&Arc<TableData>> {
        if let (None, Some(past)) = (self.rows.get(), &self.past) {
            let schema = past.near.schema();
            let rows = match past.shared.table_rows(past.number, schema)? {
                Some(rows) => rows,
                None => {
                    let root = past.shared.root(past.commit)?;
                    Arc::clone(root.table(schema.oid).ok_or_else(|| past.misfit(past.commit))?)
                }
            };
            let _ = self.rows.set(rows);
        }
        Ok(self.definition())
    }

    /// A row by its key.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Row>> {
        match (self.rows.get(), &self.past) {
            (None, Some(past)) => match past.get(key)? {
                Some(row) => Ok(row),
                None => self.rows()?.get(key),
            },
            _ => self.definition().get(key),
        }
    }
}

impl Past {
    /// The row; the outer `None`: it changed so often that the whole table is found sooner.
    fn get(&self, key: &[u8]) -> Result<Option<Option<Row>>> {
        let oid = self.near.schema().oid;
        let candidates = self.shared.row_index.find(oid, &mut std::iter::once(key));
        let steps_after = match self.after.as_ref().and_then(|after| Some((after, after.commit?))) {
            Some((after, from)) => steps(&self.shared, &candidates, from, Some(self.number))?.map(|steps| (after, steps)),
            None => None,
        };
        if let Some((after, steps)) = &steps_after
            && steps.len() <= COLD_STEP_COUNT
        {
            return self.take_back(after, steps, key).map(Some);
        }
        let steps_before = match self.before()? {
            Some(before) => steps(&self.shared, &candidates, self.number, before.commit)?.map(|steps| (before, steps)),
            None => None,
        };
        let cost = |way: &(&Moment, Vec<CommitNumber>)| way.1.len() + if way.0.is_cold { COLD_STEP_COUNT } else { 0 };
        match (steps_after, steps_before) {
            (Some(after), before) if before.as_ref().is_none_or(|before| cost(&after) <= cost(before)) => {
                self.take_back(after.0, &after.1, key).map(Some)
            }
            (_, Some((before, steps))) => self.repeat(before, &steps, key),
            (_, None) => Ok(None),
        }
    }

    /// The row before these commits, newest first, which lead to `after`.
    fn take_back(&self, after: &Moment, steps: &[CommitNumber], key: &[u8]) -> Result<Option<Row>> {
        let mut row = after.table.get(key)?;
        for number in steps {
            let commit = self.shared.commit_numbered(*number)?;
            let changes = self.changes_of(&commit)?.ok_or_else(|| self.misfit(commit.id))?;
            for change in changes.iter().rev().filter(|change| *change.key == *key) {
                row = row_before(row, change).ok_or_else(|| self.misfit(commit.id))?;
            }
        }
        Ok(row)
    }

    /// The row after these commits, newest first, which follow `before`; the outer `None`: a commit changed the table as a whole.
    fn repeat(&self, before: &Moment, steps: &[CommitNumber], key: &[u8]) -> Result<Option<Option<Row>>> {
        let mut row = before.table.get(key)?;
        for number in steps.iter().rev() {
            let commit = self.shared.commit_numbered(*number)?;
            let Some(changes) = self.changes_of(&commit)? else { return Ok(None) };
            for change in changes.iter().filter(|change| *change.key == *key) {
                row = row_after(row, change).ok_or_else(|| self.misfit(commit.id))?;
            }
        }
        Ok(Some(row))
    }

    /// A commit's changes of the table's rows; `None` where it changed the table as a whole.
    fn changes_of<'a>(&self, commit: &'a Commit) -> Result<Option<&'a [RowChange]>> {
        let oid = self.near.schema().oid;
        Ok(match commit.changes()?.tables.iter().find(|change| change.table == oid).map(|change| &change.rows) {
            None => Some(&[]),
            Some(RowsChange::Rows(rows)) => Some(rows),
            Some(_) => None,
        })
    }

    fn before(&self) -> Result<Option<&Moment>> {
        if self.before.get().is_none() {
            let oid = self.near.schema().oid;
            let found = self.shared.moment_before(self.number, &|_| Some(oid))?;
            let found = found.filter(|moment| moment.table.schema() == self.near.schema());
            let _ = self.before.set(found);
        }
        Ok(self.before.get().and_then(Option::as_ref))
    }

    fn misfit(&self, commit: CommitId) -> Error {
        let what = format!("does not fit table \"{}\" as commits before have it", self.near.schema().name);
        Error::Damaged { place: format!("commit {commit:.12}"), what }
    }
}

/// The nearest root value before a commit.
struct Before {
    /// `None`: before the first commit.
    base: Option<CommitNumber>,
    root: Root,
    /// Its nodes are not in memory.
    is_cold: bool,
}

/// The row after a change of it; `None` when they do not fit.
fn row_after(before: Option<Row>, change: &RowChange) -> Option<Option<Row>> {
    match (&change.kind, before) {
        (RowChangeKind::Inserted { new }, None) => Some(Some(new.clone())),
        (RowChangeKind::Deleted { .. }, Some(_)) => Some(None),
        (RowChangeKind::Updated { columns }, Some(mut row)) => {
            for (column, _, new) in columns {
                *row.get_mut(usize::from(*column))? = new.clone();
            }
            Some(Some(row))
        }
        _ => None,
    }
}

/// The candidates on the first-parent line from a commit down to another (exclusive), newest first; `None`: too many.
fn steps(shared: &Shared, candidates: &Candidates, from: CommitNumber, base: Option<CommitNumber>) -> Result<Option<Vec<CommitNumber>>> {
    let index = shared.index.read();
    let mut steps = Vec::new();
    let mut at = Some(from);
    let is_below = |number: CommitNumber| base.is_some_and(|base| number <= base);
    while let Some(start) = at
        && candidates.not_after(start).is_some_and(|bound| !is_below(bound))
        && let Some(number) = next_candidate(&index, candidates, start)?
    {
        if is_below(number) {
            break;
        }
        if steps.len() == STEP_COUNT_MAX {
            return Ok(None);
        }
        steps.push(number);
        at = index.first_parent(number)?;
    }
    Ok(Some(steps))
}

impl Shared {
    /// The nearest moment after a commit at which the table that `find` names in the commit's catalog is in memory; `None` where
    /// there is none, or where the catalog or the whole table changed in between.
    fn moment_after(&self, number: CommitNumber, find: &dyn Fn(&Catalog) -> Option<Oid>) -> Result<Option<Moment>> {
        let Some((after, root)) = self.nearest_known_after(number)? else { return Ok(None) };
        if self.is_between(&self.row_index.find(CATALOG, &mut std::iter::empty()), number, after)? {
            return Ok(None);
        }
        let Some(oid) = find(root.catalog()) else { return Ok(None) };
        let Some(table) = root.table(oid) else { return Ok(None) };
        if self.is_between(&self.row_index.find(oid, &mut std::iter::empty()), number, after)? {
            return Ok(None);
        }
        Ok(Some(Moment { commit: Some(after), table: Arc::clone(table), is_cold: false }))
    }

    /// The nearest root value before a commit that is known or written; `None` where that is the commit's own.
    fn known_before(&self, number: CommitNumber) -> Result<Option<Before>> {
        Ok(Some(match self.nearest_before(number)? {
            Some((base, _)) if base == number => return Ok(None),
            Some((base, Base::Known(root))) => Before { base: Some(base), root, is_cold: false },
            Some((base, Base::Written(address, chunks))) => {
                let root = Root::open(&address, chunks)?;
                self.put_cached_root(base, root.clone());
                Before { base: Some(base), root, is_cold: true }
            }
            Some((_, Base::Empty)) | None => Before { base: None, root: Root::new(Catalog::default()), is_cold: false },
        }))
    }

    /// The catalog at a commit, from that of a root value before it; `None`: it changed too often.
    fn catalog_after(&self, base: Option<CommitNumber>, root: &Root, number: CommitNumber) -> Result<Option<Arc<Catalog>>> {
        let mut catalog = Arc::clone(root.catalog());
        let redefined = self.row_index.find(CATALOG, &mut std::iter::empty());
        let Some(redefined) = steps(self, &redefined, number, base)? else { return Ok(None) };
        for number in redefined.into_iter().rev() {
            let commit = self.commit_numbered(number)?;
            let objects = &mut Arc::make_mut(&mut catalog).objects;
            for change in &commit.changes()?.catalog {
                match &change.object {
                    Some(object) => objects.insert(change.oid, Arc::clone(object)),
                    None => objects.remove(&change.oid),
                };
            }
        }
        Ok(Some(catalog))
    }

    /// The catalog at a commit, without its root value where that is not known.
    fn catalog(&self, number: CommitNumber, id: CommitId) -> Result<Arc<Catalog>> {
        if let Some((after, root)) = self.nearest_known_after(number)?
            && (after == number || !self.is_between(&self.row_index.find(CATALOG, &mut std::iter::empty()), number, after)?)
        {
            return Ok(Arc::clone(root.catalog()));
        }
        if let Some(before) = self.known_before(number)?
            && let Some(catalog) = self.catalog_after(before.base, &before.root, number)?
        {
            return Ok(catalog);
        }
        Ok(Arc::clone(self.root(id)?.catalog()))
    }

    /// Whether a candidate lies on the first-parent line after a commit and not after a later one.
    fn is_between(&self, candidates: &Candidates, number: CommitNumber, after: CommitNumber) -> Result<bool> {
        if candidates.not_after(after).is_none_or(|found| found <= number) {
            return Ok(false);
        }
        let index = self.index.read();
        Ok(next_candidate(&index, candidates, after)?.is_some_and(|found| found > number))
    }

    /// The last moment before a commit (or it itself) at which the table that `find` names in the commit's catalog is known, with the
    /// same definition. `None` where the commit itself is known, or as dear to know, and where `find` names nothing.
    fn moment_before(self: &Arc<Self>, number: CommitNumber, find: &dyn Fn(&Catalog) -> Option<Oid>) -> Result<Option<Moment>> {
        let Some(Before { base, root: base_root, is_cold }) = self.known_before(number)? else { return Ok(None) };
        let Some(catalog) = self.catalog_after(base, &base_root, number)? else { return Ok(None) };
        let Some(oid) = find(&catalog) else { return Ok(None) };
        let replaced = self.row_index.find(oid, &mut std::iter::empty());
        let Some(replaced) = steps(self, &replaced, number, base)? else { return Ok(None) };
        // Made, replaced or redefined in between: from there on, whose root value serves everything after it.
        let (base, base_root, is_cold) = match replaced.first() {
            Some(last) if *last == number => return Ok(None),
            Some(last) => (Some(*last), self.root(self.commit_numbered(*last)?.id)?, false),
            None => (base, base_root, is_cold),
        };
        Ok(base_root.table(oid).map(|table| Moment { commit: base, table: Arc::clone(table), is_cold }))
    }
}

impl Store {
    /// The catalog of a commit. Costs the changes of catalogs between it and the nearest known root value, not the rows.
    /// # Errors
    /// `NotFound`, `Damaged`, `Io`.
    pub fn catalog_at(&self, commit: CommitId) -> Result<Arc<Catalog>> {
        self.shared.catalog(self.shared.number_of(commit)?, commit)
    }

    /// The table that `find` names in the catalog of a commit. `None` where the commit's root value is known already or no
    /// dearer, and where `find` names nothing.
    /// # Errors
    /// `NotFound`, `Damaged`, `Io`.
    pub fn table_at(&self, commit: CommitId, find: &dyn Fn(&Catalog) -> Option<Oid>) -> Result<Option<TableAt>> {
        let shared = &self.shared;
        let number = shared.number_of(commit)?;
        let (near, after, before) = match shared.moment_after(number, find)? {
            Some(after) if after.commit == Some(number) => return Ok(None),
            Some(after) => (Arc::clone(&after.table), Some(after), OnceLock::new()),
            None => match shared.moment_before(number, find)? {
                Some(before) => (Arc::clone(&before.table), None, OnceLock::from(Some(before))),
                None => return Ok(None),
            },
        };
        let past = Past { shared: Arc::clone(shared), commit, number, near, after, before };
        Ok(Some(TableAt { rows: OnceLock::new(), past: Some(past) }))
    }
}
