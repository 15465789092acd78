//! Columns that are renamed or removed, and what of the table and of others names them.

use std::collections::HashSet;
use std::sync::Arc;

use strandline_storage::schema::{CatalogObject, ConstraintKind, Index, IndexKey, Schema, TableSchema};
use strandline_storage::value::Row;
use strandline_storage::{DataType, Edit, Oid};

use crate::error::Result;
use crate::expressions::Expressions;

/// Renames columns (from, to; all that the table has) in the expressions that the table holds.
/// # Errors
/// Why an expression cannot be changed.
pub(super) fn rename_in_expressions(
    table: &mut TableSchema,
    names: &[(String, String)],
    expressions: Option<&dyn Expressions>,
) -> std::result::Result<(), String> {
    let mut texts: Vec<&mut String> = table.columns.iter_mut().filter_map(|column| column.generated.as_mut()).collect();
    for index in &mut table.indexes {
        texts.extend(index.predicate.as_mut());
        texts.extend(index.columns.iter_mut().filter_map(|column| match &mut column.key {
            IndexKey::Expression(text) => Some(text),
            IndexKey::Column(_) => None,
        }));
    }
    for text in texts {
        rename(text, names, expressions)?;
    }
    for constraint in &mut table.constraints {
        if let ConstraintKind::Check { expression } = &mut constraint.kind {
            let before = expression.clone();
            rename(expression, names, expressions)?;
            if *expression != before {
                // As a CHECK that was made here is printed; the primary's own text differs in parentheses and casts at most.
                constraint.definition = format!("CHECK (({expression}))");
            }
        }
    }
    Ok(())
}

/// Several at once, since names may change places.
fn rename(text: &mut String, names: &[(String, String)], expressions: Option<&dyn Expressions>) -> std::result::Result<(), String> {
    let expressions = expressions.ok_or("expressions cannot be read here")?;
    let used: Vec<&(String, String)> = names.iter().filter(|(old, new)| old != new && expressions.names_column(text, old)).collect();
    // By way of names that nobody has.
    for (i, (old, _)) in used.iter().enumerate() {
        *text = expressions.rename_column(text, old, &format!("\u{1}{i}"))?;
    }
    for (i, (_, new)) in used.iter().enumerate() {
        *text = expressions.rename_column(text, &format!("\u{1}{i}"), new)?;
    }
    Ok(())
}

/// Removes a column with what needs it, as PostgreSQL's DROP COLUMN ... CASCADE: keys, indexes and constraints of the table, columns generated from it, foreign keys
/// of other tables. The inner error: why it cannot be.
pub(super) fn remove_column(
    edit: &mut Edit,
    table: Oid,
    at: usize,
    expressions: Option<&dyn Expressions>,
) -> Result<std::result::Result<(), String>> {
    let Some(schema) = edit.table_schema(table).cloned() else { return Ok(Ok(())) };
    let Some(column) = schema.columns.get(at) else { return Ok(Ok(())) };
    let names = |text: &str| expressions.is_some_and(|expressions| expressions.names_column(text, &column.name));
    let has_generated = schema.columns.iter().enumerate().any(|(i, c)| i != at && c.generated.is_some());
    if has_generated && expressions.is_none() {
        return Ok(Err("generated columns here may need it".into()));
    }
    let mut gone: Vec<usize> =
        schema.columns.iter().enumerate().filter(|(_, c)| c.generated.as_deref().is_some_and(names)).map(|(i, _)| i).collect();
    gone.push(at);
    gone.sort_unstable();
    gone.dedup();
    let mut changed = TableSchema::clone(&schema);
    for position in gone.iter().rev() {
        without_column(&mut changed, *position, &names);
    }
    for other in edit.root().catalog().tables().filter(|other| other.oid != table).cloned().collect::<Vec<_>>() {
        if let Some(other) = without_references(&other, table, &gone) {
            edit.put_table(other)?;
        }
    }
    // Its own references to itself.
    if let Some(own) = without_references(&changed, table, &gone) {
        changed = own;
    }
    edit.rewrite_table(changed, &mut |row: Row| {
        Ok(row.into_iter().enumerate().filter(|(position, _)| !gone.contains(position)).map(|(_, value)| value).collect())
    })?;
    Ok(Ok(()))
}

