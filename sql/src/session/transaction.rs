//! Transactions: snapshot isolation on a branch.
//!
//! A transaction takes the branch's state at its first statement and edits a private [`Edit`] of the working root.
//! COMMIT hands the edit to the branch, which rebases it onto what it has become meanwhile, or refuses with 40001 where
//! the same rows changed. Readers therefore never wait for anybody, and nobody waits for them.
//!
//! Settings take part: a rollback undoes SET, and SET LOCAL ends with the transaction.

use std::sync::Arc;

use strandline_storage::edit::EditMark;
use strandline_storage::{Branch, BranchState, Edit, Root, Timestamp};

use crate::session::settings::Settings;
use crate::session::subscription::SubscriptionPlan;

/// What ReadyForQuery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

/// The snapshot that a transaction reads.
pub enum Snapshot {
    /// A branch, which may be written.
    Branch { branch: Arc<Branch>, base: Box<BranchState> },
    /// A commit: read only.
    Commit(Root),
}

impl Snapshot {
    pub fn root(&self) -> &Root {
        match self {
            Snapshot::Branch { base, .. } => &base.working,
            Snapshot::Commit(root) => root,
        }
    }
}

#[derive(Debug)]
pub struct Savepoint {
    pub name: String,
    /// `None`: nothing had been changed yet.
    pub mark: Option<EditMark>,
    pub settings: Settings,
    pub settings_to_keep: Settings,
    pub subscriptions: Option<SubscriptionPlan>,
}

pub struct Transaction {
    /// BEGIN was given; otherwise the transaction ends with the batch.
    pub explicit: bool,
    pub failed: bool,
    pub read_only: bool,
    pub started: Timestamp,
    /// Taken at the first statement that reads or writes.
    pub snapshot: Option<Snapshot>,
    /// Made at the first change.
    pub edit: Option<Edit>,
    /// A statement has the edit in its hands.
    pub edit_lent: bool,
    pub savepoints: Vec<Savepoint>,
    pub settings_at_start: Settings,
    /// What COMMIT leaves: like the current settings, without SET LOCAL.
    pub settings_to_keep: Settings,
    /// What its commands on subscriptions are to do at COMMIT.
    pub subscriptions: Option<SubscriptionPlan>,
}

impl Transaction {
    pub fn new(explicit: bool, read_only: bool, settings: &Settings) -> Self {
        Transaction {
            explicit,
            failed: false,
            read_only,
            started: Timestamp::now(),
            snapshot: None,
            edit: None,
            edit_lent: false,
            savepoints: Vec::new(),
            settings_at_start: settings.clone(),
            settings_to_keep: settings.clone(),
            subscriptions: None,
        }
    }

    pub fn root(&self) -> Option<&Root> {
        match &self.edit {
            Some(edit) => Some(edit.root()),
            None => self.snapshot.as_ref().map(Snapshot::root),
        }
    }

    pub fn has_changes(&self) -> bool {
        self.edit.as_ref().is_some_and(|edit| !edit.changes().is_empty())
    }
}
