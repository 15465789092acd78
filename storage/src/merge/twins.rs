//! Objects that both sides added under one name: theirs take our oids, so that what is the same is named the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::Result;
use crate::root::Root;
use crate::schema::{Catalog, CatalogObject, ConstraintKind, Oid, TableSchema, TypeDefinition};
use crate::table::{TableData, TableShape};
use crate::value::DataType;

/// Their root value with our oids where both sides added an object of one kind under one name.
pub(super) fn with_our_oids(base: &Root, ours: &Root, theirs: &Root) -> Result<Root> {
    let mut oids: HashMap<Oid, Oid> = HashMap::new();
    let added = |side: &Root| -> Vec<Arc<CatalogObject>> {
        let new = side.catalog().objects.values().filter(|object| base.catalog().get(object.oid()).is_none());
        new.cloned().collect()
    };
    let (our_new, their_new) = (added(ours), added(theirs));
    // Schemas first, as the others are named within them.
    for schemas in [true, false] {
        let mut names: HashMap<(u8, Option<Oid>, &str), &CatalogObject> = HashMap::new();
        for object in &our_new {
            names.insert((kind(object), object.schema_oid(), object.name()), object);
        }
        for object in their_new.iter().filter(|object| matches!(***object, CatalogObject::Schema(_)) == schemas) {
            let schema = object.schema_oid().map(|oid| *oids.get(&oid).unwrap_or(&oid));
            let Some(twin) = names.get(&(kind(object), schema, object.name())) else { continue };
            if ours.catalog().get(object.oid()).is_some() {
                continue;
            }
            pair(&mut oids, twin, object);
        }
    }
    if oids.is_empty() {
        return Ok(theirs.clone());
    }
    let mut catalog = Catalog::default();
    let mut tables = BTreeMap::new();
    for object in theirs.catalog().objects.values() {
        let renamed = Arc::new(with_oids(object, &oids));
        if let (CatalogObject::Table(schema), Some(data)) = (&*renamed, theirs.table(object.oid())) {
            let same = object.oid() == schema.oid && **object == *renamed;
            let data =
                if same { data.clone() } else { Arc::new(TableData { shape: TableShape::new(schema.clone())?, ..(**data).clone() }) };
            tables.insert(schema.oid, data);
        }
        catalog.objects.insert(renamed.oid(), renamed);
    }
    Ok(Root { catalog: Arc::new(catalog), tables: Arc::new(tables), chunks: theirs.chunks.clone() })
}

fn kind(object: &CatalogObject) -> u8 {
    match object {
        CatalogObject::Schema(_) => 0,
        CatalogObject::Table(_) => 1,
        CatalogObject::Sequence(_) => 2,
        CatalogObject::Type(_) => 3,
        CatalogObject::View(_) => 4,
    }
}

/// Notes that their object, and its parts of the same names, are ours.
fn pair(oids: &mut HashMap<Oid, Oid>, ours: &CatalogObject, theirs: &CatalogObject) {
    oids.insert(theirs.oid(), ours.oid());
    match (ours, theirs) {
        (CatalogObject::Table(ours), CatalogObject::Table(theirs)) => {
            let parts = |table: &TableSchema| -> BTreeMap<String, Oid> {
                let indexes = table.primary_key.iter().chain(&table.indexes).map(|i| (format!("index {}", i.name), i.oid));
                indexes.chain(table.constraints.iter().map(|c| (format!("constraint {}", c.name), c.oid))).collect()
            };
            let ours = parts(ours);
            oids.extend(parts(theirs).into_iter().filter_map(|(name, oid)| Some((oid, *ours.get(&name)?))));
        }
        (CatalogObject::Type(ours), CatalogObject::Type(theirs)) => {
            oids.insert(theirs.array_oid, ours.array_oid);
        }
        _ => {}
    }
}

fn with_oids(object: &CatalogObject, oids: &HashMap<Oid, Oid>) -> CatalogObject {
    let set = |oid: &mut Oid| *oid = *oids.get(oid).unwrap_or(oid);
    let set_type = |data_type: &mut DataType| set_type(data_type, oids);
    let mut object = object.clone();
    match &mut object {
        CatalogObject::Schema(schema) => set(&mut schema.oid),
        CatalogObject::Table(table) => {
            let table = Arc::make_mut(table);
            set(&mut table.oid);
            set(&mut table.schema_oid);
            table.columns.iter_mut().for_each(|column| set_type(&mut column.data_type));
            table.primary_key.iter_mut().chain(&mut table.indexes).for_each(|index| set(&mut index.oid));
            for constraint in &mut table.constraints {
                set(&mut constraint.oid);
                if let ConstraintKind::ForeignKey { table, .. } = &mut constraint.kind {
                    set(table);
                }
            }
        }
        CatalogObject::Sequence(sequence) => {
            set(&mut sequence.oid);
            set(&mut sequence.schema_oid);
            set_type(&mut sequence.data_type);
            sequence.owned_by.iter_mut().for_each(|(table, _)| set(table));
        }
        CatalogObject::Type(user_type) => {
            set(&mut user_type.oid);
            set(&mut user_type.array_oid);
            set(&mut user_type.schema_oid);
            match &mut user_type.definition {
                TypeDefinition::Domain { base, .. } => set_type(base),
                TypeDefinition::Composite(fields) => fields.iter_mut().for_each(|(_, data_type)| set_type(data_type)),
                TypeDefinition::Enum(_) | TypeDefinition::Opaque => {}
            }
        }
        CatalogObject::View(view) => {
            set(&mut view.oid);
            set(&mut view.schema_oid);
            view.columns.iter_mut().for_each(|(_, data_type)| set_type(data_type));
        }
    }
    object
}

fn set_type(data_type: &mut DataType, oids: &HashMap<Oid, Oid>) {
    if let Some(oid) = oids.get(&data_type.oid) {
        data_type.oid = *oid;
    }
    if let Some(element) = &mut data_type.element {
        set_type(Arc::make_mut(element), oids);
    }
}
