//! One table's definition from two versions of it.
//!
//! Indexes and constraints name columns by position, which is another on each side: here they name them by their number in
//! the table's [`ColumnMap`] while they are compared, and by the merged position in the end.

use std::collections::HashMap;
use std::sync::Arc;

use super::catalog::merge_value;
use super::columns::ColumnMap;
use super::{BASE, OURS, THEIRS};
use crate::root::Root;
use crate::schema::{CatalogObject, Column, Constraint, ConstraintKind, Index, IndexKey, MergedColumn, Oid, TableSchema};

type Columns = HashMap<Oid, ColumnMap>;

/// Merges two versions of a table that both differ from the base, and sets where its columns come to lie.
/// # Errors
/// What keeps them from being merged.
pub(super) fn merge(sides: [&Root; 3], oid: Oid, columns: &mut Columns) -> Result<CatalogObject, Vec<String>> {
    let [base, ours, theirs] = sides.map(|side| side.catalog().table(oid));
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return Err(vec!["a table on one side only".into()]) };
    let Some(map) = columns.get_mut(&oid) else {
        return Err(vec!["its columns cannot be told apart after an earlier merge".into()]);
    };
    let mut reasons = Vec::new();
    let base = base.map(|base| &**base);
    let mut merged = merge_columns([base, Some(ours), Some(theirs)], map, &mut reasons);
    let mut part = |what: &str, value: Option<()>| {
        if value.is_none() {
            reasons.push(format!("both sides changed its {what}"));
        }
    };
    part("name", merge_value(base.map(|b| &b.name), &ours.name, &theirs.name).map(|v| merged.name = v));
    part("schema", merge_value(base.map(|b| &b.schema_oid), &ours.schema_oid, &theirs.schema_oid).map(|v| merged.schema_oid = v));
    part("owner", merge_value(base.map(|b| &b.owner), &ours.owner, &theirs.owner).map(|v| merged.owner = v));
    part("comment", merge_value(base.map(|b| &b.comment), &ours.comment, &theirs.comment).map(|v| merged.comment = v));

    let columns = &*columns;
    let indexes = |side: usize| -> Vec<Index> {
        let schema = sides[side].catalog().table(oid);
        schema.map_or(vec![], |schema| schema.indexes.iter().map(|index| numbered_index(index, &columns[&oid], side)).collect())
    };
    let key = |side: usize| -> Option<Vec<Index>> {
        let schema = sides[side].catalog().table(oid)?;
        Some(schema.primary_key.iter().map(|index| numbered_index(index, &columns[&oid], side)).collect())
    };
    let constraints = |side: usize| -> Vec<Constraint> {
        let schema = sides[side].catalog().table(oid);
        schema.map_or(vec![], |schema| {
            schema.constraints.iter().map(|constraint| numbered_constraint(constraint, oid, columns, sides, side)).collect()
        })
    };
    let (our_key, mut their_key) = (key(OURS).unwrap_or_default(), key(THEIRS).unwrap_or_default());
    if let ([our], [their]) = (&our_key[..], &mut their_key[..])
        && key(BASE).unwrap_or_default().is_empty()
    {
        // Added on both sides.
        their.oid = our.oid;
    }
    match merge_value(key(BASE).as_ref(), &our_key, &their_key) {
        Some(key) => merged.primary_key = key.into_iter().next(),
        None => reasons.push("both sides changed its primary key".into()),
    }
    let map = &columns[&oid];
    let (indexes, constraints) = ([BASE, OURS, THEIRS].map(indexes), [BASE, OURS, THEIRS].map(constraints));
    merged.indexes = merge_parts("index", indexes, |i| (i.oid, &i.name), |i, oid| i.oid = oid, &mut reasons);
    merged.constraints = merge_parts("constraint", constraints, |c| (c.oid, &c.name), |c, oid| c.oid = oid, &mut reasons);
    for index in merged.primary_key.iter_mut().chain(&mut merged.indexes) {
        if placed_index(index, map).is_none() {
            reasons.push(format!("index \"{}\" is on a column that the other side dropped", index.name));
        }
    }
    for constraint in &mut merged.constraints {
        let own: Option<Vec<usize>> = constraint.columns.iter().map(|id| map.merged.get(*id).copied().flatten()).collect();
        match own {
            Some(own) => constraint.columns = own,
            None => reasons.push(format!("constraint \"{}\" is on a column that the other side dropped", constraint.name)),
        }
    }
    if reasons.is_empty() { Ok(CatalogObject::Table(Arc::new(merged))) } else { Err(reasons) }
}

