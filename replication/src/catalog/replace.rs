//! A table here that becomes, with its next copy, what the primary's is: for one that could not follow.
//!
//! It stays the same table, with its oid, and columns that it had keep their numbers, so that what asks for its history finds it whole. What was added to it here by
//! hand (columns, indexes, constraints) goes; older commits have it. Foreign keys of other tables to it stay as far as their columns are there still.

use std::sync::Arc;

use strandline_storage::schema::{CatalogObject, ConstraintKind, Oid, TableSchema};
use strandline_storage::{Catalog, DataType, Edit};

use super::create::describe_table;
use super::describe::RemoteTable;
use super::maker::Maker;
use super::types::RemoteTypes;
use crate::error::{Error, Result};

/// What a table is to become.
#[derive(Debug)]
pub(crate) struct Replacement {
    /// Without foreign keys.
    schema: TableSchema,
    /// Sequences that its columns need.
    sequences: Vec<CatalogObject>,
}

/// Finds out what a table is to become, and makes it so in an edit that is never committed. The types that it needs are here already.
pub(crate) fn plan_replacement(
    maker: Maker<'_>,
    beside: &mut Edit,
    table: Oid,
    remote: &RemoteTable,
    types: &RemoteTypes,
    published: &[String],
) -> Result<Replacement> {
    let before = beside.root().catalog().table(table).cloned();
    let known = Arc::clone(beside.root().catalog());
    let schema = describe_table(maker, beside, table, remote, types, Some(published), before.as_deref())?;
    let made = beside.root().catalog().objects.values().filter(|object| known.get(object.oid()).is_none());
    let sequences = made.filter(|object| matches!(&***object, CatalogObject::Sequence(_))).map(|object| (**object).clone()).collect();
    let replacement = Replacement { schema, sequences };
    replacement.put(beside, remote)?;
    Ok(replacement)
}

impl Replacement {
    /// Makes the table what it is to be, without rows.
    /// # Errors
    /// `Setup` where what it needs has been dropped since.
    pub(crate) fn put(&self, edit: &mut Edit, remote: &RemoteTable) -> Result<()> {
        let table = self.schema.oid;
        let catalog = Arc::clone(edit.root().catalog());
        let gone =
            |what: String| Error::Setup(format!("could not copy table \"{}\": {what} was dropped meanwhile", remote.qualified_name()));
        let before = catalog.table(table).ok_or_else(|| gone("the table".into()))?;
        if catalog.get(self.schema.schema_oid).is_none() {
            return Err(gone(format!("schema \"{}\"", remote.schema)));
        }
        if catalog.relation(&remote.schema, &remote.name).is_some_and(|object| object.oid() != table) {
            let what = "the object of this name here is another one";
            return Err(Error::Setup(format!("could not copy table \"{}\": {what}", remote.qualified_name())));
        }
        if let Some(column) = self.schema.columns.iter().find(|column| !is_known(&catalog, &column.data_type)) {
            return Err(gone(format!("type \"{}\"", column.data_type.name)));
        }
        edit.truncate(table)?;
        edit.rewrite_table(self.schema.clone(), &mut Ok)?;
        for object in catalog.objects.values() {
            let CatalogObject::Sequence(sequence) = &**object else { continue };
            let is_needed = |sequence_name: &str| remote.sequences.iter().any(|needed| needed.name == sequence_name);
            if sequence.owned_by.is_some_and(|(owner, _)| owner == table) && !is_needed(&sequence.name) {
                edit.drop_object(sequence.oid)?;
            }
        }
        for object in &self.sequences {
            let CatalogObject::Sequence(sequence) = object else { continue };
            let schema = catalog.schema_name(sequence.schema_oid).ok_or_else(|| gone("a schema".into()))?;
            if catalog.relation(schema, &sequence.name).is_none() {
                edit.put_object(object.clone())?;
            }
        }
        for other in catalog.tables().filter(|other| other.oid != table) {
            if let Some(other) = with_moved_references(other, before, &self.schema) {
                edit.put_table(other)?;
            }
        }
        Ok(())
    }
}

/// Says whether the type is built in or here.
fn is_known(catalog: &Catalog, data_type: &DataType) -> bool {
    let oid = data_type.element.as_ref().map_or(data_type.oid, |element| element.oid);
    oid == 0 || DataType::builtin(oid, -1).is_some() || catalog.get(oid).is_some()
}

/// A table whose foreign keys to another one name the places that the columns have there now; nothing if it has none to that.
fn with_moved_references(table: &TableSchema, before: &TableSchema, after: &TableSchema) -> Option<TableSchema> {
    let mut changed = table.clone();
    changed.constraints.retain_mut(|constraint| match &mut constraint.kind {
        ConstraintKind::ForeignKey { table, columns } if *table == after.oid => {
            let place = |position: &usize| after.column_index(&before.columns.get(*position)?.name);
            let moved: Option<Vec<usize>> = columns.iter().map(place).collect();
            moved.map(|moved| *columns = moved).is_some()
        }
        _ => true,
    });
    (changed != *table).then_some(changed)
}
