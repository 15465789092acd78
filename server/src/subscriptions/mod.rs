//! Subscriptions: their definitions in the store, a replicator for each that is enabled, and the commands that change them while the server runs.
//!
//! Every command reads the definition, stops the replicator where it must, writes the definition durably and starts the replicator anew: what has arrived in
//! whole is applied first, and the position is in the commits, so nothing is lost or repeated. Commands go one at a time; who only looks does not wait for them.
//!
//! The source of the configuration file is a subscription, too: named after its slot, defined by the file, and not to be changed or dropped by SQL.

mod alter;
mod create;
mod definition;
mod plan;
mod rows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use strandline_replication::subscription::{Publisher, SubscriptionRecords};
use strandline_replication::{Config as ReplicatorConfig, CopyTotals, Handle, Replicator, Snapshot, WatchConfig};
use strandline_sql::error::{ErrorCode, Result, SqlError};
use strandline_sql::session::subscription::{SubscriptionCaller, SubscriptionCommand, SubscriptionPlan, Subscriptions as Commands};
use strandline_sql::session::{Engine, Notice, NoticeCode};
use strandline_storage::{Oid, Store, Timestamp};

use crate::expressions::expressions;
use definition::Definition;
use plan::{Desired, Pending, Plan};

/// The oid of the configured subscription: the first of the users' range is never a table's, as a database's own objects begin behind it.
const CONFIGURED_OID: Oid = 16383;

/// What subscriptions made by SQL have from the server's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub cfg_dir: PathBuf,
    /// Replicated transactions go into the working set, which can hold one source's position only.
    pub working_set: bool,
    pub retry_wait: Duration,
    pub copy_workers: usize,
    pub watch: WatchConfig,
}

/// The source of the configuration file.
pub struct Configured {
    pub config: ReplicatorConfig,
}

/// All subscriptions of the server.
pub struct Subscriptions {
    store: Arc<Store>,
    settings: Settings,
    configured: Option<Configured>,
    /// Held by the command under way.
    command: Mutex<()>,
    workers: Mutex<BTreeMap<Oid, Worker>>,
    /// What evaluates the expressions of replicated tables; it holds the subscriptions itself.
    engine: OnceLock<Weak<Engine>>,
    stopping: Mutex<bool>,
    stop_asked: Condvar,
}

/// The replicators that a subscription has had since the server started.
#[derive(Default)]
struct Worker {
    handle: Option<Handle>,
    /// What those before the present one counted.
    before: Counts,
    /// What had been counted when the counters were last reset.
    forgotten: Counts,
    reset_time: Option<Timestamp>,
}

impl Worker {
    /// All that its replicators have counted, resets or not.
    fn counted(&self) -> Counts {
        let mut counts = self.before;
        if let Some(handle) = &self.handle {
            counts.add(&handle.status().snapshot());
        }
        counts
    }
}

/// Counters of `pg_stat_subscription_stats`.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    apply_errors: u64,
    copy_errors: u64,
    conflicts: [u64; 4],
}

impl Counts {
    fn add(&mut self, snapshot: &Snapshot) {
        self.apply_errors += snapshot.error_count;
        self.copy_errors += snapshot.copy_error_count;
        for (sum, count) in self.conflicts.iter_mut().zip(snapshot.conflict_counts) {
            *sum += count;
        }
    }

    fn less(&self, other: &Counts) -> Counts {
        let mut conflicts = self.conflicts;
        for (count, other) in conflicts.iter_mut().zip(other.conflicts) {
            *count = count.saturating_sub(other);
        }
        Counts {
            apply_errors: self.apply_errors.saturating_sub(other.apply_errors),
            copy_errors: self.copy_errors.saturating_sub(other.copy_errors),
            conflicts,
        }
    }
}

/// A subscription by name, for a command, as earlier commands of the transaction leave it.
struct Found {
    oid: Oid,
    definition: Definition,
    pending: Pending,
    records: SubscriptionRecords,
}

impl Found {
    fn is_enabled(&self) -> bool {
        self.pending.enabled.unwrap_or_else(|| self.records.is_enabled())
    }
}

impl Subscriptions {
    pub fn new(store: Arc<Store>, settings: Settings, configured: Option<Configured>) -> Arc<Self> {
        Arc::new(Subscriptions {
            store,
            settings,
            configured,
            command: Mutex::new(()),
            workers: Mutex::default(),
            engine: OnceLock::new(),
            stopping: Mutex::new(false),
            stop_asked: Condvar::new(),
        })
    }

    /// Tells what evaluates expressions; once, before the start.
    pub fn set_engine(&self, engine: &Arc<Engine>) {
        self.engine.get_or_init(|| Arc::downgrade(engine));
    }

    /// Starts every enabled subscription. One that cannot be started is logged and keeps no other from it.
    /// # Errors
    /// The configured source cannot be started, or the definitions are damaged.
    pub fn start(&self) -> Result<()> {
        let _command = self.command.lock();
        if self.configured_records().is_some_and(|records| records.is_enabled()) {
            self.start_worker(CONFIGURED_OID)?;
        }
        Definition::remove_unfinished(&self.store)?;
        for (oid, definition) in Definition::list(&self.store)? {
            if !Definition::records(&self.store, oid).is_enabled() {
                continue;
            }
            if let Err(error) = self.check_mode().and_then(|()| self.start_worker(oid)) {
                tracing::error!(subscription = %definition.name, %error, "the subscription could not be started");
            }
        }
        Ok(())
    }

