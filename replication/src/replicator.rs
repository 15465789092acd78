//! The life of a replicator: connect, compare, copy, stream, and again.
//!
//! ```text
//!          +-------------------------- passing failure: wait, with backoff <-----------+
//!          v                                                                           |
//!      connecting --> identities, slot, position --> [initial copy] --> streaming -----+
//!                               |                          |                |
//!                               +--------------------------+----------------+--> failed (stays so until a restart)
//! ```
//!
//! A subscription made by SQL never stays failed: it waits and tries again, as PostgreSQL's does, unless `disable_on_error` disables it. Its first tables are
//! copied, a commit each, before it streams. Later ones, and what could not be copied, are copied beside the stream (`JoinTask`), whatever becomes of its sessions.
//!
//! It lives on a thread of its own with a runtime of its own, so that no query can delay the reader; the applier has a second thread. The start position is, in
//! this order: what the user wrote into `pg_wal_location`, what the store holds, what the slot has confirmed. A slot that has confirmed more than the store
//! holds has lost changes for us, and a primary with another system identifier, or whose log ends before our position, is another primary: both stop replication.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use strandline_storage::store::Store;
use strandline_storage::{CommitId, Lsn};
use tokio::runtime;
use tokio::sync::{oneshot, watch};

use crate::apply::{Applier, Context, Joining};
use crate::backoff::Backoff;
use crate::client::{Connection, SlotInfo, StreamOptions, SystemIdentity, quote_literal};
use crate::config::{Config, InitialCopy};
use crate::copy;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::source_record::{Phase, SlotToMake, Source, SourceRecords};
use crate::status::{State, Status};
use crate::stream::{Ended, Queue, Reader};
use crate::table_state::SyncState;
use crate::wal_location::WalLocation;
use crate::watch::watch_primary;

/// The oldest server that has all that we ask of it.
pub(crate) const MAJOR_VERSION_MIN: u32 = 10;

/// Prepared transactions are sent when they are prepared from this major version on.
const TWO_PHASE_VERSION_MIN: u32 = 15;

/// How long the primary may take to flush what it has written: its background writer does so every 200 ms.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// Follows one primary into one branch. Made by [`Replicator::start`].
pub struct Replicator {
    context: Arc<Context>,
    location: Arc<Mutex<WalLocation>>,
    stop: watch::Receiver<bool>,
    backoff: Backoff,
    /// The last failure that was logged, so that a lasting one is logged once.
    logged: Option<String>,
    /// Copies tables beside the stream, if some are to join.
    join: Option<JoinTask>,
}

/// The copy of tables beside the stream.
struct JoinTask {
    task: tokio::task::JoinHandle<Result<()>>,
    /// Turns true when it fails.
    failed: watch::Receiver<bool>,
}

