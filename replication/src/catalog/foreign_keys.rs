//! Foreign keys, as they are on the primary, which enforces them: here they bind what is written by SQL, and not what replication applies.

use strandline_storage::schema::{Constraint, ConstraintKind, TableSchema};
use strandline_storage::store::Store;
use strandline_storage::{Edit, Oid};

use super::describe::{ReferencedTable, RemoteConstraint, RemoteTable};
use super::maker::warn_left_out;
use crate::error::Result;

/// Adds those foreign keys of these tables that can be: both tables are here, and the constraint is not yet. Called again when more tables are here.
pub(crate) fn connect<'a>(store: &Store, edit: &mut Edit, tables: impl IntoIterator<Item = &'a RemoteTable>) -> Result<()> {
    for remote in tables {
        for (constraint, referenced) in foreign_keys(remote) {
            let catalog = edit.root().catalog();
            let Some(table) = catalog.table_by_name(&remote.schema, &remote.name) else { break };
            if table.constraints.iter().any(|here| here.name == constraint.name) {
                continue;
            }
            let Some(target) = catalog.table_by_name(&referenced.schema, &referenced.name) else { continue };
            let Some(made) = translate(store.next_oid()?, remote, constraint, referenced, table, target) else { continue };
            let mut changed = TableSchema::clone(table);
            changed.constraints.push(made);
            edit.put_table(changed)?;
        }
    }
    Ok(())
}

/// Tells of foreign keys that could not be had, when all tables that come are here.
pub(crate) fn warn_missing<'a>(edit: &Edit, tables: impl IntoIterator<Item = &'a RemoteTable>) {
    for remote in tables {
        let Some(table) = edit.root().catalog().table_by_name(&remote.schema, &remote.name) else { continue };
        for (constraint, _) in
            foreign_keys(remote).filter(|(constraint, _)| table.constraints.iter().all(|here| here.name != constraint.name))
        {
            let what = format!("foreign key \"{}\"", constraint.name);
            warn_left_out(
                &remote.qualified_name(),
                &what,
                "a table or a column that it needs is not here, or it has rules that do not exist here",
            );
        }
    }
}

fn foreign_keys(remote: &RemoteTable) -> impl Iterator<Item = (&RemoteConstraint, &ReferencedTable)> {
    remote.constraints.iter().filter_map(|constraint| Some((constraint, constraint.referenced.as_ref()?)))
}

fn translate(
    oid: Oid,
    remote: &RemoteTable,
    constraint: &RemoteConstraint,
    referenced: &ReferencedTable,
    table: &TableSchema,
    target: &TableSchema,
) -> Option<Constraint> {
    // The SQL layer has neither, and would enforce something else.
    let has_other_rules = [" MATCH FULL", " SET NULL (", " SET DEFAULT ("].iter().any(|part| constraint.definition.contains(part));
    if has_other_rules {
        return None;
    }
    let name_of = |attnum: i16| remote.columns.iter().find(|column| column.attnum == attnum).map(|column| column.name.as_str());
    let columns = constraint.columns.iter().map(|attnum| table.column_index(name_of(*attnum)?)).collect::<Option<Vec<_>>>()?;
    let targets = referenced.columns.iter().map(|name| target.column_index(name)).collect::<Option<Vec<_>>>()?;
    Some(Constraint {
        oid,
        name: constraint.name.clone(),
        definition: constraint.definition.clone(),
        kind: ConstraintKind::ForeignKey { table: target.oid, columns: targets },
        columns,
    })
}
