//! Recovery: from the journal to an open store.
//!
//! ```text
//!   sealed segments            the tail
//!   [commits] [commits]  |  record record CHECKPOINT record record record
//!      └── commit index ──────────┴──────────┴─────────┘
//!                                  ▲ replay starts where the checkpoint was taken,
//!                                    which is a little before where it was written
//! ```
//!
//! 1. The commit index is the files beside sealed segments, and what the records of the tail say (`store/sealing.rs`).
//! 2. The last checkpoint gives databases, branches with the addresses of their root values, tags and small state.
//! 3. The records since it was taken are replayed. A branch was looked at a little later than the rest, so each branch
//!    has its own sequence number from which on records count for it.
//!
//! 4. Where that was much, opening makes a checkpoint before anybody is let in ([`crate::checkpoint::make_after_recovery`]): a process that is
//!    killed again and again, each time before its next checkpoint, gets on all the same.
//!
//! Replay runs the code that ran then ([`Inner::follow`], [`Inner::advance`]), so it ends where the store was. On the way it enters the
//! commits in the row index, which a checkpoint has written as far as they are before it.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::commit::Commit;
use crate::encoding::Malformed;
use crate::error::{Error, Result};
use crate::id::CommitId;
use crate::journal::LogFrame;
use crate::record::{self, Checkpoint, Record, RootSpec};
use crate::root::Root;
use crate::row_index::hashes_of;
use crate::store::branch::{Branch, BranchCell, Head, Inner};
use crate::store::registry::{Database, Registry, Tag};
use crate::store::shared::Shared;

/// Reading so many bytes of records, as they are in memory, costs as much as replaying a change.
const RECORD_SIZE_PER_CHANGE: u64 = 256;

/// What opening had to replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub record_count: u64,
    /// Bytes of the records, not as they are stored but as they are in memory.
    pub record_size: u64,
    /// Row changes, and one for each commit.
    pub change_count: u64,
}

impl Replayed {
    /// What it cost, in changes.
    pub fn cost(&self) -> u64 {
        self.change_count + self.record_size / RECORD_SIZE_PER_CHANGE
    }
}

/// Brings the shared parts up to date and returns the rest.
/// # Errors
/// `Damaged`, `Io`.
pub(crate) fn recover(shared: &Arc<Shared>) -> Result<(Registry, Replayed)> {
    shared.open_index()?;
    let last = shared.checkpoints.read().last;
    let mut recovery = Recovery::new(shared);
    let mut start = 0;
    if let Some(sequence) = last {
        let place = || shared.journal.place_of(sequence);
        let record = Record::decode_at(&shared.journal.read_record(sequence)?, place)?;
        let Record::Checkpoint(checkpoint) = record else { return Err(Malformed("not a checkpoint").at(place())) };
        start = checkpoint.sequence;
        shared.forget_roots(sequence, &checkpoint.kept)?;
        shared.pace.set_cost(checkpoint.cost);
        recovery.restore(*checkpoint)?;
    }
    let mut replayed = Replayed::default();
    for frame in shared.journal.log_frames_from(start) {
        let frame: Arc<LogFrame> = frame?;
        for (sequence, record) in frame.iter().filter(|(sequence, _)| *sequence >= start) {
            let decoded = Record::decode_at(&record, || shared.journal.place_of(sequence))?;
            recovery.replay(sequence, decoded).map_err(|e| name_place(shared, sequence, e))?;
            replayed.record_count += 1;
            replayed.record_size += record.len() as u64;
        }
    }
    replayed.change_count = shared.pace.row_count();
    if replayed.record_count > 0 {
        tracing::info!(records = replayed.record_count, changes = replayed.change_count, "replayed the journal's tail");
    }
    Ok((recovery.finish()?, replayed))
}

/// An error of replay with the record where it happened.
fn name_place(shared: &Shared, sequence: u64, error: Error) -> Error {
    match error {
        Error::Io { .. } => error,
        Error::Damaged { place, what } => Error::Damaged { place: format!("{place} ({})", shared.journal.place_of(sequence)), what },
        other => Error::Damaged { place: shared.journal.place_of(sequence), what: format!("cannot be replayed: {other}") },
    }
}

impl Checkpoint {
    /// The root values of commits that it tells.
    pub fn roots(&self) -> Vec<(CommitId, crate::id::ChunkAddress)> {
        self.branches.iter().filter_map(|b| Some((b.head?, b.head_root))).collect()
    }
}

/// Forgets a database without a commit.
fn drop_unmade(shared: &Shared, database: u32) -> Result<()> {
    if shared.journal.is_writable() {
        shared.append(&Record::DatabaseDropped { database })?;
    }
    Ok(())
}