/// A table whose foreign keys to another one no longer need the columns that are gone there; nothing if it has none to that.
fn without_references(table: &TableSchema, target: Oid, gone: &[usize]) -> Option<TableSchema> {
    let refers = |kind: &ConstraintKind| matches!(kind, ConstraintKind::ForeignKey { table, .. } if *table == target);
    if !table.constraints.iter().any(|constraint| refers(&constraint.kind)) {
        return None;
    }
    let mut changed = table.clone();
    changed.constraints.retain_mut(|constraint| match &mut constraint.kind {
        ConstraintKind::ForeignKey { table, columns } if *table == target => {
            let is_whole = columns.iter().all(|column| !gone.contains(column));
            for column in columns.iter_mut() {
                *column -= gone.iter().filter(|position| **position < *column).count();
            }
            is_whole
        }
        _ => true,
    });
    Some(changed)
}

fn without_column(table: &mut TableSchema, at: usize, names: &dyn Fn(&str) -> bool) {
    table.columns.remove(at);
    let uses = |index: &Index| {
        let has = |key: &IndexKey| match key {
            IndexKey::Column(position) => *position == at,
            IndexKey::Expression(text) => names(text),
        };
        index.predicate.as_deref().is_some_and(names) || index.columns.iter().any(|c| has(&c.key)) || index.include.contains(&at)
    };
    table.indexes.retain(|index| !uses(index));
    if table.primary_key.as_ref().is_some_and(uses) {
        table.primary_key = None;
    }
    for index in table.primary_key.iter_mut().chain(&mut table.indexes) {
        for column in &mut index.columns {
            if let IndexKey::Column(position) = &mut column.key
                && *position > at
            {
                *position -= 1;
            }
        }
        for position in index.include.iter_mut().filter(|position| **position > at) {
            *position -= 1;
        }
    }
    table.constraints.retain(|constraint| !constraint.columns.contains(&at));
    for position in table.constraints.iter_mut().flat_map(|constraint| &mut constraint.columns).filter(|position| **position > at) {
        *position -= 1;
    }
}

/// Renames a schema with all that is in it, if nothing here has the new name.
pub(super) fn rename_schema(edit: &mut Edit, old: &str, new: &str) -> Result<()> {
    let catalog = Arc::clone(edit.root().catalog());
    let Some(schema) = catalog.schema(old).filter(|_| catalog.schema(new).is_none()) else { return Ok(()) };
    edit.put_object(CatalogObject::Schema(Schema { name: new.into(), ..schema.clone() }))?;
    tracing::info!(before = old, schema = new, "renamed a schema as on the primary");
    // Columns name their types with the schema.
    let types: HashSet<Oid> = catalog
        .objects
        .values()
        .filter_map(|object| match &**object {
            CatalogObject::Type(t) if t.schema_oid == schema.oid => Some([t.oid, t.array_oid]),
            _ => None,
        })
        .flatten()
        .collect();
    for table in catalog.tables() {
        let mut changed = TableSchema::clone(table);
        for column in &mut changed.columns {
            rename_type(&mut column.data_type, &types, new);
        }
        if changed != **table {
            edit.put_table(changed)?;
        }
    }
    Ok(())
}

fn rename_type(data_type: &mut DataType, types: &HashSet<Oid>, schema: &str) {
    if types.contains(&data_type.oid)
        && let Some((_, name)) = data_type.name.split_once('.')
    {
        data_type.name = format!("{schema}.{name}").into();
    }
    if let Some(element) = &mut data_type.element {
        rename_type(Arc::make_mut(element), types, schema);
    }
}

/// Drops a table with its sequences and with other tables' foreign keys to it.
pub(super) fn drop_table(edit: &mut Edit, table: Oid) -> Result<()> {
    for other in edit.root().catalog().tables().filter(|other| other.oid != table).cloned().collect::<Vec<_>>() {
        let refers = |kind: &ConstraintKind| matches!(kind, ConstraintKind::ForeignKey { table: target, .. } if *target == table);
        if other.constraints.iter().any(|constraint| refers(&constraint.kind)) {
            let mut changed = TableSchema::clone(&other);
            changed.constraints.retain(|constraint| !refers(&constraint.kind));
            edit.put_table(changed)?;
        }
    }
    let owned = edit.root().catalog().objects.values().filter_map(|object| match &**object {
        CatalogObject::Sequence(sequence) if sequence.owned_by.is_some_and(|(owner, _)| owner == table) => Some(sequence.oid),
        _ => None,
    });
    for oid in owned.collect::<Vec<_>>() {
        edit.drop_object(oid)?;
    }
    Ok(edit.drop_object(table)?)
}
