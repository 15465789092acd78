//! pg_namespace, pg_class, pg_sequence, pg_depend: the relations and where they live.

use strandline_storage::schema::{ConstraintKind, Index, Sequence, View};
use strandline_storage::{CatalogObject, Row, TableSchema, Value};

use super::cluster::role_oid;
use super::relations::{INFORMATION_SCHEMA, PG_CATALOG_SCHEMA, relations};
use super::{CatalogRows, shared_rows};
use crate::catalog_data;
use crate::context::StatementContext;
use crate::system::builder::{letter, oid, text};
use crate::system::definitions::{indexes_of, row_type_oid};
use crate::types::Oid;

/// The bootstrap superuser's oid; the system's objects belong to it.
pub const BOOTSTRAP_ROLE: Oid = 10;
/// heap's oid in pg_am.
const HEAP: Oid = 2;
/// Rows that we assume on a page of 8 KiB, for `relpages`.
const ROWS_PER_PAGE: u64 = 60;

pub fn namespaces(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_namespace");
    let row =
        |id: Oid, name: &str, owner: Oid| relation.row().set("oid", oid(id)).set("nspname", text(name)).set("nspowner", oid(owner)).done();
    let mut rows = vec![
        row(PG_CATALOG_SCHEMA, "pg_catalog", BOOTSTRAP_ROLE),
        row(99, "pg_toast", BOOTSTRAP_ROLE),
        row(INFORMATION_SCHEMA, "information_schema", BOOTSTRAP_ROLE),
    ];
    for object in context.root.catalog().objects.values() {
        if let CatalogObject::Schema(schema) = &**object {
            rows.push(row(schema.oid, &schema.name, role_oid(context, &schema.owner)));
        }
    }
    rows
}

/// Oids are per catalog; the number of an access method by name.
pub(super) fn access_method_oid(name: &str) -> Oid {
    catalog_data::catalog().access_methods.iter().find(|m| m.name == name).map_or(0, |m| m.oid)
}

pub fn classes(context: &StatementContext) -> CatalogRows {
    let mut rows = shared_rows!(system_classes());
    let catalog = context.root.catalog();
    for object in catalog.objects.values() {
        match &**object {
            CatalogObject::Table(table) => {
                rows.own.push(table_class(context, table));
                for (index, _) in indexes_of(table) {
                    rows.own.push(index_class(context, table, index));
                }
            }
            CatalogObject::Sequence(sequence) => rows.own.push(sequence_class(context, sequence)),
            CatalogObject::View(view) => rows.own.push(view_class(context, view)),
            CatalogObject::Schema(_) | CatalogObject::Type(_) => {}
        }
    }
    rows
}

pub fn system_classes() -> Vec<Row> {
    let all = relations();
    let class = all.catalog("pg_class");
    all.all
        .iter()
        .map(|r| {
            let has_index =
                all.all.iter().any(|i| i.kind == b'i' && super::keys::system_index(i.oid).is_some_and(|(table, _)| table == r.oid));
            class
                .row()
                .set("oid", oid(r.oid))
                .set("relname", text(r.name))
                .set("relnamespace", oid(r.schema_oid))
                .set("reltype", oid(r.row_type))
                .set("relowner", oid(BOOTSTRAP_ROLE))
                .set("relam", oid(r.access_method))
                .set("reltuples", Value::Float4(if r.kind == b'v' { 0.0 } else { -1.0 }))
                .set("relhasindex", Value::Bool(has_index))
                .set("relisshared", Value::Bool(r.shared))
                .set("relpersistence", letter(b'p'))
                .set("relkind", letter(r.kind))
                .set("relnatts", Value::Int2(r.columns.len() as i16))
                .set("relhasrules", Value::Bool(r.kind == b'v'))
                .set("relispopulated", Value::Bool(true))
                .set("relreplident", letter(b'n'))
                .done()
        })
        .collect()
}

fn table_class(context: &StatementContext, table: &TableSchema) -> Row {
    let rows = context.root.table(table.oid).map_or(0, |t| t.len());
    let checks = table.constraints.iter().filter(|c| crate::system::definitions::is_check(c)).count();
    relations()
        .catalog("pg_class")
        .row()
        .set("oid", oid(table.oid))
        .set("relname", text(&table.name))
        .set("relnamespace", oid(table.schema_oid))
        .set("reltype", oid(row_type_oid(table.oid)))
        .set("relowner", oid(role_oid(context, &table.owner)))
        .set("relam", oid(HEAP))
        .set("relfilenode", oid(table.oid))
        .set("relpages", Value::Int4(i32::try_from(rows.div_ceil(ROWS_PER_PAGE)).unwrap_or(i32::MAX)))
        .set("reltuples", Value::Float4(rows as f32))
        .set("relhasindex", Value::Bool(indexes_of(table).next().is_some()))
        .set("relpersistence", letter(b'p'))
        .set("relkind", letter(b'r'))
        .set("relnatts", Value::Int2(table.next_attnum - 1))
        .set("relchecks", Value::Int2(i16::try_from(checks).unwrap_or(i16::MAX)))
        .set("relhastriggers", Value::Bool(has_foreign_keys(context, table)))
        .set("relispopulated", Value::Bool(true))
        .set("relreplident", letter(b'd'))
        .done()
}

/// Foreign keys on either side count as triggers: psql looks for them only then.
pub(super) fn has_foreign_keys(context: &StatementContext, table: &TableSchema) -> bool {
    context.root.catalog().tables().any(|t| {
        t.constraints
            .iter()
            .any(|c| matches!(&c.kind, ConstraintKind::ForeignKey { table: target, .. } if t.oid == table.oid || *target == table.oid))
    })
}

