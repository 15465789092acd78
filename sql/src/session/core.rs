//! The part of a session that its query threads share: settings, database and revision, the transaction under way.
//!
//! Locks are held for moments only, never while a query runs or a commit waits: a function that a query calls
//! (`nextval`, `set_config`, `dolt_commit`) finds the session free.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use strandline_storage::{Branch, BranchState, CommitId, CommitMeta, Edit, Identity, Oid, Root, Store, Timestamp, Value};

use crate::context::{Revision, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};
use crate::session::Notice;
use crate::session::engine::{CancelHandle, ConnectRequest, Engine, SessionInfo};
use crate::session::role::Role;
use crate::session::settings::{REPORTED, Settings};
use crate::session::subscription::SubscriptionPlan;
use crate::session::transaction::{Savepoint, Snapshot, Transaction, TransactionStatus};

/// What a statement may do with settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetScope {
    Session,
    Local,
}

pub(crate) struct State {
    pub user: Role,
    pub settings: Settings,
    pub database: String,
    pub revision: Revision,
    pub branch: Option<Arc<Branch>>,
    pub transaction: Option<Transaction>,
    pub sequence_values: HashMap<Oid, i64>,
    pub last_sequence: Option<Oid>,
    pub notices: Vec<Notice>,
    /// Reported settings as the client was last told.
    pub reported: HashMap<&'static str, String>,
    pub query: Arc<str>,
    pub query_started: Option<Timestamp>,
    pub active: bool,
}

/// See the module.
pub struct SessionCore {
    pub(crate) engine: Arc<Engine>,
    pub(crate) pid: i32,
    session_user: String,
    client: Option<std::net::SocketAddr>,
    started: Timestamp,
    cancel: CancelHandle,
    pub(crate) state: Mutex<State>,
}

impl std::fmt::Debug for SessionCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionCore").field("pid", &self.pid).finish_non_exhaustive()
    }
}

fn read_only_error(what: &str) -> SqlError {
    SqlError::new(ErrorCode::ReadOnlyTransaction, format!("cannot execute {what} in a read-only transaction"))
}

