//! pg_attribute and pg_attrdef: the columns of every relation.

use strandline_storage::schema::{Column, Identity, IndexKey};
use strandline_storage::{CatalogObject, Kind, Row, Value};

use super::relations::{RowMaker, relations};
use super::{CatalogRows, shared_rows};
use crate::catalog_data;
use crate::context::StatementContext;
use crate::system::builder::{letter, oid, text};
use crate::system::definitions::{default_oid, default_text, indexes_of};
use crate::types::{Oid, oid as types};

/// The collation `default`.
pub const DEFAULT_COLLATION: Oid = 100;

/// What pg_attribute repeats of a column's type.
pub struct TypeFacts {
    pub len: i16,
    pub by_value: bool,
    pub align: u8,
    pub storage: u8,
    pub collation: Oid,
    pub is_array: bool,
}

/// The facts about a type; those of a user's type follow from what it is.
pub fn type_facts(ty: Oid, kind: Kind) -> TypeFacts {
    if let Some(row) = catalog_data::catalog().type_by_oid(ty) {
        return TypeFacts {
            len: row.len,
            by_value: row.by_value,
            align: row.align,
            storage: row.storage,
            collation: row.collation,
            is_array: row.is_true_array(),
        };
    }
    let like = match kind {
        Kind::Enum => return TypeFacts { len: 4, by_value: true, align: b'i', storage: b'p', collation: 0, is_array: false },
        Kind::Array => return TypeFacts { len: -1, by_value: false, align: b'i', storage: b'x', collation: 0, is_array: true },
        Kind::Other => return TypeFacts { len: -1, by_value: false, align: b'd', storage: b'x', collation: 0, is_array: false },
        Kind::Bool => types::BOOL,
        Kind::Int2 => types::INT2,
        Kind::Int4 => types::INT4,
        Kind::Int8 | Kind::Lsn => types::INT8,
        Kind::Oid => types::OID,
        Kind::Float4 => types::FLOAT4,
        Kind::Float8 => types::FLOAT8,
        Kind::Numeric => types::NUMERIC,
        Kind::Money => types::MONEY,
        Kind::Text | Kind::Bpchar => types::TEXT,
        Kind::Bytea => types::BYTEA,
        Kind::Date => types::DATE,
        Kind::Time => types::TIME,
        Kind::Timetz => types::TIMETZ,
        Kind::Timestamp | Kind::Timestamptz => types::TIMESTAMP,
        Kind::Interval => types::INTERVAL,
        Kind::Uuid => types::UUID,
        Kind::Json | Kind::Jsonb => types::JSONB,
    };
    type_facts(like, kind)
}

/// The oid of a named collation; the database's for names that we do not have.
pub fn collation_oid(name: &str) -> Oid {
    let name = name.trim_matches('"').rsplit('.').next().unwrap_or(name).trim_matches('"');
    catalog_data::catalog().collations.iter().find(|c| c.name == name).map_or(DEFAULT_COLLATION, |c| c.oid)
}

fn attribute<'a>(relation: Oid, name: &str, attnum: i16, ty: Oid, typmod: i32, kind: Kind) -> RowMaker<'a> {
    let facts = type_facts(ty, kind);
    relations()
        .catalog("pg_attribute")
        .row()
        .set("attrelid", oid(relation))
        .set("attname", text(name))
        .set("atttypid", oid(ty))
        .set("attstattarget", Value::Int4(-1))
        .set("attlen", Value::Int2(facts.len))
        .set("attnum", Value::Int2(attnum))
        .set("attndims", Value::Int4(i32::from(facts.is_array)))
        .set("attcacheoff", Value::Int4(-1))
        .set("atttypmod", Value::Int4(typmod))
        .set("attbyval", Value::Bool(facts.by_value))
        .set("attalign", letter(facts.align))
        .set("attstorage", letter(facts.storage))
        .set("attislocal", Value::Bool(true))
        .set("attcollation", oid(facts.collation))
}

