//! The views over the catalog that people read: pg_tables, pg_views, pg_indexes, pg_sequences, pg_stat_user_tables.

use strandline_storage::{CatalogObject, Row, Value};

use super::relations::{PG_CATALOG_SCHEMA, SystemRelation, relations};
use crate::context::StatementContext;
use crate::system::builder::{oid, text};
use crate::system::definitions::{index_text, indexes_of, schema_name, view_text};

pub fn tables(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_tables");
    let catalog = context.root.catalog();
    let mut rows: Vec<Row> = relations()
        .all
        .iter()
        .filter(|r| r.kind == b'r')
        .map(|r| {
            relation
                .row()
                .set("schemaname", text(if r.schema_oid == PG_CATALOG_SCHEMA { "pg_catalog" } else { "information_schema" }))
                .set("tablename", text(r.name))
                .set("tableowner", text("postgres"))
                .set("hasindexes", Value::Bool(r.schema_oid == PG_CATALOG_SCHEMA))
                .set("hasrules", Value::Bool(false))
                .set("hastriggers", Value::Bool(false))
                .set("rowsecurity", Value::Bool(false))
                .done()
        })
        .collect();
    for table in catalog.tables() {
        rows.push(
            relation
                .row()
                .set("schemaname", text(catalog.schema_name(table.schema_oid).unwrap_or("?")))
                .set("tablename", text(&table.name))
                .set("tableowner", text(&table.owner))
                .set("hasindexes", Value::Bool(indexes_of(table).next().is_some()))
                .set("hasrules", Value::Bool(false))
                .set("hastriggers", Value::Bool(super::classes::has_foreign_keys(context, table)))
                .set("rowsecurity", Value::Bool(false))
                .done(),
        );
    }
    rows
}

pub fn views(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_views");
    let catalog = context.root.catalog();
    let system = relations().all.iter().filter(|r| r.kind == b'v').map(|r| {
        relation
            .row()
            .set("schemaname", text(schema_name(catalog, r.schema_oid).unwrap_or("?")))
            .set("viewname", text(r.name))
            .set("viewowner", text("postgres"))
            .done()
    });
    let own = catalog.objects.values().filter_map(|o| match &**o {
        CatalogObject::View(view) => Some(
            relation
                .row()
                .set("schemaname", text(catalog.schema_name(view.schema_oid).unwrap_or("?")))
                .set("viewname", text(&view.name))
                .set("viewowner", text(&view.owner))
                .set("definition", text(view_text(view)))
                .done(),
        ),
        _ => None,
    });
    system.chain(own).collect()
}

pub fn indexes(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_indexes");
    let catalog = context.root.catalog();
    let mut rows = Vec::new();
    for index in relations().all.iter().filter(|r| r.kind == b'i') {
        let Some((table, _)) = super::keys::system_index(index.oid) else { continue };
        let Some(table) = relations().by_oid(table) else { continue };
        let mut row =
            relation.row().set("schemaname", text("pg_catalog")).set("tablename", text(table.name)).set("indexname", text(index.name));
        if let Some(definition) = crate::system::definitions::index_definition(context, index.oid, 0) {
            row = row.set("indexdef", text(definition));
        }
        rows.push(row.done());
    }
    for table in catalog.tables() {
        for (index, _) in indexes_of(table) {
            rows.push(
                relation
                    .row()
                    .set("schemaname", text(catalog.schema_name(table.schema_oid).unwrap_or("?")))
                    .set("tablename", text(&table.name))
                    .set("indexname", text(&index.name))
                    .set("indexdef", text(index_text(catalog, table, index)))
                    .done(),
            );
        }
    }
    rows
}

pub fn sequences(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_sequences");
    let catalog = context.root.catalog();
    catalog
        .objects
        .values()
        .filter_map(|o| match &**o {
            CatalogObject::Sequence(s) => Some(
                relation
                    .row()
                    .set("schemaname", text(catalog.schema_name(s.schema_oid).unwrap_or("?")))
                    .set("sequencename", text(&s.name))
                    .set("sequenceowner", text(&s.owner))
                    .set("data_type", oid(s.data_type.oid))
                    .set("start_value", Value::Int8(s.start))
                    .set("min_value", Value::Int8(s.min))
                    .set("max_value", Value::Int8(s.max))
                    .set("increment_by", Value::Int8(s.increment))
                    .set("cycle", Value::Bool(s.cycle))
                    .set("cache_size", Value::Int8(s.cache))
                    .done(),
            ),
            _ => None,
        })
        .collect()
}

/// Live rows are exact; what is not counted here stays NULL.
pub fn table_statistics(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let catalog = context.root.catalog();
    catalog
        .tables()
        .map(|table| {
            let rows = context.root.table(table.oid).map_or(0, |t| t.len());
            relation
                .row()
                .set("relid", oid(table.oid))
                .set("schemaname", text(catalog.schema_name(table.schema_oid).unwrap_or("?")))
                .set("relname", text(&table.name))
                .set("n_live_tup", Value::Int8(i64::try_from(rows).unwrap_or(i64::MAX)))
                .set("n_dead_tup", Value::Int8(0))
                .done()
        })
        .collect()
}