pub(crate) struct Recovery<'a> {
    shared: &'a Arc<Shared>,
    pub databases: HashMap<u32, RecoveredDatabase>,
    pub branches: HashMap<u32, RecoveredBranch>,
    pub registry: Registry,
    /// Records of a branch before this are in its checkpoint.
    from: HashMap<u32, u64>,
}

pub(crate) struct RecoveredDatabase {
    pub name: String,
    pub tags: Vec<Tag>,
}

pub(crate) struct RecoveredBranch {
    pub name: String,
    pub database: u32,
    pub cell: Arc<BranchCell>,
}

impl<'a> Recovery<'a> {
    pub fn new(shared: &'a Arc<Shared>) -> Self {
        Recovery { shared, databases: HashMap::new(), branches: HashMap::new(), registry: Registry::new(), from: HashMap::new() }
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.registry.next_number = checkpoint.next_number;
        self.registry.oid_limit = checkpoint.oid_limit;
        self.registry.state = checkpoint.state.into_iter().collect();
        for (number, name) in checkpoint.databases {
            self.databases.insert(number, RecoveredDatabase { name, tags: Vec::new() });
        }
        for tag in checkpoint.tags {
            if let Some(database) = self.databases.get_mut(&tag.database) {
                database.tags.push(Tag::of_record(tag));
            }
        }
        for branch in checkpoint.branches {
            let open = |address| Root::open(&address, self.shared.chunks());
            let head = branch.head.map(|id| self.shared.head_of(id)).transpose()?;
            let mut inner = Inner::new(head, open(branch.head_root)?);
            let staged = self.root_of(&inner, &branch.staged, None)?;
            let working = self.root_of(&inner, &branch.working, Some(&staged))?;
            inner.set_working_set(staged, working);
            inner.conflicts = branch.conflicts;
            inner.applied = branch.applied;
            let cell = BranchCell::new(self.shared.clone(), branch.branch, branch.database, inner);
            self.from.insert(branch.branch, branch.sequence);
            self.branches.insert(branch.branch, RecoveredBranch { name: branch.name, database: branch.database, cell });
        }
        Ok(())
    }

    /// The root value that a record means; `None` for `staged` when it is the staged one that is asked for.
    fn root_of(&self, inner: &Inner, spec: &RootSpec, staged: Option<&Root>) -> Result<Root> {
        Ok(match spec {
            RootSpec::Head => inner.root().clone(),
            RootSpec::Staged => staged.unwrap_or_else(|| inner.staged()).clone(),
            RootSpec::Written(address) => Root::open(address, self.shared.chunks())?,
            RootSpec::Unchanged if staged.is_some() => inner.working().clone(),
            RootSpec::Unchanged => inner.staged().clone(),
        })
    }

    /// The branch, if the record counts for it: it may be deleted later, or the record be in the checkpoint.
    fn branch(&self, number: u32, sequence: u64) -> Option<Arc<BranchCell>> {
        let branch = self.branches.get(&number)?;
        (self.from.get(&number).is_none_or(|from| *from <= sequence)).then(|| branch.cell.clone())
    }

