//! The versioned catalog: schemas, tables, sequences, types and views of one root value.
//!
//! Every object has an oid of its own that stays the same for its life, across branches and renames. SQL that
//! the store does not interpret (defaults, checks, view bodies) is kept as PostgreSQL's deparsed text.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::value::DataType;

/// An object's identifier, as PostgreSQL's; user objects start at [`FIRST_USER_OID`].
pub type Oid = u32;

/// The first oid given to an object made by a user, as in PostgreSQL.
pub const FIRST_USER_OID: Oid = 16384;

/// The oid of schema `public`, PostgreSQL's own.
pub const PUBLIC_SCHEMA_OID: Oid = 2200;

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// PostgreSQL's `attnum`: never reused after a column was dropped, so it identifies the column for life.
    pub attnum: i16,
    pub data_type: DataType,
    pub not_null: bool,
    /// The default expression as SQL text.
    pub default: Option<String>,
    pub identity: Option<Identity>,
    /// The expression of a stored generated column.
    pub generated: Option<String>,
    pub collation: Option<String>,
    pub comment: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    Always,
    ByDefault,
}

/// A primary key or an index. Positions are indexes into [`TableSchema::columns`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub oid: Oid,
    pub name: String,
    pub unique: bool,
    pub nulls_not_distinct: bool,
    pub columns: Vec<IndexColumn>,
    /// Positions of the columns in INCLUDE.
    pub include: Vec<usize>,
    /// The predicate of a partial index, as SQL text.
    pub predicate: Option<String>,
    /// `btree`, `hash`, `gin`, ...
    pub method: String,
    /// A UNIQUE constraint owns this index.
    pub constraint: bool,
    pub comment: Option<String>,
}

