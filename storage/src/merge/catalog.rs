//! What becomes of each catalog object, and that the outcome is consistent: no name twice, no reference to what is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::columns::ColumnMap;
use super::{BASE, OURS, THEIRS, schema};
use crate::diff::diff_tables;
use crate::error::{Error, Result};
use crate::root::Root;
use crate::schema::{Catalog, CatalogObject, ConstraintKind, FIRST_USER_OID, Oid, TypeDefinition};
use crate::value::DataType;

/// What becomes of an object.
#[derive(Clone, Debug)]
pub(super) enum Planned {
    /// It is not in the merged root value.
    Absent,
    /// Ours, with our rows, as it cannot be merged.
    Kept,
    /// This, with merged rows.
    Merged(Arc<CatalogObject>),
}

/// What becomes of all objects.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub objects: BTreeMap<Oid, Planned>,
    pub conflicts: BTreeMap<Oid, Vec<String>>,
    /// Of the tables that more than one side has.
    pub columns: HashMap<Oid, ColumnMap>,
}

type Sides<'a> = [&'a Root; 3];

/// Plans a merge; `refused` are objects that have been found to be impossible to merge, and why.
pub(super) fn plan(sides: Sides<'_>, refused: &BTreeMap<Oid, Vec<String>>) -> Result<Plan> {
    let mut plan = Plan::default();
    let oids: BTreeSet<Oid> = sides.iter().flat_map(|side| side.catalog().objects.keys().copied()).collect();
    plan.map_columns(sides, &oids);
    for oid in oids {
        if let Some(reasons) = refused.get(&oid) {
            plan.keep_ours(sides, oid, reasons.clone());
            continue;
        }
        match plan.merge_object(sides, oid)? {
            Ok(planned) => drop(plan.objects.insert(oid, planned)),
            Err(reasons) => plan.keep_ours(sides, oid, reasons),
        }
    }
    plan.settle(sides)?;
    Ok(plan)
}

impl Plan {
    /// Finds out which column is which in tables whose columns differ between sides.
    fn map_columns(&mut self, sides: Sides<'_>, oids: &BTreeSet<Oid>) {
        for oid in oids {
            let schemas = sides.map(|side| side.catalog().table(*oid).map(|schema| &**schema));
            if schemas.iter().flatten().count() < 2 {
                continue;
            }
            // A table whose columns cannot be told apart has no map, which `merge_object` finds.
            if let Ok(columns) = ColumnMap::new(schemas) {
                self.columns.insert(*oid, columns);
            }
        }
    }

    fn keep_ours(&mut self, sides: Sides<'_>, oid: Oid, reasons: Vec<String>) {
        let ours = sides[OURS].catalog().get(oid);
        self.objects.insert(oid, if ours.is_some() { Planned::Kept } else { Planned::Absent });
        if let Some(columns) = self.columns.get_mut(&oid) {
            columns.merged_is(OURS);
        }
        self.conflicts.entry(oid).or_default().extend(reasons);
    }

    /// The merged object, or why there is none.
    fn merge_object(&mut self, sides: Sides<'_>, oid: Oid) -> Result<std::result::Result<Planned, Vec<String>>> {
        let [base, ours, theirs] = sides.map(|side| side.catalog().get(oid));
        let planned = |object: Option<&Arc<CatalogObject>>| object.map_or(Planned::Absent, |object| Planned::Merged(object.clone()));
        let refused = |reason: &str| Ok(Err(vec![reason.to_owned()]));
        let from = if ours == theirs || theirs == base {
            OURS
        } else if ours == base {
            THEIRS
        } else {
            let merged = match (ours, theirs) {
                (None, _) => return refused("dropped on our side and changed on theirs"),
                (_, None) => return refused("changed on our side and dropped on theirs"),
                (Some(_), Some(_)) if base.is_none() => return refused("both sides added it, with different definitions"),
                (Some(ours), Some(theirs)) => match (&**ours, &**theirs) {
                    (CatalogObject::Table(_), CatalogObject::Table(_)) => schema::merge(sides, oid, &mut self.columns),
                    _ => merge_fields(base.map(|base| &**base), ours, theirs),
                },
            };
            return Ok(merged.map(|object| Planned::Merged(Arc::new(object))));
        };
        if let ([Some(_), None, Some(_)], OURS) | ([Some(_), Some(_), None], THEIRS) = ([base, ours, theirs], from) {
            let survivor = if from == OURS { THEIRS } else { OURS };
            if rows_differ(sides[BASE], sides[survivor], oid)? {
                return refused("dropped on one side, and the other changed its rows");
            }
        }
        if [base, ours, theirs].iter().flatten().count() > 1 && matches!(ours.or(theirs).map(|o| &**o), Some(CatalogObject::Table(_))) {
            match self.columns.get_mut(&oid) {
                Some(columns) => columns.merged_is(from),
                None => return refused("its columns cannot be told apart after an earlier merge"),
            }
        }
        Ok(Ok(planned(sides[from].catalog().get(oid))))
    }

