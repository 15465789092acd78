//! CREATE, ALTER and DROP SUBSCRIPTION: their options, by PostgreSQL's rules (its `subscriptioncmds.c`) and with its texts.
//!
//! Subscriptions belong to the server, not to a branch's catalog. In a transaction block their commands are planned, and carried out when it commits; what
//! asks or changes the primary cannot wait, and does not run in one, as in PostgreSQL.

use pg_query::protobuf::{
    AlterOwnerStmt, AlterSubscriptionStmt, AlterSubscriptionType, CommentStmt, CreateSubscriptionStmt, DefElem, DropSubscriptionStmt, Node,
    RenameStmt,
};
use strandline_storage::Lsn;

use crate::context::Revision;
use crate::error::{ErrorCode, Result, SqlError};
use crate::session::subscription::{
    CreateSubscription, Streaming, SubscriptionCaller, SubscriptionChange, SubscriptionCommand, SubscriptionSettings,
};
use crate::session::{Outcome, Session};
use crate::statement::tree;

/// A slot's name is PostgreSQL's `name`.
const SLOT_NAME_SIZE_MAX: usize = 63;

/// What PostgreSQL calls subscription parameters: options that some form of the commands takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameter {
    Connect,
    Enabled,
    CreateSlot,
    SlotName,
    CopyData,
    SynchronousCommit,
    Refresh,
    Binary,
    Streaming,
    TwoPhase,
    DisableOnError,
    Lsn,
    Origin,
    CreateTables,
}

use Parameter as P;

const NAMES: [(&str, Parameter); 14] = [
    ("connect", P::Connect),
    ("enabled", P::Enabled),
    ("create_slot", P::CreateSlot),
    ("slot_name", P::SlotName),
    ("copy_data", P::CopyData),
    ("synchronous_commit", P::SynchronousCommit),
    ("refresh", P::Refresh),
    ("binary", P::Binary),
    ("streaming", P::Streaming),
    ("two_phase", P::TwoPhase),
    ("disable_on_error", P::DisableOnError),
    ("lsn", P::Lsn),
    ("origin", P::Origin),
    ("create_tables", P::CreateTables),
];

const FOR_CREATE: &[Parameter] = &[
    P::Connect,
    P::Enabled,
    P::CreateSlot,
    P::SlotName,
    P::CopyData,
    P::SynchronousCommit,
    P::Binary,
    P::Streaming,
    P::TwoPhase,
    P::DisableOnError,
    P::Origin,
    P::CreateTables,
];
const FOR_SET: &[Parameter] = &[P::SlotName, P::SynchronousCommit, P::Binary, P::Streaming, P::DisableOnError, P::Origin, P::CreateTables];
const FOR_PUBLICATIONS: &[Parameter] = &[P::CopyData, P::Refresh];

/// What was said; `None`: nothing.
#[derive(Default)]
struct Options {
    connect: Option<bool>,
    enabled: Option<bool>,
    create_slot: Option<bool>,
    /// The inner `None`: NONE.
    slot_name: Option<Option<String>>,
    copy_data: Option<bool>,
    refresh: Option<bool>,
    two_phase: Option<bool>,
    create_tables: Option<bool>,
    lsn: Option<Option<Lsn>>,
    settings: SubscriptionSettings,
}

fn syntax(message: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::SyntaxError, message)
}

impl Options {
    fn parse(nodes: &[Node], supported: &[Parameter]) -> Result<Options> {
        let mut options = Options::default();
        let mut seen = Vec::new();
        for def in tree::def_elems(nodes) {
            let name = def.defname.as_str();
            let option = NAMES.iter().find(|(n, o)| *n == name && supported.contains(o)).map(|(_, option)| *option);
            let option = option.ok_or_else(|| syntax(format!("unrecognized subscription parameter: \"{name}\"")))?;
            if seen.contains(&option) {
                return Err(syntax("conflicting or redundant options").at(def.location + 1));
            }
            seen.push(option);
            options.take(option, def)?;
        }
        Ok(options)
    }

