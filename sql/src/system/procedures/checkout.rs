//! `dolt_checkout`: goes over to another branch, makes one and goes there, or takes tables back from the stage or a commit.

use std::collections::BTreeSet;

use strandline_storage::Value;

use super::branch::{create, exists};
use super::flags::Flags;
use super::{ProcedureSession, bad_argument, take_objects};
use crate::context::{Revision, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::builder::text;
use crate::system::refs::{Resolver, plain_database, session_branch};
use crate::system::versions::named_object;

pub fn checkout(arguments: &[&str], context: &StatementContext, session: &dyn ProcedureSession) -> Result<Vec<Value>> {
    let known = [(Some('b'), "branch", true), (Some('B'), "force-branch", true), (Some('f'), "force", false)];
    let flags = Flags::parse("dolt_checkout", arguments, &known)?;
    session.flush()?;
    if let Some((name, force)) = flags.value("branch").map(|n| (n, false)).or_else(|| flags.value("force-branch").map(|n| (n, true))) {
        let start = match flags.rest.as_slice() {
            [] => None,
            [start] => Some(start.as_str()),
            _ => return Err(bad_argument("dolt_checkout('-b', ...) takes a name and a start")),
        };
        create(context, name, start, force)?;
        context.store.sync()?;
        return switch(session, name);
    }
    match flags.rest.as_slice() {
        [] => Err(bad_argument("dolt_checkout() needs the name of a branch or table")),
        [name] if exists(context, name)? => {
            if context.revision == Revision::Branch(name.clone()) {
                return Ok(vec![Value::Int8(0), text(format!("Already on branch '{name}'"))]);
            }
            switch(session, name)
        }
        names => tables(names, context, session),
    }
}

fn switch(session: &dyn ProcedureSession, name: &str) -> Result<Vec<Value>> {
    session.switch(Revision::Branch(name.to_string()))?;
    Ok(vec![Value::Int8(0), text(format!("Switched to branch '{name}'"))])
}

/// `dolt_checkout('t', ...)` takes tables from the stage, `dolt_checkout('HEAD~2', 't')` from a commit (and stages them).
fn tables(names: &[String], context: &StatementContext, session: &dyn ProcedureSession) -> Result<Vec<Value>> {
    let branch = session_branch(context)?;
    let state = branch.state();
    let known = |name: &str| {
        name == "."
            || named_object(context, state.working.catalog(), name).is_some()
            || named_object(context, state.staged.catalog(), name).is_some()
    };
    let resolver = Resolver {
        store: &context.store,
        database: plain_database(context),
        head: Some(state.head),
        branch: Some(&state),
        text: &context.text,
    };
    let (source, names) = match names {
        [first, rest @ ..] if !known(first) => match resolver.resolve(first) {
            Ok(target) if !rest.is_empty() => (Some(resolver.root(target)?), rest),
            Ok(_) => {
                return Err(bad_argument(format!("\"{first}\" is a commit, not a branch")).hint(format!(
                    "Connect to database \"{}/{first}\" to read it, or make a branch with dolt_checkout('-b', ...).",
                    plain_database(context)
                )));
            }
            Err(_) => return Err(SqlError::new(ErrorCode::UndefinedObject, format!("could not find branch or table \"{first}\""))),
        },
        names => (None, names),
    };
    let from = source.as_ref().unwrap_or(&state.staged);
    let mut oids = BTreeSet::new();
    for name in names {
        if name == "." {
            // Tables that the source does not have stay.
            oids.extend(from.catalog().objects.keys());
            continue;
        }
        let object = named_object(context, from.catalog(), name)
            .ok_or_else(|| SqlError::new(ErrorCode::UndefinedTable, format!("relation \"{name}\" does not exist there")))?;
        oids.insert(object.oid());
    }
    let working = take_objects(&state.working, from, oids.clone());
    let staged = source.is_some().then(|| take_objects(&state.staged, from, oids));
    let position = branch.set_roots(state.version, staged, Some(working))?;
    session.written(position)?;
    Ok(vec![Value::Int8(0), text("")])
}
