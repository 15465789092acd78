//! information_schema.columns.

use strandline_storage::schema::{Column, Identity, TypeDefinition};
use strandline_storage::{CatalogObject, DataType, Kind, Row, Value};

use super::yes_or_no;
use crate::catalog_data;
use crate::context::StatementContext;
use crate::system::builder::{optional_text, text};
use crate::system::definitions::{default_text, expression_text, format_type, owned_sequence, schema_name, user_type};
use crate::system::pg_catalog::relations::{RowMaker, SystemRelation, relations};
use crate::system::refs::plain_database;
use crate::types::{Oid, SqlType, oid};

/// Bytes that the longest text without a limit may have, as PostgreSQL says it.
const TEXT_OCTETS: i32 = 1 << 30;
/// Bytes of a character of UTF-8 at most.
const OCTETS_PER_CHARACTER: i32 = 4;

/// What the standard's views say of a type: name, lengths, precisions.
pub struct TypeColumns {
    pub data_type: String,
    pub udt_schema: String,
    pub udt_name: String,
    pub character_length: Option<i32>,
    pub octet_length: Option<i32>,
    pub numeric_precision: Option<i32>,
    pub numeric_radix: Option<i32>,
    pub numeric_scale: Option<i32>,
    pub datetime_precision: Option<i32>,
    /// (schema, name) of a domain.
    pub domain: Option<(String, String)>,
}

/// Describes a type; a domain by its base type.
pub fn type_columns(context: &StatementContext, ty: SqlType) -> TypeColumns {
    let catalog = context.root.catalog();
    if let Some((user, is_array)) = user_type(catalog, ty.oid) {
        let schema = schema_name(catalog, user.schema_oid).unwrap_or("?").to_string();
        if let (TypeDefinition::Domain { base, .. }, false) = (&user.definition, is_array) {
            let mut columns = type_columns(context, SqlType { oid: base.oid, typmod: base.typmod });
            columns.domain = Some((schema, user.name.clone()));
            return columns;
        }
        let (data_type, name) = if is_array { ("ARRAY", format!("_{}", user.name)) } else { ("USER-DEFINED", user.name.clone()) };
        return plain(data_type.into(), schema, name);
    }
    if let Some(domain) = relations().domains.iter().find(|d| d.oid == ty.oid && d.base != 0) {
        let mut columns = type_columns(context, SqlType { oid: domain.base, typmod: domain.typmod });
        columns.domain = Some(("information_schema".into(), domain.name.into()));
        return columns;
    }
    let row = catalog_data::catalog().type_by_oid(ty.oid);
    let data_type = if row.is_some_and(|r| r.is_true_array()) { "ARRAY".to_string() } else { format_type(context, ty.oid, None) };
    let mut columns = plain(data_type, "pg_catalog".into(), row.map_or("?", |r| r.name).to_string());
    let typmod = ty.typmod;
    let limited = typmod >= 0;
    match ty.oid {
        oid::BPCHAR | oid::VARCHAR => {
            columns.character_length = limited.then_some(typmod - 4);
            columns.octet_length = Some(if limited { (typmod - 4).saturating_mul(OCTETS_PER_CHARACTER) } else { TEXT_OCTETS });
        }
        oid::TEXT => columns.octet_length = Some(TEXT_OCTETS),
        oid::BIT | oid::VARBIT => columns.character_length = limited.then_some(typmod),
        oid::INT2 | oid::INT4 | oid::INT8 => {
            columns.numeric_precision = Some(match ty.oid {
                oid::INT2 => 16,
                oid::INT4 => 32,
                _ => 64,
            });
            columns.numeric_radix = Some(2);
            columns.numeric_scale = Some(0);
        }
        oid::FLOAT4 | oid::FLOAT8 => {
            columns.numeric_precision = Some(if ty.oid == oid::FLOAT4 { 24 } else { 53 });
            columns.numeric_radix = Some(2);
        }
        oid::NUMERIC => {
            columns.numeric_precision = limited.then_some((typmod - 4) >> 16 & 0xffff);
            columns.numeric_radix = Some(10);
            columns.numeric_scale = limited.then_some((typmod - 4) & 0xffff);
        }
        oid::DATE => columns.datetime_precision = Some(0),
        oid::TIME | oid::TIMETZ | oid::TIMESTAMP | oid::TIMESTAMPTZ => columns.datetime_precision = Some(if limited { typmod } else { 6 }),
        oid::INTERVAL => {
            columns.datetime_precision = Some(if limited && typmod & 0xffff != 0xffff { typmod & 0xffff } else { 6 });
        }
        _ => {}
    }
    columns
}

fn plain(data_type: String, udt_schema: String, udt_name: String) -> TypeColumns {
    TypeColumns {
        data_type,
        udt_schema,
        udt_name,
        character_length: None,
        octet_length: None,
        numeric_precision: None,
        numeric_radix: None,
        numeric_scale: None,
        datetime_precision: None,
        domain: None,
    }
}

fn number(value: Option<i32>) -> Value {
    value.map_or(Value::Null, Value::Int4)
}

