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
use strandline_storage::{Edit, Error as StoreError, Lsn, Row, Timestamp, Value};

use super::relation::{Mapping, Refusal};
use crate::conflict::{CONFLICTS_KEPT_MAX, Conflict, ConflictKind, ConflictPolicies, Resolution, RowText, shorten};
use crate::pgoutput::{Delete, Insert, OldTuple, Tuple, Update};

/// Why a change was not applied.
#[derive(Debug)]
pub(super) enum ChangeError {
    /// The rows here are not the primary's, or the message is not what it must be.
    Refused(Refusal),
    /// The table here cannot hold the row, or find it: it is not what the primary's is.
    Unfit(Refusal),
    Store(StoreError),
}

/// Which change of the stream it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) xid: u32,
    pub(super) lsn: Lsn,
    /// When the transaction was committed on the primary: what `now()` gives.
    pub(super) time: Timestamp,
}

/// Conflicts of the transaction under way, which may yet be started over.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    pub(super) counts: [u64; ConflictKind::ALL.len()],
    /// The first of them.
    pub(super) kept: Vec<Conflict>,
}

impl From<Refusal> for ChangeError {
    fn from(why: Refusal) -> Self {
        ChangeError::Unfit(why)
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
    policies: ConflictPolicies,
    pub(super) conflicts: Conflicts,
    assignments: Vec<(u16, Value)>,
}

impl Changer {
    pub(super) fn new(policies: ConflictPolicies) -> Self {
        Changer { policies, ..Changer::default() }
    }

    pub(super) fn insert(&mut self, edit: &mut Edit, mapping: &Mapping, place: Place, insert: &Insert<'_>) -> Result<(), ChangeError> {
        let row = self.new_row(mapping, place, insert.new)?;
        match edit.insert(mapping.table, row) {
            Err(error @ StoreError::DuplicateKey { .. }) => self.insert_exists(edit, mapping, place, insert, error),
            other => Ok(other?),
        }
    }

    /// A whole row of ours from a tuple.
    fn new_row(&self, mapping: &Mapping, place: Place, tuple: Tuple<'_>) -> Result<Row, ChangeError> {
        check_width(mapping, tuple)?;
        let mut row = mapping.new_row()?;
        if mapping.fill(&mut row, tuple, &self.settings, None)? {
            return Err(ChangeError::Refused("an inserted row has a value marked as unchanged".into()));
        }
        mapping.complete(&mut row, place.time)?;
        mapping.check_not_null(&row)?;
        Ok(row)
    }

    fn insert_exists(
        &mut self,
        edit: &mut Edit,
        mapping: &Mapping,
        place: Place,
        insert: &Insert<'_>,
        error: StoreError,
    ) -> Result<(), ChangeError> {
        let data = table(edit, mapping)?;
        let values = if mapping.has_sent_key() { mapping.key_values(insert.new, &self.settings)? } else { None };
        let key = values.map(|values| data.key_prefix(None, &values)).transpose()?;
        let local = key.as_ref().map(|key| data.get(key)).transpose()?.flatten();
        // Where the primary key is free, it is a unique index that holds another row of ours, which is not for the primary to replace.
        let resolution = match (self.policies.insert_exists, &local) {
            (Resolution::Apply, None) => Resolution::Error,
            (resolution, _) => resolution,
        };
        self.note(mapping, place, ConflictKind::InsertExists, resolution, duplicate_key_text(&error), local.as_ref(), Some(insert.new));
        match (resolution, key) {
            (Resolution::Apply, Some(key)) => {
                let row = self.new_row(mapping, place, insert.new)?;
                edit.update(mapping.table, &key, row)?;
                Ok(())
            }
            (Resolution::Keep, _) => Ok(()),
            _ => Err(error.into()),
        }
    }

