//! The primary's types, translated into ours.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strandline_storage::schema::{CatalogObject, Column, TableSchema, TypeDefinition, UserType};
use strandline_storage::{DataType, Edit, Kind};
use tokio_postgres::Client;

use super::create::ensure_schema;
use super::maker::{Maker, without_parentheses};
use crate::error::{Error, Result};

/// The first oid that an object made by a user (or an extension) has on the primary.
const FIRST_NORMAL_OID: u32 = 16384;

/// How many steps lead from a type to its base at most: domains over domains, arrays of them.
const DEPTH_MAX: usize = 32;

/// Types of the primary by oid, those that they are made of included.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteTypes {
    types: HashMap<u32, RemoteType>,
}

/// A type of the primary that is not built in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteType {
    oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `b`ase, `c`omposite, `d`omain, `e`num, `p`seudo, `r`ange, `m`ultirange.
    kind: String,
    base: u32,
    base_typmod: i32,
    /// What the array holds, if it is one.
    element: u32,
    /// An enum's, in order.
    labels: Vec<String>,
    /// A domain's.
    not_null: bool,
    default: Option<String>,
    checks: Vec<RemoteCheck>,
    /// A composite's.
    fields: Vec<RemoteField>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RemoteCheck {
    name: String,
    expression: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RemoteField {
    name: String,
    type_oid: u32,
    typmod: i32,
}

/// An expression for the type `t` (of pg_type, in the namespace `n`) as `jsonb`.
pub(crate) fn type_json() -> &'static str {
    "pg_catalog.jsonb_build_object('oid', t.oid::int8, 'schema', n.nspname, 'name', t.typname, 'kind', t.typtype::text, \
'base', t.typbasetype::int8, 'base_typmod', t.typtypmod, 'element', CASE WHEN t.typcategory = 'A' THEN t.typelem::int8 ELSE 0 END, \
'labels', pg_catalog.to_jsonb(ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)), \
'not_null', t.typnotnull, 'default', CASE WHEN t.typtype = 'd' THEN pg_catalog.pg_get_expr(t.typdefaultbin, 'pg_catalog.pg_type'::pg_catalog.regclass) END, \
'checks', coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', k.conname, 'expression', pg_catalog.pg_get_expr(k.conbin, 0)) \
ORDER BY k.conname) FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'), '[]'), \
'fields', coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', f.attname, 'type_oid', f.atttypid::int8, 'typmod', f.atttypmod) \
ORDER BY f.attnum) FROM pg_catalog.pg_attribute f WHERE t.typtype = 'c' AND f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped), '[]'))"
}

/// Reads these types and what they are made of. Built-in ones are known already.
pub(crate) async fn read_types(client: &Client, oids: impl IntoIterator<Item = u32>) -> Result<RemoteTypes> {
    let failed = |e| Error::from_sql("read the primary's types", e);
    let sql = format!(
        "SELECT {}::text FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = ANY($1)",
        type_json()
    );
    let mut types = RemoteTypes::default();
    let mut wanted: Vec<u32> = oids.into_iter().filter(|oid| *oid >= FIRST_NORMAL_OID).collect();
    for _ in 0..DEPTH_MAX {
        if wanted.is_empty() {
            break;
        }
        let mut next = Vec::new();
        for row in client.query(&sql, &[&wanted]).await.map_err(failed)? {
            let text: String = row.try_get(0).map_err(failed)?;
            let found: RemoteType =
                serde_json::from_str(&text).map_err(|e| Error::Protocol(format!("a type's definition that is none: {e}")))?;
            let parts = [found.base, found.element].into_iter().chain(found.fields.iter().map(|field| field.type_oid));
            next.extend(parts.filter(|oid| *oid >= FIRST_NORMAL_OID));
            types.add(found);
        }
        next.retain(|oid| !types.types.contains_key(oid));
        wanted = next;
    }
    Ok(types)
}

impl RemoteTypes {
    /// The types that a table's definition brings with it.
    pub(crate) fn of_table(table: &super::RemoteTable) -> Self {
        let mut types = RemoteTypes::default();
        table.types.iter().cloned().for_each(|found| types.add(found));
        types
    }

    pub(crate) fn add(&mut self, found: RemoteType) {
        self.types.insert(found.oid, found);
    }

    /// The default of a domain.
    pub(crate) fn default_of(&self, oid: u32) -> Option<&str> {
        self.types.get(&oid)?.default.as_deref()
    }

    /// Adds what is not known yet.
    pub(crate) fn add_missing(&mut self, others: &[RemoteType]) {
        for other in others {
            self.types.entry(other.oid).or_insert_with(|| other.clone());
        }
    }