/// A running replicator. Dropping it stops it, too, but does not wait.
pub struct Handle {
    status: Arc<Status>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Stops in an orderly way and waits for it: what was received in whole is applied, made durable and reported to the primary. Blocks,
    /// so not to be called on a runtime's own threads.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        let thread = self.thread.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("BUG: the replication thread panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Replicator {
    /// Starts to follow a primary. Failures of replication are shown in the status and the log.
    /// # Errors
    /// `Store` when the database or branch does not exist, `File` when no thread can be had.
    pub fn start(store: Arc<Store>, config: Config) -> Result<Handle> {
        let branch = store.branch(&config.replica_database, &config.branch)?;
        // What was kept for tables that were being copied is of no use to another process.
        let kept = config.joining_folder();
        match std::fs::remove_dir_all(&kept) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::File { action: "remove", path: kept.display().to_string(), source });
            }
            _ => {}
        }
        let progress = Arc::new(Progress::default());
        let status = Arc::new(Status::new(config.slot_name.clone(), config.publication_names.clone(), Arc::clone(&progress)));
        let noted = Arc::downgrade(&progress);
        store.on_durable(Box::new(move |reached| {
            let Some(progress) = noted.upgrade() else { return };
            match reached {
                Ok(position) => progress.note_durable(position),
                Err(error) => progress.note_failed(error.to_string()),
            }
        }));
        let thread_failed = |source| Error::File { action: "start thread", path: "replication".into(), source };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(thread_failed)?;
        let records = match config.subscription {
            Some(subscription) => SourceRecords::of_subscription(Arc::clone(&store), subscription.oid),
            None => SourceRecords::new(Arc::clone(&store), &config.replica_database, &config.branch),
        };
        let location = Arc::new(Mutex::new(WalLocation::new(&config.cfg_dir)));
        let (stop, stopping) = watch::channel(false);
        let context = Arc::new(Context {
            store,
            branch,
            config: Arc::new(config),
            records,
            progress,
            status: Arc::clone(&status),
            runtime: runtime.handle().clone(),
            joining: Joining::default(),
        });
        let replicator = Replicator { context, location, stop: stopping, backoff: Backoff::default(), logged: None, join: None };
        let thread = std::thread::Builder::new()
            .name("replication".into())
            .spawn(move || runtime.block_on(replicator.run()))
            .map_err(thread_failed)?;
        Ok(Handle { status, stop, thread: Mutex::new(Some(thread)) })
    }

    async fn run(mut self) {
        let watching = tokio::spawn(watch_primary(Arc::clone(&self.context), self.stop.clone()));
        self.follow_until_stopped().await;
        if let Some(join) = self.join.take() {
            join.task.abort();
            // Its workers end with it.
            let _ = join.task.await;
        }
        // What our slot keeps grows while we have given up, so it is looked at until the end.
        let _ = self.stop.wait_for(|stop| *stop).await;
        watching.abort();
    }

    /// Returns when a stop was asked for, or at an error that ends replication.
    async fn follow_until_stopped(&mut self) {
        loop {
            let status = Arc::clone(&self.context.status);
            let outcome = self.session().await;
            if *self.stop.borrow() {
                self.write_location();
                status.set_state(State::Stopped);
                tracing::info!(durable = %self.context.progress.durable(), "replication stopped");
                return;
            }
            let Err(error) = outcome else { continue };
            if let Error::CopyFirst { table } = &error {
                tracing::info!(%table, "the table has rows from before it was published, which are copied first");
                continue;
            }
            if let Error::TableStopped { table } = &error {
                tracing::info!(%table, "the table was stopped, and the stream begins anew");
                continue;
            }
            let text = error.to_string();
            status.note_error(text.clone());
            let lasting = !error.is_passing();
            let wait = match self.context.config.subscription.filter(|_| lasting) {
                Some(subscription) if !subscription.disable_on_error => {
                    self.backoff.reset();
                    subscription.retry_wait
                }
                Some(_) => {
                    status.set_state(State::Failed);
                    tracing::error!(slot = %self.context.config.slot_name, error = %text, "the subscription has been disabled because of an error");
                    if let Err(error) = self.context.records.set_enabled(false) {
                        tracing::error!(%error, "that the subscription is disabled could not be recorded");
                    }
                    return;
                }
                None if lasting => {
                    self.write_location();
                    status.set_state(State::Failed);
                    tracing::error!(error = %text, "replication stopped");
                    return;
                }
                None => self.backoff.next_wait(),
            };
            status.set_waiting(wait);
            if self.logged.as_ref() != Some(&text) {
                if lasting {
                    tracing::error!(slot = %self.context.config.slot_name, error = %text, "replication failed and tries again");
                } else {
                    tracing::warn!(error = %text, "replication is interrupted and tries again");
                }
                self.logged = Some(text);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// One connection's life. `Ok` only when a stop was asked for.
    async fn session(&mut self) -> Result<()> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Ok(()),
            ready = self.prepare() => {
                let (connection, start, last_commit) = ready?;
                self.follow(connection, start, last_commit).await
            }
        }
    }

    /// Connects and finds out where to begin, copying first where that is what it takes.
    async fn prepare(&mut self) -> Result<(Connection, Lsn, Option<CommitId>)> {
        let context = Arc::clone(&self.context);
        let config = &context.config;
        context.status.set_state(State::Connecting);
        let mut connection = Connection::connect(&config.connection()).await?;
        let version = connection.server_major_version();
        if version < MAJOR_VERSION_MIN {
            return Err(Error::Setup(format!("the primary has PostgreSQL {version}; version {MAJOR_VERSION_MIN} or later is needed")));
        }
        let identity = connection.identify_system().await?;
        let mut source = context.records.source()?;
        check_identity(source.as_ref(), &identity)?;
        let slot = connection.slot(&config.slot_name).await?;
        if config.is_listed() {
            return self.prepare_subscription(connection, identity, source, slot).await;
        }
        check_publications(&mut connection, &config.publication_names).await?;
        let slot = match &source {
            Some(source) => copy::drop_abandoned_slot(&context, &mut connection, source, slot).await?,
            None => slot,
        };
        let word = self.location().users_word(&context.records)?;
        let phase = source.as_ref().map(|source| source.phase);
        let new_source = |phase| Source {
            system_id: identity.system_id.clone(),
            timeline: identity.timeline,
            slot_name: config.slot_name.clone(),
            phase,
        };
        let slot = match (slot, phase) {
            (Some(slot), _) => slot,
            (None, Some(Phase::Streaming)) if source.as_ref().is_some_and(|s| s.slot_name == config.slot_name) => {
                return Err(Error::Setup(format!(
                    "replication slot \"{}\" does not exist on the primary any more, so changes are lost; make a new replica, or create the slot and \
                     write the LSN to go on from into \"{}\"",
                    config.slot_name,
                    self.location().path().display()
                )));
            }
            (None, _) if config.initial_copy == InitialCopy::Never || word.is_some() => {
                return Err(Error::Setup(format!(
                    "replication slot \"{}\" does not exist on the primary; create it with pg_create_logical_replication_slot{}",
                    config.slot_name,
                    if word.is_some() { "" } else { ", or set initial_copy to auto" }
                )));
            }
            (None, _) => {
                context.status.set_state(State::Copying);
                copy::initial_copy(&context, &mut connection, new_source(Phase::Copying)).await?;
                source = context.records.source()?;
                let made = connection.slot(&config.slot_name).await?;
                made.ok_or_else(|| Error::Setup(format!("replication slot \"{}\" vanished", config.slot_name)))?
            }
        };
        check_slot(&slot, &config.slot_name, &config.connection.database)?;
        let (stored, last_commit) = context.records.position(&context.branch)?;
        let confirmed = slot.confirmed_flush.unwrap_or_default();
        let start = match (word, stored) {
            (Some(word), stored) => {
                let was = stored.map_or_else(|| "nothing".to_owned(), |lsn| lsn.to_string());
                tracing::info!(start = %word, stored = %was, "pg_wal_location was written by the user and decides where replication begins");
                word
            }
            // While this process lives, what is applied counts, durable or not: it becomes durable in order.
            (None, Some(stored)) => stored.max(context.progress.applied()),
            (None, None) => confirmed,
        };
        let flushed = flushed_up_to(&mut connection, start).await?;
        check_position(start, confirmed, flushed, &config.slot_name, self.location().path())?;
        let unchanged = source.as_ref().is_some_and(|s| *s == new_source(Phase::Streaming));
        if word.is_some() || stored.is_none() || !unchanged {
            // The user's word is adopted in one go: from now on the file's content is ours.
            context.records.set_source(&new_source(Phase::Streaming))?;
            if word.is_some() {
                context.records.forget_prepared_known()?;
            }
            if word.is_some() || stored.is_none() {
                context.records.set_position(start, last_commit, &context.branch)?;
                context.records.set_locations(&[start])?;
            }
            context.store.sync()?;
        }
        if word.is_some() || context.progress.applied() < start {
            context.progress.start_at(start);
        }
        self.settle_copies().await?;
        self.copy_tables(&mut connection).await?;
        Ok((connection, start, last_commit))
    }

    /// Finds out what has become of earlier copies, unless some are under way.
    /// # Errors
    /// What has ended those, too.
    async fn settle_copies(&mut self) -> Result<()> {
        if let Some(join) = self.join.take_if(|join| join.task.is_finished()) {
            join.task.await.unwrap_or_else(|error| Err(Error::Setup(format!("the copy of tables failed: {error}"))))?;
        }
        if self.join.is_none() {
            self.context.records.settle_copies(&self.context.branch)?;
        }
        Ok(())
    }

    /// Copies the tables that are to be copied: now if nothing else is to be followed, otherwise beside the stream.
    async fn copy_tables(&mut self, connection: &mut Connection) -> Result<()> {
        let context = &self.context;
        let tables = context.records.tables()?;
        if self.join.is_some() || !tables.values().any(|table| table.state == SyncState::Init) {
            return Ok(());
        }
        let follows = |state| matches!(state, SyncState::Synced { .. } | SyncState::Ready { .. });
        let mut wait = Duration::ZERO;
        if let Some(subscription) = context.config.subscription
            && !tables.values().any(|table| follows(table.state))
        {
            context.status.set_state(State::Copying);
            if copy::copy_subscribed(context, connection).await? == 0 {
                return Ok(());
            }
            wait = subscription.retry_wait;
        }
        let (end, failed) = watch::channel(false);
        let joining = copy::join_tables(Arc::clone(context), wait);
        let task = tokio::spawn(async move {
            let outcome = joining.await;
            if outcome.is_err() {
                end.send_replace(true);
            }
            outcome
        });
        self.join = Some(JoinTask { task, failed });
        Ok(())
    }

    /// As `prepare`, for a subscription made by SQL, whose slot was made with it.
    async fn prepare_subscription(
        &mut self,
        mut connection: Connection,
        identity: SystemIdentity,
        source: Option<Source>,
        slot: Option<SlotInfo>,
    ) -> Result<(Connection, Lsn, Option<CommitId>)> {
        let context = Arc::clone(&self.context);
        let config = &context.config;
        let name = &config.slot_name;
        let slot = match context.records.slot_to_make()? {
            Some(to_make) => made_slot(&mut connection, &context, &identity, slot, &to_make).await?,
            None => slot.ok_or_else(|| Error::Setup(format!("replication slot \"{name}\" does not exist")))?,
        };
        check_slot(&slot, name, &config.connection.database)?;
        self.settle_copies().await?;
        let (stored, last_commit) = context.records.position(&context.branch)?;
        let confirmed = slot.confirmed_flush.unwrap_or_default();
        // Another slot begins where it was made: what lies before is as its maker left it.
        let is_other_slot = source.as_ref().is_some_and(|source| source.slot_name != *name);
        let start = match stored {
            Some(stored) if is_other_slot => stored.max(context.progress.applied()).max(confirmed),
            Some(stored) => stored.max(context.progress.applied()),
            None => confirmed,
        };
        let flushed = flushed_up_to(&mut connection, start).await?;
        if confirmed > start {
            return Err(Error::Setup(format!(
                "replication slot \"{name}\" has confirmed {confirmed}, but this replica holds changes only up to {start}: what lies between is lost. \
                 Drop the subscription and create it again"
            )));
        }
        if flushed < start {
            return Err(Error::Setup(format!(
                "the primary's log ends at {flushed}, but this replica holds changes up to {start}: the primary was restored or replaced"
            )));
        }
        let phase = Phase::Streaming;
        let now = Source { system_id: identity.system_id, timeline: identity.timeline, slot_name: name.clone(), phase };
        if source.as_ref() != Some(&now) {
            context.records.set_source(&now)?;
        }
        // From here on the branch is searched for what is ours.
        context.records.set_position(start, last_commit, &context.branch)?;
        context.store.sync()?;
        if context.progress.applied() < start {
            context.progress.start_at(start);
        }
        self.copy_tables(&mut connection).await?;
        Ok((connection, start, last_commit))
    }

    /// Streams until something ends it.
    async fn follow(&mut self, mut connection: Connection, start: Lsn, last_commit: Option<CommitId>) -> Result<()> {
        let context = Arc::clone(&self.context);
        let config = &context.config;
        if config.two_phase && connection.server_major_version() >= TWO_PHASE_VERSION_MIN {
            note_two_phase(&mut connection, &context).await?;
        }
        let options = StreamOptions {
            publications: config.publication_names.clone(),
            streaming: config.streaming,
            two_phase: config.two_phase,
            only_local: config.subscription.is_some_and(|subscription| subscription.only_local),
            binary: config.subscription.is_some_and(|subscription| subscription.binary),
        };
        let stream = connection.start_replication(&config.slot_name, start, &options).await?;
        context.status.set_state(State::Streaming);
        tracing::info!(slot = %config.slot_name, lsn = %start, "streaming");
        self.backoff.reset();
        self.logged = None;

        let queue = Arc::new(Queue::default());
        let (batches, input) = mpsc::channel();
        let (done, mut applier) = oneshot::channel();
        let applying = Applier::new(Arc::clone(&context), start, last_commit)?;
        let applier_queue = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("replication-apply".into())
            .spawn(move || {
                let result = applying.run(&input, &applier_queue);
                // Nobody waits when the reader has failed first.
                let _ = done.send(result);
            })
            .map_err(|source| Error::File { action: "start thread", path: "replication-apply".into(), source })?;

        let progress = Arc::clone(&context.progress);
        let status = Arc::clone(&context.status);
        let mut stop = ending(self.stop.clone(), self.join.as_ref().map(|join| join.failed.clone()));
        let mut reader = Reader { stream, batches, queue, progress, status, stop: &mut stop };
        let location = Arc::clone(&self.location);
        let ticking = Arc::clone(&context);
        let ended = reader.run(&mut applier, move || spawn_location_write(&ticking, &location)).await;
        let Reader { mut stream, batches, .. } = reader;
        // What was received in whole is still applied.
        drop(batches);
        let outcome = match ended {
            Ok(Ended::Applier(result)) => result,
            Ok(Ended::Stopped) => applier_result(applier).await,
            // The applier's own error does not pass by reconnecting, so it goes first.
            Err(error) => match applier_result(applier).await {
                Err(applying) if !applying.is_passing() => Err(applying),
                _ => Err(error),
            },
        };
        let settled = Arc::clone(&context);
        let synced = tokio::task::spawn_blocking(move || settled.store.sync()).await;
        if let Ok(Err(error)) = synced {
            return Err(outcome.err().unwrap_or(Error::Store(error)));
        }
        context.progress.note_durable(context.store.durable());
        if outcome.is_ok() || *self.stop.borrow() {
            // The primary hears of the last commits; if it does not listen any more, it will at the next start.
            let progress = &context.progress;
            let _ = stream.send_status(progress.received(), progress.durable(), false).await;
            let _ = stream.finish().await;
        }
        outcome
    }

    fn location(&self) -> std::sync::MutexGuard<'_, WalLocation> {
        self.location.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Brings `pg_wal_location` up to date at the end.
    fn write_location(&self) {
        write_location(&self.context, &mut self.location());
    }
}

