//! The views of information_schema that list objects: tables, views, schemata, sequences, domains, privileges.

use strandline_storage::schema::TypeDefinition;
use strandline_storage::{CatalogObject, Row, Value};

use super::columns::{set_type, type_columns};
use super::yes_or_no;
use crate::context::StatementContext;
use crate::system::builder::{optional_text, text};
use crate::system::definitions::{owner_of, schema_name, view_text};
use crate::system::pg_catalog::relations::{SystemRelation, relations};
use crate::system::refs::plain_database;
use crate::types::SqlType;

/// A table or view: schema, name, owner, whether it is a table.
struct Listed {
    schema: String,
    name: String,
    owner: String,
    is_table: bool,
    system: bool,
}

fn listed(context: &StatementContext) -> Vec<Listed> {
    let catalog = context.root.catalog();
    let name_of = |schema| schema_name(catalog, schema).unwrap_or("?").to_string();
    let system = relations().all.iter().filter(|r| r.kind != b'i').map(|r| Listed {
        schema: name_of(r.schema_oid),
        name: r.name.to_string(),
        owner: "postgres".into(),
        is_table: r.kind == b'r',
        system: true,
    });
    let own = catalog.objects.values().filter_map(|o| match &**o {
        CatalogObject::Table(_) | CatalogObject::View(_) => Some(Listed {
            schema: name_of(o.schema_oid()?),
            name: o.name().to_string(),
            owner: owner_of(o).to_string(),
            is_table: matches!(&**o, CatalogObject::Table(_)),
            system: false,
        }),
        _ => None,
    });
    system.chain(own).collect()
}

pub fn tables(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let database = plain_database(context);
    let row = |table: Listed| {
        relation
            .row()
            .set("table_catalog", text(database))
            .set("table_schema", text(table.schema))
            .set("table_name", text(table.name))
            .set("table_type", text(if table.is_table { "BASE TABLE" } else { "VIEW" }))
            .set("is_insertable_into", yes_or_no(table.is_table))
            .set("is_typed", yes_or_no(false))
            .done()
    };
    listed(context).into_iter().map(row).collect()
}

pub fn views(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let database = plain_database(context);
    let catalog = context.root.catalog();
    let row = |schema: &str, name: &str, definition: Value| {
        relation
            .row()
            .set("table_catalog", text(database))
            .set("table_schema", text(schema))
            .set("table_name", text(name))
            .set("view_definition", definition)
            .set("check_option", text("NONE"))
            .set("is_updatable", yes_or_no(false))
            .set("is_insertable_into", yes_or_no(false))
            .set("is_trigger_updatable", yes_or_no(false))
            .set("is_trigger_deletable", yes_or_no(false))
            .set("is_trigger_insertable_into", yes_or_no(false))
            .done()
    };
    let system = relations().all.iter().filter(|r| r.kind == b'v');
    let mut rows: Vec<Row> = system.map(|r| row(schema_name(catalog, r.schema_oid).unwrap_or("?"), r.name, Value::Null)).collect();
    for object in catalog.objects.values() {
        if let CatalogObject::View(view) = &**object {
            rows.push(row(catalog.schema_name(view.schema_oid).unwrap_or("?"), &view.name, text(view_text(view))));
        }
    }
    rows
}

pub fn schemata(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let row = |name: &str, owner: &str| {
        relation
            .row()
            .set("catalog_name", text(plain_database(context)))
            .set("schema_name", text(name))
            .set("schema_owner", text(owner))
            .done()
    };
    let mut rows = vec![row("pg_catalog", "postgres"), row("pg_toast", "postgres"), row("information_schema", "postgres")];
    for object in context.root.catalog().objects.values() {
        if let CatalogObject::Schema(schema) = &**object {
            rows.push(row(&schema.name, &schema.owner));
        }
    }
    rows
}

/// Sequences of identity columns are the column's own and are not listed, as in PostgreSQL.
pub fn sequences(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let catalog = context.root.catalog();
    let mut rows = Vec::new();
    for object in catalog.objects.values() {
        let CatalogObject::Sequence(s) = &**object else { continue };
        let identity = s.owned_by.and_then(|(table, attnum)| catalog.table(table)?.columns.iter().find(|c| c.attnum == attnum));
        if identity.is_some_and(|c| c.identity.is_some()) {
            continue;
        }
        let ty = type_columns(context, SqlType::new(s.data_type.oid));
        rows.push(
            relation
                .row()
                .set("sequence_catalog", text(plain_database(context)))
                .set("sequence_schema", text(catalog.schema_name(s.schema_oid).unwrap_or("?")))
                .set("sequence_name", text(&s.name))
                .set("data_type", text(ty.data_type))
                .set("numeric_precision", ty.numeric_precision.map_or(Value::Null, Value::Int4))
                .set("numeric_precision_radix", Value::Int4(2))
                .set("numeric_scale", Value::Int4(0))
                .set("start_value", text(s.start.to_string()))
                .set("minimum_value", text(s.min.to_string()))
                .set("maximum_value", text(s.max.to_string()))
                .set("increment", text(s.increment.to_string()))
                .set("cycle_option", yes_or_no(s.cycle))
                .done(),
        );
    }
    rows
}

pub fn domains(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let database = plain_database(context);
    let row = |schema: &str, name: &str, base: SqlType, default: Value| {
        let row = relation
            .row()
            .set("domain_catalog", text(database))
            .set("domain_schema", text(schema))
            .set("domain_name", text(name))
            .set("domain_default", default)
            .set("dtd_identifier", text("1"));
        set_type(row, &type_columns(context, base), database).done()
    };
    let system = relations().domains.iter().filter(|d| d.base != 0);
    let mut rows: Vec<Row> =
        system.map(|d| row("information_schema", d.name, SqlType { oid: d.base, typmod: d.typmod }, Value::Null)).collect();
    let catalog = context.root.catalog();
    for object in catalog.objects.values() {
        if let CatalogObject::Type(ty) = &**object
            && let TypeDefinition::Domain { base, default, .. } = &ty.definition
        {
            let schema = catalog.schema_name(ty.schema_oid).unwrap_or("?");
            rows.push(row(schema, &ty.name, SqlType { oid: base.oid, typmod: base.typmod }, optional_text(default.as_ref())));
        }
    }
    rows
}

pub fn character_sets(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    vec![
        relation
            .row()
            .set("character_set_name", text("UTF8"))
            .set("character_repertoire", text("UCS"))
            .set("form_of_use", text("UTF8"))
            .set("default_collate_catalog", text(plain_database(context)))
            .set("default_collate_schema", text("pg_catalog"))
            .set("default_collate_name", text("C"))
            .done(),
    ]
}

/// An owner may do all with its tables; anyone may read the system's.
pub fn table_privileges(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    const ALL: &[&str] = &["INSERT", "SELECT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];
    let database = plain_database(context);
    let mut rows = Vec::new();
    for table in listed(context) {
        for privilege in if table.system { &["SELECT"][..] } else { ALL } {
            rows.push(
                relation
                    .row()
                    .set("grantor", text(&table.owner))
                    .set("grantee", text(if table.system { "PUBLIC" } else { &table.owner }))
                    .set("table_catalog", text(database))
                    .set("table_schema", text(&table.schema))
                    .set("table_name", text(&table.name))
                    .set("privilege_type", text(privilege))
                    .set("is_grantable", yes_or_no(!table.system))
                    .set("with_hierarchy", yes_or_no(*privilege == "SELECT"))
                    .done(),
            );
        }
    }
    rows
}