    /// Adds a type known from the stream only: by name.
    pub(crate) fn add_named(&mut self, oid: u32, schema: &str, name: &str) {
        let r#type = RemoteType {
            oid,
            schema: schema.into(),
            name: name.into(),
            kind: "b".into(),
            base: 0,
            base_typmod: -1,
            element: 0,
            labels: Vec::new(),
            not_null: false,
            default: None,
            checks: Vec::new(),
            fields: Vec::new(),
        };
        self.types.entry(oid).or_insert(r#type);
    }

    /// Our type for one of the primary's. Types that are not built in become objects of ours with the same names.
    pub(crate) fn translate(&self, maker: Maker<'_>, edit: &mut Edit, oid: u32, typmod: i32) -> Result<DataType> {
        self.translate_within(maker, edit, oid, typmod, 0)
    }

    /// The type itself, or what a domain is made of in the end.
    pub(crate) fn base_of(&self, oid: u32) -> u32 {
        let mut base = oid;
        for _ in 0..DEPTH_MAX {
            match self.types.get(&base) {
                Some(remote) if remote.kind == "d" => base = remote.base,
                _ => break,
            }
        }
        base
    }

    pub(crate) fn is_enum(&self, oid: u32) -> bool {
        self.types.get(&oid).is_some_and(|remote| remote.kind == "e")
    }

    /// The name of a type whose values we keep as their text and do not understand; nothing for the others.
    pub(crate) fn kept_as_text(&self, oid: u32) -> Option<String> {
        self.kept_as_text_within(oid, 0)
    }

    fn kept_as_text_within(&self, oid: u32, depth: usize) -> Option<String> {
        if let Some(data_type) = DataType::builtin(oid, -1) {
            let kind = data_type.element.as_ref().map_or(data_type.kind, |element| element.kind);
            return (kind == Kind::Other).then(|| data_type.name.to_string());
        }
        let Some(remote) = self.types.get(&oid).filter(|_| depth < DEPTH_MAX) else { return Some(format!("type {oid}")) };
        match remote.kind.as_str() {
            "d" => self.kept_as_text_within(remote.base, depth + 1),
            _ if remote.element != 0 => self.kept_as_text_within(remote.element, depth + 1),
            "e" => None,
            _ if remote.name == "citext" => None,
            _ => Some(format!("{}.{}", remote.schema, remote.name)),
        }
    }

    fn translate_within(&self, maker: Maker<'_>, edit: &mut Edit, oid: u32, typmod: i32, depth: usize) -> Result<DataType> {
        if let Some(data_type) = DataType::builtin(oid, typmod) {
            // The primary prints what the oid names there (a table, a type), which means nothing here: the text is kept.
            let is_alias = |t: &DataType| t.kind == Kind::Oid && t.name.starts_with("reg");
            let keeps_text = is_alias(&data_type) || data_type.element.as_ref().is_some_and(|element| is_alias(element));
            return Ok(if keeps_text { DataType { oid: 0, kind: Kind::Other, element: None, ..data_type } } else { data_type });
        }
        let unknown = || DataType { oid: 0, typmod: -1, name: format!("type {oid}").into(), kind: Kind::Other, element: None };
        let Some(remote) = self.types.get(&oid).filter(|_| depth < DEPTH_MAX) else { return Ok(unknown()) };
        if remote.element != 0 && remote.kind != "d" {
            let element = self.translate_within(maker, edit, remote.element, typmod, depth + 1)?;
            let array_oid = match DataType::builtin_array_oid(element.oid) {
                Some(oid) => oid,
                None => user_type(edit, element.oid).map_or(0, |t| t.array_oid),
            };
            return Ok(element.array_of(array_oid));
        }
        if remote.schema == "pg_catalog" {
            // Built in there and not here (a later server's): known by its name only.
            return Ok(DataType { oid: 0, typmod, name: remote.name.as_str().into(), kind: Kind::Other, element: None });
        }
        let name: Arc<str> = format!("{}.{}", remote.schema, remote.name).into();
        let oid = self.ensure_user_type(maker, edit, remote, depth)?;
        if let Some(TypeDefinition::Domain { base, .. }) = user_type(edit, oid).map(|t| &t.definition) {
            // Values of a domain are kept as those of what it is over.
            return Ok(DataType { oid, typmod: base.typmod, name, kind: base.kind, element: base.element.clone() });
        }
        let kind = match remote.kind.as_str() {
            "e" => Kind::Enum,
            _ if remote.name == "citext" => Kind::Text,
            _ => Kind::Other,
        };
        Ok(DataType { oid, typmod, name, kind, element: None })
    }