    pub(super) fn update(&mut self, edit: &mut Edit, mapping: &Mapping, place: Place, update: &Update<'_>) -> Result<(), ChangeError> {
        match self.try_update(edit, mapping, update) {
            Ok(true) => Ok(()),
            Ok(false) => self.update_missing(edit, mapping, place, update),
            Err(ChangeError::Store(error @ StoreError::DuplicateKey { .. })) => {
                let resolution = self.policies.update_exists;
                self.note(mapping, place, ConflictKind::UpdateExists, resolution, duplicate_key_text(&error), None, Some(update.new));
                if resolution == Resolution::Keep { Ok(()) } else { Err(error.into()) }
            }
            Err(error) => Err(error),
        }
    }

    fn update_missing(&mut self, edit: &mut Edit, mapping: &Mapping, place: Place, update: &Update<'_>) -> Result<(), ChangeError> {
        let resolution = self.policies.update_missing;
        let key = self.key_text(mapping, update.old.map_or(update.new, |old| old.tuple()));
        self.note(mapping, place, ConflictKind::UpdateMissing, resolution, key, None, Some(update.new));
        match resolution {
            Resolution::Apply => {
                let mut row = mapping.new_row()?;
                if mapping.fill(&mut row, update.new, &self.settings, None)? {
                    // Never NULL in its place: that would be a value that the primary does not have.
                    return Err(ChangeError::Refused(
                        "the row to update does not exist here, and the primary did not send all of it (unchanged TOAST values)".into(),
                    ));
                }
                mapping.complete(&mut row, place.time)?;
                mapping.check_not_null(&row)?;
                Ok(edit.insert(mapping.table, row)?)
            }
            Resolution::Skip | Resolution::Keep => Ok(()),
            Resolution::Error => Err(missing("update")),
        }
    }

    /// `false`: the row is not here.
    fn try_update(&mut self, edit: &mut Edit, mapping: &Mapping, update: &Update<'_>) -> Result<bool, ChangeError> {
        check_width(mapping, update.new)?;
        if update.old.is_none() && mapping.key_is_identity && !mapping.is_computed() {
            // The common case: the key is as it was, so only the other columns are looked at, and one descent finds the row.
            if let Some(values) = mapping.key_values(update.new, &self.settings)? {
                let key = table(edit, mapping)?.key_prefix(None, &values)?;
                mapping.assignments(&mut self.assignments, update.new, &self.settings, false)?;
                return Ok(edit.update_columns(mapping.table, &key, &self.assignments)?);
            }
        }
        let data = table(edit, mapping)?;
        let Some(key) = self.locate(data, mapping, update.old, Some(update.new))? else { return Ok(false) };
        if mapping.has_sent_key()
            && !mapping.is_computed()
            && let Some(values) = mapping.key_values(update.new, &self.settings)?
            && data.key_prefix(None, &values)? == key
        {
            // Equal keys may still differ in form (1.0 and 1.00), so the key's columns are assigned, too.
            mapping.assignments(&mut self.assignments, update.new, &self.settings, true)?;
            return Ok(edit.update_columns(mapping.table, &key, &self.assignments)?);
        }
        let Some(mut row) = data.get(&key)? else { return Ok(false) };
        // Unchanged out-of-line values keep what the old row has.
        mapping.fill(&mut row, update.new, &self.settings, None)?;
        mapping.compute(&mut row)?;
        mapping.check_not_null(&row)?;
        edit.update(mapping.table, &key, row)?;
        Ok(true)
    }