/// Our table with merged columns: ours in our order, then those that only their side has added.
fn merge_columns(sides: [Option<&TableSchema>; 3], map: &mut ColumnMap, reasons: &mut Vec<String>) -> TableSchema {
    let [_, ours, theirs] = sides;
    let (ours, theirs) = (ours.expect("BUG: a merge without our side"), theirs.expect("BUG: a merge without their side"));
    let mut merged = TableSchema { columns: Vec::new(), ..ours.clone() };
    map.merged = vec![None; map.ids.len()];
    let mut order: Vec<usize> = (0..map.ids.len()).collect();
    order.sort_by_key(|id| (map.ids[*id][OURS].is_none(), map.ids[*id][OURS], map.ids[*id][THEIRS]));
    for id in order {
        let column = |side: usize| map.ids[id][side].and_then(|at| sides[side].map(|schema| &schema.columns[at]));
        let (base, our, their) = (column(BASE), column(OURS), column(THEIRS));
        let same = |a: &Column, b: &Column| Column { attnum: b.attnum, ..a.clone() } == *b;
        let kept = match (base, our, their) {
            (base, Some(our), Some(their)) => merge_column(base, our, their, reasons),
            (Some(base), Some(kept), None) | (Some(base), None, Some(kept)) => {
                if !same(base, kept) {
                    reasons.push(format!("one side changed column \"{}\" and the other dropped it", base.name));
                }
                continue;
            }
            (Some(_), None, None) | (None, None, None) => continue,
            (None, Some(our), None) => our.clone(),
            (None, None, Some(their)) => {
                let attnum = their.attnum.max(merged.next_attnum);
                merged.next_attnum = attnum.saturating_add(1);
                Column { attnum, ..their.clone() }
            }
        };
        if let Some(their) = their.filter(|their| their.attnum != kept.attnum) {
            remember(&mut merged, MergedColumn { attnum: kept.attnum, was: their.attnum, name: their.name.clone() });
        }
        if merged.columns.iter().any(|c| c.name == kept.name) {
            reasons.push(format!("both sides gave the name \"{}\" to different columns", kept.name));
        }
        map.merged[id] = Some(merged.columns.len());
        merged.columns.push(kept);
    }
    // What their side remembers of merges of its own, with the numbers that the columns have now.
    for moved in &theirs.merged_columns {
        let at = theirs.columns.iter().position(|c| c.attnum == moved.attnum);
        let attnum = at.and_then(|at| map.to_merged(THEIRS, at)).map_or(moved.attnum, |at| merged.columns[at].attnum);
        if attnum != moved.was {
            remember(&mut merged, MergedColumn { attnum, ..moved.clone() });
        }
    }
    merged.next_attnum = merged.next_attnum.max(theirs.next_attnum);
    merged
}

fn remember(schema: &mut TableSchema, column: MergedColumn) {
    if !schema.merged_columns.contains(&column) {
        schema.merged_columns.push(column);
    }
}

fn merge_column(base: Option<&Column>, ours: &Column, theirs: &Column, reasons: &mut Vec<String>) -> Column {
    let mut merged = ours.clone();
    macro_rules! merge {
        ($($field:ident $what:literal),*) => {$(
            match merge_value(base.map(|b| &b.$field), &ours.$field, &theirs.$field) {
                Some(value) => merged.$field = value,
                None => reasons.push(format!(concat!("both sides gave column \"{}\" another ", $what), base.unwrap_or(ours).name)),
            }
        )*};
    }
    merge!(name "name", data_type "type", not_null "rule about NULL", default "default", identity "identity", generated "expression",
        collation "collation", comment "comment");
    merged
}

