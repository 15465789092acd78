//! Which relations pg_catalog and information_schema have, with PostgreSQL 15's columns: read from the files that
//! `sql/scripts/export-relations` writes, once.
//!
//! Rows are made by column name ([`RowMaker`]): a column that is not set gets NULL where PostgreSQL allows it and its
//! type's zero where it does not, so a catalog's code names only what it has something to say about.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use strandline_storage::{Kind, Physical, Row, Value};

use crate::system::builder::{Shape, kind_of, text};
use crate::types::{Oid, SqlType, oid};
use crate::virtual_table::VirtualColumn;

/// The oid of schema `pg_catalog`.
pub const PG_CATALOG_SCHEMA: Oid = 11;
/// The oid of schema `information_schema`, as initdb gives it.
pub const INFORMATION_SCHEMA: Oid = 13207;

/// A column of a system relation.
#[derive(Debug)]
pub struct SystemColumn {
    pub name: &'static str,
    /// The declared type; information_schema has domains here.
    pub ty: SqlType,
    pub not_null: bool,
    /// 0 for types without one.
    pub collation: Oid,
}

/// Columns that only we have, after PostgreSQL's: what replication is doing.
const OWN_COLUMNS: &[(&str, &str)] = &[
    ("pg_stat_subscription", "state:25:-1:0:100 durable_lsn:3220:-1:0 last_error:25:-1:0:100 last_error_time:1184:-1:0"),
    // By the names that PostgreSQL 18 gives to them.
    (
        "pg_stat_subscription_stats",
        "confl_insert_exists:20:-1:0 confl_update_exists:20:-1:0 confl_update_missing:20:-1:0 confl_delete_missing:20:-1:0",
    ),
];

/// A relation of pg_catalog or information_schema, indexes included.
#[derive(Debug)]
pub struct SystemRelation {
    pub oid: Oid,
    pub schema_oid: Oid,
    pub name: &'static str,
    /// `r`, `v` or `i`.
    pub kind: u8,
    pub access_method: Oid,
    pub row_type: Oid,
    pub row_array_type: Oid,
    pub shared: bool,
    pub columns: Vec<SystemColumn>,
    pub shape: Shape,
    positions: HashMap<&'static str, usize>,
}

/// A domain of information_schema (or its array type).
#[derive(Debug)]
pub struct SystemDomain {
    pub oid: Oid,
    pub name: &'static str,
    /// 0 for the array types.
    pub base: Oid,
    pub typmod: i32,
}

/// All system relations.
pub struct SystemRelations {
    pub all: Vec<SystemRelation>,
    pub domains: Vec<SystemDomain>,
    by_name: HashMap<(Oid, &'static str), usize>,
    by_oid: HashMap<Oid, usize>,
}

static RELATIONS: LazyLock<SystemRelations> = LazyLock::new(SystemRelations::load);

/// The system relations.
pub fn relations() -> &'static SystemRelations {
    &RELATIONS
}

fn number<T: std::str::FromStr>(field: &str) -> T {
    field.parse().unwrap_or_else(|_| panic!("BUG: bad number {field:?} in the relations file"))
}

impl SystemRelations {
    fn load() -> SystemRelations {
        let domains: Vec<SystemDomain> = Table::parse(include_str!("domains.tsv"))
            .rows
            .into_iter()
            .map(|f| SystemDomain { oid: number(f[0]), name: f[1], base: number(f[9]), typmod: number(f[10]) })
            .collect();
        let base_of = |ty: SqlType| match domains.iter().find(|d| d.oid == ty.oid && d.base != 0) {
            Some(domain) => SqlType { oid: domain.base, typmod: domain.typmod },
            None => ty,
        };
        let all: Vec<SystemRelation> = Table::parse(include_str!("relations.tsv"))
            .rows
            .into_iter()
            .map(|f| {
                let own = OWN_COLUMNS.iter().filter(|(name, _)| *name == f[2]).flat_map(|(_, columns)| columns.split(' '));
                let columns: Vec<SystemColumn> = f[8]
                    .split(' ')
                    .chain(own)
                    .map(|column| {
                        let parts: Vec<&'static str> = column.split(':').collect();
                        let ty = SqlType { oid: number(parts[1]), typmod: number(parts[2]) };
                        let collation = parts.get(4).map_or(0, |c| number(c));
                        SystemColumn { name: parts[0], ty, not_null: parts[3] == "1", collation }
                    })
                    .collect();
                let shape = Shape {
                    columns: columns.iter().map(|c| VirtualColumn { name: c.name.to_string(), ty: base_of(c.ty) }).collect(),
                    kinds: columns.iter().map(|c| kind_of(base_of(c.ty).oid)).collect(),
                };
                SystemRelation {
                    oid: number(f[0]),
                    schema_oid: if f[1] == "pg_catalog" { PG_CATALOG_SCHEMA } else { INFORMATION_SCHEMA },
                    name: f[2],
                    kind: f[3].as_bytes()[0],
                    access_method: number(f[4]),
                    row_type: number(f[5]),
                    row_array_type: number(f[6]),
                    shared: f[7] == "1",
                    positions: columns.iter().enumerate().map(|(i, c)| (c.name, i)).collect(),
                    columns,
                    shape,
                }
            })
            .collect();
        SystemRelations {
            by_name: all.iter().enumerate().map(|(i, r)| ((r.schema_oid, r.name), i)).collect(),
            by_oid: all.iter().enumerate().map(|(i, r)| (r.oid, i)).collect(),
            all,
            domains,
        }
    }

