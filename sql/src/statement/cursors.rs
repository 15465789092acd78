//! PREPARE, EXECUTE, DEALLOCATE; DECLARE, FETCH, MOVE, CLOSE.
//!
//! A cursor's rows are made as they are fetched, forward only; WITH HOLD keeps all of them when its transaction ends.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{ClosePortalStmt, DeallocateStmt, DeclareCursorStmt, ExecuteStmt, FetchDirection, FetchStmt, PrepareStmt};
use strandline_storage::Value;

use crate::bind::Binder;
use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::Statement;
use crate::session::{ContextNames, Outcome, Portal, PortalState, Prepared, Rows, RowsTag, Session};
use crate::statement::{binding, query, tree};
use crate::types::SqlType;

/// Bits of DECLARE's options (parsenodes.h, CURSOR_OPT_*).
const CURSOR_BINARY: i32 = 0x0001;
const CURSOR_SCROLL: i32 = 0x0002;
const CURSOR_HOLD: i32 = 0x0020;

pub fn prepare(session: &mut Session, statement: &Statement, prepare: &PrepareStmt) -> Result<Outcome> {
    if session.statements.contains_key(&prepare.name) {
        return Err(SqlError::new(
            ErrorCode::DuplicatePreparedStatement,
            format!("prepared statement \"{}\" already exists", prepare.name),
        ));
    }
    let context = session.core.statement_context(Vec::new())?;
    let types = prepare
        .argtypes
        .iter()
        .map(|node| match &node.node {
            Some(NodeEnum::TypeName(name)) => Ok(binding::data_type(&context, &statement.source, name)?.oid),
            _ => Err(tree::malformed()),
        })
        .collect::<Result<Vec<_>>>()?;
    let mut inner = statement.clone();
    inner.node = tree::inner(&prepare.query)?.clone();
    let text = statement.text().to_owned();
    let prepared = session.describe(&text, Some(inner), &types, true)?;
    session.statements.insert(prepare.name.clone(), Arc::new(prepared));
    Ok(Outcome::done("PREPARE"))
}

pub fn execute(session: &mut Session, statement: &Statement, execute: &ExecuteStmt, _params: Vec<Value>) -> Result<Outcome> {
    let prepared = session.prepared(&execute.name)?.clone();
    if prepared.parameters.len() != execute.params.len() {
        return Err(SqlError::new(
            ErrorCode::SyntaxError,
            format!("wrong number of parameters for prepared statement \"{}\"", execute.name),
        )
        .detail(format!("Expected {} parameters but got {}.", prepared.parameters.len(), execute.params.len())));
    }
    let context = session.core.statement_context(Vec::new())?;
    let mut values = Vec::new();
    for (node, ty) in execute.params.iter().zip(&prepared.parameters) {
        let names = ContextNames::new(&context, true);
        let expr = Binder::new(&names, statement.source.clone(), &[]).bind_constant(node, Some(SqlType::new(*ty)))?;
        values.push(crate::exec::eval_const(&expr, &context)?);
    }
    let Some(inner) = &prepared.statement else { return Ok(Outcome::Empty) };
    session.parameter_types = prepared.parameters.clone();
    super::execute(session, inner, values)
}

pub fn deallocate(session: &mut Session, deallocate: &DeallocateStmt) -> Result<Outcome> {
    if deallocate.isall || deallocate.name.is_empty() {
        session.statements.retain(|name, _| name.is_empty());
        return Ok(Outcome::done("DEALLOCATE ALL"));
    }
    session.prepared(&deallocate.name)?;
    session.statements.remove(&deallocate.name);
    Ok(Outcome::done("DEALLOCATE"))
}

