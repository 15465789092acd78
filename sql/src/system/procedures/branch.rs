//! `dolt_branch`: makes, copies, renames and deletes branches.

use strandline_storage::{CommitId, Value};

use super::flags::Flags;
use super::{ProcedureSession, bad_argument, done};
use crate::context::{Revision, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::refs::{Resolver, is_valid_ref_name, plain_database, session_branch};

pub fn branch(arguments: &[&str], context: &StatementContext, session: &dyn ProcedureSession) -> Result<Vec<Value>> {
    let known = [
        (Some('c'), "copy", false),
        (Some('m'), "move", false),
        (Some('d'), "delete", false),
        (Some('D'), "delete-force", false),
        (Some('f'), "force", false),
    ];
    let flags = Flags::parse("dolt_branch", arguments, &known)?;
    let force = flags.has("force");
    let modes = ["copy", "move", "delete", "delete-force"].iter().filter(|m| flags.has(m)).count();
    if modes > 1 {
        return Err(bad_argument("dolt_branch() takes one of -c, -m, -d and -D"));
    }
    let names: Vec<&str> = flags.rest.iter().map(String::as_str).collect();
    if flags.has("delete") || flags.has("delete-force") {
        if names.is_empty() {
            return Err(bad_argument("dolt_branch() needs the name of a branch to delete"));
        }
        for name in names {
            delete(context, session, name, force || flags.has("delete-force"))?;
        }
    } else if flags.has("move") {
        match names.as_slice() {
            [from, to] => rename(context, session, from, to, force)?,
            [to] => rename(context, session, &current(context)?, to, force)?,
            _ => return Err(bad_argument("dolt_branch('-m', ...) needs the old and the new name")),
        }
    } else if flags.has("copy") {
        match names.as_slice() {
            [from, to] => create(context, to, Some(from), force)?,
            [to] => create(context, to, Some(&current(context)?), force)?,
            _ => return Err(bad_argument("dolt_branch('-c', ...) needs the names of a branch and of its copy")),
        }
    } else {
        match names.as_slice() {
            [name] => create(context, name, None, force)?,
            [name, start] => create(context, name, Some(start), force)?,
            [] => return Err(bad_argument("dolt_branch() needs a name").hint("SELECT * FROM dolt_branches lists the branches.")),
            _ => return Err(bad_argument("dolt_branch() takes a name and a start")),
        }
    }
    context.store.sync()?;
    done()
}

fn current(context: &StatementContext) -> Result<String> {
    Ok(session_branch(context)?.name().to_string())
}

/// The head of HEAD's branch as it is now.
pub fn resolve_now(context: &StatementContext, text: &str) -> Result<CommitId> {
    let mut resolver = Resolver::new(context);
    let state = match &context.revision {
        Revision::Branch(_) => Some(session_branch(context)?.state()),
        Revision::Commit(_) => None,
    };
    if let Some(state) = &state {
        resolver.head = Some(state.head);
    }
    resolver.commit(text)
}

/// # Errors
/// `InvalidName` for a name that a ref cannot have.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if is_valid_ref_name(name) {
        return Ok(());
    }
    Err(SqlError::new(ErrorCode::InvalidName, format!("\"{name}\" is not a valid {what} name")))
}

pub fn exists(context: &StatementContext, name: &str) -> Result<bool> {
    Ok(context.store.branches(plain_database(context))?.iter().any(|(n, _)| n == name))
}

pub fn create(context: &StatementContext, name: &str, start: Option<&str>, force: bool) -> Result<()> {
    check_name("branch", name)?;
    let commit = resolve_now(context, start.unwrap_or("HEAD"))?;
    if !force && exists(context, name)? {
        return Err(SqlError::new(ErrorCode::DuplicateObject, format!("a branch named \"{name}\" already exists")));
    }
    if force && exists(context, name)? {
        check_keeps_replicated(context, name, commit)?;
    }
    context.store.create_branch(plain_database(context), name, commit, force)?;
    Ok(())
}

