//! Unique keys of merged rows.
//!
//! Two sides that each keep a unique key may break it together. Rows are merged first and looked at afterwards, as values may have
//! changed places. Of rows that have the same values, those that are not as on our side go back to what they are there; that may bring back values
//! that other rows have taken meanwhile, which then go back, too. As our side keeps its unique keys, this ends with all of them kept.

use std::collections::HashSet;

use super::rows::{Merger, set_row};
use super::{OURS, Violation, ViolationKind};
use crate::error::Result;
use crate::table::{TableData, prefix_range};

/// Puts rows that share a unique key back to ours. Returns what they would have been, or why the table must stay ours.
pub(super) fn settle(
    merger: &Merger<'_>,
    data: &mut TableData,
    touched: Vec<Vec<u8>>,
) -> Result<std::result::Result<Vec<Violation>, String>> {
    let shape = merger.shape;
    let mut violations = Vec::new();
    let unique: Vec<usize> = (0..shape.indexes.len()).filter(|at| shape.indexes[*at].unique).collect();
    if unique.is_empty() {
        return Ok(Ok(violations));
    }
    let mut settled: HashSet<Vec<u8>> = HashSet::new();
    let mut queue = touched;
    while let Some(key) = queue.pop() {
        for &at in &unique {
            let sharing = sharing(data, at, &key)?;
            if sharing.len() < 2 {
                continue;
            }
            let mut moved = false;
            for (i, other) in sharing.iter().enumerate() {
                if !settled.insert(other.clone()) {
                    continue;
                }
                let ours = merger.sides[OURS].map(|ours| ours.get(other)).transpose()?.flatten();
                let ours = ours.map(|row| merger.project(OURS, &row)).transpose()?;
                let Some(row) = data.get(other)? else { continue };
                if set_row(data, other, ours)? {
                    moved = true;
                    let other_key = sharing[usize::from(i == 0)].clone();
                    let kind = ViolationKind::Unique { index: shape.indexes[at].oid, other_key };
                    violations.push(Violation { table: merger.oid, key: other.clone(), row, kind });
                    queue.push(other.clone());
                }
            }
            if !moved {
                let index = &shape.indexes[at].name;
                return Ok(Err(format!("unique index \"{index}\" does not hold for our rows with the merged columns")));
            }
            // What the row shares in the indexes before may have changed.
            queue.push(key.clone());
            break;
        }
    }
    violations.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Ok(violations))
}

/// The keys of the rows that share a row's values in a unique index, itself among them; none when NULLs exempt it.
fn sharing(data: &TableData, at: usize, key: &[u8]) -> Result<Vec<Vec<u8>>> {
    let index = &data.shape.indexes[at];
    let Some(row) = data.get(key)? else { return Ok(Vec::new()) };
    if !index.nulls_not_distinct && index.columns.iter().any(|c| row[c.position].is_null()) {
        return Ok(Vec::new());
    }
    let prefix = data.shape.index_prefix(index, &row);
    let mut cursor = data.indexes[at].scan(prefix_range(&prefix), false);
    let mut keys = Vec::new();
    while let Some((leaf, at)) = cursor.next_position()? {
        keys.push(leaf.key(at)[prefix.len()..].to_vec());
    }
    Ok(keys)
}