/// Notes, the first time that a slot is followed with two phases, from which transaction id on every PREPARE will have come to us: all that are prepared behind where
/// we begin are sent, and a transaction that has no id yet is prepared later than that.
async fn note_two_phase(connection: &mut Connection, context: &Context) -> Result<()> {
    let slot = &context.config.slot_name;
    if context.records.prepared_known_from(slot)?.is_some() {
        return Ok(());
    }
    const SQL: &str = "SELECT (pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::numeric % 4294967296)::text";
    let rows = connection.query(SQL).await?;
    let next = rows.into_iter().flatten().next().flatten().and_then(|text| text.parse().ok());
    let next: u32 = next.ok_or_else(|| Error::Protocol("a snapshot without an end".into()))?;
    context.records.set_prepared_known_from(slot, next).map(drop)
}

/// Turns true when a stop is asked for, or when the copy of tables has failed, which the next session tells.
fn ending(mut stop: watch::Receiver<bool>, failed: Option<watch::Receiver<bool>>) -> watch::Receiver<bool> {
    let Some(mut failed) = failed else { return stop };
    let (end, ending) = watch::channel(false);
    tokio::spawn(async move {
        let failed = async {
            // Without a sender it has ended well.
            if failed.wait_for(|failed| *failed).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = failed => {}
            () = end.closed() => {}
        }
        end.send_replace(true);
    });
    ending
}