    /// What the primary's type is here; types that it is made of are made, too.
    fn definition(&self, maker: Maker<'_>, edit: &mut Edit, remote: &RemoteType, depth: usize) -> Result<TypeDefinition> {
        Ok(match remote.kind.as_str() {
            "e" => TypeDefinition::Enum(remote.labels.clone()),
            "c" => {
                let mut fields = Vec::with_capacity(remote.fields.len());
                for field in &remote.fields {
                    fields.push((field.name.clone(), self.translate_within(maker, edit, field.type_oid, field.typmod, depth + 1)?));
                }
                TypeDefinition::Composite(fields)
            }
            "d" => {
                let base = self.translate_within(maker, edit, remote.base, remote.base_typmod, depth + 1)?;
                let name = format!("{}.{}", remote.schema, remote.name);
                let default = remote.default.clone().filter(|text| maker.takes_value(edit, None, text, &base, &name, "its default"));
                let mut checks = Vec::with_capacity(remote.checks.len());
                for check in &remote.checks {
                    let expression = without_parentheses(&check.expression).to_owned();
                    let row = value_row(&base);
                    if maker.takes_condition(edit, &row, &expression, &name, &check.name) {
                        checks.push((check.name.clone(), expression));
                    }
                }
                TypeDefinition::Domain { base, not_null: remote.not_null, default, checks }
            }
            _ => TypeDefinition::Opaque,
        })
    }

    fn ensure_user_type(&self, maker: Maker<'_>, edit: &mut Edit, remote: &RemoteType, depth: usize) -> Result<u32> {
        let schema_oid = ensure_schema(maker.store, edit, &remote.schema)?;
        if let Some(existing) = type_named(edit, schema_oid, &remote.name) {
            return Ok(existing.oid);
        }
        let definition = self.definition(maker, edit, remote, depth)?;
        let user_type = UserType {
            oid: maker.store.next_oid()?,
            array_oid: maker.store.next_oid()?,
            schema_oid,
            name: remote.name.clone(),
            owner: super::create::owner(edit),
            definition,
        };
        let oid = user_type.oid;
        edit.put_object(CatalogObject::Type(user_type))?;
        Ok(oid)
    }

    /// The type here that has the name of one of the primary's.
    pub(crate) fn find_here<'a>(&self, edit: &'a Edit, remote: &RemoteType) -> Option<&'a UserType> {
        let schema_oid = edit.root().catalog().schema(&remote.schema)?.oid;
        type_named(edit, schema_oid, &remote.name)
    }

    /// Gives a type that is here the definition that it has on the primary now. Does nothing for a type that is not here, or that is of another kind here.
    /// Returns whether something changed.
    pub(crate) fn update(&self, maker: Maker<'_>, edit: &mut Edit, remote: &RemoteType) -> Result<bool> {
        let Some(mut here) = self.find_here(edit, remote).cloned() else { return Ok(false) };
        let now = self.definition(maker, edit, remote, 0)?;
        let fits = match (&here.definition, &now) {
            (TypeDefinition::Domain { base, .. }, TypeDefinition::Domain { base: other, .. }) => base == other,
            (here, now) => std::mem::discriminant(here) == std::mem::discriminant(now),
        };
        if !fits || here.definition == now {
            return Ok(false);
        }
        here.definition = now;
        edit.put_object(CatalogObject::Type(here))?;
        Ok(true)
    }
}

fn type_named<'a>(edit: &'a Edit, schema_oid: u32, name: &str) -> Option<&'a UserType> {
    edit.root().catalog().objects.values().find_map(|object| match &**object {
        CatalogObject::Type(t) if t.schema_oid == schema_oid && t.name == name => Some(t),
        _ => None,
    })
}

fn user_type(edit: &Edit, oid: u32) -> Option<&UserType> {
    match edit.root().catalog().get(oid).map(|object| &**object) {
        Some(CatalogObject::Type(user_type)) => Some(user_type),
        _ => None,
    }
}

/// A domain's condition sees the value as the only column of a row.
fn value_row(base: &DataType) -> TableSchema {
    let value = Column {
        name: "value".into(),
        attnum: 1,
        data_type: base.clone(),
        not_null: false,
        default: None,
        identity: None,
        generated: None,
        collation: None,
        comment: None,
    };
    TableSchema {
        oid: 0,
        schema_oid: 0,
        name: "value".into(),
        owner: String::new(),
        columns: vec![value],
        next_attnum: 2,
        primary_key: None,
        indexes: Vec::new(),
        constraints: Vec::new(),
        comment: None,
        merged_columns: Vec::new(),
    }
}
