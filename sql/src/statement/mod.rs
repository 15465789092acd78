//! Statements: what each kind does. The parse tree decides; nothing here reads SQL text.
//!
//! Queries and DML go through the binder and the executor ([`query`], [`dml`], [`copy`]); everything else acts on the
//! catalog ([`ddl`]), the transaction ([`control`]) or the settings ([`variables`]). A statement that is not known is
//! refused with its name.

mod binding;
mod control;
mod copy;
mod cursors;
mod ddl;
mod dml;
mod domain;
mod query;
mod stored;
mod tree;
mod variables;

use pg_query::NodeEnum;
use pg_query::protobuf::TransactionStmtKind;
use strandline_storage::Value;

use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::Statement;
use crate::session::{Outcome, OutputColumn, ParameterValue, Session, SessionCore};
use crate::types::{Oid, SqlType};
use crate::wire::{self, Format};

pub(crate) use domain::{DomainConditions, plain_type};
pub(crate) use query::batch_of as rows_batch;
pub use stored::{StoredExpressions, StoredValues};

/// Runs a statement.
pub fn execute(session: &mut Session, statement: &Statement, params: Vec<Value>) -> Result<Outcome> {
    use NodeEnum as N;
    if !params.is_empty() && !takes_parameters(&statement.node) {
        return Err(SqlError::new(ErrorCode::UndefinedParameter, "there is no parameter $1"));
    }
    if statement.has_as_of() && !reads_tables(&statement.node) {
        return Err(SqlError::unsupported("AS OF in this statement"));
    }
    match &statement.node {
        N::SelectStmt(select) if select.into_clause.is_some() => ddl::create_table_as::select_into(session, statement, select, params),
        N::SelectStmt(_) => query::select(session, statement, params),
        N::InsertStmt(_) | N::UpdateStmt(_) | N::DeleteStmt(_) => dml::execute(session, statement, params),
        N::MergeStmt(_) => Err(SqlError::unsupported("MERGE")),
        N::ExplainStmt(explain) => query::explain(session, statement, explain, params),
        N::CopyStmt(copy) => copy::execute(session, statement, copy),
        N::TruncateStmt(truncate) => dml::truncate::execute(session, statement, truncate),

        N::TransactionStmt(transaction) => control::transaction(session, transaction),
        N::LockStmt(lock) => control::lock(session, lock),
        N::VacuumStmt(vacuum) => control::vacuum(session, vacuum),
        N::CheckPointStmt(_) => control::checkpoint(session),
        N::DiscardStmt(discard) => control::discard(session, discard),
        // Drivers' pools give back whatever they listen to; without LISTEN that is nothing.
        N::UnlistenStmt(_) => Ok(Outcome::done("UNLISTEN")),
        N::ConstraintsSetStmt(_) => control::set_constraints(session),

        N::VariableSetStmt(set) => variables::set(session, set),
        N::VariableShowStmt(show) => variables::show(session, &show.name),

        N::PrepareStmt(prepare) => cursors::prepare(session, statement, prepare),
        N::ExecuteStmt(execute) => cursors::execute(session, statement, execute, params),
        N::DeallocateStmt(deallocate) => cursors::deallocate(session, deallocate),
        N::DeclareCursorStmt(declare) => cursors::declare(session, statement, declare, params),
        N::FetchStmt(fetch) => cursors::fetch(session, fetch),
        N::ClosePortalStmt(close) => cursors::close(session, close),

        other => ddl::execute(session, statement, other, params),
    }
}

