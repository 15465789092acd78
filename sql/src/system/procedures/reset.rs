//! `dolt_reset`: takes tables off the stage, or moves HEAD.

use std::collections::BTreeSet;

use strandline_storage::{CommitId, Root, Value};

use super::branch::check_keeps_replicated;
use super::flags::Flags;
use super::{Call, bad_argument, done, take_objects};
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::versions::named_object;

pub fn reset(call: &Call<'_>, arguments: &[&str]) -> Result<Vec<Value>> {
    let flags = Flags::parse("dolt_reset", arguments, &[(None, "hard", false), (None, "soft", false)])?;
    let (hard, soft) = (flags.has("hard"), flags.has("soft"));
    if hard && soft {
        return Err(bad_argument("options --hard and --soft cannot be used together"));
    }
    let names: Vec<&str> = flags.rest.iter().map(String::as_str).filter(|n| *n != ".").collect();
    let version = call.state.version;
    let position = if hard {
        match names.as_slice() {
            [] => call.branch.reset(version, call.state.head, true)?,
            [target] => call.branch.reset(version, target_commit(call, target)?, true)?,
            _ => return Err(bad_argument("dolt_reset('--hard', ...) takes one commit")),
        }
    } else {
        match names.as_slice() {
            [] if soft => return done(),
            [] => call.branch.set_roots(version, Some(call.state.head_root.clone()), None)?,
            [target] if !is_table(call, target) => {
                let commit = target_commit(call, target)?;
                let position = call.branch.reset(version, commit, false)?;
                if soft {
                    position
                } else {
                    // Without --soft the stage becomes the commit's, the working set stays.
                    let state = call.branch.state();
                    call.branch.set_roots(state.version, Some(state.head_root.clone()), None)?
                }
            }
            tables => call.branch.set_roots(version, Some(unstage(call, tables)?), None)?,
        }
    };
    call.session.written(position)?;
    done()
}

fn target_commit(call: &Call<'_>, target: &str) -> Result<CommitId> {
    let commit = call.resolver().commit(target)?;
    check_keeps_replicated(call.context, call.branch.name(), commit)?;
    Ok(commit)
}

fn is_table(call: &Call<'_>, name: &str) -> bool {
    [&call.state.working, &call.state.staged, &call.state.head_root].iter().any(|r| named_object(call.context, r.catalog(), name).is_some())
}

/// What is staged, with the named tables as HEAD has them.
fn unstage(call: &Call<'_>, names: &[&str]) -> Result<Root> {
    let state = &call.state;
    let mut oids = BTreeSet::new();
    for name in names {
        // A table that was made again has one object here and another there.
        let found: Vec<_> = [&state.staged, &state.head_root, &state.working]
            .iter()
            .filter_map(|root| named_object(call.context, root.catalog(), name))
            .map(|object| object.oid())
            .collect();
        if found.is_empty() {
            return Err(SqlError::new(ErrorCode::UndefinedTable, format!("relation \"{name}\" does not exist")));
        }
        oids.extend(found);
    }
    Ok(take_objects(&state.staged, &state.head_root, oids))
}
