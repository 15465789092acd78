//! pg_index and pg_constraint: keys, indexes and checks.

use std::collections::HashMap;
use std::sync::LazyLock;

use strandline_storage::schema::{ConstraintKind, Index, IndexKey, TypeDefinition};
use strandline_storage::{Catalog, Kind, Row, TableSchema, Value};

use super::attributes::{collation_oid, type_facts};
use super::classes::access_method_oid;
use super::relations::relations;
use super::{CatalogRows, shared_rows};
use crate::catalog_data;
use crate::context::StatementContext;
use crate::system::builder::{letter, oid, plain_array, text, vector};
use crate::system::definitions::{self, ConstraintOf, indexes_of};
use crate::types::{Oid, oid as types};

/// An index of a system catalog: its table and whether it is unique.
pub fn system_index(index: Oid) -> Option<(Oid, bool)> {
    static INDEXES: LazyLock<HashMap<Oid, (Oid, bool)>> = LazyLock::new(|| {
        let relation = relations().catalog("pg_index");
        let position = |name| relation.position(name).expect("BUG: pg_index has its columns");
        let (index, table, unique) = (position("indexrelid"), position("indrelid"), position("indisunique"));
        let number = |value: &Value| match value {
            Value::Int8(v) => *v as Oid,
            _ => 0,
        };
        system_indexes().iter().map(|row| (number(&row[index]), (number(&row[table]), row[unique] == Value::Bool(true)))).collect()
    });
    INDEXES.get(&index).copied()
}

pub fn system_indexes() -> Vec<Row> {
    let relation = relations().catalog("pg_index");
    let flags: Vec<usize> =
        ["indisvalid", "indisready", "indislive"].iter().map(|c| relation.position(c).expect("BUG: pg_index has its columns")).collect();
    let mut rows = relation.exported(include_str!("pg_index.tsv"));
    for row in &mut rows {
        for &flag in &flags {
            row[flag] = Value::Bool(true);
        }
    }
    rows
}

pub fn indexes(context: &StatementContext) -> CatalogRows {
    let mut rows = shared_rows!(system_indexes());
    for table in context.root.catalog().tables() {
        for (index, primary) in indexes_of(table) {
            rows.own.push(index_row(table, index, primary));
        }
    }
    rows
}

/// The operator class that an index uses for a column's type by default.
fn operator_class(method: &str, ty: Oid, kind: Kind) -> Oid {
    let data = catalog_data::catalog();
    let method = access_method_oid(method);
    let stand_in = match kind {
        Kind::Enum => Some(3500),
        Kind::Array => Some(2277),
        Kind::Text if ty != types::NAME && ty != types::CHAR => Some(types::TEXT),
        _ => None,
    };
    let class = data.default_operator_class(method, ty).or_else(|| data.default_operator_class(method, stand_in?));
    class.map_or(0, |c| c.oid)
}

fn index_row(table: &TableSchema, index: &Index, primary: bool) -> Row {
    let mut key = Vec::new();
    let mut collations = Vec::new();
    let mut classes = Vec::new();
    let mut options = Vec::new();
    let mut expressions = Vec::new();
    for column in &index.columns {
        let (attnum, ty, kind, collation) = match &column.key {
            IndexKey::Column(i) => match table.columns.get(*i) {
                Some(c) => {
                    let collation =
                        c.collation.as_deref().map_or_else(|| type_facts(c.data_type.oid, c.data_type.kind).collation, collation_oid);
                    (c.attnum, c.data_type.oid, c.data_type.kind, collation)
                }
                None => (0, 0, Kind::Other, 0),
            },
            IndexKey::Expression(expression) => {
                expressions.push(expression.clone());
                (0, types::TEXT, Kind::Text, 100)
            }
        };
        key.push(attnum);
        collations.push(collation);
        classes.push(operator_class(&index.method, ty, kind));
        options.push(i16::from(column.descending) | i16::from(column.nulls_first) << 1);
    }
    key.extend(index.include.iter().map(|&i| table.columns.get(i).map_or(0, |c| c.attnum)));
    let mut row = relations()
        .catalog("pg_index")
        .row()
        .set("indexrelid", oid(index.oid))
        .set("indrelid", oid(table.oid))
        .set("indnatts", Value::Int2(key.len() as i16))
        .set("indnkeyatts", Value::Int2(index.columns.len() as i16))
        .set("indisunique", Value::Bool(index.unique))
        .set("indnullsnotdistinct", Value::Bool(index.nulls_not_distinct))
        .set("indisprimary", Value::Bool(primary))
        .set("indimmediate", Value::Bool(true))
        .set("indisvalid", Value::Bool(true))
        .set("indisready", Value::Bool(true))
        .set("indislive", Value::Bool(true))
        .set("indkey", vector(key))
        .set("indcollation", vector(collations))
        .set("indclass", vector(classes))
        .set("indoption", vector(options));
    if !expressions.is_empty() {
        row = row.set("indexprs", text(expressions.join(", ")));
    }
    if let Some(predicate) = &index.predicate {
        row = row.set("indpred", text(predicate));
    }
    row.done()
}

