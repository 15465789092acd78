//! The store: databases, branches, commits, durability. Placeholder bodies; becomes several files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::change_set::ChangeSet;
use crate::commit::{Commit, CommitMeta};
use crate::edit::Edit;
use crate::error::Result;
use crate::id::{CommitId, Lsn, Timestamp};
use crate::root::Root;
use crate::schema::{Oid, TableSchema};
use crate::value::Row;

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How long a group of commits may wait for its sync under load.
    pub group_commit_ms_max: u64,
}

/// A place in the journal: everything before it is durable once [`Store::durable`] has reached it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JournalPosition(pub u64);

/// An open data directory. Owns a writer thread and a checkpoint thread, which end when it is dropped.
pub struct Store {}

impl Store {
    /// Opens or creates. Takes the lock, replays the tail, starts the background threads.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Arc<Store>> {
        todo!()
    }

    /// Writes out everything, a checkpoint included, and stops the threads.
    pub fn close(&self) -> Result<()> {
        todo!()
    }

    /// Flushes and returns when everything written so far is durable.
    pub fn sync(&self) -> Result<()> {
        todo!()
    }

    pub fn durable(&self) -> JournalPosition {
        todo!()
    }

    pub fn wait_durable(&self, position: JournalPosition) -> Result<()> {
        todo!()
    }

    /// Calls back (on the writer thread, so briefly) whenever the durable position moves or writing stops for good (`Err`).
    pub fn on_durable(&self, callback: Box<dyn Fn(Result<JournalPosition>) + Send + Sync>) {
        todo!()
    }

    // Databases.
    pub fn databases(&self) -> Vec<String> {
        todo!()
    }
    /// Two commits: `Initialize data repository`, then `CREATE DATABASE`; branch `main`.
    pub fn create_database(&self, name: &str, meta: CommitMeta) -> Result<()> {
        todo!()
    }
    pub fn drop_database(&self, name: &str) -> Result<()> {
        todo!()
    }

    // Branches and tags.
    pub fn branches(&self, database: &str) -> Result<Vec<(String, CommitId)>> {
        todo!()
    }
    /// # Errors
    /// `NotFound`.
    pub fn branch(&self, database: &str, name: &str) -> Result<Arc<Branch>> {
        todo!()
    }
    /// With `force` an existing branch is moved (its working set goes with it).
    pub fn create_branch(&self, database: &str, name: &str, start: CommitId, force: bool) -> Result<()> {
        todo!()
    }
    pub fn delete_branch(&self, database: &str, name: &str) -> Result<()> {
        todo!()
    }
    pub fn rename_branch(&self, database: &str, from: &str, to: &str, force: bool) -> Result<()> {
        todo!()
    }
    pub fn tags(&self, database: &str) -> Result<Vec<Tag>> {
        todo!()
    }
    pub fn create_tag(&self, database: &str, tag: Tag) -> Result<()> {
        todo!()
    }
    pub fn delete_tag(&self, database: &str, name: &str) -> Result<()> {
        todo!()
    }

    // Commits.
    /// # Errors
    /// `NotFound`.
    pub fn commit(&self, id: CommitId) -> Result<Arc<Commit>> {
        todo!()
    }
    /// Commits whose id begins with these hex digits, two at most.
    pub fn commits_by_prefix(&self, hex: &str) -> Result<Vec<CommitId>> {
        todo!()
    }
    /// All commits reachable from `heads` and not from `hidden`: every commit before its parents, higher first.
    pub fn log(&self, heads: &[CommitId], hidden: &[CommitId]) -> Result<Box<dyn Iterator<Item = Result<Arc<Commit>>> + Send>> {
        todo!()
    }
    pub fn merge_base(&self, a: CommitId, b: CommitId) -> Result<Option<CommitId>> {
        todo!()
    }
    pub fn is_ancestor(&self, ancestor: CommitId, of: CommitId) -> Result<bool> {
        todo!()
    }
    /// The root value of any commit: nearest checkpoint, replay, cache.
    pub fn root(&self, id: CommitId) -> Result<Root> {
        todo!()
    }
    /// The last commit on the first-parent line of `head` whose source commit LSN is at most `lsn`.
    pub fn commit_at_lsn(&self, head: CommitId, lsn: Lsn) -> Result<Option<CommitId>> {
        todo!()
    }
    pub fn commit_of_xid(&self, head: CommitId, xid: u32) -> Result<Option<CommitId>> {
        todo!()
    }
    /// The last commit on the first-parent line of `head` whose commit time (the source's, if it has one) is at most `time`.
    pub fn commit_at_time(&self, head: CommitId, time: Timestamp) -> Result<Option<CommitId>> {
        todo!()
    }
    /// Every change of a table's rows over the history of `head`, newest first: one item per changed row per commit.
    pub fn table_history(
        &self,
        head: CommitId,
        table: Oid,
        keys: Option<Vec<Vec<u8>>>,
    ) -> Result<Box<dyn Iterator<Item = Result<RowVersion>> + Send>> {
        todo!()
    }

    // Durable small state (roles, source identity, sequence positions), last writer wins, not versioned.
    pub fn get_state(&self, key: &str) -> Option<Vec<u8>> {
        todo!()
    }
    /// Durable when the returned position is.
    pub fn put_state(&self, key: &str, value: Option<&[u8]>) -> Result<JournalPosition> {
        todo!()
    }
    /// All keys that begin with `prefix`, with their values.
    pub fn list_state(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        todo!()
    }
    /// An oid never given out before in this store.
    pub fn next_oid(&self) -> Result<Oid> {
        todo!()
    }
    pub fn path(&self) -> &Path {
        todo!()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub name: String,
    pub commit: CommitId,
    pub tagger: crate::commit::Identity,
    pub time: Timestamp,
    pub message: String,
}

