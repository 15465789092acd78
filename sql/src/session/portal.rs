//! The session as its connection owns it: prepared statements and portals over the shared core.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use strandline_storage::Value;

use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::{self, Statement};
use crate::session::core::SessionCore;
use crate::session::engine::CancelHandle;
use crate::session::transaction::TransactionStatus;
use crate::session::{Notice, Outcome, OutputColumn, Rows};
use crate::statement;
use crate::types::Oid;

/// Parameters of one statement; the protocol's count is 16 bits.
const PARAMETERS_MAX: usize = 65_535;

/// A statement that was parsed and whose types are known.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub text: Arc<str>,
    /// `None`: an empty statement.
    pub statement: Option<Statement>,
    pub parameters: Vec<Oid>,
    /// `None`: it gives no rows.
    pub columns: Option<Arc<[OutputColumn]>>,
    /// Made by PREPARE, not by the protocol.
    pub from_sql: bool,
    pub prepared_at: strandline_storage::Timestamp,
}

/// A parameter as the client sent it.
#[derive(Clone, Debug)]
pub struct ParameterValue {
    pub binary: bool,
    /// `None`: NULL.
    pub bytes: Option<Bytes>,
}

/// A statement with its parameters, ready to run or under way.
#[derive(Debug)]
pub struct Portal {
    pub prepared: Arc<Prepared>,
    pub params: Vec<Value>,
    pub formats: Vec<i16>,
    pub(crate) state: PortalState,
    /// DECLARE ... WITH HOLD.
    pub(crate) hold: bool,
    pub(crate) cursor: bool,
}

#[derive(Debug)]
pub(crate) enum PortalState {
    Ready,
    Suspended(Rows),
    Finished,
}

/// A client's session. Dropping it rolls back what is under way.
#[derive(Debug)]
pub struct Session {
    pub(crate) core: Arc<SessionCore>,
    pub(crate) statements: HashMap<String, Arc<Prepared>>,
    pub(crate) portals: HashMap<String, Portal>,
    /// The types of the parameters of the statement being run.
    pub(crate) parameter_types: Vec<Oid>,
}

impl Session {
    pub(crate) fn new(core: Arc<SessionCore>) -> Self {
        Session { core, statements: HashMap::new(), portals: HashMap::new(), parameter_types: Vec::new() }
    }

    pub fn pid(&self) -> i32 {
        self.core.pid
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        self.core.cancel_handle()
    }

    pub fn status(&self) -> TransactionStatus {
        self.core.status()
    }

    pub fn take_notices(&self) -> Vec<Notice> {
        self.core.take_notices()
    }

    /// Settings to report that changed since the last call: (name on the wire, value).
    pub fn take_reports(&self) -> Vec<(&'static str, String)> {
        self.core.take_reports()
    }

    pub fn setting(&self, name: &str) -> Option<String> {
        self.core.setting(name)
    }

    /// A time setting in milliseconds; 0: none.
    pub fn milliseconds(&self, name: &str) -> u64 {
        self.core.state.lock().settings.milliseconds(name)
    }

    /// Parses a batch of the simple protocol.
    pub fn split(&mut self, text: &str) -> Result<Vec<Statement>> {
        self.statements.remove("");
        self.portals.remove("");
        parse::parse(text)
    }

    /// Runs one statement without parameters.
    pub fn execute(&mut self, statement: &Statement) -> Result<Outcome> {
        self.core.begin_statement(&statement.text().into());
        self.refuse_when_failed(Some(statement))?;
        self.parameter_types.clear();
        statement::execute(self, statement, Vec::new())
    }