/// Sets the columns that describe a type.
pub fn set_type<'a>(row: RowMaker<'a>, columns: &TypeColumns, database: &str) -> RowMaker<'a> {
    row.set("data_type", text(&columns.data_type))
        .set("character_maximum_length", number(columns.character_length))
        .set("character_octet_length", number(columns.octet_length))
        .set("numeric_precision", number(columns.numeric_precision))
        .set("numeric_precision_radix", number(columns.numeric_radix))
        .set("numeric_scale", number(columns.numeric_scale))
        .set("datetime_precision", number(columns.datetime_precision))
        .set("udt_catalog", text(database))
        .set("udt_schema", text(&columns.udt_schema))
        .set("udt_name", text(&columns.udt_name))
}

struct Position<'a> {
    schema: &'a str,
    table: &'a str,
    column: &'a str,
    number: i16,
    not_null: bool,
    updatable: bool,
}

fn base_row<'a>(relation: &'a SystemRelation, context: &StatementContext, at: &Position<'_>, ty: SqlType) -> RowMaker<'a> {
    let database = plain_database(context);
    let columns = type_columns(context, ty);
    let row = relation
        .row()
        .set("table_catalog", text(database))
        .set("table_schema", text(at.schema))
        .set("table_name", text(at.table))
        .set("column_name", text(at.column))
        .set("ordinal_position", Value::Int4(i32::from(at.number)))
        .set("is_nullable", yes_or_no(!at.not_null))
        .set("dtd_identifier", text(at.number.to_string()))
        .set("is_self_referencing", yes_or_no(false))
        .set("is_identity", yes_or_no(false))
        .set("identity_cycle", yes_or_no(false))
        .set("is_generated", text("NEVER"))
        .set("is_updatable", yes_or_no(at.updatable));
    let row = set_type(row, &columns, database);
    match &columns.domain {
        Some((schema, name)) => row.set("domain_catalog", text(database)).set("domain_schema", text(schema)).set("domain_name", text(name)),
        None => row,
    }
}

fn type_of(ty: &DataType) -> SqlType {
    SqlType { oid: ty.oid, typmod: ty.typmod }
}

pub fn columns(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    let catalog = context.root.catalog();
    let mut rows = Vec::new();
    for system in relations().all.iter().filter(|r| r.kind != b'i') {
        let schema = schema_name(catalog, system.schema_oid).unwrap_or("?");
        for (i, column) in system.columns.iter().enumerate() {
            let at = Position {
                schema,
                table: system.name,
                column: column.name,
                number: (i + 1) as i16,
                not_null: column.not_null,
                updatable: system.kind == b'r',
            };
            rows.push(base_row(relation, context, &at, column.ty).done());
        }
    }
    for object in catalog.objects.values() {
        match &**object {
            CatalogObject::Table(table) => {
                let schema = catalog.schema_name(table.schema_oid).unwrap_or("?");
                for column in &table.columns {
                    let at = Position {
                        schema,
                        table: &table.name,
                        column: &column.name,
                        number: column.attnum,
                        not_null: column.not_null,
                        updatable: true,
                    };
                    let row = base_row(relation, context, &at, type_of(&column.data_type));
                    rows.push(table_column(context, row, table.oid, column).done());
                }
            }
            CatalogObject::View(view) => {
                let schema = catalog.schema_name(view.schema_oid).unwrap_or("?");
                for (i, (name, ty)) in view.columns.iter().enumerate() {
                    let at =
                        Position { schema, table: &view.name, column: name, number: (i + 1) as i16, not_null: false, updatable: false };
                    rows.push(base_row(relation, context, &at, type_of(ty)).done());
                }
            }
            CatalogObject::Schema(_) | CatalogObject::Sequence(_) | CatalogObject::Type(_) => {}
        }
    }
    rows
}

fn table_column<'a>(context: &StatementContext, row: RowMaker<'a>, table: Oid, column: &Column) -> RowMaker<'a> {
    let mut row = match &column.generated {
        Some(expression) => row.set("is_generated", text("ALWAYS")).set("generation_expression", text(expression)),
        None => {
            let default = default_text(context, column).map(|d| expression_text(context, &d));
            row.set("column_default", optional_text(default))
        }
    };
    if let Some(collation) = column.collation.as_deref().filter(|c| *c != "default")
        && matches!(column.data_type.kind, Kind::Text | Kind::Bpchar)
    {
        row = row
            .set("collation_catalog", text(plain_database(context)))
            .set("collation_schema", text("pg_catalog"))
            .set("collation_name", text(collation.rsplit('.').next().unwrap_or(collation).trim_matches('"')));
    }
    if let Some(identity) = column.identity {
        row = row.set("is_identity", yes_or_no(true)).set(
            "identity_generation",
            text(match identity {
                Identity::Always => "ALWAYS",
                Identity::ByDefault => "BY DEFAULT",
            }),
        );
        if let Some(sequence) = owned_sequence(context.root.catalog(), table, column.attnum) {
            row = row
                .set("identity_start", text(sequence.start.to_string()))
                .set("identity_increment", text(sequence.increment.to_string()))
                .set("identity_maximum", text(sequence.max.to_string()))
                .set("identity_minimum", text(sequence.min.to_string()))
                .set("identity_cycle", yes_or_no(sequence.cycle));
        }
    }
    row
}