/// One changed row of one commit, as [`Store::table_history`] gives it. Rows are in the schema given beside them.
#[derive(Clone, Debug)]
pub struct RowVersion {
    pub commit: Arc<Commit>,
    pub key: Vec<u8>,
    pub from: Option<(Arc<TableSchema>, Row)>,
    pub to: Option<(Arc<TableSchema>, Row)>,
}

/// What a branch holds at one moment; taking it never waits for more than one small transaction.
#[derive(Clone, Debug)]
pub struct BranchState {
    /// Changes with every change of any of the below.
    pub version: u64,
    pub head: CommitId,
    pub head_root: Root,
    pub staged: Root,
    pub working: Root,
    /// Replicated changes that met a locally changed row and did not enter the working set: (table, text of the key, commit).
    pub conflicts: Vec<(Oid, String, CommitId)>,
}

impl BranchState {
    /// Staged or working differ from the head.
    pub fn is_dirty(&self) -> bool {
        todo!()
    }
}

/// A branch in memory. One writer at a time, any number of readers.
pub struct Branch {}

impl Branch {
    pub fn name(&self) -> &str {
        todo!()
    }
    pub fn state(&self) -> BranchState {
        todo!()
    }

    /// Begins a replicated (or otherwise committing) transaction on HEAD. Waits for other writers. `large`: readers are
    /// to go on while it runs (costs copies of shared nodes); otherwise they wait until it is committed or dropped.
    pub fn begin_apply(self: &Arc<Self>, large: bool) -> Result<Apply> {
        todo!()
    }

    /// Puts a local transaction's changes into the working set, or commits them where `commit` is given. `base` is what
    /// `state()` gave when the transaction began; `edit` began on `base.working` (for a commit with `commit`, too: the
    /// rows changed are committed on HEAD and also put into the working set). When the branch has moved on, the changes are rebased.
    /// # Errors
    /// `Conflict` when one of the same rows or objects changed meanwhile.
    pub fn commit_local(&self, base: &BranchState, edit: Edit, commit: Option<CommitMeta>) -> Result<(Option<CommitId>, JournalPosition)> {
        todo!()
    }

    /// Sets staged and working (as `dolt_add`, `dolt_reset` and `dolt_checkout` of tables need), if the branch is still at `version`.
    /// # Errors
    /// `Conflict`.
    pub fn set_roots(&self, version: u64, staged: Option<Root>, working: Option<Root>) -> Result<JournalPosition> {
        todo!()
    }

    /// Commits `staged` on top of HEAD, if the branch is still at `version`. The change set is computed by diff. With
    /// `amend` the new commit takes HEAD's parents.
    pub fn commit_staged(&self, version: u64, meta: CommitMeta, amend: bool) -> Result<(CommitId, JournalPosition)> {
        todo!()
    }

    /// Moves HEAD (`dolt_reset` to a commit): `hard` sets staged and working too, otherwise they stay as they are.
    pub fn reset(&self, version: u64, target: CommitId, hard: bool) -> Result<JournalPosition> {
        todo!()
    }
}

/// A committing transaction under way; dropping it undoes its edits. Derefs to [`Edit`].
pub struct Apply {}

impl std::ops::Deref for Apply {
    type Target = Edit;
    fn deref(&self) -> &Edit {
        todo!()
    }
}
impl std::ops::DerefMut for Apply {
    fn deref_mut(&mut self) -> &mut Edit {
        todo!()
    }
}

impl Apply {
    /// Appends the commit to the journal and moves HEAD; the working set follows. Durable when `Store::durable`
    /// reaches the returned position. An empty change set is committed too.
    pub fn commit(self, meta: CommitMeta) -> Result<(CommitId, JournalPosition)> {
        todo!()
    }
}

/// One finding of `fsck`.
#[derive(Clone, Debug)]
pub struct Finding {
    pub place: PathBuf,
    pub what: String,
}

/// What `fsck` looked at and what it found.
#[derive(Clone, Debug, Default)]
pub struct FsckReport {
    pub segment_count: u64,
    pub commit_count: u64,
    pub chunk_count: u64,
    pub findings: Vec<Finding>,
}

/// Verifies every record, commit, ref and checkpoint of a data directory; replays change sets between checkpoints and compares roots.
pub fn fsck(path: &Path) -> Result<FsckReport> {
    todo!()
}

#[allow(dead_code)]
fn unused(_: ChangeSet) {}