/// A branch that follows a source cannot go back behind what was confirmed there: it would never be sent again.
/// # Errors
/// `ObjectNotInPrerequisiteState`.
pub fn check_keeps_replicated(context: &StatementContext, branch: &str, target: CommitId) -> Result<()> {
    let database = plain_database(context);
    if !context.store.follows_source(database, branch) {
        return Ok(());
    }
    let head = context.store.branch(database, branch)?.state().head;
    for commit in context.store.log(&[head], &[target])? {
        if commit?.meta.source.is_some() {
            let message = format!("branch \"{branch}\" cannot go back to before a transaction that it has replicated");
            return Err(SqlError::new(ErrorCode::ObjectNotInPrerequisiteState, message)
                .hint(format!("To have a branch at {target:.12}, use dolt_branch('name', '{target:.12}').")));
        }
    }
    Ok(())
}

/// # Errors
/// `ObjectInUse` for a branch that follows a source.
fn check_not_followed(context: &StatementContext, branch: &str) -> Result<()> {
    if !context.store.follows_source(plain_database(context), branch) {
        return Ok(());
    }
    Err(SqlError::new(ErrorCode::ObjectInUse, format!("branch \"{branch}\" is being used by replication")))
}

fn missing(name: &str) -> SqlError {
    SqlError::new(ErrorCode::UndefinedObject, format!("branch \"{name}\" does not exist"))
}

fn in_use(name: &str, others: usize) -> SqlError {
    let detail =
        if others == 1 { "There is 1 other session on it.".to_owned() } else { format!("There are {others} other sessions on it.") };
    SqlError::new(ErrorCode::ObjectInUse, format!("branch \"{name}\" is being used by other sessions")).detail(detail)
}

fn rename(context: &StatementContext, session: &dyn ProcedureSession, from: &str, to: &str, force: bool) -> Result<()> {
    check_name("branch", to)?;
    if !exists(context, from)? {
        return Err(missing(from));
    }
    if !force && from != to && exists(context, to)? {
        return Err(SqlError::new(ErrorCode::DuplicateObject, format!("a branch named \"{to}\" already exists")));
    }
    if !force && from != to {
        check_not_followed(context, from)?;
    }
    let others = session.others_on(from);
    if !force && from != to && others > 0 {
        return Err(in_use(from, others).hint("To rename it anyway, add '-f'."));
    }
    context.store.rename_branch(plain_database(context), from, to, force)?;
    if context.revision == Revision::Branch(from.to_string()) {
        session.switch(Revision::Branch(to.to_string()))?;
    }
    Ok(())
}

fn delete(context: &StatementContext, session: &dyn ProcedureSession, name: &str, force: bool) -> Result<()> {
    let database = plain_database(context);
    if !exists(context, name)? {
        return Err(missing(name));
    }
    if context.revision == Revision::Branch(name.to_string()) {
        return Err(SqlError::new(ErrorCode::ObjectInUse, format!("cannot delete checked out branch \"{name}\"")));
    }
    if !force {
        let anyway = format!("To delete it anyway, use dolt_branch('-D', '{name}').");
        check_not_followed(context, name).map_err(|e| e.hint(anyway.clone()))?;
        let others = session.others_on(name);
        if others > 0 {
            return Err(in_use(name, others).hint(anyway));
        }
        let state = context.store.branch(database, name)?.state();
        if state.is_dirty() {
            return Err(
                SqlError::new(ErrorCode::DependentObjectsStillExist, format!("branch \"{name}\" has uncommitted changes")).hint(anyway)
            );
        }
        let head = state.head;
        // Safe to lose when another branch has its commits.
        let mut merged = false;
        for (other, other_head) in context.store.branches(database)? {
            if other != name && (other_head == head || context.store.is_ancestor(head, other_head)?) {
                merged = true;
                break;
            }
        }
        if !merged {
            return Err(SqlError::new(ErrorCode::DependentObjectsStillExist, format!("branch \"{name}\" is not fully merged")).hint(anyway));
        }
    }
    context.store.delete_branch(database, name)?;
    Ok(())
}