    /// Stops them all in an orderly way.
    pub fn stop(&self) {
        *self.stopping.lock() = true;
        self.stop_asked.notify_all();
        let _command = self.command.lock();
        let handles: Vec<Handle> = self.workers.lock().values_mut().filter_map(|worker| worker.handle.take()).collect();
        for handle in handles {
            handle.stop();
        }
    }

    /// Waits for this time, or until the server stops, which it returns.
    pub(crate) fn wait_for_stop(&self, time: Duration) -> bool {
        let mut stopping = self.stopping.lock();
        if !*stopping {
            self.stop_asked.wait_for(&mut stopping, time);
        }
        *stopping
    }

    /// How far all copies under way have come together.
    pub(crate) fn copy_totals(&self) -> Option<CopyTotals> {
        let workers = self.workers.lock();
        let copies = workers.values().filter_map(|worker| worker.handle.as_ref()?.status().copy_totals());
        copies.reduce(|a, b| CopyTotals {
            rows: a.rows + b.rows,
            bytes: a.bytes + b.bytes,
            through: a.through + b.through,
            size: a.size + b.size,
            seconds_left: a.seconds_left.max(b.seconds_left),
        })
    }

    fn configured_records(&self) -> Option<SubscriptionRecords> {
        let config = &self.configured.as_ref()?.config;
        Some(SubscriptionRecords::configured(&self.store, &config.replica_database, &config.branch))
    }

    fn start_worker(&self, oid: Oid) -> Result<()> {
        let mut config = match self.configured.as_ref().filter(|_| oid == CONFIGURED_OID) {
            Some(configured) => configured.config.clone(),
            None => {
                let definition = Definition::list(&self.store)?.into_iter().find(|(other, _)| *other == oid);
                let (_, definition) = definition.ok_or_else(|| internal("the subscription is gone"))?;
                definition.replicator_config(oid, &self.settings)?
            }
        };
        if let Some(engine) = self.engine.get().and_then(Weak::upgrade) {
            config.expressions = Some(expressions(&engine, &config.replica_database)?);
        }
        let handle = Replicator::start(Arc::clone(&self.store), config).map_err(|error| internal(error.to_string()))?;
        self.workers.lock().entry(oid).or_default().handle = Some(handle);
        Ok(())
    }

    /// Stops the replicator and waits for it. Its last state stays to be seen until another one starts.
    fn stop_worker(&self, oid: Oid) {
        // Not under the lock: who looks at the subscriptions shall not wait.
        let handle = self.workers.lock().get_mut(&oid).and_then(|worker| worker.handle.take());
        if let Some(handle) = handle {
            handle.stop();
            let snapshot = handle.status().snapshot();
            self.workers.lock().entry(oid).or_default().before.add(&snapshot);
        }
    }

    /// A subscription is known by its name within its database.
    fn find(&self, plan: &Plan, name: &str, database: &str) -> Result<Option<Found>> {
        let all = plan.applied_to(Definition::list(&self.store)?);
        let found = all.into_iter().find(|(_, desired)| desired.definition.name == name && desired.definition.database == database);
        Ok(found.map(|(oid, Desired { definition, pending })| Found {
            oid,
            definition,
            pending,
            records: Definition::records(&self.store, oid),
        }))
    }

    fn is_configured(&self, name: &str, database: &str) -> bool {
        self.configured.as_ref().is_some_and(|c| c.config.slot_name == name && c.config.replica_database == database)
    }

    /// In working-set mode a branch can remember one source's position.
    fn check_mode(&self) -> Result<()> {
        if self.settings.working_set {
            return Err(SqlError::unsupported("a subscription while dolt_transaction_commit is off in the configuration"));
        }
        Ok(())
    }

