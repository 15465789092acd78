//! The views of information_schema about constraints: users' tables only.

use strandline_storage::schema::{Constraint, ConstraintKind, Index, IndexKey, TypeDefinition};
use strandline_storage::{Row, TableSchema, Value};

use super::yes_or_no;
use crate::context::StatementContext;
use crate::system::builder::text;
use crate::system::definitions::{ConstraintOf, constraints};
use crate::system::pg_catalog::keys::{action_letter, referenced_index};
use crate::system::pg_catalog::relations::{RowMaker, SystemRelation};
use crate::system::refs::plain_database;

fn schema_of<'a>(context: &'a StatementContext, table: &TableSchema) -> &'a str {
    context.root.catalog().schema_name(table.schema_oid).unwrap_or("?")
}

/// The standard counts NOT NULL as a CHECK and wants a name for it.
fn not_null_name(table: &TableSchema, attnum: i16) -> String {
    format!("{}_{}_{attnum}_not_null", table.schema_oid, table.oid)
}

fn set_constraint<'a>(row: RowMaker<'a>, context: &StatementContext, schema: &str, name: &str) -> RowMaker<'a> {
    row.set("constraint_catalog", text(plain_database(context))).set("constraint_schema", text(schema)).set("constraint_name", text(name))
}

fn set_table<'a>(row: RowMaker<'a>, context: &StatementContext, table: &TableSchema) -> RowMaker<'a> {
    row.set("table_catalog", text(plain_database(context)))
        .set("table_schema", text(schema_of(context, table)))
        .set("table_name", text(&table.name))
}

fn key_columns(index: &Index) -> Vec<usize> {
    let position = |key: &IndexKey| match key {
        IndexKey::Column(i) => Some(*i),
        IndexKey::Expression(_) => None,
    };
    index.columns.iter().filter_map(|c| position(&c.key)).collect()
}

fn flags(constraint: &Constraint) -> (bool, bool) {
    let upper = constraint.definition.to_ascii_uppercase();
    (upper.contains(" DEFERRABLE") && !upper.contains("NOT DEFERRABLE"), upper.contains("INITIALLY DEFERRED"))
}

pub fn table_constraints(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let catalog = context.root.catalog();
    let row = |table: &TableSchema, name: &str, kind: &str, (deferrable, deferred): (bool, bool)| {
        let row = set_constraint(relation.row(), context, schema_of(context, table), name);
        set_table(row, context, table)
            .set("constraint_type", text(kind))
            .set("is_deferrable", yes_or_no(deferrable))
            .set("initially_deferred", yes_or_no(deferred))
            .set("enforced", yes_or_no(true))
    };
    let mut rows = Vec::new();
    for (_, constraint) in constraints(catalog) {
        match constraint {
            ConstraintOf::Key { table, index, primary: true } => rows.push(row(table, &index.name, "PRIMARY KEY", (false, false)).done()),
            ConstraintOf::Key { table, index, primary: false } => {
                let row = row(table, &index.name, "UNIQUE", (false, false));
                rows.push(row.set("nulls_distinct", yes_or_no(!index.nulls_not_distinct)).done());
            }
            ConstraintOf::Other { table, constraint } => {
                let kind = match constraint.kind {
                    ConstraintKind::Check { .. } => "CHECK",
                    ConstraintKind::ForeignKey { .. } => "FOREIGN KEY",
                };
                rows.push(row(table, &constraint.name, kind, flags(constraint)).done());
            }
            ConstraintOf::Domain { .. } => {}
        }
    }
    for table in catalog.tables() {
        for column in table.columns.iter().filter(|c| c.not_null) {
            rows.push(row(table, &not_null_name(table, column.attnum), "CHECK", (false, false)).done());
        }
    }
    rows
}

pub fn key_column_usage(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let catalog = context.root.catalog();
    let mut rows = Vec::new();
    for (_, constraint) in constraints(catalog) {
        let (table, name, columns, references) = match constraint {
            ConstraintOf::Key { table, index, .. } => (table, &index.name, key_columns(index), None),
            ConstraintOf::Other { table, constraint } => match &constraint.kind {
                ConstraintKind::ForeignKey { table: target, columns } => {
                    (table, &constraint.name, constraint.columns.clone(), Some((*target, columns)))
                }
                ConstraintKind::Check { .. } => continue,
            },
            ConstraintOf::Domain { .. } => continue,
        };
        for (i, position) in columns.iter().enumerate() {
            let Some(column) = table.columns.get(*position) else { continue };
            // Where the referenced column stands in the key that the reference relies on.
            let in_key = references.and_then(|(target, referenced)| {
                let target = catalog.table(target)?;
                let key = key_columns(referenced_index(target, referenced)?);
                key.iter().position(|k| referenced.get(i) == Some(k))
            });
            let row = set_constraint(relation.row(), context, schema_of(context, table), name);
            rows.push(
                set_table(row, context, table)
                    .set("column_name", text(&column.name))
                    .set("ordinal_position", Value::Int4(i as i32 + 1))
                    .set("position_in_unique_constraint", in_key.map_or(Value::Null, |p| Value::Int4(p as i32 + 1)))
                    .done(),
            );
        }
    }
    rows
}

