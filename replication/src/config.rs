//! What a replicator has to be told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{ConnectionConfig, Streaming};
use crate::conflict::ConflictPolicies;
use crate::expressions::Expressions;
use crate::watch::WatchConfig;

/// Which primary to follow, with which slot, into which branch.
#[derive(Clone)]
pub struct Config {
    /// Where the primary is, and as whom to connect; `application_name` is how its `pg_stat_replication` shows us.
    pub connection: ConnectionConfig,
    pub slot_name: String,
    pub publication_names: Vec<String>,
    /// Our database that receives the changes.
    pub replica_database: String,
    pub branch: String,
    pub initial_copy: InitialCopy,
    pub create_tables: CreateTables,
    /// So many connections copy tables at a time, each with a thread here: 1 to [`COPY_WORKERS_MAX`].
    pub copy_workers: usize,
    /// Holds `pg_wal_location`.
    pub cfg_dir: PathBuf,
    pub commit_mode: CommitMode,
    pub conflicts: ConflictPolicies,
    pub streaming: Streaming,
    /// What transactions that are not committed yet may take in memory, in bytes; what is more goes to files.
    pub stream_memory_max: usize,
    /// Where those files are: a folder of this replicator's own, which need not exist. Whatever is in it is removed.
    pub spool_folder: PathBuf,
    /// Prepared transactions are sent when they are prepared, by servers that can (from version 15).
    pub two_phase: bool,
    /// Where they are kept until they are committed: as `spool_folder`, but it lasts.
    pub prepared_folder: PathBuf,
    pub watch: WatchConfig,
    /// What a subscription made by SQL has beyond a configured one; `None` for the latter.
    pub subscription: Option<SubscriptionConfig>,
    /// Evaluates the expressions of tables' definitions here.
    pub expressions: Option<Arc<dyn Expressions>>,
}

/// What makes a replicator that of a subscription made by SQL: it follows the tables that were subscribed (`pg_subscription_rel`) and no others, and tries
/// again after every error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionConfig {
    pub oid: u32,
    /// Errors disable it.
    pub disable_on_error: bool,
    /// Every transaction is durable here before the next is applied.
    pub wait_durable: bool,
    /// Leave out what the primary itself has from another server.
    pub only_local: bool,
    /// Values come in their types' binary form where they have one, from servers that can (from version 14). Types must be the same here and there.
    pub binary: bool,
    /// How long to wait after an error that does not pass by itself.
    pub retry_wait: Duration,
}

/// What [`Config::stream_memory_max`] is where nobody says otherwise: as much as the primary's `logical_decoding_work_mem` by default.
pub const STREAM_MEMORY_MAX_DEFAULT: usize = 64 << 20;

/// Each worker takes a connection of the primary's, of which it has a hundred by default.
pub const COPY_WORKERS_MAX: usize = 64;

/// What [`Config::copy_workers`] is where nobody says otherwise: as many as this machine has processors, which is what each keeps busy, but not so many that
/// the primary, whose processors have other work, would notice; and two on a small machine, since one waits for the primary at times.
pub fn copy_workers_default() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 4))
}

/// What to do where the slot does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialCopy {
    /// Copy the published tables, then make the slot.
    Auto,
    /// Stop with an error.
    Never,
}

/// What to do about a published table that does not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateTables {
    /// Create it as the primary's catalog describes it.
    Auto,
    /// Stop with an error.
    Never,
}

/// What a replicated transaction becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// A commit.
    EachTransaction,
    /// Uncommitted changes in the working set.
    WorkingSet,
}

impl Config {
    /// What its commits say of whose they are.
    pub(crate) fn subscription_oid(&self) -> u32 {
        self.subscription.map_or(0, |subscription| subscription.oid)
    }

    /// Only tables that were subscribed are followed.
    pub(crate) fn is_listed(&self) -> bool {
        self.subscription.is_some()
    }

    /// Where changes of tables that are copied beside the stream wait, if they are many: as `spool_folder`.
    pub fn joining_folder(&self) -> PathBuf {
        // A slot's name has no such character, so no other replicator has this folder.
        let mut name = self.spool_folder.file_name().unwrap_or_default().to_os_string();
        name.push(".joining");
        self.spool_folder.with_file_name(name)
    }

    /// Where and as whom to connect.
    pub fn connection(&self) -> ConnectionConfig {
        self.connection.clone()
    }
}