    fn take(&mut self, option: Parameter, def: &DefElem) -> Result<()> {
        match option {
            P::Connect => self.connect = Some(boolean(def)?),
            P::Enabled => self.enabled = Some(boolean(def)?),
            P::CreateSlot => self.create_slot = Some(boolean(def)?),
            P::CopyData => self.copy_data = Some(boolean(def)?),
            P::Refresh => self.refresh = Some(boolean(def)?),
            P::TwoPhase => self.two_phase = Some(boolean(def)?),
            P::CreateTables => self.create_tables = Some(boolean(def)?),
            P::DisableOnError => self.settings.disable_on_error = Some(boolean(def)?),
            P::Streaming => self.settings.streaming = Some(streaming(def)?),
            P::Binary => {
                self.settings.binary = Some(boolean(def)?);
            }
            P::SlotName => {
                let name = text(def)?;
                self.slot_name = Some(if name == "none" { None } else { Some(slot_name(name)?) });
            }
            P::SynchronousCommit => self.settings.synchronous_commit = Some(synchronous_commit(&text(def)?)?),
            P::Origin => {
                let origin = text(def)?.to_ascii_lowercase();
                if !matches!(origin.as_str(), "any" | "none") {
                    return Err(SqlError::new(ErrorCode::InvalidParameterValue, format!("unrecognized origin value: \"{origin}\"")));
                }
                self.settings.origin = Some(origin);
            }
            P::Lsn => {
                let lsn = text(def)?;
                self.lsn = Some(if lsn == "none" { None } else { Some(wal_location(&lsn)?) });
            }
        }
        Ok(())
    }
}

fn boolean(def: &DefElem) -> Result<bool> {
    if def.arg.is_none() {
        return Ok(true);
    }
    match tree::def_text(def).unwrap_or_default().to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(syntax(format!("{} requires a Boolean value", def.defname))),
    }
}

/// As PostgreSQL 16 takes it: its third value does no harm where a primary does not know it.
fn streaming(def: &DefElem) -> Result<Streaming> {
    if tree::def_text(def).is_some_and(|text| text.eq_ignore_ascii_case("parallel")) {
        return Ok(Streaming::Parallel);
    }
    match boolean(def) {
        Ok(true) => Ok(Streaming::On),
        Ok(false) => Ok(Streaming::Off),
        Err(_) => Err(syntax(format!("{} requires a Boolean value or \"parallel\"", def.defname))),
    }
}

fn text(def: &DefElem) -> Result<String> {
    tree::def_text(def).ok_or_else(|| syntax(format!("{} requires a parameter", def.defname)))
}

fn slot_name(name: String) -> Result<String> {
    let refuse = |what: &str| SqlError::new(ErrorCode::InvalidName, format!("replication slot name \"{name}\" {what}"));
    if name.is_empty() {
        return Err(refuse("is too short"));
    }
    if name.len() > SLOT_NAME_SIZE_MAX {
        return Err(SqlError::new(ErrorCode::NameTooLong, format!("replication slot name \"{name}\" is too long")));
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err(refuse("contains invalid character")
            .hint("Replication slot names may only contain lower case letters, numbers, and the underscore character."));
    }
    Ok(name)
}

fn synchronous_commit(value: &str) -> Result<String> {
    let lower = value.to_ascii_lowercase();
    match lower.as_str() {
        "local" | "remote_write" | "remote_apply" | "on" | "off" => Ok(lower),
        "true" | "yes" | "1" => Ok("on".into()),
        "false" | "no" | "0" => Ok("off".into()),
        _ => {
            Err(SqlError::new(ErrorCode::InvalidParameterValue, format!("invalid value for parameter \"synchronous_commit\": \"{value}\""))
                .hint("Available values: local, remote_write, remote_apply, on, off."))
        }
    }
}

fn wal_location(text: &str) -> Result<Lsn> {
    let lsn: Lsn = text
        .parse()
        .map_err(|_| SqlError::new(ErrorCode::InvalidTextRepresentation, format!("invalid input syntax for type pg_lsn: \"{text}\"")))?;
    if lsn == Lsn(0) {
        return Err(SqlError::new(ErrorCode::InvalidParameterValue, format!("invalid WAL location (LSN): {text}")));
    }
    Ok(lsn)
}