pub fn attributes(context: &StatementContext) -> CatalogRows {
    let mut rows = shared_rows!(system_attributes());
    let catalog = context.root.catalog();
    for object in catalog.objects.values() {
        match &**object {
            CatalogObject::Table(table) => {
                rows.own.extend(table.columns.iter().map(|c| table_attribute(table.oid, c)));
                for (index, _) in indexes_of(table) {
                    let keys = index.columns.iter().map(|c| &c.key);
                    let include: Vec<IndexKey> = index.include.iter().map(|&i| IndexKey::Column(i)).collect();
                    for (i, key) in keys.chain(&include).enumerate() {
                        rows.own.push(index_attribute(index.oid, (i + 1) as i16, key, &table.columns));
                    }
                }
            }
            CatalogObject::View(view) => {
                for (i, (name, ty)) in view.columns.iter().enumerate() {
                    rows.own.push(attribute(view.oid, name, (i + 1) as i16, ty.oid, ty.typmod, ty.kind).done());
                }
            }
            CatalogObject::Sequence(sequence) => {
                for (i, (name, ty)) in
                    [("last_value", types::INT8), ("log_cnt", types::INT8), ("is_called", types::BOOL)].into_iter().enumerate()
                {
                    let kind = if ty == types::BOOL { Kind::Bool } else { Kind::Int8 };
                    rows.own.push(attribute(sequence.oid, name, (i + 1) as i16, ty, -1, kind).set("attnotnull", Value::Bool(true)).done());
                }
            }
            CatalogObject::Schema(_) | CatalogObject::Type(_) => {}
        }
    }
    rows
}

pub fn system_attributes() -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in &relations().all {
        for (i, column) in relation.columns.iter().enumerate() {
            let kind = relation.shape.kinds[i];
            rows.push(
                attribute(relation.oid, column.name, (i + 1) as i16, column.ty.oid, column.ty.typmod, kind)
                    .set("attnotnull", Value::Bool(column.not_null))
                    .set("attcollation", oid(column.collation))
                    .done(),
            );
        }
    }
    rows
}

fn table_attribute(table: Oid, column: &Column) -> Row {
    let ty = &column.data_type;
    let mut row = attribute(table, &column.name, column.attnum, ty.oid, ty.typmod, ty.kind)
        .set("attnotnull", Value::Bool(column.not_null))
        .set("atthasdef", Value::Bool(column.default.is_some() || column.generated.is_some()))
        .set(
            "attidentity",
            match column.identity {
                Some(Identity::Always) => letter(b'a'),
                Some(Identity::ByDefault) => letter(b'd'),
                None => text(""),
            },
        )
        .set("attgenerated", if column.generated.is_some() { letter(b's') } else { text("") });
    if let Some(collation) = &column.collation {
        row = row.set("attcollation", oid(collation_oid(collation)));
    }
    row.done()
}

fn index_attribute(index: Oid, attnum: i16, key: &IndexKey, columns: &[Column]) -> Row {
    match key {
        IndexKey::Column(i) => match columns.get(*i) {
            Some(column) => {
                attribute(index, &column.name, attnum, column.data_type.oid, column.data_type.typmod, column.data_type.kind).done()
            }
            None => attribute(index, "?column?", attnum, types::TEXT, -1, Kind::Text).done(),
        },
        IndexKey::Expression(expression) => {
            // The store keeps the expression's text and not its type; most are text functions.
            let call = expression.split('(').next().unwrap_or("").trim();
            let name = if !call.is_empty() && call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') { call } else { "expr" };
            attribute(index, name, attnum, types::TEXT, -1, Kind::Text).done()
        }
    }
}

pub fn defaults(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_attrdef");
    let mut rows = Vec::new();
    for table in context.root.catalog().tables() {
        for column in &table.columns {
            if let Some(expression) = default_text(context, column) {
                rows.push(
                    relation
                        .row()
                        .set("oid", oid(default_oid(table.oid, column.attnum)))
                        .set("adrelid", oid(table.oid))
                        .set("adnum", Value::Int2(column.attnum))
                        .set("adbin", text(expression))
                        .done(),
                );
            }
        }
    }
    rows
}