/// The table and columns that a constraint speaks of: for a foreign key those that it refers to.
fn used<'a>(
    context: &'a StatementContext,
    constraint: &'a ConstraintOf<'a>,
) -> Option<(&'a TableSchema, &'a TableSchema, &'a str, Vec<usize>)> {
    match constraint {
        ConstraintOf::Key { table, index, .. } => Some((table, table, &index.name, key_columns(index))),
        ConstraintOf::Other { table, constraint } => match &constraint.kind {
            ConstraintKind::Check { .. } => Some((table, table, &constraint.name, constraint.columns.clone())),
            ConstraintKind::ForeignKey { table: target, columns } => {
                Some((context.root.catalog().table(*target)?, table, &constraint.name, columns.clone()))
            }
        },
        ConstraintOf::Domain { .. } => None,
    }
}

pub fn constraint_column_usage(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (_, constraint) in constraints(context.root.catalog()) {
        let Some((table, owner, name, columns)) = used(context, &constraint) else { continue };
        for column in columns.iter().filter_map(|&i| table.columns.get(i)) {
            let row = set_constraint(relation.row(), context, schema_of(context, owner), name);
            rows.push(set_table(row, context, table).set("column_name", text(&column.name)).done());
        }
    }
    rows
}

pub fn constraint_table_usage(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let mut rows = Vec::new();
    for (_, constraint) in constraints(context.root.catalog()) {
        let is_check =
            matches!(&constraint, ConstraintOf::Other { constraint, .. } if matches!(constraint.kind, ConstraintKind::Check { .. }));
        let Some((table, owner, name, _)) = used(context, &constraint) else { continue };
        if is_check {
            continue;
        }
        let row = set_constraint(relation.row(), context, schema_of(context, owner), name);
        rows.push(set_table(row, context, table).done());
    }
    rows
}

fn rule(letter: u8) -> &'static str {
    match letter {
        b'c' => "CASCADE",
        b'n' => "SET NULL",
        b'd' => "SET DEFAULT",
        b'r' => "RESTRICT",
        _ => "NO ACTION",
    }
}

pub fn referential_constraints(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let catalog = context.root.catalog();
    let mut rows = Vec::new();
    for (_, constraint) in constraints(catalog) {
        let ConstraintOf::Other { table, constraint } = constraint else { continue };
        let ConstraintKind::ForeignKey { table: target, columns } = &constraint.kind else { continue };
        let mut row = set_constraint(relation.row(), context, schema_of(context, table), &constraint.name)
            .set("match_option", text(if constraint.definition.to_ascii_uppercase().contains("MATCH FULL") { "FULL" } else { "NONE" }))
            .set("update_rule", text(rule(action_letter(&constraint.definition, "ON UPDATE"))))
            .set("delete_rule", text(rule(action_letter(&constraint.definition, "ON DELETE"))));
        let unique = catalog.table(*target).and_then(|t| referenced_index(t, columns).map(|index| (t, index)));
        if let Some((target, index)) = unique {
            row = row
                .set("unique_constraint_catalog", text(plain_database(context)))
                .set("unique_constraint_schema", text(schema_of(context, target)))
                .set("unique_constraint_name", text(&index.name));
        }
        rows.push(row.done());
    }
    rows
}

pub fn check_constraints(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let catalog = context.root.catalog();
    let row = |schema: &str, name: &str, clause: String| {
        set_constraint(relation.row(), context, schema, name).set("check_clause", text(clause)).done()
    };
    let mut rows = Vec::new();
    for (_, constraint) in constraints(catalog) {
        match constraint {
            ConstraintOf::Other { table, constraint } => {
                if let ConstraintKind::Check { .. } = constraint.kind {
                    // What stands after CHECK in the definition.
                    let clause = constraint.definition.trim_start().strip_prefix("CHECK ").unwrap_or(&constraint.definition);
                    rows.push(row(schema_of(context, table), &constraint.name, clause.to_string()));
                }
            }
            ConstraintOf::Domain { ty, check } => {
                let TypeDefinition::Domain { checks, .. } = &ty.definition else { continue };
                let Some((name, expression)) = checks.get(check) else { continue };
                rows.push(row(catalog.schema_name(ty.schema_oid).unwrap_or("?"), name, format!("({expression})")));
            }
            ConstraintOf::Key { .. } => {}
        }
    }
    for table in catalog.tables() {
        for column in table.columns.iter().filter(|c| c.not_null) {
            let name = not_null_name(table, column.attnum);
            rows.push(row(schema_of(context, table), &name, format!("{} IS NOT NULL", column.name)));
        }
    }
    rows
}

pub fn domain_constraints(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let catalog = context.root.catalog();
    let mut rows = Vec::new();
    for (_, constraint) in constraints(catalog) {
        let ConstraintOf::Domain { ty, check } = constraint else { continue };
        let TypeDefinition::Domain { checks, .. } = &ty.definition else { continue };
        let Some((name, _)) = checks.get(check) else { continue };
        let schema = catalog.schema_name(ty.schema_oid).unwrap_or("?");
        rows.push(
            set_constraint(relation.row(), context, schema, name)
                .set("domain_catalog", text(plain_database(context)))
                .set("domain_schema", text(schema))
                .set("domain_name", text(&ty.name))
                .set("is_deferrable", yes_or_no(false))
                .set("initially_deferred", yes_or_no(false))
                .done(),
        );
    }
    rows
}
