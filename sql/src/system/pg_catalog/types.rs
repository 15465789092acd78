//! pg_type, pg_enum, pg_range, pg_cast, pg_collation.

use strandline_storage::schema::{TypeDefinition, UserType};
use strandline_storage::{CatalogObject, Row, Value};

use super::attributes::type_facts;
use super::classes::BOOTSTRAP_ROLE;
use super::cluster::role_oid;
use super::relations::{INFORMATION_SCHEMA, PG_CATALOG_SCHEMA, RowMaker, relations};
use super::{CatalogRows, shared_rows};
use crate::catalog_data;
use crate::context::StatementContext;
use crate::system::builder::{letter, oid, text};
use crate::system::definitions::{default_oid, row_array_type_oid, row_type_oid};
use crate::types::Oid;

/// Functions of pg_proc that types of these families share.
mod io {
    pub const ARRAY: [u32; 4] = [750, 751, 2400, 2401];
    pub const ARRAY_SUBSCRIPT: u32 = 6179;
    pub const ARRAY_ANALYZE: u32 = 3816;
    pub const ENUM: [u32; 4] = [3506, 3507, 3532, 3533];
    pub const RECORD: [u32; 4] = [2290, 2291, 2402, 2403];
    /// Domains read through these and print as their base type.
    pub const DOMAIN_IN: [u32; 2] = [2597, 2598];
}

struct NewType<'a> {
    oid: Oid,
    name: &'a str,
    schema: Oid,
    owner: Oid,
    kind: u8,
    category: u8,
    relation: Oid,
    element: Oid,
    array: Oid,
    io: [u32; 4],
}

