//! Subscriptions as SQL asks for them. What they are is the server's affair: sql knows no replication, and parses, checks and hands over.

use std::any::Any;
use std::sync::Arc;

use strandline_storage::{Lsn, Oid};

use crate::error::Result;
use crate::session::Notice;

/// Who gives a command, and where.
#[derive(Clone, Debug)]
pub struct SubscriptionCaller {
    pub database: String,
    /// The branch that a new subscription writes into.
    pub branch: String,
    pub role: Oid,
    pub superuser: bool,
}

/// CREATE, ALTER or DROP SUBSCRIPTION, its options checked as far as they can be without looking anywhere.
#[derive(Clone, Debug)]
pub enum SubscriptionCommand {
    Create(Box<CreateSubscription>),
    Alter { name: String, change: SubscriptionChange },
    Drop { name: String, missing_ok: bool },
}

#[derive(Clone)]
pub struct CreateSubscription {
    pub name: String,
    /// May hold a password.
    pub conninfo: String,
    pub publications: Vec<String>,
    pub connect: bool,
    pub enabled: bool,
    pub create_slot: bool,
    /// `None`: the user said NONE.
    pub slot_name: Option<String>,
    pub copy_data: bool,
    pub two_phase: bool,
    /// Ours: tables that are not here are created as the primary's catalog describes them.
    pub create_tables: bool,
    pub settings: SubscriptionSettings,
}

impl std::fmt::Debug for CreateSubscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateSubscription").field("name", &self.name).field("publications", &self.publications).finish_non_exhaustive()
    }
}

/// Whether large transactions come while they still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming {
    Off,
    On,
    Parallel,
}

/// What CREATE may say and ALTER ... SET may change; `None`: not said.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionSettings {
    pub synchronous_commit: Option<String>,
    pub streaming: Option<Streaming>,
    pub binary: Option<bool>,
    pub disable_on_error: Option<bool>,
    /// `any` or `none`.
    pub origin: Option<String>,
}

/// What ALTER SUBSCRIPTION changes.
#[derive(Clone)]
pub enum SubscriptionChange {
    Connection(String),
    /// The inner `None`: NONE.
    Set {
        slot_name: Option<Option<String>>,
        create_tables: Option<bool>,
        settings: SubscriptionSettings,
    },
    SetPublications {
        names: Vec<String>,
        refresh: bool,
        copy_data: bool,
    },
    AddPublications {
        names: Vec<String>,
        refresh: bool,
        copy_data: bool,
    },
    DropPublications {
        names: Vec<String>,
        refresh: bool,
        copy_data: bool,
    },
    Refresh {
        copy_data: bool,
    },
    Enable(bool),
    /// `None`: NONE.
    Skip(Option<Lsn>),
    /// The new owner is a superuser, or not.
    Owner {
        role: Oid,
        superuser: bool,
    },
    Rename(String),
    /// `None`: none any more.
    Comment(Option<String>),
}

impl std::fmt::Debug for SubscriptionChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A connection string may hold a password.
        f.write_str("SubscriptionChange")
    }
}

/// Carries out commands on subscriptions.
pub trait Subscriptions: Send + Sync {
    /// Blocks until it is done and durable. What goes to the client meanwhile is given to `notify`.
    /// # Errors
    /// PostgreSQL's.
    fn execute(&self, command: SubscriptionCommand, caller: &SubscriptionCaller, notify: &mut dyn FnMut(Notice)) -> Result<()>;

    /// Checks a command within a transaction block, after what the block's `earlier` commands have planned, and plans it, too. Nothing is changed.
    /// # Errors
    /// PostgreSQL's.
    fn plan(
        &self,
        command: SubscriptionCommand,
        caller: &SubscriptionCaller,
        earlier: Option<&SubscriptionPlan>,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<SubscriptionPlan>;

    /// Does what a transaction has planned, durably. `commit` makes the transaction's other changes durable; where it or the plan fails, nothing is done.
    /// # Errors
    /// `SerializationFailure` when somebody else has changed the same subscriptions, and what `commit` says.
    fn carry_out(&self, plan: &SubscriptionPlan, commit: &mut dyn FnMut() -> Result<()>) -> Result<()>;

    /// Sets the counters of `pg_stat_subscription_stats` to zero: of one subscription, or (`None`) of all.
    /// # Errors
    /// What the server refuses.
    fn reset_statistics(&self, oid: Option<Oid>) -> Result<()>;
}

/// What the commands of a transaction are to do when it commits: the server's affair, kept with the transaction and its savepoints.
pub type SubscriptionPlan = Arc<dyn Any + Send + Sync>;

/// Where there is no replication.
#[derive(Debug)]
pub struct NoSubscriptions;

impl Subscriptions for NoSubscriptions {
    fn execute(&self, _: SubscriptionCommand, _: &SubscriptionCaller, _: &mut dyn FnMut(Notice)) -> Result<()> {
        Err(crate::error::SqlError::unsupported("SUBSCRIPTION"))
    }

    fn plan(
        &self,
        _: SubscriptionCommand,
        _: &SubscriptionCaller,
        _: Option<&SubscriptionPlan>,
        _: &mut dyn FnMut(Notice),
    ) -> Result<SubscriptionPlan> {
        Err(crate::error::SqlError::unsupported("SUBSCRIPTION"))
    }

    fn carry_out(&self, _: &SubscriptionPlan, commit: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        commit()
    }

    fn reset_statistics(&self, _: Option<Oid>) -> Result<()> {
        Ok(())
    }
}
