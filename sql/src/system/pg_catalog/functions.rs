//! Functions, operators, access methods and what describes them: the built-in rows, ours included.

use strandline_storage::{CatalogObject, Row, Value};

use super::classes::BOOTSTRAP_ROLE;
use super::relations::{PG_CATALOG_SCHEMA, SystemRelation, relations};
use super::{CatalogRows, shared_rows};
use crate::catalog_data::{self, ArgMode, ProcRow};
use crate::context::StatementContext;
use crate::system::builder::{array, letter, oid, plain_array, text, vector};
use crate::system::definitions::{indexes_of, subscription_comments};
use crate::types::Oid;

fn proc_row(relation: &SystemRelation, proc: &ProcRow) -> Row {
    let row = relation
        .row()
        .set("oid", oid(proc.oid))
        .set("proname", text(proc.name))
        .set("pronamespace", oid(PG_CATALOG_SCHEMA))
        .set("proowner", oid(BOOTSTRAP_ROLE))
        .set("prolang", oid(proc.language))
        .set("procost", Value::Float4(proc.cost))
        .set("prorows", Value::Float4(proc.rows))
        .set("provariadic", oid(proc.variadic))
        .set("prosupport", oid(proc.support))
        .set("prokind", letter(proc.kind))
        .set("proleakproof", Value::Bool(proc.leakproof))
        .set("proisstrict", Value::Bool(proc.strict))
        .set("proretset", Value::Bool(proc.returns_set))
        .set("provolatile", letter(proc.volatility))
        .set("proparallel", letter(proc.parallel))
        .set("pronargs", Value::Int2(proc.arg_types.len() as i16))
        .set("pronargdefaults", Value::Int2(proc.default_count as i16))
        .set("prorettype", oid(proc.return_type))
        .set("proargtypes", vector(&proc.arg_types))
        .set("prosrc", text(proc.source));
    let row = if proc.all_arg_types.is_empty() { row } else { row.set("proallargtypes", plain_array(&proc.all_arg_types)) };
    let row = if proc.arg_modes.is_empty() {
        row
    } else {
        let letter = |mode: &ArgMode| match mode {
            ArgMode::In => 'i',
            ArgMode::Out => 'o',
            ArgMode::InOut => 'b',
            ArgMode::Variadic => 'v',
            ArgMode::Table => 't',
        };
        row.set("proargmodes", plain_array(proc.arg_modes.iter().map(letter)))
    };
    let row = if proc.arg_names.is_empty() { row } else { row.set("proargnames", array(proc.arg_names.iter().map(|n| Some(*n)))) };
    match proc.defaults {
        Some(defaults) => row.set("proargdefaults", text(defaults)).done(),
        None => row.done(),
    }
}

pub fn procs() -> CatalogRows {
    shared_rows!({
        let relation = relations().catalog("pg_proc");
        catalog_data::catalog().procs.iter().map(|proc| proc_row(relation, proc)).collect()
    })
}

/// Exported rows, with columns that are the same in all of them.
fn exported(name: &str, file: &'static str, constants: &[(&str, Oid)]) -> Vec<Row> {
    let relation = relations().catalog(name);
    let mut rows = relation.exported(file);
    for (column, value) in constants {
        let position = relation.position(column).unwrap_or_else(|| panic!("BUG: {name} has no column {column}"));
        for row in &mut rows {
            row[position] = oid(*value);
        }
    }
    rows
}

pub fn operators() -> CatalogRows {
    const CONSTANTS: &[(&str, Oid)] = &[("oprnamespace", PG_CATALOG_SCHEMA), ("oprowner", BOOTSTRAP_ROLE)];
    shared_rows!(exported("pg_operator", include_str!("../../catalog_data/pg_operator.tsv"), CONSTANTS))
}

pub fn aggregates() -> CatalogRows {
    shared_rows!({
        let relation = relations().catalog("pg_aggregate");
        let mut rows = relation.exported(include_str!("../../catalog_data/pg_aggregate.tsv"));
        let flags = ["aggfinalmodify", "aggmfinalmodify"].map(|c| relation.position(c).expect("BUG: pg_aggregate has its columns"));
        for row in &mut rows {
            for flag in flags {
                row[flag] = letter(b'r');
            }
        }
        rows
    })
}

pub fn languages() -> CatalogRows {
    shared_rows!(exported("pg_language", include_str!("../../catalog_data/pg_language.tsv"), &[("lanowner", BOOTSTRAP_ROLE)]))
}

pub fn access_methods() -> CatalogRows {
    shared_rows!(exported("pg_am", include_str!("../../catalog_data/pg_am.tsv"), &[]))
}

pub fn amops() -> CatalogRows {
    shared_rows!(exported("pg_amop", include_str!("../../catalog_data/pg_amop.tsv"), &[]))
}

pub fn amprocs() -> CatalogRows {
    shared_rows!(exported("pg_amproc", include_str!("../../catalog_data/pg_amproc.tsv"), &[]))
}

pub fn operator_classes() -> CatalogRows {
    const CONSTANTS: &[(&str, Oid)] = &[("opcnamespace", PG_CATALOG_SCHEMA), ("opcowner", BOOTSTRAP_ROLE)];
    shared_rows!(exported("pg_opclass", include_str!("../../catalog_data/pg_opclass.tsv"), CONSTANTS))
}

pub fn operator_families() -> CatalogRows {
    const CONSTANTS: &[(&str, Oid)] = &[("opfnamespace", PG_CATALOG_SCHEMA), ("opfowner", BOOTSTRAP_ROLE)];
    shared_rows!(exported("pg_opfamily", include_str!("../../catalog_data/pg_opfamily.tsv"), CONSTANTS))
}

/// Comments: the built-in ones that we have, then those on users' objects.
pub fn descriptions(context: &StatementContext) -> CatalogRows {
    let mut rows = shared_rows!(
        catalog_data::catalog().descriptions.iter().map(|d| description(d.object, relations().catalog(d.class).oid, 0, d.text)).collect()
    );
    let class = relations().catalog("pg_class").oid;
    for object in context.root.catalog().objects.values() {
        match &**object {
            CatalogObject::Schema(schema) => {
                if let Some(comment) = &schema.comment {
                    rows.own.push(description(schema.oid, relations().catalog("pg_namespace").oid, 0, comment));
                }
            }
            CatalogObject::Table(table) => {
                rows.own.extend(table.comment.iter().map(|comment| description(table.oid, class, 0, comment)));
                for column in &table.columns {
                    rows.own.extend(column.comment.iter().map(|comment| description(table.oid, class, i32::from(column.attnum), comment)));
                }
                for (index, _) in indexes_of(table) {
                    rows.own.extend(index.comment.iter().map(|comment| description(index.oid, class, 0, comment)));
                }
            }
            CatalogObject::Sequence(_) | CatalogObject::Type(_) | CatalogObject::View(_) => {}
        }
    }
    let class = relations().catalog("pg_subscription").oid;
    rows.own.extend(subscription_comments(context).iter().map(|(oid, comment)| description(*oid, class, 0, comment)));
    rows
}

fn description(object: Oid, class: Oid, part: i32, comment: &str) -> Row {
    relations()
        .catalog("pg_description")
        .row()
        .set("objoid", oid(object))
        .set("classoid", oid(class))
        .set("objsubid", Value::Int4(part))
        .set("description", text(comment))
        .done()
}