pub fn system_constraints() -> Vec<Row> {
    let relation = relations().catalog("pg_constraint");
    let position = |name: &str| relation.position(name).expect("BUG: pg_constraint has its columns");
    let (validated, local, no_inherit) = (position("convalidated"), position("conislocal"), position("connoinherit"));
    let letters = ["confupdtype", "confdeltype", "confmatchtype"].map(position);
    let mut rows = relation.exported(include_str!("pg_constraint.tsv"));
    for row in &mut rows {
        for column in [validated, local, no_inherit] {
            row[column] = Value::Bool(true);
        }
        for column in letters {
            row[column] = letter(b' ');
        }
    }
    rows
}

pub fn constraints(context: &StatementContext) -> CatalogRows {
    let mut rows = shared_rows!(system_constraints());
    let catalog = context.root.catalog();
    for (id, constraint) in definitions::constraints(catalog) {
        if let Some(row) = constraint_row(catalog, id, &constraint) {
            rows.own.push(row);
        }
    }
    rows
}

fn attnums(table: &TableSchema, columns: &[usize]) -> Value {
    plain_array(columns.iter().filter_map(|&i| table.columns.get(i)).map(|c| c.attnum))
}

/// The letter of a foreign key's action, from its definition's text.
pub fn action_letter(definition: &str, event: &str) -> u8 {
    let upper = definition.to_ascii_uppercase();
    let Some(at) = upper.find(event) else { return b'a' };
    let action = upper[at + event.len()..].trim_start();
    match action {
        a if a.starts_with("RESTRICT") => b'r',
        a if a.starts_with("CASCADE") => b'c',
        a if a.starts_with("SET NULL") => b'n',
        a if a.starts_with("SET DEFAULT") => b'd',
        _ => b'a',
    }
}

/// The unique index of the referenced table that a foreign key relies on.
pub fn referenced_index<'a>(target: &'a TableSchema, columns: &[usize]) -> Option<&'a Index> {
    let covers = |index: &Index| {
        let keys: Vec<usize> = index
            .columns
            .iter()
            .filter_map(|c| match c.key {
                IndexKey::Column(i) => Some(i),
                IndexKey::Expression(_) => None,
            })
            .collect();
        index.unique && index.predicate.is_none() && keys.len() == columns.len() && columns.iter().all(|c| keys.contains(c))
    };
    indexes_of(target).map(|(index, _)| index).find(|index| covers(index))
}

fn constraint_row(catalog: &Catalog, id: Oid, constraint: &ConstraintOf<'_>) -> Option<Row> {
    let base = relations()
        .catalog("pg_constraint")
        .row()
        .set("oid", oid(id))
        .set("convalidated", Value::Bool(true))
        .set("conislocal", Value::Bool(true))
        .set("confupdtype", letter(b' '))
        .set("confdeltype", letter(b' '))
        .set("confmatchtype", letter(b' '));
    Some(match constraint {
        ConstraintOf::Key { table, index, primary } => {
            let columns: Vec<usize> = index
                .columns
                .iter()
                .filter_map(|c| match c.key {
                    IndexKey::Column(i) => Some(i),
                    IndexKey::Expression(_) => None,
                })
                .collect();
            base.set("conname", text(&index.name))
                .set("connamespace", oid(table.schema_oid))
                .set("contype", letter(if *primary { b'p' } else { b'u' }))
                .set("conrelid", oid(table.oid))
                .set("conindid", oid(index.oid))
                .set("connoinherit", Value::Bool(true))
                .set("conkey", attnums(table, &columns))
                .done()
        }
        ConstraintOf::Other { table, constraint } => {
            let upper = constraint.definition.to_ascii_uppercase();
            let row = base
                .set("conname", text(&constraint.name))
                .set("connamespace", oid(table.schema_oid))
                .set("conrelid", oid(table.oid))
                .set("convalidated", Value::Bool(!upper.ends_with("NOT VALID")))
                .set("conkey", attnums(table, &constraint.columns));
            match &constraint.kind {
                ConstraintKind::Check { expression } => row
                    .set("contype", letter(b'c'))
                    .set("connoinherit", Value::Bool(upper.contains(" NO INHERIT")))
                    .set("conbin", text(expression))
                    .done(),
                ConstraintKind::ForeignKey { table: target_oid, columns } => {
                    let target = catalog.table(*target_oid);
                    let mut row = row
                        .set("contype", letter(b'f'))
                        .set("condeferrable", Value::Bool(upper.contains(" DEFERRABLE") && !upper.contains("NOT DEFERRABLE")))
                        .set("condeferred", Value::Bool(upper.contains("INITIALLY DEFERRED")))
                        .set("connoinherit", Value::Bool(true))
                        .set("confrelid", oid(*target_oid))
                        .set("confupdtype", letter(action_letter(&constraint.definition, "ON UPDATE")))
                        .set("confdeltype", letter(action_letter(&constraint.definition, "ON DELETE")))
                        .set("confmatchtype", letter(if upper.contains("MATCH FULL") { b'f' } else { b's' }));
                    if let Some(target) = target {
                        row = row.set("confkey", attnums(target, columns));
                        if let Some(index) = referenced_index(target, columns) {
                            row = row.set("conindid", oid(index.oid));
                        }
                    }
                    row.done()
                }
            }
        }
        ConstraintOf::Domain { ty, check } => {
            let TypeDefinition::Domain { checks, .. } = &ty.definition else { return None };
            let (name, expression) = checks.get(*check)?;
            base.set("conname", text(name))
                .set("connamespace", oid(ty.schema_oid))
                .set("contype", letter(b'c'))
                .set("contypid", oid(ty.oid))
                .set("conbin", text(expression))
                .done()
        }
    })
}
