//! The primary's types, translated into ours.

use std::collections::HashMap;

use strandline_storage::schema::{CatalogObject, TypeDefinition, UserType};
use strandline_storage::store::Store;
use strandline_storage::{DataType, Edit, Kind};
use tokio_postgres::Client;

use super::create::ensure_schema;
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

#[derive(Clone, Debug)]
struct RemoteType {
    schema: String,
    name: String,
    /// `b`ase, `c`omposite, `d`omain, `e`num, `p`seudo, `r`ange, `m`ultirange.
    kind: String,
    base: u32,
    base_typmod: i32,
    /// What the array holds, if it is one.
    element: u32,
    labels: Vec<String>,
}

const TYPES: &str = "\
SELECT t.oid, n.nspname::text, t.typname::text, t.typtype::text, t.typbasetype, t.typtypmod, \
CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END, \
ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) \
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = ANY($1)";

/// Reads these types and what they are made of. Built-in ones are known already.
pub(crate) async fn read_types(client: &Client, oids: impl IntoIterator<Item = u32>) -> Result<RemoteTypes> {
    let failed = |e| Error::from_sql("read the primary's types", e);
    let mut types = RemoteTypes::default();
    let mut wanted: Vec<u32> = oids.into_iter().filter(|oid| *oid >= FIRST_NORMAL_OID).collect();
    for _ in 0..DEPTH_MAX {
        if wanted.is_empty() {
            break;
        }
        let mut next = Vec::new();
        for row in client.query(TYPES, &[&wanted]).await.map_err(failed)? {
            let found = RemoteType {
                schema: row.try_get(1).map_err(failed)?,
                name: row.try_get(2).map_err(failed)?,
                kind: row.try_get(3).map_err(failed)?,
                base: row.try_get(4).map_err(failed)?,
                base_typmod: row.try_get(5).map_err(failed)?,
                element: row.try_get(6).map_err(failed)?,
                labels: row.try_get(7).map_err(failed)?,
            };
            next.extend([found.base, found.element].into_iter().filter(|oid| *oid >= FIRST_NORMAL_OID));
            types.types.insert(row.try_get(0).map_err(failed)?, found);
        }
        next.retain(|oid| !types.types.contains_key(oid));
        wanted = next;
    }
    Ok(types)
}

impl RemoteTypes {
    /// Adds a type known from the stream only: by name.
    pub(crate) fn add_named(&mut self, oid: u32, schema: &str, name: &str) {
        let r#type = RemoteType {
            schema: schema.into(),
            name: name.into(),
            kind: "b".into(),
            base: 0,
            base_typmod: -1,
            element: 0,
            labels: Vec::new(),
        };
        self.types.entry(oid).or_insert(r#type);
    }

    /// Our type for one of the primary's. Enums, composites and other types that are not built in become objects of ours
    /// with the same names; a domain becomes its base type, since the primary has checked its values.
    pub(crate) fn translate(&self, store: &Store, edit: &mut Edit, oid: u32, typmod: i32) -> Result<DataType> {
        self.translate_within(store, edit, oid, typmod, 0)
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

    fn translate_within(&self, store: &Store, edit: &mut Edit, oid: u32, typmod: i32, depth: usize) -> Result<DataType> {
        if let Some(data_type) = DataType::builtin(oid, typmod) {
            // The primary prints what the oid names there (a table, a type), which means nothing here: the text is kept.
            let is_alias = |t: &DataType| t.kind == Kind::Oid && t.name.starts_with("reg");
            let keeps_text = is_alias(&data_type) || data_type.element.as_ref().is_some_and(|element| is_alias(element));
            return Ok(if keeps_text { DataType { oid: 0, kind: Kind::Other, element: None, ..data_type } } else { data_type });
        }
        let unknown = || DataType { oid: 0, typmod: -1, name: format!("type {oid}").into(), kind: Kind::Other, element: None };
        let Some(remote) = self.types.get(&oid).filter(|_| depth < DEPTH_MAX) else { return Ok(unknown()) };
        if remote.kind == "d" {
            return self.translate_within(store, edit, remote.base, remote.base_typmod, depth + 1);
        }
        if remote.element != 0 {
            let element = self.translate_within(store, edit, remote.element, typmod, depth + 1)?;
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
        let kind = match remote.kind.as_str() {
            "e" => Kind::Enum,
            _ if remote.name == "citext" => Kind::Text,
            _ => Kind::Other,
        };
        let oid = self.ensure_user_type(store, edit, remote)?;
        Ok(DataType { oid, typmod, name: format!("{}.{}", remote.schema, remote.name).into(), kind, element: None })
    }

    fn ensure_user_type(&self, store: &Store, edit: &mut Edit, remote: &RemoteType) -> Result<u32> {
        let schema_oid = ensure_schema(store, edit, &remote.schema)?;
        let existing = edit.root().catalog().objects.values().find_map(|object| match &**object {
            CatalogObject::Type(t) if t.schema_oid == schema_oid && t.name == remote.name => Some(t.oid),
            _ => None,
        });
        if let Some(oid) = existing {
            return Ok(oid);
        }
        let definition = if remote.kind == "e" { TypeDefinition::Enum(remote.labels.clone()) } else { TypeDefinition::Opaque };
        let user_type = UserType {
            oid: store.next_oid()?,
            array_oid: store.next_oid()?,
            schema_oid,
            name: remote.name.clone(),
            owner: super::create::owner(edit),
            definition,
        };
        let oid = user_type.oid;
        edit.put_object(CatalogObject::Type(user_type))?;
        Ok(oid)
    }
}

fn user_type(edit: &Edit, oid: u32) -> Option<&UserType> {
    match edit.root().catalog().get(oid).map(|object| &**object) {
        Some(CatalogObject::Type(user_type)) => Some(user_type),
        _ => None,
    }
}
