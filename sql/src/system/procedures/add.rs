//! `dolt_add`: stages tables, that is, takes them from the working set into what the next commit will hold.

use std::collections::BTreeSet;

use strandline_storage::diff::diff_roots;
use strandline_storage::{BranchState, CatalogObject, Root, Value};

use super::flags::Flags;
use super::{Call, bad_argument, done, take_objects};
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::versions::named_object;
use crate::types::Oid;

pub fn add(call: &Call<'_>, arguments: &[&str]) -> Result<Vec<Value>> {
    let flags = Flags::parse("dolt_add", arguments, &[(Some('A'), "all", false), (Some('f'), "force", false)])?;
    if flags.rest.is_empty() && !flags.has("all") {
        return Err(bad_argument("nothing specified, nothing added").hint("Name tables, or use '.' or '-A' for all."));
    }
    let all = flags.has("all") || flags.rest.iter().any(|t| t == ".");
    let staged = if all { call.state.working.clone() } else { stage_named(call, &flags.rest)? };
    let position = call.branch.set_roots(call.state.version, Some(staged), None)?;
    call.session.written(position)?;
    done()
}

/// What is staged, with the named tables as the working set has them.
fn stage_named(call: &Call<'_>, names: &[String]) -> Result<Root> {
    let state = &call.state;
    let mut oids = BTreeSet::new();
    let mut missing = Vec::new();
    for name in names {
        let working = named_object(call.context, state.working.catalog(), name);
        let Some(object) = working.or_else(|| named_object(call.context, state.staged.catalog(), name)) else {
            missing.push(name.as_str());
            continue;
        };
        oids.extend(with_dependents(state, object.oid()));
    }
    if !missing.is_empty() {
        return Err(SqlError::new(ErrorCode::UndefinedTable, format!("the table(s) {} do not exist", missing.join(", "))));
    }
    Ok(take_objects(&state.staged, &state.working, oids))
}

/// A table goes with what makes it complete: its schema and types where these are new, and the sequences that it owns.
fn with_dependents(state: &BranchState, oid: Oid) -> BTreeSet<Oid> {
    let mut oids = BTreeSet::from([oid]);
    for root in [&state.working, &state.staged] {
        let catalog = root.catalog();
        if let Some(schema) = catalog.get(oid).and_then(|o| o.schema_oid()) {
            oids.insert(schema);
        }
        for object in catalog.objects.values() {
            if matches!(&**object, CatalogObject::Sequence(s) if s.owned_by.is_some_and(|(table, _)| table == oid)) {
                oids.insert(object.oid());
            }
        }
        if let Some(table) = catalog.table(oid) {
            for column in &table.columns {
                let ty = column.data_type.element.as_ref().map_or(column.data_type.oid, |e| e.oid);
                oids.extend(catalog.get(ty).map(|o| o.oid()));
            }
        }
    }
    // A schema or type that the working set dropped stays staged until it is staged itself.
    oids.retain(|o| *o == oid || state.working.catalog().get(*o).is_some() || !is_shared(state, *o));
    oids
}

fn is_shared(state: &BranchState, oid: Oid) -> bool {
    matches!(state.staged.catalog().get(oid).map(|o| &**o), Some(CatalogObject::Schema(_) | CatalogObject::Type(_)))
}

/// Stages what changed in objects that HEAD has already (`dolt_commit -a`): new tables stay out.
pub fn stage_tracked(state: &BranchState) -> Result<Root> {
    let diffs = diff_roots(&state.staged, &state.working)?.into_iter();
    let tracked = diffs.filter(|d| d.from.is_some() || state.head_root.catalog().get(d.oid).is_some());
    Ok(take_objects(&state.staged, &state.working, tracked.map(|d| d.oid).collect()))
}
