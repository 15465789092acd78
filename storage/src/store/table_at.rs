//! A table at a commit, without its root value where single rows are asked for.
//!
//! Making the root value of an old commit costs a replay from the last checkpoint before it. A row needs less: the row as
//! that checkpoint has it, and the changes of the commits in between in which the row index finds it.

use std::sync::{Arc, OnceLock};

use super::Store;
use super::history::next_candidate;
use super::roots::Base;
use super::shared::Shared;
use crate::change_set::{RowChange, RowChangeKind, RowsChange};
use crate::commit_index::CommitNumber;
use crate::error::{Error, Result};
use crate::id::CommitId;
use crate::root::{Root, TableData};
use crate::row_index::{CATALOG, Candidates};
use crate::schema::{Catalog, Oid, TableSchema};
use crate::value::Row;

/// More commits than these are replayed at once rather than read one by one.
const STEP_COUNT_MAX: usize = 1000;

/// A table at some moment, whose rows may be made only when they are asked for.
pub struct TableAt {
    rows: OnceLock<Arc<TableData>>,
    past: Option<Past>,
}

struct Past {
    shared: Arc<Shared>,
    commit: CommitId,
    number: CommitNumber,
    /// A commit before, on the first-parent line, and the table as it was then, with the same definition.
    base: Option<CommitNumber>,
    near: Arc<TableData>,
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

    /// All rows and indexes. Makes the commit's root value where that has not been done.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn rows(&self) -> Result<&Arc<TableData>> {
        if let (None, Some(past)) = (self.rows.get(), &self.past) {
            let root = past.shared.root(past.commit)?;
            let table = root.table(past.near.schema().oid).ok_or_else(|| past.misfit(past.commit))?;
            let _ = self.rows.set(Arc::clone(table));
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
        let Some(steps) = steps(&self.shared, &candidates, self.number, self.base)? else { return Ok(None) };
        let mut row = self.near.get(key)?;
        for number in steps.into_iter().rev() {
            let commit = self.shared.commit_numbered(number)?;
            for change in commit.changes()?.tables.iter().filter(|change| change.table == oid) {
                let RowsChange::Rows(rows) = &change.rows else { return Ok(None) };
                for change in rows.iter().filter(|change| *change.key == *key) {
                    row = row_after(row, change).ok_or_else(|| self.misfit(commit.id))?;
                }
            }
        }
        Ok(Some(row))
    }

    fn misfit(&self, commit: CommitId) -> Error {
        let what = format!("does not fit table \"{}\" as commits before have it", self.near.schema().name);
        Error::Damaged { place: format!("commit {commit:.12}"), what }
    }
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
    while let Some(start) = at
        && let Some(number) = next_candidate(&index, candidates, start)?
    {
        if base.is_some_and(|base| number <= base) {
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

impl Store {
    /// The table that `find` names in the catalog of a commit. `None` where the commit's root value is known already or no
    /// dearer, and where `find` names nothing.
    /// # Errors
    /// `NotFound`, `Damaged`, `Io`.
    pub fn table_at(&self, commit: CommitId, find: &dyn Fn(&Catalog) -> Option<Oid>) -> Result<Option<TableAt>> {
        let shared = &self.shared;
        let number = shared.number_of(commit)?;
        let (base, base_root) = match shared.nearest_before(number)? {
            Some((base, _)) if base == number => return Ok(None),
            Some((base, Base::Known(root))) => (Some(base), root),
            Some((base, Base::Written(address))) => {
                let root = Root::open(&address, shared.chunks.clone())?;
                shared.put_cached_root(base, root.clone());
                (Some(base), root)
            }
            Some((_, Base::Empty)) | None => (None, Root::new(Catalog::default())),
        };
        let mut catalog = Arc::clone(base_root.catalog());
        let redefined = shared.row_index.find(CATALOG, &mut std::iter::empty());
        let Some(redefined) = steps(shared, &redefined, number, base)? else { return Ok(None) };
        for number in redefined.into_iter().rev() {
            let commit = shared.commit_numbered(number)?;
            let objects = &mut Arc::make_mut(&mut catalog).objects;
            for change in &commit.changes()?.catalog {
                match &change.object {
                    Some(object) => objects.insert(change.oid, Arc::clone(object)),
                    None => objects.remove(&change.oid),
                };
            }
        }
        let Some(oid) = find(&catalog) else { return Ok(None) };
        let replaced = shared.row_index.find(oid, &mut std::iter::empty());
        let Some(replaced) = steps(shared, &replaced, number, base)? else { return Ok(None) };
        // Made, replaced or redefined in between: from there on, whose root value serves everything after it.
        let (base, base_root) = match replaced.first() {
            Some(last) if *last == number => return Ok(None),
            Some(last) => (Some(*last), shared.root(shared.commit_numbered(*last)?.id)?),
            None => (base, base_root),
        };
        let Some(near) = base_root.table(oid) else { return Ok(None) };
        let past = Past { shared: Arc::clone(shared), commit, number, base, near: Arc::clone(near) };
        Ok(Some(TableAt { rows: OnceLock::new(), past: Some(past) }))
    }
}