async fn applier_result(applier: oneshot::Receiver<Result<()>>) -> Result<()> {
    applier.await.unwrap_or_else(|_| Err(Error::Setup("the applier ended unexpectedly".into())))
}

/// Writes the file beside the reader; a write that is still under way is not joined by another.
fn spawn_location_write(context: &Arc<Context>, location: &Arc<Mutex<WalLocation>>) {
    let (context, location) = (Arc::clone(context), Arc::clone(location));
    tokio::task::spawn_blocking(move || {
        if let Ok(mut location) = location.try_lock() {
            write_location(&context, &mut location);
        }
    });
}

fn write_location(context: &Context, location: &mut WalLocation) {
    let durable = context.progress.durable();
    // The file is the configured source's.
    if durable == Lsn(0) || context.config.is_listed() {
        return;
    }
    if let Err(error) = location.write(durable, &context.records, &context.store) {
        tracing::warn!(%error, "pg_wal_location is not up to date");
    }
}

/// Where the primary's flushed log ends: asked again for a while if that is before `wanted`, since a position read on the primary (the consistent point of a new slot, what
/// `pg_current_wal_lsn` says) may be written and not yet flushed.
async fn flushed_up_to(connection: &mut Connection, wanted: Lsn) -> Result<Lsn> {
    let deadline = tokio::time::Instant::now() + FLUSH_WAIT;
    loop {
        let flushed = connection.identify_system().await?.flushed;
        if flushed >= wanted || tokio::time::Instant::now() >= deadline {
            return Ok(flushed);
        }
        tokio::time::sleep(FLUSH_WAIT / 50).await;
    }
}

