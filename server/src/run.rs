//! The life of the server: store, engine, replicator, sockets; then an orderly end.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use strandline_sql::session::{Engine, EngineOptions};
use strandline_storage::store::{FsckReport, RepairReport, fsck as storage_fsck, repair as storage_repair};
use strandline_storage::{CommitMeta, Identity, Store, StoreOptions, Timestamp};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, PostgresReplication};
use crate::pg::{self, ServerOptions};
use crate::subscriptions::{Configured, Settings, Subscriptions};
use crate::{progress_line, replica};

/// Under load a group of commits waits this long for its sync at most.
const GROUP_COMMIT_MS_MAX: u64 = 5;

/// Threads that serve sockets; queries and replication have their own.
const SOCKET_THREADS: usize = 2;
/// Statements are parsed, bound and planned here, by recursion; only what is used costs memory.
const SESSION_STACK_BYTES: usize = 32 << 20;

/// The database that always exists, as in PostgreSQL.
const DEFAULT_DATABASE: &str = "postgres";

/// Looks whether a configuration says where its primary is in a way that can be used. Nothing is connected to.
///
/// # Errors
/// A connection string that is none, a variable of the environment that holds what it cannot.
pub fn verify(config: &Config) -> Result<()> {
    match &config.postgres_replication {
        Some(source) => replica::replicator_config(config, source).map(drop),
        None => Ok(()),
    }
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// What kept it from starting, or from ending well.
pub fn run(config: Config) -> Result<()> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("could not create data directory \"{}\"", config.data_dir.display()))?;
    let mut options = StoreOptions { group_commit_ms_max: GROUP_COMMIT_MS_MAX, ..StoreOptions::default() };
    if let Some(size) = config.storage.cache_size {
        options.cache_size_max = size.0;
    }
    options.auto_compaction = config.storage.auto_compaction.0;
    let store = Store::open(&config.data_dir, options).map_err(|error| point_to_fsck(error, &config.data_dir))?;
    ensure_database(&store, DEFAULT_DATABASE, &config.user.name)?;

    let configured = match &config.postgres_replication {
        Some(source) => {
            ensure_database(&store, &source.replica_database, &config.user.name)?;
            Some(Configured { config: replica::replicator_config(&config, source)? })
        }
        None => None,
    };
    let settings = Settings {
        data_dir: config.data_dir.clone(),
        cfg_dir: config.cfg_dir(),
        working_set: config.behavior.dolt_transaction_commit == Some(false),
        retry_wait: std::time::Duration::from_millis(config.subscriptions.retry_interval_ms),
        copy_workers: config.subscriptions.copy_workers,
        watch: config.subscriptions.watch(),
    };
    let subscriptions = Subscriptions::new(store.clone(), settings, configured);
    let shown = Arc::clone(&subscriptions);
    let options = EngineOptions {
        server_rows: Arc::new(move |table, viewer| shown.rows(table, viewer)),
        subscriptions: Arc::clone(&subscriptions) as _,
        read_only: config.behavior.read_only,
        transaction_commit: config.behavior.dolt_transaction_commit == Some(true),
        hash_password: Arc::new(pg::hash_password),
        ..EngineOptions::default()
    };
    let engine = Engine::new(store.clone(), options);
    engine.ensure_superuser(&config.user.name, &pg::hash_password(&config.user.password.0))?;

    subscriptions.set_engine(&engine);
    // A replicator that cannot even begin (a wrong pg_wal_location) is shown and logged; the server answers all the same.
    subscriptions.start().context("could not start replication")?;
    progress_line::start(&subscriptions).context("could not start a thread")?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SOCKET_THREADS)
        .thread_name("socket")
        .thread_stack_size(SESSION_STACK_BYTES)
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let address = (config.listener.host.as_str(), config.listener.port);
        let listener = TcpListener::bind(address).await.with_context(|| format!("could not listen on {}:{}", address.0, address.1))?;
        tracing::info!(host = address.0, port = address.1, data_dir = %config.data_dir.display(), "ready to accept connections");
        pg::serve(listener, engine, ServerOptions::default(), told_to_stop()?).await.context("could not accept connections")
    });
    subscriptions.stop();
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    store.close().context("could not close the store")?;
    tracing::info!("stopped");
    served
}

/// Makes a database with its two first commits, where there is none.
fn ensure_database(store: &Arc<Store>, name: &str, owner: &str) -> Result<()> {
    if store.databases().iter().any(|d| d == name) {
        return Ok(());
    }
    let who = Identity { name: owner.into(), email: format!("{owner}@localhost") };
    let now = Timestamp::now();
    let meta = CommitMeta { author: who.clone(), author_time: now, committer: who, commit_time: now, ..CommitMeta::default() };
    store.create_database(name, meta).with_context(|| format!("could not create database \"{name}\""))
}

/// Completes at SIGTERM or SIGINT.
fn told_to_stop() -> Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

/// Damage is looked at with another command.
fn point_to_fsck(error: strandline_storage::Error, data_dir: &Path) -> anyhow::Error {
    let is_damage = matches!(error, strandline_storage::Error::Damaged { .. });
    let error = anyhow::Error::new(error);
    if !is_damage {
        return error;
    }
    error.context(format!("could not open the store; `strandline fsck --data-dir {}` lists what is damaged", data_dir.display()))
}

/// Looks the primary of a configuration over.
///
/// # Errors
/// No runtime can be had; what is wrong with the primary is a finding.
pub fn check(config: &Config, source: &PostgresReplication) -> Result<Vec<strandline_replication::Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(strandline_replication::check(&replica::replicator_config(config, source)?)))
}

/// What `strandline check` does about DDL capture instead of looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    Install,
    Remove,
    Print,
}

/// Installs DDL capture on the primary of a configuration, removes it, or gives the SQL that would install it. Returns what to print.
///
/// # Errors
/// The primary cannot be reached, or refuses.
pub fn capture(config: &Config, source: &PostgresReplication, what: Capture) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let config = replica::replicator_config(config, source)?;
    Ok(runtime.block_on(async {
        match what {
            Capture::Install => {
                let version = strandline_replication::install_ddl_capture(&config).await?;
                Ok(format!("DDL capture is installed in database \"{}\" (PostgreSQL {version})\n", config.connection.database))
            }
            Capture::Remove => {
                strandline_replication::remove_ddl_capture(&config).await?;
                Ok(format!("DDL capture is removed from database \"{}\"\n", config.connection.database))
            }
            Capture::Print => strandline_replication::ddl_capture_sql(&config).await,
        }
    })?)
}

/// Verifies a store that no server has open.
///
/// # Errors
/// The store cannot be opened at all: not there, locked, or of a newer format.
pub fn fsck(data_dir: &Path) -> Result<FsckReport> {
    Ok(storage_fsck(data_dir)?)
}

/// Repairs a store that no server has open.
///
/// # Errors
/// As [`fsck`], and what the disk refuses; then the store is as it was.
pub fn repair(data_dir: &Path) -> Result<RepairReport> {
    Ok(storage_repair(data_dir)?)
}
