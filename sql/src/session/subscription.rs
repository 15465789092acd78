//! Subscriptions as SQL asks for them. What they are is the server's affair: sql knows no replication, and parses, checks and hands over.

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

/// What CREATE may say and ALTER ... SET may change; `None`: not said.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionSettings {
    pub synchronous_commit: Option<String>,
    pub streaming: Option<bool>,
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
}

/// Where there is no replication.
#[derive(Debug)]
pub struct NoSubscriptions;

impl Subscriptions for NoSubscriptions {
    fn execute(&self, _: SubscriptionCommand, _: &SubscriptionCaller, _: &mut dyn FnMut(Notice)) -> Result<()> {
        Err(crate::error::SqlError::unsupported("SUBSCRIPTION"))
    }
}
