//! The history of a table's rows: every change of every row, newest first.
//!
//! The walk begins with the rows of the head and takes back one commit after the other, remembering only the rows that
//! changed: a row that no later commit has touched is as the head has it. Commits that do not touch the table are passed
//! over without being read; when few rows are asked for, so are those in which the row index does not find them. Where a commit changed the table as a whole (made, dropped, rewritten or replaced it), the
//! two root values are compared instead, and the walk goes on from the older one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::Store;
use super::shared::Shared;
use crate::change_set::{RowChange, RowChangeKind, RowsChange};
use crate::commit::Commit;
use crate::commit_index::{CommitIndex, CommitNumber};
use crate::diff::{RowDiff, diff_rows, diff_tables};
use crate::error::{Error, Result};
use crate::id::CommitId;
use crate::root::TableData;
use crate::row_index::Candidates;
use crate::schema::{Oid, TableSchema};
use crate::value::Row;

/// For more keys than this, reading all commits that touch the table is not slower than asking the row index.
const INDEXED_KEY_COUNT_MAX: usize = 1000;

/// One changed row of one commit, as [`Store::table_history`] gives it. Rows are in the schema given beside them.
#[derive(Clone, Debug)]
pub struct RowVersion {
    pub commit: Arc<Commit>,
    pub key: Vec<u8>,
    pub from: Option<(Arc<TableSchema>, Row)>,
    pub to: Option<(Arc<TableSchema>, Row)>,
}

impl Store {
    /// Every change of a table's rows over the history of `head` along first parents, newest first: one item per changed
    /// row per commit, in key order within a commit. With `keys`, which are those of the table as `head` has it, only those
    /// rows, and of older commits, in which the table's key was another one, all.
    /// # Errors
    /// `NotFound`.
    pub fn table_history(
        &self,
        head: CommitId,
        table: Oid,
        keys: Option<Vec<Vec<u8>>>,
    ) -> Result<Box<dyn Iterator<Item = Result<RowVersion>> + Send>> {
        let number = self.shared.number_of(head)?;
        let root = self.shared.root(head)?;
        let rows = root.table(table).cloned();
        let schema = rows.as_ref().map(|t| t.schema().clone());
        let keys = keys.map(|mut keys| {
            keys.sort_unstable();
            keys.dedup();
            keys
        });
        let candidates = match &keys {
            Some(keys) if keys.len() <= INDEXED_KEY_COUNT_MAX => {
                self.shared.row_index.find(table, &mut keys.iter().map(|key| key.as_slice()))
            }
            _ => Candidates::all(),
        };
        Ok(Box::new(History {
            shared: self.shared.clone(),
            table,
            keys,
            candidates,
            at: Some(number),
            rows,
            schema,
            changed: HashMap::new(),
            found: VecDeque::new(),
        }))
    }
}

impl Store {
    /// Says whether a commit changed a table's definition, made it or dropped it.
    /// # Errors
    /// `NotFound`, `Damaged`.
    pub fn redefines(&self, commit: &Commit, table: Oid) -> Result<bool> {
        let number = self.shared.number_of(commit.id)?;
        let touched = self.shared.index.read().entry(number)?.touched;
        Ok(Commit::may_touch(touched, table) && commit.changes()?.catalog.iter().any(|change| change.oid == table))
    }
}

struct History {
    shared: Arc<Shared>,
    table: Oid,
    /// Ascending.
    keys: Option<Vec<Vec<u8>>>,
    /// The commits that may have changed these rows, or the table as a whole.
    candidates: Candidates,
    /// The next commit to look at.
    at: Option<CommitNumber>,
    /// The table at that commit: these rows...
    rows: Option<Arc<TableData>>,
    schema: Option<Arc<TableSchema>>,
    /// ... with these instead.
    changed: HashMap<Box<[u8]>, Option<Row>>,
    found: VecDeque<RowVersion>,
}

impl Iterator for History {
    type Item = Result<RowVersion>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(version) = self.found.pop_front() {
                return Some(Ok(version));
            }
            let (number, parent, mask) = match self.next_commit() {
                Ok(Some(next)) => next,
                other => {
                    self.at = None;
                    return other.err().map(Err);
                }
            };
            self.at = parent;
            if !Commit::may_touch(mask, self.table) {
                continue;
            }
            if let Err(error) = self.take_back(number, parent) {
                self.at = None;
                return Some(Err(error));
            }
        }
    }
}

impl History {
    /// The next commit to look at, its first parent, and the tables that it may touch.
    fn next_commit(&self) -> Result<Option<(CommitNumber, Option<CommitNumber>, u32)>> {
        let index = self.shared.index.read();
        let Some(at) = self.at else { return Ok(None) };
        let Some(number) = next_candidate(&index, &self.candidates, at)? else { return Ok(None) };
        Ok(Some((number, index.first_parent(number)?, index.entry(number)?.touched)))
    }