    pub(super) fn delete(&mut self, edit: &mut Edit, mapping: &Mapping, place: Place, delete: &Delete<'_>) -> Result<(), ChangeError> {
        let key = self.locate(table(edit, mapping)?, mapping, Some(delete.old), None)?;
        match key.map(|key| edit.delete(mapping.table, &key)) {
            Some(Ok(_)) => Ok(()),
            None | Some(Err(StoreError::RowMissing { .. })) => {
                let resolution = self.policies.delete_missing;
                let key = self.key_text(mapping, delete.old.tuple());
                self.note(mapping, place, ConflictKind::DeleteMissing, resolution, key, None, None);
                if resolution == Resolution::Error { Err(missing("delete")) } else { Ok(()) }
            }
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Counts a conflict, and keeps it if it is among the first of its transaction.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "each is one column of the table that shows it")]
    fn note(
        &mut self,
        mapping: &Mapping,
        place: Place,
        kind: ConflictKind,
        resolution: Resolution,
        key: String,
        local: Option<&Row>,
        remote: Option<Tuple<'_>>,
    ) {
        if let Some(count) = ConflictKind::ALL.iter().position(|k| *k == kind).and_then(|at| self.conflicts.counts.get_mut(at)) {
            *count += 1;
        }
        if self.conflicts.kept.len() >= CONFLICTS_KEPT_MAX {
            return;
        }
        self.conflicts.kept.push(Conflict {
            time: Timestamp::now(),
            kind,
            resolution,
            table: mapping.name.to_string(),
            xid: place.xid,
            lsn: place.lsn,
            key: shorten(key),
            local: local.map(|row| self.local_text(mapping, row)),
            remote: remote.map(|tuple| self.remote_text(mapping, tuple)),
        });
    }

    fn value_text(&self, mapping: &Mapping, position: usize, value: &Value) -> Option<String> {
        let column = mapping.schema.columns.get(position).filter(|_| !value.is_null())?;
        let mut text = Vec::new();
        column.data_type.format(value, &self.settings, &mut text);
        Some(shorten(String::from_utf8_lossy(&text).into_owned()))
    }

    fn local_text(&self, mapping: &Mapping, row: &Row) -> RowText {
        let columns = mapping.schema.columns.iter().zip(row).enumerate();
        columns.map(|(position, (column, value))| (column.name.clone(), self.value_text(mapping, position, value))).collect()
    }

    /// The sent columns; those of unchanged values are left out.
    fn remote_text(&self, mapping: &Mapping, tuple: Tuple<'_>) -> RowText {
        let mut text = RowText::new();
        let mut row = vec![Value::Null; mapping.schema.columns.len()];
        if self.fill_assignments(mapping, &mut row, tuple, &mut text).is_err() {
            text.clear();
        }
        text
    }

    fn fill_assignments(&self, mapping: &Mapping, row: &mut Row, tuple: Tuple<'_>, text: &mut RowText) -> Result<(), Refusal> {
        let unsent = mapping.fill(row, tuple, &self.settings, None)?;
        for position in &mapping.sent_columns {
            let Some(column) = mapping.schema.columns.get(*position) else { continue };
            let value = row.get(*position).and_then(|value| self.value_text(mapping, *position, value));
            // A value that was not sent looks like a NULL here; it is shown as neither.
            if value.is_some() || !unsent {
                text.push((column.name.clone(), value));
            }
        }
        Ok(())
    }

    /// `(a, b)=(1, 2)`, as PostgreSQL writes a key; empty where it was not sent.
    fn key_text(&self, mapping: &Mapping, tuple: Tuple<'_>) -> String {
        let mut columns = mapping.schema.key_columns();
        if columns.is_empty() {
            columns = if mapping.identity_columns.is_empty() { mapping.sent_columns.clone() } else { mapping.identity_columns.clone() };
        }
        let mut row = vec![Value::Null; mapping.schema.columns.len()];
        if mapping.fill(&mut row, tuple, &self.settings, Some(&columns)).is_err() {
            return String::new();
        }
        let names: Vec<&str> = columns.iter().filter_map(|c| mapping.schema.columns.get(*c)).map(|c| c.name.as_str()).collect();
        let values: Vec<String> = columns
            .iter()
            .map(|c| row.get(*c).and_then(|value| self.value_text(mapping, *c, value)).unwrap_or_else(|| "null".into()))
            .collect();
        format!("({})=({})", names.join(", "), values.join(", "))
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
            return Err(ChangeError::Unfit(
                "the replica identity's columns are not in the table here; add them, or choose another REPLICA IDENTITY on the primary"
                    .into(),
            ));
        }
        let mut row = vec![Value::Null; mapping.schema.columns.len()];
        if mapping.fill(&mut row, known, &self.settings, Some(columns))? {
            return Err(ChangeError::Refused("a value of the replica identity was not sent".into()));
        }
        if whole && mapping.is_computed() {
            // All columns are found by their hash, some of them only by looking at every row.
            mapping.compute(&mut row)?;
            return Ok(data.find_row(&mapping.whole_columns(), &row)?);
        }
        Ok(data.find_row(columns, &row)?)
    }
}

