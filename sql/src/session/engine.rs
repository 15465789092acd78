//! The engine: one per server. Holds the store, the roles, the sequences' positions and the list of sessions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use parking_lot::Mutex;
use strandline_storage::{Store, Timestamp};
use tokio::sync::Notify;

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::core::SessionCore;
use crate::session::portal::Session;
use crate::session::role::{self, Role};
use crate::session::sequence::Sequences;
use crate::session::subscription::{NoSubscriptions, SubscriptionPlan, Subscriptions};

/// Gives rows that the server knows and sql does not, by virtual table name.
pub type ServerRows = Arc<dyn Fn(&str, &RowsFor) -> Vec<serde_json::Value> + Send + Sync>;

/// Who sees rows of the server's.
#[derive(Clone, Debug, Default)]
pub struct RowsFor {
    pub database: String,
    pub superuser: bool,
    /// What the viewer's transaction has planned for subscriptions.
    pub subscriptions: Option<SubscriptionPlan>,
}

/// What the server decides for all sessions.
#[derive(Clone)]
pub struct EngineOptions {
    /// What `server_version` says: begins with PostgreSQL's version, `15.14 (Strandline 0.1.0)`.
    pub server_version: String,
    /// Refuse all writes (25006).
    pub read_only: bool,
    /// The default of the setting `dolt_transaction_commit`.
    pub transaction_commit: bool,
    /// The branch that a database name without a revision means.
    pub default_branch: String,
    /// Memory for queries in all, in bytes.
    pub query_memory_max: usize,
    /// Turns a new role's password into its SCRAM-SHA-256 verifier; sql itself knows no SCRAM.
    pub hash_password: Arc<dyn Fn(&str) -> String + Send + Sync>,
    pub server_rows: ServerRows,
    pub subscriptions: Arc<dyn Subscriptions>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            server_version: concat!("15.14 (Strandline ", env!("CARGO_PKG_VERSION"), ")").into(),
            read_only: false,
            transaction_commit: false,
            default_branch: "main".into(),
            query_memory_max: 1 << 30,
            hash_password: Arc::new(|_| String::new()),
            server_rows: Arc::new(|_, _| Vec::new()),
            subscriptions: Arc::new(NoSubscriptions),
        }
    }
}

impl std::fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineOptions")
            .field("server_version", &self.server_version)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// Who connects to what.
#[derive(Clone, Debug, Default)]
pub struct ConnectRequest {
    pub user: String,
    /// `db`, `db/branch` or `db/<ref>`.
    pub database: String,
    /// Settings from the startup packet.
    pub settings: Vec<(String, String)>,
    /// The client's address, for pg_stat_activity.
    pub client: Option<std::net::SocketAddr>,
}

/// A session as others see it (`pg_stat_activity`).
#[derive(Clone, Debug)]
pub struct SessionInfo {
    pub pid: i32,
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub client: Option<std::net::SocketAddr>,
    pub started: Timestamp,
    /// `active`, `idle`, `idle in transaction`, `idle in transaction (aborted)`.
    pub state: &'static str,
    pub query: Arc<str>,
    pub query_started: Option<Timestamp>,
    pub transaction_started: Option<Timestamp>,
}

/// Stops what a session is doing.
#[derive(Clone, Debug)]
pub struct CancelHandle {
    pub(crate) flag: Arc<AtomicBool>,
    pub(crate) wake: Arc<Notify>,
}

impl CancelHandle {
    pub(crate) fn new() -> Self {
        CancelHandle { flag: Arc::new(AtomicBool::new(false)), wake: Arc::new(Notify::new()) }
    }

    /// Asks the running statement to stop; nothing when none is running.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.wake.notify_waiters();
    }

    pub fn is_canceled(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Completes once cancel has been asked for.
    pub async fn canceled(&self) {
        loop {
            let notified = self.wake.notified();
            if self.is_canceled() {
                return;
            }
            notified.await;
        }
    }
}