/// Names of publications, each once.
fn publications(nodes: &[Node]) -> Result<Vec<String>> {
    let names = tree::strings(nodes);
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(SqlError::new(ErrorCode::DuplicateObject, format!("publication name \"{name}\" used more than once")));
        }
    }
    Ok(names)
}

fn exclusive(one: &str, other: &str) -> SqlError {
    syntax(format!("{one} and {other} are mutually exclusive options"))
}

/// What CREATE SUBSCRIPTION wants, with PostgreSQL's defaults.
fn created(create: &CreateSubscriptionStmt) -> Result<CreateSubscription> {
    let options = Options::parse(&create.options, FOR_CREATE)?;
    let connect = options.connect.unwrap_or(true);
    if !connect {
        for (value, named) in
            [(options.enabled, "enabled = true"), (options.create_slot, "create_slot = true"), (options.copy_data, "copy_data = true")]
        {
            if value == Some(true) {
                return Err(exclusive("connect = false", named));
            }
        }
    }
    let enabled = connect && options.enabled.unwrap_or(true);
    let create_slot = connect && options.create_slot.unwrap_or(true);
    if options.slot_name == Some(None) {
        for (value, said, named) in [(enabled, options.enabled, "enabled"), (create_slot, options.create_slot, "create_slot")] {
            if value && said.is_some() {
                return Err(exclusive("slot_name = NONE", &format!("{named} = true")));
            }
            if value {
                return Err(syntax(format!("subscription with slot_name = NONE must also set {named} = false")));
            }
        }
    }
    Ok(CreateSubscription {
        name: create.subname.clone(),
        conninfo: create.conninfo.clone(),
        publications: publications(&create.publication)?,
        connect,
        enabled,
        create_slot,
        slot_name: options.slot_name.unwrap_or_else(|| Some(create.subname.clone())),
        copy_data: connect && options.copy_data.unwrap_or(true),
        two_phase: options.two_phase.unwrap_or(false),
        create_tables: options.create_tables.unwrap_or(true),
        settings: options.settings,
    })
}

/// What ALTER SUBSCRIPTION wants.
fn changed(alter: &AlterSubscriptionStmt) -> Result<SubscriptionChange> {
    use AlterSubscriptionType as T;
    let with_refresh = || -> Result<(Vec<String>, bool, bool)> {
        let options = Options::parse(&alter.options, FOR_PUBLICATIONS)?;
        Ok((publications(&alter.publication)?, options.refresh.unwrap_or(true), options.copy_data.unwrap_or(true)))
    };
    Ok(match alter.kind() {
        T::AlterSubscriptionConnection => SubscriptionChange::Connection(alter.conninfo.clone()),
        T::AlterSubscriptionOptions => {
            let options = Options::parse(&alter.options, FOR_SET)?;
            SubscriptionChange::Set { slot_name: options.slot_name, create_tables: options.create_tables, settings: options.settings }
        }
        T::AlterSubscriptionSetPublication => {
            let (names, refresh, copy_data) = with_refresh()?;
            SubscriptionChange::SetPublications { names, refresh, copy_data }
        }
        T::AlterSubscriptionAddPublication => {
            let (names, refresh, copy_data) = with_refresh()?;
            SubscriptionChange::AddPublications { names, refresh, copy_data }
        }
        T::AlterSubscriptionDropPublication => {
            let (names, refresh, copy_data) = with_refresh()?;
            SubscriptionChange::DropPublications { names, refresh, copy_data }
        }
        T::AlterSubscriptionRefresh => {
            let options = Options::parse(&alter.options, &[P::CopyData])?;
            SubscriptionChange::Refresh { copy_data: options.copy_data.unwrap_or(true) }
        }
        T::AlterSubscriptionEnabled => {
            SubscriptionChange::Enable(Options::parse(&alter.options, &[P::Enabled])?.enabled.ok_or_else(tree::malformed)?)
        }
        T::AlterSubscriptionSkip => SubscriptionChange::Skip(Options::parse(&alter.options, &[P::Lsn])?.lsn.ok_or_else(tree::malformed)?),
        T::Undefined => return Err(tree::malformed()),
    })
}

/// Refuses a transaction block with PostgreSQL's words for the form that it refuses, too.
fn check_no_block(session: &Session, what: &str) -> Result<()> {
    if session.core.in_explicit() {
        return Err(SqlError::new(ErrorCode::ActiveTransaction, format!("{what} cannot run inside a transaction block")));
    }
    Ok(())
}