    /// Plans that the subscription goes. Its slot goes at once, and not within a transaction, which could not bring it back.
    fn drop(
        &self,
        plan: &mut Plan,
        (name, missing_ok): (&str, bool),
        in_block: bool,
        caller: &SubscriptionCaller,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<()> {
        if self.is_configured(name, &caller.database) {
            return Err(defined_by_file(name));
        }
        let Some(found) = self.find(plan, name, &caller.database)? else {
            if missing_ok {
                notify(Notice::new(NoticeCode::Success, format!("subscription \"{name}\" does not exist, skipping")));
                return Ok(());
            }
            return Err(missing(name));
        };
        check_owner(&found, caller)?;
        if let Some(slot) = &found.definition.slot_name {
            if in_block {
                return Err(SqlError::new(ErrorCode::ActiveTransaction, "DROP SUBSCRIPTION cannot run inside a transaction block"));
            }
            self.stop_worker(found.oid);
            if let Err(error) = self.drop_slot(&found.definition, slot, notify) {
                // It is as it was.
                if found.is_enabled() {
                    self.start_worker(found.oid)?;
                }
                return Err(error);
            }
        }
        plan.put(&found, None);
        Ok(())
    }

    fn drop_slot(&self, definition: &Definition, slot: &str, notify: &mut dyn FnMut(Notice)) -> Result<()> {
        let connection = definition.connection()?;
        let mut publisher = Publisher::connect(&connection).map_err(|error| {
            let what = create::connection_failure(&connection, &error);
            SqlError::new(
                ErrorCode::ConnectionFailure,
                format!("could not connect to publisher when attempting to drop replication slot \"{slot}\": {what}"),
            )
            .hint(
                "Use ALTER SUBSCRIPTION ... DISABLE to disable the subscription, and then use ALTER SUBSCRIPTION ... SET (slot_name = NONE) to \
                 disassociate it from the slot.",
            )
        })?;
        publisher.drop_slot(slot).map_err(|error| {
            SqlError::new(
                ErrorCode::ConnectionFailure,
                format!("could not drop replication slot \"{slot}\" on publisher: {}", create::primary_text(&error)),
            )
        })?;
        notify(Notice::new(NoticeCode::Success, format!("dropped replication slot \"{slot}\" on publisher")));
        Ok(())
    }
}

impl Commands for Subscriptions {
    fn execute(&self, command: SubscriptionCommand, caller: &SubscriptionCaller, notify: &mut dyn FnMut(Notice)) -> Result<()> {
        let _command = self.command.lock();
        let mut plan = Plan::default();
        match command {
            SubscriptionCommand::Create(create) => return self.create(*create, caller, notify),
            SubscriptionCommand::Alter { name, change } if self.is_configured(&name, &caller.database) => {
                return self.alter_configured(&name, change, caller);
            }
            SubscriptionCommand::Alter { name, change } => self.alter(&mut plan, &name, change, caller, notify)?,
            SubscriptionCommand::Drop { name, missing_ok } => self.drop(&mut plan, (&name, missing_ok), false, caller, notify)?,
        }
        self.carry_out(&plan, &mut || Ok(()))
    }

    fn plan(
        &self,
        command: SubscriptionCommand,
        caller: &SubscriptionCaller,
        earlier: Option<&SubscriptionPlan>,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<SubscriptionPlan> {
        let mut plan = planned(earlier).cloned().unwrap_or_default();
        match command {
            SubscriptionCommand::Create(create) => {
                let (_, oid, desired) = self.plan_create(&plan, *create, caller, notify)?;
                plan.create(oid, desired);
            }
            SubscriptionCommand::Alter { name, .. } if self.is_configured(&name, &caller.database) => {
                // What the file defines has no definition in the store that could wait for a COMMIT.
                let what = "ALTER SUBSCRIPTION of the configured source cannot run inside a transaction block";
                return Err(SqlError::new(ErrorCode::ActiveTransaction, what));
            }
            SubscriptionCommand::Alter { name, change } => self.alter(&mut plan, &name, change, caller, notify)?,
            SubscriptionCommand::Drop { name, missing_ok } => self.drop(&mut plan, (&name, missing_ok), true, caller, notify)?,
        }
        Ok(Arc::new(plan))
    }

    fn carry_out(&self, plan: &SubscriptionPlan, commit: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let _command = self.command.lock();
        let plan = planned(Some(plan)).ok_or_else(|| internal("not a plan for subscriptions"))?;
        Subscriptions::carry_out(self, plan, commit)
    }

    fn reset_statistics(&self, oid: Option<Oid>) -> Result<()> {
        let known: Vec<Oid> = self.shown(None).iter().map(|shown| shown.oid).filter(|known| oid.is_none_or(|oid| oid == *known)).collect();
        let now = Timestamp::now();
        let mut workers = self.workers.lock();
        for oid in known {
            let worker = workers.entry(oid).or_default();
            worker.forgotten = worker.counted();
            worker.reset_time = Some(now);
        }
        Ok(())
    }
}

fn planned(plan: Option<&SubscriptionPlan>) -> Option<&Plan> {
    plan.and_then(|plan| plan.downcast_ref())
}

fn check_owner(found: &Found, caller: &SubscriptionCaller) -> Result<()> {
    if caller.superuser || caller.role == found.definition.owner {
        return Ok(());
    }
    Err(SqlError::new(ErrorCode::InsufficientPrivilege, format!("must be owner of subscription {}", found.definition.name)))
}

fn missing(name: &str) -> SqlError {
    SqlError::new(ErrorCode::UndefinedObject, format!("subscription \"{name}\" does not exist"))
}

fn exists(name: &str) -> SqlError {
    SqlError::new(ErrorCode::DuplicateObject, format!("subscription \"{name}\" already exists"))
}

fn defined_by_file(name: &str) -> SqlError {
    SqlError::new(ErrorCode::ObjectNotInPrerequisiteState, format!("subscription \"{name}\" is defined by the configuration file"))
        .hint("Change the file and restart the server. ENABLE, DISABLE, REFRESH PUBLICATION and SKIP work here.")
}

fn internal(what: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::InternalError, what)
}