    pub fn replay(&mut self, sequence: u64, record: Record) -> Result<()> {
        match record {
            Record::DatabaseCreated { database, name } => {
                self.took_number(database);
                self.databases.insert(database, RecoveredDatabase { name, tags: Vec::new() });
            }
            Record::DatabaseDropped { database } => {
                self.databases.remove(&database);
                self.branches.retain(|_, b| b.database != database);
            }
            Record::BranchCreated { database, branch, name, head } => {
                self.took_number(branch);
                // A branch that the checkpoint has was made between the look at the registry and the look at branches.
                if !self.branches.contains_key(&branch) {
                    let (head, root) = match head {
                        None => (None, Root::empty_in(&self.shared.chunks())),
                        Some(id) => (Some(self.shared.head_of(id)?), self.shared.root(id)?),
                    };
                    let cell = BranchCell::new(self.shared.clone(), branch, database, Inner::new(head, root));
                    self.branches.insert(branch, RecoveredBranch { name, database, cell });
                }
            }
            Record::BranchRenamed { branch, name } => {
                if let Some(database) = self.branches.get(&branch).map(|b| b.database) {
                    // One that has the name already is replaced.
                    self.branches.retain(|number, other| *number == branch || other.database != database || other.name != name);
                }
                if let Some(branch) = self.branches.get_mut(&branch) {
                    branch.name = name;
                }
            }
            Record::BranchDeleted { branch } => {
                self.branches.remove(&branch);
            }
            Record::Commit { branch, mode, commit } => {
                let commit = Commit::decode(&commit, &self.shared.chunks())?;
                let head = self.shared.head_of(commit.id)?;
                // Of every commit, or there would be gaps.
                self.shared.row_index.enter(head.number, &hashes_of(commit.changes()?, commit.meta.source.as_ref()));
                if let Some(cell) = self.branch(branch, sequence) {
                    self.replay_commit(&cell, mode, &commit, head)?;
                }
            }
            Record::HeadMoved { branch, head, hard } => {
                if let Some(cell) = self.branch(branch, sequence) {
                    let (root, head) = (self.shared.root(head)?, self.shared.head_of(head)?);
                    cell.lock().move_head(head, root, hard);
                }
            }
            Record::Working { branch, applied, changes } => {
                if let Some(cell) = self.branch(branch, sequence) {
                    let changes = changes.load(&*self.shared.journal)?;
                    let mut inner = cell.lock();
                    let mut working = inner.working().clone();
                    working.apply(&changes, &self.shared.chunks())?;
                    let staged = inner.staged().clone();
                    inner.set_working_set(staged, working);
                    inner.applied = inner.applied.max(applied);
                    inner.version += 1;
                    self.shared.pace.count(changes.row_count());
                }
            }
            Record::Roots { branch, staged, working } => {
                if let Some(cell) = self.branch(branch, sequence) {
                    let mut inner = cell.lock();
                    let staged = self.root_of(&inner, &staged, None)?;
                    let working = self.root_of(&inner, &working, Some(&staged))?;
                    inner.set_working_set(staged, working);
                    inner.version += 1;
                }
            }
            Record::TagPut(tag) => {
                if let Some(database) = self.databases.get_mut(&tag.database) {
                    database.tags.retain(|t| t.name != tag.name);
                    database.tags.push(Tag::of_record(tag));
                }
            }
            Record::TagDeleted { database, name } => {
                if let Some(database) = self.databases.get_mut(&database) {
                    database.tags.retain(|t| t.name != name);
                }
            }
            Record::State { key, value } => {
                match value {
                    Some(value) => self.registry.state.insert(key, value),
                    None => self.registry.state.remove(&key),
                };
            }
            Record::Oids { limit } => self.registry.oid_limit = self.registry.oid_limit.max(limit),
            Record::Checkpoint(_) => {}
        }
        Ok(())
    }

    fn took_number(&mut self, number: u32) {
        self.registry.next_number = self.registry.next_number.max(number + 1);
    }

    fn replay_commit(&self, cell: &Arc<BranchCell>, mode: record::CommitMode, commit: &Commit, head: Head) -> Result<()> {
        let changes = commit.changes()?;
        let mut inner = cell.lock();
        let root = match mode {
            record::CommitMode::Staged => inner.staged().clone(),
            record::CommitMode::Follow => {
                if inner.head.map(|h| h.id) != commit.parents.first().copied() {
                    return Err(Malformed("commit does not follow the head of its branch").at(format!("commit {:.12}", commit.id)));
                }
                Root::clone(inner.root())
            }
        };
        let before = inner.dirty.is_some().then(|| inner.root().clone());
        let root = match mode {
            record::CommitMode::Staged => root,
            record::CommitMode::Follow => {
                // On a clean branch nobody else has the root, so that it is changed in place.
                drop(root);
                let mut root = inner.head_root.take().expect("BUG: the head's root is taken");
                root.apply(changes, &self.shared.chunks())?;
                root
            }
        };
        let followed = inner.follow(before.as_ref(), &root, changes, mode)?;
        inner.advance(head, root, followed);
        self.shared.pace.count(changes.row_count() + 1);
        Ok(())
    }

    fn finish(mut self) -> Result<Registry> {
        for branch in self.branches.into_values() {
            // Versions that made a database in several steps may have left a branch without a commit; nobody was told of it.
            if branch.cell.head().is_none() {
                self.databases.remove(&branch.database);
                drop_unmade(self.shared, branch.database)?;
                continue;
            }
            let Some(database) = self.databases.get(&branch.database) else { continue };
            let entry = self.registry.databases.entry(database.name.clone()).or_insert_with(|| Database {
                number: branch.database,
                branches: Default::default(),
                tags: database.tags.iter().map(|t| (t.name.clone(), t.clone())).collect(),
            });
            entry.branches.insert(branch.name.clone(), Branch::new(branch.name, branch.cell));
        }
        for (number, database) in self.databases {
            // A database has a branch always; without one it is the rest of an interrupted making.
            if !self.registry.databases.contains_key(&database.name) {
                drop_unmade(self.shared, number)?;
            }
        }
        self.registry.next_oid = self.registry.oid_limit;
        Ok(self.registry)
    }
}
