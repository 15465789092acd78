//! Differences of a table between commits that are near each other, from the change sets between them.
//!
//! A commit's change set says what differs from its parent, so the difference of neighbours need not be found in trees. What is
//! not in a change set, the columns of an updated row that did not change, is read from the table row by row ([`super::table_at`]).

use std::sync::Arc;

use super::Store;
use super::history::row_before;
use super::table_at::TableAt;
use crate::change_set::{ChangeSet, RowChangeKind, RowsChange, TableChange};
use crate::diff::RowDiff;
use crate::error::Result;
use crate::id::CommitId;
use crate::net_changes::NetChanges;
use crate::schema::{Oid, TableSchema};

/// Commits farther apart are compared by their trees.
const NEAR_COMMIT_COUNT_MAX: u64 = 100;
/// So are those between which more rows changed. Tests go both ways.
const NEAR_ROW_COUNT_MAX: usize = if cfg!(test) { 12 } else { 1000 };

/// What differs between two versions of a table that have the same definition.
#[derive(Clone, Debug)]
pub struct NearDiff {
    /// The definition at both ends.
    pub schema: Arc<TableSchema>,
    /// In the order of the keys, as [`crate::diff::diff_tables`] gives them.
    pub rows: Vec<RowDiff>,
}

impl Store {
    /// The difference of a table between two commits, one of which follows the other on its first-parent line. `None` where the commits are
    /// far apart, where the table was redefined or replaced in between, or is in neither: then their trees tell. Costs what changed in between,
    /// however many commits there are.
    /// # Errors
    /// `NotFound`, `Damaged`, `Io`.
    pub fn near_diff(&self, from: CommitId, to: CommitId, table: Oid) -> Result<Option<NearDiff>> {
        let shared = &self.shared;
        let (first, last) = (shared.number_of(from)?, shared.number_of(to)?);
        let (older, newer) = (first.min(last), first.max(last));
        let steps = {
            let index = shared.index.read();
            let Some(distance) = index.line_distance(newer, older)?.filter(|distance| *distance <= NEAR_COMMIT_COUNT_MAX) else {
                return Ok(None);
            };
            let (mut steps, mut at) = (Vec::with_capacity(distance as usize), newer);
            while at != older {
                if crate::commit::Commit::may_touch(index.entry(at)?.touched, table) {
                    steps.push(at);
                }
                let Some(parent) = index.first_parent(at)? else { return Ok(None) };
                at = parent;
            }
            steps
        };
        let mut net = NetChanges::default();
        for number in steps.into_iter().rev() {
            let commit = shared.commit_numbered(number)?;
            let changes = commit.changes()?;
            if changes.catalog.iter().any(|change| change.oid == table) {
                return Ok(None);
            }
            for change in changes.tables.iter().filter(|change| change.table == table) {
                let RowsChange::Rows(rows) = &change.rows else { return Ok(None) };
                if net.count() + rows.len() > NEAR_ROW_COUNT_MAX {
                    return Ok(None);
                }
                let rows = RowsChange::Rows(rows.clone());
                net.add(ChangeSet { catalog: Vec::new(), tables: vec![TableChange { table, rows }] });
            }
        }
        let newer_id = if last == newer { to } else { from };
        let after = match self.table_at(newer_id, &|_| Some(table))? {
            Some(after) => after,
            None => match self.root(newer_id)?.table(table) {
                Some(after) => TableAt::from(Arc::clone(after)),
                None => return Ok(None),
            },
        };
        let net = net.take().map_err(|e| e.at(format!("commits up to {newer_id:.12}")))?;
        let mut rows: Vec<RowDiff> = Vec::new();
        for change in
            net.tables.into_iter().filter_map(|change| if let RowsChange::Rows(rows) = change.rows { Some(rows) } else { None }).flatten()
        {
            let key = change.key.to_vec();
            match change.kind {
                RowChangeKind::Deleted { old } => rows.push(RowDiff { key, from: Some(old), to: None }),
                // A row that went and came again has both changes.
                RowChangeKind::Inserted { new } => match rows.last_mut().filter(|row| row.key == key && row.to.is_none()) {
                    Some(row) => row.to = Some(new),
                    None => rows.push(RowDiff { key, from: None, to: Some(new) }),
                },
                RowChangeKind::Updated { .. } => {
                    let Some(row) = after.get(&key)? else { return Ok(None) };
                    let Some(Some(before)) = row_before(Some(row.clone()), &change) else { return Ok(None) };
                    rows.push(RowDiff { key, from: Some(before), to: Some(row) });
                }
            }
        }
        if newer == first {
            rows.iter_mut().for_each(|row| std::mem::swap(&mut row.from, &mut row.to));
        }
        Ok(Some(NearDiff { schema: Arc::clone(after.schema()), rows }))
    }
}