pub fn declare(session: &mut Session, statement: &Statement, declare: &DeclareCursorStmt, params: Vec<Value>) -> Result<Outcome> {
    let hold = declare.options & CURSOR_HOLD != 0;
    if declare.options & CURSOR_BINARY != 0 {
        return Err(SqlError::unsupported("a binary cursor"));
    }
    if declare.options & CURSOR_SCROLL != 0 {
        return Err(SqlError::unsupported("a scrollable cursor"));
    }
    if hold {
        return Err(SqlError::unsupported("a cursor WITH HOLD"));
    }
    if !session.core.in_explicit() {
        return Err(SqlError::new(ErrorCode::NoActiveTransaction, "DECLARE CURSOR can only be used in transaction blocks"));
    }
    let name = declare.portalname.clone();
    if session.portals.contains_key(&name) {
        return Err(SqlError::new(ErrorCode::DuplicateCursor, format!("cursor \"{name}\" already exists")));
    }
    let inner = tree::inner(&declare.query)?.clone();
    let types = session.parameter_types.clone();
    let (context, batches) = query::run(session, statement, &inner, params, &types)?;
    let rows = query::rows_of(&context, batches, RowsTag::Counted("FETCH"))?;
    let mut own = statement.clone();
    own.node = inner;
    let prepared = Prepared {
        text: statement.text().into(),
        statement: Some(own),
        parameters: Vec::new(),
        columns: Some(rows.columns.clone()),
        from_sql: true,
        prepared_at: strandline_storage::Timestamp::now(),
    };
    let portal = Portal {
        prepared: Arc::new(prepared),
        params: Vec::new(),
        formats: Vec::new(),
        state: PortalState::Suspended(rows),
        hold,
        cursor: true,
    };
    session.portals.insert(name, portal);
    Ok(Outcome::done("DECLARE CURSOR"))
}

fn no_cursor(name: &str) -> SqlError {
    SqlError::new(ErrorCode::InvalidCursorName, format!("cursor \"{name}\" does not exist"))
}

pub fn fetch(session: &mut Session, fetch: &FetchStmt) -> Result<Outcome> {
    let forward = matches!(fetch.direction(), FetchDirection::FetchForward) && fetch.how_many >= 0;
    let next = matches!(fetch.direction(), FetchDirection::FetchRelative) && fetch.how_many == 1;
    if !forward && !next {
        return Err(SqlError::unsupported("a cursor that moves other than forward"));
    }
    let wanted = usize::try_from(fetch.how_many).unwrap_or(usize::MAX);
    let name = &fetch.portalname;
    // A portal of the protocol is a cursor as well: drivers FETCH and MOVE what they have bound.
    if matches!(session.portals.get(name), Some(portal) if matches!(portal.state, PortalState::Ready)) {
        match session.execute_portal(name)? {
            Outcome::Rows(rows) => session.suspend(name, rows),
            _ => return Err(SqlError::new(ErrorCode::ObjectNotInPrerequisiteState, format!("portal \"{name}\" cannot be run"))),
        }
    }
    let portal = session.portals.get_mut(name).ok_or_else(|| no_cursor(name))?;
    let columns = portal.prepared.columns.clone().ok_or_else(tree::malformed)?;
    let mut taken = Vec::new();
    let mut count = 0;
    if let PortalState::Suspended(rows) = &mut portal.state {
        let mut ended = false;
        while count < wanted {
            let Some((batch, start)) = next_batch(rows)? else {
                ended = true;
                break;
            };
            let length = (batch.num_rows() - start).min(wanted - count);
            taken.push(batch.slice(start, length));
            count += length;
            if start + length < batch.num_rows() {
                rows.pending = Some((batch, start + length));
            }
        }
        if ended {
            portal.state = PortalState::Finished;
        }
    }
    if fetch.ismove {
        return Ok(Outcome::done(format!("MOVE {count}")));
    }
    use futures::StreamExt;
    Ok(Outcome::Rows(Rows {
        columns,
        tag: RowsTag::Counted("FETCH"),
        batches: futures::stream::iter(taken.into_iter().map(Ok)).boxed(),
        pending: None,
        context: session.core.statement_context(Vec::new())?,
    }))
}

fn next_batch(rows: &mut Rows) -> Result<Option<(datafusion::arrow::record_batch::RecordBatch, usize)>> {
    use futures::StreamExt;
    if let Some(pending) = rows.pending.take() {
        return Ok(Some(pending));
    }
    Ok(futures::executor::block_on(rows.batches.next()).transpose()?.map(|batch| (batch, 0)))
}

pub fn close(session: &mut Session, close: &ClosePortalStmt) -> Result<Outcome> {
    if close.portalname.is_empty() {
        session.portals.retain(|_, p| !p.cursor);
        return Ok(Outcome::done("CLOSE CURSOR ALL"));
    }
    match session.portals.remove(&close.portalname) {
        Some(_) => Ok(Outcome::done("CLOSE CURSOR")),
        None => Err(no_cursor(&close.portalname)),
    }
}