impl SessionCore {
    pub(crate) fn open(engine: Arc<Engine>, pid: i32, role: Role, request: ConnectRequest) -> Result<Arc<SessionCore>> {
        let mut settings = Settings::new(&[
            ("server_version", engine.options.server_version.clone()),
            ("dolt_transaction_commit", if engine.options.transaction_commit { "on" } else { "off" }.into()),
            ("default_transaction_read_only", if engine.options.read_only { "on" } else { "off" }.into()),
        ]);
        settings.force("session_authorization", &role.name);
        settings.force("is_superuser", if role.superuser { "on" } else { "off" });
        for (name, value) in &request.settings {
            settings.set(name, value, true)?;
        }
        let (database, revision, branch) = open_revision(&engine, &request.database)?;
        let reported = HashMap::new();
        Ok(Arc::new(SessionCore {
            engine,
            pid,
            session_user: role.name.clone(),
            client: request.client,
            started: Timestamp::now(),
            cancel: CancelHandle::new(),
            state: Mutex::new(State {
                user: role,
                settings,
                database,
                revision,
                branch,
                transaction: None,
                sequence_values: HashMap::new(),
                last_sequence: None,
                notices: Vec::new(),
                reported,
                query: "".into(),
                query_started: None,
                active: false,
            }),
        }))
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.engine.store
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    pub fn database(&self) -> String {
        self.state.lock().database.clone()
    }

    /// The role whose rights apply now.
    pub fn user(&self) -> Role {
        self.state.lock().user.clone()
    }

    pub fn session_user(&self) -> &str {
        &self.session_user
    }

    pub fn revision(&self) -> Revision {
        self.state.lock().revision.clone()
    }

    /// A setting's value, if there is one of this name.
    pub fn setting(&self, name: &str) -> Option<String> {
        let state = self.state.lock();
        if name.eq_ignore_ascii_case("transaction_read_only") {
            let default = || state.settings.is_on("default_transaction_read_only");
            let on = state.transaction.as_ref().map_or_else(default, |t| t.read_only);
            return Some(if on { "on" } else { "off" }.into());
        }
        // Outside of a block it is what the next one begins with.
        if name.eq_ignore_ascii_case("transaction_isolation") && !state.transaction.as_ref().is_some_and(|t| t.explicit) {
            return state.settings.get("default_transaction_isolation").map(str::to_owned);
        }
        state.settings.get(name).map(str::to_owned)
    }

    pub(crate) fn info(&self) -> SessionInfo {
        let state = self.state.lock();
        SessionInfo {
            pid: self.pid,
            user: self.session_user.clone(),
            database: state.database.clone(),
            application_name: state.settings.get("application_name").unwrap_or_default().to_owned(),
            client: self.client,
            started: self.started,
            state: match (&state.transaction, state.active) {
                (_, true) => "active",
                (Some(t), false) if t.explicit && t.failed => "idle in transaction (aborted)",
                (Some(t), false) if t.explicit => "idle in transaction",
                _ => "idle",
            },
            query: state.query.clone(),
            query_started: state.query_started,
            transaction_started: state.transaction.as_ref().map(|t| t.started),
        }
    }

    // Notices and reported settings.

    pub fn notice(&self, notice: Notice) {
        let mut state = self.state.lock();
        let wanted = match state.settings.get("client_min_messages") {
            Some("error") => false,
            Some("warning") => notice.severity == "WARNING",
            _ => true,
        };
        if wanted {
            state.notices.push(notice);
        }
    }

    pub(crate) fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.state.lock().notices)
    }

    /// Reported settings that changed since the last call, by their names on the wire.
    pub(crate) fn take_reports(&self) -> Vec<(&'static str, String)> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut changed = Vec::new();
        for (name, wire_name) in REPORTED {
            let value = state.settings.get(name).unwrap_or_default();
            if state.reported.get(name).map(String::as_str) != Some(value) {
                changed.push((*wire_name, value.to_owned()));
                state.reported.insert(name, value.to_owned());
            }
        }
        changed
    }

    // Statements.

    /// Marks the start of a statement: it may be cancelled from here on.
    pub(crate) fn begin_statement(&self, query: &Arc<str>) {
        self.cancel.flag.store(false, std::sync::atomic::Ordering::Relaxed);
        let mut state = self.state.lock();
        state.query = query.clone();
        state.query_started = Some(Timestamp::now());
        state.active = true;
    }

    pub(crate) fn end_statement(&self) {
        self.state.lock().active = false;
    }

    /// What a statement sees: the transaction's snapshot with its own changes. Begins an implicit transaction if none is under way.
    pub fn statement_context(self: &Arc<Self>, params: Vec<Value>) -> Result<Arc<StatementContext>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        self.ensure_snapshot(state)?;
        let transaction = state.transaction.as_ref().expect("BUG: a transaction was begun");
        let root = transaction.root().expect("BUG: a snapshot was taken").clone();
        let branch = match &transaction.snapshot {
            Some(Snapshot::Branch { base, .. }) => Some(BranchState { working: root.clone(), ..(**base).clone() }),
            _ => None,
        };
        Ok(Arc::new(StatementContext {
            store: self.engine.store.clone(),
            session: self.clone(),
            user: state.user.name.clone(),
            database: state.database.clone(),
            revision: state.revision.clone(),
            root,
            branch,
            search_path: state.settings.search_path(&state.user.name),
            text: state.settings.text().clone(),
            settings: state.settings.values().clone(),
            transaction_time: transaction.started,
            // The first statement begins its transaction.
            statement_time: state.query_started.map_or(transaction.started, |at| Timestamp(at.0.max(transaction.started.0))),
            backend_pid: self.pid,
            cancel: self.cancel.flag.clone(),
            abandoned: Arc::default(),
            params,
        }))
    }

    fn ensure_snapshot(&self, state: &mut State) -> Result<()> {
        if state.transaction.is_none() {
            let read_only = state.settings.is_on("default_transaction_read_only");
            state.transaction = Some(Transaction::new(false, read_only, &state.settings));
        }
        let needs = state.transaction.as_ref().is_some_and(|t| t.snapshot.is_none());
        if needs {
            let snapshot = self.take_snapshot(state)?;
            state.transaction.as_mut().expect("BUG: a transaction was begun").snapshot = Some(snapshot);
        }
        Ok(())
    }

    fn take_snapshot(&self, state: &State) -> Result<Snapshot> {
        match (&state.branch, &state.revision) {
            (Some(branch), _) => Ok(Snapshot::Branch { branch: branch.clone(), base: Box::new(branch.state()) }),
            (None, Revision::Commit(id)) => Ok(Snapshot::Commit(self.engine.store.root(*id)?)),
            (None, Revision::Branch(name)) => Err(SqlError::new(ErrorCode::UndefinedObject, format!("branch \"{name}\" does not exist"))),
        }
    }

    /// Refuses to write where that is not allowed; `what` is the command's tag.
    pub fn check_writable(&self, what: &str) -> Result<()> {
        if self.engine.options.read_only {
            return Err(read_only_error(what));
        }
        let state = self.state.lock();
        if let Revision::Commit(_) = state.revision {
            return Err(read_only_error(what).detail("The session is on a commit, not on a branch."));
        }
        if state.transaction.as_ref().is_some_and(|t| t.read_only) {
            return Err(read_only_error(what));
        }
        Ok(())
    }

    /// Lends the transaction's edit to a statement, which must give it back with [`Self::return_edit`]. No lock is held meanwhile.
    pub(crate) fn take_edit(&self, what: &str) -> Result<Edit> {
        self.check_writable(what)?;
        let mut state = self.state.lock();
        let state = &mut *state;
        self.ensure_snapshot(state)?;
        let transaction = state.transaction.as_mut().expect("BUG: a transaction was begun");
        if transaction.edit_lent {
            return Err(SqlError::new(
                ErrorCode::ObjectInUse,
                format!("cannot execute {what} while another command of the same session changes data"),
            ));
        }
        transaction.edit_lent = true;
        Ok(match transaction.edit.take() {
            Some(edit) => edit,
            None => Edit::new(transaction.snapshot.as_ref().expect("BUG: a snapshot was taken").root().clone()),
        })
    }

    pub(crate) fn return_edit(&self, edit: Edit) {
        if let Some(transaction) = self.state.lock().transaction.as_mut() {
            transaction.edit = Some(edit);
            transaction.edit_lent = false;
        }
    }

    /// Runs `change` on the transaction's edit; an error undoes what it did.
    pub(crate) fn with_edit<T>(&self, what: &str, change: impl FnOnce(&mut Edit) -> Result<T>) -> Result<T> {
        let mut edit = self.take_edit(what)?;
        let mark = edit.mark();
        let result = change(&mut edit);
        if result.is_err() {
            edit.rollback_to(mark);
        }
        self.return_edit(edit);
        result
    }

    // Transactions.

    pub fn status(&self) -> TransactionStatus {
        match &self.state.lock().transaction {
            Some(t) if t.explicit && t.failed => TransactionStatus::Failed,
            Some(t) if t.explicit => TransactionStatus::InTransaction,
            _ => TransactionStatus::Idle,
        }
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.state.lock().transaction.as_ref().is_some_and(|t| t.failed)
    }

    /// BEGIN. True when a transaction was under way already (a warning is due).
    pub(crate) fn begin(&self, read_only: Option<bool>) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        let default = state.settings.is_on("default_transaction_read_only");
        match &mut state.transaction {
            Some(t) => {
                let was_explicit = t.explicit;
                t.explicit = true;
                if let Some(read_only) = read_only {
                    t.read_only = read_only;
                }
                was_explicit
            }
            None => {
                state.transaction = Some(Transaction::new(true, read_only.unwrap_or(default), &state.settings));
                let isolation = state.settings.get("default_transaction_isolation").unwrap_or_default().to_owned();
                let _ = state.settings.set("transaction_isolation", &isolation, false);
                false
            }
        }
    }

    /// SET TRANSACTION READ ONLY / READ WRITE.
    pub(crate) fn set_read_only(&self, read_only: bool) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(t) = &mut state.transaction {
            if t.read_only && !read_only && t.snapshot.is_some() {
                return Err(SqlError::new(ErrorCode::ActiveTransaction, "transaction read-write mode must be set before any query"));
            }
            t.read_only = read_only;
        }
        Ok(())
    }

    /// The transaction under way is one that BEGIN began.
    pub(crate) fn in_explicit(&self) -> bool {
        self.state.lock().transaction.as_ref().is_some_and(|t| t.explicit)
    }

    /// Ends the transaction with its changes durable; a failed one is rolled back (returns false).
    /// # Errors
    /// `SerializationFailure` when somebody else changed the same rows first; the transaction is gone then.
    pub(crate) fn commit(self: &Arc<Self>) -> Result<bool> {
        let (transaction, meta) = {
            let mut state = self.state.lock();
            let Some(mut transaction) = state.transaction.take() else { return Ok(true) };
            if transaction.failed {
                state.settings = transaction.settings_at_start.clone();
                return Ok(false);
            }
            state.settings = transaction.settings_to_keep.clone();
            let commits = state.settings.is_on("dolt_transaction_commit");
            let changed = transaction.has_changes();
            let meta = (commits && changed).then(|| {
                let message = match state.settings.get("dolt_transaction_commit_message") {
                    Some(text) if !text.is_empty() => text.to_owned(),
                    _ => "Transaction commit".to_owned(),
                };
                commit_meta(&state, message)
            });
            if !changed {
                transaction.edit = None;
            }
            (transaction, meta)
        };
        let Transaction { edit, snapshot, subscriptions, settings_at_start, .. } = transaction;
        let mut changes = edit.zip(snapshot).zip(Some(meta));
        let mut commit = || -> Result<()> {
            if let Some(((edit, Snapshot::Branch { branch, base }), meta)) = changes.take() {
                let (_, position) = branch.commit_local(&base, edit, meta)?;
                self.engine.store.wait_durable(position)?;
            }
            Ok(())
        };
        let committed = match &subscriptions {
            Some(plan) => self.engine.options.subscriptions.carry_out(plan, &mut commit),
            None => commit(),
        };
        if let Err(error) = committed {
            self.state.lock().settings = settings_at_start;
            return Err(error);
        }
        Ok(true)
    }

    /// What the transaction's commands on subscriptions are to do at COMMIT.
    pub(crate) fn planned_subscriptions(&self) -> Option<SubscriptionPlan> {
        self.state.lock().transaction.as_ref().and_then(|t| t.subscriptions.clone())
    }

    pub(crate) fn plan_subscriptions(&self, plan: SubscriptionPlan) {
        if let Some(t) = &mut self.state.lock().transaction {
            t.subscriptions = Some(plan);
        }
    }

    pub(crate) fn rollback(&self) {
        let mut state = self.state.lock();
        if let Some(transaction) = state.transaction.take() {
            state.settings = transaction.settings_at_start;
        }
    }

    /// After an error: an explicit transaction becomes a failed one, an implicit one ends.
    pub(crate) fn fail(&self) {
        let explicit = match &mut self.state.lock().transaction {
            Some(t) if t.explicit => {
                t.failed = true;
                t.edit_lent = false;
                true
            }
            _ => false,
        };
        if !explicit {
            self.rollback();
        }
    }

    pub(crate) fn savepoint(&self, name: &str) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(t) = &mut state.transaction {
            t.savepoints.push(Savepoint {
                name: name.into(),
                mark: t.edit.as_mut().map(Edit::mark),
                settings: state.settings.clone(),
                settings_to_keep: t.settings_to_keep.clone(),
                subscriptions: t.subscriptions.clone(),
            });
        }
    }

    pub(crate) fn release_savepoint(&self, name: &str) -> Result<()> {
        let mut state = self.state.lock();
        let t = state.transaction.as_mut().ok_or_else(|| no_savepoint(name))?;
        let at = t.savepoints.iter().rposition(|s| s.name == name).ok_or_else(|| no_savepoint(name))?;
        t.savepoints.truncate(at);
        Ok(())
    }

    pub(crate) fn rollback_to_savepoint(&self, name: &str) -> Result<()> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let t = state.transaction.as_mut().ok_or_else(|| no_savepoint(name))?;
        let at = t.savepoints.iter().rposition(|s| s.name == name).ok_or_else(|| no_savepoint(name))?;
        t.savepoints.truncate(at + 1);
        let savepoint = &mut t.savepoints[at];
        state.settings = savepoint.settings.clone();
        t.settings_to_keep = savepoint.settings_to_keep.clone();
        t.subscriptions = savepoint.subscriptions.clone();
        match (&savepoint.mark, &mut t.edit) {
            (Some(mark), Some(edit)) => edit.rollback_to(mark.clone()),
            _ => t.edit = None,
        }
        t.failed = false;
        t.edit_lent = false;
        Ok(())
    }

    // Settings.

    /// SET and set_config; returns the value as kept.
    pub(crate) fn set_setting(&self, name: &str, value: &str, scope: SetScope) -> Result<String> {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            // Kept with the transaction.
            "transaction_read_only" => {
                let on = crate::session::settings::Settings::new(&[]).set("transaction_read_only", value, false)?;
                self.set_read_only(on == "on")?;
                return Ok(on);
            }
            "role" => return self.set_role(value),
            "session_authorization" => return self.set_role(value),
            _ => {}
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        // What is local outside a block ends with its statement.
        if scope == SetScope::Local && state.transaction.is_none() {
            let read_only = state.settings.is_on("default_transaction_read_only");
            state.transaction = Some(Transaction::new(false, read_only, &state.settings));
        }
        let before = state.settings.get("transaction_isolation").map(str::to_owned);
        let kept = state.settings.set(&lower, value, false)?;
        if lower == "transaction_isolation"
            && before.as_deref() != Some(kept.as_str())
            && state.transaction.as_ref().is_some_and(|t| t.explicit && t.snapshot.is_some())
        {
            state.settings.set(&lower, &before.unwrap_or_default(), false)?;
            return Err(SqlError::new(ErrorCode::ActiveTransaction, "SET TRANSACTION ISOLATION LEVEL must be called before any query"));
        }
        if let Some(t) = &mut state.transaction
            && scope == SetScope::Session
        {
            t.settings_to_keep.set(&lower, value, false)?;
        }
        Ok(kept)
    }

    pub(crate) fn reset_setting(&self, name: &str) -> Result<()> {
        if name.eq_ignore_ascii_case("role") || name.eq_ignore_ascii_case("session_authorization") {
            return self.set_role("none").map(|_| ());
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        state.settings.reset(name)?;
        if let Some(t) = &mut state.transaction {
            t.settings_to_keep.reset(name)?;
        }
        Ok(())
    }

    pub(crate) fn reset_all_settings(&self) -> Result<()> {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.settings.reset_all()?;
        if let Some(t) = &mut state.transaction {
            t.settings_to_keep = state.settings.clone();
        }
        Ok(())
    }

    fn set_role(&self, name: &str) -> Result<String> {
        let target = if name.eq_ignore_ascii_case("none") || name.eq_ignore_ascii_case("default") { &self.session_user } else { name };
        let role = self
            .engine
            .role(target)?
            .ok_or_else(|| SqlError::new(ErrorCode::InvalidParameterValue, format!("role \"{target}\" does not exist")))?;
        let allowed = target == self.session_user || self.engine.role(&self.session_user)?.is_some_and(|r| r.superuser);
        if !allowed {
            return Err(SqlError::new(ErrorCode::InsufficientPrivilege, format!("permission denied to set role \"{target}\"")));
        }
        let shown = if target == self.session_user { "none" } else { target };
        let mut state = self.state.lock();
        state.settings.force("role", shown);
        state.settings.force("is_superuser", if role.superuser { "on" } else { "off" });
        if let Some(t) = &mut state.transaction {
            t.settings_to_keep.force("role", shown);
        }
        state.user = role;
        Ok(shown.to_owned())
    }

    // What version procedures do to their session.

    /// The branch the session is on.
    /// # Errors
    /// `ReadOnlyTransaction` when it is on a commit.
    pub fn current_branch(&self) -> Result<Arc<Branch>> {
        self.state.lock().branch.clone().ok_or_else(|| {
            SqlError::new(ErrorCode::ReadOnlyTransaction, "this operation is not possible on a commit: the session is not on a branch")
        })
    }

    /// Puts the transaction's changes so far into the branch's working set (durably) and takes a fresh snapshot of it: what
    /// a version procedure does first. The transaction goes on; its savepoints are gone, as they cannot undo this.
    /// # Errors
    /// `SerializationFailure` as at COMMIT.
    pub fn flush_transaction(&self) -> Result<BranchState> {
        let (branch, pending) = {
            let mut state = self.state.lock();
            let branch = state.branch.clone().ok_or_else(|| {
                SqlError::new(ErrorCode::ReadOnlyTransaction, "this operation is not possible on a commit: the session is not on a branch")
            })?;
            let mut pending = None;
            if let Some(t) = &mut state.transaction {
                if t.edit_lent {
                    return Err(SqlError::new(
                        ErrorCode::ObjectInUse,
                        "version procedures cannot be called by a command that changes data",
                    ));
                }
                t.savepoints.clear();
                let changed = t.has_changes();
                let edit = t.edit.take();
                match t.snapshot.take() {
                    Some(Snapshot::Branch { branch, base }) if changed => {
                        pending = edit.map(|edit| (branch, base, edit));
                    }
                    _ => {}
                }
            }
            (branch, pending)
        };
        if let Some((branch, base, edit)) = pending {
            let (_, position) = branch.commit_local(&base, edit, None)?;
            self.engine.store.wait_durable(position)?;
        }
        let fresh = branch.state();
        let mut state = self.state.lock();
        if let Some(t) = &mut state.transaction {
            t.snapshot = Some(Snapshot::Branch { branch, base: Box::new(fresh.clone()) });
        }
        Ok(fresh)
    }

    /// Takes the snapshot anew after a procedure has changed the branch; the transaction must have no changes of its own
    /// (see [`Self::flush_transaction`]).
    pub fn refresh_snapshot(&self) -> Result<()> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let snapshot = self.take_snapshot(state)?;
        if let Some(t) = &mut state.transaction {
            t.snapshot = Some(snapshot);
        }
        Ok(())
    }

    /// Puts the session on another revision of its database (`dolt_checkout`). Call [`Self::flush_transaction`] before.
    pub fn switch_revision(&self, revision: Revision) -> Result<()> {
        let database = self.database();
        let branch = match &revision {
            Revision::Branch(name) => Some(self.engine.store.branch(&database, name)?),
            Revision::Commit(_) => None,
        };
        {
            let mut state = self.state.lock();
            state.revision = revision;
            state.branch = branch;
        }
        self.refresh_snapshot()
    }

    /// Puts the session on another database (`USE db/branch`); no transaction may have changes.
    pub fn switch_database(&self, name: &str) -> Result<()> {
        let (database, revision, branch) = open_revision(&self.engine, name)?;
        let mut state = self.state.lock();
        state.database = database;
        state.revision = revision;
        state.branch = branch;
        state.transaction = None;
        Ok(())
    }

    /// Who commits now, by the session's settings: the user where they say nothing.
    pub fn commit_meta(&self, message: impl Into<String>) -> CommitMeta {
        commit_meta(&self.state.lock(), message.into())
    }

    /// The root that plain names mean now.
    pub fn current_root(self: &Arc<Self>) -> Result<Root> {
        Ok(self.statement_context(Vec::new())?.root.clone())
    }

    /// `pg_settings`, as far as it can be told.
    pub(crate) fn setting_rows(&self) -> Vec<serde_json::Value> {
        let values = self.state.lock().settings.values().clone();
        values
            .iter()
            .map(|(name, value)| {
                serde_json::json!({
                    "name": crate::session::settings::display_name(name),
                    "setting": value,
                    "context": "user",
                    "vartype": "string",
                    "source": "default",
                    "boot_val": value,
                    "reset_val": value,
                    "pending_restart": false,
                })
            })
            .collect()
    }

    pub(crate) fn forget_sequences(&self) {
        let mut state = self.state.lock();
        state.sequence_values.clear();
        state.last_sequence = None;
    }

    pub(crate) fn remember_sequence(&self, oid: Oid, value: i64) {
        let mut state = self.state.lock();
        state.sequence_values.insert(oid, value);
        state.last_sequence = Some(oid);
    }
}