/// The slot of a subscription whose making was cut off: it is made unless it was.
async fn made_slot(
    connection: &mut Connection,
    context: &Context,
    identity: &SystemIdentity,
    slot: Option<SlotInfo>,
    to_make: &SlotToMake,
) -> Result<SlotInfo> {
    let name = &context.config.slot_name;
    let slot = match slot {
        None => {
            connection.create_slot(name).await?;
            tracing::info!(slot = %name, "made the slot of a subscription whose making was cut off");
            connection.slot(name).await?.ok_or_else(|| Error::Setup(format!("replication slot \"{name}\" vanished")))?
        }
        // Who asked for it is gone, but the primary is still at it.
        Some(slot) if slot.confirmed_flush.is_none() => {
            let source = std::io::Error::other(format!("replication slot \"{name}\" is being made"));
            return Err(Error::Connection { action: "use the replication slot", source });
        }
        Some(slot) if identity.system_id != to_make.system_id || slot.confirmed_flush < Some(to_make.after) => {
            return Err(Error::Setup(format!(
                "replication slot \"{name}\" was not made for this subscription; use another slot_name, or none, and drop the subscription"
            )));
        }
        Some(slot) => slot,
    };
    context.records.set_slot_to_make(None)?;
    Ok(slot)
}

fn check_identity(source: Option<&Source>, identity: &SystemIdentity) -> Result<()> {
    let Some(source) = source else { return Ok(()) };
    if source.system_id != identity.system_id {
        return Err(Error::Setup(format!(
            "the primary's system identifier is {} and this replica follows {}: it is another cluster",
            identity.system_id, source.system_id
        )));
    }
    if source.timeline != identity.timeline {
        tracing::info!(before = source.timeline, now = identity.timeline, "the primary is on another timeline");
    }
    Ok(())
}