/// The key that a violation is about.
fn duplicate_key_text(error: &StoreError) -> String {
    match error {
        StoreError::DuplicateKey { key, .. } => key.clone(),
        _ => String::new(),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use strandline_storage::schema::{Catalog, CatalogObject, Column, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID};
    use strandline_storage::{DataType, Root, TableSchema};

    use super::super::{SourceColumn, SourceRelation};
    use super::*;
    use crate::pgoutput::{Message, ReplicaIdentity};

    const TABLE: u32 = 20_000;

    /// `t (id int4 PRIMARY KEY, body text)`, empty.
    fn table_of_texts() -> (Edit, Mapping) {
        let column = |attnum: i16, name: &str, oid: u32| Column {
            name: name.into(),
            attnum,
            data_type: DataType::builtin(oid, -1).unwrap(),
            not_null: attnum == 1,
            default: None,
            identity: None,
            generated: None,
            collation: None,
            comment: None,
        };
        let key = Index {
            oid: TABLE + 1,
            name: "t_pkey".into(),
            unique: true,
            nulls_not_distinct: false,
            columns: vec![IndexColumn { key: IndexKey::Column(0), descending: false, nulls_first: false }],
            include: Vec::new(),
            predicate: None,
            method: "btree".into(),
            constraint: true,
            comment: None,
        };
        let schema = Arc::new(TableSchema {
            oid: TABLE,
            schema_oid: PUBLIC_SCHEMA_OID,
            name: "t".into(),
            owner: "test".into(),
            columns: vec![column(1, "id", 23), column(2, "body", 25)],
            next_attnum: 3,
            primary_key: Some(key),
            indexes: Vec::new(),
            constraints: Vec::new(),
            merged_columns: Vec::new(),
            comment: None,
        });
        let source = |name: &str, type_oid, key| SourceColumn { key, name: name.into(), type_oid, typmod: -1 };
        let relation = SourceRelation {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            identity: ReplicaIdentity::Default,
            columns: vec![source("id", 23, true), source("body", 25, false)],
        };
        let mapping = Mapping::new(&relation, &schema, &TextSettings::default());
        let mut catalog = Catalog::default();
        catalog.objects.insert(TABLE, Arc::new(CatalogObject::Table(schema)));
        (Edit::new(Root::new(catalog)), mapping)
    }

    #[test]
    fn a_missing_row_that_is_not_sent_whole_is_an_error_and_never_null() {
        let (mut edit, mapping) = table_of_texts();
        let policies = ConflictPolicies { update_missing: Resolution::Apply, ..ConflictPolicies::default() };
        let mut changer = Changer::new(policies);
        let place = Place { xid: 7, lsn: Lsn(9), time: Timestamp(0) };
        let update = |id: &[u8], body: &[u8]| [b"U\0\0\0\x01N\0\x02t\0\0\0\x01", id, body].concat();
        let mut apply = |message: &[u8]| {
            let Ok(Message::Update(update)) = Message::decode(message) else { panic!("{message:?}") };
            changer.update(&mut edit, &mapping, place, &update)
        };
        let refused = apply(&update(b"1", b"u"));
        assert!(matches!(&refused, Err(ChangeError::Refused(why)) if why.contains("unchanged TOAST")), "{refused:?}");
        apply(&update(b"2", b"t\0\0\0\x02ab")).unwrap();
        // Once it is here, what is not sent stays.
        apply(&update(b"2", b"u")).unwrap();
        let data = edit.root().table(TABLE).unwrap();
        assert_eq!(data.len(), 1);
        let key = data.key_prefix(None, &[Value::Int4(2)]).unwrap();
        assert_eq!(data.get(&key).unwrap().unwrap(), [Value::Int4(2), Value::bytes("ab")]);
    }
}