impl Index {
    /// Says whether the store keeps a tree for this index: plain columns, no predicate.
    /// Others are kept in the catalog only.
    pub fn is_stored(&self) -> bool {
        self.predicate.is_none() && self.columns.iter().all(|c| matches!(c.key, IndexKey::Column(_)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexColumn {
    pub key: IndexKey,
    pub descending: bool,
    pub nulls_first: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexKey {
    Column(usize),
    Expression(String),
}

/// A CHECK or FOREIGN KEY constraint: its definition as `pg_get_constraintdef` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    pub oid: Oid,
    pub name: String,
    pub kind: ConstraintKind,
    pub definition: String,
    /// Positions of the columns concerned.
    pub columns: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConstraintKind {
    Check { expression: String },
    ForeignKey { table: Oid, columns: Vec<usize> },
}

/// A table: its columns in order, its keys and constraints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    pub oid: Oid,
    pub schema_oid: Oid,
    pub name: String,
    pub owner: String,
    pub columns: Vec<Column>,
    /// The next `attnum`.
    pub next_attnum: i16,
    /// Columns are plain, unique and not null; the order is the key's. `None`: a keyless table.
    pub primary_key: Option<Index>,
    pub indexes: Vec<Index>,
    pub constraints: Vec<Constraint>,
    pub comment: Option<String>,
    /// Columns that a merge brought here under another `attnum` than they have in the history that was merged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged_columns: Vec<MergedColumn>,
}

/// A column that two branches number differently: both gave their next `attnum` to a column of their own, and a merge kept both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedColumn {
    /// The number here.
    pub attnum: i16,
    /// The number in the history that was merged.
    pub was: i16,
    /// The name that the column had there when it was merged, which tells it from a column with that number here.
    pub name: String,
}

impl TableSchema {
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The positions of the primary key's columns in key order; empty for a keyless table.
    pub fn key_columns(&self) -> Vec<usize> {
        self.primary_key
            .iter()
            .flat_map(|k| k.columns.iter())
            .map(|c| match c.key {
                IndexKey::Column(i) => i,
                IndexKey::Expression(_) => panic!("BUG: primary key on an expression"),
            })
            .collect()
    }

    /// Says whether a row has the same key bytes in both: they have primary keys, of the same columns and types.
    pub fn same_key(&self, other: &TableSchema) -> bool {
        let columns = |schema: &TableSchema| -> Option<Vec<_>> {
            let key = schema.primary_key.as_ref()?;
            let directions = key.columns.iter().map(|c| (c.descending, c.nulls_first));
            let column = |at: usize| schema.columns.get(at).map(|c| (c.attnum, c.data_type.kind));
            Some(schema.key_columns().into_iter().map(column).zip(directions).collect())
        };
        self.primary_key.is_some() && columns(self) == columns(other)
    }
}

/// A sequence's definition; its state is kept beside the working sets, as it is not transactional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    pub oid: Oid,
    pub schema_oid: Oid,
    pub name: String,
    pub owner: String,
    pub data_type: DataType,
    pub start: i64,
    pub increment: i64,
    pub min: i64,
    pub max: i64,
    pub cache: i64,
    pub cycle: bool,
    /// (table oid, attnum) that owns it.
    pub owned_by: Option<(Oid, i16)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    pub oid: Oid,
    pub name: String,
    pub owner: String,
    pub comment: Option<String>,
}

/// A type made by a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserType {
    pub oid: Oid,
    pub array_oid: Oid,
    pub schema_oid: Oid,
    pub name: String,
    pub owner: String,
    pub definition: TypeDefinition,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TypeDefinition {
    /// Labels in sort order.
    Enum(Vec<String>),
    Domain {
        base: DataType,
        not_null: bool,
        default: Option<String>,
        checks: Vec<(String, String)>,
    },
    Composite(Vec<(String, DataType)>),
    /// Known by name only; values are text.
    Opaque,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub oid: Oid,
    pub schema_oid: Oid,
    pub name: String,
    pub owner: String,
    pub columns: Vec<(String, DataType)>,
    /// The body as SQL text.
    pub query: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogObject {
    Schema(Schema),
    Table(Arc<TableSchema>),
    Sequence(Sequence),
    Type(UserType),
    View(View),
}

impl CatalogObject {
    pub fn oid(&self) -> Oid {
        match self {
            CatalogObject::Schema(o) => o.oid,
            CatalogObject::Table(o) => o.oid,
            CatalogObject::Sequence(o) => o.oid,
            CatalogObject::Type(o) => o.oid,
            CatalogObject::View(o) => o.oid,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            CatalogObject::Schema(o) => &o.name,
            CatalogObject::Table(o) => &o.name,
            CatalogObject::Sequence(o) => &o.name,
            CatalogObject::Type(o) => &o.name,
            CatalogObject::View(o) => &o.name,
        }
    }

    /// The oid of the schema that holds the object; `None` for a schema itself.
    pub fn schema_oid(&self) -> Option<Oid> {
        match self {
            CatalogObject::Schema(_) => None,
            CatalogObject::Table(o) => Some(o.schema_oid),
            CatalogObject::Sequence(o) => Some(o.schema_oid),
            CatalogObject::Type(o) => Some(o.schema_oid),
            CatalogObject::View(o) => Some(o.schema_oid),
        }
    }
}

/// All objects of one root value by oid. Cloning shares the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    pub objects: BTreeMap<Oid, Arc<CatalogObject>>,
}

impl Catalog {
    /// A new database's catalog: schema `public` alone.
    pub fn initial(owner: &str) -> Self {
        let public =
            Schema { oid: PUBLIC_SCHEMA_OID, name: "public".into(), owner: owner.into(), comment: Some("standard public schema".into()) };
        Catalog { objects: BTreeMap::from([(PUBLIC_SCHEMA_OID, Arc::new(CatalogObject::Schema(public)))]) }
    }

    pub fn get(&self, oid: Oid) -> Option<&Arc<CatalogObject>> {
        self.objects.get(&oid)
    }

    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.objects.values().find_map(|o| match &**o {
            CatalogObject::Schema(s) if s.name == name => Some(s),
            _ => None,
        })
    }

    pub fn schema_name(&self, oid: Oid) -> Option<&str> {
        match self.objects.get(&oid).map(|o| &**o) {
            Some(CatalogObject::Schema(s)) => Some(&s.name),
            _ => None,
        }
    }

    pub fn table(&self, oid: Oid) -> Option<&Arc<TableSchema>> {
        match self.objects.get(&oid).map(|o| &**o) {
            Some(CatalogObject::Table(t)) => Some(t),
            _ => None,
        }
    }

    /// The object with this name in this schema that lives in the name space of relations (tables, sequences, views).
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Arc<CatalogObject>> {
        let schema_oid = self.schema(schema)?.oid;
        self.objects.values().find(|o| {
            !matches!(&***o, CatalogObject::Type(_) | CatalogObject::Schema(_)) && o.schema_oid() == Some(schema_oid) && o.name() == name
        })
    }

    pub fn table_by_name(&self, schema: &str, name: &str) -> Option<&Arc<TableSchema>> {
        match &**self.relation(schema, name)? {
            CatalogObject::Table(t) => Some(t),
            _ => None,
        }
    }

    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableSchema>> {
        self.objects.values().filter_map(|o| match &**o {
            CatalogObject::Table(t) => Some(t),
            _ => None,
        })
    }

    /// `schema.table`, as results name a table.
    pub fn qualified_name(&self, table: &TableSchema) -> String {
        format!("{}.{}", self.schema_name(table.schema_oid).unwrap_or("?"), table.name)
    }
}