    /// A table or view (not an index) of pg_catalog or information_schema.
    pub fn table(&self, schema_oid: Oid, name: &str) -> Option<&SystemRelation> {
        self.relation(schema_oid, name).filter(|r| r.kind != b'i')
    }

    /// Any relation, indexes included.
    pub fn relation(&self, schema_oid: Oid, name: &str) -> Option<&SystemRelation> {
        self.by_name.get(&(schema_oid, name)).map(|&i| &self.all[i])
    }

    pub fn by_oid(&self, oid: Oid) -> Option<&SystemRelation> {
        self.by_oid.get(&oid).map(|&i| &self.all[i])
    }

    /// A relation of pg_catalog that the code names.
    pub fn catalog(&self, name: &str) -> &SystemRelation {
        self.relation(PG_CATALOG_SCHEMA, name).unwrap_or_else(|| panic!("BUG: no system relation {name}"))
    }
}

impl SystemRelation {
    pub fn position(&self, column: &str) -> Option<usize> {
        self.positions.get(column).copied()
    }

    /// A row in the making.
    pub fn row(&self) -> RowMaker<'_> {
        let row =
            self.columns.iter().zip(self.shape.kinds.iter()).map(|(c, kind)| if c.not_null { zero(c.ty.oid, *kind) } else { Value::Null });
        RowMaker { relation: self, row: row.collect() }
    }

    /// Rows from an exported file whose header names the catalog's columns (some of them).
    pub fn exported(&self, file: &'static str) -> Vec<Row> {
        let table = Table::parse(file);
        let targets: Vec<usize> = table
            .header
            .iter()
            .map(|name| self.position(name).unwrap_or_else(|| panic!("BUG: {} has no column {name}", self.name)))
            .collect();
        table
            .rows
            .iter()
            .map(|fields| {
                let mut row = self.row().done();
                for (field, &target) in fields.iter().zip(&targets) {
                    row[target] = self.field(target, field);
                }
                row
            })
            .collect()
    }

    fn field(&self, column: usize, field: &str) -> Value {
        if field == "\\N" {
            return Value::Null;
        }
        match self.shape.kinds[column].physical() {
            Physical::Bool => Value::Bool(field == "1"),
            Physical::Int2 => Value::Int2(number(field)),
            Physical::Int4 => Value::Int4(number(field)),
            Physical::Int8 => Value::Int8(number(field)),
            Physical::Float4 => Value::Float4(number(field)),
            Physical::Float8 => Value::Float8(number(field)),
            Physical::Uuid | Physical::Bytes => text(unescape(field)),
        }
    }
}

/// What a NOT NULL column holds when nothing else is known.
fn zero(ty: Oid, kind: Kind) -> Value {
    match kind.physical() {
        Physical::Bool => Value::Bool(false),
        Physical::Int2 => Value::Int2(0),
        Physical::Int4 => Value::Int4(0),
        Physical::Int8 => Value::Int8(0),
        Physical::Float4 => Value::Float4(0.0),
        Physical::Float8 => Value::Float8(0.0),
        Physical::Uuid => Value::Uuid([0; 16]),
        Physical::Bytes if kind == Kind::Array && ty != oid::OIDVECTOR && ty != oid::INT2VECTOR => text("{}"),
        Physical::Bytes => text(""),
    }
}

/// A row whose columns are set by name.
pub struct RowMaker<'a> {
    relation: &'a SystemRelation,
    row: Row,
}

impl RowMaker<'_> {
    /// # Panics
    /// When the relation has no such column.
    pub fn set(mut self, column: &str, value: Value) -> Self {
        let position = self.relation.position(column).unwrap_or_else(|| panic!("BUG: {} has no column {column}", self.relation.name));
        self.row[position] = value;
        self
    }

    pub fn done(self) -> Row {
        self.row
    }
}

/// Reads a COPY field's backslashes.
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

/// The lines of an exported file.
struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<&'static str>>,
}

impl Table {
    fn parse(file: &'static str) -> Table {
        let mut lines = file.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        Table { header: lines.next().unwrap_or_default(), rows: lines.collect() }
    }
}

/// Static rows that many scans share.
pub type SharedRows = Arc<Vec<Row>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exported_relations_have_their_columns() {
        let class = relations().catalog("pg_class");
        assert_eq!(class.oid, 1259);
        assert_eq!(class.position("relkind"), Some(16));
        assert_eq!(class.shape.columns[1].ty.oid, oid::NAME);
        let tables = relations().table(INFORMATION_SCHEMA, "tables").expect("information_schema.tables");
        assert_eq!(tables.shape.columns[0].ty.oid, oid::NAME, "domains show their base type");
        assert!(relations().table(PG_CATALOG_SCHEMA, "pg_class_oid_index").is_none());
    }

    #[test]
    fn a_row_has_zeros_where_null_is_not_allowed() {
        let row = relations().catalog("pg_class").row().set("relname", text("t")).done();
        assert_eq!(row[0], Value::Int8(0));
        assert_eq!(row[1], text("t"));
        assert_eq!(row[relations().catalog("pg_class").position("relacl").expect("relacl")], Value::Null);
    }
}