async fn check_publications(connection: &mut Connection, names: &[String]) -> Result<()> {
    for name in names {
        let sql = format!("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {}", quote_literal(name));
        if connection.query(&sql).await?.is_empty() {
            return Err(Error::Setup(format!("publication \"{name}\" does not exist on the primary; create it there")));
        }
    }
    Ok(())
}

pub(crate) fn check_slot(slot: &SlotInfo, name: &str, database: &str) -> Result<()> {
    if !slot.logical || slot.plugin.as_deref() != Some("pgoutput") {
        let plugin = slot.plugin.as_deref().unwrap_or("none");
        return Err(Error::Setup(format!("replication slot \"{name}\" is not a logical slot of plugin pgoutput (its plugin: {plugin})")));
    }
    if let Some(other) = slot.database.as_deref().filter(|other| *other != database) {
        return Err(Error::Setup(format!("replication slot \"{name}\" belongs to database \"{other}\", not to \"{database}\"")));
    }
    if slot.wal_status.as_deref() == Some("lost") {
        return Err(Error::Setup(format!("replication slot \"{name}\" was invalidated, so changes are lost; make a new replica")));
    }
    Ok(())
}

/// Refuses to start where changes between our position and the stream would be missing.
fn check_position(start: Lsn, confirmed: Lsn, flushed: Lsn, slot: &str, location: &std::path::Path) -> Result<()> {
    if confirmed > start {
        return Err(Error::Setup(format!(
            "replication slot \"{slot}\" has confirmed {confirmed}, but this replica holds changes only up to {start}: what lies between is lost. \
             Make a new replica; or, if nothing lies between, write {confirmed} into \"{}\" and restart",
            location.display()
        )));
    }
    if flushed < start {
        return Err(Error::Setup(format!(
            "the primary's log ends at {flushed}, but this replica holds changes up to {start}: the primary was restored or replaced"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn slot() -> SlotInfo {
        SlotInfo {
            plugin: Some("pgoutput".into()),
            logical: true,
            database: Some("db".into()),
            active: false,
            confirmed_flush: Some(Lsn(5)),
            wal_status: Some("reserved".into()),
        }
    }

    #[test]
    fn a_slot_that_has_confirmed_more_than_we_hold_is_refused() {
        let file = Path::new("f");
        assert!(check_position(Lsn(10), Lsn(10), Lsn(10), "s", file).is_ok());
        assert!(check_position(Lsn(10), Lsn(9), Lsn(20), "s", file).is_ok());
        let error = check_position(Lsn(10), Lsn(11), Lsn(20), "s", file).unwrap_err();
        assert!(error.to_string().contains("0/B") && !error.is_passing(), "{error}");
    }

    #[test]
    fn a_primary_whose_log_ends_before_our_position_is_refused() {
        assert!(check_position(Lsn(10), Lsn(5), Lsn(9), "s", Path::new("f")).is_err());
    }

    #[test]
    fn another_cluster_is_refused_and_another_timeline_is_not() {
        let source = Source { system_id: "1".into(), timeline: 1, slot_name: "s".into(), phase: Phase::Streaming };
        let identity = |id: &str, timeline| SystemIdentity { system_id: id.into(), timeline, flushed: Lsn(1) };
        assert!(check_identity(Some(&source), &identity("2", 1)).is_err());
        assert!(check_identity(Some(&source), &identity("1", 2)).is_ok());
        assert!(check_identity(None, &identity("2", 1)).is_ok());
    }

    #[test]
    fn only_a_live_slot_of_ours_is_used() {
        assert!(check_slot(&slot(), "s", "db").is_ok());
        assert!(check_slot(&slot(), "s", "other").is_err());
        assert!(check_slot(&SlotInfo { plugin: Some("test_decoding".into()), ..slot() }, "s", "db").is_err());
        assert!(check_slot(&SlotInfo { logical: false, plugin: None, ..slot() }, "s", "db").is_err());
        assert!(check_slot(&SlotInfo { wal_status: Some("lost".into()), ..slot() }, "s", "db").is_err());
    }
}
