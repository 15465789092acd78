//! What functions with side effects do to their session ([`SessionAccess`]).

use strandline_storage::schema::{CatalogObject, Sequence};
use strandline_storage::{JournalPosition, Oid, Value};

use crate::context::{Revision, SessionAccess, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};
use crate::session::core::{SessionCore, SetScope};
use crate::session::engine::RowsFor;
use crate::session::sequence::SequenceState;
use crate::system::ProcedureSession;

fn sequence_of(context: &StatementContext, oid: Oid) -> Result<&Sequence> {
    match context.root.catalog().get(oid).map(|o| &**o) {
        Some(CatalogObject::Sequence(sequence)) => Ok(sequence),
        Some(other) => Err(SqlError::new(ErrorCode::WrongObjectType, format!("\"{}\" is not a sequence", other.name()))),
        None => Err(SqlError::new(ErrorCode::UndefinedTable, format!("could not open relation with OID {oid}"))),
    }
}

impl SessionAccess for SessionCore {
    fn call_procedure(&self, name: &str, args: &[Option<String>], context: &StatementContext) -> Result<Vec<Value>> {
        self.check_writable(&format!("{name}()"))?;
        crate::system::call_procedure(name, args, context, self)
    }

    fn nextval(&self, sequence: u32, context: &StatementContext) -> Result<i64> {
        self.check_writable("nextval()")?;
        let value = self.engine.sequences.next(sequence_of(context, sequence)?)?;
        self.remember_sequence(sequence, value);
        Ok(value)
    }

    fn currval(&self, sequence: u32, context: &StatementContext) -> Result<i64> {
        let sequence = sequence_of(context, sequence)?;
        self.state.lock().sequence_values.get(&sequence.oid).copied().ok_or_else(|| {
            SqlError::new(
                ErrorCode::ObjectNotInPrerequisiteState,
                format!("currval of sequence \"{}\" is not yet defined in this session", sequence.name),
            )
        })
    }

    fn lastval(&self, _context: &StatementContext) -> Result<i64> {
        let state = self.state.lock();
        state
            .last_sequence
            .and_then(|oid| state.sequence_values.get(&oid).copied())
            .ok_or_else(|| SqlError::new(ErrorCode::ObjectNotInPrerequisiteState, "lastval is not yet defined in this session"))
    }

    fn setval(&self, sequence: u32, value: i64, is_called: bool, context: &StatementContext) -> Result<i64> {
        self.check_writable("setval()")?;
        let sequence = sequence_of(context, sequence)?;
        self.engine.sequences.set(sequence, SequenceState { last_value: value, is_called })?;
        if is_called {
            self.state.lock().sequence_values.insert(sequence.oid, value);
        }
        Ok(value)
    }

    fn set_config(&self, name: &str, value: &str, is_local: bool) -> Result<String> {
        self.set_setting(name, value, if is_local { SetScope::Local } else { SetScope::Session })
    }

    fn current_setting(&self, name: &str) -> Result<Option<String>> {
        Ok(self.setting(name))
    }

    fn sequence_state(&self, sequence: &Sequence) -> SequenceState {
        self.engine.sequences.state(sequence)
    }

    fn reset_subscription_statistics(&self, oid: Option<u32>) -> Result<()> {
        if !self.user().superuser {
            let what = "permission denied for function pg_stat_reset_subscription_stats";
            return Err(SqlError::new(ErrorCode::InsufficientPrivilege, what));
        }
        if oid == Some(0) {
            return Err(SqlError::new(ErrorCode::InvalidParameterValue, "invalid subscription OID 0"));
        }
        self.engine.options.subscriptions.reset_statistics(oid)
    }

    fn server_rows(&self, table: &str) -> Vec<serde_json::Value> {
        match table {
            "pg_stat_activity" => self.engine.sessions().iter().map(activity_row).collect(),
            "pg_settings" => self.setting_rows(),
            other => {
                let (database, superuser) = (self.database(), self.user().superuser);
                let viewer = RowsFor { database, superuser, subscriptions: self.planned_subscriptions() };
                (self.engine.options.server_rows)(other, &viewer)
            }
        }
    }
}

fn activity_row(session: &crate::session::SessionInfo) -> serde_json::Value {
    serde_json::json!({
        "datname": session.database,
        "pid": session.pid,
        "usename": session.user,
        "application_name": session.application_name,
        "client_addr": session.client.map(|a| a.ip().to_string()),
        "client_port": session.client.map(|a| a.port()),
        "state": session.state,
        "query": &*session.query,
        "backend_type": "client backend",
    })
}

impl ProcedureSession for SessionCore {
    fn flush(&self) -> Result<()> {
        match self.revision() {
            Revision::Branch(_) => self.flush_transaction().map(|_| ()),
            Revision::Commit(_) => Ok(()),
        }
    }

    fn others_on(&self, branch: &str) -> usize {
        self.engine.sessions_on(&self.database(), branch, self.pid)
    }

    fn switch(&self, revision: Revision) -> Result<()> {
        self.switch_revision(revision)
    }

    fn written(&self, position: JournalPosition) -> Result<()> {
        self.engine.store.wait_durable(position)?;
        self.refresh_snapshot()
    }
}
