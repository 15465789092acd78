//! The version procedures: `dolt_add`, `dolt_commit`, `dolt_branch`, `dolt_checkout`, `dolt_tag`, `dolt_reset`, `dolt_gc`.
//!
//! They are functions in SQL (`SELECT dolt_commit('-Am', 'x')`) that act on their session: they put the open transaction's
//! changes into the branch's working set first, work on the branch, and let the session go on from what they left.

mod add;
mod branch;
mod checkout;
mod commit;
mod flags;
mod gc;
mod reset;
mod tag;

use std::collections::BTreeSet;
use std::sync::Arc;

use strandline_storage::{Branch, BranchState, CatalogObject, CommitMeta, JournalPosition, Root, Timestamp, Value};

use crate::context::{Revision, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::refs::{Resolver, plain_database, session_branch};
use crate::types::{Oid, oid};

/// What a procedure may do to the session that runs it.
pub trait ProcedureSession {
    /// Puts the open transaction's changes into the branch's working set and begins anew on what the branch is then.
    /// # Errors
    /// `SerializationFailure` when the branch moved in a way that the changes do not survive.
    fn flush(&self) -> Result<()>;

    /// How many other sessions are on a branch of this database.
    fn others_on(&self, branch: &str) -> usize;

    /// Goes over to another branch (of the same database). The open transaction has been flushed.
    fn switch(&self, revision: Revision) -> Result<()>;

    /// What was done is at this place in the journal: the client hears of success when it is durable. The session's
    /// transaction goes on from the branch's present state.
    fn written(&self, position: JournalPosition) -> Result<()>;
}

/// How often a procedure begins anew on a branch that replication moves under it.
const ATTEMPTS_MAX: u32 = 1000;

/// The procedures' names and result columns.
const PROCEDURES: &[(&str, &[(&str, Oid)])] = &[
    ("dolt_add", &[("status", oid::INT8)]),
    ("dolt_branch", &[("status", oid::INT8)]),
    ("dolt_checkout", &[("status", oid::INT8), ("message", oid::TEXT)]),
    ("dolt_commit", &[("hash", oid::TEXT)]),
    ("dolt_gc", &[("status", oid::INT8)]),
    ("dolt_reset", &[("status", oid::INT8)]),
    ("dolt_tag", &[("status", oid::INT8)]),
];

/// Says whether a function is a version procedure.
pub fn is_procedure(name: &str) -> bool {
    PROCEDURES.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
}

/// What a procedure works with.
struct Call<'a> {
    context: &'a StatementContext,
    session: &'a dyn ProcedureSession,
    branch: Arc<Branch>,
    state: BranchState,
}

/// Runs a version procedure; one value per result column.
/// # Errors
/// Bad arguments, and what the procedure itself refuses.
pub fn call_procedure(
    name: &str,
    arguments: &[Option<String>],
    context: &StatementContext,
    session: &dyn ProcedureSession,
) -> Result<Vec<Value>> {
    let name = name.to_ascii_lowercase();
    if !is_procedure(&name) {
        return Err(SqlError::unsupported(format!("function {name}()")));
    }
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|a| a.as_deref().ok_or_else(|| SqlError::new(ErrorCode::NullValueNotAllowed, format!("arguments of {name}() cannot be NULL"))))
        .collect::<Result<_>>()?;
    if name == "dolt_checkout" {
        return checkout::checkout(&arguments, context, session);
    }
    session.flush()?;
    match name.as_str() {
        // Branches and tags can be made, and space given back, while the session is on a commit.
        "dolt_branch" => return branch::branch(&arguments, context, session),
        "dolt_gc" => return gc::gc(&arguments, context),
        "dolt_tag" => return tag::tag(&arguments, context, session),
        _ => {}
    }
    let branch = session_branch(context)?;
    let mut attempt = 1;
    loop {
        let call = Call { context, session, branch: Arc::clone(&branch), state: branch.state() };
        let result = match name.as_str() {
            "dolt_add" => add::add(&call, &arguments),
            "dolt_commit" => commit::commit(&call, &arguments),
            _ => reset::reset(&call, &arguments),
        };
        match result {
            // A replicated commit came between reading the branch and changing it: what was to be done still can be.
            Err(error) if error.code == ErrorCode::SerializationFailure && attempt < ATTEMPTS_MAX => {
                context.check_cancel()?;
                attempt += 1;
                std::thread::yield_now();
            }
            result => return result,
        }
    }
}

