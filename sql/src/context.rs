//! What a statement sees of its session and of the store while it is bound and run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strandline_storage::value::TextSettings;
use strandline_storage::{BranchState, CommitId, Root, Store, Timestamp};

use crate::error::{ErrorCode, Result, SqlError};

/// The moment and the surroundings of one statement. Shared with query threads.
pub struct StatementContext {
    pub store: Arc<Store>,
    pub session: Arc<dyn SessionAccess>,
    pub user: String,
    pub database: String,
    /// What the session is on: a branch, or a commit for `db/<hash>`.
    pub revision: Revision,
    /// The tables that plain names mean: the transaction's working root, or the commit's.
    pub root: Root,
    /// The branch as the statement's snapshot has it; `None` on a commit.
    pub branch: Option<BranchState>,
    pub search_path: Vec<String>,
    pub text: TextSettings,
    /// All settings by lower-case name.
    pub settings: Arc<BTreeMap<String, String>>,
    pub transaction_time: Timestamp,
    pub statement_time: Timestamp,
    pub backend_pid: i32,
    pub cancel: Arc<AtomicBool>,
    /// Nobody waits for the statement's rows any more. Apart from `cancel`, which is the session's and which its next statement clears.
    pub abandoned: Arc<AtomicBool>,
    pub params: Vec<strandline_storage::Value>,
}

impl std::fmt::Debug for StatementContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatementContext").field("user", &self.user).field("database", &self.database).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    Branch(String),
    Commit(CommitId),
}

impl StatementContext {
    /// The same statement on another revision: what `"db/branch".t` and `t AS OF x` are looked up in.
    pub fn at(&self, revision: Revision, root: Root, branch: Option<BranchState>) -> StatementContext {
        StatementContext {
            store: Arc::clone(&self.store),
            session: Arc::clone(&self.session),
            user: self.user.clone(),
            database: self.database.clone(),
            revision,
            root,
            branch,
            search_path: self.search_path.clone(),
            text: self.text.clone(),
            settings: Arc::clone(&self.settings),
            transaction_time: self.transaction_time,
            statement_time: self.statement_time,
            backend_pid: self.backend_pid,
            cancel: Arc::clone(&self.cancel),
            abandoned: Arc::clone(&self.abandoned),
            params: self.params.clone(),
        }
    }

    /// # Errors
    /// `QueryCanceled` once the client has asked for it. Long loops call this every few thousand rows.
    pub fn check_cancel(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) || self.abandoned.load(Ordering::Relaxed) {
            return Err(SqlError::new(ErrorCode::QueryCanceled, "canceling statement due to user request"));
        }
        Ok(())
    }
}

/// What functions with side effects may do to their session.
pub trait SessionAccess: Send + Sync {
    /// Runs a version procedure (`dolt_commit`, ...) with its text arguments; one value per result column.
    fn call_procedure(&self, name: &str, args: &[Option<String>], context: &StatementContext) -> Result<Vec<strandline_storage::Value>>;
    fn nextval(&self, sequence: u32, context: &StatementContext) -> Result<i64>;
    fn currval(&self, sequence: u32, context: &StatementContext) -> Result<i64>;
    fn lastval(&self, context: &StatementContext) -> Result<i64>;
    fn setval(&self, sequence: u32, value: i64, is_called: bool, context: &StatementContext) -> Result<i64>;
    /// Where a sequence stands now.
    fn sequence_state(&self, sequence: &strandline_storage::schema::Sequence) -> crate::session::SequenceState;
    fn set_config(&self, name: &str, value: &str, is_local: bool) -> Result<String>;
    fn current_setting(&self, name: &str) -> Result<Option<String>>;
    /// Of one subscription, or (`None`) of all.
    fn reset_subscription_statistics(&self, oid: Option<u32>) -> Result<()>;
    /// Rows that the server knows and sql does not (replication status, backends): by virtual table name, JSON objects.
    fn server_rows(&self, table: &str) -> Vec<serde_json::Value>;
}