fn base_row(t: &NewType<'_>) -> RowMaker<'static> {
    relations()
        .catalog("pg_type")
        .row()
        .set("oid", oid(t.oid))
        .set("typname", text(t.name))
        .set("typnamespace", oid(t.schema))
        .set("typowner", oid(t.owner))
        .set("typlen", Value::Int2(-1))
        .set("typtype", letter(t.kind))
        .set("typcategory", letter(t.category))
        .set("typisdefined", Value::Bool(true))
        .set("typdelim", letter(b','))
        .set("typrelid", oid(t.relation))
        .set("typelem", oid(t.element))
        .set("typarray", oid(t.array))
        .set("typinput", oid(t.io[0]))
        .set("typoutput", oid(t.io[1]))
        .set("typreceive", oid(t.io[2]))
        .set("typsend", oid(t.io[3]))
        .set("typalign", letter(b'i'))
        .set("typstorage", letter(b'x'))
        .set("typtypmod", Value::Int4(-1))
}

fn array_row(id: Oid, name: &str, schema: Oid, owner: Oid, element: Oid, align: u8) -> Row {
    let array = NewType { oid: id, name, schema, owner, kind: b'b', category: b'A', relation: 0, element, array: 0, io: io::ARRAY };
    base_row(&array)
        .set("typsubscript", oid(io::ARRAY_SUBSCRIPT))
        .set("typanalyze", oid(io::ARRAY_ANALYZE))
        .set("typalign", letter(align))
        .done()
}

/// The name of the array type over a type, cut as PostgreSQL cuts it.
fn array_name(name: &str) -> String {
    let mut out = format!("_{name}");
    while out.len() > 63 {
        out.pop();
    }
    out
}

pub fn types(context: &StatementContext) -> CatalogRows {
    let mut rows = shared_rows!(system_types());
    let catalog = context.root.catalog();
    for object in catalog.objects.values() {
        let owner = role_oid(context, crate::system::definitions::owner_of(object));
        match &**object {
            CatalogObject::Table(t) => row_types(&mut rows.own, t.oid, &t.name, t.schema_oid, owner),
            CatalogObject::View(v) => row_types(&mut rows.own, v.oid, &v.name, v.schema_oid, owner),
            CatalogObject::Type(t) => user_types(&mut rows.own, t, owner),
            CatalogObject::Schema(_) | CatalogObject::Sequence(_) => {}
        }
    }
    rows
}

fn row_types(rows: &mut Vec<Row>, relation: Oid, name: &str, schema: Oid, owner: Oid) {
    let (id, array) = (row_type_oid(relation), row_array_type_oid(relation));
    let row = NewType { oid: id, name, schema, owner, kind: b'c', category: b'C', relation, element: 0, array, io: io::RECORD };
    rows.push(base_row(&row).set("typalign", letter(b'd')).done());
    rows.push(array_row(array, &array_name(name), schema, owner, id, b'd'));
}

fn user_types(rows: &mut Vec<Row>, ty: &UserType, owner: Oid) {
    let mut new = NewType {
        oid: ty.oid,
        name: &ty.name,
        schema: ty.schema_oid,
        owner,
        kind: b'b',
        category: b'U',
        relation: 0,
        element: 0,
        array: ty.array_oid,
        io: [0; 4],
    };
    let mut align = b'i';
    match &ty.definition {
        TypeDefinition::Enum(_) => {
            (new.kind, new.category, new.io) = (b'e', b'E', io::ENUM);
            let row = base_row(&new).set("typlen", Value::Int2(4)).set("typbyval", Value::Bool(true)).set("typstorage", letter(b'p'));
            rows.push(row.done());
        }
        TypeDefinition::Composite(_) => {
            (new.kind, new.category, new.io) = (b'c', b'C', io::RECORD);
            align = b'd';
            rows.push(base_row(&new).set("typalign", letter(align)).done());
        }
        TypeDefinition::Domain { base, not_null, default, .. } => {
            let facts = type_facts(base.oid, base.kind);
            let base_type = catalog_data::catalog().type_by_oid(base.oid);
            new.kind = b'd';
            new.category = base_type.map_or(b'U', |t| t.category);
            new.io = [io::DOMAIN_IN[0], base_type.map_or(0, |t| t.output), io::DOMAIN_IN[1], base_type.map_or(0, |t| t.send)];
            align = facts.align;
            let mut row = base_row(&new)
                .set("typlen", Value::Int2(facts.len))
                .set("typbyval", Value::Bool(facts.by_value))
                .set("typalign", letter(facts.align))
                .set("typstorage", letter(facts.storage))
                .set("typcollation", oid(facts.collation))
                .set("typnotnull", Value::Bool(*not_null))
                .set("typbasetype", oid(base.oid))
                .set("typtypmod", Value::Int4(base.typmod));
            if let Some(default) = default {
                row = row.set("typdefault", text(default)).set("typdefaultbin", text(default));
            }
            rows.push(row.done());
        }
        TypeDefinition::Opaque => rows.push(base_row(&new).done()),
    }
    if ty.array_oid != 0 {
        rows.push(array_row(ty.array_oid, &array_name(&ty.name), ty.schema_oid, owner, ty.oid, align));
    }
}

pub fn system_types() -> Vec<Row> {
    let all = relations();
    let relation = all.catalog("pg_type");
    let set = |row: &mut Row, column: &str, value: Value| {
        let position = relation.position(column).unwrap_or_else(|| panic!("BUG: pg_type has no column {column}"));
        row[position] = value;
    };
    let mut rows = relation.exported(include_str!("../../catalog_data/pg_type.tsv"));
    for row in &mut rows {
        set(row, "typnamespace", oid(PG_CATALOG_SCHEMA));
        set(row, "typtypmod", Value::Int4(-1));
    }
    for relation in all.all.iter().filter(|r| r.row_type != 0) {
        let row = NewType {
            oid: relation.row_type,
            name: relation.name,
            schema: relation.schema_oid,
            owner: BOOTSTRAP_ROLE,
            kind: b'c',
            category: b'C',
            relation: relation.oid,
            element: 0,
            array: relation.row_array_type,
            io: io::RECORD,
        };
        rows.push(base_row(&row).set("typalign", letter(b'd')).done());
        if relation.row_array_type != 0 {
            let name = array_name(relation.name);
            rows.push(array_row(relation.row_array_type, &name, relation.schema_oid, BOOTSTRAP_ROLE, relation.row_type, b'd'));
        }
    }
    let mut domains = relation.exported(include_str!("domains.tsv"));
    for row in &mut domains {
        set(row, "typnamespace", oid(INFORMATION_SCHEMA));
    }
    rows.append(&mut domains);
    for row in &mut rows {
        set(row, "typowner", oid(BOOTSTRAP_ROLE));
        set(row, "typisdefined", Value::Bool(true));
        let delimiter = relation.position("typdelim").expect("BUG: pg_type has typdelim");
        if row[delimiter] == text("") {
            row[delimiter] = letter(b',');
        }
    }
    rows
}

pub fn enum_labels(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_enum");
    let mut rows = Vec::new();
    for object in context.root.catalog().objects.values() {
        let CatalogObject::Type(ty) = &**object else { continue };
        let TypeDefinition::Enum(labels) = &ty.definition else { continue };
        for (i, label) in labels.iter().enumerate() {
            rows.push(
                relation
                    .row()
                    .set("oid", oid(default_oid(ty.oid, (i + 1) as i16)))
                    .set("enumtypid", oid(ty.oid))
                    .set("enumsortorder", Value::Float4((i + 1) as f32))
                    .set("enumlabel", text(label))
                    .done(),
            );
        }
    }
    rows
}

pub fn ranges() -> CatalogRows {
    shared_rows!(relations().catalog("pg_range").exported(include_str!("../../catalog_data/pg_range.tsv")))
}

pub fn casts() -> CatalogRows {
    shared_rows!(relations().catalog("pg_cast").exported(include_str!("../../catalog_data/pg_cast.tsv")))
}

pub fn collations() -> CatalogRows {
    shared_rows!({
        let relation = relations().catalog("pg_collation");
        let mut rows = relation.exported(include_str!("../../catalog_data/pg_collation.tsv"));
        for row in &mut rows {
            for (column, value) in [("collnamespace", oid(PG_CATALOG_SCHEMA)), ("collowner", oid(BOOTSTRAP_ROLE))] {
                row[relation.position(column).expect("BUG: pg_collation has its columns")] = value;
            }
        }
        rows
    })
}
