//! Transactions and what else concerns the whole session: BEGIN, SAVEPOINT, DISCARD, LOCK, VACUUM.

use pg_query::NodeEnum;
use pg_query::protobuf::{DiscardMode, DiscardStmt, LockStmt, TransactionStmt, TransactionStmtKind, VacuumStmt};

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::{Notice, NoticeCode, Outcome, Session};
use crate::statement::{ddl, tree};

pub fn transaction(session: &mut Session, statement: &TransactionStmt) -> Result<Outcome> {
    use TransactionStmtKind as K;
    let core = session.core.clone();
    let in_block = |what: &str| {
        if core.in_explicit() {
            return Ok(());
        }
        Err(SqlError::new(ErrorCode::NoActiveTransaction, format!("{what} can only be used in transaction blocks")))
    };
    match statement.kind() {
        K::TransStmtBegin | K::TransStmtStart => {
            let mut read_only = None;
            for option in tree::def_elems(&statement.options) {
                match option.defname.as_str() {
                    "transaction_read_only" => read_only = Some(tree::def_bool(option)?),
                    "transaction_isolation" | "transaction_deferrable" => {}
                    other => return Err(SqlError::unsupported(format_args!("transaction option \"{other}\""))),
                }
            }
            if core.begin(read_only) {
                core.notice(Notice::warning(NoticeCode::ActiveTransaction, "there is already a transaction in progress"));
            }
            for option in tree::def_elems(&statement.options) {
                if option.defname == "transaction_isolation"
                    && let Some(level) = tree::def_text(option)
                {
                    core.set_setting("transaction_isolation", &level, crate::session::SetScope::Local)?;
                }
            }
            Ok(Outcome::done(if statement.kind() == K::TransStmtStart { "START TRANSACTION" } else { "BEGIN" }))
        }
        K::TransStmtCommit | K::TransStmtRollback => {
            let commit = statement.kind() == K::TransStmtCommit;
            let explicit = core.in_explicit();
            if !explicit && !statement.chain {
                core.notice(Notice::warning(NoticeCode::NoActiveTransaction, "there is no transaction in progress"));
            }
            session.close_portals();
            let committed = if commit {
                core.commit()?
            } else {
                core.rollback();
                false
            };
            if statement.chain {
                if !explicit {
                    return Err(SqlError::new(
                        ErrorCode::NoActiveTransaction,
                        format!("{} AND CHAIN can only be used in transaction blocks", if commit { "COMMIT" } else { "ROLLBACK" }),
                    ));
                }
                core.begin(None);
            }
            Ok(Outcome::done(if commit && committed { "COMMIT" } else { "ROLLBACK" }))
        }
        K::TransStmtSavepoint => {
            in_block("SAVEPOINT")?;
            core.savepoint(&statement.savepoint_name);
            Ok(Outcome::done("SAVEPOINT"))
        }
        K::TransStmtRelease => {
            in_block("RELEASE SAVEPOINT")?;
            core.release_savepoint(&statement.savepoint_name)?;
            Ok(Outcome::done("RELEASE"))
        }
        K::TransStmtRollbackTo => {
            in_block("ROLLBACK TO SAVEPOINT")?;
            core.rollback_to_savepoint(&statement.savepoint_name)?;
            Ok(Outcome::done("ROLLBACK"))
        }
        K::TransStmtPrepare | K::TransStmtCommitPrepared | K::TransStmtRollbackPrepared => Err(SqlError::unsupported("two-phase commit")),
        K::Undefined => Err(tree::malformed()),
    }
}

/// LOCK TABLE: a transaction works on its snapshot and its commit finds conflicts, so nothing waits; the tables must exist.
pub fn lock(session: &mut Session, lock: &LockStmt) -> Result<Outcome> {
    if !session.core.in_explicit() {
        return Err(SqlError::new(ErrorCode::NoActiveTransaction, "LOCK TABLE can only be used in transaction blocks"));
    }
    let context = session.core.statement_context(Vec::new())?;
    for relation in &lock.relations {
        let (schema, name) = tree::object_name(relation)?;
        ddl::find_relation(&context, schema.as_deref(), &name)?;
    }
    Ok(Outcome::done("LOCK TABLE"))
}

/// VACUUM and ANALYZE: the store keeps itself in order and its counts are exact; the tables must exist.
pub fn vacuum(session: &mut Session, vacuum: &VacuumStmt) -> Result<Outcome> {
    if vacuum.is_vacuumcmd && session.core.in_explicit() {
        return Err(SqlError::new(ErrorCode::ActiveTransaction, "VACUUM cannot run inside a transaction block"));
    }
    let context = session.core.statement_context(Vec::new())?;
    for relation in &vacuum.rels {
        if let Some(NodeEnum::VacuumRelation(relation)) = &relation.node {
            let (schema, name) = tree::range_name(tree::range(&relation.relation)?);
            ddl::find_relation(&context, schema.as_deref(), &name)?;
        }
    }
    Ok(Outcome::done(if vacuum.is_vacuumcmd { "VACUUM" } else { "ANALYZE" }))
}

pub fn checkpoint(session: &mut Session) -> Result<Outcome> {
    session.core.store().sync()?;
    Ok(Outcome::done("CHECKPOINT"))
}

/// SET CONSTRAINTS: no constraint is deferrable here, so this changes nothing for those there are.
pub fn set_constraints(session: &mut Session) -> Result<Outcome> {
    if !session.core.in_explicit() {
        session.core.notice(Notice::warning(NoticeCode::NoActiveTransaction, "SET CONSTRAINTS can only be used in transaction blocks"));
    }
    Ok(Outcome::done("SET CONSTRAINTS"))
}

pub fn discard(session: &mut Session, discard: &DiscardStmt) -> Result<Outcome> {
    match discard.target() {
        DiscardMode::DiscardAll => {
            if session.core.in_explicit() {
                return Err(SqlError::new(ErrorCode::ActiveTransaction, "DISCARD ALL cannot run inside a transaction block"));
            }
            session.portals.clear();
            session.statements.clear();
            session.core.reset_setting("session_authorization")?;
            session.core.reset_all_settings()?;
            session.core.forget_sequences();
            Ok(Outcome::done("DISCARD ALL"))
        }
        DiscardMode::DiscardPlans => Ok(Outcome::done("DISCARD PLANS")),
        DiscardMode::DiscardSequences => {
            session.core.forget_sequences();
            Ok(Outcome::done("DISCARD SEQUENCES"))
        }
        DiscardMode::DiscardTemp => Ok(Outcome::done("DISCARD TEMP")),
        DiscardMode::Undefined => Err(tree::malformed()),
    }
}