/// Merges lists of indexes or constraints: parts are the same when their oids are. Both sides may have added the same one.
fn merge_parts<T: PartialEq + Clone>(
    what: &str,
    [base, ours, theirs]: [Vec<T>; 3],
    name: impl Fn(&T) -> (Oid, &String),
    set_oid: impl Fn(&mut T, Oid),
    reasons: &mut Vec<String>,
) -> Vec<T> {
    let find = |parts: &[T], oid: Oid| parts.iter().find(|part| name(part).0 == oid).cloned();
    let mut merged: Vec<T> = Vec::new();
    for our in &ours {
        let oid = name(our).0;
        match (find(&base, oid), find(&theirs, oid)) {
            (base, Some(their)) => match merge_value(base.as_ref(), our, &their) {
                Some(part) => merged.push(part),
                None => reasons.push(format!("both sides changed {what} \"{}\"", name(our).1)),
            },
            (Some(base), None) if base == *our => {}
            (Some(_), None) => reasons.push(format!("one side changed {what} \"{}\" and the other dropped it", name(our).1)),
            (None, None) => merged.push(our.clone()),
        }
    }
    for their in &theirs {
        let (oid, text) = name(their);
        if find(&ours, oid).is_some() {
            continue;
        }
        match find(&base, oid) {
            Some(base) if base == *their => {}
            Some(_) => reasons.push(format!("one side changed {what} \"{text}\" and the other dropped it")),
            None => match merged.iter().find(|part| name(part).1 == text) {
                Some(our) => {
                    let mut same = their.clone();
                    set_oid(&mut same, name(our).0);
                    if same != *our {
                        reasons.push(format!("both sides added {what} \"{text}\", with different definitions"));
                    }
                }
                None => merged.push(their.clone()),
            },
        }
    }
    merged
}

fn numbered_index(index: &Index, map: &ColumnMap, side: usize) -> Index {
    let id = |position: usize| map.id(side, position).unwrap_or(usize::MAX);
    let mut index = index.clone();
    for column in &mut index.columns {
        if let IndexKey::Column(position) = &mut column.key {
            *position = id(*position);
        }
    }
    index.include.iter_mut().for_each(|position| *position = id(*position));
    index
}

/// Replaces column numbers by merged positions; `None` when a column is gone.
fn placed_index(index: &mut Index, map: &ColumnMap) -> Option<()> {
    let place = |id: usize| map.merged.get(id).copied().flatten();
    for column in &mut index.columns {
        if let IndexKey::Column(id) = &mut column.key {
            *id = place(*id)?;
        }
    }
    for id in &mut index.include {
        *id = place(*id)?;
    }
    Some(())
}

/// A foreign key's columns at the other table become numbers of that table's map, marked as such, until [`place_foreign_keys`].
fn numbered_constraint(constraint: &Constraint, oid: Oid, maps: &Columns, sides: [&Root; 3], side: usize) -> Constraint {
    let mut constraint = constraint.clone();
    for position in &mut constraint.columns {
        *position = maps[&oid].id(side, *position).unwrap_or(usize::MAX);
    }
    if let ConstraintKind::ForeignKey { table, columns } = &mut constraint.kind {
        for position in columns {
            *position = numbered_target(*position, *table, maps, sides, side);
        }
    }
    constraint
}

/// Marks a position at a foreign key's target as a number of the target's map.
const NUMBERED: usize = 1 << 32;

fn numbered_target(position: usize, table: Oid, maps: &Columns, sides: [&Root; 3], side: usize) -> usize {
    match maps.get(&table).and_then(|map| map.id(side, position)) {
        Some(id) if sides[side].catalog().table(table).is_some() => NUMBERED + id,
        _ => position,
    }
}

/// The table with its foreign keys' columns where they are in the merged tables; `None`: nothing to change.
/// # Errors
/// A column that a foreign key refers to is gone; the text says which key's.
pub(super) fn place_foreign_keys(sides: [&Root; 3], child: &TableSchema, maps: &Columns) -> Result<Option<TableSchema>, String> {
    let side = [OURS, THEIRS].into_iter().find(|side| sides[*side].catalog().table(child.oid).is_some_and(|schema| **schema == *child));
    let mut placed = child.clone();
    for constraint in &mut placed.constraints {
        let ConstraintKind::ForeignKey { table, columns } = &mut constraint.kind else { continue };
        let Some(map) = maps.get(table) else { continue };
        for position in columns {
            let numbered = match side {
                // A table taken whole from one side still has that side's positions.
                Some(side) if *position < NUMBERED => numbered_target(*position, *table, maps, sides, side),
                _ => *position,
            };
            if let Some(id) = numbered.checked_sub(NUMBERED) {
                let gone = || format!("constraint \"{}\" refers to a column that the other side dropped", constraint.name);
                *position = map.merged.get(id).copied().flatten().ok_or_else(gone)?;
            }
        }
    }
    Ok((placed != *child).then_some(placed))
}