/// The types of a statement's parameters and, where it gives rows, its columns.
pub fn describe(session: &mut Session, statement: &Statement, types: &[Oid]) -> Result<(Vec<Oid>, Option<Vec<OutputColumn>>)> {
    use NodeEnum as N;
    match &statement.node {
        N::SelectStmt(select) if select.into_clause.is_none() => query::describe(session, statement, &statement.node, types),
        N::InsertStmt(_) | N::UpdateStmt(_) | N::DeleteStmt(_) => dml::describe(session, statement, types),
        N::CreateTableAsStmt(create) => {
            let inner = tree::inner(&create.query)?;
            let (parameters, _) = query::describe(session, statement, inner, types)?;
            Ok((parameters, None))
        }
        N::SelectStmt(_) => {
            let (parameters, _) = query::describe(session, statement, &statement.node, types)?;
            Ok((parameters, None))
        }
        N::DeclareCursorStmt(declare) => {
            let (parameters, _) = query::describe(session, statement, tree::inner(&declare.query)?, types)?;
            Ok((parameters, None))
        }
        N::ExplainStmt(explain) => {
            let parameters = match tree::inner(&explain.query)? {
                inner @ N::SelectStmt(_) => query::describe(session, statement, inner, types)?.0,
                _ => Vec::new(),
            };
            Ok((parameters, Some(vec![query::text_column(session, "QUERY PLAN")?])))
        }
        N::VariableShowStmt(show) => Ok((Vec::new(), Some(variables::show_columns(session, &show.name)?))),
        N::ExecuteStmt(execute) => {
            let columns = session.prepared(&execute.name)?.columns.clone();
            Ok((Vec::new(), columns.map(|c| c.to_vec())))
        }
        N::FetchStmt(fetch) if !fetch.ismove => {
            let columns = session.portals.get(&fetch.portalname).and_then(|p| p.prepared.columns.clone());
            Ok((Vec::new(), columns.map(|c| c.to_vec())))
        }
        _ => Ok((Vec::new(), None)),
    }
}

/// Statements in which AS OF has a meaning.
fn reads_tables(node: &NodeEnum) -> bool {
    use NodeEnum as N;
    matches!(node, N::CopyStmt(_) | N::ViewStmt(_) | N::PrepareStmt(_)) || takes_parameters(node)
}

/// Statements whose parameters have values when they run; in others PostgreSQL has none either.
fn takes_parameters(node: &NodeEnum) -> bool {
    use NodeEnum as N;
    matches!(
        node,
        N::SelectStmt(_)
            | N::InsertStmt(_)
            | N::UpdateStmt(_)
            | N::DeleteStmt(_)
            | N::ExplainStmt(_)
            | N::CreateTableAsStmt(_)
            | N::DeclareCursorStmt(_)
            | N::ExecuteStmt(_)
    )
}

/// What a failed transaction still listens to.
pub fn ends_transaction(statement: &Statement) -> bool {
    match &statement.node {
        NodeEnum::TransactionStmt(t) => matches!(
            t.kind(),
            TransactionStmtKind::TransStmtCommit | TransactionStmtKind::TransStmtRollback | TransactionStmtKind::TransStmtRollbackTo
        ),
        _ => false,
    }
}

/// Parameters from their wire forms.
pub fn decode_parameters(
    core: &std::sync::Arc<SessionCore>,
    portal: &str,
    types: &[Oid],
    values: Vec<ParameterValue>,
) -> Result<Vec<Value>> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let context = core.statement_context(Vec::new())?;
    types
        .iter()
        .zip(values)
        .enumerate()
        .map(|(i, (oid, value))| {
            let data_type = crate::functions::casts::data_type(&context, SqlType::new(*oid))?;
            let format = if value.binary { Format::Binary } else { Format::Text };
            wire::decode(&context, &data_type, value.bytes.as_deref(), format).map_err(|mut error| {
                if error.code == ErrorCode::InvalidBinaryRepresentation {
                    error.message = format!("incorrect binary data format in bind parameter {}", i + 1);
                }
                // Never the value itself: parameters are not to be logged.
                let place = if portal.is_empty() { "unnamed portal".to_owned() } else { format!("portal \"{portal}\"") };
                error.context = Some(format!("{place} parameter ${}{}", i + 1, if value.binary { "" } else { " = '...'" }));
                error
            })
        })
        .collect()
}
