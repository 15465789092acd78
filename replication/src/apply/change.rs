//! One row message applied to an edit.
//!
//! | the source sends | the row is found by |
//! |---|---|
//! | key columns that include our primary key | that key, in one descent |
//! | key columns otherwise (USING INDEX; other keys here) | `find_row` on those columns: a unique index if there is one, else a scan |
//! | the whole old row (FULL), and we have a primary key | that key |
//! | the whole old row, keyless here | `find_row` on all sent columns: the row's hash |

use strandline_storage::root::TableData;
use strandline_storage::value::TextSettings;
use strandline_storage::{Edit, Error as StoreError, Value};

use super::relation::{Mapping, Refusal};
use crate::pgoutput::{Delete, Insert, OldTuple, Tuple, Update};

/// Why a change was not applied.
#[derive(Debug)]
pub(super) enum ChangeError {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for ChangeError {
    fn from(why: Refusal) -> Self {
        ChangeError::Refused(why)
    }
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        ChangeError::Store(error)
    }
}

/// What applying changes needs besides the edit; the buffer is reused from change to change.
#[derive(Debug, Default)]
pub(super) struct Changer {
    pub(super) settings: TextSettings,
    assignments: Vec<(u16, Value)>,
}

impl Changer {
    pub(super) fn insert(&mut self, edit: &mut Edit, mapping: &Mapping, insert: &Insert<'_>) -> Result<(), ChangeError> {
        check_width(mapping, insert.new)?;
        let mut row = mapping.new_row()?;
        if mapping.fill(&mut row, insert.new, &self.settings, None)? {
            return Err(ChangeError::Refused("an inserted row has a value marked as unchanged".into()));
        }
        mapping.check_not_null(&row)?;
        Ok(edit.insert(mapping.table, row)?)
    }

    pub(super) fn update(&mut self, edit: &mut Edit, mapping: &Mapping, update: &Update<'_>) -> Result<(), ChangeError> {
        check_width(mapping, update.new)?;
        if update.old.is_none() && mapping.key_is_identity {
            // The common case: the key is as it was, so only the other columns are looked at, and one descent finds the row.
            if let Some(values) = mapping.key_values(update.new, &self.settings)? {
                let key = table(edit, mapping)?.key_prefix(None, &values)?;
                mapping.assignments(&mut self.assignments, update.new, &self.settings, false)?;
                return match edit.update_columns(mapping.table, &key, &self.assignments)? {
                    true => Ok(()),
                    false => Err(missing("update")),
                };
            }
        }
        let data = table(edit, mapping)?;
        let key = self.locate(data, mapping, update.old, Some(update.new))?.ok_or_else(|| missing("update"))?;
        if mapping.has_sent_key()
            && let Some(values) = mapping.key_values(update.new, &self.settings)?
            && data.key_prefix(None, &values)? == key
        {
            // Equal keys may still differ in form (1.0 and 1.00), so the key's columns are assigned, too.
            mapping.assignments(&mut self.assignments, update.new, &self.settings, true)?;
            return match edit.update_columns(mapping.table, &key, &self.assignments)? {
                true => Ok(()),
                false => Err(missing("update")),
            };
        }
        let mut row = data.get(&key)?.ok_or_else(|| missing("update"))?;
        // Unchanged out-of-line values keep what the old row has.
        mapping.fill(&mut row, update.new, &self.settings, None)?;
        mapping.check_not_null(&row)?;
        edit.update(mapping.table, &key, row)?;
        Ok(())
    }

    pub(super) fn delete(&mut self, edit: &mut Edit, mapping: &Mapping, delete: &Delete<'_>) -> Result<(), ChangeError> {
        let key = self.locate(table(edit, mapping)?, mapping, Some(delete.old), None)?.ok_or_else(|| missing("delete"))?;
        match edit.delete(mapping.table, &key) {
            Ok(_) => Ok(()),
            Err(StoreError::RowMissing { .. }) => Err(missing("delete")),
            Err(error) => Err(error.into()),
        }
    }

    /// The key of the row that the old tuple (or, if none was sent, the new one) identifies.
    fn locate(
        &self,
        data: &TableData,
        mapping: &Mapping,
        old: Option<OldTuple<'_>>,
        new: Option<Tuple<'_>>,
    ) -> Result<Option<Vec<u8>>, ChangeError> {
        let Some(known) = old.map(|old| old.tuple()).or(new) else { return Ok(None) };
        check_width(mapping, known)?;
        let whole = matches!(old, Some(OldTuple::Full(_)));
        if mapping.has_sent_key() && (whole || mapping.key_is_identity) {
            return match mapping.key_values(known, &self.settings)? {
                Some(values) => Ok(Some(data.key_prefix(None, &values)?)),
                None => Err(ChangeError::Refused("the old row's key was not sent".into())),
            };
        }
        let columns = if whole { &mapping.sent_columns } else { &mapping.identity_columns };
        if columns.is_empty() {
            return Err(ChangeError::Refused(
                "the replica identity's columns are not in the table here; add them, or choose another REPLICA IDENTITY on the primary"
                    .into(),
            ));
        }
        let mut row = vec![Value::Null; mapping.schema.columns.len()];
        if mapping.fill(&mut row, known, &self.settings, Some(columns))? {
            return Err(ChangeError::Refused("a value of the replica identity was not sent".into()));
        }
        Ok(data.find_row(columns, &row)?)
    }
}

fn table<'a>(edit: &'a Edit, mapping: &Mapping) -> Result<&'a TableData, ChangeError> {
    match edit.root().table(mapping.table) {
        Some(data) => Ok(data),
        None => Err(ChangeError::Refused("the table does not exist".into())),
    }
}

fn missing(action: &str) -> ChangeError {
    ChangeError::Refused(format!("the row to {action} does not exist here; the replica differs from the primary"))
}

fn check_width(mapping: &Mapping, tuple: Tuple<'_>) -> Result<(), ChangeError> {
    if tuple.column_count() == mapping.targets.len() {
        return Ok(());
    }
    Err(ChangeError::Refused(format!("a row of {} columns for a relation of {}", tuple.column_count(), mapping.targets.len())))
}