fn run(session: &Session, command: SubscriptionCommand, tag: &'static str) -> Result<Outcome> {
    session.core.check_writable(tag)?;
    let Revision::Branch(branch) = session.core.revision() else { return Err(SqlError::unsupported(format_args!("{tag} on a commit"))) };
    let role = session.core.user();
    let caller = SubscriptionCaller { database: session.core.database(), branch, role: role.oid, superuser: role.superuser };
    let subscriptions = session.core.engine.options.subscriptions.clone();
    let core = session.core.clone();
    let mut notify = |notice| core.notice(notice);
    if session.core.in_explicit() {
        let plan = subscriptions.plan(command, &caller, session.core.planned_subscriptions().as_ref(), &mut notify)?;
        session.core.plan_subscriptions(plan);
    } else {
        subscriptions.execute(command, &caller, &mut notify)?;
    }
    Ok(Outcome::done(tag))
}

pub fn create(session: &Session, create: &CreateSubscriptionStmt) -> Result<Outcome> {
    let create = created(create)?;
    if create.create_slot {
        check_no_block(session, "CREATE SUBSCRIPTION ... WITH (create_slot = true)")?;
    }
    if !session.core.user().superuser {
        return Err(SqlError::new(ErrorCode::InsufficientPrivilege, "must be superuser to create subscriptions"));
    }
    run(session, SubscriptionCommand::Create(Box::new(create)), "CREATE SUBSCRIPTION")
}

pub fn alter(session: &Session, alter: &AlterSubscriptionStmt) -> Result<Outcome> {
    let change = changed(alter)?;
    match &change {
        SubscriptionChange::SetPublications { refresh: true, .. }
        | SubscriptionChange::AddPublications { refresh: true, .. }
        | SubscriptionChange::DropPublications { refresh: true, .. } => check_no_block(session, "ALTER SUBSCRIPTION with refresh")?,
        SubscriptionChange::Refresh { .. } => check_no_block(session, "ALTER SUBSCRIPTION ... REFRESH")?,
        _ => {}
    }
    run(session, SubscriptionCommand::Alter { name: alter.subname.clone(), change }, "ALTER SUBSCRIPTION")
}

pub fn rename(session: &Session, rename: &RenameStmt) -> Result<Outcome> {
    let name = rename.object.as_deref().and_then(tree::string).ok_or_else(tree::malformed)?.to_owned();
    let change = SubscriptionChange::Rename(rename.newname.clone());
    run(session, SubscriptionCommand::Alter { name, change }, "ALTER SUBSCRIPTION")
}

pub fn set_owner(session: &Session, alter: &AlterOwnerStmt) -> Result<Outcome> {
    let name = alter.object.as_deref().and_then(tree::string).ok_or_else(tree::malformed)?.to_owned();
    let role = alter.newowner.as_ref().ok_or_else(tree::malformed)?;
    let role = tree::role_name(role, &session.core.user().name, session.core.session_user())?;
    let found = session.core.engine.role(&role)?;
    let found = found.ok_or_else(|| SqlError::new(ErrorCode::UndefinedObject, format!("role \"{role}\" does not exist")))?;
    let change = SubscriptionChange::Owner { role: found.oid, superuser: found.superuser };
    run(session, SubscriptionCommand::Alter { name, change }, "ALTER SUBSCRIPTION")
}

/// COMMENT ON SUBSCRIPTION.
pub fn comment(session: &Session, comment: &CommentStmt) -> Result<Outcome> {
    let name = comment.object.as_deref().and_then(tree::string).ok_or_else(tree::malformed)?.to_owned();
    let change = SubscriptionChange::Comment((!comment.comment.is_empty()).then(|| comment.comment.clone()));
    run(session, SubscriptionCommand::Alter { name, change }, "COMMENT")
}

pub fn drop(session: &Session, drop: &DropSubscriptionStmt) -> Result<Outcome> {
    run(session, SubscriptionCommand::Drop { name: drop.subname.clone(), missing_ok: drop.missing_ok }, "DROP SUBSCRIPTION")
}