/// The hint for `CALL dolt_x(...)`.
pub fn call_hint(name: &str) -> SqlError {
    SqlError::new(ErrorCode::WrongObjectType, format!("{name} is not a procedure"))
        .hint(format!("To call a function, use SELECT: SELECT {name}(...)."))
}

impl Call<'_> {
    /// Refs as they are now, the transaction's changes included.
    fn resolver(&self) -> Resolver<'_> {
        Resolver {
            store: &self.context.store,
            database: plain_database(self.context),
            head: Some(self.state.head),
            branch: Some(&self.state),
            text: &self.context.text,
        }
    }
}

/// `target` with these objects as `source` has them. What stands in the way of their names in `target` is taken over too: of
/// a table that was dropped and made again, or of names that were swapped, one half alone would leave two tables of one name.
fn take_objects(target: &Root, source: &Root, mut oids: BTreeSet<Oid>) -> Root {
    let name = |object: &CatalogObject| {
        let space = match object {
            CatalogObject::Schema(_) => 0,
            CatalogObject::Type(_) => 1,
            _ => 2,
        };
        (space, object.schema_oid(), object.name().to_owned())
    };
    loop {
        let names: BTreeSet<_> = oids.iter().filter_map(|oid| source.catalog().get(*oid)).map(|o| name(o)).collect();
        let before = oids.len();
        oids.extend(target.catalog().objects.values().filter(|o| names.contains(&name(o))).map(|o| o.oid()));
        if oids.len() == before {
            break;
        }
    }
    oids.into_iter().fold(target.clone(), |root, oid| root.with_object_of(source, oid))
}

fn bad_argument(message: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::InvalidParameterValue, message)
}

/// The result of a procedure that has nothing to say.
fn done() -> Result<Vec<Value>> {
    Ok(vec![Value::Int8(0)])
}

/// Author and committer as the session's settings have them, the user otherwise.
fn meta(context: &StatementContext, message: &str) -> Result<CommitMeta> {
    let setting = |name: &str| context.settings.get(name).map(String::as_str).filter(|v| !v.is_empty());
    let time = |name: &str| -> Result<Timestamp> {
        match setting(name) {
            Some(text) => flags::parse_date(text, context),
            None => Ok(Timestamp::now()),
        }
    };
    let identity = |role: &str| strandline_storage::Identity {
        name: setting(&format!("dolt_{role}_name")).unwrap_or(&context.user).to_string(),
        email: setting(&format!("dolt_{role}_email")).map_or_else(|| format!("{}@strandline", context.user), str::to_string),
    };
    let author = identity("author");
    let committer = match (setting("dolt_committer_name"), setting("dolt_committer_email")) {
        (None, None) => author.clone(),
        _ => identity("committer"),
    };
    Ok(CommitMeta {
        author_time: time("dolt_author_date")?,
        commit_time: time("dolt_committer_date")?,
        author,
        committer,
        message: message.to_string(),
        source: None,
    })
}

/// The identity and message that a transaction's own commit gets (`dolt_transaction_commit`).
pub fn transaction_meta(context: &StatementContext) -> Result<CommitMeta> {
    let message = context.settings.get("dolt_transaction_commit_message").map(String::as_str).filter(|m| !m.is_empty());
    meta(context, message.unwrap_or("Transaction commit"))
}