    fn object<'a>(&'a self, sides: Sides<'a>, oid: Oid) -> Option<&'a Arc<CatalogObject>> {
        match self.objects.get(&oid)? {
            Planned::Absent => None,
            Planned::Kept => sides[OURS].catalog().get(oid),
            Planned::Merged(object) => Some(object),
        }
    }

    fn is_ours(&self, sides: Sides<'_>, oid: Oid) -> bool {
        let definition_is_ours = self.object(sides, oid) == sides[OURS].catalog().get(oid);
        definition_is_ours && !matches!(self.objects.get(&oid), Some(Planned::Merged(_)) if sides[OURS].table(oid).is_some())
            || matches!(self.objects.get(&oid), Some(Planned::Kept))
    }

    /// Puts objects back to ours until none clashes with another or refers to what is gone. Ours is consistent in itself, so this ends.
    fn settle(&mut self, sides: Sides<'_>) -> Result<()> {
        while let Some((oid, reason)) = self.clash(sides).or_else(|| self.dangling(sides)) {
            if self.is_ours(sides, oid) {
                return Err(Error::Invalid(format!("object {oid} of our side is not consistent: {reason}")));
            }
            self.keep_ours(sides, oid, vec![reason]);
        }
        // Only now is it known where columns that foreign keys refer to have come to lie.
        let mut placed = Vec::new();
        for (oid, planned) in &self.objects {
            let Planned::Merged(object) = planned else { continue };
            let CatalogObject::Table(child) = &**object else { continue };
            match schema::place_foreign_keys(sides, child, &self.columns) {
                Ok(Some(schema)) => placed.push((*oid, schema)),
                Ok(None) => {}
                Err(reason) => {
                    let oid = *oid;
                    self.keep_ours(sides, oid, vec![reason]);
                    return self.settle(sides);
                }
            }
        }
        for (oid, schema) in placed {
            self.objects.insert(oid, Planned::Merged(Arc::new(CatalogObject::Table(Arc::new(schema)))));
        }
        Ok(())
    }

    /// An object whose name is taken, to be put back to ours.
    fn clash(&self, sides: Sides<'_>) -> Option<(Oid, String)> {
        let mut names: HashMap<(u8, Option<Oid>, &str), Oid> = HashMap::new();
        for oid in self.objects.keys() {
            let Some(object) = self.object(sides, *oid) else { continue };
            let (space, mut own) = match &**object {
                CatalogObject::Schema(_) => (0, vec![]),
                CatalogObject::Type(_) => (1, vec![]),
                // Indexes live in the name space of tables.
                CatalogObject::Table(t) => (2, t.primary_key.iter().chain(&t.indexes).map(|i| i.name.as_str()).collect()),
                CatalogObject::Sequence(_) | CatalogObject::View(_) => (2, vec![]),
            };
            own.push(object.name());
            for name in own {
                let Some(other) = names.insert((space, object.schema_oid(), name), *oid) else { continue };
                if other == *oid {
                    return Some((*oid, format!("both sides gave the name \"{name}\"")));
                }
                // The definition that is not ours is put back; an unchanged one of ours cannot clash with another of ours.
                let ours = |oid: Oid| self.object(sides, oid) == sides[OURS].catalog().get(oid);
                let (back, taken_by) = if ours(*oid) { (other, *oid) } else { (*oid, other) };
                let owner = self.object(sides, taken_by).map_or("", |object| object.name());
                return Some((back, format!("the name \"{name}\" is taken by \"{owner}\"")));
            }
        }
        None
    }

    /// An object that refers to one that is gone, or the one that is gone, to be put back to ours.
    fn dangling(&self, sides: Sides<'_>) -> Option<(Oid, String)> {
        let present: BTreeSet<Oid> = self.objects.keys().filter_map(|oid| self.object(sides, *oid)).flat_map(|o| names_of(o)).collect();
        for oid in self.objects.keys() {
            let Some(object) = self.object(sides, *oid) else { continue };
            for needed in references_of(object) {
                if present.contains(&needed) {
                    continue;
                }
                // The object behind an oid that may be an array type's.
                let holder = |side: usize| holder_of(sides[side].catalog(), needed);
                if let Some(ours) = holder(OURS) {
                    return Some((ours, format!("dropped on their side, and \"{}\" needs it", object.name())));
                }
                let is_ours = Some(object) == sides[OURS].catalog().get(*oid);
                if !is_ours && (holder(BASE).is_some() || holder(THEIRS).is_some()) {
                    return Some((*oid, "needs an object that our side dropped".into()));
                }
            }
        }
        None
    }
}

