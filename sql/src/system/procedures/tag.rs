//! `dolt_tag`: names a commit for good.

use strandline_storage::{Timestamp, Value};

use super::branch::{check_name, resolve_now};
use super::flags::{Flags, parse_author};
use super::{ProcedureSession, bad_argument, done, meta};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::refs::plain_database;

pub fn tag(arguments: &[&str], context: &StatementContext, _session: &dyn ProcedureSession) -> Result<Vec<Value>> {
    let known = [(Some('m'), "message", true), (Some('d'), "delete", false), (None, "author", true)];
    let flags = Flags::parse("dolt_tag", arguments, &known)?;
    let database = plain_database(context);
    let tags = context.store.tags(database)?;
    let exists = |name: &str| tags.iter().any(|t| t.name == name);
    if flags.has("delete") {
        if flags.rest.is_empty() {
            return Err(bad_argument("dolt_tag('-d', ...) needs the name of a tag"));
        }
        for name in &flags.rest {
            if !exists(name) {
                return Err(SqlError::new(ErrorCode::UndefinedObject, format!("tag \"{name}\" does not exist")));
            }
            context.store.delete_tag(database, name)?;
        }
        context.store.sync()?;
        return done();
    }
    let (name, target) = match flags.rest.as_slice() {
        [name] => (name, "HEAD"),
        [name, target] => (name, target.as_str()),
        _ => return Err(bad_argument("dolt_tag() takes a name and a commit").hint("SELECT * FROM dolt_tags lists the tags.")),
    };
    check_name("tag", name)?;
    if exists(name) {
        return Err(SqlError::new(ErrorCode::DuplicateObject, format!("tag \"{name}\" already exists")));
    }
    let tagger = match flags.value("author") {
        Some(author) => parse_author(author)?,
        None => meta(context, "")?.author,
    };
    let tag = strandline_storage::store::Tag {
        name: name.clone(),
        commit: resolve_now(context, target)?,
        tagger,
        time: Timestamp::now(),
        message: flags.value("message").unwrap_or("").to_string(),
    };
    context.store.create_tag(database, tag)?;
    context.store.sync()?;
    done()
}