    fn is_wanted(&self, key: &[u8]) -> bool {
        self.keys.as_ref().is_none_or(|keys| keys.binary_search_by(|k| k.as_slice().cmp(key)).is_ok())
    }

    fn take_back(&mut self, number: CommitNumber, parent: Option<CommitNumber>) -> Result<()> {
        let commit = self.shared.commit_numbered(number)?;
        let changes = commit.changes()?;
        let defined = changes.catalog.iter().any(|c| c.oid == self.table);
        let rows = changes.tables.iter().find(|t| t.table == self.table).map(|t| &t.rows);
        match rows {
            None if !defined => Ok(()),
            Some(RowsChange::Rows(rows)) if !defined => self.take_back_rows(&commit, rows),
            _ => self.take_back_table(&commit, parent),
        }
    }

    fn take_back_rows(&mut self, commit: &Arc<Commit>, rows: &[RowChange]) -> Result<()> {
        let mut by_key: BTreeMap<&[u8], Vec<&RowChange>> = BTreeMap::new();
        for row in rows.iter().filter(|r| self.is_wanted(&r.key)) {
            by_key.entry(&row.key).or_default().push(row);
        }
        let schema = self.schema.clone();
        for (key, changes) in by_key {
            let to = match self.changed.get(key) {
                Some(row) => row.clone(),
                None => self.rows.as_ref().map(|t| t.get(key)).transpose()?.flatten(),
            };
            let mut from = to.clone();
            for change in changes.iter().rev() {
                from = row_before(from, change).ok_or_else(|| Error::Damaged {
                    place: format!("commit {:.12}", commit.id),
                    what: "a row change does not fit the row as later commits have it".into(),
                })?;
            }
            self.changed.insert(key.into(), from.clone());
            if from != to {
                let with_schema = |row: Option<Row>| row.and_then(|r| Some((schema.clone()?, r)));
                self.found.push_back(RowVersion {
                    commit: commit.clone(),
                    key: key.to_vec(),
                    from: with_schema(from),
                    to: with_schema(to),
                });
            }
        }
        Ok(())
    }

    /// Compares the table before and after a commit that changed it as a whole, and goes on from before.
    fn take_back_table(&mut self, commit: &Arc<Commit>, parent: Option<CommitNumber>) -> Result<()> {
        let after = self.shared.root(commit.id)?.table(self.table).cloned();
        let before = match parent {
            None => None,
            Some(parent) => {
                let id = self.shared.index.read().entry(parent)?.id;
                self.shared.root(id)?.table(self.table).cloned()
            }
        };
        if let (Some(before), Some(after)) = (&before, &after)
            && !before.schema().same_key(after.schema())
        {
            // The rows have other keys from here on; which of them are wanted is not for us to say.
            self.keys = None;
        }
        let schema_of = |t: &Option<Arc<TableData>>| t.as_ref().map(|t| t.schema().clone());
        let (from_schema, to_schema) = (schema_of(&before), schema_of(&after));
        let differences: Box<dyn Iterator<Item = Result<RowDiff>>> = match &self.keys {
            Some(keys) => Box::new(diff_rows(before.as_deref(), after.as_deref(), keys)?.into_iter().map(Ok)),
            None => diff_tables(before.as_deref(), after.as_deref()),
        };
        for difference in differences {
            let difference = difference?;
            self.found.push_back(RowVersion {
                commit: commit.clone(),
                from: difference.from.and_then(|row| Some((from_schema.clone()?, row))),
                to: difference.to.and_then(|row| Some((to_schema.clone()?, row))),
                key: difference.key,
            });
        }
        self.rows = before;
        self.schema = from_schema;
        self.changed.clear();
        Ok(())
    }
}

/// The first candidate on the first-parent line from `at` on.
pub(super) fn next_candidate(index: &CommitIndex, candidates: &Candidates, mut at: CommitNumber) -> Result<Option<CommitNumber>> {
    while let Some(bound) = candidates.not_after(at)
        && let Some(found) = index.line_not_after(at, bound)?
    {
        at = found;
        if candidates.contains(at) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// The row before a change that left it as `after`; `None` when they do not fit.
pub(super) fn row_before(after: Option<Row>, change: &RowChange) -> Option<Option<Row>> {
    match (&change.kind, after) {
        (RowChangeKind::Inserted { .. }, Some(_)) => Some(None),
        (RowChangeKind::Deleted { old }, None) => Some(Some(old.clone())),
        (RowChangeKind::Updated { columns }, Some(mut row)) => {
            for (column, old, _) in columns {
                *row.get_mut(usize::from(*column))? = old.clone();
            }
            Some(Some(row))
        }
        _ => None,
    }
}
