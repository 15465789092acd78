//! What a rebase looks for beyond the rows and objects that both sides changed: rules over several objects that each side
//! kept by itself and that do not hold for both together.
//!
//! - Two relations, types or schemas of one name.
//! - An object in a schema, or a foreign key on a table, that the other side dropped.
//! - A row that refers to a row which the other side deleted. Instead of looking every key up, one side's new references
//!   count as broken when the other side took keys away from the table they are for: rare, and then better refused.

use std::sync::Arc;

use crate::change_set::{ChangeSet, RowChangeKind, RowsChange};
use crate::diff::diff_tables;
use crate::error::{Error, Result};
use crate::root::{Root, TableData};
use crate::schema::{Catalog, CatalogObject, ConstraintKind, Oid, TableSchema};

/// Names that exclude each other within a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Relations,
    Types,
    Schemas,
}

/// The names that an object takes.
fn names(object: &CatalogObject) -> Vec<(Namespace, Option<Oid>, &str)> {
    let schema = object.schema_oid();
    let own = match object {
        CatalogObject::Schema(_) => Namespace::Schemas,
        CatalogObject::Type(_) => Namespace::Types,
        CatalogObject::Table(_) | CatalogObject::Sequence(_) | CatalogObject::View(_) => Namespace::Relations,
    };
    let mut names = vec![(own, schema, object.name())];
    if let CatalogObject::Table(table) = object {
        names.extend(table.primary_key.iter().chain(&table.indexes).map(|i| (Namespace::Relations, schema, i.name.as_str())));
    }
    names
}

/// Another object of the catalog that has one of this object's names.
pub(super) fn namesake<'a>(catalog: &'a Catalog, object: &CatalogObject) -> Option<&'a Arc<CatalogObject>> {
    let wanted = names(object);
    catalog.objects.values().find(|other| other.oid() != object.oid() && names(other).iter().any(|name| wanted.contains(name)))
}

/// Refuses `rebased`, which `changes` made of `current`, where the two together break a rule. `base` is what `changes`
/// were made on.
/// # Errors
/// `Conflict`.
pub(super) fn check(base: &Root, current: &Root, changes: &ChangeSet, rebased: &Root) -> Result<()> {
    if !changes.catalog.is_empty() {
        check_catalog(changes, rebased.catalog())?;
    }
    check_references(base, current, changes, rebased)
}

fn conflict(name: &str) -> Error {
    Error::Conflict { what: format!("\"{name}\"") }
}

fn check_catalog(changes: &ChangeSet, catalog: &Catalog) -> Result<()> {
    for change in &changes.catalog {
        if let Some(object) = &change.object
            && namesake(catalog, object).is_some()
        {
            return Err(conflict(object.name()));
        }
    }
    for object in catalog.objects.values() {
        if object.schema_oid().is_some_and(|schema| catalog.get(schema).is_none()) {
            return Err(conflict(object.name()));
        }
        if let CatalogObject::Table(table) = &**object
            && references(table).any(|(_, target, _)| catalog.get(target).is_none())
        {
            return Err(conflict(&table.name));
        }
    }
    Ok(())
}

/// A table's foreign keys: (referring columns, referenced table, referenced columns).
fn references(table: &TableSchema) -> impl Iterator<Item = (&[usize], Oid, &[usize])> {
    table.constraints.iter().filter_map(|constraint| match &constraint.kind {
        ConstraintKind::ForeignKey { table, columns } => Some((constraint.columns.as_slice(), *table, columns.as_slice())),
        ConstraintKind::Check { .. } => None,
    })
}

/// What happened to the values in some columns of a table.
#[derive(Clone, Copy, Debug, Default)]
struct Moves {
    added: bool,
    removed: bool,
}

fn check_references(base: &Root, current: &Root, changes: &ChangeSet, rebased: &Root) -> Result<()> {
    for table in rebased.catalog().tables() {
        for (columns, target, target_columns) in references(table) {
            let mine = |oid, columns| moves_of_changes(changes, oid, columns);
            let theirs = |oid, columns| moves_between(base.table(oid), current.table(oid), columns);
            let broken = (mine(table.oid, columns).added && theirs(target, target_columns)?.removed)
                || (mine(target, target_columns).removed && theirs(table.oid, columns)?.added);
            if broken {
                return Err(conflict(&table.name));
            }
        }
    }
    Ok(())
}

fn moves_of_changes(changes: &ChangeSet, table: Oid, columns: &[usize]) -> Moves {
    let mut moves = Moves::default();
    for change in changes.tables.iter().filter(|change| change.table == table) {
        match &change.rows {
            RowsChange::Replaced { rows } => moves = Moves { added: rows.is_some(), removed: true },
            RowsChange::Dropped => moves.removed = true,
            RowsChange::Rows(rows) => {
                for row in rows {
                    match &row.kind {
                        RowChangeKind::Inserted { .. } => moves.added = true,
                        RowChangeKind::Deleted { .. } => moves.removed = true,
                        RowChangeKind::Updated { columns: updated } => {
                            if updated.iter().any(|(column, _, _)| columns.contains(&usize::from(*column))) {
                                moves = Moves { added: true, removed: true };
                            }
                        }
                    }
                }
            }
        }
    }
    moves
}

fn moves_between(before: Option<&Arc<TableData>>, after: Option<&Arc<TableData>>, columns: &[usize]) -> Result<Moves> {
    let mut moves = Moves::default();
    if let (Some(before), Some(after)) = (before, after)
        && Arc::ptr_eq(before, after)
    {
        return Ok(moves);
    }
    for difference in diff_tables(before.map(|t| &**t), after.map(|t| &**t)) {
        let difference = difference?;
        match (&difference.from, &difference.to) {
            (Some(from), Some(to)) => {
                if columns.iter().any(|column| from.get(*column) != to.get(*column)) {
                    moves = Moves { added: true, removed: true };
                }
            }
            (from, to) => {
                moves.removed |= from.is_some();
                moves.added |= to.is_some();
            }
        }
        if moves.added && moves.removed {
            break;
        }
    }
    Ok(moves)
}