    /// Parse: makes a named (or the unnamed, "") prepared statement.
    /// # Errors
    /// Whatever parsing and binding find; `DuplicatePreparedStatement` for a name in use.
    pub fn prepare(&mut self, name: &str, text: &str, types: &[Oid]) -> Result<()> {
        self.core.begin_statement(&text.into());
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(SqlError::new(ErrorCode::DuplicatePreparedStatement, format!("prepared statement \"{name}\" already exists")));
        }
        if name.is_empty() {
            self.statements.remove("");
        }
        let mut statements = parse::parse(text)?;
        if statements.len() > 1 {
            return Err(SqlError::new(ErrorCode::SyntaxError, "cannot insert multiple commands into a prepared statement"));
        }
        let statement = statements.pop();
        self.refuse_when_failed(statement.as_ref())?;
        let prepared = self.describe(text, statement, types, false)?;
        self.statements.insert(name.to_owned(), Arc::new(prepared));
        Ok(())
    }

    pub(crate) fn describe(&mut self, text: &str, statement: Option<Statement>, types: &[Oid], from_sql: bool) -> Result<Prepared> {
        let (parameters, columns) = match &statement {
            Some(statement) => statement::describe(self, statement, types)?,
            None => (Vec::new(), None),
        };
        if parameters.len() > PARAMETERS_MAX {
            return Err(SqlError::new(
                ErrorCode::ProgramLimitExceeded,
                format!("number of parameters must be between 0 and {PARAMETERS_MAX}"),
            ));
        }
        Ok(Prepared {
            text: text.into(),
            statement,
            parameters,
            columns: columns.map(Into::into),
            from_sql,
            prepared_at: strandline_storage::Timestamp::now(),
        })
    }

    /// # Errors
    /// `InvalidPreparedStatement` when there is none of this name.
    pub fn prepared(&self, name: &str) -> Result<&Arc<Prepared>> {
        self.statements.get(name).ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{name}\" does not exist")
            };
            SqlError::new(ErrorCode::InvalidPreparedStatement, message)
        })
    }

    /// Bind: makes a portal of a prepared statement and its parameters.
    pub fn bind(&mut self, portal: &str, statement: &str, values: Vec<ParameterValue>, formats: Vec<i16>) -> Result<()> {
        let prepared = self.prepared(statement)?.clone();
        self.refuse_when_failed(prepared.statement.as_ref())?;
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(SqlError::new(ErrorCode::DuplicateCursor, format!("cursor \"{portal}\" already exists")));
        }
        if values.len() != prepared.parameters.len() {
            return Err(SqlError::new(
                ErrorCode::ProtocolViolation,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                    values.len(),
                    prepared.parameters.len()
                ),
            ));
        }
        let column_count = prepared.columns.as_ref().map_or(0, |c| c.len());
        if formats.len() > 1 && formats.len() != column_count {
            return Err(SqlError::new(
                ErrorCode::ProtocolViolation,
                format!("bind message has {} result formats but query has {column_count} columns", formats.len()),
            ));
        }
        if let Some(bad) = formats.iter().find(|f| !matches!(f, 0 | 1)) {
            return Err(SqlError::new(ErrorCode::InvalidParameterValue, format!("unsupported format code: {bad}")));
        }
        let params = statement::decode_parameters(&self.core, portal, &prepared.parameters, values)?;
        self.portals.insert(portal.to_owned(), Portal { prepared, params, formats, state: PortalState::Ready, hold: false, cursor: false });
        Ok(())
    }

    /// # Errors
    /// `InvalidCursorName` when there is none of this name.
    pub fn portal(&self, name: &str) -> Result<&Portal> {
        self.portals.get(name).ok_or_else(|| no_portal(name))
    }

    /// Starts or resumes a portal. Rows that the caller does not take it puts back with [`Self::suspend`].
    pub fn execute_portal(&mut self, name: &str) -> Result<Outcome> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let prepared = portal.prepared.clone();
        let Some(parsed) = &prepared.statement else { return Ok(Outcome::Empty) };
        match std::mem::replace(&mut portal.state, PortalState::Finished) {
            PortalState::Ready => {
                let params = portal.params.clone();
                self.core.begin_statement(&prepared.text);
                self.refuse_when_failed(Some(parsed))?;
                self.parameter_types = prepared.parameters.clone();
                let outcome = statement::execute(self, parsed, params)?;
                if let (Outcome::Rows(rows), Some(described)) = (&outcome, &prepared.columns)
                    && !described.iter().map(|c| c.ty.oid).eq(rows.columns.iter().map(|c| c.ty.oid))
                {
                    // The client knows other columns, from before a table changed: drivers prepare anew when they read this text.
                    return Err(SqlError::new(ErrorCode::FeatureNotSupported, "cached plan must not change result type"));
                }
                Ok(outcome)
            }
            PortalState::Suspended(rows) => Ok(Outcome::Rows(rows)),
            PortalState::Finished => match &prepared.columns {
                Some(_) => Ok(Outcome::done("SELECT 0")),
                None => Err(SqlError::new(ErrorCode::ObjectNotInPrerequisiteState, format!("portal \"{name}\" cannot be run"))),
            },
        }
    }

    /// Keeps the rest of a portal's rows for the next Execute.
    pub fn suspend(&mut self, name: &str, rows: Rows) {
        if let Some(portal) = self.portals.get_mut(name) {
            portal.state = PortalState::Suspended(rows);
        }
    }

    pub fn close_statement(&mut self, name: &str) {
        self.statements.remove(name);
    }

    pub fn close_portal(&mut self, name: &str) {
        self.portals.remove(name);
    }

    /// In a failed transaction only its end is listened to.
    fn refuse_when_failed(&self, statement: Option<&Statement>) -> Result<()> {
        if self.core.is_failed() && !statement.is_some_and(statement::ends_transaction) {
            return Err(SqlError::new(
                ErrorCode::InFailedTransaction,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    /// Ends an implicit transaction with its changes durable; an explicit one goes on.
    /// # Errors
    /// `SerializationFailure`: nothing of it was kept.
    pub fn finish(&mut self) -> Result<()> {
        self.core.end_statement();
        if !self.core.in_explicit() {
            self.close_portals();
            self.core.commit()?;
        }
        Ok(())
    }

    /// After an error: an explicit transaction becomes a failed one, an implicit one is rolled back.
    pub fn fail(&mut self) {
        self.core.end_statement();
        self.close_portals();
        self.core.fail();
    }

    /// Portals live as long as their transaction.
    pub(crate) fn close_portals(&mut self) {
        self.portals.retain(|_, portal| portal.hold);
    }
}

fn no_portal(name: &str) -> SqlError {
    let what = if name.is_empty() { "portal \"\"".to_owned() } else { format!("portal \"{name}\"") };
    SqlError::new(ErrorCode::InvalidCursorName, format!("{what} does not exist"))
}

impl Drop for Session {
    fn drop(&mut self) {
        self.core.rollback();
        self.core.engine.disconnect(self.core.pid);
    }
}