fn index_class(context: &StatementContext, table: &TableSchema, index: &Index) -> Row {
    let rows = context.root.table(table.oid).map_or(0, |t| t.len());
    relations()
        .catalog("pg_class")
        .row()
        .set("oid", oid(index.oid))
        .set("relname", text(&index.name))
        .set("relnamespace", oid(table.schema_oid))
        .set("relowner", oid(role_oid(context, &table.owner)))
        .set("relam", oid(access_method_oid(&index.method)))
        .set("relfilenode", oid(index.oid))
        .set("relpages", Value::Int4(1))
        .set("reltuples", Value::Float4(rows as f32))
        .set("relpersistence", letter(b'p'))
        .set("relkind", letter(b'i'))
        .set("relnatts", Value::Int2((index.columns.len() + index.include.len()) as i16))
        .set("relispopulated", Value::Bool(true))
        .set("relreplident", letter(b'n'))
        .done()
}

fn sequence_class(context: &StatementContext, sequence: &Sequence) -> Row {
    relations()
        .catalog("pg_class")
        .row()
        .set("oid", oid(sequence.oid))
        .set("relname", text(&sequence.name))
        .set("relnamespace", oid(sequence.schema_oid))
        .set("relowner", oid(role_oid(context, &sequence.owner)))
        .set("relfilenode", oid(sequence.oid))
        .set("relpages", Value::Int4(1))
        .set("reltuples", Value::Float4(1.0))
        .set("relpersistence", letter(b'p'))
        .set("relkind", letter(b'S'))
        .set("relnatts", Value::Int2(3))
        .set("relispopulated", Value::Bool(true))
        .set("relreplident", letter(b'n'))
        .done()
}

fn view_class(context: &StatementContext, view: &View) -> Row {
    relations()
        .catalog("pg_class")
        .row()
        .set("oid", oid(view.oid))
        .set("relname", text(&view.name))
        .set("relnamespace", oid(view.schema_oid))
        .set("reltype", oid(row_type_oid(view.oid)))
        .set("relowner", oid(role_oid(context, &view.owner)))
        .set("relpersistence", letter(b'p'))
        .set("relkind", letter(b'v'))
        .set("relnatts", Value::Int2(view.columns.len() as i16))
        .set("relhasrules", Value::Bool(true))
        .set("relispopulated", Value::Bool(true))
        .set("relreplident", letter(b'n'))
        .done()
}

pub fn sequences(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_sequence");
    let catalog = context.root.catalog();
    catalog
        .objects
        .values()
        .filter_map(|o| match &**o {
            CatalogObject::Sequence(s) => Some(
                relation
                    .row()
                    .set("seqrelid", oid(s.oid))
                    .set("seqtypid", oid(s.data_type.oid))
                    .set("seqstart", Value::Int8(s.start))
                    .set("seqincrement", Value::Int8(s.increment))
                    .set("seqmax", Value::Int8(s.max))
                    .set("seqmin", Value::Int8(s.min))
                    .set("seqcache", Value::Int8(s.cache))
                    .set("seqcycle", Value::Bool(s.cycle))
                    .done(),
            ),
            _ => None,
        })
        .collect()
}

/// What depends on what, as far as the catalog knows: columns' sequences, indexes, keys, constraints, defaults.
pub fn dependencies(context: &StatementContext) -> Vec<Row> {
    let all = relations();
    let depend = all.catalog("pg_depend");
    let class = all.catalog("pg_class").oid;
    let constraint_class = all.catalog("pg_constraint").oid;
    let default_class = all.catalog("pg_attrdef").oid;
    let row = |from: (Oid, Oid, i32), to: (Oid, Oid, i32), kind: u8| {
        depend
            .row()
            .set("classid", oid(from.0))
            .set("objid", oid(from.1))
            .set("objsubid", Value::Int4(from.2))
            .set("refclassid", oid(to.0))
            .set("refobjid", oid(to.1))
            .set("refobjsubid", Value::Int4(to.2))
            .set("deptype", letter(kind))
            .done()
    };
    let catalog = context.root.catalog();
    let mut rows = Vec::new();
    for object in catalog.objects.values() {
        match &**object {
            CatalogObject::Sequence(s) => {
                if let Some((table, attnum)) = s.owned_by {
                    let identity = catalog
                        .table(table)
                        .and_then(|t| t.columns.iter().find(|c| c.attnum == attnum))
                        .is_some_and(|c| c.identity.is_some());
                    rows.push(row((class, s.oid, 0), (class, table, i32::from(attnum)), if identity { b'i' } else { b'a' }));
                }
            }
            CatalogObject::Table(table) => {
                for (index, primary) in indexes_of(table) {
                    if primary || index.constraint {
                        rows.push(row((class, index.oid, 0), (constraint_class, index.oid, 0), b'i'));
                        rows.push(row((constraint_class, index.oid, 0), (class, table.oid, 0), b'a'));
                    } else {
                        rows.push(row((class, index.oid, 0), (class, table.oid, 0), b'a'));
                    }
                }
                for constraint in &table.constraints {
                    rows.push(row((constraint_class, constraint.oid, 0), (class, table.oid, 0), b'a'));
                }
                for column in table.columns.iter().filter(|c| c.default.is_some() || c.generated.is_some()) {
                    let id = crate::system::definitions::default_oid(table.oid, column.attnum);
                    rows.push(row((default_class, id, 0), (class, table.oid, i32::from(column.attnum)), b'a'));
                }
            }
            CatalogObject::Schema(_) | CatalogObject::Type(_) | CatalogObject::View(_) => {}
        }
    }
    rows
}