/// The oids that an object is referred to by.
fn names_of(object: &CatalogObject) -> Vec<Oid> {
    match object {
        CatalogObject::Type(t) => vec![t.oid, t.array_oid],
        other => vec![other.oid()],
    }
}

fn holder_of(catalog: &Catalog, oid: Oid) -> Option<Oid> {
    if catalog.get(oid).is_some() {
        return Some(oid);
    }
    catalog.objects.values().find(|object| names_of(object).contains(&oid)).map(|object| object.oid())
}

/// The objects that one needs, made by users. What a view reads is text, and not looked into.
fn references_of(object: &CatalogObject) -> Vec<Oid> {
    let mut found: Vec<Oid> = object.schema_oid().into_iter().collect();
    let mut types: Vec<&DataType> = Vec::new();
    match object {
        CatalogObject::Schema(_) => {}
        CatalogObject::Table(table) => {
            types.extend(table.columns.iter().map(|c| &c.data_type));
            found.extend(table.constraints.iter().filter_map(|c| match &c.kind {
                ConstraintKind::ForeignKey { table, .. } => Some(*table),
                ConstraintKind::Check { .. } => None,
            }));
        }
        CatalogObject::Sequence(sequence) => {
            types.push(&sequence.data_type);
            found.extend(sequence.owned_by.map(|(table, _)| table));
        }
        CatalogObject::Type(user_type) => match &user_type.definition {
            TypeDefinition::Domain { base, .. } => types.push(base),
            TypeDefinition::Composite(fields) => types.extend(fields.iter().map(|(_, data_type)| data_type)),
            TypeDefinition::Enum(_) | TypeDefinition::Opaque => {}
        },
        CatalogObject::View(view) => types.extend(view.columns.iter().map(|(_, data_type)| data_type)),
    }
    found.extend(types.into_iter().map(|data_type| data_type.oid).filter(|oid| *oid >= FIRST_USER_OID));
    found
}

fn rows_differ(base: &Root, side: &Root, oid: Oid) -> Result<bool> {
    let (base, side) = (base.table(oid), side.table(oid));
    if let (Some(base), Some(side)) = (base, side)
        && Arc::ptr_eq(base, side)
    {
        return Ok(false);
    }
    Ok(diff_tables(base.map(|t| &**t), side.map(|t| &**t)).next().transpose()?.is_some())
}

/// Three-way merge of one value: `None` when both sides changed it, and not to the same.
pub(super) fn merge_value<T: PartialEq + Clone>(base: Option<&T>, ours: &T, theirs: &T) -> Option<T> {
    if ours == theirs || Some(theirs) == base {
        Some(ours.clone())
    } else if Some(ours) == base {
        Some(theirs.clone())
    } else {
        None
    }
}

/// Merges two versions of a sequence, type, view or schema field by field.
fn merge_fields(base: Option<&CatalogObject>, ours: &CatalogObject, theirs: &CatalogObject) -> Result<CatalogObject, Vec<String>> {
    let fields = |object: &CatalogObject| -> Option<(String, Map<String, Json>)> {
        let Json::Object(outer) = serde_json::to_value(object).ok()? else { return None };
        match outer.into_iter().next()? {
            (kind, Json::Object(fields)) => Some((kind, fields)),
            _ => None,
        }
    };
    let unlike = || vec!["another kind of object on each side".to_owned()];
    let (kind, ours) = fields(ours).ok_or_else(unlike)?;
    let (their_kind, theirs) = fields(theirs).ok_or_else(unlike)?;
    let base = base.and_then(&fields).filter(|(base_kind, _)| *base_kind == kind).map(|(_, base)| base);
    if kind != their_kind {
        return Err(unlike());
    }
    let mut merged = Map::new();
    let mut reasons = Vec::new();
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let field = |side: &Map<String, Json>| side.get(name).cloned().unwrap_or_default();
        match merge_value(base.as_ref().map(field).as_ref(), &field(&ours), &field(&theirs)) {
            Some(value) => drop(merged.insert(name.clone(), value)),
            None => reasons.push(format!("both sides changed its {}", name.replace('_', " "))),
        }
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let object = Json::Object(Map::from_iter([(kind, Json::Object(merged))]));
    serde_json::from_value(object).map_err(|_| vec!["the two sides' definitions do not fit together".to_owned()])
}
