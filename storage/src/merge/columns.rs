//! Which column of one version of a table is which of another.

use super::{BASE, OURS, THEIRS};
use crate::schema::{Column, TableSchema};

/// The columns of three versions of a table: each column of any of them has one number here.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnMap {
    /// Per number: the position in base, ours and theirs.
    pub ids: Vec<[Option<usize>; 3]>,
    /// Per side: the number of each position.
    of: [Vec<usize>; 3],
    /// Per number: the position in the merged table. Set once that is known.
    pub merged: Vec<Option<usize>>,
}

impl ColumnMap {
    /// # Errors
    /// A column of the base cannot be told from another; the text says which.
    pub fn new(sides: [Option<&TableSchema>; 3]) -> Result<ColumnMap, String> {
        let count = |side: usize| sides[side].map_or(0, |schema| schema.columns.len());
        let mut map = ColumnMap { of: [0, 1, 2].map(|side| vec![usize::MAX; count(side)]), ..ColumnMap::default() };
        for position in 0..count(BASE) {
            map.add(BASE, position);
        }
        if let Some(base) = sides[BASE] {
            for side in [OURS, THEIRS] {
                let Some(schema) = sides[side] else { continue };
                for (id, column) in base.columns.iter().enumerate() {
                    if let Some(at) = counterpart(column, base, schema)? {
                        map.join(id, side, at);
                    }
                }
            }
        }
        for side in [OURS, THEIRS] {
            for position in 0..count(side) {
                if map.of[side][position] != usize::MAX {
                    continue;
                }
                let name = |side: usize, at: usize| sides[side].map(|schema| schema.columns[at].name.as_str());
                // Added on both sides: one column when the name is one.
                let twin = map.ids.iter().position(|[base, ours, theirs]| {
                    side == THEIRS && base.is_none() && theirs.is_none() && ours.is_some_and(|at| name(OURS, at) == name(THEIRS, position))
                });
                match twin {
                    Some(id) => map.join(id, side, position),
                    None => map.add(side, position),
                }
            }
        }
        Ok(map)
    }

    fn add(&mut self, side: usize, position: usize) {
        let mut positions = [None; 3];
        positions[side] = Some(position);
        self.of[side][position] = self.ids.len();
        self.ids.push(positions);
    }

    fn join(&mut self, id: usize, side: usize, position: usize) {
        self.ids[id][side] = Some(position);
        self.of[side][position] = id;
    }

    /// The number of a side's column.
    pub fn id(&self, side: usize, position: usize) -> Option<usize> {
        self.of[side].get(position).copied()
    }

    /// Says that the merged table has the columns of one side.
    pub fn merged_is(&mut self, side: usize) {
        self.merged = self.ids.iter().map(|positions| positions[side]).collect();
    }

    /// Whether each column of either side has the same position in both.
    pub fn same_positions(&self, side: usize, other: usize) -> bool {
        self.ids.iter().all(|positions| positions[side] == positions[other])
    }

    /// Whether each column of a side has the same position in the merged table, and no column is missing.
    pub fn merged_as(&self, side: usize) -> bool {
        self.ids.iter().zip(&self.merged).all(|(positions, merged)| positions[side] == *merged)
    }

    /// Where a side's column is in the merged table.
    pub fn to_merged(&self, side: usize, position: usize) -> Option<usize> {
        self.merged.get(self.id(side, position)?).copied().flatten()
    }
}

/// The position in a later version of a table of a column of an earlier one; `None`: dropped.
fn counterpart(column: &Column, earlier: &TableSchema, later: &TableSchema) -> Result<Option<usize>, String> {
    let at = |attnum: i16| later.columns.iter().position(|c| c.attnum == attnum);
    let same_number = at(column.attnum);
    if same_number.is_some_and(|at| later.columns[at].name == column.name) {
        return Ok(same_number);
    }
    // Since a merge the number may be another column's, and this one may have another.
    let moved: Vec<_> = later.merged_columns.iter().filter(|m| m.was == column.attnum && !earlier.merged_columns.contains(m)).collect();
    match moved.iter().find(|m| m.name == column.name) {
        Some(moved) => Ok(at(moved.attnum)),
        None if moved.is_empty() => Ok(same_number),
        None => Err(format!("which column \"{}\" has become cannot be told after an earlier merge", column.name)),
    }
}
