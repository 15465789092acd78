//! A commit: parents, who, when, why, where it came from, and what it changed.

use crate::change_set::ChangeSet;
use crate::id::{CommitId, Lsn, Timestamp};

/// Who made a commit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    pub name: String,
    pub email: String,
}

/// The coordinates of the primary's transaction that a commit carries.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Source {
    /// The end of the transaction's commit record: replication continues here.
    pub end_lsn: Lsn,
    /// The LSN of the commit record itself (`source_lsn`).
    pub commit_lsn: Lsn,
    pub xid: u32,
    pub commit_time: Timestamp,
    pub origin: Option<String>,
    /// JSON sent by the application.
    pub context: Option<String>,
}

/// What describes a commit besides its changes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CommitMeta {
    pub author: Identity,
    pub author_time: Timestamp,
    pub committer: Identity,
    pub commit_time: Timestamp,
    pub message: String,
    pub source: Option<Source>,
}

/// One commit as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    pub id: CommitId,
    pub parents: Vec<CommitId>,
    /// 1 + the highest height of the parents; the first commit has 1.
    pub height: u64,
    pub meta: CommitMeta,
    pub changes: ChangeSet,
}
