//! Applying a change set made elsewhere: replay, AS OF, rebase.

use std::sync::Arc;

use super::{Edit, Unique, table_mut};
use crate::change_set::{ChangeSet, RowChange, RowChangeKind, RowsChange};
use crate::chunk::ChunkReader;
use crate::error::{Error, Result};
use crate::schema::{CatalogObject, Oid};
use crate::table::{TableData, TableShape};
use crate::tree::Tree;

impl Edit {
    /// Applies a change set (replay, AS OF, rebase), recording it as this edit's own. Indexes follow; those of replaced tables are rebuilt.
    /// On an error some of the changes may have been applied: go back to a mark, or drop the edit.
    /// # Errors
    /// `Conflict` when a row to insert exists, or a row to change or delete is missing or differs in the changed columns;
    /// `DuplicateKey` when a unique index does not hold.
    pub fn apply_changes(&mut self, changes: &ChangeSet, reader: &Arc<dyn ChunkReader>) -> Result<()> {
        let has_rows = |oid: Oid| changes.tables.iter().any(|change| change.table == oid && !matches!(change.rows, RowsChange::Dropped));
        for change in &changes.catalog {
            match &change.object {
                None => {
                    if self.root.catalog.get(change.oid).is_some() {
                        self.drop_object(change.oid)?;
                    }
                }
                Some(object) => match &**object {
                    CatalogObject::Table(schema) => {
                        let shape = TableShape::new(schema.clone())?;
                        let keeps_rows = self.root.table(change.oid).is_none_or(|old| old.shape.same_rows(&shape));
                        if !keeps_rows {
                            // The rows of the new shape come with the table's own change.
                            self.replace_table(change.oid, TableData::empty(shape, self.root.chunks.as_ref()))?;
                        }
                        if has_rows(change.oid) {
                            // The order of DDL and rows is not known: an index that comes or goes may not hold in between.
                            let mut interim = schema.as_ref().clone();
                            let old = self.root.table(change.oid).map(|old| old.schema().clone());
                            interim.indexes.retain(|index| old.as_ref().is_some_and(|old| old.indexes.contains(index)));
                            self.put_table(interim)?;
                        } else {
                            self.put_table(schema.as_ref().clone())?;
                        }
                    }
                    other => self.put_object(other.clone())?,
                },
            }
        }
        for change in &changes.tables {
            match &change.rows {
                RowsChange::Rows(rows) => self.apply_rows(change.table, rows)?,
                RowsChange::Replaced { rows } => {
                    let shape = table_mut(&mut self.root, change.table)?.shape.clone();
                    let rows = match rows {
                        Some(address) => Tree::open(*address, shape.layout.clone(), reader.clone())?,
                        None => Tree::new(shape.layout.clone(), Some(reader.clone())),
                    };
                    let data = TableData { shape, rows, indexes: Vec::new() }.with_built_indexes()?;
                    self.replace_table(change.table, data)?;
                }
                RowsChange::Dropped => {
                    if self.root.table(change.table).is_some() {
                        self.drop_object(change.table)?;
                    }
                }
            }
        }
        for change in &changes.catalog {
            if let Some(CatalogObject::Table(schema)) = change.object.as_deref()
                && self.table_schema(change.oid).is_some_and(|interim| interim != schema)
            {
                self.put_table(schema.as_ref().clone())?;
            }
        }
        Ok(())
    }

    /// Unique indexes are checked after the last row, as the order of rows may be another than when they were made (a diff's is
    /// that of keys). Replay trusts what was checked before it was recorded.
    fn apply_rows(&mut self, table: Oid, rows: &[RowChange]) -> Result<()> {
        if !self.recording {
            return self.apply_in_runs(table, rows);
        }
        rows.iter().try_for_each(|row| self.apply_row(table, row))?;
        let data = table_mut(&mut self.root, table)?;
        if !data.shape.indexes.iter().any(|index| index.unique) {
            return Ok(());
        }
        for change in rows {
            let touched = match &change.kind {
                RowChangeKind::Inserted { .. } => true,
                RowChangeKind::Updated { columns } => columns.iter().any(|(column, ..)| data.shape.in_keys[usize::from(*column)]),
                RowChangeKind::Deleted { .. } => false,
            };
            if touched && let Some(row) = data.get(&change.key)? {
                data.check_all_unique(&change.key, &row)?;
            }
        }
        Ok(())
    }

    pub(super) fn apply_row(&mut self, table: Oid, change: &RowChange) -> Result<()> {
        self.before_row_change(table)?;
        if matches!(change.kind, RowChangeKind::Deleted { .. }) {
            self.before_deletion(table);
        }
        let recording = self.recording;
        let data = table_mut(&mut self.root, table)?;
        let conflict = |data: &TableData| Error::Conflict {
            what: format!("row {} of table \"{}\"", data.shape.text_of_key(&change.key), data.shape.schema.name),
        };
        let keyless = data.shape.key.is_none();
        match &change.kind {
            RowChangeKind::Inserted { new } => {
                data.shape.layout.check_row(new)?;
                let key = if keyless { data.new_key(new)? } else { change.key.to_vec() };
                if data.rows.contains(&key)? {
                    return Err(conflict(data));
                }
                data.insert_row(&key, new, Unique::Later)?;
                if recording {
                    self.record(table, &key, RowChangeKind::Inserted { new: new.clone() });
                }
            }
            RowChangeKind::Deleted { old } => {
                let key = data.existing_key(&change.key).map_err(|_| conflict(data))?;
                match data.rows.find(&key)? {
                    Some((leaf, at)) if leaf.column_count() == old.len() && (0..old.len()).all(|c| leaf.value_is(at, c, &old[c])) => (),
                    _ => return Err(conflict(data)),
                }
                data.delete_row(&key)?;
                if recording {
                    self.record(table, &key, RowChangeKind::Deleted { old: old.clone() });
                }
            }
            RowChangeKind::Updated { columns } => {
                match data.rows.find(&change.key)? {
                    Some((leaf, at))
                        if columns
                            .iter()
                            .all(|(c, old, _)| usize::from(*c) < leaf.column_count() && leaf.value_is(at, usize::from(*c), old)) => {}
                    _ => return Err(conflict(data)),
                }
                let new: Vec<_> = columns.iter().map(|(column, _, new)| (*column, new.clone())).collect();
                data.update_row(&change.key, &new, &mut Vec::new(), Unique::Later)?;
                if recording {
                    self.record(table, &change.key, RowChangeKind::Updated { columns: columns.clone() });
                }
            }
        }
        Ok(())
    }
}