/// SQL over one store.
pub struct Engine {
    pub(crate) store: Arc<Store>,
    pub(crate) options: EngineOptions,
    pub(crate) sequences: Sequences,
    sessions: Mutex<BTreeMap<i32, Arc<SessionCore>>>,
    next_pid: AtomicI32,
    role_changes: Mutex<()>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Engine {
    pub fn new(store: Arc<Store>, options: EngineOptions) -> Arc<Engine> {
        crate::exec::configure_memory(options.query_memory_max);
        let sequences = Sequences::new(store.clone());
        Arc::new(Engine {
            store,
            options,
            sequences,
            sessions: Mutex::new(BTreeMap::new()),
            // Not the process's own pid: a backend is not a process, and a client must not signal it.
            next_pid: AtomicI32::new(1000),
            role_changes: Mutex::new(()),
        })
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Makes the superuser unless the role exists; `verifier` is its SCRAM-SHA-256 verifier.
    pub fn ensure_superuser(&self, name: &str, verifier: &str) -> Result<()> {
        let _guard = self.role_changes.lock();
        if role::get(&self.store, name)?.is_some() {
            return Ok(());
        }
        let mut superuser = Role::new(name, 10);
        superuser.superuser = true;
        superuser.create_role = true;
        superuser.create_database = true;
        superuser.login = true;
        superuser.replication = true;
        superuser.bypass_rls = true;
        superuser.password = Some(verifier.into());
        if role::list(&self.store)?.iter().any(|r| r.oid == 10) {
            superuser.oid = self.store.next_oid()?;
        }
        let position = role::put(&self.store, &superuser)?;
        self.store.wait_durable(position)?;
        Ok(())
    }

    /// The role by name, for authentication.
    pub fn role(&self, name: &str) -> Result<Option<Role>> {
        role::get(&self.store, name)
    }

    pub fn roles(&self) -> Result<Vec<Role>> {
        role::list(&self.store)
    }

    pub(crate) fn put_role(&self, role: &Role) -> Result<strandline_storage::JournalPosition> {
        role::put(&self.store, role)
    }

    pub(crate) fn remove_role(&self, name: &str) -> Result<strandline_storage::JournalPosition> {
        role::remove(&self.store, name)
    }

    pub(crate) fn role_changes(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.role_changes.lock()
    }

    /// Opens a session. The caller has authenticated the user.
    /// # Errors
    /// `InvalidCatalogName` when the database or its revision does not exist.
    pub fn connect(self: &Arc<Self>, request: ConnectRequest) -> Result<Session> {
        let role = self
            .role(&request.user)?
            .ok_or_else(|| SqlError::new(ErrorCode::InvalidAuthorization, format!("role \"{}\" does not exist", request.user)))?;
        let pid = self.next_pid.fetch_add(1, Ordering::Relaxed);
        let core = SessionCore::open(self.clone(), pid, role, request)?;
        self.sessions.lock().insert(pid, core.clone());
        Ok(Session::new(core))
    }

    pub(crate) fn disconnect(&self, pid: i32) {
        self.sessions.lock().remove(&pid);
    }

    /// Cancels the running statement of another session; false when there is no such session.
    pub fn cancel(&self, pid: i32) -> bool {
        let core = self.sessions.lock().get(&pid).cloned();
        core.map(|core| core.cancel_handle().cancel()).is_some()
    }

    pub fn sessions(&self) -> Vec<SessionInfo> {
        let cores: Vec<Arc<SessionCore>> = self.sessions.lock().values().cloned().collect();
        cores.iter().map(|core| core.info()).collect()
    }

    /// How many sessions but this one are on a branch.
    pub(crate) fn sessions_on(&self, database: &str, branch: &str, but: i32) -> usize {
        let cores: Vec<Arc<SessionCore>> = self.sessions.lock().values().filter(|core| core.pid != but).cloned().collect();
        let is_there = |core: &&Arc<SessionCore>| {
            matches!(core.revision(), crate::context::Revision::Branch(name) if name == branch) && core.database() == database
        };
        cores.iter().filter(is_there).count()
    }

    /// How many sessions have which database open, for DROP DATABASE.
    pub(crate) fn session_counts(&self) -> HashMap<String, usize> {
        let cores: Vec<Arc<SessionCore>> = self.sessions.lock().values().cloned().collect();
        let mut counts = HashMap::new();
        for core in cores {
            *counts.entry(core.database()).or_default() += 1;
        }
        counts
    }
}
