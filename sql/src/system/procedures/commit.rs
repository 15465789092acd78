//! `dolt_commit`: makes a commit of what is staged.

use strandline_storage::Value;

use super::add::stage_tracked;
use super::flags::{Flags, parse_author, parse_date};
use super::{Call, bad_argument, meta};
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::builder::text;

pub fn commit(call: &Call<'_>, arguments: &[&str]) -> Result<Vec<Value>> {
    let known = [
        (Some('m'), "message", true),
        (Some('a'), "all", false),
        (Some('A'), "ALL", false),
        (None, "allow-empty", false),
        (None, "skip-empty", false),
        (None, "date", true),
        (None, "author", true),
        (None, "amend", false),
        (Some('f'), "force", false),
    ];
    let flags = Flags::parse("dolt_commit", arguments, &known)?;
    if let Some(extra) = flags.rest.first() {
        return Err(bad_argument(format!("dolt_commit() takes no argument \"{extra}\"")).hint("Give the message after '-m'."));
    }
    if flags.has("allow-empty") && flags.has("skip-empty") {
        return Err(bad_argument("options --allow-empty and --skip-empty cannot be used together"));
    }
    let amend = flags.has("amend");
    let head = call.context.store.commit(call.state.head)?;
    if amend && head.parents.is_empty() {
        return Err(bad_argument("the first commit cannot be amended"));
    }
    if amend && head.meta.source.is_some() {
        // It stands for a transaction of the primary, as that was.
        return Err(SqlError::new(ErrorCode::ObjectNotInPrerequisiteState, "a replicated commit cannot be amended"));
    }
    let message = match flags.value("message") {
        Some(message) => message.to_string(),
        None if amend => head.meta.message.clone(),
        None => return Err(bad_argument("a commit needs a message").hint("Give it after '-m'.")),
    };
    if message.trim().is_empty() {
        return Err(bad_argument("aborting commit due to empty commit message"));
    }
    let mut meta = meta(call.context, &message)?;
    if let Some(author) = flags.value("author") {
        meta.author = parse_author(author)?;
    }
    if let Some(date) = flags.value("date") {
        meta.author_time = parse_date(date, call.context)?;
        meta.commit_time = meta.author_time;
    }
    let staged = if flags.has("ALL") {
        Some(call.state.working.clone())
    } else if flags.has("all") {
        Some(stage_tracked(&call.state)?)
    } else {
        None
    };
    let unchanged = staged.as_ref().unwrap_or(&call.state.staged).same(&call.state.head_root)?;
    if unchanged && !amend && !flags.has("allow-empty") {
        if flags.has("skip-empty") {
            return Ok(vec![text("")]);
        }
        return Err(SqlError::new(ErrorCode::ObjectNotInPrerequisiteState, "nothing to commit"));
    }
    let version = match staged {
        Some(staged) => {
            call.branch.set_roots(call.state.version, Some(staged), None)?;
            call.branch.state().version
        }
        None => call.state.version,
    };
    let (id, position) = call.branch.commit_staged(version, meta, amend)?;
    call.session.written(position)?;
    Ok(vec![text(id.to_string())])
}