fn no_savepoint(name: &str) -> SqlError {
    SqlError::new(ErrorCode::InvalidSavepoint, format!("savepoint \"{name}\" does not exist"))
}

fn commit_meta(state: &State, message: String) -> CommitMeta {
    let setting = |name: &str| state.settings.get(name).filter(|v| !v.is_empty()).map(str::to_owned);
    let now = Timestamp::now();
    let time = |name: &str| {
        let text = setting(name)?;
        let timestamptz = strandline_storage::DataType::builtin(crate::types::oid::TIMESTAMPTZ, -1)?;
        match timestamptz.parse(&text, state.settings.text()) {
            Ok(Value::Int8(micros)) => Some(Timestamp(micros)),
            _ => None,
        }
    };
    let identity = |kind: &str| Identity {
        name: setting(&format!("dolt_{kind}_name")).unwrap_or_else(|| state.user.name.clone()),
        email: setting(&format!("dolt_{kind}_email")).unwrap_or_else(|| format!("{}@localhost", state.user.name)),
    };
    CommitMeta {
        author: identity("author"),
        author_time: time("dolt_author_date").unwrap_or(now),
        committer: identity("committer"),
        commit_time: time("dolt_committer_date").unwrap_or(now),
        message,
        source: None,
    }
}

/// `db`, `db/branch`, `db/<ref>`.
fn open_revision(engine: &Engine, name: &str) -> Result<(String, Revision, Option<Arc<Branch>>)> {
    let store = &engine.store;
    let absent = || SqlError::new(ErrorCode::InvalidCatalogName, format!("database \"{name}\" does not exist"));
    // A database's own name may hold a slash; the longest that exists wins.
    let databases = store.databases();
    let (database, reference) = if databases.iter().any(|d| d == name) {
        (name, None)
    } else {
        let (database, reference) = name.split_once('/').ok_or_else(absent)?;
        if !databases.iter().any(|d| d == database) {
            return Err(absent());
        }
        (database, Some(reference))
    };
    let branches = store.branches(database)?;
    let wanted = match reference {
        Some(reference) => reference.to_owned(),
        None if branches.iter().any(|(b, _)| *b == engine.options.default_branch) => engine.options.default_branch.clone(),
        None if branches.iter().any(|(b, _)| b == "main") => "main".to_owned(),
        None => branches.first().map(|(b, _)| b.clone()).ok_or_else(absent)?,
    };
    if branches.iter().any(|(b, _)| *b == wanted) {
        let branch = store.branch(database, &wanted)?;
        return Ok((database.to_owned(), Revision::Branch(wanted), Some(branch)));
    }
    let commit: CommitId = crate::session::names::resolve_commit(store, database, &engine.options.default_branch, &wanted)
        .map_err(|e| if e.code == ErrorCode::InvalidCatalogName { absent() } else { absent().detail(format!("{}.", e.message)) })?;
    Ok((database.to_owned(), Revision::Commit(commit), None))
}
